//! The command itself: arguments in, measurements, and out come the table, the files and the exit status.

use super::cli::{Args, Options};
use super::job::{Figure, Job, Request, Sample};
use super::rounds::{self, Host, Results, Step};
use super::rows::Scale;
use super::{capacity, json, micro, page, plot, subject, swarm, table};
use crate::storm::command::one_line;
use crate::storm::output::Output;
use clap::Parser;
use clap::error::ErrorKind;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;

/// A row broke, or missed its floor where that was to be checked.
const EXIT_WRONG: u8 = 1;
/// The command could not start, or its results could not be written.
const EXIT_BROKEN: u8 = 2;

/// Measurements behind each cost that a capacity is reckoned with: these are no ratios, which noise would spoil.
const CAPACITY_PAIRS_MAX: usize = 5;

/// What `peers` does.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // A closed stdout: nobody reads the help.
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
        Err(e) => return fail(&one_line(&e.to_string())),
    };
    if let Some(config) = &args.swarm_role {
        return answer(parse(config).and_then(|config: swarm::Config| {
            config.cpu.into_iter().for_each(subject::pin);
            swarm::run(&config).map_err(|e| format!("the swarm: {e}"))
        }));
    }
    if let Some(request) = &args.measure_role {
        return answer(parse(request).and_then(|request| measure(&request)));
    }
    match args.check().and_then(peers) {
        Ok(status) => ExitCode::from(status),
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> ExitCode {
    let _ = writeln!(stderr(), "peers: {why}");
    ExitCode::from(EXIT_BROKEN)
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| format!("this option is for the command's own processes: {e}"))
}

/// The end of a child: its answer on stdout. It does not outlive its parent.
fn answer<T: Serialize>(answer: Result<T, String>) -> ExitCode {
    let line = serde_json::to_string(&answer).unwrap_or_default();
    match writeln!(stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn measure(request: &Request) -> Result<Sample, String> {
    // Without it, a measurement whose parent was killed ends by itself, but later.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    match request.job {
        Job::Load(load) => subject::load(&load, request.window),
        // A percentile needs more recalls than a mean does callbacks.
        Job::Latency(subject) => subject::latency(subject, 2 * request.window),
        Job::NullCall => Ok(micro::null_call()),
        Job::Submit => micro::submit(),
        Job::Churn { entries } => micro::churn(entries),
        Job::Idle { entries } => micro::idle(entries),
        Job::Clients { clients } => micro::clients(clients),
    }
}

fn peers(options: Options) -> Result<u8, String> {
    if options.list {
        let _ = stdout().write_all(table::list(&options.rows).as_bytes());
        return Ok(0);
    }
    if let Some(plan) = options.capacity {
        // Raises the limit on descriptors, too.
        let _ = Host::here();
        let text = capacity::plan(plan, options.pairs.min(CAPACITY_PAIRS_MAX), options.window)?;
        return stdout().write_all(text.as_bytes()).map(|()| 0).map_err(|e| format!("stdout: {e}"));
    }
    // What cannot be written is refused before an hour of measuring.
    let json = options.json.as_deref().filter(|_| !options.json_on_stdout());
    let json = json.map(|path| Output::open("--json", path)).transpose()?;
    let files = options.out.as_deref().map(Files::open).transpose()?;
    let host = Host::here();
    let mut watch = Watch::default();
    let results =
        rounds::measure(options.rows.clone(), options.pairs, options.window, &host, &mut |step| watch.see(&step));
    watch.end();
    show(&options, &results);
    let window_ms = options.window.as_millis() as u64;
    let quick = options.scale != Scale::Full;
    let object = json::render(&results, options.pairs, window_ms, quick, &host)?;
    if options.json_on_stdout() {
        stdout().write_all(&object).map_err(|e| format!("stdout: {e}: the results are not on it"))?;
    }
    json.map(|file| file.write(&object)).transpose()?;
    files.map(|files| files.write(&options, &results)).transpose()?;
    let missed = |m: &rounds::Measured| m.summary().and_then(|s| m.row.meets(s.0, m.row.floor)) == Some(false);
    let wrong = results.rows.iter().any(|m| m.broken.is_some() || (options.check && missed(m)));
    Ok(if wrong { EXIT_WRONG } else { 0 })
}

fn show(options: &Options, results: &Results) {
    let table = table::render(results);
    // A reader that has gone away must not turn a good run into a bad one.
    let _ = match options.json_on_stdout() {
        true => stderr().write_all(table.as_bytes()),
        false => stdout().write_all(table.as_bytes()),
    };
}

/// The page and its plots.
struct Files {
    page: Output,
    rows: Output,
    costs: Output,
}

impl Files {
    fn open(directory: &Path) -> Result<Files, String> {
        std::fs::create_dir_all(directory)
            .map_err(|e| format!("--out {}: cannot be made: {e}; name another directory", directory.display()))?;
        let open = |name: &str| Output::open("--out", &directory.join(name));
        Ok(Files { page: open(page::NAME)?, rows: open(plot::ROWS_NAME)?, costs: open(plot::COSTS_NAME)? })
    }

    fn write(self, options: &Options, results: &Results) -> Result<(), String> {
        self.page.write(page::render(results, options).as_bytes())?;
        self.rows.write(plot::rows(results)?.as_bytes())?;
        self.costs.write(plot::costs(results)?.as_bytes())
    }
}

/// Progress on stderr: a bar, or a line for each measurement where stderr is no terminal.
#[derive(Default)]
struct Watch {
    bar: Option<ProgressBar>,
    planned: usize,
    over: usize,
}

impl Watch {
    fn see(&mut self, step: &Step<'_>) {
        match step {
            Step::Planned(count) => {
                self.planned = *count;
                self.bar = stderr().is_terminal().then(|| bar(*count as u64));
            }
            Step::Begun(job) => self.bar.iter().for_each(|bar| bar.set_message(job.name())),
            Step::Over(job, sample) => {
                self.over += 1;
                let line = format!("{} of {}: {}: {}", self.over, self.planned, job.name(), short(sample));
                match &self.bar {
                    Some(bar) => bar.inc(1),
                    // Progress is a courtesy: a closed stderr must not end the run.
                    None => _ = writeln!(stderr(), "{line}"),
                }
            }
        }
    }

    fn end(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn bar(count: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:32}] {pos} of {len}, {eta} left: {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::stderr()).with_style(style)
}

fn short(sample: &Result<Sample, String>) -> String {
    match sample {
        Err(why) => why.clone(),
        Ok(sample) => [(Figure::Cpu, "ns CPU"), (Figure::P50, "ns median"), (Figure::Own, "")]
            .iter()
            .find_map(|(figure, unit)| {
                Some(format!("{} {unit}", table::number(*sample.get(figure)?)).trim().to_owned())
            })
            .unwrap_or_default(),
    }
}
