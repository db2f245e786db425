//! The operations on files, directories and locks, one value of each.

use super::Source;
use crate::nfs4::callback::WriteResponse4;
use crate::nfs4::fore::*;
use crate::nfs4::{ChangeInfo4, ClientId4, GssService, List, StableHow4, StateOwner4, Status};
use crate::xdr::Writer;

impl Source {
    fn change(&self) -> ChangeInfo4 {
        ChangeInfo4 { atomic: self.flag, before: self.longs[0], after: self.longs[1] }
    }

    fn owner(&self) -> StateOwner4<'_> {
        StateOwner4::new(ClientId4(self.longs[2]), &self.bytes).expect("below the limit")
    }

    fn lock_type(&self) -> LockType {
        LockType::ALL[self.arm % 4]
    }

    fn create_type(&self) -> CreateType<'_> {
        match self.arm % 4 {
            0 => CreateType::Symlink(&self.name),
            1 => CreateType::Block(self.words[0], self.words[1]),
            2 => CreateType::Character(self.words[0], self.words[1]),
            _ => CreateType::Plain(file_type::FIFO),
        }
    }

    fn locker(&self) -> Locker<'_> {
        let [open_seqid, lock_seqid, ..] = self.words;
        if self.flag {
            return Locker::Existing(ExistingLockOwner { lock_stateid: self.stateid(), lock_seqid });
        }
        let (open_stateid, lock_owner) = (self.stateid(), self.owner());
        Locker::New(OpenToLockOwner { open_seqid, open_stateid, lock_seqid, lock_owner })
    }

    fn entries(&self) -> Vec<u8> {
        let mut space = [0; 1024];
        let mut w = Writer::new(&mut space);
        for cookie in 0..self.arm as u64 % 3 {
            let entry = DirEntry { cookie, name: &self.name, attributes: self.attributes() };
            entry.put_linked(&mut w).expect("fits");
        }
        w.written().to_vec()
    }
}

/// Calls `check` with the arguments of each of these operations.
pub(super) fn arguments(s: &Source, mut check: impl FnMut(OpArgs<'_>)) {
    let [a, b, c, ..] = s.words;
    let [offset, length, ..] = s.longs;
    let (stateid, kind, name) = (s.stateid(), s.lock_type(), s.name.as_slice());
    let stateids = [stateid, crate::nfs4::Stateid4::CURRENT];
    check(OpArgs::Access(AccessArgs { access: a }));
    check(OpArgs::Commit(CommitArgs { offset, count: a }));
    let servers = [NetLoc4::Name(name), NetLoc4::Url(name), NetLoc4::Address(name, &s.bytes)];
    check(OpArgs::Copy(CopyArgs {
        src_stateid: stateid,
        dst_stateid: crate::nfs4::Stateid4::CURRENT,
        src_offset: offset,
        dst_offset: length,
        count: s.longs[2],
        consecutive: s.flag,
        synchronous: !s.flag,
        source_servers: List::Slice(&servers[..s.arm % 4]),
    }));
    check(OpArgs::OffloadCancel(OffloadCancelArgs { stateid }));
    check(OpArgs::OffloadStatus(OffloadStatusArgs { stateid }));
    check(OpArgs::Seek(SeekArgs { stateid, offset, what: DataContent4::ALL[s.arm % 2] }));
    check(OpArgs::Allocate(AllocateArgs { stateid, offset, length }));
    check(OpArgs::Deallocate(AllocateArgs { stateid, offset, length }));
    let (src_stateid, dst_stateid) = (stateid, crate::nfs4::Stateid4::CURRENT);
    let (src_offset, dst_offset, count) = (offset, length, s.longs[2]);
    check(OpArgs::Clone(CloneArgs { src_stateid, dst_stateid, src_offset, dst_offset, count }));
    let time = crate::nfs4::NfsTime4 { seconds: offset as i64, nseconds: a };
    check(OpArgs::GetDirDelegation(GetDirDelegationArgs {
        signal: s.flag,
        notification_types: s.bits(),
        child_delay: time,
        directory_delay: time,
        child_attributes: s.bits(),
        directory_attributes: s.bits(),
    }));
    let claims = [
        DelegClaim::Previous(DelegationType4::ALL[s.arm % 4]),
        DelegClaim::FileHandle,
        DelegClaim::DelegPrevFileHandle,
    ];
    check(OpArgs::WantDelegation(WantDelegationArgs { want: b, claim: claims[s.arm % 3] }));
    check(OpArgs::Create(CreateArgs { kind: s.create_type(), name, attributes: s.attributes() }));
    check(OpArgs::FreeStateid(FreeStateidArgs { stateid }));
    check(OpArgs::Link(LinkArgs { new_name: name }));
    check(OpArgs::Lock(LockArgs { kind, reclaim: s.flag, offset, length, locker: s.locker() }));
    check(OpArgs::LockTest(LockTestArgs { kind, offset, length, owner: s.owner() }));
    check(OpArgs::Unlock(UnlockArgs { kind, seqid: a, lock_stateid: stateid, offset, length }));
    check(OpArgs::LookupParent);
    check(OpArgs::NotVerify(VerifyArgs { attributes: s.attributes() }));
    let (share_access, share_deny) = (b, c);
    check(OpArgs::OpenConfirm(OpenConfirmArgs { open_stateid: stateid, seqid: a }));
    check(OpArgs::OpenDowngrade(OpenDowngradeArgs { open_stateid: stateid, seqid: a, share_access, share_deny }));
    check(OpArgs::ReleaseLockOwner(ReleaseLockOwnerArgs { lock_owner: s.owner() }));
    check(OpArgs::PutPubFh);
    check(OpArgs::Read(ReadArgs { stateid, offset, count: a }));
    let (cookie, verifier, names_bytes_max, bytes_max) = (offset, s.verifier(), a, b);
    check(OpArgs::ReadDir(ReadDirArgs { cookie, verifier, names_bytes_max, bytes_max, request: s.bits() }));
    check(OpArgs::ReadLink);
    check(OpArgs::Remove(RemoveArgs { target: name }));
    check(OpArgs::Rename(RenameArgs { old_name: name, new_name: &s.bytes }));
    check(OpArgs::RestoreFh);
    check(OpArgs::SaveFh);
    check(OpArgs::SecInfo(SecInfoArgs { name }));
    check(OpArgs::SecInfoNoName(SecInfoStyle::ALL[s.arm % 2]));
    check(OpArgs::SetAttr(SetAttrArgs { stateid, attributes: s.attributes() }));
    check(OpArgs::TestStateid(TestStateidArgs { stateids: List::Slice(&stateids[..s.arm % 3]) }));
    check(OpArgs::Verify(VerifyArgs { attributes: s.attributes() }));
    check(OpArgs::Write(WriteArgs { stateid, offset, stable: StableHow4::ALL[s.arm % 3], data: &s.bytes }));
}

/// Calls `check` with results of each of these operations.
pub(super) fn results(s: &Source, mut check: impl FnMut(OpRes<'_>)) {
    let [a, b, ..] = s.words;
    let [offset, length, ..] = s.longs;
    let (stateid, change_info, verifier) = (s.stateid(), s.change(), s.verifier());
    let entries = s.entries();
    let flavors = [SecInfo4::Gss(&s.name, a, GssService::ALL[s.arm % 3]), SecInfo4::Flavor(1)];
    let flavors = SecInfoOk { flavors: List::Slice(&flavors) };
    let statuses = [Status::NFS4_OK, Status::NFS4ERR_EXPIRED];
    let denied = LockFailure::Denied(LockDenied { offset, length, kind: s.lock_type(), owner: s.owner() });
    check(OpRes::Access(Ok(AccessOk { supported: a, access: b })));
    check(OpRes::Commit(Ok(CommitOk { verifier })));
    check(OpRes::Create(Ok(CreateOk { change_info, attributes_set: s.bits() })));
    check(OpRes::FreeStateid(Ok(())));
    check(OpRes::Link(Ok(LinkOk { change_info })));
    check(OpRes::Lock(Ok(LockOk { lock_stateid: stateid })));
    check(OpRes::Lock(Err(denied)));
    check(OpRes::LockTest(Ok(())));
    check(OpRes::LockTest(Err(denied)));
    check(OpRes::Unlock(Ok(UnlockOk { lock_stateid: stateid })));
    check(OpRes::LookupParent(Ok(())));
    check(OpRes::NotVerify(Ok(())));
    check(OpRes::OpenConfirm(Ok(OpenConfirmOk { open_stateid: stateid })));
    check(OpRes::ReleaseLockOwner(Ok(())));
    check(OpRes::OpenDowngrade(Ok(OpenDowngradeOk { open_stateid: stateid })));
    check(OpRes::PutPubFh(Ok(())));
    check(OpRes::Read(Ok(ReadOk { eof: s.flag, data: &s.bytes })));
    check(OpRes::ReadDir(Ok(ReadDirOk { verifier, entries: DirEntries::written(&entries), eof: s.flag })));
    check(OpRes::ReadLink(Ok(ReadLinkOk { link: &s.name })));
    check(OpRes::Remove(Ok(RemoveOk { change_info })));
    check(OpRes::Rename(Ok(RenameOk { source: change_info, target: change_info })));
    check(OpRes::RestoreFh(Ok(())));
    check(OpRes::SaveFh(Ok(())));
    check(OpRes::SecInfo(Ok(flavors)));
    check(OpRes::SecInfoNoName(Ok(flavors)));
    check(OpRes::SetAttr(Ok(SetAttrOk { attributes_set: s.bits() })));
    let status = Status::NFS4ERR_NOSPC;
    check(OpRes::SetAttr(Err(SetAttrFailure { status, attributes_set: s.bits() })));
    check(OpRes::TestStateid(Ok(TestStateidOk { statuses: List::Slice(&statuses[..s.arm % 3]) })));
    check(OpRes::Verify(Ok(())));
    let committed = StableHow4::ALL[s.arm % 3];
    check(OpRes::Write(Ok(WriteOk { count: a, committed, verifier })));
    let response = WriteResponse4 { callback_id: s.flag.then_some(stateid), count: offset, committed, verifier };
    let requirements = CopyRequirements { consecutive: s.flag, synchronous: !s.flag };
    check(OpRes::Copy(Ok(CopyOk { response, requirements })));
    check(OpRes::Copy(Err(CopyFailure::NoRequirements(requirements))));
    check(OpRes::OffloadCancel(Ok(())));
    check(OpRes::OffloadStatus(Ok(OffloadStatusOk { count: offset, complete: s.flag.then_some(Status(b)) })));
    check(OpRes::Seek(Ok(SeekOk { eof: s.flag, offset })));
    check(OpRes::Allocate(Ok(())));
    check(OpRes::Deallocate(Ok(())));
    check(OpRes::Clone(Ok(())));
    delegations(s, &mut check);
}

/// What GET_DIR_DELEGATION and WANT_DELEGATION may say.
fn delegations(s: &Source, check: &mut impl FnMut(OpRes<'_>)) {
    let granted = DirDelegation {
        cookie_verifier: s.verifier(),
        stateid: s.stateid(),
        notification_types: s.bits(),
        child_attributes: s.bits(),
        directory_attributes: s.bits(),
    };
    check(OpRes::GetDirDelegation(Ok(GetDirDelegationOk::Granted(granted))));
    check(OpRes::GetDirDelegation(Ok(GetDirDelegationOk::Unavailable { will_signal: s.flag })));
    check(OpRes::WantDelegation(Ok(WantDelegationOk { delegation: s.delegation() })));
}

#[test]
fn entries_come_back_in_order() {
    let mut space = [0; 256];
    let mut w = Writer::new(&mut space);
    let attributes = crate::nfs4::Fattr::NONE;
    for (cookie, name) in [(7, b"a"), (9, b"b")] {
        DirEntry { cookie, name, attributes }.put_linked(&mut w).unwrap();
    }
    let names: Vec<_> = DirEntries::written(w.written()).iter().map(|e| (e.cookie, e.name)).collect();
    assert_eq!(names, [(7, &b"a"[..]), (9, b"b")]);
}

#[test]
fn failures_that_say_more_cannot_lose_it() {
    use crate::xdr::Encode;
    let mut space = [0; 64];
    let mut w = Writer::new(&mut space);
    OpRes::Other(Op::SETATTR, Status::NFS4ERR_NOTSUPP).encode(&mut w).unwrap();
    assert_eq!(w.written().len(), 12, "an empty bitmap follows");
    let e = OpRes::Other(Op::LOCK, Status::NFS4ERR_DENIED).encode(&mut w).unwrap_err();
    assert_eq!(e.to_string(), "status at offset 16: value 10010 is not defined here");
}
