//! `simplon show events`.

use std::collections::VecDeque;
use std::time::Duration;

use gatewayd::admin::Client;
use gatewayd::log::{Event, PAGE, Page, utc};

use crate::args::EventsArgs;
use crate::exit::{Code, Failed};
use crate::orders::pause;
use crate::tell;

/// How often new events are asked for.
const LOOK: Duration = Duration::from_millis(250);

/// Shows the last events, and those that follow if that is wanted.
pub(super) fn run(args: &EventsArgs) -> Result<Code, Failed> {
    let mut client = Client::connect(&args.socket.socket)?;
    let mut page = newest(&mut client, args)?;
    while tell(&lines(&page, args)?)? && args.follow {
        if page.events.is_empty() {
            pause(LOOK);
        }
        page = client.events(Some(page.last), args.connection.as_deref(), PAGE)?;
    }
    Ok(Code::Ok)
}

/// As many of the newest events as are wanted. Those for faultfinding count only where they are shown.
fn newest(client: &mut Client, args: &EventsArgs) -> Result<Page, Failed> {
    let (mut all, mut last) = (VecDeque::new(), 0);
    loop {
        let page = client.events(Some(last), args.connection.as_deref(), PAGE)?;
        last = page.last;
        let is_end = page.events.len() < PAGE;
        all.extend(page.events.into_iter().filter(|event| is_shown(event, args)));
        all.drain(..all.len().saturating_sub(args.number));
        if is_end {
            return Ok(Page { events: all.into(), last, forgotten: 0 });
        }
    }
}

fn is_shown(event: &Event, args: &EventsArgs) -> bool {
    args.debug || event.severity != "debug"
}

fn lines(page: &Page, args: &EventsArgs) -> Result<String, Failed> {
    let mut text = String::new();
    if page.forgotten > 0 && !args.json {
        text += &format!("({} events are forgotten)\n", page.forgotten);
    }
    for event in page.events.iter().filter(|event| is_shown(event, args)) {
        if args.json {
            let json = serde_json::to_string(event);
            text += &json.map_err(|e| Failed::new(Code::Failed, format!("cannot write JSON: {e}")))?;
        } else {
            text += &line(event);
        }
        text.push('\n');
    }
    Ok(text)
}

fn line(event: &Event) -> String {
    let connection = event.connection.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
    let warning = if event.severity == "warning" { "! " } else { "" };
    format!("{} {warning}{connection}{} [{}]", utc(event.at_ms), event.text.replace('\n', "\n    "), event.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::SocketArgs;

    fn event(severity: &str) -> Event {
        Event {
            number: 1,
            at_ms: 1_000,
            connection: Some("Tunnel1".to_owned()),
            severity: severity.to_owned(),
            name: "failed".to_owned(),
            text: "first\nsecond".to_owned(),
        }
    }

    #[test]
    fn a_line_says_when_of_whom_and_what() {
        let expected = "1970-01-01T00:00:01.000Z ! Tunnel1: first\n    second [failed]";
        assert_eq!(line(&event("warning")), expected);
    }

    #[test]
    fn what_is_for_faultfinding_is_shown_only_on_demand() {
        let page = Page { events: vec![event("debug"), event("info")], last: 2, forgotten: 0 };
        let socket = SocketArgs { socket: "x".into() };
        let mut args = EventsArgs { connection: None, number: 10, follow: false, debug: false, json: true, socket };
        assert_eq!(lines(&page, &args).unwrap().lines().count(), 1);
        args.debug = true;
        let text = lines(&page, &args).unwrap();
        assert_eq!(text.lines().count(), 2, "an object a line: {text}");
    }
}
