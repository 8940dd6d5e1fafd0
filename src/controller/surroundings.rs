//! Where this process runs, as far as that says what the stores of policies must not lead to.

use std::io;
use std::net::{IpAddr, SocketAddr};

use epochwarden_store::{AddressRules, AllowedHost, RefusedAddress};
use kube::Config;
use tokio::net::lookup_host;

/// What tells a process that it runs in a cluster: the kubelet sets it in every container.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// Where this process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether in a pod: then the loopback is the pod's own, and no tenant has a store there.
    pub in_cluster: bool,
    /// Where the API server is.
    pub api_server: Vec<RefusedAddress>,
}

impl Surroundings {
    /// Reads them from the client's configuration and the environment. The API server's names are looked up once.
    ///
    /// # Errors
    ///
    /// When a name cannot be looked up: without an address there is nothing to guard, and no way to the API server either.
    pub async fn observe(config: &Config, environment: impl Fn(&str) -> Option<String>) -> io::Result<Self> {
        let service = environment(IN_CLUSTER).filter(|host| !host.is_empty());
        let url = &config.cluster_url;
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
        let mut api_server = Vec::new();
        for host in url.host().into_iter().chain(service.as_deref()) {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let addresses = lookup_host((host, port)).await.map_err(|error| {
                io::Error::new(error.kind(), format!("the API server's host {host} cannot be looked up: {error}"))
            })?;
            for address in addresses.map(refused) {
                if !api_server.contains(&address) {
                    api_server.push(address);
                }
            }
        }
        Ok(Self { in_cluster: service.is_some(), api_server })
    }

    /// Which addresses the stores of policies may have here.
    pub(super) fn rules(&self, allowed: &[AllowedHost]) -> AddressRules {
        AddressRules::guarded(!self.in_cluster, self.api_server.clone(), allowed.to_vec())
    }
}

/// On the loopback other servers have the same address, so that there it is the port that tells the API server.
fn refused(address: SocketAddr) -> RefusedAddress {
    let plain: IpAddr = address.ip().to_canonical();
    RefusedAddress { address: plain, port: plain.is_loopback().then(|| address.port()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn observed(url: &str, service: Option<&str>) -> Surroundings {
        let config = Config::new(url.parse().unwrap());
        Surroundings::observe(&config, |name| service.filter(|_| name == IN_CLUSTER).map(str::to_owned)).await.unwrap()
    }

    #[tokio::test]
    async fn the_api_server_is_where_the_client_and_the_cluster_say() {
        let at = |address: &str, port: Option<u16>| RefusedAddress { address: address.parse().unwrap(), port };
        for (url, service, in_cluster, expected) in [
            ("https://127.0.0.1:6443", None, false, vec![at("127.0.0.1", Some(6443))]),
            ("https://[::1]", None, false, vec![at("::1", Some(443))]),
            ("http://[::ffff:127.0.0.1]", None, false, vec![at("127.0.0.1", Some(80))]),
            ("https://192.0.2.7:6443", None, false, vec![at("192.0.2.7", None)]),
            ("https://192.0.2.7:6443", Some(""), false, vec![at("192.0.2.7", None)]),
            ("https://10.96.0.1:443", Some("10.96.0.1"), true, vec![at("10.96.0.1", None)]),
            ("https://[fd00::1]:443", Some("fd00::1"), true, vec![at("fd00::1", None)]),
            (
                "https://127.0.0.1:6443",
                Some("10.96.0.1"),
                true,
                vec![at("127.0.0.1", Some(6443)), at("10.96.0.1", None)],
            ),
        ] {
            assert_eq!(observed(url, service).await, Surroundings { in_cluster, api_server: expected }, "{url}");
        }
        let named = observed("https://localhost:6443", None).await.api_server;
        assert!(named.contains(&at("127.0.0.1", Some(6443))), "{named:?}");
    }

    #[tokio::test]
    async fn an_api_server_that_cannot_be_found_is_an_error_that_names_it() {
        let config = Config::new("https://nowhere.invalid:6443".parse().unwrap());
        let error = Surroundings::observe(&config, |_| None).await.unwrap_err();
        assert!(error.to_string().contains("nowhere.invalid"), "{error}");
    }

    #[tokio::test]
    async fn stores_are_kept_from_the_api_server_and_in_a_pod_from_the_loopback() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let api_server = vec![RefusedAddress { address: [127, 0, 0, 1].into(), port: Some(port) }];
        let allowed = ["127.0.0.1".parse().unwrap()];
        for (in_cluster, api_server, allowed, says) in [
            (false, api_server, &[][..], Some("the Kubernetes API server")),
            (true, Vec::new(), &[][..], Some("a loopback address")),
            (true, Vec::new(), &allowed[..], None),
        ] {
            let addresses = Surroundings { in_cluster, api_server }.rules(allowed);
            let settings = epochwarden_store::RootSettings {
                addresses,
                max_retries: Some(0),
                timeout: Some(std::time::Duration::from_millis(200)),
                ..epochwarden_store::RootSettings::default()
            };
            let endpoint = format!("http://127.0.0.1:{port}");
            let options = [("aws_endpoint", endpoint.as_str()), ("aws_skip_signature", "true"), ("allow_http", "true")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()));
            let root = epochwarden_store::Root::open("s3://state", options, &settings).unwrap();
            let error = epochwarden_store::list_inventory(&root, None).await.unwrap_err();
            let refused = error.to_string().contains("--allow-endpoint");
            assert_eq!(refused, says.is_some(), "{error}");
            assert!(error.to_string().contains(says.unwrap_or("no answer in time")), "{error}");
        }
    }
}
