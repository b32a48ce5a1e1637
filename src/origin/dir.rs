//! A directory as an origin.
//!
//! Regular files below one directory, with types by extension, strong entity tags (BLAKE3 of the
//! content), Last-Modified and ranges. The kernel keeps requests inside (`openat2` with
//! `RESOLVE_BENEATH`): neither `..` nor a symbolic link leads out. Names that begin with a dot do
//! not exist, but for `.well-known` (RFC 8615).
//!
//! One path names a file: that in which characters which may stand in a path as they are (RFC 3986's
//! `pchar`) do, and all others are encoded. Another spelling of it is sent to that one, whether there is
//! such a file or not, and a path with an empty segment names nothing. Rules, access lists, keys and purges
//! go by the path as it is written, so a file with two would have one that they do not know of. To match
//! rules against the decoded path instead would guard the file and leave it two keys, of which a purge hits
//! one; and what `%2F` or `%2B` mean elsewhere is an HTTP origin's affair.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tokio::task::JoinHandle;

use super::body::OriginBody;
use super::{Config, OutBody};
use crate::rules::conditional::{self, Outcome, Validators};
use crate::rules::date;
use crate::rules::range::{self, Requested};
use crate::rules::time::Millis;

/// How long a file may be served from the cache before its origin is asked again. Files change
/// when somebody deploys; a minute is what that somebody will wait.
const CACHE_CONTROL: &str = "public, max-age=60";
const INDEX: &str = "index.html";
const READ_BYTES: usize = 256 * 1024;
/// Entity tags remembered before all are forgotten.
const MAX_TAGS: usize = 65_536;

/// A directory that can't be served.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct DirError {
    path: PathBuf,
    source: io::Error,
}

/// See the module.
#[derive(Debug)]
pub(super) struct DirOrigin {
    path: PathBuf,
    root: Arc<OwnedFd>,
    tags: Arc<Mutex<HashMap<FileId, HeaderValue>>>,
}

/// What identifies a file's content without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileId {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

struct Found {
    file: File,
    size: u64,
    modified_secs: i64,
    etag: HeaderValue,
}

/// What a path comes to.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    /// A file, relative to the directory.
    File(PathBuf),
    /// It is spelled like this.
    Spelled(String),
}

enum Lookup {
    Found(Found),
    /// A directory without its trailing slash.
    Directory,
    Missing,
}

impl DirOrigin {
    pub(super) fn open(path: &Path) -> Result<Self, DirError> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| DirError { path: path.to_owned(), source: e.into() })?;
        Ok(Self { path: path.to_owned(), root: Arc::new(root), tags: Arc::default() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn send(&self, request: Request<OutBody>, config: &Config) -> Response<OriginBody> {
        let (head, _) = request.into_parts();
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let status = match head.method {
                Method::OPTIONS => StatusCode::NO_CONTENT,
                _ => StatusCode::METHOD_NOT_ALLOWED,
            };
            let mut response = plain(status, "");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
            return response;
        }
        let name = match file_name(head.uri.path()) {
            Some(Name::File(name)) => name,
            Some(Name::Spelled(path)) => return redirect(&path, head.uri.query()),
            None => return plain(StatusCode::NOT_FOUND, "no such file\n"),
        };
        let (root, tags, wanted) = (self.root.clone(), self.tags.clone(), name.clone());
        let found = tokio::task::spawn_blocking(move || find(&root, &wanted, &tags)).await;
        match found {
            Ok(Ok(Lookup::Found(found))) => answer(found, &name, &head.method, &head.headers, config),
            Ok(Ok(Lookup::Directory)) => redirect(&format!("{}/", head.uri.path()), head.uri.query()),
            Ok(Ok(Lookup::Missing)) => plain(StatusCode::NOT_FOUND, "no such file\n"),
            Ok(Err(error)) => {
                tracing::warn!(origin = config.name, path = %name.display(), %error, "a file can't be read");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the file can't be read\n")
            }
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the file can't be read\n"),
        }
    }
}

/// The path of a URL as a file name; `None` for names that do not exist for clients.
fn file_name(path: &str) -> Option<Name> {
    let inside = path.strip_prefix('/')?;
    let is_directory = inside.is_empty() || inside.ends_with('/');
    let (mut name, mut spelled) = (PathBuf::new(), String::with_capacity(path.len()));
    for segment in inside.strip_suffix('/').unwrap_or(inside).split('/') {
        let decoded = percent_decode(segment)?;
        let is_hidden = decoded.starts_with(b".") && decoded != b".well-known";
        let is_empty = decoded.is_empty() && !inside.is_empty();
        if is_empty || is_hidden || decoded.iter().any(|b| matches!(b, b'/' | 0)) {
            return None;
        }
        spelled.push('/');
        for byte in &decoded {
            if is_pchar(*byte) {
                spelled.push(char::from(*byte));
            } else {
                let _ = write!(spelled, "%{byte:02X}");
            }
        }
        name.push(OsStr::from_bytes(&decoded));
    }
    if is_directory {
        name.push(INDEX);
        spelled.push_str(if inside.is_empty() { "" } else { "/" });
    }
    Some(if spelled == path { Name::File(name) } else { Name::Spelled(spelled) })
}

/// RFC 3986 §3.3, without what is encoded.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

fn percent_decode(segment: &str) -> Option<Vec<u8>> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut nibble = || Some((bytes.next()? as char).to_digit(16)? as u8);
        let (high, low) = (nibble()?, nibble()?);
        decoded.push(high << 4 | low);
    }
    Some(decoded)
}

fn find(root: &OwnedFd, name: &Path, tags: &Mutex<HashMap<FileId, HeaderValue>>) -> io::Result<Lookup> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, name, flags, Mode::empty(), resolve) {
        Ok(fd) => File::from(fd),
        Err(error) => {
            use rustix::io::Errno;
            return match error {
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::XDEV
                | Errno::LOOP
                | Errno::NAMETOOLONG
                | Errno::NXIO
                | Errno::ACCESS => Ok(Lookup::Missing),
                other => Err(other.into()),
            };
        }
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Ok(Lookup::Directory);
    }
    if !metadata.is_file() {
        return Ok(Lookup::Missing);
    }
    let ns = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    let id = FileId {
        dev: metadata.dev(),
        ino: metadata.ino(),
        size: metadata.len(),
        mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
    };
    let etag = entity_tag(&file, id, tags)?;
    Ok(Lookup::Found(Found { size: metadata.len(), modified_secs: metadata.mtime(), file, etag }))
}

fn entity_tag(
    file: &File,
    id: FileId,
    tags: &Mutex<HashMap<FileId, HeaderValue>>,
) -> io::Result<HeaderValue> {
    if let Some(known) = tags.lock().get(&id) {
        return Ok(known.clone());
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        let n = file.read_at(&mut buffer, offset)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        offset += n as u64;
    }
    let hex = hasher.finalize().to_hex();
    let tag = HeaderValue::try_from(format!("\"{}\"", &hex[..32])).map_err(io::Error::other)?;
    let mut tags = tags.lock();
    if tags.len() >= MAX_TAGS {
        tags.clear();
    }
    tags.insert(id, tag.clone());
    Ok(tag)
}

fn answer(
    found: Found,
    name: &Path,
    method: &Method,
    request: &HeaderMap,
    config: &Config,
) -> Response<OriginBody> {
    let mut response = Response::new(OriginBody::full(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(header::ETAG, found.etag.clone());
    headers.insert(header::LAST_MODIFIED, date::format(found.modified_secs));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let now = Millis(now_ms());
    let validators =
        Validators { etag: Some(&found.etag), last_modified: Some(found.modified_secs), date: None };
    match conditional::evaluate(method, request, &validators, now) {
        Outcome::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        Outcome::PreconditionFailed => {
            *response.status_mut() = StatusCode::PRECONDITION_FAILED;
            return response;
        }
        Outcome::Proceed => {}
    }
    headers.insert(header::CONTENT_TYPE, content_type(name));
    let mut wanted = 0..found.size;
    if *method == Method::GET && conditional::if_range_holds(request, &validators, now) {
        match range::parse(request, found.size) {
            Requested::Single(range) => {
                headers.insert(header::CONTENT_RANGE, range::content_range(&range, found.size));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                wanted = range;
            }
            Requested::Unsatisfiable => {
                let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, "");
                response.headers_mut().insert(header::CONTENT_RANGE, range::unsatisfied(found.size));
                return response;
            }
            Requested::Ignored | Requested::Multiple(_) => {}
        }
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, (wanted.end - wanted.start).into());
    if *method == Method::GET {
        let file = FileBody::new(found.file, wanted);
        *response.body_mut() = OriginBody::file(file, config.between_bytes_timeout);
    }
    response
}

fn now_ms() -> i64 {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    wall.unwrap_or_default().as_millis() as i64
}

fn content_type(name: &Path) -> HeaderValue {
    let guess = mime_guess::from_path(name).first_or_octet_stream();
    let is_text = guess.type_() == "text"
        || matches!(guess.essence_str(), "application/javascript" | "application/json" | "image/svg+xml");
    let text = if is_text { format!("{guess}; charset=utf-8") } else { guess.to_string() };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// To a path of this origin. It has no empty segments: `//evil.example/` would be another host.
fn redirect(path: &str, query: Option<&str>) -> Response<OriginBody> {
    let location = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut response = plain(StatusCode::PERMANENT_REDIRECT, "");
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<OriginBody> {
    let mut response = Response::new(OriginBody::full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_LENGTH, text.len().into());
    }
    if !text.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    response
}

/// A range of a file, read piece by piece on the blocking pool.
#[derive(Debug)]
pub(super) struct FileBody {
    file: Arc<File>,
    left: Range<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    fn new(file: File, range: Range<u64>) -> Self {
        Self { file: Arc::new(file), left: range, reading: None }
    }

    pub(super) fn left(&self) -> u64 {
        self.left.end - self.left.start
    }

    pub(super) fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.is_done() {
            return Poll::Ready(Ok(None));
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (file, offset) = (self.file.clone(), self.left.start);
            let len = (self.left.end - self.left.start).min(READ_BYTES as u64) as usize;
            tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; len];
                // A file that has become shorter is a broken transfer, never a short clean one.
                file.read_exact_at(&mut buffer, offset)?;
                Ok(Bytes::from(buffer))
            })
        });
        let read = ready!(Pin::new(reading).poll(cx)).map_err(io::Error::other)??;
        self.reading = None;
        self.left.start += read.len() as u64;
        Poll::Ready(Ok(Some(read)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_clients_become_names_of_files_or_nothing() {
        let name = |path| file_name(path);
        let file = |name: &str| Some(Name::File(name.into()));
        assert_eq!(name("/"), file("index.html"));
        assert_eq!(name("/a%20b/c.css"), file("a b/c.css"));
        assert_eq!(name("/a/"), file("a/index.html"));
        assert_eq!(name("/%C3%A9%25"), file("é%"));
        assert_eq!(name("/a+b@2x,(1)"), file("a+b@2x,(1)"));
        assert_eq!(name("/.git/config"), None);
        assert_eq!(name("/%2egit"), None);
        assert_eq!(name("/../x"), None);
        assert_eq!(name("/a%2fb"), None);
        assert_eq!(name("/a%00"), None);
        assert_eq!(name("/a%zz"), None);
        assert_eq!(name("/.well-known/x"), file(".well-known/x"));
    }

    #[test]
    fn another_spelling_leads_to_the_one_that_names_a_file() {
        let spelled = |path: &str| Some(Name::Spelled(path.into()));
        assert_eq!(file_name("/a%2Bb/s"), spelled("/a+b/s"));
        assert_eq!(file_name("/%61/"), spelled("/a/"));
        assert_eq!(file_name("/a[1]"), spelled("/a%5B1%5D"));
        assert_eq!(file_name("/%c3%a9"), spelled("/%C3%A9"));
        for path in ["//", "//a", "///a", "/a//b", "/a//", "//a/", "", "a"] {
            assert_eq!(file_name(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn one_path_names_a_file(path in "(/|/?[a.%+~\\[é]|%2[BbEe]|%5[Bb]|%41){0,6}/?") {
            match file_name(&path) {
                // Its own name again, and no other path's.
                Some(Name::File(name)) => prop_assert!(!path.contains("//") && !name.is_absolute()),
                Some(Name::Spelled(other)) => {
                    prop_assert_ne!(&path, &other);
                    prop_assert!(matches!(file_name(&other), Some(Name::File(_))), "{other}");
                    let normal = crate::rules::key::normalize_path(&other).unwrap();
                    prop_assert_eq!(normal, &*other, "what is asked for next is the same");
                }
                None => {}
            }
        }
    }

    #[test]
    fn links_do_not_lead_out() {
        let dir = std::env::temp_dir().join(format!("larder-dir-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("sub/in.txt"), "in").unwrap();
        let link = |target: &str, name: &str| {
            let _ = std::os::unix::fs::symlink(target, dir.join(name));
        };
        link("/etc/hostname", "out");
        link("sub/in.txt", "inside");
        link("../../etc/hostname", "sub/up");
        let origin = DirOrigin::open(&dir).unwrap();
        let is_found =
            |name: &str| matches!(find(&origin.root, Path::new(name), &origin.tags), Ok(Lookup::Found(_)));
        assert!(is_found("sub/in.txt"));
        assert!(is_found("inside"));
        assert!(!is_found("out"));
        assert!(!is_found("sub/up"));
        assert!(!is_found("sub"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
