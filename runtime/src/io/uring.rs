//! The io_uring back end: one ring per reactor, multishot receives into a shared ring of provided buffers, one send at
//! a time per connection, one system call per turn.
//!
//! Nothing outside this module knows io_uring. [`ring`] queues and takes operations, [`buffers`] owns the receive
//! buffers, [`op`] names operations; this file keeps each connection's operations in line with what the reactor wants:
//! every event ends in [`Uring::settle`], which is the only place that arms, cancels or lets go.
//!
//! Who owns memory in flight: a send buffer lives in its [`Conn`] and is not touched until its completion has been
//! taken; a connection, with its descriptor, stays until its last operation has completed; and the drop of the back end
//! cancels everything and waits for it.

#![allow(unsafe_code)]

mod buffers;
mod op;
mod ring;

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{SocketAddrAny, SocketFlags};

use self::buffers::Buffers;
use self::op::OpKind;
use self::ring::{Completion, EnterWait, Full, Ring};
use super::table::Table;
use super::{
    ConnKey, Io, IoConfig, IoCounters, IoEvent, Missing, RecvBuf, SendBuf, TURN_COMPLETIONS_MAX, Wait, Wake,
    monotonic_ns, socket,
};

/// How long the drop of the back end waits for cancelled operations, which end at once unless the kernel is at fault.
const DROP_NS_MAX: u64 = 5_000_000_000;

/// The multishot receive of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recv {
    /// None in flight.
    Off,
    /// In flight: completions come as bytes arrive.
    Armed,
    /// Ended for want of a buffer; in the queue to be armed again when some are free.
    Starved,
}

/// The address that a connection is being made to. The kernel may look at it until it is done.
#[derive(Debug)]
struct Dial {
    address: Box<SocketAddrAny>,
    /// The operation is in flight.
    begun: bool,
}

#[derive(Debug)]
struct Conn {
    socket: OwnedFd,
    /// The connection is not there yet.
    dial: Option<Dial>,
    recv: Recv,
    /// The send in flight.
    send: Option<SendBuf>,
    /// Operations queued or in the kernel; the connection stays until there are none.
    ops: u32,
    /// A cancellation is in flight.
    cancelling: bool,
    /// Waits in `deferred` for room in the submission queue.
    deferred: bool,
    /// The reactor asked not to receive.
    paused: bool,
    /// `Closed` has been reported.
    closed: bool,
    /// The reactor has let go.
    detached: bool,
    /// The reactor has let go, and wants the socket back.
    lifted: bool,
    /// Received something since its receive was armed.
    fed: bool,
    /// Everything has been cancelled after the detach or the lift: once is enough.
    cancelled: bool,
    /// What a send met; the cause to report when receiving ends too.
    failure: Option<Errno>,
}

impl Conn {
    fn new(socket: OwnedFd) -> Self {
        Conn {
            socket,
            dial: None,
            recv: Recv::Off,
            send: None,
            ops: 0,
            cancelling: false,
            deferred: false,
            paused: false,
            closed: false,
            detached: false,
            lifted: false,
            fed: false,
            cancelled: false,
            failure: None,
        }
    }

    /// Whether bytes that arrive are still reported.
    fn reports(&self) -> bool {
        !self.closed && !self.detached
    }

    fn close(&mut self, conn: ConnKey, error: Option<Errno>, events: &mut Vec<IoEvent>) {
        if self.reports() && !self.lifted {
            self.closed = true;
            let error = error.or(self.failure).map(io::Error::from);
            events.push(IoEvent::Closed { conn, error });
        }
    }
}

/// The handle that ends a wait: an eventfd on which the ring has a multishot poll. It is never read: each write makes
/// the poll report again, and 2^64 writes do not happen.
struct EventFd(OwnedFd);

impl Wake for EventFd {
    fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &one));
        debug_assert_eq!(written, Ok(one.len()));
    }
}

/// The io_uring back end. Made on the thread that uses it, as the kernel holds the ring to its first thread.
pub struct Uring {
    /// Closed before the buffers go: field order is drop order.
    ring: ManuallyDrop<Ring>,
    buffers: ManuallyDrop<Buffers>,
    conns: ManuallyDrop<Table<Conn>>,
    /// Connections that need a place in the submission queue.
    deferred: VecDeque<ConnKey>,
    /// Connections whose receive ended for want of a buffer, the hungriest first.
    starved: VecDeque<ConnKey>,
    /// What is the last of a connection, to be reported.
    ended: VecDeque<IoEvent>,
    waker: Arc<EventFd>,
    waker_armed: bool,
    woken: bool,
    batch: Vec<Completion>,
    receives_armed: u64,
    counters: IoCounters,
}

impl Uring {
    /// Makes a ring on the calling thread.
    pub fn new(config: &IoConfig) -> io::Result<Self> {
        config.check()?;
        Ok(Self::probed(config)?)
    }

    /// Makes a ring, or says what is missing for one.
    pub(super) fn probed(config: &IoConfig) -> Result<Self, Missing> {
        let ring = Ring::new(config)?;
        let buffers = Buffers::new(&ring, config.recv_buffers, config.recv_buffer_bytes)
            .map_err(|error| Missing::from_buffers(&error))?;
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Missing::from_setup(&errno.into()))?;
        Ok(Uring {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            conns: ManuallyDrop::new(Table::new()),
            deferred: VecDeque::new(),
            starved: VecDeque::new(),
            ended: VecDeque::new(),
            waker: Arc::new(EventFd(eventfd)),
            waker_armed: false,
            woken: false,
            batch: Vec::with_capacity(TURN_COMPLETIONS_MAX),
            receives_armed: 0,
            counters: IoCounters::default(),
        })
    }

    /// Times that a receive was armed: with multishot receive, once per connection if nothing interrupts it.
    pub(super) fn receives_armed(&self) -> u64 {
        self.receives_armed
    }

    /// Brings the operations of a connection in line with what is wanted of it.
    fn settle(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if (conn.detached || conn.lifted) && conn.ops == 0 {
            let Some(conn) = self.conns.remove(key) else { return };
            self.ended.push_back(if conn.detached {
                socket::close(conn.socket, &mut self.counters);
                IoEvent::Detached { conn: key }
            } else {
                IoEvent::Lifted { conn: key, socket: conn.socket }
            });
            return;
        }
        let wanted = conn.reports() && !conn.paused;
        let queued = if conn.detached || conn.lifted {
            if conn.cancelled || conn.cancelling {
                return;
            }
            let queued = self.ring.push_cancel_socket(conn.socket.as_fd(), key);
            conn.cancelled = queued.is_ok();
            conn.cancelling |= queued.is_ok();
            queued
        } else if let Some(dial) = &mut conn.dial {
            if dial.begun {
                return;
            }
            // SAFETY: the address is on the heap and stays there: the connection keeps it, untouched, until the completion
            // is taken, and the drop of the back end leaks the connections if it cannot wait for that.
            let queued = unsafe { self.ring.push_connect(conn.socket.as_fd(), key, &dial.address) };
            dial.begun = queued.is_ok();
            queued
        } else if wanted && conn.recv == Recv::Off {
            let queued = self.ring.push_recv(conn.socket.as_fd(), key, buffers::GROUP);
            if queued.is_ok() {
                conn.recv = Recv::Armed;
                conn.fed = false;
                self.receives_armed += 1;
            }
            queued
        } else if !wanted && conn.recv == Recv::Armed && !conn.cancelling {
            let queued = self.ring.push_cancel_recv(key);
            conn.cancelling = queued.is_ok();
            queued
        } else {
            return;
        };
        match queued {
            Ok(()) => conn.ops += 1,
            Err(Full) if !conn.deferred => {
                conn.deferred = true;
                self.deferred.push_back(key);
            }
            Err(Full) => {}
        }
    }

    /// Tries again what found the submission queue full.
    fn settle_deferred(&mut self) {
        for _ in 0..self.deferred.len() {
            let Some(key) = self.deferred.pop_front() else { return };
            if let Some(conn) = self.conns.get_mut(key) {
                conn.deferred = false;
                self.settle(key);
            }
        }
    }

    /// Arms starved connections again, as many as there are buffers: more would only starve once more.
    fn settle_starved(&mut self) {
        for _ in 0..self.starved.len().min(usize::from(self.buffers.free_count())) {
            let Some(key) = self.starved.pop_front() else { return };
            if let Some(conn) = self.conns.get_mut(key) {
                conn.recv = Recv::Off;
                self.settle(key);
            }
        }
    }

    fn report_ended(&mut self, events: &mut Vec<IoEvent>) {
        events.extend(self.ended.drain(..));
    }

    fn complete(&mut self, completion: Completion, events: &mut Vec<IoEvent>) {
        let key = completion.op.conn;
        match completion.op.kind {
            OpKind::Recv => self.complete_recv(completion, events),
            OpKind::Send => self.complete_send(completion, events),
            OpKind::Connect => self.complete_connect(completion, events),
            OpKind::Cancel => {
                // Whether it found its operation does not matter: that one's own completion tells.
                let Some(conn) = self.conns.get_mut(key) else { panic!("cancellation without a connection: {key:?}") };
                conn.ops -= 1;
                conn.cancelling = false;
                self.settle(key);
            }
            OpKind::Wake => {
                self.woken = true;
                self.waker_armed = completion.more;
            }
            OpKind::CancelAll => {}
        }
    }

    fn complete_recv(&mut self, completion: Completion, events: &mut Vec<IoEvent>) {
        let key = completion.op.conn;
        let Some(conn) = self.conns.get_mut(key) else { panic!("receive without a connection: {key:?}") };
        if !completion.more {
            conn.recv = Recv::Off;
            conn.ops -= 1;
        }
        match (completion.outcome(), completion.buffer) {
            (Ok(len @ 1..), Some(id)) => {
                conn.fed = true;
                if conn.reports() {
                    self.counters.receives += 1;
                    self.counters.received_bytes += u64::from(len);
                    events.push(IoEvent::Received { conn: key, buf: self.buffers.lend(id, len) });
                } else {
                    self.buffers.put_back(id);
                }
            }
            (outcome, buffer) => {
                if let Some(id) = buffer {
                    self.buffers.put_back(id);
                }
                match outcome {
                    Ok(_) => conn.close(key, None, events),
                    Err(Errno::NOBUFS) => {
                        self.counters.starvations += 1;
                        conn.recv = Recv::Starved;
                        // The one armed first may take every buffer: those that got none go before it next time.
                        if conn.fed {
                            self.starved.push_back(key);
                        } else {
                            self.starved.push_front(key);
                        }
                    }
                    // Paused or detached; or interrupted, and then armed again.
                    Err(Errno::CANCELED | Errno::INTR) => {}
                    Err(errno) => conn.close(key, Some(errno), events),
                }
            }
        }
        if !completion.more {
            self.settle(key);
        }
    }

    fn complete_send(&mut self, completion: Completion, events: &mut Vec<IoEvent>) {
        let key = completion.op.conn;
        let Some(conn) = self.conns.get_mut(key) else { panic!("send without a connection: {key:?}") };
        let Some(mut buf) = conn.send.take() else { panic!("two completions of one send: {key:?}") };
        conn.ops -= 1;
        match completion.outcome() {
            Ok(len) => {
                self.counters.sends += 1;
                self.counters.sent_bytes += u64::from(len);
                buf.advance(len as usize);
                events.push(IoEvent::Sent { conn: key, buf, result: Ok(len as usize) });
            }
            // Nothing of it has gone out, and the socket is as good as ever.
            Err(Errno::CANCELED) if conn.lifted && !conn.detached => {
                events.push(IoEvent::Sent { conn: key, buf, result: Ok(0) });
            }
            Err(errno) => {
                events.push(IoEvent::Sent { conn: key, buf, result: Err(errno.into()) });
                conn.failure = Some(errno);
                if conn.paused {
                    conn.close(key, Some(errno), events);
                } else if conn.reports() && !conn.lifted {
                    // What the peer sent before is still received; the shutdown sees to it that an end follows.
                    socket::shutdown(&conn.socket, &mut self.counters);
                }
            }
        }
        self.settle(key);
    }

    fn complete_connect(&mut self, completion: Completion, events: &mut Vec<IoEvent>) {
        let key = completion.op.conn;
        let Some(conn) = self.conns.get_mut(key) else { panic!("connecting without a connection: {key:?}") };
        conn.ops -= 1;
        conn.dial = None;
        if !conn.detached {
            let result = completion.outcome();
            // What failed has nothing to receive, and no end to tell of.
            conn.closed = result.is_err();
            events.push(IoEvent::Connected { conn: key, result: result.map(drop).map_err(io::Error::from) });
        }
        self.settle(key);
    }

    /// Cancels everything and waits for it. Says whether the kernel is done with all memory.
    fn drain(&mut self) -> bool {
        for conn in self.conns.iter_mut() {
            socket::shutdown(&conn.socket, &mut self.counters);
        }
        let deadline_ns = monotonic_ns() + DROP_NS_MAX;
        let mut cancelled = false;
        while self.ring.ops() > 0 {
            let now_ns = monotonic_ns();
            if now_ns >= deadline_ns {
                return false;
            }
            cancelled = cancelled || self.ring.push_cancel_all().is_ok();
            if self.ring.enter(EnterWait::ForNs(deadline_ns - now_ns)).is_err() {
                return false;
            }
            self.batch.clear();
            self.ring.take(TURN_COMPLETIONS_MAX, &mut self.batch);
        }
        true
    }
}

impl Io for Uring {
    fn name(&self) -> &'static str {
        "uring"
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
        // The ring waits for a socket itself, unless the socket says that nobody is to: the epoll back end has it say so.
        self.counters.syscalls += 1;
        rustix::io::ioctl_fionbio(&socket, false)?;
        self.conns.insert(key, Conn::new(socket));
        self.settle(key);
        Ok(())
    }

    fn connect(&mut self, key: ConnKey, address: SocketAddr) -> io::Result<()> {
        self.conns.check_free(key)?;
        let socket = socket::open(&address, SocketFlags::empty(), &mut self.counters)?;
        let dial = Some(Dial { address: Box::new(address.as_any()), begun: false });
        self.conns.insert(key, Conn { dial, ..Conn::new(socket) });
        self.settle(key);
        Ok(())
    }

    fn detach(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !conn.detached {
            conn.detached = true;
            // Ends what is in flight by itself; the cancellation in `settle` is for what does not listen.
            socket::shutdown(&conn.socket, &mut self.counters);
            self.settle(key);
        }
    }

    fn lift(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.dial.is_none()) {
            conn.lifted = true;
            self.settle(key);
        }
    }

    fn pause(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.paused = true;
            self.settle(key);
        }
    }

    fn resume(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.paused = false;
            self.settle(key);
        }
    }

    fn send(&mut self, key: ConnKey, buf: SendBuf) -> Result<(), SendBuf> {
        let free = |conn: &&mut Conn| !conn.detached && !conn.lifted && conn.send.is_none() && conn.dial.is_none();
        let Some(conn) = self.conns.get_mut(key).filter(free) else { return Err(buf) };
        // In its place before the kernel learns its address.
        let buf = conn.send.insert(buf);
        // SAFETY: the bytes are on the heap and stay there: the connection keeps the buffer, untouched, until the
        // completion is taken, and the drop of the back end leaks the connections if it cannot wait for that.
        match unsafe { self.ring.push_send(conn.socket.as_fd(), key, buf) } {
            Ok(()) => {
                conn.ops += 1;
                Ok(())
            }
            Err(Full) => match conn.send.take() {
                Some(buf) => Err(buf),
                None => unreachable!("the buffer was put there above"),
            },
        }
    }

    fn turn(&mut self, wait: Wait, events: &mut Vec<IoEvent>) -> io::Result<()> {
        let before = events.len();
        self.report_ended(events);
        if !self.waker_armed {
            self.waker_armed = self.ring.push_wake_poll(self.waker.0.as_fd()).is_ok();
        }
        self.settle_starved();
        self.settle_deferred();
        // Not armed or deferred: the submission queue is full, and there will be room when it has been submitted.
        let at_once = events.len() > before
            || !self.ended.is_empty()
            || !self.deferred.is_empty()
            || !self.waker_armed
            || self.ring.has_completions();
        self.ring.enter(match wait {
            _ if at_once => EnterWait::No,
            Wait::No => EnterWait::No,
            Wait::Forever => EnterWait::Forever,
            Wait::Until(deadline_ns) => match deadline_ns.saturating_sub(monotonic_ns()) {
                0 => EnterWait::No,
                ns => EnterWait::ForNs(ns),
            },
        })?;
        let mut batch = std::mem::take(&mut self.batch);
        self.ring.take(TURN_COMPLETIONS_MAX, &mut batch);
        for completion in batch.drain(..) {
            self.complete(completion, events);
        }
        self.batch = batch;
        self.counters.wakes += u64::from(std::mem::take(&mut self.woken));
        self.report_ended(events);
        Ok(())
    }

    fn received(&self, buf: &RecvBuf) -> &[u8] {
        self.buffers.bytes(buf)
    }

    fn recycle(&mut self, buf: RecvBuf) {
        self.buffers.take_back(&buf);
    }

    fn counters(&self) -> IoCounters {
        let mut counters = self.counters;
        counters.syscalls += self.ring.syscalls;
        counters
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if !self.drain() {
            // The kernel may still read and write: leaking is the only safe way on.
            return;
        }
        assert_eq!(self.ring.ops(), 0, "memory is freed while the kernel may use it");
        // SAFETY: dropped once, here, and not used again; the ring first, so that no buffer is registered any more.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        // SAFETY: as above; nothing is in flight.
        unsafe { ManuallyDrop::drop(&mut self.buffers) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.conns) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::io::conformance::harness::uring_or_skip;

    #[test]
    fn a_turn_is_one_system_call_and_none_when_there_is_nothing_to_do() {
        let Some(mut io) = uring_or_skip(&IoConfig::default()) else { return };
        let mut events = Vec::new();
        let mut fars = Vec::new();
        for index in 0..32 {
            let (near, far) = UnixStream::pair().expect("pair");
            io.attach(ConnKey { index, generation: 0 }, near.into()).expect("attach");
            fars.push(far);
        }
        io.turn(Wait::No, &mut events).expect("turn");
        let start = io.counters().syscalls;
        for _ in 0..10 {
            io.turn(Wait::No, &mut events).expect("turn");
        }
        assert_eq!(io.counters().syscalls, start, "nothing was queued, nothing had happened");
        for far in &mut fars {
            far.write_all(b"ping").expect("write");
        }
        let mut turns = 0;
        while io.counters().receives < 32 {
            io.turn(Wait::Forever, &mut events).expect("turn");
            turns += 1;
        }
        assert!(io.counters().syscalls - start <= turns);
        for event in events.drain(..) {
            let IoEvent::Received { conn, buf } = event else { panic!("{event:?}") };
            io.recycle(buf);
            io.send(conn, SendBuf::staging(vec![0; 4], 4)).expect("send");
        }
        let start = io.counters();
        io.turn(Wait::Forever, &mut events).expect("turn");
        assert_eq!(io.counters().syscalls - start.syscalls, 1, "submitting and waiting are one call");
        assert_eq!(io.counters().sends - start.sends, 32, "a send that fits completes within the call");
        assert_eq!(io.receives_armed(), 32, "a multishot receive is armed once");
    }
}
