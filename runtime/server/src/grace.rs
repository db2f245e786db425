//! What clients may reclaim after a restart, and until when (RFC 8881 sections 8.4.2 and 8.4.2.1, RFC 7530 section 9.6).
//!
//! A client stands in the store if, and only if, it may reclaim after a restart that happens now. That is one rule instead of
//! the flags of section 8.4.2.1, and forbids a little more:
//!
//! - it is put there by RECLAIM_COMPLETE, before it gets anything that is new; a client of minor version 0, which has no such
//!   operation, by its first OPEN or LOCK that reclaims nothing;
//! - it is taken out before anybody may get what it had: when the server forgets it (its lease has run out, it has begun
//!   another life, it has said that it is gone), when something of it is revoked, until it has acknowledged that, and when a
//!   grace period ends in which it has not said that it has reclaimed all. So a client that was cut off while another one
//!   had its lock finds after a restart that there is nothing to reclaim (NFS4ERR_NO_GRACE), however often the server is
//!   restarted.
//!
//! The grace period is there for those that stand in the store at the start, and over when all of them have said that they
//! have reclaimed all, or have begun another life.

use crate::Inner;
use crate::arena::{Id, NONE};
use crate::callbacks::Callbacks;
use crate::clients::{Client, Principal, Record, Version};
use crate::compound::Compound;
use crate::delegations::{OfFile, SEQID};
use crate::files::{Caller, Files, SHARDS, Shard, global, local};
use crate::grants::{Granted, Granting};
use crate::holder_attributes::Question;
use crate::keep::{Keep, keep, malformed};
use crate::later::Message;
use crate::stateids::Kind;
use crate::store::{ClientName, Incarnation};
use ringback_rpc::nfs4::fore::DelegationType4;
use ringback_rpc::nfs4::{ClientId4, OpenNoneDelegation4, StableHow4, Status};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a client may do about what it had before a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Claims {
    /// Nothing is known of it, or not any more: somebody else may have had what it had.
    Nothing = 0,
    /// It is another life of the client that is known, or somebody else with its name.
    Anothers = 1,
    /// It had something, and nobody has had it since.
    Former = 2,
}

impl Claims {
    pub(crate) fn of(number: u8) -> Claims {
        [Claims::Nothing, Claims::Anothers, Claims::Former]
            .into_iter()
            .find(|c| *c as u8 == number)
            .unwrap_or(Claims::Nothing)
    }
}

/// How long after a reclaim the grace period is not over yet, so that a client that came late can reclaim the rest.
const LATE_NS: u64 = 2_000_000_000;

/// The grace period.
#[derive(Debug, Default)]
pub(crate) struct Grace {
    on: AtomicBool,
    /// When something was last reclaimed.
    reclaimed_ns: AtomicU64,
    awaited: Mutex<Awaited>,
}

#[derive(Debug, Default)]
struct Awaited {
    until_ns: u64,
    /// It lasts longer while something is reclaimed, but not longer than this.
    until_ns_max: u64,
    /// Who may reclaim, and has not said that it has reclaimed all.
    clients: HashMap<ClientName, Incarnation>,
}

keep! {
    ClientName { version, owner }
}

impl Keep for Version {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        (*self as u8).save(out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        match u8::load(from)? {
            0 => Ok(Version::Minor0),
            1 => Ok(Version::Later),
            _ => Err(malformed()),
        }
    }
}

impl Grace {
    /// A period for these clients; none if there are none.
    pub(crate) fn new(clients: HashMap<ClientName, Incarnation>, until_ns: u64, until_ns_max: u64) -> Self {
        let on = AtomicBool::new(!clients.is_empty());
        let awaited = Mutex::new(Awaited { until_ns, until_ns_max, clients });
        Grace { on, reclaimed_ns: AtomicU64::new(0), awaited }
    }

    fn awaited(&self) -> MutexGuard<'_, Awaited> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For another process.
    pub(crate) fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        let awaited = self.awaited();
        let clients: Vec<_> = awaited.clients.iter().map(|(name, life)| (name.clone(), *life)).collect();
        ((awaited.until_ns, awaited.until_ns_max), clients).save(out)
    }

    /// That of another process.
    pub(crate) fn load(from: &mut dyn Read) -> io::Result<Self> {
        let ((until_ns, until_ns_max), clients): (_, Vec<(ClientName, Incarnation)>) = Keep::load(from)?;
        Ok(Grace::new(clients.into_iter().collect(), until_ns, until_ns_max))
    }

    /// Who is awaited, and for how long.
    pub(crate) fn left(&self, now_ns: u64) -> Option<(usize, Duration)> {
        let awaited = self.awaited();
        self.is_on().then(|| (awaited.clients.len(), Duration::from_nanos(awaited.until_ns.saturating_sub(now_ns))))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Whether something may be done that could be in the way of what is still to be reclaimed.
    pub(crate) fn check(&self) -> Result<(), Status> {
        if self.is_on() { Err(Status::NFS4ERR_GRACE) } else { Ok(()) }
    }

    /// Whether the name is that of a client of somebody else, which may come and reclaim. It counts as one whose lease has
    /// not run out.
    pub(crate) fn is_anothers(&self, name: &ClientName, principal: Principal) -> bool {
        self.is_on() && self.awaited().clients.get(name).is_some_and(|life| life.principal != principal)
    }

    fn claims(&self, name: &ClientName, incarnation: Incarnation) -> Claims {
        if !self.is_on() {
            return Claims::Nothing;
        }
        match self.awaited().clients.get(name) {
            None => Claims::Nothing,
            Some(life) if *life == incarnation => Claims::Former,
            Some(_) => Claims::Anothers,
        }
    }

    /// A client is awaited no longer; whether none is.
    fn forget(&self, name: &ClientName) -> bool {
        let mut awaited = self.awaited();
        awaited.clients.remove(name);
        awaited.clients.is_empty()
    }
}

impl Inner {
    /// What a client may reclaim that is being confirmed. Who may reclaim nothing with the name of one that could makes sure
    /// that that one will not: it is another life of it.
    pub(crate) fn begin_claims(&self, client: &Client, record: &Record) -> Result<(), Status> {
        let name = record.name();
        let claims = self.files.grace.claims(&name, record.incarnation());
        if claims == Claims::Anothers {
            self.forget_record(&name)?;
        }
        client.set_claims(claims);
        Ok(())
    }

    /// The client may reclaim after a restart from now on, as it has reclaimed all that it wants to.
    pub(crate) fn remember(&self, id: ClientId4) -> Result<(), Status> {
        let Some(store) = &self.store else { return Ok(()) };
        let found = self.clients().records.get(&id.0).and_then(|record| {
            let index = record.client.as_ref()?.index;
            Some((record.name(), record.incarnation(), index))
        });
        let Some((name, incarnation, index)) = found else { return Ok(()) };
        // Until it has acknowledged what was taken away from it.
        if !self.files.has_revoked(index) {
            self.stored(store.put(&name, incarnation))?;
        }
        let none_left = self.files.grace.forget(&name);
        if none_left && self.files.grace.is_on() {
            self.end_grace();
        }
        Ok(())
    }

    /// Nothing may be reclaimed by a client of that name after a restart from now on.
    pub(crate) fn forget_record(&self, name: &ClientName) -> Result<(), Status> {
        let Some(store) = &self.store else { return Ok(()) };
        self.stored(store.remove([name]))?;
        self.files.grace.forget(name);
        Ok(())
    }

    /// Takes a delegation away that was not returned in time. Its client could have it back after a restart if that were not
    /// written first, which is not done here: this is a reactor.
    pub(crate) fn revoke(&self, id: Id) {
        match self.store {
            Some(_) => self.later.send(Message::Revoke(id)),
            None => self.files.revoke(id, &self.callbacks),
        }
    }

    /// The same where the disk may be waited for; whether it could be written.
    pub(crate) fn revoke_now(&self, id: Id) -> bool {
        let holder = {
            let (shard, local) = self.files.shard_of(id);
            shard.delegations.get(local).map(|delegation| delegation.client)
        };
        let clients = self.clients();
        let of_holder = |record: &&Record| record.client.as_ref().is_some_and(|c| Some(c.index) == holder);
        let name = clients.records.values().find(of_holder).map(Record::name);
        drop(clients);
        let written = name.is_none_or(|name| self.forget_record(&name).is_ok());
        if written {
            self.files.revoke(id, &self.callbacks);
        }
        written
    }

    /// A client has acknowledged that something was taken away from it: what it has left it may reclaim, if that was all.
    pub(crate) fn has_acknowledged(&self, client: &Client) {
        if self.store.is_some() && client.has_reclaimed() && !self.files.has_revoked(client.index) {
            self.later.send(Message::Remember(client.id));
        }
    }

    /// How stable data is that nobody has asked to be stored.
    pub(crate) fn stability(&self) -> StableHow4 {
        if self.store.is_some() { StableHow4::Unstable } else { StableHow4::FileSync }
    }

    /// The grace period has lasted long enough, or nobody is left to wait for: it is over once that is on the disk.
    pub(crate) fn end_grace(&self) {
        let Some(store) = &self.store else { return };
        let grace = &self.files.grace;
        let mut awaited = grace.awaited();
        // If it cannot be written nobody gets what may have been somebody else's.
        if self.stored(store.remove(awaited.clients.keys())).is_ok() {
            awaited.clients.clear();
            grace.on.store(false, Relaxed);
            drop(awaited);
            self.files.reap_nameless();
        }
    }

    /// Ends the grace period if it has lasted long enough.
    pub(crate) fn end_grace_in_time(&self, now_ns: u64) {
        let grace = &self.files.grace;
        let over = grace.is_on() && {
            let awaited = grace.awaited();
            let last_ns = grace.reclaimed_ns.load(Relaxed).saturating_add(LATE_NS);
            now_ns >= awaited.until_ns.max(last_ns.min(awaited.until_ns_max)) || awaited.clients.is_empty()
        };
        if over {
            self.end_grace();
        }
    }

    /// What a client is told when something could not be stored: to come again.
    fn stored(&self, result: io::Result<()>) -> Result<(), Status> {
        result.map_err(|error| {
            self.callbacks.observer().storage_failed(&error);
            Status::NFS4ERR_DELAY
        })
    }
}

impl Files {
    /// Grants what a client had before a restart. It must be granted, whatever the limits and even if it cannot be recalled
    /// for now (RFC 8881 section 10.2.1); if it is in the way of what others have reclaimed it is recalled at once.
    pub(crate) fn reclaim_delegation(
        &self,
        shard: &mut Shard,
        number: usize,
        file: u32,
        (caller, held): (&Caller<'_>, DelegationType4),
        callbacks: &Callbacks,
    ) -> Result<Granted, OpenNoneDelegation4> {
        let write = match held {
            DelegationType4::Read => false,
            DelegationType4::Write => true,
            DelegationType4::None | DelegationType4::NoneExt => return Err(OpenNoneDelegation4::NotWanted),
        };
        let client = caller.client;
        let others = shard.delegations_of(file).any(|d| d.client != client.index && (write || d.write));
        let recall = others || shard.is_open_by_others(file, client, write);
        let head = shard.files.at(file).map_or(NONE, |f| f.delegations);
        let own = shard.delegations.list::<OfFile>(head).find(|(_, d)| d.client == client.index);
        // By each of its opens it says that it had it.
        let own = own.filter(|(_, d)| d.write == write).and_then(|(index, _)| shard.delegations.id_at(index));
        let id = match own {
            Some(local) => global(number, local),
            None => {
                let kind = if write { Granting::Write } else { Granting::Read };
                self.delegations.force(1);
                let linked = self.link_delegation(shard, number, (file, kind), caller, callbacks);
                linked.ok_or_else(|| {
                    self.delegations.give_back();
                    OpenNoneDelegation4::Resource { will_signal: false }
                })?
            }
        };
        if recall && let Some(delegation) = shard.delegations.get(local(id)) {
            callbacks.recall(delegation.callback);
        }
        Ok(Granted { stateid: self.stateid(Kind::Delegation, id, SEQID), write, recall })
    }

    /// Frees files that have no name and that nobody has reclaimed.
    pub(crate) fn reap_nameless(&self) {
        for number in 0..SHARDS {
            let mut shard = self.shard(number);
            for index in 0..shard.files.index_end() {
                self.reap(&mut shard, index);
            }
        }
    }
}

impl Compound<'_> {
    /// Whether the operation can go on here. If not, it waits for a thread on which the disk may be waited for.
    pub(crate) fn may_store(&mut self) -> bool {
        let may = self.may_wait || self.server.store.is_none();
        if !may {
            self.question = Some(Question::Storage);
        }
        may
    }

    /// Whether the client may reclaim now (RFC 8881 sections 8.4.2 and 9.11).
    pub(crate) fn may_reclaim(&self, client: &Client) -> Result<(), Status> {
        match client.claims() {
            _ if client.has_reclaimed() || !self.server.files.grace.is_on() => Err(Status::NFS4ERR_NO_GRACE),
            Claims::Nothing => Err(Status::NFS4ERR_NO_GRACE),
            Claims::Anothers => Err(Status::NFS4ERR_RECLAIM_BAD),
            Claims::Former => {
                self.server.files.grace.reclaimed_ns.store(self.origin.now_ns, Relaxed);
                Ok(())
            }
        }
    }

    /// Whether the client may open or lock something new. It may not before RECLAIM_COMPLETE, even if it has nothing to
    /// reclaim (section 18.51.3), nor while others may reclaim.
    pub(crate) fn may_take_new(&mut self, client: &Arc<Client>) -> Result<(), Status> {
        if self.is_minor0() && !client.has_reclaimed() {
            // What is new says that there is nothing more to be reclaimed.
            self.server.files.grace.check()?;
            if !self.may_store() {
                return Err(Status::NFS4ERR_DELAY);
            }
            self.server.remember(client.id)?;
            client.complete_reclaim();
        }
        if !client.has_reclaimed() {
            return Err(Status::NFS4ERR_GRACE);
        }
        self.server.files.grace.check()
    }

    /// RECLAIM_COMPLETE (RFC 8881 section 18.51).
    pub(crate) fn reclaim_complete(&self, one_fs: bool) -> Result<(), Status> {
        let client = &self.session()?.client;
        if one_fs {
            self.file()?;
            // There is one file system: what may be reclaimed in it is all that may be.
            client.set_claims(Claims::Nothing);
            return if client.complete_file_system() { Ok(()) } else { Err(Status::NFS4ERR_COMPLETE_ALREADY) };
        }
        if client.has_reclaimed() {
            return Err(Status::NFS4ERR_COMPLETE_ALREADY);
        }
        self.server.remember(client.id)?;
        client.complete_reclaim().then_some(()).ok_or(Status::NFS4ERR_COMPLETE_ALREADY)
    }
}
