//! One COMPOUND: which operation may stand where, what state runs from one to the next, and what is kept for a retry
//! (RFC 8881 sections 2.10.6, 16.2 and 18.46).

use crate::Inner;
use crate::arena::Id;
use crate::clients::{Client, Principal};
use crate::copies::Request;
use crate::file::{Maker, now};
use crate::files::Caller;
use crate::grace::Claims;
use crate::holder_attributes::{Answer, Question};
use crate::sessions::{Origin, Session};
use ringback::SessionKey;
use ringback_rpc::nfs4::fore::{
    CompoundArgs, CompoundResHead, Op, OpArgs, OpRes, SequenceArgs, SequenceOk, seq4_status,
};
use ringback_rpc::nfs4::{Stateid4, Status};
use ringback_rpc::session::{Check, NoSlot, ReplierSlots, SequenceId, SlotId, fingerprint};
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Whose files a caller without a user id makes.
const NOBODY: u32 = 65534;
/// The minor versions that are served.
const MINOR_VERSIONS: RangeInclusive<u32> = 0..=2;

/// Bytes of the results of SEQUENCE.
const SEQUENCE_BYTES: usize = 44;

/// The most bytes that the results of an operation take if it changes something. The others are not told before: they can
/// be taken back.
const fn result_bytes_max(op: &OpArgs<'_>) -> usize {
    match op {
        OpArgs::Open(_) | OpArgs::GetDirDelegation(_) | OpArgs::WantDelegation(_) => 128,
        OpArgs::ExchangeId(_) | OpArgs::CreateSession(_) | OpArgs::BindConnToSession(_) => 128,
        OpArgs::Create(_) | OpArgs::Rename(_) | OpArgs::SetAttr(_) | OpArgs::Copy(_) => 64,
        OpArgs::Remove(_) | OpArgs::Link(_) | OpArgs::Write(_) | OpArgs::OpenDowngrade(_) => 32,
        OpArgs::Close(_) | OpArgs::Lock(_) | OpArgs::Unlock(_) | OpArgs::OpenConfirm(_) | OpArgs::SetClientId(_) => 24,
        // Number and status.
        _ => 8,
    }
}

/// A compound on its way through its operations.
pub(crate) struct Compound<'a> {
    pub(crate) server: &'a Inner,
    pub(crate) origin: Origin,
    /// The length of the whole request.
    request_bytes: usize,
    /// Set by SEQUENCE.
    sequence: Option<Sequenced>,
    /// Minor version 0: whose the compound is, as far as its operations have said.
    pub(crate) named: Option<Arc<Client>>,
    /// Minor version 0: whose the connection is, and so probably what does not say whose it is.
    user: Option<Arc<Client>>,
    /// Minor version 0: the OPEN that is executed has to be confirmed.
    pub(crate) unconfirmed: bool,
    /// The current filehandle.
    pub(crate) current: Option<Id>,
    /// The current stateid (RFC 8881 section 16.2.3.1.2).
    pub(crate) stateid: Option<Stateid4>,
    /// The saved filehandle, and the stateid that was current with it.
    pub(crate) saved: Option<(Id, Option<Stateid4>)>,
    /// What an operation has to know before it can be executed.
    pub(crate) question: Option<Question>,
    /// The answer to it.
    pub(crate) answer: Option<Answer>,
    /// Operations that have been executed before the compound had to wait.
    executed: usize,
    /// It is executed on a thread that may wait for the disk.
    pub(crate) may_wait: bool,
    /// When the operation that is executed had to wait for the disk, if it had to.
    pub(crate) asked_ns: Option<u64>,
}

/// A compound that waits for an answer.
pub(crate) struct Suspended {
    pub(crate) question: Question,
    origin: Origin,
    request_bytes: usize,
    sequence: Option<Sequenced>,
    named: Option<Arc<Client>>,
    current: Option<Id>,
    stateid: Option<Stateid4>,
    saved: Option<(Id, Option<Stateid4>)>,
    executed: usize,
    /// The results of the operations that have been executed.
    results: Vec<u8>,
    asked_ns: Option<u64>,
}

/// The session slot that the compound occupies.
struct Sequenced {
    session: Arc<Session>,
    slot: SlotId,
    id: SequenceId,
    cache: bool,
    /// sr_status_flags.
    status_flags: u32,
}

/// Where an operation stands, and where its results must end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) n: usize,
    pub(crate) count: usize,
    pub(crate) limit: usize,
}

/// How the operations end.
enum End {
    /// With this status, after so many results.
    Results(Status, u32),
    /// With the bytes of the earlier reply, which have been written.
    Replayed,
    /// Not yet: an answer has to be waited for.
    Suspended(Box<Suspended>),
}

/// What became of SEQUENCE.
enum Judged {
    New(SequenceOk),
    /// The reply was not kept; what SEQUENCE itself says is the same again.
    Uncached(SequenceOk),
    /// The kept reply has been written.
    Replayed,
}

impl<'a> Compound<'a> {
    pub(crate) const fn new(server: &'a Inner, origin: Origin, request_bytes: usize) -> Self {
        let (current, stateid, saved) = (None, None, None);
        let (question, answer) = (None, None);
        Compound {
            server,
            origin,
            request_bytes,
            sequence: None,
            named: None,
            user: None,
            unconfirmed: false,
            current,
            stateid,
            saved,
            question,
            answer,
            executed: 0,
            may_wait: false,
            asked_ns: None,
        }
    }

    /// A compound that has got its answer, and the results that it had.
    pub(crate) fn resumed(
        server: &'a Inner,
        suspended: Suspended,
        answer: Option<Answer>,
        now_ns: u64,
    ) -> (Self, Vec<u8>) {
        let Suspended {
            origin,
            request_bytes,
            sequence,
            named,
            current,
            stateid,
            saved,
            executed,
            results,
            asked_ns,
            ..
        } = suspended;
        let origin = Origin { now_ns, ..origin };
        let compound = Compound {
            sequence,
            named,
            current,
            stateid,
            saved,
            answer,
            executed,
            may_wait: true,
            asked_ns,
            ..Compound::new(server, origin, request_bytes)
        };
        (compound, results)
    }

    /// Runs the operations after the head `args` and writes the reply, which begins with `results` if the compound has
    /// been resumed. `base` is where the whole reply began: limits of the session count from there. What comes back has
    /// to be resumed, in a buffer of its own.
    pub(crate) fn run(
        mut self,
        args: &CompoundArgs<'_>,
        r: &mut Reader<'_>,
        results: &[u8],
        base: usize,
        w: &mut Writer<'_>,
    ) -> xdr::Result<Option<Box<Suspended>>> {
        let start = w.position();
        let written = self.operations(args, r, results, base, w);
        if let Ok(End::Suspended(suspended)) = written {
            return Ok(Some(suspended));
        }
        if let Some(Sequenced { session, slot, cache, .. }) = self.sequence.take() {
            // Whatever happened, the session slot is free again.
            let keep = cache && written.is_ok();
            session.slots().finish(slot, keep.then(|| w.written().get(start..).unwrap_or_default()));
        }
        written.map(|_| None)
    }

    /// Leaves off before an operation, with the results of those before it.
    fn suspend(&mut self, question: Question, executed: usize, results: &[u8]) -> Suspended {
        Suspended {
            question,
            origin: self.origin,
            request_bytes: self.request_bytes,
            sequence: self.sequence.take(),
            named: self.named.take(),
            current: self.current,
            stateid: self.stateid,
            saved: self.saved,
            executed,
            results: results.to_vec(),
            asked_ns: (question == Question::Storage).then(|| self.server.now_ns()),
        }
    }

    fn operations(
        &mut self,
        args: &CompoundArgs<'_>,
        r: &mut Reader<'_>,
        results: &[u8],
        base: usize,
        w: &mut Writer<'_>,
    ) -> xdr::Result<End> {
        let start = w.position();
        let head = CompoundResHead::reserve(args.tag, w)?;
        let first = w.position();
        w.raw(results)?;
        let end = if !MINOR_VERSIONS.contains(&args.minor_version) {
            // With no results at all (section 16.2.3).
            End::Results(Status::NFS4ERR_MINOR_VERS_MISMATCH, 0)
        } else if std::str::from_utf8(args.tag).is_err() {
            End::Results(Status::NFS4ERR_INVAL, 0)
        } else if self.is_minor0() && args.count > self.server.config.operations_max as usize {
            End::Results(Status::NFS4ERR_RESOURCE, 0)
        } else {
            self.each(args, r, (base, start, first), w)?
        };
        if let End::Results(status, count) = end {
            head.fill(status, count, w);
        }
        Ok(end)
    }

    /// Executes one operation after the other. The positions are those of the reply, of the compound in it, and of the
    /// first result.
    fn each(
        &mut self,
        args: &CompoundArgs<'_>,
        r: &mut Reader<'_>,
        (base, start, first): (usize, usize, usize),
        w: &mut Writer<'_>,
    ) -> xdr::Result<End> {
        if self.is_minor0() {
            self.user = self.server.minor0.user_of(self.origin.connection);
        }
        for _ in 0..self.executed {
            OpArgs::decode(r)?;
        }
        for n in self.executed..args.count {
            let before = w.position();
            let number = r.clone().u32("argop").map_or(Op::ILLEGAL, Op);
            let bytes = r.remaining();
            let op = OpArgs::decode(r);
            let answered = n as u32 + 1;
            let status = match op {
                Ok(OpArgs::Sequence(sequence)) if n == 0 && !self.is_minor0() => {
                    match self.sequence(&sequence, args, r, (base, start), w)? {
                        Ok(Judged::New(ok)) => {
                            OpRes::Sequence(Ok(ok)).encode(w)?;
                            Status::NFS4_OK
                        }
                        Ok(Judged::Replayed) => return Ok(End::Replayed),
                        Ok(Judged::Uncached(ok)) => return self.uncached(ok, args.count, r, w),
                        Err(status) => self.refuse(Op::SEQUENCE, status, w)?,
                    }
                }
                // The operation stands where it may not, whatever else is wrong with it.
                _ if let Err(status) = self.check_place(number, n, args.count) => self.refuse(number, status, w)?,
                _ if bytes.len() >= 4 && !number.is_defined_in(args.minor_version) => self.refuse_unknown(number, w)?,
                Err(_) => self.refuse(number, Status::NFS4ERR_BADXDR, w)?,
                Ok(OpArgs::Other(op)) => self.refuse_unknown(op, w)?,
                Ok(op) if self.is_minor0() => {
                    let bytes = bytes.get(..bytes.len() - r.remaining().len()).unwrap_or_default();
                    self.minor0(&op, bytes, (n, args.count, base), w)?
                }
                Ok(op) => self.within_limits(&op, n, args.count, base, w)?,
            };
            if let Some(question) = self.question.take() {
                w.rewind(before);
                let results = w.written().get(first..).unwrap_or_default();
                return Ok(End::Suspended(Box::new(self.suspend(question, n, results))));
            }
            if !status.is_ok() {
                return Ok(End::Results(status, answered));
            }
            self.asked_ns = None;
        }
        Ok(End::Results(Status::NFS4_OK, args.count as u32))
    }

    /// Which operations may come without a session, and where (RFC 8881 section 2.10.6.1 and the operations' own).
    fn check_place(&self, op: Op, n: usize, count: usize) -> Result<(), Status> {
        if self.is_minor0() {
            return Ok(());
        }
        let alone = matches!(
            op,
            Op::EXCHANGE_ID
                | Op::CREATE_SESSION
                | Op::BIND_CONN_TO_SESSION
                | Op::DESTROY_SESSION
                | Op::DESTROY_CLIENTID
        );
        match n {
            0 if alone && count > 1 => Err(Status::NFS4ERR_NOT_ONLY_OP),
            0 if alone || op == Op::SEQUENCE || !op.is_defined_in(self.origin.minor_version) => Ok(()),
            0 => Err(Status::NFS4ERR_OP_NOT_IN_SESSION),
            _ if op == Op::SEQUENCE => Err(Status::NFS4ERR_SEQUENCE_POS),
            // It stands alone, without SEQUENCE (section 18.34.3).
            _ if op == Op::BIND_CONN_TO_SESSION => Err(Status::NFS4ERR_NOT_ONLY_OP),
            _ => Ok(()),
        }
    }

    /// SEQUENCE (RFC 8881 section 18.46). The inner error is its status.
    fn sequence(
        &mut self,
        args: &SequenceArgs,
        compound: &CompoundArgs<'_>,
        r: &Reader<'_>,
        (base, start): (usize, usize),
        w: &mut Writer<'_>,
    ) -> xdr::Result<Result<Judged, Status>> {
        let session = match self.server.session(&args.session_id) {
            Ok(session) => session,
            Err(status) => return Ok(Err(status)),
        };
        if self.request_bytes > session.fore.request_bytes_max as usize {
            return Ok(Err(Status::NFS4ERR_REQ_TOO_BIG));
        }
        if compound.count > session.fore.operations_max as usize {
            return Ok(Err(Status::NFS4ERR_TOO_MANY_OPS));
        }
        // Not even its own results could be kept (RFC 8881 section 2.10.6.4).
        let bytes = w.position() - base + SEQUENCE_BYTES;
        if args.cache_this && bytes > session.fore.response_bytes_max_cached as usize {
            return Ok(Err(Status::NFS4ERR_REP_TOO_BIG_TO_CACHE));
        }
        let mut slots = session.slots();
        slots.set_target(SlotId(self.server.session_slots.get(self.origin.now_ns) - 1));
        let ok = |slots: &ReplierSlots| SequenceOk {
            session_id: args.session_id,
            sequence_id: args.sequence_id,
            slot_id: args.slot_id,
            highest_slot_id: slots.highest().0,
            target_highest_slot_id: slots.target().0,
            status_flags: self.server.status_flags(&session.client, session.key),
        };
        let slot = SlotId(args.slot_id);
        let digest = fingerprint(r.remaining());
        let judged = match slots.check(slot, SequenceId(args.sequence_id), SlotId(args.highest_slot_id), digest) {
            Ok(Check::New) => Ok(Judged::New(ok(&slots))),
            Ok(Check::Uncached) => Ok(Judged::Uncached(ok(&slots))),
            Ok(Check::Replay(reply)) => {
                w.rewind(start);
                w.raw(reply)?;
                Ok(Judged::Replayed)
            }
            Ok(Check::InProgress) => Err(Status::NFS4ERR_DELAY),
            Ok(Check::Misordered) => Err(Status::NFS4ERR_SEQ_MISORDERED),
            Ok(Check::FalseRetry) => Err(Status::NFS4ERR_SEQ_FALSE_RETRY),
            Err(NoSlot::BadSlot) => Err(Status::NFS4ERR_BADSLOT),
            Err(NoSlot::BadHighSlot) => Err(Status::NFS4ERR_BAD_HIGH_SLOT),
        };
        drop(slots);
        if judged.is_ok() {
            session.client.renew(self.origin.now_ns);
            session.associate(self.origin.connection);
        }
        if let Ok(Judged::New(ok)) = &judged {
            let status_flags = ok.status_flags;
            self.sequence = Some(Sequenced {
                session,
                slot,
                id: SequenceId(args.sequence_id),
                cache: args.cache_this,
                status_flags,
            });
        }
        Ok(judged)
    }

    /// Executes an operation if its results will fit into what the session allows (RFC 8881 section 2.10.6.4), and takes
    /// them back if they did not after all.
    pub(crate) fn within_limits(
        &mut self,
        op: &OpArgs<'_>,
        n: usize,
        count: usize,
        base: usize,
        w: &mut Writer<'_>,
    ) -> xdr::Result<Status> {
        let (limit, status) = self.reply_limit(base, w);
        let before = w.position();
        if before + result_bytes_max(op) > limit {
            return self.refuse(op.op(), status, w);
        }
        let place = Place { n, count, limit };
        let mut written = self.execute(op, place, w);
        // A client that has been silent for longer than its lease stands in nobody's way.
        if written.as_ref().is_ok_and(|status| is_conflict(*status)) && self.has_courtesy_clients() && self.may_store()
        {
            let any = self.server.end_courtesy(self.origin.now_ns);
            if any {
                w.rewind(before);
                self.question = None;
                written = self.execute(op, place, w);
            }
        }
        if written.is_err() || w.position() > limit {
            w.rewind(before);
            return self.refuse(op.op(), status, w);
        }
        written
    }

    fn has_courtesy_clients(&self) -> bool {
        // If it has waited for that it was seen before.
        self.may_wait && self.server.store.is_some() || self.server.has_courtesy_clients(self.origin.now_ns)
    }

    /// Where the reply must end, and what to say of one that does not.
    fn reply_limit(&self, base: usize, w: &Writer<'_>) -> (usize, Status) {
        let space = w.position() + w.left();
        let Some(Sequenced { session, cache, .. }) = &self.sequence else {
            let status = if self.is_minor0() { Status::NFS4ERR_RESOURCE } else { Status::NFS4ERR_REP_TOO_BIG };
            return (space, status);
        };
        let fore = &session.fore;
        let (bytes, status) = match cache {
            true => (fore.response_bytes_max_cached, Status::NFS4ERR_REP_TOO_BIG_TO_CACHE),
            false => (fore.response_bytes_max, Status::NFS4ERR_REP_TOO_BIG),
        };
        ((base + bytes as usize).min(space), status)
    }

    /// The session of the compound. Operations that need one come after SEQUENCE only.
    pub(crate) fn session(&self) -> Result<&Arc<Session>, Status> {
        self.sequence.as_ref().map(|s| &s.session).ok_or(Status::NFS4ERR_OP_NOT_IN_SESSION)
    }

    /// Where it came on the fore channel.
    pub(crate) fn request(&self) -> Option<Request> {
        let sequenced = self.sequence.as_ref()?;
        Some(Request { session: sequenced.session.id, slot: sequenced.slot, id: sequenced.id })
    }

    /// Whether the compound is one of minor version 0.
    pub(crate) const fn is_minor0(&self) -> bool {
        self.origin.minor_version == 0
    }

    /// Whose the compound is. In minor version 0 that may be unknown, and nobody's.
    pub(crate) fn client(&self) -> Result<&Arc<Client>, Status> {
        match self.named.as_ref().or(self.user.as_ref()) {
            Some(client) => Ok(client),
            None if self.is_minor0() => Ok(&self.server.nobody),
            None => self.session().map(|session| &session.client),
        }
    }

    /// Whether callbacks reach the client. Told by SEQUENCE, as asking the runtime means telling the client.
    pub(crate) fn has_path(&self) -> bool {
        if let Some(client) = &self.named {
            return client.has_path();
        }
        self.sequence.as_ref().is_some_and(|s| s.status_flags & seq4_status::CB_PATH_DOWN == 0)
    }

    /// The answer to a retry whose reply was not kept (RFC 8881 section 2.10.6.1.3).
    fn uncached(&self, ok: SequenceOk, count: usize, r: &Reader<'_>, w: &mut Writer<'_>) -> xdr::Result<End> {
        OpRes::Sequence(Ok(ok)).encode(w)?;
        if count == 1 {
            return Ok(End::Results(Status::NFS4_OK, 1));
        }
        let second = r.clone().u32("argop").map_or(Op::ILLEGAL, Op);
        self.refuse(second, Status::NFS4ERR_RETRY_UNCACHED_REP, w).map(|status| End::Results(status, 2))
    }

    /// Writes the result of an operation that failed before it was executed. One that the minor version does not define is
    /// answered as OP_ILLEGAL.
    pub(crate) fn refuse(&self, op: Op, status: Status, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let op = if op.is_defined_in(self.origin.minor_version) { op } else { Op::ILLEGAL };
        OpRes::Other(op, status).encode(w)?;
        Ok(status)
    }

    /// Answers an operation that the minor version does not define, or this server not serve.
    fn refuse_unknown(&self, op: Op, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let refusal = OpRes::refusal(op, self.origin.minor_version);
        refusal.encode(w)?;
        Ok(refusal.status())
    }

    /// The current filehandle.
    pub(crate) fn file(&self) -> Result<Id, Status> {
        self.current.ok_or(Status::NFS4ERR_NOFILEHANDLE)
    }

    /// The second of the server's life.
    pub(crate) const fn now_s(&self) -> u32 {
        (self.origin.now_ns / 1_000_000_000) as u32
    }

    /// For whom the compound is executed.
    pub(crate) fn caller<'c>(&self, client: &'c Client) -> Caller<'c> {
        let Origin { principal, gid, .. } = self.origin;
        let uid = if let Principal::Uid(uid) = principal { uid } else { NOBODY };
        Caller { client, now_s: self.now_s(), maker: Maker { uid, gid, now: now() } }
    }

    /// The stateid that an argument means: itself, or the current one (RFC 8881 section 16.2.3.1.2).
    pub(crate) fn meant(&self, stateid: &Stateid4) -> Result<Stateid4, Status> {
        match *stateid {
            Stateid4::CURRENT if !self.is_minor0() => self.stateid.ok_or(Status::NFS4ERR_BAD_STATEID),
            given => Ok(given),
        }
    }

    pub(crate) fn go_to(&mut self, file: Id) {
        self.current = Some(file);
        // A new current filehandle has no current stateid (section 16.2.3.1.2).
        self.stateid = None;
    }
}

impl Inner {
    /// The SEQ4_STATUS bits for a SEQUENCE of a client.
    fn status_flags(&self, client: &Client, session: SessionKey) -> u32 {
        let revoked = self.files.has_revoked(client.index);
        let flag = if revoked { seq4_status::RECALLABLE_STATE_REVOKED } else { 0 };
        let reclaims = client.claims() == Claims::Former && !client.has_reclaimed() && self.files.grace.is_on();
        let flag = flag | if reclaims { seq4_status::RESTART_RECLAIM_NEEDED } else { 0 };
        flag | self.callbacks.status(client.callbacks, session)
    }
}

/// Whether an operation failed because of what another client holds.
fn is_conflict(status: Status) -> bool {
    matches!(
        status,
        Status::NFS4ERR_DELAY | Status::NFS4ERR_SHARE_DENIED | Status::NFS4ERR_DENIED | Status::NFS4ERR_LOCKED
    )
}
