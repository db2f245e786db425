//! A snapshot in Prometheus' text format, version 0.0.4.

use crate::inspect::{ClientReport, ReactorReport, Snapshot};
use crate::keys::ClientId;
use crate::latency::Latency;
use crate::stats::{Census, Stats};
use crate::tenant::TenantReport;
use ringback_rpc::backchannel::{Counters, OutcomeKind, Requeue};
use std::fmt::{Display, Write};
use std::time::Duration;

/// What the names of all metrics begin with.
const PREFIX: &str = "ringback";
/// The values among the counters that may fall.
const GAUGES: [&str; 2] = ["in_flight", "delegations"];
/// Counters of the runtime that belong to no reactor.
const WHOLE: [&str; 5] = ["delegations", "reaper_asked", "reaper_ignored", "reaper_recalled", "memory_pressures"];

const LATENCY: &str = "latency_seconds";
/// The upper limits of the buckets of latencies, in seconds and in microseconds.
const LIMITS: [(&str, u64); 16] = [
    ("0.0001", 100),
    ("0.00025", 250),
    ("0.0005", 500),
    ("0.001", 1_000),
    ("0.0025", 2_500),
    ("0.005", 5_000),
    ("0.01", 10_000),
    ("0.025", 25_000),
    ("0.05", 50_000),
    ("0.1", 100_000),
    ("0.25", 250_000),
    ("0.5", 500_000),
    ("1", 1_000_000),
    ("5", 5_000_000),
    ("10", 10_000_000),
    ("60", 60_000_000),
];

impl Snapshot {
    /// Prometheus' text format (version 0.0.4, `text/plain; version=0.0.4`): what every reactor has counted, then what each of
    /// the `clients_max` clients has that are most in trouble, with the label that `name` gives. A series for each of many
    /// thousand clients is more than a Prometheus server likes.
    ///
    /// ```
    /// # fn answer(runtime: &ringback::Runtime) -> Result<String, ringback::Error> {
    /// let text = runtime.snapshot(1)?.to_prometheus(100, |client| format!("{:x}", client.to_bits()));
    /// # Ok(text) }
    /// ```
    pub fn to_prometheus(&self, clients_max: usize, name: impl Fn(ClientId) -> String) -> String {
        let mut text = Text(String::new());
        let reactors: Vec<_> = self.reactors.iter().map(|r| (Label("reactor", r.reactor.to_string()), r)).collect();
        text.reactors(&reactors);
        text.runtime(&self.totals);
        text.latencies(&self.latencies());
        let mut clients: Vec<_> = self.clients.iter().collect();
        clients.sort_by(|a, b| a.by_trouble(b));
        clients.truncate(clients_max);
        let clients: Vec<_> = clients.into_iter().map(|c| (Label("client", name(c.client)), c)).collect();
        let label = |tenant: &TenantReport| Label("tenant", tenant.label.clone());
        let tenants: Vec<_> = self.tenants.iter().map(|tenant| (label(tenant), tenant)).collect();
        text.tenants(&tenants);
        text.clients(&clients);
        text.0
    }
}

/// A label and its value.
struct Label(&'static str, String);

/// What is written so far.
struct Text(String);

impl Text {
    /// Begins a metric: all its samples follow.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.line(format_args!("# HELP {PREFIX}_{name} {help}"));
        self.line(format_args!("# TYPE {PREFIX}_{name} {kind}"));
    }

    fn line(&mut self, line: impl Display) {
        // A string takes whatever comes.
        let _ = writeln!(self.0, "{line}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        self.line(format_args!("{PREFIX}_{name}{{{}}} {value}", labels.join(",")));
    }

    /// Counters, each a metric of its own, for all of `who`.
    fn counters<T>(
        &mut self,
        prefix: &str,
        who: &[(Label, T)],
        counters: impl Fn(&T) -> Vec<(&'static str, &'static str, u64)>,
    ) {
        let all: Vec<_> = who.iter().map(|(label, one)| (label, counters(one))).collect();
        let Some((_, first)) = all.first() else { return };
        for (at, (name, help, _)) in first.iter().enumerate() {
            let (metric, kind) = kind_of(prefix, name);
            self.metric(&metric, kind, help);
            for (label, values) in &all {
                self.sample(&metric, &[(label.0, &label.1)], values[at].2);
            }
        }
    }

    /// One metric with a second label, for all of `who`.
    fn labelled<T>(
        &mut self,
        (metric, kind, help): (&str, &str, &str),
        second: &str,
        who: &[(Label, T)],
        values: impl Fn(&T) -> Vec<(&'static str, u64)>,
    ) {
        if who.is_empty() {
            return;
        }
        self.metric(metric, kind, help);
        for (label, one) in who {
            for (value, count) in values(one) {
                self.sample(metric, &[(label.0, &label.1), (second, value)], count);
            }
        }
    }

    fn gauge<T, V: Display>(&mut self, metric: &str, help: &str, who: &[(Label, T)], value: impl Fn(&T) -> V) {
        if who.is_empty() {
            return;
        }
        self.metric(metric, "gauge", help);
        who.iter().for_each(|(label, one)| self.sample(metric, &[(label.0, &label.1)], value(one)));
    }

    fn runtime(&mut self, totals: &Stats) {
        for (name, help, value) in totals.each().filter(|(name, ..)| WHOLE.contains(name)) {
            let (metric, kind) = kind_of("", name);
            self.metric(&metric, kind, help);
            self.line(format_args!("{PREFIX}_{metric} {value}"));
        }
    }

    fn reactors(&mut self, reactors: &[(Label, &ReactorReport)]) {
        self.counters("", reactors, |reactor| {
            let mut all: Vec<_> = reactor.stats.each().filter(|(name, ..)| !WHOLE.contains(name)).collect();
            let known = all.len();
            for more in reactor.counters.each() {
                if all[..known].iter().all(|(name, ..)| *name != more.0) {
                    all.push(more);
                }
            }
            all
        });
        let endings = (
            "endings_total",
            "counter",
            "Completed runs by how they ended: the client's status, or why there is none.",
        );
        self.labelled(endings, "ending", reactors, |r| r.endings.iter().map(|(e, count)| (e.name(), *count)).collect());
        self.requeues("", reactors, |r| &r.counters);
        self.places("", reactors, |r| &r.census);
        self.gauge("session_bytes", "Resident bytes of the slot tables and call records.", reactors, |r| {
            r.census.bytes
        });
        let help = "Resident bytes of the lists of returns that are awaited.";
        self.gauge("returns_bytes", help, reactors, |r| r.census.returns_bytes);
    }

    fn latencies(&mut self, latencies: &[Latency]) {
        if latencies.is_empty() {
            return;
        }
        let help = "How long callbacks took, by class and stage, all reactors together.";
        self.metric(LATENCY, "histogram", help);
        for latency in latencies {
            let labels = [("class", latency.class()), ("stage", latency.stage().name())];
            let with = |limit: &'static str| [labels[0], labels[1], ("le", limit)];
            let bucket = format!("{LATENCY}_bucket");
            for (name, us) in LIMITS {
                self.sample(&bucket, &with(name), latency.within(Duration::from_micros(us)));
            }
            self.sample(&bucket, &with("+Inf"), latency.count());
            self.sample(&format!("{LATENCY}_sum"), &labels, latency.sum().as_secs_f64());
            self.sample(&format!("{LATENCY}_count"), &labels, latency.count());
        }
    }

    fn clients(&mut self, clients: &[(Label, &ClientReport)]) {
        let help = "Runs accepted and not completed.";
        self.gauge("client_in_flight", help, clients, |c| c.in_flight);
        let help = "Whether callbacks can be sent.";
        self.gauge("client_path_up", help, clients, |c| u8::from(c.path == crate::PathState::Up));
        let help = "Age of the oldest callback in flight.";
        self.gauge("client_oldest_seconds", help, clients, |c| c.oldest_ns() as f64 / 1e9);
        self.counters("client_", clients, |client| client.counters.each().collect());
        let endings = ("client_endings_total", "counter", "Completed runs by how they ended.");
        self.labelled(endings, "ending", clients, |client| {
            OutcomeKind::ALL.iter().map(|kind| (kind.name(), client.counters.ended(*kind))).collect()
        });
        self.requeues("client_", clients, |c| &c.counters);
        self.places("client_", clients, |c| &c.census);
    }

    fn tenants(&mut self, tenants: &[(Label, &TenantReport)]) {
        let help = "Callbacks of the tenant's clients that exist.";
        self.gauge("tenant_callbacks", help, tenants, |t| t.callbacks);
        self.gauge("tenant_calls_out", "Calls of the tenant's clients that are not settled.", tenants, |t| t.calls_out);
        self.counters("tenant_", tenants, |t| {
            vec![
                ("callbacks_sent", "Callbacks sent to the tenant's clients.", t.callbacks_sent),
                ("refused", "Callbacks refused because the tenant had as many as it may have.", t.refused),
                ("held_back", "Times that a client of the tenant was held back.", t.held_back),
            ]
        });
    }

    fn requeues<T>(&mut self, prefix: &str, who: &[(Label, T)], counters: impl Fn(&T) -> &Counters) {
        let name = format!("{prefix}requeues_total");
        self.labelled((&name, "counter", "Runs put back on their queue, by the reason."), "reason", who, |one| {
            Requeue::ALL.iter().map(|why| (why.name(), counters(one).requeued_for(*why))).collect()
        });
    }

    fn places<T>(&mut self, prefix: &str, who: &[(Label, T)], census: impl Fn(&T) -> &Census) {
        let runs = format!("{prefix}runs");
        self.labelled((&runs, "gauge", "Runs in flight, by where they are."), "stage", who, |one| {
            let census = census(one);
            vec![("queued", census.queued), ("delayed", census.delayed), ("sent", census.sent)]
        });
        let parked = format!("{prefix}parked");
        let help = "Runs that are queued or delayed while the client has no callback path.";
        self.gauge(&parked, help, who, |one| census(one).parked);
        let slots = format!("{prefix}session_slots");
        self.labelled((&slots, "gauge", "Session slots, by what becomes of them."), "state", who, |one| {
            let census = census(one);
            let states = [("free", census.free), ("with_run", census.with_run)];
            let lost = [("quarantined", census.quarantined), ("retired", census.retired)];
            states.into_iter().chain(lost).collect()
        });
    }
}

/// The name of the metric of a counter, and its type.
fn kind_of(prefix: &str, name: &str) -> (String, &'static str) {
    if GAUGES.contains(&name) {
        (format!("{prefix}{name}"), "gauge")
    } else {
        (format!("{prefix}{name}_total"), "counter")
    }
}

/// The value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
