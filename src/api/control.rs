//! The control thread: whatever costs in proportion to the fleet.

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{mpsc, oneshot};

use super::exposition;
use super::models::ModelCards;
use crate::fleet::Snapshot;
use crate::metrics::ModelMetrics;
use crate::upstream::Pool;

/// Questions that may wait; one more is told to come again.
pub const QUEUE: usize = 64;
/// How often the exporter's buffers are drained.
const UPKEEP: Duration = Duration::from_secs(5);

/// A page to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// `/metrics`.
    Metrics,
    /// `/engines`.
    Engines,
}

/// A question, and where its answer goes.
#[derive(Debug)]
pub struct Ask {
    /// The page to make.
    pub query: Query,
    /// Where it goes.
    pub reply: oneshot::Sender<Bytes>,
}

/// What the control thread works on.
pub struct Control {
    /// The newest snapshot.
    pub published: Arc<ArcSwap<Snapshot>>,
    /// The exporter.
    pub exporter: PrometheusHandle,
    /// Every model's own histograms.
    pub models: Arc<Mutex<Vec<Arc<ModelMetrics>>>>,
    /// The list behind `/v1/models`.
    pub cards: Arc<ModelCards>,
    /// Connections of its own.
    pub pool: Rc<Pool>,
}

impl Control {
    /// Works until every worker is gone.
    pub async fn run(self, mut asked: mpsc::Receiver<Ask>) {
        let serve = async {
            while let Some(ask) = asked.recv().await {
                let page = match ask.query {
                    Query::Metrics => self.metrics(),
                    Query::Engines => self.engines(),
                };
                // Whoever asked may be gone.
                let _ = ask.reply.send(page);
            }
        };
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                self.exporter.run_upkeep();
            }
        };
        tokio::select! {
            () = serve => {}
            () = upkeep => {}
            () = self.cards.refresh(&self.published, &self.pool) => {}
        }
    }

    fn metrics(&self) -> Bytes {
        let mut text = self.exporter.render();
        let snapshot = self.published.load();
        exposition::engines(&mut text, &snapshot);
        #[cfg(feature = "count-allocations")]
        exposition::allocations(&mut text);
        if let Ok(models) = self.models.lock() {
            exposition::inter_token(&mut text, &models);
        }
        Bytes::from(text)
    }

    fn engines(&self) -> Bytes {
        let snapshot = self.published.load();
        let engines = snapshot.all.candidates.engines().iter().map(|engine| {
            json!({
                "engine_id": engine.spec.url.text(),
                "serving_models": engine.spec.models,
                "created": engine.created,
                "in_flight": engine.in_flight.load(Relaxed),
                "connects": engine.connects.load(Relaxed),
                "reuses": engine.reuses.load(Relaxed),
            })
        });
        Bytes::from(json!(engines.collect::<Vec<_>>()).to_string())
    }
}
