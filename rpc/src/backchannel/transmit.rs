//! What goes out: resends, resynchronisations, then new calls.

use super::calls::{Call, State};
use super::config::Credential;
use super::host::{CallStep, Host, Outcome, Requeue, Token};
use super::timeout::{ENDINGS_PER_POLL_MAX, NOTE_ALONE, NOTE_SENT};
use super::{Backchannel, ConnToken, ReferringCalls, Transmit};
use crate::message::RPC_VERSION;
use crate::nfs4::SessionId;
use crate::nfs4::callback::{CB_COMPOUND, CallbackOp, NFS_CB};
use crate::record::LAST_FRAGMENT;
use crate::session::SlotId;
use crate::xdr::{self, Writer, XdrError, XdrErrorKind};

/// What of CB_SEQUENCE follows the session id, up to the referring call lists: sequence id, slot, highest slot,
/// cachethis, number of lists.
const SEQUENCE_WORDS_BYTES: usize = 20;
/// The words of a call without referring call lists between its head and the arguments of its operation: those, and the
/// operation's number.
pub(super) const CALL_WORDS_BYTES: usize = SEQUENCE_WORDS_BYTES + 4;
/// Where among them the number of lists stands.
const LISTS_AT: usize = SEQUENCE_WORDS_BYTES - 4;
pub(super) const XID_AT: usize = 4;
/// The number of operations stands this far before the end of the head: itself, CB_SEQUENCE's number, the session id.
pub(super) const COUNT_FROM_END: usize = 4 + 4 + 16;
/// With less room than this beyond the fixed part, a new call or a further operation is not even tried.
pub(super) const ROOM_BYTES_MIN: usize = 192;

/// Everything of a call from the record mark to the session id, with mark and xid zero: it is the same for all calls of
/// a session until BACKCHANNEL_CTL.
pub(super) fn encode_head(program: u32, credential: &Credential, minor: u32, session: SessionId) -> Box<[u8]> {
    let mut head = Vec::with_capacity(96 + credential.bytes().len());
    let word = |head: &mut Vec<u8>, value: u32| head.extend_from_slice(&value.to_be_bytes());
    // Record mark, xid, CALL (RFC 5531 sections 9 and 11).
    for value in [0, 0, 0, RPC_VERSION, program, NFS_CB, CB_COMPOUND] {
        word(&mut head, value);
    }
    head.extend_from_slice(credential.bytes());
    // AUTH_NONE verifier; empty tag, minor version, callback_ident (ignored in 4.1: RFC 8881 section 19.2.3), two
    // operations, of which the first is CB_SEQUENCE.
    for value in [0, 0, 0, minor, 0, 2, CallbackOp::Sequence as u32] {
        word(&mut head, value);
    }
    head.extend_from_slice(&session.0);
    head.into_boxed_slice()
}

/// What [`encode_head`] was given: program and credential.
pub(super) fn parameters_of(head: &[u8]) -> (u32, &[u8]) {
    let program = [head[16], head[17], head[18], head[19]];
    (u32::from_be_bytes(program), &head[HEAD_BYTES_BEFORE..head.len() - HEAD_BYTES_AFTER])
}

/// What stands before the credential of a head, and after it.
const HEAD_BYTES_BEFORE: usize = 7 * 4;
const HEAD_BYTES_AFTER: usize = 7 * 4 + 16;

/// Why a call was not written.
pub(super) enum NotWritten {
    /// It would fit into a larger buffer.
    NoSpace,
    /// The driver's encoder failed for this run, or the session allows no record that large.
    Failed(Token, XdrError),
}

/// Writes an operation with its number. Returns its length.
pub(super) fn write_op<H: Host>(token: Token, space: &mut [u8], host: &mut H) -> xdr::Result<usize> {
    let mut w = Writer::new(space);
    w.u32(host.op(token) as u32)?;
    host.encode(token, &mut w)?;
    Ok(w.position())
}

/// Writes the referring call lists of a run that is alone in its call, their number into `lists`, and its operation. What
/// the session does not allow together is written without the lists, and so every time: the limit is the session's, to
/// which a call is pinned. Returns the length.
#[inline]
fn write_lone<H: Host>(
    token: Token,
    short: bool,
    lists: &mut [u8],
    space: &mut [u8],
    host: &mut H,
) -> xdr::Result<usize> {
    let mut calls = ReferringCalls::new(space);
    host.referring(token, &mut calls)?;
    if !calls.is_used() {
        return write_op(token, space, host);
    }
    let written = calls.finish();
    host.set_note(token, host.note(token) | NOTE_ALONE);
    let (count, len) = written.unwrap_or_default();
    let fits = if written.is_some() { write_op(token, &mut space[len..], host) } else { Err(NO_ROOM) };
    match fits {
        Ok(bytes) => {
            lists.copy_from_slice(&count.to_be_bytes());
            Ok(len + bytes)
        }
        Err(XdrError { kind: XdrErrorKind::NoSpace { .. }, .. }) if !short => write_op(token, space, host),
        Err(e) => Err(e),
    }
}

/// The referring call lists do not fit.
const NO_ROOM: XdrError =
    XdrError { what: "csa_referring_call_lists", offset: 0, kind: XdrErrorKind::NoSpace { needed: 1, left: 0 } };

/// Writes the mark of a record (RFC 5531 section 11).
#[inline]
pub(super) fn write_mark(record: &mut [u8]) {
    let mark = LAST_FRAGMENT | (record.len() as u32 - 4);
    record[..4].copy_from_slice(&mark.to_be_bytes());
}

/// Writes what was sent before.
fn copy_record(bytes: &[u8], space: &mut [u8]) -> Result<usize, NotWritten> {
    let space = space.get_mut(..bytes.len()).ok_or(NotWritten::NoSpace)?;
    space.copy_from_slice(bytes);
    Ok(bytes.len())
}

/// What there is to send.
pub(super) enum Next {
    Run(Token),
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
        let Some(conn) = self.conn_index(conn) else { return Transmit::Idle };
        let count = self.sessions.len();
        let first = self.conns[conn].as_ref().map_or(0, |c| usize::from(c.turn));
        // Sessions that share a connection take turns.
        for index in (first..count).chain(0..first.min(count)) {
            let did = self.transmit_session(now_ns, index, conn, space, host);
            if did != Transmit::Idle {
                if let Some(conn) = &mut self.conns[conn] {
                    conn.turn = if index + 1 < count { index as u8 + 1 } else { 0 };
                }
                return did;
            }
        }
        Transmit::Idle
    }

    fn transmit_session<H: Host>(
        &mut self,
        now_ns: u64,
        index: usize,
        conn: usize,
        space: &mut [u8],
        host: &mut H,
    ) -> Transmit {
        let Some(session) = &self.sessions[index] else { return Transmit::Idle };
        if session.bound & (1 << conn) == 0 || session.dead {
            return Transmit::Idle;
        }
        if session.ready_count > 0 {
            let ready = session.call_range().find(|&i| self.calls.get(i).state == State::Ready);
            if let Some(call) = ready {
                return self.transmit_ready(now_ns, call, conn, space, host);
            }
            // What stands ready and has no slot is CB_NULL.
            return self.transmit_probe(now_ns, index, conn, space);
        }
        let own = !session.own.is_empty() && session.own_hold_ns == 0;
        if (self.queues.is_empty() && !own) || self.ending(true).is_some() {
            return Transmit::Idle;
        }
        let Some(slot) = session.slots.lowest_free() else { return Transmit::Idle };
        if !self.takes_new(index) {
            return Transmit::Idle;
        }
        let fixed = session.versions[usize::from(session.current)].head.len() + CALL_WORDS_BYTES;
        if space.len() < (fixed + ROOM_BYTES_MIN).min(session.request_bytes_max + 4) {
            return Transmit::NoSpace;
        }
        match self.next_run(now_ns, |core, host| core.take_run(index, host), host) {
            Next::Run(token) => self.transmit_new(now_ns, index, slot, conn, token, space, host),
            Next::Again => Transmit::Again,
            Next::None => Transmit::Idle,
        }
    }

    /// Takes a run out of the queue that is next: the session's own, then the client's.
    #[inline]
    fn take_run<H: Host>(&mut self, session: usize, host: &H) -> Option<Token> {
        let own = self.sessions[session].as_mut().filter(|s| s.own_hold_ns == 0).and_then(|s| s.own.pop(host));
        own.or_else(|| self.queues.pop(host))
    }

    /// Takes the next run that is still worth sending; ends those that are not.
    #[inline]
    pub(super) fn next_run<H: Host>(
        &mut self,
        now_ns: u64,
        mut take: impl FnMut(&mut Self, &H) -> Option<Token>,
        host: &mut H,
    ) -> Next {
        for _ in 0..ENDINGS_PER_POLL_MAX {
            let Some(token) = take(self, host) else { return Next::None };
            if self.deadline_ns(token, host) <= now_ns {
                self.time_out_queued(token, host);
            } else if host.take_requeue(token) || host.prepare(token) {
                return Next::Run(token);
            } else {
                self.finish(token, &Outcome::Refused, host);
            }
        }
        Next::Again
    }

    #[expect(clippy::too_many_arguments, reason = "the call's identity, once")]
    fn transmit_new<H: Host>(
        &mut self,
        now_ns: u64,
        session_index: usize,
        slot: SlotId,
        conn: usize,
        token: Token,
        space: &mut [u8],
        host: &mut H,
    ) -> Transmit {
        let Some(session) = &mut self.sessions[session_index] else { return Transmit::Idle };
        let index = session.call_index(slot);
        let deadline_ns = host.started_ns(token).saturating_add(self.config.run_deadline_ns);
        let call = Call {
            token: Some(token),
            members: 1,
            op: host.op(token),
            state: State::Sent,
            minor0: session.minor0.is_some(),
            session: session_index as u8,
            version: session.current,
            conn: conn as u8,
            xid: self.calls.new_xid(index),
            highest: session.slots.highest_busy(slot).0,
            deadline_ns,
            sent_ns: now_ns,
            ..Call::FREE
        };
        *self.calls.get_mut(index) = call;
        match self.write_call(index, slot, space, host) {
            Ok(mut len) => {
                let Some(session) = &mut self.sessions[session_index] else { return Transmit::Idle };
                session.slots.take(slot);
                session.versions[usize::from(call.version)].calls += 1;
                if session.batch_limit > 1 {
                    len = self.fill_batch(now_ns, index, len, space, host);
                }
                let Call { count, deadline_ns, .. } = *self.calls.get(index);
                self.counters.calls_sent += 1;
                self.counters.callbacks_sent += u64::from(count);
                self.pace(now_ns, count.into());
                self.calls.wake_at(index, deadline_ns.min(now_ns.saturating_add(self.config.rpc_timeout_ns)));
                self.tell_step(index, || CallStep::Sent, host);
                Transmit::Wrote(len)
            }
            Err(why) => {
                self.calls.free(index);
                self.not_written(session_index, token, why, host)
            }
        }
    }

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
    #[inline]
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
        let space = &mut space[..len];
        let start = head.len() + SEQUENCE_WORDS_BYTES;
        let Some((fixed, rest)) = space.split_at_mut_checked(start) else { return Err(NotWritten::NoSpace) };
        let (fixed_head, words) = fixed.split_at_mut(head.len());
        fixed_head.copy_from_slice(head);
        fixed_head[XID_AT..XID_AT + 4].copy_from_slice(&call.xid.to_be_bytes());
        let values = [session.slots.id(slot).0, slot.0, call.highest, 0, 0];
        for (word, value) in words.chunks_exact_mut(4).zip(values) {
            word.copy_from_slice(&value.to_be_bytes());
        }
        let count_at = head.len() - COUNT_FROM_END;
        let failed = |token, e: XdrError| match e.kind {
            XdrErrorKind::NoSpace { .. } if short => NotWritten::NoSpace,
            _ => NotWritten::Failed(token, e),
        };
        let mut len = 0;
        match call.token.filter(|_| !call.resync) {
            None => fixed_head[count_at..count_at + 4].copy_from_slice(&1u32.to_be_bytes()),
            Some(_) if call.is_batch() => {
                let mut runs = call.runs();
                while let Some(token) = runs.next(host) {
                    len += write_op(token, &mut rest[len..], host).map_err(|e| failed(token, e))?;
                }
                fixed_head[count_at..count_at + 4].copy_from_slice(&(1 + u32::from(call.count)).to_be_bytes());
            }
            Some(token) => {
                len = write_lone(token, short, &mut words[LISTS_AT..], rest, host).map_err(|e| failed(token, e))?;
            }
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
