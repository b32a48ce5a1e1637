//! Into a coding.

use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder as ZstdEncoder;

use super::dictionary::{Dcb, Dictionary};
use crate::rules::encoding::Coding;

/// How much time is taken for how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// While a client waits.
    Fast,
    /// At rest.
    High,
    /// As small as can be.
    Best,
}

/// RFC 9659: a decoder need not take more than 8 MiB of zstd's window; brotli is given half of that.
const ZSTD_WINDOW_BITS: u32 = 23;
const BROTLI_WINDOW_BITS: u32 = 22;
const BROTLI_MIN_WINDOW_BITS: u32 = 16;
const BROTLI_BUFFER_BYTES: usize = 64 * 1024;

const NO_DICTIONARY: io::ErrorKind = io::ErrorKind::InvalidInput;

/// By coding and level; `benches/encodings` has what each costs and brings.
fn quality(coding: Coding, level: Level) -> u32 {
    let [fast, high, best] = match coding {
        Coding::Identity => [0; 3],
        Coding::Br | Coding::Dcb => [1, 9, 11],
        Coding::Zstd | Coding::Dcz => [1, 12, 19],
        Coding::Gzip => [1, 7, 9],
    };
    match level {
        Level::Fast => fast,
        Level::High => high,
        Level::Best => best,
    }
}

enum Kind {
    Br(Box<CompressorWriter<Vec<u8>>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
    Dcb(Dcb),
}

/// See the module.
pub(super) struct Encoder(Kind);

impl Encoder {
    /// An encoder of `length` bytes, as far as that is known, against a dictionary where the coding needs one; `None`: for
    /// no coding at all.
    pub(super) fn new(
        coding: Coding,
        level: Level,
        length: Option<u64>,
        dictionary: Option<&Dictionary>,
    ) -> io::Result<Option<Self>> {
        let quality = quality(coding, level);
        Ok(Some(Self(match coding {
            Coding::Identity => return Ok(None),
            Coding::Br => {
                let params = BrotliEncoderParams {
                    quality: quality as i32,
                    lgwin: window_bits(length) as i32,
                    size_hint: usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX),
                    ..BrotliEncoderParams::default()
                };
                Kind::Br(Box::new(CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER_BYTES, &params)))
            }
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), quality as i32)?;
                if length.is_none_or(|length| length > 1 << ZSTD_WINDOW_BITS) {
                    encoder.set_parameter(CParameter::WindowLog(match level {
                        Level::Fast => 19,
                        Level::High | Level::Best => ZSTD_WINDOW_BITS,
                    }))?;
                }
                encoder.set_pledged_src_size(length)?;
                Kind::Zstd(encoder)
            }
            Coding::Gzip => Kind::Gzip(GzEncoder::new(Vec::new(), Compression::new(quality))),
            Coding::Dcb => Kind::Dcb(Dcb::new(dictionary.ok_or(NO_DICTIONARY)?.clone(), quality)),
            Coding::Dcz => {
                let dictionary = dictionary.ok_or(NO_DICTIONARY)?;
                let header = dictionary.dcz_header();
                let mut encoder = ZstdEncoder::with_dictionary(header, quality as i32, &dictionary.bytes)?;
                encoder.set_pledged_src_size(length)?;
                Kind::Zstd(encoder)
            }
        })))
    }

    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Kind::Br(encoder) => encoder.write_all(data),
            Kind::Zstd(encoder) => encoder.write_all(data),
            Kind::Gzip(encoder) => encoder.write_all(data),
            Kind::Dcb(encoder) => {
                encoder.write(data);
                Ok(())
            }
        }
    }

    /// Brings out all that went in.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Br(encoder) => encoder.flush(),
            Kind::Zstd(encoder) => encoder.flush(),
            Kind::Gzip(encoder) => encoder.flush(),
            // Never while a client waits.
            Kind::Dcb(_) => Ok(()),
        }
    }

    /// How much is there to be taken.
    pub(super) fn ready(&self) -> usize {
        match &self.0 {
            Kind::Br(encoder) => encoder.get_ref().len(),
            Kind::Zstd(encoder) => encoder.get_ref().len(),
            Kind::Gzip(encoder) => encoder.get_ref().len(),
            Kind::Dcb(_) => 0,
        }
    }

    /// What has come out so far.
    pub(super) fn take(&mut self) -> Vec<u8> {
        match &mut self.0 {
            Kind::Br(encoder) => std::mem::take(encoder.get_mut()),
            Kind::Zstd(encoder) => std::mem::take(encoder.get_mut()),
            Kind::Gzip(encoder) => std::mem::take(encoder.get_mut()),
            Kind::Dcb(_) => Vec::new(),
        }
    }

    /// The rest.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self.0 {
            Kind::Br(encoder) => Ok(encoder.into_inner()),
            Kind::Zstd(encoder) => encoder.finish(),
            Kind::Gzip(encoder) => encoder.finish(),
            Kind::Dcb(encoder) => encoder.finish(),
        }
    }
}

/// A window that holds it all, within bounds: a smaller one takes less memory.
fn window_bits(length: Option<u64>) -> u32 {
    let bits = length.map_or(BROTLI_WINDOW_BITS, |length| length.max(1).next_power_of_two().ilog2());
    bits.clamp(BROTLI_MIN_WINDOW_BITS, BROTLI_WINDOW_BITS)
}
