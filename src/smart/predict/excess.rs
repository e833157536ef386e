//! By how much neighbours went better, or longer, than was expected of them.
//!
//! Two things are to be told apart. Queries of the same kind share a little, and
//! how much that is worth is chosen by the fit. The same query once more will go as
//! it went: a few of those outweigh whatever is expected of queries of the kind.

/// How fast a neighbour of the same kind counts less as it is less alike.
const KIND: i32 = 4;
/// The same for a query that is all but the same: at a likeness of 0.99 a tenth.
const SAME: i32 = 256;
/// So many answers to the same query count as much as all that was expected.
const REPEATED: f32 = 4.0;

/// Sums over neighbours, and their weights.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::smart) struct Excess {
    kind: [f32; 2],
    same: [f32; 2],
}

impl Excess {
    /// Counts a neighbour, if it has such a figure.
    pub(in crate::smart) fn add(&mut self, excess: Option<f32>, likeness: f32) {
        let Some(excess) = excess else {
            return;
        };
        for (sums, power) in [(&mut self.kind, KIND), (&mut self.same, SAME)] {
            let weight = likeness.powi(power);
            sums[0] += weight * excess;
            sums[1] += weight;
        }
    }

    /// The mean, as if it were `usual` for so much weight more.
    pub(in crate::smart) fn mean(self, prior: f32, usual: f32) -> f32 {
        let same = prior / REPEATED;
        let sum = self.kind[0] + same * self.same[0] + prior * usual;
        sum / (self.weight(prior) + prior)
    }

    /// The neighbours' weight beside such a prior's.
    pub(in crate::smart) fn weight(self, prior: f32) -> f32 {
        self.kind[1] + prior / REPEATED * self.same[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_count_as_they_are_alike() {
        let mut excess = Excess::default();
        assert_eq!(excess.mean(40.0, 0.25), 0.25, "nobody: as usual");
        excess.add(None, 1.0);
        assert_eq!(excess.mean(40.0, 0.25), 0.25, "nothing is known of it");
        for _ in 0..40 {
            excess.add(Some(0.5), 0.5);
        }
        let mean = excess.mean(40.0, 0.0);
        assert!((mean - 2.5 * 0.5 / 42.5).abs() < 1e-6, "{mean}");
    }

    #[test]
    fn the_same_query_is_soon_believed() {
        let mut excess = Excess::default();
        for _ in 0..4 {
            excess.add(Some(-0.8), 1.0);
        }
        let mean = excess.mean(320.0, 0.0);
        assert!((-0.41..-0.39).contains(&mean), "{mean}");
    }
}
