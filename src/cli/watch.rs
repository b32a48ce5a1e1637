//! `larder status --watch` on a terminal: what happens now, in place, once a second.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{NodeArgs, bytes};
use super::status::{duration, origins};

const EVERY: Duration = Duration::from_secs(1);
/// Seconds that the graphs show.
const SHOWN: usize = 60;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const BAR: usize = 24;
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Shows it until the reader has enough (Ctrl-C). A node that does not answer is asked again: it may be restarted.
pub(super) fn watch(node: &NodeArgs) -> anyhow::Result<()> {
    let mut last = (Instant::now(), node.get("/v1/status")?);
    let mut view = View::default();
    draw(&view.lines(&last.1, &last.1, 1.0))?;
    loop {
        std::thread::sleep(EVERY.saturating_sub(last.0.elapsed()));
        match node.get("/v1/status") {
            Ok(status) => {
                let now = (Instant::now(), status);
                let secs = now.0.duration_since(last.0).as_secs_f64().max(0.001);
                draw(&view.lines(&last.1, &now.1, secs))?;
                last = now;
            }
            Err(error) => {
                let since = last.0.elapsed().as_secs();
                let mut lines = vec![format!("{RED}no answer for {since} s{PLAIN}: {error}"), String::new()];
                lines.extend(view.lines(&last.1, &last.1, 1.0));
                draw(&lines)?;
                std::thread::sleep(EVERY);
            }
        }
    }
}

/// From the top of the screen, each line over the one before: nothing flickers.
fn draw(lines: &[String]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let width = rustix::termios::tcgetwinsize(&out).map_or(100, |size| usize::from(size.ws_col.max(20)));
    let mut text = String::from("\x1b[H");
    for line in lines {
        let _ = write!(text, "{}{PLAIN}\x1b[K\r\n", cut(line, width));
    }
    text.push_str("\x1b[J");
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// At most so many characters; what sets a colour takes no room.
fn cut(line: &str, width: usize) -> String {
    let (mut shown, mut room, mut is_escape) = (String::new(), width, false);
    for c in line.chars() {
        is_escape |= c == '\x1b';
        if !is_escape {
            if room == 0 {
                continue;
            }
            room -= 1;
        }
        shown.push(c);
        is_escape &= c != 'm';
    }
    shown
}

/// What was shown before.
#[derive(Default)]
struct View {
    rates: VecDeque<f64>,
    ratios: VecDeque<f64>,
}

impl View {
    fn lines(&mut self, before: &Value, now: &Value, secs: f64) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let requests = Requests::between(before, now);
        let rate = requests.all as f64 / secs;
        remember(&mut self.rates, rate);
        remember(&mut self.ratios, requests.ratio().unwrap_or(0.0));
        let per_second = |pointer: &str| delta(before, now, pointer) as f64 / secs;
        let state = text(&now["state"]);
        let colour = if state == "running" { "" } else { RED };
        let percent =
            |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{:.1} %", ratio * 100.0));
        let sent = bytes(&Value::from(per_second("/response_bytes")));
        let mut lines = vec![
            format!(
                "{BOLD}{}{PLAIN}  {}  {colour}{state}{PLAIN}  up {}",
                text(&now["node"]),
                text(&now["version"]),
                duration(now["uptime_seconds"].as_u64().unwrap_or(0)),
            ),
            String::new(),
            format!("requests/s  {:>9}  {}", short(rate), graph(&self.rates, None)),
            format!(
                "hit ratio   {:>9}  {}  all time {}",
                percent(requests.ratio()),
                graph(&self.ratios, Some(1.0)),
                percent(now["hit_ratio"].as_f64())
            ),
            format!("sent        {sent:>9}/s   connections {}", number(now, "/connections")),
            format!("results     {}", requests.by_result(secs)),
            format!("origin      {} fetches under way", number(now, "/fetches_in_flight")),
            String::new(),
        ];
        lines.extend(tiers(now));
        lines.push(format!(
            "purges      {} in the log{}",
            number(now, "/purges/log_entries"),
            if number(now, "/purges/pending_bytes") > 0 { "   not durable: the disk fails" } else { "" }
        ));
        let dropped = delta(before, now, "/access_log_dropped");
        if dropped > 0 {
            lines.push(format!("{RED}access log  {dropped} lines dropped{PLAIN}"));
        }
        lines.push(String::new());
        lines.extend(origins(now).into_iter().map(
            |(is_up, line)| {
                if is_up { line } else { format!("{RED}{line}{PLAIN}") }
            },
        ));
        lines
    }
}

fn remember(values: &mut VecDeque<f64>, value: f64) {
    if values.len() == SHOWN {
        values.pop_front();
    }
    values.push_back(value);
}

fn number(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// A restart begins counting anew, which is no negative rate.
fn delta(before: &Value, now: &Value, pointer: &str) -> u64 {
    number(now, pointer).saturating_sub(number(before, pointer))
}

struct Requests {
    all: u64,
    by_result: Vec<(String, u64)>,
}

impl Requests {
    fn between(before: &Value, now: &Value) -> Self {
        let results = now["requests"].as_object().into_iter().flatten();
        let by_result: Vec<(String, u64)> = results
            .map(|(name, _)| (name.clone(), delta(before, now, &format!("/requests/{name}"))))
            .collect();
        Self { all: by_result.iter().map(|(_, count)| count).sum(), by_result }
    }

    fn of(&self, names: &[&str]) -> u64 {
        self.by_result.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(_, n)| n).sum()
    }

    /// As `/v1/status` counts it; `None`: nothing that could be a hit.
    fn ratio(&self) -> Option<f64> {
        let hits = self.of(&["hit", "hit_stale", "collapsed", "revalidated"]);
        let all = hits + self.of(&["miss"]);
        (all > 0).then(|| hits as f64 / all as f64)
    }

    fn by_result(&self, secs: f64) -> String {
        let some = self.by_result.iter().filter(|(_, count)| *count > 0);
        let mut shown: Vec<String> =
            some.map(|(name, count)| format!("{name} {}/s", short(*count as f64 / secs))).collect();
        if shown.is_empty() {
            shown.push("none".into());
        }
        shown.join("   ")
    }
}

fn tiers(now: &Value) -> Vec<String> {
    let tier = |name: &str, used: &str, capacity: &str, objects: &str| {
        let (is, most) = (number(now, used), number(now, capacity));
        let size = |n: u64| bytes(&Value::from(n));
        let share = if most > 0 { is as f64 / most as f64 } else { 0.0 };
        let counted = number(now, objects);
        format!("{name:<12}{}  {:>9} of {:<9}  {counted} objects", bar(share), size(is), size(most))
    };
    let memory =
        tier("memory", "/store/memory/bytes", "/store/memory/capacity_bytes", "/store/memory/objects");
    let medium = now.pointer("/store/log/medium").and_then(Value::as_str).unwrap_or("disk");
    let log = tier(medium, "/store/log/file_bytes", "/store/log/capacity_bytes", "/store/log/objects");
    let written = bytes(&Value::from(number(now, "/store/log/write_bytes_per_second")));
    let mut lines = vec![memory, format!("{log}   {written}/s written")];
    if let Some(trouble) = now.pointer("/store/log/trouble").and_then(Value::as_str) {
        lines.push(format!("{RED}the disk tier {trouble}{PLAIN}"));
    }
    lines
}

/// `12345` as `12.3k`.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e4 => format!("{:.1}k", n / 1e3),
        n if n >= 10.0 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    }
}

fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

/// The last minute, up to `top` or the highest value.
fn graph(values: &VecDeque<f64>, top: Option<f64>) -> String {
    let top = top.unwrap_or_else(|| values.iter().copied().fold(0.0, f64::max));
    let block = |value: &f64| {
        let share = if top > 0.0 { value / top } else { 0.0 };
        BLOCKS[((share * 7.0).round() as usize).min(7)]
    };
    values.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(hits: u64, misses: u64, sent: u64) -> Value {
        json!({
            "node": "edge-1", "version": "1.0", "state": "running", "uptime_seconds": 61,
            "requests": { "hit": hits, "miss": misses, "pass": 0 }, "hit_ratio": 0.5, "response_bytes": sent,
            "connections": 7, "fetches_in_flight": 2,
            "store": {
                "memory": { "bytes": 512, "capacity_bytes": 1024, "objects": 3 },
                "log": { "medium": "disk", "file_bytes": 0, "capacity_bytes": 1024, "objects": 4 },
            },
            "origins": [{ "name": "shop", "servers": [
                { "server": "http://a", "up": false, "in_flight": 1, "last_error": "refused" },
            ]}],
        })
    }

    #[test]
    fn rates_are_of_the_last_moment() {
        let mut view = View::default();
        let (before, now) = (status(100, 100, 0), status(190, 110, 2048));
        let text = view.lines(&before, &now, 2.0).join("\n");
        for expected in [
            "requests/s         50",
            "90.0 %",
            "all time 50.0 %",
            "1.0 KiB/s",
            "hit 45/s   miss 5.0/s",
            "████████████░░░░░░░░░░░░",
            "3 objects",
            "\x1b[31morigin",
            "refused",
        ] {
            assert!(text.contains(expected), "{expected}:\n{text}");
        }
        // A restart counts from 0 again.
        let text = view.lines(&now, &status(5, 0, 0), 1.0).join("\n");
        assert!(text.contains("requests/s        0.0"), "{text}");
    }

    #[test]
    fn lines_fit_and_colours_take_no_room() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("\x1b[31mabcdef\x1b[0m", 3), "\x1b[31mabc\x1b[0m");
        assert_eq!((bar(2.0).chars().count(), bar(0.0).chars().count()), (BAR, BAR));
        assert_eq!(graph(&VecDeque::from([0.0, 5.0, 10.0]), None), "▁▅█");
        assert_eq!(
            (short(0.5), short(999.6), short(12_345.0)),
            ("0.5".into(), "1000".into(), "12.3k".into())
        );
    }
}
