//! Policies as data, through the admin listener: registered, changed, deleted,
//! kept over restarts, and over whatever ends the process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pilotfish::sim::SimEngine;
use serde_json::{Value, json};

use crate::binary::{free_port, pilotfish};
use crate::support::{Answer, Client, Folder, TestApp, eventually, post, sim};

/// The reference's registration, as its guide has it.
const REFERENCE: &str = include_str!("../fixtures/attributebasedrouter.json");
const ROUTER: &str = "/policy/attributebasedrouter:2.0-stable";

const FLAGS: [&str; 5] = [
    "--service-discovery=static",
    "--routing-logic=roundrobin",
    "--static-backends=http://127.0.0.1:1",
    "--static-models=m",
    "--admin-port=0",
];

fn app(flags: &[&str]) -> TestApp {
    let all: Vec<&str> = FLAGS.iter().chain(flags).copied().collect();
    TestApp::from_flags(&all)
}

/// One request to an admin listener.
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut client = Client::connect(address);
    let request = post(path, body).replacen("POST", method, 1);
    client.write(request.as_bytes());
    client.answer_to(method == "HEAD").unwrap()
}

fn get(app: &TestApp, path: &str) -> Value {
    let answer = ask(app.admin(), "GET", path, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, part: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    let json = answer.json();
    let message = json["error"]["message"].as_str().unwrap();
    assert!(message.contains(part), "{part} in {text}");
}

fn small(name: &str, fields: Value) -> String {
    let mut document = json!({"name": name, "version": "1", "release_tag": "a"});
    let Value::Object(fields) = fields else {
        panic!("no object")
    };
    document.as_object_mut().unwrap().extend(fields);
    document.to_string()
}

#[test]
fn the_references_registration_as_it_is_written() {
    let app = app(&[]);
    let register = |path: &str| ask(app.admin(), "POST", path, REFERENCE);
    let before = get(&app, ROUTER);
    assert_eq!(before["in_force"]["registered_at"], Value::Null);
    assert_eq!(
        before["in_force"]["policy"]["app_map"]["RAG"],
        "chat-completion"
    );

    let first = register("/policy");
    assert_eq!(first.status, 200, "{}", first.text());
    let json = first.json();
    assert_eq!(json["success"], true);
    assert_eq!(json["data"], "Policy created successfully.");
    assert_eq!(json["uri"], "attributebasedrouter:2.0-stable");
    let warnings = json["warnings"].to_string();
    for part in ["`code`", "never fetched", "METRICS_BASE_URL", "--state-dir"] {
        assert!(warnings.contains(part), "{part} in {warnings}");
    }

    let sent: Value = serde_json::from_str(REFERENCE).unwrap();
    let known = get(&app, "/policy/attributebasedrouter%3A2.0-stable");
    assert_eq!((&known["success"], &known["data"]), (&json!(true), &sent));
    assert!(known["in_force"]["registered_at"].as_u64() > Some(1_700_000_000));
    let again = register("/policy");
    refused(&again, 409, "DELETE it, PUT it, or POST with ?replace=1");
    assert_eq!(again.json()["success"], false);
    let replaced = register("/policy?replace=1");
    assert_eq!(replaced.json()["data"], "Policy replaced successfully.");

    let deleted = ask(app.admin(), "DELETE", ROUTER, "");
    assert_eq!(
        (deleted.status, &deleted.json()["success"]),
        (200, &json!(true))
    );
    assert_eq!(get(&app, ROUTER), before);
    refused(
        &ask(app.admin(), "DELETE", ROUTER, ""),
        409,
        "cannot be deleted",
    );
    assert_eq!(register("/policy").status, 200);
}

#[test]
fn each_route() {
    let app = app(&[]);
    let send = |method: &str, path: &str, body: &str| ask(app.admin(), method, path, body);
    for (name, author) in [("p", "x"), ("q", "y"), ("r", "x")] {
        let body = small(name, json!({"metadata": {"author": author}}));
        assert_eq!(send("POST", "/policy", &body).status, 200);
    }
    let list = get(&app, "/policy");
    assert_eq!(list["total"], 5);
    let uris = |page: &Value| -> Vec<String> {
        let list = page["data"].as_array().unwrap().iter();
        list.map(|one| one["uri"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(uris(&list)[2..], ["p:1-a", "q:1-a", "r:1-a"]);
    assert_eq!(uris(&get(&app, "/policy?limit=1&after=p%3A1-a")), ["q:1-a"]);
    let registered = get(&app, "/config")["registered_policies"].clone();
    assert_eq!(registered, json!(["p:1-a", "q:1-a", "r:1-a"]));
    let head = send("HEAD", "/policy/p:1-a", "");
    assert_eq!((head.status, head.body.len()), (200, 0));

    let found = send(
        "POST",
        "/policy/query",
        r#"{"query": {"metadata.author": "x"}}"#,
    )
    .json();
    let names: Vec<&str> = (found["data"].as_array().unwrap().iter())
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!((&found["success"], names), (&json!(true), vec!["p", "r"]));
    assert_eq!(
        send("POST", "/policy/query", r#"{"query": {"name": "none"}}"#).json()["data"],
        json!([])
    );

    // The whole document is replaced; what makes its URI may be left out.
    let put = send("PUT", "/policy/p:1-a", r#"{"description": "new"}"#);
    assert_eq!(put.status, 200, "{}", put.text());
    let document = &get(&app, "/policy/p:1-a")["data"];
    assert_eq!(
        (&document["description"], &document["metadata"]),
        (&json!("new"), &Value::Null)
    );
    assert_eq!(send("DELETE", "/policy/p:1-a", "").status, 200);
    assert_eq!(send("GET", "/policy/p:1-a", "").status, 404);
    let options = send("OPTIONS", "/policy/q:1-a", "");
    let allow = Some("GET, HEAD, PUT, DELETE, OPTIONS");
    assert_eq!((options.status, options.field("allow")), (204, allow));
    let patch = send("PATCH", "/policy/q:1-a", "");
    assert_eq!((patch.status, patch.field("allow")), (405, allow));
}

#[test]
fn what_is_wrong_with_a_request() {
    let app = app(&[]);
    let send = |method: &str, path: &str, body: &str| ask(app.admin(), method, path, body);
    assert_eq!(send("POST", "/policy", &small("q", json!({}))).status, 200);
    for (method, path, body, status, part) in [
        ("POST", "/policy", "{}", 400, "/release_tag: is missing"),
        ("POST", "/policy", "nonsense", 400, "no JSON"),
        ("POST", "/policy", "", 400, "no JSON"),
        (
            "PUT",
            "/policy/q:1-a",
            r#"{"name": "z"}"#,
            400,
            "make z:1-a",
        ),
        ("PUT", "/policy/none:1-a", "{}", 404, "there is no policy"),
        ("GET", "/policy/none", "", 404, "there is no policy"),
        ("DELETE", "/policy/none", "", 404, "there is no policy"),
        ("GET", "/policy?limit=1000", "", 400, "?limit=1 to"),
        ("POST", "/policy/query", "[]", 400, "expected {\"query\""),
        (
            "POST",
            "/policy/query",
            r#"{"query": {"$or": []}}"#,
            400,
            "\"$or\" is unknown",
        ),
        ("POST", "/upload", "", 501, "neither taken nor run"),
        ("PATCH", "/policy", "", 405, "GET, HEAD, POST, OPTIONS"),
        ("GET", "/policy/query", "", 405, "POST"),
        ("POST", "/policy/q:1-a", "", 405, "PUT, DELETE"),
    ] {
        refused(&send(method, path, body), status, part);
    }
    // Only for those who run us.
    for path in ["/policy", "/policy/q:1-a", "/policy/query"] {
        for public in [app.get(path), app.send(&post(path, "{}"))] {
            public.assert_error(404, "not_found");
            assert!(public.text().contains("--admin-port"));
        }
    }
    assert_eq!(get(&app, "/policy")["total"], 3);
}

#[test]
fn bodies_are_json_and_bounded_and_in_time() {
    let app = app(&["--client-body-timeout=300ms"]);
    let raw = |text: String| {
        let mut client = Client::connect(app.admin());
        client.write(text.as_bytes());
        client.answer().unwrap()
    };
    let form = post("/policy", "{}").replacen("application/json", "text/plain", 1);
    refused(&raw(form), 415, "application/json");
    let announced = post("/policy", "").replacen("length: 0", "length: 1048577", 1);
    refused(&raw(announced), 413, "at most 1048576 bytes");
    let chunks = "10000\r\n".to_owned() + &"x".repeat(0x10000) + "\r\n";
    let head = post("/policy", "").replacen("content-length: 0", "transfer-encoding: chunked", 1);
    refused(
        &raw(head + &chunks.repeat(17)),
        413,
        "at most 1048576 bytes",
    );
    let late = post("/policy", "").replacen("length: 0", "length: 10", 1);
    refused(&raw(late + "{"), 408, "did not arrive in time");
    assert_eq!(get(&app, "/policy")["total"], 2);
}

#[test]
fn what_cannot_be_put_in_force_changes_nothing() {
    let app = app(&[]);
    let send = |method: &str, path: &str, body: &str| ask(app.admin(), method, path, body);
    let goals = |goals: Value| json!({"policy_parameters": {"selection_query": {"optimization_goals": goals}}});
    let goal =
        |weight: f64| json!([{"attribute": "latency_ms", "direction": "min", "weight": weight}]);
    let good = small("p", goals(goal(1.0)));
    assert_eq!(send("POST", "/policy", &good).status, 200);
    let generation = || get(&app, "/config")["generation"].clone();
    let before = generation();
    for (method, path) in [("POST", "/policy?replace=1"), ("PUT", "/policy/p:1-a")] {
        let bad = send(method, path, &small("p", goals(goal(-1.0))));
        refused(
            &bad,
            400,
            "the policy cannot be put in force: policies.p:1-a.goals",
        );
        assert_eq!(bad.json()["problems"][0]["path"], "policies.p:1-a.goals");
        let broken = send(
            method,
            path,
            &small("p", goals(json!([{"direction": "up"}]))),
        );
        refused(&broken, 400, "/selection_query/optimization_goals");
        let schema = json!({"policy_settings_schema": {"k": {"type": "number"}},
            "policy_settings": {"k": "x"}});
        refused(
            &send(method, path, &small("p", schema)),
            422,
            "/policy_settings/k",
        );
    }
    let sent: Value = serde_json::from_str(&good).unwrap();
    assert_eq!(get(&app, "/policy/p:1-a")["data"], sent);
    assert_eq!(generation(), before);
    // What a goal looks at, and no engine has, is told of.
    let typo = json!([{"attribute": "sped", "direction": "max"}]);
    let warned = send("POST", "/policy", &small("q", goals(typo))).json();
    assert!(warned["warnings"].to_string().contains("sped"), "{warned}");
}

fn sims() -> [SimEngine; 2] {
    [sim(None), sim(None)]
}

/// A file with these engines, the first of rank 0, and its routing logic.
fn file(engines: &[SimEngine], routing: &str) -> String {
    let engines = engines.iter().enumerate();
    let entries: Vec<Value> = engines
        .map(|(rank, one)| json!({"url": one.url(), "models": ["m"], "metadata": {"rank": rank}}))
        .collect();
    json!({"service_discovery": "static", "routing_logic": routing, "engines": entries}).to_string()
}

/// A policy that takes the engine whose rank is the greatest, or the least.
fn by_rank(direction: &str) -> String {
    let goals = json!([{"attribute": "rank", "direction": direction}]);
    small(
        "rank",
        json!({"policy_parameters": {"selection_query": {"optimization_goals": goals}}}),
    )
}

fn chosen(app: &TestApp, fields: &str) -> String {
    let fields = format!("host: x\r\nx-pilotfish-explain: 1\r\n{fields}");
    let request = post("/v1/chat/completions", r#"{"model":"m","max_tokens":1}"#);
    let answer = app.send(&request.replacen("host: x\r\n", &fields, 1));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.field("x-pilotfish-engine").unwrap().to_owned()
}

/// An app with that file and that state folder.
fn kept(config: &Path, state: &Path) -> TestApp {
    TestApp::from_flags(&[
        "--admin-port=0",
        "--dynamic-config-json",
        config.to_str().unwrap(),
        "--state-dir",
        state.to_str().unwrap(),
    ])
}

/// What the binary says that does not start with that state folder.
fn not_started(state: &Path) -> String {
    let mut other = pilotfish();
    other.args(FLAGS).arg("--state-dir").arg(state);
    let output = other.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn routing_logic_and_requests_name_registered_policies_over_restarts() {
    let engines = sims();
    let folder = Folder::new("registered");
    let config = folder.path("dynamic.json");
    let state = folder.path("state");
    std::fs::write(&config, file(&engines, "roundrobin")).unwrap();
    let app = kept(&config, &state);
    let asks = "x-pilotfish-policy: rank:1-a\r\n";
    let request = post("/v1/chat/completions", r#"{"model":"m"}"#);
    let unknown = app.send(&request.replacen("host: x\r\n", &format!("host: x\r\n{asks}"), 1));
    unknown.assert_error(400, "invalid_header");
    let registered = ask(app.admin(), "POST", "/policy", &by_rank("max"));
    assert_eq!(registered.json()["warnings"], json!([]), "it is kept");
    for _ in 0..3 {
        assert_eq!(chosen(&app, asks), engines[1].url());
    }
    let put = ask(app.admin(), "PUT", "/policy/rank:1-a", &by_rank("min"));
    assert_eq!(put.status, 200);
    for _ in 0..3 {
        assert_eq!(chosen(&app, asks), engines[0].url());
    }

    // A file that names what is not there yet is looked at again.
    std::fs::write(&config, file(&engines, "late:1-a")).unwrap();
    let is_good = || get(&app, "/config")["last_reload_successful"] == true;
    eventually("it is refused", || !is_good());
    let late = ask(app.admin(), "POST", "/policy", &small("late", json!({})));
    assert_eq!(late.status, 200);
    std::fs::write(&config, file(&engines, "late:1-a")).unwrap();
    eventually("it is good", is_good);
    assert_eq!(get(&app, "/config")["policy"], "late:1-a");

    // By a reload; what is in use then stays.
    std::fs::write(&config, file(&engines, "rank:1-a")).unwrap();
    let policy = |app: &TestApp| get(app, "/config")["policy"].clone();
    eventually("it is in force", || policy(&app) == "rank:1-a");
    assert_eq!(chosen(&app, ""), engines[0].url());
    let in_use = ask(app.admin(), "DELETE", "/policy/rank:1-a", "");
    refused(&in_use, 409, "the policy is in use: routing_logic");
    assert_eq!(app.metric("pilotfish_config_reload_failures_total "), 1.0);

    drop(app);
    let app = kept(&config, &state);
    assert_eq!(policy(&app), "rank:1-a");
    assert_eq!(chosen(&app, ""), engines[0].url());
}

#[test]
fn the_folder_is_ours_alone_and_the_files_own_policies_come_first() {
    let engines = sims();
    let folder = Folder::new("alone");
    let config = folder.path("dynamic.json");
    let state = folder.path("state");
    std::fs::write(&config, file(&engines, "roundrobin")).unwrap();
    let app = kept(&config, &state);
    let registered = ask(app.admin(), "POST", "/policy", &by_rank("min"));
    assert_eq!(registered.status, 200);
    std::fs::write(&config, file(&engines, "rank:1-a")).unwrap();
    let config_page = || get(&app, "/config");
    eventually("it is in force", || config_page()["policy"] == "rank:1-a");
    let text = not_started(&state);
    assert!(text.contains("another process uses this folder"), "{text}");

    let mut own: Value = serde_json::from_str(&file(&engines, "rank:1-a")).unwrap();
    own["policies"] = json!({"rank:1-a": {"type": "scored",
        "goals": [{"attribute": "rank", "direction": "max"}]}});
    std::fs::write(&config, own.to_string()).unwrap();
    eventually("the file's is in force", || {
        chosen(&app, "") == engines[1].url()
    });
    let deleted = ask(app.admin(), "DELETE", "/policy/rank:1-a", "");
    assert_eq!(deleted.status, 200);
    assert_eq!(chosen(&app, ""), engines[1].url());

    // A file that is not ours is left, and we do not start.
    drop(app);
    let kept = state.join("policies.json");
    std::fs::write(&kept, "{\"version\":1,\"poli").unwrap();
    let text = not_started(&state);
    assert!(
        text.contains("policies.json: is not what was written"),
        "{text}"
    );
    let left = std::fs::read_to_string(&kept).unwrap();
    assert_eq!(left, "{\"version\":1,\"poli");
}

#[test]
fn a_built_in_policy_is_there_without_being_registered() {
    let engines = sims();
    let folder = Folder::new("builtin");
    let config = folder.path("dynamic.json");
    std::fs::write(&config, file(&engines, "non-llm-matcher:2.0-stable")).unwrap();
    let app = TestApp::from_flags(&[
        "--admin-port=0",
        "--dynamic-config-json",
        config.to_str().unwrap(),
    ]);
    assert_eq!(get(&app, "/config")["policy"], "non-llm-matcher:2.0-stable");
    let body = r#"{"model":"m","max_tokens":1}"#;
    assert_eq!(app.chat(body).status, 200);
    // Requests may name either, wherever there is no list of those that they may.
    for uri in [
        "attributebasedrouter:2.0-stable",
        "non-llm-matcher:2.0-stable",
    ] {
        chosen(&app, &format!("x-pilotfish-policy: {uri}\r\n"));
    }
    let deleted = ask(
        app.admin(),
        "DELETE",
        "/policy/non-llm-matcher:2.0-stable",
        "",
    );
    refused(&deleted, 409, "cannot be deleted");
}

/// A policy that asks that URL.
fn asking(url: &str) -> String {
    small(
        "r",
        json!({"type": "remote", "policy_settings": {"url": url}}),
    )
}

/// A file with that routing logic, which lists these matchers.
fn listing(engines: &[SimEngine], routing: &str, matchers: &Value) -> String {
    let mut file: Value = serde_json::from_str(&file(engines, routing)).unwrap();
    file["matchers"] = matchers.clone();
    file.to_string()
}

#[test]
fn a_policy_that_no_longer_fits_is_in_nobodys_way() {
    let engines = sims();
    let folder = Folder::new("unfit");
    let config = folder.path("dynamic.json");
    let state = folder.path("state");
    let url = "http://127.0.0.1:1/match";
    let put = |routing: &str, matchers: &Value| {
        std::fs::write(&config, listing(&engines, routing, matchers)).unwrap();
    };
    put("roundrobin", &json!([url]));
    let app = kept(&config, &state);
    let registered = ask(app.admin(), "POST", "/policy", &asking(url));
    assert_eq!(registered.status, 200, "{}", registered.text());
    let why = |app: &TestApp| get(app, "/policy/r:1-a")["in_force"]["set_aside"].clone();
    assert_eq!(why(&app), Value::Null);
    put("random", &json!([]));
    eventually("it is in force", || {
        get(&app, "/config")["policy"] == "random"
    });
    let told = why(&app);
    let told = told.as_str().unwrap();
    assert!(
        told.contains("is not among the configuration's `matchers`"),
        "{told}"
    );
    let named = post("/v1/chat/completions", r#"{"model":"m"}"#).replacen(
        "host: x\r\n",
        "host: x\r\nx-pilotfish-policy: r:1-a\r\n",
        1,
    );
    app.send(&named).assert_error(400, "invalid_header");
    // Whoever names it is told that it is the registered one that does not fit.
    put("r:1-a", &json!([]));
    let problems = || {
        get(&app, "/config")["problems"][0]
            .as_str()
            .map(str::to_owned)
    };
    eventually("it is refused", || problems().is_some());
    let problem = problems().unwrap();
    assert!(
        problem.starts_with("registered policy r:1-a: url: "),
        "{problem}"
    );
    drop(app);

    let flags = [
        "--dynamic-config-json",
        config.to_str().unwrap(),
        "--port=0",
        "--state-dir",
    ];
    let output = pilotfish().args(flags).arg(&state).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("registered policy r:1-a: url: "), "{text}");
    put("roundrobin", &json!([]));
    let app = kept(&config, &state);
    assert_eq!(
        ask(app.admin(), "PUT", "/policy/r:1-a", &asking(url)).status,
        400
    );
    assert_eq!(ask(app.admin(), "DELETE", "/policy/r:1-a", "").status, 200);
}

#[test]
fn a_file_may_name_what_is_to_be_registered() {
    let folder = Folder::new("validate");
    let config = folder.path("dynamic.json");
    let validate = |routing: &str| {
        std::fs::write(&config, file(&[], routing)).unwrap();
        let output = pilotfish().arg("validate").arg(&config).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (is_good, text) = validate("rank:1-a");
    assert!(
        is_good && text.contains("warning: routing_logic: \"rank:1-a\" must be"),
        "{text}"
    );
    let (is_good, text) = validate("attributebasedrouter:2.0-stable");
    assert!(is_good && !text.contains("must be registered"), "{text}");
    assert!(!validate("rank").0);
}

#[test]
fn a_schema_that_would_overflow_ends_nobody() {
    let app = app(&[]);
    let part = |n: usize| {
        (
            format!("{n:05}"),
            json!({"$ref": format!("#/$defs/{:05}", n + 1)}),
        )
    };
    let mut defs: serde_json::Map<String, Value> = (0..20_000).map(part).collect();
    defs.insert("20000".to_owned(), json!({}));
    let schema = json!({"type": "object", "$defs": defs});
    let body = small("p", json!({"policy_parameters_schema": schema}));
    refused(
        &ask(app.admin(), "POST", "/policy", &body),
        400,
        "more than 64 levels",
    );
    assert_eq!(get(&app, "/policy")["total"], 2);
}

#[test]
fn registrations_at_once_are_all_made() {
    let folder = Folder::new("atonce");
    let state = folder.path("state");
    let app = app(&["--state-dir", state.to_str().unwrap()]);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let address = app.admin();
            scope.spawn(move || {
                for n in 0..5 {
                    let body = small(&format!("p{client}.{n}"), json!({}));
                    assert_eq!(ask(address, "POST", "/policy", &body).status, 200);
                }
            });
        }
    });
    assert_eq!(get(&app, "/policy")["total"], 42);
    drop(app);
    let text = std::fs::read_to_string(state.join("policies.json")).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written["policies"].as_array().unwrap().len(), 40);
}

/// The binary with an admin listener, killed when dropped.
struct Process {
    child: Child,
    admin: SocketAddr,
}

impl Process {
    /// Runs it by that command, which is given the flags.
    fn start(mut command: Command, state: &Path) -> Self {
        let port = free_port();
        let child = command
            .args(&FLAGS[..4])
            .args(["--host=127.0.0.1", "--port=0", "--state-dir"])
            .arg(state)
            .arg(format!("--admin-port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let admin = SocketAddr::from(([127, 0, 0, 1], port));
        let mut process = Self { child, admin };
        eventually("it serves", || {
            assert!(process.child.try_wait().unwrap().is_none(), "it ended");
            std::net::TcpStream::connect(admin).is_ok()
        });
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The count in each policy's document; `None` where it was deleted.
type Told = BTreeMap<String, Option<u64>>;

/// The count in the document of that policy, if there is one.
fn count(admin: SocketAddr, uri: &str) -> Option<u64> {
    let answer = ask(admin, "GET", &format!("/policy/{uri}"), "");
    (answer.status == 200).then(|| answer.json()["data"]["metadata"]["count"].as_u64().unwrap())
}

/// Registers, replaces and deletes until the process is gone; tells what was
/// acknowledged, and what was asked last.
fn change(
    admin: SocketAddr,
    mut random: fastrand::Rng,
    mut count: u64,
) -> (Told, (String, Option<u64>)) {
    let mut told = Told::new();
    let mut stream = std::net::TcpStream::connect(admin).unwrap();
    loop {
        count += 1;
        let name = format!("p{}", random.u32(0..60));
        let uri = format!("{name}:1-a");
        let exists = matches!(told.get(&uri), Some(Some(_)));
        let (request, wanted) = if exists && random.u32(0..4) == 0 {
            let path = format!("/policy/{uri}");
            (post(&path, "").replacen("POST", "DELETE", 1), None)
        } else {
            let text = "x".repeat(random.usize(0..6_000));
            let body = small(
                &name,
                json!({"metadata": {"count": count}, "description": text}),
            );
            (post("/policy?replace=1", &body), Some(count))
        };
        if !is_acknowledged(&mut stream, &request) {
            return (told, (uri, wanted));
        }
        told.insert(uri, wanted);
    }
}

/// Whether the answer's head came whole, and says that it was done.
fn is_acknowledged(stream: &mut std::net::TcpStream, request: &str) -> bool {
    use std::io::{Read as _, Write as _};
    if stream.write_all(request.as_bytes()).is_err() {
        return false;
    }
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return false,
            Ok(n) => seen.extend_from_slice(&piece[..n]),
        }
        if seen.ends_with(b"}") && seen.starts_with(b"HTTP/1.1 ") {
            assert!(
                seen.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&seen)
            );
            return true;
        }
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new("kill9");
    let state = folder.path("state");
    let mut random = fastrand::Rng::with_seed(9);
    let mut told = Told::new();
    let mut last: Option<(String, Option<u64>)> = None;
    let mut acknowledged = 0;
    for round in 0..24_u64 {
        let mut process = Process::start(pilotfish(), &state);
        // What was acknowledged is there; what was asked last may be.
        if let Some((uri, wanted)) = last.take() {
            let found = count(process.admin, &uri);
            let before = told.get(&uri).copied().flatten();
            assert!(found == before || found == wanted, "{uri}: {found:?}");
            told.insert(uri, found);
        }
        for (uri, wanted) in &told {
            assert_eq!(count(process.admin, uri), *wanted, "{uri}");
        }
        let (admin, seed) = (process.admin, random.fork());
        let client = std::thread::spawn(move || change(admin, seed, round * 1_000_000));
        std::thread::park_timeout(Duration::from_micros(random.u64(2_000..160_000)));
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        let (new, asked) = client.join().unwrap();
        acknowledged += new.len();
        told.extend(new);
        last = Some(asked);
    }
    assert!(acknowledged > 24, "{acknowledged}");
}

#[test]
fn a_disk_that_is_full_leaves_the_old_state_in_force() {
    let folder = Folder::new("full");
    let state = folder.path("state");
    // Files may have some KiB: as a full disk, writing ends in the midst.
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"trap "" XFSZ; ulimit -f 16; exec "$0" "$@""#]);
    limited.arg(env!("CARGO_BIN_EXE_pilotfish"));
    let process = Process::start(limited, &state);
    let register = |name: &str, size: usize| {
        let body = small(name, json!({"description": "x".repeat(size)}));
        ask(process.admin, "POST", "/policy", &body)
    };
    assert_eq!(register("a", 2000).status, 200);
    let before = std::fs::read(state.join("policies.json")).unwrap();
    let full = register("b", 40_000);
    refused(&full, 507, "nothing has changed");
    assert_eq!(full.json()["success"], false);
    assert_eq!(std::fs::read(state.join("policies.json")).unwrap(), before);
    let files = std::fs::read_dir(&state).unwrap().count();
    assert_eq!(files, 2, "that file, and the lock");
    assert_eq!(ask(process.admin, "GET", "/policy/b:1-a", "").status, 404);
    assert_eq!(ask(process.admin, "GET", "/policy/a:1-a", "").status, 200);
    assert_eq!(
        register("c", 100).status,
        200,
        "there is room for a small one"
    );

    std::fs::remove_dir_all(&state).unwrap();
    refused(&register("d", 100), 507, "nothing has changed");
    let there = |uri: &str| ask(process.admin, "GET", &format!("/policy/{uri}"), "").status;
    assert_eq!((there("c:1-a"), there("d:1-a")), (200, 404));
}
