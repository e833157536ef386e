use serde_json::{Value, json};

use super::*;

/// What an engine gets for this data, and where.
fn made(data: &Value) -> Result<(Mode, Value), InferError> {
    let text = json!({"session_id": "s", "seq_no": 1, "data": data}).to_string();
    let request = read(&text)?;
    let body = request.job.body("m", None);
    Ok((request.job.mode, serde_json::from_str(&body).unwrap()))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_mode_is_an_api_of_the_engine() {
    let user = json!([{"role": "user", "content": "hi"}]);
    for (data, mode, expected) in [
        (
            json!({"mode": "chat", "message": "hi"}),
            Mode::Chat,
            json!({"model": "m", "messages": user}),
        ),
        (
            json!({"message": "hi", "session_id": "s"}),
            Mode::Chat,
            json!({"model": "m", "messages": user}),
        ),
        (
            json!({"message": "hi", "system_message": "be \"kind\""}),
            Mode::Chat,
            json!({"model": "m", "messages": [
                {"role": "system", "content": "be \"kind\""}, {"role": "user", "content": "hi"},
            ]}),
        ),
        (
            json!({"messages": user, "system_message": "s", "mode": null}),
            Mode::Chat,
            json!({"model": "m", "messages": [
                {"role": "system", "content": "s"}, {"role": "user", "content": "hi"},
            ]}),
        ),
        (
            json!({"message": [{"type": "image_url", "image_url": {"url": "data:,"}}]}),
            Mode::Chat,
            json!({"model": "m", "messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:,"}},
            ]}]}),
        ),
        (
            json!({"message": "hi", "gen_params": {
                "temperature": 0.1, "max_tokens": 256, "stop": ["\n"], "n\"": null,
            }}),
            Mode::Chat,
            json!({"model": "m", "messages": user,
                "temperature": 0.1, "max_tokens": 256, "stop": ["\n"], "n\"": null}),
        ),
        (
            json!({"message": "hi", "stream": true}),
            Mode::Chat,
            json!({"model": "m", "messages": user, "stream": true}),
        ),
        (
            json!({"prompt": "once"}),
            Mode::Generate,
            json!({"model": "m", "prompt": "once"}),
        ),
        (
            json!({"mode": "generate", "message": "once"}),
            Mode::Generate,
            json!({"model": "m", "prompt": "once"}),
        ),
        (
            json!({"mode": "tokens", "text": "a b"}),
            Mode::Tokens,
            json!({"model": "m", "prompt": "a b", "content": "a b"}),
        ),
        (
            json!({"mode": "tokens", "messages": user}),
            Mode::Tokens,
            json!({"model": "m", "messages": user}),
        ),
        (
            json!({"text": ["a", "b"], "gen_params": {"dimensions": 8}}),
            Mode::Embed,
            json!({"model": "m", "input": ["a", "b"], "dimensions": 8}),
        ),
        (
            json!({"mode": "embed", "message": "a"}),
            Mode::Embed,
            json!({"model": "m", "input": "a"}),
        ),
    ] {
        assert_eq!(made(&data), Ok((mode, expected)), "{data}");
    }
}

#[test]
fn numbers_stay_as_they_are_written() {
    let text = r#"{"session_id":"s","seq_no":18446744073709551615,"data":
        {"prompt":"a","gen_params":{"seed":123456789012345678901234567890,"top_p":1.0e-0}}}"#;
    let request = read(text).unwrap();
    assert_eq!(request.seq_no, u64::MAX);
    let body = request.job.body("m", None);
    assert!(body.contains(r#""seed":123456789012345678901234567890,"top_p":1.0e-0"#));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_wrong_is_told_with_its_place() {
    let whole = |key: &str, value: Value| {
        let mut whole = json!({"session_id": "s", "seq_no": 1, "data": {"message": "hi"}});
        whole[key] = value;
        whole
    };
    let data = |data: Value| whole("data", data);
    for (request, pointer, said) in [
        (json!({"seq_no": 1, "data": {}}), "/session_id", "missing"),
        (whole("session_id", json!(7)), "/session_id", "text, not 7"),
        (whole("session_id", json!("")), "/session_id", "1 to 256"),
        (
            whole("session_id", json!("x".repeat(257))),
            "/session_id",
            "1 to 256",
        ),
        (json!({"session_id": "s", "data": {}}), "/seq_no", "missing"),
        (whole("seq_no", json!("11")), "/seq_no", "not \"11\""),
        (whole("seq_no", json!(-1)), "/seq_no", "not -1"),
        (whole("seq_no", json!(1.5)), "/seq_no", "whole number"),
        (whole("seq_no", json!([1])), "/seq_no", "an array"),
        (json!({"session_id": "s", "seq_no": 1}), "/data", "missing"),
        (data(json!("hi")), "/data", "an object"),
        (data(json!({})), "/data", "`message`"),
        (data(json!({"mode": "chat"})), "/data", "`message`"),
        (data(json!({"mode": "generate"})), "/data", "`prompt`"),
        (data(json!({"mode": "tokens"})), "/data", "`text`"),
        (
            data(json!({"mode": "chatt", "message": "a"})),
            "/data/mode",
            "did you mean \"chat\"?",
        ),
        (data(json!({"mode": 1})), "/data/mode", "text, not 1"),
        (data(json!({"message": 1})), "/data/message", "a number"),
        (
            data(json!({"message": "a", "messages": []})),
            "/data",
            "one of them",
        ),
        (data(json!({"messages": "a"})), "/data/messages", "an array"),
        (
            data(json!({"messages": []})),
            "/data/messages",
            "one message",
        ),
        (
            data(json!({"messages": {"a": []}})),
            "/data/messages",
            "an object",
        ),
        (data(json!({"prompt": {}})), "/data/prompt", "an object"),
        (
            data(json!({"mode": "tokens", "text": "a", "gen_params": {"content": "b"}})),
            "/data/gen_params/content",
            "`text` of data",
        ),
        (
            data(json!({"message": "a", "system_message": 1})),
            "/data/system_message",
            "text",
        ),
        (
            data(json!({"message": "a", "gen_params": [1]})),
            "/data/gen_params",
            "an object",
        ),
        (
            data(json!({"message": "a", "gen_params": {"stream": true}})),
            "/data/gen_params/stream",
            "`stream` of the request",
        ),
        (
            data(json!({"message": "a", "gen_params": {"model": "x"}})),
            "/data/gen_params/model",
            "`model`",
        ),
        (whole("stream", json!("yes")), "/stream", "true or false"),
        (
            data(json!({"message": "a", "stream": 1})),
            "/data/stream",
            "true or false",
        ),
        (
            data(json!({"text": "a", "stream": true})),
            "/stream",
            "only chat",
        ),
        (whole("model", json!(1)), "/model", "text, not 1"),
        (whole("graph", json!("x")), "/graph", "an object, not text"),
    ] {
        let text = request.to_string();
        let error = read(&text).unwrap_err();
        let InferError::Wrong {
            pointer: found,
            message,
            param,
        } = &error
        else {
            panic!("{error:?}: {text}");
        };
        assert_eq!(found, pointer, "{text}");
        assert!(message.contains(said), "{message}: {text}");
        assert!(pointer.contains(param), "{param}: {text}");
    }
    let long = json!({"session_id": "s", "seq_no": 1, "data": {"mode": 1, "x": 2}}).to_string();
    let long = long.replace(
        "\"mode\":1",
        &format!("\"{0}\":1,\"{0}\":2", "ä".repeat(9999)),
    );
    assert!(read(&long).unwrap_err().to_string().len() < 300);
    let model = "x".repeat(1025);
    let text = whole("model", json!(model)).to_string();
    assert!(read(&text).unwrap_err().to_string().starts_with("/model"));
    for text in ["", "[]", "{", "1", r#"{"model":"a","model":"b"}"#] {
        assert!(matches!(read(text), Err(InferError::NoJson(_))), "{text}");
    }
}

#[test]
fn a_list_of_messages_is_passed_on_as_it_is_written() {
    for (list, system, expected) in [
        ("[ {\"a\" :1} , 2 ]", "", "[ {\"a\" :1} , 2 ]"),
        (
            "[{}]",
            r#","system_message":"s""#,
            r#"[{"role":"system","content":"s"},{}]"#,
        ),
    ] {
        let text =
            format!(r#"{{"session_id":"s","seq_no":1,"data":{{"messages":{list}{system}}}}}"#);
        let body = read(&text).unwrap().job.body("m", None);
        assert_eq!(body, format!(r#"{{"model":"m","messages":{expected}}}"#));
    }
    let with =
        |list: &str| format!(r#"{{"session_id":"s","seq_no":1,"data":{{"messages":{list}}}}}"#);
    assert!(read(&with("[ \n]")).is_err());
    // As many as there may be: they are not looked at.
    let many = with(&format!("[1{}]", ",1".repeat(4 << 20)));
    assert_eq!(
        read(&many).unwrap().job.body("m", None).len(),
        (8 << 20) + 28
    );
}

#[test]
fn an_empty_graph_is_none() {
    let with = |graph: &str| {
        format!(r#"{{"session_id":"s","seq_no":1,"data":{{"message":"a"}},"graph":{graph}}}"#)
    };
    for graph in ["{}", "[]", "null", "{ }", "[\n]"] {
        assert!(read(&with(graph)).is_ok(), "{graph}");
    }
    for graph in [r#"{"a":["b"]}"#, "[1]"] {
        assert_eq!(read(&with(graph)).unwrap_err(), InferError::Graph);
    }
}

#[test]
fn models_and_selections_may_be_left_open() {
    let with =
        |keys: &str| format!(r#"{{"session_id":"s","seq_no":1,"data":{{"message":"a"}},{keys}}}"#);
    for (keys, model, selection) in [
        (r#""model":"""#, None, None),
        (r#""model":null,"selection_query":null"#, None, None),
        (r#""model":"auto","selection_query":{}"#, None, None),
        (r#""model":"m""#, Some("m"), None),
        (r#""selection_query": {"a": 1}"#, None, Some(r#"{"a": 1}"#)),
    ] {
        let text = with(keys);
        let request = read(&text).unwrap();
        assert_eq!(request.model.as_deref(), model);
        assert_eq!(request.selection.map(RawValue::get), selection);
        let body = request.job.body("", request.selection);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["selection_query"]["a"].is_null(), selection.is_none());
    }
}

#[test]
fn what_has_no_effect_is_told() {
    let data = json!({"prompt": "a", "system_message": "s", "files": [], "mode": "generate"});
    let whole = json!({
        "session_id": "s", "seq_no": 1, "ts": 1.0, "frame_ptr": "x", "data": data,
    });
    let text = whole.to_string();
    let request = read(&text).unwrap();
    assert_eq!(
        request.warnings,
        [
            "/frame_ptr has no effect",
            "/data/files has no effect",
            "/data/system_message has no effect in this mode",
        ]
    );
    let many: serde_json::Map<String, Value> =
        (0..99).map(|n| (format!("k{n}"), json!(1))).collect();
    let mut whole = json!({"session_id": "s", "seq_no": 1, "data": {"message": "a"}});
    whole.as_object_mut().unwrap().extend(many);
    assert_eq!(read(&whole.to_string()).unwrap().warnings.len(), 16);
}
