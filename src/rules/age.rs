//! The Age field (RFC 9111 §5.1).

use http::{HeaderMap, header::AGE};

use super::fields;

/// From here on an age is "for ever". `directives` clamps lifetimes to the same number, so such a response is never fresh.
const MAX_SECS: u32 = 1 << 31;

/// The age in seconds that a response arrived with: the first member of the first line.
///
/// Anything but `1*DIGIT` is ignored and counts as 0; 2^31 - 1 and more saturate to 2^31, which no lifetime exceeds.
#[must_use]
pub fn parse(headers: &HeaderMap) -> u32 {
    let first = headers.get_all(AGE).iter().find_map(|line| fields::elements(line.as_bytes()).next());
    match first.and_then(fields::digits) {
        Some(secs) if secs >= u64::from(MAX_SECS - 1) => MAX_SECS,
        Some(secs) => u32::try_from(secs).unwrap_or(MAX_SECS),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(lines: &[&'static str]) -> u32 {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AGE, http::HeaderValue::from_static(line));
        }
        parse(&headers)
    }

    #[test]
    fn the_first_member_decides() {
        assert_eq!(age(&["7200, 0"]), 7200);
        assert_eq!(age(&["7200", "0"]), 7200);
        assert_eq!(age(&["0, 7200"]), 0);
        assert_eq!(age(&["0", "7200"]), 0);
        assert_eq!(age(&["3600", "3600"]), 3600);
    }

    #[test]
    fn what_is_no_number_is_ignored() {
        for value in ["abc", "-7200", "7200.0", "7200;foo=bar", "", "7200 s"] {
            assert_eq!(age(&[value]), 0, "{value}");
        }
        assert_eq!(age(&[]), 0);
    }

    #[test]
    fn huge_ages_saturate() {
        for value in ["2147483647", "2147483648", "2147483649", "99999999999999999999999999"] {
            assert_eq!(age(&[value]), 1 << 31, "{value}");
        }
        assert_eq!(age(&["2147483646"]), 2_147_483_646);
    }
}
