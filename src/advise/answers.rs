//! What a worker was advised, and what it is being advised: one question at a
//! time for each key, whoever waits for the answer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::policy::Advice;

/// Answers kept.
const MOST: usize = 256;
/// Questions of one worker under way.
const MOST_ASKED: usize = 64;
/// Requests that wait for one answer.
const MOST_WAITING: usize = 1024;
/// How long a failure is kept: who is dead costs one deadline a second, not one
/// a request.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// So long after a failure, one request alone waits to see whether it is over.
const WARY_FOR: Duration = Duration::from_secs(60);

/// An answer, and until when it holds.
#[derive(Debug)]
struct Answer {
    advice: Advice,
    until: Instant,
}

/// What is known, or asked, of one key.
#[derive(Debug, Default)]
struct Known {
    /// Without an answer, its question is under way, or who asked it has left:
    /// whoever waits, or comes next, asks anew.
    answer: OnceCell<Answer>,
    /// The failure before.
    failed: Option<Advice>,
}

impl Known {
    fn holds(&self, now: Instant) -> bool {
        (self.answer.get()).is_none_or(|answer| answer.until > now)
    }

    fn is_open(&self) -> bool {
        self.answer.get().is_none()
    }

    /// Its failure, if that was not long ago.
    fn failure(&self, now: Instant) -> Option<Advice> {
        let answer = self.answer.get()?;
        let is_failure = matches!(answer.advice, Advice::Failed(_));
        let is_new = now < answer.until + WARY_FOR;
        (is_failure && is_new).then(|| answer.advice.clone())
    }
}

/// One worker's.
#[derive(Debug, Default)]
pub(super) struct Answers {
    known: RefCell<HashMap<u64, Rc<Known>, RandomState>>,
    asked: Cell<usize>,
}

impl Answers {
    /// The advice of that key: what is known, or what the one who asks is told.
    pub(super) async fn of(
        &self,
        key: u64,
        ttl: Duration,
        question: impl AsyncFnOnce() -> Advice,
    ) -> Advice {
        let known = self.known(key, Instant::now());
        // The table's, and ours.
        let others = Rc::strong_count(&known) - 2;
        if known.is_open() && others > 0 {
            if let Some(failed) = &known.failed {
                return failed.clone();
            }
            if others >= MOST_WAITING {
                let why = format!("{MOST_WAITING} requests wait for this advice");
                return Advice::Failed(why);
            }
        }
        let asked = known.answer.get_or_init(async || {
            let advice = match UnderWay::begin(&self.asked) {
                Some(_under_way) => question().await,
                None => Advice::Failed(format!("{MOST_ASKED} questions are under way")),
            };
            let holds = match advice {
                Advice::Failed(_) => FAILED_FOR.min(ttl),
                _ => ttl,
            };
            let until = Instant::now() + holds;
            Answer { advice, until }
        });
        asked.await.advice.clone()
    }

    fn known(&self, key: u64, now: Instant) -> Rc<Known> {
        let mut all = self.known.borrow_mut();
        let before = all.get(&key);
        if let Some(known) = before.filter(|known| known.holds(now)) {
            return Rc::clone(known);
        }
        let known = Rc::new(Known {
            failed: before.and_then(|before| before.failure(now)),
            answer: OnceCell::new(),
        });
        if all.len() >= MOST {
            let is_abandoned = |known: &Rc<Known>| known.is_open() && Rc::strong_count(known) == 1;
            all.retain(|_, known| known.holds(now) && !is_abandoned(known));
        }
        if all.len() >= MOST {
            all.retain(|_, known| known.is_open());
        }
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(key, Rc::clone(&known));
        known
    }
}

/// A question that is under way, until it is dropped.
struct UnderWay<'a>(&'a Cell<usize>);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a Cell<usize>) -> Option<Self> {
        let is_allowed = count.get() < MOST_ASKED;
        is_allowed.then(|| {
            count.set(count.get() + 1);
            Self(count)
        })
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::Notify;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    const TTL: Duration = Duration::from_secs(1000);

    fn ranked(count: u32) -> Advice {
        Advice::Ranked(vec![count.to_string()])
    }

    /// A worker's answers, how often somebody was asked, and when he answers.
    #[derive(Default)]
    struct Asked {
        answers: Answers,
        count: Cell<u32>,
        go: Notify,
    }

    impl Asked {
        async fn ask(&self, key: u64) -> Advice {
            let question = async || {
                self.count.set(self.count.get() + 1);
                self.go.notified().await;
                ranked(self.count.get())
            };
            self.answers.of(key, TTL, question).await
        }

        fn spawn(self: &Rc<Self>, key: u64) -> tokio::task::JoinHandle<Advice> {
            let this = Rc::clone(self);
            spawn_local(async move { this.ask(key).await })
        }

        async fn at_once(&self, key: u64) -> Advice {
            self.go.notify_one();
            self.ask(key).await
        }

        /// Whether what is known of that key still holds then.
        fn holds(&self, key: u64, after: Duration) -> bool {
            let known = Rc::clone(&self.answers.known.borrow()[&key]);
            let then = self.answers.known(key, Instant::now() + after);
            Rc::ptr_eq(&known, &then)
        }
    }

    async fn locally(test: impl AsyncFnOnce(Rc<Asked>)) {
        LocalSet::new().run_until(test(Rc::default())).await;
    }

    #[tokio::test]
    async fn many_ask_once() {
        locally(async |asked| {
            let tasks: Vec<_> = (0..100).map(|_| asked.spawn(1)).collect();
            settled().await;
            asked.go.notify_one();
            for task in tasks {
                assert_eq!(task.await.unwrap(), ranked(1));
            }
            assert_eq!(asked.ask(1).await, ranked(1), "it is known");
            assert_eq!(asked.at_once(2).await, ranked(2), "another question");
            assert!(asked.holds(1, TTL / 2));
            assert!(!asked.holds(1, TTL));
            assert_eq!(asked.at_once(1).await, ranked(3));
        })
        .await;
    }

    #[tokio::test]
    async fn failures_are_soon_forgotten() {
        let asked = Asked::default();
        let failed = || Advice::Failed("no".to_owned());
        let answer = async || failed();
        assert_eq!(asked.answers.of(1, TTL, answer).await, failed());
        assert_eq!(asked.ask(1).await, failed(), "nobody is asked");
        assert!(!asked.holds(1, FAILED_FOR));
        assert_eq!(asked.at_once(1).await, ranked(1));
    }

    #[tokio::test]
    async fn one_alone_waits_for_who_failed_before() {
        locally(async |asked| {
            let failed = || Advice::Failed("no".to_owned());
            for (key, after, waits) in [(1, FAILED_FOR, false), (2, WARY_FOR * 2, true)] {
                let answer = async || failed();
                assert_eq!(asked.answers.of(key, TTL, answer).await, failed());
                asked.answers.known(key, Instant::now() + after);
                let first = asked.spawn(key);
                settled().await;
                let second = asked.spawn(key);
                settled().await;
                assert_eq!(second.is_finished(), !waits);
                asked.go.notify_one();
                let first = first.await.unwrap();
                assert!(matches!(first, Advice::Ranked(_)));
                assert_eq!(second.await.unwrap(), if waits { first } else { failed() });
            }
        })
        .await;
    }

    #[tokio::test]
    async fn who_leaves_is_followed() {
        locally(async |asked| {
            let first = asked.spawn(1);
            settled().await;
            let second = asked.spawn(1);
            settled().await;
            assert_eq!((asked.count.get(), asked.answers.asked.get()), (1, 1));
            first.abort();
            settled().await;
            assert_eq!(asked.count.get(), 2);
            asked.go.notify_one();
            assert_eq!(second.await.unwrap(), ranked(2));
            assert_eq!(asked.answers.asked.get(), 0);
            // Nobody waits: the next one asks.
            let left = asked.spawn(2);
            settled().await;
            assert_eq!(asked.count.get(), 3);
            left.abort();
            let _ = left.await;
            assert_eq!(asked.at_once(2).await, ranked(4));
        })
        .await;
    }

    /// Lets all run that can: a few dozen do at each turn.
    async fn settled() {
        for _ in 0..200 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn everything_is_bounded() {
        locally(async |asked| {
            for key in 0..3 * MOST as u64 {
                asked.answers.of(key, TTL, || ready(ranked(0))).await;
                assert!(asked.answers.known.borrow().len() <= MOST);
            }
            for key in 0..MOST_ASKED as u64 {
                asked.spawn(10_000 + key);
            }
            settled().await;
            let one_more = asked.ask(1_000_000).await;
            assert!(matches!(&one_more, Advice::Failed(why) if why.contains("64 questions")));
            for _ in 0..MOST_WAITING {
                let asked = Rc::clone(&asked);
                spawn_local(async move { asked.answers.of(10_000, TTL, pending).await });
            }
            settled().await;
            let one_more = asked.ask(10_000).await;
            assert!(matches!(&one_more, Advice::Failed(why) if why.contains("1024 requests")));
        })
        .await;
    }
}
