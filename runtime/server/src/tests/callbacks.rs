//! CB_GETATTR, CB_NOTIFY_LOCK, CB_RECALL_ANY, and what becomes of delegations that are not returned.

use super::*;
use ringback_rpc::message::{MessageType, peek};
use ringback_rpc::nfs4::callback::CbRecallAnyArgs;
use std::collections::VecDeque;
use std::slice::from_ref;

/// What a client has been sent: replies to what it posted, and callbacks.
pub(super) struct Inbox<'p, 'w> {
    peer: &'p Peer<'w>,
    records: VecDeque<Vec<u8>>,
}

impl<'p, 'w> Inbox<'p, 'w> {
    pub(super) fn of(peer: &'p Peer<'w>) -> Self {
        Inbox { peer, records: VecDeque::new() }
    }

    /// The next record of that type; others are kept.
    fn next(&mut self, wanted: MessageType) -> Vec<u8> {
        loop {
            let of_type = |record: &Vec<u8>| peek(record).unwrap().1 == wanted;
            if let Some(at) = self.records.iter().position(of_type) {
                return self.records.remove(at).unwrap();
            }
            let bytes = self.peer.callbacks.recv_timeout(PATIENCE).unwrap();
            self.records.extend(split(&bytes).into_iter().map(|record| record[4..].to_vec()));
        }
    }

    pub(super) fn call(&mut self) -> Vec<u8> {
        self.next(MessageType::Call)
    }

    pub(super) fn reply(&mut self) -> Reply {
        Reply(self.next(MessageType::Reply))
    }

    pub(super) fn is_empty(&mut self) -> bool {
        self.records.is_empty() && self.peer.callbacks.recv_timeout(Duration::from_millis(50)).is_err()
    }
}

impl Peer<'_> {
    /// Sends a compound as over a connection, where it may wait.
    fn post(&mut self, ops: &[OpArgs<'_>]) {
        let mut all = vec![OpArgs::Sequence(self.sequence_args())];
        all.extend_from_slice(ops);
        self.world.server.runtime().receive(self.connection, self.record(&all));
        self.next = self.next.wrapping_add(1);
    }

    pub(super) fn flags(&mut self) -> u32 {
        match self.call(&[]).last() {
            OpRes::Sequence(Ok(ok)) => ok.status_flags,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn take_write_delegation(&mut self, name: &str) -> (Stateid4, Vec<u8>) {
        let reply = self.open(name, share_access::BOTH);
        let (_, results) = reply.compound();
        let delegation = results.iter().find_map(|r| match r {
            OpRes::Open(Ok(ok)) => Some(ok.delegation),
            _ => None,
        });
        let Some(OpenDelegation4::Write(write)) = delegation else { panic!("{results:?}") };
        (write.stateid, reply.handle())
    }
}

pub(super) fn writable() -> World {
    World::with(Config { write_delegations: true, ..Config::default() })
}

const ASKED: Bitmap4 = Bitmap4::of(&[attr::CHANGE, attr::SIZE]);

fn getattr() -> OpArgs<'static> {
    OpArgs::GetAttr(GetAttrArgs { request: ASKED })
}

/// Change and size, of a GETATTR at the end of a compound.
fn change_and_size(reply: &Reply) -> (u64, u64) {
    let last = reply.last();
    let OpRes::GetAttr(Ok(ok)) = last else { panic!("{last:?}") };
    let mut r = Reader::new(ok.attributes.values);
    (r.u64("change").unwrap(), r.u64("size").unwrap())
}

/// Answers a CB_GETATTR for `handle`.
fn report(peer: &Peer<'_>, call: &[u8], handle: &[u8], change: u64, size: u64) {
    let (header, sequence, args) = parse_call(call);
    let CbArgs::Getattr(getattr) = args else { panic!("{args:?}") };
    assert_eq!((getattr.fh.as_bytes(), getattr.attr_request), (handle, ASKED));
    let values = [change.to_be_bytes(), size.to_be_bytes()].concat();
    let attributes = Fattr { mask: ASKED, values: &values };
    peer.answer_call(&header, sequence, &CbRes::Getattr(Ok(attributes)));
}

#[test]
fn the_holder_of_a_write_delegation_is_asked_for_its_attributes() {
    let world = writable();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (stateid, handle) = a.take_write_delegation("f");
    let granted = change_and_size(&a.call(&[Peer::put_fh(&handle), getattr()])).0;
    let mut of_holder = Inbox::of(&a);
    // It has modified nothing; then it has, and may report the same value each time.
    let mut last = granted;
    for (change, size, modified) in [(granted, 0, false), (granted + 1, 70, true), (granted + 1, 90, true)] {
        b.post(&[Peer::put_fh(&handle), getattr(), OpArgs::GetFh]);
        let call = of_holder.call();
        report(&a, &call, &handle, change, size);
        let reply = Inbox::of(&b).reply();
        let (status, results) = reply.compound();
        assert_eq!((status, results.len()), (Status::NFS4_OK, 4), "what came after it was executed");
        let OpRes::GetAttr(Ok(ok)) = results[2] else { panic!("{results:?}") };
        let mut r = Reader::new(ok.attributes.values);
        let seen = (r.u64("change").unwrap(), r.u64("size").unwrap());
        assert_eq!((seen.0 > last, seen.1), (modified, size));
        last = seen.0;
    }
    assert_eq!(world.server.delegations(), 1);
    assert_eq!(world.counts.accepted.load(SeqCst), 0, "nothing is recalled");
    drop(of_holder);
    assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4_OK);
    // It was given back without having been written: the change attribute does not go back.
    let (change, size) = change_and_size(&b.call(&[Peer::put_fh(&handle), getattr()]));
    assert_eq!((change >= last, size), (true, 0));
    let left = || (0..crate::files::SHARDS).map(|n| world.inner().files.shard(n).delegations.len()).sum::<u32>();
    world.until("no delegation is left in the tables", || left() == 0);
}

#[test]
fn t21_two_who_ask_get_the_answer_to_one_cb_getattr() {
    let world = writable();
    let (mut a, mut b, mut c) = (world.client("a"), world.client("b"), world.client("c"));
    let (_, handle) = a.take_write_delegation("f");
    b.post(&[Peer::put_fh(&handle), getattr()]);
    let mut of_holder = Inbox::of(&a);
    let call = of_holder.call();
    c.post(&[Peer::put_fh(&handle), getattr()]);
    std::thread::sleep(Duration::from_millis(50));
    report(&a, &call, &handle, u64::MAX, 5);
    for peer in [&b, &c] {
        assert_eq!(change_and_size(&Inbox::of(peer).reply()).1, 5);
    }
    assert!(of_holder.is_empty(), "one call for both");
}

#[test]
fn a_holder_that_does_not_answer_is_recalled() {
    let world = World::with(Config { write_delegations: true, getattr_patience: Duration::ZERO, ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (stateid, handle) = a.take_write_delegation("f");
    b.post(&[Peer::put_fh(&handle), getattr()]);
    let mut of_holder = Inbox::of(&a);
    let unanswered = of_holder.call();
    assert!(matches!(parse_call(&unanswered).2, CbArgs::Getattr(_)));
    assert_eq!(Inbox::of(&b).reply().status(), Status::NFS4ERR_DELAY);
    let recall = of_holder.call();
    let (header, sequence, args) = parse_call(&recall);
    assert!(matches!(args, CbArgs::Recall(r) if r.stateid == stateid));
    a.answer_call(&header, sequence, &CbRes::Recall(Status::NFS4_OK));
    // While it is on recall nobody is asked.
    assert_eq!(b.call(&[Peer::put_fh(&handle), getattr()]).status(), Status::NFS4ERR_DELAY);
    drop(of_holder);
    assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(b.call(&[Peer::put_fh(&handle), getattr()]).status(), Status::NFS4_OK);
}

#[test]
fn a_retry_of_a_call_that_waits_is_told_to_wait() {
    let world = writable();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (_, handle) = a.take_write_delegation("f");
    b.post(&[Peer::put_fh(&handle), getattr()]);
    let call = Inbox::of(&a).call();
    b.next -= 1;
    assert_eq!(b.call(&[Peer::put_fh(&handle), getattr()]).status(), Status::NFS4ERR_DELAY, "its session slot is busy");
    report(&a, &call, &handle, 0, 0);
    assert_eq!(Inbox::of(&b).reply().status(), Status::NFS4_OK);
    assert_eq!(b.call(&[Peer::put_fh(&handle), OpArgs::GetFh]).status(), Status::NFS4_OK, "the slot is free");
}

#[test]
fn t23_a_delegation_that_is_not_returned_is_revoked_until_that_is_acknowledged() {
    // A runtime's clock, not the clients': they do not fall silent.
    let world = World::with(Config { lease: Duration::from_secs(1), delegations_max: 1, ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (stateid, handle) = a.take_delegation("f");
    assert_eq!(b.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    let recalled = a.recalled();
    a.answer(&recalled, Status::NFS4_OK);
    world.until("the return is overdue", || world.server.delegations() == 0);
    assert_eq!(b.open("f", share_access::WRITE).status(), Status::NFS4_OK);
    for _ in 0..3 {
        assert_ne!(a.flags() & seq4_status::RECALLABLE_STATE_REVOKED, 0);
        assert_eq!(b.flags() & seq4_status::RECALLABLE_STATE_REVOKED, 0);
    }
    let test = OpArgs::TestStateid(TestStateidArgs { stateids: List::Slice(from_ref(&stateid)) });
    let reply = a.call(&[test]);
    let OpRes::TestStateid(Ok(ok)) = reply.last() else { panic!("{:?}", reply.last()) };
    assert_eq!(ok.statuses.iter().collect::<Vec<_>>(), [Status::NFS4ERR_DELEG_REVOKED]);
    assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4ERR_DELEG_REVOKED);
    assert!(b.open("g", share_access::READ).open().delegation.stateid().is_none(), "as long as it is kept it counts");
    let free = OpArgs::FreeStateid(FreeStateidArgs { stateid });
    assert_eq!(a.call(&[free]).status(), Status::NFS4_OK);
    b.take_delegation("h");
    assert_eq!(a.flags() & seq4_status::RECALLABLE_STATE_REVOKED, 0);
    assert_eq!(a.call(&[free]).status(), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(world.counts.accepted.load(SeqCst), 1, "a recall that was answered is not repeated");
}

#[test]
fn a_holder_that_cannot_be_reached_loses_its_delegation_too() {
    let world = World::with(Config { lease: Duration::from_secs(1), ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    a.take_delegation("f");
    world.server.runtime().close_connection(a.connection);
    assert_eq!(b.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    world.until("it is revoked", || world.server.delegations() == 0);
    assert_eq!(b.open("f", share_access::WRITE).status(), Status::NFS4_OK);
    assert_ne!(a.flags() & seq4_status::RECALLABLE_STATE_REVOKED, 0);
}

pub(super) fn lock_args(kind: LockType, owner: &'static [u8], open_stateid: Stateid4) -> OpArgs<'static> {
    let lock_owner = StateOwner4::new(ClientId4(0), owner).unwrap();
    let new = OpenToLockOwner { open_seqid: 0, open_stateid, lock_seqid: 0, lock_owner };
    OpArgs::Lock(LockArgs { kind, reclaim: false, offset: 0, length: 10, locker: Locker::New(new) })
}

#[test]
fn who_waits_for_a_lock_is_told_when_it_may_be_had() {
    let world = World::new();
    let (mut a, mut b, mut c) = (world.client("a"), world.client("b"), world.client("c"));
    let (of_a, of_b, of_c) =
        (a.open("f", share_access::BOTH), b.open("f", share_access::BOTH), c.open("f", share_access::BOTH));
    let handle = of_a.handle();
    assert_ne!(of_a.open().flags & open_result_flag::MAY_NOTIFY_LOCK, 0);
    let put = Peer::put_fh(&handle);
    let reply = a.call(&[put, lock_args(LockType::Write, b"a's", of_a.open().stateid)]);
    let OpRes::Lock(Ok(LockOk { lock_stateid })) = reply.last() else { panic!("{:?}", reply.last()) };
    let waits = lock_args(LockType::WriteWait, b"b's", of_b.open().stateid);
    for _ in 0..3 {
        assert_eq!(b.call(&[put, waits]).status(), Status::NFS4ERR_DENIED);
    }
    // Who does not wait is not told.
    let tries = lock_args(LockType::Write, b"c's", of_c.open().stateid);
    assert_eq!(c.call(&[put, tries]).status(), Status::NFS4ERR_DENIED);
    let unlock = UnlockArgs { kind: LockType::Write, seqid: 0, lock_stateid, offset: 0, length: u64::MAX };
    assert_eq!(a.call(&[put, OpArgs::Unlock(unlock)]).status(), Status::NFS4_OK);
    let call = Inbox::of(&b).call();
    let (header, sequence, args) = parse_call(&call);
    let CbArgs::NotifyLock(notify) = args else { panic!("{args:?}") };
    assert_eq!((notify.fh.as_bytes(), notify.lock_owner.owner()), (&handle[..], &b"b's"[..]));
    b.answer_call(&header, sequence, &CbRes::NotifyLock(Status::NFS4_OK));
    assert_eq!(b.call(&[put, waits]).status(), Status::NFS4_OK);
    assert!(Inbox::of(&b).is_empty() && Inbox::of(&c).is_empty(), "told once, and nobody else");
    world.until("nobody waits", || world.server.runtime().stats().in_flight == 0);
    let waiters = || (0..crate::files::SHARDS).map(|n| world.inner().files.shard(n).waiters.len()).sum::<u32>();
    world.until("no waiter is left in the tables", || waiters() == 0);
}

#[test]
fn who_waits_for_a_lock_of_a_client_that_goes_is_told() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (of_a, of_b) = (a.open("f", share_access::BOTH), b.open("f", share_access::BOTH));
    let handle = of_a.handle();
    let put = Peer::put_fh(&handle);
    assert_eq!(a.call(&[put, lock_args(LockType::Write, b"a's", of_a.open().stateid)]).status(), Status::NFS4_OK);
    let waits = lock_args(LockType::ReadWait, b"b's", of_b.open().stateid);
    assert_eq!(b.call(&[put, waits]).status(), Status::NFS4ERR_DENIED);
    // A new incarnation of the client: what the old one held is forgotten.
    a.verifier += 1;
    a.establish();
    let call = Inbox::of(&b).call();
    assert!(matches!(parse_call(&call).2, CbArgs::NotifyLock(_)));
    assert_eq!(b.call(&[put, waits]).status(), Status::NFS4_OK);
}

#[test]
fn who_closes_waits_no_longer() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (of_a, of_b) = (a.open("f", share_access::BOTH), b.open("f", share_access::BOTH));
    let handle = of_a.handle();
    let put = Peer::put_fh(&handle);
    assert_eq!(a.call(&[put, lock_args(LockType::Write, b"a's", of_a.open().stateid)]).status(), Status::NFS4_OK);
    let before = world.inner().files.locks.used();
    let waits = lock_args(LockType::WriteWait, b"b's", of_b.open().stateid);
    assert_eq!(b.call(&[put, waits]).status(), Status::NFS4ERR_DENIED);
    assert_eq!(world.inner().files.locks.used(), before + 1, "a waiter is charged like a lock");
    assert_eq!(b.close(of_b.open().stateid, &handle), Status::NFS4_OK);
    assert_eq!(world.inner().files.locks.used(), before);
}

#[test]
fn clients_are_asked_to_hold_less_when_the_limit_shrinks() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    for n in 0..30 {
        a.take_delegation(&format!("a{n}"));
    }
    for n in 0..10 {
        b.take_delegation(&format!("b{n}"));
    }
    world.server.set_delegations_max(16);
    // Seven eighths of 16 are kept: 14 of 40, each its share.
    for (peer, keep) in [(&a, 10), (&b, 3)] {
        let call = Inbox::of(peer).call();
        let (header, sequence, args) = parse_call(&call);
        let CbArgs::RecallAny(any) = args else { panic!("{args:?}") };
        let types = [CbRecallAnyArgs::READ_DELEGATIONS, CbRecallAnyArgs::WRITE_DELEGATIONS];
        assert_eq!((any.objects_to_keep, any.type_mask), (keep, Bitmap4::of(&types)));
        peer.answer_call(&header, sequence, &CbRes::RecallAny(Status::NFS4_OK));
    }
    assert_eq!(world.counts.accepted.load(SeqCst), 0, "they have time to choose");
    // They give up nothing: what is too much is recalled.
    world.until("single recalls", || world.counts.accepted.load(SeqCst) == 20 + 7);
}

#[test]
fn room_is_made_for_who_was_refused_a_delegation() {
    let world = World::with(Config { delegations_max: 8, ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    for n in 0..8 {
        a.take_delegation(&format!("f{n}"));
    }
    assert!(Inbox::of(&a).is_empty(), "full is not too much");
    assert_eq!(b.open("g", share_access::READ).open().delegation, OpenDelegation4::None);
    let call = Inbox::of(&a).call();
    let CbArgs::RecallAny(any) = parse_call(&call).2 else { panic!("no CB_RECALL_ANY") };
    assert_eq!(any.objects_to_keep, 7);
}
