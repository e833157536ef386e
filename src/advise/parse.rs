//! What those say who were asked: whatever it is, it is read, or told why not.

use serde_json::Value;

/// Characters of others' words that are quoted in a reason.
const MOST_QUOTED: usize = 200;
/// Candidates that are taken of one answer.
const MOST_NAMED: usize = 64;
/// The keys under which a language model may name its choice; the last is the
/// AIOS reference's.
const KEYS: [&str; 3] = ["id", "blockId", "containerImage"];

/// The beginning of what others said.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted: String = text.chars().take(MOST_QUOTED).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    quoted
}

/// The ids that a matcher names, the best first: `{"id": …}`, `{"ids": […]}`,
/// `{"ranked": […]}`, `[…]`, or the AIOS reference's
/// `{"input_data": {"selected_block": {"id": …}}}`. Members of lists are ids, or
/// objects with an `id`.
pub(super) fn matcher(body: &[u8]) -> Result<Vec<String>, String> {
    let said: Value = serde_json::from_slice(body).map_err(|_| {
        let text = String::from_utf8_lossy(body);
        format!("its answer is no JSON: {}", quoted(&text))
    })?;
    let list = [&said["ranked"], &said["ids"], &said];
    let list = list.into_iter().find_map(Value::as_array);
    let one = [
        Some(&said["id"]),
        said.pointer("/input_data/selected_block/id"),
    ];
    let named: Vec<String> = match list {
        Some(list) => list.iter().filter_map(id).take(MOST_NAMED).collect(),
        None => one.into_iter().flatten().filter_map(id).take(1).collect(),
    };
    if named.is_empty() {
        let text = quoted(&said.to_string());
        return Err(format!(
            "its answer has no `id`, and no list of them in `ids` or `ranked`: {text}"
        ));
    }
    Ok(named)
}

fn id(value: &Value) -> Option<String> {
    let id = value.as_str().or_else(|| value["id"].as_str())?;
    Some(id.to_owned())
}

/// What a language model replied: `{"reply": …}`, as AIOS blocks do, or a chat
/// completion, whose content may be such an object too.
pub(super) fn reply(body: &[u8]) -> Option<String> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let content = said.pointer("/choices/0/message/content");
    let text = [said.get("reply"), content]
        .into_iter()
        .flatten()
        .find_map(|one| match one {
            Value::String(text) => Some(text.clone()),
            Value::Object(of) => Some(match of.get("reply").and_then(Value::as_str) {
                Some(text) => text.to_owned(),
                None => one.to_string(),
            }),
            _ => None,
        })?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What a reply may name, as the AIOS reference looks for it: a fenced block of
/// JSON, else the whole as JSON, else the last line.
pub(super) fn named(reply: &str) -> Vec<String> {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    let chosen = |text: &str| {
        let said = read(text).unwrap_or_default();
        let keys = KEYS.iter().filter_map(|key| said.get(key)?.as_str());
        let keys = keys.map(str::trim).filter(|name| !name.is_empty());
        let named: Vec<String> = keys.map(str::to_owned).collect();
        (!named.is_empty()).then_some(named)
    };
    let last = reply.lines().last().unwrap_or_default().trim();
    let steps = [fenced(reply), Some(reply), Some(last)];
    let named = steps.into_iter().flatten().find_map(chosen);
    named.unwrap_or_else(|| {
        let bare = last.trim_matches(['"', '`', '\'']).trim();
        let bare = Some(bare).filter(|bare| !bare.is_empty());
        bare.into_iter().map(str::to_owned).collect()
    })
}

/// What stands in the first fenced block of JSON.
fn fenced(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("```json")?;
    let (inside, _) = rest.split_once("```")?;
    Some(inside.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_matchers_say() {
        for (body, named) in [
            (r#"{"id":"a"}"#, vec!["a"]),
            (r#"{"ids":["a","b"]}"#, vec!["a", "b"]),
            (r#"{"ranked":["b","a"]}"#, vec!["b", "a"]),
            (
                r#"{"ranked":[{"id":"b","score":1},{"id":"a"}]}"#,
                vec!["b", "a"],
            ),
            (r#"["a"]"#, vec!["a"]),
            (r#"[1,null,{"x":1},"a"]"#, vec!["a"]),
            (r#"{"id":"c","ranked":["a"]}"#, vec!["a"]),
            (
                r#"{"allowed":true,"input_data":{"selected_block":{"id":"a"}}}"#,
                vec!["a"],
            ),
        ] {
            assert_eq!(matcher(body.as_bytes()).unwrap(), named, "{body}");
        }
        for (body, word) in [
            ("I would take a.", "no JSON"),
            ("", "no JSON"),
            ("<html>", "no JSON"),
            (r#""a""#, "no `id`"),
            ("7", "no `id`"),
            ("null", "no `id`"),
            ("[]", "no `id`"),
            (r#"{"id":7}"#, "no `id`"),
            (r#"{"ids":"a"}"#, "no `id`"),
            (r#"{"ids":[[]]}"#, "no `id`"),
            (r#"{"error":"x"}"#, "no `id`"),
        ] {
            let why = matcher(body.as_bytes()).unwrap_err();
            assert!(why.contains(word), "{body}: {why}");
        }
        let many = serde_json::to_vec(&vec!["a"; 1000]).unwrap();
        assert_eq!(matcher(&many).unwrap().len(), MOST_NAMED);
        let long = "x".repeat(100_000);
        assert!(matcher(long.as_bytes()).unwrap_err().len() < 300);
    }

    #[test]
    fn what_models_reply() {
        let chat =
            |content: &str| format!(r#"{{"choices":[{{"message":{{"content":{content}}}}}]}}"#);
        for (body, text) in [
            (r#"{"reply":" a "}"#.to_owned(), Some("a")),
            (chat(r#""a""#), Some("a")),
            (chat(r#"{"reply":"a"}"#), Some("a")),
            (chat(r#"{"id":"a"}"#), Some(r#"{"id":"a"}"#)),
            (chat("null"), None),
            (chat(r#""""#), None),
            (r#"{"reply":7}"#.to_owned(), None),
            (r#"{"choices":[]}"#.to_owned(), None),
            (r#"["a"]"#.to_owned(), None),
            ("prose".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(reply(body.as_bytes()).as_deref(), text, "{body}");
        }
    }

    #[test]
    fn whom_replies_name() {
        for (reply, expected) in [
            // The reference's three steps.
            (
                "```json\n{\"containerImage\":\"x/y:1\"}\n```",
                vec!["x/y:1"],
            ),
            ("Well:\n```json\n{\"id\":\"a\"}\n```\nor b", vec!["a"]),
            (r#"{"containerImage":"x/y:1"}"#, vec!["x/y:1"]),
            ("I thought of b.\nx/y:1  ", vec!["x/y:1"]),
            // A block that is no JSON, or names nobody: the next step.
            ("```json\n{oops\n```\na", vec!["a"]),
            ("```json\n{\"x\":1}\n```\na", vec!["a"]),
            ("```json\r\n{\"id\":\"a\"}\r\n```", vec!["a"]),
            ("```json\n{\"id\":\"a\"}", vec!["a"]),
            // Other keys, and several.
            (r#"{"id":"a"}"#, vec!["a"]),
            (r#"{"blockId":" a "}"#, vec!["a"]),
            (r#"{"containerImage":"x","id":"a"}"#, vec!["a", "x"]),
            (r#"{"id":"","blockId":"a"}"#, vec!["a"]),
            // Thinking aloud first.
            ("<think>b?</think>\n{\"id\":\"a\"}", vec!["a"]),
            // Quoted, and in code.
            ("\"a\"", vec!["a"]),
            ("The best is\n`a`", vec!["a"]),
            // Where Python would raise.
            (r#"["a"]"#, vec![r#"["a"]"#]),
            ("7", vec!["7"]),
            ("null", vec!["null"]),
            (r#"{"id":7}"#, vec![r#"{"id":7}"#]),
            ("```json\n[\"a\"]\n```\n", vec![]),
            ("", vec![]),
            ("\n\n", vec![]),
            (
                "I would take a, as it is quick.",
                vec!["I would take a, as it is quick."],
            ),
        ] {
            assert_eq!(named(reply), expected, "{reply}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            named(&text);
            let _ = matcher(&bytes);
            let _ = reply(&bytes);
            let fence = format!("```json\n{text}\n```");
            named(&fence);
        }
    }
}
