//! Each policy by tables; by properties: `properties`.

mod composite;
mod grouped;
mod nearest;
mod open;
mod properties;
mod reasons;
mod replay;
mod selection;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::memory::Recalled;
use super::*;
use crate::config::Settings;
use crate::config::dynamic::DynamicFile;
use crate::config::resolve::resolve;
use crate::discovery::listed;
use crate::fleet::attributes::{Live, Place};
use crate::fleet::breaker::Standing;
use crate::fleet::engine::Outcome;
use crate::fleet::load::{Expected, InFlight};
use crate::fleet::ring::mix;
use crate::fleet::testing::fleet;
use crate::fleet::{Candidate, Fleet, Snapshot};

/// When all decisions here are made: long after every engine's slow start.
const NOW: Duration = Duration::from_secs(1000);

/// A fleet under the configuration `keys`, with these engines.
fn set_up(fleet: &mut Fleet, keys: &serde_json::Value, engines: &[serde_json::Value]) {
    let mut all = serde_json::json!({
        "service_discovery": "static", "session_key": "x-user-id", "engines": engines,
    });
    all.as_object_mut()
        .unwrap()
        .extend(keys.as_object().unwrap().clone());
    let keys: DynamicFile = serde_json::from_value(all).unwrap();
    let settings = resolve(&keys).unwrap().settings;
    let specs = listed::specs(&settings.engines, &Default::default());
    fleet.apply(Arc::new(settings), specs);
}

fn engines(weights: &[f64]) -> Vec<serde_json::Value> {
    let each = weights.iter().enumerate().map(|(n, weight)| {
        serde_json::json!({"url": format!("http://e{n:03}:1"), "models": ["m"], "weight": weight})
    });
    each.collect()
}

/// A fleet of engines with these weights, under a built-in policy.
fn world(policy: &str, weights: &[f64]) -> Arc<Snapshot> {
    world_of(
        &serde_json::json!({"routing_logic": policy}),
        &engines(weights),
    )
}

fn world_of(keys: &serde_json::Value, engines: &[serde_json::Value]) -> Arc<Snapshot> {
    let mut fleet = fleet();
    set_up(&mut fleet, keys, engines);
    fleet.published().load_full()
}

fn candidates(snapshot: &Snapshot) -> &CandidateSet {
    &snapshot.model("m").unwrap().candidates
}

fn moment() -> Moment {
    Moment {
        now: NOW,
        stale_after: Duration::from_secs(60),
        rules: Rules::of(&Settings::default()),
    }
}

fn choose(
    snapshot: &Snapshot,
    asked: &Asked,
    tried: &Tried,
    rng: &mut Rng,
) -> Result<usize, Refusal> {
    let question = Question {
        set: candidates(snapshot),
        asked,
        tried,
        moment: Moment {
            rules: Rules::of(&snapshot.settings),
            ..moment()
        },
        bound: None,
    };
    decide(&snapshot.policies.default.spec.kind, &question, rng)
}

fn next(snapshot: &Snapshot, asked: &Asked, rng: &mut Rng) -> usize {
    choose(snapshot, asked, &Tried::default(), rng).unwrap()
}

fn counts(snapshot: &Snapshot, asked: &Asked, picks: usize) -> Vec<usize> {
    let mut rng = Rng::with_seed(5);
    let mut counts = vec![0; candidates(snapshot).list().len()];
    for _ in 0..picks {
        counts[next(snapshot, asked, &mut rng)] += 1;
    }
    counts
}

fn keyed(key: &str) -> Asked {
    Asked {
        key: Some(key.to_owned()),
        ..Asked::default()
    }
}

/// A request that every policy can place by something.
fn request(n: u64) -> Asked {
    Asked {
        prefix: Prefix {
            anchor: Some(mix(n, 1)),
            root: n.is_multiple_of(2).then(|| mix(n, 2)),
            bytes: 4096,
            worth: if n.is_multiple_of(2) { 3276 } else { 0 },
            recalled: [Recalled {
                key: n % 7,
                bytes: 4000,
            }; 3],
        },
        prompt_tokens: n % 5000,
        ..keyed(&format!("user-{n}"))
    }
}

#[test]
fn the_ring_is_the_references() {
    let text = include_str!("../../tests/fixtures/session_ring.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    let keys = vectors["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 60);
    for of in vectors["fleets"].as_array().unwrap() {
        let urls: Vec<&str> = (of["urls"].as_array().unwrap().iter())
            .map(|url| url.as_str().unwrap())
            .collect();
        let engines: Vec<_> = urls
            .iter()
            .map(|url| serde_json::json!({"url": url, "models": ["m"]}))
            .collect();
        let snapshot = world_of(&serde_json::json!({"routing_logic": "session"}), &engines);
        for (key, owner) in keys.iter().zip(of["owners"].as_array().unwrap()) {
            let key = key.as_str().unwrap();
            let at = next(&snapshot, &keyed(key), &mut Rng::with_seed(1));
            let chosen = candidates(&snapshot).list()[at].engine.url.text();
            let owner = urls[usize::try_from(owner.as_u64().unwrap()).unwrap()];
            assert_eq!(chosen, owner, "{key} in {}", of["name"]);
        }
    }
}

#[test]
fn tried_engines_are_never_chosen_again() {
    for policy in PolicyKind::NAMES {
        let snapshot = world(policy, &[1.0; 3]);
        let mut rng = Rng::with_seed(2);
        let mut tried = Tried::default();
        for _ in 0..3 {
            let at = choose(&snapshot, &request(1), &tried, &mut rng).unwrap();
            let engine = &candidates(&snapshot).list()[at].engine;
            assert!(!tried.contains(engine), "{policy}");
            tried.add(engine);
        }
        let none = choose(&snapshot, &request(1), &tried, &mut rng);
        assert_eq!(none, Err(Refusal::Nobody), "{policy}");
    }
}

#[test]
fn nobody_is_nobody() {
    for policy in PolicyKind::NAMES {
        let snapshot = world(policy, &[]);
        let question = Question {
            set: &snapshot.all.candidates,
            asked: &request(1),
            tried: &Tried::default(),
            moment: moment(),
            bound: None,
        };
        let kind = &snapshot.policies.default.spec.kind;
        let none = decide(kind, &question, &mut Rng::with_seed(1));
        assert_eq!(none, Err(Refusal::Nobody), "{policy}");
    }
}

#[test]
fn weights_are_kept_by_those_that_share() {
    let weights = [1.0, 2.0, 5.0];
    assert_eq!(
        counts(&world("roundrobin", &weights), &request(1), 800),
        [100, 200, 500]
    );
    let drawn = counts(&world("weighted", &weights), &request(1), 80_000);
    for (count, weight) in drawn.iter().zip(weights) {
        let (share, picks) = (weight / 8.0, 80_000.0);
        let sigma = (picks * share * (1.0 - share)).sqrt();
        assert!(
            (*count as f64 - picks * share).abs() < 3.0 * sigma,
            "{drawn:?}"
        );
    }
    for odd in [[0.0, 0.0, 0.0], [0.0, 0.0, 4.0]] {
        let counts = counts(&world("weighted", &odd), &request(1), 3000);
        assert_eq!(counts[0] > 0, odd[2] == 0.0, "{counts:?}");
    }
}

#[test]
fn the_least_loaded_gets_it() {
    let load = |snapshot: &Snapshot, at: usize, in_flight: u32, tokens: u64, ttft: u64| {
        let engine = &candidates(snapshot).list()[at].engine;
        engine.in_flight.store(in_flight, Relaxed);
        engine.outstanding.store(tokens, Relaxed);
        engine.latency.observe(Duration::from_millis(ttft), NOW);
    };
    let all = |policy: &str, weights: [f64; 2]| {
        let snapshot = world(policy, &weights);
        load(&snapshot, 0, 3, 900, 100);
        load(&snapshot, 1, 5, 500, 50);
        counts(&snapshot, &Asked::default(), 100)
    };
    assert_eq!(all("leastconnections", [1.0, 1.0]), [100, 0]);
    assert_eq!(all("leastconnections", [1.0, 2.0]), [0, 100]);
    assert_eq!(all("leastload", [1.0, 1.0]), [0, 100]);
    assert_eq!(all("leastload", [2.0, 1.0]), [100, 0]);
    assert_eq!(
        all("leastlatency", [1.0, 1.0]),
        [0, 100],
        "50 ms x 6 < 100 ms x 4"
    );
    let even = counts(
        &world("leastconnections", &[1.0; 4]),
        &Asked::default(),
        4000,
    );
    assert!(
        even.iter().all(|count| (850..1150).contains(count)),
        "random ties: {even:?}"
    );
}

#[test]
fn what_is_scraped_counts_as_long_as_it_is_fresh() {
    for (policy, age, expected) in [
        ("leastload", 0, [0, 100]),
        ("leastconnections", 0, [0, 100]),
        ("leastload", 61, [100, 0]),
        ("leastconnections", 61, [100, 0]),
    ] {
        let snapshot = world(policy, &[1.0, 1.0]);
        let list = candidates(&snapshot).list();
        let mut values = [None; Place::COUNT];
        values[Live::RequestsWaiting as usize] = Some(9.0);
        list[0].engine.told(&values, NOW - Duration::from_secs(age));
        list[1].engine.in_flight.store(1, Relaxed);
        list[1].engine.outstanding.store(300, Relaxed);
        assert_eq!(
            counts(&snapshot, &Asked::default(), 100),
            expected,
            "{policy} {age}"
        );
    }
}

#[test]
fn a_new_engine_is_not_flooded() {
    for policy in ["leastconnections", "leastlatency", "leastload", "weighted"] {
        let snapshot = world(policy, &[1.0, 1.0]);
        let list = candidates(&snapshot).list();
        // It is there since NOW - 3 s: a tenth of its slow start.
        let since = NOW - Duration::from_secs(3);
        list[0].engine.health.restarted(since);
        for one in list {
            one.engine.in_flight.store(4, Relaxed);
            one.engine.outstanding.store(400, Relaxed);
        }
        let counts = counts(&snapshot, &Asked::default(), 2000);
        assert!(counts[0] < 400, "{policy}: {counts:?}");
    }
}

#[test]
fn prompts_go_where_their_beginning_was_seen() {
    let snapshot = world("prefixaware", &[1.0; 8]);
    let list = candidates(&snapshot).list();
    let mut rng = Rng::with_seed(1);
    let mut asked = request(2);
    asked.prefix.recalled = Default::default();
    let home = next(&snapshot, &asked, &mut rng);
    assert_eq!(
        next(&snapshot, &asked, &mut rng),
        home,
        "the same without memory"
    );
    let (first, second) = ((home + 1) % 8, (home + 2) % 8);
    let recalled = |at: usize, bytes| Recalled {
        key: list[at].engine.key,
        bytes,
    };
    asked.prefix.recalled = [
        recalled(first, 4096),
        recalled(second, 3700),
        Recalled::default(),
    ];
    assert_eq!(next(&snapshot, &asked, &mut rng), first);
    list[first].engine.in_flight.store(50, Relaxed);
    assert_eq!(
        next(&snapshot, &asked, &mut rng),
        second,
        "the first has its share"
    );
    asked.prefix.recalled[1].bytes = 1000;
    assert_eq!(next(&snapshot, &asked, &mut rng), home, "of too little");
    asked.prefix.worth = 0;
    assert_eq!(
        next(&snapshot, &asked, &mut rng),
        second,
        "but no conversation is led astray"
    );
}

#[test]
fn prompts_that_are_too_short_have_no_affinity() {
    let snapshot = world("prefixaware", &[1.0; 8]);
    let mut short = request(2);
    // As they are found when no beginning is long enough.
    short.prefix = Prefix::default();
    let spread = counts(&snapshot, &short, 800);
    assert!(spread.iter().all(|count| *count > 50), "{spread:?}");
}
