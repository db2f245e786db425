//! The ring of provided buffers: receive buffers that the kernel picks from as bytes arrive, so that an idle
//! connection holds no memory.
//!
//! Every buffer is either the kernel's (in the ring, or in a completion that nobody has read yet) or lent out (named by
//! a [`RecvBuf`] that the reactor holds). Only a lent buffer is read, and only the kernel's are written.

#![allow(unsafe_code)]

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags};

use super::ring::Ring;
use crate::io::RecvBuf;

/// The only group of buffers in a ring.
pub(super) const GROUP: u16 = 0;

/// Memory shared with the kernel, aligned to pages.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, prot, flags) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Mapping { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, whole, and no reference into it outlives its owner.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// All receive buffers of a reactor.
pub(super) struct Buffers {
    entries: Mapping,
    memory: Mapping,
    count: u16,
    bytes: u32,
    /// Buffers handed to the kernel since the start, modulo 2^16: the ring's tail.
    tail: u16,
    lent: Vec<bool>,
    lent_count: u16,
}

impl Buffers {
    /// Makes the buffers, gives all of them to the kernel. `count` is a power of two.
    pub(super) fn new(ring: &Ring, count: u16, bytes: u32) -> io::Result<Self> {
        debug_assert!(count.is_power_of_two());
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * bytes as usize)?;
        // SAFETY: the mapping is aligned to pages, has room for `count` entries and is unmapped after the ring is
        // closed, or never: see the drop of the back end.
        unsafe { ring.register_buffers(entries.start.as_ptr() as u64, count, GROUP) }?;
        let lent = vec![false; usize::from(count)];
        let mut buffers = Buffers { entries, memory, count, bytes, tail: 0, lent, lent_count: 0 };
        for id in 0..count {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// Takes note that the kernel filled a buffer which goes to the reactor.
    pub(super) fn lend(&mut self, id: u16, len: u32) -> RecvBuf {
        let lent = &mut self.lent[usize::from(id)];
        assert!(!*lent, "the kernel filled receive buffer {id}, which it does not own");
        assert!(len <= self.bytes, "the kernel wrote {len} bytes to a receive buffer of {}", self.bytes);
        *lent = true;
        self.lent_count += 1;
        RecvBuf::new(id, len)
    }

    /// The bytes of a lent buffer.
    pub(super) fn bytes(&self, buf: &RecvBuf) -> &[u8] {
        if !self.is_lent(buf.id()) {
            return &[];
        }
        let len = buf.len().min(self.bytes) as usize;
        let start = self.buffer(buf.id()).as_ptr();
        // SAFETY: the buffer lies in the mapping with room for `self.bytes`, anonymous memory is initialised, and the
        // kernel does not write to a lent buffer; giving it back takes `&mut self`, which ends this borrow.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// Takes a lent buffer back.
    pub(super) fn take_back(&mut self, buf: &RecvBuf) {
        if self.is_lent(buf.id()) {
            self.lent[usize::from(buf.id())] = false;
            self.lent_count -= 1;
            self.give(buf.id());
        }
    }

    /// Gives a buffer back that the kernel filled or chose and that was not lent.
    pub(super) fn put_back(&mut self, id: u16) {
        assert!(id < self.count && !self.is_lent(id), "the kernel chose receive buffer {id}, which it does not own");
        self.give(id);
    }

    /// Buffers that are not lent out: an upper bound of what the kernel can fill.
    pub(super) fn free_count(&self) -> u16 {
        self.count - self.lent_count
    }

    fn is_lent(&self, id: u16) -> bool {
        self.lent.get(usize::from(id)).is_some_and(|lent| *lent)
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        debug_assert!(id < self.count);
        // SAFETY: `id` is below `count` in every caller, so the result lies in the mapping.
        unsafe { self.memory.start.add(usize::from(id) * self.bytes as usize) }
    }

    /// Appends a buffer to the kernel's ring.
    fn give(&mut self, id: u16) {
        let buffer = self.buffer(id);
        let first = self.entries.start.cast::<BufRingEntry>();
        // SAFETY: the mask keeps the index below `count`, the number of entries in the mapping.
        let mut entry = unsafe { first.add(usize::from(self.tail & (self.count - 1))) };
        // SAFETY: the kernel reads only entries before the tail, so nobody else looks at this one now; it is zeroed
        // memory, which is a valid entry.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(buffer.as_ptr() as u64);
        entry.set_len(self.bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry of a registered ring of buffers holds the tail.
        let tail = unsafe { BufRingEntry::tail(first.as_ptr()) };
        // SAFETY: the address is aligned and valid as long as the mapping, and only this thread writes to it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the kernel reads the tail with acquire, and then the entries before it.
        tail.store(self.tail, Ordering::Release);
    }
}
