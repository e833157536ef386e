//! What is chosen on rows that were not trained on: how much neighbours count, and
//! how chances are corrected.

use super::corpus::{Figures, Twins};
use super::linear::{chance, odds};
use crate::smart::index::{Index, Outcome, Search};
use crate::smart::predict::{Excess, NEIGHBOURS, certain};

/// Prior weights that are tried, in neighbours that are just like the query.
const PRIORS: [f32; 7] = [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0];
/// Rows on which is chosen: their neighbours are searched among all.
pub(super) const SAMPLE: usize = 2_000;
/// How many rows' worth of trust there is in chances as they are: in their slope,
/// and in their mean.
const TRUST: [f64; 2] = [20.0, 4.0];
/// Mean logarithmic losses that differ by less are equally good.
pub(super) const NOISE: f64 = 0.001;
/// Bins of the calibration error.
const BINS: usize = 10;

/// One figure that is known, and what was expected without it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) model: u8,
    figure: f32,
    expected: f32,
    /// What the neighbours say.
    excess: Excess,
}

/// The figures of some rows, and what their neighbours say of them: those of another
/// text, as if they were asked for the first time.
pub(super) fn cases(
    (index, twins): (&Index, &Twins),
    rows: &[(usize, usize)],
    (figures, expected): (&Figures, &[f32]),
    excess: fn(Outcome) -> Option<f32>,
) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut search = Search::default();
    for (row, indexed) in rows {
        let vector = index.row(*indexed).0;
        let same = twins.of(*indexed);
        index.search(vector, NEIGHBOURS, same, &mut search);
        let from = cases.len();
        cases.extend(figures.of(*row).map(|at| Case {
            model: figures.all[at].0,
            figure: figures.all[at].1,
            expected: expected[at],
            excess: Excess::default(),
        }));
        for neighbour in &search.found {
            for outcome in index.row(neighbour.row).1 {
                let mut own = cases[from..].iter_mut();
                if let Some(case) = own.find(|case| case.model == outcome.model) {
                    case.excess.add(excess(*outcome), neighbour.likeness);
                }
            }
        }
    }
    cases
}

impl Case {
    fn with_neighbours(&self, prior: f32) -> f32 {
        self.expected + self.excess.mean(prior, 0.0)
    }
}

/// The prior weight of qualities: the greatest of those that are as good as the
/// best, since what is gained by less is then noise.
pub(super) fn quality_prior(cases: &[Case]) -> f32 {
    let loss = |prior| mean_loss(cases, |case| certain(case.with_neighbours(prior)));
    greatest(loss, |best| best + NOISE)
}

/// The prior weight of lengths.
pub(super) fn length_prior(cases: &[Case]) -> f32 {
    let square = |case: &Case, prior| f64::from(case.figure - case.with_neighbours(prior)).powi(2);
    let loss = |prior| cases.iter().map(|case| square(case, prior)).sum::<f64>();
    greatest(loss, |best| best * 1.002)
}

fn greatest(loss: impl Fn(f32) -> f64, enough: fn(f64) -> f64) -> f32 {
    let losses = PRIORS.map(&loss);
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let tried = PRIORS.iter().zip(losses).rev();
    let mut good = tried.filter(|(_, loss)| *loss <= enough(best));
    good.next().map_or(PRIORS[4], |(prior, _)| *prior)
}

/// Mean logarithmic loss of chances.
fn mean_loss(cases: &[Case], chance_of: impl Fn(&Case) -> f32) -> f64 {
    let losses = cases
        .iter()
        .map(|case| log_loss(case.figure, chance_of(case)));
    #[expect(clippy::cast_precision_loss, reason = "rows, less than 2^52")]
    let cases = cases.len().max(1) as f64;
    losses.sum::<f64>() / cases
}

/// Logarithmic loss of a chance.
pub(super) fn log_loss(figure: f32, chance: f32) -> f64 {
    let (figure, chance) = (f64::from(figure), f64::from(chance));
    -(figure * chance.ln() + (1.0 - figure) * (1.0 - chance).ln())
}

/// For each model the slope and the shift by which its log-odds are corrected
/// (Platt, 1999), drawn towards 1 and 0 where there are few rows.
pub(super) fn calibration(cases: &[Case], prior: f32, models: usize) -> Vec<[f32; 2]> {
    let of_model = |model: usize| {
        let own = cases.iter().filter(|case| usize::from(case.model) == model);
        let pair = |case: &Case| {
            let odds = odds(certain(case.with_neighbours(prior)));
            (f64::from(odds), f64::from(case.figure))
        };
        newton(&own.map(pair).collect::<Vec<_>>())
    };
    (0..models).map(of_model).collect()
}

/// The most likely slope and shift.
#[expect(clippy::cast_possible_truncation, reason = "f32 is enough")]
fn newton(pairs: &[(f64, f64)]) -> [f32; 2] {
    let (mut slope, mut shift) = (1.0_f64, 0.0_f64);
    for _ in 0..20 {
        let mut gradient = [TRUST[0] * (slope - 1.0), TRUST[1] * shift];
        let mut curve = [TRUST[0], 0.0, TRUST[1]];
        for (odds, figure) in pairs {
            let chance = (1.0 + (-slope * odds - shift).exp()).recip();
            let (excess, spread) = (chance - figure, chance * (1.0 - chance));
            gradient[0] += excess * odds;
            gradient[1] += excess;
            curve[0] += spread * odds * odds;
            curve[1] += spread * odds;
            curve[2] += spread;
        }
        let determinant = curve[0] * curve[2] - curve[1] * curve[1];
        slope -= (curve[2] * gradient[0] - curve[1] * gradient[1]) / determinant;
        shift -= (curve[0] * gradient[1] - curve[1] * gradient[0]) / determinant;
        // Far steps are taken where all were right: what is there is certain.
        slope = slope.clamp(0.2, 3.0);
        shift = shift.clamp(-3.0, 3.0);
    }
    [slope as f32, shift as f32]
}

/// The corrected chance of a case.
pub(super) fn corrected(case: &Case, prior: f32, calibration: &[[f32; 2]]) -> f32 {
    let [slope, shift] = calibration[usize::from(case.model)];
    chance(slope * odds(certain(case.with_neighbours(prior))) + shift)
}

/// How far chances are from what happened: in ten bins of each model, weighted by
/// their cases (the expected calibration error).
#[expect(clippy::cast_precision_loss, reason = "rows, less than 2^52")]
pub(super) fn calibration_error(cases: &[Case], prior: f32, calibration: &[[f32; 2]]) -> f64 {
    let mut bins = vec![[0.0_f64; BINS]; calibration.len()];
    for case in cases {
        let chance = corrected(case, prior, calibration);
        #[expect(clippy::cast_possible_truncation, reason = "0 to 9")]
        #[expect(clippy::cast_sign_loss, reason = "0 to 9")]
        let bin = (chance * BINS as f32) as usize;
        let excess = f64::from(chance - case.figure);
        bins[usize::from(case.model)][bin.min(BINS - 1)] += excess;
    }
    let sum: f64 = bins.iter().flatten().map(|excess| excess.abs()).sum();
    sum / cases.len().max(1) as f64
}

/// Mean logarithmic loss of corrected chances.
pub(super) fn corrected_loss(cases: &[Case], prior: f32, calibration: &[[f32; 2]]) -> f64 {
    mean_loss(cases, |case| certain(corrected(case, prior, calibration)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases whose chance is expected to be `expected`, a share of them right.
    fn cases(expected: f32, right: usize, of: usize) -> Vec<Case> {
        let case = |at| Case {
            model: 0,
            figure: f32::from(u8::from(at < right)),
            expected,
            excess: Excess::default(),
        };
        (0..of).map(case).collect()
    }

    #[test]
    fn chances_that_are_off_are_corrected() {
        let off = [cases(0.95, 700, 1000), cases(0.6, 300, 1000)].concat();
        let calibration = calibration(&off, 40.0, 2);
        assert!(calibration_error(&off, 40.0, &[[1.0, 0.0]; 2]) > 0.25);
        assert!(calibration_error(&off, 40.0, &calibration) < 0.02);
        assert_eq!(calibration[1], [1.0, 0.0], "no rows: as it is");
        let few = calibration_of(&cases(0.9, 1, 3));
        assert!(few[1] > -1.5, "three rows change little: {few:?}");
        let [slope, shift] = calibration_of(&cases(0.9, 500, 500));
        assert!(slope.is_finite() && (0.0..=3.0).contains(&shift));
    }

    fn calibration_of(cases: &[Case]) -> [f32; 2] {
        calibration(cases, 40.0, 1)[0]
    }

    #[test]
    fn neighbours_count_if_they_tell_something() {
        let mut telling = [cases(0.5, 500, 500), cases(0.5, 0, 500)].concat();
        for case in &mut telling {
            for _ in 0..20 {
                case.excess.add(Some(case.figure - 0.5), 0.9);
            }
        }
        assert_eq!(quality_prior(&telling), PRIORS[0]);
        assert_eq!(length_prior(&telling), PRIORS[0]);
        for (at, case) in telling.iter_mut().enumerate() {
            case.excess = Excess::default();
            case.excess
                .add(Some(if at % 2 == 0 { 0.5 } else { -0.5 }), 0.9);
        }
        assert_eq!(quality_prior(&telling), PRIORS[6], "noise");
        assert_eq!(quality_prior(&[]), PRIORS[6]);
    }
}
