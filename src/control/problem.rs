//! Errors of the admin API: RFC 9457 problem JSON with a stable type.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// One error. Boxed: it is the rare case of every result.
#[derive(Debug)]
pub(super) struct Problem(Box<Fields>);

#[derive(Debug)]
struct Fields {
    status: StatusCode,
    word: &'static str,
    detail: String,
    errors: Vec<(String, String)>,
    extra: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, word: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Fields { status, word, detail: detail.into(), errors: Vec::new(), extra: None }))
    }

    /// Points at what is wrong: a JSON pointer into the body, or a parameter's name.
    pub(super) fn at(mut self, pointer: &str, detail: impl Into<String>) -> Self {
        self.0.errors.push((pointer.to_owned(), detail.into()));
        self
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.extra = Some((name, value));
        self
    }
}

impl Problem {
    /// As problem JSON.
    pub(super) fn json(self) -> http::Response<String> {
        let Fields { status, word, detail, errors, extra } = *self.0;
        let mut body = serde_json::json!({
            "type": format!("urn:larder:problem:{}", word),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": detail,
        });
        if !errors.is_empty() {
            let entry = |(pointer, detail)| serde_json::json!({ "pointer": pointer, "detail": detail });
            body["errors"] = errors.into_iter().map(entry).collect();
        }
        respond(status, "application/problem+json", body.to_string(), extra)
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// As Fastly's API has errors.
    pub(super) fn msg(self) -> http::Response<String> {
        let msg = self.0.status.canonical_reason().unwrap_or("Error");
        let body = serde_json::json!({ "msg": msg, "detail": self.said() });
        respond(self.0.status, "application/json", body.to_string(), self.0.extra)
    }

    /// As Cloudflare's API has errors, one for each wrong entry.
    pub(super) fn envelope(self, code: u32) -> http::Response<String> {
        let Fields { status, detail, errors, extra, .. } = *self.0;
        let entry = |message: String| serde_json::json!({ "code": code, "message": message });
        let each = errors.into_iter().map(|(pointer, why)| entry(format!("{pointer}: {why}")));
        let errors: Vec<_> = std::iter::once(entry(detail)).chain(each).collect();
        let body = serde_json::json!({ "success": false, "errors": errors, "messages": [], "result": null });
        respond(status, "application/json", body.to_string(), extra)
    }

    /// The detail, and each wrong entry.
    fn said(&self) -> String {
        let each = self.0.errors.iter().map(|(pointer, why)| format!("; {pointer}: {why}"));
        self.0.detail.clone() + &each.collect::<String>()
    }

    /// As a line of text.
    pub(super) fn text(self) -> http::Response<String> {
        let Fields { status, detail, extra, .. } = *self.0;
        respond(status, "text/plain; charset=utf-8", format!("{detail}\n"), extra)
    }
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: String,
    extra: Option<(HeaderName, HeaderValue)>,
) -> http::Response<String> {
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some((name, value)) = extra {
        headers.insert(name, value);
    }
    response
}

/// What a problem says, for who looks at the response: its word, and its detail.
#[derive(Clone, Debug)]
pub(super) struct Told(pub(super) &'static str, pub(super) String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let told = Told(self.0.word, self.0.detail.clone());
        let mut response = self.json().map(axum::body::Body::from);
        response.extensions_mut().insert(told);
        response
    }
}

/// Paths that are no call.
pub(super) async fn no_such_call(uri: http::Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-such-call", format!("there is no call {}", uri.path()))
}

/// Calls with another method than theirs.
pub(super) async fn no_such_method(method: http::Method, uri: http::Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", detail)
}
