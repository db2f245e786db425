//! The replier half, rule by rule (what the Linux client checks).

use crate::swarm::callback::{BackChannel, Host};
use crate::swarm::config::{Behaviour, SwarmConfig};
use crate::swarm::fore::{Caller, ForeChannel, Work};
use crate::swarm::outgoing::Outgoing;
use crate::swarm::parameters::Parameters;
use crate::swarm::returns::ReturnQueue;
use crate::swarm::tally::{Delegations, Tally};
use proptest::prelude::*;
use ringback_rpc::message::{
    AcceptStatus, AuthStatus, CallHeader, OpaqueAuth, Rejected, ReplyBody, ReplyHeader, flavor,
};
use ringback_rpc::nfs4::callback::*;
use ringback_rpc::nfs4::{FileHandle, List, SessionId, Stateid4, Status};
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};

const SESSION: SessionId = SessionId([5; 16]);
const PROGRAM: u32 = 0x4100_0007;

/// Those of the client that has this program.
fn parameters() -> Parameters {
    Parameters::new(7, &SwarmConfig::new("127.0.0.1:1".parse().unwrap()))
}

struct Bench {
    back: BackChannel,
    fore: ForeChannel,
    delegations: Delegations,
    returns: ReturnQueue,
    tally: Tally,
    behaviour: Behaviour,
    now_ns: u64,
}

impl Bench {
    fn new() -> Bench {
        let mut bench = Bench {
            back: BackChannel::new(SESSION, parameters(), 4, 2),
            fore: ForeChannel::new(SESSION, 4),
            delegations: Delegations::default(),
            returns: ReturnQueue::default(),
            tally: Tally::default(),
            behaviour: Behaviour::Normal,
            now_ns: 0,
        };
        (0..10).for_each(|n| {
            bench.delegations.granted(&stateid(n), bench.tally.of_mut(Behaviour::Normal));
        });
        bench
    }

    fn call(&mut self, record: &[u8]) -> Vec<u8> {
        let mut out = Outgoing::default();
        let (mut first_recalls, mut recalls_seen) = (0, 0);
        let mut host = Host {
            now_ns: self.now_ns,
            behaviour: self.behaviour,
            slow_delay_ns: 10,
            return_delegations: true,
            fore: &self.fore,
            delegations: &mut self.delegations,
            returns: &mut self.returns,
            tally: &mut self.tally,
            counted_as: Behaviour::Normal,
            first_recalls: &mut first_recalls,
            recalls_seen: &mut recalls_seen,
        };
        self.back.call(record, &mut host, &mut out);
        out.pending().get(4..).unwrap_or_default().to_vec()
    }

    /// The statuses of CB_SEQUENCE and of the operation after it.
    fn recall(&mut self, sequence: CbSequenceArgs<'_>, n: u8) -> Vec<Status> {
        let recall = CbRecallArgs { stateid: stateid(n), truncate: false, fh: FileHandle::new(b"fh").unwrap() };
        let record = compound(1, &[CbArgs::Sequence(sequence), CbArgs::Recall(recall)]);
        statuses(&self.call(&record))
    }
}

fn stateid(n: u8) -> Stateid4 {
    Stateid4 { seqid: 1, other: [n; 12] }
}

fn sequence(slot_id: u32, sequence_id: u32) -> CbSequenceArgs<'static> {
    CbSequenceArgs {
        session_id: SESSION,
        sequence_id,
        slot_id,
        highest_slot_id: 3,
        cache_this: false,
        referring_call_lists: List::EMPTY,
    }
}

fn call_header(procedure: u32) -> CallHeader<'static> {
    let credential = OpaqueAuth { flavor: flavor::AUTH_SYS, body: &[1, 2, 3, 4] };
    CallHeader { xid: 77, program: PROGRAM, version: NFS_CB, procedure, credential, verifier: OpaqueAuth::NONE }
}

fn record(header: CallHeader<'_>, minor_version: u32, operations: &[CbArgs<'_>]) -> Vec<u8> {
    let mut space = [0; 8192];
    let mut w = Writer::new(&mut space);
    header.encode(&mut w).unwrap();
    let count = operations.len() as u32;
    CbCompoundArgs { tag: b"tag", minor_version, callback_ident: 0, count }.encode(&mut w).unwrap();
    operations.iter().for_each(|args| args.encode(&mut w).unwrap());
    w.written().to_vec()
}

fn compound(minor_version: u32, operations: &[CbArgs<'_>]) -> Vec<u8> {
    record(call_header(CB_COMPOUND), minor_version, operations)
}

fn statuses(reply: &[u8]) -> Vec<Status> {
    let mut r = Reader::new(reply);
    assert_eq!(ReplyHeader::decode(&mut r), Ok(ReplyHeader::success(77)));
    let head = CbCompoundRes::decode(&mut r).unwrap();
    assert_eq!(head.tag, b"tag");
    let all: Vec<_> = (0..head.count).map(|_| CbRes::decode(&mut r).unwrap().status()).collect();
    assert_eq!(all.last().copied().unwrap_or(head.status), head.status);
    r.finish("reply").unwrap();
    all
}

const OK: Status = Status::NFS4_OK;

#[test]
fn sequence_ids_are_checked_slot_by_slot() {
    let mut bench = Bench::new();
    assert_eq!(bench.recall(sequence(0, 2), 0), [Status::NFS4ERR_SEQ_MISORDERED]);
    assert_eq!(bench.recall(sequence(0, 0), 0), [Status::NFS4ERR_SEQ_MISORDERED]);
    assert_eq!(bench.recall(sequence(0, 1), 0), [OK, OK]);
    assert_eq!(bench.recall(sequence(3, 1), 1), [OK, OK]);
    assert_eq!(bench.recall(sequence(0, 3), 2), [Status::NFS4ERR_SEQ_MISORDERED]);
    assert_eq!(bench.recall(sequence(4, 1), 2), [Status::NFS4ERR_BADSLOT]);
    let other = CbSequenceArgs { session_id: SessionId([6; 16]), ..sequence(1, 1) };
    assert_eq!(bench.recall(other, 2), [Status::NFS4ERR_BADSESSION]);
    let cached = CbSequenceArgs { cache_this: true, ..sequence(0, 2) };
    assert_eq!(bench.recall(cached, 2), [Status::NFS4ERR_REP_TOO_BIG_TO_CACHE]);
    assert_eq!(bench.recall(sequence(0, 2), 2), [OK, OK], "an error leaves the slot as it was");
    assert_eq!((bench.tally.misordered, bench.tally.sequence_errors, bench.tally.total().distinct), (3, 3, 3));
}

#[test]
fn a_retry_gets_the_answer_of_an_uncached_reply_and_may_ask_again() {
    let mut bench = Bench::new();
    assert_eq!(bench.recall(sequence(0, 1), 0), [OK, OK]);
    assert_eq!(bench.recall(sequence(0, 1), 0), [OK, Status::NFS4ERR_RETRY_UNCACHED_REP]);
    let cached = CbSequenceArgs { cache_this: true, ..sequence(0, 1) };
    assert_eq!(bench.recall(cached, 0), [Status::NFS4ERR_SEQ_FALSE_RETRY]);
    assert_eq!(bench.recall(sequence(0, 2), 0), [OK, OK], "as it was told");
    assert_eq!(bench.recall(sequence(0, 3), 0), [OK, OK], "nobody asked for this one");
    let total = bench.tally.total();
    assert_eq!((total.distinct, total.repeated, total.doubled, bench.tally.replays), (1, 1, 1, 2));
    assert!(bench.returns.pop().is_some() && bench.returns.is_empty(), "returned once");
}

/// An error is a result too: when its reply is lost, the server may ask once more.
#[test]
fn a_lost_denial_may_be_asked_for_again() {
    let mut bench = Bench::new();
    assert_eq!(bench.recall(sequence(0, 1), 0), [OK, OK]);
    bench.delegations.returned(&stateid(0), bench.tally.of_mut(Behaviour::Normal));
    for id in 1..4 {
        assert_eq!(bench.recall(sequence(0, id), 0), [OK, Status::NFS4ERR_RETRY_UNCACHED_REP]);
        assert_eq!(bench.recall(sequence(0, id + 1), 0), [OK, Status::NFS4ERR_BAD_STATEID]);
    }
    let total = bench.tally.total();
    assert_eq!((total.distinct, total.repeated, total.doubled), (1, 3, 0));
}

#[test]
fn a_slow_client_says_delay_to_a_retry_while_it_works() {
    let mut bench = Bench::new();
    bench.behaviour = Behaviour::Slow;
    let recall = CbRecallArgs { stateid: stateid(0), truncate: false, fh: FileHandle::new(b"fh").unwrap() };
    let call = compound(1, &[CbArgs::Sequence(sequence(0, 1)), CbArgs::Recall(recall)]);
    assert!(bench.call(&call).is_empty());
    bench.behaviour = Behaviour::Normal;
    assert_eq!(statuses(&bench.call(&call)), [Status::NFS4ERR_DELAY]);
    let mut out = Outgoing::default();
    bench.back.release(9, Some(&mut out));
    assert!(out.pending().is_empty());
    bench.back.release(10, Some(&mut out));
    assert_eq!(statuses(&out.pending()[4..]), [OK, OK]);
    assert_eq!(statuses(&bench.call(&call)), [OK, Status::NFS4ERR_RETRY_UNCACHED_REP]);
}

#[test]
fn the_shape_of_a_compound_is_checked() {
    let mut bench = Bench::new();
    let first = CbArgs::Sequence(sequence(0, 1));
    let any = CbArgs::RecallSlot(CbRecallSlotArgs { target_highest_slot_id: 3 });
    assert_eq!(statuses(&bench.call(&compound(1, &[any]))), [Status::NFS4ERR_OP_NOT_IN_SESSION]);
    assert_eq!(statuses(&bench.call(&compound(1, &[first, any, any]))), [Status::NFS4ERR_TOO_MANY_OPS]);
    assert_eq!(statuses(&bench.call(&compound(3, &[first]))), []);
    assert_eq!(statuses(&bench.call(&compound(0, &[first]))), [Status::NFS4ERR_BADSESSION]);
    assert_eq!(statuses(&bench.call(&compound(1, &[first, first]))), [OK, Status::NFS4ERR_SEQUENCE_POS]);
    let cancelled = CbWantsCancelledArgs { contended_wants_cancelled: true, resourced_wants_cancelled: false };
    let second = CbArgs::Sequence(sequence(0, 2));
    let refused = compound(1, &[second, CbArgs::WantsCancelled(cancelled)]);
    assert_eq!(statuses(&bench.call(&refused)), [OK, Status::NFS4ERR_NOTSUPP]);
    let third = compound(1, &[CbArgs::Sequence(sequence(0, 3)), CbArgs::Illegal(99)]);
    assert_eq!(statuses(&bench.call(&third)), [OK, Status::NFS4ERR_OP_ILLEGAL]);
    assert_eq!(bench.recall(sequence(0, 4), 99), [OK, Status::NFS4ERR_BAD_STATEID]);
    assert_eq!((bench.tally.malformed, bench.tally.total().unknown_stateid), (0, 1));
}

#[test]
fn t31_a_batch_is_executed_up_to_the_first_that_fails() {
    let mut bench = Bench::new();
    bench.back = BackChannel::new(SESSION, parameters(), 4, 6);
    let batch = |sequence_id: u32, stateids: &[u8]| {
        let mut operations = vec![CbArgs::Sequence(sequence(0, sequence_id))];
        let fh = FileHandle::new(b"fh").unwrap();
        operations.extend(
            stateids.iter().map(|n| CbArgs::Recall(CbRecallArgs { stateid: stateid(*n), truncate: false, fh })),
        );
        compound(1, &operations)
    };
    assert_eq!(statuses(&bench.call(&batch(1, &[0, 1, 99, 2, 3]))), [OK, OK, OK, Status::NFS4ERR_BAD_STATEID]);
    assert_eq!(statuses(&bench.call(&batch(2, &[2, 3, 4, 5, 6, 7]))), [Status::NFS4ERR_TOO_MANY_OPS]);
    assert_eq!(statuses(&bench.call(&batch(2, &[2, 3, 4, 5, 6]))), [OK; 6]);
    assert_eq!(statuses(&bench.call(&batch(2, &[2, 3, 4, 5, 6]))), [OK, Status::NFS4ERR_RETRY_UNCACHED_REP]);
    assert_eq!(statuses(&bench.call(&batch(3, &[2, 3, 4, 5, 6]))), [OK; 6]);
    let total = bench.tally.total();
    assert_eq!((total.distinct, total.repeated, total.doubled, bench.tally.callbacks), (7, 5, 0, 3));
}

#[test]
fn rpc_refuses_what_is_not_for_this_client() {
    let mut bench = Bench::new();
    let operations = [CbArgs::Sequence(sequence(0, 1))];
    let mut is = |body: ReplyBody<'_>, change: &dyn Fn(&mut CallHeader<'static>)| {
        let mut header = call_header(CB_COMPOUND);
        change(&mut header);
        let reply = bench.call(&record(header, 1, &operations));
        assert_eq!(ReplyHeader::decode(&mut Reader::new(&reply)).unwrap().body, body);
    };
    let accepted = |status| ReplyHeader::accepted(77, status).body;
    let denied = ReplyBody::Denied(Rejected::AuthError(AuthStatus::BadCred));
    is(accepted(AcceptStatus::ProgUnavail), &|h| h.program += 1);
    is(accepted(AcceptStatus::ProgMismatch { low: 1, high: 4 }), &|h| h.version = 3);
    is(accepted(AcceptStatus::ProcUnavail), &|h| h.procedure = 2);
    is(denied, &|h| h.credential = OpaqueAuth::NONE);
    is(accepted(AcceptStatus::Success), &|h| (h.procedure, h.credential) = (CB_NULL, OpaqueAuth::NONE));
    assert_eq!((bench.tally.wrong_program, bench.tally.wrong_credential, bench.tally.probes), (3, 1, 1));
}

/// What was out when the parameters were replaced comes with the old ones, once on each session slot; what is new must not.
#[test]
fn f6_one_callback_of_each_session_slot_may_have_replaced_parameters() {
    let mut bench = Bench::new();
    // Whether it was answered, and how many had parameters that they should not have had.
    let call = |bench: &mut Bench, program, slot, sequence_id| {
        let operations = [CbArgs::Sequence(sequence(slot, sequence_id))];
        let reply = bench.call(&record(CallHeader { program, ..call_header(CB_COMPOUND) }, 1, &operations));
        let header = ReplyHeader::decode(&mut Reader::new(&reply)).unwrap();
        (header == ReplyHeader::success(77), bench.tally.replaced_parameters)
    };
    assert_eq!(call(&mut bench, PROGRAM, 0, 1), (true, 0));
    let (generation, next) = bench.back.next_parameters();
    let next = next.program();
    // While the answer is on its way, both are right.
    assert_eq!(call(&mut bench, next, 0, 2), (true, 0));
    assert_eq!(call(&mut bench, PROGRAM, 0, 3), (true, 0));
    bench.back.agreed(generation);
    assert_eq!(call(&mut bench, PROGRAM, 0, 4), (true, 0), "it was out");
    assert_eq!(call(&mut bench, PROGRAM, 0, 4), (true, 0), "and is sent again");
    assert_eq!(call(&mut bench, PROGRAM, 0, 5), (true, 1), "that one is new");
    assert_eq!(call(&mut bench, next, 1, 1), (true, 1));
    assert_eq!(call(&mut bench, PROGRAM, 1, 2), (true, 2), "none was out there");
    assert_eq!(call(&mut bench, next + (next - PROGRAM), 1, 3), (false, 2), "never asked for");
}

#[test]
fn f10_a_callback_waits_for_the_calls_it_refers_to() {
    let mut bench = Bench::new();
    let mut caller = Caller::new(vec![]);
    bench.fore.start(Work::Renew, &mut caller, &mut Outgoing::default(), 0, |_| Ok(())).unwrap();
    let mut refer = |sequence_id| {
        let calls = [ReferringCall { sequence_id, slot_id: 0 }];
        let lists = [ReferringCallList { session_id: SESSION, calls: List::Slice(&calls) }];
        bench.recall(CbSequenceArgs { referring_call_lists: List::Slice(&lists), ..sequence(0, 1) }, 0)
    };
    assert_eq!(refer(1), [Status::NFS4ERR_DELAY]);
    assert_eq!(refer(9), [OK, OK], "answered long ago");
}

proptest! {
    #[test]
    fn no_record_makes_a_client_panic(cut in 0usize..300, flip in 0usize..300, value: u8) {
        let mut bench = Bench::new();
        let recall = CbRecallArgs { stateid: stateid(0), truncate: false, fh: FileHandle::new(b"fh").unwrap() };
        let mut call = compound(1, &[CbArgs::Sequence(sequence(0, 1)), CbArgs::Recall(recall)]);
        if let Some(byte) = call.get_mut(flip) {
            *byte = value;
        }
        call.truncate(cut);
        bench.call(&call);
    }
}
