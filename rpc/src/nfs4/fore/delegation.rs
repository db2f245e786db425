//! Delegations that are asked for by themselves: GET_DIR_DELEGATION and WANT_DELEGATION (RFC 8881 sections 18.39 and 18.49).

use super::DelegationType4;
use crate::nfs4::wire::{undefined, wire_field, wire_struct};
use crate::nfs4::{Bitmap4, NfsTime4, OpenDelegation4, Stateid4, Verifier4};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

wire_struct! {
    /// Arguments of GET_DIR_DELEGATION (RFC 8881 section 18.39.1); the current filehandle is the directory's.
    pub struct GetDirDelegationArgs {
        /// If there is none to be had, CB_RECALLABLE_OBJ_AVAIL is to tell when there is.
        pub signal: bool = "gdda_signal_deleg_avail",
        /// Of which changes CB_NOTIFY is to tell: bits of [`notify_type`](crate::nfs4::callback::notify_type).
        pub notification_types: Bitmap4 = "gdda_notification_types",
        /// How long changes of attributes of entries may be held back.
        pub child_delay: NfsTime4 = "gdda_child_attr_delay",
        /// How long changes of attributes of the directory may be held back.
        pub directory_delay: NfsTime4 = "gdda_dir_attr_delay",
        /// Attributes of entries that are to be told.
        pub child_attributes: Bitmap4 = "gdda_child_attributes",
        /// Attributes of the directory that are to be told.
        pub directory_attributes: Bitmap4 = "gdda_dir_attributes",
    }
}

wire_struct! {
    /// A directory delegation (RFC 8881 section 18.39.2, `GET_DIR_DELEGATION4resok`).
    pub struct DirDelegation {
        /// The verifier of the cookies of READDIR.
        pub cookie_verifier: Verifier4 = "gddr_cookieverf",
        /// The delegation.
        pub stateid: Stateid4 = "gddr_stateid",
        /// The changes that will be told, of those that were asked for.
        pub notification_types: Bitmap4 = "gddr_notification",
        /// Attributes of entries that will be told.
        pub child_attributes: Bitmap4 = "gddr_child_attributes",
        /// Attributes of the directory that will be told.
        pub directory_attributes: Bitmap4 = "gddr_dir_attributes",
    }
}

/// Results of GET_DIR_DELEGATION: that there is none to be had is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetDirDelegationOk {
    /// GDD4_OK.
    Granted(DirDelegation),
    /// GDD4_UNAVAIL.
    Unavailable {
        /// CB_RECALLABLE_OBJ_AVAIL will tell when there is one.
        will_signal: bool,
    },
}

impl Decode<'_> for GetDirDelegationOk {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let offset = r.offset();
        match r.u32("gddrnf_status")? {
            0 => DirDelegation::decode(r).map(GetDirDelegationOk::Granted),
            1 => {
                let will_signal = r.bool("gddrnf_will_signal_deleg_avail")?;
                Ok(GetDirDelegationOk::Unavailable { will_signal })
            }
            value => Err(undefined("gddrnf_status", offset, value)),
        }
    }
}

impl Encode for GetDirDelegationOk {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            GetDirDelegationOk::Granted(granted) => {
                w.u32(0)?;
                granted.encode(w)
            }
            GetDirDelegationOk::Unavailable { will_signal } => {
                w.u32(1)?;
                w.bool(*will_signal)
            }
        }
    }
}

/// For what a delegation is claimed (RFC 8881 section 18.49.1, `deleg_claim4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelegClaim {
    /// CLAIM_PREVIOUS: one that was held before the server restarted.
    Previous(DelegationType4),
    /// CLAIM_FH: a new one.
    FileHandle,
    /// CLAIM_DELEG_PREV_FH: one that was held before the client restarted.
    DelegPrevFileHandle,
}

impl Decode<'_> for DelegClaim {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let offset = r.offset();
        match r.u32("dc_claim")? {
            1 => DelegationType4::decode(r).map(DelegClaim::Previous),
            4 => Ok(DelegClaim::FileHandle),
            6 => Ok(DelegClaim::DelegPrevFileHandle),
            value => Err(undefined("dc_claim", offset, value)),
        }
    }
}

impl Encode for DelegClaim {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            DelegClaim::Previous(kind) => {
                w.u32(1)?;
                kind.encode(w)
            }
            DelegClaim::FileHandle => w.u32(4),
            DelegClaim::DelegPrevFileHandle => w.u32(6),
        }
    }
}

wire_field!(DelegClaim);

wire_struct! {
    /// Arguments of WANT_DELEGATION (RFC 8881 section 18.49.1); the current filehandle is the file's.
    pub struct WantDelegationArgs {
        /// Which, and when: bits of [`share_access`](super::share_access) from WANT_READ_DELEG on.
        pub want: u32 = "wda_want",
        /// For what.
        pub claim: DelegClaim = "wda_claim",
    }
}

wire_struct! {
    /// Results of WANT_DELEGATION.
    pub struct WantDelegationOk<'a> {
        /// The delegation, or why there is none.
        pub delegation: OpenDelegation4<'a> = "wdr_resok4",
    }
}
