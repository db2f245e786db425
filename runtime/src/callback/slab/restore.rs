//! The slab of another process: every entry that it has used comes back where it was, with its generation, so that each key
//! names what it named and a stale one stays stale (R8).

use super::super::state::{Flags, GENERATION_RETIRED};
use super::{CallbackSlab, SEGMENT_ENTRIES, SEGMENT_SHIFT, map_segment};
use crate::sync::{self, Ordering};
use std::ops::Range;

/// What an entry was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restored {
    pub generation: u32,
    pub flags: Flags,
    pub client: u32,
    /// With the mark of the runtime's own.
    pub op: u8,
    pub cookie: u64,
    pub started_us: u32,
    pub attempts: u8,
}

impl CallbackSlab {
    /// The entries that were ever used, by segment. Takes the locks of the shards one by one: not for a reactor.
    pub(crate) fn used(&self) -> Vec<Range<u32>> {
        let mut used = Vec::new();
        for (number, segment) in self.segments.iter().enumerate() {
            if segment.load(Ordering::Acquire).is_null() {
                continue;
            }
            let first = (number as u32) << SEGMENT_SHIFT;
            let end = first + SEGMENT_ENTRIES.min(self.entries_max - first);
            let fresh = sync::lock(&self.shards[number % self.shards.len()].pool).fresh.clone();
            let end = if fresh.start >= first && fresh.end == end { fresh.start } else { end };
            used.push(first..end);
        }
        used
    }

    /// Makes room for entries that were used, by segment, in a slab of which nothing was used yet. `false`: no memory.
    pub(crate) fn make_room(&self, used: &[Range<u32>]) -> bool {
        for Range { start, end } in used.iter().cloned() {
            let number = (start >> SEGMENT_SHIFT) as usize;
            let Some(segment) = self.segments.get(number) else { return false };
            let count = SEGMENT_ENTRIES.min(self.entries_max - start);
            let mut pool = sync::lock(&self.shards[number % self.shards.len()].pool);
            let entries = pool.entries + count as usize;
            let missing = entries - pool.stack.len();
            if pool.stack.try_reserve_exact(missing).is_err() {
                return false;
            }
            let Some(mapped) = map_segment() else { return false };
            segment.store(mapped, Ordering::Release); // partner: the load in `get`
            pool.entries = entries;
            // What was never used, the highest index first, so that the lowest is taken first.
            for index in (end..start + count).rev() {
                pool.push(index);
            }
        }
        true
    }

    /// Puts an entry back.
    pub(crate) fn put(&self, index: u32, was: &Restored) {
        let entry = &self[index];
        entry.fill(was.client, was.op, was.cookie);
        entry.set_started_us(was.started_us);
        entry.set_attempts(was.attempts);
        entry.word.restore(was.generation, was.flags);
        if was.generation == GENERATION_RETIRED {
            self.retired.fetch_add(1, Ordering::Relaxed);
        } else if !was.flags.contains(Flags::LIVE) {
            let shard = &self.shards[(index >> SEGMENT_SHIFT) as usize % self.shards.len()];
            sync::lock(&shard.pool).push(index);
        }
    }
}
