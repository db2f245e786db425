//! The limit: the cheapest loop over io_uring that moves the same bytes between the same sockets, the way that has
//! proved the cheapest for ringback as well. One ring, multishot receives into one ring of buffers, one send in flight per
//! connection, one system call per turn. It looks at no byte that it receives, and all calls are written beforehand.
#![allow(unsafe_code)]

use super::super::job::Load;
use super::super::wire::{CALL_BYTES, REPLY_BYTES, Template};
use super::{Gauge, add};
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Enough for all connections to receive at once, and little enough for the cache.
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: u32 = 4 << 10;
const GROUP: u16 = 0;
/// Completions in one turn: more would fall out of the cache.
const TURN: usize = 32;
/// In `user_data`: this is a send, not a receive.
const SEND: u64 = 1 << 32;

struct Connection {
    socket: TcpStream,
    /// The calls of all session slots, one after the other.
    calls: Vec<u8>,
    /// Received bytes that are no whole reply yet.
    partial: u32,
    /// Calls to be sent.
    owed: u32,
    /// Calls of the send in flight.
    sending: u32,
}

/// Receive buffers, and the ring through which the kernel is given them. Mapped for ever: the kernel may write to them
/// until the process ends.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

struct Echo {
    ring: IoUring,
    buffers: Buffers,
    connections: Vec<Connection>,
}

/// Sends until it is told to stop, and all has been answered.
pub fn run(load: Load, sockets: Vec<TcpStream>, gauge: Arc<Gauge>) -> Result<(), String> {
    Echo::new(&load, sockets).and_then(|mut echo| echo.serve(&gauge)).map_err(|e| format!("io_uring echo: {e}"))
}

fn map(bytes: usize) -> io::Result<*mut u8> {
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let start =
        unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
    Ok(start?.cast())
}

impl Buffers {
    fn new(ring: &IoUring) -> io::Result<Buffers> {
        let entries = map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let memory = map(usize::from(BUFFERS) * BUFFER_BYTES as usize)?;
        // SAFETY: the mapping is aligned to pages, has room for the entries, and is never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0) }?;
        let mut buffers = Buffers { entries: entries.cast(), memory, tail: 0 };
        (0..BUFFERS).for_each(|id| buffers.give(id));
        Ok(buffers)
    }

    /// Gives a buffer to the kernel.
    fn give(&mut self, id: u16) {
        assert!(id < BUFFERS, "the kernel names receive buffer {id}, which there is not");
        // SAFETY: `id` is below BUFFERS, so this lies in the mapping.
        let buffer = unsafe { self.memory.add(usize::from(id) * BUFFER_BYTES as usize) };
        // SAFETY: the index is below BUFFERS, the number of entries in the mapping.
        let entry = unsafe { self.entries.add(usize::from(self.tail % BUFFERS)) };
        // SAFETY: the kernel reads only entries before the tail, so nobody else looks at this one, which is zeroed
        // memory or an earlier entry.
        let entry = unsafe { &mut *entry };
        entry.set_addr(buffer as u64);
        entry.set_len(BUFFER_BYTES);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry of a registered ring of buffers holds the tail.
        let tail = unsafe { BufRingEntry::tail(self.entries) };
        // SAFETY: the address is aligned and stays valid, and only this thread writes to it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the kernel reads the tail with acquire, and then the entries before it.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Echo {
    fn new(load: &Load, sockets: Vec<TcpStream>) -> io::Result<Echo> {
        let entries = (2 * load.connections).next_power_of_two().max(64);
        let ring = IoUring::builder()
            .setup_cqsize(4 * entries)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries)?;
        let buffers = Buffers::new(&ring)?;
        let connections = sockets.into_iter().enumerate().map(|(index, socket)| {
            let template = Template::new(index as u32);
            let call = |slot| template.call(slot, slot, 1, load.slots - 1, slot.into());
            Connection {
                socket,
                calls: (0..load.slots).flat_map(call).collect(),
                partial: 0,
                owed: load.slots,
                sending: 0,
            }
        });
        Ok(Echo { ring, buffers, connections: connections.collect() })
    }

    fn serve(&mut self, gauge: &Gauge) -> io::Result<()> {
        let mut left = 0;
        for index in 0..self.connections.len() {
            self.receive(index)?;
            left += u64::from(self.connections[index].owed);
            self.send(index, gauge)?;
        }
        let mut turn: Vec<cqueue::Entry> = Vec::with_capacity(TURN);
        while left > 0 {
            match self.ring.submit_and_wait(1) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                entered => entered?,
            };
            turn.clear();
            turn.extend(self.ring.completion().take(TURN));
            let (mut replies, stopped) = (0, gauge.stopped());
            for entry in &turn {
                replies += self.complete(entry, stopped, gauge)?;
            }
            add(&gauge.completed, replies);
            if stopped {
                left -= replies;
            }
        }
        Ok(())
    }

    /// Gives the number of replies received.
    fn complete(&mut self, entry: &cqueue::Entry, stopped: bool, gauge: &Gauge) -> io::Result<u64> {
        let index = (entry.user_data() as u32) as usize;
        if entry.result() == -Errno::NOBUFS.raw_os_error() {
            // More connections received at once than there are buffers. Those of this turn are free again by now.
            return self.receive(index).map(|()| 0);
        }
        let len = u32::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()))?;
        let connection = &mut self.connections[index];
        if entry.user_data() & SEND != 0 {
            if len != connection.sending * CALL_BYTES as u32 {
                return Err(io::Error::other("a send was short"));
            }
            connection.sending = 0;
            self.send(index, gauge)?;
            return Ok(0);
        }
        let Some(buffer) = cqueue::buffer_select(entry.flags()).filter(|_| len > 0) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        self.buffers.give(buffer);
        let bytes = connection.partial + len;
        connection.partial = bytes % REPLY_BYTES as u32;
        let replies = bytes / REPLY_BYTES as u32;
        if !stopped {
            connection.owed += replies;
        }
        if !cqueue::more(entry.flags()) {
            self.receive(index)?;
        }
        self.send(index, gauge)?;
        Ok(replies.into())
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        let fd = Fd(self.connections[index].socket.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, GROUP).build().user_data(index as u64);
        // SAFETY: the kernel writes to the ring of buffers only, which is never unmapped.
        unsafe { self.push(&entry) }
    }

    fn send(&mut self, index: usize, gauge: &Gauge) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if connection.owed == 0 || connection.sending > 0 {
            return Ok(());
        }
        // No more than there are session slots: each is owed once until its reply.
        connection.sending = std::mem::take(&mut connection.owed);
        let len = connection.sending * CALL_BYTES as u32;
        let flags = rustix::net::SendFlags::NOSIGNAL.bits() | rustix::net::RecvFlags::WAITALL.bits();
        let bytes = connection.calls[..len as usize].as_ptr();
        let entry = opcode::Send::new(Fd(connection.socket.as_raw_fd()), bytes, len).flags(flags as i32).build();
        add(&gauge.sends, 1);
        // SAFETY: the calls are never written to, and the connections are not moved or dropped before all sends have
        // completed: after an error the process ends.
        unsafe { self.push(&entry.user_data(index as u64 | SEND)) }
    }

    /// # Safety
    /// What the entry points to stays until its last completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: promised by the caller.
        unsafe { self.ring.submission().push(entry) }.map_err(|_| io::Error::other("the submission queue is full"))
    }
}
