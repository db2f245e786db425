//! A session, as a simulated client sees it.

use crate::sim::fore::FORE_SLOTS;
use crate::sim::net::LineId;
use ringback::SessionKey;
use ringback_rpc::nfs4::SessionId;
use ringback_rpc::nfs4::callback::CbSequenceRes;

/// Program and credential that a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    pub program: u32,
    /// AUTH_SYS's stamp tells credentials apart.
    pub stamp: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    /// Of the last call that was executed.
    pub(super) last: u32,
    /// Its answer is not sent yet.
    pub(super) executing: bool,
    /// csr_highest_slotid in its answer; `None`: it was answered more than once, or the table
    /// has another limit since.
    pub(super) told: Option<u32>,
    /// How often it was given up, to start anew.
    pub(super) lives: u32,
    /// The highest `last` of the lives before.
    pub(super) gone: u32,
}

/// A slot of the fore channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ForeSlot {
    pub(super) last: u32,
    /// The call has no reply yet. One whose line is lost never gets one, and its slot is not used any more.
    pub(super) busy: bool,
}

/// What a client takes in one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub request_bytes_max: u32,
    /// CB_SEQUENCE among them.
    pub operations_max: u32,
}

/// A session, as the client sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub id: [u8; 16],
    pub key: SessionKey,
    pub principals: Vec<Principal>,
    pub limits: Limits,
    pub(super) slots: Vec<Slot>,
    pub(super) fore: [ForeSlot; FORE_SLOTS],
    /// The highest slot of the table as it is now (csr_highest_slotid).
    pub(super) highest: u32,
    /// The least that it has been.
    pub(super) highest_min: u32,
    /// The server is known to have seen that, and has nothing outstanding beyond it.
    pub(super) settled: bool,
    /// The youngest call that was executed, by its xid.
    pub(super) youngest: Option<u32>,
    /// What the client would like to see used.
    pub(super) target: u32,
    /// The client has destroyed it.
    pub destroyed: bool,
    /// The server has been told that it is destroyed.
    pub removed: bool,
    /// The client has lied on it: the two may disagree about its slots.
    pub tainted: bool,
    /// Lines that the client has bound to it.
    pub bound: Vec<LineId>,
}

impl Session {
    pub(crate) fn new(id: [u8; 16], key: SessionKey, principal: Principal, slots: u32, limits: Limits) -> Self {
        Session {
            id,
            key,
            principals: vec![principal],
            limits,
            youngest: None,
            slots: vec![Slot::default(); slots as usize],
            fore: Default::default(),
            highest: slots - 1,
            highest_min: slots - 1,
            settled: true,
            target: slots - 1,
            destroyed: false,
            removed: false,
            tainted: false,
            bound: Vec::new(),
        }
    }

    /// From now on the client would like to see slots up to this one used.
    pub(crate) fn set_target(&mut self, target: u32) {
        self.target = target;
    }

    /// What the client executed last on a session slot.
    pub(crate) fn last(&self, slot: u32) -> Option<u32> {
        self.slots.get(slot as usize).map(|s| s.last)
    }

    /// How often the client has given a session slot up.
    pub(crate) fn lives(&self, slot: u32) -> u32 {
        self.slots.get(slot as usize).map_or(0, |s| s.lives)
    }

    /// How many session slots the client has given up at one time or another, whether the server knows it or not.
    pub(crate) fn slots_given_up(&self) -> u64 {
        u64::from(self.slot_count() - 1 - self.highest_min)
    }

    pub(crate) fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The answer to a CB_SEQUENCE that is fine.
    pub(super) fn echo(&self, sequence_id: u32, slot_id: u32) -> CbSequenceRes {
        CbSequenceRes {
            session_id: SessionId(self.id),
            sequence_id,
            slot_id,
            highest_slot_id: self.highest,
            target_highest_slot_id: self.target,
        }
    }

    /// A call has come whose sequence id shows that the server has the answer to the one before on its slot: if that said
    /// how large the table is, and nothing is outstanding beyond, what is beyond starts anew (RFC 8881 section 2.10.6.1).
    pub(super) fn learn(&mut self, slot: u32, highest_busy: u32) {
        if self.slots[slot as usize].told == Some(self.highest) && highest_busy <= self.highest {
            self.settled = true;
            for slot in &mut self.slots[self.highest as usize + 1..] {
                *slot = Slot { lives: slot.lives + 1, gone: slot.gone.max(slot.last), ..Slot::default() };
            }
        }
    }
}
