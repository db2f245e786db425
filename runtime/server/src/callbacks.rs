//! How this server uses ringback. Everything is here.
//!
//! Callbacks are sent of several kinds, each about one object of ours ([`Subject`]):
//!
//! - CB_RECALL of a delegation, and CB_GETATTR of one for writing: made with the grant, removed with the return;
//! - CB_NOTIFY of what changes in a directory: made with a directory delegation, removed with it (`watches.rs`). A request to
//!   run it is never lost in a run that goes on: the runtime runs it once more, for what has changed meanwhile;
//! - CB_NOTIFY_LOCK to a lock-owner that waits: made when it is denied the lock, run and removed when it may have it;
//! - CB_PUSH_DELEG, CB_RECALLABLE_OBJ_AVAIL and CB_WANTS_CANCELLED to who waits for a delegation: made and run when there is something
//!   to be told (`wants.rs`);
//! - CB_OFFLOAD of a copy that went on after the reply to COPY: made with the copy, run once at its end.
//!
//! The object keeps the [`CallbackKey`]; the runtime keeps 64 bits of ours, the cookie, which name the object: kind, index
//! and generation. Stateid, filehandle and the like stay with the object and are looked up when a call is encoded.
//!
//! Who frees an object? Both sides name each other by generations, so neither can mistake a new object for an old one. The
//! end of an object removes its callback, under the shard's lock. If no run was going on, both go at once. Else the hooks
//! may still look at it (a call that is sent again must be the same bytes, rule R9), and it goes with the run:
//! [`Hooks::drop_reference`] is the last that the runtime says about one. No counter of ours is needed; `acquire` stays
//! empty.
//!
//! A conflict recalls all that is in its way with one call, and is refused (NFS4ERR_DELAY) until all of it is settled
//! ([`Group`]): what was not given back by then is recalled again, unless the client has answered. When a return is
//! overdue the runtime says so ([`Event::ReturnOverdue`]), and the delegation is revoked; so it is if the client could
//! not be reached at all for the whole deadline. Who asked comes again by himself.
//!
//! CB_RECALL_ANY the runtime sends by itself when there are more delegations than there may be. All that it
//! wants of us is which were used longest ago ([`Hooks::recall_least_recently_used`]): `reaper.rs`.
//!
//! So does CB_RECALL_SLOT, which is asked for with a session and a number: `session_slots.rs`.
//!
//! Clients of minor version 0 have no sessions: the runtime connects to them. They are given delegations while
//! [`Event::PathState`] says that this works: `set_client_id.rs`.
//!
//! Who needs the answer to a CB_GETATTR waits for it as a future: `later.rs`.
//!
//! Locks: the hooks run on reactor threads and take one shard's lock for a look. `try_run`, `insert` and `remove` are
//! called with that lock held, which is legal as they never block and call no hook that takes it.

use crate::Inner;
use crate::arena::Id;
use crate::copy_ops::COPY_SEQID;
use crate::delegations::{GETATTR, NOTIFY, RECALL, State};
use crate::files::{HANDLE_BYTES, SPARE_BITS, global, shard_number};
use crate::holder_attributes::ASKED;
use crate::stateids::Kind;
use ringback::{
    CallbackKey, CallbackOp, ClientId, ConnectionId, Done, Error, Event, Group, Hooks, Outcome, PathConfig, Prepare,
    ReferringCalls, Remove, Restored, Run, Runtime, Security, SessionConfig, SessionKey, TryRun,
};
use ringback_rpc::nfs4::callback::{
    CbGetattrArgs, CbNotifyLockArgs, CbOffloadArgs, CbRecallArgs, OffloadInfo, WriteResponse4,
};
use ringback_rpc::nfs4::{FileHandle, StateOwner4, Stateid4, Status};
use ringback_rpc::xdr::{self, Encode, Writer, XdrError, XdrErrorKind};
use std::sync::{Arc, PoisonError, RwLock, Weak};

/// Who wants to know what becomes of the recalls, besides the server. Called on reactor threads, or in the thread of an
/// OPEN under a short lock: count and return.
pub trait Observer: Send + Sync + 'static {
    /// A conflict has started a recall.
    fn accepted(&self, key: CallbackKey) {
        let _ = key;
    }

    /// A recall has its outcome.
    fn done(&self, run: &Run, outcome: &Outcome<'_>) {
        let _ = (run, outcome);
    }

    /// A recall is over.
    fn released(&self, run: &Run) {
        let _ = run;
    }

    /// Stable storage has failed. Nobody is told that something is safe which is not; clients come again.
    fn storage_failed(&self, error: &std::io::Error) {
        let _ = error;
    }

    /// Something happened to a client's callback path.
    fn event(&self, event: &Event) {
        let _ = event;
    }
}

/// Nobody wants to know.
impl Observer for () {}

/// How often a client may deny that it holds a delegation before it is believed: the reply to its OPEN may be still on its
/// way (RFC 8881 section 2.10.6.3).
const DENIALS_MAX: u8 = 5;
/// Nanoseconds until a recall that was denied is sent again.
const DENIAL_DELAY_NS: u64 = 200_000_000;

/// Nanoseconds until a recall is sent again that the client could not take.
const FAULT_DELAY_NS: u64 = 1_000_000_000;

/// Ends a run of which the object is gone.
pub(crate) const GONE: XdrError =
    XdrError { what: "what the callback is about is gone", offset: 0, kind: XdrErrorKind::BadValue { value: 0 } };

/// What a callback is about. As a cookie: the kind in the spare bits of the index, and the generation above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// CB_RECALL of a delegation.
    Recall(Id),
    /// CB_GETATTR of a write delegation.
    Attributes(Id),
    /// CB_NOTIFY_LOCK to one who waits.
    Lock(Id),
    /// CB_OFFLOAD of a copy.
    Offload(Id),
    /// CB_NOTIFY of a directory delegation.
    Notify(Id),
    /// CB_PUSH_DELEG to one who waits for a delegation.
    Push(Id),
    /// CB_RECALLABLE_OBJ_AVAIL to one who waits for room.
    Available(Id),
    /// CB_WANTS_CANCELLED to one who waits in vain.
    Cancelled(Id),
    /// What an administrator has sent: it says itself which operation it is.
    ByHand(Id),
    /// CB_LAYOUTRECALL of a layout.
    Layout(Id),
    /// CB_LAYOUTRECALL of all layouts of a client.
    Layouts(Id),
    /// CB_NOTIFY_DEVICEID to a client.
    Device(Id),
}

impl Subject {
    pub(crate) fn cookie(self) -> u64 {
        let (kind, id) = match self {
            Subject::Recall(id) => (0, id),
            Subject::Attributes(id) => (1, id),
            Subject::Lock(id) => (2, id),
            Subject::Offload(id) => (3, id),
            Subject::Notify(id) => (4, id),
            Subject::Push(id) => (5, id),
            Subject::Available(id) => (6, id),
            Subject::Cancelled(id) => (7, id),
            Subject::ByHand(id) => (8, id),
            Subject::Layout(id) => (9, id),
            Subject::Layouts(id) => (10, id),
            Subject::Device(id) => (11, id),
        };
        u64::from(id.generation) << 32 | kind << (32 - SPARE_BITS) | u64::from(id.index)
    }

    pub(crate) fn of(cookie: u64) -> Subject {
        let index = cookie as u32 & (u32::MAX >> SPARE_BITS);
        let id = Id { index, generation: (cookie >> 32) as u32 };
        match cookie as u32 >> (32 - SPARE_BITS) {
            0 => Subject::Recall(id),
            1 => Subject::Attributes(id),
            2 => Subject::Lock(id),
            3 => Subject::Offload(id),
            4 => Subject::Notify(id),
            5 => Subject::Push(id),
            6 => Subject::Available(id),
            7 => Subject::Cancelled(id),
            8 => Subject::ByHand(id),
            9 => Subject::Layout(id),
            10 => Subject::Layouts(id),
            _ => Subject::Device(id),
        }
    }

    const fn op(self) -> CallbackOp {
        match self {
            Subject::Recall(_) => CallbackOp::Recall,
            Subject::Attributes(_) => CallbackOp::Getattr,
            Subject::Lock(_) => CallbackOp::NotifyLock,
            Subject::Offload(_) => CallbackOp::Offload,
            Subject::Notify(_) => CallbackOp::Notify,
            Subject::Push(_) => CallbackOp::PushDeleg,
            Subject::Available(_) => CallbackOp::RecallableObjAvail,
            Subject::Cancelled(_) => CallbackOp::WantsCancelled,
            // Not known here, and refused.
            Subject::ByHand(_) => CallbackOp::Illegal,
            Subject::Layout(_) | Subject::Layouts(_) => CallbackOp::LayoutRecall,
            Subject::Device(_) => CallbackOp::NotifyDeviceId,
        }
    }
}

/// The server's side of the runtime.
pub(crate) struct Callbacks {
    /// Set when runtime and server have been built, as each needs the other, and when another runtime goes on. Weak, for the
    /// runtime owns its hooks, and two that own each other are never freed.
    runtime: RwLock<Weak<Runtime>>,
    observer: Arc<dyn Observer>,
}

impl Callbacks {
    pub(crate) fn new(observer: Arc<dyn Observer>) -> Self {
        Callbacks { runtime: RwLock::default(), observer }
    }

    pub(crate) fn observer(&self) -> &dyn Observer {
        &*self.observer
    }

    pub(crate) fn connect(&self, runtime: &Arc<Runtime>) {
        *self.runtime.write().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(runtime);
    }

    pub(crate) fn runtime(&self) -> Option<Arc<Runtime>> {
        self.runtime.read().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// A new callback; `None` when the runtime takes no more.
    pub(crate) fn insert(&self, client: ClientId, about: Subject) -> Option<CallbackKey> {
        self.runtime()?.insert(client, about.op(), about.cookie()).ok()
    }

    /// Runs a callback; whether that is a new run. Every answer is fine: it runs now, it was running, or it is going away.
    pub(crate) fn run(&self, key: CallbackKey) -> bool {
        self.runtime().is_some_and(|runtime| match runtime.try_run(key) {
            TryRun::Submitted | TryRun::Rearmed => true,
            TryRun::Coalesced | TryRun::Stale | TryRun::Dying | TryRun::Closed => false,
        })
    }

    /// Recalls a delegation; whether that is a new run.
    pub(crate) fn recall(&self, key: CallbackKey) -> bool {
        let accepted = self.run(key);
        if accepted {
            self.observer.accepted(key);
        }
        accepted
    }

    /// Somebody is refused a delegation because there are as many as there may be.
    pub(crate) fn want_room(&self) {
        // Without a runtime there is nobody to make room.
        let _ = self.runtime().map(|runtime| runtime.want_room());
    }

    /// Recalls delegations that are in the way of one who is to come again when all of them are settled. `None`: there is
    /// no memory to wait for all; they are recalled one by one.
    pub(crate) fn recall_all(&self, keys: &[CallbackKey]) -> Option<Group> {
        let runtime = self.runtime()?;
        let asked = |key, answer| {
            if matches!(answer, TryRun::Submitted | TryRun::Rearmed) {
                self.observer.accepted(key);
            }
        };
        match runtime.try_run_many(keys, asked) {
            Ok(group) => Some(group),
            Err(_) => {
                keys.iter().for_each(|key| asked(*key, runtime.try_run(*key)));
                None
            }
        }
    }

    /// Ends a run that takes too long, if it has not ended by itself.
    pub(crate) fn give_up(&self, key: CallbackKey) {
        let _ = self.runtime().map(|runtime| runtime.cancel(key));
    }

    /// Removes a callback. True: no hook will ask for its object again. False: a run is going on, and
    /// [`Hooks::drop_reference`] will end it.
    pub(crate) fn remove_is_final(&self, key: CallbackKey) -> bool {
        self.runtime().is_none_or(|runtime| runtime.remove(key) != Remove::Deferred)
    }

    /// The SEQ4_STATUS bits for a SEQUENCE (RFC 8881 section 18.46.3). Who asks tells the client.
    pub(crate) fn status(&self, client: ClientId, session: SessionKey) -> u32 {
        self.runtime().map_or(0, |runtime| runtime.seq4_status(client, Some(session)))
    }

    /// Registers a client, near the connection on which it confirmed itself.
    pub(crate) fn add_client(&self, near: ConnectionId) -> Result<ClientId, Status> {
        let runtime = self.runtime().ok_or(Status::NFS4ERR_DELAY)?;
        runtime.add_client(Some(near)).map_err(refused)
    }

    /// Has a client of minor version 0 called back so; whether that may be.
    pub(crate) fn set_path(&self, client: ClientId, path: &PathConfig) -> bool {
        self.runtime().is_some_and(|runtime| {
            runtime.set_client_id(client, path.clone()).and_then(|path| runtime.confirm(path)).is_ok()
        })
    }

    /// Whether a client of minor version 0 is known not to be reached. Who asks tells the client.
    pub(crate) fn is_path_down(&self, client: ClientId) -> bool {
        self.runtime().is_some_and(|runtime| runtime.is_path_down(client))
    }

    pub(crate) fn remove_client(&self, client: ClientId) {
        // An error says that it is gone, which is what is wanted.
        let _ = self.runtime().map(|runtime| runtime.remove_client(client));
    }

    /// Registers a session, and binds its backchannel to `connection` if there is one.
    pub(crate) fn add_session(
        &self,
        client: ClientId,
        config: SessionConfig,
        connection: Option<ConnectionId>,
    ) -> Result<SessionKey, Status> {
        let runtime = self.runtime().ok_or(Status::NFS4ERR_DELAY)?;
        let session = runtime.add_session(client, config).map_err(refused)?;
        if let Some(connection) = connection {
            self.bind(connection, session);
        }
        Ok(session)
    }

    pub(crate) fn remove_session(&self, session: SessionKey) {
        // As for a client.
        let _ = self.runtime().map(|runtime| runtime.remove_session(session));
    }

    /// Asks a session's client to use no higher session slot on the fore channel; whether it could be asked.
    pub(crate) fn recall_slots(&self, session: SessionKey, highest: u32) -> bool {
        self.runtime().is_some_and(|runtime| runtime.recall_slots(session, highest).is_ok())
    }

    pub(crate) fn bind(&self, connection: ConnectionId, session: SessionKey) {
        // It fails only for a client that is gone, whose next SEQUENCE says so.
        let _ = self.runtime().map(|runtime| runtime.bind(connection, session));
    }

    pub(crate) fn control(&self, session: SessionKey, program: u32, security: Security) -> Result<(), Status> {
        let runtime = self.runtime().ok_or(Status::NFS4ERR_DELAY)?;
        runtime.backchannel_ctl(session, program, security).map_err(refused)
    }
}

/// What the client is told when the runtime refuses a registration.
fn refused(error: Error) -> Status {
    match error {
        Error::ClientsFull { .. } | Error::SessionsFull { .. } => Status::NFS4ERR_NOSPC,
        Error::BadSession { .. } => Status::NFS4ERR_TOOSMALL,
        // The runtime is at the end of its life: the client may find the next one.
        _ => Status::NFS4ERR_DELAY,
    }
}

impl Inner {
    /// What CB_RECALL and CB_GETATTR say about a delegation, from its grant to the end of its last run; and whether the
    /// client still holds it.
    fn delegation(&self, id: Id) -> Option<(Stateid4, [u8; HANDLE_BYTES], State)> {
        let (shard, local) = self.files.shard_of(id);
        let delegation = shard.delegations.get(local)?;
        // A revoked delegation may outlive its file; its recall is over.
        let file = global(shard_number(id), shard.files.id_at(delegation.file)?);
        let stateid = self.files.stateid(Kind::Delegation, id, crate::delegations::SEQID);
        Some((stateid, self.files.handle(file), delegation.state))
    }

    fn encode_recall(&self, id: Id, w: &mut Writer<'_>) -> xdr::Result<()> {
        let (stateid, handle, _) = self.delegation(id).ok_or(GONE)?;
        CbRecallArgs { stateid, truncate: false, fh: FileHandle::new(&handle).ok_or(GONE)? }.encode(w)
    }

    fn encode_getattr(&self, id: Id, w: &mut Writer<'_>) -> xdr::Result<()> {
        let (_, handle, _) = self.delegation(id).ok_or(GONE)?;
        CbGetattrArgs { fh: FileHandle::new(&handle).ok_or(GONE)?, attr_request: ASKED }.encode(w)
    }

    /// What was put together when the run was prepared.
    fn encode_notify(&self, id: Id, w: &mut Writer<'_>) -> xdr::Result<()> {
        let (stateid, handle, _) = self.delegation(id).ok_or(GONE)?;
        stateid.encode(w)?;
        FileHandle::new(&handle).ok_or(GONE)?.encode(w)?;
        let (shard, local) = self.files.shard_of(id);
        let watch = shard.delegations.get(local).and_then(|d| d.watch());
        watch.ok_or(GONE)?.encode_sending(w)
    }

    fn encode_notify_lock(&self, id: Id, w: &mut Writer<'_>) -> xdr::Result<()> {
        let (shard, local) = self.files.shard_of(id);
        let waiter = shard.waiters.get(local).ok_or(GONE)?;
        let handle = self.files.handle(global(shard_number(id), waiter.file));
        let lock_owner = StateOwner4::new(waiter.client_id, waiter.owner.as_bytes()).ok_or(GONE)?;
        CbNotifyLockArgs { fh: FileHandle::new(&handle).ok_or(GONE)?, lock_owner }.encode(w)
    }

    fn encode_offload(&self, id: Id, w: &mut Writer<'_>) -> xdr::Result<()> {
        let copies = self.copies.lock();
        let copying = copies.get(id).ok_or(GONE)?;
        let (handle, count) = (self.files.handle(copying.way.to), copying.copied);
        let info = match copying.ended {
            Some(Status::NFS4_OK) => OffloadInfo::Done(WriteResponse4 {
                callback_id: None,
                count,
                committed: self.stability(),
                verifier: self.files.verifier(),
            }),
            status => OffloadInfo::Failed { status: status.ok_or(GONE)?, bytes_copied: count },
        };
        let stateid = self.files.stateid(Kind::Copy, id, COPY_SEQID);
        CbOffloadArgs { fh: FileHandle::new(&handle).ok_or(GONE)?, stateid, info }.encode(w)
    }

    /// How the recall of a delegation went.
    fn recall_done(&self, id: Id, outcome: &Outcome<'_>) -> Done {
        match outcome {
            Outcome::Replied { status: Status::NFS4_OK, .. } => {
                let (mut shard, local) = self.files.shard_of(id);
                if let Some(delegation) = shard.delegations.get_mut(local) {
                    delegation.answered = true;
                }
            }
            Outcome::Replied { status: Status::NFS4ERR_BAD_STATEID | Status::NFS4ERR_BADHANDLE, .. } => {
                return self.denied(id);
            }
            // The client refuses the call itself, until it has a session that is well.
            Outcome::Fault(_) => return Done::RequeueAfter(FAULT_DELAY_NS),
            // It never got there: no return is awaited, so none will be overdue.
            Outcome::TimedOut { sent: false } | Outcome::PathDown => self.revoke(id),
            // The client holds it and may not know of the recall: the next conflict recalls it again.
            _ => {}
        }
        Done::Finish
    }

    /// How a notification went: one that the client may not have heard is the end of all, and its delegation is recalled.
    fn notify_done(&self, id: Id, outcome: &Outcome<'_>) -> Done {
        match outcome {
            Outcome::Replied { status: Status::NFS4_OK, .. } => self.files.was_told(id, &self.callbacks),
            Outcome::Replied { status: Status::NFS4ERR_BAD_STATEID | Status::NFS4ERR_BADHANDLE, .. } => {
                return self.denied(id);
            }
            Outcome::Refused | Outcome::Cancelled { .. } => {}
            _ => self.files.was_not_told(id, &self.callbacks),
        }
        Done::Finish
    }

    /// The client says that it does not hold the delegation. Its OPEN's reply may be on the way, so it is asked again; a
    /// client that keeps saying so is right.
    fn denied(&self, id: Id) -> Done {
        let (mut shard, local) = self.files.shard_of(id);
        let Some(delegation) = shard.delegations.get_mut(local) else { return Done::Finish };
        if delegation.state != State::Held {
            return Done::Finish;
        }
        delegation.denials += 1;
        if delegation.denials < DENIALS_MAX {
            return Done::RequeueAfter(DENIAL_DELAY_NS);
        }
        self.files.drop_delegation(&mut shard, local, &self.callbacks);
        Done::Finish
    }

    /// Whether a recall is still to be sent: the delegation may have been returned between `try_run` and now.
    fn prepare_recall(&self, id: Id) -> bool {
        let (mut shard, local) = self.files.shard_of(id);
        let Some(delegation) = shard.delegations.get_mut(local).filter(|d| d.state == State::Held) else {
            return false;
        };
        delegation.recalled = true;
        true
    }
}

impl Hooks for Inner {
    fn prepare(&self, run: &Run) -> Prepare {
        let wanted = match Subject::of(run.cookie) {
            Subject::Recall(id) => self.prepare_recall(id),
            Subject::Attributes(id) => matches!(self.delegation(id), Some((_, _, State::Held))),
            Subject::Notify(id) => self.prepare_notify(id),
            // These are told at most once.
            Subject::Offload(id) => {
                self.prepare_offload(id);
                true
            }
            Subject::Lock(_) => true,
            Subject::Push(_) | Subject::Available(_) | Subject::Cancelled(_) | Subject::ByHand(_) => true,
            Subject::Layout(_) | Subject::Layouts(_) | Subject::Device(_) => true,
        };
        if wanted { Prepare::Send } else { Prepare::Refuse }
    }

    fn referring_calls(&self, run: &Run, calls: &mut ReferringCalls<'_>) {
        if let Subject::Offload(id) = Subject::of(run.cookie) {
            self.referred_by_offload(id, calls);
        }
    }

    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        match Subject::of(run.cookie) {
            Subject::Recall(id) => self.encode_recall(id, args),
            Subject::Attributes(id) => self.encode_getattr(id, args),
            Subject::Lock(id) => self.encode_notify_lock(id, args),
            Subject::Offload(id) => self.encode_offload(id, args),
            Subject::Notify(id) => self.encode_notify(id, args),
            Subject::Push(id) | Subject::Available(id) | Subject::Cancelled(id) => self.encode_want(id, args),
            Subject::ByHand(id) => self.by_hand.encode(id, args),
            Subject::Layout(id) => self.encode_layout_recall(id, args),
            Subject::Layouts(id) | Subject::Device(id) => self.encode_word(id, args),
        }
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        let id = match Subject::of(run.cookie) {
            Subject::Recall(id) => id,
            Subject::Notify(id) => return self.notify_done(id, outcome),
            Subject::Push(id) => return self.push_done(id, outcome),
            Subject::Layout(id) => return self.layout_recall_done(id, outcome),
            Subject::Layouts(id) => return self.layouts_recall_done(id, outcome),
            Subject::Offload(id) => {
                if matches!(outcome, Outcome::Replied { status: Status::NFS4_OK, .. }) {
                    self.copies.was_told(id);
                }
                return Done::Finish;
            }
            _ => return Done::Finish,
        };
        let next = self.recall_done(id, outcome);
        if next == Done::Finish {
            self.callbacks.observer.done(run, outcome);
        }
        next
    }

    fn release(&self, run: &Run) {
        if run.op == CallbackOp::Recall {
            self.callbacks.observer.released(run);
        }
    }

    fn drop_reference(&self, cookie: u64) {
        match Subject::of(cookie) {
            Subject::Recall(id) => self.files.forget_returned(id, RECALL),
            Subject::Attributes(id) => self.files.forget_returned(id, GETATTR),
            Subject::Lock(id) => self.files.forget_waiter(id),
            Subject::Offload(id) => self.copies.forget_told(id, &self.callbacks),
            Subject::Notify(id) => self.files.forget_returned(id, NOTIFY),
            Subject::Layout(id) => self.layouts.forget_layout(id),
            Subject::Layouts(id) | Subject::Device(id) => self.layouts.forget_word(id, &self.callbacks),
            Subject::Push(id) | Subject::Available(id) | Subject::Cancelled(id) => {
                self.wants.forget_told(id, &self.callbacks);
            }
            Subject::ByHand(id) => {
                self.by_hand.forget(id).map(|callback| self.callbacks.remove_is_final(callback));
            }
        }
    }

    fn restored(&self, callback: &Restored) -> Option<u64> {
        // Who has sent it waits for no answer of another process.
        match Subject::of(callback.cookie) {
            Subject::ByHand(_) => None,
            _ => Some(callback.cookie),
        }
    }

    fn checkpoint(&self, out: &mut Vec<u8>) {
        // Numbers and names: it cannot fail.
        let _ = serde_json::to_writer(out, &self.roster());
        self.write_state();
    }

    fn recall_least_recently_used(&self, client: ClientId, count: usize) -> usize {
        self.recall_oldest(client, count)
    }

    fn event(&self, event: &Event) {
        match event {
            Event::ReturnOverdue { cookie, .. } => match Subject::of(*cookie) {
                Subject::Recall(id) => self.revoke(id),
                Subject::Layout(id) => self.layout_overdue(id),
                Subject::Layouts(id) => self.layouts_overdue(id),
                _ => {}
            },
            Event::PathState { client, state } => self.minor0.path_is(*client, *state),
            Event::MemoryPressure { .. } => {
                self.spare_session_slots();
                // Delegations are given up now: nobody gets more of them because it waits.
                self.cancel_all_wants();
            }
            Event::RecallAnySent { keep, clients } => self.asked_all.tell(*keep, *clients),
            _ => {}
        }
        self.callbacks.observer.event(event);
    }
}
