//! The same clients as clients of minor version 0. An input cannot know client ids, stateids and seqids; so each of its
//! operations goes out in a compound of its own, and what has no meaning in it is filled in with what was last returned.

use super::{Client, encoded};
use ringback_rpc::nfs4::fore::*;
use ringback_rpc::nfs4::{ClientId4, FileHandle, StateOwner4, Stateid4, Status, Verifier4};
use ringback_rpc::xdr::{Decode, Encode, Reader};

/// What stands for the state that was returned last: the current stateid of later minor versions, which this one does not have.
const LAST: Stateid4 = Stateid4 { seqid: 1, other: [0; 12] };

/// What a client of minor version 0 knows.
#[derive(Debug, Default)]
pub(super) struct Minor0 {
    client_id: ClientId4,
    stateid: Option<Stateid4>,
    handle: Vec<u8>,
    /// The next seqids of the open-owner and of the lock-owner.
    seqids: [u32; 2],
}

impl Minor0 {
    fn stateid(&self, given: Stateid4) -> Stateid4 {
        if given == LAST { self.stateid.unwrap_or(given) } else { given }
    }

    fn owner<'a>(&self, given: StateOwner4<'a>) -> StateOwner4<'a> {
        let client_id = if given.client_id == ClientId4(0) { self.client_id } else { given.client_id };
        StateOwner4::new(client_id, given.owner()).unwrap_or(given)
    }

    /// A seqid that is not zero is sent as it is: a retry, or a wrong one.
    fn seqid(&self, owner: usize, given: u32) -> u32 {
        if given == 0 { self.seqids[owner] } else { given }
    }

    fn filled<'a>(&self, op: OpArgs<'a>) -> OpArgs<'a> {
        match op {
            OpArgs::Open(args) => {
                OpArgs::Open(OpenArgs { seqid: self.seqid(0, args.seqid), owner: self.owner(args.owner), ..args })
            }
            OpArgs::OpenConfirm(args) => OpArgs::OpenConfirm(OpenConfirmArgs {
                seqid: self.seqid(0, args.seqid),
                open_stateid: self.stateid(args.open_stateid),
            }),
            OpArgs::OpenDowngrade(args) => OpArgs::OpenDowngrade(OpenDowngradeArgs {
                seqid: self.seqid(0, args.seqid),
                open_stateid: self.stateid(args.open_stateid),
                ..args
            }),
            OpArgs::Close(args) => OpArgs::Close(CloseArgs {
                seqid: self.seqid(0, args.seqid),
                open_stateid: self.stateid(args.open_stateid),
            }),
            OpArgs::Lock(args) => OpArgs::Lock(LockArgs { locker: self.locker(args.locker), ..args }),
            OpArgs::Unlock(args) => OpArgs::Unlock(UnlockArgs {
                seqid: self.seqid(1, args.seqid),
                lock_stateid: self.stateid(args.lock_stateid),
                ..args
            }),
            OpArgs::LockTest(args) => OpArgs::LockTest(LockTestArgs { owner: self.owner(args.owner), ..args }),
            OpArgs::ReleaseLockOwner(args) => {
                OpArgs::ReleaseLockOwner(ReleaseLockOwnerArgs { lock_owner: self.owner(args.lock_owner) })
            }
            OpArgs::Read(args) => OpArgs::Read(ReadArgs { stateid: self.stateid(args.stateid), ..args }),
            OpArgs::Write(args) => OpArgs::Write(WriteArgs { stateid: self.stateid(args.stateid), ..args }),
            OpArgs::SetAttr(args) => OpArgs::SetAttr(SetAttrArgs { stateid: self.stateid(args.stateid), ..args }),
            OpArgs::DelegReturn(args) => {
                OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: self.stateid(args.deleg_stateid) })
            }
            OpArgs::Renew(args) if args.client_id == ClientId4(0) => {
                OpArgs::Renew(RenewArgs { client_id: self.client_id })
            }
            other => other,
        }
    }

    fn locker<'a>(&self, given: Locker<'a>) -> Locker<'a> {
        match given {
            Locker::New(new) => Locker::New(OpenToLockOwner {
                open_seqid: self.seqid(0, new.open_seqid),
                open_stateid: self.stateid(new.open_stateid),
                lock_seqid: self.seqid(1, new.lock_seqid),
                lock_owner: self.owner(new.lock_owner),
            }),
            Locker::Existing(existing) => Locker::Existing(ExistingLockOwner {
                lock_stateid: self.stateid(existing.lock_stateid),
                lock_seqid: self.seqid(1, existing.lock_seqid),
            }),
        }
    }

    /// Learns from a result.
    fn see(&mut self, res: &OpRes<'_>) {
        let stateid = match res {
            OpRes::Open(Ok(ok)) => Some(ok.stateid),
            OpRes::OpenConfirm(Ok(ok)) => Some(ok.open_stateid),
            OpRes::OpenDowngrade(Ok(ok)) => Some(ok.open_stateid),
            OpRes::Lock(Ok(ok)) => Some(ok.lock_stateid),
            OpRes::Unlock(Ok(ok)) => Some(ok.lock_stateid),
            OpRes::GetFh(Ok(ok)) => {
                self.handle = ok.object.as_bytes().to_vec();
                None
            }
            _ => None,
        };
        self.stateid = stateid.or(self.stateid);
        let counts = !matches!(res.status(), Status::NFS4ERR_BAD_SEQID | Status::NFS4ERR_BAD_STATEID);
        match res.op() {
            Op::OPEN | Op::OPEN_CONFIRM | Op::OPEN_DOWNGRADE | Op::CLOSE if counts => self.seqids[0] += 1,
            Op::LOCK if counts => self.seqids = self.seqids.map(|seqid| seqid + 1),
            Op::LOCKU if counts => self.seqids[1] += 1,
            _ => {}
        }
    }
}

impl Client<'_> {
    /// Becomes a client of minor version 0 as well. Nobody answers where it says that it is called back.
    pub(super) fn establish_minor0(&mut self, name: &'static [u8]) {
        let location = NetAddr4::new(b"tcp", b"127.0.0.1.0.9").expect("below the limit");
        let client = NfsClientId { verifier: Verifier4([1; 8]), id: Opaque4::new(name).expect("below the limit") };
        let callback = CbClient { program: 0x4000_0000, location };
        let set = OpArgs::SetClientId(SetClientIdArgs { client, callback, callback_ident: 1 });
        let mut known = None;
        self.call(0, &[set], 0, &[], |res| {
            if let OpRes::SetClientId(Ok(ok)) = res {
                known = Some(ok);
            }
        });
        let SetClientIdOk { client_id, confirm } = known.expect("SETCLIENTID gives a client id");
        let confirm = OpArgs::SetClientIdConfirm(SetClientIdConfirmArgs { client_id, confirm });
        self.call(0, &[confirm], 0, &[], |res| assert!(res.status().is_ok()));
        self.minor0 = Minor0 { client_id, seqids: [1, 1], ..Minor0::default() };
    }

    /// Sends the operations, each with the filehandle that was returned last before it, or the root's; returns how many
    /// have been answered.
    pub(super) fn send_minor0(&mut self, count: u8, operations: &[u8]) -> usize {
        let mut r = Reader::new(operations);
        let mut answered = 0;
        for _ in 0..count {
            let Ok(op) = OpArgs::decode(&mut r) else { break };
            let mut known = std::mem::take(&mut self.minor0);
            let handle = known.handle.clone();
            let put = match FileHandle::new(&handle) {
                Some(object) if !handle.is_empty() && op.op() != Op::OPEN => OpArgs::PutFh(PutFhArgs { object }),
                _ => OpArgs::PutRootFh,
            };
            let op = known.filled(op);
            // As it was decoded, so it can be encoded; but a client may promise more.
            let bytes = encoded(|w| op.encode(w).and_then(|()| OpArgs::GetFh.encode(w)));
            let followed = if matches!(op, OpArgs::Other(_)) { 1 } else { 2 };
            self.call(0, &[put], followed, &bytes, |res| {
                answered += 1;
                known.see(&res);
            });
            self.minor0 = known;
        }
        answered
    }
}
