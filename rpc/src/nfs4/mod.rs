//! NFSv4 on the wire: the types that the callback program and the fore channel share (RFC 8881 section 3, XDR in RFC
//! 5662 and RFC 7863; minor version 0 in RFC 7530 and RFC 7531).
//!
//! Every type decodes without allocating: what is variable borrows the received bytes, and a list is validated once and
//! then iterated in place ([`List`]). Every value that a decoder returns can be encoded again.

mod bitmap;
pub mod callback;
mod delegation;
pub mod fore;
mod list;
mod sec_parms;
mod status;
mod uaddr;
pub(crate) mod wire;

pub use bitmap::{BITMAP_WORDS_MAX, Bitmap4};
pub use delegation::{
    NfsAce4, OpenDelegation4, OpenNoneDelegation4, OpenReadDelegation4, OpenWriteDelegation4, SpaceLimit4,
};
pub use list::{List, ListIter, WireList};
pub use sec_parms::{CallbackSecParms, GssHandles, GssService};
pub use status::Status;
pub use uaddr::{NETID_BYTES_MAX, UADDR_BYTES_MAX, UniversalAddress, UniversalAddressError};

use crate::xdr::{Decode, Encode, Reader, Result, Writer};
use wire::{wire_enum, wire_field, wire_struct};

/// Longest filehandle (RFC 8881 section 3.1, `NFS4_FHSIZE`).
pub const FHSIZE: usize = 128;
/// Size of a verifier (RFC 8881 section 3.1, `NFS4_VERIFIER_SIZE`).
pub const VERIFIER_SIZE: usize = 8;
/// Size of the opaque part of a stateid (RFC 8881 section 3.1, `NFS4_OTHER_SIZE`).
pub const OTHER_SIZE: usize = 12;
/// Longest owner (RFC 8881 section 3.1, `NFS4_OPAQUE_LIMIT`).
pub const OPAQUE_LIMIT: usize = 1024;
/// Size of a session id (RFC 8881 section 3.1, `NFS4_SESSIONID_SIZE`).
pub const SESSIONID_SIZE: usize = 16;
/// Size of a device id (RFC 8881 section 3.3.14, `NFS4_DEVICEID4_SIZE`).
pub const DEVICEID_SIZE: usize = 16;
/// Longest tag of a compound. The RFC sets no limit; the longest in use are a few dozen bytes.
pub const TAG_BYTES_MAX: usize = 1024;

/// Program number of the NFS service (RFC 5662).
pub const NFS4_PROGRAM: u32 = 100_003;
/// Version of the NFS service (RFC 5662).
pub const NFS_V4: u32 = 4;

/// Attribute numbers (RFC 8881 sections 5.6 and 5.7): those that callbacks, delegations and a plain file server use.
pub mod attr {
    /// supported_attrs.
    pub const SUPPORTED_ATTRS: u32 = 0;
    /// type.
    pub const TYPE: u32 = 1;
    /// fh_expire_type.
    pub const FH_EXPIRE_TYPE: u32 = 2;
    /// change.
    pub const CHANGE: u32 = 3;
    /// size.
    pub const SIZE: u32 = 4;
    /// link_support.
    pub const LINK_SUPPORT: u32 = 5;
    /// symlink_support.
    pub const SYMLINK_SUPPORT: u32 = 6;
    /// named_attr.
    pub const NAMED_ATTR: u32 = 7;
    /// fsid.
    pub const FSID: u32 = 8;
    /// unique_handles.
    pub const UNIQUE_HANDLES: u32 = 9;
    /// lease_time.
    pub const LEASE_TIME: u32 = 10;
    /// rdattr_error.
    pub const RDATTR_ERROR: u32 = 11;
    /// cansettime.
    pub const CANSETTIME: u32 = 15;
    /// case_insensitive.
    pub const CASE_INSENSITIVE: u32 = 16;
    /// case_preserving.
    pub const CASE_PRESERVING: u32 = 17;
    /// chown_restricted.
    pub const CHOWN_RESTRICTED: u32 = 18;
    /// filehandle.
    pub const FILEHANDLE: u32 = 19;
    /// fileid.
    pub const FILEID: u32 = 20;
    /// files_avail.
    pub const FILES_AVAIL: u32 = 21;
    /// files_free.
    pub const FILES_FREE: u32 = 22;
    /// files_total.
    pub const FILES_TOTAL: u32 = 23;
    /// homogeneous.
    pub const HOMOGENEOUS: u32 = 26;
    /// maxfilesize.
    pub const MAXFILESIZE: u32 = 27;
    /// maxlink.
    pub const MAXLINK: u32 = 28;
    /// maxname.
    pub const MAXNAME: u32 = 29;
    /// maxread.
    pub const MAXREAD: u32 = 30;
    /// maxwrite.
    pub const MAXWRITE: u32 = 31;
    /// mode.
    pub const MODE: u32 = 33;
    /// no_trunc.
    pub const NO_TRUNC: u32 = 34;
    /// numlinks.
    pub const NUMLINKS: u32 = 35;
    /// owner.
    pub const OWNER: u32 = 36;
    /// owner_group.
    pub const OWNER_GROUP: u32 = 37;
    /// rawdev.
    pub const RAWDEV: u32 = 41;
    /// space_avail.
    pub const SPACE_AVAIL: u32 = 42;
    /// space_free.
    pub const SPACE_FREE: u32 = 43;
    /// space_total.
    pub const SPACE_TOTAL: u32 = 44;
    /// space_used.
    pub const SPACE_USED: u32 = 45;
    /// time_access.
    pub const TIME_ACCESS: u32 = 47;
    /// time_access_set.
    pub const TIME_ACCESS_SET: u32 = 48;
    /// time_create.
    pub const TIME_CREATE: u32 = 50;
    /// time_delta.
    pub const TIME_DELTA: u32 = 51;
    /// time_metadata.
    pub const TIME_METADATA: u32 = 52;
    /// time_modify.
    pub const TIME_MODIFY: u32 = 53;
    /// time_modify_set.
    pub const TIME_MODIFY_SET: u32 = 54;
    /// mounted_on_fileid.
    pub const MOUNTED_ON_FILEID: u32 = 55;
    /// fs_layout_types.
    pub const FS_LAYOUT_TYPES: u32 = 62;
    /// suppattr_exclcreat.
    pub const SUPPATTR_EXCLCREAT: u32 = 75;
    /// open_arguments (RFC 9754).
    pub const OPEN_ARGUMENTS: u32 = 86;
}

/// Defines a newtype over a fixed number of opaque bytes.
macro_rules! fixed_opaque {
    ($(#[$meta:meta])* $name:ident, $size:ident, $what:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub [u8; $size]);

        impl Decode<'_> for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self> {
                r.fixed::<$size>($what).map(|bytes| $name(*bytes))
            }
        }

        impl Encode for $name {
            fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
                w.fixed(&self.0)
            }
        }

        wire_field!($name);
    };
}

fixed_opaque! {
    /// The name of a session (RFC 8881 section 3.2, `sessionid4`).
    SessionId, SESSIONID_SIZE, "sessionid4"
}
fixed_opaque! {
    /// A verifier (RFC 8881 section 3.2, `verifier4`).
    Verifier4, VERIFIER_SIZE, "verifier4"
}
fixed_opaque! {
    /// The name of a pNFS device (RFC 8881 section 3.3.14, `deviceid4`).
    DeviceId4, DEVICEID_SIZE, "deviceid4"
}

/// Defines a newtype over an integer.
macro_rules! integer {
    ($(#[$meta:meta])* $name:ident, $ty:ident, $what:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub $ty);

        impl Decode<'_> for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self> {
                r.$ty($what).map($name)
            }
        }

        impl Encode for $name {
            fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
                w.$ty(self.0)
            }
        }

        wire_field!($name);
    };
}

integer! {
    /// The short name of a client (RFC 8881 section 3.2, `clientid4`).
    ClientId4, u64, "clientid4"
}
integer! {
    /// A pNFS layout type (RFC 8881 section 3.3.13, `layouttype4`). The registry of layout types is open, so a number
    /// that is not known here passes through.
    LayoutType4, u32, "layouttype4"
}

impl LayoutType4 {
    /// The file layout (RFC 8881 section 13).
    pub const NFSV4_1_FILES: LayoutType4 = LayoutType4(1);
    /// The object layout (RFC 5664).
    pub const OSD2_OBJECTS: LayoutType4 = LayoutType4(2);
    /// The block layout (RFC 5663).
    pub const BLOCK_VOLUME: LayoutType4 = LayoutType4(3);
    /// The flexible file layout (RFC 8435).
    pub const FLEX_FILES: LayoutType4 = LayoutType4(4);
    /// The SCSI layout (RFC 8154).
    pub const SCSI: LayoutType4 = LayoutType4(5);
}

/// The name of a piece of locking state (RFC 8881 section 3.3.12, `stateid4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Stateid4 {
    /// Counts the changes of that state.
    pub seqid: u32,
    /// Names the state.
    pub other: [u8; OTHER_SIZE],
}

impl Stateid4 {
    /// The anonymous stateid (RFC 8881 section 8.2.3).
    pub const ANONYMOUS: Stateid4 = Stateid4 { seqid: 0, other: [0; OTHER_SIZE] };
    /// The READ bypass stateid (RFC 8881 section 8.2.3).
    pub const READ_BYPASS: Stateid4 = Stateid4 { seqid: u32::MAX, other: [0xff; OTHER_SIZE] };
    /// The current stateid of a compound (RFC 8881 section 8.2.3).
    pub const CURRENT: Stateid4 = Stateid4 { seqid: 1, other: [0; OTHER_SIZE] };
    /// The invalid special stateid (RFC 8881 section 8.2.3).
    pub const INVALID: Stateid4 = Stateid4 { seqid: u32::MAX, other: [0; OTHER_SIZE] };
}

impl Decode<'_> for Stateid4 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Stateid4 { seqid: r.u32("stateid4.seqid")?, other: *r.fixed("stateid4.other")? })
    }
}

impl Encode for Stateid4 {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u32(self.seqid)?;
        w.fixed(&self.other)
    }
}

wire_field!(Stateid4);

/// A filehandle (RFC 8881 section 4.2, `nfs_fh4`): at most [`FHSIZE`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileHandle<'a>(&'a [u8]);

impl<'a> FileHandle<'a> {
    /// A filehandle; `None` if it is too long.
    pub const fn new(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() <= FHSIZE { Some(FileHandle(bytes)) } else { None }
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Decode<'a> for FileHandle<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        r.opaque("nfs_fh4", FHSIZE).map(FileHandle)
    }
}

impl Encode for FileHandle<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.opaque(self.0)
    }
}

wire_field!(FileHandle<'a>);

/// An open-owner or lock-owner (RFC 8881 section 3.3.10, `state_owner4`): at most [`OPAQUE_LIMIT`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateOwner4<'a> {
    /// The client; a server of minor version 1 ignores it.
    pub client_id: ClientId4,
    owner: &'a [u8],
}

impl<'a> StateOwner4<'a> {
    /// An owner; `None` if it is too long.
    pub const fn new(client_id: ClientId4, owner: &'a [u8]) -> Option<Self> {
        if owner.len() <= OPAQUE_LIMIT { Some(StateOwner4 { client_id, owner }) } else { None }
    }

    /// The owner's bytes.
    pub const fn owner(&self) -> &'a [u8] {
        self.owner
    }
}

impl<'a> Decode<'a> for StateOwner4<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(StateOwner4 { client_id: ClientId4::decode(r)?, owner: r.opaque("state_owner4.owner", OPAQUE_LIMIT)? })
    }
}

impl Encode for StateOwner4<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        self.client_id.encode(w)?;
        w.opaque(self.owner)
    }
}

wire_field!(StateOwner4<'a>);

wire_struct! {
    /// Attributes (RFC 8881 section 3.3.7, `fattr4`). The values stand in ascending order of their bits; their encoding
    /// is the attribute's own, and is not interpreted here.
    pub struct Fattr<'a> {
        /// Which attributes.
        pub mask: Bitmap4 = "fattr4.attrmask",
        /// Their values.
        pub values: &'a [u8] = "fattr4.attr_vals",
    }
}

impl Fattr<'_> {
    /// No attributes.
    pub const NONE: Fattr<'static> = Fattr { mask: Bitmap4::EMPTY, values: &[] };
}

wire_struct! {
    /// How a directory changed (RFC 8881 section 3.3.8, `change_info4`).
    pub struct ChangeInfo4 {
        /// Whether the two values were taken atomically with the change.
        pub atomic: bool = "change_info4.atomic",
        /// The change attribute before.
        pub before: u64 = "change_info4.before",
        /// The change attribute after.
        pub after: u64 = "change_info4.after",
    }
}

wire_struct! {
    /// A time (RFC 8881 section 3.3.1, `nfstime4`).
    pub struct NfsTime4 {
        /// Seconds since 1970-01-01, 0:00 UTC.
        pub seconds: i64 = "nfstime4.seconds",
        /// Nanoseconds, below 1,000,000,000 in a valid time.
        pub nseconds: u32 = "nfstime4.nseconds",
    }
}

wire_struct! {
    /// The name of a file system (RFC 8881 section 3.3.5, `fsid4`).
    pub struct Fsid4 {
        /// Major part.
        pub major: u64 = "fsid4.major",
        /// Minor part.
        pub minor: u64 = "fsid4.minor",
    }
}

wire_enum! {
    /// What a layout is for (RFC 8881 section 3.3.20, `layoutiomode4`).
    pub enum LayoutIomode4 = "layoutiomode4" {
        /// Reading.
        Read = 1,
        /// Reading and writing.
        Rw = 2,
        /// Either; in recalls and returns only.
        Any = 3,
    }
}

wire_enum! {
    /// How far written data is safe (RFC 8881 section 18.32, `stable_how4`).
    pub enum StableHow4 = "stable_how4" {
        /// In memory.
        Unstable = 0,
        /// Data is on stable storage.
        DataSync = 1,
        /// Data and metadata are on stable storage.
        FileSync = 2,
    }
}
