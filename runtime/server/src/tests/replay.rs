//! SEQUENCE: session slots, retries, limits.

use super::*;

fn with(sequence: SequenceArgs, ops: &[OpArgs<'static>]) -> Vec<OpArgs<'static>> {
    let mut all = vec![OpArgs::Sequence(sequence)];
    all.extend_from_slice(ops);
    all
}

const OPS: [OpArgs<'static>; 2] = [OpArgs::PutRootFh, OpArgs::GetFh];

#[test]
fn a_retry_gets_the_kept_reply_and_is_not_executed() {
    let world = World::new();
    let mut peer = world.client("a");
    let sequence = SequenceArgs { cache_this: true, ..peer.sequence_args() };
    let args = OpenArgs { how: OpenHow::Guarded(Fattr::NONE), ..peer.open_args(b"new", share_access::READ, true) };
    let ops = [OpArgs::Sequence(sequence), OpArgs::PutRootFh, OpArgs::Open(args)];
    let first = peer.bare(&ops);
    assert_eq!(first.status(), Status::NFS4_OK);
    // Another connection, another xid: the same answer under the new xid.
    let mut record = peer.record(&ops);
    record[..4].copy_from_slice(&99u32.to_be_bytes());
    let retry = peer.send(&record);
    assert_eq!(retry.0[..4], 99u32.to_be_bytes());
    assert_eq!(retry.0[4..], first.0[4..]);
    assert_eq!(world.server.files(), 1);
    peer.next += 1;
    assert_eq!(peer.call(&[]).status(), Status::NFS4_OK);
}

#[test]
fn a_reply_that_was_not_kept_is_said_so() {
    let world = World::new();
    let mut peer = world.client("a");
    let sequence = peer.sequence_args();
    assert_eq!(peer.call(&OPS).status(), Status::NFS4_OK);
    let retry = peer.bare(&with(sequence, &OPS));
    let (status, results) = retry.compound();
    assert_eq!(status, Status::NFS4ERR_RETRY_UNCACHED_REP);
    assert!(matches!(results[0], OpRes::Sequence(Ok(_))));
    assert_eq!((results.len(), results[1].op()), (2, Op::PUTROOTFH));
    let sequence = peer.sequence_args();
    assert_eq!(peer.call(&[]).status(), Status::NFS4_OK);
    assert_eq!(peer.bare(&with(sequence, &[])).status(), Status::NFS4_OK, "a lone SEQUENCE says the same again");
}

#[test]
fn slots_and_sequence_ids_are_checked() {
    let world = World::new();
    let mut peer = world.client("a");
    let good = peer.sequence_args();
    let cases = [
        (SequenceArgs { session_id: SessionId([7; 16]), ..good }, Status::NFS4ERR_BADSESSION),
        (SequenceArgs { slot_id: 16, highest_slot_id: 16, ..good }, Status::NFS4ERR_BADSLOT),
        (SequenceArgs { highest_slot_id: 16, ..good }, Status::NFS4ERR_BAD_HIGH_SLOT),
        (SequenceArgs { sequence_id: good.sequence_id + 1, ..good }, Status::NFS4ERR_SEQ_MISORDERED),
        (SequenceArgs { slot_id: 1, highest_slot_id: 1, sequence_id: 2, ..good }, Status::NFS4ERR_SEQ_MISORDERED),
    ];
    for (sequence, status) in cases {
        assert_eq!(peer.bare(&with(sequence, &[])).status(), status);
    }
    assert_eq!(peer.call(&OPS).status(), Status::NFS4_OK, "none of them moved the slot");
    let other = [OpArgs::PutRootFh];
    assert_eq!(peer.bare(&with(good, &other)).status(), Status::NFS4ERR_SEQ_FALSE_RETRY);
}

#[test]
fn the_limits_of_the_session_hold() {
    let world = World::new();
    let mut peer = world.stranger("a");
    let (id, sequence, _) = peer.exchange_id(0).unwrap();
    peer.client_id = id;
    let mut args = peer.create_session_args(sequence);
    args.fore_channel.operations_max = 4;
    args.fore_channel.request_bytes_max = 512;
    args.fore_channel.response_bytes_max = 512;
    args.fore_channel.response_bytes_max_cached = 200;
    peer.session = peer.create_session(&args).unwrap().session_id;
    let many = vec![OpArgs::PutRootFh; 4];
    assert_eq!(peer.bare(&with(peer.sequence_args(), &many)).status(), Status::NFS4ERR_TOO_MANY_OPS);
    let name = [b'n'; 400];
    let lookup = OpArgs::Lookup(LookupArgs { name: &name });
    let ops = [OpArgs::Sequence(peer.sequence_args()), OpArgs::PutRootFh, lookup];
    assert_eq!(peer.bare(&ops).status(), Status::NFS4ERR_REQ_TOO_BIG);
    let all = OpArgs::GetAttr(GetAttrArgs { request: everything() });
    assert_eq!(peer.call(&[OpArgs::PutRootFh, all, all]).status(), Status::NFS4ERR_REP_TOO_BIG);
    let cached = SequenceArgs { cache_this: true, ..peer.sequence_args() };
    let reply = peer.bare(&with(cached, &[OpArgs::PutRootFh, all]));
    assert_eq!(reply.status(), Status::NFS4ERR_REP_TOO_BIG_TO_CACHE);
    assert!(reply.0.len() <= 200);
    peer.next += 1;
    let cached = SequenceArgs { cache_this: true, ..peer.sequence_args() };
    let few = peer.bare(&with(cached, &[OpArgs::PutRootFh, OpArgs::GetFh]));
    assert_eq!(few.status(), Status::NFS4_OK, "what fits is not refused");
}
