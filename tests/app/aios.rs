//! docs/aios.md as its reader takes it: the file of `config/` before simulated
//! engines, and each command of the document with its answer.

use std::path::Path;
use std::process::Command;

use crate::support::{Client, Folder, TestApp, eventually, post};
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use serde_json::Value;

/// Engines and their models, in the order of config/aios.yaml.
const MODELS: [&str; 4] = ["chat-large", "chat-large", "chat-small", "vision"];

struct Rig {
    app: TestApp,
    sims: Vec<SimEngine>,
}

impl Rig {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut file = std::fs::read_to_string(root.join("config/aios.yaml")).unwrap();
        let sim = |model| SimEngine::start(SimConfig::new(model, Speed::instant())).unwrap();
        let mut sims: Vec<SimEngine> = MODELS.into_iter().map(sim).collect();
        // Instances are shown in the order of their URLs.
        if sims[0].url() > sims[1].url() {
            sims.swap(0, 1);
        }
        for (n, sim) in sims.iter().enumerate() {
            let url = format!("http://10.0.0.{}:8000", n + 1);
            assert!(file.contains(&url), "{url}");
            file = file.replace(&url, &sim.url());
        }
        let folder = Folder::new(name);
        let path = folder.path("aios.yaml");
        std::fs::write(&path, file).unwrap();
        let app = TestApp::from_flags(&[
            "--admin-port=0",
            "--engine-stats-interval=0.05",
            "--dynamic-config-yaml",
            path.to_str().unwrap(),
        ]);
        Self { app, sims }
    }

    /// Has every engine generate until it tells how fast it is.
    fn warm(&self) {
        eventually("every engine has told its speed", || {
            for (sim, model) in self.sims.iter().zip(MODELS) {
                let body = format!(
                    r#"{{"model":"{model}","max_tokens":64,"messages":[{{"role":"user","content":"hi"}}]}}"#
                );
                let mut client = Client::connect(sim.address);
                client.write(post("/v1/chat/completions", &body).as_bytes());
                assert_eq!(client.answer().unwrap().status, 200);
            }
            let page = self.app.get("/engines").json();
            let speed = |one: &Value| one["attributes"]["llm_tokens_per_second"].as_f64();
            let mut all = page.as_array().unwrap().iter();
            all.all(|one| speed(one).is_some_and(|speed| speed > 10.0))
        });
        eventually("all are idle, and have told so", || {
            let page = self.app.get("/engines").json();
            let mut all = page.as_array().unwrap().iter();
            all.all(|one| one["attributes"]["requests_running"] == 0.0)
        });
    }

    /// The status of a command, and what it prints.
    fn run(&self, words: &[String]) -> (u16, String) {
        let ours = |word: &String| {
            word.replace("localhost:8001", &self.app.address.to_string())
                .replace("localhost:9001", &self.app.admin().to_string())
        };
        let words: Vec<String> = words[1..].iter().map(ours).collect();
        let curl = Command::new("curl")
            .args(["-sS", "--max-time", "20", "-w", "\n%{http_code}"])
            .args(&words)
            .output();
        // Where there is no curl, its words are understood here.
        let Ok(output) = curl else {
            return by_hand(&words);
        };
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{words:?}: {told}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

/// Does what curl would do with these words.
fn by_hand(words: &[String]) -> (u16, String) {
    let (mut method, mut fields, mut body, mut url) = ("GET", String::new(), "", "");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-X" => method = words.next().unwrap(),
            "-H" => fields += &format!("{}\r\n", words.next().unwrap()),
            "-d" => (method, body) = ("POST", words.next().unwrap()),
            known => url = known,
        }
    }
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut client = Client::connect(host.parse().unwrap());
    let length = body.len();
    client.write(
        format!(
            "{method} /{path} HTTP/1.1\r\nhost: x\r\n{fields}content-length: {length}\r\n\r\n{body}"
        )
        .as_bytes(),
    );
    let answer = client.answer().unwrap();
    (answer.status, answer.text())
}

/// The words of a command as a shell takes them: quotes, and lines that go on.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let command = command.replace("\\\n", " ");
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            }
            (_, c) => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Each command of the document, with the answer that is shown below it.
fn commands() -> Vec<(String, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/aios.md")).unwrap();
    let mut blocks = text.split("```").skip(1).step_by(2);
    let mut all = Vec::new();
    while let Some(block) = blocks.next() {
        if let Some(command) = block.strip_prefix("sh\n") {
            let answer = blocks.next().unwrap();
            let answer = answer.strip_prefix("json\n").expect(command);
            let answer = serde_json::from_str(answer).expect(answer);
            all.push((command.to_owned(), answer));
        }
    }
    all
}

/// Whether all that is shown is there: of objects the keys, of lists all items,
/// or the first ones if the last that is shown is `"..."`; that is also any value.
fn shows(shown: &Value, there: &Value) -> bool {
    match (shown, there) {
        (Value::String(text), there) if text == "..." => !there.is_null(),
        (Value::Object(shown), Value::Object(there)) => (shown.iter())
            .all(|(key, value)| there.get(key).is_some_and(|there| shows(value, there))),
        (Value::Array(shown), Value::Array(there)) => {
            let goes_on = shown.len() > 1 && shown.last().is_some_and(|last| last == "...");
            let shown = &shown[..shown.len() - usize::from(goes_on)];
            let fits = shown.len() == there.len() || goes_on && shown.len() <= there.len();
            fits && shown.iter().zip(there).all(|(a, b)| shows(a, b))
        }
        (shown, there) => shown == there,
    }
}

/// The status that an answer has: an error's code says which.
fn status_of(shown: &Value) -> u16 {
    let Some(error) = shown.get("error") else {
        return 200;
    };
    match error["code"].as_str() {
        Some("invalid_selection" | "invalid_value" | "invalid_header") => 400,
        Some("no_match" | "policy_not_found" | "model_not_found") => 404,
        Some("no_match_now") => 503,
        code => panic!("which status has {code:?}?"),
    }
}

#[test]
fn every_command_of_the_document_does_what_it_shows() {
    let commands = commands();
    assert!(commands.len() >= 15, "{}", commands.len());
    let rig = Rig::new("aios");
    rig.warm();
    let mut wrong = String::new();
    for (command, shown) in &commands {
        let (status, body) = rig.run(&words(command));
        let there: Value = serde_json::from_str(&body).expect(&body);
        if status != status_of(shown) || !shows(shown, &there) {
            wrong += &format!("{command}gives {status}\n{there:#}\n\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_is_understood_by_hand_is_what_curl_does() {
    let rig = Rig::new("aios-by-hand");
    let command = "curl http://localhost:8001/api/filter -H 'x: y' \\\n  -d '{\"filter\": 1}'";
    let words = words(command);
    assert_eq!(words.len(), 6);
    assert_eq!(words[5], "{\"filter\": 1}");
    let address = rig.app.address.to_string();
    let replaced: Vec<String> = words[1..]
        .iter()
        .map(|word| word.replace("localhost:8001", &address))
        .collect();
    let (status, body) = by_hand(&replaced);
    assert_eq!((status, body), rig.run(&words));
    assert_eq!(status, 400);
}
