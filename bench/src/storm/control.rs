//! What the two halves say to each other over the swarm process's stdin and stdout: one JSON object a line.
//!
//! The server half leads: each [`Command`] is answered by [`Report::Progress`] now and then and one [`Report::Done`].
//! The end of stdin tells the swarm that nobody is left to report to.

use super::results::SwarmTally;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// A phase of the run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The clients connect and make their sessions.
    Connect,
    /// They open files and are given delegations.
    Grant,
    /// The delegations are recalled.
    Recall,
    /// The last of them come back.
    Return,
}

impl Phase {
    /// The word for progress bars and messages.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Grant => "grant",
            Phase::Recall => "recall",
            Phase::Return => "return",
        }
    }
}

/// How the swarm is to be set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The server.
    pub server: SocketAddr,
    /// Clients.
    pub clients: u32,
    /// Delegations over all clients.
    pub delegations: u64,
    /// Backchannel session slots of each client.
    pub session_slots: u32,
    /// Operations in one callback that each client allows.
    pub cb_operations: u32,
    /// Clients that stop reading.
    pub dead_clients: u32,
    /// Clients that answer slowly.
    pub slow_clients: u32,
    /// Clients that answer NFS4ERR_DELAY.
    pub delay_clients: u32,
    /// Cuts of every connection.
    pub cut_connections: u32,
    /// Whether recalled delegations are returned.
    pub return_all: bool,
    /// Seed.
    pub seed: u64,
    /// Whether the swarm causes the recalls, by conflicting opens.
    pub trigger: bool,
    /// Path from the server's root to the directory for the files.
    pub directory: Vec<String>,
    /// How long the last phase may go without progress.
    pub phase_limit: Duration,
}

/// Server half to swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// First of all. Connect the clients.
    Setup(Setup),
    /// Open files until every delegation is granted.
    Grant,
    /// The recalls are about to begin: done once the swarm is ready for them, the misbehaving clients included.
    Recall,
    /// The recalls are over: done once everything recalled is returned.
    Return,
    /// Tell the tally and end.
    Stop,
}

/// Swarm to server half.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// How far a phase is.
    Progress {
        /// Which.
        phase: Phase,
        /// Done so far.
        done: u64,
        /// Of how many.
        total: u64,
    },
    /// A phase's command is done.
    Done(Phase),
    /// Answer to `Stop`.
    Tally(Box<SwarmTally>),
    /// The swarm cannot go on.
    Failed(String),
}

/// Writes one message.
pub fn send<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads one message; `None` at the end of the stream.
pub fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = String::new();
    match from.read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_pipe() {
        let mut pipe = Vec::new();
        let setup = Setup {
            server: "[::1]:2049".parse().unwrap(),
            clients: 4,
            delegations: 10,
            session_slots: 2,
            dead_clients: 1,
            slow_clients: 0,
            delay_clients: 1,
            cb_operations: 16,
            cut_connections: 3,
            return_all: true,
            seed: u64::MAX,
            trigger: false,
            directory: vec!["export".to_owned()],
            phase_limit: Duration::from_millis(1500),
        };
        let commands = [Command::Setup(setup), Command::Grant, Command::Recall, Command::Return, Command::Stop];
        for c in &commands {
            send(&mut pipe, c).unwrap();
        }
        let mut reader = pipe.as_slice();
        for c in &commands {
            assert_eq!(receive::<Command>(&mut reader).unwrap().as_ref(), Some(c));
        }
        assert_eq!(receive::<Command>(&mut reader).unwrap(), None);
        let mut pipe = Vec::new();
        let tally = Report::Tally(Box::new(SwarmTally { recalled: 9, ..SwarmTally::default() }));
        send(&mut pipe, &tally).unwrap();
        assert_eq!(receive::<Report>(&mut pipe.as_slice()).unwrap(), Some(tally));
        assert!(receive::<Report>(&mut &b"panicked at\n"[..]).is_err());
    }
}
