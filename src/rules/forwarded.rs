//! `Forwarded` (RFC 7239), read from its right end.
//!
//! Each proxy appends an element, so the rightmost is of the nearest, and what stands left of it may be anybody's. Read from
//! the left, a quote that a client leaves open would swallow what the proxy says; from the right, an element that a
//! proxy has written well is found whatever stands before it.

use std::net::{IpAddr, SocketAddr};

use super::fields::is_tchar;

/// What an element says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Who asked, where it is an address; `unknown` and names that hide one are none.
    pub address: Option<IpAddr>,
    /// Whether by https, where it says how.
    pub is_https: Option<bool>,
}

/// The elements of a line, the last first; `None` is one that can't be read. Empty ones are passed over (RFC 9110 §5.6.1).
pub fn from_the_right(line: &str) -> impl Iterator<Item = Option<Element>> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        loop {
            let element = match last_element(rest?) {
                Some((before, element)) => {
                    rest = before;
                    element.trim_matches([' ', '\t'])
                }
                None => {
                    rest = None;
                    return Some(None);
                }
            };
            if !element.is_empty() {
                return Some(parse(element));
            }
        }
    })
}

/// The last element, and what stands before its comma; `None`: within a quote that is not opened.
fn last_element(line: &str) -> Option<(Option<&str>, &str)> {
    let bytes = line.as_bytes();
    let mut is_quoted = false;
    for at in (0..bytes.len()).rev() {
        match bytes[at] {
            b'"' => {
                let escapes = bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                // Within, an escaped one is of the text.
                is_quoted = !is_quoted || escapes % 2 == 1;
            }
            b',' if !is_quoted => return Some((Some(&line[..at]), &line[at + 1..])),
            _ => {}
        }
    }
    (!is_quoted).then_some((None, line))
}

/// An element: pairs of a token and a token or quoted string.
fn parse(mut rest: &str) -> Option<Element> {
    let mut element = Element::default();
    let (mut has_for, mut has_proto) = (false, false);
    loop {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        let is_again = if name.eq_ignore_ascii_case("for") {
            element.address = node(&value);
            std::mem::replace(&mut has_for, true)
        } else if name.eq_ignore_ascii_case("proto") {
            element.is_https = Some(value.eq_ignore_ascii_case("https"));
            std::mem::replace(&mut has_proto, true)
        } else {
            false
        };
        if is_again || name.is_empty() || !name.bytes().all(is_tchar) {
            return None;
        }
        let after = after.trim_start_matches([' ', '\t']);
        if after.is_empty() {
            return Some(element);
        }
        // A semicolon at the end is what some write.
        rest = after.strip_prefix(';')?.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return Some(element);
        }
    }
}

/// A value, and what stands behind it. An address with its colons and brackets without quotes is no token, and is what
/// some write.
fn value(rest: &str) -> Option<(String, &str)> {
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([';', ' ', '\t']).unwrap_or(rest.len());
        let (value, after) = rest.split_at(end);
        let is_value = !value.is_empty()
            && value.bytes().all(|byte| is_tchar(byte) || matches!(byte, b':' | b'[' | b']'));
        return is_value.then(|| (value.to_owned(), after));
    };
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(chars.next()?.1),
            _ => text.push(char),
        }
    }
    None
}

/// An address, perhaps with a port: the node of RFC 7239 §6, and what stands in `X-Forwarded-For`. One of IPv6 may stand
/// without brackets there. `None`: a name, `unknown`, or nothing that can be read.
pub fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let parsed = text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|it| it.ip()));
    let parsed = parsed.or_else(|| {
        let (address, port) = match text.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?,
            None => text.split_at(text.find(':')?),
        };
        let is_port = port.is_empty() || port.strip_prefix(":_").is_some_and(is_obfuscated);
        let is_v6 = text.starts_with('[');
        address.parse::<IpAddr>().ok().filter(|it| is_port && it.is_ipv6() == is_v6)
    });
    parsed.map(|address| address.to_canonical())
}

/// What follows the underscore of a hidden port (RFC 7239 §6.3).
fn is_obfuscated(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(line: &str) -> Vec<Option<String>> {
        let address = |element: Option<Element>| Some(element?.address?.to_string());
        from_the_right(line).map(address).collect()
    }

    fn last(line: &str) -> Option<Element> {
        from_the_right(line).next().flatten()
    }

    #[test]
    fn nodes_are_addresses_with_and_without_ports() {
        for (text, address) in [
            ("192.0.2.1", Some("192.0.2.1")),
            (" 192.0.2.1:80 ", Some("192.0.2.1")),
            ("192.0.2.1:_http", Some("192.0.2.1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("[2001:db8::1]:_a.b-c", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[::ffff:192.0.2.1]", Some("192.0.2.1")),
            ("unknown", None),
            ("_hidden", None),
            ("[192.0.2.1]", None),
            ("[2001:db8::1", None),
            ("[2001:db8::1]4711", None),
            ("192.0.2.1:", None),
            ("192.0.2.1:_", None),
            ("192.0.2.1:99999", None),
            ("", None),
        ] {
            assert_eq!(node(text).map(|it| it.to_string()).as_deref(), address, "{text}");
        }
    }

    #[test]
    fn elements_come_from_the_right() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            addresses("for=192.0.2.43, FOR=\"[2001:db8:cafe::17]:4711\";proto=http , for=unknown"),
            [None, some("2001:db8:cafe::17"), some("192.0.2.43")]
        );
        assert_eq!(addresses("for=_gazonk,, ,for=198.51.100.17,"), [some("198.51.100.17"), None]);
        assert_eq!(addresses(""), []);
        let element = last("for=192.0.2.60;proto=HTTPS;by=203.0.113.43;host=\"a, b;c=\\\"d\\\"\"");
        assert_eq!(element, Some(Element { address: node("192.0.2.60"), is_https: Some(true) }));
        assert_eq!(last("proto=http"), Some(Element { address: None, is_https: Some(false) }));
        assert_eq!(last("For=192.0.2.1; proto=https ;"), last("for=192.0.2.1;proto=https"));
    }

    #[test]
    fn what_is_written_badly_says_nothing() {
        for bad in
            ["192.0.2.1", "for=", "for=\"192.0.2.1", "for = 192.0.2.1", "for=\"a\"b", "for=1;for=2", "=a"]
        {
            assert_eq!(last(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_client_can_not_swallow_what_the_proxy_appends() {
        for claim in ["for=\"", "for=1.2.3.4;x=\"", "for=1.2.3.4;x=\"\\", "\"\\\"", "for=\",\"", "\\"] {
            let line = format!("{claim}, for=192.0.2.66;proto=https;host=\"evil\"");
            assert_eq!(last(&line).and_then(|element| element.address), node("192.0.2.66"), "{line}");
        }
    }

    proptest! {
        #[test]
        fn the_last_element_is_the_nearest_proxys_whatever_stands_before(claim in "[ -~]{0,60}|[for=1.,;\"\\\\ ]{0,40}") {
            let line = format!("{claim},for=\"[2001:db8::1]:4711\";proto=https");
            let element = Element { address: node("2001:db8::1"), is_https: Some(true) };
            prop_assert_eq!(last(&line), Some(element));
            prop_assert!(from_the_right(&claim).count() <= claim.len() + 1);
        }
    }
}
