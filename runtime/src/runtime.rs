//! The handle through which an embedder uses a runtime, from any thread.

use crate::callback::{CallbackKey, Flags, InsertError, Remove, Returned, Settled, TryRun};
use crate::command::Command;
use crate::cpus::Placement;
use crate::drain::DrainReport;
use crate::fore::CallToken;
use crate::io::BackendReport;
use crate::keys::{ClientId, ConnectionId, SessionKey};
use crate::registry::{ClientShared, Shared};
use crate::session::{Security, SessionConfig};
use crate::settings::Settings;
use crate::stats::{Census, MemoryUse, Stats};
use crate::tenant::TenantId;
use crate::transport::Transport;
use ringback_rpc::backchannel::{ClientLimits, ClientState, SESSIONS_MAX};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::nfs4::fore::seq4_status;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::*;
use std::sync::atomic::fence;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use thiserror::Error;

/// Why a registration was refused.
///
/// # Examples
///
/// ```
/// use ringback::{ClientId, ConnectionId, Error, Runtime};
///
/// fn add(runtime: &Runtime, near: ConnectionId) -> Option<ClientId> {
///     match runtime.add_client(Some(near)) {
///         Ok(client) => Some(client),
///         Err(Error::ClientsFull { limit }) => {
///             eprintln!("there are {limit} clients already");
///             None
///         }
///         Err(error) => {
///             eprintln!("{error}");
///             None
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The runtime is draining or has been shut down.
    #[error("the runtime is closed: it is draining or has been shut down")]
    Closed,
    /// Everything was handed over to another process: ask there.
    #[error("the runtime was handed over: another process has its connections and callbacks, ask there")]
    HandedOver,
    /// This process was forked from the one that has built the runtime, and has none of its threads. Build one of its own.
    #[error("this process was forked from that of the runtime, whose threads are there: build one here")]
    Forked,
    /// A hook (or another call from a reactor into the embedder's code) asked for something that waits for reactors.
    #[error("called from a hook, where nothing may be waited for")]
    InHook,
    /// The runtime is [suspended](Runtime::suspend): who would wait for a reactor would wait until it goes on.
    #[cfg(feature = "checkpoint")]
    #[error("the runtime is suspended, and its reactors answer nobody until it goes on")]
    Suspended,
    /// The reactor has ended, because its back end failed or by a mistake of ours; why is on stderr. Its clients' runs are
    /// lost, its connections are closed.
    #[error("reactor {reactor} has ended: its back end failed, or by a mistake of ours; stderr says why")]
    ReactorEnded {
        /// Which.
        reactor: usize,
    },
    /// The table of clients is full.
    #[error("the table of clients is full: {limit} clients; raise Builder::clients_max")]
    ClientsFull {
        /// The limit.
        limit: usize,
    },
    /// The client is not registered, or has been removed.
    #[error("no such client: it was never registered here or has been removed")]
    NoSuchClient,
    /// There is no such tenant.
    #[error("no such tenant: it was never made here")]
    NoSuchTenant,
    /// There are as many tenants as there may be.
    #[error("there are {limit} tenants, which is the limit, the default one included")]
    TenantsFull {
        /// The limit.
        limit: usize,
    },
    /// There is no such reactor.
    #[error("there is no reactor {reactor}: there are {reactors}, numbered from 0")]
    NoSuchReactor {
        /// Which.
        reactor: usize,
        /// How many there are.
        reactors: usize,
    },
    /// The client has as many sessions as are allowed.
    #[error("the client has {limit} sessions with a backchannel, which is the limit")]
    SessionsFull {
        /// The limit.
        limit: usize,
    },
    /// The runtime's [policy](crate::ConnectPolicy) does not let it connect there.
    #[error("a client of minor version 0 wants to be called back at {address}, which the policy does not allow")]
    AddressRefused {
        /// The address.
        address: SocketAddr,
    },
    /// The path was confirmed already, or there has been another SETCLIENTID since.
    #[error("there is no such path to be confirmed: it was confirmed already, or replaced by another SETCLIENTID")]
    NotUnconfirmed,
    /// A parameter of a session is out of range.
    #[error("session parameter {name} is {value}, which is not in {min}..={max}")]
    BadSession {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The smallest value allowed.
        min: u64,
        /// The largest value allowed.
        max: u64,
    },
}

/// A runtime. Clones name the same runtime; it ends with [`Runtime::shutdown`] or when the last clone is dropped, and in
/// both cases every run that was accepted completes. Hooks that hold a clone keep the runtime alive: shut it down.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, CallbackOp, ClientId, Error, InsertError, Runtime, SessionConfig, TryRun};
/// use std::net::TcpStream;
///
/// /// CREATE_SESSION with a backchannel, on a connection that was just accepted.
/// fn session_created(runtime: &Runtime, socket: TcpStream, negotiated: SessionConfig) -> Result<ClientId, Error> {
///     let connection = runtime.add_connection(socket)?;
///     let client = runtime.add_client(Some(connection))?;
///     let session = runtime.add_session(client, negotiated)?;
///     runtime.bind(connection, session)?;
///     Ok(client)
/// }
///
/// /// OPEN grants a delegation, which 64 bits of the embedder's name.
/// fn granted(runtime: &Runtime, client: ClientId, delegation: u64) -> Result<CallbackKey, InsertError> {
///     runtime.insert(client, CallbackOp::Recall, delegation)
/// }
///
/// /// Another client's OPEN conflicts with it.
/// fn conflicts(runtime: &Runtime, key: CallbackKey) -> TryRun {
///     runtime.try_run(key)
/// }
/// ```
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    backend: BackendReport,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Ends the thread that writes checkpoints, by being dropped.
    #[cfg(feature = "checkpoint")]
    checkpoints: Mutex<Option<mpsc::Sender<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The threads are not ours.
        if !self.shared.is_forked() {
            self.shared.closed.store(true, SeqCst);
            let _ = self.shared.moves.close();
            self.stop();
        }
    }
}

impl Inner {
    /// Ends the reactor threads. From a hook, which runs on one of them, they are told to end and not waited for.
    fn stop(&self) {
        self.shared.reaper.stop();
        #[cfg(feature = "checkpoint")]
        drop(self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).take());
        for port in &self.shared.reactors {
            port.post(Command::Stop);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let own = std::thread::current().id();
        if threads.iter().all(|t| t.thread().id() != own) {
            for thread in threads {
                // A reactor that panicked has said so on stderr; there is nothing more to do about it here.
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    /// See [`Runtime::stats`].
    pub fn stats(&self) -> Stats {
        let mut total = Stats::default();
        for port in &self.reactors {
            total.add(&port.stats.read());
        }
        self.reaper.add_to(&mut total);
        total.delegations = self.clients.delegations();
        total.in_flight = self.clients.in_flight();
        total
    }
}

impl Runtime {
    pub(crate) fn new(shared: Arc<Shared>, backend: BackendReport) -> Self {
        Runtime {
            inner: Arc::new(Inner {
                shared,
                backend,
                threads: Mutex::default(),
                #[cfg(feature = "checkpoint")]
                checkpoints: Mutex::default(),
            }),
        }
    }

    /// Takes over a thread that was started.
    pub(crate) fn adopt(&mut self, thread: JoinHandle<()>) {
        self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// Ends all threads, and waits for that.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn stop(&self) {
        self.inner.stop();
    }

    /// Starts to write checkpoints.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn write_checkpoints(&mut self, path: std::path::PathBuf, interval: Duration) -> std::io::Result<()> {
        let (stop, stopped) = mpsc::channel();
        let thread = crate::checkpoint::take::start(self.shared(), path, interval, stopped)?;
        self.adopt(thread);
        *self.inner.checkpoints.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop);
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    fn settings(&self) -> &Settings {
        &self.shared().settings
    }

    pub(crate) fn open(&self) -> Result<(), Error> {
        match self.shared() {
            shared if shared.is_forked() => Err(Error::Forked),
            #[cfg(feature = "checkpoint")]
            shared if shared.standstill.has_left() => Err(Error::HandedOver),
            shared if shared.is_closed() => Err(Error::Closed),
            _ => Ok(()),
        }
    }

    /// Which back end drives the sockets, and why that one.
    pub fn backend(&self) -> &BackendReport {
        &self.inner.backend
    }

    /// Where each reactor runs, as [`Builder::cpus`](crate::Builder::cpus) has asked for.
    pub fn placement(&self) -> &[Placement] {
        &self.shared().placement
    }

    /// The number of reactors.
    pub fn reactors(&self) -> usize {
        self.shared().reactors.len()
    }

    fn new_connection(&self) -> Result<ConnectionId, Error> {
        self.open()?;
        let reactor = self.shared().place().ok_or(Error::Closed)? as u16;
        Ok(ConnectionId { reactor, serial: self.shared().serial() })
    }

    /// Takes over a connected stream socket. CALL records that arrive go to the [`ForeChannel`](crate::ForeChannel),
    /// replies to the callbacks that are sent on it once a session's backchannel is [bound](Runtime::bind) to it.
    pub fn add_connection(&self, socket: impl Into<OwnedFd>) -> Result<ConnectionId, Error> {
        let connection = self.new_connection()?;
        self.shared().port_of(connection).post(Command::AddSocket { connection, socket: socket.into() });
        Ok(connection)
    }

    /// A connection over an embedder's own transport.
    pub fn add_transport(&self, transport: Box<dyn Transport>) -> Result<ConnectionId, Error> {
        let connection = self.new_connection()?;
        self.shared().port_of(connection).post(Command::AddTransport { connection, transport });
        Ok(connection)
    }

    /// Hands in one record (without its mark) that an embedder's transport has received.
    pub fn receive(&self, connection: ConnectionId, record: Vec<u8>) {
        self.shared().port_of(connection).post(Command::Receive { connection, record });
    }

    /// Closes a connection, or says that an embedder's transport has lost it. Calls sent on it go out again on another
    /// connection that is bound to their session.
    pub fn close_connection(&self, connection: ConnectionId) {
        self.shared().port_of(connection).post(Command::CloseConnection(connection));
    }

    /// Registers a client. Its home reactor, which sends its callbacks, is the one that drives the connection `near`:
    /// give the connection on which the client made itself known.
    pub fn add_client(&self, near: Option<ConnectionId>) -> Result<ClientId, Error> {
        self.register_client(TenantId::default(), near)
    }

    pub(crate) fn register_client(&self, tenant: TenantId, near: Option<ConnectionId>) -> Result<ClientId, Error> {
        self.open()?;
        let shared = self.shared();
        let home = near.map(|near| shared.reactor_of(near)).or_else(|| shared.place()).ok_or(Error::Closed)?;
        if shared.reactors[home].has_ended() {
            return Err(Error::ReactorEnded { reactor: home });
        }
        let limit = self.settings().clients_max;
        let client = shared.clients.add(home, tenant).ok_or(Error::ClientsFull { limit })?;
        fence(SeqCst); // after the entry into the table; partners: `begin_drain`, `Shared::end_reactor`
        // A drain that came in between, or the end of the reactor, has not seen this client: its runs are refused all
        // the same.
        if let (true, Ok(known)) = (shared.is_closed() || shared.reactors[home].has_ended(), self.client(client)) {
            let _ = known.in_flight.close();
        }
        shared.reactors[home].post(Command::AddClient(client));
        Ok(client)
    }

    pub(crate) fn client(&self, client: ClientId) -> Result<&ClientShared, Error> {
        self.shared().clients.live(client).ok_or(Error::NoSuchClient)
    }

    /// Does something to a client whose place cannot become the next one's meanwhile: as in [`Runtime::insert`].
    pub(crate) fn with_client<R>(&self, client: ClientId, f: impl FnOnce(&ClientShared) -> R) -> Result<R, Error> {
        let known = self.client(client)?;
        known.entries.pin();
        let result = self.client(client).map(f);
        known.entries.unpin();
        result
    }

    /// Forgets a client, also when all is over: its sessions are forgotten with it, its runs end as [`Outcome::Cancelled`](crate::Outcome::Cancelled), and
    /// `try_run` on its callbacks answers [`TryRun::Closed`]. The callbacks themselves are still to be removed.
    pub fn remove_client(&self, client: ClientId) -> Result<(), Error> {
        self.with_client(client, |known| {
            let _ = known.in_flight.close();
            if known.live.swap(false, SeqCst) {
                self.shared().post_home(known, Command::RemoveClient(client));
            }
        })?;
        self.shared().unconfirmed.forget(client);
        Ok(())
    }

    /// Announces what the embedder knows of a client: callbacks to a client in courtesy end at once as
    /// [`Outcome::Courtesy`](crate::Outcome::Courtesy).
    pub fn set_client_state(&self, client: ClientId, state: ClientState) -> Result<(), Error> {
        self.post_home(client, Command::ClientState { client, state })
    }

    /// What this client is sent at most, from now on; what is out stays out. For clients that cannot take what their
    /// sessions allow. [`Builder::client_limits`](crate::Builder::client_limits) is for all.
    pub fn set_client_limits(&self, client: ClientId, limits: ClientLimits) -> Result<(), Error> {
        self.post_home(client, Command::Limits { client, limits })
    }

    /// The SEQ4_STATUS bits (RFC 8881 section 18.46.3) about the callback path, for the reply to a SEQUENCE on `session`;
    /// for a session without a backchannel, of `client` alone. Reading a bit that says that the path is down counts as
    /// telling the client. 0 for a client that is not registered.
    pub fn seq4_status(&self, client: ClientId, session: Option<SessionKey>) -> u32 {
        let Ok(known) = self.client(client) else { return 0 };
        let of_session = session.and_then(|k| known.sessions.iter().find(|s| s.serial() == Some(k.serial)));
        let status = of_session.map_or(&known.status, |s| &s.status).load(Relaxed);
        if status & seq4_status::CB_PATH_DOWN != 0 && !known.path_down_told.swap(true, Relaxed) {
            self.shared().post_home(known, Command::PathDownTold(client));
        }
        status
    }

    /// Whether the client has ever answered this operation with NFS4ERR_NOTSUPP, in whichever session: asking again is
    /// allowed and of no use. `false` for a client that is not registered.
    pub fn is_unsupported(&self, client: ClientId, op: CallbackOp) -> bool {
        self.client(client).is_ok_and(|known| known.unsupported.load(Relaxed) & op.bit() != 0)
    }

    /// Registers a session that has a backchannel.
    pub fn add_session(&self, client: ClientId, config: SessionConfig) -> Result<SessionKey, Error> {
        self.open()?;
        let params = Box::new(config.into_params()?);
        let session = SessionKey { client, serial: self.shared().serial() };
        let known = self.client(client)?;
        if !known.show_session(session.serial) {
            return Err(Error::SessionsFull { limit: SESSIONS_MAX });
        }
        // The client may have gone before that, and the place may be the next one's.
        if self.client(client).is_err() {
            known.hide_session(session.serial);
            return Err(Error::NoSuchClient);
        }
        self.shared().post_home(known, Command::AddSession { session, params });
        Ok(session)
    }

    /// The client has destroyed the session, which is forgotten, also when all is over. Its calls move to another session of
    /// the client, or wait for one.
    pub fn remove_session(&self, session: SessionKey) -> Result<(), Error> {
        let known = self.client(session.client)?;
        known.hide_session(session.serial);
        self.shared().post_home(known, Command::RemoveSession(session));
        Ok(())
    }

    /// A connection carries the session's backchannel from now on (CREATE_SESSION with CONN_BACK_CHAN,
    /// BIND_CONN_TO_SESSION; RFC 8881 sections 18.36 and 18.34). Waiting callbacks are sent at once.
    pub fn bind(&self, connection: ConnectionId, session: SessionKey) -> Result<(), Error> {
        self.client(session.client)?;
        self.has_reactor(self.shared().reactor_of(connection))?;
        self.shared().port_of(connection).post(Command::Bind { connection, session });
        Ok(())
    }

    /// BACKCHANNEL_CTL (RFC 8881 section 18.33): program and credential for calls of the session that have not been sent
    /// yet; calls that are sent again keep theirs. Calls with four earlier pairs may be out; with more, new calls on the
    /// session wait until those with one of them are settled.
    pub fn backchannel_ctl(&self, session: SessionKey, program: u32, security: Security) -> Result<(), Error> {
        let credential = security.into_credential()?;
        self.post_home(session.client, Command::Control { session, program, credential })
    }

    /// Makes a callback for `client`, idle until [`Runtime::try_run`]. `cookie` is the embedder's own and is handed to
    /// every hook. May allocate; everything after this does not. Of a runtime that is draining or has been shut down it is an
    /// error: what could not be recalled any more is not to be granted.
    pub fn insert(&self, client: ClientId, op: CallbackOp, cookie: u64) -> Result<CallbackKey, InsertError> {
        self.shared().insert(client, op, cookie)
    }

    /// Makes a CB_RECALL_SLOT (RFC 8881 section 20.8), which is about one session: it is sent on that one or not at all, and
    /// a run that finds it gone or drained ends as [`Outcome::Cancelled`](crate::Outcome::Cancelled). With
    /// [`Runtime::insert`] the session is whichever of the client sends it first.
    pub fn insert_recall_slot(&self, session: SessionKey, cookie: u64) -> Result<CallbackKey, InsertError> {
        let known = self.shared().clients.live(session.client).ok_or(InsertError::NoSuchClient)?;
        if known.sessions.iter().all(|s| s.serial() != Some(session.serial)) {
            return Err(InsertError::NoSuchSession);
        }
        let key = self.insert(session.client, CallbackOp::RecallSlot, cookie)?;
        self.shared().post_home(known, Command::Belongs { key, session });
        Ok(key)
    }

    /// Asks for a run of a callback. Never blocks, never allocates, calls no hook but `acquire`, and is legal under the
    /// embedder's locks (rule R7).
    pub fn try_run(&self, key: CallbackKey) -> TryRun {
        self.shared().ask(key, || ())
    }

    /// Says that [`try_run`](Runtime::try_run) of this key comes soon, and begins to load what it will touch: among millions
    /// of callbacks that is a load from memory, and most of what the request costs. For who knows the next ones: because it
    /// walks through a list, or has yet to look whether they are in conflict. Changes nothing, whatever the key.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringback::{CallbackKey, Runtime};
    ///
    /// /// Recalls what a client holds.
    /// fn recall_all(runtime: &Runtime, held: &[CallbackKey]) {
    ///     for (n, key) in held.iter().enumerate() {
    ///         if let Some(ahead) = held.get(n + 4) {
    ///             runtime.prefetch(*ahead);
    ///         }
    ///         let _ = runtime.try_run(*key);
    ///     }
    /// }
    /// ```
    #[inline]
    pub fn prefetch(&self, key: CallbackKey) {
        self.shared().slab.prefetch(key.index);
    }

    /// Removes a callback. If it is running, that run still ends with one completion, and the entry is freed after its
    /// `release`.
    pub fn remove(&self, key: CallbackKey) -> Remove {
        self.shared().remove(key)
    }

    /// Says that what was recalled has come back, though the callback stays: no [`Event::ReturnOverdue`] will be told
    /// about it. [`Runtime::remove`] says so too. What has not been sent yet is not taken back.
    ///
    /// [`Event::ReturnOverdue`]: crate::Event::ReturnOverdue
    pub fn returned(&self, key: CallbackKey) -> Returned {
        let Some(entry) = self.shared().slab.get(key.index) else { return Returned::Stale };
        let answer = entry.word().returned(key.generation);
        self.shared().settle(key, Flags::empty(), Settled::Returned);
        answer
    }

    /// Answers a fore-channel call that was [deferred](crate::Call::defer): the reply's record is the buffers one after the
    /// other (RPC header and results, no record mark). Small ones are copied behind what waits to be sent, so that they
    /// leave together; large ones are sent without a copy.
    pub fn reply(&self, token: CallToken, buffers: Vec<Vec<u8>>) {
        let connection = token.connection;
        let len: usize = buffers.iter().map(Vec::len).sum();
        // A reply of 2 GiB would need several fragments; no client takes one.
        let Some(mark) = ringback_rpc::record::mark(len) else { return self.close_connection(connection) };
        self.shared().port_of(connection).post(Command::Reply { connection, mark, buffers });
    }

    /// Drains, then ends the reactor threads and closes every connection. Waits for hooks to return.
    /// [`Error::InHook`] from a hook; a second time it finds nothing to do.
    pub fn shutdown(&self, patience: Duration) -> Result<DrainReport, Error> {
        let report = self.drain(patience)?;
        self.inner.stop();
        Ok(report)
    }

    pub(crate) fn may_wait(&self) -> Result<(), Error> {
        match self.shared() {
            shared if shared.is_forked() => Err(Error::Forked),
            #[cfg(feature = "checkpoint")]
            shared if shared.standstill.has_left() => Err(Error::HandedOver),
            shared if shared.is_in_hook() => Err(Error::InHook),
            #[cfg(feature = "checkpoint")]
            shared if shared.standstill.is_still() => Err(Error::Suspended),
            _ => Ok(()),
        }
    }

    /// What has been counted so far.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// Counts where the session slots of all backchannels are. Walks them on their reactors and waits for the answers:
    /// not to be done often. A reactor that has ended has none. [`Error::InHook`] from a hook.
    pub fn census(&self) -> Result<Census, Error> {
        self.may_wait()?;
        let shared = self.shared();
        // One at a time: a client bears the number of the last one that has counted it.
        let mut number = shared.census.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        let census = *number;
        let ask = |ask: &dyn Fn(mpsc::Sender<Census>)| {
            let (answer, answers) = mpsc::channel();
            ask(answer);
            // Ends when the last reactor has answered, or dropped the question because it has ended.
            answers.iter().fold(Census::default(), |total, one| total.plus(&one))
        };
        let total = ask(&|answer| {
            shared.reactors.iter().for_each(|port| port.post(Command::Census { census, answer: answer.clone() }));
        });
        // Those that were on their way.
        let missed = |known: &&ClientShared| known.live.load(SeqCst) && known.counted.load(Relaxed) != census;
        Ok(total.plus(&ask(&|answer| {
            for (index, known) in shared.clients.each().enumerate().filter(|(_, known)| missed(known)) {
                let client = ClientId { index: index as u32, generation: known.generation() };
                shared.post_home(known, Command::CensusOf { client, census, answer: answer.clone() });
            }
        })))
    }

    /// Memory held for callbacks. Walks tables and waits for the reactors, as [`Runtime::census`] does.
    pub fn memory(&self) -> Result<MemoryUse, Error> {
        let census = self.census()?;
        let shared = self.shared();
        let slab = shared.slab.memory();
        Ok(MemoryUse {
            slab: slab.entries_bytes as usize,
            free_stacks: (slab.free_stack_bytes + slab.table_bytes) as usize,
            clients: shared.clients.bytes(),
            sessions: census.bytes as usize,
            returns: census.returns_bytes as usize,
            groups: shared.members.bytes(),
        })
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("backend", &self.inner.backend).field("reactors", &self.reactors()).finish()
    }
}
