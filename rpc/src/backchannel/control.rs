//! Sessions come, change and go; the client changes its state; runs come in, are cancelled and drained.

use super::batch::batch_limit;
use super::calls::State;
use super::config::{AddError, Census, Credential, SessionParams};
use super::encode::{CALL_WORDS_BYTES, encode_head};
use super::host::{Host, Outcome, Requeue, Token};
use super::path::{Conn, Session, Version};
use super::queue::Queue;
use super::timeout::{ENDINGS_PER_CALL_MAX, NOTE_SENT};
use super::{BATCH_MAX, Backchannel, ClientState, SESSIONS_MAX, SessionKey};
use crate::nfs4::callback::CallbackOp;
use crate::session::{RequesterSlots, SLOTS_MAX};

/// Most parameter versions of one session that calls are pinned to.
pub(super) const VERSIONS_MAX: usize = 4;
/// The reply to CB_SEQUENCE and an operation that returns a status: RPC header with an AUTH_NONE verifier, compound
/// header with an empty tag, and the two results.
pub(super) const RESPONSE_BYTES_MIN: u32 = 24 + 12 + (8 + 16 + 16) + 8;
/// Room for the arguments of the smallest operations.
const ARGS_BYTES_MIN: usize = 16;

impl Backchannel {
    /// The client has created a session with a backchannel. It has no connection yet.
    pub fn add_session(
        &mut self,
        key: SessionKey,
        params: &SessionParams,
        host: &mut impl Host,
    ) -> Result<(), AddError> {
        if self.session_index(key).is_some() {
            return Err(AddError::KeyInUse);
        }
        if !(1..=2).contains(&params.minor_version) {
            return Err(AddError::MinorVersion(params.minor_version));
        }
        let head = encode_head(params.program, &params.credential, params.minor_version, params.session_id);
        let request_bytes_max = params.request_bytes_max as usize;
        check_size(&head, request_bytes_max)?;
        if params.operations_max < 2 || params.response_bytes_max < RESPONSE_BYTES_MIN {
            return Err(AddError::TooSmall);
        }
        if self.live_sessions().count() == SESSIONS_MAX {
            return Err(AddError::TooManySessions);
        }
        if params.slots == 0 || params.slots > SLOTS_MAX {
            return Err(AddError::TooManySlots);
        }
        let mut taken: Vec<_> = self.live_sessions().map(Session::records).collect();
        let base = self.calls.reserve(params.slots, &mut taken).ok_or(AddError::TooManySlots)?;
        let slots = RequesterSlots::new(params.slots);
        self.put_session(Session {
            minor_version: params.minor_version,
            batch_limit: batch_limit(BATCH_MAX, params),
            ..Session::new(key, params.session_id, base, slots, head, request_bytes_max)
        });
        self.update_path(host);
        Ok(())
    }

    /// Takes the first free place.
    pub(super) fn put_session(&mut self, session: Session) {
        match self.sessions.iter_mut().find(|s| s.is_none()) {
            Some(place) => *place = Some(session),
            None => self.sessions.push(Some(session)),
        }
    }

    /// BACKCHANNEL_CTL (RFC 8881 section 18.33): program and credential for calls that are not sent yet. A call that
    /// was sent keeps its bytes. If calls with too many earlier parameters are still out, new ones wait until the calls
    /// of one of them are settled: none goes out with parameters that were replaced.
    pub fn control(
        &mut self,
        key: SessionKey,
        program: u32,
        credential: &Credential,
        host: &mut impl Host,
    ) -> Result<(), AddError> {
        let index = self.session_index(key).ok_or(AddError::NoSuchSession)?;
        let session = self.sessions[index].as_mut().filter(|s| s.minor0.is_none()).ok_or(AddError::NoSuchSession)?;
        let head = encode_head(program, credential, session.minor_version, session.id);
        check_size(&head, session.request_bytes_max)?;
        session.pending = None;
        match session.versions.iter().position(|v| v.calls == 0) {
            Some(unused) => {
                session.versions[unused].head = head;
                session.current = unused as u8;
            }
            None if session.versions.len() < VERSIONS_MAX => {
                session.current = session.versions.len() as u8;
                session.versions.push(Version { head, calls: 0 });
            }
            None => session.pending = Some(head),
        }
        session.refused = None;
        self.update_path(host);
        Ok(())
    }

    /// The session is gone (DESTROY_SESSION, or its client). Its callbacks move to another session of the client, or
    /// wait for one; CB_RECALL_SLOT ends as [`Outcome::Cancelled`]. Late replies to its calls are dropped.
    pub fn remove_session(&mut self, now_ns: u64, key: SessionKey, host: &mut impl Host) -> bool {
        let is_known = self.take_session(now_ns, key, host);
        self.update_path(host);
        is_known
    }

    /// As [`remove_session`](Self::remove_session), without a look at what that means for the path.
    pub(super) fn take_session<H: Host>(&mut self, now_ns: u64, key: SessionKey, host: &mut H) -> bool {
        let Some(index) = self.session_index(key) else { return false };
        let Some(mut session) = self.sessions[index].take() else { return false };
        self.forget_probe(&session);
        for call_index in session.call_range() {
            let call = *self.calls.get(call_index);
            self.calls.get_mut(call_index).free();
            let mut runs = call.runs().reversed(host);
            while let Some(token) = runs.next(host) {
                if host.op(token) == CallbackOp::RecallSlot {
                    self.end_with_session(key, token, true, host);
                } else {
                    self.requeue(now_ns, token, Requeue::SessionLost, host);
                }
            }
        }
        while let Some(token) = session.own.pop(host) {
            self.end_with_session(key, token, was_sent(token, host), host);
        }
        true
    }

    /// A run was accepted. CB_RECALL_SLOT goes to [`enqueue_on`](Self::enqueue_on).
    pub fn enqueue(&mut self, token: Token, host: &mut impl Host) {
        self.enqueue_all(token, token, 1, host);
    }

    /// So many runs of one operation were accepted, that of `first` before the others. They are [linked](Host::link) up to
    /// `last`, and stay so.
    pub fn enqueue_all(&mut self, first: Token, last: Token, count: u32, host: &mut impl Host) {
        self.runs += u64::from(count);
        self.counters.started += u64::from(count);
        let mut runs = Queue::linked(first, last, count);
        if let Some(outcome) = self.ending(false) {
            while let Some(token) = runs.pop(host) {
                self.finish(token, &outcome, host);
            }
            return;
        }
        let deadline_ns = self.deadline_ns(first, host);
        self.queues.push_fresh(runs, deadline_ns, host);
    }

    /// A run that belongs to a session was accepted: CB_RECALL_SLOT. If there is no such session, or it is being drained,
    /// it ends as [`Outcome::Cancelled`].
    pub fn enqueue_on(&mut self, token: Token, session: SessionKey, host: &mut impl Host) {
        self.runs += 1;
        self.counters.started += 1;
        let index = self.session_index(session).filter(|i| self.sessions[*i].as_ref().is_some_and(|s| !s.draining));
        match (index, self.ending(false)) {
            (Some(_), Some(outcome)) => self.finish(token, &outcome, host),
            (Some(index), None) => self.push_own(index, token, host),
            (None, _) => self.end_with_session(session, token, false, host),
        }
    }

    /// Ends one run as [`Outcome::Cancelled`]. `false`: it is not here. Walks the calls and the queues of the client.
    pub fn cancel(&mut self, now_ns: u64, token: Token, host: &mut impl Host) -> bool {
        self.cancel_all(now_ns, |_, at| at == token, host) > 0
    }

    /// Ends the runs that are `wanted` as [`Outcome::Cancelled`]; how many those were. Walks the calls and the queues of
    /// the client, once for all of them.
    pub fn cancel_all<H: Host>(&mut self, now_ns: u64, mut wanted: impl FnMut(&H, Token) -> bool, host: &mut H) -> u64 {
        let before = self.runs;
        for index in 0..self.calls.len() {
            let mut runs = self.calls.get(index).runs();
            while let Some(token) = runs.next(host) {
                if wanted(host, token) {
                    self.leave(now_ns, index, token, host);
                    self.finish(token, &Outcome::Cancelled { sent: true }, host);
                }
            }
        }
        let mut found = Queue::default();
        self.queues.extract(&mut wanted, &mut found, host);
        self.wheel.extract(&mut wanted, &mut found, host);
        for session in self.sessions.iter_mut().flatten() {
            session.own.extract(&mut wanted, &mut found, host);
        }
        while let Some(token) = found.pop(host) {
            self.finish(token, &Outcome::Cancelled { sent: was_sent(token, host) }, host);
        }
        before - self.runs
    }

    /// Ends all runs as [`Outcome::Cancelled`], and each one that still comes in: what is not out at once (in slices,
    /// see [`poll_timeout`](Self::poll_timeout)), what is out when its answer comes or at `deadline_ns`.
    pub fn drain(&mut self, now_ns: u64, deadline_ns: u64, host: &mut impl Host) {
        self.drain_ns = Some(self.drain_ns.map_or(deadline_ns, |before| before.min(deadline_ns)));
        self.end_waiting(ENDINGS_PER_CALL_MAX, host);
        if deadline_ns <= now_ns {
            self.give_up_all(now_ns, &Outcome::Cancelled { sent: true }, host);
        }
    }

    /// Sends nothing new on a session any more: what waits goes to the client's other sessions, but for CB_RECALL_SLOT,
    /// which ends as [`Outcome::Cancelled`]. What is out may still be answered, see
    /// [`session_runs`](Self::session_runs), until [`give_up_session`](Self::give_up_session). `false`: no such session.
    pub fn drain_session(&mut self, key: SessionKey, host: &mut impl Host) -> bool {
        let Some(index) = self.session_index(key) else { return false };
        if let Some(session) = &mut self.sessions[index] {
            session.draining = true;
        }
        self.end_own(index, host);
        self.update_path(host);
        true
    }

    /// Runs that cannot leave this session: those in its calls, and CB_RECALL_SLOT. Walks its calls.
    pub fn session_runs(&self, key: SessionKey) -> u64 {
        let Some(session) = self.live_sessions().find(|s| s.key == key) else { return 0 };
        let out = session.call_range().map(|index| u64::from(self.calls.get(index).members.count_ones())).sum::<u64>();
        out + u64::from(session.own.len())
    }

    /// Ends the [runs](Self::session_runs) of a session as [`Outcome::Cancelled`].
    pub fn give_up_session(&mut self, now_ns: u64, key: SessionKey, host: &mut impl Host) {
        let Some(index) = self.session_index(key) else { return };
        let range = self.sessions[index].as_ref().map_or(0..0, Session::call_range);
        for call in range {
            let mut runs = self.detach_all(now_ns, call);
            while let Some(token) = runs.next(host) {
                self.end_with_session(key, token, true, host);
            }
        }
        self.end_own(index, host);
    }

    /// Ends what must not leave a session and cannot be sent on it.
    fn end_own<H: Host>(&mut self, index: usize, host: &mut H) {
        let Some(key) = self.sessions[index].as_ref().map(|s| s.key) else { return };
        while let Some(token) = self.sessions[index].as_mut().and_then(|s| s.own.pop(host)) {
            self.end_with_session(key, token, was_sent(token, host), host);
        }
    }

    /// Cancels a run that cannot leave its session.
    pub(super) fn end_with_session<H: Host>(&mut self, key: SessionKey, token: Token, sent: bool, host: &mut H) {
        host.ends_with(key);
        self.finish(token, &Outcome::Cancelled { sent }, host);
    }

    /// The embedder says how the client is. In courtesy or expired, all its callbacks end, those that are out too.
    pub fn set_client_state(&mut self, now_ns: u64, state: ClientState, host: &mut impl Host) {
        self.client = state;
        let outcome = match state {
            ClientState::Active => return,
            ClientState::Courtesy => Outcome::Courtesy,
            ClientState::Expired => Outcome::Cancelled { sent: true },
        };
        self.give_up_all(now_ns, &outcome, host);
        self.end_waiting(ENDINGS_PER_CALL_MAX, host);
    }

    /// How runs end that cannot be sent any more as things stand.
    pub(super) fn ending(&self, sent: bool) -> Option<Outcome<'static>> {
        if self.drain_ns.is_some() || self.client == ClientState::Expired {
            return Some(Outcome::Cancelled { sent });
        }
        if self.client == ClientState::Courtesy {
            return Some(Outcome::Courtesy);
        }
        self.path.expired.then_some(Outcome::PathDown)
    }

    pub(super) fn push_own<H: Host>(&mut self, session: usize, token: Token, host: &mut H) {
        let deadline_ns = self.deadline_ns(token, host);
        self.queues.deadline_bound_ns = self.queues.deadline_bound_ns.min(deadline_ns);
        if let Some(session) = &mut self.sessions[session] {
            session.own.push_back(token, host);
        }
    }

    /// Whether no run is left here.
    pub fn is_idle(&self) -> bool {
        self.runs == 0
    }

    /// Memory that this client's sessions hold, beyond the `Backchannel` itself, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let sessions = self.sessions.capacity() * size_of::<Option<Session>>();
        let conns = self.conns.capacity() * size_of::<Option<Conn>>();
        let tables = self.live_sessions().map(|s| s.memory_bytes()).sum::<usize>();
        self.calls.memory_bytes() + sessions + conns + tables
    }

    /// Counts where slots and runs are. Walks the calls of the client.
    pub fn census(&self) -> Census {
        let mut census = Census { runs_queued: self.queues.len(), runs_delayed: self.wheel.len(), ..Census::default() };
        for session in self.live_sessions() {
            census.runs_queued += u64::from(session.own.len());
            census.slots += session.slots.count();
            census.slots_retired += session.slots.retired_count();
            let mut free = 0;
            for index in session.call_range() {
                let call = self.calls.get(index);
                census.runs_sent += u64::from(call.members.count_ones());
                match call.state {
                    State::Free => free += 1,
                    _ if call.token.is_some() => census.slots_with_run += 1,
                    _ => census.slots_quarantined += 1,
                }
            }
            census.slots_free += free - session.slots.retired_count();
        }
        if self.seq4_status(None) != 0 {
            census.runs_parked = census.runs_queued + census.runs_delayed;
        }
        census
    }
}

/// Whether a run that is not out now has been.
fn was_sent<H: Host>(token: Token, host: &H) -> bool {
    host.note(token) & NOTE_SENT != 0
}

pub(super) fn check_size(head: &[u8], request_bytes_max: usize) -> Result<(), AddError> {
    let needed = head.len() + CALL_WORDS_BYTES + ARGS_BYTES_MIN;
    if needed > request_bytes_max.saturating_add(4) { Err(AddError::TooSmall) } else { Ok(()) }
}
