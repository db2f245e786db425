//! Seeds of the operations on files, directories and locks.

use super::Seed;
use super::fore::{CLIENT, SEQUENCE, STATEID, VERIFIER, call, reply};
use ringback_rpc::nfs4::callback::WriteResponse4;
use ringback_rpc::nfs4::fore::*;
use ringback_rpc::nfs4::{
    Bitmap4, ChangeInfo4, Fattr, GssService, List, NfsTime4, OpenDelegation4, OpenNoneDelegation4, StableHow4,
    StateOwner4, Stateid4, Status, attr,
};
use ringback_rpc::xdr::Writer;

const CHANGE: ChangeInfo4 = ChangeInfo4 { atomic: true, before: 1, after: 2 };

fn attributes() -> Fattr<'static> {
    Fattr { mask: Bitmap4::of(&[attr::SIZE]), values: &[0; 8] }
}

fn owner() -> StateOwner4<'static> {
    StateOwner4::new(CLIENT, b"lock owner").expect("below the limit")
}

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    calls(seeds);
    lock_calls(seeds);
    replies(seeds);
    lock_replies(seeds);
}

fn one_call(seeds: &mut Vec<Seed>, name: &str, args: OpArgs<'_>) {
    call(seeds, name, &[OpArgs::Sequence(SEQUENCE), OpArgs::PutRootFh, args]);
}

fn one_reply(seeds: &mut Vec<Seed>, name: &str, res: OpRes<'_>) {
    reply(seeds, name, &[OpRes::PutRootFh(Ok(())), res]);
}

fn calls(seeds: &mut Vec<Seed>) {
    let (stateid, name, attributes) = (STATEID, b"name".as_slice(), attributes());
    one_call(seeds, "access", OpArgs::Access(AccessArgs { access: 0x3f }));
    one_call(seeds, "commit", OpArgs::Commit(CommitArgs { offset: 0, count: 0 }));
    let kinds = [
        CreateType::Symlink(b"../target"),
        CreateType::Block(8, 1),
        CreateType::Character(1, 3),
        CreateType::Plain(file_type::DIRECTORY),
    ];
    for kind in kinds {
        one_call(seeds, &format!("create_{}", kind.number()), OpArgs::Create(CreateArgs { kind, name, attributes }));
    }
    one_call(seeds, "link", OpArgs::Link(LinkArgs { new_name: name }));
    one_call(seeds, "verify", OpArgs::Verify(VerifyArgs { attributes }));
    one_call(seeds, "nverify", OpArgs::NotVerify(VerifyArgs { attributes }));
    one_call(seeds, "read", OpArgs::Read(ReadArgs { stateid, offset: 4096, count: 4096 }));
    let request = Bitmap4::of(&[attr::TYPE, attr::RDATTR_ERROR, attr::FILEID]);
    let (cookie, verifier) = (0, VERIFIER);
    let read = ReadDirArgs { cookie, verifier, names_bytes_max: 1024, bytes_max: 4096, request };
    one_call(seeds, "readdir", OpArgs::ReadDir(read));
    one_call(seeds, "remove", OpArgs::Remove(RemoveArgs { target: name }));
    one_call(seeds, "rename", OpArgs::Rename(RenameArgs { old_name: name, new_name: b"new name" }));
    one_call(seeds, "secinfo", OpArgs::SecInfo(SecInfoArgs { name }));
    one_call(seeds, "secinfo_no_name", OpArgs::SecInfoNoName(SecInfoStyle::Parent));
    one_call(seeds, "setattr", OpArgs::SetAttr(SetAttrArgs { stateid: Stateid4::ANONYMOUS, attributes }));
    let write = WriteArgs { stateid, offset: 0, stable: StableHow4::Unstable, data: b"data" };
    one_call(seeds, "write", OpArgs::Write(write));
    let here = [NetLoc4::Name(b"host"), NetLoc4::Url(b"nfs://host/"), NetLoc4::Address(b"tcp", b"127.0.0.1.8.1")];
    let (src_stateid, dst_stateid) = (stateid, Stateid4::CURRENT);
    let copy = CopyArgs {
        src_stateid,
        dst_stateid,
        src_offset: 1,
        dst_offset: 2,
        count: 0,
        consecutive: true,
        synchronous: false,
        source_servers: List::Slice(&here),
    };
    one_call(seeds, "copy", OpArgs::Copy(copy));
    one_call(seeds, "offload_cancel", OpArgs::OffloadCancel(OffloadCancelArgs { stateid }));
    one_call(seeds, "offload_status", OpArgs::OffloadStatus(OffloadStatusArgs { stateid }));
    one_call(seeds, "seek", OpArgs::Seek(SeekArgs { stateid, offset: 7, what: DataContent4::Hole }));
    let range = AllocateArgs { stateid, offset: 4096, length: 8192 };
    one_call(seeds, "allocate", OpArgs::Allocate(range));
    one_call(seeds, "deallocate", OpArgs::Deallocate(range));
    let clone = CloneArgs { src_stateid, dst_stateid, src_offset: 0, dst_offset: 4096, count: 0 };
    one_call(seeds, "clone", OpArgs::Clone(clone));
    delegation_calls(seeds);
    let bare = [OpArgs::PutPubFh, OpArgs::SaveFh, OpArgs::LookupParent, OpArgs::RestoreFh, OpArgs::ReadLink];
    call(seeds, "without_arguments", &bare);
}

fn delegation_calls(seeds: &mut Vec<Seed>) {
    let delay = NfsTime4 { seconds: 1, nseconds: 0 };
    let directory = GetDirDelegationArgs {
        signal: true,
        notification_types: Bitmap4::of(&[2, 3, 4, 5]),
        child_delay: delay,
        directory_delay: delay,
        child_attributes: Bitmap4::of(&[attr::SIZE]),
        directory_attributes: Bitmap4::of(&[attr::CHANGE]),
    };
    one_call(seeds, "get_dir_delegation", OpArgs::GetDirDelegation(directory));
    let claims =
        [DelegClaim::Previous(DelegationType4::Write), DelegClaim::FileHandle, DelegClaim::DelegPrevFileHandle];
    for (n, claim) in claims.into_iter().enumerate() {
        let want = WantDelegationArgs { want: 0x3_0100, claim };
        one_call(seeds, &format!("want_delegation_{n}"), OpArgs::WantDelegation(want));
    }
}

fn lock_calls(seeds: &mut Vec<Seed>) {
    let (offset, length) = (0, u64::MAX);
    let first = OpenToLockOwner { open_seqid: 0, open_stateid: STATEID, lock_seqid: 0, lock_owner: owner() };
    let again = ExistingLockOwner { lock_stateid: STATEID, lock_seqid: 0 };
    for (name, kind, locker) in
        [("new", LockType::WriteWait, Locker::New(first)), ("existing", LockType::Read, Locker::Existing(again))]
    {
        let lock = LockArgs { kind, reclaim: false, offset, length, locker };
        one_call(seeds, &format!("lock_{name}"), OpArgs::Lock(lock));
    }
    let kind = LockType::Write;
    one_call(seeds, "lockt", OpArgs::LockTest(LockTestArgs { kind, offset, length, owner: owner() }));
    one_call(seeds, "locku", OpArgs::Unlock(UnlockArgs { kind, seqid: 0, lock_stateid: STATEID, offset, length }));
    let downgrade = OpenDowngradeArgs { open_stateid: STATEID, seqid: 0, share_access: 1, share_deny: 0 };
    one_call(seeds, "open_confirm", OpArgs::OpenConfirm(OpenConfirmArgs { open_stateid: STATEID, seqid: 1 }));
    one_call(seeds, "release_lockowner", OpArgs::ReleaseLockOwner(ReleaseLockOwnerArgs { lock_owner: owner() }));
    one_call(seeds, "open_downgrade", OpArgs::OpenDowngrade(downgrade));
    one_call(seeds, "free_stateid", OpArgs::FreeStateid(FreeStateidArgs { stateid: STATEID }));
    let stateids = [STATEID, Stateid4::ANONYMOUS];
    one_call(seeds, "test_stateid", OpArgs::TestStateid(TestStateidArgs { stateids: List::Slice(&stateids) }));
}

fn replies(seeds: &mut Vec<Seed>) {
    let mut space = [0; 256];
    let mut w = Writer::new(&mut space);
    for (cookie, name) in [(3, b"one"), (4, b"two")] {
        DirEntry { cookie, name, attributes: attributes() }.put_linked(&mut w).expect("there is space");
    }
    let entries = DirEntries::written(w.written());
    let flavors = [SecInfo4::Gss(&[0x2a, 0x86, 0x48], 0, GssService::None), SecInfo4::Flavor(1)];
    let flavors = SecInfoOk { flavors: List::Slice(&flavors) };
    let verifier = VERIFIER;
    one_reply(seeds, "access", OpRes::Access(Ok(AccessOk { supported: 0x3f, access: 0x1f })));
    one_reply(seeds, "commit", OpRes::Commit(Ok(CommitOk { verifier })));
    let attributes_set = Bitmap4::of(&[attr::MODE]);
    one_reply(seeds, "create", OpRes::Create(Ok(CreateOk { change_info: CHANGE, attributes_set })));
    one_reply(seeds, "link", OpRes::Link(Ok(LinkOk { change_info: CHANGE })));
    one_reply(seeds, "read", OpRes::Read(Ok(ReadOk { eof: true, data: b"data" })));
    one_reply(seeds, "readdir", OpRes::ReadDir(Ok(ReadDirOk { verifier, entries, eof: true })));
    one_reply(seeds, "readlink", OpRes::ReadLink(Ok(ReadLinkOk { link: b"../target" })));
    one_reply(seeds, "remove", OpRes::Remove(Ok(RemoveOk { change_info: CHANGE })));
    one_reply(seeds, "rename", OpRes::Rename(Ok(RenameOk { source: CHANGE, target: CHANGE })));
    one_reply(seeds, "secinfo", OpRes::SecInfo(Ok(flavors)));
    one_reply(seeds, "secinfo_no_name", OpRes::SecInfoNoName(Ok(flavors)));
    one_reply(seeds, "setattr", OpRes::SetAttr(Ok(SetAttrOk { attributes_set })));
    let failure = SetAttrFailure { status: Status::NFS4ERR_NOSPC, attributes_set };
    one_reply(seeds, "setattr_failed", OpRes::SetAttr(Err(failure)));
    let written = WriteOk { count: 4, committed: StableHow4::FileSync, verifier };
    one_reply(seeds, "write", OpRes::Write(Ok(written)));
    let response = WriteResponse4 { callback_id: Some(STATEID), count: 4, committed: StableHow4::FileSync, verifier };
    let requirements = CopyRequirements { consecutive: true, synchronous: false };
    one_reply(seeds, "copy", OpRes::Copy(Ok(CopyOk { response, requirements })));
    one_reply(seeds, "copy_failed", OpRes::Copy(Err(CopyFailure::NoRequirements(requirements))));
    let status = OffloadStatusOk { count: 4, complete: Some(Status::NFS4ERR_NOSPC) };
    one_reply(seeds, "offload_status", OpRes::OffloadStatus(Ok(status)));
    one_reply(seeds, "seek", OpRes::Seek(Ok(SeekOk { eof: false, offset: 4096 })));
    let granted = DirDelegation {
        cookie_verifier: verifier,
        stateid: STATEID,
        notification_types: Bitmap4::of(&[2, 3]),
        child_attributes: attributes_set,
        directory_attributes: attributes_set,
    };
    for (name, ok) in [
        ("granted", GetDirDelegationOk::Granted(granted)),
        ("unavailable", GetDirDelegationOk::Unavailable { will_signal: true }),
    ] {
        one_reply(seeds, &format!("get_dir_delegation_{name}"), OpRes::GetDirDelegation(Ok(ok)));
    }
    let delegation = OpenDelegation4::NoneExt(OpenNoneDelegation4::Contention { will_push: true });
    one_reply(seeds, "want_delegation", OpRes::WantDelegation(Ok(WantDelegationOk { delegation })));
    let bare = [
        OpRes::OffloadCancel(Ok(())),
        OpRes::Allocate(Ok(())),
        OpRes::Deallocate(Ok(())),
        OpRes::Clone(Ok(())),
        OpRes::PutPubFh(Ok(())),
        OpRes::SaveFh(Ok(())),
        OpRes::LookupParent(Ok(())),
        OpRes::RestoreFh(Ok(())),
        OpRes::Verify(Ok(())),
        OpRes::NotVerify(Ok(())),
        OpRes::BackchannelCtl(Ok(())),
        OpRes::DestroySession(Ok(())),
        OpRes::DestroyClientId(Ok(())),
        OpRes::ReclaimComplete(Ok(())),
        OpRes::FreeStateid(Ok(())),
        OpRes::NotVerify(Err(Status::NFS4ERR_SAME)),
    ];
    reply(seeds, "without_results", &bare);
}

fn lock_replies(seeds: &mut Vec<Seed>) {
    let denied = LockDenied { offset: 1, length: 2, kind: LockType::Write, owner: owner() };
    one_reply(seeds, "lock", OpRes::Lock(Ok(LockOk { lock_stateid: STATEID })));
    one_reply(seeds, "lock_denied", OpRes::Lock(Err(LockFailure::Denied(denied))));
    one_reply(seeds, "lockt", OpRes::LockTest(Ok(())));
    one_reply(seeds, "lockt_denied", OpRes::LockTest(Err(LockFailure::Denied(denied))));
    one_reply(seeds, "locku", OpRes::Unlock(Ok(UnlockOk { lock_stateid: STATEID })));
    one_reply(seeds, "open_confirm", OpRes::OpenConfirm(Ok(OpenConfirmOk { open_stateid: STATEID })));
    one_reply(seeds, "release_lockowner", OpRes::ReleaseLockOwner(Ok(())));
    one_reply(seeds, "open_downgrade", OpRes::OpenDowngrade(Ok(OpenDowngradeOk { open_stateid: STATEID })));
    one_reply(seeds, "free_stateid", OpRes::FreeStateid(Ok(())));
    let statuses = [Status::NFS4_OK, Status::NFS4ERR_BAD_STATEID];
    one_reply(seeds, "test_stateid", OpRes::TestStateid(Ok(TestStateidOk { statuses: List::Slice(&statuses) })));
}
