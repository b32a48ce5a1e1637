//! `larder warm`: have responses stored before clients ask for them.

use std::fmt::Write as _;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

use super::client::{NodeArgs, bytes, field};
use super::{USAGE, print_line};

/// Between two looks at a job that is waited for.
const POLL: Duration = Duration::from_millis(300);
/// Between two lines about it where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Failures that are named at the end.
const SHOWN_FAILURES: usize = 20;
/// Of a list; what the node takes is less.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// Have URLs stored before clients ask for them.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  larder warm https://shop.example/ https://shop.example/css/shop.css
  larder warm --file landing-pages.txt --encodings br,gzip --rate 50 --wait
  larder warm --sitemap https://shop.example/sitemap.xml --hold 12h --wait
  grep -o 'https://[^ ]*' plan.txt | larder warm --file - --wait
  larder warm list
  larder warm show ID --failed
  larder warm cancel ID

Without --encodings a URL is asked for as browsers do (gzip, br, zstd). With --wait the command ends
when the job does, with exit code 0 only if nothing failed; without, the job goes on in the node.")]
pub(super) struct Args {
    #[command(subcommand)]
    jobs: Option<Jobs>,
    /// URLs as clients ask for them
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// A file with a URL a line; - for standard input. Blank lines and # comments are skipped
    #[arg(long, value_name = "LIST")]
    file: Option<PathBuf>,
    /// A sitemap or an index of sitemaps, compressed or not; its URLs are warmed
    #[arg(long, value_name = "URL")]
    sitemap: Option<String>,
    /// Content codings to ask for, one request each: br, gzip, zstd, identity
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    encodings: Vec<String>,
    /// A field to send with each request, 'Name: value'
    #[arg(long, short = 'H', value_name = "FIELD", value_parser = field)]
    header: Vec<(String, String)>,
    /// Requests a second [default: 200]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Requests at the same time [default: 16]
    #[arg(long, value_name = "N")]
    concurrency: Option<u16>,
    /// Keep what is stored from eviction for so long: 30m, 12h, 7d
    #[arg(long, value_name = "TIME")]
    hold: Option<String>,
    /// Ask the origin also about what is fresh
    #[arg(long)]
    refresh: bool,
    /// All URLs have to belong to this site
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// End when the job does; exit code 1 if anything failed
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Jobs {
    /// Show warm jobs, the newest first
    #[command(after_help = "Example:\n  larder warm list --limit 20")]
    List {
        /// Jobs to show
        #[arg(long, default_value_t = 100)]
        limit: u16,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show one job, and what came of its URLs
    #[command(
        after_help = "Examples:\n  larder warm show 3-9a0c11de\n  larder warm show 3-9a0c11de --failed"
    )]
    Show {
        /// As `larder warm list` shows it
        id: String,
        /// Only the URLs that failed
        #[arg(long)]
        failed: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Cancel a job: what is stored stays, and is held no longer. Of a job that is done, release what it holds
    #[command(after_help = "Example:\n  larder warm cancel 3-9a0c11de")]
    Cancel {
        /// As `larder warm list` shows it
        id: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.jobs {
        Some(Jobs::List { limit, node }) => list(*limit, node),
        Some(Jobs::Show { id, failed, node }) => show(id, *failed, node),
        Some(Jobs::Cancel { id, node }) => cancel(id, node),
        None => warm(args),
    }
}

fn warm(args: &Args) -> anyhow::Result<ExitCode> {
    if args.urls.is_empty() && args.file.is_none() && args.sitemap.is_none() {
        eprintln!("larder: nothing to warm: name a URL, --file or --sitemap; see `larder warm --help`");
        return Ok(ExitCode::from(USAGE));
    }
    let order = args.order()?;
    let job = args.node.post("/v1/warmups", &order)?;
    if !args.wait {
        return shown(&args.node, &job, || {
            let id = job["id"].as_str().unwrap_or("?");
            format!("queued: {} URLs, {id}; see `larder warm show {id}`", job["total"])
        });
    }
    let id = job["id"].as_str().context("the node gave the job no id")?.to_owned();
    let ended = wait(&args.node, &id, job)?;
    shown(&args.node, &ended, || summary(&ended))?;
    conclude(&args.node, &id, &ended)
}

impl Args {
    fn order(&self) -> anyhow::Result<Value> {
        let mut urls = self.urls.clone();
        if let Some(file) = &self.file {
            urls.extend(lines_of(file)?);
        }
        let fields = self.header.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        let fields: Map<String, Value> = fields.collect();
        let mut order = json!({ "urls": urls, "refresh": self.refresh });
        let some = [
            ("site", self.site.clone().map(Value::from)),
            ("sitemap", self.sitemap.clone().map(Value::from)),
            ("encodings", (!self.encodings.is_empty()).then(|| self.encodings.clone().into())),
            ("headers", (!fields.is_empty()).then(|| json!([fields]))),
            ("rate", self.rate.map(Value::from)),
            ("concurrency", self.concurrency.map(Value::from)),
            ("hold", self.hold.clone().map(Value::from)),
        ];
        for (name, value) in some {
            if let Some(value) = value {
                order[name] = value;
            }
        }
        Ok(order)
    }
}

fn lines_of(file: &Path) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(MAX_LIST_BYTES + 1).read_to_string(&mut text)
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("{}", file.display()))?;
        opened.take(MAX_LIST_BYTES + 1).read_to_string(&mut text)
    };
    read.with_context(|| format!("{}", file.display()))?;
    if text.len() as u64 > MAX_LIST_BYTES {
        bail!("{}: the list is larger than {MAX_LIST_BYTES} bytes", file.display());
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let urls: Vec<String> = lines.map(str::to_owned).collect();
    if urls.is_empty() {
        bail!("{}: the list has no URL", file.display());
    }
    Ok(urls)
}

/// Looks at a job until it is over: a bar on a terminal, else a line from time to time.
fn wait(node: &NodeArgs, id: &str, mut job: Value) -> anyhow::Result<Value> {
    let is_terminal = std::io::stderr().is_terminal() && !node.json;
    let bar = ProgressBar::with_draw_target(job["total"].as_u64(), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} URLs  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    if !is_terminal {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let mut said = std::time::Instant::now();
    loop {
        let state = job["state"].as_str().unwrap_or_default();
        if matches!(state, "done" | "cancelled") {
            bar.finish_and_clear();
            return Ok(job);
        }
        bar.set_position(job["done"].as_u64().unwrap_or(0));
        bar.set_message(progress(&job));
        if !is_terminal && !node.json && said.elapsed() >= LINE_EVERY {
            said = std::time::Instant::now();
            print_line(&format!("{state}: {} of {} URLs, {}", job["done"], job["total"], progress(&job)))?;
        }
        std::thread::sleep(POLL);
        job = node.get(&format!("/v1/warmups/{id}"))?;
    }
}

fn progress(job: &Value) -> String {
    let left = job["seconds_left"].as_u64().unwrap_or(0);
    format!("{} failed, {}/s, {}, {left} s left", job["failed"], job["rate"], bytes(&job["bytes"]))
}

fn summary(job: &Value) -> String {
    let state = job["state"].as_str().unwrap_or("?");
    let outcomes = job["outcomes"].as_object().into_iter().flatten();
    let counts: Vec<String> = outcomes.map(|(name, count)| format!("{count} {name}")).collect();
    let seconds = job["seconds"].as_f64().unwrap_or(0.0);
    format!(
        "{state}: {} of {} URLs: {}; {} in {seconds:.1} s, {}/s; {}",
        job["done"],
        job["total"],
        counts.join(", "),
        bytes(&job["bytes"]),
        job["rate"],
        job["id"].as_str().unwrap_or("?"),
    )
}

/// The exit code of a job that was waited for, and why.
fn conclude(node: &NodeArgs, id: &str, job: &Value) -> anyhow::Result<ExitCode> {
    let failed = job["failed"].as_u64().unwrap_or(0);
    if job["state"] == "cancelled" {
        let by = job["cancelled_by"]["who"].as_str().unwrap_or("somebody");
        eprintln!("larder: the job was cancelled by {by}");
    }
    if failed > 0 {
        let rows = node.get(&format!("/v1/warmups/{id}/urls?outcome=failed&limit={SHOWN_FAILURES}"))?;
        let mut lines = format!("larder: {failed} of {} URLs failed:", job["total"]);
        for row in rows["items"].as_array().into_iter().flatten() {
            let text = |name: &str| row[name].as_str().unwrap_or("?");
            let _ = write!(lines, "\n  {}: {}", text("url"), text("reason"));
        }
        if failed > SHOWN_FAILURES as u64 {
            let _ = write!(lines, "\n  and more: `larder warm show {id} --failed`");
        }
        eprintln!("{lines}");
    }
    let is_good = failed == 0 && job["state"] == "done";
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(limit: u16, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let found = node.get(&format!("/v1/warmups?limit={limit}"))?;
    if node.json {
        return shown(node, &found, String::new);
    }
    for job in found["items"].as_array().into_iter().flatten() {
        print_line(&head(job))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(id: &str, failed: bool, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let id = checked(id)?;
    let mut job = node.get(&format!("/v1/warmups/{id}"))?;
    let filter = if failed { "&outcome=failed" } else { "" };
    let mut rows = Vec::new();
    let mut after = String::new();
    loop {
        let mut page = node.get(&format!("/v1/warmups/{id}/urls?limit=1000{filter}{after}"))?;
        if let Some(items) = page["items"].as_array_mut() {
            rows.append(items);
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    if node.json {
        job["urls"] = rows.into();
        return shown(node, &job, String::new);
    }
    print_line(&head(&job))?;
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let line = format!("  {:<12} {}  {}", text("outcome"), text("url"), text("reason"));
        print_line(line.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cancel(id: &str, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let job = node.delete(&format!("/v1/warmups/{}", checked(id)?))?;
    shown(node, &job, || summary(&job))
}

fn shown(node: &NodeArgs, value: &Value, line: impl FnOnce() -> String) -> anyhow::Result<ExitCode> {
    let text = if node.json { serde_json::to_string_pretty(value)? } else { line() };
    print_line(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn checked(id: &str) -> anyhow::Result<&str> {
    let keeps = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if id.is_empty() || !id.chars().all(keeps) {
        bail!("{id:?} is no id of a warm job; `larder warm list` shows them");
    }
    Ok(id)
}

/// One line: when, which, who, how far.
fn head(job: &Value) -> String {
    let text = |name: &str| job[name].as_str().unwrap_or("-").to_owned();
    let left = match job["seconds_left"].as_u64() {
        Some(secs) if secs > 0 => format!("  {secs} s left"),
        _ => String::new(),
    };
    format!(
        "{}  {}  {} from {} by {}  {}  {} of {} URLs, {} failed, {}{left}",
        text("created_at"),
        text("id"),
        text("who"),
        text("from"),
        text("source"),
        text("state"),
        job["done"],
        job["total"],
        job["failed"],
        bytes(&job["bytes"]),
    )
}
