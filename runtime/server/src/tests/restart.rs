//! A server with a store that ends, or is killed, and begins again: who may reclaim what, and what of the files is there.

use super::minor0::Old;
use super::*;
use std::path::{Path, PathBuf};

/// A directory for the state of a server, taken away at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringback-restart-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }

    fn config(&self) -> Config {
        Config { state: Some(self.0.clone()), write_delegations: true, ..Config::default() }
    }

    fn begin(&self) -> World {
        World::with(self.config())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl World {
    /// Ends as if the power failed: what is not in the store by now is lost.
    fn kill(self) {
        self.inner().store.as_ref().unwrap().close();
    }

    fn is_in_grace(&self) -> bool {
        self.server.grace().is_some()
    }

    fn end_grace(&self) {
        self.inner().end_grace_in_time(u64::MAX);
        assert!(!self.is_in_grace());
    }
}

const COMPLETE: OpArgs<'static> = OpArgs::ReclaimComplete(ReclaimCompleteArgs { one_fs: false });

impl<'a> Peer<'a> {
    /// A client with a session that has not said RECLAIM_COMPLETE.
    fn returned(world: &'a World, name: &str) -> Self {
        let mut peer = world.stranger(name);
        let (id, sequence, _) = peer.exchange_id(0).unwrap();
        peer.client_id = id;
        peer.session = peer.create_session(&peer.create_session_args(sequence)).unwrap().session_id;
        peer
    }

    fn complete(&mut self) -> Status {
        self.call(&[COMPLETE]).status()
    }

    fn reclaim_args(&self, access: u32, held: DelegationType4) -> OpenArgs<'static> {
        OpenArgs {
            seqid: 0,
            share_access: access,
            share_deny: share_deny::NONE,
            owner: StateOwner4::new(ClientId4(0), b"owner").unwrap(),
            how: OpenHow::NoCreate,
            claim: OpenClaim::Previous(held),
        }
    }

    fn reclaim(&mut self, handle: &[u8], access: u32, held: DelegationType4) -> Reply {
        let args = self.reclaim_args(access, held);
        self.call(&[Self::put_fh(handle), OpArgs::Open(args), OpArgs::GetFh])
    }

    fn lock(&mut self, open: Stateid4, handle: &[u8], reclaim: bool) -> Status {
        let lock_owner = StateOwner4::new(ClientId4(0), b"locker").unwrap();
        let new = OpenToLockOwner { open_seqid: 0, open_stateid: open, lock_seqid: 0, lock_owner };
        let args = LockArgs { kind: LockType::Write, reclaim, offset: 0, length: 10, locker: Locker::New(new) };
        self.call(&[Self::put_fh(handle), OpArgs::Lock(args)]).status()
    }

    fn put(&mut self, handle: &[u8], stateid: Stateid4, stable: StableHow4, data: &[u8]) -> WriteOk {
        let args = WriteArgs { stateid, offset: 0, stable, data };
        match self.call(&[Self::put_fh(handle), OpArgs::Write(args)]).last() {
            OpRes::Write(Ok(ok)) => ok,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, handle: &[u8]) -> Verifier4 {
        let args = CommitArgs { offset: 0, count: 0 };
        match self.call(&[Self::put_fh(handle), OpArgs::Commit(args)]).last() {
            OpRes::Commit(Ok(ok)) => ok.verifier,
            other => panic!("{other:?}"),
        }
    }

    fn content(&mut self, handle: &[u8], stateid: Stateid4) -> Result<Vec<u8>, Status> {
        let args = ReadArgs { stateid, offset: 0, count: 100 };
        match self.call(&[Self::put_fh(handle), OpArgs::Read(args)]).last() {
            OpRes::Read(Ok(ok)) => Ok(ok.data.to_vec()),
            other => Err(other.status()),
        }
    }

    fn look_up(&mut self, name: &[u8]) -> Status {
        self.call(&[OpArgs::PutRootFh, OpArgs::Lookup(LookupArgs { name })]).status()
    }
}

/// The delegation of a reply, and whether it is being recalled.
fn delegated(reply: &Reply) -> Option<(Stateid4, bool)> {
    let (_, results) = reply.compound();
    results.iter().find_map(|res| match res {
        OpRes::Open(Ok(OpenOk { delegation: OpenDelegation4::Read(d), .. })) => Some((d.stateid, d.recall)),
        OpRes::Open(Ok(OpenOk { delegation: OpenDelegation4::Write(d), .. })) => Some((d.stateid, d.recall)),
        _ => None,
    })
}

#[test]
fn what_a_client_had_is_reclaimed_and_stands_as_before() {
    let folder = Folder::new("reclaimed");
    let world = folder.begin();
    assert!(!world.is_in_grace(), "nobody is there to reclaim");
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let open = a.open("file", share_access::BOTH);
    let (stateid, handle) = (delegated(&open).unwrap().0, open.handle());
    a.put(&handle, open.open().stateid, StableHow4::Unstable, b"content");
    assert_eq!(a.lock(open.open().stateid, &handle, false), Status::NFS4_OK);
    assert_eq!(b.open("other", share_access::READ).status(), Status::NFS4_OK);
    drop(world);
    let world = folder.begin();
    assert_eq!(world.server.grace().unwrap().0, 2);
    let mut a = Peer::returned(&world, "a");
    a.settle_but(seq4_status::RESTART_RECLAIM_NEEDED);
    assert_eq!(a.call(&[Peer::put_fh(&handle)]).status(), Status::NFS4_OK, "filehandles live");
    assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4ERR_BAD_STATEID, "stateids do not");
    assert_eq!(a.open("file", share_access::READ).status(), Status::NFS4ERR_GRACE);
    let open = a.reclaim(&handle, share_access::BOTH, DelegationType4::Write);
    let (delegation, recall) = delegated(&open).unwrap();
    assert!(!recall);
    let again = a.reclaim(&handle, share_access::BOTH, DelegationType4::Write);
    assert_eq!(delegated(&again), Some((delegation, false)), "by another of its opens");
    assert_eq!(a.lock(again.open().stateid, &handle, true), Status::NFS4_OK);
    assert_eq!(a.content(&handle, again.open().stateid).unwrap(), b"content");
    assert_eq!(a.complete(), Status::NFS4_OK);
    assert_eq!(a.call(&[]).status(), Status::NFS4_OK);
    assert_eq!(a.reclaim(&handle, share_access::READ, DelegationType4::None).status(), Status::NFS4ERR_NO_GRACE);
    assert_eq!(a.complete(), Status::NFS4ERR_COMPLETE_ALREADY);
    assert_eq!(a.open("new", share_access::READ).status(), Status::NFS4ERR_GRACE, "the other may still reclaim");
    let mut b = Peer::returned(&world, "b");
    assert_eq!(b.complete(), Status::NFS4_OK);
    assert!(!world.is_in_grace(), "all have reclaimed");
    assert_eq!(a.open("new", share_access::READ).status(), Status::NFS4_OK);
    // The new process recalls the delegation, and the lock is in the way.
    assert_eq!(b.open("file", share_access::BOTH).status(), Status::NFS4ERR_DELAY);
    let recalled = a.recalled();
    assert_eq!((recalled.stateid, &recalled.handle), (delegation, &handle));
    a.answer(&recalled, Status::NFS4_OK);
    assert_eq!(a.delegreturn(delegation, &handle), Status::NFS4_OK);
    let open = b.open("file", share_access::BOTH).open().stateid;
    assert_eq!(b.lock(open, &handle, false), Status::NFS4ERR_DENIED);
    assert_eq!(b.lock(open, &handle, true), Status::NFS4ERR_NO_GRACE, "outside of a grace period");
}

#[test]
fn who_has_nothing_to_reclaim_reclaims_nothing() {
    let folder = Folder::new("nothing");
    let world = folder.begin();
    let mut a = world.client("a");
    let handle = a.open("file", share_access::READ).handle();
    // It has never got anything that is not to be had without RECLAIM_COMPLETE.
    Peer::returned(&world, "incomplete");
    let mut gone = world.client("gone");
    let destroy = OpArgs::DestroySession(DestroySessionArgs { session_id: gone.session });
    assert_eq!(gone.call(&[destroy]).status(), Status::NFS4_OK);
    let destroy = OpArgs::DestroyClientId(DestroyClientIdArgs { client_id: gone.client_id });
    assert_eq!(gone.bare(&[destroy]).status(), Status::NFS4_OK);
    drop(world);
    let world = folder.begin();
    assert_eq!(world.server.grace().unwrap().0, 1);
    for name in ["stranger", "incomplete", "gone"] {
        let mut peer = Peer::returned(&world, name);
        let reclaimed = peer.reclaim(&handle, share_access::READ, DelegationType4::None);
        assert_eq!(reclaimed.status(), Status::NFS4ERR_NO_GRACE, "{name}");
        assert_eq!(peer.complete(), Status::NFS4_OK);
    }
    // Somebody else may not take the name, as if the lease had not run out.
    let mut thief = world.stranger("a");
    thief.uid = 5;
    assert_eq!(thief.exchange_id(0), Err(Status::NFS4ERR_CLID_INUSE));
    assert!(world.is_in_grace());
    // Another life of the client has nothing of the one before; nobody is left to wait for then.
    let mut reborn = world.stranger("a");
    reborn.verifier = 2;
    let (id, sequence, _) = reborn.exchange_id(0).unwrap();
    reborn.client_id = id;
    reborn.session = reborn.create_session(&reborn.create_session_args(sequence)).unwrap().session_id;
    let reclaimed = reborn.reclaim(&handle, share_access::READ, DelegationType4::None);
    assert_eq!(reclaimed.status(), Status::NFS4ERR_RECLAIM_BAD);
    assert_eq!(reborn.complete(), Status::NFS4_OK);
    assert!(!world.is_in_grace());
    assert_eq!(reborn.open("file", share_access::BOTH).status(), Status::NFS4_OK);
}

#[test]
fn a_file_system_is_reclaimed_once() {
    let folder = Folder::new("one-fs");
    let world = folder.begin();
    let handle = world.client("a").open("file", share_access::READ).handle();
    drop(world);
    let world = folder.begin();
    let mut a = Peer::returned(&world, "a");
    assert_eq!(a.reclaim(&handle, share_access::READ, DelegationType4::None).status(), Status::NFS4_OK);
    let one = OpArgs::ReclaimComplete(ReclaimCompleteArgs { one_fs: true });
    assert_eq!(a.call(&[one]).status(), Status::NFS4ERR_NOFILEHANDLE);
    assert_eq!(a.call(&[OpArgs::PutRootFh, one]).status(), Status::NFS4_OK);
    assert_eq!(a.call(&[OpArgs::PutRootFh, one]).status(), Status::NFS4ERR_COMPLETE_ALREADY);
    assert_eq!(a.reclaim(&handle, share_access::READ, DelegationType4::None).status(), Status::NFS4ERR_NO_GRACE);
    assert!(world.is_in_grace());
    assert_eq!(a.open("file", share_access::READ).status(), Status::NFS4ERR_GRACE, "all of it is not complete");
    assert_eq!((a.complete(), world.is_in_grace()), (Status::NFS4_OK, false));
}

/// The second edge condition of RFC 8881 section 8.4.2.1: a client that was cut off in one grace period has lost what it had,
/// and does not get it back in the next one.
#[test]
fn a_client_that_missed_a_grace_period_reclaims_nothing_in_the_next() {
    let folder = Folder::new("missed");
    let world = folder.begin();
    let handle = world.client("cut off").open("file", share_access::BOTH).handle();
    let mut late = world.client("late");
    late.open("late", share_access::READ);
    world.kill();
    let world = folder.begin();
    // This one comes, and does not say that it has reclaimed all.
    let mut late = Peer::returned(&world, "late");
    let mut other = world.client("other");
    assert_eq!(other.open("file", share_access::BOTH).status(), Status::NFS4ERR_GRACE);
    world.end_grace();
    assert_eq!(late.call(&[]).status(), Status::NFS4_OK);
    assert_eq!(other.open("file", share_access::BOTH).status(), Status::NFS4_OK);
    world.kill();
    let world = folder.begin();
    assert_eq!(world.server.grace().unwrap().0, 1, "the other one");
    for name in ["cut off", "late"] {
        let mut peer = Peer::returned(&world, name);
        let reclaimed = peer.reclaim(&handle, share_access::READ, DelegationType4::None);
        assert_eq!(reclaimed.status(), Status::NFS4ERR_NO_GRACE, "{name}");
    }
}

/// The first edge condition: a client whose lease has run out, and whose state another one has had meanwhile.
#[test]
fn a_client_whose_lease_ran_out_reclaims_nothing() {
    let folder = Folder::new("expired");
    let world = folder.begin();
    let mut silent = world.client("silent");
    let open = silent.open("file", share_access::READ | share_access::WANT_NO_DELEG);
    assert_eq!(silent.lock(open.open().stateid, &open.handle(), false), Status::NFS4ERR_OPENMODE);
    let open = silent.open("file", share_access::BOTH | share_access::WANT_NO_DELEG);
    assert_eq!(silent.lock(open.open().stateid, &open.handle(), false), Status::NFS4_OK);
    let mut other = world.client("other");
    let theirs = other.open("file", share_access::BOTH | share_access::WANT_NO_DELEG).open().stateid;
    assert_eq!(other.lock(theirs, &open.handle(), false), Status::NFS4ERR_DENIED);
    other.now_ns = 91_000_000_000;
    // The call had to wait for the disk.
    assert_eq!(other.lock(theirs, &open.handle(), false), Status::NFS4_OK);
    world.kill();
    let world = folder.begin();
    assert_eq!(world.server.grace().unwrap().0, 1);
    let mut silent = Peer::returned(&world, "silent");
    let reclaimed = silent.reclaim(&open.handle(), share_access::BOTH, DelegationType4::None);
    assert_eq!(reclaimed.status(), Status::NFS4ERR_NO_GRACE);
}

#[test]
fn a_revoked_delegation_is_not_reclaimed() {
    let folder = Folder::new("revoked");
    let config = Config { lease: Duration::from_secs(1), ..folder.config() };
    for acknowledges in [false, true] {
        let world = World::with(config.clone());
        world.end_grace();
        let (mut a, mut b) = (world.client("a"), world.client("b"));
        let (stateid, handle) = a.take_delegation("file");
        assert_eq!(b.open("file", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
        world.until("it is revoked", || world.server.revocations() == 1);
        assert!(!world.inner().store.as_ref().unwrap().clients().keys().any(|name| &name.owner[..] == b"a"));
        if acknowledges {
            let free = OpArgs::FreeStateid(FreeStateidArgs { stateid });
            assert_eq!(a.call(&[free]).status(), Status::NFS4_OK);
            world.until("it may reclaim again", || world.inner().store.as_ref().unwrap().clients().len() == 2);
        }
        world.kill();
        let world = World::with(config.clone());
        let mut a = Peer::returned(&world, "a");
        let status = a.reclaim(&handle, share_access::READ, DelegationType4::None).status();
        assert_eq!(status, if acknowledges { Status::NFS4_OK } else { Status::NFS4ERR_NO_GRACE });
    }
}

#[test]
fn reclaims_that_cannot_both_be_true_are_refused() {
    let folder = Folder::new("conflict");
    let world = folder.begin();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let handle = a.open("file", share_access::BOTH | share_access::WANT_NO_DELEG).handle();
    b.open("other", share_access::READ);
    drop(world);
    let world = folder.begin();
    let (mut a, mut b) = (Peer::returned(&world, "a"), Peer::returned(&world, "b"));
    let open = a.reclaim(&handle, share_access::BOTH, DelegationType4::None).open().stateid;
    assert_eq!(a.lock(open, &handle, true), Status::NFS4_OK);
    let lies = OpenArgs { share_deny: share_deny::WRITE, ..b.reclaim_args(share_access::READ, DelegationType4::None) };
    let lie = b.call(&[Peer::put_fh(&handle), OpArgs::Open(lies)]);
    assert_eq!(lie.status(), Status::NFS4ERR_RECLAIM_CONFLICT);
    // What is in the way of what another has open is recalled at once.
    b.settle_but(seq4_status::RESTART_RECLAIM_NEEDED);
    let open = b.reclaim(&handle, share_access::BOTH, DelegationType4::Write);
    let (delegation, recall) = delegated(&open).unwrap();
    assert!(recall);
    assert_eq!(b.recalled().stateid, delegation);
    // Without an open of its own as well.
    let want = WantDelegationArgs { want: 0, claim: DelegClaim::Previous(DelegationType4::Write) };
    let wanted = b.call(&[Peer::put_fh(&handle), OpArgs::WantDelegation(want)]);
    let OpRes::WantDelegation(Ok(ok)) = wanted.last() else { panic!("{:?}", wanted.last()) };
    assert_eq!(ok.delegation.stateid(), Some(delegation), "the one that it has");
    assert_eq!(b.lock(open.open().stateid, &handle, true), Status::NFS4ERR_RECLAIM_CONFLICT);
}

#[test]
fn what_could_be_in_the_way_of_a_reclaim_waits() {
    let folder = Folder::new("waits");
    let world = folder.begin();
    let mut a = world.client("a");
    let handle = a.open("file", share_access::BOTH).handle();
    drop(world);
    let world = folder.begin();
    let mut b = world.client("b");
    let write = WriteArgs { stateid: Stateid4::ANONYMOUS, offset: 0, stable: StableHow4::Unstable, data: b"x" };
    let mode = Fattr { mask: Bitmap4::of(&[attr::MODE]), values: &[0, 0, 1, 0o200] };
    let owner = StateOwner4::new(ClientId4(0), b"locker").unwrap();
    let test = LockTestArgs { kind: LockType::Write, offset: 0, length: 10, owner };
    let file = Peer::put_fh(&handle);
    let root = OpArgs::PutRootFh;
    let waiting: [&[OpArgs<'_>]; 8] = [
        &[file, OpArgs::Read(ReadArgs { stateid: Stateid4::ANONYMOUS, offset: 0, count: 1 })],
        &[file, OpArgs::Write(write)],
        &[file, OpArgs::SetAttr(SetAttrArgs { stateid: Stateid4::ANONYMOUS, attributes: mode })],
        &[file, OpArgs::LockTest(test)],
        &[root, OpArgs::Remove(RemoveArgs { target: b"file" })],
        &[root, OpArgs::SaveFh, OpArgs::Rename(RenameArgs { old_name: b"file", new_name: b"new" })],
        &[file, OpArgs::SaveFh, root, OpArgs::Link(LinkArgs { new_name: b"new" })],
        &[root, OpArgs::Open(b.open_args(b"file", share_access::READ, false))],
    ];
    for ops in waiting {
        assert_eq!(b.call(ops).status(), Status::NFS4ERR_GRACE, "{ops:?}");
    }
    world.end_grace();
    for ops in waiting {
        assert_ne!(b.call(ops).status(), Status::NFS4ERR_GRACE, "{ops:?}");
    }
}

#[test]
fn a_client_of_minor_version_0_reclaims() {
    let folder = Folder::new("minor0");
    let world = folder.begin();
    let mut old = Old::established(&world, "old");
    let names = || world.inner().store.as_ref().unwrap().clients().len();
    assert_eq!(names(), 0, "it has nothing");
    let (stateid, handle) = old.open_confirmed("file", share_access::BOTH);
    assert_eq!(names(), 1, "its first open says that there is nothing that it still wants to reclaim");
    assert_eq!(old.lock(stateid, &handle, false), Status::NFS4_OK);
    drop(world);
    let world = folder.begin();
    let mut other = world.client("other");
    let mut old = Old::established(&world, "old");
    assert_eq!(old.open("file", share_access::READ).status(), Status::NFS4ERR_GRACE);
    old.seqid = 0;
    let args = old.reclaim_args(share_access::BOTH, DelegationType4::Write);
    let open = old.peer.bare(&[Peer::put_fh(&handle), OpArgs::Open(args), OpArgs::GetFh]);
    let (_, results) = open.compound();
    let OpRes::Open(Ok(ok)) = results[1] else { panic!("{:?}", results[1]) };
    assert_eq!(ok.flags & open_result_flag::CONFIRM, 0, "it is no late copy");
    assert_eq!(delegated(&open).map(|(_, recall)| recall), Some(false));
    assert_eq!(old.lock(ok.stateid, &handle, true), Status::NFS4_OK);
    world.end_grace();
    assert_eq!(names_of(&world), ["other"], "it has not said that it has reclaimed all");
    assert_eq!(old.open("new", share_access::READ).status(), Status::NFS4_OK);
    assert_eq!(names_of(&world), ["old", "other"]);
    assert_eq!(other.open("file", share_access::BOTH).status(), Status::NFS4ERR_DELAY, "the delegation is recalled");
}

fn names_of(world: &World) -> Vec<String> {
    let names = world.inner().store.as_ref().unwrap().clients().into_keys();
    let mut names: Vec<String> = names.map(|name| String::from_utf8(name.owner.to_vec()).unwrap()).collect();
    names.sort();
    names
}

impl Old<'_> {
    fn reclaim_args(&mut self, access: u32, held: DelegationType4) -> OpenArgs<'static> {
        self.seqid += 1;
        OpenArgs { seqid: self.seqid, owner: self.owner(), ..self.peer.reclaim_args(access, held) }
    }

    fn lock(&mut self, open_stateid: Stateid4, handle: &[u8], reclaim: bool) -> Status {
        self.seqid += 1;
        let lock_owner = StateOwner4::new(self.peer.client_id, b"locker").unwrap();
        let new = OpenToLockOwner { open_seqid: self.seqid, open_stateid, lock_seqid: 0, lock_owner };
        let args = LockArgs { kind: LockType::Write, reclaim, offset: 0, length: 10, locker: Locker::New(new) };
        self.peer.bare(&[Peer::put_fh(handle), OpArgs::Lock(args)]).status()
    }
}

#[test]
fn what_was_committed_outlives_a_crash() {
    let folder = Folder::new("committed");
    let world = World::with(Config { save_every: Duration::from_secs(3600), ..folder.config() });
    let mut a = world.client("a");
    let opens: Vec<Reply> = ["committed", "stable", "lost"].map(|name| a.open(name, share_access::BOTH)).into();
    let put = |a: &mut Peer<'_>, n: usize, stable| {
        let open: &Reply = &opens[n];
        a.put(&open.handle(), open.open().stateid, stable, b"content")
    };
    let written = put(&mut a, 0, StableHow4::Unstable);
    assert_eq!(written.committed, StableHow4::Unstable);
    assert_eq!(a.commit(&opens[0].handle()), written.verifier);
    assert_eq!(put(&mut a, 1, StableHow4::FileSync).committed, StableHow4::FileSync);
    a.open("made", share_access::READ);
    assert_eq!(put(&mut a, 2, StableHow4::Unstable).committed, StableHow4::Unstable);
    world.kill();
    let world = folder.begin();
    let mut a = Peer::returned(&world, "a");
    let mut content = |n: usize| {
        let handle = opens[n].handle();
        let open = a.reclaim(&handle, share_access::BOTH, DelegationType4::None);
        assert_eq!(open.status(), Status::NFS4_OK);
        a.content(&handle, open.open().stateid).unwrap()
    };
    assert_eq!((content(0), content(1), content(2)), (b"content".to_vec(), b"content".to_vec(), Vec::new()));
    let handle = opens[2].handle();
    let open = a.reclaim(&handle, share_access::BOTH, DelegationType4::None).open().stateid;
    let again = a.put(&handle, open, StableHow4::Unstable, b"again");
    assert_ne!(again.verifier, written.verifier, "the client sees that it has to write again");
    assert_eq!(a.look_up(b"made"), Status::NFS4_OK);
    // At an orderly end all is stored.
    drop(world);
    let world = folder.begin();
    let mut a = Peer::returned(&world, "a");
    let open = a.reclaim(&handle, share_access::BOTH, DelegationType4::None);
    assert_eq!(a.content(&handle, open.open().stateid).unwrap(), b"again");
}

#[test]
fn a_file_that_was_removed_while_open_is_there_until_nobody_can_reclaim_it() {
    let folder = Folder::new("nameless");
    let world = folder.begin();
    let mut a = world.client("a");
    let handles = ["reclaimed", "given up"].map(|name| {
        let handle = a.open(name, share_access::BOTH | share_access::WANT_NO_DELEG).handle();
        let remove = OpArgs::Remove(RemoveArgs { target: name.as_bytes() });
        assert_eq!(a.call(&[OpArgs::PutRootFh, remove]).status(), Status::NFS4_OK);
        handle
    });
    drop(world);
    let world = folder.begin();
    assert_eq!(world.server.files(), 2);
    let mut a = Peer::returned(&world, "a");
    let open = a.reclaim(&handles[0], share_access::BOTH, DelegationType4::None);
    assert_eq!(a.complete(), Status::NFS4_OK);
    assert_eq!(world.server.files(), 1);
    assert_eq!(a.call(&[Peer::put_fh(&handles[1])]).status(), Status::NFS4ERR_STALE);
    assert_eq!(a.close(open.open().stateid, &handles[0]), Status::NFS4_OK);
    assert_eq!(world.server.files(), 0);
    drop(world);
    assert_eq!(folder.begin().server.files(), 0);
}

#[test]
fn the_grace_period_lasts_while_somebody_reclaims_but_not_for_ever() {
    let folder = Folder::new("late");
    let world = folder.begin();
    let handle = world.client("a").open("file", share_access::READ).handle();
    drop(world);
    let world = folder.begin();
    let mut a = Peer::returned(&world, "a");
    let lease_ns = Config::default().lease.as_nanos() as u64;
    let second_ns = 1_000_000_000;
    for (now_ns, on) in [(lease_ns - second_ns, true), (lease_ns + second_ns, true), (2 * lease_ns + second_ns, false)]
    {
        a.now_ns = now_ns;
        let status = a.reclaim(&handle, share_access::READ, DelegationType4::None).status();
        assert_eq!(status, Status::NFS4_OK);
        world.inner().end_grace_in_time(now_ns + second_ns);
        assert_eq!(world.is_in_grace(), on, "{now_ns}");
    }
    assert_eq!(a.reclaim(&handle, share_access::READ, DelegationType4::None).status(), Status::NFS4ERR_NO_GRACE);
}

#[test]
fn one_server_at_a_time_has_the_state() {
    let folder = Folder::new("once");
    let _world = folder.begin();
    let builder = Builder::new().reactors(1).backend(Backend::Epoll);
    let refused = Server::new(folder.config(), builder, Arc::new(())).unwrap_err();
    assert!(refused.to_string().contains("another process has it open"), "{refused}");
}

/// Whoever could not be told apart from somebody who has lost something stays shut out: nothing new is given while the disk
/// does not take it.
#[test]
fn nothing_new_is_given_while_the_store_fails() {
    let folder = Folder::new("fails");
    let world = folder.begin();
    world.client("a").open("file", share_access::READ);
    drop(world);
    let world = folder.begin();
    let mut a = Peer::returned(&world, "a");
    let store = world.inner().store.as_ref().unwrap();
    store.close();
    world.inner().end_grace_in_time(u64::MAX);
    assert!(world.is_in_grace(), "that it is over could not be written");
    let mut b = Peer::returned(&world, "b");
    assert_eq!(b.complete(), Status::NFS4ERR_DELAY);
    let file = world.inner().files.lookup(crate::files::ROOT, b"file").unwrap();
    let handle = world.inner().files.handle(file);
    let commit = OpArgs::Commit(CommitArgs { offset: 0, count: 0 });
    assert_eq!(
        a.call(&[Peer::put_fh(&handle), OpArgs::Open(a.reclaim_args(share_access::BOTH, DelegationType4::None))])
            .status(),
        Status::NFS4_OK
    );
    let made = OpArgs::Create(CreateArgs {
        kind: CreateType::Plain(file_type::DIRECTORY),
        name: b"made",
        attributes: Fattr::NONE,
    });
    assert_eq!(a.call(&[OpArgs::PutRootFh, made]).status(), Status::NFS4ERR_IO);
    assert_eq!(a.call(&[Peer::put_fh(&handle), commit]).status(), Status::NFS4ERR_IO);
    store.reopen().unwrap();
    assert_eq!(a.call(&[Peer::put_fh(&handle), commit]).status(), Status::NFS4_OK);
    assert_eq!((b.complete(), a.complete(), world.is_in_grace()), (Status::NFS4_OK, Status::NFS4_OK, false));
    world.kill();
    let world = folder.begin();
    assert!(
        world.inner().files.lookup(crate::files::ROOT, b"made").is_ok(),
        "what could not be written was written then"
    );
}

#[test]
fn the_state_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("mode");
    drop(folder.begin());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.0), 0o700);
}
