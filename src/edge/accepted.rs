//! What clients accept, remembered: there are few kinds of browsers, and each says the same all day.

use std::cell::RefCell;

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use crate::rules::encoding::{self, Accepted};

/// Longer lines are read each time.
const LINE_BYTES: usize = 48;
/// Lines that a thread remembers; a power of two.
const LINES: usize = 16;

#[derive(Clone, Copy)]
struct Known {
    line: [u8; LINE_BYTES],
    length: usize,
    accepted: Accepted,
}

thread_local! {
    static KNOWN: RefCell<[Option<Known>; LINES]> = const { RefCell::new([None; LINES]) };
}

/// As [`encoding::accepted`].
pub(super) fn accepted(request: &HeaderMap) -> Accepted {
    let mut lines = request.get_all(ACCEPT_ENCODING).iter();
    let line = match (lines.next(), lines.next()) {
        (Some(line), None) if line.len() <= LINE_BYTES => line.as_bytes(),
        _ => return encoding::accepted(request),
    };
    // Lines of one length are nearly always the same.
    KNOWN.with_borrow_mut(|known| match &mut known[line.len() % LINES] {
        Some(known) if known.line[..known.length] == *line => known.accepted,
        place => {
            let accepted = encoding::accepted(request);
            let mut known = Known { line: [0; LINE_BYTES], length: line.len(), accepted };
            known.line[..line.len()].copy_from_slice(line);
            *place = Some(known);
            accepted
        }
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_remembered_is_what_the_line_says(
            lines in proptest::collection::vec("[a-z,;=.0-9 *]{0,60}|gzip|br|br;q=0|zstd|gzip, br, zstd", 0..40)
        ) {
            for pair in lines.windows(2) {
                for count in [0, 1, 1, 2] {
                    let mut request = HeaderMap::new();
                    for line in &pair[..count] {
                        request.append(ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
                    }
                    prop_assert_eq!(accepted(&request), encoding::accepted(&request));
                }
            }
        }
    }
}
