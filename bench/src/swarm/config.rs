//! What a swarm is asked to be.

use std::net::SocketAddr;
use std::time::Duration;

/// Most session slots that a client may ask for. The slot's number takes this many values of an xid's low bits.
pub const SESSION_SLOTS_MAX: u32 = 1024;

/// Least operations in a callback that a client may allow: CB_SEQUENCE and one more, as the Linux client does.
pub const CALLBACK_OPERATIONS_MIN: u32 = 2;
/// Most operations in a callback that a client may allow. A page, its largest callback, holds fewer CB_RECALLs.
pub const CALLBACK_OPERATIONS_MAX: u32 = 256;

/// How a client takes the recall phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Behaviour {
    /// Answers at once and returns what was recalled.
    Normal,
    /// Stops reading its socket when the recall phase begins.
    Dead,
    /// Answers every callback after [`SwarmConfig::slow_delay`].
    Slow,
    /// Answers NFS4ERR_DELAY to every CB_RECALL, for ever.
    Delay,
}

impl Behaviour {
    /// Every behaviour.
    pub const ALL: [Behaviour; 4] = [Behaviour::Normal, Behaviour::Dead, Behaviour::Slow, Behaviour::Delay];
}

/// The swarm: how many clients, against which server, and how they behave.
#[derive(Clone, Debug)]
pub struct SwarmConfig {
    /// The server.
    pub server: SocketAddr,
    /// Clients, each with one connection, one client id and one session.
    pub clients: u32,
    /// Session slots asked for, on the fore channel and on the backchannel; the server may grant fewer.
    pub session_slots: u32,
    /// Makes file names, owners, program numbers and cut points; the same seed makes the same ones.
    pub seed: u64,
    /// Path from the root filehandle to the directory in which files are opened; empty for the root itself.
    pub directory: Vec<String>,
    /// Whether OPEN creates a file that is not there (UNCHECKED4).
    pub create: bool,
    /// Whether a recalled delegation is returned by DELEGRETURN. If not, the recall is answered and that is all.
    pub return_delegations: bool,
    /// Most operations in one callback, CB_SEQUENCE among them (ca_maxoperations of the backchannel).
    pub callback_operations: u32,
    /// Clients that are [`Behaviour::Dead`].
    pub dead_clients: u32,
    /// Clients that are [`Behaviour::Slow`].
    pub slow_clients: u32,
    /// Clients that are [`Behaviour::Delay`].
    pub delay_clients: u32,
    /// How long a slow client waits before it answers a callback.
    pub slow_delay: Duration,
    /// How often each connection, dead clients' aside, is cut and bound again during the recall phase.
    pub cuts: u32,
    /// How long a session may be idle before SEQUENCE renews the lease; `None`: a third of the server's lease_time.
    pub renew_interval: Option<Duration>,
    /// How long [`Swarm::set_up`](super::Swarm::set_up) and [`Swarm::grant`](super::Swarm::grant) wait without any
    /// progress before they give up.
    pub stall_max: Duration,
    /// The user id of the AUTH_SYS credential, for calls and for callbacks.
    pub uid: u32,
    /// The group id of the AUTH_SYS credential.
    pub gid: u32,
    /// Whether one more client is set up, which [`Swarm::trigger`](super::Swarm::trigger) needs.
    pub trigger: bool,
    /// Most opens for write that the trigger has outstanding, those that wait to be repeated included.
    pub trigger_window: u32,
}

impl SwarmConfig {
    /// 64 well-behaved clients with 64 session slots each against `server`.
    pub fn new(server: SocketAddr) -> Self {
        SwarmConfig {
            server,
            clients: 64,
            session_slots: 64,
            seed: 1,
            directory: Vec::new(),
            create: true,
            return_delegations: true,
            callback_operations: CALLBACK_OPERATIONS_MIN,
            dead_clients: 0,
            slow_clients: 0,
            delay_clients: 0,
            slow_delay: Duration::from_millis(10),
            cuts: 0,
            renew_interval: None,
            stall_max: Duration::from_secs(30),
            uid: 0,
            gid: 0,
            trigger: false,
            trigger_window: 256,
        }
    }

    /// Why this cannot be a swarm, in one line that says what to do; `None` if it can.
    pub fn problem(&self) -> Option<String> {
        let bad = u64::from(self.dead_clients) + u64::from(self.slow_clients) + u64::from(self.delay_clients);
        if self.clients == 0 {
            return Some("a swarm needs at least one client".into());
        }
        if self.session_slots == 0 || self.session_slots > SESSION_SLOTS_MAX {
            return Some(format!("session slots must be 1 to {SESSION_SLOTS_MAX}, not {}", self.session_slots));
        }
        if !(CALLBACK_OPERATIONS_MIN..=CALLBACK_OPERATIONS_MAX).contains(&self.callback_operations) {
            return Some(format!(
                "operations in a callback must be {CALLBACK_OPERATIONS_MIN} to {CALLBACK_OPERATIONS_MAX}, not {}",
                self.callback_operations
            ));
        }
        if bad > u64::from(self.clients) {
            return Some(format!("{bad} dead, slow and delay clients do not fit into {} clients", self.clients));
        }
        if self.trigger_window == 0 {
            return Some("the trigger needs a window of at least 1".into());
        }
        None
    }

    /// How client `index` behaves: the last ones are dead, those before them slow, those before delay.
    pub fn behaviour(&self, index: u32) -> Behaviour {
        let from_end = self.clients.saturating_sub(index);
        if index >= self.clients {
            Behaviour::Normal
        } else if from_end <= self.dead_clients {
            Behaviour::Dead
        } else if from_end <= self.dead_clients + self.slow_clients {
            Behaviour::Slow
        } else if from_end <= self.dead_clients + self.slow_clients + self.delay_clients {
            Behaviour::Delay
        } else {
            Behaviour::Normal
        }
    }

    /// How many of `delegations` client `index` asks for: all the same, the first ones one more.
    pub fn share(&self, index: u32, delegations: u64) -> u64 {
        let clients = u64::from(self.clients.max(1));
        delegations / clients + u64::from(u64::from(index) < delegations % clients)
    }

    /// The name of the `n`th file of client `index`.
    pub(crate) fn file_name(&self, index: u32, n: u64, name: &mut FileName) {
        use std::io::Write;
        name.len = 0;
        let mut space = name.bytes.as_mut_slice();
        // "rb-", two dashes, and at most 20 + 10 + 20 digits: 55 of 64 bytes.
        let _ = write!(space, "rb-{}-{index}-{n}", self.seed);
        let left = space.len();
        name.len = name.bytes.len() - left;
    }
}

/// A file name in the making.
#[derive(Debug)]
pub(crate) struct FileName {
    bytes: [u8; 64],
    len: usize,
}

impl FileName {
    pub(crate) const fn new() -> Self {
        FileName { bytes: [0; 64], len: 0 }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_clients_misbehave_and_the_first_ones_get_the_rest_of_the_division() {
        let mut config = SwarmConfig::new("127.0.0.1:1".parse().unwrap());
        config.clients = 6;
        (config.dead_clients, config.slow_clients, config.delay_clients) = (1, 2, 1);
        let all: Vec<_> = (0..7).map(|i| config.behaviour(i)).collect();
        use Behaviour::{Dead, Delay, Normal, Slow};
        assert_eq!(all, [Normal, Normal, Delay, Slow, Slow, Dead, Normal], "the seventh is the trigger");
        let shares: Vec<_> = (0..6).map(|i| config.share(i, 14)).collect();
        assert_eq!(shares, [3, 3, 2, 2, 2, 2]);
        assert_eq!(config.problem(), None);
        config.callback_operations = 1;
        assert!(config.problem().unwrap().contains("2 to 256"));
        config.callback_operations = 2;
        config.delay_clients = 9;
        assert!(config.problem().unwrap().contains("do not fit"));
    }

    #[test]
    fn the_longest_name_fits() {
        let mut config = SwarmConfig::new("127.0.0.1:1".parse().unwrap());
        config.seed = u64::MAX;
        let mut name = FileName::new();
        config.file_name(u32::MAX, u64::MAX, &mut name);
        assert_eq!(name.as_bytes(), b"rb-18446744073709551615-4294967295-18446744073709551615");
        config.file_name(0, 7, &mut name);
        assert_eq!(name.as_bytes(), b"rb-18446744073709551615-0-7");
    }
}
