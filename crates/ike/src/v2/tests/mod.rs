//! Pairs of sessions in virtual time. Each test is a sentence.

mod establish;
mod failure;
mod harness;
mod probe;
mod rekey;
mod storm;
