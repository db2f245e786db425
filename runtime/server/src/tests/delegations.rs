//! Delegations: grant, recall, return.

use super::*;
use crate::arena::Arena;
use crate::callbacks::Subject;
use crate::delegations::Delegation;
use crate::file::File;
use crate::opens::Open;
use ringback::{Event, Hooks, TryRun};

#[test]
fn ten_million_delegations_fit() {
    assert!(Arena::<Delegation>::bytes_per_object() <= 64);
    // File, open and delegation; the name table adds 5 to 10 bytes.
    let all = Arena::<Delegation>::bytes_per_object() + Arena::<File>::bytes_per_object();
    assert!(all + Arena::<Open>::bytes_per_object() + 10 <= 200, "{all}");
}

#[test]
fn reading_is_delegated_when_nothing_conflicts() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    a.take_delegation("f");
    assert_eq!(a.open("f", share_access::READ).open().delegation, OpenDelegation4::None, "one each");
    b.take_delegation("f");
    assert_eq!(world.server.delegations(), 2);
    assert_eq!(world.server.held().count(), 2);
    assert_eq!(a.open("g", share_access::WRITE).open().delegation, OpenDelegation4::None);
    let refused = |peer: &mut Peer<'_>, name, want| peer.open(name, share_access::READ | want).open().delegation;
    use OpenNoneDelegation4::*;
    for (want, why) in [
        (share_access::WANT_NO_DELEG, NotWanted),
        (share_access::WANT_CANCEL, Cancelled),
        (share_access::WANT_WRITE_DELEG, WriteNotSupportedFileType),
    ] {
        assert_eq!(refused(&mut a, "h", want), OpenDelegation4::NoneExt(why));
    }
    let contention = OpenDelegation4::NoneExt(Contention { will_push: false });
    assert_eq!(refused(&mut b, "g", share_access::WANT_READ_DELEG), contention);
    assert!(matches!(refused(&mut b, "h", share_access::WANT_ANY_DELEG), OpenDelegation4::Read(_)));
}

#[test]
fn the_number_of_delegations_is_limited() {
    let world = World::with(Config { delegations_max: 1, ..Config::default() });
    let mut peer = world.client("a");
    let (stateid, handle) = peer.take_delegation("f");
    let reply = peer.open("g", share_access::READ | share_access::WANT_READ_DELEG);
    let resource = OpenNoneDelegation4::Resource { will_signal: false };
    assert_eq!(reply.open().delegation, OpenDelegation4::NoneExt(resource));
    assert_eq!(peer.delegreturn(stateid, &handle), Status::NFS4_OK);
    peer.take_delegation("h");
}

#[test]
fn a_conflicting_open_waits_for_the_return() {
    let world = World::new();
    let (mut a, mut b, mut c) = (world.client("a"), world.client("b"), world.client("c"));
    let (sa, handle) = a.take_delegation("f");
    let (sb, _) = b.take_delegation("f");
    assert_eq!(c.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    for (peer, stateid) in [(&mut a, sa), (&mut b, sb)] {
        let recalled = peer.recalled();
        assert_eq!((recalled.stateid, &recalled.handle), (stateid, &handle));
        peer.answer(&recalled, Status::NFS4_OK);
    }
    world.until("both recalls are over", || world.counts.released.load(SeqCst) == 2);
    assert_eq!(c.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY, "answered is not returned");
    assert_eq!(a.delegreturn(sa, &handle), Status::NFS4_OK);
    assert_eq!(c.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    assert_eq!(b.delegreturn(sb, &handle), Status::NFS4_OK);
    assert_eq!(c.open("f", share_access::WRITE).status(), Status::NFS4_OK);
    assert_eq!(world.counts.accepted.load(SeqCst), 2, "a recall that was answered is not repeated");
    assert_eq!((world.counts.done.load(SeqCst), world.counts.answered.load(SeqCst)), (2, 2));
    assert_eq!(world.server.delegations(), 0);
}

/// The writer comes again and again, and is not alone: each reader is recalled once, and the dead one is in nobody's way but
/// the writers'. When its recall is given up it is recalled again, and nobody else is.
#[test]
fn t25_writers_wait_for_the_last_of_many_readers() {
    let world = World::new();
    let mut readers: Vec<_> = (0..20).map(|n| world.client(&format!("reader {n}"))).collect();
    let held: Vec<_> = readers.iter_mut().map(|reader| reader.take_delegation("f")).collect();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let refused = |peer: &mut Peer<'_>| {
        assert_eq!(peer.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    };
    let accepted = || world.counts.accepted.load(SeqCst);
    for (reader, (stateid, handle)) in readers.iter_mut().zip(&held).skip(1) {
        refused(&mut a);
        refused(&mut b);
        let recalled = reader.recalled();
        reader.answer(&recalled, Status::NFS4_OK);
        assert_eq!(reader.delegreturn(*stateid, handle), Status::NFS4_OK);
    }
    refused(&mut a);
    assert_eq!((accepted(), world.server.delegations()), (20, 1), "whoever asks, and however often");
    let dead = &mut readers[0];
    dead.recalled();
    let key = world.server.held().next().unwrap().key;
    assert_eq!(world.server.runtime().cancel(key), ringback::Cancel::Asked);
    let start = Instant::now();
    while accepted() == 20 {
        assert!(start.elapsed() < PATIENCE, "nobody asks again");
        refused(&mut b);
    }
    let again = dead.recalled();
    dead.answer(&again, Status::NFS4_OK);
    refused(&mut a);
    assert_eq!(dead.delegreturn(held[0].0, &held[0].1), Status::NFS4_OK);
    assert_eq!(a.open("f", share_access::WRITE).status(), Status::NFS4_OK);
    assert_eq!(b.open("f", share_access::WRITE).status(), Status::NFS4_OK);
    assert_eq!(accepted(), 21);
}

#[test]
fn no_new_delegation_while_somebody_waits() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (stateid, handle) = a.take_delegation("f");
    assert_eq!(b.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(a.open("f", share_access::READ).open().delegation, OpenDelegation4::None);
    a.now_ns = 6_000_000_000;
    a.take_delegation("f");
}

#[test]
fn f17_the_holders_own_open_recalls_nothing() {
    let world = World::new();
    let mut peer = world.client("a");
    let (stateid, handle) = peer.take_delegation("f");
    assert_eq!(peer.open("f", share_access::WRITE).status(), Status::NFS4_OK);
    assert_eq!(world.counts.accepted.load(SeqCst), 0);
    assert_eq!(peer.delegreturn(stateid, &handle), Status::NFS4_OK);
}

/// Two holders, each of which wants what the other one holds: both are told to come again, and both can answer.
#[test]
fn f17_opens_that_recall_each_other_wait_for_nobody() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (own, f) = a.take_delegation("f");
    let (in_the_way_of_a, _) = b.take_delegation("f");
    let (in_the_way_of_b, g) = a.take_delegation("g");
    assert_eq!(a.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    assert_eq!(b.open("g", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    for (peer, stateid, handle) in [(&mut b, in_the_way_of_a, &f), (&mut a, in_the_way_of_b, &g)] {
        let recalled = peer.recalled();
        assert_eq!(recalled.stateid, stateid);
        peer.answer(&recalled, Status::NFS4_OK);
        assert_eq!(peer.delegreturn(stateid, handle), Status::NFS4_OK);
    }
    assert_eq!(a.open("f", share_access::WRITE).status(), Status::NFS4_OK);
    assert_eq!(b.open("g", share_access::WRITE).status(), Status::NFS4_OK);
    assert_eq!(world.counts.accepted.load(SeqCst), 2, "what a client holds itself is not in its way");
    assert_eq!(a.delegreturn(own, &f), Status::NFS4_OK);
    world.until("no run", || world.counts.released.load(SeqCst) == 2);
}

/// The return comes before the revocation, after it, or at the same time: it is one or the other, and nothing is left.
#[test]
fn t22_a_return_that_races_the_revocation_is_one_or_the_other() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (mut returned, mut revoked) = (0, 0);
    for round in 0..120 {
        let name = format!("f{round}");
        let (stateid, handle) = a.take_delegation(&name);
        assert_eq!(b.open(&name, share_access::WRITE).status(), Status::NFS4ERR_DELAY);
        let recalled = a.recalled();
        a.answer(&recalled, Status::NFS4_OK);
        let held = world.server.held().next().unwrap();
        // As the runtime says it when the return is overdue.
        let overdue = || {
            let (key, cookie, client) = (held.key, Subject::Recall(held.id).cookie(), held.client);
            world.inner().event(&Event::ReturnOverdue { key, cookie, client });
        };
        let back = match round % 3 {
            0 => {
                let back = a.delegreturn(stateid, &handle);
                overdue();
                back
            }
            1 => {
                overdue();
                a.delegreturn(stateid, &handle)
            }
            _ => std::thread::scope(|scope| {
                let revocation = scope.spawn(overdue);
                let back = a.delegreturn(stateid, &handle);
                revocation.join().unwrap();
                back
            }),
        };
        assert_eq!(b.open(&name, share_access::WRITE).status(), Status::NFS4_OK);
        let flags = |peer: &mut Peer<'_>| match peer.call(&[]).last() {
            OpRes::Sequence(Ok(ok)) => ok.status_flags & seq4_status::RECALLABLE_STATE_REVOKED,
            other => panic!("{other:?}"),
        };
        if back == Status::NFS4_OK {
            returned += 1;
        } else {
            assert_eq!(back, Status::NFS4ERR_DELEG_REVOKED);
            assert_ne!(flags(&mut a), 0);
            assert_eq!(a.call(&[OpArgs::FreeStateid(FreeStateidArgs { stateid })]).status(), Status::NFS4_OK);
            revoked += 1;
        }
        assert_eq!((flags(&mut a), world.server.delegations()), (0, 0));
        world.until("the run is over", || world.counts.released.load(SeqCst) == round + 1);
    }
    assert!(returned >= 40 && revoked >= 40, "{returned} returned, {revoked} revoked");
    world.until("no run", || world.server.runtime().stats().in_flight == 0);
}

#[test]
fn t22_a_return_that_races_the_recall_leaves_nothing_behind() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    for round in 0..50 {
        let name = format!("f{round}");
        let (stateid, handle) = a.take_delegation(&name);
        assert_eq!(b.open(&name, share_access::WRITE).status(), Status::NFS4ERR_DELAY);
        let recalled = (round % 2 == 0).then(|| a.recalled());
        assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4_OK);
        assert_eq!(b.open(&name, share_access::WRITE).status(), Status::NFS4_OK);
        // Whether it was sent before the return or is refused after it: it ends.
        if let Some(recalled) = recalled {
            a.answer(&recalled, Status::NFS4ERR_BAD_STATEID);
        }
        world.until("the recall is over", || {
            if let Ok(record) = a.callbacks.try_recv() {
                a.answer(&parse(&record), Status::NFS4ERR_BAD_STATEID);
            }
            world.counts.released.load(SeqCst) == round + 1
        });
    }
    world.until("no run", || world.server.runtime().stats().in_flight == 0);
    let left = || (0..crate::files::SHARDS).map(|n| world.inner().files.shard(n).delegations.len()).sum::<u32>();
    world.until("no delegation is left in the tables", || left() == 0);
}

#[test]
fn t22_a_client_that_denies_is_asked_again_and_then_believed() {
    let world = World::new();
    let mut peer = world.client("a");
    let (stateid, handle) = peer.take_delegation("f");
    let held = world.server.held().next().unwrap();
    assert_eq!(world.server.recall(&held), TryRun::Submitted);
    for _ in 0..5 {
        let recalled = peer.recalled();
        peer.answer(&recalled, Status::NFS4ERR_BAD_STATEID);
    }
    world.until("the run is over", || world.counts.released.load(SeqCst) == 1);
    assert_eq!(world.counts.done.load(SeqCst), 1);
    assert_eq!(world.server.delegations(), 0);
    assert_eq!(peer.delegreturn(stateid, &handle), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(world.server.recall(&held), TryRun::Stale);
}

#[test]
fn returns_are_checked() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (stateid, handle) = a.take_delegation("f");
    let open = a.open("f", share_access::READ).open().stateid;
    let elsewhere = a.open("g", share_access::READ).handle();
    assert_eq!(b.delegreturn(stateid, &handle), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(a.delegreturn(stateid, &elsewhere), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(a.delegreturn(open, &handle), Status::NFS4ERR_BAD_STATEID, "an open is no delegation");
    assert_eq!(a.delegreturn(Stateid4 { seqid: 9, ..stateid }, &handle), Status::NFS4ERR_BAD_STATEID);
    let args = OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: stateid });
    assert_eq!(a.call(&[args]).status(), Status::NFS4ERR_NOFILEHANDLE);
    assert_eq!(a.delegreturn(Stateid4 { seqid: 0, ..stateid }, &handle), Status::NFS4_OK);
    assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4ERR_BAD_STATEID);
}

#[test]
fn opens_are_claimed_under_a_delegation() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (stateid, handle) = a.take_delegation("f");
    let claim = |stateid| OpenClaim::DelegateCur(ClaimDelegateCur { delegate_stateid: stateid, file: b"f" });
    let base = a.open_args(b"", share_access::READ, false);
    let reply = a.open_with(OpenArgs { claim: claim(stateid), ..base });
    assert_eq!(reply.open().delegation, OpenDelegation4::None);
    let claimed = OpenArgs { claim: OpenClaim::DelegCurFileHandle(stateid), ..base };
    assert_eq!(a.call(&[Peer::put_fh(&handle), OpArgs::Open(claimed)]).status(), Status::NFS4_OK);
    let foreign = b.open_with(OpenArgs { claim: claim(stateid), ..base });
    assert_eq!(foreign.status(), Status::NFS4ERR_BAD_STATEID);
}

#[test]
fn without_a_callback_path_nothing_is_delegated() {
    let world = World::new();
    let mut peer = world.client("a");
    world.server.runtime().close_connection(peer.connection);
    let down = seq4_status::CB_PATH_DOWN;
    let start = Instant::now();
    loop {
        match peer.call(&[]).last() {
            OpRes::Sequence(Ok(ok)) if ok.status_flags & down != 0 => break,
            other => assert!(start.elapsed() < PATIENCE, "{other:?}"),
        }
    }
    assert_eq!(peer.open("f", share_access::READ).open().delegation, OpenDelegation4::None);
}

#[test]
fn all_are_recalled_by_hand() {
    let world = World::new();
    let mut peers = [world.client("a"), world.client("b")];
    for n in 0..300 {
        peers[n % 2].take_delegation(&format!("f{n}"));
    }
    let owners: Vec<Vec<u8>> = world.server.clients().into_iter().map(|c| c.owner).collect();
    assert_eq!(owners, [b"a".to_vec(), b"b".to_vec()]);
    let held: Vec<_> = world.server.held().collect();
    assert_eq!(held.len(), 300);
    assert!(held.iter().all(|h| world.server.recall(h) == TryRun::Submitted));
    let start = Instant::now();
    while world.counts.answered.load(SeqCst) < 300 {
        assert!(start.elapsed() < PATIENCE);
        for peer in &peers {
            // Several recalls may leave in one send.
            let Ok(bytes) = peer.callbacks.recv_timeout(Duration::from_millis(1)) else { continue };
            split(&bytes).into_iter().for_each(|record| peer.answer(&parse(record), Status::NFS4_OK));
        }
    }
    world.until("all are over", || world.counts.released.load(SeqCst) == 300);
    assert_eq!(world.server.delegations(), 300, "answered, not returned");
}
