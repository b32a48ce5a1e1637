//! A certificate authority of the test's own, and clients that trust it alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// Files of a certificate, chain included, and of its key.
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
}

pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"))
    }

    /// A certificate for these names, written to `directory`.
    pub fn issue(&self, names: &[&str], directory: &Path) -> Issued {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        let base = directory.join(format!("tls-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let issued = Issued { cert: base.with_extension("pem"), key: base.with_extension("key") };
        std::fs::write(&issued.cert, cert.pem()).expect("a certificate file");
        std::fs::write(&issued.key, key.serialize_pem()).expect("a key file");
        issued
    }

    /// This authority's own certificate, written to `directory`.
    pub fn write(&self, directory: &Path) -> std::path::PathBuf {
        let path = directory.join("ca.pem");
        std::fs::write(&path, self.0.pem()).expect("the authority's file");
        path
    }

    /// A client that trusts this authority and offers these protocols.
    pub fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        self.client_with(protocols, &[&TLS13, &TLS12])
    }

    /// A client that trusts this authority and shows a certificate.
    pub fn client_showing(&self, shown: &Issued) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("the authority");
        let chain = CertificateDer::pem_file_iter(&shown.cert).expect("a file").collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_file(&shown.key).expect("a key");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.expect("certificates"), key);
        Arc::new(config.expect("a certificate with its key"))
    }

    pub fn client_with(
        &self,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("the authority");
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

#[test]
fn an_issued_certificate_is_written_as_pem() {
    let dir = super::temp::TempDir::new();
    let issued = Ca::new().issue(&["a.example"], dir.path());
    let cert = std::fs::read_to_string(&issued.cert).expect("the file");
    assert!(cert.starts_with("-----BEGIN CERTIFICATE-----"));
}
