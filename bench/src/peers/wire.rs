//! The bytes that everybody sends: CB_COMPOUND {CB_SEQUENCE, CB_RECALL...}, and the reply to it.
//!
//! The async clients write and read every field with the codec, as their author would, and as ringback does. The loops
//! that are limits copy and patch a record that the codec has written once. The swarm compares what it gets with that
//! record, so that nobody sends fewer or other bytes.

use ringback::{Security, SessionConfig};
use ringback_rpc::message::{AuthSys, CallHeader, OpaqueAuth, ReplyHeader, flavor};
use ringback_rpc::nfs4::callback::{
    CB_COMPOUND, CallbackOp, CbArgs, CbCompoundArgs, CbCompoundRes, CbRecallArgs, CbRes, CbSequenceArgs, NFS_CB,
};
use ringback_rpc::nfs4::{FileHandle, List, SessionId, Stateid4};
use ringback_rpc::record;
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer};

const PROGRAM: u32 = 0x4000_0000;
const MACHINE_NAME: &[u8] = b"fileserver.example";
/// As long as those of many servers.
const FILE_HANDLE_BYTES: usize = 32;
const REQUEST_BYTES_MAX: u32 = 4096;

// Where the fields are that differ between two records of one session, behind the mark.
const XID: usize = 4;
const COUNT: usize = 96;
const SEQUENCE_ID: usize = 120;
const SESSION_SLOT: usize = 124;
const HIGHEST: usize = 128;
/// The first CB_RECALL.
const RECALL: usize = 140;
/// Bytes of one CB_RECALL.
pub const RECALL_BYTES: usize = 60;
/// Bytes of a call with one CB_RECALL, mark included.
pub const CALL_BYTES: usize = RECALL + RECALL_BYTES;
/// Where the delegation's number is in a CB_RECALL: in the stateid and in the filehandle.
const NUMBER_IN_STATEID: usize = 12;
const NUMBER_IN_FILE_HANDLE: usize = 28;

// The same for a reply.
const REPLY_COUNT: usize = 36;
const REPLY_SEQUENCE_ID: usize = 64;
const REPLY_SESSION_SLOT: usize = 68;
const RESULTS: usize = 80;
const RESULT_BYTES: usize = 8;
/// Bytes of the reply to a call with one CB_RECALL, mark included.
pub const REPLY_BYTES: usize = RESULTS + RESULT_BYTES;

/// The session of a connection's client.
pub fn session_config(client: u32, slots: u32, operations: u32) -> SessionConfig {
    SessionConfig {
        session_id: session_id(client).0,
        program: PROGRAM,
        security: Security::Sys { stamp: 1, machine_name: MACHINE_NAME.to_vec(), uid: 0, gid: 0, gids: vec![] },
        slots,
        request_bytes_max: REQUEST_BYTES_MAX,
        response_bytes_max: REQUEST_BYTES_MAX,
        operations_max: operations,
        minor_version: 1,
    }
}

fn session_id(client: u32) -> SessionId {
    let mut id = [0x5e; 16];
    id[..4].copy_from_slice(&client.to_be_bytes());
    SessionId(id)
}

/// Writes the arguments of a CB_RECALL: the client's delegation `number`.
fn encode_recall(client: u32, number: u64, w: &mut Writer<'_>) -> xdr::Result<()> {
    let mut other = [0; 12];
    other[..4].copy_from_slice(&client.to_be_bytes());
    other[4..].copy_from_slice(&number.to_be_bytes());
    let mut fh = [0xfe; FILE_HANDLE_BYTES];
    fh[..8].copy_from_slice(&number.to_be_bytes());
    let Some(fh) = FileHandle::new(&fh) else { unreachable!("32 bytes are no more than NFS4_FHSIZE") };
    CbRecallArgs { stateid: Stateid4 { seqid: 1, other }, truncate: false, fh }.encode(w)
}

/// Writes a whole call with the codec.
pub fn encode_call(client: u32, called: &Called, number: u64, w: &mut Writer<'_>) -> xdr::Result<()> {
    let mark = record::begin(w)?;
    let Some(sys) = AuthSys::new(1, MACHINE_NAME, 0, 0, &[]) else { unreachable!("no groups are not too many") };
    let mut body = [0; 64];
    let mut body_writer = Writer::new(&mut body);
    sys.encode(&mut body_writer)?;
    let credential = OpaqueAuth { flavor: flavor::AUTH_SYS, body: body_writer.written() };
    CallHeader {
        xid: called.xid,
        program: PROGRAM,
        version: NFS_CB,
        procedure: CB_COMPOUND,
        credential,
        verifier: OpaqueAuth::NONE,
    }
    .encode(w)?;
    CbCompoundArgs { tag: b"", minor_version: 1, callback_ident: 0, count: 2 }.encode(w)?;
    CbArgs::Sequence(CbSequenceArgs {
        session_id: session_id(client),
        sequence_id: called.sequence_id,
        slot_id: called.slot,
        highest_slot_id: called.highest,
        cache_this: false,
        referring_call_lists: List::default(),
    })
    .encode(w)?;
    w.u32(CallbackOp::Recall as u32)?;
    encode_recall(client, number, w)?;
    record::end(w, mark)
}

/// Reads a reply (without its mark) with the codec: the xid, and whether all is fine.
pub fn decode_reply(record: &[u8]) -> xdr::Result<(u32, bool)> {
    let mut r = Reader::new(record);
    let header = ReplyHeader::decode(&mut r)?;
    let compound = CbCompoundRes::decode(&mut r)?;
    let mut fine = compound.status.is_ok() && compound.count == 2;
    for _ in 0..compound.count {
        fine &= CbRes::decode(&mut r)?.status().is_ok();
    }
    Ok((header.xid, fine))
}

/// Calls of one session.
#[derive(Clone, Debug)]
pub struct Template {
    call: [u8; CALL_BYTES],
}

impl Template {
    /// For the session of [`session_config`].
    pub fn new(client: u32) -> Template {
        let mut call = [0; CALL_BYTES];
        let mut w = Writer::new(&mut call);
        let written = encode_call(client, &Called::default(), 0, &mut w);
        assert!(written.is_ok() && w.left() == 0, "a call has {CALL_BYTES} bytes: {written:?}, {} left", w.left());
        Template { call }
    }

    /// A call with one CB_RECALL.
    pub fn call(&self, xid: u32, slot: u32, sequence_id: u32, highest: u32, number: u64) -> [u8; CALL_BYTES] {
        let mut call = self.call;
        put(&mut call, XID, xid);
        put(&mut call, SEQUENCE_ID, sequence_id);
        put(&mut call, SESSION_SLOT, slot);
        put(&mut call, HIGHEST, highest);
        for at in [NUMBER_IN_STATEID, NUMBER_IN_FILE_HANDLE] {
            call[RECALL + at..RECALL + at + 8].copy_from_slice(&number.to_be_bytes());
        }
        call
    }

    /// Writes the arguments of a CB_RECALL, as a file server does that has stateid and filehandle at hand.
    pub fn encode_recall(&self, number: u64, w: &mut Writer<'_>) -> xdr::Result<()> {
        let mut args = [0; RECALL_BYTES - 4];
        args.copy_from_slice(&self.call[RECALL + 4..]);
        for at in [NUMBER_IN_STATEID, NUMBER_IN_FILE_HANDLE] {
            args[at - 4..at + 4].copy_from_slice(&number.to_be_bytes());
        }
        w.raw(&args)
    }

    /// Reads a call, which must be this session's to the byte. `None`: it is not.
    pub fn check(&self, record: &[u8]) -> Option<Called> {
        if record.len() < CALL_BYTES || !(record.len() - RECALL).is_multiple_of(RECALL_BYTES) {
            return None;
        }
        let recalls = ((record.len() - RECALL) / RECALL_BYTES) as u32;
        let same = |from: usize, to: usize| record[from..to] == self.call[from..to];
        let head = get(record, 0) == record::LAST_FRAGMENT | (record.len() - record::MARK_BYTES) as u32
            && same(XID + 4, COUNT)
            && get(record, COUNT) == 1 + recalls
            && same(COUNT + 4, SEQUENCE_ID)
            && same(HIGHEST + 4, RECALL);
        let body = record[RECALL..].chunks_exact(RECALL_BYTES).all(|recall| {
            let expected = &self.call[RECALL..];
            let number = &recall[NUMBER_IN_STATEID..NUMBER_IN_STATEID + 8];
            recall[..NUMBER_IN_STATEID] == expected[..NUMBER_IN_STATEID]
                && recall[NUMBER_IN_STATEID + 8..NUMBER_IN_FILE_HANDLE]
                    == expected[NUMBER_IN_STATEID + 8..NUMBER_IN_FILE_HANDLE]
                && recall[NUMBER_IN_FILE_HANDLE..NUMBER_IN_FILE_HANDLE + 8] == *number
                && recall[NUMBER_IN_FILE_HANDLE + 8..] == expected[NUMBER_IN_FILE_HANDLE + 8..]
        });
        let called = Called {
            xid: get(record, XID),
            slot: get(record, SESSION_SLOT),
            sequence_id: get(record, SEQUENCE_ID),
            highest: get(record, HIGHEST),
            recalls,
        };
        (head && body).then_some(called)
    }

    /// Appends the reply to a call: everything is fine.
    pub fn reply(&self, called: &Called, highest: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + REPLY_BYTES + RESULT_BYTES * (called.recalls as usize - 1), 0);
        let reply = &mut out[start..];
        let len = reply.len();
        put(reply, 0, record::LAST_FRAGMENT | (len - record::MARK_BYTES) as u32);
        put(reply, XID, called.xid);
        put(reply, 8, 1);
        put(reply, REPLY_COUNT, 1 + called.recalls);
        put(reply, 40, CallbackOp::Sequence as u32);
        reply[48..REPLY_SEQUENCE_ID].copy_from_slice(&self.call[SEQUENCE_ID - 16..SEQUENCE_ID]);
        put(reply, REPLY_SEQUENCE_ID, called.sequence_id);
        put(reply, REPLY_SESSION_SLOT, called.slot);
        put(reply, 72, highest);
        put(reply, 76, highest);
        for result in reply[RESULTS..].chunks_exact_mut(RESULT_BYTES) {
            put(result, 0, CallbackOp::Recall as u32);
        }
    }
}

/// A call, as the swarm sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// Its xid.
    pub xid: u32,
    /// Its session slot.
    pub slot: u32,
    /// Its sequence id.
    pub sequence_id: u32,
    /// csa_highest_slotid.
    pub highest: u32,
    /// CB_RECALLs in it.
    pub recalls: u32,
}

/// The length of the record that `bytes` begin with, mark included, if its mark is there.
pub fn record_bytes(bytes: &[u8]) -> Option<usize> {
    let mark = bytes.first_chunk::<4>()?;
    Some((u32::from_be_bytes(*mark) & !record::LAST_FRAGMENT) as usize + record::MARK_BYTES)
}

/// The xid of a reply that is fine, for peers that look no closer.
pub fn settled(reply: &[u8]) -> Option<u32> {
    let fine = reply.len() == REPLY_BYTES && get(reply, 28) == 0 && get(reply, 44) == 0 && get(reply, RESULTS + 4) == 0;
    fine.then(|| get(reply, XID))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn get(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringback_rpc::nfs4::callback::CbSequenceRes;

    #[test]
    fn a_patched_call_is_what_the_codec_reads() {
        let call = Template::new(7).call(0xabcd, 3, 9, 5, 77);
        let mut r = Reader::new(&call[record::MARK_BYTES..]);
        assert_eq!(CallHeader::decode(&mut r).unwrap().xid, 0xabcd);
        assert_eq!(CbCompoundArgs::decode(&mut r).unwrap().count, 2);
        let Ok(CbArgs::Sequence(sequence)) = CbArgs::decode(&mut r) else { panic!("CB_SEQUENCE") };
        assert_eq!((sequence.slot_id, sequence.sequence_id, sequence.highest_slot_id), (3, 9, 5));
        assert_eq!(sequence.session_id, session_id(7));
        let Ok(CbArgs::Recall(recall)) = CbArgs::decode(&mut r) else { panic!("CB_RECALL") };
        assert_eq!(recall.stateid.other[4..], 77_u64.to_be_bytes());
        r.finish("the call").unwrap();
        let mut space = [0; CALL_BYTES];
        let called = Called { xid: 0xabcd, slot: 3, sequence_id: 9, highest: 5, recalls: 1 };
        encode_call(7, &called, 77, &mut Writer::new(&mut space)).unwrap();
        assert_eq!(space, call);
        let mut w = Writer::new(&mut space);
        Template::new(7).encode_recall(77, &mut w).unwrap();
        assert_eq!(w.written(), &call[RECALL + 4..]);
    }

    #[test]
    fn the_swarm_takes_this_session_s_calls_only() {
        let template = Template::new(7);
        let call = template.call(1, 2, 3, 4, 5);
        let called = Called { xid: 1, slot: 2, sequence_id: 3, highest: 4, recalls: 1 };
        assert_eq!(template.check(&call), Some(called));
        assert_eq!(Template::new(8).check(&call), None, "another session");
        assert_eq!(template.check(&call[..CALL_BYTES - 4]), None, "cut off");
        let free = [XID..XID + 4, SEQUENCE_ID..HIGHEST + 4];
        for at in (0..CALL_BYTES).filter(|at| !free.iter().any(|f| f.contains(at))) {
            let mut other = call;
            other[at] ^= 1;
            assert_eq!(template.check(&other), None, "byte {at}");
        }
    }

    #[test]
    fn a_reply_is_what_the_codec_reads() {
        let called = Called { xid: 1, slot: 2, sequence_id: 3, highest: 4, recalls: 2 };
        let mut out = Vec::new();
        Template::new(7).reply(&called, 31, &mut out);
        assert_eq!(record_bytes(&out), Some(out.len()));
        let mut r = Reader::new(&out[record::MARK_BYTES..]);
        assert_eq!(ReplyHeader::decode(&mut r).unwrap(), ReplyHeader::success(1));
        let head = CbCompoundRes::decode(&mut r).unwrap();
        assert_eq!((head.status.is_ok(), head.count), (true, 3));
        let Ok(CbRes::Sequence(Ok(sequence))) = CbRes::decode(&mut r) else { panic!("CB_SEQUENCE") };
        let expected = CbSequenceRes {
            session_id: session_id(7),
            sequence_id: 3,
            slot_id: 2,
            highest_slot_id: 31,
            target_highest_slot_id: 31,
        };
        assert_eq!(sequence, expected);
        for _ in 0..2 {
            assert!(CbRes::decode(&mut r).unwrap().status().is_ok());
        }
        r.finish("the reply").unwrap();
        out.clear();
        Template::new(7).reply(&Called { recalls: 1, ..called }, 31, &mut out);
        assert_eq!((settled(&out), decode_reply(&out[record::MARK_BYTES..])), (Some(1), Ok((1, true))));
        out[RESULTS + RESULT_BYTES - 1] = 1;
        assert_eq!((settled(&out), decode_reply(&out[record::MARK_BYTES..])), (None, Ok((1, false))), "NFS4ERR_PERM");
    }
}
