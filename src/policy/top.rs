//! The best few of many.

use crate::config::policies::MOST_KEPT;

/// The best so far, the worst of them last.
pub(super) struct Top {
    kept: [(f64, u32); MOST_KEPT],
    count: usize,
    most: usize,
}

impl Top {
    pub(super) fn new(most: usize) -> Self {
        Self {
            kept: [(f64::NEG_INFINITY, 0); MOST_KEPT],
            count: 0,
            most: most.clamp(1, MOST_KEPT),
        }
    }

    /// What a score must be above to be kept.
    #[inline]
    pub(super) fn least(&self) -> f64 {
        if self.count < self.most {
            f64::NEG_INFINITY
        } else {
            self.kept[self.count - 1].0
        }
    }

    pub(super) fn offer(&mut self, at: usize, score: f64) {
        if self.count == self.most && score <= self.least() {
            return;
        }
        self.count = (self.count + 1).min(self.most);
        let mut slot = self.count - 1;
        while slot > 0 && self.kept[slot - 1].0 < score {
            self.kept[slot] = self.kept[slot - 1];
            slot -= 1;
        }
        self.kept[slot] = (score, u32::try_from(at).unwrap_or(u32::MAX));
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = usize> {
        self.kept[..self.count].iter().map(|(_, at)| *at as usize)
    }

    /// The positions, best first, written into `into`; tells how many.
    pub(super) fn write(&self, into: &mut [u32; MOST_KEPT]) -> usize {
        for (slot, (_, at)) in into.iter_mut().zip(&self.kept[..self.count]) {
            *slot = *at;
        }
        self.count
    }
}
