//! A decision allocates nothing, whichever the policy: counted.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fastrand::Rng;
use pilotfish::config::Locality;
use pilotfish::config::policies::PolicyKind;
use pilotfish::config::resolve::resolve;
use pilotfish::discovery::listed;
use pilotfish::fleet::Fleet;
use pilotfish::fleet::attributes::Live;
use pilotfish::metrics::ModelRegistry;
use pilotfish::policy::memory::{Fingerprint, Memory};
use pilotfish::policy::{Asked, Moment, Question, Rules, Tried, decide};
use pilotfish::select::Selections;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn deciding_allocates_nothing() {
    for name in PolicyKind::NAMES {
        for count in [1, 100, 1500] {
            let engines: Vec<_> = (0..count)
                .map(|n| json!({"url": format!("http://e{n}:1"), "models": ["m"], "weight": 1 + n % 3}))
                .collect();
            let keys = json!({
                "service_discovery": "static", "routing_logic": name, "session_key": "x",
                "engines": engines,
            });
            let settings = resolve(&serde_json::from_value(keys).unwrap())
                .unwrap()
                .settings;
            let specs = listed::specs(&settings.engines, &Default::default());
            let mut fleet = Fleet::new(ModelRegistry::default());
            fleet.apply(Arc::new(settings), specs);
            let snapshot = fleet.published().load_full();
            let memory = Memory::default();
            let prints = [1u64, 2, 3].map(|hash| Fingerprint {
                hash: hash << 40,
                bytes: 1000,
            });
            memory.learn(&prints, 1, Duration::from_secs(1));
            let mut asked = Asked {
                key: Some("a user of some length".to_owned()),
                prompt_tokens: 10,
                ..Asked::default()
            };
            let mut rng = Rng::with_seed(1);
            let before = Region::new(ALLOCATOR);
            for second in 1..50 {
                let now = Duration::from_secs(second);
                asked.prefix = memory.recall(&prints, now);
                let question = Question {
                    set: &snapshot.model("m").unwrap().candidates,
                    asked: &asked,
                    tried: &Tried::default(),
                    moment: Moment {
                        now,
                        stale_after: Duration::from_secs(60),
                        rules: Rules::of(&snapshot.settings),
                    },
                    bound: None,
                };
                decide(&snapshot.policies.default.spec.kind, &question, &mut rng).unwrap();
                memory.learn(&prints, second, now);
            }
            let change = before.change();
            assert_eq!(change.allocations, 0, "{name} among {count}: {change:?}");
        }
    }
    // Not a test of its own: allocations of both would be counted together.
    a_known_selection();
    the_nearest_first();
}

/// Nobody of the nearest engines is open, and all are asked next.
fn the_nearest_first() {
    for name in PolicyKind::NAMES {
        let engines = (0..100).map(|n| {
            let zone = if n % 10 == 0 { "z" } else { "y" };
            json!({"url": format!("http://e{n}:1"), "models": ["m"], "region": zone})
        });
        let keys = json!({
            "service_discovery": "static", "routing_logic": name, "session_key": "x",
            "prefer_local": true, "limits": {"max_in_flight_per_engine": 9},
            "engines": engines.collect::<Vec<_>>(),
        });
        let settings = resolve(&serde_json::from_value(keys).unwrap())
            .unwrap()
            .settings;
        let specs = listed::specs(&settings.engines, &Default::default());
        let locality = Locality {
            zone: Some("z".to_owned()),
            ..Locality::default()
        };
        let mut fleet = Fleet::at(locality, ModelRegistry::default());
        fleet.apply(Arc::new(settings), specs);
        let snapshot = fleet.published().load_full();
        let (model, kind) = (
            snapshot.model("m").unwrap(),
            &snapshot.policies.default.spec.kind,
        );
        for one in model.near[0].candidates.list() {
            one.engine.in_flight.store(9, Relaxed);
        }
        let (asked, tried, mut rng) = (Asked::default(), Tried::default(), Rng::with_seed(1));
        let before = Region::new(ALLOCATOR);
        for second in 1..50 {
            let tiers = model.nearer(kind).iter().chain([model]);
            let mut chosen = tiers.map(|tier| {
                let question = Question {
                    set: &tier.candidates,
                    asked: &asked,
                    tried: &tried,
                    moment: Moment {
                        now: Duration::from_secs(second),
                        stale_after: Duration::from_secs(60),
                        rules: Rules::of(&snapshot.settings),
                    },
                    bound: None,
                };
                decide(kind, &question, &mut rng)
            });
            assert!(chosen.any(|chosen| chosen.is_ok()), "{name}");
        }
        let change = before.change();
        assert_eq!(change.allocations, 0, "{name}: {change:?}");
    }
}

/// The reference's payload, whose text was seen before.
fn a_known_selection() {
    const PAYLOAD: &str = include_str!("../src/query/tests/payload.json");
    let component = json!({"componentMetadata": {
        "usecase": "chat-completion", "capabilities": {"supportsStreaming": true},
        "evaluation": {"benchmarks": {"MMLU": {"value": 82}}},
    }});
    let engines = (0..100).map(|n| {
        json!({"url": format!("http://e{n}:1"), "models": ["m"], "metadata": component,
            "block": format!("b{}", n % 50)})
    });
    let keys = json!({
        "service_discovery": "static", "routing_logic": "roundrobin",
        "engines": engines.collect::<Vec<_>>(),
    });
    let settings = resolve(&serde_json::from_value(keys).unwrap())
        .unwrap()
        .settings;
    let specs = listed::specs(&settings.engines, &Default::default());
    let mut fleet = Fleet::new(ModelRegistry::default());
    fleet.apply(Arc::new(settings), specs);
    let snapshot = fleet.published().load_full();
    let now = Duration::from_secs(10);
    for one in snapshot.all.candidates.list() {
        one.engine
            .attributes
            .hear(Live::BusyTokensPerSecond, 20.0, now);
    }
    let mut selections = Selections::default();
    let (asked, tried, mut rng) = (Asked::default(), Tried::default(), Rng::with_seed(1));
    let mut select = || {
        let selection = selections
            .search(PAYLOAD.as_bytes(), &snapshot, None)
            .unwrap();
        let set = &snapshot.model("m").unwrap().candidates;
        let bound = selections.bound(&selection.policy, &snapshot, set);
        let question = Question {
            set,
            asked: &asked,
            tried: &tried,
            moment: Moment {
                now,
                stale_after: Duration::from_secs(60),
                rules: Rules::of(&snapshot.settings),
            },
            bound: bound.as_deref(),
        };
        decide(&selection.policy.spec.kind, &question, &mut rng).unwrap()
    };
    select();
    let before = Region::new(ALLOCATOR);
    for _ in 0..100 {
        select();
    }
    let allocated = before.change();
    assert_eq!((allocated.allocations, allocated.reallocations), (0, 0));
}
