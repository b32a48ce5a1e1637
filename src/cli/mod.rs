//! The command line: one file a command, and what they share.

mod check;
mod client;
mod completions;
mod demo;
mod explain;
mod inspect;
mod life;
mod purge;
mod schema;
mod serve;
mod status;
mod token;
mod warm;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Usage errors, as clap itself returns them.
const USAGE: u8 = 2;

/// An edge cache for static assets.
#[derive(Debug, Parser)]
#[command(name = "larder", version, about, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Examples:
  larder demo                                   a sample shop behind a cache, nothing to configure
  larder serve --origin http://127.0.0.1:3000   cache what that server answers, on 127.0.0.1:8080
  larder serve --config /etc/larder/larder.toml run a node
  larder inspect http://127.0.0.1:8080/a.css    what the cache holds for a URL
  larder purge https://shop.example/a.css       have it fetched anew
  larder warm https://shop.example/ --wait      have it stored before anyone asks")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Serve(serve::Args),
    Check(check::Args),
    Schema(schema::Args),
    Status(status::Args),
    Purge(purge::Args),
    Warm(warm::Args),
    Inspect(inspect::Args),
    Explain(explain::Args),
    Token(token::Args),
    Reload(life::Reload),
    Drain(life::Drain),
    Completions(completions::Args),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Purge(args) => purge::run(&args),
        Command::Warm(args) => warm::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Reload(args) => life::reload(&args),
        Command::Drain(args) => life::drain(&args),
        Command::Completions(args) => completions::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("larder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The user's cache directory for a node that is run without a file.
fn user_store() -> PathBuf {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("larder")
}

/// Prints a line, and takes a reader that has gone away (`| head`) for a good end.
fn print_line(line: &str) -> std::io::Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
