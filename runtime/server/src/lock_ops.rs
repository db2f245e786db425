//! Operations on byte-range locks: LOCK, LOCKT, LOCKU.

use crate::compound::Compound;
use crate::locks::{NoLock, Range};
use crate::operations::write;
use ringback_rpc::nfs4::fore::{
    LockArgs, LockFailure, LockOk, LockTestArgs, Locker, OpRes, OpenToLockOwner, UnlockArgs, UnlockOk,
};
use ringback_rpc::nfs4::{Stateid4, Status};
use ringback_rpc::xdr::{self, Writer};
use std::sync::Arc;

impl Compound<'_> {
    pub(crate) fn lock(&mut self, args: &LockArgs<'_>, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let locked = self.take_lock(args);
        if let Ok(lock_stateid) = &locked {
            self.stateid = Some(*lock_stateid);
        }
        let result = locked.as_ref().map(|lock_stateid| LockOk { lock_stateid: *lock_stateid });
        write(&OpRes::Lock(result.map_err(failure)), w)
    }

    fn take_lock(&mut self, args: &LockArgs<'_>) -> Result<Stateid4, NoLock> {
        let client = &Arc::clone(self.client()?);
        match args.reclaim {
            true => self.may_reclaim(client)?,
            false => self.may_take_new(client)?,
        }
        let mut args = *args;
        if self.is_minor0() {
            // Nobody can be told of a lock that is free: there is no CB_NOTIFY_LOCK.
            args.kind = args.kind.without_wait();
        }
        match &mut args.locker {
            Locker::New(OpenToLockOwner { open_stateid, .. }) => *open_stateid = self.meant(open_stateid)?,
            Locker::Existing(existing) => existing.lock_stateid = self.meant(&existing.lock_stateid)?,
        }
        self.server.files.lock(self.file()?, client, &args, &self.server.callbacks)
    }

    pub(crate) fn lock_test(&self, args: &LockTestArgs<'_>, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let tested = self.would_lock(args);
        write(&OpRes::LockTest(tested.as_ref().copied().map_err(failure)), w)
    }

    fn would_lock(&self, args: &LockTestArgs<'_>) -> Result<(), NoLock> {
        let client = self.client()?;
        // A lock that is in the way may not have been reclaimed yet.
        self.server.files.grace.check()?;
        let range = Range::new(args.kind, args.offset, args.length)?;
        self.server.files.test_lock(self.file()?, client, args.owner.owner(), &range)
    }

    pub(crate) fn unlock(&mut self, args: &UnlockArgs) -> Result<UnlockOk, Status> {
        let client = Arc::clone(self.client()?);
        let stateid = self.meant(&args.lock_stateid)?;
        let range = Range::new(args.kind, args.offset, args.length)?;
        let (files, callbacks) = (&self.server.files, &self.server.callbacks);
        let lock_stateid = files.unlock(self.file()?, &client, &stateid, &range, callbacks)?;
        self.stateid = Some(lock_stateid);
        Ok(UnlockOk { lock_stateid })
    }
}

fn failure(no: &NoLock) -> LockFailure<'_> {
    match no {
        NoLock::Status(status) => LockFailure::Other(*status),
        NoLock::InTheWay(found) => found.failure(),
    }
}
