//! What the fuzz targets share: reading an input as a sequence of choices, and what readers of configurations keep true.

pub mod peers;

/// An input that is read from the front. When it is used up, it yields zeroes and nothing.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Reads `bytes` from the front.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Two bytes, big-endian.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// At most `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A block behind its length of two bytes.
    pub fn block(&mut self) -> &'a [u8] {
        let len = self.word();
        self.take(usize::from(len))
    }
}

/// What no key, and nothing that is shown, holds by chance: where it turns up, a secret leaked.
pub const MARK: &str = "Xq7LEAKz";

/// What every reader of a configuration keeps true of what it says.
pub fn check_reading(text: &str, reading: &Result<dialects::Reading, dialects::Errors>) {
    let shown = match reading {
        Ok(reading) => {
            let written = dialects::simplon_toml::write(&reading.config);
            assert!(!written.contains(MARK), "a key is written where none belongs");
            check_rewriting(&reading.config);
            let notes = reading.notes.iter().map(ToString::to_string).collect::<String>();
            format!("{reading:?}{notes}")
        }
        Err(errors) => {
            assert!(!errors.0.is_empty(), "refused without a reason");
            for place in errors.0.iter().filter_map(|diagnostic| diagnostic.place.as_ref()) {
                assert!(place.text.get(place.columns.clone()).is_some(), "{place:?}");
            }
            format!("{errors:?}{errors}")
        }
    };
    assert!(text.contains(MARK) || !shown.contains(MARK), "a key is shown: {shown}");
}

/// A configuration that was accepted makes sense, and comes back from our own format as it was.
fn check_rewriting(config: &model::Config) {
    let problems = model::validate(config);
    assert!(problems.iter().all(|p| p.severity != model::Severity::Error), "{problems:?}");
    let written = dialects::simplon_toml::write_with_secrets(config);
    let files = dialects::MemoryFiles::new().with("again.toml", written.as_str());
    match dialects::simplon_toml::read("again.toml", &files) {
        Ok(again) => assert_eq!(again.config.without_sources(), config.clone().without_sources(), "{written}"),
        Err(errors) => panic!("{errors}\n{written}"),
    }
}
