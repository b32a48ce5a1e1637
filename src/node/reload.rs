//! A new configuration for a node that runs: whole, or not at all.
//!
//! Everything that may fail is done first (reading, checking, opening files, setting origins up) and leaves
//! no trace; what follows can't fail and takes effect with the next request and the next connection.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::data::Data;
use super::life::LifeMetrics;
use super::parts;
use crate::config::{Checked, Config, Diagnostic, Severity};
use crate::control::{Control, Fault, Reloaded};
use crate::edge::LiveEdge;
use crate::net::{Certificates, Connections, Server};
use crate::telemetry::AccessLog;

/// Reads the configuration again; an error only when it can't be read at all.
pub type Source = Box<dyn Fn() -> std::io::Result<Checked> + Send + Sync>;

/// Between two looks whether an access log that was replaced is still written to.
const RETIRE_EVERY: Duration = Duration::from_millis(250);

/// What answers, and who is let in.
pub(super) type Served = (Arc<LiveEdge>, Arc<Server<Data>>, Arc<Connections>, Arc<Control>);

/// Everything that a configuration reaches while the node runs.
pub(super) struct Reloader {
    source: Source,
    /// The configuration in use. Its lock is held through a reload.
    pub(super) running: Mutex<Config>,
    loop_id: String,
    edge: Arc<LiveEdge>,
    data: Arc<Server<Data>>,
    connections: Arc<Connections>,
    control: Arc<Control>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) admin_certificates: Arc<Certificates>,
    metrics: Arc<LifeMetrics>,
}

impl Reloader {
    /// Of a node that runs with this configuration.
    pub(super) fn new(
        (source, config, loop_id): (Source, Config, String),
        (edge, data, connections, control): Served,
        (certificates, admin_certificates): (Arc<Certificates>, Arc<Certificates>),
        metrics: Arc<LifeMetrics>,
    ) -> Arc<Self> {
        let running = Mutex::new(config);
        Arc::new(Self {
            source,
            running,
            loop_id,
            edge,
            data,
            connections,
            control,
            certificates,
            admin_certificates,
            metrics,
        })
    }

    /// Takes the configuration as it is now. What is wrong is told, logged and counted.
    pub(super) fn reload(&self) -> Result<Reloaded, Vec<Fault>> {
        let outcome = self.try_reload();
        self.metrics.reloaded(outcome.is_ok());
        match &outcome {
            Ok(Reloaded { warnings }) => {
                for Fault { place, detail } in warnings {
                    tracing::warn!("{place}: {detail}");
                }
                tracing::info!("the configuration was reloaded");
            }
            Err(faults) => {
                for Fault { place, detail } in faults {
                    tracing::error!("{place}: {detail}");
                }
                tracing::error!("the configuration can't be used; nothing was changed");
            }
        }
        outcome
    }

    fn try_reload(&self) -> Result<Reloaded, Vec<Fault>> {
        let mut running = self.running.lock();
        let failed = |place: &str, error: &dyn std::fmt::Display| {
            vec![Fault { place: place.to_owned(), detail: error.to_string() }]
        };
        let checked = (self.source)().map_err(|error| failed("configuration", &error))?;
        let refused = checked.refused_by(&running);
        let is_bad = |diagnostic: &&Diagnostic| diagnostic.severity == Severity::Error;
        let faults: Vec<_> = checked.diagnostics.iter().filter(is_bad).chain(&refused).map(fault).collect();
        let Some(config) = checked.config.filter(|_| faults.is_empty()) else { return Err(faults) };
        let warnings = checked.diagnostics.iter().map(fault).collect();

        let old = self.edge.current();
        let edge_config = parts::edge_config(&config, &self.loop_id, Some(old.config()))
            .map_err(|error| failed("origin", &error))?;
        let certificates =
            Certificates::prepare(&config.certificates).map_err(|error| failed("certificate", &error))?;
        let of_admin = Certificates::prepare(config.admin.certificate.as_slice())
            .map_err(|error| failed("admin.tls", &error))?;
        let replace_tokens = self
            .control
            .prepare_tokens(&config.admin.tokens)
            .map_err(|error| failed("admin.token", &error))?;
        let access_log = if config.access_log == running.access_log {
            None
        } else {
            let log = old.access_log().succeeded_by(&config.access_log);
            Some(log.map_err(|error| failed("access_log", &error))?)
        };

        let has_new_log = access_log.is_some();
        self.edge.replace(old.reconfigured(edge_config, access_log));
        if has_new_log {
            retire(old.access_log().clone());
        }
        self.certificates.adopt(certificates);
        self.admin_certificates.adopt(of_admin);
        replace_tokens();
        self.data.set_limits(config.limits.clone());
        self.connections.set(
            config.limits.connections,
            config.limits.connections_per_client,
            config.trusted_proxies.clone(),
        );
        *running = config;
        Ok(Reloaded { warnings })
    }

    /// Has everything answered by the origins, and nothing stored: another process has the store, and purges that
    /// this one does not know.
    pub(super) fn pass_all(&self) {
        let mut running = self.running.lock();
        for site in &mut running.sites {
            let rules = site.rules.iter_mut().map(|rule| &mut rule.treatment);
            std::iter::once(&mut site.default).chain(rules).for_each(|treatment| treatment.pass = true);
        }
        let old = self.edge.current();
        let origins = old.config().origins.clone();
        let config = parts::with_origins(&running, &self.loop_id, Some(old.config()), origins);
        drop(self.edge.replace(old.reconfigured(config, None)));
    }

    /// From `drain_timeout` and `drain_delay`.
    pub(super) fn drain_times(&self) -> (Duration, Duration) {
        let running = self.running.lock();
        (running.drain_timeout, running.drain_delay)
    }
}

fn fault(diagnostic: &Diagnostic) -> Fault {
    let Diagnostic { file, line, column, .. } = diagnostic;
    Fault { place: format!("{file}:{line}:{column}"), detail: diagnostic.what() }
}

/// Drops a log that was replaced once nothing is written to it any more, on a thread of its own: it waits
/// for its last lines.
fn retire(log: Arc<AccessLog>) {
    let waiting = move || {
        while Arc::strong_count(&log) > 1 {
            std::thread::sleep(RETIRE_EVERY);
        }
    };
    let _ = std::thread::Builder::new().name("larder-log-end".into()).spawn(waiting);
}
