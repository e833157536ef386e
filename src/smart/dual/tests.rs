use fastrand::Rng;
use proptest::prelude::*;

use super::*;

/// An instance that owns its rows.
#[derive(Debug, Clone)]
struct Instance {
    models: usize,
    cost: Vec<f64>,
    quality: Vec<f64>,
    requirement: f64,
    limits: Vec<usize>,
}

impl Instance {
    fn problem(&self) -> Problem<'_> {
        Problem {
            models: self.models,
            cost: &self.cost,
            quality: &self.quality,
            requirement: self.requirement,
            limits: &self.limits,
        }
    }

    fn queries(&self) -> usize {
        self.cost.len() / self.models
    }

    /// Qualities in hundredths; dearer models are better, more or less.
    fn random(rng: &mut Rng, queries: usize, models: usize) -> Self {
        let unit = [1.0, 1e-7, 1e4][rng.usize(..3)];
        let (mut cost, mut quality) = (Vec::new(), Vec::new());
        for _ in 0..queries {
            let length = 0.2 + rng.f64();
            for model in 0..models {
                let tier = (model + 1) as f64 / models as f64;
                cost.push(unit * length * 10_f64.powf(tier) * (0.5 + rng.f64()));
                quality.push((100.0 * tier.sqrt() * rng.f64().sqrt()).round() / 100.0);
            }
        }
        let requirement = 0.3 + 0.6 * rng.f64();
        Self {
            models,
            cost,
            quality,
            requirement,
            limits: Vec::new(),
        }
    }

    fn with_limits(mut self, rng: &mut Rng) -> Self {
        let queries = self.queries();
        self.limits = (0..self.models).map(|_| rng.usize(0..=queries)).collect();
        self
    }

    /// The least cost by looking at all assignments.
    fn brute(&self) -> Option<f64> {
        let queries = self.queries();
        let mut best = None;
        let count = u32::try_from(queries).unwrap();
        for number in 0..self.models.pow(count) {
            let (mut rest, mut cost, mut quality) = (number, 0.0, 0.0);
            let mut load = vec![0; self.models];
            for query in 0..queries {
                let model = rest % self.models;
                rest /= self.models;
                load[model] += 1;
                cost += self.cost[query * self.models + model];
                quality += self.quality[query * self.models + model];
            }
            let is_good = quality >= self.requirement * queries as f64 - 1e-9 * queries as f64;
            let has_room = load
                .iter()
                .enumerate()
                .all(|(model, load)| self.limits.get(model).is_none_or(|limit| load <= limit));
            if is_good && has_room && best.is_none_or(|best| cost < best) {
                best = Some(cost);
            }
        }
        best
    }

    /// The least cost without limits, by the sum of qualities in hundredths.
    fn dynamic(&self) -> Option<f64> {
        let queries = self.queries();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0..=100"
        )]
        let hundredths = |at: usize| (self.quality[at] * 100.0).round() as usize;
        let mut least = vec![f64::INFINITY; queries * 100 + 1];
        least[0] = 0.0;
        for query in 0..queries {
            let mut next = vec![f64::INFINITY; least.len()];
            for (sum, cost) in least
                .iter()
                .enumerate()
                .filter(|(_, cost)| cost.is_finite())
            {
                for at in query * self.models..(query + 1) * self.models {
                    let to = &mut next[sum + hundredths(at)];
                    *to = to.min(cost + self.cost[at]);
                }
            }
            least = next;
        }
        let target = self.requirement * queries as f64 - 1e-9 * queries as f64;
        let good = least
            .iter()
            .enumerate()
            .filter(|(sum, _)| *sum as f64 / 100.0 >= target);
        let best = good.map(|(_, cost)| *cost).fold(f64::INFINITY, f64::min);
        best.is_finite().then_some(best)
    }
}

/// What must hold of any solution.
fn check(of: &Instance, solution: &Solution) {
    let queries = of.queries();
    assert_eq!(solution.assignment.len(), queries);
    let (mut cost, mut quality) = (0.0, 0.0);
    let mut load = vec![0; of.models];
    for (query, &model) in solution.assignment.iter().enumerate() {
        cost += of.cost[query * of.models + model];
        quality += of.quality[query * of.models + model] / queries as f64;
        load[model] += 1;
    }
    assert!((cost - solution.cost).abs() <= 1e-9 * cost.abs());
    assert!((quality - solution.quality).abs() < 1e-9);
    assert!(solution.cost >= solution.bound, "{solution:?}");
    assert!(solution.lambda >= 0.0 && solution.lambda.is_finite());
    assert!(solution.mu.iter().all(|mu| *mu >= 0.0 && mu.is_finite()));
    if solution.is_feasible {
        assert!(quality >= of.requirement - 1e-8, "{solution:?}");
        for (model, load) in load.iter().enumerate() {
            assert!(of.limits.get(model).is_none_or(|limit| load <= limit));
        }
    }
}

#[test]
fn small_instances_are_solved_exactly() {
    let mut rng = Rng::with_seed(7);
    let mut feasible = 0;
    for round in 0..600 {
        let (queries, models) = (rng.usize(1..=7), rng.usize(1..=4));
        let mut one = Instance::random(&mut rng, queries, models);
        if round % 2 == 1 {
            one = one.with_limits(&mut rng);
        }
        let (exact, solution) = (one.brute(), solve(&one.problem()));
        check(&one, &solution);
        assert_eq!(
            exact.is_some(),
            solution.is_feasible,
            "{one:?} {solution:?}"
        );
        if let Some(exact) = exact {
            feasible += 1;
            assert!(
                solution.bound <= exact * (1.0 + 1e-9),
                "{one:?} {solution:?}"
            );
            assert!(
                solution.cost <= exact * (1.0 + 1e-6),
                "{exact} {one:?} {solution:?}"
            );
        }
    }
    assert!(feasible > 200, "{feasible}");
}

#[test]
fn larger_instances_are_within_a_hundredth() {
    let mut rng = Rng::with_seed(11);
    let mut worst: f64 = 0.0;
    for _ in 0..120 {
        let (queries, models) = (rng.usize(10..=60), rng.usize(2..=5));
        let one = Instance::random(&mut rng, queries, models);
        let (exact, solution) = (one.dynamic(), solve(&one.problem()));
        check(&one, &solution);
        assert_eq!(exact.is_some(), solution.is_feasible);
        if let Some(exact) = exact {
            assert!(solution.bound <= exact * (1.0 + 1e-9));
            worst = worst.max(solution.cost / exact - 1.0);
        }
    }
    assert!(worst < 0.01, "{worst}");
}

#[test]
fn limits_cost_a_hundredth_above_the_bound_at_most() {
    let mut rng = Rng::with_seed(13);
    let (mut worst, mut feasible): (f64, u32) = (0.0, 0);
    for _ in 0..60 {
        let queries = rng.usize(60..=200);
        let models = rng.usize(2..=4);
        let one = Instance::random(&mut rng, queries, models).with_limits(&mut rng);
        let solution = solve(&one.problem());
        check(&one, &solution);
        if solution.is_feasible {
            feasible += 1;
            worst = worst.max(solution.cost / solution.bound - 1.0);
        }
    }
    assert!(feasible >= 15, "{feasible}");
    assert!(worst < 0.01, "{worst}");
}

#[test]
fn beyond_reach_it_is_the_best_quality() {
    let one = Instance {
        models: 2,
        cost: vec![1.0, 5.0, 1.0, 5.0, 1.0, 5.0],
        quality: vec![0.2, 0.8, 0.5, 0.5, 0.4, 0.9],
        requirement: 0.9,
        limits: Vec::new(),
    };
    let solution = solve(&one.problem());
    assert!(!solution.is_feasible);
    assert_eq!(solution.assignment, [1, 0, 1]);
    assert!(solution.lambda >= 4.0 / 0.5);
    // One place for the good model: it goes where it is worth most.
    let limited = Instance {
        limits: vec![3, 1],
        ..one.clone()
    };
    let solution = solve(&limited.problem());
    assert!(!solution.is_feasible);
    assert_eq!(solution.assignment, [1, 0, 0]);
    // Places for two of the three: both limits are raised.
    let narrow = Instance {
        limits: vec![1, 1],
        requirement: 0.0,
        ..one
    };
    let solution = solve(&narrow.problem());
    assert!(!solution.is_feasible);
    assert_eq!(solution.assignment.len(), 3);
}

#[test]
fn nothing_to_solve() {
    for models in 0..3 {
        let empty = Problem {
            models,
            cost: &[],
            quality: &[],
            requirement: 0.7,
            limits: &[],
        };
        let solution = solve(&empty);
        assert!(solution.assignment.is_empty() && solution.is_feasible);
        assert_eq!((solution.cost, solution.bound), (0.0, 0.0));
        assert_eq!(lambda(&empty), 0.0);
    }
}

#[test]
fn what_a_model_cannot_have_it_does_not_get() {
    let (nan, no) = (f64::NAN, f64::INFINITY);
    let problem = Problem {
        models: 3,
        cost: &[nan, 2.0, 3.0, no, no, nan, -5.0, 1.0, 1.0],
        quality: &[1.0, 0.8, 0.9, 0.1, 0.2, 0.3, nan, 7.0, 0.0],
        requirement: 0.0,
        limits: &[],
    };
    let solution = solve(&problem);
    assert_eq!(solution.assignment, [1, 2, 0]);
    assert_eq!(solution.cost, 2.0);
    let all = Problem {
        requirement: 1.1 / 3.0 + 1.0 / 3.0,
        ..problem
    };
    assert_eq!(solve(&all).assignment, [1, 2, 1]);
}

#[test]
fn lambda_is_that_of_the_solution() {
    let mut rng = Rng::with_seed(5);
    for _ in 0..20 {
        let one = Instance::random(&mut rng, 40, 3);
        assert_eq!(solve(&one.problem()).lambda, lambda(&one.problem()));
    }
}

proptest! {
    #[test]
    fn constraints_hold_and_the_bound_is_one(seed: u64, queries in 1_usize..40, models in 1_usize..6, is_limited: bool) {
        let mut rng = Rng::with_seed(seed);
        let mut one = Instance::random(&mut rng, queries, models);
        if is_limited {
            one = one.with_limits(&mut rng);
        }
        check(&one, &solve(&one.problem()));
    }

    #[test]
    fn any_numbers_give_numbers(
        models in 0_usize..5,
        cost in proptest::collection::vec(any::<f64>(), 0..40),
        quality in proptest::collection::vec(any::<f64>(), 0..40),
        requirement in any::<f64>(),
        limits in proptest::collection::vec(any::<usize>(), 0..4),
    ) {
        let problem = Problem { models, cost: &cost, quality: &quality, requirement, limits: &limits };
        let solution = solve(&problem);
        let numbers = [solution.cost, solution.quality, solution.lambda, solution.bound];
        prop_assert!(numbers.iter().chain(&solution.mu).all(|one| !one.is_nan()), "{solution:?}");
        prop_assert!(solution.assignment.iter().all(|model| *model < models));
        prop_assert!(solution.cost >= solution.bound);
    }
}
