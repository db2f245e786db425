//! The fore channel of one client: session slots, and the calls that are pinned to them until they are answered.

use super::config::SESSION_SLOTS_MAX;
use super::outgoing::Outgoing;
use super::returns::Return;
use ringback_rpc::message::{CallHeader, OpaqueAuth, flavor};
use ringback_rpc::nfs4::fore::{CompoundArgs, OpArgs, PROCEDURE_COMPOUND, SequenceArgs, SequenceOk};
use ringback_rpc::nfs4::{NFS_V4, NFS4_PROGRAM, SessionId};
use ringback_rpc::xdr::{self, Encode, Writer};

/// Longest call that a client sends. The longest is the way to a deep directory.
pub(crate) const CALL_BYTES_MAX: usize = 8192;
/// Low bits of an xid that hold the session slot.
const SLOT_BITS: u32 = 10;

/// One file of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) client: u32,
    pub(crate) n: u64,
}

/// What a session slot is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// RECLAIM_COMPLETE.
    Reclaim,
    /// The way to the directory, and the lease time.
    Directory,
    /// OPEN for a delegation, and CLOSE.
    Open(File),
    /// OPEN for write, to cause a recall, and CLOSE.
    Write(File),
    /// DELEGRETURN.
    Return(Return),
    /// BACKCHANNEL_CTL, with parameters of this generation.
    Control(u32),
    /// SEQUENCE alone.
    Renew,
}

/// The head of every call of one client.
#[derive(Debug)]
pub(crate) struct Caller {
    /// The body of the AUTH_SYS credential.
    pub(crate) credential: Vec<u8>,
    serial: u32,
}

impl Caller {
    pub(crate) fn new(credential: Vec<u8>) -> Self {
        Caller { credential, serial: 0 }
    }

    /// An xid that is not in use: the session slot, and a serial number above it.
    pub(crate) fn next_xid(&mut self, slot: u32) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial << SLOT_BITS | slot
    }

    /// Writes the RPC header and the head of a compound of `count` operations.
    pub(crate) fn head(&self, xid: u32, count: usize, w: &mut Writer<'_>) -> xdr::Result<()> {
        let credential = OpaqueAuth { flavor: flavor::AUTH_SYS, body: &self.credential };
        let (program, version, procedure) = (NFS4_PROGRAM, NFS_V4, PROCEDURE_COMPOUND);
        CallHeader { xid, program, version, procedure, credential, verifier: OpaqueAuth::NONE }.encode(w)?;
        CompoundArgs { tag: &[], minor_version: 1, count }.encode(w)
    }
}

#[derive(Debug, Default)]
struct ForeSlot {
    /// Of the last request.
    sequence_id: u32,
    xid: u32,
    work: Option<Work>,
    /// The request with its mark, to be sent again as it is.
    request: Vec<u8>,
    /// When to send it again, because SEQUENCE said NFS4ERR_DELAY.
    resend_ns: Option<u64>,
}

/// Which session slots are busy; looked at for every call, where a walk over the slots would cost more than the call.
#[derive(Debug, Default)]
struct BusySlots {
    words: [u64; SESSION_SLOTS_MAX as usize / 64],
    count: usize,
}

impl BusySlots {
    fn set(&mut self, index: usize) {
        self.words[index / 64] |= 1 << (index % 64);
        self.count += 1;
    }

    fn clear(&mut self, index: usize) {
        let bit = 1 << (index % 64);
        self.count -= usize::from(self.words[index / 64] & bit != 0);
        self.words[index / 64] &= !bit;
    }

    /// One past the last if all are busy.
    fn lowest_free(&self) -> usize {
        let word = self.words.iter().position(|word| *word != u64::MAX).unwrap_or(self.words.len());
        word * 64 + self.words.get(word).map_or(0, |bits| bits.trailing_ones() as usize)
    }

    fn highest(&self) -> Option<usize> {
        let word = self.words.iter().rposition(|word| *word != 0)?;
        Some(word * 64 + 63 - self.words[word].leading_zeros() as usize)
    }
}

/// The requester half of the fore channel (RFC 8881 section 2.10.6.1).
#[derive(Debug, Default)]
pub(crate) struct ForeChannel {
    session_id: SessionId,
    slots: Vec<ForeSlot>,
    busy: BusySlots,
    /// Session slots that the server would like to see used.
    target: usize,
    delayed: usize,
}

impl ForeChannel {
    pub(crate) fn new(session_id: SessionId, slots: u32) -> Self {
        let slots: Vec<_> = (0..slots.clamp(1, SESSION_SLOTS_MAX)).map(|_| ForeSlot::default()).collect();
        ForeChannel { session_id, target: slots.len(), slots, busy: BusySlots::default(), delayed: 0 }
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Calls without an answer.
    pub(crate) fn busy(&self) -> usize {
        self.busy.count
    }

    /// Whether another call can start.
    pub(crate) fn has_room(&self) -> bool {
        self.busy.lowest_free() < self.target
    }

    /// Starts a call: SEQUENCE, and `count` operations that `operations` writes. Says whether there was a session slot.
    pub(crate) fn start(
        &mut self,
        work: Work,
        caller: &mut Caller,
        out: &mut Outgoing,
        count: usize,
        operations: impl FnOnce(&mut Writer<'_>) -> xdr::Result<()>,
    ) -> xdr::Result<bool> {
        let index = self.busy.lowest_free();
        if index >= self.target {
            return Ok(false);
        }
        let highest = self.busy.highest().map_or(index, |highest| highest.max(index));
        let slot = &mut self.slots[index];
        let sequence = SequenceArgs {
            session_id: self.session_id,
            sequence_id: slot.sequence_id.wrapping_add(1),
            slot_id: index as u32,
            highest_slot_id: highest as u32,
            // What changes state is cached, as the Linux client asks: after a cut its answer must be had again.
            cache_this: matches!(work, Work::Open(_) | Work::Write(_) | Work::Return(_) | Work::Control(_)),
        };
        let xid = caller.next_xid(index as u32);
        let request = out.record(CALL_BYTES_MAX, |w| {
            caller.head(xid, count + 1, w)?;
            OpArgs::Sequence(sequence).encode(w)?;
            operations(w)
        })?;
        slot.request.clear();
        slot.request.extend_from_slice(request);
        (slot.sequence_id, slot.xid, slot.work) = (sequence.sequence_id, xid, Some(work));
        self.busy.set(index);
        Ok(true)
    }

    /// The session slot of an outstanding call.
    pub(crate) fn find(&self, xid: u32) -> Option<usize> {
        let index = (xid & ((1 << SLOT_BITS) - 1)) as usize;
        let slot = self.slots.get(index)?;
        (slot.work.is_some() && slot.xid == xid).then_some(index)
    }

    /// Whether SEQUENCE echoed what was asked.
    pub(crate) fn echoes(&self, index: usize, ok: &SequenceOk) -> bool {
        let asked = (self.session_id, self.slots[index].sequence_id, index as u32);
        asked == (ok.session_id, ok.sequence_id, ok.slot_id)
    }

    /// SEQUENCE succeeded: the session slot is free for the next sequence id.
    pub(crate) fn settle(&mut self, index: usize, ok: &SequenceOk) -> Option<Work> {
        let wanted = (ok.target_highest_slot_id as usize).saturating_add(1);
        self.target = wanted.clamp(1, self.slots.len());
        let slot = &mut self.slots[index];
        self.delayed -= usize::from(slot.resend_ns.take().is_some());
        let work = slot.work.take();
        self.busy.clear(index);
        work
    }

    /// SEQUENCE said NFS4ERR_DELAY: the call keeps its session slot and its sequence id (RFC 8881 section 2.10.6.1).
    pub(crate) fn delay(&mut self, index: usize, until_ns: u64) {
        self.delayed += usize::from(self.slots[index].resend_ns.replace(until_ns).is_none());
    }

    /// Sends what was delayed until now once more.
    pub(crate) fn resend_delayed(&mut self, now_ns: u64, out: &mut Outgoing) {
        if self.delayed == 0 {
            return;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.resend_ns.is_some_and(|at| at <= now_ns)) {
            slot.resend_ns = None;
            self.delayed -= 1;
            out.marked(&slot.request);
        }
    }

    /// Sends every outstanding call once more, over a new connection: the same bytes (RFC 8881 section 2.10.6.2).
    pub(crate) fn resend_all(&mut self, out: &mut Outgoing) {
        for slot in self.slots.iter_mut().filter(|slot| slot.work.is_some()) {
            slot.resend_ns = None;
            out.marked(&slot.request);
        }
        self.delayed = 0;
    }

    /// Whether the call with this session slot and sequence id has no answer yet: a referring call to wait for.
    pub(crate) fn is_outstanding(&self, slot_id: u32, sequence_id: u32) -> bool {
        let slot = self.slots.get(slot_id as usize);
        slot.is_some_and(|slot| slot.work.is_some() && slot.sequence_id == sequence_id)
    }
}

const _: () = assert!(SESSION_SLOTS_MAX == 1 << SLOT_BITS);

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(channel: &ForeChannel, index: usize, target: u32) -> SequenceOk {
        SequenceOk {
            session_id: channel.session_id,
            sequence_id: channel.slots[index].sequence_id,
            slot_id: index as u32,
            highest_slot_id: 9,
            target_highest_slot_id: target,
            status_flags: 0,
        }
    }

    #[test]
    fn session_slots_are_taken_from_below_and_follow_the_target() {
        let mut channel = ForeChannel::new(SessionId([1; 16]), 3);
        let mut caller = Caller::new(vec![]);
        let mut out = Outgoing::default();
        let mut start = |channel: &mut ForeChannel| channel.start(Work::Renew, &mut caller, &mut out, 0, |_| Ok(()));
        for _ in 0..3 {
            assert_eq!(start(&mut channel), Ok(true));
        }
        assert_eq!(start(&mut channel), Ok(false));
        assert_eq!((channel.busy(), channel.busy.highest()), (3, Some(2)));
        let answer = ok(&channel, 1, 1);
        assert!(channel.echoes(1, &answer) && !channel.echoes(2, &answer));
        assert_eq!(channel.settle(1, &answer), Some(Work::Renew));
        assert_eq!(channel.settle(1, &answer), None, "once");
        assert!(channel.has_room());
        assert_eq!(start(&mut channel), Ok(true));
        assert!(!channel.has_room());
        let answer = ok(&channel, 2, 1);
        channel.settle(2, &answer);
        assert!(!channel.has_room(), "the server wants two session slots used");
        assert_eq!(channel.slots[1].sequence_id, 2);
    }

    #[test]
    fn a_call_is_sent_again_as_it_was() {
        let mut channel = ForeChannel::new(SessionId([1; 16]), 2);
        let mut caller = Caller::new(vec![1, 2, 3, 4]);
        let mut out = Outgoing::default();
        channel.start(Work::Renew, &mut caller, &mut out, 0, |_| Ok(())).unwrap();
        let sent = out.pending().to_vec();
        out.clear();
        channel.delay(0, 100);
        channel.delay(0, 200);
        channel.resend_delayed(199, &mut out);
        assert!(out.pending().is_empty());
        channel.resend_delayed(200, &mut out);
        assert_eq!(out.pending(), sent);
        channel.resend_all(&mut out);
        assert_eq!(out.pending(), [&sent[..], &sent[..]].concat());
        assert!(channel.is_outstanding(0, 1) && !channel.is_outstanding(0, 2) && !channel.is_outstanding(7, 1));
    }

    #[test]
    fn all_session_slots_can_be_busy() {
        let mut busy = BusySlots::default();
        (0..SESSION_SLOTS_MAX as usize).for_each(|i| busy.set(i));
        assert_eq!(busy.lowest_free(), SESSION_SLOTS_MAX as usize);
        busy.clear(77);
        assert_eq!((busy.lowest_free(), busy.highest(), busy.count), (77, Some(1023), 1023));
    }
}
