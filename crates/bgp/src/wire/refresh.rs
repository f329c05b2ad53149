//! ROUTE-REFRESH: please say everything again (RFC 2918), and where that begins and ends (RFC 7313).

use super::{Code, MessageKind, Notification, write_message};
use crate::Family;

/// What a ROUTE-REFRESH says (RFC 7313 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefreshKind {
    /// Please say everything again.
    Request,
    /// Everything follows again.
    Begin,
    /// That was everything.
    End,
}

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Refresh {
    /// What it says.
    pub kind: RefreshKind,
    /// Of which family.
    pub family: Family,
}

impl Refresh {
    /// Reads one. `None`: it is of a family or of a kind that is not spoken here, and is ignored (RFC 2918 §4,
    /// RFC 7313 §5).
    ///
    /// # Errors
    /// When its length cannot be. RFC 2918 says nothing of it; RFC 7313 §5 does.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, Notification> {
        let &[high, low, subtype, safi] = body else {
            // RFC 7313 §5: of another length, with the message. One of RFC 5291 carries filters, which are not offered.
            let mut message = Vec::new();
            write_message(&mut message, MessageKind::RouteRefresh, |out| out.extend_from_slice(body));
            return Err(Notification::new(Code::REFRESH, 1, &message));
        };
        let kind = match subtype {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            _ => return Ok(None),
        };
        let afi = u16::from_be_bytes([high, low]);
        let family = Family::ALL.into_iter().find(|family| family.afi() == afi && safi == 1);
        Ok(family.map(|family| Self { kind, family }))
    }

    /// Appends it as a message.
    pub fn write(self, out: &mut Vec<u8>) {
        let [high, low] = self.family.afi().to_be_bytes();
        let subtype = match self.kind {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
        };
        write_message(out, MessageKind::RouteRefresh, |out| out.extend_from_slice(&[high, low, subtype, 1]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_comes_back_for_each_family() {
        for family in Family::ALL {
            for kind in [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End] {
                let (sent, mut bytes) = (Refresh { kind, family }, Vec::new());
                sent.write(&mut bytes);
                let (message, _) = super::super::split(&bytes).unwrap().unwrap();
                assert_eq!(Refresh::decode(message.body), Ok(Some(sent)));
            }
        }
    }

    #[test]
    fn what_is_unknown_is_ignored_and_another_length_is_an_error() {
        for body in [[0, 1, 3, 1], [0, 25, 0, 1], [0, 1, 0, 128]] {
            assert_eq!(Refresh::decode(&body), Ok(None), "{body:?}");
        }
        let error = Refresh::decode(&[0, 1, 0, 1, 9]).unwrap_err();
        assert_eq!((error.code, error.subcode, error.data.len()), (Code::REFRESH, 1, 24));
    }
}
