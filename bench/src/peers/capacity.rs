//! Capacity planning: what so many delegations of so many clients need, from what a callback and an entry cost here.

use super::job::{Figure, Job, Load, Request, Sample, Subject};
use super::rounds::{one, summary, with_patience};
use super::wire;
use crate::storm::resources;
use ringback::CallbackKey;
use std::fmt::Write as _;
use std::time::Duration;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Delegations, one callback entry each.
    pub delegations: u64,
    /// Clients, each with a session and a connection.
    pub clients: u64,
    /// Cores, each with a reactor.
    pub cores: u64,
}

// What is assumed, for it cannot be measured here.
/// Time from a call to its reply.
const ROUND_TRIP: Duration = Duration::from_micros(200);
/// A network card.
const LINK_BITS_PER_S: f64 = 25e9;
const MACHINE_BYTES: f64 = (256u64 << 30) as f64;
/// Linux, fs.nr_open: the most that a process may have.
const DESCRIPTORS: f64 = 1_048_576.0;
/// The default lease: within it everything should have been recalled.
const LEASE: Duration = Duration::from_secs(90);
/// Session slots of a Linux client's backchannel.
const SLOTS: f64 = 16.0;
/// For each recall since the oldest whose return is awaited (docs/src/limits.md).
const RETURN_BYTES: f64 = 12.0;
/// TCP, IP and Ethernet headers are shared by the callbacks of a segment: this much is added to their bytes.
const HEADERS: f64 = 1.05;

const ENTRIES: u32 = 1_000_000;
const CLIENTS: u32 = 1_000;

impl Plan {
    /// Reads `DELEGATIONS,CLIENTS,CORES`.
    pub fn parse(text: &str) -> Result<Plan, String> {
        let numbers: Option<Vec<u64>> = text.split(',').map(|n| n.replace('_', "").parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[delegations, clients, cores]) if delegations >= clients && clients > 0 && cores > 0 => {
                Ok(Plan { delegations, clients, cores })
            }
            _ => Err(format!("{text} is not DELEGATIONS,CLIENTS,CORES, such as 100000000,100000,64")),
        }
    }
}

/// What things cost here.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Costs {
    entry_bytes: f64,
    client_bytes: f64,
    /// Many callbacks for each of a few clients; a few for each of many; one for each of many.
    dense_ns: f64,
    spread_ns: f64,
    single_ns: f64,
}

fn jobs() -> [(Job, Figure); 5] {
    let load = |connections, slots| (Job::Load(Load::new(Subject::Ringback, connections, slots)), Figure::Cpu);
    [
        (Job::Idle { entries: ENTRIES }, Figure::Own),
        (Job::Clients { clients: CLIENTS }, Figure::Own),
        load(64, 32),
        load(1024, 8),
        load(1024, 1),
    ]
}

impl Costs {
    /// The medians of so many measurements, made in turn.
    fn measure(pairs: usize, window: Duration) -> Result<Costs, String> {
        let mut samples: [Vec<f64>; 5] = Default::default();
        for _ in 0..pairs {
            for ((job, figure), values) in jobs().iter().zip(&mut samples) {
                let sample: Sample =
                    with_patience(|| one(Request { job: *job, window })).map_err(|e| format!("{}: {e}", job.name()))?;
                values.extend(sample.get(figure));
            }
        }
        let median = |values: &Vec<f64>| summary(values.iter().copied()).map_or(f64::NAN, |s| s.0);
        let [entry_bytes, client_bytes, dense_ns, spread_ns, single_ns] = samples.each_ref().map(median);
        Ok(Costs { entry_bytes, client_bytes, dense_ns, spread_ns, single_ns })
    }
}

/// Measures, and says what it comes to.
pub fn plan(plan: Plan, pairs: usize, window: Duration) -> Result<String, String> {
    Ok(render(plan, &Costs::measure(pairs, window)?))
}

fn render(plan: Plan, costs: &Costs) -> String {
    let (n, m, cores) = (plan.delegations as f64, plan.clients as f64, plan.cores as f64);
    let gib = |bytes: f64| bytes / (1u64 << 30) as f64;
    let (entries, clients, returns) = (n * costs.entry_bytes, m * costs.client_bytes, n * RETURN_BYTES);
    let memory = entries + clients + returns;
    let keys = n * size_of::<CallbackKey>() as f64;
    let seconds = |ns: f64| n * ns / 1e9 / cores;
    let wire_s = n * wire::CALL_BYTES as f64 * HEADERS * 8.0 / LINK_BITS_PER_S;
    let client_s = n / m * ROUND_TRIP.as_secs_f64() / SLOTS;
    let lease_s = LEASE.as_secs_f64();
    let mut text = String::new();
    let mut line = |what: &str, value: String| _ = writeln!(text, "{}", format!("{what:<66}{value:>22}").trim_end());
    line("measured here", format!("{} CPUs, Linux {}", resources::cpus(), resources::kernel_version()));
    line("  an idle entry", format!("{:.1} bytes", costs.entry_bytes));
    line("  a client, its session of 16 slots and its connection", format!("{:.0} bytes", costs.client_bytes));
    line("  a callback, 32 at a time for each of 64 clients", format!("{:.0} ns CPU", costs.dense_ns));
    line("  a callback, 8 at a time for each of 1024 clients", format!("{:.0} ns CPU", costs.spread_ns));
    line("  a callback, one at a time for each of 1024 clients", format!("{:.0} ns CPU", costs.single_ns));
    line("", String::new());
    line("asked for", format!("{} / {} / {}", plan.delegations, plan.clients, plan.cores));
    line("  memory: entries", format!("{:.2} GiB", gib(entries)));
    line("  memory: clients, sessions, connections", format!("{:.2} GiB", gib(clients)));
    line("  memory: awaited returns, when all are recalled at once", format!("{:.2} GiB", gib(returns)));
    line("  memory: the keys in the file server's own objects", format!("{:.2} GiB", gib(keys)));
    line("  all recalled at once, 32 at a time for each client", format!("{:.1} s", seconds(costs.dense_ns)));
    line("  all recalled at once, 8 at a time for each client", format!("{:.1} s", seconds(costs.spread_ns)));
    line("  all recalled, one at a time for each client", format!("{:.1} s", seconds(costs.single_ns)));
    line("  callbacks a second, 8 at a time for each client", format!("{:.1} million", cores / costs.spread_ns * 1e3));
    line("", String::new());
    line("what breaks first, as a part of what there is", String::new());
    let mut shares = [
        ("descriptors: a connection for each client, of fs.nr_open 1,048,576", m / DESCRIPTORS),
        ("memory, of 256 GiB", (memory + keys) / MACHINE_BYTES),
        ("CPU: all recalled within a lease of 90 s, 8 at a time", seconds(costs.spread_ns) / lease_s),
        ("CPU: all recalled within a lease of 90 s, one at a time", seconds(costs.single_ns) / lease_s),
        ("network: all recalled within a lease of 90 s, of 25 Gbit/s", wire_s / lease_s),
        ("session slots: each client's part within a lease, 16, 0.2 ms", client_s / lease_s),
        ("entries that an index of 32 bits can name", n / f64::from(u32::MAX - 1)),
    ];
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares.iter().for_each(|(what, share)| line(&format!("  {what}"), format!("{:.2} %", 100.0 * share)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_three_numbers() {
        let plan = Plan { delegations: 100_000_000, clients: 100_000, cores: 64 };
        assert_eq!(Plan::parse("100_000_000,100000,64"), Ok(plan));
        for wrong in ["", "1,2", "1,2,3", "5,0,1", "5,1,0", "5,1,1,1", "many,1,1"] {
            assert!(Plan::parse(wrong).unwrap_err().contains("DELEGATIONS,CLIENTS,CORES"), "{wrong}");
        }
    }

    #[test]
    fn what_is_needed_follows_from_the_costs() {
        let costs =
            Costs { entry_bytes: 32.0, client_bytes: 1024.0, dense_ns: 500.0, spread_ns: 1_000.0, single_ns: 9_000.0 };
        let text = render(Plan { delegations: 1 << 30, clients: 1 << 20, cores: 10 }, &costs);
        for (what, value) in [
            ("memory: entries", "32.00 GiB"),
            ("memory: clients", "1.00 GiB"),
            ("awaited returns", "12.00 GiB"),
            ("callbacks a second", "10.0 million"),
            ("all recalled at once, 8 at a time", "107.4 s"),
        ] {
            assert!(text.lines().any(|line| line.contains(what) && line.ends_with(value)), "{what}: {value}\n{text}");
        }
        let first = text.lines().skip_while(|line| !line.contains("breaks first")).nth(1).unwrap_or_default();
        assert!(first.contains("CPU") && first.contains("one at a time"), "{first}");
    }
}
