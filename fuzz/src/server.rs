//! The file server in front of hostile clients: whatever they send, each call is answered, and the answer can be read.
//!
//! An input is a list of compounds of two clients, who have a session each, and are clients of minor version 0 as well.
//! They share the tree of files, so that one can be in the way of the other; a recall is left without an answer.

mod minor0;

use minor0::Minor0;
use ringback::{Backend, Builder, ConnectionId, Outbound, Transport};
use ringback_rpc::message::{AuthSys, CallHeader, MessageType, OpaqueAuth, ReplyHeader, flavor, peek};
use ringback_rpc::nfs4::fore::*;
use ringback_rpc::nfs4::{CallbackSecParms, List, NFS_V4, NFS4_PROGRAM, SessionId, Status, Verifier4};
use ringback_rpc::record::RecordReader;
use ringback_rpc::xdr::{Decode, Encode, Reader, Result, Writer};
use ringback_server::{Config, Server};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Compounds of one input that are executed: more show nothing new, and take time.
const COMPOUNDS_MAX: usize = 16;
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);
const RECORD_BYTES_MAX: usize = 1 << 20;
const REQUEST_BYTES_MAX: usize = 16 << 10;

const CHANNEL: ChannelAttrs = ChannelAttrs {
    header_pad_bytes: 0,
    request_bytes_max: REQUEST_BYTES_MAX as u32,
    response_bytes_max: 4096,
    response_bytes_max_cached: 1024,
    operations_max: 32,
    requests_max: 2,
    rdma_ird: None,
};

/// How one compound of an input is sent: its first byte. The second is how many operations its head promises, the next
/// two, big-endian, how many bytes of them follow.
pub mod how {
    /// By the second client.
    pub const SECOND: u8 = 1;
    /// As a record of its own: the bytes begin behind the xid.
    pub const RAW: u8 = 2;
    /// Without SEQUENCE before the operations.
    pub const BARE: u8 = 4;
    /// Without PUTROOTFH before the operations.
    pub const ELSEWHERE: u8 = 8;
    /// After the operator has changed how many session slots there are: as many as operations, modulo four.
    pub const SLOTS: u8 = 16;
    /// As a client of minor version 0: each operation by itself, with what it cannot know filled in.
    pub const MINOR0: u8 = 32;
}

struct Wire(Sender<Vec<u8>>);

impl Transport for Wire {
    fn send(&mut self, outbound: Outbound) {
        // Nobody listens any more only when the input is over.
        let _ = self.0.send(outbound.bytes().to_vec());
    }

    fn close(&mut self) {}
}

struct Client<'a> {
    server: &'a Server,
    connection: ConnectionId,
    sent: Receiver<Vec<u8>>,
    session: SessionId,
    sequence_id: u32,
    xid: u32,
    minor0: Minor0,
}

/// Compounds of two clients. Returns how many operations have been answered.
pub fn server(data: &[u8]) -> usize {
    let builder = Builder::new().reactors(1).backend(Backend::Epoll).callbacks_max(64).clients_max(8);
    let layouts = Some((std::net::Ipv4Addr::LOCALHOST, 2049).into());
    let config = Config { write_delegations: true, data_bytes_max: 1 << 20, layouts, ..Config::default() };
    let server = Server::new(config, builder, Arc::new(())).expect("a server starts");
    let mut clients = [Client::new(&server, b"first"), Client::new(&server, b"second")];
    let mut answered = 0;
    for (way, count, operations) in compounds(data).take(COMPOUNDS_MAX) {
        if way & how::SLOTS != 0 {
            server.set_session_slots_max(u32::from(count % 4));
        }
        answered += clients[usize::from(way & how::SECOND)].send(way, count, operations);
    }
    let _ = server.shutdown(Duration::ZERO).expect("this is no hook");
    answered
}

/// One compound of an input.
pub fn compound(way: u8, operations: &[OpArgs<'_>]) -> Vec<u8> {
    let bytes = encoded(|w| operations.iter().try_for_each(|args| args.encode(w)));
    let (count, length) = (operations.len() as u8, bytes.len() as u16);
    [&[way, count][..], &length.to_be_bytes(), &bytes].concat()
}

fn compounds(mut data: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[way, count, high, low], rest) = data.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (operations, rest) = rest.split_at(length);
        data = rest;
        Some((way, count, operations))
    })
}

fn encoded(write: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Vec<u8> {
    let mut space = vec![0; 4 * REQUEST_BYTES_MAX];
    let mut w = Writer::new(&mut space);
    write(&mut w).expect("a request is small");
    w.written().to_vec()
}

impl<'a> Client<'a> {
    fn new(server: &'a Server, name: &'static [u8]) -> Self {
        let (sender, sent) = channel();
        let connection = server.runtime().add_transport(Box::new(Wire(sender))).expect("there is room");
        let session = SessionId::default();
        let minor0 = Minor0::default();
        let mut client = Client { server, connection, sent, session, sequence_id: 0, xid: 0, minor0 };
        client.establish(name);
        client.establish_minor0(name);
        client
    }

    /// Becomes a client with a session and its backchannel.
    fn establish(&mut self, name: &'static [u8]) {
        let client_owner =
            ClientOwner { verifier: Verifier4([1; 8]), owner_id: Opaque4::new(name).expect("below the limit") };
        let exchange = ExchangeIdArgs { client_owner, flags: 0, state_protect: StateProtectArgs::None, impl_id: None };
        let mut known = None;
        self.call(1, &[OpArgs::ExchangeId(exchange)], 0, &[], |res| {
            if let OpRes::ExchangeId(Ok(ok)) = res {
                known = Some((ok.client_id, ok.sequence_id));
            }
        });
        let (client_id, sequence_id) = known.expect("EXCHANGE_ID gives a client id");
        let create = CreateSessionArgs {
            client_id,
            sequence_id,
            flags: create_session_flag::CONN_BACK_CHAN,
            fore_channel: CHANNEL,
            back_channel: CHANNEL,
            callback_program: 0x4000_0000,
            security: List::Slice(&[CallbackSecParms::None]),
        };
        let mut made = None;
        self.call(1, &[OpArgs::CreateSession(create)], 0, &[], |res| {
            if let OpRes::CreateSession(Ok(ok)) = res {
                made = Some(ok.session_id);
            }
        });
        self.session = made.expect("CREATE_SESSION gives a session");
        let complete = OpArgs::ReclaimComplete(ReclaimCompleteArgs { one_fs: false });
        self.call(1, &[OpArgs::Sequence(self.sequence()), complete], 0, &[], |res| assert!(res.status().is_ok()));
        self.sequence_id = 1;
    }

    fn sequence(&self) -> SequenceArgs {
        let sequence_id = self.sequence_id + 1;
        SequenceArgs { session_id: self.session, sequence_id, slot_id: 0, highest_slot_id: 0, cache_this: true }
    }

    /// Sends one compound of an input; returns how many operations have been answered.
    fn send(&mut self, way: u8, count: u8, operations: &[u8]) -> usize {
        let operations = &operations[..operations.len().min(REQUEST_BYTES_MAX)];
        if way & how::RAW != 0 {
            self.xid += 1;
            self.server.runtime().receive(self.connection, [&self.xid.to_be_bytes()[..], operations].concat());
            // It need not be answered, but what follows it must be.
            let null = self.record(PROCEDURE_NULL, |_| Ok(()));
            self.server.runtime().receive(self.connection, null);
            self.reply();
            return 1;
        }
        if way & how::MINOR0 != 0 {
            return self.send_minor0(count, operations);
        }
        let mut before = Vec::new();
        if way & how::BARE == 0 {
            before.push(OpArgs::Sequence(self.sequence()));
        }
        if way & how::ELSEWHERE == 0 {
            before.push(OpArgs::PutRootFh);
        }
        let (session, expected) = (self.session, self.sequence_id + 1);
        let (mut answered, mut taken) = (0, false);
        self.call(1, &before, count.into(), operations, |res| {
            answered += 1;
            taken |= matches!(res, OpRes::Sequence(Ok(ok)) if ok.session_id == session && ok.sequence_id == expected);
        });
        self.sequence_id += u32::from(taken);
        answered
    }

    /// Sends `before` and then `count` operations that are in `bytes`, and reads the results.
    fn call(
        &mut self,
        minor_version: u32,
        before: &[OpArgs<'_>],
        count: usize,
        bytes: &[u8],
        mut result: impl FnMut(OpRes<'_>),
    ) {
        let head = CompoundArgs { tag: b"fuzz", minor_version, count: before.len() + count };
        let record = self.record(PROCEDURE_COMPOUND, |w| {
            head.encode(w)?;
            before.iter().try_for_each(|args| args.encode(w))?;
            w.raw(bytes)
        });
        self.server.runtime().receive(self.connection, record);
        let reply = self.reply();
        let mut r = Reader::new(&reply);
        let header = ReplyHeader::decode(&mut r).expect("the header of a reply");
        if header != ReplyHeader::success(self.xid) {
            return;
        }
        let head = CompoundRes::decode(&mut r).expect("the head of a reply");
        let mut last = if head.count == 0 { head.status } else { Status::NFS4_OK };
        for _ in 0..head.count {
            let res = OpRes::decode(&mut r).expect("a result");
            assert!(last.is_ok(), "a result behind {last}");
            last = res.status();
            result(res);
        }
        assert!(last == head.status && r.remaining().is_empty(), "the last result is what the compound says");
    }

    /// A CALL record.
    fn record(&mut self, procedure: u32, body: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Vec<u8> {
        self.xid += 1;
        let credential = encoded(|w| AuthSys::new(0, b"fuzz", 0, 0, &[]).expect("no groups").encode(w));
        let header = CallHeader {
            xid: self.xid,
            program: NFS4_PROGRAM,
            version: NFS_V4,
            procedure,
            credential: OpaqueAuth { flavor: flavor::AUTH_SYS, body: &credential },
            verifier: OpaqueAuth::NONE,
        };
        encoded(|w| header.encode(w).and_then(|()| body(w)))
    }

    /// The reply to the last call. Callbacks, and the replies to records that nobody waits for, are passed over.
    fn reply(&mut self) -> Vec<u8> {
        loop {
            // Whole records, one or several.
            let bytes = self.sent.recv_timeout(PATIENCE).expect("an answer");
            let (mut reader, mut input) = (RecordReader::new(RECORD_BYTES_MAX), &bytes[..]);
            while let Some(record) = reader.next(&mut input).expect("marked records") {
                if peek(&record) == Ok((self.xid, MessageType::Reply)) {
                    return record.into_vec();
                }
            }
        }
    }
}
