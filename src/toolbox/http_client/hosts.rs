//! Where requests may go: hosts by name, and addresses whatever the name.
//!
//! A name that is allowed says nothing about the address behind it, which its owner may change between a look-up that is
//! checked and the one that is used. So the client's own look-up is the checked one: no connection is opened to an
//! address that was not.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata services of clouds: they give credentials to whoever asks.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether one of `patterns` is this host: `*`, `*.example.com` for everything below it, or the host itself; each with
/// a port when it is for that port only, as in `localhost:8080`.
pub(super) fn allowed(patterns: &[String], host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.');
    let matches = |pattern: &String| {
        let (name, only) = split_port(pattern);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let same = match name.strip_prefix("*.") {
            // Numbers have nothing below them.
            Some(_) if literal(host).is_some() => false,
            Some(parent) => {
                host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            None if name == "*" => true,
            // Numbers can be written in several ways, and those of IPv6 stand between brackets in a URL.
            None => literal(&name).map_or(name == host, |address| literal(host) == Some(address)),
        };
        same && only.is_none_or(|only| only == port)
    };
    !host.is_empty() && patterns.iter().any(matches)
}

/// Whether `text` is what a list of allowed hosts takes: a host's name, `*.` before one, or an address; with a port or
/// without.
pub(crate) fn is_host(text: &str) -> bool {
    let (host, port) = split_port(text);
    // An address of IPv6 with a port needs its brackets.
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match (bare, port) {
        (Some(address), _) => return address.parse::<Ipv6Addr>().is_ok(),
        (None, None) if host.parse::<Ipv6Addr>().is_ok() => return true,
        (None, _) => (),
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|sign| sign.is_ascii_alphanumeric() || matches!(sign, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The address that a host is, when it is no name.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The name and the port of a pattern. A bare IPv6 address has colons and no port.
fn split_port(pattern: &str) -> (&str, Option<u16>) {
    match pattern.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => match port.parse() {
            Ok(port) if port > 0 => (name, Some(port)),
            Ok(_) | Err(_) => (pattern, None),
        },
        _ => (pattern, None),
    }
}

/// An address that must not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is at {address}, {what}")]
pub(super) struct Blocked {
    host: String,
    address: IpAddr,
    what: &'static str,
}

/// Which addresses may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those of the public network.
    Public,
    /// Those of this machine and of private networks too.
    Private,
    /// Public, and where the servers of tests are.
    #[cfg(test)]
    Stubbed,
}

impl Reach {
    /// Refuses an address that is out of reach.
    pub(super) fn check(self, host: &str, address: IpAddr) -> Result<(), Blocked> {
        let plain = address.to_canonical();
        #[cfg(test)]
        if self == Self::Stubbed && plain == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            return Ok(());
        }
        let what = if METADATA.contains(&plain) {
            Some("a metadata service, which agents may never ask")
        } else if self == Self::Private {
            unusable(plain).then_some("which is no address of a machine")
        } else {
            (!is_public(plain)).then_some(
                "an address of this machine or of a private network, which this agent's file does not allow",
            )
        };
        what.map_or(Ok(()), |what| Err(Blocked { host: host.to_owned(), address, what }))
    }
}

fn unusable(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    broadcast || address.is_multicast() || address.is_unspecified()
}

/// Whether an address is one of the public network, after IANA's registries of special addresses.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || matches!(
            (a, b, c),
            (0, ..) | (192, 0, 0) | (192, 88, 99) | (100, 64..=127, _) | (198, 18 | 19, _)
        )
        || a >= 240;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let [.., g, h] = address.segments();
    let inner = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match (a, b) {
        // Both carry an IPv4 address that a gateway on the way may go to.
        (0x64, 0xff9b) => address.segments()[2..6] == [0; 4] && is_public_v4(inner(g, h)),
        (0x2002, high) => is_public_v4(inner(high, address.segments()[2])),
        // Teredo, ORCHID, benchmarks and documentation.
        (0x2001, b) if b < 0x200 || b == 0xdb8 => false,
        (0x3fff, b) if b < 0x1000 => false,
        _ => a & 0xe000 == 0x2000,
    }
}

/// Finds the addresses of a name.
pub(super) type LookUp = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The system's look-up.
pub(super) fn system() -> LookUp {
    Arc::new(|host| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// A look-up that gives addresses within reach only.
pub(super) struct Checked {
    pub(super) look_up: LookUp,
    pub(super) reach: Reach,
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (host, reach) = (name.as_str().to_owned(), self.reach);
        let found = (self.look_up)(host.clone());
        Box::pin(async move {
            let found = found.await?;
            let mut blocked = None;
            let mut within = Vec::with_capacity(found.len());
            for address in found {
                match reach.check(&host, address) {
                    Ok(()) => within.push(SocketAddr::new(address, 0)),
                    Err(error) => blocked = Some(error),
                }
            }
            match blocked {
                Some(error) if within.is_empty() => Err(error.into()),
                _ => Ok(Box::new(within.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn a_pattern_is_a_host_or_what_is_below_it() {
        let yes = [
            ("api.example.com", "api.example.com", 443),
            ("API.Example.com", "api.example.com", 443),
            ("api.example.com.", "api.example.com", 443),
            ("api.example.com", "api.example.com.", 443),
            ("*.example.com", "a.example.com", 443),
            ("*.example.com", "a.b.example.com", 443),
            ("*", "anything", 1),
            ("localhost:8080", "localhost", 8080),
            ("*.example.com:81", "a.example.com", 81),
            ("[::1]:80", "[::1]", 80),
            ("[::1]", "[::1]", 80),
            ("::1", "[::1]", 80),
            ("0:0:0:0:0:0:0:1", "[::1]", 80),
            ("10.0.0.1", "10.0.0.1", 80),
        ];
        for (pattern, host, port) in yes {
            assert!(allowed(&[pattern.to_owned()], host, port), "{pattern} {host}:{port}");
        }
        let no = [
            ("api.example.com", "example.com", 443),
            ("api.example.com", "api.example.com.evil.org", 443),
            ("*.example.com", "example.com", 443),
            ("*.example.com", ".example.com", 443),
            ("*.example.com", "evilexample.com", 443),
            ("*.0.0.1", "127.0.0.1", 80),
            ("localhost:8080", "localhost", 8081),
            ("[::1]:80", "[::1]", 81),
            ("::1", "[::2]", 80),
            ("10.0.0.1", "10.0.0.11", 80),
            ("", "", 80),
            ("*", "", 80),
        ];
        for (pattern, host, port) in no {
            assert!(!allowed(&[pattern.to_owned()], host, port), "{pattern} {host}:{port}");
        }
        assert!(!allowed(&[], "x", 80));
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_else() {
        for host in [
            "localhost",
            "api.example.com",
            "*.example.com",
            "10.0.0.1",
            "::1",
            "[::1]",
            "[::1]:80",
            "a.b:80",
            "*.a.b:80",
            "a_b.c-d",
        ] {
            assert!(is_host(host), "{host}");
        }
        for text in [
            "",
            "*",
            "*.",
            "https://a.b",
            "a.b/c",
            "a..b",
            "-a.b",
            "a b",
            "a.b:",
            "a.b:0",
            "a.b:x",
            "a.b:65536",
            "**.a",
            "a.*.b",
            "[a.b]",
            "[10.0.0.1]",
            "[::1",
            "::1]",
            ":80",
            "[::1]:",
            "[::1]:x",
        ] {
            assert!(!is_host(text), "{text}");
        }
    }

    #[test]
    fn only_addresses_of_the_public_network_are_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            let address = text.parse().unwrap();
            assert!(Reach::Public.check("x", address).is_err(), "{text}");
        }
        for text in [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1",
            "2a00::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
            "2001:4860::8888",
        ] {
            assert_eq!(Reach::Public.check("x", text.parse().unwrap()), Ok(()), "{text}");
        }
    }

    #[test]
    fn metadata_services_are_out_of_every_reach() {
        for text in
            ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200"]
        {
            let address = text.parse().unwrap();
            assert!(Reach::Private.check("x", address).is_err(), "{text}");
            assert!(Reach::Public.check("x", address).is_err(), "{text}");
        }
        for (text, within) in [
            ("127.0.0.1", true),
            ("fd12::1", true),
            ("1.1.1.1", true),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(Reach::Private.check("x", text.parse().unwrap()).is_ok(), within, "{text}");
        }
    }
}
