//! Each condition by tables: `table`, `instances`; what is wrong: `errors`; by
//! properties: `properties`; the reference's documents: `reference`.

mod errors;
mod instances;
mod properties;
mod reference;
mod table;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::attribute::{Aggregate, How, Live, OwnAttribute, Place, Values};
use crate::config::dynamic::DynamicFile;
use crate::config::resolve::resolve;
use crate::discovery::listed;
use crate::fleet::Snapshot;
use crate::fleet::testing::fleet;

/// When all is asked here.
const NOW: Duration = Duration::from_secs(1000);

fn by() -> Freshness {
    Freshness::new(NOW, Duration::from_secs(60))
}

/// An attribute of the configuration's own.
fn own() -> [OwnAttribute; 1] {
    [OwnAttribute {
        name: "gpu_heat".into(),
        place: Place::own(0).unwrap(),
        metric: "heat".to_owned(),
        labels: Default::default(),
        aggregate: Aggregate::Max,
        how: How::Now,
        scale: 1.0,
    }]
}

/// Engines, in the order given.
struct World(Arc<Snapshot>);

impl World {
    /// What is said of each; its URL is added.
    fn of(engines: &[Value]) -> Self {
        let engines: Vec<Value> = (engines.iter().enumerate())
            .map(|(n, said)| {
                let mut engine = said.clone();
                engine["url"] = json!(format!("http://e{n}:1"));
                if engine.get("models").is_none() {
                    engine["models"] = json!(["m"]);
                }
                engine
            })
            .collect();
        let keys = json!({
            "service_discovery": "static", "routing_logic": "roundrobin", "engines": engines,
        });
        let keys: DynamicFile = serde_json::from_value(keys).unwrap();
        let settings = resolve(&keys).unwrap().settings;
        let specs = listed::specs(&settings.engines, &Default::default());
        let mut fleet = fleet();
        fleet.apply(Arc::new(settings), specs);
        Self(fleet.published().load_full())
    }

    fn one(metadata: &Value) -> Self {
        Self::of(&[json!({"metadata": metadata})])
    }

    fn list(&self) -> &[Candidate] {
        self.0.all.candidates.list()
    }

    /// That engine told these, so long ago.
    fn tell(&self, at: usize, told: &[(Place, f64)], ago: u64) {
        let mut values: Values = [None; Place::COUNT];
        for (place, value) in told {
            values[place.index()] = Some(*value);
        }
        let then = NOW - Duration::from_secs(ago);
        self.list()[at].engine.told(&values, then);
    }

    /// Whether all engines as one block meet the query.
    fn meets(&self, query: &Query) -> bool {
        let members: Vec<u32> = (0..).take(self.list().len()).collect();
        self.admits(query, "blk-1", &members)
    }

    fn admits(&self, query: &Query, id: &str, members: &[u32]) -> bool {
        let subject = Subject {
            id,
            list: self.list(),
            members,
        };
        query.admits_fixed(&subject) && query.admits_live(&subject, by())
    }
}

fn parse(filter: &Value) -> Result<Query, QueryError> {
    Query::parse(filter, "/filter", Vocabulary { own: &own() })
}

fn condition(variable: &str, operator: &str, value: &Value) -> Value {
    json!({"variable": variable, "operator": operator, "value": value})
}

fn join(operator: &str, conditions: &[Value]) -> Value {
    json!({"logicalOperator": operator, "conditions": conditions})
}

fn aggregate(how: &str, target: &str, operator: &str, value: &Value) -> Value {
    json!({"aggOperator": how, "target": target, "operator": operator, "value": value})
}

#[test]
fn parts_are_joined_by_and_whatever_they_join_by() {
    let world = World::one(&json!({"x": 1}));
    let (yes, no) = (
        condition("x", "==", &json!(1)),
        condition("x", "==", &json!(2)),
    );
    let busy = aggregate("max", "instances.requests_running", ">", &json!(5));
    let either = join("OR", &[yes.clone(), no.clone()]);
    let meets = |filter: Value| world.meets(&parse(&filter).unwrap());
    assert!(meets(json!({"blockQuery": either})));
    assert!(!meets(
        json!({"blockQuery": either, "blockMetricsQuery": busy})
    ));
    assert!(!meets(
        json!({"blockQuery": either, "blockMetricsQuery": no})
    ));
    assert!(meets(
        json!({"blockQuery": null, "clusterQuery": {}, "blockMetricsQuery": yes})
    ));
    assert!(meets(json!({})));
    world.tell(0, &[(Live::RequestsRunning.into(), 6.0)], 1);
    assert!(meets(
        json!({"blockQuery": either, "blockMetricsQuery": busy})
    ));
    // Names in a query for clusters are the cluster's.
    let world =
        World::of(&[json!({"region": "eu", "labels": {"cluster": "c-7", "cluster.tier": "gold"}})]);
    let meets = |filter: Value| world.meets(&parse(&filter).unwrap());
    for (variable, value, expected) in [
        ("id", "c-7", true),
        ("cluster.id", "c-7", true),
        ("regionId", "eu", true),
        ("tier", "gold", true),
        ("id", "blk-1", false),
    ] {
        let asked = condition(variable, "==", &json!(value));
        assert_eq!(
            meets(json!({"clusterQuery": asked})),
            expected,
            "{variable}"
        );
    }
}

#[test]
fn what_is_fixed_is_told_from_what_is_live() {
    let fixed = condition("region", "==", &json!("eu"));
    let price = condition("cost_per_input_mtok", "<", &json!(1));
    let ours = condition("in_flight", "<", &json!(1));
    let scraped = condition("instances.ttft_ms", "<", &json!(1));
    let count = aggregate("count", "instances", ">", &json!(1));
    let heat = aggregate("max", "gpu_heat", "<", &json!(80));
    for (filter, has_live, looks) in [
        (
            join("AND", &[fixed.clone(), price.clone(), count.clone()]),
            false,
            false,
        ),
        (join("AND", &[fixed.clone(), ours.clone()]), true, false),
        (join("OR", &[fixed.clone(), ours.clone()]), true, false),
        (join("NOT", &[fixed.clone(), scraped.clone()]), true, true),
        (join("AND", &[fixed.clone(), scraped.clone()]), true, true),
        (heat.clone(), true, true),
    ] {
        let query = parse(&filter).unwrap();
        assert_eq!(
            (query.has_live(), query.looks_at_scraped()),
            (has_live, looks),
            "{filter}"
        );
    }
    let query = parse(&join("AND", &[fixed, join("AND", &[ours, price])])).unwrap();
    assert_eq!((query.fixed.len(), query.live.len()), (2, 1));
    let both = query.clone().and(Query::everything()).and(query.clone());
    assert_eq!((both.fixed.len(), both.live.len()), (4, 2));
    assert!(!Query::everything().has_live());
}

#[test]
fn an_item_is_the_whole_of_one() {
    for (usecase, item, expected) in [
        (json!("chat-completion, multi-modal"), "multi-modal", true),
        (json!("chat-completion, multi-modal"), "chat", false),
        (json!(["chat-completion", "code"]), "code", true),
        (json!(["a, b"]), "b", false),
        (json!("code"), "code", true),
        (json!(null), "code", false),
        (json!(7), "7", false),
    ] {
        let world = World::one(&json!({"componentMetadata": {"usecase": usecase}}));
        let query = Query::item("component.componentMetadata.usecase", item);
        assert_eq!(world.meets(&query), expected, "{usecase} {item}");
        assert!(!query.has_live());
    }
}

#[test]
fn an_explanation_has_every_condition() {
    let world = World::of(&[
        json!({"metadata": {"tags": ["a", "b"]}, "region": "eu"}),
        json!({"region": "us"}),
    ]);
    world.tell(0, &[(Live::RequestsRunning.into(), 2.0)], 1);
    world.tell(1, &[(Live::RequestsRunning.into(), 4.0)], 1);
    let filter = join(
        "OR",
        &[
            aggregate("avg", "instances.requests_running", ">", &json!(9)),
            condition("component.x", "LIKE", &json!("*y*")),
            condition("tags", "IN", &json!(["a", 1])),
            condition("region", "!=", &json!(null)),
            join(
                "NOT",
                &[condition("requests_running", "BETWEEN", &json!([1, 6]))],
            ),
            condition("x", "EXISTS", &json!(false)),
        ],
    );
    let query = parse(&filter).unwrap().and(Query::item("tags", "c"));
    let subject = Subject {
        id: "b",
        list: world.list(),
        members: &[0, 1],
    };
    let seen = query.explain(&subject, by());
    let seen: Vec<_> = (seen.iter())
        .map(|one| (one.condition.as_str(), one.holds, one.value.clone()))
        .collect();
    assert_eq!(
        seen,
        [
            ("tags lists c", false, json!(["a", "b"])),
            ("avg(instances.requests_running) > 9", false, json!(3.0)),
            ("component.x LIKE *y*", false, json!(null)),
            ("tags IN [1, a]", true, json!(["a", "b"])),
            ("region != null", true, json!(["eu", "us"])),
            ("requests_running BETWEEN [1, 6]", true, json!(6.0)),
            ("x EXISTS false", true, json!(null)),
        ]
    );
}

#[test]
fn positions_that_are_not_there_are_nothing() {
    let world = World::one(&json!({"x": 1}));
    let is = parse(&condition("x", "==", &json!(1))).unwrap();
    assert!(world.admits(&is, "b", &[0]));
    assert!(!world.admits(&is, "b", &[7]));
    assert!(!world.admits(&is, "b", &[]));
    assert!(world.admits(&Query::everything(), "b", &[]));
}
