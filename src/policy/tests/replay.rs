//! Decisions made again, and their reasons.

use super::*;

#[test]
fn a_decision_is_made_again_bit_for_bit() {
    use crate::decisions::Inputs;
    for policy in PolicyKind::NAMES {
        let snapshot = world(policy, &[1.0, 2.0, 1.0, 3.0, 1.0]);
        let model = snapshot.model("m").unwrap();
        let mut rng = Rng::with_seed(11);
        for n in 0..50 {
            let one = &model.candidates.list()[rng.usize(..5)];
            let expected = Expected::of(one, rng.u64(..1000), None);
            let mut slot = InFlight::take(one, expected, Instant::now());
            slot.delivered(rng.u32(..50), Instant::now());
            let asked = request(n);
            let question = Question {
                set: &model.candidates,
                asked: &asked,
                tried: &Tried::default(),
                moment: moment(),
                bound: None,
            };
            let policy = &snapshot.policies.default;
            let inputs = Inputs::take(policy, model, &question, n);
            let live = decide(&policy.spec.kind, &question, &mut Rng::with_seed(n));
            drop(slot);
            assert_eq!(inputs.decide().0, live);
            // What is written can be read back, and means the same.
            let text = serde_json::to_string(&(&inputs.readings, &inputs.asked)).unwrap();
            let (readings, asked) = serde_json::from_str(&text).unwrap();
            let again = Inputs {
                readings,
                asked,
                ..inputs
            };
            assert_eq!(again.decide().0, live);
            assert_eq!(again.explain().len(), 5);
        }
    }
}

#[test]
fn the_first_of_the_ranked_is_the_choice_where_chance_has_no_say() {
    for policy in ["session", "consistenthash", "prefixaware", "roundrobin"] {
        let snapshot = world(policy, &[1.0; 6]);
        for n in 0..50 {
            let asked = request(n);
            let question = Question {
                set: candidates(&snapshot),
                asked: &asked,
                tried: &Tried::default(),
                moment: moment(),
                bound: None,
            };
            let kind = &snapshot.policies.default.spec.kind;
            let first = explain::explain(kind, &question)[0].at;
            let chosen = decide(kind, &question, &mut Rng::with_seed(n)).unwrap();
            assert_eq!(first, chosen, "{policy}");
        }
    }
}
