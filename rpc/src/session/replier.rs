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
    /// The slot was given up and is there again. Whether its requester has noticed is not known: it may go on from `id`, or
    /// begin with 1.
    again: bool,
    /// How often the target had been lowered when the slot's last request was answered.
    told: u32,
    fingerprint: u64,
    reply: Vec<u8>,
}

impl ReplierSlot {
    /// A slot that was not used yet, or not since it was given up after `id`.
    const fn new(id: SequenceId) -> Self {
        let (used, busy, cached, again) = (false, false, false, id.0 != 0);
        ReplierSlot { id, used, busy, cached, again, told: 0, fingerprint: 0, reply: Vec::new() }
    }

    const fn takes(&self, id: SequenceId) -> bool {
        id.0 == self.id.next().0 || (self.again && id.0 == 1)
    }
}

/// The slot table of the side that executes requests, with the reply of each slot's last request.
///
/// It shrinks as RFC 8881 section 2.10.6.1 wants it: [`set_target`](ReplierSlots::set_target) says which slots the requester
/// is asked to use, which SEQUENCE's sr_target_highest_slotid (and CB_RECALL_SLOT) tells it. The others go when it has
/// shown that it knows: a new request on a slot whose last reply had the target, with no higher slot in use.
///
/// ```
/// use ringback_rpc::session::{Check, NoSlot, ReplierSlots, SequenceId, SlotId};
///
/// let (s0, s3) = (SlotId(0), SlotId(3));
/// let mut slots = ReplierSlots::new(4, 1024);
/// slots.set_target(s0);
/// assert_eq!((slots.highest(), slots.target()), (s3, s0), "it is not known yet");
/// assert_eq!(slots.check(s0, SequenceId(1), s0, 7), Ok(Check::New));
/// slots.finish(s0, None);
/// assert_eq!(slots.check(s0, SequenceId(2), s0, 8), Ok(Check::New), "the reply to the first has arrived");
/// assert_eq!((slots.highest(), slots.target()), (s0, s0));
/// slots.finish(s0, None);
/// assert_eq!(slots.check(s3, SequenceId(1), s3, 9), Err(NoSlot::BadSlot));
/// ```
#[derive(Clone, Debug)]
pub struct ReplierSlots {
    slots: Vec<ReplierSlot>,
    /// The last ids of all slots that there may be and that were given up, from the first above the table.
    former: Vec<SequenceId>,
    /// The highest slot that the requester is asked to use.
    target: SlotId,
    /// How often the target was lowered. It wraps, long after the last reply that had an old one.
    lowered: u32,
    reply_bytes_max: usize,
}

impl ReplierSlots {
    /// A table of `count` slots, at least one and at most [`SLOTS_MAX`]; replies longer than `reply_bytes_max` are not
    /// kept (ca_maxresponsesize_cached). A slot's cache grows by the replies that are kept in it, never ahead of them.
    pub fn new(count: u32, reply_bytes_max: usize) -> Self {
        let count = count.clamp(1, SLOTS_MAX);
        let slots = vec![ReplierSlot::new(SequenceId(0)); count as usize];
        ReplierSlots { slots, former: Vec::new(), target: SlotId(count - 1), lowered: 0, reply_bytes_max }
    }

    /// The highest slot of the table (sr_highest_slotid).
    pub fn highest(&self) -> SlotId {
        SlotId(self.slots.len() as u32 - 1)
    }

    /// The highest slot that the requester is asked to use (sr_target_highest_slotid).
    pub const fn target(&self) -> SlotId {
        self.target
    }

    /// Asks the requester to use no slot above `target`, from the next reply on; or gives it slots back, never more than the
    /// table had at first.
    pub fn set_target(&mut self, target: SlotId) {
        let most = self.slots.len() + self.former.len();
        let target = SlotId(target.0.min(most as u32 - 1));
        if target < self.target {
            self.lowered = self.lowered.wrapping_add(1);
        }
        self.target = target;
        if let Some(back) = (target.0 as usize + 1).checked_sub(self.slots.len()) {
            self.slots.extend(self.former.drain(..back).map(ReplierSlot::new));
        }
    }

    /// The requester has shown that it knows the target: what is above is given up, with what was kept in it.
    fn shrink(&mut self) {
        let count = self.target.0 as usize + 1;
        // Executed still, whatever the requester says.
        if self.slots.iter().skip(count).any(|slot| slot.busy) {
            return;
        }
        let gone = self.slots.drain(count..).map(|slot| slot.id);
        self.former.splice(0..0, gone);
        self.slots.shrink_to_fit();
    }

    /// Slots whose request is being executed.
    pub fn busy_count(&self) -> usize {
        self.slots.iter().filter(|s| s.busy).count()
    }

    /// Judges a request by its slot, its sequence id, the highest slot in use and the [`fingerprint`] of its bytes
    /// after SEQUENCE. [`Check::New`] makes the slot busy, and may be what the table has waited for to shrink.
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
            return Ok(self.retried(slot, fingerprint));
        }
        if !entry.takes(id) || entry.busy {
            return Ok(Check::Misordered);
        }
        // It would not use the next id without the reply to the last one.
        let knows = entry.used && entry.told == self.lowered && highest <= self.target;
        let reply = core::mem::take(&mut entry.reply);
        let (used, busy, told) = (true, true, self.lowered);
        *entry = ReplierSlot { id, used, busy, cached: false, again: false, told, fingerprint, reply };
        if knows && self.target < last {
            self.shrink();
        }
        Ok(Check::New)
    }

    /// What a retry of a slot's last request gets.
    fn retried(&self, slot: SlotId, fingerprint: u64) -> Check<'_> {
        match self.slots.get(slot.0 as usize) {
            // First of all: the reply is not there to be compared with.
            Some(ReplierSlot { busy: true, .. }) => Check::InProgress,
            Some(entry) if entry.fingerprint != fingerprint => Check::FalseRetry,
            Some(ReplierSlot { cached: true, reply, .. }) => Check::Replay(reply),
            _ => Check::Uncached,
        }
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

/// A slot table as plain data: what it takes to go on with it in another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplierImage {
    /// The slots.
    pub slots: Vec<ReplierSlotImage>,
    /// The last sequence ids of slots that were given up.
    pub former: Vec<u32>,
    /// The highest slot that the requester is asked to use.
    pub target: u32,
    /// How often that was lowered.
    pub lowered: u32,
    /// Longer replies are not kept.
    pub reply_bytes_max: u64,
}

/// A slot of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplierSlotImage {
    /// The last sequence id that was taken.
    pub id: u32,
    /// It was used.
    pub used: bool,
    /// Its request is being executed.
    pub busy: bool,
    /// Its reply was kept.
    pub cached: bool,
    /// It was given up and is there again.
    pub again: bool,
    /// How often the target had been lowered when its last request was answered.
    pub told: u32,
    /// The digest of its last request.
    pub fingerprint: u64,
    /// The reply to that.
    pub reply: Vec<u8>,
}

impl ReplierSlots {
    /// What it takes to go on elsewhere.
    pub fn export(&self) -> ReplierImage {
        let slot = |slot: &ReplierSlot| ReplierSlotImage {
            id: slot.id.0,
            used: slot.used,
            busy: slot.busy,
            cached: slot.cached,
            again: slot.again,
            told: slot.told,
            fingerprint: slot.fingerprint,
            reply: slot.reply.clone(),
        };
        ReplierImage {
            slots: self.slots.iter().map(slot).collect(),
            former: self.former.iter().map(|id| id.0).collect(),
            target: self.target.0,
            lowered: self.lowered,
            reply_bytes_max: self.reply_bytes_max as u64,
        }
    }

    /// Goes on where [`export`](ReplierSlots::export) has left off. `None`: there is no slot, or more than there may be, or the
    /// target is none of them.
    pub fn import(image: ReplierImage) -> Option<Self> {
        let count = image.slots.len() + image.former.len();
        if image.slots.is_empty() || count > SLOTS_MAX as usize || image.target as usize >= count {
            return None;
        }
        let slot = |slot: ReplierSlotImage| ReplierSlot {
            id: SequenceId(slot.id),
            used: slot.used,
            busy: slot.busy,
            cached: slot.cached,
            again: slot.again,
            told: slot.told,
            fingerprint: slot.fingerprint,
            reply: slot.reply,
        };
        Some(ReplierSlots {
            slots: image.slots.into_iter().map(slot).collect(),
            former: image.former.into_iter().map(SequenceId).collect(),
            target: SlotId(image.target),
            lowered: image.lowered,
            reply_bytes_max: usize::try_from(image.reply_bytes_max).ok()?,
        })
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
        assert_eq!((slots.highest(), slots.target()), (SlotId(1), SlotId(1)));
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

    /// The requester uses a slot and has its reply.
    fn exchange(slots: &mut ReplierSlots, slot: u32, id: u32, highest: u32) {
        assert_eq!(slots.check(SlotId(slot), SequenceId(id), SlotId(highest), 0), Ok(Check::New), "{slot} {id}");
        slots.finish(SlotId(slot), Some(b"r"));
    }

    #[test]
    fn t26_a_table_shrinks_when_its_requester_knows() {
        let mut slots = ReplierSlots::new(4, 8);
        exchange(&mut slots, 3, 1, 3);
        exchange(&mut slots, 0, 1, 0);
        slots.set_target(SlotId(1));
        assert_eq!((slots.highest(), slots.target()), (SlotId(3), SlotId(1)));
        exchange(&mut slots, 0, 2, 0);
        assert_eq!(slots.highest(), SlotId(3), "it had not been told when it sent that");
        exchange(&mut slots, 0, 3, 3);
        assert_eq!(slots.highest(), SlotId(3), "it still uses a higher slot");
        exchange(&mut slots, 1, 1, 1);
        assert_eq!(slots.highest(), SlotId(3), "nothing had been told on this slot");
        exchange(&mut slots, 0, 4, 1);
        assert_eq!(slots.highest(), SlotId(1));
        let image = slots.export();
        slots = ReplierSlots::import(image.clone()).expect("it is one");
        assert_eq!(slots.export(), image);
        assert!(ReplierSlots::import(ReplierImage { target: 4, ..image.clone() }).is_none());
        assert!(ReplierSlots::import(ReplierImage { slots: Vec::new(), ..image }).is_none());
        assert_eq!(slots.check(SlotId(3), SequenceId(2), SlotId(3), 0), Err(NoSlot::BadSlot));
        assert_eq!(slots.check(S0, SequenceId(5), SlotId(3), 0), Err(NoSlot::BadHighSlot));
        assert_eq!(slots.check(S0, SequenceId(4), S0, 0), Ok(Check::Replay(b"r")), "what stays is as it was");
    }

    #[test]
    fn t26_a_target_that_is_said_again_is_known_already() {
        let mut slots = ReplierSlots::new(2, 8);
        slots.set_target(S0);
        exchange(&mut slots, 0, 1, 0);
        slots.set_target(S0);
        exchange(&mut slots, 0, 2, 0);
        assert_eq!(slots.highest(), S0);
    }

    #[test]
    fn t26_a_slot_that_is_back_begins_anew_or_goes_on() {
        for id in [1, 3] {
            let mut slots = ReplierSlots::new(3, 8);
            exchange(&mut slots, 2, 1, 2);
            exchange(&mut slots, 2, 2, 2);
            slots.set_target(S0);
            (1..3).for_each(|id| exchange(&mut slots, 0, id, 0));
            assert_eq!(slots.highest(), S0);
            slots.set_target(SlotId(9));
            assert_eq!((slots.highest(), slots.target()), (SlotId(2), SlotId(2)), "never more than there were");
            assert_eq!(slots.check(SlotId(2), SequenceId(2), SlotId(2), 0), Ok(Check::Misordered), "no reply is kept");
            exchange(&mut slots, 2, id, 2);
            assert_eq!(slots.check(SlotId(2), SequenceId(id + 2), SlotId(2), 0), Ok(Check::Misordered));
            exchange(&mut slots, 1, 1, 1);
        }
    }

    #[test]
    fn t26_a_table_shrinks_no_further_than_its_busy_slots() {
        let mut slots = ReplierSlots::new(3, 8);
        assert_eq!(slots.check(SlotId(1), SequenceId(1), SlotId(1), 0), Ok(Check::New));
        slots.set_target(S0);
        // One who does not tell the truth about what he uses.
        (1..4).for_each(|id| exchange(&mut slots, 0, id, 0));
        assert_eq!((slots.highest(), slots.busy_count()), (SlotId(2), 1));
        slots.finish(SlotId(1), None);
        exchange(&mut slots, 0, 4, 0);
        assert_eq!(slots.highest(), S0);
        // Twice and in parts.
        slots.set_target(SlotId(1));
        assert_eq!(slots.highest(), SlotId(1));
        exchange(&mut slots, 1, 2, 1);
        slots.set_target(S0);
        (5..7).for_each(|id| exchange(&mut slots, 0, id, 0));
        slots.set_target(SlotId(2));
        exchange(&mut slots, 1, 3, 1);
        exchange(&mut slots, 2, 1, 2);
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
