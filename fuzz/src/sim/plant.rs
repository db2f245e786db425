//! Faults planted on purpose, to show that the checkers find them.

use super::call::Call;
use ringback::Upgrade;
use ringback::simulator::SendBuf;
use ringback::simulator::upgrade::{self, Spoil};
use ringback_rpc::nfs4::callback::{CB_COMPOUND, CB_NULL};
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
    /// A receive buffer is given back twice.
    RecycleTwice,
    /// The hooks of a run are called on another reactor.
    StrayReactor,
    /// A `prepare` gets lost.
    SwallowPrepare,
    /// `try_run` answers that a run which it began is an older one.
    TwistAnswer,
    /// A run ends as one that `prepare` refused.
    TwistOutcome,
    /// The runtime takes a run deadline for eight times as long.
    StretchDeadline,
    /// A call asks the client to cache its answer.
    CacheThis,
    /// Who waits for a run is not woken.
    MuffleWaiter,
    /// A fore-channel call gets the answer to another one.
    SwapAnswer,
    /// A recall is told as overdue twice.
    RepeatOverdue,
    /// A recall that is overdue is not told.
    SwallowOverdue,
    /// What a callback depends on gets lost on the way to the runtime.
    SwallowReferring,
    /// A completion is taken off its queue twice.
    RepeatCompletion,
    /// A call goes out on a slot that the client has given up.
    SlotGivenUp,
    /// A call of minor version 0 carries another callback_ident.
    WrongIdent,
    /// A call of minor version 0 carries another credential.
    WrongStamp,
    /// A call of minor version 0 that is sent again carries other bytes.
    AlterResend0,
    /// A CB_NULL that is sent again is another one.
    SecondProbe,
    /// The server connects to an address that was never confirmed.
    ConnectElsewhere,
    /// A hook panics, which the runtime contains.
    PanicInHook,
    /// A reactor panics.
    PanicInReactor,
    /// A client is said to be where it is not.
    MisplaceClient,
    /// Who waits for a group is not woken.
    MuffleGroup,
    /// A group counts what was returned as failed.
    TwistGroup,
    /// A group is settled before its last member is.
    HastenGroup,
    /// The runtime takes the limit of calls of a tenant for four times as much.
    LooseCalls,
    /// The runtime takes the rate of a tenant for twenty times as much.
    LooseRate,
    /// A tenant is said to have a callback more than it has.
    MiscountTenant,
    /// In an upgrade, sequence ids of session slots go over too small by one.
    EarlierIds,
    /// What was received and not handled gets lost in an upgrade.
    LoseUnread,
    /// A run gets lost in an upgrade.
    ForgetRun,
    /// The old process goes on, though it has handed over.
    BothServe,
}

impl Plant {
    /// Whether it needs a client of minor version 0, of which small simulations have none.
    pub fn is_minor0(self) -> bool {
        use Plant::*;
        matches!(self, WrongIdent | WrongStamp | AlterResend0 | SecondProbe | ConnectElsewhere)
    }

    /// Whether it needs a tenant, of which small simulations have none.
    pub fn is_of_tenants(self) -> bool {
        matches!(self, Plant::LooseCalls | Plant::LooseRate | Plant::MiscountTenant)
    }

    /// Whether it needs an upgrade.
    pub fn is_of_upgrades(self) -> bool {
        matches!(self, Plant::EarlierIds | Plant::LoseUnread | Plant::ForgetRun | Plant::BothServe)
    }

    /// What is wrong with what comes to the next process.
    pub(crate) fn spoil(self, upgrade: &mut Upgrade) {
        let what = match self {
            Plant::EarlierIds => Spoil::SequenceIds,
            Plant::LoseUnread => Spoil::Unread,
            Plant::ForgetRun => Spoil::Run,
            _ => return,
        };
        upgrade::spoil(upgrade, what).expect("it is as valid as it was");
    }

    /// What a run deadline is multiplied by.
    pub(crate) fn stretch(self) -> u64 {
        if self == Plant::StretchDeadline { 8 } else { 1 }
    }
}

/// More slots than the clients of the simulation have.
const MANY_SLOTS: u32 = 1000;

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

    /// Whether this is the chance that the plant takes.
    pub(crate) fn strikes(&self, plant: Plant) -> bool {
        self.plant == plant && self.chances.fetch_add(1, Relaxed) + 1 == CHANCE
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
        use Plant::*;
        let wire = matches!(self.plant, SkipSequenceId | AlterResend | OldProgram | CacheThis | SlotGivenUp)
            || self.plant.is_minor0();
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

    /// A record of minor version 0.
    fn record0(&mut self, record: &mut [u8]) {
        let word = |at: usize| record.get(at..at + 4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
        // A call (RFC 5531 section 9): xid, CALL, RPC version, program, version, procedure; credential, verifier.
        let (Some(xid), Some(0), Some(procedure), Some(body)) = (word(0), word(4), word(20), word(28)) else { return };
        // Behind them tag and minor version, then callback_ident, the number of operations, the operation, its arguments.
        let ident_at = 32 + body as usize + 8 + 8;
        let again = !self.xids.insert(xid);
        match (self.plant, procedure) {
            _ if self.done => {}
            (Plant::SecondProbe, CB_NULL) if again && self.strikes() => record[2] ^= 0x40,
            (Plant::WrongIdent, CB_COMPOUND) if word(ident_at - 4) == Some(0) && self.strikes() => {
                record[ident_at + 3] ^= 1;
            }
            (Plant::WrongStamp, CB_COMPOUND) if word(ident_at - 4) == Some(0) && self.strikes() => record[35] ^= 1,
            // The number of the run follows the cookie of eight bytes.
            (Plant::AlterResend0, CB_COMPOUND) if again && word(ident_at - 4) == Some(0) && self.strikes() => {
                record[ident_at + 12 + 8] ^= 1;
            }
            _ => {}
        }
    }

    fn record(&mut self, record: &mut [u8]) {
        if self.plant.is_minor0() {
            return self.record0(record);
        }
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
            // csa_slotid and csa_highest_slotid follow csa_sequenceid: as if slots were there that are not any more.
            Plant::SlotGivenUp if self.strikes() => {
                for word in [at + 4, at + 8] {
                    record[word..word + 4].copy_from_slice(&MANY_SLOTS.to_be_bytes());
                }
            }
            // csa_cachethis comes three words behind csa_sequenceid.
            Plant::CacheThis if self.strikes() => record[at + 15] = 1,
            Plant::OldProgram => {
                let first = *self.programs.entry(session).or_insert(program);
                if first != program && self.strikes() {
                    record[12..16].copy_from_slice(&first.to_be_bytes());
                }
            }
            _ => {}
        }
    }

    /// It is to be connected to another address.
    pub(crate) fn connects_elsewhere(&mut self) -> bool {
        self.plant == Plant::ConnectElsewhere && !self.done && self.strikes()
    }

    /// A receive buffer is not given back.
    pub(crate) fn keeps_buffer(&mut self) -> bool {
        self.plant == Plant::KeepBuffer && !self.done && self.strikes()
    }

    /// The reactor does not survive the giving back of a receive buffer.
    pub(crate) fn panics(&mut self) -> bool {
        self.plant == Plant::PanicInReactor && !self.done && self.strikes()
    }

    /// A receive buffer is given back twice.
    pub(crate) fn recycles_twice(&mut self) -> bool {
        self.plant == Plant::RecycleTwice && !self.done && self.strikes()
    }

    fn strikes(&mut self) -> bool {
        self.chances += 1;
        self.done = self.chances == CHANCE;
        self.done
    }
}
