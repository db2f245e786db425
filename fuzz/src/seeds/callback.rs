//! Seeds of the callback program.

use super::{Seed, seed, written};
use ringback_rpc::nfs4::callback::*;
use ringback_rpc::nfs4::{
    Bitmap4, ClientId4, DeviceId4, Fattr, FileHandle, Fsid4, LayoutIomode4, LayoutType4, List, NfsAce4,
    OpenDelegation4, OpenNoneDelegation4, OpenReadDelegation4, OpenWriteDelegation4, SessionId, SpaceLimit4,
    StableHow4, StateOwner4, Stateid4, Status, Verifier4, attr,
};
use ringback_rpc::xdr::Encode;

const SESSION: SessionId = SessionId(*b"session no. 0001");
const STATEID: Stateid4 = Stateid4 { seqid: 1, other: *b"delegation 1" };

fn handle() -> FileHandle<'static> {
    FileHandle::new(b"filehandle").expect("below the limit")
}

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    delegation_args(seeds);
    layout_args(seeds);
    notify_args(seeds);
    other_args(seeds);
    results(seeds);
}

/// A compound of `minor_version` with one operation, behind CB_SEQUENCE where there are sessions.
fn compound(seeds: &mut Vec<Seed>, name: &str, minor_version: u32, args: CbArgs<'_>) {
    let calls = [ReferringCall { sequence_id: 9, slot_id: 1 }, ReferringCall { sequence_id: 10, slot_id: 0 }];
    let lists = [ReferringCallList { session_id: SESSION, calls: List::Slice(&calls) }];
    let sequence = CbSequenceArgs {
        session_id: SESSION,
        sequence_id: 42,
        slot_id: 3,
        highest_slot_id: 5,
        cache_this: false,
        referring_call_lists: List::Slice(&lists),
    };
    let sessions = minor_version > 0;
    let count = if sessions { 2 } else { 1 };
    let callback_ident = if sessions { 0 } else { 77 };
    let header = CbCompoundArgs { tag: b"seed", minor_version, callback_ident, count };
    let bytes = written(|w| {
        header.encode(w)?;
        if sessions {
            CbArgs::Sequence(sequence).encode(w)?;
        }
        args.encode(w)
    });
    seeds.push(seed("callback_args", name, bytes));
}

fn delegation_args(seeds: &mut Vec<Seed>) {
    let recall = CbRecallArgs { stateid: STATEID, truncate: true, fh: handle() };
    compound(seeds, "recall_minor_0", 0, CbArgs::Recall(recall));
    compound(seeds, "recall", 1, CbArgs::Recall(recall));
    let getattr = CbGetattrArgs { fh: handle(), attr_request: Bitmap4::of(&[attr::CHANGE, attr::SIZE]) };
    compound(seeds, "getattr_minor_0", 0, CbArgs::Getattr(getattr));
    compound(seeds, "getattr", 1, CbArgs::Getattr(getattr));
    let permissions = NfsAce4 { kind: 0, flag: 0, access_mask: 0x0012_0081, who: b"OWNER@" };
    let blocks = SpaceLimit4::Blocks { blocks: 16, bytes_per_block: 4096 };
    let write = |space_limit| {
        OpenDelegation4::Write(OpenWriteDelegation4 { stateid: STATEID, recall: false, space_limit, permissions })
    };
    for (name, delegation) in [
        ("none", OpenDelegation4::None),
        ("read", OpenDelegation4::Read(OpenReadDelegation4 { stateid: STATEID, recall: false, permissions })),
        ("write_size", write(SpaceLimit4::Size(1 << 40))),
        ("write_blocks", write(blocks)),
        ("contention", OpenDelegation4::NoneExt(OpenNoneDelegation4::Contention { will_push: true })),
        ("resource", OpenDelegation4::NoneExt(OpenNoneDelegation4::Resource { will_signal: false })),
        ("is_dir", OpenDelegation4::NoneExt(OpenNoneDelegation4::IsDirectory)),
    ] {
        let args = CbPushDelegArgs { fh: handle(), delegation };
        compound(seeds, &format!("push_deleg_{name}"), 1, CbArgs::PushDeleg(args));
    }
}

fn layout_args(seeds: &mut Vec<Seed>) {
    let file = LayoutRecall::File { fh: handle(), offset: 4096, length: u64::MAX, stateid: STATEID };
    for (name, recall) in
        [("file", file), ("fsid", LayoutRecall::Fsid(Fsid4 { major: 1, minor: 2 })), ("all", LayoutRecall::All)]
    {
        let layout_type = LayoutType4::NFSV4_1_FILES;
        let args = CbLayoutRecallArgs { layout_type, iomode: LayoutIomode4::Any, changed: true, recall };
        compound(seeds, &format!("layoutrecall_{name}"), 1, CbArgs::LayoutRecall(args));
    }
}

fn notify_args(seeds: &mut Vec<Seed>) {
    let entry = |name| NotifyEntry {
        name,
        attributes: Fattr { mask: Bitmap4::of(&[attr::SIZE]), values: &[0, 0, 0, 0, 0, 0, 0, 7] },
    };
    let old = NotifyRemove { entry: entry(b"old"), cookie: 3 };
    let add = NotifyAdd {
        old_entry: Some(old),
        new_entry: entry(b"new"),
        new_entry_cookie: Some(5),
        prev_entry: Some(PrevEntry { entry: entry(b"before"), cookie: 4 }),
        last_entry: true,
    };
    let verifier = NotifyVerifier { old: Verifier4([1; 8]), new: Verifier4([2; 8]) };
    let all = [
        Notification::ChangeChildAttributes(entry(b"child")),
        Notification::ChangeDirectoryAttributes(entry(b"")),
        Notification::Remove(old),
        Notification::Add(add),
        Notification::Rename(NotifyRename { old_entry: old, new_entry: add }),
        Notification::ChangeCookieVerifier(verifier),
    ];
    let values = written(|w| all.iter().try_for_each(|change| change.encode(w)));
    let first = written(|w| all[0].encode(w));
    let changes = [
        Notify4 { mask: Bitmap4::of(&[0, 1, 2, 3, 4, 5]), values: &values },
        Notify4 { mask: Bitmap4::of(&[notify_type::CHANGE_CHILD_ATTRS]), values: &first },
        Notify4 { mask: Bitmap4::of(&[6]), values: &[] },
    ];
    let args = CbNotifyArgs { stateid: STATEID, fh: handle(), changes: List::Slice(&changes) };
    compound(seeds, "notify", 1, CbArgs::Notify(args));

    let (layout_type, device_id) = (LayoutType4::FLEX_FILES, DeviceId4([9; 16]));
    let change = DeviceNotification::Change(NotifyDeviceIdChange { layout_type, device_id, immediate: true });
    let delete = DeviceNotification::Delete(NotifyDeviceIdDelete { layout_type, device_id });
    let change_bytes = written(|w| change.encode(w));
    let both = written(|w| change.encode(w).and_then(|()| delete.encode(w)));
    let changes = [
        Notify4 { mask: Bitmap4::of(&[change.bit()]), values: &change_bytes },
        Notify4 { mask: Bitmap4::of(&[change.bit(), delete.bit()]), values: &both },
    ];
    let args = CbNotifyDeviceIdArgs { changes: List::Slice(&changes) };
    compound(seeds, "notify_deviceid", 1, CbArgs::NotifyDeviceId(args));
}

fn other_args(seeds: &mut Vec<Seed>) {
    let any = CbRecallAnyArgs {
        objects_to_keep: 100,
        type_mask: Bitmap4::of(&[CbRecallAnyArgs::READ_DELEGATIONS, CbRecallAnyArgs::WRITE_DELEGATIONS]),
    };
    compound(seeds, "recall_any", 1, CbArgs::RecallAny(any));
    compound(seeds, "recallable_obj_avail", 1, CbArgs::RecallableObjAvail(any));
    compound(seeds, "recall_slot", 1, CbArgs::RecallSlot(CbRecallSlotArgs { target_highest_slot_id: 7 }));
    let cancelled = CbWantsCancelledArgs { contended_wants_cancelled: true, resourced_wants_cancelled: false };
    compound(seeds, "wants_cancelled", 1, CbArgs::WantsCancelled(cancelled));
    let lock_owner = StateOwner4::new(ClientId4(5), b"lock owner").expect("below the limit");
    compound(seeds, "notify_lock", 1, CbArgs::NotifyLock(CbNotifyLockArgs { fh: handle(), lock_owner }));
    let done = |callback_id| {
        let committed = StableHow4::FileSync;
        OffloadInfo::Done(WriteResponse4 { callback_id, count: 1 << 20, committed, verifier: Verifier4([3; 8]) })
    };
    let failed = OffloadInfo::Failed { status: Status::NFS4ERR_NOSPC, bytes_copied: 4096 };
    for (name, info) in [("done", done(None)), ("done_with_id", done(Some(STATEID))), ("failed", failed)] {
        let args = CbOffloadArgs { fh: handle(), stateid: STATEID, info };
        compound(seeds, &format!("offload_{name}"), 2, CbArgs::Offload(args));
    }
    compound(seeds, "illegal", 1, CbArgs::Illegal(CallbackOp::Illegal as u32));
    compound(seeds, "undefined", 1, CbArgs::Illegal(4711));
    compound(seeds, "minor_9", 9, CbArgs::RecallAny(any));
}

fn results(seeds: &mut Vec<Seed>) {
    let sequence = CbRes::Sequence(Ok(CbSequenceRes {
        session_id: SESSION,
        sequence_id: 42,
        slot_id: 3,
        highest_slot_id: 15,
        target_highest_slot_id: 15,
    }));
    let mut add = |name: String, results: &[CbRes<'_>]| {
        let status = results.last().map_or(Status::NFS4ERR_MINOR_VERS_MISMATCH, CbRes::status);
        let header = CbCompoundRes { status, tag: b"seed", count: results.len() as u32 };
        let bytes = written(|w| {
            header.encode(w)?;
            results.iter().try_for_each(|res| res.encode(w))
        });
        seeds.push(seed("callback_results", name, bytes));
    };
    add("empty".into(), &[]);
    let values = [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0];
    let attributes = Fattr { mask: Bitmap4::of(&[attr::CHANGE, attr::SIZE]), values: &values };
    add("getattr".into(), &[sequence, CbRes::Getattr(Ok(attributes))]);
    add("getattr_minor_0".into(), &[CbRes::Getattr(Ok(attributes))]);
    for op in CallbackOp::ALL.iter().copied() {
        let name = op.name().to_ascii_lowercase();
        let failed = CbRes::failed(op, Status::NFS4ERR_DELAY);
        if op == CallbackOp::Sequence {
            add(format!("{name}_failed"), &[failed]);
        } else {
            add(format!("{name}_failed"), &[sequence, failed]);
        }
        if !matches!(op, CallbackOp::Getattr | CallbackOp::Sequence) {
            add(format!("{name}_ok"), &[sequence, CbRes::failed(op, Status::NFS4_OK)]);
        }
    }
}
