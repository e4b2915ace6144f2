//! Says where a request may go: pure rules over URLs and addresses.
//!
//! A name is judged here only as far as a name can be: `localhost` and names that no public DNS serves are refused so
//! that a person hears it at save. Any other name may lead anywhere; the resolver judges where it leads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

use super::ranges::{self, Range};
use super::refusal::{LONGEST_URL_BYTES, Refusal};

/// What an operator lets requests go to beyond the public internet over https.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    /// Whether plain http is fine too.
    pub allow_http: bool,
    /// Ranges that are fine though they are forbidden by default. A range of IPv4 addresses covers their mapped form
    /// (`::ffff:a.b.c.d`) and no other.
    pub allowed: Vec<IpNet>,
}

/// Names no public DNS serves, each with those below it.
const LOCAL_SUFFIXES: [&str; 7] =
    ["local", "internal", "localdomain", "intranet", "lan", "corp", "home.arpa"];
/// Public names of metadata services.
const METADATA_NAMES: [&str; 1] = ["metadata.goog"];
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

impl AddressPolicy {
    /// Judges a URL as a person typed it, and gives it back normalised: that form is the one to store and send to.
    pub fn check_url(&self, url: &str) -> Result<Url, Refusal> {
        if url.len() > LONGEST_URL_BYTES {
            return Err(Refusal::TooLong(url.len()));
        }
        let url = Url::parse(url).map_err(|error| match error {
            url::ParseError::EmptyHost => Refusal::NoHost,
            error => Refusal::NotAUrl(error),
        })?;
        self.check_target(&url)?;
        Ok(url)
    }

    /// Judges a parsed URL. Cheap: it allocates nothing unless it refuses.
    pub fn check_target(&self, url: &Url) -> Result<(), Refusal> {
        if url.as_str().len() > LONGEST_URL_BYTES {
            return Err(Refusal::TooLong(url.as_str().len()));
        }
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => return Err(Refusal::PlainHttp),
            scheme => return Err(Refusal::Scheme(scheme.to_owned())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(Refusal::Fragment);
        }
        if url.port() == Some(0) {
            return Err(Refusal::PortZero);
        }
        match url.host() {
            None => Err(Refusal::NoHost),
            Some(Host::Ipv4(address)) => self.check_address(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => self.check_address(IpAddr::V6(address)),
            Some(Host::Domain(name)) => self.check_name(name),
        }
    }

    /// Judges an address.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Refusal> {
        match self.forbidding(address) {
            Some(range) => Err(Refusal::Address { address, range }),
            None => Ok(()),
        }
    }

    /// The range that forbids an address here.
    pub(super) fn forbidding(&self, address: IpAddr) -> Option<&'static Range> {
        ranges::forbidding(address).filter(|_| !self.allows(address))
    }

    fn allows(&self, address: IpAddr) -> bool {
        let mapped = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => address.to_ipv4_mapped().map(IpAddr::V4),
        };
        self.allowed
            .iter()
            .any(|net| net.contains(&address) || mapped.is_some_and(|mapped| net.contains(&mapped)))
    }

    fn check_name(&self, host: &str) -> Result<(), Refusal> {
        // The URL parser has lower-cased the name; a trailing dot only says that it is written in full.
        let name = host.strip_suffix('.').unwrap_or(host);
        let fine = if name.is_empty() {
            return Err(Refusal::NoHost);
        } else if is_or_below(name, "localhost") {
            self.allows(IpAddr::V4(Ipv4Addr::LOCALHOST)) || self.allows(IpAddr::V6(Ipv6Addr::LOCALHOST))
        } else if METADATA_NAMES.contains(&name)
            || name.starts_with("metadata.") && is_or_below(name, "internal")
        {
            self.allows(METADATA)
        } else {
            // Whoever allows a range may have local names for it; the addresses decide.
            let local = !name.contains('.') || LOCAL_SUFFIXES.iter().any(|suffix| is_or_below(name, suffix));
            !local || !self.allowed.is_empty()
        };
        if fine { Ok(()) } else { Err(Refusal::LocalName(name.to_owned())) }
    }
}

fn is_or_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::egress::ranges::{FORBIDDEN_V4, Ground};

    fn http() -> AddressPolicy {
        AddressPolicy { allow_http: true, allowed: Vec::new() }
    }

    fn allowing(nets: &[&str]) -> AddressPolicy {
        AddressPolicy { allow_http: true, allowed: nets.iter().map(|net| net.parse().unwrap()).collect() }
    }

    fn ground(url: &str) -> Option<Ground> {
        match http().check_url(url) {
            Err(Refusal::Address { range, .. }) => Some(range.ground),
            Err(other) => panic!("{url}: {other}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn a_url_is_judged_by_its_parts() {
        let long = format!("https://example.com/{}", "a".repeat(LONGEST_URL_BYTES));
        // Percent-encoding makes three bytes of one.
        let grows = format!("https://example.com/{}", "\"".repeat(1000));
        for (url, code) in [
            ("https://example.com/hooks?a=b", None),
            ("https://EXAMPLE.com.:8443/", None),
            ("https://müller.example/", None),
            ("http://example.com/", Some("url_plain_http")),
            ("ftp://example.com/", Some("url_scheme")),
            ("file:///etc/passwd", Some("url_scheme")),
            ("gopher://127.0.0.1:6379/_x", Some("url_scheme")),
            ("example.com/hooks", Some("url_invalid")),
            ("", Some("url_invalid")),
            ("https://", Some("url_no_host")),
            ("https://./", Some("url_no_host")),
            ("https://user@example.com/", Some("url_user_info")),
            ("https://:secret@example.com/", Some("url_user_info")),
            ("https://example.com@127.0.0.1/", Some("url_user_info")),
            ("https://example.com/#part", Some("url_fragment")),
            ("https://example.com:0/", Some("url_port")),
            (&long, Some("url_too_long")),
            (&grows, Some("url_too_long")),
            ("https://localhost/", Some("host_local")),
            ("https://LOCALHOST./", Some("host_local")),
            ("https://a.b.localhost:3000/", Some("host_local")),
            ("https://metadata.google.internal/computeMetadata/v1/", Some("host_local")),
            ("https://metadata.goog/", Some("host_local")),
            ("https://crm.internal/", Some("host_local")),
            ("https://printer.local/", Some("host_local")),
            ("https://redis:6379/", Some("host_local")),
            ("https://notlocalhost.example/", None),
            ("https://mylocal.example/", None),
        ] {
            let result = AddressPolicy::default().check_url(url);
            assert_eq!(result.as_ref().err().map(Refusal::code), code, "{url}: {result:?}");
        }
    }

    #[test]
    fn a_forbidden_address_is_refused_in_every_spelling() {
        for (url, expected) in [
            ("http://127.0.0.1", Ground::Loopback),
            ("http://0177.0.0.1", Ground::Loopback),
            ("http://2130706433", Ground::Loopback),
            ("http://0x7f.1", Ground::Loopback),
            ("http://0x7F000001", Ground::Loopback),
            ("http://127.1", Ground::Loopback),
            ("http://127.0.0.1.", Ground::Loopback),
            ("http://%31%32%37.0.0.1", Ground::Loopback),
            ("http://\u{ff11}\u{ff12}\u{ff17}.0.0.1", Ground::Loopback),
            ("http://127\u{3002}0\u{3002}0\u{3002}1", Ground::Loopback),
            ("http://①②⑦.0.0.1", Ground::Loopback),
            ("http:\\\\127.0.0.1\\", Ground::Loopback),
            ("http://12\t7.0.0.1", Ground::Loopback),
            ("http://0", Ground::Unspecified),
            ("http://[::]", Ground::Unspecified),
            ("http://[::1]", Ground::Loopback),
            ("http://[0:0:0:0:0:0:0:1]:80", Ground::Loopback),
            ("http://[::127.0.0.1]", Ground::Loopback),
            ("http://[::ffff:127.0.0.1]", Ground::Loopback),
            ("http://[::ffff:7f00:1]", Ground::Loopback),
            ("http://[::ffff:0:127.0.0.1]", Ground::Loopback),
            ("http://[64:ff9b::7f00:1]", Ground::Loopback),
            ("http://[64:ff9b:1::8.8.8.8]", Ground::Tunnel),
            ("http://[2002:7f00:1::]", Ground::Loopback),
            ("http://[2002:808:808::5efe:10.0.0.1]", Ground::Private),
            ("http://[2a00:1450:4001::5efe:192.168.0.1]", Ground::Private),
            ("http://[2a00:1450:4001:0:200:5efe:169.254.169.254]", Ground::Metadata),
            ("http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]", Ground::Tunnel),
            ("http://169.254.169.254/latest/meta-data/", Ground::Metadata),
            ("http://[fd00:ec2::254]", Ground::Metadata),
            ("http://168.63.129.16", Ground::Metadata),
            ("http://[4000::1]", Ground::Reserved),
        ] {
            assert_eq!(ground(url), Some(expected), "{url}");
        }
    }

    #[test]
    fn ranges_end_where_they_should() {
        for (first, last, before, after) in [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
            ("168.63.129.16", "168.63.129.16", Some("168.63.129.15"), Some("168.63.129.17")),
            ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            ("192.88.99.0", "192.88.99.255", Some("192.88.98.255"), Some("192.88.100.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
            ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
            ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", None, Some("2001:200::")),
            (
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                Some("2001:db7:ffff::"),
                Some("2001:db9::"),
            ),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Some("3ffe:ffff::"), Some("3fff:1000::")),
            ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("3fff:ffff::"), None),
            (
                "::ffff:10.0.0.0",
                "::ffff:10.255.255.255",
                Some("::ffff:9.255.255.255"),
                Some("::ffff:11.0.0.0"),
            ),
            (
                "64:ff9b::10.0.0.0",
                "64:ff9b::10.255.255.255",
                Some("64:ff9b::9.255.255.255"),
                Some("64:ff9b::b00:0"),
            ),
            ("2002:a00::", "2002:aff:ffff::", Some("2002:9ff:ffff::"), Some("2002:b00::")),
        ] {
            for inside in [first, last] {
                assert!(http().check_address(inside.parse().unwrap()).is_err(), "{inside} is forbidden");
            }
            for outside in [before, after].into_iter().flatten() {
                assert_eq!(http().check_address(outside.parse().unwrap()), Ok(()), "{outside} is public");
            }
        }
        for address in [
            "100::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "2001:10::1",
        ] {
            assert!(http().check_address(address.parse().unwrap()).is_err(), "{address}");
        }
    }

    #[test]
    fn an_allowed_range_opens_itself_and_its_mapped_form_only() {
        let policy = allowing(&["10.1.0.0/16", "fd12::/16"]);
        for (address, fine) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("64:ff9b::10.1.2.3", false),
            ("2002:a01:203::", false),
            ("10.2.0.1", false),
            ("fd12::1", true),
            ("fd13::1", false),
            ("127.0.0.1", false),
            ("8.8.8.8", true),
        ] {
            assert_eq!(policy.check_address(address.parse().unwrap()).is_ok(), fine, "{address}");
        }
        assert!(policy.check_url("http://crm.internal/").is_ok(), "a name is left to its addresses");
        assert!(policy.check_url("http://localhost/").is_err());
        assert!(policy.check_url("http://metadata.google.internal/").is_err());
        assert!(allowing(&["127.0.0.0/8"]).check_url("http://localhost:8080/").is_ok());
    }

    #[test]
    fn a_refusal_says_what_and_why() {
        let refusal = http().check_url("http://10.1.2.3/").unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "10.1.2.3 is not a public address: private network, 10.0.0.0/8 (RFC 1918)"
        );
        assert!(refusal.hint().contains("operator"));
    }

    prop_compose! {
        fn forbidden_v4()(range in 0..FORBIDDEN_V4.len(), host: u32) -> Ipv4Addr {
            let IpNet::V4(net) = FORBIDDEN_V4[range].net else { unreachable!() };
            Ipv4Addr::from_bits(net.network().to_bits() | host & net.hostmask().to_bits())
        }
    }

    prop_compose! {
        // Blocks known to be public, written out so as not to lean on the table under test.
        fn public_v4()(block in prop::sample::select(vec![
            ("1.1.1.0", 24), ("8.0.0.0", 8), ("44.192.0.0", 10), ("93.184.0.0", 16), ("100.128.0.0", 9),
            ("140.82.0.0", 16), ("172.32.0.0", 11), ("185.199.108.0", 22), ("192.169.0.0", 16),
            ("198.20.0.0", 14), ("203.0.114.0", 23), ("223.0.0.0", 8),
        ]), host: u32) -> Ipv4Addr {
            let (network, bits): (&str, u8) = block;
            let net = ipnet::Ipv4Net::new(network.parse().unwrap(), bits).unwrap();
            Ipv4Addr::from_bits(net.network().to_bits() | host & net.hostmask().to_bits())
        }
    }

    fn spellings(address: Ipv4Addr) -> Vec<String> {
        let [a, b, c, d] = address.octets();
        let bits = address.to_bits();
        let (high, low) = (bits >> 16, bits & 0xffff);
        vec![
            address.to_string(),
            format!("{bits}"),
            format!("{bits:#x}"),
            format!("0{bits:o}"),
            format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
            format!("{a:#x}.{b}.0{c:o}.{d:#X}").replace("0X", "0x"),
            format!("{a}.{}", bits & 0x00ff_ffff),
            format!("{a}.{b}.{low}."),
            format!("[::ffff:{address}]"),
            format!("[::ffff:{high:x}:{low:x}]"),
            format!("[64:ff9b::{address}]"),
            format!("[2002:{high:x}:{low:x}::1]"),
            format!("[2a00:1450::5efe:{address}]"),
        ]
    }

    proptest! {
        #[test]
        fn no_spelling_opens_a_forbidden_address(address in forbidden_v4()) {
            for host in spellings(address) {
                let refusal = http().check_url(&format!("http://{host}/"));
                prop_assert!(matches!(refusal, Err(Refusal::Address { .. })), "{host}: {refusal:?}");
            }
        }

        #[test]
        fn public_addresses_are_accepted_in_every_spelling(address in public_v4()) {
            for host in spellings(address) {
                let result = http().check_url(&format!("http://{host}/"));
                prop_assert!(result.is_ok(), "{host}: {result:?}");
            }
        }

        #[test]
        fn public_v6_is_accepted(prefix in 0x2400_u16..0x2e00, rest: [u16; 7]) {
            let [b, c, d, e, f, g, h] = rest;
            prop_assume!(!(matches!(e, 0 | 0x200) && f == 0x5efe));
            let address = Ipv6Addr::new(prefix, b, c, d, e, f, g, h);
            prop_assert_eq!(http().check_address(IpAddr::V6(address)), Ok(()));
        }

        #[test]
        fn no_text_makes_the_check_panic(text in ".{0,64}") {
            let _ = http().check_url(&text);
            let _ = http().check_url(&format!("http://{text}/"));
        }
    }
}
