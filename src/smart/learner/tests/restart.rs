//! What a learner knows after a restart, and which models have room.

use super::super::work::MOST_UNSAVED;
use super::*;
use crate::smart::history::MOST_MODELS;
use crate::smart::store::{self, Covered, Store};

fn of_model(id: &str, model: &str) -> Ended {
    Ended {
        model: model.into(),
        ..asked(id)
    }
}

/// Whatever is acknowledged is known after a restart, and after a fit.
#[test]
fn a_model_that_has_no_room_is_refused() {
    for folder in [None, Some(Folder::new("models"))] {
        let spec = || folder.as_ref().map(Folder::spec).unwrap_or_default();
        let mut paused = Paused::new(spec());
        for number in 0..=MOST_MODELS {
            let model = format!("m{number}");
            paused.learner.ended(of_model(&model, &model), paused.now);
            let mut answer = paused.give(&model, 1.0);
            paused.after(PUBLISHED);
            let is_taken = answer.try_recv().unwrap();
            match number {
                MOST_MODELS => assert_eq!(is_taken, Err(FeedbackError::Models)),
                _ => assert!(is_taken.is_ok(), "{is_taken:?}"),
            }
        }
        // It may be given again, but there is room no sooner.
        let again = paused.give("m64", 1.0).try_recv().unwrap();
        assert_eq!(again, Err(FeedbackError::Models));
        let Some(folder) = &folder else { continue };
        drop(paused);
        let mut paused = Paused::new(spec());
        paused.settle();
        let predictor = paused.learner.known.predictor.load_full();
        assert_eq!(predictor.models().len(), MOST_MODELS);
        paused.learner.ended(of_model("x", "m64"), paused.now);
        let again = paused.give("x", 1.0).try_recv().unwrap();
        assert_eq!(again, Err(FeedbackError::Models));
        assert_eq!(folder.kept().len(), MOST_MODELS);
    }
}

/// Puts rows behind what the predictor's file knows, which was fitted to `fitted`
/// rows, and `since_fit` rows ago.
fn behind(folder: &Folder, fitted: usize, since_fit: u64, behind: usize) {
    let mut store = Store::open(&folder.0).unwrap().store;
    let rows: Vec<Row> = (0..fitted + behind)
        .map(|at| row(&format!("r{at}"), 1.0))
        .collect();
    store.log.append(&rows[..fitted]).unwrap();
    store.log.sync().unwrap();
    let covered = Covered {
        mark: store.log.mark(),
        since_fit,
    };
    let predictor = Predictor::fit(rows[..fitted].to_vec(), &mut |_| {});
    store::save(store.folder(), &predictor, covered).unwrap();
    store.log.append(&rows[fitted..]).unwrap();
    store.log.sync().unwrap();
}

#[test]
fn what_is_behind_is_learned_by_the_thread_and_saved() {
    let folder = Folder::new("behind");
    behind(&folder, 8000, 0, MOST_UNSAVED + 100);
    let mut paused = Paused::new(folder.spec());
    let rows = |paused: &Paused| paused.learner.known.predictor.load().rows();
    assert_eq!(rows(&paused), 8000);
    assert_eq!(paused.learner.pause(), Duration::ZERO);
    paused.after(Duration::ZERO);
    assert_eq!(rows(&paused), 8000 + 2 * BATCH);
    paused.settle();
    assert_eq!(rows(&paused), 8000 + MOST_UNSAVED + 100);
    assert_eq!(paused.learner.pause(), KEPT);
    drop(paused);
    let paused = Paused::new(folder.spec());
    assert_eq!(rows(&paused), 8000 + MOST_UNSAVED + 100);
    assert_eq!(paused.learner.since_fit, MOST_UNSAVED as u64 + 100);
    assert!(paused.learner.fresh.is_empty());
}

/// Rows that the predictor holds do not tell how many came: they are no more than
/// there may be.
#[test]
fn a_fit_that_is_due_at_the_start_begins_at_once() {
    let folder = Folder::new("due");
    behind(&folder, 400, 199, 1);
    let mut paused = Paused::new(folder.spec());
    assert_eq!(paused.learner.since_fit, 200);
    assert_eq!(paused.learner.pause(), SOON);
    paused.after(Duration::ZERO);
    assert!(matches!(paused.learner.job, Some(Job::Fit { .. })));
    paused.settle();
    let counted = &paused.learner.known.counted;
    assert_eq!((counted.refits(), counted.rows()), (1, 401));
    assert_eq!(paused.learner.since_fit, 0);
}

#[test]
fn what_was_learned_is_saved_at_the_end() {
    let folder = Folder::new("end");
    behind(&folder, 50, 10, 0);
    let mut paused = Paused::new(folder.spec());
    paused.tell(&["a"]);
    drop(paused.give("a", 1.0));
    paused.learner.end();
    let paused = Paused::new(folder.spec());
    assert!(paused.learner.fresh.is_empty());
    assert_eq!(paused.learner.known.predictor.load().rows(), 51);
    assert_eq!(paused.learner.since_fit, 11);
}
