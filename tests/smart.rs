//! `pilotfish smart eval`, as it is called. The fixtures are made up: two or three
//! models, easy queries that all can answer and hard ones that only the dear can.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const TWO: &str = "tests/fixtures/smart/two-models.jsonl";
const THREE: &str = "tests/fixtures/smart/three-models.jsonl";
const PRICES: [&str; 3] = [
    "--price=small=1e-7:2e-7",
    "--price=medium=5e-7:1e-6",
    "--price=large=5e-6:1e-5",
];

fn eval(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["smart", "eval"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who reads a file does not read this.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn json(args: &[&str], input: &str) -> Value {
    let output = eval(args, input);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What it says when it will not.
fn refused(args: &[&str], input: &str) -> String {
    let output = eval(args, input);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn line<'a>(report: &'a Value, strategy: &str, requirement: f64) -> &'a Value {
    let lines = report["strategies"].as_array().unwrap();
    let is_it = |line: &&Value| line["strategy"] == strategy && line["requirement"] == requirement;
    lines.iter().find(is_it).unwrap()
}

#[test]
fn two_models_have_an_apgr() {
    let report = json(&[TWO, "--json"], "");
    for key in [
        "apgr",
        "apgr_plain",
        "apgr_difference",
        "cpt_50",
        "cpt_80",
        "cpt_50_plain",
        "cpt_80_plain",
        "calibration_error",
        "calibration_error_plain",
    ] {
        assert!(report[key].is_number(), "{key}: {report:#}");
    }
    assert!(report["apgr"].as_f64().unwrap() > 0.5, "{report:#}");
    assert_eq!(
        report["apgr_difference_interval"].as_array().unwrap().len(),
        2
    );
    assert!(report["folds"].is_null() && report["no_apgr_because"].is_null());
    assert_eq!(
        (&report["queries"], &report["train_rows"]),
        (&40.into(), &40.into())
    );
    let strong = report["models"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["is_strong"] == true);
    assert_eq!(strong.unwrap()["model"], "large");
    for strategy in [
        "random",
        "plain_each",
        "smart_each",
        "smart_average_in_order",
        "smart_average",
        "dual",
    ] {
        for requirement in [0.7, 0.75, 0.8] {
            let line = line(&report, strategy, requirement);
            assert!(
                line["quality"].is_number() && line["cost"] == line["strong_share"],
                "{line}"
            );
        }
    }
    assert!(line(&report, "smart_each", 0.7)["cost_ratio_at_equal_quality"].is_number());
    assert_eq!(line(&report, "dual", 0.7)["is_feasible"], true);
}

#[test]
fn the_same_twice_and_another_seed_another() {
    for args in [
        &[TWO, "--train-rows=30"][..],
        &[TWO, "--train-rows=30", "--json"],
    ] {
        let (one, other) = (eval(args, ""), eval(args, ""));
        assert!(one.status.success() && one.stdout == other.stdout);
    }
    let of = |seed: &str| json(&[TWO, "--train-rows=20", "--json", seed], "");
    assert_ne!(
        of("--seed=1")["calibration_error"],
        of("--seed=2")["calibration_error"]
    );
    assert_eq!(of("--seed=1")["train_rows"], 20);
}

#[test]
fn more_models_are_measured_by_prices_in_folds() {
    let mut args = vec![
        THREE,
        "--json",
        "--folds=3",
        "--requirement=0.6,0.8",
        "--requirement=0.9",
    ];
    let told = refused(&args, "");
    assert!(
        told.contains("--price MODEL=IN:OUT") && told.contains("medium"),
        "{told}"
    );
    args.extend(PRICES);
    let report = json(&args, "");
    assert_eq!(
        (&report["folds"], &report["queries"]),
        (&3.into(), &60.into())
    );
    assert!(report["apgr"].is_null());
    assert!(
        report["no_apgr_because"]
            .as_str()
            .unwrap()
            .contains("two models")
    );
    assert_eq!(report["cost_unit"], "currency units per query");
    let cost = |strategy, requirement: f64| {
        line(&report, strategy, requirement)["cost"]
            .as_f64()
            .unwrap()
    };
    assert!(cost("smart_average", 0.6) < cost("smart_average", 0.9));
    args.retain(|arg| !arg.starts_with("--price=medium"));
    assert!(refused(&args, "").contains("not known of medium"));
}

#[test]
fn the_table_is_aligned() {
    let args = ["--requirement=0.705,0.8", "--requirement=0.705,-0"];
    let output = eval(&[&[TWO], &args[..]].concat(), "");
    let text = String::from_utf8(output.stdout).unwrap();
    let table = text
        .lines()
        .skip_while(|line| !line.starts_with("strategy"))
        .take_while(|line| !line.is_empty());
    // Those without a number in a column are headings, and a note.
    let (rows, headings): (Vec<&str>, Vec<&str>) =
        table.skip(1).partition(|line| line.contains('%'));
    assert_eq!(
        (rows.len(), headings.len()),
        (2 + 3 * 5 + 1, 1 + 3 * 2),
        "{text}"
    );
    let width = rows[0].chars().count();
    assert!(
        rows.iter().all(|line| line.chars().count() == width),
        "{text}"
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 110),
        "{text}"
    );
    let asked: Vec<&str> = headings
        .iter()
        .filter_map(|line| line.strip_prefix("required quality "))
        .collect();
    assert_eq!(asked, ["0.705", "0.8", "0"], "{text}");
    assert!(
        text.contains("calls to large per query (no prices given)"),
        "{text}"
    );
    assert!(
        text.contains("APGR     smart 0.") && output.stderr.is_empty(),
        "{text}"
    );
    let json = json(&[&[TWO, "--json"], &args[..]].concat(), "");
    assert!(!json.to_string().contains("-0.0,"), "{json}");
}

#[test]
fn who_has_read_enough_is_no_error() {
    for args in [&["-"][..], &["-", "--json"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
            .args(["smart", "eval"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Nobody reads, before there is anything.
        drop(child.stdout.take());
        let rows = std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(TWO));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&rows.unwrap()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{told}");
    }
}

#[test]
fn a_query_that_is_cut_costs_what_the_whole_does() {
    let row = |split: &str, length: &str| {
        let query = "many words ".repeat(800);
        let outputs = r#"[{"model_name":"a","correctness":true}]"#;
        format!(r#"{{"query":"{query}","split":"{split}",{length}"outputs":{outputs}}}"#) + "\n"
    };
    for (length, expected) in [("", 2200.0), (r#""input_token_length":9,"#, 9.0)] {
        let rows = row("train", length) + &row("test", length);
        let report = json(&["-", "--json", "--price=a=1:0"], &rows);
        assert_eq!(report["strategies"][0]["cost"], expected);
        let told = report["warnings"].to_string();
        assert!(told.contains("1 of 1 queries to measure with"), "{told}");
    }
}

#[test]
fn what_cannot_be_measured_is_said() {
    let row = |split: &str, of: &[(&str, &str)]| {
        let one = |(model, right): &(&str, &str)| {
            format!(r#"{{"model_name":"{model}","correctness":{right}}}"#)
        };
        let outputs: Vec<String> = of.iter().map(one).collect();
        let outputs = outputs.join(",");
        format!(r#"{{"query":"a question",{split}"outputs":[{outputs}]}}"#) + "\n"
    };
    let (train, test) = (r#""split":"train","#, r#""split":"test","#);
    let both = |right: &str| {
        let of = [("a", right), ("b", right)];
        row(train, &of) + &row(test, &of)
    };
    let cases = [
        ("", "no line to measure with"),
        ("not json\n", "line 1"),
        (&row("", &[("a", "true")]), "one query is too few"),
        (&row(train, &[("a", "true")]), "nothing to measure with"),
        (&row(test, &[("a", "true")]), "nothing to learn from"),
        (&row(test, &[("a", "NaN")]), "no line to measure with"),
    ];
    for (input, expected) in cases {
        let told = refused(&["-"], input);
        assert!(told.contains(expected), "{input}: {told}");
    }
    for (args, expected) in [
        (&["-", "--price=c=1:1"][..], "\"c\""),
        (&["-", "--price=a=1:1"], "not known of b"),
        (&["-", "--price=a"], "MODEL=IN:OUT"),
        (&["-", "--price=a=-1:1"], "MODEL=IN:OUT"),
        (&["-", "--requirement=NaN"], "from 0 to 1"),
        (&["/nowhere/at/all"], "cannot read"),
    ] {
        let told = refused(args, &both("true"));
        assert!(told.contains(expected), "{args:?}: {told}");
    }
    // These have a table, and no APGR.
    for right in ["true", "false"] {
        let report = json(&["-", "--json"], &both(right));
        assert!(report["apgr"].is_null() && report["no_apgr_because"].is_string());
    }
    let one = row(train, &[("a", "true")]) + &row(test, &[("a", "true")]);
    assert!(json(&["-", "--json"], &one)["apgr"].is_null());
    let unknown = row(train, &[("a", "true")]) + &row(test, &[("a", "true"), ("new", "false")]);
    let report = json(&["-", "--json"], &(unknown + "broken\n"));
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("how right new was") && warnings.contains("lines left out: 1"),
        "{warnings}"
    );
}
