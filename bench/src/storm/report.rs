//! The table at the end of a run.

use super::progress::{grouped, short};
use super::results::{Drained, Results, ServerResults, SwarmTally};
use std::fmt::Write as _;
use std::time::Duration;

const NAME_WIDTH: usize = 28;

/// A table being written: a name and a value a line, in sections.
struct Table {
    text: String,
}

impl Table {
    fn section(&mut self, title: &str) {
        let rule = "-".repeat(58_usize.saturating_sub(title.len()));
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "-- {title} {rule}");
    }

    fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{name:<NAME_WIDTH$} {value}");
    }

    fn count(&mut self, name: &str, value: u64) {
        self.row(name, format_args!("{:>12}", grouped(value)));
    }
}

/// The table, with the verdict as its end.
pub fn render(results: &Results) -> String {
    let mut table = Table { text: String::new() };
    head(&mut table, results);
    if let Some(server) = &results.server {
        counts(&mut table, server);
        drain(&mut table, &server.drained);
        speed(&mut table, results, server);
        stages(&mut table, server);
        cost(&mut table, server);
    }
    if let Some(swarm) = &results.swarm {
        swarm_half(&mut table, swarm);
    }
    verdict(&mut table, results);
    table.text
}

fn head(t: &mut Table, r: &Results) {
    let o = &r.options;
    t.section("storm");
    t.row("delegations", format_args!("{:>12} over {} clients", grouped(o.delegations), grouped(o.clients.into())));
    t.row("session slots", format_args!("{:>12} each", grouped(o.session_slots.into())));
    if o.dead_clients + o.slow_clients + o.delay_clients + o.cut_connections > 0 {
        t.row(
            "on purpose",
            format_args!(
                "{} dead, {} slow, {} delaying clients; {} cuts of each connection",
                o.dead_clients, o.slow_clients, o.delay_clients, o.cut_connections
            ),
        );
    }
    if let Some(s) = &r.server {
        t.row("back end", format_args!("{:>12} ({})", s.backend, s.backend_reason));
        t.row("reactors", format_args!("{:>12}", o.reactors));
        s.placement.iter().for_each(|place| t.row("", format_args!("{:>12} {place}", "")));
    }
    t.row("kernel", format_args!("{:>12}", r.kernel));
}

fn counts(t: &mut Table, s: &ServerResults) {
    t.section("callbacks");
    t.count("accepted", s.accepted);
    t.count("completed", s.completed);
    t.count("released", s.released);
    t.count("in flight at the end", s.in_flight);
    t.count("session slots leaked", s.slots_leaked);
    if !s.upgrades.is_empty() {
        let pauses = s.upgrades.iter().map(|pause| short(*pause)).collect::<Vec<_>>().join(", ");
        t.row("upgrades", format_args!("{:>12} with pauses of {pauses}", s.upgrades.len()));
    }
    let o = &s.outcomes;
    for (name, value) in [
        ("answered NFS4_OK", o.ok),
        ("answered with an error", o.error),
        ("timed out", o.timed_out),
        ("refused", o.refused),
        ("path down", o.path_down),
        ("courtesy", o.courtesy),
        ("cancelled", o.cancelled),
        ("delivered, result unknown", o.delivered_unknown),
        ("path at fault", o.fault),
    ] {
        // What is 0 in every good run is shown when it is not.
        if value > 0 {
            t.count(&format!("  {name}"), value);
        }
    }
}

/// What was still open when the runtime was drained; nothing is, where nothing was done on purpose.
fn drain(t: &mut Table, d: &Drained) {
    let reported = d.abandoned.len() + d.unsent.len();
    if reported > 0 {
        t.section("drain");
        t.row("took", format_args!("{:>12}", short(d.took)));
        t.count("reported by key", reported as u64);
        t.count("  sent, not answered", d.abandoned.len() as u64);
        t.count("  not sent", d.unsent.len() as u64);
    }
}

/// The keys that a drain reported, one a line, with what became of the callback.
pub fn keys(d: &Drained) -> String {
    let mut text = String::new();
    for (fate, keys) in [("abandoned", &d.abandoned), ("unsent", &d.unsent)] {
        for key in keys {
            let _ = writeln!(text, "{fate} {}", key.to_bits());
        }
    }
    text
}

fn speed(t: &mut Table, r: &Results, s: &ServerResults) {
    let h = &s.measured.latency;
    let at = |q: f64| micros(h.value_at_quantile(q));
    t.section("speed");
    t.row("callbacks/s", format_args!("{:>12} for {}", grouped(s.callbacks_per_s() as u64), short(s.recall)));
    if s.outcomes.timed_out > 0 {
        let until = short(s.measured.last_answer);
        t.row(
            "answered/s",
            format_args!("{:>12} until the last answer, after {until}", grouped(s.answered_per_s() as u64)),
        );
    }
    let from = if r.options.rate.is_some() { " from the intended start" } else { "" };
    t.row(
        "latency",
        format_args!("p50 {}, p99 {}, p99.9 {}, max {}{from}", at(0.5), at(0.99), at(0.999), micros(h.max())),
    );
}

fn stages(t: &mut Table, s: &ServerResults) {
    if s.stages.is_empty() {
        return;
    }
    t.section("stages");
    for stage in &s.stages {
        let [p50, p99, p999, max] = [stage.p50, stage.p99, stage.p999, stage.max].map(micros);
        t.row(
            &format!("{}, {}", stage.class, stage.stage),
            format_args!("p50 {p50}, p99 {p99}, p99.9 {p999}, max {max}, of {}", grouped(stage.count)),
        );
    }
}

fn cost(t: &mut Table, s: &ServerResults) {
    t.section("cost for each callback, server half");
    let per = |amount| s.per_callback(amount);
    t.row(
        "CPU",
        format_args!(
            "{:>12.0} ns ({:.0} user, {:.0} system)",
            per(s.cpu.total_ns()),
            per(s.cpu.user_ns),
            per(s.cpu.system_ns)
        ),
    );
    t.row("CB_COMPOUNDs", format_args!("{:>12.4}", per(s.work.calls)));
    t.row("system calls", format_args!("{:>12.4}", per(s.work.syscalls)));
    t.row("SENDs", format_args!("{:>12.4}", per(s.work.sends)));
    t.row("wake-ups", format_args!("{:>12.6}", per(s.work.wakes)));
    t.row(
        "bytes per idle delegation",
        format_args!("{:>12.1} owned by ringback, resident", s.idle_bytes_per_delegation()),
    );
    t.row("peak memory", format_args!("{:>12} MiB", grouped(s.peak_rss_bytes >> 20)));
}

fn swarm_half(t: &mut Table, s: &SwarmTally) {
    t.section("swarm, by its own count");
    t.count("granted", s.granted);
    t.count("recalled", s.recalled);
    t.count("recalled twice", s.doubled);
    t.count("malformed", s.malformed);
    t.count("returned", s.returned);
    for (name, value) in [
        ("  answered NFS4ERR_DELAY", s.delayed),
        ("  resends recognised", s.resends),
        ("  connections cut", s.cuts),
        ("  parameters replaced", s.controls),
        ("  unknown", s.unknown),
        ("  opens without delegation", s.not_granted),
        ("  recalled again on request", s.repeated),
        ("  against the rules", s.against_rules),
        ("  connections lost", s.connections_lost),
    ] {
        if value > 0 {
            t.count(name, value);
        }
    }
    t.row("CPU for each recall", format_args!("{:>12.0} ns", s.cpu_ns_per_recall()));
    t.row(
        "CPU, whole run",
        format_args!("{:>12} user, {} system", short(nanos(s.cpu.user_ns)), short(nanos(s.cpu.system_ns))),
    );
    t.row("peak memory", format_args!("{:>12} MiB", grouped(s.peak_rss_bytes >> 20)));
}

fn verdict(t: &mut Table, r: &Results) {
    t.section("verdict");
    if r.interrupted {
        let _ = writeln!(t.text, "interrupted: the numbers are of what was done until then");
    }
    for line in &r.discrepancies {
        let _ = writeln!(t.text, "WRONG: {line}");
    }
    if r.discrepancies.is_empty() {
        let _ = writeln!(t.text, "nothing lost, nothing doubled, nothing leaked; {} in all", short(r.wall));
    }
}

fn nanos(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..100_000 => format!("{:.2} ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use ringback::CallbackKey;

    #[test]
    fn the_table_tells_what_was_promised() {
        let text = render(&sample::results());
        for needle in [
            "delegations                         1,000 over 4 clients",
            "in flight at the end                    0",
            "session slots leaked                    0",
            "callbacks/s                       250,000",
            "p99.9",
            "1000 ns (300 user, 700 system)",
            "bytes per idle delegation            33.0",
            "uring",
            "nothing lost, nothing doubled, nothing leaked",
        ] {
            assert!(text.contains(needle), "{needle:?} is not in\n{text}");
        }
        assert!(!text.contains("timed out"));
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_else_is_claimed() {
        let mut results = sample::results();
        results.discrepancies.push("1 session slots leaked".into());
        results.interrupted = true;
        let text = render(&results);
        assert!(text.contains("WRONG: 1 session slots leaked") && text.contains("interrupted"));
        assert!(!text.contains("nothing lost"));
    }

    #[test]
    fn what_a_drain_ended_is_counted_and_listed() {
        let mut results = sample::results();
        let key = |index| CallbackKey { index, generation: 1 };
        let drained = &mut results.server.as_mut().unwrap().drained;
        (drained.abandoned, drained.unsent) = (vec![key(7)], vec![key(1), key(2)]);
        assert_eq!(keys(drained), "abandoned 4294967303\nunsent 4294967297\nunsent 4294967298\n");
        let text = render(&results);
        assert!(text.contains("reported by key                         3"), "{text}");
        assert!(!render(&sample::results()).contains("drain"));
    }

    #[test]
    fn latencies_have_a_fitting_unit() {
        assert_eq!(micros(999), "999 us");
        assert_eq!(micros(1_500), "1.50 ms");
        assert_eq!(micros(250_000), "250 ms");
        assert_eq!(micros(2_500_000), "2.50 s");
    }
}
