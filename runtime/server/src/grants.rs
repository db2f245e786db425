//! Granting delegations: with OPEN, of directories, and by themselves (RFC 8881 sections 10.2, 18.16.3, 18.39 and 18.49).

use crate::arena::{Id, Links};
use crate::callbacks::{Callbacks, Subject};
use crate::clients::Client;
use crate::delegations::{Delegation, More, OfClient, OfFile, Query, SEQID, State};
use crate::file::{Maker, now};
use crate::files::{Caller, Files, HANDLE_BYTES, Shard, global, shard_number};
use crate::opens::{OpenRequest, WRITE};
use crate::stateids::Kind;
use crate::watches::Watch;
use ringback::CallbackKey;
use ringback_rpc::nfs4::fore::DirDelegation;
use ringback_rpc::nfs4::{
    NfsAce4, OpenDelegation4, OpenNoneDelegation4, OpenReadDelegation4, OpenWriteDelegation4, SpaceLimit4, Stateid4,
    Status, Verifier4,
};

/// A delegation that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) stateid: Stateid4,
    pub(crate) write: bool,
    /// It is being recalled already.
    pub(crate) recall: bool,
}

impl Granted {
    pub(crate) fn on_the_wire<'r>(self) -> OpenDelegation4<'r> {
        let (stateid, recall, permissions) = (self.stateid, self.recall, NfsAce4::NONE);
        match self.write {
            // No limit of its own: a write that finds no room fails as it would without a delegation.
            true => OpenDelegation4::Write(OpenWriteDelegation4 {
                stateid,
                recall,
                space_limit: SpaceLimit4::Size(u64::MAX),
                permissions,
            }),
            false => OpenDelegation4::Read(OpenReadDelegation4 { stateid, recall, permissions }),
        }
    }
}

/// What kind of delegation is granted.
#[derive(Debug)]
pub(crate) enum Granting {
    Read,
    Write,
    Directory(Watch),
}

/// Why there is no directory delegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// Somebody else changes the directory, or the client has one already.
    Contended,
    /// There are too many.
    Full,
}

/// What an OPEN says about delegations (RFC 8881 section 18.16.3, OPEN4_SHARE_ACCESS_WANT_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    NoPreference,
    Read,
    Write,
    Any,
    No,
    Cancel,
}

impl Files {
    /// Grants a delegation with an open, or says why not.
    pub(crate) fn grant(
        &self,
        shard: &mut Shard,
        number: usize,
        file: u32,
        request: &OpenRequest<'_>,
        callbacks: &Callbacks,
    ) -> Result<Granted, OpenNoneDelegation4> {
        let write = self.wanted(request)?;
        // Without a callback path a delegation could not be recalled (RFC 8881 section 10.2).
        if !request.has_path {
            return Err(OpenNoneDelegation4::Resource { will_signal: false });
        }
        let id = self.grant_now(shard, number, (file, write), &request.caller, callbacks)?;
        Ok(Granted { stateid: self.stateid(Kind::Delegation, id, SEQID), write, recall: false })
    }

    /// Grants one if nobody is in the way.
    fn grant_now(
        &self,
        shard: &mut Shard,
        number: usize,
        (file, write): (u32, bool),
        caller: &Caller<'_>,
        callbacks: &Callbacks,
    ) -> Result<Id, OpenNoneDelegation4> {
        let contended = match shard.files.at(file) {
            Some(f) => f.contended_until_s > caller.now_s,
            None => return Err(OpenNoneDelegation4::Resource { will_signal: false }),
        };
        let client = caller.client;
        let others = write && shard.delegations_of(file).any(|d| d.client != client.index);
        if contended || others || shard.is_open(file, client, write) {
            return Err(OpenNoneDelegation4::Contention { will_push: false });
        }
        if let Some(has_write) = shard.use_delegation(file, client.index, caller.now_s) {
            return Err(match (has_write, write) {
                (false, true) => OpenNoneDelegation4::NotSupportedUpgrade,
                (true, false) => OpenNoneDelegation4::NotSupportedDowngrade,
                _ => OpenNoneDelegation4::NotWanted,
            });
        }
        let kind = if write { Granting::Write } else { Granting::Read };
        let id = self.add_delegation(shard, number, (file, kind), caller, callbacks);
        id.ok_or(OpenNoneDelegation4::Resource { will_signal: false })
    }

    /// WANT_DELEGATION (RFC 8881 section 18.49), and what is done for who waits: a delegation without an open. The inner error
    /// says why there is none.
    pub(crate) fn grant_wanted(
        &self,
        file: Id,
        client: &Client,
        write: bool,
        now_s: u32,
        callbacks: &Callbacks,
    ) -> Result<Result<Id, OpenNoneDelegation4>, Status> {
        let (mut shard, number, index) = self.live(file)?;
        if client.is_gone() {
            return Err(Status::NFS4ERR_DEADSESSION);
        }
        match shard.files.at(index).ok_or(Status::NFS4ERR_STALE)?.data() {
            Ok(_) => {}
            Err(Status::NFS4ERR_ISDIR) => return Ok(Err(OpenNoneDelegation4::IsDirectory)),
            Err(_) => return Ok(Err(OpenNoneDelegation4::NotSupportedFileType)),
        }
        if write && !self.write_delegations {
            return Ok(Err(OpenNoneDelegation4::WriteNotSupportedFileType));
        }
        let maker = Maker { uid: 0, gid: 0, now: now() };
        let caller = Caller { client, now_s, maker };
        Ok(self.grant_now(&mut shard, number, (index, write), &caller, callbacks))
    }

    /// A delegation that is offered, and the handle of its file.
    pub(crate) fn offered(&self, id: Id) -> Option<(Granted, [u8; HANDLE_BYTES])> {
        let (shard, local) = self.shard_of(id);
        let delegation = shard.delegations.get(local).filter(|d| d.state == State::Held)?;
        let handle = self.handle(global(shard_number(id), shard.files.id_at(delegation.file)?));
        let stateid = self.stateid(Kind::Delegation, id, SEQID);
        Some((Granted { stateid, write: delegation.write, recall: false }, handle))
    }

    /// Nobody has taken it.
    pub(crate) fn drop_unaccepted(&self, id: Id, callbacks: &Callbacks) {
        let (mut shard, local) = self.shard_of(id);
        self.drop_delegation(&mut shard, local, callbacks);
    }

    /// GET_DIR_DELEGATION (RFC 8881 section 18.39): what is granted of `watch`, or why nothing is. Names are not taken away
    /// meanwhile: nobody grants one between the look whether there is any in the way and the change.
    pub(crate) fn grant_directory(
        &self,
        directory: Id,
        caller: &Caller<'_>,
        watch: Watch,
        callbacks: &Callbacks,
    ) -> Result<Result<DirDelegation, Unavailable>, Status> {
        let _alone = self.namespace();
        let (mut shard, number, index) = self.live(directory)?;
        if caller.client.is_gone() {
            return Err(Status::NFS4ERR_DEADSESSION);
        }
        let file = shard.files.at(index).ok_or(Status::NFS4ERR_STALE)?;
        let entries = file.directory()?;
        if entries.removed {
            return Err(Status::NFS4ERR_STALE);
        }
        let verifier = Verifier4(entries.verifier.to_be_bytes());
        let has_one = shard.delegations_of(index).any(|d| d.client == caller.client.index);
        if has_one || file.contended_until_s > caller.now_s {
            return Ok(Err(Unavailable::Contended));
        }
        let (notification_types, child_attributes) = (watch.types, watch.child_attributes);
        let directory_attributes = watch.directory_attributes;
        let kind = Granting::Directory(watch);
        let Some(id) = self.add_delegation(&mut shard, number, (index, kind), caller, callbacks) else {
            return Ok(Err(Unavailable::Full));
        };
        Ok(Ok(DirDelegation {
            cookie_verifier: verifier,
            stateid: self.stateid(Kind::Delegation, id, SEQID),
            notification_types,
            child_attributes,
            directory_attributes,
        }))
    }

    /// Counts a delegation and adds it, if there may be one more.
    fn add_delegation(
        &self,
        shard: &mut Shard,
        number: usize,
        what: (u32, Granting),
        caller: &Caller<'_>,
        callbacks: &Callbacks,
    ) -> Option<Id> {
        if !self.take_delegation(callbacks) {
            return None;
        }
        let added = self.link_delegation(shard, number, what, caller, callbacks);
        if added.is_none() {
            self.delegations.give_back();
        }
        added
    }

    /// Counts one more delegation. The reaper makes room if there is none.
    fn take_delegation(&self, callbacks: &Callbacks) -> bool {
        let taken = self.delegations.take();
        if !taken {
            callbacks.want_room();
        }
        taken
    }

    /// Which delegation an open is good for: one for writing, one for reading, or none.
    fn wanted(&self, request: &OpenRequest<'_>) -> Result<bool, OpenNoneDelegation4> {
        let writes = request.access & WRITE != 0;
        match request.want {
            Want::No => Err(OpenNoneDelegation4::NotWanted),
            Want::Cancel => Err(OpenNoneDelegation4::Cancelled),
            Want::NoPreference | Want::Any => match writes && !self.write_delegations {
                true => Err(OpenNoneDelegation4::WriteNotSupportedFileType),
                false => Ok(writes),
            },
            Want::Read if !writes => Ok(false),
            Want::Write if writes && self.write_delegations => Ok(true),
            Want::Read | Want::Write => Err(OpenNoneDelegation4::WriteNotSupportedFileType),
        }
    }

    /// The delegation comes first, as the callback's cookie is its name.
    pub(crate) fn link_delegation(
        &self,
        shard: &mut Shard,
        number: usize,
        (file, kind): (u32, Granting),
        &Caller { client, now_s, .. }: &Caller<'_>,
        callbacks: &Callbacks,
    ) -> Option<Id> {
        let change = shard.files.at(file)?.change;
        let write = matches!(kind, Granting::Write);
        let watch = if let Granting::Directory(watch) = kind { Some(watch) } else { None };
        let notifies = watch.as_ref().is_some_and(|watch| !watch.types.is_empty());
        let local = shard.delegations.insert(Delegation {
            file,
            client: client.index,
            in_file: Links::ALONE,
            in_client: Links::ALONE,
            callback: CallbackKey::from_bits(u64::MAX),
            state: State::Held,
            write,
            recalled: false,
            answered: false,
            used_s: now_s,
            denials: 0,
            looked_at: 0,
            more: watch.map(|watch| Box::new(More::Watch(Box::new(watch)))),
        })?;
        let id = global(number, local);
        let recall = callbacks.insert(client.callbacks, Subject::Recall(id));
        let other = match (write, notifies) {
            (true, _) => Some(Subject::Attributes(id)),
            (_, true) => Some(Subject::Notify(id)),
            _ => None,
        };
        let asked = recall.and(other).and_then(|about| callbacks.insert(client.callbacks, about));
        let (Some(callback), true) = (recall, asked.is_some() == other.is_some()) else {
            recall.map(|callback| callbacks.remove_is_final(callback));
            shard.delegations.remove(local);
            return None;
        };
        if let Some(delegation) = shard.delegations.get_mut(local) {
            delegation.callback = callback;
            match (delegation.watch_mut(), asked) {
                (Some(watch), notify) => watch.notify = notify,
                (None, Some(callback)) => {
                    delegation.more = Some(Box::new(More::Query(Query { callback, granted_change: change })));
                }
                (None, None) => {}
            }
        }
        shard.holder(client.index);
        let Shard { files, delegations, holders, .. } = shard;
        delegations.link::<OfFile>(&mut files.at_mut(file)?.delegations, local.index);
        let holder = holders.get_mut(client.index as usize)?;
        delegations.link::<OfClient>(&mut holder.delegations, local.index);
        holder.held += 1;
        Some(id)
    }
}
