//! An in-memory NFSv4.0, 4.1 and 4.2 file server that links ringback, the way any file server would.
//!
//! It keeps a tree of files, and what the protocol wants kept about them: clients, sessions, opens, locks and delegations.
//! Whatever conflicts with a delegation recalls it through the runtime. What is to be learnt from it for a server of one's
//! own is in `callbacks.rs`: all of the integration, and nothing else.
//!
//! The protocol part is sans-IO: a CALL record comes in with the time and the name of its connection, and its reply goes
//! into a buffer (`fore.rs`, `compound.rs`). Records and connections are the runtime's.

pub mod admin;
mod arena;
mod attributes;
pub mod by_hand;
mod callbacks;
mod clients;
mod compound;
mod config;
mod copies;
mod copy_ops;
mod data;
mod delegation_ops;
mod delegations;
mod directory;
mod expired;
mod file;
mod file_ops;
mod files;
pub mod flight;
mod fore;
mod grace;
mod grants;
mod holder_attributes;
mod import;
mod inspect;
mod io_ops;
mod keep;
mod later;
mod layout_ops;
mod layout_recalls;
mod layouts;
mod leases;
mod listen;
mod lock_ops;
mod lock_waiters;
mod locks;
pub mod metrics;
mod minor0;
mod name;
mod name_ops;
mod open_op;
mod opens;
mod operations;
mod owners;
mod quota;
mod reaper;
mod recall;
mod renew;
mod roster;
mod saved;
mod session_slots;
mod sessions;
mod set_attributes;
mod set_client_id;
mod stateids;
mod store;
mod succession;
#[cfg(test)]
mod tests;
pub mod top;
mod tree;
mod wants;
mod watches;

pub use callbacks::Observer;
pub use config::Config;
pub use import::{ImportError, Imported};
pub use inspect::{
    InspectedCallback, InspectedClient, InspectedCounters, InspectedLatency, InspectedReactor, InspectedRuns,
    InspectedSession, InspectedTenant, Inspection,
};
pub use recall::{Delegations, HeldDelegation, KnownClient};
pub use renew::RenewError;
pub use succession::SuccessionError;

use admin::AskedAll;
use by_hand::ByHand;
use callbacks::Callbacks;
use clients::{Client, Clients};
use copies::Copies;
use files::Files;
use grace::Grace;
use later::Later;
use layouts::Layouts;
use listen::Listener;
use owners::Owners;
use ringback::{Budget, BuildError, Builder, DrainReport, Runtime};
use saved::Saved;
use session_slots::SlotLimit;
use sessions::Sessions;
use set_client_id::Minor0Clients;
use stateids::INSTANCE_MASK;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, mpsc};
use std::time::{Duration, Instant};
use store::Store;
use wants::Wants;

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its runtime could not be built.
    #[error(transparent)]
    Runtime(#[from] BuildError),
    /// Its own thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
    /// What it has stored could not be read, or is another process's.
    #[error("the state cannot be used: {0}")]
    State(std::io::Error),
}

/// A running file server. It ends with [`Server::shutdown`].
#[derive(Debug)]
pub struct Server {
    inner: Arc<Inner>,
    runtime: Arc<Runtime>,
}

/// What reactors and listeners share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) clients: Mutex<Clients>,
    pub(crate) sessions: Sessions,
    pub(crate) session_serial: AtomicU64,
    pub(crate) session_slots: SlotLimit,
    /// Where to the state is written when the next checkpoint is, for another process.
    pub(crate) leaving: Mutex<Option<succession::Leaving>>,
    pub(crate) asked_all: AskedAll,
    /// The second in which expired clients were last looked for.
    pub(crate) courtesy_ended_s: AtomicU64,
    pub(crate) files: Files,
    /// What survives a restart.
    pub(crate) store: Option<Store>,
    pub(crate) saved: Saved,
    pub(crate) minor0: Minor0Clients,
    pub(crate) owners: Owners,
    /// For whom a request is served that does not say it.
    pub(crate) nobody: Arc<Client>,
    pub(crate) copies: Copies,
    pub(crate) layouts: Layouts,
    pub(crate) wants: Wants,
    pub(crate) by_hand: ByHand,
    pub(crate) callbacks: Callbacks,
    pub(crate) later: Later,
    /// so_major_id, and the server's scope.
    pub(crate) name: String,
    listeners: Mutex<Vec<Listener>>,
    /// Held for writing while one runtime hands over to the next, and for reading by threads that ask one for something.
    renewing: RwLock<()>,
    started: Instant,
}

impl Server {
    /// Starts a server on a runtime of its own, made by `builder`. The lease and the budget of delegations
    /// are taken from `config`.
    pub fn new(config: Config, builder: Builder, observer: Arc<dyn Observer>) -> Result<Server, StartError> {
        let builder = set_up(builder, &config);
        let (sender, receiver) = mpsc::channel();
        let inner = Inner::new(config, observer, Later::new(sender)).with_state().map_err(StartError::State)?;
        let inner = Arc::new(inner);
        let runtime = Arc::new(builder.build(Arc::clone(&inner) as _, Arc::clone(&inner) as _)?);
        inner.callbacks.connect(&runtime);
        Later::start(&inner, receiver).map_err(StartError::Thread)?;
        Ok(Server { inner, runtime })
    }

    /// The runtime that the server links.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Ends the server: listeners, callbacks (drained for at most `patience`), connections. An error only from a hook.
    pub fn shutdown(&self, patience: Duration) -> Result<DrainReport, ringback::Error> {
        drop(listen::stop(&self.inner));
        let report = self.runtime.shutdown(patience)?;
        self.inner.later.stop();
        // If that fails its observer is told.
        let _ = self.inner.save_files(u64::MAX - 1);
        self.inner.store.as_ref().map(Store::close);
        self.inner.files.clear();
        Ok(report)
    }

    /// How many clients may come and reclaim what they had before a restart, and for how long: a grace period.
    pub fn grace(&self) -> Option<(usize, Duration)> {
        self.inner.files.grace.left(self.inner.now_ns())
    }
}

/// so_major_id: of a life of the server, or of all of them if it has a store, so that clients know that they may reclaim.
fn name_of(volume: u32) -> String {
    format!("ringback-{volume:06x}")
}

/// What the runtime takes from the server's settings.
fn set_up(builder: Builder, config: &Config) -> Builder {
    builder.lease(config.lease).budget(Budget::delegations(config.delegations_max))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inner.later.stop();
    }
}

impl Inner {
    fn new(config: Config, observer: Arc<dyn Observer>, later: Later) -> Self {
        // Random, so that a client of an earlier life of the server is told so and not taken for another.
        let instance = (RandomState::new().hash_one(0u8) as u32 & INSTANCE_MASK).max(1);
        Inner {
            clients: Mutex::new(Clients::new(config.clients_max, instance)),
            sessions: Sessions::default(),
            session_serial: AtomicU64::new(1),
            session_slots: SlotLimit::new(config.session_slots_max),
            leaving: Mutex::default(),
            courtesy_ended_s: AtomicU64::new(0),
            asked_all: AskedAll::default(),
            files: Files::new(&config, instance),
            store: None,
            saved: Saved::default(),
            minor0: Minor0Clients::default(),
            owners: Owners::new(config.state_owners_max, config.lease.as_secs().try_into().unwrap_or(u32::MAX)),
            nobody: Arc::new(Client::nobody()),
            copies: Copies::new(),
            layouts: Layouts::new(),
            wants: Wants::new(),
            by_hand: ByHand::new(),
            callbacks: Callbacks::new(observer),
            later,
            name: name_of(instance),
            listeners: Mutex::new(Vec::new()),
            renewing: RwLock::new(()),
            started: Instant::now(),
            config,
        }
    }

    /// With the state that is stored, if it is to be.
    fn with_state(mut self) -> std::io::Result<Self> {
        let Some(directory) = &self.config.state else { return Ok(self) };
        let store = Store::open(directory)?;
        let identity = store.begin_life()?;
        let instance = (identity.lives as u32 & INSTANCE_MASK).max(1);
        let mut files = Files::new(&self.config, instance);
        (files.volume, files.seed) = (identity.volume, identity.seed);
        let grace = self.config.grace.unwrap_or(self.config.lease);
        let grace_ns = grace.as_nanos().try_into().unwrap_or(u64::MAX);
        let until_ns = self.now_ns().saturating_add(grace_ns);
        files.grace = Grace::new(store.clients(), until_ns, until_ns.saturating_add(grace_ns));
        files.restore(&store)?;
        if !files.grace.is_on() {
            files.reap_nameless();
        }
        files.track();
        self.clients = Mutex::new(Clients::new(self.config.clients_max, instance));
        self.name = name_of(files.volume);
        self.files = files;
        self.store = Some(store);
        Ok(self)
    }

    pub(crate) fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No other runtime takes over as long as this is held. Not to be asked for on a reactor, which stands still for that.
    pub(crate) fn present(&self) -> RwLockReadGuard<'_, ()> {
        self.renewing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The second of the server's life.
    pub(crate) fn now_s(&self) -> u32 {
        (self.now_ns() / 1_000_000_000) as u32
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).field("name", &self.name).finish_non_exhaustive()
    }
}
