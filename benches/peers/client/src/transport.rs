//! Bytes to a server and from it, plain or over TLS. Sockets never block once they are open.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::Failure;

pub const TIMEOUT: Duration = Duration::from_secs(10);

pub enum Security {
    None,
    /// With the one protocol that is offered.
    Tls(&'static str),
}

pub struct Transport {
    stream: TcpStream,
    tls: Option<ClientConnection>,
}

impl Transport {
    pub fn connect(address: SocketAddr, security: Security) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| format!("connecting: {error}");
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
        let tls = match security {
            Security::None => None,
            Security::Tls(protocol) => Some(handshake(&mut stream, protocol)?),
        };
        stream.set_nonblocking(true).map_err(failed)?;
        Ok(Self { stream, tls })
    }

    /// Sends all of `out`, which is small, and empties it.
    pub fn send(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let failed = |error: std::io::Error| format!("sending: {error}");
        match &mut self.tls {
            None if out.is_empty() => {}
            None => self.stream.write_all(out).map_err(failed)?,
            Some(tls) => {
                tls.writer().write_all(out).map_err(failed)?;
                while tls.wants_write() {
                    tls.write_tls(&mut self.stream).map_err(failed)?;
                }
            }
        }
        out.clear();
        Ok(())
    }

    /// Receives what there is; `None`: nothing more now.
    pub fn receive(&mut self, input: &mut [u8]) -> Result<Option<usize>, Failure> {
        let Some(tls) = &mut self.tls else {
            return received(self.stream.read(input));
        };
        loop {
            if let Some(count) = received(tls.reader().read(input))? {
                return Ok(Some(count));
            }
            if received(tls.read_tls(&mut self.stream))?.is_none() {
                return Ok(None);
            }
            tls.process_new_packets().map_err(|error| error.to_string())?;
        }
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

fn received(result: std::io::Result<usize>) -> Result<Option<usize>, Failure> {
    match result {
        Ok(0) => Err("the server has closed a connection".to_owned()),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(format!("receiving: {error}")),
    }
}

fn handshake(stream: &mut TcpStream, protocol: &str) -> Result<ClientConnection, Failure> {
    let mut tls = client(&Arc::new(config(protocol)?))?;
    while tls.is_handshaking() {
        tls.complete_io(stream).map_err(|error| format!("handshake: {error}"))?;
    }
    if tls.alpn_protocol().is_some_and(|agreed| agreed != protocol.as_bytes()) {
        return Err(format!("{protocol} was not agreed on"));
    }
    Ok(tls)
}

/// TLS of a client that offers one protocol and trusts anyone. It remembers sessions.
pub fn config(protocol: &str) -> Result<ClientConfig, Failure> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok(config)
}

/// The client's side of a new connection.
pub fn client(config: &Arc<ClientConfig>) -> Result<ClientConnection, Failure> {
    let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    ClientConnection::new(config.clone(), name).map_err(|error| error.to_string())
}

/// A certificate of our own on loopback is not verified.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
