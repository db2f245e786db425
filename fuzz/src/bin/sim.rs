//! Plays simulations: `sim --seed N` one of them, `sim --seed N --seeds K` those of the seeds N to N+K-1.
#![forbid(unsafe_code)]

use clap::Parser;
use ringback_fuzz::sim::{self, Options, Plant};
use std::process::ExitCode;
use std::time::Instant;

/// Simulates a server that links ringback, its network and its clients, and checks that every callback ends exactly
/// once, whatever happens. Everything that happens follows from the seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How many seeds to play, one after the other
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Print everything that happens, on stderr
    #[arg(long)]
    trace: bool,
}

/// Seconds between two lines that say how far it is.
const PROGRESS_SECONDS: u64 = 5;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(end) = arguments.seed.checked_add(arguments.seeds - 1) else {
        eprintln!("error: seeds are numbers of 64 bits: {} from {} on is too many", arguments.seeds, arguments.seed);
        return ExitCode::from(2);
    };
    sim::keep_panics_quiet();
    let options = Options { trace: arguments.trace, plant: Plant::Nothing };
    let begin = Instant::now();
    let (mut failed, mut runs, mut records, mut turns, mut simulated_s) = (0u64, 0, 0, 0, 0.0);
    let mut told = 0;
    for seed in arguments.seed..=end {
        let report = sim::run(seed, &options);
        runs += report.runs;
        records += report.records;
        turns += report.turns;
        simulated_s += report.simulated_ns as f64 / 1e9;
        if !report.failures.is_empty() {
            failed += 1;
            eprintln!("seed {seed} failed: cargo run --release --bin sim -- --seed {seed} --trace");
            for failure in &report.failures {
                eprintln!("    {failure}");
            }
        }
        let seconds = begin.elapsed().as_secs();
        if seconds / PROGRESS_SECONDS > told {
            told = seconds / PROGRESS_SECONDS;
            eprintln!(
                "{} of {} seeds, {failed} failed, {runs} callback runs",
                seed - arguments.seed + 1,
                arguments.seeds
            );
        }
    }
    eprintln!(
        "{runs} callback runs, {records} records, {turns} turns, {simulated_s:.0} simulated seconds in {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    println!("{} seeds, {failed} failed", arguments.seeds);
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
