//! Arguments of the callback operations.

use super::{CallbackOp, Notify4};
use crate::nfs4::wire::{Field, undefined, wire_field, wire_struct};
use crate::nfs4::{
    Bitmap4, FileHandle, Fsid4, LayoutIomode4, LayoutType4, List, OpenDelegation4, SessionId, StableHow4, StateOwner4,
    Stateid4, Status, Verifier4,
};
use crate::xdr::{Decode, Encode, Reader, Result, Writer, XdrError, XdrErrorKind};

wire_struct! {
    /// CB_GETATTR (RFC 8881 section 20.1.1, `CB_GETATTR4args`).
    pub struct CbGetattrArgs<'a> {
        /// The file.
        pub fh: FileHandle<'a> = "CB_GETATTR4args.fh",
        /// The attributes asked for: size and change mean something here.
        pub attr_request: Bitmap4 = "CB_GETATTR4args.attr_request",
    }
}

wire_struct! {
    /// CB_RECALL (RFC 8881 section 20.2.1, `CB_RECALL4args`).
    pub struct CbRecallArgs<'a> {
        /// The delegation.
        pub stateid: Stateid4 = "CB_RECALL4args.stateid",
        /// The file is about to be truncated, so that modified data past the new end need not be written back.
        pub truncate: bool = "CB_RECALL4args.truncate",
        /// The file.
        pub fh: FileHandle<'a> = "CB_RECALL4args.fh",
    }
}

/// What to return (RFC 8881 section 20.3.1, `layoutrecall4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutRecall<'a> {
    /// LAYOUTRECALL4_FILE: a range of one file.
    File {
        /// The file.
        fh: FileHandle<'a>,
        /// First byte.
        offset: u64,
        /// Number of bytes; all ones: to the end.
        length: u64,
        /// The layout.
        stateid: Stateid4,
    },
    /// LAYOUTRECALL4_FSID: everything in one file system.
    Fsid(Fsid4),
    /// LAYOUTRECALL4_ALL: everything.
    All,
}

impl<'a> Decode<'a> for LayoutRecall<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let offset = r.offset();
        match r.u32("lor_recalltype")? {
            1 => Ok(LayoutRecall::File {
                fh: FileHandle::decode(r)?,
                offset: r.u64("lor_offset")?,
                length: r.u64("lor_length")?,
                stateid: Stateid4::decode(r)?,
            }),
            2 => Fsid4::decode(r).map(LayoutRecall::Fsid),
            3 => Ok(LayoutRecall::All),
            value => Err(undefined("lor_recalltype", offset, value)),
        }
    }
}

impl Encode for LayoutRecall<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            LayoutRecall::File { fh, offset, length, stateid } => {
                w.u32(1)?;
                fh.encode(w)?;
                w.u64(*offset)?;
                w.u64(*length)?;
                stateid.encode(w)
            }
            LayoutRecall::Fsid(fsid) => {
                w.u32(2)?;
                fsid.encode(w)
            }
            LayoutRecall::All => w.u32(3),
        }
    }
}

wire_field!(LayoutRecall<'a>);

wire_struct! {
    /// CB_LAYOUTRECALL (RFC 8881 section 20.3.1, `CB_LAYOUTRECALL4args`).
    pub struct CbLayoutRecallArgs<'a> {
        /// The layout type.
        pub layout_type: LayoutType4 = "clora_type",
        /// For which use.
        pub iomode: LayoutIomode4 = "clora_iomode",
        /// The layout is going to change, so that modified data must not be written through it.
        pub changed: bool = "clora_changed",
        /// What to return.
        pub recall: LayoutRecall<'a> = "clora_recall",
    }
}

wire_struct! {
    /// CB_NOTIFY (RFC 8881 section 20.4.1, `CB_NOTIFY4args`).
    pub struct CbNotifyArgs<'a> {
        /// The directory delegation.
        pub stateid: Stateid4 = "cna_stateid",
        /// The directory.
        pub fh: FileHandle<'a> = "cna_fh",
        /// What changed: see [`Notify4::notifications`].
        pub changes: List<'a, Notify4<'a>> = "cna_changes",
    }
}

wire_struct! {
    /// CB_PUSH_DELEG (RFC 8881 section 20.5.1, `CB_PUSH_DELEG4args`).
    pub struct CbPushDelegArgs<'a> {
        /// The file.
        pub fh: FileHandle<'a> = "cpda_fh",
        /// The delegation.
        pub delegation: OpenDelegation4<'a> = "cpda_delegation",
    }
}

wire_struct! {
    /// CB_RECALL_ANY (RFC 8881 section 20.6.1, `CB_RECALL_ANY4args`), and CB_RECALLABLE_OBJ_AVAIL (section 20.7.1),
    /// whose arguments are the same.
    pub struct CbRecallAnyArgs {
        /// How many objects the client may keep.
        pub objects_to_keep: u32 = "craa_objects_to_keep",
        /// Which types of objects.
        pub type_mask: Bitmap4 = "craa_type_mask",
    }
}

impl CbRecallAnyArgs {
    /// Bit of read delegations (RFC 8881 section 20.6.1, `RCA4_TYPE_MASK_RDATA_DLG`).
    pub const READ_DELEGATIONS: u32 = 0;
    /// Bit of write delegations (`RCA4_TYPE_MASK_WDATA_DLG`).
    pub const WRITE_DELEGATIONS: u32 = 1;
    /// Bit of directory delegations (`RCA4_TYPE_MASK_DIR_DLG`).
    pub const DIRECTORY_DELEGATIONS: u32 = 2;
    /// Bit of file layouts (`RCA4_TYPE_MASK_FILE_LAYOUT`).
    pub const FILE_LAYOUTS: u32 = 3;
    /// Bit of block layouts (`RCA4_TYPE_MASK_BLK_LAYOUT`).
    pub const BLOCK_LAYOUTS: u32 = 4;
    /// First bit of object layouts (`RCA4_TYPE_MASK_OBJ_LAYOUT_MIN`).
    pub const OBJECT_LAYOUTS_FIRST: u32 = 8;
    /// Last bit of object layouts (`RCA4_TYPE_MASK_OBJ_LAYOUT_MAX`).
    pub const OBJECT_LAYOUTS_LAST: u32 = 9;
    /// First bit of other layouts (`RCA4_TYPE_MASK_OTHER_LAYOUT_MIN`).
    pub const OTHER_LAYOUTS_FIRST: u32 = 12;
    /// Last bit of other layouts (`RCA4_TYPE_MASK_OTHER_LAYOUT_MAX`).
    pub const OTHER_LAYOUTS_LAST: u32 = 15;
}

wire_struct! {
    /// CB_RECALL_SLOT (RFC 8881 section 20.8.1, `CB_RECALL_SLOT4args`).
    pub struct CbRecallSlotArgs {
        /// The highest slot id of the fore channel that the client is to keep using.
        pub target_highest_slot_id: u32 = "rsa_target_highest_slotid",
    }
}

wire_struct! {
    /// One fore-channel call (RFC 8881 section 20.9.1, `referring_call4`). The sequence id comes first.
    pub struct ReferringCall {
        /// Its sequence id.
        pub sequence_id: u32 = "rc_sequenceid",
        /// Its session slot.
        pub slot_id: u32 = "rc_slotid",
    }
}

wire_struct! {
    /// Fore-channel calls of one session whose replies the callback may have overtaken (RFC 8881 section 20.9.1,
    /// `referring_call_list4`).
    pub struct ReferringCallList<'a> {
        /// The session.
        pub session_id: SessionId = "rcl_sessionid",
        /// The calls.
        pub calls: List<'a, ReferringCall> = "rcl_referring_calls",
    }
}

wire_struct! {
    /// CB_SEQUENCE (RFC 8881 section 20.9.1, `CB_SEQUENCE4args`).
    pub struct CbSequenceArgs<'a> {
        /// The session.
        pub session_id: SessionId = "csa_sessionid",
        /// One more than the slot's last.
        pub sequence_id: u32 = "csa_sequenceid",
        /// The session slot of the backchannel.
        pub slot_id: u32 = "csa_slotid",
        /// The highest slot that has a call outstanding.
        pub highest_slot_id: u32 = "csa_highest_slotid",
        /// Whether the client is to keep the whole reply.
        pub cache_this: bool = "csa_cachethis",
        /// Calls that the callback depends on.
        pub referring_call_lists: List<'a, ReferringCallList<'a>> = "csa_referring_call_lists",
    }
}

wire_struct! {
    /// CB_WANTS_CANCELLED (RFC 8881 section 20.10.1, `CB_WANTS_CANCELLED4args`).
    pub struct CbWantsCancelledArgs {
        /// CB_PUSH_DELEG will not come.
        pub contended_wants_cancelled: bool = "cwca_contended_wants_cancelled",
        /// CB_RECALLABLE_OBJ_AVAIL will not come.
        pub resourced_wants_cancelled: bool = "cwca_resourced_wants_cancelled",
    }
}

wire_struct! {
    /// CB_NOTIFY_LOCK (RFC 8881 section 20.11.1, `CB_NOTIFY_LOCK4args`).
    pub struct CbNotifyLockArgs<'a> {
        /// The file.
        pub fh: FileHandle<'a> = "cnla_fh",
        /// Who asked for the lock.
        pub lock_owner: StateOwner4<'a> = "cnla_lock_owner",
    }
}

wire_struct! {
    /// CB_NOTIFY_DEVICEID (RFC 8881 section 20.12.1, `CB_NOTIFY_DEVICEID4args`).
    pub struct CbNotifyDeviceIdArgs<'a> {
        /// What changed: see [`Notify4::device_notifications`].
        pub changes: List<'a, Notify4<'a>> = "cnda_changes",
    }
}

wire_struct! {
    /// How much was written, and how safely (RFC 7862 section 15.2, `write_response4`).
    pub struct WriteResponse4 {
        /// The stateid of a copy that goes on asynchronously.
        pub callback_id: Option<Stateid4> = "wr_callback_id",
        /// Bytes written.
        pub count: u64 = "wr_count",
        /// How safe they are.
        pub committed: StableHow4 = "wr_committed",
        /// The write verifier.
        pub verifier: Verifier4 = "wr_writeverf",
    }
}

/// How an asynchronous copy ended (RFC 7862 section 16.1.1, `offload_info4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadInfo {
    /// It is done.
    Done(WriteResponse4),
    /// It failed.
    Failed {
        /// Why. NFS4_OK cannot be encoded here.
        status: Status,
        /// How far it came.
        bytes_copied: u64,
    },
}

impl Decode<'_> for OffloadInfo {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        match Status::decode(r)? {
            Status::NFS4_OK => WriteResponse4::decode(r).map(OffloadInfo::Done),
            status => Ok(OffloadInfo::Failed { status, bytes_copied: r.u64("coa_bytes_copied")? }),
        }
    }
}

impl Encode for OffloadInfo {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            OffloadInfo::Done(response) => {
                Status::NFS4_OK.encode(w)?;
                response.encode(w)
            }
            OffloadInfo::Failed { status, bytes_copied } => {
                failure(w, "coa_status", *status)?;
                w.u64(*bytes_copied)
            }
        }
    }
}

wire_field!(OffloadInfo);

/// Writes the status of a failure. NFS4_OK is refused: the other side would expect results behind it.
pub(super) fn failure(w: &mut Writer<'_>, what: &'static str, status: Status) -> Result<()> {
    if status.is_ok() {
        return Err(XdrError { what, offset: w.position(), kind: XdrErrorKind::BadValue { value: 0 } });
    }
    status.encode(w)
}

wire_struct! {
    /// CB_OFFLOAD (RFC 7862 section 16.1.1, `CB_OFFLOAD4args`).
    pub struct CbOffloadArgs<'a> {
        /// The destination file.
        pub fh: FileHandle<'a> = "coa_fh",
        /// The copy, as COPY named it.
        pub stateid: Stateid4 = "coa_stateid",
        /// How it ended.
        pub info: OffloadInfo = "coa_offload_info",
    }
}

/// One operation of a CB_COMPOUND call (RFC 8881 section 19.2, `nfs_cb_argop4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CbArgs<'a> {
    /// CB_GETATTR.
    Getattr(CbGetattrArgs<'a>),
    /// CB_RECALL.
    Recall(CbRecallArgs<'a>),
    /// CB_LAYOUTRECALL.
    LayoutRecall(CbLayoutRecallArgs<'a>),
    /// CB_NOTIFY.
    Notify(CbNotifyArgs<'a>),
    /// CB_PUSH_DELEG.
    PushDeleg(CbPushDelegArgs<'a>),
    /// CB_RECALL_ANY.
    RecallAny(CbRecallAnyArgs),
    /// CB_RECALLABLE_OBJ_AVAIL.
    RecallableObjAvail(CbRecallAnyArgs),
    /// CB_RECALL_SLOT.
    RecallSlot(CbRecallSlotArgs),
    /// CB_SEQUENCE.
    Sequence(CbSequenceArgs<'a>),
    /// CB_WANTS_CANCELLED.
    WantsCancelled(CbWantsCancelledArgs),
    /// CB_NOTIFY_LOCK.
    NotifyLock(CbNotifyLockArgs<'a>),
    /// CB_NOTIFY_DEVICEID.
    NotifyDeviceId(CbNotifyDeviceIdArgs<'a>),
    /// CB_OFFLOAD.
    Offload(CbOffloadArgs<'a>),
    /// A number that is no operation, or CB_ILLEGAL itself: what follows cannot be read, and the answer is CB_ILLEGAL
    /// with NFS4ERR_OP_ILLEGAL (RFC 8881 section 20.13).
    Illegal(u32),
}

/// Matches every operation with arguments: `$args` is bound to the struct.
macro_rules! each_args {
    ($self:expr, $args:ident => $do:expr, illegal $number:ident => $illegal:expr) => {
        match $self {
            CbArgs::Getattr($args) => $do,
            CbArgs::Recall($args) => $do,
            CbArgs::LayoutRecall($args) => $do,
            CbArgs::Notify($args) => $do,
            CbArgs::PushDeleg($args) => $do,
            CbArgs::RecallAny($args) => $do,
            CbArgs::RecallableObjAvail($args) => $do,
            CbArgs::RecallSlot($args) => $do,
            CbArgs::Sequence($args) => $do,
            CbArgs::WantsCancelled($args) => $do,
            CbArgs::NotifyLock($args) => $do,
            CbArgs::NotifyDeviceId($args) => $do,
            CbArgs::Offload($args) => $do,
            CbArgs::Illegal($number) => $illegal,
        }
    };
}

impl<'a> CbArgs<'a> {
    /// Which operation it is.
    pub const fn op(&self) -> CallbackOp {
        match self {
            CbArgs::Getattr(_) => CallbackOp::Getattr,
            CbArgs::Recall(_) => CallbackOp::Recall,
            CbArgs::LayoutRecall(_) => CallbackOp::LayoutRecall,
            CbArgs::Notify(_) => CallbackOp::Notify,
            CbArgs::PushDeleg(_) => CallbackOp::PushDeleg,
            CbArgs::RecallAny(_) => CallbackOp::RecallAny,
            CbArgs::RecallableObjAvail(_) => CallbackOp::RecallableObjAvail,
            CbArgs::RecallSlot(_) => CallbackOp::RecallSlot,
            CbArgs::Sequence(_) => CallbackOp::Sequence,
            CbArgs::WantsCancelled(_) => CallbackOp::WantsCancelled,
            CbArgs::NotifyLock(_) => CallbackOp::NotifyLock,
            CbArgs::NotifyDeviceId(_) => CallbackOp::NotifyDeviceId,
            CbArgs::Offload(_) => CallbackOp::Offload,
            CbArgs::Illegal(_) => CallbackOp::Illegal,
        }
    }

    /// Writes the arguments alone, without the operation's number.
    pub fn encode_body(&self, w: &mut Writer<'_>) -> Result<()> {
        each_args!(self, args => args.encode(w), illegal _number => Ok(()))
    }

    /// Reads the arguments of an operation whose number has been read.
    pub fn decode_body(op: CallbackOp, r: &mut Reader<'a>) -> Result<Self> {
        Ok(match op {
            CallbackOp::Getattr => CbArgs::Getattr(Decode::decode(r)?),
            CallbackOp::Recall => CbArgs::Recall(Decode::decode(r)?),
            CallbackOp::LayoutRecall => CbArgs::LayoutRecall(Decode::decode(r)?),
            CallbackOp::Notify => CbArgs::Notify(Decode::decode(r)?),
            CallbackOp::PushDeleg => CbArgs::PushDeleg(Decode::decode(r)?),
            CallbackOp::RecallAny => CbArgs::RecallAny(Decode::decode(r)?),
            CallbackOp::RecallableObjAvail => CbArgs::RecallableObjAvail(Decode::decode(r)?),
            CallbackOp::RecallSlot => CbArgs::RecallSlot(Decode::decode(r)?),
            CallbackOp::Sequence => CbArgs::Sequence(Decode::decode(r)?),
            CallbackOp::WantsCancelled => CbArgs::WantsCancelled(Decode::decode(r)?),
            CallbackOp::NotifyLock => CbArgs::NotifyLock(Decode::decode(r)?),
            CallbackOp::NotifyDeviceId => CbArgs::NotifyDeviceId(Decode::decode(r)?),
            CallbackOp::Offload => CbArgs::Offload(Decode::decode(r)?),
            CallbackOp::Illegal => CbArgs::Illegal(CallbackOp::Illegal as u32),
        })
    }
}

impl<'a> Decode<'a> for CbArgs<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        match CallbackOp::try_from(u32::get(r, "nfs_cb_argop4.argop")?) {
            Ok(op) => CbArgs::decode_body(op, r),
            Err(number) => Ok(CbArgs::Illegal(number)),
        }
    }
}

impl Encode for CbArgs<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            CbArgs::Illegal(number) => w.u32(*number),
            args => {
                args.op().encode(w)?;
                args.encode_body(w)
            }
        }
    }
}
