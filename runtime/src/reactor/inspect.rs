//! Describing a reactor and its clients, some in each turn.

use super::Reactor;
use super::home::Client;
use super::home::Home;
use super::host::ClientHost;
use crate::inspect::{CallbackReport, ClientReport, ReactorReport, SessionReport};
use crate::io::Io;
use crate::keys::{ClientId, SessionKey};
use crate::latency::Latencies;
use crate::stats::Stats;
use crate::tenant::TenantId;
use ringback_rpc::backchannel::{self, RunView};
use std::cmp::Reverse;
use std::sync::mpsc::Sender;

/// Runs that are looked at in one turn, by whole clients.
const SHOWN_PER_TURN: u64 = 16_384;

/// Some clients; with the last of them the reactor itself.
pub(crate) type Described = (Option<ReactorReport>, Vec<ClientReport>);

/// A description under way.
pub(super) struct Inspection {
    callbacks_max: usize,
    /// Closed when all clients were described.
    answer: Sender<Described>,
    /// The client that is next.
    next: u32,
}

impl Inspection {
    pub fn new(callbacks_max: usize, answer: Sender<Described>) -> Self {
        Inspection { callbacks_max, answer, next: 0 }
    }
}

impl<I: Io> Reactor<I> {
    /// Describes as many clients as fit into a turn.
    pub(super) fn go_on_inspecting(&mut self) {
        let mut budget = SHOWN_PER_TURN;
        while budget > 0
            && let Some(inspection) = self.inspections.front_mut()
        {
            let (reactor, callbacks_max) = (self.home.reactor, inspection.callbacks_max);
            let mut reports = Vec::new();
            while budget > 0 && (inspection.next as usize) < self.home.clients.len() {
                let report = self.home.look(inspection.next, |client, host| {
                    let walked = if callbacks_max == 0 { 0 } else { client.backchannel.run_count() };
                    (describe(client, host, reactor, callbacks_max), walked)
                });
                inspection.next += 1;
                budget = budget.saturating_sub(1 + report.as_ref().map_or(0, |(_, walked)| *walked));
                reports.extend(report.map(|(report, _)| report));
            }
            let over = inspection.next as usize >= self.home.clients.len();
            let reactor = over.then(|| {
                self.home.shared.reactors[reactor].stats.publish_io(self.io.counters().plus(self.io_before));
                self.home.describe()
            });
            // Nobody waits any more if the receiver is gone.
            if inspection.answer.send((reactor, reports)).is_err() || over {
                self.inspections.pop_front();
            }
        }
    }
}

impl Home {
    /// Describes the reactor itself. What the cores have counted since their clients were looked at last belongs to it.
    pub fn describe(&mut self) -> ReactorReport {
        let shared = &self.shared;
        let stats = &shared.reactors[self.reactor].stats;
        let (mut counters, mut in_flight) = (self.gone, 0);
        for client in self.clients.iter_mut().flatten() {
            client.publish_counters(stats);
            counters.add(client.backchannel.counters());
            counters.subtract(&client.counted_elsewhere);
            in_flight += shared.clients.get(client.id.index).map_or(0, |known| known.in_flight.count());
        }
        ReactorReport {
            reactor: self.reactor,
            stats: Stats { in_flight, ..stats.read() },
            counters,
            endings: stats.endings.each().collect(),
            census: self.census(|_| true),
            latencies: self.watch.as_mut().and_then(|w| w.latencies.as_mut()).map(Latencies::read).unwrap_or_default(),
        }
    }

    /// Describes one client, if it is here.
    pub fn describe_client(&mut self, id: ClientId, callbacks_max: usize) -> Option<ClientReport> {
        let home = self.reactor;
        let is_here = self.client(id.index)?.id == id;
        is_here.then(|| self.look(id.index, |client, host| describe(client, host, home, callbacks_max)))?
    }
}

fn describe(client: &Client, host: &ClientHost<'_>, home: usize, callbacks_max: usize) -> ClientReport {
    let key = |session: backchannel::SessionKey| SessionKey { client: client.id, serial: session.0 };
    let sessions = client.backchannel.sessions().map(|s| SessionReport {
        session: key(s.key),
        connections: s.connections,
        slots: s.slots,
        slots_in_use: s.slots_in_use,
        slots_quarantined: s.slots_quarantined,
        slots_retired: s.slots_retired,
        fault: s.fault,
    });
    let mut callbacks = Vec::new();
    let show = |RunView { token, stage, sent, at, .. }| {
        let run = host.run(token);
        callbacks.push(CallbackReport {
            key: run.key,
            cookie: run.cookie,
            op: run.op,
            age_ns: run.age_ns,
            by_runtime: run.own,
            stage,
            sent,
            at: at.map(|(session, slot)| (key(session), slot)),
        });
        if callbacks.len() >= callbacks_max.saturating_mul(2).max(64) {
            keep_oldest(&mut callbacks, callbacks_max);
        }
    };
    if callbacks_max > 0 {
        client.backchannel.each_run(host, show);
    }
    keep_oldest(&mut callbacks, callbacks_max);
    ClientReport {
        client: client.id,
        home,
        tenant: TenantId(client.tenant),
        path: client.backchannel.path_state(),
        counters: *client.backchannel.counters(),
        census: client.census(),
        sessions: sessions.collect(),
        in_flight: host.shared.clients.get(client.id.index).map_or(0, |known| known.in_flight.count()),
        callbacks,
    }
}

fn keep_oldest(callbacks: &mut Vec<CallbackReport>, max: usize) {
    callbacks.sort_by_key(|callback| Reverse(callback.age_ns));
    callbacks.truncate(max);
}
