//! Settings of the core, and what describes a session to it.

use thiserror::Error;

use super::CONNECTIONS_MAX;
use crate::message::{AUTH_BODY_BYTES_MAX, AuthSys, OpaqueAuth, flavor};
use crate::nfs4::SessionId;
use crate::xdr::{self, Encode, Writer};

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

/// Settings of one client's backchannel. Times are nanoseconds of the driver's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// A call that has no reply after this time is *unknown*, and its connection is judged.
    pub rpc_timeout_ns: u64,
    /// A run ends this long after it was accepted, wherever it is.
    pub run_deadline_ns: u64,
    /// A client that was told that its path is down has this long to bind another.
    pub lease_ns: u64,
    /// First delay after NFS4ERR_DELAY; it doubles each time.
    pub backoff_ns_min: u64,
    /// Longest delay, of the core's own and of those that `done` asks for. At most 5 s.
    pub backoff_ns_max: u64,
    /// Most callbacks in one CB_COMPOUND, besides CB_SEQUENCE: 1 to [`BATCH_MAX`](super::BATCH_MAX). What the client
    /// allows for a session may be less.
    pub batch_max: u32,
    /// How often recalls may be passed over by what is waited for (CB_GETATTR) while they have work: their floor.
    pub recalls_passed_over_max: u8,
    /// The same of the background, which recalls may pass over too.
    pub background_passed_over_max: u8,
    /// Seeds the jitter of the delays.
    pub seed: u64,
    /// The first xid is made of this number.
    pub first_xid: u32,
}

impl Config {
    /// The defaults for a lease: RPC timeout a tenth of it and at least 1 s, run deadline one lease, backoff 100 ms to
    /// 5 s, batches of 16.
    pub const fn for_lease(lease_ns: u64) -> Config {
        let tenth = lease_ns / 10;
        Config {
            rpc_timeout_ns: if tenth < S { S } else { tenth },
            run_deadline_ns: lease_ns,
            lease_ns,
            backoff_ns_min: 100 * MS,
            backoff_ns_max: 5 * S,
            batch_max: 16,
            recalls_passed_over_max: 4,
            background_passed_over_max: 16,
            seed: 0x9e37_79b9_7f4a_7c15,
            first_xid: 1,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config::for_lease(90 * S)
    }
}

/// The credential that callbacks carry, as encoded bytes (RFC 5531 section 8.2, `opaque_auth`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential(Vec<u8>);

impl Credential {
    /// AUTH_NONE. Linux clients refuse it for everything but CB_NULL.
    pub fn none() -> Self {
        Credential(vec![0; 8])
    }

    /// AUTH_SYS, as the client asked for in csa_sec_parms or bca_sec_parms (RFC 8881 sections 18.33, 18.36).
    /// Fails only for a machine name that is too long for an `opaque_auth`.
    pub fn sys(sys: &AuthSys<'_>) -> xdr::Result<Self> {
        let mut body = [0; AUTH_BODY_BYTES_MAX];
        let mut w = Writer::new(&mut body);
        sys.encode(&mut w)?;
        Ok(Self::opaque(OpaqueAuth { flavor: flavor::AUTH_SYS, body: w.written() }))
    }

    /// Any credential.
    pub fn opaque(auth: OpaqueAuth<'_>) -> Self {
        let mut bytes = Vec::with_capacity(8 + auth.body.len() + 3);
        bytes.extend_from_slice(&auth.flavor.to_be_bytes());
        bytes.extend_from_slice(&(auth.body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(auth.body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Credential(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What the client said about its backchannel in CREATE_SESSION (RFC 8881 section 18.36).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionParams {
    /// The session.
    pub session_id: SessionId,
    /// Program number (csa_cb_program).
    pub program: u32,
    /// Credential (csa_sec_parms).
    pub credential: Credential,
    /// Session slots (ca_maxrequests of the negotiated backchannel attributes), 1 to
    /// [`SLOTS_MAX`](crate::session::SLOTS_MAX).
    pub slots: u32,
    /// Largest request without its record mark (ca_maxrequestsize).
    pub request_bytes_max: u32,
    /// Largest response (ca_maxresponsesize).
    pub response_bytes_max: u32,
    /// Most operations in a compound, CB_SEQUENCE among them (ca_maxoperations).
    pub operations_max: u32,
    /// Minor version: 1 or 2.
    pub minor_version: u32,
}

/// Why a session, its parameters or a connection could not be added.
///
/// # Examples
///
/// ```
/// use ringback_rpc::backchannel::AddError;
///
/// assert_eq!(AddError::KeyInUse.to_string(), "the session key is in use");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddError {
    /// The key names a session already.
    #[error("the session key is in use")]
    KeyInUse,
    /// No session has this key.
    #[error("no such session")]
    NoSuchSession,
    /// The client has as many sessions as are allowed.
    #[error("the client has {limit} sessions, which is the limit", limit = super::SESSIONS_MAX)]
    TooManySessions,
    /// The sessions of the client have more slots than are allowed.
    #[error(
        "a session may have 1 to {} slots, all sessions of a client together {}",
        crate::session::SLOTS_MAX,
        super::CALLS_MAX
    )]
    TooManySlots,
    /// The client has as many connections as are allowed, and was heard on each of them within a lease.
    #[error("the client has {CONNECTIONS_MAX} connections, which is the limit, and none was silent for a lease")]
    TooManyConnections,
    /// The session is too small for CB_SEQUENCE and one operation.
    #[error("the backchannel is too small for one operation")]
    TooSmall,
    /// Minor version 0 has no sessions; versions above 2 are not known.
    #[error("minor version {0} has no backchannel")]
    MinorVersion(u32),
}

/// Where the session slots and the runs of a client are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Session slots of all sessions.
    pub slots: u32,
    /// Free ones.
    pub slots_free: u32,
    /// Ones with a run, or a batch of them.
    pub slots_with_run: u32,
    /// Ones whose run was given up and whose sequence id is not known yet.
    pub slots_quarantined: u32,
    /// Ones that cannot be used any more.
    pub slots_retired: u32,
    /// Runs in calls that are not settled.
    pub runs_sent: u64,
    /// Runs that wait in a queue.
    pub runs_queued: u64,
    /// Runs that wait for a delay to pass.
    pub runs_delayed: u64,
    /// Those of the last two that wait while there is no session to send them on.
    pub runs_parked: u64,
}
