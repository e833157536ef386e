//! Where we run, by flags or by what Kubernetes' downward API tells.

use std::net::IpAddr;

use clap::Args;

use crate::config::problem::Problem;
use crate::config::{Locality, Settings};

/// Where we run: what `prefer_local` goes by.
#[derive(Debug, Args)]
pub struct LocalityArgs {
    /// The zone that we run in; engines of that `region` are near.
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    /// Our pod's address, or addresses, separated by commas [default: POD_IP of
    /// the environment]; engines there are in our own pod, as those on loopback are.
    #[arg(long, value_name = "IP,IP")]
    pub pod_ip: Option<String>,
    /// The node that we run on [default: NODE_NAME of the environment]; engines
    /// with that label `node` are near.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
}

impl LocalityArgs {
    /// The place that flags and environment tell of.
    ///
    /// # Errors
    /// A `--pod-ip` that is no address.
    pub fn resolve(&self) -> Result<Locality, Problem> {
        self.resolve_in(|name| std::env::var(name).ok())
    }

    fn resolve_in(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Locality, Problem> {
        // A label that the node does not have is an empty text.
        let told = |given: &Option<String>| given.clone().filter(|text| !text.is_empty());
        let pod_ips = match told(&self.pod_ip) {
            Some(text) => addresses(&text).collect::<Result<_, _>>()?,
            // Nobody said that this one is for us.
            None => addresses(&environment("POD_IP").unwrap_or_default())
                .filter_map(Result::ok)
                .collect(),
        };
        Ok(Locality {
            pod_ips,
            node: told(&self.node_name).or_else(|| told(&environment("NODE_NAME"))),
            zone: told(&self.zone),
        })
    }
}

/// What is to be said of settings that go by where we run, when nothing is known of that.
pub(super) fn warning(settings: &Settings, locality: &Locality) -> Option<String> {
    (settings.routing.prefer_local && locality.is_unknown()).then(|| {
        "prefer_local is on, and we do not know where we run: only engines on loopback come \
         first; give --pod-ip, --node-name or --zone"
            .to_owned()
    })
}

fn addresses(text: &str) -> impl Iterator<Item = Result<IpAddr, Problem>> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(|part| {
        let wrong = |_| {
            let message = "is no IP address; expected those of our pod, separated by commas";
            Problem::at("--pod-ip", format!("{part:?} {message}"))
        };
        part.parse().map_err(wrong)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_what_kubernetes_tells() {
        let environment = |name: &str| match name {
            "POD_IP" => Some("10.0.0.1,fd00::1,nonsense".to_owned()),
            "NODE_NAME" => Some("n1".to_owned()),
            _ => None,
        };
        let args = |zone: &str, pod_ip: &str, node: &str| LocalityArgs {
            zone: Some(zone.to_owned()),
            pod_ip: Some(pod_ip.to_owned()),
            node_name: Some(node.to_owned()),
        };
        for (args, ips, node, zone) in [
            (args("", "", ""), vec!["10.0.0.1", "fd00::1"], "n1", None),
            (
                args("z", "10.0.0.2", "n2"),
                vec!["10.0.0.2"],
                "n2",
                Some("z"),
            ),
        ] {
            let locality = args.resolve_in(environment).unwrap();
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(locality.pod_ips, ips);
            assert_eq!(locality.node.as_deref(), Some(node));
            assert_eq!(locality.zone.as_deref(), zone);
        }
        assert!(args("", "", "").resolve_in(|_| None).unwrap().is_unknown());
        let wrong = args("", "10.0.0.300", "").resolve_in(environment);
        let wrong = wrong.unwrap_err().to_string();
        assert!(
            wrong.contains("10.0.0.300") && wrong.contains("--pod-ip"),
            "{wrong}"
        );
    }

    #[test]
    fn near_of_nowhere_is_warned_of() {
        let mut settings = Settings::default();
        let nowhere = Locality::default();
        let somewhere = Locality {
            zone: Some("z".to_owned()),
            ..Locality::default()
        };
        assert_eq!(warning(&settings, &nowhere), None);
        settings.routing.prefer_local = true;
        assert_eq!(warning(&settings, &somewhere), None);
        assert!(warning(&settings, &nowhere).unwrap().contains("--zone"));
    }
}
