//! Pages for whoever asks: one for all who ask together, and never more of them
//! in memory than a few, however many readers are slow to take theirs.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::QUEUE;
use crate::api::search::Listing;
use crate::api::{Ask, Query};

/// Pages of one kind that may be on their way to readers. One of a thousand
/// engines that have worked takes some 9 MiB.
const MOST: usize = 4;
/// How old the newest of so many may be when it is given once more.
const FRESH: Duration = Duration::from_secs(1);

/// Bytes of lists of blocks that may be on their way to readers, but for the last
/// one of them: each is for one alone, and has 16 MiB at most.
const MOST_LISTED: usize = 64 << 20;

/// The pages that were given out, of each kind.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: RefCell<[Given; 2]>,
    lists: RefCell<Vec<Bytes>>,
}

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
        let mut listings = Vec::new();
        while asked.recv_many(&mut asks, QUEUE).await > 0 {
            let mut pages: [Option<Bytes>; 2] = Default::default();
            for ask in asks.drain(..) {
                let (query, reply) = match ask {
                    // Whoever asked may be gone.
                    Ask::Page(_, reply) | Ask::Blocks(_, reply) if reply.is_closed() => continue,
                    Ask::Page(query, reply) => (query, reply),
                    Ask::Blocks(listing, reply) => {
                        listings.push((listing, reply));
                        continue;
                    }
                };
                let page = &mut pages[query as usize];
                if page.is_none() {
                    let given = &mut self.pages.borrow_mut()[query as usize];
                    *page = given.next(Instant::now(), |length| make(query, length));
                }
                // Without an answer it is told to come again.
                if let Some(page) = page {
                    let _ = reply.send(Bytes::clone(page));
                }
            }
            drop(pages);
            // They come last: each takes as long as a page does, there may be many,
            // and who asked for one may have left while others were made.
            for (listing, reply) in listings.drain(..) {
                if reply.is_closed() {
                    continue;
                }
                if let Some(list) = self.list(&listing) {
                    let _ = reply.send(list);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// A list of blocks, as long as there is room for one.
    fn list(&self, listing: &Listing) -> Option<Bytes> {
        let mut lists = self.lists.borrow_mut();
        lists.retain(|list| !list.is_unique());
        let held: usize = lists.iter().map(Bytes::len).sum();
        if held >= MOST_LISTED {
            return None;
        }
        let list = listing.page();
        lists.push(Bytes::clone(&list));
        Some(list)
    }

    /// Drops the pages that nobody reads any more.
    pub(super) fn forget(&self) {
        self.pages.borrow_mut().iter_mut().for_each(Given::forget);
        self.lists.borrow_mut().retain(|list| !list.is_unique());
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
            control.try_send(Ask::Page(query, reply)).unwrap();
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

    #[tokio::test]
    async fn lists_of_blocks_are_made_until_too_much_of_them_is_being_read() {
        let mut fleet = crate::fleet::testing::fleet();
        fleet.reconcile(vec![crate::fleet::testing::spec("http://a:1", &["m"])]);
        let snapshot = fleet.published().load_full();
        let (control, asked) = mpsc::channel(QUEUE);
        let ask = move || {
            let (reply, answer) = oneshot::channel();
            let listing = Listing::everything(&snapshot);
            let ask = Ask::Blocks(Box::new(listing), reply);
            control.try_send(ask).unwrap();
            answer
        };
        let pages = Pages::default();
        let slow = Bytes::from(vec![b' '; MOST_LISTED]);
        pages.lists.borrow_mut().push(Bytes::clone(&slow));
        let refused = ask();
        drop(ask());
        let made = Cell::new(0);
        let serve = pages.serve(asked, numbered(&made));
        let asking = async move {
            assert!(refused.await.is_err());
            drop(slow);
            assert!(ask().await.unwrap().starts_with(b"{\"success\":true"));
        };
        tokio::join!(serve, asking);
        pages.forget();
        assert!(pages.lists.borrow().is_empty(), "none is kept for nobody");
        assert_eq!(made.get(), 0);
    }

    #[tokio::test]
    async fn pages_are_made_before_lists() {
        let mut fleet = crate::fleet::testing::fleet();
        fleet.reconcile(vec![crate::fleet::testing::spec("http://a:1", &["m"])]);
        let listing = Listing::everything(&fleet.published().load_full());
        let (control, asked) = mpsc::channel(QUEUE);
        let (reply, mut list) = oneshot::channel();
        let ask = Ask::Blocks(Box::new(listing), reply);
        control.try_send(ask).unwrap();
        let (reply, page) = oneshot::channel();
        control.try_send(Ask::Page(Query::Metrics, reply)).unwrap();
        drop(control);
        let make = |_, _| {
            assert!(list.try_recv().is_err(), "the list was made first");
            Bytes::from("page")
        };
        let make = std::cell::RefCell::new(make);
        let pages = Pages::default();
        pages
            .serve(asked, |query, length| (make.borrow_mut())(query, length))
            .await;
        assert_eq!(page.await.unwrap(), "page");
        assert!(!list.await.unwrap().is_empty());
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
