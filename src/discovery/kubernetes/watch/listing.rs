//! Lists: page by page, or as a stream of the watch where the server has that and
//! it was asked for.

use tokio::time::{Instant, timeout};
use tracing::info;

use super::super::fault::Fault;
use super::super::list::{BadList, Item, Page, Splitter};
use super::super::pace::spread;
use super::super::status::Kind;
use super::{Event, Follower, Stream, apart, seconds};

/// Objects of a list; what comes behind them is left out.
const MOST_OBJECTS: usize = 100_000;
/// Pages of a list: a server may send few objects in each, or none.
const MOST_PAGES: usize = 1000;
/// Events that are held while a list comes as a stream, and bytes of them.
const MOST_HELD: (usize, usize) = (10_000, 16 << 20);

impl<T: FnMut(Event<'_>)> Follower<'_, T> {
    /// Lists until it goes well. A list that came as a stream is a watch, too.
    pub(super) async fn list(&mut self) -> Option<Stream> {
        loop {
            apart(&mut self.listed_at, self.pace).await;
            let as_stream = self.watched.streaming_lists && !self.api.refuses_streams.get();
            let outcome = if as_stream {
                self.list_as_stream().await
            } else {
                self.list_pages().await.map(|()| None)
            };
            match outcome {
                Ok(stream) => {
                    self.listing.reset();
                    self.status.listed();
                    // Whether watches go well is for them to say.
                    if !self.watching.is_failing() {
                        self.status.recovered(&self.watched.path);
                    }
                    return stream;
                }
                Err(fault) => {
                    let pause = self.listing.after(&fault, self.pace);
                    self.status.failed(&self.watched.path, &fault, pause);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn list_pages(&mut self) -> Result<(), Fault> {
        (self.tell)(Event::Listing);
        let mut token = None;
        let mut left = MOST_OBJECTS;
        for _ in 0..MOST_PAGES {
            let page = self.page(token.as_deref(), &mut left).await?;
            if left == 0 && !page.token.is_empty() {
                let what = "only the first 100,000 objects are looked at; narrow the selector";
                self.status.left_out(&self.watched.path, what);
            }
            if left == 0 || page.token.is_empty() {
                self.version = page.resource_version;
                (self.tell)(Event::Listed);
                return Ok(());
            }
            token = Some(page.token);
        }
        let why = format!("a list of more than {MOST_PAGES} pages");
        Err(Fault::Garbled(why))
    }

    /// One page; `left` counts down the objects that may come.
    async fn page(&mut self, token: Option<&str>, left: &mut usize) -> Result<Page, Fault> {
        let path = self.watched.page(token);
        let mut answer = self.api.get(&path, self.pace.quiet).await?;
        self.status.heard();
        let mut splitter = Splitter::default();
        loop {
            let piece = timeout(self.pace.quiet, answer.piece()).await;
            let piece = piece.map_err(|_| self.api.late("part of a list", self.pace.quiet))??;
            let Some(piece) = piece else {
                return splitter.finish().map_err(bad);
            };
            self.status.heard();
            let (tell, status, path) = (&mut self.tell, self.status, &self.watched.path);
            let taken = splitter.take(&piece, |item| match item {
                _ if *left == 0 => {}
                Item::Whole(object) => {
                    *left -= 1;
                    tell(Event::Item(object));
                }
                Item::TooLarge => {
                    let what = "an object that is larger than 2 MiB is left out";
                    status.left_out(path, what);
                }
            });
            taken.map_err(bad)?;
        }
    }

    /// Asks for all there is as events of a watch. A server that cannot do that is
    /// not asked again.
    async fn list_as_stream(&mut self) -> Result<Option<Stream>, Fault> {
        let why = match self.stream().await {
            Ok(stream) => return Ok(Some(stream)),
            Err(Unstreamed::Never(fault)) => fault,
            Err(Unstreamed::NotNow(fault)) => return Err(fault),
        };
        self.api.refuses_streams.set(true);
        info!(
            path = self.watched.path,
            why = %why,
            "this API server does not stream lists; they are asked for page by page"
        );
        self.list_pages().await.map(|()| None)
    }

    async fn stream(&mut self) -> Result<Stream, Unstreamed> {
        (self.tell)(Event::Listing);
        let lasting = spread(self.watched.timeout, 0.1);
        let path = self.watched.streamed(seconds(lasting));
        self.watched_at = Some(Instant::now());
        let mut stream = self.open(&path, lasting).await?;
        let mut held = Held::default();
        while !held.is_listed {
            // Servers that do not know of such lists send all, and then nothing.
            let piece = timeout(self.pace.head, stream.answer.piece()).await;
            let piece = piece.map_err(|_| Unstreamed::silent())??;
            let Some(piece) = piece else {
                let why = "a list as a stream ended too early";
                return Err(Fault::Broken(why.to_owned()).into());
            };
            self.status.heard();
            let taken = self.lines(&mut stream.lines, &piece, |follower, frame| {
                held.take(follower, frame)
            });
            match taken {
                Err(fault) if held.is_too_much() => return Err(Unstreamed::Never(fault)),
                taken => taken?,
            }
        }
        stream.is_good = true;
        Ok(stream)
    }
}

/// Why a list did not come as a stream.
#[derive(Debug)]
enum Unstreamed {
    /// It would be the same the next time.
    Never(Fault),
    /// Whatever lists may fail of.
    NotNow(Fault),
}

impl Unstreamed {
    fn silent() -> Self {
        let why = "a list as a stream did not come to its end";
        Self::Never(Fault::Garbled(why.to_owned()))
    }
}

impl From<Fault> for Unstreamed {
    fn from(fault: Fault) -> Self {
        // 500: an API server whose etcd cannot tell how far it is.
        let is_never = match &fault {
            Fault::Refused(refused) => match refused.told.code {
                400 | 422 => true,
                500 => refused.told.message.contains("RequestWatchProgress"),
                _ => false,
            },
            _ => false,
        };
        if is_never {
            Self::Never(fault)
        } else {
            Self::NotNow(fault)
        }
    }
}

/// A list on its way: events that are not of it, kept until it is whole.
#[derive(Debug, Default)]
struct Held {
    is_listed: bool,
    objects: usize,
    /// Lines that come behind the first change.
    changes: Vec<(Kind, Box<[u8]>)>,
    bytes: usize,
}

impl Held {
    fn take<T: FnMut(Event<'_>)>(
        &mut self,
        follower: &mut Follower<'_, T>,
        frame: &super::reading::Frame<'_>,
    ) -> Result<(), Fault> {
        if self.is_listed {
            return follower.event(frame).map(|_| ());
        }
        let Some(kind) = frame.kind() else {
            return Ok(());
        };
        follower.status.happened(kind);
        let object = frame.object.get().as_bytes();
        match kind {
            Kind::Error => return Err(frame.fault(&follower.watched.path)),
            Kind::Added if self.changes.is_empty() => {
                self.objects += 1;
                if self.is_too_much() {
                    return Err(too_much());
                }
                (follower.tell)(Event::Item(object));
            }
            Kind::Bookmark => {
                let (version, is_end) = frame.version();
                if is_end && !version.is_empty() {
                    follower.version = version.into_owned();
                    self.whole(follower);
                }
            }
            // In a list there is no place for what is gone.
            kind => {
                self.bytes += object.len();
                self.changes.push((kind, object.into()));
                if self.is_too_much() {
                    return Err(too_much());
                }
            }
        }
        Ok(())
    }

    fn is_too_much(&self) -> bool {
        self.objects > MOST_OBJECTS || self.changes.len() > MOST_HELD.0 || self.bytes > MOST_HELD.1
    }

    fn whole<T: FnMut(Event<'_>)>(&mut self, follower: &mut Follower<'_, T>) {
        self.is_listed = true;
        (follower.tell)(Event::Listed);
        for (kind, object) in std::mem::take(&mut self.changes) {
            (follower.tell)(match kind {
                Kind::Deleted => Event::Deleted(&object),
                _ => Event::Applied(&object),
            });
        }
    }
}

fn too_much() -> Fault {
    Fault::Garbled("too much happens while a list is streamed".to_owned())
}

fn bad(bad: BadList) -> Fault {
    match bad {
        BadList::Half => Fault::Broken(bad.to_string()),
        BadList::Garbled(why) => Fault::Garbled(why.to_owned()),
    }
}
