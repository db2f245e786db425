//! What a server must survive.

use super::*;
use proptest::prelude::*;

fn raw(peer: &Peer<'_>, header: &CallHeader<'_>, body: &[u8]) -> ReplyHeader<'static> {
    let mut record = encode(&[header]);
    record.extend_from_slice(body);
    let reply = peer.send(&record);
    let decoded = ReplyHeader::decode(&mut Reader::new(&reply.0)).unwrap();
    match decoded.body {
        ReplyBody::Accepted { status, .. } => ReplyHeader::accepted(decoded.xid, status),
        ReplyBody::Denied(why) => ReplyHeader { xid: decoded.xid, body: ReplyBody::Denied(why) },
    }
}

const GOOD: CallHeader<'static> = CallHeader {
    xid: 3,
    program: NFS4_PROGRAM,
    version: NFS_V4,
    procedure: PROCEDURE_NULL,
    credential: OpaqueAuth::NONE,
    verifier: OpaqueAuth::NONE,
};

#[test]
fn calls_that_are_not_ours_get_the_error_of_rpc() {
    use ringback_rpc::message::{AuthStatus, Rejected};
    let world = World::new();
    let peer = world.stranger("a");
    let accepted = |status| ReplyHeader::accepted(3, status);
    let denied = |status| ReplyHeader { xid: 3, body: ReplyBody::Denied(Rejected::AuthError(status)) };
    assert_eq!(raw(&peer, &GOOD, b""), ReplyHeader::success(3));
    assert_eq!(raw(&peer, &CallHeader { program: 5, ..GOOD }, b""), accepted(AcceptStatus::ProgUnavail));
    let mismatch = AcceptStatus::ProgMismatch { low: 4, high: 4 };
    assert_eq!(raw(&peer, &CallHeader { version: 3, ..GOOD }, b""), accepted(mismatch));
    assert_eq!(raw(&peer, &CallHeader { procedure: 2, ..GOOD }, b""), accepted(AcceptStatus::ProcUnavail));
    let compound = CallHeader { procedure: PROCEDURE_COMPOUND, ..GOOD };
    for body in [&b""[..], b"\0\0\xff\xff", b"\0\0\0\0\0\0\0\x01\xff\xff\xff\xff"] {
        assert_eq!(raw(&peer, &compound, body), accepted(AcceptStatus::GarbageArgs));
    }
    let auth = |flavor, body| OpaqueAuth { flavor, body };
    let sys = CallHeader { credential: auth(flavor::AUTH_SYS, &[0, 1, 2]), ..GOOD };
    assert_eq!(raw(&peer, &sys, b""), denied(AuthStatus::BadCred));
    let gss = CallHeader { credential: auth(flavor::RPCSEC_GSS, &[]), ..GOOD };
    assert_eq!(raw(&peer, &gss, b""), denied(AuthStatus::RejectedCred));
    let verifier = CallHeader { verifier: auth(flavor::AUTH_SYS, &[]), ..GOOD };
    assert_eq!(raw(&peer, &verifier, b""), denied(AuthStatus::BadVerf));
    let mut record = encode(&[&GOOD]);
    record[11] = 3;
    let reply = peer.send(&record);
    let versions = Rejected::RpcMismatch { low: 2, high: 2 };
    assert_eq!(ReplyHeader::decode(&mut Reader::new(&reply.0)).unwrap().body, ReplyBody::Denied(versions));
}

#[test]
fn what_has_no_xid_or_is_a_reply_gets_no_answer() {
    let world = World::new();
    let peer = world.stranger("a");
    let mut space = [0; 100];
    for record in [&b""[..], b"\0\0", b"\0\0\0\x01\0\0\0\x01\0\0\0\0"] {
        let mut w = Writer::new(&mut space);
        assert!(world.inner().handle(peer.connection, 0, record, &mut w).is_err());
        assert_eq!(w.position(), 0);
    }
}

#[test]
fn operations_out_of_place() {
    let world = World::new();
    let mut peer = world.client("a");
    let sequence = OpArgs::Sequence(peer.sequence_args());
    let illegal = OpArgs::Other(Op(9999));
    assert_eq!(peer.bare(&[OpArgs::PutRootFh]).status(), Status::NFS4ERR_OP_NOT_IN_SESSION);
    assert_eq!(peer.bare(&[OpArgs::Other(Op::READ)]).status(), Status::NFS4ERR_OP_NOT_IN_SESSION);
    assert_eq!(peer.bare(&[illegal]).last(), OpRes::Other(Op::ILLEGAL, Status::NFS4ERR_OP_ILLEGAL));
    assert_eq!(peer.bare(&[]).status(), Status::NFS4_OK);
    let two = [peer.exchange_id_args(0), OpArgs::PutRootFh];
    assert_eq!(peer.bare(&two).status(), Status::NFS4ERR_NOT_ONLY_OP);
    assert_eq!(peer.call(&[sequence]).status(), Status::NFS4ERR_SEQUENCE_POS);
    for op in [Op::GETDEVICELIST, Op::OPENATTR, Op::DELEGPURGE, Op::SET_SSV] {
        assert_eq!(peer.call(&[OpArgs::Other(op)]).last(), OpRes::Other(op, Status::NFS4ERR_NOTSUPP));
    }
    // Those of minor version 0 alone.
    let client_id = ClientId4(7);
    let confirm = SetClientIdConfirmArgs { client_id, confirm: Verifier4::default() };
    let open_confirm = OpenConfirmArgs { open_stateid: Stateid4::CURRENT, seqid: 1 };
    for args in
        [OpArgs::Renew(RenewArgs { client_id }), OpArgs::SetClientIdConfirm(confirm), OpArgs::OpenConfirm(open_confirm)]
    {
        assert_eq!(peer.call(&[args]).status(), Status::NFS4ERR_NOTSUPP);
    }
    for op in [Op(0), Op(2), Op::ALLOCATE, Op(70_000), Op::ILLEGAL] {
        let reply = peer.call(&[OpArgs::Other(op)]);
        assert_eq!(reply.last(), OpRes::Other(Op::ILLEGAL, Status::NFS4ERR_OP_ILLEGAL));
    }
    let bind = BindConnToSessionArgs { session_id: peer.session, direction: BindDirection::Fore, rdma: false };
    assert_eq!(peer.call(&[OpArgs::BindConnToSession(bind)]).status(), Status::NFS4ERR_NOT_ONLY_OP);
}

#[test]
fn malformed_arguments_end_the_compound_where_they_stand() {
    let world = World::new();
    let mut peer = world.client("a");
    // A LOOKUP whose name is longer than the record.
    let lookup = OpArgs::Lookup(LookupArgs { name: b"name" });
    let mut record = peer.record(&[OpArgs::Sequence(peer.sequence_args()), OpArgs::PutRootFh, lookup]);
    let at = record.len() - 8;
    record[at..at + 4].copy_from_slice(&900u32.to_be_bytes());
    let reply = peer.send(&record);
    assert_eq!(reply.last(), OpRes::Lookup(Err(Status::NFS4ERR_BADXDR)));
    assert_eq!(reply.compound().1.len(), 3);
    peer.next += 1;
    assert_eq!(peer.call(&[]).status(), Status::NFS4_OK, "the session slot is free again");
    // Operations that the head promises and the record does not hold.
    let ops = [OpArgs::Sequence(peer.sequence_args()), OpArgs::PutRootFh, OpArgs::GetFh];
    let record = peer.record(&ops);
    let reply = peer.send(&record[..record.len() - 4]);
    assert_eq!(reply.status(), Status::NFS4ERR_BADXDR);
    peer.next += 1;
    let mut record = peer.record(&[OpArgs::PutRootFh]);
    let minor = record.len() - 12;
    for not_served in [3, 4] {
        record[minor + 3] = not_served;
        let reply = peer.send(&record);
        assert_eq!((reply.status(), reply.compound().1.len()), (Status::NFS4ERR_MINOR_VERS_MISMATCH, 0));
    }
}

#[test]
fn protections_that_are_not_served_are_refused() {
    let world = World::new();
    let peer = world.stranger("a");
    let OpArgs::ExchangeId(args) = peer.exchange_id_args(0) else { panic!() };
    let ops = StateProtectOps { must_enforce: Bitmap4::EMPTY, must_allow: Bitmap4::EMPTY };
    let mach = ExchangeIdArgs { state_protect: StateProtectArgs::MachCred(ops), ..args };
    assert_eq!(peer.bare(&[OpArgs::ExchangeId(mach)]).status(), Status::NFS4ERR_INVAL);
    assert_eq!(peer.exchange_id(exchange_id_flag::CONFIRMED_R), Err(Status::NFS4ERR_INVAL));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_record_makes_the_server_panic(records in proptest::collection::vec((any::<u16>(), any::<u8>(), 0usize..600), 200)) {
        let world = World::new();
        let mut peer = world.client("a");
        let (stateid, handle) = peer.take_delegation("f");
        let give_back = OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: stateid });
        let mut space = vec![0; world.inner().reply_bytes_max()];
        for (at, value, len) in records {
            let sequence = OpArgs::Sequence(peer.sequence_args());
            let open = OpArgs::Open(peer.open_args(b"f", share_access::WRITE, true));
            let session = OpArgs::CreateSession(peer.create_session_args(2));
            let ops = [sequence, OpArgs::PutRootFh, open, Peer::put_fh(&handle), give_back, session];
            let mut record = peer.record(&ops[..1 + at as usize % 6]);
            // One byte is wrong, and the end may be missing.
            let wrong = at as usize % record.len();
            record[wrong] ^= value;
            record.truncate(len.max(40));
            let mut w = Writer::new(&mut space);
            let _ = world.inner().handle(peer.connection, 0, &record, &mut w);
            peer.next += 1;
        }
    }
}
