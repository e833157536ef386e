//! E2: bodies whose end two parties might see in two places.

use crate::frames::{Came, DATA, END_HEADERS, END_STREAM, HEADERS, Raw, fields, frame, pseudo};
use crate::harness::{Blame, Conn, Outcomes, Row, Witness, app, row, run};
use crate::support::{TestApp, eventually, post};

use Blame::{Never, NoEffect};
use Conn::{Closed, Kept};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
/// What does not end in one `chunked`, or is no number, hyper cannot read.
const UNREAD: (&[u16], &str) = (&[400], "bad_request");
const BOTH: (&[u16], &str) = (&[400], "bad_transfer_encoding");
const CODED: (&[u16], &str) = (&[501], "bad_transfer_encoding");

fn stage() -> (Witness, TestApp) {
    let witness = Witness::start();
    let app = app(&witness.url(), |_| {});
    (witness, app)
}

/// A request that would be served were it framed well: any body will do.
fn with(fields: &str, body: &str) -> String {
    format!("POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-type: audio/wav\r\n{fields}\r\n{body}")
}

fn both() -> Vec<Row> {
    let chunked = "transfer-encoding: chunked\r\n";
    let of = |name, fields: &str| {
        let sent = with(fields, &format!("0\r\n\r\n{SMUGGLED}"));
        row((9, name), sent, BOTH, (Closed, Never))
    };
    vec![
        of(
            "a length before chunks",
            &format!("content-length: 5\r\n{chunked}"),
        ),
        of(
            "a length after chunks",
            &format!("{chunked}content-length: 5\r\n"),
        ),
        of(
            "a length of none",
            &format!("content-length: 0\r\n{chunked}"),
        ),
        of(
            "a length in capitals, with a tab",
            &format!("CONTENT-LENGTH:\t5\r\n{chunked}"),
        ),
    ]
}

fn lengths() -> Vec<Row> {
    let of = |name, fields: &str| {
        let sent = with(fields, &format!("abcde{SMUGGLED}"));
        row((10, name), sent, UNREAD, (Closed, Never))
    };
    let one = |name, value: &str| of(name, &format!("content-length: {value}\r\n"));
    vec![
        of("two lengths", "content-length: 5\r\ncontent-length: 6\r\n"),
        one("a list", "5, 6"),
        one("a list of one number", "5, 5"),
        one("a sign", "+5"),
        one("less than nothing", "-1"),
        one("hexadecimal", "0x5"),
        one("nothing", ""),
        one("2 to the 64th", "18446744073709551616"),
        one("an underscore", "5_0"),
        one("a vertical tab", "\u{b}5"),
        one("a fraction", "5.0"),
        one("a space within", "5 5"),
    ]
}

fn codings() -> Vec<Row> {
    let of = |name, fields: &str, refused| {
        let sent = with(fields, &format!("0\r\n\r\n{SMUGGLED}"));
        row((11, name), sent, refused, (Closed, Never))
    };
    let one =
        |name, value: &str, refused| of(name, &format!("transfer-encoding: {value}\r\n"), refused);
    let mut rows = vec![
        one("a coding that is not ours", "gzip, chunked", CODED),
        one("chunked twice", "chunked, chunked", CODED),
        one("chunked, not as the last", "chunked, gzip", UNREAD),
        one("identity", "identity", UNREAD),
        one("identity before chunked", "identity, chunked", CODED),
        one("unknown", "xchunked", UNREAD),
        one("with a parameter", "chunked;a=b", UNREAD),
        one("empty", "", UNREAD),
        one("a vertical tab", "\u{b}chunked", UNREAD),
        of(
            "two fields",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            CODED,
        ),
        of(
            "identity and chunked in two fields",
            "transfer-encoding: identity\r\nTransfer-Encoding: chunked\r\n",
            CODED,
        ),
    ];
    let old = with("transfer-encoding: chunked\r\n", "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0");
    rows.push(row((11, "HTTP/1.0"), old, UNREAD, (Closed, Never)));
    rows
}

#[test]
fn a_length_and_chunks_at_once_are_refused_and_nothing_follows() {
    let (witness, app) = stage();
    run(&app, Some(&witness), &both());
}

#[test]
fn a_length_is_one_number() {
    let (witness, app) = stage();
    run(&app, Some(&witness), &lengths());
}

#[test]
fn a_coding_is_chunked_once_or_the_request_is_refused() {
    let (witness, app) = stage();
    run(&app, Some(&witness), &codings());
    assert!(witness.met().is_empty(), "{:?}", witness.met());
}

#[test]
fn a_pipelined_head_is_no_way_around_it() {
    let (witness, app) = stage();
    let mut client = app.connect();
    let mut all = post("/v1/completions", r#"{"model":"m"}"#);
    all += &with(
        "transfer-encoding: gzip, chunked\r\n",
        &format!("0\r\n\r\n{SMUGGLED}"),
    );
    client.write(all.as_bytes());
    assert_eq!(client.answer().unwrap().status, 200);
    let refused = client.answer().unwrap();
    refused.assert_error(501, "bad_transfer_encoding");
    assert!(client.answer().is_none());
    assert_eq!(witness.met().len(), 1, "{:?}", witness.met());
}

/// Framings of a body that break it off, after a first good chunk.
fn chunks() -> Vec<(&'static str, String)> {
    let long = |bytes: usize| "x".repeat(bytes);
    [
        ("no size", "\r\n".to_owned()),
        ("no number", "zz\r\n".to_owned()),
        ("0x", "0x5\r\nabcde\r\n".to_owned()),
        ("a sign", "+5\r\nabcde\r\n".to_owned()),
        ("less than nothing", "-1\r\n".to_owned()),
        ("an underscore", "1_0\r\n".to_owned()),
        ("a space before", " 5\r\nabcde\r\n".to_owned()),
        ("beyond 64 bits", "fffffffffffffffff\r\n".to_owned()),
        ("a bare LF", "5\nabcde\r\n".to_owned()),
        ("a bare LF in an extension", "5;a=b\nabcde\r\n".to_owned()),
        (
            "a bare CR in an extension",
            "5;a\rb\r\nabcde\r\n".to_owned(),
        ),
        ("more than its size", "3\r\nabcXX\r\n".to_owned()),
        ("2 MB of extensions", format!("5;a={}\r\n", long(2 << 20))),
        (
            "a trailer that is none",
            "0\r\nno trailer\r\n\r\n".to_owned(),
        ),
    ]
    .into()
}

#[test]
fn chunks_are_framed_as_they_must_be_or_the_body_has_broken_off() {
    let (witness, app) = stage();
    // Read before it is routed, and passed on as it comes.
    for kind in ["application/json", "audio/wav"] {
        for (name, chunk) in chunks() {
            let head = format!(
                "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n\
                 transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n{chunk}{SMUGGLED}"
            );
            let mut client = app.connect();
            // It may be refused before all of it is taken.
            let _ = std::io::Write::write_all(&mut client.stream, head.as_bytes());
            // Of what is read for its model, what came before the fault is no JSON.
            let is_text = kind == "application/json" && name == "more than its size";
            let code = if is_text {
                "invalid_json"
            } else {
                "incomplete_body"
            };
            let answer = client.answer().unwrap();
            assert_eq!(answer.json()["error"]["code"], code, "{kind}, {name}");
            assert_eq!(answer.status, 400, "{kind}, {name}: {answer:?}");
            assert!(client.answer().is_none(), "{kind}, {name}");
        }
    }
    app.settled();
    for met in witness.met() {
        assert!(!met.head.contains("/smuggled"), "{met:?}");
        assert!(met.body.is_none(), "a whole body: {met:?}");
    }
    assert_eq!(Outcomes::of(&app).faults, 0);
}

#[test]
fn an_upgrade_that_nobody_grants_changes_nothing() {
    let (witness, app) = stage();
    let rows = [
        (
            "h2c",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAAA\r\n",
        ),
        ("TLS", "connection: upgrade\r\nupgrade: TLS/1.2\r\n"),
        (
            "several",
            "connection: upgrade\r\nupgrade: a, b\r\nupgrade: h2c\r\n",
        ),
        ("no nomination", "upgrade: websocket\r\n"),
    ];
    for (name, extra) in rows {
        let request = format!("GET /v1/x HTTP/1.1\r\nhost: x\r\n{extra}\r\n");
        run(
            &app,
            Some(&witness),
            &[row((13, name), request, (&[200], ""), (Kept, NoEffect))],
        );
        let head = witness.met().pop().unwrap().head;
        assert!(
            !head.contains("upgrade") && !head.contains("http2"),
            "{head}"
        );
    }
    // Bytes that come before the 101 that never comes are the next request.
    let upgrade =
        "GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut client = app.connect();
    client.write(format!("{upgrade}GET /v1/next HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    for path in ["/v1/realtime", "/v1/next"] {
        assert_eq!(client.answer().unwrap().status, 200);
        let heads: Vec<String> = witness.met().into_iter().map(|met| met.head).collect();
        assert!(heads.iter().any(|head| head.contains(path)), "{heads:?}");
    }
    // What has a length has a body, whatever else it asks for.
    let met = witness.met().len();
    let body = format!("content-length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    client.write(
        upgrade
            .replace("\r\n\r\n", &format!("\r\n{body}"))
            .as_bytes(),
    );
    let answer = client.answer().unwrap();
    assert!([200, 400].contains(&answer.status), "{answer:?}");
    app.settled();
    let heads = witness.met().split_off(met);
    assert!(
        heads.iter().all(|met| !met.head.contains("/smuggled ")),
        "{heads:?}"
    );
}

/// What an HTTP/2 request says that is no request, and its fields.
type Broken = (&'static str, Vec<(&'static str, &'static str)>);

/// A good request, and these fields.
fn request(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut all = pseudo("POST", "/v1/completions");
    all.push(("content-type", "application/json"));
    all.extend(more);
    all
}

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    let mut all = request(&[]);
    all.retain(|(known, _)| *known != name);
    all
}

fn instead(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut all = without(name);
    all.insert(0, (name, value));
    all
}

fn http2_framing() -> Vec<Broken> {
    let with = |name, field| (name, request(&[field]));
    let lengths = [("content-length", "13"), ("content-length", "14")];
    vec![
        with("a length beyond the data", ("content-length", "99")),
        with("a length below the data", ("content-length", "3")),
        ("two lengths", request(&lengths)),
        with("Transfer-Encoding", ("transfer-encoding", "chunked")),
        with("Connection", ("connection", "close")),
        with("TE that is not trailers", ("te", "gzip")),
        with("a name in capitals", ("X-Big", "1")),
        with("CRLF in a value", ("a", "b\r\nhost: y")),
        with("NUL in a value", ("a", "b\0c")),
        with("CRLF in a name", ("a\r\nb", "c")),
    ]
}

fn http2_heads() -> Vec<Broken> {
    let two = [without(":authority"), vec![("host", "x"), ("host", "y")]];
    let tunnel = vec![(":method", "CONNECT")];
    vec![
        ("a blank before a value", request(&[("a", " b")])),
        ("a tab after a value", request(&[("a", "b\t")])),
        ("CONNECT to nowhere", tunnel),
        ("a space in the path", instead(":path", "/v1/a b HTTP/1.1")),
        ("CRLF in the path", instead(":path", "/x\r\nhost: y")),
        ("an empty path", instead(":path", "")),
        ("a method that is no token", instead(":method", "GE T")),
        ("no path", without(":path")),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("a path twice", request(&[(":path", "/smuggled")])),
        ("an unknown pseudo-field", instead(":unknown", "x")),
        ("an answer's pseudo-field", instead(":status", "200")),
        ("no authority and no host", without(":authority")),
        ("another host", request(&[("host", "y")])),
        ("two hosts", two.concat()),
        ("userinfo in the authority", instead(":authority", "u@x")),
        ("a path in the authority", instead(":authority", "x/y")),
    ]
}

#[test]
fn on_http2_a_request_that_is_none_is_reset_or_refused_and_others_go_on() {
    let (witness, app) = stage();
    let mut wrong = Vec::new();
    for (name, sent) in http2_framing().into_iter().chain(http2_heads()) {
        let mut raw = Raw::open(app.address);
        let _ = raw.write(&frame(HEADERS, END_HEADERS, 1, &fields(&sent)));
        let _ = raw.write(&frame(DATA, END_STREAM, 1, br#"{"model":"m"}"#));
        let came = raw.outcome(1);
        // Malformed, by our own look: no answer, and nobody else's stream.
        let malformed = [
            "a blank before a value",
            "a tab after a value",
            "CONNECT to nowhere",
            "another host",
        ];
        assert!(
            !malformed.contains(&name) || came == Came::Reset,
            "{name}: {came:?}"
        );
        if !matches!(came, Came::Reset | Came::Status(400 | 501) | Came::GoAway) {
            wrong.push(format!("\n{name}: {came:?}"));
        }
        // What no field can be, the library takes for an error of compression: of the
        // whole connection.
        let ends = [
            "a name in capitals",
            "CRLF in a value",
            "NUL in a value",
            "CRLF in a name",
            "a method that is no token",
            "an unknown pseudo-field",
        ];
        if came == Came::GoAway && ends.contains(&name) {
            continue;
        }
        let good = fields(&pseudo("GET", "/livez"));
        let _ = raw.write(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &good));
        let next = raw.outcome(3);
        if next != Came::Status(200) {
            wrong.push(format!("\n{name}: then {next:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
    app.settled();
    let whole = witness.met().into_iter().filter(|met| met.body.is_some());
    assert_eq!(whole.count(), 0);
    assert_eq!(Outcomes::of(&app).faults, 0);
}

#[test]
fn pipelined_requests_are_answered_in_order_and_one_at_a_time() {
    let (witness, app) = stage();
    let mut client = app.connect();
    let body = r#"{"model":"m"}"#;
    let all: String = (0..20).map(|n| post(&format!("/v1/{n}"), body)).collect();
    client.write(all.as_bytes());
    for n in 0..20 {
        assert_eq!(client.answer().unwrap().status, 200, "{n}");
    }
    eventually("all of them were asked", || witness.met().len() == 20);
    for (n, met) in witness.met().iter().enumerate() {
        assert!(met.head.starts_with(&format!("POST /v1/{n} ")), "{met:?}");
        assert_eq!(met.body.as_deref(), Some(body.as_bytes()));
    }
}
