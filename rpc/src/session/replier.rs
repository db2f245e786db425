//! The replier half of a slot table: the reply cache.

use super::{SLOTS_MAX, SequenceId, SlotId};

/// What SEQUENCE or CB_SEQUENCE has to do with a request.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "each answer is a duty"]
pub enum Check<'a> {
    /// A new request: execute it, then call [`ReplierSlots::finish`] with its reply.
    New,
    /// A retry of the last request, whose reply was kept: send these bytes again, with the retry's xid.
    Replay(&'a [u8]),
    /// A retry of the last request, whose reply was not kept: SEQUENCE answers as it did, the operation after it gets
    /// NFS4ERR_RETRY_UNCACHED_REP (RFC 8881 section 2.10.6.1.3).
    Uncached,
    /// A retry of a request that is still being executed: NFS4ERR_DELAY.
    InProgress,
    /// Neither the last sequence id nor the one after it: NFS4ERR_SEQ_MISORDERED.
    Misordered,
    /// The last sequence id with another request: NFS4ERR_SEQ_FALSE_RETRY.
    FalseRetry,
}

/// Why there is no such slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// The slot is not in the table: NFS4ERR_BADSLOT.
    BadSlot,
    /// The highest slot in use is not in the table, or is below the slot itself: NFS4ERR_BAD_HIGH_SLOT.
    BadHighSlot,
}

#[derive(Clone, Debug)]
struct ReplierSlot {
    /// The last id that was taken; 0 before the first request, so that 1 is the next.
    id: SequenceId,
    used: bool,
    busy: bool,
    cached: bool,
    fingerprint: u64,
    reply: Vec<u8>,
}

/// The slot table of the side that executes requests, with the reply of each slot's last request.
#[derive(Clone, Debug)]
pub struct ReplierSlots {
    slots: Box<[ReplierSlot]>,
    reply_bytes_max: usize,
}

impl ReplierSlots {
    /// A table of `count` slots, at least one and at most [`SLOTS_MAX`]; replies longer than `reply_bytes_max` are not
    /// kept (ca_maxresponsesize_cached). A slot's cache grows by the replies that are kept in it, never ahead of them.
    pub fn new(count: u32, reply_bytes_max: usize) -> Self {
        let slot = ReplierSlot {
            id: SequenceId(0),
            used: false,
            busy: false,
            cached: false,
            fingerprint: 0,
            reply: Vec::new(),
        };
        ReplierSlots { slots: vec![slot; count.clamp(1, SLOTS_MAX) as usize].into_boxed_slice(), reply_bytes_max }
    }

    /// The highest slot of the table (sr_highest_slotid).
    pub fn highest(&self) -> SlotId {
        SlotId(self.slots.len() as u32 - 1)
    }

    /// Slots whose request is being executed.
    pub fn busy_count(&self) -> usize {
        self.slots.iter().filter(|s| s.busy).count()
    }

    /// Judges a request by its slot, its sequence id, the highest slot in use and the [`fingerprint`] of its bytes
    /// after SEQUENCE. [`Check::New`] makes the slot busy.
    pub fn check(
        &mut self,
        slot: SlotId,
        id: SequenceId,
        highest: SlotId,
        fingerprint: u64,
    ) -> Result<Check<'_>, NoSlot> {
        let last = self.highest();
        let entry = self.slots.get_mut(slot.0 as usize).ok_or(NoSlot::BadSlot)?;
        if highest < slot || highest > last {
            return Err(NoSlot::BadHighSlot);
        }
        if id == entry.id && entry.used {
            return Ok(match entry {
                // First of all: the reply is not there to be compared with.
                ReplierSlot { busy: true, .. } => Check::InProgress,
                e if e.fingerprint != fingerprint => Check::FalseRetry,
                ReplierSlot { cached: true, reply, .. } => Check::Replay(reply),
                _ => Check::Uncached,
            });
        }
        if id != entry.id.next() || entry.busy {
            return Ok(Check::Misordered);
        }
        *entry = ReplierSlot {
            id,
            used: true,
            busy: true,
            cached: false,
            fingerprint,
            reply: core::mem::take(&mut entry.reply),
        };
        Ok(Check::New)
    }

    /// Whether the requester has gone on from a request: it has used the slot with a later sequence id, and so has the
    /// reply to the earlier one (RFC 8881 section 2.10.6.1). A call that was passed is not named in a referring call
    /// list any more.
    pub fn has_passed(&self, slot: SlotId, id: SequenceId) -> bool {
        // Ids wrap: later is whatever is less than half the range ahead.
        self.slots.get(slot.0 as usize).is_none_or(|entry| (entry.id.0.wrapping_sub(id.0) as i32) > 0)
    }

    /// The request of a busy slot was executed. `reply` is kept if the request asked for that (sa_cachethis) and it is
    /// not too long; `None`: the request did not ask.
    pub fn finish(&mut self, slot: SlotId, reply: Option<&[u8]>) {
        let Some(entry) = self.slots.get_mut(slot.0 as usize).filter(|s| s.busy) else { return };
        entry.busy = false;
        entry.reply.clear();
        if let Some(reply) = reply.filter(|r| r.len() <= self.reply_bytes_max) {
            entry.reply.extend_from_slice(reply);
            entry.cached = true;
        }
    }
}

/// A 64-bit digest of a request, to tell a retry from another request under the same sequence id (RFC 8881 section
/// 2.10.6.1.3.1). FNV-1a: it has to notice a requester's mistake, not an attacker, who could only deceive himself.
pub fn fingerprint(request: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    request.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S0: SlotId = SlotId(0);

    #[test]
    fn a_retry_gets_the_kept_reply() {
        let mut slots = ReplierSlots::new(1, 8);
        assert_eq!(slots.check(S0, SequenceId(1), S0, 7), Ok(Check::New));
        assert_eq!(slots.check(S0, SequenceId(1), S0, 7), Ok(Check::InProgress));
        assert_eq!(slots.busy_count(), 1);
        assert_eq!(slots.check(S0, SequenceId(2), S0, 7), Ok(Check::Misordered), "while the first is executed");
        slots.finish(S0, Some(b"reply"));
        assert_eq!(slots.busy_count(), 0);
        assert_eq!(slots.check(S0, SequenceId(1), S0, 7), Ok(Check::Replay(b"reply")));
        assert_eq!(slots.check(S0, SequenceId(1), S0, 8), Ok(Check::FalseRetry));
        assert_eq!(slots.check(S0, SequenceId(2), S0, 8), Ok(Check::New));
        slots.finish(S0, None);
        assert_eq!(slots.check(S0, SequenceId(2), S0, 8), Ok(Check::Uncached));
        assert_eq!(slots.check(S0, SequenceId(1), S0, 7), Ok(Check::Misordered));
        assert_eq!(slots.check(S0, SequenceId(4), S0, 7), Ok(Check::Misordered));
    }

    #[test]
    fn f10_a_call_is_passed_once_its_slot_was_used_again() {
        let mut slots = ReplierSlots::new(1, 8);
        assert!(!slots.has_passed(S0, SequenceId(1)), "not here yet");
        assert_eq!(slots.check(S0, SequenceId(1), S0, 7), Ok(Check::New));
        slots.finish(S0, None);
        assert!(!slots.has_passed(S0, SequenceId(1)), "answered, but has the answer arrived?");
        assert_eq!(slots.check(S0, SequenceId(2), S0, 7), Ok(Check::New));
        assert!(slots.has_passed(S0, SequenceId(1)));
        assert!(slots.has_passed(S0, SequenceId(u32::MAX)), "ids wrap");
        assert!(slots.has_passed(SlotId(1), SequenceId(1)), "not in the table any more");
    }

    #[test]
    fn a_new_slot_starts_at_one_and_a_long_reply_is_not_kept() {
        let mut slots = ReplierSlots::new(2, 3);
        assert_eq!(slots.check(S0, SequenceId(0), S0, 0), Ok(Check::Misordered));
        assert_eq!(slots.check(SlotId(1), SequenceId(1), SlotId(1), 0), Ok(Check::New));
        slots.finish(SlotId(1), Some(b"long"));
        assert_eq!(slots.check(SlotId(1), SequenceId(1), SlotId(1), 0), Ok(Check::Uncached));
    }

    #[test]
    fn slots_outside_the_table_are_refused() {
        let mut slots = ReplierSlots::new(2, 3);
        assert_eq!(slots.check(SlotId(2), SequenceId(1), SlotId(2), 0), Err(NoSlot::BadSlot));
        assert_eq!(slots.check(S0, SequenceId(1), SlotId(2), 0), Err(NoSlot::BadHighSlot));
        assert_eq!(slots.check(SlotId(1), SequenceId(1), S0, 0), Err(NoSlot::BadHighSlot));
    }

    /// FNV-1a with 64 bits, by its published test vectors.
    #[test]
    fn a_fingerprint_tells_requests_apart() {
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn t28_sequence_ids_wrap() {
        let mut slots = ReplierSlots::new(1, 3);
        slots.slots[0].id = SequenceId(u32::MAX);
        assert_eq!(slots.check(S0, SequenceId(0), S0, 0), Ok(Check::New));
        slots.finish(S0, None);
        assert_eq!(slots.check(S0, SequenceId(0), S0, 0), Ok(Check::Uncached));
        assert_eq!(slots.check(S0, SequenceId(1), S0, 0), Ok(Check::New));
    }
}
