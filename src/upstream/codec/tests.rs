use proptest::prelude::*;

use super::*;
use crate::net::chunks::MAX_EXTRA;

const PLAIN: Asked = Asked {
    head_only: false,
    upgrade: false,
};

fn head(text: &str) -> Result<Option<(AnswerHead, usize)>, ProtocolFault> {
    parse_head(&Bytes::copy_from_slice(text.as_bytes()), PLAIN)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn framing_follows_the_rfc() {
    let cases = [
        ("200 OK\r\ncontent-length: 5", Ok(Framing::Length(5)), true),
        ("200 OK\r\ncontent-length: 0", Ok(Framing::Empty), true),
        (
            "200 OK\r\ncontent-length: 5, 5",
            Ok(Framing::Length(5)),
            true,
        ),
        (
            "200 OK\r\nTransfer-Encoding: Chunked",
            Ok(Framing::Chunked),
            true,
        ),
        (
            "200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5",
            Ok(Framing::Chunked),
            true,
        ),
        ("200 OK", Ok(Framing::UntilClose), false),
        (
            "200 OK\r\ncontent-length: 5\r\nconnection: x, Close",
            Ok(Framing::Length(5)),
            false,
        ),
        ("204 No Content", Ok(Framing::Empty), true),
        (
            "304 Not Modified\r\ncontent-length: 9",
            Ok(Framing::Empty),
            true,
        ),
        ("100 Continue", Ok(Framing::Empty), true),
        ("101 Switching", Err(ProtocolFault::Unasked101), true),
        (
            "200 OK\r\ncontent-length: 5\r\ncontent-length: 6",
            Err(ProtocolFault::Length),
            true,
        ),
        (
            "200 OK\r\ncontent-length: 5, 6",
            Err(ProtocolFault::Length),
            true,
        ),
        (
            "200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: x",
            Err(ProtocolFault::Length),
            true,
        ),
        (
            "200 OK\r\ntransfer-encoding: identity",
            Err(ProtocolFault::TransferEncoding),
            true,
        ),
        (
            "204 No Content\r\ncontent-length: 5",
            Ok(Framing::Empty),
            true,
        ),
        (
            "200 OK\r\ncontent-length: +5",
            Err(ProtocolFault::Length),
            true,
        ),
        (
            "200 OK\r\ncontent-length: ",
            Err(ProtocolFault::Length),
            true,
        ),
        (
            "200 OK\r\ncontent-length: 99999999999999999999",
            Err(ProtocolFault::Length),
            true,
        ),
        (
            "200 OK\r\ntransfer-encoding: gzip, chunked",
            Err(ProtocolFault::TransferEncoding),
            true,
        ),
        (
            "200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            Err(ProtocolFault::TransferEncoding),
            true,
        ),
    ];
    for (text, expected, keep_alive) in cases {
        let parsed = head(&format!("HTTP/1.1 {text}\r\n\r\nrest"));
        let got = parsed.map(|parsed| parsed.unwrap());
        match (got, expected) {
            (Ok((head, length)), Ok(framing)) => {
                assert_eq!(head.framing, framing, "{text}");
                assert_eq!(head.keep_alive, keep_alive, "{text}");
                assert_eq!(length, text.len() + 13, "{text}");
            }
            (got, expected) => assert_eq!(got.err(), expected.err(), "{text}"),
        }
    }
}

#[test]
fn what_an_engine_tells_of_its_idle_connections_is_heeded() {
    for (field, kept) in [
        ("keep-alive: timeout=5", Some(Some(4))),
        ("Keep-Alive: max=100, Timeout = \"20\"", Some(Some(19))),
        ("keep-alive: timeout=1", None),
        ("keep-alive: timeout=0", None),
        ("keep-alive: timeout=x, max=5", Some(None)),
        ("keep-alive: timeout=-1", Some(None)),
        ("keep-alive: 5", Some(None)),
        ("keep-alive-x: timeout=5", Some(None)),
    ] {
        let head = head(&format!("HTTP/1.1 204 X\r\n{field}\r\n\r\n"));
        let head = head.unwrap().unwrap().0;
        let told = head.keep_alive.then(|| head.idle_for.map(NonZeroU32::get));
        assert_eq!(told, kept, "{field}");
    }
}

#[test]
fn http_1_0_closes_unless_it_says_otherwise() {
    for (text, keep_alive) in [
        ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n", false),
        (
            "HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n",
            true,
        ),
    ] {
        assert_eq!(head(text).unwrap().unwrap().0.keep_alive, keep_alive);
    }
    let chunked = head("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(chunked.unwrap_err(), ProtocolFault::TransferEncoding);
}

#[test]
fn heads_are_bounded_and_may_come_in_pieces() {
    assert!(head("HTTP/1.1 200 OK\r\nx: y\r\n").unwrap().is_none());
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert_eq!(head(&many).unwrap_err(), ProtocolFault::HeadTooLarge);
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_HEAD));
    assert_eq!(head(&long).unwrap_err(), ProtocolFault::HeadTooLarge);
    assert_eq!(head("garbage\r\n\r\n").unwrap_err(), ProtocolFault::Head);
}

#[test]
fn a_head_request_has_no_body_and_an_upgrade_may_be_101() {
    let text = Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    let asked = Asked {
        head_only: true,
        ..PLAIN
    };
    let (head, _) = parse_head(&text, asked).unwrap().unwrap();
    assert_eq!(head.framing, Framing::Empty);
    let text = Bytes::from_static(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n");
    let asked = Asked {
        upgrade: true,
        ..PLAIN
    };
    let (head, _) = parse_head(&text, asked).unwrap().unwrap();
    assert_eq!(head.framing, Framing::Empty);
}

/// Decodes `wire` in pieces of `step` bytes: the data, what follows the end,
/// and whether the end was seen.
fn decode(
    framing: Framing,
    wire: &[u8],
    step: usize,
) -> Result<(Vec<u8>, usize, bool), ProtocolFault> {
    let mut decoder = Decoder::new(framing);
    let (mut data, mut used) = (Vec::new(), 0);
    for piece in wire.chunks(step) {
        let decoded = decoder.decode(piece, Bytes::copy_from_slice)?;
        data.extend_from_slice(&decoded.data);
        used += decoded.used;
        if decoder.ended() {
            break;
        }
    }
    // What came before a fault is given out first.
    if let Some(fault) = decoder.fault() {
        return Err(fault);
    }
    Ok((data, wire.len() - used, decoder.ended()))
}

#[test]
fn bodies_end_where_they_should_in_pieces_of_any_size() {
    for step in 1..40 {
        let chunked = b"3\r\nabc\r\nA;ext=1\r\n0123456789\r\n0\r\nx: y\r\n\r\nNEXT";
        let (data, _, ended) = decode(Framing::Chunked, chunked, step).unwrap();
        assert_eq!(
            (data.as_slice(), ended),
            (b"abc0123456789".as_slice(), true)
        );
        let (data, _, ended) = decode(Framing::Length(3), b"abcNEXT", step).unwrap();
        assert_eq!((data.as_slice(), ended), (b"abc".as_slice(), true));
        let (data, surplus, ended) = decode(Framing::UntilClose, b"abc", step).unwrap();
        assert_eq!(
            (data.as_slice(), surplus, ended),
            (b"abc".as_slice(), 0, false)
        );
    }
    let (_, surplus, _) = decode(Framing::Chunked, b"0\r\n\r\nNEXT", 99).unwrap();
    assert_eq!(surplus, 4);
}

#[test]
fn bad_chunks_are_faults() {
    for wire in [
        "\r\n",
        "x\r\n",
        "3\nabc",
        "3\r\nabcd",
        "3\r\nabc\n",
        "0x3\r\nabc\r\n",
        "-3\r\n",
        " 3\r\n",
        "3;\n\r\n",
        "0\r\n\n",
        "11111111111111111\r\n",
    ] {
        let got = decode(Framing::Chunked, wire.as_bytes(), 99);
        assert_eq!(got.unwrap_err(), ProtocolFault::Chunk, "{wire:?}");
    }
    let flood = format!("3;{}\r\n", "x".repeat(MAX_EXTRA as usize + 1));
    let got = decode(Framing::Chunked, flood.as_bytes(), 4096);
    assert_eq!(got.unwrap_err(), ProtocolFault::Chunk);
}

proptest! {
    #[test]
    fn whatever_is_chunked_comes_out_again(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
        step in 1usize..700,
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        let (data, surplus, ended) = decode(Framing::Chunked, &wire, step).unwrap();
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!((surplus, ended), (0, true));
    }

    #[test]
    fn no_input_panics(wire in prop::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
        let _ = decode(Framing::Chunked, &wire, step);
        let _ = parse_head(&Bytes::from(wire), PLAIN);
    }
}
