use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hosts(texts: &[&str]) -> Vec<AllowedHost> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn judged(rules: &AddressRules, host: &str, text: &str, port: Option<u16>) -> Option<Kind> {
    rules.check(host, address(text), port).err().map(|forbidden| forbidden.kind)
}

/// Each special address, and how else it can be written.
const SPECIAL: [(Kind, &[&str]); 6] = [
    (
        Kind::Metadata,
        &[
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "::ffff:169.254.169.254",
            "::ffff:a9fe:a9fe",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::6464:64c8",
            "2002:a9fe:a9fe::1",
            "2002:a83f:8110::",
            "2001:0:4136:e378:8000:63bf:5601:5601",
            "fd12::5efe:169.254.169.254",
            "2001:db8::200:5efe:169.254.169.254",
        ],
    ),
    (
        Kind::LinkLocal,
        &[
            "169.254.0.1",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.255.255",
            "fe80::1",
            "febf:ffff::1",
            "::ffff:169.254.170.2",
            "64:ff9b::169.254.170.2",
            "2002:a9fe:aa02::",
        ],
    ),
    (
        Kind::Loopback,
        &[
            "127.0.0.1",
            "127.1.2.3",
            "127.255.255.255",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ],
    ),
    (Kind::Unspecified, &["0.0.0.0", "0.0.0.1", "0.255.0.0", "::", "::ffff:0.0.0.0", "64:ff9b::", "2002::1", "::2"]),
    (Kind::Multicast, &["224.0.0.1", "239.255.255.250", "255.255.255.255", "ff02::1", "::ffff:224.0.0.1"]),
    (Kind::Translated, &["64:ff9b:1::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:ffff::1"]),
];

#[test]
fn special_addresses_are_refused_however_they_are_written() {
    let strict = AddressRules::guarded(false, Vec::new(), Vec::new());
    let with_loopback = AddressRules::guarded(true, Vec::new(), Vec::new());
    for (expected, texts) in SPECIAL {
        for text in texts {
            assert_eq!(judged(&strict, "store.example", text, Some(443)), Some(expected), "{text}");
            let expected = Some(expected).filter(|kind| *kind != Kind::Loopback);
            assert_eq!(judged(&with_loopback, "store.example", text, Some(443)), expected, "{text}");
            assert_eq!(judged(&AddressRules::default(), "store.example", text, Some(443)), None, "{text}");
        }
    }
}

#[test]
fn addresses_of_hosts_may_be_reached_private_ones_too() {
    let strict = AddressRules::guarded(false, Vec::new(), Vec::new());
    for text in [
        "1.1.1.1",
        "10.96.0.10",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.201",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "192.0.0.193",
        "223.255.255.255",
        "2606:4700::1111",
        "fd00:ec2::1",
        "fd12:3456::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:2::1",
        "2002:0a00:0001::",
        "2001:db8::127.0.0.1",
    ] {
        assert_eq!(judged(&strict, "store.example", text, Some(443)), None, "{text}");
    }
}

#[test]
fn the_api_server_is_refused_at_its_port_or_at_all_of_them() {
    let everywhere = RefusedAddress { address: address("10.96.0.1"), port: None };
    let here = RefusedAddress { address: address("127.0.0.1"), port: Some(6443) };
    let rules = AddressRules::guarded(true, vec![everywhere, here], Vec::new());
    assert!(rules.ask_for_port());
    for (text, port, expected) in [
        ("10.96.0.1", Some(443), true),
        ("10.96.0.1", Some(9000), true),
        ("10.96.0.1", None, true),
        ("::ffff:10.96.0.1", Some(443), true),
        ("64:ff9b::10.96.0.1", Some(443), true),
        ("10.96.0.2", Some(443), false),
        ("127.0.0.1", Some(6443), true),
        ("127.0.0.1", None, true),
        ("127.0.0.1", Some(9000), false),
        // It may listen on all of the loopback.
        ("127.0.0.2", Some(6443), true),
        ("::1", Some(6443), true),
        ("::ffff:127.0.0.1", Some(6443), true),
        ("10.0.0.1", Some(6443), false),
    ] {
        let expected = expected.then_some(Kind::ApiServer);
        assert_eq!(judged(&rules, "store.example", text, port), expected, "{text} {port:?}");
    }
    let no_ports = AddressRules::guarded(true, vec![everywhere], Vec::new());
    assert!(!no_ports.ask_for_port() && !AddressRules::default().ask_for_port());
}

#[test]
fn an_allowed_host_is_reached_wherever_it_is_and_no_other_host_with_it() {
    let api_server = RefusedAddress { address: address("10.96.0.1"), port: None };
    let allowed = hosts(&["MinIO.local", "169.254.7.7", "[fe80::7]", "10.96.0.1"]);
    let rules = AddressRules::guarded(false, vec![api_server], allowed);
    for (host, text, expected) in [
        ("minio.local", "127.0.0.1", None),
        ("MINIO.LOCAL", "169.254.169.254", None),
        ("minio.local.", "::1", None),
        ("other.local", "127.0.0.1", Some(Kind::Loopback)),
        ("minio.local.evil.example", "127.0.0.1", Some(Kind::Loopback)),
        ("x.minio.local", "127.0.0.1", Some(Kind::Loopback)),
        ("169.254.7.7", "169.254.7.7", None),
        ("any.example", "169.254.7.7", None),
        ("any.example", "::ffff:169.254.7.7", None),
        ("169.254.7.8", "169.254.7.8", Some(Kind::LinkLocal)),
        ("[fe80::7]", "fe80::7", None),
        ("[fe80::8]", "fe80::8", Some(Kind::LinkLocal)),
        ("10.96.0.1", "10.96.0.1", None),
    ] {
        assert_eq!(judged(&rules, host, text, Some(443)), expected, "{host} {text}");
    }
}

#[test]
fn an_allowed_host_is_a_name_or_an_address_alone() {
    for (text, shown) in [
        ("minio", "minio"),
        ("MinIO.Storage.svc.", "minio.storage.svc"),
        ("my_minio-1", "my_minio-1"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
    ] {
        assert_eq!(text.parse::<AllowedHost>().unwrap().to_string(), shown, "{text}");
    }
    for text in [
        "",
        ".",
        "minio:9000",
        "127.0.0.1:9000",
        "[::1]:9000",
        "http://minio",
        "minio/x",
        "a b",
        "*.minio",
        "::g",
        "a@b",
    ] {
        let error = text.parse::<AllowedHost>().unwrap_err();
        assert!(error.contains("write a host name or an address alone"), "{text}: {error}");
    }
}

#[test]
fn a_refusal_names_host_address_reason_and_flag() {
    let rules = AddressRules::guarded(false, Vec::new(), Vec::new());
    for (host, text, expected) in [
        (
            "store.example",
            "169.254.169.254",
            "no store connection may be made to store.example at 169.254.169.254, the address of a metadata service: correct the \
             endpoint, or allow it where the operator is started, with --allow-endpoint store.example",
        ),
        (
            "127.0.0.1",
            "127.0.0.1",
            "no store connection may be made to 127.0.0.1, a loopback address: correct the endpoint, or allow it where the operator \
             is started, with --allow-endpoint 127.0.0.1",
        ),
        (
            "[fe80::1]",
            "fe80::1",
            "no store connection may be made to [fe80::1], a link-local address: correct the endpoint, or allow it where the operator \
             is started, with --allow-endpoint fe80::1",
        ),
    ] {
        let forbidden = rules.check(host, address(text), Some(443)).unwrap_err();
        assert_eq!(forbidden.to_string(), expected);
    }
}
