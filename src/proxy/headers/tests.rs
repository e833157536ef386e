use http::{Request, StatusCode};

use super::*;
use crate::config::auth::Secret;

fn engine() -> Engine {
    let url = EngineUrl::parse("http://e:8000/base/").unwrap();
    let since = (std::time::Instant::now(), std::time::Duration::ZERO);
    Engine::new(url, 1, since, &std::sync::Arc::default())
}

fn sent(request: Request<()>, framing: RequestFraming) -> String {
    sent_by(request, framing, (false, false))
}

/// The same, by a peer that is trusted, or over TLS.
fn sent_by(request: Request<()>, framing: RequestFraming, peer: (bool, bool)) -> String {
    whole(&engine(), request, (framing, ClientsKey::Passes), peer)
}

fn sent_to(engine: &Engine, request: Request<()>, how: (RequestFraming, ClientsKey)) -> String {
    whole(engine, request, how, (false, false))
}

fn whole(
    engine: &Engine,
    request: Request<()>,
    (framing, clients_key): (RequestFraming, ClientsKey),
    (is_trusted, is_tls): (bool, bool),
) -> String {
    let (head, ()) = request.into_parts();
    let id = HeaderValue::from_static("id-1");
    let outgoing = Outgoing {
        trace: None,
        upgrade: asks_upgrade(&head),
        head: &head,
        request_id: &id,
        peer: "10.1.2.3",
        is_tls,
        is_trusted,
        framing,
        orca: None,
        clients_key,
    };
    String::from_utf8(for_engine(&outgoing, engine)).unwrap()
}

fn request() -> http::request::Builder {
    Request::post("/v1/x?a=b%20c&d").header("host", "client:1")
}

#[test]
fn an_engine_sees_one_key_or_none() {
    let keyed = engine();
    keyed.credential.give(Secret::new("engine-key").unwrap());
    let unkeyed = engine();
    for (engine, whose, expected) in [
        (
            &unkeyed,
            ClientsKey::Passes,
            &["Bearer client", "x-key"][..],
        ),
        (&unkeyed, ClientsKey::Ours, &[]),
        (&keyed, ClientsKey::Passes, &["Bearer engine-key"]),
        (&keyed, ClientsKey::Ours, &["Bearer engine-key"]),
    ] {
        let request = request()
            .header("authorization", "Bearer client")
            .header("x-api-key", "x-key")
            .header("connection", "close, authorization")
            .body(())
            .unwrap();
        let out = sent_to(engine, request, (RequestFraming::None, whose));
        let lines = || out.split("\r\n");
        let fields = |name: &'static str| lines().filter_map(move |line| line.strip_prefix(name));
        let keys: Vec<&str> = fields("authorization: ")
            .chain(fields("x-api-key: "))
            .collect();
        assert_eq!(keys, expected, "{whose:?}");
    }
}

#[test]
fn hop_by_hop_and_nominated_fields_stop_here() {
    let out = sent(
        request()
            .header("connection", "close, X-Hop, authorization")
            .header("connection", "x-two")
            .header("x-hop", "1")
            .header("x-two", "2")
            .header("keep-alive", "timeout=5")
            .header("te", "trailers")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "h2c")
            .header("proxy-authorization", "secret")
            .header("expect", "100-continue")
            .header("authorization", "Bearer k")
            .header("x-multi", "a")
            .header("x-multi", "b")
            .header("x-pilotfish-explain", "1")
            .body(())
            .unwrap(),
        RequestFraming::Length(12),
    );
    assert_eq!(
        out,
        "POST /base/v1/x?a=b%20c&d HTTP/1.1\r\nhost: e:8000\r\nauthorization: Bearer k\r\n\
         x-multi: a\r\nx-multi: b\r\ncontent-length: 12\r\nx-request-id: id-1\r\n\
         x-forwarded-for: 10.1.2.3\r\nx-forwarded-proto: http\r\nvia: 1.1 pilotfish\r\n\r\n"
    );
}

#[test]
fn who_the_client_is_comes_from_the_socket() {
    let out = sent(
        request()
            .header("x-forwarded-for", "1.1.1.1")
            .header("forwarded", "for=1.1.1.1")
            .header("x-real-ip", "1.1.1.1")
            .header("true-client-ip", "1.1.1.1")
            .header("x-forwarded-host", "evil")
            .header("x-forwarded-port", "evil")
            .header("x-forwarded-prefix", "/evil")
            .header("x-forwarded-client-cert", "evil")
            .header("via", "1.0 other")
            .body(())
            .unwrap(),
        RequestFraming::Chunked,
    );
    assert!(!out.contains("1.1.1.1") && !out.contains("evil"), "{out}");
    assert!(out.contains("via: 1.0 other\r\n") && out.contains("via: 1.1 pilotfish\r\n"));
    assert!(out.contains("transfer-encoding: chunked\r\n"));
}

#[test]
fn a_trusted_proxy_is_believed_and_added_to() {
    let told = || {
        request()
            .header("x-forwarded-for", "1.1.1.1 ,2.2.2.2")
            .header("x-forwarded-for", " 3.3.3.3,")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "api.example")
            .header("x-forwarded-prefix", "/api.example")
            .header("true-client-ip", "1.1.1.1")
    };
    let out = sent_by(
        told().body(()).unwrap(),
        RequestFraming::None,
        (true, false),
    );
    assert!(
        out.contains("x-forwarded-for: 1.1.1.1, 2.2.2.2, 3.3.3.3, 10.1.2.3\r\n"),
        "{out}"
    );
    for passed in [
        "x-forwarded-host: api.example\r\n",
        "x-forwarded-prefix: /api.example\r\n",
        "true-client-ip: 1.1.1.1\r\n",
    ] {
        assert!(out.contains(passed), "{out}");
    }
    assert_eq!(out.matches("x-forwarded-proto: ").count(), 1);
    assert!(out.contains("x-forwarded-proto: https\r\n"), "{out}");
    // A client says so, too; the socket knows better.
    let out = sent_by(
        told().body(()).unwrap(),
        RequestFraming::None,
        (false, true),
    );
    assert!(out.contains("x-forwarded-for: 10.1.2.3\r\n"), "{out}");
    assert!(out.contains("x-forwarded-proto: https\r\n") && !out.contains("api.example"));
    // Of a list without end we pass on the end.
    let long = vec!["192.0.2.1"; 1000].join(",");
    let long = request().header("x-forwarded-for", format!("{long}, 4.4.4.4"));
    let out = sent_by(long.body(()).unwrap(), RequestFraming::None, (true, false));
    let told = out
        .lines()
        .find(|line| line.starts_with("x-forwarded-for: "));
    let told = told.unwrap();
    assert!((900..1100).contains(&told.len()), "{}", told.len());
    assert!(told.ends_with(", 192.0.2.1, 4.4.4.4, 10.1.2.3"), "{told}");
}

#[test]
fn names_that_are_read_as_ours_are_dropped() {
    let mut aliased = request().header("x_harmless", "kept").header("_", "kept");
    for name in [
        "x_forwarded_for",
        "x-forwarded_for",
        "x_forwarded_proto",
        "x_forwarded_client_cert",
        "x_real_ip",
        "true_client_ip",
        "content_length",
        "transfer_encoding",
        "proxy_authorization",
        "x_request_id",
        "x_pilotfish_engine",
        "x_api_key",
        "content_type",
    ] {
        aliased = aliased.header(name, "evil");
    }
    let aliased = aliased.body(()).unwrap();
    for trusted in [false, true] {
        let out = sent_by(aliased.clone(), RequestFraming::None, (trusted, false));
        assert!(!out.contains("evil"), "{out}");
        assert!(out.contains("x_harmless: kept\r\n_: kept\r\n"), "{out}");
    }
}

#[test]
fn upgrades_are_asked_for_only_when_the_client_did() {
    let websocket = Request::get("/v1/realtime")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "k");
    let out = sent(websocket.body(()).unwrap(), RequestFraming::None);
    assert!(
        out.contains("connection: upgrade\r\nupgrade: websocket\r\n"),
        "{out}"
    );
    let get = || Request::get("/x").header("connection", "upgrade");
    for other in [
        request()
            .header("connection", "upgrade")
            .header("upgrade", "websocket"),
        get().header("upgrade", "h2c"),
        get().header("upgrade", "websocket, h2c"),
        get()
            .header("upgrade", "websocket")
            .header("upgrade", "h2c"),
        get()
            .header("upgrade", "websocket")
            .header("content-length", "5"),
        get()
            .header("upgrade", "websocket")
            .header("transfer-encoding", "chunked"),
        Request::get("/x").header("upgrade", "websocket"),
        get()
            .header("upgrade", "websocket")
            .version(Version::HTTP_10),
    ] {
        let out = sent(other.body(()).unwrap(), RequestFraming::None);
        assert!(!out.contains("upgrade"), "{out}");
    }
}

#[test]
fn targets_and_cookies_of_every_form() {
    for (uri, line) in [
        ("http://other/x?y", "POST /base/x?y HTTP/1.1"),
        ("*", "POST * HTTP/1.1"),
        ("/a/../b//c%2f", "POST /base/a/../b//c%2f HTTP/1.1"),
    ] {
        let out = sent(Request::post(uri).body(()).unwrap(), RequestFraming::None);
        assert_eq!(out.lines().next().unwrap(), line);
    }
    let crumbs = Request::post("/")
        .version(Version::HTTP_2)
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let out = sent(crumbs.body(()).unwrap(), RequestFraming::None);
    assert!(out.contains("cookie: a=1; b=2\r\n"), "{out}");
}

#[test]
fn request_ids_are_taken_when_sane() {
    let with = |value: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        request_id(&headers)
    };
    assert_eq!(with(b"abc-1"), "abc-1");
    for bad in [b"".as_slice(), b"a b", b"\xff", &[b'x'; 129]] {
        assert_eq!(with(bad).len(), 32);
    }
    assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
}

#[test]
fn the_client_gets_a_clean_head() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "keep-alive, x-hop"),
        ("keep-alive", "timeout=5"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("x-request-id", "theirs"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
        ("server", "uvicorn"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let mut answer = AnswerHead::for_tests(StatusCode::OK, headers, Framing::Chunked);
    for_client(&mut answer);
    let names: Vec<&str> = answer.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(answer.headers["via"], "1.1 pilotfish");
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
}

#[test]
fn lengths_are_said_once() {
    for lengths in [&["5", "5"] as &[&str], &["5, 5"], &["5"]] {
        let mut headers = HeaderMap::new();
        for length in lengths {
            headers.append("content-length", HeaderValue::from_str(length).unwrap());
        }
        let mut answer = AnswerHead::for_tests(StatusCode::OK, headers, Framing::Length(5));
        for_client(&mut answer);
        let said: Vec<_> = answer.headers.get_all("content-length").iter().collect();
        assert_eq!(said, ["5"]);
    }
}
