//! E5: engines that fail before their answer's head is whole, or with it.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::harness::{Blame, Conn, Outcomes, Puppet, Row, SHORT, Then, app, impatient, row, run};
use crate::support::engine::RawEngine;
use crate::support::{TestApp, eventually, post, sim};

use Blame::{Busy, Fails, NoEffect};
use Conn::Kept;

const BODY: &str = r#"{"model":"m"}"#;
const FAILED: (&[u16], &str) = (&[502], "engine_error");

fn chat() -> String {
    post("/v1/chat/completions", BODY)
}

/// A puppet's words, what it does then, and the row that follows.
type Said = (Vec<u8>, Then, Row);

fn said(case: (u8, &'static str), words: impl AsRef<[u8]>, then: Then, blame: Blame) -> Said {
    let row = row(case, chat(), FAILED, (Kept, blame));
    (words.as_ref().to_vec(), then, row)
}

fn relayed(case: (u8, &'static str), status: &'static [u16], words: &str, blame: Blame) -> Said {
    let row = row(case, chat(), (status, ""), (Kept, blame));
    (words.as_bytes().to_vec(), Then::Keeps, row)
}

fn play(list: Vec<Said>) {
    let puppet = Puppet::start();
    let app = app(&puppet.url(), |_| {});
    let mut failed = Vec::new();
    for (words, then, row) in list {
        puppet.says(words, then);
        let one = std::panic::AssertUnwindSafe(|| run(&app, None, &[row]));
        if let Err(panic) = std::panic::catch_unwind(one) {
            failed.push(panic.downcast_ref::<String>().cloned().unwrap_or_default());
        }
    }
    assert!(failed.is_empty(), "{}", failed.concat());
}

/// The URL of nobody.
fn nobody() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", free.local_addr().unwrap())
}

/// A listener whose queue is full: it neither takes nor refuses a connection.
struct BlackHole {
    url: String,
    _held: (socket2::Socket, Vec<TcpStream>),
}

impl BlackHole {
    fn open() -> Self {
        let kind = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let socket = socket2::Socket::new(kind.0, kind.1, None).unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        // Linux takes one more than it is told to.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            held.push(stream);
        }
        Self {
            url: format!("http://{address}"),
            _held: (socket, held),
        }
    }
}

#[test]
fn an_engine_that_cannot_be_reached_costs_no_request_while_there_is_another() {
    let hole = BlackHole::open();
    let no_name = "http://no..such..host:1".to_owned();
    for dead in [nobody(), hole.url.clone(), no_name] {
        let quick = |config: &mut pilotfish::config::Config| {
            config.settings.timeouts.connect = SHORT;
        };
        let good = sim(None);
        let app = TestApp::with(&[(&dead, "m"), (&good.url(), "m")], quick);
        for _ in 0..3 {
            assert_eq!(app.chat(BODY).status, 200, "{dead}");
        }
        assert!(Outcomes::of(&app).faults >= 1, "{dead}");
        drop(app);
        let alone = TestApp::with(&[(&dead, "m")], quick);
        let mut client = alone.connect();
        for _ in 0..2 {
            client.write(chat().as_bytes());
            let answer = client.answer().unwrap();
            answer.assert_error(503, "model_unavailable");
            assert!(answer.field("retry-after").is_some());
        }
        alone.settled();
    }
}

#[test]
fn a_connection_that_went_stale_is_nobodys_fault() {
    for is_reset in [false, true] {
        let closed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&closed);
        let engine = RawEngine::start(move |mut conn| {
            let Some(_) = conn.request() else { return };
            conn.json("{}");
            // The next one comes on a connection that seems to be open still.
            if conn.request().is_some() {
                count.fetch_add(1, SeqCst);
                if is_reset {
                    crate::harness::reset_on_close(&conn.stream);
                }
            }
        });
        let app = TestApp::new(&[engine.url()]);
        for _ in 0..20 {
            assert_eq!(app.chat(BODY).status, 200);
        }
        assert!(closed.load(SeqCst) >= 5, "{closed:?} of 20");
        app.settled();
        let outcomes = Outcomes::of(&app);
        assert_eq!((outcomes.success, outcomes.faults), (20, 0), "{is_reset}");
    }
}

fn broken() -> Vec<Said> {
    let of = |name, words: &[u8], then| said((33, name), words, then, Fails);
    vec![
        of("it closes", b"", Then::Closes),
        of("it resets", b"", Then::Resets),
        of("half a status line, closed", b"HTTP/1.1 20", Then::Closes),
        of(
            "half a head, closed",
            b"HTTP/1.1 200 OK\r\nconte",
            Then::Closes,
        ),
        of(
            "half a head, reset",
            b"HTTP/1.1 200 OK\r\nconte",
            Then::Resets,
        ),
        of("garbage", b"nonsense\r\n\r\n", Then::Closes),
        of(
            "bytes that are no text",
            b"\x00\xff\x80\r\n\r\n",
            Then::Closes,
        ),
        of("HTTP/0.9", b"<html>hello</html>\n", Then::Closes),
        of(
            "a status of 000",
            b"HTTP/1.1 000 No\r\ncontent-length: 0\r\n\r\n",
            Then::Keeps,
        ),
        of(
            "a status of four digits",
            b"HTTP/1.1 2000 No\r\n\r\n",
            Then::Closes,
        ),
        of(
            "HTTP/2.0 as text",
            b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            Then::Keeps,
        ),
        of("a TLS alert", b"\x15\x03\x03\x00\x02\x02\x46", Then::Closes),
        of(
            "frames of HTTP/2",
            b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            Then::Closes,
        ),
        of(
            "a folded line",
            b"HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 0\r\n\r\n",
            Then::Keeps,
        ),
        of(
            "a space before the colon",
            b"HTTP/1.1 200 OK\r\na : b\r\ncontent-length: 0\r\n\r\n",
            Then::Keeps,
        ),
    ]
}

#[test]
fn an_answer_that_is_none_is_a_502() {
    play(broken());
}

fn framed() -> Vec<Said> {
    let of = |name, fields: &str| {
        let words = format!("HTTP/1.1 200 OK\r\n{fields}\r\nabcde");
        said((34, name), words, Then::Closes, Fails)
    };
    let many: String = (0..150).map(|n| format!("a{n}: b\r\n")).collect();
    let large = format!("big: {}\r\n", "x".repeat(70 << 10));
    let chunked = "transfer-encoding: chunked\r\n";
    vec![
        of("150 fields", &many),
        of("70 KB of a head", &large),
        of("NUL in a value", "a: b\0c\r\ncontent-length: 5\r\n"),
        of("a bare CR in a value", "a: b\rc\r\ncontent-length: 5\r\n"),
        of("two lengths", "content-length: 5\r\ncontent-length: 6\r\n"),
        of("a list of two lengths", "content-length: 5, 6\r\n"),
        of("a length with a sign", "content-length: +5\r\n"),
        of("a length of less than nothing", "content-length: -5\r\n"),
        of("no number", "content-length: five\r\n"),
        of("2 to the 64th", "content-length: 18446744073709551616\r\n"),
        of("gzip as a transfer coding", "transfer-encoding: gzip\r\n"),
        of("gzip, chunked", "transfer-encoding: gzip, chunked\r\n"),
        of("chunked twice", &format!("{chunked}{chunked}")),
        said(
            (34, "chunks in HTTP/1.0"),
            format!("HTTP/1.0 200 OK\r\n{chunked}\r\n5\r\nabcde\r\n0\r\n\r\n"),
            Then::Closes,
            Fails,
        ),
    ]
}

#[test]
fn an_answer_whose_end_is_in_doubt_is_a_502() {
    play(framed());
}

#[test]
fn an_engine_that_says_nothing_is_a_504_with_its_time() {
    let puppet = Puppet::start();
    let app = impatient(&puppet.url(), |_| {});
    // A timeout is a fault, even if nothing else speaks against the engine.
    for words in ["", "HTTP/1.1 200 OK\r\ncontent-"] {
        puppet.says(words, Then::Hangs);
        let late = (&[504_u16] as &[u16], "engine_timeout");
        run(
            &app,
            None,
            &[row((35, "it hangs"), chat(), late, (Kept, Fails))],
        );
    }
}

#[test]
fn an_engine_with_too_much_to_do_is_passed_over_and_relayed_if_all_are() {
    let words = |status: &str| {
        format!("HTTP/1.1 {status}\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy")
    };
    play(vec![
        relayed((36, "429"), &[429], &words("429 Too Many Requests"), Busy),
        relayed((36, "503"), &[503], &words("503 Service Unavailable"), Busy),
    ]);
    let busy = RawEngine::answering(&words("503 Service Unavailable"));
    let good = sim(None);
    let app = TestApp::new(&[busy.url(), good.url()]);
    for _ in 0..6 {
        assert_eq!(app.chat(BODY).status, 200);
    }
    let alone = TestApp::new(&[busy.url()]);
    let answer = alone.chat(BODY);
    assert_eq!(
        (answer.status, answer.field("retry-after")),
        (503, Some("7"))
    );
    assert_eq!(answer.text(), "busy");
    assert_eq!(Outcomes::of(&alone).faults, 0);
}

#[test]
fn an_engines_own_error_is_the_clients_to_the_byte() {
    for (status, blame) in [
        ("400 Bad Request", NoEffect),
        ("401 Unauthorized", NoEffect),
        ("404 Not Found", NoEffect),
        ("413 Content Too Large", NoEffect),
        ("418 I'm a teapot", NoEffect),
        ("501 Not Implemented", NoEffect),
        ("500 Internal Server Error", Fails),
        ("502 Bad Gateway", Fails),
    ] {
        let body = "CUDA error: \"an illegal memory access\"\n\0";
        let words = format!(
            "HTTP/1.1 {status}\r\nx-a: b\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let puppet = Puppet::start();
        puppet.says(words, Then::Keeps);
        let app = app(&puppet.url(), |_| {});
        let answer = app.chat(BODY);
        assert_eq!(answer.status.to_string(), status[..3]);
        assert_eq!(
            (answer.text().as_str(), answer.field("x-a")),
            (body, Some("b"))
        );
        app.settled();
        assert_eq!(
            Outcomes::of(&app).faults,
            u64::from(blame == Fails),
            "{status}"
        );
    }
}

#[test]
fn five_hundreds_in_a_row_set_an_engine_aside_and_beyond_half_all_are_asked() {
    let engines: Vec<_> = (0..4).map(|_| sim(None)).collect();
    let urls: Vec<String> = engines.iter().map(|engine| engine.url()).collect();
    let app = TestApp::new(&urls);
    let state = |wanted: &str| {
        let page = app.get("/engines").json();
        let all = page.as_array().unwrap().iter();
        all.filter(|engine| engine["state"] == wanted).count()
    };
    engines[0].set_fault(Some("status=500".parse().unwrap()));
    for _ in 0..40 {
        assert!([200, 500].contains(&app.chat(BODY).status));
    }
    eventually("it is set aside", || state("ejected") == 1);
    let asked = || {
        let of = |url: &String| format!("pilotfish_engine_requests_total{{engine=\"{url}\",");
        let one = |url, outcome| app.metric(&format!("{}outcome=\"{outcome}\"}}", of(url))) as u64;
        let all = urls
            .iter()
            .map(|url| one(url, "success") + one(url, "failure"));
        all.collect::<Vec<u64>>()
    };
    let before = asked();
    assert!(
        (0..20).all(|_| app.chat(BODY).status == 200),
        "the others serve"
    );
    assert_eq!(asked()[0], before[0], "it is left alone");
    // All of them fail: they are asked all the same, rather than nobody.
    for engine in &engines {
        engine.set_fault(Some("status=500".parse().unwrap()));
    }
    let statuses: Vec<u16> = (0..60).map(|_| app.chat(BODY).status).collect();
    let failed = statuses.iter().filter(|status| **status == 500).count();
    assert!(failed >= 50, "{statuses:?}");
    let after = asked();
    let all = after
        .iter()
        .zip(&before)
        .all(|(after, before)| after > before);
    assert!(all, "each of them: {before:?} {after:?}");
    app.settled();
}

#[test]
fn interim_answers_have_a_bound_and_a_101_must_be_asked_for() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    play(vec![
        said((39, "an unasked 101"), switch, Then::Keeps, Fails),
        said(
            (39, "a 101 and an answer"),
            format!("{switch}{ok}"),
            Then::Keeps,
            Fails,
        ),
        said(
            (39, "500 interim answers"),
            go_on.repeat(500),
            Then::Closes,
            Fails,
        ),
        relayed(
            (39, "two of them"),
            &[200],
            &format!("{go_on}{hints}{ok}"),
            NoEffect,
        ),
    ]);
    // One at a time, for ever: the head is due all the same.
    let engine = RawEngine::start(|mut conn| {
        if conn
            .request()
            .is_none_or(|seen| seen.head.starts_with("GET"))
        {
            return;
        }
        while std::io::Write::write_all(&mut conn.stream, b"HTTP/1.1 102 Processing\r\n\r\n")
            .is_ok()
        {
            std::thread::park_timeout(Duration::from_millis(30));
        }
    });
    let app = impatient(&engine.url(), |_| {});
    let answer = app.chat(BODY);
    assert!([502, 504].contains(&answer.status), "{answer:?}");
    app.settled();
}
