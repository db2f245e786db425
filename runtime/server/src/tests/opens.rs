//! Filehandles, attributes, OPEN and CLOSE.

use super::*;

fn lookup(name: &[u8]) -> OpArgs<'_> {
    OpArgs::Lookup(LookupArgs { name })
}

#[test]
fn files_are_found_by_name_and_by_handle() {
    let world = World::new();
    let mut peer = world.client("a");
    assert_eq!(peer.call(&[OpArgs::GetFh]).status(), Status::NFS4ERR_NOFILEHANDLE);
    assert_eq!(peer.call(&[OpArgs::PutRootFh, lookup(b"file")]).status(), Status::NFS4ERR_NOENT);
    let handle = peer.open("file", share_access::READ).handle();
    assert_eq!(peer.call(&[OpArgs::PutRootFh, lookup(b"file"), OpArgs::GetFh]).handle(), handle);
    assert_eq!(peer.call(&[Peer::put_fh(&handle), OpArgs::GetFh]).handle(), handle);
    assert_eq!(peer.call(&[Peer::put_fh(&handle), lookup(b"x")]).status(), Status::NFS4ERR_NOTDIR);
    assert_eq!(peer.call(&[OpArgs::PutRootFh, lookup(b"..")]).status(), Status::NFS4ERR_BADNAME);
    assert_eq!(peer.call(&[Peer::put_fh(&handle[..5])]).status(), Status::NFS4ERR_BADHANDLE);
    let mut stale = handle.clone();
    stale[11] ^= 1;
    assert_eq!(peer.call(&[Peer::put_fh(&stale)]).status(), Status::NFS4ERR_STALE);
    stale[0] ^= 1;
    assert_eq!(peer.call(&[Peer::put_fh(&stale)]).status(), Status::NFS4ERR_STALE, "of another life of the server");
}

#[test]
fn attributes_come_in_order_and_only_the_known_ones() {
    let world = World::new();
    let mut peer = world.client("a");
    let handle = peer.open("file", share_access::READ).handle();
    let everything = everything();
    let reply = peer.call(&[Peer::put_fh(&handle), OpArgs::GetAttr(GetAttrArgs { request: everything })]);
    let OpRes::GetAttr(Ok(ok)) = reply.last() else { panic!("{:?}", reply.last()) };
    let mut r = Reader::new(ok.attributes.values);
    let supported = Bitmap4::decode(&mut r).unwrap();
    assert_eq!(supported.and(&everything), ok.attributes.mask, "supported_attrs comes first");
    assert_eq!(r.u32("type").unwrap(), 1);
    let two = Bitmap4::of(&[attr::MODE, attr::TYPE]);
    let reply = peer.call(&[OpArgs::PutRootFh, OpArgs::GetAttr(GetAttrArgs { request: two })]);
    let OpRes::GetAttr(Ok(ok)) = reply.last() else { panic!("{:?}", reply.last()) };
    assert_eq!((ok.attributes.mask, ok.attributes.values), (two, &[0, 0, 0, 2, 0, 0, 1, 0o377][..]));
}

#[test]
fn creates_of_every_kind() {
    let world = World::new();
    let mut peer = world.client("a");
    let base = peer.open_args(b"f", share_access::READ, false);
    assert_eq!(peer.open_with(base).status(), Status::NFS4ERR_NOENT);
    let exclusive = |v: u8| OpenArgs { how: OpenHow::Exclusive(Verifier4([v; 8])), ..base };
    let made = peer.open_with(exclusive(1));
    assert_eq!(made.status(), Status::NFS4_OK);
    assert_eq!(peer.open_with(exclusive(1)).status(), Status::NFS4_OK, "a retry of the create");
    assert_eq!(peer.open_with(exclusive(2)).status(), Status::NFS4ERR_EXIST);
    let guarded = OpenArgs { how: OpenHow::Guarded(Fattr::NONE), ..base };
    assert_eq!(peer.open_with(guarded).status(), Status::NFS4ERR_EXIST);
    let empty = OpenArgs { how: OpenHow::Unchecked(Fattr::NONE), claim: OpenClaim::Null(b"plain"), ..base };
    assert_eq!(peer.open_with(empty).status(), Status::NFS4_OK);
    let zero = OpenArgs { how: OpenHow::Exclusive(Verifier4([0; 8])), ..empty };
    assert_eq!(peer.open_with(zero).status(), Status::NFS4ERR_EXIST, "made by no exclusive create");
    let both = Fattr { mask: Bitmap4::of(&[attr::SIZE, attr::MODE]), values: &[0; 12] };
    let truncate = OpenArgs { how: OpenHow::Unchecked(both), ..empty };
    assert_eq!(peer.open_with(truncate).open().attributes_set, Bitmap4::of(&[attr::SIZE]));
    let one = Fattr { mask: Bitmap4::of(&[attr::SIZE]), values: &1u64.to_be_bytes() };
    let longer = OpenArgs { how: OpenHow::Unchecked(one), ..empty };
    assert_eq!(peer.open_with(longer).open().attributes_set, Bitmap4::EMPTY, "no other size is set");
    let mode = Fattr { mask: Bitmap4::of(&[attr::MODE]), values: &[0, 0, 1, 0o200] };
    let both = CreateVerifierAttributes { verifier: Verifier4([3; 8]), attributes: mode };
    let other = OpenArgs { how: OpenHow::Exclusive41(both), claim: OpenClaim::Null(b"g"), ..base };
    let reply = peer.open_with(other);
    let change = reply.open().change_info;
    assert_eq!(change.after, change.before + 1);
    assert_eq!(reply.open().attributes_set, mode.mask);
    let again = peer.open_with(base).open().change_info;
    assert_eq!((again.before, again.after), (change.after, change.after), "nothing was created");
}

#[test]
fn attributes_of_a_create_are_checked() {
    let world = World::new();
    let mut peer = world.client("a");
    let cases: [(&[u32], &[u8], Status); 6] = [
        (&[attr::MODE], &[0, 0, 0, 1], Status::NFS4_OK),
        (&[attr::MODE], &[0, 0], Status::NFS4ERR_BADXDR),
        (&[attr::MODE], &[0, 1, 0, 0], Status::NFS4ERR_INVAL),
        (&[attr::SIZE], &[0xff; 8], Status::NFS4ERR_FBIG),
        (&[attr::TYPE], &[0, 0, 0, 1], Status::NFS4ERR_INVAL),
        (&[12], &[0, 0, 0, 1], Status::NFS4ERR_ATTRNOTSUPP),
    ];
    for (n, (bits, values, status)) in cases.into_iter().enumerate() {
        let how = OpenHow::Unchecked(Fattr { mask: Bitmap4::of(bits), values });
        let name = format!("f{n}");
        let args = OpenArgs { how, ..peer.open_args(name.as_bytes(), share_access::READ, true) };
        assert_eq!(peer.open_with(args).status(), status, "case {n}");
    }
}

#[test]
fn arguments_of_open_are_checked() {
    let world = World::new();
    let mut peer = world.client("a");
    let handle = peer.open("f", share_access::READ).handle();
    let good = peer.open_args(b"f", share_access::READ, false);
    let by_handle = OpenArgs { claim: OpenClaim::FileHandle, ..good };
    let at = |peer: &mut Peer<'_>, fh: OpArgs<'_>, args| peer.call(&[fh, OpArgs::Open(args)]).status();
    let root = OpArgs::PutRootFh;
    let file = Peer::put_fh(&handle);
    let claim = |claim| OpenArgs { claim, ..good };
    let cases = [
        (file, by_handle, Status::NFS4_OK),
        (root, by_handle, Status::NFS4ERR_ISDIR),
        (file, good, Status::NFS4ERR_NOTDIR),
        (file, OpenArgs { how: OpenHow::Unchecked(Fattr::NONE), ..by_handle }, Status::NFS4ERR_INVAL),
        (root, OpenArgs { share_access: 0, ..good }, Status::NFS4ERR_INVAL),
        (root, OpenArgs { share_access: 0x8000_0001, ..good }, Status::NFS4ERR_INVAL),
        (root, OpenArgs { share_access: 0x0601, ..good }, Status::NFS4ERR_INVAL),
        (root, OpenArgs { share_deny: 4, ..good }, Status::NFS4ERR_INVAL),
        (root, claim(OpenClaim::Null(b"")), Status::NFS4ERR_INVAL),
        (root, claim(OpenClaim::Null(b".")), Status::NFS4ERR_BADNAME),
        (file, claim(OpenClaim::Previous(DelegationType4::None)), Status::NFS4ERR_NO_GRACE),
        (file, claim(OpenClaim::DelegPrevFileHandle), Status::NFS4ERR_NOTSUPP),
        (root, claim(OpenClaim::DelegatePrev(b"f")), Status::NFS4ERR_NOTSUPP),
    ];
    for (n, (fh, args, status)) in cases.into_iter().enumerate() {
        assert_eq!(at(&mut peer, fh, args), status, "case {n}");
    }
}

#[test]
fn share_reservations_hold_between_owners() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let no_delegation = share_access::WANT_NO_DELEG;
    let args = a.open_args(b"f", share_access::READ | no_delegation, true);
    let open = a.open_with(OpenArgs { share_deny: share_deny::WRITE, ..args });
    assert_eq!(open.status(), Status::NFS4_OK);
    assert_eq!(b.open("f", share_access::WRITE).status(), Status::NFS4ERR_SHARE_DENIED);
    let args = b.open_args(b"f", share_access::READ | no_delegation, false);
    let denies = OpenArgs { share_deny: share_deny::READ, ..args };
    assert_eq!(b.open_with(denies).status(), Status::NFS4ERR_SHARE_DENIED);
    assert_eq!(b.open_with(args).status(), Status::NFS4_OK);
    assert_eq!(a.close(open.open().stateid, &open.handle()), Status::NFS4_OK);
    assert_eq!(b.open("f", share_access::WRITE).status(), Status::NFS4_OK);
}

#[test]
fn an_open_is_upgraded_and_closed_by_its_current_stateid() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let first = a.open("f", share_access::READ);
    let second = a.open("f", share_access::WRITE).open().stateid;
    let handle = first.handle();
    assert_eq!((first.open().stateid.other, first.open().stateid.seqid + 1), (second.other, second.seqid));
    assert_eq!(a.close(first.open().stateid, &handle), Status::NFS4ERR_OLD_STATEID);
    let future = Stateid4 { seqid: second.seqid + 1, ..second };
    assert_eq!(a.close(future, &handle), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(b.close(second, &handle), Status::NFS4ERR_BAD_STATEID, "another's");
    let elsewhere = a.open("g", share_access::READ).handle();
    assert_eq!(a.close(second, &elsewhere), Status::NFS4ERR_BAD_STATEID, "another file");
    assert_eq!(a.close(Stateid4::ANONYMOUS, &handle), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(a.close(Stateid4 { seqid: 0, ..second }, &handle), Status::NFS4_OK);
    assert_eq!(a.close(second, &handle), Status::NFS4ERR_BAD_STATEID, "closed");
}

#[test]
fn the_current_stateid_runs_through_a_compound() {
    let world = World::new();
    let mut peer = world.client("a");
    let close = OpArgs::Close(CloseArgs { seqid: 0, open_stateid: Stateid4::CURRENT });
    let open = OpArgs::Open(peer.open_args(b"f", share_access::READ, true));
    let reply = peer.call(&[OpArgs::PutRootFh, open, close]);
    assert!(matches!(reply.last(), OpRes::Close(Ok(CloseOk { open_stateid: Stateid4::INVALID }))));
    let handle = peer.open("f", share_access::READ).handle();
    assert_eq!(peer.call(&[Peer::put_fh(&handle), close]).status(), Status::NFS4ERR_BAD_STATEID);
    let away = peer.call(&[OpArgs::PutRootFh, open, Peer::put_fh(&handle), close]);
    assert_eq!(away.status(), Status::NFS4ERR_BAD_STATEID, "PUTFH forgets it");
}

#[test]
fn files_and_opens_are_limited() {
    let world = World::with(Config { files_max: 1, opens_max: 2, ..Config::default() });
    let (mut a, mut b, mut c) = (world.client("a"), world.client("b"), world.client("c"));
    assert_eq!(a.open("f", share_access::READ).status(), Status::NFS4_OK);
    assert_eq!(a.open("g", share_access::READ).status(), Status::NFS4ERR_NOSPC);
    assert_eq!(b.open("f", share_access::READ).status(), Status::NFS4_OK);
    assert_eq!(c.open("f", share_access::READ).status(), Status::NFS4ERR_DELAY);
    assert_eq!(a.open("f", share_access::READ).status(), Status::NFS4_OK, "an upgrade needs no room");
}
