//! Who did not answer of late. It is remembered of whoever is asked, whatever the
//! question: who is dead costs one deadline, not one for each question.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

/// Those of whom anything is remembered; one more, and all are forgotten.
const MOST: usize = 256;
/// How long after a failure nobody asks.
pub(super) const FAILED_FOR: Duration = Duration::from_secs(1);
/// So long after a failure, one question alone is put, to see whether it is over.
pub(super) const WARY_FOR: Duration = Duration::from_secs(60);
/// So many deadlines of waiting without an answer are a failure, however short
/// each wait was: else clients that leave early would wait in vain for ever.
const MOST_LEFT: u32 = 2;

/// What is remembered of one that has not answered the last time.
#[derive(Debug)]
struct Standing {
    /// When it failed last, and why.
    failed: Option<(Instant, String)>,
    /// How long it was waited for by those who left before the deadline.
    left: Duration,
    /// When that was counted last.
    counted: Instant,
    /// Whether someone finds out whether it is over.
    is_tried: bool,
}

impl Standing {
    fn new(now: Instant) -> Self {
        Self {
            failed: None,
            left: Duration::ZERO,
            counted: now,
            is_tried: false,
        }
    }

    fn is_old(&self, now: Instant) -> bool {
        let last = (self.failed.as_ref()).map_or(self.counted, |(at, _)| self.counted.max(*at));
        now >= last + WARY_FOR && !self.is_tried
    }
}

/// One worker's memory of them.
#[derive(Debug, Default)]
pub(super) struct Standings(RefCell<HashMap<u64, Standing, RandomState>>);

impl Standings {
    /// Why that one is not to be asked now, if it is not.
    pub(super) fn refusal(&self, adviser: u64, now: Instant) -> Option<String> {
        let all = self.0.borrow();
        let standing = all.get(&adviser)?;
        let (at, why) = standing.failed.as_ref()?;
        let is_new = now < *at + FAILED_FOR;
        (is_new || standing.is_tried).then(|| why.clone())
    }

    /// Begins a question that has so much time.
    ///
    /// # Errors
    /// Why it is not to be put.
    pub(super) fn begin(
        &self,
        adviser: u64,
        now: Instant,
        deadline: Duration,
    ) -> Result<Trial<'_>, String> {
        if let Some(why) = self.refusal(adviser, now) {
            return Err(why);
        }
        let mut all = self.0.borrow_mut();
        if all.get(&adviser).is_some_and(|known| known.is_old(now)) {
            all.remove(&adviser);
        }
        let wary = (all.get_mut(&adviser)).filter(|known| known.failed.is_some());
        let is_alone = wary.is_some();
        if let Some(wary) = wary {
            wary.is_tried = true;
        }
        Ok(Trial {
            of: self,
            adviser,
            began: now,
            deadline,
            is_alone,
            is_settled: false,
        })
    }

    /// As if that one had failed so much earlier.
    #[cfg(test)]
    pub(super) fn aged(&self, adviser: u64, by: Duration) {
        if let Some((at, _)) = self
            .0
            .borrow_mut()
            .get_mut(&adviser)
            .and_then(|of| of.failed.as_mut())
        {
            *at -= by;
        }
    }

    fn change(&self, adviser: u64, now: Instant, change: impl FnOnce(&mut Standing)) {
        let mut all = self.0.borrow_mut();
        if all.len() >= MOST && !all.contains_key(&adviser) {
            all.clear();
        }
        change(all.entry(adviser).or_insert_with(|| Standing::new(now)));
    }
}

/// A question that is under way; dropped, whoever waited has left.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    of: &'a Standings,
    adviser: u64,
    began: Instant,
    deadline: Duration,
    is_alone: bool,
    is_settled: bool,
}

impl Trial<'_> {
    /// There was an answer, whatever it was.
    pub(super) fn answered(mut self) {
        self.is_settled = true;
        self.of.0.borrow_mut().remove(&self.adviser);
    }

    /// Nobody answers there.
    pub(super) fn failed(mut self, now: Instant, why: &str) {
        self.is_settled = true;
        let is_alone = self.is_alone;
        self.of.change(self.adviser, now, |standing| {
            standing.failed = Some((now, why.to_owned()));
            standing.is_tried &= !is_alone;
        });
    }

    /// There was no answer in time. A question that came late to that, since it
    /// is another's that left, says little.
    pub(super) fn late(self, now: Instant, why: &str) {
        let had = now.saturating_duration_since(self.began);
        if had >= self.deadline - self.deadline / 10 {
            self.failed(now, why);
        } else {
            self.left(now);
        }
    }

    /// Nobody waits for it any more.
    fn left(mut self, now: Instant) {
        self.leave(now);
    }

    fn leave(&mut self, now: Instant) {
        self.is_settled = true;
        let (began, is_alone) = (self.began, self.is_alone);
        let most = self.deadline * MOST_LEFT;
        self.of.change(self.adviser, now, |standing| {
            standing.is_tried &= !is_alone;
            if standing.is_old(now) {
                *standing = Standing::new(now);
            }
            // Of those who wait at the same time, each moment counts once.
            let since = match standing.left {
                Duration::ZERO => began,
                _ => began.max(standing.counted),
            };
            standing.left += now.saturating_duration_since(since);
            standing.counted = now;
            if standing.left >= most {
                let why = format!("no answer within {:?}", standing.left);
                standing.failed = Some((now, why));
            }
        });
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.leave(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(3);

    /// What is remembered of one, and the time.
    struct Rig {
        standings: Standings,
        now: Instant,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                standings: Standings::default(),
                now: Instant::now(),
            }
        }

        #[track_caller]
        fn begin(&self) -> Trial<'_> {
            self.standings.begin(1, self.now, DEADLINE).unwrap()
        }

        #[track_caller]
        fn refused(&self) -> String {
            self.standings.begin(1, self.now, DEADLINE).unwrap_err()
        }
    }

    #[test]
    fn who_failed_is_left_alone_then_tried_by_one() {
        let mut rig = Rig::new();
        rig.begin().failed(rig.now, "gone");
        assert_eq!(rig.refused(), "gone");
        assert!(rig.standings.refusal(2, rig.now).is_none());
        rig.now += FAILED_FOR;
        let one = rig.begin();
        assert_eq!(rig.refused(), "gone");
        one.failed(rig.now, "still gone");
        assert_eq!(rig.refused(), "still gone");
        rig.now += FAILED_FOR;
        rig.begin().left(rig.now);
        let one = rig.begin();
        assert_eq!(rig.refused(), "still gone");
        one.answered();
        let all = [rig.begin(), rig.begin()];
        all.into_iter().for_each(Trial::answered);
        assert!(rig.standings.0.borrow().is_empty());
        // After a while it is as if nothing had been.
        rig.begin().failed(rig.now, "gone");
        rig.now += WARY_FOR;
        let all = [rig.begin(), rig.begin()];
        all.into_iter().for_each(Trial::answered);
    }

    #[test]
    fn a_question_that_had_little_time_says_little() {
        let mut rig = Rig::new();
        let began = rig.now;
        rig.now += DEADLINE / 2;
        rig.standings
            .begin(1, began, DEADLINE)
            .unwrap()
            .late(rig.now, "late");
        let whole = rig.standings.begin(1, rig.now, DEADLINE).unwrap();
        rig.now += DEADLINE;
        whole.late(rig.now, "late");
        assert_eq!(rig.refused(), "late");
    }

    #[test]
    fn those_who_leave_early_do_not_wait_for_ever() {
        let mut rig = Rig::new();
        let third = DEADLINE / 3;
        // Those who wait at once count once.
        for _ in 0..5 {
            let began = rig.now;
            rig.now += third;
            let all = (0..50).map(|_| rig.standings.begin(1, began, DEADLINE).unwrap());
            let all: Vec<Trial<'_>> = all.collect();
            all.into_iter().for_each(|one| one.left(rig.now));
        }
        // An answer makes good.
        rig.begin().answered();
        for _ in 0..6 {
            let one = rig.standings.begin(1, rig.now, DEADLINE).unwrap();
            rig.now += third;
            one.left(rig.now);
        }
        let why = rig.refused();
        assert!(why.contains("no answer within 6s"), "{why}");
        // One more tries it, and none beside.
        rig.now += FAILED_FOR;
        let one = rig.standings.begin(1, rig.now, DEADLINE).unwrap();
        rig.now += third;
        rig.refused();
        one.left(rig.now);
        rig.refused();
        // What was long ago does not count.
        rig.now += WARY_FOR;
        rig.begin().left(rig.now);
        rig.begin().answered();
    }

    #[test]
    fn few_are_remembered() {
        let rig = Rig::new();
        for adviser in 0..3 * MOST as u64 {
            let trial = rig.standings.begin(adviser, rig.now, DEADLINE);
            trial.unwrap().failed(rig.now, "gone");
            assert!(rig.standings.0.borrow().len() <= MOST);
        }
    }
}
