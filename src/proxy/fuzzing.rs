//! Oracles of what reads bodies on their way, beside what is private to it.

use std::borrow::Cow;

use serde::de::{Deserialize as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::body;
use super::infer;
use super::multipart::Multipart;
use super::peek::{Found, ModelField, PeekFault, Scanner};
use super::usage::Usage;
use crate::fuzzing::alike;

/// Levels that the peek follows; beyond them it refuses what is else right.
const DEPTH: usize = 1024;
/// Bytes of a value that it keeps.
const KEPT: usize = 1024;

/// The body peek: however a body is cut, it finds the same; it takes for JSON what
/// `serde_json` takes for it; and what it finds is what stands there.
pub fn peek(data: &[u8]) {
    let scan = |pieces: &[&[u8]]| {
        let mut scanner = Scanner::looking_for(Some("k".into()));
        scanner.look_for_prompt();
        pieces.iter().try_for_each(|piece| scanner.push(piece))?;
        scanner.finish()?;
        Ok(scanner.into_found())
    };
    // Of several faults another may be told first.
    let _ = alike(data, |pieces| scan(pieces).map_err(|_: PeekFault| ()));
    let found = scan(&[data]);
    match &found {
        Ok(found) => {
            assert!(is_json(data), "{found:?} in what is no JSON");
            agrees(data, found);
        }
        Err(PeekFault::Syntax { .. }) => {
            assert!(!is_json(data) || is_deep(data), "{found:?} in JSON");
        }
        Err(PeekFault::Duplicate(key)) => {
            if let Some(pairs) = pairs(data) {
                let same = pairs.iter().filter(|(name, _)| name == key);
                assert!(same.count() > 1, "{key} stands there once");
            }
        }
        Err(PeekFault::TooLong(_)) => assert!(data.len() > KEPT),
    }
}

/// The reference: `serde_json`'s syntax, of any depth that the peek follows.
fn is_json(data: &[u8]) -> bool {
    // Deeper than that its recursion might need more stack than there is.
    if std::str::from_utf8(data).is_err() || nesting(data) > 2 * DEPTH {
        return false;
    }
    let mut reader = serde_json::Deserializer::from_slice(data);
    reader.disable_recursion_limit();
    IgnoredAny::deserialize(&mut reader).is_ok() && reader.end().is_ok()
}

fn is_deep(data: &[u8]) -> bool {
    nesting(data) > DEPTH
}

/// Brackets that are open at once at most, if all of them are: those in texts too.
fn nesting(data: &[u8]) -> usize {
    let opens = data.iter().filter(|byte| matches!(byte, b'{' | b'['));
    opens.count()
}

/// The top level's pairs, in order, keys unescaped and values as they stand;
/// `None`: it is no object, or a key is no text that Rust can hold.
fn pairs(data: &[u8]) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                pairs.push((Cow::Owned(key), value));
            }
            Ok(pairs)
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(data);
    reader.disable_recursion_limit();
    serde::Deserializer::deserialize_map(&mut reader, Pairs).ok()
}

/// Whether what was found is what stands there.
fn agrees(data: &[u8], found: &Found) {
    let Some(pairs) = pairs(data) else { return };
    assert!(found.is_object);
    let of = |key: &str| {
        let mut same = pairs.iter().filter(|(name, _)| name == key);
        (same.next().map(|(_, value)| *value), same.next().is_none())
    };
    let text = |value: &RawValue| serde_json::from_str::<String>(value.get());
    match (of("model"), &found.model) {
        ((_, false), model) => panic!("two models, and {model:?}"),
        ((None, _), model) => assert_eq!(*model, ModelField::Missing),
        ((Some(value), _), ModelField::Name(name)) => {
            assert_eq!(&data[within(&found.model_at)], value.get().as_bytes());
            // A lone surrogate is replaced; serde_json refuses it.
            assert!(text(value).is_ok_and(|text| text == *name) || name.contains('\u{fffd}'));
        }
        ((Some(value), _), model) => {
            assert_eq!(*model, ModelField::NotText);
            assert!(!value.get().starts_with('"'));
        }
    }
    let stream = of("stream").0.and_then(|value| value.get().parse().ok());
    assert_eq!(found.stream, stream);
    for (key, kept) in [("user", &found.user), ("session_id", &found.session_id)] {
        if let ((Some(value), true), Some(kept)) = (of(key), kept)
            && let Ok(text) = text(value)
        {
            assert_eq!(*kept, text, "{key}");
        }
    }
    if let Some(at) = &found.selection {
        let value = of("selection_query").0.map(RawValue::get);
        let seen = std::str::from_utf8(&data[within(&at.value)]).ok();
        assert_eq!(seen.map(str::trim), value, "the selection");
        let rest = [
            &data[..within(&at.whole).start],
            &data[within(&at.whole).end..],
        ]
        .concat();
        let left = self::pairs(&rest).map(|left| left.len());
        assert_eq!(left, Some(pairs.len() - 1), "without its selection");
    }
    let prompts = ["messages", "prompt", "input"];
    let main = pairs.iter().rfind(|(name, _)| prompts.contains(&&**name));
    let at = found.prompt.as_ref().and_then(|prompt| prompt.main);
    if let (Some((_, value)), Some((start, Some(end)))) = (main, at) {
        let seen = std::str::from_utf8(&data[within(&(start..end))]).ok();
        assert_eq!(seen.map(str::trim), Some(value.get()), "the prompt");
    }
}

fn within(range: &std::ops::Range<u64>) -> std::ops::Range<usize> {
    let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).expect("in memory"));
    start..end
}

/// Event streams: however one is cut, the same is seen of its tokens, its events,
/// its end; `/v1/infer` makes the same of it; what is held meanwhile is bounded.
pub fn sse(data: &[u8]) {
    for is_stream in [true, false] {
        alike(data, |pieces| {
            let mut usage = Usage::default();
            pieces.iter().for_each(|piece| usage.look(piece, is_stream));
            usage.finish();
            (usage.input, usage.output, usage.events)
        });
    }
    alike(data, body::seen_at_end);
    let (told, _) = alike(data, infer::retold_in_pieces);
    let events = std::str::from_utf8(&told).expect("what is told is text");
    assert!(events.is_empty() || events.ends_with("\n\n"));
    for event in events
        .split_terminator("\n\n")
        .filter(|event| *event != ":")
    {
        let json = event
            .strip_prefix("data: ")
            .filter(|data| !data.contains(['\n', '\r']));
        assert!(
            json.is_some_and(|json| is_json(json.as_bytes())),
            "{event:?} is no event"
        );
    }
}

/// Forms: however one is cut, the same model stands at the same place. The first
/// line is the content type.
pub fn multipart(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    let (head, body) = data.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let Ok(content_type) = std::str::from_utf8(head) else {
        return;
    };
    let model = alike(body, |pieces| {
        let mut form = Multipart::new(content_type)?;
        for piece in pieces {
            // Beyond a fault nothing is looked at, nor held.
            if let Err(fault) = form.push(piece) {
                return Some(Err(fault));
            }
            assert!(form.held() <= Multipart::MOST_HELD + piece.len());
        }
        form.into_model().map(Ok)
    });
    if let Some(Ok((name, at))) = model {
        assert_eq!(&body[within(&at)], name.as_bytes());
    }
}
