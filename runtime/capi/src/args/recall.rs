//! Operations that recall, ask, offer or report.

use super::{handle, invalid, rb_args, rb_bitmap, rb_stateid};
use crate::connection::rb_bytes;
use crate::error::guard;
use crate::pointer::not_null;
use ringback_rpc::nfs4::callback::{
    CallbackOp, CbGetattrArgs, CbLayoutRecallArgs, CbOffloadArgs, CbPushDelegArgs, CbRecallAnyArgs, CbRecallArgs,
    CbRecallSlotArgs, CbWantsCancelledArgs, LayoutRecall, OffloadInfo, WriteResponse4,
};
use ringback_rpc::nfs4::{
    Fsid4, LayoutIomode4, LayoutType4, NfsAce4, OpenDelegation4, OpenReadDelegation4, OpenWriteDelegation4,
    SpaceLimit4, StableHow4, Status, Verifier4,
};
use ringback_rpc::xdr::Encode;
use std::ffi::c_int;

/// CB_GETATTR (RFC 8881 section 20.1).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_getattr_args {
    /// The file.
    pub fh: rb_bytes,
    /// The attributes asked for.
    pub request: rb_bitmap,
}

/// Writes the arguments of CB_GETATTR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_encode_getattr(args: Option<&mut rb_args>, getattr: Option<&rb_getattr_args>) -> c_int {
    guard("rb_encode_getattr", String::new, || {
        let (args, from) = (not_null(args, "args")?, not_null(getattr, "getattr")?);
        // SAFETY: P2
        let fh = unsafe { handle(from.fh) }?;
        args.write(CallbackOp::Getattr, |w| CbGetattrArgs { fh, attr_request: from.request.into() }.encode(w))
    })
}

/// CB_RECALL (RFC 8881 section 20.2).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_recall_args {
    /// The delegation.
    pub stateid: rb_stateid,
    /// 1 if the file is about to be truncated.
    pub truncate: i32,
    /// The file.
    pub fh: rb_bytes,
}

/// Writes the arguments of CB_RECALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_encode_recall(args: Option<&mut rb_args>, recall: Option<&rb_recall_args>) -> c_int {
    guard("rb_encode_recall", String::new, || {
        let (args, from) = (not_null(args, "args")?, not_null(recall, "recall")?);
        // SAFETY: P2
        let fh = unsafe { handle(from.fh) }?;
        let args_of = CbRecallArgs { stateid: from.stateid.into(), truncate: from.truncate != 0, fh };
        args.write(CallbackOp::Recall, |w| args_of.encode(w))
    })
}

/// What a CB_LAYOUTRECALL recalls.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_layoutrecall_kind {
    /// A range of one file: `fh`, `offset`, `length`, `stateid`.
    RB_LAYOUTRECALL_FILE = 1,
    /// Everything in one file system: `fsid_major`, `fsid_minor`.
    RB_LAYOUTRECALL_FSID = 2,
    /// Everything.
    RB_LAYOUTRECALL_ALL = 3,
}

/// CB_LAYOUTRECALL (RFC 8881 section 20.3).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_layoutrecall_args {
    /// The layout type (layouttype4).
    pub layout_type: u32,
    /// For which use (layoutiomode4): 1 read, 2 read and write, 3 any.
    pub iomode: u32,
    /// 1 if the layout is going to change.
    pub changed: i32,
    /// An rb_layoutrecall_kind.
    pub kind: i32,
    /// The file.
    pub fh: rb_bytes,
    /// First byte.
    pub offset: u64,
    /// Number of bytes; all ones: to the end.
    pub length: u64,
    /// The layout.
    pub stateid: rb_stateid,
    /// The file system.
    pub fsid_major: u64,
    /// The file system.
    pub fsid_minor: u64,
}

/// Writes the arguments of CB_LAYOUTRECALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_encode_layoutrecall(
    args: Option<&mut rb_args>,
    layoutrecall: Option<&rb_layoutrecall_args>,
) -> c_int {
    guard("rb_encode_layoutrecall", String::new, || {
        let (args, from) = (not_null(args, "args")?, not_null(layoutrecall, "layoutrecall")?);
        let recall = match from.kind {
            1 => {
                // SAFETY: P2
                let fh = unsafe { handle(from.fh) }?;
                LayoutRecall::File { fh, offset: from.offset, length: from.length, stateid: from.stateid.into() }
            }
            2 => LayoutRecall::Fsid(Fsid4 { major: from.fsid_major, minor: from.fsid_minor }),
            3 => LayoutRecall::All,
            other => return Err(invalid(format!("kind is {other}, which is no rb_layoutrecall_kind"))),
        };
        let iomode = LayoutIomode4::try_from(from.iomode)
            .map_err(|mode| invalid(format!("iomode is {mode}, which is no layoutiomode4")))?;
        let layout_type = LayoutType4(from.layout_type);
        let args_of = CbLayoutRecallArgs { layout_type, iomode, changed: from.changed != 0, recall };
        args.write(CallbackOp::LayoutRecall, |w| args_of.encode(w))
    })
}

/// CB_PUSH_DELEG (RFC 8881 section 20.5): a delegation that was wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_push_deleg_args {
    /// The file.
    pub fh: rb_bytes,
    /// The delegation.
    pub stateid: rb_stateid,
    /// 1: a write delegation.
    pub is_write: i32,
    /// A write delegation: 1 if the limit is `limit_blocks` of `limit_block_bytes`, 0 if it is `limit_bytes`.
    pub is_limit_in_blocks: i32,
    /// How large the file may become.
    pub limit_bytes: u64,
    /// Modified blocks.
    pub limit_blocks: u32,
    /// Size of a block.
    pub limit_block_bytes: u32,
    /// Who needs no ACCESS to open (nfsace4): type.
    pub ace_type: u32,
    /// Flags.
    pub ace_flag: u32,
    /// What is allowed.
    pub ace_mask: u32,
    /// 0.
    pub reserved: u32,
    /// Whom it is about.
    pub ace_who: rb_bytes,
}

/// Writes the arguments of CB_PUSH_DELEG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_encode_push_deleg(
    args: Option<&mut rb_args>,
    push_deleg: Option<&rb_push_deleg_args>,
) -> c_int {
    guard("rb_encode_push_deleg", String::new, || {
        let (args, from) = (not_null(args, "args")?, not_null(push_deleg, "push_deleg")?);
        // SAFETY: P2
        let fh = unsafe { handle(from.fh) }?;
        // SAFETY: P2
        let who = unsafe { from.ace_who.get("ace_who") }?;
        let permissions = NfsAce4 { kind: from.ace_type, flag: from.ace_flag, access_mask: from.ace_mask, who };
        let (stateid, recall) = (from.stateid.into(), false);
        let delegation = if from.is_write == 0 {
            OpenDelegation4::Read(OpenReadDelegation4 { stateid, recall, permissions })
        } else {
            let space_limit = match from.is_limit_in_blocks {
                0 => SpaceLimit4::Size(from.limit_bytes),
                _ => SpaceLimit4::Blocks { blocks: from.limit_blocks, bytes_per_block: from.limit_block_bytes },
            };
            OpenDelegation4::Write(OpenWriteDelegation4 { stateid, recall, space_limit, permissions })
        };
        args.write(CallbackOp::PushDeleg, |w| CbPushDelegArgs { fh, delegation }.encode(w))
    })
}

/// CB_RECALL_ANY (RFC 8881 section 20.6) and CB_RECALLABLE_OBJ_AVAIL (section 20.7).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_recall_any_args {
    /// How many objects the client may keep.
    pub objects_to_keep: u32,
    /// Which types of objects (RCA4_TYPE_MASK_...).
    pub type_mask: rb_bitmap,
}

impl From<&rb_recall_any_args> for CbRecallAnyArgs {
    fn from(from: &rb_recall_any_args) -> Self {
        CbRecallAnyArgs { objects_to_keep: from.objects_to_keep, type_mask: from.type_mask.into() }
    }
}

/// Writes the arguments of CB_RECALL_ANY.
#[unsafe(no_mangle)]
pub extern "C" fn rb_encode_recall_any(args: Option<&mut rb_args>, recall_any: Option<&rb_recall_any_args>) -> c_int {
    guard("rb_encode_recall_any", String::new, || {
        let (args, from) = (not_null(args, "args")?, not_null(recall_any, "recall_any")?);
        args.write(CallbackOp::RecallAny, |w| CbRecallAnyArgs::from(from).encode(w))
    })
}

/// Writes the arguments of CB_RECALLABLE_OBJ_AVAIL.
#[unsafe(no_mangle)]
pub extern "C" fn rb_encode_recallable_obj_avail(
    args: Option<&mut rb_args>,
    available: Option<&rb_recall_any_args>,
) -> c_int {
    guard("rb_encode_recallable_obj_avail", String::new, || {
        let (args, from) = (not_null(args, "args")?, not_null(available, "available")?);
        args.write(CallbackOp::RecallableObjAvail, |w| CbRecallAnyArgs::from(from).encode(w))
    })
}

/// Writes the arguments of CB_RECALL_SLOT (RFC 8881 section 20.8): the highest slot id of the fore channel that the client
/// is to keep using.
#[unsafe(no_mangle)]
pub extern "C" fn rb_encode_recall_slot(args: Option<&mut rb_args>, target_highest_slot_id: u32) -> c_int {
    guard("rb_encode_recall_slot", String::new, || {
        let slot = CbRecallSlotArgs { target_highest_slot_id };
        not_null(args, "args")?.write(CallbackOp::RecallSlot, |w| slot.encode(w))
    })
}

/// Writes the arguments of CB_WANTS_CANCELLED (RFC 8881 section 20.10); each is 0 or 1.
#[unsafe(no_mangle)]
pub extern "C" fn rb_encode_wants_cancelled(
    args: Option<&mut rb_args>,
    contended_wants_cancelled: i32,
    resourced_wants_cancelled: i32,
) -> c_int {
    guard("rb_encode_wants_cancelled", String::new, || {
        let wants = CbWantsCancelledArgs {
            contended_wants_cancelled: contended_wants_cancelled != 0,
            resourced_wants_cancelled: resourced_wants_cancelled != 0,
        };
        not_null(args, "args")?.write(CallbackOp::WantsCancelled, |w| wants.encode(w))
    })
}

/// CB_OFFLOAD (RFC 7862 section 16.1): how an asynchronous copy ended.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_offload_args {
    /// The destination file.
    pub fh: rb_bytes,
    /// The copy, as COPY named it.
    pub stateid: rb_stateid,
    /// How it ended (nfsstat4). Not 0: `count` says how far it came, and the rest is not looked at.
    pub status: u32,
    /// How safe the bytes are (stable_how4): 0 unstable, 1 data, 2 data and metadata.
    pub committed: u32,
    /// 1 if `callback_id` is told.
    pub has_callback_id: i32,
    /// Bytes written.
    pub count: u64,
    /// The stateid of a copy that goes on asynchronously.
    pub callback_id: rb_stateid,
    /// The write verifier.
    pub verifier: [u8; 8],
}

/// Writes the arguments of CB_OFFLOAD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_encode_offload(args: Option<&mut rb_args>, offload: Option<&rb_offload_args>) -> c_int {
    guard("rb_encode_offload", String::new, || {
        let (args, from) = (not_null(args, "args")?, not_null(offload, "offload")?);
        // SAFETY: P2
        let fh = unsafe { handle(from.fh) }?;
        let info = if from.status == 0 {
            let committed = StableHow4::try_from(from.committed)
                .map_err(|how| invalid(format!("committed is {how}, which is no stable_how4")))?;
            let callback_id = (from.has_callback_id != 0).then(|| from.callback_id.into());
            let verifier = Verifier4(from.verifier);
            OffloadInfo::Done(WriteResponse4 { callback_id, count: from.count, committed, verifier })
        } else {
            OffloadInfo::Failed { status: Status(from.status), bytes_copied: from.count }
        };
        args.write(CallbackOp::Offload, |w| CbOffloadArgs { fh, stateid: from.stateid.into(), info }.encode(w))
    })
}
