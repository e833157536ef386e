//! Every bad input and every fault that we must survive, each with what is
//! expected of it: the table is in `cases.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may fail where it stands, and its counts are small"
)]

mod bodies;
mod cases;
mod engine_body;
mod engine_head;
mod engine_long;
mod floods;
mod frames;
mod framing;
mod harness;
mod heads;
mod keys;
mod leaving;
mod own;
mod payloads;
mod process;
mod slow;
#[path = "../app/support/mod.rs"]
#[allow(
    dead_code,
    reason = "it is shared with tests that need other parts of it"
)]
mod support;
