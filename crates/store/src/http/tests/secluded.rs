//! Addresses that no test may reach are reached nonetheless, in a network that has nothing but a loopback with these addresses.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::process::Command;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::reach::{Guarded, assert_refused, s3, settings, strict};
use super::*;
use crate::http::addresses::AllowedHost;

/// Set where this process is in a network of its own.
const SECLUDED: &str = "EPOCHWARDEN_TEST_SECLUDED";

/// What is refused, and the words for it.
const REFUSED: [(&str, &str); 8] = [
    ("169.254.169.254", "a metadata service"),
    ("100.100.100.200", "a metadata service"),
    ("168.63.129.16", "a metadata service"),
    ("192.0.0.192", "a metadata service"),
    ("fd00:ec2::254", "a metadata service"),
    ("fd20:ce::254", "a metadata service"),
    ("169.254.7.7", "a link-local address"),
    ("fe80::5", "a link-local address"),
];

/// The number of the loopback among a network's interfaces, which a connection to a link-local address of IPv6 has to name.
const LOOPBACK: u32 = 1;

/// How to enter a network of one's own: as root, or as a user who may be root of a namespace.
const WAYS: [&[&str]; 2] = [&["--net"], &["--map-root-user", "--net"]];

#[test]
fn no_connection_is_made_to_a_metadata_service_or_a_link_local_address() {
    if std::env::var_os(SECLUDED).is_some() {
        furnish();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(inside());
        return;
    }
    let enters = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).args(["ip", "link", "set", "lo", "up"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(way) = WAYS.iter().find(enters) else {
        println!("skipped: neither `unshare --net ip link` nor `unshare --map-root-user --net ip link` works here");
        return;
    };
    let own = std::thread::current().name().unwrap().to_owned();
    let output = Command::new("unshare")
        .args(*way)
        .arg(std::env::current_exe().unwrap())
        .args([&own, "--exact", "--nocapture", "--test-threads=1"])
        .env(SECLUDED, "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("{} addresses were out of reach", REFUSED.len())), "{said}");
}

fn furnish() {
    let ip = |args: &[&str]| {
        let output = Command::new("ip").args(args).output().unwrap();
        assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    ip(&["link", "set", "lo", "up"]);
    for (address, _) in REFUSED {
        if address.contains(':') {
            ip(&["-6", "address", "add", &format!("{address}/128"), "dev", "lo", "nodad"]);
        } else {
            ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
    }
}

fn place(address: &str, port: u16) -> SocketAddr {
    match address.parse().unwrap() {
        IpAddr::V6(six) if six.is_unicast_link_local() => SocketAddrV6::new(six, port, 0, LOOPBACK).into(),
        address => SocketAddr::new(address, port),
    }
}

/// Answers every look-up with one address.
struct Always(SocketAddr);

impl Lookup for Always {
    fn addresses(&self, _: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        std::future::ready(Ok(vec![self.0])).boxed()
    }
}

fn client(addresses: AddressRules, at: SocketAddr) -> HttpClient {
    let second = Duration::from_secs(2);
    let timeouts = Timeouts { request: second, connect: second };
    let reach = Reach { addresses, ..Reach::default() };
    let connector = Connector::with_lookup(timeouts, Watch::new(Arc::new(())), Vec::new(), reach, Arc::new(Always(at)));
    connector.connect(&ClientOptions::new().with_allow_http(true)).unwrap()
}

async fn inside() {
    for (address, words) in REFUSED {
        let guarded = Guarded::at(place(address, 0)).await;
        let written = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let endpoint = format!("http://{written}:{}", guarded.port);

        let root = s3(&endpoint, &settings(strict()));
        let error = read(&root).await;
        assert_refused(&root, &error);
        assert!(error.to_string().contains(words), "{error}");
        // And by a name that leads there.
        let at = place(address, guarded.port);
        let named = format!("http://store.example:{}", guarded.port);
        let error = client(strict(), at).execute(get(&named)).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(guarded.nobody_connected().await, "{address}");

        // Where the host is allowed, the same requests arrive.
        let allowed = |host: &str| AddressRules::guarded(false, Vec::new(), vec![host.parse::<AllowedHost>().unwrap()]);
        let by_name = client(allowed("store.example"), at);
        assert!(guarded.somebody_connects(by_name.execute(get(&named))).await, "{address} by name");
        // A URL cannot say by which interface a link-local address of IPv6 is reached.
        if !at.is_ipv6() || words.contains("metadata") {
            let root = s3(&endpoint, &settings(allowed(address)));
            assert!(guarded.somebody_connects(read(&root)).await, "{address}");
        }
    }
    println!("{} addresses were out of reach", REFUSED.len());
}
