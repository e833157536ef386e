//! The whole process with engines that a cluster tells of: a scripted API server,
//! simulated engines.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use pilotfish::sim::SimEngine;
use serde_json::{Value, json};

use crate::binary::{free_port, pilotfish, signal};
use crate::support::apiserver::{Act, FakeApi, On};
use crate::support::engine::RawEngine;
use crate::support::{Answer, Client, Folder, PATIENCE, eventually, post, sim};

/// A process that watches the API server, stopped when dropped.
struct Sidecar {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    _folder: Folder,
}

const PODS: [&str; 4] = [
    "--k8s-label-selector",
    "app=engine",
    "--routing-logic",
    "roundrobin",
];

impl Sidecar {
    fn start(api: &FakeApi, name: &str, flags: &[&str]) -> Self {
        let folder = Folder::new(name);
        let mut child = pilotfish()
            .args(["--host", "127.0.0.1", "--drain-settle", "0s"])
            .args(["--service-discovery", "k8s"])
            .args(flags)
            .args(if flags.contains(&"--port") {
                &[][..]
            } else {
                &["--port", "0"]
            })
            .env("KUBECONFIG", api.kubeconfig(&folder))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("address="));
        let line = line.unwrap();
        let address = line.split_once("address=").unwrap().1;
        let address = address.split(' ').next().unwrap().parse().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self {
            child,
            address,
            log,
            _folder: folder,
        }
    }

    fn eventually_says(&self, what: &str) {
        eventually(&format!("the log says {what:?}"), || {
            self.log.lock().unwrap().contains(what)
        });
    }

    fn get(&self, path: &str) -> Answer {
        let mut client = Client::connect(self.address);
        client.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        client.answer().unwrap()
    }

    fn chat(&self, model: &str) -> Answer {
        let mut client = Client::connect(self.address);
        let body = json!({"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "x"}]});
        client.write(post("/v1/chat/completions", &body.to_string()).as_bytes());
        client.answer().unwrap()
    }

    /// The engines with why they get nothing new, if they don't.
    fn engines(&self) -> Vec<(String, Option<String>)> {
        let page = self.get("/engines").json();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let engines = page.as_array().unwrap().iter();
        engines
            .map(|one| (text(&one["engine_id"]).unwrap(), text(&one["closed"])))
            .collect()
    }

    fn eventually_engines(&self, expected: &[(&str, Option<&str>)]) {
        let mut expected: Vec<(String, Option<String>)> = (expected.iter())
            .map(|(url, why)| ((*url).to_owned(), why.map(str::to_owned)))
            .collect();
        expected.sort();
        let mut seen = Vec::new();
        eventually(&format!("the engines are {expected:?}"), || {
            seen = self.engines();
            seen == expected
        });
    }

    fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").text();
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        line.unwrap_or_else(|| panic!("{series} is missing"))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        signal(&self.child, "-KILL");
        let _ = self.child.wait();
    }
}

/// A ready pod where that engine listens.
fn pod(name: &str, uid: &str, address: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "test", "uid": uid, "labels": {"app": "engine"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"pilotfish.dev/ports": address.port().to_string()},
        },
        "status": {
            "phase": "Running", "podIP": address.ip().to_string(),
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn not_ready(mut pod: Value) -> Value {
    pod["status"]["conditions"][0]["status"] = "False".into();
    pod
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

#[test]
fn pods_get_requests_while_they_are_ready() {
    let (api, one, two) = (FakeApi::start(), sim(None), sim(None));
    let [first, second] = [("a", "u1", &one), ("b", "u2", &two)]
        .map(|(name, uid, engine): (_, _, &SimEngine)| pod(name, uid, engine.address));
    let [one_url, two_url] = [url(one.address), url(two.address)];
    api.put(&first);
    let sidecar = Sidecar::start(&api, "k8s-pods", &PODS);
    sidecar.eventually_engines(&[(&one_url, None)]);
    assert_eq!(sidecar.get("/readyz").status, 200);
    let model = sidecar.get("/v1/models").json()["data"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(sidecar.chat(&model).status, 200);
    // Never ready: not an engine yet.
    api.put(&not_ready(second.clone()));
    api.put(&second);
    sidecar.eventually_engines(&[(&one_url, None), (&two_url, None)]);
    // Not ready any more: nothing new, but all that is known of it stays.
    let created = sidecar.get("/engines").json()[0]["created"].clone();
    api.put(&not_ready(first.clone()));
    sidecar.eventually_engines(&[(&one_url, Some("not ready")), (&two_url, None)]);
    assert_eq!(sidecar.get("/engines").json()[0]["created"], created);
    for _ in 0..4 {
        assert_eq!(sidecar.chat(&model).status, 200);
    }
    let mut ending = second.clone();
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z".into();
    api.put(&ending);
    sidecar.eventually_engines(&[(&one_url, Some("not ready")), (&two_url, Some("not ready"))]);
    sidecar.chat(&model).assert_error(503, "model_unavailable");
    api.put(&first);
    api.delete(&second);
    sidecar.eventually_engines(&[(&one_url, None)]);
    assert_eq!(sidecar.chat(&model).status, 200);
    assert_eq!(
        sidecar.metric("pilotfish_discovery_engines{state=\"ready\"}"),
        1.0
    );
    assert_eq!(sidecar.metric("pilotfish_discovery_synced"), 1.0);
}

#[test]
fn a_pod_that_does_not_tell_its_models_is_kept_out() {
    let (api, good) = (FakeApi::start(), sim(None));
    let bad = [
        "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ];
    let bad = bad.map(|answer| {
        RawEngine::start(move |mut conn| {
            while conn.request().is_some() {
                conn.write(answer);
            }
        })
    });
    let hung = RawEngine::start(|mut conn| drop(conn.closed()));
    let mut expected = vec![(url(good.address), None)];
    api.put(&pod("good", "u", good.address));
    for (at, engine) in bad.iter().chain([&hung]).enumerate() {
        api.put(&pod(
            &format!("bad-{at}"),
            &format!("u{at}"),
            engine.address,
        ));
        expected.push((url(engine.address), Some("no models")));
    }
    let sidecar = Sidecar::start(&api, "k8s-models", &PODS);
    let expected: Vec<(&str, Option<&str>)> = expected
        .iter()
        .map(|(url, why)| (url.as_str(), *why))
        .collect();
    sidecar.eventually_engines(&expected);
    // Requests for any engine, too.
    for _ in 0..5 {
        assert_eq!(
            sidecar.get("/health-of-any").status,
            404,
            "the good one's answer"
        );
    }
}

#[test]
fn what_is_known_stays_while_the_api_server_is_away() {
    let (api, one, two) = (FakeApi::start(), sim(None), sim(None));
    let (first, second) = (pod("a", "u1", one.address), pod("b", "u2", two.address));
    api.put(&first);
    let sidecar = Sidecar::start(&api, "k8s-away", &PODS);
    let (one_url, two_url) = (url(one.address), url(two.address));
    sidecar.eventually_engines(&[(&one_url, None)]);
    let model = sidecar.get("/v1/models").json()["data"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    api.down();
    let missed = "pilotfish_discovery_errors_total{reason=\"unreachable\"}";
    eventually("it is missed", || sidecar.metric(missed) >= 1.0);
    api.put(&second);
    api.delete(&first);
    api.forget();
    assert_eq!(sidecar.chat(&model).status, 200);
    assert_eq!(sidecar.get("/readyz").status, 200);
    sidecar.eventually_engines(&[(&one_url, None)]);
    api.up();
    sidecar.eventually_engines(&[(&two_url, None)]);
    assert_eq!(sidecar.chat(&model).status, 200);
}

#[test]
fn another_pod_at_the_same_address_inherits_nothing() {
    let (api, one) = (FakeApi::start(), sim(None));
    let first = pod("a", "u1", one.address);
    api.put(&first);
    let sidecar = Sidecar::start(&api, "k8s-uid", &PODS);
    let engine_url = url(one.address);
    sidecar.eventually_engines(&[(&engine_url, None)]);
    let model = sidecar.get("/v1/models").json()["data"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(sidecar.chat(&model).status, 200);
    let connects = || sidecar.get("/engines").json()[0]["window"]["finished"].as_u64();
    eventually("its request is seen", || {
        connects().is_some_and(|count| count > 0)
    });
    api.put(&pod("b", "u2", one.address));
    api.delete(&first);
    eventually("it begins anew", || connects() == Some(0));
    sidecar.eventually_engines(&[(&engine_url, None)]);
    assert_eq!(sidecar.chat(&model).status, 200);
}

#[test]
fn discovery_changes_with_the_file_and_back() {
    let (api, listed, found) = (FakeApi::start(), sim(None), sim(None));
    let folder = Folder::new("k8s-file");
    let file = folder.path("dynamic.json");
    let write = |keys: Value| {
        let aside = folder.path("aside.json");
        std::fs::write(&aside, keys.to_string()).unwrap();
        std::fs::rename(aside, &file).unwrap();
    };
    write(json!({"service_discovery": "static", "static_backends": url(listed.address)}));
    let flags = ["--dynamic-config-json", file.to_str().unwrap()];
    let sidecar = Sidecar::start(&api, "k8s-reload", &[&flags[..], &PODS[..]].concat());
    let (listed_url, found_url) = (url(listed.address), url(found.address));
    sidecar.eventually_engines(&[(&listed_url, None)]);
    assert_eq!(api.lists(), 0);
    // The list comes late: until then all stays as it was.
    api.down();
    write(json!({"service_discovery": "k8s"}));
    eventually("the file is in force", || {
        sidecar.get("/health").text().contains("k8s")
    });
    assert_eq!(sidecar.engines(), [(listed_url.clone(), None)]);
    api.put(&pod("a", "u1", found.address));
    api.up();
    sidecar.eventually_engines(&[(&found_url, None)]);
    write(json!({"service_discovery": "static", "static_backends": url(listed.address)}));
    sidecar.eventually_engines(&[(&listed_url, None)]);
    assert_eq!(sidecar.chat("m").status, 200);
    assert!(
        !sidecar
            .get("/metrics")
            .text()
            .contains("pilotfish_discovery")
    );
}

#[test]
fn an_engine_that_sleeps_is_set_aside() {
    let (api, awake) = (FakeApi::start(), sim(None));
    let asleep = RawEngine::start(|mut conn| {
        while let Some(seen) = conn.request() {
            if seen.head.starts_with("GET /is_sleeping") {
                conn.json(r#"{"is_sleeping": true}"#);
            } else {
                conn.json(r#"{"object":"list","data":[{"id":"m"}]}"#);
            }
        }
    });
    api.put(&pod("a", "u1", awake.address));
    api.put(&pod("b", "u2", asleep.address));
    let sidecar = Sidecar::start(&api, "k8s-sleep", &PODS);
    eventually("one is set aside, asleep", || {
        let page = sidecar.get("/engines").json();
        let engines = page.as_array().unwrap().iter();
        let states: Vec<&str> = engines.map(|one| one["state"].as_str().unwrap()).collect();
        states.len() == 2 && states.contains(&"asleep") && states.contains(&"healthy")
    });
}

fn refused(flags: &[&str], kubeconfig: &Path) -> Output {
    pilotfish()
        .args([
            "--port",
            "0",
            "--service-discovery",
            "k8s",
            "--routing-logic",
            "roundrobin",
        ])
        .args(flags)
        .env("KUBECONFIG", kubeconfig)
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap()
}

#[test]
fn what_cannot_work_is_refused_at_start() {
    let nowhere = Path::new("/nonexistent/kubeconfig");
    for (flags, said) in [
        (
            &["--k8s-label-selector", "app=engine"][..],
            "no Kubernetes cluster",
        ),
        (&["--k8s-label-selector", "app=engine,,"], "character 12"),
        (&["--k8s-source", "inferencepool"], "--k8s-inference-pool"),
    ] {
        let output = refused(flags, nowhere);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn without_permission_it_waits_and_says_what_is_needed() {
    let (api, one) = (FakeApi::start(), sim(None));
    api.put(&pod("a", "u1", one.address));
    api.always(Some((On::Any, Act::Refuse(403, "Forbidden", None))));
    let sidecar = Sidecar::start(&api, "k8s-forbidden", &PODS);
    sidecar.eventually_says("apply a Role that allows");
    // Nobody knows yet which models there are.
    sidecar.chat("m").assert_error(503, "model_unavailable");
    api.always(None);
    sidecar.eventually_engines(&[(&url(one.address), None)]);
    sidecar.eventually_says("engines of the cluster: +1 -0");
    assert_eq!(sidecar.chat("m").status, 200);
}

#[test]
fn who_takes_the_place_of_others_has_told_its_models_before() {
    let (api, blue) = (FakeApi::start(), sim(None));
    let (ask, asked) = mpsc::channel::<()>();
    let asked = Mutex::new(asked);
    let green = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            if seen.head.starts_with("GET /v1/models") {
                asked.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            conn.json(r#"{"object":"list","data":[{"id":"m"}]}"#);
        }
    });
    let coloured = |name: &str, address: SocketAddr| {
        let mut pod = pod(name, name, address);
        pod["metadata"]["labels"]["colour"] = name.into();
        pod
    };
    api.put(&coloured("blue", blue.address));
    api.put(&coloured("green", green.address));
    let folder = Folder::new("k8s-colours-file");
    let file = folder.path("dynamic.json");
    let select = |colour: &str| {
        let keys = json!({"k8s_label_selector": format!("colour={colour}")});
        let aside = folder.path("aside.json");
        std::fs::write(&aside, keys.to_string()).unwrap();
        std::fs::rename(aside, &file).unwrap();
    };
    select("blue");
    let flags = [
        "--routing-logic",
        "roundrobin",
        "--dynamic-config-json",
        file.to_str().unwrap(),
    ];
    let sidecar = Sidecar::start(&api, "k8s-colours", &flags);
    let (blue_url, green_url) = (url(blue.address), url(green.address));
    sidecar.eventually_engines(&[(&blue_url, None)]);
    select("green");
    sidecar.eventually_engines(&[(&blue_url, None), (&green_url, Some("no models"))]);
    assert_eq!(sidecar.chat("m").status, 200);
    ask.send(()).unwrap();
    sidecar.eventually_engines(&[(&green_url, None)]);
    assert_eq!(sidecar.chat("m").status, 200);
}

#[test]
fn we_are_no_engine_of_ours() {
    let (api, one) = (FakeApi::start(), sim(None));
    let port = free_port();
    let ours = SocketAddr::from(([127, 0, 0, 1], port));
    api.put(&pod("ours", "u1", ours));
    api.put(&pod("a", "u2", one.address));
    let text = port.to_string();
    let flags = [&PODS[..], &["--port", &text]].concat();
    let sidecar = Sidecar::start(&api, "k8s-ours", &flags);
    sidecar.eventually_engines(&[(&url(one.address), None)]);
    assert_eq!(sidecar.address, ours);
}
