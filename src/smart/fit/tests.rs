use super::*;

fn rows(count: usize, models: usize) -> (Vec<Row>, Vec<Arc<str>>) {
    let names: Vec<Arc<str>> = (0..models).map(|at| format!("m{at}").into()).collect();
    let mut random = fastrand::Rng::with_seed(3);
    let mut row = |_| {
        let words: Vec<String> = (0..12).map(|_| format!("w{}", random.u32(0..60))).collect();
        let hard = words.iter().any(|word| word == "w7" || word == "w8");
        let output = |(at, model): (usize, &Arc<str>)| Output {
            model: Arc::clone(model),
            score: Some(f32::from(u8::from(
                random.f32() < if hard && at == 0 { 0.3 } else { 0.8 },
            ))),
            tokens: Some(if hard { 300 } else { 100 }),
        };
        Row {
            outputs: names.iter().enumerate().map(output).collect(),
            query: words.join(" "),
            input_tokens: None,
            split: None,
        }
    };
    let rows = (0..count).map(&mut row).collect();
    (rows, names)
}

/// At the optimum a weight is what its feature adds up to over all that exceeded
/// what was expected: here that of the feature which is always there.
#[test]
fn the_linear_models_are_at_their_optimum() {
    let (rows, names) = rows(300, 3);
    let (corpus, _) = Corpus::read(&rows, names.len());
    let scores = figures(&rows, &names, |output, _| score(output));
    let base = bases(&scores, names.len());
    let all: Vec<usize> = (0..rows.len()).collect();
    for (loss, freedoms) in [
        (Loss::Logistic, &FREEDOMS[..]),
        (Loss::Squared, &[LENGTH_FREEDOM][..]),
    ] {
        for &freedom in freedoms {
            let task = Task::new(&corpus, &scores, loss, &base);
            let linear = task.fit(&all, freedom);
            let mut sums = Vec::new();
            let mut excess = [0.0_f32; 3];
            for row in &all {
                linear.expect(corpus.row(*row), &mut sums);
                for at in scores.of(*row) {
                    let (model, figure) = scores.all[at];
                    let model = usize::from(model);
                    excess[model] += figure - task.value(sums[model]);
                }
            }
            let together: f32 = excess.iter().sum();
            let weights = &linear.weights[linear.weights.len() - 4..];
            for (weight, own) in weights.iter().zip(excess) {
                let expected = freedom * 0.5 * (0.5 * own + 0.5 * together);
                assert!(
                    (weight - expected).abs() < 0.03,
                    "{loss:?} {freedom}: {weight} beside {expected}"
                );
            }
        }
    }
}

#[test]
fn figures_are_those_of_rows_with_a_text() {
    let (mut rows, names) = rows(4, 2);
    rows[1].query = " \n".to_owned();
    rows[2].outputs.swap(0, 1);
    rows[3].outputs.pop();
    let scores = figures(&rows, &names, |output, _| score(output));
    let models =
        |row: usize| -> Vec<u8> { scores.all[scores.of(row)].iter().map(|one| one.0).collect() };
    assert_eq!(
        [models(0), models(1), models(2), models(3)],
        [vec![0, 1], vec![], vec![1, 0], vec![0]]
    );
}

#[test]
fn samples_are_even_and_bounded() {
    assert_eq!(sample(5, 10), [0, 1, 2, 3, 4]);
    assert_eq!(sample(10, 5), [0, 2, 4, 6, 8]);
    assert_eq!(sample(11, 5), [0, 3, 6, 9]);
    assert!(sample(0, 5).is_empty());
}

#[test]
fn what_is_more_than_is_trained_on_is_still_indexed() {
    let (rows, names) = rows(50, 2);
    // As many models as leave room for a few rows only.
    let (corpus, _) = Corpus::read(&rows, 96_000_000 / 200);
    assert!((1..50).contains(&corpus.rows()), "{}", corpus.rows());
    let means = vec![Means::default(); names.len()];
    let (_, index) = fit(rows, &names, &means, &mut |_| {});
    assert_eq!(index.rows(), 50);
}

#[test]
fn rows_of_one_text_are_in_one_part() {
    let (mut rows, _) = rows(40, 1);
    let text = rows[0].query.clone();
    rows[9].query.clone_from(&text);
    let (corpus, _) = Corpus::read(&rows, 1);
    assert_eq!(corpus.fold(0), corpus.fold(9));
    let parts: std::collections::BTreeSet<u8> = (0..40).map(|row| corpus.fold(row)).collect();
    assert_eq!(parts.len(), usize::from(FOLDS));
}

/// Their own answers would make it seem that everything can be known.
#[test]
fn rows_of_one_text_do_not_calibrate_each_other() {
    let (once, names) = rows(300, 2);
    let thrice = once.iter().flat_map(|row| std::iter::repeat_n(row, 3));
    let thrice: Vec<Row> = thrice.cloned().collect();
    let means = vec![Means::default(); names.len()];
    let (fitted, index) = fit(thrice.clone(), &names, &means, &mut |_| {});
    assert!(fitted.summary.log_loss > 0.45, "{}", fitted.summary);
    for [slope, _] in &fitted.calibration {
        assert!((0.3..1.8).contains(slope), "{:?}", fitted.calibration);
    }
    let (corpus, _) = Corpus::read(&thrice, names.len());
    // Behind four rows more: three of the first text, one of the second.
    let twins = corpus.twins(&thrice[..4]);
    assert_eq!(twins.of(1).collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6]);
    assert_eq!(twins.of(8).collect::<Vec<_>>(), [3, 7, 8, 9]);
    assert_eq!(index.rows(), 900);
}
