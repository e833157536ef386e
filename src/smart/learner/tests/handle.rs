//! What others hold of the thread.

use std::sync::mpsc::SyncSender;

use super::*;

/// A handle whose thread takes nothing.
fn stuck() -> (Teaching, Receiver<Told>) {
    let learner = Learner::open(None, Instant::now()).unwrap();
    let (to, from): (SyncSender<Told>, _) = sync_channel(QUEUE);
    (Teaching::new(to, learner.known), from)
}

#[tokio::test]
async fn nobody_waits_for_room() {
    let (teaching, from) = stuck();
    for _ in 0..QUEUE {
        teaching.tell(vec![asked("a")]);
    }
    let counted = teaching.counted();
    assert_eq!(counted.dropped(), 0);
    teaching.tell(vec![asked("a"), asked("b")]);
    assert_eq!(counted.dropped(), 2);
    assert_eq!(
        teaching.feedback("a".to_owned(), 1.0).await,
        Err(FeedbackError::Busy)
    );
    drop(from);
    assert_eq!(
        teaching.feedback("a".to_owned(), 1.0).await,
        Err(FeedbackError::Busy)
    );

    let (teaching, _from) = stuck();
    let large = || Ended {
        query: Some("q".repeat(MOST_QUEUED / 2)),
        ..asked("a")
    };
    teaching.tell(vec![large()]);
    teaching.tell(vec![large()]);
    assert_eq!(teaching.counted().dropped(), 1);
    for score in [f32::NAN, f32::INFINITY, -0.1, 1.1] {
        let answer = teaching.feedback("a".to_owned(), score).await;
        assert_eq!(answer, Err(FeedbackError::Score));
    }
    let long = teaching.feedback("a".repeat(129), 1.0).await;
    assert_eq!(long, Err(FeedbackError::Unknown));
}

#[tokio::test]
async fn the_thread_ends_with_the_last_who_tells_it() {
    let folder = Folder::new("thread");
    let (teaching, thread) = Learner::start(folder.spec()).unwrap();
    let other = teaching.clone();
    teaching.tell(vec![asked("a"), asked("b")]);
    let many = (0..100).map(|_| other.feedback("a".to_owned(), 1.0));
    let mut ok = 0;
    for answer in many.collect::<Vec<_>>() {
        ok += usize::from(answer.await.is_ok());
    }
    assert_eq!(ok, 1);
    let last = other.feedback("b".to_owned(), 0.0);
    let early = other.feedback("nobody".to_owned(), 0.0);
    drop((teaching, other));
    thread.join().unwrap();
    assert_eq!(last.await, Ok(taken()));
    assert_eq!(early.await, Err(FeedbackError::Busy));
    assert_eq!(folder.kept(), [row("a", 1.0), row("b", 0.0)]);
    assert!(folder.0.join("smart/lengths.json").exists());
}
