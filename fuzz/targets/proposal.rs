//! Any text as a list of proposals: a fault points into the text, and what is understood can be said again.
#![no_main]

use dialects::proposal::{ProposalError, parse_esp, parse_ike};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse_ike(text) {
        Ok(proposals) => {
            assert!(!proposals.is_empty() && proposals.iter().all(|p| !p.groups.is_empty() && !p.prf.is_empty()));
            let said = proposals.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            assert_eq!(parse_ike(&said).as_ref(), Ok(&proposals), "{said}");
        }
        Err(error) => check(text, &error),
    }
    match parse_esp(text) {
        Ok(proposals) => {
            for proposal in &proposals {
                let is_aead = proposal.encryption.iter().all(|e| e.is_aead());
                assert!(is_aead != proposal.encryption.iter().all(|e| !e.is_aead()), "mixed: {proposal}");
                assert_eq!(is_aead, proposal.integrity.is_empty(), "{proposal}");
            }
            let said = proposals.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            assert_eq!(parse_esp(&said).as_ref(), Ok(&proposals), "{said}");
        }
        Err(error) => check(text, &error),
    }
});

fn check(text: &str, error: &ProposalError) {
    assert!(text.get(error.at.clone()).is_some(), "{error} points at {:?}", error.at);
    assert!(!error.to_string().is_empty());
}
