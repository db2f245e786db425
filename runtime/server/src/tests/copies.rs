//! NFSv4.2: COPY that goes on after its reply, and what becomes of it; SEEK.

use super::*;
use crate::arena::Id;
use crate::copies::{Request, Way};
use crate::copy_ops::COPY_SEQID;
use crate::stateids::Kind;
use ringback_rpc::nfs4::callback::{CbOffloadArgs, OffloadInfo};
use ringback_rpc::session::{SequenceId, SlotId};

const MIB: u64 = 1 << 20;
const END: &[u8] = b"the end";

/// A file that is open for reading and writing.
struct Opened {
    stateid: Stateid4,
    handle: Vec<u8>,
}

impl Opened {
    fn id(&self, world: &World) -> Id {
        world.inner().files.parse_handle(&self.handle).unwrap()
    }
}

/// A client of minor version 2.
fn client<'a>(world: &'a World, name: &str) -> Peer<'a> {
    let mut peer = world.stranger(name);
    peer.minor_version = 2;
    peer.establish();
    peer
}

fn opened(peer: &mut Peer<'_>, name: &str) -> Opened {
    let reply = peer.open(name, share_access::BOTH);
    Opened { stateid: reply.open().stateid, handle: reply.handle() }
}

/// A file of so many bytes, of which only the last are data.
fn sparse(peer: &mut Peer<'_>, name: &str, bytes: u64) -> Opened {
    let file = opened(peer, name);
    let offset = bytes - END.len() as u64;
    let write = WriteArgs { stateid: file.stateid, offset, stable: StableHow4::FileSync, data: END };
    assert_eq!(peer.call(&[Peer::put_fh(&file.handle), OpArgs::Write(write)]).status(), Status::NFS4_OK);
    file
}

fn all_of(from: &Opened, to: &Opened) -> CopyArgs<'static> {
    CopyArgs {
        src_stateid: from.stateid,
        dst_stateid: to.stateid,
        src_offset: 0,
        dst_offset: 0,
        count: 0,
        consecutive: false,
        synchronous: false,
        source_servers: List::EMPTY,
    }
}

fn copy(peer: &mut Peer<'_>, from: &Opened, to: &Opened, args: CopyArgs<'_>) -> Result<CopyOk, Status> {
    let (from, to) = (Peer::put_fh(&from.handle), Peer::put_fh(&to.handle));
    match peer.call(&[from, OpArgs::SaveFh, to, OpArgs::Copy(args)]).last() {
        OpRes::Copy(Ok(ok)) => Ok(ok),
        other => Err(other.status()),
    }
}

fn read_end(peer: &mut Peer<'_>, file: &Opened, bytes: u64) -> Vec<u8> {
    let read = ReadArgs { stateid: file.stateid, offset: bytes - END.len() as u64, count: 100 };
    match peer.call(&[Peer::put_fh(&file.handle), OpArgs::Read(read)]).last() {
        OpRes::Read(Ok(ok)) => ok.data.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// The next CB_OFFLOAD, which is answered: file, copy, end.
fn told(peer: &Peer<'_>) -> (Vec<u8>, Stateid4, OffloadInfo) {
    let record = peer.callbacks.recv_timeout(PATIENCE).unwrap();
    let (header, sequence, args) = parse_call(&record[4..]);
    let CbArgs::Offload(CbOffloadArgs { fh, stateid, info }) = args else { panic!("no CB_OFFLOAD: {args:?}") };
    peer.answer_call(&header, sequence, &CbRes::Offload(Status::NFS4_OK));
    (fh.as_bytes().to_vec(), stateid, info)
}

fn status_of(peer: &mut Peer<'_>, stateid: Stateid4) -> Result<OffloadStatusOk, Status> {
    match peer.call(&[OpArgs::PutRootFh, OpArgs::OffloadStatus(OffloadStatusArgs { stateid })]).last() {
        OpRes::OffloadStatus(Ok(ok)) => Ok(ok),
        other => Err(other.status()),
    }
}

fn cancel(peer: &mut Peer<'_>, stateid: Stateid4) -> Status {
    peer.call(&[OpArgs::PutRootFh, OpArgs::OffloadCancel(OffloadCancelArgs { stateid })]).status()
}

/// Begins a copy that nobody works on.
fn begun(world: &World, peer: &Peer<'_>, from: &Opened, to: &Opened, left: u64) -> (Id, Stateid4) {
    begun_by(world, peer, from, to, left, None)
}

/// The same, by a request.
fn begun_by(
    world: &World,
    peer: &Peer<'_>,
    from: &Opened,
    to: &Opened,
    left: u64,
    request: Option<Request>,
) -> (Id, Stateid4) {
    let client = world.inner().clients().records[&peer.client_id.0].client.clone().unwrap();
    let way = Way { from: from.id(world), from_offset: 0, to: to.id(world), to_offset: 0, left };
    let id = world.inner().copies.begin(&client, way, request, &world.inner().callbacks).unwrap();
    (id, world.inner().files.stateid(Kind::Copy, id, COPY_SEQID))
}

#[test]
fn a_large_copy_goes_on_after_its_reply_and_its_end_is_told() {
    let world = World::new();
    let mut peer = client(&world, "a");
    let (from, to) = (sparse(&mut peer, "from", 3 * MIB + 5), opened(&mut peer, "to"));
    let ok = copy(&mut peer, &from, &to, all_of(&from, &to)).unwrap();
    assert_eq!((ok.response.count, ok.requirements.synchronous), (0, false));
    let (handle, stateid, info) = told(&peer);
    assert_eq!((handle, Some(stateid)), (to.handle.clone(), ok.response.callback_id));
    let OffloadInfo::Done(response) = info else { panic!("{info:?}") };
    assert_eq!((response.count, response.callback_id), (3 * MIB + 5, None));
    assert_eq!(response.verifier, ok.response.verifier);
    assert_eq!(read_end(&mut peer, &to, 3 * MIB + 5), END);
    world.until("it is forgotten", || world.inner().copies.lock().len() == 0);
    assert_eq!(status_of(&mut peer, stateid), Err(Status::NFS4ERR_BAD_STATEID));
}

#[test]
fn a_copy_is_asked_about_and_cancelled_by_its_client() {
    let world = World::new();
    let (mut peer, mut other) = (client(&world, "a"), client(&world, "b"));
    let (from, to) = (sparse(&mut peer, "from", 3 * MIB), opened(&mut peer, "to"));
    let (id, stateid) = begun(&world, &peer, &from, &to, 3 * MIB);
    assert_eq!(status_of(&mut peer, stateid), Ok(OffloadStatusOk { count: 0, complete: None }));
    assert!(world.inner().copy_on(id));
    assert_eq!(status_of(&mut peer, stateid), Ok(OffloadStatusOk { count: MIB, complete: None }));
    assert_eq!(status_of(&mut other, stateid), Err(Status::NFS4ERR_BAD_STATEID));
    assert_eq!(cancel(&mut other, stateid), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(cancel(&mut peer, stateid), Status::NFS4_OK);
    assert!(!world.inner().copy_on(id), "nothing is left of it");
    assert_eq!(cancel(&mut peer, stateid), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(world.server.runtime().stats().started, 0, "nobody is told");
}

#[test]
fn a_copy_that_has_ended_cannot_be_cancelled() {
    let world = World::new();
    let mut peer = client(&world, "a");
    let (from, to) = (sparse(&mut peer, "from", 100), opened(&mut peer, "to"));
    let (id, stateid) = begun(&world, &peer, &from, &to, 100);
    assert!(!world.inner().copy_on(id));
    let ended = OffloadStatusOk { count: 100, complete: Some(Status::NFS4_OK) };
    assert_eq!(status_of(&mut peer, stateid), Ok(ended));
    assert_eq!(cancel(&mut peer, stateid), Status::NFS4ERR_COMPLETE_ALREADY);
    let seen = world.server.inspect(1).unwrap();
    let callback = &seen.clients[0].callbacks[0];
    assert_eq!((callback.operation.as_str(), callback.file.is_some()), ("CB_OFFLOAD", true));
    assert_eq!(told(&peer).1, stateid);
}

#[test]
fn a_copy_that_fails_tells_how_far_it_came() {
    let world = World::with(Config { data_bytes_max: MIB + MIB / 2, ..Config::default() });
    let mut peer = client(&world, "a");
    let (from, to) = (sparse(&mut peer, "from", 3 * MIB), opened(&mut peer, "to"));
    copy(&mut peer, &from, &to, all_of(&from, &to)).unwrap();
    assert_eq!(told(&peer).2, OffloadInfo::Failed { status: Status::NFS4ERR_NOSPC, bytes_copied: MIB });
}

/// The next callback: the calls that it refers to, with sequence id and session slot, and the header for its answer.
fn referring(peer: &Peer<'_>) -> (Vec<(u32, u32)>, Vec<u8>, CbSequenceRes) {
    let record = peer.callbacks.recv_timeout(PATIENCE).unwrap();
    let (header, sequence, _) = parse_call(&record[4..]);
    let mut r = Reader::new(&record[4..]);
    CallHeader::decode(&mut r).unwrap();
    CbCompoundArgs::decode(&mut r).unwrap();
    let CbArgs::Sequence(args) = CbArgs::decode(&mut r).unwrap() else { panic!("no CB_SEQUENCE") };
    let mut calls = Vec::new();
    for list in args.referring_call_lists.iter() {
        assert_eq!(list.session_id, peer.session);
        calls.extend(list.calls.iter().map(|call| (call.sequence_id, call.slot_id)));
    }
    (calls, header, sequence)
}

#[test]
fn the_end_of_a_copy_does_not_overtake_its_begin() {
    let world = World::new();
    let mut peer = client(&world, "a");
    let (from, to) = (sparse(&mut peer, "from", 100), opened(&mut peer, "to"));
    for goes_on in [false, true] {
        let request = Request { session: peer.session, slot: SlotId(0), id: SequenceId(peer.next - 1) };
        let (id, stateid) = begun_by(&world, &peer, &from, &to, 100, Some(request));
        if goes_on {
            // Whoever uses the slot again has the reply.
            peer.call(&[]);
        }
        assert!(!world.inner().copy_on(id));
        let (calls, header, sequence) = referring(&peer);
        assert_eq!(calls, if goes_on { vec![] } else { vec![(request.id.0, 0)] });
        peer.answer_call(&header, sequence, &CbRes::Offload(Status::NFS4_OK));
        world.until("it is forgotten", || world.inner().copies.lock().len() == 0);
        assert_eq!(status_of(&mut peer, stateid), Err(Status::NFS4ERR_BAD_STATEID));
    }
}

#[test]
fn a_client_that_could_not_be_told_may_ask() {
    let world = World::new();
    let mut peer = client(&world, "a");
    let (from, to) = (sparse(&mut peer, "from", 100), opened(&mut peer, "to"));
    let ended = OffloadStatusOk { count: 100, complete: Some(Status::NFS4_OK) };
    for cancels in [false, true] {
        let (id, stateid) = begun(&world, &peer, &from, &to, 100);
        assert!(!world.inner().copy_on(id));
        let (_, header, sequence) = referring(&peer);
        peer.answer_call(&header, sequence, &CbRes::Offload(Status::NFS4ERR_SERVERFAULT));
        world.until("nobody is told any more", || world.server.runtime().stats().in_flight == 0);
        match cancels {
            true => assert_eq!(cancel(&mut peer, stateid), Status::NFS4ERR_COMPLETE_ALREADY),
            false => assert_eq!(status_of(&mut peer, stateid), Ok(ended)),
        }
        assert_eq!(status_of(&mut peer, stateid), Err(Status::NFS4ERR_BAD_STATEID), "it was told");
        assert_eq!(world.inner().copies.lock().len(), 0);
    }
    // With the client goes what it has not asked for.
    let (id, _) = begun(&world, &peer, &from, &to, 100);
    assert!(!world.inner().copy_on(id));
    let (_, header, sequence) = referring(&peer);
    peer.answer_call(&header, sequence, &CbRes::Offload(Status::NFS4ERR_SERVERFAULT));
    world.until("nobody is told any more", || world.server.runtime().stats().in_flight == 0);
    assert_eq!(world.inner().copies.lock().len(), 1);
    world.inner().drop_client(&mut world.inner().clients(), peer.client_id.0).unwrap();
    assert_eq!(world.inner().copies.lock().len(), 0);
}

#[test]
fn a_copy_takes_its_time() {
    let copy_rate = std::num::NonZeroU64::new(64 * MIB);
    let world = World::with(Config { copy_rate, ..Config::default() });
    let mut peer = client(&world, "a");
    let (from, to) = (sparse(&mut peer, "from", 8 * MIB), opened(&mut peer, "to"));
    let begin = Instant::now();
    copy(&mut peer, &from, &to, all_of(&from, &to)).unwrap();
    assert!(matches!(told(&peer).2, OffloadInfo::Done(_)));
    assert!(begin.elapsed() >= Duration::from_millis(7 * 1000 / 64), "a machine cannot be too slow for that");
    assert_eq!(read_end(&mut peer, &to, 8 * MIB), END);
}

#[test]
fn a_client_that_goes_takes_its_copies_along() {
    let world = World::new();
    let mut peer = client(&world, "a");
    let (from, to) = (sparse(&mut peer, "from", 3 * MIB), opened(&mut peer, "to"));
    let (id, _) = begun(&world, &peer, &from, &to, 3 * MIB);
    world.inner().drop_client(&mut world.inner().clients(), peer.client_id.0).unwrap();
    assert_eq!(world.inner().copies.lock().len(), 0);
    assert!(!world.inner().copy_on(id));
}

#[test]
fn a_copy_whose_client_cannot_be_told_is_forgotten() {
    let world = World::new();
    let mut peer = client(&world, "a");
    let (from, to) = (sparse(&mut peer, "from", 100), opened(&mut peer, "to"));
    let (id, _) = begun(&world, &peer, &from, &to, 100);
    world.server.runtime().drain(Duration::ZERO).unwrap();
    assert!(!world.inner().copy_on(id));
    assert_eq!(world.inner().copies.lock().len(), 0);
}

#[test]
fn a_small_copy_is_done_with_its_reply() {
    let world = World::new();
    let mut peer = client(&world, "a");
    let (from, to) = (sparse(&mut peer, "from", 1000), opened(&mut peer, "to"));
    let ok = copy(&mut peer, &from, &to, all_of(&from, &to)).unwrap();
    assert_eq!((ok.response.callback_id, ok.response.count, ok.requirements.synchronous), (None, 1000, true));
    assert_eq!(read_end(&mut peer, &to, 1000), END);
    // Who wants to wait gets a piece.
    let large = sparse(&mut peer, "large", 2 * MIB);
    let waiting = CopyArgs { synchronous: true, ..all_of(&large, &to) };
    assert_eq!(copy(&mut peer, &large, &to, waiting).unwrap().response.count, MIB);
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let world = World::new();
    let mut peer = client(&world, "a");
    let (from, to) = (sparse(&mut peer, "from", 1000), opened(&mut peer, "to"));
    let args = all_of(&from, &to);
    let mut refused = |args, to: &Opened| copy(&mut peer, &from, to, args).unwrap_err();
    assert_eq!(refused(CopyArgs { src_offset: 1001, ..args }, &to), Status::NFS4ERR_INVAL);
    assert_eq!(refused(CopyArgs { count: 1001, ..args }, &to), Status::NFS4ERR_INVAL);
    assert_eq!(refused(CopyArgs { src_offset: u64::MAX, count: 2, ..args }, &to), Status::NFS4ERR_INVAL);
    assert_eq!(refused(CopyArgs { dst_offset: u64::MAX, ..args }, &to), Status::NFS4ERR_INVAL);
    let onto_itself = CopyArgs { dst_stateid: from.stateid, dst_offset: 999, ..args };
    assert_eq!(refused(onto_itself, &from), Status::NFS4ERR_INVAL);
    assert_eq!(refused(CopyArgs { dst_stateid: from.stateid, ..args }, &to), Status::NFS4ERR_BAD_STATEID);
    let servers = [NetLoc4::Name(b"elsewhere")];
    let elsewhere = CopyArgs { source_servers: List::Slice(&servers), ..args };
    assert_eq!(refused(elsewhere, &to), Status::NFS4ERR_NOTSUPP);
    assert_eq!(peer.call(&[OpArgs::PutRootFh, OpArgs::Copy(args)]).status(), Status::NFS4ERR_NOFILEHANDLE);
    peer.minor_version = 1;
    let (head, results) = (OpArgs::PutRootFh, OpRes::Other(Op::ILLEGAL, Status::NFS4ERR_OP_ILLEGAL));
    assert_eq!(peer.call(&[head, OpArgs::Copy(args)]).last(), results, "minor version 2 brought it");
}

#[test]
fn data_and_holes_are_found() {
    let world = World::new();
    let mut peer = client(&world, "a");
    let file = sparse(&mut peer, "file", MIB);
    let mut seek = |offset, what| {
        let args = SeekArgs { stateid: file.stateid, offset, what };
        match peer.call(&[Peer::put_fh(&file.handle), OpArgs::Seek(args)]).last() {
            OpRes::Seek(Ok(SeekOk { eof, offset })) => Ok((eof, offset)),
            other => Err(other.status()),
        }
    };
    let last_chunk = MIB - (64 << 10);
    assert_eq!(seek(5, DataContent4::Hole), Ok((false, 5)));
    assert_eq!(seek(5, DataContent4::Data), Ok((false, last_chunk)));
    assert_eq!(seek(MIB - 1, DataContent4::Data), Ok((false, MIB - 1)));
    assert_eq!(seek(last_chunk, DataContent4::Hole), Ok((true, MIB)));
    assert_eq!(seek(MIB, DataContent4::Data), Err(Status::NFS4ERR_NXIO));
}

#[test]
fn room_is_reserved_and_given_back() {
    let world = World::with(Config { data_bytes_max: 2 * MIB, ..Config::default() });
    let mut peer = client(&world, "a");
    let file = sparse(&mut peer, "file", 1000);
    let used = || world.inner().files.data.used();
    let before = used();
    let mut range = |offset, length, give_back: bool| {
        let args = AllocateArgs { stateid: file.stateid, offset, length };
        let op = if give_back { OpArgs::Deallocate(args) } else { OpArgs::Allocate(args) };
        peer.call(&[Peer::put_fh(&file.handle), op]).status()
    };
    assert_eq!(range(0, MIB, false), Status::NFS4_OK);
    assert!(used() >= MIB);
    assert_eq!(range(MIB, 2 * MIB, false), Status::NFS4ERR_NOSPC);
    assert_eq!(range(u64::MAX, 2, false), Status::NFS4ERR_INVAL);
    assert_eq!(range(0, MIB, true), Status::NFS4_OK);
    assert!(used() <= before);
    let size = world.inner().files.with_file(world.inner().file_at("file").unwrap(), |file| file.size());
    assert_eq!(size, Ok(MIB), "a hole is a part of the file");
    let args = AllocateArgs { stateid: Stateid4::CURRENT, offset: 0, length: 1 };
    let of_root = [OpArgs::PutRootFh, OpArgs::Allocate(args)];
    assert_eq!(peer.call(&of_root).status(), Status::NFS4ERR_BAD_STATEID);
    let args = AllocateArgs { stateid: Stateid4::ANONYMOUS, offset: 0, length: 1 };
    assert_eq!(peer.call(&[OpArgs::PutRootFh, OpArgs::Allocate(args)]).status(), Status::NFS4ERR_ISDIR);
}
