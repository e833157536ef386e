//! Servers that refuse, break off, say nothing, or are away.

use std::time::{Duration, Instant};

use pilotfish::discovery::kubernetes::fault::Reason;
use serde_json::json;

use super::{following, pod};
use crate::support::apiserver::{Act, On, Then, frame};

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
                error.contains("Role that allows list and watch on pods in namespace test"),
                "{error}"
            );
            // It answers, and tells nothing.
            assert!(view.status.last_contact().is_none() && view.status.last_listed().is_none());
            view.fake.always(None);
            view.until_known(&[("a", "1")]).await;
            view.until("well", |view| view.status.error().is_none())
                .await;
            assert!(view.status.last_contact().is_some());
            // And in the middle: what is known stays.
            view.fake
                .always(Some((On::Any, Act::Refuse(403, "Forbidden", None))));
            view.fake.down();
            view.fake.put(&pod("b", "1"));
            view.fake.up();
            view.until("a refusal", |view| view.errors(Reason::Forbidden) >= 4)
                .await;
            let contact = view.status.last_contact();
            view.until("refusals", |view| view.errors(Reason::Forbidden) >= 5)
                .await;
            assert!(view.is_known(&[("a", "1")]));
            assert_eq!(view.status.last_contact(), contact);
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
