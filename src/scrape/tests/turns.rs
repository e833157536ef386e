//! Who is read when, and what comes of it, with time passed in.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::super::fetching::{Endpoint, Outcome, Task};
use super::super::guess::guess;
use super::super::page::Page;
use super::super::{AT_ONCE, Scraper};
use crate::config::policies::{PolicyKind, PolicySpec};
use crate::config::{EngineType, Routing, Settings};
use crate::fleet::attributes::{Freshness, Live, Place};
use crate::fleet::load::{Expected, InFlight};
use crate::fleet::testing::{fleet, spec};
use crate::fleet::{Engine, Snapshot};
use crate::upstream::{Fault, FetchError, Pool};

const SECOND: Duration = Duration::from_secs(1);

fn snapshot(engines: usize, policy: PolicyKind, change: impl Fn(&mut Settings)) -> Arc<Snapshot> {
    let mut settings = Settings {
        routing: Routing {
            policy: PolicySpec::plain("p", policy),
            ..Routing::default()
        },
        ..Settings::default()
    };
    change(&mut settings);
    let mut fleet = fleet();
    let urls = (0..engines).map(|n| format!("http://e{n:04}:1"));
    fleet.apply(
        Arc::new(settings),
        urls.map(|url| spec(&url, &["m"])).collect(),
    );
    fleet.published().load_full()
}

/// A scraper with a clock of its own.
struct Clock {
    scraper: Scraper,
    now: Instant,
}

impl Clock {
    fn new() -> Self {
        let pool = Pool::new(0, SECOND, SECOND);
        Self {
            scraper: Scraper::new(SECOND * 30, pool),
            now: Instant::now() + SECOND * 1000,
        }
    }

    /// Whoever is due after that time, with so many places.
    fn due(&mut self, snapshot: &Snapshot, most: usize, after: Duration) -> Vec<Task> {
        self.now += after;
        self.scraper.due(snapshot, most, self.now)
    }

    /// What comes of a task: a page, or an error.
    fn answer(&mut self, task: Task, page: Result<&str, FetchError>) {
        let wanted = Rc::clone(&task.wanted);
        let reading = page.map(|text| {
            let mut page = Page::new(&wanted);
            page.feed(text.as_bytes());
            page.finish()
        });
        let outcome = Outcome {
            engine: task.engine,
            wanted: task.wanted,
            took: Duration::from_millis(5),
            bytes: 1000,
            has_no_slots: false,
            reading,
        };
        self.scraper.take(outcome, self.now);
    }

    /// Waits until one engine is due, and answers it; tells where it was asked,
    /// and after how many seconds.
    fn next(&mut self, snapshot: &Snapshot, page: Result<&str, FetchError>) -> (Endpoint, u64) {
        for waited in 0..1000 {
            if let Some(task) = self.due(snapshot, 1, SECOND).pop() {
                let endpoint = task.endpoint;
                self.answer(task, page);
                return (endpoint, waited + 1);
            }
        }
        panic!("never due");
    }
}

fn status(code: u16) -> FetchError {
    FetchError::Status(StatusCode::from_u16(code).unwrap())
}

fn refused() -> FetchError {
    FetchError::Fault(Fault::Unsent(std::io::ErrorKind::ConnectionRefused.into()))
}

fn traffic(snapshot: &Snapshot, now: Instant) {
    let candidate = &snapshot.all.candidates.list()[0];
    let request = InFlight::take(candidate, Expected::default(), now);
    request.settle(crate::fleet::engine::Outcome::Success);
}

const RUNNING: &str = "vllm:num_requests_running 3\n";

fn running(engine: &Engine) -> Option<f64> {
    engine.attributes.get(Live::RequestsRunning)
}

#[test]
fn a_page_is_looked_for_and_stays_found() {
    let snapshot = snapshot(1, PolicyKind::RoundRobin, |_| {});
    let mut clock = Clock::new();
    let found = [404, 501, 404].map(|code| clock.next(&snapshot, Err(status(code))).0);
    let all = [
        Endpoint::Metrics,
        Endpoint::PrometheusMetrics,
        Endpoint::Loads,
        Endpoint::Slots,
    ];
    assert_eq!(found, all[..3]);
    // All four within seconds, and then it has time.
    let (endpoint, waited) = clock.next(&snapshot, Ok("<html>"));
    assert_eq!(endpoint, Endpoint::Slots);
    assert!(waited <= 2, "{waited}");
    let (endpoint, waited) = clock.next(&snapshot, Err(status(404)));
    assert_eq!(endpoint, Endpoint::Metrics);
    assert!((50..=70).contains(&waited), "{waited}");
    let (endpoint, waited) = clock.next(&snapshot, Ok("trtllm_num_requests_running 1\n"));
    assert_eq!(endpoint, Endpoint::PrometheusMetrics);
    assert!(waited <= 2, "{waited}");
    // It is busy, or down for a moment: the place is the same, and after that
    // it may be another process.
    for error in [status(503), status(429), status(401)] {
        clock.next(&snapshot, Err(error));
    }
    assert_eq!(clock.next(&snapshot, Err(refused())).0, Endpoint::Metrics);
    let engine = &snapshot.all.candidates.list()[0].engine;
    assert_eq!(running(engine), Some(1.0));
    let failures = &engine.attributes.failures;
    assert_eq!(failures.load(std::sync::atomic::Ordering::Relaxed), 9);
}

#[test]
fn while_it_matters_nobody_waits_long_and_nobody_in_step() {
    let snapshot = snapshot(40, PolicyKind::LeastLoad, |_| {});
    let mut clock = Clock::new();
    for task in clock.due(&snapshot, AT_ONCE, SECOND * 20) {
        clock.answer(task, Ok(RUNNING));
    }
    for task in clock.due(&snapshot, AT_ONCE, SECOND * 20) {
        clock.answer(task, Ok(RUNNING));
    }
    assert!(
        clock.due(&snapshot, AT_ONCE, SECOND).is_empty(),
        "nobody asks"
    );
    traffic(&snapshot, clock.now);
    // The first request makes them due within a second, one after the other.
    let step = SECOND / 10;
    let mut counts = Vec::new();
    for _ in 0..50 {
        let due = clock.due(&snapshot, AT_ONCE, step);
        counts.push(due.len());
        for task in due {
            clock.answer(task, Ok(RUNNING));
        }
        traffic(&snapshot, clock.now);
    }
    let (all, most) = (counts.iter().sum::<usize>(), counts.iter().max());
    assert!((120..=200).contains(&all), "{all} in 5 s");
    assert!(most < Some(&25), "{counts:?}");
}

#[test]
fn whoever_has_waited_longest_comes_first() {
    let snapshot = snapshot(300, PolicyKind::LeastLoad, |settings| {
        settings.scraping.aperture = Some(300);
    });
    let mut clock = Clock::new();
    let mut read = HashSet::new();
    // Fewer places than are due.
    for _ in 0..60 {
        traffic(&snapshot, clock.now);
        for task in clock.due(&snapshot, 10, SECOND) {
            read.insert(task.engine.key);
            clock.answer(task, Ok(RUNNING));
        }
    }
    assert_eq!(read.len(), 300);
}

#[test]
fn what_is_not_read_any_more_does_not_count() {
    let snapshot = snapshot(100, PolicyKind::LeastLoad, |_| {});
    let mut clock = Clock::new();
    let mut read = HashSet::new();
    // The aperture turns once in ten minutes.
    for _ in 0..900 {
        traffic(&snapshot, clock.now);
        for mut task in clock.due(&snapshot, AT_ONCE, SECOND) {
            read.insert(task.engine.key);
            task.with_slots = false;
            clock.answer(task, Ok(RUNNING));
        }
    }
    assert!(read.len() > 40, "{}", read.len());
    let engines = snapshot.all.candidates.list();
    let within = clock.scraper.within(engines, snapshot.clock(clock.now));
    let pace = clock.scraper.pace(&snapshot, &within, clock.now);
    assert_eq!(pace.bytes, 20 * 1000);
}

#[test]
fn several_processes_behind_one_url_are_no_restarts() {
    let snapshot = snapshot(1, PolicyKind::RoundRobin, |_| {});
    let engine = &snapshot.all.candidates.list()[0].engine;
    let speed = || engine.attributes.get(Live::BusyTokensPerSecond);
    let page = |tokens: u32| format!("sglang:generation_tokens_total {tokens}\n");
    let mut clock = Clock::new();
    engine.attributes.hear(Live::MaxModelLen, 5.0, SECOND);
    clock.next(&snapshot, Ok(&page(1_000_000)));
    clock.next(&snapshot, Ok(&page(1_000_600)));
    let before = speed().unwrap();
    assert!((9.0..13.0).contains(&before), "{before}");
    // The first fall may be a restart: what belongs to the process is forgotten.
    clock.next(&snapshot, Ok(&page(900_000)));
    assert_eq!(speed(), None);
    assert_eq!(engine.attributes.get(Live::MaxModelLen), None);
    clock.next(&snapshot, Ok(&page(1_000_900)));
    engine.latency.observe(SECOND, SECOND);
    for tokens in [900_100, 1_001_000, 900_200] {
        clock.next(&snapshot, Ok(&page(tokens)));
    }
    assert!(engine.latency.get(SECOND * 2).is_some(), "no restart");
    assert!(speed().is_none_or(|speed| speed < 1e4), "{:?}", speed());
}

#[test]
fn nothing_new_is_not_unknown() {
    let snapshot = snapshot(1, PolicyKind::RoundRobin, |_| {});
    let engine = &snapshot.all.candidates.list()[0].engine;
    let page = |count: u32| {
        format!(
            "process_start_time_seconds 5\nvllm:time_to_first_token_seconds_sum {count}\n\
             vllm:time_to_first_token_seconds_count {count}\nvllm:generation_tokens_total {count}\n"
        )
    };
    let mut clock = Clock::new();
    for count in [1, 2, 2, 2] {
        clock.next(&snapshot, Ok(&page(count)));
    }
    assert_eq!(engine.attributes.get(Live::TtftMs), Some(1000.0));
    assert_eq!(engine.attributes.get(Live::TokensPerSecond), Some(0.0));
    assert!(engine.attributes.get(Live::BusyTokensPerSecond) > Some(0.0));
    // Another process.
    let other = page(9).replace("seconds 5", "seconds 500");
    clock.next(&snapshot, Ok(&other));
    assert_eq!(engine.attributes.get(Live::TokensPerSecond), Some(0.0));
    // What it does not have, it does not tell.
    clock.next(&snapshot, Ok(RUNNING));
    assert_eq!(engine.attributes.get(Live::TtftMs), None);
}

#[test]
fn a_type_that_changes_is_looked_for_anew() {
    let slots = snapshot(1, PolicyKind::RoundRobin, |_| {});
    let mut clock = Clock::new();
    for code in [404, 404] {
        clock.next(&slots, Err(status(code)));
    }
    let engine = &slots.all.candidates.list()[0].engine;
    let turn = clock.scraper.turns.get_mut(&engine.key).unwrap();
    assert_eq!(turn.begin(None).0, Endpoint::Loads);
    assert_eq!(
        turn.begin(Some(EngineType::Trtllm)).0,
        Endpoint::PrometheusMetrics
    );
}

#[test]
fn engines_that_tell_nothing_are_thought_to_be_like_the_rest() {
    let mut fleet = fleet();
    let settings = Settings {
        routing: Routing {
            policy: PolicySpec::plain("leastload", PolicyKind::LeastLoad),
            ..Routing::default()
        },
        ..Settings::default()
    };
    let specs = ["http://a:1", "http://b:1"].map(|url| spec(url, &["m"]));
    let silent = spec("http://c:1", &["m", "z-adapter"]);
    let specs = [&specs[..], &[silent]].concat();
    fleet.apply(Arc::new(settings), specs.clone());
    let snapshot = fleet.published().load_full();
    let engine = |at: usize| &snapshot.all.candidates.list()[at].engine;
    let guesses = |now: Duration| {
        guess(&snapshot, Freshness::new(now, SECOND * 60));
        [0, 1, 2].map(|at| engine(at).guessed_requests())
    };
    assert_eq!(guesses(SECOND * 100), [0.0; 3]);
    for (at, running) in [(0, 8.0), (1, 4.0)] {
        let mut values = [None; Place::COUNT];
        values[Live::RequestsRunning as usize] = Some(running);
        engine(at).told(&values, SECOND * 100);
    }
    // Of the model that it alone serves nobody has told.
    assert_eq!(guesses(SECOND * 100)[2], 6.0);
    // Half of it after 2 s, and nothing once all are stale.
    assert_eq!(guesses(SECOND * 102)[2], 3.0);
    assert_eq!(guesses(SECOND * 200), [0.0; 3]);
    // Nor when nobody looks.
    guesses(SECOND * 100);
    fleet.apply(Arc::default(), specs);
    guess(
        &fleet.published().load(),
        Freshness::new(SECOND * 100, SECOND * 60),
    );
    assert_eq!(engine(2).guessed_requests(), 0.0);
}
