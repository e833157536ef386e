//! Who is open to a choice: the set aside, the unreachable, the full, the
//! draining, and those without weight.

use super::*;

fn fail(snapshot: &Snapshot, at: usize, outcome: Outcome) {
    let engine = &candidates(snapshot).list()[at].engine;
    for _ in 0..5 {
        engine.health.learn(Standing::Trusted, outcome, NOW);
    }
}

fn chosen(snapshot: &Snapshot) -> Vec<usize> {
    let mut rng = Rng::with_seed(5);
    let all =
        (0..300).filter_map(|n| choose(snapshot, &request(n), &Tried::default(), &mut rng).ok());
    let mut all: Vec<usize> = all.collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn refusal(snapshot: &Snapshot) -> Result<usize, Refusal> {
    choose(
        snapshot,
        &request(1),
        &Tried::default(),
        &mut Rng::with_seed(1),
    )
}

#[test]
fn beyond_half_of_them_ejected_all_are_asked() {
    for policy in PolicyKind::NAMES.iter().filter(|name| **name != "session") {
        for (ejected, asked) in [(2, vec![2, 3]), (3, vec![0, 1, 2, 3])] {
            let snapshot = world(policy, &[1.0; 4]);
            (0..ejected).for_each(|at| fail(&snapshot, at, Outcome::Timeout));
            let chosen = chosen(&snapshot);
            // Some prefer those of which they know the best.
            let is_all = asked.iter().all(|at| chosen.contains(at));
            let is_choosy = ["leastlatency", "federation", "scored"].contains(policy);
            assert!(is_all || is_choosy, "{policy}: {chosen:?}");
            assert!(
                chosen.iter().all(|at| asked.contains(at)),
                "{policy}: {chosen:?}"
            );
        }
    }
}

#[test]
fn nobody_asks_where_nobody_listens() {
    for policy in PolicyKind::NAMES {
        let snapshot = world(policy, &[1.0; 3]);
        fail(&snapshot, 0, Outcome::Unreachable);
        fail(&snapshot, 1, Outcome::Unreachable);
        assert_eq!(chosen(&snapshot), [2], "{policy}");
        fail(&snapshot, 2, Outcome::Unreachable);
        assert_eq!(refusal(&snapshot), Err(Refusal::AllUnhealthy), "{policy}");
    }
}

#[test]
fn the_draining_get_nothing_even_if_there_is_nobody_else() {
    for policy in PolicyKind::NAMES {
        let routing = serde_json::json!({"routing_logic": policy, "session_key": "x"});
        let engine = |url: &str, draining: bool| serde_json::json!({"url": url, "models": ["m"], "draining": draining});
        let both = [engine("http://a", true), engine("http://b", false)];
        assert_eq!(chosen(&world_of(&routing, &both)), [1], "{policy}");
        let none = world_of(&routing, &both[..1]);
        assert_eq!(refusal(&none), Err(Refusal::AllUnhealthy), "{policy}");
    }
}

#[test]
fn no_engine_gets_more_than_it_may() {
    for policy in PolicyKind::NAMES {
        let routing = serde_json::json!({
            "routing_logic": policy, "session_key": "x", "limits": {"max_in_flight_per_engine": 7},
        });
        let engine = |url: &str| serde_json::json!({"url": url, "models": ["m"]});
        let snapshot = world_of(&routing, &[engine("http://a"), engine("http://b")]);
        let list = candidates(&snapshot).list();
        list[0].engine.in_flight.store(7, Relaxed);
        list[1].engine.in_flight.store(6, Relaxed);
        assert_eq!(chosen(&snapshot), [1], "{policy}");
        list[1].engine.in_flight.store(7, Relaxed);
        assert_eq!(refusal(&snapshot), Err(Refusal::Full), "{policy}");
        // One that is set aside is no place for those who may wait.
        list[0].engine.in_flight.store(0, Relaxed);
        fail(&snapshot, 0, Outcome::Failure);
        assert_eq!(refusal(&snapshot), Err(Refusal::Full), "{policy}");
    }
}

#[test]
fn engines_set_aside_and_without_weight_come_last() {
    for policy in PolicyKind::NAMES {
        let snapshot = world(policy, &[1.0, 0.0, 1.0]);
        let mut rng = Rng::with_seed(3);
        let list = candidates(&snapshot).list();
        for _ in 0..5 {
            list[0]
                .engine
                .health
                .learn(Standing::Trusted, Outcome::Failure, NOW);
        }
        for n in 0..200 {
            assert_eq!(next(&snapshot, &request(n), &mut rng), 2, "{policy}");
        }
        for _ in 0..5 {
            list[2]
                .engine
                .health
                .learn(Standing::Trusted, Outcome::Timeout, NOW);
        }
        let last = choose(&snapshot, &request(1), &Tried::default(), &mut rng);
        if policy == "federation" {
            assert_eq!(last, Err(Refusal::AllUnhealthy));
        } else {
            assert!(last.is_ok(), "{policy}: better one that fails than none");
        }
    }
}

#[test]
fn an_engine_without_weight_is_better_than_none() {
    for policy in PolicyKind::NAMES {
        let snapshot = world(policy, &[1.0, 0.0]);
        let mut tried = Tried::default();
        tried.add(&candidates(&snapshot).list()[0].engine);
        let last = choose(&snapshot, &request(1), &tried, &mut Rng::with_seed(1));
        if policy != "federation" {
            assert_eq!(last, Ok(1), "{policy}");
        }
    }
}

#[test]
fn among_many_nobody_is_chosen_who_is_set_aside() {
    for policy in ["consistenthash", "prefixaware"] {
        let snapshot = world(policy, &vec![1.0; 1500]);
        let list = candidates(&snapshot).list();
        for (n, one) in list.iter().enumerate() {
            one.engine
                .in_flight
                .store(if n < 450 { 0 } else { 15 }, Relaxed);
            for _ in 0..if n < 450 { 5 } else { 0 } {
                one.engine
                    .health
                    .learn(Standing::Trusted, Outcome::Failure, NOW);
            }
        }
        let mut rng = Rng::with_seed(1);
        for n in 0..500 {
            assert!(next(&snapshot, &request(n), &mut rng) >= 450, "{policy}");
        }
        let first = next(&snapshot, &request(7), &mut rng);
        assert_eq!(
            next(&snapshot, &request(7), &mut rng),
            first,
            "{policy} stays"
        );
    }
}
