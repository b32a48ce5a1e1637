//! TLS 1.3 records of AES-GCM, encrypted from where their plaintext lies.
//!
//! rustls copies plaintext into the buffer of its record and encrypts it there. Here the cipher reads a body where it is stored
//! and writes the record: of 100 KiB over HTTP/1.1 that is six of seven records. Plaintext in several pieces is copied, as by
//! rustls. All else is rustls's and aws-lc's: keys, numbers of records and their limits, decryption.

use std::sync::LazyLock;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, TlsProtocolId, TlsRecordSealingKey};
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, Nonce, OutboundChunks, OutboundOpaqueMessage,
    OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm, UnsupportedOperationError, make_tls13_aad,
};
use rustls::{
    CipherSuite, CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion,
    SupportedCipherSuite, Tls13CipherSuite,
};

/// What a record has beside its plaintext: the type of that.
const TYPE_BYTES: usize = 1;
/// Where the plaintext of a shorter record lies is not asked: it is copied.
const MIN_BYTES: usize = 1024;

/// rustls's provider of aws-lc, with these encrypters in its suites.
pub(super) fn provider() -> CryptoProvider {
    // Suites live for ever, so they are made once.
    static SUITES: LazyLock<Vec<SupportedCipherSuite>> = LazyLock::new(|| {
        rustls::crypto::aws_lc_rs::default_provider().cipher_suites.into_iter().map(with_encrypter).collect()
    });
    CryptoProvider { cipher_suites: SUITES.clone(), ..rustls::crypto::aws_lc_rs::default_provider() }
}

fn with_encrypter(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let algorithm = match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => &AES_128_GCM,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => &AES_256_GCM,
        _ => return suite,
    };
    let SupportedCipherSuite::Tls13(of_rustls) = suite else { return suite };
    let Tls13CipherSuite { common, hkdf_provider, aead_alg, quic: _ } = of_rustls;
    let CipherSuiteCommon { suite, hash_provider, confidentiality_limit } = *common;
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon { suite, hash_provider, confidentiality_limit },
        hkdf_provider: *hkdf_provider,
        aead_alg: Box::leak(Box::new(Aead { algorithm, of_rustls: *aead_alg })),
        quic: None,
    })))
}

/// rustls's, but for the encrypter.
struct Aead {
    algorithm: &'static Algorithm,
    of_rustls: &'static dyn Tls13AeadAlgorithm,
}

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        match TlsRecordSealingKey::new(self.algorithm, TlsProtocolId::TLS13, key.as_ref()) {
            Ok(key) => Box::new(Encrypter { key, iv }),
            // A key of another length, which the suite's hash never gives.
            Err(_) => self.of_rustls.encrypter(key, iv),
        }
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.of_rustls.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.of_rustls.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.of_rustls.extract_keys(key, iv)
    }

    fn fips(&self) -> bool {
        self.of_rustls.fips()
    }
}

/// See RFC 8446 §5.2: what it encrypts is plaintext and type.
struct Encrypter {
    key: TlsRecordSealingKey,
    iv: Iv,
}

impl MessageEncrypter for Encrypter {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        seq: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let total = self.encrypted_payload_len(message.payload.len());
        let mut record = PrefixedPayload::with_capacity(total);
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, seq).0);
        let aad = Aad::from(make_tls13_aad(total));
        let plaintext_type = [u8::from(message.typ)];
        let is_long = message.payload.len() >= MIN_BYTES;
        let sealed = match is_long.then(|| in_one_piece(&message.payload)).flatten() {
            Some(plaintext) => {
                record.extend(std::iter::repeat_n(&0, total));
                let (ciphertext, rest) = record.as_mut().split_at_mut(plaintext.len());
                self.key.seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &plaintext_type, rest)
            }
            None => {
                record.extend_from_chunks(&message.payload);
                record.extend_from_slice(&plaintext_type);
                self.key.seal_in_place_append_tag(nonce, aad, &mut record)
            }
        };
        sealed.map_err(|_| Error::EncryptError)?;
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, record))
    }

    fn encrypted_payload_len(&self, plaintext: usize) -> usize {
        plaintext + TYPE_BYTES + self.key.algorithm().tag_len()
    }
}

/// All of it, if it lies in one piece.
fn in_one_piece<'a>(payload: &OutboundChunks<'a>) -> Option<&'a [u8]> {
    match *payload {
        OutboundChunks::Single(bytes) => Some(bytes),
        OutboundChunks::Multiple { chunks, start, end } => {
            let mut begin = 0;
            for chunk in chunks {
                if start < begin + chunk.len() {
                    return chunk.get(start - begin..end.checked_sub(begin)?);
                }
                begin += chunk.len();
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::InboundOpaqueMessage;

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const IV: [u8; 12] = [9; 12];

    fn aead(provider: CryptoProvider) -> &'static dyn Tls13AeadAlgorithm {
        let is_it = |suite: &&SupportedCipherSuite| suite.suite() == CipherSuite::TLS13_AES_256_GCM_SHA384;
        match provider.cipher_suites.iter().find(is_it) {
            Some(SupportedCipherSuite::Tls13(suite)) => suite.aead_alg,
            other => panic!("{other:?}"),
        }
    }

    fn message<'a>(chunks: &'a [&'a [u8]], start: usize, end: usize) -> OutboundPlainMessage<'a> {
        let payload = OutboundChunks::Multiple { chunks, start, end };
        OutboundPlainMessage { typ: ContentType::ApplicationData, version: ProtocolVersion::TLSv1_3, payload }
    }

    #[test]
    fn records_are_those_of_rustls_byte_for_byte_however_the_plaintext_lies() {
        let bytes: Vec<u8> = (0..40_000_u32).map(|n| (n * 31 / 7) as u8).collect();
        let theirs = aead(rustls::crypto::aws_lc_rs::default_provider());
        let (mut ours, mut reference) =
            (aead(provider()).encrypter(KEY.into(), IV.into()), theirs.encrypter(KEY.into(), IV.into()));
        let mut decrypter = theirs.decrypter(KEY.into(), IV.into());
        let chunks = [&bytes[..300], &bytes[300..300], &bytes[300..20_000], &bytes[20_000..]];
        let mut seq = 0;
        for start in [0, 1, 299, 300, 301, 5000, 19_999, 20_000, 23_000] {
            for length in [0, 1, 15, 16, 299, 300, 1023, 1024, 1025, 4095, 15_000, 16_383, 16_384] {
                let end = start + length;
                let record = ours.encrypt(message(&chunks, start, end), seq).unwrap();
                let expected = reference.encrypt(message(&chunks, start, end), seq).unwrap();
                assert_eq!((record.typ, record.version), (expected.typ, expected.version));
                let mut sealed = record.payload.as_ref().to_vec();
                assert!(sealed == expected.payload.as_ref(), "{start}..{end}");
                let inbound = InboundOpaqueMessage::new(record.typ, record.version, &mut sealed);
                let plain = decrypter.decrypt(inbound, seq).unwrap();
                assert!(plain.payload == &bytes[start..end], "{start}..{end}");
                assert_eq!(plain.typ, ContentType::ApplicationData);
                seq += 1;
            }
        }
    }

    #[test]
    fn what_lies_in_one_piece_is_read_there_and_what_does_not_is_copied() {
        let bytes = [0_u8; 100];
        let chunks: [&[u8]; 4] = [&bytes[..10], &[], &bytes[10..60], &bytes[60..]];
        let piece = |start, end| {
            let found = in_one_piece(&OutboundChunks::Multiple { chunks: &chunks, start, end })?;
            Some((found.as_ptr().addr() - bytes.as_ptr().addr(), found.len()))
        };
        assert_eq!(piece(0, 10), Some((0, 10)));
        assert_eq!(piece(10, 60), Some((10, 50)));
        assert_eq!(piece(11, 12), Some((11, 1)));
        assert_eq!(piece(60, 100), Some((60, 40)));
        assert_eq!(piece(9, 11), None);
        assert_eq!(piece(59, 100), None);
        assert_eq!(piece(100, 100), None);
        assert_eq!(piece(10, 101), None);
        assert_eq!(in_one_piece(&OutboundChunks::Single(&bytes)).map(<[u8]>::len), Some(100));
    }

    #[test]
    fn a_number_that_was_used_is_refused() {
        let bytes = [1_u8; 2000];
        let mut encrypter = aead(provider()).encrypter(KEY.into(), IV.into());
        let one: [&[u8]; 1] = [&bytes];
        encrypter.encrypt(message(&one, 0, 2000), 0).unwrap();
        encrypter.encrypt(message(&one, 0, 2000), 1).unwrap();
        assert!(encrypter.encrypt(message(&one, 0, 2000), 1).is_err());
    }

    #[test]
    fn all_suites_of_rustls_are_there_in_its_order() {
        let names = |provider: CryptoProvider| -> Vec<CipherSuite> {
            provider.cipher_suites.iter().map(SupportedCipherSuite::suite).collect()
        };
        assert_eq!(names(provider()), names(rustls::crypto::aws_lc_rs::default_provider()));
    }
}
