//! Sessions, the connections that are bound to them, and what that says about the client's callback path.

use super::calls::{Call, NO_CONN, State};
use super::decode::Echo;
use super::host::{Event, Host, PathFault, PathState};
use super::minor0::Minor0;
use super::queue::Queue;
use super::{AddError, Backchannel, CONNECTIONS_MAX, ConnToken, SessionKey};
use crate::nfs4::SessionId;
use crate::session::{RequesterSlots, SlotId};

/// SEQ4_STATUS bits about the backchannel (RFC 8881 section 18.46.2, `SEQ4_STATUS_*`).
pub mod seq4_status {
    /// No session of the client has a callback path.
    pub const CB_PATH_DOWN: u32 = 0x1;
    /// This session has no callback path.
    pub const CB_PATH_DOWN_SESSION: u32 = 0x200;
    /// The backchannel of this session is beyond repair: the client is to destroy the session.
    pub const BACKCHANNEL_FAULT: u32 = 0x400;
}

/// What calls of a session carry besides their own arguments: everything from the record mark to the session id,
/// encoded once. A call keeps the version that it was first sent with.
#[derive(Debug)]
pub(super) struct Version {
    pub head: Box<[u8]>,
    /// Calls that are pinned to it.
    pub calls: u32,
}

#[derive(Debug)]
pub(super) struct Session {
    pub key: SessionKey,
    pub id: SessionId,
    pub minor_version: u32,
    /// The call record of session slot 0; the others follow it.
    pub base: u32,
    pub slots: RequesterSlots,
    pub versions: Vec<Version>,
    pub current: u8,
    /// Parameters that have replaced the current ones and wait for a place among the versions. Until they have one,
    /// nothing new is sent.
    pub pending: Option<Box<[u8]>>,
    pub request_bytes_max: usize,
    /// Most runs in one call; lowered when the client finds a batch too large.
    pub batch_limit: u8,
    /// The connections that carry it, by index.
    pub bound: u64,
    pub ever_bound: bool,
    /// Calls in `State::Ready`, and in `State::HigherBusy`.
    pub ready_count: u32,
    pub higher_busy_count: u32,
    /// Runs that must not leave the session (CB_RECALL_SLOT), and until when the queue is held back.
    pub own: Queue,
    pub own_hold_ns: u64,
    /// The client breaks the protocol: reported for as long as the session lives.
    pub fault: Option<PathFault>,
    /// The client refuses what is sent with the current parameters.
    pub refused: Option<PathFault>,
    /// No slot is left: nothing is sent any more.
    pub dead: bool,
    /// Every bound connection said NFS4ERR_BADSESSION.
    pub lost: bool,
    /// It is being drained: nothing new is sent on it.
    pub draining: bool,
    /// Nothing new is sent until the client has answered CB_NULL.
    pub held: bool,
    /// It is a path of minor version 0.
    pub minor0: Option<Minor0>,
}

impl Session {
    /// A session that nothing has happened to, of minor version 1, with one run in a call.
    pub fn new(
        key: SessionKey,
        id: SessionId,
        base: u32,
        slots: RequesterSlots,
        head: Box<[u8]>,
        request_bytes_max: usize,
    ) -> Self {
        Session {
            key,
            id,
            minor_version: 1,
            base,
            slots,
            versions: vec![Version { head, calls: 0 }],
            current: 0,
            pending: None,
            request_bytes_max,
            batch_limit: 1,
            bound: 0,
            ever_bound: false,
            ready_count: 0,
            higher_busy_count: 0,
            own: Queue::default(),
            own_hold_ns: 0,
            fault: None,
            refused: None,
            dead: false,
            lost: false,
            draining: false,
            held: false,
            minor0: None,
        }
    }

    /// Memory held beyond the session itself.
    pub fn memory_bytes(&self) -> usize {
        let heads =
            self.versions.iter().map(|v| v.head.len()).chain(self.pending.as_deref().map(<[u8]>::len)).sum::<usize>();
        self.slots.memory_bytes() + self.versions.capacity() * size_of::<Version>() + heads
    }

    /// Whether new calls may be sent. A path of minor version 0 gets its connection when there is something to send.
    pub fn is_usable(&self) -> bool {
        let is_reached = if self.minor0.is_some() { !self.held } else { self.bound != 0 };
        is_reached && !self.dead && !self.lost && !self.draining
    }

    /// Where its call records begin, and how many there are.
    pub fn records(&self) -> (u32, u32) {
        (self.base, self.slots.count() + u32::from(self.minor0.is_some()))
    }

    /// Whether the result of CB_SEQUENCE echoes session and slot of a call. With the sequence id these are the arguments that
    /// it has to echo (RFC 8881 section 20.9.3): what does not is the answer to something else.
    #[inline]
    pub fn is_echoed(&self, slot: SlotId, echo: &Echo) -> bool {
        echo.session_id == self.id && echo.slot == slot
    }

    /// A call that is pinned to this session is over, and frees its record.
    #[inline(always)]
    pub fn unpin(&mut self, call: &Call) {
        self.count_state(call.state, State::Free);
        let version = &mut self.versions[usize::from(call.version)];
        version.calls -= 1;
        if version.calls == 0
            && let Some(head) = self.pending.take()
        {
            version.head = head;
            self.current = call.version;
        }
    }

    /// Keeps count of the states of calls.
    #[inline(always)]
    pub fn count_state(&mut self, before: State, state: State) {
        if before != State::Sent || state != State::Free {
            self.ready_count -= u32::from(before == State::Ready);
            self.ready_count += u32::from(state == State::Ready);
            self.higher_busy_count -= u32::from(before == State::HigherBusy);
            self.higher_busy_count += u32::from(state == State::HigherBusy);
        }
    }

    pub fn call_index(&self, slot: SlotId) -> usize {
        (self.base + slot.0) as usize
    }

    pub fn call_range(&self) -> core::ops::Range<usize> {
        self.base as usize..(self.base + self.slots.count()) as usize
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Conn {
    pub token: ConnToken,
    /// When anything came in on it.
    pub heard_ns: u64,
    /// The session that is served next.
    pub turn: u8,
}

/// The path state as it was told to the driver, and what runs when it is down.
#[derive(Debug)]
pub(super) struct PathClock {
    pub state: PathState,
    /// When the client's first reply that showed the path to be down was sent, plus a lease.
    pub deadline_ns: Option<u64>,
    /// That time is over: what cannot be sent ends at once.
    pub expired: bool,
}

impl Default for PathClock {
    fn default() -> Self {
        PathClock { state: PathState::Unknown, deadline_ns: None, expired: false }
    }
}

impl Backchannel {
    pub(super) fn session_index(&self, key: SessionKey) -> Option<usize> {
        self.sessions.iter().position(|s| s.as_ref().is_some_and(|s| s.key == key))
    }

    #[inline]
    pub(super) fn conn_index(&self, conn: ConnToken) -> Option<usize> {
        self.conns.iter().position(|c| c.as_ref().is_some_and(|c| c.token == conn))
    }

    pub(super) fn live_sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().flatten()
    }

    /// The connection carries the session's backchannel from now on (CREATE_SESSION with CONN_BACK_CHAN,
    /// BIND_CONN_TO_SESSION). Wakes what was parked.
    ///
    /// Of too many connections, the one that was silent for longest gives way if that is a lease or more: it may be half
    /// open, left over from a client that has lost its network and now comes back.
    pub fn bind(
        &mut self,
        now_ns: u64,
        session: SessionKey,
        conn: ConnToken,
        host: &mut impl Host,
    ) -> Result<(), AddError> {
        let index = self.session_index(session).ok_or(AddError::NoSuchSession)?;
        let known = self.conn_index(conn).or_else(|| self.new_conn(now_ns, conn));
        let conn_index = known.or_else(|| self.replace_conn(now_ns, conn, host)).ok_or(AddError::TooManyConnections)?;
        if let Some(session) = &mut self.sessions[index] {
            session.bound |= 1 << conn_index;
            session.ever_bound = true;
            session.lost = false;
        }
        self.bound_minor0(index);
        self.update_path(host);
        Ok(())
    }

    fn new_conn(&mut self, now_ns: u64, token: ConnToken) -> Option<usize> {
        let conn = Some(Conn { token, heard_ns: now_ns, turn: 0 });
        if let Some(index) = self.conns.iter().position(Option::is_none) {
            self.conns[index] = conn;
            return Some(index);
        }
        if self.conns.len() == CONNECTIONS_MAX {
            return None;
        }
        self.conns.push(conn);
        Some(self.conns.len() - 1)
    }

    /// A new connection in the place of one that was silent for a lease. A client that lives need not be heard on each of
    /// its connections, but those of which it makes use are not silent for so long.
    fn replace_conn<H: Host>(&mut self, now_ns: u64, token: ConnToken, host: &mut H) -> Option<usize> {
        let heard = |(index, conn): (usize, &Option<Conn>)| Some((conn.as_ref()?.heard_ns, index));
        let (heard_ns, silent) = self.conns.iter().enumerate().filter_map(heard).min()?;
        if heard_ns.saturating_add(self.config.lease_ns) > now_ns {
            return None;
        }
        self.close_conn(silent, host);
        self.new_conn(now_ns, token)
    }

    /// Has a connection closed that is taken for dead.
    pub(super) fn close_conn<H: Host>(&mut self, index: usize, host: &mut H) {
        let Some(conn) = self.conns[index] else { return };
        self.counters.connections_condemned += 1;
        self.sessions.iter_mut().flatten().filter(|s| s.bound & (1 << index) != 0).for_each(Session::fell_silent);
        host.event(Event::CloseConnection(conn.token));
        self.drop_conn(index);
    }

    /// The connection is gone: calls that were on it are sent again on the next one of their session, or wait for one.
    pub fn handle_disconnect(&mut self, conn: ConnToken, host: &mut impl Host) {
        if let Some(index) = self.conn_index(conn) {
            self.drop_conn(index);
            self.update_path(host);
        }
    }

    /// Something came in on the connection that was no reply to a callback: the client is alive.
    pub fn heard(&mut self, now_ns: u64, conn: ConnToken) {
        if let Some(index) = self.conn_index(conn)
            && let Some(conn) = &mut self.conns[index]
        {
            conn.heard_ns = now_ns;
        }
    }

    /// Forgets a connection. Walks the calls of the client, at most [`CALLS_MAX`](super::CALLS_MAX).
    pub(super) fn drop_conn(&mut self, conn: usize) {
        self.conns[conn] = None;
        for session in self.sessions.iter_mut().flatten() {
            let before = session.bound;
            session.bound &= !(1 << conn);
            if before != 0 && session.bound == 0 {
                session.hung_up();
            }
        }
        for index in 0..self.calls.len() {
            let call = self.calls.get_mut(index);
            if usize::from(call.conn) == conn {
                (call.conn, call.unknown) = (NO_CONN, true);
                self.make_ready(index);
            }
        }
    }

    /// The client says that a connection does not carry a session.
    pub(super) fn unbind<H: Host>(&mut self, session: usize, conn: usize, host: &mut H) {
        let (Some(session), Some(conn_record)) = (&mut self.sessions[session], &self.conns[conn]) else { return };
        if session.bound & (1 << conn) == 0 {
            return;
        }
        session.bound &= !(1 << conn);
        host.event(Event::Unbound { session: session.key, conn: conn_record.token });
    }

    /// Whether the session is bound to the connection.
    pub fn is_bound(&self, session: SessionKey, conn: ConnToken) -> bool {
        let Some(conn) = self.conn_index(conn) else { return false };
        self.live_sessions().any(|s| s.key == session && s.bound & (1 << conn) != 0)
    }

    /// Whether the connection carries any session.
    pub fn carries(&self, conn: ConnToken) -> bool {
        self.conn_index(conn).is_some_and(|index| self.live_sessions().any(|s| s.bound & (1 << index) != 0))
    }

    /// Whether new calls had better go to another session than this one.
    pub(super) fn another_is_better(&self, index: usize) -> bool {
        let others = self.sessions.iter().enumerate().filter(|(i, _)| *i != index);
        others.filter_map(|(_, s)| s.as_ref()).any(|s| s.is_usable() && s.refused.is_none())
    }

    /// Whether a new call may go out on this session, if it has a connection and a slot for it.
    pub(super) fn takes_new(&self, index: usize) -> bool {
        self.has_allowance()
            && self.sessions[index].as_ref().is_some_and(|s| {
                !(s.draining | s.held) && s.pending.is_none() && !(s.refused.is_some() && self.another_is_better(index))
            })
    }

    /// The client breaks the protocol on this session.
    pub(super) fn fault_session<H: Host>(&mut self, index: usize, fault: PathFault, host: &mut H) {
        let Some(session) = &mut self.sessions[index] else { return };
        // The last of its slots is worth another event: nothing is sent on it from now on.
        let first = session.fault.is_none() || (fault == PathFault::NoSlots && !session.dead);
        session.dead |= fault == PathFault::NoSlots;
        if first {
            session.fault = Some(fault);
            host.event(Event::SessionFault { session: session.key, fault });
        }
        self.update_path(host);
    }

    /// State of the client's callback path.
    pub fn path_state(&self) -> PathState {
        self.path.state
    }

    fn compute_path(&self) -> PathState {
        let (mut state, mut is_untested) = (PathState::Unknown, false);
        for session in self.live_sessions() {
            is_untested |= session.is_untested();
            if session.is_usable() && session.refused.is_none() {
                return PathState::Up;
            }
            let is_refused = session.refused.is_some() && (session.bound != 0 || session.minor0.is_some());
            if is_refused || session.dead {
                state = PathState::Fault;
            } else if session.has_failed() && state == PathState::Unknown {
                state = PathState::Down;
            }
        }
        // The last session went: what was up is down.
        if state == PathState::Unknown && !is_untested && self.path.state != PathState::Unknown {
            return PathState::Down;
        }
        state
    }

    /// To be called after every change to sessions, bindings and faults.
    pub(super) fn update_path<H: Host>(&mut self, host: &mut H) {
        let state = self.compute_path();
        if self.has_path() {
            self.path.deadline_ns = None;
            self.path.expired = false;
        }
        if state != self.path.state {
            self.path.state = state;
            host.event(Event::Path(state));
        }
    }

    fn has_path(&self) -> bool {
        self.live_sessions().any(|s| s.is_usable() && (s.minor0.is_none() || s.refused.is_none()))
    }

    /// The SEQ4_STATUS bits for the reply to a SEQUENCE on this session (RFC 8881 section 18.46.3); `None`: for the
    /// client as a whole, as RENEW needs it (NFS4ERR_CB_PATH_DOWN): not while nobody knows yet whether a path of minor
    /// version 0 works.
    pub fn seq4_status(&self, session: Option<SessionKey>) -> u32 {
        let is_fine = self.has_path() || self.live_sessions().any(Session::is_untested);
        let mut bits = if is_fine { 0 } else { seq4_status::CB_PATH_DOWN };
        if let Some(key) = session
            && let Some(session) = self.live_sessions().find(|s| s.key == key)
        {
            if !session.is_usable() {
                bits |= seq4_status::CB_PATH_DOWN_SESSION;
            }
            if session.fault.is_some() || session.refused.is_some() {
                bits |= seq4_status::BACKCHANNEL_FAULT;
            }
        }
        bits
    }

    /// Whether the time that began with [`path_down_told`](Self::path_down_told) runs, or is over.
    pub fn is_path_down_told(&self) -> bool {
        self.path.deadline_ns.is_some() || self.path.expired
    }

    /// A reply with CB_PATH_DOWN went out to the client. If it does not bind a connection within a lease, what is not
    /// sent ends as [`Outcome::PathDown`](super::Outcome).
    pub fn path_down_told(&mut self, now_ns: u64) {
        if !self.has_path() && self.path.deadline_ns.is_none() && !self.path.expired {
            self.path.deadline_ns = Some(now_ns.saturating_add(self.config.lease_ns));
        }
    }
}
