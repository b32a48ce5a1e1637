//! The loads that neither wrk nor h2load makes: requests at a given rate, timed from when they were due (`pace`), and
//! handshakes (`full`, `resumed`). Prints one line of JSON; any wrong answer is an error, and then there are no figures.
//! `pace` prints `ready` before, when its connections are open; after either line it waits for one.

mod handshakes;
mod http1;
mod http2;
mod pace;
mod sys;
mod transport;

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use transport::Transport;

const USAGE: &str = "usage: bench-client pace|full|resumed --port PORT [--protocol plain|tls|h2] [--path PATH] [--body BYTES] \
                     [--connections N] [--streams N] [--rate N] [--seconds N]";

/// What went wrong, for people.
type Failure = String;

struct Arguments {
    mode: String,
    address: SocketAddr,
    protocol: String,
    path: String,
    connections: usize,
    streams: usize,
    rate: f64,
    duration: Duration,
    body_bytes: usize,
}

/// What a load saw.
struct Seen {
    /// Of each answer that was timed.
    microseconds: Vec<u64>,
    /// All of them.
    answers: usize,
    took: Duration,
    /// What is to stay open until the server's figures are taken.
    open: Vec<Transport>,
}

fn main() {
    let outcome = parse(std::env::args().skip(1)).and_then(|arguments| match arguments.mode.as_str() {
        "pace" => pace::run(&arguments),
        mode => handshakes::run(&arguments, mode == "resumed"),
    });
    match outcome {
        Ok(seen) => {
            let figures = figures(seen.microseconds, seen.answers, seen.took);
            if seen.open.is_empty() { println!("{figures}") } else { wait(&figures) }
        }
        Err(failure) => {
            eprintln!("bench-client: {failure}");
            std::process::exit(1);
        }
    }
}

/// Prints a line and waits for one, or for the end of the input: meanwhile the server's CPU time is read.
fn wait(line: &str) {
    println!("{line}");
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn figures(mut microseconds: Vec<u64>, answers: usize, took: Duration) -> String {
    microseconds.sort_unstable();
    let [p50, p99, p999] = [50.0, 99.0, 99.9].map(|percent| percentile(&microseconds, percent));
    let seconds = took.as_secs_f64();
    format!(r#"{{"answers":{answers},"seconds":{seconds},"p50":{p50},"p99":{p99},"p999":{p999}}}"#)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, Failure> {
    let mode =
        words.next().filter(|mode| ["pace", "full", "resumed"].contains(&mode.as_str())).ok_or(USAGE)?;
    let mut arguments = Arguments {
        mode,
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        protocol: "plain".to_owned(),
        path: "/".to_owned(),
        connections: 64,
        streams: 8,
        rate: 1000.0,
        duration: Duration::from_secs(2),
        body_bytes: 0,
    };
    while let Some(name) = words.next() {
        let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--port" => arguments.address.set_port(number(&name, &value)?),
            "--protocol" if ["plain", "tls", "h2"].contains(&value.as_str()) => arguments.protocol = value,
            "--path" => arguments.path = value,
            "--connections" => arguments.connections = number(&name, &value)?,
            "--streams" => arguments.streams = number(&name, &value)?,
            "--rate" => arguments.rate = number(&name, &value)?,
            "--seconds" => arguments.duration = Duration::from_secs(number(&name, &value)?),
            "--body" => arguments.body_bytes = number(&name, &value)?,
            _ => return Err(format!("unknown argument: {name} {value}\n{USAGE}")),
        }
    }
    if !(1.0..=1e7).contains(&arguments.rate) || arguments.connections == 0 || arguments.streams == 0 {
        return Err("connections, streams and rate must be positive".to_owned());
    }
    Ok(arguments)
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| format!("{name}: not a number: {value}"))
}

fn percentile(ordered: &[u64], percent: f64) -> u64 {
    let index = (ordered.len() as f64 * percent / 100.0) as usize;
    ordered.get(index.min(ordered.len().saturating_sub(1))).copied().unwrap_or(0)
}
