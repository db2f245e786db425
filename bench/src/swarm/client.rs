//! One client's protocol state, sans-IO: records and the time come in, records go out.

use super::callback::{BackChannel, Host};
use super::config::{Behaviour, SwarmConfig};
use super::fore::{Caller, File, ForeChannel, Work};
use super::opens::Opens;
use super::outgoing::Outgoing;
use super::parameters::Parameters;
use super::returns::ReturnQueue;
use super::setup::{self, Step};
use super::tally::{Delegations, Tally};
use ringback_rpc::message::{AcceptStatus, MessageType, ReplyBody, ReplyHeader, peek};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::fore::{BindConnToSessionOk, BoundDirection, CompoundRes, OpRes};
use ringback_rpc::xdr::{Decode, Reader, Writer};

/// How long a call waits that the server delayed: what the Linux client begins with.
pub(crate) const DELAY_NS: u64 = 100_000_000;

/// What a client works with in one turn, besides its own state.
pub(crate) struct Turn<'a> {
    pub(crate) now_ns: u64,
    pub(crate) config: &'a SwarmConfig,
    pub(crate) tally: &'a mut Tally,
    /// Of this client's connection.
    pub(crate) out: &'a mut Outgoing,
}

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No connection yet.
    New,
    /// Being set up.
    Step(Step),
    /// Has a session and a connection bound to it.
    Ready,
    /// Has a session, and no connection.
    Unbound,
    /// Gave up; says why in [`Tally::failures`].
    Failed,
    /// The session and the client id are destroyed.
    Gone,
}

/// What a client does for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Opens for reading and holds delegations.
    Holder,
    /// Opens for writing, so that the server recalls.
    Trigger,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) index: u32,
    pub(crate) role: Role,
    pub(crate) behaviour: Behaviour,
    pub(crate) stage: Stage,
    /// The call without a session slot that is outstanding: its xid and when to repeat it.
    pub(crate) alone: Option<u32>,
    pub(crate) repeat_ns: Option<u64>,
    pub(crate) caller: Caller,
    pub(crate) fore: ForeChannel,
    pub(crate) back: BackChannel,
    pub(crate) id: setup::Identity,
    pub(crate) opens: Opens,
    /// Opens for write that have no final answer yet.
    pub(crate) writes: usize,
    /// BACKCHANNEL_CTL is to be sent, and has not been answered.
    pub(crate) control_due: bool,
    pub(crate) control_out: bool,
    pub(crate) delegations: Delegations,
    pub(crate) returns: ReturnQueue,
    /// Nothing is returned before, because the server said NFS4ERR_DELAY.
    pub(crate) returns_after_ns: u64,
    /// Whether the recall phase has begun.
    pub(crate) recalls_begun: bool,
    /// CB_RECALLs seen since then.
    pub(crate) recalls_seen: u64,
    /// Delegations neither done with nor given up.
    pub(crate) left: u64,
    /// Last time that a call renewed the lease.
    renewed_ns: u64,
}

impl Client {
    /// A client that has yet to connect.
    pub(crate) fn new(index: u32, role: Role, config: &SwarmConfig, incarnation: u64) -> Self {
        Client {
            index,
            role,
            behaviour: config.behaviour(index),
            stage: Stage::New,
            alone: None,
            repeat_ns: None,
            caller: Caller::new(Parameters::new(index, config).credential()),
            fore: ForeChannel::default(),
            back: BackChannel::default(),
            id: setup::Identity::new(index, config, incarnation),
            opens: Opens::default(),
            writes: 0,
            control_due: false,
            control_out: false,
            delegations: Delegations::default(),
            returns: ReturnQueue::default(),
            returns_after_ns: 0,
            recalls_begun: false,
            recalls_seen: 0,
            left: 0,
            renewed_ns: 0,
        }
    }

    /// How the client behaves now.
    pub(crate) fn behaves(&self) -> Behaviour {
        if self.recalls_begun { self.behaviour } else { Behaviour::Normal }
    }

    /// Whether nothing is under way: no call, no open and no return that waits.
    pub(crate) fn is_idle(&self) -> bool {
        let nothing_due = self.returns.is_empty() && self.writes == 0 && !self.control_due;
        self.fore.busy() == 0 && self.opens.is_done() && nothing_due
    }

    /// The connection is up, for the first time or again.
    pub(crate) fn connected(&mut self, turn: &mut Turn<'_>) {
        let step = if self.stage == Stage::New { Step::ExchangeId } else { Step::Bind };
        self.begin(step, turn);
    }

    /// The connection is gone. What was outstanding keeps its session slots.
    pub(crate) fn disconnected(&mut self, tally: &mut Tally) {
        self.alone = None;
        self.repeat_ns = None;
        self.back.disconnected();
        match self.stage {
            Stage::Ready | Stage::Step(Step::Bind) => self.stage = Stage::Unbound,
            Stage::Step(Step::DestroySession | Step::DestroyClientId) => self.stage = Stage::Gone,
            Stage::Step(_) => self.fail("the connection broke during set-up".into(), tally),
            _ => {}
        }
    }

    /// Gives up.
    pub(crate) fn fail(&mut self, reason: String, tally: &mut Tally) {
        if self.stage == Stage::Failed {
            return;
        }
        self.stage = Stage::Failed;
        tally.failures.push(format!("client {}: {reason}", self.index));
        *tally.left_mut(self.behaviour) -= self.left;
        self.left = 0;
    }

    /// Handles one record.
    pub(crate) fn record(&mut self, record: &[u8], turn: &mut Turn<'_>) {
        match peek(record) {
            Ok((_, MessageType::Call)) => self.call(record, turn),
            Ok((xid, MessageType::Reply)) => self.reply(xid, record, turn),
            Err(_) => turn.tally.malformed += 1,
        }
    }

    fn call(&mut self, record: &[u8], turn: &mut Turn<'_>) {
        let mut first_recalls = 0;
        let mut host = Host {
            now_ns: turn.now_ns,
            behaviour: self.behaves(),
            slow_delay_ns: turn.config.slow_delay.as_nanos() as u64,
            return_delegations: turn.config.return_delegations,
            fore: &self.fore,
            delegations: &mut self.delegations,
            returns: &mut self.returns,
            tally: turn.tally,
            counted_as: self.behaviour,
            first_recalls: &mut first_recalls,
            recalls_seen: &mut self.recalls_seen,
        };
        self.back.call(record, &mut host, turn.out);
        if !turn.config.return_delegations {
            self.done_with(first_recalls, turn.tally);
        }
    }

    /// Counts delegations as done with.
    pub(crate) fn done_with(&mut self, delegations: u64, tally: &mut Tally) {
        let delegations = delegations.min(self.left);
        self.left -= delegations;
        *tally.left_mut(self.behaviour) -= delegations;
    }

    fn reply(&mut self, xid: u32, record: &[u8], turn: &mut Turn<'_>) {
        let mut r = Reader::new(record);
        let slot = self.fore.find(xid);
        if slot.is_none() && self.alone != Some(xid) {
            turn.tally.unknown_xid += 1;
            return;
        }
        let decoded = ReplyHeader::decode(&mut r).map(|reply| match reply.body {
            ReplyBody::Accepted { status: AcceptStatus::Success, .. } => Ok(CompoundRes::decode(&mut r)),
            refused => Err(refused),
        });
        let compound = match decoded {
            Ok(Ok(Ok(compound))) => compound,
            Ok(Err(refused)) => return self.fail(format!("the server refused a call: {refused:?}"), turn.tally),
            Err(e) | Ok(Ok(Err(e))) => {
                turn.tally.malformed += 1;
                return self.fail(format!("the server sent a reply that cannot be decoded: {e}"), turn.tally);
            }
        };
        self.renewed_ns = turn.now_ns;
        let mut results = Results { r, left: compound.count, broken: false };
        match slot {
            Some(index) => self.slot_reply(index, compound.status, &mut results, turn),
            None => {
                self.alone = None;
                self.step_reply(compound.status, &mut results, turn);
            }
        }
        turn.tally.malformed += u64::from(results.broken);
    }

    fn slot_reply(&mut self, index: usize, status: Status, results: &mut Results<'_>, turn: &mut Turn<'_>) {
        let sequence = match results.next() {
            Some(OpRes::Sequence(Ok(sequence))) if self.fore.echoes(index, &sequence) => sequence,
            Some(OpRes::Sequence(Err(Status::NFS4ERR_DELAY))) => {
                turn.tally.error(Status::NFS4ERR_DELAY);
                return self.fore.delay(index, turn.now_ns + DELAY_NS);
            }
            Some(OpRes::Sequence(Ok(_))) => {
                return self.fail("SEQUENCE echoes another session slot".into(), turn.tally);
            }
            Some(OpRes::Sequence(Err(status))) => {
                turn.tally.error(status);
                return self.fail(format!("SEQUENCE failed with {status}"), turn.tally);
            }
            _ => return self.fail(format!("a compound without a result of SEQUENCE, {status}"), turn.tally),
        };
        turn.tally.sequence_flags |= sequence.status_flags;
        let Some(work) = self.fore.settle(index, &sequence) else {
            return;
        };
        match work {
            Work::Open(file) => self.opened(file, results, turn),
            Work::Write(file) => self.wrote(file, results, turn),
            Work::Return(back) => self.returned(back, results, turn),
            Work::Reclaim => self.reclaimed(results, turn),
            Work::Directory => self.found_directory(results, turn),
            Work::Control(generation) => self.controlled(generation, results, turn),
            Work::Renew => {}
        }
    }

    /// Starts what there is to do, as far as session slots go.
    pub(crate) fn pump(&mut self, turn: &mut Turn<'_>) {
        if self.stage != Stage::Ready {
            return;
        }
        if self.control_due && !self.control_out && self.fore.has_room() {
            self.start_control(turn);
        }
        while self.fore.has_room() {
            let may_return = self.returns_after_ns <= turn.now_ns;
            if let Some(back) = may_return.then(|| self.returns.pop()).flatten() {
                self.start_return(back, turn);
            } else if let Some((file, write)) = self.next_open(turn) {
                self.start_open(file, write, turn);
            } else {
                return;
            }
        }
    }

    fn next_open(&mut self, turn: &Turn<'_>) -> Option<(File, bool)> {
        if self.role == Role::Holder {
            return Some((self.opens.next(turn.now_ns, true)?, false));
        }
        let more = self.writes < turn.config.trigger_window as usize;
        let left = self.opens.left();
        let file = self.opens.next(turn.now_ns, more)?;
        // One that is opened once more is in the window already.
        self.writes += usize::from(self.opens.left() < left);
        Some((file, true))
    }

    /// What is due by the clock.
    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        if self.behaves() == Behaviour::Dead || matches!(self.stage, Stage::Failed | Stage::Gone) {
            return;
        }
        if self.repeat_ns.is_some_and(|at| at <= turn.now_ns)
            && let Stage::Step(step) = self.stage
        {
            self.begin(step, turn);
        }
        if !matches!(self.stage, Stage::Ready | Stage::Step(_)) {
            return;
        }
        self.back.release(turn.now_ns, Some(turn.out));
        self.fore.resend_delayed(turn.now_ns, turn.out);
        if self.stage != Stage::Ready {
            return;
        }
        self.pump(turn);
        if self.fore.busy() == 0 && turn.now_ns.saturating_sub(self.renewed_ns) >= self.id.renew_ns {
            self.start(Work::Renew, 0, turn, |_| Ok(()));
        }
    }

    /// Starts a call on a session slot.
    pub(crate) fn start(
        &mut self,
        work: Work,
        count: usize,
        turn: &mut Turn<'_>,
        operations: impl FnOnce(&mut Writer<'_>) -> ringback_rpc::xdr::Result<()>,
    ) {
        match self.fore.start(work, &mut self.caller, turn.out, count, operations) {
            Ok(started) => debug_assert!(started, "a call starts only where there is room"),
            Err(e) => self.fail(format!("a call does not fit: {e}"), turn.tally),
        }
    }

    /// The session is bound to a new connection: what was outstanding is sent again.
    pub(crate) fn bound(&mut self, ok: &BindConnToSessionOk, turn: &mut Turn<'_>) {
        if ok.session_id != self.fore.session_id() || ok.direction != BoundDirection::Both {
            return self.fail(format!("BIND_CONN_TO_SESSION bound {:?} only", ok.direction), turn.tally);
        }
        self.stage = Stage::Ready;
        self.fore.resend_all(turn.out);
        self.control_due = true;
    }
}

/// The results of one reply, read one by one.
pub(crate) struct Results<'a> {
    r: Reader<'a>,
    left: usize,
    broken: bool,
}

impl<'a> Results<'a> {
    /// The next result; `None` after the last, or where one cannot be decoded.
    pub(crate) fn next(&mut self) -> Option<OpRes<'a>> {
        self.left = self.left.checked_sub(1)?;
        let result = OpRes::decode(&mut self.r).ok();
        if result.is_none() {
            (self.left, self.broken) = (0, true);
        }
        result
    }
}
