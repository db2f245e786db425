//! Minor version 0: a callback path without sessions (RFC 7530 sections 3.3 and 10.4, callbacks in section 17).
//!
//! A *path* is what a confirmed SETCLIENTID says of its client's callback program. It is kept as a session is, with a
//! window of calls in the place of session slots: queues, timers, resends and verdicts are the same. What differs:
//!
//! - Nothing goes out on it until its client has answered CB_NULL, which a record of its own carries: there is never
//!   more than one out, it is settled once, and the verdict is the path's, which goes with it when a later SETCLIENTID
//!   replaces the parameters.
//! - The server makes the connection: [`poll_connect`](Backchannel::poll_connect) says when one is wanted.
//! - A call is one operation, without CB_SEQUENCE: only its xid tells it from others, and any reply settles it. After a
//!   reconnect the same call goes out again with the same xid, so that it is executed at least once.
//! - A run that is given up leaves nothing behind that would have to be resynchronised.

use super::calls::{Call, NO_CONN, State};
use super::config::{AddError, Credential};
use super::control::check_size;
use super::decode::{OpAnswer, answer_minor0};
use super::encode::{NotWritten, XID_AT, not_written, write_mark, write_op};
use super::host::{CallStep, Event, Host, Outcome, PathFault, Requeue, Sending};
use super::image::{ParametersImage, PathImage};
use super::path::Session;
use super::{Backchannel, ClientState, Handled, SESSIONS_MAX, SessionKey, Transmit};
use crate::message::RPC_VERSION;
use crate::nfs4::callback::{CB_COMPOUND, CB_NULL, CallbackOp, NFS_CB};
use crate::nfs4::{SessionId, Status};
use crate::record::LAST_FRAGMENT;
use crate::session::{RequesterSlots, SLOTS_MAX};
use crate::xdr::{XdrError, XdrErrorKind};

/// Largest request without its record mark. Minor version 0 negotiates none; the largest callback that it has is well
/// below, and a page is what Linux clients have room for.
const REQUEST_BYTES_MAX: usize = 4096;
/// Where in the head of a call the program number stands: after mark, xid, CALL and the RPC version.
const PROGRAM_AT: usize = 16;
/// The mark and the call of CB_NULL, with AUTH_NONE twice.
const PROBE_BYTES: usize = 4 + 40;
/// What stands before the credential in the head of a call, and after it.
const HEAD_BYTES_BEFORE: usize = 7 * 4;
const HEAD_BYTES_AFTER: usize = 6 * 4;
/// More doublings than any two of the waits are apart.
const LEVEL_MAX: u32 = 20;

/// What a client said about its callback program in a SETCLIENTID that it has confirmed (RFC 7530 sections 16.33 and
/// 16.34). The address is the driver's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathParams {
    /// Program number (cb_program).
    pub program: u32,
    /// Sent with each call (callback_ident): the client finds its server by it, and refuses any other.
    pub callback_ident: u32,
    /// The credential of the calls; CB_NULL has AUTH_NONE.
    pub credential: Credential,
    /// Most calls without an answer, 1 to [`SLOTS_MAX`].
    pub window: u32,
}

impl PathParams {
    /// Whether a path can have them, where there is room.
    pub(super) fn is_sound(&self) -> bool {
        (1..=SLOTS_MAX).contains(&self.window) && check_size(&encode_head(self), REQUEST_BYTES_MAX).is_ok()
    }

    /// Those that a head was made of.
    pub(super) fn of_head(head: &[u8], window: u32) -> Option<PathImage> {
        let word = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?));
        let after = head.len().checked_sub(HEAD_BYTES_AFTER)?;
        let credential = head.get(HEAD_BYTES_BEFORE..after)?.to_vec();
        let parameters = ParametersImage { program: word(PROGRAM_AT)?, credential };
        let callback_ident = word(head.len() - 8)?;
        Some(PathImage { key: SessionKey(0), parameters, callback_ident, window, bound: Vec::new() })
    }
}

/// What a path has that a session has not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Minor0 {
    dial: Dial,
    /// Connections that could not be made, or on which nothing was ever answered, since the last answer.
    failures: u32,
    /// Something was answered on the connection that it has.
    answered: bool,
}

/// Where the making of a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    Idle,
    /// The driver has been asked for one.
    Asked,
    /// A connection went without an answer; the time of that is not known yet.
    Lost,
    /// The last one failed. When to try again: while runs wait for it, and while none does.
    Waiting {
        busy_ns: u64,
        idle_ns: u64,
    },
}

/// Operations of minor version 0 (RFC 7530 section 17).
pub(super) const fn is_in_minor0(op: CallbackOp) -> bool {
    matches!(op, CallbackOp::Getattr | CallbackOp::Recall)
}

/// Everything of a call from the record mark to the number of operations, with mark and xid zero.
fn encode_head(params: &PathParams) -> Box<[u8]> {
    let mut head = Vec::with_capacity(96 + params.credential.bytes().len());
    let words = |head: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|value| head.extend_from_slice(&value.to_be_bytes()));
    };
    words(&mut head, &[0, 0, 0, RPC_VERSION, params.program, NFS_CB, CB_COMPOUND]);
    head.extend_from_slice(params.credential.bytes());
    // AUTH_NONE verifier; empty tag, minor version, callback_ident, one operation.
    words(&mut head, &[0, 0, 0, 0, params.callback_ident, 1]);
    head.into_boxed_slice()
}

impl Session {
    /// The record of CB_NULL stands behind those of the window.
    pub(super) fn probe_index(&self) -> Option<usize> {
        self.minor0.is_some().then_some((self.base + self.slots.count()) as usize)
    }

    /// Nobody knows yet whether the path works.
    pub(super) fn is_untested(&self) -> bool {
        self.held && self.refused.is_none() && self.minor0.is_some_and(|m| m.failures == 0 && m.dial != Dial::Lost)
    }

    /// That it is not usable is known: a session had a connection, a path had one that led to nothing.
    pub(super) fn has_failed(&self) -> bool {
        if self.minor0.is_some() { self.held && !self.is_untested() } else { self.ever_bound }
    }

    /// It has lost its last connection.
    pub(super) fn hung_up(&mut self) {
        if let Some(minor0) = &mut self.minor0 {
            // A client may close what it has not needed for long. What was never of use is a failure.
            minor0.dial = if minor0.answered { Dial::Idle } else { Dial::Lost };
            self.held |= !minor0.answered;
        }
    }

    /// Its connection is taken for dead.
    pub(super) fn fell_silent(&mut self) {
        if let Some(minor0) = &mut self.minor0 {
            minor0.answered = false;
        }
    }
}

impl Backchannel {
    /// SETCLIENTID_CONFIRM: the callback path of a client of minor version 0, in one piece. It takes the place of the path
    /// that the client had: what was sent there and not answered is sent once more here, and what is answered there is
    /// [`Late`](Handled::Late). The connections of the former path carry nothing any more.
    pub fn confirm_path(
        &mut self,
        now_ns: u64,
        key: SessionKey,
        params: &PathParams,
        host: &mut impl Host,
    ) -> Result<(), AddError> {
        if self.session_index(key).is_some() {
            return Err(AddError::KeyInUse);
        }
        let head = encode_head(params);
        check_size(&head, REQUEST_BYTES_MAX)?;
        if params.window == 0 || params.window > SLOTS_MAX {
            return Err(AddError::TooManySlots);
        }
        // Looked for among what will be left, so that a refusal changes nothing.
        let stays = |s: &&Session| s.minor0.is_none();
        let mut taken: Vec<_> = self.live_sessions().filter(stays).map(Session::records).collect();
        if taken.len() == SESSIONS_MAX {
            return Err(AddError::TooManySessions);
        }
        let base = self.calls.reserve(params.window + 1, &mut taken).ok_or(AddError::TooManySlots)?;
        let former: Vec<_> = self.live_sessions().filter(|s| s.minor0.is_some()).map(|s| s.key).collect();
        for key in former {
            self.take_session(now_ns, key, host);
        }
        let slots = RequesterSlots::new(params.window);
        let session = Session {
            minor_version: 0,
            held: true,
            minor0: Some(Minor0 { dial: Dial::Idle, failures: 0, answered: false }),
            ..Session::new(key, SessionId([0; 16]), base, slots, head, REQUEST_BYTES_MAX)
        };
        self.put_session(session);
        self.has_minor0 = true;
        self.unsupported |= CallbackOp::ALL.iter().filter(|op| !is_in_minor0(**op)).fold(0, |bits, op| bits | op.bit());
        self.update_path(host);
        Ok(())
    }

    /// Whether the client has had a path of minor version 0, so that [`poll_connect`](Self::poll_connect) is of use.
    pub fn has_minor0(&self) -> bool {
        self.has_minor0
    }

    /// The path for which a connection is wanted now. The driver makes one and then says [`bind`](Self::bind) or
    /// [`connect_failed`](Self::connect_failed), but not later than after a time of its own: the path is not asked for
    /// again before. To be called again after any call that takes a [`Host`], before
    /// [`poll_timeout`](Self::poll_timeout), until there is none.
    pub fn poll_connect(&mut self, now_ns: u64, host: &mut impl Host) -> Option<SessionKey> {
        for index in 0..self.sessions.len() {
            if self.sessions[index].as_ref().and_then(|s| s.minor0).is_some_and(|m| m.dial == Dial::Lost) {
                self.dial_failed(now_ns, index, host);
            }
            if self.dial_due_ns(index).is_some_and(|due| due <= now_ns)
                && let Some(session) = &mut self.sessions[index]
                && let Some(minor0) = &mut session.minor0
            {
                minor0.dial = Dial::Asked;
                return Some(session.key);
            }
        }
        None
    }

    /// The connection that [`poll_connect`](Self::poll_connect) asked for could not be made. Another will be wanted after a
    /// while: soon if runs wait for it, more and more seldom else.
    pub fn connect_failed(&mut self, now_ns: u64, key: SessionKey, host: &mut impl Host) {
        let Some(index) = self.session_index(key) else { return };
        if self.sessions[index].as_ref().and_then(|s| s.minor0).is_some_and(|m| m.dial == Dial::Asked) {
            self.dial_failed(now_ns, index, host);
        }
    }

    fn dial_failed<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        self.counters.connects_failed += 1;
        let Some(failures) = self.sessions[index].as_ref().and_then(|s| s.minor0).map(|m| m.failures) else { return };
        let busy_ns = now_ns.saturating_add(self.spread_ns(failures, self.config.backoff_ns_max));
        let idle_ns = now_ns.saturating_add(self.spread_ns(failures, self.config.lease_ns)).max(busy_ns);
        if let Some(session) = &mut self.sessions[index]
            && let Some(minor0) = &mut session.minor0
        {
            (minor0.failures, minor0.dial) = (failures.saturating_add(1), Dial::Waiting { busy_ns, idle_ns });
            session.held = true;
        }
        self.update_path(host);
    }

    /// A wait that doubles with each failure, with jitter.
    fn spread_ns(&mut self, level: u32, ns_max: u64) -> u64 {
        let wait_ns = self.config.backoff_ns_min.saturating_mul(1 << level.min(LEVEL_MAX)).min(ns_max);
        self.wheel.jitter(wait_ns)
    }

    /// When a connection is to be asked for. `None`: none is wanted.
    pub(super) fn dial_due_ns(&self, index: usize) -> Option<u64> {
        let session = self.sessions[index].as_ref()?;
        let minor0 = session.minor0?;
        if session.bound != 0 || session.draining || self.drain_ns.is_some() || self.client != ClientState::Active {
            return None;
        }
        // To look whether it works, for what is to be sent again, or for what has not been sent.
        let wanted = session.held || session.ready_count > 0 || !self.queues.is_empty();
        match minor0.dial {
            _ if !wanted => None,
            Dial::Idle => Some(0),
            Dial::Asked | Dial::Lost => None,
            Dial::Waiting { busy_ns, .. } if self.runs > 0 => Some(busy_ns),
            Dial::Waiting { idle_ns, .. } => Some(idle_ns),
        }
    }

    /// A path has a connection: what is not known to work is asked with CB_NULL.
    pub(super) fn bound_minor0(&mut self, index: usize) {
        let Some(session) = &mut self.sessions[index] else { return };
        let (Some(minor0), Some(probe)) = (&mut session.minor0, session.base.checked_add(session.slots.count())) else {
            return;
        };
        (minor0.dial, minor0.answered) = (Dial::Idle, false);
        if session.held {
            self.want_probe(index, probe as usize);
        }
    }

    fn want_probe(&mut self, session: usize, index: usize) {
        let call = self.calls.get_mut(index);
        if call.state == State::Free {
            let xid = call.xid;
            *call = Call { xid, session: session as u8, minor0: true, renew: true, ..Call::FREE };
        }
        if call.conn == NO_CONN {
            self.make_ready(index);
        }
    }

    /// Writes CB_NULL if it is to go out: it has AUTH_NONE whatever the credential of the calls.
    pub(super) fn transmit_probe(&mut self, now_ns: u64, at: usize, conn: usize, space: &mut [u8]) -> Transmit {
        let Some(session) = &self.sessions[at] else { return Transmit::Idle };
        let Some(index) = session.probe_index().filter(|i| self.calls.get(*i).state == State::Ready) else {
            return Transmit::Idle;
        };
        let Some(record) = space.get_mut(..PROBE_BYTES) else { return Transmit::NoSpace };
        let head = &session.versions[usize::from(session.current)].head;
        let program = [head[PROGRAM_AT], head[PROGRAM_AT + 1], head[PROGRAM_AT + 2], head[PROGRAM_AT + 3]];
        let program = u32::from_be_bytes(program);
        if core::mem::take(&mut self.calls.get_mut(index).renew) {
            let xid = self.calls.new_xid(index);
            self.calls.get_mut(index).xid = xid;
        }
        let xid = self.calls.get(index).xid;
        let mark = LAST_FRAGMENT | (PROBE_BYTES as u32 - 4);
        let words = [mark, xid, 0, RPC_VERSION, program, NFS_CB, CB_NULL, 0, 0, 0, 0];
        for (bytes, word) in record.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        let call = self.calls.get_mut(index);
        (call.conn, call.sent_ns) = (conn as u8, now_ns);
        self.counters.probes += 1;
        self.set_state(index, State::Sent);
        self.calls.wake_at(index, now_ns.saturating_add(self.config.rpc_timeout_ns));
        Transmit::Wrote(PROBE_BYTES)
    }

    /// Writes the call of record `index` with its mark.
    pub(super) fn write_minor0<H: Host>(
        &self,
        index: usize,
        space: &mut [u8],
        host: &mut H,
    ) -> Result<usize, NotWritten> {
        let call = self.calls.get(index);
        let Some(session) = &self.sessions[usize::from(call.session)] else { return Err(NotWritten::NoSpace) };
        let Some(token) = call.token else { return Err(NotWritten::NoSpace) };
        let head = &*session.versions[usize::from(call.version)].head;
        let limit = session.request_bytes_max + 4;
        let (short, len) = (space.len() < limit, limit.min(space.len()));
        let run = host.look(token);
        write_new_minor0(head, call.xid, &run, short, &mut space[..len], host)
    }

    /// The reply to the call, or the CB_NULL, in record `index`.
    pub(super) fn handle_minor0<H: Host>(&mut self, now_ns: u64, index: usize, record: &[u8], host: &mut H) -> Handled {
        let is_probe = is_probe(self.calls.get(index));
        let answer = answer_minor0(record, is_probe);
        if !is_probe {
            let status = match &answer {
                Ok(Ok(answer)) => Ok(answer.as_ref().map_or(Status::NFS4_OK, |a| a.status)),
                Ok(Err(fault)) => Err(fault.kind()),
                Err(_) => Err(PathFault::Malformed.kind()),
            };
            self.tell_step(index, || CallStep::Answered(status), host);
        }
        // Should it go on, this transmission of it is answered: a duplicate of the reply is late.
        self.calls.get_mut(index).conn = NO_CONN;
        match answer {
            Ok(verdict) => {
                self.counters.replies += 1;
                match verdict {
                    Ok(answer) => self.minor0_answered(now_ns, index, answer, host),
                    Err(fault) => self.minor0_refused(now_ns, index, fault, host),
                }
                Handled::Settled
            }
            Err(e) => {
                self.counters.replies_malformed += 1;
                self.minor0_malformed(now_ns, index, host);
                Handled::Malformed(e)
            }
        }
    }

    fn minor0_answered<H: Host>(&mut self, now_ns: u64, index: usize, answer: Option<OpAnswer<'_>>, host: &mut H) {
        let call = *self.calls.get(index);
        let at = usize::from(call.session);
        let Some(answer) = answer else {
            self.end_probe(index);
            return self.path_works(at, host);
        };
        let (Some(token), true) = (call.token, is_answer_to(&call, &answer)) else {
            self.counters.replies_malformed += 1;
            return self.minor0_malformed(now_ns, index, host);
        };
        self.release_slot(index);
        self.path_works(at, host);
        self.op_answered(now_ns, &call, token, &answer, host);
    }

    /// The client has answered: the path is up, whatever CB_NULL comes to.
    fn path_works<H: Host>(&mut self, at: usize, host: &mut H) {
        let Some(session) = &mut self.sessions[at] else { return };
        let Some(minor0) = &mut session.minor0 else { return };
        (minor0.failures, minor0.answered) = (0, true);
        if !session.held && session.refused.is_none() {
            return;
        }
        (session.held, session.refused) = (false, None);
        let probe = session.probe_index();
        if let Some(probe) = probe.filter(|i| self.calls.get(*i).conn == NO_CONN) {
            self.end_probe(probe);
        }
        self.update_path(host);
    }

    fn end_probe(&mut self, index: usize) {
        if self.calls.get(index).state != State::Free {
            self.set_state(index, State::Free);
            self.calls.get_mut(index).free();
        }
    }

    /// The RPC was rejected, or the compound has no results: for the run it is over, and with the same parameters others
    /// will not be better off.
    fn minor0_refused<H: Host>(&mut self, now_ns: u64, index: usize, fault: PathFault, host: &mut H) {
        self.counters.rejected += 1;
        let call = *self.calls.get(index);
        if call.token.is_some() {
            self.release_slot(index);
        }
        self.path_refused(now_ns, usize::from(call.session), fault, host);
        self.end_runs(now_ns, &call, &Outcome::Fault(fault), host);
    }

    /// The reply says nothing. The operations of minor version 0 can all be repeated.
    fn minor0_malformed<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let call = *self.calls.get(index);
        if call.token.is_some() {
            self.release_slot(index);
        }
        self.path_refused(now_ns, usize::from(call.session), PathFault::Malformed, host);
        if let Some(token) = call.token {
            self.delay(now_ns, token, None, Requeue::BadReply, host);
        }
    }

    /// The client refuses what is sent with the path's parameters. If that was CB_NULL it is asked again after a while:
    /// its callback service may have to be started.
    fn path_refused<H: Host>(&mut self, now_ns: u64, at: usize, fault: PathFault, host: &mut H) {
        let Some(session) = &mut self.sessions[at] else { return };
        let (key, first, probe) = (session.key, session.refused.is_none(), session.probe_index());
        // Somebody is there: the connection is not to blame, and each run gets a verdict of its own.
        (session.refused, session.held) = (Some(fault), false);
        let Some(minor0) = &mut session.minor0 else { return };
        minor0.answered = true;
        if first {
            host.event(Event::SessionFault { session: key, fault });
        }
        let unanswered = |i: &usize| {
            let call = self.calls.get(*i);
            call.state == State::Sent && call.conn == NO_CONN
        };
        if let Some(probe) = probe.filter(unanswered) {
            let level = u32::from(self.calls.get(probe).level);
            let ns_max = if self.runs > 0 { self.config.backoff_ns_max } else { self.config.lease_ns };
            let again_ns = now_ns.saturating_add(self.spread_ns(level, ns_max));
            let call = self.calls.get_mut(probe);
            (call.renew, call.level) = (true, call.level.saturating_add(1));
            self.set_state(probe, State::Backoff);
            self.calls.wake_at(probe, again_ns);
        }
        self.update_path(host);
    }

    /// Frees the record of CB_NULL with its path.
    pub(super) fn forget_probe(&mut self, session: &Session) {
        if let Some(index) = session.probe_index() {
            self.calls.get_mut(index).free();
        }
    }
}

/// Whether a call that is out is CB_NULL: a call that its run has left is not kept.
pub(super) const fn is_probe(call: &Call) -> bool {
    call.minor0 && call.token.is_none()
}

fn is_answer_to(call: &Call, answer: &OpAnswer<'_>) -> bool {
    answer.op == call.op as u32 || answer.op == CallbackOp::Illegal as u32
}

/// Writes a call with its mark. `short`: there could be more space.
#[cold]
pub(super) fn write_new_minor0<H: Host>(
    head: &[u8],
    xid: u32,
    run: &Sending<H::Known>,
    short: bool,
    space: &mut [u8],
    host: &mut H,
) -> Result<usize, NotWritten> {
    if !is_in_minor0(run.op) {
        return Err(NotWritten::Failed(run.token, not_in_minor0(run.op)));
    }
    let Some((fixed, rest)) = space.split_at_mut_checked(head.len()) else { return Err(NotWritten::NoSpace) };
    fixed.copy_from_slice(head);
    fixed[XID_AT..XID_AT + 4].copy_from_slice(&xid.to_be_bytes());
    let len = head.len() + write_op(run, rest, host).map_err(|e| not_written(run.token, short, e))?;
    write_mark(&mut space[..len]);
    Ok(len)
}

fn not_in_minor0(op: CallbackOp) -> XdrError {
    let kind = XdrErrorKind::BadValue { value: op as u64 };
    XdrError { what: "operation of minor version 0", offset: 0, kind }
}
