//! By which branch an engine was chosen.

use super::*;
use crate::fleet::breaker::Standing;
use crate::fleet::engine::Outcome;
use crate::policy::reason::Reason;

fn reason(snapshot: &Snapshot, asked: &Asked) -> Reason {
    let question = Question {
        set: candidates(snapshot),
        asked,
        tried: &Tried::default(),
        moment: moment(),
        bound: None,
    };
    let kind = &snapshot.policies.default.spec.kind;
    let mut rng = Rng::with_seed(3);
    crate::policy::choose(kind, &question, &mut rng)
        .unwrap()
        .reason
}

#[test]
fn an_ordinary_choice_is_the_policys_own() {
    for policy in PolicyKind::NAMES {
        let snapshot = world(policy, &[1.0; 4]);
        let mut asked = request(1);
        asked.prefix.recalled = Default::default();
        assert_eq!(reason(&snapshot, &asked), Reason::Primary, "{policy}");
    }
}

#[test]
fn nothing_to_be_placed_by_is_told() {
    for policy in ["session", "consistenthash", "prefixaware"] {
        let snapshot = world(policy, &[1.0; 4]);
        let nothing = Asked::default();
        assert_eq!(reason(&snapshot, &nothing), Reason::NoKey, "{policy}");
    }
}

#[test]
fn memory_and_overflow_are_told_apart() {
    let snapshot = world("prefixaware", &[1.0; 8]);
    let list = candidates(&snapshot).list();
    let mut asked = request(2);
    asked.prefix.recalled = Default::default();
    let home = next(&snapshot, &asked, &mut Rng::with_seed(1));
    let seen_by = &list[(home + 1) % 8].engine;
    asked.prefix.recalled[0] = Recalled {
        key: seen_by.key,
        bytes: 4096,
    };
    assert_eq!(reason(&snapshot, &asked), Reason::Memory);
    seen_by.in_flight.store(50, Relaxed);
    assert_eq!(reason(&snapshot, &asked), Reason::Overflow);
    let hashed = world("consistenthash", &[1.0; 8]);
    let owner = next(&hashed, &keyed("x"), &mut Rng::with_seed(1));
    assert_eq!(reason(&hashed, &keyed("x")), Reason::Primary);
    candidates(&hashed).list()[owner]
        .engine
        .in_flight
        .store(50, Relaxed);
    assert_eq!(reason(&hashed, &keyed("x")), Reason::Overflow);
}

#[test]
fn trouble_is_told_whatever_the_policy() {
    for policy in PolicyKind::NAMES {
        let snapshot = world(policy, &[1.0; 4]);
        let fail = |count: usize| {
            for one in &candidates(&snapshot).list()[..count] {
                for _ in 0..5 {
                    one.engine
                        .health
                        .failed(Standing::Trusted, Outcome::Failure, NOW);
                }
            }
        };
        fail(1);
        let mut asked = request(1);
        asked.prefix.recalled = Default::default();
        assert_ne!(reason(&snapshot, &asked), Reason::Panic, "{policy}");
    }
    for policy in ["roundrobin", "leastload", "prefixaware", "scored"] {
        let snapshot = world(policy, &[1.0; 4]);
        for one in candidates(&snapshot).list() {
            for _ in 0..5 {
                one.engine
                    .health
                    .failed(Standing::Trusted, Outcome::Failure, NOW);
            }
        }
        assert_eq!(reason(&snapshot, &request(1)), Reason::Panic, "{policy}");
        let pressed = world(policy, &[1.0; 4]);
        for one in candidates(&pressed).list() {
            one.engine.health.pressed(Standing::Trusted, None, NOW);
        }
        assert_eq!(
            reason(&pressed, &request(1)),
            Reason::LastResort,
            "{policy}"
        );
    }
}

#[test]
fn what_was_counted_stays_with_the_name() {
    let mut fleet = fleet();
    let keys = |policy: &str| serde_json::json!({"routing_logic": policy});
    set_up(&mut fleet, &keys("leastload"), &engines(&[1.0]));
    let counted = |fleet: &crate::fleet::Fleet| {
        let snapshot = fleet.published().load_full();
        let policy = &snapshot.policies.default;
        policy.decisions.count(Reason::Primary);
        policy.decisions.read()[Reason::Primary as usize]
    };
    assert_eq!(counted(&fleet), 1);
    set_up(&mut fleet, &keys("leastload"), &engines(&[1.0, 2.0]));
    assert_eq!(counted(&fleet), 2);
    set_up(&mut fleet, &keys("random"), &engines(&[1.0]));
    assert_eq!(counted(&fleet), 1);
}
