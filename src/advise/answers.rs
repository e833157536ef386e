//! What a worker was advised, and what it is being advised: one question at a
//! time for each key, whoever waits for the answer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::Unadvised;
use super::standing::{FAILED_FOR, Standings, WARY_FOR};
use crate::policy::reason::Asking;
use crate::policy::{Advice, Policy};

/// Answers kept.
const MOST: usize = 256;
/// Questions of one worker under way.
const MOST_ASKED: usize = 64;
/// Requests that wait for one answer.
const MOST_WAITING: usize = 1024;

/// Advice, and how it was come by.
pub(super) type Given = (Advice, Asking);

/// What a question is known by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    /// Of all that makes the answer another.
    pub(super) question: u64,
    /// Whom it is put to.
    pub(super) adviser: u64,
    /// On whose behalf: its address is in the question's number.
    pub(super) policy: &'a Arc<Policy>,
}

/// How long an answer is waited for, and holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) deadline: Duration,
    pub(super) ttl: Duration,
}

/// An answer, and until when it holds.
#[derive(Debug)]
struct Answer {
    advice: Advice,
    until: Instant,
}

impl Answer {
    fn given(&self, by: Asking) -> Given {
        let by = match self.advice {
            Advice::Failed(_) => Asking::Failed,
            _ => by,
        };
        (self.advice.clone(), by)
    }
}

/// What is known, or asked, of one key.
#[derive(Debug)]
struct Known {
    /// Without an answer, its question is under way, or who asked it has left:
    /// whoever waits, or comes next, asks anew.
    answer: OnceCell<Answer>,
    /// The failure before.
    failed: Option<Advice>,
    /// Kept so that its address stays its own.
    _policy: Arc<Policy>,
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
    standings: Standings,
}

impl Answers {
    /// The advice of that key: what is known, or what the one who asks is told.
    pub(super) async fn of(
        &self,
        key: Key<'_>,
        times: Times,
        question: impl AsyncFnOnce() -> Result<Vec<String>, Unadvised>,
    ) -> Given {
        let failed = |why: String| (Advice::Failed(why), Asking::Failed);
        let now = Instant::now();
        let known = self.known(key, now);
        if let Some(answer) = known.answer.get() {
            return answer.given(Asking::Kept);
        }
        if let Some(why) = self.standings.refusal(key.adviser, now) {
            return failed(why);
        }
        // The table's, and ours.
        let others = Rc::strong_count(&known) - 2;
        if others > 0 {
            if let Some(before) = &known.failed {
                return (before.clone(), Asking::Failed);
            }
            if others >= MOST_WAITING {
                let why = format!("{MOST_WAITING} requests wait for this advice");
                return failed(why);
            }
        }
        let asked = known
            .answer
            .get_or_try_init(async || self.put(key.adviser, times, question).await);
        match asked.await {
            Ok(answer) => answer.given(Asking::Advised),
            Err(given) => given,
        }
    }

    /// Puts the question; what is not the answer to it is nobody else's.
    async fn put(
        &self,
        adviser: u64,
        Times { deadline, ttl }: Times,
        question: impl AsyncFnOnce() -> Result<Vec<String>, Unadvised>,
    ) -> Result<Answer, Given> {
        let failed = |why: String| (Advice::Failed(why), Asking::Failed);
        let Some(_under_way) = UnderWay::begin(&self.asked) else {
            return Err(failed(format!("{MOST_ASKED} questions are under way")));
        };
        let trial = self.standings.begin(adviser, Instant::now(), deadline);
        let trial = trial.map_err(failed)?;
        let (advice, holds) = match question().await {
            Ok(ids) => {
                trial.answered();
                (Advice::Ranked(ids), ttl)
            }
            Err(Unadvised::Words(why)) => {
                trial.answered();
                (Advice::Failed(why), FAILED_FOR.min(ttl))
            }
            Err(Unadvised::Down(why)) => {
                trial.failed(Instant::now(), &why);
                return Err(failed(why));
            }
            Err(Unadvised::Late(why)) => {
                trial.late(Instant::now(), &why);
                return Err((Advice::Failed(why), Asking::Late));
            }
        };
        let until = Instant::now() + holds;
        Ok(Answer { advice, until })
    }

    fn known(&self, key: Key<'_>, now: Instant) -> Rc<Known> {
        let mut all = self.known.borrow_mut();
        let before = all.get(&key.question);
        if let Some(known) = before.filter(|known| known.holds(now)) {
            return Rc::clone(known);
        }
        let known = Rc::new(Known {
            failed: before.and_then(|before| before.failure(now)),
            answer: OnceCell::new(),
            _policy: Arc::clone(key.policy),
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
        all.insert(key.question, Rc::clone(&known));
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
    use crate::config::policies::{PolicyKind, PolicySpec};

    const TTL: Duration = Duration::from_secs(1000);
    const TIMES: Times = Times {
        deadline: Duration::from_secs(3),
        ttl: TTL,
    };
    /// Whom others ask.
    const OTHER: u64 = 1;

    fn ranked(count: u32) -> Advice {
        Advice::Ranked(vec![count.to_string()])
    }

    fn failed() -> Given {
        (Advice::Failed("no".to_owned()), Asking::Failed)
    }

    /// A worker's answers, how often somebody was asked, and when he answers.
    struct Asked {
        policy: Arc<Policy>,
        answers: Answers,
        count: Cell<u32>,
        go: Notify,
    }

    impl Default for Asked {
        fn default() -> Self {
            Self {
                policy: Policy::new(PolicySpec::plain("p", PolicyKind::Random), None),
                answers: Answers::default(),
                count: Cell::default(),
                go: Notify::new(),
            }
        }
    }

    impl Asked {
        fn key(&self, question: u64) -> Key<'_> {
            Key {
                question,
                adviser: 0,
                policy: &self.policy,
            }
        }

        async fn ask(&self, key: u64) -> Advice {
            self.given(self.key(key)).await.0
        }

        async fn given(&self, key: Key<'_>) -> Given {
            let question = async || {
                self.count.set(self.count.get() + 1);
                self.go.notified().await;
                Ok(vec![self.count.get().to_string()])
            };
            self.answers.of(key, TIMES, question).await
        }

        /// Fails so, if it is asked.
        async fn fail(&self, key: u64, why: fn(String) -> Unadvised) -> Given {
            let answer = async || Err(why("no".to_owned()));
            self.answers.of(self.key(key), TIMES, answer).await
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
            let then = self.answers.known(self.key(key), Instant::now() + after);
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
        assert_eq!(asked.fail(1, Unadvised::Words).await, failed());
        assert_eq!(asked.ask(1).await, failed().0, "nobody is asked");
        assert_eq!(asked.at_once(2).await, ranked(1), "another question");
        assert!(!asked.holds(1, FAILED_FOR));
        assert_eq!(asked.at_once(1).await, ranked(2));
    }

    #[tokio::test]
    async fn who_does_not_answer_is_not_asked_for_another_key() {
        locally(async |asked| {
            assert_eq!(asked.fail(1, Unadvised::Down).await, failed());
            for key in [1, 2] {
                assert_eq!(asked.ask(key).await, failed().0);
            }
            let other = Key {
                adviser: OTHER,
                ..asked.key(3)
            };
            asked.go.notify_one();
            assert_eq!(asked.given(other).await, (ranked(1), Asking::Advised));
            assert_eq!(asked.given(other).await, (ranked(1), Asking::Kept));
            let standings = &asked.answers.standings;
            assert_eq!(standings.refusal(0, Instant::now()).as_deref(), Some("no"));
            standings.aged(0, FAILED_FOR);
            let one = asked.spawn(1);
            settled().await;
            for key in [1, 2] {
                assert_eq!(asked.ask(key).await, failed().0, "one alone tries");
            }
            asked.go.notify_one();
            assert_eq!(one.await.unwrap(), ranked(2));
            assert_eq!(asked.at_once(2).await, ranked(3));
        })
        .await;
    }

    #[tokio::test]
    async fn who_takes_over_with_little_time_fails_alone() {
        locally(async |asked| {
            let late = async || Err(Unadvised::Late("no".to_owned()));
            let given = asked.answers.of(asked.key(1), TIMES, late).await;
            assert_eq!(given, (failed().0, Asking::Late));
            assert_eq!(asked.at_once(1).await, ranked(1), "it may be asked");
            let late = async || Err(Unadvised::Late("no".to_owned()));
            let whole = Times {
                deadline: Duration::ZERO,
                ..TIMES
            };
            let given = asked.answers.of(asked.key(2), whole, late).await;
            assert_eq!(given, (failed().0, Asking::Late));
            assert_eq!(asked.given(asked.key(3)).await, failed());
        })
        .await;
    }

    #[tokio::test]
    async fn one_alone_waits_for_who_failed_before() {
        locally(async |asked| {
            for (key, after, waits) in [(1, FAILED_FOR, false), (2, WARY_FOR * 2, true)] {
                assert_eq!(asked.fail(key, Unadvised::Words).await, failed());
                asked.answers.known(asked.key(key), Instant::now() + after);
                let first = asked.spawn(key);
                settled().await;
                let second = asked.spawn(key);
                settled().await;
                assert_eq!(second.is_finished(), !waits);
                asked.go.notify_one();
                let first = first.await.unwrap();
                assert!(matches!(first, Advice::Ranked(_)));
                assert_eq!(
                    second.await.unwrap(),
                    if waits { first } else { failed().0 }
                );
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
                let answer = || ready(Ok(vec!["0".to_owned()]));
                asked.answers.of(asked.key(key), TIMES, answer).await;
                assert!(asked.answers.known.borrow().len() <= MOST);
            }
            for key in 0..MOST_ASKED as u64 {
                asked.spawn(10_000 + key);
            }
            settled().await;
            let one_more = asked.ask(1_000_000).await;
            assert!(matches!(&one_more, Advice::Failed(why) if why.contains("64 questions")));
            assert!(
                asked.answers.known.borrow()[&1_000_000].is_open(),
                "it is not kept"
            );
            for _ in 0..MOST_WAITING {
                let asked = Rc::clone(&asked);
                spawn_local(
                    async move { asked.answers.of(asked.key(10_000), TIMES, pending).await },
                );
            }
            settled().await;
            let one_more = asked.ask(10_000).await;
            assert!(matches!(&one_more, Advice::Failed(why) if why.contains("1024 requests")));
        })
        .await;
    }
}
