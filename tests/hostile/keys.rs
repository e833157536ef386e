//! E1, case 8: who may not call, with keys that are wrong in every way.

use std::time::Duration;

use crate::harness::Witness;
use crate::support::{Answer, Folder, TestApp, post};

const KEY: &str = "sk-hostile-0123456789";
/// Its SHA-256.
const HASH: &str = "e051a01cfa3d589f9b9cdb1b54ff36801adfa9a7f10c8c1768a546e1baae0d7b";

fn stage(name: &str) -> (Witness, Folder, TestApp) {
    let witness = Witness::start();
    let folder = Folder::new(name);
    let (keys, dynamic) = (folder.path("keys.json"), folder.path("dynamic.json"));
    let known = serde_json::json!({"keys": [{"name": "known", "sha256": HASH}]});
    std::fs::write(&keys, known.to_string()).unwrap();
    let file = serde_json::json!({
        "service_discovery": "static",
        "routing_logic": "roundrobin",
        "engines": [{"url": witness.url(), "models": ["m"]}],
        "timeouts": {"client_body_idle": "300ms"},
    });
    std::fs::write(&dynamic, file.to_string()).unwrap();
    let [keys, dynamic] = [keys, dynamic].map(|path| path.to_str().unwrap().to_owned());
    let app = TestApp::from_flags(&["--api-keys", &keys, "--dynamic-config-json", &dynamic]);
    (witness, folder, app)
}

fn ask(app: &TestApp, fields: &[u8]) -> Answer {
    let request = post("/v1/completions", r#"{"model":"m"}"#).into_bytes();
    let at = b"POST /v1/completions HTTP/1.1\r\n".len();
    let mut client = app.connect();
    client.write(&[&request[..at], fields, &request[at..]].concat());
    client.answer().expect("an answer")
}

#[test]
fn whoever_has_no_key_gets_the_same_answer_and_no_engine_hears_of_it() {
    let (witness, _folder, app) = stage("hostile-keys");
    let long = format!("authorization: Bearer {}\r\n", "k".repeat(10 << 10));
    let near = format!("authorization: Bearer {}\r\n", &KEY[..KEY.len() - 1]);
    let more = format!("authorization: Bearer {KEY}x\r\n");
    let twice = format!("authorization: Bearer {KEY}\r\nauthorization: Bearer {KEY}\r\n");
    let basic = format!("authorization: Basic {KEY}\r\n");
    let list = format!("authorization: Bearer {KEY}, Bearer x\r\n");
    let hash = format!("authorization: Bearer {HASH}\r\n");
    let rows: [(&str, &[u8]); 12] = [
        ("none", b""),
        ("empty", b"authorization: \r\n"),
        ("no key", b"authorization: Bearer\r\n"),
        ("another", b"authorization: Bearer nobody\r\n"),
        ("one letter less", near.as_bytes()),
        ("one letter more", more.as_bytes()),
        ("10 KB", long.as_bytes()),
        ("no UTF-8", b"authorization: Bearer \xff\xfe\x80\r\n"),
        ("twice", twice.as_bytes()),
        ("another scheme", basic.as_bytes()),
        ("a list", list.as_bytes()),
        ("its hash", hash.as_bytes()),
    ];
    let mut bodies = Vec::new();
    for (name, fields) in rows {
        let answer = ask(&app, fields);
        assert_eq!(answer.status, 401, "{name}: {}", answer.text());
        answer.assert_error(401, "invalid_api_key");
        assert!(answer.field("www-authenticate").is_some(), "{name}");
        assert!(!answer.text().contains(KEY), "{name}");
        bodies.push(answer.text());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:#?}");
    assert!(witness.met().is_empty());
    let good = ask(&app, format!("authorization: Bearer {KEY}\r\n").as_bytes());
    assert_eq!(good.status, 200, "{}", good.text());
    let head = witness.met().pop().unwrap().head;
    assert!(
        !head.contains(KEY) && !head.contains("authorization"),
        "{head}"
    );
}

#[test]
fn a_body_is_not_waited_for_without_a_key() {
    let (witness, _folder, app) = stage("hostile-keys-body");
    // The body never comes, nor is it asked for.
    for (kind, expect) in [
        ("application/json", "expect: 100-continue\r\n"),
        ("audio/wav", "expect: 100-continue\r\n"),
        ("application/json", ""),
        ("audio/wav", ""),
    ] {
        let mut client = app.connect();
        client
            .stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client.write(
            format!(
                "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n\
                 content-length: 900000000\r\n{expect}\r\n"
            )
            .as_bytes(),
        );
        let answer = client.answer().unwrap();
        assert_eq!(answer.status, 401, "{kind}, {expect}: no 100, no 408");
        // Bytes that come all the same are taken within bounds, then it ends.
        let junk = vec![b'x'; 64 << 10];
        let mut sent = 0;
        while std::io::Write::write_all(&mut client.stream, &junk).is_ok() {
            sent += junk.len();
            assert!(sent < 64 << 20, "{kind}: {sent} bytes are taken in vain");
        }
    }
    assert!(witness.met().is_empty());
}
