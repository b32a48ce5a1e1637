//! `larder demo`: a sample shop, a directory origin and a node on loopback; nothing to configure.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};

use super::serve::run_node;
use super::user_store;
use crate::config;
use crate::net::{CertificateFiles, load_certificates};
use crate::node::Node;
use crate::telemetry;

/// A small file to try: its answer fits on a screen.
const TRY_PATH: &str = "/data/event.json";

/// Run a sample shop behind a node on loopback, plain and TLS; prints what to try.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  larder demo
  larder demo --assets ./public --port 8081")]
pub(super) struct Args {
    /// Port for http; another free one when it is taken
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port for https; another free one when it is taken
    #[arg(long, default_value_t = 8443)]
    tls_port: u16,
    /// Port of the admin API; another free one when it is taken
    #[arg(long, default_value_t = 8090)]
    admin_port: u16,
    /// The directory to serve [default: assets-sample beside the program's sources]
    #[arg(long, value_name = "DIR")]
    assets: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    telemetry::init_program_log();
    let assets = match &args.assets {
        Some(assets) => assets.clone(),
        None => find_assets()?,
    };
    let store = user_store();
    fs::create_dir_all(&store).with_context(|| format!("{}", store.display()))?;
    let (cert, key) = certificate(&store)?;
    let quoted = |path: &Path| toml::Value::String(path.to_string_lossy().into_owned()).to_string();
    let address = |port| SocketAddr::from(([127, 0, 0, 1], free_or_any(port)));
    let text = format!(
        r#"
[[listen]]
address = "{plain}"
[[listen]]
address = "{secure}"
tls = true
[[certificate]]
cert = {cert}
key = {key}
[admin]
address = "{admin}"
[store]
path = {store}
memory = "256MiB"
# So that several demos, and a node of your own, can run at the same time.
disk = "0"
[[site]]
name = "demo"
hosts = ["*"]
origin = "assets"
[[origin]]
name = "assets"
dir = {assets}
"#,
        plain = address(args.port),
        secure = address(args.tls_port),
        admin = address(args.admin_port),
        cert = quoted(&cert),
        key = quoted(&key),
        store = quoted(&store),
        assets = quoted(&assets),
    );
    let checked = config::check_text("(demo)", &text);
    let config = checked.config.ok_or_else(|| {
        let faults: Vec<String> = checked.diagnostics.iter().map(ToString::to_string).collect();
        anyhow!("the demo's configuration can't be used: {}", faults.join("; "))
    })?;
    let source = Box::new(move || Ok(config::check_text("(demo)", &text)));
    run_node(config, source, |node| print_what_to_try(node, &assets, &cert))
}

fn print_what_to_try(node: &Node, assets: &Path, cert: &Path) {
    let port = |tls: bool| {
        let found = node.addresses().iter().find(|(_, is_tls)| *is_tls == tls);
        found.map_or(0, |(address, _)| address.port())
    };
    let (plain, secure) = (port(false), port(true));
    let admin = node.admin_url();
    println!("The shop in {} behind a cache, on loopback only:", assets.display());
    println!(
        "  http://127.0.0.1:{plain}/     https://localhost:{secure}/ (a certificate made on the spot)\n"
    );
    println!("Try, the first one twice (the second answer is a hit):");
    println!("  curl -i http://127.0.0.1:{plain}{TRY_PATH}");
    println!("  curl -sI --cacert {} https://localhost:{secure}/", cert.display());
    let node_flag = if admin.ends_with(":8090") { String::new() } else { format!(" --node {admin}") };
    // As the program was called, so that the line works without an installed one.
    let program = std::env::args().next().unwrap_or_else(|| "larder".into());
    println!("  {program} inspect{node_flag} http://127.0.0.1:{plain}{TRY_PATH}\n");
    println!("Ctrl-C ends it.");
}

/// `assets-sample` here, beside the program, or where the program was built.
fn find_assets() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("assets-sample")));
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets-sample");
    let candidates = [Some(PathBuf::from("assets-sample")), beside, Some(built)];
    let found = candidates.into_iter().flatten().find(|path| path.join("index.html").is_file());
    found.ok_or_else(|| {
        anyhow!("the sample shop (assets-sample) is not here; name a directory to serve with --assets DIR")
    })
}

fn free_or_any(port: u16) -> u16 {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => port,
        Err(_) => 0,
    }
}

/// A self-signed certificate for localhost; the one of an earlier demo goes on being good.
fn certificate(store: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let (cert, key) = (store.join("demo-cert.pem"), store.join("demo-key.pem"));
    let files = CertificateFiles { cert: cert.clone(), key: key.clone() };
    if load_certificates(&[files]).is_ok() {
        return Ok((cert, key));
    }
    let made = rcgen::generate_simple_self_signed(names)?;
    fs::write(&cert, made.cert.pem()).with_context(|| format!("{}", cert.display()))?;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&key)
        .with_context(|| format!("{}", key.display()))?;
    file.write_all(made.signing_key.serialize_pem().as_bytes())?;
    Ok((cert, key))
}
