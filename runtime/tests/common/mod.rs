//! A client that answers callbacks over a real socket, and an embedder that counts.
#![allow(dead_code)] // each test file uses a part

mod mode;

#[allow(unused_imports)] // as above
pub use mode::{Mode, modes};

use ringback::{
    Backend, Builder, Call, CallbackKey, Done, Event, ForeChannel, Hooks, Outcome, Run, Runtime, Security,
    SessionConfig,
};
use ringback_rpc::message::{CallHeader, MessageType, ReplyHeader, peek};
use ringback_rpc::nfs4::callback::{CbArgs, CbCompoundArgs, CbCompoundRes, CbRecallArgs, CbRes, CbSequenceRes};
use ringback_rpc::nfs4::{FileHandle, Stateid4, Status};
use ringback_rpc::record::{self, RecordReader};
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The back ends that can be used here; says so when one cannot.
pub fn backends() -> Vec<Backend> {
    match Builder::new().backend(Backend::Uring).reactors(1).build(Arc::new(Counting::default()), Arc::new(Deaf)) {
        Ok(_) => vec![Backend::Uring, Backend::Epoll],
        Err(error) => {
            assert!(std::env::var_os("RINGBACK_REQUIRE_URING").is_none(), "io_uring is required: {error}");
            eprintln!("skipped: the io_uring back end ({error})");
            vec![Backend::Epoll]
        }
    }
}

/// What the hooks saw of one callback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub acquired: u32,
    pub prepared: u32,
    pub encoded: u32,
    pub done: Vec<String>,
    pub released: u32,
    pub dropped: u32,
}

/// An embedder that only counts, by cookie.
#[derive(Default)]
pub struct Counting {
    pub seen: Mutex<HashMap<u64, Seen>>,
    pub events: Mutex<Vec<Event>>,
}

impl Counting {
    fn see(&self, cookie: u64, f: impl FnOnce(&mut Seen)) {
        f(self.seen.lock().unwrap().entry(cookie).or_default());
    }

    pub fn of(&self, cookie: u64) -> Seen {
        self.seen.lock().unwrap().get(&cookie).cloned().unwrap_or_default()
    }

    pub fn released(&self) -> u32 {
        self.seen.lock().unwrap().values().map(|s| s.released).sum()
    }
}

/// The stateid of a callback carries its cookie.
pub fn stateid(cookie: u64) -> Stateid4 {
    let mut other = [0; 12];
    other[..8].copy_from_slice(&cookie.to_be_bytes());
    Stateid4 { seqid: 1, other }
}

impl Hooks for Counting {
    fn acquire(&self, cookie: u64) {
        self.see(cookie, |s| s.acquired += 1);
    }

    fn prepare(&self, run: &Run) -> ringback::Prepare {
        self.see(run.cookie, |s| s.prepared += 1);
        ringback::Prepare::Send
    }

    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.see(run.cookie, |s| s.encoded += 1);
        let fh = FileHandle::new(b"file").unwrap();
        CbRecallArgs { stateid: stateid(run.cookie), truncate: false, fh }.encode(args)
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        self.see(run.cookie, |s| s.done.push(format!("{outcome:?}")));
        Done::Finish
    }

    fn release(&self, run: &Run) {
        self.see(run.cookie, |s| s.released += 1);
    }

    fn drop_reference(&self, cookie: u64) {
        self.see(cookie, |s| s.dropped += 1);
    }

    fn event(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
    }
}

/// A fore-channel handler that hears nothing.
pub struct Deaf;

impl ForeChannel for Deaf {
    fn call(&self, _: Call<'_>) {}
}

/// A connected pair: the server's end and the client's.
pub fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nodelay(true).unwrap();
    client.set_nodelay(true).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (server, client)
}

pub fn session_config(id: u8, slots: u32) -> SessionConfig {
    SessionConfig {
        session_id: [id; 16],
        program: 0x4000_0000,
        security: Security::Sys { stamp: 1, machine_name: b"server".to_vec(), uid: 0, gid: 0, gids: vec![] },
        slots,
        request_bytes_max: 4096,
        response_bytes_max: 4096,
        operations_max: 2,
        minor_version: 1,
    }
}

/// Reads one record.
pub fn read_record(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut mark = [0; 4];
    stream.read_exact(&mut mark).ok()?;
    let len = u32::from_be_bytes(mark) & !record::LAST_FRAGMENT;
    let mut bytes = vec![0; len as usize];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

pub fn write_record(stream: &mut TcpStream, bytes: &[u8]) {
    let mut all = (bytes.len() as u32 | record::LAST_FRAGMENT).to_be_bytes().to_vec();
    all.extend_from_slice(bytes);
    stream.write_all(&all).unwrap();
}

/// The client's side of the session slots: the last sequence id of each.
#[derive(Default)]
pub struct SlotIds(HashMap<u32, u32>);

/// Answers one CB_COMPOUND of CB_SEQUENCE and CB_RECALL; gives the recalled cookie. Panics on anything a Linux client
/// would refuse.
pub fn answer_recall(call: &[u8], slots: &mut SlotIds, status: Status) -> (u64, Vec<u8>) {
    let (cookies, reply) = answer_recalls(call, slots, |_| status);
    assert_eq!(cookies.len(), 1);
    (cookies[0], reply)
}

/// Answers one CB_COMPOUND of CB_SEQUENCE and CB_RECALLs, up to the first that `status_of` does not answer with NFS4_OK;
/// gives the cookies of those that it looked at.
pub fn answer_recalls(
    call: &[u8],
    slots: &mut SlotIds,
    mut status_of: impl FnMut(u64) -> Status,
) -> (Vec<u64>, Vec<u8>) {
    assert_eq!(peek(call).unwrap().1, MessageType::Call);
    let mut r = Reader::new(call);
    let header = CallHeader::decode(&mut r).unwrap();
    assert_eq!((header.program, header.version, header.procedure), (0x4000_0000, 1, 1));
    assert_eq!(header.credential.flavor, 1, "AUTH_NONE is refused for a recall");
    let compound = CbCompoundArgs::decode(&mut r).unwrap();
    assert_eq!(compound.minor_version, 1);
    let CbArgs::Sequence(sequence) = CbArgs::decode(&mut r).unwrap() else { panic!("CB_SEQUENCE comes first") };
    let last = slots.0.entry(sequence.slot_id).or_insert(0);
    assert_eq!(sequence.sequence_id, *last + 1, "slot {}", sequence.slot_id);
    *last += 1;
    let (mut cookies, mut status, mut results) = (Vec::new(), Status::NFS4_OK, Vec::new());
    for _ in 1..compound.count {
        let CbArgs::Recall(recall) = CbArgs::decode(&mut r).unwrap() else { panic!("a CB_RECALL follows") };
        if status.is_ok() {
            cookies.push(u64::from_be_bytes(recall.stateid.other[..8].try_into().unwrap()));
            status = status_of(cookies[cookies.len() - 1]);
            results.push(CbRes::Recall(status));
        }
    }
    r.finish("call").unwrap();
    let mut space = [0; 1024];
    let mut w = Writer::new(&mut space);
    ReplyHeader::success(header.xid).encode(&mut w).unwrap();
    CbCompoundRes { status, tag: b"", count: 1 + results.len() as u32 }.encode(&mut w).unwrap();
    let echo = CbSequenceRes {
        session_id: sequence.session_id,
        sequence_id: sequence.sequence_id,
        slot_id: sequence.slot_id,
        highest_slot_id: 63,
        target_highest_slot_id: 63,
    };
    CbRes::Sequence(Ok(echo)).encode(&mut w).unwrap();
    results.iter().for_each(|result| result.encode(&mut w).unwrap());
    (cookies, w.written().to_vec())
}

/// Answers recalls until the connection ends; gives the cookies in the order in which they came.
pub fn answer_all(mut stream: TcpStream) -> std::thread::JoinHandle<Vec<u64>> {
    std::thread::spawn(move || {
        let mut slots = SlotIds::default();
        let mut cookies = Vec::new();
        while let Some(call) = read_record(&mut stream) {
            let (cookie, reply) = answer_recall(&call, &mut slots, Status::NFS4_OK);
            cookies.push(cookie);
            write_record(&mut stream, &reply);
        }
        cookies
    })
}

/// Waits until `f` holds, for ten seconds at most.
pub fn eventually(what: &str, f: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !f() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every callback completed once, and nothing is left.
pub fn assert_clean(runtime: &Runtime, hooks: &Counting, cookies: impl Iterator<Item = u64>) {
    for cookie in cookies {
        let seen = hooks.of(cookie);
        assert_eq!((seen.acquired, seen.done.len(), seen.released, seen.dropped), (1, 1, 1, 1), "{cookie}: {seen:?}");
    }
    assert_eq!(runtime.stats().in_flight, 0);
}

/// For a record that arrives in pieces.
pub fn records_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = RecordReader::new(1 << 20);
    let mut input = bytes;
    let mut all = Vec::new();
    while let Some(record) = reader.next(&mut input).unwrap() {
        all.push(record.into_vec());
    }
    all
}

/// Keys of callbacks inserted for `cookies`.
pub fn insert_all(runtime: &Runtime, client: ringback::ClientId, cookies: std::ops::Range<u64>) -> Vec<CallbackKey> {
    cookies.map(|cookie| runtime.insert(client, ringback::CallbackOp::Recall, cookie).unwrap()).collect()
}

/// Answers whatever comes, a resend or a lone CB_SEQUENCE too, as if it came for the first time.
pub fn answer_anything(call: &[u8]) -> Vec<u8> {
    let mut r = Reader::new(call);
    let header = CallHeader::decode(&mut r).unwrap();
    let count = CbCompoundArgs::decode(&mut r).unwrap().count;
    let CbArgs::Sequence(sequence) = CbArgs::decode(&mut r).unwrap() else { panic!("CB_SEQUENCE comes first") };
    let mut space = [0; 512];
    let mut w = Writer::new(&mut space);
    ReplyHeader::success(header.xid).encode(&mut w).unwrap();
    CbCompoundRes { status: Status::NFS4_OK, tag: b"", count }.encode(&mut w).unwrap();
    let echo = CbSequenceRes {
        session_id: sequence.session_id,
        sequence_id: sequence.sequence_id,
        slot_id: sequence.slot_id,
        highest_slot_id: 63,
        target_highest_slot_id: 63,
    };
    CbRes::Sequence(Ok(echo)).encode(&mut w).unwrap();
    (1..count).for_each(|_| CbRes::Recall(Status::NFS4_OK).encode(&mut w).unwrap());
    w.written().to_vec()
}
