//! Whose word is taken on who a client is: the proxies before us.

use std::net::IpAddr;

/// Networks at most.
const MOST: usize = 256;

/// Networks whose hosts are believed when they tell of those before them
/// (`X-Forwarded-*`); none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl TrustedProxies {
    /// Networks as they are written: `10.0.0.0/8,::1`.
    ///
    /// # Errors
    /// What is no address, a length that its family has not, or too many.
    pub fn parse(text: &str) -> Result<Self, String> {
        let networks: Vec<_> = text
            .split(',')
            .map(Network::parse)
            .collect::<Result<_, _>>()?;
        if networks.len() > MOST {
            return Err(format!("at most {MOST} networks may be listed"));
        }
        Ok(Self(networks))
    }

    /// Whether this host is one of them.
    #[must_use]
    pub fn contains(&self, host: IpAddr) -> bool {
        let host = host.to_canonical();
        self.0.iter().any(|network| network.contains(host))
    }
}

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("'{text}' is no network such as 10.0.0.0/8, 192.0.2.7 or fd00::/8");
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = width(address);
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().map_err(|_| wrong())?,
        };
        if bits > most {
            return Err(wrong());
        }
        // Hosts are compared by what they really are.
        match address.to_canonical() {
            canonical if canonical == address => Ok(Self { address, bits }),
            address => {
                let bits = bits.checked_sub(96).ok_or_else(wrong)?;
                Ok(Self { address, bits })
            }
        }
    }

    fn contains(self, host: IpAddr) -> bool {
        let (mask, host) = match (self.address, host) {
            (IpAddr::V4(network), IpAddr::V4(host)) => {
                (u128::from(network.to_bits()), u128::from(host.to_bits()))
            }
            (IpAddr::V6(network), IpAddr::V6(host)) => (network.to_bits(), host.to_bits()),
            _ => return false,
        };
        let rest = width(self.address) - self.bits;
        (mask ^ host).checked_shr(rest).unwrap_or(0) == 0
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_hosts_and_no_others() {
        for (networks, host, held) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::ffff:10.0.0.3", "10.0.0.3", true),
            ("::ffff:10.0.0.3", "::ffff:10.0.0.3", true),
            ("::ffff:10.0.0.3", "10.0.0.4", false),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("::ffff:10.0.0.0/104", "11.0.0.0", false),
            ("::ffff:0:0/96", "203.0.113.9", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "fd00::1", false),
            ("::/0", "fd00::1", true),
            ("fd00::/8, 127.0.0.1", "127.0.0.1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("fd00::1/128", "fd00::1", true),
        ] {
            let networks = TrustedProxies::parse(networks).unwrap();
            assert_eq!(
                networks.contains(host.parse().unwrap()),
                held,
                "{networks:?} {host}"
            );
        }
        assert!(!TrustedProxies::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0.0/",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.0,",
            "10.0.0/8",
            "::ffff:10.0.0.0/95",
        ] {
            assert!(TrustedProxies::parse(text).is_err(), "{text:?}");
        }
        let many = vec!["10.0.0.1"; MOST];
        assert!(TrustedProxies::parse(&many.join(",")).is_ok());
        assert!(TrustedProxies::parse(&[many, vec!["::1"]].concat().join(",")).is_err());
    }
}
