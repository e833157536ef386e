//! Policies that ask others whom to choose: what is sent to them, what comes of
//! what they say, and that nobody else is kept waiting by them.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::engine::{Conn, RawEngine, Seen};
use crate::support::{Answer, Client, PATIENCE, TestApp, eventually, post};
use pilotfish::config::resolve::resolve;
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use serde_json::{Value, json};

const BODY: &str =
    r#"{"model":"m","max_tokens":2,"messages":[{"role":"user","content":"a secret"}]}"#;
const PATH: &str = "/v1/chat/completions";

/// Whoever is asked: what was asked is taken down.
struct Adviser {
    engine: RawEngine,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Adviser {
    /// One that does so with each question.
    fn new(answer: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let taken = Arc::clone(&seen);
        let engine = RawEngine::start(move |mut conn| {
            while let Some(question) = conn.request() {
                if question.head.starts_with("GET") {
                    conn.json("{}");
                    continue;
                }
                taken.lock().unwrap().push(question);
                answer(&mut conn);
            }
        });
        Self { engine, seen }
    }

    fn saying(body: &str) -> Self {
        let body = body.to_owned();
        Self::new(move |conn| conn.json(&body))
    }

    fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }
}

/// Engines `a` and `b`, blocks of their own; `b` has the better score.
struct Pair {
    engines: Vec<SimEngine>,
}

impl Pair {
    fn new() -> Self {
        let start = || SimEngine::start(SimConfig::new("m", Speed::instant())).unwrap();
        Self {
            engines: vec![start(), start()],
        }
    }

    fn entries(&self) -> Vec<Value> {
        let component = |n: usize| {
            json!({
                "component": {
                    "containerRegistryInfo": {"containerImage": format!("image/{n}:1")},
                    "componentMetadata": {"usecase": "chat-completion"},
                },
                "quality": n,
            })
        };
        let engines = self.engines.iter().enumerate();
        let entry = |(n, engine): (usize, &SimEngine)| {
            json!({
                "url": engine.url(), "models": ["m"], "block": (["a", "b"][n]),
                "metadata": component(n), "labels": {"tier": "gold"},
            })
        };
        engines.map(entry).collect()
    }

    /// An app of one worker whose requests that policy places.
    fn app(&self, policy: Value, more: Vec<Value>) -> TestApp {
        let mut policy = policy;
        policy["goals"] = json!([{"attribute": "quality", "direction": "max"}]);
        let keys = json!({
            "service_discovery": "static", "routing_logic": "matcher",
            "request_headers": {"allow": ["explain", "policy", "engine"]},
            "policies": {"matcher": policy, "plain": {"type": "roundrobin"}},
            "engines": ([self.entries(), more].concat()),
        });
        let settings = resolve(&serde_json::from_value(keys).unwrap());
        TestApp::with(&[], |config| {
            config.settings = settings.unwrap().settings;
            config.workers = 1;
            config.admin = Some("127.0.0.1:0".parse().unwrap());
            config.engine_key = Some("key-of-engines".to_owned());
        })
    }

    /// The block that got it.
    fn block(&self, answer: &Answer) -> &'static str {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let engine = answer.field("x-pilotfish-engine").unwrap();
        let at = self.engines.iter().position(|one| one.url() == engine);
        ["a", "b"][at.unwrap()]
    }
}

fn ask(app: &TestApp, fields: &str) -> Answer {
    ask_for(app, fields, BODY)
}

fn ask_for(app: &TestApp, fields: &str, body: &str) -> Answer {
    let fields = format!("host: x\r\nx-pilotfish-explain: 1\r\n{fields}");
    app.send(&post(PATH, body).replacen("host: x\r\n", &fields, 1))
}

/// What the record of that answer's decision says of advice.
fn advice(app: &TestApp, answer: &Answer) -> Value {
    let id = answer.field("x-pilotfish-decision").unwrap();
    let mut client = Client::connect(app.admin());
    client.write(format!("GET /debug/decisions/{id} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    client.answer().unwrap().json()["request"]["advice"].clone()
}

fn remote(adviser: &Adviser) -> Value {
    json!({"type": "remote", "url": adviser.engine.url() + "/match", "deadline": 10})
}

fn llm(adviser: &Adviser) -> Value {
    json!({
        "type": "llm", "server": adviser.engine.url(), "block": "judge", "deadline": 10,
        "query_string": "a friendly chat",
    })
}

fn said(content: &str) -> String {
    json!({"choices": [{"message": {"role": "assistant", "content": content}}]}).to_string()
}

#[test]
fn what_a_matcher_says_is_done() {
    let pair = Pair::new();
    let adviser = Adviser::saying(r#"{"ids": ["nobody", "a", "b"]}"#);
    let app = pair.app(remote(&adviser), vec![]);
    for _ in 0..3 {
        let answer = ask(&app, "");
        assert_eq!(pair.block(&answer), "a");
        assert_eq!(advice(&app, &answer), json!({"ranked": ["a", "b"]}));
    }
    assert_eq!(adviser.asked(), 1, "it holds for a while");
    let question = adviser.last();
    assert!(
        question.head.starts_with("POST /match HTTP/1.1\r\n"),
        "{}",
        question.head
    );
    assert_eq!(question.field("authorization"), None);
    let text = String::from_utf8(question.body).unwrap();
    assert!(!text.contains("a secret"), "{text}");
    let told: Value = serde_json::from_str(&text).unwrap();
    let first = &told["candidates"][0];
    assert_eq!(first["id"], "b", "the best by score first: {told}");
    assert_eq!(first["models"], json!(["m"]));
    assert_eq!(first["score"], 1.0);
    assert_eq!(first["labels"]["tier"], "gold");
    assert_eq!(first["metadata"]["quality"], 1);
    assert_eq!(first["metrics"]["in_flight"], 0.0);
    assert_eq!(told["candidates"].as_array().unwrap().len(), 2);
    assert_eq!(told["parameters"], json!({}));
    assert_eq!(told["context"]["policy"], "matcher");
    assert_eq!(told["context"]["path"], PATH);
    assert_eq!(told["context"]["max_tokens"], 2);
    assert_eq!(
        app.metric(r#"pilotfish_decisions_total{policy="matcher",reason="advised"}"#),
        3.0
    );
}

#[test]
fn a_request_that_leaves_its_model_open_gets_the_block_that_was_advised() {
    let pair = Pair::new();
    let adviser = Adviser::saying(r#"["a"]"#);
    let app = pair.app(remote(&adviser), vec![]);
    let answer = ask_for(&app, "", &BODY.replace(r#""m""#, r#""auto""#));
    assert_eq!(pair.block(&answer), "a");
    assert_eq!(advice(&app, &answer), json!({"ranked": ["a"]}));
}

#[test]
fn only_who_asks_for_advice_pays_for_it() {
    let pair = Pair::new();
    let adviser = Adviser::saying(r#"{"id": "a"}"#);
    let app = pair.app(remote(&adviser), vec![]);
    let pinned = format!("x-pilotfish-engine: {}\r\n", pair.engines[1].url());
    for fields in ["x-pilotfish-policy: plain\r\n", &pinned] {
        let answer = ask(&app, fields);
        assert_eq!(answer.status, 200);
        assert_eq!(advice_if_any(&app, &answer), Value::Null);
    }
    app.get("/version");
    assert_eq!((adviser.asked(), adviser.engine.connections()), (0, 0));
}

fn advice_if_any(app: &TestApp, answer: &Answer) -> Value {
    match answer.field("x-pilotfish-decision") {
        Some(_) => advice(app, answer),
        None => Value::Null,
    }
}

/// A fault, and a word of the reason.
type Case = (&'static str, fn(&mut Conn), [&'static str; 2]);

const FAULTS: [Case; 9] = [
    (
        "prose",
        |conn| conn.json("I would take a."),
        ["no JSON", "Invalid or empty"],
    ),
    (
        "an array",
        |conn| conn.json("[]"),
        ["no `id`", "Invalid or empty"],
    ),
    (
        "prose in a chat",
        |conn| conn.json(&said("Hard to say.")),
        ["no `id`", "not in the candidate list: Hard to say."],
    ),
    (
        "an array in a chat",
        |conn| conn.json(&said(r#"["a"]"#)),
        ["no `id`", r#"not in the candidate list: ["a"]"#],
    ),
    (
        "somebody else",
        |conn| conn.json(r#"{"id": "c", "reply": "{\"id\": \"c\"}"}"#),
        [
            "names nobody of the candidates: c",
            "not in the candidate list: c",
        ],
    ),
    (
        "500",
        |conn| conn.write("HTTP/1.1 500 Oops\r\ncontent-length: 12\r\n\r\n{\"id\": \"a\"} "),
        ["answered 500", "answered 500"],
    ),
    (
        "too much",
        |conn| {
            conn.json(&format!(
                r#"{{"id": "a", "x": "{}"}}"#,
                "x".repeat(300 << 10)
            ))
        },
        ["longer than 262144 bytes", "longer than 262144 bytes"],
    ),
    (
        "no HTTP",
        |conn| conn.write("250 ok\r\n\r\n"),
        ["protocol", "protocol"],
    ),
    (
        "half",
        |conn| {
            conn.write("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"id\"");
            conn.stream.shutdown(std::net::Shutdown::Both).unwrap();
        },
        ["connection broke", "connection broke"],
    ),
];

#[test]
fn whatever_it_says_else_the_score_decides() {
    for (name, fault, words) in FAULTS {
        for (kind, word) in [remote as fn(&Adviser) -> Value, llm]
            .into_iter()
            .zip(words)
        {
            let pair = Pair::new();
            let adviser = Adviser::new(fault);
            let app = pair.app(kind(&adviser), vec![]);
            for _ in 0..2 {
                let answer = ask(&app, "");
                assert_eq!(pair.block(&answer), "b", "{name}");
                let why = advice(&app, &answer)["failed"].to_string();
                let word = json!(word).to_string();
                assert!(why.contains(word.trim_matches('"')), "{name}: {why}");
            }
            assert!(adviser.asked() <= 2, "{name}: {}", adviser.asked());
        }
    }
}

#[test]
fn nobody_there_and_nobody_in_time() {
    let pair = Pair::new();
    let gone = RawEngine::echo().url();
    let app = pair.app(json!({"type": "remote", "url": gone}), vec![]);
    let answer = ask(&app, "");
    assert_eq!(pair.block(&answer), "b");
    let why = advice(&app, &answer).to_string();
    assert!(why.contains("could not reach"), "{why}");

    let hanging = Adviser::new(|conn| drop(conn.closed()));
    let policy = json!({"type": "remote", "url": hanging.engine.url(), "deadline": 0.1});
    let app = pair.app(policy, vec![]);
    let began = Instant::now();
    for _ in 0..5 {
        let answer = ask(&app, "");
        assert_eq!(pair.block(&answer), "b");
        let why = advice(&app, &answer).to_string();
        assert!(why.contains("no whole answer within 100ms"), "{why}");
    }
    let asked = u32::try_from(hanging.asked()).unwrap();
    let most = 1 + u32::try_from(began.elapsed().as_secs()).unwrap();
    assert!(
        (1..=most).contains(&asked),
        "{asked} in {:?}",
        began.elapsed()
    );
}

#[test]
fn many_requests_are_one_question() {
    let pair = Pair::new();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let adviser = Adviser::new(move |conn| {
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
        conn.json(r#"{"id": "a"}"#);
    });
    let app = pair.app(remote(&adviser), vec![]);
    let fields = "host: x\r\nx-pilotfish-explain: 1\r\n";
    let request = post(PATH, BODY).replacen("host: x\r\n", fields, 1);
    let mut clients: Vec<Client> = (0..100).map(|_| app.connect()).collect();
    clients
        .iter_mut()
        .for_each(|one| one.write(request.as_bytes()));
    eventually("a question", || adviser.asked() == 1);
    // Other requests are served meanwhile.
    assert_eq!(ask(&app, "x-pilotfish-policy: plain\r\n").status, 200);
    go.send(()).unwrap();
    for client in &mut clients {
        assert_eq!(pair.block(&client.answer().unwrap()), "a");
    }
    assert_eq!(adviser.asked(), 1);
}

#[test]
fn whoever_waits_asks_when_the_one_who_asked_has_left() {
    let pair = Pair::new();
    let count = Mutex::new(0);
    let adviser = Adviser::new(move |conn| {
        *count.lock().unwrap() += 1;
        if *count.lock().unwrap() == 1 {
            conn.closed();
        } else {
            conn.json(r#"{"id": "a"}"#);
        }
    });
    let app = pair.app(remote(&adviser), vec![]);
    let fields = "host: x\r\nx-pilotfish-explain: 1\r\n";
    let request = post(PATH, BODY).replacen("host: x\r\n", fields, 1);
    let (mut first, mut second) = (app.connect(), app.connect());
    first.write(request.as_bytes());
    eventually("a question", || adviser.asked() == 1);
    second.write(request.as_bytes());
    drop(first);
    assert_eq!(pair.block(&second.answer().unwrap()), "a");
    assert_eq!(adviser.asked(), 2);
}

#[test]
fn connections_to_it_are_kept() {
    let pair = Pair::new();
    let adviser = Adviser::saying(r#"{"id": "a"}"#);
    let mut policy = remote(&adviser);
    policy["ttl"] = json!(0.001);
    let app = pair.app(policy, vec![]);
    let deadline = Instant::now() + PATIENCE;
    while adviser.asked() < 3 && Instant::now() < deadline {
        assert_eq!(pair.block(&ask(&app, "")), "a");
    }
    assert!(adviser.asked() >= 3);
    assert_eq!(adviser.engine.connections(), 1);
}

#[test]
fn connections_that_it_closes_are_made_anew() {
    let pair = Pair::new();
    let adviser = Adviser::new(|conn| {
        conn.json(r#"{"id": "a"}"#);
        conn.stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let mut policy = remote(&adviser);
    policy["ttl"] = json!(0.001);
    let app = pair.app(policy, vec![]);
    eventually("some questions", || {
        assert_eq!(pair.block(&ask(&app, "")), "a");
        adviser.asked() >= 10
    });
}

#[test]
fn a_language_model_chooses() {
    let pair = Pair::new();
    for answer in [
        said("I thought about it.\n```json\n{\"containerImage\": \"image/0:1\"}\n```"),
        json!({"reply": "{\"id\": \"a\"}"}).to_string(),
        json!({"reply": "It is\na"}).to_string(),
    ] {
        let adviser = Adviser::saying(&answer);
        let app = pair.app(llm(&adviser), vec![]);
        let got = ask(&app, "");
        assert_eq!(pair.block(&got), "a", "{answer}");
        assert_eq!(advice(&app, &got), json!({"ranked": ["a"]}));
        let question = adviser.last();
        assert!(question.head.starts_with("POST /v1/chat/completions "));
        assert_eq!(question.field("authorization"), None, "not one of ours");
        let asked: Value = serde_json::from_slice(&question.body).unwrap();
        assert_eq!(
            (&asked["model"], &asked["temperature"]),
            (&json!("judge"), &json!(0))
        );
        let prompt = asked["messages"][0]["content"].as_str().unwrap();
        for word in [
            "a friendly chat",
            "image/1:1",
            r#""usecase":"chat-completion""#,
        ] {
            assert!(prompt.contains(word), "{word}: {prompt}");
        }
        assert!(
            !prompt.contains("a secret") && !prompt.contains("gold"),
            "{prompt}"
        );
    }
}

#[test]
fn the_model_may_be_one_of_ours() {
    let pair = Pair::new();
    let adviser = Adviser::saying(&said(r#"{"id": "a"}"#));
    let judge = json!({"url": adviser.engine.url(), "models": ["judging-7b"], "block": "judge"});
    for block in ["judge", "judging-7b"] {
        let policy = json!({
            "type": "llm", "block": block, "deadline": 10, "query_string": "chat",
            "filter": {"variable": "id", "operator": "!=", "value": "judge"},
        });
        let app = pair.app(policy, vec![judge.clone()]);
        assert_eq!(pair.block(&ask(&app, "")), "a");
        let question = adviser.last();
        let bearer = question.field("authorization");
        assert_eq!(bearer.as_deref(), Some("Bearer key-of-engines"));
        let asked: Value = serde_json::from_slice(&question.body).unwrap();
        assert_eq!(asked["model"], "judging-7b");
        app.settled();
        let sent = format!(
            "pilotfish_requests_total{{model=\"judging-7b\",engine=\"{}\"",
            adviser.engine.url()
        );
        let page = app.get("/metrics").text();
        assert!(!page.contains(&sent), "it is no client's request");
    }
    let policy = json!({"type": "llm", "block": "none", "query_string": "chat"});
    let app = pair.app(policy, vec![]);
    let answer = ask(&app, "");
    assert_eq!(pair.block(&answer), "b");
    let why = advice(&app, &answer).to_string();
    assert!(
        why.contains("LLM block ID and server address are required"),
        "{why}"
    );
    let policy = json!({"type": "llm", "block": "judge"});
    let app = pair.app(policy, vec![judge]);
    let why = advice(&app, &ask(&app, ""));
    assert_eq!(why, json!({"failed": "Query string is required"}));
}

#[test]
fn a_model_of_ours_that_is_gone_is_nobodys_fault_for_long() {
    let pair = Pair::new();
    let gone = RawEngine::echo().url();
    let judge = json!({"url": gone, "models": ["judge"]});
    let policy = json!({"type": "llm", "block": "judge", "deadline": 10, "query_string": "chat"});
    let app = pair.app(policy, vec![judge]);
    let began = Instant::now();
    let answer = ask(&app, "");
    assert_eq!(pair.block(&answer), "b");
    assert!(began.elapsed() < Duration::from_secs(10));
    let why = advice(&app, &answer).to_string();
    assert!(why.contains("could not reach the engine"), "{why}");
    app.settled();
}
