//! `larder check`: every fault of a configuration at once.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::{USAGE, print_line};
use crate::config::{self, Severity};

/// Validate a configuration: every error with its file, line and column, what was found, what is allowed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  larder check /etc/larder/larder.toml
  larder check --json larder.toml | jq '.diagnostics[].setting'

Exit code: 0 when the configuration can be used (warnings are no hindrance), 1 when it can't, 2 on usage.")]
pub(super) struct Args {
    /// The file
    #[arg(value_name = "FILE", required_unless_present = "config")]
    file: Option<PathBuf>,
    /// The file
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(path) = args.file.as_ref().or(args.config.as_ref()) else {
        return Ok(ExitCode::from(USAGE));
    };
    let checked = config::check_file(path).with_context(|| format!("{}: can't be read", path.display()))?;
    let count = |severity| checked.diagnostics.iter().filter(|d| d.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if args.json {
        let report = serde_json::json!({ "valid": errors == 0, "diagnostics": checked.diagnostics });
        print_line(&serde_json::to_string_pretty(&report)?)?;
    } else {
        for diagnostic in &checked.diagnostics {
            eprintln!("{diagnostic}");
        }
        let file = path.display();
        match (errors, warnings) {
            (0, 0) => print_line(&format!("{file}: valid"))?,
            (0, warnings) => print_line(&format!("{file}: valid, with {warnings} warnings"))?,
            (errors, _) => eprintln!("{file}: {errors} errors; nothing was started or changed"),
        }
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
