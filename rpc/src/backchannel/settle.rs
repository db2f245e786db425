//! What a reply does: one function for each row of the outcome table, and the ways a session slot is settled.
//!
//! Only CB_SEQUENCE's own status settles a slot (RFC 8881 section 2.10.6.1): NFS4_OK moves its sequence id on, an error
//! leaves it. Once any transmission of a call got no answer (`Call::unknown`), an error that a retry gets no longer
//! proves that the call was not executed, and the slot is quarantined instead of freed.

use super::batch::is_too_large;
use super::calls::{Call, Found, NO_CONN, Runs, State};
use super::decode::{Answer, Echo, OpAnswer, Results, any, usual};
use super::host::{CallStep, Event, Host, Outcome, PathFault, PathFaultKind, Requeue, Token, is_repeatable};
use super::path::Session;
use super::timeout::NOTE_ALONE;
use super::{Backchannel, ConnToken, Handled};
use crate::message::{MessageType, peek};
use crate::nfs4::Status;
use crate::nfs4::callback::CallbackOp;
use crate::session::SlotId;
use crate::xdr::{XdrError, XdrErrorKind};

/// When a run is to be sent again.
#[derive(Clone, Copy)]
pub(super) enum When {
    Now,
    Backoff,
    After(u64),
}

impl Backchannel {
    /// A REPLY record (without its mark) came in on this connection.
    pub fn handle_record(&mut self, now_ns: u64, conn: ConnToken, record: &[u8], host: &mut impl Host) -> Handled {
        self.handle_records(now_ns, conn, &mut core::iter::once(record), host).unwrap_or(Handled::Settled)
    }

    /// As [`handle_record`](Self::handle_record) for each of `records`, which came in together, until one of them settles no
    /// call: what that was. `None`: there are no more. What is the same for all of them is looked up once.
    #[inline]
    pub fn handle_records<'a>(
        &mut self,
        now_ns: u64,
        conn: ConnToken,
        records: &mut impl Iterator<Item = &'a [u8]>,
        host: &mut impl Host,
    ) -> Option<Handled> {
        let conn = self.conn_index(conn);
        let Some((conn_index, conn)) = conn.and_then(|i| self.conns[i].as_mut().map(|c| (i, c))) else {
            records.next()?;
            self.counters.replies_late += 1;
            return Some(Handled::Late);
        };
        conn.heard_ns = now_ns;
        for record in records {
            if !self.settle_usual(now_ns, conn_index, record, host) {
                let handled = self.handle_any(now_ns, conn_index, record, host);
                if handled != Handled::Settled {
                    return Some(handled);
                }
            }
        }
        None
    }

    /// What nearly every reply does: the one run of its call is answered with NFS4_OK, and nothing else is to be seen to.
    /// `false`: it is not as simple as that, and nothing was done. Not inlined: with registers of its own it takes fewer
    /// instructions.
    #[inline(never)]
    fn settle_usual<H: Host>(&mut self, now_ns: u64, conn: usize, record: &[u8], host: &mut H) -> bool {
        let Some((xid, echo, mut results)) = usual(record) else { return false };
        let Some(OpAnswer { op, status: Status::NFS4_OK, results }) = results.next() else { return false };
        let Some((index, call)) = self.calls.out_on(xid, conn) else { return false };
        let (Some(token), false, false) = (call.token, call.is_batch(), call.minor0) else { return false };
        let Some(Some(session)) = self.sessions.get_mut(usize::from(call.session)) else { return false };
        let slot = SlotId(index as u32 - session.base);
        let others = self.has_retired || session.refused.is_some() || session.higher_busy_count > 0;
        if !session.is_echoed(slot, &echo) || op != call.op as u32 || others || host.watches() {
            return false;
        }
        if !session.slots.advance_from(slot, echo.sequence_id) {
            return false;
        }
        session.slots.limits(echo.highest, echo.target_highest);
        session.unpin(call);
        call.free();
        self.counters.replies += 1;
        let session = call.session;
        self.run_ok(now_ns, session, token, results, host);
        true
    }

    /// A run of this session is answered with NFS4_OK. Not inlined either.
    #[inline(never)]
    pub(super) fn run_ok<H: Host>(&mut self, now_ns: u64, session: u8, token: Token, results: &[u8], host: &mut H) {
        let outcome = Outcome::Replied { status: Status::NFS4_OK, results };
        match host.done(token, &outcome) {
            None => {
                self.runs -= 1;
                self.counters.count_ending(&outcome);
            }
            Some(delay_ns) => {
                let call = Call { session, op: host.op(token), ..Call::FREE };
                self.send_again(now_ns, &call, token, Requeue::Asked, When::After(delay_ns), host);
            }
        }
    }

    #[inline(never)]
    fn handle_any<H: Host>(&mut self, now_ns: u64, conn: usize, record: &[u8], host: &mut H) -> Handled {
        let xid = match peek(record) {
            Ok((xid, MessageType::Reply)) => xid,
            Ok((_, MessageType::Call)) => return self.malformed(not_a_reply()),
            Err(e) => return self.malformed(e),
        };
        let index = match self.calls.find(xid) {
            Found::Out(index) if usize::from(self.calls.get(index).conn) == conn => index,
            Found::Out(_) | Found::Late => {
                self.counters.replies_late += 1;
                return Handled::Late;
            }
            Found::Unknown => {
                self.counters.replies_unknown += 1;
                return Handled::UnknownXid;
            }
        };
        if self.calls.get(index).minor0 {
            return self.handle_minor0(now_ns, index, record, host);
        }
        let handled = match usual(record) {
            Some((_, echo, results)) => {
                self.tell_step(index, || CallStep::Answered(Ok(Status::NFS4_OK)), host);
                self.counters.replies += 1;
                self.taken(now_ns, index, echo, results, host);
                Handled::Settled
            }
            None => self.unusual(now_ns, index, record, host),
        };
        // Should the call go on, this transmission of it is answered: a duplicate of the reply is late.
        self.calls.get_mut(index).conn = NO_CONN;
        if self.has_retired {
            self.fault_slotless(host);
        }
        handled
    }

    #[cold]
    fn unusual<H: Host>(&mut self, now_ns: u64, index: usize, record: &[u8], host: &mut H) -> Handled {
        let answer = any(record);
        self.tell_step(index, || CallStep::Answered(sequence_status(&answer)), host);
        match answer {
            Ok(answer) => {
                self.counters.replies += 1;
                self.settle(now_ns, index, answer, host);
                Handled::Settled
            }
            Err(e) => {
                self.bad_reply(now_ns, index, PathFault::Malformed, host);
                self.malformed(e)
            }
        }
    }

    #[cold]
    fn malformed(&mut self, e: XdrError) -> Handled {
        self.counters.replies_malformed += 1;
        Handled::Malformed(e)
    }

    fn settle<H: Host>(&mut self, now_ns: u64, index: usize, answer: Answer<'_>, host: &mut H) {
        match answer {
            Answer::Taken(echo, results) => self.taken(now_ns, index, echo, results, host),
            Answer::Refused(fault) => self.refused(now_ns, index, fault, host),
            Answer::Sequence(status) => match status {
                Status::NFS4ERR_DELAY => self.sequence_delayed(now_ns, index),
                Status::NFS4ERR_BADSESSION => self.bad_session(now_ns, index, host),
                Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION => self.not_bound(now_ns, index, host),
                Status::NFS4ERR_BAD_HIGH_SLOT => self.bad_high_slot(now_ns, index, host),
                Status::NFS4ERR_BADSLOT => self.slot_lost(now_ns, index, host),
                Status::NFS4ERR_SEQ_MISORDERED => {
                    self.counters.misordered += 1;
                    self.slot_lost(now_ns, index, host);
                }
                Status::NFS4ERR_SEQ_FALSE_RETRY => self.false_retry(now_ns, index, host),
                Status::NFS4ERR_RETRY_UNCACHED_REP => self.uncached(now_ns, index, host),
                other => self.sequence_failed(now_ns, index, other, host),
            },
        }
    }

    /// CB_SEQUENCE was answered with NFS4_OK.
    fn taken<H: Host>(&mut self, now_ns: u64, index: usize, echo: Echo, mut results: Results<'_>, host: &mut H) {
        let call = *self.calls.get(index);
        let Some(session) = &mut self.sessions[usize::from(call.session)] else { return };
        let slot = SlotId(index as u32 - session.base);
        if !session.is_echoed(slot, &echo) || echo.sequence_id != session.slots.id(slot) {
            self.counters.wrong_echo += 1;
            return self.bad_reply(now_ns, index, PathFault::WrongEcho, host);
        }
        session.slots.limits(echo.highest, echo.target_highest);
        let accepts_again = session.refused.is_some() && call.version == session.current;
        if accepts_again {
            session.refused = None;
        }
        if session.higher_busy_count > 0 {
            self.cap_higher_busy(usize::from(call.session));
        }
        self.tell_step(index, || CallStep::SlotFreed, host);
        self.advance_slot(index);
        if accepts_again {
            self.update_path(host);
        }
        let Some(token) = call.token else { return };
        if call.is_batch() {
            return self.batch_answered(now_ns, &call, results, host);
        }
        match results.next() {
            Some(answer) if answer.op == call.op as u32 || answer.op == CallbackOp::Illegal as u32 => {
                self.op_answered(now_ns, &call, token, &answer, host);
            }
            _ => self.garbled(now_ns, &call, call.runs(), host),
        }
    }

    /// Whatever the client says now: as long as the higher slots are used again and again, the calls that wait for them
    /// would wait.
    #[cold]
    fn cap_higher_busy(&mut self, at: usize) {
        let Some(session) = &mut self.sessions[at] else { return };
        let mut slots = (0..session.slots.count()).map(SlotId);
        let waits = |slot: &SlotId| self.calls.get(session.call_index(*slot)).state == State::HigherBusy;
        if let Some(slot) = slots.find(waits) {
            session.slots.cap(slot);
        }
    }

    /// The results of these runs are missing, malformed or those of other operations.
    pub(super) fn garbled<H: Host>(&mut self, now_ns: u64, call: &Call, runs: Runs, host: &mut H) {
        self.counters.replies_malformed += 1;
        self.fault_session(usize::from(call.session), PathFault::Malformed, host);
        self.results_lost(now_ns, call, runs, When::Backoff, host);
    }

    pub(super) fn op_answered<H: Host>(
        &mut self,
        now_ns: u64,
        call: &Call,
        token: Token,
        answer: &OpAnswer<'_>,
        host: &mut H,
    ) {
        match answer.status {
            Status::NFS4ERR_DELAY => {
                self.counters.delays += 1;
                host.set_note(token, host.note(token) | NOTE_ALONE);
                self.send_again(now_ns, call, token, Requeue::Delay, When::Backoff, host);
            }
            Status::NFS4ERR_RETRY_UNCACHED_REP => {
                // To a first transmission it is nonsense, and must not make a loop.
                let when = if call.unknown { When::Now } else { When::Backoff };
                self.result_lost(now_ns, call, token, when, host);
            }
            status => {
                if status == Status::NFS4ERR_NOTSUPP {
                    self.unsupported |= call.op.bit();
                }
                self.end_run(now_ns, call, token, &Outcome::Replied { status, results: answer.results }, host);
            }
        }
    }

    /// The client has taken the operations of these runs, and their results are lost.
    pub(super) fn results_lost<H: Host>(&mut self, now_ns: u64, call: &Call, runs: Runs, when: When, host: &mut H) {
        let mut runs = runs.reversed(host);
        while let Some(token) = runs.next(host) {
            self.result_lost(now_ns, &call.of_run(token, host), token, when, host);
        }
    }

    /// The client has executed the operation, and its result is lost.
    fn result_lost<H: Host>(&mut self, now_ns: u64, call: &Call, token: Token, when: When, host: &mut H) {
        if is_repeatable(call.op) {
            self.send_again(now_ns, call, token, Requeue::UncachedReply, when, host);
        } else {
            self.end_run(now_ns, call, token, &Outcome::DeliveredUnknown, host);
        }
    }

    /// Tells the driver how the run went; it may ask for another transmission.
    #[inline(never)]
    pub(super) fn end_run<H: Host>(
        &mut self,
        now_ns: u64,
        call: &Call,
        token: Token,
        outcome: &Outcome<'_>,
        host: &mut H,
    ) {
        match host.done(token, outcome) {
            Some(delay_ns) if outcome.may_requeue() => {
                self.send_again(now_ns, call, token, Requeue::Asked, When::After(delay_ns), host);
            }
            _ => {
                self.runs -= 1;
                self.counters.count_ending(outcome);
            }
        }
    }

    /// As [`end_run`](Self::end_run), for all that the call carries.
    pub(super) fn end_runs<H: Host>(&mut self, now_ns: u64, call: &Call, outcome: &Outcome<'_>, host: &mut H) {
        let mut runs = call.runs();
        while let Some(token) = runs.next(host) {
            self.end_run(now_ns, &call.of_run(token, host), token, outcome, host);
        }
    }

    /// As [`send_again`](Self::send_again), for all that the call carries, in its order.
    fn send_all_again<H: Host>(&mut self, now_ns: u64, call: &Call, why: Requeue, when: When, host: &mut H) {
        let mut runs = call.runs().reversed(host);
        while let Some(token) = runs.next(host) {
            self.send_again(now_ns, &call.of_run(token, host), token, why, when, host);
        }
    }

    #[cold]
    fn send_again<H: Host>(&mut self, now_ns: u64, call: &Call, token: Token, why: Requeue, when: When, host: &mut H) {
        let session = usize::from(call.session);
        let asked_ns = if let When::After(delay_ns) = when { Some(delay_ns) } else { None };
        match when {
            _ if call.op == CallbackOp::RecallSlot => self.delay_own(now_ns, session, token, asked_ns, why, host),
            When::Now => self.requeue(now_ns, token, why, host),
            When::Backoff => self.delay(now_ns, token, None, why, host),
            When::After(delay_ns) => self.delay(now_ns, token, Some(delay_ns), why, host),
        }
    }

    /// CB_SEQUENCE NFS4ERR_DELAY: the slot and its id are kept. To a first transmission it says "not executed", to a
    /// resend it may as well say that the first copy is still being executed.
    fn sequence_delayed(&mut self, now_ns: u64, index: usize) {
        self.counters.delays += 1;
        self.calls.get_mut(index).renew = true;
        self.back_off_call(now_ns, index);
    }

    /// The reply cannot be trusted: nothing is known about the slot.
    fn bad_reply<H: Host>(&mut self, now_ns: u64, index: usize, fault: PathFault, host: &mut H) {
        let call = *self.calls.get(index);
        self.quarantine(now_ns, index);
        self.fault_session(usize::from(call.session), fault, host);
        self.send_all_again(now_ns, &call, Requeue::BadReply, When::Now, host);
    }

    /// The runs have left the call, whose slot is not settled: a lone CB_SEQUENCE will ask, after a while.
    fn quarantine(&mut self, now_ns: u64, index: usize) {
        let call = self.calls.get_mut(index);
        (call.token, call.members, call.deadline_ns) = (None, 0, u64::MAX);
        (call.unknown, call.renew) = (true, true);
        self.back_off_call(now_ns, index);
    }

    /// The RPC was rejected, or the compound has no results: nothing is wrong with the slot, and nobody will be better
    /// off with the same parameters.
    fn refused<H: Host>(&mut self, now_ns: u64, index: usize, fault: PathFault, host: &mut H) {
        self.counters.rejected += 1;
        let call = *self.calls.get(index);
        if call.is_batch() && self.batch_refused(now_ns, index, &call, fault, host) {
            return;
        }
        let at = usize::from(call.session);
        let Some(session) = &mut self.sessions[at] else { return };
        // A verdict on parameters that were replaced since says nothing about the new ones.
        let current = call.version == session.current && session.pending.is_none();
        let first = current && session.refused.is_none();
        if current {
            session.refused = Some(fault);
        }
        if first {
            host.event(Event::SessionFault { session: session.key, fault });
        }
        self.settle_unexecuted(now_ns, index, host);
        self.update_path(host);
        let elsewhere = call.op != CallbackOp::RecallSlot && self.another_is_better(at);
        if !current || elsewhere {
            // Two sessions that disagree must not play ball with it.
            let when = if current { When::Backoff } else { When::Now };
            self.send_all_again(now_ns, &call, Requeue::Refused, when, host);
        } else {
            self.end_runs(now_ns, &call, &Outcome::Fault(fault), host);
        }
    }

    /// The client has refused this transmission. If it was the first, the slot is free; else an earlier one may have
    /// been executed.
    pub(super) fn settle_unexecuted<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let call = self.calls.get(index);
        if call.unknown || call.token.is_none() {
            self.quarantine(now_ns, index);
        } else {
            self.tell_step(index, || CallStep::SlotFreed, host);
            self.release_slot(index);
        }
    }

    /// CB_SEQUENCE failed for a reason that has to do with the request itself.
    fn sequence_failed<H: Host>(&mut self, now_ns: u64, index: usize, status: Status, host: &mut H) {
        let call = *self.calls.get(index);
        self.settle_unexecuted(now_ns, index, host);
        if call.is_batch() && is_too_large(status) {
            return self.split(now_ns, &call, host);
        }
        self.end_runs(now_ns, &call, &Outcome::Replied { status, results: &[] }, host);
    }

    /// NFS4ERR_BADSESSION: first of all it is this connection that does not lead to the session. When no bound
    /// connection does, the session is lost.
    fn bad_session<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let call = *self.calls.get(index);
        let at = usize::from(call.session);
        self.unbind(at, usize::from(call.conn), host);
        self.calls.get_mut(index).renew = true;
        self.make_ready(index);
        if self.sessions[at].as_ref().is_some_and(|s| s.bound == 0 && !s.lost) {
            self.lose_session(now_ns, at, host);
        }
        self.update_path(host);
    }

    fn lose_session<H: Host>(&mut self, now_ns: u64, at: usize, host: &mut H) {
        let Some(session) = &mut self.sessions[at] else { return };
        session.lost = true;
        host.event(Event::SessionLost(session.key));
        for index in session.call_range() {
            let call = *self.calls.get(index);
            if call.token.is_some() {
                self.detach(now_ns, index);
                self.send_all_again(now_ns, &call, Requeue::SessionLost, When::Now, host);
            }
        }
    }

    /// NFS4ERR_CONN_NOT_BOUND_TO_SESSION: the next bound connection.
    fn not_bound<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let call = *self.calls.get(index);
        self.unbind(usize::from(call.session), usize::from(call.conn), host);
        self.update_path(host);
        match call.token {
            // Not executed, hence not pinned: another session may take it.
            Some(_) if !call.unknown => {
                self.tell_step(index, || CallStep::SlotFreed, host);
                self.release_slot(index);
                self.send_all_again(now_ns, &call, Requeue::NotBound, When::Now, host);
            }
            _ => {
                self.calls.get_mut(index).renew = true;
                self.make_ready(index);
            }
        }
    }

    /// NFS4ERR_BAD_HIGH_SLOT: csa_highest_slotid was too high for the client. It can be lowered when the slots above
    /// are not busy any more.
    fn bad_high_slot<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let call = *self.calls.get(index);
        let at = usize::from(call.session);
        let Some(session) = &mut self.sessions[at] else { return };
        let slot = SlotId(index as u32 - session.base);
        if call.highest <= slot.0 {
            // It cannot be lower than the slot itself: it is the slot that the client does not have.
            return self.slot_lost(now_ns, index, host);
        }
        session.slots.cap(slot);
        self.calls.get_mut(index).renew = true;
        // A copy whose fate is unknown must stay as it was; the highest slot is allowed to follow the table.
        self.calls.get_mut(index).highest = slot.0;
        self.set_state(index, State::HigherBusy);
        self.calls.wake_at(index, call.deadline_ns);
        self.wake_higher_busy(at);
    }

    /// Calls that wait for the slots above them.
    #[inline(never)]
    fn wake_higher_busy(&mut self, at: usize) {
        let Some(session) = self.sessions[at].as_ref().filter(|s| s.higher_busy_count > 0) else { return };
        for index in session.call_range() {
            let waits = self.calls.get(index).state == State::HigherBusy;
            if waits && self.is_highest_busy(at, index) {
                self.make_ready(index);
            }
        }
    }

    fn is_highest_busy(&self, at: usize, index: usize) -> bool {
        self.sessions[at].as_ref().is_some_and(|s| {
            let slot = SlotId(index as u32 - s.base);
            s.slots.highest_busy(slot) == slot
        })
    }

    /// NFS4ERR_BADSLOT, NFS4ERR_SEQ_MISORDERED: the slot is of no use any more.
    fn slot_lost<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let call = *self.calls.get(index);
        let slots_left = self.retire_slot(index);
        if !slots_left {
            self.fault_session(usize::from(call.session), PathFault::NoSlots, host);
        }
        self.send_all_again(now_ns, &call, Requeue::SlotLost, When::Now, host);
    }

    /// The client's limit may leave a session nothing but slots that are lost.
    pub(super) fn fault_slotless<H: Host>(&mut self, host: &mut H) {
        for at in 0..self.sessions.len() {
            if self.sessions[at].as_ref().is_some_and(|s| !s.dead && !s.slots.has_usable()) {
                self.fault_session(at, PathFault::NoSlots, host);
            }
        }
    }

    /// NFS4ERR_SEQ_FALSE_RETRY: the client has executed something else under this id, so that the id is used up.
    fn false_retry<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let call = *self.calls.get(index);
        self.tell_step(index, || CallStep::SlotFreed, host);
        self.advance_slot(index);
        self.counters.false_retries += u64::from(call.token.is_some());
        self.send_all_again(now_ns, &call, Requeue::FalseRetry, When::Backoff, host);
    }

    /// NFS4ERR_RETRY_UNCACHED_REP from CB_SEQUENCE itself.
    fn uncached<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let call = *self.calls.get(index);
        self.tell_step(index, || CallStep::SlotFreed, host);
        self.advance_slot(index);
        self.results_lost(now_ns, &call, call.runs(), When::Backoff, host);
    }

    /// Takes the call off the books; what becomes of its slot is the caller's to say.
    fn unpin(&mut self, index: usize) -> Option<(&mut Session, SlotId)> {
        let call = self.calls.get_mut(index);
        let session = self.sessions[usize::from(call.session)].as_mut();
        if let Some(session) = session {
            session.unpin(call);
            call.free();
            let slot = SlotId(index as u32 - session.base);
            return Some((session, slot));
        }
        call.free();
        None
    }

    /// The client has taken the request: the next one has the next id.
    pub(super) fn advance_slot(&mut self, index: usize) {
        let at = usize::from(self.calls.get(index).session);
        if let Some((session, slot)) = self.unpin(index) {
            session.slots.advance(slot);
            if session.higher_busy_count > 0 {
                self.wake_higher_busy(at);
            }
        }
    }

    /// The client has not taken the request: the next one has the same id.
    pub(super) fn release_slot(&mut self, index: usize) {
        let at = usize::from(self.calls.get(index).session);
        if let Some((session, slot)) = self.unpin(index) {
            session.slots.release(slot);
        }
        self.wake_higher_busy(at);
    }

    /// Whether a slot is left.
    fn retire_slot(&mut self, index: usize) -> bool {
        let at = usize::from(self.calls.get(index).session);
        let left = self.unpin(index).is_none_or(|(session, slot)| session.slots.retire(slot));
        self.has_retired = true;
        self.wake_higher_busy(at);
        left
    }
}

/// The status of CB_SEQUENCE, or what is wrong with the reply.
fn sequence_status(answer: &Result<Answer<'_>, XdrError>) -> Result<Status, PathFaultKind> {
    match answer {
        Ok(Answer::Taken(..)) => Ok(Status::NFS4_OK),
        Ok(Answer::Sequence(status)) => Ok(*status),
        Ok(Answer::Refused(fault)) => Err(fault.kind()),
        Err(_) => Err(PathFaultKind::Malformed),
    }
}

fn not_a_reply() -> XdrError {
    XdrError { what: "msg_type", offset: 4, kind: XdrErrorKind::BadValue { value: 0 } }
}
