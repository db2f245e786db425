//! Plays simulations: `sim --seed N` one of them, `sim --seed N --seeds K` those of the seeds N to N+K-1,
//! `sim --input FILE` that of an input of the fuzz target.
#![forbid(unsafe_code)]

use clap::Parser;
use ringback_fuzz::sim::{self, Options, Report};
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Simulates a server that links ringback, its network and its clients, and checks that every callback ends exactly
/// once, whatever happens. Everything that happens follows from the seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How many seeds to play
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Callbacks to run in each simulation, where they can run [default: as the seed says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    callbacks: Option<u64>,
    /// Simulations played at the same time [default: the processors there are]
    #[arg(long, short, value_name = "J", value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// Most clients lie, whatever the seed says
    #[arg(long)]
    hostile: bool,
    /// All clients are of minor version 0, whatever the seed says
    #[arg(long)]
    minor0: bool,
    /// Play an input of the fuzz target `simulator` instead of seeds
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "callbacks", "minor0"])]
    input: Option<PathBuf>,
    /// Print everything that happens, on stderr; one simulation at a time
    #[arg(long)]
    trace: bool,
}

/// Time between two looks at how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// What became of all simulations so far.
#[derive(Default)]
struct Totals {
    seeds: u64,
    failed: u64,
    report: Report,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.seed.checked_add(arguments.seeds - 1).is_none() {
        eprintln!("error: seeds are numbers of 64 bits: {} from {} on is too many", arguments.seeds, arguments.seed);
        return ExitCode::from(2);
    }
    sim::keep_panics_quiet();
    let begin = Instant::now();
    let totals = match &arguments.input {
        None => play(&arguments),
        Some(file) => match std::fs::read(file) {
            Ok(input) => play_input(file, &input, &arguments),
            Err(error) => {
                eprintln!("error: cannot read {}: {error}", file.display());
                return ExitCode::from(2);
            }
        },
    };
    let (report, seconds) = (&totals.report, begin.elapsed().as_secs_f64());
    print!("{}", report.coverage);
    println!(
        "{} callback runs, {} records, {} turns, {} simulated seconds in {seconds:.1} s",
        report.runs,
        report.records,
        report.turns,
        report.simulated_ns / 1_000_000_000
    );
    println!("{} seeds, {} failed", totals.seeds, totals.failed);
    if totals.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Plays the simulation whose decisions are the bytes of a file.
fn play_input(file: &Path, input: &[u8], arguments: &Arguments) -> Totals {
    let mut totals = Totals::default();
    let report = sim::run_input(input, &arguments.options());
    totals.add(&report, || format!("--input {}", file.display()), arguments);
    totals
}

/// Plays the seeds, each job the next one that nobody has played.
fn play(arguments: &Arguments) -> Totals {
    let options = arguments.options();
    let processors = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let jobs = if arguments.trace { 1 } else { arguments.jobs.unwrap_or(processors).min(arguments.seeds) };
    let next = AtomicU64::new(0);
    let (sender, reports) = mpsc::channel();
    let mut totals = Totals::default();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (next, sender, options) = (&next, sender.clone(), &options);
            scope.spawn(move || {
                while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|at| *at < arguments.seeds) {
                    let seed = arguments.seed + seed;
                    // Nobody listens any more only when the program ends.
                    let _ = sender.send((seed, sim::run(seed, options)));
                }
            });
        }
        drop(sender);
        let mut told = Instant::now();
        for (seed, report) in reports {
            totals.add(&report, || format!("--seed {seed}"), arguments);
            if stderr().is_terminal() && told.elapsed() > PROGRESS {
                told = Instant::now();
                let (seeds, failed, runs) = (totals.seeds, totals.failed, totals.report.runs);
                eprint!("\r{seeds} of {} seeds, {failed} failed, {runs} callback runs ", arguments.seeds);
            }
        }
    });
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    totals
}

impl Arguments {
    fn options(&self) -> Options {
        let (trace, callbacks, hostile) = (self.trace, self.callbacks.unwrap_or(0), self.hostile);
        Options { trace, callbacks, hostile, minor0: self.minor0, ..Options::default() }
    }
}

impl Totals {
    /// Adds what became of one simulation; `which`: the argument that plays it again.
    fn add(&mut self, report: &Report, which: impl FnOnce() -> String, arguments: &Arguments) {
        self.seeds += 1;
        self.report.add(report);
        if report.failures.is_empty() {
            return;
        }
        self.failed += 1;
        let callbacks = arguments.callbacks.map_or_else(String::new, |callbacks| format!(" --callbacks {callbacks}"));
        let hostile = if arguments.hostile { " --hostile" } else { "" };
        let minor0 = if arguments.minor0 { " --minor0" } else { "" };
        eprintln!("failed: cargo run --release --bin sim -- {}{callbacks}{hostile}{minor0} --trace", which());
        for failure in &report.failures {
            eprintln!("    {failure}");
        }
    }
}
