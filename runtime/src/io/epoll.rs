//! The epoll back end, through mio: for hosts where io_uring is forbidden or too old. Safe code only.
//!
//! Sockets are registered once, edge-triggered. An edge says that a direction *may* go on; the connection remembers it
//! (`readable`, `writable`) until a system call says otherwise, and stands in the queue of ready connections while it
//! has something to do. Each turn takes connections off the front, one receive buffer and one send step each, and puts
//! those that are not finished at the end: nothing is lost to edge triggering, and nobody is served twice before
//! everybody was served once.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token, Waker};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, sockopt};

use super::table::Table;
use super::{
    ConnKey, Io, IoConfig, IoCounters, IoEvent, RecvBuf, SendBuf, TURN_COMPLETIONS_MAX, Wait, Wake, monotonic_ns,
    socket,
};

/// Attempts to send in one step before others have their turn.
const SEND_ATTEMPTS_MAX: usize = 4;

/// The waker's token; connections have their index plus one.
const WAKER: Token = Token(0);

/// Whether the connection is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    Done,
    /// An edge will say when to look.
    Waiting,
    /// The kernel refused at once, which is not reported yet.
    Failed(Errno),
}

#[derive(Debug)]
struct Conn {
    socket: OwnedFd,
    dial: Dial,
    /// The send in flight, and how much of it went out.
    send: Option<(SendBuf, usize)>,
    /// The socket may have bytes, or an end, to receive.
    readable: bool,
    /// The peer closed, or the socket failed: no edge will come after the last byte, so receive until it says so.
    ends: bool,
    /// The socket may take bytes.
    writable: bool,
    /// Stands in the queue of ready connections.
    queued: bool,
    /// Stands in the queue of connections without a buffer.
    starved: bool,
    /// The reactor asked not to receive.
    paused: bool,
    /// `Closed` has been reported.
    closed: bool,
    /// What a send met; the cause to report when receiving ends too.
    failure: Option<Errno>,
}

impl Conn {
    fn new(socket: OwnedFd, dial: Dial) -> Self {
        Conn {
            socket,
            dial,
            send: None,
            readable: false,
            ends: false,
            writable: dial != Dial::Waiting,
            queued: false,
            starved: false,
            paused: false,
            closed: false,
            failure: None,
        }
    }

    /// Has something to do.
    fn is_ready(&self) -> bool {
        self.receives() || self.sends() || self.dials()
    }

    fn dials(&self) -> bool {
        self.dial != Dial::Done && self.writable
    }

    fn receives(&self) -> bool {
        self.readable && self.dial == Dial::Done && !self.paused && !self.closed && !self.starved
    }

    fn sends(&self) -> bool {
        self.writable && self.send.is_some()
    }

    fn close(&mut self, conn: ConnKey, error: Option<Errno>, events: &mut Vec<IoEvent>) {
        if !self.closed {
            self.closed = true;
            let error = error.or(self.failure).map(io::Error::from);
            events.push(IoEvent::Closed { conn, error });
        }
    }
}

/// The receive buffers: a number names one, as it does in io_uring's ring of them.
struct Buffers {
    memory: Vec<Box<[u8]>>,
    free: Vec<u16>,
    lent: Vec<bool>,
}

impl Buffers {
    fn new(count: u16, bytes: u32) -> Self {
        let memory = (0..count).map(|_| vec![0; bytes as usize].into_boxed_slice()).collect();
        // Taken from the end: the buffer used last is the one that is still in the cache.
        Buffers { memory, free: (0..count).rev().collect(), lent: vec![false; usize::from(count)] }
    }

    fn is_lent(&self, id: u16) -> bool {
        self.lent.get(usize::from(id)).is_some_and(|lent| *lent)
    }
}

struct MioWaker(Waker);

impl Wake for MioWaker {
    fn wake(&self) {
        // A write to an eventfd that is open and never full.
        let woken = self.0.wake();
        debug_assert!(woken.is_ok(), "{woken:?}");
    }
}

/// The epoll back end.
pub struct Epoll {
    poll: Poll,
    edges: mio::Events,
    conns: Table<Conn>,
    ready: VecDeque<ConnKey>,
    starved: VecDeque<ConnKey>,
    /// Sends that a detach cut short, then the connections to be reported as detached.
    ended: VecDeque<IoEvent>,
    buffers: Buffers,
    waker: Arc<MioWaker>,
    counters: IoCounters,
}

impl Epoll {
    /// Makes a back end.
    pub fn new(config: &IoConfig) -> io::Result<Self> {
        config.check()?;
        let poll = Poll::new()?;
        let waker = Arc::new(MioWaker(Waker::new(poll.registry(), WAKER)?));
        Ok(Epoll {
            poll,
            edges: mio::Events::with_capacity(TURN_COMPLETIONS_MAX),
            conns: Table::new(),
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            ended: VecDeque::new(),
            buffers: Buffers::new(config.recv_buffers, config.recv_buffer_bytes),
            waker,
            counters: IoCounters::default(),
        })
    }

    fn register(&mut self, key: ConnKey, socket: &OwnedFd) -> io::Result<()> {
        self.counters.syscalls += 1;
        let token = Token(key.index as usize + 1);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, interest)
    }

    /// Queues a connection if it has something to do.
    fn enqueue(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !conn.queued && conn.is_ready() {
            conn.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Lets starved connections receive again, as many as there are buffers.
    fn enqueue_starved(&mut self) {
        for _ in 0..self.starved.len().min(self.buffers.free.len()) {
            let Some(key) = self.starved.pop_front() else { return };
            if let Some(conn) = self.conns.get_mut(key) {
                conn.starved = false;
                self.enqueue(key);
            }
        }
    }

    /// Waits for edges and notes them.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.counters.syscalls += 1;
        match self.poll.poll(&mut self.edges, timeout) {
            Ok(()) => {}
            // A signal: the turn ends.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut woken = false;
        for edge in &self.edges {
            if edge.token() == WAKER {
                woken = true;
                continue;
            }
            let Some(key) = self.conns.key_at((edge.token().0 - 1) as u32) else { continue };
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let ends = edge.is_read_closed() || edge.is_write_closed() || edge.is_error();
            conn.ends |= ends;
            conn.readable |= edge.is_readable() || ends;
            conn.writable |= edge.is_writable() || ends;
            if !conn.queued && conn.is_ready() {
                conn.queued = true;
                self.ready.push_back(key);
            }
        }
        self.counters.wakes += u64::from(woken);
        Ok(())
    }

    /// One send step and one receive of the connection at the front of the queue.
    fn serve_first(&mut self, events: &mut Vec<IoEvent>) {
        let Some(key) = self.ready.pop_front() else { return };
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.queued = false;
        if conn.dials() {
            Self::dial_step(key, conn, &mut self.counters, events);
        }
        if conn.sends() {
            Self::send_step(key, conn, &mut self.counters, events);
        }
        if conn.receives() {
            self.receive_step(key, events);
        }
        self.enqueue(key);
    }

    /// Looks what became of the attempt to connect.
    fn dial_step(key: ConnKey, conn: &mut Conn, counters: &mut IoCounters, events: &mut Vec<IoEvent>) {
        counters.syscalls += 2;
        let result = match conn.dial {
            Dial::Failed(errno) => Err(errno),
            _ => sockopt::socket_error(&conn.socket).and_then(|pending| pending),
        };
        // Without an error there must be a peer, or the edge was about something else.
        if result.is_ok() && rustix::net::getpeername(&conn.socket).is_err() {
            conn.writable = false;
            return;
        }
        conn.dial = Dial::Done;
        // What failed has nothing to receive, and no end to tell of.
        conn.closed = result.is_err();
        events.push(IoEvent::Connected { conn: key, result: result.map_err(io::Error::from) });
    }

    fn send_step(key: ConnKey, conn: &mut Conn, counters: &mut IoCounters, events: &mut Vec<IoEvent>) {
        let Some((mut buf, mut sent)) = conn.send.take() else { return };
        let mut attempts = 0;
        let result = loop {
            counters.syscalls += 1;
            match rustix::net::send(&conn.socket, buf.unsent(), SendFlags::NOSIGNAL) {
                Ok(len) => {
                    buf.advance(len);
                    sent += len;
                    if buf.unsent().is_empty() {
                        break Ok(sent);
                    }
                }
                // Only this answer promises another edge, so a short send alone does not end the step.
                Err(Errno::AGAIN) => {
                    conn.writable = false;
                    conn.send = Some((buf, sent));
                    return;
                }
                Err(Errno::INTR) => {}
                // What went out counts first; sent again, the rest meets the same error.
                Err(_) if sent > 0 => break Ok(sent),
                Err(errno) => break Err(errno),
            }
            attempts += 1;
            if attempts == SEND_ATTEMPTS_MAX {
                conn.send = Some((buf, sent));
                return;
            }
        };
        match result {
            Ok(len) => {
                counters.sends += 1;
                counters.sent_bytes += len as u64;
                events.push(IoEvent::Sent { conn: key, buf, result: Ok(len) });
            }
            Err(errno) => {
                events.push(IoEvent::Sent { conn: key, buf, result: Err(errno.into()) });
                conn.failure = Some(errno);
                if conn.paused {
                    conn.close(key, Some(errno), events);
                } else if !conn.closed {
                    // What the peer sent before is still received; the shutdown sees to it that an end follows.
                    socket::shutdown(&conn.socket, counters);
                    (conn.readable, conn.ends) = (true, true);
                }
            }
        }
    }

    fn receive_step(&mut self, key: ConnKey, events: &mut Vec<IoEvent>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(id) = self.buffers.free.pop() else {
            conn.starved = true;
            self.counters.starvations += 1;
            self.starved.push_back(key);
            return;
        };
        let memory = &mut self.buffers.memory[usize::from(id)];
        let room = memory.len();
        self.counters.syscalls += 1;
        match rustix::net::recv(&conn.socket, &mut memory[..], RecvFlags::empty()) {
            Ok((len @ 1.., _)) => {
                // A short receive emptied a stream socket: more bytes are a new edge. But an end that was signalled
                // together with the bytes is not signalled again.
                conn.readable = len == room || conn.ends;
                self.counters.receives += 1;
                self.counters.received_bytes += len as u64;
                self.buffers.lent[usize::from(id)] = true;
                events.push(IoEvent::Received { conn: key, buf: RecvBuf::new(id, len as u32) });
                return;
            }
            Ok(_) => conn.close(key, None, events),
            Err(Errno::AGAIN) => conn.readable = false,
            Err(Errno::INTR) => {}
            Err(errno) => conn.close(key, Some(errno), events),
        }
        self.buffers.free.push(id);
    }
}

impl Io for Epoll {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn now_ns(&self) -> u64 {
        monotonic_ns()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn attach(&mut self, key: ConnKey, socket: OwnedFd) -> io::Result<()> {
        self.conns.check_free(key)?;
        socket::prepare(&socket, &mut self.counters)?;
        self.counters.syscalls += 1;
        rustix::io::ioctl_fionbio(&socket, true)?;
        // Registering reports what is already there as the first edge.
        self.register(key, &socket)?;
        self.conns.insert(key, Conn::new(socket, Dial::Done));
        Ok(())
    }

    fn connect(&mut self, key: ConnKey, address: SocketAddr) -> io::Result<()> {
        self.conns.check_free(key)?;
        let socket = socket::open(&address, SocketFlags::NONBLOCK, &mut self.counters)?;
        self.counters.syscalls += 1;
        let dial = match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Dial::Waiting,
            Err(errno) => Dial::Failed(errno),
        };
        // Not before: a socket that does nothing yet is reported as one that has hung up.
        self.register(key, &socket)?;
        self.conns.insert(key, Conn::new(socket, dial));
        self.enqueue(key);
        Ok(())
    }

    fn detach(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.remove(key) else { return };
        if let Some((buf, sent)) = conn.send {
            let result = if sent > 0 { Ok(sent) } else { Err(Errno::PIPE.into()) };
            self.counters.sends += u64::from(sent > 0);
            self.counters.sent_bytes += sent as u64;
            self.ended.push_back(IoEvent::Sent { conn: key, buf, result });
        }
        socket::shutdown(&conn.socket, &mut self.counters);
        self.counters.syscalls += 1;
        // An embedder's duplicate of the descriptor would keep it registered.
        let _ = self.poll.registry().deregister(&mut SourceFd(&conn.socket.as_raw_fd()));
        socket::close(conn.socket, &mut self.counters);
        self.ended.push_back(IoEvent::Detached { conn: key });
    }

    fn lift(&mut self, key: ConnKey) {
        if self.conns.get_mut(key).is_none_or(|conn| conn.dial != Dial::Done) {
            return;
        }
        let Some(Conn { socket, send, .. }) = self.conns.remove(key) else { return };
        if let Some((buf, sent)) = send {
            self.counters.sends += u64::from(sent > 0);
            self.counters.sent_bytes += sent as u64;
            self.ended.push_back(IoEvent::Sent { conn: key, buf, result: Ok(sent) });
        }
        self.counters.syscalls += 1;
        let _ = self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()));
        self.ended.push_back(IoEvent::Lifted { conn: key, socket });
    }

    fn pause(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.paused = true;
        }
    }

    fn resume(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.paused = false;
            self.enqueue(key);
        }
    }

    fn send(&mut self, key: ConnKey, buf: SendBuf) -> Result<(), SendBuf> {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.send.is_none() && conn.dial == Dial::Done) else {
            return Err(buf);
        };
        conn.send = Some((buf, 0));
        self.enqueue(key);
        Ok(())
    }

    fn turn(&mut self, wait: Wait, events: &mut Vec<IoEvent>) -> io::Result<()> {
        let before = events.len();
        events.extend(self.ended.drain(..));
        self.enqueue_starved();
        // Send first what the reactor queued, then look for what is new: an answer may be there already.
        for _ in 0..self.ready.len().min(TURN_COMPLETIONS_MAX) {
            self.serve_first(events);
        }
        let timeout = match wait {
            _ if events.len() > before || !self.ready.is_empty() => Some(Duration::ZERO),
            Wait::No => Some(Duration::ZERO),
            Wait::Forever => None,
            Wait::Until(deadline_ns) => Some(Duration::from_nanos(deadline_ns.saturating_sub(monotonic_ns()))),
        };
        // Also when enough are ready: those whose edge has not been seen yet must not wait for the others to rest.
        self.poll(timeout)?;
        for _ in 0..self.ready.len().min(TURN_COMPLETIONS_MAX) {
            self.serve_first(events);
        }
        Ok(())
    }

    fn received(&self, buf: &RecvBuf) -> &[u8] {
        if !self.buffers.is_lent(buf.id()) {
            return &[];
        }
        self.buffers.memory[usize::from(buf.id())].get(..buf.len() as usize).unwrap_or_default()
    }

    fn recycle(&mut self, buf: RecvBuf) {
        if self.buffers.is_lent(buf.id()) {
            self.buffers.lent[usize::from(buf.id())] = false;
            self.buffers.free.push(buf.id());
        }
    }

    fn counters(&self) -> IoCounters {
        self.counters
    }
}
