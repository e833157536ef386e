//! What the policies are for: each is better than those it is meant to beat.

use super::synthetic::{Kind, Synthetic, generate};
use super::*;
use crate::config::policies::PolicyKind;
use crate::config::resolve::resolve;

fn policy(name: &str) -> PolicySpec {
    let keys = serde_json::json!({
        "service_discovery": "static", "static_backends": "http://a",
        "routing_logic": name, "session_key": "x-session",
    });
    let keys = serde_json::from_value(keys).unwrap();
    resolve(&keys).unwrap().settings.routing.policy
}

fn scene(sidecars: usize) -> Scene {
    Scene {
        engines: 16,
        sidecars,
        speed: Speed::default(),
        cache_tokens: 262_144,
        scrape_every: Duration::from_secs(30),
        slo: Slo {
            ttft: 2.0,
            itl: 0.06,
        },
        seed: 1,
    }
}

/// A trace of that kind at 85 % load.
fn requests(kind: Kind, scene: &Scene) -> Vec<Request> {
    let mut of = Synthetic {
        kind,
        requests: 20_000,
        rate: 1.0,
        seed: 7,
        mean_input: 512.0,
        mean_output: 200.0,
    };
    of.rate = rate_for(0.85, &generate(&of), scene);
    generate(&of)
}

fn row(name: &str, kind: Kind, sidecars: usize) -> Row {
    let scene = scene(sidecars);
    let requests = requests(kind, &scene);
    let row = run(&requests, &policy(name), &scene, &AtomicUsize::new(0));
    assert_eq!(
        row.requests,
        requests.len() as u64,
        "every request is answered"
    );
    row
}

#[test]
fn every_policy_answers_everything_and_the_same_seed_does_the_same() {
    for name in PolicyKind::NAMES {
        let first = row(name, Kind::Sessions, 3);
        let again = row(name, Kind::Sessions, 3);
        assert_eq!(
            (first.ttft_p99, first.imbalance, first.moved),
            (again.ttft_p99, again.imbalance, again.moved),
            "{name}"
        );
    }
}

#[test]
fn least_load_beats_round_robin_and_never_herds() {
    let [least, even] = ["leastload", "roundrobin"].map(|name| row(name, Kind::Poisson, 1));
    assert!(least.ttft_p99 * 2.0 <= even.ttft_p99, "{least:?} {even:?}");
    let [least, random] = ["leastload", "random"].map(|name| row(name, Kind::Poisson, 64));
    assert!(least.ttft_p99 <= random.ttft_p99, "{least:?} {random:?}");
}

#[test]
fn prefix_aware_finds_caches_and_stays_balanced() {
    let [prefix, even] = ["prefixaware", "roundrobin"].map(|name| row(name, Kind::Sessions, 1));
    assert!(
        prefix.hit_rate >= 3.0 * even.hit_rate,
        "{prefix:?} {even:?}"
    );
    assert!(prefix.imbalance <= 1.25, "{prefix:?}");
}
