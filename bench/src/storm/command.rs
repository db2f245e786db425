//! The command itself: arguments in, a run, and out come the table, the files and the exit status.

use super::cli::{Args, Options};
use super::interrupt::Interrupt;
use super::output::Output;
use super::pairs::Verdict;
use super::results::Results;
use super::{hdr, json, pairs, plot, report, resources, run, swarm_half, verdict};
use clap::Parser;
use clap::error::ErrorKind;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::time::SystemTime;

/// Something was lost, doubled or leaked.
const EXIT_WRONG: u8 = 1;
/// The run could not start, or broke.
const EXIT_BROKEN: u8 = 2;
/// Ctrl-C: 128 and the number of SIGINT, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// What `storm` does.
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
    if args.swarm_role {
        return swarm_half::main();
    }
    match storm(args) {
        Ok(status) => ExitCode::from(status),
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> ExitCode {
    let _ = writeln!(stderr(), "storm: {why}");
    ExitCode::from(EXIT_BROKEN)
}

/// The first paragraph of clap's message on one line; its usage and hints are in `--help`.
pub(crate) fn one_line(message: &str) -> String {
    let paragraph: Vec<&str> = message.lines().map(str::trim).take_while(|l| !l.starts_with("Usage:")).collect();
    let text = paragraph.join(" ");
    let text = text.split("  ").next().unwrap_or_default().trim();
    format!("{}; see --help", text.trim_start_matches("error: "))
}

fn storm(args: Args) -> Result<u8, String> {
    let options = args.check(resources::cpus())?;
    let files = Files::open(&options)?;
    resources::prepare(&options)?;
    let interrupt = Interrupt::catch().map_err(|e| format!("signals cannot be handled: {e}"))?;
    if let Some(count) = options.pairs {
        return compare(&options, count, &interrupt);
    }
    let (mut results, recall_began) = run::run(&options, &interrupt)?;
    results.discrepancies = verdict::judge(&results);
    show(&results);
    files.write(&results, recall_began)?;
    Ok(match (results.interrupted, results.discrepancies.is_empty()) {
        (true, _) => EXIT_INTERRUPTED,
        (false, true) => 0,
        (false, false) => EXIT_WRONG,
    })
}

fn compare(options: &Options, count: u32, interrupt: &Interrupt) -> Result<u8, String> {
    Ok(match pairs::measure(options, count, interrupt)? {
        Verdict::Measured(text, within) => {
            let _ = stdout().write_all(text.as_bytes());
            if within { 0 } else { EXIT_WRONG }
        }
        Verdict::Wrong(discrepancies) => {
            let _ = writeln!(stderr(), "{}", discrepancies.join("\n"));
            EXIT_WRONG
        }
        Verdict::Interrupted => EXIT_INTERRUPTED,
    })
}

fn show(results: &Results) {
    let table = report::render(results);
    // A reader that has gone away must not turn a good run into a bad one.
    let _ = match results.options.json_on_stdout() {
        true => stderr().write_all(table.as_bytes()),
        false => stdout().write_all(table.as_bytes()),
    };
}

/// The files that were asked for.
struct Files {
    json: Option<Output>,
    plot: Option<Output>,
    hdr: Option<Output>,
    report_keys: Option<Output>,
}

impl Files {
    fn open(options: &Options) -> Result<Files, String> {
        let json = options.json.as_deref().filter(|_| !options.json_on_stdout());
        Ok(Files {
            json: json.map(|path| Output::open("--json", path)).transpose()?,
            plot: options.plot.as_deref().map(|path| Output::open("--plot", path)).transpose()?,
            hdr: options.hdr.as_deref().map(|path| Output::open("--hdr", path)).transpose()?,
            report_keys: options.report_keys.as_deref().map(|path| Output::open("--report-keys", path)).transpose()?,
        })
    }

    fn write(self, results: &Results, recall_began: SystemTime) -> Result<(), String> {
        if results.options.json_on_stdout() {
            let object = json::render(results)?;
            stdout().write_all(&object).map_err(|e| format!("stdout: {e}: the results are not on it"))?;
        }
        if let Some(file) = self.json {
            file.write(&json::render(results)?)?;
        }
        if let Some(file) = self.plot {
            file.write(plot::render(results)?.as_bytes())?;
        }
        if let (Some(file), Some(server)) = (self.hdr, &results.server) {
            file.write(&hdr::render(&server.measured, recall_began)?)?;
        }
        if let (Some(file), Some(server)) = (self.report_keys, &results.server) {
            file.write(report::keys(&server.drained).as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parser_says_fits_on_one_line() {
        let e = Args::try_parse_from(["storm", "--clients", "many"]).unwrap_err();
        let line = one_line(&e.to_string());
        assert!(line.starts_with("invalid value 'many' for '--clients <N>'") && line.ends_with("see --help"), "{line}");
        let e = Args::try_parse_from(["storm", "--cleints", "4"]).unwrap_err();
        let line = one_line(&e.to_string());
        assert!(line.contains("unexpected argument '--cleints'") && !line.contains('\n'), "{line}");
        let e = Args::try_parse_from(["storm", "--listen", "a:1", "--connect", "b:1"]).unwrap_err();
        assert!(one_line(&e.to_string()).contains("cannot be used with"), "{e}");
    }
}
