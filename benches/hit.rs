//! What the steps of a memory hit cost, and how often one allocates.
//!
//! `cargo bench --bench hit`. Absolute times drift with the machine; compare two runs of one sitting.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use larder::edge::{self, Edge, LiveEdge};
use larder::net::{ConnInfo, Handler, RequestBody};
use larder::object::{Body, Charge, Head, Object, charged_chunk};
use larder::origin::{Balance, Config as OriginConfig, EjectConfig, Origin, OriginTls, Source};
use larder::rules::cache_status::CacheStatus;
use larder::rules::freshness::Freshness;
use larder::rules::key::{self, CacheKey, QueryRule, Scheme};
use larder::rules::policy::SitePolicy;
use larder::rules::vary::VaryRule;
use larder::store::{self, Store};
use larder::telemetry::{AccessLog, AccessLogConfig, Clock, LogOutput};

struct Counting;
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged; the count has no part in it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HOST: &str = "shop.example";
const PATH: &str = "/assets/css/shop.css";
const SECOND_MS: i64 = 1000;

fn stored(store: &Store, clock: Clock) -> Arc<Object> {
    let key = CacheKey::new(Scheme::Http, HOST, PATH, None);
    let now = clock.now();
    let freshness = Freshness {
        response_time: now,
        initial_age_ms: 0,
        fresh_until: now.saturating_add(3600 * SECOND_MS),
        swr_until: now,
        sie_until: now,
        no_cache: false,
        never_stale: false,
        source: "max-age",
        strip_fields: Box::default(),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CONTENT_LENGTH, "1024"),
        (header::ETAG, "\"0123456789abcdef\""),
        (header::LAST_MODIFIED, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (header::VIA, "1.1 larder"),
        (header::ACCEPT_RANGES, "bytes"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let rule = VaryRule::new(Vec::new());
    let variant = rule.key(&HeaderMap::new());
    let head = Head::new(key, StatusCode::OK, headers, (rule, variant), freshness);
    let charge = Charge::new(store.gauge(), 1024);
    let body = Body::new(vec![charged_chunk(&[b'x'; 1024], charge)]);
    Arc::new(Object::new(Arc::new(head), Arc::new(body), store.gauge()))
}

fn edge(store: &Arc<Store>, clock: Clock) -> Arc<Edge> {
    let second = Duration::from_secs(1);
    let origin = Origin::new(
        OriginConfig {
            name: "none".into(),
            source: Source::Dir(std::env::temp_dir()),
            balance: Balance::RoundRobin,
            host: None,
            tls: OriginTls::default(),
            connect_timeout: second,
            first_byte_timeout: second,
            between_bytes_timeout: second,
            fill_timeout: second,
            idle_timeout: second,
            retries: 0,
            retry_budget_millionths: 100_000,
            http2: false,
            health: None,
            eject: EjectConfig::default(),
            max_connections: 1,
            queue: 0,
            queue_timeout: second,
            fills: 1,
        },
        0,
    )
    .expect("the temporary directory is there");
    let treatment = Arc::new(edge::config::Treatment {
        name: "default".into(),
        pass: false,
        origin,
        policy: SitePolicy::default(),
        query: QueryRule::default(),
        fills: edge::config::Fills::new(1),
        misses_per_client: None,
        range_miss: edge::config::RangeMiss::Full,
        range_slices: 0,
        reject_unknown_transfer_coding: true,
        max_variants: 64,
        strip_targeted: false,
        request_headers: edge::config::HeaderChanges::default(),
        response_headers: edge::config::HeaderChanges::default(),
        access: edge::config::Access::default(),
        compress: Arc::default(),
    });
    let site = edge::config::Site {
        name: "shop".into(),
        index: 0,
        hosts: vec!["*".into()],
        redirect_to_https: false,
        hsts: None,
        methods: None,
        purge: edge::config::SitePurge::default(),
        rules: Vec::new(),
        default: treatment,
    };
    let config = edge::config::Config {
        node: "larder".into(),
        loop_id: "larder-0".into(),
        trusted_proxies: Vec::new(),
        uri_bytes: 8192,
        header_count: 100,
        fills: edge::config::Fills::new(1),
        sites: vec![Arc::new(site)],
        origins: Vec::new(),
    };
    let log = AccessLog::start(&AccessLogConfig { output: LogOutput::Off, sample_millionths: 1_000_000 })
        .expect("off can't fail");
    let purges = larder::purge::Purges::open(larder::purge::Config::default(), clock).expect("memory");
    Edge::new(config, (store.clone(), purges), clock, log, 0)
}

fn request() -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = PATH.parse().expect("a path");
    request.headers_mut().insert(header::HOST, HeaderValue::from_static(HOST));
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    request
}

fn open_store(clock: Clock) -> Arc<Store> {
    let disk = store::DiskConfig {
        path: None,
        bytes: 0,
        segment_bytes: 4 << 20,
        memory_object_bytes: 32 << 10,
        admission: store::Admission::All,
    };
    let config = store::Config { memory_bytes: 64 << 20, max_object_bytes: 16 << 20, workers: 0, disk };
    Store::open(&config, clock).expect("memory")
}

fn steps(c: &mut Criterion) {
    let clock = Clock::start();
    let store = open_store(clock);
    let object = stored(&store, clock);
    store.refresh(object.clone(), 64);
    let key = object.head.key.clone();
    let now = clock.now();

    c.bench_function("key: host, path, hash", |b| {
        b.iter(|| {
            let host = key::normalize_host(black_box(HOST), Scheme::Http).expect("a host");
            let path = key::normalize_path(black_box(PATH)).expect("a path");
            CacheKey::new(Scheme::Http, &host, &path, None)
        });
    });
    c.bench_function("store: get and select", |b| {
        let headers = HeaderMap::new();
        b.iter(|| store.get(black_box(&key)).and_then(|entry| entry.select(&headers).cloned()));
    });
    c.bench_function("store: promote", |b| b.iter(|| store.promote(black_box(key.hash()))));
    c.bench_function("freshness: state", |b| b.iter(|| object.head.freshness.state(black_box(now))));
    c.bench_function("head: copy of the fields", |b| b.iter(|| black_box(&object.head.headers).clone()));
    c.bench_function("head: Cache-Status", |b| {
        let mut value = Vec::with_capacity(64);
        b.iter(|| {
            value.clear();
            let status =
                CacheStatus { hit: true, ttl: Some(3541), detail: Some("memory"), ..CacheStatus::default() };
            status.write(black_box("larder"), &mut value);
        });
    });
    whole(c, &store, clock);
}

fn whole(c: &mut Criterion, store: &Arc<Store>, clock: Clock) {
    let edge = edge(store, clock);
    let live = LiveEdge::new(edge.clone());
    c.bench_function("the edge of the moment", |b| b.iter(|| live.with(|edge| Arc::as_ptr(black_box(edge)))));
    let address = "127.0.0.1:1".parse().expect("an address");
    let conn = Arc::new(ConnInfo::new(address, address, ""));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let hit = || {
        let response = runtime.block_on(edge.handle(request(), &conn, Instant::now()));
        assert_eq!(response.status(), StatusCode::OK);
        response
    };
    c.bench_function("hit: request to response, without the connection", |b| b.iter(hit));
    let of = |work: &dyn Fn()| {
        let before = ALLOCATIONS.load(Relaxed);
        (0..1000).for_each(|_| work());
        (ALLOCATIONS.load(Relaxed) - before) as f64 / 1000.0
    };
    let whole = of(&|| drop(hit()));
    let asking = of(&|| drop(request()));
    println!("hit: {:.2} allocations, {asking:.2} more for the request itself", whole - asking);
}

criterion_group!(benches, steps);
criterion_main!(benches);
