//! The lines of the table.

use super::*;

#[test]
fn random_costs_what_it_takes() {
    // Learned: the dear one is the best. True: the cheap one; nobody who knows
    // that mixes it with another.
    let mut all = with_test(rows(60), 20);
    for row in &mut all {
        let is_test = row.split == Some(Split::Test);
        row.outputs[0].score = Some(f32::from(u8::from(is_test)));
        row.outputs[1].score = Some(f32::from(u8::from(!is_test)));
    }
    let prices = [("weak", 1.0, 0.0), ("good", 2.0, 0.0)];
    let report = report(&all, &priced(&prices));
    let average = line(&report, Strategy::SmartAverage, Some(0.9));
    assert!(average.cost > 150.0 && average.quality < 0.5, "{average:?}");
    let random = line(&report, Strategy::Random, Some(0.9));
    assert_eq!((random.cost, random.quality), (100.0, 1.0));
    for line in &report.strategies {
        assert!(line.random_quality == Some(1.0), "{line:?}");
    }
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains("-0.0,") && !json.contains("-0.0}"), "{json}");
    // At a cost between two, the best of both.
    let points =
        [(0, 100.0, 1.0), (1, 200.0, 0.0)].map(|(model, cost, quality)| strategies::Point {
            model,
            cost,
            quality,
        });
    let (quality, shares) = strategies::mixture(&points, 150.0).unwrap();
    assert_eq!((quality, shares[0]), (1.0, (0, 1.0)));
    assert_eq!(strategies::mixture(&points, 99.0), None);
}

#[test]
fn a_lucky_order_shows_nothing() {
    let report = report(&rows(300), &options());
    let average = line(&report, Strategy::SmartAverage, Some(0.9));
    let (quality, cost) = (average.quality_sd.unwrap(), average.cost_sd.unwrap());
    // Where the multipliers know such queries beforehand, orders may not differ.
    assert!(quality < 0.05 && cost < 0.05, "{quality} {cost}");
    assert!(
        average.quality_gap.unwrap() - (average.quality - average.predicted_quality.unwrap())
            == 0.0
    );
    let (middle, spread) = strategies::spread(&[1.0, 2.0, 3.0]);
    assert_eq!((middle, spread), (2.0, 1.0));
    // The same seeds, the same orders.
    let next = Options {
        seed: u64::MAX,
        train_rows: Some(200),
        requirements: vec![0.9, 0.7, 0.9],
        ..options()
    };
    let next = run(&rows(300), &next, &AtomicUsize::new(0)).unwrap();
    assert_ne!(line(&next, Strategy::SmartAverage, Some(0.9)), average);
    // What is asked for twice is answered once.
    let duals = next.strategies.iter();
    let duals = duals.filter(|line| line.strategy == Strategy::Dual);
    let asked: Vec<f64> = duals.filter_map(|line| line.requirement).collect();
    assert_eq!(asked, [0.9, 0.7]);
}
