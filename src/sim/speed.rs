//! How long things take: prefill by prompt length, decoding by batch size, a
//! cap on running sequences, and a prefix cache that shortens prefill.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

/// Tokens of one block of the prefix cache, as in vLLM.
const BLOCK_TOKENS: usize = 16;
/// Bytes that make a token, about.
pub const TOKEN_BYTES: usize = 4;

/// What decides an engine's speed.
#[derive(Debug, Clone)]
pub struct Speed {
    /// Before any prompt is looked at.
    pub base_ttft: Duration,
    /// Prompt tokens a second.
    pub prefill_tokens_per_second: f64,
    /// Between two tokens, when alone.
    pub itl: Duration,
    /// Share by which each further running sequence slows all of them.
    pub batch_slowdown: f64,
    /// Sequences that run at once; more wait.
    pub max_running: usize,
    /// Blocks of 16 tokens that the prefix cache holds.
    pub cache_blocks: usize,
}

impl Default for Speed {
    fn default() -> Self {
        Self {
            base_ttft: Duration::from_millis(20),
            prefill_tokens_per_second: 8000.0,
            itl: Duration::from_millis(20),
            batch_slowdown: 0.02,
            max_running: 64,
            cache_blocks: 4096,
        }
    }
}

impl Speed {
    /// An engine that takes no time: for tests and benches.
    #[must_use]
    pub fn instant() -> Self {
        Self {
            base_ttft: Duration::ZERO,
            prefill_tokens_per_second: f64::INFINITY,
            itl: Duration::ZERO,
            ..Self::default()
        }
    }

    /// Time to the first token of a prompt with so many tokens to compute.
    #[must_use]
    pub fn prefill(&self, tokens: usize) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a prompt is far below 2^52 tokens"
        )]
        let seconds = tokens as f64 / self.prefill_tokens_per_second;
        self.base_ttft + Duration::from_secs_f64(seconds)
    }

    /// Time between two tokens with so many sequences running.
    #[must_use]
    pub fn decode(&self, running: u64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a batch is far below 2^52 sequences"
        )]
        let others = running.saturating_sub(1) as f64;
        self.itl.mul_f64(1.0 + self.batch_slowdown * others)
    }
}

/// Which prompt prefixes an engine has computed lately; the oldest block goes
/// first.
#[derive(Debug)]
pub struct PrefixCache {
    known: HashSet<u64>,
    order: VecDeque<u64>,
    most: usize,
}

impl PrefixCache {
    /// An empty cache of so many blocks.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            known: HashSet::new(),
            order: VecDeque::new(),
            most,
        }
    }

    /// Tokens at the front of `prompt` that are known; all of it is known
    /// from now on. Only whole blocks count.
    pub fn hit(&mut self, prompt: &[u8]) -> usize {
        let mut hasher = DefaultHasher::new();
        let (mut hits, mut unbroken) = (0, true);
        for block in prompt.chunks_exact(BLOCK_TOKENS * TOKEN_BYTES) {
            block.hash(&mut hasher);
            let chained = hasher.finish();
            if self.known.contains(&chained) {
                hits += usize::from(unbroken);
                continue;
            }
            unbroken = false;
            self.known.insert(chained);
            self.order.push_back(chained);
            if self.order.len() > self.most
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        hits * BLOCK_TOKENS
    }

    /// Blocks held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_prefix_is_cheaper_and_the_cache_is_bounded() {
        let mut cache = PrefixCache::new(10);
        let prompt = vec![b'a'; 64 * 5 + 10];
        assert_eq!(cache.hit(&prompt), 0);
        assert_eq!(cache.hit(&prompt), 80);
        let mut longer = prompt[..64 * 5].to_vec();
        longer.extend_from_slice(&[b'b'; 64 * 2]);
        assert_eq!(cache.hit(&longer), 80);
        for seed in 0..90u8 {
            cache.hit(&[seed; 64 * 3]);
            assert!(cache.held() <= 10);
        }
        assert_eq!(cache.hit(&prompt), 0);
    }

    #[test]
    fn load_slows_everyone() {
        let speed = Speed::default();
        assert!(speed.prefill(8000) > speed.prefill(10));
        assert_eq!(speed.decode(1), speed.itl);
        assert_eq!(speed.decode(51), speed.itl * 2);
        assert_eq!(Speed::instant().prefill(1_000_000), Duration::ZERO);
    }
}
