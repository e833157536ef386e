//! The rule: which model gets a request, of what each would cost and how good
//! its answer would be.

use super::dual::sound;

/// A predicted quality comes from an `f32`, and 0.7 as an `f32` is below 0.7.
const ROUNDING: f64 = 1e-6;

/// A model that a request allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The chance that its answer is right, 0..=1; what is no number is 0.
    pub quality: f64,
    /// What it costs, in any unit that all share; `None`, negative or no
    /// number: not known, which is never free.
    pub cost: Option<f64>,
    /// Whether somebody serves it now and has room.
    pub is_open: bool,
    /// What its load adds to its cost; in the cost's unit.
    pub load_price: f64,
}

/// What the answers must be worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Requirement {
    /// Each answer this quality, by its prediction.
    Each(f64),
    /// All together this quality on average.
    Average {
        /// What one unit of quality is worth, in the cost's unit; see
        /// [`Running`](super::running::Running).
        lambda: f64,
        /// The mean; it decides as [`Self::Each`] while `lambda` is no number.
        quality: f64,
    },
}

/// Why a model was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It is the cheapest that meets the requirement.
    GoodEnough,
    /// None meets it: this one is the best.
    Best,
    /// Its quality is worth its cost, at the multiplier's price.
    Balanced,
    /// There was no other.
    Only,
}

/// A choice, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Which candidate.
    pub at: usize,
    /// Why.
    pub why: Why,
}

impl Why {
    /// All, in their order.
    pub const ALL: [Self; 4] = [Self::GoodEnough, Self::Best, Self::Balanced, Self::Only];

    /// As metrics and decisions call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GoodEnough => "good_enough",
            Self::Best => "best",
            Self::Balanced => "balanced",
            Self::Only => "only",
        }
    }
}

impl Candidate {
    /// Its quality as a number that can be compared.
    #[must_use]
    pub(crate) fn worth(&self) -> f64 {
        sound(self.quality, 1.0)
    }

    /// What it costs with what its load adds, if its price is known.
    #[must_use]
    pub(crate) fn price(&self) -> Option<f64> {
        let cost = self.cost.filter(|cost| cost.is_finite() && *cost >= 0.0)?;
        Some(cost + self.load())
    }

    /// What its load adds.
    #[must_use]
    pub(crate) fn load(&self) -> f64 {
        if self.load_price.is_finite() {
            self.load_price.max(0.0)
        } else {
            0.0
        }
    }
}

/// The model that gets the request; `None` if there is none at all. If none is
/// open, it is chosen as if all were.
///
/// Equal ones: the better, then the first.
#[must_use]
pub fn choose(candidates: &[Candidate], requirement: Requirement) -> Option<Chosen> {
    let any_open = candidates.iter().any(|one| one.is_open);
    let able = || {
        let all = candidates.iter().enumerate();
        all.filter(move |(_, one)| one.is_open || !any_open)
    };
    let (first, _) = able().next()?;
    if able().nth(1).is_none() {
        let why = Why::Only;
        return Some(Chosen { at: first, why });
    }
    match requirement {
        Requirement::Average { lambda, .. } if lambda.is_finite() => {
            let at = balanced(able(), lambda.max(0.0))?;
            let why = Why::Balanced;
            Some(Chosen { at, why })
        }
        Requirement::Each(least) | Requirement::Average { quality: least, .. } => {
            let good = || able().filter(|(_, one)| one.worth() + ROUNDING >= least);
            // Not known is not free: such a model has no place among prices.
            let known = cheapest(good().filter_map(|(at, one)| Some((at, one, one.price()?))));
            let unknown = || cheapest(good().map(|(at, one)| (at, one, one.load())));
            let why = Why::GoodEnough;
            if let Some(at) = known.or_else(unknown) {
                return Some(Chosen { at, why });
            }
            let at = best(able())?;
            let why = Why::Best;
            Some(Chosen { at, why })
        }
    }
}

type Numbered<'a> = (usize, &'a Candidate);

/// The least price; of equal ones the better, then the first.
fn cheapest<'a>(all: impl Iterator<Item = (usize, &'a Candidate, f64)>) -> Option<usize> {
    let order = |a: &(usize, &Candidate, f64), b: &(usize, &Candidate, f64)| {
        let better = || b.1.worth().total_cmp(&a.1.worth());
        a.2.total_cmp(&b.2).then_with(better)
    };
    all.min_by(order).map(|(at, ..)| at)
}

/// The best quality; of equal ones the cheaper, then the first.
fn best<'a>(all: impl Iterator<Item = Numbered<'a>>) -> Option<usize> {
    let price = |one: &Candidate| one.price().unwrap_or(f64::INFINITY);
    let order = |a: &Numbered<'_>, b: &Numbered<'_>| {
        let cheaper = || price(a.1).total_cmp(&price(b.1));
        b.1.worth().total_cmp(&a.1.worth()).then_with(cheaper)
    };
    all.min_by(order).map(|(at, _)| at)
}

/// The least of cost − λ · quality; an unknown price is the dearest known.
fn balanced<'a>(all: impl Iterator<Item = Numbered<'a>> + Clone, lambda: f64) -> Option<usize> {
    let known = all.clone().filter_map(|(_, one)| one.price());
    let dearest = known.fold(0.0, f64::max);
    let net = |one: &Candidate| {
        let price = one.price().unwrap_or(dearest + one.load());
        price - lambda * one.worth()
    };
    cheapest(all.map(|(at, one)| (at, one, net(one))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What each candidate is (quality and cost; `?`: not known), the rule (a
    /// requirement, or a multiplier after `λ`), who is chosen, and why.
    const CASES: &str = "
        one                  | 0.1 5               | 0.7    | 0 only
        cheapest             | 0.9 3, 0.8 1, 0.75 2 | 0.7   | 1 good_enough
        the cheaper fails    | 0.9 3, 0.6 1        | 0.7    | 0 good_enough
        none meets it        | 0.5 3, 0.6 9, 0.4 1 | 0.7    | 1 best
        as good: cheaper     | 0.6 3, 0.6 1        | 0.7    | 1 best
        as cheap: better     | 0.8 1, 0.9 1        | 0.7    | 1 good_enough
        all equal: first     | 0.8 1, 0.8 1        | 0.7    | 0 good_enough
        exactly met          | 0.9 2, 0.7 1        | 0.7    | 1 good_enough
        met as an f32        | 0.9 2, 0.699999988 1 | 0.7   | 1 good_enough
        unknown is not free  | 0.9 ?, 0.8 9        | 0.7    | 1 good_enough
        unknown, none else   | 0.9 ?, 0.6 9        | 0.7    | 0 good_enough
        all unknown          | 0.7 ?, 0.9 ?        | 0.7    | 1 good_enough
        the best is unknown  | 0.6 ?, 0.5 9        | 0.7    | 0 best
        as good: known       | 0.6 ?, 0.6 9        | 0.7    | 1 best
        no number            | NaN 0, 0.8 9        | 0.7    | 1 good_enough
        negative is unknown  | 0.9 -1, 0.8 9       | 0.7    | 1 good_enough
        nothing is asked     | 0.9 3, 0.1 1        | 0      | 1 good_enough
        asked is no number   | 0.9 3, 0.1 1        | NaN    | 0 best
        balance: cheap       | 0.9 3, 0.8 1        | λ 10   | 1 balanced
        balance: good        | 0.9 3, 0.8 1        | λ 30   | 0 balanced
        even: better         | 0.25 1, 0.75 2      | λ 2    | 1 balanced
        unknown as dearest   | 0.9 ?, 0.8 1, 0.9 3 | λ 10   | 1 balanced
        no price: better     | 0.5 ?, 0.8 ?        | λ 0    | 1 balanced
        not learned: each    | 0.9 3, 0.8 1        | λ NaN  | 1 good_enough
        not learned: best    | 0.6 3, 0.5 1        | λ inf  | 0 best
    ";

    fn candidates(of: &str) -> Vec<Candidate> {
        let one = |text: &str| {
            let (quality, cost) = text.trim().split_once(' ').unwrap();
            Candidate {
                quality: quality.parse().unwrap(),
                cost: (cost != "?").then(|| cost.parse().unwrap()),
                is_open: true,
                load_price: 0.0,
            }
        };
        of.split(',').map(one).collect()
    }

    fn requirement(of: &str) -> Requirement {
        match of.strip_prefix("λ ") {
            Some(lambda) => Requirement::Average {
                lambda: lambda.parse().unwrap(),
                quality: 0.7,
            },
            None => Requirement::Each(of.parse().unwrap()),
        }
    }

    #[test]
    fn the_cheapest_that_is_good_enough_else_the_best() {
        for line in CASES.lines().filter(|line| !line.trim().is_empty()) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let chosen = choose(&candidates(cells[1]), requirement(cells[2])).unwrap();
            let told = format!("{} {}", chosen.at, chosen.why.name());
            assert_eq!(told, cells[3], "{}", cells[0]);
        }
        assert_eq!(choose(&[], Requirement::Each(0.7)), None);
    }

    #[test]
    fn each_reason_has_its_name() {
        let names = Why::ALL.map(Why::name);
        assert_eq!(names, ["good_enough", "best", "balanced", "only"]);
        assert!(Why::ALL.is_sorted());
    }

    #[test]
    fn only_open_ones_unless_none_is() {
        let mut all = candidates("0.9 1, 0.9 2, 0.9 3");
        let at = |all: &[Candidate]| {
            choose(all, Requirement::Each(0.7)).map(|chosen| (chosen.at, chosen.why))
        };
        all[0].is_open = false;
        assert_eq!(at(&all), Some((1, Why::GoodEnough)));
        all[1].is_open = false;
        assert_eq!(at(&all), Some((2, Why::Only)));
        all[2].is_open = false;
        assert_eq!(at(&all), Some((0, Why::GoodEnough)));
    }

    #[test]
    fn load_has_its_price() {
        let mut all = candidates("0.9 1, 0.9 2, 0.5 0");
        all[0].load_price = 1.5;
        let of = |requirement| choose(&all, requirement).map(|chosen| chosen.at);
        assert_eq!(of(Requirement::Each(0.7)), Some(1));
        let (lambda, quality) = (100.0, 0.7);
        assert_eq!(of(Requirement::Average { lambda, quality }), Some(1));
    }

    proptest! {
        /// Whatever the numbers, somebody is chosen, and an open one if any is.
        #[test]
        fn always_a_choice(
            of in proptest::collection::vec((any::<f64>(), proptest::option::of(any::<f64>()), any::<bool>(), any::<f64>()), 1..6),
            lambda in any::<f64>(), quality in any::<f64>(), is_average in any::<bool>(),
        ) {
            let all: Vec<_> = of.into_iter()
                .map(|(quality, cost, is_open, load_price)| Candidate { quality, cost, is_open, load_price })
                .collect();
            let requirement = if is_average { Requirement::Average { lambda, quality } } else { Requirement::Each(quality) };
            let chosen = choose(&all, requirement).unwrap();
            prop_assert!(all[chosen.at].is_open || all.iter().all(|one| !one.is_open));
        }
    }
}
