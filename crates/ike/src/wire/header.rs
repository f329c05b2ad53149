//! The header of every IKE message (RFC 2408 §3.1, RFC 7296 §3.1): 28 bytes, the same layout in both versions.

use base::error::Malformed;

/// Bytes of the header.
pub const LEN: usize = 28;

/// The decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The initiator's SPI (IKEv1: cookie); never zero.
    pub initiator_spi: u64,
    /// The responder's SPI; zero in a first message.
    pub responder_spi: u64,
    /// Type of the first payload.
    pub next_payload: u8,
    /// Major version: 1 or 2.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// Exchange type.
    pub exchange: u8,
    /// Flags, with different bits in each version.
    pub flags: u8,
    /// Message ID.
    pub message_id: u32,
    /// Length of the whole message, header included.
    pub length: u32,
}

impl Header {
    /// Reads the header in front of `bytes`, and checks that its length is that of `bytes`: trailing bytes are as
    /// wrong as missing ones.
    ///
    /// # Errors
    /// `Truncated` with fewer than 28 bytes, `BadLength` where the length differs, `BadField` for a zero initiator SPI.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (head, _) = bytes.split_first_chunk::<LEN>().ok_or(Malformed::Truncated)?;
        let u64_at = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| head[at + i]));
        let u32_at = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| head[at + i]));
        let header = Self {
            initiator_spi: u64_at(0),
            responder_spi: u64_at(8),
            next_payload: head[16],
            major: head[17] >> 4,
            minor: head[17] & 0xf,
            exchange: head[18],
            flags: head[19],
            message_id: u32_at(20),
            length: u32_at(24),
        };
        if header.length as usize != bytes.len() {
            return Err(Malformed::BadLength);
        }
        if header.initiator_spi == 0 {
            return Err(Malformed::BadField("initiator SPI"));
        }
        Ok(header)
    }

    /// The bytes of the header.
    pub fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&self.initiator_spi.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.responder_spi.to_be_bytes());
        bytes[16] = self.next_payload;
        bytes[17] = self.major << 4 | self.minor;
        bytes[18] = self.exchange;
        bytes[19] = self.flags;
        bytes[20..24].copy_from_slice(&self.message_id.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_comes_back_as_it_was(bytes in any::<[u8; LEN]>()) {
            let mut bytes = bytes;
            bytes[0] |= 1;
            bytes[24..].copy_from_slice(&(LEN as u32).to_be_bytes());
            prop_assert_eq!(Header::decode(&bytes).unwrap().encode(), bytes);
        }
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        let mut bytes = [1; LEN];
        assert_eq!(Header::decode(&bytes), Err(Malformed::BadLength));
        bytes[24..].copy_from_slice(&29u32.to_be_bytes());
        assert_eq!(Header::decode(&bytes), Err(Malformed::BadLength));
        assert_eq!(Header::decode(&bytes[..27]), Err(Malformed::Truncated));
    }
}
