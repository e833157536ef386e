//! Where we run, as far as those who start us say.

use std::net::IpAddr;

/// Where we run; what is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locality {
    /// Our pod's addresses.
    pub pod_ips: Vec<IpAddr>,
    /// The node that our pod is on.
    pub node: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
}

impl Locality {
    /// Whether nothing was said.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}
