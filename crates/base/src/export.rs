//! What one process hands to another: moments, bytes and secrets in a form that both understand.
//!
//! A machine's own structures stay as they are; each crate that hands something over has plain structures for it, made
//! of these. The form is serde's, so that a reader takes what an older writer left out by its default, and overlooks what
//! a newer one added.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::{Instant, Secret};

/// A moment, as microseconds from that of the export; negative before it. So timers run on where the clock of the one
/// who takes over began at another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(i64);

impl Moment {
    /// `at`, seen from `now`.
    pub fn of(at: Instant, now: Instant) -> Self {
        let (at, now) = (at.as_micros(), now.as_micros());
        let distance = i64::try_from(at.abs_diff(now)).unwrap_or(i64::MAX);
        Self(if at < now { -distance } else { distance })
    }

    /// The moment by the clock that shows `now`. What lies before that clock's beginning is moved to it.
    pub fn at(self, now: Instant) -> Instant {
        if self.0 == i64::MAX {
            return Instant::FAR_FUTURE;
        }
        Instant::from_micros(now.as_micros().saturating_add_signed(self.0))
    }
}

/// Bytes that are no secret, written as hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Digits).map(|mut bytes| Self(std::mem::take(&mut *bytes)))
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// A secret that is meant to be written out, for a process that takes over: into memory and sockets that nobody else
/// reads, never into a file or a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed(pub Secret);

impl Serialize for Exposed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(self.0.expose()))
    }
}

impl<'de> Deserialize<'de> for Exposed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Digits).map(|bytes| Self(Secret::from(bytes.as_slice())))
    }
}

/// For fields that are lists of secrets: `#[serde(with = "base::export::secrets")]`.
pub mod secrets {
    use super::{Deserialize, Deserializer, Exposed, Secret, Serializer};

    /// Writes them out, as [`Exposed`].
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(secrets: &[Secret], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(secrets.iter().map(|secret| Exposed(secret.clone())))
    }

    /// Reads them.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Secret>, D::Error> {
        let all = Vec::<Exposed>::deserialize(deserializer)?;
        Ok(all.into_iter().map(|Exposed(secret)| secret).collect())
    }
}

/// Of the exact size from the beginning, so that no copy is left behind in memory.
fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(half.into(), 16).unwrap_or_default());
        }
    }
    text
}

struct Digits;

impl Visitor<'_> for Digits {
    type Value = Zeroizing<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an even number of hexadecimal digits")
    }

    // Deliberate: errors do not repeat what was found, which may be part of a key.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let wrong = || E::custom("these are no hexadecimal digits in pairs");
        if !text.len().is_multiple_of(2) {
            return Err(wrong());
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
        for pair in text.as_bytes().chunks_exact(2) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (high, low) = digit(0).zip(digit(1)).ok_or_else(wrong)?;
            bytes.push(high << 4 | low);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_keeps_its_distance_under_another_clock() {
        let (then, now) = (Instant::from_micros(5_000_000), Instant::from_micros(70));
        let expiry = Moment::of(then + Duration::from_secs(3), then);
        assert_eq!(expiry.at(now), now + Duration::from_secs(3));
        let past = Moment::of(Instant::from_micros(4_999_990), then);
        assert_eq!(past.at(now), Instant::from_micros(60));
        assert_eq!(Moment::of(Instant::ZERO, then).at(now), Instant::ZERO, "before that clock's beginning");
        assert_eq!(Moment::of(Instant::FAR_FUTURE, then).at(now), Instant::FAR_FUTURE);
    }

    #[test]
    fn nonsense_is_refused_without_being_repeated() {
        for text in ["\"0\"", "\"0g\"", "\"\u{e4}\"", "7"] {
            let error = serde_json::from_str::<Exposed>(text).unwrap_err().to_string();
            assert!(!error.contains("0g"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn bytes_and_secrets_come_back(bytes: Vec<u8>) {
            let text = serde_json::to_string(&(Bytes(bytes.clone()), Exposed(Secret::from(&bytes[..])))).unwrap();
            let (back, secret): (Bytes, Exposed) = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&back.0, &bytes);
            prop_assert_eq!(secret.0.expose(), &bytes[..]);
        }
    }
}
