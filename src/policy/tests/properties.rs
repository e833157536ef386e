//! What holds for any fleet, any load and any history.

use std::collections::BTreeMap;

use proptest::prelude::*;

use fastrand::Rng;

use super::*;

fn owner_of(snapshot: &Snapshot, key: u64) -> &Candidate {
    let asked = keyed(&format!("key-{key}"));
    let at = next(snapshot, &asked, &mut Rng::with_seed(1));
    &candidates(snapshot).list()[at]
}

#[test]
fn rendezvous_shares_follow_weights() {
    let weights = [1.0, 1.0, 2.0, 4.0];
    let even = [1.0; 5];
    for weights in [&weights[..], &even] {
        let snapshot = world("consistenthash", weights);
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for key in 0..100_000 {
            *counts
                .entry(owner_of(&snapshot, key).engine.url.text())
                .or_default() += 1.0;
        }
        let sum: f64 = weights.iter().sum();
        for (count, weight) in counts.values().zip(weights) {
            let share = weight / sum * 100_000.0;
            assert!((count / share - 1.0).abs() < 0.05, "{counts:?}");
        }
    }
}

/// Keys of owners, with and without one engine: who stays keeps every key.
fn moves_only_what_it_must(policy: &str, gone: usize, count: usize) {
    let all = engines(&vec![1.0; count]);
    let mut fewer = all.clone();
    fewer.remove(gone);
    let keys = serde_json::json!({"routing_logic": policy});
    let (before, after) = (world_of(&keys, &all), world_of(&keys, &fewer));
    let gone = all[gone]["url"].as_str().unwrap();
    for key in 0..200 {
        let was = owner_of(&before, key).engine.url.text();
        let is = owner_of(&after, key).engine.url.text();
        assert!(
            was == is || was == gone,
            "{policy}: {key} moved from {was} to {is}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn only_the_necessary_keys_move(gone in 0..12usize, count in 2..12usize) {
        for policy in ["session", "consistenthash"] {
            moves_only_what_it_must(policy, gone % count, count);
        }
    }

    #[test]
    fn the_load_bound_is_never_exceeded(
        weights in prop::collection::vec(0.5..4.0f64, 1..20),
        keys in prop::collection::vec(0..5u64, 1..300),
        bound in 1.0..2.0f64,
    ) {
        let snapshot = world_of(
            &serde_json::json!({
                "routing_logic": "p",
                "policies": {"p": {"type": "consistenthash", "load_bound": bound}},
            }),
            &engines(&weights),
        );
        let list = candidates(&snapshot).list();
        let sum: f64 = weights.iter().sum();
        let mut rng = Rng::with_seed(1);
        for (sent, key) in keys.iter().enumerate() {
            let at = next(&snapshot, &keyed(&key.to_string()), &mut rng);
            let load = list[at].engine.in_flight.fetch_add(1, Relaxed) + 1;
            let share = bound * (sent + 1) as f64 * weights[at] / sum;
            prop_assert!(f64::from(load) <= share.ceil(), "{load} > {share}");
        }
    }

    #[test]
    fn turns_are_even_over_any_history(
        history in prop::collection::vec((1..9usize, 1..40usize), 1..12),
    ) {
        let mut fleet = fleet();
        let mut rng = Rng::with_seed(1);
        for (count, picks) in history {
            let keys = serde_json::json!({"routing_logic": "roundrobin"});
            set_up(&mut fleet, &keys, &engines(&vec![1.0; count]));
            let snapshot = fleet.published().load_full();
            let mut counts = vec![0usize; count];
            for _ in 0..picks {
                counts[next(&snapshot, &Asked::default(), &mut rng)] += 1;
            }
            let (least, most) = (counts.iter().min(), counts.iter().max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1, "{:?}", counts);
        }
    }

    #[test]
    fn in_flight_returns_to_nothing(events in prop::collection::vec((0..4usize, 0..5u8), 0..200)) {
        let snapshot = world("leastload", &[1.0; 4]);
        let list = candidates(&snapshot).list();
        let mut open = Vec::new();
        for (at, event) in events {
            let expected = Expected { prompt: 7 * u32::from(event), output: 3 };
            match (event, open.pop()) {
                (0 | 1, last) => {
                    open.extend(last);
                    open.insert(0, InFlight::take(&list[at], expected, Instant::now()));
                }
                (2, Some(mut slot)) => {
                    slot.delivered(2, Instant::now());
                    open.insert(0, slot);
                }
                (3, Some(slot)) => slot.settle(Outcome::Failure),
                (_, last) => drop(last),
            }
        }
        drop(open);
        for one in list {
            prop_assert_eq!(one.engine.in_flight.load(Relaxed), 0);
            prop_assert_eq!(one.engine.answering.load(Relaxed), 0);
            prop_assert_eq!(one.engine.outstanding.load(Relaxed), 0);
        }
    }

    #[test]
    fn the_closed_are_left_alone_and_the_same_seed_does_the_same(
        policy in 0..PolicyKind::NAMES.len(),
        closed in prop::collection::vec(any::<bool>(), 2..40),
        loads in prop::collection::vec(0..30u32, 40),
        seed in any::<u64>(),
    ) {
        let snapshot = world(PolicyKind::NAMES[policy], &vec![1.0; closed.len()]);
        let list = candidates(&snapshot).list();
        for ((one, is_closed), load) in list.iter().zip(&closed).zip(loads) {
            one.engine.in_flight.store(load, Relaxed);
            one.engine.outstanding.store(u64::from(load) * 100, Relaxed);
            for _ in 0..if *is_closed { 5 } else { 0 } {
                one.engine.health.learn(Standing::Trusted, Outcome::Failure, NOW);
            }
        }
        let asked = request(seed);
        let turn = candidates(&snapshot).cursor.load(Relaxed);
        let chosen = choose(&snapshot, &asked, &Tried::default(), &mut Rng::with_seed(seed));
        candidates(&snapshot).cursor.store(turn, Relaxed);
        let again = choose(&snapshot, &asked, &Tried::default(), &mut Rng::with_seed(seed));
        prop_assert_eq!(chosen, again);
        let count = closed.iter().filter(|is_closed| **is_closed).count();
        if let (Ok(at), true) = (chosen, count * 2 <= closed.len()) {
            prop_assert!(!closed[at], "{} chose one that is set aside", PolicyKind::NAMES[policy]);
        }
    }

    /// However many fail, no more than the bound is left alone.
    #[test]
    fn ejection_never_goes_past_its_bound(
        failing in prop::collection::vec(any::<bool>(), 1..30),
        bound in 0.0..=1.0f64,
    ) {
        let engines = engines(&vec![1.0; failing.len()]);
        let keys = serde_json::json!({
            "routing_logic": "roundrobin", "breaker": {"max_ejected": bound},
        });
        let snapshot = world_of(&keys, &engines);
        let list = candidates(&snapshot).list();
        for (one, _) in list.iter().zip(&failing).filter(|(_, fails)| **fails) {
            for _ in 0..5 {
                one.engine.health.learn(Standing::Trusted, Outcome::Failure, NOW);
            }
        }
        let mut asked = vec![false; list.len()];
        let mut rng = Rng::with_seed(1);
        for n in 0..list.len() as u64 * 2 {
            asked[next(&snapshot, &request(n), &mut rng)] = true;
        }
        let alone = asked.iter().filter(|is_asked| !**is_asked).count();
        #[expect(clippy::cast_precision_loss, reason = "fewer than 30")]
        let most = bound * list.len() as f64;
        prop_assert!(alone as f64 <= most, "{alone} of {} with {bound}", list.len());
    }
}
