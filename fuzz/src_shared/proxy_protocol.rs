//! What is missing of a header is never overstated, and what follows a header does not change it.

use larder::net::proxy_protocol::{Parsed, parse};

pub(crate) fn run(data: &[u8]) {
    match parse(data) {
        Ok(Parsed::Header { addresses, length }) => {
            assert!((15..=data.len()).contains(&length));
            assert_eq!(parse(&data[..length]), Ok(Parsed::Header { addresses, length }));
            assert!(matches!(parse(&data[..length - 1]), Ok(Parsed::More(1))));
        }
        Ok(Parsed::More(missing)) => assert!(missing > 0 && data.len() + missing <= 16 + 4096),
        Err(_) => {}
    }
}
