//! Proposals in the spellings of strongSwan (`aes128-sha1-modp1024`) and of Openswan and Libreswan
//! (`aes128-sha1;modp1024`, `aes_gcm256-null`, `sha2_256`, `dh14`, `+` between alternatives).
//!
//! Both are read by one set of words: no word means two things, but for a bare `aes`, which is 128 bits to strongSwan
//! and any size to Libreswan. Commas separate proposals; a `!` at the end of strongSwan's list keeps its defaults away.

use std::fmt;
use std::ops::Range;

use base::algorithm::{Encryption, Group, Integrity, Prf};
use model::{EspProposal, IkeProposal};

use crate::diagnostic::nearest;

/// A word of a proposal that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposalError {
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// The bytes of the text that are meant.
    pub at: Range<usize>,
    /// The known word that was probably meant.
    pub nearest: Option<&'static str>,
}

impl fmt::Display for ProposalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.nearest.map_or(Ok(()), |word| write!(f, " (did you mean {word}?)"))
    }
}

impl std::error::Error for ProposalError {}

/// Reads phase 1 proposals. An AEAD cipher without a PRF gets SHA2-256, -384 and -512; everything else must be named.
pub fn parse_ike(text: &str) -> Result<Vec<IkeProposal>, ProposalError> {
    ike(text, &Habits::STRONGSWAN).map(|list| list.proposals)
}

/// Reads phase 2 proposals: a group in one is perfect forward secrecy, `esn` and `noesn` are extended sequence numbers.
pub fn parse_esp(text: &str) -> Result<Vec<EspProposal>, ProposalError> {
    esp(text, &Habits::STRONGSWAN).map(|list| list.proposals)
}

/// What a dialect means by what it leaves out.
pub(crate) struct Habits {
    /// What a bare `aes` is.
    aes: &'static [Encryption],
    /// What a bare `aes_gcm` is.
    gcm: &'static [Encryption],
    /// Integrity and hash where a proposal names none; empty asks for them.
    integrity: &'static [Integrity],
    /// Groups of phase 1 where a proposal names none; empty asks for them.
    groups: &'static [Group],
}

impl Habits {
    /// `aes` is 128 bits, and a proposal says everything.
    pub(crate) const STRONGSWAN: Self =
        Self { aes: &[Encryption::Aes128Cbc], gcm: &[Encryption::Aes128Gcm], integrity: &[], groups: &[] };

    /// `aes` is any size, strongest first; what is left out is filled from the list of defaults.
    pub(crate) const LIBRESWAN: Self = Self {
        aes: &[Encryption::Aes256Cbc, Encryption::Aes128Cbc],
        gcm: &[Encryption::Aes256Gcm, Encryption::Aes128Gcm],
        integrity: &[Integrity::Sha512, Integrity::Sha256],
        groups: &[
            Group::Modp2048,
            Group::Modp3072,
            Group::Modp4096,
            Group::Ecp256,
            Group::Ecp384,
            Group::Ecp521,
            Group::Curve25519,
        ],
    };
}

/// Proposals, and whether they are all that is offered (`!`).
pub(crate) struct List<T> {
    pub(crate) proposals: Vec<T>,
    pub(crate) strict: bool,
}

/// The PRFs of an AEAD proposal that names none.
const AEAD_PRFS: [Prf; 3] = [Prf::Sha256, Prf::Sha384, Prf::Sha512];

pub(crate) fn ike(text: &str, habits: &Habits) -> Result<List<IkeProposal>, ProposalError> {
    let (items, strict) = items(text)?;
    let read = |item: Range<usize>| {
        let words = Words::read(text, item.clone(), habits)?;
        words.refuse(text, &item, "phase 1", |word| matches!(word, Word::Esn(_)))?;
        let fault = |message: &str| Err(ProposalError::whole(text, &item, message));
        let mut prf = words.prf.clone();
        let mut integrity = words.integrity.clone();
        if words.is_aead {
            // The hash beside an AEAD cipher is its PRF.
            prf.extend(integrity.drain(..).map(Integrity::prf));
            if prf.is_empty() {
                prf.extend(AEAD_PRFS);
            }
        } else {
            if integrity.is_empty() {
                integrity.extend(prf.iter().filter_map(|prf| Integrity::ALL.into_iter().find(|i| i.prf() == *prf)));
            }
            if integrity.is_empty() {
                integrity.extend(habits.integrity);
            }
            if integrity.is_empty() {
                return fault("a phase 1 proposal needs a hash");
            }
            if prf.is_empty() {
                prf.extend(integrity.iter().map(|i| i.prf()));
            }
        }
        let mut groups = words.groups;
        if groups.is_empty() {
            groups.extend(habits.groups);
        }
        if groups.is_empty() {
            return fault("a phase 1 proposal needs a Diffie-Hellman group");
        }
        Ok(IkeProposal { encryption: words.encryption, integrity, prf: once(prf), groups })
    };
    Ok(List { proposals: items.into_iter().map(read).collect::<Result<_, _>>()?, strict })
}

pub(crate) fn esp(text: &str, habits: &Habits) -> Result<List<EspProposal>, ProposalError> {
    let (items, strict) = items(text)?;
    let read = |item: Range<usize>| {
        let words = Words::read(text, item.clone(), habits)?;
        words.refuse(text, &item, "phase 2", |word| matches!(word, Word::Prf(_)))?;
        let mut integrity = words.integrity;
        if words.is_aead {
            integrity.clear();
        } else {
            if integrity.is_empty() {
                integrity.extend(habits.integrity);
            }
            if integrity.is_empty() {
                return Err(ProposalError::whole(text, &item, "this cipher needs an integrity algorithm beside it"));
            }
        }
        let esn = if words.esn.is_empty() { vec![false] } else { words.esn };
        Ok(EspProposal { encryption: words.encryption, integrity, groups: words.groups, esn })
    };
    Ok(List { proposals: items.into_iter().map(read).collect::<Result<_, _>>()?, strict })
}

/// More proposals, or more words in one, than any person writes.
const MOST: usize = 64;

/// Where each proposal stands, and whether the list ends with `!`.
fn items(text: &str) -> Result<(Vec<Range<usize>>, bool), ProposalError> {
    let body = text.trim_end().trim_end_matches('!');
    let strict = body.len() < text.trim_end().len();
    let mut items = Vec::new();
    let mut start = 0;
    for item in body.split(',') {
        let lead = item.len() - item.trim_start().len();
        let range = start + lead..start + lead + item.trim().len();
        start += item.len() + 1;
        if range.is_empty() {
            return Err(ProposalError::whole(text, &range, "an empty proposal"));
        }
        if items.len() == MOST {
            return Err(ProposalError::whole(text, &range, "more proposals than can be offered"));
        }
        items.push(range);
    }
    Ok((items, strict))
}

impl ProposalError {
    fn whole(text: &str, item: &Range<usize>, message: &str) -> Self {
        let at = if item.is_empty() { 0..text.len() } else { item.clone() };
        Self { message: message.to_owned(), at, nearest: None }
    }
}

/// What a word of a proposal stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Encryption(Encryption),
    Aes,
    AesGcm,
    Integrity(Integrity),
    Prf(Prf),
    Group(Group),
    Esn(bool),
    /// `null` beside an AEAD cipher; a truncation length that is the usual one.
    Nothing,
    /// Known, but refused for this reason.
    Refused(&'static str),
}

const NO_ENCRYPTION: &str = "it would leave packets unencrypted or easily read";
const NOT_HERE: &str = "this algorithm is not implemented here";
const TRUNCATED: &str = "the 96-bit truncation of SHA2-256 is not standard and not implemented here";

#[rustfmt::skip]
const WORDS: &[(&str, Word)] = &[
    ("3des", Word::Encryption(Encryption::TripleDesCbc)),
    ("aes128", Word::Encryption(Encryption::Aes128Cbc)), ("aes192", Word::Encryption(Encryption::Aes192Cbc)),
    ("aes256", Word::Encryption(Encryption::Aes256Cbc)),
    ("aes_128", Word::Encryption(Encryption::Aes128Cbc)), ("aes_192", Word::Encryption(Encryption::Aes192Cbc)),
    ("aes_256", Word::Encryption(Encryption::Aes256Cbc)),
    ("aes_cbc128", Word::Encryption(Encryption::Aes128Cbc)), ("aes_cbc192", Word::Encryption(Encryption::Aes192Cbc)),
    ("aes_cbc256", Word::Encryption(Encryption::Aes256Cbc)),
    ("aes_cbc_128", Word::Encryption(Encryption::Aes128Cbc)), ("aes_cbc_192", Word::Encryption(Encryption::Aes192Cbc)),
    ("aes_cbc_256", Word::Encryption(Encryption::Aes256Cbc)),
    ("aes", Word::Aes), ("aes_cbc", Word::Aes),
    ("aes128gcm16", Word::Encryption(Encryption::Aes128Gcm)), ("aes256gcm16", Word::Encryption(Encryption::Aes256Gcm)),
    ("aes128gcm128", Word::Encryption(Encryption::Aes128Gcm)), ("aes256gcm128", Word::Encryption(Encryption::Aes256Gcm)),
    ("aes128gcm", Word::Encryption(Encryption::Aes128Gcm)), ("aes256gcm", Word::Encryption(Encryption::Aes256Gcm)),
    ("aes_gcm128", Word::Encryption(Encryption::Aes128Gcm)), ("aes_gcm256", Word::Encryption(Encryption::Aes256Gcm)),
    ("aes_gcm_128", Word::Encryption(Encryption::Aes128Gcm)), ("aes_gcm_256", Word::Encryption(Encryption::Aes256Gcm)),
    ("aes_gcm_16_128", Word::Encryption(Encryption::Aes128Gcm)), ("aes_gcm_16_256", Word::Encryption(Encryption::Aes256Gcm)),
    ("aes_gcm_c_128", Word::Encryption(Encryption::Aes128Gcm)), ("aes_gcm_c_256", Word::Encryption(Encryption::Aes256Gcm)),
    ("aes_gcm_c128", Word::Encryption(Encryption::Aes128Gcm)), ("aes_gcm_c256", Word::Encryption(Encryption::Aes256Gcm)),
    ("aes_gcm", Word::AesGcm), ("aes_gcm_c", Word::AesGcm), ("aes_gcm_16", Word::AesGcm),
    ("chacha20poly1305", Word::Encryption(Encryption::ChaCha20Poly1305)),
    ("chacha20_poly1305", Word::Encryption(Encryption::ChaCha20Poly1305)),
    ("md5", Word::Integrity(Integrity::Md5)), ("sha", Word::Integrity(Integrity::Sha1)),
    ("sha1", Word::Integrity(Integrity::Sha1)), ("sha2", Word::Integrity(Integrity::Sha256)),
    ("sha256", Word::Integrity(Integrity::Sha256)), ("sha2_256", Word::Integrity(Integrity::Sha256)),
    ("sha384", Word::Integrity(Integrity::Sha384)), ("sha2_384", Word::Integrity(Integrity::Sha384)),
    ("sha512", Word::Integrity(Integrity::Sha512)), ("sha2_512", Word::Integrity(Integrity::Sha512)),
    ("hmac_md5", Word::Integrity(Integrity::Md5)), ("hmac_sha1", Word::Integrity(Integrity::Sha1)),
    ("hmac_sha2_256", Word::Integrity(Integrity::Sha256)), ("hmac_sha2_384", Word::Integrity(Integrity::Sha384)),
    ("hmac_sha2_512", Word::Integrity(Integrity::Sha512)),
    ("prfmd5", Word::Prf(Prf::Md5)), ("prfsha1", Word::Prf(Prf::Sha1)), ("prfsha256", Word::Prf(Prf::Sha256)),
    ("prfsha384", Word::Prf(Prf::Sha384)), ("prfsha512", Word::Prf(Prf::Sha512)),
    ("modp768", Word::Group(Group::Modp768)), ("modp1024", Word::Group(Group::Modp1024)),
    ("modp1536", Word::Group(Group::Modp1536)), ("modp2048", Word::Group(Group::Modp2048)),
    ("modp3072", Word::Group(Group::Modp3072)), ("modp4096", Word::Group(Group::Modp4096)),
    ("modp6144", Word::Group(Group::Modp6144)), ("modp8192", Word::Group(Group::Modp8192)),
    ("ecp256", Word::Group(Group::Ecp256)), ("ecp384", Word::Group(Group::Ecp384)), ("ecp521", Word::Group(Group::Ecp521)),
    ("modp1024s160", Word::Group(Group::Modp1024s160)), ("modp2048s224", Word::Group(Group::Modp2048s224)),
    ("modp2048s256", Word::Group(Group::Modp2048s256)),
    ("curve25519", Word::Group(Group::Curve25519)), ("x25519", Word::Group(Group::Curve25519)),
    ("dh1", Word::Group(Group::Modp768)), ("dh2", Word::Group(Group::Modp1024)), ("dh5", Word::Group(Group::Modp1536)),
    ("dh14", Word::Group(Group::Modp2048)), ("dh15", Word::Group(Group::Modp3072)), ("dh16", Word::Group(Group::Modp4096)),
    ("dh17", Word::Group(Group::Modp6144)), ("dh18", Word::Group(Group::Modp8192)), ("dh19", Word::Group(Group::Ecp256)),
    ("dh20", Word::Group(Group::Ecp384)), ("dh21", Word::Group(Group::Ecp521)), ("dh22", Word::Group(Group::Modp1024s160)),
    ("dh23", Word::Group(Group::Modp2048s224)), ("dh24", Word::Group(Group::Modp2048s256)),
    ("dh31", Word::Group(Group::Curve25519)),
    ("esn", Word::Esn(true)), ("noesn", Word::Esn(false)), ("null", Word::Nothing), ("none", Word::Nothing),
    ("des", Word::Refused(NO_ENCRYPTION)),
    ("aes192gcm16", Word::Refused(NOT_HERE)), ("aes192gcm128", Word::Refused(NOT_HERE)), ("aes192gcm", Word::Refused(NOT_HERE)),
    ("aes128gcm8", Word::Refused(NOT_HERE)), ("aes256gcm8", Word::Refused(NOT_HERE)), ("aes128gcm12", Word::Refused(NOT_HERE)),
    ("aes256gcm12", Word::Refused(NOT_HERE)), ("aes128gcm64", Word::Refused(NOT_HERE)), ("aes256gcm64", Word::Refused(NOT_HERE)),
    ("aes128gcm96", Word::Refused(NOT_HERE)), ("aes256gcm96", Word::Refused(NOT_HERE)),
    ("aes_gcm_a", Word::Refused(NOT_HERE)), ("aes_gcm_b", Word::Refused(NOT_HERE)),
    ("aes128ctr", Word::Refused(NOT_HERE)), ("aes192ctr", Word::Refused(NOT_HERE)), ("aes256ctr", Word::Refused(NOT_HERE)),
    ("aes_ctr", Word::Refused(NOT_HERE)), ("aes_ctr128", Word::Refused(NOT_HERE)), ("aes_ctr256", Word::Refused(NOT_HERE)),
    ("aes_ccm", Word::Refused(NOT_HERE)), ("aes_ccm128", Word::Refused(NOT_HERE)), ("aes_ccm256", Word::Refused(NOT_HERE)),
    ("aes128ccm16", Word::Refused(NOT_HERE)), ("aes256ccm16", Word::Refused(NOT_HERE)), ("aes128ccm128", Word::Refused(NOT_HERE)),
    ("camellia", Word::Refused(NOT_HERE)), ("camellia128", Word::Refused(NOT_HERE)), ("camellia256", Word::Refused(NOT_HERE)),
    ("cast", Word::Refused(NOT_HERE)), ("cast128", Word::Refused(NOT_HERE)), ("blowfish", Word::Refused(NOT_HERE)),
    ("serpent", Word::Refused(NOT_HERE)), ("twofish", Word::Refused(NOT_HERE)),
    ("aesxcbc", Word::Refused(NOT_HERE)), ("aes_xcbc", Word::Refused(NOT_HERE)), ("aescmac", Word::Refused(NOT_HERE)),
    ("aes128gmac", Word::Refused(NO_ENCRYPTION)), ("aes256gmac", Word::Refused(NO_ENCRYPTION)),
    ("sha256_96", Word::Refused(TRUNCATED)), ("sha2_256_96", Word::Refused(TRUNCATED)),
    ("prfaesxcbc", Word::Refused(NOT_HERE)), ("prfaescmac", Word::Refused(NOT_HERE)),
    ("curve448", Word::Refused(NOT_HERE)), ("x448", Word::Refused(NOT_HERE)), ("ecp192", Word::Refused(NOT_HERE)),
    ("ecp224", Word::Refused(NOT_HERE)), ("ecp256bp", Word::Refused(NOT_HERE)), ("ecp384bp", Word::Refused(NOT_HERE)),
    ("ecp512bp", Word::Refused(NOT_HERE)), ("modpnull", Word::Refused(NOT_HERE)), ("modpnone", Word::Nothing),
];

/// The words of one proposal, sorted by kind.
#[derive(Default)]
struct Words {
    encryption: Vec<Encryption>,
    integrity: Vec<Integrity>,
    prf: Vec<Prf>,
    groups: Vec<Group>,
    esn: Vec<bool>,
    is_aead: bool,
    found: Vec<(Word, Range<usize>)>,
}

impl Words {
    fn read(text: &str, item: Range<usize>, habits: &Habits) -> Result<Self, ProposalError> {
        let mut words = Self::default();
        let mut start = item.start;
        for piece in text[item.clone()].split(['-', ';', '+']) {
            let lead = piece.len() - piece.trim_start().len();
            let at = start + lead..start + lead + piece.trim().len();
            start += piece.len() + 1;
            if words.found.len() == MOST {
                return Err(ProposalError::whole(text, &item, "more words than a proposal can have"));
            }
            words.add(piece.trim(), at, habits)?;
        }
        words.is_aead = words.encryption.iter().any(|e| e.is_aead());
        if words.encryption.is_empty() {
            let message = "a proposal needs a cipher that encrypts";
            return Err(ProposalError::whole(text, &item, message));
        }
        if words.is_aead && words.encryption.iter().any(|e| !e.is_aead()) {
            let message = "AEAD ciphers (GCM, ChaCha20-Poly1305) and others need proposals of their own, with a comma \
                           between them";
            return Err(ProposalError::whole(text, &item, message));
        }
        Ok(words)
    }

    fn add(&mut self, word: &str, at: Range<usize>, habits: &Habits) -> Result<(), ProposalError> {
        let lower = word.to_ascii_lowercase();
        let known = WORDS.iter().find(|(name, _)| *name == lower).map(|(_, word)| *word);
        let Some(meant) = known.or_else(|| self.length_of_last(&lower)) else {
            let nearest = nearest(&lower, WORDS.iter().map(|(name, _)| *name));
            let message =
                if word.is_empty() { "a word is missing".into() } else { format!("unknown algorithm {word}") };
            return Err(ProposalError { message, at, nearest });
        };
        match meant {
            Word::Encryption(encryption) => push(&mut self.encryption, encryption),
            Word::Aes => habits.aes.iter().for_each(|e| push(&mut self.encryption, *e)),
            Word::AesGcm => habits.gcm.iter().for_each(|e| push(&mut self.encryption, *e)),
            Word::Integrity(integrity) => push(&mut self.integrity, integrity),
            Word::Prf(prf) => push(&mut self.prf, prf),
            Word::Group(group) => push(&mut self.groups, group),
            Word::Esn(esn) => push(&mut self.esn, esn),
            Word::Nothing => {}
            Word::Refused(why) => {
                return Err(ProposalError { message: format!("{word}: {why}"), at, nearest: None });
            }
        }
        self.found.push((meant, at));
        Ok(())
    }

    /// A number that says the size of the word before it: `aes-256`, `sha1-96`.
    fn length_of_last(&mut self, number: &str) -> Option<Word> {
        let last = self.found.last()?.0;
        let sized = match (last, number) {
            (Word::Aes, "128") => Encryption::Aes128Cbc,
            (Word::Aes, "192") => Encryption::Aes192Cbc,
            (Word::Aes, "256") => Encryption::Aes256Cbc,
            (Word::AesGcm, "128") => Encryption::Aes128Gcm,
            (Word::AesGcm, "256") => Encryption::Aes256Gcm,
            (Word::Integrity(Integrity::Md5 | Integrity::Sha1), "96") => return Some(Word::Nothing),
            _ => return None,
        };
        let aead = sized.is_aead();
        self.encryption.retain(|e| e.is_aead() != aead);
        Some(Word::Encryption(sized))
    }

    fn refuse(
        &self,
        text: &str,
        item: &Range<usize>,
        phase: &str,
        wrong: impl Fn(Word) -> bool,
    ) -> Result<(), ProposalError> {
        match self.found.iter().find(|(word, _)| wrong(*word)) {
            None => Ok(()),
            Some((_, at)) => {
                let word = text.get(at.clone()).unwrap_or(&text[item.clone()]);
                let message = format!("{word} has no place in a proposal of {phase}");
                Err(ProposalError { message, at: at.clone(), nearest: None })
            }
        }
    }
}

fn push<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn once<T: PartialEq>(list: Vec<T>) -> Vec<T> {
    list.into_iter().fold(Vec::new(), |mut kept, item| {
        push(&mut kept, item);
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ike_shown(text: &str) -> String {
        parse_ike(text).map_or_else(|e| e.to_string(), |list| shown(&list))
    }

    fn esp_shown(text: &str) -> String {
        parse_esp(text).map_or_else(|e| e.to_string(), |list| shown(&list))
    }

    fn shown<T: ToString>(list: &[T]) -> String {
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn both_spellings_mean_the_same() {
        for text in ["aes128-sha1-modp1024", "aes128-sha1;modp1024", "AES128-SHA1;dh2", "aes-sha-modp1024!"] {
            assert_eq!(ike_shown(text), "aes128-sha1-modp1024", "{text}");
        }
        assert_eq!(ike_shown("aes256-sha2_256;dh14"), "aes256-sha256-modp2048");
        assert_eq!(ike_shown("aes256gcm16-prfsha384-ecp384"), "aes256gcm16-prfsha384-ecp384");
        assert_eq!(ike_shown("aes_gcm256-sha2_384;dh20"), "aes256gcm16-prfsha384-ecp384");
        assert_eq!(ike_shown("aes128-sha256-modp2048, 3des-md5-modp1024"), "aes128-sha256-modp2048,3des-md5-modp1024");
        assert_eq!(ike_shown("aes-256-sha1-96;modp1024"), "aes256-sha1-modp1024");
    }

    #[test]
    fn a_group_in_phase_two_is_forward_secrecy_and_null_beside_gcm_is_nothing() {
        assert_eq!(esp_shown("aes_gcm256-null;modp2048"), "aes256gcm16-modp2048");
        assert_eq!(esp_shown("aes256-sha256-esn-noesn"), "aes256-sha256-esn-noesn");
        assert_eq!(esp_shown("chacha20poly1305"), "chacha20poly1305");
        assert_eq!(esp_shown("aes256+aes128-sha1"), "aes256-aes128-sha1");
    }

    #[test]
    fn a_bare_aes_is_what_its_dialect_says() {
        let libreswan = esp("aes-sha1", &Habits::LIBRESWAN).unwrap().proposals;
        assert_eq!(shown(&libreswan), "aes256-aes128-sha1");
        assert_eq!(esp_shown("aes-sha1"), "aes128-sha1");
        let filled = ike("aes256", &Habits::LIBRESWAN).unwrap().proposals;
        assert_eq!(filled[0].integrity, [Integrity::Sha512, Integrity::Sha256]);
        assert_eq!(filled[0].groups.len(), 7);
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_place() {
        let error = parse_ike("aes128-sah1-modp1024").unwrap_err();
        assert_eq!((error.at, error.nearest), (7..11, Some("sha1")));
        for (text, reason) in [
            ("aes128-sha1", "a phase 1 proposal needs a Diffie-Hellman group"),
            ("aes128-modp1024", "a phase 1 proposal needs a hash"),
            ("null-sha1-modp1024", "a proposal needs a cipher that encrypts"),
            ("aes128-sha1-modp1024-esn", "esn has no place in a proposal of phase 1"),
            ("", "an empty proposal"),
            ("aes128--sha1", "a word is missing"),
            ("aes128-sha256_96-modp2048", "sha256_96: the 96-bit truncation"),
        ] {
            assert!(ike_shown(text).starts_with(reason), "{text}: {}", ike_shown(text));
        }
        assert!(esp_shown("aes128-aes128gcm16-sha1").starts_with("AEAD ciphers"));
        assert_eq!(esp_shown("aes128-sha1-prfsha1"), "prfsha1 has no place in a proposal of phase 2");
    }

    #[test]
    fn no_word_stands_twice_in_the_table() {
        for (index, (name, _)) in WORDS.iter().enumerate() {
            assert!(WORDS[..index].iter().all(|(other, _)| other != name), "{name}");
        }
    }
}
