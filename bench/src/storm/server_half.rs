//! The server half: ringback's own file server with a [`Recorder`] as its observer.

use super::cli::{BackendChoice, Halves, Options};
use super::recorder::{Ending, Recorder};
use super::results::{Drained, ReactorWork, Stage};
use ringback::{Backend, Builder, CallbackKey, Outcome, Run, TryRun};
use ringback_rpc::nfs4::Status;
use ringback_server::{Config, HeldDelegation, Observer, Server};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

/// Room beyond what was asked for: the trigger of a swarm elsewhere is a client too, and holds nothing.
const CLIENTS_SPARE: u32 = 64;
/// How long an upgrade may take.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(20);
/// How long the end may take when everything has been drained already.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);

/// The running server half.
#[derive(Debug)]
pub struct ServerHalf {
    /// Read by who asks something of it, written while another runtime takes over.
    server: RwLock<Server>,
    address: SocketAddr,
    recorder: Arc<Recorder>,
    delegations: u64,
    /// Session slots that clients made dead may keep: nobody says whether what was sent to them was executed.
    slots_excused: u64,
}

/// The runtime's counters, as far as the storm looks at them.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Runs accepted, by the answers of `try_run`.
    pub accepted: u64,
    /// Runs that reactors took up.
    pub started: u64,
    /// Runs completed.
    pub completed: u64,
    /// Runs answered by the client.
    pub answered: u64,
    /// Runs released.
    pub released: u64,
    /// Runs in flight.
    pub in_flight: u64,
    /// The reactors' work.
    pub work: ReactorWork,
}

impl Observer for Recorder {
    fn accepted(&self, _key: CallbackKey) {
        self.count_accepted();
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) {
        self.ended(run.key, run.age_ns, ending(outcome));
    }
}

fn ending(outcome: &Outcome<'_>) -> Ending {
    match outcome {
        Outcome::Replied { status: Status::NFS4_OK, .. } => Ending::Ok,
        Outcome::Replied { .. } => Ending::Error,
        Outcome::Refused => Ending::Refused,
        Outcome::TimedOut { sent } => Ending::TimedOut(*sent),
        Outcome::PathDown => Ending::PathDown,
        Outcome::Courtesy => Ending::Courtesy,
        Outcome::Cancelled { .. } => Ending::Cancelled,
        Outcome::DeliveredUnknown => Ending::DeliveredUnknown,
        Outcome::Fault(_) => Ending::Fault,
        // The list of outcomes may grow; an unknown one is no answer.
        _ => Ending::Error,
    }
}

impl ServerHalf {
    /// Starts runtime, file server and listener.
    pub fn start(options: &Options, recorder: Arc<Recorder>) -> Result<ServerHalf, String> {
        let address = match options.halves {
            Halves::Server(address) => address,
            _ => SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let observer: Arc<dyn Observer> = Arc::clone(&recorder) as _;
        let server = Server::new(config(options), builder(options, options.backend), observer)
            .map_err(|e| format!("the runtime cannot be started: {e}"))?;
        let address = server.listen(address).map_err(|e| cannot_listen(address, &e))?;
        let slots_excused = u64::from(options.dead_clients) * u64::from(options.session_slots);
        Ok(ServerHalf {
            server: RwLock::new(server),
            address,
            recorder,
            delegations: options.delegations,
            slots_excused,
        })
    }

    fn server(&self) -> RwLockReadGuard<'_, Server> {
        self.server.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with another runtime, as another process would; for how long nothing was sent and received.
    pub fn upgrade(&self, options: &Options, backend: BackendChoice) -> Result<Duration, String> {
        let mut server = self.server.write().unwrap_or_else(PoisonError::into_inner);
        let upgraded = server.renew(builder(options, backend), UPGRADE_PATIENCE);
        upgraded.map(|upgraded| upgraded.pause).map_err(|e| format!("an upgrade failed: {e}"))
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Delegations held.
    pub fn held(&self) -> u64 {
        self.server().delegations()
    }

    /// Delegations that were granted and not given back: held, or revoked.
    pub fn kept(&self) -> u64 {
        // In this order: what is revoked in between is counted twice rather than not at all, and soon is not.
        let held = self.held();
        held + self.server().revocations()
    }

    /// Confirmed clients.
    pub fn clients(&self) -> usize {
        self.server().clients().len()
    }

    /// Which back end runs, and why that one.
    pub fn backend(&self) -> (String, String) {
        let server = self.server();
        let report = server.runtime().backend();
        (report.name.to_owned(), report.reason.clone())
    }

    /// Where its reactors are pinned to.
    pub fn placement(&self) -> Vec<String> {
        let server = self.server();
        let places = server.runtime().placement().iter();
        places.filter(|place| place.cpu.is_some()).map(ToString::to_string).collect()
    }

    /// Resident bytes that the runtime owns, and for how many callbacks.
    pub fn idle_memory(&self) -> (u64, u64) {
        (in_main(self.server().runtime().memory()).total() as u64, self.held())
    }

    /// The delegations to recall, by client; no more of them than were asked for.
    pub fn to_recall(&self) -> Vec<Vec<HeldDelegation>> {
        let mut by_client: HashMap<u64, Vec<HeldDelegation>> = HashMap::new();
        let server = self.server();
        for held in server.held().take(usize::try_from(self.delegations).unwrap_or(usize::MAX)) {
            by_client.entry(held.client.to_bits()).or_default().push(held);
        }
        by_client.into_values().collect()
    }

    /// Starts a recall.
    pub fn recall(&self, held: &HeldDelegation) {
        if matches!(self.server().recall(held), TryRun::Submitted | TryRun::Rearmed) {
            self.recorder.count_accepted();
        }
    }

    /// The counters now.
    pub fn counts(&self) -> Counts {
        let accepted = self.recorder.accepted();
        let stats = self.server().runtime().stats();
        Counts {
            accepted,
            started: stats.started,
            completed: stats.completed,
            answered: stats.replied,
            released: stats.released,
            in_flight: stats.in_flight,
            work: ReactorWork {
                syscalls: stats.syscalls,
                sends: stats.sends,
                sent_bytes: stats.sent_bytes,
                receives: stats.receives,
                wakes: stats.wakes,
                calls: stats.calls_sent,
            },
        }
    }

    /// How long the stages of callbacks took, as far as the runtime measures it.
    pub fn stages(&self) -> Vec<Stage> {
        let snapshot = in_main(self.server().runtime().snapshot(0));
        let stage = |latency: &ringback::Latency| {
            let at = |part| latency.quantile(part).as_micros() as u64;
            Stage {
                class: latency.class().to_owned(),
                stage: latency.stage().name().to_owned(),
                count: latency.count(),
                p50: at(0.5),
                p99: at(0.99),
                p999: at(0.999),
                max: latency.max().as_micros() as u64,
            }
        };
        snapshot.latencies().iter().filter(|latency| latency.count() > 0).map(stage).collect()
    }

    /// Session slots that are not free and have no excuse, when nothing is in flight. A run's slot has none.
    pub fn slots_leaked(&self) -> u64 {
        let census = in_main(self.server().runtime().census());
        let not_free = census.slots.saturating_sub(census.free);
        census.with_run.max(not_free.saturating_sub(self.slots_excused))
    }

    /// Ends all callbacks; gives what had to be ended.
    pub fn drain(&self, patience: Duration) -> Drained {
        self.recorder.keep_cancelled();
        let begun = Instant::now();
        let report = in_main(self.server().runtime().drain(patience));
        let took = begun.elapsed();
        let cancelled = self.recorder.take_cancelled();
        Drained { took, abandoned: report.abandoned, unsent: report.unsent, cancelled }
    }
}

/// The answer to what is an error in a hook only.
fn in_main<T>(answer: Result<T, ringback::Error>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => unreachable!("this is no hook: {error}"),
    }
}

impl Drop for ServerHalf {
    fn drop(&mut self) {
        // What is reported has been read before.
        let _ = self.server().shutdown(SHUTDOWN_PATIENCE);
    }
}

fn config(options: &Options) -> Config {
    let defaults = Config::default();
    // The trigger's opens and files come on top of one open and file for each delegation.
    let objects = options.delegations * 2 + 1024;
    Config {
        lease: options.lease,
        clients_max: options.clients + CLIENTS_SPARE,
        clients_unconfirmed_max: defaults.clients_unconfirmed_max.max(options.clients as usize + 1),
        session_slots_max: options.session_slots.max(defaults.session_slots_max),
        files_max: objects,
        opens_max: objects,
        delegations_max: options.delegations,
        ..defaults
    }
}

fn builder(options: &Options, backend: BackendChoice) -> Builder {
    let backend = match backend {
        BackendChoice::Auto => Backend::Auto,
        BackendChoice::Uring => Backend::Uring,
        BackendChoice::Epoll => Backend::Epoll,
    };
    Builder::new()
        .name("storm")
        .backend(backend)
        .reactors(options.reactors as usize)
        .cpus(options.cpus.clone())
        .run_deadline(options.deadline)
        .latency(options.stages)
        .clients_max((options.clients + CLIENTS_SPARE) as usize)
        .callbacks_max(u32::try_from(options.delegations).unwrap_or(u32::MAX))
}

fn cannot_listen(address: SocketAddr, e: &std::io::Error) -> String {
    match e.kind() {
        ErrorKind::AddrInUse => {
            format!("--listen {address} is already in use: stop what serves there or choose another port")
        }
        ErrorKind::PermissionDenied => {
            format!("--listen {address}: permission denied; choose a port of 1024 or more, or run as root")
        }
        ErrorKind::AddrNotAvailable => format!("--listen {address} is no address of this host: choose one that is"),
        _ => format!("cannot listen on {address}: {e}"),
    }
}
