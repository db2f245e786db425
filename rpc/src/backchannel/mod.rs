//! The backchannel of one client: callbacks in, records out, replies in, outcomes out. Sans-IO; the time is an
//! argument, in nanoseconds of any monotonic clock.
//!
//! # What the driver does
//!
//! - It gives each callback a [`Token`] and implements [`Host`], where the core keeps its queues: enqueueing,
//!   requeueing and delaying a callback need no memory. Memory is taken when a session, new parameters or a connection
//!   are added, and only then.
//! - [`enqueue`](Backchannel::enqueue) hands in an accepted run; [`Host::done`] hands it back, once (or more often, if
//!   the driver asks for it to be sent again).
//! - [`handle_record`](Backchannel::handle_record) takes every REPLY record of a bound connection, or
//!   [`handle_records`](Backchannel::handle_records) those that came in together.
//! - **[`poll_transmit`](Backchannel::poll_transmit) must be called again** for each connection of the client whose
//!   [`wants_transmit`](Backchannel::wants_transmit) is true, after any other call that takes a [`Host`], until it
//!   answers [`Transmit::Idle`]; after [`Transmit::NoSpace`] once there is a larger buffer.
//! - **[`poll_timeout`](Backchannel::poll_timeout) must be read again** after any call that takes a [`Host`]; when that
//!   time has come, [`handle_timeout`](Backchannel::handle_timeout) is due. A time in the past means: there is more to
//!   do, at the next turn of the loop.
//!
//! # What the core promises
//!
//! - Each token that came in is in exactly one place (a queue, a delay, a call) until it ends, and it ends by its run
//!   deadline at the latest, give or take [`TIMER_GRAIN_NS`] and the order of its queue.
//! - A session slot's sequence id moves on only when the client has shown that it took the request (RFC 8881 section
//!   2.10.6.1). A call that was given up while its fate was unknown leaves its slot *quarantined*: the slot is used
//!   again only after the client has told, in answer to a lone CB_SEQUENCE with the same id, where it stands.
//! - A call that is sent again on another connection is the same bytes, header included. Nothing is sent again on a
//!   connection that is up, unless the client answered (RFC 8881 section 2.10.6.2).
//! - No reply, however malformed, makes it panic, and none makes it forget a callback.
//!
//! One call carries one callback, or several where the client allows it (`batch.rs`). Minor version 0 has no sessions: what
//! its client says about callbacks is kept as a session of another kind (`minor0.rs`).

mod batch;
mod calls;
mod config;
mod control;
mod counters;
mod decode;
mod encode;
mod host;
mod image;
mod limits;
mod minor0;
mod path;
mod queue;
mod referring;
mod settle;
mod timeout;
mod transmit;
mod tune;
mod view;

pub use calls::BATCH_MAX;
pub use config::{AddError, Census, Config, Credential, SessionParams};
pub use counters::Counters;
pub use host::{
    CallStep, CallView, Class, Event, Host, Outcome, OutcomeKind, PathFault, PathFaultKind, PathState, Requeue,
    Sending, Token,
};
pub use image::{
    BackchannelImage, CallImage, CallState, ConnectionImage, DelayedRun, ImageError, ParametersImage, PathImage,
    SessionImage, SlotImage, SlotState,
};
pub use limits::ClientLimits;
pub use minor0::PathParams;
pub use path::seq4_status;
pub use queue::TIMER_GRAIN_NS;
pub use referring::ReferringCalls;
pub use view::{RunView, SessionView, Stage};

use calls::Calls;
use limits::Pace;
use path::{Conn, PathClock, Session};
use queue::{Classes, Wheel};

use crate::nfs4::callback::CallbackOp;
use crate::xdr::XdrError;

/// Most sessions of one client.
pub const SESSIONS_MAX: usize = 16;
/// Most connections of one client: one bit each in a session's set of bound connections.
pub const CONNECTIONS_MAX: usize = 64;
/// Most session slots of one client, all sessions together: what fits into the low bits of an xid.
pub const CALLS_MAX: usize = 1 << calls::INDEX_BITS;

/// The driver's name for a session; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// The driver's name for a connection; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnToken(pub u64);

/// What the embedder says about a client.
///
/// # Examples
///
/// ```
/// use ringback_rpc::backchannel::ClientState;
///
/// /// What the laundromat finds out about a client.
/// fn state(is_lease_over: bool, is_state_wanted: bool) -> ClientState {
///     match (is_lease_over, is_state_wanted) {
///         (false, _) => ClientState::Active,
///         (true, false) => ClientState::Courtesy,
///         (true, true) => ClientState::Expired,
///     }
/// }
/// ```
// Exhaustive: it is for the embedder to say, who need not match it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// It renews its lease.
    Active,
    /// Its lease has expired and its state is kept until somebody wants it: callbacks end as [`Outcome::Courtesy`].
    Courtesy,
    /// It is gone, or has a new incarnation: callbacks end as [`Outcome::Cancelled`].
    Expired,
}

/// What [`Backchannel::handle_record`] made of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// It was the reply to an outstanding call. The call is settled, whatever the reply said.
    Settled,
    /// It was the reply to a call that is not outstanding any more, or not on this connection. Dropped.
    Late,
    /// No such call was sent lately. Dropped.
    UnknownXid,
    /// It could not be decoded. If it named an outstanding call, that call is settled as far as it can be.
    Malformed(XdrError),
}

/// What [`Backchannel::poll_transmit`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "bytes that are not sent are a call without a reply"]
pub enum Transmit {
    /// Wrote one record of this many bytes, with its mark (or several, where that was allowed). Call again.
    Wrote(usize),
    /// Wrote nothing, but ended some runs that need not be sent any more. Call again, in this turn or in the next.
    Again,
    /// There is nothing to send on this connection.
    Idle,
    /// The next record does not fit. A buffer of [`Backchannel::record_bytes_max`] is always enough.
    NoSpace,
}

/// The backchannel of one client. See the [module](self) for how it is driven.
#[derive(Debug)]
pub struct Backchannel {
    config: Config,
    client: ClientState,
    /// Set by `drain`: when the calls that are still outstanding are given up.
    drain_ns: Option<u64>,
    sessions: Vec<Option<Session>>,
    conns: Vec<Option<Conn>>,
    calls: Calls,
    queues: Classes,
    wheel: Wheel,
    path: PathClock,
    pace: Pace,
    /// Runs that have come in and not ended.
    runs: u64,
    /// Operations that the client has answered with NFS4ERR_NOTSUPP, one bit each.
    unsupported: u32,
    /// A path of minor version 0 is among the sessions, or has been.
    has_minor0: bool,
    /// A session slot was retired, of this session or of an earlier one: there may be a session without any.
    has_retired: bool,
    counters: Counters,
}

impl Backchannel {
    /// A client without sessions.
    pub fn new(config: Config) -> Self {
        Backchannel {
            config,
            client: ClientState::Active,
            drain_ns: None,
            sessions: Vec::new(),
            conns: Vec::new(),
            calls: Calls::new(config.first_xid),
            queues: Classes::new(&config),
            wheel: Wheel::new(config.seed),
            path: PathClock::default(),
            pace: Pace::default(),
            runs: 0,
            unsupported: 0,
            has_minor0: false,
            has_retired: false,
            counters: Counters::default(),
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether the client has ever answered this operation with NFS4ERR_NOTSUPP. Sending it again is allowed and of no
    /// use.
    pub fn is_unsupported(&self, op: CallbackOp) -> bool {
        self.unsupported & op.bit() != 0
    }

    /// The [bits](CallbackOp::bit) of all operations that [are unsupported](Self::is_unsupported).
    pub fn unsupported(&self) -> u32 {
        self.unsupported
    }

    /// Runs that have come in and not ended.
    pub fn run_count(&self) -> u64 {
        self.runs
    }
}
