//! The PROXY protocol, versions 1 and 2: a proxy's word on whom it connects for, before anything else is said.
//!
//! ```text
//! v1   "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"   at most 107 bytes; also TCP6, and UNKNOWN
//! v2   12 bytes of signature | version, command | family, transport | length, 2 bytes
//!      | source and destination address, source and destination port | extensions, which are skipped
//! ```
//!
//! Read from trusted proxies only, where a listener asks for it; and then a connection without it is no connection:
//! guessing would let clients forge it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

const V1_PREFIX: &[u8] = b"PROXY ";
/// With its CRLF, as the specification counts.
const V1_MAX_BYTES: usize = 107;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;
/// Addresses take 36 bytes; the rest is for extensions such as a client's certificate's name.
const V2_MAX_REST_BYTES: usize = 4096;

/// Whom a proxy connects for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole header of `length` bytes; without addresses when the proxy speaks for itself (a health check) or does not
    /// know.
    Header {
        /// Whom it connects for.
        addresses: Option<Addresses>,
        /// Bytes of the header.
        length: usize,
    },
    /// The beginning of a header, to which at least so many bytes more belong.
    More(usize),
}

/// No header, or one that can't be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY protocol header: {0}")]
pub struct BadHeader(&'static str);

/// Reads a header from the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    if bytes.starts_with(V2_SIGNATURE) {
        return parse_v2(bytes);
    }
    if bytes.starts_with(V1_PREFIX) {
        return parse_v1(bytes);
    }
    if V2_SIGNATURE.starts_with(bytes) || V1_PREFIX.starts_with(bytes) {
        // The shortest header of all is v1's `PROXY UNKNOWN`.
        return Ok(Parsed::More(V2_SIGNATURE.len() - bytes.len()));
    }
    Err(BadHeader("it begins with something else"))
}

/// Takes a header off a stream, and not a byte more.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Addresses>> {
    let mut bytes = Vec::with_capacity(V1_MAX_BYTES);
    loop {
        match parse(&bytes).map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))? {
            Parsed::Header { addresses, .. } => return Ok(addresses),
            Parsed::More(missing) => {
                let read = bytes.len();
                bytes.resize(read + missing, 0);
                stream.read_exact(&mut bytes[read..]).await?;
            }
        }
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let within = &bytes[..bytes.len().min(V1_MAX_BYTES)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        // CR and LF are missing, or LF alone.
        let missing = if within.ends_with(b"\r") { 1 } else { 2 };
        if bytes.len() + missing > V1_MAX_BYTES {
            return Err(BadHeader("the line does not end"));
        }
        return Ok(Parsed::More(missing));
    };
    let line =
        std::str::from_utf8(&within[V1_PREFIX.len()..end]).map_err(|_| BadHeader("the line is not text"))?;
    let length = end + 2;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Parsed::Header { addresses: None, length });
    }
    let words: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = words[..] else {
        return Err(BadHeader("the line has not six words"));
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let end_of = |text, port| Some(SocketAddr::new(address(text)?, parse_port(port)?));
    match (end_of(source, source_port), end_of(destination, destination_port)) {
        (Some(source), Some(destination)) => {
            Ok(Parsed::Header { addresses: Some(Addresses { source, destination }), length })
        }
        _ => Err(BadHeader("its addresses can't be read")),
    }
}

/// Decimal, without sign and leading zeros.
fn parse_port(text: &str) -> Option<u16> {
    let is_canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    is_canonical.then(|| text.parse().ok())?
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(Parsed::More(V2_FIXED_BYTES - bytes.len()));
    };
    let [.., version_command, family, length_high, length_low] = *fixed;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let is_local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(BadHeader("its version or command is unknown")),
    };
    if length > V2_MAX_REST_BYTES {
        return Err(BadHeader("it is too long"));
    }
    let Some(rest) = rest.get(..length) else { return Ok(Parsed::More(length - rest.len())) };
    let addresses = match family {
        _ if is_local => None,
        0x11 => Some(v4(rest).ok_or(BadHeader("it is too short"))?),
        0x21 => Some(v6(rest).ok_or(BadHeader("it is too short"))?),
        // A socket in the proxy's file system, or unspecified: nothing that we could tell of the client.
        0x00 | 0x31 => None,
        _ => return Err(BadHeader("its family or transport is not of a stream")),
    };
    Ok(Parsed::Header { addresses, length: V2_FIXED_BYTES + length })
}

fn v4(rest: &[u8]) -> Option<Addresses> {
    let (source, rest) = rest.split_first_chunk::<4>()?;
    let (destination, rest) = rest.split_first_chunk::<4>()?;
    ends((*source).into(), (*destination).into(), rest)
}

fn v6(rest: &[u8]) -> Option<Addresses> {
    let (source, rest) = rest.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    ends((*source).into(), (*destination).into(), rest)
}

fn ends(source: IpAddr, destination: IpAddr, ports: &[u8]) -> Option<Addresses> {
    let [a, b, c, d] = *ports.first_chunk::<4>()?;
    Some(Addresses {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    })
}

#[cfg(test)]
mod tests;
