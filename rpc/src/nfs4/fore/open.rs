//! Opens and delegations: OPEN, OPEN_CONFIRM, CLOSE, DELEGRETURN.

use crate::nfs4::wire::{undefined, wire_enum, wire_field, wire_struct};
use crate::nfs4::{Bitmap4, ChangeInfo4, Fattr, OpenDelegation4, StateOwner4, Stateid4, Verifier4};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

/// share_access of OPEN (RFC 8881 section 18.16.1): what to open for, which delegation is wanted, and when.
pub mod share_access {
    /// OPEN4_SHARE_ACCESS_READ.
    pub const READ: u32 = 1;
    /// OPEN4_SHARE_ACCESS_WRITE.
    pub const WRITE: u32 = 2;
    /// OPEN4_SHARE_ACCESS_BOTH.
    pub const BOTH: u32 = 3;
    /// The bits that hold one of the values above.
    pub const ACCESS_MASK: u32 = 3;
    /// OPEN4_SHARE_ACCESS_WANT_DELEG_MASK: the bits that hold one of the WANT values below.
    pub const WANT_DELEG_MASK: u32 = 0xff00;
    /// OPEN4_SHARE_ACCESS_WANT_NO_PREFERENCE.
    pub const WANT_NO_PREFERENCE: u32 = 0;
    /// OPEN4_SHARE_ACCESS_WANT_READ_DELEG.
    pub const WANT_READ_DELEG: u32 = 0x100;
    /// OPEN4_SHARE_ACCESS_WANT_WRITE_DELEG.
    pub const WANT_WRITE_DELEG: u32 = 0x200;
    /// OPEN4_SHARE_ACCESS_WANT_ANY_DELEG.
    pub const WANT_ANY_DELEG: u32 = 0x300;
    /// OPEN4_SHARE_ACCESS_WANT_NO_DELEG.
    pub const WANT_NO_DELEG: u32 = 0x400;
    /// OPEN4_SHARE_ACCESS_WANT_CANCEL.
    pub const WANT_CANCEL: u32 = 0x500;
    /// OPEN4_SHARE_ACCESS_WANT_SIGNAL_DELEG_WHEN_RESRC_AVAIL.
    pub const WANT_SIGNAL_DELEG_WHEN_RESRC_AVAIL: u32 = 0x1_0000;
    /// OPEN4_SHARE_ACCESS_WANT_PUSH_DELEG_WHEN_UNCONTENDED.
    pub const WANT_PUSH_DELEG_WHEN_UNCONTENDED: u32 = 0x2_0000;
}

/// share_deny of OPEN (RFC 8881 section 18.16.1).
pub mod share_deny {
    /// OPEN4_SHARE_DENY_NONE.
    pub const NONE: u32 = 0;
    /// OPEN4_SHARE_DENY_READ.
    pub const READ: u32 = 1;
    /// OPEN4_SHARE_DENY_WRITE.
    pub const WRITE: u32 = 2;
    /// OPEN4_SHARE_DENY_BOTH.
    pub const BOTH: u32 = 3;
}

/// rflags of OPEN (RFC 8881 section 18.16.2).
pub mod open_result_flag {
    /// OPEN4_RESULT_CONFIRM, minor version 0 only.
    pub const CONFIRM: u32 = 2;
    /// OPEN4_RESULT_LOCKTYPE_POSIX.
    pub const LOCKTYPE_POSIX: u32 = 4;
    /// OPEN4_RESULT_PRESERVE_UNLINKED.
    pub const PRESERVE_UNLINKED: u32 = 8;
    /// OPEN4_RESULT_MAY_NOTIFY_LOCK.
    pub const MAY_NOTIFY_LOCK: u32 = 32;
}

wire_struct! {
    /// EXCLUSIVE4_1: a verifier and attributes (RFC 8881 section 18.16.1, `creatverfattr`).
    pub struct CreateVerifierAttributes<'a> {
        /// Tells a repeated create from another one.
        pub verifier: Verifier4 = "cva_verf",
        /// The attributes to set.
        pub attributes: Fattr<'a> = "cva_attrs",
    }
}

wire_struct! {
    /// CLAIM_DELEGATE_CUR (RFC 8881 section 18.16.1, `open_claim_delegate_cur4`).
    pub struct ClaimDelegateCur<'a> {
        /// The delegation that is held.
        pub delegate_stateid: Stateid4 = "delegate_stateid",
        /// The name in the current directory.
        pub file: &'a [u8] = "open_claim4.file",
    }
}

wire_struct! {
    /// Arguments of OPEN (RFC 8881 section 18.16).
    pub struct OpenArgs<'a> {
        /// Minor version 0 only; zero since.
        pub seqid: u32 = "seqid",
        /// See [`share_access`].
        pub share_access: u32 = "share_access",
        /// See [`share_deny`].
        pub share_deny: u32 = "share_deny",
        /// Whose open it is.
        pub owner: StateOwner4<'a> = "owner",
        /// Whether to create the file.
        pub how: OpenHow<'a> = "openhow",
        /// Which file, and by which right.
        pub claim: OpenClaim<'a> = "claim",
    }
}

wire_struct! {
    /// Results of OPEN.
    pub struct OpenOk<'a> {
        /// The open.
        pub stateid: Stateid4 = "stateid",
        /// How the directory changed.
        pub change_info: ChangeInfo4 = "cinfo",
        /// See [`open_result_flag`].
        pub flags: u32 = "rflags",
        /// The attributes set by a create.
        pub attributes_set: Bitmap4 = "attrset",
        /// The delegation, or why there is none.
        pub delegation: OpenDelegation4<'a> = "delegation",
    }
}

wire_struct! {
    /// Arguments of OPEN_CONFIRM, of minor version 0 only (RFC 7530 section 16.18).
    pub struct OpenConfirmArgs {
        /// The open.
        pub open_stateid: Stateid4 = "open_stateid",
        /// The open-owner's.
        pub seqid: u32 = "seqid",
    }
}

wire_struct! {
    /// Results of OPEN_CONFIRM.
    pub struct OpenConfirmOk {
        /// The open.
        pub open_stateid: Stateid4 = "open_stateid",
    }
}

wire_struct! {
    /// Arguments of CLOSE (RFC 8881 section 18.2).
    pub struct CloseArgs {
        /// Minor version 0 only; zero since.
        pub seqid: u32 = "seqid",
        /// The open.
        pub open_stateid: Stateid4 = "open_stateid",
    }
}

wire_struct! {
    /// Results of CLOSE.
    pub struct CloseOk {
        /// Of no use; servers return the invalid special stateid.
        pub open_stateid: Stateid4 = "open_stateid",
    }
}

wire_struct! {
    /// Arguments of DELEGRETURN (RFC 8881 section 18.6).
    pub struct DelegReturnArgs {
        /// The delegation.
        pub deleg_stateid: Stateid4 = "deleg_stateid",
    }
}

wire_enum! {
    /// A kind of delegation (RFC 8881 section 18.16.1, `open_delegation_type4`).
    pub enum DelegationType4 = "delegate_type" {
        /// OPEN_DELEGATE_NONE.
        None = 0,
        /// OPEN_DELEGATE_READ.
        Read = 1,
        /// OPEN_DELEGATE_WRITE.
        Write = 2,
        /// OPEN_DELEGATE_NONE_EXT.
        NoneExt = 3,
    }
}

/// Whether to create, and how (RFC 8881 section 18.16.1, `openflag4` and the `createhow4` in it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenHow<'a> {
    /// OPEN4_NOCREATE.
    NoCreate,
    /// OPEN4_CREATE, UNCHECKED4.
    Unchecked(Fattr<'a>),
    /// OPEN4_CREATE, GUARDED4.
    Guarded(Fattr<'a>),
    /// OPEN4_CREATE, EXCLUSIVE4.
    Exclusive(Verifier4),
    /// OPEN4_CREATE, EXCLUSIVE4_1.
    Exclusive41(CreateVerifierAttributes<'a>),
}

impl<'a> Decode<'a> for OpenHow<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let offset = r.offset();
        match r.u32("opentype4")? {
            0 => return Ok(OpenHow::NoCreate),
            1 => {}
            value => return Err(undefined("opentype4", offset, value)),
        }
        let offset = r.offset();
        match r.u32("createmode4")? {
            0 => Decode::decode(r).map(OpenHow::Unchecked),
            1 => Decode::decode(r).map(OpenHow::Guarded),
            2 => Decode::decode(r).map(OpenHow::Exclusive),
            3 => Decode::decode(r).map(OpenHow::Exclusive41),
            value => Err(undefined("createmode4", offset, value)),
        }
    }
}

impl Encode for OpenHow<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        let (mode, what): (u32, &dyn Encode) = match self {
            OpenHow::NoCreate => return w.u32(0),
            OpenHow::Unchecked(attributes) => (0, attributes),
            OpenHow::Guarded(attributes) => (1, attributes),
            OpenHow::Exclusive(verifier) => (2, verifier),
            OpenHow::Exclusive41(both) => (3, both),
        };
        w.u32(1)?;
        w.u32(mode)?;
        what.encode(w)
    }
}

/// Which file, and by which right (RFC 8881 section 18.16.1, `open_claim4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenClaim<'a> {
    /// CLAIM_NULL: a name in the current directory.
    Null(&'a [u8]),
    /// CLAIM_PREVIOUS: the current filehandle, reclaimed after a restart of the server, with the type of the
    /// delegation that was held.
    Previous(DelegationType4),
    /// CLAIM_DELEGATE_CUR: a name, under a delegation.
    DelegateCur(ClaimDelegateCur<'a>),
    /// CLAIM_DELEGATE_PREV: a name, under a delegation of the client's previous incarnation.
    DelegatePrev(&'a [u8]),
    /// CLAIM_FH: the current filehandle.
    FileHandle,
    /// CLAIM_DELEG_CUR_FH: the current filehandle, under a delegation.
    DelegCurFileHandle(Stateid4),
    /// CLAIM_DELEG_PREV_FH: the current filehandle, under a delegation of the client's previous incarnation.
    DelegPrevFileHandle,
}

impl<'a> Decode<'a> for OpenClaim<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let offset = r.offset();
        match r.u32("open_claim_type4")? {
            0 => r.opaque("open_claim4.file", u32::MAX as usize).map(OpenClaim::Null),
            1 => Decode::decode(r).map(OpenClaim::Previous),
            2 => Decode::decode(r).map(OpenClaim::DelegateCur),
            3 => r.opaque("open_claim4.file_delegate_prev", u32::MAX as usize).map(OpenClaim::DelegatePrev),
            4 => Ok(OpenClaim::FileHandle),
            5 => Decode::decode(r).map(OpenClaim::DelegCurFileHandle),
            6 => Ok(OpenClaim::DelegPrevFileHandle),
            value => Err(undefined("open_claim_type4", offset, value)),
        }
    }
}

impl Encode for OpenClaim<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            OpenClaim::Null(file) => w.u32(0).and_then(|()| w.opaque(file)),
            OpenClaim::Previous(held) => w.u32(1).and_then(|()| held.encode(w)),
            OpenClaim::DelegateCur(claim) => w.u32(2).and_then(|()| claim.encode(w)),
            OpenClaim::DelegatePrev(file) => w.u32(3).and_then(|()| w.opaque(file)),
            OpenClaim::FileHandle => w.u32(4),
            OpenClaim::DelegCurFileHandle(stateid) => w.u32(5).and_then(|()| stateid.encode(w)),
            OpenClaim::DelegPrevFileHandle => w.u32(6),
        }
    }
}

wire_field!(OpenHow<'a>);
wire_field!(OpenClaim<'a>);
