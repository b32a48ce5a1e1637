//! Origins that break off in every way, everywhere: nobody takes a part for the whole, nothing of it is kept, and the next
//! request tries again.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::support::client::Client;
use crate::support::http2::Http2;
use crate::support::node::{Node, bare, node};
use crate::support::origin::{Origin, Reply, Step, respond};
use crate::support::request::{get, request};
use crate::support::tls::Ca;
use crate::support::{Gate, OpenOnDrop, lock};

const BODY: &str = "0123456789abcdef";
/// Every boundary of the pieces that the body is sent in, and the middle of each.
const PIECE: usize = 4;
const OFFSETS: [usize; 9] = [0, 2, 4, 6, 8, 10, 12, 14, 16];

/// How the end of the body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Close,
    Reset,
    Stall,
    /// A chunk whose size is no number.
    NoSize,
    /// A chunk that is longer than it says.
    Overlong,
    /// Everything but the last two bytes of the framing.
    NoLastLine,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    framing: Framing,
    failure: Failure,
    /// Bytes of the body before it fails.
    offset: usize,
}

fn cases() -> Vec<Case> {
    use Failure::{Close, NoLastLine, NoSize, Overlong, Reset, Stall};
    let mut cases = Vec::new();
    for offset in OFFSETS {
        let is_end = offset == BODY.len();
        for failure in [Close, Reset, Stall] {
            // At its length a body is complete, and one that ends with the connection ends where it is closed.
            if !is_end {
                cases.push(Case { framing: Framing::Length, failure, offset });
            }
            cases.push(Case { framing: Framing::Chunked, failure, offset });
            if failure != Close {
                cases.push(Case { framing: Framing::UntilClose, failure, offset });
            }
        }
        for failure in [NoSize, Overlong] {
            cases.push(Case { framing: Framing::Chunked, failure, offset });
        }
    }
    cases.push(Case { framing: Framing::Chunked, failure: NoLastLine, offset: BODY.len() });
    cases
}

impl Case {
    fn path(self, protocol: &str) -> String {
        format!("/{protocol}-{:?}-{:?}-{}", self.framing, self.failure, self.offset)
    }

    fn head(self) -> String {
        let framing = match self.framing {
            Framing::Length => format!("Content-Length: {}\r\n", BODY.len()),
            Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::UntilClose => "Connection: close\r\n".to_owned(),
        };
        format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n{framing}\r\n")
    }

    /// The answer up to where it fails, piece by piece.
    fn pieces(self) -> Vec<String> {
        let sent = BODY.as_bytes()[..self.offset].chunks(PIECE).map(|piece| String::from_utf8_lossy(piece));
        let framed = sent.map(|piece| match self.framing {
            Framing::Chunked => format!("{:x}\r\n{piece}\r\n", piece.len()),
            Framing::Length | Framing::UntilClose => piece.into_owned(),
        });
        std::iter::once(self.head()).chain(framed).collect()
    }

    fn steps(self, gate: &Gate) -> Reply {
        let mut steps: Reply =
            self.pieces().into_iter().map(|piece| Step::Send(piece.into_bytes())).collect();
        let text = match self.failure {
            Failure::NoSize => "zz\r\nxxxx\r\n",
            Failure::Overlong => "2\r\nxxxx\r\n0\r\n\r\n",
            Failure::NoLastLine => "0\r\n",
            Failure::Close | Failure::Reset | Failure::Stall => "",
        };
        steps.push(Step::Send(text.into()));
        steps.push(match self.failure {
            Failure::Reset => Step::Reset,
            Failure::Stall => Step::Wait(gate.clone()),
            _ => Step::Close,
        });
        if self.failure == Failure::Stall {
            steps.push(Step::Close);
        }
        steps
    }
}

fn whole() -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len())
        .into()
}

/// Asks by both protocols what fails the first time, and then what is there.
#[track_caller]
fn assert_never_taken_for_whole(node: &Node, case: Case) {
    let path = case.path("1");
    let mut client = Client::connect(node.http());
    client.send(&get(&path).bytes());
    if let Ok(answer) = client.try_response("GET") {
        assert!([502, 504].contains(&answer.status), "{path}: {} {:?}", answer.status, answer.text());
        answer.assert_own_error();
    }
    assert_is_news(node, &path);
    let path = case.path("2");
    if let Ok(answer) = Http2::plain(node.http()).try_exchange(&get(&path)) {
        assert!([502, 504].contains(&answer.status), "{path}: {} {:?}", answer.status, answer.text());
        answer.assert_own_error();
    }
    assert_is_news(node, &path);
}

#[track_caller]
fn assert_is_news(node: &Node, path: &str) {
    let again = node.get(path);
    again.assert_status(200).assert_body(BODY);
    assert!(!again.is_hit(), "{path}: what was broken off is stored");
}

#[test]
fn no_part_is_taken_for_the_whole_wherever_the_origin_fails() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let _open = OpenOnDrop(gate.clone());
    for case in cases() {
        for protocol in ["1", "2"] {
            let (held, asked) = (gate.clone(), AtomicUsize::new(0));
            origin.on(&case.path(protocol), move |_| match asked.fetch_add(1, Ordering::SeqCst) {
                0 => case.steps(&held),
                _ => vec![Step::Send(whole())],
            });
        }
    }
    let node = node(&origin).origin("between_bytes_timeout = \"300ms\"").start();
    std::thread::scope(|scope| {
        for case in cases() {
            let node = &node;
            scope.spawn(move || assert_never_taken_for_whole(node, case));
        }
    });
    node.assert_no_panic();
}

/// Heads behind which nothing comes.
const BARE_HEADS: [&str; 4] = [
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 50\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
    "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 50\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n",
];

#[test]
fn an_answer_that_breaks_off_behind_its_head_is_an_answer_that_failed() {
    let origin = Origin::start();
    for (n, head) in BARE_HEADS.iter().enumerate() {
        let reply = || vec![Step::Send(head.as_bytes().into()), Step::Close];
        origin.on(&format!("/{n}"), move |_| reply());
        origin.on(&format!("/pass/{n}"), move |_| reply());
        let lifetime = ("Cache-Control", "max-age=0, stale-if-error=600");
        origin.sequence(&format!("/stale/{n}"), vec![respond(200, &[lifetime], "stale"), reply()]);
    }
    let node = node(&origin).rules("[[site.rule]]\npath = [\"/pass/*\"]\npass = true").start();
    for (n, head) in BARE_HEADS.iter().enumerate() {
        for path in [format!("/{n}"), format!("/pass/{n}")] {
            node.get(&path).assert_status(502).assert_own_error().assert_fwd(match &path[..2] {
                "/p" => "bypass",
                _ => "uri-miss",
            });
            Http2::plain(node.http()).exchange(&get(&path)).assert_status(502).assert_own_error();
            request("POST", &path).body("x").to(&node).assert_status(502).assert_own_error();
        }
        let path = format!("/stale/{n}");
        node.get(&path).assert_status(200).assert_body("stale");
        for _ in 0..2 {
            let stale = node.get(&path);
            stale.assert_status(200).assert_body("stale");
            assert_eq!(stale.cache_parameter("detail").as_deref(), Some("stale-if-error"), "{head}");
        }
    }
    node.assert_no_panic();
}

/// An HTTP/2 server of one frame of data, which is the last, where ten times as much is announced.
fn short_http2_origin() -> SocketAddr {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let frame = |length: usize, kind: u8, flags: u8, payload: &[u8]| {
        let mut frame = vec![0, 0, length as u8, kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    };
    // `:status: 200` and `content-length: 50` by HPACK's static table.
    let head = [0x88, 0x0F, 0x0D, 2, b'5', b'0'];
    let answer = [SETTINGS, &frame(head.len(), 1, 4, &head), &frame(5, 0, 1, b"hello")].concat();
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                // Behind the request: its HEADERS come at once after the preface and the settings.
                let mut seen = Vec::new();
                let mut chunk = [0; 4096];
                while !String::from_utf8_lossy(&seen).contains("SM\r\n\r\n") || seen.len() < 100 {
                    match socket.read(&mut chunk) {
                        Ok(count) if count > 0 => seen.extend_from_slice(&chunk[..count]),
                        _ => return,
                    }
                }
                let _ = socket.write_all(&answer).and_then(|()| socket.read_to_end(&mut Vec::new()));
            });
        }
    });
    address
}

#[test]
fn an_http2_answer_that_is_shorter_than_announced_is_an_answer_that_failed() {
    let tables = format!(
        "[[site]]\nname = \"a\"\nhosts = [\"*\"]\norigin = \"a\"\n[[origin]]\nname = \"a\"\n\
         servers = [{{ url = \"http://{}\" }}]\nhttp2 = true\n",
        short_http2_origin()
    );
    let node = bare().sites(&tables).start();
    node.get("/a").assert_status(502).assert_own_error();
}

/// A TLS server that never says goodbye: it breaks its first answer to a path off, between two records (`/tls-…-between`)
/// or in the middle of one.
fn tls_origin(ca: &Ca, directory: &Path) -> SocketAddr {
    let files = ca.issue(&["test.example"], directory);
    let certificate = CertificateDer::from_pem_file(&files.cert).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a server");
    let (config, seen) = (Arc::new(config), Arc::new(Mutex::new(HashSet::new())));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let (config, seen) = (config.clone(), seen.clone());
            std::thread::spawn(move || drop(serve_tls(socket, config, &seen)));
        }
    });
    address
}

fn serve_tls(
    mut socket: TcpStream,
    config: Arc<ServerConfig>,
    seen: &Mutex<HashSet<String>>,
) -> io::Result<()> {
    let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut chunk = [0; 4096];
        request.extend_from_slice(match rustls::Stream::new(&mut session, &mut socket).read(&mut chunk)? {
            0 => return Ok(()),
            count => &chunk[..count],
        });
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let case = tls_cases().find(|case| path.contains(&case.path("tls")));
    let mut rest = Vec::new();
    match case.filter(|_| lock(seen).insert(path.clone())) {
        None => session.writer().write_all(&whole())?,
        Some(case) => {
            for piece in case.pieces() {
                session.writer().write_all(piece.as_bytes())?;
            }
            rest = b"more".to_vec();
        }
    }
    while session.wants_write() {
        session.write_tls(&mut socket)?;
    }
    if !rest.is_empty() && !path.ends_with("between") {
        session.writer().write_all(&rest)?;
        let mut record = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut record)?;
        }
        socket.write_all(&record[..record.len() / 2])?;
    }
    socket.shutdown(Shutdown::Write)?;
    // Until the node has gone, so that what was sent is not lost by a reset.
    socket.read_to_end(&mut Vec::new()).map(drop)
}

/// Without a goodbye even the end of the connection is no end of a body.
fn tls_cases() -> impl Iterator<Item = Case> {
    let framings = [Framing::Length, Framing::Chunked, Framing::UntilClose];
    let cases = framings.into_iter().flat_map(|framing| {
        OFFSETS.into_iter().map(move |offset| Case { framing, failure: Failure::Close, offset })
    });
    cases.filter(|case| case.framing != Framing::Length || case.offset < BODY.len())
}

#[test]
fn a_tls_connection_that_is_cut_off_ends_no_body() {
    let ca = Ca::new();
    let builder = bare();
    let (address, file) = (tls_origin(&ca, builder.path()), ca.write(builder.path()));
    let tables = format!(
        "[[site]]\nname = \"a\"\nhosts = [\"*\"]\norigin = \"a\"\n[[origin]]\nname = \"a\"\n\
         servers = [{{ url = \"https://{address}\" }}]\ntls = {{ ca = \"{}\" }}\n",
        file.display()
    );
    let node = builder.sites(&tables).start();
    for case in tls_cases() {
        for cut in ["between", "within"] {
            let path = format!("{}-{cut}", case.path("tls"));
            let mut client = Client::connect(node.http());
            client.send(&get(&path).bytes());
            if let Ok(answer) = client.try_response("GET") {
                assert!([502, 504].contains(&answer.status), "{path}: {} {:?}", answer.status, answer.text());
                answer.assert_own_error();
            }
            assert_is_news(&node, &path);
        }
    }
    node.assert_no_panic();
}
