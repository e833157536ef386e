//! Where an API server is, as far as a process can find out by itself.

use std::error::Error as StdError;
use std::path::PathBuf;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::super::fault::shortened;

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

impl Place {
    /// In a pod, what the pod has; else, or if that cannot be used, a kubeconfig.
    pub(super) async fn find() -> Result<(Self, Config), NoCluster> {
        let pod = std::env::var_os(IN_A_POD).map(|_| Config::incluster());
        let pod = match pod {
            Some(Ok(config)) => return Ok((Self::Pod, config)),
            Some(Err(error)) => Some(told(&error)),
            None => None,
        };
        let known = read(&Self::Known).await;
        let config = known.map_err(|error| match pod {
            Some(pod) => NoCluster::Pod {
                pod,
                kubeconfig: told(&error),
            },
            None if is_missing(&error) => NoCluster::Nowhere(told(&error)),
            None => NoCluster::Kubeconfig(told(&error)),
        })?;
        Ok((Self::Known, checked(config)?))
    }

    /// What is configured there now.
    pub(super) async fn read(&self) -> Result<Config, NoCluster> {
        let config = match self {
            Self::Pod => Config::incluster().map_err(|error| told(&error)),
            place => read(place).await.map_err(|error| told(&error)),
        };
        checked(config.map_err(NoCluster::Kubeconfig)?)
    }
}

/// A configuration that does not ask for what we have not.
fn checked(config: Config) -> Result<Config, NoCluster> {
    let proxy = config.proxy_url.as_ref();
    match proxy.filter(|proxy| !is_of_environment(proxy)) {
        Some(proxy) => Err(NoCluster::Proxy(shortened(&proxy.to_string()))),
        None => Ok(config),
    }
}

async fn read(place: &Place) -> Result<Config, KubeconfigError> {
    let options = KubeConfigOptions::default();
    match place {
        Place::File(file) => {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await
        }
        Place::Pod | Place::Known => Config::from_kubeconfig(&options).await,
    }
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
