//! The backchannel of one client: the replier half, as strict as the Linux client's.

use super::config::Behaviour;
use super::fore::ForeChannel;
use super::outgoing::Outgoing;
use super::parameters::Parameters;
use super::returns::{Return, ReturnQueue};
use super::tally::{Delegations, Recalled, Tally};
use ringback_rpc::message::{AcceptStatus, AuthStatus, CallHeader, Rejected, ReplyBody, ReplyHeader, flavor};
use ringback_rpc::nfs4::callback::{
    CB_COMPOUND, CB_NULL, CallbackOp, CbArgs, CbCompoundArgs, CbRecallArgs, CbRes, CbSequenceArgs, CbSequenceRes,
    MINOR_VERSION_MAX,
};
use ringback_rpc::nfs4::{OTHER_SIZE, SessionId, Status, TAG_BYTES_MAX};
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer};
use std::collections::VecDeque;

/// Longest callback that the client takes: a page, as the Linux client does.
pub(crate) const REQUEST_BYTES_MAX: u32 = 4096;
/// Longest reply to a callback of so many operations: the RPC header, a tag of any length, the result of CB_SEQUENCE, and
/// operation and status of each other one.
pub(crate) const fn reply_bytes_max(operations: u32) -> usize {
    TAG_BYTES_MAX + 256 + 8 * operations as usize
}

/// What a callback works on; the rest of the client.
pub(crate) struct Host<'a> {
    pub(crate) now_ns: u64,
    /// How to behave now.
    pub(crate) behaviour: Behaviour,
    pub(crate) slow_delay_ns: u64,
    pub(crate) return_delegations: bool,
    pub(crate) fore: &'a ForeChannel,
    pub(crate) delegations: &'a mut Delegations,
    pub(crate) returns: &'a mut ReturnQueue,
    /// The counts; those of delegations stand under the behaviour the client was configured with.
    pub(crate) tally: &'a mut Tally,
    pub(crate) counted_as: Behaviour,
    /// Delegations that were recalled for the first time.
    pub(crate) first_recalls: &'a mut u64,
    /// CB_RECALLs seen, however they were answered.
    pub(crate) recalls_seen: &'a mut u64,
}

#[derive(Clone, Debug, Default)]
struct BackSlot {
    /// Of the last callback; `None` before the first.
    sequence_id: Option<u32>,
    /// Its answer is still held back.
    executing: bool,
    /// One callback with parameters that were replaced may be on its way: it was out already, or is sent again as it was.
    may_be_late: bool,
    /// The delegations whose recalls it executed.
    recalled: Vec<[u8; OTHER_SIZE]>,
}

/// An answer that is held back.
#[derive(Debug)]
struct Held {
    due_ns: u64,
    slot: Option<usize>,
    reply: Vec<u8>,
}

/// The replier half of the backchannel (RFC 8881 section 2.10.6.1).
#[derive(Debug, Default)]
pub(crate) struct BackChannel {
    session_id: SessionId,
    parameters: Parameters,
    /// Those of the callback at hand.
    generation: u32,
    /// Most operations in one callback, CB_SEQUENCE included.
    operations_max: u32,
    slots: Vec<BackSlot>,
    /// In order, as the delay is always the same.
    held: VecDeque<Held>,
    /// The session slot that the callback at hand has taken.
    current: Option<usize>,
}

impl BackChannel {
    pub(crate) fn new(session_id: SessionId, parameters: Parameters, slots: u32, operations_max: u32) -> Self {
        let slots = vec![BackSlot::default(); slots.max(1) as usize];
        BackChannel { session_id, parameters, operations_max, slots, ..BackChannel::default() }
    }

    /// What the server is to be asked to use from now on.
    pub(crate) fn next_parameters(&mut self) -> (u32, &Parameters) {
        (self.parameters.ask(), &self.parameters)
    }

    /// The server has agreed to use them for what it sends anew.
    pub(crate) fn agreed(&mut self, generation: u32) {
        self.parameters.agree(generation);
        self.slots.iter_mut().for_each(|slot| slot.may_be_late = true);
    }

    /// Answers a CALL record, at once or later.
    pub(crate) fn call(&mut self, record: &[u8], host: &mut Host<'_>, out: &mut Outgoing) {
        self.current = None;
        if host.behaviour != Behaviour::Slow {
            self.answer(record, host, out);
            return;
        }
        let mut aside = Outgoing::default();
        self.answer(record, host, &mut aside);
        if let Some(slot) = self.current {
            self.slots[slot].executing = true;
        }
        let reply = aside.pending().to_vec();
        self.held.push_back(Held { due_ns: host.now_ns + host.slow_delay_ns, slot: self.current, reply });
    }

    /// Sends the answers that are due. Without a connection they are lost, as a reply on a broken connection is.
    pub(crate) fn release(&mut self, now_ns: u64, mut out: Option<&mut Outgoing>) {
        while let Some(held) = self.held.pop_front_if(|held| held.due_ns <= now_ns) {
            if let Some(slot) = held.slot {
                self.slots[slot].executing = false;
            }
            if let Some(out) = &mut out {
                out.marked(&held.reply);
            }
        }
    }

    /// The connection is gone, and with it the answers held back for it: a reply goes to the connection of its call.
    pub(crate) fn disconnected(&mut self) {
        self.release(u64::MAX, None);
    }

    fn answer(&mut self, record: &[u8], host: &mut Host<'_>, out: &mut Outgoing) {
        let mut r = Reader::new(record);
        let Ok(call) = CallHeader::decode(&mut r) else {
            host.tally.malformed += 1;
            return;
        };
        if let Some(refusal) = self.refusal(&call, host) {
            reply(out, self.operations_max, |w| refusal.encode(w));
            return;
        }
        if call.procedure == CB_NULL {
            host.tally.probes += 1;
            reply(out, self.operations_max, |w| ReplyHeader::success(call.xid).encode(w));
            return;
        }
        let Ok(head) = CbCompoundArgs::decode(&mut r) else {
            host.tally.malformed += 1;
            reply(out, self.operations_max, |w| ReplyHeader::accepted(call.xid, AcceptStatus::GarbageArgs).encode(w));
            return;
        };
        reply(out, self.operations_max, |w| {
            ReplyHeader::success(call.xid).encode(w)?;
            let status = w.reserve_u32()?;
            w.opaque(head.tag)?;
            let count = w.reserve_u32()?;
            let too_long = record.len() > REQUEST_BYTES_MAX as usize;
            let (last, results) = self.operations(&head, r, too_long, host, w)?;
            w.patch_u32(status, last.0);
            w.patch_u32(count, results);
            Ok(())
        });
    }

    /// What is refused on the level of RPC: another program or version, and credentials. AUTH_NONE is for CB_NULL only.
    fn refusal(&mut self, call: &CallHeader<'_>, host: &mut Host<'_>) -> Option<ReplyHeader<'static>> {
        let accepted = |status| Some(ReplyHeader::accepted(call.xid, status));
        let tally = &mut *host.tally;
        tally.wrong_program += 1;
        let Some(generation) = self.parameters.generation(call.program) else {
            return accepted(AcceptStatus::ProgUnavail);
        };
        if !matches!(call.version, 1 | 4) {
            return accepted(AcceptStatus::ProgMismatch { low: 1, high: 4 });
        }
        if !matches!(call.procedure, CB_NULL | CB_COMPOUND) {
            return accepted(AcceptStatus::ProcUnavail);
        }
        tally.wrong_program -= 1;
        if call.procedure == CB_NULL {
            return None;
        }
        if call.credential.flavor != flavor::AUTH_SYS {
            tally.wrong_credential += 1;
            let body = ReplyBody::Denied(Rejected::AuthError(AuthStatus::BadCred));
            return Some(ReplyHeader { xid: call.xid, body });
        }
        self.generation = generation;
        tally.other_credential += u64::from(!self.parameters.is_credential(generation, call.credential.body));
        None
    }

    /// Executes the operations up to the first that fails. Gives its status, and the number of results.
    fn operations(
        &mut self,
        head: &CbCompoundArgs<'_>,
        mut r: Reader<'_>,
        too_long: bool,
        host: &mut Host<'_>,
        w: &mut Writer<'_>,
    ) -> xdr::Result<(Status, u32)> {
        if head.minor_version > MINOR_VERSION_MAX {
            return Ok((Status::NFS4ERR_MINOR_VERS_MISMATCH, 0));
        }
        let mut replay = false;
        for index in 0..head.count {
            let number = r.clone().u32("argop");
            let result = match (index, CbArgs::decode(&mut r)) {
                (0, Ok(CbArgs::Sequence(args))) => {
                    let checked = self.sequence(head, &args, too_long, host);
                    replay = checked == Err(Status::NFS4ERR_RETRY_UNCACHED_REP);
                    CbRes::Sequence(if replay { Ok(self.echo(&args)) } else { checked.map(|()| self.echo(&args)) })
                }
                (0, Ok(args)) => CbRes::failed(args.op(), Status::NFS4ERR_OP_NOT_IN_SESSION),
                // RFC 8881 section 20.9.3: the reply was not cached, which the next operation says.
                (_, Ok(args)) if replay => CbRes::failed(args.op(), Status::NFS4ERR_RETRY_UNCACHED_REP),
                (_, Ok(args)) => self.operation(&args, host),
                (_, Err(_)) => {
                    host.tally.malformed += 1;
                    let op = number.ok().and_then(|number| CallbackOp::try_from(number).ok());
                    CbRes::failed(op.unwrap_or(CallbackOp::Illegal), Status::NFS4ERR_BADXDR)
                }
            };
            result.encode(w)?;
            if !result.status().is_ok() {
                return Ok((result.status(), index + 1));
            }
        }
        host.tally.malformed += u64::from(!r.remaining().is_empty());
        Ok((Status::NFS4_OK, head.count))
    }

    fn echo(&self, args: &CbSequenceArgs<'_>) -> CbSequenceRes {
        let highest = self.slots.len() as u32 - 1;
        CbSequenceRes {
            session_id: args.session_id,
            sequence_id: args.sequence_id,
            slot_id: args.slot_id,
            highest_slot_id: highest,
            target_highest_slot_id: highest,
        }
    }

    /// Checks CB_SEQUENCE and takes its session slot. On an error the slot does not change (RFC 8881 section 20.9.3).
    fn sequence(
        &mut self,
        head: &CbCompoundArgs<'_>,
        args: &CbSequenceArgs<'_>,
        too_long: bool,
        host: &mut Host<'_>,
    ) -> Result<(), Status> {
        let checked = self.check_sequence(head, args, too_long, host);
        match checked {
            Ok(()) => {
                let index = args.slot_id as usize;
                let slot = &mut self.slots[index];
                slot.sequence_id = Some(args.sequence_id);
                slot.recalled.clear();
                let replaced = self.generation < self.parameters.agreed();
                host.tally.replaced_parameters += u64::from(replaced && !slot.may_be_late);
                slot.may_be_late = false;
                self.current = Some(index);
                host.tally.callbacks += 1;
            }
            Err(Status::NFS4ERR_RETRY_UNCACHED_REP | Status::NFS4ERR_SEQ_FALSE_RETRY) => host.tally.replays += 1,
            Err(Status::NFS4ERR_SEQ_MISORDERED) => host.tally.misordered += 1,
            // The answer of a client that is busy with that very callback, or waits for a call it refers to.
            Err(Status::NFS4ERR_DELAY) => {}
            Err(_) => host.tally.sequence_errors += 1,
        }
        checked
    }

    fn check_sequence(
        &mut self,
        head: &CbCompoundArgs<'_>,
        args: &CbSequenceArgs<'_>,
        too_long: bool,
        host: &mut Host<'_>,
    ) -> Result<(), Status> {
        if args.session_id != self.session_id || head.minor_version != 1 {
            return Err(Status::NFS4ERR_BADSESSION);
        }
        if too_long {
            return Err(Status::NFS4ERR_REQ_TOO_BIG);
        }
        if head.count > self.operations_max {
            return Err(Status::NFS4ERR_TOO_MANY_OPS);
        }
        let slot = self.slots.get(args.slot_id as usize).ok_or(Status::NFS4ERR_BADSLOT)?;
        if slot.sequence_id == Some(args.sequence_id) {
            return Err(Self::retry(args, slot, host));
        }
        if args.sequence_id != slot.sequence_id.map_or(1, |last| last.wrapping_add(1)) {
            return Err(Status::NFS4ERR_SEQ_MISORDERED);
        }
        if args.cache_this {
            return Err(Status::NFS4ERR_REP_TOO_BIG_TO_CACHE);
        }
        let mut referring = args.referring_call_lists.iter().filter(|list| list.session_id == self.session_id);
        let waits = |call: ringback_rpc::nfs4::callback::ReferringCall| {
            host.fore.is_outstanding(call.slot_id, call.sequence_id)
        };
        if referring.any(|list| list.calls.iter().any(waits)) {
            return Err(Status::NFS4ERR_DELAY);
        }
        Ok(())
    }

    /// The answer to a sequence id that its session slot has seen already.
    fn retry(args: &CbSequenceArgs<'_>, slot: &BackSlot, host: &mut Host<'_>) -> Status {
        if slot.executing {
            return Status::NFS4ERR_DELAY;
        }
        if args.cache_this {
            return Status::NFS4ERR_SEQ_FALSE_RETRY;
        }
        slot.recalled.iter().for_each(|other| host.delegations.reply_lost(other));
        Status::NFS4ERR_RETRY_UNCACHED_REP
    }

    fn operation(&mut self, args: &CbArgs<'_>, host: &mut Host<'_>) -> CbRes<'static> {
        let op = args.op();
        if !op.is_legal_in(1) {
            return CbRes::Illegal(Status::NFS4ERR_OP_ILLEGAL);
        }
        let status = match args {
            CbArgs::Recall(recall) => self.recall(recall, host),
            CbArgs::Getattr(_) => Status::NFS4ERR_BADHANDLE,
            CbArgs::LayoutRecall(_) => Status::NFS4ERR_NOMATCHING_LAYOUT,
            CbArgs::Sequence(_) => Status::NFS4ERR_SEQUENCE_POS,
            CbArgs::RecallAny(_) | CbArgs::RecallSlot(_) | CbArgs::NotifyLock(_) | CbArgs::NotifyDeviceId(_) => {
                Status::NFS4_OK
            }
            CbArgs::Illegal(_) => Status::NFS4ERR_OP_ILLEGAL,
            _ => Status::NFS4ERR_NOTSUPP,
        };
        CbRes::failed(op, status)
    }

    fn recall(&mut self, recall: &CbRecallArgs<'_>, host: &mut Host<'_>) -> Status {
        *host.recalls_seen += 1;
        let counts = host.tally.of_mut(host.counted_as);
        if host.behaviour == Behaviour::Delay {
            counts.delayed += 1;
            return Status::NFS4ERR_DELAY;
        }
        let found = host.delegations.recall(&recall.stateid, counts);
        // NFS4ERR_BAD_STATEID is a result as well: if it is lost, the server may ask again.
        if let Some(slot) = self.current {
            self.slots[slot].recalled.push(recall.stateid.other);
        }
        if matches!(found, Recalled::Gone | Recalled::Unknown) {
            return Status::NFS4ERR_BAD_STATEID;
        }
        if found == Recalled::First {
            *host.first_recalls += 1;
            if host.return_delegations {
                host.returns.push(&Return::new(recall.stateid, &recall.fh));
            }
        }
        Status::NFS4_OK
    }
}

/// Writes a reply, which always fits: its parts have limits.
fn reply(out: &mut Outgoing, operations_max: u32, write: impl FnOnce(&mut Writer<'_>) -> xdr::Result<()>) {
    let written = out.record(reply_bytes_max(operations_max), write);
    debug_assert!(written.is_ok(), "{written:?}");
}
