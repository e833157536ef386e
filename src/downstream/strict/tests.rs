use super::*;

/// What is found in `wire`, in pieces of `step` bytes: heads, and which of them
/// is refused for what.
fn scan(wire: &str, step: usize) -> (u32, Option<(u32, Hidden)>) {
    let mut scan = Scan::default();
    wire.as_bytes()
        .chunks(step)
        .for_each(|piece| scan.push(piece));
    (scan.heads, scan.fault)
}

#[test]
fn hidden_fields_are_found_in_pieces_of_any_size() {
    let both = Some((1, Hidden::TwoLengths));
    let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    let third =
        "POST / HTTP/1.1\r\na: b\r\nContent-Length: 4\r\nT: e\r\nTRANSFER-ENCODING:chunked\r\n\r\n";
    for (wire, heads, fault) in [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 1, None),
        ("\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 1, None),
        ("GET / HTTP/1.1\nhost: x\n\nGET / HTTP/1.1\n\n".to_owned(), 2, None),
        ("POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), 1, both),
        ("POST / HTTP/1.1\nTransfer-Encoding: x\nCONTENT-LENGTH:\t4\t\n\n".to_owned(), 1, both),
        ("GET /a#b HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 1, Some((1, Hidden::Fragment))),
        // Neither a name that only begins so, nor a value.
        ("GET / HTTP/1.1\r\ncontent-length-x: 4\r\ntransfer-encoding: x\r\nx: #content-length: 3\r\n\r\n".to_owned(), 1, None),
        // Bodies are passed over, and what follows is seen.
        (format!("POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nt: 1\r\n\r\nx{third}"), 2, Some((2, Hidden::TwoLengths))),
        (format!("{chunked}3\r\n\r\n\r\r\nA;x=y\r\n0123456789\r\n0\r\nt: u\r\n\r\n{third}"), 2, Some((2, Hidden::TwoLengths))),
        (format!("{chunked}0\r\n\r\n{chunked}0\r\n\r\n{third}GET"), 3, Some((3, Hidden::TwoLengths))),
        // Nothing is said of what makes no sense, or of what follows.
        (format!("{chunked}x\r\n\r\n{third}"), 1, None),
        (format!("POST / HTTP/1.1\r\ncontent-length: +4\r\n\r\nbody{third}"), 0, None),
    ] {
        for step in 1..wire.len() + 1 {
            assert_eq!(scan(&wire, step), (heads, fault), "{step}: {wire:?}");
        }
    }
}

#[test]
fn a_long_request_line_is_known_in_pieces_of_any_size() {
    let long = "x".repeat(head::MAX_TARGET);
    for (wire, is_long) in [
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), true),
        (format!("GET /{long}"), true),
        (format!("GET /{long} HTTP/1.1\r\n\r\nGET /"), false),
        (format!("GET / HTTP/1.1\r\nx: {long}"), false),
    ] {
        for step in [1, 7, 4096, wire.len()] {
            let mut scan = Scan::default();
            wire.as_bytes()
                .chunks(step)
                .for_each(|piece| scan.push(piece));
            assert_eq!(scan.has_long_target(), is_long, "{step}");
        }
    }
}

#[test]
fn what_is_held_is_one_line() {
    let mut scan = Scan::default();
    scan.push(b"GET / HTTP/1.1\r\n");
    for _ in 0..1000 {
        scan.push(b"x: y\r\nx");
        assert!(scan.line.is_empty());
        scan.push(b"\r\n");
    }
    for _ in 0..2 * MAX_LINE {
        scan.push(b"c");
        assert!(scan.line.len() <= MAX_LINE);
    }
    assert!(matches!(scan.at, At::Lost) && scan.line.capacity() == 0);
}

#[test]
fn a_head_that_was_not_seen_may_not_name_a_coding() {
    let strict = Strict::new(&Unseen::new(|_| {}));
    let with = |coding| {
        let request = Request::post("/").header("host", "x");
        request.header(coding, "chunked").body(()).unwrap()
    };
    let fault = strict.check(&with(TRANSFER_ENCODING)).unwrap_err();
    assert!(matches!(fault, HeadFault::Framing(_)) && fault.ends_connection());
    assert_eq!(strict.check(&with("x-coding".parse().unwrap())), Ok(()));
}

#[test]
fn only_what_hyper_answers_by_itself_is_replaced() {
    let whole =
        "connection: close\r\ncontent-length: 0\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
    let of = |text: &str| Unparsed::of(&[IoSlice::new(text.as_bytes())]);
    for (text, found) in [
        (
            format!("HTTP/1.1 400 Bad Request\r\n{whole}"),
            Some(Unparsed::Bad),
        ),
        (
            format!("HTTP/1.1 414 URI Too Long\r\n{whole}"),
            Some(Unparsed::TargetLong),
        ),
        (
            format!("HTTP/1.1 431 X\r\n{whole}"),
            Some(Unparsed::TooLarge),
        ),
        (format!("HTTP/1.1 404 Not Found\r\n{whole}"), None),
        (format!("HTTP/1.1 200 OK\r\n{whole}"), None),
        (
            format!("HTTP/1.1 400 Bad Request\r\nx-request-id: 1\r\n{whole}"),
            None,
        ),
        (format!("HTTP/1.1 400 Bad Request\r\n{whole}body"), None),
        (
            format!("HTTP/1.1 400 Bad Request\r\n{}", &whole[..30]),
            None,
        ),
        ("HTTP/1.1 4".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(of(&text), found, "{text:?}");
    }
    let text = format!("HTTP/1.1 400 Bad Request\r\n{whole}");
    let two = [IoSlice::new(text.as_bytes()), IoSlice::new(b"more")];
    assert_eq!(Unparsed::of(&two), None);
}

#[test]
fn our_answers_are_whole_and_json() {
    for unparsed in [
        Unparsed::Bad,
        Unparsed::TargetLong,
        Unparsed::TooLarge,
        Unparsed::Late,
    ] {
        let answer = unparsed.answer();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        assert!(head.ends_with("connection: close"));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["error"]["message"].is_string() && body["error"]["code"].is_string());
    }
}
