//! The slab of callback entries: stable addresses, generations in the state words, and free lists that a reactor can
//! give entries back to without waiting.
//!
//! Entries live in segments that are mapped when an insert needs one and stay until the slab is dropped. Segment `n`
//! belongs to shard `n % shards`; a shard is what one reactor's clients insert into, so that neither inserts nor frees
//! of different reactors meet. A shard whose segments are used up takes entries from the next one: the limit holds for
//! the slab as a whole, exactly.
//!
//! A free entry is in one of three places: never used, beyond the shard's fresh range; in the shard's array stack,
//! under its lock; or in the shard's remote stack, linked through the entries. [`CallbackSlab::free`] pushes onto the
//! array stack if the lock is free, and else onto the remote stack, which the next inserter that finds the array empty
//! takes over whole. The array is why reuse stays cheap after churn: the next entry is known without reading the last
//! one, so that it can be prefetched.
#![allow(unsafe_code)]

#[cfg(all(feature = "checkpoint", not(loom)))]
mod restore;

#[cfg(all(feature = "checkpoint", not(loom)))]
pub(crate) use restore::Restored;

use super::state::{Claim, Freed, Loss, StateWord};
use super::{CallbackKey, InsertError};
use crate::sync::{self, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering};
use crossbeam::utils::CachePadded;
use std::ops::{Index, Range};
use std::ptr;

/// Entries per segment, as a power of two: 2 MiB, one huge page where the kernel gives one. Tiny under loom, which
/// tracks every atomic.
const SEGMENT_SHIFT: u32 = if cfg!(loom) { 1 } else { 16 };
pub(crate) const SEGMENT_ENTRIES: u32 = 1 << SEGMENT_SHIFT;
/// How far ahead of the next insert an entry of the array stack is prefetched.
const PREFETCH_AHEAD: usize = 8;
/// The unit in which the kernel gives memory.
const PAGE_BYTES: u64 = 4096;
/// In the operation of an entry: the callback is the runtime's own, and no hook of the embedder's is called for it.
pub(crate) const OWN: u8 = 0x80;
/// [`CallbackEntry::link`] of the last entry of a list; others hold the index + 1, so that zeroed memory is unlinked.
const LINK_END: u32 = 0;

/// One callback. Who may touch which field when is told in [the module above](super).
#[repr(C)]
pub(crate) struct CallbackEntry {
    word: StateWord,
    cookie: AtomicU64,
    link: AtomicU32,
    client: AtomicU32,
    started_us: AtomicU32,
    return_stamp: AtomicU16,
    op: AtomicU8,
    attempts: AtomicU8,
}

/// What an idle delegation costs; two entries share a cache line, none straddles two.
#[cfg(not(loom))]
const _: () = assert!(size_of::<CallbackEntry>() == 32);

impl CallbackEntry {
    /// The state word.
    pub(crate) fn word(&self) -> &StateWord {
        &self.word
    }

    /// [`StateWord::try_run`] with the policy of this entry's operation. The operation is read before the swap: if the
    /// swap confirms the generation, nobody can have changed it, and if not, it does not matter.
    pub(crate) fn try_run(&self, generation: u32) -> Claim {
        self.word.try_run(generation, Loss::of(self.op()))
    }

    /// [`StateWord::join`], likewise.
    pub(crate) fn join(&self, generation: u32, member: u32, link: impl Fn(Option<u32>)) -> Claim {
        self.word.join(generation, Loss::of(self.op()), member, link)
    }

    /// The embedder's value.
    pub(crate) fn cookie(&self) -> u64 {
        self.cookie.load(Ordering::Relaxed)
    }

    /// The client to call.
    pub(crate) fn client(&self) -> u32 {
        self.client.load(Ordering::Relaxed)
    }

    /// The operation (`nfs_cb_opnum4`).
    pub(crate) fn op(&self) -> u8 {
        self.op.load(Ordering::Relaxed) & !OWN
    }

    /// The operation, with the mark of the runtime's own.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn op_and_mark(&self) -> u8 {
        self.op.load(Ordering::Relaxed)
    }

    /// Whether it is a callback of the runtime's own.
    pub(crate) fn is_own(&self) -> bool {
        self.op.load(Ordering::Relaxed) & OWN != 0
    }

    /// The next entry of the queue that this one is in.
    pub(crate) fn link(&self) -> Option<u32> {
        self.link.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Links this entry to the next one of its queue.
    pub(crate) fn set_link(&self, next: Option<u32>) {
        self.link.store(link_bits(next), Ordering::Relaxed);
    }

    /// The low half of the microsecond clock at the accepted `try_run`.
    pub(crate) fn started_us(&self) -> u32 {
        self.started_us.load(Ordering::Relaxed)
    }

    /// Notes the start of a run.
    pub(crate) fn set_started_us(&self, started_us: u32) {
        self.started_us.store(started_us, Ordering::Relaxed);
    }

    /// What the core notes about this run ([`Host::note`](ringback_rpc::backchannel::Host::note)), and on a completion queue
    /// the code of its ending.
    pub(crate) fn attempts(&self) -> u8 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Sets [`attempts`](CallbackEntry::attempts).
    pub(crate) fn set_attempts(&self, attempts: u8) {
        self.attempts.store(attempts, Ordering::Relaxed);
    }

    /// The low half of the time at which what was recalled last is overdue.
    pub(crate) fn return_stamp(&self) -> u16 {
        self.return_stamp.load(Ordering::Relaxed)
    }

    /// Sets [`return_stamp`](CallbackEntry::return_stamp).
    pub(crate) fn set_return_stamp(&self, stamp: u16) {
        self.return_stamp.store(stamp, Ordering::Relaxed);
    }

    /// Writes what stays for this life of the entry, and a clean run.
    fn fill(&self, client: u32, op: u8, cookie: u64) {
        self.cookie.store(cookie, Ordering::Relaxed);
        self.client.store(client, Ordering::Relaxed);
        self.op.store(op, Ordering::Relaxed);
        self.set_started_us(0);
        self.set_attempts(0);
    }
}

fn link_bits(next: Option<u32>) -> u32 {
    next.map_or(LINK_END, |index| index + 1)
}

/// A lock-free stack of entries, linked through them. Any thread pushes; whoever takes, takes all, so that no entry can
/// leave and come back (ABA) between a look at the top and its swap.
pub(crate) struct EntryStack(CachePadded<AtomicU32>);

impl EntryStack {
    pub(crate) fn new() -> Self {
        EntryStack(CachePadded::new(AtomicU32::new(LINK_END)))
    }

    /// Pushes an entry whose link the caller owns.
    pub(crate) fn push(&self, slab: &CallbackSlab, index: u32) {
        let entry = &slab[index];
        let mut top = self.0.load(Ordering::Relaxed);
        loop {
            entry.link.store(top, Ordering::Relaxed);
            // Release publishes the link and whatever else the pusher did to the entry; its partner is in `take_all`.
            match self.0.compare_exchange_weak(top, index + 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// The same where nobody else pushes, and takes only before or after.
    pub(crate) fn push_alone(&self, slab: &CallbackSlab, index: u32) {
        slab[index].link.store(self.0.load(Ordering::Relaxed), Ordering::Relaxed);
        self.0.store(index + 1, Ordering::Release);
    }

    /// Takes all entries; the last pushed comes first, the others follow by [`CallbackEntry::link`].
    pub(crate) fn take_all(&self) -> Option<u32> {
        // Each push is a read-modify-write and continues the release sequences of those below it: Acquire, on reading the
        // top, sees them all.
        self.0.swap(LINK_END, Ordering::Acquire).checked_sub(1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == LINK_END
    }
}

/// Asked before each allocation of a growing slab, with the number of that attempt, from 0: `false` makes it fail, as
/// if there were no memory. How tests walk through every failure.
pub(crate) type GrowthGate = Box<dyn Fn(u64) -> bool + Send + Sync>;

/// The entries of all callbacks.
pub(crate) struct CallbackSlab {
    /// Sized for `entries_max`; null until the segment is mapped.
    segments: Box<[AtomicPtr<CallbackEntry>]>,
    shards: Box<[CachePadded<Shard>]>,
    entries_max: u32,
    retired: AtomicU32,
    growth_gate: Option<GrowthGate>,
    growth_attempts: AtomicU64,
}

struct Shard {
    pool: Mutex<Pool>,
    remote: EntryStack,
}

/// What a shard's lock guards.
struct Pool {
    /// Indices of free entries. Its capacity covers every entry of the shard's segments, reserved with each of them, so
    /// that a push never allocates (R7).
    stack: Vec<u32>,
    /// The most that `stack` ever held: so many of its pages are resident.
    stack_high: usize,
    /// Entries of the shard's segments, used or not.
    entries: usize,
    /// Entries never used yet, all in the newest segment.
    fresh: Range<u32>,
    /// The segment that comes next.
    next_segment: usize,
}

/// Resident memory of a slab, by what was ever touched, in whole pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlabMemory {
    /// The entries.
    pub(crate) entries_bytes: u64,
    /// The array stacks of free entries.
    pub(crate) free_stack_bytes: u64,
    /// The table of segments and the shards.
    pub(crate) table_bytes: u64,
}

enum Grown {
    Yes,
    Exhausted,
    OutOfMemory,
}

impl CallbackSlab {
    /// An empty slab for at most `entries_max` callbacks, with one shard for each reactor.
    pub(crate) fn new(entries_max: u32, shards: usize) -> Self {
        // One less than there are numbers: a link holds the index + 1.
        let entries_max = entries_max.min(u32::MAX - 1);
        let segments = entries_max.div_ceil(SEGMENT_ENTRIES);
        CallbackSlab {
            segments: (0..segments).map(|_| AtomicPtr::new(ptr::null_mut())).collect(),
            shards: (0..shards.max(1)).map(|number| CachePadded::new(Shard::new(number))).collect(),
            entries_max,
            retired: AtomicU32::new(0),
            growth_gate: None,
            growth_attempts: AtomicU64::new(0),
        }
    }

    /// Lets `gate` decide which allocations succeed.
    #[cfg(any(test, feature = "simulator"))]
    pub(crate) fn with_growth_gate(mut self, gate: GrowthGate) -> Self {
        self.growth_gate = Some(gate);
        self
    }

    /// The configured limit.
    #[cfg(test)]
    pub(crate) fn entries_max(&self) -> u32 {
        self.entries_max
    }

    /// Entries whose generations are used up.
    #[cfg(test)]
    pub(crate) fn retired(&self) -> u32 {
        self.retired.load(Ordering::Relaxed)
    }

    /// The entry, whatever its state: its word tells a stale key. `None`: no key of this slab can have this index yet.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&CallbackEntry> {
        // Acquire: its partner is the store in `grow`, after which the segment is zeroed memory that stays.
        let segment = self.segments.get((index >> SEGMENT_SHIFT) as usize)?.load(Ordering::Acquire);
        if segment.is_null() {
            return None;
        }
        let offset = (index & (SEGMENT_ENTRIES - 1)) as usize;
        // SAFETY: a segment has SEGMENT_ENTRIES entries, and the offset is below that.
        let entry = unsafe { segment.add(offset) };
        // SAFETY: the entry was zeroed when it was mapped, which is valid for it; it is only shared, never borrowed
        // mutably, and unmapped no earlier than by `drop`, which no borrow of `self` outlives.
        Some(unsafe { &*entry })
    }

    /// Brings the entry into the cache of this core, for a use that is some hundred nanoseconds away.
    #[inline]
    pub(crate) fn prefetch(&self, index: u32) {
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        if let Some(entry) = self.get(index) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: SSE is part of x86-64, and the address is that of a borrowed entry.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr::from_ref(entry).cast()) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(loom))))]
        let _ = index;
    }

    /// Makes a callback. Not for a reactor: this takes a lock, and may allocate.
    pub(crate) fn insert(&self, shard: usize, client: u32, op: u8, cookie: u64) -> Result<CallbackKey, InsertError> {
        let index = self.take(shard)?;
        let entry = &self[index];
        entry.fill(client, op, cookie);
        Ok(CallbackKey { index, generation: entry.word.activate() })
    }

    /// Ends the life of a callback whose last holder the caller is, and gives the entry back. Never waits and never
    /// allocates: this is called on reactors.
    pub(crate) fn free(&self, index: u32) {
        if self[index].word.free() == Freed::Retired {
            self.retired.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let shard = &self.shards[(index >> SEGMENT_SHIFT) as usize % self.shards.len()];
        match sync::try_lock(&shard.pool) {
            Some(mut pool) => pool.push(index),
            None => shard.remote.push(self, index),
        }
    }

    /// What the slab has touched. Takes the locks of the shards one by one: not for a reactor.
    pub(crate) fn memory(&self) -> SlabMemory {
        let pages = |bytes: u64| bytes.next_multiple_of(PAGE_BYTES);
        let tables = size_of_val(&*self.segments) + size_of_val(&*self.shards);
        let mut memory = SlabMemory { table_bytes: pages(tables as u64), ..SlabMemory::default() };
        for shard in &self.shards {
            let pool = sync::lock(&shard.pool);
            let touched = (pool.entries - pool.fresh.len()) as u64;
            memory.entries_bytes += pages(touched * size_of::<CallbackEntry>() as u64);
            memory.free_stack_bytes += pages((pool.stack_high * size_of::<u32>()) as u64);
        }
        memory
    }

    /// Takes a free entry, from the shard or else from those after it.
    fn take(&self, shard: usize) -> Result<u32, InsertError> {
        let mut out_of_memory = false;
        for turn in 0..self.shards.len() {
            let shard = &self.shards[(shard + turn) % self.shards.len()];
            let mut pool = sync::lock(&shard.pool);
            if let Some(index) = self.take_from(shard, &mut pool) {
                return Ok(index);
            }
            if out_of_memory {
                continue; // the next shard would ask for memory that is not there; it may have a free entry
            }
            match self.grow(&mut pool) {
                Grown::Yes => return pool.fresh.next().ok_or(InsertError::OutOfMemory),
                Grown::Exhausted => {}
                Grown::OutOfMemory => out_of_memory = true,
            }
        }
        if out_of_memory {
            return Err(InsertError::OutOfMemory);
        }
        Err(InsertError::Full { limit: self.entries_max })
    }

    /// Takes a free entry of this shard, without growing it.
    fn take_from(&self, shard: &Shard, pool: &mut MutexGuard<'_, Pool>) -> Option<u32> {
        if pool.stack.is_empty() && !shard.remote.is_empty() {
            let mut next = shard.remote.take_all();
            while let Some(index) = next {
                next = self[index].link();
                pool.push(index);
            }
        }
        if let Some(index) = pool.stack.pop() {
            if let Some(ahead) = pool.stack.len().checked_sub(PREFETCH_AHEAD) {
                self.prefetch(pool.stack[ahead]);
            }
            return Some(index);
        }
        pool.fresh.next()
    }

    /// Maps the next segment of a shard that has no free entry left.
    fn grow(&self, pool: &mut Pool) -> Grown {
        // Segments that were restored.
        let is_mapped =
            |n: usize| self.segments.get(n).is_some_and(|segment| !segment.load(Ordering::Relaxed).is_null());
        while is_mapped(pool.next_segment) {
            pool.next_segment += self.shards.len();
        }
        let Some(segment) = self.segments.get(pool.next_segment) else { return Grown::Exhausted };
        let first = (pool.next_segment as u32) << SEGMENT_SHIFT;
        // The last segment may be cut short by the limit.
        let count = SEGMENT_ENTRIES.min(self.entries_max - first);
        let entries = pool.entries + count as usize;
        // Reserved already if it was the mapping that failed last time.
        let is_reserved = pool.stack.capacity() >= entries;
        if !is_reserved && (!self.may_allocate() || pool.stack.try_reserve_exact(entries - pool.stack.len()).is_err()) {
            return Grown::OutOfMemory;
        }
        if !self.may_allocate() {
            return Grown::OutOfMemory;
        }
        let Some(mapped) = map_segment() else { return Grown::OutOfMemory };
        segment.store(mapped, Ordering::Release); // partner: the load in `get`
        let full = pool.next_segment.checked_sub(self.shards.len()).map(|full| &self.segments[full]);
        if let Some(full) = full {
            make_huge(full.load(Ordering::Acquire));
        }
        pool.entries = entries;
        pool.fresh = first..first + count;
        pool.next_segment += self.shards.len();
        Grown::Yes
    }

    fn may_allocate(&self) -> bool {
        let attempt = self.growth_attempts.fetch_add(1, Ordering::Relaxed);
        self.growth_gate.as_ref().is_none_or(|gate| gate(attempt))
    }
}

impl Index<u32> for CallbackSlab {
    type Output = CallbackEntry;

    /// The entry of an index that this slab gave out.
    fn index(&self, index: u32) -> &CallbackEntry {
        match self.get(index) {
            Some(entry) => entry,
            None => panic!("callback index {index} was never given out"),
        }
    }
}

impl Drop for CallbackSlab {
    fn drop(&mut self) {
        for segment in &self.segments {
            let segment = segment.load(Ordering::Acquire);
            if !segment.is_null() {
                // SAFETY: the table holds what `map_segment` returned, each once, and nobody borrows the slab any more.
                unsafe { unmap_segment(segment) };
            }
        }
    }
}

impl std::fmt::Debug for CallbackSlab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallbackSlab").field("entries_max", &self.entries_max).finish_non_exhaustive()
    }
}

impl Shard {
    fn new(number: usize) -> Self {
        let pool = Pool { stack: Vec::new(), stack_high: 0, entries: 0, fresh: 0..0, next_segment: number };
        Shard { pool: Mutex::new(pool), remote: EntryStack::new() }
    }
}

impl Pool {
    fn push(&mut self, index: u32) {
        debug_assert!(self.stack.len() < self.stack.capacity(), "a free entry that the shard does not own");
        self.stack.push(index);
        self.stack_high = self.stack_high.max(self.stack.len());
    }
}

/// Maps a segment of zeroed entries. Not from the allocator: it may hand out recycled memory, which it then has to
/// zero, touching pages that are not needed yet, and it does not promise the alignment that keeps an entry in one
/// cache line. `None`: no memory.
#[cfg(not(loom))]
fn map_segment() -> Option<*mut CallbackEntry> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, at an address that the kernel chooses, aliases nothing.
    let mapped = unsafe { mmap_anonymous(ptr::null_mut(), SEGMENT_BYTES, access, MapFlags::PRIVATE) };
    mapped.ok().map(|address| address.cast())
}

#[cfg(not(loom))]
const SEGMENT_BYTES: usize = SEGMENT_ENTRIES as usize * size_of::<CallbackEntry>();

/// Asks for one huge page for a segment whose entries have all been touched: with millions of them, finding a page in the
/// page table otherwise costs as much as fetching the entry. A segment that is in use in part would take more memory than
/// its entries do. A kernel that cannot (before 6.1, or for want of a free huge page) leaves everything as it is.
#[cfg(not(loom))]
fn make_huge(segment: *mut CallbackEntry) {
    use std::ffi::{c_int, c_void};
    /// madvise(2); rustix does not have it.
    const MADV_COLLAPSE: c_int = 25;
    unsafe extern "C" {
        fn madvise(address: *mut c_void, bytes: usize, advice: c_int) -> c_int;
    }
    // SAFETY: the range is a mapping of ours as a whole; what its memory holds does not change.
    let _ = unsafe { madvise(segment.cast(), SEGMENT_BYTES, MADV_COLLAPSE) };
}

#[cfg(loom)]
fn make_huge(_: *mut CallbackEntry) {}

/// Gives a segment back.
///
/// # Safety
///
/// `segment` came from [`map_segment`], is given back once, and is borrowed by nobody.
#[cfg(not(loom))]
unsafe fn unmap_segment(segment: *mut CallbackEntry) {
    // SAFETY: the caller promises that this is a whole mapping that nobody uses.
    let unmapped = unsafe { rustix::mm::munmap(segment.cast(), SEGMENT_BYTES) };
    debug_assert_eq!(unmapped, Ok(()));
}

/// loom's atomics are objects, not bits: a segment is built entry by entry.
#[cfg(loom)]
fn map_segment() -> Option<*mut CallbackEntry> {
    let entry = |_| CallbackEntry {
        word: StateWord::new(),
        cookie: AtomicU64::new(0),
        link: AtomicU32::new(LINK_END),
        client: AtomicU32::new(0),
        started_us: AtomicU32::new(0),
        return_stamp: AtomicU16::new(0),
        op: AtomicU8::new(0),
        attempts: AtomicU8::new(0),
    };
    let entries: Box<[CallbackEntry]> = (0..SEGMENT_ENTRIES).map(entry).collect();
    Some(Box::into_raw(entries).cast())
}

/// As the other one.
///
/// # Safety
///
/// As the other one.
#[cfg(loom)]
unsafe fn unmap_segment(segment: *mut CallbackEntry) {
    let entries = ptr::slice_from_raw_parts_mut(segment, SEGMENT_ENTRIES as usize);
    // SAFETY: the caller promises that this came from `map_segment`, which made it from a box of this length.
    drop(unsafe { Box::from_raw(entries) });
}
