use proptest::prelude::*;

use super::*;

fn told(pieces: &[&[u8]]) -> Result<String, Bad> {
    let (mut deltas, mut out) = (Deltas::default(), Vec::new());
    for piece in pieces {
        deltas.push(piece, &mut out)?;
    }
    deltas.finish(&mut out)?;
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
    ":\n\n",
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
    for (text, bad) in [
        ("", Bad::Unfinished),
        (
            "data: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n\n",
            Bad::Unfinished,
        ),
        ("data: {\"choices\":[{\"delta\":{}", Bad::Unfinished),
        ("data: [DON", Bad::Unfinished),
        ("data: no JSON\n\ndata: [DONE]\n\n", Bad::Unreadable),
        ("data: {\"choices\":7}\n\n", Bad::Unreadable),
    ] {
        assert_eq!(told(&[text.as_bytes()]), Err(bad), "{text}");
    }
}

#[test]
fn an_engines_error_is_the_last_event() {
    let own = |message: &str| {
        serde_json::json!({"error": {
            "message": message, "type": "upstream_error", "param": null, "code": "engine_error",
        }})
    };
    let whole = serde_json::json!({"error": {"message": "x"}});
    let old = serde_json::json!({"error": {"object": "error", "message": "old"}});
    for (text, expected) in [
        (
            "data: {\"error\":{\"message\":\"x\"}}\n\ndata: [DONE]\n\n",
            whole.clone(),
        ),
        (
            "data: {\"error\":\ndata: {\"message\":\"x\"}}\n\n",
            whole.clone(),
        ),
        // Line ends of the engine's own do not end our event.
        ("data: {\"error\":{\ndata: \"message\":\"x\"}}\n\n", whole),
        ("data: {\"error\":\"boom\"}\n\n", own("boom")),
        ("data: {\"error\":{\"detail\":\"d\"}}\n\n", own("d")),
        (
            "data: {\"error\":7}\n\n",
            own("The engine's stream ended with an error."),
        ),
        ("data: {\"object\":\"error\",\"message\":\"old\"}\n\n", old),
    ] {
        let told = told(&[text.as_bytes()]).unwrap();
        let event = told
            .strip_prefix("data: ")
            .and_then(|told| told.strip_suffix("\n\n"));
        let event = event.unwrap();
        assert!(!event.contains('\n'), "{event}");
        let event: Value = serde_json::from_str(event).unwrap();
        assert_eq!(event, expected, "{text}");
    }
}

#[test]
fn what_is_null_is_not_there() {
    let text = concat!(
        "data: {\"choices\":null,\"error\":null,\"object\":null}\n\n",
        "data: {\"choices\":[{\"index\":null,\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":null,\"finish_reason\":\"stop\"}]}\n\n",
    );
    let expected = "data: {\"delta\":\"a\"}\n\ndata: {\"delta\":\"[END_OF_STREAM]\"}\n\n";
    assert_eq!(told(&[text.as_bytes()]).unwrap(), expected);
}

#[test]
fn the_last_empty_line_may_be_missing() {
    for end in [
        "data: [DONE]",
        "data:[DONE]\r",
        "data: [DONE]\n",
        "data: [DONE]\r\n",
    ] {
        let text = format!("data: {{\"choices\":[{{\"text\":\"a\"}}]}}\n\n{end}");
        let expected = "data: {\"delta\":\"a\"}\n\ndata: {\"delta\":\"[END_OF_STREAM]\"}\n\n";
        assert_eq!(told(&[text.as_bytes()]).unwrap(), expected, "{end:?}");
    }
}

#[test]
fn a_model_that_writes_the_marker_does_not_end_the_stream() {
    for text in [
        "[END_OF_STREAM]",
        "\\u005bEND_OF_STREAM]",
        "[END\\u005fOF_STREAM\\u005D",
    ] {
        let text = format!("data: {{\"choices\":[{{\"text\":\"{text}\"}}]}}\n\ndata: [DONE]\n\n");
        let told = told(&[text.as_bytes()]).unwrap();
        let expected = "data: {\"delta\":\"[END_OF\"}\n\ndata: {\"delta\":\"_STREAM]\"}\n\n";
        assert_eq!(
            told,
            format!("{expected}data: {{\"delta\":\"[END_OF_STREAM]\"}}\n\n")
        );
    }
    for text in [
        "[END_OF_STREAM]x",
        "\\n[END_OF_STREAM]",
        "\\\\END_OF_STREAM]]",
    ] {
        let text = format!("data: {{\"choices\":[{{\"text\":\"{text}\"}}]}}\n\ndata: [DONE]\n\n");
        assert_eq!(
            told(&[text.as_bytes()]).unwrap().matches("delta").count(),
            2,
            "{text}"
        );
    }
}

#[test]
fn an_event_is_bounded() {
    let long = vec![b'x'; MOST];
    assert_eq!(told(&[&long]), Err(Bad::Unfinished));
    assert_eq!(told(&[&long, b"x"]), Err(Bad::TooLong));
    let line = [b"data: ".as_slice(), &long[..MOST / 2], b"\n"].concat();
    assert_eq!(told(&[&line, &line, &line]), Err(Bad::TooLong));
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
        let once = told(&pieces);
        let whole = told(&[&pieces.concat()]);
        prop_assert_eq!(once, whole);
    }
}
