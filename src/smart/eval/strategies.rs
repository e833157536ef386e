//! The lines of the table: whom each strategy takes, and what comes of it.

use std::sync::Arc;

use fastrand::Rng;

use super::cases::{Case, Judged, Seeds, Seen};
use super::report::{Line, Strategy};
use super::{Options, Scene, mean};
use crate::smart::choose::{Candidate, Requirement, choose};
use crate::smart::dual::{Problem, solve};
use crate::smart::running::{Running, Window};

/// What a strategy knows of a model's answer beforehand.
type Looks = fn(&Judged) -> Seen;

const SMART: Looks = |judged| judged.smart;
const PLAIN: Looks = |judged| judged.plain;

/// A model that is always taken: its mean cost and quality.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub(super) model: usize,
    pub(super) cost: f64,
    pub(super) quality: f64,
}

/// Orders in which queries may come: one of them may be lucky.
const ORDERS: u64 = 5;

/// All lines, the simple strategies first.
pub(super) fn all(
    scene: &Scene<'_>,
    (cases, seeds): (&[Case], &Seeds),
    options: &Options,
) -> Vec<Line> {
    let table = Table {
        scene,
        cases,
        seeds,
    };
    let (mut lines, points) = table.always();
    let mut asked: Vec<f64> = Vec::new();
    for &requirement in &options.requirements {
        if asked.iter().all(|one| one.total_cmp(&requirement).is_ne()) {
            asked.push(requirement);
        }
    }
    for requirement in asked {
        let plain = table.each(Strategy::PlainEach, requirement, PLAIN);
        let each = table.each(Strategy::SmartEach, requirement, SMART);
        let average = table.average_by_chance(requirement, options.seed);
        let in_order = Strategy::SmartAverageInOrder;
        let in_order = table.average(in_order, requirement, cases.iter());
        let random = table.random(&points, average.cost, requirement);
        let dual = table.dual(requirement);
        let with_ratios = |mut line: Line| {
            line.cost_ratio_to_dual = ratio(line.cost, dual.cost);
            let equal = table.dual(line.predicted_quality.unwrap_or(0.0));
            line.cost_ratio_at_equal_quality = ratio(line.cost, equal.cost);
            line
        };
        lines.extend(random);
        lines.push(plain);
        lines.extend([each, average, in_order].map(with_ratios));
        lines.push(dual);
    }
    lines.push(table.oracle());
    for line in &mut lines {
        line.random_quality = mixture(&points, line.cost).map(|(quality, _)| quality);
    }
    lines
}

/// Infinite where only the second is free; `None` where both are.
fn ratio(cost: f64, of: f64) -> Option<f64> {
    (of > 0.0 || cost > 0.0).then(|| cost / of)
}

/// The mean, and how far single ones are from it: the root of the mean square,
/// less one for the mean.
pub(super) fn spread(all: &[f64]) -> (f64, f64) {
    let count = all.len() as f64;
    let middle = all.iter().sum::<f64>() / count;
    let squares: f64 = all.iter().map(|one| (one - middle).powi(2)).sum();
    (middle, (squares / (count - 1.0)).sqrt())
}

/// The best random mixture of two models at a cost: its quality, and the models
/// with their shares. `None` where each model costs more.
pub(super) fn mixture(points: &[Point], cost: f64) -> Option<(f64, [(usize, f64); 2])> {
    // A sum of costs, rounded, shall still buy what it is made of.
    let most = cost * (1.0 + 1e-9);
    let mut best: Option<(f64, [(usize, f64); 2])> = None;
    for a in points.iter().filter(|a| a.cost <= most) {
        for b in points {
            let apart = b.cost - a.cost;
            let share = if apart > 0.0 {
                ((cost - a.cost) / apart).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let quality = a.quality + share * (b.quality - a.quality);
            if best.is_none_or(|(best, _)| quality > best) {
                best = Some((quality, [(a.model, 1.0 - share), (b.model, share)]));
            }
        }
    }
    best
}

struct Table<'a> {
    scene: &'a Scene<'a>,
    cases: &'a [Case],
    /// What the multipliers begin with.
    seeds: &'a Seeds,
}

impl Table<'_> {
    /// What comes of it when these are taken, one of each query that has any.
    fn line<'b>(&self, strategy: Strategy, taken: impl Iterator<Item = &'b Judged>) -> Line {
        let (mut queries, mut strong) = (0_usize, 0_usize);
        let (mut cost, mut quality) = (0.0, 0.0);
        for judged in taken {
            queries += 1;
            strong += usize::from(judged.model == self.scene.strong);
            cost += judged.cost;
            quality += judged.score;
        }
        let count = queries.max(1) as f64;
        Line {
            strategy,
            model: None,
            requirement: None,
            queries,
            quality: quality / count,
            cost: cost / count,
            strong_share: strong as f64 / count,
            quality_sd: None,
            cost_sd: None,
            predicted_quality: None,
            quality_gap: None,
            cost_ratio_to_dual: None,
            cost_ratio_at_equal_quality: None,
            random_quality: None,
            is_feasible: None,
            is_best: false,
            is_cheapest: false,
        }
    }

    /// The same, with what was thought of those that are taken.
    fn looking(
        &self,
        strategy: Strategy,
        requirement: f64,
        taken: &[&Judged],
        looks: Looks,
    ) -> Line {
        let line = self.line(strategy, taken.iter().copied());
        let predicted = mean(taken.iter().map(|judged| looks(judged).quality));
        Line {
            requirement: Some(requirement),
            predicted_quality: predicted,
            quality_gap: predicted.map(|predicted| line.quality - predicted),
            ..line
        }
    }

    fn always(&self) -> (Vec<Line>, Vec<Point>) {
        let mut lines = Vec::new();
        let mut points = Vec::new();
        for (model, name) in self.scene.models.iter().enumerate() {
            let taken = || self.cases.iter().filter_map(|case| case.of(model));
            let predicted = mean(taken().map(|judged| judged.smart.quality));
            let line = self.line(Strategy::Always, taken());
            points.push(Point {
                model,
                cost: line.cost,
                quality: line.quality,
            });
            lines.push(Line {
                model: Some(name.to_string()),
                predicted_quality: predicted,
                quality_gap: predicted.map(|predicted| line.quality - predicted),
                ..line
            });
        }
        let first = |order: &dyn Fn(&Line, &Line) -> std::cmp::Ordering| {
            (0..lines.len()).min_by(|a, b| order(&lines[*a], &lines[*b]))
        };
        let best = first(&|a, b| b.quality.total_cmp(&a.quality));
        let cheapest = first(&|a, b| a.cost.total_cmp(&b.cost));
        for (at, line) in lines.iter_mut().enumerate() {
            line.is_best = best == Some(at);
            line.is_cheapest = cheapest == Some(at);
        }
        (lines, points)
    }

    /// A mixture for the cost of what it stands beside, or less where nothing
    /// better is to be had for that.
    fn random(&self, points: &[Point], cost: f64, requirement: f64) -> Option<Line> {
        let (quality, shares) = mixture(points, cost)?;
        let sum = |of: &dyn Fn(&Point) -> f64| {
            let share = |point: &Point| {
                let own = shares.iter().filter(|(model, _)| *model == point.model);
                own.fold(0.0, |sum, (_, share)| sum + share)
            };
            let all = points.iter().map(|point| share(point) * of(point));
            all.fold(0.0, |sum, one| sum + one)
        };
        Some(Line {
            requirement: Some(requirement),
            queries: self.cases.len(),
            quality,
            cost: sum(&|point| point.cost),
            strong_share: sum(&|point| f64::from(u8::from(point.model == self.scene.strong))),
            ..self.line(Strategy::Random, std::iter::empty())
        })
    }

    fn each(&self, strategy: Strategy, requirement: f64, looks: Looks) -> Line {
        let rule = Requirement::Each(requirement);
        let taken: Vec<&Judged> = (self.cases.iter())
            .filter_map(|case| {
                let chosen = choose(&candidates(case, looks), rule)?;
                case.judged.get(chosen.at)
            })
            .collect();
        self.looking(strategy, requirement, &taken, looks)
    }

    /// The mean over [`ORDERS`] orders of chance.
    fn average_by_chance(&self, requirement: f64, seed: u64) -> Line {
        let in_an_order = |at: u64| {
            let mut order: Vec<&Case> = self.cases.iter().collect();
            Rng::with_seed(seed.wrapping_add(at)).shuffle(&mut order);
            self.average(Strategy::SmartAverage, requirement, order.into_iter())
        };
        let lines: Vec<Line> = (0..ORDERS).map(in_an_order).collect();
        let of = |of: fn(&Line) -> f64| spread(&lines.iter().map(of).collect::<Vec<f64>>());
        let (quality, quality_sd) = of(|line| line.quality);
        let (cost, cost_sd) = of(|line| line.cost);
        let predicted = mean(lines.iter().filter_map(|line| line.predicted_quality));
        Line {
            quality,
            cost,
            strong_share: of(|line| line.strong_share).0,
            quality_sd: Some(quality_sd),
            cost_sd: Some(cost_sd),
            predicted_quality: predicted,
            quality_gap: predicted.map(|predicted| quality - predicted),
            ..lines[0].clone()
        }
    }

    /// As live, one after the other.
    fn average<'b>(
        &self,
        strategy: Strategy,
        requirement: f64,
        cases: impl Iterator<Item = &'b Case>,
    ) -> Line {
        let (running, mut window) = (Running::new(requirement), Window::new());
        window.seed(&running, self.seeds);
        let mut taken = Vec::with_capacity(self.cases.len());
        for case in cases {
            let candidates = candidates(case, SMART);
            let Some(chosen) = choose(&candidates, running.rule()) else {
                continue;
            };
            let name = |judged: &Judged| Arc::clone(&self.scene.models[judged.model]);
            let models: Vec<_> = case.judged.iter().map(name).collect();
            window.observe(&running, &models, &candidates, chosen.at);
            taken.push(&case.judged[chosen.at]);
        }
        self.looking(strategy, requirement, &taken, SMART)
    }

    /// All queries at once.
    fn dual(&self, requirement: f64) -> Line {
        let models = self.scene.models.len();
        let cells = self.cases.len() * models;
        let (mut cost, mut quality) = (vec![f64::NAN; cells], vec![0.0; cells]);
        for (case, row) in self.cases.iter().zip(0..) {
            for judged in &case.judged {
                cost[row * models + judged.model] = judged.smart.cost;
                quality[row * models + judged.model] = judged.smart.quality;
            }
        }
        let solution = solve(&Problem {
            models,
            cost: &cost,
            quality: &quality,
            requirement,
            limits: &[],
        });
        let pairs = self.cases.iter().zip(&solution.assignment);
        let taken: Vec<&Judged> = pairs.filter_map(|(case, model)| case.of(*model)).collect();
        Line {
            is_feasible: Some(solution.is_feasible),
            ..self.looking(Strategy::Dual, requirement, &taken, SMART)
        }
    }

    /// The best answer, and of equally good ones the cheapest.
    fn oracle(&self) -> Line {
        let order = |a: &&Judged, b: &&Judged| {
            let cheaper = || a.cost.total_cmp(&b.cost);
            b.score.total_cmp(&a.score).then_with(cheaper)
        };
        let taken = self
            .cases
            .iter()
            .filter_map(|case| case.judged.iter().min_by(order));
        self.line(Strategy::Oracle, taken)
    }
}

fn candidates(case: &Case, looks: Looks) -> Vec<Candidate> {
    let candidate = |judged: &Judged| Candidate {
        quality: looks(judged).quality,
        cost: Some(looks(judged).cost),
        is_open: true,
        load_price: 0.0,
    };
    case.judged.iter().map(candidate).collect()
}
