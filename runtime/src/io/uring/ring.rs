//! The ring itself: set-up, submission, completion. Mechanics only; [`super::Uring`] decides.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketAddrAny};

use super::op::{OpKey, OpKind};
use crate::io::{ConnKey, IoConfig, Missing, SendBuf, TURN_COMPLETIONS_MAX};

/// The longest send of one operation: its result is an `i32`. A longer buffer is sent in several.
const SEND_BYTES_MAX: usize = 1 << 30;

/// The submission queue is full, and the kernel took nothing from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// How long [`Ring::enter`] waits for the first completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EnterWait {
    No,
    ForNs(u64),
    Forever,
}

/// One completion, copied out of the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) op: OpKey,
    pub(super) result: i32,
    /// The receive buffer that the kernel chose.
    pub(super) buffer: Option<u16>,
    /// More completions of this operation follow; if not, it is over.
    pub(super) more: bool,
}

impl Completion {
    /// The count, or the error.
    pub(super) fn outcome(&self) -> Result<u32, Errno> {
        u32::try_from(self.result).map_err(|_| Errno::from_raw_os_error(-self.result))
    }
}

/// One io_uring. Used by the thread that made it only (SINGLE_ISSUER), which the type's not being `Send` enforces.
pub(super) struct Ring {
    ring: IoUring,
    /// Operations queued or in the kernel: each counts until its last completion has been copied out.
    ops: usize,
    pub(super) syscalls: u64,
    one_thread: std::marker::PhantomData<*const ()>,
}

impl Ring {
    /// Makes the ring, and checks that the kernel has all that the back end relies on.
    pub(super) fn new(config: &IoConfig) -> Result<Self, Missing> {
        let ring = IoUring::builder()
            .setup_cqsize(config.completion_entries)
            // A bad operation fails alone; those queued behind it are still submitted.
            .setup_submit_all()
            .setup_single_issuer()
            // Completions are made when the reactor asks for them, not in the middle of its work...
            .setup_defer_taskrun()
            // ... and a flag in shared memory says that there are some to be made.
            .setup_taskrun_flag()
            .build(config.submission_entries)
            .map_err(|error| Missing::from_setup(&error))?;
        if !ring.params().is_feature_nodrop() {
            return Err(Missing::Feature("IORING_FEAT_NODROP (no completion is lost)"));
        }
        if !ring.params().is_feature_ext_arg() {
            return Err(Missing::Feature("IORING_FEAT_EXT_ARG (wait with a timeout)"));
        }
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(|_| Missing::Feature("IORING_REGISTER_PROBE"))?;
        let needed = [
            (opcode::RecvMulti::CODE, "IORING_OP_RECV"),
            (opcode::Send::CODE, "IORING_OP_SEND"),
            (opcode::Connect::CODE, "IORING_OP_CONNECT"),
            (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
            (opcode::AsyncCancel2::CODE, "IORING_OP_ASYNC_CANCEL"),
        ];
        for (code, name) in needed {
            if !probe.is_supported(code) {
                return Err(Missing::Feature(name));
            }
        }
        Ok(Ring { ring, ops: 0, syscalls: 0, one_thread: std::marker::PhantomData })
    }

    /// Registers a ring of provided buffers.
    ///
    /// # Safety
    /// `entries` is the page-aligned address of `count` entries, which stay until the ring is closed.
    pub(super) unsafe fn register_buffers(&self, entries: u64, count: u16, group: u16) -> io::Result<()> {
        // SAFETY: promised by the caller.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(entries, count, group, 0) }
    }

    /// Queues a multishot receive into the provided buffers.
    pub(super) fn push_recv(&mut self, socket: BorrowedFd<'_>, conn: ConnKey, group: u16) -> Result<(), Full> {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), group).build();
        // SAFETY: the kernel takes its own reference to the socket, and writes to provided buffers only, which stay
        // until the ring has been drained and closed.
        unsafe { self.push(entry, OpKey::on(OpKind::Recv, conn)) }
    }

    /// Queues the send of a whole buffer (up to 1 GiB).
    ///
    /// # Safety
    /// The bytes stay where they are, unchanged, until the completion has been taken.
    pub(super) unsafe fn push_send(
        &mut self,
        socket: BorrowedFd<'_>,
        conn: ConnKey,
        buf: &SendBuf,
    ) -> Result<(), Full> {
        let bytes = buf.unsent();
        let len = bytes.len().min(SEND_BYTES_MAX) as u32;
        // WAITALL: the kernel continues a short send itself. NOSIGNAL: a peer that is gone is an error, not a signal.
        let flags = (SendFlags::NOSIGNAL.bits() | RecvFlags::WAITALL.bits()) as i32;
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), len).flags(flags).build();
        // SAFETY: the caller keeps the bytes; the kernel takes its own reference to the socket.
        unsafe { self.push(entry, OpKey::on(OpKind::Send, conn)) }
    }

    /// Queues the connection of a socket.
    ///
    /// # Safety
    /// The address stays where it is, unchanged, until the completion has been taken.
    pub(super) unsafe fn push_connect(
        &mut self,
        socket: BorrowedFd<'_>,
        conn: ConnKey,
        address: &SocketAddrAny,
    ) -> Result<(), Full> {
        let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.addr_len()).build();
        // SAFETY: the caller keeps the address; the kernel takes its own reference to the socket.
        unsafe { self.push(entry, OpKey::on(OpKind::Connect, conn)) }
    }

    /// Queues the cancellation of a connection's receive.
    pub(super) fn push_cancel_recv(&mut self, conn: ConnKey) -> Result<(), Full> {
        let recv = OpKey::on(OpKind::Recv, conn).to_user_data();
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(recv)).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.push(entry, OpKey::on(OpKind::Cancel, conn)) }
    }

    /// Queues the cancellation of everything on a connection's socket, which stays open until that has completed.
    pub(super) fn push_cancel_socket(&mut self, socket: BorrowedFd<'_>, conn: ConnKey) -> Result<(), Full> {
        let builder = CancelBuilder::fd(Fd(socket.as_raw_fd())).all();
        let entry = opcode::AsyncCancel2::new(builder).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.push(entry, OpKey::on(OpKind::Cancel, conn)) }
    }

    /// Queues the cancellation of everything.
    pub(super) fn push_cancel_all(&mut self) -> Result<(), Full> {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.push(entry, OpKey::of_ring(OpKind::CancelAll)) }
    }

    /// Queues a multishot poll of the waker's eventfd.
    pub(super) fn push_wake_poll(&mut self, eventfd: BorrowedFd<'_>) -> Result<(), Full> {
        let events = u32::from(PollFlags::IN.bits());
        let entry = opcode::PollAdd::new(Fd(eventfd.as_raw_fd()), events).multi(true).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.push(entry, OpKey::of_ring(OpKind::Wake)) }
    }

    /// Queues an entry, submitting the queue first if it is full.
    ///
    /// # Safety
    /// What the entry points to stays until its last completion has been taken.
    unsafe fn push(&mut self, entry: squeue::Entry, op: OpKey) -> Result<(), Full> {
        let entry = entry.user_data(op.to_user_data());
        if self.ring.submission().is_full() {
            // An error is not lost: the same call meets it again at the end of the turn.
            let _ = self.enter(EnterWait::No);
        }
        // SAFETY: promised by the caller.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| Full)?;
        self.ops += 1;
        Ok(())
    }

    /// Operations queued or in the kernel.
    pub(super) fn ops(&self) -> usize {
        self.ops
    }

    /// Whether [`Ring::take`] would find something without a system call.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Submits what is queued and waits for one completion, in one system call; in none, if nothing is queued, there is
    /// no wait and the kernel holds nothing back. Comes back early, and nothing is lost, on signals and shortages.
    pub(super) fn enter(&mut self, wait: EnterWait) -> io::Result<()> {
        let sq = self.ring.submission();
        // Under DEFER_TASKRUN, and after an overflow of the completion queue, completions appear only when asked for.
        let (queued, mut held_back) = (sq.len() as u32, sq.taskrun() || sq.cq_overflow());
        drop(sq);
        // With a turn's worth at hand more would only take receive buffers away; bytes in the sockets meanwhile coalesce.
        held_back &= self.ring.completion().len() < TURN_COMPLETIONS_MAX;
        let timespec;
        let mut args = SubmitArgs::new();
        let mut flags = EnterFlags::EXT_ARG;
        let mut want = 1;
        match wait {
            EnterWait::No if queued == 0 && !held_back => return Ok(()),
            EnterWait::No => want = 0,
            EnterWait::Forever => {}
            EnterWait::ForNs(ns) => {
                timespec = Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
                args = args.timespec(&timespec);
            }
        }
        if want > 0 || held_back {
            flags |= EnterFlags::GETEVENTS;
        }
        if want > 0 && self.ring.params().is_feature_no_iowait() {
            // A parked reactor is idle, not waiting for a disk.
            flags |= EnterFlags::NO_IOWAIT;
        }
        self.syscalls += 1;
        // SAFETY: EXT_ARG takes `io_uring_getevents_arg`, which `SubmitArgs` is; it and the timespec outlive the call.
        let entered = unsafe { self.ring.submitter().enter(queued, want, flags.bits(), Some(&args)) };
        match entered {
            // Fewer than queued: the kernel ran out of memory for requests; the rest stays queued for the next turn.
            Ok(_submitted) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                // The time is over; or a signal arrived; either way the turn ends.
                Some(Errno::TIME | Errno::INTR) => Ok(()),
                // No memory for a request, or completions overflowed and must be taken first. Nothing was submitted:
                // take what there is and submit in the next turn.
                Some(Errno::AGAIN | Errno::BUSY) => Ok(()),
                Some(Errno::EXIST) => Err(io::Error::other("the ring is used by another thread than it was made on")),
                Some(Errno::BADR) => Err(io::Error::other("the kernel lost completions for want of memory")),
                _ => Err(error),
            },
        }
    }

    /// Copies up to `max` completions out of the queue; they are acted on later, when the kernel has the room back.
    pub(super) fn take(&mut self, max: usize, into: &mut Vec<Completion>) {
        for entry in self.ring.completion().take(max) {
            let more = cqueue::more(entry.flags());
            if !more {
                self.ops -= 1;
            }
            let Some(op) = OpKey::from_user_data(entry.user_data()) else {
                panic!("completion of an operation that was never submitted: {:#x}", entry.user_data());
            };
            let buffer = cqueue::buffer_select(entry.flags());
            into.push(Completion { op, result: entry.result(), buffer, more });
        }
    }
}
