//! How the client commands reach a node: its URL, the token, one call.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Either, Full};
use serde_json::Value;

use super::user_store;
use crate::control::{CLI_AGENT, TOKEN_FILE};
use crate::origin::{
    Balance, Config, EjectConfig, Origin, OriginTls, OutBody, ServerConfig, Source, no_body,
};

const SYSTEM_STORE: &str = "/var/cache/larder";
const TIMEOUT: Duration = Duration::from_secs(30);

/// What every client command takes.
#[derive(Debug, clap::Args)]
pub(super) struct NodeArgs {
    /// The node's admin URL
    #[arg(long, value_name = "URL", env = "LARDER_NODE", default_value = "http://127.0.0.1:8090")]
    #[arg(value_parser = AdminUrl::parse)]
    node: AdminUrl,
    /// A file with the token [default: `LARDER_TOKEN`, else the local store's]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the CA of the node's certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Where the admin API is; anything else is wrong usage.
#[derive(Clone, Debug)]
struct AdminUrl {
    text: String,
    tls: bool,
    host: String,
    port: u16,
}

impl AdminUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let (tls, host, port) = crate::config::parse_server_url(text)
            .ok_or_else(|| "a URL such as http://127.0.0.1:8090 is needed".to_owned())?;
        Ok(Self { text: text.to_owned(), tls, host, port })
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A field as `-H` takes it: its name in lower case, and its value.
pub(super) fn field(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
    let parts = parts.filter(|(name, _)| !name.is_empty());
    let (name, value) = parts.ok_or_else(|| "a field such as 'Accept-Language: de' is needed".to_owned())?;
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

impl NodeArgs {
    /// Calls the admin API.
    pub(super) fn get(&self, path_and_query: &str) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.call(Method::GET, path_and_query, None))
    }

    /// Calls the admin API with a body.
    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.call(Method::POST, path, Some(body)))
    }

    /// Calls the admin API to take something back.
    pub(super) fn delete(&self, path: &str) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.call(Method::DELETE, path, None))
    }

    async fn call(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let AdminUrl { tls, host, port, .. } = self.node.clone();
        let server = ServerConfig { tls, host, port, weight: 1 };
        let mut request = self.request(path_and_query, server.authority(), body)?;
        *request.method_mut() = method;
        let node = Origin::new(self.config(server), 0)?;
        let response = node.send(request).await.map_err(|error| {
            let hint = "is it running? Name another with --node URL or LARDER_NODE";
            anyhow!("no node answers at {} ({}); {hint}", self.node, error.proxy_status())
        })?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let value: Value = serde_json::from_slice(&body).with_context(|| {
            format!("{} answered {status} and no JSON; is that a node's admin URL?", self.node)
        })?;
        if !status.is_success() {
            let detail = value["detail"].as_str().unwrap_or("no reason given");
            let hint =
                if status.as_u16() == 401 { "; pass --token-file FILE or set LARDER_TOKEN" } else { "" };
            let errors = value["errors"].as_array().into_iter().flatten();
            let line = |error: &Value| {
                let text = |name: &str| error[name].as_str().unwrap_or("?").to_owned();
                format!("\n  {}: {}", text("pointer"), text("detail"))
            };
            let errors: String = errors.map(line).collect();
            bail!("{} answered {status}: {detail}{hint}{errors}", self.node);
        }
        Ok(value)
    }

    fn request(
        &self,
        path_and_query: &str,
        authority: String,
        body: Option<&Value>,
    ) -> anyhow::Result<Request<OutBody>> {
        let mut request = Request::new(no_body());
        if let Some(body) = body {
            let full = Full::from(body.to_string()).map_err(|never: Infallible| match never {});
            *request.body_mut() = Either::Right(full.boxed_unsync());
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        *request.uri_mut() = path_and_query.parse()?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::try_from(authority)?);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(CLI_AGENT));
        if let Some(token) = self.token()? {
            headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}"))?);
        }
        Ok(request)
    }

    fn config(&self, server: ServerConfig) -> Config {
        Config {
            name: "node".into(),
            source: Source::Servers(vec![server]),
            balance: Balance::RoundRobin,
            host: None,
            tls: OriginTls { ca: self.ca.clone(), ..OriginTls::default() },
            connect_timeout: TIMEOUT,
            first_byte_timeout: TIMEOUT,
            between_bytes_timeout: TIMEOUT,
            fill_timeout: TIMEOUT,
            idle_timeout: TIMEOUT,
            retries: 0,
            retry_budget_millionths: 0,
            http2: false,
            health: None,
            eject: EjectConfig::default(),
            max_connections: 1,
            queue: 0,
            queue_timeout: TIMEOUT,
            fills: 1,
        }
    }

    /// From the flag, the environment, or a store on this machine.
    fn token(&self) -> anyhow::Result<Option<String>> {
        if let Some(path) = &self.token_file {
            let token = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
            return Ok(Some(token.trim().to_owned()));
        }
        if let Ok(token) = std::env::var("LARDER_TOKEN") {
            return Ok(Some(token.trim().to_owned()));
        }
        let stores = [user_store(), Path::new(SYSTEM_STORE).to_owned()];
        let found = stores.iter().find_map(|store| std::fs::read_to_string(store.join(TOKEN_FILE)).ok());
        Ok(found.map(|token| token.trim().to_owned()))
    }
}

/// `1536` as `1.5 KiB`.
pub(super) fn bytes(value: &Value) -> String {
    let mut number = value.as_f64().unwrap_or(0.0);
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if number < 1024.0 {
            return if unit == "B" { format!("{number} B") } else { format!("{number:.1} {unit}") };
        }
        number /= 1024.0;
    }
    format!("{number:.1} TiB")
}
