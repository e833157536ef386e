use std::fmt::Write as _;
use std::time::Duration;

use super::*;

const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn problems(text: &str) -> String {
    let problems = parse(text.as_bytes()).unwrap_err();
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn a_whole_file_is_read() {
    let other = HASH.to_uppercase().replace('E', "0");
    let text = format!(
        r#"{{
        "keys": [
            {{"name": "team-a", "sha256": ["{HASH}", "{other}"], "models": ["llama-3", "a b"],
              "requests_per_minute": 600, "max_in_flight": 32, "expires": "2027-01-01T00:00:00Z"}},
            {{"name": "b", "sha256": "{}"}}
        ],
        "identities": [{{"name": "c", "subject": "spiffe://x/y", "max_in_flight": 1}}]
    }}"#,
        "0".repeat(64)
    );
    let callers = parse(text.as_bytes()).unwrap();
    let [a, b, c] = callers.as_slice() else {
        panic!("{callers:?}")
    };
    assert_eq!(&*a.name, "team-a");
    let Proof::Keys(hashes) = &a.proof else {
        panic!("{a:?}")
    };
    assert_eq!((hashes.len(), hashes[0].0[0]), (2, 0xe3));
    assert_eq!(
        a.models.as_deref(),
        Some(&["llama-3".to_owned(), "a b".to_owned()][..])
    );
    assert_eq!(a.requests_per_minute.map(NonZeroU32::get), Some(600));
    assert_eq!(a.expires, Some(Duration::from_secs(1_798_761_600)));
    assert_eq!(
        (b.models.as_ref(), b.max_in_flight, b.expires),
        (None, None, None)
    );
    assert_eq!(c.proof, Proof::Subject("spiffe://x/y".into()));
    assert!(!format!("{callers:?}").contains("227"), "a hash is shown");
    assert_eq!(parse(br#"{"keys": []}"#).unwrap(), []);
}

/// The documentation's example is a good file, whose keys are all that there are.
#[test]
fn the_documented_file_is_good() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/access.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("```json\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert_eq!(parse(example.as_bytes()).unwrap().len(), 2);
    for key in OF_KEY.iter().chain(&OF_IDENTITY) {
        assert!(text.contains(&format!("| `{key}` |")), "{key}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, told) in [
        ("", "the file is empty"),
        ("[]", "expected an object"),
        ("{}", "\"keys\" is missing"),
        ("{\n \"keys\": [}", "line 2 column"),
        (r#"{"keys": [], "keys": []}"#, "a key stands twice"),
        (
            r#"{"key": []}"#,
            "\"key\" is not known here; did you mean \"keys\"?",
        ),
        (r#"{"keys": {}}"#, "keys: expected a list"),
        (r#"{"keys": [1]}"#, "keys[0]: expected an object"),
        (r#"{"keys": [{}]}"#, "keys[0]: \"name\" is missing"),
        (
            r#"{"keys": [{"name": "a"}]}"#,
            "keys[0]: \"sha256\" is missing",
        ),
        (
            r#"{"keys": [{"name": "a b", "sha256": []}]}"#,
            "keys[0].name: expected 1 to 64",
        ),
        (
            r#"{"keys": [{"name": "a", "sha256": []}]}"#,
            "keys[0].sha256: expected 1 to 8",
        ),
        (
            r#"{"keys": [{"name": "a", "sha256": "ab"}]}"#,
            "keys[0].sha256: expected the SHA-256",
        ),
        (
            r#"{"keys": [{"name": "a", "models": []}]}"#,
            "keys[0].models: expected a list",
        ),
        (
            r#"{"keys": [{"name": "a", "models": [""]}]}"#,
            "keys[0].models[0]: expected a text",
        ),
        (
            r#"{"keys": [{"name": "a", "requests_per_minute": 0}]}"#,
            "keys[0].requests_per_minute: expected a whole number from 1",
        ),
        (
            r#"{"keys": [{"name": "a", "max_in_flight": 4294967296}]}"#,
            "keys[0].max_in_flight: expected a whole number",
        ),
        (
            r#"{"keys": [{"name": "a", "expires": "soon"}]}"#,
            "keys[0].expires: expected a moment",
        ),
        (
            r#"{"keys": [{"name": "a", "subject": "b"}]}"#,
            "\"subject\" is not known here",
        ),
        (
            r#"{"identities": [{"name": "a"}]}"#,
            "identities[0]: \"subject\" is missing",
        ),
    ] {
        let problems = problems(text);
        assert!(problems.contains(told), "{text}: {problems}");
    }
}

#[test]
fn what_stands_twice_is_told_with_both_places() {
    let text = format!(
        r#"{{"keys": [{{"name": "a", "sha256": "{HASH}"}}, {{"name": "a", "sha256": "{HASH}"}}],
            "identities": [{{"name": "b", "subject": "s"}}, {{"name": "a", "subject": "s"}}]}}"#
    );
    let problems = problems(&text);
    for told in [
        "keys[1].name: is the same as keys[0].name",
        "keys[1].sha256: is the same as keys[0].sha256",
        "identities[1].name: is the same as keys[1].name",
        "identities[1].subject: is the same as identities[0].subject",
    ] {
        assert!(problems.contains(told), "{problems}");
    }
}

#[test]
fn no_value_is_ever_shown() {
    const CANARY: &str = "sk-CANARY-0123456789";
    for text in [
        CANARY.to_owned(),
        format!("\"{CANARY}\""),
        format!(r#"{{"{CANARY}": 1}}"#),
        format!(r#"{{"{CANARY}": 1, "{CANARY}": 1}}"#),
        format!(r#"{{"keys": "{CANARY}"}}"#),
        format!(r#"{{"keys": ["{CANARY}"]}}"#),
        format!(r#"{{"keys": [{{"{CANARY}": 1}}]}}"#),
        format!(r#"{{"keys": [{{"name": "{CANARY} x", "sha256": "{CANARY}"}}]}}"#),
        format!(r#"{{"keys": [{{"name": "a", "sha256": ["{CANARY}"], "models": "{CANARY}"}}]}}"#),
        format!(
            r#"{{"keys": [{{"name": "a", "expires": "{CANARY}", "max_in_flight": "{CANARY}"}}]}}"#
        ),
        format!(r#"{{"keys": [{{"name": "a", "sha256": {CANARY}}}]}}"#),
    ] {
        let problems = problems(&text);
        assert!(!problems.contains("CANARY"), "{text}: {problems}");
    }
}

#[test]
fn a_file_has_its_bounds() {
    let mut text = r#"{"identities": ["#.to_owned();
    for n in 0..=MOST_CALLERS {
        let comma = if n > 0 { "," } else { "" };
        write!(text, r#"{comma}{{"name": "n{n}", "subject": "s{n}"}}"#).unwrap();
    }
    text.push_str("]}");
    assert!(problems(&text).contains("more than 10000 callers"));
    let fewer = text.replacen(r#"{"name": "n0", "subject": "s0"},"#, "", 1);
    assert_eq!(parse(fewer.as_bytes()).unwrap().len(), MOST_CALLERS);
    let wrong = format!(r#"{{"keys": [{}1]}}"#, "1,".repeat(MOST_CALLERS - 1));
    assert_eq!(parse(wrong.as_bytes()).unwrap_err().len(), MOST_PROBLEMS);
}
