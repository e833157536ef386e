//! Engines of a cluster: what is watched follows the settings, what is found is
//! put in force at once, and what was found stays while the cluster is away.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::Control;
use crate::api::exposition::cluster;
use crate::discovery::Found;
use crate::discovery::kubernetes::source;

impl Control {
    /// Watches for ever what the settings say.
    pub(super) async fn find(&self) {
        loop {
            let wanted = self.settings.borrow().kubernetes.clone();
            let watch = async {
                match &wanted {
                    Some(wanted) => {
                        let tell = |found| self.take_found(found);
                        Box::pin(source::run(wanted, &self.watching, tell)).await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.rewatch.notified() => {}
                never = watch => match never {},
            }
        }
    }

    /// The settings tell to watch something else, or nothing.
    pub(super) fn watch_others(&self) {
        if self.settings.borrow().kubernetes.is_none() {
            self.found.replace(None);
        }
        self.rewatch.notify_one();
    }

    fn take_found(&self, found: Vec<Found>) {
        let counts = |found: &[Found]| {
            let ready = found.iter().filter(|one| one.is_ready).count();
            (ready, found.len())
        };
        let now = counts(&found);
        let before = self.found.replace(Some(found));
        self.reconcile();
        let (ready, all) = now;
        if before.as_deref().map(counts) != Some(now) {
            let generation = self.published.load().generation;
            tracing::info!(
                generation,
                ready,
                closed = all - ready,
                "engines of the cluster"
            );
        }
        self.newcomers.notify_one();
        if !self.is_discovered.load(Relaxed) {
            self.look_whether_discovered(&self.specs());
        }
    }

    /// Appends the series that tell of it, where a cluster is watched.
    pub(super) fn expose_watching(&self, out: &mut String) {
        let settings = self.settings.borrow();
        let Some(kubernetes) = &settings.kubernetes else {
            return;
        };
        let streams: Vec<_> = self.watching.streams(&kubernetes.source).collect();
        let epoch = self.published.load().epoch;
        cluster::expose(
            out,
            &streams,
            self.found.borrow().as_deref(),
            (epoch, Instant::now()),
        );
    }
}
