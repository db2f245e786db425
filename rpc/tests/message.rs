//! RPC messages: every reply status, every auth status, both directions, and what must be refused.

mod strategies;

use proptest::prelude::*;
use ringback_rpc::message::{
    self, AUTH_BODY_BYTES_MAX, AcceptStatus, AuthStatus, AuthSys, CallHeader, MessageType, OpaqueAuth, Rejected,
    ReplyBody, ReplyHeader, flavor,
};
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer, XdrErrorKind};

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}

fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut space = [0; 2048];
    let mut w = Writer::new(&mut space);
    value.encode(&mut w).unwrap();
    w.written().to_vec()
}

fn reply_is(body: ReplyBody<'_>, wire: &[u32]) {
    let reply = ReplyHeader { xid: 0x0102_0304, body };
    let bytes = words(&[&[0x0102_0304, 1], wire].concat());
    assert_eq!(encoded(&reply), bytes, "{body:?}");
    let mut r = Reader::new(&bytes);
    assert_eq!(ReplyHeader::decode(&mut r), Ok(reply));
    assert_eq!(r.finish("reply"), Ok(()));
    for cut in 0..bytes.len() {
        assert!(ReplyHeader::decode(&mut Reader::new(&bytes[..cut])).is_err(), "{body:?} cut at {cut}");
    }
}

#[test]
fn every_accept_status_has_its_number() {
    let statuses = [
        (AcceptStatus::Success, &[0][..]),
        (AcceptStatus::ProgUnavail, &[1]),
        (AcceptStatus::ProgMismatch { low: 1, high: 4 }, &[2, 1, 4]),
        (AcceptStatus::ProcUnavail, &[3]),
        (AcceptStatus::GarbageArgs, &[4]),
        (AcceptStatus::SystemErr, &[5]),
    ];
    for (status, wire) in statuses {
        let accepted = ReplyBody::Accepted { verifier: OpaqueAuth::NONE, status };
        reply_is(accepted, &[&[0, 0, 0], wire].concat());
        assert_eq!(ReplyHeader::accepted(7, status), ReplyHeader { xid: 7, body: accepted });
    }
}

#[test]
fn every_rejection_has_its_number() {
    reply_is(ReplyBody::Denied(Rejected::RpcMismatch { low: 2, high: 2 }), &[1, 0, 2, 2]);
    let statuses = [
        AuthStatus::Ok,
        AuthStatus::BadCred,
        AuthStatus::RejectedCred,
        AuthStatus::BadVerf,
        AuthStatus::RejectedVerf,
        AuthStatus::TooWeak,
        AuthStatus::InvalidResp,
        AuthStatus::Failed,
        AuthStatus::KerbGeneric,
        AuthStatus::TimeExpire,
        AuthStatus::TktFile,
        AuthStatus::Decode,
        AuthStatus::NetAddr,
        AuthStatus::GssCredProblem,
        AuthStatus::GssCtxProblem,
    ];
    for (number, status) in (0u32..).zip(statuses) {
        reply_is(ReplyBody::Denied(Rejected::AuthError(status)), &[1, 1, number]);
    }
}

#[test]
fn undefined_discriminants_are_refused_where_they_stand() {
    let replies: [(&[u32], &str); 6] = [
        (&[9, 2], "msg_type at offset 4: value 2 is not defined here"),
        (&[9, 1, 2], "reply_stat at offset 8: value 2 is not defined here"),
        (&[9, 1, 0, 0, 0, 6], "accept_stat at offset 20: value 6 is not defined here"),
        (&[9, 1, 1, 2], "reject_stat at offset 12: value 2 is not defined here"),
        (&[9, 1, 1, 1, 15], "auth_stat at offset 16: value 15 is not defined here"),
        (&[9, 0], "msg_type at offset 4: value 0 is not defined here"),
    ];
    for (wire, expected) in replies {
        let bytes = words(wire);
        assert_eq!(ReplyHeader::decode(&mut Reader::new(&bytes)).unwrap_err().to_string(), expected);
    }
    let bytes = words(&[9, 0, 3, 100_003, 4, 1, 0, 0, 0, 0]);
    let error = CallHeader::decode(&mut Reader::new(&bytes)).unwrap_err();
    assert_eq!(error.to_string(), "rpcvers at offset 8: value 3 is not defined here");
    assert!(CallHeader::decode(&mut Reader::new(&words(&[9, 1]))).is_err(), "a reply is not a call");
}

#[test]
fn a_call_has_the_bytes_of_the_rfc() {
    let call = CallHeader {
        xid: 1,
        program: 100_003,
        version: 4,
        procedure: 0,
        credential: OpaqueAuth { flavor: flavor::RPCSEC_GSS, body: &[1, 2, 3, 4, 5] },
        verifier: OpaqueAuth::NONE,
    };
    let bytes = words(&[1, 0, 2, 100_003, 4, 0, 6, 5, 0x0102_0304, 0x0500_0000, 0, 0]);
    assert_eq!(encoded(&call), bytes);
    assert_eq!(CallHeader::decode(&mut Reader::new(&bytes)), Ok(call));
    assert_eq!(message::peek(&bytes), Ok((1, MessageType::Call)));
    assert_eq!(message::peek(&encoded(&ReplyHeader::success(5))), Ok((5, MessageType::Reply)));
    assert!(message::peek(&bytes[..7]).is_err());
}

#[test]
fn limits_of_authentication_hold() {
    let body = [0; AUTH_BODY_BYTES_MAX];
    let auth = OpaqueAuth { flavor: 390_000, body: &body };
    assert_eq!(OpaqueAuth::decode(&mut Reader::new(&encoded(&auth))), Ok(auth));
    let longer = OpaqueAuth { flavor: 1, body: &[0; AUTH_BODY_BYTES_MAX + 1] };
    assert!(longer.encode(&mut Writer::new(&mut [0; 1024])).is_err());
    let long = words(&[&[0, 404][..], &[0; 101]].concat());
    let error = OpaqueAuth::decode(&mut Reader::new(&long)).unwrap_err();
    assert_eq!(error.kind, XdrErrorKind::TooLong { length: 404, limit: 400 });

    assert!(AuthSys::new(0, b"", 0, 0, &[0; 17]).is_none());
    assert!(AuthSys::new(0, &[b'x'; 256], 0, 0, &[]).is_none());
    assert_eq!(AuthSys::new(0, b"", 0, 0, &[3; 16]).unwrap().gids(), [3; 16]);
    let gids = words(&[&[0, 0, 0, 0, 17][..], &[0; 17]].concat());
    let error = AuthSys::decode(&mut Reader::new(&gids)).unwrap_err();
    assert_eq!(error.to_string(), "authsys_parms.gids at offset 16: length 17 is over the limit of 16");
    let name = words(&[&[0, 256][..], &[0; 64 + 3]].concat());
    assert!(AuthSys::decode(&mut Reader::new(&name)).is_err());
}

proptest! {
    #[test]
    fn calls_and_credentials_come_back(
        numbers: (u32, u32, u32, u32),
        credential in strategies::auth_sys(),
        verifier_flavor: u32,
        verifier in strategies::bytes(AUTH_BODY_BYTES_MAX),
    ) {
        let body = encoded(&credential);
        let (xid, program, version, procedure) = numbers;
        let call = CallHeader {
            xid,
            program,
            version,
            procedure,
            credential: OpaqueAuth { flavor: flavor::AUTH_SYS, body: &body },
            verifier: OpaqueAuth { flavor: verifier_flavor, body: verifier },
        };
        let bytes = encoded(&call);
        let mut r = Reader::new(&bytes);
        let read = CallHeader::decode(&mut r).unwrap();
        prop_assert_eq!(read, call);
        prop_assert_eq!(r.finish("call"), Ok(()));
        prop_assert_eq!(AuthSys::decode(&mut Reader::new(read.credential.body)), Ok(credential));
    }

    #[test]
    fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..80), direction in 0u32..2) {
        let bytes = [&words(&[1, direction])[..], &bytes].concat();
        let _ = CallHeader::decode(&mut Reader::new(&bytes));
        let _ = ReplyHeader::decode(&mut Reader::new(&bytes));
        let _ = AuthSys::decode(&mut Reader::new(&bytes));
        let _ = message::peek(&bytes);
    }
}
