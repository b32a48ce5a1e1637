//! Signed URLs: one query parameter says until when a URL is good and proves that who holds the secret said so.
//!
//! ```text
//! value      EXPIRES "-" HMAC
//! EXPIRES    Unix time in seconds, decimal; the URL is good before that second
//! HMAC       HMAC-SHA256 of the message in 64 hexadecimal digits
//! message    EXPIRES LF HOST LF TARGET, without a final LF
//! HOST       lower-case, with the port if it is not the scheme's own
//! TARGET     the normalised path (no dot segments, no needless percent-encoding), and "?" with the other parameters as they
//!            are sent, if there are any
//! ```
//!
//! The parameter is neither part of the cache key nor sent to the origin. The scheme and the method are not signed.

use std::borrow::Cow;
use std::path::Path;

use aws_lc_rs::hmac;

/// A shorter secret is a password, and can be guessed.
const MIN_SECRET_BYTES: usize = 16;
/// Enough for any time, and far from any overflow.
const MAX_EXPIRES_DIGITS: usize = 12;
const HMAC_BYTES: usize = 32;

/// What URLs of a site are signed with.
#[derive(Clone, Debug)]
pub struct Signed {
    param: String,
    /// `None`: the secret could not be read, and no URL is good.
    key: Option<hmac::Key>,
}

/// Why a URL is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// There is no such parameter.
    #[error("the URL has to be signed")]
    Missing,
    /// More than one, or not of the form `EXPIRES-HMAC`.
    #[error("the URL's signature is malformed")]
    Malformed,
    /// It was good.
    #[error("the URL's signature has expired")]
    Expired,
    /// For another URL, or with another secret.
    #[error("the URL's signature does not fit")]
    Wrong,
}

/// Why a secret can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// The file.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Too short.
    #[error("the secret has only {0} bytes; {MIN_SECRET_BYTES} at least are needed")]
    TooShort(usize),
}

impl Signed {
    /// A secret from a file; a line feed at its end does not count.
    pub fn read(secret_file: &Path, param: &str) -> Result<Self, BadSecret> {
        let secret = std::fs::read(secret_file)?;
        Self::new(secret.strip_suffix(b"\n").unwrap_or(&secret), param)
    }

    /// A secret as it is.
    pub fn new(secret: &[u8], param: &str) -> Result<Self, BadSecret> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(BadSecret::TooShort(secret.len()));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Ok(Self { param: param.to_owned(), key: Some(key) })
    }

    /// No URL is good.
    pub fn closed(param: &str) -> Self {
        Self { param: param.to_owned(), key: None }
    }

    /// The value of the parameter and the query without it; no query is left when there is nothing else in it.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn split<'q>(&self, query: Option<&'q str>) -> Result<(&'q str, Option<Cow<'q, str>>), BadSignature> {
        let query = query.ok_or(BadSignature::Missing)?;
        let value_of = |part: &'q str| part.strip_prefix(&*self.param)?.strip_prefix('=');
        let mut values = query.split('&').filter_map(value_of);
        let value = values.next().ok_or(BadSignature::Missing)?;
        if values.next().is_some() {
            return Err(BadSignature::Malformed);
        }
        let rest: Vec<&str> = query.split('&').filter(|part| value_of(part).is_none()).collect();
        let rest = match rest.as_slice() {
            [] => None,
            [one] => Some(Cow::Borrowed(*one)),
            parts => Some(Cow::Owned(parts.join("&"))),
        };
        Ok((value, rest))
    }

    /// Whether a value is good for a URL now; compared in constant time.
    pub fn verify(
        &self,
        value: &str,
        host: &str,
        path: &str,
        query: Option<&str>,
        now_secs: i64,
    ) -> Result<(), BadSignature> {
        let (expires, mac) = value.split_once('-').ok_or(BadSignature::Malformed)?;
        let is_time = !expires.is_empty()
            && expires.len() <= MAX_EXPIRES_DIGITS
            && expires.bytes().all(|b| b.is_ascii_digit());
        let mac = decode_hex(mac).filter(|_| is_time).ok_or(BadSignature::Malformed)?;
        let expires_secs: i64 = expires.parse().map_err(|_| BadSignature::Malformed)?;
        let key = self.key.as_ref().ok_or(BadSignature::Wrong)?;
        hmac::verify(key, message(expires, host, path, query).as_bytes(), &mac)
            .map_err(|_| BadSignature::Wrong)?;
        if now_secs < expires_secs { Ok(()) } else { Err(BadSignature::Expired) }
    }
}

fn message(expires: &str, host: &str, path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{expires}\n{host}\n{path}?{query}"),
        None => format!("{expires}\n{host}\n{path}"),
    }
}

fn decode_hex(text: &str) -> Option<[u8; HMAC_BYTES]> {
    let mut bytes = [0; HMAC_BYTES];
    if text.len() != 2 * HMAC_BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "shop.example";
    const PATH: &str = "/films/a.mp4";
    const QUERY: Option<&str> = Some("quality=hd");
    /// `printf '%s\n%s\n%s' 2000000000 shop.example '/films/a.mp4?quality=hd' | openssl dgst -sha256 -hmac "$(cat secret)"`
    const VALUE: &str = "2000000000-2e533f413879b541326341da15cd7d0ef97d7a988a530901cf52ad6e19a114ae";
    const NOW: i64 = 1_800_000_000;

    fn signed() -> Signed {
        Signed::new(b"correct horse battery staple stays secret", "sig").unwrap()
    }

    #[test]
    fn openssl_and_we_agree() {
        assert_eq!(signed().verify(VALUE, HOST, PATH, QUERY, NOW), Ok(()));
        assert_eq!(signed().verify(&VALUE.to_uppercase(), HOST, PATH, QUERY, NOW), Ok(()));
    }

    #[test]
    fn it_is_good_for_this_url_and_this_secret_until_then() {
        let verify = |host, path, query, now| signed().verify(VALUE, host, path, query, now);
        assert_eq!(verify(HOST, PATH, QUERY, 1_999_999_999), Ok(()));
        assert_eq!(verify(HOST, PATH, QUERY, 2_000_000_000), Err(BadSignature::Expired));
        assert_eq!(verify("a.example", PATH, QUERY, NOW), Err(BadSignature::Wrong));
        assert_eq!(verify(HOST, "/films/b.mp4", QUERY, NOW), Err(BadSignature::Wrong));
        assert_eq!(verify(HOST, PATH, Some("quality=4k"), NOW), Err(BadSignature::Wrong));
        assert_eq!(verify(HOST, PATH, None, NOW), Err(BadSignature::Wrong));
        let later = VALUE.replacen('2', "3", 1);
        assert_eq!(signed().verify(&later, HOST, PATH, QUERY, NOW), Err(BadSignature::Wrong));
        let other = Signed::new(b"another secret of some length", "sig").unwrap();
        assert_eq!(other.verify(VALUE, HOST, PATH, QUERY, NOW), Err(BadSignature::Wrong));
        assert_eq!(Signed::closed("sig").verify(VALUE, HOST, PATH, QUERY, NOW), Err(BadSignature::Wrong));
    }

    #[test]
    fn what_is_not_of_the_form_is_malformed() {
        let short = &VALUE[..VALUE.len() - 1];
        let sign = format!("+{VALUE}");
        let long = format!("0000{VALUE}");
        let letters = format!("{}g", &VALUE[..VALUE.len() - 1]);
        for value in ["", "-", "2000000000", "2000000000-", short, &sign, &long, &letters, &VALUE[10..]] {
            let verified = signed().verify(value, HOST, PATH, QUERY, NOW);
            assert_eq!(verified, Err(BadSignature::Malformed), "{value}");
        }
    }

    #[test]
    fn the_parameter_is_taken_out_of_the_query() {
        let split = |query| {
            let (value, rest) = signed().split(query)?;
            Ok((value.to_owned(), rest.map(Cow::into_owned)))
        };
        let found = |value: &str, rest: Option<&str>| Ok((value.to_owned(), rest.map(str::to_owned)));
        assert_eq!(split(Some("sig=x")), found("x", None));
        assert_eq!(split(Some("a=1&sig=x&b")), found("x", Some("a=1&b")));
        assert_eq!(split(Some("sig=&&a")), found("", Some("&a")));
        assert_eq!(split(Some("a=sig=x&sigs=1&sig")), Err(BadSignature::Missing));
        assert_eq!(split(None), Err(BadSignature::Missing));
        assert_eq!(split(Some("sig=x&sig=x")), Err(BadSignature::Malformed));
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(matches!(Signed::new(b"password", "sig"), Err(BadSecret::TooShort(8))));
    }

    proptest! {
        #[test]
        fn nothing_panics(query in "[a-z=&0-9-]{0,40}", value in "\\PC{0,80}") {
            let _ = signed().split(Some(&query));
            prop_assert!(signed().verify(&value, HOST, PATH, None, NOW).is_err());
        }
    }
}
