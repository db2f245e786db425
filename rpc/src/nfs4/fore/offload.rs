//! Content that the server copies by itself, and holes: COPY, OFFLOAD_STATUS, OFFLOAD_CANCEL, SEEK, ALLOCATE, DEALLOCATE, CLONE
//! (RFC 7862 section 15).

use super::Failure;
use crate::nfs4::callback::WriteResponse4;
use crate::nfs4::wire::{wire_enum, wire_field, wire_struct};
use crate::nfs4::{List, Stateid4, Status};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

/// Where a server is (RFC 7862 section 4.9, `netloc4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetLoc4<'a> {
    /// A host name.
    Name(&'a [u8]),
    /// A URL.
    Url(&'a [u8]),
    /// A universal address: network id and address.
    Address(&'a [u8], &'a [u8]),
}

/// A network id or an address: both are short, and the record bounds them anyway.
fn text<'a>(r: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8]> {
    r.opaque(what, u32::MAX as usize)
}

impl<'a> Decode<'a> for NetLoc4<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let offset = r.offset();
        match r.u32("nl_type")? {
            1 => text(r, "nl_name").map(NetLoc4::Name),
            2 => text(r, "nl_url").map(NetLoc4::Url),
            3 => Ok(NetLoc4::Address(text(r, "na_r_netid")?, text(r, "na_r_addr")?)),
            other => Err(crate::nfs4::wire::undefined("nl_type", offset, other)),
        }
    }
}

impl Encode for NetLoc4<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            NetLoc4::Name(name) => w.u32(1).and_then(|()| w.opaque(name)),
            NetLoc4::Url(url) => w.u32(2).and_then(|()| w.opaque(url)),
            NetLoc4::Address(network, address) => {
                w.u32(3)?;
                w.opaque(network)?;
                w.opaque(address)
            }
        }
    }
}

wire_field!(NetLoc4<'a>);

wire_struct! {
    /// Arguments of COPY (RFC 7862 section 15.2): from the saved filehandle to the current one.
    pub struct CopyArgs<'a> {
        /// The open, lock or delegation under which is read.
        pub src_stateid: Stateid4 = "ca_src_stateid",
        /// The open, lock or delegation under which is written.
        pub dst_stateid: Stateid4 = "ca_dst_stateid",
        /// Where to begin to read.
        pub src_offset: u64 = "ca_src_offset",
        /// Where to begin to write.
        pub dst_offset: u64 = "ca_dst_offset",
        /// How many bytes; zero: to the end of the file.
        pub count: u64 = "ca_count",
        /// The bytes are to be copied in their order.
        pub consecutive: bool = "ca_consecutive",
        /// The reply is to come when all is copied.
        pub synchronous: bool = "ca_synchronous",
        /// Where the source is; empty: here.
        pub source_servers: List<'a, NetLoc4<'a>> = "ca_source_server",
    }
}

wire_struct! {
    /// What a copy does that was asked for, or what it could do (RFC 7862 section 15.2, `copy_requirements4`).
    pub struct CopyRequirements {
        /// In their order.
        pub consecutive: bool = "cr_consecutive",
        /// Done with the reply.
        pub synchronous: bool = "cr_synchronous",
    }
}

wire_struct! {
    /// Results of COPY.
    pub struct CopyOk {
        /// What was written; or with a stateid, what CB_OFFLOAD will be about.
        pub response: WriteResponse4 = "cr_response",
        /// How it is done.
        pub requirements: CopyRequirements = "cr_requirements",
    }
}

/// How COPY fails: NFS4ERR_OFFLOAD_NO_REQS says what could be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFailure {
    /// NFS4ERR_OFFLOAD_NO_REQS.
    NoRequirements(CopyRequirements),
    /// Any other status.
    Other(Status),
}

impl<'a> Failure<'a> for CopyFailure {
    fn read(status: Status, r: &mut Reader<'a>) -> Result<Self> {
        match status {
            Status::NFS4ERR_OFFLOAD_NO_REQS => CopyRequirements::decode(r).map(CopyFailure::NoRequirements),
            status => Ok(CopyFailure::Other(status)),
        }
    }

    fn status(&self) -> Status {
        match self {
            CopyFailure::NoRequirements(_) => Status::NFS4ERR_OFFLOAD_NO_REQS,
            CopyFailure::Other(status) => *status,
        }
    }

    fn put(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            CopyFailure::NoRequirements(requirements) => requirements.encode(w),
            CopyFailure::Other(_) => Ok(()),
        }
    }
}

impl From<Status> for CopyFailure {
    fn from(status: Status) -> Self {
        CopyFailure::Other(status)
    }
}

wire_struct! {
    /// Arguments of OFFLOAD_CANCEL (RFC 7862 section 15.8); the current filehandle is that of the destination.
    pub struct OffloadCancelArgs {
        /// The copy.
        pub stateid: Stateid4 = "oca_stateid",
    }
}

wire_struct! {
    /// Arguments of OFFLOAD_STATUS (RFC 7862 section 15.9); the current filehandle is that of the destination.
    pub struct OffloadStatusArgs {
        /// The copy.
        pub stateid: Stateid4 = "osa_stateid",
    }
}

wire_struct! {
    /// Results of OFFLOAD_STATUS.
    pub struct OffloadStatusOk {
        /// Bytes copied so far.
        pub count: u64 = "osr_count",
        /// How it ended, if it has.
        pub complete: Option<Status> = "osr_complete",
    }
}

wire_enum! {
    /// What SEEK looks for (RFC 7862 section 15.11, `data_content4`).
    pub enum DataContent4 = "data_content4" {
        /// Data.
        Data = 0,
        /// A hole.
        Hole = 1,
    }
}

wire_struct! {
    /// Arguments of SEEK (RFC 7862 section 15.11).
    pub struct SeekArgs {
        /// The open, lock or delegation under which is read.
        pub stateid: Stateid4 = "sa_stateid",
        /// Where to begin.
        pub offset: u64 = "sa_offset",
        /// What to look for.
        pub what: DataContent4 = "sa_what",
    }
}

wire_struct! {
    /// Results of SEEK.
    pub struct SeekOk {
        /// The end of the file came first.
        pub eof: bool = "sr_eof",
        /// Where it is.
        pub offset: u64 = "sr_offset",
    }
}

wire_struct! {
    /// Arguments of ALLOCATE and DEALLOCATE (RFC 7862 sections 15.1 and 15.4).
    pub struct AllocateArgs {
        /// The open, lock or delegation under which is written.
        pub stateid: Stateid4 = "aa_stateid",
        /// Where to begin.
        pub offset: u64 = "aa_offset",
        /// How many bytes.
        pub length: u64 = "aa_length",
    }
}

wire_struct! {
    /// Arguments of CLONE (RFC 7862 section 15.13): from the saved filehandle to the current one.
    pub struct CloneArgs {
        /// The open, lock or delegation under which is read.
        pub src_stateid: Stateid4 = "cl_src_stateid",
        /// The open, lock or delegation under which is written.
        pub dst_stateid: Stateid4 = "cl_dst_stateid",
        /// Where to begin to read.
        pub src_offset: u64 = "cl_src_offset",
        /// Where to begin to write.
        pub dst_offset: u64 = "cl_dst_offset",
        /// How many bytes; zero: to the end of the file.
        pub count: u64 = "cl_count",
    }
}
