//! Out of a coding, a bounded piece at a time: however much a few bytes unfold to, no more than a piece is in memory,
//! and a body that unfolds to more than is allowed is given up. No ratio is: gzip reaches 1032 to one, and the others more, by
//! honest bodies.

use std::fmt;
use std::io;

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

use super::transcoder::Failure;
use crate::rules::encoding::Coding;

/// As encoders are asked to: RFC 8878 recommends that decoders take 8 MiB; one bit more for who did not.
const ZSTD_WINDOW_BITS: u32 = 24;
const GZIP_WINDOW_BITS: u8 = 15;

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

enum Kind {
    Br(Box<Brotli>),
    Zstd(Box<ZstdDecoder<'static>>),
    Gzip(Box<Decompress>),
}

/// See the module.
pub(super) struct Decoder {
    kind: Kind,
    /// Bytes that a body may unfold to.
    most: u64,
    given: u64,
    /// At the end of a frame or a member, where a body may end.
    is_at_end: bool,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("given", &self.given).finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder of a body that unfolds to `most` bytes; `None`: for no coding at all.
    pub(super) fn new(coding: Coding, most: u64) -> io::Result<Option<Self>> {
        let kind = match coding {
            Coding::Identity => return Ok(None),
            Coding::Br => {
                let alloc = StandardAlloc::default;
                let mut state = BrotliState::new(alloc(), alloc(), alloc());
                // Not what `br` means (RFC 7932), and up to a gigabyte.
                state.large_window = false;
                Kind::Br(Box::new(state))
            }
            Coding::Zstd => {
                let mut decoder = ZstdDecoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_BITS))?;
                Kind::Zstd(Box::new(decoder))
            }
            Coding::Gzip => Kind::Gzip(Box::new(Decompress::new_gzip(GZIP_WINDOW_BITS))),
            // What is encoded against dictionaries is never decoded here.
            Coding::Dcb | Coding::Dcz => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Some(Self { kind, most, given: 0, is_at_end: false }))
    }

    /// Decodes as much as `output` takes; gives what was read and written. Neither: there is nothing more to be had of
    /// this input.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Failure> {
        let (read, written) = match &mut self.kind {
            Kind::Br(state) => {
                if self.is_at_end {
                    return if input.is_empty() { Ok((0, 0)) } else { Err(Failure::Malformed) };
                }
                let (mut available_in, mut read) = (input.len(), 0);
                let (mut available_out, mut written, mut total) = (output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut available_in,
                    &mut read,
                    input,
                    &mut available_out,
                    &mut written,
                    output,
                    &mut total,
                    state,
                );
                match result {
                    BrotliResult::ResultFailure => return Err(Failure::Malformed),
                    BrotliResult::ResultSuccess => self.is_at_end = true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                }
                (read, written)
            }
            Kind::Zstd(decoder) => {
                if self.is_at_end && input.is_empty() {
                    return Ok((0, 0));
                }
                let status = decoder.run_on_buffers(input, output).map_err(|_| Failure::Malformed)?;
                self.is_at_end = status.remaining == 0;
                (status.bytes_read, status.bytes_written)
            }
            Kind::Gzip(decoder) => {
                if self.is_at_end {
                    if input.is_empty() {
                        return Ok((0, 0));
                    }
                    // Members may follow one another (RFC 1952 §2.2).
                    **decoder = Decompress::new_gzip(GZIP_WINDOW_BITS);
                    self.is_at_end = false;
                }
                let (before_in, before_out) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, output, FlushDecompress::None);
                let status = status.map_err(|_| Failure::Malformed)?;
                self.is_at_end = status == Status::StreamEnd;
                ((decoder.total_in() - before_in) as usize, (decoder.total_out() - before_out) as usize)
            }
        };
        self.given += written as u64;
        if self.given > self.most {
            return Err(Failure::TooLarge);
        }
        Ok((read, written))
    }

    /// Whether the body may end here.
    pub(super) fn is_at_end(&self) -> bool {
        self.is_at_end
    }
}
