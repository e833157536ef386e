use serde_json::json;

use super::*;

fn told(mode: Mode, answer: &Value, warnings: &[String]) -> Result<Value, InferError> {
    let envelope = Envelope {
        model: "b\"1",
        session: "s",
        seq_no: u64::MAX,
        ts: Duration::from_millis(1_700_000_000_123),
        warnings,
    };
    let whole = envelope.whole(mode, answer.to_string().as_bytes())?;
    Ok(serde_json::from_str(&whole).unwrap())
}

#[test]
fn each_mode_has_an_answer_of_its_own() {
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 2});
    let chat = |message: Value| {
        json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage})
    };
    for (mode, answer, data) in [
        (
            Mode::Chat,
            chat(json!({"role": "assistant", "content": "a\n\"b\""})),
            json!({"reply": "a\n\"b\"", "finish_reason": "stop", "usage": usage}),
        ),
        (
            Mode::Chat,
            chat(json!({"content": null, "tool_calls": [{"id": "1"}], "reasoning": "so"})),
            json!({"reply": "", "reasoning": "so", "tool_calls": [{"id": "1"}],
                "finish_reason": "stop", "usage": usage}),
        ),
        (
            Mode::Generate,
            json!({"choices": [{"text": "on and on", "finish_reason": null}]}),
            json!({"generated": "on and on"}),
        ),
        (
            Mode::Tokens,
            json!({"tokens": [1, 2], "count": 2, "max_model_len": 9}),
            json!({"tokens": [1, 2], "count": 2}),
        ),
        (
            Mode::Embed,
            json!({"data": [{"index": 0, "embedding": [0.5]}], "usage": usage}),
            json!({"embedding": [0.5], "usage": usage}),
        ),
        (
            Mode::Embed,
            json!({"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}]}),
            json!({"embedding": [[1], [2]]}),
        ),
    ] {
        let whole = told(mode, &answer, &[]).unwrap();
        let expected = json!({
            "model": "b\"1", "session_id": "s", "seq_no": u64::MAX,
            "ts": 1_700_000_000.123, "data": data,
        });
        assert_eq!(whole, expected, "{answer}");
    }
    let warned = told(Mode::Tokens, &json!({"tokens": []}), &["w".to_owned()]);
    assert_eq!(warned.unwrap()["warnings"], json!(["w"]));
}

#[test]
fn lists_of_an_answer_are_bounded() {
    for (mode, key) in [(Mode::Chat, "choices"), (Mode::Embed, "data")] {
        let many = format!("{{\"{key}\":[{}{{}}]}}", "{},".repeat(1 << 16));
        let many: Value = serde_json::from_str(&many).unwrap();
        let error = told(mode, &many, &[]).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
    }
}

#[test]
fn what_is_no_answer_is_an_error() {
    for (mode, answer) in [
        (Mode::Chat, json!([])),
        (Mode::Chat, json!({"choices": []})),
        (Mode::Chat, json!({"choices": null})),
        (Mode::Chat, json!({"choices": [{"text": "a"}]})),
        (
            Mode::Generate,
            json!({"choices": [{"message": {"content": "a"}}]}),
        ),
        (Mode::Tokens, json!({"count": 1})),
        (Mode::Embed, json!({"data": []})),
        (Mode::Embed, json!({"data": [{"embedding": null}]})),
        (Mode::Embed, json!("x")),
    ] {
        let error = told(mode, &answer, &[]).unwrap_err();
        assert!(matches!(error, InferError::Answer(_)), "{answer}: {error}");
    }
}

#[test]
fn engines_errors_keep_what_they_say() {
    let own = |message: &str| json!({"message": message, "type": "upstream_error", "param": null, "code": 418});
    let long = format!("{}…", "x".repeat(256));
    let vllm = json!({"message": "too long", "type": "BadRequestError", "code": 400});
    for (answer, message, error) in [
        (json!({"error": vllm}).to_string(), "too long", vllm.clone()),
        (vllm.to_string(), "too long", vllm.clone()),
        (json!({"error": "no"}).to_string(), "no", own("no")),
        (
            json!({"detail": "Not Found"}).to_string(),
            "Not Found",
            own("Not Found"),
        ),
        (
            json!({"detail": [{"loc": ["body"], "msg": "m"}]}).to_string(),
            r#"[{"loc":["body"],"msg":"m"}]"#,
            own(r#"[{"loc":["body"],"msg":"m"}]"#),
        ),
        (
            json!({"detail": "x".repeat(999)}).to_string(),
            &long,
            own(&long),
        ),
        (json!({"error": {"message": 7}}).to_string(), "7", own("7")),
        (
            json!({"object": "error", "message": "old", "code": 1}).to_string(),
            "old",
            json!({"object": "error", "message": "old", "code": 1}),
        ),
        (
            json!({"error": {"kind": "x"}}).to_string(),
            "The engine answered with status 418.",
            own("The engine answered with status 418."),
        ),
        (
            "<html>".to_owned(),
            "The engine answered with status 418.",
            own("The engine answered with status 418."),
        ),
    ] {
        let whole: Value = serde_json::from_str(&super::error(418, answer.as_bytes())).unwrap();
        let expected = json!({"success": false, "message": message, "error": error});
        assert_eq!(whole, expected, "{answer}");
    }
}
