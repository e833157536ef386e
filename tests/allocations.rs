//! A decision allocates nothing, whichever the policy: counted.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pilotfish::config::policies::PolicyKind;
use pilotfish::config::resolve::resolve;
use pilotfish::discovery::listed;
use pilotfish::fleet::Fleet;
use pilotfish::metrics::ModelRegistry;
use pilotfish::policy::memory::{Fingerprint, Memory};
use pilotfish::policy::{Asked, Moment, Question, Rules, Tried, decide};
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
                };
                decide(&snapshot.policies.default.spec.kind, &question, &mut rng).unwrap();
                memory.learn(&prints, second, now);
            }
            let change = before.change();
            assert_eq!(change.allocations, 0, "{name} among {count}: {change:?}");
        }
    }
}
