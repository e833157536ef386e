use std::sync::Arc;
use std::time::Duration;

use super::super::About as Request;
use super::*;
use crate::config::Traits;
use crate::config::policies::{PolicyKind, PolicySpec};
use crate::config::resolve::resolve;
use crate::fleet::attributes::Place;
use crate::fleet::testing::{fleet, spec};
use crate::fleet::{Fleet, Snapshot};
use crate::policy::{Asked, Moment, Policy, Question, Rules, Tried};

const NOW: Duration = Duration::from_secs(60);

/// So many engines of model `m`, each with these metadata; the first is busy.
fn engines(count: usize, metadata: &Value) -> Fleet {
    let mut fleet = fleet();
    let specs = (0..count).map(|n| {
        let mut spec = spec(&format!("http://e{n:04}"), &["m"]);
        spec.traits = Arc::new(Traits {
            metadata: metadata.clone(),
            ..Traits::default()
        });
        spec
    });
    fleet.reconcile(specs.collect());
    let snapshot = fleet.published().load_full();
    let mut values = [None; Place::COUNT];
    values[Live::RequestsWaiting as usize] = Some(3.0);
    let first = &snapshot.model("m").unwrap().candidates.list()[0];
    first.engine.told(&values, NOW);
    fleet
}

/// What is told of them, under a selection without goals.
fn all(
    snapshot: &Snapshot,
    word: fn(&Asking<'_>, (&Scored, &Scored), usize) -> Vec<Told>,
    taken: usize,
) -> Vec<Told> {
    let then = Scored::default();
    let policy = Policy::new(
        PolicySpec::plain("p", PolicyKind::Scored(then.clone())),
        None,
    );
    let asking = Asking {
        snapshot,
        policy: &policy,
        question: Question {
            set: &snapshot.model("m").unwrap().candidates,
            asked: &Asked::default(),
            tried: &Tried::default(),
            moment: Moment {
                now: NOW,
                stale_after: NOW,
                rules: Rules::of(&snapshot.settings),
            },
            bound: None,
        },
        request: Request {
            model: None,
            path: "/",
            stream: false,
        },
    };
    word(&asking, (&then, &attributes(&[])), taken)
}

fn component() -> Value {
    json!({
        "containerRegistryInfo": {"containerImage": "x/y:1", "containerRegistryId": "r"},
        "componentMetadata": {
            "usecase": "chat-completion",
            "framework": "f".repeat(MOST_VALUE),
            "architecture": {"parameterCountB": 7, "contextLength": 8192},
            "capabilities": {"supportsStreaming": true},
            "evaluation": {"benchmarks": {"MMLU": {"value": 82.3}}},
        },
        "tags": ["a"],
        "token": "hidden",
    })
}

#[test]
fn a_summary_has_what_a_choice_needs_and_no_more() {
    for metadata in [component(), json!({"component": component()})] {
        let fleet = engines(2, &metadata);
        let told = all(&fleet.published().load_full(), summary, 0);
        let busy = told.iter().find(|one| one.id == "http://e0000").unwrap();
        assert_eq!(busy.image.as_deref(), Some("x/y:1"));
        let read: Value = serde_json::from_str(&busy.text).unwrap();
        let expected = json!({
            "id": "http://e0000",
            "containerImage": "x/y:1",
            "usecase": "chat-completion",
            "parameterCountB": 7,
            "contextLength": 8192,
            "supportsStreaming": true,
            "benchmarks": {"MMLU": {"value": 82.3}},
            "tags": ["a"],
            "requests_waiting": 3.0,
            "requests_running": 0.0,
        });
        assert_eq!(read, expected);
    }
}

#[test]
fn a_matcher_is_told_all_but_metadata_without_end() {
    let fleet = engines(1, &component());
    let told = all(&fleet.published().load_full(), whole, 0);
    let read: Value = serde_json::from_str(&told[0].text).unwrap();
    assert_eq!(read["metadata"]["tags"], json!(["a"]));
    assert_eq!(read["models"], json!(["m"]));
    assert_eq!(read["metrics"]["requests_waiting"], 3.0);
    assert_eq!(read["metrics"].get("ttft_ms"), None, "not known");
    let fleet = engines(1, &json!({"x": "x".repeat(MOST_METADATA)}));
    let told = all(&fleet.published().load_full(), whole, 0);
    let read: Value = serde_json::from_str(&told[0].text).unwrap();
    assert_eq!(read["metadata"], Value::Null);
}

#[test]
fn no_more_is_told_than_there_is_room_for() {
    let few = engines(3 * MOST, &Value::Null).published().load_full();
    assert_eq!(all(&few, whole, 0).len(), MOST);
    assert_eq!(all(&few, summary, MOST_BYTES).len(), 0);
    let fat = json!({"x": "x".repeat(MOST_METADATA - 100)});
    let fat = engines(MOST, &fat).published().load_full();
    let told = all(&fat, whole, 0);
    let bytes: usize = told.iter().map(|one| one.text.len()).sum();
    assert!((MOST_BYTES / 2..=MOST_BYTES).contains(&bytes), "{bytes}");
}

#[test]
fn every_attribute_has_a_name_once() {
    let own = resolve(
        &serde_json::from_value(json!({
            "service_discovery": "static", "routing_logic": "random",
            "engines": [{"url": "http://a", "models": ["m"]}],
            "attributes": {"mine": {"metric": "x"}, "ttft_ms": {"metric": "y"}},
        }))
        .unwrap(),
    );
    let own = own.unwrap().settings.scraping.own;
    let attributes = attributes(&own);
    let mut names: Vec<&str> = attributes.goals.iter().map(|goal| &*goal.name).collect();
    assert!(names.contains(&"mine") && names.contains(&"in_flight"));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
