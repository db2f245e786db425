//! Numbers of the interface: what can be chosen, and what is told.

use crate::error::{Failure, rb_error};
use runtime::{AddError, CallbackOp, Cancel, ClientState, Ending, PathFaultKind, PathState, Remove, Returned, TryRun};
use std::ffi::{CStr, c_char};

/// What drives the sockets.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_backend {
    /// io_uring where everything that is needed works, epoll otherwise.
    RB_BACKEND_AUTO = 0,
    /// io_uring, or an error that names what is missing.
    RB_BACKEND_URING = 1,
    /// epoll.
    RB_BACKEND_EPOLL = 2,
}

/// To where connections to clients of minor version 0 are made, so that a client cannot aim the file server at others. Never to
/// port 0, nor to a multicast, broadcast or unspecified address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum rb_connect_policy {
    /// To the address that the client's own connection comes from.
    RB_CONNECT_PEER = 0,
    /// To any address.
    RB_CONNECT_ANY = 1,
    /// To none.
    RB_CONNECT_NOWHERE = 2,
    /// To those for which rb_options.connect_allows answers 1.
    RB_CONNECT_ASK = 3,
}

/// Where completions, events and fore-channel calls are told.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_delivery {
    /// On queues, each with a descriptor to poll.
    RB_DELIVERY_QUEUE = 0,
    /// In hooks, on the reactors' threads.
    RB_DELIVERY_INLINE = 1,
}

/// The operations of the callback program that a server can send (RFC 8881 section 20, RFC 7862 section 16).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_op {
    /// CB_GETATTR.
    RB_CB_GETATTR = 3,
    /// CB_RECALL.
    RB_CB_RECALL = 4,
    /// CB_LAYOUTRECALL.
    RB_CB_LAYOUTRECALL = 5,
    /// CB_NOTIFY.
    RB_CB_NOTIFY = 6,
    /// CB_PUSH_DELEG.
    RB_CB_PUSH_DELEG = 7,
    /// CB_RECALL_ANY.
    RB_CB_RECALL_ANY = 8,
    /// CB_RECALLABLE_OBJ_AVAIL.
    RB_CB_RECALLABLE_OBJ_AVAIL = 9,
    /// CB_RECALL_SLOT.
    RB_CB_RECALL_SLOT = 10,
    /// CB_WANTS_CANCELLED.
    RB_CB_WANTS_CANCELLED = 12,
    /// CB_NOTIFY_LOCK.
    RB_CB_NOTIFY_LOCK = 13,
    /// CB_NOTIFY_DEVICEID.
    RB_CB_NOTIFY_DEVICEID = 14,
    /// CB_OFFLOAD.
    RB_CB_OFFLOAD = 15,
}

/// What became of a request to run a callback.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_try_run_answer {
    /// Accepted: there will be one completion.
    RB_RUN_SUBMITTED = 0,
    /// A run that is not decided yet serves this request too.
    RB_RUN_COALESCED = 1,
    /// The callback is running and will run once more for this request.
    RB_RUN_REARMED = 2,
    /// There is no such callback any more.
    RB_RUN_STALE = 3,
    /// The callback was removed and is on its way out.
    RB_RUN_DYING = 4,
    /// The client or the runtime is being drained; nothing was started.
    RB_RUN_CLOSED = 5,
}

pub fn try_run(answer: TryRun) -> i32 {
    use rb_try_run_answer::*;
    (match answer {
        TryRun::Submitted => RB_RUN_SUBMITTED,
        TryRun::Coalesced => RB_RUN_COALESCED,
        TryRun::Rearmed => RB_RUN_REARMED,
        TryRun::Stale => RB_RUN_STALE,
        TryRun::Dying => RB_RUN_DYING,
        TryRun::Closed => RB_RUN_CLOSED,
    }) as i32
}

/// What became of a request to remove a callback. In every case no run starts afterwards.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_remove_answer {
    /// Removed.
    RB_REMOVE_REMOVED = 0,
    /// It is running, and goes when that run has ended.
    RB_REMOVE_DEFERRED = 1,
    /// There is no such callback any more.
    RB_REMOVE_STALE = 2,
    /// It was removed already, and is still running or just being freed.
    RB_REMOVE_DYING = 3,
}

pub fn remove(answer: Remove) -> i32 {
    use rb_remove_answer::*;
    (match answer {
        Remove::Removed => RB_REMOVE_REMOVED,
        Remove::Deferred => RB_REMOVE_DEFERRED,
        Remove::Stale => RB_REMOVE_STALE,
        Remove::AlreadyDying => RB_REMOVE_DYING,
    }) as i32
}

/// What became of a request to cancel a run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_cancel_answer {
    /// The run that is going on ends as RB_ENDED_CANCELLED, unless it ends otherwise first.
    RB_CANCEL_ASKED = 0,
    /// No run is going on, or its outcome is decided already.
    RB_CANCEL_IDLE = 1,
    /// There is no such callback any more.
    RB_CANCEL_STALE = 2,
}

pub fn cancel(answer: Cancel) -> i32 {
    use rb_cancel_answer::*;
    (match answer {
        Cancel::Asked => RB_CANCEL_ASKED,
        Cancel::Idle => RB_CANCEL_IDLE,
        Cancel::Stale => RB_CANCEL_STALE,
    }) as i32
}

/// What became of the word that what was recalled has come back.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_returned_answer {
    /// The return was awaited, and is not any more.
    RB_RETURNED_NOTED = 0,
    /// No return was awaited.
    RB_RETURNED_NOT_AWAITED = 1,
    /// There is no such callback any more.
    RB_RETURNED_STALE = 2,
}

pub fn returned(answer: Returned) -> i32 {
    use rb_returned_answer::*;
    (match answer {
        Returned::Noted => RB_RETURNED_NOTED,
        Returned::NotAwaited => RB_RETURNED_NOT_AWAITED,
        Returned::Stale => RB_RETURNED_STALE,
    }) as i32
}

/// How a run ended. What it says is about the callback, not about the delegation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_ending {
    /// The client answered; the status is in the outcome.
    RB_ENDED_REPLIED = 0,
    /// The prepare hook said that there was nothing to send.
    RB_ENDED_REFUSED = 1,
    /// The arguments could not be written, or not in the record size that the session allows. Nothing was sent.
    RB_ENDED_UNENCODABLE = 2,
    /// The run deadline passed.
    RB_ENDED_TIMED_OUT = 3,
    /// The client had no callback path for a lease after it was told so, while it renewed. Never sent since.
    RB_ENDED_PATH_DOWN = 4,
    /// The client is in courtesy.
    RB_ENDED_COURTESY = 5,
    /// The client, its session or the whole runtime goes away, or it was cancelled.
    RB_ENDED_CANCELLED = 6,
    /// The client took the request; its answer is lost, and this operation must not be executed twice.
    RB_ENDED_DELIVERED_UNKNOWN = 7,
    /// The client refuses what the backchannel of its session sends; why is in the outcome.
    RB_ENDED_FAULT = 8,
}

/// What is wrong with a callback path.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_fault {
    /// Nothing.
    RB_FAULT_NONE = 0,
    /// The RPC was denied.
    RB_FAULT_DENIED = 1,
    /// The RPC was accepted and not executed.
    RB_FAULT_NOT_EXECUTED = 2,
    /// The compound has no results at all.
    RB_FAULT_NO_RESULTS = 3,
    /// CB_SEQUENCE answered for another session, session slot or sequence id.
    RB_FAULT_WRONG_ECHO = 4,
    /// A reply could not be decoded.
    RB_FAULT_MALFORMED = 5,
    /// No session slot of the session is of any use any more.
    RB_FAULT_NO_SLOTS = 6,
    /// The client answers other things, and for a lease has not said where a session slot stands.
    RB_FAULT_NO_ANSWER = 7,
}

pub fn fault(kind: PathFaultKind) -> i32 {
    use rb_fault::*;
    (match kind {
        PathFaultKind::Denied => RB_FAULT_DENIED,
        PathFaultKind::NotExecuted => RB_FAULT_NOT_EXECUTED,
        PathFaultKind::NoResults => RB_FAULT_NO_RESULTS,
        PathFaultKind::WrongEcho => RB_FAULT_WRONG_ECHO,
        PathFaultKind::Malformed => RB_FAULT_MALFORMED,
        PathFaultKind::NoSlots => RB_FAULT_NO_SLOTS,
        PathFaultKind::NoAnswer => RB_FAULT_NO_ANSWER,
        // One that this interface has no number for yet: there is a fault all the same.
        _ => RB_FAULT_MALFORMED,
    }) as i32
}

/// How a run ended, in full.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct rb_outcome {
    /// An rb_ending.
    pub ending: i32,
    /// RB_ENDED_REPLIED: the status of the operation (nfsstat4). In a completion, one that no RFC defines is told as
    /// NFS4ERR_SERVERFAULT.
    pub status: u32,
    /// RB_ENDED_TIMED_OUT, RB_ENDED_CANCELLED: 1 if it was sent at least once. What was never sent does not count against
    /// the client.
    pub sent: i32,
    /// RB_ENDED_FAULT: an rb_fault.
    pub fault: i32,
}

impl From<Ending> for rb_outcome {
    fn from(ending: Ending) -> Self {
        use rb_ending::*;
        let (mut outcome, kind) = (
            rb_outcome::default(),
            match ending {
                Ending::Replied(_) => RB_ENDED_REPLIED,
                Ending::Refused => RB_ENDED_REFUSED,
                Ending::TimedOut { .. } => RB_ENDED_TIMED_OUT,
                Ending::PathDown => RB_ENDED_PATH_DOWN,
                Ending::Courtesy => RB_ENDED_COURTESY,
                Ending::Cancelled { .. } => RB_ENDED_CANCELLED,
                Ending::DeliveredUnknown => RB_ENDED_DELIVERED_UNKNOWN,
                Ending::Fault(_) => RB_ENDED_FAULT,
                _ => RB_ENDED_UNENCODABLE,
            },
        );
        outcome.ending = kind as i32;
        match ending {
            Ending::Replied(status) => outcome.status = status.0,
            Ending::TimedOut { sent } | Ending::Cancelled { sent } => outcome.sent = sent.into(),
            Ending::Fault(kind) => outcome.fault = fault(kind),
            _ => {}
        }
        outcome
    }
}

/// What the file server knows of a client.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_client_state {
    /// It renews its lease.
    RB_CLIENT_ACTIVE = 0,
    /// Its lease has expired and its state is kept until somebody wants it: callbacks end as RB_ENDED_COURTESY.
    RB_CLIENT_COURTESY = 1,
    /// It is gone, or has a new incarnation: callbacks end as RB_ENDED_CANCELLED.
    RB_CLIENT_EXPIRED = 2,
}

pub fn client_state(state: i32) -> Result<ClientState, Failure> {
    match state {
        0 => Ok(ClientState::Active),
        1 => Ok(ClientState::Courtesy),
        2 => Ok(ClientState::Expired),
        _ => Err(Failure::new(rb_error::RB_ERR_INVALID, format!("state is {state}, which is no rb_client_state"))),
    }
}

/// State of a client's callback path.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_path_state {
    /// No session was ever bound to a connection.
    RB_PATH_UNKNOWN = 0,
    /// Callbacks can be sent.
    RB_PATH_UP = 1,
    /// No session has a connection.
    RB_PATH_DOWN = 2,
    /// There is a connection, and the client refuses what is sent on it.
    RB_PATH_FAULT = 3,
}

pub fn path_state(state: PathState) -> i32 {
    use rb_path_state::*;
    (match state {
        PathState::Unknown => RB_PATH_UNKNOWN,
        PathState::Up => RB_PATH_UP,
        PathState::Down => RB_PATH_DOWN,
        PathState::Fault => RB_PATH_FAULT,
    }) as i32
}

/// Why a session, its new parameters or a binding could not be taken.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_refusal {
    /// There is no such session.
    RB_REFUSED_NO_SUCH_SESSION = 1,
    /// The client has as many sessions as are allowed.
    RB_REFUSED_SESSIONS = 2,
    /// The sessions of the client have more slots than are allowed.
    RB_REFUSED_SLOTS = 3,
    /// The client has as many connections as are allowed.
    RB_REFUSED_CONNECTIONS = 4,
    /// Something else, such as a session too small for one operation.
    RB_REFUSED_OTHER = 5,
}

pub fn refusal(error: AddError) -> i32 {
    use rb_refusal::*;
    (match error {
        AddError::NoSuchSession => RB_REFUSED_NO_SUCH_SESSION,
        AddError::TooManySessions => RB_REFUSED_SESSIONS,
        AddError::TooManySlots => RB_REFUSED_SLOTS,
        AddError::TooManyConnections => RB_REFUSED_CONNECTIONS,
        _ => RB_REFUSED_OTHER,
    }) as i32
}

pub fn op(op: i32) -> Result<CallbackOp, Failure> {
    let known = u32::try_from(op).ok().and_then(|op| CallbackOp::try_from(op).ok());
    known.ok_or_else(|| Failure::new(rb_error::RB_ERR_INVALID, format!("op is {op}, which is no rb_op")))
}

/// The RFC's name of an rb_op, such as "CB_RECALL": for logs. "unknown" for any other number.
#[unsafe(no_mangle)]
pub extern "C" fn rb_op_name(op: i32) -> *const c_char {
    let name: &CStr = match op {
        3 => c"CB_GETATTR",
        4 => c"CB_RECALL",
        5 => c"CB_LAYOUTRECALL",
        6 => c"CB_NOTIFY",
        7 => c"CB_PUSH_DELEG",
        8 => c"CB_RECALL_ANY",
        9 => c"CB_RECALLABLE_OBJ_AVAIL",
        10 => c"CB_RECALL_SLOT",
        12 => c"CB_WANTS_CANCELLED",
        13 => c"CB_NOTIFY_LOCK",
        14 => c"CB_NOTIFY_DEVICEID",
        15 => c"CB_OFFLOAD",
        _ => c"unknown",
    };
    name.as_ptr()
}
