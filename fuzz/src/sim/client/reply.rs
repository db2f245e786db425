//! The answers of simulated clients, as bytes.

use super::behaviour::Refusal;
use crate::sim::call::Payload;
use crate::sim::coverage::Kind;
use crate::sim::journal::Journal;
use ringback_rpc::message::{AcceptStatus, ReplyBody, ReplyHeader};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::{CallbackOp, CbCompoundRes, CbSequenceRes};
use ringback_rpc::record;
use ringback_rpc::xdr::{Encode, Writer};

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Not executed at all.
    Refused(Refusal),
    /// CB_SEQUENCE failed.
    Sequence(Status),
    /// CB_SEQUENCE was executed, and what followed it, up to the first that failed.
    Taken(CbSequenceRes, Vec<OpAnswer>),
}

impl Answer {
    /// Counts what it says.
    pub(crate) fn reach(&self, journal: &Journal) {
        match self {
            Answer::Refused(Refusal::Denied(_)) => journal.reach(Kind::RpcDenied),
            Answer::Refused(Refusal::NotExecuted(_)) => journal.reach(Kind::RpcNotExecuted),
            Answer::Refused(Refusal::NoResults(_)) => journal.reach(Kind::NoResults),
            Answer::Sequence(status) => journal.reach(Kind::of_sequence(*status)),
            Answer::Taken(_, ops) => {
                journal.reach(Kind::SequenceOk);
                ops.iter().for_each(|op| journal.reach(Kind::of_op(op.status)));
            }
        }
    }
}

/// The result of an operation after CB_SEQUENCE.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpAnswer {
    pub op: CallbackOp,
    pub status: Status,
    /// A result beyond the status; `None` in a batch, whose operations have none.
    pub payload: Option<Payload>,
}

/// Longest answer: no operation of the simulation has long results.
pub(super) const REPLY_BYTES: usize = 1024;

/// The record with its mark.
pub(crate) fn encode(xid: u32, answer: &Answer) -> Vec<u8> {
    let mut bytes = vec![0; REPLY_BYTES];
    let mut w = Writer::new(&mut bytes);
    let written = record::begin(&mut w).and_then(|mark| {
        write(xid, answer, &mut w)?;
        record::end(&mut w, mark)
    });
    let len = w.position();
    assert!(written.is_ok(), "an answer of {len} bytes: {written:?}");
    bytes.truncate(len);
    bytes
}

fn write(xid: u32, answer: &Answer, w: &mut Writer<'_>) -> ringback_rpc::xdr::Result<()> {
    match *answer {
        Answer::Refused(Refusal::Denied(why)) => ReplyHeader { xid, body: ReplyBody::Denied(why) }.encode(w),
        Answer::Refused(Refusal::NotExecuted(status)) => ReplyHeader::accepted(xid, status).encode(w),
        Answer::Refused(Refusal::NoResults(status)) => compound(xid, status, 0, w),
        Answer::Sequence(status) => {
            compound(xid, status, 1, w)?;
            w.u32(CallbackOp::Sequence as u32)?;
            status.encode(w)
        }
        Answer::Taken(sequence, ref ops) => {
            let status = ops.last().map_or(Status::NFS4_OK, |op| op.status);
            compound(xid, status, 1 + ops.len() as u32, w)?;
            w.u32(CallbackOp::Sequence as u32)?;
            Status::NFS4_OK.encode(w)?;
            sequence.encode(w)?;
            for op in ops {
                w.u32(op.op as u32)?;
                op.status.encode(w)?;
                op.payload.map_or(Ok(()), |payload| payload.write(0, w))?;
            }
            Ok(())
        }
    }
}

fn compound(xid: u32, status: Status, count: u32, w: &mut Writer<'_>) -> ringback_rpc::xdr::Result<()> {
    ReplyHeader::accepted(xid, AcceptStatus::Success).encode(w)?;
    CbCompoundRes { status, tag: &[], count }.encode(w)
}
