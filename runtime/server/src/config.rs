//! The limits of the server: one for everything that a client can make it keep.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a [`Server`](crate::Server). Every field has a default; every limit is for the whole server unless it
/// says otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a client's state is safe without a SEQUENCE from it (RFC 8881 section 8.3), or without what renews it in minor
    /// version 0 (RFC 7530 section 9.5).
    pub lease: Duration,
    /// How long a file is not delegated after somebody was refused because of a delegation, in whole seconds: long
    /// enough that the refused opener comes again before the next reader.
    pub contended: Duration,
    /// How long the holder of a write delegation has to answer a CB_GETATTR; then the delegation is recalled.
    pub getattr_patience: Duration,
    /// Confirmed clients.
    pub clients_max: u32,
    /// Clients that have sent EXCHANGE_ID and not yet CREATE_SESSION; the oldest makes room.
    pub clients_unconfirmed_max: usize,
    /// Sessions of one client.
    pub sessions_per_client_max: usize,
    /// Session slots of one session, on the fore channel and on the backchannel.
    pub session_slots_max: u32,
    /// Longest request.
    pub request_bytes_max: u32,
    /// Longest reply.
    pub response_bytes_max: u32,
    /// Longest reply kept for a retry. A session takes up to this much per session slot.
    pub response_bytes_max_cached: u32,
    /// Most operations in one compound.
    pub operations_max: u32,
    /// Files; each further name of one counts as well.
    pub files_max: u64,
    /// Opens.
    pub opens_max: u64,
    /// Delegations, revoked ones that their clients have not acknowledged included.
    pub delegations_max: u64,
    /// Byte-range locks, lock-owners, and those who wait for a lock.
    pub locks_max: u64,
    /// Open-owners and lock-owners of clients of minor version 0. One that owns nothing makes room after a lease.
    pub state_owners_max: usize,
    /// Bytes of content, of all files and symbolic links together.
    pub data_bytes_max: u64,
    /// Whether an open for writing is delegated when nobody else has the file open.
    pub write_delegations: bool,
    /// Clients that ask for it are given layouts (pNFS, flexible files), with this server as the data server: the address at which
    /// they reach it. `None`: there are no layouts.
    pub layouts: Option<SocketAddr>,
    /// Bytes that one COPY copies in a second after its reply; `None`: as many as can be.
    pub copy_rate: Option<NonZeroU64>,
    /// A directory for what is to survive a restart: files, and which clients may reclaim. Without it nothing does.
    pub state: Option<PathBuf>,
    /// How long clients may reclaim after a restart; `None`: one lease.
    pub grace: Option<Duration>,
    /// How often files are written to `state`, besides when a client asks for it and at the end.
    pub save_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            lease: Duration::from_secs(90),
            contended: Duration::from_secs(5),
            getattr_patience: Duration::from_secs(5),
            clients_max: 4096,
            clients_unconfirmed_max: 1024,
            sessions_per_client_max: 8,
            session_slots_max: 64,
            request_bytes_max: 64 << 10,
            response_bytes_max: 16 << 10,
            response_bytes_max_cached: 2 << 10,
            operations_max: 32,
            files_max: 64 << 20,
            opens_max: 16 << 20,
            delegations_max: 16 << 20,
            locks_max: 1 << 20,
            state_owners_max: 1 << 18,
            data_bytes_max: 1 << 30,
            write_delegations: false,
            layouts: None,
            copy_rate: None,
            state: None,
            grace: None,
            save_every: Duration::from_secs(10),
        }
    }
}
