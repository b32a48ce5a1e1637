//! The real program with a configuration of the test's own, in a temp folder.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::client::Client;
use super::openmetrics::{self, Metrics};
use super::origin::Origin;
use super::process::Process;
use super::request::{Request, get, request};
use super::response::Response;
use super::temp::TempDir;
use super::tls::{Ca, Issued};
use super::{PATIENCE, eventually, holds_within};

/// Collects the parts of a configuration; each method takes lines of TOML for one table.
pub struct Builder {
    dir: TempDir,
    listens: Vec<(String, bool)>,
    certificates: Vec<Issued>,
    workers: usize,
    node: String,
    admin: String,
    limits: String,
    store: String,
    disk: String,
    site: String,
    cache: String,
    rules: String,
    origin: String,
    servers: String,
    sites: Option<String>,
    extra: String,
    library: Option<PathBuf>,
}

/// A node with one site for every Host in front of this origin, on a plain IPv4 listener.
pub fn node(origin: &Origin) -> Builder {
    let mut builder = bare();
    builder.servers = format!("servers = [{{ url = \"{}\" }}]", origin.url());
    builder
}

/// A node whose origin is a directory.
pub fn node_on_directory(directory: &Path) -> Builder {
    let mut builder = bare();
    builder.servers = format!("dir = \"{}\"", directory.display());
    builder
}

/// A node whose sites and origins are all in [`Builder::sites`].
pub fn bare() -> Builder {
    Builder {
        dir: TempDir::new(),
        listens: vec![("127.0.0.1:0".to_owned(), false)],
        certificates: Vec::new(),
        workers: 2,
        node: String::new(),
        admin: String::new(),
        limits: String::new(),
        store: "memory = \"64MiB\"".to_owned(),
        // Set for a run of all tests with a disk tier.
        disk: std::env::var("LARDER_TEST_DISK").unwrap_or_else(|_| "0".to_owned()),
        site: "hosts = [\"*\"]".to_owned(),
        cache: String::new(),
        rules: String::new(),
        origin: String::new(),
        servers: String::new(),
        sites: None,
        extra: String::new(),
        library: None,
    }
}

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident),*) => {
        impl Builder {
            $($(#[$doc])* #[must_use] pub fn $name(mut self, lines: &str) -> Self {
                self.$name.push('\n');
                self.$name.push_str(lines);
                self
            })*
        }
    };
}

sections!(
    /// Lines of `[node]`.
    node,
    /// Lines of `[admin]`, and tables below it.
    admin,
    /// Lines of `[limits]`.
    limits,
    /// Lines of `[[site]]`.
    site,
    /// Lines of `[site.cache]`.
    cache,
    /// Whole `[[site.rule]]` tables.
    rules,
    /// Lines of `[[origin]]`.
    origin,
    /// Whole tables for the end of the file.
    extra
);

impl Builder {
    #[must_use]
    pub fn memory(mut self, size: &str) -> Self {
        self.store = format!("memory = \"{size}\"");
        self
    }

    /// A disk tier of this size.
    #[must_use]
    pub fn disk(mut self, size: &str) -> Self {
        size.clone_into(&mut self.disk);
        self
    }

    /// Lines of `[store]`.
    #[must_use]
    pub fn store(mut self, lines: &str) -> Self {
        self.store.push('\n');
        self.store.push_str(lines);
        self
    }

    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Another plain listener.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        self.listens.push((address.to_owned(), false));
        self
    }

    /// Replaces the plain listener's address.
    #[must_use]
    pub fn listen_at(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listens[0].0);
        self
    }

    /// A TLS listener with a certificate of this authority for these names; every call adds a certificate.
    #[must_use]
    pub fn tls(mut self, ca: &Ca, names: &[&str]) -> Self {
        self.certificates.push(ca.issue(names, self.dir.path()));
        if !self.listens.iter().any(|(_, tls)| *tls) {
            self.listens.push(("127.0.0.1:0".to_owned(), true));
        }
        self
    }

    /// Replaces the site and the origin by whole tables.
    #[must_use]
    pub fn sites(mut self, tables: &str) -> Self {
        self.sites = Some(tables.to_owned());
        self
    }

    /// A library that stands in for calls of the system's, until the node is started again.
    #[must_use]
    pub fn preload(mut self, library: &Path) -> Self {
        self.library = Some(library.to_owned());
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn toml(&self) -> String {
        let store = self.dir.path().join("store");
        let mut toml = format!("[node]\nworkers = {}\n{}\n", self.workers, self.node);
        for (address, tls) in &self.listens {
            let _ = write!(toml, "[[listen]]\naddress = \"{address}\"\ntls = {tls}\n");
        }
        for Issued { cert, key } in &self.certificates {
            let _ =
                write!(toml, "[[certificate]]\ncert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display());
        }
        let _ =
            write!(toml, "[admin]\naddress = \"127.0.0.1:0\"\n{}\n[limits]\n{}\n", self.admin, self.limits);
        let _ = write!(
            toml,
            "[store]\npath = \"{}\"\ndisk = \"{}\"\n{}\n",
            store.display(),
            self.disk,
            self.store
        );
        match &self.sites {
            Some(sites) => toml.push_str(sites),
            None => {
                let _ = write!(
                    toml,
                    "[[site]]\nname = \"test\"\norigin = \"origin\"\n{}\n[site.cache]\n{}\n{}\n\
                     [[origin]]\nname = \"origin\"\n{}\n{}\n",
                    self.site, self.cache, self.rules, self.servers, self.origin
                );
            }
        }
        toml + "\n" + &self.extra
    }

    /// Starts the program and waits until it says that it is ready.
    #[track_caller]
    pub fn start(self) -> Node {
        let config = self.dir.write("larder.toml", self.toml());
        let path = config.to_str().expect("a path in UTF-8");
        let process = Process::start_preloaded(&["serve", "--config", path], self.library.as_deref());
        Node::await_ready(process, self.dir)
    }

    /// The same from another binary.
    #[track_caller]
    pub fn start_as(self, binary: &Path) -> Node {
        self.start_with(std::process::Command::new(binary))
    }

    /// The same by a command of the test's own, which gets the arguments.
    #[track_caller]
    pub fn start_with(self, command: std::process::Command) -> Node {
        let config = self.dir.write("larder.toml", self.toml());
        let path = config.to_str().expect("a path in UTF-8");
        Node::launch_with(command, &["serve", "--config", path], self.dir)
    }

    /// Runs the program until it ends: for starts that fail.
    #[track_caller]
    pub fn run(&self) -> std::process::Output {
        let config = self.dir.write("larder.toml", self.toml());
        super::process::run(&["serve", "--config", config.to_str().expect("a path in UTF-8")])
    }
}

#[derive(Debug)]
struct Ports {
    listeners: Vec<(bool, SocketAddr)>,
    admin: SocketAddr,
    metrics: Option<SocketAddr>,
}

impl Ports {
    /// The addresses, once the log says `ready`.
    fn read(lines: &[String]) -> Option<Self> {
        let is_ready = |line: &String| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == "ready");
        lines.iter().find(|line| is_ready(line))?;
        let after =
            |mark: &str| lines.iter().filter_map(|line| address_after(line, mark)).collect::<Vec<_>>();
        let listeners = lines
            .iter()
            .filter_map(|line| {
                let plain = address_after(line, "listening on http://").map(|address| (false, address));
                plain.or_else(|| address_after(line, "listening on https://").map(|address| (true, address)))
            })
            .collect();
        let admin = after("admin on http://").into_iter().chain(after("admin on https://")).next()?;
        Some(Self { listeners, admin, metrics: after("metrics on http://").first().copied() })
    }
}

fn address_after(line: &str, mark: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(mark)?;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// A running node. It is killed when this goes.
pub struct Node {
    process: Process,
    ports: Ports,
    /// From the start of the process to its `ready`.
    pub ready_after: Duration,
    dir: TempDir,
}

impl Deref for Node {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Node {
    /// A node without a file. It keeps no folder: the test names one for the store.
    #[track_caller]
    pub fn from_flags(arguments: &[&str]) -> Self {
        Self::launch(arguments, TempDir::new())
    }

    #[track_caller]
    fn launch(arguments: &[&str], dir: TempDir) -> Self {
        Self::launch_with(std::process::Command::new(super::process::binary()), arguments, dir)
    }

    #[track_caller]
    fn launch_with(command: std::process::Command, arguments: &[&str], dir: TempDir) -> Self {
        Self::await_ready(Process::start_with(command, arguments), dir)
    }

    #[track_caller]
    fn await_ready(mut process: Process, dir: TempDir) -> Self {
        let mut ports = None;
        holds_within(PATIENCE, || {
            ports = Ports::read(&process.lines());
            ports.is_some() || process.exited().is_some()
        });
        let ready_after = process.started.elapsed();
        let Some(ports) = ports else {
            let toml = std::fs::read_to_string(dir.path().join("larder.toml")).unwrap_or_default();
            panic!("it did not become ready\n{toml}");
        };
        Self { process, ports, ready_after, dir }
    }

    /// The first plain listener.
    pub fn http(&self) -> SocketAddr {
        self.listener(false, 0)
    }

    /// The first TLS listener.
    pub fn https(&self) -> SocketAddr {
        self.listener(true, 0)
    }

    #[track_caller]
    pub fn listener(&self, tls: bool, index: usize) -> SocketAddr {
        let mut of_kind = self.ports.listeners.iter().filter(|(is_tls, _)| *is_tls == tls);
        of_kind.nth(index).unwrap_or_else(|| panic!("no such listener in {:?}", self.ports)).1
    }

    pub fn admin(&self) -> SocketAddr {
        self.ports.admin
    }

    pub fn metrics_address(&self) -> SocketAddr {
        self.ports.metrics.expect("a metrics listener")
    }

    pub fn token_file(&self) -> PathBuf {
        self.dir.path().join("store/admin.token")
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(self.token_file()).expect("the generated token").trim().to_owned()
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        get(target).to(self)
    }

    /// Asks the admin listener, without a token of its own.
    #[track_caller]
    pub fn ask_admin(&self, request: &Request) -> Response {
        Client::connect(self.admin()).exchange(&request.clone().host(&self.admin().to_string()))
    }

    /// The same of a node that may be gone, with the generated token.
    pub fn try_admin_get(&self, target: &str) -> Option<Response> {
        let request = get(target).with("Authorization", format!("Bearer {}", self.token()));
        let mut client = Client::try_connect(self.admin()).ok()?;
        client.try_send(&request.host(&self.admin().to_string()).bytes()).ok()?;
        client.try_response("GET").ok()
    }

    /// Asks the admin listener with the generated token.
    #[track_caller]
    pub fn admin_get(&self, target: &str) -> Response {
        self.ask_admin(&get(target).with("Authorization", format!("Bearer {}", self.token())))
    }

    /// Posts to the admin listener with the generated token.
    #[track_caller]
    pub fn admin_post(&self, target: &str) -> Response {
        let request = request("POST", target).with("Authorization", format!("Bearer {}", self.token()));
        self.ask_admin(&request.body(""))
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("larder.toml")
    }

    /// Changes the configuration file.
    #[track_caller]
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).expect("the configuration");
        assert!(text.contains(from), "{from} is not in\n{text}");
        std::fs::write(self.config(), text.replacen(from, to, 1)).expect("the configuration");
    }

    /// Reloads it; the answer.
    #[track_caller]
    pub fn reload(&self) -> Response {
        self.admin_post("/v1/reload")
    }

    /// Has another process take over, and waits until the one before is gone.
    #[track_caller]
    pub fn upgrade(&self) {
        let before = self.pid();
        self.signal(Signal::USR2);
        eventually("another process serves", || self.pid() != before);
        eventually("the one before has ended", || !is_alive(before));
    }

    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let response = self.admin_get("/metrics");
        response.assert_status(200);
        openmetrics::parse(&response.text()).unwrap_or_else(|error| panic!("no OpenMetrics: {error}"))
    }

    /// The sum of a metric over all series with at least these labels: `name{label="value"}`.
    #[track_caller]
    pub fn metric(&self, selector: &str) -> f64 {
        self.metrics().sum(selector)
    }

    /// Metrics are counted when a response has left, which may be a little after it was read.
    #[track_caller]
    pub fn await_metric(&self, selector: &str, at_least: f64) {
        eventually(&format!("{selector} >= {at_least}"), || self.metric(selector) >= at_least);
    }

    /// Asks for `target` until it is a hit; a fill may be completed just after its first client was served.
    #[track_caller]
    pub fn await_hit(&self, target: &str) -> Response {
        let mut last = self.get(target);
        let hit = holds_within(PATIENCE, || {
            last = self.get(target);
            last.is_hit()
        });
        assert!(hit, "{target} never became a hit: {} {:?}", last.status, last.fields);
        last
    }

    /// SIGTERM, and the end of the process within the patience of a test.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.signal(Signal::TERM);
        assert!(self.process.wait(PATIENCE).is_some(), "it did not stop after SIGTERM");
    }

    /// Stops it, gently or at once, and starts it again on the same store; ports change.
    #[must_use]
    #[track_caller]
    pub fn restarted(self, signal: Signal) -> Self {
        self.restarted_after(signal, |_| ())
    }

    /// The same; `change` is done to its folder in between.
    #[must_use]
    #[track_caller]
    pub fn restarted_after(self, signal: Signal, change: impl FnOnce(&Path)) -> Self {
        self.process.signal(signal);
        self.ended_and_restarted(change)
    }

    /// Starts it again after a signal that has been sent.
    #[must_use]
    #[track_caller]
    pub fn restarted_when_ended(self) -> Self {
        self.ended_and_restarted(|_| ())
    }

    #[track_caller]
    fn ended_and_restarted(mut self, change: impl FnOnce(&Path)) -> Self {
        assert!(self.process.wait(PATIENCE).is_some(), "it did not stop");
        let Self { process, dir, .. } = self;
        drop(process);
        change(dir.path());
        let config = dir.path().join("larder.toml");
        Self::launch(&["serve", "--config", config.to_str().expect("a path in UTF-8")], dir)
    }

    /// The folder of its store.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The log must tell of no panic.
    #[track_caller]
    pub fn assert_no_panic(&self) {
        let lines = self.process.lines();
        assert!(!lines.iter().any(|line| line.contains("panicked")), "{}", lines.join("\n"));
    }
}

/// Whether a process runs; one that nobody has waited for does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
