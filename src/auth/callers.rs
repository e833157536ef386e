//! Those who may call, as the file names them, to be found by a key's hash or by
//! a certificate's subject.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq as _;

use super::Why;
use super::counts::{Counts, Names, Reason};
use super::limits::{Permit, State};
use crate::config::auth::{CallerEntry, KeyHash, Proof};

/// One who may call.
#[derive(Debug)]
pub struct Caller {
    /// What it is called in logs and metrics.
    pub name: Arc<str>,
    models: Option<Box<[String]>>,
    requests_per_minute: Option<NonZeroU32>,
    max_in_flight: Option<NonZeroU32>,
    expires: Option<Duration>,
    state: Arc<State>,
    counts: Arc<Counts>,
}

impl Caller {
    fn new(entry: &CallerEntry, state: Arc<State>, counts: Arc<Counts>) -> Self {
        Self {
            name: Arc::clone(&entry.name),
            models: entry.models.clone(),
            requests_per_minute: entry.requests_per_minute,
            max_in_flight: entry.max_in_flight,
            expires: entry.expires,
            state,
            counts,
        }
    }

    /// Whether it ended before now, which is looked at if it ever ends.
    pub(super) fn has_expired(&self, now: impl FnOnce() -> Duration) -> bool {
        self.expires.is_some_and(|expires| expires <= now())
    }

    /// Takes a place first, then a token: who has no place pays nothing.
    pub(super) fn admit(&self, now: Duration) -> Result<Option<Permit>, Why> {
        let permit = match self.max_in_flight {
            None => None,
            Some(most) => match self.state.take_place(most) {
                None => {
                    self.counts.refuse(Reason::InFlight);
                    return Err(Why::Busy);
                }
                taken => taken,
            },
        };
        if let Some(most) = self.requests_per_minute {
            self.state.take_token(most, now).map_err(|seconds| {
                self.counts.refuse(Reason::Rate);
                Why::Rate(seconds)
            })?;
        }
        self.counts.request();
        Ok(permit)
    }

    /// Whether there are models that it may not use.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.models.is_some()
    }

    /// Whether it may use the model whose own name this is. What stands on its list
    /// may be a model's own name or another; `leads` tells to which model that leads
    /// now. The model's name itself leads nowhere: an alias may be called the same.
    #[must_use]
    pub fn may_use<'a>(&self, model: &str, leads: impl Fn(&str) -> Option<&'a str>) -> bool {
        let Some(models) = &self.models else {
            return true;
        };
        models
            .iter()
            .any(|one| one == model || leads(one) == Some(model))
    }

    /// Counts a request for a model that it may not use.
    pub fn refuse_model(&self) {
        self.counts.refuse(Reason::Model);
    }
}

/// All of them; immutable.
#[derive(Debug)]
pub(super) struct Callers {
    all: HashMap<Arc<str>, Arc<Caller>>,
    /// Sorted by hash.
    keys: Vec<(KeyHash, Arc<Caller>)>,
    subjects: HashMap<Arc<str>, Arc<Caller>, foldhash::fast::RandomState>,
}

impl Callers {
    /// Those of the file; who was there before keeps what has been counted.
    pub(super) fn new(entries: &[CallerEntry], old: Option<&Self>, names: &mut Names) -> Self {
        let mut new = Self {
            all: HashMap::with_capacity(entries.len()),
            keys: Vec::with_capacity(entries.len()),
            subjects: HashMap::default(),
        };
        for entry in entries {
            let known = old.and_then(|old| old.all.get(&entry.name));
            let state = known
                .map(|known| Arc::clone(&known.state))
                .unwrap_or_default();
            let caller = Arc::new(Caller::new(entry, state, names.of(&entry.name)));
            match &entry.proof {
                Proof::Keys(hashes) => {
                    let each = hashes.iter().map(|hash| (*hash, Arc::clone(&caller)));
                    new.keys.extend(each);
                }
                Proof::Subject(subject) => {
                    new.subjects
                        .insert(Arc::clone(subject), Arc::clone(&caller));
                }
            }
            new.all.insert(Arc::clone(&entry.name), caller);
        }
        new.keys.sort_unstable_by_key(|(hash, _)| *hash);
        new
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The way there depends on the first bytes of a hash, whose key nobody can
    /// choose; the comparison itself takes the same time for all.
    pub(super) fn by_key(&self, hash: &KeyHash) -> Option<&Arc<Caller>> {
        let prefix = |hash: &KeyHash| {
            let mut first = [0; 8];
            first.copy_from_slice(&hash.0[..8]);
            u64::from_be_bytes(first)
        };
        let sought = prefix(hash);
        let at = self
            .keys
            .partition_point(|(known, _)| prefix(known) < sought);
        let near = self.keys[at..]
            .iter()
            .take_while(|(known, _)| prefix(known) == sought);
        let mut same = near.filter(|(known, _)| known.0.ct_eq(&hash.0).into());
        same.next().map(|(_, caller)| caller)
    }

    pub(super) fn by_subject(&self, subject: &Arc<str>) -> Option<&Arc<Caller>> {
        self.subjects.get(subject)
    }
}
