//! From one coding to another, piece by piece.

use std::fmt;

use bytes::{Buf as _, Bytes};

use super::decoder::Decoder;
use super::dictionary::Dictionary;
use super::encoder::{Encoder, Level};
use crate::rules::encoding::Coding;

/// What is decoded or encoded at a time.
const PIECE_BYTES: usize = 32 * 1024;
/// The same on a thread that serves others too.
const LIVE_PIECE_BYTES: usize = 16 * 1024;

/// Why a body can't be had in another coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It is not in the coding that it is said to be in.
    #[error("the body is not in the coding that it is said to be in")]
    Malformed,
    /// It ends before its end.
    #[error("the encoded body ends too early")]
    Truncated,
    /// It unfolds to more than is allowed.
    #[error("the body unfolds to more than is allowed")]
    TooLarge,
    /// The encoder failed.
    #[error("the body can't be encoded")]
    Encoder,
}

/// What a moment's work has come to.
#[derive(Debug)]
pub enum Step {
    /// The next output.
    Piece(Bytes),
    /// Nothing yet, and there is more to do.
    More,
    /// It needs input, or it has been told of the end and this is it.
    Hungry,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// There is no more input.
    Ended,
    /// Nor output.
    Done,
}

/// See the module.
pub struct Transcoder {
    decoder: Option<Decoder>,
    encoder: Option<Encoder>,
    input: Bytes,
    state: State,
    is_live: bool,
    /// Whether what went into the encoder may still be in it.
    is_unflushed: bool,
    length: u64,
}

impl fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcoder").field("decoder", &self.decoder).finish_non_exhaustive()
    }
}

impl Transcoder {
    /// From `from` to `to`; `length` is that of what comes in, where it is known. What is decoded may be `most` bytes.
    pub fn new(
        from: Coding,
        to: Coding,
        level: Level,
        length: Option<u64>,
        most: u64,
    ) -> Result<Self, Failure> {
        Self::against(None, from, to, level, length, most)
    }

    /// The same, against a dictionary where `to` needs one.
    pub fn against(
        dictionary: Option<&Dictionary>,
        from: Coding,
        to: Coding,
        level: Level,
        length: Option<u64>,
        most: u64,
    ) -> Result<Self, Failure> {
        let length = length.filter(|_| from == Coding::Identity);
        Ok(Self {
            decoder: Decoder::new(from, most).map_err(|_| Failure::Malformed)?,
            encoder: Encoder::new(to, level, length, dictionary).map_err(|_| Failure::Encoder)?,
            input: Bytes::new(),
            state: State::Open,
            // What somebody waits for comes out as it goes in.
            is_live: level == Level::Fast,
            is_unflushed: false,
            length: 0,
        })
    }

    /// Gives it the next input; when [`Transcoder::next_piece`] has asked for it.
    pub fn feed(&mut self, input: Bytes) {
        self.input = input;
    }

    /// There is no more input.
    pub fn end(&mut self) {
        self.state = State::Ended;
    }

    /// Bytes of the content so far, in no coding.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next output. `None`: it needs input, or it has been told of the end and this is it.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.step()? {
                Step::Piece(piece) => return Ok(Some(piece)),
                Step::More => {}
                Step::Hungry => return Ok(None),
            }
        }
    }

    /// Goes on by one piece of the content, for who has others to serve as well.
    pub fn step(&mut self) -> Result<Step, Failure> {
        if self.state == State::Done {
            return Ok(Step::Hungry);
        }
        let piece = self.decoded()?;
        self.length += piece.len() as u64;
        if piece.is_empty() {
            let rest = if self.state == State::Ended { self.finish() } else { self.flush() }?;
            return Ok(rest.map_or(Step::Hungry, Step::Piece));
        }
        let most = self.piece_bytes();
        let Some(encoder) = &mut self.encoder else { return Ok(Step::Piece(piece)) };
        encoder.write(&piece).map_err(|_| Failure::Encoder)?;
        self.is_unflushed = true;
        Ok(if encoder.ready() >= most { Step::Piece(encoder.take().into()) } else { Step::More })
    }

    fn piece_bytes(&self) -> usize {
        if self.is_live { LIVE_PIECE_BYTES } else { PIECE_BYTES }
    }

    /// What comes out of the input in no coding; empty: nothing.
    fn decoded(&mut self) -> Result<Bytes, Failure> {
        let most = self.piece_bytes();
        let Some(decoder) = &mut self.decoder else {
            return Ok(self.input.split_to(self.input.len().min(most)));
        };
        let mut output = vec![0; most];
        loop {
            let (read, written) = decoder.step(&self.input, &mut output)?;
            self.input.advance(read);
            if written > 0 {
                output.truncate(written);
                return Ok(output.into());
            }
            if read == 0 {
                // Input that is not taken, with room for output, is none.
                return if self.input.is_empty() { Ok(Bytes::new()) } else { Err(Failure::Malformed) };
            }
        }
    }

    fn flush(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(encoder) = self.encoder.as_mut().filter(|_| self.is_live && self.is_unflushed) else {
            return Ok(None);
        };
        encoder.flush().map_err(|_| Failure::Encoder)?;
        self.is_unflushed = false;
        Ok(Some(encoder.take().into()).filter(|out: &Bytes| !out.is_empty()))
    }

    fn finish(&mut self) -> Result<Option<Bytes>, Failure> {
        self.state = State::Done;
        if self.decoder.as_ref().is_some_and(|decoder| !decoder.is_at_end()) {
            return Err(Failure::Truncated);
        }
        let Some(encoder) = self.encoder.take() else { return Ok(None) };
        let rest = encoder.finish().map_err(|_| Failure::Encoder)?;
        Ok(Some(rest.into()).filter(|rest: &Bytes| !rest.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: u64 = 64 << 20;
    const CODINGS: [Coding; 3] = [Coding::Br, Coding::Zstd, Coding::Gzip];
    const LEVELS: [Level; 3] = [Level::Fast, Level::High, Level::Best];

    /// All output, the input given in chunks of a length.
    fn run(mut transcoder: Transcoder, input: &[u8], chunk: usize) -> Result<Vec<u8>, Failure> {
        let mut output = Vec::new();
        for chunk in input.chunks(chunk.max(1)) {
            transcoder.feed(Bytes::copy_from_slice(chunk));
            while let Some(piece) = transcoder.next_piece()? {
                assert!(!piece.is_empty());
                output.extend_from_slice(&piece);
            }
        }
        transcoder.end();
        while let Some(piece) = transcoder.next_piece()? {
            output.extend_from_slice(&piece);
        }
        Ok(output)
    }

    fn transcode(
        from: Coding,
        to: Coding,
        level: Level,
        input: &[u8],
        chunk: usize,
    ) -> Result<Vec<u8>, Failure> {
        let length = chunk.is_multiple_of(2).then_some(input.len() as u64);
        run(Transcoder::new(from, to, level, length, MOST)?, input, chunk)
    }

    #[test]
    fn text_becomes_small_at_every_level() {
        let line = |i: u32| format!("line {} of {}\n", i.wrapping_mul(2_654_435_761) % 9973, i / 7);
        let text: Vec<u8> = (0..40_000).flat_map(|i| line(i).into_bytes()).collect();
        for coding in CODINGS {
            let length = |level| {
                transcode(Coding::Identity, coding, level, &text, 1 << 16).map_or(usize::MAX, |out| out.len())
            };
            let [fast, high, best] = LEVELS.map(length);
            assert!(fast < text.len() / 2 && high < fast && best < fast, "{coding:?} {fast} {high} {best}");
        }
    }

    #[test]
    fn encoding_again_makes_the_same_bytes() {
        let text = b"the same again ".repeat(3000);
        for coding in CODINGS {
            let make = || transcode(Coding::Identity, coding, Level::High, &text, 1 << 14).unwrap();
            assert_eq!(make(), make());
        }
    }

    #[test]
    fn a_bomb_is_given_up_by_its_size_and_nothing_by_its_ratio() {
        let zeroes = vec![0; 40 << 20];
        for coding in CODINGS {
            let bomb = transcode(Coding::Identity, coding, Level::High, &zeroes, 1 << 20).unwrap();
            let given_up = |most: u64| {
                let mut transcoder =
                    Transcoder::new(coding, Coding::Identity, Level::Fast, None, most).unwrap();
                transcoder.feed(Bytes::from(bomb.clone()));
                let mut given = 0;
                loop {
                    match transcoder.next_piece() {
                        Ok(Some(piece)) => {
                            assert!(piece.len() <= PIECE_BYTES);
                            given += piece.len() as u64;
                        }
                        Ok(None) => return (given, None),
                        Err(failure) => return (given, Some(failure)),
                    }
                }
            };
            assert_eq!(given_up(40 << 20), (40 << 20, None), "{coding:?}");
            let (given, failure) = given_up(8 << 20);
            assert_eq!(failure, Some(Failure::TooLarge));
            assert!(given <= 8 << 20, "{coding:?}: {given}");
        }
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_an_error() {
        let text = b"some text that is long enough, some text ".repeat(50);
        for coding in CODINGS {
            let whole = transcode(Coding::Identity, coding, Level::High, &text, 100).unwrap();
            for end in [0, 1, whole.len() / 2, whole.len() - 1] {
                assert!(
                    transcode(coding, Coding::Identity, Level::High, &whole[..end], 7).is_err(),
                    "{coding:?} {end}"
                );
            }
            let more = [&whole[..], b"more than that"].concat();
            assert!(transcode(coding, Coding::Identity, Level::High, &more, 7).is_err(), "{coding:?}");
        }
        for coding in [Coding::Gzip, Coding::Zstd] {
            let whole = transcode(Coding::Identity, coding, Level::High, &text, 100).unwrap();
            let twice = transcode(coding, Coding::Identity, Level::High, &whole.repeat(2), 7).unwrap();
            assert_eq!(twice, text.repeat(2), "several members are one body");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn decoding_undoes_encoding(
            seed in proptest::collection::vec(any::<u8>(), 0..300),
            repeat in 0_usize..400,
            noise in proptest::collection::vec(any::<u8>(), 0..3000),
            coding in 0_usize..3,
            level in 0_usize..3,
            chunk in 1_usize..70_000,
        ) {
            let body = [seed.repeat(repeat), noise].concat();
            let encoded = transcode(Coding::Identity, CODINGS[coding], LEVELS[level], &body, chunk).unwrap();
            prop_assert_eq!(&transcode(CODINGS[coding], Coding::Identity, Level::High, &encoded, chunk).unwrap(), &body);
            for other in CODINGS {
                let across = transcode(CODINGS[coding], other, Level::Fast, &encoded, chunk).unwrap();
                prop_assert_eq!(&transcode(other, Coding::Identity, Level::High, &across, chunk).unwrap(), &body);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), coding in 0_usize..3) {
            let _ = transcode(CODINGS[coding], Coding::Identity, Level::High, &bytes, 100);
        }
    }
}
