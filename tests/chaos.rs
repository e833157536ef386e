//! A short chaos run; `PILOTFISH_CHAOS_SECS` makes it longer.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::time::Duration;

use pilotfish::chaos::{Options, run};

#[test]
fn nothing_is_wrong_lost_or_left_over() {
    let seconds = std::env::var("PILOTFISH_CHAOS_SECS");
    let seconds = seconds.map_or(5, |seconds| seconds.parse().unwrap());
    let options = Options {
        time: Duration::from_secs(seconds),
        ..Options::default()
    };
    println!("seed {}", options.seed);
    let report = run(&options).unwrap();
    println!("{}", report.table());
    assert!(report.is_good(), "{}", report.table());
    let answers = &report.answers;
    assert!(answers.whole > answers.sent / 2, "{}", report.table());
    assert!(!report.injuries.is_empty());
}
