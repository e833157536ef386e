//! What a server tells when nothing is wrong, and what it may tell besides.

use std::time::Duration;

use pilotfish::discovery::kubernetes::fault::Reason;
use pilotfish::discovery::kubernetes::status::Kind;
use serde_json::json;

use super::{following, pod};
use crate::support::apiserver::{Act, FakeApi, On, Then, frame};

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
