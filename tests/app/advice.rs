//! Policies that ask others whom to choose: what is sent to them, what comes of
//! what they say, and that nobody else is kept waiting by them.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::http2::{self, with_h2};
use crate::support::engine::{Conn, RawEngine, Seen};
use crate::support::{Answer, Client, Folder, PATIENCE, TestApp, eventually, post};
use pilotfish::config::auth::{KeptSecret, Secret};
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

    /// What the file has whose requests that policy places.
    fn keys(&self, policy: Value, more: Vec<Value>) -> Value {
        let mut policy = policy;
        policy["goals"] = json!([{"attribute": "quality", "direction": "max"}]);
        json!({
            "service_discovery": "static", "routing_logic": "matcher",
            "request_headers": {"allow": ["explain", "policy", "engine", "timeout-ms", "select"]},
            "policies": {"matcher": policy, "plain": {"type": "roundrobin"}},
            "engines": ([self.entries(), more].concat()),
        })
    }

    /// An app of one worker whose requests that policy places.
    fn app(&self, policy: Value, more: Vec<Value>) -> TestApp {
        let keys = self.keys(policy, more);
        let settings = resolve(&serde_json::from_value(keys).unwrap());
        TestApp::with(&[], |config| {
            config.settings = settings.unwrap().settings;
            config.workers = 1;
            config.admin = Some("127.0.0.1:0".parse().unwrap());
            config.auth.engine_key = Some(KeptSecret {
                first: Secret::new("key-of-engines").unwrap(),
                file: None,
            });
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

/// How many requests were advised, by what was said just now and before, how many
/// had no answer in time, and how many had none.
fn came(app: &TestApp) -> [f64; 4] {
    ["advised", "kept", "late", "failed"].map(|outcome| {
        let labels = format!(r#"policy="matcher",outcome="{outcome}""#);
        app.metric(&format!("pilotfish_advice_total{{{labels}}}"))
    })
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
    let encoding = question.field("accept-encoding");
    assert_eq!(encoding.as_deref(), Some("identity"));
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
    assert_eq!(came(&app), [1.0, 2.0, 0.0, 0.0]);
    let plain = r#"pilotfish_advice_total{policy="plain""#;
    assert!(
        !app.get("/metrics").text().contains(plain),
        "it asks nobody"
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

const FAULTS: [Case; 10] = [
    (
        "packed",
        |conn| {
            conn.write(
                "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 10\r\n\r\n{\"id\":\"a\"}",
            );
        },
        ["compressed", "compressed"],
    ),
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

/// A matcher that never answers, asked with so much time.
fn hanging(deadline: f64) -> (Adviser, Value) {
    let hanging = Adviser::new(|conn| drop(conn.closed()));
    let policy = json!({"type": "remote", "url": hanging.engine.url(), "deadline": deadline});
    (hanging, policy)
}

#[test]
fn a_request_that_has_less_time_is_told_when_it_is_up() {
    let pair = Pair::new();
    let (matcher, policy) = hanging(10.0);
    let app = pair.app(policy, vec![]);
    let hurry = "x-pilotfish-timeout-ms: 200\r\n";
    let began = Instant::now();
    ask(&app, hurry).assert_error(504, "deadline_exceeded");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((matcher.asked(), came(&app)), (1, [0.0, 0.0, 1.0, 0.0]));
    // Who waits for what another asked, and a block that is still to be chosen.
    let mut first = app.connect();
    first.write(post(PATH, BODY).as_bytes());
    eventually("a question", || matcher.asked() == 2);
    ask(&app, hurry).assert_error(504, "deadline_exceeded");
    assert_eq!(matcher.asked(), 2, "the end of one is not that of all");
    let open = BODY.replace(r#""m""#, r#""auto""#);
    ask_for(&app, hurry, &open).assert_error(504, "deadline_exceeded");
    with_h2(&app, async |send| {
        let mut send = send.ready().await.unwrap();
        let mut request = http2::post(BODY);
        let fields = request.headers_mut();
        fields.insert("x-pilotfish-timeout-ms", "200".parse().unwrap());
        let (answer, mut upload) = send.send_request(request, false).unwrap();
        upload.send_data(BODY.into(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 504);
    });
}

#[test]
fn clients_in_a_hurry_do_not_wait_for_ever() {
    let pair = Pair::new();
    let (_matcher, policy) = hanging(0.6);
    let app = pair.app(policy, vec![]);
    eventually("the score decides", || {
        let answer = ask(&app, "x-pilotfish-timeout-ms: 150\r\n");
        if answer.status == 504 {
            return false;
        }
        assert_eq!(pair.block(&answer), "b");
        let why = advice(&app, &answer).to_string();
        assert!(why.contains("no answer within"), "{why}");
        true
    });
}

#[test]
fn who_is_dead_costs_one_deadline_whatever_is_asked() {
    let pair = Pair::new();
    let (matcher, policy) = hanging(0.3);
    let app = pair.app(policy, vec![]);
    let began = Instant::now();
    for n in 0..8 {
        let body = BODY.replace(":2,", &format!(":{},", 1 << n));
        assert_eq!(pair.block(&ask_for(&app, "", &body)), "b");
    }
    let asked = u32::try_from(matcher.asked()).unwrap();
    let most = 1 + u32::try_from(began.elapsed().as_secs()).unwrap();
    assert!((1..=most).contains(&asked), "{asked}");
    let [advised, kept, late, failed] = came(&app);
    assert_eq!((advised, kept, late + failed), (0.0, 0.0, 8.0));
    assert!((1.0..=f64::from(most)).contains(&late), "{late}");
}

#[test]
fn advice_is_asked_anew_when_what_is_told_has_changed() {
    let pair = Pair::new();
    let adviser = Adviser::saying(r#"{"id": "a"}"#);
    let mut policy = remote(&adviser);
    policy["ttl"] = json!(3000);
    let folder = Folder::new("advice-changes");
    let file = folder.path("dynamic.json");
    let write = |keys: &Value| {
        let new = folder.path("new.json");
        std::fs::write(&new, keys.to_string()).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    let mut keys = pair.keys(policy, vec![]);
    write(&keys);
    let app = TestApp::from_flags(&[
        "--workers=1",
        "--dynamic-config-json",
        file.to_str().unwrap(),
    ]);
    // More than one may be known at the start, until the engines are learned of.
    let settled = |told: &dyn Fn(&Value) -> bool| {
        eventually("it is told", || {
            assert_eq!(ask(&app, "").status, 200);
            told(&serde_json::from_slice(&adviser.last().body).unwrap())
        });
        let asked = adviser.asked();
        for _ in 0..3 {
            assert_eq!(pair.block(&ask(&app, "")), "a");
        }
        assert_eq!(adviser.asked(), asked, "it holds");
    };
    settled(&|told| told["candidates"][0]["id"] == "b");
    // Other goals: the worst is now the best.
    keys["policies"]["matcher"]["goals"] = json!([{"attribute": "quality", "direction": "min"}]);
    write(&keys);
    settled(&|told| told["candidates"][0]["id"] == "a");
    keys["engines"][0]["labels"]["tier"] = json!("iron");
    write(&keys);
    settled(&|told| told["candidates"][0]["labels"]["tier"] == "iron");
}

/// The reference's envelope, with these parameters of a policy.
fn selection(policy: &str, parameters: &Value) -> Value {
    json!({"body": {"values": {"rankingPolicyRule": {"values": {
        "policyRuleURI": policy, "parameters": parameters}}}}})
}

fn selecting(policy: &str, parameters: &Value) -> String {
    let mut body: Value = serde_json::from_str(BODY).unwrap();
    body["model"] = json!("auto");
    body["selection_query"] = selection(policy, parameters);
    body.to_string()
}

#[test]
fn what_a_request_says_to_the_policy_reaches_the_matcher() {
    let pair = Pair::new();
    let adviser = Adviser::saying(r#"{"ids": ["a"]}"#);
    let app = pair.app(remote(&adviser), vec![]);
    for tone in ["warm", "cold"] {
        let parameters = json!({"tone": tone, "query_string": "a chat"});
        let answer = ask_for(&app, "", &selecting("matcher", &parameters));
        assert_eq!(pair.block(&answer), "a");
        let told: Value = serde_json::from_slice(&adviser.last().body).unwrap();
        assert_eq!(told["parameters"], parameters);
        assert_eq!(told["context"]["model"], "auto");
    }
    assert_eq!(adviser.asked(), 2);

    let judge = Adviser::saying(&said(r#"{"id": "a"}"#));
    let app = pair.app(llm(&judge), vec![]);
    let long = format!("{}END", "é".repeat(4 << 10));
    for (query, word) in [("something brisk", "something brisk"), (&long, "é")] {
        let parameters = json!({"query_string": query});
        let answer = ask_for(&app, "", &selecting("matcher", &parameters));
        assert_eq!(pair.block(&answer), "a");
        let asked: Value = serde_json::from_slice(&judge.last().body).unwrap();
        let prompt = asked["messages"][0]["content"].as_str().unwrap();
        assert!(prompt.contains(word) && !prompt.contains("END"), "{prompt}");
        assert!(!prompt.contains("a friendly chat"), "{prompt}");
        assert!(prompt.matches('é').count() <= 2 << 10, "no more than 4 KiB");
    }
    // Nobody has a block asked that no policy asks.
    let parameters = json!({"query_string": "a chat", "llm_block_id": "a"});
    let answer = ask_for(&app, "", &selecting("matcher", &parameters));
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("llm_block_id"), "{}", answer.text());
}

#[test]
fn a_search_takes_what_a_matcher_says() {
    let pair = Pair::new();
    let adviser = Adviser::saying(r#"{"id": "a"}"#);
    let app = pair.app(remote(&adviser), vec![]);
    let query = selection("matcher", &json!({"tone": "warm"})).to_string();
    for path in ["/api/search", "/api/search?explain=1"] {
        let answer = app.send(&post(path, &query));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page = answer.json();
        assert_eq!(page["result"][1]["id"], "a", "{page}");
        assert_eq!(page["warnings"], Value::Null);
    }
    assert_eq!(adviser.asked(), 1, "it holds for a while");
    let told: Value = serde_json::from_slice(&adviser.last().body).unwrap();
    assert_eq!(told["parameters"], json!({"tone": "warm"}));
    assert_eq!(told["context"]["path"], "/api/search");
    assert_eq!(came(&app), [1.0, 1.0, 0.0, 0.0]);
}
