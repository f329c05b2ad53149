//! The security association payload (RFC 7296 §3.3): proposals, each with its transforms.

use base::error::Malformed;

/// Most transforms in one payload, all proposals together.
const MAX_TRANSFORMS: usize = 512;
/// The attribute that holds a key length in bits (RFC 7296 §3.3.5).
const KEY_LENGTH: u16 = 14;
/// The bit that marks an attribute whose value is in the type-value form.
const SHORT_FORM: u16 = 0x8000;

/// Kinds of transforms (RFC 7296 §3.3.2).
pub mod kind {
    /// Encryption.
    pub const ENCR: u8 = 1;
    /// Pseudo-random function.
    pub const PRF: u8 = 2;
    /// Integrity.
    pub const INTEG: u8 = 3;
    /// Diffie-Hellman group.
    pub const DH: u8 = 4;
    /// Extended sequence numbers.
    pub const ESN: u8 = 5;
}

/// One algorithm of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Its kind.
    pub kind: u8,
    /// Its number within the kind.
    pub id: u16,
    /// Its key-length attribute.
    pub key_bits: Option<u16>,
    /// Whether it has an attribute that is not known: RFC 7296 §3.3.6 then forbids to choose it.
    pub is_odd: bool,
}

impl Transform {
    /// A transform with or without the key-length attribute.
    pub const fn new(kind: u8, id: u16, key_bits: Option<u16>) -> Self {
        Self { kind, id, key_bits, is_odd: false }
    }
}

/// One proposal: of each kind of transform, one may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// Its number, which the answer repeats.
    pub number: u8,
    /// Its protocol.
    pub protocol: u8,
    /// The sender's SPI; empty in IKE_SA_INIT.
    pub spi: &'a [u8],
    /// Its transforms.
    pub transforms: Vec<Transform>,
}

impl Proposal<'_> {
    /// Its transforms of one kind that may be chosen.
    pub fn of(&self, kind: u8) -> impl Iterator<Item = &Transform> {
        self.transforms.iter().filter(move |transform| transform.kind == kind && !transform.is_odd)
    }

    /// Whether it has any transform of this kind, chosen or not.
    pub fn has(&self, kind: u8) -> bool {
        self.transforms.iter().any(|transform| transform.kind == kind)
    }
}

pub(super) fn decode(mut bytes: &[u8]) -> Result<Vec<Proposal<'_>>, Malformed> {
    let (mut proposals, mut left) = (Vec::new(), MAX_TRANSFORMS);
    loop {
        let (own, more, rest) = substructure(bytes, 2)?;
        let (&[number, protocol, spi_len, count], body) = own.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        let (spi, body) = body.split_at_checked(usize::from(spi_len)).ok_or(Malformed::Truncated)?;
        let transforms = transforms(body, &mut left)?;
        if transforms.len() != usize::from(count) {
            return Err(Malformed::BadField("number of transforms"));
        }
        proposals.push(Proposal { number, protocol, spi, transforms });
        if !more {
            return if rest.is_empty() { Ok(proposals) } else { Err(Malformed::BadLength) };
        }
        bytes = rest;
    }
}

fn transforms(mut bytes: &[u8], left: &mut usize) -> Result<Vec<Transform>, Malformed> {
    let mut transforms = Vec::new();
    while !bytes.is_empty() {
        let (own, more, rest) = substructure(bytes, 3)?;
        *left = left.checked_sub(1).ok_or(Malformed::BadField("number of transforms"))?;
        let (&[kind, _, high, low], attributes) = own.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        let mut transform = Transform::new(kind, u16::from_be_bytes([high, low]), None);
        read_attributes(attributes, &mut transform)?;
        transforms.push(transform);
        if more == rest.is_empty() {
            return Err(Malformed::BadField("last transform"));
        }
        bytes = rest;
    }
    Ok(transforms)
}

fn read_attributes(mut bytes: &[u8], transform: &mut Transform) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let (&[a, b, c, d], rest) = bytes.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        let (kind, value) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if kind == SHORT_FORM | KEY_LENGTH && transform.key_bits.is_none() {
            transform.key_bits = Some(value);
        } else {
            transform.is_odd = true;
        }
        let long = if kind & SHORT_FORM == 0 { usize::from(value) } else { 0 };
        bytes = rest.get(long..).ok_or(Malformed::Truncated)?;
    }
    Ok(())
}

/// A proposal or transform: its bytes without the four of its head, whether another follows, and what follows.
fn substructure(bytes: &[u8], more_mark: u8) -> Result<(&[u8], bool, &[u8]), Malformed> {
    let (&[more, _, high, low], _) = bytes.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (own, rest) = bytes.split_at_checked(length).ok_or(Malformed::Truncated)?;
    let own = own.get(4..).ok_or(Malformed::BadLength)?;
    if more != 0 && more != more_mark {
        return Err(Malformed::BadField("mark of the last substructure"));
    }
    Ok((own, more != 0, rest))
}

/// Appends the proposals. A proposal has at most 255 transforms.
pub(super) fn encode(proposals: &[Proposal<'_>], out: &mut Vec<u8>) {
    for (place, proposal) in proposals.iter().enumerate() {
        let start = out.len();
        let more = if place + 1 == proposals.len() { 0 } else { 2 };
        let counts = [proposal.spi.len(), proposal.transforms.len()].map(|n| u8::try_from(n).unwrap_or(u8::MAX));
        out.extend_from_slice(&[more, 0, 0, 0, proposal.number, proposal.protocol, counts[0], counts[1]]);
        out.extend_from_slice(proposal.spi);
        for (place, transform) in proposal.transforms.iter().take(255).enumerate() {
            encode_transform(transform, place + 1 == proposal.transforms.len().min(255), out);
        }
        set_length(out, start);
    }
}

fn encode_transform(transform: &Transform, is_last: bool, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[if is_last { 0 } else { 3 }, 0, 0, 0, transform.kind, 0]);
    out.extend_from_slice(&transform.id.to_be_bytes());
    if let Some(bits) = transform.key_bits {
        out.extend_from_slice(&(SHORT_FORM | KEY_LENGTH).to_be_bytes());
        out.extend_from_slice(&bits.to_be_bytes());
    }
    set_length(out, start);
}

/// Writes the length of what began at `start` into its third and fourth byte.
pub(super) fn set_length(out: &mut [u8], start: usize) {
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
}
