//! The security association payload: proposals, their transforms and attributes (RFC 2408 §3.3 to §3.6).

use base::error::Malformed;

use super::DOI_IPSEC;

/// Proposals of one payload.
const MAX_PROPOSALS: usize = 64;
/// Transforms of one proposal; their number is a byte.
const MAX_TRANSFORMS: usize = 255;
/// Attributes of one transform.
const MAX_ATTRIBUTES: usize = 32;
/// Bytes of an attribute's value: groups of one's own have long ones.
const MAX_VALUE: usize = 2_048;
/// SIT_IDENTITY_ONLY (RFC 2407 §4.2.1).
const SITUATION_IDENTITY_ONLY: u32 = 1;

/// The body of a security association payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaPayload {
    /// In order; those with the same number belong together (AND), others are alternatives (OR).
    pub proposals: Vec<Proposal>,
}

/// A protocol with its alternative transforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its number.
    pub number: u8,
    /// Its protocol.
    pub protocol: u8,
    /// The sender's SPI; for ISAKMP it may be empty and means nothing.
    pub spi: Vec<u8>,
    /// In the order of preference.
    pub transforms: Vec<Transform>,
}

/// One transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Its number within the proposal.
    pub number: u8,
    /// What it is: KEY_IKE in phase 1, the ESP algorithm in phase 2.
    pub id: u8,
    /// In their order, which matters for lifetimes.
    pub attributes: Vec<Attribute>,
}

/// An attribute (RFC 2408 §3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its class, without the format bit.
    pub kind: u16,
    /// Its value.
    pub value: Value,
}

/// The value of an attribute in either format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Two bytes.
    Basic(u16),
    /// Any number of bytes.
    Variable(Vec<u8>),
}

impl Attribute {
    /// An attribute of two bytes.
    pub const fn basic(kind: u16, value: u16) -> Self {
        Self { kind, value: Value::Basic(value) }
    }

    /// A number: two bytes where it fits, else four or eight.
    pub fn number(kind: u16, value: u64) -> Self {
        let value = match (u16::try_from(value), u32::try_from(value)) {
            (Ok(value), _) => Value::Basic(value),
            (Err(_), Ok(value)) => Value::Variable(value.to_be_bytes().to_vec()),
            (Err(_), Err(_)) => Value::Variable(value.to_be_bytes().to_vec()),
        };
        Self { kind, value }
    }
}

/// The number that a value stands for; more than fits is as much as fits.
pub fn attribute_value(value: &Value) -> u64 {
    match value {
        Value::Basic(value) => u64::from(*value),
        Value::Variable(bytes) => {
            bytes.iter().fold(0u64, |sum, byte| if sum >> 56 == 0 { sum << 8 | u64::from(*byte) } else { u64::MAX })
        }
    }
}

impl SaPayload {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// Lengths that do not fit, more proposals, transforms or attributes than anyone sends, or another DOI or
    /// situation than IPsec with identities only.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let (head, mut rest) = body.split_first_chunk::<8>().ok_or(Malformed::Truncated)?;
        if head[..4] != DOI_IPSEC.to_be_bytes() {
            return Err(Malformed::BadField("DOI"));
        }
        if head[4..] != SITUATION_IDENTITY_ONLY.to_be_bytes() {
            return Err(Malformed::BadField("situation"));
        }
        let mut proposals = Vec::new();
        let mut more = true;
        while more {
            if proposals.len() == MAX_PROPOSALS {
                return Err(Malformed::BadField("number of proposals"));
            }
            let (next, body) = split_substructure(&mut rest)?;
            more = more_follow(next, 2)?;
            proposals.push(Proposal::decode(body)?);
        }
        if rest.is_empty() { Ok(Self { proposals }) } else { Err(Malformed::BadLength) }
    }

    /// The body of the payload. There is at least one proposal.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [DOI_IPSEC.to_be_bytes(), SITUATION_IDENTITY_ONLY.to_be_bytes()].concat();
        for (place, proposal) in self.proposals.iter().enumerate() {
            let next = if place + 1 < self.proposals.len() { 2 } else { 0 };
            push_substructure(&mut bytes, next, &proposal.encode());
        }
        bytes
    }
}

impl Proposal {
    fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let (&[number, protocol, spi_len, count], rest) = body.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        let (spi, mut rest) = rest.split_at_checked(usize::from(spi_len)).ok_or(Malformed::Truncated)?;
        let mut transforms = Vec::new();
        let mut more = true;
        while more {
            if transforms.len() == MAX_TRANSFORMS {
                return Err(Malformed::BadField("number of transforms"));
            }
            let (next, body) = split_substructure(&mut rest)?;
            more = more_follow(next, 3)?;
            let (&[number, id, _, _], attributes) = body.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
            transforms.push(Transform { number, id, attributes: decode_attributes(attributes)? });
        }
        if !rest.is_empty() || transforms.len() != usize::from(count) {
            return Err(Malformed::BadLength);
        }
        Ok(Self { number, protocol, spi: spi.to_vec(), transforms })
    }

    fn encode(&self) -> Vec<u8> {
        let count = u8::try_from(self.transforms.len()).expect("at most 255 transforms");
        let spi_len = u8::try_from(self.spi.len()).expect("an SPI is short");
        let mut bytes = [&[self.number, self.protocol, spi_len, count], &self.spi[..]].concat();
        for (place, transform) in self.transforms.iter().enumerate() {
            let next = if place + 1 < self.transforms.len() { 3 } else { 0 };
            let mut body = vec![transform.number, transform.id, 0, 0];
            body.extend(encode_attributes(&transform.attributes));
            push_substructure(&mut bytes, next, &body);
        }
        bytes
    }
}

/// Splits a proposal or transform off `rest`: the type of the next one, and its body.
fn split_substructure<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), Malformed> {
    let (head, behind) = rest.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    let len = usize::from(u16::from_be_bytes([head[2], head[3]])).checked_sub(4).ok_or(Malformed::BadLength)?;
    let (body, after) = behind.split_at_checked(len).ok_or(Malformed::BadLength)?;
    *rest = after;
    Ok((head[0], body))
}

fn more_follow(next: u8, same: u8) -> Result<bool, Malformed> {
    match next {
        0 => Ok(false),
        next if next == same => Ok(true),
        _ => Err(Malformed::BadField("next proposal or transform")),
    }
}

fn push_substructure(bytes: &mut Vec<u8>, next: u8, body: &[u8]) {
    let len = u16::try_from(body.len() + 4).expect("we send no payload above 64 KB");
    bytes.extend_from_slice(&[next, 0]);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(body);
}

/// Reads attributes up to the end of `rest`. A notification of a lifetime has them too.
///
/// # Errors
/// Lengths that do not fit, or more than any peer sends.
pub fn decode_attributes(mut rest: &[u8]) -> Result<Vec<Attribute>, Malformed> {
    let mut attributes = Vec::new();
    while !rest.is_empty() {
        if attributes.len() == MAX_ATTRIBUTES {
            return Err(Malformed::BadField("number of attributes"));
        }
        let (&[k1, k2, v1, v2], behind) = rest.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        let (kind, value) = (u16::from_be_bytes([k1, k2]), u16::from_be_bytes([v1, v2]));
        if kind & 0x8000 != 0 {
            attributes.push(Attribute::basic(kind & 0x7fff, value));
            rest = behind;
        } else {
            let (value, after) = behind.split_at_checked(usize::from(value)).ok_or(Malformed::BadLength)?;
            if value.len() > MAX_VALUE {
                return Err(Malformed::BadField("length of an attribute"));
            }
            attributes.push(Attribute { kind, value: Value::Variable(value.to_vec()) });
            rest = after;
        }
    }
    Ok(attributes)
}

/// The bytes of attributes.
pub fn encode_attributes(attributes: &[Attribute]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Attribute { kind, value } in attributes {
        match value {
            Value::Basic(value) => {
                bytes.extend_from_slice(&(kind | 0x8000).to_be_bytes());
                bytes.extend_from_slice(&value.to_be_bytes());
            }
            Value::Variable(value) => {
                let len = u16::try_from(value.len()).expect("an attribute is short");
                bytes.extend_from_slice(&kind.to_be_bytes());
                bytes.extend_from_slice(&len.to_be_bytes());
                bytes.extend_from_slice(value);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_attribute() -> impl Strategy<Value = Attribute> {
        let value = prop_oneof![
            any::<u16>().prop_map(Value::Basic),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Variable)
        ];
        (0u16..0x8000, value).prop_map(|(kind, value)| Attribute { kind, value })
    }

    fn any_proposal() -> impl Strategy<Value = Proposal> {
        let transform = (any::<u8>(), any::<u8>(), prop::collection::vec(any_attribute(), 0..8))
            .prop_map(|(number, id, attributes)| Transform { number, id, attributes });
        let spi = prop::collection::vec(any::<u8>(), 0..17);
        (any::<u8>(), any::<u8>(), spi, prop::collection::vec(transform, 1..6))
            .prop_map(|(number, protocol, spi, transforms)| Proposal { number, protocol, spi, transforms })
    }

    proptest! {
        #[test]
        fn an_sa_payload_comes_back_as_it_was(proposals in prop::collection::vec(any_proposal(), 1..6)) {
            let payload = SaPayload { proposals };
            prop_assert_eq!(SaPayload::decode(&payload.encode()), Ok(payload));
        }

        #[test]
        fn a_number_comes_back_from_its_attribute(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            prop_assert_eq!(attribute_value(&Attribute::number(12, value).value), value);
        }

        #[test]
        fn a_changed_byte_never_makes_the_decoder_panic(
            proposals in prop::collection::vec(any_proposal(), 1..4), at: prop::sample::Index, byte: u8,
        ) {
            let mut bytes = SaPayload { proposals }.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(payload) = SaPayload::decode(&bytes) {
                prop_assert_eq!(SaPayload::decode(&payload.encode()), Ok(payload));
            }
        }
    }

    #[test]
    fn a_lifetime_wider_than_the_machine_counts_as_the_longest() {
        assert_eq!(attribute_value(&Value::Variable(vec![0, 0, 0x70, 0x80])), 28_800);
        assert_eq!(attribute_value(&Value::Variable(vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 1])), 1);
        assert_eq!(attribute_value(&Value::Variable(vec![0xff; 12])), u64::MAX);
    }
}
