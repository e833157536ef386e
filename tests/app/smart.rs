//! Smart routing through the whole proxy: who gets a request, what is learned from
//! it, and what the shadow says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use serde_json::{Value, json};

use crate::support::{Answer, Client, Folder, TestApp, eventually, post};

/// Three models, what a million of their tokens cost, and how many of a hundred
/// answers are right: to sums, poems and proofs.
const MODELS: [(&str, f64, [u32; 3]); 3] = [
    ("small", 0.1, [96, 20, 4]),
    ("medium", 1.0, [97, 92, 20]),
    ("large", 10.0, [99, 95, 95]),
];
/// What queries are about.
const TOPICS: usize = 3;

fn query(topic: usize, number: u32) -> String {
    let (a, b) = (number % 89 + 10, number % 71 + 10);
    match topic {
        0 => format!("What is the sum of {a} and {b}? Add the two numbers."),
        1 => format!("Write a short poem of {a} words about the moon, the sea and {b} ships."),
        _ => format!(
            "Prove the theorem that every group of order {a} with {b} generators is abelian."
        ),
    }
}

/// Whether that model's answer is right.
fn is_right(model: &str, topic: usize, number: u32) -> bool {
    let (_, _, of_hundred) = MODELS.iter().find(|(name, ..)| *name == model).unwrap();
    // Prime to a hundred: each hundred numbers give each remainder once.
    number.wrapping_mul(7919) % 100 < of_hundred[topic]
}

/// History of so many queries about each topic.
fn history(queries: u32) -> String {
    let mut lines = String::new();
    for number in 0..queries {
        for topic in 0..TOPICS {
            let outputs = MODELS.map(|(model, ..)| {
                json!({"model_name": model, "correctness": is_right(model, topic, number), "output_token_length": 20})
            });
            let row = json!({"query": query(topic, number), "input_token_length": 20, "outputs": outputs});
            writeln!(lines, "{row}").unwrap();
        }
    }
    lines
}

/// An app before an engine of each model; `keys` go over the usual ones.
struct World {
    app: TestApp,
    folder: Folder,
    _engines: Vec<SimEngine>,
}

impl World {
    fn new(name: &str, history: &str, keys: &Value) -> Self {
        let folder = Folder::new(name);
        if !history.is_empty() {
            std::fs::create_dir_all(folder.path("state/smart")).unwrap();
            std::fs::write(folder.path("state/smart/history.jsonl"), history).unwrap();
        }
        let engines = MODELS
            .map(|(model, ..)| SimEngine::start(SimConfig::new(model, Speed::instant())).unwrap());
        let listed = engines
            .iter()
            .zip(MODELS)
            .map(|(engine, (model, price, _))| {
                json!({"url": engine.url(), "models": [model],
                   "cost": {"input_per_mtok": price, "output_per_mtok": 3.0 * price}})
            });
        let mut all = json!({
            "service_discovery": "static", "routing_logic": "smart",
            "engines": listed.collect::<Vec<_>>(),
        });
        all.as_object_mut()
            .unwrap()
            .extend(keys.as_object().unwrap().clone());
        std::fs::write(folder.path("dynamic.json"), all.to_string()).unwrap();
        let world = Self {
            app: start(&folder),
            folder,
            _engines: engines.into(),
        };
        if !history.is_empty() {
            let rows = f64::from(u32::try_from(history.lines().count()).unwrap());
            eventually("the history is learned", || {
                metric(&world.app, "pilotfish_smart_history_queries") == rows
            });
        }
        world
    }

    /// The same process again, on the same folder.
    fn restart(self) -> Self {
        let Self {
            app,
            folder,
            _engines,
        } = self;
        drop(app);
        Self {
            app: start(&folder),
            folder,
            _engines,
        }
    }

    fn ask(&self, fields: &str, model: &str, query: &str) -> Answer {
        let body = json!({"model": model, "max_tokens": 8, "messages": [
            {"role": "system", "content": "You are a poet who proves theorems about sums."},
            {"role": "user", "content": query},
        ]});
        let fields = format!("host: x\r\nx-pilotfish-explain: 1\r\n{fields}");
        let request = post("/v1/chat/completions", &body.to_string());
        let answer = self.app.send(&request.replacen("host: x\r\n", &fields, 1));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    /// The model that a query gets when all are allowed, and why.
    fn model(&self, query: &str) -> (String, String) {
        let answer = self.ask("", "auto", query);
        let told = |name: &str| answer.field(name).unwrap_or_default().to_owned();
        assert_eq!(answer.json()["model"], told("x-pilotfish-model"));
        (told("x-pilotfish-model"), told("x-pilotfish-model-choice"))
    }

    fn feedback(&self, body: &str) -> Answer {
        let mut client = Client::connect(self.app.admin());
        client.write(post("/v1/feedback", body).as_bytes());
        client.answer().unwrap()
    }
}

fn start(folder: &Folder) -> TestApp {
    TestApp::from_flags(&[
        "--admin-port=0",
        "--state-dir",
        folder.path("state").to_str().unwrap(),
        "--dynamic-config-json",
        folder.path("dynamic.json").to_str().unwrap(),
    ])
}

/// The sum of a family's series, or of those that begin like that.
fn metric(app: &TestApp, name: &str) -> f64 {
    let page = app.get("/metrics").text();
    let series = page.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ', ',']))
    });
    series
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

#[test]
fn the_cheapest_model_that_is_good_enough() {
    let world = World::new("smart-each", &history(100), &json!({}));
    for (topic, model) in ["small", "medium", "large"].iter().enumerate() {
        let (chosen, why) = world.model(&query(topic, 1234));
        assert_eq!(
            (chosen.as_str(), why.as_str()),
            (*model, "good_enough"),
            "{topic}"
        );
    }
    let poem = query(1, 1234);
    let chosen = |fields: &str, model: &str| {
        let answer = world.ask(fields, model, &poem);
        answer.json()["model"].as_str().unwrap().to_owned()
    };
    // Of those that the request allows, in each way that it can say so.
    assert_eq!(
        chosen("x-pilotfish-models: small, large\r\n", "small"),
        "large"
    );
    assert_eq!(chosen("", "small,medium,never"), "medium");
    assert_eq!(chosen("", "large"), "large");
    assert_eq!(chosen("x-pilotfish-models: small\r\n", "auto"), "small");
    let answer = world.ask("x-pilotfish-models: small\r\n", "auto", &poem);
    assert_eq!(answer.field("x-pilotfish-model-choice"), Some("only"));
    // Nobody is good enough: the best of them, and it says so.
    let answer = world.ask(
        "x-pilotfish-models: small, medium\r\n",
        "auto",
        &query(2, 1234),
    );
    assert_eq!(answer.json()["model"], "medium");
    assert_eq!(answer.field("x-pilotfish-model-choice"), Some("best"));

    let id = answer.field("x-pilotfish-decision").unwrap();
    let mut admin = Client::connect(world.app.admin());
    admin.write(format!("GET /debug/decisions/{id} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    let record = admin.answer().unwrap().json();
    let choice = &record["model_choice"];
    assert_eq!(
        (&choice["why"], &choice["model"]),
        (&json!("best"), &json!("medium"))
    );
    assert_eq!(choice["models"].as_array().unwrap().len(), 2);
    for model in choice["models"].as_array().unwrap() {
        let quality = model["quality"].as_f64().unwrap();
        assert!(
            quality < 0.7 && model["cost"].as_f64().unwrap() > 0.0,
            "{choice}"
        );
    }
    eventually("it is counted", || {
        metric(&world.app, "pilotfish_smart_choices_total") == 8.0
    });
}

#[test]
fn without_history_the_best_is_not_known_and_nothing_breaks() {
    let world = World::new("smart-new", "", &json!({}));
    let (chosen, why) = world.model("Anything at all?");
    assert_eq!((chosen.as_str(), why.as_str()), ("small", "best"));
    // What is no text has no like; what is large is bounded.
    for content in [
        json!([{"type": "image_url", "image_url": {"url": "data:,x"}}]),
        json!("word ".repeat(200_000)),
        json!(null),
        json!(""),
    ] {
        let body = json!({"model": "auto", "max_tokens": 2, "messages": [{"role": "user", "content": content}]});
        let answer = world
            .app
            .send(&post("/v1/chat/completions", &body.to_string()));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let embeddings = json!({"model": "auto", "input": [[1, 2], [3]]}).to_string();
    assert_eq!(
        world.app.send(&post("/v1/embeddings", &embeddings)).json()["model"],
        "small"
    );
    let never = json!({"model": "x,y", "messages": []}).to_string();
    world
        .app
        .send(&post("/v1/chat/completions", &never))
        .assert_error(404, "model_not_found");
}

#[test]
fn what_answers_were_worth_is_learned_and_outlives_the_process() {
    let keys = json!({"routing_logic": "cheap", "policies": {"cheap": {
        "type": "smart", "models": {"small": {}, "large": {}}}}});
    let mut world = World::new("smart-feedback", &history(10), &keys);
    let rows = metric(&world.app, "pilotfish_smart_history_queries");
    let answer = world.ask("", "auto", "A question that nobody ever asked, of turtles.");
    let id = answer.field("x-request-id").unwrap().to_owned();
    // Until the worker has told of it.
    let good = json!({"request_id": id, "score": 1}).to_string();
    eventually("its score is taken", || world.feedback(&good).status == 200);
    let again = world.feedback(&good);
    assert_eq!(again.status, 409, "{}", again.text());
    for (body, status) in [
        (r#"{"request_id":"never","score":true}"#, 404),
        (r#"{"request_id":"never","score":2}"#, 400),
        (r#"{"score":1}"#, 400),
        ("", 400),
    ] {
        let answer = world.feedback(body);
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let mut get = Client::connect(world.app.admin());
    get.write(b"GET /v1/feedback HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(get.answer().unwrap().status, 405);
    eventually("it is among the past queries", || {
        metric(&world.app, "pilotfish_smart_history_queries") == rows + 1.0
    });
    assert_eq!(metric(&world.app, "pilotfish_smart_feedback_total"), 1.0);
    for _ in 0..2 {
        world = world.restart();
        eventually("it is there again", || {
            metric(&world.app, "pilotfish_smart_history_queries") == rows + 1.0
        });
    }
    let log = std::fs::read_to_string(world.folder.path("state/smart/history.jsonl")).unwrap();
    assert!(log.lines().last().unwrap().contains("of turtles"), "{log}");
}

/// What queries are about, as they come: most are easy.
const MIX: [usize; 6] = [0, 1, 0, 2, 0, 1];
/// Queries of one stream.
const STREAM: u32 = 150;

/// A stream of queries that the history does not have; the share of right answers.
fn traffic(world: &World, fields: &str) -> f64 {
    let (mut right, mut models) = (0, BTreeMap::<String, u32>::new());
    for number in 0..STREAM {
        let topic = MIX[number as usize % MIX.len()];
        let answer = world.ask(fields, "auto", &query(topic, 1000 + number));
        let model = answer.json()["model"].as_str().unwrap().to_owned();
        right += u32::from(is_right(&model, topic, 1000 + number));
        *models.entry(model).or_default() += 1;
    }
    assert_eq!(models.len(), 3, "{models:?}");
    f64::from(right) / f64::from(STREAM)
}

#[test]
fn it_costs_less_at_equal_quality_and_the_shadow_said_so() {
    let keys = json!({
        "routing_logic": "turns", "shadow_policy": "cheap",
        "policies": {
            "turns": {"type": "sequential"}, "cheap": {"type": "smart"},
            "mean": {"type": "smart", "requirement_of": "average", "performance_requirement": 0.8},
        },
    });
    let world = World::new("smart-shadow", &history(100), &keys);
    let told = |name: &str, policy: &str| {
        let series = format!("{name}{{policy=\"{policy}\"}}");
        metric(&world.app, &series)
    };
    let all = f64::from(STREAM);

    // Each model in its turn, while the shadow looks on.
    let quality = traffic(&world, "");
    let shadow = |name: &str| told(&format!("pilotfish_shadow_{name}_total"), "cheap");
    eventually("the shadow has looked at all", || shadow("requests") == all);
    let (live, would) = (shadow("live_cost"), shadow("cost"));
    assert_eq!(shadow("priced_requests"), all);
    assert!(would < 0.7 * live, "{would} of {live}");

    // The same queries, as it would have chosen.
    let smart_quality = traffic(&world, "x-pilotfish-policy: cheap\r\n");
    assert!(smart_quality >= quality, "{smart_quality} and {quality}");
    let ended = |policy: &str| told("pilotfish_smart_priced_requests_total", policy) == all;
    eventually("all have been counted", || ended("cheap"));
    // What it decided itself is no news of it.
    let choices = metric(&world.app, "pilotfish_smart_choices_total{policy=\"cheap\"");
    assert_eq!((shadow("requests"), choices), (all, 2.0 * all));
    let cost = told("pilotfish_smart_cost_total", "cheap");
    // It cost what the shadow said, and was as good.
    assert!(
        (cost / would - 1.0).abs() < 0.03,
        "{cost}, the shadow: {would}"
    );
    let predicted = shadow("quality") / shadow("requests");
    assert!(
        (smart_quality - predicted).abs() < 0.06,
        "{smart_quality}: {predicted}"
    );

    // As good as each in its turn, on average, for less still.
    let mean_quality = traffic(&world, "x-pilotfish-policy: mean\r\n");
    assert!(
        mean_quality >= quality - 0.02,
        "{mean_quality} and {quality}"
    );
    eventually("all have been counted", || ended("mean"));
    let mean_cost = told("pilotfish_smart_cost_total", "mean");
    assert!(mean_cost < 0.5 * live, "{mean_cost} of {live}");
}

#[test]
fn who_is_full_is_not_chosen_while_others_have_room() {
    let limits = json!({"max_in_flight_per_model": 1, "queue_size": 8});
    let world = World::new("smart-full", &history(60), &json!({"limits": limits}));
    let sum = query(0, 1234);
    assert_eq!(world.model(&sum).0, "small");
    // It is busy as long as this one is read.
    let slow = json!({"model": "small", "stream": true, "max_tokens": 2_000_000,
        "messages": [{"role": "user", "content": "x"}]});
    let mut busy = world.app.connect();
    busy.write(post("/v1/chat/completions", &slow.to_string()).as_bytes());
    busy.until("data:");
    assert_eq!(world.model(&sum).0, "medium");
    drop(busy);
    eventually("it has room again", || world.model(&sum).0 == "small");
}

#[test]
fn the_shadow_comes_and_goes_by_reload() {
    let keys = json!({"routing_logic": "turns", "policies": {
        "turns": {"type": "sequential"}, "cheap": {"type": "smart"}}});
    let world = World::new("smart-eclipse", "", &keys);
    let file = world.folder.path("dynamic.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let looked_at = || metric(&world.app, "pilotfish_shadow_requests_total");
    let is_there = || {
        world
            .app
            .get("/metrics")
            .text()
            .contains("pilotfish_shadow_requests_total")
    };
    assert!(!is_there());
    let mut with: Value = serde_json::from_str(&text).unwrap();
    with["shadow_policy"] = json!("cheap");
    std::fs::write(&file, with.to_string()).unwrap();
    eventually("the shadow looks on", || {
        world.ask("", "auto", "x");
        looked_at() > 0.0
    });
    std::fs::write(&file, &text).unwrap();
    eventually("it is gone", || !is_there());
}

#[test]
fn a_reload_begins_it_and_models_have_their_own_policies() {
    let world = World::new("smart-reload", "", &json!({"routing_logic": "roundrobin"}));
    let id = world.feedback(r#"{"request_id":"x","score":1}"#);
    assert_eq!(id.status, 409, "{}", id.text());
    let file = world.folder.path("dynamic.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut keys: Value = serde_json::from_str(&text).unwrap();
    keys["policies"] = json!({"cheap": {"type": "smart", "requirement_of": "average", "models": {
        "small": {"strategy": "consistenthash", "cost_per_input_token": 1e-6, "cost_per_output_token": 1e-6},
        "medium": {"cost": {"input_per_mtok": 0.01, "output_per_mtok": 0.01}},
    }}});
    keys["routing_logic"] = json!("cheap");
    std::fs::write(&file, keys.to_string()).unwrap();
    let body =
        json!({"model": "auto", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]});
    let request = post("/v1/chat/completions", &body.to_string());
    eventually("the models are cheap's", || {
        let answer = world.app.send(&request);
        answer.status == 200 && answer.json()["model"] == "medium"
    });
    assert_eq!(
        world
            .ask("x-pilotfish-models: small,large\r\n", "auto", "x")
            .json()["model"],
        "small"
    );
    eventually("it is counted", || {
        metric(&world.app, "pilotfish_smart_choices_total") >= 2.0
    });
    assert!(metric(&world.app, "pilotfish_smart_lambda") >= 0.0);
}
