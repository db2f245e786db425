//! When a client is forgotten: when it says that it is gone, and when its lease has run out and it is in somebody's way
//! (RFC 8881 sections 8.3 and 18.50). Until then an expired client is a courtesy client, and keeps what it has.

use crate::Inner;
use crate::clients::{Client, Clients, Record, Version};
use ringback_rpc::nfs4::{ClientId4, Status};
use std::sync::atomic::Ordering::Relaxed;

impl Inner {
    /// Whether somebody else must not take the client's name: it holds something, and its lease has not run out.
    pub(crate) fn is_in_use(&self, record: &Record, now_ns: u64) -> bool {
        let Some(client) = &record.client else { return false };
        let holds = !record.sessions.is_empty() || self.files.is_holder(client.index);
        holds && !self.is_expired(client, now_ns)
    }

    pub(crate) fn is_expired(&self, client: &Client, now_ns: u64) -> bool {
        client.silent_ns(now_ns) > self.config.lease.as_nanos() as u64
    }

    /// Forgets a client and all that it has: callbacks end as cancelled, sessions and state are gone.
    /// An error: it could not be written that it may reclaim nothing, and it stays.
    pub(crate) fn drop_client(&self, clients: &mut Clients, id: u64) -> Result<(), Status> {
        if let Some(known) = clients.records.get(&id).filter(|record| record.client.is_some()) {
            self.forget_record(&known.name())?;
        }
        let Some(record) = clients.remove(id) else { return Ok(()) };
        let Some(client) = record.client else { return Ok(()) };
        // First of all, so that a request that is being served on another reactor adds nothing behind the sweep.
        client.leave();
        for session in &record.sessions {
            self.drop_session(session);
        }
        self.callbacks.remove_client(client.callbacks);
        if record.version == Version::Minor0 {
            self.minor0.forget(&client);
            self.owners.forget_client(client.index);
            self.minor0.expired.add(self.files.states_of(client.index));
            self.files.keep_no_revoked(client.index, false);
        }
        self.copies.forget_client(&client, &self.callbacks);
        self.wants.forget_client(&client, &self.callbacks);
        self.layouts.forget_client(&client, &self.callbacks);
        self.files.forget_client(client.index, &self.callbacks);
        clients.give_index(client.index);
        Ok(())
    }

    /// Forgets the client that has been silent longest, if its lease has run out: its room is wanted. Until then an
    /// expired client keeps what nobody else asks for.
    pub(crate) fn drop_expired_client(&self, clients: &mut Clients, now_ns: u64) -> Result<(), Status> {
        let silent = |record: &Record| record.client.as_ref().map(|c| (c.renewed_ns(), c.id.0));
        let Some((_, id)) = clients.records.values().filter_map(silent).min() else { return Ok(()) };
        let client = clients.records.get(&id).and_then(|r| r.client.clone());
        match client.is_some_and(|c| self.is_expired(&c, now_ns)) {
            true => self.drop_client(clients, id),
            false => Ok(()),
        }
    }

    /// Whether the lease of any client has run out: what it holds may be in somebody's way. Looks at most once in a second,
    /// as all clients are looked at.
    pub(crate) fn has_courtesy_clients(&self, now_ns: u64) -> bool {
        let now_s = now_ns / 1_000_000_000;
        if self.courtesy_ended_s.swap(now_s, Relaxed) == now_s {
            return false;
        }
        self.clients().records.values().any(|record| self.is_courtesy(record, now_ns))
    }

    fn is_courtesy(&self, record: &Record, now_ns: u64) -> bool {
        record.client.as_ref().is_some_and(|c| self.is_expired(c, now_ns))
    }

    /// Forgets all clients whose lease has run out; whether there were any.
    pub(crate) fn end_courtesy(&self, now_ns: u64) -> bool {
        let mut clients = self.clients();
        let expired = clients.records.iter().filter(|(_, r)| self.is_courtesy(r, now_ns));
        let expired: Vec<u64> = expired.map(|(id, _)| *id).collect();
        expired.into_iter().filter(|id| self.drop_client(&mut clients, *id).is_ok()).count() > 0
    }

    /// DESTROY_CLIENTID (RFC 8881 section 18.50).
    pub(crate) fn destroy_client_id(&self, id: ClientId4, own: Option<&Client>) -> Result<(), Status> {
        let mut clients = self.clients();
        let record = clients.records.get(&id.0).filter(|r| r.minor0.is_none());
        let record = record.ok_or(Status::NFS4ERR_STALE_CLIENTID)?;
        let holds = record.client.as_ref().is_some_and(|c| self.files.is_holder(c.index) || self.layouts.has_any(c));
        // A session of the client that the request itself came on is a session that it still has.
        if holds || !record.sessions.is_empty() || own.is_some_and(|c| c.id == id) {
            return Err(Status::NFS4ERR_CLIENTID_BUSY);
        }
        self.drop_client(&mut clients, id.0)
    }
}
