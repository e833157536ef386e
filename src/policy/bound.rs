//! What of a selection by attributes is the same for every request that meets
//! the same candidates: who has the metadata and labels that are asked for, and
//! the numbers of metadata that goals look at.

use super::units::subject;
use crate::config::attribute::{Attribute, number};
use crate::config::policies::Scored;
use crate::fleet::CandidateSet;

/// A selection, bound to a candidate set.
#[derive(Debug)]
pub struct Bound {
    /// A bit for each unit.
    admitted: Vec<u64>,
    /// For each goal that looks at a path of metadata, a number for each position.
    columns: Vec<Vec<f64>>,
}

impl Bound {
    /// Looks at all that does not change while the set is the same.
    #[must_use]
    pub fn of(of: &Scored, set: &CandidateSet) -> Self {
        let units = (set.groups.as_ref()).map_or(set.list().len(), |groups| groups.len());
        let mut admitted = vec![0; units.div_ceil(64)];
        for unit in 0..units {
            let mut slot = 0;
            let subject = subject(set, set.groups.as_deref(), unit, &mut slot);
            let filter = of.filter.as_ref();
            let is_admitted = filter.is_none_or(|query| query.admits_fixed(&subject));
            if is_admitted {
                admitted[unit / 64] |= 1 << (unit % 64);
            }
        }
        let columns = of.goals.iter().map(|goal| match &goal.attribute {
            Attribute::Path(path) => {
                let all = set.list().iter();
                all.map(|one| number(&one.spec.traits.metadata, path))
                    .collect()
            }
            _ => Vec::new(),
        });
        Self {
            admitted,
            columns: columns.collect(),
        }
    }

    /// Whether the unit has what is asked for.
    pub(super) fn admits(&self, unit: usize) -> bool {
        let word = self.admitted.get(unit / 64);
        word.is_some_and(|word| word >> (unit % 64) & 1 == 1)
    }

    /// What a goal's path leads to at that position; NaN: nothing.
    pub(super) fn number(&self, goal: usize, at: usize) -> f64 {
        let column = self.columns.get(goal).and_then(|column| column.get(at));
        column.copied().unwrap_or(f64::NAN)
    }
}
