//! `larder token`: makes tokens for the admin API. The token is shown once and stored nowhere; the configuration has its
//! hash.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::{USAGE, print_line};
use crate::config::parse_duration;
use crate::control::{SCOPES, new_token};
use crate::telemetry::{Clock, parse_rfc3339, rfc3339};

/// Make tokens for the admin API.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    New(New),
}

/// Make a token: prints it, once, and the lines for the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  larder token new --name marketing --scope read --scope purge --scope warm --site shop --expires 90d
  larder token new --name ci --scope purge:all --json | jq -r .token

Scopes: read; purge; purge:all, which includes purge; warm; admin, which includes all.")]
struct New {
    /// Shown in logs
    #[arg(long)]
    name: String,
    /// What it may do; may be given more than once
    #[arg(long = "scope", required = true, value_parser = clap::builder::PossibleValuesParser::new(SCOPES))]
    scopes: Vec<String>,
    /// Only for this site; may be given more than once [default: all]
    #[arg(long = "site", value_name = "NAME")]
    sites: Vec<String>,
    /// From when on it is refused: a time from now such as 90d, or a date such as 2027-01-01T00:00:00Z [default: never]
    #[arg(long)]
    expires: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Command::New(new) = &args.command;
    if let Some(bad) = std::iter::once(&new.name).chain(&new.sites).find(|name| !is_name(name)) {
        eprintln!("larder: {bad:?} is no name: 1 to 64 letters, digits, '-', '_' and '.' are needed");
        return Ok(ExitCode::from(USAGE));
    }
    let expires = match new.expires.as_deref().map(expiry) {
        None => None,
        Some(Some(at)) => Some(at),
        Some(None) => {
            eprintln!(
                "larder: --expires: a time from now such as 90d, or a date to come such as 2027-01-01T00:00:00Z"
            );
            return Ok(ExitCode::from(USAGE));
        }
    };
    let token = new_token()?;
    let hash = format!("blake3:{}", blake3::hash(token.as_bytes()).to_hex());
    let lines = lines(new, &hash, expires.as_deref());
    if new.json {
        let made = json!({
            "token": token, "name": new.name, "hash": hash, "scopes": new.scopes, "sites": new.sites,
            "expires": expires, "configuration": lines,
        });
        print_line(&serde_json::to_string_pretty(&made)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_line(&format!("The token, shown this once and stored nowhere:\n\n  {token}\n"))?;
    print_line(&format!("For the node's configuration, which knows it by its hash:\n\n{lines}"))?;
    Ok(ExitCode::SUCCESS)
}

/// What the configuration takes as one.
fn is_name(text: &str) -> bool {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(is_good)
}

/// `[[admin.token]]`
fn lines(new: &New, hash: &str, expires: Option<&str>) -> String {
    // A string or a list of strings of JSON is one of TOML.
    let mut lines = vec![
        "[[admin.token]]".to_owned(),
        format!("name = {}", json!(new.name)),
        format!("hash = \"{hash}\""),
        format!("scopes = {}", json!(new.scopes)),
    ];
    if !new.sites.is_empty() {
        lines.push(format!("sites = {}", json!(new.sites)));
    }
    if let Some(expires) = expires {
        lines.push(format!("expires = {expires}"));
    }
    lines.join("\n")
}

/// In RFC 3339; `None`: it can't be read, or is past.
fn expiry(text: &str) -> Option<String> {
    let now = Clock::start().now();
    let at = match parse_duration(text) {
        Some(left) => now.saturating_add(i64::try_from(left.as_millis()).ok()?),
        None => parse_rfc3339(text)?,
    };
    let is_to_come =
        at > now && at.saturating_sub(now) < Duration::from_secs(100 * 366 * 86_400).as_millis() as i64;
    // Whole seconds.
    is_to_come.then(|| format!("{}Z", &rfc3339(at)[..19]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_to_come() {
        assert!(expiry("90d").is_some_and(|at| at.ends_with('Z') && at.len() == 20));
        assert_eq!(expiry("2090-01-01T00:00:00Z").as_deref(), Some("2090-01-01T00:00:00Z"));
        for bad in ["", "90", "0s", "-1d", "2001-01-01T00:00:00Z", "soon", "99999999d"] {
            assert_eq!(expiry(bad), None, "{bad}");
        }
    }
}
