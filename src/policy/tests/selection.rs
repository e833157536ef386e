//! Selections by attributes: the shipped goals, worked by hand; blocks; and what
//! the reference gets wrong.

use serde_json::{Value, json};

use super::*;
use crate::config::policies::Scored;

/// Eight blocks. A dash is what is not known of it.
///
/// | block | tokens/s | sessions | queue | params | GPU mem | latency | fps | MMLU | tasks | total |
/// |---|---|---|---|---|---|---|---|---|---|---|
/// | b1 | 100 | 4 | 2 | 8 | 24 | 2 | 0.5 | 65 | 2 | 1000 |
/// | b2 | 50 | 0 | 0 | 70 | 160 | 8 | 0.125 | 86 | 0.1 | 50 |
/// | b3 | 200 | 10 | 10 | 3 | 12 | 1 | 1 | 55 | 10 | 9000 |
/// | b4 | 20 | 1 | 0 | 14 | 48 | 4 | 0.25 | 78 | 0.5 | 300 |
/// | b5 | - | - | - | 1 | 8 | - | - | 30 | - | - |
/// | b6 | 80 | 8 | 4 | 8 | 24 | 1.25 | 0.8 | 82 | 4 | 4000 |
/// | b7 | 150 | 16 | 1 | 32 | 80 | 1.6 | 0.625 | 80 | 6 | 5000 |
/// | b8 | 10 | 2 | 6 | - | - | 0.5 | 2 | - | 1 | 100 |
const BLOCKS: [[f64; 10]; 8] = {
    const NO: f64 = f64::NAN;
    [
        [100.0, 4.0, 2.0, 8.0, 24.0, 2.0, 0.5, 65.0, 2.0, 1000.0],
        [50.0, 0.0, 0.0, 70.0, 160.0, 8.0, 0.125, 86.0, 0.1, 50.0],
        [200.0, 10.0, 10.0, 3.0, 12.0, 1.0, 1.0, 55.0, 10.0, 9000.0],
        [20.0, 1.0, 0.0, 14.0, 48.0, 4.0, 0.25, 78.0, 0.5, 300.0],
        [NO, NO, NO, 1.0, 8.0, NO, NO, 30.0, NO, NO],
        [80.0, 8.0, 4.0, 8.0, 24.0, 1.25, 0.8, 82.0, 4.0, 4000.0],
        [150.0, 16.0, 1.0, 32.0, 80.0, 1.6, 0.625, 80.0, 6.0, 5000.0],
        [10.0, 2.0, 6.0, NO, NO, 0.5, 2.0, NO, 1.0, 100.0],
    ]
};

/// Which of a row's numbers engines tell, or we measure.
const LIVE: [(usize, Live); 7] = [
    (0, Live::BusyTokensPerSecond),
    (1, Live::RequestsRunning),
    (2, Live::QueueAverage1m),
    (5, Live::LatencyNow),
    (6, Live::FpsNow),
    (8, Live::TasksAverage1m),
    (9, Live::TasksTotal),
];

fn metadata(row: &[f64; 10], usecase: &str) -> Value {
    let mut document = json!({"componentMetadata": {"usecase": usecase}});
    let own = &mut document["componentMetadata"];
    if !row[3].is_nan() {
        own["architecture"] = json!({"parameterCountB": row[3]});
        own["hardware"] = json!({"gpus": [{"totalMem": row[4]}]});
    }
    if !row[7].is_nan() {
        own["evaluation"] = json!({"benchmarks": {"MMLU": {"value": row[7]}}});
    }
    document
}

pub(super) fn eight(keys: &Value) -> Arc<Snapshot> {
    let engines = BLOCKS.iter().enumerate().map(|(n, row)| {
        json!({
            "url": format!("http://e{n}:1"), "models": ["m"], "block": format!("b{}", n + 1),
            "metadata": metadata(row, "chat-completion, multi-modal"),
        })
    });
    let snapshot = world_of(keys, &engines.collect::<Vec<_>>());
    for (one, row) in candidates(&snapshot).list().iter().zip(&BLOCKS) {
        for (column, live) in LIVE {
            if !row[column].is_nan() {
                one.engine.attributes.hear(live, row[column], NOW);
            }
        }
    }
    snapshot
}

pub(super) fn scored(snapshot: &Snapshot) -> &Scored {
    snapshot.policies.default.spec.kind.scored().unwrap()
}

/// The best block, by name.
pub(super) fn best(snapshot: &Snapshot) -> String {
    let set = &snapshot.blocks.all.candidates;
    let question = Question {
        set,
        asked: &Asked::default(),
        tried: &Tried::default(),
        moment: moment(),
        bound: None,
    };
    let of = scored(snapshot);
    let unit = blocks::best(of, &question, &mut Rng::with_seed(1)).unwrap();
    // What was looked at before changes nothing.
    let bound = bound::Bound::of(of, set);
    let bound = Question {
        bound: Some(&bound),
        ..question
    };
    assert_eq!(blocks::best(of, &bound, &mut Rng::with_seed(1)), Ok(unit));
    let judged = blocks::judged(of, &question);
    assert_eq!(judged[0].unit, unit, "the first of the ranked");
    snapshot.blocks.list()[unit].id.to_string()
}

fn by_goals(goals: &Value) -> Arc<Snapshot> {
    eight(&json!({
        "routing_logic": "p", "policies": {"p": {"type": "scored", "goals": goals}},
    }))
}

/// The sums are of [`BLOCKS`].
#[test]
fn each_shipped_goal_chooses_as_worked_by_hand() {
    for (goal, expected) in [
        // 200 of 10 to 200: the most.
        ("Fast_Generator", "b3"),
        // b2: no session of 0..16, no queue of 0..10: (1 + 1) / 2. b4: (15/16 + 1) / 2 = 0.97.
        // b5 tells nothing: (0 + 0) / 2.
        ("Free_Block", "b2"),
        // b3: (10/16 + 1 + 1) / 3 = 0.88. b7, with the most sessions: tasks (6 - 0.1) / 9.9,
        // total (5000 - 50) / 8950: (1 + 0.60 + 0.55) / 3 = 0.72.
        ("Active_Block", "b3"),
        // b5: 1 of 1..70, 8 of 8..160: (1 + 1) / 2, though it tells nothing of its load. b3:
        // (67/69 + 148/152) / 2 = 0.97. b8, of which neither is known: 0.
        ("Cost_Saver", "b5"),
        // b6: latency (8 - 1.25) / 7.5, fps (0.8 - 0.125) / 1.875, MMLU (82 - 30) / 56:
        // (0.90 + 0.36 + 0.93) / 3 = 0.73. b7: (0.85 + 0.27 + 0.89) / 3 = 0.67. b8, the quickest,
        // without an MMLU: (1 + 1 + 0) / 3 = 0.67. b3: (0.93 + 0.47 + 0.45) / 3 = 0.62.
        ("High_Quality_Lane", "b6"),
        // b3: latency (8 - 1) / 7.5, params (70 - 3) / 69, fps (1 - 0.125) / 1.875:
        // (0.93 + 0.97 + 0.47) / 3 = 0.79. b6: (0.90 + 0.90 + 0.36) / 3 = 0.72. b8, whose size is
        // not known: (1 + 0 + 1) / 3 = 0.67.
        ("Balanced_Performer", "b3"),
    ] {
        assert_eq!(
            best(&by_goals(&json!([{"name": goal}]))),
            expected,
            "{goal}"
        );
    }
}

/// As the reference's payload weighs them. Fast: b3 1, b7 (150 - 10) / 190 = 0.74. Free: b3 (6/16 +
/// 0) / 2 = 0.19, b7 (0 + 0.9) / 2 = 0.45. b3: 0.9 + 0.019; b7: 0.66 + 0.045. Turned round: b2
/// 0.9 + 0.1 x 40/190 = 0.92, b4 0.9 x 0.97 + 0.1 x 10/190 = 0.88.
#[test]
fn goals_are_weighed() {
    for (fast, free, expected) in [(0.9, 0.1, "b3"), (0.1, 0.9, "b2"), (7.0, 3.0, "b3")] {
        let goals = json!([
            {"name": "Fast_Generator", "weight": fast}, {"name": "Free_Block", "weight": free},
        ]);
        assert_eq!(best(&by_goals(&goals)), expected, "{fast} {free}");
    }
}

/// (a), (b): metadata is found under `component` and with an index; Cost_Saver and MMLU above
/// decide by it. (c): of what is not known nothing wins. (d): see blocks. (e): no decision asks
/// anyone. (f): what is wrong is told with its place.
#[test]
fn what_the_reference_gets_wrong() {
    // (a): the type of application finds the use case, exactly, in a list separated by commas.
    let of = |application: &str| {
        eight(&json!({
            "routing_logic": "p",
            "policies": {"p": {"type": "scored", "application_type": application,
                "goals": [{"name": "Fast_Generator"}]}},
        }))
    };
    for application in ["RAG", "Vision", "Chat", "multi-modal"] {
        assert_eq!(best(&of(application)), "b3", "{application}");
    }
    for application in ["Code", "modal", "chat"] {
        let snapshot = of(application);
        let nobody = choose(
            &snapshot,
            &Asked::default(),
            &Tried::default(),
            &mut Rng::with_seed(1),
        );
        assert_eq!(nobody, Err(Refusal::NoMatch), "{application}");
    }
    // (c): who tells nothing is the worst of a goal of which less is better, and says so.
    let snapshot = by_goals(&json!([{"name": "Free_Block"}]));
    let asked = Asked::default();
    let question = Question {
        set: &snapshot.blocks.all.candidates,
        asked: &asked,
        tried: &Tried::default(),
        moment: moment(),
        bound: None,
    };
    let judged = blocks::judged(scored(&snapshot), &question);
    let last = judged.last().unwrap();
    assert_eq!((last.unit, last.score), (4, 0.0));
    assert!(last.goals.iter().all(|goal| goal.raw.is_none()));
    assert_eq!(last.goals[0].goal.as_deref(), Some("Free_Block"));
    // Of a single candidate too: nothing is known of b5.
    let alone = json!({"variable": "id", "operator": "==", "value": "b5"});
    let snapshot = eight(&json!({
        "routing_logic": "p", "policies": {"p": {"type": "scored", "filter": alone,
            "goals": [{"name": "Free_Block"}]}},
    }));
    assert_eq!(best(&snapshot), "b5");
}
