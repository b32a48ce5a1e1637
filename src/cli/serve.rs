//! `larder serve`: run a node, from a file or from flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::user_store;
use crate::config::{self, Config, Severity};
use crate::node::{Ended, Handle, Inheritance, Node, Source};
use crate::telemetry;

const DEFAULT_FILE: &str = "/etc/larder/larder.toml";

/// Run a node, with a configuration file or with flags alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  larder serve                                            with /etc/larder/larder.toml
  larder serve --config ./larder.toml
  larder serve --origin https://shop.example --listen 127.0.0.1:8080
  larder serve --origin ./public --memory 64MiB --workers 1

Signals: SIGTERM and SIGINT drain, a second one stops at once. SIGHUP reloads the configuration,
SIGUSR1 opens the access log anew, SIGUSR2 has a new process, of the binary as it is now, take over
without a failed request.
Environment: LARDER_LOG sets the program log's level, e.g. LARDER_LOG=debug.")]
pub(super) struct Args {
    /// The configuration file [default: /etc/larder/larder.toml]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["origin", "listen", "admin", "store", "memory", "disk", "workers"])]
    config: Option<PathBuf>,
    /// Without a file: one site for every Host, from this server or directory
    #[arg(long, value_name = "URL|DIR")]
    origin: Option<String>,
    /// Where clients connect; port 0: any free port [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", requires = "origin")]
    listen: Vec<SocketAddr>,
    /// The admin API's address [default: 127.0.0.1:8090]
    #[arg(long, value_name = "ADDR", requires = "origin")]
    admin: Option<SocketAddr>,
    /// Directory of the store [default: larder in the user's cache directory]
    #[arg(long, value_name = "DIR", requires = "origin")]
    store: Option<PathBuf>,
    /// Budget of the memory tier, e.g. 256MiB or 25% [default: 256MiB]
    #[arg(long, value_name = "SIZE", requires = "origin")]
    memory: Option<String>,
    /// Budget of the disk tier; 0: memory only [default: 4GiB]
    #[arg(long, value_name = "SIZE", requires = "origin")]
    disk: Option<String>,
    /// Serving threads [default: one a core]
    #[arg(long, value_name = "N", requires = "origin")]
    workers: Option<usize>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    telemetry::init_program_log();
    let source: Source = match &args.origin {
        Some(origin) => {
            let text = from_flags(&args, origin)?;
            Box::new(move || Ok(config::check_text("(flags)", &text)))
        }
        None => {
            let path = args.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
            Box::new(move || {
                let told =
                    |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()));
                config::check_file(&path).map_err(told)
            })
        }
    };
    let hint = "name a configuration with --config, or run without a file: larder serve --origin URL";
    let Some(config) = usable(source().context(hint)?) else { return Ok(ExitCode::FAILURE) };
    run_node(config, source, |_| ())
}

/// The configuration, if it can be used; its faults are told either way.
fn usable(checked: config::Checked) -> Option<Config> {
    for diagnostic in &checked.diagnostics {
        match diagnostic.severity {
            Severity::Warning => tracing::warn!("{diagnostic}"),
            Severity::Error => eprintln!("{diagnostic}"),
        }
    }
    if checked.config.is_none() {
        eprintln!("larder: the configuration can't be used; nothing was started");
    }
    checked.config
}

/// Flags become a file's text, so that there is one way to validate.
fn from_flags(args: &Args, origin: &str) -> anyhow::Result<String> {
    let default_listen = [SocketAddr::from(([127, 0, 0, 1], 8080))];
    let listen = if args.listen.is_empty() { &default_listen[..] } else { &args.listen };
    let admin = args.admin.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8090)));
    let store = args.store.clone().unwrap_or_else(user_store);
    let memory = args.memory.as_deref().unwrap_or("256MiB");
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut lines = Vec::new();
    lines.extend(listen.iter().map(|address| format!("[[listen]]\naddress = \"{address}\"")));
    lines.push(format!("[admin]\naddress = \"{admin}\""));
    lines.push(format!("[node]\nworkers = {}", args.workers.unwrap_or(0)));
    lines.push(format!("[store]\npath = {}\nmemory = {}", quoted(&store.to_string_lossy()), quoted(memory)));
    lines.push(format!("disk = {}", quoted(args.disk.as_deref().unwrap_or("4GiB"))));
    lines.push("[[site]]\nname = \"default\"\nhosts = [\"*\"]\norigin = \"default\"".into());
    lines.push("[[origin]]\nname = \"default\"".into());
    if let Some((_, host)) = origin.split_once("://") {
        lines.push(format!("servers = [{{ url = {} }}]", quoted(origin)));
        // A node for every Host can't send on each of them: the origin is asked by its own name.
        lines.push(format!("host = {}", quoted(host.trim_end_matches('/'))));
    } else {
        if !Path::new(origin).is_dir() {
            bail!("--origin {origin}: neither a URL such as http://127.0.0.1:3000 nor a directory");
        }
        lines.push(format!("dir = {}", quoted(origin)));
    }
    Ok(lines.join("\n"))
}

/// Runs a node to its end; signals tell it what to do.
pub(super) fn run_node(
    config: Config,
    source: Source,
    on_ready: impl FnOnce(&Node),
) -> anyhow::Result<ExitCode> {
    let inheritance = Inheritance::take().context("what this process was started with can't be used")?;
    let _traces = telemetry::start_traces()?;
    let node = match Node::build(config, source, inheritance) {
        Ok(node) => node,
        Err(error) => bail!("{error}"),
    };
    on_ready(&node);
    let ended = node.run(obey_signals)?;
    Ok(match ended {
        Ended::Drained => ExitCode::SUCCESS,
        // What was asked for, though not finished: not a usage error.
        Ended::Stopped | Ended::Failed => ExitCode::FAILURE,
    })
}

/// Watches the signals from now on, and has the node do what they say.
fn obey_signals(node: Handle) {
    use tokio::signal::unix::{SignalKind, signal};
    let watch = || {
        let kinds = [SignalKind::hangup(), SignalKind::user_defined2(), SignalKind::interrupt()];
        let [hup, usr2, int] = kinds.map(signal);
        Ok::<_, std::io::Error>((hup?, usr2?, int?, signal(SignalKind::terminate())?))
    };
    let Ok((mut hup, mut usr2, mut int, mut term)) = watch() else {
        tracing::warn!("signals can't be watched; SIGTERM ends the process without a drain");
        return;
    };
    // A limit on the size of files is to fail a write, not to end the process, which a signal once watched never does.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ)));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = hup.recv() => node.reload(),
                _ = usr2.recv() => node.upgrade(),
                _ = term.recv() => node.stop(),
                _ = int.recv() => node.stop(),
            }
        }
    });
}
