//! An embedder with an event loop and sockets of its own: one thread, epoll. The runtime never sees a socket: it is handed
//! records, and hands out bytes to send. Completions come on a queue whose descriptor is in the same epoll set.
//!
//!     cargo run -p ringback --example event_loop

use ringback::{
    Builder, Call, CallbackOp, CompletionQueue, ConnectionId, Done, Ending, ForeChannel, Hooks, Outbound, Outcome, Run,
    Runtime, Security, SessionConfig, Transport, TryRun,
};
use ringback_rpc::nfs4::callback::CbRecallArgs;
use ringback_rpc::nfs4::{FileHandle, Stateid4, Status};
use ringback_rpc::record::RecordReader;
use ringback_rpc::xdr::{self, Encode, Writer};
use rustix::event::epoll;
use std::error::Error;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::task::Waker;
use std::time::Duration;

mod client;

const RECALLS: u64 = 1000;
const SOCKET: u64 = 1;
const QUEUE: u64 = 2;

struct FileServer;

impl Hooks for FileServer {
    /// The stateid is made of the cookie.
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        let mut other = [0; 12];
        other[..8].copy_from_slice(&run.cookie.to_be_bytes());
        let fh = FileHandle::new(b"a filehandle").expect("that is short enough");
        CbRecallArgs { stateid: Stateid4 { seqid: 1, other }, truncate: false, fh }.encode(args)
    }

    /// The end of the run is told on the queue.
    fn done(&self, _run: &Run, _outcome: &Outcome<'_>) -> Done {
        Done::Finish
    }
}

impl ForeChannel for FileServer {
    fn call(&self, call: Call<'_>) {
        // For the protocol engine of a real server.
        let (_token, _record) = call.defer();
    }
}

/// What the runtime asks of a connection's transport, passed on to the event loop.
enum Request {
    Send(Outbound),
    Pause(bool),
    Close,
}

/// On the reactor's side.
struct ToLoop {
    requests: mpsc::Sender<Request>,
    waker: Waker,
}

impl ToLoop {
    fn post(&self, request: Request) {
        // The loop may have ended; dropping what is to be sent completes it.
        let _ = self.requests.send(request);
        self.waker.wake_by_ref();
    }
}

impl Transport for ToLoop {
    fn send(&mut self, outbound: Outbound) {
        self.post(Request::Send(outbound));
    }

    fn pause(&mut self) {
        self.post(Request::Pause(true));
    }

    fn resume(&mut self) {
        self.post(Request::Pause(false));
    }

    fn close(&mut self) {
        self.post(Request::Close);
    }
}

/// On the loop's side.
struct Connection {
    id: ConnectionId,
    socket: UnixStream,
    records: RecordReader,
    requests: mpsc::Receiver<Request>,
    /// What is being sent, and how much of it was.
    sending: Option<(Outbound, usize)>,
    is_paused: bool,
    is_closed: bool,
}

impl Connection {
    fn events(&self) -> epoll::EventFlags {
        let mut events = epoll::EventFlags::empty();
        events.set(epoll::EventFlags::IN, !self.is_paused);
        events.set(epoll::EventFlags::OUT, self.sending.is_some());
        events
    }

    /// There is something to read: whole records go to the runtime.
    fn receive(&mut self, runtime: &Runtime) -> Result<(), Box<dyn Error>> {
        let mut bytes = [0; 65536];
        match self.socket.read(&mut bytes) {
            Ok(0) => runtime.close_connection(self.id),
            Ok(count) => {
                let mut input = &bytes[..count];
                while let Some(record) = self.records.next(&mut input)? {
                    runtime.receive(self.id, record.into_vec());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => runtime.close_connection(self.id),
        }
        Ok(())
    }

    /// Sends as much as the socket takes.
    fn send(&mut self) {
        while let Some((outbound, mut sent)) = self.sending.take() {
            match self.socket.write(&outbound.bytes()[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.sending = Some((outbound, sent));
                    return;
                }
                Err(error) => return outbound.complete(Err(error)),
            }
            match sent == outbound.bytes().len() {
                true => outbound.complete(Ok(())),
                false => self.sending = Some((outbound, sent)),
            }
        }
    }

    /// Does what the runtime asks for.
    fn serve(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Send(outbound) => self.sending = Some((outbound, 0)),
                Request::Pause(is_paused) => self.is_paused = is_paused,
                Request::Close => self.is_closed = true,
            }
            self.send();
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new().reactors(1).completion_queues(1).build(Arc::new(FileServer), Arc::new(FileServer))?;
    let queue = runtime.completion_queue(0).ok_or("one queue was asked for")?;

    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let answering = std::thread::spawn(move || client::answer_recalls(theirs));
    let (sender, requests) = mpsc::channel();
    let id = runtime.add_transport(Box::new(ToLoop { requests: sender, waker: queue.waker() }))?;
    let records = RecordReader::new(1 << 20);
    let (sending, is_paused, is_closed) = (None, false, false);
    let mut connection = Connection { id, socket: ours, records, requests, sending, is_paused, is_closed };
    let client = runtime.add_client(Some(id))?;
    let session = runtime.add_session(client, session_of_the_client())?;
    runtime.bind(id, session)?;

    for cookie in 0..RECALLS {
        let key = runtime.insert(client, CallbackOp::Recall, cookie)?;
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
    }
    let recalled = run(&runtime, &queue, &mut connection)?;
    println!("{recalled} recalls were answered");

    runtime.shutdown(Duration::from_secs(1))?;
    connection.serve();
    assert!(connection.is_closed);
    drop(connection);
    assert_eq!(answering.join().expect("the client is content"), RECALLS as usize);
    Ok(())
}

/// The loop, until all is recalled.
fn run(runtime: &Runtime, queue: &CompletionQueue, connection: &mut Connection) -> Result<u64, Box<dyn Error>> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, &connection.socket, epoll::EventData::new_u64(SOCKET), connection.events())?;
    epoll::add(&set, queue, epoll::EventData::new_u64(QUEUE), epoll::EventFlags::IN)?;
    let (mut events, mut batch, mut recalled) = (Vec::with_capacity(16), Vec::new(), 0);
    while recalled < RECALLS {
        events.clear();
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == SOCKET {
                connection.send();
                connection.receive(runtime)?;
            }
        }
        // Until it gives 0: then the descriptor wakes us again, for what the transport asks for, too.
        while queue.poll(&mut batch, 64) > 0 {
            for completion in &batch {
                assert_eq!(completion.ending, Ending::Replied(Status::NFS4_OK));
                recalled += 1;
                let _ = runtime.remove(completion.key);
            }
        }
        connection.serve();
        epoll::modify(&set, &connection.socket, epoll::EventData::new_u64(SOCKET), connection.events())?;
    }
    Ok(recalled)
}

/// What CREATE_SESSION has negotiated.
fn session_of_the_client() -> SessionConfig {
    SessionConfig {
        session_id: [9; 16],
        program: client::PROGRAM,
        security: Security::Sys { stamp: 0, machine_name: b"client".to_vec(), uid: 0, gid: 0, gids: vec![] },
        slots: 16,
        request_bytes_max: 4096,
        response_bytes_max: 4096,
        operations_max: 2,
        minor_version: 1,
    }
}
