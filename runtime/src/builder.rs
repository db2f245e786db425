//! Building a runtime.

use crate::completion::QueueState;
use crate::cpus::{self, CpuList};
use crate::flight::FLIGHT_RECORDS_MAX;
use crate::fore::ForeChannel;
use crate::hooks::Hooks;
use crate::io::{Backend, BackendError, BackendKind, BackendReport, Epoll, Io, IoConfig, Uring};
use crate::log::{Log, LogKind, LogLevel, Logger};
use crate::path::ConnectPolicy;
use crate::reactor::Reactor;
use crate::reaper::{self, Budget, Pressure};
use crate::registry::Shared;
use crate::runtime::Runtime;
use crate::settings::{DEADLINE_MAX, Settings, rpc_timeout_default, run_deadline_default};
use crate::threads;
use ringback_rpc::backchannel::{BATCH_MAX, ClientLimits};
use std::io;
use std::path::PathBuf;
#[cfg(feature = "checkpoint")]
use std::sync::Mutex;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use thiserror::Error;

/// Reactors in one runtime: connections are named by 16 bits of reactor number, one per core is enough.
pub(crate) const REACTORS_MAX: usize = 1024;

/// Connections that a reactor may make at the same time, at most: each is looked at when one of them is over.
const CONNECTS_MAX: u64 = 4096;

/// Why a runtime could not be built.
///
/// # Examples
///
/// ```
/// use ringback::{BuildError, Builder};
/// # struct Server;
/// # impl ringback::Hooks for Server {
/// #     fn encode(&self, _: &ringback::Run, _: &mut ringback_rpc::xdr::Writer<'_>) -> ringback_rpc::xdr::Result<()> { Ok(()) }
/// #     fn done(&self, _: &ringback::Run, _: &ringback::Outcome<'_>) -> ringback::Done { ringback::Done::Finish }
/// # }
/// # impl ringback::ForeChannel for Server { fn call(&self, _: ringback::Call<'_>) {} }
/// # let server = std::sync::Arc::new(Server);
///
/// let error = Builder::new().reactors(0).build(server.clone(), server).unwrap_err();
/// assert!(matches!(error, BuildError::Setting { name: "reactors", value: 0, .. }));
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is out of range.
    #[error("{name} is {value}, which is not in {min}..={max}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The smallest value allowed.
        min: u64,
        /// The largest value allowed.
        max: u64,
    },
    /// The back end that was asked for is not to be had here.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// This process may not run on a CPU of [`Builder::cpus`].
    #[error(
        "CPU {cpu} may not be used: this process may run on {allowed} (its cpuset cgroup, or taskset); name others"
    )]
    Cpu {
        /// The CPU.
        cpu: usize,
        /// Those that may be used, such as `0-3,8`.
        allowed: String,
    },
    /// The CPUs that may be used are not known.
    #[error("the CPUs that this process may run on could not be asked for: {error}")]
    Affinity {
        /// What the system said.
        error: io::Error,
    },
    /// A completion queue could not have its eventfd.
    #[error("a completion queue could not be made: {0}")]
    CompletionQueue(io::Error),
    /// Memory pressure cannot be watched there.
    #[error("memory pressure cannot be watched in {}: {error}{}", file.display(), reaper::advice(error))]
    MemoryPressure {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The reaper could not be started.
    #[error("the reaper could not be started: {0}")]
    Reaper(io::Error),
    /// A checkpoint could not be restored, or none can be written.
    #[cfg(feature = "checkpoint")]
    #[error(transparent)]
    Checkpoint(#[from] crate::CheckpointError),
    /// A reactor could not be started.
    #[error("reactor {reactor} could not be started: {error}")]
    Reactor {
        /// Which.
        reactor: usize,
        /// What the system said.
        error: io::Error,
    },
}

/// Settings for a [`Runtime`]; everything has a default.
///
/// # Examples
///
/// ```
/// use ringback::{BuildError, Builder, ForeChannel, Hooks, Runtime};
/// use std::{sync::Arc, time::Duration};
///
/// fn start(hooks: Arc<dyn Hooks>, fore: Arc<dyn ForeChannel>) -> Result<Runtime, BuildError> {
///     Builder::new().lease(Duration::from_secs(60)).completion_queues(1).build(hooks, fore)
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    settings: Settings,
    rpc_timeout: Option<Duration>,
    run_deadline: Option<Duration>,
    return_deadline: Option<Duration>,
    #[cfg(feature = "checkpoint")]
    restore: Option<crate::Checkpoint>,
    #[cfg(feature = "checkpoint")]
    upgrade: Option<Arc<Mutex<crate::upgrade::Stage>>>,
    #[cfg(feature = "checkpoint")]
    checkpoint_every: Option<(PathBuf, Duration)>,
}

impl Builder {
    /// The defaults.
    pub fn new() -> Self {
        Builder::default()
    }

    /// Reactor threads. Default: one per processor.
    pub fn reactors(mut self, count: usize) -> Self {
        self.settings.reactors = count;
        self
    }

    /// CPUs to pin the reactors to: the first one to the first, and so on, and from the beginning again if there are more reactors.
    /// Each lets its memory lie on the node of its CPU, where there is more than one: [`Runtime::placement`] tells. Default:
    /// none, and the kernel moves them as it likes.
    pub fn cpus(mut self, cpus: impl Into<CpuList>) -> Self {
        self.settings.cpus = cpus.into().0;
        self
    }

    /// The back end. Default: [`Backend::Auto`].
    pub fn backend(mut self, backend: Backend) -> Self {
        self.settings.backend = backend;
        self
    }

    /// Most callbacks, of all clients together; beyond, [`Runtime::insert`] answers
    /// [`Full`](crate::InsertError::Full). Default: 16 Mi. Memory (32 bytes each) is taken as they are inserted.
    pub fn callbacks_max(mut self, count: u32) -> Self {
        self.settings.callbacks_max = count;
        self
    }

    /// Most clients. Default: 65,536.
    pub fn clients_max(mut self, count: usize) -> Self {
        self.settings.clients_max = count;
        self
    }

    /// The lease of the file server (RFC 8881 section 8.3), from which other times follow. Default: 90 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// A run ends this long after its accepted `try_run`, wherever it is; at most 35 minutes. Default: one lease.
    pub fn run_deadline(mut self, deadline: Duration) -> Self {
        self.run_deadline = Some(deadline);
        self
    }

    /// What a CB_RECALL or CB_LAYOUTRECALL asks for is [overdue](crate::Event::ReturnOverdue) this long after it was first
    /// sent. Default: one lease.
    pub fn return_deadline(mut self, deadline: Duration) -> Self {
        self.return_deadline = Some(deadline);
        self
    }

    /// A call without a reply for this long makes its connection suspect. Default: a tenth of the lease, at least 1 s.
    /// At most 35 minutes.
    pub fn rpc_timeout(mut self, timeout: Duration) -> Self {
        self.rpc_timeout = Some(timeout);
        self
    }

    /// Most callbacks of a client in one CB_COMPOUND, besides CB_SEQUENCE, where the client allows more than one
    /// ([`SessionConfig::operations_max`](crate::SessionConfig)); 1: each goes alone. Default: 16.
    pub fn batch_max(mut self, count: u32) -> Self {
        self.settings.batch_max = count;
        self
    }

    /// How long a callback waits after NFS4ERR_DELAY: at first, and at most; it doubles. Default: 100 ms and 5 s, which is the
    /// most.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        (self.settings.backoff_min, self.settings.backoff_max) = (min, max);
        self
    }

    /// How often recalls may be passed over by CB_GETATTR, and the background (CB_RECALL_ANY, CB_NOTIFY, CB_OFFLOAD and the
    /// rest) by both, while they have work: then it is their turn. Default: 4 and 16.
    pub fn class_floors(mut self, recalls: u8, background: u8) -> Self {
        (self.settings.recalls_passed_over_max, self.settings.background_passed_over_max) = (recalls, background);
        self
    }

    /// What each client is sent at most: nothing is limited unless this says so.
    /// [`Runtime::set_client_limits`] is for one client.
    pub fn client_limits(mut self, limits: ClientLimits) -> Self {
        self.settings.client_limits = limits;
        self
    }

    /// Queues for completions, at most one for each reactor. With 0 a run ends when [`Hooks::done`] and
    /// [`Hooks::release`] have returned; else, when `done` has said that it is finished, it goes to a
    /// [`CompletionQueue`](crate::CompletionQueue), and ends when the embedder has taken it off there. Default: 0.
    pub fn completion_queues(mut self, count: usize) -> Self {
        self.settings.completion_queues = count;
        self
    }

    /// To where the runtime connects for clients of minor version 0. Default: [`ConnectPolicy::Peer`], to the address that
    /// the client's own connection comes from.
    pub fn connect_policy(mut self, policy: ConnectPolicy) -> Self {
        self.settings.connect_policy = policy;
        self
    }

    /// How long making a connection may take, or the embedder to supply one; at most 35 minutes. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Most connections that each reactor makes at the same time: what a server that has just started is busy with for clients
    /// that do not answer. The others wait for their turn. Default: 64.
    pub fn connects_max(mut self, count: usize) -> Self {
        self.settings.connects_max = count;
        self
    }

    /// Most delegations before clients are asked to keep fewer. Default: any number. [`Runtime::set_budget`] changes it.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.settings.budget = budget;
        self
    }

    /// Where the kernel tells of memory pressure: `/proc/pressure/memory`, or the `memory.pressure` of a cgroup. If tasks
    /// have to wait for memory for a tenth of a second within two, clients are asked to keep three quarters of their
    /// delegations. Default: nowhere; [`Runtime::memory_pressure`] is for who learns of it otherwise.
    pub fn memory_pressure(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.memory_pressure = Some(file.into());
        self
    }

    /// Whether it is measured how long callbacks take: [`Snapshot::latencies`](crate::Snapshot). Costs some instructions per
    /// callback, and 320 KiB of each reactor. Default: no.
    pub fn latency(mut self, measured: bool) -> Self {
        self.settings.latency = measured;
        self
    }

    /// Steps that each reactor's flight recorder keeps, as a power of two or rounded up to one, 48 bytes each:
    /// [`Runtime::flight_record`]. A callback without incidents has five. Default: 0, there is none.
    pub fn flight_records(mut self, count: usize) -> Self {
        self.settings.flight_records = count;
        self
    }

    /// Largest record on a connection, either way, in bytes. Default: 1 MiB and 64 KiB.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.record_bytes_max = bytes;
        self
    }

    /// Fore-channel calls of one connection that may wait for an answer; with more, receiving from it pauses. Default: 256.
    pub fn calls_unanswered_max(mut self, count: usize) -> Self {
        self.settings.calls_unanswered_max = count;
        self
    }

    /// Bytes that may wait to be sent on one connection; with more, receiving from it pauses. Default: 4 MiB.
    pub fn unsent_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.unsent_bytes_max = bytes;
        self
    }

    /// Receive buffers of each reactor, shared by its connections: how many (a power of two) and how large, in bytes.
    /// Default: 256 of 16 KiB.
    pub fn receive_buffers(mut self, count: u16, bytes: u32) -> Self {
        self.settings.io.recv_buffers = count;
        self.settings.io.recv_buffer_bytes = bytes;
        self
    }

    /// The runtime goes on where this checkpoint was written: clients, sessions and callbacks are what they were, under
    /// the names that they had; [`Hooks::restored`] is asked about each callback. Connections do not come back: what was
    /// sent is sent again, the same bytes, on the next connection that is [bound](Runtime::bind) to its session, and what
    /// waits goes on waiting. Time has stood still: what was left of deadlines is left now. Not kept are groups and waits, and the limits
    /// that [`Builder`] sets. The number of reactors and the back end may be others.
    #[cfg(feature = "checkpoint")]
    pub fn restore(mut self, checkpoint: &crate::Checkpoint) -> Self {
        self.restore = Some(checkpoint.clone());
        self
    }

    /// The runtime goes on where another process stands still, as after [`Builder::restore`], but that connections come along
    /// under the names that they had: what was received there is handled here, what was encoded there is sent from here, and
    /// replies to what was sent there are taken here. It stands still, and what it is asked for waits, until
    /// [`Upgrade::confirm`](crate::Upgrade::confirm). Calls not answered there can be answered by the same [tokens](crate::CallToken).
    #[cfg(feature = "checkpoint")]
    pub fn upgrade_from(mut self, upgrade: &crate::Upgrade) -> Self {
        self.restore = Some(upgrade.checkpoint().clone());
        self.upgrade = Some(Arc::clone(upgrade.stage()));
        self
    }

    /// Writes a [checkpoint](Runtime::checkpoint_to) to this file every so often, at least a second. That one could not be
    /// written is told as [`Event::CheckpointFailed`](crate::Event::CheckpointFailed). Default: never.
    #[cfg(feature = "checkpoint")]
    pub fn checkpoint_every(mut self, interval: Duration, file: impl Into<PathBuf>) -> Self {
        self.checkpoint_every = Some((file.into(), interval));
        self
    }

    /// Who is told what an operator must know, at most 5 messages of one kind in a second from one reactor. Default: nobody.
    pub fn log(mut self, log: impl Log + 'static) -> Self {
        self.settings.log = Logger(Some(Arc::new(log)));
        self
    }

    /// Begins the names of the reactor threads. Default: `ringback`.
    pub fn name(mut self, name: &str) -> Self {
        self.settings.name = name.to_owned();
        self
    }

    /// Starts the runtime: its hooks and its fore-channel handler are called from now on.
    pub fn build(self, hooks: Arc<dyn Hooks>, fore: Arc<dyn ForeChannel>) -> Result<Runtime, BuildError> {
        #[cfg(feature = "checkpoint")]
        let (restore, upgrade, checkpoint_every) =
            (self.restore.clone(), self.upgrade.clone(), self.checkpoint_every.clone());
        let settings = self.into_settings()?;
        let report = settings.backend.choose(&settings.io)?;
        let chosen = settings.backend;
        let fallback = chosen == Backend::Auto && report.kind == BackendKind::Uring;
        let launched = match launch(settings.clone(), report, Arc::clone(&hooks), Arc::clone(&fore)) {
            // One ring could be made to try it, but not one for each reactor: locked memory has a limit.
            Err(BuildError::Reactor { reactor, error }) if fallback => {
                let reason = format!("io_uring works, but reactor {reactor} could not have one: {error}");
                launch(settings, BackendReport::epoll(reason), hooks, fore)
            }
            launched => launched,
        };
        if let Ok(runtime) = &launched {
            log_start(runtime, chosen);
        }
        #[cfg(feature = "checkpoint")]
        let launched = launched.and_then(|runtime| go_on(runtime, restore, upgrade, checkpoint_every));
        launched
    }

    /// The settings, with what follows from others filled in.
    pub(crate) fn into_settings(mut self) -> Result<Settings, BuildError> {
        self.settings.run_deadline = self.run_deadline.unwrap_or_else(|| run_deadline_default(self.settings.lease));
        self.settings.return_deadline = self.return_deadline.unwrap_or(self.settings.lease);
        self.settings.rpc_timeout = self.rpc_timeout.unwrap_or_else(|| rpc_timeout_default(self.settings.lease));
        check(&self.settings)?;
        #[cfg(feature = "checkpoint")]
        if let Some((_, interval)) = &self.checkpoint_every {
            in_range("checkpoint interval in ms", millis(*interval), 1000, 1 << 40)?;
        }
        Ok(self.settings)
    }
}

/// Logs on what it runs, and where.
fn log_start(runtime: &Runtime, chosen: Backend) {
    let (shared, report) = (runtime.shared(), runtime.backend());
    let fell_back = chosen == Backend::Auto && report.kind == BackendKind::Epoll;
    let level = if fell_back { LogLevel::Warn } else { LogLevel::Info };
    shared.log(None, LogKind::Start, level, None, format_args!("back end {}: {}", report.name, report.reason));
    let pinned = shared.placement.iter().filter(|place| place.cpu.is_some());
    let places = pinned.map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if !places.is_empty() {
        shared.log(None, LogKind::Start, LogLevel::Info, None, format_args!("{places}"));
    }
}

/// What checkpoints have to do with a runtime that was just started.
#[cfg(feature = "checkpoint")]
fn go_on(
    mut runtime: Runtime,
    checkpoint: Option<crate::Checkpoint>,
    upgrade: Option<Arc<Mutex<crate::upgrade::Stage>>>,
    checkpoint_every: Option<(PathBuf, Duration)>,
) -> Result<Runtime, BuildError> {
    use crate::checkpoint::restore::{Purpose, restore};
    if let (Some(checkpoint), Some(stage)) = (&checkpoint, upgrade) {
        let pace = crate::checkpoint::pace::Pace::default();
        crate::checkpoint::pace::block(crate::upgrade::Built::stand_by(&runtime, pace, checkpoint, &stage))?;
    } else if let Some(checkpoint) = checkpoint {
        restore(runtime.shared(), &checkpoint, crate::io::monotonic_ns(), Purpose::GoOn)?;
    }
    if let Some((file, interval)) = checkpoint_every {
        runtime.write_checkpoints(file, interval).map_err(crate::CheckpointError::from)?;
    }
    Ok(runtime)
}

/// Starts all reactors on one back end; none is left running if one of them fails.
fn launch(
    settings: Settings,
    report: BackendReport,
    hooks: Arc<dyn Hooks>,
    fore: Arc<dyn ForeChannel>,
) -> Result<Runtime, BuildError> {
    let reactors = settings.reactors;
    let shared = Arc::new(share(settings, hooks, fore)?);
    let kind = report.kind;
    let pressure = shared.settings.memory_pressure.as_deref().map(Pressure::open).transpose()?;
    let mut runtime = Runtime::new(Arc::clone(&shared), report);
    for reactor in 0..reactors {
        let thread =
            start(reactor, Arc::clone(&shared), kind).map_err(|error| BuildError::Reactor { reactor, error })?;
        runtime.adopt(thread);
    }
    runtime.adopt(reaper::start(&shared, pressure).map_err(BuildError::Reaper)?);
    Ok(runtime)
}

/// What all threads share, with the completion queues.
pub(crate) fn share(
    settings: Settings,
    hooks: Arc<dyn Hooks>,
    fore: Arc<dyn ForeChannel>,
) -> Result<Shared, BuildError> {
    let queues = (0..settings.completion_queues).map(|_| QueueState::new().map(Arc::new)).collect::<Result<_, _>>();
    let placement = cpus::place(settings.reactors, &settings.cpus)?;
    let mut shared = Shared::new(settings, hooks, fore);
    shared.placement = placement;
    shared.queues = queues.map_err(BuildError::CompletionQueue)?;
    Ok(shared)
}

fn in_range(name: &'static str, value: u64, min: u64, max: u64) -> Result<(), BuildError> {
    let error = BuildError::Setting { name, value, min, max };
    if (min..=max).contains(&value) { Ok(()) } else { Err(error) }
}

pub(crate) fn check(settings: &Settings) -> Result<(), BuildError> {
    in_range("reactors", settings.reactors as u64, 1, REACTORS_MAX as u64)?;
    in_range("completion_queues", settings.completion_queues as u64, 0, settings.reactors as u64)?;
    in_range("flight_records", settings.flight_records as u64, 0, FLIGHT_RECORDS_MAX as u64)?;
    in_range("callbacks_max", settings.callbacks_max.into(), 1, u64::from(u32::MAX) - 1)?;
    in_range("clients_max", settings.clients_max as u64, 1, 1 << 24)?;
    in_range("record_bytes_max", settings.record_bytes_max as u64, 1024, 1 << 30)?;
    in_range("batch_max", settings.batch_max.into(), 1, BATCH_MAX.into())?;
    in_range("calls_unanswered_max", settings.calls_unanswered_max as u64, 1, 1 << 20)?;
    in_range("unsent_bytes_max", settings.unsent_bytes_max as u64, 4096, 1 << 30)?;
    in_range("lease in seconds", settings.lease.as_secs(), 1, 1 << 20)?;
    let deadline_ms_max = DEADLINE_MAX.as_millis() as u64;
    in_range("run deadline in ms", millis(settings.run_deadline), 1, deadline_ms_max)?;
    in_range("return deadline in ms", millis(settings.return_deadline), 1, 1 << 30)?;
    in_range("connect timeout in ms", millis(settings.connect_timeout), 1, deadline_ms_max)?;
    in_range("connects_max", settings.connects_max as u64, 1, CONNECTS_MAX)?;
    in_range("RPC timeout in ms", millis(settings.rpc_timeout), 1, deadline_ms_max)?;
    in_range("longest backoff in ms", millis(settings.backoff_max), 1, 5000)?;
    in_range("first backoff in ms", millis(settings.backoff_min), 1, millis(settings.backoff_max))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Starts a reactor's thread; the back end is made on it (an io_uring belongs to the thread that made it), so whether
/// that worked is reported back.
fn start(reactor: usize, shared: Arc<Shared>, kind: BackendKind) -> io::Result<thread::JoinHandle<()>> {
    #[cfg(test)]
    if kind == BackendKind::Uring && reactor >= shared.settings.rings_max {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let (ready, started) = mpsc::sync_channel(1);
    let name = format!("{}-{reactor}", shared.settings.name);
    let config: IoConfig = shared.settings.io;
    let cpu = shared.placement[reactor].cpu;
    let thread = threads::spawn(name, move || {
        // Before it allocates anything, which is then near to it.
        if let Some(Err(error)) = cpu.map(cpus::pin) {
            // The receiver is waiting in `start`.
            let _ = ready.send(Err(error));
            return;
        }
        match kind {
            BackendKind::Uring => serve(reactor, shared, Uring::new(&config), &ready),
            BackendKind::Epoll => serve(reactor, shared, Epoll::new(&config), &ready),
        }
    })?;
    match started.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("its thread panicked")),
    }
}

/// However the thread of a reactor ends, by a panic too, others learn about it.
struct Ending {
    reactor: usize,
    shared: Arc<Shared>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.end_reactor(self.reactor);
        if thread::panicking() {
            let port = &self.shared.reactors[self.reactor];
            let text = format_args!("it has ended by a panic, stderr says where; its clients' callbacks are lost");
            self.shared.log(Some(port), LogKind::ReactorEnded, LogLevel::Error, None, text);
        }
    }
}

fn serve<I: Io>(reactor: usize, shared: Arc<Shared>, io: io::Result<I>, ready: &mpsc::SyncSender<io::Result<()>>) {
    // Dropped after the reactor, whose connections are closed by then.
    let _ending = Ending { reactor, shared: Arc::clone(&shared) };
    shared.enter_reactor();
    let io = match io {
        Ok(io) => io,
        Err(error) => {
            // The receiver is waiting in `start`.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let name = io.name();
    let reactor_loop = Reactor::new(reactor, shared, io);
    let _ = ready.send(Ok(()));
    if let Err(error) = reactor_loop.run() {
        // The kernel refused what it accepted before; there is no way to go on, and nobody to return it to.
        panic!("reactor {reactor} on {name}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::{Counting, Deaf};

    #[test]
    fn epoll_serves_where_only_some_reactors_can_have_a_ring() {
        let mut builder = Builder::new().reactors(3).backend(Backend::Auto);
        builder.settings.rings_max = 1;
        let runtime = builder.clone().build(Arc::new(Counting::default()), Arc::new(Deaf)).unwrap();
        assert_eq!(runtime.backend().name, "epoll");
        assert_eq!(runtime.reactors(), 3);
        // Who asks for io_uring gets io_uring, or an error: either that there is none here, or that there is no second.
        let error = builder.backend(Backend::Uring).build(Arc::new(Counting::default()), Arc::new(Deaf)).unwrap_err();
        assert!(matches!(error, BuildError::Backend(_) | BuildError::Reactor { reactor: 1, .. }), "{error}");
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let error = Builder::new().reactors(0).build(Arc::new(Counting::default()), Arc::new(Deaf)).unwrap_err();
        assert_eq!(error.to_string(), "reactors is 0, which is not in 1..=1024");
    }
}
