//! `larder status`: the node at a glance.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::client::{NodeArgs, bytes};
use super::print_line;

const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Show the node at a glance: hit ratio, requests, tiers, origins.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  larder status
  larder status --watch
  larder status --node https://edge-1.example:8090 --token-file ./token --json")]
pub(super) struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// Show it again every second
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.watch && !args.node.json && std::io::stdout().is_terminal() {
        // A clean screen; what is shown then stands in place.
        print!("\x1b[2J");
        super::watch::watch(&args.node)?;
    }
    loop {
        let status = args.node.get("/v1/status")?;
        if args.node.json {
            let text = if args.watch { status.to_string() } else { serde_json::to_string_pretty(&status)? };
            print_line(&text)?;
        } else {
            print_line(&render(&status))?;
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

fn render(status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let mut lines = vec![format!(
        "{} {}  {}  up {}",
        text(&status["node"]),
        text(&status["version"]),
        text(&status["state"]),
        duration(number(&status["uptime_seconds"])),
    )];
    let ratio = status["hit_ratio"].as_f64().map_or("-".into(), |ratio| format!("{:.1} %", ratio * 100.0));
    lines.push(format!("hit ratio    {ratio}   bytes sent {}", bytes(&status["response_bytes"])));
    let requests = status["requests"].as_object().into_iter().flatten();
    let counts = requests.filter(|(_, n)| number(n) > 0).map(|(name, n)| format!("{name} {n}"));
    lines.push(format!("requests     {}", counts.collect::<Vec<_>>().join("   ")));
    lines.push(format!(
        "connections  {}   fetches in flight {}",
        number(&status["connections"]),
        number(&status["fetches_in_flight"])
    ));
    let memory = &status["store"]["memory"];
    lines.push(format!(
        "memory       {} of {}   {} objects",
        bytes(&memory["bytes"]),
        bytes(&memory["capacity_bytes"]),
        number(&memory["objects"])
    ));
    let log = &status["store"]["log"];
    lines.push(format!(
        "{:<13}{} of {} in {} segments   {} objects   {} live   {} dead   {}/s written",
        text(&log["medium"]) + " log",
        bytes(&log["file_bytes"]),
        bytes(&log["capacity_bytes"]),
        number(&log["segments"]),
        number(&log["objects"]),
        bytes(&log["live_bytes"]),
        bytes(&log["dead_bytes"]),
        bytes(&log["write_bytes_per_second"]),
    ));
    if let Some(trouble) = log["trouble"].as_str() {
        lines.push(format!("{:<13}{}: it {trouble}", "", text(&log["state"])));
    }
    let purges = &status["purges"];
    lines.push(format!(
        "purges       {} in the log   {}",
        number(&purges["log_entries"]),
        bytes(&purges["log_bytes"])
    ));
    let pending = number(&purges["pending_bytes"]);
    if pending > 0 {
        lines.push(format!("{:<13}{pending} bytes are in effect and not durable: the disk fails", ""));
    }
    lines.extend(status["warmups"]["jobs"].as_array().into_iter().flatten().map(warm_job));
    lines.extend(origins(status).into_iter().map(|(_, line)| line));
    lines.join("\n")
}

/// A line for each server, and whether it is up.
pub(super) fn origins(status: &Value) -> Vec<(bool, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = Vec::new();
    for origin in status["origins"].as_array().into_iter().flatten() {
        for server in origin["servers"].as_array().into_iter().flatten() {
            let is_up = server["up"].as_bool().unwrap_or(false);
            let state = if is_up { "up" } else { "down" };
            let error = server["last_error"].as_str().map(|e| format!("   {e}")).unwrap_or_default();
            let line = format!(
                "origin       {} {}   {state}   in flight {}{error}",
                text(&origin["name"]),
                text(&server["server"]),
                server["in_flight"].as_u64().unwrap_or(0)
            );
            lines.push((is_up, line));
        }
    }
    lines
}

fn warm_job(job: &Value) -> String {
    let text = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
    let (id, state) = (text("id"), text("state"));
    format!(
        "warm job     {id} {state}   {} of {} URLs   {} failed   {}/s   {} s left",
        job["done"], job["total"], job["failed"], job["rate"], job["seconds_left"],
    )
}

pub(super) fn duration(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m{}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h{}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d{}h", secs / 86_400, secs / 3600 % 24),
    }
}
