//! Lists as streams of the watch.

use pilotfish::discovery::kubernetes::fault::Reason;
use serde_json::json;

use super::{following, pod};
use crate::support::apiserver::{Act, On, Streams, Then, frame, status};

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

#[test]
fn a_failure_of_the_moment_does_not_end_streams() {
    for code in [403, 429, 500, 503] {
        following(
            "streams-again",
            |fake, _, watched| {
                watched.streaming_lists = true;
                fake.streams(Streams::Served);
                fake.script(On::Watch, Act::Refuse(code, "etcdserver: timeout", None));
                fake.script(On::Watch, Act::Say(b"{\"type\":".to_vec(), Then::Reset));
            },
            async |view| {
                view.until_known(&[("a", "1")]).await;
                assert_eq!((view.fake.lists(), view.fake.watches()), (0, 3));
                assert_eq!(view.errors(Reason::Broken), 1);
            },
        );
    }
}
