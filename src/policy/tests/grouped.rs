//! Blocks: who is of one, how they are weighed, who of them is advised.

use serde_json::json;

use super::selection::{best, eight, scored};
use super::*;
use crate::config::policies::PolicyKind;
use crate::fleet::layout::Capability;

/// (d): a block is worth what all its engines are: of two engines with queues of 0 and 10 the block
/// has 10, though its first engine has none.
#[test]
fn blocks_are_weighed_as_wholes_and_the_engine_is_picked_by_another_policy() {
    let engine = |n: usize, block: &str| json!({"url": format!("http://e{n}:1"), "models": ["m"], "block": block});
    let engines = [engine(0, "wide"), engine(1, "wide"), engine(2, "narrow")];
    let keys = json!({
        "routing_logic": "p", "policies": {"p": {"type": "scored",
            "goals": [{"attribute": "requests_waiting", "direction": "min"}]}},
    });
    let snapshot = world_of(&keys, &engines);
    let list = candidates(&snapshot).list();
    for (at, waiting) in [(0, 0.0), (1, 10.0), (2, 5.0)] {
        list[at]
            .engine
            .attributes
            .hear(Live::RequestsWaiting, waiting, NOW);
    }
    assert_eq!(best(&snapshot), "narrow");
    assert_eq!(counts(&snapshot, &Asked::default(), 20), [0, 0, 20]);
    // The mean of what is known counts for what does not add up.
    list[2]
        .engine
        .attributes
        .hear(Live::RequestsWaiting, 11.0, NOW);
    assert_eq!(best(&snapshot), "wide");
    let counts = counts(&snapshot, &Asked::default(), 200);
    assert!(
        counts[0] > 20 && counts[1] > 20 && counts[2] == 0,
        "{counts:?}"
    );
    // An engine that was tried leaves the block to the others of it.
    let mut tried = Tried::default();
    tried.add(&list[0].engine);
    let mut rng = Rng::with_seed(3);
    assert_eq!(
        choose(&snapshot, &Asked::default(), &tried, &mut rng),
        Ok(1)
    );
    tried.add(&list[1].engine);
    assert_eq!(
        choose(&snapshot, &Asked::default(), &tried, &mut rng),
        Ok(2)
    );
}

#[test]
fn blocks_are_named_or_by_model() {
    let engines = [
        json!({"url": "http://a:1", "models": ["m", "n"]}),
        json!({"url": "http://b:1", "models": ["m"], "block": "x"}),
        json!({"url": "http://c:1", "models": ["n", "m"], "block": "x"}),
        json!({"url": "http://d:1", "models": ["k"]}),
    ];
    let snapshot = world_of(&json!({"routing_logic": "scored"}), &engines);
    let blocks: Vec<(&str, &str, usize)> = (snapshot.blocks.list().iter())
        .map(|block| {
            let model = &block.model;
            (&*block.id, &*model.name, model.candidates.list().len())
        })
        .collect();
    assert_eq!(
        blocks,
        [
            ("k", "k", 1),
            ("m", "m", 1),
            ("n", "n", 1),
            ("x", "m", 2),
            ("x", "n", 1)
        ]
    );
    let all = &snapshot.blocks.all.candidates;
    assert_eq!(
        (all.list().len(), all.groups.as_ref().unwrap().len()),
        (6, 5)
    );
    assert_eq!(
        snapshot
            .blocks
            .named("x")
            .unwrap()
            .model
            .candidates
            .list()
            .len(),
        2
    );
    assert!(snapshot.blocks.named("nobody").is_none());
}

#[test]
fn the_first_of_those_advised_that_may_be_chosen_is() {
    let snapshot = eight(&json!({
        "routing_logic": "p", "policies": {"p": {"type": "remote", "url": "http://adviser:1",
            "goals": [{"name": "Fast_Generator"}]}},
    }));
    let advised = |advice: Advice| Asked {
        advice,
        ..Asked::default()
    };
    let ranked = |ids: &[&str]| Advice::Ranked(ids.iter().map(ToString::to_string).collect());
    for (advice, at, reason) in [
        (Advice::None, 2, Reason::Primary),
        (Advice::Failed("prose".to_owned()), 2, Reason::Primary),
        (ranked(&["nobody", "b5", "b3"]), 4, Reason::Advised),
        (ranked(&[]), 2, Reason::Primary),
    ] {
        let asked = advised(advice);
        let question = Question {
            set: candidates(&snapshot),
            asked: &asked,
            tried: &Tried::default(),
            moment: moment(),
            bound: None,
        };
        let kind: &PolicyKind = &snapshot.policies.default.spec.kind;
        let choice = super::super::choose(kind, &question, &mut Rng::with_seed(1)).unwrap();
        assert_eq!((choice.at, choice.reason), (at, reason));
        let first = &explain::explain(kind, &question)[0];
        assert_eq!(first.at, at);
    }
}

#[test]
fn the_id_is_the_blocks_else_the_models() {
    let keys = |id: &str| {
        json!({"routing_logic": "p", "policies": {"p": {"type": "scored",
            "filter": {"variable": "id", "operator": "==", "value": id}}}})
    };
    let engines = [
        json!({"url": "http://a:1", "models": ["m"], "block": "x"}),
        json!({"url": "http://b:1", "models": ["m"]}),
    ];
    let mut rng = Rng::with_seed(1);
    for (id, engines, expected) in [
        ("x", &engines[..], Ok(0)),
        ("m", &engines[..], Ok(1)),
        ("m", &engines[1..], Ok(0)),
        ("http://b:1", &engines[1..], Err(Refusal::NoMatch)),
    ] {
        let snapshot = world_of(&keys(id), engines);
        let chosen = choose(&snapshot, &Asked::default(), &Tried::default(), &mut rng);
        assert_eq!(chosen, expected, "{id}");
    }
}

#[test]
fn who_does_other_work_is_no_candidate() {
    let engine = |n: usize, kind: &str| {
        json!({"url": format!("http://e{n}:1"), "models": [format!("m{n}")],
            "labels": {"model_type": kind}})
    };
    let snapshot = world_of(
        &json!({"routing_logic": "scored"}),
        &[
            engine(0, "embeddings"),
            engine(1, "chat"),
            json!({"url": "http://e2:1", "models": ["m2"]}),
        ],
    );
    let set = &snapshot.blocks.all.candidates;
    let chosen = |capability| {
        let asked = Asked {
            capability,
            ..Asked::default()
        };
        let question = Question {
            set,
            asked: &asked,
            tried: &Tried::default(),
            moment: moment(),
            bound: None,
        };
        let judged = blocks::judged(scored(&snapshot), &question);
        let fit = judged.iter().filter(|one| one.excluded.is_none());
        let mut fit: Vec<usize> = fit.map(|one| one.unit).collect();
        fit.sort_unstable();
        (
            fit,
            blocks::best(scored(&snapshot), &question, &mut Rng::with_seed(1)),
        )
    };
    assert_eq!(chosen(None).0, [0, 1, 2]);
    assert_eq!(chosen(Some(Capability::Generate)).0, [1, 2]);
    assert_eq!(chosen(Some(Capability::Embed)).0, [0, 2]);
    assert!(
        chosen(Some(Capability::Image)).1.is_ok(),
        "of e2 nothing is known"
    );
}

/// Values that are hardly apart are set apart all the same, and others count.
#[test]
fn close_values_are_set_apart_exactly() {
    let goals = json!([
        {"attribute": "a", "direction": "max", "weight": 1},
        {"attribute": "b", "direction": "min", "weight": 2},
    ]);
    let engine = |n: usize, a: f64, b: f64| json!({"url": format!("http://e{n}:1"), "models": ["m"], "metadata": {"a": a, "b": b}});
    for (low, high) in [(1.7, 1.7_f64.next_up()), (1e9, 1e9 + 0.5), (0.2, 100.0)] {
        let keys =
            json!({"routing_logic": "p", "policies": {"p": {"type": "scored", "goals": goals}}});
        let snapshot = world_of(&keys, &[engine(0, high, 9.0), engine(1, low, 9.0)]);
        let asked = Asked::default();
        let question = Question {
            set: candidates(&snapshot),
            asked: &asked,
            tried: &Tried::default(),
            moment: moment(),
            bound: None,
        };
        let judged = blocks::judged(scored(&snapshot), &question);
        let scores: Vec<f64> = judged.iter().map(|one| one.score).collect();
        assert!((scores[0] - 2.0 / 3.0).abs() < 1e-12, "{scores:?}");
        assert!((scores[1] - 1.0 / 3.0).abs() < 1e-12, "{scores:?}");
    }
}
