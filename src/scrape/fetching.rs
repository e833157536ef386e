//! Reading one engine: where it tells of itself, and in which form.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::json;
use super::page::Page;
use super::reading::Reading;
use super::wanted::Wanted;
use crate::config::EngineType;
use crate::fleet::Engine;
use crate::upstream::{FetchError, Get, Pool, fetch, stream};

/// Bytes of one page at most; a vLLM page has some 300 kB.
const MAX_PAGE: usize = 16 << 20;
/// Bytes of one JSON page at most.
const MAX_JSON: usize = 1 << 20;
/// How long one page may take.
const WITHIN: Duration = Duration::from_secs(5);

/// A page that an engine may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Text: all but trtllm-serve, whose page of that name is JSON.
    Metrics,
    /// Text: trtllm-serve.
    PrometheusMetrics,
    /// JSON: SGLang, which needs no flag for it.
    Loads,
    /// JSON: llama.cpp, the same.
    Slots,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/metrics",
            Self::PrometheusMetrics => "/prometheus/metrics",
            Self::Loads => "/v1/loads",
            Self::Slots => "/slots",
        }
    }

    /// Where an engine of that type is looked for, one place after the other.
    pub(super) fn of(kind: Option<EngineType>) -> &'static [Self] {
        use Endpoint::{Loads, Metrics, PrometheusMetrics, Slots};
        match kind {
            None => &[Metrics, PrometheusMetrics, Loads, Slots],
            Some(EngineType::Vllm | EngineType::Other) => &[Metrics],
            Some(EngineType::Sglang) => &[Metrics, Loads],
            Some(EngineType::Trtllm) => &[PrometheusMetrics, Metrics],
            Some(EngineType::Llamacpp) => &[Metrics, Slots],
        }
    }
}

/// What is to be read.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) engine: Arc<Engine>,
    pub(super) pool: Rc<Pool>,
    pub(super) wanted: Rc<Wanted>,
    pub(super) endpoint: Endpoint,
    /// Whether `/slots` is read too.
    pub(super) with_slots: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) engine: Arc<Engine>,
    /// By which list the reading was made.
    pub(super) wanted: Rc<Wanted>,
    pub(super) took: Duration,
    /// Bytes that came.
    pub(super) bytes: usize,
    /// Whether `/slots` was asked for in vain.
    pub(super) has_no_slots: bool,
    /// `None`: nothing that we know.
    pub(super) reading: Result<Option<Reading>, FetchError>,
}

impl Task {
    /// Reads it.
    pub(super) async fn run(self) -> Outcome {
        let begun = Instant::now();
        let mut page = Page::new(&self.wanted);
        let mut has_no_slots = false;
        let mut got = self.read(self.endpoint, &mut page).await;
        if self.with_slots
            && let Ok(bytes) = &mut got
        {
            match self.read(Endpoint::Slots, &mut page).await {
                Ok(more) => *bytes += more,
                Err(FetchError::Status(StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED)) => {
                    has_no_slots = true;
                }
                Err(_) => {}
            }
        }
        let bytes = got.as_ref().map_or(0, |bytes| *bytes);
        let reading = got.map(|_| page.finish());
        Outcome {
            took: begun.elapsed(),
            engine: self.engine,
            wanted: self.wanted,
            bytes,
            has_no_slots,
            reading,
        }
    }

    /// Takes in one page; tells how long it was.
    async fn read(&self, endpoint: Endpoint, page: &mut Page<'_>) -> Result<usize, FetchError> {
        let is_text = matches!(endpoint, Endpoint::Metrics | Endpoint::PrometheusMetrics);
        let get = Get {
            path: endpoint.path(),
            json: None,
            within: WITHIN,
            most: if is_text { MAX_PAGE } else { MAX_JSON },
        };
        if is_text {
            return stream(&self.pool, &self.engine, get, |piece| page.feed(piece)).await;
        }
        let body = fetch(&self.pool, &self.engine, get).await?;
        match endpoint {
            Endpoint::Slots => json::slots(&body, page),
            _ => json::loads(&body, page),
        }
        Ok(body.len())
    }
}
