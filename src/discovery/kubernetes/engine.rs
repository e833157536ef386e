//! Engines of an object: each is a port at an address, or at a name.

use std::net::IpAddr;
use std::sync::Arc;

use super::notes::{About, Notes};
use super::objects::Rules;
use super::once::Served;
use crate::config::{EngineUrl, Traits};

/// What the engines of an object, one at each port, have in common.
#[derive(Debug)]
pub(super) struct Engine<'a> {
    pub(super) about: About<'a>,
    /// By which it is known again: the object's own, but for endpoints.
    pub(super) uid: &'a str,
    pub(super) host: Host<'a>,
    pub(super) created: u64,
    pub(super) is_ready: bool,
    pub(super) models: Option<&'a Arc<[String]>>,
    pub(super) traits: &'a Arc<Traits>,
}

/// Where an engine is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Host<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

impl Engine<'_> {
    /// The engines at these ports.
    pub(super) fn at_each(
        &self,
        ports: impl IntoIterator<Item = u16>,
        rules: &Rules,
        notes: &mut Notes,
    ) -> Box<[Served]> {
        let ports = ports.into_iter();
        ports
            .filter_map(|port| self.at(port, rules, notes))
            .collect()
    }

    /// The engine at that port, unless it is ourselves.
    fn at(&self, port: u16, rules: &Rules, notes: &mut Notes) -> Option<Served> {
        let (ip, url) = match self.host {
            Host::Ip(ip @ IpAddr::V4(_)) => (Some(ip), format!("http://{ip}:{port}")),
            Host::Ip(ip @ IpAddr::V6(_)) => (Some(ip), format!("http://[{ip}]:{port}")),
            Host::Name(name) => (None, format!("http://{name}:{port}")),
        };
        if ip.is_some_and(|ip| rules.own.is_at(ip, port)) {
            let message = format!(
                "{url} is this router itself: it is not taken as an engine, for requests would \
                 come back again and again"
            );
            notes.warn_about(self.about, &["own", &url], &message);
            return None;
        }
        Some(Served {
            identity: Arc::from(format!("{}:{port}", self.uid)),
            ip,
            created: self.created,
            is_ready: self.is_ready,
            url: EngineUrl::parse(&url).ok()?,
            models: self.models.map(Arc::clone),
            traits: Arc::clone(self.traits),
        })
    }
}

/// The address in a field of an object, if an engine can be there; else that is
/// told.
pub(super) fn address(
    about: About<'_>,
    field: &str,
    text: &str,
    notes: &mut Notes,
) -> Option<IpAddr> {
    // `::ffff:10.0.0.1` is 10.0.0.1: two texts must not make two engines.
    let ip = text.parse().map(|ip: IpAddr| ip.to_canonical());
    let wrong = match ip {
        Ok(ip) => nobodys(ip).map(|what| format!("is {what}, at which no engine can be")),
        Err(_) => Some("is no address".to_owned()),
    };
    if let Some(wrong) = &wrong {
        let message = format!("{field} {text:?} {wrong}; it is not taken");
        notes.warn_about(about, &["address", text], &message);
    }
    ip.ok().filter(|_| wrong.is_none())
}

/// What an address is that no other machine's, nor any process', can be. What
/// listens at a link's own addresses (169.254.169.254) is not for us to send
/// prompts and keys to.
fn nobodys(ip: IpAddr) -> Option<&'static str> {
    let (is_none, is_link_local, is_broadcast) = match ip {
        IpAddr::V4(ip) => (ip.octets()[0] == 0, ip.is_link_local(), ip.is_broadcast()),
        IpAddr::V6(ip) => (ip.is_unspecified(), ip.is_unicast_link_local(), false),
    };
    match () {
        () if is_none => Some("an unspecified address"),
        () if is_link_local => Some("a link-local address"),
        () if is_broadcast => Some("the broadcast address"),
        () if ip.is_multicast() => Some("a multicast address"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::known::Own;
    use super::super::objects::testing::rules;
    use super::*;

    const ABOUT: About<'_> = About {
        kind: "pod",
        name: "a",
        uid: "u",
    };

    #[test]
    fn where_no_engine_can_be() {
        for (text, expected) in [
            ("10.0.0.1", Ok("10.0.0.1")),
            ("127.0.0.1", Ok("127.0.0.1")),
            ("fd00::1", Ok("fd00::1")),
            ("::1", Ok("::1")),
            ("::ffff:10.0.0.1", Ok("10.0.0.1")),
            ("169.253.255.255", Ok("169.253.255.255")),
            ("223.255.255.255", Ok("223.255.255.255")),
            ("0.0.0.0", Err("unspecified")),
            ("0.1.2.3", Err("unspecified")),
            ("::", Err("unspecified")),
            ("::ffff:0.0.0.0", Err("unspecified")),
            ("224.0.0.1", Err("multicast")),
            ("ff02::1", Err("multicast")),
            ("255.255.255.255", Err("broadcast")),
            ("169.254.169.254", Err("link-local")),
            ("::ffff:169.254.169.254", Err("link-local")),
            ("fe80::1", Err("link-local")),
            ("febf::1", Err("link-local")),
            ("fe80::1%eth0", Err("no address")),
            ("10.0.0", Err("no address")),
            ("engine.example", Err("no address")),
            ("", Err("no address")),
        ] {
            let mut notes = Notes::default();
            let ip = address(ABOUT, "status.podIP", text, &mut notes);
            assert_eq!(ip, expected.ok().map(|ip| ip.parse().unwrap()), "{text}");
            let told = notes.warnings();
            assert_eq!(told.len(), usize::from(expected.is_err()), "{told:?}");
            if let Err(what) = expected {
                assert!(told[0].contains(what), "{told:?}");
                assert!(told[0].starts_with("pod a: status.podIP "), "{told:?}");
            }
        }
    }

    #[test]
    fn we_are_no_engine_of_our_own() {
        let own = |port| Own {
            port,
            ips: vec![
                "10.0.0.1".parse().unwrap(),
                "::ffff:10.0.0.2".parse().unwrap(),
            ],
        };
        for (own, ip, port, is_taken) in [
            (own(8080), "10.0.0.1", 8080, false),
            (own(8080), "10.0.0.2", 8080, false),
            (own(8080), "127.0.0.1", 8080, false),
            (own(8080), "127.0.0.9", 8080, false),
            (own(8080), "::1", 8080, false),
            (own(8080), "10.0.0.1", 8000, true),
            (own(8080), "127.0.0.1", 8000, true),
            (own(8080), "10.0.0.3", 8080, true),
            (own(0), "10.0.0.1", 8080, true),
            (Own::default(), "127.0.0.1", 8080, true),
        ] {
            let rules = Rules { own, ..rules() };
            let engine = Engine {
                about: ABOUT,
                uid: "u",
                host: Host::Ip(ip.parse().unwrap()),
                created: 0,
                is_ready: true,
                models: None,
                traits: &Arc::default(),
            };
            let mut notes = Notes::default();
            let served = engine.at(port, &rules, &mut notes);
            assert_eq!(served.is_some(), is_taken, "{ip}:{port}");
            let told = notes.warnings();
            assert_eq!(told.is_empty(), is_taken, "{told:?}");
            assert!(told.iter().all(|text| text.contains("this router itself")));
        }
    }
}
