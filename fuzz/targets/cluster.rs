//! What comes from the other member of a cluster, or from whoever pretends to be it: datagrams, the beginning of a stream,
//! and heartbeats that are authentic and nonsense. Meanwhile time passes.
//!
//! Nothing that is not authentic says anything. A member becomes active only in a term that is its own and higher than
//! all before, and says no more than it was told to say: a heartbeat an interval, and one for each change.
#![no_main]

use std::time::Duration;

use base::{Instant, Machine, Random, Secret};
use cluster::channel::{HELLO, LENGTH};
use cluster::{Handshake, Heartbeat, Key, Member, Opener, Options, Output, Role};
use fuzz::Input;
use libfuzzer_sys::fuzz_target;

const OWN: u64 = 7;

fuzz_target!(|bytes: &[u8]| {
    let key = Key::new(&Secret::from(&b"what only the two know"[..]));
    assert!(Heartbeat::open(bytes, &key).is_none(), "made without the key");
    check_stream(bytes, &key);
    let mut input = Input::new(bytes);
    let interval = Duration::from_millis(100);
    let options = Options { member: 0, preference: 100, preempt: true, interval, dead_after: 5 * interval };
    let (mut member, mut now, mut term) = (Member::new(options, OWN, Instant::ZERO), Instant::ZERO, 0);
    for _ in 0..500 {
        if input.is_empty() {
            break;
        }
        let changes = match input.byte() % 4 {
            0 => {
                now = now + Duration::from_millis(u64::from(input.word()));
                let due = member.poll_timeout().is_some_and(|deadline| deadline.at <= now);
                member.handle_timeout(now);
                assert!(due || member.poll_output().is_none(), "woken early, it did something");
                3
            }
            1 => {
                let said = Heartbeat {
                    role: [Role::Starting, Role::Standby, Role::Active][usize::from(input.byte() % 3)],
                    member: input.byte(),
                    preference: input.byte(),
                    boot: u64::from(input.byte() % 16),
                    echo: u64::from(input.byte() % 16),
                    counter: u64::from(input.word()),
                    term: u64::from(input.word()),
                };
                let sealed = said.seal(&key);
                assert_eq!(Heartbeat::open(&sealed, &key), Some(said));
                member.handle_heartbeat(said, now);
                3
            }
            2 => {
                member.take_place(now);
                2
            }
            _ => {
                member.note_in_step(input.byte() % 2 == 0, now);
                0
            }
        };
        let outputs: Vec<Output> = std::iter::from_fn(|| member.poll_output()).collect();
        assert!(outputs.len() <= changes + 1, "{outputs:?}");
        for output in outputs {
            if let Output::TakeOver { .. } = output {
                assert!(member.term() > term && member.term() % 2 == 0, "{} after {term}", member.term());
            }
        }
        assert!(member.term() >= term);
        term = member.term();
        assert!(member.poll_timeout().is_some());
    }
});

/// Nobody who does not know the key says anything, whatever the hello was.
fn check_stream(bytes: &[u8], key: &Key) {
    let handshake = Handshake::new(&mut Random::for_test(1));
    let Some((hello, rest)) = bytes.split_first_chunk::<HELLO>() else { return };
    let Ok((_, mut opener)) = handshake.finish(hello, false, key) else { return };
    let Some((length, rest)) = rest.split_first_chunk::<LENGTH>() else { return };
    if let Ok(len) = Opener::length(*length)
        && let Some(record) = rest.get(..len)
    {
        assert!(opener.open(*length, record.to_vec()).is_err(), "made without the key");
    }
}
