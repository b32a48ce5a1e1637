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
