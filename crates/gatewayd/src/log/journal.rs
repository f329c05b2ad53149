//! The last events, in memory, for whoever asks later.

use std::collections::VecDeque;
use std::sync::Arc;

use gateway::{GatewayEvent, Severity};
use serde::{Deserialize, Serialize};

/// Events that are kept; older ones are forgotten.
pub const KEPT: usize = 10_000;
/// Events in one answer at most.
pub const PAGE: usize = 1_000;
/// Bytes of a sentence that are kept.
const LONGEST: usize = 2_048;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number in this run of the gateway, from 1.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The connection it is about, where it is about one.
    pub connection: Option<String>,
    /// `debug`, `info` or `warning`.
    pub severity: String,
    /// Its stable name, such as `child_up`.
    pub name: String,
    /// What happened and why, in a sentence.
    pub text: String,
}

/// Some events, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The events.
    pub events: Vec<Event>,
    /// Where the next page begins: everything up to this number has been looked at.
    pub last: u64,
    /// Events before this page that were asked for and are forgotten.
    pub forgotten: u64,
}

/// The last events.
#[derive(Debug, Default)]
pub(super) struct Journal {
    kept: VecDeque<Kept>,
    /// The number of the newest.
    last: u64,
}

#[derive(Debug)]
struct Kept {
    at_ms: u64,
    connection: Option<Arc<str>>,
    severity: Severity,
    name: &'static str,
    text: Box<str>,
}

impl Journal {
    pub(super) fn add(&mut self, event: &GatewayEvent, at_ms: u64) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        let GatewayEvent { connection, severity, name, text } = event;
        let end = text.floor_char_boundary(LONGEST);
        let (connection, text) = (connection.clone(), text[..end].into());
        self.kept.push_back(Kept { at_ms, connection, severity: *severity, name, text });
        self.last += 1;
    }

    /// At most `limit` events, and at most [`PAGE`], of `connection` or of all: the first after the number `after`, or
    /// the newest where none is given.
    pub(super) fn page(&self, after: Option<u64>, connection: Option<&str>, limit: usize) -> Page {
        let limit = limit.clamp(1, PAGE);
        let before_first = self.last - self.kept.len() as u64;
        let fits = |kept: &Kept| connection.is_none_or(|name| kept.connection.as_deref() == Some(name));
        let numbered = (before_first + 1..).zip(&self.kept).filter(|(_, kept)| fits(kept));
        let after_or_start = after.unwrap_or(before_first);
        let forgotten = if connection.is_none() { before_first.saturating_sub(after_or_start) } else { 0 };
        let events: Vec<Event> = match after {
            Some(after) => numbered.filter(|(number, _)| *number > after).take(limit).map(Event::of).collect(),
            None => {
                let all = numbered.clone().count();
                numbered.skip(all.saturating_sub(limit)).map(Event::of).collect()
            }
        };
        let is_full = events.len() == limit && after.is_some();
        let last = events.last().filter(|_| is_full).map_or(self.last, |event| event.number);
        Page { events, last, forgotten }
    }
}

impl Event {
    fn of((number, kept): (u64, &Kept)) -> Self {
        let severity = match kept.severity {
            Severity::Debug => "debug",
            Severity::Info => "info",
            Severity::Warning => "warning",
        };
        Self {
            number,
            at_ms: kept.at_ms,
            connection: kept.connection.as_deref().map(str::to_owned),
            severity: severity.to_owned(),
            name: kept.name.to_owned(),
            text: kept.text.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(count: usize) -> Journal {
        let mut journal = Journal::default();
        for i in 0..count {
            let connection = Some(if i % 2 == 0 { "even" } else { "odd" }.into());
            let text = format!("{}", i + 1);
            journal.add(&GatewayEvent { connection, severity: Severity::Info, name: "test", text }, i as u64);
        }
        journal
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn the_newest_are_shown_and_then_what_follows_page_by_page() {
        let mut journal = journal(10);
        let first = journal.page(None, None, 3);
        assert_eq!((numbers(&first), first.last), (vec![8, 9, 10], 10));
        assert!(journal.page(Some(first.last), None, 3).events.is_empty());
        journal.add(&GatewayEvent { connection: None, severity: Severity::Debug, name: "x", text: "new".into() }, 99);
        let next = journal.page(Some(first.last), None, 3);
        assert_eq!((numbers(&next), next.last, next.events[0].text.as_str()), (vec![11], 11, "new"));
        let odd = journal.page(Some(0), Some("odd"), 2);
        assert_eq!((numbers(&odd), odd.last), (vec![2, 4], 4), "the next page begins behind the last that was shown");
        let rest = journal.page(Some(odd.last), Some("odd"), 100);
        assert_eq!((numbers(&rest), rest.last), (vec![6, 8, 10], 11), "what does not fit is not looked at twice");
    }

    #[test]
    fn it_is_bounded_and_says_what_it_forgot() {
        let journal = journal(KEPT + 500);
        assert_eq!(journal.kept.len(), KEPT);
        let page = journal.page(Some(200), None, 1_000_000);
        assert_eq!((page.events.len(), page.events[0].number, page.forgotten), (PAGE, 501, 300));
        assert_eq!(page.events[0].text, "501");
        assert_eq!(journal.page(None, None, 5).forgotten, 0);
    }

    #[test]
    fn a_sentence_is_cut_between_characters() {
        let mut journal = Journal::default();
        let text = "é".repeat(LONGEST);
        journal.add(&GatewayEvent { connection: None, severity: Severity::Info, name: "x", text }, 0);
        assert_eq!(journal.page(None, None, 1).events[0].text.len(), LONGEST);
    }
}
