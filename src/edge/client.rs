//! Who asks? The verified address and scheme, from the connection and from trusted proxies.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::net::ConnInfo;

/// The client as far as it can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// Who the connection is with.
    pub(super) peer: IpAddr,
    pub(super) is_https: bool,
    /// Whether the peer may tell us of others.
    pub(super) is_behind_proxy: bool,
}

/// The rightmost address in `X-Forwarded-For` that no trusted proxy has, if the peer is trusted; else
/// the peer's.
pub(super) fn verify(conn: &ConnInfo, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let peer = conn.peer.ip().to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    if trusted.is_empty() || conn.is_anonymous || !is_trusted(peer) {
        return Client { address: peer, peer, is_https: conn.is_secure(), is_behind_proxy: false };
    }
    let lines: Vec<&str> =
        headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    let mut address = peer;
    for hop in lines.iter().flat_map(|line| line.split(',')).rev() {
        // What can't be read can't be believed, nor can what stands left of it.
        let Some(hop) = parse_hop(hop) else { break };
        address = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    let proto = headers.get(&X_FORWARDED_PROTO).map(HeaderValue::as_bytes);
    let is_https = proto.map_or(conn.is_secure(), |proto| proto.eq_ignore_ascii_case(b"https"));
    Client { address, peer, is_https, is_behind_proxy: true }
}

fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let parsed = hop.parse::<IpAddr>().ok().or_else(|| {
        // Some proxies add the port.
        hop.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip())
    });
    parsed.or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> Client {
        let peer = peer.parse().unwrap();
        let conn = ConnInfo::new(peer, "127.0.0.1:80".parse().unwrap(), "");
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(&X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        verify(&conn, &headers, &trusted)
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        let is = |client: Client, address: &str, is_https: bool| {
            assert_eq!(client.address, address.parse::<IpAddr>().unwrap());
            assert_eq!(client.is_https, is_https);
        };
        is(client("192.0.2.9:1", &["198.51.100.1"], &[]), "192.0.2.9", false);
        is(client("192.0.2.9:1", &["198.51.100.1"], &["10.0.0.0/8"]), "192.0.2.9", false);
        is(client("10.0.0.1:1", &["198.51.100.1"], &["10.0.0.0/8"]), "198.51.100.1", true);
        is(
            client("10.0.0.1:1", &["1.1.1.1, 198.51.100.1", "10.2.0.1"], &["10.0.0.0/8"]),
            "198.51.100.1",
            true,
        );
        is(client("10.0.0.1:1", &["1.1.1.1, nonsense, 10.3.0.1"], &["10.0.0.0/8"]), "10.3.0.1", true);
        is(client("10.0.0.1:1", &["[2001:db8::1]:99"], &["10.0.0.0/8"]), "2001:db8::1", true);
    }
}
