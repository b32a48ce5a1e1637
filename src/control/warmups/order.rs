//! The body of `POST /v1/warmups`: read and checked entry by entry. Nothing is asked for before all of it is good.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::auth::TokenConfig;
use super::super::body;
use super::super::problem::Problem;
use crate::edge::Edge;

/// Entries of all lists together.
const MAX_ENTRIES: usize = 10_000;
/// Errors that one answer names.
const MAX_ERRORS: usize = 100;
const MAX_ENCODINGS: usize = 8;
const MAX_HEADER_SETS: usize = 16;
const MAX_FIELDS: usize = 32;
const MAX_FIELD_BYTES: usize = 4096;
/// URLs × encodings × header sets.
pub(super) const MAX_REQUESTS: usize = 200_000;
const RATE: f64 = 200.0;
const MAX_RATE: f64 = 10_000.0;
const MIN_RATE: f64 = 0.1;
const CONCURRENCY: usize = 16;
const MAX_CONCURRENCY: usize = 64;
const MAX_HOLD: Duration = Duration::from_secs(30 * 24 * 3600);
/// What browsers of today send.
const BROWSERS: &str = "gzip, br, zstd";
/// Fields that the node sets itself, or that would make an answer one client's own or a part.
const NOT_ASKED: [HeaderName; 20] = [
    header::ACCEPT_ENCODING,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::VIA,
    HeaderName::from_static("cdn-loop"),
    HeaderName::from_static("keep-alive"),
];

/// What is to be warmed. Entries are any JSON, so that each wrong one can be named.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Order {
    site: Option<String>,
    urls: Vec<Value>,
    pub(super) sitemap: Option<String>,
    encodings: Option<Vec<Value>>,
    headers: Option<Vec<Value>>,
    rate: Option<f64>,
    concurrency: Option<usize>,
    pub(super) refresh: bool,
    hold: Option<String>,
}

/// An order that is good.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) site: Option<String>,
    pub(super) urls: Vec<Box<str>>,
    /// The sites of its URLs.
    pub(super) sites: Vec<String>,
    pub(super) encodings: Vec<String>,
    pub(super) headers: Vec<Vec<(String, String)>>,
    pub(super) rate: f64,
    pub(super) concurrency: usize,
    pub(super) hold_secs: Option<u64>,
}

pub(super) fn parse(body: &[u8]) -> Result<Order, Problem> {
    let order: Order = body::parse(body).map_err(|why| bad("the body is no warm job").at("#", why))?;
    if order.urls.len() > MAX_ENTRIES {
        let found = order.urls.len();
        return Err(too_large(format!(
            "a warm job has at most {MAX_ENTRIES} entries, and this one has {found}"
        )));
    }
    if order.urls.is_empty() && order.sitemap.is_none() {
        let detail = "the warm job names nothing: urls or sitemap are needed";
        return Err(bad(detail).at("#", detail));
    }
    Ok(order)
}

impl Order {
    /// Checks everything but the sitemap.
    pub(super) fn check(&self, token: &TokenConfig, edge: &Edge) -> Result<Checked, Problem> {
        self.check_site(token, edge)?;
        let mut errors = Errors::default();
        let mut sites = Sites::new(self.site.as_deref(), token, edge);
        let mut urls = Vec::with_capacity(self.urls.len());
        for (index, entry) in self.urls.iter().enumerate() {
            let text = entry.as_str().ok_or_else(|| "a string is needed".to_owned());
            match text.and_then(|url| sites.check(url).map(|()| url)) {
                Ok(url) => urls.push(url.into()),
                Err(why) => errors.add(format!("#/urls/{index}"), why),
            }
        }
        if let Some(sitemap) = &self.sitemap
            && let Err(why) = sites.check(sitemap)
        {
            errors.add("#/sitemap".into(), why);
        }
        let encodings = self.check_encodings(&mut errors);
        let headers = self.check_headers(&mut errors);
        let (rate, concurrency) = (self.rate.unwrap_or(RATE), self.concurrency.unwrap_or(CONCURRENCY));
        if !(MIN_RATE..=MAX_RATE).contains(&rate) {
            errors.add(
                "#/rate".into(),
                format!("requests a second, from {MIN_RATE} to {MAX_RATE}, are needed"),
            );
        }
        if !(1..=MAX_CONCURRENCY).contains(&concurrency) {
            errors.add("#/concurrency".into(), format!("a number from 1 to {MAX_CONCURRENCY} is needed"));
        }
        let hold = self.hold.as_deref().map(parse_hold);
        if let Some(None) = hold {
            errors.add(
                "#/hold".into(),
                "a duration such as \"30m\", \"12h\" or \"7d\", up to 30d, is needed".into(),
            );
        }
        errors.none()?;
        let checked = Checked {
            site: self.site.clone(),
            urls,
            sites: sites.found,
            encodings,
            headers,
            rate,
            concurrency,
            hold_secs: hold.flatten().map(|hold| hold.as_secs()),
        };
        checked.check_size()?;
        Ok(checked)
    }

    fn check_site(&self, token: &TokenConfig, edge: &Edge) -> Result<(), Problem> {
        let Some(site) = &self.site else { return Ok(()) };
        let mut sites = edge.config().sites.iter();
        if sites.any(|known| *known.name == **site) && token.covers(site) {
            return Ok(());
        }
        // Which sites there are is not for everybody.
        let detail = format!("the token {:?} is not for a site {site:?}", token.name);
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail.clone()).at("#/site", detail))
    }

    fn check_encodings(&self, errors: &mut Errors) -> Vec<String> {
        let Some(list) = &self.encodings else { return vec![BROWSERS.into()] };
        if list.is_empty() || list.len() > MAX_ENCODINGS {
            errors.add("#/encodings".into(), format!("1 to {MAX_ENCODINGS} are needed"));
        }
        let mut found = Vec::new();
        for (index, entry) in list.iter().take(MAX_ENCODINGS).enumerate() {
            match entry.as_str().and_then(parse_encoding) {
                Some(encoding) => found.push(encoding),
                None => errors.add(
                    format!("#/encodings/{index}"),
                    format!(
                        "br, gzip, zstd or identity is needed, or what a client accepts, such as {BROWSERS:?}"
                    ),
                ),
            }
        }
        found
    }

    fn check_headers(&self, errors: &mut Errors) -> Vec<Vec<(String, String)>> {
        let Some(list) = &self.headers else { return vec![Vec::new()] };
        if list.is_empty() || list.len() > MAX_HEADER_SETS {
            errors.add("#/headers".into(), format!("1 to {MAX_HEADER_SETS} sets of fields are needed"));
        }
        let mut found = Vec::new();
        for (index, entry) in list.iter().take(MAX_HEADER_SETS).enumerate() {
            let set = entry.as_object().ok_or_else(|| "an object of names and values is needed".to_owned());
            match set.and_then(fields) {
                Ok(set) => found.push(set),
                Err(why) => errors.add(format!("#/headers/{index}"), why),
            }
        }
        found
    }
}

impl Checked {
    /// With the URLs of a sitemap too.
    pub(super) fn check_size(&self) -> Result<(), Problem> {
        let requests = self.urls.len() * self.encodings.len() * self.headers.len();
        if requests <= MAX_REQUESTS {
            return Ok(());
        }
        Err(too_large(format!(
            "a warm job makes at most {MAX_REQUESTS} requests, and this one would make {requests}: URLs × encodings × \
             header sets"
        )))
    }
}

/// Whose URLs may be warmed.
pub(super) struct Sites<'a> {
    site: Option<&'a str>,
    token: &'a TokenConfig,
    edge: &'a Edge,
    pub(super) found: Vec<String>,
}

impl<'a> Sites<'a> {
    pub(super) fn new(site: Option<&'a str>, token: &'a TokenConfig, edge: &'a Edge) -> Self {
        Self { site, token, edge, found: Vec::new() }
    }

    /// Whether a URL is the token's to warm, or why not.
    pub(super) fn check(&mut self, url: &str) -> Result<(), String> {
        let located = self.edge.locate(url).map_err(|error| error.to_string())?;
        let uri_bytes = self.edge.config().uri_bytes;
        if url.len() > uri_bytes {
            return Err(format!("it is longer than {uri_bytes} bytes, which is too long for clients too"));
        }
        let name = &*located.site;
        if !self.token.covers(name) {
            // As if there were none: which sites there are is not for everybody.
            return Err(format!("{url}: no site of the token {:?} has this host", self.token.name));
        }
        if self.site.is_some_and(|site| site != name) {
            return Err(format!(
                "it belongs to the site {name:?}, not to {:?}",
                self.site.unwrap_or_default()
            ));
        }
        if !self.found.iter().any(|found| found == name) {
            self.found.push(name.to_owned());
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Errors(Vec<(String, String)>);

impl Errors {
    pub(super) fn add(&mut self, pointer: String, why: String) {
        self.0.push((pointer, why));
    }

    pub(super) fn none(self) -> Result<(), Problem> {
        if self.0.is_empty() {
            return Ok(());
        }
        let detail = format!("{} entries are wrong; nothing is warmed", self.0.len());
        let errors = self.0.into_iter().take(MAX_ERRORS);
        Err(errors.fold(bad(&detail), |problem, (pointer, why)| problem.at(&pointer, why)))
    }
}

/// `br`, or a list as clients send it; `None`: a coding that nobody here knows.
fn parse_encoding(text: &str) -> Option<String> {
    let is_known = |coding: &str| ["br", "gzip", "zstd", "deflate"].contains(&coding);
    if text == "identity" {
        return Some(text.into());
    }
    let codings: Vec<&str> = text.split(',').map(str::trim).collect();
    let is_good = codings.iter().all(|coding| is_known(coding)) && codings != ["deflate"];
    is_good.then(|| codings.join(", "))
}

fn fields(set: &Map<String, Value>) -> Result<Vec<(String, String)>, String> {
    if set.len() > MAX_FIELDS {
        return Err(format!("a set has at most {MAX_FIELDS} fields"));
    }
    let mut found = Vec::new();
    for (name, value) in set {
        let value = value.as_str().ok_or_else(|| format!("{name}: a string is needed"))?;
        let name = HeaderName::try_from(name).map_err(|_| format!("{name:?} is no name of a field"))?;
        HeaderValue::try_from(value).map_err(|_| format!("{name}: this can't be a field's value"))?;
        if NOT_ASKED.contains(&name) {
            return Err(format!("{name} can't be set: a warmed response is whole, and for everybody"));
        }
        if value.len() > MAX_FIELD_BYTES {
            return Err(format!("{name}: a value has at most {MAX_FIELD_BYTES} bytes"));
        }
        found.push((name.as_str().to_owned(), value.to_owned()));
    }
    Ok(found)
}

fn parse_hold(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number: u64 = number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))?;
    let hold = Duration::from_secs(number.checked_mul(unit)?);
    (!hold.is_zero() && hold <= MAX_HOLD).then_some(hold)
}

pub(super) fn bad(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-warmup", detail)
}

pub(super) fn too_large(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds() {
        let rows = [("90s", Some(90)), ("12h", Some(43_200)), ("30d", Some(2_592_000)), ("31d", None)];
        for (text, secs) in rows {
            assert_eq!(parse_hold(text).map(|hold| hold.as_secs()), secs, "{text}");
        }
        for text in ["", "h", "0s", "-1h", "1.5h", "12", "12 h", "+1h", "99999999999999999999d", "1é"] {
            assert_eq!(parse_hold(text), None, "{text}");
        }
    }

    #[test]
    fn encodings() {
        for (text, sent) in
            [("br", "br"), ("identity", "identity"), ("gzip,deflate ,br", "gzip, deflate, br")]
        {
            assert_eq!(parse_encoding(text).as_deref(), Some(sent));
        }
        for text in ["", "deflate", "brotli", "br, identity", "br,", "*"] {
            assert_eq!(parse_encoding(text), None, "{text}");
        }
    }
}
