//! Who may use the admin API: bearer tokens with scopes, known by their hash.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use parking_lot::{Mutex, RwLock};

use super::problem::Problem;
use crate::net::ConnInfo;
use crate::rules::time::Millis;

/// The made token's file in the store's directory.
pub const TOKEN_FILE: &str = "admin.token";
/// What a token may be allowed to do.
pub const SCOPES: [&str; 5] = ["read", "purge", "purge:all", "warm", "admin"];
/// Failures of one address within [`FAILURE_WINDOW`] before it is told to wait.
const MAX_FAILURES: u32 = 10;
/// Where clients of other caches have their token.
const KEYS: [HeaderName; 2] = [HeaderName::from_static("fastly-key"), HeaderName::from_static("x-auth-key")];
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose failures are counted.
const MAX_ADDRESSES: usize = 10_000;

/// `[[admin.token]]`.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// Shown in logs.
    pub name: String,
    /// BLAKE3 of the token; its comparison takes constant time.
    pub hash: blake3::Hash,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Sites it is for; none: all.
    pub sites: Vec<String>,
    /// From when on it is refused.
    pub expires: Option<Millis>,
}

impl TokenConfig {
    /// Whether it covers a site.
    pub(super) fn covers(&self, site: &str) -> bool {
        self.sites.is_empty() || self.sites.iter().any(|own| own == site)
    }

    /// What it may not know of.
    pub(super) fn check_site(&self, site: &str) -> Result<(), Problem> {
        if self.covers(site) {
            return Ok(());
        }
        let detail = format!("the token {:?} is not for the site {site:?}", self.name);
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }

    pub(super) fn allows(&self, scope: &str) -> bool {
        let gives = |own: &str| own == scope || own == "admin" || own == "purge:all" && scope == "purge";
        self.scopes.iter().any(|own| gives(own))
    }

    /// What it lacks the scope for.
    pub(super) fn check_scope(&self, scope: &str) -> Result<(), Problem> {
        if self.allows(scope) {
            return Ok(());
        }
        let detail = format!("the token {:?} has no scope {scope:?}", self.name);
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }
}

/// The made token can't be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("the admin token {path}: {source}; make the directory writable, or configure an [[admin.token]]")]
pub struct TokenFileError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug)]
pub(super) struct Tokens {
    known: RwLock<Vec<Arc<TokenConfig>>>,
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
}

impl Tokens {
    pub(super) fn new(configured: &[TokenConfig], store: &Path) -> Result<Self, TokenFileError> {
        let known = RwLock::new(Self::known(configured, store)?);
        Ok(Self { known, failures: Mutex::default() })
    }

    /// Has other tokens be good from now on.
    pub(super) fn replace(&self, known: Vec<Arc<TokenConfig>>) {
        *self.known.write() = known;
    }

    /// The configured ones, or else the made one.
    pub(super) fn known(
        configured: &[TokenConfig],
        store: &Path,
    ) -> Result<Vec<Arc<TokenConfig>>, TokenFileError> {
        let mut known: Vec<_> = configured.iter().cloned().map(Arc::new).collect();
        if known.is_empty() {
            let path = store.join(TOKEN_FILE);
            let token = read_or_make(&path).map_err(|source| TokenFileError { path, source })?;
            known.push(Arc::new(TokenConfig {
                name: "local".into(),
                hash: blake3::hash(token.as_bytes()),
                scopes: vec!["admin".into()],
                sites: Vec::new(),
                expires: None,
            }));
        }
        Ok(known)
    }

    /// The token of a request, if it has the scope.
    pub(super) fn authorize(
        &self,
        headers: &HeaderMap,
        conn: &ConnInfo,
        scope: &str,
        now: Millis,
    ) -> Result<Arc<TokenConfig>, Problem> {
        let token = self.authenticate(headers, conn, now)?;
        token.check_scope(scope)?;
        Ok(token)
    }

    /// The token of a request, whatever it may do.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        conn: &ConnInfo,
        now: Millis,
    ) -> Result<Arc<TokenConfig>, Problem> {
        match self.find(headers, now) {
            Some(token) => Ok(token),
            None => Err(self.unauthorized(headers, conn)),
        }
    }

    /// The same, with the token where clients of other caches have it.
    pub(super) fn authenticate_key(
        &self,
        headers: &HeaderMap,
        conn: &ConnInfo,
        now: Millis,
    ) -> Result<Arc<TokenConfig>, Problem> {
        match self.find_key(headers, now) {
            Some(token) => Ok(token),
            None => Err(self.unauthorized(headers, conn)),
        }
    }

    fn unauthorized(&self, headers: &HeaderMap, conn: &ConnInfo) -> Problem {
        if let Err(slowed) = self.failed(headers, conn.peer.ip()) {
            return slowed;
        }
        let detail = "a valid token is needed: Authorization: Bearer TOKEN";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        problem.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// No token is valid. Guesses are slowed down; who has a valid token is not kept out by another's guesses.
    pub(super) fn failed(&self, headers: &HeaderMap, address: IpAddr) -> Result<(), Problem> {
        self.check_failures(address)?;
        if has_key(headers) {
            self.count_failure(address);
        }
        Ok(())
    }

    /// The token of a request, in any of the fields in which other caches' clients send theirs.
    pub(super) fn find_key(&self, headers: &HeaderMap, now: Millis) -> Option<Arc<TokenConfig>> {
        let mut keys = KEYS.into_iter().filter_map(|name| headers.get(name));
        self.find(headers, now).or_else(|| keys.find_map(|key| self.find_token(key.as_bytes(), now)))
    }

    pub(super) fn find(&self, headers: &HeaderMap, now: Millis) -> Option<Arc<TokenConfig>> {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, token) = value.split_at_checked("Bearer ".len())?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        self.find_token(token, now)
    }

    /// Whether a token may read what concerns a site. Guesses need no limit: there are 256 bits to guess.
    pub(super) fn may_read(&self, token: &[u8], site: &str, now: Millis) -> bool {
        self.find_token(token, now).is_some_and(|token| token.allows("read") && token.covers(site))
    }

    pub(super) fn find_token(&self, token: &[u8], now: Millis) -> Option<Arc<TokenConfig>> {
        let hash = blake3::hash(token.trim_ascii());
        // All are compared, so that the time does not tell which one matched.
        let mut found = None;
        for known in self.known.read().iter() {
            let is_valid = known.expires.is_none_or(|expires| now < expires);
            if known.hash == hash && is_valid {
                found = Some(known.clone());
            }
        }
        found
    }

    pub(super) fn check_failures(&self, address: IpAddr) -> Result<(), Problem> {
        let failures = self.failures.lock();
        let Some((count, since)) = failures.get(&address) else { return Ok(()) };
        let left = FAILURE_WINDOW.saturating_sub(since.elapsed());
        if *count < MAX_FAILURES || left.is_zero() {
            return Ok(());
        }
        let detail = "too many requests without a valid token; wait";
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-failures", detail);
        Err(problem.with(header::RETRY_AFTER, HeaderValue::from(left.as_secs() + 1)))
    }

    pub(super) fn count_failure(&self, address: IpAddr) {
        let mut failures = self.failures.lock();
        if failures.len() >= MAX_ADDRESSES {
            failures.retain(|_, (_, since)| since.elapsed() < FAILURE_WINDOW);
            if failures.len() >= MAX_ADDRESSES {
                failures.clear();
            }
        }
        let entry = failures.entry(address).or_insert((0, Instant::now()));
        if entry.1.elapsed() >= FAILURE_WINDOW {
            *entry = (0, Instant::now());
        }
        entry.0 += 1;
    }
}

/// Whether a request claims to have a token.
pub(super) fn has_key(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || KEYS.iter().any(|name| headers.contains_key(name))
}

fn read_or_make(path: &Path) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => match kept(&bytes) {
            Some(token) => return Ok(token),
            None => {
                tracing::warn!(path = %path.display(), "the admin token is empty or damaged: another one is made");
                fs::remove_file(path)?;
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let token = new_token()?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    Ok(token)
}

/// The token in a file; `None`: what a crash or a disk has left of one.
fn kept(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// 256 random bits, recognisable as a token of this program.
pub fn new_token() -> io::Result<String> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(format!("larder_{}", blake3::Hash::from_bytes(random).to_hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn() -> ConnInfo {
        let address = "127.0.0.1:1".parse().unwrap();
        ConnInfo::new(address, address, "")
    }

    fn headers(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("bearer {token}")).unwrap());
        headers
    }

    #[test]
    fn a_damaged_file_is_replaced_and_a_whole_one_is_not() {
        let dir = std::env::temp_dir().join(format!("larder-token-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(TOKEN_FILE);
        for damaged in [&b""[..], b" \n", b"larder_\xFF\xFE", b"\0\0\0\0", b"larder_a\0b"] {
            fs::write(&path, damaged).unwrap();
            let made = read_or_make(&path).unwrap();
            assert!(made.starts_with("larder_") && made.len() == 71, "{damaged:?}: {made}");
            assert_eq!(read_or_make(&path).unwrap(), made);
        }
        fs::write(&path, "one of their own\n").unwrap();
        assert_eq!(read_or_make(&path).unwrap(), "one of their own");
        fs::remove_dir_all(dir).unwrap();
    }

    fn tokens() -> Tokens {
        let token = |name: &str, scopes: &[&str], expires| TokenConfig {
            name: name.into(),
            hash: blake3::hash(name.as_bytes()),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            sites: vec!["shop".into()],
            expires,
        };
        let list = [token("reader", &["read"], None), token("old", &["read"], Some(Millis(5)))];
        Tokens::new(&list, Path::new("/nonexistent")).unwrap()
    }

    #[test]
    fn scopes_sites_and_expiry_count() {
        let tokens = tokens();
        let read = tokens.authorize(&headers("reader"), &conn(), "read", Millis(9)).unwrap();
        assert!(read.covers("shop") && !read.covers("other"));
        assert!(tokens.authorize(&headers("reader"), &conn(), "purge", Millis(9)).is_err());
        assert!(tokens.authorize(&headers("old"), &conn(), "read", Millis(4)).is_ok());
        assert!(tokens.authorize(&headers("old"), &conn(), "read", Millis(5)).is_err());
        assert!(tokens.authorize(&HeaderMap::new(), &conn(), "read", Millis(5)).is_err());
    }

    #[test]
    fn guessing_is_slowed_down() {
        let tokens = tokens();
        for _ in 0..MAX_FAILURES {
            assert!(tokens.authorize(&headers("guess"), &conn(), "read", Millis(0)).is_err());
        }
        let told = |token: &str| tokens.authorize(&headers(token), &conn(), "read", Millis(0));
        let refusal = axum::response::IntoResponse::into_response(told("guess").unwrap_err());
        assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(told("reader").is_ok(), "a valid token is not locked out by guesses");
    }
}
