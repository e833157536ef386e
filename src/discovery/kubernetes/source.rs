//! Which objects are watched for a source, and what follows from what they tell.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::api::ApiServer;
use super::event::{Event, Watched};
use super::known::{Known, Own, Stream};
use super::pace::Pace;
use super::status::Status;
use super::watch::follow;
use crate::config::kubernetes::{Kubernetes, Source};
use crate::discovery::Found;

/// Changes that come within this time are told together: a rollout is many events.
const TOGETHER: Duration = Duration::from_millis(50);
/// How much longer than telling takes it rests then: among thousands of engines to
/// look who has changed takes a millisecond.
const REST: u32 = 30;
/// But not longer than this.
const MOST_REST: Duration = Duration::from_millis(100);
/// How long to wait for a cluster where there is none: a file may come late.
const LOCATE_AGAIN: Duration = Duration::from_secs(5);

/// What a source tells.
#[derive(Debug)]
pub struct Told {
    /// All its engines, sorted by URL.
    pub found: Vec<Found>,
    /// Whether they are selected otherwise than those that were told before.
    pub is_other_selection: bool,
}

/// How following one source goes.
#[derive(Debug, Default)]
pub struct Progress {
    main: Status,
    second: Status,
    is_followed: [Cell<bool>; 2],
}

impl Progress {
    /// Of each kind of object that is followed.
    pub fn streams(&self) -> Vec<&Status> {
        let both = [&self.main, &self.second]
            .into_iter()
            .zip(&self.is_followed);
        let followed = both.filter(|(_, is_followed)| is_followed.get());
        followed.map(|(status, _)| status).collect()
    }

    fn begin(&self) {
        for status in [&self.main, &self.second] {
            status.forget();
        }
        self.is_followed.iter().for_each(|is| is.set(false));
    }

    fn of(&self, stream: Stream) -> &Status {
        match stream {
            Stream::Main => &self.main,
            Stream::Second => &self.second,
        }
    }
}

/// Tells of engines, again and again: the whole list each time.
///
/// What listens where we do is none of them.
pub async fn run(
    settings: &Kubernetes,
    own: &Own,
    progress: &Progress,
    tell: impl Fn(Told),
) -> Infallible {
    progress.begin();
    let api = locate(progress).await;
    let namespace = settings.namespace.as_deref().unwrap_or(api.namespace());
    let (source, selector) = (settings.source.name(), &settings.selector);
    tracing::info!(
        server = api.server(),
        namespace,
        source,
        selector,
        "following a Kubernetes cluster"
    );
    let watching = Watching {
        known: RefCell::new(Known::new(settings, namespace, own)),
        namespace,
        changed: Notify::new(),
        reselected: Notify::new(),
        is_reselecting: Cell::new(false),
        is_other_selection: Cell::new(true),
        settings,
        api: &api,
        pace: &Pace::default(),
        progress,
    };
    tokio::select! {
        never = watching.main() => never,
        never = watching.second() => never,
        never = watching.tell(tell) => never,
    }
}

async fn locate(progress: &Progress) -> ApiServer {
    loop {
        match ApiServer::locate().await {
            Ok(api) => return api,
            Err(error) => progress.main.no_cluster(&error),
        }
        tokio::time::sleep(LOCATE_AGAIN).await;
    }
}

struct Watching<'a> {
    known: RefCell<Known>,
    changed: Notify,
    /// The pool selects other pods.
    reselected: Notify,
    /// The list that comes next is of another selection than the last one.
    is_reselecting: Cell<bool>,
    /// What is told next is.
    is_other_selection: Cell<bool>,
    settings: &'a Kubernetes,
    api: &'a ApiServer,
    namespace: &'a str,
    pace: &'a Pace,
    progress: &'a Progress,
}

/// Where collections of the core, of the discovery group and of the gateway's
/// extension are.
const CORE: &str = "/api/v1";
const DISCOVERY: &str = "/apis/discovery.k8s.io/v1";
const INFERENCE: &str = "/apis/inference.networking.k8s.io/v1";

/// A collection, and which of its objects are followed.
struct Collection {
    stream: Stream,
    group: &'static str,
    resource: &'static str,
    labels: String,
    fields: String,
}

impl Collection {
    fn selected(stream: Stream, of: (&'static str, &'static str), labels: &str) -> Self {
        Self {
            stream,
            group: of.0,
            resource: of.1,
            labels: labels.to_owned(),
            fields: String::new(),
        }
    }
}

impl Watching<'_> {
    async fn main(&self) -> Infallible {
        let labels = &self.settings.selector;
        let of = match &self.settings.source {
            Source::Pods => (CORE, "pods"),
            Source::EndpointSlices => (DISCOVERY, "endpointslices"),
            Source::Services => (CORE, "services"),
            Source::InferencePool(_) => return self.pods_of_pool().await,
        };
        self.follow(Collection::selected(Stream::Main, of, labels))
            .await
    }

    async fn second(&self) -> Infallible {
        let collection = match &self.settings.source {
            Source::Pods | Source::EndpointSlices => return std::future::pending().await,
            // Those that are made by hand do not carry their service's labels.
            Source::Services => Collection::selected(Stream::Second, (CORE, "endpoints"), ""),
            Source::InferencePool(name) => Collection {
                fields: format!("metadata.name={name}"),
                ..Collection::selected(Stream::Second, (INFERENCE, "inferencepools"), "")
            },
        };
        self.follow(collection).await
    }

    /// The pods that the pool selects, whatever it selects.
    async fn pods_of_pool(&self) -> Infallible {
        loop {
            let selector = self.known.borrow().selector();
            let pods = async {
                match selector {
                    Some(labels) => {
                        let of = (CORE, "pods");
                        self.follow(Collection::selected(Stream::Main, of, &labels))
                            .await
                    }
                    None => {
                        self.progress.is_followed[0].set(false);
                        std::future::pending().await
                    }
                }
            };
            tokio::select! {
                // What is not selected any more is not told of.
                biased;
                () = self.reselected.notified() => {}
                never = pods => return never,
            }
        }
    }

    async fn follow(&self, collection: Collection) -> Infallible {
        let Collection {
            stream,
            group,
            resource,
            labels,
            fields,
        } = collection;
        let watched = Watched {
            path: format!("{group}/namespaces/{}/{resource}", self.namespace),
            label_selector: labels,
            field_selector: fields,
            timeout: self.settings.watch,
            streaming_lists: self.settings.streaming_lists,
        };
        self.progress.is_followed[usize::from(stream == Stream::Second)].set(true);
        let status = self.progress.of(stream);
        let take = |event: Event<'_>| self.take(stream, event);
        follow(self.api, &watched, self.pace, status, take).await
    }

    fn take(&self, stream: Stream, event: Event<'_>) {
        let mut known = self.known.borrow_mut();
        let before = known.selector();
        if known.take(stream, event) {
            self.changed.notify_one();
        }
        if event == Event::Listed && stream == Stream::Main && self.is_reselecting.take() {
            self.is_other_selection.set(true);
        }
        if known.selector() != before {
            self.is_reselecting.set(true);
            self.reselected.notify_one();
        }
    }

    async fn tell(&self, tell: impl Fn(Told)) -> Infallible {
        let mut is_first = true;
        loop {
            self.changed.notified().await;
            if !self.known.borrow().is_listed() {
                continue;
            }
            if !is_first {
                tokio::time::sleep(TOGETHER).await;
            }
            let began = Instant::now();
            let found = self.known.borrow().engines();
            if std::mem::take(&mut is_first) && found.is_empty() {
                let (namespace, selector) = (self.namespace, &self.settings.selector);
                tracing::warn!(namespace, selector, "no engine there yet");
            }
            tell(Told {
                found,
                is_other_selection: self.is_other_selection.take(),
            });
            tokio::time::sleep((began.elapsed() * REST).min(MOST_REST)).await;
        }
    }
}
