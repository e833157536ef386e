use proptest::prelude::*;

use super::*;

/// The objects and what became of the page, given in these pieces.
fn split(pieces: &[&[u8]]) -> (Vec<String>, Result<Page, BadList>) {
    let (mut splitter, mut items) = (Splitter::default(), Vec::new());
    for piece in pieces {
        let tell = |item: Item<'_>| {
            items.push(match item {
                Item::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Item::TooLarge => "too large".to_owned(),
            });
        };
        if let Err(bad) = splitter.take(piece, tell) {
            return (items, Err(bad));
        }
    }
    (items, splitter.finish())
}

fn page(version: &str, token: &str) -> Page {
    Page {
        resource_version: version.into(),
        token: token.into(),
    }
}

#[test]
fn lists_in_every_form() {
    let cases: [(&str, &[&str], Page); 8] = [
        (
            r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#,
            &[],
            page("7", ""),
        ),
        (
            r#"{"metadata":{"resourceVersion":"7"},"items":null}"#,
            &[],
            page("7", ""),
        ),
        (
            r#"{"items":[{"a":1},{"b":[{},{"c":"]}"}]}],"metadata":{"resourceVersion":"8","continue":"x"}}"#,
            &[r#"{"a":1}"#, r#"{"b":[{},{"c":"]}"}]}"#],
            page("8", "x"),
        ),
        (
            "{\n \"metadata\" : {\"resourceVersion\":\"9\",\"remainingItemCount\":3} ,\n \"items\" : [ {\"a\": 1} ,\n {} ]\n}\n",
            &["{\"a\": 1}", "{}"],
            page("9", ""),
        ),
        (
            r#"{"x":1,"y":"a\"}","z":[[[]]],"w":true,"metadata":{"resourceVersion":"1"},"items":[{"q":"\\"}]}"#,
            &[r#"{"q":"\\"}"#],
            page("1", ""),
        ),
        (
            r#"{"items":[{"items":[{"metadata":{}}],"metadata":{"resourceVersion":"5"}}],"metadata":{"resourceVersion":"1"},"n":null}"#,
            &[r#"{"items":[{"metadata":{}}],"metadata":{"resourceVersion":"5"}}"#],
            page("1", ""),
        ),
        (
            r#"{"items":[{"k":"\\\"{["}],"metadata":{"resourceVersion":"1"},"last":12}"#,
            &[r#"{"k":"\\\"{["}"#],
            page("1", ""),
        ),
        (
            "{\"items\":[{\"k\":\"\u{fc}\u{1f600}\"}],\"metadata\":{\"resourceVersion\":\"1\"}}",
            &["{\"k\":\"\u{fc}\u{1f600}\"}"],
            page("1", ""),
        ),
    ];
    for (text, items, page) in cases {
        let text = text.as_bytes();
        let items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
        for border in 0..=text.len() {
            let (one, two) = text.split_at(border);
            assert_eq!(split(&[one, two]), (items.clone(), Ok(page.clone())));
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(split(&bytes), (items, Ok(page)));
    }
}

#[test]
fn what_is_no_list() {
    let half = Err(BadList::Half);
    let (_, whole) = split(&[br#"{"metadata":{"resourceVersion":"7"},"items":[{"a":1}]}"#]);
    assert!(whole.is_ok());
    for text in ["", "{", r#"{"items":[{"a":1},"#, r#"{"items":[]"#, "  "] {
        assert_eq!(split(&[text.as_bytes()]).1, half, "{text}");
    }
    for text in [
        "<html>",
        "[]",
        "{}",
        r#"{"kind":"Status","metadata":{},"status":"Failure"}"#,
        r#"{"items":[]}"#,
        r#"{"items":[],"metadata":{}}"#,
        r#"{"items":[1],"metadata":{"resourceVersion":"7"}}"#,
        r#"{"items":{},"metadata":{"resourceVersion":"7"}}"#,
        r#"{"items":[],"metadata":7}"#,
        r#"{"items":[],"metadata":{"resourceVersion":"7"}}x"#,
        r#"{"items"[]"#,
        r#"{"a":,"#,
    ] {
        let (_, end) = split(&[text.as_bytes()]);
        assert!(matches!(end, Err(BadList::Garbled(_))), "{text}: {end:?}");
    }
}

#[test]
fn an_object_beyond_the_bound_is_left_out() {
    let tail = br#"],"metadata":{"resourceVersion":"7"}}"#;
    let of = |length: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8));
    for (length, is_told) in [(MOST_OBJECT, true), (MOST_OBJECT + 1, false)] {
        let item = of(length);
        assert_eq!(item.len(), length);
        let text = format!(r#"{{"items":[{item},{{"b":1}}"#);
        let whole = [text.as_bytes(), tail].concat();
        for pieces in [
            vec![&whole[..]],
            whole.chunks(1000).collect(),
            whole.chunks(MOST_OBJECT).collect(),
        ] {
            let (items, end) = split(&pieces);
            assert_eq!(items.len(), 2);
            assert_eq!(items[0] == item, is_told, "{}", items[0].len());
            assert_eq!(items[0] == "too large", !is_told);
            assert_eq!((&*items[1], end.is_ok()), (r#"{"b":1}"#, true));
        }
    }
}

#[test]
fn no_more_is_held_than_an_object() {
    let mut splitter = Splitter::default();
    splitter.take(br#"{"other":""#, |_| {}).unwrap();
    for _ in 0..100 {
        splitter.take(&[b'x'; 1 << 16], |_| {}).unwrap();
        assert_eq!(splitter.begun.capacity(), 0);
    }
    splitter.take(br#"","items":[{"a":""#, |_| {}).unwrap();
    for _ in 0..100 {
        splitter.take(&[b'x'; 1 << 16], |_| {}).unwrap();
        assert!(splitter.begun.capacity() <= 2 * MOST_OBJECT);
    }
}

/// JSON text of any form, and nested.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        r#"[a-z"\\{}\[\],: \n\u{e4}]{0,12}"#.prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::vec((r#"[a-z"\\{]{0,6}"#, inner), 0..4)
                .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_list_cut_anywhere(
        items in proptest::collection::vec(json(), 0..6),
        other in json(),
        pretty in any::<bool>(),
        size in 1usize..40,
    ) {
        let items: Vec<_> = items.into_iter().map(|item| serde_json::json!({ "item": item })).collect();
        let list = serde_json::json!({
            "a": other, "items": items, "metadata": { "resourceVersion": "7", "continue": "t" }, "z": other,
        });
        let text = if pretty { serde_json::to_vec_pretty(&list) } else { serde_json::to_vec(&list) }.unwrap();
        let (told, end) = split(&text.chunks(size).collect::<Vec<_>>());
        prop_assert_eq!(end, Ok(page("7", "t")));
        let told: Vec<serde_json::Value> = told.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
        prop_assert_eq!(told, items);
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(split(&[&bytes]).1.is_err());
    }
}
