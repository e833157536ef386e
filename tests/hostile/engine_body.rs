//! E6: engines that fail in the midst of an answer's body, or make too much of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::harness::{Blame, Outcomes, Puppet, Then, app, impatient};
use crate::support::engine::RawEngine;
use crate::support::{Answer, eventually, post};

use Blame::{Fails, NoEffect};

const PLAIN: &str = r#"{"model":"m"}"#;
const STREAM: &str = r#"{"model":"m","stream":true}"#;
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
const BYTES: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n";
const CHUNKED: &str = "transfer-encoding: chunked\r\n\r\n";

/// What the client is to make of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is the answer's.
    Whole,
    /// It breaks off after an event that says so.
    Told,
    /// It breaks off.
    Cut,
}

/// Name, what the engine says, what it does then, the end, what is said of it.
type Said = (&'static str, String, Then, End, Blame);

fn play(list: Vec<Said>) {
    let puppet = Puppet::start();
    let is_late = list.iter().any(|(_, _, then, ..)| *then == Then::Hangs);
    let app = if is_late {
        impatient(&puppet.url(), |_| {})
    } else {
        app(&puppet.url(), |_| {})
    };
    let mut wrong = Vec::new();
    for (name, words, then, end, blame) in list {
        let before = Outcomes::of(&app);
        let is_stream = words.starts_with(EVENTS);
        puppet.says(words, then);
        let mut client = app.connect();
        let body = if is_stream { STREAM } else { PLAIN };
        client.write(post("/v1/chat/completions", body).as_bytes());
        let answer = client.answer().unwrap();
        if answer.status != 200 || ended(&answer) != end {
            wrong.push(format!("\n{name}: not {end:?}: {answer:?}"));
        }
        // A client of ours knows the end by its framing, and so does the next one.
        if end == End::Whole {
            client.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
            assert_eq!(client.answer().unwrap().status, 200, "{name}");
        } else {
            let rest = client.rest();
            assert!(rest.is_empty(), "{name}: {rest:?}");
        }
        app.settled();
        let failed = Outcomes::of(&app).faults - before.faults;
        if failed != u64::from(blame == Fails) {
            wrong.push(format!("\n{name}: {failed} faults, not {blame:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

fn ended(answer: &Answer) -> End {
    let text = String::from_utf8_lossy(&answer.body);
    let is_told = text.contains("engine_disconnected");
    assert!(
        !is_told || text.ends_with("\n\n") && !text.contains("\ndata: [DONE]\n"),
        "{text}"
    );
    match (answer.whole, is_told) {
        (true, _) => End::Whole,
        (false, true) => End::Told,
        (false, false) => End::Cut,
    }
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole() {
    let event = chunk("data: 1\n\n");
    let half = chunk("data: 1\n\ndata: {\"a");
    let stream = |words: &str| format!("{EVENTS}{CHUNKED}{words}");
    let plain = |words: &str| format!("{BYTES}{CHUNKED}{words}");
    let long = format!("{BYTES}content-length: 100\r\n\r\nabcde");
    let open = format!("{BYTES}connection: close\r\n\r\nabcde");
    let mut list = Vec::new();
    for (then, how) in [(Then::Closes, "closed"), (Then::Resets, "reset")] {
        let of = |name: &str, words: &str, end| {
            let name: &'static str = format!("{name}, {how}").leak();
            (name, words.to_owned(), then, end, Fails)
        };
        list.extend([
            of("events, at a boundary", &stream(&event), End::Told),
            of("events, within one", &stream(&half), End::Cut),
            of(
                "events, within a chunk",
                &stream("20\r\ndata: 1\n\nda"),
                End::Cut,
            ),
            of("chunks", &plain("5\r\nabcde\r\n"), End::Cut),
            of("within a chunk", &plain("5\r\nabc"), End::Cut),
            of(
                "before the last CRLF",
                &plain("5\r\nabcde\r\n0\r\n"),
                End::Cut,
            ),
            of("less than its length", &long, End::Cut),
        ]);
    }
    let of = |name, words: String, then, end| (name, words, then, end, Fails);
    list.extend([
        of("until the end, reset", open, Then::Resets, End::Cut),
        of(
            "no chunk",
            plain("5\r\nabcde\r\nzz\r\n"),
            Then::Keeps,
            End::Cut,
        ),
        of(
            "no chunk, of events",
            stream(&format!("{event}zz\r\n")),
            Then::Keeps,
            End::Told,
        ),
        of(
            "a bare LF",
            plain("5\r\nabcde\r\n5\nabcde\r\n"),
            Then::Keeps,
            End::Cut,
        ),
        of(
            "more than a chunk's size",
            plain("3\r\nabcXX\r\n"),
            Then::Keeps,
            End::Cut,
        ),
        of(
            "a chunk beyond 64 bits",
            plain("1\r\na\r\nfffffffffffffffff\r\n"),
            Then::Keeps,
            End::Cut,
        ),
    ]);
    play(list);
}

#[test]
fn a_stream_that_ends_without_done_is_its_engines_affair_unless_it_merely_closed() {
    let events = "data: 1\n\n";
    let chunked = |tail: &str| format!("{EVENTS}{CHUNKED}{}{}0\r\n\r\n", chunk(events), tail);
    let closed = |tail: &str| format!("{EVENTS}connection: close\r\n\r\n{events}{tail}");
    let done = "data: [DONE]\n\n";
    play(vec![
        (
            "a proper end",
            chunked(&chunk(done)),
            Then::Keeps,
            End::Whole,
            NoEffect,
        ),
        (
            "a proper end without it",
            chunked(""),
            Then::Keeps,
            End::Whole,
            NoEffect,
        ),
        (
            "a close after it",
            closed(done),
            Then::Closes,
            End::Whole,
            NoEffect,
        ),
        (
            "a close without it",
            closed(""),
            Then::Closes,
            End::Told,
            Fails,
        ),
        (
            "it, within a text",
            closed("data: {\"a\":\"data: [DONE]\"}\n\n"),
            Then::Closes,
            End::Told,
            Fails,
        ),
    ]);
}

#[test]
fn an_engine_that_falls_silent_is_cut_with_its_time() {
    let event = chunk("data: 1\n\n");
    play(vec![
        (
            "events",
            format!("{EVENTS}{CHUNKED}{event}"),
            Then::Hangs,
            End::Told,
            Fails,
        ),
        (
            "within an event",
            format!("{EVENTS}{CHUNKED}3\r\ndat"),
            Then::Hangs,
            End::Cut,
            Fails,
        ),
        (
            "bytes",
            format!("{BYTES}content-length: 9\r\n\r\nabc"),
            Then::Hangs,
            End::Cut,
            Fails,
        ),
    ]);
    // Our side of the engine's connection ends too.
    let over = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&over);
    let engine = RawEngine::start(move |mut conn| {
        let Some(seen) = conn.request() else { return };
        if seen.head.starts_with("POST ") {
            conn.stream_head();
            conn.chunk("data: 1\n\n");
            conn.closed();
            count.fetch_add(1, SeqCst);
        }
    });
    let app = impatient(&engine.url(), |_| {});
    assert!(!app.chat(STREAM).whole);
    eventually("it is left", || over.load(SeqCst) == 1);
}

#[test]
fn what_comes_after_an_answer_is_nobodys() {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for (words, head_only, body) in [
        (
            format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{evil}"),
            false,
            "ok",
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{CHUNKED}2\r\nok\r\n0\r\n\r\n{evil}"),
            false,
            "ok",
        ),
        (format!("HTTP/1.1 204 No Content\r\n\r\n{evil}"), false, ""),
        (
            format!("HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nbody{evil}"),
            false,
            "",
        ),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\nbody".to_owned(),
            false,
            "",
        ),
        (
            format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody{evil}"),
            true,
            "",
        ),
    ] {
        let puppet = Puppet::start();
        puppet.says(&words, Then::Keeps);
        let app = app(&puppet.url(), |_| {});
        let mut client = app.connect();
        for _ in 0..3 {
            let method = if head_only { "HEAD" } else { "GET" };
            client.write(format!("{method} /x HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
            let answer = client.answer_to(head_only).unwrap();
            assert_eq!(answer.text(), body, "{words}");
        }
        assert_eq!(
            app.metric("pilotfish_upstream_reuses_total") as u64,
            0,
            "{words}"
        );
        assert_eq!(Outcomes::of(&app).faults, 0, "{words}");
    }
    // Of chunks and a length, the chunks are the body, and the length is gone.
    let puppet = Puppet::start();
    let both = format!("{BYTES}content-length: 3\r\n{CHUNKED}5\r\nabcde\r\n0\r\n\r\n");
    puppet.says(both, Then::Keeps);
    let app = app(&puppet.url(), |_| {});
    let answer = app.chat(PLAIN);
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.whole),
        (200, "abcde", true)
    );
    assert!([None, Some("5")].contains(&answer.field("content-length")));
    // A length that is said twice is said once.
    puppet.says(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
        Then::Keeps,
    );
    let answer = app.chat(PLAIN);
    let lengths = answer
        .fields
        .iter()
        .filter(|(name, _)| name == "content-length");
    assert!(answer.status == 502 || lengths.count() == 1, "{answer:?}");
}
