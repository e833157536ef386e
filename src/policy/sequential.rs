//! Whose turn it is of the models that a request allows: a counter for each
//! distinct list of models, of which there are a fixed number, so that two lists
//! may share one; each still goes on by one.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::fleet::ring::{hash, mix};

/// Counters.
const COUNTERS: usize = 1024;

/// The counters.
#[derive(Debug)]
pub struct Turns(Box<[AtomicUsize]>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicUsize::new(0)).collect())
    }
}

impl Turns {
    /// The next of these models that `is_available`; tells its place.
    pub fn next<'a>(
        &self,
        models: impl Iterator<Item = &'a str> + Clone,
        is_available: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let count = models.clone().count();
        if count == 0 {
            return None;
        }
        // A turn is a place on the list: another order is another list.
        let list = models.fold(0, |list, name| mix(list, hash(name.as_bytes())));
        #[expect(clippy::cast_possible_truncation, reason = "less than COUNTERS")]
        let counter = &self.0[(list % COUNTERS as u64) as usize];
        for _ in 0..count {
            let turn = counter.fetch_add(1, Relaxed) % count;
            if is_available(turn) {
                return Some(turn);
            }
        }
        // Others took the turns in between.
        (0..count).find(|place| is_available(*place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_take_turns_and_absent_ones_are_passed_over() {
        let turns = Turns::default();
        let names = ["a", "b", "c"];
        let next = |open: &[bool]| turns.next(names.into_iter(), |at| open[at]);
        let all = [true; 3];
        let picks: Vec<_> = (0..4).map(|_| next(&all).unwrap()).collect();
        assert_eq!(picks, [0, 1, 2, 0]);
        let two = [true, false, true];
        let picks: Vec<_> = (0..4).map(|_| next(&two).unwrap()).collect();
        assert_eq!(picks, [2, 0, 2, 0]);
        assert_eq!(next(&[false; 3]), None);
        assert_eq!(turns.next(std::iter::empty(), |_| true), None);
    }
}
