//! The page for the book: the table with the command of each row, and the plots.

use super::cli::Options;
use super::job::Figure;
use super::json::is_plain;
use super::plot;
use super::rounds::{Measured, Results};
use super::rows::Scale;
use super::table::{bound, number, of, verdict};
use crate::storm::resources;
use std::fmt::Write as _;

/// The page's file name.
pub const NAME: &str = "measured.md";

const COMMAND: &str = "cargo run --release --bin peers";

/// The page.
pub fn render(results: &Results, options: &Options) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(text, "{}", head(options));
    let _ = writeln!(text, "| row | median | low to high | floor | aim | |\n|---|---|---|---|---|---|");
    results.rows.iter().for_each(|measured| line(&mut text, measured));
    let _ = write!(text, "\n![rows against floor and aim]({})\n\n## What the rows are\n\n", plot::ROWS_NAME);
    let _ = writeln!(text, "| row | what | command |\n|---|---|---|");
    for Measured { row, .. } in &results.rows {
        let quick = if options.scale == Scale::Full { "" } else { "--quick " };
        let _ = writeln!(text, "| {} | {} | `{COMMAND} -- {quick}--rows {}` |", row.name, row.what, row.name);
    }
    let _ = writeln!(
        text,
        "\n## What a callback costs each sender\n\n| connections x slots | CPU ns, median | low to high | sends |\n|---|---|---|---|"
    );
    for job in results.samples.keys().filter(|job| is_plain(job)) {
        let [Some(cpu), Some(sends)] = [Figure::Cpu, Figure::Sends].map(|f| of(results, job, f)) else { continue };
        let range = format!("{:.0} to {:.0}", cpu.1, cpu.2);
        let _ = writeln!(text, "| {} | {:.0} | {range} | {} |", job.name(), cpu.0, number(sends.0));
    }
    let _ = writeln!(text, "\n![CPU of one callback]({})", plot::COSTS_NAME);
    text
}

fn head(options: &Options) -> String {
    let version = resources::kernel_version();
    let command = match options.scale {
        Scale::Full => COMMAND.to_owned(),
        _ => format!("{COMMAND} -- --quick"),
    };
    format!(
        "# Measured against the peers\n\nWritten by `{command}`; [Measuring](../performance.md) says how and why. Ratios of what \
         was measured in turn: {} rounds, loads of {} ms each, {} CPUs, Linux {version}.\n\n",
        options.pairs,
        options.window.as_millis(),
        resources::cpus(),
    )
}

fn line(text: &mut String, measured: &Measured) {
    let row = &measured.row;
    let (value, range) = match measured.summary() {
        Some((value, low, high)) => (number(value), format!("{} to {}", number(low), number(high))),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let why = measured.skipped.as_ref().or(measured.broken.as_ref()).map(|why| format!(": {why}")).unwrap_or_default();
    let (floor, aim, verdict) = (bound(row.floor), bound(row.aim), verdict(measured));
    let _ = writeln!(text, "| {} | {value} | {range} | {floor} | {aim} | {verdict}{why} |", row.name);
}
