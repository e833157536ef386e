//! Following a Kubernetes API server through every bad day it may have.

mod credentials;
mod days;
mod events;
mod faults;
mod rates;
mod streams;
mod versions;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pilotfish::discovery::kubernetes::api::ApiServer;
use pilotfish::discovery::kubernetes::fault::Reason;
use pilotfish::discovery::kubernetes::pace::Pace;
use pilotfish::discovery::kubernetes::status::Status;
use pilotfish::discovery::kubernetes::watch::{Event, Watched, follow};
use serde_json::{Value, json};

use crate::support::apiserver::{Asked, FakeApi};
use crate::support::{Folder, PATIENCE};

const PODS: &str = "/api/v1/namespaces/test/pods";

/// A pod that a selector `app=engine` takes, in some state.
fn pod(name: &str, state: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "test", "labels": {"app": "engine", "state": state}},
    })
}

/// The objects as who follows knows them: names and states.
type Known = BTreeMap<String, String>;

fn known(pods: &[(&str, &str)]) -> Known {
    let own = |(name, state): &(&str, &str)| ((*name).to_owned(), (*state).to_owned());
    pods.iter().map(own).collect()
}

/// What was told.
#[derive(Debug, Default)]
struct Seen {
    known: Known,
    listing: Option<Known>,
    applied: Vec<String>,
}

impl Seen {
    fn take(&mut self, event: Event<'_>) {
        let read = |object: &[u8]| {
            let object: Value = serde_json::from_slice(object).unwrap();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let metadata = &object["metadata"];
            (text(&metadata["name"]), text(&metadata["labels"]["state"]))
        };
        match event {
            Event::Listing => self.listing = Some(Known::new()),
            Event::Item(object) => {
                let (name, state) = read(object);
                self.listing.as_mut().unwrap().insert(name, state);
            }
            Event::Listed => self.known = self.listing.take().unwrap(),
            Event::Applied(object) => {
                let (name, state) = read(object);
                assert!(self.listing.is_none());
                self.applied.push(name.clone());
                self.known.insert(name, state);
            }
            Event::Deleted(object) => {
                assert!(self.listing.is_none());
                self.known.remove(&read(object).0);
            }
        }
    }
}

/// A server that is followed.
struct View {
    fake: FakeApi,
    seen: RefCell<Seen>,
    status: Status,
}

impl View {
    async fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            if Instant::now() > deadline {
                let (seen, error) = (self.seen.borrow(), self.status.error());
                panic!("never: {what}; {:?}; {error:?}", seen.known);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn until_known(&self, pods: &[(&str, &str)]) {
        let expected = known(pods);
        self.until(&format!("{expected:?}"), |view| {
            view.seen.borrow().known == expected
        })
        .await;
    }

    async fn until_watched(&self, times: usize) {
        self.until("watches", |view| view.fake.watches() >= times)
            .await;
    }

    fn is_known(&self, pods: &[(&str, &str)]) -> bool {
        self.seen.borrow().known == known(pods)
    }

    fn errors(&self, reason: Reason) -> u64 {
        self.status.errors(reason)
    }

    /// The version that each watch asked for.
    fn versions(&self) -> Vec<String> {
        let watches = self.fake.requests().into_iter().filter(Asked::is_watch);
        watches
            .map(|asked| asked.query["resourceVersion"].clone())
            .collect()
    }
}

/// Times that a test can wait for.
fn pace() -> Pace {
    let millis = Duration::from_millis;
    Pace {
        start: Duration::ZERO,
        head: millis(300),
        quiet: millis(400),
        grace: millis(100),
        relist: Duration::from_secs(600),
        first: millis(20),
        most: millis(200),
        refused: millis(40),
        heeded: Duration::from_secs(2),
        settled: millis(300),
        herd: millis(50),
        apart: millis(10),
    }
}

fn watched() -> Watched {
    Watched {
        path: PODS.to_owned(),
        label_selector: "app=engine".to_owned(),
        field_selector: String::new(),
        timeout: Duration::from_secs(30),
        streaming_lists: false,
    }
}

/// Follows a server, prepared so, while the test goes on.
fn following(
    name: &str,
    prepare: impl FnOnce(&FakeApi, &mut Pace, &mut Watched),
    test: impl AsyncFnOnce(&View),
) {
    let (fake, folder) = (FakeApi::start(), Folder::new(name));
    let (mut pace, mut watched) = (pace(), watched());
    fake.put(&pod("a", "1"));
    prepare(&fake, &mut pace, &mut watched);
    let file = fake.kubeconfig(&folder);
    let view = View {
        fake,
        seen: RefCell::default(),
        status: Status::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let api = ApiServer::of_kubeconfig(&file).await.unwrap();
        assert_eq!(api.namespace(), "test");
        let tell = |event: Event<'_>| view.seen.borrow_mut().take(event);
        tokio::select! {
            _ = follow(&api, &watched, &pace, &view.status, tell) => {}
            () = test(&view) => {}
        }
    });
}
