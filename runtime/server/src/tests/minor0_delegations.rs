//! Delegations of clients of minor version 0, which are called back on a connection that the server makes.

use super::minor0::Old;
use super::*;

/// Opens again, which gives a delegation if the client can be called back.
fn delegated(old: &mut Old<'_>, name: &str) -> Option<(Stateid4, Vec<u8>)> {
    let reply = old.open(name, share_access::READ);
    reply.open().delegation.stateid().map(|stateid| (stateid, reply.handle()))
}

#[test]
fn a_client_is_called_back_where_it_said_and_by_its_ident() {
    let world = World::new();
    let mut old = Old::with_path(&world, "old");
    let (stateid, handle) = delegated(&mut old, "f").expect("a delegation");
    let mut new = world.client("new");
    assert_eq!(new.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    let called = old.called();
    assert_eq!((called.ident, called.stateid), (7, stateid));
    old.site.answer(&called, Status::NFS4_OK);
    assert_eq!(old.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(new.open("f", share_access::WRITE).status(), Status::NFS4_OK);
    world.until("the recall is over", || world.counts.released.load(SeqCst) == 1);
    assert_eq!(world.counts.answered.load(SeqCst), 1);
    assert_eq!(world.server.delegations(), 0);
}

#[test]
fn an_open_for_writing_recalls_what_a_client_of_minor_version_1_holds() {
    let world = World::new();
    let mut new = world.client("new");
    let (stateid, handle) = new.take_delegation("f");
    let mut old = Old::with_path(&world, "old");
    assert_eq!(old.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    let recalled = new.recalled();
    assert_eq!(recalled.stateid, stateid);
    new.answer(&recalled, Status::NFS4_OK);
    assert_eq!(new.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(old.open("f", share_access::WRITE).status(), Status::NFS4_OK);
}

#[test]
fn a_request_that_names_nobody_is_that_of_the_client_whose_connection_it_is() {
    let world = World::new();
    let mut old = Old::with_path(&world, "old");
    let (stateid, handle) = delegated(&mut old, "f").expect("a delegation");
    // REMOVE and GETATTR do not say whose they are.
    let remove = [OpArgs::PutRootFh, OpArgs::Remove(RemoveArgs { target: b"f" })];
    let own = old.peer.connection;
    // On a connection on which nobody has named himself it is in everybody's way.
    old.peer.connection = world.stranger("nobody").connection;
    assert_eq!(old.peer.bare(&remove).status(), Status::NFS4ERR_DELAY);
    let called = old.called();
    old.site.answer(&called, Status::NFS4_OK);
    old.peer.connection = own;
    assert_eq!(old.delegreturn(stateid, &handle), Status::NFS4_OK);
    // The client's own delegation is not in its way.
    old.peer.now_ns += 10_000_000_000;
    let (stateid, handle) = delegated(&mut old, "f").expect("a delegation");
    assert_eq!(old.peer.bare(&remove).status(), Status::NFS4_OK);
    assert_eq!(old.delegreturn(stateid, &handle), Status::NFS4_OK);
    // Where two have named themselves nobody knows who it is.
    let (stateid, handle) = delegated(&mut old, "g").expect("a delegation");
    let mut other = Old::established(&world, "other");
    other.peer.connection = old.peer.connection;
    assert_eq!(other.renew(), Status::NFS4_OK);
    let remove = [OpArgs::PutRootFh, OpArgs::Remove(RemoveArgs { target: b"g" })];
    assert_eq!(old.peer.bare(&remove).status(), Status::NFS4ERR_DELAY);
    let called = old.called();
    old.site.answer(&called, Status::NFS4_OK);
    assert_eq!(old.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(old.peer.bare(&remove).status(), Status::NFS4_OK);
}

#[test]
fn no_path_no_delegation() {
    let world = World::new();
    let mut old = Old::established(&world, "old");
    // It does not answer CB_NULL.
    let (stateid, handle) = old.open_confirmed("f", share_access::READ);
    assert_eq!(delegated(&mut old, "f"), None, "nobody knows about the path");
    assert_eq!(old.renew(), Status::NFS4_OK);
    old.until("the path is up", |old| delegated(old, "f").is_some());
    assert_ne!(old.close(stateid, &handle).status(), Status::NFS4_OK, "an older stateid: the open was upgraded");

    // From an address that is not its own it is served as well.
    let mut far = Old::new(&world, "far");
    world.inner().minor0.peers().insert(far.peer.connection, "192.0.2.7:700".parse().unwrap());
    let (id, verifier) = far.set(7).unwrap();
    assert_eq!(far.confirm(id, verifier), Status::NFS4_OK);
    far.peer.client_id = id;
    far.open_confirmed("g", share_access::READ);
    assert_eq!(delegated(&mut far, "g"), None);
    assert_eq!(far.renew(), Status::NFS4_OK, "it holds no delegation");
}

#[test]
fn renew_tells_a_holder_that_its_path_is_down() {
    let world = World::new();
    let mut old = Old::with_path(&world, "old");
    let (stateid, handle) = delegated(&mut old, "f").expect("a delegation");
    old.site.close();
    let mut new = world.client("new");
    assert_eq!(new.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    world.until("RENEW tells", || old.renew() == Status::NFS4ERR_CB_PATH_DOWN);
    assert_eq!(delegated(&mut old, "g"), None);
    assert_eq!(old.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(old.renew(), Status::NFS4_OK, "it holds nothing that could be recalled");
}

#[test]
fn the_same_incarnation_is_called_back_elsewhere_when_it_has_confirmed_that() {
    let world = World::new();
    let mut old = Old::with_path(&world, "old");
    let (stateid, handle) = delegated(&mut old, "f").expect("a delegation");
    let mut elsewhere = Old::new(&world, "old");
    let (id, verifier) = elsewhere.set(8).unwrap();
    assert_eq!(id, old.peer.client_id, "the same client");
    let mut new = world.client("new");
    assert_eq!(new.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    assert_eq!(old.called().ident, 7, "not before it is confirmed");
    assert_eq!(elsewhere.confirm(id, verifier), Status::NFS4_OK);
    elsewhere.peer.client_id = id;
    // What was not answered is asked again there.
    let called = elsewhere.called();
    assert_eq!((called.ident, called.stateid), (8, stateid));
    elsewhere.site.answer(&called, Status::NFS4_OK);
    assert_eq!(elsewhere.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(new.open("f", share_access::WRITE).status(), Status::NFS4_OK);
}

#[test]
fn a_delegation_that_is_not_returned_is_gone() {
    let world = World::with(Config { lease: Duration::from_secs(1), ..Config::default() });
    let mut old = Old::with_path(&world, "old");
    let (stateid, handle) = delegated(&mut old, "f").expect("a delegation");
    let mut new = world.client("new");
    assert_eq!(new.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    let called = old.called();
    old.site.answer(&called, Status::NFS4_OK);
    world.until("it is revoked", || world.server.revocations() == 1);
    assert_eq!(new.open("f", share_access::WRITE).status(), Status::NFS4_OK);
    assert_eq!(old.delegreturn(stateid, &handle), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(world.inner().files.delegations.used(), 0, "nobody will ever acknowledge it");
}
