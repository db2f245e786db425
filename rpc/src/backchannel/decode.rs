//! The parts of a reply that the core reads itself. The result of the operation stays bytes.

use super::host::PathFault;
use crate::message::{AcceptStatus, MessageType, ReplyBody, ReplyHeader};
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
    bytes: &'a [u8],
}

impl<'a> Results<'a> {
    /// The result of the next operation; `None`: the client sent no more, or not all of it. The operation before it must be
    /// one that returns a status alone, as those of a batch do.
    #[inline]
    pub fn next(&mut self) -> Option<OpAnswer<'a>> {
        self.left = self.left.checked_sub(1)?;
        let ([o0, o1, o2, o3, s0, s1, s2, s3], results) = self.bytes.split_first_chunk()?;
        self.bytes = results;
        let op = u32::from_be_bytes([*o0, *o1, *o2, *o3]);
        Some(OpAnswer { op, status: Status(u32::from_be_bytes([*s0, *s1, *s2, *s3])), results })
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

/// Bytes of the usual reply up to the end of CB_SEQUENCE's result.
const USUAL_BYTES: usize = 76;
/// What it begins with after the xid: REPLY, MSG_ACCEPTED, an empty AUTH_NONE verifier, SUCCESS.
const ACCEPTED: [u8; 20] = {
    let mut words = [0; 20];
    words[3] = MessageType::Reply as u8;
    words
};

/// The reply that nearly every call gets, read by position: accepted, executed, our empty tag, CB_SEQUENCE fine. Field by
/// field this was a twelfth of all instructions of a callback. With its xid.
#[inline(always)]
pub(super) fn usual(record: &[u8]) -> Option<(u32, Echo, Results<'_>)> {
    let (head, bytes) = record.split_first_chunk::<USUAL_BYTES>()?;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (tag_bytes, count, op, status) = (word(28), word(32), word(36), word(40));
    if head[4..24] != ACCEPTED || (tag_bytes, op, status) != (0, CallbackOp::Sequence as u32, 0) {
        return None;
    }
    let mut session_id = [0; 16];
    session_id.copy_from_slice(&head[44..60]);
    let echo = Echo {
        session_id: SessionId(session_id),
        sequence_id: SequenceId(word(60)),
        slot: SlotId(word(64)),
        highest: SlotId(word(68)),
        target_highest: SlotId(word(72)),
    };
    Some((word(0), echo, Results { left: count.checked_sub(1)?, bytes }))
}

/// Any reply record (without its mark), field by field.
#[inline(never)]
pub(super) fn any(record: &[u8]) -> Result<Answer<'_>> {
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
    Ok(Answer::Taken(echo, Results { left: count - 1, bytes: r.remaining() }))
}

/// Decodes a reply of minor version 0 (RFC 7530 section 17.2): the first operation's result is all that there is; of
/// CB_NULL, not even that. The inner error: the call was not executed.
pub(super) fn answer_minor0(
    record: &[u8],
    is_null: bool,
) -> Result<core::result::Result<Option<OpAnswer<'_>>, PathFault>> {
    let mut r = Reader::new(record);
    match ReplyHeader::decode(&mut r)?.body {
        ReplyBody::Accepted { status: AcceptStatus::Success, .. } if is_null => return Ok(Ok(None)),
        ReplyBody::Accepted { status: AcceptStatus::Success, .. } => {}
        ReplyBody::Accepted { status, .. } => return Ok(Err(PathFault::NotExecuted(status))),
        ReplyBody::Denied(why) => return Ok(Err(PathFault::Denied(why))),
    }
    let status = Status(r.u32("CB_COMPOUND4res.status")?);
    r.opaque("CB_COMPOUND4res.tag", TAG_BYTES_MAX)?;
    if r.u32("CB_COMPOUND4res.resarray")? == 0 {
        return Ok(Err(PathFault::NoResults(status)));
    }
    Ok(Ok(Some(OpAnswer { op: r.u32("resop")?, status: Status(r.u32("status")?), results: r.remaining() })))
}

fn not_defined(what: &'static str, offset: usize, value: u32) -> XdrError {
    XdrError { what, offset, kind: XdrErrorKind::BadValue { value: value.into() } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CB_SEQUENCE and CB_RECALL are fine.
    fn reply() -> Vec<u8> {
        let words: [u32; 21] = [7, 1, 0, 0, 0, 0, 0, 0, 2, 11, 0, 1, 2, 3, 4, 5, 6, 63, 62, 4, 0];
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn the_usual_reply_is_read_as_any_other() {
        let reply = reply();
        let ((xid, echo, mut results), any) = (usual(&reply).expect("it is usual"), any(&reply).expect("it is fine"));
        assert_eq!(format!("{:?}", Answer::Taken(echo, results.clone())), format!("{any:?}"));
        assert_eq!(xid, 7);
        assert_eq!((echo.sequence_id.0, echo.slot.0, echo.highest.0, echo.target_highest.0), (5, 6, 63, 62));
        assert_eq!(results.next().map(|r| (r.op, r.status)), Some((4, Status::NFS4_OK)));
    }

    /// Whatever is changed or missing, both say the same, or the usual reply is not taken for one.
    #[test]
    fn what_is_not_usual_is_left_to_the_other() {
        let reply = reply();
        for len in 0..=reply.len() {
            for (at, bit) in (0..len).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut other = reply[..len].to_vec();
                other[at] ^= 1 << bit;
                if let Some((_, echo, results)) = usual(&other) {
                    let usual = Ok::<_, XdrError>(Answer::Taken(echo, results));
                    assert_eq!(format!("{usual:?}"), format!("{:?}", any(&other)), "{other:x?}");
                }
            }
        }
    }
}
