//! Active probes: a request of ours to each server, now and then, on a connection of its own.

use std::sync::{Arc, Weak};

use http::{Request, header};
use http_body::Body as _;
use tokio::time::{sleep, timeout};

use super::connect::connect;
use super::pool::Server;
use super::{HealthConfig, Kind, Origin, no_body};

/// What of a probe's answer is read at most: a body without an end is no reason to go on.
const MAX_BODY_BYTES: u64 = 64 * 1024;

impl Origin {
    /// Begins to probe the servers, once; it ends with the origin.
    pub(super) fn begin_probes(self: &Arc<Self>) {
        let Kind::Http(http) = &self.kind else { return };
        let Some(config) = self.config.health.clone() else { return };
        for server in http.servers() {
            tokio::spawn(probe_for_good(Arc::downgrade(self), server.clone(), config.clone()));
        }
    }
}

async fn probe_for_good(origin: Weak<Origin>, server: Arc<Server>, config: HealthConfig) {
    loop {
        let Some(origin) = origin.upgrade() else { return };
        let asking = timeout(config.timeout, probe(&origin, &server, &config));
        let result = asking.await.unwrap_or_else(|_| Err("no answer in time".into()));
        let why = result.as_ref().err().cloned();
        if server.health.probed(result, &config) {
            let (origin, server) = (origin.name(), server.url());
            match why {
                Some(why) => tracing::warn!(origin, server, why, "a server is out: its probes fail"),
                None => tracing::info!(origin, server, "a server is in again: its probes succeed"),
            }
        }
        drop(origin);
        sleep(config.interval).await;
    }
}

async fn probe(origin: &Origin, server: &Arc<Server>, config: &HealthConfig) -> Result<(), String> {
    let Kind::Http(http) = &origin.kind else { return Ok(()) };
    let authority = origin.config.host.clone().unwrap_or_else(|| server.config.authority());
    let request = Request::get(&config.path)
        .header(header::HOST, &authority)
        .header(header::USER_AGENT, concat!("larder/", env!("CARGO_PKG_VERSION"), " (health)"))
        .body(no_body())
        .map_err(|error| error.to_string())?;
    let sni = server.sni(&origin.config, &request);
    let tls = sni.as_deref().map(|sni| (http.connector(), sni));
    let connecting = connect(&server.config, tls, origin.config.http2, config.timeout, ());
    let mut sender = Box::pin(connecting).await.map_err(|error| error.to_string())?;
    let sent = sender.send(request, &server.config).await;
    let response = sent.map_err(|failed| failed.error.to_string())?;
    let status = response.status().as_u16();
    if !config.status.contains(&status) {
        return Err(format!("status {status}"));
    }
    read(response.into_body()).await
}

/// An answer counts when it comes to its end, or goes on for long.
async fn read(mut body: hyper::body::Incoming) -> Result<(), String> {
    let mut taken = 0;
    while taken < MAX_BODY_BYTES {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        match frame {
            None => return Ok(()),
            Some(Ok(frame)) => taken += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(error)) => return Err(error.to_string()),
        }
    }
    Ok(())
}
