//! Paths: dot segments and percent-encoding (RFC 3986 §6.2.2).

use std::borrow::Cow;

use super::{key::BadTarget, structured::percent};

/// Normalises once: unreserved characters are decoded, the other triplets get upper-case digits, raw bytes beyond ASCII are
/// encoded, dot segments (also `%2e`) are removed. `//` and `%2F` are kept: to an origin they may be another resource.
/// A "%" that begins no triplet is kept as it is and never made one.
///
/// Borrowed when nothing changes, which one scan finds out: this is on the hit path. An empty path is "/".
///
/// # Errors
/// Control characters, spaces, `?`, `#`, and a path that does not begin with "/".
pub fn normalize_path(raw: &str) -> Result<Cow<'_, str>, BadTarget> {
    match raw.as_bytes() {
        [] => return Ok(Cow::Borrowed("/")),
        [b'/', ..] => {}
        _ => return Err(BadTarget::NotAbsolute),
    }
    if is_normal(raw.as_bytes())? {
        return Ok(Cow::Borrowed(raw));
    }
    let decoded = normalize_encoding(raw.as_bytes());
    Ok(Cow::Owned(remove_dot_segments(&decoded)))
}

/// Cheap and on the safe side: some paths that are normal go through the slow way, where they come out unchanged.
fn is_normal(path: &[u8]) -> Result<bool, BadTarget> {
    let mut normal = true;
    let mut previous = 0;
    for (at, &byte) in path.iter().enumerate() {
        match byte {
            0..=b' ' | 0x7F | b'?' | b'#' => return Err(BadTarget::PathCharacter),
            0x80.. => normal = false,
            b'.' if previous == b'/' => normal &= !is_dot_segment(&path[at..]),
            b'%' => normal &= is_normal_percent(path, at),
            _ => {}
        }
        previous = byte;
    }
    Ok(normal)
}

fn is_dot_segment(rest: &[u8]) -> bool {
    matches!(rest, [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..])
}

/// Whether [`normalize_encoding`] leaves the "%" at `at` and what it introduces alone.
fn is_normal_percent(path: &[u8], at: usize) -> bool {
    match triplet(&path[at..]) {
        Some(byte) => {
            path[at..at + 3] == percent(byte) && (!is_unreserved(byte) || would_complete(&path[..at], byte))
        }
        None => true,
    }
}

fn normalize_encoding(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 16);
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let (meant, plain, length) = match triplet(&path[at..]) {
            Some(decoded) => (decoded, is_unreserved(decoded) && !would_complete(&out, decoded), 3),
            None => (byte, byte.is_ascii(), 1),
        };
        if plain {
            out.push(meant);
        } else {
            out.extend_from_slice(&percent(meant));
        }
        at += length;
    }
    out
}

/// Whether `byte`, decoded, would become part of a triplet that was none: `%2%35` must not become `%25`.
fn would_complete(before: &[u8], byte: u8) -> bool {
    byte.is_ascii_hexdigit()
        && match before {
            [.., b'%'] => true,
            // The "%" of a whole triplet is further away, so this one stands alone.
            [.., b'%', digit] => digit.is_ascii_hexdigit(),
            _ => false,
        }
}

/// The byte that a valid `%XX` at the beginning stands for.
pub(super) fn triplet(rest: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = rest else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 §5.2.4, on a path of ASCII that begins with "/".
fn remove_dot_segments(path: &[u8]) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.strip_prefix(b"/").unwrap_or(path).split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                let parent = out.iter().rposition(|&b| b == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if last {
            out.push(b'/');
        }
    }
    // All of it is ASCII: what was not has been encoded.
    String::from_utf8(out).unwrap_or_else(|_| String::from("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str) -> String {
        normalize_path(path).unwrap().into_owned()
    }

    #[test]
    fn normal_paths_are_borrowed() {
        for path in [
            "/",
            "/a/b.css",
            "/.well-known/x",
            "/a%2Fb",
            "//",
            "/a//b",
            "/...",
            "/a..",
            "/%",
            "/%zz",
            "/%2",
            "/a;b=c,d",
            "/%2%35",
            "/%25",
        ] {
            assert!(matches!(normalize_path(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
        }
        assert_eq!(normal(""), "/");
    }

    #[test]
    fn percent_encoding_is_normalised() {
        assert_eq!(normal("/%7euser/%41%2d%5F%2E%2f"), "/~user/A-_.%2F");
        assert_eq!(normal("/é"), "/%C3%A9");
        assert_eq!(normal("/%c3%a9"), "/%C3%A9");
        assert_eq!(normal("/a%3fb"), "/a%3Fb");
    }

    #[test]
    fn stray_percent_signs_never_become_triplets() {
        for path in ["/%2%35", "/%%41", "/%4%31"] {
            assert_eq!(normal(path), path);
        }
        assert_eq!(normal("/%%34%31"), "/%%341");
        assert_eq!(normal("/%G%41"), "/%GA");
        assert_eq!(normal("/%41%41"), "/AA");
        assert_eq!(normal("/%2541"), "/%2541");
        assert_eq!(normal("/%25%34"), "/%254");
    }

    #[test]
    fn dot_segments_are_removed() {
        for (path, wanted) in [
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/.%2e/a", "/a"),
            ("/a//../b", "/a/b"),
            ("/a/..//b", "//b"),
            ("/a/..%2Fb", "/a/..%2Fb"),
        ] {
            assert_eq!(normal(path), wanted, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in ["/a b", "/a\0", "/\u{7f}", "/a?b", "/a#b", "/a\r\nb", "/%41 "] {
            assert_eq!(normalize_path(path), Err(BadTarget::PathCharacter), "{path}");
        }
        for path in ["a", "*", "http://a/"] {
            assert_eq!(normalize_path(path), Err(BadTarget::NotAbsolute), "{path}");
        }
    }
}
