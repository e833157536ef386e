//! Pages for whoever asks: one for all who ask together, and never more of them
//! in memory than a few, however many readers are slow to take theirs.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::QUEUE;
use crate::api::{Ask, Query};

/// Pages of one kind that may be on their way to readers. One of a thousand
/// engines that have worked takes some 9 MiB.
const MOST: usize = 4;
/// How old the newest of so many may be when it is given once more.
const FRESH: Duration = Duration::from_secs(1);

/// The pages that were given out, of each kind.
#[derive(Debug, Default)]
pub(super) struct Pages(RefCell<[Given; 2]>);

/// Those of one kind.
#[derive(Debug, Default)]
struct Given {
    /// The oldest first.
    held: VecDeque<(Instant, Bytes)>,
    /// How long the last one was: the next one will be much like it.
    length: usize,
}

impl Pages {
    /// Answers until nobody can ask any more; `make` makes a page that will have
    /// about so many bytes.
    pub(super) async fn serve(
        &self,
        mut asked: mpsc::Receiver<Ask>,
        make: impl Fn(Query, usize) -> Bytes,
    ) {
        let mut asks = Vec::with_capacity(QUEUE);
        while asked.recv_many(&mut asks, QUEUE).await > 0 {
            let now = Instant::now();
            let mut pages: [Option<Bytes>; 2] = Default::default();
            for ask in asks.drain(..) {
                // Whoever asked may be gone.
                if ask.reply.is_closed() {
                    continue;
                }
                let page = &mut pages[ask.query as usize];
                if page.is_none() {
                    let given = &mut self.0.borrow_mut()[ask.query as usize];
                    *page = given.next(now, |length| make(ask.query, length));
                }
                // Without an answer it is told to come again.
                if let Some(page) = page {
                    let _ = ask.reply.send(Bytes::clone(page));
                }
            }
        }
    }

    /// Drops the pages that nobody reads any more.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().iter_mut().for_each(Given::forget);
    }
}

impl Given {
    /// A new page, as long as there is room for one; else the newest, if it is
    /// fresh.
    fn next(&mut self, now: Instant, make: impl FnOnce(usize) -> Bytes) -> Option<Bytes> {
        self.forget();
        if self.held.len() >= MOST {
            let (made, page) = self.held.back()?;
            return (now.saturating_duration_since(*made) <= FRESH).then(|| Bytes::clone(page));
        }
        let page = make(self.length);
        self.length = page.len();
        self.held.push_back((now, Bytes::clone(&page)));
        Some(page)
    }

    fn forget(&mut self) {
        self.held.retain(|(_, page)| !page.is_unique());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::sync::oneshot;

    /// Each page is another.
    fn numbered(made: &Cell<usize>) -> impl Fn(Query, usize) -> Bytes {
        |query, _| {
            made.set(made.get() + 1);
            Bytes::from(format!("{query:?} {}", made.get()))
        }
    }

    #[test]
    fn pages_that_are_being_read_are_few() {
        let (mut given, made) = (Given::default(), Cell::new(0));
        let make = numbered(&made);
        let start = Instant::now();
        let mut next = |after: u64| {
            let now = start + Duration::from_millis(after);
            given.next(now, |length| make(Query::Metrics, length))
        };
        // Whoever reads one after the other reads what is so now.
        for turn in 1..20 {
            assert_eq!(next(0).unwrap(), format!("Metrics {turn}"));
        }
        made.set(0);
        let slow: Vec<_> = (0..MOST).map(|_| next(0).unwrap()).collect();
        let more: Vec<_> = (0..30).map(|_| next(1000).unwrap()).collect();
        assert_eq!(made.get(), MOST);
        assert!(more.iter().all(|page| page == "Metrics 4"));
        assert_eq!(next(1001), None, "it would be stale, or one more");
        drop(slow);
        drop(more);
        assert_eq!(next(1001).unwrap(), "Metrics 5");
        given.forget();
        assert!(given.held.is_empty(), "none is kept for nobody");
    }

    #[tokio::test]
    async fn who_asks_together_gets_the_same_page_and_who_left_gets_none() {
        let (control, asked) = mpsc::channel(QUEUE);
        let ask = |query| {
            let (reply, answer) = oneshot::channel();
            control.try_send(Ask { query, reply }).unwrap();
            answer
        };
        drop(ask(Query::Engines));
        let asks: Vec<_> = (0..10).map(|_| ask(Query::Metrics)).collect();
        drop(ask(Query::Engines));
        drop(control);
        let made = Cell::new(0);
        Pages::default().serve(asked, numbered(&made)).await;
        for answer in asks {
            assert_eq!(answer.await.unwrap(), "Metrics 1");
        }
        assert_eq!(made.get(), 1);
    }

    #[test]
    fn a_page_is_told_how_long_the_last_one_was() {
        let mut given = Given::default();
        for (told, long) in [(0, 500), (500, 700), (700, 10)] {
            let page = given.next(Instant::now(), |length| {
                assert_eq!(length, told);
                Bytes::from(vec![b' '; long])
            });
            assert_eq!(page.unwrap().len(), long);
        }
    }
}
