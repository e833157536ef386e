//! Which prefix blocks an engine holds; the one not used for longest goes
//! first.

use std::collections::{HashMap, VecDeque};

/// Entries of the order that may be out of date in a cache however small.
const SLACK: usize = 64;

/// A least-recently-used set of block ids. A use only appends to `order`;
/// entries that a later use made out of date are dropped when they come to the
/// front, or all at once when they are the greater part.
#[derive(Debug)]
pub(super) struct Cache {
    /// The last use of each block.
    known: HashMap<u64, u64, foldhash::fast::RandomState>,
    /// Blocks and uses, oldest first.
    order: VecDeque<(u64, u64)>,
    uses: u64,
    most: usize,
}

impl Cache {
    /// An empty cache of so many blocks.
    pub(super) fn new(most: usize) -> Self {
        Self {
            known: HashMap::default(),
            order: VecDeque::new(),
            uses: 0,
            most,
        }
    }

    /// How many of the first `full` blocks are known without a gap; all of
    /// them are known from now on.
    pub(super) fn hit(&mut self, blocks: &[u64], full: usize) -> usize {
        let front = blocks.iter().take(full);
        let hits = front
            .take_while(|block| self.known.contains_key(block))
            .count();
        // The last block first, as in vLLM: a prompt then loses its end before
        // its front, without which the rest is worth nothing.
        for block in blocks.iter().take(self.most).rev() {
            self.touch(*block);
        }
        hits
    }

    fn touch(&mut self, block: u64) {
        self.uses += 1;
        self.known.insert(block, self.uses);
        self.order.push_back((block, self.uses));
        while self.known.len() > self.most
            && let Some((oldest, at)) = self.order.pop_front()
        {
            if self.known.get(&oldest) == Some(&at) {
                self.known.remove(&oldest);
            }
        }
        if self.order.len() > 2 * self.known.len() + SLACK {
            let known = &self.known;
            self.order
                .retain(|(block, at)| known.get(block) == Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unbroken_known_front_counts() {
        let mut cache = Cache::new(10);
        assert_eq!(cache.hit(&[1, 2, 3], 3), 0);
        assert_eq!(cache.hit(&[1, 2, 3], 3), 3);
        assert_eq!(cache.hit(&[1, 2, 3], 2), 2);
        assert_eq!(cache.hit(&[1, 9, 3], 3), 1);
        assert_eq!(cache.hit(&[8, 1, 2], 3), 0);
        assert_eq!(cache.hit(&[], 0), 0);
    }

    #[test]
    fn the_block_not_used_for_longest_goes() {
        let mut cache = Cache::new(3);
        cache.hit(&[1], 1);
        cache.hit(&[2], 1);
        cache.hit(&[3], 1);
        cache.hit(&[1], 1);
        cache.hit(&[4], 1);
        assert_eq!(cache.hit(&[1], 1), 1);
        assert_eq!(cache.hit(&[2], 1), 0);
    }

    #[test]
    fn a_prompt_loses_its_end_first() {
        let mut cache = Cache::new(4);
        cache.hit(&[1, 2, 3, 4], 4);
        cache.hit(&[5], 1);
        assert_eq!(cache.hit(&[1, 2, 3, 4], 4), 3);
        // Of a prompt that does not fit, the front stays.
        cache.hit(&[11, 12, 13, 14, 15, 16], 6);
        assert_eq!(cache.hit(&[11, 12, 13, 14, 15, 16], 6), 4);
    }

    #[test]
    fn memory_is_bounded() {
        let mut rng = fastrand::Rng::with_seed(1);
        for most in [0, 1, 50] {
            let mut cache = Cache::new(most);
            for _ in 0..5000 {
                let first = rng.u64(..70);
                let blocks: Vec<u64> = (first..first + 5).collect();
                cache.hit(&blocks, 5);
                assert!(cache.known.len() <= most);
                assert!(cache.order.len() <= 2 * most + SLACK);
            }
        }
        let mut endless = Cache::new(usize::MAX);
        for _ in 0..5000 {
            endless.hit(&[1, 2, 3], 3);
        }
        assert!(endless.order.len() <= 6 + SLACK);
    }

    /// Against the plain way: a list, searched.
    #[test]
    fn the_same_as_a_list() {
        let mut rng = fastrand::Rng::with_seed(2);
        let (mut cache, mut list) = (Cache::new(20), Vec::new());
        for _ in 0..3000 {
            let first = rng.u64(..40);
            let blocks: Vec<u64> = (first..first + rng.u64(..6)).collect();
            let expected = blocks.iter().take_while(|one| list.contains(*one)).count();
            assert_eq!(cache.hit(&blocks, blocks.len()), expected);
            for block in blocks.iter().rev() {
                list.retain(|one| one != block);
                list.push(*block);
            }
            list.drain(..list.len().saturating_sub(20));
        }
    }
}
