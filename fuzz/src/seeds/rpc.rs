//! Seeds of record marking and of RPC headers.

use super::{Seed, seed, written};
use ringback_rpc::message::{AcceptStatus, AuthStatus, AuthSys, CallHeader, OpaqueAuth, Rejected, ReplyBody};
use ringback_rpc::message::{ReplyHeader, flavor};
use ringback_rpc::record::LAST_FRAGMENT;
use ringback_rpc::xdr::Encode;

fn fragment(last: bool, bytes: &[u8]) -> Vec<u8> {
    let mark = bytes.len() as u32 | if last { LAST_FRAGMENT } else { 0 };
    [&mark.to_be_bytes()[..], bytes].concat()
}

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    records(seeds);
    calls(seeds);
    replies(seeds);
}

fn records(seeds: &mut Vec<Seed>) {
    let mut add = |name: &str, cut: u8, fragments: &[Vec<u8>]| {
        seeds.push(seed("record", name, [&[cut], &fragments.concat()[..]].concat()));
    };
    add("one", 2, &[fragment(true, b"a whole record")]);
    add("three", 0, &[fragment(true, b"first"), fragment(true, b""), fragment(true, b"third")]);
    add("fragments", 6, &[fragment(false, b"in "), fragment(false, b""), fragment(true, b"pieces")]);
    add("empty", 0, &[fragment(false, b""), fragment(true, b"")]);
    add("unfinished", 3, &[fragment(true, b"done"), fragment(false, b"more"), vec![0x80, 0]]);
    add("long", 40, &[fragment(false, &[7; 600]), fragment(true, &[8; 400]), fragment(true, b"next")]);
    add("too_long", 40, &[fragment(true, b"fine"), fragment(false, &[7; 600]), fragment(true, &[8; 401])]);
    add("promise", 255, &[fragment(true, b"fine"), vec![0xff, 0xff, 0xff, 0xff, 1, 2, 3]]);
}

fn calls(seeds: &mut Vec<Seed>) {
    let credential = AuthSys::new(7, b"client.example", 1000, 100, &[4, 24, 27]).expect("three groups");
    let body = written(|w| credential.encode(w));
    let sys = OpaqueAuth { flavor: flavor::AUTH_SYS, body: &body };
    let gss = OpaqueAuth { flavor: flavor::RPCSEC_GSS, body: &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1] };
    for (name, credential, verifier) in [
        ("call_none", OpaqueAuth::NONE, OpaqueAuth::NONE),
        ("call_sys", sys, OpaqueAuth::NONE),
        ("call_gss", gss, OpaqueAuth { flavor: flavor::RPCSEC_GSS, body: b"checksum!" }),
    ] {
        let call = CallHeader { xid: 0x1234, program: 0x4000_0000, version: 1, procedure: 1, credential, verifier };
        seeds.push(seed("rpc_header", name, written(|w| call.encode(w))));
    }
    seeds.push(seed("rpc_header", "auth_sys", body));
}

fn replies(seeds: &mut Vec<Seed>) {
    let mut add = |name: &str, body: ReplyBody<'_>| {
        let reply = ReplyHeader { xid: 0x1234, body };
        seeds.push(seed("rpc_header", format!("reply_{name}"), written(|w| reply.encode(w))));
    };
    for (name, status) in [
        ("success", AcceptStatus::Success),
        ("prog_unavail", AcceptStatus::ProgUnavail),
        ("prog_mismatch", AcceptStatus::ProgMismatch { low: 1, high: 4 }),
        ("proc_unavail", AcceptStatus::ProcUnavail),
        ("garbage_args", AcceptStatus::GarbageArgs),
        ("system_err", AcceptStatus::SystemErr),
    ] {
        add(name, ReplyBody::Accepted { verifier: OpaqueAuth::NONE, status });
    }
    add("rpc_mismatch", ReplyBody::Denied(Rejected::RpcMismatch { low: 2, high: 2 }));
    add("auth_too_weak", ReplyBody::Denied(Rejected::AuthError(AuthStatus::TooWeak)));
    add("gss_cred_problem", ReplyBody::Denied(Rejected::AuthError(AuthStatus::GssCredProblem)));
}
