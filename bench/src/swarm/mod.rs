//! A swarm of NFSv4.1 clients over real TCP, in one thread: they set up sessions with a backchannel, collect
//! delegations by OPEN, answer the CB_RECALLs and return what was recalled. They check the server the way the Linux
//! client does and count for themselves ([`Tally`]).
//!
//! - `config`: how many clients, and how they behave.
//! - `client`: one client's protocol state, sans-IO; `fore` and `callback` are its two channels.
//! - `engine`: sockets; one turn reads all that is there, handles all records and writes once per connection.
//! - `tally`: what was seen.
//!
//! Nothing is assumed about the server's stateids and filehandles, so that any NFSv4.1 server will do.

#[allow(dead_code)] // used by the engine, which comes next
mod config;
#[allow(dead_code)] // used by the engine, which comes next
mod tally;

pub use config::{Behaviour, SESSION_SLOTS_MAX, SwarmConfig};
pub use tally::{Recalls, Tally};

use std::io;
use std::net::SocketAddr;
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
    /// Clients set up, OPENs answered, or delegations done with: recalled, and returned where that is asked for.
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
    /// and every answer is with the kernel.
    AllRecalled,
    /// The progress callback says so.
    Told,
}

/// The clients, and the thread that drives them: the caller's, within each phase. Between phases nobody answers, so
/// phases should follow each other; to wait, [`serve`](Swarm::serve) until told.
#[derive(Debug)]
pub struct Swarm {
    config: SwarmConfig,
    tally: Tally,
}

impl Swarm {
    /// Opens the connections of all clients.
    pub fn connect(config: SwarmConfig) -> Result<Swarm, SwarmError> {
        if let Some(problem) = config.problem() {
            return Err(SwarmError::Config(problem));
        }
        Ok(Swarm { config, tally: Tally::default() })
    }

    /// EXCHANGE_ID, CREATE_SESSION with a backchannel, RECLAIM_COMPLETE and the way to the directory, for all clients.
    pub fn set_up(&mut self, on_progress: OnProgress<'_>) -> Result<(), SwarmError> {
        let _ = on_progress;
        Err(self.not_yet())
    }

    /// Opens `delegations` files in all, asks for a read delegation with each, and closes it again. Servers need not
    /// grant any: see [`Recalls::granted`] and [`Tally::not_granted`].
    pub fn grant(&mut self, delegations: u64, on_progress: OnProgress<'_>) -> Result<(), SwarmError> {
        let _ = (delegations, on_progress);
        Err(self.not_yet())
    }

    /// Begins the recall phase: dead clients stop reading, slow and delay clients become so, and cuts are due. To be
    /// called before the first recall, as cut points are shares of the delegations held now.
    pub fn begin_recalls(&mut self) {}

    /// Answers callbacks, returns delegations and renews leases.
    pub fn serve(&mut self, until: Until, on_progress: OnProgress<'_>) -> Result<(), SwarmError> {
        let _ = (until, on_progress);
        Err(self.not_yet())
    }

    /// As [`serve`](Swarm::serve) with [`Until::AllRecalled`], while one more client opens every file for write, so
    /// that the server recalls. Needs [`SwarmConfig::trigger`]. Ends as well when every open has succeeded.
    pub fn trigger(&mut self, on_progress: OnProgress<'_>) -> Result<(), SwarmError> {
        let _ = on_progress;
        Err(self.not_yet())
    }

    /// The counts so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Ends the sessions of clients that still can, closes all connections and gives the counts.
    pub fn finish(self) -> Tally {
        self.tally
    }

    fn not_yet(&self) -> SwarmError {
        SwarmError::Config(format!("no engine for {} yet", self.config.server))
    }
}
