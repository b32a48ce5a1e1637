//! Age never exceeds the number that means "for ever".

use http::header::AGE;
use larder::rules::age;

pub(crate) fn run(data: &[u8]) {
    assert!(age::parse(&super::field(&AGE, data)) <= 1 << 31);
}
