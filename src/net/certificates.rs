//! The certificates in use, and their replacement while connections go on.
//!
//! Files are looked at by their metadata, which sees what a watch of a directory does not: links that are
//! put elsewhere, as mounted secrets are, and file systems of other machines. A pair is read once its files
//! have stopped changing, and is used if it can be; else the one before stays.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::tls::{BySni, CertificateFiles, TlsError, load_one};
use super::validity;
use crate::telemetry::{encode_cells, encode_gauge};

/// The certificates of some listeners: by SNI, the first is the default.
#[derive(Debug, Default)]
pub struct Certificates {
    by_sni: RwLock<Arc<BySni>>,
    pairs: Mutex<Vec<Pair>>,
    swapped: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug)]
struct Pair {
    files: CertificateFiles,
    certified: Arc<CertifiedKey>,
    /// The files that were read last, well or not.
    read: Stamp,
    /// The files at the last look.
    seen: Stamp,
    is_current: bool,
}

/// What tells a file from what it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp([Option<[i64; 5]>; 2]);

impl Stamp {
    fn of(files: &CertificateFiles) -> Self {
        let of = |path: &Path| {
            let file = std::fs::metadata(path).ok()?;
            Some([file.dev() as i64, file.ino() as i64, file.mtime(), file.mtime_nsec(), file.len() as i64])
        };
        Self([of(&files.cert), of(&files.key)])
    }
}

impl Pair {
    fn load(files: &CertificateFiles) -> Result<Self, TlsError> {
        // Before it is read: a change meanwhile shows at the next look.
        let stamp = Stamp::of(files);
        let certified = load_one(files)?;
        Ok(Self { files: files.clone(), certified, read: stamp.clone(), seen: stamp, is_current: true })
    }
}

/// Certificates that were read and are not in use yet.
#[derive(Debug)]
pub struct Prepared(Vec<Pair>);

impl Certificates {
    /// Reads what can be used in place of what is.
    pub fn prepare(files: &[CertificateFiles]) -> Result<Prepared, TlsError> {
        files.iter().map(Pair::load).collect::<Result<_, _>>().map(Prepared)
    }

    /// Has new connections use these.
    pub fn adopt(&self, prepared: Prepared) {
        let mut pairs = self.pairs.lock();
        *pairs = prepared.0;
        self.publish(&pairs);
    }

    fn publish(&self, pairs: &[Pair]) {
        let certified: Vec<_> = pairs.iter().map(|pair| pair.certified.clone()).collect();
        *self.by_sni.write() = Arc::new(BySni::new(&certified));
    }

    /// Looks whether files have changed, and uses those that can be used.
    pub fn look(&self) {
        let mut pairs = self.pairs.lock();
        let mut has_news = false;
        for pair in pairs.iter_mut() {
            let now = Stamp::of(&pair.files);
            let is_settled = std::mem::replace(&mut pair.seen, now.clone()) == now;
            if !is_settled || pair.read == now {
                continue;
            }
            pair.read = now;
            match load_one(&pair.files) {
                Ok(certified) => {
                    tracing::info!(certificate = %pair.files.cert.display(), "a renewed certificate is in use");
                    (pair.certified, pair.is_current) = (certified, true);
                    self.swapped.fetch_add(1, Relaxed);
                    has_news = true;
                }
                Err(error) => {
                    tracing::error!(%error, "a certificate can't be used; the one before stays");
                    pair.is_current = false;
                    self.failed.fetch_add(1, Relaxed);
                }
            }
        }
        if has_news {
            self.publish(&pairs);
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let by_sni = self.by_sni.read().clone();
        by_sni.resolve(hello)
    }
}

/// The collector of all certificates of a node.
#[derive(Debug)]
pub struct CertificateMetrics(pub Vec<Arc<Certificates>>);

impl CertificateMetrics {
    /// Each file once: its name, when it ends, and whether the file is what is in use.
    fn pairs(&self) -> Vec<(String, Option<i64>, bool)> {
        let mut found: Vec<(String, Option<i64>, bool)> = Vec::new();
        for pair in self.0.iter().flat_map(|certificates| {
            let pairs = certificates.pairs.lock();
            let of = |pair: &Pair| {
                let ends = pair.certified.cert.first().and_then(|leaf| validity::not_after(leaf));
                (pair.files.cert.display().to_string(), ends, pair.is_current)
            };
            pairs.iter().map(of).collect::<Vec<_>>()
        }) {
            if !found.iter().any(|(name, ..)| *name == pair.0) {
                found.push(pair);
            }
        }
        found
    }

    fn sum(&self, of: impl Fn(&Certificates) -> &AtomicU64) -> u64 {
        self.0.iter().map(|certificates| of(certificates).load(Relaxed)).sum()
    }
}

impl Collector for CertificateMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let pairs = self.pairs();
        let help = "When a certificate in use ends, in seconds of the epoch; name: its file";
        let name = "certificate_not_after_timestamp_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (name, ends, _) in &pairs {
            if let Some(ends) = ends {
                encode_gauge(&mut family, &[("name", name)], *ends as f64)?;
            }
        }
        let help = "1: the files can't be used, and the certificate in use is an older one";
        let mut family = encoder.encode_descriptor("certificate_outdated", help, None, MetricType::Gauge)?;
        for (name, _, is_current) in &pairs {
            encode_gauge(&mut family, &[("name", name)], f64::from(u8::from(!is_current)))?;
        }
        let help = "Certificate files that have changed";
        let mut family = encoder.encode_descriptor("certificate_reloads", help, None, MetricType::Counter)?;
        encode_cells(&mut family, &[("outcome", "ok")], self.sum(|of| &of.swapped))?;
        encode_cells(&mut family, &[("outcome", "failed")], self.sum(|of| &of.failed))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn write(files: &CertificateFiles, name: &str) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    fn used(certificates: &Certificates) -> Vec<u8> {
        certificates.pairs.lock()[0].certified.cert[0].to_vec()
    }

    #[test]
    fn what_has_changed_and_settled_is_used_and_what_is_bad_is_not() {
        let dir = std::env::temp_dir().join(format!("larder-certificates-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = |name: &str| -> PathBuf { dir.join(name) };
        let files = CertificateFiles { cert: path("a.pem"), key: path("a.key") };
        let first = write(&files, "a.example");
        let certificates = Certificates::default();
        certificates.adopt(Certificates::prepare(std::slice::from_ref(&files)).unwrap());
        assert_eq!(used(&certificates), first);
        let second = write(&files, "a.example");
        certificates.look();
        assert_eq!(used(&certificates), first, "it may still be written to");
        certificates.look();
        assert_eq!(used(&certificates), second);
        // A certificate without its key.
        let of_another = CertificateFiles { cert: files.cert.clone(), key: path("b.key") };
        write(&of_another, "a.example");
        for _ in 0..3 {
            certificates.look();
        }
        assert_eq!(used(&certificates), second);
        let metrics = CertificateMetrics(vec![Arc::new(certificates)]);
        assert_eq!((metrics.sum(|of| &of.swapped), metrics.sum(|of| &of.failed)), (1, 1));
        let [(name, ends, is_current)] = &metrics.pairs()[..] else { panic!("one pair") };
        assert_eq!((name.as_str(), *is_current), (&*files.cert.display().to_string(), false));
        assert!(ends.is_some_and(|ends| ends > 1_700_000_000));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
