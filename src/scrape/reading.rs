//! What one page said, and the attributes that are made of it and the one before.

use std::time::Duration;

use super::wanted::{Formula, Made, Wanted};
use crate::config::EngineType;
use crate::fleet::attributes::{Live, Place, Values};

/// What one page said.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// Of each family; NaN: the page does not have it.
    pub(super) values: Box<[f64]>,
    /// Adapters.
    pub(super) names: Vec<String>,
}

impl Reading {
    /// When the engine's process began, if it tells, in Unix seconds.
    pub(super) fn started(&self, wanted: &Wanted) -> Option<f64> {
        self.get(wanted.started)
    }

    /// Whose words the page is in.
    pub(super) fn dialect(&self, wanted: &Wanted) -> EngineType {
        let known = wanted.formulas.iter();
        let mut known = known.filter(|formula| self.get(formula.family).is_some());
        let known = known.find(|formula| formula.of != EngineType::Other);
        known.map_or(EngineType::Other, |formula| formula.of)
    }

    fn get(&self, family: usize) -> Option<f64> {
        Some(self.values[family]).filter(|value| !value.is_nan())
    }

    /// Whether this is another process than the one that told `before`, of those
    /// that do not tell when they began: something that only grows has fallen.
    pub(super) fn has_fallen(&self, before: &Self, wanted: &Wanted) -> bool {
        let fell = |at: usize| self.values[at] < before.values[at];
        // What the configuration calls a counter may be none.
        let mut formulas = wanted.formulas.iter().filter(|one| !one.is_own);
        formulas.any(|formula| match formula.made {
            Made::Rate => fell(formula.family),
            Made::Over(other) | Made::OverBoth(other) => fell(formula.family) || fell(other),
            _ => false,
        })
    }

    /// Every attribute's value: from this page, and from the one `before`, so
    /// long ago, what counters and histograms did since. NaN: the page has it, but
    /// nothing happened that would tell.
    pub(super) fn values(
        &self,
        wanted: &Wanted,
        only: Option<EngineType>,
        before: Option<(&Self, Duration)>,
        unix_now: f64,
    ) -> Values {
        let mut values = [None; Place::COUNT];
        for formula in &wanted.formulas {
            let slot = &mut values[formula.place.index()];
            let is_meant =
                only.is_none_or(|only| formula.of == only) || formula.of == EngineType::Other;
            if slot.is_some_and(|value: f64| !value.is_nan()) || !is_meant || !self.has(formula) {
                continue;
            }
            // Nothing has happened: what is known stands, unless another source
            // knows more of the first page.
            let value = self.value(formula, before, unix_now).unwrap_or(f64::NAN);
            // None of ours is ever below nothing: -1 stands for unknown.
            let is_ours = formula.place.index() < Live::ALL.len();
            let is_unknown = value.is_infinite() || (is_ours && value < 0.0);
            if !is_unknown && (slot.is_none() || before.is_none()) {
                *slot = Some(value);
            }
        }
        values
    }

    fn has(&self, formula: &Formula) -> bool {
        let other = match formula.made {
            Made::Over(other) | Made::OverBoth(other) | Made::Times(other) => Some(other),
            Made::Now | Made::Rate | Made::HoursSince => None,
        };
        let mut needed = [Some(formula.family), other].into_iter().flatten();
        needed.all(|family| self.get(family).is_some())
    }

    fn value(
        &self,
        formula: &Formula,
        before: Option<(&Self, Duration)>,
        unix_now: f64,
    ) -> Option<f64> {
        // How much a counter grew; one that fell is another one.
        let grown = |family: usize| {
            let grown = self.get(family)? - before?.0.get(family)?;
            (grown >= 0.0).then_some(grown)
        };
        let proportion = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let family = formula.family;
        let value = match formula.made {
            Made::Now => self.get(family)?,
            Made::Rate => proportion(grown(family)?, before?.1.as_secs_f64())?,
            Made::Over(other) => proportion(grown(family)?, grown(other)?)?,
            Made::OverBoth(other) => {
                let part = grown(family)?;
                proportion(part, part + grown(other)?)?
            }
            Made::Times(other) => self.get(family)? * self.get(other)?,
            Made::HoursSince => (unix_now - self.get(family)?) / 3600.0,
        };
        Some(value * formula.scale)
    }
}
