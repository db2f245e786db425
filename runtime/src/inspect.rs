//! A look at the reactors and the clients: what they have counted, the clients' callback paths and sessions, and the callbacks
//! that are in flight.

use crate::callback::CallbackKey;
use crate::command::Command;
use crate::completion::Ending;
use crate::hooks::{PathFault, PathState};
use crate::keys::{ClientId, SessionKey};
use crate::latency::Latency;
use crate::runtime::{Error, Runtime};
use crate::stats::{Census, Stats};
use crate::tenant::{TenantId, TenantReport};
use ringback_rpc::backchannel::{Counters, Stage};
use ringback_rpc::nfs4::callback::CallbackOp;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;

/// A runtime: what each reactor says of itself and of its clients between two pieces of work, so that the numbers of one
/// client, and of one reactor, belong together. Those of different reactors are a moment apart.
///
/// # Examples
///
/// ```
/// use ringback::{Error, OutcomeKind, Runtime};
///
/// fn print(runtime: &Runtime) -> Result<(), Error> {
///     for client in runtime.snapshot(1)?.clients {
///         let timed_out = client.counters.ended(OutcomeKind::TimedOut);
///         println!("{:x}: {} parked, {timed_out} timed out", client.client.to_bits(), client.census.parked);
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The reactors that have not ended, by their number.
    pub reactors: Vec<ReactorReport>,
    /// The clients.
    pub clients: Vec<ClientReport>,
    /// Tenants, but for the default one.
    pub tenants: Vec<TenantReport>,
    /// What all reactors have counted, a moment later, and what belongs to none of them: delegations and their reaper.
    pub totals: Stats,
}

/// A reactor.
///
/// # Examples
///
/// ```
/// use ringback::{Error, Runtime};
///
/// fn print(runtime: &Runtime) -> Result<(), Error> {
///     for reactor in runtime.snapshot(0)?.reactors {
///         for (ending, count) in &reactor.endings {
///             println!("reactor {}: {count} times {}", reactor.reactor, ending.name());
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReactorReport {
    /// Which.
    pub reactor: usize,
    /// What it has counted.
    pub stats: Stats,
    /// What the backchannels of its clients have counted, those of clients that are gone included.
    pub counters: Counters,
    /// How its runs ended: each ending that has come, and how often.
    pub endings: Vec<(Ending, u64)>,
    /// How long callbacks took, by class and stage, if that is [measured](crate::Builder::latency).
    pub latencies: Vec<Latency>,
    /// Where the runs and the session slots of its clients are.
    pub census: Census,
}

/// A client, as its home reactor sees it.
///
/// # Examples
///
/// ```
/// use ringback::{Error, Runtime};
///
/// fn print(runtime: &Runtime) -> Result<(), Error> {
///     for client in runtime.inspect(3)? {
///         println!("{:?}: {:?}, {} in flight", client.client, client.path, client.in_flight);
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientReport {
    /// The client.
    pub client: ClientId,
    /// The reactor that is its home.
    pub home: usize,
    /// Its tenant.
    pub tenant: TenantId,
    /// The state of its callback path.
    pub path: PathState,
    /// What its backchannel has counted.
    pub counters: Counters,
    /// Where its runs and its session slots are. `started` of the counters is `completed` and these `queued`, `delayed` and
    /// `sent`.
    pub census: Census,
    /// Its sessions that have a backchannel.
    pub sessions: Vec<SessionReport>,
    /// Callbacks that are in flight.
    pub in_flight: u64,
    /// The oldest of them, the oldest first: as many as were asked for. One that was just accepted may be missing; one whose
    /// end waits on a completion queue is.
    pub callbacks: Vec<CallbackReport>,
}

/// A session's backchannel.
///
/// # Examples
///
/// ```
/// use ringback::ClientReport;
///
/// fn busy(client: &ClientReport) -> u32 {
///     client.sessions.iter().map(|session| session.slots_in_use).sum()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionReport {
    /// The session.
    pub session: SessionKey,
    /// Connections that carry it.
    pub connections: u32,
    /// Its session slots.
    pub slots: u32,
    /// Those with a call that is not settled.
    pub slots_in_use: u32,
    /// Those of them whose callbacks were given up and whose sequence id is not known yet.
    pub slots_quarantined: u32,
    /// Those that cannot be used any more.
    pub slots_retired: u32,
    /// What is wrong with it.
    pub fault: Option<PathFault>,
}

/// A callback in flight.
///
/// # Examples
///
/// ```
/// use ringback::ClientReport;
///
/// fn oldest_ns(client: &ClientReport) -> Option<u64> {
///     client.callbacks.first().map(|callback| callback.age_ns)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallbackReport {
    /// The callback.
    pub key: CallbackKey,
    /// Its cookie.
    pub cookie: u64,
    /// The runtime sends it on its own account ([`Budget`](crate::Budget)); the cookie is not the embedder's.
    pub by_runtime: bool,
    /// Which operation.
    pub op: CallbackOp,
    /// Nanoseconds since the accepted `try_run`.
    pub age_ns: u64,
    /// Where it is.
    pub stage: Stage,
    /// It was sent at least once.
    pub sent: bool,
    /// The session and the session slot that it occupies.
    pub at: Option<(SessionKey, u32)>,
}

impl Snapshot {
    /// How long callbacks took, all reactors together.
    pub fn latencies(&self) -> Vec<Latency> {
        let mut reactors = self.reactors.iter();
        let mut all = reactors.next().map(|reactor| reactor.latencies.clone()).unwrap_or_default();
        for reactor in reactors {
            all.iter_mut().zip(&reactor.latencies).for_each(|(to, from)| to.add(from));
        }
        all
    }
}

impl ClientReport {
    /// How old the oldest callback in flight is, if there is one and any were asked for.
    pub fn oldest_ns(&self) -> u64 {
        self.callbacks.first().map_or(0, |callback| callback.age_ns)
    }

    /// The one that is more in trouble comes first: whose oldest callback is older, who has more parked, more in flight.
    pub fn by_trouble(&self, other: &ClientReport) -> Ordering {
        let trouble = |client: &ClientReport| (client.oldest_ns(), client.census.parked, client.in_flight);
        trouble(other).cmp(&trouble(self)).then(self.client.to_bits().cmp(&other.client.to_bits()))
    }
}

impl Runtime {
    /// What each reactor and each client has counted, and what is in flight, with at most `callbacks_max` of the callbacks of
    /// each client. Walks them on their reactors and waits for the answers: for who operates the server, and not to be
    /// done often. [`Error::InHook`] from a hook.
    pub fn snapshot(&self, callbacks_max: usize) -> Result<Snapshot, Error> {
        self.may_wait()?;
        let (answer, answers) = mpsc::channel();
        for port in &self.shared().reactors {
            port.post(Command::Inspect { callbacks_max, answer: answer.clone() });
        }
        drop(answer);
        // Ends when the last reactor has answered, or dropped the question because it has ended.
        let (reactors, clients): (Vec<_>, Vec<_>) = answers.iter().unzip();
        let mut reactors: Vec<ReactorReport> = reactors.into_iter().flatten().collect();
        reactors.sort_by_key(|report| report.reactor);
        let mut clients: Vec<ClientReport> = clients.into_iter().flatten().collect();
        self.add_missed(&mut clients, callbacks_max);
        // One that moved meanwhile may have been described twice.
        clients.sort_by_key(|report| report.client.to_bits());
        clients.dedup_by_key(|report| report.client);
        Ok(Snapshot { reactors, clients, tenants: self.tenants(), totals: self.stats() })
    }

    /// Adds the clients that were on their way from one reactor to another.
    fn add_missed(&self, clients: &mut Vec<ClientReport>, callbacks_max: usize) {
        let described: HashSet<u32> = clients.iter().map(|report| report.client.index).collect();
        let all = self.shared().clients.each().enumerate().map(|(index, known)| (index as u32, known));
        for (index, known) in all.filter(|(index, known)| known.live.load(SeqCst) && !described.contains(index)) {
            let client = ClientId { index, generation: known.generation() };
            clients.extend(self.inspect_client(client, callbacks_max));
        }
    }

    /// One client of a [snapshot](Runtime::snapshot).
    pub fn inspect_client(&self, client: ClientId, callbacks_max: usize) -> Result<ClientReport, Error> {
        self.may_wait()?;
        let (answer, answers) = mpsc::channel();
        self.post_home(client, Command::InspectClient { client, callbacks_max, answer })?;
        // It may have gone meanwhile; or its reactor has ended, and the question with it.
        answers.recv().map_err(|_| Error::NoSuchClient)
    }

    /// What one reactor has counted; its own part of [`Runtime::stats`]. `None`: there is no such reactor.
    pub fn reactor_stats(&self, reactor: usize) -> Option<Stats> {
        let mut stats = self.shared().reactors.get(reactor)?.stats.read();
        let clients = self.shared().clients.each().filter(|client| client.home() == reactor);
        stats.in_flight = clients.map(|client| client.in_flight.count()).sum();
        Some(stats)
    }

    /// The clients of a [snapshot](Runtime::snapshot).
    pub fn inspect(&self, callbacks_max: usize) -> Result<Vec<ClientReport>, Error> {
        self.snapshot(callbacks_max).map(|snapshot| snapshot.clients)
    }
}
