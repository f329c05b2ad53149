//! A TOML document with the place of everything in it: values of the kinds that the format has, each fault with its
//! line.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Place, Report, Text, nearest};
use crate::units;

/// The document under way: its text, and what is to be said about it.
pub(super) struct Document {
    pub(super) text: Text,
    pub(super) report: RefCell<Report>,
}

impl Document {
    pub(super) fn error(&self, diagnostic: Diagnostic) {
        self.report.borrow_mut().error(diagnostic);
    }
}

/// A value, the key it was given to, and where both stand.
#[derive(Clone, Copy)]
pub(super) struct Value<'d> {
    document: &'d Document,
    /// The key, as a message calls the value.
    pub(super) key: &'d str,
    key_span: (usize, usize),
    value: &'d Spanned<DeValue<'d>>,
}

/// A table whose keys are known in advance, or whose keys are names.
#[derive(Clone)]
pub(super) struct Table<'d> {
    document: &'d Document,
    entries: Vec<Value<'d>>,
}

impl<'d> Table<'d> {
    /// The entries of `table` in the order of the file.
    pub(super) fn new(document: &'d Document, table: &'d DeTable<'d>) -> Self {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| {
                let span = key.span();
                Value { document, key: key.get_ref().as_ref(), key_span: (span.start, span.end), value }
            })
            .collect();
        entries.sort_by_key(|entry| entry.key_span);
        Self { document, entries }
    }

    /// The table, after an error for each key that is not one of `known`.
    pub(super) fn knowing(self, known: &[&str]) -> Self {
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.key)) {
            let mut diagnostic = Diagnostic::at(entry.key_place(), format!("there is no key {:?} here", entry.key));
            diagnostic = match nearest(entry.key, known.iter().copied()) {
                Some(name) => diagnostic.help(format!("did you mean {name:?}?")),
                None => diagnostic.help(format!("known keys: {}", known.join(", "))),
            };
            self.document.error(diagnostic);
        }
        self
    }

    pub(super) fn get(&self, key: &str) -> Option<Value<'d>> {
        self.entries.iter().find(|entry| entry.key == key).copied()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Value<'d>> + '_ {
        self.entries.iter().copied()
    }

    /// Sets `target` to what `read` makes of the value of `key`, where there is one and it is right.
    pub(super) fn set<T>(&self, key: &str, target: &mut T, read: impl FnOnce(Value<'d>) -> Option<T>) {
        if let Some(value) = self.get(key).and_then(read) {
            *target = value;
        }
    }
}

impl<'d> Value<'d> {
    pub(super) fn document(self) -> &'d Document {
        self.document
    }

    /// Where the key stands.
    pub(super) fn key_place(self) -> Place {
        self.document.text.place(self.key_span.0..self.key_span.1)
    }

    /// Where the value stands, or as much of it as is in its first line.
    pub(super) fn place(self) -> Place {
        self.document.text.place(self.value.span())
    }

    /// The bytes `within` a string's text.
    pub(super) fn place_within(self, within: Range<usize>) -> Place {
        let span = self.value.span();
        self.document.text.place(span.start + 1..span.end.saturating_sub(1)).narrowed(within)
    }

    pub(super) fn fault(self, message: impl Into<String>) {
        self.document.error(Diagnostic::at(self.place(), message));
    }

    pub(super) fn fault_of_key(self, message: impl Into<String>) {
        self.document.error(Diagnostic::at(self.key_place(), message));
    }

    fn wrong_kind(self, wanted: &str) {
        self.fault(format!("{} must be {wanted}, not {}", self.key, article(self.value.get_ref().type_str())));
    }

    pub(super) fn as_table(self) -> Option<Table<'d>> {
        self.value.get_ref().as_table().map(|table| Table::new(self.document, table))
    }

    pub(super) fn table(self) -> Option<Table<'d>> {
        let table = self.as_table();
        if table.is_none() {
            self.wrong_kind("a table");
        }
        table
    }

    pub(super) fn as_str(self) -> Option<&'d str> {
        self.value.get_ref().as_str()
    }

    pub(super) fn as_flag(self) -> Option<bool> {
        self.value.get_ref().as_bool()
    }

    pub(super) fn string(self) -> Option<&'d str> {
        let string = self.as_str();
        if string.is_none() {
            self.wrong_kind("a text in quotes");
        }
        string
    }

    /// A text that `parse` can read.
    pub(super) fn parsed<T>(self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parse(self.string()?).map_err(|fault| self.fault(format!("{}: {fault}", self.key))).ok()
    }

    pub(super) fn flag(self) -> Option<bool> {
        let flag = self.as_flag();
        if flag.is_none() {
            self.wrong_kind("true or false");
        }
        flag
    }

    /// A number between the bounds, both included.
    pub(super) fn number<T: TryFrom<u64>>(self, bounds: Range<u64>) -> Option<T> {
        let number = self.as_number();
        let Some(number) = number.filter(|number| (bounds.start..=bounds.end).contains(number)) else {
            self.fault(format!("{} must be a number from {} to {}", self.key, bounds.start, bounds.end));
            return None;
        };
        T::try_from(number).ok()
    }

    fn as_number(self) -> Option<u64> {
        let integer = self.value.get_ref().as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// A count: a number, or a text such as `"512M"`.
    pub(super) fn count(self) -> Option<u64> {
        match self.as_number() {
            Some(number) => Some(number),
            None => self.parsed(units::count),
        }
    }

    /// A time: a text such as `"8h"`, or a number of seconds.
    pub(super) fn duration(self) -> Option<Duration> {
        match self.as_number() {
            Some(seconds) => {
                let time = units::duration(&seconds.to_string());
                time.map_err(|fault| self.fault(format!("{}: {fault}", self.key))).ok()
            }
            None => self.parsed(units::duration),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let word = self.string()?;
        let found = choices.iter().find(|(name, _)| *name == word).map(|(_, meant)| *meant);
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let mut diagnostic = Diagnostic::at(self.place(), format!("{} cannot be {word:?}", self.key))
                .help(format!("it is one of {}", names.join(", ")));
            if let Some(name) = nearest(word, names.iter().copied()) {
                diagnostic = diagnostic.help(format!("did you mean {name:?}?"));
            }
            self.document.error(diagnostic);
        }
        found
    }

    /// The items of a list, or the one value alone where a list of one is meant.
    pub(super) fn items(self) -> Vec<Self> {
        match self.value.get_ref().as_array() {
            Some(array) => array.iter().map(|value| Self { value, ..self }).collect(),
            None => vec![self],
        }
    }
}

/// What a kind of value is called in a sentence.
fn article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}
