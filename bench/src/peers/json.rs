//! The results as one JSON object, for `--json`. Field names are a promise to scripts.

use super::job::{Figure, Job, Submit};
use super::rounds::{Host, Measured, Results, summary};
use super::rows::Better;
use crate::storm::resources;
use serde::Serialize;

/// The object.
#[derive(Serialize)]
struct Object {
    rows: Vec<JsonRow>,
    costs: Vec<Cost>,
    pairs: usize,
    window_ms: u64,
    quick: bool,
    kernel: String,
    cpus: u32,
    uring: bool,
    no_uring: Option<String>,
    version: &'static str,
}

/// One row. A value that there is not is null, and then `skipped` or `broken` says why.
#[derive(Serialize)]
struct JsonRow {
    row: &'static str,
    what: String,
    better: &'static str,
    value: Option<f64>,
    floor: Option<f64>,
    aim: Option<f64>,
    met_floor: Option<bool>,
    met_aim: Option<bool>,
    low: Option<f64>,
    high: Option<f64>,
    pairs: usize,
    skipped: Option<String>,
    broken: Option<String>,
}

/// What a callback costs in one of the loads: medians.
#[derive(Serialize)]
struct Cost {
    load: String,
    cpu_ns: f64,
    cpu_ns_low: f64,
    cpu_ns_high: f64,
    user_cpu_ns: f64,
    sends: f64,
    syscalls: Option<f64>,
    callbacks_per_s: f64,
}

fn row(measured: &Measured) -> JsonRow {
    let row = &measured.row;
    let summary = measured.summary();
    let value = summary.map(|s| s.0);
    JsonRow {
        row: row.name,
        what: row.what.clone(),
        better: if row.better == Better::Lower { "lower" } else { "higher" },
        value,
        floor: row.floor,
        aim: row.aim,
        met_floor: value.and_then(|value| row.meets(value, row.floor)),
        met_aim: value.and_then(|value| row.meets(value, row.aim)),
        low: summary.map(|s| s.1),
        high: summary.map(|s| s.2),
        pairs: measured.values.len(),
        skipped: measured.skipped.clone(),
        broken: measured.broken.clone(),
    }
}

/// The loads that tell what a callback costs a sender, and with nothing else to tell.
pub(super) fn is_plain(job: &Job) -> bool {
    matches!(job, Job::Load(l) if l.delegations == 0 && !l.count_allocations && l.outstanding == l.slots
        && l.reactors == 1 && l.submit == Submit::SameThread)
}

fn costs(results: &Results) -> Vec<Cost> {
    let of = |samples: &[super::job::Sample], figure: Figure| {
        summary(samples.iter().filter_map(|sample| sample.get(&figure).copied()))
    };
    let plain = results.samples.iter().filter(|(job, _)| is_plain(job));
    let cost = |(job, samples): (&Job, &Vec<super::job::Sample>)| {
        let cpu = of(samples, Figure::Cpu)?;
        Some(Cost {
            load: job.name(),
            cpu_ns: cpu.0,
            cpu_ns_low: cpu.1,
            cpu_ns_high: cpu.2,
            user_cpu_ns: of(samples, Figure::UserCpu)?.0,
            sends: of(samples, Figure::Sends)?.0,
            syscalls: of(samples, Figure::Syscalls).map(|s| s.0),
            callbacks_per_s: of(samples, Figure::Rate)?.0,
        })
    };
    plain.filter_map(cost).collect()
}

/// One line of JSON, with its newline.
pub fn render(results: &Results, pairs: usize, window_ms: u64, quick: bool, host: &Host) -> Result<Vec<u8>, String> {
    let object = Object {
        rows: results.rows.iter().map(row).collect(),
        costs: costs(results),
        pairs,
        window_ms,
        quick,
        kernel: resources::kernel(),
        cpus: resources::cpus(),
        uring: host.no_uring.is_none(),
        no_uring: host.no_uring.clone(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let mut line = serde_json::to_vec(&object).map_err(|e| format!("the results cannot be written as JSON: {e}"))?;
    line.push(b'\n');
    Ok(line)
}
