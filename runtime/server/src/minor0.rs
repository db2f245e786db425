//! Minor version 0 (RFC 7530): compounds without a session.
//!
//! Files, and what is held on them, are the same for all minor versions. What is different is here: whose a request is, which
//! only some operations say (by a client id or a stateid), and whose turn it is, which owners count (`owners.rs`). SETCLIENTID
//! and its kin are in `set_client_id.rs`; everything else is executed as in minor version 1.

use crate::compound::Compound;
use crate::files::Files;
use crate::locks::OfClient as LocksOfClient;
use crate::opens::OfClient as OpensOfClient;
use crate::operations::write;
use crate::owners::{Owned, Owner, OwnerName, Turn, Turns, counts};
use crate::set_client_id::InUse;
use crate::stateids::Kind;
use ringback_rpc::nfs4::fore::{
    Locker, NetAddr4, Op, OpArgs, OpRes, OpenArgs, OpenClaim, OpenConfirmOk, OpenHow, SetClientIdArgs,
    SetClientIdFailure,
};
use ringback_rpc::nfs4::{ClientId4, Stateid4, Status};
use ringback_rpc::session::fingerprint;
use ringback_rpc::xdr::{self, Writer};
use std::collections::HashSet;

/// Where an operation stands: its number, how many there are, and where the reply began.
type Place = (usize, usize, usize);

/// An operation whose turn it has to be.
struct Request<'r> {
    op: &'r OpArgs<'r>,
    /// As it came.
    bytes: &'r [u8],
    owner: OwnerName,
    seqid: u32,
}

/// What an object of a stateid is to its owner.
struct State {
    client: u32,
    owner: Option<OwnerName>,
    unconfirmed: bool,
}

impl Compound<'_> {
    /// Executes one operation.
    pub(crate) fn minor0(
        &mut self,
        op: &OpArgs<'_>,
        bytes: &[u8],
        place: Place,
        w: &mut Writer<'_>,
    ) -> xdr::Result<Status> {
        let before = w.position();
        let status = match self.owner_of(op) {
            Err(status) => return self.refuse(op.op(), status, w),
            Ok(Some((owner, seqid))) => self.in_turn(&Request { op, bytes, owner, seqid }, place, w)?,
            Ok(None) => self.within_limits(op, place.0, place.1, place.2, w)?,
        };
        match in_words_of_minor0(status) {
            same if same == status => Ok(status),
            other => {
                w.rewind(before);
                self.refuse(op.op(), other, w)
            }
        }
    }

    /// Takes the name that an operation says, renews the lease of that client, and tells which owner's turn it has to be
    /// with which seqid.
    fn owner_of(&mut self, op: &OpArgs<'_>) -> Result<Option<(OwnerName, u32)>, Status> {
        match op {
            OpArgs::Open(args) => {
                check_open(args)?;
                let client = self.name(args.owner.client_id)?;
                Ok(Some((OwnerName::new(Owned::Opens, client, args.owner.owner()), args.seqid)))
            }
            OpArgs::OpenConfirm(args) => self.owner_of_state(&args.open_stateid, args.seqid, op.op()),
            OpArgs::OpenDowngrade(args) => self.owner_of_state(&args.open_stateid, args.seqid, op.op()),
            OpArgs::Close(args) => self.owner_of_state(&args.open_stateid, args.seqid, op.op()),
            OpArgs::Unlock(args) => self.owner_of_state(&args.lock_stateid, args.seqid, op.op()),
            OpArgs::Lock(args) => match &args.locker {
                Locker::Existing(lock) => self.owner_of_state(&lock.lock_stateid, lock.lock_seqid, op.op()),
                Locker::New(new) => {
                    let owner = self.owner_of_state(&new.open_stateid, new.open_seqid, op.op())?;
                    let client = self.client()?.id;
                    match self.name(new.lock_owner.client_id) {
                        Ok(_) if self.client()?.id == client => Ok(owner),
                        Ok(_) => Err(Status::NFS4ERR_BAD_STATEID),
                        Err(status) => Err(status),
                    }
                }
            },
            OpArgs::LockTest(args) => self.name(args.owner.client_id).map(|_| None),
            OpArgs::Renew(args) => {
                // What is wrong with it RENEW itself says.
                let _ = self.name(args.client_id);
                Ok(None)
            }
            OpArgs::ReleaseLockOwner(args) => self.name(args.lock_owner.client_id).map(|_| None),
            OpArgs::Read(args) => self.name_by_state(&args.stateid),
            OpArgs::Write(args) => self.name_by_state(&args.stateid),
            OpArgs::SetAttr(args) => self.name_by_state(&args.stateid),
            OpArgs::DelegReturn(args) => self.name_by_state(&args.deleg_stateid),
            _ => Ok(None),
        }
    }

    /// Whose the compound is, by a client id.
    fn name(&mut self, id: ClientId4) -> Result<u32, Status> {
        let client = self.server.client_of_id(id, self.origin.now_ns)?;
        self.server.minor0.note_user(self.origin.connection, &client);
        let index = client.index;
        self.named = Some(client);
        Ok(index)
    }

    fn name_by_state(&mut self, stateid: &Stateid4) -> Result<Option<(OwnerName, u32)>, Status> {
        if matches!(*stateid, Stateid4::ANONYMOUS | Stateid4::READ_BYPASS) {
            return Ok(None);
        }
        let state = self.state(stateid)?;
        if state.unconfirmed { Err(Status::NFS4ERR_BAD_STATEID) } else { Ok(None) }
    }

    /// The state that a stateid names. Its client is whose the compound is.
    fn state(&mut self, stateid: &Stateid4) -> Result<State, Status> {
        let state =
            self.server.files.state_of(stateid).map_err(|status| match self.server.files.parse_minor0(stateid) {
                Ok((kind, id)) if self.server.minor0.expired.contains(kind, id) => Status::NFS4ERR_EXPIRED,
                _ => status,
            })?;
        let client = self.server.minor0.of_index(state.client).ok_or(Status::NFS4ERR_BAD_STATEID)?;
        // Zero has no meaning of its own here.
        if stateid.seqid == 0 {
            return Err(Status::NFS4ERR_OLD_STATEID);
        }
        client.renew(self.origin.now_ns);
        self.server.minor0.note_user(self.origin.connection, &client);
        self.named = Some(client);
        Ok(state)
    }

    /// The owner of an open or of locks, by their stateid.
    fn owner_of_state(&mut self, stateid: &Stateid4, seqid: u32, op: Op) -> Result<Option<(OwnerName, u32)>, Status> {
        let state = match self.state(stateid) {
            Ok(state) => state,
            // It may be a retry of the CLOSE after which it is not known any more.
            Err(Status::NFS4ERR_BAD_STATEID) if op == Op::CLOSE => {
                let owner = self.server.owners.closer(stateid).ok_or(Status::NFS4ERR_BAD_STATEID)?;
                let is_retry = self.server.owners.find(&owner).is_some_and(|o| o.lock().is_last(seqid));
                return if is_retry { Ok(Some((owner, seqid))) } else { Err(Status::NFS4ERR_BAD_STATEID) };
            }
            Err(status) => return Err(status),
        };
        let owner = state.owner.ok_or(Status::NFS4ERR_BAD_STATEID)?;
        // An unconfirmed one is good for OPEN_CONFIRM only (RFC 7530 section 16.18.5).
        if state.unconfirmed && op != Op::OPEN_CONFIRM {
            return Err(Status::NFS4ERR_BAD_STATEID);
        }
        Ok(Some((owner, seqid)))
    }

    /// Executes an operation if it is its owner's next one, and answers again if it was the last.
    fn in_turn(&mut self, request: &Request<'_>, place: Place, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let (server, op) = (self.server, request.op.op());
        let now_s = (self.origin.now_ns / 1_000_000_000) as u32;
        let owner = match server.owners.get(&request.owner, now_s, &server.files) {
            Ok(owner) => owner,
            Err(status) => return self.refuse(op, status, w),
        };
        let mut turns = owner.lock();
        let digest = fingerprint(request.bytes);
        let mut judged = turns.judge(request.seqid, op, digest);
        if op == Op::OPEN && !turns.confirmed && !matches!(judged, Ok(Turn::Again(_))) {
            // The OPEN before, which nobody has confirmed, was none of the client's (RFC 7530 section 9.1.11).
            if let Some(stateid) = turns.unconfirmed.take() {
                server.files.cancel_open(&stateid, &server.callbacks);
            }
            turns.begin_anew();
            judged = Ok(Turn::Next);
        }
        match judged {
            Ok(Turn::Next) => {}
            Ok(Turn::Again(kept)) => {
                w.raw(&kept.result)?;
                self.current = kept.current;
                return Ok(kept.status());
            }
            Err(status) => return self.refuse(op, status, w),
        }
        let locks = match self.lock_owner(request.op, now_s) {
            Ok(locks) => locks,
            Err(status) => return self.refuse(op, status, w),
        };
        let mut lock_turns = locks.as_ref().map(|(owner, seqid)| (owner.lock(), *seqid));
        if lock_turns.as_ref().is_some_and(|(turns, seqid)| !turns.is_next(*seqid)) {
            return self.refuse(op, Status::NFS4ERR_BAD_SEQID, w);
        }
        let before = w.position();
        // What was opened before a restart is known not to be a late copy (RFC 7530 section 16.18.5).
        let reclaims = matches!(request.op, OpArgs::Open(OpenArgs { claim: OpenClaim::Previous(_), .. }));
        self.unconfirmed = op == Op::OPEN && !turns.confirmed && !reclaims;
        let status = self.within_limits(request.op, place.0, place.1, place.2, w)?;
        if self.question.is_some() {
            // It has not been its turn yet.
            self.unconfirmed = false;
            return Ok(status);
        }
        if counts(in_words_of_minor0(status)) {
            if let Some(closed) = turns.closed.take() {
                server.owners.forget_closed(&closed);
            }
            let result = w.written().get(before..).unwrap_or_default();
            turns.keep(request.seqid, (op, digest), result, self.current);
            if let Some((lock_turns, seqid)) = &mut lock_turns
                && (status.is_ok() || lock_turns.has_begun())
            {
                lock_turns.advance(*seqid);
            }
        }
        if status.is_ok() {
            self.note(request, &mut turns);
        }
        self.unconfirmed = false;
        Ok(status)
    }

    /// What a request that was served means for its owner.
    fn note(&self, request: &Request<'_>, turns: &mut Turns) {
        match request.op {
            OpArgs::Open(_) if self.unconfirmed => turns.unconfirmed = self.stateid,
            OpArgs::Open(_) => turns.confirmed = true,
            OpArgs::OpenConfirm(_) => (turns.confirmed, turns.unconfirmed) = (true, None),
            OpArgs::Close(args) => {
                turns.closed = Some(args.open_stateid);
                self.server.owners.note_closed(&args.open_stateid, &request.owner);
            }
            _ => {}
        }
    }

    /// The lock-owner whose first LOCK of a file it is, and its seqid.
    fn lock_owner(&self, op: &OpArgs<'_>, now_s: u32) -> Result<Option<(Owner, u32)>, Status> {
        let OpArgs::Lock(args) = op else { return Ok(None) };
        let Locker::New(new) = &args.locker else { return Ok(None) };
        let name = OwnerName::new(Owned::Locks, self.client()?.index, new.lock_owner.owner());
        self.server.owners.get(&name, now_s, &self.server.files).map(|owner| Some((owner, new.lock_seqid)))
    }

    pub(crate) fn open_confirm(&mut self, stateid: &Stateid4) -> Result<OpenConfirmOk, Status> {
        let open_stateid = self.server.files.confirm_open(self.file()?, self.client()?, stateid)?;
        Ok(OpenConfirmOk { open_stateid })
    }

    pub(crate) fn release_lock_owner(&self, owner: &[u8]) -> Result<(), Status> {
        let client = self.client()?.index;
        self.server.files.release_lock_owner(client, owner)?;
        self.server.owners.remove(&OwnerName::new(Owned::Locks, client, owner));
        Ok(())
    }

    pub(crate) fn set_client_id(&self, args: &SetClientIdArgs<'_>, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let set = self.server.set_client_id(args, &self.origin);
        let set = set.as_ref().copied().map_err(|InUse(netid, address)| match NetAddr4::new(netid, address) {
            Some(by) => SetClientIdFailure::InUse(by),
            // They were taken from the wire, where they have the same limits.
            None => Status::NFS4ERR_SERVERFAULT.into(),
        });
        write(&OpRes::SetClientId(set), w)
    }
}

impl Files {
    /// The state that a stateid of minor version 0 names.
    fn state_of(&self, stateid: &Stateid4) -> Result<State, Status> {
        let (kind, id) = self.parse_minor0(stateid)?;
        let (shard, id) = self.shard_of(id);
        let state = match kind {
            Kind::Open => shard.opens.get(id).map(|open| State {
                client: open.client,
                owner: Some(OwnerName::new(Owned::Opens, open.client, open.owner())),
                unconfirmed: open.unconfirmed,
            }),
            Kind::Lock => shard.locks.get(id).map(|lock| State {
                client: lock.client,
                owner: Some(OwnerName::new(Owned::Locks, lock.client, lock.owner())),
                unconfirmed: false,
            }),
            _ => shard.delegations.get(id).map(|held| State { client: held.client, owner: None, unconfirmed: false }),
        };
        state.ok_or(Status::NFS4ERR_BAD_STATEID)
    }

    /// The owners of what is held in a shard, those of minor version 1 too.
    pub(crate) fn owners_in(&self, number: usize, owners: &mut HashSet<OwnerName>) {
        let shard = self.shard(number);
        for holder in &shard.holders {
            let opens = shard.opens.list::<OpensOfClient>(holder.opens);
            owners.extend(opens.map(|(_, open)| OwnerName::new(Owned::Opens, open.client, open.owner())));
            let locks = shard.locks.list::<LocksOfClient>(holder.locks);
            owners.extend(locks.map(|(_, lock)| OwnerName::new(Owned::Locks, lock.client, lock.owner())));
        }
    }
}

/// What an OPEN of minor version 0 cannot say.
fn check_open(args: &OpenArgs<'_>) -> Result<(), Status> {
    let later = matches!(args.how, OpenHow::Exclusive41(_))
        || matches!(
            args.claim,
            OpenClaim::FileHandle | OpenClaim::DelegCurFileHandle(_) | OpenClaim::DelegPrevFileHandle
        );
    if later { Err(Status::NFS4ERR_BADXDR) } else { Ok(()) }
}

/// Minor version 1 has words for what minor version 0 calls something else.
const fn in_words_of_minor0(status: Status) -> Status {
    match status {
        Status::NFS4ERR_WRONG_TYPE => Status::NFS4ERR_INVAL,
        Status::NFS4ERR_DEADSESSION => Status::NFS4ERR_EXPIRED,
        Status::NFS4ERR_REP_TOO_BIG => Status::NFS4ERR_RESOURCE,
        status => status,
    }
}
