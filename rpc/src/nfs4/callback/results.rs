//! Results of the callback operations.

use super::CallbackOp;
use super::args::failure;
use crate::nfs4::wire::wire_struct;
use crate::nfs4::{Fattr, SessionId, Status};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

wire_struct! {
    /// What the client says of the session slot (RFC 8881 section 20.9.2, `CB_SEQUENCE4resok`).
    pub struct CbSequenceRes {
        /// The session, echoed.
        pub session_id: SessionId = "csr_sessionid",
        /// The sequence id, echoed.
        pub sequence_id: u32 = "csr_sequenceid",
        /// The session slot, echoed.
        pub slot_id: u32 = "csr_slotid",
        /// The highest slot id that the client accepts.
        pub highest_slot_id: u32 = "csr_highest_slotid",
        /// The highest slot id that the client would like to see used.
        pub target_highest_slot_id: u32 = "csr_target_highest_slotid",
    }
}

/// One result of a CB_COMPOUND reply (RFC 8881 section 19.2, `nfs_cb_resop4`). Where an operation returns more than a
/// status, `Err` holds the status of a failure; NFS4_OK cannot be encoded there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CbRes<'a> {
    /// CB_GETATTR (RFC 8881 section 20.1.2).
    Getattr(core::result::Result<Fattr<'a>, Status>),
    /// CB_RECALL (RFC 8881 section 20.2.2).
    Recall(Status),
    /// CB_LAYOUTRECALL (RFC 8881 section 20.3.2).
    LayoutRecall(Status),
    /// CB_NOTIFY (RFC 8881 section 20.4.2).
    Notify(Status),
    /// CB_PUSH_DELEG (RFC 8881 section 20.5.2).
    PushDeleg(Status),
    /// CB_RECALL_ANY (RFC 8881 section 20.6.2).
    RecallAny(Status),
    /// CB_RECALLABLE_OBJ_AVAIL (RFC 8881 section 20.7.2).
    RecallableObjAvail(Status),
    /// CB_RECALL_SLOT (RFC 8881 section 20.8.2).
    RecallSlot(Status),
    /// CB_SEQUENCE (RFC 8881 section 20.9.2).
    Sequence(core::result::Result<CbSequenceRes, Status>),
    /// CB_WANTS_CANCELLED (RFC 8881 section 20.10.2).
    WantsCancelled(Status),
    /// CB_NOTIFY_LOCK (RFC 8881 section 20.11.2).
    NotifyLock(Status),
    /// CB_NOTIFY_DEVICEID (RFC 8881 section 20.12.2).
    NotifyDeviceId(Status),
    /// CB_OFFLOAD (RFC 7862 section 16.1.2).
    Offload(Status),
    /// CB_ILLEGAL (RFC 8881 section 20.13.2).
    Illegal(Status),
}

impl<'a> CbRes<'a> {
    /// Which operation it answers.
    pub const fn op(&self) -> CallbackOp {
        match self {
            CbRes::Getattr(_) => CallbackOp::Getattr,
            CbRes::Recall(_) => CallbackOp::Recall,
            CbRes::LayoutRecall(_) => CallbackOp::LayoutRecall,
            CbRes::Notify(_) => CallbackOp::Notify,
            CbRes::PushDeleg(_) => CallbackOp::PushDeleg,
            CbRes::RecallAny(_) => CallbackOp::RecallAny,
            CbRes::RecallableObjAvail(_) => CallbackOp::RecallableObjAvail,
            CbRes::RecallSlot(_) => CallbackOp::RecallSlot,
            CbRes::Sequence(_) => CallbackOp::Sequence,
            CbRes::WantsCancelled(_) => CallbackOp::WantsCancelled,
            CbRes::NotifyLock(_) => CallbackOp::NotifyLock,
            CbRes::NotifyDeviceId(_) => CallbackOp::NotifyDeviceId,
            CbRes::Offload(_) => CallbackOp::Offload,
            CbRes::Illegal(_) => CallbackOp::Illegal,
        }
    }

    /// How the operation went.
    pub const fn status(&self) -> Status {
        match *self {
            CbRes::Getattr(Ok(_)) | CbRes::Sequence(Ok(_)) => Status::NFS4_OK,
            CbRes::Getattr(Err(status))
            | CbRes::Sequence(Err(status))
            | CbRes::Recall(status)
            | CbRes::LayoutRecall(status)
            | CbRes::Notify(status)
            | CbRes::PushDeleg(status)
            | CbRes::RecallAny(status)
            | CbRes::RecallableObjAvail(status)
            | CbRes::RecallSlot(status)
            | CbRes::WantsCancelled(status)
            | CbRes::NotifyLock(status)
            | CbRes::NotifyDeviceId(status)
            | CbRes::Offload(status)
            | CbRes::Illegal(status) => status,
        }
    }

    /// The failure of any operation. With NFS4_OK it cannot be encoded for an operation that returns more than that.
    pub const fn failed(op: CallbackOp, status: Status) -> CbRes<'static> {
        match op {
            CallbackOp::Getattr => CbRes::Getattr(Err(status)),
            CallbackOp::Sequence => CbRes::Sequence(Err(status)),
            CallbackOp::Recall => CbRes::Recall(status),
            CallbackOp::LayoutRecall => CbRes::LayoutRecall(status),
            CallbackOp::Notify => CbRes::Notify(status),
            CallbackOp::PushDeleg => CbRes::PushDeleg(status),
            CallbackOp::RecallAny => CbRes::RecallAny(status),
            CallbackOp::RecallableObjAvail => CbRes::RecallableObjAvail(status),
            CallbackOp::RecallSlot => CbRes::RecallSlot(status),
            CallbackOp::WantsCancelled => CbRes::WantsCancelled(status),
            CallbackOp::NotifyLock => CbRes::NotifyLock(status),
            CallbackOp::NotifyDeviceId => CbRes::NotifyDeviceId(status),
            CallbackOp::Offload => CbRes::Offload(status),
            CallbackOp::Illegal => CbRes::Illegal(status),
        }
    }

    /// Reads what follows the status of an operation; `r` stands behind it.
    pub fn decode_body(op: CallbackOp, status: Status, r: &mut Reader<'a>) -> Result<Self> {
        Ok(match (op, status) {
            (CallbackOp::Getattr, Status::NFS4_OK) => CbRes::Getattr(Ok(Fattr::decode(r)?)),
            (CallbackOp::Sequence, Status::NFS4_OK) => CbRes::Sequence(Ok(CbSequenceRes::decode(r)?)),
            (op, status) => CbRes::failed(op, status),
        })
    }

    /// Writes what follows the operation's number: the status, and the results of a success.
    pub fn encode_body(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            CbRes::Getattr(Ok(attributes)) => {
                Status::NFS4_OK.encode(w)?;
                attributes.encode(w)
            }
            CbRes::Sequence(Ok(sequence)) => {
                Status::NFS4_OK.encode(w)?;
                sequence.encode(w)
            }
            CbRes::Getattr(Err(status)) => failure(w, "CB_GETATTR4res.status", *status),
            CbRes::Sequence(Err(status)) => failure(w, "csr_status", *status),
            other => other.status().encode(w),
        }
    }
}

impl<'a> Decode<'a> for CbRes<'a> {
    /// Reads one result. A number that is no operation is an error: a client answers such a call with CB_ILLEGAL.
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let op = CallbackOp::decode(r)?;
        let status = Status::decode(r)?;
        CbRes::decode_body(op, status, r)
    }
}

impl Encode for CbRes<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        self.op().encode(w)?;
        self.encode_body(w)
    }
}
