//! `larder explain`: how the node would treat a request, and why.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::client::{NodeArgs, field};
use super::print_line;

/// Ask the node how it would treat a request: site, rule, key, freshness, and why it is or is not stored.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  larder explain https://shop.example/css/shop.css
  larder explain https://shop.example/ -H 'Cookie: a=b' -H 'Accept-Language: de'

Where nothing stored would be used, the node asks the origin once and judges the answer.")]
pub(super) struct Args {
    /// The URL as a client would ask for it
    url: String,
    /// A field of the request; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    headers: Vec<(String, String)>,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in &args.headers {
        let values = headers.entry(name.clone()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(value.clone().into());
        }
    }
    let told = args.node.post("/v1/explain", &json!({ "url": args.url, "headers": headers }))?;
    if args.node.json {
        print_line(&serde_json::to_string_pretty(&told)?)?;
    } else {
        print_line(&render(&told))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(told: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![text(&told["url"])];
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {name:<10}{value}"));
        }
    };
    row("site", text(&told["site"]));
    row("rule", text(&told["rule"]));
    row("key", text(&told["key"]));
    row("result", format!("{}: {}", text(&told["result"]), text(&told["detail"])));
    let vary: Vec<String> = told["vary"].as_array().into_iter().flatten().map(text).collect();
    row("vary", vary.join(", "));
    if told["variants"].as_u64().unwrap_or(0) > 0 {
        row("variants", told["variants"].to_string());
    }
    if let Some(status) = told["origin_status"].as_u64() {
        row("origin", format!("answered {status}"));
    }
    let reason = told["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    match told["is_stored"].as_bool() {
        Some(true) => row("stored", "yes".into()),
        Some(false) => row("stored", format!("no{reason}")),
        None => row("stored", "unknown".into()),
    }
    let freshness = &told["freshness"];
    if let Some(source) = freshness["source"].as_str() {
        let field = freshness["field"].as_str().map(|field| format!(" ({field})")).unwrap_or_default();
        let (lifetime, ttl) = (&freshness["lifetime"], &freshness["ttl"]);
        row("freshness", format!("by {source}{field}: {lifetime}s, {ttl}s left"));
    }
    for advice in told["advice"].as_array().into_iter().flatten() {
        row("advice", text(advice));
    }
    lines.join("\n")
}
