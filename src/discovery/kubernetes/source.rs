//! Which objects are watched for a source, and what follows from what they tell.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::api::ApiServer;
use super::event::{Event, Watched};
use super::known::{Known, Stream};
use super::pace::Pace;
use super::status::Status;
use super::watch::follow;
use crate::config::kubernetes::{Kubernetes, Source};
use crate::discovery::Found;

/// Changes that come within this time are told together: a rollout is many events.
const TOGETHER: Duration = Duration::from_millis(50);
/// The share of a core that putting changes in force takes at most, in the long run:
/// a large fleet in turmoil is told of less often.
const SHARE: f64 = 0.02;
/// What may be spent at once, after a quiet time.
const CREDIT: Duration = Duration::from_millis(100);
/// How long to wait for a cluster where there is none: a file may come late.
const LOCATE_AGAIN: Duration = Duration::from_secs(5);

/// How following one source goes.
#[derive(Debug, Default)]
pub struct Progress {
    main: Status,
    second: Status,
}

impl Progress {
    /// Of each kind of object that is followed for that source.
    pub fn streams(&self, source: &Source) -> impl Iterator<Item = &Status> {
        let has_second = match source {
            Source::Pods | Source::EndpointSlices => false,
            Source::InferencePool(_) | Source::Services => true,
        };
        std::iter::once(&self.main).chain(has_second.then_some(&self.second))
    }
}

/// Tells of engines, again and again: the whole list each time.
pub async fn run(
    settings: &Kubernetes,
    progress: &Progress,
    tell: impl Fn(Vec<Found>),
) -> Infallible {
    let api = locate().await;
    let namespace = settings.namespace.as_deref().unwrap_or(api.namespace());
    let watching = Watching {
        known: RefCell::new(Known::new(settings, namespace)),
        namespace,
        changed: Notify::new(),
        reselected: Notify::new(),
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

async fn locate() -> ApiServer {
    loop {
        match ApiServer::locate().await {
            Ok(api) => return api,
            Err(error) => tracing::error!("{error}"),
        }
        tokio::time::sleep(LOCATE_AGAIN).await;
    }
}

struct Watching<'a> {
    known: RefCell<Known>,
    changed: Notify,
    /// The pool selects other pods.
    reselected: Notify,
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
            // They carry their service's labels.
            Source::Services => {
                let labels = &self.settings.selector;
                Collection::selected(Stream::Second, (CORE, "endpoints"), labels)
            }
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
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
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
        let status = match stream {
            Stream::Main => &self.progress.main,
            Stream::Second => &self.progress.second,
        };
        let take = |event: Event<'_>| self.take(stream, event);
        follow(self.api, &watched, self.pace, status, take).await
    }

    fn take(&self, stream: Stream, event: Event<'_>) {
        let mut known = self.known.borrow_mut();
        let before = known.selector();
        if known.take(stream, event) {
            self.changed.notify_one();
        }
        if known.selector() != before {
            self.reselected.notify_one();
        }
    }

    async fn tell(&self, tell: impl Fn(Vec<Found>)) -> Infallible {
        let mut purse = Purse::full(Instant::now());
        let mut is_first = true;
        loop {
            self.changed.notified().await;
            if !self.known.borrow().is_listed() {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                tokio::time::sleep(TOGETHER).await;
            }
            let began = Instant::now();
            tell(self.known.borrow().engines());
            let rest = purse.spend(began.elapsed(), Instant::now());
            tokio::time::sleep(rest).await;
        }
    }
}

/// Time that may be spent: it grows again by [`SHARE`] of the time that passes.
struct Purse {
    seconds: f64,
    at: Instant,
}

impl Purse {
    fn full(at: Instant) -> Self {
        let seconds = CREDIT.as_secs_f64();
        Self { seconds, at }
    }

    /// Takes that time out; tells how long it takes until there is some again.
    fn spend(&mut self, time: Duration, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * SHARE;
        self.at = now;
        self.seconds = (self.seconds + earned).min(CREDIT.as_secs_f64()) - time.as_secs_f64();
        Duration::from_secs_f64((-self.seconds).max(0.0) / SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_a_share_of_the_time() {
        let mut now = Instant::now();
        let mut purse = Purse::full(now);
        let cost = Duration::from_millis(5);
        let mut turns = [0, 0];
        for quiet in [0, 1] {
            let end = now + Duration::from_secs(60);
            while now < end {
                now += TOGETHER + cost;
                now += purse.spend(cost, now);
                turns[quiet] += 1;
            }
            // The purse is full again, not fuller.
            now += Duration::from_secs(3600);
        }
        for turns in turns {
            let spent = cost * turns;
            let most = Duration::from_secs(60).mul_f64(SHARE) + CREDIT + cost;
            assert!(
                spent <= most && spent * 10 > most * 9,
                "{spent:?} of {most:?}"
            );
        }
        assert_eq!(purse.spend(CREDIT / 2, now), Duration::ZERO);
    }
}
