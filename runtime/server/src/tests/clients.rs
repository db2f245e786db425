//! EXCHANGE_ID, RECLAIM_COMPLETE, DESTROY_CLIENTID.

use super::*;

const UPDATE: u32 = exchange_id_flag::UPD_CONFIRMED_REC_A;

fn destroy(id: ClientId4) -> OpArgs<'static> {
    OpArgs::DestroyClientId(DestroyClientIdArgs { client_id: id })
}

#[test]
fn a_record_is_confirmed_by_create_session() {
    let world = World::new();
    let mut peer = world.stranger("a");
    let (first, _, flags) = peer.exchange_id(0).unwrap();
    assert_eq!(flags & exchange_id_flag::CONFIRMED_R, 0);
    let (second, sequence, _) = peer.exchange_id(0).unwrap();
    assert_ne!(first, second, "an unconfirmed record is replaced (case 4)");
    peer.client_id = first;
    assert_eq!(peer.create_session(&peer.create_session_args(sequence)), Err(Status::NFS4ERR_STALE_CLIENTID));
    peer.client_id = second;
    peer.create_session(&peer.create_session_args(sequence)).unwrap();
    let (third, next, flags) = peer.exchange_id(0).unwrap();
    assert_eq!((third, next), (second, sequence + 1), "case 2");
    assert_ne!(flags & exchange_id_flag::CONFIRMED_R, 0);
}

#[test]
fn updates_need_the_confirmed_record_to_match() {
    let world = World::new();
    let stranger = world.stranger("b");
    assert_eq!(stranger.exchange_id(UPDATE), Err(Status::NFS4ERR_NOENT), "case 7");
    let mut peer = world.client("a");
    assert_eq!(peer.exchange_id(UPDATE).unwrap().0, peer.client_id, "case 6");
    peer.uid = 5;
    assert_eq!(peer.exchange_id(UPDATE), Err(Status::NFS4ERR_PERM), "case 9");
    peer.verifier = 2;
    assert_eq!(peer.exchange_id(UPDATE), Err(Status::NFS4ERR_NOT_SAME), "case 8");
}

#[test]
fn anothers_name_cannot_be_taken_while_its_lease_lives() {
    let world = World::new();
    let victim = world.client("a");
    let mut thief = world.stranger("a");
    thief.uid = 5;
    assert_eq!(thief.exchange_id(0), Err(Status::NFS4ERR_CLID_INUSE), "case 3");
    thief.now_ns = 91_000_000_000;
    let (id, _, _) = thief.exchange_id(0).unwrap();
    assert_ne!(id, victim.client_id);
}

#[test]
fn another_principal_cannot_confirm() {
    let world = World::new();
    let mut peer = world.stranger("a");
    let (id, sequence, _) = peer.exchange_id(0).unwrap();
    peer.client_id = id;
    peer.uid = 5;
    assert_eq!(peer.create_session(&peer.create_session_args(sequence)), Err(Status::NFS4ERR_CLID_INUSE));
}

#[test]
fn f18_a_restarted_client_loses_its_former_state_when_it_confirms() {
    let world = World::new();
    let mut before = world.client("a");
    let (stateid, handle) = before.take_delegation("file");
    let mut after = world.stranger("a");
    after.verifier = 2;
    let (id, sequence, flags) = after.exchange_id(0).unwrap();
    assert_eq!(flags & exchange_id_flag::CONFIRMED_R, 0, "case 5");
    assert_eq!(before.call(&[]).status(), Status::NFS4_OK, "nothing is lost yet");
    assert_eq!(world.server.delegations(), 1);
    after.client_id = id;
    after.session = after.create_session(&after.create_session_args(sequence)).unwrap().session_id;
    assert_eq!(before.delegreturn(stateid, &handle), Status::NFS4ERR_BADSESSION);
    assert_eq!(world.server.delegations(), 0);
    assert_eq!(world.server.clients().len(), 1);
    let old = ClientId4(before.client_id.0);
    assert_eq!(after.bare(&[destroy(old)]).status(), Status::NFS4ERR_STALE_CLIENTID);
}

/// One recall was sent on a session that is gone, the other one never: the restarted client gets neither.
#[test]
fn f18_a_restarted_client_has_its_parked_callbacks_cancelled() {
    let world = World::new();
    let (mut before, mut other) = (world.client("a"), world.client("b"));
    before.take_delegation("sent");
    before.take_delegation("unsent");
    assert_eq!(other.open("sent", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    let recalled = before.recalled();
    let destroy = OpArgs::DestroySession(DestroySessionArgs { session_id: before.session });
    assert_eq!(before.bare(&[destroy]).status(), Status::NFS4_OK);
    assert_eq!(other.open("unsent", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    before.answer(&recalled, Status::NFS4_OK);
    let stats = || world.server.runtime().stats();
    world.until("both wait for a session", || (stats().in_flight, stats().resent + stats().replied) == (2, 0));
    let mut after = world.stranger("a");
    after.verifier = 2;
    after.establish();
    world.until("both are over", || world.counts.released.load(SeqCst) == 2);
    assert_eq!((stats().cancelled, stats().in_flight, world.counts.done.load(SeqCst)), (2, 0, 2));
    for name in ["sent", "unsent"] {
        assert_eq!(other.open(name, share_access::WRITE).status(), Status::NFS4_OK);
    }
    assert!(after.callbacks.recv_timeout(Duration::from_millis(50)).is_err(), "it holds nothing");
}

#[test]
fn reclaim_complete_is_done_once_and_before_opens() {
    let world = World::new();
    let mut peer = world.stranger("a");
    let (id, sequence, _) = peer.exchange_id(0).unwrap();
    peer.client_id = id;
    peer.session = peer.create_session(&peer.create_session_args(sequence)).unwrap().session_id;
    assert_eq!(peer.open("file", share_access::READ).status(), Status::NFS4ERR_GRACE);
    let complete = |one_fs| OpArgs::ReclaimComplete(ReclaimCompleteArgs { one_fs });
    assert_eq!(peer.call(&[complete(true)]).status(), Status::NFS4ERR_NOFILEHANDLE);
    assert_eq!(peer.call(&[OpArgs::PutRootFh, complete(true)]).status(), Status::NFS4_OK);
    assert_eq!(peer.call(&[complete(false)]).status(), Status::NFS4_OK);
    assert_eq!(peer.call(&[complete(false)]).status(), Status::NFS4ERR_COMPLETE_ALREADY);
    assert_eq!(peer.open("file", share_access::READ).status(), Status::NFS4_OK);
}

#[test]
fn a_client_is_destroyed_only_when_it_holds_nothing() {
    let world = World::new();
    let mut peer = world.client("a");
    let reply = peer.open("file", share_access::READ);
    let session = OpArgs::DestroySession(DestroySessionArgs { session_id: peer.session });
    assert_eq!(peer.call(&[destroy(peer.client_id)]).status(), Status::NFS4ERR_CLIENTID_BUSY);
    let (open, delegation) = (reply.open().stateid, reply.open().delegation.stateid().unwrap());
    assert_eq!(peer.close(open, &reply.handle()), Status::NFS4_OK);
    assert_eq!(peer.bare(&[session]).status(), Status::NFS4_OK);
    assert_eq!(peer.bare(&[destroy(peer.client_id)]).status(), Status::NFS4ERR_CLIENTID_BUSY, "a delegation");
    let (_, sequence, _) = peer.exchange_id(0).unwrap();
    peer.session = peer.create_session(&peer.create_session_args(sequence)).unwrap().session_id;
    peer.next = 1;
    assert_eq!(peer.delegreturn(delegation, &reply.handle()), Status::NFS4_OK);
    let session = OpArgs::DestroySession(DestroySessionArgs { session_id: peer.session });
    assert_eq!(peer.bare(&[session]).status(), Status::NFS4_OK);
    assert_eq!(peer.bare(&[destroy(peer.client_id)]).status(), Status::NFS4_OK);
    assert_eq!(peer.bare(&[destroy(peer.client_id)]).status(), Status::NFS4ERR_STALE_CLIENTID);
}

#[test]
fn tables_are_limited() {
    let world = World::with(Config { clients_max: 1, clients_unconfirmed_max: 2, ..Config::default() });
    let first = world.client("a");
    let mut second = world.stranger("b");
    second.now_ns = 2_000_000_000;
    let (id, sequence, _) = second.exchange_id(0).unwrap();
    second.client_id = id;
    let args = second.create_session_args(sequence);
    assert_eq!(second.create_session(&args), Err(Status::NFS4ERR_NOSPC));
    // The error is a reply like another: the next attempt has the next id. By then the first client has expired.
    second.now_ns = 91_000_000_000;
    let args = second.create_session_args(sequence + 1);
    assert!(second.create_session(&args).is_ok());
    assert_eq!(first.bare(&[OpArgs::Sequence(first.sequence_args())]).status(), Status::NFS4ERR_BADSESSION);
    for n in 0..10 {
        world.stranger(&format!("flood-{n}")).exchange_id(0).unwrap();
    }
    assert_eq!(world.inner().clients().records.len(), 3, "one confirmed, two not");
}

#[test]
fn a_client_id_that_is_not_confirmed_within_a_lease_is_forgotten() {
    let world = World::new();
    let lease_ns = Config::default().lease.as_nanos() as u64;
    for (after_ns, expected) in [(lease_ns, Ok(())), (lease_ns + 1, Err(Status::NFS4ERR_STALE_CLIENTID))] {
        let mut peer = world.stranger(&format!("after {after_ns}"));
        let (id, sequence, _) = peer.exchange_id(0).unwrap();
        (peer.client_id, peer.now_ns) = (id, after_ns);
        assert_eq!(peer.create_session(&peer.create_session_args(sequence)).map(|_| ()), expected);
    }
}
