//! Following a Kubernetes API server through every bad day it may have.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pilotfish::discovery::kubernetes::api::ApiServer;
use pilotfish::discovery::kubernetes::fault::Reason;
use pilotfish::discovery::kubernetes::pace::Pace;
use pilotfish::discovery::kubernetes::status::{Kind, Status};
use pilotfish::discovery::kubernetes::watch::{Event, Watched, follow};
use serde_json::{Value, json};

use crate::support::apiserver::{Act, Asked, FakeApi, On, Streams, Then, frame, status};
use crate::support::collector::Grpc;
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

#[test]
fn what_happens_is_told() {
    following(
        "told",
        |_, _, _| {},
        async |view| {
            view.until_known(&[("a", "1")]).await;
            let other = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "o", "namespace": "test"}});
            view.fake.put(&other);
            view.fake.put(&pod("b", "1"));
            view.until_known(&[("a", "1"), ("b", "1")]).await;
            view.fake.put(&pod("a", "2"));
            view.until_known(&[("a", "2"), ("b", "1")]).await;
            // It leaves the selector.
            let mut left = pod("a", "3");
            left["metadata"]["labels"]["app"] = "other".into();
            view.fake.put(&left);
            view.until_known(&[("b", "1")]).await;
            view.fake.delete(&pod("b", "1"));
            view.until_known(&[]).await;
            assert_eq!((view.fake.lists(), view.fake.watches()), (1, 1));
            let status = &view.status;
            assert_eq!((status.lists(), status.watches()), (1, 1));
            let counts =
                [Kind::Added, Kind::Modified, Kind::Deleted].map(|kind| status.events(kind));
            assert_eq!(counts, [1, 1, 2]);
            assert!(status.last_contact().is_some() && status.last_listed().is_some());
            assert!(status.error().is_none());
            let asked = view.fake.requests();
            assert_eq!(asked[0].query["labelSelector"], "app=engine");
            assert_eq!(asked[1].query["allowWatchBookmarks"], "true");
            let seconds: u64 = asked[1].query["timeoutSeconds"].parse().unwrap();
            assert!((27..=33).contains(&seconds), "{seconds}");
        },
    );
}

#[test]
fn a_list_comes_page_by_page() {
    let many = |fake: &FakeApi| (0..1200).for_each(|n| fake.put(&pod(&format!("p{n}"), "1")));
    following(
        "pages",
        |fake, _, _| many(fake),
        async |view| {
            view.until("all", |view| view.seen.borrow().known.len() == 1201)
                .await;
            assert_eq!(view.fake.lists(), 3);
        },
    );
    // Its token is forgotten half-way: from the beginning.
    following(
        "token",
        |fake, _, _| {
            many(fake);
            fake.script(On::List, Act::Cut(usize::MAX, Then::End));
            fake.script(On::List, Act::Refuse(410, "Expired", None));
        },
        async |view| {
            view.until("all", |view| view.seen.borrow().known.len() == 1201)
                .await;
            assert_eq!(view.fake.lists(), 5);
            assert_eq!(view.errors(Reason::Expired), 1);
        },
    );
}

#[test]
fn a_watch_that_ends_is_followed_by_the_next_without_a_list() {
    following(
        "ends",
        |fake, _, _| {
            let added = frame("ADDED", &{
                let mut pod = pod("b", "1");
                pod["metadata"]["resourceVersion"] = "2000".into();
                pod
            });
            fake.script(On::Watch, Act::Say(added.into_bytes(), Then::End));
            let bookmark = frame(
                "BOOKMARK",
                &json!({"metadata": {"resourceVersion": "3000"}}),
            );
            fake.script(On::Watch, Act::Say(bookmark.into_bytes(), Then::End));
        },
        async |view| {
            view.until_watched(3).await;
            assert_eq!(view.versions(), ["1001", "2000", "3000"]);
            assert!(view.is_known(&[("a", "1"), ("b", "1")]));
            assert_eq!(view.fake.lists(), 1);
            assert!(view.status.error().is_none());
        },
    );
}

#[test]
fn a_forgotten_version_is_followed_by_a_list_at_once() {
    following(
        "gone",
        |fake, _, _| {
            fake.script(On::Watch, Act::Say(Vec::new(), Then::Silence));
            // As an HTTP status, too.
            fake.script(On::Watch, Act::Refuse(410, "Gone", None));
        },
        async |view| {
            view.until_watched(1).await;
            // Cut in the middle of what nobody told of.
            view.fake.put(&pod("b", "1"));
            view.fake.delete(&pod("a", "1"));
            view.fake.forget();
            view.fake.down();
            view.fake.up();
            view.until_known(&[("b", "1")]).await;
            view.until_watched(3).await;
            view.fake.forget();
            view.fake.down();
            view.fake.put(&pod("b", "2"));
            view.fake.up();
            view.until_known(&[("b", "2")]).await;
            // As the last words of a watch.
            assert!(view.status.events(Kind::Error) >= 1 || view.errors(Reason::Expired) >= 1);
        },
    );
}

#[test]
fn expired_within_an_answer_of_200() {
    following(
        "expired",
        |fake, _, _| {
            let error = frame("ERROR", &status(410, "Expired", None));
            fake.script(On::Watch, Act::Say(error.into_bytes(), Then::End));
        },
        async |view| {
            view.until("a list", |view| view.fake.lists() == 2).await;
            view.until_watched(2).await;
            let asked = view.fake.requests();
            let pause = asked[2].at - asked[1].at;
            assert!(pause < Duration::from_secs(1), "{pause:?}");
            assert_eq!(
                (
                    view.status.events(Kind::Error),
                    view.errors(Reason::Expired)
                ),
                (1, 1)
            );
            // No failure that anybody need look at.
            assert!(view.status.error().is_none());
            view.fake.put(&pod("b", "1"));
            view.until_known(&[("a", "1"), ("b", "1")]).await;
        },
    );
}

#[test]
fn half_a_line_and_a_reset_lose_nothing() {
    for then in [Then::End, Then::Reset] {
        following(
            "half",
            |fake, _, _| {
                let mut text = frame(
                    "BOOKMARK",
                    &json!({"metadata": {"resourceVersion": "1001"}}),
                );
                let half = frame("ADDED", &pod("b", "1"));
                text += &half[..half.len() / 2];
                fake.script(On::Watch, Act::Say(text.into_bytes(), then));
            },
            async |view| {
                view.until_watched(2).await;
                assert!(view.is_known(&[("a", "1")]));
                view.fake.put(&pod("b", "2"));
                view.until_known(&[("a", "1"), ("b", "2")]).await;
                assert_eq!(view.fake.lists(), 1);
                assert_eq!(view.errors(Reason::Broken), u64::from(then == Then::Reset));
            },
        );
    }
}

#[test]
fn forbidden_is_never_the_end() {
    following(
        "forbidden",
        |fake, _, _| {
            fake.always(Some((On::Any, Act::Refuse(403, "Forbidden", None))));
        },
        async |view| {
            view.until("refusals", |view| view.errors(Reason::Forbidden) == 3)
                .await;
            let error = view.status.error().unwrap();
            assert!(
                error.contains("Role that allows get, list, watch on pods in namespace test"),
                "{error}"
            );
            assert!(view.status.last_contact().is_some() && view.status.last_listed().is_none());
            view.fake.always(None);
            view.until_known(&[("a", "1")]).await;
            view.until("well", |view| view.status.error().is_none())
                .await;
            // And in the middle: what is known stays.
            view.fake
                .always(Some((On::Any, Act::Refuse(403, "Forbidden", None))));
            view.fake.down();
            view.fake.put(&pod("b", "1"));
            view.fake.up();
            view.until("refusals", |view| view.errors(Reason::Forbidden) >= 5)
                .await;
            assert!(view.is_known(&[("a", "1")]));
            view.fake.always(None);
            view.until_known(&[("a", "1"), ("b", "1")]).await;
            view.until("well", |view| view.status.error().is_none())
                .await;
        },
    );
}

#[test]
fn credentials_are_read_anew() {
    following(
        "unauthorized",
        |fake, _, _| {
            fake.script(On::List, Act::Refuse(401, "Unauthorized", None));
        },
        async |view| {
            view.until_known(&[("a", "1")]).await;
            assert_eq!(view.errors(Reason::Credentials), 1);
        },
    );
}

#[test]
fn a_black_hole_is_noticed() {
    following(
        "hole",
        |fake, _, watched| {
            watched.timeout = Duration::from_millis(200);
            fake.script(On::List, Act::Hang);
            fake.script(On::List, Act::Cut(30, Then::Silence));
            fake.script(On::Watch, Act::Hang);
            fake.script(On::Watch, Act::Say(Vec::new(), Then::Silence));
            fake.script(On::Watch, Act::Say(b"{\"type\":".to_vec(), Then::Silence));
        },
        async |view| {
            view.until_watched(4).await;
            // The list's head, the rest of a list, the watch's head; a watch is only cut.
            assert!(view.errors(Reason::Late) >= 3);
            view.fake.put(&pod("b", "1"));
            view.until_known(&[("a", "1"), ("b", "1")]).await;
            assert_eq!(view.fake.lists(), 3);
        },
    );
}

#[test]
fn a_busy_server_is_left_alone_as_it_asks() {
    for (code, on) in [
        (429, On::List),
        (503, On::List),
        (429, On::Watch),
        (503, On::Watch),
    ] {
        following(
            "busy",
            |fake, _, _| {
                fake.script(on, Act::Refuse(code, "TooManyRequests", Some(1)));
            },
            async |view| {
                view.until_watched(if on == On::Watch { 2 } else { 1 })
                    .await;
                let asked = view.fake.requests();
                let of = |watch: bool| asked.iter().filter(move |one| one.is_watch() == watch);
                let times: Vec<Instant> = of(on == On::Watch).map(|one| one.at).collect();
                assert!(times[1] - times[0] >= Duration::from_secs(1));
                // A watch goes on where it was.
                assert_eq!(of(false).count(), if on == On::List { 2 } else { 1 });
            },
        );
    }
}

#[test]
fn a_version_that_is_too_new_for_the_server() {
    following(
        "newer",
        |fake, _, _| {
            fake.script(On::Watch, Act::Refuse(504, "Timeout", None));
        },
        async |view| {
            view.until("a list", |view| view.fake.lists() == 2).await;
            view.fake.put(&pod("b", "1"));
            view.until_known(&[("a", "1"), ("b", "1")]).await;
            assert!(
                view.fake
                    .requests()
                    .iter()
                    .all(|one| { one.is_watch() || !one.query.contains_key("resourceVersion") })
            );
            assert_eq!(view.errors(Reason::Server), 1);
        },
    );
}

#[test]
fn a_silent_watch_is_found_out_by_the_next_list() {
    following(
        "silent",
        |fake, pace, _| {
            pace.relist = Duration::from_millis(300);
            fake.always(Some((On::Watch, Act::Say(Vec::new(), Then::Silence))));
        },
        async |view| {
            view.until_known(&[("a", "1")]).await;
            view.until_watched(1).await;
            view.fake.put(&pod("b", "1"));
            view.until_known(&[("a", "1"), ("b", "1")]).await;
            assert!(view.status.lists() >= 2);
            assert!(view.seen.borrow().applied.is_empty());
        },
    );
}

#[test]
fn a_server_with_older_versions_is_found_out() {
    following(
        "restored",
        |_, pace, _| pace.relist = Duration::from_secs(1),
        async |view| {
            view.until_known(&[("a", "1")]).await;
            view.until_watched(1).await;
            view.fake.down();
            view.fake.restore(500, &[pod("b", "1")]);
            view.fake.up();
            // The watch is served, and says nothing: its version is yet to come.
            view.fake.put(&pod("c", "1"));
            view.until_known(&[("b", "1"), ("c", "1")]).await;
            view.fake.put(&pod("d", "1"));
            view.until_known(&[("b", "1"), ("c", "1"), ("d", "1")])
                .await;
        },
    );
}

#[test]
fn events_twice_and_in_any_order() {
    following(
        "order",
        |fake, pace, _| {
            pace.relist = Duration::from_millis(500);
            let event = |kind: &str, name: &str, state: &str, version: &str| {
                let mut pod = pod(name, state);
                pod["metadata"]["resourceVersion"] = version.into();
                frame(kind, &pod)
            };
            let text = [
                event("ADDED", "b", "1", "1010"),
                event("ADDED", "b", "1", "1010"),
                event("MODIFIED", "a", "3", "1013"),
                event("MODIFIED", "a", "2", "1012"),
                event("DELETED", "x", "1", "1011"),
                event("DELETED", "b", "1", "1014"),
                event("NEWS", "y", "1", "1015"),
                event("ADDED", "b", "1", "1009"),
            ];
            fake.script(
                On::Watch,
                Act::Say(text.concat().into_bytes(), Then::Silence),
            );
        },
        async |view| {
            // As they came.
            view.until("events", |view| view.status.events(Kind::Added) == 3)
                .await;
            assert_eq!(view.seen.borrow().applied, ["b", "b", "a", "a", "b"]);
            // As it is.
            view.until_known(&[("a", "1")]).await;
        },
    );
}

#[test]
fn a_list_that_breaks_off_changes_nothing() {
    for then in [Then::End, Then::Reset] {
        following(
            "broken",
            |fake, _, _| {
                fake.put(&pod("b", "1"));
            },
            async |view| {
                view.until_known(&[("a", "1"), ("b", "1")]).await;
                for bytes in [1, 60, 300] {
                    view.fake.script(On::List, Act::Cut(bytes, then));
                }
                let watches = view.fake.watches();
                view.fake.delete(&pod("b", "1"));
                view.until_known(&[("a", "1")]).await;
                view.fake.forget();
                view.fake.down();
                view.fake.put(&pod("c", "1"));
                view.fake.up();
                view.until("broken lists", |view| view.errors(Reason::Broken) >= 3)
                    .await;
                view.until_known(&[("a", "1"), ("c", "1")]).await;
                view.until_watched(watches + 1).await;
            },
        );
    }
}

#[test]
fn what_no_api_server_says() {
    let json = "application/json";
    let pages: [(&'static str, &[u8]); 6] = [
        ("text/html", b"<html>Sign in</html>"),
        (json, b"<html>Sign in</html>"),
        (json, b"\x00\xff\xfe\x01"),
        (json, b"[]"),
        (
            json,
            br#"{"kind":"Status","metadata":{},"status":"Failure"}"#,
        ),
        ("application/vnd.kubernetes.protobuf", b"k8s\x00"),
    ];
    following(
        "garbage",
        |fake, _, _| {
            for (kind, body) in pages {
                fake.script(On::List, Act::Page(kind, body.to_vec()));
            }
            for bytes in [
                &b"<html>\n"[..],
                b"\xff\xfe\n",
                b"{}\n",
                b"{\"type\":7,\"object\":{}}\n",
            ] {
                fake.script(On::Watch, Act::Say(bytes.to_vec(), Then::Silence));
            }
            fake.script(On::Watch, Act::Page("text/html", b"<html>".to_vec()));
        },
        async |view| {
            view.until_watched(6).await;
            assert_eq!(view.errors(Reason::Garbled), 11);
            view.fake.put(&pod("b", "1"));
            view.until_known(&[("a", "1"), ("b", "1")]).await;
            view.until("well", |view| view.status.error().is_none())
                .await;
        },
    );
}

#[test]
fn what_is_huge_is_left_out() {
    following(
        "huge",
        |fake, _, _| {
            let mut huge = pod("huge", "1");
            huge["x"] = "x".repeat(3 << 20).into();
            fake.put(&huge);
            let mut text = frame("ADDED", &huge);
            text += &frame("ADDED", &pod("b", "1"));
            fake.script(On::Watch, Act::Say(text.into_bytes(), Then::Live));
        },
        async |view| {
            view.until_known(&[("a", "1"), ("b", "1")]).await;
            assert_eq!(view.errors(Reason::TooLarge), 2);
            assert_eq!((view.fake.lists(), view.fake.watches()), (1, 1));
        },
    );
}

#[test]
fn a_server_that_is_away_and_comes_back() {
    following(
        "away",
        |_, _, _| {},
        async |view| {
            view.until_known(&[("a", "1")]).await;
            view.until("a watch", |view| view.status.watches() == 1)
                .await;
            let contact = view.status.last_contact();
            view.fake.down();
            view.until("trouble", |view| view.errors(Reason::Unreachable) >= 2)
                .await;
            assert!(view.status.error().unwrap().contains("cannot be reached"));
            assert!(view.is_known(&[("a", "1")]));
            assert_eq!(view.status.last_contact(), contact);
            view.fake.put(&pod("b", "1"));
            view.fake.delete(&pod("a", "1"));
            view.fake.up();
            view.until_known(&[("b", "1")]).await;
            view.until("well", |view| view.status.error().is_none())
                .await;
            assert!(view.status.last_contact() > contact);
            // It may have been put back in time meanwhile.
            assert_eq!(view.fake.lists(), 2);
        },
    );
}

#[test]
fn nothing_is_hammered() {
    let error = frame("ERROR", &status(410, "Expired", None)).into_bytes();
    let bookmark = frame(
        "BOOKMARK",
        &json!({"metadata": {"resourceVersion": "1001"}}),
    )
    .into_bytes();
    // What always happens; lists and watches within a second and a half.
    let cases = [
        ("refused", On::Any, Act::Refuse(500, "x", None), 14),
        ("forbidden", On::Any, Act::Refuse(403, "x", None), 14),
        ("garbage", On::List, Act::Page("text/html", vec![]), 14),
        ("half", On::List, Act::Cut(10, Then::End), 14),
        ("reset", On::List, Act::Cut(10, Then::Reset), 14),
        (
            "watches refused",
            On::Watch,
            Act::Refuse(500, "x", None),
            28,
        ),
        (
            "watches garbled",
            On::Watch,
            Act::Say(b"x\n".to_vec(), Then::End),
            28,
        ),
        ("watches expired", On::Watch, Act::Say(error, Then::End), 28),
        (
            "watches closed",
            On::Watch,
            Act::Say(Vec::new(), Then::End),
            16,
        ),
        (
            "watches reset",
            On::Watch,
            Act::Say(Vec::new(), Then::Reset),
            16,
        ),
        // Something came each time: only the bound holds.
        ("bookmarks", On::Watch, Act::Say(bookmark, Then::End), 33),
    ];
    std::thread::scope(|scope| {
        for (name, on, act, most) in cases {
            scope.spawn(move || hammered(name, on, act, most));
        }
    });
}

fn hammered(name: &str, on: On, act: Act, most: usize) {
    following(
        &format!("rate-{name}"),
        |fake, pace, _| {
            pace.apart = Duration::from_millis(50);
            fake.always(Some((on, act)));
        },
        async |view| {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let asked = view.fake.requests().len();
            assert!(asked <= most && asked > 3, "{name}: {asked}");
        },
    );
}

#[test]
fn lists_as_streams() {
    following(
        "streams",
        |fake, _, watched| {
            watched.streaming_lists = true;
            fake.put(&pod("b", "1"));
            fake.streams(Streams::Served);
        },
        async |view| {
            view.until_known(&[("a", "1"), ("b", "1")]).await;
            // The list is a watch.
            view.fake.put(&pod("c", "1"));
            view.until_known(&[("a", "1"), ("b", "1"), ("c", "1")])
                .await;
            assert_eq!((view.fake.lists(), view.fake.watches()), (0, 1));
            view.fake.forget();
            view.fake.down();
            view.fake.delete(&pod("a", "1"));
            view.fake.up();
            view.until_known(&[("b", "1"), ("c", "1")]).await;
            assert_eq!((view.fake.lists(), view.status.lists()), (0, 2));
        },
    );
}

#[test]
fn changes_while_a_list_is_streamed() {
    following(
        "streamed",
        |fake, _, watched| {
            watched.streaming_lists = true;
            let end = json!({"metadata": {
                "resourceVersion": "1050", "annotations": {"k8s.io/initial-events-end": "true"},
            }});
            let text = [
                frame("ADDED", &pod("a", "1")),
                frame("ADDED", &pod("b", "1")),
                frame("DELETED", &pod("a", "1")),
                frame("MODIFIED", &pod("b", "2")),
                frame("ADDED", &pod("c", "1")),
                frame("BOOKMARK", &end),
                frame("ADDED", &pod("d", "1")),
            ];
            fake.script(On::Watch, Act::Say(text.concat().into_bytes(), Then::End));
        },
        async |view| {
            view.until_known(&[("b", "2"), ("c", "1"), ("d", "1")])
                .await;
            view.until_watched(2).await;
            let asked = view.fake.requests();
            assert_eq!(asked[1].query["resourceVersion"], "1050");
        },
    );
}

#[test]
fn a_server_that_does_not_stream_lists() {
    let error = status(500, "RequestWatchProgress is disabled", None);
    let cases = [
        (Streams::Refused, None),
        (Streams::Unknown, None),
        (
            Streams::Served,
            Some(Act::Say(frame("ERROR", &error).into_bytes(), Then::End)),
        ),
        (Streams::Served, Some(Act::Refuse(400, "BadRequest", None))),
    ];
    for (streams, act) in cases {
        following(
            "no-streams",
            |fake, _, watched| {
                watched.streaming_lists = true;
                fake.streams(streams);
                if let Some(act) = act {
                    fake.script(On::Watch, act);
                }
            },
            async |view| {
                view.until_watched(2).await;
                view.until_known(&[("a", "1")]).await;
                view.fake.forget();
                view.fake.down();
                view.fake.put(&pod("b", "1"));
                view.fake.up();
                view.until_known(&[("a", "1"), ("b", "1")]).await;
                // For good.
                let asked = view.fake.requests();
                let streamed = asked
                    .iter()
                    .filter(|one| one.query.contains_key("sendInitialEvents"));
                assert_eq!((streamed.count(), view.fake.lists()), (1, 2));
            },
        );
    }
}

/// After anything that may happen, the set is the server's.
#[test]
fn any_bad_day() {
    std::thread::scope(|scope| {
        for seed in 0..8 {
            scope.spawn(move || bad_days(seed));
        }
    });
}

fn bad_days(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    following(
        &format!("days-{seed}"),
        |_, pace, watched| {
            pace.relist = Duration::from_millis(400);
            watched.timeout = Duration::from_millis(200);
            watched.streaming_lists = seed % 2 == 1;
        },
        async |view| {
            let mut pods = known(&[("a", "1")]);
            view.fake.streams(Streams::Served);
            for step in 0..60 {
                bad_thing(&view.fake, &mut rng);
                let name = format!("p{}", rng.u8(0..8));
                if pods.contains_key(&name) && rng.bool() {
                    view.fake.delete(&pod(&name, ""));
                    pods.remove(&name);
                } else {
                    view.fake.put(&pod(&name, &step.to_string()));
                    pods.insert(name, step.to_string());
                }
                tokio::time::sleep(Duration::from_millis(rng.u64(0..20))).await;
            }
            view.until(&format!("{pods:?} of seed {seed}"), |view| {
                view.seen.borrow().known == pods
            })
            .await;
        },
    );
}

fn bad_thing(fake: &FakeApi, rng: &mut fastrand::Rng) {
    let on = [On::List, On::Watch, On::Any][rng.usize(0..3)];
    let then = [Then::End, Then::Reset, Then::Silence][rng.usize(0..3)];
    match rng.u8(0..24) {
        0 => fake.script(on, Act::Refuse(500, "x", None)),
        1 => fake.script(on, Act::Refuse(403, "x", None)),
        2 => fake.script(on, Act::Refuse(410, "Expired", None)),
        3 => fake.script(on, Act::Page("text/html", b"<html>".to_vec())),
        4 => fake.script(On::List, Act::Cut(rng.usize(0..100), then)),
        5 => fake.script(
            On::Watch,
            Act::Say(b"{\"type\":\"ADDED\",\"obj".to_vec(), then),
        ),
        6 => fake.script(On::Watch, Act::Say(b"x\n".to_vec(), then)),
        7 => {
            fake.down();
            fake.up();
        }
        8 => fake.forget(),
        9 => fake.bookmark(),
        10 => fake.script(
            On::Watch,
            Act::Say(frame("DELETED", &pod("p1", "")).into_bytes(), then),
        ),
        _ => {}
    }
}

#[test]
fn where_there_is_no_cluster() {
    let folder = Folder::new("nowhere");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let file = folder.path("kubeconfig");
    let located = || runtime.block_on(ApiServer::of_kubeconfig(&file));
    assert!(located().unwrap_err().to_string().contains("kubeconfig"));
    for (text, part) in [
        ("", "kubeconfig"),
        ("{\"current-context\": \"x\"}", "x"),
        (": not yaml", "kubeconfig"),
        ("users: [{user: {token: \"secret\"}]\n", "kubeconfig"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = located().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    // A token that cannot be read; a proxy.
    for (part, cluster, user) in [
        (
            "/nowhere/token",
            json!({}),
            json!({"tokenFile": "/nowhere/token"}),
        ),
        (
            "proxy-url",
            json!({"proxy-url": "http://proxy:1"}),
            json!({}),
        ),
    ] {
        std::fs::write(&file, config("http://127.0.0.1:1", cluster, &user)).unwrap();
        let error = located().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

fn config(server: &str, mut cluster: Value, user: &Value) -> String {
    cluster["server"] = server.into();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    });
    config.to_string()
}

/// A server that speaks TLS: known by its certificate authority, or not trusted.
#[test]
fn who_answers_has_to_be_known() {
    let server = Grpc::start_secure();
    let folder = Folder::new("tls");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/collector.pem");
    let asked = |cluster: Value| {
        let url = format!("https://{}", server.address);
        let file = folder.path("kubeconfig");
        std::fs::write(&file, config(&url, cluster, &json!({}))).unwrap();
        runtime.block_on(async {
            let api = ApiServer::of_kubeconfig(&file).await.unwrap();
            api.get(PODS, Duration::from_secs(5)).await.unwrap_err()
        })
    };
    assert_eq!(asked(json!({})).reason(), Reason::Tls);
    // It is, and speaks no HTTP/1.
    let trusted = asked(json!({"certificate-authority": certificate}));
    assert_ne!(trusted.reason(), Reason::Tls, "{trusted}");
}
