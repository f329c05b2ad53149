//! A TCP header and its options (RFC 9293 §3.1, §3.2).

use crate::Malformed;

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a>(&'a [u8]);

impl<'a> Tcp<'a> {
    /// Bytes of a header without options.
    pub const MIN_HEADER: usize = 20;
    /// The flag of the last segment of one side.
    pub const FIN: u8 = 1;
    /// The flag of the first segment of one side.
    pub const SYN: u8 = 2;
    /// The flag of a reset.
    pub const RST: u8 = 4;
    /// The flag of a segment to be handed on at once.
    pub const PSH: u8 = 8;
    /// The flag of an acknowledgement.
    pub const ACK: u8 = 16;

    /// Checks the data offset.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = bytes.first_chunk::<20>().ok_or(Malformed::Truncated)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < Self::MIN_HEADER {
            return Err(Malformed::BadLength);
        }
        if bytes.len() < header_len {
            return Err(Malformed::Truncated);
        }
        Ok(Self(bytes))
    }

    /// The sender's port.
    pub fn source_port(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The receiver's port.
    pub fn destination_port(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// The sequence number.
    pub fn sequence(self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// The acknowledgement number.
    pub fn acknowledgement(self) -> u32 {
        u32::from_be_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    /// Bytes of header, options included: 20..=60.
    pub fn header_len(self) -> usize {
        usize::from(self.0[12] >> 4) * 4
    }

    /// The low eight flags.
    pub fn flags(self) -> u8 {
        self.0[13]
    }

    /// What the header is followed by.
    pub fn payload(self) -> &'a [u8] {
        &self.0[self.header_len()..]
    }

    /// The options up to the end-of-list or the first one whose length does not fit.
    pub fn options(self) -> TcpOptions<'a> {
        TcpOptions { header: &self.0[..self.header_len()], at: Self::MIN_HEADER }
    }

    /// The maximum segment size that the sender of a SYN accepts.
    pub fn mss(self) -> Option<u16> {
        self.options().find_map(|option| option.mss())
    }
}

/// One option, no-operations left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOption<'a> {
    /// Its kind; 2 is the maximum segment size.
    pub kind: u8,
    /// Where its value begins, counted from the first byte of the TCP header.
    pub at: usize,
    /// Its value.
    pub value: &'a [u8],
}

impl TcpOption<'_> {
    /// The value of a maximum-segment-size option.
    pub fn mss(&self) -> Option<u16> {
        match (self.kind, self.value) {
            (2, &[high, low]) => Some(u16::from_be_bytes([high, low])),
            _ => None,
        }
    }
}

/// The options of one header, in order.
#[derive(Clone, Debug)]
pub struct TcpOptions<'a> {
    header: &'a [u8],
    at: usize,
}

impl<'a> Iterator for TcpOptions<'a> {
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.header.get(self.at) == Some(&1) {
            self.at += 1;
        }
        let kind = *self.header.get(self.at)?;
        let len = usize::from(*self.header.get(self.at + 1)?);
        let at = self.at + 2;
        if kind == 0 || len < 2 {
            self.at = self.header.len();
            return None;
        }
        let value = self.header.get(at..at + len - 2)?;
        self.at += len;
        Some(TcpOption { kind, at, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[12] = ((20 + options.len()) << 2) as u8;
        bytes.extend(options);
        bytes
    }

    #[test]
    fn the_segment_size_is_found_behind_other_options() {
        let bytes = segment(&[1, 3, 3, 7, 1, 2, 4, 0x05, 0xb4, 1, 0, 0]);
        let tcp = Tcp::parse(&bytes).unwrap();
        assert_eq!(tcp.mss(), Some(1460));
        assert_eq!(tcp.options().map(|o| (o.kind, o.at)).collect::<Vec<_>>(), [(3, 23), (2, 27)]);
    }

    #[test]
    fn an_option_that_leaves_the_header_or_has_no_length_ends_the_list() {
        for options in [&[2, 4, 5, 0xb4][..3], &[2, 0, 1, 1], &[8, 10, 0, 0], &[0, 2, 4, 5]] {
            let mut padded = options.to_vec();
            padded.resize(4, 3);
            if options.len() == 3 {
                padded = vec![1, 1, 1, 2];
            }
            let bytes = segment(&padded);
            assert_eq!(Tcp::parse(&bytes).unwrap().options().count(), 0, "{padded:?}");
        }
    }

    #[test]
    fn a_data_offset_that_does_not_fit_is_refused() {
        let mut bytes = segment(&[]);
        bytes[12] = 0x40;
        assert_eq!(Tcp::parse(&bytes).unwrap_err(), Malformed::BadLength);
        bytes[12] = 0x60;
        assert_eq!(Tcp::parse(&bytes).unwrap_err(), Malformed::Truncated);
    }
}
