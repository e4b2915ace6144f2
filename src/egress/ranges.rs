//! The address ranges no request goes to, as data, and the IPv4 addresses that hide inside IPv6 ones.
//!
//! Sources: the IANA special-purpose address registries and the RFC named beside each range.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why a range is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// No address at all, or "this host on this network".
    Unspecified,
    /// The machine itself.
    Loopback,
    /// A private network.
    Private,
    /// Only valid on the wire it is on.
    LinkLocal,
    /// Shared between a carrier and its customers.
    Shared,
    /// A cloud's service that hands out credentials.
    Metadata,
    /// Many receivers.
    Multicast,
    /// Everyone on the wire.
    Broadcast,
    /// Examples in documents.
    Documentation,
    /// Benchmarks of network devices.
    Benchmarking,
    /// Tunnels and translators, whose far end cannot be judged.
    Tunnel,
    /// Set aside by IANA, or not handed out.
    Reserved,
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified address",
            Self::Loopback => "loopback",
            Self::Private => "private network",
            Self::LinkLocal => "link-local",
            Self::Shared => "carrier-shared network",
            Self::Metadata => "cloud metadata service",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Tunnel => "tunnel or translator",
            Self::Reserved => "reserved",
        })
    }
}

/// A forbidden range.
#[derive(Debug, PartialEq, Eq)]
pub struct Range {
    /// The addresses.
    pub net: IpNet,
    /// Why.
    pub ground: Ground,
    /// Who says so.
    pub source: &'static str,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} ({})", self.ground, self.net, self.source)
    }
}

const fn v4(octets: [u8; 4], bits: u8, ground: Ground, source: &'static str) -> Range {
    Range { net: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_octets(octets), bits)), ground, source }
}

const fn v6(segments: [u16; 8], bits: u8, ground: Ground, source: &'static str) -> Range {
    Range { net: IpNet::V6(v6_net(segments, bits)), ground, source }
}

const fn v6_net(segments: [u16; 8], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from_segments(segments), bits)
}

/// Forbidden IPv4. The first that fits is the one told, so the narrow stand before the wide.
pub(super) static FORBIDDEN_V4: [Range; 20] = [
    v4([0, 0, 0, 0], 8, Ground::Unspecified, "RFC 1122"),
    v4([10, 0, 0, 0], 8, Ground::Private, "RFC 1918"),
    v4([100, 100, 100, 200], 32, Ground::Metadata, "Alibaba Cloud"),
    v4([100, 64, 0, 0], 10, Ground::Shared, "RFC 6598"),
    v4([127, 0, 0, 0], 8, Ground::Loopback, "RFC 1122"),
    // A public address by its number, but inside Azure it is the host that serves the machine its goal state.
    v4([168, 63, 129, 16], 32, Ground::Metadata, "Azure"),
    v4([169, 254, 169, 254], 32, Ground::Metadata, "AWS, Azure, Google Cloud"),
    v4([169, 254, 0, 0], 16, Ground::LinkLocal, "RFC 3927"),
    v4([172, 16, 0, 0], 12, Ground::Private, "RFC 1918"),
    v4([192, 0, 0, 192], 32, Ground::Metadata, "Oracle Cloud"),
    v4([192, 0, 0, 0], 24, Ground::Reserved, "RFC 6890"),
    v4([192, 0, 2, 0], 24, Ground::Documentation, "RFC 5737"),
    v4([192, 88, 99, 0], 24, Ground::Tunnel, "RFC 7526"),
    v4([192, 168, 0, 0], 16, Ground::Private, "RFC 1918"),
    v4([198, 18, 0, 0], 15, Ground::Benchmarking, "RFC 2544"),
    v4([198, 51, 100, 0], 24, Ground::Documentation, "RFC 5737"),
    v4([203, 0, 113, 0], 24, Ground::Documentation, "RFC 5737"),
    v4([224, 0, 0, 0], 4, Ground::Multicast, "RFC 5771"),
    v4([255, 255, 255, 255], 32, Ground::Broadcast, "RFC 919"),
    v4([240, 0, 0, 0], 4, Ground::Reserved, "RFC 1112"),
];

/// Forbidden IPv6, besides what embeds a forbidden IPv4 address and what lies outside [`GLOBAL_UNICAST`].
pub(super) static FORBIDDEN_V6: [Range; 18] = [
    v6([0; 8], 128, Ground::Unspecified, "RFC 4291"),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, Ground::Loopback, "RFC 4291"),
    // A local translator's prefix: where the IPv4 address stands in it is its operator's choice.
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Ground::Tunnel, "RFC 8215"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, Ground::Reserved, "RFC 6666"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, Ground::Tunnel, "Teredo, RFC 4380"),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, Ground::Benchmarking, "RFC 5180"),
    v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, Ground::Reserved, "ORCHID, RFC 4843"),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, Ground::Reserved, "ORCHIDv2, RFC 7343"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Ground::Reserved, "RFC 2928"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Ground::Documentation, "RFC 3849"),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Ground::Documentation, "RFC 9637"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, Ground::Reserved, "SRv6, RFC 9602"),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, Ground::Metadata, "AWS"),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, Ground::Metadata, "Google Cloud"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Ground::Private, "RFC 4193"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Ground::LinkLocal, "RFC 4291"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Ground::Private, "site-local, RFC 3879"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Ground::Multicast, "RFC 4291"),
];

/// The whole of IPv6 outside what is handed out; told when nothing nearer fits.
static NOT_GLOBAL: Range = v6([0; 8], 0, Ground::Reserved, "outside 2000::/3, RFC 4291");

/// All that IANA hands out of IPv6.
const GLOBAL_UNICAST: Ipv6Net = v6_net([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// Where an IPv4 address stands in an IPv6 address of a prefix: at this byte.
const EMBEDDINGS: [(Ipv6Net, usize); 5] = [
    // Mapped, RFC 4291.
    (v6_net([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), 12),
    // Translated, RFC 2765.
    (v6_net([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), 12),
    // Compatible, RFC 4291.
    (v6_net([0; 8], 96), 12),
    // NAT64, RFC 6052.
    (v6_net([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), 12),
    // 6to4, RFC 3056.
    (v6_net([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), 2),
];

/// The IPv4 addresses that packets to this IPv6 address may end at.
fn embedded(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let octets = address.octets();
    let quad = move |at: usize| Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]);
    // RFC 5214 §6.1: the interface identifier is 0000:5efe or 0200:5efe, then the IPv4 address.
    let isatap = matches!(octets[8..12], [0 | 2, 0, 0x5e, 0xfe]);
    EMBEDDINGS
        .iter()
        .filter(move |(net, _)| net.contains(&address))
        .map(|(_, at)| *at)
        .chain(isatap.then_some(12))
        .map(quad)
}

/// The forbidden range an address lies in, or whose IPv4 address it hides.
pub(super) fn forbidding(address: IpAddr) -> Option<&'static Range> {
    let address = match address {
        IpAddr::V4(address) => return forbidding_v4(address),
        IpAddr::V6(address) => address,
    };
    let within = |range: &&Range| range.net.contains(&IpAddr::V6(address));
    if let Some(range) = FORBIDDEN_V6.iter().find(within) {
        return Some(range);
    }
    let mut hides = false;
    for hidden in embedded(address) {
        hides = true;
        if let Some(range) = forbidding_v4(hidden) {
            return Some(range);
        }
    }
    (!hides && !GLOBAL_UNICAST.contains(&address)).then_some(&NOT_GLOBAL)
}

fn forbidding_v4(address: Ipv4Addr) -> Option<&'static Range> {
    FORBIDDEN_V4.iter().find(|range| range.net.contains(&IpAddr::V4(address)))
}
