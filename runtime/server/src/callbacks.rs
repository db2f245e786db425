//! How this server uses ringback. Everything is here.
//!
//! A delegation has one callback, its CB_RECALL, made with the grant ([`Callbacks::insert`]) and removed with the return
//! ([`Callbacks::remove_is_final`]). The runtime keeps 64 bits of ours with it, the cookie: the delegation's index and
//! generation. The delegation keeps the [`CallbackKey`]. Stateid and filehandle stay with the delegation; they are looked
//! up when a call is encoded.
//!
//! Who frees a delegation? Both sides name each other by generations, so neither can mistake a new object for an old
//! one. A return marks the delegation as returned and removes the callback, under the shard's lock. If no run was going
//! on, the entry goes at once. Else the hooks may still look at it (a recall that is sent again must be the same bytes,
//! rule R9), and it goes with the run: [`Hooks::drop_reference`] is the last that the runtime says about one. No counter
//! of ours is needed; `acquire` stays empty.
//!
//! Locks: the hooks run on reactor threads and take one shard's lock for a look. `try_run`, `insert` and `remove` are
//! called with that lock held, which is legal as they never block and call no hook that takes it.

use crate::Inner;
use crate::arena::Id;
use crate::delegations::State;
use crate::files::{ROOT, global, shard_number};
use crate::stateids::Kind;
use ringback::{
    CallbackKey, CallbackOp, ClientId, ConnectionId, Done, Error, Event, Hooks, Outcome, Prepare, Remove, Run, Runtime,
    Security, SessionConfig, SessionKey, TryRun,
};
use ringback_rpc::nfs4::callback::CbRecallArgs;
use ringback_rpc::nfs4::{FileHandle, Stateid4, Status};
use ringback_rpc::xdr::{self, Encode};
use std::sync::{Arc, OnceLock, Weak};

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
/// What no file has.
const NO_HANDLE: FileHandle<'static> = match FileHandle::new(&[]) {
    Some(handle) => handle,
    None => panic!("an empty handle is not too long"),
};
/// Nanoseconds until a recall that was denied is sent again.
const DENIAL_DELAY_NS: u64 = 200_000_000;

/// The server's side of the runtime.
pub(crate) struct Callbacks {
    /// Set once, when runtime and server have been built: each needs the other. Weak, for the runtime owns its hooks, and
    /// two that own each other are never freed.
    runtime: OnceLock<Weak<Runtime>>,
    observer: Arc<dyn Observer>,
}

impl Callbacks {
    pub(crate) fn new(observer: Arc<dyn Observer>) -> Self {
        Callbacks { runtime: OnceLock::new(), observer }
    }

    pub(crate) fn connect(&self, runtime: &Arc<Runtime>) {
        // A second runtime cannot happen: the server is built with its only one.
        let _ = self.runtime.set(Arc::downgrade(runtime));
    }

    pub(crate) fn runtime(&self) -> Option<Arc<Runtime>> {
        self.runtime.get()?.upgrade()
    }

    /// A callback for a new delegation; `None` when the runtime takes no more.
    pub(crate) fn insert(&self, client: ClientId, delegation: Id) -> Option<CallbackKey> {
        self.runtime()?.insert(client, CallbackOp::Recall, cookie(delegation)).ok()
    }

    /// Recalls a delegation. Every answer is fine: it runs now, it was running, or it is going away.
    pub(crate) fn recall(&self, key: CallbackKey) {
        let Some(runtime) = self.runtime() else { return };
        match runtime.try_run(key) {
            TryRun::Submitted | TryRun::Rearmed => self.observer.accepted(key),
            TryRun::Coalesced | TryRun::Stale | TryRun::Dying | TryRun::Closed => {}
        }
    }

    /// Removes a callback. True: no hook will ask for its delegation again. False: a run is going on, and
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

fn cookie(delegation: Id) -> u64 {
    u64::from(delegation.generation) << 32 | u64::from(delegation.index)
}

fn delegation_of(cookie: u64) -> Id {
    Id { index: cookie as u32, generation: (cookie >> 32) as u32 }
}

impl Inner {
    /// What CB_RECALL says about a delegation, from its grant to the end of its last run; and whether the client still
    /// holds it.
    fn recall_of(&self, cookie: u64) -> Option<(Stateid4, Id, State)> {
        let id = delegation_of(cookie);
        let (shard, local) = self.files.shard_of(id);
        let delegation = shard.delegations.get(local)?;
        // A revoked delegation may outlive its file; its recall is over.
        let file = global(shard_number(id), shard.files.id_at(delegation.file)?);
        let stateid = self.files.stateid(Kind::Delegation, id, crate::delegations::SEQID);
        Some((stateid, file, delegation.state))
    }

    /// The client says that it does not hold the delegation. Its OPEN's reply may be on the way, so it is asked again; a
    /// client that keeps saying so is right.
    fn denied(&self, cookie: u64) -> Done {
        let id = delegation_of(cookie);
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

    /// The client knows of the recall. It has a lease's time to return the delegation before it is asked again.
    fn answered(&self, cookie: u64) {
        let quiet_until_s = (self.now_ns() / 1_000_000_000 + self.config.lease.as_secs()) as u32;
        let (mut shard, local) = self.files.shard_of(delegation_of(cookie));
        if let Some(delegation) = shard.delegations.get_mut(local) {
            delegation.quiet_until_s = quiet_until_s;
        }
    }
}

impl Hooks for Inner {
    fn prepare(&self, run: &Run) -> Prepare {
        match self.recall_of(run.cookie) {
            Some((_, _, State::Held)) => Prepare::Send,
            // Returned between try_run and now.
            _ => Prepare::Refuse,
        }
    }

    fn encode(&self, run: &Run, args: &mut xdr::Writer<'_>) -> xdr::Result<()> {
        // The entry stays until drop_reference. Were it gone, the client would be told of a stateid that nobody holds.
        let (stateid, file) = self.recall_of(run.cookie).map_or((Stateid4::INVALID, ROOT), |(s, file, _)| (s, file));
        let handle = self.files.handle(file);
        let fh = FileHandle::new(&handle).unwrap_or(NO_HANDLE);
        CbRecallArgs { stateid, truncate: false, fh }.encode(args)
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        let next = match outcome {
            Outcome::Replied { status: Status::NFS4_OK, .. } => {
                self.answered(run.cookie);
                Done::Finish
            }
            Outcome::Replied { status: Status::NFS4ERR_BAD_STATEID | Status::NFS4ERR_BADHANDLE, .. } => {
                self.denied(run.cookie)
            }
            // The client holds it and does not know of the recall: the next conflict recalls it again.
            _ => Done::Finish,
        };
        if matches!(next, Done::Finish) {
            self.callbacks.observer.done(run, outcome);
        }
        next
    }

    fn release(&self, run: &Run) {
        self.callbacks.observer.released(run);
    }

    fn drop_reference(&self, cookie: u64) {
        self.files.forget_returned(delegation_of(cookie));
    }

    fn event(&self, event: &Event) {
        self.callbacks.observer.event(event);
    }
}
