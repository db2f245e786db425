//! The headers of COMPOUND (RFC 8881 section 16.2).

use crate::nfs4::{Status, TAG_BYTES_MAX};
use crate::xdr::{Decode, Encode, Reader, Reserved, Result, Writer};

/// The head of `COMPOUND4args`; `count` times an [`OpArgs`](super::OpArgs) follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompoundArgs<'a> {
    /// For the reader of a trace; the reply carries the same.
    pub tag: &'a [u8],
    /// The minor version.
    pub minor_version: u32,
    /// Operations that follow. Not more than the bytes that are left could hold; the session's limit is the caller's
    /// to check.
    pub count: usize,
}

impl<'a> Decode<'a> for CompoundArgs<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(CompoundArgs {
            tag: r.opaque("tag", TAG_BYTES_MAX)?,
            minor_version: r.u32("minorversion")?,
            count: r.count("argarray", u32::MAX as usize, 4)?,
        })
    }
}

impl Encode for CompoundArgs<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.opaque(self.tag)?;
        w.u32(self.minor_version)?;
        w.count(self.count)
    }
}

/// The head of `COMPOUND4res`; `count` times an [`OpRes`](super::OpRes) follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompoundRes<'a> {
    /// That of the last operation.
    pub status: Status,
    /// As in the request.
    pub tag: &'a [u8],
    /// Results that follow: up to and including the first that failed.
    pub count: usize,
}

impl<'a> Decode<'a> for CompoundRes<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(CompoundRes {
            status: Status(r.u32("status")?),
            tag: r.opaque("tag", TAG_BYTES_MAX)?,
            // A result is an operation number and a status at least.
            count: r.count("resarray", u32::MAX as usize, 8)?,
        })
    }
}

impl Encode for CompoundRes<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u32(self.status.0)?;
        w.opaque(self.tag)?;
        w.count(self.count)
    }
}

/// A [`CompoundRes`] whose status and count are known only when the operations have run.
#[derive(Debug)]
#[must_use = "status and count are zero until they are filled in"]
pub struct CompoundResHead {
    status: Reserved,
    count: Reserved,
}

impl CompoundResHead {
    /// Writes the head with room for status and count.
    pub fn reserve(tag: &[u8], w: &mut Writer<'_>) -> Result<Self> {
        let status = w.reserve_u32()?;
        w.opaque(tag)?;
        Ok(CompoundResHead { status, count: w.reserve_u32()? })
    }

    /// Fills in what the operations came to.
    pub fn fill(self, status: Status, count: u32, w: &mut Writer<'_>) {
        w.patch_u32(self.status, status.0);
        w.patch_u32(self.count, count);
    }
}
