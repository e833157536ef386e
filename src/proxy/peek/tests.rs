use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn scan(body: &[u8], step: usize) -> Result<Found, PeekFault> {
    let mut scanner = Scanner::default();
    for piece in body.chunks(step.max(1)) {
        scanner.push(piece)?;
    }
    scanner.finish()?;
    Ok(scanner.found)
}

fn name(model: &str) -> ModelField {
    ModelField::Name(model.to_owned())
}

#[test]
fn finds_the_keys_wherever_they_stand_in_pieces_of_any_size() {
    let body = br#" {"messages":[{"role":"user","content":"\"model\":\"no\" \u00e9 \\"}],
        "nested":{"model":"no","stream":true}, "max_tokens":7,"max_completion_tokens": 9,
        "user":"u\n1","session_id":42,"stream":true,"\u006dodel":"a\u0062\ud83d\ude00" , "x":-1.5e+3} "#;
    for step in 1..body.len() {
        let found = scan(body, step).unwrap();
        assert_eq!(found.model, name("ab😀"), "step {step}");
        assert_eq!(found.stream, Some(true));
        assert_eq!(found.max_tokens, Some(9));
        assert_eq!(found.user.as_deref(), Some("u\n1"));
        assert_eq!(found.session_id.as_deref(), Some("42"));
        assert!(found.is_object);
    }
}

#[test]
fn other_types_are_told_apart() {
    for (body, model) in [
        (r#"{}"#, ModelField::Missing),
        (r#"{"model":null}"#, ModelField::NotText),
        (r#"{"model":1}"#, ModelField::NotText),
        (r#"{"model":{"a":1}}"#, ModelField::NotText),
        (r#"{"model":["a"]}"#, ModelField::NotText),
        (r#"{"model":""}"#, name("")),
        (r#"{"model":"\ud83d"}"#, name("\u{fffd}")),
        (
            r#"{"a":{"model":"no"},"b":["model","no"]}"#,
            ModelField::Missing,
        ),
    ] {
        assert_eq!(scan(body.as_bytes(), 3).unwrap().model, model, "{body}");
    }
    assert_eq!(scan(br#"{"stream":"yes"}"#, 9).unwrap().stream, None);
    assert!(!scan(b"[1,2]", 1).unwrap().is_object);
}

#[test]
fn duplicates_are_refused_even_in_disguise() {
    for (body, key) in [
        (r#"{"model":"a","model":"b"}"#, "model"),
        (r#"{"model":"a","\u006dodel":"b"}"#, "model"),
        (r#"{"model":null,"model":"b"}"#, "model"),
        (r#"{"stream":true,"x":1,"stream":true}"#, "stream"),
    ] {
        let fault = scan(body.as_bytes(), 4).unwrap_err();
        assert_eq!(fault, PeekFault::Duplicate(key), "{body}");
    }
    assert!(scan(br#"{"user":"a","user":"b"}"#, 9).is_ok());
}

#[test]
fn faults_tell_the_position() {
    let cases: [(&[u8], u64); 19] = [
        (b"", 0),
        (b"{\"a\":1", 6),
        (b"{\"a\" 1}", 5),
        (b"{'a':1}", 1),
        (b"{\"a\":1,}", 7),
        (b"[1,]", 3),
        (b"[01]", 2),
        (b"[1.]", 3),
        (b"[nul]", 4),
        (b"[NaN]", 1),
        (b"{} x", 3),
        (b"[1}", 2),
        (b"\xef\xbb\xbf{}", 0),
        (b"[\"\x01\"]", 2),
        (b"[\"\\x\"]", 3),
        (b"[\"\\u12g4\"]", 6),
        (b"[\"\xff\"]", 2),
        (b"[\"\xc0\x80\"]", 2),
        (b"[\"\xed\xa0\x80\"]", 2),
    ];
    for (body, expected) in cases {
        match scan(body, 99) {
            Err(PeekFault::Syntax { at, .. }) => {
                assert_eq!(at, expected, "{}", String::from_utf8_lossy(body));
            }
            other => panic!("{}: {other:?}", String::from_utf8_lossy(body)),
        }
    }
}

#[test]
fn depth_and_lengths_are_bounded() {
    let deep = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
    assert!(scan(deep.as_bytes(), 100).is_ok());
    let deeper = "[".repeat(100_000);
    assert!(matches!(
        scan(deeper.as_bytes(), 100),
        Err(PeekFault::Syntax { at: 1024, .. })
    ));
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(10_000));
    assert_eq!(scan(long.as_bytes(), 100), Err(PeekFault::TooLong("model")));
    let long = format!(r#"{{"{}":1,"model":"m"}}"#, "model".repeat(10_000));
    assert_eq!(scan(long.as_bytes(), 100).unwrap().model, name("m"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("(model|stream|user|[a-z]{0,3})", inner, 0..6)
                .prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_serde_on_what_is_json(value in any_json(), step in 1usize..64, pretty: bool) {
        let body = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let found = scan(body.as_bytes(), step).unwrap();
        let expected = match value.get("model") {
            None => ModelField::Missing,
            Some(Value::String(text)) => name(text),
            Some(_) => ModelField::NotText,
        };
        prop_assert_eq!(found.model, expected);
        prop_assert_eq!(found.stream, value.get("stream").and_then(Value::as_bool));
        prop_assert_eq!(found.is_object, value.is_object());
    }

    #[test]
    fn agrees_with_serde_on_what_is_not(
        value in any_json(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        step in 1usize..64,
    ) {
        let mut body = serde_json::to_vec(&value).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        match scan(&body, step) {
            Ok(_) => prop_assert!(serde_json::from_slice::<Value>(&body).is_ok()
                // serde refuses numbers beyond f64; Python and we do not.
                || body.iter().any(|b| matches!(b, b'e' | b'E'))
                // and lone surrogates, which are no fault of the syntax.
                || body.windows(2).any(|pair| pair == b"\\u")),
            Err(PeekFault::Duplicate(_)) => {}
            Err(_) => prop_assert!(serde_json::from_slice::<Value>(&body).is_err()),
        }
    }

    #[test]
    fn no_input_panics(body in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..20) {
        let _ = scan(&body, step);
    }
}

/// What is left of a body when what is found is taken out.
fn without_selection(body: &str, step: usize) -> (Option<String>, String) {
    let found = scan(body.as_bytes(), step).unwrap();
    let Some(at) = found.selection else {
        return (None, body.to_owned());
    };
    let range = |range: &std::ops::Range<u64>| {
        usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
    };
    let mut rest = body.to_owned();
    rest.replace_range(range(&at.whole), "");
    (Some(body[range(&at.value)].trim().to_owned()), rest)
}

#[test]
fn a_selection_is_cut_out_with_one_comma() {
    for (body, value, rest) in [
        (r#"{"selection_query":{"a":[1,2]}}"#, r#"{"a":[1,2]}"#, "{}"),
        (r#"{"selection_query":1,"b":2}"#, "1", r#"{"b":2}"#),
        (r#"{"a":1,"selection_query":"x"}"#, r#""x""#, r#"{"a":1}"#),
        (
            r#"{"a":1 , "selection_query" : {"b":"}"} , "c":3}"#,
            r#"{"b":"}"}"#,
            r#"{"a":1 , "c":3}"#,
        ),
        (
            r#"{"selection\u005fquery":null,"b":2}"#,
            "null",
            r#"{"b":2}"#,
        ),
        (r#"{ "selection_query":[] }"#, "[]", "{ }"),
    ] {
        for step in 1..body.len() {
            let found = without_selection(body, step);
            assert_eq!(
                found,
                (Some(value.to_owned()), rest.to_owned()),
                "{body} {step}"
            );
        }
    }
    let within = r#"{"a":{"selection_query":1},"b":["selection_query"]}"#;
    assert_eq!(without_selection(within, 3), (None, within.to_owned()));
    let twice = br#"{"selection_query":1,"selection_query":2}"#;
    assert_eq!(scan(twice, 4), Err(PeekFault::Duplicate("selection_query")));
}

proptest! {
    #[test]
    fn without_its_selection_a_body_is_as_if_it_had_never_been_there(
        values in proptest::collection::vec("[a-z]{0,6}|[0-9]{1,5}|\\[\\]|\\{\"k\":\\[1\\]\\}", 0..6),
        at in 0usize..6,
        step in 1usize..40,
    ) {
        let written = |value: &String| {
            let is_bare = value.starts_with(['[', '{']) || value.parse::<u64>().is_ok_and(|_| !value.starts_with('0'));
            if is_bare { value.clone() } else { format!("{value:?}") }
        };
        let mut pairs: Vec<String> = values.iter().enumerate()
            .map(|(n, value)| format!("\"key{n}\": {}", written(value)))
            .collect();
        let plain = format!("{{{}}}", pairs.join(", "));
        let position = at.min(pairs.len());
        pairs.insert(position, r#""selection_query": {"x": ["}"]}"#.to_owned());
        let body = format!("{{{}}}", pairs.join(", "));
        let (value, rest) = without_selection(&body, step);
        prop_assert_eq!(value.as_deref(), Some(r#"{"x": ["}"]}"#));
        let (rest, plain): (Value, Value) =
            (serde_json::from_str(&rest).unwrap(), serde_json::from_str(&plain).unwrap());
        prop_assert_eq!(rest, plain);
    }
}
