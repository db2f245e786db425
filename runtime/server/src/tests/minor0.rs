//! Minor version 0: clients without sessions, their owners and whose turn it is.

use super::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// The socket on which a client is called back. It is looked at by the test's own thread.
pub(super) struct Site {
    listener: Option<TcpListener>,
    stream: Option<TcpStream>,
    received: Vec<u8>,
    pub(super) address: SocketAddr,
}

/// A callback that a client has got.
pub(super) struct Called {
    pub(super) xid: u32,
    pub(super) ident: u32,
    pub(super) stateid: Stateid4,
}

impl Site {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        Site { listener: Some(listener), stream: None, received: Vec::new(), address }
    }

    /// Nobody is there any more.
    pub(super) fn close(&mut self) {
        (self.listener, self.stream) = (None, None);
    }

    /// Takes what has come. CB_NULL is answered, a CB_RECALL told.
    pub(super) fn look(&mut self) -> Option<Called> {
        if self.stream.is_none() {
            let (stream, _) = self.listener.as_ref()?.accept().ok()?;
            stream.set_nonblocking(true).unwrap();
            (self.stream, self.received) = (Some(stream), Vec::new());
        }
        let mut space = [0; 4096];
        match self.stream.as_mut()?.read(&mut space) {
            Ok(0) => self.stream = None,
            Ok(len) => self.received.extend_from_slice(&space[..len]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let len = 4 + (u32::from_be_bytes(*self.received.first_chunk()?) & 0x7fff_ffff) as usize;
        if self.received.len() < len {
            return None;
        }
        let record: Vec<u8> = self.received.drain(..len).skip(4).collect();
        let mut r = Reader::new(&record);
        let header = CallHeader::decode(&mut r).unwrap();
        if header.procedure == 0 {
            assert_eq!(header.credential, OpaqueAuth::NONE);
            self.send(&encode(&[&ReplyHeader::success(header.xid)]));
            return None;
        }
        let head = CbCompoundArgs::decode(&mut r).unwrap();
        assert_eq!((head.minor_version, head.count), (0, 1), "{head:?}");
        let CbArgs::Recall(args) = CbArgs::decode(&mut r).unwrap() else { panic!("no CB_RECALL") };
        Some(Called { xid: header.xid, ident: head.callback_ident, stateid: args.stateid })
    }

    pub(super) fn answer(&mut self, called: &Called, status: Status) {
        let head = CbCompoundRes { status, tag: b"", count: 1 };
        self.send(&encode(&[&ReplyHeader::success(called.xid), &head, &CbRes::Recall(status)]));
    }

    fn send(&mut self, record: &[u8]) {
        let mark = 0x8000_0000 | record.len() as u32;
        let bytes = [&mark.to_be_bytes()[..], record].concat();
        self.stream.as_mut().unwrap().write_all(&bytes).unwrap();
    }
}

/// A client of minor version 0, with one open-owner.
pub(super) struct Old<'a> {
    pub(super) peer: Peer<'a>,
    pub(super) site: Site,
    pub(super) owner: &'static [u8],
    /// The last seqid of the owner.
    pub(super) seqid: u32,
}

impl<'a> Old<'a> {
    pub(super) fn new(world: &'a World, name: &str) -> Self {
        let mut peer = world.stranger(name);
        peer.minor_version = 0;
        let old = Old { peer, site: Site::new(), owner: b"owner", seqid: 0 };
        world.inner().minor0.peers().insert(old.peer.connection, SocketAddr::new(old.site.address.ip(), 700));
        old
    }

    /// A confirmed client.
    pub(super) fn established(world: &'a World, name: &str) -> Self {
        let mut old = Self::new(world, name);
        let (id, verifier) = old.set(7).unwrap();
        assert_eq!(old.confirm(id, verifier), Status::NFS4_OK);
        old.peer.client_id = id;
        old
    }

    /// A client that is called back, whose open-owner is confirmed by the open of a file of its own.
    pub(super) fn with_path(world: &'a World, name: &str) -> Self {
        let mut old = Self::established(world, name);
        old.until("the path is up", |old| old.is_up());
        let (stateid, handle) = old.open_confirmed(&format!("own of {name}"), share_access::READ);
        assert_eq!(old.close(stateid, &handle).status(), Status::NFS4_OK);
        old
    }

    fn is_up(&self) -> bool {
        let client = self.peer.world.inner().client_of_id(self.peer.client_id, self.peer.now_ns);
        client.is_ok_and(|client| client.has_path())
    }

    /// Answers CB_NULL until something is so.
    pub(super) fn until(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "still not: {what}");
            assert!(self.site.look().is_none(), "a callback that nobody expects");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next callback.
    pub(super) fn called(&mut self) -> Called {
        let start = Instant::now();
        loop {
            if let Some(called) = self.site.look() {
                return called;
            }
            assert!(start.elapsed() < PATIENCE, "no callback");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn set(&self, callback_ident: u32) -> Result<(ClientId4, Verifier4), Status> {
        let port = self.site.address.port();
        let address = format!("127.0.0.1.{}.{}", port >> 8, port & 255);
        let client = NfsClientId {
            verifier: Verifier4(self.peer.verifier.to_be_bytes()),
            id: Opaque4::new(self.peer.name.as_bytes()).unwrap(),
        };
        let location = NetAddr4::new(b"tcp", address.as_bytes()).unwrap();
        let callback = CbClient { program: 0x4000_0000, location };
        let reply = self.peer.bare(&[OpArgs::SetClientId(SetClientIdArgs { client, callback, callback_ident })]);
        match reply.last() {
            OpRes::SetClientId(Ok(ok)) => Ok((ok.client_id, ok.confirm)),
            OpRes::SetClientId(Err(SetClientIdFailure::InUse(by))) => {
                assert_eq!(by.netid(), b"tcp");
                Err(Status::NFS4ERR_CLID_INUSE)
            }
            other => Err(other.status()),
        }
    }

    pub(super) fn confirm(&self, client_id: ClientId4, confirm: Verifier4) -> Status {
        self.peer.bare(&[OpArgs::SetClientIdConfirm(SetClientIdConfirmArgs { client_id, confirm })]).status()
    }

    pub(super) fn renew(&self) -> Status {
        self.peer.bare(&[OpArgs::Renew(RenewArgs { client_id: self.peer.client_id })]).status()
    }

    fn next(&mut self) -> u32 {
        self.seqid += 1;
        self.seqid
    }

    pub(super) fn owner(&self) -> StateOwner4<'static> {
        StateOwner4::new(self.peer.client_id, self.owner).unwrap()
    }

    pub(super) fn open_args<'r>(&mut self, name: &'r str, access: u32) -> OpenArgs<'r> {
        let args = self.peer.open_args(name.as_bytes(), access, true);
        OpenArgs { seqid: self.next(), owner: self.owner(), ..args }
    }

    pub(super) fn open(&mut self, name: &str, access: u32) -> Reply {
        let args = self.open_args(name, access);
        self.peer.bare(&[OpArgs::PutRootFh, OpArgs::Open(args), OpArgs::GetFh])
    }

    fn on(&self, handle: &[u8], op: OpArgs<'_>) -> Reply {
        self.peer.bare(&[Peer::put_fh(handle), op])
    }

    fn open_confirm(&mut self, open_stateid: Stateid4, handle: &[u8]) -> Reply {
        let seqid = self.next();
        self.on(handle, OpArgs::OpenConfirm(OpenConfirmArgs { open_stateid, seqid }))
    }

    /// Opens, and confirms if that is asked for.
    pub(super) fn open_confirmed(&mut self, name: &str, access: u32) -> (Stateid4, Vec<u8>) {
        let reply = self.open(name, access);
        let (opened, handle) = (reply.open(), reply.handle());
        if opened.flags & open_result_flag::CONFIRM == 0 {
            return (opened.stateid, handle);
        }
        assert_eq!(opened.delegation, OpenDelegation4::None, "no delegation before the confirmation");
        match self.open_confirm(opened.stateid, &handle).last() {
            OpRes::OpenConfirm(Ok(ok)) => (ok.open_stateid, handle),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn close(&mut self, open_stateid: Stateid4, handle: &[u8]) -> Reply {
        let seqid = self.next();
        self.on(handle, OpArgs::Close(CloseArgs { seqid, open_stateid }))
    }

    fn read(&self, stateid: Stateid4, handle: &[u8]) -> Status {
        self.on(handle, OpArgs::Read(ReadArgs { stateid, offset: 0, count: 10 })).status()
    }

    pub(super) fn delegreturn(&self, deleg_stateid: Stateid4, handle: &[u8]) -> Status {
        self.on(handle, OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid })).status()
    }

    /// LOCK by a new lock-owner, of the first ten bytes.
    fn lock_new(&mut self, open_stateid: Stateid4, lock_owner: &[u8], handle: &[u8]) -> Reply {
        let lock_owner = StateOwner4::new(self.peer.client_id, lock_owner).unwrap();
        let new = OpenToLockOwner { open_seqid: self.next(), open_stateid, lock_seqid: 0, lock_owner };
        self.on(handle, lock(Locker::New(new), 0))
    }

    fn lock_existing(&self, lock_stateid: Stateid4, lock_seqid: u32, offset: u64, handle: &[u8]) -> Reply {
        self.on(handle, lock(Locker::Existing(ExistingLockOwner { lock_stateid, lock_seqid }), offset))
    }

    fn unlock(&self, lock_stateid: Stateid4, seqid: u32, length: u64, handle: &[u8]) -> Reply {
        let args = UnlockArgs { kind: LockType::Write, seqid, lock_stateid, offset: 0, length };
        self.on(handle, OpArgs::Unlock(args))
    }
}

fn lock(locker: Locker<'_>, offset: u64) -> OpArgs<'_> {
    OpArgs::Lock(LockArgs { kind: LockType::WriteWait, reclaim: false, offset, length: 10, locker })
}

fn locked(reply: &Reply) -> Stateid4 {
    match reply.last() {
        OpRes::Lock(Ok(ok)) => ok.lock_stateid,
        OpRes::Unlock(Ok(ok)) => ok.lock_stateid,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_is_known_when_it_has_confirmed() {
    let world = World::new();
    let mut old = Old::new(&world, "a");
    old.peer.client_id = ClientId4(1);
    assert_eq!(old.renew(), Status::NFS4ERR_STALE_CLIENTID, "another life of the server");
    let (id, verifier) = old.set(7).unwrap();
    old.peer.client_id = id;
    assert_eq!(old.renew(), Status::NFS4ERR_STALE_CLIENTID, "not confirmed");
    assert_eq!(old.confirm(id, Verifier4([9; 8])), Status::NFS4ERR_STALE_CLIENTID);
    old.peer.uid = 1;
    assert_eq!(old.confirm(id, verifier), Status::NFS4ERR_CLID_INUSE, "by somebody else");
    old.peer.uid = 0;
    assert_eq!(old.confirm(id, verifier), Status::NFS4_OK);
    assert_eq!(old.confirm(id, verifier), Status::NFS4_OK, "a retry");
    assert_eq!(old.renew(), Status::NFS4_OK);
    // It is none of minor version 1.
    let mut peer = world.stranger("a");
    peer.client_id = id;
    assert_eq!(peer.create_session(&peer.create_session_args(1)).err(), Some(Status::NFS4ERR_STALE_CLIENTID));
    assert!(peer.exchange_id(0).is_ok_and(|(other, ..)| other != id));
    let destroy = OpArgs::DestroyClientId(DestroyClientIdArgs { client_id: id });
    assert_eq!(peer.bare(&[destroy]).status(), Status::NFS4ERR_STALE_CLIENTID);
}

#[test]
fn one_that_was_not_confirmed_gives_way_to_the_next() {
    let world = World::new();
    let old = Old::new(&world, "a");
    let (first, verifier) = old.set(7).unwrap();
    let (second, later) = old.set(8).unwrap();
    assert_ne!((first, verifier), (second, later));
    assert_eq!(old.confirm(first, verifier), Status::NFS4ERR_STALE_CLIENTID);
    assert_eq!(old.confirm(second, later), Status::NFS4_OK);
}

#[test]
fn a_restarted_client_loses_what_it_held_when_it_confirms() {
    let world = World::new();
    let mut old = Old::established(&world, "a");
    let (stateid, handle) = old.open_confirmed("f", share_access::READ);
    let before = old.peer.client_id;
    old.peer.verifier = 2;
    let (id, verifier) = old.set(7).unwrap();
    assert_ne!(id, before);
    assert_eq!(old.read(stateid, &handle), Status::NFS4_OK, "not before it confirms");
    assert_eq!(old.confirm(id, verifier), Status::NFS4_OK);
    assert_eq!(old.read(stateid, &handle), Status::NFS4ERR_EXPIRED);
    assert_eq!(old.renew(), Status::NFS4ERR_EXPIRED, "the former id");
    assert_eq!(world.server.clients().len(), 1);
    assert_eq!(world.inner().files.opens.used(), 0);
}

#[test]
fn a_name_that_holds_something_is_in_use() {
    let world = World::new();
    let mut old = Old::established(&world, "a");
    let (stateid, handle) = old.open_confirmed("f", share_access::READ);
    let mut other = Old::new(&world, "a");
    (other.peer.uid, other.peer.verifier) = (1, 2);
    assert_eq!(other.set(7).err(), Some(Status::NFS4ERR_CLID_INUSE));
    assert_eq!(old.close(stateid, &handle).status(), Status::NFS4_OK);
    let (id, verifier) = other.set(7).unwrap();
    // It may hold something again by then.
    let (stateid, _) = old.open_confirmed("f", share_access::READ);
    assert_eq!(other.confirm(id, verifier), Status::NFS4ERR_CLID_INUSE);
    assert_eq!(old.close(stateid, &handle).status(), Status::NFS4_OK);
    assert_eq!(other.confirm(id, verifier), Status::NFS4_OK);
    assert_eq!(old.renew(), Status::NFS4ERR_EXPIRED);
}

#[test]
fn a_silent_client_keeps_what_nobody_else_wants() {
    let world = World::new();
    let mut old = Old::established(&world, "a");
    let args = OpenArgs { share_deny: share_deny::BOTH, ..old.open_args("f", share_access::BOTH) };
    let opened = old.peer.bare(&[OpArgs::PutRootFh, OpArgs::Open(args), OpArgs::GetFh]);
    let reply = old.open_confirm(opened.open().stateid, &opened.handle());
    let OpRes::OpenConfirm(Ok(ok)) = reply.last() else { panic!("{:?}", reply.last()) };
    let lease_ns = world.inner().config.lease.as_nanos() as u64;
    let mut other = world.client("b");
    assert_eq!(other.open("f", share_access::READ).status(), Status::NFS4ERR_SHARE_DENIED);
    // A stateid renews the lease.
    old.peer.now_ns += lease_ns;
    assert_eq!(old.read(ok.open_stateid, &opened.handle()), Status::NFS4_OK);
    other.now_ns = 2 * lease_ns;
    assert_eq!(other.open("f", share_access::READ).status(), Status::NFS4ERR_SHARE_DENIED);
    other.now_ns += 2;
    other.now_ns += 1_000_000_000;
    assert_eq!(other.open("f", share_access::READ).status(), Status::NFS4_OK);
    assert_eq!(old.renew(), Status::NFS4ERR_EXPIRED);
    assert_eq!(old.open("g", share_access::READ).status(), Status::NFS4ERR_EXPIRED);
    assert_eq!(old.read(ok.open_stateid, &opened.handle()), Status::NFS4ERR_EXPIRED);
}

#[test]
fn nobody_is_confirmed_while_another_process_takes_over() {
    let world = World::new();
    let old = Old::established(&world, "old");
    world.inner().close_to_minor0_clients();
    assert_eq!(old.renew(), Status::NFS4ERR_EXPIRED);
    let again = Old::new(&world, "old");
    let (id, verifier) = again.set(7).unwrap();
    assert_eq!(again.confirm(id, verifier), Status::NFS4ERR_DELAY);
    world.inner().open_to_minor0_clients();
    assert_eq!(again.confirm(id, verifier), Status::NFS4_OK);
}

#[test]
fn an_open_of_a_new_owner_is_good_for_nothing_until_it_is_confirmed() {
    let world = World::new();
    let mut old = Old::established(&world, "a");
    let reply = old.open("f", share_access::READ);
    let (opened, handle) = (reply.open(), reply.handle());
    assert!(opened.flags & open_result_flag::CONFIRM != 0 && opened.delegation == OpenDelegation4::None);
    assert_eq!(old.read(opened.stateid, &handle), Status::NFS4ERR_BAD_STATEID);
    let mut copy = Old { peer: world.stranger("a"), site: Site::new(), owner: b"owner", seqid: old.seqid };
    (copy.peer.minor_version, copy.peer.client_id) = (0, old.peer.client_id);
    assert_eq!(copy.close(opened.stateid, &handle).status(), Status::NFS4ERR_BAD_STATEID);
    let confirmed = old.open_confirm(opened.stateid, &handle);
    let OpRes::OpenConfirm(Ok(ok)) = confirmed.last() else { panic!("{:?}", confirmed.last()) };
    assert_eq!(old.read(ok.open_stateid, &handle), Status::NFS4_OK);
    assert_eq!(old.open_confirm(ok.open_stateid, &handle).status(), Status::NFS4ERR_BAD_STATEID, "twice");
    old.seqid -= 1;
    assert_eq!(old.open("g", share_access::READ).open().flags & open_result_flag::CONFIRM, 0, "the owner is known");
}

#[test]
fn an_open_that_nobody_confirms_gives_way() {
    let world = World::new();
    let mut old = Old::established(&world, "a");
    let late = old.open("f", share_access::WRITE).open().stateid;
    // The client has never sent that, and does not know its seqid.
    old.seqid = 4711;
    let (_, handle) = old.open_confirmed("g", share_access::READ);
    assert_eq!(world.inner().files.opens.used(), 1, "the open of f is gone");
    assert_eq!(old.open_confirm(late, &handle).status(), Status::NFS4ERR_BAD_STATEID);
}

#[test]
fn the_last_request_of_an_owner_is_answered_again_and_not_executed() {
    let world = World::new();
    let mut old = Old::established(&world, "a");
    let repeats = |old: &Old<'_>, ops: &[OpArgs<'_>]| {
        let first = old.peer.bare(ops);
        assert_eq!(first.0, old.peer.bare(ops).0, "{ops:?}");
        first
    };
    let args = old.open_args("f", share_access::BOTH);
    let reply = repeats(&old, &[OpArgs::PutRootFh, OpArgs::Open(args), OpArgs::GetFh]);
    let (stateid, handle) = (reply.open().stateid, reply.handle());
    let confirm = OpArgs::OpenConfirm(OpenConfirmArgs { open_stateid: stateid, seqid: old.next() });
    repeats(&old, &[Peer::put_fh(&handle), confirm]);
    let other = old.open_args("other", share_access::BOTH);
    let wrong = OpenArgs { seqid: old.seqid - 1, ..other };
    let refused = old.peer.bare(&[OpArgs::PutRootFh, OpArgs::Open(wrong)]);
    assert_eq!(refused.status(), Status::NFS4ERR_BAD_SEQID, "another request with the seqid of the last");
    let reply = repeats(&old, &[OpArgs::PutRootFh, OpArgs::Open(other), OpArgs::GetFh]);
    let (stateid, handle) = (reply.open().stateid, reply.handle());
    assert_eq!(world.inner().files.opens.used(), 2);
    let gone = OpenArgs { how: OpenHow::NoCreate, ..old.open_args("missing", share_access::READ) };
    let failed = repeats(&old, &[OpArgs::PutRootFh, OpArgs::Open(gone)]);
    assert_eq!(failed.status(), Status::NFS4ERR_NOENT, "a failure is repeated as well");
    let downgrade = OpenDowngradeArgs { open_stateid: stateid, seqid: old.next(), share_access: 1, share_deny: 0 };
    let reply = repeats(&old, &[Peer::put_fh(&handle), OpArgs::OpenDowngrade(downgrade)]);
    let OpRes::OpenDowngrade(Ok(OpenDowngradeOk { open_stateid })) = reply.last() else { panic!("no downgrade") };
    let close = OpArgs::Close(CloseArgs { seqid: old.next(), open_stateid });
    repeats(&old, &[Peer::put_fh(&handle), close]);
    assert_eq!(world.inner().files.opens.used(), 1);
    // The next one, and the CLOSE is forgotten.
    assert_eq!(old.open("f", share_access::READ).status(), Status::NFS4_OK);
    assert_eq!(old.peer.bare(&[Peer::put_fh(&handle), close]).status(), Status::NFS4ERR_BAD_STATEID);
    old.seqid += 1;
    assert_eq!(old.open("f", share_access::READ).status(), Status::NFS4ERR_BAD_SEQID);
}

#[test]
fn what_does_not_count_takes_no_seqid() {
    let world = World::new();
    let mut old = Old::established(&world, "a");
    let (stateid, handle) = old.open_confirmed("f", share_access::READ);
    let args = old.open_args("g", share_access::READ);
    assert_eq!(old.peer.bare(&[OpArgs::Open(args)]).status(), Status::NFS4ERR_NOFILEHANDLE);
    assert_eq!(old.peer.bare(&[OpArgs::PutRootFh, OpArgs::Open(args)]).status(), Status::NFS4_OK);
    let later = Stateid4 { seqid: stateid.seqid + 1, ..stateid };
    assert_eq!(old.close(later, &handle).status(), Status::NFS4ERR_BAD_STATEID);
    old.seqid -= 1;
    assert_eq!(old.close(stateid, &handle).status(), Status::NFS4_OK);
}

#[test]
fn lock_owners_have_turns_of_their_own() {
    let world = World::new();
    let mut old = Old::established(&world, "a");
    let (open, handle) = old.open_confirmed("f", share_access::BOTH);
    let first = old.lock_new(open, b"first", &handle);
    old.seqid -= 1;
    assert_eq!(old.lock_new(open, b"first", &handle).0, first.0, "a retry, by the open-owner's seqid");
    let stateid = locked(&first);
    assert_eq!(old.lock_existing(stateid, 2, 10, &handle).status(), Status::NFS4ERR_BAD_SEQID);
    let second = old.lock_existing(stateid, 1, 10, &handle);
    assert_eq!(old.lock_existing(stateid, 1, 10, &handle).0, second.0, "a retry");
    let denied = old.lock_new(open, b"second", &handle);
    let OpRes::Lock(Err(LockFailure::Denied(by))) = denied.last() else { panic!("{:?}", denied.last()) };
    assert_eq!((by.offset, by.length, by.owner.owner()), (0, 20, &b"first"[..]));
    let test = |owner: &'static [u8]| {
        let owner = StateOwner4::new(old.peer.client_id, owner).unwrap();
        let args = LockTestArgs { kind: LockType::Read, offset: 5, length: 1, owner };
        old.on(&handle, OpArgs::LockTest(args)).status()
    };
    assert_eq!((test(b"first"), test(b"second")), (Status::NFS4_OK, Status::NFS4ERR_DENIED));
    let release = |owner: &'static [u8]| {
        let lock_owner = StateOwner4::new(old.peer.client_id, owner).unwrap();
        old.peer.bare(&[OpArgs::ReleaseLockOwner(ReleaseLockOwnerArgs { lock_owner })]).status()
    };
    assert_eq!(release(b"first"), Status::NFS4ERR_LOCKS_HELD);
    let unlocked = old.unlock(locked(&second), 2, 20, &handle);
    assert_eq!(old.unlock(locked(&second), 2, 20, &handle).0, unlocked.0, "a retry");
    assert_eq!((release(b"first"), release(b"unknown")), (Status::NFS4_OK, Status::NFS4_OK));
    assert_eq!(old.unlock(locked(&unlocked), 3, 20, &handle).status(), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(locked(&old.lock_new(open, b"first", &handle)).seqid, 1, "a new one of the same name");
    assert_eq!(old.close(open, &handle).status(), Status::NFS4ERR_LOCKS_HELD);
}

#[test]
fn clients_of_all_minor_versions_are_in_each_others_way() {
    let world = World::new();
    let mut new = world.client("new");
    let mut old = Old::established(&world, "old");
    let (open, handle) = old.open_confirmed("f", share_access::BOTH);
    locked(&old.lock_new(open, b"locker", &handle));
    let reply = new.open("f", share_access::BOTH);
    let lock_owner = StateOwner4::new(ClientId4(0), b"locker").unwrap();
    let first = OpenToLockOwner { open_seqid: 0, open_stateid: reply.open().stateid, lock_seqid: 0, lock_owner };
    let denied = new.call(&[Peer::put_fh(&handle), lock(Locker::New(first), 5)]);
    let OpRes::Lock(Err(LockFailure::Denied(by))) = denied.last() else { panic!("{:?}", denied.last()) };
    assert_eq!(by.owner.client_id, old.peer.client_id);
    locked(&new.call(&[Peer::put_fh(&handle), lock(Locker::New(first), 100)]));
    let test = LockTestArgs { kind: LockType::Read, offset: 100, length: 1, owner: old.owner() };
    assert_eq!(old.on(&handle, OpArgs::LockTest(test)).status(), Status::NFS4ERR_DENIED);
    let denying = OpenArgs { share_deny: share_deny::WRITE, ..new.open_args(b"g", share_access::READ, true) };
    assert_eq!(new.open_with(denying).status(), Status::NFS4_OK);
    assert_eq!(old.open("g", share_access::WRITE).status(), Status::NFS4ERR_SHARE_DENIED);
    // The stateid of one is none of the other.
    assert_eq!(old.read(reply.open().stateid, &handle), Status::NFS4ERR_BAD_STATEID);
    let read = OpArgs::Read(ReadArgs { stateid: open, offset: 0, count: 1 });
    assert_eq!(new.call(&[Peer::put_fh(&handle), read]).status(), Status::NFS4ERR_BAD_STATEID);
}

#[test]
fn what_minor_version_0_does_not_have_is_refused() {
    let world = World::new();
    let mut old = Old::established(&world, "a");
    let sequence = OpArgs::Sequence(old.peer.sequence_args());
    for op in [sequence, OpArgs::Other(Op::GETDEVICELIST), OpArgs::Other(Op(2))] {
        let reply = old.peer.bare(&[op]);
        assert_eq!(reply.last(), OpRes::Other(Op::ILLEGAL, Status::NFS4ERR_OP_ILLEGAL), "{op:?}");
    }
    for op in [Op::DELEGPURGE, Op::OPENATTR] {
        assert_eq!(old.peer.bare(&[OpArgs::Other(op)]).last(), OpRes::Other(op, Status::NFS4ERR_NOTSUPP));
    }
    // Nor do later ones have what is its own.
    let mut new = world.client("b");
    let renew = OpArgs::Renew(RenewArgs { client_id: ClientId4(1) });
    assert_eq!(new.call(&[renew]).status(), Status::NFS4ERR_NOTSUPP);
    let release = OpArgs::ReleaseLockOwner(ReleaseLockOwnerArgs { lock_owner: old.owner() });
    assert_eq!(new.call(&[release]).status(), Status::NFS4ERR_NOTSUPP);
    assert_eq!(old.peer.bare(&[OpArgs::RestoreFh]).status(), Status::NFS4ERR_RESTOREFH);
    let (stateid, handle) = old.open_confirmed("f", share_access::READ);
    let info = OpArgs::SecInfo(SecInfoArgs { name: b"f" });
    assert_eq!(old.peer.bare(&[OpArgs::PutRootFh, info, OpArgs::GetFh]).status(), Status::NFS4_OK);
    let by_handle = OpenArgs { claim: OpenClaim::FileHandle, ..old.open_args("f", share_access::READ) };
    assert_eq!(old.on(&handle, OpArgs::Open(by_handle)).status(), Status::NFS4ERR_BADXDR);
    old.seqid -= 1;
    let wants = share_access::READ | share_access::WANT_READ_DELEG;
    assert_eq!(old.open("f", wants).status(), Status::NFS4ERR_INVAL);
    old.open_confirmed("f", share_access::READ);
    let mut other = stateid.other;
    other[3] ^= 1;
    assert_eq!(old.read(Stateid4 { other, ..stateid }, &handle), Status::NFS4ERR_STALE_STATEID);
    assert_eq!(old.read(Stateid4 { seqid: 0, ..stateid }, &handle), Status::NFS4ERR_OLD_STATEID);
    assert_eq!(old.read(Stateid4::CURRENT, &handle), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(old.read(Stateid4::ANONYMOUS, &handle), Status::NFS4_OK);
    let asked = OpArgs::GetAttr(GetAttrArgs { request: Bitmap4::of(&[attr::SUPPORTED_ATTRS]) });
    let reply = old.on(&handle, asked);
    let OpRes::GetAttr(Ok(ok)) = reply.last() else { panic!("{:?}", reply.last()) };
    assert_eq!(ok.attributes.values.first_chunk(), Some(&[0, 0, 0, 2]), "two words");
    let many = vec![OpArgs::PutRootFh; world.inner().config.operations_max as usize + 1];
    assert_eq!(old.peer.bare(&many).status(), Status::NFS4ERR_RESOURCE);
}
