//! What is known of one source of engines, from what its watches tell.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::event::Event;
use super::notes::{Notes, Told};
use super::objects::{Kept, Objects, Rules, Taking};
use super::once::{Once, Served};
use super::pods::Pod;
use super::pool::Pool;
use super::services::{Endpoints, Service};
use super::slices::Slice;
use crate::config::kubernetes::{Kubernetes, Source};
use crate::discovery::Found;

/// Objects of one collection at most, and engines of them.
pub const MAX_OBJECTS: usize = 100_000;

/// Where this process listens itself: an engine there would be a loop of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// The port of the listener for clients; 0: not known.
    pub port: u16,
    /// The addresses that others reach it at. Those of the loopback are its own in
    /// any case.
    pub ips: Vec<IpAddr>,
}

impl Own {
    /// Whether it is this process that listens there.
    pub(super) fn is_at(&self, ip: IpAddr, port: u16) -> bool {
        let is_ours = |own: &IpAddr| own.to_canonical() == ip;
        self.port != 0 && port == self.port && (ip.is_loopback() || self.ips.iter().any(is_ours))
    }
}

/// Which of a source's watches an event is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Pods, slices or services.
    Main,
    /// The pool of the pods; the Endpoints of the services.
    Second,
}

/// The objects known of one source.
#[derive(Debug)]
pub struct Known {
    objects: Collections,
    rules: Rules,
    once: Once,
    told: Told,
}

#[derive(Debug)]
enum Collections {
    Pods(Objects<Pod>),
    Slices(Objects<Slice>),
    Pool {
        name: String,
        pods: Objects<Pod>,
        pools: Objects<Pool>,
        absence: Absence,
    },
    Services {
        services: Objects<Service>,
        /// Also those of services that are none of ours: they need not carry their
        /// service's labels, and may come before it.
        endpoints: Objects<Endpoints>,
        /// Which of the services are served, in their order.
        are_served: Vec<bool>,
    },
}

/// Whether the pool is not there, and how often it was found not to be.
#[derive(Debug, Default)]
struct Absence {
    is_now: bool,
    times: u64,
}

impl Absence {
    /// Tells that the pool of that name is not there, each time that it comes to that.
    fn tell(&mut self, pools: &Objects<Pool>, (name, namespace): (&str, &str), notes: &mut Notes) {
        let is_now = pools.is_listed() && pools.get(name).is_none();
        if is_now && !self.is_now {
            self.times += 1;
            let text = format!(
                "there is no InferencePool {name} in namespace {namespace}; nothing is served \
                 until there is"
            );
            notes.warn(&["no pool", &self.times.to_string()], &text);
        }
        self.is_now = is_now;
    }
}

impl Known {
    /// Nothing yet. `namespace`: the one that is watched; `own`: what is never
    /// taken as an engine.
    #[must_use]
    pub fn new(settings: &Kubernetes, namespace: &str, own: &Own) -> Self {
        let objects = match &settings.source {
            Source::Pods => Collections::Pods(Objects::new(MAX_OBJECTS)),
            Source::EndpointSlices => Collections::Slices(Objects::new(MAX_OBJECTS)),
            Source::InferencePool(name) => Collections::Pool {
                name: name.clone(),
                pods: Objects::new(MAX_OBJECTS),
                pools: Objects::new(MAX_OBJECTS),
                absence: Absence::default(),
            },
            Source::Services => Collections::Services {
                services: Objects::new(MAX_OBJECTS),
                endpoints: Objects::new(MAX_OBJECTS),
                are_served: Vec::new(),
            },
        };
        let has_pool = matches!(objects, Collections::Pool { .. });
        Self {
            objects,
            rules: Rules {
                namespace: namespace.into(),
                port: settings.port,
                own: own.clone(),
                pool_ports: has_pool.then(Box::default),
            },
            once: Once::default(),
            told: Told::default(),
        }
    }

    /// Takes an event in; tells whether the engines, the pool's selector or
    /// [`Known::is_listed`] may be other than before: never while a list is under
    /// way.
    pub fn take(&mut self, stream: Stream, event: Event<'_>) -> bool {
        let mut notes = Notes::default();
        let was_listed = self.is_listed();
        let mut taking = Taking {
            rules: &self.rules,
            once: &mut self.once,
            notes: &mut notes,
        };
        let is_other = match (&mut self.objects, stream) {
            (Collections::Pods(pods) | Collections::Pool { pods, .. }, Stream::Main) => {
                pods.take(event, &mut taking)
            }
            (Collections::Slices(slices), Stream::Main) => slices.take(event, &mut taking),
            (Collections::Services { services, .. }, Stream::Main) => {
                services.take(event, &mut taking)
            }
            (Collections::Pool { pools, .. }, Stream::Second) => pools.take(event, &mut taking),
            (Collections::Services { endpoints, .. }, Stream::Second) => {
                endpoints.take(event, &mut taking)
            }
            (Collections::Pods(_) | Collections::Slices(_), Stream::Second) => false,
        };
        let matters = is_other && (self.follow_up(stream, &mut notes) || !was_listed);
        self.told.tell(notes);
        matters
    }

    /// What follows for one collection from a change of the other; tells whether
    /// engines may be other than before.
    fn follow_up(&mut self, stream: Stream, notes: &mut Notes) -> bool {
        match (&mut self.objects, stream) {
            (
                Collections::Pool {
                    name,
                    pods,
                    pools,
                    absence,
                },
                Stream::Second,
            ) => {
                absence.tell(pools, (name, &self.rules.namespace), notes);
                let pool = pools.get(name).filter(|pool| pool.selector.is_some());
                if pool.is_none() {
                    pods.clear(&mut self.once);
                }
                let ports = pool.map(|pool| pool.ports.clone());
                let ports = Some(ports.unwrap_or_default());
                if ports != self.rules.pool_ports {
                    self.rules.pool_ports = ports;
                    let rules = &self.rules;
                    pods.remake(&mut self.once, |about, pod| {
                        pod.again(about, rules, &mut *notes)
                    });
                }
                true
            }
            (
                Collections::Services {
                    services,
                    endpoints,
                    are_served,
                },
                _,
            ) => {
                let mut now = Vec::with_capacity(are_served.len());
                for (name, service) in services.iter() {
                    let is_served = is_served(service, endpoints.get(name));
                    if is_served {
                        let served = service.served();
                        served.iter().for_each(|one| self.once.is_ready(one));
                    }
                    now.push(is_served);
                }
                // Most Endpoints of a namespace are of no service that is ours.
                let is_other = stream == Stream::Main || now != *are_served;
                *are_served = now;
                is_other
            }
            _ => true,
        }
    }

    /// Whether all that has to be listed has been listed once. There is nothing
    /// to list of a pool that does not exist, or selects nothing.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        match &self.objects {
            Collections::Pods(pods) => pods.is_listed(),
            Collections::Slices(slices) => slices.is_listed(),
            Collections::Pool { pods, pools, .. } => {
                pools.is_listed() && (self.selector().is_none() || pods.is_listed())
            }
            Collections::Services {
                services,
                endpoints,
                ..
            } => services.is_listed() && endpoints.is_listed(),
        }
    }

    /// The label selector of the pool's pods. `None`: there is no pool, or it
    /// selects none.
    #[must_use]
    pub fn selector(&self) -> Option<String> {
        match &self.objects {
            Collections::Pool { name, pools, .. } => pools.get(name)?.selector.clone(),
            _ => None,
        }
    }

    /// The engines, in the order of their URLs; one at each.
    ///
    /// Of two objects with one address, it is the one that is ready, then the one
    /// that is newer.
    #[must_use]
    pub fn engines(&self) -> Vec<Found> {
        let mut all = Vec::new();
        match &self.objects {
            Collections::Pods(pods) | Collections::Pool { pods, .. } => {
                all.extend(served(pods));
            }
            Collections::Slices(slices) => all.extend(served(slices)),
            Collections::Services {
                services,
                endpoints,
                ..
            } => {
                for (name, service) in services.iter() {
                    let is_ready = is_served(service, endpoints.get(name));
                    let served = service.served().iter();
                    all.extend(served.map(|one| (one, is_ready)));
                }
            }
        }
        all.retain(|(one, is_ready)| *is_ready || self.once.was_ready(one));
        all.sort_unstable_by(|(a, a_is_ready), (b, b_is_ready)| {
            let urls = a.url.text().cmp(b.url.text());
            let better = (!a_is_ready, Reverse(a.created)).cmp(&(!b_is_ready, Reverse(b.created)));
            urls.then(better).then_with(|| a.identity.cmp(&b.identity))
        });
        all.dedup_by(|next, first| next.0.url == first.0.url);
        if matches!(self.objects, Collections::Slices(_)) {
            one_family(&mut all);
        }
        let found = all.into_iter().map(|(one, is_ready)| Found {
            identity: Arc::clone(&one.identity),
            url: one.url.clone(),
            models: one.models.clone(),
            traits: Arc::clone(&one.traits),
            is_ready,
        });
        found.collect()
    }
}

fn served<T: Kept>(objects: &Objects<T>) -> impl Iterator<Item = (&Served, bool)> {
    let all = objects.iter().flat_map(|(_, kept)| kept.served());
    all.map(|one| (one, one.is_ready))
}

fn is_served(service: &Service, endpoints: Option<&Endpoints>) -> bool {
    !service.is_terminating && endpoints.is_some_and(|endpoints| endpoints.has_address)
}

/// A Service of two families has each pod twice, at an address of each: the one
/// that is ready is kept, then IPv4.
fn one_family(all: &mut Vec<(&Served, bool)>) {
    let rank = |(one, is_ready): &(&Served, bool)| {
        let is_v6 = matches!(one.ip, Some(IpAddr::V6(_)));
        (!is_ready, is_v6)
    };
    let mut best: HashMap<&str, &Served> = HashMap::with_capacity(all.len());
    let mut ranks = HashMap::with_capacity(all.len());
    for candidate in all.iter() {
        let identity = &*candidate.0.identity;
        let rank = rank(candidate);
        if ranks.get(identity).is_none_or(|best| rank < *best) {
            ranks.insert(identity, rank);
            best.insert(identity, candidate.0);
        }
    }
    all.retain(|(one, _)| std::ptr::eq(best[&*one.identity], *one));
}

#[cfg(test)]
mod tests;
