//! Names become addresses here, and only addresses that may be reached go on to the connection: there is no second look-up between the
//! check and the connection that could be answered differently.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::addresses::AddressRules;

/// Looks names up.
pub(super) trait Lookup: Send + Sync {
    /// The addresses of `host`; their ports mean nothing.
    fn addresses(&self, host: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// As the system does it: its files and its name servers.
pub(super) struct System;

impl Lookup for System {
    fn addresses(&self, host: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) }.boxed()
    }
}

/// The names of the connections to one port.
pub(super) struct Guarded {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) rules: AddressRules,
    /// `None` where the rules do not ask for it.
    pub(super) port: Option<u16>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let (rules, port) = (self.rules.clone(), self.port);
        let found = self.lookup.addresses(host.clone());
        Box::pin(async move {
            let mut refused = None;
            let mut reachable = Vec::new();
            for address in found.await? {
                match rules.check(&host, address.ip(), port) {
                    Ok(()) => reachable.push(address),
                    Err(forbidden) => refused = Some(forbidden),
                }
            }
            match refused {
                Some(forbidden) if reachable.is_empty() => Err(forbidden.into()),
                _ if reachable.is_empty() => Err(io::Error::from(io::ErrorKind::NotFound).into()),
                _ => Ok(Box::new(reachable.into_iter()) as Addrs),
            }
        })
    }
}
