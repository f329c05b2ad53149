//! The file as sections of settings, before anyone knows what they mean: both dialects write them alike.
//!
//! A section (`config setup`, `conn NAME`, `ca NAME`, `include PATTERN`) begins in column 1; its settings are indented.
//! `#` behind a blank begins a comment. Settings that lost their indentation are taken with a note. Left out: quoted
//! values over several lines.

use std::ops::Range;

use crate::Files;
use crate::diagnostic::{Diagnostic, Place, Report, Text};
use crate::files::relative_to;

/// Files that may include each other, in depth and in all: more is a loop.
const DEEPEST: usize = 16;
const MOST_FILES: usize = 500;

/// What a section is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Setup,
    Conn,
    Ca,
}

/// One section as it stands.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) kind: Kind,
    /// Empty for `config setup`.
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) settings: Vec<Setting>,
}

/// One `key=value` as it stands.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) key: String,
    /// Without quotes.
    pub(super) value: String,
    pub(super) key_place: Place,
    pub(super) value_place: Place,
}

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) sections: Vec<Section>,
    /// The dialect that a comment `# simplon: dialect=…` asks for, and where.
    pub(super) pragma: Option<(String, Place)>,
    files: usize,
}

/// Reads the file at `path` and whatever it includes.
pub(super) fn read(path: &str, files: &dyn Files, report: &mut Report) -> Read {
    let mut read = Read::default();
    match files.read(path) {
        Ok(text) => read.file(path, text, 0, files, report),
        Err(why) => report.error(Diagnostic::new(format!("cannot read {path}: {why}"))),
    }
    read
}

impl Read {
    fn file(&mut self, path: &str, text: String, depth: usize, files: &dyn Files, report: &mut Report) {
        self.files += 1;
        let mut text = Text::new(path, text);
        hide_secrets(&mut text);
        // Settings of an included file belong to its own sections; those behind an include to none.
        let mut open = false;
        for (start, line) in text.lines() {
            self.look_for_pragma(&text, start, line);
            let line = without_comment(line);
            let body = line.trim();
            if body.is_empty() {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            let at = start + indent..start + indent + body.len();
            let (word, rest) = body.split_once([' ', '\t']).unwrap_or((body, ""));
            let rest = rest.trim();
            if word == "version" && !rest.starts_with('=') {
                continue;
            }
            let opens = matches!(word, "config" | "conn" | "ca" | "include") && !rest.starts_with('=');
            if !opens {
                self.setting(&text, at, indent > 0, open, report);
            } else if word == "include" {
                open = false;
                self.include(&text, at, rest, depth, files, report);
            } else if indent > 0 {
                let place = text.place(at);
                report.error(Diagnostic::at(place, "a section begins in column 1").help("remove the blanks before it"));
            } else {
                open = self.open(&text, at, word, rest, report);
            }
        }
    }

    fn open(&mut self, text: &Text, at: Range<usize>, word: &str, rest: &str, report: &mut Report) -> bool {
        let place = text.place(at);
        let kind = match (word, rest) {
            ("config", "setup") => Kind::Setup,
            ("config", _) => {
                report.error(Diagnostic::at(place, "the only config section is `config setup`"));
                return false;
            }
            ("ca", _) => Kind::Ca,
            (_, _) => Kind::Conn,
        };
        let name = if kind == Kind::Setup { "" } else { unquoted(rest) };
        if kind != Kind::Setup && (name.is_empty() || name.contains([' ', '\t', '='])) {
            report.error(Diagnostic::at(place, format!("a {word} section has a name of one word")));
            return false;
        }
        self.sections.push(Section { kind, name: name.to_owned(), place, settings: Vec::new() });
        true
    }

    fn setting(&mut self, text: &Text, at: Range<usize>, indented: bool, open: bool, report: &mut Report) {
        let body = &text.text[at.clone()];
        let Some((key, value)) = body.split_once('=') else {
            let message = "neither a section nor a setting (`key=value`)";
            report.error(Diagnostic::at(text.place(at), message));
            return;
        };
        let key_at = at.start..at.start + key.trim_end().len();
        let lead = value.len() - value.trim_start().len();
        let mut value_at = at.start + key.len() + 1 + lead..at.end;
        let mut value = value.trim();
        let key = key.trim();
        if key.is_empty() || key.contains([' ', '\t', '"']) {
            report.error(Diagnostic::at(text.place(key_at), "this is not the name of a setting"));
            return;
        }
        if value.starts_with(['"', '\'']) {
            let bare = unquoted(value);
            if bare.len() == value.len() {
                let message = "the quotes of this value are not closed, or something stands behind them";
                report.error(Diagnostic::at(text.place(value_at), message));
                return;
            }
            value = bare;
            value_at = value_at.start + 1..value_at.end - 1;
        }
        let (key_place, value_place) = (text.place(key_at), text.place(value_at));
        let Some(section) = self.sections.last_mut().filter(|_| open) else {
            report.error(Diagnostic::at(key_place, "a setting outside of any section"));
            return;
        };
        if !indented {
            report.note(&key_place, "settings are to be indented: the original program refuses this file");
        }
        let setting = Setting { key: key.to_owned(), value: unescaped(value), key_place, value_place };
        section.settings.push(setting);
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
        let pattern = unquoted(pattern);
        if pattern.is_empty() {
            report.error(Diagnostic::at(place, "include what?"));
            return;
        }
        let pattern = relative_to(&text.file, pattern);
        let found = files.glob(&pattern);
        if found.is_empty() {
            report.note(&place, format!("there is no file {pattern} to include"));
        }
        for path in found {
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

    /// `# simplon: dialect=libreswan` in a comment of its own line.
    fn look_for_pragma(&mut self, text: &Text, start: usize, line: &str) {
        let comment = line.trim_start().strip_prefix('#').map(str::trim_start);
        let Some(dialect) =
            comment.and_then(|c| c.strip_prefix("simplon:")).and_then(|c| c.trim().strip_prefix("dialect="))
        else {
            return;
        };
        self.pragma = Some((dialect.trim().to_owned(), text.place(start..start + line.len())));
    }
}

/// Hides what someone took for the place of a key: `psk=…`. Keys have a file of their own.
fn hide_secrets(text: &mut Text) {
    let suspicious = |key: &str| ["psk", "passw", "secret"].iter().any(|word| key.to_ascii_lowercase().contains(word));
    let setting = |(start, line): (usize, &str)| {
        let (key, value) = line.split_once('=').filter(|(key, _)| suspicious(key) && key.trim() != "secretsfile")?;
        Some(start + key.len() + 1..start + key.len() + 1 + value.len())
    };
    let found: Vec<_> = text.lines().filter_map(setting).collect();
    text.hide(found);
}

/// The line up to a `#` at its beginning or behind a blank, outside of double quotes.
pub(super) fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match c {
            '"' if before != '\\' => quoted = !quoted,
            '#' if !quoted && before.is_whitespace() => return &line[..at],
            _ => {}
        }
        before = c;
    }
    line
}

/// The inside of a text in quotes; the text itself where it is not wholly in one pair of them.
fn unquoted(text: &str) -> &str {
    for quote in ['"', '\''] {
        let inside = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
        if let Some(inside) = inside.filter(|inside| !inside.replace("\\\"", "").contains(quote)) {
            return inside;
        }
    }
    text
}

/// A backslash before a quote or a backslash goes.
fn unescaped(text: &str) -> String {
    text.replace("\\\"", "\"").replace("\\\\", "\\")
}
