use super::*;

#[test]
fn a_few_more_make_no_difference() {
    for (waiting, grade) in [
        (None, 0),
        (Some(0.0), 0),
        (Some(2.0), 0),
        (Some(3.0), 1),
        (Some(14.0), 1),
        (Some(15.0), 2),
        (Some(-7.0), 0),
        (Some(f64::NAN), 0),
        (Some(f64::INFINITY), i64::MAX),
    ] {
        assert_eq!(rough(waiting), grade, "{waiting:?}");
    }
}

#[test]
fn long_queries_are_cut_between_characters() {
    let long = "é".repeat(MOST_QUERY);
    assert_eq!(cut("short"), "short");
    assert_eq!(cut(&long).len(), MOST_QUERY);
    let odd = format!("x{long}");
    assert_eq!(cut(&odd).len(), MOST_QUERY - 1);
    assert_eq!(cut(""), "");
}

#[tokio::test]
async fn connections_are_kept_to_few() {
    let pool = Pool::new(1, Duration::ZERO, Duration::ZERO);
    let advisers = Advisers::new(pool);
    let url = |n: usize| EngineUrl::parse(&format!("http://a:{}", n + 1)).unwrap();
    let first = advisers.target(&url(0));
    assert_eq!(advisers.target(&url(0)).key, first.key);
    for n in 0..3 * MOST_TARGETS {
        advisers.target(&url(n));
        assert!(advisers.targets.borrow().len() <= MOST_TARGETS);
    }
    assert_ne!(advisers.target(&url(0)).key, first.key, "never given twice");
}
