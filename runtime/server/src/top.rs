//! What `ringback top` shows: the clients that are in trouble first, and how much is done per second.

use crate::inspect::{InspectedClient, InspectedCounters, Inspection};
use std::cmp::Reverse;
use std::fmt::Write;

/// A callback that is older than this makes its client slow: clients that are well answer within milliseconds.
const SLOW_MS: u64 = 1000;

/// What is wrong with a client, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Nothing.
    None,
    /// A callback takes longer than a second.
    Slow,
    /// Callbacks wait, and there is no path to send them on.
    Parked,
    /// A callback takes longer than a client takes that is well.
    Stuck,
}

impl Trouble {
    fn of(client: &InspectedClient) -> Trouble {
        match client {
            _ if client.callbacks.iter().any(|callback| callback.stuck) => Trouble::Stuck,
            _ if client.runs.parked > 0 => Trouble::Parked,
            _ if oldest_ms(client) > SLOW_MS => Trouble::Slow,
            _ => Trouble::None,
        }
    }

    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Trouble::None => "-",
            Trouble::Slow => "slow",
            Trouble::Parked => "parked",
            Trouble::Stuck => "STUCK",
        }
    }
}

fn oldest_ms(client: &InspectedClient) -> u64 {
    client.callbacks.first().map_or(0, |callback| callback.age_ms)
}

/// A look at a server, and the one before it with the seconds in between.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What there is.
    pub now: &'a Inspection,
    /// What there was, if this is not the first look: without it what is counted is shown, not what is done per second.
    pub before: Option<(&'a Inspection, f64)>,
    /// Clients shown.
    pub clients_max: usize,
}

impl View<'_> {
    /// Lines for a terminal.
    pub fn render(&self) -> String {
        let Inspection { reactors, clients, delegations, delegations_max, files, latencies, tenants } = self.now;
        let mut text =
            format!("{} clients, {delegations} of {delegations_max} delegations, {files} files\n", clients.len());
        let _ = writeln!(
            text,
            "{:<8} {:>7} {:>7} {:>7} {:>7}  {:>10} {:>10} {:>10} {:>9} {:>9} {:>10}",
            "REACTOR",
            "QUEUED",
            "DELAYED",
            "SENT",
            "PARKED",
            "STARTED",
            "COMPLETED",
            "CALLS",
            "REQUEUED",
            "TIMEDOUT",
            "SYSCALLS"
        );
        for reactor in reactors {
            let before = self.before.and_then(|(inspection, seconds)| {
                let known = inspection.reactors.iter().find(|r| r.reactor == reactor.reactor)?;
                Some((&known.counters, seconds))
            });
            let rate = |name| rate(name, &reactor.counters, before);
            let runs = &reactor.runs;
            let _ = writeln!(
                text,
                "{:<8} {:>7} {:>7} {:>7} {:>7}  {:>10} {:>10} {:>10} {:>9} {:>9} {:>10}",
                reactor.reactor,
                runs.queued,
                runs.delayed,
                runs.sent,
                runs.parked,
                rate("started"),
                rate("completed"),
                rate("calls_sent"),
                rate("requeued"),
                rate("timed_out"),
                rate("syscalls")
            );
        }
        for latency in latencies {
            let ms = |us: u64| us as f64 / 1000.0;
            let _ = writeln!(
                text,
                "{} {}: {} times, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
                latency.class,
                latency.stage,
                latency.count,
                ms(latency.p50_us),
                ms(latency.p99_us),
                ms(latency.max_us)
            );
        }
        for tenant in tenants {
            let _ = writeln!(text, "{tenant}");
        }
        self.render_clients(&mut text);
        text
    }

    fn render_clients(&self, text: &mut String) {
        let mut clients: Vec<_> = self.now.clients.iter().map(|client| (Trouble::of(client), client)).collect();
        clients.sort_by_key(|(trouble, client)| Reverse((*trouble, oldest_ms(client), client.in_flight)));
        let _ = writeln!(
            text,
            "{:<7} {:<7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>8} {:>10} {:>10} {:>9}  CLIENT",
            "TROUBLE",
            "PATH",
            "FLIGHT",
            "QUEUED",
            "SENT",
            "PARKED",
            "SLOTS",
            "OLDEST",
            "STARTED",
            "COMPLETED",
            "REQUEUED"
        );
        for (trouble, client) in clients.iter().take(self.clients_max) {
            let before = self.before.and_then(|(inspection, seconds)| {
                let known = inspection.clients.iter().find(|c| c.id == client.id)?;
                Some((&known.counters, seconds))
            });
            let rate = |name| rate(name, &client.counters, before);
            let slots: u32 = client.sessions.iter().map(|session| session.slots).sum();
            let used: u32 = client.sessions.iter().map(|session| session.slots_in_use).sum();
            let _ = writeln!(
                text,
                "{:<7} {:<7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>6.1} s {:>10} {:>10} {:>9}  {} \"{}\"",
                trouble.name(),
                client.path,
                client.in_flight,
                client.runs.queued,
                client.runs.sent,
                client.runs.parked,
                format!("{used}/{slots}"),
                oldest_ms(client) as f64 / 1000.0,
                rate("started"),
                rate("completed"),
                rate("requeued"),
                client.id,
                client.name
            );
        }
        let more = clients.len().saturating_sub(self.clients_max);
        if more > 0 {
            let _ = writeln!(text, "and {more} more");
        }
    }
}

/// What a counter has grown by per second, or what it is at the first look.
fn rate(name: &str, now: &InspectedCounters, before: Option<(&InspectedCounters, f64)>) -> String {
    let count = |counters: &InspectedCounters| counters.get(name).copied().unwrap_or(0);
    match before {
        Some((before, seconds)) if seconds > 0.0 => {
            format!("{:.0}/s", count(now).saturating_sub(count(before)) as f64 / seconds)
        }
        _ => count(now).to_string(),
    }
}
