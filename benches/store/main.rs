//! What the store costs and how well it chooses.
//!
//! `cargo bench --bench store -- NAME`; the names, and what they show, stand in `benches/README.md`. Without a name all
//! of them run, one after the other. Exits with 1 when an aim is missed.

#![allow(missing_docs, unreachable_pub, reason = "a program, no library")]

mod latency;
mod policies;
mod process;
mod scale;
mod steady;
mod tiers;
mod trace;

#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod support;

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// The program's own allocator: memory an object is one of the figures.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A name and what it runs.
type Scenario = (&'static str, fn(&mut Aims));

const SCENARIOS: [Scenario; 5] = [
    ("scale", scale::run),
    ("steady", steady::run),
    ("tiers", tiers::run),
    ("stalls", latency::stalls),
    ("fills", latency::fills),
];

/// What was aimed at and whether it was met.
#[derive(Default)]
pub struct Aims {
    missed: u32,
}

impl Aims {
    /// Prints a figure beside its aim.
    pub fn check(&mut self, what: &str, is_met: bool) {
        println!("  {} {what}", if is_met { "met   " } else { "MISSED" });
        self.missed += u32::from(!is_met);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["measure-open", folder, objects] = arguments[..] {
        scale::measure(folder.as_ref(), objects.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let mut aims = Aims::default();
    let is_wanted = |name: &str| arguments.is_empty() || arguments.contains(&name);
    for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| is_wanted(name)) {
        println!("{name}");
        scenario(&mut aims);
        println!();
    }
    ExitCode::from(u8::from(aims.missed > 0))
}
