//! A line of the access log allocates nothing, once a worker has warmed up:
//! counted.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::alloc::System;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish::config::LineForm;
use pilotfish::drain::DrainWatch;
use pilotfish::fleet::{Engine, EngineUrl};
use pilotfish::metrics::Counter;
use pilotfish::report::{LogOutlet, Outlets, Reporter};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_line_allocates_nothing() {
    let (queue, lines) = tokio::sync::mpsc::channel(16);
    let log = LogOutlet {
        form: LineForm::Json,
        queue,
        dropped: Counter::default(),
    };
    let outlets = Outlets {
        log: Some(log),
        spans: None,
    };
    let reporter = Reporter::new(outlets, DrainWatch::default());
    let url = EngineUrl::parse("http://10.0.0.1:8000").unwrap();
    let now = (Instant::now(), Duration::ZERO);
    let engine = Arc::new(Engine::new(url, 1, now, &Arc::default()));
    let request = http::Request::post("/v1/chat/completions").body(());
    let (head, ()) = request.unwrap().into_parts();
    let tell = || {
        let began = Instant::now();
        let report = reporter.begin(&head, "an-id", "10.0.0.9", began);
        let mut report = report.unwrap();
        let account = report.account().unwrap();
        account.tries(&engine, began, 0);
        account.gaps.add(Duration::from_millis(15));
    };
    // Once a buffer was handed over, the next one is as large as it must be.
    while lines.is_empty() {
        tell();
    }
    tell();
    let before = Region::new(ALLOCATOR);
    (0..50).for_each(|_| tell());
    let change = before.change();
    let all = change.allocations + change.reallocations;
    assert_eq!(all, 0, "{change:?}");
}
