//! Faults planted on purpose, to show that the checkers find them.

use super::call::Call;
use ringback::simulator::SendBuf;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What to do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Nothing.
    Nothing,
    /// A `release` gets lost.
    SwallowRelease,
    /// A `done` gets lost.
    SwallowDone,
    /// A sequence id is skipped on the wire.
    SkipSequenceId,
    /// A call that is sent again carries other bytes.
    AlterResend,
    /// A new call goes to the program of before BACKCHANNEL_CTL.
    OldProgram,
    /// A reactor that sleeps is not woken.
    MuffleBell,
    /// A session slot is missing in the census.
    HideSlot,
    /// A reactor turns and turns.
    SpinReactor,
    /// A run is missing in the runtime's count of runs in flight.
    HideRun,
    /// The report of a drain leaves out a callback that was abandoned.
    HideAbandoned,
    /// A receive buffer is not given back.
    KeepBuffer,
}

/// The first of these many chances is taken.
const CHANCE: u64 = 3;

/// Plants in the hooks.
#[derive(Debug)]
pub(crate) struct Planted {
    pub plant: Plant,
    chances: AtomicU64,
}

impl Planted {
    pub(crate) fn new(plant: Plant) -> Self {
        Planted { plant, chances: AtomicU64::new(0) }
    }

    fn strikes(&self, plant: Plant) -> bool {
        self.plant == plant && self.chances.fetch_add(1, Relaxed) + 1 == CHANCE
    }

    pub(crate) fn swallows_release(&self) -> bool {
        self.strikes(Plant::SwallowRelease)
    }

    pub(crate) fn swallows_done(&self) -> bool {
        self.strikes(Plant::SwallowDone)
    }
}

/// Plants on the way from the runtime to the network.
#[derive(Debug)]
pub(crate) struct Tamper {
    plant: Plant,
    done: bool,
    chances: u64,
    xids: HashSet<u32>,
    programs: HashMap<[u8; 16], u32>,
}

impl Tamper {
    pub(crate) fn new(plant: Plant) -> Self {
        Tamper { plant, done: false, chances: 0, xids: HashSet::new(), programs: HashMap::new() }
    }

    /// What the network gets instead of the buffer.
    pub(crate) fn tamper(&mut self, buf: SendBuf) -> SendBuf {
        let wire = matches!(self.plant, Plant::SkipSequenceId | Plant::AlterResend | Plant::OldProgram);
        if !wire || self.done {
            return buf;
        }
        let mut bytes = buf.unsent().to_vec();
        let mut at = 0;
        while let Some(mark) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let len = (u32::from_be_bytes(*mark) & 0x7fff_ffff) as usize;
            let Some(record) = bytes.get_mut(at + 4..at + 4 + len) else { break };
            self.record(record);
            at += 4 + len;
        }
        if self.done { SendBuf::shared(Box::new(bytes)) } else { buf }
    }

    fn record(&mut self, record: &mut [u8]) {
        let Ok(call) = Call::read(record) else { return };
        let (xid, id, at) = (call.header.xid, call.sequence.sequence_id, call.sequence_id_at);
        let (program, session, has_op) = (call.header.program, call.session(), !call.ops.is_empty());
        let plant = self.plant;
        match plant {
            _ if self.done => {}
            Plant::SkipSequenceId if id > 1 && self.strikes() => {
                record[at..at + 4].copy_from_slice(&(id + 1).to_be_bytes());
            }
            Plant::AlterResend if has_op && !self.xids.insert(xid) && self.strikes() => {
                // The cookie, in the first word of the arguments, has no high bits.
                let cookie_at = at + 4 * 6;
                record[cookie_at + 11] ^= 1;
            }
            Plant::OldProgram => {
                let first = *self.programs.entry(session).or_insert(program);
                if first != program && self.strikes() {
                    record[12..16].copy_from_slice(&first.to_be_bytes());
                }
            }
            _ => {}
        }
    }

    /// A receive buffer is not given back.
    pub(crate) fn keeps_buffer(&mut self) -> bool {
        self.plant == Plant::KeepBuffer && !self.done && self.strikes()
    }

    fn strikes(&mut self) -> bool {
        self.chances += 1;
        self.done = self.chances == CHANCE;
        self.done
    }
}
