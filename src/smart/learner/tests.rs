mod handle;
mod restart;

use std::fs;

use tokio::sync::oneshot;

use super::work::REFIT_ROWS;
use super::*;
use crate::smart::history::Output;
use crate::smart::predict::Prediction;

/// A state folder of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("pilotfish-learner-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn spec(&self) -> LearnerSpec {
        LearnerSpec {
            folder: Some(self.0.clone()),
        }
    }

    fn history(&self) -> PathBuf {
        self.0.join("smart/history.jsonl")
    }

    fn kept(&self) -> Vec<Row> {
        let bytes = fs::read(self.history()).unwrap();
        super::super::history::read(&*bytes).unwrap().rows
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn asked(id: &str) -> Ended {
    Ended {
        request_id: id.to_owned(),
        query: Some(format!("what is {id}?")),
        model: "m".into(),
        input_tokens: 5,
        output_tokens: Some(40),
        predicted: Some(Prediction {
            quality: 0.75,
            spread: 0.1,
            tokens: 30.0,
            neighbours: 3,
            lengths: 3,
        }),
    }
}

fn row(id: &str, score: f32) -> Row {
    Row {
        query: format!("what is {id}?"),
        input_tokens: Some(5),
        outputs: vec![Output {
            model: "m".into(),
            score: Some(score),
            tokens: Some(40),
        }],
        split: None,
    }
}

type Answer = oneshot::Receiver<Result<Feedback, FeedbackError>>;

/// A learner whose time is ours.
struct Paused {
    learner: Learner,
    now: Instant,
}

impl Paused {
    fn new(spec: LearnerSpec) -> Self {
        let now = Instant::now();
        let learner = Learner::open(spec.folder, now).unwrap();
        Self { learner, now }
    }

    fn tell(&mut self, ids: &[&str]) {
        let list: Vec<Ended> = ids.iter().map(|id| asked(id)).collect();
        let held = list.iter().map(Ended::held).sum();
        self.learner.known.queued.fetch_add(held, Relaxed);
        self.learner.take(Told::Ended(list), self.now);
    }

    fn give(&mut self, id: &str, score: f32) -> Answer {
        let (answer, answered) = oneshot::channel();
        let request_id = id.to_owned();
        let told = Told::Feedback(Score {
            request_id,
            score,
            answer,
        });
        self.learner.take(told, self.now);
        answered
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        self.learner.tick(self.now);
    }

    /// Until nothing is done beside it.
    fn settle(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.learner.job.is_some()
            || self.learner.is_unsaved
            || !self.learner.fresh.is_empty()
        {
            assert!(Instant::now() < until);
            // Spinning would keep the others from their work.
            std::thread::park_timeout(Duration::from_millis(1));
            self.after(PUBLISHED);
        }
    }
}

fn taken() -> Feedback {
    Feedback {
        model: "m".into(),
        predicted: Some(0.75),
        durable: true,
    }
}

#[test]
fn feedback_is_kept_before_it_is_acknowledged() {
    let folder = Folder::new("kept");
    let mut paused = Paused::new(folder.spec());
    paused.tell(&["a", "b", "c"]);
    let mut first = paused.give("a", 1.0);
    let mut second = paused.give("b", 0.5);
    let mut again = paused.give("a", 0.0);
    assert!(first.try_recv().is_err());
    assert_eq!(again.try_recv().unwrap(), Err(FeedbackError::Again));
    paused.after(Duration::ZERO);
    assert_eq!(first.try_recv().unwrap(), Ok(taken()));
    assert_eq!(second.try_recv().unwrap(), Ok(taken()));
    assert_eq!(folder.kept(), [row("a", 1.0), row("b", 0.5)]);
    // The predictor has them once a second, not each by itself.
    let known = Arc::clone(&paused.learner.known);
    assert_eq!(known.predictor.load().rows(), 0);
    paused.after(PUBLISHED);
    assert_eq!(known.predictor.load().rows(), 2);
    let counted = &known.counted;
    assert_eq!(counted.rows(), 2);
    assert_eq!(counted.feedback(), 2);
    assert_eq!(known.queued.load(Relaxed), 0);
    let gap = Gap {
        model: "m".into(),
        count: 2,
        predicted: 1.5,
        realised: 1.5,
    };
    assert_eq!(*counted.gaps(), [gap]);
    assert_eq!(known.lengths.load().of("m", 5), Some(40.0));
    drop(paused);

    let paused = Paused::new(folder.spec());
    assert_eq!(paused.learner.known.counted.rows(), 0);
    assert!(paused.learner.job.is_some(), "it is made again");
}

#[test]
fn feedback_may_come_before_its_request_is_told_of() {
    let mut paused = Paused::new(LearnerSpec::default());
    let mut early = paused.give("a", 1.0);
    let mut twice = paused.give("a", 1.0);
    let mut never = paused.give("b", 1.0);
    paused.after(EARLY / 2);
    paused.tell(&["x", "a"]);
    paused.after(EARLY / 2);
    let expected = Feedback {
        durable: false,
        ..taken()
    };
    assert_eq!(early.try_recv().unwrap(), Ok(expected));
    assert_eq!(twice.try_recv().unwrap(), Err(FeedbackError::Again));
    assert_eq!(never.try_recv().unwrap(), Err(FeedbackError::Unknown));
    let mut answers: Vec<Answer> = (0..=MOST_EARLY)
        .map(|at| paused.give(&format!("e{at}"), 1.0))
        .collect();
    let busy = answers.pop().unwrap().try_recv().unwrap();
    assert_eq!(busy, Err(FeedbackError::Busy));
    assert!(answers.pop().unwrap().try_recv().is_err());
}

#[test]
fn what_cannot_be_kept_may_be_given_again() {
    let folder = Folder::new("fails");
    let mut paused = Paused::new(folder.spec());
    paused.tell(&["a"]);
    let History::Disk(store) = &mut paused.learner.history else {
        unreachable!()
    };
    let file = store.log.break_for_test();
    let mut failed = paused.give("a", 1.0);
    paused.after(PUBLISHED);
    let answer = failed.try_recv().unwrap();
    assert!(matches!(answer, Err(FeedbackError::Disk(_))), "{answer:?}");
    let History::Disk(store) = &mut paused.learner.history else {
        unreachable!()
    };
    store.log.mend_for_test(file);
    let mut kept = paused.give("a", 0.0);
    paused.after(PUBLISHED);
    assert_eq!(kept.try_recv().unwrap(), Ok(taken()));
    assert_eq!(folder.kept(), [row("a", 0.0)]);
    let counted = &paused.learner.known.counted;
    assert_eq!(counted.feedback_failed(), 1);
    assert_eq!(counted.rows(), 1);
}

#[test]
fn many_new_rows_are_fitted_and_saved() {
    for folder in [None, Some(Folder::new("refit"))] {
        let spec = folder.as_ref().map(Folder::spec).unwrap_or_default();
        let mut paused = Paused::new(spec);
        let fill = |paused: &mut Paused, from: usize, count: usize| {
            for number in from..from + count {
                let id = format!("r{number}");
                paused.tell(&[&id]);
                drop(paused.give(&id, 1.0));
            }
            paused.after(PUBLISHED);
        };
        let fits = |paused: &Paused| paused.learner.known.counted.refits();
        fill(&mut paused, 0, REFIT_ROWS - 1);
        paused.settle();
        assert_eq!(fits(&paused), 0);
        fill(&mut paused, REFIT_ROWS - 1, 1);
        // Rows that come while it works are not lost.
        fill(&mut paused, REFIT_ROWS, 50);
        paused.settle();
        assert_eq!(fits(&paused), 1);
        let predictor = paused.learner.known.predictor.load_full();
        assert_eq!((predictor.fitted_rows(), predictor.rows()), (200, 250));
        fill(&mut paused, 250, 150);
        paused.settle();
        assert_eq!(fits(&paused), 2);
        fill(&mut paused, 400, 199);
        paused.settle();
        assert_eq!(fits(&paused), 2);
        let Some(folder) = folder else { continue };
        drop(paused);
        let mut paused = Paused::new(folder.spec());
        paused.after(PUBLISHED);
        let predictor = paused.learner.known.predictor.load_full();
        assert_eq!((predictor.fitted_rows(), predictor.rows()), (400, 599));
        assert_eq!(folder.kept().len(), 599);
    }
}

/// A predictor's file of a history that was written anew is written anew too.
#[test]
fn a_history_that_was_shortened_needs_no_rebuild() {
    let folder = Folder::new("shortened");
    let mut paused = Paused::new(folder.spec());
    let History::Disk(store) = &mut paused.learner.history else {
        unreachable!()
    };
    store.log.limit_for_test(10);
    for number in 0..21 {
        let id = format!("r{number}");
        paused.tell(&[&id]);
        drop(paused.give(&id, 1.0));
    }
    paused.after(PUBLISHED);
    paused.settle();
    let expected: Vec<Row> = (11..21).map(|at| row(&format!("r{at}"), 1.0)).collect();
    assert_eq!(folder.kept(), expected);
    drop(paused);
    let paused = Paused::new(folder.spec());
    assert!(paused.learner.job.is_none());
    assert_eq!(paused.learner.known.predictor.load().rows(), 21);
}

#[test]
fn a_predictor_that_is_not_sound_is_made_again_beside() {
    let folder = Folder::new("rebuilt");
    let mut paused = Paused::new(folder.spec());
    paused.tell(&["a", "b"]);
    drop((paused.give("a", 1.0), paused.give("b", 1.0)));
    paused.after(PUBLISHED);
    drop(paused);
    fs::write(folder.0.join("smart/predictor.bin"), "garbage").unwrap();
    let mut paused = Paused::new(folder.spec());
    paused.tell(&["c"]);
    let mut answer = paused.give("c", 1.0);
    paused.after(PUBLISHED);
    assert!(answer.try_recv().unwrap().is_ok());
    paused.settle();
    let predictor = paused.learner.known.predictor.load_full();
    assert_eq!((predictor.fitted_rows(), predictor.rows()), (2, 3));
    drop(paused);
    let paused = Paused::new(folder.spec());
    assert!(paused.learner.job.is_none());
    assert_eq!(paused.learner.known.predictor.load().rows(), 3);
}

#[test]
fn lengths_are_kept_every_minute_and_at_the_end() {
    let folder = Folder::new("lengths");
    let file = folder.0.join("smart/lengths.json");
    let mut paused = Paused::new(folder.spec());
    paused.tell(&["a"]);
    paused.after(PUBLISHED);
    assert!(!file.exists());
    paused.after(KEPT);
    assert!(file.exists());
    fs::remove_file(&file).unwrap();
    // Nothing is new.
    paused.after(KEPT);
    assert!(!file.exists());
    paused.tell(&["b"]);
    paused.learner.end();
    let paused = Paused::new(folder.spec());
    let lengths = paused.learner.known.lengths.load_full();
    assert_eq!(lengths.of("m", 5), Some(40.0));
    drop(paused);
    fs::write(&file, "{").unwrap();
    let paused = Paused::new(folder.spec());
    assert_eq!(paused.learner.known.lengths.load().of("m", 5), None);
}

#[test]
fn queries_are_cut_and_names_are_checked() {
    let mut paused = Paused::new(LearnerSpec::default());
    let long = Ended {
        query: Some("é".repeat(5000)),
        ..asked("a")
    };
    let bad = Ended {
        model: "a\nb".into(),
        ..asked("b")
    };
    let silent = Ended {
        query: None,
        ..asked("c")
    };
    for ended in [long, bad, silent] {
        paused.learner.ended(ended, paused.now);
    }
    drop((paused.give("a", 1.0), paused.give("c", 1.0)));
    paused.after(Duration::ZERO);
    let queries: Vec<usize> = paused
        .learner
        .fresh
        .iter()
        .map(|row| row.query.len())
        .collect();
    assert_eq!(queries, [2048, 0]);
    assert_eq!(paused.learner.known.counted.dropped(), 1);
}
