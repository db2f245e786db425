//! What goes out: resends, resynchronisations, then new calls.

use super::calls::{Call, State};
use super::encode::{
    CALL_WORDS_BYTES, COUNT_FROM_END, Fixed, NotWritten, ROOM_BYTES_MIN, ROOM_NEXT_BYTES_MIN, copy_record, not_written,
    write_lone, write_mark, write_op,
};
use super::host::{CallStep, Host, Outcome, Requeue, Sending, Token};
use super::minor0::write_new_minor0;
use super::path::Session;
use super::timeout::{ENDINGS_PER_POLL_MAX, NOTE_SENT};
use super::{Backchannel, ConnToken, Transmit};
use crate::nfs4::callback::CallbackOp;
use crate::session::SlotId;

/// What came of new calls: so many bytes, the last of them in this record of a call, and why there are no more.
struct New {
    len: usize,
    last: usize,
    stop: Stop,
}

/// Why no further call was written.
enum Stop {
    /// There is nothing to send or no session slot, or it was enough.
    Idle,
    NoSpace,
    Ends(Token, Unsent),
    NotWritten(Token, NotWritten),
}

/// How a run ends that is not sent.
enum Unsent {
    TimedOut,
    Refused,
}

/// What there is to send.
pub(super) enum Next<K> {
    /// This run, whose deadline is then.
    Run(Sending<K>, u64),
    Again,
    None,
}

impl Backchannel {
    /// The largest record that this client's sessions can make, with its mark.
    pub fn record_bytes_max(&self) -> usize {
        self.live_sessions().map(|s| s.request_bytes_max + 4).max().unwrap_or(0)
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) would do something for this connection.
    pub fn wants_transmit(&self, conn: ConnToken) -> bool {
        let Some(conn) = self.conn_index(conn) else { return false };
        let waiting = !self.queues.is_empty() && self.ending(true).is_none();
        self.sessions.iter().enumerate().any(|(index, session)| {
            session.as_ref().is_some_and(|s| {
                s.bound & (1 << conn) != 0
                    && !s.dead
                    && (s.ready_count > 0
                        || ((waiting || (!s.own.is_empty() && s.own_hold_ns == 0))
                            && s.slots.lowest_free().is_some()
                            && self.takes_new(index)))
            })
        })
    }

    /// Writes the next record for this connection into `space`, with its mark.
    pub fn poll_transmit(&mut self, now_ns: u64, conn: ConnToken, space: &mut [u8], host: &mut impl Host) -> Transmit {
        self.poll_transmits(now_ns, conn, 1, space, host)
    }

    /// The same for up to `records_max` records, one behind the other, where they are new calls of one session with a
    /// callback each; else it is one. How many it was, [`counters`](Self::counters) tell.
    pub fn poll_transmits(
        &mut self,
        now_ns: u64,
        conn: ConnToken,
        records_max: usize,
        space: &mut [u8],
        host: &mut impl Host,
    ) -> Transmit {
        let Some(conn) = self.conn_index(conn) else { return Transmit::Idle };
        let count = self.sessions.len();
        let first = self.conns[conn].as_ref().map_or(0, |c| usize::from(c.turn));
        // Sessions that share a connection take turns.
        let records_max = if count == 1 { records_max } else { 1 };
        for index in (first..count).chain(0..first.min(count)) {
            let did = self.transmit_session(now_ns, (index, conn), records_max, space, host);
            if did != Transmit::Idle {
                if let Some(conn) = &mut self.conns[conn] {
                    conn.turn = if index + 1 < count { index as u8 + 1 } else { 0 };
                }
                return did;
            }
        }
        Transmit::Idle
    }

    #[inline(always)]
    fn transmit_session<H: Host>(
        &mut self,
        now_ns: u64,
        (index, conn): (usize, usize),
        records_max: usize,
        space: &mut [u8],
        host: &mut H,
    ) -> Transmit {
        let Some(session) = &self.sessions[index] else { return Transmit::Idle };
        if session.bound & (1 << conn) == 0 || session.dead {
            return Transmit::Idle;
        }
        if session.ready_count > 0 {
            if let Some(call) = self.first_ready(index) {
                return self.transmit_ready(now_ns, call, conn, space, host);
            }
            // What stands ready and has no slot is CB_NULL.
            return self.transmit_probe(now_ns, index, conn, space);
        }
        let own = !session.own.is_empty() && session.own_hold_ns == 0;
        if (self.queues.is_empty() && !own) || self.ending(true).is_some() || !self.takes_new(index) {
            return Transmit::Idle;
        }
        // One by one, where more follows a call than its bytes.
        let alone = session.batch_limit <= 1 || self.config.batch_max <= 1;
        let plain = alone && self.pace.is_unlimited() && !host.watches();
        let records_max = if plain { records_max } else { 1 };
        for _ in 0..ENDINGS_PER_POLL_MAX {
            let New { mut len, last, stop } = self.new_calls(now_ns, (index, conn), records_max, space, host);
            if len > 0 && !plain {
                len = self.complete(now_ns, last, len, space, host);
            }
            let did = match stop {
                Stop::Idle => Transmit::Idle,
                Stop::NoSpace => Transmit::NoSpace,
                Stop::Ends(token, ending) => {
                    self.end_unsent(token, ending, host);
                    if len == 0 {
                        continue;
                    }
                    Transmit::Again
                }
                Stop::NotWritten(token, why) => self.not_written(index, token, why, host),
            };
            return if len > 0 { Transmit::Wrote(len) } else { did };
        }
        Transmit::Again
    }

    /// Sends runs, each in a call of its own, up to `records_max` of them.
    #[inline(always)]
    fn new_calls<H: Host>(
        &mut self,
        now_ns: u64,
        (at, conn): (usize, usize),
        records_max: usize,
        space: &mut [u8],
        host: &mut H,
    ) -> New {
        let (mut len, mut last, mut count) = (0, 0, 0);
        let Backchannel { sessions, calls, queues, counters, config, .. } = self;
        let Some(session) = &mut sessions[at] else { return New { len, last, stop: Stop::Idle } };
        let Session { slots, versions, current, own, own_hold_ns, base, request_bytes_max, minor0, .. } = session;
        let version = &mut versions[usize::from(*current)];
        let limit = *request_bytes_max + 4;
        let mut room = (version.head.len() + CALL_WORDS_BYTES + ROOM_BYTES_MIN).min(limit);
        let room_next = room.max(ROOM_NEXT_BYTES_MIN).min(limit);
        let own_comes = *own_hold_ns == 0 && !own.is_empty();
        let rpc_ns = now_ns.saturating_add(config.rpc_timeout_ns);
        let mut wake_ns = u64::MAX;
        let mut slots = slots.taking();
        let stop = loop {
            let Some((slot, id)) = slots.next().filter(|_| count < records_max) else { break Stop::Idle };
            let space = &mut space[len..];
            if space.len() < room {
                break Stop::NoSpace;
            }
            // The session's own come first.
            let own = if own_comes { own.pop(host) } else { None };
            let Some(token) = own.or_else(|| queues.pop(host)) else { break Stop::Idle };
            let run = host.look(token);
            let deadline_ns = run.started_ns.saturating_add(config.run_deadline_ns);
            if deadline_ns <= now_ns {
                break Stop::Ends(token, Unsent::TimedOut);
            }
            if !host.take_requeue(&run) && !host.prepare(&run) {
                break Stop::Ends(token, Unsent::Refused);
            }
            last = (*base + slot.0) as usize;
            let (xid, highest) = (calls.new_xid(last), slots.highest_busy(slot));
            let (short, bytes) = (space.len() < limit, limit.min(space.len()));
            let space = &mut space[..bytes];
            let written = if minor0.is_some() {
                write_new_minor0(&version.head, xid, &run, short, space, host)
            } else {
                let fixed = Fixed { head: &version.head, xid, id, slot, highest };
                fixed.write_with(&run, short, space, host)
            };
            let bytes = match written {
                Ok(bytes) => bytes,
                Err(why) => break Stop::NotWritten(token, why),
            };
            slots.take(slot);
            wake_ns = rpc_ns.min(deadline_ns).min(wake_ns);
            *calls.get_mut(last) = Call {
                token: Some(token),
                members: 1,
                op: run.op,
                state: State::Sent,
                minor0: minor0.is_some(),
                session: at as u8,
                version: *current,
                conn: conn as u8,
                xid,
                highest,
                deadline_ns,
                sent_ns: now_ns,
                wake_ns: rpc_ns.min(deadline_ns),
                ..Call::FREE
            };
            (len, count, room) = (len + bytes, count + 1, room_next);
        };
        version.calls += count as u32;
        calls.wake_bound_ns = calls.wake_bound_ns.min(wake_ns);
        counters.calls_sent += count as u64;
        counters.callbacks_sent += count as u64;
        New { len, last, stop }
    }

    /// What follows a call besides its bytes: others that join it, the client's pace, and that it is told of. Returns the
    /// length of the record.
    fn complete<H: Host>(
        &mut self,
        now_ns: u64,
        index: usize,
        mut len: usize,
        space: &mut [u8],
        host: &mut H,
    ) -> usize {
        let at = usize::from(self.calls.get(index).session);
        if self.sessions[at].as_ref().is_some_and(|s| s.batch_limit > 1) {
            len = self.fill_batch(now_ns, index, len, space, host);
            let Call { count, deadline_ns, wake_ns, .. } = *self.calls.get(index);
            self.counters.callbacks_sent += u64::from(count) - 1;
            self.calls.wake_at(index, wake_ns.min(deadline_ns));
        }
        self.pace(now_ns, self.calls.get(index).count.into());
        self.tell_step(index, || CallStep::Sent, host);
        len
    }

    /// A run in a queue ends instead of being sent.
    #[cold]
    fn end_unsent<H: Host>(&mut self, token: Token, ending: Unsent, host: &mut H) {
        match ending {
            Unsent::TimedOut => self.time_out_queued(token, host),
            Unsent::Refused => self.finish(token, &Outcome::Refused, host),
        }
    }

    #[cold]
    fn first_ready(&self, session: usize) -> Option<usize> {
        let session = self.sessions[session].as_ref()?;
        session.call_range().find(|&call| self.calls.get(call).state == State::Ready)
    }

    /// Takes the next run that is still worth sending; ends those that are not.
    pub(super) fn next_run<H: Host>(
        &mut self,
        now_ns: u64,
        mut take: impl FnMut(&mut Self, &H) -> Option<Token>,
        host: &mut H,
    ) -> Next<H::Known> {
        for _ in 0..ENDINGS_PER_POLL_MAX {
            let Some(token) = take(self, host) else { return Next::None };
            let run = host.look(token);
            let deadline_ns = run.started_ns.saturating_add(self.config.run_deadline_ns);
            if deadline_ns <= now_ns {
                self.time_out_queued(token, host);
            } else if host.take_requeue(&run) || host.prepare(&run) {
                return Next::Run(run, deadline_ns);
            } else {
                self.finish(token, &Outcome::Refused, host);
            }
        }
        Next::Again
    }

    #[cold]
    fn not_written<H: Host>(&mut self, session: usize, token: Token, why: NotWritten, host: &mut H) -> Transmit {
        match why {
            NotWritten::Failed(_, e) => {
                self.finish(token, &Outcome::Unencodable(e), host);
                Transmit::Again
            }
            NotWritten::NoSpace => {
                self.put_back_unsent(session, token, host);
                Transmit::NoSpace
            }
        }
    }

    /// A run that was prepared and found no room in the buffer goes back to the head of its queue.
    pub(super) fn put_back_unsent<H: Host>(&mut self, session: usize, token: Token, host: &mut H) {
        self.counters.count_requeue(Requeue::NoSpace);
        host.requeued(token, Requeue::NoSpace);
        let deadline_ns = self.deadline_ns(token, host);
        match &mut self.sessions[session] {
            Some(session) if host.op(token) == CallbackOp::RecallSlot => session.own.push_front(token, host),
            _ => self.queues.push_again(token, deadline_ns, host),
        }
    }

    /// Sends a call again: the same bytes if the last transmission got no answer, else a new call with the same
    /// sequence id. A call whose run was given up goes as a lone CB_SEQUENCE.
    #[cold]
    fn transmit_ready<H: Host>(
        &mut self,
        now_ns: u64,
        index: usize,
        conn: usize,
        space: &mut [u8],
        host: &mut H,
    ) -> Transmit {
        let call = *self.calls.get(index);
        let Some(session) = &self.sessions[usize::from(call.session)] else { return Transmit::Idle };
        let slot = SlotId(index as u32 - session.base);
        let resync = call.token.is_none();
        if call.is_torn() {
            self.part_torn(now_ns, index, host);
            return Transmit::Again;
        }
        let renew = call.renew || (resync && !call.resync);
        if renew {
            let highest = if call.unknown && !resync { call.highest } else { session.slots.highest_busy(slot).0 };
            let xid = self.calls.new_xid(index);
            let call = self.calls.get_mut(index);
            (call.xid, call.highest, call.resync, call.renew) = (xid, highest, resync, false);
            if resync {
                call.count = 1;
            }
        }
        let kept = if renew || resync { None } else { self.calls.kept(index) };
        let written = match kept {
            Some(bytes) => copy_record(bytes, space),
            None => self.write_call(index, slot, space, host),
        };
        match written {
            Ok(len) => {
                let step = match (resync, renew) {
                    (true, _) => {
                        self.counters.resynchronised += 1;
                        CallStep::Resynchronising
                    }
                    (false, true) => {
                        self.counters.calls_sent += 1;
                        self.counters.callbacks_sent += u64::from(call.count);
                        CallStep::Sent
                    }
                    (false, false) => {
                        self.counters.resent += 1;
                        CallStep::Resent
                    }
                };
                if call.unknown
                    && let Some(session) = &mut self.sessions[usize::from(call.session)]
                {
                    session.slots.copy(slot);
                }
                let call = self.calls.get_mut(index);
                (call.conn, call.sent_ns) = (conn as u8, now_ns);
                let deadline_ns = call.deadline_ns;
                self.set_state(index, State::Sent);
                self.calls.wake_at(index, deadline_ns.min(now_ns.saturating_add(self.config.rpc_timeout_ns)));
                self.tell_step(index, || step, host);
                Transmit::Wrote(len)
            }
            Err(NotWritten::NoSpace) => {
                self.calls.get_mut(index).renew |= renew;
                Transmit::NoSpace
            }
            Err(NotWritten::Failed(token, e)) => {
                self.leave(now_ns, index, token, host);
                self.finish(token, &Outcome::Unencodable(e), host);
                Transmit::Again
            }
        }
    }

    /// Writes the call of record `index` with its mark.
    pub(super) fn write_call<H: Host>(
        &self,
        index: usize,
        slot: SlotId,
        space: &mut [u8],
        host: &mut H,
    ) -> Result<usize, NotWritten> {
        let call = self.calls.get(index);
        if call.minor0 {
            return self.write_minor0(index, space, host);
        }
        let Some(session) = &self.sessions[usize::from(call.session)] else { return Err(NotWritten::NoSpace) };
        let head = &*session.versions[usize::from(call.version)].head;
        let limit = session.request_bytes_max + 4;
        let (short, len) = (space.len() < limit, limit.min(space.len()));
        let fixed = Fixed { head, xid: call.xid, id: session.slots.id(slot), slot, highest: call.highest };
        let written = fixed.write(&mut space[..len]);
        let (start, lists, rest) = written.ok_or(NotWritten::NoSpace)?;
        let (mut len, mut count) = (0, None);
        match call.token.filter(|_| !call.resync) {
            None => count = Some(1),
            Some(_) if call.is_batch() => {
                let mut runs = call.runs();
                while let Some(token) = runs.next(host) {
                    let run = host.look(token);
                    len += write_op(&run, &mut rest[len..], host).map_err(|e| not_written(token, short, e))?;
                }
                count = Some(1 + u32::from(call.count));
            }
            Some(token) => {
                let run = host.look(token);
                len = write_lone(&run, short, lists, rest, host).map_err(|e| not_written(token, short, e))?;
            }
        }
        if let Some(count) = count {
            let count_at = head.len() - COUNT_FROM_END;
            space[count_at..count_at + 4].copy_from_slice(&count.to_be_bytes());
        }
        let len = start + len;
        write_mark(&mut space[..len]);
        Ok(len)
    }

    /// A run in a queue ends by its deadline.
    pub(super) fn time_out_queued<H: Host>(&mut self, token: Token, host: &mut H) {
        let sent = host.note(token) & NOTE_SENT != 0;
        self.finish(token, &Outcome::TimedOut { sent }, host);
    }
}
