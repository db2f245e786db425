//! A small reactor for the tests: it turns a back end, keeps what happened per connection, and checks on the way what
//! must hold in every scenario.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::io::{Backend, ConnKey, Epoll, Io, IoConfig, IoEvent, RecvBuf, SendBuf, Uring, Wait};

/// Long enough for a loaded machine; no test waits for it unless it fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The back end under test; `None`, said aloud, where the host has no io_uring.
pub(crate) fn make(backend: Backend, config: &IoConfig) -> Option<Box<dyn Io>> {
    match backend {
        Backend::Epoll => Some(Box::new(Epoll::new(config).expect("epoll"))),
        _ => uring_or_skip(config).map(|io| Box::new(io) as Box<dyn Io>),
    }
}

/// The io_uring back end; `None`, said aloud, where the host has none.
pub(in crate::io) fn uring_or_skip(config: &IoConfig) -> Option<Uring> {
    match Backend::Uring.choose(config) {
        Ok(_) => Some(Uring::new(config).expect("io_uring")),
        Err(error) if std::env::var_os("RINGBACK_REQUIRE_URING").is_some_and(|v| v == "1") => panic!("{error}"),
        Err(error) => {
            // Past the capture of the test harness: a skipped test does not look like one that passed.
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            writeln!(std::io::stderr(), "skipped: {name}: {error}").expect("stderr");
            None
        }
    }
}

/// What happened on one connection.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) connected: Option<Result<(), std::io::ErrorKind>>,
    pub(super) received: Vec<u8>,
    pub(super) sent: Vec<(SendBuf, std::io::Result<usize>)>,
    pub(super) closed: Option<Option<std::io::ErrorKind>>,
    pub(super) detached: bool,
    pub(super) lifted: Option<OwnedFd>,
}

/// The reactor of the tests.
pub(super) struct Reactor {
    pub(super) io: Box<dyn Io>,
    pub(super) seen: HashMap<ConnKey, Seen>,
    /// Receive buffers are kept instead of given back.
    pub(super) hold: bool,
    pub(super) held: Vec<RecvBuf>,
    events: Vec<IoEvent>,
    detaching: Vec<ConnKey>,
}

impl Reactor {
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        let (seen, held, events, detaching) = Default::default();
        Reactor { io, seen, hold: false, held, events, detaching }
    }

    /// A loopback connection: the near half attached as `key`, the far half given back.
    pub(super) fn connect(&mut self, key: ConnKey) -> TcpStream {
        let (near, far) = pair();
        self.attach(key, near);
        far
    }

    pub(super) fn attach(&mut self, key: ConnKey, near: impl Into<OwnedFd>) {
        self.io.attach(key, near.into()).expect("attach");
        let before = self.seen.insert(key, Seen::default());
        assert!(before.is_none(), "the test reuses {key:?}");
    }

    /// The same connection once more.
    pub(super) fn attach_again(&mut self, key: ConnKey, socket: OwnedFd) {
        self.io.attach(key, socket).expect("attach");
    }

    /// Begins to connect.
    pub(super) fn dial(&mut self, key: ConnKey, address: SocketAddr) {
        self.io.connect(key, address).expect("connect");
        let before = self.seen.insert(key, Seen::default());
        assert!(before.is_none(), "the test reuses {key:?}");
    }

    pub(super) fn detach(&mut self, key: ConnKey) {
        self.io.detach(key);
        self.detaching.push(key);
    }

    pub(super) fn send(&mut self, key: ConnKey, bytes: &[u8]) {
        self.io.send(key, SendBuf::staging(bytes.to_vec(), bytes.len())).expect("send");
    }

    pub(super) fn of(&self, key: ConnKey) -> &Seen {
        &self.seen[&key]
    }

    /// One turn, with the checks that hold always.
    pub(super) fn turn(&mut self, wait: Wait) -> usize {
        self.io.turn(wait, &mut self.events).expect("turn");
        let count = self.events.len();
        for event in std::mem::take(&mut self.events) {
            self.note(event);
        }
        count
    }

    fn note(&mut self, event: IoEvent) {
        match event {
            IoEvent::Connected { conn, result } => {
                let seen = self.seen.get_mut(&conn).expect("dialled");
                assert!(!self.detaching.contains(&conn), "connected after detach: {conn:?}");
                assert!(seen.connected.is_none(), "connected twice: {conn:?}");
                seen.connected = Some(result.map_err(|error| error.kind()));
            }
            IoEvent::Received { conn, buf } => {
                let seen = self.seen.get_mut(&conn).expect("attached");
                assert!(seen.closed.is_none(), "received after the end: {conn:?}");
                assert!(!self.detaching.contains(&conn), "received after detach: {conn:?}");
                let bytes = self.io.received(&buf);
                assert!(!bytes.is_empty() && bytes.len() == buf.len() as usize);
                seen.received.extend_from_slice(bytes);
                if self.hold {
                    self.held.push(buf);
                } else {
                    self.io.recycle(buf);
                }
            }
            IoEvent::Sent { conn, buf, result } => {
                let seen = self.seen.get_mut(&conn).expect("attached");
                assert!(!seen.detached, "sent after the last event: {conn:?}");
                seen.sent.push((buf, result));
            }
            IoEvent::Closed { conn, error } => {
                let seen = self.seen.get_mut(&conn).expect("attached");
                assert!(!self.detaching.contains(&conn), "closed after detach: {conn:?}");
                assert!(seen.closed.is_none(), "closed twice: {conn:?}");
                seen.closed = Some(error.map(|error| error.kind()));
            }
            IoEvent::Detached { conn } => {
                assert!(self.detaching.contains(&conn), "detached without being asked: {conn:?}");
                let seen = self.seen.get_mut(&conn).expect("attached");
                assert!(!seen.detached, "detached twice: {conn:?}");
                seen.detached = true;
            }
            IoEvent::Lifted { conn, socket } => {
                let seen = self.seen.get_mut(&conn).expect("attached");
                assert!(!seen.detached && seen.lifted.is_none(), "lifted twice or late: {conn:?}");
                seen.lifted = Some(socket);
            }
        }
    }

    /// Turns until the condition holds.
    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Reactor) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
            let deadline_ns = self.io.now_ns() + 20_000_000;
            self.turn(Wait::Until(deadline_ns));
        }
    }

    /// Turns for a while, to see that something does not happen.
    pub(super) fn linger(&mut self, time: Duration) {
        let deadline_ns = self.io.now_ns() + time.as_nanos() as u64;
        while self.io.now_ns() < deadline_ns {
            self.turn(Wait::Until(deadline_ns));
        }
    }

    pub(super) fn recycle_held(&mut self) {
        for buf in self.held.drain(..) {
            self.io.recycle(buf);
        }
    }

    /// Detaches, and waits until the connection is gone.
    pub(super) fn finish(&mut self, key: ConnKey) {
        self.detach(key);
        self.until("detached", |r| r.of(key).detached);
    }
}

/// The two ends of a loopback connection.
pub(super) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let far = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (near, _) = listener.accept().expect("accept");
    far.set_read_timeout(Some(PATIENCE)).expect("timeout");
    far.set_write_timeout(Some(PATIENCE)).expect("timeout");
    (near, far)
}

pub(super) fn key(index: u32) -> ConnKey {
    ConnKey { index, generation: 1 }
}

/// Bytes that show where they belong: no two places within 64 KiB look alike.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(0x9e37_79b1).to_le_bytes()[2 + (i & 1)]).collect()
}

/// Reads so many bytes of the far end.
pub(super) fn read_exact(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("the peer reads");
    bytes
}

/// Closes the far end with a reset.
pub(super) fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("linger");
}

/// Counts when it is dropped: a buffer that must not be freed early, nor leaked.
pub(super) struct Tracked(pub(super) Vec<u8>, pub(super) Arc<AtomicUsize>);

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // What a kernel that still reads would send.
        self.0.fill(0xee);
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}
