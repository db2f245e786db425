//! What the server knows of its clients beside what the runtime does: with both, a client is described. It stands in a
//! checkpoint, so that a file is looked at as a server is.

use crate::Inner;
use crate::inspect::{
    InspectedCallback, InspectedClient, InspectedLatency, InspectedReactor, InspectedRuns, InspectedSession,
    InspectedTenant, Inspection, counters, hex,
};
use ringback::{CallbackReport, Checkpoint, ClientReport, SessionKey, SessionReport, Snapshot};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::PoisonError;

/// The server at one moment.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Roster {
    clients: Vec<ListedClient>,
    sessions: Vec<ListedSession>,
    delegations: u64,
    delegations_max: u64,
    files: u64,
    lease_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ListedClient {
    /// The runtime's name for it.
    callbacks: u64,
    name: String,
    id: String,
    silent_ms: u64,
    courtesy: bool,
    delegations: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct ListedSession {
    /// The runtime's name for it: client and number.
    key: (u64, u64),
    id: String,
    fore_slots: u32,
    fore_slots_target: u32,
}

type Sessions<'a> = HashMap<(u64, u64), &'a ListedSession>;

impl Inner {
    pub(crate) fn roster(&self) -> Roster {
        let sessions: Vec<_> = self.sessions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let sessions = sessions.iter().map(|session| {
            let slots = session.slots();
            let (client, serial) = session.key.to_parts();
            ListedSession {
                key: (client.to_bits(), serial),
                id: hex(&session.id.0),
                fore_slots: slots.highest().0 + 1,
                fore_slots_target: slots.target().0 + 1,
            }
        });
        let held = self.held_by_clients();
        let known: Vec<_> = self.clients().records.values().filter_map(|r| r.client.clone()).collect();
        let now_ns = self.now_ns();
        let clients = known.iter().map(|client| ListedClient {
            callbacks: client.callbacks.to_bits(),
            name: client.owner.escape_ascii().to_string(),
            id: format!("{:x}", client.id.0),
            silent_ms: client.silent_ns(now_ns) / 1_000_000,
            courtesy: self.is_expired(client, now_ns),
            delegations: held.get(client.index as usize).copied().unwrap_or(0),
        });
        let quota = &self.files.delegations;
        Roster {
            sessions: sessions.collect(),
            clients: clients.collect(),
            delegations: quota.used(),
            delegations_max: quota.max(),
            files: self.files.files.used(),
            lease_ms: u64::try_from(self.config.lease.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Roster {
    /// With what the runtime knows; `file_of` tells which file a callback is about, by its cookie.
    pub(crate) fn inspection(&self, snapshot: Snapshot, file_of: impl Fn(u64) -> Option<u64>) -> Inspection {
        let latencies = snapshot.latencies().iter().filter(|l| l.count() > 0).map(InspectedLatency::from).collect();
        let sessions: Sessions<'_> = self.sessions.iter().map(|session| (session.key, session)).collect();
        let labels: HashMap<_, _> = snapshot.tenants.iter().map(|t| (t.tenant, t.label.clone())).collect();
        let mut reports: HashMap<_, _> = snapshot.clients.into_iter().map(|r| (r.client.to_bits(), r)).collect();
        let describe = |client: &ListedClient| {
            let report = reports.remove(&client.callbacks)?;
            let tenant = labels.get(&report.tenant).cloned();
            Some(InspectedClient { tenant, ..self.describe(client, &report, &sessions, &file_of) })
        };
        let mut clients: Vec<InspectedClient> = self.clients.iter().filter_map(describe).collect();
        clients.sort_by_key(|client| Reverse(client.callbacks.first().map(|callback| callback.age_ms)));
        Inspection {
            reactors: snapshot.reactors.iter().map(InspectedReactor::from).collect(),
            latencies,
            tenants: snapshot.tenants.iter().map(InspectedTenant::from).collect(),
            clients,
            delegations: self.delegations,
            delegations_max: self.delegations_max,
            files: self.files,
        }
    }

    fn describe(
        &self,
        client: &ListedClient,
        report: &ClientReport,
        sessions: &Sessions<'_>,
        file_of: impl Fn(u64) -> Option<u64>,
    ) -> InspectedClient {
        // A session that is being destroyed may be known to the runtime still.
        let listed = |key: SessionKey| {
            let (client, serial) = key.to_parts();
            sessions.get(&(client.to_bits(), serial))
        };
        let name = |key| listed(key).map_or(String::new(), |session| session.id.clone());
        let session = |s: &SessionReport| InspectedSession {
            id: name(s.session),
            fore_slots: listed(s.session).map_or(0, |session| session.fore_slots),
            fore_slots_target: listed(s.session).map_or(0, |session| session.fore_slots_target),
            connections: s.connections,
            slots: s.slots,
            slots_in_use: s.slots_in_use,
            slots_quarantined: s.slots_quarantined,
            slots_retired: s.slots_retired,
            fault: s.fault.map(|fault| format!("{fault:?}")),
        };
        let stuck_ms = (self.lease_ms / 10).max(1000);
        let callback = |c: &CallbackReport| {
            let age_ms = c.age_ns / 1_000_000;
            InspectedCallback {
                operation: c.op.to_string(),
                file: if c.by_runtime { None } else { file_of(c.cookie) },
                age_ms,
                stage: c.stage.name().to_owned(),
                sent: c.sent,
                at: c.at.map(|(session, slot)| (name(session), slot)),
                stuck: age_ms >= stuck_ms,
            }
        };
        InspectedClient {
            name: client.name.clone(),
            id: client.id.clone(),
            silent_ms: client.silent_ms,
            courtesy: client.courtesy,
            path: format!("{:?}", report.path).to_lowercase(),
            reactor: report.home,
            tenant: None,
            delegations: client.delegations,
            sessions: report.sessions.iter().map(session).collect(),
            counters: counters(report.counters.each(), &report.counters),
            runs: InspectedRuns::from(&report.census),
            in_flight: report.in_flight,
            callbacks: report.callbacks.iter().map(callback).collect(),
        }
    }
}

impl Inspection {
    /// What [`Server::inspect`](crate::Server::inspect) would have told when a checkpoint of a server was written. Which file
    /// a callback is about is not in it, nor how long callbacks took.
    pub fn of_checkpoint(checkpoint: &Checkpoint, callbacks_max: usize) -> Result<Inspection, String> {
        let roster: Roster = serde_json::from_slice(&checkpoint.own())
            .map_err(|_| "the checkpoint was not written by this file server".to_owned())?;
        let snapshot = checkpoint.snapshot(callbacks_max).map_err(|error| error.to_string())?;
        Ok(roster.inspection(snapshot, |_| None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Server};
    use ringback::{Builder, TenantLimits};

    #[test]
    fn a_client_is_shown_with_its_tenant() {
        let server = Server::new(Config::default(), Builder::new().reactors(1), std::sync::Arc::new(())).unwrap();
        let runtime = server.runtime();
        let acme = runtime.add_tenant("acme", TenantLimits::default()).unwrap();
        let clients = [runtime.add_client_of(acme, None).unwrap(), runtime.add_client(None).unwrap()];
        let listed = |client: &ringback::ClientId| ListedClient {
            callbacks: client.to_bits(),
            name: "c".to_owned(),
            id: "1".to_owned(),
            silent_ms: 0,
            courtesy: false,
            delegations: 0,
        };
        let roster = Roster { clients: clients.iter().map(listed).collect(), ..Roster::default() };
        let seen = roster.inspection(runtime.snapshot(0).unwrap(), |_| None);
        let tenants: Vec<_> = seen.clients.iter().map(|client| client.tenant.as_deref()).collect();
        assert_eq!(tenants, [Some("acme"), None]);
        let text = seen.to_string();
        assert!(text.contains("client 1 \"c\" of tenant \"acme\": path") && text.contains("\"c\": path"), "{text}");
    }
}
