//! Open delegations as OPEN and WANT_DELEGATION grant them and CB_PUSH_DELEG offers them.

use super::Stateid4;
use super::wire::{undefined, wire_field, wire_struct};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

wire_struct! {
    /// One access control entry (RFC 8881 section 6.2.1, `nfsace4`).
    pub struct NfsAce4<'a> {
        /// Allow, deny, audit or alarm.
        pub kind: u32 = "nfsace4.type",
        /// Inheritance and the kind of `who`.
        pub flag: u32 = "nfsace4.flag",
        /// What is allowed or denied.
        pub access_mask: u32 = "nfsace4.access_mask",
        /// Whom it is about.
        pub who: &'a [u8] = "nfsace4.who",
    }
}

impl NfsAce4<'_> {
    /// An entry that allows nothing to nobody: the client asks with ACCESS.
    pub const NONE: NfsAce4<'static> = NfsAce4 { kind: 0, flag: 0, access_mask: 0, who: &[] };
}

/// How much a client may write before it must ask (RFC 8881 section 18.16, `nfs_space_limit4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceLimit4 {
    /// NFS_LIMIT_SIZE: the file's size in bytes.
    Size(u64),
    /// NFS_LIMIT_BLOCKS: modified blocks.
    Blocks {
        /// Number of blocks.
        blocks: u32,
        /// Size of a block.
        bytes_per_block: u32,
    },
}

impl Decode<'_> for SpaceLimit4 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let offset = r.offset();
        match r.u32("limitby")? {
            1 => r.u64("filesize").map(SpaceLimit4::Size),
            2 => Ok(SpaceLimit4::Blocks { blocks: r.u32("num_blocks")?, bytes_per_block: r.u32("bytes_per_block")? }),
            value => Err(undefined("limitby", offset, value)),
        }
    }
}

impl Encode for SpaceLimit4 {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match *self {
            SpaceLimit4::Size(bytes) => {
                w.u32(1)?;
                w.u64(bytes)
            }
            SpaceLimit4::Blocks { blocks, bytes_per_block } => {
                [2, blocks, bytes_per_block].iter().try_for_each(|v| w.u32(*v))
            }
        }
    }
}

wire_field!(SpaceLimit4);

wire_struct! {
    /// A read delegation (RFC 8881 section 18.16, `open_read_delegation4`).
    pub struct OpenReadDelegation4<'a> {
        /// The delegation's stateid.
        pub stateid: Stateid4 = "open_read_delegation4.stateid",
        /// Already being recalled; only for a reclaim.
        pub recall: bool = "open_read_delegation4.recall",
        /// Who needs no ACCESS to open for reading.
        pub permissions: NfsAce4<'a> = "open_read_delegation4.permissions",
    }
}

wire_struct! {
    /// A write delegation (RFC 8881 section 18.16, `open_write_delegation4`).
    pub struct OpenWriteDelegation4<'a> {
        /// The delegation's stateid.
        pub stateid: Stateid4 = "open_write_delegation4.stateid",
        /// Already being recalled; only for a reclaim.
        pub recall: bool = "open_write_delegation4.recall",
        /// How much may be written before CLOSE must flush.
        pub space_limit: SpaceLimit4 = "open_write_delegation4.space_limit",
        /// Who needs no ACCESS to open.
        pub permissions: NfsAce4<'a> = "open_write_delegation4.permissions",
    }
}

/// Why there is no delegation (RFC 8881 section 18.16, `open_none_delegation4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenNoneDelegation4 {
    /// WND4_NOT_WANTED.
    NotWanted,
    /// WND4_CONTENTION.
    Contention {
        /// The server will offer it by CB_PUSH_DELEG.
        will_push: bool,
    },
    /// WND4_RESOURCE.
    Resource {
        /// The server will send CB_RECALLABLE_OBJ_AVAIL.
        will_signal: bool,
    },
    /// WND4_NOT_SUPP_FTYPE.
    NotSupportedFileType,
    /// WND4_WRITE_DELEG_NOT_SUPP_FTYPE.
    WriteNotSupportedFileType,
    /// WND4_NOT_SUPP_UPGRADE.
    NotSupportedUpgrade,
    /// WND4_NOT_SUPP_DOWNGRADE.
    NotSupportedDowngrade,
    /// WND4_CANCELLED.
    Cancelled,
    /// WND4_IS_DIR.
    IsDirectory,
}

impl Decode<'_> for OpenNoneDelegation4 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let offset = r.offset();
        Ok(match r.u32("ond_why")? {
            0 => OpenNoneDelegation4::NotWanted,
            1 => OpenNoneDelegation4::Contention { will_push: r.bool("ond_server_will_push_deleg")? },
            2 => OpenNoneDelegation4::Resource { will_signal: r.bool("ond_server_will_signal_avail")? },
            3 => OpenNoneDelegation4::NotSupportedFileType,
            4 => OpenNoneDelegation4::WriteNotSupportedFileType,
            5 => OpenNoneDelegation4::NotSupportedUpgrade,
            6 => OpenNoneDelegation4::NotSupportedDowngrade,
            7 => OpenNoneDelegation4::Cancelled,
            8 => OpenNoneDelegation4::IsDirectory,
            value => return Err(undefined("ond_why", offset, value)),
        })
    }
}

impl Encode for OpenNoneDelegation4 {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match *self {
            OpenNoneDelegation4::NotWanted => w.u32(0),
            OpenNoneDelegation4::Contention { will_push } => {
                w.u32(1)?;
                w.bool(will_push)
            }
            OpenNoneDelegation4::Resource { will_signal } => {
                w.u32(2)?;
                w.bool(will_signal)
            }
            OpenNoneDelegation4::NotSupportedFileType => w.u32(3),
            OpenNoneDelegation4::WriteNotSupportedFileType => w.u32(4),
            OpenNoneDelegation4::NotSupportedUpgrade => w.u32(5),
            OpenNoneDelegation4::NotSupportedDowngrade => w.u32(6),
            OpenNoneDelegation4::Cancelled => w.u32(7),
            OpenNoneDelegation4::IsDirectory => w.u32(8),
        }
    }
}

wire_field!(OpenNoneDelegation4);

/// A delegation, or why there is none (RFC 8881 section 18.16, `open_delegation4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenDelegation4<'a> {
    /// OPEN_DELEGATE_NONE.
    None,
    /// OPEN_DELEGATE_READ.
    Read(OpenReadDelegation4<'a>),
    /// OPEN_DELEGATE_WRITE.
    Write(OpenWriteDelegation4<'a>),
    /// OPEN_DELEGATE_NONE_EXT: none, and why (minor version 1).
    NoneExt(OpenNoneDelegation4),
}

impl OpenDelegation4<'_> {
    /// The delegation's stateid, if there is one.
    pub const fn stateid(&self) -> Option<Stateid4> {
        match self {
            OpenDelegation4::Read(read) => Some(read.stateid),
            OpenDelegation4::Write(write) => Some(write.stateid),
            OpenDelegation4::None | OpenDelegation4::NoneExt(_) => None,
        }
    }
}

impl<'a> Decode<'a> for OpenDelegation4<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let offset = r.offset();
        match r.u32("delegation_type")? {
            0 => Ok(OpenDelegation4::None),
            1 => OpenReadDelegation4::decode(r).map(OpenDelegation4::Read),
            2 => OpenWriteDelegation4::decode(r).map(OpenDelegation4::Write),
            3 => OpenNoneDelegation4::decode(r).map(OpenDelegation4::NoneExt),
            value => Err(undefined("delegation_type", offset, value)),
        }
    }
}

impl Encode for OpenDelegation4<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            OpenDelegation4::None => w.u32(0),
            OpenDelegation4::Read(read) => {
                w.u32(1)?;
                read.encode(w)
            }
            OpenDelegation4::Write(write) => {
                w.u32(2)?;
                write.encode(w)
            }
            OpenDelegation4::NoneExt(why) => {
                w.u32(3)?;
                why.encode(w)
            }
        }
    }
}

wire_field!(OpenDelegation4<'a>);
