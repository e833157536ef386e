//! E2: bodies where one might not look for them, and what may come after one.

use crate::harness::{Outcomes, SHORT, Witness, app};
use crate::support::TestApp;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
const CHUNKED: &str = "transfer-encoding: chunked\r\n";

fn stage() -> (Witness, TestApp) {
    let witness = Witness::start();
    let app = app(&witness.url(), |config| {
        config.settings.timeouts.client_body_idle = SHORT;
    });
    (witness, app)
}

/// A request with a body that names no model.
fn with(method: &str, fields: &str, body: &str) -> String {
    let head = format!("{method} /v1/x HTTP/1.1\r\nhost: x\r\ncontent-type: audio/wav\r\n");
    format!("{head}{fields}\r\n{body}")
}

#[test]
fn a_body_is_one_whatever_the_method() {
    let (witness, app) = stage();
    let size = SMUGGLED.len();
    let length = format!("content-length: {size}\r\n");
    let chunks = format!("{size:x}\r\n{SMUGGLED}\r\n0\r\n\r\n");
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        for (fields, body) in [(length.as_str(), SMUGGLED), (CHUNKED, chunks.as_str())] {
            let before = witness.met().len();
            let mut client = app.connect();
            client.write(with(method, fields, body).as_bytes());
            let answer = client.answer_to(method == "HEAD").unwrap();
            assert_eq!(answer.status, 200, "{method} {fields}");
            client.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
            assert_eq!(client.answer().unwrap().status, 200, "{method} {fields}");
            let met = witness.met().split_off(before);
            assert_eq!(met.len(), 1, "{method} {fields}: {met:?}");
            assert!(met[0].head.starts_with(&format!("{method} /v1/x ")));
            assert_eq!(met[0].body.as_deref(), Some(SMUGGLED.as_bytes()));
        }
    }
}

#[test]
fn a_length_that_is_said_twice_is_said_once() {
    let (witness, app) = stage();
    let fields = "content-length: 5\r\nContent-Length: 5\r\n";
    let answer = app.send(&with("POST", fields, "abcde"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let met = witness.met().pop().unwrap();
    let head = met.head.to_ascii_lowercase();
    assert_eq!(head.matches("content-length: 5\r\n").count(), 1, "{head}");
    assert_eq!(head.matches("content-length").count(), 1, "{head}");
    assert_eq!(met.body.as_deref(), Some(&b"abcde"[..]));
}

#[test]
fn an_end_that_is_none_is_waited_for() {
    let (witness, app) = stage();
    let mut client = app.connect();
    client.write(with("POST", CHUNKED, "5\r\nabcde\r\n0\r\n\n").as_bytes());
    let answer = client.answer().unwrap();
    answer.assert_error(408, "request_timeout");
    assert!(client.answer().is_none());
    app.settled();
    assert!(witness.met().iter().all(|met| met.body.is_none()));
    assert_eq!(Outcomes::of(&app).faults, 0);
}

#[test]
fn trailers_stop_here() {
    let (witness, app) = stage();
    let fields = format!("{CHUNKED}trailer: x-after, content-length\r\nte: trailers\r\n");
    let trailers = "x-after: 1\r\ncontent-length: 3\r\nhost: y\r\n";
    let body = format!("5\r\nabcde\r\n0\r\n{trailers}\r\n");
    let mut client = app.connect();
    // What the engine reads next is the next request.
    for sent in [
        with("POST", &fields, &body),
        with("POST", "content-length: 2\r\n", "ok"),
    ] {
        client.write(sent.as_bytes());
        assert_eq!(client.answer().unwrap().status, 200, "{sent}");
    }
    let met = witness.met();
    assert_eq!(met.len(), 2, "{met:?}");
    assert_eq!(met[0].body.as_deref(), Some(&b"abcde"[..]));
    let head = met[0].head.to_ascii_lowercase();
    for gone in ["x-after", "trailer", "host: y", "te: "] {
        assert!(!head.contains(&format!("\n{gone}")), "{gone} in {head}");
    }
    assert!(
        met[1].head.starts_with("POST /v1/x HTTP/1.1\r\n"),
        "{met:?}"
    );
}

#[test]
fn max_forwards_counts_nothing_down() {
    let (witness, app) = stage();
    for (method, status) in [("OPTIONS", 200), ("TRACE", 405)] {
        let head = format!("{method} /v1/x HTTP/1.1\r\nhost: x\r\nmax-forwards: 0\r\n\r\n");
        assert_eq!(app.send(&head).status, status, "{method}");
    }
    let met = witness.met();
    assert_eq!(met.len(), 1, "{met:?}");
    assert!(met[0].head.contains("max-forwards: 0\r\n"), "{met:?}");
}
