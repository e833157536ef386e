//! Engines' answers to the letter: how their ends are found, what of their heads
//! stays behind, and when their connections serve again. `docs/http.md` names
//! these tests beside the rules.

use crate::support::TestApp;
use crate::support::engine::RawEngine;

#[test]
fn an_engine_that_tells_when_it_closes_is_not_reused_later() {
    for (told, reuses) in [("timeout=60", 4), ("timeout=1", 0), ("timeout=0, max=9", 0)] {
        let engine = RawEngine::answering(&format!(
            "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nkeep-alive: {told}\r\ncontent-length: 2\r\n\r\n{{}}"
        ));
        let app = TestApp::new(&[engine.url()]);
        for _ in 0..5 {
            let answer = app.get("/v1/x");
            assert_eq!(answer.status, 200);
            assert_eq!(answer.field("keep-alive"), None);
        }
        assert_eq!(
            app.metric("pilotfish_upstream_reuses_total") as u64,
            reuses,
            "{told}"
        );
    }
}

/// What a client sees of an engine's answer, and whether its link serves again.
struct Relayed {
    engine: &'static str,
    status: u16,
    reuses: u64,
}

const fn relayed(engine: &'static str, reuses: u64) -> Relayed {
    Relayed {
        engine,
        status: 200,
        reuses,
    }
}

/// An answer that is no answer.
const fn broken(engine: &'static str) -> Relayed {
    Relayed {
        engine,
        status: 502,
        reuses: 0,
    }
}

/// Fields and bodies; where there is one end, what comes before it is `hello`.
const ANSWERS: [Relayed; 14] = [
    relayed("content-length: 5\r\ncontent-length: 5\r\n\r\nhello", 1),
    relayed("content-length: 5, 5\r\n\r\nhello", 1),
    relayed(
        "transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        1,
    ),
    relayed(
        "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
        1,
    ),
    relayed(
        "content-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        0,
    ),
    relayed("content-length: 5\r\nconnection: close\r\n\r\nhello", 0),
    broken("transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    broken("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    broken("transfer-encoding: identity\r\ncontent-length: 2\r\n\r\nhi"),
    broken("content-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
    broken("content-length: 5, 6\r\n\r\nhello"),
    broken("content-length: -1\r\n\r\n"),
    broken("x: y\r\n folded\r\ncontent-length: 0\r\n\r\n"),
    broken("x: a\0b\r\ncontent-length: 0\r\n\r\n"),
];

#[test]
fn answers_have_one_end_or_are_none() {
    for Relayed {
        engine: fields,
        status,
        reuses,
    } in ANSWERS
    {
        let engine = RawEngine::answering(&format!("HTTP/1.1 200 OK\r\n{fields}"));
        let app = TestApp::with(&[(&engine.url(), "m")], |config| {
            config.settings.retry.attempts = 0;
        });
        for _ in 0..2 {
            let answer = app.get("/v1/x");
            assert_eq!(answer.status, status, "{fields}");
            if status == 200 {
                assert!(answer.whole && answer.text() == "hello", "{fields}");
                // Told anew where all of it came at once.
                let lengths = answer
                    .fields
                    .iter()
                    .filter(|(name, _)| name == "content-length");
                assert!(lengths.clone().count() <= 1, "{fields}");
                assert!(lengths.clone().all(|(_, length)| length == "5"), "{fields}");
            }
        }
        let reused = app.metric("pilotfish_upstream_reuses_total") as u64;
        assert_eq!(reused, reuses, "{fields}");
    }
}

#[test]
fn other_answers_that_are_none() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    let good = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for (answer, status) in [
        (format!("{}{good}", interim.repeat(16)), 200),
        (format!("{}{good}", interim.repeat(17)), 502),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            502,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n".to_owned(),
            502,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\nbody".to_owned(), 204),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n".to_owned(),
            304,
        ),
    ] {
        let engine = RawEngine::answering(&answer);
        let app = TestApp::with(&[(&engine.url(), "m")], |config| {
            config.settings.retry.attempts = 0
        });
        for _ in 0..2 {
            let mut client = app.connect();
            client.write(b"GET /v1/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let got = client.answer().unwrap();
            assert_eq!(got.status, status, "{answer}");
            assert!(client.rest().is_empty(), "{answer}");
        }
    }
}

#[test]
fn fields_of_one_hop_stay_there_both_ways() {
    let engine = RawEngine::answering(
        "HTTP/1.1 200 OK\r\nconnection: x-hop, keep-alive, content-type\r\nconnection: x-two\r\n\
         keep-alive: timeout=9\r\nx-hop: 1\r\nx-two: 2\r\nproxy-authenticate: Basic\r\n\
         proxy-connection: close\r\nupgrade: h2c\r\ntrailer: x\r\nx-end: 3\r\n\
         content-type: text/plain\r\nset-cookie: a\r\nset-cookie: b\r\ncontent-length: 2\r\n\r\nok",
    );
    let app = TestApp::new(&[engine.url()]);
    let answer = app.get("/v1/x");
    let names: Vec<&str> = answer
        .fields
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "content-length",
            "content-type",
            "date",
            "set-cookie",
            "set-cookie",
            "via",
            "x-end",
            "x-request-id"
        ]
    );
}
