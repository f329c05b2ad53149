//! A UDP header (RFC 768).

use crate::Malformed;

/// A UDP datagram, trimmed to its length field.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a>(&'a [u8]);

impl<'a> Udp<'a> {
    /// Bytes of header.
    pub const HEADER: usize = 8;

    /// Checks the length field. Of the first fragment of a datagram only the header can be read:
    /// use [`Udp::ports`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = bytes.first_chunk::<8>().ok_or(Malformed::Truncated)?;
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if len < Self::HEADER {
            return Err(Malformed::BadLength);
        }
        bytes.get(..len).map(Self).ok_or(Malformed::Truncated)
    }

    /// Source and destination port of a UDP or TCP header, which begin alike.
    pub fn ports(bytes: &[u8]) -> Result<(u16, u16), Malformed> {
        let [a, b, c, d] = *bytes.first_chunk::<4>().ok_or(Malformed::Truncated)?;
        Ok((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// The sender's port.
    pub fn source_port(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The receiver's port.
    pub fn destination_port(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// The checksum field; 0 means that there is none.
    pub fn checksum(self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// What the header is followed by.
    pub fn payload(self) -> &'a [u8] {
        &self.0[Self::HEADER..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_up_to_its_length() {
        let bytes = [0x11, 0x94, 0x01, 0xf4, 0, 10, 0, 0, 1, 2, 3];
        let udp = Udp::parse(&bytes).unwrap();
        assert_eq!((udp.source_port(), udp.destination_port(), udp.payload()), (4500, 500, &[1, 2][..]));
        assert_eq!(Udp::parse(&bytes[..9]).unwrap_err(), Malformed::Truncated);
        assert_eq!(Udp::parse(&[0; 8]).unwrap_err(), Malformed::BadLength);
    }
}
