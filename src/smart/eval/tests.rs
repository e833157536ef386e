mod lines;

use std::sync::atomic::Ordering::Relaxed;

use super::report::{Line, Strategy};
use super::*;
use crate::smart::history::{Output, Split};

fn row(query: &str, split: Option<Split>, outputs: &[(&str, f32)]) -> Row {
    let output = |(model, score): &(&str, f32)| Output {
        model: (*model).into(),
        score: Some(*score),
        tokens: None,
    };
    Row {
        query: query.to_owned(),
        input_tokens: Some(100),
        outputs: outputs.iter().map(output).collect(),
        split,
    }
}

/// Hard queries that only `good` can answer, and easy ones.
fn rows(count: usize) -> Vec<Row> {
    let of = |at: usize| {
        let (query, weak) = match at % 3 {
            0 => (format!("prove lemma {at}"), 0.0),
            _ => (format!("greet somebody {at}"), 1.0),
        };
        row(&query, None, &[("weak", weak), ("good", 1.0)])
    };
    (0..count).map(of).collect()
}

fn options() -> Options {
    Options {
        train_rows: None,
        folds: 5,
        seed: 1,
        requirements: vec![0.7, 0.9],
        prices: Vec::new(),
    }
}

fn report(rows: &[Row], options: &Options) -> Report {
    run(rows, options, &AtomicUsize::new(0)).unwrap()
}

fn line(report: &Report, strategy: Strategy, requirement: Option<f64>) -> &Line {
    let is_it = |line: &&Line| line.strategy == strategy && line.requirement == requirement;
    report.strategies.iter().find(is_it).unwrap()
}

#[test]
fn what_is_predictable_is_found() {
    let rows = rows(300);
    let done = AtomicUsize::new(0);
    let report = run(&rows, &options(), &done).unwrap();
    assert_eq!(done.load(Relaxed), size(&rows, &options()).unwrap());
    assert_eq!(
        (report.queries, report.train_rows, report.folds),
        (300, 240, Some(5))
    );
    // All that can be gained is in the first third.
    assert!(report.apgr.unwrap() > 0.8 && report.apgr_plain.unwrap() > 0.8);
    assert!((report.cpt_50.unwrap() - 1.0 / 6.0).abs() < 0.03);
    let oracle = line(&report, Strategy::Oracle, None);
    assert_eq!(
        (oracle.quality, (oracle.cost * 300.0).round()),
        (1.0, 100.0)
    );
    let dual = line(&report, Strategy::Dual, Some(0.7));
    assert_eq!(dual.is_feasible, Some(true));
    assert!(dual.quality > 0.68 && dual.cost < 0.2, "{dual:?}");
    let always: Vec<_> = report.strategies.iter().take(2).collect();
    assert!(always[0].is_cheapest && always[0].cost == 0.0 && !always[0].is_best);
    assert!(always[1].is_best && always[1].strong_share == 1.0 && !always[1].is_cheapest);
    // A mixture of both is on the line between them.
    let random = line(&report, Strategy::Random, Some(0.9));
    let expected = 2.0 / 3.0 + random.strong_share / 3.0;
    assert!((random.quality - expected).abs() < 1e-9);
    let average = line(&report, Strategy::SmartAverage, Some(0.9));
    assert!((random.cost - average.cost).abs() < 1e-9 && average.quality > random.quality + 0.05);
    assert_eq!(average.random_quality, Some(random.quality));
    assert!(report.warnings.is_empty());
    assert_eq!(run(&rows, &options(), &done), Ok(report));
}

#[test]
fn a_query_that_comes_twice_is_in_one_fold() {
    let mut twice = rows(40);
    twice.extend(rows(40));
    let plan = Plan::of(&twice, &options()).unwrap();
    assert_eq!(plan.folds.len(), 5);
    for fold in &plan.folds {
        assert_eq!(fold.train.len() + fold.test.len(), 80);
        for at in &fold.test {
            let same = |other: &&usize| twice[**other].query == twice[*at].query;
            assert_eq!(fold.test.iter().filter(same).count(), 2);
        }
    }
    let mut tests: Vec<usize> = plan
        .folds
        .iter()
        .flat_map(|fold| fold.test.clone())
        .collect();
    tests.sort_unstable();
    assert_eq!(tests, (0..80).collect::<Vec<_>>());
    // As many folds as there are queries, at most.
    assert_eq!(Plan::of(&rows(3), &options()).unwrap().folds.len(), 3);
}

#[test]
fn splits_are_kept_and_draws_are_of_the_train_rows() {
    let mut all = rows(60);
    for (at, row) in all.iter_mut().enumerate() {
        row.split = [Some(Split::Train), Some(Split::Test), None][at % 3];
    }
    let with = |train_rows| {
        Plan::of(
            &all,
            &Options {
                train_rows,
                ..options()
            },
        )
        .unwrap()
    };
    let plan = with(None);
    assert!(!plan.is_folded && plan.folds.len() == 1);
    assert!(plan.folds[0].test.iter().all(|at| at % 3 == 1));
    assert_eq!(
        (plan.folds[0].train.len(), plan.folds[0].test.len()),
        (40, 20)
    );
    assert!(plan.warnings[0].contains("20 lines have no split"));
    let drawn = with(Some(15));
    assert_eq!(drawn.folds[0].train.len(), 15);
    assert!(drawn.folds[0].train.iter().all(|at| at % 3 != 1) && drawn.folds[0].train.is_sorted());
    assert_eq!(drawn.folds[0].test, plan.folds[0].test);
    assert!(
        with(Some(100))
            .warnings
            .iter()
            .any(|text| text.contains("not 100"))
    );
}

#[test]
fn costs_are_tokens_by_prices() {
    let price = |input, output| Price { input, output };
    let prices = vec![
        ("weak".to_owned(), price(1.0, 2.0)),
        ("good".to_owned(), price(3.0, 10.0)),
    ];
    let of = |rows: &[Row]| {
        report(
            rows,
            &Options {
                prices: prices.clone(),
                ..options()
            },
        )
    };
    let cost = |report: &Report, at: usize| report.strategies[at].cost;
    // Nobody tells how long an answer is.
    let mut all = rows(30);
    let unknown = of(&all);
    assert_eq!(cost(&unknown, 0), 100.0 + 2.0 * ASSUMED_TOKENS);
    assert!(unknown.output_tokens.unwrap().contains("256"));
    // One of them does; the other has the mean of all.
    for row in &mut all {
        row.outputs[0].tokens = Some(50);
        row.input_tokens = None;
        row.query = format!("{:>40}", row.query);
    }
    let known = of(&all);
    assert!((cost(&known, 0) - 110.0).abs() < 1e-9);
    assert!((cost(&known, 1) - 530.0).abs() < 1e-9);
    assert_eq!(known.cost_unit, "currency units per query");
}

#[test]
fn calibration_is_the_distance_in_each_bin() {
    let mut all = Vec::new();
    for (predicted, score) in [(0.72, 1.0), (0.78, 0.0), (0.1, 0.0), (1.0, 1.0)] {
        all.extend(cases_of(predicted, score));
    }
    // 1.5 - 1 in one bin, 0.1 and 0 in two others.
    assert!((calibration(&all, |judged| judged.smart.quality) - 0.6 / 4.0).abs() < 1e-9);
    assert_eq!(calibration(&[], |judged| judged.smart.quality), 0.0);
}

fn cases_of(quality: f64, score: f64) -> Vec<Case> {
    let seen = cases::Seen { quality, cost: 1.0 };
    let judged = cases::Judged {
        model: 0,
        score,
        cost: 1.0,
        smart: seen,
        plain: seen,
    };
    vec![Case::new((0, 0), vec![judged])]
}

#[test]
fn sparse_outcomes_are_measured_where_they_are() {
    let mut all = rows(90);
    for (at, row) in all.iter_mut().enumerate() {
        match at % 4 {
            0 => drop(row.outputs.remove(0)),
            1 => row.outputs[1].score = None,
            _ => row.outputs.push(Output {
                model: "rare".into(),
                score: Some(0.5),
                tokens: None,
            }),
        }
    }
    let cost = |name: &str| {
        (
            name.to_owned(),
            Price {
                input: 1.0,
                output: 1.0,
            },
        )
    };
    let prices = ["weak", "good", "rare"].map(cost).to_vec();
    let report = report(
        &all,
        &Options {
            prices,
            ..options()
        },
    );
    assert_eq!(report.queries, 90);
    let queries: Vec<usize> = report.models.iter().map(|model| model.queries).collect();
    let names: Vec<&str> = report.models.iter().map(|model| &*model.model).collect();
    assert_eq!(
        (names, queries),
        (vec!["good", "weak", "rare"], vec![67, 67, 44])
    );
    assert!(report.apgr.is_none());
    let total: usize = report.strategies.last().unwrap().queries;
    assert_eq!(total, 90);
}

#[test]
fn nothing_to_compare() {
    let of = |rows: &[Row]| run(rows, &options(), &AtomicUsize::new(0)).unwrap_err();
    assert_eq!(of(&[]), EvalError::NoScores);
    assert_eq!(of(&rows(1)), EvalError::OneQuery);
    let with = |split| -> Vec<Row> {
        let mut all = rows(4);
        all.iter_mut().for_each(|row| row.split = Some(split));
        all
    };
    assert_eq!(of(&with(Split::Train)), EvalError::NoTest);
    assert_eq!(of(&with(Split::Test)), EvalError::NoTrain);
    // Scores where nothing is measured.
    let mut train = with(Split::Train);
    train.push(row("x", Some(Split::Test), &[]));
    assert_eq!(of(&train), EvalError::NoScores);
}

/// With prices of a token in and one out.
fn priced(prices: &[(&str, f64, f64)]) -> Options {
    let of = |(name, input, output): &(&str, f64, f64)| {
        let (input, output) = (*input, *output);
        ((*name).to_owned(), Price { input, output })
    };
    Options {
        prices: prices.iter().map(of).collect(),
        ..options()
    }
}

/// All but the last learned from.
fn with_test(mut rows: Vec<Row>, tests: usize) -> Vec<Row> {
    let first = rows.len() - tests;
    for (at, row) in rows.iter_mut().enumerate() {
        row.split = Some(if at < first {
            Split::Train
        } else {
            Split::Test
        });
    }
    rows
}

#[test]
fn queries_on_both_sides_are_told_of() {
    let mut all = rows(30);
    all.extend(rows(12));
    all[3].query = String::new();
    all[33].query = String::new();
    let warnings = |rows: &[Row]| Plan::of(rows, &options()).unwrap().warnings;
    assert_eq!(
        warnings(&with_test(all.clone(), 12)),
        ["11 of 12 queries to measure with are also learned from"]
    );
    assert!(warnings(&with_test(rows(42), 12)).is_empty() && warnings(&all).is_empty());
}

#[test]
fn lengths_that_only_the_measured_have_are_told_of() {
    let mut all = with_test(rows(40), 10);
    for output in all[30..].iter_mut().flat_map(|row| &mut row.outputs) {
        output.tokens = Some(7);
    }
    let report = report(&all, &priced(&[("weak", 0.0, 1.0), ("good", 0.0, 2.0)]));
    assert_eq!(report.strategies[1].cost, 14.0);
    let told = report.output_tokens.unwrap();
    assert!(
        told.starts_with("as the lines tell") && told.contains("no line to learn from tells"),
        "{told}"
    );
}

#[test]
fn a_price_of_no_use_is_a_warning_and_one_of_nobody_an_error() {
    let mut all = with_test(rows(40), 10);
    all[0].outputs.push(Output {
        model: "old".into(),
        score: Some(1.0),
        tokens: None,
    });
    let mut options = priced(&[("weak", 1.0, 1.0), ("good", 2.0, 1.0), ("old", 1.0, 1.0)]);
    let of = |options: &Options| run(&all, options, &AtomicUsize::new(0));
    let warnings = of(&options).unwrap().warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("--price names \"old\""),
        "{warnings:?}"
    );
    options.prices[2].0 = "odl".to_owned();
    assert!(matches!(of(&options), Err(EvalError::NoSuchModel(name, _)) if name == "odl"));
}

#[test]
fn what_was_learned_from_in_folds_is_not_all_that_there_is() {
    let all = rows(50);
    let few = Options {
        train_rows: Some(10),
        ..options()
    };
    let report = report(&all, &few);
    let plan = Plan::of(&all, &few).unwrap();
    let weak = Arc::from("weak");
    let of = |fold: &folds::Fold| mean_score(fold.train.iter().map(|at| &all[*at]), &weak);
    let expected = plan.folds.iter().filter_map(of).sum::<f64>() / 5.0;
    assert_eq!(report.models[0].model, "weak");
    assert!((report.models[0].train_quality.unwrap() - expected).abs() < 1e-9);
}
