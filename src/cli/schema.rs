//! `larder schema`: the configuration's JSON Schema.

use std::process::ExitCode;

use super::print_line;
use crate::config;

/// Print the JSON Schema of the configuration, for editors.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  larder schema > larder.schema.json            and in the file: #:schema ./larder.schema.json")]
pub(super) struct Args {}

pub(super) fn run(_: &Args) -> anyhow::Result<ExitCode> {
    print_line(&serde_json::to_string_pretty(&config::json_schema())?)?;
    Ok(ExitCode::SUCCESS)
}
