//! Which addresses a store connection may reach: a tenant names the endpoint, but it is the operator's network that it is reached from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The metadata services of clouds that are not link-local, and the one that all share, so that it is called by its name.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// As [`METADATA_V4`].
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Which addresses a root's connections may reach. The default is all of them.
///
/// The rules hold for the address that a connection is made to, whatever name led to it. Private networks may be reached: that is where
/// a store of one's own is.
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    guard: Option<Arc<Guard>>,
}

#[derive(Debug)]
struct Guard {
    loopback: bool,
    refused: Vec<RefusedAddress>,
    allowed: Vec<AllowedHost>,
}

/// An address that no connection may reach, such as the API server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefusedAddress {
    /// The address. One on the loopback stands for all of the loopback, as a server there may listen on every address.
    pub address: IpAddr,
    /// The only port that is refused; `None` for all.
    pub port: Option<u16>,
}

impl RefusedAddress {
    /// A port that is not known yet may be the refused one.
    fn covers(&self, address: IpAddr, port: Option<u16>) -> bool {
        let own = plain(self.address);
        let place = own == address || (own.is_loopback() && address.is_loopback());
        let door = self.port.is_none_or(|own| port.is_none_or(|port| port == own));
        place && door
    }
}

/// A host that may be reached whatever its addresses are: a name, or an address, which may then be reached by any name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AllowedHost(Host);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Host {
    Name(String),
    Address(IpAddr),
}

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(Host::Address(plain(address))));
        }
        let advice = "write a host name or an address alone, without scheme, port and path, such as minio.storage.svc";
        let host = match url::Host::parse(text).map_err(|error| format!("{error}; {advice}"))? {
            url::Host::Ipv4(address) => Host::Address(IpAddr::V4(address)),
            url::Host::Ipv6(address) => Host::Address(plain(IpAddr::V6(address))),
            url::Host::Domain(name) => {
                let name = without_dot(&name);
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) {
                    return Err(advice.to_owned());
                }
                Host::Name(name.to_ascii_lowercase())
            }
        };
        Ok(Self(host))
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Host::Name(name) => f.write_str(name),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// A connection that was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) struct Forbidden {
    host: String,
    address: IpAddr,
    kind: Kind,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, address, kind } = self;
        let named = host.trim_start_matches('[').trim_end_matches(']');
        write!(f, "no store connection may be made to {host}")?;
        if named.parse() != Ok(*address) {
            write!(f, " at {address}")?;
        }
        write!(
            f,
            ", {kind}: correct the endpoint, or allow it where the operator is started, with --allow-endpoint {named}"
        )
    }
}

/// Why an address is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Unspecified,
    Loopback,
    LinkLocal,
    Metadata,
    Multicast,
    /// One of a network's own translation prefix, which may stand for any address of the old kind.
    Translated,
    /// One of [`RefusedAddress`].
    ApiServer,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "which is no address of a host",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "the address of a metadata service",
            Self::Multicast => "a multicast or broadcast address",
            Self::Translated => "an address of a private translation prefix, which may lead anywhere",
            Self::ApiServer => "the address of the Kubernetes API server",
        })
    }
}

impl AddressRules {
    /// Rules that refuse link-local addresses, metadata services, what is no address of one host, and the addresses in `refused`; and
    /// the loopback unless `loopback` is set. An IPv6 address that stands for an IPv4 address is judged as that one. The hosts in
    /// `allowed` are not judged.
    #[must_use]
    pub fn guarded(loopback: bool, refused: Vec<RefusedAddress>, allowed: Vec<AllowedHost>) -> Self {
        Self { guard: Some(Arc::new(Guard { loopback, refused, allowed })) }
    }

    /// Whether nothing is refused.
    pub(crate) fn allow_all(&self) -> bool {
        self.guard.is_none()
    }

    /// Whether an answer may depend on the port.
    pub(crate) fn ask_for_port(&self) -> bool {
        self.guard.as_deref().is_some_and(|guard| guard.refused.iter().any(|refused| refused.port.is_some()))
    }

    /// Whether a connection to `address`, which `host` led to, may be made.
    pub(crate) fn check(&self, host: &str, address: IpAddr, port: Option<u16>) -> Result<(), Forbidden> {
        let Some(guard) = self.guard.as_deref() else {
            return Ok(());
        };
        match guard.judge(host, plain(address), port) {
            None => Ok(()),
            Some(kind) => Err(Forbidden { host: host.to_owned(), address, kind }),
        }
    }
}

impl Guard {
    fn judge(&self, host: &str, address: IpAddr, port: Option<u16>) -> Option<Kind> {
        if self.allows(host, address) {
            return None;
        }
        if self.refused.iter().any(|refused| refused.covers(address, port)) {
            return Some(Kind::ApiServer);
        }
        match kind(address)? {
            Kind::Loopback if self.loopback => None,
            kind => Some(kind),
        }
    }

    fn allows(&self, host: &str, address: IpAddr) -> bool {
        let host = without_dot(host);
        self.allowed.iter().any(|AllowedHost(allowed)| match allowed {
            Host::Name(name) => name.eq_ignore_ascii_case(host),
            Host::Address(allowed) => *allowed == address,
        })
    }
}

/// What is special about an address; `None` for that of a host on some network.
fn kind(address: IpAddr) -> Option<Kind> {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

fn kind_v4(address: Ipv4Addr) -> Option<Kind> {
    let [first, ..] = address.octets();
    if METADATA_V4.contains(&address) {
        Some(Kind::Metadata)
    } else if first == 0 {
        // The whole block is "this network": a connection to it may end on this very machine.
        Some(Kind::Unspecified)
    } else if address.is_loopback() {
        Some(Kind::Loopback)
    } else if address.is_link_local() {
        Some(Kind::LinkLocal)
    } else if address.is_multicast() || address.is_broadcast() {
        Some(Kind::Multicast)
    } else {
        None
    }
}

fn kind_v6(address: Ipv6Addr) -> Option<Kind> {
    if METADATA_V6.contains(&address) {
        Some(Kind::Metadata)
    } else if address.is_unspecified() {
        Some(Kind::Unspecified)
    } else if address.is_loopback() {
        Some(Kind::Loopback)
    } else if address.is_unicast_link_local() {
        Some(Kind::LinkLocal)
    } else if address.is_multicast() {
        Some(Kind::Multicast)
    } else if matches!(address.segments(), [0x64, 0xff9b, 1, ..]) {
        Some(Kind::Translated)
    } else {
        None
    }
}

/// The IPv4 address that an IPv6 address stands for, where it stands for one.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else {
        return address;
    };
    if six.is_unspecified() || six.is_loopback() {
        return address;
    }
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match six.segments() {
        // Compatible, mapped and translated addresses, and the well-known prefix of NAT64.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // 6to4, and ISATAP within any network.
        | [0x2002, high, low, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => four(high, low),
        // Teredo hides the address from translators by inverting it.
        [0x2001, 0, _, _, _, _, high, low] => four(!high, !low),
        _ => address,
    }
}

/// A name with and without the dot of the root is the same name.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests;
