//! Names, content, attributes that are set, and locks.

use super::*;

fn put_root_then(ops: &[OpArgs<'static>]) -> Vec<OpArgs<'static>> {
    let mut all = vec![OpArgs::PutRootFh];
    all.extend_from_slice(ops);
    all
}

fn directory(name: &'static [u8]) -> OpArgs<'static> {
    let kind = CreateType::Plain(file_type::DIRECTORY);
    OpArgs::Create(CreateArgs { kind, name, attributes: Fattr::NONE })
}

const fn lookup(name: &[u8]) -> OpArgs<'_> {
    OpArgs::Lookup(LookupArgs { name })
}

const fn remove(target: &[u8]) -> OpArgs<'_> {
    OpArgs::Remove(RemoveArgs { target })
}

/// Moves `old` in the directory `from` to `new` in the directory `to`; an empty name is the root.
fn rename(
    peer: &mut Peer<'_>,
    from: &'static [u8],
    old: &'static [u8],
    to: &'static [u8],
    new: &'static [u8],
) -> Status {
    let mut ops = vec![OpArgs::PutRootFh];
    ops.extend((!from.is_empty()).then_some(lookup(from)));
    ops.extend([OpArgs::SaveFh, OpArgs::PutRootFh]);
    ops.extend((!to.is_empty()).then_some(lookup(to)));
    ops.push(OpArgs::Rename(RenameArgs { old_name: old, new_name: new }));
    peer.call(&ops).status()
}

fn write(peer: &mut Peer<'_>, handle: &[u8], stateid: Stateid4, offset: u64, data: &[u8]) -> Status {
    let args = WriteArgs { stateid, offset, stable: StableHow4::Unstable, data };
    peer.call(&[Peer::put_fh(handle), OpArgs::Write(args)]).status()
}

fn read(peer: &mut Peer<'_>, handle: &[u8], stateid: Stateid4, offset: u64) -> Result<(Vec<u8>, bool), Status> {
    let args = ReadArgs { stateid, offset, count: 4096 };
    match peer.call(&[Peer::put_fh(handle), OpArgs::Read(args)]).last() {
        OpRes::Read(Ok(ok)) => Ok((ok.data.to_vec(), ok.eof)),
        other => Err(other.status()),
    }
}

fn size(peer: &mut Peer<'_>, handle: &[u8]) -> u64 {
    let request = Bitmap4::of(&[attr::SIZE]);
    match peer.call(&[Peer::put_fh(handle), OpArgs::GetAttr(GetAttrArgs { request })]).last() {
        OpRes::GetAttr(Ok(ok)) => Reader::new(ok.attributes.values).u64("size").unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The names in the root directory, read with room for few at a time.
fn names(peer: &mut Peer<'_>) -> Vec<String> {
    let (mut cookie, mut names) = (0, Vec::new());
    loop {
        let request = Bitmap4::of(&[attr::TYPE]);
        let args = ReadDirArgs { cookie, verifier: Verifier4::default(), names_bytes_max: 0, bytes_max: 150, request };
        let reply = peer.call(&[OpArgs::PutRootFh, OpArgs::ReadDir(args)]);
        let OpRes::ReadDir(Ok(ok)) = reply.last() else { panic!("{:?}", reply.last()) };
        for entry in ok.entries.iter() {
            cookie = entry.cookie;
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
        }
        if ok.eof {
            names.sort();
            return names;
        }
    }
}

#[test]
fn directories_are_made_listed_moved_and_removed() {
    let world = World::new();
    let mut peer = world.client("a");
    for name in [b"a".as_slice(), b"b", b"c", b"d", b"e"] {
        assert_eq!(peer.call(&[OpArgs::PutRootFh, directory(name.to_vec().leak())]).status(), Status::NFS4_OK);
    }
    assert_eq!(peer.call(&put_root_then(&[directory(b"a")])).status(), Status::NFS4ERR_EXIST);
    assert_eq!(names(&mut peer), ["a", "b", "c", "d", "e"]);
    assert_eq!(rename(&mut peer, b"", b"b", b"a", b"b"), Status::NFS4_OK);
    assert_eq!(rename(&mut peer, b"", b"a", b"a", b"x"), Status::NFS4ERR_INVAL, "into itself");
    assert_eq!(peer.call(&put_root_then(&[remove(b"a")])).status(), Status::NFS4ERR_NOTEMPTY);
    let up = [lookup(b"a"), lookup(b"b"), OpArgs::LookupParent, lookup(b"b"), OpArgs::GetFh];
    assert_eq!(peer.call(&put_root_then(&up)).status(), Status::NFS4_OK);
    assert_eq!(peer.call(&put_root_then(&[OpArgs::LookupParent])).status(), Status::NFS4ERR_NOENT);
    assert_eq!(rename(&mut peer, b"", b"c", b"a", b"b"), Status::NFS4_OK, "an empty directory is replaced");
    assert_eq!(rename(&mut peer, b"", b"d", b"", b"a"), Status::NFS4ERR_EXIST, "one that is not is not");
    assert_eq!(peer.call(&put_root_then(&[lookup(b"a"), remove(b"b")])).status(), Status::NFS4_OK);
    assert_eq!(peer.call(&put_root_then(&[remove(b"a")])).status(), Status::NFS4_OK);
    assert_eq!(names(&mut peer), ["d", "e"]);
    assert_eq!(world.server.files(), 2);
}

#[test]
fn files_live_as_long_as_a_name_or_an_open() {
    let world = World::new();
    let mut peer = world.client("a");
    let reply = peer.open("f", share_access::BOTH);
    let (handle, stateid) = (reply.handle(), reply.open().stateid);
    let link = OpArgs::Link(LinkArgs { new_name: b"g" });
    let file = Peer::put_fh(&handle);
    assert_eq!(peer.call(&[file, OpArgs::SaveFh, OpArgs::PutRootFh, link]).status(), Status::NFS4_OK);
    assert_eq!(peer.call(&[file, OpArgs::SaveFh, OpArgs::PutRootFh, link]).status(), Status::NFS4ERR_EXIST);
    assert_eq!(rename(&mut peer, b"", b"missing", b"", b""), Status::NFS4ERR_INVAL);
    assert_eq!(rename(&mut peer, b"", b"f", b"", b"g"), Status::NFS4_OK);
    assert_eq!(names(&mut peer), ["f", "g"], "two names of one file");
    assert_eq!(write(&mut peer, &handle, stateid, 3, b"data"), Status::NFS4_OK);
    assert_eq!(peer.call(&put_root_then(&[remove(b"f"), remove(b"g")])).status(), Status::NFS4_OK);
    assert_eq!(read(&mut peer, &handle, stateid, 0), Ok((b"\0\0\0data".to_vec(), true)));
    assert_eq!((world.server.files(), world.inner().files.data.used() > 0), (1, true));
    assert_eq!(peer.close(stateid, &handle), Status::NFS4_OK);
    assert_eq!((world.server.files(), world.inner().files.data.used()), (0, 0));
    assert_eq!(peer.call(&[file]).status(), Status::NFS4ERR_STALE);
}

#[test]
fn content_is_read_and_written_as_the_stateid_allows() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let reply = a.open("f", share_access::READ | share_access::WANT_NO_DELEG);
    let (handle, reader) = (reply.handle(), reply.open().stateid);
    assert_eq!(write(&mut a, &handle, reader, 0, b"x"), Status::NFS4ERR_OPENMODE);
    assert_eq!(write(&mut a, &handle, Stateid4::ANONYMOUS, 0, b"0123456789"), Status::NFS4_OK);
    assert_eq!(read(&mut a, &handle, reader, 8), Ok((b"89".to_vec(), true)));
    assert_eq!(read(&mut b, &handle, reader, 8), Err(Status::NFS4ERR_BAD_STATEID), "another's");
    let four = Fattr { mask: Bitmap4::of(&[attr::SIZE]), values: &4u64.to_be_bytes() };
    let set = OpArgs::SetAttr(SetAttrArgs { stateid: Stateid4::ANONYMOUS, attributes: four });
    assert_eq!(a.call(&[Peer::put_fh(&handle), set]).status(), Status::NFS4_OK);
    assert_eq!((size(&mut a, &handle), read(&mut a, &handle, reader, 4)), (4, Ok((vec![], true))));
    assert_eq!(a.call(&[OpArgs::PutRootFh, set]).status(), Status::NFS4ERR_ISDIR);
    let verify = |attributes| OpArgs::Verify(VerifyArgs { attributes });
    assert_eq!(a.call(&[Peer::put_fh(&handle), verify(four)]).status(), Status::NFS4_OK);
    let five = Fattr { values: &5u64.to_be_bytes(), ..four };
    assert_eq!(a.call(&[Peer::put_fh(&handle), verify(five)]).status(), Status::NFS4ERR_NOT_SAME);
}

#[test]
fn content_is_limited() {
    let world = World::with(Config { data_bytes_max: 4096, ..Config::default() });
    let mut peer = world.client("a");
    let handle = peer.open("f", share_access::BOTH).handle();
    assert_eq!(write(&mut peer, &handle, Stateid4::ANONYMOUS, 0, &[1; 4096]), Status::NFS4_OK);
    assert_eq!(write(&mut peer, &handle, Stateid4::ANONYMOUS, 4096, &[1; 4096]), Status::NFS4ERR_NOSPC);
    assert_eq!(size(&mut peer, &handle), 4096);
}

#[test]
fn names_and_the_targets_of_links_are_limited() {
    let world = World::with(Config { files_max: 2, data_bytes_max: 8, ..Config::default() });
    let mut peer = world.client("a");
    let used = || (world.inner().files.files.used(), world.inner().files.data.used());
    let reply = peer.open("f", share_access::BOTH);
    let (handle, stateid) = (reply.handle(), reply.open().stateid);
    let link =
        |new_name| [Peer::put_fh(&handle), OpArgs::SaveFh, OpArgs::PutRootFh, OpArgs::Link(LinkArgs { new_name })];
    assert_eq!(peer.call(&link(b"g")).status(), Status::NFS4_OK);
    assert_eq!(peer.call(&link(b"h")).status(), Status::NFS4ERR_NOSPC);
    assert_eq!(peer.call(&put_root_then(&[remove(b"f")])).status(), Status::NFS4_OK);
    assert_eq!(peer.call(&link(b"g")).status(), Status::NFS4ERR_EXIST);
    assert_eq!(used(), (1, 0));
    let symlink = |target| {
        let kind = CreateType::Symlink(target);
        OpArgs::Create(CreateArgs { kind, name: b"s", attributes: Fattr::NONE })
    };
    assert_eq!(peer.call(&put_root_then(&[symlink(b"ninebytes")])).status(), Status::NFS4ERR_NOSPC);
    assert_eq!(peer.call(&put_root_then(&[symlink(b"eight...")])).status(), Status::NFS4_OK);
    assert_eq!(peer.call(&put_root_then(&[symlink(b"")])).status(), Status::NFS4ERR_INVAL);
    assert_eq!(used(), (2, 8));
    assert_eq!(peer.call(&put_root_then(&[remove(b"s"), remove(b"g")])).status(), Status::NFS4_OK);
    assert_eq!(peer.close(stateid, &handle), Status::NFS4_OK);
    assert_eq!(used(), (0, 0));
}

#[test]
fn what_cannot_be_opened_is_neither_made_nor_cut() {
    let world = World::with(Config { opens_max: 1, ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let reply = a.open("f", share_access::BOTH | share_access::WANT_NO_DELEG);
    let (handle, stateid) = (reply.handle(), reply.open().stateid);
    assert_eq!(write(&mut a, &handle, stateid, 0, b"data"), Status::NFS4_OK);
    let zero = Fattr { mask: Bitmap4::of(&[attr::SIZE]), values: &[0; 8] };
    let cut = OpenArgs { how: OpenHow::Unchecked(zero), ..b.open_args(b"f", share_access::WRITE, true) };
    assert_eq!(b.open_with(cut).status(), Status::NFS4ERR_DELAY);
    assert_eq!(size(&mut a, &handle), 4);
    let made = OpenArgs { how: OpenHow::Guarded(Fattr::NONE), ..b.open_args(b"g", share_access::WRITE, true) };
    assert_eq!(b.open_with(made).status(), Status::NFS4ERR_DELAY);
    assert_eq!(a.close(stateid, &handle), Status::NFS4_OK);
    assert_eq!(b.open_with(made).status(), Status::NFS4_OK, "the same create again");
    assert_eq!(world.inner().files.opens.used(), 1);
}

#[test]
fn a_listing_with_attributes_that_are_only_set_is_refused() {
    let world = World::new();
    let mut peer = world.client("a");
    peer.open("f", share_access::READ);
    let request = Bitmap4::of(&[attr::TIME_MODIFY_SET]);
    let args = ReadDirArgs { cookie: 0, verifier: Verifier4::default(), names_bytes_max: 0, bytes_max: 4096, request };
    assert_eq!(peer.call(&[OpArgs::PutRootFh, OpArgs::ReadDir(args)]).status(), Status::NFS4ERR_INVAL);
}

#[test]
fn a_write_delegation_is_recalled_by_a_reader() {
    let world = World::with(Config { write_delegations: true, ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let reply = a.open("f", share_access::BOTH | share_access::WANT_WRITE_DELEG);
    let (_, results) = reply.compound();
    let stateid = results.iter().find_map(|r| match r {
        OpRes::Open(Ok(OpenOk { delegation: OpenDelegation4::Write(write), .. })) => Some(write.stateid),
        _ => None,
    });
    let (stateid, handle) = (stateid.expect("a write delegation"), reply.handle());
    assert_eq!(write(&mut a, &handle, stateid, 0, b"data"), Status::NFS4_OK);
    assert_eq!(size(&mut a, &handle), 4, "the holder itself is in nobody's way");
    assert_eq!(b.open("f", share_access::READ).status(), Status::NFS4ERR_DELAY);
    let recalled = a.recalled();
    a.answer(&recalled, Status::NFS4_OK);
    assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(size(&mut b, &handle), 4);
}

#[test]
fn who_is_silent_longer_than_the_lease_is_in_nobodys_way() {
    let world = World::with(Config { lease: Duration::from_secs(10), ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    a.take_delegation("f");
    b.now_ns = 20_000_000_000;
    assert_eq!(b.open("f", share_access::WRITE).status(), Status::NFS4_OK);
    a.now_ns = b.now_ns;
    assert_eq!(a.call(&[]).status(), Status::NFS4ERR_BADSESSION);
}

#[test]
fn locks_hold_between_owners_until_they_are_given_back() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let (ra, rb) = (a.open("f", share_access::BOTH), b.open("f", share_access::BOTH));
    let handle = ra.handle();
    let owner = StateOwner4::new(ClientId4(0), b"lock owner").unwrap();
    let lock = |peer: &mut Peer<'_>, open_stateid, offset, length| {
        let new = OpenToLockOwner { open_seqid: 0, open_stateid, lock_seqid: 0, lock_owner: owner };
        let locker = Locker::New(new);
        let args = LockArgs { kind: LockType::Write, reclaim: false, offset, length, locker };
        match peer.call(&[Peer::put_fh(&handle), OpArgs::Lock(args)]).last() {
            OpRes::Lock(Ok(ok)) => Ok(ok.lock_stateid),
            OpRes::Lock(Err(LockFailure::Denied(denied))) => {
                assert_eq!((denied.offset, denied.length, denied.owner.owner()), (0, 10, owner.owner()));
                Err(Status::NFS4ERR_DENIED)
            }
            other => Err(other.status()),
        }
    };
    let held = lock(&mut a, ra.open().stateid, 0, 10).unwrap();
    assert_eq!(lock(&mut b, rb.open().stateid, 9, u64::MAX), Err(Status::NFS4ERR_DENIED));
    assert!(lock(&mut b, rb.open().stateid, 10, 1).is_ok());
    let test = LockTestArgs { kind: LockType::Read, offset: 5, length: 1, owner };
    assert_eq!(b.call(&[Peer::put_fh(&handle), OpArgs::LockTest(test)]).status(), Status::NFS4ERR_DENIED);
    assert_eq!(a.close(ra.open().stateid, &handle), Status::NFS4ERR_LOCKS_HELD);
    let (kind, lock_stateid) = (LockType::Write, held);
    let unlock = UnlockArgs { kind, seqid: 0, lock_stateid, offset: 0, length: u64::MAX };
    assert_eq!(a.call(&[Peer::put_fh(&handle), OpArgs::Unlock(unlock)]).status(), Status::NFS4_OK);
    assert_eq!(b.call(&[Peer::put_fh(&handle), OpArgs::LockTest(test)]).status(), Status::NFS4_OK);
    assert_eq!(a.close(ra.open().stateid, &handle), Status::NFS4_OK);
}

#[test]
fn locks_of_one_file_are_limited() {
    let world = World::new();
    let mut peer = world.client("a");
    let mut lock = |name, offset| {
        let reply = peer.open(name, share_access::BOTH);
        let (handle, open_stateid) = (reply.handle(), reply.open().stateid);
        let lock_owner = StateOwner4::new(ClientId4(0), b"lock owner").unwrap();
        let new = OpenToLockOwner { open_seqid: 0, open_stateid, lock_seqid: 0, lock_owner };
        let args = LockArgs { kind: LockType::Write, reclaim: false, offset, length: 1, locker: Locker::New(new) };
        peer.call(&[Peer::put_fh(&handle), OpArgs::Lock(args)]).status()
    };
    // One is the lock-owner.
    let most = crate::locks::LOCKS_PER_FILE_MAX as u64 - 1;
    assert!((0..most).all(|n| lock("f", 2 * n) == Status::NFS4_OK));
    assert_eq!(lock("f", 2 * most), Status::NFS4ERR_DELAY);
    assert_eq!(lock("f", 1), Status::NFS4_OK, "it joins two");
    assert_eq!(lock("g", 0), Status::NFS4_OK);
}
