//! Making the image.

use super::super::calls::{Call, Runs, State};
use super::super::encode::parameters_of;
use super::super::host::{CallStep, CallView, Event, Host, Outcome, Requeue, Sending, Token};
use super::super::minor0::PathParams;
use super::super::path::{Session, Version};
use super::super::{Backchannel, ConnToken, ReferringCalls, SessionKey};
use super::{
    BackchannelImage, CallImage, CallState, ConnectionImage, DelayedRun, ParametersImage, PathImage, SessionImage,
};
use crate::nfs4::callback::CallbackOp;
use crate::session::SlotId;
use crate::xdr::{self, Writer};

impl Backchannel {
    /// Describes everything. `space` is for the calls that are out, which are written into it once more, one by one:
    /// [`record_bytes_max`](Backchannel::record_bytes_max) is enough. Walks the calls and the queues of the client.
    pub fn export<H: Host>(&self, now_ns: u64, space: &mut [u8], host: &mut H) -> BackchannelImage {
        let left = |at_ns: u64| at_ns.saturating_sub(now_ns);
        let (mut fresh, mut again, mut delayed) = (Vec::new(), Vec::new(), Vec::new());
        self.queues.each_fresh(host, |token| fresh.push(token));
        self.queues.each_again(host, |token| again.push(token));
        self.wheel.each_due(host, |token, due_ns| delayed.push(DelayedRun { token, left_ns: left(due_ns) }));
        let (again_next, passed_over) = self.queues.turns();
        let (xid_generation, xids_issued) = self.calls.xids();
        let connections = self.conns.iter().flatten().map(|conn| ConnectionImage {
            conn: conn.token,
            silent_ns: now_ns.saturating_sub(conn.heard_ns),
            // As if there were no gaps between the sessions.
            turn: self.sessions.iter().take(usize::from(conn.turn)).flatten().filter(|s| s.minor0.is_none()).count()
                as u8,
        });
        let connections = connections.collect();
        let mut resend = Vec::new();
        for session in self.sessions.iter().flatten().filter(|s| s.minor0.is_some()) {
            resend.extend(session.call_range().filter_map(|index| self.calls.get(index).token));
        }
        let path = self.sessions.iter().flatten().find(|s| s.minor0.is_some() && !s.draining);
        let minor0 = path.and_then(|session| self.export_path(session));
        let sessions = self.sessions.iter().flatten().filter(|s| s.minor0.is_none());
        let sessions = sessions.map(|session| self.export_session(now_ns, session, space, host)).collect();
        BackchannelImage {
            client: self.client,
            limits: self.pace.limits(),
            drain_left_ns: self.drain_ns.map(left),
            path: self.path.state,
            path_left_ns: self.path.deadline_ns.map(left),
            path_expired: self.path.expired,
            unsupported: self.unsupported,
            counters: self.counters,
            xid_generation,
            xids_issued,
            random: self.wheel.random(),
            ahead_ns: left(self.pace.paid_ns()),
            hold_left_ns: hold_left(self.pace.hold_ns, now_ns),
            again_next,
            passed_over,
            fresh,
            again,
            resend,
            delayed,
            connections,
            sessions,
            minor0,
        }
    }

    fn export_path(&self, session: &Session) -> Option<PathImage> {
        let head = &session.versions.get(usize::from(session.current))?.head;
        let image = PathParams::of_head(head, session.slots.count())?;
        Some(PathImage { key: session.key, bound: self.bound_to(session), ..image })
    }

    fn bound_to(&self, session: &Session) -> Vec<ConnToken> {
        let bound = self.conns.iter().enumerate().filter(|(index, _)| session.bound & (1 << index) != 0);
        bound.filter_map(|(_, conn)| Some(conn.as_ref()?.token)).collect()
    }

    fn export_session<H: Host>(&self, now_ns: u64, session: &Session, space: &mut [u8], host: &mut H) -> SessionImage {
        let mut own = Vec::new();
        session.own.each(host, |token| own.push(token));
        let (slots, [highest, target, ceiling]) = session.slots.export();
        let parameters = |version: &Version| parameters(&version.head);
        let mut calls = Vec::new();
        for (slot, index) in session.call_range().enumerate() {
            if let Some(state) = call_state(self.calls.get(index).state) {
                calls.push(self.export_call(now_ns, index, slot as u32, state, space, host));
            }
        }
        SessionImage {
            key: session.key,
            session_id: session.id,
            minor_version: session.minor_version,
            base: session.base,
            slots,
            highest,
            target,
            ceiling,
            parameters: session.versions.iter().map(parameters).collect(),
            current: session.current,
            pending: session.pending.as_deref().map(self::parameters),
            request_bytes_max: u32::try_from(session.request_bytes_max).unwrap_or(u32::MAX),
            batch_limit: session.batch_limit,
            bound: self.bound_to(session),
            ever_bound: session.ever_bound,
            own,
            own_hold_left_ns: hold_left(session.own_hold_ns, now_ns),
            fault: session.fault,
            refused: session.refused,
            dead: session.dead,
            lost: session.lost,
            draining: session.draining,
            calls,
        }
    }

    fn export_call<H: Host>(
        &self,
        now_ns: u64,
        index: usize,
        slot: u32,
        state: CallState,
        space: &mut [u8],
        host: &mut H,
    ) -> CallImage {
        let call = *self.calls.get(index);
        // What goes as a new call, or alone, or not as it was, is written when it goes.
        let is_pinned = call.token.is_some() && !call.renew && !call.resync && !call.is_torn();
        let bytes = match self.calls.kept(index) {
            _ if !is_pinned => Vec::new(),
            Some(kept) => kept.to_vec(),
            None => {
                let mut host = Copying(host);
                let len = self.write_call(index, SlotId(slot), space, &mut host);
                // What cannot be written now may be later: it is asked for then.
                len.map_or_else(|_| Vec::new(), |len| space[..len].to_vec())
            }
        };
        CallImage {
            slot,
            runs: members(&call, call.runs(), host),
            count: call.count,
            op: call.op,
            state,
            parameters: call.version,
            conn: self.conns.get(usize::from(call.conn)).copied().flatten().map(|conn| conn.token),
            level: call.level,
            unknown: call.unknown,
            resync: call.resync,
            renew: call.renew,
            xid: call.xid,
            highest: call.highest,
            sent_ago_ns: now_ns.saturating_sub(call.sent_ns),
            wake_left_ns: (call.wake_ns != u64::MAX).then(|| call.wake_ns.saturating_sub(now_ns)),
            bytes,
        }
    }
}

/// What is held until then is held for a moment at least, if it is.
fn hold_left(until_ns: u64, now_ns: u64) -> u64 {
    if until_ns == 0 { 0 } else { until_ns.saturating_sub(now_ns).max(1) }
}

fn parameters(head: &[u8]) -> ParametersImage {
    let (program, credential) = parameters_of(head);
    ParametersImage { program, credential: credential.to_vec() }
}

fn members<H: Host>(call: &Call, mut runs: Runs, host: &H) -> Vec<(u8, Token)> {
    let positions = (0..call.count).filter(|position| call.members & (1 << position) != 0);
    positions.map_while(|position| Some((position, runs.next(host)?))).collect()
}

fn call_state(state: State) -> Option<CallState> {
    match state {
        State::Free => None,
        State::Sent => Some(CallState::Sent),
        State::Unknown => Some(CallState::Unanswered),
        State::Ready => Some(CallState::Ready),
        State::Backoff => Some(CallState::BackingOff),
        State::HigherBusy => Some(CallState::HigherBusy),
    }
}

/// The driver, asked for the bytes of what was sent and is not sent now.
struct Copying<'a, H>(&'a mut H);

impl<H: Host> Host for Copying<'_, H> {
    type Known = H::Known;

    fn link(&self, token: Token) -> Option<Token> {
        self.0.link(token)
    }
    fn set_link(&mut self, _: Token, _: Option<Token>) {}
    fn note(&self, token: Token) -> u8 {
        self.0.note(token)
    }
    fn set_note(&mut self, _: Token, _: u8) {}
    fn op(&self, token: Token) -> CallbackOp {
        self.0.op(token)
    }
    fn started_ns(&self, token: Token) -> u64 {
        self.0.started_ns(token)
    }
    fn look(&self, token: Token) -> Sending<H::Known> {
        self.0.look(token)
    }
    fn take_requeue(&mut self, _: &Sending<H::Known>) -> bool {
        false
    }
    fn prepare(&mut self, _: &Sending<H::Known>) -> bool {
        false
    }
    fn referring(&self, run: &Sending<H::Known>, calls: &mut ReferringCalls<'_>) -> xdr::Result<()> {
        self.0.referring(run, calls)
    }
    fn encode(&mut self, run: &Sending<H::Known>, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.0.copy(run, args)
    }
    fn done(&mut self, _: Token, _: &Outcome<'_>) -> Option<u64> {
        None
    }
    fn ends_with(&mut self, _: SessionKey) {}
    fn requeued(&mut self, _: Token, _: Requeue) {}
    fn event(&mut self, _: Event) {}
    fn step(&mut self, _: &CallView, _: CallStep) {}
}
