//! Whatever a server does, it is not hammered.

use std::time::Duration;

use serde_json::json;

use super::following;
use crate::support::apiserver::{Act, On, Then, frame, status};

#[test]
fn nothing_is_hammered() {
    let error = frame("ERROR", &status(410, "Expired", None)).into_bytes();
    let bookmark = frame(
        "BOOKMARK",
        &json!({"metadata": {"resourceVersion": "1001"}}),
    )
    .into_bytes();
    // What always happens, and the least time between the first such request and
    // the eighth: pauses of 20 ms (after refusals 40), doubled up to 200 ms, less
    // what is taken off at random. A slow machine only takes longer.
    let refused = [28, 56, 112, 140, 140, 140, 140];
    let failed = [14, 28, 56, 112, 140, 140, 140];
    let expired = [0, 28, 56, 112, 140, 140, 140];
    let (page, cut) = (
        Act::Page("text/html", vec![]),
        Act::Say(Vec::new(), Then::End),
    );
    let cases = [
        ("refused", On::List, Act::Refuse(500, "x", None), failed),
        ("forbidden", On::List, Act::Refuse(403, "x", None), refused),
        ("garbage", On::List, page, failed),
        ("half", On::List, Act::Cut(10, Then::End), failed),
        ("reset", On::List, Act::Cut(10, Then::Reset), failed),
        (
            "watches refused",
            On::Watch,
            Act::Refuse(500, "x", None),
            failed,
        ),
        (
            "watches garbled",
            On::Watch,
            Act::Say(b"x\n".to_vec(), Then::End),
            failed,
        ),
        (
            "watches expired",
            On::Watch,
            Act::Say(error, Then::End),
            expired,
        ),
        ("watches closed", On::Watch, cut, failed),
        (
            "watches reset",
            On::Watch,
            Act::Say(Vec::new(), Then::Reset),
            failed,
        ),
        // Something came each time: only the bound holds, from one beginning to the
        // next, of which a server sees the arrival.
        (
            "bookmarks",
            On::Watch,
            Act::Say(bookmark, Then::End),
            [35; 7],
        ),
    ];
    std::thread::scope(|scope| {
        for (name, on, act, pauses) in cases {
            scope.spawn(move || hammered(name, on, act, pauses));
        }
    });
}

fn hammered(name: &str, on: On, act: Act, pauses: [u64; 7]) {
    following(
        &format!("rate-{name}"),
        |fake, pace, _| {
            pace.apart = Duration::from_millis(50);
            fake.always(Some((on, act)));
        },
        async |view| {
            let times = || {
                let asked = view.fake.requests().into_iter();
                let such = asked.filter(|one| one.is_watch() == (on == On::Watch));
                such.map(|one| one.at).collect::<Vec<_>>()
            };
            view.until("requests", |_| times().len() > pauses.len())
                .await;
            let times = times();
            let took = times[pauses.len()] - times[0];
            let least = Duration::from_millis(pauses.iter().sum());
            assert!(took >= least, "{name}: {took:?} of {least:?}");
        },
    );
}
