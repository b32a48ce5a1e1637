//! TLS by rustls (aws-lc-rs): TLS 1.2 and 1.3, resumption by tickets and by session, certificates
//! chosen by SNI.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::sealing;

/// Sessions kept for TLS 1.2 clients that resume by id; tickets need no memory here.
const SESSION_CACHE: usize = 4096;

/// One `[[certificate]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the chain, leaf first.
    pub cert: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// What is wrong with a certificate; the message names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The chain can't be read.
    #[error("certificate {path}: {reason}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key can't be read, or is not the certificate's.
    #[error("key {path}: {reason}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// rustls refuses the settings.
    #[error("TLS: {0}")]
    Settings(#[from] rustls::Error),
}

/// Reads certificates and keys and checks that they belong together.
pub fn load_certificates(files: &[CertificateFiles]) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
    files.iter().map(load_one).collect()
}

pub(super) fn load_one(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let bad_cert = |reason: String| TlsError::Certificate { path: files.cert.clone(), reason };
    let bad_key = |reason: String| TlsError::Key { path: files.key.clone(), reason };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&read(&files.cert).map_err(bad_cert)?)
            .collect::<Result<_, _>>()
            .map_err(|e| bad_cert(e.to_string()))?;
    if chain.is_empty() {
        return Err(bad_cert("there is no PEM certificate in it".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key).map_err(bad_key)?)
        .map_err(|e| bad_key(e.to_string()))?;
    let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|e| bad_key(format!("{e} (certificate {})", files.cert.display())))?;
    Ok(Arc::new(certified))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| e.to_string())
}

/// Reads the certificates of those who sign clients' certificates.
pub fn client_ca(path: &Path) -> Result<rustls::RootCertStore, TlsError> {
    let bad = |reason: String| TlsError::Certificate { path: path.to_owned(), reason };
    let pem = read(path).map_err(bad)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("there is no PEM certificate in it".into()));
    }
    Ok(roots)
}

/// The rustls configuration of a listener: ALPN `h2` and `http/1.1`, no early data (a request that
/// may be replayed has no place before the handshake's end). With `clients`, who connects has to show a
/// certificate that one of these has signed.
pub fn server_config(
    certificates: Arc<dyn ResolvesServerCert>,
    clients: Option<rustls::RootCertStore>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider: Arc<rustls::crypto::CryptoProvider> = sealing::provider().into();
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            let refused = |e: rustls::server::VerifierBuilderError| rustls::Error::General(e.to_string());
            builder.with_client_cert_verifier(verifier.map_err(refused)?)
        }
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = ServerSessionMemoryCache::new(SESSION_CACHE);
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Certificates by the names they are valid for: exact, then wildcard, then the first of all.
#[derive(Debug, Default)]
pub(super) struct BySni {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl BySni {
    pub(super) fn new(certificates: &[Arc<CertifiedKey>]) -> Self {
        let mut by_name = HashMap::new();
        for certificate in certificates {
            let Ok(leaf) = certificate.end_entity_cert() else { continue };
            let Ok(parsed) = webpki::EndEntityCert::try_from(leaf) else { continue };
            for name in parsed.valid_dns_names() {
                by_name.entry(name.to_ascii_lowercase()).or_insert_with(|| certificate.clone());
            }
        }
        Self { by_name, default: certificates.first().cloned() }
    }

    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        if let Some(exact) = self.by_name.get(&name) {
            return Some(exact.clone());
        }
        let (_, parent) = name.split_once('.')?;
        self.by_name.get(&format!("*.{parent}")).cloned()
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().and_then(|name| self.find(name)).or_else(|| self.default.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Arc<CertifiedKey> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let chain = vec![made.cert.der().clone()];
        Arc::new(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).unwrap())
    }

    #[test]
    fn exact_beats_wildcard_beats_first() {
        let first = certificate(&["first.example"]);
        let wild = certificate(&["*.shop.example"]);
        let exact = certificate(&["www.shop.example"]);
        let resolver = BySni::new(&[first.clone(), wild.clone(), exact.clone()]);
        let is = |name: &str, expected: &Arc<CertifiedKey>| {
            Arc::ptr_eq(&resolver.find(name).or(resolver.default.clone()).unwrap(), expected)
        };
        assert!(is("WWW.shop.example", &exact));
        assert!(is("a.shop.example", &wild));
        assert!(is("a.b.shop.example", &first));
        assert!(is("unknown.example", &first));
    }

    #[test]
    fn a_missing_file_is_named() {
        let files = CertificateFiles { cert: "/nonexistent/c.pem".into(), key: "/k".into() };
        let message = load_certificates(&[files]).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/c.pem"), "{message}");
    }
}
