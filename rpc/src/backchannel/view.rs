//! A look at a client's sessions and runs, for who operates the server.

use super::calls::{Call, State};
use super::host::{CallStep, CallView, Host, PathFault, Token};
use super::path::Session;
use super::timeout::NOTE_SENT;
use super::{Backchannel, ConnToken, SessionKey};

/// Where a run is.
///
/// # Examples
///
/// ```
/// use ringback_rpc::backchannel::Stage;
///
/// assert_eq!(Stage::Unanswered.name(), "unanswered");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// It waits for its turn, for a session slot or for a callback path.
    Queued,
    /// It was put back and waits for a delay to pass.
    Delayed,
    /// It is on the wire.
    Sent,
    /// It is on the wire of a connection that is up, for longer than the RPC timeout.
    Unanswered,
    /// It keeps its session slot and is to be sent again: its connection was lost, or the client has answered
    /// NFS4ERR_DELAY or NFS4ERR_BAD_HIGH_SLOT to CB_SEQUENCE.
    Resending,
}

impl Stage {
    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Queued => "queued",
            Stage::Delayed => "delayed",
            Stage::Sent => "sent",
            Stage::Unanswered => "unanswered",
            Stage::Resending => "resending",
        }
    }

    const fn of(call: &Call) -> Stage {
        match call.state {
            State::Sent => Stage::Sent,
            State::Unknown => Stage::Unanswered,
            _ => Stage::Resending,
        }
    }
}

/// A run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunView {
    /// The run.
    pub token: Token,
    /// Where it is.
    pub stage: Stage,
    /// It was sent at least once.
    pub sent: bool,
    /// The session and the session slot that it occupies.
    pub at: Option<(SessionKey, u32)>,
}

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionView {
    /// The session.
    pub key: SessionKey,
    /// Connections that carry its backchannel.
    pub connections: u32,
    /// Session slots.
    pub slots: u32,
    /// Those with a call that is not settled, whether its runs wait for it still or were given up.
    pub slots_in_use: u32,
    /// Those of them whose runs were given up and whose sequence id is not known yet.
    pub slots_quarantined: u32,
    /// Those that cannot be used any more.
    pub slots_retired: u32,
    /// What is wrong with it.
    pub fault: Option<PathFault>,
}

impl Backchannel {
    /// Tells the driver what became of a call, if it wants to know.
    #[inline(always)]
    pub(super) fn tell_step<H: Host>(&self, index: usize, step: impl FnOnce() -> CallStep, host: &mut H) {
        if host.watches() {
            self.tell(index, step(), host);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell<H: Host>(&self, index: usize, step: CallStep, host: &mut H) {
        let call = self.calls.get(index);
        let Some(session) = &self.sessions[usize::from(call.session)] else { return };
        let view = CallView {
            session: session.key,
            slot: index as u32 - session.base,
            xid: call.xid,
            token: call.token,
            runs: call.members.count_ones(),
            sent_ns: call.sent_ns,
        };
        host.step(&view, step);
    }

    /// The sessions.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> + '_ {
        self.live_sessions().map(|session| {
            let calls = || session.call_range().map(|index| self.calls.get(index));
            let quarantined = |c: &&Call| c.token.is_none() && c.state != State::Free;
            SessionView {
                key: session.key,
                connections: session.bound.count_ones(),
                slots: session.slots.count(),
                slots_in_use: session.slots.busy_count(),
                slots_quarantined: calls().filter(quarantined).count() as u32,
                slots_retired: session.slots.retired_count(),
                fault: session.fault.or(session.refused),
            }
        })
    }

    /// Calls whose answer may come on a connection. Walks the calls of the client.
    pub fn calls_out_on(&self, conn: ConnToken) -> u64 {
        let Some(index) = self.conn_index(conn) else { return 0 };
        let calls = self.live_sessions().flat_map(Session::call_range).map(|call| self.calls.get(call));
        calls.filter(|call| call.is_out() && usize::from(call.conn) == index).count() as u64
    }

    /// Shows every run. Walks the calls and the queues of the client.
    pub fn each_run<H: Host>(&self, host: &H, mut show: impl FnMut(RunView)) {
        for session in self.live_sessions() {
            self.each_call(session, host, &mut show);
        }
        let mut waiting = |token, stage| {
            let sent = host.note(token) & NOTE_SENT != 0;
            show(RunView { token, stage, sent, at: None });
        };
        self.queues.each(host, |token| waiting(token, Stage::Queued));
        self.wheel.each(host, |token| waiting(token, Stage::Delayed));
        for session in self.live_sessions() {
            session.own.each(host, |token| waiting(token, Stage::Queued));
        }
    }

    fn each_call<H: Host>(&self, session: &Session, host: &H, show: &mut impl FnMut(RunView)) {
        for (slot, index) in session.call_range().enumerate() {
            let call = self.calls.get(index);
            let mut runs = call.runs();
            while let Some(token) = runs.next(host) {
                let at = Some((session.key, slot as u32));
                show(RunView { token, stage: Stage::of(call), sent: true, at });
            }
        }
    }
}
