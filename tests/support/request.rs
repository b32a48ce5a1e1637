//! A request as a test writes it.

use super::client::Client;
use super::node::Node;
use super::response::Response;

/// The Host of every request that does not name another.
pub const HOST: &str = "test.example";

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub host: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub fn get(target: &str) -> Request {
    request("GET", target)
}

pub fn head(target: &str) -> Request {
    request("HEAD", target)
}

pub fn request(method: &str, target: &str) -> Request {
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        host: HOST.to_owned(),
        fields: Vec::new(),
        body: Vec::new(),
    }
}

impl Request {
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// A body, announced by its length.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        let length = self.body.len().to_string();
        self.with("Content-Length", length)
    }

    /// The HTTP/1.1 form.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host).into_bytes();
        for (name, value) in &self.fields {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it on a connection of its own to the node's plain listener and expects a whole answer.
    #[track_caller]
    pub fn to(&self, node: &Node) -> Response {
        let mut client = Client::connect(node.http());
        client.exchange(self)
    }
}
