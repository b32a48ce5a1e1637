//! The head that whole hits of a URL were last sent with. Within a second it does not change, so it is written once.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::{HeaderMap, header};

use crate::object::{self, Encoded, Object};

/// A head: all of it as fields, or most of it as lines for HTTP/1.1.
#[derive(Clone, Debug)]
pub(super) struct ReadyHead {
    pub(super) fields: HeaderMap,
    /// What is not in `fields`; see [`crate::net::Outgoing`].
    pub(super) lines: Option<Bytes>,
}

impl ReadyHead {
    /// All of it as fields.
    pub(super) fn of(fields: HeaderMap) -> Self {
        Self { fields, lines: None }
    }

    /// Lines, and as fields the one that hyper would write otherwise and the one that a range replaces; the length hyper
    /// writes too, from the body.
    fn lines_of(headers: &HeaderMap) -> Self {
        let mut fields = HeaderMap::new();
        let mut lines = Vec::new();
        for (name, value) in headers {
            match *name {
                header::DATE if !fields.contains_key(name) => {
                    fields.insert(name, value.clone());
                }
                // On a 200 it says nothing, and is stored as any other field.
                header::CONTENT_RANGE => _ = fields.append(name, value.clone()),
                header::CONTENT_LENGTH => {}
                _ => {
                    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                        lines.extend_from_slice(part);
                    }
                }
            }
        }
        Self { fields: object::compact(&fields), lines: Some(lines.into()) }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sent {
    object: Weak<Object>,
    encoded: Weak<Encoded>,
    age_secs: u64,
    ttl_secs: i64,
    /// From the second hit in that second on.
    fields: Option<ReadyHead>,
    lines: Option<ReadyHead>,
}

impl Sent {
    /// The head in this second (age and seconds left): made by `make`, or a copy of what that made.
    pub(super) fn head_of(
        &mut self,
        (object, encoded): (&Arc<Object>, Option<&Arc<Encoded>>),
        (age_secs, ttl_secs): (u64, i64),
        as_lines: bool,
        make: impl FnOnce() -> HeaderMap,
    ) -> ReadyHead {
        let is_same = (self.age_secs, self.ttl_secs) == (age_secs, ttl_secs)
            // The weak references keep the addresses from being others'.
            && std::ptr::eq(self.object.as_ptr(), Arc::as_ptr(object))
            && encoded.is_none_or(|encoded| std::ptr::eq(self.encoded.as_ptr(), Arc::as_ptr(encoded)));
        if !is_same {
            let encoded = encoded.map_or_else(Weak::new, Arc::downgrade);
            *self = Self { object: Arc::downgrade(object), encoded, age_secs, ttl_secs, ..Self::default() };
            return ReadyHead::of(make());
        }
        let ready = if as_lines { &self.lines } else { &self.fields };
        if let Some(ready) = ready {
            return ready.clone();
        }
        if let (Some(encodings), None, None) = (&object.encodings, &self.lines, &self.fields) {
            encodings.warm();
        }
        let made = make();
        if as_lines {
            self.lines = Some(ReadyHead::lines_of(&made));
        } else {
            // Values of its own: the workers would fight over the reference count of the stored ones.
            self.fields = Some(ReadyHead::of(object::compact(&made)));
        }
        ReadyHead::of(made)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use http::HeaderValue;

    use super::super::model::head;
    use super::*;
    use crate::object::Body;

    fn object() -> Arc<Object> {
        Arc::new(Object::new(head(), Arc::new(Body::default()), &Arc::default()))
    }

    #[test]
    fn a_head_is_sent_again_within_its_second_and_for_its_object_only() {
        let (mut sent, made) = (Sent::default(), Cell::new(0));
        let mut send = |object: &Arc<Object>, age_secs, ttl_secs| {
            let head = sent.head_of((object, None), (age_secs, ttl_secs), false, || {
                made.set(made.get() + 1);
                [(header::AGE, HeaderValue::from(made.get()))].into_iter().collect()
            });
            (head.fields[header::AGE].to_str().map(str::to_owned).unwrap_or_default(), made.get())
        };
        let (first, second) = (object(), object());
        let rows = [
            ((&first, 0, 9), ("1", 1)),
            ((&first, 0, 9), ("2", 2)),
            ((&first, 0, 9), ("2", 2)),
            ((&second, 0, 9), ("3", 3)),
            ((&second, 1, 9), ("4", 4)),
            ((&second, 1, 8), ("5", 5)),
            ((&second, 1, 8), ("6", 6)),
            ((&second, 1, 8), ("6", 6)),
            ((&first, 1, 8), ("7", 7)),
        ];
        for ((object, age, ttl), (head, made)) in rows {
            assert_eq!(send(object, age, ttl), (head.to_owned(), made));
        }
    }

    #[test]
    fn lines_and_what_is_left_as_fields_are_the_whole_head() {
        let mut headers = HeaderMap::new();
        let content_range = ("content-range", "bytes 5-9/100");
        for (name, value) in [
            ("date", "today"),
            ("content-length", "4"),
            ("vary", "a"),
            content_range,
            ("vary", "b"),
            ("x", "\u{e9}"),
        ] {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let (object, mut sent) = (object(), Sent::default());
        let mut send = |as_lines| sent.head_of((&object, None), (0, 0), as_lines, || headers.clone());
        for as_lines in [true, false, true] {
            let ReadyHead { fields, lines } = send(as_lines);
            if let Some(lines) = lines {
                let left = [(header::DATE, "today"), (header::CONTENT_RANGE, content_range.1)];
                let left = left.map(|(name, value)| (name, HeaderValue::from_static(value)));
                assert_eq!(fields, left.into_iter().collect());
                assert_eq!(lines, "vary: a\r\nvary: b\r\nx: \u{e9}\r\n");
            } else {
                assert_eq!(fields, headers);
            }
        }
        assert!(send(true).lines.is_some() && send(false).lines.is_none());
    }
}
