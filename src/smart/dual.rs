//! The batch form of smart routing: the cheapest assignment of queries to
//! models whose mean quality meets a requirement, within each model's limit.
//!
//! minimise Σ c·x, so that the mean quality is at least α, each query has one
//! model, and no model has more queries than its limit. The requirement is
//! priced by a multiplier λ. For a given λ the rest is an assignment that is
//! solved exactly, limits included (`flow`; its potentials are the
//! multipliers μ). The dual is then piecewise linear in λ alone, and its top is
//! where two of its lines meet: a search without step sizes that ends exactly.
//! What the multipliers leave open is a matter of a few queries (`repair`).

mod flow;
mod repair;

/// Lines of the dual that are looked at; a dozen is usual.
const MOST_LINES: usize = 64;
/// By so much of a mean quality may a sum of rounded numbers miss it.
const ROUNDING: f64 = 1e-9;

/// Queries, models, and what is asked of them.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// How many models there are: the length of a row.
    pub models: usize,
    /// A row for each query, in any unit. Below 0 counts as 0; what is not
    /// finite: that model cannot have that query (if none can, each can, free).
    pub cost: &'a [f64],
    /// Rows as of the cost, 0..=1; what is no number is 0.
    pub quality: &'a [f64],
    /// What the mean quality must be; what is no number asks for nothing.
    pub requirement: f64,
    /// The most queries of each model; none for those beyond the end.
    pub limits: &'a [usize],
}

/// An assignment, and how good it can be at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The model of each query.
    pub assignment: Vec<usize>,
    /// The sum of their costs.
    pub cost: f64,
    /// Their mean quality.
    pub quality: f64,
    /// The price of one unit of one query's quality, in the cost's unit.
    pub lambda: f64,
    /// The price of a place, for each model, in the cost's unit.
    pub mu: Vec<f64>,
    /// No assignment that meets everything costs less. Where none does: what
    /// any assignment costs at least.
    pub bound: f64,
    /// Whether the requirement is met within all limits; if not, this is the
    /// best quality within the limits, and limits too small for all queries
    /// were raised, each by the same factor.
    pub is_feasible: bool,
}

/// The rows as they are computed with: costs 0..=1, or infinite.
struct Table {
    queries: usize,
    models: usize,
    cost: Vec<f64>,
    quality: Vec<f64>,
    /// The unit of the costs.
    unit: f64,
    /// What the sum of qualities must be.
    target: f64,
    limits: Vec<usize>,
    are_limits_kept: bool,
}

/// What one unit of each is worth when models are compared.
#[derive(Clone, Copy)]
struct Weights {
    cost: f64,
    quality: f64,
}

/// Quality before all; of equal ones the cheaper.
const BEST: Weights = Weights {
    cost: 1e-9,
    quality: 1.0,
};

/// The top of the dual.
struct Top {
    lambda: f64,
    /// An assignment there that meets the requirement, or the best there is.
    assignment: Vec<usize>,
    is_reached: bool,
}

/// The cheapest assignment that meets the requirement: optimal when the problem
/// is small, else within the share of a query or two of the optimum.
///
/// Takes time in proportion to the queries; with limits, also to how many of
/// them must leave the model they would have.
#[must_use]
pub fn solve(problem: &Problem<'_>) -> Solution {
    let table = Table::new(problem);
    let mut top = table.top();
    let mu = table.potentials(top.lambda);
    let is_feasible = top.is_reached && table.are_limits_kept && table.keeps(&top.assignment);
    let bound = if is_feasible {
        table.dual(top.lambda, &mu)
    } else {
        table.dual(0.0, &vec![0.0; table.models])
    };
    if is_feasible {
        repair::improve(&table, &mut top.assignment);
        repair::finish(&table, &mut top.assignment, top.lambda, &mu);
    }
    let (cost, quality) = table.sums(&top.assignment);
    Solution {
        cost: cost * table.unit,
        quality: mean(quality, table.queries),
        lambda: top.lambda * table.unit,
        mu: mu.iter().map(|one| one * table.unit).collect(),
        // Rounding shall not put it above the cost of what it bounds.
        bound: bound.min(cost).max(0.0) * table.unit,
        assignment: top.assignment,
        is_feasible,
    }
}

/// λ alone: what one unit of quality is worth at the optimum. Where the
/// requirement cannot be met, so much that each query gets the best.
#[must_use]
pub fn lambda(problem: &Problem<'_>) -> f64 {
    let table = Table::new(problem);
    table.top().lambda * table.unit
}

fn mean(sum: f64, of: usize) -> f64 {
    if of == 0 { 0.0 } else { sum / of as f64 }
}

impl Table {
    fn new(problem: &Problem<'_>) -> Self {
        let models = problem.models;
        let cells = problem.cost.len().min(problem.quality.len());
        let queries = cells.checked_div(models).unwrap_or(0);
        let known = |cost: &&f64| cost.is_finite() && **cost > 0.0;
        let of_costs = problem.cost.iter().filter(known);
        let most = of_costs.copied().fold(0.0, f64::max);
        let unit = if most > 0.0 { most } else { 1.0 };
        let mut cost: Vec<f64> = problem.cost[..queries * models]
            .iter()
            .map(|cost| match cost.is_finite() {
                true => cost.max(0.0) / unit,
                false => f64::INFINITY,
            })
            .collect();
        for row in cost.chunks_exact_mut(models.max(1)) {
            if row.iter().all(|cost| cost.is_infinite()) {
                row.fill(0.0);
            }
        }
        let quality = problem.quality[..queries * models]
            .iter()
            .map(|&one| sound(one, 1.0))
            .collect();
        let (limits, are_limits_kept) = raised(problem.limits, queries, models);
        // Above 1 nothing meets it, by however much.
        let requirement = sound(problem.requirement, 2.0);
        Self {
            queries,
            models,
            cost,
            quality,
            unit,
            target: requirement * queries as f64,
            limits,
            are_limits_kept,
        }
    }

    fn row(&self, query: usize) -> std::ops::Range<usize> {
        query * self.models..(query + 1) * self.models
    }

    /// Where the line through two assignments, one on either side of the
    /// requirement, is no longer above the dual.
    fn top(&self) -> Top {
        let of = |lambda, assignment, is_reached| Top {
            lambda,
            assignment,
            is_reached,
        };
        let low = self.assign(weights(0.0));
        let (mut low_cost, mut low_quality) = self.sums(&low);
        if self.meets(low_quality) {
            return of(0.0, low, true);
        }
        let mut high = self.assign(BEST);
        let (mut high_cost, mut high_quality) = self.sums(&high);
        if !self.meets(high_quality) {
            return of(self.steepest(), high, false);
        }
        let mut lambda = 0.0;
        for _ in 0..MOST_LINES {
            let rise = high_quality - low_quality;
            let slope = (high_cost - low_cost) / rise;
            if !(rise > 0.0 && slope.is_finite() && slope >= 0.0) {
                break;
            }
            lambda = slope;
            let next = self.assign(weights(lambda));
            let (cost, quality) = self.sums(&next);
            let line = low_cost - lambda * low_quality;
            if cost - lambda * quality >= line - 1e-12 * (1.0 + line.abs()) {
                break;
            }
            if self.meets(quality) {
                (high, high_cost, high_quality) = (next, cost, quality);
            } else {
                (low_cost, low_quality) = (cost, quality);
            }
        }
        of(lambda, high, true)
    }

    /// Enough for each query to get the best it can have.
    fn steepest(&self) -> f64 {
        let mut most: f64 = 0.0;
        for query in 0..self.queries {
            let cells = || self.row(query).filter(|&at| self.cost[at].is_finite());
            for (a, b) in cells().flat_map(|a| cells().map(move |b| (a, b))) {
                let (dearer, better) = (
                    self.cost[a] - self.cost[b],
                    self.quality[a] - self.quality[b],
                );
                if dearer > 0.0 && better > 0.0 {
                    most = most.max(dearer / better);
                }
            }
        }
        most.min(1e100)
    }

    /// The value of the dual: below the cost of all that meets everything.
    fn dual(&self, lambda: f64, mu: &[f64]) -> f64 {
        let of_query = |query| {
            let cells = self.row(query).zip(mu);
            let nets = cells.map(|(at, mu)| self.net(at, weights(lambda)) + mu);
            nets.fold(f64::INFINITY, f64::min)
        };
        let nets: f64 = (0..self.queries).map(of_query).sum();
        let places: f64 = (mu.iter().zip(&self.limits))
            .filter(|(mu, _)| **mu > 0.0)
            .map(|(mu, limit)| mu * *limit as f64)
            .sum();
        nets - places + lambda * self.target
    }

    fn net(&self, at: usize, weights: Weights) -> f64 {
        weights.cost * self.cost[at] - weights.quality * self.quality[at]
    }

    fn sums(&self, assignment: &[usize]) -> (f64, f64) {
        let cells = || self.cells(assignment);
        let cost = cells().map(|at| self.cost[at]).sum();
        (cost, cells().map(|at| self.quality[at]).sum())
    }

    fn cells(&self, assignment: &[usize]) -> impl Iterator<Item = usize> {
        let numbered = assignment.iter().enumerate();
        numbered.map(|(query, model)| query * self.models + model)
    }

    fn meets(&self, quality: f64) -> bool {
        quality >= self.target - ROUNDING * self.queries as f64
    }

    fn load(&self, assignment: &[usize]) -> Vec<usize> {
        let mut load = vec![0; self.models];
        for &model in assignment {
            load[model] += 1;
        }
        load
    }

    /// Whether no model has more than its limit.
    fn keeps(&self, assignment: &[usize]) -> bool {
        let load = self.load(assignment);
        load.iter()
            .zip(&self.limits)
            .all(|(load, limit)| load <= limit)
    }
}

fn weights(lambda: f64) -> Weights {
    Weights {
        cost: 1.0,
        quality: lambda,
    }
}

/// From 0 to the most; what is no number is 0.
pub(super) fn sound(one: f64, most: f64) -> f64 {
    if one.is_nan() {
        0.0
    } else {
        one.clamp(0.0, most)
    }
}

/// The limits, raised if they have no place for all queries; whether they had.
fn raised(limits: &[usize], queries: usize, models: usize) -> (Vec<usize>, bool) {
    let limit = |model| limits.get(model).copied().unwrap_or(queries);
    let given: Vec<usize> = (0..models).map(|model| limit(model).min(queries)).collect();
    let places: usize = given.iter().sum();
    if places >= queries {
        return (given, true);
    }
    let raise = |limit: usize| match places {
        0 => queries,
        _ => (limit * queries).div_ceil(places),
    };
    (given.into_iter().map(raise).collect(), false)
}

#[cfg(test)]
mod tests;
