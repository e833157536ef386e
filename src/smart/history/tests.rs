use proptest::prelude::*;

use super::*;

fn parsed(line: &str) -> Result<Row, String> {
    parse(line.as_bytes(), &mut Names::default())
}

fn output(model: &str, score: Option<f32>, tokens: Option<u32>) -> Output {
    Output {
        model: model.into(),
        score,
        tokens,
    }
}

#[test]
fn a_line_of_the_reference() {
    let line = concat!(
        r#"{"query": "A robe takes 2 bolts\u00e9", "subject": "x", "input_token_length": 26, "#,
        r#""outputs": [{"model_name": "a/b", "correctness": true, "output_token_length": 57, "#,
        r#""prediction": "3"}, {"model_name": "c", "correctness": 0.25}, "#,
        r#"{"model_name": "d", "output_token_length": 3.0}], "split": "val"}"#
    );
    let expected = Row {
        query: "A robe takes 2 boltsé".to_owned(),
        input_tokens: Some(26),
        outputs: vec![
            output("a/b", Some(1.0), Some(57)),
            output("c", Some(0.25), None),
            output("d", None, Some(3)),
        ],
        split: Some(Split::Train),
    };
    assert_eq!(parsed(line), Ok(expected));
}

/// Each is left out, with words that say why.
fn assert_told(lines: &[(&str, &str)]) {
    for (line, part) in lines {
        let why = parsed(line).unwrap_err();
        assert!(why.contains(part), "{part} in {why}");
        assert!(!why.contains("at line"), "{why}");
        assert!(why.len() < 400, "{why}");
    }
}

#[test]
fn what_is_no_row_is_told() {
    let many = vec![r#"{"model_name":"m","correctness":1}"#; MOST_OUTPUTS + 1].join(",");
    let many = format!(r#"{{"query":"q","outputs":[{many}]}}"#);
    assert_told(&[
        ("", "is not JSON: EOF"),
        ("{", "is not JSON: EOF"),
        ("[{\"query\":1},", "not a list"),
        (r#"["q",1,null,[["m",true,1]]]"#, "not a list"),
        (
            "7",
            "integer `7`, expected an object with query and outputs",
        ),
        (
            r#"{"query":"q","outputs":[7]}"#,
            "expected an object with model_name",
        ),
        (r#"{"query":"q"}"#, "missing field `outputs`"),
        (r#"{"outputs":[]}"#, "missing field `query`"),
        (r#"{"query":null,"outputs":[]}"#, "invalid type: null"),
        (
            r#"{"query":"\ud800","outputs":[]}"#,
            "unexpected end of hex escape",
        ),
        (
            r#"{"query":"q","split":"x","outputs":[]}"#,
            "train, val or test",
        ),
        (r#"{"query":"q","outputs":[]}"#, "has no outputs"),
        (&many, "65 outputs"),
    ]);
    let not_text = b"{\"query\":\"\xff\",\"outputs\":[{\"model_name\":\"m\",\"correctness\":1}]}";
    assert!(parse(not_text, &mut Names::default()).is_err());
}

#[test]
fn what_is_no_output_is_told() {
    let long = "m".repeat(MOST_NAME + 1);
    let long = format!(r#""model_name":"{long}","correctness":1"#);
    for (output, part) in [
        ("", "missing field `model_name`"),
        (r#""model_name":"m""#, "no model's score or length"),
        (r#""model_name":"","correctness":1"#, "of 0 bytes"),
        (r#""model_name":"a\nb","correctness":1"#, "control"),
        (&long, "257 bytes"),
        (
            r#""model_name":"m","correctness":1},{"model_name":"m","correctness":0"#,
            "tells of \"m\" twice",
        ),
        (r#""model_name":"m","correctness":NaN"#, "NaN and Infinity"),
        (
            r#""model_name":"m","correctness":1e999"#,
            "number out of range",
        ),
        (r#""model_name":"m","correctness":1.01"#, "0 to 1"),
        (r#""model_name":"m","correctness":-0.01"#, "0 to 1"),
        (r#""model_name":"m","correctness":"true""#, "0 to 1"),
        (
            r#""model_name":"m","output_token_length":-1"#,
            "a length of 0",
        ),
        (
            r#""model_name":"m","output_token_length":true"#,
            "a length of 0",
        ),
        (
            r#""model_name":"m","output_token_length":4294967296"#,
            "a length of 0",
        ),
    ] {
        let line = format!(r#"{{"query":"q","outputs":[{{{output}}}]}}"#);
        assert_told(&[(&line, part)]);
    }
}

#[test]
fn what_is_not_known_is_nothing() {
    let line = r#"{"query":"","input_token_length":null,"split":null,"outputs":[{"model_name":"n"},{"model_name":"m","correctness":null,"output_token_length":0}]}"#;
    let row = parsed(line).unwrap();
    assert_eq!(row.outputs, [output("m", None, Some(0))]);
    assert_eq!(
        (row.query.as_str(), row.input_tokens, row.split),
        ("", None, None)
    );
}

#[test]
fn a_file_with_all_that_may_be_wrong() {
    let good = r#"{"query":"q","outputs":[{"model_name":"m","correctness":true}]}"#;
    let long = format!(r#"{{"query":"{}"}}"#, "q".repeat(MOST_LINE));
    let text = format!("\u{feff}{good}\r\n\n  \nno\n{long}\n{good}\n{{\"query\"");
    let read = read(text.as_bytes()).unwrap();
    assert_eq!(read.rows.len(), 2);
    assert_eq!(read.skipped.count, 3);
    let lines: Vec<usize> = read.skipped.first.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [4, 5, 7]);
    let told = "has 4194317 bytes, more than 4194304";
    assert_eq!(read.skipped.first[1].1, told);
    assert_eq!((read.older, read.further.len()), (0, 0));
    let many = "no\n".repeat(MOST_TOLD + 5);
    let read = super::read(many.as_bytes()).unwrap();
    assert_eq!(
        (read.skipped.count, read.skipped.first.len()),
        (MOST_TOLD + 5, MOST_TOLD)
    );
}

#[test]
fn a_long_query_is_cut_at_a_character() {
    let query = "é".repeat(MOST_QUERY);
    assert_eq!(cut(&query).len(), MOST_QUERY);
    assert_eq!(cut(&format!("x{query}")).len(), MOST_QUERY - 1);
    let mb = format!(
        r#"{{"query":"{}","outputs":[{{"model_name":"m","correctness":1}}]}}"#,
        "x".repeat(1 << 20)
    );
    let mut newest = Newest::default();
    newest.push(parsed(&mb).unwrap());
    let rows = newest.into_rows();
    assert_eq!(rows[0].query.len(), MOST_QUERY);
    assert!(rows[0].held() < 2 * MOST_QUERY, "{}", rows[0].held());
}

#[test]
fn models_beyond_the_bound_are_passed_over() {
    let mut text = String::new();
    for model in 0..MOST_MODELS + 2 * MOST_TOLD {
        text += &format!(
            "{{\"query\":\"q\",\"outputs\":[{{\"model_name\":\"{model}\",\"correctness\":1}}]}}\n"
        );
    }
    let read = read(text.as_bytes()).unwrap();
    assert_eq!(read.rows.len(), MOST_MODELS);
    assert_eq!((read.further.len(), &*read.further[0]), (MOST_TOLD, "64"));
    assert_eq!(read.skipped.count, 2 * MOST_TOLD);
}

#[test]
fn a_line_that_is_refused_takes_no_room() {
    let bad = |number| {
        format!(
            "{{\"query\":\"q\",\"outputs\":[{{\"model_name\":\"a{number}\",\"correctness\":1}},\
             {{\"model_name\":\"b{number}\",\"correctness\":1}},{{\"model_name\":\"\",\
             \"correctness\":1}}]}}\n"
        )
    };
    let mut text: String = (0..70).map(bad).collect();
    text += r#"{"query":"q","outputs":[{"model_name":"m","correctness":1}]}"#;
    let read = read(text.as_bytes()).unwrap();
    assert_eq!((read.rows.len(), read.skipped.count), (1, 70));
    assert!(read.further.is_empty());
}

#[test]
fn a_list_is_refused() {
    for text in ["[", "\u{feff}[{}]", "\n \n  [\n{}\n]\n"] {
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("one object a line"), "{error}");
    }
    let later = "no\n[\n";
    assert_eq!(read(later.as_bytes()).unwrap().skipped.count, 2);
}

#[test]
fn models_whose_rows_have_gone_leave_their_room() {
    let mut names = Names::default();
    let held: Vec<_> = (0..MOST_MODELS)
        .map(|at| names.get(&at.to_string()).unwrap())
        .collect();
    names.make_room();
    assert_eq!(names.get("one more"), None);
    drop(held);
    assert!(Names::of(names.known()).get("one more").is_none());
    names.make_room();
    assert!(names.get("one more").is_some());
}

#[test]
fn only_the_newest_rows_are_held() {
    let row = |input, query: usize| Row {
        query: "q".repeat(query),
        input_tokens: Some(input),
        outputs: vec![output("m", Some(1.0), None)],
        split: None,
    };
    let mut newest = Newest::default();
    (0..=MOST_ROWS).for_each(|at| newest.push(row(u32::try_from(at).unwrap(), 0)));
    assert_eq!((newest.len(), newest.left()), (MOST_ROWS, 1));
    let all = MOST_HELD / (1 << 20);
    (0..2 * all).for_each(|_| newest.push(row(7, 1 << 20)));
    assert!(
        newest.len() < all && newest.len() > all - 3,
        "{}",
        newest.len()
    );
    assert_eq!(newest.left() + newest.len(), MOST_ROWS + 1 + 2 * all);
}

fn rows() -> impl Strategy<Value = Row> {
    let score = prop_oneof![
        Just(0.0_f32),
        Just(1.0),
        0.0_f32..=1.0,
        Just(f32::MIN_POSITIVE)
    ];
    let known = (
        proptest::option::of(score),
        proptest::option::of(any::<u32>()),
    );
    let known = known.prop_filter("something", |(score, tokens)| {
        score.is_some() || tokens.is_some()
    });
    let model = "[^\\p{Cc}]{1,20}".prop_filter("a name", |name| check_name(name).is_ok());
    let outputs = proptest::collection::btree_map(model, known, 1..6);
    let split = proptest::option::of(prop_oneof![Just(Split::Train), Just(Split::Test)]);
    (any::<String>(), any::<Option<u32>>(), outputs, split).prop_map(
        |(query, input_tokens, outputs, split)| Row {
            query,
            input_tokens,
            outputs: outputs
                .into_iter()
                .map(|(model, (score, tokens))| output(&model, score, tokens))
                .collect(),
            split,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(row in rows()) {
        let mut line = Vec::new();
        write(&row, &mut line);
        prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        prop_assert_eq!(line.pop(), Some(b'\n'));
        let again = parse(&line, &mut Names::default());
        prop_assert_eq!(again.as_ref(), Ok(&row));
        // A line that is cut is no row.
        let end = row.query.len() % line.len();
        prop_assert!(parse(&line[..end], &mut Names::default()).is_err());
    }

    #[test]
    fn nothing_panics(bytes: Vec<u8>, row in rows(), at: prop::sample::Index, byte: u8) {
        let _ = parse(&bytes, &mut Names::default());
        let mut line = Vec::new();
        write(&row, &mut line);
        let at = at.index(line.len());
        line[at] = byte;
        // What begins with a [ is refused as a whole.
        let Ok(read) = read(&*line) else {
            prop_assert_eq!(line[0], b'[');
            return Ok(());
        };
        for output in read.rows.iter().flat_map(|row| &row.outputs) {
            prop_assert!(output.score.is_none_or(|score| (0.0..=1.0).contains(&score)));
        }
    }
}
