//! What each operation of a compound does: the table of operations, and those that are about sessions and stateids. Those on
//! names, attributes, content and locks are in `name_ops.rs`, `file_ops.rs`, `io_ops.rs`, `copy_ops.rs`, `lock_ops.rs`, `open_op.rs`
//! and `delegation_ops.rs`.

use crate::compound::{Compound, Place};
use crate::data::Data;
use crate::files::ROOT;
use crate::stateids::{Kind, next_seqid};
use ringback_rpc::nfs4::fore::{
    CloseOk, OpArgs, OpRes, OpenArgs, OpenDowngradeArgs, OpenDowngradeOk, OpenHow, TestStateidOk,
};
use ringback_rpc::nfs4::{List, Stateid4, Status};
use ringback_rpc::xdr::{self, Encode, Writer};
use std::sync::Arc;

/// Writes a result and gives its status.
pub(crate) fn write(res: &OpRes<'_>, w: &mut Writer<'_>) -> xdr::Result<Status> {
    res.encode(w)?;
    Ok(res.status())
}

/// Whether it may change what is stored of clients: it may have to wait for the disk.
const fn changes_clients(op: &OpArgs<'_>) -> bool {
    matches!(
        op,
        OpArgs::ExchangeId(_)
            | OpArgs::CreateSession(_)
            | OpArgs::DestroyClientId(_)
            | OpArgs::ReclaimComplete(_)
            | OpArgs::SetClientIdConfirm(_)
    )
}

/// Whether it changes names or attributes, which are to be safe when it is answered. Data is when the client asks for that.
const fn changes_names(op: &OpArgs<'_>) -> bool {
    match op {
        OpArgs::Open(OpenArgs { how, .. }) => !matches!(how, OpenHow::NoCreate),
        OpArgs::Create(_) | OpArgs::Remove(_) | OpArgs::Rename(_) | OpArgs::Link(_) | OpArgs::SetAttr(_) => true,
        OpArgs::Allocate(_) | OpArgs::Deallocate(_) => true,
        _ => false,
    }
}

impl Compound<'_> {
    /// Executes one operation and writes its results. With a store, what it has changed is safe then.
    pub(crate) fn execute(&mut self, op: &OpArgs<'_>, place: Place, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let saves = changes_names(op);
        if (saves || changes_clients(op)) && !self.may_store() {
            return self.refuse(op.op(), Status::NFS4ERR_DELAY, w);
        }
        let before = w.position();
        let status = self.perform(op, place, w)?;
        if saves && status.is_ok() && self.save(self.server.now_ns()).is_err() {
            w.rewind(before);
            return self.refuse(op.op(), Status::NFS4ERR_IO, w);
        }
        Ok(status)
    }

    fn perform(&mut self, op: &OpArgs<'_>, place: Place, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let res = match op {
            // Those whose results borrow what only they know write them themselves.
            OpArgs::GetFh => return self.get_fh(w),
            OpArgs::GetAttr(args) => return self.get_attr(&args.request, w),
            OpArgs::Read(args) => return self.read(args, place.limit, w),
            OpArgs::ReadDir(args) => return self.read_dir(args, place.limit, w),
            OpArgs::ReadLink => return self.read_link(w),
            OpArgs::SecInfo(args) => return self.sec_info(args.name, w),
            OpArgs::SecInfoNoName(style) => return self.sec_info_no_name(*style, w),
            OpArgs::Lock(args) => return self.lock(args, w),
            OpArgs::LockTest(args) => return self.lock_test(args, w),
            OpArgs::LayoutGet(args) => return self.layout_get(args, w),
            OpArgs::GetDeviceInfo(args) => return self.get_device_info(args, w),
            OpArgs::TestStateid(args) => return self.test_stateids(args.stateids, w),
            OpArgs::PutRootFh => {
                self.go_to(ROOT);
                OpRes::PutRootFh(Ok(()))
            }
            OpArgs::PutPubFh => {
                self.go_to(ROOT);
                OpRes::PutPubFh(Ok(()))
            }
            OpArgs::PutFh(args) => {
                let found = self.server.files.parse_handle(args.object.as_bytes());
                OpRes::PutFh(found.map(|file| self.go_to(file)))
            }
            OpArgs::SaveFh => OpRes::SaveFh(self.save_fh()),
            OpArgs::RestoreFh => OpRes::RestoreFh(self.restore_fh()),
            OpArgs::Lookup(args) => OpRes::Lookup(self.lookup(args.name)),
            OpArgs::LookupParent => OpRes::LookupParent(self.lookup_parent()),
            OpArgs::Access(args) => OpRes::Access(self.access(args.access)),
            OpArgs::SetAttr(args) => OpRes::SetAttr(self.set_attr(args)),
            OpArgs::Verify(args) => OpRes::Verify(self.verify(&args.attributes)),
            OpArgs::NotVerify(args) => OpRes::NotVerify(self.not_verify(&args.attributes)),
            OpArgs::Create(args) => OpRes::Create(self.create(args)),
            OpArgs::Remove(args) => OpRes::Remove(self.remove(args.target)),
            OpArgs::Rename(args) => OpRes::Rename(self.rename(args)),
            OpArgs::Link(args) => OpRes::Link(self.link(args.new_name)),
            OpArgs::Write(args) => OpRes::Write(self.write(args)),
            OpArgs::Commit(_) => OpRes::Commit(self.commit()),
            OpArgs::Copy(args) => OpRes::Copy(self.copy(args).map_err(Into::into)),
            OpArgs::OffloadStatus(args) => OpRes::OffloadStatus(self.offload_status(&args.stateid)),
            OpArgs::OffloadCancel(args) => OpRes::OffloadCancel(self.offload_cancel(&args.stateid)),
            OpArgs::Seek(args) => OpRes::Seek(self.seek(args)),
            OpArgs::Allocate(args) => OpRes::Allocate(self.reserve(args, Data::allocate)),
            OpArgs::Deallocate(args) => OpRes::Deallocate(self.reserve(args, Data::deallocate)),
            OpArgs::Open(args) => OpRes::Open(self.open(args)),
            OpArgs::OpenDowngrade(args) => OpRes::OpenDowngrade(self.open_downgrade(args)),
            OpArgs::Close(args) => OpRes::Close(self.close(&args.open_stateid)),
            OpArgs::Unlock(args) => OpRes::Unlock(self.unlock(args)),
            OpArgs::DelegReturn(args) => OpRes::DelegReturn(self.deleg_return(&args.deleg_stateid)),
            OpArgs::LayoutCommit(args) => OpRes::LayoutCommit(self.layout_commit(args)),
            OpArgs::LayoutReturn(args) => OpRes::LayoutReturn(self.layout_return(args)),
            OpArgs::LayoutError(args) => OpRes::LayoutError(self.layout_error(args)),
            OpArgs::LayoutStats(args) => OpRes::LayoutStats(self.layout_stats(args)),
            OpArgs::OpenConfirm(args) if self.is_minor0() => OpRes::OpenConfirm(self.open_confirm(&args.open_stateid)),
            OpArgs::ReleaseLockOwner(args) if self.is_minor0() => {
                OpRes::ReleaseLockOwner(self.release_lock_owner(args.lock_owner.owner()))
            }
            OpArgs::Renew(args) if self.is_minor0() => {
                OpRes::Renew(self.server.renew(args.client_id, self.origin.now_ns))
            }
            OpArgs::SetClientId(args) if self.is_minor0() => return self.set_client_id(args, w),
            OpArgs::SetClientIdConfirm(args) if self.is_minor0() => {
                OpRes::SetClientIdConfirm(self.server.set_client_id_confirm(args, &self.origin))
            }
            OpArgs::GetDirDelegation(args) => OpRes::GetDirDelegation(self.get_dir_delegation(args)),
            OpArgs::WantDelegation(args) => OpRes::WantDelegation(self.want_delegation(args)),
            OpArgs::FreeStateid(args) => OpRes::FreeStateid(self.free_stateid(&args.stateid)),
            other => return self.session_operation(other, place, w),
        };
        write(&res, w)
    }

    /// Operations on client ids and sessions.
    fn session_operation(&mut self, op: &OpArgs<'_>, place: Place, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let server = self.server;
        let res = match op {
            OpArgs::ExchangeId(args) => {
                OpRes::ExchangeId(server.exchange_id(args, self.origin.principal, self.origin.now_ns))
            }
            OpArgs::CreateSession(args) => OpRes::CreateSession(server.create_session(args, &self.origin)),
            OpArgs::BindConnToSession(args) => {
                OpRes::BindConnToSession(server.bind_conn_to_session(args, &self.origin))
            }
            OpArgs::BackchannelCtl(args) => {
                OpRes::BackchannelCtl(self.session().and_then(|s| server.backchannel_ctl(s, args)))
            }
            OpArgs::DestroySession(args) => {
                let own = self.session().is_ok_and(|s| s.id == args.session_id);
                OpRes::DestroySession(match own && place.n + 1 < place.count {
                    // In a compound on the session itself it comes last (section 18.37.3).
                    true => Err(Status::NFS4ERR_NOT_ONLY_OP),
                    false => server.destroy_session(&args.session_id, self.origin.connection),
                })
            }
            OpArgs::DestroyClientId(args) => {
                let own = self.session().ok().map(|s| Arc::clone(&s.client));
                OpRes::DestroyClientId(server.destroy_client_id(args.client_id, own.as_deref()))
            }
            OpArgs::ReclaimComplete(args) => OpRes::ReclaimComplete(self.reclaim_complete(args.one_fs)),
            other => OpRes::refusal(other.op(), self.origin.minor_version),
        };
        write(&res, w)
    }

    fn close(&mut self, stateid: &Stateid4) -> Result<CloseOk, Status> {
        let stateid = self.meant(stateid)?;
        let client = Arc::clone(self.client()?);
        self.server.files.close(self.file()?, &client, &stateid, &self.server.callbacks)?;
        // It is of no use to anybody, and the invalid special stateid says so (section 18.2.4).
        self.stateid = Some(Stateid4::INVALID);
        if self.is_minor0() {
            // There is no such special stateid.
            return Ok(CloseOk { open_stateid: Stateid4 { seqid: next_seqid(stateid.seqid), ..stateid } });
        }
        Ok(CloseOk { open_stateid: Stateid4::INVALID })
    }

    fn open_downgrade(&mut self, args: &OpenDowngradeArgs) -> Result<OpenDowngradeOk, Status> {
        let stateid = self.meant(&args.open_stateid)?;
        let client = Arc::clone(self.client()?);
        let (access, deny) = match (u8::try_from(args.share_access), u8::try_from(args.share_deny)) {
            (Ok(access @ 1..=3), Ok(deny @ 0..=3)) => (access, deny),
            _ => return Err(Status::NFS4ERR_INVAL),
        };
        let open_stateid = self.server.files.downgrade(self.file()?, &client, &stateid, access, deny)?;
        self.stateid = Some(open_stateid);
        Ok(OpenDowngradeOk { open_stateid })
    }

    fn deleg_return(&mut self, stateid: &Stateid4) -> Result<(), Status> {
        let stateid = self.meant(stateid)?;
        let client = Arc::clone(self.client()?);
        self.server.files.delegreturn(self.file()?, &client, &stateid, &self.server.callbacks)
    }

    fn free_stateid(&self, stateid: &Stateid4) -> Result<(), Status> {
        let stateid = self.meant(stateid)?;
        let (client, files) = (&self.session()?.client, &self.server.files);
        match files.kind_of(&stateid)? {
            Kind::Delegation => {
                files.free_delegation(client, &stateid, &self.server.callbacks)?;
                self.server.has_acknowledged(client);
                Ok(())
            }
            Kind::Lock => files.free_lock(client, &stateid),
            Kind::Open => files.test_open(client, &stateid).and(Err(Status::NFS4ERR_LOCKS_HELD)),
            // A layout goes with LAYOUTRETURN.
            Kind::Layout => Err(Status::NFS4ERR_LOCKS_HELD),
            Kind::Copy => Err(Status::NFS4ERR_BAD_STATEID),
        }
    }

    fn test_stateids(&self, stateids: List<'_, Stateid4>, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let statuses = self.session().map(|session| {
            let (client, files) = (&session.client, &self.server.files);
            let test = |stateid: Stateid4| {
                // Special stateids are not asked about (RFC 8881 section 18.48.3).
                match files.kind_of(&stateid)? {
                    Kind::Delegation => files.test_delegation(client, &stateid),
                    Kind::Lock => files.test_lock_stateid(client, &stateid),
                    Kind::Open => files.test_open(client, &stateid),
                    Kind::Layout => self.server.layouts.check_any(client, &stateid, files),
                    Kind::Copy => Err(Status::NFS4ERR_BAD_STATEID),
                }
            };
            stateids.iter().map(|stateid| test(stateid).err().unwrap_or(Status::NFS4_OK)).collect::<Vec<_>>()
        });
        let ok = statuses.as_ref().map(|all| TestStateidOk { statuses: List::Slice(all) });
        write(&OpRes::TestStateid(ok.map_err(|status| *status)), w)
    }

    fn save_fh(&mut self) -> Result<(), Status> {
        self.saved = Some((self.file()?, self.stateid));
        Ok(())
    }

    fn restore_fh(&mut self) -> Result<(), Status> {
        let missing = if self.is_minor0() { Status::NFS4ERR_RESTOREFH } else { Status::NFS4ERR_NOFILEHANDLE };
        let (file, stateid) = self.saved.ok_or(missing)?;
        self.current = Some(file);
        self.stateid = stateid;
        Ok(())
    }
}
