//! What we write as structured fields is read by a parser of them, and what one refuses decides nothing.

use larder::rules::{
    cache_status::{CacheStatus, Fwd},
    proxy_status::proxy_status,
    targeted::{self, Field},
};
use sfv::{Dictionary, List, Parser};

pub(crate) fn run(data: &[u8]) {
    let (number, text) = super::number(data);
    let text = String::from_utf8_lossy(text);
    let status = CacheStatus {
        hit: number % 2 == 0,
        fwd: Some(Fwd::Stale),
        ttl: Some(number.cast_signed()),
        key: Some(&text),
        detail: Some(&text),
        ..CacheStatus::default()
    };
    let mut written = Vec::new();
    status.write(&text, &mut written);
    assert!(Parser::new(&written).parse::<List>().is_ok_and(|list| list.len() == 1));
    let proxy = proxy_status(&text, &text, Some(&text));
    assert!(Parser::new(proxy.as_bytes()).parse::<List>().is_ok_and(|list| list.len() == 1));

    let headers = super::field(&"cdn-cache-control".parse().expect("a name"), data);
    let values: Vec<&[u8]> = headers.values().map(http::HeaderValue::as_bytes).collect();
    let valid =
        Parser::new(&values.join(&b", "[..])).parse::<Dictionary>().is_ok_and(|members| !members.is_empty());
    assert_eq!(targeted::decide(&headers, "larder").field == Field::CdnCacheControl, valid);
}
