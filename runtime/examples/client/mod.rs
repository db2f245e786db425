//! The other end, for the examples: a client that answers each CB_COMPOUND {CB_SEQUENCE, CB_RECALL} until the server hangs
//! up.

use ringback_rpc::message::{CallHeader, ReplyHeader};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::{CbArgs, CbCompoundArgs, CbCompoundRes, CbRes, CbSequenceRes};
use ringback_rpc::record::{self, RecordReader};
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};
use std::io::{Read, Write};

/// The program number under which the client serves callbacks.
pub const PROGRAM: u32 = 0x4000_0000;

/// Gives how many recalls were answered.
pub fn answer_recalls(mut socket: impl Read + Write) -> usize {
    let (mut reader, mut bytes, mut answered) = (RecordReader::new(4096), [0; 4096], 0);
    loop {
        let count = socket.read(&mut bytes).unwrap_or(0);
        if count == 0 {
            return answered;
        }
        let mut input = &bytes[..count];
        while let Some(call) = reader.next(&mut input).expect("records") {
            socket.write_all(&answer(&call)).expect("the server listens");
            answered += 1;
        }
    }
}

fn answer(call: &[u8]) -> Vec<u8> {
    let mut r = Reader::new(call);
    let header = CallHeader::decode(&mut r).expect("a call");
    let compound = CbCompoundArgs::decode(&mut r).expect("a CB_COMPOUND");
    assert_eq!((header.program, compound.count), (PROGRAM, 2));
    let Ok(CbArgs::Sequence(sequence)) = CbArgs::decode(&mut r) else { panic!("no CB_SEQUENCE") };
    let Ok(CbArgs::Recall(_)) = CbArgs::decode(&mut r) else { panic!("no CB_RECALL") };
    let mut space = [0; 512];
    let mut w = Writer::new(&mut space);
    reply(header.xid, &sequence, &mut w).expect("it fits");
    w.written().to_vec()
}

fn reply(
    xid: u32,
    sequence: &ringback_rpc::nfs4::callback::CbSequenceArgs<'_>,
    w: &mut Writer<'_>,
) -> ringback_rpc::xdr::Result<()> {
    let mark = record::begin(w)?;
    ReplyHeader::success(xid).encode(w)?;
    CbCompoundRes { status: Status::NFS4_OK, tag: b"", count: 2 }.encode(w)?;
    let echo = CbSequenceRes {
        session_id: sequence.session_id,
        sequence_id: sequence.sequence_id,
        slot_id: sequence.slot_id,
        highest_slot_id: 15,
        target_highest_slot_id: 15,
    };
    CbRes::Sequence(Ok(echo)).encode(w)?;
    CbRes::Recall(Status::NFS4_OK).encode(w)?;
    record::end(w, mark)
}
