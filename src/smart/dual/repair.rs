//! What the multipliers leave open: savings that the requirement still allows,
//! then a bounded search among the few queries that are nearly undecided.

use super::{ROUNDING, Table, weights};

/// Times that all savings are looked at.
const MOST_PASSES: usize = 8;
/// Queries that are searched; the others keep their model.
const MOST_OPEN: usize = 40;
/// Steps of the search: some milliseconds.
const MOST_STEPS: usize = 300_000;

/// A cheaper model for a query.
struct Saving {
    query: usize,
    to: usize,
    saves: f64,
    loses: f64,
}

/// Takes savings, the most for the quality they lose first, while the
/// requirement and the limits are kept.
pub(super) fn improve(table: &Table, assignment: &mut [usize]) {
    let mut load = table.load(assignment);
    let spare = |assignment: &[usize]| table.sums(assignment).1 - table.target;
    for _ in 0..MOST_PASSES {
        let mut left = spare(assignment);
        let mut has_moved = vec![false; table.queries];
        let mut any = false;
        for saving in savings(table, assignment) {
            let Saving { query, to, .. } = saving;
            let has_room = load[to] < table.limits[to];
            if has_moved[query] || !has_room || saving.loses > left {
                continue;
            }
            left -= saving.loses;
            load[assignment[query]] -= 1;
            load[to] += 1;
            assignment[query] = to;
            (has_moved[query], any) = (true, true);
        }
        if !any {
            break;
        }
    }
}

fn savings(table: &Table, assignment: &[usize]) -> Vec<Saving> {
    let mut all = Vec::new();
    for (query, at) in table.cells(assignment).enumerate() {
        for (to, cell) in table.row(query).enumerate() {
            let saves = table.cost[at] - table.cost[cell];
            let loses = table.quality[at] - table.quality[cell];
            if saves > 0.0 {
                all.push(Saving {
                    query,
                    to,
                    saves,
                    loses,
                });
            }
        }
    }
    let worth = |one: &Saving| match one.loses > 0.0 {
        true => one.saves / one.loses,
        false => f64::INFINITY,
    };
    all.sort_by(|a, b| {
        let larger = || b.saves.total_cmp(&a.saves);
        worth(b).total_cmp(&worth(a)).then_with(larger)
    });
    all
}

/// A model that a query may get in the search.
#[derive(Clone, Copy)]
struct Way {
    model: usize,
    /// How far it is above the dual.
    regret: f64,
    cost: f64,
    quality: f64,
}

/// Depth first, the least regret first.
struct Search<'a> {
    table: &'a Table,
    queries: Vec<(usize, Vec<Way>)>,
    /// The most quality that the queries from here on can have.
    reach: Vec<f64>,
    /// The cost to get below, without rounding.
    best: f64,
    bound: f64,
    chosen: Vec<usize>,
    found: Option<Vec<usize>>,
    load: Vec<usize>,
    steps: usize,
}

/// Where the search is.
#[derive(Clone, Copy)]
struct At {
    depth: usize,
    cost: f64,
    quality: f64,
    regret: f64,
}

/// Searches for a cheaper assignment: any query's model that is further above
/// the dual than the assignment is can be left out.
pub(super) fn finish(table: &Table, assignment: &mut [usize], lambda: f64, mu: &[f64]) {
    let bound = table.dual(lambda, mu);
    let best = table.sums(assignment).0;
    if best - bound <= ROUNDING * best {
        return;
    }
    let mut open = Vec::new();
    let mut fixed = At {
        depth: 0,
        cost: 0.0,
        quality: 0.0,
        regret: 0.0,
    };
    let mut load = vec![0; table.models];
    let all: Vec<_> = (0..table.queries)
        .map(|query| options(table, query, lambda, mu))
        .collect();
    for (query, options) in all.iter().enumerate() {
        let can: Vec<Way> = (options.iter().copied())
            .filter(|one| one.regret < best - bound)
            .collect();
        if can.len() > 1 {
            open.push((query, can));
        }
    }
    // The most undecided are kept open, and decided last.
    open.sort_by(|a, b| b.1[1].regret.total_cmp(&a.1[1].regret));
    open.drain(..open.len().saturating_sub(MOST_OPEN));
    let mut is_open = vec![false; table.queries];
    open.iter().for_each(|(query, _)| is_open[*query] = true);
    for (query, options) in all.iter().enumerate().filter(|(query, _)| !is_open[*query]) {
        let Some(one) = options.iter().find(|one| one.model == assignment[query]) else {
            return;
        };
        fixed.cost += one.cost;
        fixed.quality += one.quality;
        fixed.regret += one.regret;
        load[one.model] += 1;
    }
    let mut search = Search {
        table,
        reach: reach(&open),
        queries: open,
        best,
        bound,
        chosen: Vec::new(),
        found: None,
        load,
        steps: 0,
    };
    search.step(fixed);
    if let Some(found) = search.found {
        for ((query, _), model) in search.queries.iter().zip(found) {
            assignment[*query] = model;
        }
    }
}

/// A query's models by their regret.
fn options(table: &Table, query: usize, lambda: f64, mu: &[f64]) -> Vec<Way> {
    let cells = || table.row(query).zip(mu);
    let net = |(at, mu): (usize, &f64)| table.net(at, weights(lambda)) + mu;
    let least = cells().map(net).fold(f64::INFINITY, f64::min);
    let mut all: Vec<Way> = (cells().enumerate())
        .map(|(model, (at, mu))| Way {
            model,
            regret: net((at, mu)) - least,
            cost: table.cost[at],
            quality: table.quality[at],
        })
        .filter(|one| one.cost.is_finite())
        .collect();
    all.sort_by(|a, b| a.regret.total_cmp(&b.regret));
    all
}

fn reach(open: &[(usize, Vec<Way>)]) -> Vec<f64> {
    let mut reach = vec![0.0; open.len() + 1];
    for (at, (_, options)) in open.iter().enumerate().rev() {
        let most = options.iter().map(|one| one.quality).fold(0.0, f64::max);
        reach[at] = reach[at + 1] + most;
    }
    reach
}

impl Search<'_> {
    fn step(&mut self, at: At) {
        self.steps += 1;
        let is_hopeless = !self.table.meets(at.quality + self.reach[at.depth])
            || self.bound + at.regret >= self.best * (1.0 - ROUNDING);
        if self.steps > MOST_STEPS || is_hopeless {
            return;
        }
        let Some((_, options)) = self.queries.get(at.depth) else {
            if at.cost < self.best * (1.0 - ROUNDING) {
                self.best = at.cost;
                self.found = Some(self.chosen.clone());
            }
            return;
        };
        for one in options.clone() {
            if self.load[one.model] >= self.table.limits[one.model] {
                continue;
            }
            self.load[one.model] += 1;
            self.chosen.push(one.model);
            self.step(At {
                depth: at.depth + 1,
                cost: at.cost + one.cost,
                quality: at.quality + one.quality,
                regret: at.regret + one.regret,
            });
            self.chosen.pop();
            self.load[one.model] -= 1;
        }
    }
}
