//! What the core asks of its driver, and what it tells it.

use super::{ConnToken, ReferringCalls, SessionKey};
use crate::message::{AcceptStatus, Rejected};
use crate::nfs4::Status;
use crate::nfs4::callback::CallbackOp;
use crate::xdr::{self, Writer, XdrError};

/// The driver's name for one callback. While a run of it is in the core, the core alone passes the token on: it is in
/// one queue, or in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u32);

/// A run that is sent, as its driver has looked it up: once, for all that is asked about it meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Sending<K> {
    /// The run.
    pub token: Token,
    /// Which operation the callback is.
    pub op: CallbackOp,
    /// When the run was accepted.
    pub started_ns: u64,
    /// What else its driver knows.
    pub known: K,
}

/// The driver of the core: the storage of its queues and the owner of the callbacks.
///
/// The core calls these while it is working; none of them may call the core back.
pub trait Host {
    /// What the driver wants to know of a run that is sent, besides what the core does.
    type Known;

    /// What [`set_link`](Host::set_link) stored last.
    fn link(&self, token: Token) -> Option<Token>;

    /// Stores the next token of the queue that `token` is in.
    fn set_link(&mut self, token: Token, next: Option<Token>);

    /// What [`set_note`](Host::set_note) stored last; 0 at the start of a run. Below 0x80.
    fn note(&self, token: Token) -> u8;

    /// Stores what the core remembers about a run while it is queued (backoff level, whether it was sent before).
    fn set_note(&mut self, token: Token, note: u8);

    /// Looks up a run that is to be sent, or sent again.
    fn look(&self, token: Token) -> Sending<Self::Known>;

    /// Which operation the callback is.
    fn op(&self, token: Token) -> CallbackOp;

    /// When the run was accepted.
    fn started_ns(&self, token: Token) -> u64;

    /// The run leaves its queue to be sent. `true`: this run was requeued, `prepare` must not run again. Clears the
    /// driver's REQUEUE.
    fn take_requeue(&mut self, run: &Sending<Self::Known>) -> bool;

    /// Last look before the first transmission of a run. `false`: there is nothing to send, the run ends as
    /// [`Outcome::Refused`].
    fn prepare(&mut self, run: &Sending<Self::Known>) -> bool;

    /// Names the calls of the fore channel that the callback depends on, once the run is prepared. Every time the same from `prepare` to the end of
    /// the run, for they are part of the bytes. An error is one of [`encode`](Host::encode).
    fn referring(&self, run: &Sending<Self::Known>, calls: &mut ReferringCalls<'_>) -> xdr::Result<()> {
        let _ = (run, calls);
        Ok(())
    }

    /// Writes the arguments of the operation, what follows `argop` in `nfs_cb_argop4`. Every time the same bytes from
    /// `prepare` to the end of the run.
    fn encode(&mut self, run: &Sending<Self::Known>, args: &mut Writer<'_>) -> xdr::Result<()>;

    /// As [`encode`](Host::encode), of a run that was sent, and is not sent now: its bytes are only looked at.
    fn copy(&mut self, run: &Sending<Self::Known>, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.encode(run, args)
    }

    /// The client did not get to what was sent of the run, nor to anything before: as if it had never been encoded.
    fn unsent(&mut self, token: Token) {
        let _ = token;
    }

    /// How the run went. `None`: it is over and the token is the driver's again. `Some(delay_ns)`: it is to be sent
    /// again after that time, which the core cuts to [`Config::backoff_ns_max`](super::Config) and to the run
    /// deadline; possible only where [`Outcome::may_requeue`] says so, and taken as `None` elsewhere. A run that was
    /// sent again ends by another `done`.
    fn done(&mut self, token: Token, outcome: &Outcome<'_>) -> Option<u64>;

    /// The run that [`done`](Host::done) is called for next is cancelled for the sake of this session, which it cannot leave.
    fn ends_with(&mut self, session: SessionKey) {
        let _ = session;
    }

    /// The run was put back on a queue: the driver sets its REQUEUE.
    fn requeued(&mut self, token: Token, why: Requeue);

    /// Something happened to the client's callback path.
    fn event(&mut self, event: Event);

    /// Whether [`step`](Host::step) is of any use.
    fn watches(&self) -> bool {
        false
    }

    /// A call was sent or answered: for who keeps a record of that. Of an answer it is told before anything comes of it.
    fn step(&mut self, call: &CallView, step: CallStep) {
        let _ = (call, step);
    }
}

/// A call that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallView {
    /// The session.
    pub session: SessionKey,
    /// The session slot.
    pub slot: u32,
    /// The xid.
    pub xid: u32,
    /// The run that it carries, the first one of a batch. `None`: all were given up.
    pub token: Option<Token>,
    /// How many runs it carries.
    pub runs: u32,
    /// When it was sent last.
    pub sent_ns: u64,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallStep {
    /// It was written for a connection, and not with the same bytes before.
    Sent,
    /// It was written once more with the same bytes, for another connection.
    Resent,
    /// It was written as a lone CB_SEQUENCE, to learn where the session slot stands.
    Resynchronising,
    /// The client answered; with this status of CB_SEQUENCE if there is one.
    Answered(Result<Status, PathFaultKind>),
    /// Its session slot is free for the next call.
    SlotFreed,
}

/// How a run ended.
///
/// # Examples
///
/// ```
/// use ringback_rpc::backchannel::Outcome;
///
/// /// Whether the client may know of the callback, for a server that decides what to revoke.
/// fn may_be_known(outcome: &Outcome<'_>) -> bool {
///     match outcome {
///         Outcome::Replied { .. } | Outcome::DeliveredUnknown | Outcome::Fault(_) => true,
///         Outcome::TimedOut { sent } | Outcome::Cancelled { sent } => *sent,
///         _ => false,
///     }
/// }
/// assert!(!may_be_known(&Outcome::TimedOut { sent: false }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// The client answered.
    Replied {
        /// The status of the operation.
        status: Status,
        /// The body of the result after its status, and whatever follows it; empty if the client sent none, and for an
        /// operation that was in a batch. To be decoded as the result of the operation with this status.
        results: &'a [u8],
    },
    /// `prepare` said that there was nothing to send.
    Refused,
    /// The arguments could not be written, or not in the record size that the session allows. Nothing was sent.
    Unencodable(XdrError),
    /// The run deadline passed.
    TimedOut {
        /// It was sent at least once. What was never sent does not count against the client.
        sent: bool,
    },
    /// The client had no callback path for a lease after it was told so, while it renewed. Never sent since.
    PathDown,
    /// The client is in courtesy.
    Courtesy,
    /// The client, its session or the whole runtime goes away.
    Cancelled {
        /// It was sent at least once.
        sent: bool,
    },
    /// The client took the request, or may have taken it with the batch that it was in; its answer is lost, and this
    /// operation must not be executed twice.
    DeliveredUnknown,
    /// The client refuses what the backchannel of its session sends, and no other session of it is usable.
    Fault(PathFault),
}

impl Outcome<'_> {
    /// Whether `done` may ask for the callback to be sent again.
    pub const fn may_requeue(&self) -> bool {
        matches!(self, Outcome::Replied { .. } | Outcome::DeliveredUnknown | Outcome::Fault(_))
    }

    /// What kind of outcome it is.
    pub const fn kind(&self) -> OutcomeKind {
        match *self {
            Outcome::Replied { status: Status::NFS4_OK, .. } => OutcomeKind::Ok,
            Outcome::Replied { .. } => OutcomeKind::Failed,
            Outcome::Refused => OutcomeKind::Refused,
            Outcome::Unencodable(_) => OutcomeKind::Unencodable,
            Outcome::TimedOut { sent: true } => OutcomeKind::TimedOut,
            Outcome::TimedOut { sent: false } => OutcomeKind::TimedOutUnsent,
            Outcome::PathDown => OutcomeKind::PathDown,
            Outcome::Courtesy => OutcomeKind::Courtesy,
            Outcome::Cancelled { sent: true } => OutcomeKind::Cancelled,
            Outcome::Cancelled { sent: false } => OutcomeKind::CancelledUnsent,
            Outcome::DeliveredUnknown => OutcomeKind::DeliveredUnknown,
            Outcome::Fault(_) => OutcomeKind::Fault,
        }
    }

    /// The same, to be kept for longer than the bytes of a reply: without the result, which is empty in it.
    pub const fn without_results(&self) -> Outcome<'static> {
        match *self {
            Outcome::Replied { status, results: _ } => Outcome::Replied { status, results: &[] },
            Outcome::Refused => Outcome::Refused,
            Outcome::Unencodable(e) => Outcome::Unencodable(e),
            Outcome::TimedOut { sent } => Outcome::TimedOut { sent },
            Outcome::PathDown => Outcome::PathDown,
            Outcome::Courtesy => Outcome::Courtesy,
            Outcome::Cancelled { sent } => Outcome::Cancelled { sent },
            Outcome::DeliveredUnknown => Outcome::DeliveredUnknown,
            Outcome::Fault(fault) => Outcome::Fault(fault),
        }
    }
}

/// Defines an enum whose values have names and can be listed.
macro_rules! named {
    ($(#[$meta:meta])* pub enum $kind:ident { $($(#[$doc:meta])* $value:ident = $name:literal,)* }) => {
        $(#[$meta])*
        pub enum $kind {
            $($(#[$doc])* $value,)*
        }

        impl $kind {
            /// All of them.
            pub const ALL: &'static [$kind] = &[$($kind::$value,)*];

            /// A word for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $($kind::$value => $name,)*
                }
            }
        }
    };
}

named! {
    /// An [`Outcome`] without its details, to be counted.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringback_rpc::backchannel::{Outcome, OutcomeKind};
    ///
    /// assert_eq!(Outcome::TimedOut { sent: false }.kind(), OutcomeKind::TimedOutUnsent);
    /// assert_eq!(OutcomeKind::TimedOutUnsent.name(), "timed_out_unsent");
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum OutcomeKind {
        /// [`Outcome::Replied`] with NFS4_OK.
        Ok = "ok",
        /// [`Outcome::Replied`] with any other status.
        Failed = "failed",
        /// [`Outcome::Refused`].
        Refused = "refused",
        /// [`Outcome::Unencodable`].
        Unencodable = "unencodable",
        /// [`Outcome::TimedOut`] after it was sent.
        TimedOut = "timed_out",
        /// [`Outcome::TimedOut`] before it was sent.
        TimedOutUnsent = "timed_out_unsent",
        /// [`Outcome::PathDown`].
        PathDown = "path_down",
        /// [`Outcome::Courtesy`].
        Courtesy = "courtesy",
        /// [`Outcome::Cancelled`] after it was sent.
        Cancelled = "cancelled",
        /// [`Outcome::Cancelled`] before it was sent.
        CancelledUnsent = "cancelled_unsent",
        /// [`Outcome::DeliveredUnknown`].
        DeliveredUnknown = "delivered_unknown",
        /// [`Outcome::Fault`].
        Fault = "fault",
    }
}

/// What is wrong with a callback path.
///
/// # Examples
///
/// ```
/// use ringback_rpc::backchannel::{PathFault, PathFaultKind};
///
/// assert_eq!(PathFault::NoSlots.kind(), PathFaultKind::NoSlots);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathFault {
    /// The RPC was denied (RFC 5531 section 9, `rejected_reply`).
    Denied(Rejected),
    /// The RPC was accepted and not executed (RFC 5531 section 9, `accept_stat`).
    NotExecuted(AcceptStatus),
    /// The compound has no results at all: NFS4ERR_MINOR_VERS_MISMATCH, NFS4ERR_RESOURCE.
    NoResults(Status),
    /// CB_SEQUENCE answered for another session, session slot or sequence id.
    WrongEcho,
    /// A reply could not be decoded.
    Malformed,
    /// Every session slot was answered with NFS4ERR_SEQ_MISORDERED or NFS4ERR_BADSLOT: the session is of no use.
    NoSlots,
    /// The client answers other things, and for a lease has not said where a session slot stands.
    NoAnswer,
}

named! {
    /// A [`PathFault`] without its details.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringback_rpc::backchannel::{PathFault, PathFaultKind};
    ///
    /// fn is_about_credentials(fault: &PathFault) -> bool {
    ///     fault.kind() == PathFaultKind::Denied
    /// }
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum PathFaultKind {
        /// [`PathFault::Denied`].
        Denied = "denied",
        /// [`PathFault::NotExecuted`].
        NotExecuted = "not_executed",
        /// [`PathFault::NoResults`].
        NoResults = "no_results",
        /// [`PathFault::WrongEcho`].
        WrongEcho = "wrong_echo",
        /// [`PathFault::Malformed`].
        Malformed = "malformed",
        /// [`PathFault::NoSlots`].
        NoSlots = "no_slots",
        /// [`PathFault::NoAnswer`].
        NoAnswer = "no_answer",
    }
}

impl PathFault {
    /// What kind of fault it is.
    pub const fn kind(&self) -> PathFaultKind {
        match self {
            PathFault::Denied(_) => PathFaultKind::Denied,
            PathFault::NotExecuted(_) => PathFaultKind::NotExecuted,
            PathFault::NoResults(_) => PathFaultKind::NoResults,
            PathFault::WrongEcho => PathFaultKind::WrongEcho,
            PathFault::Malformed => PathFaultKind::Malformed,
            PathFault::NoSlots => PathFaultKind::NoSlots,
            PathFault::NoAnswer => PathFaultKind::NoAnswer,
        }
    }
}

named! {
    /// Why a run went back to a queue.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringback_rpc::backchannel::{Counters, Requeue};
    ///
    /// let counters = Counters::default();
    /// for why in Requeue::ALL {
    ///     println!("{} {}", why.name(), counters.requeued_for(*why));
    /// }
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum Requeue {
        /// `done` asked for it.
        Asked = "asked",
        /// The operation was answered with NFS4ERR_DELAY.
        Delay = "delay",
        /// The session is gone, or says so (NFS4ERR_BADSESSION).
        SessionLost = "session_lost",
        /// The connection is not bound to the session any more, and the request was not executed.
        NotBound = "not_bound",
        /// The session slot cannot be used any more (NFS4ERR_BADSLOT, NFS4ERR_SEQ_MISORDERED).
        SlotLost = "slot_lost",
        /// The reply cannot be trusted (wrong echo, malformed).
        BadReply = "bad_reply",
        /// The request was executed, its result is lost, and the operation may be repeated.
        UncachedReply = "uncached_reply",
        /// NFS4ERR_SEQ_FALSE_RETRY.
        FalseRetry = "false_retry",
        /// The parameters that it was sent with were refused; others are there.
        Refused = "refused",
        /// The buffer had no room for it. It was not sent.
        NoSpace = "no_space",
        /// It was in a batch, and an operation before it failed. It was not executed.
        NotReached = "not_reached",
        /// It was in a batch that the client found too large. It was not executed.
        BatchSplit = "batch_split",
        /// It was in a batch, and another run of it has ended meanwhile, so that the request could not be repeated; this
        /// operation may be.
        BatchTorn = "batch_torn",
    }
}

/// What happened to a client's callback path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The state of the client's callback path changed.
    Path(PathState),
    /// Nothing came back on this connection for too long: the core has forgotten it, as if
    /// [`handle_disconnect`](super::Backchannel::handle_disconnect) had been called. The driver must shut it down
    /// before it polls another connection of the client, because the same calls are resent there (RFC 8881 section
    /// 2.10.6.2).
    CloseConnection(ConnToken),
    /// The client says that this connection does not carry this session's backchannel (NFS4ERR_BADSESSION,
    /// NFS4ERR_CONN_NOT_BOUND_TO_SESSION). The binding is gone; the connection may stay.
    Unbound {
        /// The session.
        session: SessionKey,
        /// The connection.
        conn: ConnToken,
    },
    /// Every bound connection of this session said NFS4ERR_BADSESSION. Its callbacks were moved; it is not used unless
    /// it is bound again.
    SessionLost(SessionKey),
    /// The session's backchannel does not follow the protocol (SEQ4_STATUS_BACKCHANNEL_FAULT).
    SessionFault {
        /// The session.
        session: SessionKey,
        /// What is wrong.
        fault: PathFault,
    },
}

named! {
    /// State of a client's callback path.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringback_rpc::backchannel::PathState;
    ///
    /// /// A delegation to a client that cannot be called back is not worth its recall.
    /// fn may_grant(path: PathState) -> bool {
    ///     path == PathState::Up
    /// }
    /// ```
    // Exhaustive: by it a server decides whether to grant, and would have to decide about a new one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum PathState {
        /// No session was ever bound to a connection.
        Unknown = "unknown",
        /// Callbacks can be sent.
        Up = "up",
        /// No session has a connection.
        Down = "down",
        /// There is a connection, and the client refuses what is sent on it.
        Fault = "fault",
    }
}

named! {
    /// Order in which callbacks are served, within one client.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Class {
        /// Somebody waits for the answer: CB_GETATTR.
        Waited = "waited",
        /// Recalls: CB_RECALL, CB_LAYOUTRECALL, CB_NOTIFY_LOCK.
        Recall = "recall",
        /// Everything else.
        Background = "background",
    }
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = Class::ALL.len();

    /// The class of an operation.
    pub const fn of(op: CallbackOp) -> Class {
        match op {
            CallbackOp::Getattr => Class::Waited,
            CallbackOp::Recall | CallbackOp::LayoutRecall | CallbackOp::NotifyLock => Class::Recall,
            _ => Class::Background,
        }
    }
}

/// Whether an operation may share a call with others. CB_GETATTR has a result of its own length and somebody waits for
/// it; CB_RECALL_SLOT changes the slot table under the call and belongs to a session.
pub(super) const fn is_batchable(op: CallbackOp) -> bool {
    !matches!(op, CallbackOp::Getattr | CallbackOp::RecallSlot | CallbackOp::Sequence | CallbackOp::Illegal)
}

/// Whether an operation may be executed twice by the client. The others change something there each time, or wait for
/// something that comes only once: CB_OFFLOAD that matches no copy is kept waiting for one by Linux clients.
pub(super) const fn is_repeatable(op: CallbackOp) -> bool {
    matches!(
        op,
        CallbackOp::Getattr
            | CallbackOp::Recall
            | CallbackOp::LayoutRecall
            | CallbackOp::RecallAny
            | CallbackOp::RecallSlot
    )
}
