//! A client over TCP that takes delegations, answers recalls, and gives back what was recalled.

#![allow(dead_code)] // each test file uses a part

use ringback_rpc::message::{CallHeader, MessageType, OpaqueAuth, ReplyHeader, peek};
use ringback_rpc::nfs4::callback::{
    CallbackOp, CbArgs, CbCompoundArgs, CbCompoundRes, CbNotifyArgs, CbRecallArgs, CbRes, CbSequenceRes, Notification,
    notify_type,
};
use ringback_rpc::nfs4::fore::*;
use ringback_rpc::nfs4::*;
use ringback_rpc::record::{self, RecordReader};
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is said to a CB_GETATTR.
const REPORTED: Bitmap4 = Bitmap4::of(&[attr::CHANGE, attr::SIZE]);
const REPORT: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

/// A delegation by its filehandle.
type Held = HashMap<Vec<u8>, Stateid4>;

pub struct Client {
    socket: TcpStream,
    records: RecordReader,
    input: Vec<u8>,
    name: String,
    xid: u32,
    session: SessionId,
    sequence: u32,
    pub held: Held,
    recalled: Vec<(Stateid4, Vec<u8>)>,
    pub recalls: u64,
    /// The names of which CB_NOTIFY has told that they are new.
    pub added: Vec<String>,
    /// Which callbacks have come.
    pub called: HashSet<CallbackOp>,
    minor_version: u32,
}

fn encode(values: &[&dyn Encode]) -> Vec<u8> {
    let mut space = vec![0; 16 << 10];
    let mut w = Writer::new(&mut space);
    let mark = record::begin(&mut w).unwrap();
    values.iter().for_each(|v| v.encode(&mut w).unwrap());
    record::end(&mut w, mark).unwrap();
    w.written().to_vec()
}

impl Client {
    pub fn connect(address: SocketAddr, name: String) -> Self {
        Client::connect_as(address, name, 1)
    }

    /// A client of a minor version.
    pub fn connect_as(address: SocketAddr, name: String, minor_version: u32) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client {
            socket,
            records: RecordReader::new(1 << 20),
            input: Vec::new(),
            name,
            xid: 0,
            session: SessionId::default(),
            sequence: 1,
            held: Held::new(),
            recalled: Vec::new(),
            recalls: 0,
            added: Vec::new(),
            called: HashSet::new(),
            minor_version,
        };
        client.establish();
        client
    }

    fn establish(&mut self) {
        let name = self.name.clone();
        let client_owner =
            ClientOwner { verifier: Verifier4([1; 8]), owner_id: Opaque4::new(name.as_bytes()).unwrap() };
        let state_protect = StateProtectArgs::None;
        let args = ExchangeIdArgs { client_owner, flags: 0, state_protect, impl_id: None };
        let reply = self.bare(&[OpArgs::ExchangeId(args)]);
        let OpRes::ExchangeId(Ok(id)) = results(&reply)[0] else { panic!() };
        let channel = ChannelAttrs {
            header_pad_bytes: 0,
            request_bytes_max: 4096,
            response_bytes_max: 4096,
            response_bytes_max_cached: 1024,
            operations_max: 8,
            requests_max: 4,
            rdma_ird: None,
        };
        let reply = self.bare(&[OpArgs::CreateSession(CreateSessionArgs {
            client_id: id.client_id,
            sequence_id: id.sequence_id,
            flags: create_session_flag::CONN_BACK_CHAN,
            fore_channel: channel,
            back_channel: channel,
            callback_program: 0x4000_0000,
            security: List::EMPTY,
        })]);
        let OpRes::CreateSession(Ok(session)) = results(&reply)[0] else { panic!("{:?}", results(&reply)) };
        assert_eq!(session.flags, create_session_flag::CONN_BACK_CHAN);
        self.session = session.session_id;
        let complete = OpArgs::ReclaimComplete(ReclaimCompleteArgs { one_fs: false });
        assert_eq!(status(&self.call(&[complete])), Status::NFS4_OK);
    }

    /// Sends a compound and gives its reply; recalls that come meanwhile are answered.
    fn bare(&mut self, ops: &[OpArgs<'_>]) -> Vec<u8> {
        self.xid += 1;
        let header = CallHeader {
            xid: self.xid,
            program: NFS4_PROGRAM,
            version: NFS_V4,
            procedure: PROCEDURE_COMPOUND,
            credential: OpaqueAuth::NONE,
            verifier: OpaqueAuth::NONE,
        };
        let head = CompoundArgs { tag: b"", minor_version: self.minor_version, count: ops.len() };
        let mut values: Vec<&dyn Encode> = vec![&header, &head];
        values.extend(ops.iter().map(|op| op as &dyn Encode));
        self.socket.write_all(&encode(&values)).unwrap();
        loop {
            let record = self.receive();
            match peek(&record).unwrap() {
                (xid, MessageType::Reply) if xid == self.xid => return record,
                (_, MessageType::Call) => self.answer(&record),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn call(&mut self, ops: &[OpArgs<'_>]) -> Vec<u8> {
        let sequence = SequenceArgs {
            session_id: self.session,
            sequence_id: self.sequence,
            slot_id: 0,
            highest_slot_id: 0,
            cache_this: self.sequence.is_multiple_of(2),
        };
        self.sequence += 1;
        let mut all = vec![OpArgs::Sequence(sequence)];
        all.extend_from_slice(ops);
        self.bare(&all)
    }

    fn receive(&mut self) -> Vec<u8> {
        loop {
            let mut input = &self.input[..];
            let found = self.records.next(&mut input).unwrap().map(|r| r.into_vec());
            let used = self.input.len() - input.len();
            self.input.drain(..used);
            if let Some(record) = found {
                return record;
            }
            let mut space = [0; 4096];
            let n = self.socket.read(&mut space).unwrap();
            assert_ne!(n, 0, "the server has closed the connection");
            self.input.extend_from_slice(&space[..n]);
        }
    }

    fn answer(&mut self, record: &[u8]) {
        let mut r = Reader::new(record);
        let header = CallHeader::decode(&mut r).unwrap();
        let head = CbCompoundArgs::decode(&mut r).unwrap();
        let CbArgs::Sequence(s) = CbArgs::decode(&mut r).unwrap() else { panic!() };
        let sequence = CbSequenceRes {
            session_id: s.session_id,
            sequence_id: s.sequence_id,
            slot_id: s.slot_id,
            highest_slot_id: 3,
            target_highest_slot_id: 3,
        };
        let mut results = Vec::new();
        for _ in 1..head.count {
            let args = CbArgs::decode(&mut r).unwrap();
            self.called.insert(args.op());
            let result = match args {
                CbArgs::Recall(recall) => CbRes::Recall(self.recall(&recall)),
                CbArgs::Notify(notify) => CbRes::Notify(self.note(&notify)),
                CbArgs::Getattr(_) => CbRes::Getattr(Ok(Fattr { mask: REPORTED, values: &REPORT })),
                CbArgs::PushDeleg(push) => {
                    self.held.insert(push.fh.as_bytes().to_vec(), push.delegation.stateid().unwrap());
                    CbRes::PushDeleg(Status::NFS4_OK)
                }
                // There is nothing that would have to be done.
                args => CbRes::failed(args.op(), Status::NFS4_OK),
            };
            results.push(result);
            if !result.status().is_ok() {
                break;
            }
        }
        let status = results.last().unwrap().status();
        let head = CbCompoundRes { status, tag: head.tag, count: 1 + results.len() as u32 };
        let first = CbRes::Sequence(Ok(sequence));
        let reply = ReplyHeader::success(header.xid);
        let mut values: Vec<&dyn Encode> = vec![&reply, &head, &first];
        values.extend(results.iter().map(|r| r as &dyn Encode));
        self.socket.write_all(&encode(&values)).unwrap();
    }

    fn recall(&mut self, recall: &CbRecallArgs<'_>) -> Status {
        self.recalls += 1;
        // The OPEN's reply may be behind the recall, or the return before it.
        if self.held.get(recall.fh.as_bytes()) != Some(&recall.stateid) {
            return Status::NFS4ERR_BAD_STATEID;
        }
        self.recalled.push((recall.stateid, recall.fh.as_bytes().to_vec()));
        Status::NFS4_OK
    }

    fn note(&mut self, notify: &CbNotifyArgs<'_>) -> Status {
        for notification in notify.changes.iter().flat_map(|change| change.notifications()) {
            match notification.unwrap() {
                Notification::Add(add) => self.added.push(String::from_utf8(add.new_entry.name.to_vec()).unwrap()),
                Notification::ChangeCookieVerifier(change) => assert_ne!(change.old, change.new),
                other => panic!("{other:?}"),
            }
        }
        Status::NFS4_OK
    }

    /// Takes a delegation of the root directory, to be told of new names in it.
    pub fn watch(&mut self) {
        let delay = NfsTime4 { seconds: 0, nseconds: 0 };
        let args = GetDirDelegationArgs {
            signal: false,
            notification_types: Bitmap4::of(&[notify_type::ADD_ENTRY, notify_type::CHANGE_COOKIE_VERIFIER]),
            child_delay: delay,
            directory_delay: delay,
            child_attributes: Bitmap4::of(&[attr::FILEID]),
            directory_attributes: Bitmap4::EMPTY,
        };
        let reply = self.call(&[OpArgs::PutRootFh, OpArgs::GetDirDelegation(args)]);
        let Some(OpRes::GetDirDelegation(Ok(GetDirDelegationOk::Granted(_)))) = results(&reply).pop() else {
            panic!("{:?}", results(&reply));
        };
    }

    /// Answers callbacks until there is nothing more to be waited for.
    pub fn attend(&mut self, done: impl Fn(&Client) -> bool) {
        let start = Instant::now();
        self.socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "it takes too long");
            let mut space = [0; 4096];
            match self.socket.read(&mut space) {
                Ok(n) => self.input.extend_from_slice(&space[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
            loop {
                let mut input = &self.input[..];
                let found = self.records.next(&mut input).unwrap().map(|r| r.into_vec());
                let used = self.input.len() - input.len();
                self.input.drain(..used);
                let Some(record) = found else { break };
                self.answer(&record);
            }
        }
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// Asks for a lock of a file, and waits for it; whether it was given.
    pub fn lock(&mut self, (stateid, handle): &(Stateid4, Vec<u8>), owner: &[u8]) -> bool {
        let put = OpArgs::PutFh(PutFhArgs { object: FileHandle::new(handle).unwrap() });
        let lock_owner = StateOwner4::new(ClientId4(0), owner).unwrap();
        let new = OpenToLockOwner { open_seqid: 0, open_stateid: *stateid, lock_seqid: 0, lock_owner };
        let locker = Locker::New(new);
        let args = LockArgs { kind: LockType::WriteWait, reclaim: false, offset: 0, length: 10, locker };
        match status(&self.call(&[put, OpArgs::Lock(args)])) {
            Status::NFS4_OK => true,
            Status::NFS4ERR_DENIED => false,
            other => panic!("{other}"),
        }
    }

    /// Has a file copied to another one, later.
    pub fn copy(&mut self, from: &(Stateid4, Vec<u8>), to: &(Stateid4, Vec<u8>)) {
        let put = |handle: &'static [u8]| OpArgs::PutFh(PutFhArgs { object: FileHandle::new(handle).unwrap() });
        let (from_handle, to_handle) = (from.1.clone().leak(), to.1.clone().leak());
        let args = CopyArgs {
            src_stateid: from.0,
            dst_stateid: to.0,
            src_offset: 0,
            dst_offset: 0,
            count: 0,
            consecutive: true,
            synchronous: false,
            source_servers: List::EMPTY,
        };
        let reply = self.call(&[put(from_handle), OpArgs::SaveFh, put(to_handle), OpArgs::Copy(args)]);
        let Some(OpRes::Copy(Ok(copy))) = results(&reply).pop() else { panic!("{:?}", results(&reply)) };
        assert!(copy.response.callback_id.is_some());
    }

    pub fn give_back(&mut self, stateid: Stateid4, handle: &[u8]) {
        self.held.remove(handle);
        let put = OpArgs::PutFh(PutFhArgs { object: FileHandle::new(handle).unwrap() });
        let reply = self.call(&[put, OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: stateid })]);
        assert_eq!(status(&reply), Status::NFS4_OK);
    }

    /// Opens a file and closes it; comes again while others have to give it up.
    pub fn visit(&mut self, name: &str, access: u32) {
        let args = open_args(name, access);
        let start = Instant::now();
        loop {
            let reply = self.call(&[OpArgs::PutRootFh, OpArgs::Open(args), OpArgs::GetFh]);
            match results(&reply)[..] {
                [.., OpRes::Open(Ok(open)), OpRes::GetFh(Ok(fh))] => {
                    if let Some(stateid) = open.delegation.stateid() {
                        assert_eq!(self.held.insert(fh.object.as_bytes().to_vec(), stateid), None);
                    }
                    let put = OpArgs::PutFh(PutFhArgs { object: fh.object });
                    let close = OpArgs::Close(CloseArgs { seqid: 0, open_stateid: open.stateid });
                    assert_eq!(status(&self.call(&[put, close])), Status::NFS4_OK);
                    break;
                }
                [.., OpRes::Open(Err(Status::NFS4ERR_DELAY))] => {
                    assert!(start.elapsed() < PATIENCE, "{name} is not given up");
                    self.give_up_recalled();
                    std::thread::sleep(Duration::from_millis(1));
                }
                ref other => panic!("{other:?}"),
            }
        }
        self.give_up_recalled();
    }

    /// Opens a file and keeps it open; its stateid and its handle.
    pub fn open(&mut self, name: &str, access: u32) -> (Stateid4, Vec<u8>) {
        let args = open_args(name, access);
        let reply = self.call(&[OpArgs::PutRootFh, OpArgs::Open(args), OpArgs::GetFh]);
        let [.., OpRes::Open(Ok(open)), OpRes::GetFh(Ok(fh))] = results(&reply)[..] else {
            panic!("{:?}", results(&reply))
        };
        let handle = fh.object.as_bytes().to_vec();
        if let Some(stateid) = open.delegation.stateid() {
            assert_eq!(self.held.insert(handle.clone(), stateid), None);
        }
        (open.stateid, handle)
    }

    pub fn close(&mut self, (stateid, handle): &(Stateid4, Vec<u8>)) {
        let put = OpArgs::PutFh(PutFhArgs { object: FileHandle::new(handle).unwrap() });
        let close = OpArgs::Close(CloseArgs { seqid: 0, open_stateid: *stateid });
        assert_eq!(status(&self.call(&[put, close])), Status::NFS4_OK);
    }

    pub fn write(&mut self, (stateid, handle): &(Stateid4, Vec<u8>), offset: u64, data: &[u8]) {
        let put = OpArgs::PutFh(PutFhArgs { object: FileHandle::new(handle).unwrap() });
        let write = WriteArgs { stateid: *stateid, offset, stable: StableHow4::FileSync, data };
        assert_eq!(status(&self.call(&[put, OpArgs::Write(write)])), Status::NFS4_OK);
    }

    pub fn read(&mut self, (stateid, handle): &(Stateid4, Vec<u8>), offset: u64, count: u32) -> Vec<u8> {
        let put = OpArgs::PutFh(PutFhArgs { object: FileHandle::new(handle).unwrap() });
        let reply = self.call(&[put, OpArgs::Read(ReadArgs { stateid: *stateid, offset, count })]);
        let Some(OpRes::Read(Ok(read))) = results(&reply).pop() else { panic!() };
        read.data.to_vec()
    }

    pub fn give_up_recalled(&mut self) {
        for (stateid, handle) in std::mem::take(&mut self.recalled) {
            // Recalled twice, returned once.
            if self.held.contains_key(&handle) {
                self.give_back(stateid, &handle);
            }
        }
    }
}

fn open_args(name: &str, access: u32) -> OpenArgs<'_> {
    OpenArgs {
        seqid: 0,
        share_access: access,
        share_deny: share_deny::NONE,
        owner: StateOwner4::new(ClientId4(0), b"owner").unwrap(),
        how: OpenHow::Unchecked(Fattr::NONE),
        claim: OpenClaim::Null(name.as_bytes()),
    }
}

fn results(reply: &[u8]) -> Vec<OpRes<'_>> {
    let mut r = Reader::new(reply);
    ReplyHeader::decode(&mut r).unwrap();
    let head = CompoundRes::decode(&mut r).unwrap();
    (0..head.count).map(|_| OpRes::decode(&mut r).unwrap()).collect()
}

fn status(reply: &[u8]) -> Status {
    results(reply).last().unwrap().status()
}
