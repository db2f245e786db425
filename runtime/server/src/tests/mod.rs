//! Both ends in one process: clients that hand records to the server and read its replies, and answer its callbacks over a
//! transport of their own. No sockets; the runtime is the real one.

mod admin;
mod by_hand;
mod callbacks;
mod clients;
mod copies;
mod delegations;
mod directories;
mod files;
mod hostile;
mod inspect;
mod layouts;
mod minor0;
mod minor0_delegations;
mod opens;
mod replay;
mod restart;
mod sessions;
mod wants;

use crate::holder_attributes::Question;
use crate::{Config, Inner, Observer, Server};
use ringback::{Backend, Builder, CallbackKey, ConnectionId, Outbound, Outcome, Run, Transport};
use ringback_rpc::message::{AcceptStatus, AuthSys, CallHeader, OpaqueAuth, ReplyBody, ReplyHeader, flavor};
use ringback_rpc::nfs4::callback::{CbArgs, CbCompoundArgs, CbCompoundRes, CbRecallArgs, CbRes, CbSequenceRes};
use ringback_rpc::nfs4::fore::*;
use ringback_rpc::nfs4::*;
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts what the observer is told.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    done: AtomicU64,
    answered: AtomicU64,
    released: AtomicU64,
}

impl Observer for Counts {
    fn accepted(&self, _: CallbackKey) {
        self.accepted.fetch_add(1, SeqCst);
    }
    fn done(&self, _: &Run, outcome: &Outcome<'_>) {
        self.done.fetch_add(1, SeqCst);
        if matches!(outcome, Outcome::Replied { status: Status::NFS4_OK, .. }) {
            self.answered.fetch_add(1, SeqCst);
        }
    }
    fn released(&self, _: &Run) {
        self.released.fetch_add(1, SeqCst);
    }
}

struct World {
    server: Server,
    counts: Arc<Counts>,
}

impl World {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let counts = Arc::new(Counts::default());
        let builder = Builder::new().reactors(1).backend(Backend::Epoll);
        let server = Server::new(config, builder, Arc::clone(&counts) as _).unwrap();
        World { server, counts }
    }

    fn inner(&self) -> &Inner {
        &self.server.inner
    }

    /// A client that has not said anything yet.
    fn stranger(&self, name: &str) -> Peer<'_> {
        let (sender, callbacks) = channel();
        let connection = self.server.runtime().add_transport(Box::new(Wire(sender))).unwrap();
        Peer {
            world: self,
            name: name.to_owned(),
            verifier: 1,
            uid: 0,
            connection,
            callbacks,
            now_ns: 0,
            minor_version: 1,
            session: SessionId::default(),
            client_id: ClientId4(0),
            next: 1,
        }
    }

    /// A client with a session, its backchannel bound, and RECLAIM_COMPLETE done.
    fn client(&self, name: &str) -> Peer<'_> {
        let mut peer = self.stranger(name);
        peer.establish();
        peer
    }

    /// Waits until the reactors have brought something about.
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "still not: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.shutdown(Duration::from_millis(200));
    }
}

struct Wire(Sender<Vec<u8>>);

impl Transport for Wire {
    fn send(&mut self, outbound: Outbound) {
        let _ = self.0.send(outbound.bytes().to_vec());
        outbound.complete(Ok(()));
    }
    fn close(&mut self) {}
}

/// One client, its connection and its session.
struct Peer<'a> {
    world: &'a World,
    name: String,
    verifier: u64,
    uid: u32,
    connection: ConnectionId,
    callbacks: Receiver<Vec<u8>>,
    now_ns: u64,
    minor_version: u32,
    session: SessionId,
    client_id: ClientId4,
    /// The next sequence id of session slot 0.
    next: u32,
}

/// A recall as the client got it.
struct Recalled {
    header: Vec<u8>,
    sequence: CbSequenceRes,
    stateid: Stateid4,
    handle: Vec<u8>,
}

/// The bytes of a reply: RPC header, compound head, results.
struct Reply(Vec<u8>);

impl Reply {
    /// The status of the compound and its results.
    fn compound(&self) -> (Status, Vec<OpRes<'_>>) {
        let mut r = Reader::new(&self.0);
        let header = ReplyHeader::decode(&mut r).unwrap();
        assert!(matches!(header.body, ReplyBody::Accepted { status: AcceptStatus::Success, .. }), "{header:?}");
        let head = CompoundRes::decode(&mut r).unwrap();
        let results: Vec<OpRes<'_>> = (0..head.count).map(|_| OpRes::decode(&mut r).unwrap()).collect();
        r.finish("reply").unwrap();
        assert_eq!(head.status, results.last().map_or(head.status, OpRes::status));
        (head.status, results)
    }

    fn status(&self) -> Status {
        self.compound().0
    }

    fn last(&self) -> OpRes<'_> {
        *self.compound().1.last().unwrap()
    }

    /// What OPEN said, wherever it stands.
    fn open(&self) -> OpenOk<'static> {
        let (_, results) = self.compound();
        match results.iter().find(|r| r.op() == Op::OPEN) {
            Some(OpRes::Open(Ok(ok))) => {
                let delegation = match ok.delegation {
                    OpenDelegation4::Read(read) => {
                        assert_eq!((read.recall, read.permissions), (false, NfsAce4::NONE));
                        OpenDelegation4::Read(OpenReadDelegation4 {
                            stateid: read.stateid,
                            recall: false,
                            permissions: NfsAce4::NONE,
                        })
                    }
                    OpenDelegation4::NoneExt(why) => OpenDelegation4::NoneExt(why),
                    _ => OpenDelegation4::None,
                };
                OpenOk {
                    stateid: ok.stateid,
                    change_info: ok.change_info,
                    flags: ok.flags,
                    attributes_set: ok.attributes_set,
                    delegation,
                }
            }
            other => panic!("no successful OPEN: {other:?}"),
        }
    }

    fn handle(&self) -> Vec<u8> {
        let (_, results) = self.compound();
        match results.iter().find(|r| r.op() == Op::GETFH) {
            Some(OpRes::GetFh(Ok(ok))) => ok.object.as_bytes().to_vec(),
            other => panic!("no successful GETFH: {other:?}"),
        }
    }
}

fn channel_attrs() -> ChannelAttrs {
    ChannelAttrs {
        header_pad_bytes: 0,
        request_bytes_max: 1 << 20,
        response_bytes_max: 1 << 20,
        response_bytes_max_cached: 4096,
        operations_max: 8,
        requests_max: 16,
        rdma_ird: None,
    }
}

/// All attributes but those that are only set.
fn everything() -> Bitmap4 {
    let set_only = 1 << (attr::TIME_ACCESS_SET - 32) | 1 << (attr::TIME_MODIFY_SET - 32);
    Bitmap4::from_words(&[u32::MAX, !set_only, u32::MAX]).unwrap()
}

fn encode(values: &[&dyn Encode]) -> Vec<u8> {
    let mut space = vec![0; 64 << 10];
    let mut w = Writer::new(&mut space);
    for value in values {
        value.encode(&mut w).unwrap();
    }
    w.written().to_vec()
}

impl<'a> Peer<'a> {
    fn credential(&self) -> Vec<u8> {
        encode(&[&AuthSys::new(0, b"test", self.uid, 0, &[]).unwrap()])
    }

    /// A COMPOUND record.
    fn record(&self, ops: &[OpArgs<'_>]) -> Vec<u8> {
        let body = self.credential();
        let header = CallHeader {
            xid: 7,
            program: NFS4_PROGRAM,
            version: NFS_V4,
            procedure: PROCEDURE_COMPOUND,
            credential: OpaqueAuth { flavor: flavor::AUTH_SYS, body: &body },
            verifier: OpaqueAuth::NONE,
        };
        let head = CompoundArgs { tag: b"test", minor_version: self.minor_version, count: ops.len() };
        let mut values: Vec<&dyn Encode> = vec![&header, &head];
        values.extend(ops.iter().map(|op| op as &dyn Encode));
        encode(&values)
    }

    fn send(&self, record: &[u8]) -> Reply {
        let inner = self.world.inner();
        let mut space = vec![0; inner.reply_bytes_max()];
        let mut w = Writer::new(&mut space);
        let mut suspended = inner.handle(self.connection, self.now_ns, record, &mut w).unwrap();
        while let Some(waiting) = suspended {
            assert_eq!(waiting.question, Question::Storage, "the call has to wait");
            w.rewind(0);
            suspended = inner.resume(record, *waiting, None, self.now_ns, &mut w).unwrap();
        }
        Reply(w.written().to_vec())
    }

    /// A compound outside a session.
    fn bare(&self, ops: &[OpArgs<'_>]) -> Reply {
        self.send(&self.record(ops))
    }

    fn sequence_args(&self) -> SequenceArgs {
        SequenceArgs {
            session_id: self.session,
            sequence_id: self.next,
            slot_id: 0,
            highest_slot_id: 0,
            cache_this: false,
        }
    }

    /// A compound on the session, with SEQUENCE in front.
    fn call(&mut self, ops: &[OpArgs<'_>]) -> Reply {
        let mut all = vec![OpArgs::Sequence(self.sequence_args())];
        all.extend_from_slice(ops);
        let reply = self.bare(&all);
        self.next = self.next.wrapping_add(1);
        reply
    }

    fn exchange_id_args(&self, flags: u32) -> OpArgs<'_> {
        OpArgs::ExchangeId(ExchangeIdArgs {
            client_owner: ClientOwner {
                verifier: Verifier4(self.verifier.to_be_bytes()),
                owner_id: Opaque4::new(self.name.as_bytes()).unwrap(),
            },
            flags,
            state_protect: StateProtectArgs::None,
            impl_id: None,
        })
    }

    fn exchange_id(&self, flags: u32) -> Result<(ClientId4, u32, u32), Status> {
        match self.bare(&[self.exchange_id_args(flags)]).last() {
            OpRes::ExchangeId(Ok(ok)) => Ok((ok.client_id, ok.sequence_id, ok.flags)),
            other => Err(other.status()),
        }
    }

    fn create_session_args(&self, sequence_id: u32) -> CreateSessionArgs<'static> {
        const OFFERED: [CallbackSecParms<'static>; 1] = [CallbackSecParms::None];
        CreateSessionArgs {
            client_id: self.client_id,
            sequence_id,
            flags: create_session_flag::CONN_BACK_CHAN,
            fore_channel: channel_attrs(),
            // One callback in a call, as the Linux client has it.
            back_channel: ChannelAttrs { operations_max: 2, ..channel_attrs() },
            callback_program: 0x4000_0000,
            security: List::Slice(&OFFERED),
        }
    }

    fn create_session(&self, args: &CreateSessionArgs<'_>) -> Result<CreateSessionOk, Status> {
        match self.bare(&[OpArgs::CreateSession(*args)]).last() {
            OpRes::CreateSession(Ok(ok)) => Ok(ok),
            other => Err(other.status()),
        }
    }

    fn establish(&mut self) {
        let (id, sequence, _) = self.exchange_id(0).unwrap();
        self.client_id = id;
        self.session = self.create_session(&self.create_session_args(sequence)).unwrap().session_id;
        self.next = 1;
        let complete = OpArgs::ReclaimComplete(ReclaimCompleteArgs { one_fs: false });
        assert_eq!(self.call(&[complete]).status(), Status::NFS4_OK);
        self.settle();
    }

    /// Waits until the reactor has taken over what was registered: after that no SEQUENCE says that the path is down.
    fn settle(&mut self) {
        self.settle_but(0);
    }

    /// The same, while SEQUENCE says something else.
    fn settle_but(&mut self, flags: u32) {
        std::thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        loop {
            match self.call(&[]).last() {
                OpRes::Sequence(Ok(ok)) if ok.status_flags == flags => return,
                other => assert!(start.elapsed() < PATIENCE, "{other:?}"),
            }
        }
    }

    fn open_args<'r>(&self, name: &'r [u8], access: u32, create: bool) -> OpenArgs<'r> {
        OpenArgs {
            seqid: 0,
            share_access: access,
            share_deny: share_deny::NONE,
            owner: StateOwner4::new(ClientId4(0), b"owner").unwrap(),
            how: if create { OpenHow::Unchecked(Fattr::NONE) } else { OpenHow::NoCreate },
            claim: OpenClaim::Null(name),
        }
    }

    /// PUTROOTFH, OPEN, GETFH.
    fn open_with(&mut self, args: OpenArgs<'_>) -> Reply {
        self.call(&[OpArgs::PutRootFh, OpArgs::Open(args), OpArgs::GetFh])
    }

    fn open(&mut self, name: &str, access: u32) -> Reply {
        let args = self.open_args(name.as_bytes(), access, true);
        self.open_with(args)
    }

    /// Opens for reading with a delegation, and gives it with the filehandle.
    fn take_delegation(&mut self, name: &str) -> (Stateid4, Vec<u8>) {
        let reply = self.open(name, share_access::READ);
        let delegation = reply.open().delegation;
        (delegation.stateid().unwrap_or_else(|| panic!("no delegation: {delegation:?}")), reply.handle())
    }

    fn put_fh(handle: &[u8]) -> OpArgs<'_> {
        OpArgs::PutFh(PutFhArgs { object: FileHandle::new(handle).unwrap() })
    }

    fn delegreturn(&mut self, stateid: Stateid4, handle: &[u8]) -> Status {
        let args = OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: stateid });
        self.call(&[Self::put_fh(handle), args]).status()
    }

    fn close(&mut self, stateid: Stateid4, handle: &[u8]) -> Status {
        let args = OpArgs::Close(CloseArgs { seqid: 0, open_stateid: stateid });
        self.call(&[Self::put_fh(handle), args]).status()
    }

    /// The next recall that the server sends.
    fn recalled(&self) -> Recalled {
        parse(&self.callbacks.recv_timeout(PATIENCE).unwrap())
    }

    /// Answers a recall.
    fn answer(&self, recalled: &Recalled, status: Status) {
        self.answer_call(&recalled.header, recalled.sequence, &CbRes::Recall(status));
    }

    /// Answers any callback.
    fn answer_call(&self, header: &[u8], sequence: CbSequenceRes, res: &CbRes<'_>) {
        let head = CbCompoundRes { status: res.status(), tag: b"", count: 2 };
        let mut record = header.to_vec();
        record.extend(encode(&[&head, &CbRes::Sequence(Ok(sequence)), res]));
        self.world.server.runtime().receive(self.connection, record);
    }
}

/// The marked records in a piece of the stream.
fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let Some((mark, _)) = bytes.split_first_chunk::<4>() {
        let len = 4 + (u32::from_be_bytes(*mark) & 0x7fff_ffff) as usize;
        records.push(&bytes[..len]);
        bytes = &bytes[len..];
    }
    records
}

/// Reads one marked recall.
fn parse(record: &[u8]) -> Recalled {
    let (header, sequence, args) = parse_call(&record[4..]);
    let CbArgs::Recall(CbRecallArgs { stateid, truncate: false, fh }) = args else { panic!("no CB_RECALL: {args:?}") };
    Recalled { header, sequence, stateid, handle: fh.as_bytes().to_vec() }
}

/// Reads a callback: the header of the answer, CB_SEQUENCE's part of it, and what is asked for.
fn parse_call(record: &[u8]) -> (Vec<u8>, CbSequenceRes, CbArgs<'_>) {
    let mut r = Reader::new(record);
    let header = CallHeader::decode(&mut r).unwrap();
    let head = CbCompoundArgs::decode(&mut r).unwrap();
    assert!(head.count == 2 && (1..=2).contains(&head.minor_version), "{head:?}");
    let CbArgs::Sequence(s) = CbArgs::decode(&mut r).unwrap() else { panic!("no CB_SEQUENCE") };
    let args = CbArgs::decode(&mut r).unwrap();
    r.finish("one call at a time").unwrap();
    let sequence = CbSequenceRes {
        session_id: s.session_id,
        sequence_id: s.sequence_id,
        slot_id: s.slot_id,
        highest_slot_id: 15,
        target_highest_slot_id: 15,
    };
    (encode(&[&ReplyHeader::success(header.xid)]), sequence, args)
}

#[test]
fn nothing_is_left_of_a_server_that_was_shut_down() {
    let world = World::new();
    let mut peer = world.client("a");
    peer.take_delegation("f");
    let inner = Arc::downgrade(&world.server.inner);
    drop(world);
    assert!(inner.upgrade().is_none(), "something still owns it");
}
