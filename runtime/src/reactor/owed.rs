//! Recalls that were sent and whose return is awaited: which of them is overdue next.
//!
//! All wait for the same time, so they stand in the order in which they were sent, and only the first is ever looked at:
//! a client with 400,000 delegations costs nothing while time passes. A record that is not needed any more (its
//! delegation came back) is dropped when it comes to the front, by its time at the latest.
//!
//! A callback may have several records, if it was recalled again after a return. Only the last one counts: its entry
//! bears the same stamp.

use super::connection::Pool;
use super::home::Home;
use crate::callback::{CallbackKey, Flags, Returned, Settled};
use crate::hooks::Event;
use crate::keys::ClientId;
use crate::settings::TRANSMITS_PER_TURN;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Records that are allocated together: 48 KiB, and the only allocation. One such block is kept for the next.
const BLOCK_RECORDS: usize = 4096;

/// Records that there is room for before a turn begins to encode: four for each callback that it may send, as one that is
/// encoded once more, into a larger buffer or because a mate in its batch could not be, has another record.
const RECORDS_RESERVED: usize = 4 * TRANSMITS_PER_TURN;
const _: () = assert!(RECORDS_RESERVED <= BLOCK_RECORDS);

/// Ticks in the time that a client has. Times are told in ticks, so that a stamp of 16 bits tells any two records of a
/// callback apart that are in the list at the same time: they are at most one such time apart.
const TICKS_PER_DEADLINE: u64 = 1 << 14;

/// Records that are looked at in one turn.
const RECORDS_PER_TURN: usize = 1024;

/// One recall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    index: u32,
    generation: u32,
    /// The low half of the tick at which it is overdue.
    due: u32,
}

impl Record {
    fn key(self) -> CallbackKey {
        CallbackKey { index: self.index, generation: self.generation }
    }
}

/// The recalls of one reactor, in the order in which they are overdue.
pub(super) struct Owed {
    blocks: VecDeque<Vec<Record>>,
    /// Records of the first block that have been taken.
    taken: usize,
    spare: Option<Vec<Record>>,
    deadline_ns: u64,
    tick_ns: u64,
    /// When the first record is due.
    first_ns: Option<u64>,
    /// The tick of the last push, in full.
    last_tick: u64,
}

impl Owed {
    pub fn new(deadline: Duration) -> Self {
        let deadline_ns = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        Owed {
            blocks: VecDeque::new(),
            taken: 0,
            spare: None,
            deadline_ns,
            tick_ns: (deadline_ns / TICKS_PER_DEADLINE).max(1),
            first_ns: None,
            last_tick: 0,
        }
    }

    /// Another deadline, for what is sent from now on. At most three times the first one, so that the stamps tell records
    /// apart.
    pub fn tune(&mut self, deadline: Duration) {
        self.deadline_ns = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
    }

    /// Makes room for what a turn may send. `false`: there is no memory for it, nothing has changed, and nothing may be sent.
    pub fn reserve(&mut self, pool: &mut Pool) -> bool {
        let room = self.blocks.back().map_or(0, |block| BLOCK_RECORDS - block.len());
        if room >= RECORDS_RESERVED || self.spare.is_some() {
            return true;
        }
        let mut block = Vec::new();
        let granted =
            pool.is_granted() && self.blocks.try_reserve(1).is_ok() && block.try_reserve_exact(BLOCK_RECORDS).is_ok();
        if granted {
            self.spare = Some(block);
        }
        granted
    }

    /// A recall is sent, for which there is [room](Owed::reserve). Returns the stamp of its record.
    pub fn push(&mut self, key: CallbackKey, now_ns: u64) -> u16 {
        // Not before those that were sent earlier, though their time may be longer.
        let tick = now_ns.saturating_add(self.deadline_ns).div_ceil(self.tick_ns).max(self.last_tick);
        self.last_tick = tick;
        let block = match self.blocks.back_mut() {
            Some(block) if block.len() < BLOCK_RECORDS => block,
            _ => {
                // Without a spare one a checkpoint is being restored, or an embedder has failed to encode many batches, each at its
                // last callback.
                let block = self.spare.take().unwrap_or_else(|| Vec::with_capacity(BLOCK_RECORDS));
                self.blocks.push_back_mut(block)
            }
        };
        block.push(Record { index: key.index, generation: key.generation, due: tick as u32 });
        self.first_ns.get_or_insert(tick.saturating_mul(self.tick_ns));
        tick as u16
    }

    /// A tick, for who reads stamps ([`left_ns`]).
    #[cfg(feature = "checkpoint")]
    pub fn tick_ns(&self) -> u64 {
        self.tick_ns
    }

    /// As [`push`](Owed::push), of a recall that another process has sent, and which is overdue in `left_ns`: no earlier than
    /// those that were pushed before.
    #[cfg(feature = "checkpoint")]
    pub fn push_back(&mut self, key: CallbackKey, now_ns: u64, left_ns: u64) -> u16 {
        let passed_ns = self.deadline_ns.saturating_sub(left_ns);
        self.push(key, now_ns.saturating_sub(passed_ns))
    }

    /// When the first record is overdue, if there is one.
    pub fn next_ns(&self) -> Option<u64> {
        self.first_ns
    }

    fn first(&self) -> Option<Record> {
        self.blocks.front()?.get(self.taken).copied()
    }

    /// Takes the first record off.
    fn drop_first(&mut self) {
        self.taken += 1;
        if self.blocks.front().is_some_and(|block| block.len() == self.taken)
            && let Some(mut block) = self.blocks.pop_front()
        {
            block.clear();
            self.spare = Some(block);
            self.taken = 0;
        }
        self.first_ns = self.first().map(|record| self.full_tick(record.due).saturating_mul(self.tick_ns));
    }

    /// A tick of which the low half is known, and that is no later than the last one, nor by half of the range earlier.
    fn full_tick(&self, low: u32) -> u64 {
        self.last_tick - u64::from((self.last_tick as u32).wrapping_sub(low))
    }

    /// Takes the first record off if it is overdue.
    fn pop_due(&mut self, now_ns: u64) -> Option<Record> {
        if self.first_ns? > now_ns {
            return None;
        }
        let record = self.first()?;
        self.drop_first();
        Some(record)
    }

    pub fn memory_bytes(&self) -> usize {
        (self.blocks.len() + usize::from(self.spare.is_some())) * BLOCK_RECORDS * size_of::<Record>()
    }
}

/// Ticks from now to where a stamp may be: three deadlines ([`Owed::tune`]), and what passes while a checkpoint is written. Stamps
/// further ahead are behind: what is about to be told.
#[cfg(feature = "checkpoint")]
const TICKS_AHEAD_MAX: u64 = 3 * TICKS_PER_DEADLINE + TICKS_PER_DEADLINE / 2;

/// In how much time what bears this stamp is overdue. Whichever reactor has sent it: the ticks of all of them are the same.
#[cfg(feature = "checkpoint")]
pub(crate) fn left_ns(stamp: u16, now_ns: u64, tick_ns: u64) -> u64 {
    let now_tick = now_ns / tick_ns;
    let ahead = u64::from(stamp.wrapping_sub(now_tick as u16));
    if ahead > TICKS_AHEAD_MAX {
        return 0;
    }
    (now_tick + ahead).saturating_mul(tick_ns).saturating_sub(now_ns)
}

impl Home {
    /// Tells what is overdue, each recall once: who clears OWED has it.
    pub fn tell_overdue(&mut self) {
        for _ in 0..RECORDS_PER_TURN {
            let Some(record) = self.owed.pop_due(self.now_ns) else { return };
            let Some(entry) = self.shared.slab.get(record.index) else { continue };
            // Read before the transition that confirms the generation.
            let (cookie, client) = (entry.cookie(), entry.client());
            if entry.return_stamp() != record.due as u16 || entry.word().returned(record.generation) != Returned::Noted
            {
                continue;
            }
            // Before the embedder is told, who may well remove the callback then.
            let members = entry.word().take_members(record.generation, Flags::empty());
            let shared = Arc::clone(&self.shared);
            // To a client that was removed nobody can be overdue. It may have moved since it was recalled.
            let known = self.shared.clients.get(client).filter(|known| known.live.load(SeqCst));
            let known = known.map(|known| ClientId { index: client, generation: known.generation() });
            if let Some(client) = known {
                self.tell(&Event::ReturnOverdue { key: record.key(), cookie, client });
            }
            // After it, so that who comes again finds what the embedder has done about it.
            let how = if known.is_some() { Settled::Overdue } else { Settled::Failed };
            shared.members.settle(members, how);
        }
    }

    /// Forgets records at the front that are not needed any more, when there is nothing else to do. `true`: there may be
    /// more of them.
    pub fn forget_returned(&mut self) -> bool {
        for _ in 0..RECORDS_PER_TURN {
            let Some(record) = self.owed.first() else { return false };
            let needed = self.shared.slab.get(record.index).is_some_and(|entry| {
                entry.return_stamp() == record.due as u16 && entry.word().is_owed(record.generation)
            });
            if needed {
                return false;
            }
            self.owed.drop_first();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn key(index: u32) -> CallbackKey {
        CallbackKey { index, generation: 1 }
    }

    #[test]
    fn f15_records_are_overdue_in_order_never_early_and_one_tick_late_at_most() {
        let mut owed = Owed::new(Duration::from_secs(90));
        let start = 5_000_000 * MS;
        for n in 0..10_000u64 {
            owed.push(key(n as u32), start + n * MS);
        }
        assert_eq!(owed.memory_bytes(), 3 * 4096 * 12);
        let tick = 90_000 * MS / TICKS_PER_DEADLINE;
        for n in 0..10_000u64 {
            let due = start + n * MS + 90_000 * MS;
            assert_eq!(owed.pop_due(due - 1), None, "{n} is early");
            assert!(owed.next_ns().is_some_and(|next| next >= due && next <= due + tick), "{n}");
            assert_eq!(owed.pop_due(due + tick).map(Record::key), Some(key(n as u32)));
        }
        assert_eq!((owed.next_ns(), owed.memory_bytes()), (None, 4096 * 12), "one block is kept");
        assert_eq!(owed.pop_due(u64::MAX), None);
    }

    #[test]
    fn t5_without_memory_for_a_record_nothing_is_sent() {
        let (mut owed, mut pool) = (Owed::new(Duration::from_secs(90)), Pool::default());
        pool.gate = Some(Box::new(|| false));
        assert!(!owed.reserve(&mut pool));
        assert_eq!(owed.memory_bytes(), 0);
        pool.gate = None;
        assert!(owed.reserve(&mut pool));
        for n in 0..BLOCK_RECORDS - RECORDS_RESERVED {
            owed.push(key(n as u32), 1);
        }
        pool.gate = Some(Box::new(|| false));
        assert!(owed.reserve(&mut pool), "there is room for a turn");
        owed.push(key(0), 1);
        assert!(!owed.reserve(&mut pool), "there is none any more");
        pool.gate = None;
        assert!(owed.reserve(&mut pool));
        assert_eq!(owed.memory_bytes(), 2 * BLOCK_RECORDS * size_of::<Record>());
    }

    /// Not by what the list that is asked has seen itself, which may be nothing.
    #[cfg(feature = "checkpoint")]
    #[test]
    fn f4_a_stamp_says_what_is_left_wherever_it_was_made() {
        let deadline = Duration::from_secs(10);
        let mut owed = Owed::new(deadline);
        let (start, tick_ns) = (5_000_000 * MS, owed.tick_ns());
        for (of_deadline, time) in [(1, 10_000), (3, 30_000)] {
            owed.tune(deadline * of_deadline);
            let stamp = owed.push(key(0), start);
            for passed in (0..time).step_by(77) {
                let (left_ns, exact_ns) = (left_ns(stamp, start + passed * MS, tick_ns), (time - passed) * MS);
                assert!((exact_ns..=exact_ns + tick_ns).contains(&left_ns), "{left_ns}, and not {exact_ns}");
            }
            assert_eq!(left_ns(stamp, start + (time + 4000) * MS, tick_ns), 0, "it is overdue");
        }
    }

    #[test]
    fn any_two_records_of_a_callback_that_are_listed_together_bear_different_stamps() {
        for deadline in [Duration::from_millis(1), Duration::from_secs(90), Duration::from_secs(1 << 20)] {
            let mut owed = Owed::new(deadline);
            let start = 77 * MS;
            let first = owed.push(key(0), start);
            for part in 1..=64 {
                let later = start + owed.deadline_ns / 64 * part;
                assert_ne!(owed.push(key(0), later), first, "{deadline:?} after {part}/64");
            }
        }
    }

    #[test]
    fn a_deadline_that_changes_keeps_the_order_and_the_stamps_apart() {
        let mut owed = Owed::new(Duration::from_secs(10));
        let first = owed.push(key(0), 0);
        owed.tune(Duration::from_secs(30));
        owed.push(key(1), MS);
        owed.tune(Duration::from_secs(1));
        owed.push(key(2), 2 * MS);
        for second in 1..30 {
            assert_ne!(owed.push(key(0), second * 1000 * MS), first, "{second}");
        }
        assert_eq!(owed.pop_due(9_999 * MS), None);
        assert_eq!(owed.pop_due(10_001 * MS).map(Record::key), Some(key(0)));
        assert_eq!(owed.pop_due(29_000 * MS), None, "not before one that was sent earlier");
        let due: Vec<_> = std::iter::from_fn(|| owed.pop_due(31_000 * MS)).map(|record| record.key().index).collect();
        assert_eq!(due.len(), 2 + 29);
        assert_eq!(due[..2], [1, 2]);
    }

    #[test]
    fn the_clock_may_run_for_years() {
        let mut owed = Owed::new(Duration::from_millis(1));
        // 2^32 ticks of 61 ns pass within minutes.
        for round in 1..100u64 {
            let now = round * 50_000 * MS;
            owed.push(key(0), now);
            assert_eq!(owed.pop_due(now), None);
            assert_eq!(owed.pop_due(now + 2 * MS).map(Record::key), Some(key(0)));
        }
    }
}
