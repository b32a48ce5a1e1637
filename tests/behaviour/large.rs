//! Objects far larger than memory, of known and of unknown length: while they are fetched, from disk, over a restart, and
//! ranges of them.
//!
//! 96 MiB, which is quick; `LARDER_LARGE_BYTES=5368709120`, with `--nocapture`, for those beyond what 32 bits count.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::node::{Node, bare};
use crate::support::request::get;
use crate::support::{eventually, heavy, pattern};

const BLOCK: u64 = 1 << 20;
const BUDGET_KIB: u64 = 16 * 1024;
const OVERHEAD_KIB: u64 = 64 * 1024;

fn length() -> u64 {
    std::env::var("LARDER_LARGE_BYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(96 << 20)
}

/// The bytes of a block: its number, and then what all have.
fn block(number: u64, common: &[u8]) -> Vec<u8> {
    let mut bytes = common.to_vec();
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn common() -> Vec<u8> {
    pattern(BLOCK as usize, 11)
}

/// An origin that makes its bodies while it sends them, chunked for `/chunked`; and how often it was asked.
fn origin(length: u64) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let (address, asked) = (listener.local_addr().expect("its address"), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, SeqCst);
            // A client that goes away ends it.
            std::thread::spawn(move || drop(answer(stream, length)));
        }
    });
    (address, asked)
}

fn answer(mut stream: TcpStream, length: u64) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let is_chunked = head.starts_with(b"GET /chunked");
    let framing =
        if is_chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {length}") };
    let fields = "Cache-Control: max-age=86400\r\nConnection: close";
    write!(stream, "HTTP/1.1 200 OK\r\n{framing}\r\n{fields}\r\n\r\n")?;
    let common = common();
    for number in 0..length / BLOCK {
        let bytes = block(number, &common);
        if is_chunked {
            write!(stream, "{BLOCK:x}\r\n")?;
        }
        stream.write_all(&bytes)?;
        if is_chunked {
            stream.write_all(b"\r\n")?;
        }
    }
    if is_chunked { stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
}

/// Reads a body of blocks and compares each byte.
#[track_caller]
fn assert_blocks(client: &mut Client, numbers: std::ops::Range<u64>, node: &Node) -> u64 {
    let (common, mut read, mut peak) = (common(), Vec::new(), 0);
    for number in numbers {
        assert!(client.take(BLOCK as usize, &mut read).expect("a block"), "it ended before block {number}");
        assert!(read == block(number, &common), "other bytes in block {number}");
        read.clear();
        if number % 64 == 0 {
            peak = peak.max(node.rss_anon_kib());
        }
    }
    peak
}

#[test]
fn what_is_far_larger_than_memory_is_stored_and_served_whole_and_in_parts() {
    let _alone = heavy();
    let blocks = length() / BLOCK;
    let length = blocks * BLOCK;
    let (address, asked) = origin(length);
    let sites = format!(
        "[[site]]\nname = \"a\"\nhosts = [\"*\"]\norigin = \"a\"\n\
         [[origin]]\nname = \"a\"\nservers = [{{ url = \"http://{address}\" }}]\n"
    );
    for path in ["/sized", "/chunked"] {
        // What takes more than a quarter of the disk tier is not stored.
        let (disk, max) = (length / BLOCK * 4 + 512, length / BLOCK + 1);
        let store = format!("max_object = \"{max}MiB\"");
        let disk = format!("{disk}MiB");
        let mut node = bare().sites(&sites).memory("16MiB").disk(&disk).store(&store).start();
        asked.store(0, SeqCst);
        // What is not chunked towards the client says how long it is, once that is known.
        let begin = |node: &Node, fields: &[(&str, String)]| {
            let mut client = Client::connect(node.http());
            let ask = fields.iter().fold(get(path), |ask, (name, value)| ask.with(name, value));
            client.send(&ask.bytes());
            let head = client.try_head().expect("a head");
            (client, head)
        };
        let mut peak = if path == "/sized" {
            let (mut client, head) = begin(&node, &[]);
            assert_eq!(head.field("content-length"), Some(&*length.to_string()));
            assert_blocks(&mut client, 0..blocks, &node)
        } else {
            // Its frames are not looked at; what is stored is compared below.
            let (mut client, mut read) = (begin(&node, &[]).0, Vec::new());
            let mut peak = 0;
            for _ in 0..blocks {
                assert!(client.take(BLOCK as usize, &mut read).expect("a part"), "it ended early");
                read.clear();
                peak = peak.max(node.rss_anon_kib());
            }
            peak
        };
        eventually("it is stored", || begin(&node, &[]).1.is_hit());
        for is_restarted in [false, true] {
            if is_restarted {
                node = node.restarted(Signal::KILL);
            }
            let (mut client, head) = begin(&node, &[]);
            head.assert_hit();
            assert_eq!(head.field("content-length"), Some(&*length.to_string()));
            peak = peak.max(assert_blocks(&mut client, 0..blocks, &node));
            // From the middle, and the end of it.
            for first in [blocks / 2, blocks - 3] {
                let from = first * BLOCK;
                let (mut client, head) = begin(&node, &[("Range", format!("bytes={from}-"))]);
                head.assert_status(206);
                let range = format!("bytes {from}-{}/{length}", length - 1);
                assert_eq!(head.field("content-range"), Some(&*range));
                assert_blocks(&mut client, first..blocks, &node);
            }
        }
        println!("{path}, {} MiB: at most {peak} KiB", length >> 20);
        assert!(peak <= BUDGET_KIB + OVERHEAD_KIB, "{peak} KiB for a budget of {BUDGET_KIB} KiB");
        assert_eq!(asked.load(SeqCst), 1, "one request to the origin");
        node.assert_no_panic();
    }
}
