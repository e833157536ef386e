//! E1: heads that are malformed, or meant to deceive.

use crate::harness::{Blame, Conn, Row, Witness, app, row, run};
use crate::process::Process;
use crate::support::{TestApp, post};

use Blame::{Never, NoEffect};
use Conn::{Closed, Kept};

const BAD_HOST: (&[u16], &str) = (&[400], "bad_host");
const BAD_HEAD: (&[u16], &str) = (&[400], "bad_request");
const BAD_TARGET: (&[u16], &str) = (&[400], "bad_target");
const OK: (&[u16], &str) = (&[200], "");

/// A request for an engine with these fields.
fn get(fields: &str) -> String {
    format!("GET /v1/x HTTP/1.1\r\n{fields}\r\n")
}

fn stage() -> (Witness, TestApp) {
    let witness = Witness::start();
    let app = app(&witness.url(), |_| {});
    (witness, app)
}

fn hosts() -> Vec<Row> {
    let of = |name, fields: &str| row((1, name), get(fields), BAD_HOST, (Closed, Never));
    let mut rows = vec![
        of("no Host", ""),
        of("two Hosts", "host: x\r\nhost: y\r\n"),
        of("the same Host twice", "host: x\r\nhost: x\r\n"),
        of("a path in Host", "host: a/b\r\n"),
        of("userinfo in Host", "host: u@h\r\n"),
        of("a space in Host", "host: a b\r\n"),
        of("a list in Host", "host: a, b\r\n"),
        of("a query in Host", "host: a?b\r\n"),
        of("a fragment in Host", "host: a#b\r\n"),
        of("a port that is none", "host: a:b\r\n"),
        of("a port beyond ports", "host: a:99999\r\n"),
        of("an address that does not end", "host: [::1\r\n"),
        of("a backslash in Host", "host: a\\b\r\n"),
    ];
    let own = "GET /livez HTTP/1.1\r\nhost: a/b\r\n\r\n";
    rows.push(row(
        (1, "our own pages too"),
        own,
        BAD_HOST,
        (Closed, Never),
    ));
    for host in ["x", "x:80", "127.0.0.1:8001", "[::1]:80", "a-b.c_d.svc."] {
        let good = get(&format!("host: {host}\r\n"));
        rows.push(row((1, "a good Host"), good, OK, (Kept, NoEffect)));
    }
    let old = "GET /v1/x HTTP/1.0\r\n\r\n";
    rows.push(row((1, "HTTP/1.0 needs none"), old, OK, (Closed, NoEffect)));
    rows
}

#[test]
fn a_host_is_one_and_valid_or_the_request_is_refused() {
    let (witness, app) = stage();
    run(&app, Some(&witness), &hosts());
}

fn malformed() -> Vec<Row> {
    let of = |name, send: &[u8]| row((2, name), send, BAD_HEAD, (Closed, Never));
    vec![
        of("a line of garbage", b"nonsense\r\n\r\n"),
        of(
            "bytes that are no text",
            b"\x80\xff\x00\x01 / HTTP/1.1\r\n\r\n",
        ),
        of(
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ),
        of(
            "a method that is no token",
            b"GE(T / HTTP/1.1\r\nhost: x\r\n\r\n",
        ),
        of("no target", b"GET HTTP/1.1\r\nhost: x\r\n\r\n"),
        of(
            "a space in the target",
            b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
        ),
        of("HTTP/0.9", b"GET /\r\n\r\n"),
        of("HTTP/2.0 as text", b"GET / HTTP/2.0\r\nhost: x\r\n\r\n"),
        of("HTTP in lower case", b"GET / http/1.1\r\nhost: x\r\n\r\n"),
        of(
            "NUL in a value",
            b"GET / HTTP/1.1\r\nhost: x\r\na: b\0c\r\n\r\n",
        ),
        of(
            "a control in a value",
            b"GET / HTTP/1.1\r\nhost: x\r\na: b\x01c\r\n\r\n",
        ),
        of(
            "a bare CR in a value",
            b"GET / HTTP/1.1\r\nhost: x\r\na: b\rc\r\n\r\n",
        ),
        of(
            "a folded line",
            b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
        ),
        of(
            "a space before the colon",
            b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        ),
        of(
            "a space in a name",
            b"GET / HTTP/1.1\r\nhost: x\r\na b: c\r\n\r\n",
        ),
        of(
            "a name that is empty",
            b"GET / HTTP/1.1\r\nhost: x\r\n: c\r\n\r\n",
        ),
        of(
            "half of HTTP/2's preface",
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        ),
    ]
}

#[test]
fn a_head_that_cannot_be_read_is_refused() {
    let (witness, app) = stage();
    run(&app, Some(&witness), &malformed());
}

fn large() -> Vec<Row> {
    let field = |size: usize| get(&format!("host: x\r\nbig: {}\r\n", "x".repeat(size)));
    let many = |count: usize| {
        let fields: String = (0..count).map(|n| format!("a{n}: b\r\n")).collect();
        get(&format!("host: x\r\n{fields}"))
    };
    let target = |size: usize| {
        let long = "x".repeat(size);
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n")
    };
    let refused = (Closed, Never);
    let fields = (&[431_u16] as &[u16], "head_too_large");
    let long = (&[414_u16] as &[u16], "target_too_long");
    vec![
        row((3, "a field of 70 KB"), field(70 << 10), fields, refused),
        row((3, "a field of 1 MB"), field(1 << 20), fields, refused),
        row((3, "150 fields"), many(150), fields, refused),
        row((3, "a target of 70 KB"), target(70 << 10), long, refused),
        row((3, "a target of 20 KB"), target(20 << 10), long, refused),
        row((3, "90 fields"), many(90), OK, (Kept, NoEffect)),
        row((3, "a field of 8 KB"), field(8 << 10), OK, (Kept, NoEffect)),
    ]
}

#[test]
fn a_bare_lf_ends_a_line_and_no_engine_sees_it() {
    let (witness, app) = stage();
    // RFC 9112, 2.2 allows it; or it is refused.
    let mut client = app.connect();
    client.write(b"GET /v1/lf HTTP/1.1\nhost: x\na: b\n\n");
    let answer = client.answer().unwrap();
    assert!([200, 400].contains(&answer.status), "{answer:?}");
    for met in witness.met() {
        assert!(met.head.starts_with("GET /v1/lf HTTP/1.1\r\n"), "{met:?}");
        assert!(!met.head.replace("\r\n", "").contains('\n'), "{met:?}");
    }
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let (witness, app) = stage();
    run(&app, Some(&witness), &large());
}

#[test]
fn heads_that_do_not_end_hold_their_bound_and_no_more() {
    const CLIENTS: u64 = 100;
    let witness = Witness::start();
    let process = Process::start(&witness.url(), &serde_json::json!({}));
    process.warm();
    let before = process.rss();
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nbig: {}", "x".repeat(60 << 10));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = process.connect();
        client.write(head.as_bytes());
        clients.push(client);
    }
    // All of it has been read once these are answered, which came later.
    process.warm();
    let grown = process.rss().saturating_sub(before);
    let most = CLIENTS * (64 << 10) * 2 + (4 << 20);
    assert!(grown < most, "{grown} bytes for {CLIENTS} heads");
}

fn methods() -> Vec<Row> {
    let of = |method: &str, target: &str| format!("{method} {target} HTTP/1.1\r\nhost: x\r\n\r\n");
    let refused = (&[405_u16] as &[u16], "method_not_allowed");
    let long = "M".repeat(40);
    vec![
        row(
            (4, "CONNECT"),
            of("CONNECT", "x:1"),
            refused,
            (Closed, Never),
        ),
        row((4, "TRACE"), of("TRACE", "/"), refused, (Kept, Never)),
        // Any token of up to 32 bytes passes.
        row((4, "a long method"), of(&long, "/"), refused, (Kept, Never)),
        row((4, "PROPFIND"), of("PROPFIND", "/x"), OK, (Kept, NoEffect)),
        row(
            (4, "a method of our pages"),
            of("POST", "/livez"),
            refused,
            (Kept, Never),
        ),
    ]
}

#[test]
fn methods_that_make_no_sense_here_are_refused_and_told_which_do() {
    let (witness, app) = stage();
    run(&app, Some(&witness), &methods());
    for method in ["CONNECT x:1", "TRACE /", "POST /livez"] {
        let answer = app.send(&format!("{method} HTTP/1.1\r\nhost: x\r\n\r\n"));
        let allow = answer.field("allow").unwrap_or_default();
        assert!(allow.contains("GET"), "{method}: {allow}");
    }
}

fn targets() -> Vec<Row> {
    let of = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
    let refused = |name, target| row((5, name), of(target), BAD_TARGET, (Closed, Never));
    let bad = [
        refused("userinfo in the target", "http://u@x/v1/x"),
        refused("a scheme that is none of ours", "ftp://x/v1/x"),
        refused("`*` with GET", "*"),
        refused("an authority with GET", "x:80"),
    ];
    let mut rows: Vec<Row> = bad.into();
    // RFC 9112, 3.2.2: the target counts; no engine gets either.
    rows.push(row(
        (5, "an authority that is not Host"),
        of("http://y/v1/x"),
        OK,
        (Kept, NoEffect),
    ));
    rows.push(row(
        (5, "absolute, as Host has it"),
        of("http://x/v1/x"),
        OK,
        (Kept, NoEffect),
    ));
    rows
}

#[test]
fn a_target_has_one_meaning() {
    let (witness, app) = stage();
    run(&app, Some(&witness), &targets());
    // Paths are matched and passed on as they are.
    for target in [
        "/v1/../livez",
        "/a/%2e%2e/livez",
        "/%6civez",
        "//livez",
        "/livez%2f..",
        "/v1/x;a=b?c=d&&e",
    ] {
        let answer = app.get(target);
        assert_eq!(answer.status, 200, "{target}");
        let met = witness.met().pop().unwrap();
        let line = format!("GET {target} HTTP/1.1\r\n");
        assert!(met.head.starts_with(&line), "{target}: {}", met.head);
    }
}

/// The head that the engine gets for a request with these fields.
fn seen(app: &TestApp, witness: &Witness, fields: &str) -> String {
    let request = post("/v1/completions", r#"{"model":"m"}"#);
    let answer = app.send(&request.replacen("host: x\r\n", fields, 1));
    assert_eq!(answer.status, 200, "{fields}: {}", answer.text());
    witness.met().pop().unwrap().head.to_ascii_lowercase()
}

#[test]
fn who_the_client_is_follows_from_its_socket_alone() {
    let (witness, app) = stage();
    let head = seen(
        &app,
        &witness,
        "host: x\r\nx-forwarded-for: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\nx-real-ip: 9.9.9.9\r\n\
         x-forwarded-proto: https\r\nx-forwarded-host: evil\r\nforwarded: for=9.9.9.9\r\n\
         x_forwarded_for: 9.9.9.9\r\nx_real_ip: 9.9.9.9\r\n\
         x-pilotfish-anything: 9.9.9.9\r\nx-pilotfish-timeout-ms: 9000\r\n",
    );
    for theirs in ["9.9.9.9", "8.8.8.8", "evil", "https", "x-pilotfish"] {
        assert!(!head.contains(theirs), "{theirs} in {head}");
    }
    assert_eq!(head.matches("x-forwarded-for: 127.0.0.1\r\n").count(), 1);
}

#[test]
fn an_engine_is_named_by_its_id_and_never_by_an_address() {
    let witness = Witness::start();
    let elsewhere = Witness::start();
    let app = app(&witness.url(), |config| {
        config.settings.routing.allow.engine = true;
    });
    let field = format!("x-pilotfish-engine: {}\r\nhost: x\r\n", elsewhere.url());
    let request = post("/v1/completions", r#"{"model":"m"}"#);
    let answer = app.send(&request.replacen("host: x\r\n", &field, 1));
    answer.assert_error(404, "engine_not_found");
    assert!(elsewhere.met().is_empty() && witness.met().is_empty());
}

#[test]
fn what_connection_names_does_not_take_away_what_a_request_is() {
    let (witness, app) = stage();
    let head = seen(
        &app,
        &witness,
        "host: x\r\nauthorization: Bearer k\r\nx-hop: 1\r\nx-request-id: mine\r\n\
         connection: authorization, host, content-length, content-type, x-hop\r\n\
         connection: x-request-id, x-forwarded-for, keep-alive\r\n\
         keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n",
    );
    for kept in [
        "authorization: bearer k\r\n",
        "content-length: 13\r\n",
        "content-type: application/json\r\n",
        "x-request-id: mine\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "\r\nhost: ",
    ] {
        assert!(head.contains(kept), "{kept} not in {head}");
    }
    for gone in ["x-hop", "keep-alive", "proxy-connection"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
}
