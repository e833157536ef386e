//! How long models' answers were of late, by the length of what they were asked.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::smart::history::check_name;

/// Models that are known; the one that answered longest ago goes first.
pub(super) const MOST_MODELS: usize = 256;
/// Powers of four of input tokens: the last is of a million and more.
const BUCKETS: usize = 11;
/// Answers that a mean is of: older ones fade.
const MEMORY: f32 = 64.0;
const VERSION: u32 = 1;

/// The mean over answers, and how many there were, up to [`MEMORY`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Mean(f32, f32);

impl Mean {
    #[expect(clippy::cast_precision_loss, reason = "a mean is no exact number")]
    fn add(&mut self, tokens: u32) {
        self.1 = (self.1 + 1.0).min(MEMORY);
        self.0 += (tokens as f32 - self.0) / self.1;
    }

    fn known(self) -> Option<f32> {
        (self.1 > 0.0).then_some(self.0)
    }

    fn is_sound(self) -> bool {
        let is_mean = self.0.is_finite() && self.0 >= 0.0;
        is_mean && (0.0..=MEMORY).contains(&self.1)
    }
}

/// One model's answers: of all, and of each bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Means {
    all: Mean,
    buckets: [Mean; BUCKETS],
}

/// How long answers are, as it was a second ago at most.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lengths {
    models: HashMap<Arc<str>, Means>,
}

impl Lengths {
    /// Tokens of that model's answer to so many: the mean over questions of that
    /// size, else over all of them; `None`: it has not answered.
    #[must_use]
    pub fn of(&self, model: &str, input_tokens: u32) -> Option<f32> {
        let means = self.models.get(model)?;
        means.buckets[bucket(input_tokens)]
            .known()
            .or(means.all.known())
    }
}

fn bucket(input_tokens: u32) -> usize {
    let power = input_tokens.checked_ilog(4).unwrap_or(0) as usize;
    power.min(BUCKETS - 1)
}

/// The lengths as they are learned.
#[derive(Debug, Default)]
pub(super) struct Table {
    lengths: Lengths,
    /// When each model answered last.
    last: HashMap<Arc<str>, u64>,
    answers: u64,
    is_new: bool,
    is_unkept: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    models: Vec<(String, Means)>,
}

impl Table {
    /// One answer more.
    pub(super) fn add(&mut self, model: &Arc<str>, input_tokens: u32, tokens: u32) {
        self.answers += 1;
        if !self.lengths.models.contains_key(model) {
            self.make_room();
        }
        let means = self.lengths.models.entry(Arc::clone(model)).or_default();
        means.all.add(tokens);
        means.buckets[bucket(input_tokens)].add(tokens);
        self.last.insert(Arc::clone(model), self.answers);
        (self.is_new, self.is_unkept) = (true, true);
    }

    fn make_room(&mut self) {
        while self.lengths.models.len() >= MOST_MODELS {
            let oldest = self.last.iter().min_by_key(|(_, last)| **last);
            let Some(oldest) = oldest.map(|(model, _)| Arc::clone(model)) else {
                return;
            };
            self.last.remove(&oldest);
            self.lengths.models.remove(&oldest);
        }
    }

    /// As it is now.
    pub(super) fn published(&self) -> Lengths {
        self.lengths.clone()
    }

    /// Whether there is anything that is not published.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The same; from now on all is.
    pub(super) fn take_new(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// What is to be kept, if there is anything new; from now on it is.
    pub(super) fn take_unkept(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.is_unkept) {
            return None;
        }
        let models = self.lengths.models.iter();
        let mut models: Vec<_> = models
            .map(|(model, means)| (model.to_string(), *means))
            .collect();
        models.sort_by(|one, other| one.0.cmp(&other.0));
        let form = Form {
            version: VERSION,
            models,
        };
        serde_json::to_vec(&form).ok()
    }

    /// What was kept.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let form: Form = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let version = form.version;
        if version != VERSION {
            return Err(format!("it has version {version}, not {VERSION}"));
        }
        let mut table = Self::default();
        for (model, means) in form.models {
            check_name(&model).map_err(|why| format!("it {why}"))?;
            let all = means.buckets.iter().chain([&means.all]);
            if !all.copied().all(Mean::is_sound) {
                return Err(format!("it has a length of {model} that is none"));
            }
            let model: Arc<str> = model.into();
            table.make_room();
            table.last.insert(Arc::clone(&model), 0);
            table.lengths.models.insert(model, means);
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_questions_of_that_size_else_of_all() {
        let mut table = Table::default();
        let model: Arc<str> = "m".into();
        assert_eq!(table.published().of("m", 5), None);
        table.add(&model, 5, 100);
        table.add(&model, 15, 200);
        table.add(&model, 16, 300);
        let lengths = table.published();
        assert_eq!(lengths.of("m", 7), Some(150.0));
        assert_eq!(lengths.of("m", 63), Some(300.0));
        assert_eq!(lengths.of("m", u32::MAX), Some(200.0));
        assert_eq!(lengths.of("m", 0), Some(200.0));
        assert_eq!(lengths.of("n", 7), None);
    }

    #[test]
    fn old_answers_fade() {
        let mut table = Table::default();
        let model: Arc<str> = "m".into();
        for _ in 0..1000 {
            table.add(&model, 5, 1000);
        }
        for _ in 0..300 {
            table.add(&model, 5, 10);
        }
        let now = table.published().of("m", 5).unwrap();
        assert!((10.0..30.0).contains(&now), "{now}");
    }

    #[test]
    fn no_more_models_than_there_may_be() {
        let mut table = Table::default();
        for number in 0..=MOST_MODELS {
            table.add(&format!("m{number}").into(), 5, 1);
            table.add(&"often".into(), 5, 1);
        }
        assert_eq!(table.lengths.models.len(), MOST_MODELS);
        assert_eq!(table.last.len(), MOST_MODELS);
        let lengths = table.published();
        assert_eq!(lengths.of("m0", 5), None);
        assert!(lengths.of("often", 5).is_some());
        assert!(lengths.of(&format!("m{MOST_MODELS}"), 5).is_some());
    }

    #[test]
    fn what_is_kept_is_read() {
        let mut table = Table::default();
        table.add(&"a".into(), 5, 7);
        table.add(&"b".into(), 500, 70);
        let kept = table.take_unkept().unwrap();
        assert_eq!(table.take_unkept(), None);
        let again = Table::read(&kept).unwrap();
        assert_eq!(again.published(), table.published());
        let text = String::from_utf8(kept).unwrap();
        for bad in [
            text.replace("\"version\":1", "\"version\":2"),
            text.replace("7.0", "-7.0"),
            text.replace("7.0", "1e39"),
            text.replace("\"a\"", "\"\""),
            text[..20].to_owned(),
        ] {
            assert!(Table::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
