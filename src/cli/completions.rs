//! `larder completions`: scripts for shells.

use std::process::ExitCode;

use clap::CommandFactory;

use super::Cli;

/// Print the completion script of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  larder completions bash > /etc/bash_completion.d/larder")]
pub(super) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

#[allow(clippy::unnecessary_wraps, reason = "all commands have one signature")]
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    clap_complete::generate(args.shell, &mut Cli::command(), "larder", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
