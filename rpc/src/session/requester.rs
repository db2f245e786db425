//! The requester half of a slot table.

use super::{SLOTS_MAX, SequenceId, SlotId};
use crate::backchannel::{SlotImage, SlotState};

const WORD_BITS: u32 = 64;

/// The slot table of the side that sends requests.
///
/// A slot is *free*, *busy* (a request is outstanding, or its outcome is not known) or *retired* (its sequence id
/// cannot be known again). The replier's two limits apply to new requests only; busy slots above them drain.
///
/// A request that was sent again on another connection has left a *copy* on a connection that was given up, and the replier
/// may come to it at any time. While ids only grow it is refused as misordered then. A slot that started anew could take it
/// for its own next request: so a slot of which there may be a copy is retired where others restart.
#[derive(Clone, Debug)]
pub struct RequesterSlots {
    /// The id that the next request (or the outstanding one) of a slot carries.
    ids: Box<[SequenceId]>,
    /// The states of 64 slots each.
    states: Box<[States]>,
    busy_count: u32,
    retired_count: u32,
    /// Highest slot that the replier accepts (csr_highest_slotid).
    highest: u32,
    /// Highest slot that the replier would like to see used (csr_target_highest_slotid).
    target: u32,
    /// Our own limit, while higher slots drain after NFS4ERR_BAD_HIGH_SLOT.
    ceiling: u32,
}

/// A bit for each of 64 slots.
#[derive(Clone, Copy, Debug, Default)]
struct States {
    free: u64,
    retired: u64,
    /// The replier dropped the slot while it was busy: it restarts at [`SequenceId::FIRST`] once it is free.
    dropped: u64,
    /// There may be a copy of one of its requests.
    copied: u64,
}

impl RequesterSlots {
    /// Memory held beyond the table itself, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.ids) + size_of_val(&*self.states)
    }

    /// A table of `count` slots, at least one and at most [`SLOTS_MAX`].
    pub fn new(count: u32) -> Self {
        let count = count.clamp(1, SLOTS_MAX);
        let states = (0..count.div_ceil(WORD_BITS)).map(|at| States { free: mask(count, at), ..States::default() });
        RequesterSlots {
            ids: vec![SequenceId::FIRST; count as usize].into_boxed_slice(),
            states: states.collect(),
            busy_count: 0,
            retired_count: 0,
            highest: count - 1,
            target: count - 1,
            ceiling: count - 1,
        }
    }

    /// The slots, and the highest one that the replier accepts, that it would like to see used, and our own limit.
    pub(crate) fn export(&self) -> (Vec<SlotImage>, [u32; 3]) {
        let slot = |slot: u32| SlotImage {
            sequence_id: self.id(SlotId(slot)).0,
            state: match (self.is(slot, |s| s.retired), self.is(slot, |s| s.free)) {
                (true, _) => SlotState::Retired,
                (false, true) => SlotState::Free,
                (false, false) => SlotState::Busy,
            },
            restarts: self.is(slot, |s| s.dropped),
            copied: self.is(slot, |s| s.copied),
        };
        ((0..self.count()).map(slot).collect(), [self.highest, self.target, self.ceiling])
    }

    /// A table as [`export`](RequesterSlots::export) has described it, of which [`SLOTS_MAX`] slots are taken.
    pub(crate) fn import(slots: &[SlotImage], limits: [u32; 3]) -> Self {
        let mut table = RequesterSlots::new(slots.len().min(SLOTS_MAX as usize) as u32);
        let last = table.count() - 1;
        [table.highest, table.target, table.ceiling] = limits.map(|limit| limit.min(last));
        for (slot, image) in (0..table.count()).zip(slots) {
            table.ids[slot as usize] = SequenceId(image.sequence_id);
            match image.state {
                SlotState::Free => {}
                SlotState::Busy => table.take(SlotId(slot)),
                SlotState::Retired => {
                    // Busy for a moment, as it was before it was retired.
                    table.take(SlotId(slot));
                    let _ = table.retire(SlotId(slot));
                }
            }
            if image.copied {
                table.copy(SlotId(slot));
            }
            if image.restarts && image.state != SlotState::Free {
                let (at, bit) = split(slot);
                table.states[at].dropped |= bit;
            }
        }
        table
    }

    /// Slots in the table, whatever their state.
    pub fn count(&self) -> u32 {
        self.ids.len() as u32
    }

    /// Slots that are busy.
    pub fn busy_count(&self) -> u32 {
        self.busy_count
    }

    /// Slots that are retired.
    pub fn retired_count(&self) -> u32 {
        self.retired_count
    }

    /// The lowest free slot that a new request may use. RFC 8881 section 2.10.6.1: the requester should use the lowest
    /// available slot, so that the replier can see how much of its table is needed.
    #[inline]
    pub fn lowest_free(&self) -> Option<SlotId> {
        let preferred = self.highest.min(self.target).min(self.ceiling);
        for (i, states) in self.states.iter().enumerate() {
            if states.free != 0 {
                let slot = i as u32 * WORD_BITS + states.free.trailing_zeros();
                // What is a preference does not hold where it leaves nothing.
                let takes = slot <= preferred || (slot <= self.highest && self.are_retired(preferred));
                return takes.then_some(SlotId(slot));
            }
        }
        None
    }

    /// Whether all slots up to `last` are retired.
    fn are_retired(&self, last: u32) -> bool {
        (0..=last).all(|slot| self.is(slot, |states| states.retired))
    }

    /// Whether a slot can be used, now or when what is outstanding on it is settled. The replier's own limit may leave none
    /// that is not retired; and if nothing is outstanding, no reply will raise it.
    pub fn has_usable(&self) -> bool {
        self.retired_count == 0 || self.busy_count > 0 || !self.are_retired(self.highest)
    }

    /// Takes slots for requests that are sent one after the other, while nothing else happens to the table.
    #[inline]
    pub(crate) fn taking(&mut self) -> Taking<'_> {
        let (preferred, highest) = (self.highest.min(self.target).min(self.ceiling), self.highest_busy(SlotId(0)).0);
        Taking { free: self.states[0].free, at: 0, preferred, highest, slots: self }
    }

    /// Makes a free slot busy.
    #[inline]
    pub fn take(&mut self, slot: SlotId) {
        let (at, bit) = split(slot.0);
        if let Some(states) = self.states.get_mut(at)
            && states.free & bit != 0
        {
            states.free &= !bit;
            self.busy_count += 1;
        }
    }

    /// The id that the outstanding request of a busy slot carries, and the next request of a free one.
    #[inline]
    pub fn id(&self, slot: SlotId) -> SequenceId {
        self.ids.get(slot.0 as usize).copied().unwrap_or(SequenceId::FIRST)
    }

    /// The highest busy slot, at least `floor`: what csa_highest_slotid says, the highest slot for which a request is
    /// outstanding (RFC 8881 sections 2.10.6.1 and 20.9.3).
    #[inline]
    pub fn highest_busy(&self, floor: SlotId) -> SlotId {
        for (i, states) in self.states.iter().enumerate().rev() {
            let busy = !(states.free | states.retired) & mask(self.count(), i as u32);
            if busy != 0 {
                let slot = i as u32 * WORD_BITS + (WORD_BITS - 1 - busy.leading_zeros());
                return SlotId(slot.max(floor.0));
            }
        }
        floor
    }

    /// Whether a slot has its bit in what `state` picks.
    fn is(&self, slot: u32, state: impl FnOnce(&States) -> u64) -> bool {
        let (at, bit) = split(slot);
        self.states.get(at).is_some_and(|states| state(states) & bit != 0)
    }

    /// The replier took the request of a busy slot (CB_SEQUENCE answered with NFS4_OK or with proof of an earlier
    /// execution): the id moves on and the slot is free.
    #[inline]
    pub fn advance(&mut self, slot: SlotId) {
        if let Some(id) = self.ids.get_mut(slot.0 as usize) {
            *id = id.next();
        }
        self.release(slot);
    }

    /// As [`advance`](RequesterSlots::advance), if the request carried this id. `false`: it did not, and nothing was done.
    #[inline(always)]
    pub(crate) fn advance_from(&mut self, slot: SlotId, id: SequenceId) -> bool {
        let Some(now) = self.ids.get_mut(slot.0 as usize).filter(|now| **now == id) else { return false };
        *now = id.next();
        self.release(slot);
        true
    }

    /// The request of a busy slot is known not to have been taken: the slot is free and its id stays.
    #[inline(always)]
    pub fn release(&mut self, slot: SlotId) {
        let (at, bit) = split(slot.0);
        let Some(states) = self.states.get_mut(at) else { return };
        if (states.free | states.retired) & bit != 0 || slot.0 >= self.ids.len() as u32 {
            return;
        }
        states.free |= bit;
        self.busy_count -= 1;
        if states.dropped & bit != 0 {
            states.dropped &= !bit;
            self.restart(slot.0);
        }
    }

    /// A free slot that the replier has dropped starts anew, if it may.
    #[cold]
    fn restart(&mut self, slot: u32) {
        if self.is(slot, |states| states.copied) {
            let _ = self.retire(SlotId(slot));
        } else if let Some(id) = self.ids.get_mut(slot as usize) {
            *id = SequenceId::FIRST;
        }
    }

    /// The request of a busy slot is sent again while the replier may still come to what was sent before.
    pub fn copy(&mut self, slot: SlotId) {
        let (at, bit) = split(slot.0);
        if let Some(states) = self.states.get_mut(at) {
            states.copied |= bit;
        }
    }

    /// The id of a busy slot cannot be known again: it is not used any more. Returns whether a usable slot is left.
    #[must_use = "a table without slots is a fault of the channel"]
    pub fn retire(&mut self, slot: SlotId) -> bool {
        let (at, bit) = split(slot.0);
        if slot.0 < self.count()
            && let Some(states) = self.states.get_mut(at)
            && states.retired & bit == 0
        {
            self.busy_count -= u32::from(states.free & bit == 0);
            states.free &= !bit;
            states.retired |= bit;
            self.retired_count += 1;
        }
        self.has_usable()
    }

    /// The limits in a reply. A target is a preference (RFC 8881 section 20.9.3, csr_target_highest_slotid): ids go on
    /// where they were. A slot above the highest is gone from the replier's table, and starts at one if it comes back.
    #[inline]
    pub fn limits(&mut self, highest: SlotId, target: SlotId) {
        let last = self.count() - 1;
        let highest = highest.0.min(last);
        self.target = target.0.min(last);
        self.ceiling = last;
        if highest != self.highest {
            self.set_highest(highest);
        }
    }

    fn set_highest(&mut self, highest: u32) {
        for slot in highest + 1..=self.highest {
            let (at, bit) = split(slot);
            let Some(states) = self.states.get_mut(at) else { break };
            if states.free & bit != 0 {
                self.restart(slot);
            } else if states.retired & bit == 0 {
                states.dropped |= bit;
            }
        }
        self.highest = highest;
    }

    /// Uses no slot above `slot` for new requests until the next reply that says what the limits are.
    pub fn cap(&mut self, slot: SlotId) {
        self.ceiling = self.ceiling.min(slot.0);
    }

    #[cfg(test)]
    pub(crate) fn set_id(&mut self, slot: SlotId, id: SequenceId) {
        self.ids[slot.0 as usize] = id;
    }
}

/// What [`RequesterSlots::lowest_free`], [`highest_busy`](RequesterSlots::highest_busy) and
/// [`take`](RequesterSlots::take) come to for one request after the other, with one look at the limits.
pub(crate) struct Taking<'a> {
    slots: &'a mut RequesterSlots,
    /// The free ones among the 64 from `at * 64` on; there is none below them.
    free: u64,
    at: usize,
    preferred: u32,
    highest: u32,
}

impl Taking<'_> {
    /// The slot that the next request may use, and the id that it carries.
    #[inline(always)]
    pub fn next(&mut self) -> Option<(SlotId, SequenceId)> {
        if self.free == 0 {
            self.go_on()?;
        }
        let slot = SlotId(self.at as u32 * WORD_BITS + self.free.trailing_zeros());
        if slot.0 > self.preferred && self.slots.lowest_free() != Some(slot) {
            return None;
        }
        Some((slot, self.slots.id(slot)))
    }

    /// The next 64 slots with a free one.
    #[cold]
    fn go_on(&mut self) -> Option<()> {
        let more = self.slots.states.iter().enumerate().skip(self.at + 1);
        (self.at, self.free) = more.map(|(at, states)| (at, states.free)).find(|(_, free)| *free != 0)?;
        Some(())
    }

    /// The highest busy slot, once that of [`next`](Taking::next) is.
    #[inline(always)]
    pub fn highest_busy(&self, next: SlotId) -> u32 {
        self.highest.max(next.0)
    }

    /// Makes the slot of [`next`](Taking::next) busy.
    #[inline(always)]
    pub fn take(&mut self, next: SlotId) {
        self.highest = self.highest_busy(next);
        self.free &= self.free - 1;
        self.slots.states[self.at].free = self.free;
        self.slots.busy_count += 1;
    }
}

fn split(slot: u32) -> (usize, u64) {
    ((slot / WORD_BITS) as usize, 1 << (slot % WORD_BITS))
}

/// The bits of the slots that there are, among the 64 from `at * 64` on.
fn mask(count: u32, at: u32) -> u64 {
    let bits = count - at * WORD_BITS;
    if bits >= WORD_BITS { u64::MAX } else { (1 << bits) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_slot_is_used_and_ids_move_only_when_taken() {
        let mut slots = RequesterSlots::new(3);
        let a = slots.lowest_free().unwrap();
        slots.take(a);
        let b = slots.lowest_free().unwrap();
        slots.take(b);
        assert_eq!((a, b), (SlotId(0), SlotId(1)));
        assert_eq!((slots.highest_busy(a), slots.busy_count()), (SlotId(1), 2));
        slots.advance(a);
        assert_eq!(slots.busy_count(), 1);
        assert_eq!(slots.lowest_free(), Some(SlotId(0)));
        assert_eq!(slots.id(a), SequenceId(2));
        slots.release(b);
        assert_eq!(slots.id(b), SequenceId(1));
        slots.release(b);
        assert_eq!(slots.busy_count(), 0, "a second release changes nothing");
        assert_eq!(slots.highest_busy(SlotId(2)), SlotId(2));
    }

    #[test]
    fn slots_that_are_taken_one_after_the_other_are_those_that_are_taken_one_by_one() {
        for (count, target, gaps) in [(3, 2, 1), (130, 129, 3), (130, 70, 2), (200, 0, 64)] {
            let mut one_by_one = RequesterSlots::new(count);
            one_by_one.limits(SlotId(count - 1), SlotId(target));
            (0..count).step_by(gaps).for_each(|slot| one_by_one.take(SlotId(slot)));
            let mut together = one_by_one.clone();
            let mut taking = together.taking();
            while let Some(slot) = one_by_one.lowest_free() {
                let (next, id) = taking.next().unwrap();
                assert_eq!((next, id), (slot, one_by_one.id(slot)));
                assert_eq!(taking.highest_busy(next), one_by_one.highest_busy(slot).0, "{next:?} of {count}");
                one_by_one.take(slot);
                taking.take(next);
            }
            assert_eq!(taking.next(), None);
            assert_eq!(taking.next(), None, "asked once more");
            assert_eq!((together.busy_count(), together.export()), (one_by_one.busy_count(), one_by_one.export()));
        }
    }

    #[test]
    fn slots_beyond_the_first_64_are_found() {
        let mut slots = RequesterSlots::new(130);
        for expected in 0..130 {
            let slot = slots.lowest_free().unwrap();
            assert_eq!(slot, SlotId(expected));
            slots.take(slot);
            assert_eq!(slots.highest_busy(SlotId(0)), slot);
        }
        assert_eq!(slots.lowest_free(), None);
        slots.release(SlotId(64));
        assert_eq!((slots.lowest_free(), slots.highest_busy(SlotId(0))), (Some(SlotId(64)), SlotId(129)));
    }

    #[test]
    fn t28_sequence_ids_wrap_to_zero() {
        let mut slots = RequesterSlots::new(1);
        slots.set_id(SlotId(0), SequenceId(u32::MAX));
        slots.take(SlotId(0));
        slots.advance(SlotId(0));
        assert_eq!(slots.id(SlotId(0)), SequenceId(0));
    }

    #[test]
    fn t26_a_copied_slot_is_retired_where_others_restart() {
        let mut slots = RequesterSlots::new(4);
        for s in 0..4 {
            slots.take(SlotId(s));
        }
        slots.copy(SlotId(1));
        slots.copy(SlotId(2));
        slots.advance(SlotId(1));
        slots.advance(SlotId(3));
        slots.limits(SlotId(0), SlotId(0));
        assert_eq!((slots.retired_count(), slots.busy_count()), (1, 2), "it was free");
        slots.advance(SlotId(2));
        assert_eq!((slots.retired_count(), slots.busy_count()), (2, 1), "it was busy");
        slots.advance(SlotId(0));
        slots.limits(SlotId(3), SlotId(3));
        assert_eq!(slots.lowest_free(), Some(SlotId(0)));
        slots.take(SlotId(0));
        assert_eq!(slots.lowest_free(), Some(SlotId(3)), "whatever the limit is");
        assert_eq!(slots.id(SlotId(3)), SequenceId::FIRST);
        slots.limits(SlotId(0), SlotId(0));
        slots.limits(SlotId(3), SlotId(3));
        assert_eq!(slots.retired_count(), 2, "once is enough");
        let (image, limits) = slots.export();
        assert_eq!(RequesterSlots::import(&image, limits).export(), (image, limits));
    }

    #[test]
    fn t26_what_happens_to_a_slot_twice_is_the_same_as_once() {
        let mut slots = RequesterSlots::new(5);
        for s in 0..5 {
            slots.take(SlotId(s));
            slots.advance(SlotId(s));
            slots.take(SlotId(s));
            slots.take(SlotId(s));
        }
        slots.copy(SlotId(4));
        slots.copy(SlotId(4));
        for highest in [0, 4, 0] {
            slots.limits(SlotId(highest), SlotId(highest));
        }
        let (image, limits) = slots.export();
        let again = RequesterSlots::import(&image, limits).export();
        assert_eq!((again.0.as_slice(), again.1), (image.as_slice(), limits));
        assert_eq!(image.iter().map(|slot| slot.restarts).collect::<Vec<_>>(), [false, true, true, true, true]);
        for (left, slot) in [1, 0, 2, 4, 3].into_iter().enumerate() {
            assert_eq!(slots.busy_count() as usize, 5 - left);
            slots.advance(SlotId(slot));
        }
        assert_eq!([0, 1, 2, 3].map(|s| slots.id(SlotId(s)).0), [3, 1, 1, 1], "each that was dropped, and no other");
        assert_eq!((slots.busy_count(), slots.retired_count()), (0, 1));
    }

    #[test]
    fn limits_and_slots_that_are_not_there_are_none() {
        let mut slots = RequesterSlots::new(130);
        assert_eq!(slots.export().1, [129; 3]);
        assert_eq!(RequesterSlots::import(&slots.export().0, [200; 3]).export().1, [129; 3]);
        for slot in [130, 131, 191, 1000] {
            slots.take(SlotId(slot));
            slots.copy(SlotId(slot));
        }
        assert_eq!((slots.busy_count(), slots.highest_busy(SlotId(0))), (0, SlotId(0)));
    }

    #[test]
    fn t26_ids_restart_only_where_the_table_shrank() {
        let mut slots = RequesterSlots::new(4);
        for s in 0..4 {
            slots.take(SlotId(s));
            slots.advance(SlotId(s));
        }
        slots.limits(SlotId(3), SlotId(0));
        assert_eq!(slots.lowest_free(), Some(SlotId(0)));
        slots.take(SlotId(0));
        assert_eq!(slots.lowest_free(), None, "the target is 0");
        slots.limits(SlotId(3), SlotId(3));
        assert_eq!(slots.id(SlotId(1)), SequenceId(2), "a target does not drop a slot");
        slots.take(SlotId(3));
        slots.limits(SlotId(1), SlotId(1));
        assert_eq!(slots.id(SlotId(3)), SequenceId(2), "in flight: keeps its id");
        slots.advance(SlotId(3));
        slots.limits(SlotId(9), SlotId(9));
        assert_eq!([1, 2, 3].map(|s| slots.id(SlotId(s)).0), [2, 1, 1]);
    }

    #[test]
    fn t17_a_table_that_shrank_runs_out_of_slots() {
        let mut slots = RequesterSlots::new(3);
        slots.take(SlotId(0));
        slots.limits(SlotId(2), SlotId(0));
        assert_eq!(slots.lowest_free(), None, "the target is 0");
        assert!(slots.retire(SlotId(0)));
        assert_eq!(slots.lowest_free(), Some(SlotId(1)), "which was only a wish");
        slots.take(SlotId(1));
        slots.take(SlotId(2));
        slots.limits(SlotId(1), SlotId(0));
        assert!(slots.retire(SlotId(1)), "the reply on slot 2 may raise the limit");
        assert_eq!((slots.lowest_free(), slots.has_usable()), (None, true));
        slots.advance(SlotId(2));
        assert_eq!((slots.lowest_free(), slots.has_usable()), (None, false));
        // Lost slots above the limit say nothing about those below.
        let mut slots = RequesterSlots::new(3);
        assert!(slots.retire(SlotId(1)) && slots.retire(SlotId(2)));
        slots.limits(SlotId(0), SlotId(0));
        assert_eq!((slots.lowest_free(), slots.has_usable()), (Some(SlotId(0)), true));
        // A ceiling is ours alone.
        let mut slots = RequesterSlots::new(2);
        slots.cap(SlotId(0));
        slots.take(SlotId(0));
        assert_eq!(slots.lowest_free(), None);
        assert!(slots.retire(SlotId(0)));
        assert_eq!(slots.lowest_free(), Some(SlotId(1)));
    }

    #[test]
    fn t17_a_table_runs_out_of_slots() {
        let mut slots = RequesterSlots::new(2);
        slots.take(SlotId(0));
        assert!(slots.retire(SlotId(0)));
        assert_eq!(slots.highest_busy(SlotId(0)), SlotId(0));
        slots.release(SlotId(0));
        assert_eq!(slots.lowest_free(), Some(SlotId(1)));
        assert_eq!((slots.busy_count(), slots.retired_count()), (0, 1));
        assert!(slots.retire(SlotId(0)), "once is enough");
        assert_eq!(slots.retired_count(), 1);
        slots.take(SlotId(1));
        assert!(slots.retire(SlotId(2)), "there is none");
        assert_eq!((slots.busy_count(), slots.retired_count()), (1, 1));
        assert!(!slots.retire(SlotId(1)));
        assert_eq!(slots.lowest_free(), None);
        assert_eq!((slots.busy_count(), slots.retired_count()), (0, 2));
    }

    #[test]
    fn a_table_takes_as_many_bytes_as_its_slots_need() {
        // 130 sequence ids, and four sets of 130 bits in words of 64.
        assert_eq!(RequesterSlots::new(130).memory_bytes(), 130 * 4 + 4 * 3 * 8);
    }

    #[test]
    fn a_ceiling_holds_until_the_replier_speaks_again() {
        let mut slots = RequesterSlots::new(130);
        slots.cap(SlotId(0));
        slots.take(SlotId(0));
        assert_eq!(slots.lowest_free(), None);
        slots.limits(SlotId(200), SlotId(200));
        assert_eq!(slots.lowest_free(), Some(SlotId(1)));
        slots.take(SlotId(129));
        assert_eq!(slots.highest_busy(SlotId(0)), SlotId(129));
    }
}
