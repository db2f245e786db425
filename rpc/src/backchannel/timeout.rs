//! What time does: RPC timeouts, backoff, run deadlines, the drain. And how runs end without an answer.

use super::Backchannel;
use super::calls::{Runs, State};
use super::host::{Host, Outcome, PathFault, Requeue, Token};
use super::minor0::is_probe;

/// Most runs that one call of [`Backchannel`] ends beyond the one that it is about; the rest follows by
/// [`Backchannel::handle_timeout`], so that a client with a million callbacks does not hold up a reactor.
pub(super) const ENDINGS_PER_CALL_MAX: usize = 1024;

/// Most runs that end instead of being sent before [`Backchannel::poll_transmit`] answers that it is to be called again.
/// Few, because its driver counts calls, most of which send something.
pub(super) const ENDINGS_PER_POLL_MAX: usize = 16;

/// The calls are looked at no more often than this, however their timers lie: a look walks all of them.
const CALLS_GRAIN_NS: u64 = 1_000_000;

/// Bits of [`Host::note`]: the backoff level, whether the run was sent before, and whether it goes without a batch.
const NOTE_LEVEL: u8 = 0x07;
pub(super) const NOTE_SENT: u8 = 0x08;
pub(super) const NOTE_ALONE: u8 = 0x10;

impl Backchannel {
    /// When [`handle_timeout`](Self::handle_timeout) is due. A time in the past: at the next turn of the loop.
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.ending(true).is_some() && self.has_waiting() {
            return Some(0);
        }
        let mut due = self.calls.wake_bound_ns;
        if !self.queues.is_empty() {
            due = due.min(self.queues.deadline_bound_ns);
        }
        if self.pace.hold_ns != 0 && self.has_waiting() {
            due = due.min(self.pace.hold_ns);
        }
        due = due.min(self.wheel.next_due_ns().unwrap_or(u64::MAX));
        due = due.min(self.path.deadline_ns.unwrap_or(u64::MAX));
        if self.runs > 0 {
            due = due.min(self.drain_ns.unwrap_or(u64::MAX));
        }
        for session in self.live_sessions() {
            if session.own_hold_ns != 0 && !session.own.is_empty() {
                due = due.min(session.own_hold_ns);
            }
            if !session.own.is_empty() {
                due = due.min(self.queues.deadline_bound_ns);
            }
        }
        if self.has_minor0 {
            due = due.min((0..self.sessions.len()).filter_map(|i| self.dial_due_ns(i)).min().unwrap_or(u64::MAX));
        }
        (due != u64::MAX).then_some(due)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now_ns: u64, host: &mut impl Host) {
        if self.calls.wake_bound_ns <= now_ns {
            self.wake_calls(now_ns, host);
        }
        if self.path.deadline_ns.is_some_and(|deadline| deadline <= now_ns) {
            self.path.deadline_ns = None;
            self.path.expired = true;
        }
        if self.runs > 0 && self.drain_ns.is_some_and(|deadline| deadline <= now_ns) {
            self.give_up_all(now_ns, &Outcome::Cancelled { sent: true }, host);
        }
        if self.pace.hold_ns <= now_ns {
            self.pace.hold_ns = 0;
        }
        self.end_waiting(ENDINGS_PER_CALL_MAX, host);
        self.release_delayed(now_ns, host);
        if self.queues.deadline_bound_ns <= now_ns {
            self.expire_queued(now_ns, host);
        }
        self.fault_slotless(host);
    }

    fn has_waiting(&self) -> bool {
        !self.queues.is_empty() || self.wheel.len() > 0 || self.live_sessions().any(|s| !s.own.is_empty())
    }

    /// Runs whose delay is over go to their queues, up to a limit per call; the wheel stays due while it is not empty.
    fn release_delayed<H: Host>(&mut self, now_ns: u64, host: &mut H) {
        for _ in 0..ENDINGS_PER_CALL_MAX {
            let Some(token) = self.wheel.pop_due(now_ns, host) else { break };
            let deadline_ns = self.deadline_ns(token, host);
            if deadline_ns <= now_ns {
                self.time_out_queued(token, host);
            } else {
                self.queues.push_again(token, deadline_ns, host);
            }
        }
        for session in self.sessions.iter_mut().flatten() {
            if session.own_hold_ns <= now_ns {
                session.own_hold_ns = 0;
            }
        }
    }

    fn expire_queued<H: Host>(&mut self, now_ns: u64, host: &mut H) {
        let run_deadline_ns = self.config.run_deadline_ns;
        let deadline = |host: &H, token: Token| host.started_ns(token).saturating_add(run_deadline_ns);
        for _ in 0..ENDINGS_PER_CALL_MAX {
            let Some(token) = self.queues.pop_expired(now_ns, host, deadline) else { break };
            self.time_out_queued(token, host);
        }
        if self.queues.deadline_bound_ns <= now_ns {
            return;
        }
        for index in 0..self.sessions.len() {
            while let Some(head) = self.sessions[index].as_ref().and_then(|s| s.own.head()) {
                let deadline_ns = deadline(host, head);
                if deadline_ns > now_ns {
                    self.queues.deadline_bound_ns = self.queues.deadline_bound_ns.min(deadline_ns);
                    break;
                }
                if let Some(session) = &mut self.sessions[index] {
                    session.own.pop(host);
                }
                self.time_out_queued(head, host);
            }
        }
    }

    /// Looks at every call whose timer has expired. Bounded by the client's session slots, and by [`CALLS_GRAIN_NS`].
    fn wake_calls<H: Host>(&mut self, now_ns: u64, host: &mut H) {
        self.calls.wake_bound_ns = u64::MAX;
        self.calls.forget_kept();
        for index in 0..self.calls.len() {
            if self.calls.get(index).wake_ns <= now_ns {
                self.wake_call(now_ns, index, host);
            }
            // A connection that was judged dead has changed other calls too, hence the second look.
            self.calls.wake_bound_ns = self.calls.wake_bound_ns.min(self.calls.get(index).wake_ns);
        }
        if self.calls.wake_bound_ns != u64::MAX {
            self.calls.wake_bound_ns = self.calls.wake_bound_ns.max(now_ns + CALLS_GRAIN_NS);
        }
    }

    fn wake_call<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let mut call = *self.calls.get(index);
        self.calls.get_mut(index).wake_ns = u64::MAX;
        if call.token.is_some() && call.deadline_ns <= now_ns {
            self.expire_runs(now_ns, index, host);
            call = *self.calls.get(index);
            if call.token.is_none() {
                return;
            }
        }
        let timeout_ns = self.config.rpc_timeout_ns;
        match call.state {
            State::Sent if call.sent_ns.saturating_add(timeout_ns) <= now_ns => {
                self.counters.rpc_timeouts += 1;
                // Silence since the call was sent: the path is dead. Otherwise the client is busy with it.
                self.judge(now_ns, index, call.sent_ns, host);
            }
            State::Unknown => self.judge(now_ns, index, now_ns.saturating_sub(timeout_ns), host),
            State::Backoff => self.make_ready(index),
            _ => {
                let rpc_ns = if call.state == State::Sent { call.sent_ns.saturating_add(timeout_ns) } else { u64::MAX };
                self.calls.wake_at(index, call.deadline_ns.min(rpc_ns));
            }
        }
    }

    /// A call has been out for too long. If nothing was heard on its connection since `since_ns`, the connection is
    /// dead. If it is alive the call stays on it, a late reply settles it; a quarantined slot asks where the client
    /// stands, but not twice on a connection that is up. A client that does not answer even that for a lease has lost
    /// the slot; what is left is to ask it for another session.
    fn judge<H: Host>(&mut self, now_ns: u64, index: usize, since_ns: u64, host: &mut H) {
        self.calls.get_mut(index).unknown = true;
        let call = *self.calls.get(index);
        let conn = usize::from(call.conn);
        match self.conns.get(conn).copied().flatten() {
            Some(record) if record.heard_ns <= since_ns || is_probe(&call) => {
                self.close_conn(conn, host);
                self.update_path(host);
            }
            _ if call.token.is_none() && !call.resync => self.make_ready(index),
            _ => {
                self.set_state(index, State::Unknown);
                let again_ns = now_ns.saturating_add(self.config.rpc_timeout_ns);
                self.calls.wake_at(index, call.deadline_ns.min(again_ns));
                if call.token.is_none() && call.sent_ns.saturating_add(self.config.lease_ns) <= now_ns {
                    self.fault_session(usize::from(call.session), PathFault::NoAnswer, host);
                }
            }
        }
    }

    /// Changes the state of a busy call, and what its session counts by it.
    pub(super) fn set_state(&mut self, index: usize, state: State) {
        let call = self.calls.get_mut(index);
        let before = core::mem::replace(&mut call.state, state);
        if let Some(session) = &mut self.sessions[usize::from(call.session)] {
            session.count_state(before, state);
        }
    }

    /// The call is to be sent again, on whichever connection of its session asks first.
    pub(super) fn make_ready(&mut self, index: usize) {
        self.set_state(index, State::Ready);
        let call = self.calls.get(index);
        let wake_ns = if call.token.is_some() { call.deadline_ns } else { u64::MAX };
        self.calls.wake_at(index, wake_ns);
    }

    /// Ends the runs of a call without an answer. The slot is free if the client is known not to have executed the call;
    /// else it is quarantined: a late reply or a lone CB_SEQUENCE tells.
    pub(super) fn give_up<H: Host>(&mut self, now_ns: u64, index: usize, outcome: &Outcome<'_>, host: &mut H) {
        let mut runs = self.detach_all(now_ns, index);
        while let Some(token) = runs.next(host) {
            self.finish(token, outcome, host);
        }
    }

    /// Parts a call from its runs, which are to be ended.
    pub(super) fn detach_all(&mut self, now_ns: u64, index: usize) -> Runs {
        let call = *self.calls.get(index);
        if call.token.is_some() {
            self.detach(now_ns, index);
        }
        call.runs()
    }

    /// Parts a call from its runs.
    pub(super) fn detach(&mut self, now_ns: u64, index: usize) {
        let call = self.calls.get_mut(index);
        (call.token, call.members, call.deadline_ns) = (None, 0, u64::MAX);
        let (state, sent_ns) = (call.state, call.sent_ns);
        if call.minor0 {
            // Its xid is all that it had: a late reply is told by that.
            return self.release_slot(index);
        }
        match state {
            // Give the reply until its timeout before asking.
            State::Sent => self.calls.wake_at(index, sent_ns.saturating_add(self.config.rpc_timeout_ns)),
            State::Unknown => self.make_ready(index),
            _ if !call.unknown => self.release_slot(index),
            State::Backoff => self.back_off_call(now_ns, index),
            _ => {}
        }
    }

    pub(super) fn give_up_all<H: Host>(&mut self, now_ns: u64, outcome: &Outcome<'_>, host: &mut H) {
        for index in 0..self.calls.len() {
            self.give_up(now_ns, index, outcome, host);
        }
    }

    /// Ends waiting runs, if none can be sent any more as things stand.
    pub(super) fn end_waiting<H: Host>(&mut self, count: usize, host: &mut H) {
        if self.ending(true).is_none() {
            return;
        }
        for _ in 0..count {
            let own = self.sessions.iter_mut().flatten().find_map(|s| s.own.pop(host));
            let token = own.or_else(|| self.queues.pop_any(host)).or_else(|| self.wheel.pop_any(host));
            let Some(token) = token else { return };
            let sent = host.note(token) & NOTE_SENT != 0;
            match self.ending(sent) {
                Some(outcome) => self.finish(token, &outcome, host),
                None => return,
            }
        }
    }

    /// The run is over, and no reply has ended it. Not inlined, as that is rare and would make way for it everywhere.
    #[inline(never)]
    pub(super) fn finish<H: Host>(&mut self, token: Token, outcome: &Outcome<'_>, host: &mut H) {
        self.runs -= 1;
        self.counters.count_ending(outcome);
        // Only outcomes that may not be requeued come here, so that the answer does not matter.
        let _ = host.done(token, outcome);
    }

    #[inline]
    pub(super) fn deadline_ns<H: Host>(&self, token: Token, host: &H) -> u64 {
        host.started_ns(token).saturating_add(self.config.run_deadline_ns)
    }

    /// Puts a run that was sent before back, to be sent again as soon as its turn comes.
    pub(super) fn requeue<H: Host>(&mut self, now_ns: u64, token: Token, why: Requeue, host: &mut H) {
        if self.put_back(now_ns, token, why, host) {
            let deadline_ns = self.deadline_ns(token, host);
            self.queues.push_again(token, deadline_ns, host);
        }
    }

    /// Puts a run that was sent before back, to be sent after `delay_ns`, or after the next backoff.
    pub(super) fn delay<H: Host>(
        &mut self,
        now_ns: u64,
        token: Token,
        delay_ns: Option<u64>,
        why: Requeue,
        host: &mut H,
    ) {
        if !self.put_back(now_ns, token, why, host) {
            return;
        }
        let delay_ns = self.wait_ns(token, delay_ns, host);
        let due_ns = now_ns.saturating_add(delay_ns).min(self.deadline_ns(token, host));
        self.wheel.insert(now_ns, due_ns, token, host);
    }

    /// How long a run waits: as it was asked for, or for its next backoff, after which the one after that is longer.
    fn wait_ns<H: Host>(&mut self, token: Token, asked_ns: Option<u64>, host: &mut H) -> u64 {
        let wait_ns = asked_ns.unwrap_or_else(|| {
            let note = host.note(token);
            let level = note & NOTE_LEVEL;
            host.set_note(token, (note & !NOTE_LEVEL) | (level + 1).min(NOTE_LEVEL));
            self.backoff_ns(level)
        });
        self.wheel.jitter(wait_ns.min(self.backoff_max_ns()))
    }

    /// What all requeues have in common. `false`: the run has ended instead.
    fn put_back<H: Host>(&mut self, now_ns: u64, token: Token, why: Requeue, host: &mut H) -> bool {
        // What the client did not get to does not count against it.
        let attempted = !matches!(why, Requeue::NotReached | Requeue::BatchSplit);
        let note = host.note(token);
        let sent = attempted || note & NOTE_SENT != 0;
        if !sent {
            host.unsent(token);
        }
        let ending =
            if self.deadline_ns(token, host) <= now_ns { Some(Outcome::TimedOut { sent }) } else { self.ending(sent) };
        if let Some(outcome) = ending {
            self.finish(token, &outcome, host);
            return false;
        }
        self.counters.count_requeue(why);
        if attempted {
            host.set_note(token, note | NOTE_SENT);
        }
        host.requeued(token, why);
        true
    }

    /// A run that must not leave its session goes back to the session's own queue, which is held for as long as the run is
    /// to wait.
    pub(super) fn delay_own<H: Host>(
        &mut self,
        now_ns: u64,
        session: usize,
        token: Token,
        delay_ns: Option<u64>,
        why: Requeue,
        host: &mut H,
    ) {
        if let Some(key) = self.sessions[session].as_ref().filter(|s| s.draining).map(|s| s.key) {
            return self.end_with_session(key, token, true, host);
        }
        if !self.put_back(now_ns, token, why, host) {
            return;
        }
        self.push_own(session, token, host);
        let until_ns = now_ns.saturating_add(self.wait_ns(token, delay_ns, host)).max(1);
        if let Some(session) = &mut self.sessions[session] {
            session.own_hold_ns = session.own_hold_ns.max(until_ns);
        }
    }

    fn backoff_max_ns(&self) -> u64 {
        // The wheel must hold it with its jitter.
        self.config.backoff_ns_max.min(super::queue::WHEEL_SPAN_NS / 9 * 8)
    }

    fn backoff_ns(&self, level: u8) -> u64 {
        self.config.backoff_ns_min.saturating_mul(1 << level.min(NOTE_LEVEL)).min(self.backoff_max_ns())
    }

    /// CB_SEQUENCE is to be repeated under the same sequence id, later.
    pub(super) fn back_off_call(&mut self, now_ns: u64, index: usize) {
        let call = *self.calls.get(index);
        let delay_ns = self.wheel.jitter(self.backoff_ns(call.level));
        self.calls.get_mut(index).level = (call.level + 1).min(NOTE_LEVEL);
        self.set_state(index, State::Backoff);
        self.calls.wake_at(index, now_ns.saturating_add(delay_ns).min(call.deadline_ns));
    }
}
