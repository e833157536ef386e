use super::*;
use crate::smart::history::Output;
use crate::smart::index::Outcome;

const KINDS: [(&str, &str); 2] = [
    ("What is the capital of", "geography"),
    ("Prove the lemma about", "algebra"),
];

/// A row about one of two kinds; `small` is right about the first only.
fn row(at: usize, models: &[&str]) -> Row {
    let (begin, word) = KINDS[at % 2];
    let output = |model: &&str| Output {
        model: Arc::from(*model),
        score: Some(f32::from(u8::from(
            *model == "large" || at.is_multiple_of(2),
        ))),
        tokens: Some(if at.is_multiple_of(2) { 20 } else { 400 }),
    };
    Row {
        query: format!("{begin} {word} number {}?", at * 7919 % 1000),
        input_tokens: None,
        outputs: models.iter().map(output).collect(),
        split: None,
    }
}

fn rows(count: usize) -> Vec<Row> {
    (0..count).map(|at| row(at, &["small", "large"])).collect()
}

fn fit(rows: &[Row]) -> Predictor {
    Predictor::fit(rows.to_vec(), &mut |_| {})
}

fn predict(predictor: &Predictor, query: &str) -> Vec<Prediction> {
    let mut scratch = Scratch::new();
    predictor.predict(Some(query), &mut scratch);
    scratch.predictions().to_vec()
}

fn are_sound(predictions: &[Prediction]) {
    for one in predictions {
        assert!((0.0..=1.0).contains(&one.quality), "{one:?}");
        assert!((0.0..=0.5).contains(&one.spread), "{one:?}");
        assert!(one.tokens.is_finite() && one.tokens >= 0.0, "{one:?}");
    }
}

#[test]
fn what_was_easy_is_told_from_what_was_hard() {
    let mut shares = Vec::new();
    let predictor = Predictor::fit(rows(400), &mut |share| shares.push(share));
    assert!(shares.is_sorted() && shares.last() == Some(&1.0));
    let easy = predict(&predictor, "What is the capital of geography number 5?");
    let hard = predict(&predictor, "Prove the lemma about algebra number 5?");
    are_sound(&easy);
    are_sound(&hard);
    assert!(easy[0].quality > 0.9 && easy[1].quality > 0.9, "{easy:?}");
    assert!(hard[0].quality < 0.1 && hard[1].quality > 0.9, "{hard:?}");
    assert!(easy[0].tokens < 60.0 && hard[0].tokens > 300.0);
    assert!(easy[0].neighbours > 50);
    assert!(predictor.summary().calibration_error < 0.1);
    assert_eq!(predictor.position("large"), Some(1));
    assert_eq!((predictor.rows(), predictor.fitted_rows()), (400, 400));
}

#[test]
fn no_history_is_a_wide_prior() {
    let empty = Predictor::empty();
    assert!(predict(&empty, "anything").is_empty());
    let unknown = empty.unknown();
    assert_eq!((unknown.quality, unknown.tokens), (0.5, TOKENS));
    assert!((unknown.spread - (1.0_f32 / 12.0).sqrt()).abs() < 1e-3);
    assert_eq!(fit(&[]).rows(), 0);
    assert!(fit(&[]).summary().to_string().contains("no history"));
    // Rows before any fit: means.
    let learned = empty.with(&rows(50));
    let first = predict(&learned, "What is the capital of geography number 5?");
    assert_eq!(learned.rows(), 50);
    assert!((first[0].quality - 0.5).abs() < 0.05, "{first:?}");
    assert!(first[1].quality > 0.9 && first[1].spread < 0.1, "{first:?}");
    assert!(learned.unknown().quality > 0.5, "the mean of all models");
}

#[test]
fn odd_histories_are_fitted() {
    let one = |score: Option<f32>, tokens: Option<u32>, query: &str| Row {
        query: query.to_owned(),
        input_tokens: None,
        outputs: vec![Output {
            model: Arc::from("m"),
            score,
            tokens,
        }],
        split: None,
    };
    let cases: [(&str, Vec<Row>); 8] = [
        ("one row", vec![one(Some(1.0), None, "a b c")]),
        ("all right", vec![one(Some(1.0), Some(0), "a b c"); 60]),
        ("all wrong", vec![one(Some(0.0), Some(9), "a b c"); 60]),
        ("no scores", vec![one(None, Some(7), "a b"); 60]),
        ("no text", vec![one(Some(0.5), Some(7), ""); 60]),
        ("NaN", vec![one(Some(f32::NAN), None, "x y"); 60]),
        (
            "out of bounds",
            vec![one(Some(1e9), Some(u32::MAX), "x y"); 60],
        ),
        ("spaces", vec![one(Some(0.5), None, " \n\t "); 60]),
    ];
    for (name, rows) in cases {
        let predictor = fit(&rows);
        assert_eq!(predictor.rows(), rows.len(), "{name}");
        for query in ["a b c", "", "unlike", &"long ".repeat(200_000)] {
            let predictions = predict(&predictor, query);
            assert_eq!(predictions.len(), 1, "{name}");
            are_sound(&predictions);
        }
        let mut scratch = Scratch::new();
        predictor.predict(None, &mut scratch);
        are_sound(scratch.predictions());
        are_sound(&[predictor.unknown()]);
    }
    let right = fit(&vec![one(Some(1.0), None, "a b c"); 60]);
    assert!(predict(&right, "a b c")[0].quality > 0.95);
    let wrong = fit(&vec![one(Some(0.0), None, "a b c"); 60]);
    assert!(predict(&wrong, "a b c")[0].quality < 0.05);
}

#[test]
fn the_same_rows_give_the_same_predictor() {
    let write = || {
        let mut bytes = Vec::new();
        fit(&rows(100)).write(&mut bytes).unwrap();
        bytes
    };
    assert!(write() == write());
}

#[test]
fn what_came_since_the_fit_is_learned_at_once() {
    let before = fit(&rows(400));
    let mut row = row(0, &["small", "large"]);
    row.query = "Which river flows through Vienna and Budapest?".to_owned();
    let score = |predictor: &Predictor| predict(predictor, &row.query)[0].quality;
    row.outputs[0].score = Some(0.0);
    let after = before.with(&vec![row.clone(); 12]);
    assert!(score(&after) < score(&before) - 0.2);
    assert_eq!((after.rows(), before.rows()), (412, 400));
    assert_eq!(after.fitted_rows(), 400);
    let other = predict(&after, "Prove the lemma about algebra number 9?");
    assert!(other[1].quality > 0.9, "others are not touched: {other:?}");
}

#[test]
fn a_new_model_is_begun_with() {
    let before = fit(&rows(400));
    let late: Vec<Row> = (0..60).map(|at| row(at, &["late"])).collect();
    let after = before.with(&late);
    assert_eq!(after.position("late"), Some(2));
    assert_eq!(before.position("late"), None);
    let easy = predict(&after, "What is the capital of geography number 5?");
    let hard = predict(&after, "Prove the lemma about algebra number 5?");
    are_sound(&easy);
    assert!(easy[2].quality > hard[2].quality + 0.2, "{easy:?} {hard:?}");
    assert!(easy[2].spread > easy[0].spread, "{easy:?}");
    // One too many is passed over.
    let many = (0..MOST_MODELS + 3).map(|at| row(at, &[&format!("m{at}")]));
    assert_eq!(
        after.with(&many.collect::<Vec<_>>()).models().len(),
        MOST_MODELS
    );
}

#[test]
fn scores_of_one_model_in_each_row_are_enough() {
    let sparse = (0..600).map(|at| row(at, &[["small", "large"][at / 2 % 2]]));
    let predictor = fit(&sparse.collect::<Vec<_>>());
    let small = predictor.position("small").unwrap();
    let hard = predict(&predictor, "Prove the lemma about algebra number 5?");
    assert!(hard[small].quality < 0.2 && hard[1 - small].quality > 0.8);
}

#[test]
fn a_prediction_allocates_nothing_once_its_buffers_have_grown() {
    let predictor = fit(&rows(300));
    let mut scratch = Scratch::new();
    let query = "Prove the lemma about algebra number 5?";
    predictor.predict(Some(query), &mut scratch);
    let sizes = |scratch: &Scratch| {
        let predictions = scratch.predictions.capacity();
        (predictions, scratch.neighbourhood.capacity())
    };
    let before = (sizes(&scratch), scratch.predictions.as_ptr());
    predictor.predict(Some(query), &mut scratch);
    predictor.predict(None, &mut scratch);
    assert_eq!((sizes(&scratch), scratch.predictions.as_ptr()), before);
}

#[test]
fn rows_without_a_score_only_move_means() {
    let scored = rows(300);
    let mut mixed = scored.clone();
    let lengths = (0..200).map(|at| {
        let mut row = row(at, &["small", "large"]);
        for output in &mut row.outputs {
            output.score = None;
            output.tokens = Some(1_000);
        }
        row
    });
    mixed.extend(lengths);
    let (few, all) = (fit(&scored), fit(&mixed));
    assert_eq!((all.rows(), all.index.rows()), (500, 300));
    assert_eq!(all.with(&mixed[300..]).index.rows(), 300);
    assert_eq!(all.with(&mixed[300..]).rows(), 700);
    let query = "Prove the lemma about algebra number 5?";
    let (few, all) = (predict(&few, query), predict(&all, query));
    assert_eq!(few[0].quality.to_bits(), all[0].quality.to_bits());
    assert_eq!(few[0].neighbours, all[0].neighbours);
    assert!(all[0].tokens > few[0].tokens);
}

#[test]
fn neighbours_that_tell_a_length_are_counted_apart() {
    let mut history = rows(200);
    let easy = "What is the capital of geography number 5?";
    assert!(predict(&fit(&history), easy)[0].lengths > 50);
    for row in &mut history {
        row.outputs[0].tokens = None;
    }
    let first = predict(&fit(&history), easy);
    assert!(
        first[0].neighbours > 50 && first[0].lengths == 0,
        "{first:?}"
    );
    assert!(first[1].lengths > 50, "{first:?}");
}

#[test]
fn what_is_new_is_less_certain() {
    let predictor = fit(&rows(400));
    let width = |query: &str| {
        let one = predict(&predictor, query)[1];
        one.spread / (one.quality * (1.0 - one.quality)).sqrt()
    };
    let usual = width("Prove the lemma about algebra number 5?");
    let half = width("Prove the lemma about warthogs grazing beneath Kilimanjaro?");
    let foreign = width("Wieviele Elefanten passen quer durchs Nadelöhr, ungefähr?");
    assert!(
        usual < 0.8 * half && half < foreign,
        "{usual} {half} {foreign}"
    );
}

#[test]
fn a_model_without_history_finds_hard_what_others_do() {
    let predictor = fit(&rows(400));
    let mut scratch = Scratch::new();
    assert_eq!(scratch.unknown(), Predictor::empty().unknown());
    let mut unknown = |query: Option<&str>| {
        predictor.predict(query, &mut scratch);
        scratch.unknown()
    };
    let easy = unknown(Some("What is the capital of geography number 5?"));
    let hard = unknown(Some("Prove the lemma about algebra number 5?"));
    are_sound(&[easy, hard]);
    assert!(easy.quality > hard.quality + 0.1, "{easy:?} {hard:?}");
    assert!(easy.tokens < hard.tokens, "{easy:?} {hard:?}");
    assert!(easy.spread > 0.09 && easy.neighbours == 0, "{easy:?}");
    assert_eq!(unknown(None), predictor.unknown());
}

#[test]
fn right_answers_of_late_do_not_make_all_certain() {
    let mut means = Means::default();
    assert_eq!(means.latest_quality(), 0.0);
    for _ in 0..60 {
        means.notice(Outcome::new(0, Some(0.4), None), 0.6);
    }
    let latest = means.latest_quality();
    let of = |before: f32| chance(odds(before) + latest);
    assert!((0.85..0.95).contains(&of(0.6)), "{latest}");
    assert!(of(0.2) < 0.65 && of(0.9) < 0.99, "{latest}");
}
