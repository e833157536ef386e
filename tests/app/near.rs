//! `prefer_local`: the nearest engines first, others when none of these is open,
//! and back.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

use pilotfish::config::policies::PolicyKind;
use pilotfish::sim::faults::Fault;
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use serde_json::{Value, json};

use crate::binary::pilotfish;
use crate::support::{Answer, Client, Folder, PATIENCE, TestApp, eventually, post, sim};

const BODY: &str = r#"{"model":"m","max_tokens":2,"user":"u","messages":[{"role":"user","content":"Tell me of the sea."}]}"#;
const STREAM: &str = r#"{"model":"m","max_tokens":9,"stream":true}"#;

/// An app in the zone `a`, before one engine there and one in the zone `b`.
struct Rig {
    app: TestApp,
    folder: Folder,
    near: Option<SimEngine>,
    urls: [String; 2],
    far: SimEngine,
}

impl Rig {
    fn new(name: &str, keys: &Value) -> Self {
        let (near, far) = (sim(None), sim(None));
        let folder = Folder::new(name);
        let urls = [near.url(), far.url()];
        let file = folder.path("dynamic.json");
        fs::write(&file, file_of(&urls, keys)).unwrap();
        let app = TestApp::from_flags(&[
            "--admin-port=0",
            "--zone=a",
            "--dynamic-config-json",
            file.to_str().unwrap(),
        ]);
        Self {
            app,
            folder,
            near: Some(near),
            urls,
            far,
        }
    }

    /// Puts other keys in force.
    fn reload(&self, keys: &Value) {
        let generation = || self.app.metric("pilotfish_config_generation") as u64;
        let before = generation();
        fs::write(self.folder.path("dynamic.json"), file_of(&self.urls, keys)).unwrap();
        eventually("the file is in force", || generation() != before);
    }

    fn ask(&self, fields: &str) -> Answer {
        let head = format!("host: x\r\nx-pilotfish-explain: 1\r\n{fields}");
        let request = post("/v1/chat/completions", BODY).replacen("host: x\r\n", &head, 1);
        let answer = self.app.send(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    /// Whether the near one answers.
    fn is_near(&self) -> bool {
        self.ask("").field("x-pilotfish-engine").unwrap() == self.urls[0]
    }

    /// Who answers so many requests, none of which fails.
    fn near_of(&self, count: usize) -> usize {
        (0..count).filter(|_| self.is_near()).count()
    }

    /// The record of one decision.
    fn record(&self, answer: &Answer) -> Value {
        let id = answer.field("x-pilotfish-decision").unwrap();
        let mut client = Client::connect(self.app.admin());
        client.write(format!("GET /debug/decisions/{id} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        client.answer().unwrap().json()
    }
}

/// The keys with both engines; `near` is what else is said of the near one.
fn file_of(urls: &[String; 2], keys: &Value) -> String {
    let mut all = json!({
        "service_discovery": "static", "routing_logic": "roundrobin",
        "session_key": "x-user-id", "prefer_local": true,
        "breaker": {"failures": 1, "ejection": 0.2},
    });
    let mut keys = keys.clone();
    let mut near =
        json!({"url": urls[0], "models": ["m"], "region": "a", "metadata": {"score": 1}});
    let more = keys["near"].take();
    near.as_object_mut()
        .unwrap()
        .extend(more.as_object().cloned().unwrap_or_default());
    keys.as_object_mut().unwrap().remove("near");
    let far = json!({"url": urls[1], "models": ["m"], "region": "b", "metadata": {"score": 2}});
    let page = all.as_object_mut().unwrap();
    page.insert("engines".to_owned(), json!([near, far]));
    page.extend(keys.as_object().unwrap().clone());
    all.to_string()
}

#[test]
fn all_goes_to_the_near_one_whatever_the_policy() {
    for policy in PolicyKind::NAMES.iter().filter(|name| **name != "scored") {
        let rig = Rig::new(&format!("near-{policy}"), &json!({"routing_logic": policy}));
        assert_eq!(rig.near_of(12), 12, "{policy}");
        // What names no model too.
        for _ in 0..4 {
            let answer = rig.app.get("/anything");
            assert!(
                answer.status != 502 && answer.status != 503,
                "{}",
                answer.status
            );
        }
        rig.app.settled();
        let far = format!(
            "pilotfish_engine_requests_total{{engine=\"{}\"",
            rig.far.url()
        );
        let page = rig.app.get("/metrics").text();
        let counted = page.lines().filter(|line| line.starts_with(&far));
        let sum: f64 = counted
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum();
        assert!(sum == 0.0, "{policy}: {sum} went to the far one");
    }
}

#[test]
fn while_the_near_one_is_gone_the_far_one_serves() {
    for policy in ["roundrobin", "session", "leastload", "prefixaware"] {
        let mut rig = Rig::new(&format!("gone-{policy}"), &json!({"routing_logic": policy}));
        assert!(rig.is_near());
        let near = rig.near.take().unwrap();
        let listen = near.address;
        drop(near);
        assert_eq!(rig.near_of(12), 0, "{policy}");
        rig.near = Some(
            SimEngine::start(SimConfig {
                listen,
                ..SimConfig::new("m", Speed::instant())
            })
            .unwrap(),
        );
        eventually("it is asked again", || rig.is_near());
        eventually("it has all again", || rig.near_of(8) == 8);
    }
}

#[test]
fn while_the_near_one_drains_the_far_one_serves() {
    let rig = Rig::new("near-drains", &json!({}));
    assert_eq!(rig.near_of(6), 6);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let (mut served, began) = (0, Instant::now());
            while !is_over.load(SeqCst) && began.elapsed() < PATIENCE {
                assert_eq!(rig.app.chat(BODY).status, 200);
                served += 1;
            }
            served
        });
        for _ in 0..3 {
            rig.reload(&json!({"near": {"draining": true}}));
            assert_eq!(rig.near_of(6), 0);
            rig.reload(&json!({}));
            assert_eq!(rig.near_of(6), 6);
        }
        is_over.store(true, SeqCst);
        assert!(busy.join().unwrap() > 0);
    });
}

#[test]
fn nobody_is_turned_away_while_anybody_has_a_place() {
    let rig = Rig::new(
        "near-places",
        &json!({"limits": {"max_in_flight_per_engine": 2}}),
    );
    let (near, far) = (rig.near.as_ref().unwrap(), &rig.far);
    for engine in [near, far] {
        engine.set_fault(Some(Fault::StallAfter(3)));
    }
    let streams: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = rig.app.connect();
            client.write(post("/v1/chat/completions", STREAM).as_bytes());
            client.until("data: ");
            client
        })
        .collect();
    let in_flight = |url: &str| {
        let series = format!("pilotfish_engine_in_flight{{engine=\"{url}\"}}");
        rig.app.metric(&series) as u64
    };
    assert_eq!(rig.urls.each_ref().map(|url| in_flight(url)), [2, 2]);
    rig.app.chat(BODY).assert_error(429, "queue_full");
    for engine in [near, far] {
        engine.set_fault(None);
    }
    drop(streams);
    rig.app.settled();
    assert_eq!(rig.near_of(4), 4);
}

#[test]
fn a_full_or_failing_near_one_overflows() {
    let rig = Rig::new(
        "near-full",
        &json!({"limits": {"max_in_flight_per_engine": 1}}),
    );
    let near = rig.near.as_ref().unwrap();
    near.set_fault(Some(Fault::StallAfter(3)));
    let mut stream = rig.app.connect();
    stream.write(post("/v1/chat/completions", STREAM).as_bytes());
    stream.until("data: ");
    near.set_fault(None);
    let answer = rig.ask("");
    assert_eq!(answer.field("x-pilotfish-engine").unwrap(), rig.urls[1]);
    let record = rig.record(&answer);
    assert_eq!(record["tier"], "all");
    assert_eq!(record["nearer"], json!({"pod": "full"}));
    assert_eq!(record["chosen"], rig.urls[1]);
    assert_eq!(rig.near_of(6), 0);
    let counted = |reason: &str| {
        rig.app.metric(&format!(
            "pilotfish_decisions_total{{policy=\"roundrobin\",reason=\"{reason}\"}}"
        )) as u64
    };
    assert_eq!((counted("not_local"), counted("primary")), (7, 1));
    drop(stream);
    rig.app.settled();
    assert_eq!(rig.near_of(6), 6);
    // What it had and did not take is sent to the far one.
    near.set_fault(Some(Fault::Busy(30)));
    assert_eq!(rig.near_of(6), 0);
}

#[test]
fn it_is_turned_on_and_off_by_a_reload_and_told() {
    let rig = Rig::new("near-reload", &json!({}));
    let answer = rig.ask("");
    let record = rig.record(&answer);
    assert_eq!(record["tier"], "pod");
    assert_eq!(record["nearer"], json!({}));
    assert_eq!(record["candidates"].as_array().unwrap().len(), 1);
    rig.reload(&json!({"prefer_local": false}));
    assert_eq!(rig.near_of(6), 3);
    let record = rig.record(&rig.ask(""));
    assert!(record.get("tier").is_none() && record.get("nearer").is_none());
    rig.reload(&json!({}));
    assert_eq!(rig.near_of(6), 6);
}

#[test]
fn who_names_an_engine_or_selects_by_attributes_is_not_confined() {
    let best = json!({"attribute": "score", "direction": "max"});
    let keys = json!({
        "request_headers": {"allow": ["engine", "explain", "policy"]},
        "policies": {"best": {"type": "scored", "goals": [best]}},
    });
    let rig = Rig::new("near-named", &keys);
    let engine = |fields: &str| {
        let answer = rig.ask(fields);
        answer.field("x-pilotfish-engine").unwrap().to_owned()
    };
    assert_eq!(engine(""), rig.urls[0]);
    assert_eq!(
        engine(&format!("x-pilotfish-engine: {}\r\n", rig.urls[1])),
        rig.urls[1]
    );
    assert_eq!(engine("x-pilotfish-policy: best\r\n"), rig.urls[1]);
    // Of the block that is the best for a request that leaves its model open, any.
    let body = BODY.replace("\"m\"", "\"auto\"");
    let request = post("/v1/chat/completions", &body).replacen(
        "host: x",
        "host: x\r\nx-pilotfish-explain: 1\r\nx-pilotfish-policy: best",
        1,
    );
    eventually("both are asked", || {
        let answer = rig.app.send(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.field("x-pilotfish-engine").unwrap() == rig.urls[1]
    });
}

#[test]
fn explain_offline_tells_the_tier_too() {
    let folder = Folder::new("near-explain");
    let urls = ["http://10.0.0.1:8000", "http://10.0.0.2:8000"].map(str::to_owned);
    let (config, request) = (folder.path("config.json"), folder.path("request.json"));
    fs::write(&config, file_of(&urls, &json!({}))).unwrap();
    fs::write(&request, BODY).unwrap();
    let explain = |flags: &[&str]| {
        let mut command = pilotfish();
        command.env_remove("POD_IP").env_remove("NODE_NAME");
        command.arg("explain").args(flags);
        command.arg("--config").arg(&config);
        let output = command.arg("--request").arg(&request).output().unwrap();
        String::from_utf8(if output.status.success() {
            output.stdout
        } else {
            output.stderr
        })
        .unwrap()
    };
    for (flags, chosen, tier) in [
        (vec!["--zone=a"], Some(&urls[0]), json!("zone")),
        (vec!["--zone=b"], Some(&urls[1]), json!("zone")),
        (
            vec!["--zone=a", "--pod-ip=10.0.0.2"],
            Some(&urls[1]),
            json!("pod"),
        ),
        (vec!["--zone=c"], None, Value::Null),
    ] {
        let page: Value = serde_json::from_str(&explain(&flags)).unwrap();
        assert_eq!(page["tier"], tier, "{flags:?}");
        if let Some(chosen) = chosen {
            assert_eq!(page["chosen"], **chosen, "{flags:?}");
        }
    }
    let wrong = explain(&["--pod-ip=here"]);
    assert!(
        wrong.contains("--pod-ip: \"here\" is no IP address"),
        "{wrong}"
    );
}
