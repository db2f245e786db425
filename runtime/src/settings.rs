//! Everything that can be set, with its default. Times are per RFC 8881's terms where it has one.

use crate::io::{Backend, IoConfig};
use crate::keys::ClientId;
use crate::log::Logger;
use crate::path::ConnectPolicy;
use crate::reaper::Budget;
use ringback_rpc::backchannel::{ClientLimits, Config};
use std::path::PathBuf;
use std::time::Duration;

/// Limits and times of one runtime.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub reactors: usize,
    pub backend: Backend,
    /// What reactors are pinned to.
    pub cpus: Vec<usize>,
    /// Callback entries, all clients together. Memory is taken as they are inserted.
    pub callbacks_max: u32,
    pub clients_max: usize,
    /// Largest record on a connection, either way; covers a WRITE of 1 MiB and its headers.
    pub record_bytes_max: usize,
    /// Bytes waiting to be sent on one connection before receiving from it pauses.
    pub unsent_bytes_max: usize,
    /// Fore-channel calls of one connection that wait for an answer before receiving from it pauses.
    pub calls_unanswered_max: usize,
    pub lease: Duration,
    pub run_deadline: Duration,
    pub rpc_timeout: Duration,
    /// From the first transmission of a recall until its return is overdue.
    pub return_deadline: Duration,
    /// Callbacks in one CB_COMPOUND.
    pub batch_max: u32,
    /// Waits after NFS4ERR_DELAY.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// How often a class may be passed over by higher ones while it has work.
    pub recalls_passed_over_max: u8,
    pub background_passed_over_max: u8,
    /// How often settings were changed since the runtime was built.
    pub tunings: u64,
    /// What a client is sent at most, unless it is told otherwise for that one.
    pub client_limits: ClientLimits,
    /// Queues for completions; 0: they are told to the hooks alone.
    pub completion_queues: usize,
    /// To where connections are made.
    pub connect_policy: ConnectPolicy,
    /// How long one may take.
    pub connect_timeout: Duration,
    /// How many each reactor makes at a time.
    pub connects_max: usize,
    /// Delegations before clients are asked to keep fewer.
    pub budget: Budget,
    /// The file in which the kernel tells of memory pressure.
    pub memory_pressure: Option<PathBuf>,
    /// Whether latencies are measured.
    pub latency: bool,
    /// Steps that each reactor's flight recorder keeps; 0: there is none.
    pub flight_records: usize,
    /// Who is told what an operator must know.
    pub log: Logger,
    /// Begins the names of the threads.
    pub name: String,
    pub io: IoConfig,
    /// Reactors that get an io_uring when they ask for one.
    #[cfg(test)]
    pub rings_max: usize,
}

/// Size of a staging buffer: what is coalesced into one send. 64 KiB hold about 300 recalls.
pub(crate) const STAGING_BYTES: usize = 64 * 1024;

/// Callback records encoded in one turn of a reactor before they are flushed: bigger turns fall out of the L2 cache.
pub(crate) const TRANSMITS_PER_TURN: usize = 512;

/// Callbacks encoded for one client before the next client has its turn. What is encoded in one go leaves in one send, and a
/// send costs the kernel the same whatever it carries: where a call has fifteen callbacks, these are seventeen calls.
pub(crate) const TRANSMITS_PER_CLIENT: usize = 256;

/// Callbacks encoded for clients of one tenant before another tenant has its turn. Less than a client's: who has one client
/// has to wait after each turn of that, and must not have sent less in it than who has many.
pub(crate) const TRANSMITS_PER_TENANT: usize = 32;

impl Default for Settings {
    fn default() -> Self {
        let lease = Duration::from_secs(90);
        Settings {
            reactors: std::thread::available_parallelism().map_or(1, usize::from),
            backend: Backend::Auto,
            cpus: Vec::new(),
            callbacks_max: 16 << 20,
            clients_max: 1 << 16,
            record_bytes_max: (1 << 20) + (64 << 10),
            unsent_bytes_max: 4 << 20,
            calls_unanswered_max: 256,
            lease,
            run_deadline: lease,
            rpc_timeout: rpc_timeout_default(lease),
            return_deadline: lease,
            batch_max: 16,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            recalls_passed_over_max: 4,
            background_passed_over_max: 16,
            tunings: 0,
            client_limits: ClientLimits::default(),
            completion_queues: 0,
            connect_policy: ConnectPolicy::default(),
            connect_timeout: Duration::from_secs(5),
            connects_max: 64,
            budget: Budget::UNLIMITED,
            memory_pressure: None,
            latency: false,
            flight_records: 0,
            log: Logger::default(),
            name: "ringback".to_owned(),
            io: IoConfig::default(),
            #[cfg(test)]
            rings_max: usize::MAX,
        }
    }
}

impl Settings {
    /// Bytes waiting on one connection with which no more callbacks are encoded for it: two buffers, one that is being
    /// sent and one that fills. Callbacks alone never make receiving pause.
    pub fn callback_staged_bytes_max(&self) -> usize {
        (2 * STAGING_BYTES).min(self.unsent_bytes_max / 2)
    }

    /// How often the home reactor of a client is told that a connection elsewhere is alive: well within the time after
    /// which it would take it for dead.
    pub fn heard_period_ns(&self) -> u64 {
        (self.rpc_timeout.as_nanos() as u64 / 4).min(250_000_000)
    }

    /// The settings of one client's backchannel. Each client has its own jitter and begins at its own xid, so that two
    /// incarnations of a client are not taken for one another by a late reply.
    pub fn backchannel_config(&self, client: ClientId) -> Config {
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let mut config = Config::for_lease(ns(self.lease));
        config.run_deadline_ns = ns(self.run_deadline);
        config.rpc_timeout_ns = ns(self.rpc_timeout);
        config.batch_max = self.batch_max;
        (config.backoff_ns_min, config.backoff_ns_max) = (ns(self.backoff_min), ns(self.backoff_max));
        config.recalls_passed_over_max = self.recalls_passed_over_max;
        config.background_passed_over_max = self.background_passed_over_max;
        let mixed = client.to_bits().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        config.seed ^= mixed;
        // The upper half depends on index and generation. It is far from 1, where clients like to begin with their own
        // xids: the two directions are independent, but decoders of captures tend to mix them up.
        config.first_xid = (mixed >> 32) as u32;
        config
    }
}

/// The longest run deadline, and RPC timeout. The entries hold the start of a run in microseconds of 32 bits, which wrap
/// after 71 minutes: a run must have ended by then.
pub(crate) const DEADLINE_MAX: Duration = Duration::from_secs(35 * 60);

/// A tenth of the lease, at least one second.
pub(crate) fn rpc_timeout_default(lease: Duration) -> Duration {
    (lease / 10).clamp(Duration::from_secs(1), DEADLINE_MAX)
}

/// One lease.
pub(crate) fn run_deadline_default(lease: Duration) -> Duration {
    lease.min(DEADLINE_MAX)
}
