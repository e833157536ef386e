//! Two models: quality against the share of calls that the strong one gets, when
//! queries go to it in the order of what it is predicted to gain.
//!
//! APGR is the area under that curve, so that always the weak model is 0 and
//! always the strong one 1; chance is 0.5. CPT(x) is the share of calls that
//! recovers x of the distance between both. Queries of equal prediction come in
//! any order: the curve is a line through them, the mean over all orders.

use std::cell::RefCell;

use fastrand::Rng;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 1000;

/// Of one query: what each of both models made of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The weak model's score.
    pub weak: f64,
    /// The strong model's score.
    pub strong: f64,
}

/// Queries in the order of what the strong model is predicted to gain, the most
/// first; equal ones together.
#[derive(Debug, Clone)]
pub struct Ranking {
    groups: Vec<Vec<usize>>,
}

impl Ranking {
    /// By these predictions, one for each query; what is no number comes last.
    #[must_use]
    pub fn by(gains: &[f64]) -> Self {
        let key = |at: usize| {
            if gains[at].is_nan() {
                f64::NEG_INFINITY
            } else {
                gains[at]
            }
        };
        let mut order: Vec<usize> = (0..gains.len()).collect();
        order.sort_by(|a, b| key(*b).total_cmp(&key(*a)));
        let groups = order.chunk_by(|a, b| key(*a) == key(*b));
        Self {
            groups: groups.map(<[usize]>::to_vec).collect(),
        }
    }

    /// The corners of the curve: share of calls, share of the distance. `None`
    /// where the strong model is not the better one.
    fn corners(&self, pairs: &[Pair], times: &[u32]) -> Option<Vec<(f64, f64)>> {
        let of_group = |group: &Vec<usize>| {
            let weigh = |at: &usize| {
                let times = f64::from(times[*at]);
                (times, times * (pairs[*at].strong - pairs[*at].weak))
            };
            let all = group.iter().map(weigh);
            all.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        };
        let mut corners = vec![(0.0, 0.0)];
        let mut at = (0.0, 0.0);
        for group in &self.groups {
            let (calls, gain) = of_group(group);
            at = (at.0 + calls, at.1 + gain);
            corners.push(at);
        }
        let (calls, gain) = at;
        // Less is rounding: scores are at least thousandths.
        if gain <= 1e-6 {
            return None;
        }
        let share = |(x, y): (f64, f64)| (x / calls, y / gain);
        Some(corners.into_iter().map(share).collect())
    }

    /// APGR; `None` where the strong model is not the better one.
    #[must_use]
    pub fn apgr(&self, pairs: &[Pair]) -> Option<f64> {
        self.apgr_of(pairs, &vec![1; pairs.len()])
    }

    fn apgr_of(&self, pairs: &[Pair], times: &[u32]) -> Option<f64> {
        let corners = self.corners(pairs, times)?;
        let area = |two: &[(f64, f64)]| (two[1].0 - two[0].0) * (two[0].1 + two[1].1) / 2.0;
        Some(corners.windows(2).map(area).sum())
    }

    /// CPT: the least share of calls that recovers this share of the distance.
    #[must_use]
    pub fn cpt(&self, pairs: &[Pair], recovered: f64) -> Option<f64> {
        let corners = self.corners(pairs, &vec![1; pairs.len()])?;
        let crosses = |two: &&[(f64, f64)]| two[1].1 >= recovered - 1e-12;
        let two = corners.windows(2).find(crosses)?;
        let (rise, run) = (two[1].1 - two[0].1, two[1].0 - two[0].0);
        let part = if rise > 0.0 {
            (recovered - two[0].1) / rise
        } else {
            0.0
        };
        Some(two[0].0 + run * part.clamp(0.0, 1.0))
    }
}

/// Two rankings of the same queries: those of one fold.
#[derive(Debug)]
pub struct Rivals {
    /// The first.
    pub one: Ranking,
    /// The second.
    pub other: Ranking,
    /// The queries.
    pub pairs: Vec<Pair>,
}

/// The mean over folds, by how many queries each has, of those that have one:
/// what different folds learned is not ranked together.
pub fn mean(folds: &[Rivals], of: impl Fn(&Rivals) -> Option<f64>) -> Option<f64> {
    let known = folds
        .iter()
        .filter_map(|fold| Some((fold.pairs.len() as f64, of(fold)?)));
    let (count, sum) = known.fold((0.0, 0.0), |(count, sum), (queries, value)| {
        (count + queries, sum + queries * value)
    });
    (count > 0.0).then(|| sum / count)
}

/// The 95 % interval of the first rankings' APGR less the seconds', from a paired
/// bootstrap over the queries of each fold.
#[must_use]
pub fn interval(folds: &[Rivals], seed: u64) -> Option<[f64; 2]> {
    let rng = RefCell::new(Rng::with_seed(seed));
    let mut differences = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let difference = mean(folds, |fold| {
            let times = &draw(fold.pairs.len(), &mut rng.borrow_mut());
            // A draw without a better model has none.
            let one = fold.one.apgr_of(&fold.pairs, times)?;
            Some(one - fold.other.apgr_of(&fold.pairs, times)?)
        });
        differences.extend(difference);
    }
    differences.sort_unstable_by(f64::total_cmp);
    let quantile = |thousandths: usize| {
        let at = (differences.len() * thousandths / 1000).min(differences.len() - 1);
        differences[at]
    };
    (differences.len() >= RESAMPLES / 2).then(|| [quantile(25), quantile(975)])
}

/// How often each of so many queries is drawn.
fn draw(queries: usize, rng: &mut Rng) -> Vec<u32> {
    let mut times = vec![0; queries];
    for _ in 0..queries {
        times[rng.usize(..queries)] += 1;
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weak and strong scores as digits: "01" is weak wrong, strong right.
    fn pairs(of: &[&str]) -> Vec<Pair> {
        let score = |pair: &str, at| f64::from(u8::from(pair.as_bytes()[at] == b'1'));
        let pair = |pair: &&str| Pair {
            weak: score(pair, 0),
            strong: score(pair, 1),
        };
        of.iter().map(pair).collect()
    }

    fn rivals(one: &Ranking, other: &Ranking, pairs: &[Pair]) -> Rivals {
        let within = |of: &Ranking| Ranking {
            groups: of
                .groups
                .iter()
                .map(|group| {
                    group
                        .iter()
                        .copied()
                        .filter(|at| *at < pairs.len())
                        .collect()
                })
                .collect(),
        };
        Rivals {
            one: within(one),
            other: within(other),
            pairs: pairs.to_vec(),
        }
    }

    #[test]
    fn the_area_under_the_curve() {
        let four = pairs(&["01", "01", "11", "00"]);
        let cases: &[(&str, &[f64], f64)] = &[
            ("perfect", &[4.0, 3.0, 2.0, 1.0], 0.75),
            ("the worst", &[1.0, 2.0, 3.0, 4.0], 0.25),
            ("all equal", &[0.0; 4], 0.5),
            ("ties gain nothing", &[1.0, 0.0, 1.0, 0.0], 0.5),
            (
                "no number comes last",
                &[2.0, 1.0, f64::NAN, f64::NAN],
                0.75,
            ),
        ];
        for (name, gains, area) in cases {
            let apgr = Ranking::by(gains).apgr(&four).unwrap();
            assert!((apgr - area).abs() < 1e-12, "{name}: {apgr}");
        }
        // The distance is one query of four; twice as much is won on the way.
        let spoiled = pairs(&["01", "01", "11", "10"]);
        let apgr = Ranking::by(&[4.0, 3.0, 2.0, 1.0]).apgr(&spoiled).unwrap();
        assert!(
            (apgr - (0.5 + 1.5 + 2.0 + 1.5) / 4.0).abs() < 1e-12,
            "{apgr}"
        );
    }

    #[test]
    fn the_calls_that_recover_so_much() {
        let four = pairs(&["01", "01", "11", "00"]);
        let best = Ranking::by(&[4.0, 3.0, 2.0, 1.0]);
        let even = Ranking::by(&[0.0; 4]);
        assert_eq!(best.cpt(&four, 0.5), Some(0.25));
        assert_eq!(
            best.cpt(&four, 0.8).map(|cpt| (cpt * 1e6).round()),
            Some(400_000.0)
        );
        assert_eq!(even.cpt(&four, 0.5), Some(0.5));
    }

    #[test]
    fn without_a_better_model_there_is_none() {
        for of in [
            &["11", "11"][..],
            &["00", "00"],
            &["10", "01"],
            &["10", "11"],
            &[],
        ] {
            let pairs = pairs(of);
            let ranking = Ranking::by(&vec![0.5; of.len()]);
            assert_eq!(ranking.apgr(&pairs), None, "{of:?}");
            assert_eq!(ranking.cpt(&pairs, 0.5), None, "{of:?}");
            assert_eq!(
                interval(&[rivals(&ranking, &ranking, &pairs)], 1),
                None,
                "{of:?}"
            );
        }
    }

    #[test]
    fn the_interval_is_of_the_difference() {
        let of: Vec<&str> = (0..400)
            .map(|at| ["01", "11", "00", "11"][at % 4])
            .collect();
        let pairs = pairs(&of);
        let good: Vec<f64> = (0..400)
            .map(|at| f64::from(u8::from(at % 4 == 0)))
            .collect();
        let (good, even) = (Ranking::by(&good), Ranking::by(&[0.0; 400]));
        let two = [
            rivals(&good, &even, &pairs),
            rivals(&good, &even, &pairs[..200]),
        ];
        let [low, high] = interval(&two, 7).unwrap();
        let difference = good.apgr(&pairs).unwrap() - 0.5;
        assert!(low < difference && difference < high && low > 0.3 && high < 0.45);
        assert_eq!(interval(&two, 7), Some([low, high]));
        let same = [rivals(&good, &good, &pairs)];
        assert_eq!(interval(&same, 7), Some([0.0, 0.0]));
        // Folds count by their queries, and one without a better model not at all.
        let none = rivals(&even, &even, &[]);
        let folds = [rivals(&even, &even, &pairs), none];
        assert_eq!(mean(&folds, |fold| fold.one.apgr(&fold.pairs)), Some(0.5));
        assert_eq!(mean(&folds[1..], |fold| fold.one.apgr(&fold.pairs)), None);
    }
}
