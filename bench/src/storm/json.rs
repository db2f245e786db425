//! The results as one JSON object, for `--json`. Field names are a promise to scripts.

use super::cli::{Options, UpgradeChoice};
use super::results::{Outcomes, Results, ServerResults, Stage, SwarmTally};
use hdrhistogram::Histogram;
use serde::Serialize;

/// The object. What belongs to a half that did not run here is null.
#[derive(Serialize)]
struct Object<'a> {
    delegations: u64,
    accepted: Option<u64>,
    completed: Option<u64>,
    released: Option<u64>,
    in_flight: Option<u64>,
    slots_leaked: Option<u64>,
    upgrades: Option<usize>,
    pause_ms_max: Option<f64>,
    callbacks_per_s: Option<f64>,
    answered_per_s: Option<f64>,
    latency_us: Option<Latency>,
    stages_us: Option<&'a [Stage]>,
    cpu_ns_per_callback: Option<f64>,
    user_ns_per_callback: Option<f64>,
    system_ns_per_callback: Option<f64>,
    calls_per_callback: Option<f64>,
    syscalls_per_callback: Option<f64>,
    sends_per_callback: Option<f64>,
    receives_per_callback: Option<f64>,
    wakes_per_callback: Option<f64>,
    idle_bytes_per_delegation: Option<f64>,
    backend: Option<&'a str>,
    backend_reason: Option<&'a str>,
    placement: Option<&'a [String]>,
    wall_s: f64,
    recall_s: Option<f64>,
    granted: Option<u64>,
    returned: Option<u64>,
    abandoned: Option<usize>,
    unsent: Option<usize>,
    drain_s: Option<f64>,
    outcomes: Option<&'a Outcomes>,
    peak_rss_bytes: Option<u64>,
    swarm: Option<Swarm<'a>>,
    options: Asked<'a>,
    kernel: &'a str,
    version: &'static str,
    interrupted: bool,
    ok: bool,
    discrepancies: &'a [String],
}

#[derive(Serialize)]
struct Latency {
    count: u64,
    min: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

#[derive(Serialize)]
struct Swarm<'a> {
    #[serde(flatten)]
    tally: &'a SwarmTally,
    cpu_ns_per_recall: f64,
}

/// The options as they were filled in.
#[derive(Serialize)]
struct Asked<'a> {
    clients: u32,
    session_slots: u32,
    cb_operations: u32,
    reactors: u32,
    rate: Option<u64>,
    window: Option<u64>,
    dead_clients: u32,
    slow_clients: u32,
    delay_clients: u32,
    cut_connections: u32,
    upgrade_to: &'a str,
    lease_s: f64,
    deadline_s: f64,
    drain_after_s: Option<f64>,
    seed: u64,
    #[serde(rename = "return")]
    returns: &'a str,
}

impl Latency {
    fn of(h: &Histogram<u64>) -> Latency {
        Latency {
            count: h.len(),
            min: h.min(),
            mean: round(h.mean(), 1),
            p50: h.value_at_quantile(0.5),
            p90: h.value_at_quantile(0.9),
            p99: h.value_at_quantile(0.99),
            p999: h.value_at_quantile(0.999),
            max: h.max(),
        }
    }
}

/// One line of JSON, with its newline.
pub fn render(results: &Results) -> Result<Vec<u8>, String> {
    let s = results.server.as_ref();
    let per = |amount: fn(&ServerResults) -> u64| s.map(|s| round(s.per_callback(amount(s)), 4));
    let o = &results.options;
    let object = Object {
        delegations: o.delegations,
        accepted: s.map(|s| s.accepted),
        completed: s.map(|s| s.completed),
        released: s.map(|s| s.released),
        in_flight: s.map(|s| s.in_flight),
        slots_leaked: s.map(|s| s.slots_leaked),
        upgrades: s.map(|s| s.upgrades.len()),
        pause_ms_max: s.map(|s| round(s.pause_max().as_secs_f64() * 1e3, 3)),
        callbacks_per_s: s.map(|s| round(s.callbacks_per_s(), 1)),
        answered_per_s: s.map(|s| round(s.answered_per_s(), 1)),
        latency_us: s.map(|s| Latency::of(&s.measured.latency)),
        stages_us: s.map(|s| s.stages.as_slice()),
        cpu_ns_per_callback: per(|s| s.cpu.total_ns()),
        user_ns_per_callback: per(|s| s.cpu.user_ns),
        system_ns_per_callback: per(|s| s.cpu.system_ns),
        calls_per_callback: per(|s| s.work.calls),
        syscalls_per_callback: per(|s| s.work.syscalls),
        sends_per_callback: per(|s| s.work.sends),
        receives_per_callback: per(|s| s.work.receives),
        wakes_per_callback: s.map(|s| round(s.per_callback(s.work.wakes), 6)),
        idle_bytes_per_delegation: s.map(|s| round(s.idle_bytes_per_delegation(), 2)),
        backend: s.map(|s| s.backend.as_str()),
        backend_reason: s.map(|s| s.backend_reason.as_str()),
        placement: s.map(|s| s.placement.as_slice()),
        wall_s: round(results.wall.as_secs_f64(), 3),
        recall_s: s.map(|s| round(s.recall.as_secs_f64(), 6)),
        granted: s.map(|s| s.granted),
        returned: s.map(|s| s.returned),
        abandoned: s.map(|s| s.drained.abandoned.len()),
        unsent: s.map(|s| s.drained.unsent.len()),
        drain_s: s.map(|s| round(s.drained.took.as_secs_f64(), 3)),
        outcomes: s.map(|s| &s.outcomes),
        peak_rss_bytes: s.map(|s| s.peak_rss_bytes),
        swarm: results.swarm.as_ref().map(|t| Swarm { tally: t, cpu_ns_per_recall: round(t.cpu_ns_per_recall(), 1) }),
        options: asked(o),
        kernel: &results.kernel,
        version: env!("CARGO_PKG_VERSION"),
        interrupted: results.interrupted,
        ok: results.discrepancies.is_empty() && !results.interrupted,
        discrepancies: &results.discrepancies,
    };
    let mut line = serde_json::to_vec(&object).map_err(|e| format!("the results cannot be written as JSON: {e}"))?;
    line.push(b'\n');
    Ok(line)
}

fn asked(o: &Options) -> Asked<'static> {
    Asked {
        clients: o.clients,
        session_slots: o.session_slots,
        cb_operations: o.cb_operations,
        reactors: o.reactors,
        rate: o.rate,
        window: o.window,
        dead_clients: o.dead_clients,
        slow_clients: o.slow_clients,
        delay_clients: o.delay_clients,
        cut_connections: o.cut_connections,
        upgrade_to: if o.upgrade_to == UpgradeChoice::Other { "other" } else { "same" },
        lease_s: o.lease.as_secs_f64(),
        deadline_s: o.deadline.as_secs_f64(),
        drain_after_s: o.drain_after.map(|after| after.as_secs_f64()),
        seed: o.seed,
        returns: if o.return_all { "all" } else { "none" },
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_promised_field_is_there() {
        let bytes = render(&sample::results()).unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(text.trim_end().lines().count(), 1);
        let v: Value = serde_json::from_str(text).unwrap();
        for name in [
            "delegations",
            "accepted",
            "completed",
            "released",
            "in_flight",
            "slots_leaked",
            "upgrades",
            "pause_ms_max",
            "callbacks_per_s",
            "cpu_ns_per_callback",
            "user_ns_per_callback",
            "calls_per_callback",
            "syscalls_per_callback",
            "sends_per_callback",
            "wakes_per_callback",
            "idle_bytes_per_delegation",
            "abandoned",
            "unsent",
            "drain_s",
            "wall_s",
        ] {
            assert!(v[name].is_number(), "{name}: {}", v[name]);
        }
        for name in ["p50", "p99", "p999", "max"] {
            assert!(v["latency_us"][name].is_number(), "{name}");
        }
        assert_eq!(v["stages_us"][0]["stage"], "wire");
        assert_eq!(v["stages_us"][0]["count"], 1000);
        assert_eq!(v["backend"], "uring");
        assert_eq!(v["cpu_ns_per_callback"], 1000.0);
        assert_eq!(v["idle_bytes_per_delegation"], 33.0);
        assert_eq!(v["swarm"]["recalled"], 1000);
        assert_eq!(v["options"]["seed"], 1);
        assert_eq!(v["ok"], true);
    }

    #[test]
    fn a_half_that_did_not_run_is_null() {
        let mut results = sample::results();
        results.server = None;
        let v: Value = serde_json::from_slice(&render(&results).unwrap()).unwrap();
        assert!(v["accepted"].is_null() && v["latency_us"].is_null());
        assert_eq!(v["delegations"], 1000);
    }
}
