//! Flags for engines that are found in a Kubernetes cluster.

use std::time::Duration;

use clap::Args;

use crate::config::duration;

/// For `--service-discovery k8s`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct ClusterArgs {
    /// Where engines listen, unless their pods tell otherwise [default: 8000].
    #[arg(long, value_name = "PORT")]
    pub k8s_port: Option<u16>,
    /// The namespace that is watched [default: the one that we run in].
    #[arg(long, value_name = "NAME")]
    pub k8s_namespace: Option<String>,
    /// Which pods, slices or services are watched, as app=vllm,tier in (a,b)
    /// [default: all of the namespace].
    #[arg(long, value_name = "SELECTOR")]
    pub k8s_label_selector: Option<String>,
    /// pod-ip: each pod is an engine; service-name: each service is one
    /// [default: pod-ip].
    #[arg(long, value_name = "TYPE")]
    pub k8s_service_discovery_type: Option<String>,
    /// What tells of engines: pods, endpointslices or inferencepool
    /// [default: pods].
    #[arg(long, value_name = "SOURCE")]
    pub k8s_source: Option<String>,
    /// The pool, for --k8s-source inferencepool.
    #[arg(long, value_name = "NAME")]
    pub k8s_inference_pool: Option<String>,
    /// How long one watch lasts before the next begins where it ended
    /// [default, and 0: 60].
    #[arg(long, value_name = "SECONDS")]
    pub k8s_watcher_timeout_seconds: Option<u32>,
    /// Take lists as streams of the watch, from API servers that can; from others
    /// page by page, as without this flag.
    #[arg(long)]
    pub k8s_streaming_lists: bool,
    /// How long /readyz waits for engines to be found and to tell their models.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub discovery_timeout: Duration,
}
