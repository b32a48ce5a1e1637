//! The bodies of the fuzz targets. `replay.rs` runs the same functions over the seed corpora on stable Rust.
//!
//! A body panics when a property is broken; otherwise it only has to return.

// Each fuzz target uses one of them.
#![allow(dead_code)]

pub(crate) mod age;
pub(crate) mod cache_control;
pub(crate) mod date;
pub(crate) mod etag;
pub(crate) mod if_range;
pub(crate) mod proxy_protocol;
pub(crate) mod range;
pub(crate) mod response;
pub(crate) mod signed;
pub(crate) mod structured;
pub(crate) mod url;
pub(crate) mod vary;

use http::{HeaderMap, HeaderName, HeaderValue};

/// One field line for each line of the data; what is no field value is left out.
fn field(name: &HeaderName, data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|&b| b == b'\n').take(100) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    headers
}

/// Lines of `name: value`; what is none is left out.
fn head(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|&b| b == b'\n').take(100) {
        let Some(colon) = line.iter().position(|&b| b == b':') else {
            continue;
        };
        let value = line[colon + 1..].trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

/// A number at the beginning, and the rest.
fn number(data: &[u8]) -> (u64, &[u8]) {
    match data.split_first_chunk::<8>() {
        Some((number, rest)) => (u64::from_le_bytes(*number), rest),
        None => (100, data),
    }
}

/// The part before the first empty line, and the part after it.
fn two_parts(data: &[u8]) -> (&[u8], &[u8]) {
    match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &[]),
    }
}
