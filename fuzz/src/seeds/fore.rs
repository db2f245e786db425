//! Seeds of the fore channel.

use super::{Seed, seed, written};
use ringback_rpc::message::AuthSys;
use ringback_rpc::nfs4::fore::*;
use ringback_rpc::nfs4::{
    Bitmap4, CallbackSecParms, ChangeInfo4, ClientId4, Fattr, FileHandle, GssHandles, GssService, List, NfsAce4,
    NfsTime4, OpenDelegation4, OpenReadDelegation4, SessionId, StateOwner4, Stateid4, Status, Verifier4, attr,
};
use ringback_rpc::xdr::Encode;

const SESSION: SessionId = SessionId(*b"session no. 0001");
pub(super) const STATEID: Stateid4 = Stateid4 { seqid: 1, other: *b"delegation 1" };
pub(super) const VERIFIER: Verifier4 = Verifier4(*b"verifier");
pub(super) const CLIENT: ClientId4 = ClientId4(0x0102_0304_0506_0708);
const CHANNEL: ChannelAttrs = ChannelAttrs {
    header_pad_bytes: 0,
    request_bytes_max: 4096,
    response_bytes_max: 4096,
    response_bytes_max_cached: 0,
    operations_max: 2,
    requests_max: 16,
    rdma_ird: None,
};
pub(super) const SEQUENCE: SequenceArgs =
    SequenceArgs { session_id: SESSION, sequence_id: 1, slot_id: 0, highest_slot_id: 0, cache_this: true };

fn handle() -> FileHandle<'static> {
    FileHandle::new(b"filehandle").expect("below the limit")
}

fn opaque(bytes: &'static [u8]) -> Opaque4<'static> {
    Opaque4::new(bytes).expect("below the limit")
}

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    client_ids(seeds);
    client_ids_minor0(seeds);
    sessions(seeds);
    opens(seeds);
    replies(seeds);
}

pub(super) fn call(seeds: &mut Vec<Seed>, name: &str, operations: &[OpArgs<'_>]) {
    let header = CompoundArgs { tag: b"", minor_version: 1, count: operations.len() };
    let bytes = written(|w| {
        header.encode(w)?;
        operations.iter().try_for_each(|args| args.encode(w))
    });
    seeds.push(seed("fore", format!("call_{name}"), bytes));
}

pub(super) fn reply(seeds: &mut Vec<Seed>, name: &str, results: &[OpRes<'_>]) {
    let status = results.last().map_or(Status::NFS4_OK, OpRes::status);
    let header = CompoundRes { status, tag: b"", count: results.len() };
    let bytes = written(|w| {
        header.encode(w)?;
        results.iter().try_for_each(|res| res.encode(w))
    });
    seeds.push(seed("fore", format!("reply_{name}"), bytes));
}

fn client_ids(seeds: &mut Vec<Seed>) {
    let ops = StateProtectOps { must_enforce: Bitmap4::of(&[42, 43, 44]), must_allow: Bitmap4::of(&[8]) };
    let oids = [SecOid4 { der: &[0x2b, 6, 1] }, SecOid4 { der: &[] }];
    let ssv = SsvParams {
        ops,
        hash_algorithms: List::Slice(&oids),
        encryption_algorithms: List::Slice(&oids),
        window: 16,
        gss_handles: 1,
    };
    let impl_id = ImplId { domain: b"example.org", name: b"seed", date: NfsTime4 { seconds: 1, nseconds: 2 } };
    for (name, state_protect) in [
        ("none", StateProtectArgs::None),
        ("mach_cred", StateProtectArgs::MachCred(ops)),
        ("ssv", StateProtectArgs::Ssv(ssv)),
    ] {
        let client_owner = ClientOwner { verifier: VERIFIER, owner_id: opaque(b"owner") };
        let args = ExchangeIdArgs { client_owner, flags: 0x103, state_protect, impl_id: Some(impl_id) };
        call(seeds, &format!("exchange_id_{name}"), &[OpArgs::ExchangeId(args)]);
    }
    let handles = [GssHandle4 { handle: b"handle" }];
    let info = SsvInfo {
        ops,
        hash_algorithm: 1,
        encryption_algorithm: 2,
        ssv_bytes: 32,
        window: 16,
        handles: List::Slice(&handles),
    };
    for (name, state_protect) in [
        ("none", StateProtectOk::None),
        ("mach_cred", StateProtectOk::MachCred(ops)),
        ("ssv", StateProtectOk::Ssv(info)),
    ] {
        let ok = ExchangeIdOk {
            client_id: CLIENT,
            sequence_id: 1,
            flags: 0x1_0000,
            state_protect,
            server_owner: ServerOwner { minor_id: 0, major_id: opaque(b"server") },
            server_scope: opaque(b"scope"),
            impl_id: None,
        };
        reply(seeds, &format!("exchange_id_{name}"), &[OpRes::ExchangeId(Ok(ok))]);
    }
    let done = OpArgs::ReclaimComplete(ReclaimCompleteArgs { one_fs: false });
    call(seeds, "reclaim_complete", &[OpArgs::Sequence(SEQUENCE), done]);
    let destroy = DestroyClientIdArgs { client_id: CLIENT };
    call(seeds, "destroy_clientid", &[OpArgs::DestroyClientId(destroy)]);
}

/// SETCLIENTID and what follows it (RFC 7530 sections 16.28, 16.33 and 16.34). The minor version does not change how they read.
fn client_ids_minor0(seeds: &mut Vec<Seed>) {
    let client = NfsClientId { verifier: VERIFIER, id: opaque(b"owner") };
    for (netid, address) in [("tcp", "127.0.0.1.8.1"), ("tcp6", "::1.8.1")] {
        let location = NetAddr4::new(netid.as_bytes(), address.as_bytes()).expect("below the limit");
        let callback = CbClient { program: 0x4000_0000, location };
        let args = SetClientIdArgs { client, callback, callback_ident: 7 };
        call(seeds, &format!("setclientid_{netid}"), &[OpArgs::SetClientId(args)]);
    }
    let location = NetAddr4::new(b"tcp", b"127.0.0.1.3.255").expect("below the limit");
    reply(seeds, "setclientid_in_use", &[OpRes::SetClientId(Err(SetClientIdFailure::InUse(location)))]);
    reply(seeds, "setclientid", &[OpRes::SetClientId(Ok(SetClientIdOk { client_id: CLIENT, confirm: VERIFIER }))]);
    let confirm = SetClientIdConfirmArgs { client_id: CLIENT, confirm: VERIFIER };
    call(seeds, "setclientid_confirm", &[OpArgs::SetClientIdConfirm(confirm)]);
    reply(seeds, "setclientid_confirm", &[OpRes::SetClientIdConfirm(Ok(()))]);
    call(seeds, "renew", &[OpArgs::Renew(RenewArgs { client_id: CLIENT })]);
    reply(seeds, "renew", &[OpRes::Renew(Ok(()))]);
}

fn sessions(seeds: &mut Vec<Seed>) {
    let sys = AuthSys::new(7, b"client.example", 1000, 100, &[4, 24]).expect("two groups");
    let gss = GssHandles { service: GssService::Integrity, handle_from_server: b"s", handle_from_client: b"c" };
    let security = [CallbackSecParms::Sys(sys), CallbackSecParms::None, CallbackSecParms::Gss(gss)];
    let create = CreateSessionArgs {
        client_id: CLIENT,
        sequence_id: 1,
        flags: create_session_flag::CONN_BACK_CHAN,
        fore_channel: ChannelAttrs { rdma_ird: Some(4), ..CHANNEL },
        back_channel: CHANNEL,
        callback_program: 0x4000_0000,
        security: List::Slice(&security),
    };
    call(seeds, "create_session", &[OpArgs::CreateSession(create)]);
    let created = CreateSessionOk {
        session_id: SESSION,
        sequence_id: 1,
        flags: create_session_flag::CONN_BACK_CHAN,
        fore_channel: CHANNEL,
        back_channel: CHANNEL,
    };
    reply(seeds, "create_session", &[OpRes::CreateSession(Ok(created))]);
    let bind = BindConnToSessionArgs { session_id: SESSION, direction: BindDirection::BackOrBoth, rdma: false };
    call(seeds, "bind_conn_to_session", &[OpArgs::BindConnToSession(bind)]);
    let bound = BindConnToSessionOk { session_id: SESSION, direction: BoundDirection::Both, rdma: false };
    reply(seeds, "bind_conn_to_session", &[OpRes::BindConnToSession(Ok(bound))]);
    let ctl = BackchannelCtlArgs { callback_program: 0x4000_0001, security: List::Slice(&security) };
    call(seeds, "backchannel_ctl", &[OpArgs::Sequence(SEQUENCE), OpArgs::BackchannelCtl(ctl)]);
    call(seeds, "destroy_session", &[OpArgs::DestroySession(DestroySessionArgs { session_id: SESSION })]);
}

fn opens(seeds: &mut Vec<Seed>) {
    let attributes = Fattr { mask: Bitmap4::of(&[attr::SIZE]), values: &[0; 8] };
    let hows = [
        OpenHow::NoCreate,
        OpenHow::Unchecked(attributes),
        OpenHow::Guarded(attributes),
        OpenHow::Exclusive(VERIFIER),
        OpenHow::Exclusive41(CreateVerifierAttributes { verifier: VERIFIER, attributes }),
        OpenHow::NoCreate,
        OpenHow::NoCreate,
    ];
    let claims = [
        OpenClaim::Null(b"file"),
        OpenClaim::Previous(DelegationType4::Read),
        OpenClaim::DelegateCur(ClaimDelegateCur { delegate_stateid: STATEID, file: b"file" }),
        OpenClaim::DelegatePrev(b"file"),
        OpenClaim::FileHandle,
        OpenClaim::DelegCurFileHandle(STATEID),
        OpenClaim::DelegPrevFileHandle,
    ];
    for (number, (how, claim)) in hows.into_iter().zip(claims).enumerate() {
        let open = OpenArgs {
            seqid: 0,
            share_access: share_access::READ | share_access::WANT_READ_DELEG,
            share_deny: share_deny::NONE,
            owner: StateOwner4::new(CLIENT, b"open owner").expect("below the limit"),
            how,
            claim,
        };
        let operations = [OpArgs::Sequence(SEQUENCE), OpArgs::PutRootFh, OpArgs::Open(open), OpArgs::GetFh];
        call(seeds, &format!("open_{number}"), &operations);
    }
    call(
        seeds,
        "lookup",
        &[
            OpArgs::Sequence(SEQUENCE),
            OpArgs::PutFh(PutFhArgs { object: handle() }),
            OpArgs::Lookup(LookupArgs { name: b"file" }),
            OpArgs::GetAttr(GetAttrArgs { request: Bitmap4::of(&[attr::TYPE, attr::CHANGE, attr::FILEID]) }),
        ],
    );
    let put = OpArgs::PutFh(PutFhArgs { object: handle() });
    let close = OpArgs::Close(CloseArgs { seqid: 0, open_stateid: STATEID });
    call(seeds, "close", &[OpArgs::Sequence(SEQUENCE), put, close]);
    let give_back = OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: STATEID });
    call(seeds, "delegreturn", &[OpArgs::Sequence(SEQUENCE), put, give_back]);
    call(seeds, "other", &[OpArgs::Sequence(SEQUENCE), OpArgs::Other(Op::WANT_DELEGATION)]);
}

fn replies(seeds: &mut Vec<Seed>) {
    let sequence = OpRes::Sequence(Ok(SequenceOk {
        session_id: SESSION,
        sequence_id: 1,
        slot_id: 0,
        highest_slot_id: 15,
        target_highest_slot_id: 15,
        status_flags: seq4_status::CB_PATH_DOWN,
    }));
    let open = OpenOk {
        stateid: STATEID,
        change_info: ChangeInfo4 { atomic: true, before: 1, after: 2 },
        flags: open_result_flag::MAY_NOTIFY_LOCK,
        attributes_set: Bitmap4::EMPTY,
        delegation: OpenDelegation4::Read(OpenReadDelegation4 {
            stateid: STATEID,
            recall: false,
            permissions: NfsAce4::NONE,
        }),
    };
    let opened =
        [sequence, OpRes::PutRootFh(Ok(())), OpRes::Open(Ok(open)), OpRes::GetFh(Ok(GetFhOk { object: handle() }))];
    reply(seeds, "open", &opened);
    let attributes = Fattr { mask: Bitmap4::of(&[attr::SIZE]), values: &[0; 8] };
    let looked_up =
        [sequence, OpRes::PutFh(Ok(())), OpRes::Lookup(Ok(())), OpRes::GetAttr(Ok(GetAttrOk { attributes }))];
    reply(seeds, "lookup", &looked_up);
    let closed = OpRes::Close(Ok(CloseOk { open_stateid: STATEID }));
    reply(seeds, "close", &[sequence, OpRes::PutFh(Ok(())), closed]);
    reply(seeds, "delegreturn", &[sequence, OpRes::PutFh(Ok(())), OpRes::DelegReturn(Ok(()))]);
    reply(seeds, "delay", &[sequence, OpRes::PutFh(Err(Status::NFS4ERR_DELAY))]);
    // No server sends them together, but a reader of results takes them.
    let refusals: Vec<_> = (0..100).map(|number| OpRes::Other(Op(number), Status::NFS4ERR_DELAY)).collect();
    reply(seeds, "refusals", &refusals);
    reply(seeds, "refusal", &[sequence, OpRes::refusal(Op::WANT_DELEGATION, 1)]);
    reply(seeds, "empty", &[]);
}
