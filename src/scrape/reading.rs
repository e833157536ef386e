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
        let mut formulas = wanted.formulas.iter();
        formulas.any(|formula| match formula.made {
            Made::Rate => fell(formula.family),
            Made::Over(other) | Made::OverBoth(other) => fell(formula.family) || fell(other),
            _ => false,
        })
    }

    /// Every attribute's value: from this page, and from the one `before`, so
    /// long ago, what counters and histograms did since.
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
            if slot.is_none() && is_meant {
                let value = self.value(formula, before, unix_now);
                // None of ours is ever below nothing: -1 stands for unknown.
                let is_ours = formula.place.index() < Live::ALL.len();
                *slot = value.filter(|value| value.is_finite() && !(is_ours && *value < 0.0));
            }
        }
        values
    }

    fn value(
        &self,
        formula: &Formula,
        before: Option<(&Self, Duration)>,
        unix_now: f64,
    ) -> Option<f64> {
        // How much a counter grew; one that fell began anew with its engine.
        let grown = |family: usize| {
            let now = self.get(family)?;
            let then = before?.0.get(family)?;
            Some(if now >= then {
                now - then
            } else {
                now.max(0.0)
            })
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
