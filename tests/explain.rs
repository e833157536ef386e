//! The records in docs/policies.md are what the program says: made here, and
//! compared. `PILOTFISH_WRITE_DOCS=1 cargo test --test explain` writes them anew.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pilotfish::api::decisions;
use pilotfish::config::policies::PolicyKind;
use pilotfish::config::resolve::resolve;
use pilotfish::decisions::Inputs;
use pilotfish::discovery::listed;
use pilotfish::fleet::Fleet;
use pilotfish::fleet::attributes::{Live, Place};
use pilotfish::fleet::breaker::Standing;
use pilotfish::fleet::engine::Outcome;
use pilotfish::metrics::ModelRegistry;
use pilotfish::policy::memory::{Prefix, Recalled};
use pilotfish::policy::{Asked, Moment, Question, Rules, Tried};
use serde_json::{Map, Value, json};

const NOW: Duration = Duration::from_secs(600);

/// Four engines in the midst of their work; the last is set aside.
fn fleet(policy: &str) -> Fleet {
    let engine = |name: &str, weight: f64, region: &str, price: f64| {
        json!({
            "url": format!("http://{name}:8000"), "models": ["llama-3"], "weight": weight,
            "region": region, "cost": {"input_per_mtok": price, "output_per_mtok": 3.0 * price},
        })
    };
    let keys = json!({
        "service_discovery": "static", "routing_logic": "p", "session_key": "x-user-id",
        "policies": {"p": {"type": policy}},
        "engines": [
            engine("a", 1.0, "eu", 0.2), engine("b", 2.0, "us", 0.1),
            engine("c", 1.0, "eu", 0.4), engine("d", 1.0, "eu", 0.2),
        ],
    });
    let mut keys: pilotfish::config::dynamic::DynamicFile = serde_json::from_value(keys).unwrap();
    if let Some(of) = keys.policies.as_mut().and_then(|all| all.get_mut("p")) {
        of.region = (policy == "federation").then(|| "eu".to_owned());
    }
    let settings = resolve(&keys).unwrap().settings;
    let specs = listed::specs(&settings.engines, &Default::default());
    let mut fleet = Fleet::new(ModelRegistry::default());
    fleet.apply(Arc::new(settings), specs);
    let snapshot = fleet.published().load_full();
    for (n, one) in (0u8..).zip(snapshot.all.candidates.list()) {
        let engine = &one.engine;
        engine
            .in_flight
            .store([3, 5, 2, 0][usize::from(n)], Relaxed);
        engine
            .outstanding
            .store([900, 1400, 300, 0][usize::from(n)], Relaxed);
        let mut values = [None; Place::COUNT];
        values[Live::RequestsRunning as usize] = Some([4.0, 5.0, 9.0, 0.0][usize::from(n)]);
        values[Live::RequestsWaiting as usize] = Some([0.0, 2.0, 0.0, 0.0][usize::from(n)]);
        values[Live::TokensPerSecond as usize] = Some([110.0, 190.0, 240.0, 0.0][usize::from(n)]);
        values[Live::BusyTokensPerSecond as usize] =
            Some([120.0, 190.0, 240.0, 90.0][usize::from(n)]);
        values[Live::KvCacheUsage as usize] = Some([0.4, 0.95, 0.6, 0.0][usize::from(n)]);
        engine.told(&values, NOW - Duration::from_secs(2));
        let ttft = Duration::from_millis([80, 250, 120, 10][usize::from(n)]);
        engine.latency.observe(ttft, NOW);
        for _ in 0..if n == 3 { 5 } else { 0 } {
            engine
                .health
                .learn(Standing::Trusted, Outcome::Failure, NOW);
        }
    }
    fleet
}

fn record(policy: &str) -> Map<String, Value> {
    let snapshot = fleet(policy).published().load_full();
    let model = snapshot.model("llama-3").unwrap();
    let key = |at: usize| model.candidates.list()[at].engine.key;
    let asked = Asked {
        key: matches!(policy, "session" | "consistenthash").then(|| "ann".to_owned()),
        prefix: Prefix {
            anchor: (policy == "prefixaware").then_some(41),
            root: (policy == "prefixaware").then_some(42),
            bytes: 5000,
            worth: 4000,
            recalled: [
                Recalled {
                    key: key(2),
                    bytes: 4800,
                },
                Recalled {
                    key: key(1),
                    bytes: 1024,
                },
                Recalled::default(),
            ],
        },
        prompt_tokens: 1200,
        max_tokens: Some(256),
        ..Asked::default()
    };
    let question = Question {
        set: &model.candidates,
        asked: &asked,
        tried: &Tried::default(),
        moment: Moment {
            now: NOW,
            stale_after: Duration::from_secs(60),
            rules: Rules::of(&snapshot.settings),
        },
        bound: None,
    };
    let mut inputs = Inputs::take(&snapshot.policies.default, model, &question, 7);
    // They came within a millisecond, or two.
    inputs
        .readings
        .iter_mut()
        .for_each(|reading| reading.health[2] = 0);
    decisions::inputs(&inputs, inputs.decide().0)
}

/// Numbers as one reads them.
fn rounded(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let value = number.as_f64().unwrap();
            json!((value * 1000.0).round() / 1000.0)
        }
        Value::Object(map) => map
            .iter()
            .map(|(key, one)| (key.clone(), rounded(one)))
            .collect(),
        Value::Array(list) => list.iter().map(rounded).collect(),
        other => other.clone(),
    }
}

/// What of a record is the policy's own, a line for each candidate.
fn short(policy: &str) -> String {
    let record = record(policy);
    let mut text = String::from("```json\n");
    let chosen = &record["chosen"];
    let drawn = &record["drawn"];
    writeln!(
        text,
        "{{\"chosen\": {chosen}, \"drawn\": {drawn}, \"candidates\": ["
    )
    .unwrap();
    let candidates = record["candidates"].as_array().unwrap();
    for (n, candidate) in candidates.iter().enumerate() {
        let mut line = Map::new();
        for key in ["rank", "engine_id", "excluded", "because", "goals"] {
            let value = rounded(&candidate[key]);
            if !value.is_null() && value != json!({}) {
                line.insert(key.to_owned(), value);
            }
        }
        let end = if n + 1 == candidates.len() { "" } else { "," };
        writeln!(text, "  {}{end}", Value::Object(line)).unwrap();
    }
    text.push_str("]}\n```\n");
    text
}

#[test]
fn the_documented_records_are_the_programs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let mut made = String::new();
    let mut is_old = false;
    let mut seen = Vec::new();
    for line in written.lines() {
        match line
            .strip_prefix("<!-- record: ")
            .and_then(|rest| rest.strip_suffix(" -->"))
        {
            Some("end") => is_old = false,
            Some("whole") => {
                is_old = true;
                let whole =
                    serde_json::to_string_pretty(&rounded(&Value::Object(record("leastload"))));
                made.push_str(&format!("{line}\n```json\n{}\n```\n", whole.unwrap()));
                continue;
            }
            Some(policy) => {
                is_old = true;
                seen.push(policy.to_owned());
                made.push_str(&format!("{line}\n{}", short(policy)));
                continue;
            }
            None => {}
        }
        if !is_old {
            made.push_str(line);
            made.push('\n');
        }
    }
    if std::env::var_os("PILOTFISH_WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert_eq!(seen, PolicyKind::NAMES, "a record of each, in this order");
    assert!(
        made == written,
        "docs/policies.md is not what the program says: see tests/explain.rs"
    );
}
