//! Describing the clients of a reactor.

use super::home::{Client, Home};
use super::host::ClientHost;
use crate::inspect::{CallbackReport, ClientReport, SessionReport};
use crate::keys::SessionKey;
use ringback_rpc::backchannel::{self, RunView};
use std::cmp::Reverse;

impl Home {
    pub fn inspect(&mut self, callbacks_max: usize) -> Vec<ClientReport> {
        let home = self.reactor;
        let indices = 0..self.clients.len() as u32;
        indices
            .filter_map(|index| self.act(index, |client, host| describe(client, host, home, callbacks_max)))
            .collect()
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
    client.backchannel.each_run(host, |RunView { token, stage, sent, at, .. }| {
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
    });
    keep_oldest(&mut callbacks, callbacks_max);
    ClientReport {
        client: client.id,
        home,
        path: client.backchannel.path_state(),
        sessions: sessions.collect(),
        in_flight: host.shared.clients.get(client.id.index).map_or(0, |known| known.in_flight.count()),
        callbacks,
    }
}

fn keep_oldest(callbacks: &mut Vec<CallbackReport>, max: usize) {
    callbacks.sort_by_key(|callback| Reverse(callback.age_ns));
    callbacks.truncate(max);
}
