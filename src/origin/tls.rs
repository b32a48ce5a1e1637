//! TLS towards origins: system roots or a CA of one's own, a client certificate, verification.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

/// `origin.tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginTls {
    /// PEM with the CAs to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM: the certificate to show to the origin.
    pub cert: Option<PathBuf>,
    /// PEM: its key.
    pub key: Option<PathBuf>,
    /// Whether the origin's certificate is verified.
    pub verify: bool,
}

impl Default for OriginTls {
    fn default() -> Self {
        Self { ca: None, cert: None, key: None, verify: true }
    }
}

impl OriginTls {
    /// Of what is in its files now.
    pub(super) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for path in [&self.ca, &self.cert, &self.key] {
            let content = path.as_ref().and_then(|path| std::fs::read(path).ok());
            hasher.update(blake3::hash(&content.unwrap_or_default()).as_bytes());
        }
        hasher.finalize()
    }
}

/// What is wrong with `origin.tls`.
#[derive(Debug, thiserror::Error)]
pub enum OriginTlsError {
    /// A file can't be read or is no PEM.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// rustls refuses the settings.
    #[error("TLS: {0}")]
    Settings(#[from] rustls::Error),
}

pub(super) fn connector(settings: &OriginTls, http2: bool) -> Result<TlsConnector, OriginTlsError> {
    let provider: Arc<CryptoProvider> = aws_lc_rs::default_provider().into();
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if settings.verify {
        builder.with_root_certificates(roots(settings)?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    let mut config = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| OriginTlsError::File { path: key.clone(), reason: e.to_string() })?;
            builder.with_client_auth_cert(chain, key)?
        }
        _ => builder.with_no_client_auth(),
    };
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, OriginTlsError> {
    let bad = |reason: String| OriginTlsError::File { path: path.clone(), reason };
    CertificateDer::pem_file_iter(path)
        .map_err(|e| bad(e.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| bad(e.to_string()))
}

fn roots(settings: &OriginTls) -> Result<RootCertStore, OriginTlsError> {
    let mut roots = RootCertStore::empty();
    match &settings.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            if roots.is_empty() {
                let reason = "there is no PEM certificate in it".into();
                return Err(OriginTlsError::File { path: path.clone(), reason });
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

/// `verify = false`: any certificate will do. The handshake's signatures are checked all the same.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
