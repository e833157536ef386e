//! The proxy's flags, and the configuration that they and the file mean.

mod bounds;
mod cluster;
mod monitoring;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::auth::{self, AuthArgs};
use super::engine_tls::EngineTlsArgs;
use super::forwarded::ForwardedArgs;
use super::ignored::Given;
use super::locality::{self, LocalityArgs};
use super::tls::TlsArgs;
use crate::config::dynamic::{DynamicFile, LimitsEntry, RetryEntry, TimeoutsEntry};
use crate::config::problem::{Problem, Problems};
use crate::config::resolve::overlay;
use crate::config::validate::{Format, Loaded, load};
use crate::config::{Bounds, Config, DrainSettings, DynamicSource, Seconds, default_workers};
use crate::registry::store::Kept;
use bounds::BoundsArgs;
use cluster::ClusterArgs;
use monitoring::MonitoringArgs;

/// A configuration, and what is to be said of how it came about.
#[derive(Debug)]
pub struct Launch {
    /// What to start with.
    pub config: Config,
    /// What was given and has no effect, a line each.
    pub warnings: Vec<String>,
    /// The policies that were registered before.
    pub kept: Kept,
}

/// The proxy's flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Basic")]
pub struct ProxyArgs {
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0", value_parser = host)]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8001)]
    pub port: u16,
    /// A prefix that is cut from the front of every path.
    #[arg(long, value_name = "/PREFIX", default_value = "", value_parser = root_path, hide_default_value = true)]
    pub root_path: String,
    /// Port of the listener for those who run us; none by default.
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Its address.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", value_parser = host)]
    pub admin_host: IpAddr,
    /// A folder to keep registered policies and what `smart` has learned in (POST /policy on the admin
    /// listener); without it they are kept until the process ends.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Errors of /v1/infer have the status 200 and "success": false, as in the
    /// reference.
    #[arg(long)]
    pub aios_compat_errors: bool,
    /// Data-path threads [default: 1 up to 2 cores, 2 up to 8, else 4].
    #[arg(long)]
    pub workers: Option<usize>,
    /// Which engines there are.
    #[command(flatten)]
    pub discovery: DiscoveryArgs,
    /// Who gets a request.
    #[command(flatten)]
    pub routing: RoutingArgs,
    /// How engines that speak TLS are spoken to.
    #[command(flatten)]
    pub engine_tls: EngineTlsArgs,
    /// What is watched.
    #[command(flatten)]
    pub monitoring: MonitoringArgs,
    /// The file.
    #[command(flatten)]
    pub dynamic: DynamicArgs,
    /// Who may call.
    #[command(flatten)]
    pub auth: AuthArgs,
    /// Bounds and deadlines.
    #[command(flatten)]
    pub bounds: BoundsArgs,
    /// The proxies before us.
    #[command(flatten)]
    pub forwarded: ForwardedArgs,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// What means nothing here.
    #[command(flatten)]
    pub given: Given,
}

/// Which engines there are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service Discovery")]
pub struct DiscoveryArgs {
    /// Where engines come from: static (a list), or k8s (a cluster). Required, here
    /// or in the file.
    #[arg(long, value_name = "HOW")]
    pub service_discovery: Option<String>,
    /// Engine URLs, separated by commas.
    #[arg(long, value_name = "URL,URL")]
    pub static_backends: Option<String>,
    /// The model of each, in the same order; a URL listed twice has two. Left
    /// out, engines are asked for their models.
    #[arg(long, value_name = "MODEL,MODEL")]
    pub static_models: Option<String>,
    /// Other names of models.
    #[arg(long, value_name = "ALIAS:MODEL,ALIAS:MODEL")]
    pub static_aliases: Option<String>,
    /// A label for each engine, shown by /engines.
    #[arg(long, value_name = "LABEL,LABEL")]
    pub static_model_labels: Option<String>,
    /// A type for each engine (chat, completion, ...), shown by /engines.
    #[arg(long, value_name = "TYPE,TYPE")]
    pub static_model_types: Option<String>,
    /// Ask engines how they are though there is no need to; those that are set
    /// aside are asked in any case.
    #[arg(long)]
    pub static_backend_health_checks: bool,
    /// How often [default: 60].
    #[arg(long, value_name = "SECONDS")]
    pub static_backend_health_check_interval: Option<u32>,
    /// How long an answer may take [default: 10].
    #[arg(long, value_name = "SECONDS")]
    pub static_backend_health_check_timeout_seconds: Option<u32>,
    /// For k8s.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Who gets a request.
#[derive(Debug, Args)]
#[command(next_help_heading = "Routing Logic")]
pub struct RoutingArgs {
    /// roundrobin, session, consistenthash, weighted, leastconnections,
    /// leastlatency, leastload, prefixaware, random, scored, federation,
    /// sequential, or a policy named in the file or registered. Required, here or
    /// in the file.
    #[arg(long, value_name = "POLICY")]
    pub routing_logic: Option<String>,
    /// For session: the header, or key of the body, with the session's id.
    #[arg(long, value_name = "NAME")]
    pub session_key: Option<String>,
    /// For prefixaware: shorter common beginnings, in bytes of the prompt, do not
    /// count.
    #[arg(long, value_name = "BYTES")]
    pub prefix_min_match_length: Option<u32>,
    /// Further engines for a request that one had and did not answer [default: 1].
    /// What no engine had goes elsewhere in any case.
    #[arg(long, value_name = "COUNT")]
    pub max_instance_failover_reroute_attempts: Option<u32>,
    /// Where we run.
    #[command(flatten)]
    pub locality: LocalityArgs,
}

/// The file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Dynamic Config")]
pub struct DynamicArgs {
    /// A file of settings that is watched; its keys come before flags.
    #[arg(long, value_name = "FILE", conflicts_with = "dynamic_config_yaml")]
    pub dynamic_config_json: Option<PathBuf>,
    /// The same in YAML.
    #[arg(long, value_name = "FILE")]
    pub dynamic_config_yaml: Option<PathBuf>,
}

impl ProxyArgs {
    /// The configuration that flags and file mean together.
    ///
    /// # Errors
    /// All that is missing, or does not fit together.
    pub fn launch(&self) -> Result<Launch, Problems> {
        let of = "flags".to_owned();
        let (traces, locality) = (self.monitoring.traces(), self.routing.locality.resolve());
        let mut list = self.given.problems();
        list.extend(traces.as_ref().err().cloned());
        list.extend(locality.as_ref().err().cloned());
        let (true, Ok(traces), Ok(locality)) = (list.is_empty(), traces, locality) else {
            return Err(Problems { of, list });
        };
        let auth = self.auth.settings()?;
        let flags = self.keys();
        let file = self.dynamic.load()?;
        let (keys, of) = match &file {
            None => (flags.clone(), of),
            Some((path, loaded)) => (
                overlay(&loaded.keys, &flags),
                format!("flags and {}", path.display()),
            ),
        };
        let kept = Kept::load(self.state_dir.as_deref()).map_err(|error| Problems {
            of: "--state-dir".to_owned(),
            list: vec![Problem::at("", error.to_string())],
        })?;
        let resolved = (kept.registry.resolve(&keys)).map_err(|list| Problems { of, list })?;
        for one in &resolved.set_aside {
            tracing::error!(uri = one.uri, "a registered policy is set aside: {one}");
        }
        let (tls, of_tls) = self.tls.resolve()?;
        let warning = locality::warning(&resolved.settings, &locality);
        let config = Config {
            locality,
            listen: SocketAddr::new(self.host, self.port),
            admin: (self.admin_port).map(|port| SocketAddr::new(self.admin_host, port)),
            tls,
            root_path: self.root_path.clone(),
            workers: self.workers.unwrap_or_else(default_workers).clamp(1, 64),
            settings: resolved.settings,
            flags,
            dynamic: file.map(|(file, first)| DynamicSource { file, first }),
            discovery_timeout: self.discovery.cluster.discovery_timeout,
            bounds: Bounds {
                max_connections: self.bounds.max_connections.get(),
                ..Bounds::default()
            },
            drain: DrainSettings {
                settle: self.bounds.drain_settle,
                timeout: self.bounds.drain_timeout,
            },
            stats: self.monitoring.stats(),
            access_log: self.monitoring.access_log(),
            traces,
            engine_tls: self.engine_tls.settings(),
            auth,
            aios_compat_errors: self.aios_compat_errors,
            trusted_proxies: self.forwarded.trusted_proxies.clone().unwrap_or_default(),
        };
        let warnings = self.given.warnings().chain(resolved.warnings);
        let warnings = warnings.chain(warning).chain(auth::warnings(&config));
        let warnings = warnings.chain(of_tls).collect();
        Ok(Launch {
            config,
            warnings,
            kept,
        })
    }

    /// The flags as keys of the dynamic file.
    fn keys(&self) -> DynamicFile {
        let (from, routing, bounds) = (&self.discovery, &self.routing, &self.bounds);
        let seconds = |given: Option<Duration>| given.map(Seconds);
        DynamicFile {
            service_discovery: from.service_discovery.clone(),
            static_backends: from.static_backends.clone(),
            static_models: from.static_models.clone(),
            static_aliases: from.static_aliases.clone(),
            static_model_labels: from.static_model_labels.clone(),
            static_model_types: from.static_model_types.clone(),
            static_backend_health_checks: from.static_backend_health_checks.then_some(true),
            static_backend_health_check_interval: from.static_backend_health_check_interval,
            static_backend_health_check_timeout_seconds: from
                .static_backend_health_check_timeout_seconds,
            k8s_port: from.cluster.k8s_port,
            k8s_namespace: from.cluster.k8s_namespace.clone(),
            k8s_label_selector: from.cluster.k8s_label_selector.clone(),
            k8s_service_discovery_type: from.cluster.k8s_service_discovery_type.clone(),
            k8s_source: from.cluster.k8s_source.clone(),
            k8s_inference_pool: from.cluster.k8s_inference_pool.clone(),
            k8s_watcher_timeout_seconds: from.cluster.k8s_watcher_timeout_seconds,
            k8s_streaming_lists: from.cluster.k8s_streaming_lists.then_some(true),
            routing_logic: routing.routing_logic.clone(),
            session_key: routing.session_key.clone(),
            prefix_min_match_length: routing.prefix_min_match_length,
            limits: Some(LimitsEntry {
                max_peek_bytes: bounds.max_peek_bytes,
                max_replay_bytes: bounds.max_replay_bytes,
                max_in_flight: bounds.max_in_flight,
                queue_size: bounds.queue_size,
                queue_timeout: seconds(bounds.queue_timeout),
                ..LimitsEntry::default()
            }),
            retry: Some(RetryEntry {
                attempts: routing.max_instance_failover_reroute_attempts,
                ..RetryEntry::default()
            }),
            timeouts: Some(TimeoutsEntry {
                client_head: seconds(bounds.client_head_timeout),
                client_body_idle: seconds(bounds.client_body_timeout),
                connect: seconds(bounds.connect_timeout),
                engine_head: seconds(bounds.engine_head_timeout),
                first_token: seconds(bounds.first_token_timeout),
                engine_idle: seconds(bounds.engine_idle_timeout),
                total: seconds(bounds.total_timeout),
                ..TimeoutsEntry::default()
            }),
            ..DynamicFile::default()
        }
    }
}

impl DynamicArgs {
    fn load(&self) -> Result<Option<(PathBuf, Loaded)>, Problems> {
        let json = self
            .dynamic_config_json
            .as_ref()
            .map(|file| (file, Format::Json));
        let yaml = self
            .dynamic_config_yaml
            .as_ref()
            .map(|file| (file, Format::Yaml));
        let Some((file, format)) = json.or(yaml) else {
            return Ok(None);
        };
        Ok(Some((file.clone(), load(file, format)?)))
    }
}

/// An address, or a name that has one.
fn host(text: &str) -> Result<IpAddr, String> {
    if text.is_empty() {
        return Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().or_else(|_| {
        let mut found = (text, 0).to_socket_addrs().map_err(|e| e.to_string())?;
        let first = found.next().map(|address| address.ip());
        first.ok_or_else(|| format!("'{text}' has no address"))
    })
}

fn root_path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    if path.is_empty() || path.starts_with('/') {
        return Ok(path.to_owned());
    }
    Err(format!("'{text}' must start with a slash"))
}

/// What is wrong with flags and file, as an exit code: 1 when nothing but a
/// required setting is missing, as the reference's, else 2.
impl From<&Problems> for std::process::ExitCode {
    fn from(problems: &Problems) -> Self {
        let missing = |problem: &Problem| problem.is_missing;
        Self::from(if problems.list.iter().all(missing) {
            1
        } else {
            2
        })
    }
}

#[cfg(test)]
mod tests;
