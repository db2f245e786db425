//! A hierarchical timing wheel: O(1) to arm, one timer per id, coarse (1 ms).
//!
//! Five levels of 64 places; a place of level `n` spans 64^n ms, so timers up to 12 days ahead are exact to a
//! millisecond by the time they fire. Places are doubly linked through a table indexed by id, so arming allocates only
//! when an id is seen for the first time.

const LEVELS: usize = 5;
const BITS: u32 = 6;
const PLACES: usize = 1 << BITS;
const NONE: u32 = u32::MAX;
/// Timers further ahead than the wheel reaches wait at its rim and are looked at again there.
const REACH_MS: u64 = (1 << (BITS * LEVELS as u32)) - 1;
const NS_PER_MS: u64 = 1_000_000;

#[derive(Clone, Copy)]
struct Node {
    due_ms: u64,
    prev: u32,
    next: u32,
    /// `level * PLACES + place` while armed, else `NONE`.
    place: u32,
}

/// The wheel. Ids are small and dense.
pub(crate) struct Wheel {
    now_ms: u64,
    nodes: Vec<Node>,
    heads: [[u32; PLACES]; LEVELS],
    /// Which places of a level are not empty.
    occupied: [u64; LEVELS],
}

impl Wheel {
    pub fn new(now_ns: u64) -> Self {
        Wheel { now_ms: now_ns / NS_PER_MS, nodes: Vec::new(), heads: [[NONE; PLACES]; LEVELS], occupied: [0; LEVELS] }
    }

    /// Makes sure that `id` fires at or before `at_ns` (rounded up to a millisecond). A timer that is armed for earlier
    /// stays: whoever is called too early looks at its own deadlines and arms again, which is cheaper than moving a
    /// timer with every reply.
    pub fn arm(&mut self, id: u32, at_ns: u64) {
        let due_ms = at_ns.div_ceil(NS_PER_MS).max(self.now_ms + 1);
        let index = id as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Node { due_ms: 0, prev: NONE, next: NONE, place: NONE });
        }
        if self.nodes[index].place != NONE {
            if self.nodes[index].due_ms <= due_ms {
                return;
            }
            self.unlink(id);
        }
        self.nodes[index].due_ms = due_ms;
        self.link(id);
    }

    /// Forgets the timer of `id`.
    pub fn disarm(&mut self, id: u32) {
        if self.nodes.get(id as usize).is_some_and(|n| n.place != NONE) {
            self.unlink(id);
        }
    }

    /// When [`Wheel::expire`] must be called next: never later than the first timer, perhaps earlier.
    pub fn next_ns(&self) -> Option<u64> {
        self.next_place_ms().map(|ms| ms * NS_PER_MS)
    }

    fn next_place_ms(&self) -> Option<u64> {
        (0..LEVELS).filter_map(|level| self.next_ms(level)).min()
    }

    /// When the next occupied place of `level` comes up: at the start of its span.
    fn next_ms(&self, level: usize) -> Option<u64> {
        let shift = BITS * level as u32;
        let at = self.now_ms >> shift;
        // The current place has passed: it can only hold timers of the next lap, so it is looked at last.
        let turned = self.occupied[level].rotate_right(((at + 1) % PLACES as u64) as u32);
        (turned != 0).then(|| (at + 1 + u64::from(turned.trailing_zeros())) << shift)
    }

    /// Moves to `now_ns` and appends the ids whose time has come.
    pub fn expire(&mut self, now_ns: u64, fired: &mut Vec<u32>) {
        let target = now_ns / NS_PER_MS;
        while let Some(next) = self.next_place_ms() {
            if next > target {
                break;
            }
            self.now_ms = next;
            for level in (0..LEVELS).rev() {
                let shift = BITS * level as u32;
                if next & ((1 << shift) - 1) == 0 {
                    self.empty_place(level, ((next >> shift) % PLACES as u64) as usize, fired);
                }
            }
        }
        self.now_ms = self.now_ms.max(target);
    }

    fn empty_place(&mut self, level: usize, place: usize, fired: &mut Vec<u32>) {
        let mut id = std::mem::replace(&mut self.heads[level][place], NONE);
        self.occupied[level] &= !(1 << place);
        while id != NONE {
            let node = &mut self.nodes[id as usize];
            let next = node.next;
            node.place = NONE;
            if node.due_ms <= self.now_ms {
                fired.push(id);
            } else {
                self.link(id);
            }
            id = next;
        }
    }

    fn link(&mut self, id: u32) {
        let ahead = (self.nodes[id as usize].due_ms - self.now_ms).min(REACH_MS);
        let target = self.now_ms + ahead;
        // The lowest level on which the target is less than one lap away.
        let level = (0..LEVELS - 1)
            .find(|l| (target >> (BITS * *l as u32)) - (self.now_ms >> (BITS * *l as u32)) < PLACES as u64)
            .unwrap_or(LEVELS - 1);
        let place = ((target >> (BITS * level as u32)) % PLACES as u64) as usize;
        let head = self.heads[level][place];
        let node = &mut self.nodes[id as usize];
        node.place = (level * PLACES + place) as u32;
        node.prev = NONE;
        node.next = head;
        if head != NONE {
            self.nodes[head as usize].prev = id;
        }
        self.heads[level][place] = id;
        self.occupied[level] |= 1 << place;
    }

    fn unlink(&mut self, id: u32) {
        let Node { prev, next, place, .. } = self.nodes[id as usize];
        let (level, at) = (place as usize / PLACES, place as usize % PLACES);
        if prev == NONE {
            self.heads[level][at] = next;
            if next == NONE {
                self.occupied[level] &= !(1 << at);
            }
        } else {
            self.nodes[prev as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        self.nodes[id as usize].place = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn ms(v: u64) -> u64 {
        v * NS_PER_MS
    }

    #[test]
    fn a_timer_fires_once_and_in_time() {
        let mut wheel = Wheel::new(ms(100));
        wheel.arm(3, ms(250));
        let mut fired = Vec::new();
        wheel.expire(ms(249), &mut fired);
        assert!(fired.is_empty());
        wheel.expire(ms(250), &mut fired);
        assert_eq!(fired, [3]);
        wheel.expire(ms(10_000), &mut fired);
        assert_eq!(fired, [3]);
        assert_eq!(wheel.next_ns(), None);
    }

    #[test]
    fn an_earlier_timer_stays_and_a_later_one_moves() {
        let mut wheel = Wheel::new(0);
        wheel.arm(0, ms(50));
        wheel.arm(0, ms(5_000));
        wheel.arm(1, ms(5_000));
        wheel.arm(1, ms(50));
        let mut fired = Vec::new();
        wheel.expire(ms(60), &mut fired);
        fired.sort();
        assert_eq!(fired, [0, 1]);
    }

    #[test]
    fn a_disarmed_timer_is_forgotten() {
        let mut wheel = Wheel::new(0);
        wheel.arm(7, ms(5));
        wheel.disarm(7);
        wheel.disarm(8);
        let mut fired = Vec::new();
        wheel.expire(ms(10), &mut fired);
        assert!(fired.is_empty());
    }

    proptest! {
        /// Against a sorted map: nothing early, nothing late, nothing lost; sleeping until `next_ns` misses nothing.
        #[test]
        fn agrees_with_a_sorted_map(
            start in 0u64..1 << 32,
            steps in proptest::collection::vec((0u32..20, 1u64..5_000_000, 0u64..100_000), 1..60),
        ) {
            let mut wheel = Wheel::new(ms(start));
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = start;
            let mut fired = Vec::new();
            for (id, ahead, sleep) in steps {
                let due = now + ahead;
                let entry = model.entry(id).or_insert(due);
                *entry = (*entry).min(due);
                wheel.arm(id, ms(due));
                now += sleep;
                fired.clear();
                wheel.expire(ms(now), &mut fired);
                fired.sort();
                let expected: Vec<u32> = model.iter().filter(|(_, due)| **due <= now).map(|(id, _)| *id).collect();
                model.retain(|_, due| *due > now);
                prop_assert_eq!(&fired, &expected);
                match (wheel.next_ns(), model.values().min()) {
                    (None, None) => {}
                    (Some(next), Some(first)) => prop_assert!(next > ms(now) && next <= ms(*first)),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
