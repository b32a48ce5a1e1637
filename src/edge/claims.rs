//! What a proxy tells of a client or of its URL: of anybody else these are claims.

use http::{HeaderMap, HeaderName};

use super::respond::remove_all;

/// Whether a field says what a proxy knows of a client or of its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    Nothing,
    AsProxiesDo,
    /// By a name that is the same one to an origin only.
    InDisguise,
}

/// Takes out what is not to be believed. No proxy writes these fields in another spelling.
pub(super) fn strip(headers: &mut HeaderMap, is_behind_proxy: bool) {
    let is_claimed = |name: &&HeaderName| match telling(name) {
        Telling::Nothing => false,
        Telling::AsProxiesDo => !is_behind_proxy,
        Telling::InDisguise => true,
    };
    let claimed: Vec<_> = headers.keys().filter(is_claimed).cloned().collect();
    remove_all(headers, &claimed);
}

/// Whether a field may have to be taken out; on the way of a hit.
#[inline]
pub(super) fn may_be_one(name: &HeaderName) -> bool {
    matches!(name.as_str().as_bytes(), [b'f' | b't' | b'x', ..]) && telling(name) != Telling::Nothing
}

/// Origins with a CGI-like interface (CGI, WSGI, Rack) can't tell `X_Forwarded_Host` from `X-Forwarded-Host`: some take
/// every character but letters and digits for the same one.
fn telling(name: &HeaderName) -> Telling {
    const OTHERS: [&[u8]; 8] = [
        b"forwarded",
        b"front-end-https",
        b"true-client-ip",
        b"x-client-ip",
        b"x-original-host",
        b"x-original-url",
        b"x-real-ip",
        b"x-rewrite-url",
    ];
    const BEGIN: &[u8] = b"x-forwarded";
    let name = name.as_str().as_bytes();
    let is_same =
        |(byte, known): (&u8, &u8)| byte == known || *known == b'-' && !byte.is_ascii_alphanumeric();
    let begins_with = |known: &[u8]| name.len() >= known.len() && name.iter().zip(known).all(is_same);
    let is_known =
        begins_with(BEGIN) || OTHERS.iter().any(|known| known.len() == name.len() && begins_with(known));
    if !is_known {
        return Telling::Nothing;
    }
    let is_plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    if is_plain { Telling::AsProxiesDo } else { Telling::InDisguise }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_disguise_is_known_by_its_letters() {
        let telling = |name: &'static str| telling(&HeaderName::from_static(name));
        for name in ["x-forwarded-host", "x-forwarded", "forwarded", "x-real-ip"] {
            assert_eq!(telling(name), Telling::AsProxiesDo, "{name}");
        }
        for name in
            ["x_forwarded_host", "x-forwarded_for", "x.forwarded-proto", "x_real-ip", "front_end_https"]
        {
            assert_eq!(telling(name), Telling::InDisguise, "{name}");
        }
        for name in ["x-forward", "forwarded_", "x-real-ip2", "xforwardedfor", "x_custom", "accept"] {
            assert_eq!(telling(name), Telling::Nothing, "{name}");
        }
    }
}
