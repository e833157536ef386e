//! What an engine tells of itself: numbers, each with an age of its own.
//!
//! Written by the control thread, from the engine's pages, and by workers, from
//! reports in answers; read by anyone without a lock. A value that is not
//! known, or too old, is `None`: unknown never wins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::health::millis;
use super::latency::fade;
use crate::config::EngineType;
pub use crate::config::attribute::{Live, Place, Values};

/// By when attributes are told fresh from stale.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// The time, on the fleet's clock.
    pub now: Duration,
    /// Milliseconds of the fleet's clock: what was heard before is stale.
    from_ms: u64,
}

impl Freshness {
    /// Whether what was heard then, in milliseconds of the fleet's clock, is fresh.
    #[inline]
    #[must_use]
    pub fn is_fresh(&self, at_ms: u64) -> bool {
        at_ms >= self.from_ms
    }

    /// What is at most that old is fresh.
    #[must_use]
    pub fn new(now: Duration, stale_after: Duration) -> Self {
        Self {
            now,
            // 0 is never.
            from_ms: millis(now.saturating_sub(stale_after)).max(1),
        }
    }
}

/// In this time, in seconds, what an engine told of others' requests loses half
/// its weight. Measured (`pilotfish simulate`): with pages every 30 s and 64
/// sidecars longer ones herd; with pages every second it makes no difference.
const HALF_LIFE: f64 = 2.0;

/// How much of what an engine told so long ago of others' requests still counts.
#[must_use]
pub fn trust(age: Duration) -> f64 {
    fade(age.as_secs_f64() / HALF_LIFE)
}

/// When a value was heard that is never stale.
const LASTING: u64 = u64::MAX;

/// A value, and when it was heard, in milliseconds of the fleet's clock; 0:
/// never.
#[derive(Debug)]
struct Slot {
    /// The bits of an `f64`; NaN: not known.
    value: AtomicU64,
    at_ms: AtomicU64,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            value: AtomicU64::new(f64::NAN.to_bits()),
            at_ms: AtomicU64::new(0),
        }
    }
}

impl Slot {
    fn set(&self, value: Option<f64>, at_ms: u64) {
        let value = value.filter(|value| value.is_finite());
        self.value
            .store(value.unwrap_or(f64::NAN).to_bits(), Relaxed);
        self.at_ms.store(at_ms, Relaxed);
    }

    fn get(&self) -> Option<f64> {
        Some(f64::from_bits(self.value.load(Relaxed))).filter(|value| value.is_finite())
    }
}

/// One attribute as it was at a moment, for records.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Told(pub Place, pub f64, pub u64);

/// One engine's live attributes.
#[derive(Debug)]
#[repr(C)]
pub struct Attributes {
    /// When a page was last read.
    read_ms: AtomicU64,
    slots: [Slot; Place::COUNT],
    /// The adapters that it works with, or is asked for.
    pub adapters: ArcSwap<Vec<String>>,
    /// Whose words it uses: 0 until it has told.
    spoken: AtomicU8,
    /// Scrapes that brought nothing.
    pub failures: AtomicU64,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            read_ms: AtomicU64::new(0),
            slots: std::array::from_fn(|_| Slot::default()),
            adapters: ArcSwap::default(),
            spoken: AtomicU8::new(0),
            failures: AtomicU64::new(0),
        }
    }
}

impl Attributes {
    /// Those that were told before.
    #[must_use]
    pub fn from_told(told: &[Told]) -> Self {
        let attributes = Self::default();
        for Told(place, value, at_ms) in told {
            attributes.slots[place.index()].set(Some(*value), *at_ms);
        }
        attributes
    }

    /// All that are known, each with when it was heard, in milliseconds of the
    /// fleet's clock.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        let places = (0..Place::COUNT).filter_map(Place::at);
        let told = places.filter_map(|place| {
            let at_ms = self.slots[place.index()].at_ms.load(Relaxed);
            Some(Told(place, self.get(place)?, at_ms))
        });
        told.collect()
    }

    /// Takes in a page that was read at that time of the fleet's clock: what it
    /// does not have is not known any more.
    pub fn set(&self, values: &Values, at: Duration) {
        let at_ms = millis(at).max(1);
        let places = (0..Place::COUNT).filter_map(Place::at);
        for (place, (slot, value)) in places.zip(self.slots.iter().zip(values)) {
            let is_beside = slot.at_ms.load(Relaxed) == LASTING || place.is_measured();
            // What pages do not tell stays, and so does what they tell nothing new of.
            let stays = value.map_or(is_beside, f64::is_nan);
            if !stays {
                slot.set(*value, at_ms);
            }
        }
        self.read_ms.store(at_ms, Relaxed);
    }

    /// Takes in one value that was heard beside pages at that time.
    pub fn hear(&self, place: impl Into<Place>, value: f64, at: Duration) {
        let (place, at_ms) = (place.into(), millis(at).max(1));
        if place.is_lasting() {
            return self.slots[place.index()].set(Some(value), LASTING);
        }
        self.slots[place.index()].set(Some(value), at_ms);
    }

    /// Forgets that value.
    pub fn forget(&self, place: impl Into<Place>) {
        self.slots[place.into().index()].set(None, 0);
    }

    /// Forgets what the configuration's own attributes were.
    pub fn forget_own(&self) {
        for slot in &self.slots[Live::ALL.len()..] {
            slot.set(None, 0);
        }
    }

    /// How long ago a page was last read; `None`: never.
    #[must_use]
    pub fn age(&self, now: Duration) -> Option<Duration> {
        let at = self.read_ms.load(Relaxed);
        (at > 0).then(|| now.saturating_sub(Duration::from_millis(at)))
    }

    /// How long ago that one was heard; `None`: it is not known, or never stale.
    #[must_use]
    pub fn age_of(&self, place: impl Into<Place>, now: Duration) -> Option<Duration> {
        let place = place.into();
        self.get(place)?;
        let at = self.slots[place.index()].at_ms.load(Relaxed);
        (at != LASTING).then(|| now.saturating_sub(Duration::from_millis(at)))
    }

    /// The value, if it is known and fresh.
    #[inline]
    #[must_use]
    pub fn fresh(&self, place: impl Into<Place>, by: Freshness) -> Option<f64> {
        let slot = &self.slots[place.into().index()];
        let is_fresh = by.is_fresh(slot.at_ms.load(Relaxed));
        is_fresh.then(|| slot.get()).flatten()
    }

    /// The value, if it is known, however old.
    #[must_use]
    pub fn get(&self, place: impl Into<Place>) -> Option<f64> {
        self.slots[place.into().index()].get()
    }

    /// It uses the words of that type.
    pub fn speak(&self, kind: EngineType) {
        self.spoken.store(kind as u8 + 1, Relaxed);
    }

    /// Whose words it uses; `None`: it has not told.
    #[must_use]
    pub fn spoken(&self) -> Option<EngineType> {
        let index = self.spoken.load(Relaxed).checked_sub(1)?;
        EngineType::ALL.get(usize::from(index)).copied()
    }

    /// Sets the names of its adapters, where they are others than before.
    pub fn set_adapters(&self, names: Vec<String>) {
        if **self.adapters.load() != names {
            self.adapters.store(Arc::new(names));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_none() {
        let attributes = Attributes::default();
        let second = Duration::from_secs(1);
        assert_eq!(attributes.age(second), None);
        assert_eq!(attributes.get(Live::TtftMs), None);
        let mut values = [None; Place::COUNT];
        values[Live::TtftMs as usize] = Some(5.0);
        values[Live::ItlMs as usize] = Some(f64::INFINITY);
        attributes.set(&values, second);
        assert_eq!(attributes.get(Live::TtftMs), Some(5.0));
        assert_eq!(attributes.get(Live::ItlMs), None);
        assert_eq!(attributes.age(second * 3), Some(second * 2));
        let fresh = |age| {
            let by = Freshness::new(second * 3, second * age);
            attributes.fresh(Live::TtftMs, by)
        };
        assert_eq!((fresh(2), fresh(1)), (Some(5.0), None));
    }

    #[test]
    fn each_value_has_an_age_of_its_own() {
        let attributes = Attributes::default();
        let second = Duration::from_secs(1);
        let mut values = [None; Place::COUNT];
        values[Live::TtftMs as usize] = Some(5.0);
        values[Live::KvCacheUsage as usize] = Some(0.5);
        attributes.set(&values, second);
        attributes.hear(Live::KvCacheUsage, 0.75, second * 9);
        let by = Freshness::new(second * 10, second * 3);
        assert_eq!(attributes.fresh(Live::KvCacheUsage, by), Some(0.75));
        assert_eq!(attributes.fresh(Live::TtftMs, by), None);
        assert_eq!(
            attributes.age_of(Live::TtftMs, second * 10),
            Some(second * 9)
        );
        assert_eq!(attributes.age(second * 10), Some(second * 9));
        assert_eq!(attributes.age_of(Live::MaxModelLen, second), None);
        attributes.hear(Live::MaxModelLen, 4096.0, second);
        attributes.hear(Live::TasksTotal, 3.0, second * 8);
        attributes.set(&values, second * 9);
        assert_eq!(attributes.fresh(Live::MaxModelLen, by), Some(4096.0));
        assert_eq!(attributes.fresh(Live::TasksTotal, by), Some(3.0));
        let told = attributes.told();
        assert_eq!(Attributes::from_told(&told).told(), told);
        // Nothing new is not unknown.
        values[Live::TtftMs as usize] = Some(f64::NAN);
        values[Live::KvCacheUsage as usize] = None;
        attributes.set(&values, second * 10);
        assert_eq!(attributes.get(Live::TtftMs), Some(5.0));
        assert_eq!(attributes.age_of(Live::TtftMs, second * 10), Some(second));
        assert_eq!(attributes.get(Live::KvCacheUsage), None);
        let own = Place::own(2).unwrap();
        attributes.hear(own, 7.0, second);
        assert_eq!(attributes.get(own), Some(7.0));
        attributes.forget_own();
        assert_eq!(attributes.get(own), None);
        assert_eq!(attributes.get(Live::TtftMs), Some(5.0));
    }
}
