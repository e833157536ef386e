use std::collections::VecDeque;

use fastrand::Rng;

use super::*;
use crate::smart::choose::choose;

fn names(count: usize) -> Vec<Arc<str>> {
    (0..count).map(|at| format!("m{at}").into()).collect()
}

/// Three models: dearer ones are better, most of the time.
fn request(rng: &mut Rng, unit: f64, hard: f64) -> Vec<Candidate> {
    let length = 0.3 + rng.f64();
    let hard = hard * rng.f64();
    let of = |(cost, weak): &(f64, f64)| Candidate {
        quality: (1.0 - hard * weak + 0.1 * (rng.f64() - 0.5)).clamp(0.0, 1.0),
        cost: Some(unit * cost * length),
        is_open: true,
        load_price: 0.0,
    };
    [(1.0, 1.0), (4.0, 0.5), (15.0, 0.25)]
        .iter()
        .map(of)
        .collect()
}

/// Mean quality and the sum of costs of what is chosen.
fn serve(running: &Running, window: &mut Window, stream: &[Vec<Candidate>]) -> (f64, f64) {
    let (mut quality, mut cost) = (0.0, 0.0);
    for candidates in stream {
        let chosen = choose(candidates, running.rule()).unwrap();
        window.observe(running, &names(candidates.len()), candidates, chosen.at);
        quality += candidates[chosen.at].quality;
        cost += candidates[chosen.at].cost.unwrap();
    }
    (quality / stream.len() as f64, cost)
}

/// The optimum that knows the whole stream.
fn batch(stream: &[Vec<Candidate>], requirement: f64) -> dual::Solution {
    let cells = || stream.iter().flatten();
    let cost: Vec<f64> = cells().map(|one| one.cost.unwrap()).collect();
    let quality: Vec<f64> = cells().map(|one| one.quality).collect();
    dual::solve(&Problem {
        models: stream[0].len(),
        cost: &cost,
        quality: &quality,
        requirement,
        limits: &[],
    })
}

#[test]
fn a_stationary_stream_costs_what_the_batch_costs() {
    for (seed, unit, requirement) in [(1, 1e-7, 0.7), (2, 1.0, 0.8), (3, 1e4, 0.75), (4, 1.0, 0.6)]
    {
        let mut rng = Rng::with_seed(seed);
        let stream: Vec<_> = (0..4000).map(|_| request(&mut rng, unit, 1.0)).collect();
        let (running, mut window) = (Running::new(requirement), Window::new());
        let (quality, cost) = serve(&running, &mut window, &stream);
        let best = batch(&stream, requirement);
        assert!(
            (quality - requirement).abs() < 0.005,
            "{quality} {requirement}"
        );
        assert!(
            cost < best.cost * 1.05,
            "{} {requirement}",
            cost / best.cost
        );
    }
}

#[test]
fn requests_that_are_all_alike_are_shared_out() {
    let one = |quality, cost| Candidate {
        quality,
        cost: Some(cost),
        is_open: true,
        load_price: 0.0,
    };
    let stream = vec![vec![one(0.6, 1.0), one(0.9, 10.0)]; 4000];
    let (running, mut window) = (Running::new(0.7), Window::new());
    let (quality, cost) = serve(&running, &mut window, &stream);
    assert!((quality - 0.7).abs() < 0.005, "{quality}");
    assert!(cost < batch(&stream, 0.7).cost * 1.05);
}

#[test]
fn it_follows_a_drift_within_two_windows() {
    let mut rng = Rng::with_seed(9);
    let mut stream =
        |hard: f64, count| -> Vec<_> { (0..count).map(|_| request(&mut rng, 1.0, hard)).collect() };
    let (running, mut window) = (Running::new(0.75), Window::new());
    serve(&running, &mut window, &stream(0.8, 2000));
    let before = running.lambda();
    serve(&running, &mut window, &stream(1.2, 2 * WINDOW));
    let harder = stream(1.2, 2000);
    let (quality, cost) = serve(&running, &mut window, &harder);
    assert!((quality - 0.75).abs() < 0.005, "{quality}");
    assert!(cost < batch(&harder, 0.75).cost * 1.05);
    assert!(running.lambda() > before);
    // So easy that the cheapest does: nothing is saved up for later.
    serve(&running, &mut window, &stream(0.1, 2000));
    assert_eq!(running.lambda(), 0.0);
    serve(&running, &mut window, &stream(0.8, 2 * WINDOW));
    let (quality, _) = serve(&running, &mut window, &stream(0.8, 2000));
    assert!((quality - 0.75).abs() < 0.005, "{quality}");
}

#[test]
fn beyond_reach_each_gets_the_best() {
    let mut rng = Rng::with_seed(3);
    let stream: Vec<_> = (0..600).map(|_| request(&mut rng, 1.0, 1.0)).collect();
    let (running, mut window) = (Running::new(1.0), Window::new());
    serve(&running, &mut window, &stream);
    let (quality, _) = serve(&running, &mut window, &stream);
    assert!(quality > batch(&stream, 1.0).quality - 0.001);
}

/// Requests that come one a step, to a cheap model with few places and a dear one.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    unit: f64,
    is_average: bool,
    are_alike: bool,
    limit: usize,
    /// Steps that a request takes.
    stay: usize,
    /// Steps between two looks at the load.
    looks: usize,
}

/// What each step saw.
struct Served {
    running: Running,
    loads: Vec<usize>,
    quality: f64,
    lacking: usize,
}

const CROWD: Crowd = Crowd {
    unit: 1.0,
    is_average: false,
    are_alike: true,
    limit: 10,
    stay: 30,
    looks: 1,
};

impl Crowd {
    fn ask(&self, rng: &mut Rng, running: &Running) -> [Candidate; 2] {
        let (length, quality) = match self.are_alike {
            true => (1.0, 0.8),
            false => (0.3 + rng.f64(), 0.5 + 0.5 * rng.f64()),
        };
        let one = |model: &str, quality, cost: f64| Candidate {
            quality,
            cost: Some(cost * self.unit * length),
            is_open: true,
            load_price: running.mu(model),
        };
        [one("m0", quality, 1.0), one("m1", 0.9, 5.0)]
    }

    fn serve(&self, steps: usize) -> Served {
        let mut rng = Rng::with_seed(21);
        let mut window = Window::new();
        let mut open: VecDeque<(usize, usize)> = VecDeque::new();
        let mut served = Served {
            running: Running::new(0.7),
            loads: Vec::new(),
            quality: 0.0,
            lacking: 0,
        };
        let running = &served.running;
        for step in 0..steps {
            while open.front().is_some_and(|(until, _)| *until <= step) {
                open.pop_front();
            }
            let candidates = self.ask(&mut rng, running);
            let rule = match self.is_average {
                true => running.rule(),
                false => Requirement::Each(0.7),
            };
            let at = choose(&candidates, rule).unwrap().at;
            served.quality += candidates[at].quality / steps as f64;
            served.lacking += usize::from(candidates[at].quality < 0.7);
            window.observe(running, &names(2), &candidates, at);
            open.push_back((step + self.stay, at));
            let load = open.iter().filter(|(_, model)| *model == 0).count();
            if step % self.looks == 0 {
                window.load(running, "m0", load as f64, self.limit as f64);
            }
            served.loads.push(load);
        }
        served
    }
}

#[test]
fn a_full_model_gets_no_more_than_it_has_places() {
    let sizes = [(10, 30, 1), (10, 30, 3), (100, 300, 10)];
    for (limit, stay, looks) in sizes {
        for at in 0..8 {
            let crowd = Crowd {
                unit: [1e-7, 1.0][at % 2],
                is_average: at / 2 % 2 == 0,
                are_alike: at / 4 == 0,
                limit,
                stay,
                looks,
            };
            let served = crowd.serve(100 * stay);
            let loads = &served.loads[10 * stay..];
            let mean = loads.iter().sum::<usize>() as f64 / loads.len() as f64;
            let off = |load: &usize| (*load as f64 - mean).powi(2);
            let deviation = (loads.iter().map(off).sum::<f64>() / loads.len() as f64).sqrt();
            let places = limit as f64;
            let most = *served.loads.iter().max().unwrap() as f64;
            assert!(most <= places * 1.4, "{crowd:?}: {most}");
            // Its places are used, without swings.
            assert!(
                mean > places * 0.95 && mean < places * 1.05,
                "{crowd:?}: {mean}"
            );
            // Looked at now and then, requests that are all alike come in waves.
            assert!(deviation < places * 0.25, "{crowd:?}: {deviation}");
            assert_eq!(served.running.mu("m1"), 0.0);
            match crowd.is_average {
                true => assert!(served.quality > 0.695, "{crowd:?}: {}", served.quality),
                false => assert_eq!(served.lacking, 0, "{crowd:?}"),
            }
        }
    }
}

#[test]
fn where_there_is_room_a_place_is_free() {
    let served = Crowd { stay: 5, ..CROWD }.serve(500);
    assert_eq!((served.running.mu("m0"), served.loads[499]), (0.0, 5));
    // And becomes free again.
    let (running, mut window) = (Running::new(0.7), Window::new());
    let mut rng = Rng::with_seed(3);
    serve(&running, &mut window, &[request(&mut rng, 1.0, 1.0)]);
    window.load(&running, "m0", 20.0, 10.0);
    assert!(running.mu("m0") > 0.0);
    window.load(&running, "m0", 5.0, 10.0);
    assert_eq!(running.mu("m0"), 0.0);
    for (in_flight, limit) in [
        (20.0, 10.0),
        (20.0, 0.0),
        (f64::NAN, 10.0),
        (20.0, f64::INFINITY),
    ] {
        window.load(&running, "m0", in_flight, limit);
        assert_eq!(running.mu("m0") > 0.0, limit == 10.0 && in_flight == 20.0);
    }
    window.load(&running, "m7", 20.0, 10.0);
}

#[test]
fn another_requirement_keeps_the_multipliers() {
    let running = Running::new(0.7);
    assert!(running.lambda().is_nan());
    assert!(
        matches!(running.rule(), Requirement::Average { lambda, quality } if lambda.is_nan() && quality == 0.7)
    );
    let mut window = Window::new();
    let mut rng = Rng::with_seed(3);
    let stream: Vec<_> = (0..40).map(|_| request(&mut rng, 1.0, 1.0)).collect();
    serve(&running, &mut window, &stream);
    window.load(&running, "m1", 20.0, 10.0);
    running.set_requirement(0.8);
    assert_eq!(running.requirement(), 0.8);
    assert!(running.lambda() > 0.0 && running.mu("m1") > 0.0 && running.mu("m7") == 0.0);
}

#[test]
fn the_models_of_the_window_are_known() {
    let (running, mut window) = (Running::new(0.7), Window::default());
    let one = Candidate {
        quality: 0.8,
        cost: Some(1.0),
        is_open: true,
        load_price: 0.0,
    };
    window.observe(&running, &names(2), &[one], 0);
    assert_eq!(window.models(), names(1));
    window.load(&running, "m0", 9.0, 3.0);
    assert!(running.mu("m0") > 0.0);
    for at in 0..WINDOW + 100 {
        let name = format!("n{at}").into();
        window.observe(&running, &[name], &[one], 0);
    }
    assert_eq!(window.models().len(), MOST_MODELS);
    assert_eq!(running.mu("m0"), 0.0);
    for _ in 0..=WINDOW {
        window.observe(&running, &names(1), &[one], 0);
    }
    assert_eq!(window.models(), names(1));
}

#[test]
fn the_window_is_bounded_and_takes_any_numbers() {
    let (running, mut window) = (Running::new(f64::NAN), Window::new());
    let mut rng = Rng::with_seed(1);
    let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300, 0.5];
    for step in 0..3 * WINDOW {
        let one = |rng: &mut Rng| Candidate {
            quality: odd[rng.usize(..6)],
            cost: rng.bool().then(|| odd[rng.usize(..6)]),
            is_open: rng.bool(),
            load_price: odd[rng.usize(..6)],
        };
        let candidates: Vec<_> = (0..rng.usize(0..4)).map(|_| one(&mut rng)).collect();
        window.observe(&running, &names(3), &candidates, rng.usize(..4));
        window.load(
            &running,
            ["m0", "m1", "m7"][step % 3],
            odd[rng.usize(..6)],
            odd[rng.usize(..6)],
        );
        assert!(running.lambda() >= 0.0 || running.lambda().is_nan());
        assert!(running.mu("m0") >= 0.0 && running.mu("m1") >= 0.0);
        if step % WINDOW == 0 {
            running.set_requirement(odd[rng.usize(..6)]);
        }
    }
    assert_eq!(window.rows.len(), WINDOW);
}

#[test]
fn a_window_that_is_seeded_knows_its_price_at_once() {
    let row = |quality: f64| {
        let cheap = Candidate {
            quality,
            cost: Some(1.0),
            is_open: true,
            load_price: 0.0,
        };
        let dear = Candidate {
            quality: 0.9,
            cost: Some(3.0),
            ..cheap
        };
        vec![cheap, dear]
    };
    let rows: Vec<Vec<Candidate>> = (0..100_u32)
        .map(|at| row(f64::from(at % 10) / 10.0))
        .collect();
    let models = [Arc::from("cheap"), Arc::from("dear")];
    let (seeded, mut window) = (Running::new(0.7), Window::new());
    window.seed(&seeded, &[]);
    assert!(seeded.lambda().is_nan(), "nothing is known");
    window.seed(&seeded, &rows);
    let at_once = seeded.lambda();
    assert!(at_once.is_finite() && at_once > 0.0);
    // As if these requests had come; and what was seeded owes nothing.
    let (lived, mut other) = (Running::new(0.7), Window::new());
    for row in rows.iter().cycle().take(1024) {
        let chosen = choose(row, lived.rule()).unwrap();
        other.observe(&lived, &models, row, chosen.at);
    }
    assert!(
        (at_once / lived.lambda() - 1.0).abs() < 0.3,
        "{at_once}: {}",
        lived.lambda()
    );
    window.observe(&seeded, &models, &rows[0], 1);
    assert!(
        (seeded.lambda() / at_once - 1.0).abs() < 0.1,
        "one request changes little"
    );
}
