//! Parts that are made from others: sites from origins, the registry from what counts, the node's id.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use super::data::Data;
use super::life::LifeMetrics;
use crate::config::{Config, SiteConfig, TreatmentConfig};
use crate::control::{ProcessMetrics, Saturation, WarmMetrics, Warmups, WorkerMetrics};
use crate::edge::config::Fills;
use crate::edge::{self, EdgeGauges, LiveEdge};
use crate::net::inherited::Group;
use crate::net::{
    self, Bound, CertificateFiles, CertificateMetrics, Certificates, Connections, ListenConfig, NetMetrics,
    Server, TlsError,
};
use crate::origin::{self, Origin, OriginMetrics, SetupError};
use crate::purge::{self, PurgeMetrics, Purges};
use crate::store::{self, Store};
use crate::telemetry::Clock;

const NODE_ID_FILE: &str = "node.id";
/// The share of the memory budget for copies of what is sent most.
const COPIES_DIVISOR: u64 = 32;

fn sites(configs: &[SiteConfig], origins: &[Arc<Origin>]) -> Vec<Arc<edge::config::Site>> {
    let treatment = |config: &TreatmentConfig, name: String, fills: &Fills| {
        // The configuration was checked: every name is an origin's.
        let origin = origins.iter().find(|origin| origin.name() == config.origin)?;
        Some(Arc::new(edge::config::Treatment {
            name,
            pass: config.pass,
            origin: origin.clone(),
            policy: config.policy.clone(),
            query: config.query.clone(),
            // A rule with a limit of its own counts for itself.
            fills: if config.fills == fills.most() { fills.clone() } else { Fills::new(config.fills) },
            misses_per_client: config.misses_per_client,
            range_miss: config.range_miss,
            range_slices: config.range_slices,
            reject_unknown_transfer_coding: config.reject_unknown_transfer_coding,
            max_variants: config.max_variants,
            strip_targeted: config.strip_targeted,
            request_headers: config.request_headers.clone(),
            response_headers: config.response_headers.clone(),
            access: config.access.clone(),
            compress: config.compress.clone(),
        }))
    };
    let site = |(index, config): (usize, &SiteConfig)| {
        let fills = Fills::new(config.default.fills);
        let rules = config.rules.iter().enumerate().filter_map(|(i, rule)| {
            Some(edge::config::Rule {
                paths: rule.paths.clone(),
                methods: rule.methods.clone(),
                treatment: treatment(&rule.treatment, format!("rule {}", i + 1), &fills)?,
            })
        });
        Some(Arc::new(edge::config::Site {
            name: config.name.clone(),
            index,
            hosts: config.hosts.clone(),
            redirect_to_https: config.redirect_to_https,
            hsts: edge::config::Site::hsts_value(config.hsts),
            methods: config.methods.clone(),
            purge: config.purge.clone(),
            rules: rules.collect(),
            default: treatment(&config.default, "default".into(), &fills)?,
        }))
    };
    configs.iter().enumerate().filter_map(site).collect()
}

/// The data path's configuration. What `running` has as it is goes on: origins with their connections, and who
/// is counted against a limit.
pub(super) fn edge_config(
    config: &Config,
    loop_id: &str,
    running: Option<&edge::config::Config>,
) -> Result<edge::config::Config, SetupError> {
    let known = |of: &origin::Config| {
        running.and_then(|running| running.origins.iter().find(|origin| origin.is_as(of)).cloned())
    };
    let origin = |of: &origin::Config| known(of).map_or_else(|| Origin::new(of.clone(), config.workers), Ok);
    let origins = config.origins.iter().map(origin).collect::<Result<Vec<_>, _>>()?;
    Ok(with_origins(config, loop_id, running, origins))
}

/// The same with origins that are set up.
pub(super) fn with_origins(
    config: &Config,
    loop_id: &str,
    running: Option<&edge::config::Config>,
    origins: Vec<Arc<Origin>>,
) -> edge::config::Config {
    let fills = running.map(|running| running.fills.clone()).filter(|fills| fills.most() == config.fills);
    edge::config::Config {
        node: config.name.clone(),
        loop_id: loop_id.to_owned(),
        trusted_proxies: config.trusted_proxies.clone(),
        uri_bytes: config.limits.uri_bytes,
        header_count: config.limits.header_count,
        fills: fills.unwrap_or_else(|| Fills::new(config.fills)),
        sites: sites(&config.sites, &origins),
        origins,
    }
}

/// The collector of the data path's metrics, which the edge of the moment owns.
#[derive(Debug)]
struct EdgeCollector(Arc<LiveEdge>);

impl Collector for EdgeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.current().metrics().encode(encoder)
    }
}

/// The collector of the origins of the moment.
#[derive(Debug)]
struct OriginCollector(Arc<LiveEdge>);

impl Collector for OriginCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        OriginMetrics(self.0.current().config().origins.clone()).encode(encoder)
    }
}

/// What the store asks of what it writes again: whether a purge hit it meanwhile.
pub(super) fn comparison(edge: &Arc<LiveEdge>) -> impl Fn(&str, &[Box<str>], u64) -> Option<u64> + use<> {
    // The data path holds the store, not the other way round.
    let edge = Arc::downgrade(edge);
    move |key, tags, as_of| {
        edge.upgrade().map_or(Some(as_of), |edge| edge.current().outlived(key, tags, as_of))
    }
}

/// What is purged while a node has no disk tier must not come back with it: a store that is there and not used counts as
/// purged from now on. One that another process has is none of ours.
pub(super) fn forget_unused_store(config: &Config, inherited: Option<OwnedFd>) {
    if config.store.disk.path.is_some() {
        return;
    }
    let directory = &config.store_path;
    let Some(_lock) = store::lock_unused(directory, inherited) else { return };
    match purge::set_aside(directory) {
        Ok(false) => {}
        Ok(true) => tracing::warn!(
            store = %directory.display(),
            "the store there is not used, since store.disk is 0: all that it holds counts as purged"
        ),
        Err(error) => tracing::error!(
            store = %directory.display(), %error,
            "the store there is not used, and can't be told: what is purged now would come back with it"
        ),
    }
}

/// The log of purges lies beside what it purges; what is in memory only needs no log. On a read-only
/// disk the node goes on with a copy, so that no purge is forgotten now, though those to come may be by
/// a restart.
pub(super) fn open_purges(store: &store::Config, clock: Clock) -> Result<Arc<Purges>, purge::OpenError> {
    let config = |path| purge::Config { path, ..purge::Config::default() };
    match Purges::open(config(store.disk.path.clone()), clock) {
        Err(purge::OpenError::Io { path, source }) if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            tracing::error!(
                "purges are kept in a temporary copy of {}, and not over a restart",
                path.display()
            );
            let failed = |source| purge::OpenError::Io { path: path.clone(), source };
            let copies = std::env::temp_dir().join(format!("larder-purges-{}", std::process::id()));
            fs::create_dir_all(&copies).map_err(failed)?;
            if let Some(name) = path.file_name()
                && path.exists()
            {
                fs::copy(&path, copies.join(name)).map_err(failed)?;
            }
            Purges::open(config(Some(copies)), clock)
        }
        opened => opened,
    }
}

/// The sockets once more, for a process that takes over.
pub(super) fn shared(bound: &[Bound], role: &str, configs: &[ListenConfig]) -> io::Result<Vec<Group>> {
    bound.iter().zip(configs).map(|(bound, config)| bound.share(role, config.address)).collect()
}

/// The connections of the data listeners, and how full the node is.
pub(super) fn connections(config: &Config, edge: &Arc<LiveEdge>) -> (Arc<Connections>, Arc<Saturation>) {
    let limits = &config.limits;
    let trusted = config.trusted_proxies.clone();
    let connections = Connections::new(limits.connections, limits.connections_per_client, trusted);
    let saturation = Saturation::new(edge.clone(), connections.clone(), config.workers);
    (connections, saturation)
}

/// Those of the data listeners, and those of the admin listener.
pub(super) fn certificates(config: &Config) -> Result<(Arc<Certificates>, Arc<Certificates>), TlsError> {
    let of = |files: &[CertificateFiles]| {
        let certificates = Certificates::default();
        certificates.adopt(Certificates::prepare(files)?);
        Ok::<_, TlsError>(Arc::new(certificates))
    };
    Ok((of(&config.certificates)?, of(config.admin.certificate.as_slice())?))
}

/// TLS with these certificates, where it is spoken.
pub(super) fn tls(
    certificates: &Arc<Certificates>,
    is_spoken: bool,
    client_ca: Option<&Path>,
) -> Result<Option<Arc<rustls::ServerConfig>>, TlsError> {
    if !is_spoken {
        return Ok(None);
    }
    let clients = client_ca.map(net::client_ca).transpose()?;
    net::server_config(certificates.clone(), clients).map(Some)
}

pub(super) fn registry(
    edge: &Arc<LiveEdge>,
    (store, purges, warmups): (&Arc<Store>, &Arc<Purges>, &Arc<Warmups>),
    net: &Arc<NetMetrics>,
    (certificates, of_admin): &(Arc<Certificates>, Arc<Certificates>),
    (life, saturation): (&Arc<LifeMetrics>, &Arc<Saturation>),
) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessMetrics));
    let larder = registry.sub_registry_with_prefix("larder");
    larder.register_collector(Box::new(EdgeCollector(edge.clone())));
    larder.register_collector(Box::new(EdgeGauges(edge.clone())));
    larder.register_collector(Box::new(WorkerMetrics));
    larder.register_collector(Box::new(saturation.clone()));
    larder.register_collector(Box::new(net.clone()));
    larder.register_collector(Box::new(store.clone()));
    larder.register_collector(Box::new(PurgeMetrics(purges.clone())));
    larder.register_collector(Box::new(edge.current().encoder().clone()));
    larder.register_collector(Box::new(WarmMetrics(warmups.clone())));
    larder.register_collector(Box::new(OriginCollector(edge.clone())));
    let certificates = vec![certificates.clone(), of_admin.clone()];
    larder.register_collector(Box::new(CertificateMetrics(certificates)));
    larder.register_collector(Box::new(life.clone()));
    let version = vec![("version", env!("CARGO_PKG_VERSION"))];
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    larder.register("host", "The machine", prometheus_client::metrics::info::Info::new(vec![("host", host)]));
    larder.register("build", "The program", prometheus_client::metrics::info::Info::new(version));
    registry
}

/// What serves clients. Its workers may keep copies of what they send most, out of the memory budget.
pub(super) fn data_server(
    handler: Data,
    config: &Config,
    (bound, tls): (Vec<Bound>, Option<Arc<rustls::ServerConfig>>),
    connections: Arc<Connections>,
    metrics: Arc<NetMetrics>,
    store: &Arc<Store>,
) -> Arc<Server<Data>> {
    let (limits, workers) = (config.limits.clone(), config.workers);
    let server = Server::new(handler, limits, bound, tls, connections, metrics, workers);
    let store = store.clone();
    let room = Arc::new(move |bytes| store.reserve(bytes));
    server.let_copy(room, config.store.memory_bytes / COPIES_DIVISOR);
    server
}

/// This node's CDN-Loop identifier: random, kept in the store's directory.
pub(super) fn node_id(store: &Path) -> io::Result<String> {
    let path = store.join(NODE_ID_FILE);
    if let Ok(id) = fs::read_to_string(&path)
        && id.trim().strip_prefix("larder-").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Ok(id.trim().to_owned());
    }
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let id = format!("larder-{:016x}", u64::from_le_bytes(random));
    fs::write(&path, format!("{id}\n"))?;
    Ok(id)
}
