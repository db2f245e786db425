//! What the embedder provides: [`Hooks`] for its callbacks, [`ForeChannel`](crate::ForeChannel) for the calls that
//! arrive on the same connections.

use crate::{CallbackKey, ClientId, ConnectionId, SessionKey};
use ringback_rpc::backchannel::{AddError, ReferringCalls};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::xdr;
use std::fmt;

/// One run of a callback, as the hooks see it.
///
/// # Examples
///
/// ```
/// use ringback::Run;
///
/// fn describe(run: &Run) -> String {
///     format!("{:?} of delegation {}, asked for {} ms ago", run.op, run.cookie, run.age_ns / 1_000_000)
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Run {
    /// The callback.
    pub key: CallbackKey,
    /// The embedder's own value, given to [`insert`](crate::Runtime::insert).
    pub cookie: u64,
    /// The client that is called.
    pub client: ClientId,
    /// Which operation.
    pub op: CallbackOp,
    /// Nanoseconds since the accepted `try_run`.
    pub age_ns: u64,
    /// The callback is the runtime's own: no hook of the embedder's sees it.
    pub(crate) own: bool,
}

/// The answer of [`Hooks::prepare`].
///
/// # Examples
///
/// ```
/// use ringback::Prepare;
///
/// /// It may have come back while the recall waited for its turn.
/// fn look(is_returned: bool) -> Prepare {
///     if is_returned { Prepare::Refuse } else { Prepare::Send }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prepare {
    /// Send it.
    Send,
    /// There is nothing to send any more: the run ends as [`Outcome::Refused`].
    Refuse,
}

/// The answer of [`Hooks::done`].
///
/// # Examples
///
/// ```
/// use ringback::{Done, Outcome};
/// use ringback_rpc::nfs4::Status;
///
/// fn done(outcome: &Outcome<'_>) -> Done {
///     match outcome {
///         // The reply to the OPEN that granted it is still on its way.
///         Outcome::Replied { status: Status::NFS4ERR_BAD_STATEID, .. } => Done::RequeueAfter(100_000_000),
///         _ => Done::Finish,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Done {
    /// The run ends.
    Finish,
    /// Send it again after this many nanoseconds, within the run deadline; `prepare` is not called again. Only where
    /// [`Outcome::may_requeue`] says so; elsewhere it is taken as `Finish`.
    RequeueAfter(u64),
}

pub use ringback_rpc::backchannel::{Outcome, PathFault, PathState};

/// A callback that comes back from a checkpoint, as [`Hooks::restored`] is asked about it.
///
/// # Examples
///
/// ```
/// use ringback::Restored;
/// use std::collections::HashMap;
///
/// /// By the names that the last process gave them. Here an object has another address.
/// fn restored(objects: &HashMap<u64, Box<u32>>, callback: &Restored) -> Option<u64> {
///     objects.get(&callback.cookie).map(|object| std::ptr::from_ref(&**object) as u64)
/// }
/// ```
#[cfg(feature = "checkpoint")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The callback; its key is what it was.
    pub key: CallbackKey,
    /// The cookie that it had.
    pub cookie: u64,
    /// The client.
    pub client: ClientId,
    /// Which operation.
    pub op: CallbackOp,
    /// It is in flight.
    pub running: bool,
}

/// The embedder's side of its callbacks. All but `acquire` are called on the reactor that owns the client, one at a time
/// for one callback (rule R1), and must not block. They may call `try_run` and `remove` on any key; what waits for
/// reactors (drain, shutdown, census, memory, inspect) is [`Error::InHook`](crate::Error::InHook) from a hook. A hook that
/// panics ends nothing but its call: see [`Event::Panicked`].
///
/// A reactor may have ended before a completion is given back to it by a
/// [completion queue](crate::CompletionQueue::poll): then `release`, `drop_reference` and, if those panic, `event` are called
/// in the thread that gives it back.
///
/// For each accepted run: `acquire` (in the caller's thread), `prepare` once, `referring_calls` and `encode` for every
/// transmission, `done` once, `release` once and last (rule R3); then `drop_reference`, unless the callback was asked for
/// again meanwhile, in which case the next run takes the reference over.
///
/// # Examples
///
/// ```
/// use ringback::{Done, Hooks, Outcome, Run};
/// use ringback_rpc::nfs4::callback::CbRecallArgs;
/// use ringback_rpc::nfs4::{FileHandle, Stateid4};
/// use ringback_rpc::xdr::{self, Encode, Writer};
///
/// struct FileServer;
///
/// impl Hooks for FileServer {
///     fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
///         let handle = run.cookie.to_be_bytes();
///         let fh = FileHandle::new(&handle).expect("8 bytes are not too many");
///         CbRecallArgs { stateid: Stateid4::default(), truncate: false, fh }.encode(args)
///     }
///
///     fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
///         println!("delegation {}: {outcome:?}", run.cookie);
///         Done::Finish
///     }
/// }
/// ```
pub trait Hooks: Send + Sync + 'static {
    /// Takes a reference to the object behind `cookie`, in the thread that called `try_run`.
    fn acquire(&self, cookie: u64) {
        let _ = cookie;
    }

    /// Last look before the first transmission of a run.
    fn prepare(&self, run: &Run) -> Prepare {
        let _ = run;
        Prepare::Send
    }

    /// Names the fore-channel calls whose replies the callback must not overtake: the OPEN that granted what is recalled
    /// (RFC 8881 section 2.10.6.3). The client waits for these replies before it looks at the callback.
    ///
    /// - Never a call whose reply waits for this callback: that would be a wait in a circle.
    /// - Once the client has used the call's session slot with a later sequence id it has the reply, and the call is not
    ///   named any more. The embedder has the slots of the fore channel, and looks there when the run is prepared
    ///   ([`ReplierSlots::has_passed`](ringback_rpc::session::ReplierSlots::has_passed)).
    /// - Like `encode` this is asked for each transmission, and must say the same from `prepare` to `release`.
    ///
    /// A callback that names calls is never sent together with others. What does not fit into the client's
    /// ca_maxrequestsize with its lists is sent without them.
    fn referring_calls(&self, run: &Run, calls: &mut ReferringCalls<'_>) {
        let _ = (run, calls);
    }

    /// Writes the arguments of the operation (what follows `argop` in `nfs_cb_argop4`, RFC 8881 section 20.2), from
    /// what stays unchanged between `prepare` and `release`: every transmission must be the same bytes.
    fn encode(&self, run: &Run, args: &mut xdr::Writer<'_>) -> xdr::Result<()>;

    /// How the run went.
    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done;

    /// The last touch of the run: the object may be looked at here for the last time.
    fn release(&self, run: &Run) {
        let _ = run;
    }

    /// Gives back the reference that `acquire` took.
    fn drop_reference(&self, cookie: u64) {
        let _ = cookie;
    }

    /// Starts the recall ([`try_run`](crate::Runtime::try_run)) of up to `count` delegations of the client that are not on
    /// recall yet, the least recently used first, and says how many those were: the client holds too many, and has given
    /// up too few of its own choice. Called on the [reaper](crate::Budget)'s own thread, where it may take locks and look
    /// around, but not wait for the runtime. By default nothing is recalled.
    fn recall_least_recently_used(&self, client: ClientId, count: usize) -> usize {
        let _ = (client, count);
        0
    }

    /// A callback comes back from a [checkpoint](crate::Builder::restore): the embedder says by which cookie it is known from
    /// now on, or `None` if what it is about is there no more. Then the callback is gone, and no hook will be called for a
    /// run of it. Of a callback that runs, the embedder holds the reference from now on that `acquire` took. Called in the
    /// thread that builds the runtime, before anything else. By default all come back as they were.
    #[cfg(feature = "checkpoint")]
    fn restored(&self, callback: &Restored) -> Option<u64> {
        Some(callback.cookie)
    }

    /// Appends what the embedder wants to have in a [checkpoint](crate::Runtime::checkpoint), which
    /// [`Checkpoint::own`](crate::Checkpoint::own) gives back. Called in the thread that writes it. By default nothing.
    #[cfg(feature = "checkpoint")]
    fn checkpoint(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Something happened to a client's callback path, or did not happen in time. What the [reaper](crate::Budget) does is
    /// told on its thread.
    fn event(&self, event: &Event) {
        let _ = event;
    }
}

/// What the runtime tells about callback paths, and about returns that are overdue.
///
/// # Examples
///
/// ```
/// use ringback::Event;
///
/// fn told(event: &Event) {
///     match event {
///         Event::PathState { client, state } => println!("the path of {client:?} is {state:?}"),
///         Event::ReturnOverdue { key, .. } => println!("{key:?} was not returned in time: revoke it"),
///         _ => println!("{event}"),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The state of a client's callback path changed.
    PathState {
        /// The client.
        client: ClientId,
        /// The new state.
        state: PathState,
    },
    /// A session's backchannel does not follow the protocol; the client is to destroy the session
    /// (SEQ4_STATUS_BACKCHANNEL_FAULT, RFC 8881 section 18.46.3).
    BackchannelFault {
        /// The session.
        session: SessionKey,
        /// What is wrong.
        fault: PathFault,
    },
    /// The client says that a connection does not carry a session's backchannel. The binding is gone, the connection may
    /// stay.
    Unbound {
        /// The session.
        session: SessionKey,
        /// The connection.
        connection: ConnectionId,
    },
    /// Every connection of a session answered NFS4ERR_BADSESSION: it is not used unless it is bound again.
    SessionLost {
        /// The session.
        session: SessionKey,
    },
    /// What was recalled has not come back by the return deadline, told once for each recall: whether to revoke it is the
    /// embedder's decision.
    ReturnOverdue {
        /// The callback.
        key: CallbackKey,
        /// Its cookie.
        cookie: u64,
        /// The client.
        client: ClientId,
    },
    /// A client is at the home that [`Runtime::move_client`](crate::Runtime::move_client) has asked for.
    Moved {
        /// The client.
        client: ClientId,
        /// The reactor that is its home.
        reactor: usize,
    },
    /// Code of the embedder panicked on a reactor; where, the panic hook of the process has told. The runtime goes on as
    /// if it had returned, so that every run ends and is released once:
    ///
    /// - `prepare`: as [`Prepare::Refuse`]. `referring_calls` and `encode`: the run ends as [`Outcome::Unencodable`].
    /// - `done`: as [`Done::Finish`]. `release`, `drop_reference` and `event`: as if nothing had happened.
    /// - `ForeChannel::call`, and all of a `Transport`: its connection is closed.
    ///
    /// A panic of `acquire` goes to the caller of `try_run`; no run was begun, not for those either whose requests were
    /// [coalesced](crate::TryRun::Coalesced) with that one meanwhile.
    Panicked {
        /// What was called, such as "Hooks::done".
        call: &'static str,
        /// The callback that it was about.
        key: Option<CallbackKey>,
    },
    /// The checkpoint that [`Builder::checkpoint_every`](crate::Builder::checkpoint_every) asks for could not be written. The
    /// one before it is still there.
    #[cfg(feature = "checkpoint")]
    CheckpointFailed {
        /// Why.
        error: String,
    },
    /// The runtime was asked for something while it stood still, and then everything went to another process: it was not done,
    /// and is to be asked for there. Who has asked may have been told that it was accepted.
    #[cfg(feature = "checkpoint")]
    LeftUndone {
        /// What was called, such as "add_connection" or "try_run".
        call: &'static str,
        /// The client that it was about.
        client: Option<ClientId>,
        /// The connection.
        connection: Option<ConnectionId>,
        /// The callback.
        key: Option<CallbackKey>,
    },
    /// There are too many delegations: CB_RECALL_ANY asks a client to keep fewer (RFC 8881 section 20.6).
    AskedToKeep {
        /// The client.
        client: ClientId,
        /// How many it holds.
        held: u32,
        /// How many it is to keep (craa_objects_to_keep).
        keep: u32,
    },
    /// A client that was asked to keep fewer has given up next to nothing within 5 s. What is too much is recalled.
    AskedInVain {
        /// The client.
        client: ClientId,
        /// How many it holds.
        held: u32,
        /// How many it was to keep.
        keep: u32,
        /// How many recalls [`Hooks::recall_least_recently_used`] has started.
        recalled: u32,
    },
    /// What [`Runtime::recall_any`](crate::Runtime::recall_any) asked for: CB_RECALL_ANY is on its way to so many clients. The
    /// others hold nothing, or no more than their share, or were asked within the last five seconds.
    RecallAnySent {
        /// How many delegations are to stay in all.
        keep: u64,
        /// How many clients are asked.
        clients: u32,
    },
    /// Memory is short, as the kernel or the embedder has said: clients are asked to come down to `keep` delegations.
    MemoryPressure {
        /// How many there are.
        held: u64,
        /// How many are to stay.
        keep: u64,
    },
    /// The file of [`Builder::memory_pressure`](crate::Builder::memory_pressure) tells nothing any more: its cgroup is gone.
    MemoryPressureLost,
    /// A connection to a client of minor version 0 is wanted, for [`CallbackAddress::Supplied`](crate::CallbackAddress): the
    /// embedder connects, and [binds](crate::Runtime::bind) the connection to the path. If it has not by the
    /// [connect timeout](crate::Builder::connect_timeout), it is told again, later and later.
    ConnectionWanted {
        /// The path, as [`Runtime::set_client_id`](crate::Runtime::set_client_id) has named it.
        path: SessionKey,
    },
    /// A session, its new parameters or a binding could not be taken.
    SessionRefused {
        /// The session.
        session: SessionKey,
        /// Why.
        error: AddError,
    },
}

/// In one line, as it is logged. What has happened is in it, with every count and reason; the client is not, of which the fields
/// tell.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::PathState { state, .. } => write!(f, "its callback path is {}", state.name()),
            Event::BackchannelFault { session, fault } => {
                write!(f, "the backchannel of session {} does not follow the protocol: {fault:?}", session.serial)
            }
            Event::Unbound { session, connection } => {
                write!(f, "connection {:#x} does not carry session {}", connection.to_bits(), session.serial)
            }
            Event::SessionLost { session } => {
                write!(f, "session {} is unknown to it (NFS4ERR_BADSESSION)", session.serial)
            }
            Event::ReturnOverdue { key, .. } => write!(f, "callback {:#x} was not returned in time", key.to_bits()),
            Event::Moved { reactor, .. } => write!(f, "its home is reactor {reactor} now"),
            Event::Panicked { call, key: Some(key) } => {
                write!(f, "{call} panicked, about callback {:#x}", key.to_bits())
            }
            Event::Panicked { call, key: None } => write!(f, "{call} panicked"),
            #[cfg(feature = "checkpoint")]
            Event::CheckpointFailed { error } => write!(f, "no checkpoint was written: {error}"),
            #[cfg(feature = "checkpoint")]
            Event::LeftUndone { call, connection, key, .. } => {
                write!(f, "{call} came too late, and is to be called in the next process")?;
                connection.map_or(Ok(()), |connection| write!(f, ", on connection {:#x}", connection.to_bits()))?;
                key.map_or(Ok(()), |key| write!(f, ", about callback {:#x}", key.to_bits()))
            }
            Event::AskedToKeep { held, keep, .. } => {
                write!(f, "it holds {held} delegations, and is asked to keep {keep}")
            }
            Event::AskedInVain { held, keep, recalled, .. } => {
                write!(f, "asked to keep {keep} delegations it keeps {held}; {recalled} are recalled")
            }
            Event::RecallAnySent { keep, clients } => {
                write!(f, "{clients} clients are asked, so that {keep} delegations stay")
            }
            Event::MemoryPressure { held, keep } => {
                write!(f, "memory is short: clients hold {held} delegations, and are to keep {keep}")
            }
            Event::MemoryPressureLost => f.write_str("memory pressure is not told any more"),
            Event::ConnectionWanted { path } => write!(f, "a connection for path {} is wanted", path.serial),
            Event::SessionRefused { session, error } => {
                write!(f, "session {} could not be taken: {error}", session.serial)
            }
        }
    }
}
