//! A swarm of NFSv4.1 clients over real TCP, in one thread: they set up sessions with a backchannel, collect
//! delegations by OPEN, answer the CB_RECALLs and return what was recalled. They check the server the way the Linux
//! client does and count for themselves ([`Tally`]).
//!
//! - `config`: how many clients, and how they behave.
//! - `client`: one client's protocol state, sans-IO: `setup` makes the session, `work` opens and returns; `fore` and
//!   `callback` are its two channels, `parameters` what it wants to be called with.
//! - `engine`: the loop, over one `link` (client and socket) each; one turn reads all that is there, handles all
//!   records and writes once per connection.
//! - `tally`: what was seen.
//!
//! Nothing is assumed about the server's stateids and filehandles, so that any NFSv4.1 server will do.

mod callback;
mod client;
mod config;
mod engine;
mod fore;
mod link;
mod opens;
mod outgoing;
mod parameters;
mod returns;
mod setup;
mod tally;
#[cfg(test)]
mod tests;
mod work;

pub use config::{Behaviour, CALLBACK_OPERATIONS_MAX, CALLBACK_OPERATIONS_MIN, SESSION_SLOTS_MAX, SwarmConfig};
pub use tally::{Recalls, Tally};

use engine::Engine;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;
use thiserror::Error;

/// Why a swarm cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SwarmError {
    /// The configuration makes no sense; the text says why.
    #[error("{0}")]
    Config(String),
    /// The server cannot be reached.
    #[error("cannot connect to {server}: {source}")]
    Connect {
        /// The server's address.
        server: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The server refused what a client cannot do without.
    #[error("{reason}")]
    Client {
        /// The client.
        client: u32,
        /// What went wrong; names the client.
        reason: String,
    },
    /// Nothing moved for [`SwarmConfig::stall_max`].
    #[error("{phase} stalled: {done} of {total} done, and nothing moved for {waited:?}")]
    Stalled {
        /// The phase.
        phase: Phase,
        /// What was done.
        done: u64,
        /// Of how much.
        total: u64,
        /// How long nothing moved.
        waited: Duration,
    },
}

/// What a swarm is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connections, client ids and sessions.
    SetUp,
    /// Opens that ask for delegations.
    Grant,
    /// Answering callbacks.
    Serve,
    /// Opening for write, to make the server recall.
    Trigger,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::SetUp => "set-up",
            Phase::Grant => "grant",
            Phase::Serve => "serve",
            Phase::Trigger => "trigger",
        })
    }
}

/// How far a phase is; given to its callback about ten times a second, and once at its end.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The phase.
    pub phase: Phase,
    /// Clients set up, OPENs answered, or delegations done with: recalled, and returned where that is asked for. Those of
    /// a client that gave up are done with, too: see [`Tally::failures`].
    pub done: u64,
    /// Of how many. In [`Phase::Serve`] delegations of dead clients and of those that answer NFS4ERR_DELAY for ever
    /// are not in it.
    pub total: u64,
    /// The counts so far.
    pub tally: &'a Tally,
}

/// Called with the progress of a phase; `Break` ends the phase at once, with `Ok`.
pub type OnProgress<'a> = &'a mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>;

/// When [`Swarm::serve`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Every delegation that can be is recalled, and returned where [`SwarmConfig::return_delegations`] asks for it,
    /// and every answer is with the kernel. A server that was cut off may want to repeat what it asked: give it the time
    /// with [`Until::Told`].
    AllRecalled,
    /// The progress callback says so.
    Told,
}

/// The clients, and the thread that drives them: the caller's, within each phase. Between phases nobody answers, so
/// phases should follow each other; to wait, [`serve`](Swarm::serve) until told.
#[derive(Debug)]
pub struct Swarm {
    engine: Engine,
}

impl Swarm {
    /// Checks the configuration, and that the server takes connections.
    pub fn connect(config: SwarmConfig) -> Result<Swarm, SwarmError> {
        if let Some(problem) = config.problem() {
            return Err(SwarmError::Config(problem));
        }
        let server = config.server;
        let mut engine = Engine::new(config)?;
        TcpStream::connect_timeout(&server, CONNECT_MAX).map_err(|source| SwarmError::Connect { server, source })?;
        engine.connect_more()?;
        Ok(Swarm { engine })
    }

    /// All connections, and for each client EXCHANGE_ID, CREATE_SESSION with a backchannel, RECLAIM_COMPLETE and the
    /// way to the directory.
    pub fn set_up(&mut self, on_progress: OnProgress<'_>) -> Result<(), SwarmError> {
        let done = |engine: &Engine| {
            let (ready, all) = engine.set_up();
            ready == all || engine.failure().is_err()
        };
        // Connections are made in bursts; each end of a burst is no end of the phase.
        let (mut broken, mut failed) = (false, Ok(()));
        while !broken && failed.is_ok() && !done(&self.engine) {
            let before = self.engine.set_up().0;
            let step = |engine: &Engine| done(engine) || engine.set_up().0 > before || engine.has_connect_error();
            self.engine.connect_more()?;
            let mut watch = |progress: &Progress<'_>| {
                let told = on_progress(progress);
                broken |= told.is_break();
                told
            };
            failed = self.engine.run(Phase::SetUp, true, &Engine::set_up, &step, &mut watch);
        }
        failed?;
        self.engine.failure()
    }

    /// Opens `delegations` files in all, asks for a read delegation with each, and closes it again. Servers need not
    /// grant any: see [`Recalls::granted`] and [`Tally::not_granted`].
    pub fn grant(&mut self, delegations: u64, on_progress: OnProgress<'_>) -> Result<(), SwarmError> {
        let before = self.engine.tally.opened;
        self.engine.plan_grant(delegations);
        self.engine.pump();
        let measure = |engine: &Engine| (engine.tally.opened - before, delegations);
        self.engine.run(Phase::Grant, true, &measure, &Engine::is_idle, on_progress)?;
        self.engine.failure()
    }

    /// Begins the recall phase: dead clients stop reading, slow and delay clients become so, and cuts are due. To be
    /// called before the first recall, as cut points are shares of the delegations held now.
    pub fn begin_recalls(&mut self) {
        self.engine.begin_recalls();
    }

    /// Answers callbacks, returns delegations and renews leases. A client that gives up meanwhile is no error here: see
    /// [`Tally::failures`].
    pub fn serve(&mut self, until: Until, on_progress: OnProgress<'_>) -> Result<(), SwarmError> {
        let end = |engine: &Engine| until == Until::AllRecalled && all_recalled(engine);
        let measure = recalls(&self.engine);
        self.engine.run(Phase::Serve, false, &measure, &end, on_progress)
    }

    /// As [`serve`](Swarm::serve) with [`Until::AllRecalled`], while one more client opens every file for write, so
    /// that the server recalls; ends when those opens have their final answers, too. Needs [`SwarmConfig::trigger`].
    pub fn trigger(&mut self, on_progress: OnProgress<'_>) -> Result<(), SwarmError> {
        if !self.engine.plan_trigger() {
            return Err(SwarmError::Config("the swarm was made without a trigger".into()));
        }
        self.engine.pump();
        let end = |engine: &Engine| all_recalled(engine) && engine.is_idle();
        let measure = recalls(&self.engine);
        self.engine.run(Phase::Trigger, false, &measure, &end, on_progress)
    }

    /// The counts so far.
    pub fn tally(&self) -> &Tally {
        &self.engine.tally
    }

    /// Ends the sessions of clients that still can, closes all connections and gives the counts.
    pub fn finish(mut self) -> Tally {
        self.engine.leave();
        self.engine.tally
    }
}

/// How long the first connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Delegations of clients that recall and return within the run.
fn left(engine: &Engine) -> u64 {
    engine.tally.left(Behaviour::Normal) + engine.tally.left(Behaviour::Slow)
}

fn all_recalled(engine: &Engine) -> bool {
    left(engine) == 0 && engine.is_quiet()
}

/// How many of those that are left now are done with.
fn recalls(engine: &Engine) -> impl Fn(&Engine) -> (u64, u64) + use<> {
    let total = left(engine);
    move |engine| (total.saturating_sub(left(engine)), total)
}
