//! Filehandles and attributes: PUTFH, GETFH, LOOKUP, GETATTR. PUTROOTFH has neither arguments nor results.

use crate::nfs4::wire::wire_struct;
use crate::nfs4::{Bitmap4, Fattr, FileHandle};

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
