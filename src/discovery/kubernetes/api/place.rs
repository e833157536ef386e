//! Where an API server is, as far as a process can find out by itself.

use std::error::Error as StdError;
use std::path::PathBuf;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::super::fault::{Reason, shortened};
use super::client::aside;

/// Set in every pod.
const IN_A_POD: &str = "KUBERNETES_SERVICE_HOST";

/// Where the configuration was found.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// What `kube` finds in a pod.
    Pod,
    /// `$KUBECONFIG`, or `~/.kube/config`.
    Known,
    File(PathBuf),
}

/// Why there is no API server to be asked.
#[derive(Debug, thiserror::Error)]
pub enum NoCluster {
    /// Nothing says where it is.
    #[error(
        "no Kubernetes cluster: this process is neither in a pod (KUBERNETES_SERVICE_HOST is not set) nor is \
         there a kubeconfig ({0}): run it in a pod, or set KUBECONFIG to a kubeconfig file"
    )]
    Nowhere(String),
    /// A pod without what a pod needs.
    #[error(
        "this process is in a pod (KUBERNETES_SERVICE_HOST is set), but the pod's service account cannot be \
         used: {pod}; mount its token (automountServiceAccountToken, or a projected volume at \
         /var/run/secrets/kubernetes.io/serviceaccount), or set KUBECONFIG ({kubeconfig})"
    )]
    Pod {
        /// What is wrong with the pod.
        pod: String,
        /// What is wrong with the file.
        kubeconfig: String,
    },
    /// A file that cannot be used.
    #[error("the kubeconfig cannot be used: {0}; $KUBECONFIG or ~/.kube/config names one")]
    Kubeconfig(String),
    /// One that is behind a proxy.
    #[error(
        "the kubeconfig asks for the proxy {0}, and API servers are asked directly here: leave out `proxy-url`"
    )]
    Proxy(String),
    /// Certificates, keys or tokens that cannot be used.
    #[error("the credentials for the Kubernetes API server {server} cannot be used: {why}")]
    Credentials {
        /// Its URL.
        server: String,
        /// The library's words.
        why: String,
    },
}

impl NoCluster {
    /// For counters.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Nowhere(_) => Reason::Unreachable,
            Self::Pod { .. } | Self::Kubeconfig(_) | Self::Proxy(_) | Self::Credentials { .. } => {
                Reason::Credentials
            }
        }
    }
}

impl Place {
    /// In a pod, what the pod has; else, or if that cannot be used, a kubeconfig.
    pub(super) async fn find() -> Result<(Self, Config), NoCluster> {
        aside(found).await.map_err(NoCluster::Kubeconfig)?
    }

    /// What is configured there now.
    pub(super) async fn read(&self) -> Result<Config, NoCluster> {
        let place = self.clone();
        let config = aside(move || match place {
            Self::Pod => Config::incluster().map_err(|error| told(&error)),
            place => read(&place).map_err(|error| told(&error)),
        });
        checked(config.await.flatten().map_err(NoCluster::Kubeconfig)?)
    }
}

fn found() -> Result<(Place, Config), NoCluster> {
    let pod = std::env::var_os(IN_A_POD).map(|_| Config::incluster());
    let pod = match pod {
        Some(Ok(config)) => return Ok((Place::Pod, config)),
        Some(Err(error)) => Some(told(&error)),
        None => None,
    };
    let config = read(&Place::Known).map_err(|error| match pod {
        Some(pod) => NoCluster::Pod {
            pod,
            kubeconfig: told(&error),
        },
        None if is_missing(&error) => NoCluster::Nowhere(told(&error)),
        None => NoCluster::Kubeconfig(told(&error)),
    })?;
    Ok((Place::Known, checked(config)?))
}

/// A configuration that does not ask for what we have not.
fn checked(config: Config) -> Result<Config, NoCluster> {
    let proxy = config.proxy_url.as_ref();
    if let Some(proxy) = proxy.filter(|proxy| !is_of_environment(proxy)) {
        return Err(NoCluster::Proxy(shortened(&proxy.to_string())));
    }
    let provider = config.auth_info.auth_provider.as_ref();
    match provider.filter(|provider| provider.config.contains_key("cmd-path")) {
        Some(provider) => Err(NoCluster::Kubeconfig(format!(
            "its auth-provider `{}` runs a command, which Kubernetes has given up: let it be an `exec` plugin",
            shortened(&provider.name)
        ))),
        None => Ok(config),
    }
}

/// Blocks: files are read.
fn read(place: &Place) -> Result<Config, KubeconfigError> {
    let options = KubeConfigOptions::default();
    let reading = async {
        match place {
            Place::File(file) => {
                Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await
            }
            Place::Pod | Place::Known => Config::from_kubeconfig(&options).await,
        }
    };
    // Async in name: there is nothing that it waits for.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| KubeconfigError::ReadConfig(error, PathBuf::new()))?;
    runtime.block_on(reading)
}

/// Whether `kube` has it from there. Such proxies are for the world outside.
fn is_of_environment(proxy: &http::Uri) -> bool {
    ["HTTPS_PROXY", "https_proxy"].iter().any(|name| {
        let named = std::env::var(name).ok().and_then(|text| text.parse().ok());
        named.as_ref() == Some(proxy)
    })
}

/// Its first line: what follows may be a part of the file, tokens and all.
pub(super) fn told(error: &dyn StdError) -> String {
    let text = error.to_string();
    shortened(text.lines().next().unwrap_or_default())
}

/// Whether there is no file at all.
fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::ReadConfig(error, _) => error.kind() == std::io::ErrorKind::NotFound,
        KubeconfigError::FindPath => true,
        _ => false,
    }
}
