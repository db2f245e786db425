//! Every operation goes over the wire and comes back; no bytes make a decoder panic.

mod files;
mod layouts;

use super::*;
use crate::message::AuthSys;
use crate::nfs4::{
    Bitmap4, CallbackSecParms, ChangeInfo4, ClientId4, Fattr, FileHandle, GssHandles, GssService, List, NfsAce4,
    NfsTime4, OpenDelegation4, OpenNoneDelegation4, OpenReadDelegation4, OpenWriteDelegation4, SessionId, SpaceLimit4,
    StateOwner4, Stateid4, Verifier4,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashSet;

/// What the generated operations borrow from.
#[derive(Debug)]
struct Source {
    words: [u32; 8],
    longs: [u64; 4],
    flag: bool,
    bytes: Vec<u8>,
    name: Vec<u8>,
    id: [u8; 16],
    bitmap: Vec<u32>,
    /// Chooses the arm of every union.
    arm: usize,
}

fn source() -> impl Strategy<Value = Source> {
    let numbers = (any::<[u32; 8]>(), any::<[u64; 4]>(), any::<bool>(), 0usize..64);
    let bytes = (vec(any::<u8>(), 0..=128), vec(any::<u8>(), 0..40), any::<[u8; 16]>(), vec(any::<u32>(), 0..=8));
    (numbers, bytes).prop_map(|((words, longs, flag, arm), (bytes, name, id, bitmap))| Source {
        words,
        longs,
        flag,
        bytes,
        name,
        id,
        bitmap,
        arm,
    })
}

impl Source {
    fn stateid(&self) -> Stateid4 {
        let other = *self.id.first_chunk().expect("sixteen bytes hold twelve");
        Stateid4 { seqid: self.words[0], other }
    }

    fn verifier(&self) -> Verifier4 {
        Verifier4(self.longs[3].to_be_bytes())
    }

    fn bits(&self) -> Bitmap4 {
        Bitmap4::from_words(&self.bitmap).expect("at most eight words")
    }

    fn attributes(&self) -> Fattr<'_> {
        Fattr { mask: self.bits(), values: &self.bytes }
    }

    fn opaque(&self) -> Opaque4<'_> {
        Opaque4::new(&self.bytes).expect("below the limit")
    }

    fn handle(&self) -> FileHandle<'_> {
        FileHandle::new(&self.bytes).expect("at most 128 bytes")
    }

    fn channel(&self) -> ChannelAttrs {
        let w = &self.words;
        ChannelAttrs {
            header_pad_bytes: w[0],
            request_bytes_max: w[1],
            response_bytes_max: w[2],
            response_bytes_max_cached: w[3],
            operations_max: w[4],
            requests_max: w[5],
            rdma_ird: self.flag.then_some(w[6]),
        }
    }

    fn impl_id(&self) -> Option<ImplId<'_>> {
        let date = NfsTime4 { seconds: self.longs[0] as i64, nseconds: self.words[7] };
        self.flag.then_some(ImplId { domain: &self.name, name: &self.bytes, date })
    }

    fn ops(&self) -> StateProtectOps {
        StateProtectOps { must_enforce: self.bits(), must_allow: Bitmap4::of(&[self.words[1] % 256]) }
    }

    fn security(&self) -> [CallbackSecParms<'_>; 3] {
        let machine = self.name.as_slice();
        let sys = AuthSys::new(self.words[0], machine, self.words[1], self.words[2], &self.words[3..]);
        let handles = GssHandles {
            service: GssService::ALL[self.arm % 3],
            handle_from_server: &self.bytes,
            handle_from_client: &self.name,
        };
        [CallbackSecParms::Sys(sys.expect("five groups")), CallbackSecParms::None, CallbackSecParms::Gss(handles)]
    }

    fn how(&self) -> OpenHow<'_> {
        let attributes = self.attributes();
        match self.arm % 5 {
            0 => OpenHow::NoCreate,
            1 => OpenHow::Unchecked(attributes),
            2 => OpenHow::Guarded(attributes),
            3 => OpenHow::Exclusive(self.verifier()),
            _ => OpenHow::Exclusive41(CreateVerifierAttributes { verifier: self.verifier(), attributes }),
        }
    }

    fn claim(&self) -> OpenClaim<'_> {
        match self.arm % 7 {
            0 => OpenClaim::Null(&self.name),
            1 => OpenClaim::Previous(DelegationType4::ALL[self.words[3] as usize % 4]),
            2 => OpenClaim::DelegateCur(ClaimDelegateCur { delegate_stateid: self.stateid(), file: &self.name }),
            3 => OpenClaim::DelegatePrev(&self.name),
            4 => OpenClaim::FileHandle,
            5 => OpenClaim::DelegCurFileHandle(self.stateid()),
            _ => OpenClaim::DelegPrevFileHandle,
        }
    }

    fn delegation(&self) -> OpenDelegation4<'_> {
        let permissions = NfsAce4 { kind: 1, flag: 2, access_mask: self.words[4], who: &self.name };
        let (stateid, recall) = (self.stateid(), self.flag);
        let space_limit = if self.flag {
            SpaceLimit4::Size(self.longs[1])
        } else {
            SpaceLimit4::Blocks { blocks: self.words[5], bytes_per_block: self.words[6] }
        };
        match self.arm % 4 {
            0 => OpenDelegation4::None,
            1 => OpenDelegation4::Read(OpenReadDelegation4 { stateid, recall, permissions }),
            2 => OpenDelegation4::Write(OpenWriteDelegation4 { stateid, recall, space_limit, permissions }),
            _ => OpenDelegation4::NoneExt(OpenNoneDelegation4::Contention { will_push: self.flag }),
        }
    }

    fn open_args(&self) -> OpenArgs<'_> {
        OpenArgs {
            seqid: self.words[0],
            share_access: self.words[1],
            share_deny: self.words[2],
            owner: StateOwner4::new(ClientId4(self.longs[0]), &self.bytes).expect("below the limit"),
            how: self.how(),
            claim: self.claim(),
        }
    }

    fn open_ok(&self) -> OpenOk<'_> {
        OpenOk {
            stateid: self.stateid(),
            change_info: ChangeInfo4 { atomic: self.flag, before: self.longs[0], after: self.longs[1] },
            flags: self.words[0],
            attributes_set: self.bits(),
            delegation: self.delegation(),
        }
    }

    fn create_session_args<'a>(&self, security: &'a [CallbackSecParms<'a>]) -> CreateSessionArgs<'a> {
        CreateSessionArgs {
            client_id: ClientId4(self.longs[0]),
            sequence_id: self.words[0],
            flags: self.words[1],
            fore_channel: self.channel(),
            back_channel: ChannelAttrs { rdma_ird: None, ..self.channel() },
            callback_program: self.words[2],
            security: List::Slice(security),
        }
    }

    fn sequence_args(&self) -> SequenceArgs {
        SequenceArgs {
            session_id: SessionId(self.id),
            sequence_id: self.words[0],
            slot_id: self.words[1],
            highest_slot_id: self.words[2],
            cache_this: self.flag,
        }
    }
}

/// Calls `check` with the arguments of every operation of the table, and one that is not in it.
fn for_all_args(s: &Source, mut check: impl FnMut(OpArgs<'_>)) {
    let session_id = SessionId(s.id);
    let direction = BindDirection::ALL[s.arm % 4];
    let security = s.security();
    let oids = [SecOid4 { der: &s.name }, SecOid4 { der: &s.bytes }];
    let ssv = SsvParams {
        ops: s.ops(),
        hash_algorithms: List::Slice(&oids),
        encryption_algorithms: List::Slice(&oids[..s.arm % 2]),
        window: s.words[0],
        gss_handles: s.words[1],
    };
    let state_protect = match s.arm % 3 {
        0 => StateProtectArgs::None,
        1 => StateProtectArgs::MachCred(s.ops()),
        _ => StateProtectArgs::Ssv(ssv),
    };
    let client_owner = ClientOwner { verifier: s.verifier(), owner_id: s.opaque() };
    check(OpArgs::Close(CloseArgs { seqid: s.words[0], open_stateid: s.stateid() }));
    check(OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: s.stateid() }));
    check(OpArgs::GetAttr(GetAttrArgs { request: s.bits() }));
    check(OpArgs::GetFh);
    check(OpArgs::Lookup(LookupArgs { name: &s.name }));
    check(OpArgs::Open(s.open_args()));
    check(OpArgs::PutFh(PutFhArgs { object: s.handle() }));
    check(OpArgs::PutRootFh);
    let callback_program = s.words[3];
    check(OpArgs::BackchannelCtl(BackchannelCtlArgs { callback_program, security: List::Slice(&security) }));
    check(OpArgs::BindConnToSession(BindConnToSessionArgs { session_id, direction, rdma: s.flag }));
    let flags = s.words[0];
    check(OpArgs::ExchangeId(ExchangeIdArgs { client_owner, flags, state_protect, impl_id: s.impl_id() }));
    check(OpArgs::CreateSession(s.create_session_args(&security[..s.arm % 4])));
    check(OpArgs::DestroySession(DestroySessionArgs { session_id }));
    check(OpArgs::Sequence(s.sequence_args()));
    check(OpArgs::DestroyClientId(DestroyClientIdArgs { client_id: ClientId4(s.longs[0]) }));
    check(OpArgs::ReclaimComplete(ReclaimCompleteArgs { one_fs: s.flag }));
    let client = NfsClientId { verifier: s.verifier(), id: s.opaque() };
    let location = NetAddr4::new(b"tcp6", &s.name).expect("below the limit");
    let callback = CbClient { program: s.words[4], location };
    check(OpArgs::SetClientId(SetClientIdArgs { client, callback, callback_ident: s.words[5] }));
    let (client_id, confirm) = (ClientId4(s.longs[1]), s.verifier());
    check(OpArgs::SetClientIdConfirm(SetClientIdConfirmArgs { client_id, confirm }));
    check(OpArgs::Renew(RenewArgs { client_id }));
    files::arguments(s, &mut check);
    layouts::arguments(s, &mut check);
    check(OpArgs::Other(Op::GETDEVICELIST));
    check(OpArgs::Other(Op(4711)));
}

/// Calls `check` with results of every operation of the table, and of one that is not in it.
fn for_all_results(s: &Source, mut check: impl FnMut(OpRes<'_>)) {
    let session_id = SessionId(s.id);
    let direction = BoundDirection::ALL[s.arm % 3];
    let handles = [GssHandle4 { handle: &s.name }];
    let ssv = SsvInfo {
        ops: s.ops(),
        hash_algorithm: s.words[0],
        encryption_algorithm: s.words[1],
        ssv_bytes: s.words[2],
        window: s.words[3],
        handles: List::Slice(&handles),
    };
    let [a, b, c, d, ..] = s.words;
    check(OpRes::Close(Ok(CloseOk { open_stateid: s.stateid() })));
    check(OpRes::DelegReturn(Ok(())));
    check(OpRes::GetAttr(Ok(GetAttrOk { attributes: s.attributes() })));
    check(OpRes::GetFh(Ok(GetFhOk { object: s.handle() })));
    check(OpRes::Lookup(Ok(())));
    check(OpRes::Open(Ok(s.open_ok())));
    check(OpRes::PutFh(Ok(())));
    check(OpRes::PutRootFh(Ok(())));
    check(OpRes::BackchannelCtl(Ok(())));
    check(OpRes::BindConnToSession(Ok(BindConnToSessionOk { session_id, direction, rdma: s.flag })));
    check(OpRes::ExchangeId(Ok(ExchangeIdOk {
        client_id: ClientId4(s.longs[0]),
        sequence_id: a,
        flags: b,
        state_protect: match s.arm % 3 {
            0 => StateProtectOk::None,
            1 => StateProtectOk::MachCred(s.ops()),
            _ => StateProtectOk::Ssv(ssv),
        },
        server_owner: ServerOwner { minor_id: s.longs[1], major_id: s.opaque() },
        server_scope: s.opaque(),
        impl_id: s.impl_id(),
    })));
    check(OpRes::CreateSession(Ok(CreateSessionOk {
        session_id,
        sequence_id: a,
        flags: b,
        fore_channel: s.channel(),
        back_channel: s.channel(),
    })));
    check(OpRes::DestroySession(Ok(())));
    check(OpRes::Sequence(Ok(SequenceOk {
        session_id,
        sequence_id: a,
        slot_id: b,
        highest_slot_id: c,
        target_highest_slot_id: d,
        status_flags: s.words[4],
    })));
    check(OpRes::DestroyClientId(Ok(())));
    check(OpRes::ReclaimComplete(Ok(())));
    check(OpRes::SetClientId(Ok(SetClientIdOk { client_id: ClientId4(s.longs[1]), confirm: s.verifier() })));
    let by = NetAddr4::new(b"tcp", &s.name).expect("below the limit");
    check(OpRes::SetClientId(Err(SetClientIdFailure::InUse(by))));
    check(OpRes::SetClientIdConfirm(Ok(())));
    check(OpRes::Renew(Ok(())));
    files::results(s, &mut check);
    layouts::results(s, &mut check);
    check(OpRes::Other(Op::GETDEVICELIST, Status::NFS4ERR_NOTSUPP));
}

/// Writes `value`, reads it again, and reads every shorter prefix, which must fail.
fn round_trip<T: Encode>(value: &T, read: impl Fn(&mut Reader<'_>, &T) -> Result<bool>) {
    let mut space = [0; 4096];
    let mut w = Writer::new(&mut space);
    value.encode(&mut w).expect("fits");
    let bytes = w.written();
    let mut r = Reader::new(bytes);
    assert_eq!(read(&mut r, value), Ok(true));
    r.finish("end").expect("everything is read");
    for len in 0..bytes.len() {
        assert!(read(&mut Reader::new(&bytes[..len]), value).is_err(), "{len} bytes of {} were enough", bytes.len());
    }
}

proptest! {
    #[test]
    fn arguments_come_back_as_they_were(s in source()) {
        for_all_args(&s, |args| round_trip(&args, |r, sent| OpArgs::decode(r).map(|got| got == *sent)));
    }

    #[test]
    fn results_come_back_as_they_were(s in source(), status in 1u32..20_000) {
        for_all_results(&s, |res| {
            round_trip(&res, |r, sent| OpRes::decode(r).map(|got| got == *sent));
            let status = Status(status);
            if matches!(status, Status::NFS4ERR_DENIED | Status::NFS4ERR_CLID_INUSE | Status::NFS4ERR_OFFLOAD_NO_REQS)
                || matches!(status, Status::NFS4ERR_TOOSMALL | Status::NFS4ERR_LAYOUTTRYLATER)
            {
                // Of a lock it says whose, of a client id who uses it, of a copy what it could be, of a device how large it is,
                // and of a layout whether it comes.
                return;
            }
            let failed = OpRes::Other(res.op(), status);
            round_trip(&failed, |r, sent| {
                OpRes::decode(r).map(|got| (got.op(), got.status()) == (sent.op(), sent.status()))
            });
        });
    }

    /// Those above try what is listed for them: all that the table has.
    #[test]
    fn no_operation_is_left_out(s in source()) {
        let (mut args, mut results) = (HashSet::new(), HashSet::new());
        for_all_args(&s, |tried| args.extend([tried.op().0]));
        for_all_results(&s, |tried| results.extend([tried.op().0]));
        for number in 0..80 {
            let failed = [number, Status::NFS4ERR_DELAY.0].map(u32::to_be_bytes).concat();
            let known = !matches!(OpRes::decode(&mut Reader::new(&failed)), Ok(OpRes::Other(..)));
            prop_assert!(!known || args.contains(&number) && results.contains(&number), "operation {}", number);
        }
    }

    #[test]
    fn compound_heads_come_back_as_they_were(
        tag in vec(any::<u8>(), 0..=64), minor_version: u32, status: u32, count in 0usize..8,
    ) {
        let follow = [0; 64];
        let mut space = [0; 256];
        let mut w = Writer::new(&mut space);
        let args = CompoundArgs { tag: &tag, minor_version, count };
        args.encode(&mut w).unwrap();
        let head = CompoundResHead::reserve(&tag, &mut w).unwrap();
        head.fill(Status(status), count as u32, &mut w);
        w.raw(&follow).unwrap();
        let mut r = Reader::new(w.written());
        prop_assert_eq!(CompoundArgs::decode(&mut r).unwrap(), args);
        prop_assert_eq!(CompoundRes::decode(&mut r).unwrap(), CompoundRes { status: Status(status), tag: &tag, count });
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(op in 0u32..80, mut bytes in vec(prop_oneof![Just(0u8), 0u8..8, any::<u8>()], 4..512)) {
        bytes[..4].copy_from_slice(&op.to_be_bytes());
        if let Ok(args) = OpArgs::decode(&mut Reader::new(&bytes)) {
            let mut space = [0; 1024];
            let mut w = Writer::new(&mut space);
            args.encode(&mut w).expect("what was read can be written");
            prop_assert_eq!(OpArgs::decode(&mut Reader::new(w.written())), Ok(args));
        }
        if let Ok(res) = OpRes::decode(&mut Reader::new(&bytes)) {
            let mut space = [0; 1024];
            let mut w = Writer::new(&mut space);
            res.encode(&mut w).expect("what was read can be written");
            prop_assert_eq!(OpRes::decode(&mut Reader::new(w.written())), Ok(res));
        }
        let _ = CompoundArgs::decode(&mut Reader::new(&bytes));
        let _ = CompoundRes::decode(&mut Reader::new(&bytes));
    }
}

#[test]
fn the_fields_are_in_the_order_of_the_rfc() {
    let mut space = [0; 256];
    let mut w = Writer::new(&mut space);
    let sequence = SequenceArgs {
        session_id: SessionId([9; 16]),
        sequence_id: 1,
        slot_id: 2,
        highest_slot_id: 3,
        cache_this: true,
    };
    OpArgs::Sequence(sequence).encode(&mut w).unwrap();
    let owner = StateOwner4::new(ClientId4(5), b"me").unwrap();
    let how = OpenHow::Unchecked(Fattr::NONE);
    let share_access = share_access::READ | share_access::WANT_READ_DELEG;
    let claim = OpenClaim::Null(b"file");
    OpArgs::Open(OpenArgs { seqid: 0, share_access, share_deny: 0, owner, how, claim }).encode(&mut w).unwrap();
    let words: Vec<u32> = w.written().chunks(4).map(|c| u32::from_be_bytes(c.try_into().unwrap())).collect();
    let nine = 0x0909_0909;
    let open = [18, 0, 0x101, 0, 0, 5, 2, 0x6d65_0000, 1, 0, 0, 0, 0, 4, 0x6669_6c65];
    assert_eq!(words, [&[53, nine, nine, nine, nine, 1, 2, 3, 1], &open[..]].concat());
}

#[test]
fn an_operation_that_is_not_served_can_be_answered() {
    let layout = Op::GETDEVICELIST.0.to_be_bytes();
    let other = OpArgs::decode(&mut Reader::new(&layout)).unwrap();
    assert_eq!(other, OpArgs::Other(Op::GETDEVICELIST));
    assert_eq!(OpRes::refusal(other.op(), 1), OpRes::Other(Op::GETDEVICELIST, Status::NFS4ERR_NOTSUPP));
    let illegal = OpRes::Other(Op::ILLEGAL, Status::NFS4ERR_OP_ILLEGAL);
    assert_eq!(OpRes::refusal(Op(4711), 2), illegal);
    assert_eq!(OpRes::refusal(Op::COPY, 1), illegal, "minor version 2 brought COPY");
    assert_eq!(OpRes::refusal(Op::BACKCHANNEL_CTL, 0), illegal, "minor version 1 brought sessions");
    assert!(Op::RELEASE_LOCKOWNER.is_defined_in(0) && !Op(2).is_defined_in(0));
    assert_eq!((Op::COPY.to_string(), Op(4711).to_string()), ("COPY".into(), "operation 4711".into()));
}

#[test]
fn a_success_of_unknown_length_is_an_error() {
    let e = OpRes::decode(&mut Reader::new(&[0, 0, 0, 48, 0, 0, 0, 0])).unwrap_err();
    assert_eq!(e.to_string(), "resop at offset 0: value 48 is not defined here");
}

#[test]
fn a_failure_cannot_be_encoded_as_a_success_without_results() {
    let mut space = [0; 64];
    let e = OpRes::GetFh(Err(Status::NFS4_OK)).encode(&mut Writer::new(&mut space)).unwrap_err();
    assert_eq!(e.to_string(), "status at offset 4: value 0 is not defined here");
}

#[test]
fn a_long_tag_is_refused() {
    let mut bytes = 1025u32.to_be_bytes().to_vec();
    bytes.resize(2048, b'x');
    let e = CompoundArgs::decode(&mut Reader::new(&bytes)).unwrap_err();
    assert_eq!(e.to_string(), "tag at offset 0: length 1025 is over the limit of 1024");
}
