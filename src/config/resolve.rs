//! From what is written to what the parts are built from.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use toml::{Table, Value};

use super::fixed::Fixed;
use super::kind::{parse_cidr, parse_rate, parse_server_url, parse_share, parse_statuses};
use super::{AdminListener, Config, RuleConfig, SiteConfig, TreatmentConfig, available_memory, check, raw};
use crate::control::TokenConfig;
use crate::edge::config::{
    Access, Compress, HeaderChanges, MissRate, PathPattern, RangeMiss, Signed, SitePurge,
};
use crate::net::{CertificateFiles, Limits, ListenConfig};
use crate::rules::encoding::Coding;
use crate::rules::key::{QueryMode, QueryRule};
use crate::rules::policy::{SetCookie, SitePolicy};
use crate::rules::tags::{Separator, TagRule};
use crate::telemetry::{AccessLogConfig, EVERY_LINE, LogOutput};
use crate::{origin, store};

/// What a rule leaves open it takes from its site, setting by setting.
pub(super) fn inherit(values: &mut Table) {
    let Some(Value::Array(sites)) = values.get_mut("site") else { return };
    for site in sites.iter_mut().filter_map(Value::as_table_mut) {
        let inherited: Vec<(&str, Table)> = ["cache", "headers", "access", "compress"]
            .into_iter()
            .map(|name| (name, site.get(name).and_then(Value::as_table).cloned().unwrap_or_default()))
            .collect();
        let Some(Value::Array(rules)) = site.get_mut("rule") else { continue };
        for rule in rules.iter_mut().filter_map(Value::as_table_mut) {
            for (name, of_site) in &inherited {
                let own = rule.remove(*name).and_then(|v| v.as_table().cloned()).unwrap_or_default();
                let mut merged = overlay(of_site.clone(), own);
                let settings = match *name {
                    "cache" => super::settings::CACHE,
                    "headers" => super::settings::HEADERS,
                    "compress" => super::settings_compress::COMPRESS,
                    _ => super::settings::ACCESS,
                };
                let profile = merged.get("profile").and_then(Value::as_str).unwrap_or("edge").to_owned();
                check::fill(&mut merged, settings, &profile);
                rule.insert((*name).to_owned(), Value::Table(merged));
            }
        }
    }
}

fn overlay(mut base: Table, over: Table) -> Table {
    for (key, value) in over {
        match (base.remove(&key), value) {
            // `query` and the like are one choice, taken whole; `set` and `remove` lists too.
            (Some(Value::Table(below)), Value::Table(above)) if matches!(&*key, "request" | "response") => {
                base.insert(key, Value::Table(overlay(below, above)));
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
    base
}

/// Builds the configuration from what is valid.
pub(super) fn resolve(raw: raw::Root, fixed: Fixed) -> Config {
    let workers = match raw.node.workers {
        0 => std::thread::available_parallelism().map_or(1, Into::into),
        workers => workers,
    };
    let memory_bytes = raw.store.memory.of(available_memory());
    let surrogate = raw.node.name.as_str().into();
    let certificates: Vec<_> = raw.certificate.iter().map(files).collect();
    Config {
        name: raw.node.name,
        workers,
        drain_timeout: raw.node.drain_timeout.get(),
        drain_delay: raw.node.drain_delay.get(),
        upgrade_timeout: raw.node.upgrade_timeout.get(),
        trusted_proxies: cidrs(&raw.node.trusted_proxies),
        listen: raw.listen.iter().map(listen).collect(),
        certificates,
        admin: AdminListener {
            listen: ListenConfig {
                address: raw.admin.address,
                tls: raw.admin.tls.is_some(),
                proxy_protocol: false,
            },
            certificate: raw.admin.tls.as_ref().map(|tls| files(&tls.pair)),
            client_ca: raw.admin.tls.as_ref().and_then(|tls| tls.client_ca.clone()),
            tokens: raw.admin.token.iter().filter_map(token).collect(),
        },
        metrics: raw.metrics.address.parse().ok(),
        limits: limits(&raw.limits),
        fills: raw.limits.fills,
        store: store_config(&raw.store, memory_bytes, workers),
        store_path: raw.store.path,
        origins: raw.origin.iter().map(origin_config).collect(),
        sites: raw.site.iter().map(|site| site_config(site, &surrogate)).collect(),
        access_log: AccessLogConfig {
            output: log_output(&raw.access_log.output),
            sample_millionths: parse_share(&raw.access_log.sample).unwrap_or(EVERY_LINE),
        },
        fixed,
    }
}

fn store_config(raw: &raw::Store, memory_bytes: u64, workers: usize) -> store::Config {
    let disk_bytes = raw.disk.of(0);
    // Memory is smaller than disks are: of it, the same share is five times as much.
    let (whole, most) =
        if disk_bytes > 0 { (disk_bytes, disk_bytes / 4) } else { (5 * memory_bytes, memory_bytes / 4) };
    store::Config {
        memory_bytes,
        max_object_bytes: raw.max_object.of(whole).min(most),
        workers,
        disk: store::DiskConfig {
            path: (disk_bytes > 0).then(|| raw.path.clone()),
            bytes: disk_bytes,
            segment_bytes: raw.segment.of(0),
            memory_object_bytes: raw.memory_object.of(0),
            admission: match raw.admission.as_str() {
                "second-hit" => store::Admission::SecondHit,
                _ => store::Admission::All,
            },
        },
    }
}

fn listen(raw: &raw::Listen) -> ListenConfig {
    ListenConfig { address: raw.address, tls: raw.tls, proxy_protocol: raw.proxy_protocol }
}

fn files(raw: &raw::CertKey) -> CertificateFiles {
    CertificateFiles { cert: raw.cert.clone(), key: raw.key.clone() }
}

fn cidrs(list: &[String]) -> Vec<ipnet::IpNet> {
    list.iter().filter_map(|text| parse_cidr(text)).collect()
}

fn limits(raw: &raw::Limits) -> Limits {
    Limits {
        header_bytes: raw.header_bytes.of(0) as usize,
        header_count: raw.header_count,
        uri_bytes: raw.uri_bytes.of(0) as usize,
        request_body_bytes: raw.request_body.of(0),
        header_timeout: raw.header_timeout.get(),
        body_timeout: raw.body_timeout.get(),
        write_timeout: raw.write_timeout.get(),
        idle_timeout: raw.idle_timeout.get(),
        h2_streams: raw.h2_streams,
        connections: raw.connections,
        connections_per_client: raw.connections_per_client,
    }
}

fn token(raw: &raw::Token) -> Option<TokenConfig> {
    let expires = raw.expires.as_deref().and_then(crate::telemetry::parse_rfc3339);
    Some(TokenConfig {
        name: raw.name.clone(),
        hash: blake3::Hash::from_hex(raw.hash.strip_prefix("blake3:")?.to_ascii_lowercase()).ok()?,
        scopes: raw.scopes.clone(),
        sites: raw.sites.clone(),
        // A time that can't be read must not become "never".
        expires: raw.expires.as_ref().map(|_| expires.unwrap_or_default()),
    })
}

fn log_output(text: &str) -> LogOutput {
    match text {
        "off" => LogOutput::Off,
        "stdout" => LogOutput::Stdout,
        "stderr" => LogOutput::Stderr,
        path => LogOutput::File(path.into()),
    }
}

fn origin_config(raw: &raw::Origin) -> origin::Config {
    let servers = raw.servers.iter().filter_map(|server| {
        let (tls, host, port) = parse_server_url(&server.url)?;
        Some(origin::ServerConfig { tls, host, port, weight: server.weight })
    });
    origin::Config {
        name: raw.name.clone(),
        source: match &raw.dir {
            Some(dir) => origin::Source::Dir(dir.clone()),
            None => origin::Source::Servers(servers.collect()),
        },
        balance: match &*raw.balance {
            "round-robin" => origin::Balance::RoundRobin,
            "hash" => origin::Balance::Hash,
            _ => origin::Balance::LeastRequests,
        },
        host: Some(raw.host.clone()).filter(|host| !host.is_empty()),
        tls: origin::OriginTls {
            ca: raw.tls.ca.clone(),
            cert: raw.tls.cert.clone(),
            key: raw.tls.key.clone(),
            verify: raw.tls.verify,
        },
        connect_timeout: raw.connect_timeout.get(),
        first_byte_timeout: raw.first_byte_timeout.get(),
        between_bytes_timeout: raw.between_bytes_timeout.get(),
        fill_timeout: raw.fill_timeout.get(),
        idle_timeout: raw.idle_timeout.get(),
        retries: raw.retries,
        retry_budget_millionths: parse_share(&raw.retry_budget).unwrap_or_default(),
        http2: raw.http2,
        health: health(&raw.health),
        eject: origin::EjectConfig {
            consecutive_errors: raw.eject.consecutive_errors,
            base: raw.eject.base.get(),
            max: raw.eject.max.get(),
            max_percent: raw.eject.max_percent,
        },
        max_connections: raw.max_connections,
        queue: raw.queue,
        queue_timeout: raw.queue_timeout.get(),
        fills: raw.fills,
    }
}

fn health(raw: &raw::Health) -> Option<origin::HealthConfig> {
    (!raw.path.is_empty()).then(|| origin::HealthConfig {
        path: raw.path.clone(),
        interval: raw.interval.get(),
        timeout: raw.timeout.get(),
        healthy: raw.healthy,
        unhealthy: raw.unhealthy,
        status: parse_statuses(&raw.status).unwrap_or(200..=399),
    })
}

fn site_config(raw: &raw::Site, surrogate: &Arc<str>) -> SiteConfig {
    let methods = methods(&raw.methods);
    let treatment = |origin: &str, pass, (cache, coding), headers: &raw::Headers, access| TreatmentConfig {
        origin: origin.to_owned(),
        pass,
        compress: compress(coding),
        request_headers: changes(&headers.request),
        response_headers: changes(&headers.response),
        access,
        ..treatment_of_cache(cache, surrogate)
    };
    let rules = raw.rule.iter().map(|rule| RuleConfig {
        paths: rule.path.iter().map(|pattern| PathPattern::new(pattern)).collect(),
        methods: methods_of_rule(&rule.methods),
        treatment: treatment(
            rule.origin.as_ref().unwrap_or(&raw.origin),
            rule.pass,
            (&rule.cache, &rule.compress),
            &rule.headers,
            access(&rule.access),
        ),
    });
    SiteConfig {
        name: raw.name.as_str().into(),
        hosts: raw.hosts.clone(),
        redirect_to_https: raw.https == "redirect",
        hsts: raw.hsts.get(),
        methods,
        purge: site_purge(&raw.purge, &raw.ids),
        default: treatment(
            &raw.origin,
            false,
            (&raw.cache, &raw.compress),
            &raw.headers,
            access(&raw.access),
        ),
        rules: rules.collect(),
    }
}

fn site_purge(raw: &raw::Purge, ids: &raw::Ids) -> SitePurge {
    let field = |(name, separator): (&String, &String)| {
        let separator = if separator == "comma" { Separator::Comma } else { Separator::Space };
        Some((name.parse().ok()?, separator))
    };
    let fields = raw.tag_headers.iter().filter_map(field).collect();
    SitePurge {
        allow: cidrs(&raw.allow),
        tags: TagRule { fields, strip: raw.strip_tags },
        cloudflare_zone: ids.cloudflare.clone(),
        fastly_service: ids.fastly.clone(),
    }
}

fn methods(list: &[String]) -> Option<Vec<Method>> {
    if list.iter().any(|method| method == "*") {
        return None;
    }
    Some(list.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok()).collect())
}

fn methods_of_rule(list: &[String]) -> Vec<Method> {
    methods(list).unwrap_or_default()
}

fn compress(raw: &raw::Compress) -> Arc<Compress> {
    let mut codings: Vec<Coding> = Vec::new();
    for coding in raw.encodings.iter().filter_map(|token| Coding::from_token(token.as_bytes())) {
        if !codings.contains(&coding) {
            codings.push(coding);
        }
    }
    Arc::new(Compress {
        codings,
        types: raw.types.clone(),
        min_bytes: raw.min_size.of(0),
        max_bytes: raw.max_size.of(0),
        dictionaries: raw.dictionaries,
    })
}

fn access(raw: &raw::Access) -> Access {
    let signed = raw.signed.as_ref().map(|signed| {
        // It was read when the file was checked. Gone since then, it lets nobody in.
        Signed::read(&signed.secret_file, &signed.param).unwrap_or_else(|_| Signed::closed(&signed.param))
    });
    Access { allow: cidrs(&raw.allow), deny: cidrs(&raw.deny), signed }
}

fn changes(raw: &raw::Changes) -> HeaderChanges {
    let name = |name: &str| HeaderName::try_from(name).ok();
    HeaderChanges {
        set: raw
            .set
            .iter()
            .filter_map(|(key, value)| Some((name(key)?, HeaderValue::try_from(value).ok()?)))
            .collect(),
        remove: raw.remove.iter().filter_map(|key| name(key)).collect(),
    }
}

fn treatment_of_cache(cache: &raw::Cache, surrogate: &Arc<str>) -> TreatmentConfig {
    let names = cache.query.names.clone();
    TreatmentConfig {
        origin: String::new(),
        pass: false,
        policy: SitePolicy {
            set_cookie: match &*cache.set_cookie {
                "strip" => SetCookie::Strip,
                "store" => SetCookie::Store,
                _ => SetCookie::Pass,
            },
            default_ttl_ms: cache.default_ttl.as_ms(),
            min_ttl_ms: cache.min_ttl.as_ms(),
            max_ttl_ms: cache.max_ttl.as_ms(),
            override_ttl_ms: cache.override_ttl.0.map(|ttl: Duration| ttl.as_millis() as i64),
            negative_ttl_ms: cache
                .negative_ttl
                .iter()
                .filter_map(|(status, ttl)| Some((status.parse().ok()?, ttl.as_ms())))
                .collect(),
            max_error_ttl_ms: cache.max_error_ttl.as_ms(),
            stale_while_revalidate_ms: cache.stale_while_revalidate.as_ms(),
            stale_if_error_ms: cache.stale_if_error.as_ms(),
            honor_request_cache_control: cache.honor_request_cache_control,
            vary_pass: cache.vary_pass.iter().filter_map(|name| HeaderName::try_from(name).ok()).collect(),
            cache_post: cache.post,
            accept_language_select: cache.accept_language_select,
            surrogate: surrogate.clone(),
        },
        fills: cache.fills,
        misses_per_client: parse_rate(&cache.misses_per_client)
            .map(|(count, period)| MissRate { count, period }),
        query: QueryRule {
            mode: match &*cache.query.mode {
                "none" => QueryMode::None,
                "allow" => QueryMode::Allow(names),
                "deny" => QueryMode::Deny(names),
                _ => QueryMode::All,
            },
            sort: cache.query.sort,
        },
        range_slices: if cache.range_miss == "forward" { 0 } else { cache.range_slices.of(0) },
        range_miss: if cache.range_miss == "forward" { RangeMiss::Forward } else { RangeMiss::Full },
        reject_unknown_transfer_coding: cache.unknown_transfer_coding == "reject",
        max_variants: cache.max_variants,
        strip_targeted: cache.strip_targeted,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        access: Access::default(),
        compress: Arc::default(),
    }
}
