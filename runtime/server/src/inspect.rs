//! What the server knows of its clients and of their callbacks, for who operates it.

use crate::Server;
use crate::arena::Id;
use crate::callbacks::Subject;
use crate::delegations::Delegation;
use crate::files::{global, shard_number};
use ringback::{Census, Counters, Error, Latency, OutcomeKind, ReactorReport, Requeue, TenantReport};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The server at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The reactors of its runtime.
    pub reactors: Vec<InspectedReactor>,
    /// How long callbacks took, all reactors together: the classes and stages of which there are any.
    pub latencies: Vec<InspectedLatency>,
    /// Tenants but the default one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<InspectedTenant>,
    /// Confirmed clients, the one with the oldest callback first.
    pub clients: Vec<InspectedClient>,
    /// Delegations that clients hold.
    pub delegations: u64,
    /// How many there may be.
    pub delegations_max: u64,
    /// Files.
    pub files: u64,
}

/// What has been counted since the server was started, or since the client came, by the names of the operations page.
pub type InspectedCounters = BTreeMap<String, u64>;

/// A reactor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedReactor {
    /// Its number.
    pub reactor: usize,
    /// What it has counted, and by `ending_` and the status, how runs ended.
    pub counters: InspectedCounters,
    /// Where the runs of its clients are.
    pub runs: InspectedRuns,
}

/// How long callbacks of one class took in one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedLatency {
    /// The class: waited, recall, background.
    pub class: String,
    /// The stage: queued, unsent, wire, done.
    pub stage: String,
    /// How many callbacks.
    pub count: u64,
    /// Microseconds that half of them did not exceed.
    pub p50_us: u64,
    /// Microseconds that 99 of 100 did not exceed.
    pub p99_us: u64,
    /// Microseconds of the longest.
    pub max_us: u64,
}

/// Where runs are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedRuns {
    /// They wait for their turn, for a session slot or for a callback path.
    pub queued: u64,
    /// They wait for a delay to pass.
    pub delayed: u64,
    /// They are on the wire, or keep their session slot to be sent again.
    pub sent: u64,
    /// Those of the queued and the delayed whose client has no callback path.
    pub parked: u64,
}

/// A tenant. A limit of 0 is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedTenant {
    /// Its label.
    pub label: String,
    /// Callbacks that exist.
    pub callbacks: u32,
    /// How many there may be.
    pub callbacks_max: u32,
    /// Calls that are out.
    pub calls_out: u32,
    /// How many may be.
    pub calls_max: u32,
    /// Callbacks sent.
    pub callbacks_sent: u64,
    /// How many may be sent in a second.
    pub rate_max: u32,
    /// Callbacks that were refused because there were as many as there may be.
    pub refused: u64,
    /// Times that a client had something to send and was held back.
    pub held_back: u64,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedClient {
    /// Its own name, co_ownerid (RFC 8881 section 2.4); what is not ASCII is escaped.
    pub name: String,
    /// Its client id, in hexadecimal.
    pub id: String,
    /// Milliseconds since its last SEQUENCE.
    pub silent_ms: u64,
    /// It has been silent for longer than its lease. What it holds goes when it is in somebody's way.
    pub courtesy: bool,
    /// The state of its callback path.
    pub path: String,
    /// The reactor that sends its callbacks.
    pub reactor: usize,
    /// The label of its tenant; `None`: the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Delegations that it holds.
    pub delegations: u32,
    /// Its sessions that have a backchannel.
    pub sessions: Vec<InspectedSession>,
    /// What has been counted for it.
    pub counters: InspectedCounters,
    /// Where its runs are.
    pub runs: InspectedRuns,
    /// Callbacks in flight.
    pub in_flight: u64,
    /// The oldest of them, the oldest first.
    pub callbacks: Vec<InspectedCallback>,
}

/// A session's backchannel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedSession {
    /// Its session id, in hexadecimal.
    pub id: String,
    /// Session slots of its fore channel.
    pub fore_slots: u32,
    /// How many of them the client is asked to use.
    pub fore_slots_target: u32,
    /// Connections that carry it.
    pub connections: u32,
    /// Session slots.
    pub slots: u32,
    /// Those with a call that is not settled.
    pub slots_in_use: u32,
    /// Those of them whose callbacks were given up.
    pub slots_quarantined: u32,
    /// Those that cannot be used any more.
    pub slots_retired: u32,
    /// What is wrong with it.
    pub fault: Option<String>,
}

/// A callback in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedCallback {
    /// The operation.
    pub operation: String,
    /// The file that it is about, by the number that `stat` calls inode.
    pub file: Option<u64>,
    /// Milliseconds since it was asked for.
    pub age_ms: u64,
    /// Where it is: queued, delayed, sent, unanswered, resending.
    pub stage: String,
    /// It was sent at least once.
    pub sent: bool,
    /// The session id and the session slot that it occupies.
    pub at: Option<(String, u32)>,
    /// It takes longer than a client takes that is well.
    pub stuck: bool,
}

impl Server {
    /// Describes all clients, with at most `callbacks_max` of the callbacks of each that are in flight. Waits for the
    /// reactors; an error from a hook.
    pub fn inspect(&self, callbacks_max: usize) -> Result<Inspection, Error> {
        let snapshot = self.runtime().snapshot(callbacks_max)?;
        Ok(self.inner.roster().inspection(snapshot, |cookie| self.file_of(cookie)))
    }

    /// The number of the file that a callback is about.
    fn file_of(&self, cookie: u64) -> Option<u64> {
        let files = &self.inner.files;
        let about = match Subject::of(cookie) {
            Subject::Push(id) => Subject::Recall(self.inner.wants.delegation(id)?),
            about => about,
        };
        let file = match about {
            Subject::Recall(id) | Subject::Attributes(id) | Subject::Notify(id) => {
                let (shard, local) = files.shard_of(id);
                let Delegation { file, .. } = shard.delegations.get(local)?;
                global(shard_number(id), shard.files.id_at(*file)?)
            }
            Subject::Offload(id) => self.inner.copies.lock().get(id)?.way.to,
            // These are about no file.
            Subject::Push(_) | Subject::Available(_) | Subject::Cancelled(_) | Subject::ByHand(_) => return None,
            Subject::Layouts(_) | Subject::Device(_) => return None,
            Subject::Layout(id) => self.inner.layouts.file(id)?,
            Subject::Lock(id) => {
                let (shard, local) = files.shard_of(id);
                global(shard_number(id), shard.waiters.get(local)?.file)
            }
        };
        Some(fileid(file))
    }
}

/// All counters that are not 0; what is counted by kind, by a prefix and the kind.
pub(crate) fn counters(
    each: impl Iterator<Item = (&'static str, &'static str, u64)>,
    by_kind: &Counters,
) -> InspectedCounters {
    let plain = each.map(|(name, _, count)| (name.to_owned(), count));
    let ended = OutcomeKind::ALL.iter().map(|kind| (format!("ended_{}", kind.name()), by_kind.ended(*kind)));
    let requeued = Requeue::ALL.iter().map(|why| (format!("requeued_{}", why.name()), by_kind.requeued_for(*why)));
    plain.chain(ended).chain(requeued).filter(|(_, count)| *count > 0).collect()
}

impl From<&Census> for InspectedRuns {
    fn from(census: &Census) -> Self {
        InspectedRuns { queued: census.queued, delayed: census.delayed, sent: census.sent, parked: census.parked }
    }
}

impl From<&Latency> for InspectedLatency {
    fn from(latency: &Latency) -> Self {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        InspectedLatency {
            class: latency.class().to_owned(),
            stage: latency.stage().name().to_owned(),
            count: latency.count(),
            p50_us: us(latency.quantile(0.5)),
            p99_us: us(latency.quantile(0.99)),
            max_us: us(latency.max()),
        }
    }
}

impl From<&TenantReport> for InspectedTenant {
    fn from(report: &TenantReport) -> Self {
        InspectedTenant {
            label: report.label.clone(),
            callbacks: report.callbacks,
            callbacks_max: report.limits.callbacks_max,
            calls_out: report.calls_out,
            calls_max: report.limits.calls_max,
            callbacks_sent: report.callbacks_sent,
            rate_max: report.limits.rate_max,
            refused: report.refused,
            held_back: report.held_back,
        }
    }
}

impl From<&ReactorReport> for InspectedReactor {
    fn from(report: &ReactorReport) -> Self {
        let mut counters = counters(report.counters.each().chain(report.stats.each()), &report.counters);
        let endings = report.endings.iter().map(|(ending, count)| (format!("ending_{}", ending.name()), *count));
        counters.extend(endings);
        InspectedReactor { reactor: report.reactor, counters, runs: InspectedRuns::from(&report.census) }
    }
}

/// The number of a file, its attribute fileid.
pub(crate) fn fileid(id: Id) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_counters(f: &mut fmt::Formatter<'_>, runs: &InspectedRuns, counters: &InspectedCounters) -> fmt::Result {
    let InspectedRuns { queued, delayed, sent, parked } = runs;
    writeln!(f, "  {queued} queued, {delayed} delayed, {sent} sent, {parked} parked")?;
    let counted: Vec<_> = counters.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if counted.is_empty() { Ok(()) } else { writeln!(f, "  {}", counted.join(", ")) }
}

/// A line for a terminal.
impl fmt::Display for InspectedTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |max: u32| if max > 0 { format!(" of {max}") } else { String::new() };
        let rate = if self.rate_max > 0 { format!(" (at most {}/s)", self.rate_max) } else { String::new() };
        write!(
            f,
            "tenant \"{}\": {}{} callbacks, {}{} calls out, {} sent{rate}, {} refused, held back {} times",
            self.label,
            self.callbacks,
            of(self.callbacks_max),
            self.calls_out,
            of(self.calls_max),
            self.callbacks_sent,
            self.refused,
            self.held_back
        )
    }
}

/// A table for a terminal: clients, their sessions, and their callbacks, the stuck ones marked.
impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inspection { reactors, latencies, tenants, clients, delegations, delegations_max, files } = self;
        writeln!(f, "{} clients, {delegations} of {delegations_max} delegations, {files} files", clients.len())?;
        for reactor in reactors {
            writeln!(f, "reactor {}:", reactor.reactor)?;
            write_counters(f, &reactor.runs, &reactor.counters)?;
        }
        for InspectedLatency { class, stage, count, p50_us, p99_us, max_us } in latencies {
            writeln!(f, "  {class} {stage}: {count} times, p50 {p50_us} us, p99 {p99_us} us, max {max_us} us")?;
        }
        for tenant in tenants {
            writeln!(f, "{tenant}")?;
        }
        for client in clients {
            let courtesy = if client.courtesy { ", in courtesy" } else { "" };
            let tenant = client.tenant.as_ref().map_or(String::new(), |label| format!(" of tenant \"{label}\""));
            writeln!(
                f,
                "client {} \"{}\"{tenant}: path {}, {} delegations, {} callbacks in flight, heard {:.1} s ago{courtesy}",
                client.id,
                client.name,
                client.path,
                client.delegations,
                client.in_flight,
                client.silent_ms as f64 / 1000.0
            )?;
            write_counters(f, &client.runs, &client.counters)?;
            for s in &client.sessions {
                let fault = s.fault.as_ref().map_or(String::new(), |fault| format!(", fault {fault}"));
                let asked = match s.fore_slots_target {
                    target if target < s.fore_slots => format!(" (asked to use {target})"),
                    _ => String::new(),
                };
                writeln!(
                    f,
                    "  session {}: {} connections, {} of {} slots in use, {} quarantined, {} retired, {} fore slots{asked}{fault}",
                    s.id, s.connections, s.slots_in_use, s.slots, s.slots_quarantined, s.slots_retired, s.fore_slots
                )?;
            }
            for c in &client.callbacks {
                let stuck = if c.stuck { "  STUCK" } else { "" };
                let file = c.file.map_or(String::new(), |file| format!(" of file {file}"));
                let at = c.at.as_ref().map_or(String::new(), |(_, slot)| format!(" on slot {slot}"));
                writeln!(f, "  {}{file}: {}{at}, {:.1} s{stuck}", c.operation, c.stage, c.age_ms as f64 / 1000.0)?;
            }
            let more = client.in_flight.saturating_sub(client.callbacks.len() as u64);
            if more > 0 {
                writeln!(f, "  and {more} younger ones")?;
            }
        }
        Ok(())
    }
}
