//! The seam between a reactor and the kernel: [`Io`], with the io_uring back end, the epoll back end and, in the
//! simulator, a simulated network. Everything above it is the same code for all three.
//!
//! Shape: the reactor queues operations, calls [`Io::turn`], which submits them, waits if it may, and appends what
//! happened to a list of [`IoEvent`]s. Only then, with no completion queue being walked, the reactor acts on them
//! (user code runs there). A back end keeps every buffer that it was given until the kernel is done with it.
//!
//! The back ends behave alike, and `conformance.rs` holds them to it. What only the cost tells apart: io_uring submits
//! and waits in one system call, epoll needs one for each receive and send, and rounds timeouts up to a millisecond.

mod epoll;
mod probe;
mod socket;
mod table;
mod uring;

#[cfg(test)]
pub(crate) mod conformance;

pub use epoll::Epoll;
pub use probe::{Backend, BackendError, BackendKind, BackendReport, Missing};
pub use uring::Uring;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Sizes of a back end, fixed when it is made. The default fits a reactor with a few thousand connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoConfig {
    /// Receive buffers shared by all connections of the reactor; a power of two, at most 32,768. A connection with
    /// bytes to receive while every buffer is lent out waits until one is recycled.
    pub recv_buffers: u16,
    /// Size of one receive buffer.
    pub recv_buffer_bytes: u32,
    /// io_uring's submission queue: operations that can be queued between two system calls. When it is full the queue
    /// is submitted early, so this bounds batching, not what can be in flight. Ignored by epoll.
    pub submission_entries: u32,
    /// io_uring's completion queue: more completions than this between two turns cost the kernel an allocation each.
    /// Sum: one receive completion per buffer, one send and one cancellation per connection. Ignored by epoll.
    pub completion_entries: u32,
}

impl Default for IoConfig {
    fn default() -> Self {
        IoConfig { recv_buffers: 256, recv_buffer_bytes: 16 * 1024, submission_entries: 512, completion_entries: 4096 }
    }
}

impl IoConfig {
    /// Refuses sizes that a back end could not honour.
    fn check(&self) -> io::Result<()> {
        let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()));
        if !self.recv_buffers.is_power_of_two() || self.recv_buffers > 1 << 15 {
            return refuse("the number of receive buffers must be a power of two and at most 32768");
        }
        if self.recv_buffer_bytes == 0 || self.recv_buffer_bytes > 1 << 24 {
            return refuse("a receive buffer must have 1 byte to 16 MiB");
        }
        let (sq, cq) = (self.submission_entries, self.completion_entries);
        if sq == 0 || sq > 1 << 15 || cq < sq || cq > 1 << 16 {
            return refuse("an io_uring needs 1 to 32768 submission entries and as many to 65536 completion entries");
        }
        Ok(())
    }
}

/// Completions that one turn handles at most: what was received stays in the processor's cache while it is handled,
/// and the sends that it causes leave soon.
const TURN_COMPLETIONS_MAX: usize = 80;

/// CLOCK_MONOTONIC in nanoseconds: the same for all reactors and threads of the host. Read without a system call.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Neither is ever negative on this clock, and 64 bits of nanoseconds last for 584 years of uptime.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Names one attached connection: the back end's index and a generation, so that a late completion is told apart from
/// the next connection on the same index. Chosen by the reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnKey {
    /// Index in the reactor's table of connections; small and dense, reused after [`IoEvent::Detached`].
    pub index: u32,
    /// Generation of that index.
    pub generation: u32,
}

/// Bytes on their way out. The memory does not move while the back end holds it.
pub struct SendBuf {
    bytes: SendBytes,
    start: usize,
    end: usize,
}

enum SendBytes {
    Staging(Vec<u8>),
    Shared(Box<dyn AsRef<[u8]> + Send>),
}

impl SendBuf {
    /// The first `len` bytes of a reactor's staging buffer, which comes back with [`IoEvent::Sent`] to be used again.
    pub fn staging(bytes: Vec<u8>, len: usize) -> Self {
        let end = len.min(bytes.len());
        SendBuf { bytes: SendBytes::Staging(bytes), start: 0, end }
    }

    /// Bytes of an embedder, sent without a copy.
    pub fn shared(bytes: Box<dyn AsRef<[u8]> + Send>) -> Self {
        let end = (*bytes).as_ref().len();
        SendBuf { bytes: SendBytes::Shared(bytes), start: 0, end }
    }

    /// What is left to be sent.
    pub fn unsent(&self) -> &[u8] {
        let all = match &self.bytes {
            SendBytes::Staging(v) => v.as_slice(),
            SendBytes::Shared(b) => (**b).as_ref(),
        };
        all.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes `count` sent bytes off the front.
    pub fn advance(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    /// The staging buffer, to be used again; `None` for an embedder's bytes, which are dropped.
    pub fn into_staging(self) -> Option<Vec<u8>> {
        match self.bytes {
            SendBytes::Staging(v) => Some(v),
            SendBytes::Shared(_) => None,
        }
    }
}

impl std::fmt::Debug for SendBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SendBuf({} unsent)", self.unsent().len())
    }
}

/// A receive buffer of the back end that holds `len` received bytes; given back with [`Io::recycle`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a receive buffer that is not recycled starves the connections"]
pub struct RecvBuf {
    id: u16,
    len: u32,
}

#[allow(clippy::len_without_is_empty)] // A receive buffer that is reported is never empty.
impl RecvBuf {
    /// For back ends: the buffer with this number, holding `len` bytes.
    pub fn new(id: u16, len: u32) -> Self {
        RecvBuf { id, len }
    }

    /// The back end's buffer number.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Bytes received into it.
    pub fn len(&self) -> u32 {
        self.len
    }
}

/// What happened.
#[derive(Debug)]
pub enum IoEvent {
    /// The attempt that [`Io::connect`] began is over. `Ok`: the connection is as one that was attached. `Err`: nothing
    /// comes of it, and the reactor is to call [`Io::detach`]. Exactly once, unless it was detached first.
    Connected {
        /// The connection.
        conn: ConnKey,
        /// Whether the peer took it, or why not.
        result: io::Result<()>,
    },
    /// Bytes arrived on a connection, in order.
    Received {
        /// The connection.
        conn: ConnKey,
        /// Where the bytes are: see [`Io::received`].
        buf: RecvBuf,
    },
    /// The send in flight on a connection ended. `Ok(n)`: the kernel took `n` bytes, already taken off the buffer's
    /// front; if some are left (the socket failed or was detached midway, or it was more than 1 GiB) the reactor sends
    /// again, and learns why if it cannot.
    /// `Err`: nothing more will be sent; unless the connection was detached, a [`IoEvent::Closed`] follows or came before.
    Sent {
        /// The connection.
        conn: ConnKey,
        /// The buffer, back from the kernel.
        buf: SendBuf,
        /// Bytes taken, or why not.
        result: io::Result<usize>,
    },
    /// The peer closed its side (`None`) or the connection failed. Nothing more arrives. Exactly once per connection,
    /// unless it was detached first. The reactor is to call [`Io::detach`]; until then it can still send, which a peer
    /// that closed only its sending side receives. A paused connection does not notice its peer closing: it tells once
    /// it is resumed, or when a send fails.
    Closed {
        /// The connection.
        conn: ConnKey,
        /// Why, if it was a failure.
        error: Option<io::Error>,
    },
    /// After [`Io::detach`]: the last operation on the connection has completed, its descriptor is closed and its index
    /// may be used again. The last event of a connection, exactly once.
    Detached {
        /// The connection.
        conn: ConnKey,
    },
    /// After [`Io::lift`]: nothing is under way on the connection any more, and its index may be used again. The last event
    /// of it, exactly once, unless it was detached meanwhile.
    Lifted {
        /// The connection.
        conn: ConnKey,
        /// Its socket, still open.
        socket: OwnedFd,
    },
}

/// How long [`Io::turn`] may wait for the first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: submit, and take what is there.
    No,
    /// Until something happens, the waker is used, or [`Io::now_ns`] reaches this time.
    Until(u64),
    /// Until something happens or the waker is used.
    Forever,
}

/// Wakes a reactor that is parked in [`Io::turn`], from any thread. Costs a system call: callers look at the reactor's
/// parked flag first. Waking a reactor that is not parked makes its next wait return at once.
pub trait Wake: Send + Sync {
    /// Ends the wait.
    fn wake(&self);
}

/// What a back end counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoCounters {
    /// System calls made by the reactor thread through the back end.
    pub syscalls: u64,
    /// Send operations completed.
    pub sends: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Receive completions with bytes.
    pub receives: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Turns that found the waker used.
    pub wakes: u64,
    /// Times that a connection had bytes to receive and every receive buffer was lent out.
    pub starvations: u64,
}

impl IoCounters {
    /// Both together.
    pub(crate) fn plus(self, other: IoCounters) -> IoCounters {
        IoCounters {
            syscalls: self.syscalls + other.syscalls,
            sends: self.sends + other.sends,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            receives: self.receives + other.receives,
            received_bytes: self.received_bytes + other.received_bytes,
            wakes: self.wakes + other.wakes,
            starvations: self.starvations + other.starvations,
        }
    }
}

/// A back end. Used by one reactor thread only.
pub trait Io {
    /// The name for reports: `uring`, `epoll` or `sim`.
    fn name(&self) -> &'static str;

    /// The clock, in nanoseconds since an arbitrary point; never goes back.
    fn now_ns(&self) -> u64;

    /// The handle that ends a wait from another thread.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Takes over a connected stream socket and begins to receive. The index of `conn` must be free and below 2^24; the
    /// error says what is wrong with it or with the socket, which is then closed. Small segments leave at once
    /// (TCP_NODELAY): the reactor has coalesced what there is.
    fn attach(&mut self, conn: ConnKey, socket: OwnedFd) -> io::Result<()>;

    /// Makes a stream socket and begins to connect it, which [`IoEvent::Connected`] ends; until then nothing is sent. The
    /// index of `conn` must be free, as in [`Io::attach`]. There is no limit of time but the kernel's: who does not want
    /// to wait for longer detaches. An error leaves nothing behind.
    fn connect(&mut self, conn: ConnKey, address: SocketAddr) -> io::Result<()> {
        let _ = (conn, address);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Shuts the connection down in both directions and drops it once its last operation has completed: see
    /// [`IoEvent::Detached`]. No later turn reports a `Received` or a `Closed` (those that the turn before handed out
    /// already are skipped by the reactor, buffers recycled); the `Sent` of a send in flight is reported.
    /// Detaching twice, or a connection that is not attached, does nothing.
    fn detach(&mut self, conn: ConnKey);

    /// Lets go of a connection and leaves it open: nothing more is received, a send in flight comes back as
    /// [`IoEvent::Sent`], `Ok` with what went out of it, and when nothing is under way any more [`IoEvent::Lifted`] gives the
    /// socket back. Who takes that over goes on where this one has stopped: with [`Io::attach`] here, or in another process.
    /// What arrives before is reported as ever; an end is not, for it is there to be found by the next one. One that is still
    /// being connected, or is not attached, is left as it is.
    #[cfg_attr(not(feature = "checkpoint"), allow(dead_code))] // only an upgrade does, and the tests
    fn lift(&mut self, conn: ConnKey);

    /// Stops receiving (back pressure). Bytes already received may still be reported.
    fn pause(&mut self, conn: ConnKey);

    /// Receives again after [`Io::pause`].
    fn resume(&mut self, conn: ConnKey);

    /// Sends a buffer. At most one send is in flight per connection: the reactor coalesces meanwhile. `Err` hands the
    /// buffer back: the operation could not be queued (submission queue full, a send in flight, or not attached) and
    /// nothing was sent; the reactor tries again in a later turn.
    fn send(&mut self, conn: ConnKey, buf: SendBuf) -> Result<(), SendBuf>;

    /// Submits what is queued, waits as `wait` says for the first event, and appends the events to `events`: bounded
    /// work, a few dozen completions a turn, the rest next time. It may come back early and empty-handed: after a wake,
    /// a signal, or an event that concerns the back end alone. An error is fatal to the reactor.
    fn turn(&mut self, wait: Wait, events: &mut Vec<IoEvent>) -> io::Result<()>;

    /// The bytes of a receive buffer: none if it is not lent out.
    fn received(&self, buf: &RecvBuf) -> &[u8];

    /// Gives a receive buffer back. One that is not lent out is ignored.
    fn recycle(&mut self, buf: RecvBuf);

    /// What was counted so far.
    fn counters(&self) -> IoCounters;
}
