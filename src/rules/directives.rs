//! Cache-Control of requests and responses (RFC 9111 §5.2, RFC 5861, RFC 8246).
//!
//! Restricting directives are read leniently (`no-store foo` is `no-store`), permitting ones strictly (`public=no` is
//! nothing), so that a malformed field never makes a response more cacheable than its author meant.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header::CACHE_CONTROL};

use super::fields;

/// An argument of type delta-seconds (RFC 9111 §1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Seconds, clamped to 2^31.
    Secs(u32),
    /// Present but not `1*DIGIT`; as a lifetime this means 0, never "absent".
    Invalid,
}

impl Delta {
    const MAX_SECS: u32 = 1 << 31;

    /// Clamps to what RFC 9111 §1.2.2 lets a cache call infinity.
    #[must_use]
    pub fn from_secs(secs: u64) -> Self {
        Delta::Secs(u32::try_from(secs).unwrap_or(u32::MAX).min(Self::MAX_SECS))
    }

    /// Milliseconds; an invalid argument is 0.
    #[must_use]
    pub fn as_ms(self) -> i64 {
        match self {
            Delta::Secs(secs) => i64::from(secs) * 1000,
            Delta::Invalid => 0,
        }
    }
}

/// The directives Larder acts upon; of duplicates the first one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a directive of its own, in any combination
pub struct Directives {
    /// RFC 9111 §5.2.1.5, §5.2.2.5.
    pub no_store: bool,
    /// Without field names: never used without validation.
    pub no_cache: bool,
    /// `no-cache="a, b"`: these fields are left out when the response is used without validation.
    pub no_cache_fields: Vec<HeaderName>,
    /// Also for the form with field names.
    pub private: bool,
    /// RFC 9111 §5.2.2.9.
    pub public: bool,
    /// RFC 9111 §5.2.2.2.
    pub must_revalidate: bool,
    /// RFC 9111 §5.2.2.8.
    pub proxy_revalidate: bool,
    /// RFC 9111 §5.2.2.3.
    pub must_understand: bool,
    /// RFC 8246.
    pub immutable: bool,
    /// RFC 9111 §5.2.1.6, §5.2.2.6.
    pub no_transform: bool,
    /// Requests only (RFC 9111 §5.2.1.7).
    pub only_if_cached: bool,
    /// RFC 9111 §5.2.1.1, §5.2.2.1.
    pub max_age: Option<Delta>,
    /// RFC 9111 §5.2.2.10.
    pub s_maxage: Option<Delta>,
    /// RFC 5861 §3.
    pub stale_while_revalidate: Option<Delta>,
    /// RFC 5861 §4.
    pub stale_if_error: Option<Delta>,
    /// `Some(None)`: any staleness will do.
    pub max_stale: Option<Option<Delta>>,
    /// Requests only.
    pub min_fresh: Option<Delta>,
}

impl Directives {
    /// Reads all Cache-Control lines as one list.
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut directives = Directives::default();
        if let Some(value) = fields::combined(headers, CACHE_CONTROL.as_str()) {
            for element in fields::elements(&value) {
                directives.apply(element);
            }
        }
        directives
    }

    fn apply(&mut self, element: &[u8]) {
        let name_length = element.iter().take_while(|&&b| fields::is_tchar(b)).count();
        let (name, rest) = element.split_at(name_length);
        let argument = Argument::parse(rest);
        let bare = matches!(argument, Argument::None);
        // No directive has a longer name than stale-while-revalidate.
        let mut buffer = [0_u8; 24];
        let Some(lower) = buffer.get_mut(..name.len()) else {
            return;
        };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        match &*lower {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache(&argument),
            b"private" => self.private = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"no-transform" => self.no_transform = true,
            b"public" => self.public |= bare,
            b"must-understand" => self.must_understand |= bare,
            b"immutable" => self.immutable |= bare,
            b"max-age" => first(&mut self.max_age, argument.delta()),
            b"s-maxage" => first(&mut self.s_maxage, argument.delta()),
            b"stale-while-revalidate" => first(&mut self.stale_while_revalidate, argument.delta()),
            b"stale-if-error" => first(&mut self.stale_if_error, argument.delta()),
            b"min-fresh" => first(&mut self.min_fresh, argument.delta()),
            b"max-stale" => first(&mut self.max_stale, (!bare).then(|| argument.delta())),
            _ => {}
        }
    }

    fn no_cache(&mut self, argument: &Argument<'_>) {
        match argument {
            Argument::Value(names) => self.no_cache_named(names),
            Argument::None | Argument::Malformed => self.no_cache = true,
        }
    }

    /// The qualified form (RFC 9111 §5.2.2.4). Names that are none make it the unqualified one: the stricter reading.
    pub(super) fn no_cache_named(&mut self, names: &[u8]) {
        let before = self.no_cache_fields.len();
        for name in fields::elements(names) {
            match HeaderName::from_bytes(name) {
                Ok(name) => self.no_cache_fields.push(name),
                Err(_) => self.no_cache = true,
            }
        }
        self.no_cache |= self.no_cache_fields.len() == before;
    }
}

fn first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

/// What follows a directive's name.
enum Argument<'a> {
    None,
    Value(Cow<'a, [u8]>),
    Malformed,
}

impl<'a> Argument<'a> {
    /// Whitespace around "=" is malformed: `max-age =3600` is no grammar of RFC 9111 §5.2.
    fn parse(rest: &'a [u8]) -> Self {
        match rest {
            [] => Argument::None,
            [b'=', value @ ..] if fields::is_token(value) => Argument::Value(Cow::Borrowed(value)),
            [b'=', value @ ..] => match fields::unquote(value) {
                Some(content) => Argument::Value(Cow::Owned(content)),
                None => Argument::Malformed,
            },
            _ => Argument::Malformed,
        }
    }

    fn delta(&self) -> Delta {
        match self {
            Argument::Value(value) => fields::digits(value).map_or(Delta::Invalid, Delta::from_secs),
            Argument::None | Argument::Malformed => Delta::Invalid,
        }
    }
}

#[cfg(test)]
mod tests;
