//! The control packet (RFC 5880 §4.1): bytes to meaning and back.
//!
//! Decoding makes the first six checks of §6.8.6, those that need no session, in the order of the text.

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};

use crate::status::Discard;

/// Bytes of a control packet without authentication.
pub const HEADER: usize = 24;

/// Bytes of an authentication section of either SHA1 kind (RFC 5880 §4.4).
pub const SHA1_SECTION: usize = 28;

/// Bytes of the longest control packet that we send.
pub const LONGEST: usize = HEADER + SHA1_SECTION;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// A session's state, as it is on the wire (RFC 5880 §4.1); every value of the two bits has a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Held down by a person: it says nothing about the path.
    AdminDown,
    /// Nothing is heard, or what is heard says Down.
    Down,
    /// The neighbor is heard and is asked to hear us.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "admin-down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        })
    }
}

/// Why a system's session last changed its state: five bits, of which IANA's registry names ten values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// Nothing to say.
    pub const NONE: Self = Self(0);
    /// The neighbor was not heard for the detection time.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// Echo packets did not come back.
    pub const ECHO_FAILED: Self = Self(2);
    /// The neighbor says that the session is down.
    pub const NEIGHBOR_SIGNALED_DOWN: Self = Self(3);
    /// The forwarding plane was restarted.
    pub const FORWARDING_PLANE_RESET: Self = Self(4);
    /// Something outside of BFD says that the path is down.
    pub const PATH_DOWN: Self = Self(5);
    /// A path behind this one is down.
    pub const CONCATENATED_PATH_DOWN: Self = Self(6);
    /// A person took it down.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);
    /// A path behind this one is down, in the other direction.
    pub const REVERSE_CONCATENATED_PATH_DOWN: Self = Self(8);
    /// Packets of another connection arrive (RFC 6428).
    pub const MISCONNECTIVITY: Self = Self(9);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::NONE => "no diagnostic",
            Self::DETECTION_TIME_EXPIRED => "control detection time expired",
            Self::ECHO_FAILED => "echo function failed",
            Self::NEIGHBOR_SIGNALED_DOWN => "neighbor signaled session down",
            Self::FORWARDING_PLANE_RESET => "forwarding plane reset",
            Self::PATH_DOWN => "path down",
            Self::CONCATENATED_PATH_DOWN => "concatenated path down",
            Self::ADMINISTRATIVELY_DOWN => "administratively down",
            Self::REVERSE_CONCATENATED_PATH_DOWN => "reverse concatenated path down",
            Self::MISCONNECTIVITY => "mis-connectivity defect",
            Self(other) => return write!(f, "diagnostic {other}"),
        })
    }
}

/// The fixed part of a control packet. Intervals are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last changed its state; five bits.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: the sender asks for an answer.
    pub poll: bool,
    /// F: the answer.
    pub is_final: bool,
    /// C: the sender's BFD outlives its control plane.
    pub control_plane_independent: bool,
    /// D: the sender wants no periodic packets.
    pub demand: bool,
    /// How many packets may be missed.
    pub multiplier: NonZeroU8,
    /// The sender's discriminator.
    pub my_discriminator: NonZeroU32,
    /// The receiver's, as far as the sender knows it.
    pub your_discriminator: Option<NonZeroU32>,
    /// The sender wants to send this rarely.
    pub desired_min_tx: u32,
    /// The sender can receive this often; 0 wants no periodic packets.
    pub required_min_rx: u32,
    /// The sender can echo this often; 0 does not echo.
    pub required_min_echo_rx: u32,
}

/// A packet, and the authentication section behind it as it came: from its type on, to the end that the packet's
/// Length field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The fixed part.
    pub packet: Packet,
    /// The whole packet, without what may follow it in the datagram.
    pub bytes: &'a [u8],
    /// The authentication section, where the A bit is set: at least two bytes.
    pub section: Option<&'a [u8]>,
}

impl Packet {
    /// Reads a UDP payload.
    ///
    /// # Errors
    /// With the first check of RFC 5880 §6.8.6 that fails.
    pub fn decode(payload: &[u8]) -> Result<Decoded<'_>, Discard> {
        let &[first, second, _, length, ..] = payload else { return Err(Discard::Truncated) };
        if first >> 5 != 1 {
            return Err(Discard::Version);
        }
        let (length, has_section) = (usize::from(length), second & AUTHENTICATED != 0);
        if length < HEADER + if has_section { 2 } else { 0 } {
            return Err(Discard::LengthTooShort);
        }
        let bytes = payload.get(..length).ok_or(Discard::LengthBeyondPayload)?;
        let (header, section) = bytes.split_first_chunk::<HEADER>().ok_or(Discard::Truncated)?;
        let word = |at: usize| {
            u32::from_be_bytes(std::array::from_fn(|index| header.get(at + index).copied().unwrap_or_default()))
        };
        let multiplier = NonZeroU8::new(header[2]).ok_or(Discard::ZeroMultiplier)?;
        if second & MULTIPOINT != 0 {
            return Err(Discard::Multipoint);
        }
        let my_discriminator = NonZeroU32::new(word(4)).ok_or(Discard::ZeroMyDiscriminator)?;
        let packet = Self {
            diagnostic: Diagnostic(first & 0x1f),
            state: State::from_bits(second >> 6),
            poll: second & POLL != 0,
            is_final: second & FINAL != 0,
            control_plane_independent: second & CONTROL_PLANE_INDEPENDENT != 0,
            demand: second & DEMAND != 0,
            multiplier,
            my_discriminator,
            your_discriminator: NonZeroU32::new(word(8)),
            desired_min_tx: word(12),
            required_min_rx: word(16),
            required_min_echo_rx: word(20),
        };
        Ok(Decoded { packet, bytes, section: has_section.then_some(section) })
    }

    /// The bytes of the packet without authentication.
    pub fn encode(&self) -> Payload {
        let mut payload = Payload::default();
        payload.push(&[0x20 | self.diagnostic.0 & 0x1f, self.flags(), self.multiplier.get(), HEADER as u8]);
        payload.push(&self.my_discriminator.get().to_be_bytes());
        payload.push(&self.your_discriminator.map_or(0, NonZeroU32::get).to_be_bytes());
        payload.push(&self.desired_min_tx.to_be_bytes());
        payload.push(&self.required_min_rx.to_be_bytes());
        payload.push(&self.required_min_echo_rx.to_be_bytes());
        payload
    }

    fn flags(&self) -> u8 {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        self.state.bits() << 6
            | flag(self.poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.demand, DEMAND)
    }
}

/// The UDP payload of a control packet, inline: at most [`LONGEST`] bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    bytes: [u8; LONGEST],
    len: u8,
}

impl Payload {
    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Appends; what does not fit is left out, and nothing here is longer than [`LONGEST`].
    fn push(&mut self, more: &[u8]) {
        for byte in more {
            if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    /// Appends an authentication section: sets the A bit and the length.
    pub(crate) fn push_section(&mut self, section: &[u8; SHA1_SECTION]) {
        self.push(section);
        self.bytes[1] |= AUTHENTICATED;
        self.bytes[3] = self.len;
    }

    /// Overwrites the last bytes.
    pub(crate) fn set_tail(&mut self, tail: &[u8; 20]) {
        let end = usize::from(self.len);
        if let Some(place) = self.bytes.get_mut(end.saturating_sub(tail.len())..end) {
            place.copy_from_slice(tail);
        }
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self { bytes: [0; LONGEST], len: 0 }
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Down, no discriminator of the other end yet, 1 s, 100 ms, three packets.
    const FIRST: [u8; 24] = [
        0x20, 0x40, 0x03, 0x18, 0x4c, 0x5d, 0x2a, 0x11, 0, 0, 0, 0, 0x00, 0x0f, 0x42, 0x40, 0x00, 0x01, 0x86, 0xa0, 0,
        0, 0, 0,
    ];

    #[test]
    fn a_packet_reads_as_the_rfc_draws_it() {
        let decoded = Packet::decode(&FIRST).unwrap();
        assert_eq!(
            decoded.packet,
            Packet {
                diagnostic: Diagnostic::NONE,
                state: State::Down,
                poll: false,
                is_final: false,
                control_plane_independent: false,
                demand: false,
                multiplier: NonZeroU8::new(3).unwrap(),
                my_discriminator: NonZeroU32::new(0x4c5d_2a11).unwrap(),
                your_discriminator: None,
                desired_min_tx: 1_000_000,
                required_min_rx: 100_000,
                required_min_echo_rx: 0,
            }
        );
        assert_eq!(decoded.packet.encode().as_bytes(), FIRST);
    }

    #[test]
    fn the_packets_of_bird_read_as_bird_meant_them() {
        // What a BIRD 2.0.12 sent on its way up: Init, Up with F to our poll, Up with a poll of its own.
        let sent: [(u128, bool, bool); 3] = [
            (0x2080_0318_8cf7_5200_d52d_15e8_000f_4240, false, false),
            (0x20d0_0318_8cf7_5200_d52d_15e8_0001_86a0, false, true),
            (0x20e0_0318_8cf7_5200_d52d_15e8_0001_86a0, true, false),
        ];
        for (first, poll, is_final) in sent {
            let bytes = [&first.to_be_bytes()[..], &[0, 1, 0x86, 0xa0, 0, 0, 0, 0]].concat();
            let packet = Packet::decode(&bytes).unwrap().packet;
            assert_eq!((packet.poll, packet.is_final, packet.required_min_rx), (poll, is_final, 100_000));
            assert_eq!(packet.state, if poll || is_final { State::Up } else { State::Init });
            assert_eq!(packet.desired_min_tx, if poll || is_final { 100_000 } else { 1_000_000 });
            assert_eq!(packet.your_discriminator.map(NonZeroU32::get), Some(0xd52d_15e8));
            assert_eq!(packet.encode().as_bytes(), bytes);
        }
    }

    #[test]
    fn each_check_finds_its_own_fault_and_the_first_one_wins() {
        let with = |changes: &[(usize, u8)]| {
            let mut bytes = FIRST;
            for (at, value) in changes {
                bytes[*at] = *value;
            }
            Packet::decode(&bytes).map(|decoded| decoded.packet.state)
        };
        assert_eq!(with(&[]), Ok(State::Down));
        // Each line has every fault of the lines below it too.
        let faults: [(&[(usize, u8)], Discard); 6] = [
            (&[(0, 0x40)], Discard::Version),
            (&[(3, 23)], Discard::LengthTooShort),
            (&[(3, 25)], Discard::LengthBeyondPayload),
            (&[(2, 0)], Discard::ZeroMultiplier),
            (&[(1, 0x41)], Discard::Multipoint),
            (&[(4, 0), (5, 0), (6, 0), (7, 0)], Discard::ZeroMyDiscriminator),
        ];
        for first in 0..faults.len() {
            let changes: Vec<_> = faults[first..].iter().rev().flat_map(|(c, _)| c.iter().copied()).collect();
            assert_eq!(with(&changes), Err(faults[first].1), "from fault {first} on");
        }
        // With the A bit two more bytes are needed.
        assert_eq!(with(&[(1, 0x44)]), Err(Discard::LengthTooShort));
        assert_eq!(with(&[(1, 0x44), (3, 26)]), Err(Discard::LengthBeyondPayload));
        assert_eq!(Packet::decode(&FIRST[..3]), Err(Discard::Truncated));
        assert_eq!(Packet::decode(&FIRST[..23]), Err(Discard::LengthBeyondPayload));
    }

    #[test]
    fn what_follows_the_packet_in_its_datagram_is_not_read() {
        let longer = [&FIRST[..], &[0xff; 9]].concat();
        let decoded = Packet::decode(&longer).unwrap();
        assert_eq!((decoded.bytes, decoded.section), (&FIRST[..], None));
    }

    proptest! {
        #[test]
        fn whatever_is_understood_comes_back_from_its_own_encoding(mut bytes in prop::collection::vec(any::<u8>(), 0..80), fit: bool) {
            if fit && bytes.len() >= HEADER {
                (bytes[0], bytes[1], bytes[3]) = (0x20 | bytes[0] & 0x1f, bytes[1] & !MULTIPOINT, bytes.len() as u8);
            }
            if let Ok(decoded) = Packet::decode(&bytes) {
                let again = decoded.packet.encode();
                let mut expected = bytes[..HEADER].to_vec();
                expected[1] &= !AUTHENTICATED;
                expected[3] = HEADER as u8;
                prop_assert_eq!(again.as_bytes(), &expected[..]);
                prop_assert_eq!(decoded.bytes.len(), usize::from(bytes[3]));
                prop_assert_eq!(decoded.section.map(<[u8]>::len), (bytes[1] & AUTHENTICATED != 0).then(|| decoded.bytes.len() - HEADER));
            } else {
                prop_assert!(!fit || bytes.len() < 26 || bytes[2] == 0 || bytes[4..8] == [0; 4]);
            }
        }
    }
}
