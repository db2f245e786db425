//! The callback program, both directions (RFC 8881 sections 19 and 20, RFC 7862 section 16, RFC 7530): what a server
//! sends to its clients over the backchannel, and what they answer.
//!
//! A message is a compound header ([`CbCompoundArgs`], [`CbCompoundRes`]) and as many [`CbArgs`] or [`CbRes`] as its
//! count says. They are read one by one, because whoever executes a compound stops at the first error.

mod args;
mod notify;
mod results;

pub use args::{
    CbArgs, CbGetattrArgs, CbLayoutRecallArgs, CbNotifyArgs, CbNotifyDeviceIdArgs, CbNotifyLockArgs, CbOffloadArgs,
    CbPushDelegArgs, CbRecallAnyArgs, CbRecallArgs, CbRecallSlotArgs, CbSequenceArgs, CbWantsCancelledArgs,
    LayoutRecall, OffloadInfo, ReferringCall, ReferringCallList, WriteResponse4,
};
pub use notify::{
    DeviceNotification, DeviceNotifications, Notification, Notifications, Notify4, NotifyAdd, NotifyDeviceIdChange,
    NotifyDeviceIdDelete, NotifyEntry, NotifyRemove, NotifyRename, NotifyVerifier, PrevEntry, device_notify_type,
    notify_type,
};
pub use results::{CbRes, CbSequenceRes};

use core::fmt;

use super::wire::wire_enum;
use super::{Status, TAG_BYTES_MAX};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

/// The callback program's number in the XDR (RFC 5662, `NFS4_CALLBACK`). Only nominal: each client chooses the number
/// it serves, by CREATE_SESSION, BACKCHANNEL_CTL or SETCLIENTID.
pub const NFS4_CALLBACK: u32 = 0x4000_0000;
/// The callback program's version on the wire (RFC 5662, `NFS_CB`). RFC 8881's text calls the protocol version 4 in
/// places; every implementation sends 1.
pub const NFS_CB: u32 = 1;
/// Procedure CB_NULL, without arguments or results (RFC 8881 section 19.1).
pub const CB_NULL: u32 = 0;
/// Procedure CB_COMPOUND (RFC 8881 section 19.2).
pub const CB_COMPOUND: u32 = 1;
/// Highest minor version that is spoken here.
pub const MINOR_VERSION_MAX: u32 = 2;

/// Fewest bytes of an operation or a result: its number, and a status or an argument. CB_ILLEGAL has no argument.
const OPERATION_BYTES_MIN: usize = 4;

wire_enum! {
    /// The operations of CB_COMPOUND (RFC 8881 section 20, RFC 7862 section 16, `nfs_cb_opnum4`).
    ///
    /// # Examples
    ///
    /// ```
    /// use ringback_rpc::nfs4::callback::CallbackOp;
    ///
    /// assert_eq!(CallbackOp::try_from(4), Ok(CallbackOp::Recall));
    /// assert_eq!(CallbackOp::Recall as u32, 4);
    /// ```
    pub enum CallbackOp = "nfs_cb_opnum4" {
        /// CB_GETATTR: ask for attributes that a write delegation lets the client change.
        Getattr = 3,
        /// CB_RECALL: recall a delegation.
        Recall = 4,
        /// CB_LAYOUTRECALL: recall layouts.
        LayoutRecall = 5,
        /// CB_NOTIFY: tell of changes in a directory.
        Notify = 6,
        /// CB_PUSH_DELEG: offer a delegation that was wanted.
        PushDeleg = 7,
        /// CB_RECALL_ANY: ask the client to return whatever it chooses.
        RecallAny = 8,
        /// CB_RECALLABLE_OBJ_AVAIL: say that delegations and layouts can be had again.
        RecallableObjAvail = 9,
        /// CB_RECALL_SLOT: ask the client to use fewer session slots.
        RecallSlot = 10,
        /// CB_SEQUENCE: the session's header of a compound.
        Sequence = 11,
        /// CB_WANTS_CANCELLED: say that wants are forgotten.
        WantsCancelled = 12,
        /// CB_NOTIFY_LOCK: say that a lock may be had.
        NotifyLock = 13,
        /// CB_NOTIFY_DEVICEID: tell of changed device ids.
        NotifyDeviceId = 14,
        /// CB_OFFLOAD: tell how an asynchronous copy ended.
        Offload = 15,
        /// CB_ILLEGAL: the answer to a number that is none of the above.
        Illegal = 10044,
    }
}

impl CallbackOp {
    /// A bit of its own for each operation, for sets of them. CB_ILLEGAL has none.
    pub const fn bit(self) -> u32 {
        let number = self as u32;
        if number < u32::BITS { 1 << number } else { 0 }
    }

    /// The minor version that introduced the operation. Later ones have it too.
    pub const fn minor_version(self) -> u32 {
        match self {
            CallbackOp::Getattr | CallbackOp::Recall | CallbackOp::Illegal => 0,
            CallbackOp::Offload => 2,
            _ => 1,
        }
    }

    /// Whether a compound of this minor version may have the operation. CB_ILLEGAL stands only in results.
    pub const fn is_legal_in(self, minor_version: u32) -> bool {
        minor_version <= MINOR_VERSION_MAX && self.minor_version() <= minor_version
    }

    /// The RFC's name.
    pub const fn name(self) -> &'static str {
        match self {
            CallbackOp::Getattr => "CB_GETATTR",
            CallbackOp::Recall => "CB_RECALL",
            CallbackOp::LayoutRecall => "CB_LAYOUTRECALL",
            CallbackOp::Notify => "CB_NOTIFY",
            CallbackOp::PushDeleg => "CB_PUSH_DELEG",
            CallbackOp::RecallAny => "CB_RECALL_ANY",
            CallbackOp::RecallableObjAvail => "CB_RECALLABLE_OBJ_AVAIL",
            CallbackOp::RecallSlot => "CB_RECALL_SLOT",
            CallbackOp::Sequence => "CB_SEQUENCE",
            CallbackOp::WantsCancelled => "CB_WANTS_CANCELLED",
            CallbackOp::NotifyLock => "CB_NOTIFY_LOCK",
            CallbackOp::NotifyDeviceId => "CB_NOTIFY_DEVICEID",
            CallbackOp::Offload => "CB_OFFLOAD",
            CallbackOp::Illegal => "CB_ILLEGAL",
        }
    }
}

impl fmt::Display for CallbackOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The header of a CB_COMPOUND call (RFC 8881 section 19.2, `CB_COMPOUND4args`); [`CbArgs`] follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CbCompoundArgs<'a> {
    /// Chosen by the server, echoed by the client: at most [`TAG_BYTES_MAX`] bytes.
    pub tag: &'a [u8],
    /// The minor version. One that is not spoken here is passed on: it is answered with
    /// [`Status::NFS4ERR_MINOR_VERS_MISMATCH`] and no results.
    pub minor_version: u32,
    /// What SETCLIENTID gave (minor version 0); otherwise 0, and ignored.
    pub callback_ident: u32,
    /// Number of operations.
    pub count: u32,
}

impl<'a> Decode<'a> for CbCompoundArgs<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(CbCompoundArgs {
            tag: r.opaque("CB_COMPOUND4args.tag", TAG_BYTES_MAX)?,
            minor_version: r.u32("CB_COMPOUND4args.minorversion")?,
            callback_ident: r.u32("CB_COMPOUND4args.callback_ident")?,
            count: r.count("CB_COMPOUND4args.argarray", u32::MAX as usize, OPERATION_BYTES_MIN)? as u32,
        })
    }
}

impl Encode for CbCompoundArgs<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.opaque(self.tag)?;
        [self.minor_version, self.callback_ident, self.count].iter().try_for_each(|v| w.u32(*v))
    }
}

/// The header of a CB_COMPOUND reply (RFC 8881 section 19.2, `CB_COMPOUND4res`); [`CbRes`] follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CbCompoundRes<'a> {
    /// The status of the last operation that was tried.
    pub status: Status,
    /// The call's tag.
    pub tag: &'a [u8],
    /// Number of results: fewer than operations, if one of them failed.
    pub count: u32,
}

impl<'a> Decode<'a> for CbCompoundRes<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(CbCompoundRes {
            status: Status::decode(r)?,
            tag: r.opaque("CB_COMPOUND4res.tag", TAG_BYTES_MAX)?,
            count: r.count("CB_COMPOUND4res.resarray", u32::MAX as usize, 2 * OPERATION_BYTES_MIN)? as u32,
        })
    }
}

impl Encode for CbCompoundRes<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        self.status.encode(w)?;
        w.opaque(self.tag)?;
        w.u32(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_belong_to_minor_versions() {
        let legal = |minor| CallbackOp::ALL.iter().filter(|op| op.is_legal_in(minor)).count();
        assert_eq!((legal(0), legal(1), legal(2), legal(3)), (3, 13, 14, 0));
        assert!(!CallbackOp::Sequence.is_legal_in(0) && !CallbackOp::Offload.is_legal_in(1));
        assert_eq!(CallbackOp::try_from(11), Ok(CallbackOp::Sequence));
        assert_eq!(CallbackOp::try_from(16), Err(16));
        assert_eq!(CallbackOp::Recall.to_string(), "CB_RECALL");
    }
}
