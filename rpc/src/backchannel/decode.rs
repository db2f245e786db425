//! The parts of a reply that the core reads itself. The result of the operation stays bytes.

use super::host::PathFault;
use crate::message::{AcceptStatus, ReplyBody, ReplyHeader};
use crate::nfs4::callback::CallbackOp;
use crate::nfs4::{SessionId, Status, TAG_BYTES_MAX};
use crate::session::{SequenceId, SlotId};
use crate::xdr::{Decode, Reader, Result, XdrError, XdrErrorKind};

/// What a reply says.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// The compound was not executed at all.
    Refused(PathFault),
    /// CB_SEQUENCE failed.
    Sequence(Status),
    /// CB_SEQUENCE is fine. What follows it may be missing or malformed.
    Taken(Echo, Results<'a>),
}

/// The result of CB_SEQUENCE (RFC 8881 section 20.9.2, `CB_SEQUENCE4resok`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Echo {
    pub session_id: SessionId,
    pub sequence_id: SequenceId,
    pub slot: SlotId,
    pub highest: SlotId,
    pub target_highest: SlotId,
}

/// What follows the result of CB_SEQUENCE.
#[derive(Clone, Debug)]
pub(super) struct Results<'a> {
    left: u32,
    r: Reader<'a>,
}

impl<'a> Results<'a> {
    /// The result of the next operation; `None`: the client sent no more. The operation before it must be one that
    /// returns a status alone, as those of a batch do.
    #[inline]
    pub fn next(&mut self) -> Result<Option<OpAnswer<'a>>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let r = &mut self.r;
        Ok(Some(OpAnswer { op: r.u32("resop")?, status: Status(r.u32("status")?), results: r.remaining() }))
    }
}

/// The result of an operation after CB_SEQUENCE.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpAnswer<'a> {
    pub op: u32,
    pub status: Status,
    /// What follows the status, the results of further operations included.
    pub results: &'a [u8],
}

/// Decodes a reply record (without its mark).
#[inline]
pub(super) fn answer(record: &[u8]) -> Result<Answer<'_>> {
    let mut r = Reader::new(record);
    match ReplyHeader::decode(&mut r)?.body {
        ReplyBody::Accepted { status: AcceptStatus::Success, .. } => compound(&mut r),
        ReplyBody::Accepted { status, .. } => Ok(Answer::Refused(PathFault::NotExecuted(status))),
        ReplyBody::Denied(why) => Ok(Answer::Refused(PathFault::Denied(why))),
    }
}

fn compound<'a>(r: &mut Reader<'a>) -> Result<Answer<'a>> {
    let status = Status(r.u32("CB_COMPOUND4res.status")?);
    r.opaque("CB_COMPOUND4res.tag", TAG_BYTES_MAX)?;
    let count = r.u32("CB_COMPOUND4res.resarray")?;
    if count == 0 {
        return Ok(Answer::Refused(PathFault::NoResults(status)));
    }
    let op = r.u32("resop")?;
    if op != CallbackOp::Sequence as u32 {
        return Err(not_defined("resop", r.offset() - 4, op));
    }
    let status = Status(r.u32("csr_status")?);
    if status != Status::NFS4_OK {
        return Ok(Answer::Sequence(status));
    }
    let echo = Echo {
        session_id: SessionId(*r.fixed("csr_sessionid")?),
        sequence_id: SequenceId(r.u32("csr_sequenceid")?),
        slot: SlotId(r.u32("csr_slotid")?),
        highest: SlotId(r.u32("csr_highest_slotid")?),
        target_highest: SlotId(r.u32("csr_target_highest_slotid")?),
    };
    Ok(Answer::Taken(echo, Results { left: count - 1, r: r.clone() }))
}

fn not_defined(what: &'static str, offset: usize, value: u32) -> XdrError {
    XdrError { what, offset, kind: XdrErrorKind::BadValue { value: value.into() } }
}
