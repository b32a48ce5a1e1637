//! Sitemaps (sitemaps.org, protocol 0.9): XML, an index of others, a list of lines; compressed by gzip or not.
//!
//! What a sitemap says is not trusted: its size, what it unpacks to, how far indexes reach and how many URLs it has are
//! bounded; entities of its own are refused, so that a few bytes can't become many.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// URLs of all sitemaps together; the protocol has as many for one file.
pub(super) const MAX_URLS: usize = 50_000;
/// Of them together.
pub(super) const MAX_URL_BYTES: usize = 16 << 20;
/// Files that one sitemap reaches.
pub(super) const MAX_FILES: usize = 500;
/// Indexes below each other: the protocol knows one.
pub(super) const MAX_DEPTH: usize = 2;
/// As it is sent.
pub(super) const MAX_FILE_BYTES: usize = 52_428_800;
/// Unpacked; the protocol's limit.
const MAX_UNPACKED_BYTES: u64 = 52_428_800;
/// A file that unpacks to more than this many times its size is no list of URLs.
const MAX_RATIO: u64 = 200;
/// Whatever it unpacks to, this much is no harm.
const HARMLESS_BYTES: u64 = 1 << 20;
/// Of one URL; the protocol has 2,048 characters.
const MAX_LOCATION_BYTES: usize = 8192;

/// What a sitemap names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sitemap {
    pub(super) urls: Vec<Box<str>>,
    /// Sitemaps, if it is an index.
    pub(super) children: Vec<Box<str>>,
}

/// Reads a file, compressed or not.
///
/// # Errors
/// Why it is no sitemap, or which bound it goes beyond.
pub(super) fn parse(file: &Bytes) -> Result<Sitemap, String> {
    let most = (file.len() as u64 * MAX_RATIO).clamp(HARMLESS_BYTES, MAX_UNPACKED_BYTES);
    if file.starts_with(&[0x1f, 0x8b]) {
        return read(BufReader::new(Limited { inner: MultiGzDecoder::new(&file[..]), left: most }));
    }
    read(&file[..])
}

/// Fails, rather than ends, beyond its limit.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            let most = "it unpacks to more than 50 MiB, or to more than 200 times its size";
            std::io::Error::other(most)
        })?;
        Ok(read)
    }
}

fn read(mut file: impl BufRead) -> Result<Sitemap, String> {
    let unreadable = |error: std::io::Error| format!("it can't be read: {error}");
    let first = loop {
        let start = file.fill_buf().map_err(unreadable)?;
        let (length, first) = (start.len(), start.iter().position(|byte| !is_blank(*byte)));
        let found = first.map(|at| (at, start[at]));
        file.consume(found.map_or(length, |(at, _)| at));
        match found {
            Some((_, first)) => break first,
            None if length == 0 => return Err("it is empty".into()),
            None => {}
        }
    };
    if first == b'<' { read_xml(file) } else { read_lines(file) }
}

/// Blanks, and what a byte order mark is made of.
fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || [0xef, 0xbb, 0xbf].contains(&byte)
}

/// A URL a line.
fn read_lines(file: impl BufRead) -> Result<Sitemap, String> {
    let mut found = Sitemap::default();
    for line in file.take(MAX_UNPACKED_BYTES).lines() {
        let line = line.map_err(|error| format!("it can't be read: {error}"))?;
        let is_url = line.starts_with("http://") || line.starts_with("https://");
        if !is_url && !line.trim().is_empty() {
            return Err("it is neither XML nor a list of URLs".into());
        }
        add(&mut found.urls, line.trim())?;
    }
    Ok(found)
}

fn add(list: &mut Vec<Box<str>>, location: &str) -> Result<(), String> {
    if location.is_empty() {
        return Ok(());
    }
    if location.len() > MAX_LOCATION_BYTES {
        return Err(format!("it has a URL of more than {MAX_LOCATION_BYTES} bytes"));
    }
    if list.len() >= MAX_URLS {
        return Err(format!("it has more than {MAX_URLS} URLs"));
    }
    list.push(location.into());
    Ok(())
}

/// Where the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    UrlSet,
    Index,
    Url,
    Child,
    /// The `loc` of a URL, or of a child.
    Location(bool),
    Other,
}

fn below(place: Option<&Place>, name: &str) -> Place {
    match (place, name) {
        (None, "urlset") => Place::UrlSet,
        (None, "sitemapindex") => Place::Index,
        (Some(Place::UrlSet), "url") => Place::Url,
        (Some(Place::Index), "sitemap") => Place::Child,
        (Some(Place::Url), "loc") => Place::Location(false),
        (Some(Place::Child), "loc") => Place::Location(true),
        _ => Place::Other,
    }
}

fn read_xml(file: impl BufRead) -> Result<Sitemap, String> {
    let mut reader = Reader::from_reader(file);
    let (mut found, mut buffer) = (Sitemap::default(), Vec::new());
    let (mut places, mut location) = (Vec::new(), String::new());
    loop {
        buffer.clear();
        let event = reader.read_event_into(&mut buffer).map_err(|error| {
            format!("it is no well-formed XML, at byte {}: {error}", reader.error_position())
        })?;
        let in_location = matches!(places.last(), Some(Place::Location(_)));
        match event {
            Event::Start(tag) => {
                let place = below(places.last(), tag.local_name().as_ref());
                if places.is_empty() && place == Place::Other {
                    return Err("it is XML and no sitemap: there is no urlset and no sitemapindex".into());
                }
                if places.len() >= 16 {
                    return Err("its elements are nested too deep".into());
                }
                location.clear();
                places.push(place);
            }
            Event::End(_) => match places.pop() {
                Some(Place::Location(false)) => add(&mut found.urls, location.trim())?,
                Some(Place::Location(true)) => add(&mut found.children, location.trim())?,
                _ => {}
            },
            Event::Text(text) if in_location => location.push_str(&text.xml10_content()),
            Event::CData(text) if in_location => location.push_str(&text.xml10_content()),
            Event::GeneralRef(name) if in_location => {
                let character = name.resolve_char_ref().map_err(|error| format!("it is no XML: {error}"))?;
                match (character, resolve_xml_entity(&name)) {
                    (Some(character), _) => location.push(character),
                    (None, Some(text)) => location.push_str(text),
                    (None, None) => return Err("it has entities of its own, which are not followed".into()),
                }
            }
            Event::Eof if !places.is_empty() => return Err("it ends before its end".into()),
            Event::Eof => return Ok(found),
            _ => {}
        }
        if location.len() > MAX_LOCATION_BYTES {
            return Err(format!("it has a URL of more than {MAX_LOCATION_BYTES} bytes"));
        }
    }
}

/// All that a tree of sitemaps has named so far.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) urls: Vec<Box<str>>,
    bytes: usize,
    /// Sitemaps that are still to be read, and how deep they are.
    pub(super) left: Vec<(Box<str>, usize)>,
    seen: HashSet<Box<str>>,
}

impl Tree {
    pub(super) fn new(root: &str) -> Self {
        Self { left: vec![(root.into(), 0)], seen: HashSet::from([root.into()]), ..Self::default() }
    }

    /// Adds what a sitemap names.
    ///
    /// # Errors
    /// The bound that it goes beyond.
    pub(super) fn add(&mut self, found: Sitemap, depth: usize) -> Result<(), String> {
        self.bytes += found.urls.iter().map(|url| url.len()).sum::<usize>();
        self.urls.extend(found.urls);
        if self.urls.len() > MAX_URLS || self.bytes > MAX_URL_BYTES {
            return Err(format!(
                "it names more than {MAX_URLS} URLs, or {MAX_URL_BYTES} bytes of them; warm its parts one by one"
            ));
        }
        if depth >= MAX_DEPTH && !found.children.is_empty() {
            return Err(format!("it has indexes more than {MAX_DEPTH} deep"));
        }
        for child in found.children {
            // An index that names itself is read once.
            if self.seen.insert(child.clone()) {
                self.left.push((child, depth + 1));
            }
        }
        if self.seen.len() > MAX_FILES {
            return Err(format!("it names more than {MAX_FILES} sitemaps"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
