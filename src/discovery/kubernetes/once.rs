//! Engines that objects tell of, and which of them were ready once while we
//! looked: these are closed when they are not ready, not unknown.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::config::{EngineUrl, Traits};

/// An engine that an object tells of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Served {
    /// `UID:PORT`.
    pub(super) identity: Arc<str>,
    /// At another address it is another process.
    pub(super) ip: Option<IpAddr>,
    /// When its object was made; grows with time.
    pub(super) created: u64,
    /// Whether the object says so; a service's ready or not by its endpoints.
    pub(super) is_ready: bool,
    pub(super) url: EngineUrl,
    pub(super) models: Option<Arc<[String]>>,
    pub(super) traits: Arc<Traits>,
}

/// What is remembered of an engine for as long as an object tells of it.
#[derive(Debug, Default)]
struct Seen {
    /// So many objects do: slices may overlap for a moment.
    objects: u32,
    was_ready: bool,
}

/// Which engines were ready once. Holds those that objects tell of, no others.
#[derive(Debug, Default)]
pub(super) struct Once {
    seen: HashMap<(Arc<str>, Option<IpAddr>), Seen, RandomState>,
}

impl Once {
    /// An object tells of it from now on.
    pub(super) fn add(&mut self, served: &Served) {
        let place = (Arc::clone(&served.identity), served.ip);
        let seen = self.seen.entry(place).or_default();
        seen.objects += 1;
        seen.was_ready |= served.is_ready;
    }

    /// An object does not tell of it any more. Who replaces an object adds first.
    pub(super) fn remove(&mut self, served: &Served) {
        let place = (Arc::clone(&served.identity), served.ip);
        if let Some(seen) = self.seen.get_mut(&place) {
            seen.objects -= 1;
            if seen.objects == 0 {
                self.seen.remove(&place);
            }
        }
    }

    /// It is ready, as others than its object say.
    pub(super) fn is_ready(&mut self, served: &Served) {
        let place = (Arc::clone(&served.identity), served.ip);
        if let Some(seen) = self.seen.get_mut(&place) {
            seen.was_ready = true;
        }
    }

    /// Whether it was ready at any time since objects tell of it.
    pub(super) fn was_ready(&self, served: &Served) -> bool {
        let place = (Arc::clone(&served.identity), served.ip);
        self.seen.get(&place).is_some_and(|seen| seen.was_ready)
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }
}
