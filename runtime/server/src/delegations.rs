//! Delegations: when one is recalled, when it goes (RFC 8881 section 10.2 and 10.4).
//!
//! A conflict starts a recall, and is refused with NFS4ERR_DELAY until the delegation is returned. When the return is
//! overdue it is revoked (section 10.2.1), and stays until the client acknowledges that with FREE_STATEID.
//! Attributes of a file that is delegated for writing are asked for instead, see `holder_attributes.rs`. When one is granted is in
//! `grants.rs`, what is told of directories in `watches.rs`.

use crate::arena::{Id, Link, Links, NONE};
use crate::callbacks::Callbacks;
use crate::clients::Client;
use crate::files::{Caller, Files, SHARDS, Shard, global, local, shard_number};
use crate::keep::{Keep, keep, malformed};
use crate::stateids::{Kind, check_seqid};
use crate::watches::Watch;
use ringback::CallbackKey;
use ringback_rpc::nfs4::{Stateid4, Status};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A delegation's stateid never changes after the grant.
pub(crate) const SEQID: u32 = 1;

/// One delegation.
#[derive(Debug)]
pub(crate) struct Delegation {
    pub(crate) file: u32,
    pub(crate) client: u32,
    pub(crate) in_file: Links,
    pub(crate) in_client: Links,
    /// The runtime's CB_RECALL for it.
    pub(crate) callback: CallbackKey,
    pub(crate) state: State,
    /// A write delegation; else one for reading.
    pub(crate) write: bool,
    /// A recall was sent, or is about to be.
    pub(crate) recalled: bool,
    /// The client has answered a recall. Asking again would tell it nothing new.
    pub(crate) answered: bool,
    /// The second of the server's life in which it was last seen to be of use.
    pub(crate) used_s: u32,
    /// How often the client has said that it holds no such delegation.
    pub(crate) denials: u8,
    /// Which of its callbacks still look at it after its return.
    pub(crate) looked_at: u8,
    /// What only some have.
    pub(crate) more: Option<Box<More>>,
}

/// What not every delegation has.
#[derive(Debug)]
pub(crate) enum More {
    /// A write delegation: what CB_GETATTR needs.
    Query(Query),
    /// A directory delegation: what CB_NOTIFY needs.
    Watch(Box<Watch>),
}

impl Keep for More {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            More::Query(query) => {
                false.save(out)?;
                query.save(out)
            }
            More::Watch(watch) => {
                true.save(out)?;
                watch.save(out)
            }
        }
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        if bool::load(from)? { Keep::load(from).map(More::Watch) } else { Keep::load(from).map(More::Query) }
    }
}

impl Delegation {
    /// Of a write delegation.
    pub(crate) fn query(&self) -> Option<&Query> {
        match self.more.as_deref() {
            Some(More::Query(query)) => Some(query),
            _ => None,
        }
    }

    /// Of a directory delegation.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        match self.more.as_deref() {
            Some(More::Watch(watch)) => Some(watch),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub(crate) fn watch_mut(&mut self) -> Option<&mut Watch> {
        match self.more.as_deref_mut() {
            Some(More::Watch(watch)) => Some(watch),
            _ => None,
        }
    }
}

/// What CB_GETATTR of a write delegation needs.
#[derive(Debug)]
pub(crate) struct Query {
    /// The runtime's CB_GETATTR.
    pub(crate) callback: CallbackKey,
    /// The change attribute that came with the grant, which the client reports for as long as it has changed nothing.
    pub(crate) granted_change: u64,
}

keep! {
    Delegation {
        file, client, in_file, in_client, callback, state, write, recalled, answered, used_s, denials, looked_at, more,
    }
    Query { callback, granted_change }
}

/// The callbacks of a delegation, as bits.
pub(crate) const RECALL: u8 = 1;
pub(crate) const GETATTR: u8 = 2;
pub(crate) const NOTIFY: u8 = 4;

const _: () = assert!(size_of::<Delegation>() <= 64);

/// Where a delegation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The client holds it; it may be on recall.
    Held,
    /// Taken away from the client, which has not acknowledged it. It is in the client's list only.
    Revoked,
    /// No client holds it, and it is in no list; a run of its callback still looks at it.
    Returned,
}

impl Keep for State {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        (*self as u8).save(out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        let number = usize::from(u8::load(from)?);
        [State::Held, State::Revoked, State::Returned].get(number).copied().ok_or_else(malformed)
    }
}

/// What a conflict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// The file is looked at: write delegations are in the way.
    Read,
    /// The file is changed: all delegations are.
    Write,
}

/// The list of a file's delegations.
pub(crate) struct OfFile;
/// The list of a client's delegations in a shard.
pub(crate) struct OfClient;

impl Link<Delegation> for OfFile {
    fn of(delegation: &mut Delegation) -> &mut Links {
        &mut delegation.in_file
    }
    fn of_ref(delegation: &Delegation) -> &Links {
        &delegation.in_file
    }
}

impl Link<Delegation> for OfClient {
    fn of(delegation: &mut Delegation) -> &mut Links {
        &mut delegation.in_client
    }
    fn of_ref(delegation: &Delegation) -> &Links {
        &delegation.in_client
    }
}

impl Shard {
    /// The delegations of a file.
    pub(crate) fn delegations_of(&self, file: u32) -> impl Iterator<Item = &Delegation> {
        let head = self.files.at(file).map_or(NONE, |f| f.delegations);
        self.delegations.list::<OfFile>(head).map(|(_, delegation)| delegation)
    }

    /// Where they are.
    pub(crate) fn indices_of(&self, file: u32) -> Vec<u32> {
        let head = self.files.at(file).map_or(NONE, |f| f.delegations);
        self.delegations.list::<OfFile>(head).map(|(index, _)| index).collect()
    }

    /// The delegations of a client, revoked ones too, and their indices.
    pub(crate) fn delegations_of_client(&self, client: u32) -> impl Iterator<Item = (u32, &Delegation)> {
        let head = self.holders.get(client as usize).map_or(NONE, |holder| holder.delegations);
        self.delegations.list::<OfClient>(head)
    }

    /// The client uses the file, on which it may hold a delegation; whether that is one for writing.
    pub(crate) fn use_delegation(&mut self, file: u32, client: u32, now_s: u32) -> Option<bool> {
        let mut index = self.files.at(file).map_or(NONE, |f| f.delegations);
        while let Some(delegation) = self.delegations.at_mut(index) {
            if delegation.client == client {
                delegation.used_s = now_s;
                return Some(delegation.write);
            }
            index = delegation.in_file.next();
        }
        None
    }
}

impl Files {
    /// Whether a client may open under the delegation that it names (CLAIM_DELEGATE_CUR, CLAIM_DELEG_CUR_FH).
    pub(crate) fn check_held(
        &self,
        shard: &Shard,
        number: usize,
        file: u32,
        client: &Client,
        stateid: &Stateid4,
    ) -> Result<(), Status> {
        let id = self.parse_stateid(Kind::Delegation, stateid)?;
        let here = shard_number(id) == number;
        let held = shard.delegations.get(local(id)).filter(|d| here && d.state != State::Returned);
        match held {
            Some(d) if d.client == client.index && d.state == State::Revoked => Err(Status::NFS4ERR_DELEG_REVOKED),
            Some(d) if d.client == client.index && d.file == file => check_seqid(stateid.seqid, SEQID),
            _ => Err(Status::NFS4ERR_BAD_STATEID),
        }
    }

    /// DELEGRETURN (RFC 8881 section 18.6) of a delegation of the current file.
    pub(crate) fn delegreturn(
        &self,
        file: Id,
        client: &Client,
        stateid: &Stateid4,
        callbacks: &Callbacks,
    ) -> Result<(), Status> {
        let (mut shard, number, id) = self.find_state(Kind::Delegation, stateid)?;
        let held = shard.delegations.get(id).ok_or(Status::NFS4ERR_BAD_STATEID)?.file;
        if shard.files.id_at(held).map(|f| global(number, f)) != Some(file) {
            return Err(Status::NFS4ERR_BAD_STATEID);
        }
        self.check_held(&shard, number, held, client, stateid)?;
        self.drop_delegation(&mut shard, id, callbacks);
        Ok(())
    }

    /// The client holds the delegation no longer. Its entry goes when no run of its callback can look at it any more:
    /// now, or in [`Files::forget_returned`].
    pub(crate) fn drop_delegation(&self, shard: &mut Shard, id: Id, callbacks: &Callbacks) {
        let Some(delegation) = shard.delegations.get_mut(id).filter(|d| d.state != State::Returned) else { return };
        let was = std::mem::replace(&mut delegation.state, State::Returned);
        if !callbacks.remove_is_final(delegation.callback) {
            delegation.looked_at |= RECALL;
        }
        let other = match delegation.more.as_deref_mut() {
            Some(More::Query(query)) => Some((query.callback, GETATTR)),
            Some(More::Watch(watch)) => {
                watch.clear(&self.changes);
                watch.notify.map(|notify| (notify, NOTIFY))
            }
            None => None,
        };
        if let Some((callback, bit)) = other
            && !callbacks.remove_is_final(callback)
        {
            delegation.looked_at |= bit;
        }
        let &mut Delegation { file, client, looked_at, .. } = delegation;
        if was == State::Held {
            self.take_from_file(shard, file, id);
        }
        let Shard { delegations, holders, .. } = &mut *shard;
        if let Some(holder) = holders.get_mut(client as usize) {
            delegations.unlink::<OfClient>(&mut holder.delegations, id.index);
            if was == State::Revoked {
                self.count_revoked(client, |count| count.fetch_sub(1, Relaxed));
            }
        }
        self.delegations.give_back();
        if looked_at == 0 {
            delegations.remove(id);
        }
        self.reap(shard, file);
    }

    fn take_from_file(&self, shard: &mut Shard, file: u32, id: Id) {
        let Shard { files, delegations, holders, .. } = shard;
        if let Some(file) = files.at_mut(file) {
            delegations.unlink::<OfFile>(&mut file.delegations, id.index);
        }
        if let Some(holder) = delegations.get(id).and_then(|d| holders.get_mut(d.client as usize)) {
            holder.held -= 1;
        }
    }

    /// Takes a delegation away from a client that has not returned it in time. It is out of everybody's way, and kept for
    /// the client to acknowledge (RFC 8881 section 10.2.1); until then it counts against the limit. A client of minor version 0
    /// has no FREE_STATEID for that: what it still says of the delegation is NFS4ERR_BAD_STATEID.
    pub(crate) fn revoke(&self, id: Id, callbacks: &Callbacks) {
        let (mut shard, id) = self.shard_of(id);
        let shard = &mut *shard;
        let Some(delegation) = shard.delegations.get_mut(id).filter(|d| d.state == State::Held) else { return };
        if self.keeps_no_revoked.get(delegation.client as usize).is_some_and(|no| no.load(Relaxed)) {
            self.revocations.fetch_add(1, Relaxed);
            return self.drop_delegation(shard, id, callbacks);
        }
        delegation.state = State::Revoked;
        let (file, client) = (delegation.file, delegation.client);
        self.take_from_file(shard, file, id);
        self.count_revoked(client, |count| count.fetch_add(1, Relaxed));
        self.revocations.fetch_add(1, Relaxed);
        // Its file may be gone before it.
        self.reap(shard, file);
    }

    /// Whether a client has revoked delegations to acknowledge.
    pub(crate) fn has_revoked(&self, client: u32) -> bool {
        self.revoked.get(client as usize).is_some_and(|count| count.load(Relaxed) > 0)
    }

    /// Whether a client, by its index, is one of minor version 0.
    pub(crate) fn keep_no_revoked(&self, client: u32, none: bool) {
        self.keeps_no_revoked.get(client as usize).inspect(|keeps_none| keeps_none.store(none, Relaxed));
    }

    /// How many delegations a client holds.
    pub(crate) fn delegations_held(&self, client: u32) -> u32 {
        (0..SHARDS).map(|n| self.shard(n).holders.get(client as usize).map_or(0, |holder| holder.held)).sum()
    }

    fn count_revoked(&self, client: u32, change: impl FnOnce(&AtomicU32) -> u32) {
        self.revoked.get(client as usize).map(change);
    }

    /// FREE_STATEID of a delegation (RFC 8881 section 18.38): only one that was revoked.
    pub(crate) fn free_delegation(
        &self,
        client: &Client,
        stateid: &Stateid4,
        callbacks: &Callbacks,
    ) -> Result<(), Status> {
        let (mut shard, _, id) = self.find_state(Kind::Delegation, stateid)?;
        match shard.delegations.get(id) {
            Some(d) if d.client != client.index || d.state == State::Returned => Err(Status::NFS4ERR_BAD_STATEID),
            Some(d) if d.state == State::Held => Err(Status::NFS4ERR_LOCKS_HELD),
            Some(_) => {
                self.drop_delegation(&mut shard, id, callbacks);
                Ok(())
            }
            None => Err(Status::NFS4ERR_BAD_STATEID),
        }
    }

    /// TEST_STATEID of a delegation.
    pub(crate) fn test_delegation(&self, client: &Client, stateid: &Stateid4) -> Result<(), Status> {
        let (shard, number, id) = self.find_state(Kind::Delegation, stateid)?;
        let file = shard.delegations.get(id).ok_or(Status::NFS4ERR_BAD_STATEID)?.file;
        self.check_held(&shard, number, file, client, stateid)
    }

    /// The last run of one of its callbacks is over: a delegation that was returned meanwhile goes when no other looks
    /// at it.
    pub(crate) fn forget_returned(&self, id: Id, callback: u8) {
        let (mut shard, id) = self.shard_of(id);
        let Some(delegation) = shard.delegations.get_mut(id) else { return };
        delegation.looked_at &= !callback;
        if delegation.state == State::Returned && delegation.looked_at == 0 {
            shard.delegations.remove(id);
        }
    }

    /// Forgets all that a client holds. The client is marked as gone first, so that nothing is added behind the sweep.
    pub(crate) fn forget_client(&self, client: u32, callbacks: &Callbacks) {
        for number in 0..SHARDS {
            let mut shard = self.shard(number);
            while let Some(holder) = shard.holders.get(client as usize).copied() {
                if let Some(id) = shard.locks.id_at(holder.locks) {
                    let file = shard.locks.get(id).map_or(NONE, |owner| owner.file);
                    self.drop_lock_owner(&mut shard, id);
                    self.notify_waiters(&mut shard, file, callbacks);
                } else if let Some(id) = shard.opens.id_at(holder.opens) {
                    self.drop_open(&mut shard, id, callbacks);
                } else if let Some(id) = shard.delegations.id_at(holder.delegations) {
                    self.drop_delegation(&mut shard, id, callbacks);
                } else {
                    break;
                }
            }
        }
    }

    /// Recalls what other clients hold on the file and is in the way; whether anything is. Who comes again meanwhile, or for
    /// the same reason, waits for the same returns; nothing more is sent, or walked through, until all of that is settled.
    pub(crate) fn recall_of_others(
        &self,
        shard: &mut Shard,
        file: u32,
        caller: &Caller<'_>,
        about: Conflict,
        callbacks: &Callbacks,
    ) -> bool {
        let conflicts = |d: &Delegation| d.client != caller.client.index && (d.write || about == Conflict::Write);
        self.recall_those(shard, file, caller, conflicts, callbacks)
    }

    /// The same, of those that `conflicts` names.
    pub(crate) fn recall_those(
        &self,
        shard: &mut Shard,
        file: u32,
        caller: &Caller<'_>,
        conflicts: impl Fn(&Delegation) -> bool,
        callbacks: &Callbacks,
    ) -> bool {
        let in_the_way = |d: &&Delegation| conflicts(d);
        let (Some(id), Some(_)) = (shard.files.id_at(file), shard.delegations_of(file).find(in_the_way)) else {
            return false;
        };
        if shard.recalls.get(&id).is_none_or(|group| group.settled().is_some()) {
            // Who has answered is not asked again: the return is awaited, or overdue some day.
            let unanswered = shard.delegations_of(file).filter(in_the_way).filter(|d| !d.answered);
            let keys: Vec<_> = unanswered.map(|d| d.callback).collect();
            shard.recalls.retain(|_, group| group.settled().is_none());
            if !keys.is_empty() {
                shard.recalls.extend(callbacks.recall_all(&keys).map(|group| (id, group)));
            }
        }
        if let Some(contended) = shard.files.at_mut(file) {
            contended.contended_until_s = caller.now_s.saturating_add(self.contended_s);
        }
        true
    }
}
