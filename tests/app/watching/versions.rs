//! Versions that a server has lost, has not yet, or has again.

use std::time::Duration;

use pilotfish::discovery::kubernetes::fault::Reason;
use pilotfish::discovery::kubernetes::status::Kind;

use super::{following, pod};
use crate::support::apiserver::{Act, On, Then, frame, status};

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

/// Nobody need wait for the next list: a server that was away is asked for one.
#[test]
fn a_server_that_was_put_back_in_time_while_it_was_away() {
    following(
        "put-back",
        |_, _, _| {},
        async |view| {
            view.until_known(&[("a", "1")]).await;
            view.until_watched(1).await;
            view.fake.down();
            view.until("trouble", |view| view.errors(Reason::Unreachable) >= 1)
                .await;
            view.fake.restore(500, &[pod("b", "1")]);
            view.fake.up();
            view.until_known(&[("b", "1")]).await;
            view.until_watched(2).await;
            assert_eq!(view.versions().last().unwrap(), "500");
            view.fake.put(&pod("c", "1"));
            view.until_known(&[("b", "1"), ("c", "1")]).await;
        },
    );
}
