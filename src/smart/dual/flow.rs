//! Assignments at given multipliers: each query's best model, then as few and
//! as cheap moves as bring each model within its limit.

use super::{Table, Weights, weights};

/// A move is better only if it is by more than rounding.
const ROUNDING: f64 = 1e-12;

/// The cheapest move from each model to each other: what it adds, and which
/// query it moves.
struct Moves {
    models: usize,
    cells: Vec<(f64, usize)>,
}

impl Table {
    /// The best model of each query within the limits.
    pub(super) fn assign(&self, weights: Weights) -> Vec<usize> {
        let mut assignment: Vec<usize> = (0..self.queries)
            .map(|query| self.favourite(query, weights))
            .collect();
        let mut load = self.load(&assignment);
        let over = |load: &[usize], model: usize| load[model] > self.limits[model];
        if !(0..self.models).any(|model| over(&load, model)) {
            return assignment;
        }
        let mut on: Vec<Vec<usize>> = load.iter().map(|_| Vec::new()).collect();
        for (query, &model) in assignment.iter().enumerate() {
            on[model].push(query);
        }
        let mut moves = Moves::none(self.models);
        (0..self.models).for_each(|model| moves.look(self, model, &on[model], weights));
        for from in 0..self.models {
            while over(&load, from) {
                let Some(path) = moves.path(from, |model| load[model] < self.limits[model]) else {
                    break;
                };
                for pair in path.windows(2) {
                    let (_, query) = moves.cells[pair[0] * self.models + pair[1]];
                    on[pair[0]].retain(|other| *other != query);
                    on[pair[1]].push(query);
                    assignment[query] = pair[1];
                    load[pair[0]] -= 1;
                    load[pair[1]] += 1;
                }
                for &model in &path {
                    moves.look(self, model, &on[model], weights);
                }
            }
        }
        assignment
    }

    /// The least net cost; of equal ones the better, then the first.
    fn favourite(&self, query: usize, weights: Weights) -> usize {
        let row = self.row(query);
        let (mut best, mut least) = (row.start, f64::INFINITY);
        for at in row.clone() {
            let net = self.net(at, weights);
            let is_better = net == least && self.quality[at] > self.quality[best];
            if net < least || is_better {
                (best, least) = (at, net);
            }
        }
        best - row.start
    }

    /// The multipliers of the limits: what one more place of a model saves.
    pub(super) fn potentials(&self, lambda: f64) -> Vec<f64> {
        if self.limits.iter().all(|limit| *limit >= self.queries) {
            return vec![0.0; self.models];
        }
        let assignment = self.assign(weights(lambda));
        let load = self.load(&assignment);
        let mut moves = Moves::none(self.models);
        for model in 0..self.models {
            let on: Vec<usize> = (0..self.queries)
                .filter(|query| assignment[*query] == model)
                .collect();
            moves.look(self, model, &on, weights(lambda));
        }
        moves.prices(|model| load[model] < self.limits[model])
    }
}

impl Moves {
    fn none(models: usize) -> Self {
        Self {
            models,
            cells: vec![(f64::INFINITY, 0); models * models],
        }
    }

    /// Looks for the cheapest moves of the queries that a model has.
    fn look(&mut self, table: &Table, from: usize, on: &[usize], weights: Weights) {
        let cells = &mut self.cells[from * self.models..(from + 1) * self.models];
        cells.fill((f64::INFINITY, 0));
        for &query in on {
            let row = table.row(query).start;
            let here = table.net(row + from, weights);
            for (to, cell) in cells.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                let adds = table.net(row + to, weights) - here;
                if adds < cell.0 {
                    *cell = (adds, query);
                }
            }
        }
    }

    /// The cheapest chain of moves from a model to one with room.
    fn path(&self, from: usize, has_room: impl Fn(usize) -> bool) -> Option<Vec<usize>> {
        let mut reached = vec![(f64::INFINITY, from); self.models];
        reached[from].0 = 0.0;
        for _ in 1..self.models {
            for (a, b) in self.pairs().filter(|(_, b)| *b != from) {
                let through = reached[a].0 + self.cells[a * self.models + b].0;
                if through < reached[b].0 - ROUNDING {
                    reached[b] = (through, a);
                }
            }
        }
        let open =
            (0..self.models).filter(|model| has_room(*model) && reached[*model].0.is_finite());
        let mut at = open.min_by(|a, b| reached[*a].0.total_cmp(&reached[*b].0))?;
        let mut path = vec![at];
        while at != from {
            at = reached[at].1;
            path.push(at);
            if path.len() > self.models {
                // Rounding made a ring of it.
                return None;
            }
        }
        path.reverse();
        Some(path)
    }

    /// Prices of places at which no move pays; 0 where there is room.
    fn prices(&self, has_room: impl Fn(usize) -> bool) -> Vec<f64> {
        let any = (0..self.models).any(&has_room);
        let first = |model| {
            if has_room(model) || !any {
                0.0
            } else {
                f64::INFINITY
            }
        };
        let mut prices: Vec<f64> = (0..self.models).map(first).collect();
        for _ in 0..self.models {
            for (a, b) in self.pairs() {
                prices[a] = prices[a].min(self.cells[a * self.models + b].0 + prices[b]);
            }
        }
        let finite = || prices.iter().filter(|price| price.is_finite());
        let least = if any {
            0.0
        } else {
            finite().copied().fold(0.0, f64::min)
        };
        let price = |price: &f64| {
            if price.is_finite() {
                (price - least).max(0.0)
            } else {
                0.0
            }
        };
        prices.iter().map(price).collect()
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let models = self.models;
        let all = (0..models).flat_map(move |a| (0..models).map(move |b| (a, b)));
        all.filter(|(a, b)| a != b)
    }
}
