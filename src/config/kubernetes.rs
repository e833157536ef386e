//! How engines are found in a Kubernetes cluster.

use std::time::Duration;

/// Where engines listen, as in the reference router.
pub const PORT: u16 = 8000;
/// How long one watch lasts: a silence that is longer than this is a fault, and
/// to begin anew where the last one ended costs little.
pub const WATCH: Duration = Duration::from_secs(60);

/// What is watched, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// `None`: the one that the process runs in, or that of the kubeconfig's
    /// context.
    pub namespace: Option<String>,
    /// A label selector; empty: all.
    pub selector: String,
    /// Where engines listen, unless they tell otherwise.
    pub port: u16,
    /// What is watched.
    pub source: Source,
    /// How long one watch lasts before the next begins where it ended.
    pub watch: Duration,
    /// Whether lists come as streams, from API servers that can.
    pub streaming_lists: bool,
}

/// The objects that tell of engines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Pods: each ready one is an engine.
    Pods,
    /// The endpoints of services, as the cluster's own controller makes them.
    EndpointSlices,
    /// The pods and ports of the InferencePool of that name.
    InferencePool(String),
    /// Services, each of them one engine.
    Services,
}

impl Source {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::EndpointSlices => "endpointslices",
            Self::InferencePool(_) => "inferencepool",
            Self::Services => "services",
        }
    }
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            namespace: None,
            selector: String::new(),
            port: PORT,
            source: Source::Pods,
            watch: WATCH,
            streaming_lists: false,
        }
    }
}
