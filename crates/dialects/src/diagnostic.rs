//! What is wrong with a file, shown as a compiler shows it: the line, the column underlined, what would be right.
//!
//! A secret never gets here: a [`Text`] knows where its secrets stand, and every line it gives away says `{secret}`
//! in their place.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use model::Source;

/// What stands where a secret stood.
pub(crate) const MASK: &str = "{secret}";

/// A place in a file: columns of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
    /// The line as written, but for secrets.
    pub text: Arc<str>,
    /// The bytes of `text` that are meant.
    pub columns: Range<usize>,
}

impl Place {
    /// The line without its columns, as the model remembers it.
    pub fn source(&self) -> Source {
        Source { file: self.file.clone(), line: self.line, text: self.text.trim().into() }
    }

    /// The bytes `within` of what is meant here: one word of a value.
    #[must_use]
    pub(crate) fn narrowed(&self, within: Range<usize>) -> Self {
        let (start, end) = (self.columns.start + within.start, self.columns.start + within.end);
        if start <= end && end <= self.columns.end && self.text.get(start..end).is_some() {
            Self { columns: start..end, ..self.clone() }
        } else {
            self.clone()
        }
    }
}

impl From<&Source> for Place {
    fn from(source: &Source) -> Self {
        let columns = 0..source.text.len();
        Self { file: source.file.clone(), line: source.line, text: source.text.clone(), columns }
    }
}

/// One thing that is wrong, and what to do about it. `Display` shows the line and underlines the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// Where; absent when a file could not be read at all.
    pub place: Option<Place>,
    /// What would be right.
    pub help: Vec<String>,
}

impl Diagnostic {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, help: Vec::new() }
    }

    pub(crate) fn at(place: Place, message: impl Into<String>) -> Self {
        Self { place: Some(place), ..Self::new(message) }
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = Level::ERROR.primary_title(printable(&self.message));
        let mut group = match &self.place {
            Some(place) => {
                let (text, columns) = shown(place);
                title.element(
                    Snippet::source(text)
                        .line_start(usize::try_from(place.line).unwrap_or(usize::MAX))
                        .path(place.file.to_string())
                        .annotation(AnnotationKind::Primary.span(columns)),
                )
            }
            None => annotate_snippets::Group::with_title(title),
        };
        for help in &self.help {
            group = group.element(Level::HELP.message(printable(help)));
        }
        f.write_str(&Renderer::plain().render(&[group]))
    }
}

/// Longest part of a line that is shown: more than a person writes, less than would drown the message.
const SHOWN: usize = 240;

/// The line of `place` without control characters, cut where it is absurdly long.
fn shown(place: &Place) -> (String, Range<usize>) {
    let floor = |mut at: usize| {
        at = at.min(place.text.len());
        while !place.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let first = if place.text.len() <= SHOWN { 0 } else { floor(place.columns.start.saturating_sub(SHOWN / 2)) };
    let last = floor(first + SHOWN);
    let (start, end) = (floor(place.columns.start), floor(place.columns.end).min(last));
    let before = printable(&place.text[first..start]);
    let meant = printable(&place.text[start..end.max(start)]);
    let behind = printable(&place.text[end.max(start)..last.max(end.max(start))]);
    let columns = before.len()..before.len() + meant.len();
    (before + &meant + &behind, columns)
}

/// `text` without characters that would drive a terminal; a tab becomes a blank.
fn printable(text: &str) -> String {
    let visible = |c: char| {
        if c == '\t' {
            ' '
        } else if c.is_control() {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(visible).collect()
}

/// Everything that is wrong with a configuration: it cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Diagnostic>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Something a person should know about a configuration that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The file as it was named.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
    /// What to know, in a sentence without a full stop.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// What a reader has to say, collected while it reads on.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) errors: Vec<Diagnostic>,
    pub(crate) notes: Vec<Note>,
}

impl Report {
    pub(crate) fn error(&mut self, diagnostic: Diagnostic) {
        if !self.errors.contains(&diagnostic) {
            self.errors.push(diagnostic);
        }
    }

    /// Notes `text`, once however often it is said.
    pub(crate) fn note(&mut self, place: &Place, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.iter().any(|known| known.text == text) {
            self.notes.push(Note { file: place.file.clone(), line: place.line, text });
        }
    }

    /// The reading, if nothing is wrong: errors and notes in the order of the files.
    pub(crate) fn finish(mut self, config: model::Config) -> Result<crate::Reading, Errors> {
        if self.errors.is_empty() {
            self.validate(&config);
        }
        if self.errors.is_empty() {
            let files: Vec<Arc<str>> = self.notes.iter().map(|note| note.file.clone()).collect();
            self.notes.sort_by_key(|note| (files.iter().position(|file| *file == note.file), note.line));
            return Ok(crate::Reading { config, notes: self.notes });
        }
        let of = |error: &Diagnostic| error.place.as_ref().map(|place| place.file.clone());
        let files: Vec<_> = self.errors.iter().map(of).collect();
        let line = |error: &Diagnostic| error.place.as_ref().map_or(0, |place| place.line);
        self.errors.sort_by_key(|error| (files.iter().position(|file| *file == of(error)), line(error)));
        Err(Errors(self.errors))
    }

    /// Turns what `model::validate` finds into errors and notes with the line to change.
    fn validate(&mut self, config: &model::Config) {
        for problem in model::validate(config) {
            match (problem.severity, &problem.source) {
                (model::Severity::Error, Some(source)) => {
                    self.error(Diagnostic::at(source.into(), problem.to_string()));
                }
                (model::Severity::Error, None) => self.error(Diagnostic::new(problem.to_string())),
                (model::Severity::Warning, Some(source)) => self.note(&source.into(), problem.to_string()),
                (model::Severity::Warning, None) => {
                    let text = problem.to_string();
                    self.notes.push(Note { file: "".into(), line: 0, text });
                }
            }
        }
    }
}

/// A file's text, and where its secrets stand.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) file: Arc<str>,
    pub(crate) text: String,
    /// Where each line begins.
    starts: Vec<usize>,
    /// What must not be shown, in order and apart from each other.
    hidden: Vec<Range<usize>>,
}

impl Text {
    pub(crate) fn new(file: &str, text: String) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.into(), text, starts, hidden: Vec::new() }
    }

    /// Hides these bytes from every line that is given away.
    pub(crate) fn hide(&mut self, ranges: impl IntoIterator<Item = Range<usize>>) {
        let mut all = std::mem::take(&mut self.hidden);
        all.extend(ranges.into_iter().filter(|range| range.start < range.end));
        all.sort_by_key(|range| range.start);
        for range in all {
            match self.hidden.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                Some(_) | None => self.hidden.push(range),
            }
        }
    }

    /// The bytes of the line that holds the byte `at`, without its end of line.
    pub(crate) fn line_around(&self, at: usize) -> Range<usize> {
        let index = self.starts.partition_point(|&start| start <= at).saturating_sub(1);
        let start = self.starts[index];
        let end = self.starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
        start..start + self.text[start..end].trim_end_matches('\r').len()
    }

    /// The lines with the byte each begins at.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.starts.iter().map(|&start| (start, &self.text[self.line_around(start)]))
    }

    /// The place of these bytes, or of as many as are in the first line of them.
    pub(crate) fn place(&self, range: Range<usize>) -> Place {
        let line = self.line_around(range.start.min(self.text.len()));
        let number = self.starts.partition_point(|&start| start <= line.start);
        let mut shown = String::new();
        let mut columns = 0..0;
        let mut at = line.start;
        // Copies what may be seen up to `end`; the columns follow where the two ends of `range` come to lie.
        let mut copy = |shown: &mut String, columns: &mut Range<usize>, to: usize, masked: bool| {
            let piece = self.text.get(at..to).unwrap_or_default();
            let within = |end: usize| (at..=to).contains(&end).then(|| end - at);
            let base = shown.len();
            shown.push_str(if masked { MASK } else { piece });
            if let Some(start) = within(range.start) {
                columns.start = base + if masked { 0 } else { start };
            }
            if let Some(end) = within(range.end.min(line.end)) {
                columns.end = if masked { shown.len() } else { base + end };
            }
            at = to;
        };
        let first = self.hidden.partition_point(|hidden| hidden.end <= line.start);
        for hidden in self.hidden[first..].iter().take_while(|hidden| hidden.start < line.end) {
            copy(&mut shown, &mut columns, hidden.start.max(line.start), false);
            copy(&mut shown, &mut columns, hidden.end.min(line.end), true);
        }
        copy(&mut shown, &mut columns, line.end, false);
        columns.end = columns.end.max(columns.start);
        let line = u32::try_from(number).unwrap_or(u32::MAX);
        Place { file: self.file.clone(), line, text: shown.into(), columns }
    }
}

/// The known word that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&word, name);
    let (best, name) = known.into_iter().map(|name| (distance(name), name)).min_by_key(|(distance, _)| *distance)?;
    (best <= (word.chars().count() / 3).max(1)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_is_underlined_under_the_line() {
        let text = Text::new("a.conf", "conn a\n    dpddelai=10\n".to_owned());
        let shown = Diagnostic::at(text.place(11..19), "there is no keyword dpddelai").help("did you mean dpddelay?");
        insta::assert_snapshot!(shown, @r"
        error: there is no keyword dpddelai
         --> a.conf:2:5
          |
        2 |     dpddelai=10
          |     ^^^^^^^^
          |
          = help: did you mean dpddelay?
        ");
    }

    #[test]
    fn a_hidden_part_is_masked_and_the_columns_behind_it_follow() {
        let mut text = Text::new("s", "id : PSK \"cloudneta\" x\nnext".to_owned());
        text.hide(std::iter::once(9..20));
        let place = text.place(21..22);
        assert_eq!(&*place.text, "id : PSK {secret} x");
        assert_eq!(&place.text[place.columns.clone()], "x");
        assert_eq!(&place.text[text.place(12..15).columns], MASK);
        assert_eq!(text.place(23..27).line, 2);
    }

    #[test]
    fn a_word_leads_to_the_nearest_known_one_or_to_none() {
        assert_eq!(nearest("keyexchage", ["keyexchange", "keyingtries"]), Some("keyexchange"));
        assert_eq!(nearest("zzzz", ["keyexchange"]), None);
    }

    #[test]
    fn control_characters_of_a_file_do_not_reach_the_terminal() {
        let text = Text::new("a", "\u{1b}[2J bad".to_owned());
        assert!(!Diagnostic::at(text.place(5..8), "x").to_string().contains('\u{1b}'));
    }
}
