//! A made-up clean run, for the tests of what is done with results.

use super::cli::Args;
use super::resources::CpuTime;
use super::results::{Measured, Outcomes, ReactorWork, Results, ServerResults, Stage, SwarmTally, histogram};
use clap::Parser;
use std::time::Duration;

/// A thousand delegations over four clients, all recalled and returned.
pub(crate) fn results() -> Results {
    let args = Args::parse_from(["storm", "--delegations", "1000", "--clients", "4"]);
    let options = args.check(2).unwrap_or_else(|e| panic!("{e}"));
    let server = ServerResults {
        backend: "uring".into(),
        backend_reason: "everything needed is there".into(),
        granted: 1000,
        accepted: 1000,
        started: 1000,
        completed: 1000,
        released: 1000,
        outcomes: Outcomes { ok: 1000, ..Outcomes::default() },
        returned: 1000,
        recall: Duration::from_millis(4),
        cpu: CpuTime { user_ns: 300_000, system_ns: 700_000 },
        work: ReactorWork { syscalls: 40, sends: 36, sent_bytes: 250_000, receives: 36, wakes: 2, calls: 1000 },
        idle_bytes: 33_000,
        idle_callbacks: 1000,
        peak_rss_bytes: 40 << 20,
        stages: vec![Stage::of("recall", "wire", &measured().latency)],
        measured: measured(),
        ..ServerResults::default()
    };
    let swarm = SwarmTally {
        granted: 1000,
        recalled: 1000,
        received: 1000,
        callbacks: 1000,
        returned: 1000,
        cpu: CpuTime { user_ns: 500_000, system_ns: 900_000 },
        peak_rss_bytes: 30 << 20,
        ..SwarmTally::default()
    };
    Results {
        options,
        kernel: "6.18.0".into(),
        server: Some(server),
        swarm: Some(swarm),
        wall: Duration::from_millis(70),
        interrupted: false,
        discrepancies: Vec::new(),
    }
}

/// Latencies with a tail, in two intervals, and a rate that ramps up, holds and falls.
fn measured() -> Measured {
    let mut latency = histogram();
    for i in 0..1000_u64 {
        let tail = if i % 100 == 99 { 5_000 } else { 0 };
        latency.saturating_record(100 + i * 2 + tail);
    }
    let progress = (0..=40_u32)
        .map(|i| {
            let x = f64::from(i) / 40.0;
            (Duration::from_micros(u64::from(i) * 100), (1000.0 * x * x * (3.0 - 2.0 * x)) as u64)
        })
        .collect();
    let half = Duration::from_millis(2);
    let intervals = vec![(Duration::ZERO, half, latency.clone()), (half, half, histogram())];
    Measured { latency, intervals, progress, last_answer: 2 * half }
}
