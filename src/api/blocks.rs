//! A block as a document, in the shape that AIOS blocks have: what it is, where it
//! runs, and what each of its engines, its instances, does now.
//!
//! What is unknown, or stale, is left out: 0 would be read as a value.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::attribute::{Attribute, Live, Place};
use crate::fleet::attributes::Freshness;
use crate::fleet::{Candidate, Snapshot};

/// Attributes that are objects: `current`, and averages.
const ROLLING: [&str; 4] = ["queue_length", "latency", "fps", "tasks_processed"];

/// The label that names the machine of an engine; without it, that is its host.
const NODE: &str = "node";

/// When a document is made.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// By when attributes are told fresh from stale.
    pub by: Freshness,
    /// Since 1970.
    unix: Duration,
}

impl Now {
    /// This moment; what is at most that old is fresh.
    #[must_use]
    pub fn of(snapshot: &Snapshot, stale_after: Duration) -> Self {
        Self {
            by: Freshness::new(snapshot.clock(Instant::now()), stale_after),
            unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }
}

/// A block.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    component_uri: Option<Cow<'a, str>>,
    /// The metadata of its first engine.
    component: &'a Value,
    block_uri: &'a str,
    block_metadata: Map<String, Value>,
    cluster: Map<String, Value>,
    min_instances: usize,
    max_instances: usize,
    instance_count: usize,
    models: BTreeSet<&'a str>,
    metrics: Metrics<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metrics<'a> {
    block_id: &'a str,
    instances: Vec<Instance<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance<'a> {
    instance_id: &'a str,
    node_id: &'a str,
    block_id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    healthy: bool,
    state: &'static str,
    /// When its metrics were read last, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardware: Option<&'a Value>,
    #[serde(flatten)]
    attributes: Map<String, Value>,
}

impl<'a> Document<'a> {
    /// The `n`th block of the snapshot, if there are so many.
    #[must_use]
    pub fn of(snapshot: &'a Snapshot, n: usize, now: Now) -> Option<Self> {
        let candidates = &snapshot.blocks.all.candidates;
        let groups = candidates.groups.as_deref()?;
        if n >= groups.len() {
            return None;
        }
        let id: &str = groups.id(n);
        let members = groups.members(n).iter();
        let members: Vec<&Candidate> = members
            .filter_map(|at| candidates.list().get(*at as usize))
            .collect();
        let component = &members.first()?.spec.traits.metadata;
        let models = members.iter().flat_map(|one| &*one.spec.models);
        Some(Self {
            id,
            component_uri: component_uri(component),
            component,
            block_uri: id,
            block_metadata: Map::new(),
            cluster: cluster(&members),
            min_instances: members.len(),
            max_instances: members.len(),
            instance_count: members.len(),
            models: models.map(String::as_str).collect(),
            metrics: Metrics {
                block_id: id,
                instances: (members.iter())
                    .map(|one| instance(one, id, snapshot, now))
                    .collect(),
            },
        })
    }
}

/// As it is written in the metadata, or `<type>.<name>:<version>-<tag>`.
fn component_uri(metadata: &Value) -> Option<Cow<'_, str>> {
    let text = |key: &str| metadata.get(key).and_then(Value::as_str);
    if let Some(uri) = text("componentURI").or_else(|| text("componentUri")) {
        return Some(Cow::Borrowed(uri));
    }
    let kind = text("componentType")?;
    let id = metadata.get("componentId")?;
    let part = |key: &str| id.get(key).and_then(Value::as_str);
    let (name, version, tag) = (part("name")?, part("version")?, part("releaseTag")?);
    Some(Cow::Owned(format!("{kind}.{name}:{version}-{tag}")))
}

/// Where it runs, from its engines' regions and labels; of two values the first.
fn cluster(members: &[&Candidate]) -> Map<String, Value> {
    let mut cluster = Map::new();
    let mut add = |key: &str, value: &str| {
        let entry = cluster.entry(key);
        entry.or_insert_with(|| Value::from(value));
    };
    for one in members {
        let traits = &one.spec.traits;
        for (key, value) in &traits.labels {
            match key.as_str() {
                "cluster" => add("id", value),
                // An instance's own.
                NODE => {}
                key => add(key.strip_prefix("cluster.").unwrap_or(key), value),
            }
        }
        if let Some(region) = &traits.region {
            add("regionId", region);
        }
    }
    cluster
}

fn instance<'a>(one: &'a Candidate, id: &'a str, snapshot: &Snapshot, now: Now) -> Instance<'a> {
    let (engine, traits) = (&one.engine, &one.spec.traits);
    let read = engine.attributes.age(now.by.now);
    let read = read.map(|age| now.unix.saturating_sub(age).as_secs_f64());
    let node = traits.labels.get(NODE).map(String::as_str);
    Instance {
        instance_id: engine.url.text(),
        node_id: node.unwrap_or_else(|| engine.url.host()),
        block_id: id,
        kind: "app",
        healthy: engine.health.is_up(now.by.now),
        state: engine.health.word(now.by.now),
        timestamp: read,
        hardware: hardware(&traits.metadata),
        attributes: attributes(one, snapshot, now),
    }
}

/// What the metadata says of the machine, in the shape that AIOS measures it.
fn hardware(metadata: &Value) -> Option<&Value> {
    let inner = || metadata.get("componentMetadata")?.get("hardware");
    let found = metadata.get("hardware").or_else(inner);
    found.filter(|found| found.is_object())
}

/// What is known of an engine now, by all the names that queries and goals may
/// use.
fn attributes(one: &Candidate, snapshot: &Snapshot, now: Now) -> Map<String, Value> {
    let told = &one.engine.attributes;
    let live = Live::ALL.iter().map(|(live, name)| (*name, *live));
    let live = live.chain(Live::ALIASES);
    let live = live.map(|(name, live)| (name, Place::from(live)));
    let own = snapshot.settings.scraping.own.iter();
    let own = own.map(|own| (&*own.name, own.place));
    let mut all = Map::new();
    for (name, place) in live.chain(own) {
        if let Some(value) = told.fresh(place, now.by) {
            put(&mut all, name, value.into());
        }
    }
    for (attribute, name) in Attribute::OURS {
        if let Some(value) = ours(one, &attribute, now.by.now) {
            put(&mut all, name, value.into());
        }
    }
    all
}

fn ours(one: &Candidate, attribute: &Attribute, now: Duration) -> Option<f64> {
    let engine = &one.engine;
    match attribute {
        Attribute::InFlight => Some(f64::from(engine.in_flight.load(Relaxed))),
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 tokens")]
        Attribute::OutstandingTokens => Some(engine.outstanding.load(Relaxed) as f64),
        Attribute::Latency => engine.latency.get(now).map(|seconds| seconds * 1e3),
        Attribute::InputPrice => Some(one.spec.traits.cost?.input_per_mtok),
        Attribute::OutputPrice => Some(one.spec.traits.cost?.output_per_mtok),
        Attribute::Live(_) | Attribute::Column(_) | Attribute::Path(_) => None,
    }
}

/// Puts a value where its name says: `queue_length.average_1m` is one of the object
/// `queue_length`, whose present value is its `current`.
fn put(all: &mut Map<String, Value>, name: &str, value: Value) {
    let (outer, inner) = match name.split_once('.') {
        Some(parts) => parts,
        None if ROLLING.contains(&name) => (name, "current"),
        None => {
            all.insert(name.to_owned(), value);
            return;
        }
    };
    let object = all.entry(outer).or_insert_with(|| Map::new().into());
    if let Value::Object(object) = object {
        object.insert(inner.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Settings;
    use crate::config::attribute::Values;
    use crate::config::dynamic::Cost;
    use crate::fleet::testing::{fleet, spec};
    use serde_json::json;

    const STALE: Duration = Duration::from_secs(60);

    fn shown(snapshot: &Snapshot, n: usize) -> Value {
        let now = Now::of(snapshot, STALE);
        serde_json::to_value(Document::of(snapshot, n, now).unwrap()).unwrap()
    }

    #[test]
    fn a_block_has_what_is_known_of_it_and_nothing_else() {
        let mut fleet = fleet();
        let mut specs = vec![
            spec("http://b:1", &["m", "lora"]),
            spec("http://a:1", &["m"]),
        ];
        for (spec, node) in specs.iter_mut().zip(["n2", "n1"]) {
            let traits = Arc::make_mut(&mut spec.traits);
            traits.block = Some("blk".to_owned());
            traits.region = Some("eu".to_owned());
            traits.labels = [
                ("cluster".to_owned(), "c1".to_owned()),
                ("cluster.status".to_owned(), "live".to_owned()),
                ("node".to_owned(), node.to_owned()),
            ]
            .into();
            traits.cost = Some(Cost {
                input_per_mtok: 0.5,
                output_per_mtok: 2.0,
            });
            traits.metadata = json!({
                "componentType": "model",
                "componentId": {"name": "x", "version": "1.0", "releaseTag": "stable"},
                "componentMetadata": {"hardware": {"gpus": [{"totalMem": 24}]}},
            });
        }
        fleet.apply(Arc::new(Settings::default()), specs);
        let snapshot = fleet.published().load_full();
        let mut values: Values = [None; Place::COUNT];
        values[Place::from(Live::RequestsRunning).index()] = Some(3.0);
        values[Place::from(Live::RequestsWaiting).index()] = Some(2.0);
        let first = &snapshot.blocks.all.candidates.list()[0];
        let at = snapshot.clock(Instant::now());
        first.engine.attributes.set(&values, at);
        let shown = shown(&snapshot, 0);
        assert_eq!(shown["id"], "blk");
        assert_eq!(shown["componentUri"], "model.x:1.0-stable");
        assert_eq!(
            shown["cluster"],
            json!({"id": "c1", "regionId": "eu", "status": "live"})
        );
        assert_eq!(shown["models"], json!(["lora", "m"]));
        assert_eq!(
            (&shown["minInstances"], &shown["maxInstances"]),
            (&json!(2), &json!(2))
        );
        let told = &shown["metrics"]["instances"][0];
        assert_eq!(told["instanceId"], "http://a:1");
        assert_eq!(told["nodeId"], "n1");
        assert_eq!(told["llm_active_sessions"], 3.0);
        assert_eq!(told["queue_length"]["current"], 2.0);
        assert_eq!(told["hardware"]["gpus"][0]["totalMem"], 24);
        assert_eq!(told["cost_per_output_mtok"], 2.0);
        assert!(told["timestamp"].as_f64().unwrap() > 1.6e9);
        let silent = shown["metrics"]["instances"][1].as_object().unwrap();
        assert_eq!(silent["in_flight"], 0.0);
        for unknown in [
            "timestamp",
            "llm_active_sessions",
            "queue_length",
            "latency_ms",
            "llm_tokens_per_second",
        ] {
            assert!(!silent.contains_key(unknown), "{unknown}");
        }
    }

    #[test]
    fn what_is_stale_is_left_out() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &["m"])]);
        let snapshot = fleet.published().load_full();
        let mut values: Values = [None; Place::COUNT];
        values[Place::from(Live::RequestsRunning).index()] = Some(3.0);
        let engine = &snapshot.all.candidates.list()[0].engine;
        engine.attributes.set(&values, Duration::from_millis(1));
        let later = Now {
            by: Freshness::new(Duration::from_secs(120), STALE),
            ..Now::of(&snapshot, STALE)
        };
        let document = Document::of(&snapshot, 0, later).unwrap();
        let shown = serde_json::to_value(document).unwrap();
        let instance = shown["metrics"]["instances"][0].as_object().unwrap();
        assert!(
            !instance.contains_key("llm_active_sessions"),
            "{instance:?}"
        );
        assert!(
            instance.contains_key("timestamp"),
            "how old it is, is known"
        );
        assert!(Document::of(&snapshot, 1, later).is_none());
    }

    #[test]
    fn names_with_dots_are_objects() {
        let mut all = Map::new();
        for (name, value) in [
            ("latency.average_1m", 1),
            ("latency", 2),
            ("fps.current", 3),
            ("uptime_hours", 4),
            ("uptime_hours.x", 5),
        ] {
            put(&mut all, name, value.into());
        }
        let expected = json!({
            "latency": {"average_1m": 1, "current": 2}, "fps": {"current": 3}, "uptime_hours": 4,
        });
        assert_eq!(Value::Object(all), expected);
    }
}
