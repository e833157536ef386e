//! What a worker has compiled: selections by their text, and what of them was
//! looked at in a candidate set. Nothing outlives its snapshot.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::{SelectError, Selection, allowed, compile, read};
use crate::fleet::{CandidateSet, Snapshot};
use crate::policy::Policy;
use crate::policy::bound::Bound;
use crate::query::envelope::Envelope;
use crate::registry::Registry;

/// Selections kept; one more, and all are forgotten.
const MOST: usize = 256;
/// Bytes that they take, about.
const MOST_BYTES: usize = 16 << 20;

/// Selections bound to candidate sets that are kept: a bit for each engine, or 8
/// bytes for each goal that looks at metadata of the request's own choice.
const MOST_BOUND: usize = 64;

/// A text that was read.
#[derive(Debug)]
struct Kept {
    text: Box<[u8]>,
    /// Kept so that its address stays its own.
    base: Option<Arc<Policy>>,
    selection: Rc<Selection>,
}

/// What of a policy's selection was looked at in a set; the policy is kept so
/// that its address stays its own.
type Looked = (Arc<Policy>, Rc<Bound>);

/// One worker's.
#[derive(Debug, Default)]
pub struct Selections {
    /// What registered policies let requests ask.
    registry: Arc<ArcSwap<Registry>>,
    /// What it was, and the snapshot's number, when the rest was made.
    registered: Arc<Registry>,
    generation: u64,
    /// By the hash of the text, and of the policy that was in force.
    read: HashMap<u64, Kept, RandomState>,
    bytes: usize,
    seed: RandomState,
    /// By policy, and by set.
    bound: HashMap<(usize, u64), Looked, RandomState>,
}

impl Selections {
    /// None yet, under that registry.
    #[must_use]
    pub fn new(registry: Arc<ArcSwap<Registry>>) -> Self {
        Self {
            registry,
            ..Self::default()
        }
    }

    /// What that text asks for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn search(
        &mut self,
        text: &[u8],
        snapshot: &Snapshot,
        base: Option<&Arc<Policy>>,
    ) -> Result<Rc<Selection>, SelectError> {
        let is_current = self.keep_up(snapshot);
        let address = |base: Option<&Arc<Policy>>| base.map_or(0, |base| Arc::as_ptr(base).addr());
        let key = self.seed.hash_one((text, address(base)));
        if let Some(known) = self.read.get(&key)
            && is_current
            && *known.text == *text
            && address(known.base.as_ref()) == address(base)
        {
            return Ok(Rc::clone(&known.selection));
        }
        let document = read(text)?;
        let envelope = Envelope::search(&document)?;
        let selection = Rc::new(compile((&envelope, text.len()), snapshot, base)?);
        allowed(&envelope, &selection.policy.spec.name, &self.registered)?;
        if !is_current {
            return Ok(selection);
        }
        if self.read.len() >= MOST || self.bytes + selection.policy.bytes > MOST_BYTES {
            self.read.clear();
            self.bytes = 0;
        }
        self.bytes += selection.policy.bytes;
        let kept = Kept {
            text: Box::from(text),
            base: base.cloned(),
            selection: Rc::clone(&selection),
        };
        self.read.insert(key, kept);
        Ok(selection)
    }

    /// What of the policy's selection is the same for all requests that meet
    /// that set; `None`: it looks at nothing of the kind.
    pub fn bound(
        &mut self,
        policy: &Arc<Policy>,
        snapshot: &Snapshot,
        set: &CandidateSet,
    ) -> Option<Rc<Bound>> {
        let scored = policy.spec.kind.scored()?;
        if !scored.reads_metadata() {
            return None;
        }
        if !self.keep_up(snapshot) {
            return Some(Rc::new(Bound::of(scored, set)));
        }
        let key = (Arc::as_ptr(policy).addr(), set.serial);
        if let Some((_, bound)) = self.bound.get(&key) {
            return Some(Rc::clone(bound));
        }
        if self.bound.len() >= MOST_BOUND {
            self.bound.clear();
        }
        let bound = Rc::new(Bound::of(scored, set));
        let kept = (Arc::clone(policy), Rc::clone(&bound));
        self.bound.insert(key, kept);
        Some(bound)
    }

    /// How many texts it has read and kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.read.len()
    }

    /// Forgets what was made of older snapshots; tells whether this one is the
    /// newest. One that a request still holds while others have a newer one finds
    /// nothing, and leaves nothing behind.
    fn keep_up(&mut self, snapshot: &Snapshot) -> bool {
        let registered = self.registry.load();
        let is_same = Arc::ptr_eq(&registered, &self.registered);
        if snapshot.generation < self.generation {
            return false;
        }
        if self.generation != snapshot.generation || !is_same {
            self.generation = snapshot.generation;
            self.registered = Arc::clone(&registered);
            self.read.clear();
            self.bound.clear();
            self.bytes = 0;
        }
        true
    }
}
