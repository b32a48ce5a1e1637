//! Who asks? The verified address and scheme, from the connection and from trusted proxies.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::{FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::net::ConnInfo;
use crate::rules::forwarded;

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

/// The rightmost address in `X-Forwarded-For`, or in `Forwarded` where there is no such field, that no trusted proxy has, if
/// the peer is trusted; else the peer's.
pub(super) fn verify(conn: &ConnInfo, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let peer = conn.peer.ip().to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    if trusted.is_empty() || conn.is_anonymous || !is_trusted(peer) {
        return Client { address: peer, peer, is_https: conn.is_secure(), is_behind_proxy: false };
    }
    let lines =
        |name: HeaderName| headers.get_all(&name).into_iter().rev().map_while(|line| line.to_str().ok());
    let hops = lines(X_FORWARDED_FOR).flat_map(|line| line.rsplit(',')).map(forwarded::node);
    let (mut address, mut is_https) = (walk(hops, is_trusted), None);
    // Who writes both means the same; who writes the older one passes on whatever the other says.
    if !headers.contains_key(&X_FORWARDED_FOR) {
        let elements = lines(FORWARDED).flat_map(forwarded::from_the_right);
        // The scheme is that of the request which came from the client: the one next to it may be another.
        let hops = elements.map(|element| {
            let element = element?;
            is_https = element.is_https.or(is_https);
            element.address
        });
        address = walk(hops, is_trusted);
    }
    let proto = headers.get(&X_FORWARDED_PROTO).map(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    let is_https = proto.or(is_https).unwrap_or(conn.is_secure());
    Client { address: address.unwrap_or(peer), peer, is_https, is_behind_proxy: true }
}

/// From the nearest hop on to the first that is not trusted. What can't be read can't be believed, nor can what stands
/// left of it.
fn walk(hops: impl Iterator<Item = Option<IpAddr>>, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut address = None;
    for hop in hops {
        let Some(hop) = hop else { break };
        address = Some(hop);
        if !is_trusted(hop) {
            break;
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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

    #[test]
    fn forwarded_is_believed_where_nothing_else_names_the_client() {
        let told = |fields: &[(&'static str, &'static str)], peer: &str| {
            let conn = ConnInfo::new(peer.parse().unwrap(), "127.0.0.1:80".parse().unwrap(), "");
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let client = verify(&conn, &headers, &["10.0.0.0/8".parse().unwrap()]);
            (client.address.to_string(), client.is_https)
        };
        let is = |lines: &[&'static str], address: &str, is_https: bool| {
            let fields: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
            assert_eq!(told(&fields, "10.0.0.1:1"), (address.to_owned(), is_https), "{lines:?}");
            assert_eq!(told(&fields, "192.0.2.9:1"), ("192.0.2.9".to_owned(), false), "an untrusted peer");
        };
        is(&["for=192.0.2.66;proto=https"], "192.0.2.66", true);
        is(&["for=1.1.1.1, for=192.0.2.66;proto=https", "for=10.0.0.2;proto=http"], "192.0.2.66", true);
        is(&["for=192.0.2.66;proto=http, for=10.0.0.2;proto=https"], "192.0.2.66", false);
        is(&["for=192.0.2.66, for=10.0.0.2;proto=https"], "192.0.2.66", true);
        is(&["for=\"[2001:db8::1]:4711\""], "2001:db8::1", false);
        is(&["for=192.0.2.66, for=unknown;proto=https"], "10.0.0.1", true);
        is(&["for=192.0.2.66, for=_hidden, for=10.0.0.2"], "10.0.0.2", false);
        is(&["for=192.0.2.66, nonsense, for=10.0.0.2"], "10.0.0.2", false);
        is(&["for=\", for=192.0.2.66"], "192.0.2.66", false);
        let both = [("forwarded", "for=1.1.1.1;proto=https"), ("x-forwarded-for", "192.0.2.66")];
        assert_eq!(told(&both, "10.0.0.1:1"), ("192.0.2.66".to_owned(), false));
        let scheme = [("forwarded", "for=192.0.2.66;proto=https"), ("x-forwarded-proto", "http")];
        assert_eq!(told(&scheme, "10.0.0.1:1"), ("192.0.2.66".to_owned(), false));
    }
}
