//! Secrets stay where they are: the binary is given some in every place that takes
//! one, and in places that should not; then all that it ever said is searched.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use pilotfish::auth::hash;
use pilotfish::config::Config;
use pilotfish::config::auth::{AuthSettings, KeptSecret, Secret, load};
use serde_json::json;

use crate::binary::{free_port, pilotfish, signal};
use crate::support::engine::RawEngine;
use crate::support::{Client, Folder, eventually, post};

/// What is in every secret, and must be nowhere else.
const CANARY: &str = "c4n4ry";
const KEY: &str = "pf-c4n4ry-of-a-caller";
const TOKEN: &str = "c4n4ry-of-admin";

fn hex(key: &str) -> String {
    let hash = hash(key.as_bytes()).0;
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All that was said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<(String, String)>>>);

impl Said {
    fn add(&self, by: &str, what: &[u8]) {
        let what = String::from_utf8_lossy(what).into_owned();
        self.0.lock().unwrap().push((by.to_owned(), what));
    }

    /// Asserts that no secret, nor a key's hash, was said.
    fn has_no_secret(&self) {
        let all = self.0.lock().unwrap();
        assert!(all.len() > 40, "only {}", all.len());
        for (by, what) in all.iter() {
            for secret in [CANARY, &hex(KEY)] {
                assert!(!what.contains(secret), "{secret} said by {by}: {what}");
            }
        }
    }
}

/// The binary, with secrets wherever it takes one.
struct Rig {
    child: Child,
    folder: Folder,
    address: SocketAddr,
    admin: SocketAddr,
    said: Said,
}

impl Rig {
    fn start(engine: &RawEngine, collector: &RawEngine) -> Self {
        let folder = Folder::new("secrets");
        let rig_files = [
            ("keys.json", good_keys()),
            ("engine.key", format!("{CANARY}-of-engines\n")),
            ("router.json", router(engine, &json!({}))),
        ];
        for (name, content) in rig_files {
            std::fs::write(folder.path(name), content).unwrap();
        }
        let (port, admin) = (free_port(), free_port());
        let path = |name: &str| folder.path(name).display().to_string();
        let log = |name: &str| Stdio::from(File::create(folder.path(name)).unwrap());
        let child = pilotfish()
            .args(["--host=127.0.0.1", "--drain-settle=0", "--drain-timeout=1"])
            .args([
                "--log-level=debug",
                "--log-requests=true",
                "--engine-stats-interval=1",
            ])
            .args([
                "--port",
                &port.to_string(),
                "--admin-port",
                &admin.to_string(),
            ])
            .args(["--api-keys", &path("keys.json")])
            .args(["--engine-key-file", &path("engine.key")])
            .args(["--dynamic-config-json", &path("router.json")])
            .args(["--access-log", &path("access.log")])
            .args(["--otel-endpoint", &collector.url()])
            .env("PILOTFISH_ADMIN_TOKEN", TOKEN)
            .env("VLLM_API_KEY", format!("{CANARY}-of-vllm"))
            .env("OWN_KEY", format!("{CANARY}-of-one-engine"))
            .stdout(log("stdout"))
            .stderr(log("stderr"))
            .spawn()
            .unwrap();
        let [address, admin] = [port, admin].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        eventually("it listens", || TcpStream::connect(address).is_ok());
        let said = Said::default();
        Self {
            child,
            folder,
            address,
            admin,
            said,
        }
    }

    /// Sends it, and notes the answer, whatever it is.
    fn ask(&self, to: SocketAddr, raw: &str) -> u16 {
        let mut client = Client::connect(to);
        client.write(raw.as_bytes());
        let answer = client.answer().expect("an answer");
        let first = raw.lines().next().unwrap_or_default();
        self.said
            .add(first, format!("{:?}", answer.fields).as_bytes());
        self.said.add(first, &answer.body);
        answer.status
    }

    fn status_page(&self, path: &str) -> String {
        let mut client = Client::connect(self.address);
        client.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        client.answer().unwrap().text()
    }

    /// Writes a file, and waits until it was refused, by that series.
    fn refuses(&self, name: &str, content: &str, series: &str) {
        let failures = || {
            let page = self.status_page("/metrics");
            let line = page.lines().find(|line| line.starts_with(series));
            let line = line.unwrap_or_else(|| panic!("no {series}"));
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let before = failures();
        std::fs::write(self.folder.path(name), content).unwrap();
        eventually("refused", || failures() > before);
    }

    fn run(&self, command: &mut Command) {
        let output = command.output().unwrap();
        let by = format!("{command:?}").replace(CANARY, "...");
        self.said.add(&by, &output.stdout);
        self.said.add(&by, &output.stderr);
    }

    /// Stops it, and takes all that it has written.
    fn stop(mut self) -> Said {
        signal(&self.child, "-TERM");
        assert!(self.child.wait().unwrap().success());
        for name in ["stdout", "stderr", "access.log"] {
            let written = std::fs::read(self.folder.path(name)).unwrap();
            assert!(name == "stdout" || !written.is_empty(), "{name}");
            self.said.add(name, &written);
        }
        self.said.clone()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Gone already, if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn good_keys() -> String {
    let limited = json!({"name": "limited", "sha256": hex("pf-c4n4ry-limited"), "requests_per_minute": 1, "models": ["m"]});
    let caller = json!({"name": "team", "sha256": hex(KEY)});
    json!({"keys": [caller, limited]}).to_string()
}

fn router(engine: &RawEngine, more: &serde_json::Value) -> String {
    let mut keys = json!({
        "service_discovery": "static", "routing_logic": "roundrobin", "decision_sample": 1.0,
        "request_headers": {"allow": ["explain", "policy", "models", "engine", "timeout-ms"]},
        "engines": [
            {"url": engine.url(), "models": ["m"]},
            {"url": "http://127.0.0.1:9", "models": ["m", "dead"], "api_key_env": "OWN_KEY"},
        ],
    });
    let more = more.as_object().cloned().unwrap_or_default();
    keys.as_object_mut().unwrap().extend(more);
    keys.to_string()
}

/// A request with that key, and other secrets in its head.
fn with_secrets(raw: &str, key: &str) -> String {
    let fields = format!(
        "host: x\r\nauthorization: Bearer {key}\r\nx-api-key: {CANARY}-x\r\ncookie: a={CANARY}\r\n\
         proxy-authorization: Basic {CANARY}\r\nx-pilotfish-explain: 1\r\n"
    );
    raw.replacen("host: x\r\n", &fields, 1)
}

fn requests(rig: &Rig) {
    let chat = |model: &str| {
        let body = format!(r#"{{"model":"{model}","stream":true,"messages":[]}}"#);
        post(&format!("/v1/chat/completions?key={CANARY}"), &body)
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let limited = "pf-c4n4ry-limited";
    for (raw, key, status) in [
        (chat("m"), KEY, 200),
        (chat("m"), KEY, 200),
        (chat("dead"), KEY, 503),
        (chat("nobody"), KEY, 404),
        (chat("m"), "c4n4ry-wrong", 401),
        (chat("m"), limited, 200),
        (chat("m"), limited, 429),
        (post("/v1/chat/completions", "{"), KEY, 400),
        (post("/v1/infer", r#"{"x": 1}"#), KEY, 0),
        (post("/api/search", "{}"), KEY, 0),
        (get("/engines"), KEY, 200),
        (get("/v1/models"), KEY, 200),
        (get("/config"), KEY, 404),
        (get("/health"), "", 200),
        (get("/metrics"), "", 200),
        (get("/readyz"), "", 200),
        (
            "GET /x HTTP/1.1\r\nhost: x\r\nbad field\r\n\r\n".to_owned(),
            KEY,
            400,
        ),
    ] {
        let got = rig.ask(rig.address, &with_secrets(&raw, key));
        assert!(status == 0 || got == status, "{raw}: {got}");
    }
    for token in [TOKEN, "c4n4ry-wrong"] {
        for path in [
            "/config",
            "/policy",
            "/debug/decisions?last=50",
            "/debug/log-level",
            "/debug/decisions/1",
        ] {
            rig.ask(rig.admin, &with_secrets(&get(path), token));
        }
        let document = post("/policy", r#"{"policyRuleURI": "x:y", "x": "{"#);
        rig.ask(rig.admin, &with_secrets(&document, token));
    }
}

fn broken_files(rig: &Rig, engine: &RawEngine) {
    let callers = "pilotfish_callers_reload_failures_total";
    for content in [
        KEY.to_owned(),
        format!(r#"{{"keys": [{{"name": "a", "sha256": "{KEY}"}}]}}"#),
        format!(r#"{{"keys": [{{"name": "a", "key": "{KEY}", "{KEY}": 1, "models": "{KEY}"}}]}}"#),
        format!(r#"{{"{KEY}": 1, "{KEY}": 2}}"#),
    ] {
        rig.refuses("keys.json", &content, callers);
    }
    let config = "pilotfish_config_reload_failures_total";
    for engines in [
        json!([{"url": "http://user:c4n4ry@host"}]),
        json!([{"url": engine.url(), "api_key": "c4n4ry"}]),
        json!([{"url": engine.url(), "api_key_env": "sk-c4n4ry"}]),
        json!("http://c4n4ry@host"),
    ] {
        rig.refuses(
            "router.json",
            &router(engine, &json!({"engines": engines})),
            config,
        );
    }
    let flat = json!({"engines": null, "static_backends": "http://user:c4n4ry@host"});
    rig.refuses("router.json", &router(engine, &flat), config);
}

fn commands(rig: &Rig, engine: &RawEngine) {
    let path = |name: &str| rig.folder.path(name);
    let mut engines = pilotfish();
    engines.args(["engines", &rig.address.to_string()]);
    rig.run(&mut engines);
    rig.run(engines.env("PILOTFISH_API_KEY", KEY));
    rig.run(engines.env("PILOTFISH_API_KEY", "c4n4ry-wrong"));
    rig.run(pilotfish().arg("validate").arg(path("router.json")));
    std::fs::write(path("good.json"), router(engine, &json!({}))).unwrap();
    std::fs::write(path("body.json"), r#"{"model":"m"}"#).unwrap();
    let explain = |config: &Path| {
        let mut explain = pilotfish();
        explain.args(["explain", "--header", "authorization: Bearer c4n4ry"]);
        explain
            .arg("--config")
            .arg(config)
            .arg("--request")
            .arg(path("body.json"));
        explain
            .env("OWN_KEY", "c4n4ry")
            .env("VLLM_API_KEY", "c4n4ry");
        explain
    };
    rig.run(&mut explain(&path("good.json")));
    rig.run(&mut explain(&path("router.json")));
    // What keeps it from starting.
    for (flag, content) in [
        ("--api-keys", r#"{"keys": ["c4n4ry"]}"#),
        ("--engine-key-file", "c4n4ry with spaces"),
        ("--admin-token-file", "c4n4ry\u{e9}"),
    ] {
        std::fs::write(path("bad"), content).unwrap();
        let mut start = pilotfish();
        start
            .arg("--dynamic-config-json")
            .arg(path("good.json"))
            .arg(flag)
            .arg(path("bad"));
        let output = start.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flag}");
        assert!(!output.stderr.is_empty());
        rig.said.add(flag, &output.stderr);
    }
}

#[test]
fn no_secret_is_said_by_anyone() {
    let engine = RawEngine::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let exported = Said::default();
    let taken = exported.clone();
    let collector = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            taken.add("traces", seen.head.as_bytes());
            taken.add("traces", &seen.body);
            conn.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let rig = Rig::start(&engine, &collector);
    requests(&rig);
    let trace = "PUT /debug/log-level?level=trace HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(rig.ask(rig.admin, &with_secrets(trace, TOKEN)), 200);
    requests_again(&rig);
    broken_files(&rig, &engine);
    for path in ["/config", "/debug/decisions?last=50"] {
        let raw = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(rig.ask(rig.admin, &with_secrets(&raw, TOKEN)), 200);
    }
    commands(&rig, &engine);
    let said = rig.stop();
    said.has_no_secret();
    let exported = exported.0.lock().unwrap();
    assert!(!exported.is_empty(), "no traces");
    said.0.lock().unwrap().extend(exported.iter().cloned());
    said.has_no_secret();
}

/// The same once more, at the finest level of the log.
fn requests_again(rig: &Rig) {
    let chat = post("/v1/chat/completions", r#"{"model":"m"}"#);
    for key in [KEY, "c4n4ry-wrong"] {
        rig.ask(rig.address, &with_secrets(&chat, key));
    }
}

#[test]
fn a_configuration_can_be_shown() {
    let folder = Folder::new("secrets-shown");
    let file = folder.path("keys.json");
    std::fs::write(&file, good_keys()).unwrap();
    let kept = || {
        Some(KeptSecret {
            first: Secret::new("c4n4ry").unwrap(),
            file: None,
        })
    };
    let config = Config {
        auth: AuthSettings {
            callers: Some(load(&file).unwrap()),
            engine_key: kept(),
            admin_token: kept(),
        },
        ..Config::default()
    };
    let shown = format!("{config:?} {config:#?}");
    assert!(shown.contains("***") && !shown.contains(CANARY) && !shown.contains(&hex(KEY)));
    let bytes = format!("{:?}", hash(KEY.as_bytes()).0);
    assert!(!shown.contains(&bytes));
    // Nor are the file's own bytes, which hold the hashes.
    let start = format!("{:?}", &good_keys().as_bytes()[..8]);
    assert!(!shown.contains(start.trim_end_matches(']')));
}
