//! What engines are asked to tell of themselves.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attribute::OwnAttribute;

/// Share of requests that ask for a report with the answer.
const SAMPLE: f64 = 0.1;

/// What engines are asked to tell of themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Scraping {
    /// Attributes that the configuration tells how to read.
    pub own: Arc<[OwnAttribute]>,
    /// Engines whose metrics are read at most; `None`: as many as is usual.
    pub aperture: Option<usize>,
    /// Share of requests that ask their engine for a report of its load with the
    /// answer, 0 to 1.
    pub orca_sample: f64,
}

impl Default for Scraping {
    fn default() -> Self {
        Self {
            own: Arc::default(),
            aperture: None,
            orca_sample: SAMPLE,
        }
    }
}

/// What serves the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum EngineType {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// TensorRT-LLM, by trtllm-serve.
    Trtllm,
    /// llama.cpp's llama-server.
    Llamacpp,
    /// Anything else: what it tells is told by `attributes`.
    Other,
}

impl EngineType {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Vllm,
        Self::Sglang,
        Self::Trtllm,
        Self::Llamacpp,
        Self::Other,
    ];
}
