//! A scripted NFSv4.1 server for the swarm's own tests: as simple as it can be while it recalls over real backchannels.

use ringback_rpc::message::{AuthSys, CallHeader, MessageType, OpaqueAuth, ReplyHeader, flavor, peek};
use ringback_rpc::nfs4::callback::{
    CB_COMPOUND, CbArgs, CbCompoundArgs, CbCompoundRes, CbRecallArgs, CbRes, CbSequenceArgs, NFS_CB,
};
use ringback_rpc::nfs4::fore::*;
use ringback_rpc::nfs4::*;
use ringback_rpc::record::{self, RecordReader};
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server does wrong, or at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Script {
    /// Grants no delegation.
    pub(crate) stingy: bool,
    /// Delays the first OPEN of every file.
    pub(crate) delays_opens: bool,
    /// Calls back with AUTH_NONE.
    pub(crate) auth_none: bool,
    /// Recalls every delegation twice.
    pub(crate) doubles: bool,
    /// Says yes to BACKCHANNEL_CTL, and goes on as before.
    pub(crate) ignores_controls: bool,
    /// Gives no backchannel.
    pub(crate) no_backchannel: bool,
}

#[derive(Clone)]
struct InFlight {
    xid: u32,
    stateid: Stateid4,
    bytes: Vec<u8>,
}

struct Session {
    program: u32,
    credential: Vec<u8>,
    connection: Option<TcpStream>,
    sequence_ids: Vec<u32>,
    in_flight: Vec<Option<InFlight>>,
    recalls: VecDeque<Stateid4>,
    /// Per fore slot: sequence id and reply.
    cache: HashMap<u32, (u32, Vec<u8>)>,
}

#[derive(Default)]
struct State {
    script: Script,
    next_id: u64,
    next_xid: u32,
    sessions: BTreeMap<[u8; 16], Session>,
    /// Delegations that are out, and the name of the file.
    out: HashMap<[u8; 12], Vec<u8>>,
    owners: HashMap<[u8; 12], [u8; 16]>,
    delayed: HashMap<Vec<u8>, ()>,
    returned: u64,
    rejected: u64,
}

/// The server, until its process ends.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) fn start(script: Script) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { script, ..State::default() }));
        let fake = Fake { addr, state };
        let served = fake.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let one = served.clone();
                std::thread::spawn(move || one.serve(stream));
            }
        });
        fake
    }

    /// Recalls everything that is out.
    pub(crate) fn recall_all(&self) {
        let state = &mut *self.state.lock().unwrap();
        let all: Vec<_> = state.out.keys().copied().collect();
        all.into_iter().for_each(|other| state.recall(other));
        state.send_recalls();
    }

    /// Delegations that came back.
    pub(crate) fn returned(&self) -> u64 {
        self.state.lock().unwrap().returned
    }

    /// Callbacks that the clients refused on the level of RPC.
    pub(crate) fn rejected(&self) -> u64 {
        self.state.lock().unwrap().rejected
    }

    fn serve(&self, mut stream: TcpStream) {
        let (mut reader, mut buffer) = (RecordReader::new(1 << 20), vec![0; 1 << 16]);
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            let mut input = &buffer[..len];
            while let Some(record) = reader.next(&mut input).unwrap() {
                let state = &mut *self.state.lock().unwrap();
                match peek(&record).unwrap() {
                    (_, MessageType::Call) => {
                        let reply = state.call(&record, &stream);
                        let _ = stream.write_all(&reply);
                    }
                    (xid, MessageType::Reply) => state.reply(xid, &record),
                }
                state.send_recalls();
            }
        }
    }
}

fn marked(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut space = [0; 4096];
    let mut w = Writer::new(&mut space);
    let mark = record::begin(&mut w).unwrap();
    write(&mut w);
    record::end(&mut w, mark).unwrap();
    w.written().to_vec()
}

impl State {
    fn call(&mut self, record: &[u8], stream: &TcpStream) -> Vec<u8> {
        let mut r = Reader::new(record);
        let call = CallHeader::decode(&mut r).unwrap();
        let head = CompoundArgs::decode(&mut r).unwrap();
        let operations: Vec<_> = (0..head.count).map(|_| OpArgs::decode(&mut r).unwrap()).collect();
        r.finish("call").unwrap();
        let sequence = match operations[0] {
            OpArgs::Sequence(sequence) => Some(sequence),
            _ => None,
        };
        if let Some(s) = sequence
            && let Some((id, reply)) = self.sessions[&s.session_id.0].cache.get(&s.slot_id)
            && *id == s.sequence_id
        {
            return reply.clone();
        }
        let reply = marked(|w| {
            ReplyHeader::success(call.xid).encode(w).unwrap();
            let reserved = CompoundResHead::reserve(head.tag, w).unwrap();
            let (mut status, mut count, mut current) = (Status::NFS4_OK, 0, None);
            for args in &operations {
                let result = self.operation(args, sequence.map(|s| s.session_id.0), stream, &mut current);
                result.encode(w).unwrap();
                (status, count) = (result.status(), count + 1);
                if !status.is_ok() {
                    break;
                }
            }
            reserved.fill(status, count, w);
        });
        if let Some(s) = sequence {
            let cache = &mut self.sessions.get_mut(&s.session_id.0).unwrap().cache;
            cache.insert(s.slot_id, (s.sequence_id, reply.clone()));
        }
        reply
    }

    fn operation(
        &mut self,
        args: &OpArgs<'_>,
        session: Option<[u8; 16]>,
        stream: &TcpStream,
        current: &mut Option<Stateid4>,
    ) -> OpRes<'static> {
        match args {
            OpArgs::ExchangeId(_) => OpRes::ExchangeId(Ok(self.exchange_id())),
            OpArgs::CreateSession(args) => OpRes::CreateSession(Ok(self.create_session(args, stream))),
            OpArgs::BindConnToSession(args) => OpRes::BindConnToSession(Ok(self.bind(args.session_id, stream))),
            OpArgs::Sequence(s) => OpRes::Sequence(Ok(SequenceOk {
                session_id: s.session_id,
                sequence_id: s.sequence_id,
                slot_id: s.slot_id,
                highest_slot_id: 63,
                target_highest_slot_id: 63,
                status_flags: 0,
            })),
            OpArgs::BackchannelCtl(args) => {
                let Some(CallbackSecParms::Sys(sys)) = args.security.iter().next() else { panic!("no AUTH_SYS") };
                let session = self.sessions.get_mut(&session.unwrap()).unwrap();
                if !self.script.ignores_controls {
                    (session.program, session.credential) = (args.callback_program, body(&sys));
                }
                OpRes::BackchannelCtl(Ok(()))
            }
            OpArgs::ReclaimComplete(_) => OpRes::ReclaimComplete(Ok(())),
            OpArgs::PutRootFh => OpRes::PutRootFh(Ok(())),
            OpArgs::Lookup(_) => OpRes::Lookup(Ok(())),
            OpArgs::PutFh(_) => OpRes::PutFh(Ok(())),
            OpArgs::GetFh => OpRes::GetFh(Ok(GetFhOk { object: FileHandle::new(b"handle").unwrap() })),
            OpArgs::Open(open) => OpRes::Open(self.open(open, session.unwrap(), current)),
            OpArgs::Close(close) => {
                assert_eq!(close.open_stateid, Stateid4::CURRENT);
                OpRes::Close(
                    current
                        .take()
                        .map(|_| CloseOk { open_stateid: Stateid4::INVALID })
                        .ok_or(Status::NFS4ERR_BAD_STATEID),
                )
            }
            OpArgs::DelegReturn(args) => match self.out.remove(&args.deleg_stateid.other) {
                Some(_) => {
                    self.returned += 1;
                    OpRes::DelegReturn(Ok(()))
                }
                None => OpRes::DelegReturn(Err(Status::NFS4ERR_BAD_STATEID)),
            },
            OpArgs::DestroySession(_) => OpRes::DestroySession(Ok(())),
            OpArgs::DestroyClientId(_) => OpRes::DestroyClientId(Ok(())),
            other => OpRes::refusal(other.op(), 1),
        }
    }

    fn exchange_id(&mut self) -> ExchangeIdOk<'static> {
        self.next_id += 1;
        ExchangeIdOk {
            client_id: ClientId4(self.next_id),
            sequence_id: 1,
            flags: 0,
            state_protect: StateProtectOk::None,
            server_owner: ServerOwner { minor_id: 0, major_id: Opaque4::new(b"fake").unwrap() },
            server_scope: Opaque4::new(b"fake").unwrap(),
            impl_id: None,
        }
    }

    fn bind(&mut self, session_id: SessionId, stream: &TcpStream) -> BindConnToSessionOk {
        let session = self.sessions.get_mut(&session_id.0).unwrap();
        let mut connection = stream.try_clone().unwrap();
        // What was sent on the old connection is sent again as it was.
        for one in session.in_flight.iter().flatten() {
            let _ = connection.write_all(&one.bytes);
        }
        session.connection = Some(connection);
        BindConnToSessionOk { session_id, direction: BoundDirection::Both, rdma: false }
    }

    fn create_session(&mut self, args: &CreateSessionArgs<'_>, stream: &TcpStream) -> CreateSessionOk {
        let mut id = [7; 16];
        id[8..].copy_from_slice(&args.client_id.0.to_be_bytes());
        let Some(CallbackSecParms::Sys(sys)) = args.security.iter().next() else { panic!("no AUTH_SYS") };
        let slots = args.back_channel.requests_max as usize;
        self.sessions.insert(
            id,
            Session {
                program: args.callback_program,
                credential: body(&sys),
                connection: Some(stream.try_clone().unwrap()),
                sequence_ids: vec![0; slots],
                in_flight: vec![None; slots],
                recalls: VecDeque::new(),
                cache: HashMap::new(),
            },
        );
        CreateSessionOk {
            session_id: SessionId(id),
            sequence_id: args.sequence_id,
            flags: if self.script.no_backchannel { 0 } else { args.flags },
            fore_channel: args.fore_channel,
            back_channel: args.back_channel,
        }
    }

    fn open(
        &mut self,
        args: &OpenArgs<'_>,
        session: [u8; 16],
        current: &mut Option<Stateid4>,
    ) -> OpResult<OpenOk<'static>> {
        let OpenClaim::Null(name) = args.claim else { panic!("{:?}", args.claim) };
        if self.script.delays_opens && self.delayed.insert(name.to_vec(), ()).is_none() {
            return Err(Status::NFS4ERR_DELAY);
        }
        if args.share_access & share_access::WRITE != 0 {
            let held: Vec<_> = self.out.iter().filter(|(_, file)| *file == name).map(|(other, _)| *other).collect();
            if !held.is_empty() {
                if self.delayed.insert(name.to_vec(), ()).is_none() {
                    held.into_iter().for_each(|other| self.recall(other));
                }
                return Err(Status::NFS4ERR_DELAY);
            }
        }
        self.next_id += 1;
        let mut other = [3; 12];
        other[4..].copy_from_slice(&self.next_id.to_be_bytes());
        let stateid = Stateid4 { seqid: 1, other };
        *current = Some(stateid);
        let wanted = args.share_access & share_access::WANT_DELEG_MASK == share_access::WANT_READ_DELEG;
        let delegation = if wanted && !self.script.stingy {
            self.out.insert(other, name.to_vec());
            self.owners.insert(other, session);
            OpenDelegation4::Read(OpenReadDelegation4 { stateid, recall: false, permissions: NfsAce4::NONE })
        } else {
            OpenDelegation4::NoneExt(OpenNoneDelegation4::NotWanted)
        };
        let change_info = ChangeInfo4 { atomic: true, before: 0, after: 0 };
        Ok(OpenOk { stateid, change_info, flags: 0, attributes_set: Bitmap4::EMPTY, delegation })
    }

    fn recall(&mut self, other: [u8; 12]) {
        let session = self.sessions.get_mut(&self.owners[&other]).unwrap();
        for _ in 0..=u8::from(self.script.doubles) {
            session.recalls.push_back(Stateid4 { seqid: 1, other });
        }
    }

    fn send_recalls(&mut self) {
        for (id, session) in &mut self.sessions {
            while let Some(slot) = session.in_flight.iter().position(Option::is_none)
                && let Some(stateid) = session.recalls.pop_front()
            {
                self.next_xid += 1;
                let xid = self.next_xid;
                let credential = match self.script.auth_none {
                    true => OpaqueAuth::NONE,
                    false => OpaqueAuth { flavor: flavor::AUTH_SYS, body: &session.credential },
                };
                let bytes = recall_call(xid, *id, session, slot, credential, stateid);
                if let Some(connection) = &mut session.connection {
                    let _ = connection.write_all(&bytes);
                }
                session.in_flight[slot] = Some(InFlight { xid, stateid, bytes });
            }
        }
    }

    /// Settles the session slot as the answer says.
    fn reply(&mut self, xid: u32, record: &[u8]) {
        let of = |session: &Session| session.in_flight.iter().position(|f| f.as_ref().is_some_and(|f| f.xid == xid));
        let Some((session, slot)) = self.sessions.values_mut().find_map(|s| of(s).map(|slot| (s, slot))) else {
            return;
        };
        let mut r = Reader::new(record);
        let reply = ReplyHeader::decode(&mut r).unwrap();
        if reply != ReplyHeader::success(xid) {
            self.rejected += 1;
            session.in_flight[slot] = None;
            return;
        }
        let head = CbCompoundRes::decode(&mut r).unwrap();
        let Ok(CbRes::Sequence(sequence)) = CbRes::decode(&mut r) else { panic!("{head:?}") };
        if sequence == Err(Status::NFS4ERR_DELAY) {
            let bytes = session.in_flight[slot].as_ref().unwrap().bytes.clone();
            let _ = session.connection.as_mut().unwrap().write_all(&bytes);
            return;
        }
        assert_eq!(sequence.map(|s| s.slot_id), Ok(slot as u32));
        session.sequence_ids[slot] += 1;
        let one = session.in_flight[slot].take().unwrap();
        let status = CbRes::decode(&mut r).unwrap().status();
        if matches!(status, Status::NFS4ERR_RETRY_UNCACHED_REP | Status::NFS4ERR_DELAY) {
            session.recalls.push_back(one.stateid);
        }
    }
}

fn body(sys: &AuthSys<'_>) -> Vec<u8> {
    let mut space = [0; 400];
    let mut w = Writer::new(&mut space);
    sys.encode(&mut w).unwrap();
    w.written().to_vec()
}

fn recall_call(
    xid: u32,
    session_id: [u8; 16],
    session: &Session,
    slot: usize,
    credential: OpaqueAuth<'_>,
    stateid: Stateid4,
) -> Vec<u8> {
    let (program, version, procedure, verifier) = (session.program, NFS_CB, CB_COMPOUND, OpaqueAuth::NONE);
    let sequence = CbSequenceArgs {
        session_id: SessionId(session_id),
        sequence_id: session.sequence_ids[slot] + 1,
        slot_id: slot as u32,
        highest_slot_id: slot as u32,
        cache_this: false,
        referring_call_lists: List::EMPTY,
    };
    let fh = FileHandle::new(b"handle").unwrap();
    marked(|w| {
        CallHeader { xid, program, version, procedure, credential, verifier }.encode(w).unwrap();
        CbCompoundArgs { tag: &[], minor_version: 1, callback_ident: 0, count: 2 }.encode(w).unwrap();
        CbArgs::Sequence(sequence).encode(w).unwrap();
        CbArgs::Recall(CbRecallArgs { stateid, truncate: false, fh }).encode(w).unwrap();
    })
}
