//! What is answered: every head and every body, made ready before the first request.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::sys;

/// Up to this size a body stands behind its head in one buffer and leaves by one `send`; above it by `sendfile`.
const COPY_LIMIT_BYTES: usize = 32 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Answers with the fields of a cache's hit.
    Floor,
    /// Answers as the origin behind a cache.
    Origin,
}

/// One ready answer: `bytes` first, then the file, if there is one.
pub struct Answer {
    pub bytes: Vec<u8>,
    pub file: Option<(File, usize)>,
}

struct Object {
    name: String,
    full: Answer,
    not_modified: Answer,
}

/// Which answer: an index, so that a connection that waits for its socket borrows nothing.
#[derive(Clone, Copy)]
pub enum Choice {
    Full(usize),
    NotModified(usize),
    NotFound,
    Requests,
}

pub struct Answers {
    objects: Vec<Object>,
    not_found: Answer,
    requests: Answer,
    answered: u64,
    role: Role,
}

impl Answers {
    /// Reads every file of `dir` into memory; a file `1k` answers the path `/1k`, and all paths below it.
    pub fn load(dir: &Path, role: Role) -> io::Result<Self> {
        let mut objects = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            objects.push(object(&name, &fs::read(entry.path())?, role)?);
        }
        let not_found = small("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned());
        Ok(Self { objects, not_found, requests: small(String::new()), answered: 0, role })
    }

    /// Chooses by the path and by whether the request is conditional. The tag itself is not compared: there is one.
    pub fn choose(&mut self, request: &[u8]) -> Option<Choice> {
        let target = request.strip_prefix(b"GET /")?;
        let path = &target[..target.iter().position(|&byte| byte == b' ')?];
        if self.role == Role::Origin && path == b"_requests" {
            let count = self.answered.to_string();
            self.requests = small(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{count}", count.len()));
            return Some(Choice::Requests);
        }
        self.answered += 1;
        let name = path.split(|&byte| byte == b'/').next()?;
        let Some(index) = self.objects.iter().position(|object| object.name.as_bytes() == name) else {
            return Some(Choice::NotFound);
        };
        if has_if_none_match(target) { Some(Choice::NotModified(index)) } else { Some(Choice::Full(index)) }
    }

    pub fn get(&self, choice: Choice) -> &Answer {
        match choice {
            Choice::Full(index) => &self.objects[index].full,
            Choice::NotModified(index) => &self.objects[index].not_modified,
            Choice::NotFound => &self.not_found,
            Choice::Requests => &self.requests,
        }
    }
}

fn object(name: &str, body: &[u8], role: Role) -> io::Result<Object> {
    let mut fields = format!(
        "ETag: \"{name}-{:x}\"\r\nCache-Control: public, max-age=86400\r\nDate: {}\r\n",
        body.len(),
        sys::http_date()
    );
    if role == Role::Floor {
        fields.push_str("Accept-Ranges: bytes\r\nAge: 60\r\nVia: 1.1 floor\r\n");
        fields.push_str("Cache-Status: floor; hit; ttl=86340; detail=memory\r\n");
    }
    let mut full = small(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n{fields}\r\n",
        body.len()
    ));
    if body.len() <= COPY_LIMIT_BYTES {
        full.bytes.extend_from_slice(body);
    } else {
        let mut file = sys::memfd(c"bench-floor")?;
        file.write_all(body)?;
        full.file = Some((file, body.len()));
    }
    let not_modified = small(format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n"));
    Ok(Object { name: name.to_owned(), full, not_modified })
}

fn small(text: String) -> Answer {
    Answer { bytes: text.into_bytes(), file: None }
}

fn has_if_none_match(request: &[u8]) -> bool {
    const NAME: &[u8] = b"if-none-match:";
    request.split(|&byte| byte == b'\n').any(|line| line.len() >= NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
}
