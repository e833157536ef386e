//! After anything that may happen, the set is the server's.

use std::time::Duration;

use super::{View, following, known, pod};
use crate::support::apiserver::{Act, FakeApi, On, Streams, Then, frame};

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
                go_on(view, &mut rng).await;
            }
            view.until(&format!("{pods:?} of seed {seed}"), |view| {
                view.seen.borrow().known == pods
            })
            .await;
        },
    );
}

/// Now at once, now when the other side has done something, or asked for something:
/// watches are short, and lists come soon.
async fn go_on(view: &View, rng: &mut fastrand::Rng) {
    let (asked, polls) = (view.fake.requests().len(), rng.u8(0..30));
    if rng.u8(0..4) == 0 {
        view.until("a request", |view| view.fake.requests().len() > asked)
            .await;
    }
    for _ in 0..polls {
        tokio::task::yield_now().await;
    }
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
