//! Delegations: when one is granted, when it is recalled, when it goes (RFC 8881 section 10.2 and 10.4).
//!
//! Only read delegations: the server keeps no data yet, so that a write delegation would protect nothing.

use crate::arena::{Id, Link, Links};
use crate::callbacks::Callbacks;
use crate::clients::Client;
use crate::files::{Files, SHARDS, Shard, global, local, shard_number};
use crate::opens::{OpenRequest, WRITE};
use crate::stateids::{Kind, check_seqid};
use ringback::CallbackKey;
use ringback_rpc::nfs4::{OpenNoneDelegation4, Stateid4, Status};

/// A delegation's stateid never changes after the grant.
pub(crate) const SEQID: u32 = 1;

/// One delegation.
#[derive(Debug)]
pub(crate) struct Delegation {
    pub(crate) file: u32,
    pub(crate) client: u32,
    in_file: Links,
    in_client: Links,
    /// The runtime's CB_RECALL for it.
    pub(crate) callback: CallbackKey,
    pub(crate) state: State,
    /// No recall because of a conflict before this second: the client has answered one, and asking again would tell it
    /// nothing new.
    pub(crate) quiet_until_s: u32,
    /// How often the client has said that it holds no such delegation.
    pub(crate) denials: u8,
}

const _: () = assert!(size_of::<Delegation>() <= 64);

/// Where a delegation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The client holds it; it may be on recall.
    Held,
    /// No client holds it, and it is in no list; a run of its callback still looks at it.
    Returned,
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
    /// Grants a read delegation with an open, or says why not.
    pub(crate) fn grant(
        &self,
        shard: &mut Shard,
        number: usize,
        file: u32,
        request: &OpenRequest<'_>,
        callbacks: &Callbacks,
    ) -> Result<Stateid4, OpenNoneDelegation4> {
        match request.want {
            Want::No => return Err(OpenNoneDelegation4::NotWanted),
            Want::Cancel => return Err(OpenNoneDelegation4::Cancelled),
            Want::Write => return Err(OpenNoneDelegation4::WriteNotSupportedFileType),
            Want::NoPreference | Want::Read | Want::Any => {}
        }
        if request.access & WRITE != 0 {
            return Err(OpenNoneDelegation4::WriteNotSupportedFileType);
        }
        let (head, contended) = match shard.files.at(file) {
            Some(f) => (f.delegations, f.contended_until_s > request.now_s),
            None => return Err(OpenNoneDelegation4::Resource { will_signal: false }),
        };
        if contended || shard.has_writer(file) {
            return Err(OpenNoneDelegation4::Contention { will_push: false });
        }
        let client = request.client;
        let has_one = shard.delegations.list::<OfFile>(head).any(|(_, d)| d.client == client.index);
        // Without a callback path a delegation could not be recalled (RFC 8881 section 10.2).
        if has_one || !request.has_path || !self.delegations.take() {
            return Err(OpenNoneDelegation4::Resource { will_signal: false });
        }
        let granted = self.link_delegation(shard, number, file, client, callbacks);
        granted.map(|id| self.stateid(Kind::Delegation, id, SEQID)).ok_or_else(|| {
            self.delegations.give_back();
            OpenNoneDelegation4::Resource { will_signal: false }
        })
    }

    /// The delegation comes first, as the callback's cookie is its name.
    fn link_delegation(
        &self,
        shard: &mut Shard,
        number: usize,
        file: u32,
        client: &Client,
        callbacks: &Callbacks,
    ) -> Option<Id> {
        let local = shard.delegations.insert(Delegation {
            file,
            client: client.index,
            in_file: Links::ALONE,
            in_client: Links::ALONE,
            callback: CallbackKey::from_bits(u64::MAX),
            state: State::Held,
            quiet_until_s: 0,
            denials: 0,
        })?;
        let id = global(number, local);
        let Some(callback) = callbacks.insert(client.callbacks, id) else {
            shard.delegations.remove(local);
            return None;
        };
        if let Some(delegation) = shard.delegations.get_mut(local) {
            delegation.callback = callback;
        }
        shard.holder(client.index);
        let Shard { files, delegations, holders, .. } = shard;
        delegations.link::<OfFile>(&mut files.at_mut(file)?.delegations, local.index);
        delegations.link::<OfClient>(&mut holders.get_mut(client.index as usize)?.delegations, local.index);
        Some(id)
    }

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
        let Shard { files, delegations, holders, .. } = shard;
        let Some(delegation) = delegations.get_mut(id).filter(|d| d.state != State::Returned) else { return };
        delegation.state = State::Returned;
        let &mut Delegation { file, client, callback, .. } = delegation;
        if let Some(file) = files.at_mut(file) {
            delegations.unlink::<OfFile>(&mut file.delegations, id.index);
        }
        if let Some(holder) = holders.get_mut(client as usize) {
            delegations.unlink::<OfClient>(&mut holder.delegations, id.index);
        }
        self.delegations.give_back();
        if callbacks.remove_is_final(callback) {
            delegations.remove(id);
        }
    }

    /// The last run of a callback is over: a delegation that was returned meanwhile goes now.
    pub(crate) fn forget_returned(&self, id: Id) {
        let (mut shard, id) = self.shard_of(id);
        if shard.delegations.get(id).is_some_and(|d| d.state == State::Returned) {
            shard.delegations.remove(id);
        }
    }

    /// Forgets all that a client holds. The client is marked as gone first, so that nothing is added behind the sweep.
    pub(crate) fn forget_client(&self, client: u32, callbacks: &Callbacks) {
        for number in 0..SHARDS {
            let mut shard = self.shard(number);
            while let Some(holder) = shard.holders.get(client as usize).copied() {
                if let Some(id) = shard.opens.id_at(holder.opens) {
                    self.drop_open(&mut shard, id);
                } else if let Some(id) = shard.delegations.id_at(holder.delegations) {
                    self.drop_delegation(&mut shard, id, callbacks);
                } else {
                    break;
                }
            }
        }
    }

    /// Recalls what other clients hold on the file; whether they hold anything.
    pub(crate) fn recall_of_others(
        &self,
        shard: &mut Shard,
        file: u32,
        request: &OpenRequest<'_>,
        callbacks: &Callbacks,
    ) -> bool {
        let Some(contended) = shard.files.at_mut(file) else { return false };
        let mut conflict = false;
        let held = shard.delegations.list::<OfFile>(contended.delegations);
        for (_, delegation) in held.filter(|(_, d)| d.client != request.client.index) {
            conflict = true;
            if delegation.quiet_until_s <= request.now_s {
                callbacks.recall(delegation.callback);
            }
        }
        if conflict {
            contended.contended_until_s = request.now_s.saturating_add(self.contended_s);
        }
        conflict
    }
}
