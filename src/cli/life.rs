//! `larder reload` and `larder drain`: what an operator may ask of the node as a whole.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::NodeArgs;
use super::print_line;

/// Have the node take its configuration file as it is now, whole or not at all.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  larder check /etc/larder/larder.toml && larder reload
  larder reload --node https://edge-1.example:8090 --token-file ./token

A configuration that can't be used changes nothing; its faults are printed, and the exit code is 1.")]
pub(super) struct Reload {
    #[command(flatten)]
    node: NodeArgs,
}

/// Have the node finish what it has begun, and end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  larder drain
  larder drain --node http://127.0.0.1:8090 --token-file ./token

readyz says 503 at once, listeners close after node.drain_delay, and the node ends when every response is
finished, after node.drain_timeout at the latest.")]
pub(super) struct Drain {
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn reload(args: &Reload) -> anyhow::Result<ExitCode> {
    let answer = args.node.post("/v1/reload", &json!({}))?;
    if args.node.json {
        print_line(&serde_json::to_string_pretty(&answer)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("warning: {warning}");
    }
    print_line("reloaded")?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn drain(args: &Drain) -> anyhow::Result<ExitCode> {
    let answer = args.node.post("/v1/drain", &json!({}))?;
    let text = if args.node.json { serde_json::to_string_pretty(&answer)? } else { "draining".to_owned() };
    print_line(&text)?;
    Ok(ExitCode::SUCCESS)
}
