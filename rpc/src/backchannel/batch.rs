//! Several runs in one CB_COMPOUND.
//!
//! A batch takes what is ready to be sent, never waits for more, and is settled run by run: the client executes the
//! operations in order and stops at the first that fails (RFC 8881 section 15). A run may leave a batch that is out (its
//! deadline, a cancellation); the others stay for the reply. But such a *torn* batch cannot be sent again, because its
//! bytes cannot be written again: where it would have to be, the runs are parted from the call.

use super::calls::{BATCH_MAX, Call, Runs};
use super::config::SessionParams;
use super::control::RESPONSE_BYTES_MIN;
use super::decode::{OpAnswer, Results};
use super::encode::{COUNT_FROM_END, ROOM_BYTES_MIN, write_mark, write_op};
use super::host::{Host, Outcome, PathFault, Requeue, Sending, Token, is_batchable, is_repeatable};
use super::settle::When;
use super::timeout::NOTE_ALONE;
use super::transmit::Next;
use super::{Backchannel, ReferringCalls};
use crate::message::AcceptStatus;
use crate::nfs4::Status;
use crate::nfs4::callback::CallbackOp;
use crate::xdr::XdrErrorKind;

/// The result of an operation that returns a status alone.
const RESULT_BYTES: u32 = 8;

/// How many runs a call may carry, by ca_maxoperations, ca_maxresponsesize and our own limit.
pub(super) fn batch_limit(batch_max: u32, params: &SessionParams) -> u8 {
    let responses = 1 + params.response_bytes_max.saturating_sub(RESPONSE_BYTES_MIN) / RESULT_BYTES;
    let operations = params.operations_max.saturating_sub(1);
    batch_max.min(operations).min(responses).clamp(1, BATCH_MAX) as u8
}

/// Whether a status says that the compound was too large, in one way or another.
pub(super) fn is_too_large(status: Status) -> bool {
    matches!(status, Status::NFS4ERR_TOO_MANY_OPS | Status::NFS4ERR_REQ_TOO_BIG | Status::NFS4ERR_REP_TOO_BIG)
}

/// Whether a run may be in a batch. One that was put off, or failed in a batch, goes alone from then on, so that those
/// behind it get on: a client that puts it off for ever would have them sent again each time. One that depends on calls
/// of the fore channel goes alone always, so that others need not wait for those.
fn joins<H: Host>(host: &H, token: Token) -> bool {
    is_batchable(host.op(token)) && host.note(token) & NOTE_ALONE == 0
}

/// Whether a run that was prepared depends on calls of the fore channel.
fn refers<H: Host>(host: &H, run: &Sending<H::Known>) -> bool {
    let mut calls = ReferringCalls::probe();
    // What fails goes alone as well, and fails there.
    host.referring(run, &mut calls).is_err() || calls.is_used()
}

impl Backchannel {
    /// Adds to the new call in record `index`, which is the first `len` bytes of `space`, what else is ready and fits.
    /// Returns the length of the record.
    pub(super) fn fill_batch<H: Host>(
        &mut self,
        now_ns: u64,
        index: usize,
        len: usize,
        space: &mut [u8],
        host: &mut H,
    ) -> usize {
        let mut call = *self.calls.get(index);
        let (Some(mut last), Some(session)) = (call.token, &self.sessions[usize::from(call.session)]) else {
            return len;
        };
        if !joins(host, last) {
            return len;
        }
        let head = session.versions[usize::from(call.version)].head.len();
        let limit = u64::from(session.batch_limit).min(self.config.batch_max.into()).min(self.pace.runs_max(now_ns));
        let (mut end, count_at) = (len, head - COUNT_FROM_END);
        let bytes_max = space.len().min(session.request_bytes_max + 4);
        while u64::from(call.count) < limit && bytes_max - end >= ROOM_BYTES_MIN {
            let Next::Run(run, deadline_ns) = self.next_run(now_ns, |core, host| core.queues.pop_if(host, joins), host)
            else {
                break;
            };
            let token = run.token;
            if refers(host, &run) {
                host.set_note(token, host.note(token) | NOTE_ALONE);
                self.put_back_unsent(usize::from(call.session), token, host);
                break;
            }
            match write_op(&run, &mut space[end..bytes_max], host) {
                Ok(bytes) => end += bytes,
                Err(e) if matches!(e.kind, XdrErrorKind::NoSpace { .. }) => {
                    self.put_back_unsent(usize::from(call.session), token, host);
                    break;
                }
                Err(e) => {
                    self.finish(token, &Outcome::Unencodable(e), host);
                    break;
                }
            }
            host.set_link(last, Some(token));
            last = token;
            call.members |= 1 << call.count;
            call.count += 1;
            call.deadline_ns = call.deadline_ns.min(deadline_ns);
        }
        space[count_at..count_at + 4].copy_from_slice(&(1 + u32::from(call.count)).to_be_bytes());
        write_mark(&mut space[..end]);
        *self.calls.get_mut(index) = call;
        end
    }

    /// CB_SEQUENCE of a batch was answered with NFS4_OK: the results stand in the order of the operations and end with
    /// the first that failed.
    pub(super) fn batch_answered<H: Host>(&mut self, now_ns: u64, call: &Call, mut results: Results<'_>, host: &mut H) {
        let mut runs = call.runs();
        for position in 0..call.count {
            let from_here = runs;
            // `None`: this run has left.
            let token = if call.members & (1 << position) != 0 { runs.next(host) } else { None };
            let expected = |op: u32| op == CallbackOp::Illegal as u32 || token.is_none_or(|t| op == host.op(t) as u32);
            let answer = match results.next() {
                Some(answer) if expected(answer.op) => OpAnswer { results: &[], ..answer },
                _ => return self.garbled(now_ns, call, from_here, host),
            };
            if !answer.status.is_ok() {
                return self.batch_stopped(now_ns, call, position, &answer, (token, from_here, runs), host);
            }
            if let Some(token) = token {
                self.run_ok(now_ns, call.session, token, answer.results, host);
            }
        }
    }

    /// The operation at `position` failed. Its run, the runs from it on, and those behind it.
    fn batch_stopped<H: Host>(
        &mut self,
        now_ns: u64,
        call: &Call,
        position: u8,
        answer: &OpAnswer<'_>,
        (token, from_here, behind): (Option<Token>, Runs, Runs),
        host: &mut H,
    ) {
        let uncached = answer.status == Status::NFS4ERR_RETRY_UNCACHED_REP && position == 0;
        if let (Some(token), false) = (token, uncached) {
            host.set_note(token, host.note(token) | NOTE_ALONE);
        }
        match answer.status {
            // The whole batch was taken before, and how it went is lost. To a first transmission it is nonsense, and
            // must not make a loop.
            _ if uncached => {
                let when = if call.unknown { When::Now } else { When::Backoff };
                self.results_lost(now_ns, call, from_here, when, host);
            }
            status if is_too_large(status) => {
                self.lower_batch_limit(call, position);
                self.requeue_runs(now_ns, from_here, Requeue::BatchSplit, host);
            }
            _ => {
                if let Some(token) = token {
                    self.op_answered(now_ns, &call.of_run(token, host), token, answer, host);
                }
                self.requeue_runs(now_ns, behind, Requeue::NotReached, host);
            }
        }
    }

    /// The client finds the batch too large: its runs go in smaller ones, from now on in this session.
    pub(super) fn split<H: Host>(&mut self, now_ns: u64, call: &Call, host: &mut H) {
        self.lower_batch_limit(call, call.count / 2);
        self.part(now_ns, call, Requeue::BatchSplit, host);
    }

    /// The RPC was rejected, or the compound has no results. `false`: that has nothing to do with the batch.
    pub(super) fn batch_refused<H: Host>(
        &mut self,
        now_ns: u64,
        index: usize,
        call: &Call,
        fault: PathFault,
        host: &mut H,
    ) -> bool {
        match fault {
            PathFault::NoResults(status) if is_too_large(status) || status == Status::NFS4ERR_RESOURCE => {
                self.settle_unexecuted(now_ns, index, host);
                self.split(now_ns, call, host);
            }
            // The arguments of one operation are enough for this. The others are not to suffer with it.
            PathFault::NotExecuted(AcceptStatus::GarbageArgs) => {
                self.settle_unexecuted(now_ns, index, host);
                self.counters.splits += 1;
                let mut runs = call.runs();
                while let Some(token) = runs.next(host) {
                    host.set_note(token, host.note(token) | NOTE_ALONE);
                }
                self.part(now_ns, call, Requeue::BatchSplit, host);
            }
            _ => return false,
        }
        true
    }

    fn lower_batch_limit(&mut self, call: &Call, limit: u8) {
        self.counters.splits += 1;
        if let Some(session) = &mut self.sessions[usize::from(call.session)] {
            session.batch_limit = session.batch_limit.min(limit.max(1));
        }
    }

    /// A torn batch would have to be sent again. What may have been taken leaves its session slot in quarantine.
    pub(super) fn part_torn<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let call = *self.calls.get(index);
        self.detach(now_ns, index);
        self.part(now_ns, &call, Requeue::NotReached, host);
    }

    /// Parts the runs of a batch from their call. If the client is known not to have executed it they go again, for the
    /// reason `why`; else those that may.
    fn part<H: Host>(&mut self, now_ns: u64, call: &Call, why: Requeue, host: &mut H) {
        if !call.unknown {
            return self.requeue_runs(now_ns, call.runs(), why, host);
        }
        let mut runs = call.runs().reversed(host);
        while let Some(token) = runs.next(host) {
            if is_repeatable(host.op(token)) {
                self.requeue(now_ns, token, Requeue::BatchTorn, host);
            } else {
                self.end_run(now_ns, &call.of_run(token, host), token, &Outcome::DeliveredUnknown, host);
            }
        }
    }

    /// Puts runs of a batch back: in their order if that is at the heads of their queues. Behind older ones they stand the
    /// other way round, which matters little, for their deadlines are close to each other.
    fn requeue_runs<H: Host>(&mut self, now_ns: u64, runs: Runs, why: Requeue, host: &mut H) {
        let mut runs = runs.reversed(host);
        while let Some(token) = runs.next(host) {
            self.requeue(now_ns, token, why, host);
        }
    }

    /// Takes a run out of the call that it is in. `false`: it is not in this one. The call goes on for the others; as
    /// the last one leaves, its session slot is quarantined, or free.
    pub(super) fn leave<H: Host>(&mut self, now_ns: u64, index: usize, token: Token, host: &mut H) -> bool {
        let call = self.calls.get_mut(index);
        let (mut runs, mut members, mut before) = (call.runs(), call.members, None);
        while let Some(at) = runs.next(host) {
            if at == token {
                call.members &= !(1 << members.trailing_zeros());
                let mut rest = runs;
                let next = rest.next(host);
                match before {
                    None => call.token = next,
                    Some(before) => host.set_link(before, next),
                }
                if call.token.is_none() {
                    self.detach(now_ns, index);
                }
                return true;
            }
            members &= members - 1;
            before = Some(at);
        }
        false
    }

    /// Ends the runs of a call whose deadline has passed.
    pub(super) fn expire_runs<H: Host>(&mut self, now_ns: u64, index: usize, host: &mut H) {
        let (mut runs, mut first_ns) = (self.calls.get(index).runs(), u64::MAX);
        while let Some(token) = runs.next(host) {
            let deadline_ns = self.deadline_ns(token, host);
            if deadline_ns <= now_ns {
                self.leave(now_ns, index, token, host);
                self.finish(token, &Outcome::TimedOut { sent: true }, host);
            } else {
                first_ns = first_ns.min(deadline_ns);
            }
        }
        self.calls.get_mut(index).deadline_ns = first_ns;
    }
}
