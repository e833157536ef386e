use proptest::prelude::*;

use super::*;

fn told(pieces: &[&[u8]]) -> Result<String, TooLong> {
    let (mut deltas, mut out) = (Deltas::default(), Vec::new());
    for piece in pieces {
        deltas.push(piece, &mut out)?;
    }
    deltas.finish(&mut out);
    Ok(String::from_utf8(out).unwrap())
}

const CHAT: &str = concat!(
    ": a comment\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
    "data:{\"choices\":[{\"delta\":{\"reasoning_content\":\"so\",\"reasoning\":\"so\"}}]}\r\n\r\n",
    "event: x\nid: 1\ndata: {\"choices\":\ndata: [{\"index\":0,\"delta\":{\"content\":\"a\\nä\\\"\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"not the first\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n",
    "data: [DONE]\n\ndata: [DONE]\n\n",
);
const TOLD: &str = concat!(
    "data: {\"delta\":\"\",\"reasoning\":\"so\"}\n\n",
    "data: {\"delta\":\"a\\nä\\\"\"}\n\n",
    "data: {\"delta\":\"b\"}\n\n",
    "data: {\"delta\":\"\",\"usage\":{\"total_tokens\":3}}\n\n",
    "data: {\"delta\":\"[END_OF_STREAM]\"}\n\n",
);

#[test]
fn events_become_deltas_and_end_once() {
    assert_eq!(told(&[CHAT.as_bytes()]).unwrap(), TOLD);
    let text = "data: {\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\ndata: [DONE]\n\n";
    let expected = "data: {\"delta\":\"a\"}\n\ndata: {\"delta\":\"[END_OF_STREAM]\"}\n\n";
    assert_eq!(told(&[text.as_bytes()]).unwrap(), expected);
}

#[test]
fn a_stream_that_was_finished_needs_no_done() {
    let text = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    assert_eq!(told(&[text.as_bytes()]).unwrap().as_bytes(), END);
}

#[test]
fn what_did_not_end_well_has_no_end() {
    let error = "data: {\"error\":{\"message\":\"x\"}}\n\n";
    for (text, expected) in [
        ("", CUT_EVENT),
        (
            "data: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n\n",
            CUT_EVENT,
        ),
        ("data: {\"choices\":[{\"delta\":{}", CUT_EVENT),
        ("data: [DON", CUT_EVENT),
        ("data: no JSON\n\ndata: [DONE]\n\n", UNREADABLE),
        (
            "data: {\"error\":{\"message\":\"x\"}}\n\ndata: [DONE]\n\n",
            error,
        ),
        ("data: {\"error\":\ndata: {\"message\":\"x\"}}\n\n", error),
    ] {
        assert_eq!(told(&[text.as_bytes()]).unwrap(), expected, "{text}");
    }
    // Line ends of the engine's own do not end our event.
    let lines = "data: {\"error\":{\ndata: \"message\":\"x\"}}\n\n";
    assert_eq!(told(&[lines.as_bytes()]).unwrap(), error);
}

#[test]
fn an_event_is_bounded() {
    let long = vec![b'x'; MOST];
    assert!(told(&[&long]).is_ok());
    assert_eq!(told(&[&long, b"x"]), Err(TooLong));
    let line = [b"data: ".as_slice(), &long[..MOST / 2], b"\n"].concat();
    assert_eq!(told(&[&line, &line, &line]), Err(TooLong));
}

proptest! {
    #[test]
    fn cuts_change_nothing(cuts in prop::collection::vec(0..CHAT.len(), 0..12)) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for cut in cuts.into_iter().chain([CHAT.len()]) {
            pieces.push(&CHAT.as_bytes()[from..cut]);
            from = cut;
        }
        prop_assert_eq!(told(&pieces).unwrap(), TOLD);
    }

    #[test]
    fn anything_may_come(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let once = told(&pieces).unwrap();
        let whole = told(&[&pieces.concat()]).unwrap();
        prop_assert_eq!(once, whole);
    }
}
