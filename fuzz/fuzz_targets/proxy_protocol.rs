#![no_main]

#[path = "../src_shared/mod.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared::proxy_protocol::run(data));
