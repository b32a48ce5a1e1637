//! Encoding against a dictionary that the client has (RFC 9842): what comes out begins with the dictionary's hash.

use std::io::{self, Read as _};

use brotli::enc::encode::{BrotliEncoderOperation, BrotliEncoderStateStruct};
use brotli::enc::{BrotliEncoderParams, StandardAlloc};
use bytes::Bytes;

use crate::rules::dictionary::DictionaryHash;

/// RFC 9842 §4: the begin of `dcb`.
const DCB_MAGIC: [u8; 4] = [0xff, b'D', b'C', b'B'];
/// RFC 9842 §5: the begin of `dcz`, a skippable frame.
const DCZ_MAGIC: [u8; 8] = [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0];
/// What begins like this is no raw dictionary to every decoder of zstd (RFC 8878 §5).
const ZSTD_DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];
/// RFC 9842 §4: a decoder need not take more than 16 MiB of brotli's window.
const MOST_WINDOW_BITS: u32 = 24;
const LEAST_WINDOW_BITS: u32 = 16;
const OUTPUT_BYTES: usize = 64 * 1024;

/// A dictionary and its hash.
#[derive(Clone, Debug)]
pub struct Dictionary {
    /// The SHA-256 of its bytes.
    pub hash: DictionaryHash,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Dictionary {
    /// What `bytes` are as a dictionary; takes milliseconds for a large one.
    #[must_use]
    pub fn of(bytes: Bytes) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes).as_ref());
        Self { hash: DictionaryHash(hash), bytes }
    }

    /// Whether every decoder takes it for what it is.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        !self.bytes.starts_with(&ZSTD_DICTIONARY_MAGIC)
    }

    pub(super) fn dcz_header(&self) -> Vec<u8> {
        [&DCZ_MAGIC[..], &self.hash.0].concat()
    }
}

/// `dcb`, in one go: what went in is held, as is the dictionary.
pub(super) struct Dcb {
    dictionary: Dictionary,
    quality: i32,
    input: Vec<u8>,
}

impl Dcb {
    pub(super) fn new(dictionary: Dictionary, quality: u32) -> Self {
        Self { dictionary, quality: quality as i32, input: Vec::new() }
    }

    pub(super) fn write(&mut self, data: &[u8]) {
        self.input.extend_from_slice(data);
    }

    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        let dictionary = &self.dictionary.bytes;
        // What of the dictionary is out of the window can't be referred to.
        let reach = (dictionary.len() + self.input.len() + 16).next_power_of_two().ilog2();
        let mut state = BrotliEncoderStateStruct::new(StandardAlloc::default());
        state.params = BrotliEncoderParams {
            quality: self.quality,
            lgwin: reach.clamp(LEAST_WINDOW_BITS, MOST_WINDOW_BITS) as i32,
            size_hint: self.input.len(),
            ..BrotliEncoderParams::default()
        };
        state.set_custom_dictionary(dictionary.len(), dictionary);
        let mut out = [&DCB_MAGIC[..], &self.dictionary.hash.0].concat();
        let mut buffer = vec![0; OUTPUT_BYTES];
        let (mut available_in, mut read) = (self.input.len(), 0);
        while !state.is_finished() {
            let (mut available_out, mut written) = (buffer.len(), 0);
            let is_ok = state.compress_stream(
                BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
                &mut available_in,
                &self.input,
                &mut read,
                &mut available_out,
                &mut buffer,
                &mut written,
                &mut None,
                &mut |_, _, _, _| (),
            );
            if !is_ok {
                return Err(io::ErrorKind::InvalidData.into());
            }
            out.extend_from_slice(&buffer[..written]);
        }
        self.check(&out[DCB_MAGIC.len() + self.dictionary.hash.0.len()..])?;
        Ok(out)
    }

    /// Decodes what was encoded, which costs little beside that: of some inputs this encoder makes with a dictionary what
    /// no decoder takes.
    fn check(&self, encoded: &[u8]) -> io::Result<()> {
        let dictionary = self.dictionary.bytes.to_vec().into();
        let mut decoder = brotli::Decompressor::new_with_custom_dict(encoded, OUTPUT_BYTES, dictionary);
        let (mut rest, mut piece) = (&self.input[..], vec![0; OUTPUT_BYTES]);
        loop {
            match decoder.read(&mut piece)? {
                0 if rest.is_empty() => return Ok(()),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    rest = rest.strip_prefix(&piece[..read]).ok_or(io::ErrorKind::InvalidData)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Failure, Level, Transcoder};
    use super::*;
    use crate::rules::encoding::Coding;

    const MOST: u64 = 64 << 20;

    fn encode(dictionary: &Dictionary, to: Coding, level: Level, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let length = Some(body.len() as u64);
        let mut transcoder =
            Transcoder::against(Some(dictionary), Coding::Identity, to, level, length, MOST)?;
        let mut out = Vec::new();
        transcoder.feed(Bytes::copy_from_slice(body));
        while let Some(piece) = transcoder.next_piece()? {
            out.extend_from_slice(&piece);
        }
        transcoder.end();
        while let Some(piece) = transcoder.next_piece()? {
            out.extend_from_slice(&piece);
        }
        Ok(out)
    }

    fn decode(dictionary: &Dictionary, coding: Coding, encoded: &[u8]) -> Vec<u8> {
        let magic = if coding == Coding::Dcb { &DCB_MAGIC[..] } else { &DCZ_MAGIC };
        let rest = encoded.strip_prefix(magic).unwrap().strip_prefix(&dictionary.hash.0).unwrap();
        let mut out = Vec::new();
        if coding == Coding::Dcb {
            let dictionary = dictionary.bytes.to_vec().into();
            brotli::Decompressor::new_with_custom_dict(rest, 4096, dictionary).read_to_end(&mut out).unwrap();
        } else {
            let mut decoder = zstd::stream::read::Decoder::with_dictionary(rest, &dictionary.bytes).unwrap();
            decoder.read_to_end(&mut out).unwrap();
        }
        out
    }

    fn text(lines: std::ops::Range<u32>) -> Vec<u8> {
        let line =
            |i: u32| format!("export function f{}() {{ return {} }}\n", i.wrapping_mul(2_654_435_761), i);
        lines.flat_map(|i| line(i).into_bytes()).collect()
    }

    #[test]
    fn a_new_version_costs_its_difference() {
        let old = Dictionary::of(text(0..4000).into());
        let new = [text(0..2000), b"let added = 1\n".to_vec(), text(2000..4100)].concat();
        for coding in [Coding::Dcb, Coding::Dcz] {
            for level in [Level::High, Level::Best] {
                let encoded = encode(&old, coding, level, &new).unwrap();
                assert!(decode(&old, coding, &encoded) == new);
                assert!(encoded.len() < 4000, "{coding:?} {level:?}: {}", encoded.len());
            }
        }
    }

    #[test]
    fn the_hash_is_that_of_the_standard() {
        // RFC 6234 §8.5.
        let hash = Dictionary::of(Bytes::from_static(b"abc")).hash.to_hex();
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn decoding_undoes_encoding(
            dictionary in proptest::collection::vec(any::<u8>(), 16..5000),
            from in 0_usize..5000,
            noise in proptest::collection::vec(any::<u8>(), 0..3000),
            repeat in 0_usize..40,
            is_best in any::<bool>(),
        ) {
            let known = &dictionary[from.min(dictionary.len())..];
            let body = [&noise[..], &known.repeat(repeat), &noise, &dictionary].concat();
            let dictionary = Dictionary::of(dictionary.clone().into());
            let level = if is_best { Level::Best } else { Level::High };
            prop_assume!(dictionary.is_raw());
            for coding in [Coding::Dcb, Coding::Dcz] {
                // Now and then there is none, for want of one that can be decoded.
                let encoded = match encode(&dictionary, coding, level, &body) {
                    Err(_) if coding == Coding::Dcb => continue,
                    encoded => encoded.unwrap(),
                };
                prop_assert!(decode(&dictionary, coding, &encoded) == body);
            }
        }
    }
}
