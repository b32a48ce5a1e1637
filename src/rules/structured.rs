//! Writing structured fields (RFC 9651 §4.1) without allocating: they are on the hit path.

const MAX_INTEGER: i64 = 999_999_999_999_999;

pub(super) fn is_token(value: &str) -> bool {
    let starts = value.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'*');
    starts && value.bytes().all(|b| super::fields::is_tchar(b) || matches!(b, b':' | b'/'))
}

/// A token where the value can be one, else a string.
pub(super) fn write_token_or_string(value: &str, out: &mut Vec<u8>) {
    if is_token(value) {
        out.extend_from_slice(value.as_bytes());
    } else {
        write_string(value, out);
    }
}

/// A string. What ASCII strings can't hold is percent-encoded, as it would be in the URL that it mostly comes from.
pub(super) fn write_string(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(&percent(byte)),
        }
    }
    out.push(b'"');
}

/// Fifteen digits at most (RFC 9651 §3.3.1).
pub(super) fn write_integer(value: i64, out: &mut Vec<u8>) {
    let value = value.clamp(-MAX_INTEGER, MAX_INTEGER);
    if value < 0 {
        out.push(b'-');
    }
    write_decimal(value.unsigned_abs(), out);
}

pub(super) fn write_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// `%XX`, upper-case.
pub(super) const fn percent(byte: u8) -> [u8; 3] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    [b'%', HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]
}
