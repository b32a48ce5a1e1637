//! `larder purge`: remove what is stored, or make it stale; and the log of purges.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};

use super::client::{NodeArgs, bytes};
use super::{USAGE, print_line};

/// Remove what the cache holds: by URL, prefix, tag, host, site, or all.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags")]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  larder purge https://shop.example/css/shop.css
  larder purge --prefix shop.example/assets --note 'spring sale'
  larder purge --tag product-42 --tag home --soft
  larder purge --prefix shop.example/assets --dry-run
  larder purge --site shop --all --yes
  larder purge list
  larder purge show ID

A purge is durable and in effect when the command ends with exit code 0.")]
pub(super) struct Args {
    #[command(subcommand)]
    log: Option<Log>,
    /// URLs as clients ask for them; both schemes and all variants go
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// Everything below a host and path, in whole segments
    #[arg(long, value_name = "HOST/PATH")]
    prefix: Vec<String>,
    /// Everything with this tag
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Everything of a host
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Everything of the site, or of the node where no site is named
    #[arg(long, conflicts_with_all = ["urls", "prefix", "tag", "host"])]
    all: bool,
    /// Only what belongs to this site
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Make it stale instead of gone: it may still cover a slow or dead origin
    #[arg(long)]
    soft: bool,
    /// Purge nothing: show how many objects and bytes it would hit, and some of them
    #[arg(long)]
    dry_run: bool,
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Don't ask before --all
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Log {
    /// Show past purges, the newest first
    #[command(after_help = "Example:\n  larder purge list --limit 20")]
    List {
        /// Purges to show
        #[arg(long, default_value_t = 100)]
        limit: u16,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show one purge with all its entries
    #[command(after_help = "Example:\n  larder purge show 0f3a…")]
    Show {
        /// As `larder purge list` shows it
        id: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.log {
        Some(Log::List { limit, node }) => list(*limit, node),
        Some(Log::Show { id, node }) => show(id, node),
        None => purge(args),
    }
}

fn purge(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(problem) = args.usage_problem() {
        eprintln!("larder: {problem}");
        return Ok(ExitCode::from(USAGE));
    }
    if args.dry_run {
        return dry_run(args);
    }
    if args.all && !args.yes && !args.is_confirmed()? {
        bail!("nothing was purged");
    }
    let made = args.node.post("/v1/purges", &args.order(false))?;
    if args.node.json {
        print_line(&serde_json::to_string_pretty(&made)?)?;
    } else {
        let how = if args.soft { "purged softly" } else { "purged" };
        let took = made["applied_in_us"].as_u64().unwrap_or(0) as f64 / 1000.0;
        let id = made["id"].as_str().unwrap_or("?");
        print_line(&format!("{how}: {} entries in {took:.1} ms, {id}", made["entries"]))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn usage_problem(&self) -> Option<&'static str> {
        let names_nothing =
            [&self.urls, &self.prefix, &self.tag, &self.host].iter().all(|list| list.is_empty());
        if names_nothing && !self.all {
            return Some(
                "nothing to purge: name a URL, --prefix, --tag, --host or --all; see `larder purge --help`",
            );
        }
        if self.all && !self.yes && !self.dry_run && !std::io::stdin().is_terminal() {
            return Some("--all asks first, and there is no terminal to ask on; pass --yes");
        }
        None
    }

    /// The body of the call.
    fn order(&self, dry_run: bool) -> Value {
        json!({
            "site": self.site,
            "urls": self.urls,
            "prefixes": self.prefix,
            "tags": self.tag,
            "hosts": self.host,
            "all": self.all,
            "soft": self.soft,
            "note": self.note,
            "dry_run": dry_run,
        })
    }

    /// Shows what would be hit and asks.
    fn is_confirmed(&self) -> anyhow::Result<bool> {
        let what = self.site.as_ref().map_or("everything".into(), |site| format!("everything of {site:?}"));
        let held = matches(&self.node.post("/v1/purges", &self.order(true))?);
        eprint!("Purge {what}: {held}? [y/N] ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

fn dry_run(args: &Args) -> anyhow::Result<ExitCode> {
    let found = args.node.post("/v1/purges", &args.order(true))?;
    if args.node.json {
        print_line(&serde_json::to_string_pretty(&found)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_line(&format!("would hit {}; nothing was purged", matches(&found)))?;
    for url in found["sample"].as_array().into_iter().flatten() {
        print_line(&format!("  {}", url.as_str().unwrap_or_default()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `3 objects, 1.5 KiB`
fn matches(found: &Value) -> String {
    let matches = &found["matches"];
    let objects = matches["objects"].as_u64().unwrap_or(0);
    let at_least = if found["complete"] == false { "at least " } else { "" };
    let plural = if objects == 1 { "" } else { "s" };
    format!("{at_least}{objects} object{plural}, {}", bytes(&matches["bytes"]))
}

fn list(limit: u16, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let found = node.get(&format!("/v1/purges?limit={limit}"))?;
    if node.json {
        print_line(&serde_json::to_string_pretty(&found)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for purge in found["items"].as_array().into_iter().flatten() {
        print_line(&head(purge))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(id: &str, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let keeps = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !id.chars().all(keeps) {
        bail!("{id:?} is no id of a purge; `larder purge list` shows them");
    }
    let purge = node.get(&format!("/v1/purges/{id}"))?;
    if node.json {
        print_line(&serde_json::to_string_pretty(&purge)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_line(&head(&purge))?;
    for entry in purge["selectors"].as_array().into_iter().flatten() {
        print_line(&format!("  {}", selector(entry)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line: when, which, who, what, why.
fn head(purge: &Value) -> String {
    let text = |name: &str| purge[name].as_str().unwrap_or("-").to_owned();
    let first = purge["selectors"].get(0).map(selector).unwrap_or_default();
    let more = match purge["entries"].as_u64().unwrap_or(1) {
        0 | 1 => String::new(),
        entries => format!(" and {} more", entries - 1),
    };
    let soft = if purge["soft"] == true { "  soft" } else { "" };
    let note = purge["note"].as_str().map(|note| format!("  {note:?}")).unwrap_or_default();
    format!(
        "{}  {}  {} from {} by {}  {}  {first}{more}{soft}{note}",
        text("at"),
        text("id"),
        text("who"),
        text("from"),
        text("source"),
        text("site"),
    )
}

fn selector(entry: &Value) -> String {
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    format!("{} {}", text("kind"), text("value")).trim_end().to_owned()
}
