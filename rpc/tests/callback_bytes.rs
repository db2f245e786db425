//! A whole callback, call and reply, against bytes written down by hand from the RFCs' XDR: encoder and decoder cannot
//! be wrong together.

use ringback_rpc::message::{AuthSys, CallHeader, OpaqueAuth, ReplyHeader, flavor};
use ringback_rpc::nfs4::callback::{
    CB_COMPOUND, CbArgs, CbCompoundArgs, CbCompoundRes, CbRecallArgs, CbRes, CbSequenceArgs, CbSequenceRes, NFS_CB,
    ReferringCall, ReferringCallList,
};
use ringback_rpc::nfs4::{FileHandle, List, SessionId, Stateid4, Status};
use ringback_rpc::xdr::{Decode, Encode, Reader, Result, Writer};

/// One line of hex words each, as `xxd -p` would print them.
fn hex(lines: &[&str]) -> Vec<u8> {
    let digits: Vec<u32> = lines.concat().chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn written(write: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Vec<u8> {
    let mut space = [0; 4096];
    let mut w = Writer::new(&mut space);
    write(&mut w).unwrap();
    w.written().to_vec()
}

const SESSION: SessionId = SessionId(*b"0123456789abcdef");

fn call_bytes() -> Vec<u8> {
    hex(&[
        "a1b2c3d4 00000000 00000002",          // xid, CALL, RPC version 2
        "40000000 00000001 00000001",          // program, version 1, CB_COMPOUND
        "00000001 0000001c",                   // AUTH_SYS, 28 bytes
        "00000007 00000002 68690000",          // stamp, machine name "hi"
        "000003e8 00000064 00000001 00000065", // uid 1000, gid 100, one group: 101
        "00000000 00000000",                   // verifier: AUTH_NONE
        "00000003 61626300",                   // tag "abc"
        "00000001 00000000 00000002",          // minor version 1, callback_ident 0, two operations
        "0000000b",                            // CB_SEQUENCE
        "30313233 34353637 38396162 63646566", // session id
        "0000002a 00000003 00000005 00000000", // sequence id 42, slot 3, highest slot 5, do not cache
        "00000001",                            // one referring call list
        "30313233 34353637 38396162 63646566", // its session id
        "00000002",                            // two calls
        "00000009 00000001",                   // sequence id 9, slot 1
        "0000000a 00000000",                   // sequence id 10, slot 0
        "00000004",                            // CB_RECALL
        "00000001 01020304 05060708 090a0b0c", // stateid
        "00000001",                            // truncate
        "00000005 aabbccdd ee000000",          // filehandle of five bytes
    ])
}

#[test]
fn a_recall_with_its_sequence_has_the_bytes_of_the_rfc() {
    let bytes = call_bytes();
    let credential = AuthSys::new(7, b"hi", 1000, 100, &[101]).unwrap();
    let credential = written(|w| credential.encode(w));
    let header = CallHeader {
        xid: 0xa1b2_c3d4,
        program: 0x4000_0000,
        version: NFS_CB,
        procedure: CB_COMPOUND,
        credential: OpaqueAuth { flavor: flavor::AUTH_SYS, body: &credential },
        verifier: OpaqueAuth::NONE,
    };
    let compound = CbCompoundArgs { tag: b"abc", minor_version: 1, callback_ident: 0, count: 2 };
    let calls = [ReferringCall { sequence_id: 9, slot_id: 1 }, ReferringCall { sequence_id: 10, slot_id: 0 }];
    let lists = [ReferringCallList { session_id: SESSION, calls: List::Slice(&calls) }];
    let sequence = CbArgs::Sequence(CbSequenceArgs {
        session_id: SESSION,
        sequence_id: 42,
        slot_id: 3,
        highest_slot_id: 5,
        cache_this: false,
        referring_call_lists: List::Slice(&lists),
    });
    let recall = CbArgs::Recall(CbRecallArgs {
        stateid: Stateid4 { seqid: 1, other: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] },
        truncate: true,
        fh: FileHandle::new(&[0xaa, 0xbb, 0xcc, 0xdd, 0xee]).unwrap(),
    });
    let encoded = written(|w| {
        header.encode(w)?;
        compound.encode(w)?;
        sequence.encode(w)?;
        recall.encode(w)
    });
    assert_eq!(encoded, bytes);

    let mut r = Reader::new(&bytes);
    assert_eq!(CallHeader::decode(&mut r).unwrap(), header);
    assert_eq!(CbCompoundArgs::decode(&mut r).unwrap(), compound);
    assert_eq!(CbArgs::decode(&mut r).unwrap(), sequence);
    assert_eq!(CbArgs::decode(&mut r).unwrap(), recall);
    r.finish("record").unwrap();
}

#[test]
fn the_answer_to_a_recall_has_the_bytes_of_the_rfc() {
    let bytes = hex(&[
        "a1b2c3d4 00000001 00000000",          // xid, REPLY, MSG_ACCEPTED
        "00000000 00000000 00000000",          // verifier: AUTH_NONE; SUCCESS
        "00002729 00000003 61626300 00000002", // NFS4ERR_BAD_STATEID, tag, two results
        "0000000b 00000000",                   // CB_SEQUENCE, NFS4_OK
        "30313233 34353637 38396162 63646566", // session id
        "0000002a 00000003 0000000f 00000007", // sequence id, slot, highest slot 15, target 7
        "00000004 00002729",                   // CB_RECALL, NFS4ERR_BAD_STATEID
    ]);
    let header = ReplyHeader::success(0xa1b2_c3d4);
    let compound = CbCompoundRes { status: Status::NFS4ERR_BAD_STATEID, tag: b"abc", count: 2 };
    let sequence = CbRes::Sequence(Ok(CbSequenceRes {
        session_id: SESSION,
        sequence_id: 42,
        slot_id: 3,
        highest_slot_id: 15,
        target_highest_slot_id: 7,
    }));
    let recall = CbRes::Recall(Status::NFS4ERR_BAD_STATEID);
    let encoded = written(|w| {
        header.encode(w)?;
        compound.encode(w)?;
        sequence.encode(w)?;
        recall.encode(w)
    });
    assert_eq!(encoded, bytes);

    let mut r = Reader::new(&bytes);
    assert_eq!(ReplyHeader::decode(&mut r).unwrap(), header);
    assert_eq!(CbCompoundRes::decode(&mut r).unwrap(), compound);
    assert_eq!(CbRes::decode(&mut r).unwrap(), sequence);
    assert_eq!(CbRes::decode(&mut r).unwrap(), recall);
    r.finish("record").unwrap();
}

#[test]
fn a_cut_call_is_an_error_at_every_byte() {
    let bytes = call_bytes();
    for cut in 0..bytes.len() {
        let mut r = Reader::new(&bytes[..cut]);
        let whole = CallHeader::decode(&mut r).and_then(|_| {
            let compound = CbCompoundArgs::decode(&mut r)?;
            (0..compound.count).try_for_each(|_| CbArgs::decode(&mut r).map(|_| ()))
        });
        assert!(whole.is_err(), "cut at {cut}");
    }
}
