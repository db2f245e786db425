//! Filehandles and attributes: PUTFH, GETFH, LOOKUP, GETATTR, SETATTR, ACCESS, VERIFY, NVERIFY. PUTROOTFH, PUTPUBFH, SAVEFH
//! and RESTOREFH have neither arguments nor results.

use super::Failure;
use crate::nfs4::wire::wire_struct;
use crate::nfs4::{Bitmap4, Fattr, FileHandle, Stateid4, Status};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

wire_struct! {
    /// Arguments of PUTFH (RFC 8881 section 18.19).
    pub struct PutFhArgs<'a> {
        /// The current filehandle from now on.
        pub object: FileHandle<'a> = "object",
    }
}

wire_struct! {
    /// Results of GETFH (RFC 8881 section 18.8).
    pub struct GetFhOk<'a> {
        /// The current filehandle.
        pub object: FileHandle<'a> = "object",
    }
}

wire_struct! {
    /// Arguments of LOOKUP (RFC 8881 section 18.13).
    pub struct LookupArgs<'a> {
        /// The name in the current directory; the record is the limit, so that a server can say NFS4ERR_NAMETOOLONG.
        pub name: &'a [u8] = "objname",
    }
}

wire_struct! {
    /// Arguments of GETATTR (RFC 8881 section 18.7).
    pub struct GetAttrArgs {
        /// The attributes asked for.
        pub request: Bitmap4 = "attr_request",
    }
}

wire_struct! {
    /// Results of GETATTR.
    pub struct GetAttrOk<'a> {
        /// The attributes.
        pub attributes: Fattr<'a> = "obj_attributes",
    }
}

/// The bits of ACCESS (RFC 8881 section 18.1.1).
pub mod access {
    /// ACCESS4_READ.
    pub const READ: u32 = 0x1;
    /// ACCESS4_LOOKUP.
    pub const LOOKUP: u32 = 0x2;
    /// ACCESS4_MODIFY.
    pub const MODIFY: u32 = 0x4;
    /// ACCESS4_EXTEND.
    pub const EXTEND: u32 = 0x8;
    /// ACCESS4_DELETE.
    pub const DELETE: u32 = 0x10;
    /// ACCESS4_EXECUTE.
    pub const EXECUTE: u32 = 0x20;
}

wire_struct! {
    /// Arguments of ACCESS (RFC 8881 section 18.1).
    pub struct AccessArgs {
        /// What the client wants to know, of [`access`].
        pub access: u32 = "access",
    }
}

wire_struct! {
    /// Results of ACCESS.
    pub struct AccessOk {
        /// What the server can tell of what was asked.
        pub supported: u32 = "supported",
        /// What is allowed of that.
        pub access: u32 = "access",
    }
}

wire_struct! {
    /// Arguments of SETATTR (RFC 8881 section 18.30).
    pub struct SetAttrArgs<'a> {
        /// The open, lock or delegation under which the size is set; or a special stateid.
        pub stateid: Stateid4 = "stateid",
        /// The attributes.
        pub attributes: Fattr<'a> = "obj_attributes",
    }
}

wire_struct! {
    /// Results of SETATTR.
    pub struct SetAttrOk {
        /// The attributes that were set.
        pub attributes_set: Bitmap4 = "attrsset",
    }
}

/// How SETATTR fails: it may have set some of the attributes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetAttrFailure {
    /// The status.
    pub status: Status,
    /// The attributes that were set all the same.
    pub attributes_set: Bitmap4,
}

impl Failure<'_> for SetAttrFailure {
    fn read(status: Status, r: &mut Reader<'_>) -> Result<Self> {
        Ok(SetAttrFailure { status, attributes_set: Bitmap4::decode(r)? })
    }

    fn status(&self) -> Status {
        self.status
    }

    fn put(&self, w: &mut Writer<'_>) -> Result<()> {
        self.attributes_set.encode(w)
    }
}

impl From<Status> for SetAttrFailure {
    fn from(status: Status) -> Self {
        SetAttrFailure { status, attributes_set: Bitmap4::EMPTY }
    }
}

wire_struct! {
    /// Arguments of VERIFY (RFC 8881 section 18.31) and NVERIFY (section 18.15).
    pub struct VerifyArgs<'a> {
        /// The attributes to compare with.
        pub attributes: Fattr<'a> = "obj_attributes",
    }
}
