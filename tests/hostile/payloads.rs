//! E4: bodies that make no sense, or are not what they seem.

use std::time::{Duration, Instant};

use crate::harness::{Blame, Conn, Outcomes, Row, Witness, app, row, run};
use crate::support::engine::RawEngine;
use crate::support::{TestApp, post};

use Blame::{Never, NoEffect};
use Conn::Kept;

const BAD_JSON: (&[u16], &str) = (&[400], "invalid_json");
const BAD_VALUE: (&[u16], &str) = (&[400], "invalid_value");
const OK: (&[u16], &str) = (&[200], "");

fn stage() -> (Witness, TestApp) {
    let witness = Witness::start();
    let app = app(&witness.url(), |_| {});
    (witness, app)
}

fn chat(body: &str) -> String {
    post("/v1/chat/completions", body)
}

fn oddities() -> Vec<Row> {
    let of = |name, body: &str, answer: (&'static [u16], &'static str)| {
        let engine = if answer == OK { NoEffect } else { Never };
        row((27, name), chat(body), answer, (Kept, engine))
    };
    let with = |value: &str| format!(r#"{{"model":"m","x":{value}}}"#);
    let nested = |depth: usize| with(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(10_000));
    let mut rows = vec![
        of("nothing", "", BAD_JSON),
        of("no JSON", "nonsense", BAD_JSON),
        of("it breaks off", "{", BAD_JSON),
        of("within a text", r#"{"model":"m"#, BAD_JSON),
        of("something after it", r#"{"model":"m"} trailing"#, BAD_JSON),
        of("two of them", r#"{"model":"m"}{"model":"m"}"#, BAD_JSON),
        of("a list", "[1]", BAD_JSON),
        of("a text", "\"m\"", BAD_JSON),
        of("a comma too many", r#"{"model":"m",}"#, BAD_JSON),
        of("single quotes", "{'model':'m'}", BAD_JSON),
        of("a comment", r#"{"model":"m"/* */}"#, BAD_JSON),
        of("a byte order mark", "\u{feff}{\"model\":\"m\"}", BAD_JSON),
        of("NaN", &with("NaN"), BAD_JSON),
        of("infinity", &with("-Infinity"), BAD_JSON),
        of("a number with a zero first", &with("012"), BAD_JSON),
        of("a line break in a text", &with("\"a\nb\""), BAD_JSON),
        of("an escape that is none", &with(r#""\x41""#), BAD_JSON),
        of("10,000 levels", &nested(10_000), BAD_JSON),
        of("500 levels", &nested(500), OK),
        of("1e999999", &with("1e999999"), OK),
        of("a number of 5,000 digits", &with(&"9".repeat(5000)), OK),
        of("half of a surrogate pair", &with(r#""\ud800""#), OK),
        of("a key of NUL", r#"{"\u0000":1,"model":"m"}"#, OK),
        of("the model twice", r#"{"model":"m","model":"m"}"#, BAD_VALUE),
        of(
            "twice, once as escapes",
            r#"{"model":"m","\u006dodel":"n"}"#,
            BAD_VALUE,
        ),
        of(
            "stream twice",
            r#"{"stream":true,"model":"m","stream":false}"#,
            BAD_VALUE,
        ),
        of("no name at all", r#"{"model":""}"#, BAD_VALUE),
        of("any model", r#"{"model":"auto"}"#, BAD_VALUE),
        of("a name of 10 KB", &long, BAD_VALUE),
    ];
    let unclosed = chat(&with(&"[".repeat(100_000)));
    rows.push(row(
        (27, "100,000 levels, unclosed"),
        unclosed,
        BAD_JSON,
        (Conn::Either, Never),
    ));
    let mut bytes = chat(r#"{"model":"m?"}"#).into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xff;
    rows.push(row((27, "no UTF-8"), bytes, BAD_JSON, (Kept, Never)));
    rows
}

#[test]
fn a_body_is_json_or_refused_and_nobody_reads_it_differently() {
    let (witness, app) = stage();
    run(&app, Some(&witness), &oddities());
    let position = app.chat(r#"{"model":"m",}"#).text();
    assert!(position.contains("byte 13"), "{position}");
}

#[test]
fn what_is_read_takes_time_by_its_length_alone() {
    let (_witness, app) = stage();
    let time = |body: &str| {
        let since = Instant::now();
        assert!([200, 400].contains(&app.chat(body).status));
        since.elapsed().max(Duration::from_millis(20))
    };
    // Openings, escapes, keys: each a few megabytes of what is dear elsewhere.
    for piece in ["[", "{\"\":", "\"\\\\\",", "1e9,", "\\u0000"] {
        let of = |times: usize| {
            let pieces = piece.repeat(times);
            format!(r#"{{"model":"m","x":[{pieces}"#)
        };
        let (one, eight) = (time(&of(50_000)), time(&of(400_000)));
        assert!(eight < 40 * one, "{piece}: {one:?}, then {eight:?}");
    }
}

fn models() -> Vec<Row> {
    let of = |name, body: &str, answer| row((28, name), chat(body), answer, (Kept, Never));
    let missing = (&[400_u16] as &[u16], "missing_model");
    let unknown = (&[404_u16] as &[u16], "model_not_found");
    vec![
        of("none", "{}", missing),
        of("only deeper", r#"{"messages":[{"model":"m"}]}"#, missing),
        of("null", r#"{"model":null}"#, BAD_VALUE),
        of("a number", r#"{"model":7}"#, BAD_VALUE),
        of("a list", r#"{"model":["m"]}"#, BAD_VALUE),
        of("one that nobody serves", r#"{"model":"n"}"#, unknown),
        of("in capitals", r#"{"model":"M"}"#, unknown),
        of("a path", r#"{"model":"../m"}"#, unknown),
        of("a line break", r#"{"model":"m\r\nx: y"}"#, unknown),
        of("a quote", r#"{"model":"\"m"}"#, unknown),
    ]
}

#[test]
fn a_request_names_a_model_that_there_is() {
    let (witness, app) = stage();
    run(&app, Some(&witness), &models());
}

#[test]
fn what_is_compressed_is_not_taken_for_json() {
    let (witness, app) = stage();
    // The head of a gzip stream: what it would grow to is nobody's business.
    let bomb = "\u{1f}\u{0}\u{8}\u{0}";
    let rows: Vec<Row> = ["gzip", "zstd", "br", "deflate", "GZIP", "identity, gzip"]
        .into_iter()
        .map(|coding| {
            let field = format!("host: x\r\ncontent-encoding: {coding}");
            let request = chat(bomb).replacen("host: x", &field, 1);
            let refused = (&[415_u16] as &[u16], "unsupported_encoding");
            row(
                (29, "JSON that is compressed"),
                request,
                refused,
                (Kept, Never),
            )
        })
        .collect();
    run(&app, Some(&witness), &rows);
    // What is never parsed is passed on as it is.
    let field = "host: x\r\ncontent-encoding: gzip";
    let audio = chat(bomb).replacen("host: x", field, 1);
    let audio = audio.replace("application/json", "audio/wav");
    run(
        &app,
        Some(&witness),
        &[row((29, "what is not parsed"), audio, OK, (Kept, NoEffect))],
    );
    let met = witness.met().pop().unwrap();
    assert_eq!(met.body.as_deref(), Some(bomb.as_bytes()));
}

#[test]
fn what_engines_are_to_judge_is_theirs_and_so_are_their_words() {
    const WORDS: &str = "{\"detail\":  \"not like that\"}\n";
    let answer = format!(
        "HTTP/1.1 422 Unprocessable Entity\r\ncontent-type: application/json\r\nx-of-theirs: 1\r\n\
         content-length: {}\r\n\r\n{WORDS}",
        WORDS.len()
    );
    let engine = RawEngine::answering(&answer);
    let app = app(&engine.url(), |_| {});
    for value in [
        r#""stream":"yes""#,
        r#""stream":null"#,
        r#""n":100000000000"#,
        r#""max_tokens":-1"#,
        r#""max_tokens":1e400"#,
        r#""temperature":"hot""#,
        r#""messages":{}"#,
        r#""user":[1]"#,
    ] {
        let body = format!(r#"{{"model":"m",{value}}}"#);
        let answer = app.chat(&body);
        assert_eq!(answer.status, 422, "{value}: {}", answer.text());
        assert_eq!(answer.text(), WORDS, "{value}");
        assert_eq!(answer.field("x-of-theirs"), Some("1"));
    }
    app.settled();
    let outcomes = Outcomes::of(&app);
    assert_eq!((outcomes.success, outcomes.faults), (8, 0));
}
