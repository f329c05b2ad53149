//! `ipsec.secrets`: whose pre-shared key is which.
//!
//! An entry begins in column 1 and goes on in indented lines: `ID ID … : PSK value`. The value is a text in quotes, a
//! bare word, `0x` and hexadecimal digits, `0s` and base64, or `0t` and a text. Lines for other kinds of keys are
//! noted. Nothing of a value, and nothing of a line that cannot be read, is ever shown.

use std::net::IpAddr;
use std::ops::Range;

use base::Secret;
use model::{Identity, IdentityMatch, Source};

use super::Dialect;
use super::sections::without_comment;
use crate::diagnostic::{Diagnostic, MASK, Place, Report, Text};
use crate::files::relative_to;
use crate::{Files, encoding};

const DEEPEST: usize = 16;
const MOST_FILES: usize = 500;

/// One pre-shared key and whom it is for.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Whom it is for; empty is everyone.
    selectors: Vec<Identity>,
    psk: Secret,
    pub(super) source: Source,
}

/// The keys of a file and of those it includes, in order.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    entries: Vec<Entry>,
    files: usize,
}

/// One side of a connection, as far as it is known whose key it needs.
pub(super) struct Party<'a> {
    /// What it says it is.
    pub(super) id: Option<&'a Identity>,
    /// Its address, if it has one.
    pub(super) ip: Option<IpAddr>,
    /// Whether it may have any address (`%defaultroute`, `%any`), so that each one in the file can be its own.
    pub(super) is_open: bool,
}

impl<'a> Party<'a> {
    pub(super) fn of(side: &'a model::Side) -> Self {
        let ip = side.address.ip();
        Self { id: side.id.as_ref(), ip, is_open: side.id.is_none() && ip.is_none() }
    }

    fn fits(&self, selector: &Identity) -> IdentityMatch {
        if *selector == Identity::Any {
            return IdentityMatch::Any;
        }
        let by_id = self
            .id
            .map_or(IdentityMatch::No, |id| if *id == Identity::Any { IdentityMatch::Any } else { id.fits(selector) });
        let by_ip = self.ip.map_or(IdentityMatch::No, |ip| Identity::Ip(ip).fits(selector));
        let open = self.is_open && matches!(selector, Identity::Ip(_));
        by_id.max(by_ip).max(if open { IdentityMatch::Any } else { IdentityMatch::No })
    }
}

impl Secrets {
    /// Reads the file at `path` and those that it includes.
    pub(super) fn read(path: &str, files: &dyn Files, report: &mut Report) -> Self {
        let mut secrets = Self::default();
        match files.read(path) {
            Ok(text) => secrets.file(path, text, 0, files, report),
            Err(why) => report.error(Diagnostic::new(format!("cannot read {path}: {why}"))),
        }
        secrets
    }

    /// The keys for these two, best first: an entry that names both counts before one that names one, and that before
    /// one for everyone; of equals, the first in the file. strongSwan takes any of the equals of its peer; pluto uses
    /// the first alone.
    pub(super) fn of(&self, ours: &Party<'_>, theirs: &Party<'_>, dialect: Dialect) -> Vec<&Entry> {
        let ranked = self.entries.iter().map(|entry| (entry.rank(ours, theirs), entry));
        let ranked: Vec<_> = ranked.filter_map(|(rank, entry)| rank.map(|rank| (rank, entry))).collect();
        let Some(best) = ranked.iter().map(|(rank, _)| *rank).max() else { return Vec::new() };
        let mut equals: Vec<&Entry> = Vec::new();
        for (_, entry) in ranked.iter().filter(|(rank, _)| *rank == best) {
            if !equals.iter().any(|known| known.psk == entry.psk) {
                equals.push(entry);
            }
        }
        if dialect == Dialect::Libreswan {
            equals.truncate(1);
        }
        equals
    }

    fn file(&mut self, path: &str, content: String, depth: usize, files: &dyn Files, report: &mut Report) {
        self.files += 1;
        let mut text = Text::new(path, content);
        let entries = entries(&text);
        // First hide every secret, then speak: a message about one line may show another.
        let parsed: Vec<_> = entries.iter().map(|at| split(&text.text, at.clone())).collect();
        let hidden = parsed.iter().zip(&entries).map(|(line, at)| {
            let hidden = line.hidden();
            // A comment behind a key may hold the one before it.
            if hidden.is_empty() { hidden } else { hidden.start..text.line_around(at.end).end }
        });
        let hidden: Vec<_> = hidden.collect();
        text.hide(hidden);
        for (line, at) in parsed.into_iter().zip(entries) {
            match line {
                Line::Include(pattern) => self.include(&text, at, &pattern, depth, files, report),
                Line::Key { selectors, kind, value } => self.key(&text, &at, &selectors, kind, value, report),
                Line::Broken { why, .. } => {
                    let diagnostic = Diagnostic::at(text.place(at), why);
                    report.error(diagnostic.help("an entry is written as: 192.0.2.1 203.0.113.1 : PSK \"text\""));
                }
            }
        }
    }

    fn include(
        &mut self,
        text: &Text,
        at: Range<usize>,
        pattern: &str,
        depth: usize,
        files: &dyn Files,
        report: &mut Report,
    ) {
        let place = text.place(at);
        for path in files.glob(&relative_to(&text.file, pattern)) {
            if depth == DEEPEST || self.files == MOST_FILES {
                report.error(Diagnostic::at(place, "too many files include each other: is it a loop?"));
                return;
            }
            match files.read(&path) {
                Ok(text) => self.file(&path, text, depth + 1, files, report),
                Err(why) => report.error(Diagnostic::at(place.clone(), format!("cannot read {path}: {why}"))),
            }
        }
    }

    fn key(
        &mut self,
        text: &Text,
        at: &Range<usize>,
        selectors: &[String],
        kind: Range<usize>,
        value: Range<usize>,
        report: &mut Report,
    ) {
        let place = text.place(at.clone());
        let kind = text.text[kind].to_ascii_uppercase();
        if kind != "PSK" {
            report.note(&place, format!("{kind} keys make no difference here: only pre-shared keys are used"));
            return;
        }
        let psk = match decoded(text.text[value.clone()].trim()) {
            Ok(psk) => psk,
            Err(why) => {
                report.error(Diagnostic::at(text.place(value), why));
                return;
            }
        };
        let selectors: Vec<Identity> = selectors.iter().map(|selector| super::sides::parse_id(selector).0).collect();
        self.entries.push(Entry { selectors, psk, source: source_of(&place) });
    }
}

/// The line as it is remembered: its selectors, and that it holds a secret.
fn source_of(place: &Place) -> Source {
    let shown = place.text.split_once(" PSK").map_or("", |(selectors, _)| selectors);
    let text = if place.text.contains(MASK) { place.text.trim().into() } else { format!("{shown} PSK {MASK}").into() };
    Source { text, ..place.source() }
}

impl Entry {
    pub(super) fn psk(&self) -> &Secret {
        &self.psk
    }

    /// How well it fits: how many of the two it names exactly, and how many by a wildcard.
    fn rank(&self, ours: &Party<'_>, theirs: &Party<'_>) -> Option<(u8, u8)> {
        if self.selectors.is_empty() {
            return Some((0, 0));
        }
        let best = |party: &Party<'_>, skip: Option<usize>| {
            let fits = self.selectors.iter().enumerate().filter(|(at, _)| Some(*at) != skip);
            let fits = fits.map(|(at, selector)| (party.fits(selector), at));
            fits.max_by_key(|(fit, at)| (*fit, usize::MAX - at)).filter(|(fit, _)| *fit != IdentityMatch::No)
        };
        // The peer is looked for first: our own address may not be known, and then any other fits it.
        let peer = best(theirs, None);
        let own = best(ours, peer.map(|(_, at)| at).filter(|_| self.selectors.len() > 1));
        let count = |wanted| {
            u8::from(peer.is_some_and(|(fit, _)| fit == wanted)) + u8::from(own.is_some_and(|(fit, _)| fit == wanted))
        };
        let (exact, any) = (count(IdentityMatch::Exact), count(IdentityMatch::Any));
        // Several selectors name a group of hosts: both ends have to be in it.
        let fits = exact + any > u8::from(self.selectors.len() > 1);
        fits.then_some((exact, any))
    }
}

/// Kinds of keys that either program knows.
const KINDS: [&str; 13] =
    ["PSK", "RSA", "ECDSA", "BLISS", "PKCS8", "P12", "PIN", "XAUTH", "EAP", "NTLM", "PRIVATE", "SHARED", "PPKS"];

/// What an entry of the file is.
enum Line {
    Include(String),
    Key { selectors: Vec<String>, kind: Range<usize>, value: Range<usize> },
    Broken { why: &'static str, from: usize, to: usize },
}

impl Line {
    /// An entry that cannot be read may have its key anywhere: no more is shown than the addresses that it begins with.
    fn broken(text: &str, at: &Range<usize>, why: &'static str) -> Self {
        let plain =
            |word: &str| word == ":" || word.starts_with('@') || word == "%any" || word.parse::<IpAddr>().is_ok();
        let from =
            words(&text[at.clone()]).find(|(_, word)| !plain(word)).map_or(at.end, |(start, _)| at.start + start);
        Self::Broken { why, from, to: at.end }
    }
}

impl Line {
    /// What must not be shown of it.
    fn hidden(&self) -> Range<usize> {
        match self {
            Self::Include(_) => 0..0,
            Self::Key { value, .. } => value.clone(),
            Self::Broken { from, to, .. } => *from..(*to).max(*from + 1),
        }
    }
}

/// Where each entry stands: a line that begins in column 1 and the indented ones behind it, less comments at the end.
fn entries(text: &Text) -> Vec<Range<usize>> {
    let mut entries: Vec<Range<usize>> = Vec::new();
    for (start, line) in text.lines() {
        let body = without_comment(line).trim_end();
        if body.trim().is_empty() {
            continue;
        }
        let end = start + body.len();
        match entries.last_mut() {
            Some(last) if body.starts_with([' ', '\t']) => last.end = end,
            Some(_) | None => entries.push(start + body.len() - body.trim_start().len()..end),
        }
    }
    entries
}

fn split(text: &str, at: Range<usize>) -> Line {
    let body = &text[at.clone()];
    let mut words = words(body);
    if let Some((_, word)) = words.clone().next()
        && word == "include"
    {
        let pattern = words.nth(1).map_or("", |(_, word)| word);
        return Line::Include(pattern.trim_matches(['"', '\'']).to_owned());
    }
    let mut selectors = Vec::new();
    while let Some((_, word)) = words.next() {
        // An IPv6 address may end in two colons of its own.
        let (selector, colon) = match word.strip_suffix(':').filter(|selector| !selector.ends_with(':')) {
            Some(selector) => (selector, true),
            None => (word, false),
        };
        if !selector.is_empty() {
            selectors.push(selector.trim_matches(['"', '\'']).to_owned());
        }
        if colon {
            let Some((start, kind)) = words.next() else {
                return Line::broken(text, &at, "this entry ends behind its colon");
            };
            let kind = at.start + start..at.start + start + kind.len();
            let lead = text[kind.end..at.end].len() - text[kind.end..at.end].trim_start().len();
            if !KINDS.iter().any(|known| text[kind.clone()].eq_ignore_ascii_case(known)) {
                // It may be a key that lost its `PSK`: `: cloudneta`.
                return Line::broken(text, &at, "no kind of key (PSK) stands behind the colon");
            }
            let value = kind.end + lead..at.end;
            if value.is_empty() {
                return Line::broken(text, &at, "no key stands behind its kind");
            }
            return Line::Key { selectors, kind, value };
        }
    }
    Line::broken(text, &at, "this entry has no colon between whom it is for and the key")
}

/// The words of an entry, with quotes kept together, and where each begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> + Clone {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + text[rest..].find(|c: char| !c.is_whitespace())?;
        let quote = text[start..].chars().next().filter(|c| matches!(c, '"' | '\''));
        let end = match quote {
            Some(quote) => text[start + 1..].find(quote).map_or(text.len(), |at| start + at + 2),
            None => text[start..].find(char::is_whitespace).map_or(text.len(), |at| start + at),
        };
        rest = end;
        Some((start, &text[start..end]))
    })
}

/// The bytes of a key. What is wrong is said without a letter of it.
fn decoded(value: &str) -> Result<Secret, &'static str> {
    for quote in ['"', '\''] {
        if let Some(open) = value.strip_prefix(quote) {
            let text = open.strip_suffix(quote).ok_or("the quotes of this key are not closed")?;
            if text.contains(quote) {
                return Err("something stands behind the quotes of this key");
            }
            return Ok(Secret::from(text.as_bytes()));
        }
    }
    if value.contains(char::is_whitespace) {
        return Err("a key with blanks needs quotes");
    }
    let bytes = match value.get(..2) {
        Some("0x" | "0X") => encoding::from_hex(&value[2..]).ok_or("this key is not pairs of hexadecimal digits")?,
        Some("0s" | "0S") => encoding::from_base64(&value[2..]).ok_or("this key is not base64")?,
        Some("0t" | "0T") => value.as_bytes()[2..].to_vec(),
        Some(_) | None => value.as_bytes().to_vec(),
    };
    Ok(Secret::from(bytes))
}
