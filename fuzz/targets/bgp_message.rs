//! A stream of octets as BGP messages, UPDATE aside. No octet is lost between messages, and what is understood comes back
//! from its own encoding.
#![no_main]

use bgp::wire::{MAX_MESSAGE, MessageKind, Notification, Open, Refresh, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    loop {
        match split(rest) {
            Ok(Some((message, tail))) => {
                assert_eq!(19 + message.body.len() + tail.len(), rest.len());
                match message.kind {
                    MessageKind::Open => check_open(message.body),
                    MessageKind::Notification => check_notification(message.body),
                    MessageKind::RouteRefresh => check_refresh(message.body),
                    MessageKind::Update | MessageKind::Keepalive => {}
                }
                rest = tail;
            }
            Ok(None) => return assert!(rest.len() < MAX_MESSAGE, "a whole message is waited for"),
            Err(notification) => return check_writing(&notification),
        }
    }
});

/// The body of the one message that was written.
fn body(written: &[u8]) -> &[u8] {
    let (message, tail) = split(written).expect("our own message").expect("it is whole");
    assert!(tail.is_empty());
    message.body
}

fn check_open(bytes: &[u8]) {
    let mut open = match Open::decode(bytes) {
        Ok(open) => open,
        Err(notification) => return check_writing(&notification),
    };
    // These are for people and are not said by us.
    open.capabilities.others.clear();
    // A speaker that lists no family that we know is told from one that lists none by nothing that we would say.
    if open.capabilities.families == Some(bgp::Families::NONE) {
        open.capabilities.families = None;
    }
    let mut written = Vec::new();
    open.write(&mut written);
    assert_eq!(Open::decode(body(&written)), Ok(open));
}

fn check_notification(bytes: &[u8]) {
    let Some(notification) = Notification::decode(bytes) else { return };
    check_writing(&notification);
    let shown = notification.to_string();
    assert!(!shown.chars().any(char::is_control), "what a neighbour says may not steer a terminal: {shown:?}");
}

fn check_writing(notification: &Notification) {
    let mut written = Vec::new();
    notification.write(&mut written);
    assert_eq!(Notification::decode(body(&written)).as_ref(), Some(notification));
}

fn check_refresh(bytes: &[u8]) {
    match Refresh::decode(bytes) {
        Ok(Some(refresh)) => {
            let mut written = Vec::new();
            refresh.write(&mut written);
            assert_eq!(Refresh::decode(body(&written)), Ok(Some(refresh)));
        }
        Ok(None) => {}
        Err(notification) => check_writing(&notification),
    }
}
