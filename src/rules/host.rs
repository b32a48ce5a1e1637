//! Hosts: case, default port, trailing dot (RFC 3986 §3.2.2, RFC 9110 §4.2.3).

use std::{borrow::Cow, net::Ipv6Addr};

use super::key::{BadTarget, Scheme};

/// No name in the DNS is longer.
const MAX_LENGTH: usize = 255;

/// Lower-case, without the scheme's default port and without one trailing dot. Borrowed when nothing changes.
///
/// Stricter than the grammar: letters, digits, `-`, `_` and `.` only, no empty labels, no percent-encoding. IPv6 addresses
/// stand in brackets and are written as RFC 5952 says. An empty port is the default one.
///
/// # Errors
/// Anything else; user information has a reason of its own.
pub fn normalize_host(authority: &str, scheme: Scheme) -> Result<Cow<'_, str>, BadTarget> {
    if authority.is_empty() {
        return Err(BadTarget::EmptyHost);
    }
    if authority.contains('@') {
        return Err(BadTarget::UserInfo);
    }
    let (host, port) = split_port(authority)?;
    let port = match port {
        Some(digits) => parse_port(digits)?.filter(|&port| port != scheme.default_port()),
        None => None,
    };
    let name = if host.starts_with('[') { address(host)? } else { name(host)? };
    let Some(port) = port else { return Ok(name) };
    // Compared as text because of leading zeros.
    let suffix = format!(":{port}");
    if matches!(name, Cow::Borrowed(same) if same.len() + suffix.len() == authority.len())
        && authority.ends_with(&suffix)
    {
        return Ok(Cow::Borrowed(authority));
    }
    Ok(Cow::Owned(format!("{name}{suffix}")))
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), BadTarget> {
    let search = match authority.strip_prefix('[') {
        Some(rest) => 1 + rest.find(']').ok_or(BadTarget::Host)? + 1,
        None => 0,
    };
    match authority[search..].find(':') {
        Some(at) => Ok((&authority[..search + at], Some(&authority[search + at + 1..]))),
        None => Ok((authority, None)),
    }
}

/// `None`: empty, which means the default.
fn parse_port(digits: &str) -> Result<Option<u16>, BadTarget> {
    if digits.is_empty() {
        return Ok(None);
    }
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadTarget::Port);
    }
    match digits.parse::<u16>() {
        Ok(0) | Err(_) => Err(BadTarget::Port),
        Ok(port) => Ok(Some(port)),
    }
}

fn name(host: &str) -> Result<Cow<'_, str>, BadTarget> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err(BadTarget::EmptyHost);
    }
    let mut lower_case = true;
    let mut previous = b'.';
    for byte in host.bytes() {
        match byte {
            b'A'..=b'Z' => lower_case = false,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' if previous != b'.' => {}
            _ => return Err(BadTarget::Host),
        }
        previous = byte;
    }
    if previous == b'.' || host.len() > MAX_LENGTH {
        return Err(BadTarget::Host);
    }
    Ok(if lower_case { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) })
}

fn address(host: &str) -> Result<Cow<'_, str>, BadTarget> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(BadTarget::Host)?;
    let address: Ipv6Addr = inner.parse().map_err(|_| BadTarget::Host)?;
    let canonical = address.to_string();
    Ok(if canonical == inner { Cow::Borrowed(host) } else { Cow::Owned(format!("[{canonical}]")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(authority: &str) -> Result<Cow<'_, str>, BadTarget> {
        normalize_host(authority, Scheme::Https)
    }

    #[test]
    fn normal_hosts_are_borrowed() {
        for authority in [
            "a.example",
            "localhost",
            "a_b.example",
            "10.0.0.1",
            "a.example:8443",
            "[::1]",
            "[::1]:80",
            "xn--4ca.example",
        ] {
            assert!(matches!(host(authority), Ok(Cow::Borrowed(same)) if same == authority), "{authority}");
        }
    }

    #[test]
    fn equivalent_hosts_become_one() {
        for authority in
            ["A.Example", "a.example.", "a.example:443", "a.example.:0443", "a.example:", "A.EXAMPLE.:443"]
        {
            assert_eq!(host(authority).unwrap(), "a.example", "{authority}");
        }
        assert_eq!(normalize_host("a:80", Scheme::Http).unwrap(), "a");
        assert_eq!(normalize_host("a:443", Scheme::Http).unwrap(), "a:443");
        assert_eq!(host("a.:08443").unwrap(), "a:8443");
        assert_eq!(host("[0:0::1]:443").unwrap(), "[::1]");
        assert_eq!(host("[FE80::A]").unwrap(), "[fe80::a]");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for (authority, reason) in [
            ("", BadTarget::EmptyHost),
            (".", BadTarget::EmptyHost),
            (":80", BadTarget::EmptyHost),
            ("u@a", BadTarget::UserInfo),
            ("u:p@a", BadTarget::UserInfo),
            ("a..b", BadTarget::Host),
            ("a..", BadTarget::Host),
            (".a", BadTarget::Host),
            ("a b", BadTarget::Host),
            ("a/b", BadTarget::Host),
            ("a%41", BadTarget::Host),
            ("é", BadTarget::Host),
            ("a,b", BadTarget::Host),
            ("a\tb", BadTarget::Host),
            ("a?b", BadTarget::Host),
            ("[::1", BadTarget::Host),
            ("[::1]x", BadTarget::Host),
            ("[::1%25eth0]", BadTarget::Host),
            ("[v1.a]", BadTarget::Host),
            ("[]", BadTarget::Host),
            ("a:x", BadTarget::Port),
            ("a:0", BadTarget::Port),
            ("a:65536", BadTarget::Port),
            ("a:+80", BadTarget::Port),
            ("a:80:80", BadTarget::Port),
        ] {
            assert_eq!(host(authority), Err(reason), "{authority}");
        }
        assert_eq!(host(&"a".repeat(256)), Err(BadTarget::Host));
    }
}
