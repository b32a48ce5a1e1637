//! `larder serve`: run a node, from a file or from flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::user_store;
use crate::config::{self, Config, Severity};
use crate::node::{Ended, Node, Stopper};
use crate::telemetry;

const DEFAULT_FILE: &str = "/etc/larder/larder.toml";

/// Run a node, with a configuration file or with flags alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  larder serve                                            with /etc/larder/larder.toml
  larder serve --config ./larder.toml
  larder serve --origin https://shop.example --listen 127.0.0.1:8080
  larder serve --origin ./public --memory 64MiB --workers 1

Signals: SIGTERM and SIGINT drain, a second one stops at once. SIGUSR1 opens the access log anew.
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
    let loaded = match &args.origin {
        Some(origin) => from_flags(&args, origin)?,
        None => {
            let path = args.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
            let hint = "; name one with --config, or run without a file: larder serve --origin URL";
            let checked = config::check_file(path)
                .with_context(|| format!("{}: can't be read{hint}", path.display()))?;
            usable(checked)
        }
    };
    let Some(config) = loaded else { return Ok(ExitCode::FAILURE) };
    run_node(config, |_| ())
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
fn from_flags(args: &Args, origin: &str) -> anyhow::Result<Option<Config>> {
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
    let text = lines.join("\n");
    Ok(usable(config::check_text("(flags)", &text)))
}

/// Runs a node to its end; signals end it.
pub(super) fn run_node(config: Config, on_ready: impl FnOnce(&Node)) -> anyhow::Result<ExitCode> {
    let node = match Node::build(config) {
        Ok(node) => node,
        Err(error) => bail!("{error}"),
    };
    on_ready(&node);
    let ended = node.run(|stopper| {
        tokio::spawn(stop_on_signals(stopper));
    })?;
    Ok(match ended {
        Ended::Drained => ExitCode::SUCCESS,
        // What was asked for, though not finished: not a usage error.
        Ended::Stopped | Ended::Failed => ExitCode::FAILURE,
    })
}

async fn stop_on_signals(stopper: Stopper) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals can't be watched; SIGTERM ends the process without a drain");
        return;
    };
    // A limit on the size of files is to fail a write, not to end the process.
    let _file_too_large = signal(SignalKind::from_raw(libc::SIGXFSZ));
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stopper.stop();
    }
}
