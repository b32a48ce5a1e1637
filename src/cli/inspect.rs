//! `larder inspect`: what the cache holds for a URL.

use std::process::ExitCode;

use serde_json::Value;

use super::client::{NodeArgs, bytes};
use super::print_line;

/// Show what the cache holds for a URL: tier, variants, age, freshness, validators.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  larder inspect http://127.0.0.1:8080/css/shop.css
  larder inspect --json https://shop.example/ | jq '.items[].ttl'

Exit code: 0 when something is stored, 1 when nothing is.")]
pub(super) struct Args {
    /// The URL as a client would ask for it
    url: String,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let found = args.node.get(&format!("/v1/objects?url={}", encode(&args.url)))?;
    let items = found["items"].as_array().cloned().unwrap_or_default();
    if args.node.json {
        print_line(&serde_json::to_string_pretty(&found)?)?;
    } else if items.is_empty() {
        eprintln!(
            "larder: nothing is stored for {} (site {})",
            args.url,
            found["site"].as_str().unwrap_or("?")
        );
    } else {
        for item in &items {
            print_line(&render(item))?;
        }
    }
    Ok(if items.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn render(item: &Value) -> String {
    let mut lines = vec![item["key"].as_str().unwrap_or_default().to_owned()];
    let age = format!(
        "{}s, {} by {}",
        item["age"],
        item["state"].as_str().unwrap_or("?"),
        item["freshness"].as_str().unwrap_or("?")
    );
    let encodings = item["encodings"].as_array().into_iter().flatten();
    let encodings = encodings.map(|made| format!("{} {}", made[0].as_str().unwrap_or("?"), bytes(&made[1])));
    let encodings = encodings.collect::<Vec<_>>().join(", ");
    let number = |name: &str| item["slices"][name].as_u64();
    let slices = match (number("stored"), number("of")) {
        (Some(stored), Some(of)) => {
            format!("{stored} of {of}, of {} in all", bytes(&item["slices"]["length"])).into()
        }
        _ => Value::Null,
    };
    let rows = [
        ("tier", item["tier"].clone()),
        ("segments", item["segments"].clone()),
        ("status", item["status"].clone()),
        ("size", bytes(&item["size"]).into()),
        ("slices", slices),
        ("age", age.into()),
        ("ttl", format!("{}s", item["ttl"]).into()),
        ("type", item["content_type"].clone()),
        ("encoding", item["content_encoding"].clone()),
        ("kept as", Some(encodings).filter(|list| !list.is_empty()).map_or(Value::Null, Value::String)),
        ("etag", item["etag"].clone()),
        ("modified", item["last_modified"].clone()),
        ("vary", item["vary"].clone()),
        ("tags", item["tags"].clone()),
    ];
    for (name, value) in rows {
        let text = match &value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Array(list) if list.is_empty() => continue,
            other => other.to_string(),
        };
        lines.push(format!("  {name:<10}{text}"));
    }
    lines.join("\n")
}

/// A URL as the value of a query parameter.
fn encode(url: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/' | b':');
    url.bytes().map(|b| if keep(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}
