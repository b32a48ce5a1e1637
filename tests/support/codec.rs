//! Content codings, by the same libraries: what is tested is who gets which bytes.

use std::io::{Read as _, Write as _};

pub fn encode(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding {
        "br" => {
            let mut out = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            out.write_all(body).unwrap();
            out.into_inner()
        }
        "zstd" => zstd::encode_all(body, 3).unwrap(),
        "gzip" => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            out.write_all(body).unwrap();
            out.finish().unwrap()
        }
        _ => body.to_vec(),
    }
}

pub fn decode(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "br" => brotli::Decompressor::new(body, 4096).read_to_end(&mut out).unwrap(),
        "zstd" => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut out).unwrap(),
        "gzip" => flate2::read::MultiGzDecoder::new(body).read_to_end(&mut out).unwrap(),
        _ => {
            out.extend_from_slice(body);
            0
        }
    };
    out
}

/// `Available-Dictionary` for these bytes.
pub fn dictionary_field(dictionary: &[u8]) -> String {
    format!(":{}:", base64(&sha256(dictionary)))
}

/// RFC 9842 §4 and §5.
pub fn decode_against(coding: &str, dictionary: &[u8], body: &[u8]) -> Vec<u8> {
    let magic: &[u8] = if coding == "dcb" { b"\xffDCB" } else { b"\x5e\x2a\x4d\x18\x20\0\0\0" };
    let rest = body.strip_prefix(magic).unwrap().strip_prefix(&sha256(dictionary)[..]).unwrap();
    let mut out = Vec::new();
    if coding == "dcb" {
        let mut decoder = brotli::Decompressor::new_with_custom_dict(rest, 4096, dictionary.to_vec().into());
        decoder.read_to_end(&mut out).unwrap();
    } else {
        let mut decoder = zstd::stream::read::Decoder::with_dictionary(rest, dictionary).unwrap();
        decoder.read_to_end(&mut out).unwrap();
    }
    out
}

fn sha256(data: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data).as_ref().to_vec()
}

fn base64(data: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in data.chunks(3) {
        let bits =
            group.iter().chain(&[0; 2]).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for i in 0..4 {
            out.push(if i <= group.len() { DIGITS[bits >> (18 - 6 * i) & 63].into() } else { '=' });
        }
    }
    out
}
