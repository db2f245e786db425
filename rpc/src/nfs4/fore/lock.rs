//! Byte-range locks and stateids: LOCK, LOCKT, LOCKU, OPEN_DOWNGRADE, RELEASE_LOCKOWNER, FREE_STATEID, TEST_STATEID.

use super::Failure;
use crate::nfs4::wire::{wire_enum, wire_field, wire_struct};
use crate::nfs4::{List, StateOwner4, Stateid4, Status};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

wire_enum! {
    /// A kind of lock (RFC 8881 section 3.2, `nfs_lock_type4`).
    pub enum LockType = "nfs_lock_type4" {
        /// READ_LT: shared.
        Read = 1,
        /// WRITE_LT: exclusive.
        Write = 2,
        /// READW_LT: shared, and the client waits for it.
        ReadWait = 3,
        /// WRITEW_LT: exclusive, and the client waits for it.
        WriteWait = 4,
    }
}

impl LockType {
    /// The same lock for a client that does not wait for it.
    pub const fn without_wait(self) -> LockType {
        match self {
            LockType::ReadWait => LockType::Read,
            LockType::WriteWait => LockType::Write,
            kind => kind,
        }
    }
}

wire_struct! {
    /// The first lock of a lock-owner on a file (RFC 8881 section 18.10.1, `open_to_lock_owner4`).
    pub struct OpenToLockOwner<'a> {
        /// Minor version 0 only.
        pub open_seqid: u32 = "open_seqid",
        /// The open under which is locked.
        pub open_stateid: Stateid4 = "open_stateid",
        /// Minor version 0 only.
        pub lock_seqid: u32 = "lock_seqid",
        /// The lock-owner.
        pub lock_owner: StateOwner4<'a> = "lock_owner",
    }
}

wire_struct! {
    /// Another lock of a lock-owner on a file (RFC 8881 section 18.10.1, `exist_lock_owner4`).
    pub struct ExistingLockOwner {
        /// What the lock before returned.
        pub lock_stateid: Stateid4 = "lock_stateid",
        /// Minor version 0 only.
        pub lock_seqid: u32 = "lock_seqid",
    }
}

/// Who locks (RFC 8881 section 18.10.1, `locker4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locker<'a> {
    /// A lock-owner that holds no lock on the file yet.
    New(OpenToLockOwner<'a>),
    /// One that has a lock stateid.
    Existing(ExistingLockOwner),
}

impl<'a> Decode<'a> for Locker<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        match r.bool("new_lock_owner")? {
            true => Decode::decode(r).map(Locker::New),
            false => Decode::decode(r).map(Locker::Existing),
        }
    }
}

impl Encode for Locker<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            Locker::New(owner) => w.bool(true).and_then(|()| owner.encode(w)),
            Locker::Existing(owner) => w.bool(false).and_then(|()| owner.encode(w)),
        }
    }
}

wire_field!(Locker<'a>);

wire_struct! {
    /// Arguments of LOCK (RFC 8881 section 18.10).
    pub struct LockArgs<'a> {
        /// The kind of lock.
        pub kind: LockType = "locktype",
        /// Whether a lock from before a restart of the server is reclaimed.
        pub reclaim: bool = "reclaim",
        /// The first byte.
        pub offset: u64 = "offset",
        /// How many bytes; all ones: to the end of the file, wherever that is.
        pub length: u64 = "length",
        /// Who locks.
        pub locker: Locker<'a> = "locker",
    }
}

wire_struct! {
    /// Results of LOCK.
    pub struct LockOk {
        /// The locks of that owner on that file.
        pub lock_stateid: Stateid4 = "lock_stateid",
    }
}

wire_struct! {
    /// Arguments of LOCKT (RFC 8881 section 18.11).
    pub struct LockTestArgs<'a> {
        /// The kind of lock.
        pub kind: LockType = "locktype",
        /// The first byte.
        pub offset: u64 = "offset",
        /// How many bytes, as in LOCK.
        pub length: u64 = "length",
        /// Who would lock.
        pub owner: StateOwner4<'a> = "owner",
    }
}

wire_struct! {
    /// Arguments of LOCKU (RFC 8881 section 18.12).
    pub struct UnlockArgs {
        /// Ignored by servers.
        pub kind: LockType = "locktype",
        /// Minor version 0 only.
        pub seqid: u32 = "seqid",
        /// The locks of that owner on that file.
        pub lock_stateid: Stateid4 = "lock_stateid",
        /// The first byte.
        pub offset: u64 = "offset",
        /// How many bytes, as in LOCK.
        pub length: u64 = "length",
    }
}

wire_struct! {
    /// Results of LOCKU.
    pub struct UnlockOk {
        /// The locks of that owner on that file.
        pub lock_stateid: Stateid4 = "lock_stateid",
    }
}

wire_struct! {
    /// The lock that stands in the way (RFC 8881 section 18.10.2, `LOCK4denied`).
    pub struct LockDenied<'a> {
        /// Its first byte.
        pub offset: u64 = "offset",
        /// How many bytes, as in LOCK.
        pub length: u64 = "length",
        /// Its kind.
        pub kind: LockType = "locktype",
        /// Whose it is.
        pub owner: StateOwner4<'a> = "owner",
    }
}

/// How LOCK and LOCKT fail: NFS4ERR_DENIED has results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockFailure<'a> {
    /// NFS4ERR_DENIED.
    Denied(LockDenied<'a>),
    /// Any other status.
    Other(Status),
}

impl<'a> Failure<'a> for LockFailure<'a> {
    fn read(status: Status, r: &mut Reader<'a>) -> Result<Self> {
        match status {
            Status::NFS4ERR_DENIED => LockDenied::decode(r).map(LockFailure::Denied),
            status => Ok(LockFailure::Other(status)),
        }
    }

    fn status(&self) -> Status {
        match self {
            LockFailure::Denied(_) => Status::NFS4ERR_DENIED,
            LockFailure::Other(status) => *status,
        }
    }

    fn put(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            LockFailure::Denied(denied) => denied.encode(w),
            LockFailure::Other(_) => Ok(()),
        }
    }
}

impl From<Status> for LockFailure<'_> {
    fn from(status: Status) -> Self {
        LockFailure::Other(status)
    }
}

wire_struct! {
    /// Arguments of OPEN_DOWNGRADE (RFC 8881 section 18.18).
    pub struct OpenDowngradeArgs {
        /// The open.
        pub open_stateid: Stateid4 = "open_stateid",
        /// Minor version 0 only.
        pub seqid: u32 = "seqid",
        /// What is kept of the access.
        pub share_access: u32 = "share_access",
        /// What is kept of the denials.
        pub share_deny: u32 = "share_deny",
    }
}

wire_struct! {
    /// Results of OPEN_DOWNGRADE.
    pub struct OpenDowngradeOk {
        /// The open.
        pub open_stateid: Stateid4 = "open_stateid",
    }
}

wire_struct! {
    /// Arguments of RELEASE_LOCKOWNER, of minor version 0 only (RFC 7530 section 16.37).
    pub struct ReleaseLockOwnerArgs<'a> {
        /// The lock-owner that the client will not use any more.
        pub lock_owner: StateOwner4<'a> = "lock_owner",
    }
}

wire_struct! {
    /// Arguments of FREE_STATEID (RFC 8881 section 18.38).
    pub struct FreeStateidArgs {
        /// The state that the client has no use for.
        pub stateid: Stateid4 = "fsa_stateid",
    }
}

wire_struct! {
    /// Arguments of TEST_STATEID (RFC 8881 section 18.48).
    pub struct TestStateidArgs<'a> {
        /// The states asked about.
        pub stateids: List<'a, Stateid4> = "ts_stateids",
    }
}

wire_struct! {
    /// Results of TEST_STATEID.
    pub struct TestStateidOk<'a> {
        /// What is wrong with each, or NFS4_OK.
        pub statuses: List<'a, Status> = "tsr_status_codes",
    }
}
