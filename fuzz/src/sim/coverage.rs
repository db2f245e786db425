//! What simulations have come across: faults, answers of clients, requests, outcomes and events, each kind counted.

use super::handover::{Fault, Side};
use ringback::simulator::upgrade::Step;
use ringback::{Cancel, Event, Outcome, Remove, Returned, TryRun};
use ringback_rpc::nfs4::Status;
use std::fmt;

macro_rules! kinds {
    ($($kind:ident: $name:literal,)*) => {
        /// Something that a simulation may come across.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $name] $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: [Kind; [$($name),*].len()] = [$(Kind::$kind),*];

            /// What a table calls it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    // The network, and what fails below the runtime.
    BytesDelayed: "bytes delayed",
    BytesCut: "bytes cut",
    CallsReordered: "calls reordered",
    LineFrozen: "line frozen",
    LineClosed: "line closed",
    LineReset: "line reset",
    LineHalfClosed: "line half-closed",
    ServerCloses: "server closes",
    OwnTransport: "embedder's transport",
    SendBufferFull: "send buffer full",
    SendRefused: "send refused",
    SendPartial: "send partial",
    SendFailed: "send failed",
    AttachFailed: "attach failed",
    ConnectTaken: "connect taken, IPv4",
    ConnectTaken6: "connect taken, IPv6",
    ConnectRefused: "connect refused",
    ConnectSilent: "connect silent",
    ConnectFailed: "connect failed",
    AllocationFailed: "allocation failed",
    NoBuffer: "no memory for a buffer",
    ReceivingPaused: "receiving paused",
    // CB_SEQUENCE.
    SequenceOk: "CB_SEQUENCE OK",
    SequenceDelay: "CB_SEQUENCE DELAY",
    BadSession: "BADSESSION",
    BadSlot: "BADSLOT",
    BadXdr: "BADXDR",
    BadHighSlot: "BAD_HIGH_SLOT",
    NotBound: "CONN_NOT_BOUND",
    RepTooBig: "REP_TOO_BIG",
    RepTooBigToCache: "REP_TOO_BIG_TO_CACHE",
    ReqTooBig: "REQ_TOO_BIG",
    Uncached: "RETRY_UNCACHED_REP",
    SequencePos: "SEQUENCE_POS",
    FalseRetry: "SEQ_FALSE_RETRY",
    Misordered: "SEQ_MISORDERED",
    TooManyOps: "TOO_MANY_OPS",
    SequenceOther: "CB_SEQUENCE other",
    // What follows it, or comes instead.
    OpOk: "op OK",
    OpDelay: "op DELAY",
    OpNotSupp: "op NOTSUPP",
    OpUncached: "op RETRY_UNCACHED_REP",
    OpOther: "op other",
    RpcDenied: "RPC denied",
    RpcNotExecuted: "RPC not executed",
    NoResults: "no results",
    NoReply: "no reply",
    ReplyTwice: "reply twice",
    ReplyLate: "reply late",
    WrongEcho: "wrong echo",
    ReplyCut: "reply cut off",
    BitFlipped: "bit flipped",
    WrongXid: "wrong xid",
    WrongOp: "wrong op",
    OpMissing: "op missing",
    Noise: "noise",
    ClientDead: "client dead",
    // Clients and sessions.
    SessionCreated: "session created",
    SessionDestroyed: "session destroyed",
    DestroyedMidReply: "destroyed mid-reply",
    Bound: "bound again",
    BoundByCall: "bound by a call",
    BackchannelCtl: "BACKCHANNEL_CTL",
    SetClientId: "SETCLIENTID",
    Confirmed: "SETCLIENTID_CONFIRM",
    ConfirmRefused: "confirm refused",
    TargetMoved: "slot target moved",
    TableShrunk: "slot table shrunk",
    TableOfOne: "slot table of one slot",
    TableGrown: "slot table grown",
    SlotAnew: "slot starts anew",
    ClientReplaced: "client replaced",
    Courtesy: "courtesy begins",
    CourtesyOver: "courtesy ends",
    ClientExpired: "client expired",
    BackFromExpired: "back from expired",
    RebootParked: "reboot, runs parked",
    PathDownTold: "path state told",
    // What is sent.
    Batch: "batch",
    Resent: "resent",
    LoneSequence: "lone CB_SEQUENCE",
    Null: "CB_NULL",
    Call0: "4.0 call",
    Call0Resent: "4.0 call resent",
    Reply0Wrong: "4.0 reply wrong",
    Referring: "referring calls",
    ReferringLeftOut: "referring left out",
    ReferringAwaited: "referring awaited",
    // What the embedder asks, and its hooks.
    Submitted: "try_run Submitted",
    Coalesced: "try_run Coalesced",
    Rearmed: "try_run Rearmed",
    RunStale: "try_run Stale",
    RunDying: "try_run Dying",
    RunClosed: "try_run Closed",
    Removed: "remove Removed",
    RemoveDeferred: "remove Deferred",
    AlreadyDying: "remove AlreadyDying",
    RemoveStale: "remove Stale",
    CancelAsked: "cancel Asked",
    CancelIdle: "cancel Idle",
    CancelStale: "cancel Stale",
    ReturnNoted: "returned Noted",
    ReturnNotAwaited: "returned NotAwaited",
    ReturnStale: "returned Stale",
    InsertFull: "insert Full",
    InsertTenantFull: "insert TenantFull",
    InsertOutOfMemory: "insert OutOfMemory",
    InsertNoClient: "insert NoSuchClient",
    CompletionTaken: "completion taken",
    WaiterTold: "waiter told",
    WaiterRefused: "waiter refused",
    WaiterLeft: "waiter left",
    GroupReturned: "group: returned",
    GroupOverdue: "group: overdue",
    GroupFailed: "group: failed",
    GroupLeft: "group left",
    PrepareRefuses: "prepare refuses",
    EncodeFails: "encode fails",
    DoneRequeues: "done requeues",
    HookCalls: "hook calls runtime",
    HookPanics: "hook panics",
    Tuned: "settings changed",
    TenantLimited: "tenant limited anew",
    TenantHeldBack: "tenant held back",
    DrainClient: "drain of client",
    DrainSession: "drain of session",
    DrainRuntime: "drain of runtime",
    Abandoned: "drain abandons",
    ForeInline: "fore answered inline",
    ForeDeferred: "fore deferred",
    ForeDropped: "fore dropped",
    // How runs end.
    Replied: "Replied",
    Refused: "Refused",
    Unencodable: "Unencodable",
    TimedOutSent: "TimedOut sent",
    TimedOutUnsent: "TimedOut unsent",
    PathDown: "PathDown",
    InCourtesy: "Courtesy",
    CancelledSent: "Cancelled sent",
    CancelledUnsent: "Cancelled unsent",
    DeliveredUnknown: "DeliveredUnknown",
    Fault: "Fault",
    // What the embedder is told.
    PathState: "event PathState",
    BackchannelFault: "event BackchannelFault",
    Unbound: "event Unbound",
    SessionLost: "event SessionLost",
    SessionRefused: "event SessionRefused",
    Overdue: "event ReturnOverdue",
    Panicked: "event Panicked",
    Moved: "event Moved",
    MovedBusy: "moved with runs in flight",
    // Live upgrades, and how either process fails at each of its steps.
    Upgraded: "upgraded",
    UpgradedFlying: "upgraded, runs in flight",
    UpgradeFailed: "upgrade failed",
    UpgradeTimedOut: "upgrade timed out",
    MoreReactors: "more reactors",
    FewerReactors: "fewer reactors",
    AskedMeanwhile: "asked meanwhile",
    NobodyServes: "nobody serves",
    OldGreetCrash: "old greet: crash",
    OldGreetRefused: "old greet: refused",
    OldGreetDelay: "old greet: delay",
    OldSuspendCrash: "old suspend: crash",
    OldSuspendRefused: "old suspend: refused",
    OldSuspendDelay: "old suspend: delay",
    OldLiftCrash: "old lift: crash",
    OldLiftRefused: "old lift: refused",
    OldLiftDelay: "old lift: delay",
    OldWriteCrash: "old write: crash",
    OldWriteRefused: "old write: refused",
    OldWriteDelay: "old write: delay",
    OldStateCrash: "old state: crash",
    OldStateRefused: "old state: refused",
    OldStateDelay: "old state: delay",
    OldFilesCrash: "old files: crash",
    OldFilesRefused: "old files: refused",
    OldFilesDelay: "old files: delay",
    OldSocketsCrash: "old sockets: crash",
    OldSocketsRefused: "old sockets: refused",
    OldSocketsDelay: "old sockets: delay",
    OldGoCrash: "old go: crash",
    OldGoRefused: "old go: refused",
    OldGoDelay: "old go: delay",
    OldLeaveCrash: "old leave: crash",
    OldLeaveDelay: "old leave: delay",
    NewGreetCrash: "new greet: crash",
    NewGreetRefused: "new greet: refused",
    NewGreetDelay: "new greet: delay",
    NewStateCrash: "new state: crash",
    NewStateRefused: "new state: refused",
    NewStateDelay: "new state: delay",
    NewFilesCrash: "new files: crash",
    NewFilesRefused: "new files: refused",
    NewFilesDelay: "new files: delay",
    NewSocketsCrash: "new sockets: crash",
    NewSocketsRefused: "new sockets: refused",
    NewSocketsDelay: "new sockets: delay",
    NewOpenCrash: "new open: crash",
    NewOpenRefused: "new open: refused",
    NewOpenDelay: "new open: delay",
    NewRestoreCrash: "new restore: crash",
    NewRestoreRefused: "new restore: refused",
    NewRestoreDelay: "new restore: delay",
    NewReadyCrash: "new ready: crash",
    NewReadyRefused: "new ready: refused",
    NewReadyDelay: "new ready: delay",
}

impl Kind {
    /// A fault at a step of an upgrade.
    pub(crate) fn of_handover(side: Side, step: Step, fault: Fault) -> Option<Kind> {
        let fault = match fault {
            Fault::Crash => "crash",
            Fault::Refuse => "refused",
            Fault::Delay(_) => "delay",
        };
        let name = format!("{side:?} {step:?}: {fault}").to_lowercase();
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A status of CB_SEQUENCE.
    pub(crate) fn of_sequence(status: Status) -> Kind {
        match status {
            Status::NFS4_OK => Kind::SequenceOk,
            Status::NFS4ERR_DELAY => Kind::SequenceDelay,
            Status::NFS4ERR_BADSESSION => Kind::BadSession,
            Status::NFS4ERR_BADSLOT => Kind::BadSlot,
            Status::NFS4ERR_BADXDR => Kind::BadXdr,
            Status::NFS4ERR_BAD_HIGH_SLOT => Kind::BadHighSlot,
            Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION => Kind::NotBound,
            Status::NFS4ERR_REP_TOO_BIG => Kind::RepTooBig,
            Status::NFS4ERR_REP_TOO_BIG_TO_CACHE => Kind::RepTooBigToCache,
            Status::NFS4ERR_REQ_TOO_BIG => Kind::ReqTooBig,
            Status::NFS4ERR_RETRY_UNCACHED_REP => Kind::Uncached,
            Status::NFS4ERR_SEQUENCE_POS => Kind::SequencePos,
            Status::NFS4ERR_SEQ_FALSE_RETRY => Kind::FalseRetry,
            Status::NFS4ERR_SEQ_MISORDERED => Kind::Misordered,
            Status::NFS4ERR_TOO_MANY_OPS => Kind::TooManyOps,
            _ => Kind::SequenceOther,
        }
    }

    /// A status of the operation that follows CB_SEQUENCE.
    pub(crate) fn of_op(status: Status) -> Kind {
        match status {
            Status::NFS4_OK => Kind::OpOk,
            Status::NFS4ERR_DELAY => Kind::OpDelay,
            Status::NFS4ERR_NOTSUPP => Kind::OpNotSupp,
            Status::NFS4ERR_RETRY_UNCACHED_REP => Kind::OpUncached,
            _ => Kind::OpOther,
        }
    }

    pub(crate) fn of_outcome(outcome: &Outcome<'_>) -> Option<Kind> {
        Some(match outcome {
            Outcome::Replied { .. } => Kind::Replied,
            Outcome::Refused => Kind::Refused,
            Outcome::Unencodable(_) => Kind::Unencodable,
            Outcome::TimedOut { sent: true } => Kind::TimedOutSent,
            Outcome::TimedOut { sent: false } => Kind::TimedOutUnsent,
            Outcome::PathDown => Kind::PathDown,
            Outcome::Courtesy => Kind::InCourtesy,
            Outcome::Cancelled { sent: true } => Kind::CancelledSent,
            Outcome::Cancelled { sent: false } => Kind::CancelledUnsent,
            Outcome::DeliveredUnknown => Kind::DeliveredUnknown,
            Outcome::Fault(_) => Kind::Fault,
            _ => return None,
        })
    }

    pub(crate) fn of_event(event: &Event) -> Option<Kind> {
        Some(match event {
            Event::PathState { .. } => Kind::PathState,
            Event::BackchannelFault { .. } => Kind::BackchannelFault,
            Event::Unbound { .. } => Kind::Unbound,
            Event::SessionLost { .. } => Kind::SessionLost,
            Event::SessionRefused { .. } => Kind::SessionRefused,
            Event::ReturnOverdue { .. } => Kind::Overdue,
            Event::Panicked { .. } => Kind::Panicked,
            Event::Moved { .. } => Kind::Moved,
            _ => return None,
        })
    }

    pub(crate) fn of_run(answer: TryRun) -> Kind {
        match answer {
            TryRun::Submitted => Kind::Submitted,
            TryRun::Coalesced => Kind::Coalesced,
            TryRun::Rearmed => Kind::Rearmed,
            TryRun::Stale => Kind::RunStale,
            TryRun::Dying => Kind::RunDying,
            TryRun::Closed => Kind::RunClosed,
        }
    }

    pub(crate) fn of_remove(answer: Remove) -> Kind {
        match answer {
            Remove::Removed => Kind::Removed,
            Remove::Deferred => Kind::RemoveDeferred,
            Remove::Stale => Kind::RemoveStale,
            Remove::AlreadyDying => Kind::AlreadyDying,
        }
    }

    pub(crate) fn of_cancel(answer: Cancel) -> Kind {
        match answer {
            Cancel::Asked => Kind::CancelAsked,
            Cancel::Idle => Kind::CancelIdle,
            Cancel::Stale => Kind::CancelStale,
        }
    }

    pub(crate) fn of_returned(answer: Returned) -> Kind {
        match answer {
            Returned::Noted => Kind::ReturnNoted,
            Returned::NotAwaited => Kind::ReturnNotAwaited,
            Returned::Stale => Kind::ReturnStale,
        }
    }
}

/// How often each [`Kind`] was come across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage([u64; Kind::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Coverage([0; Kind::ALL.len()])
    }
}

impl Coverage {
    pub(crate) fn new(counts: [u64; Kind::ALL.len()]) -> Self {
        Coverage(counts)
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Coverage) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// How often this kind was come across.
    pub fn count(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// What was never come across.
    pub fn missing(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.count(*kind) == 0).collect()
    }
}

/// Kinds in a line of the table.
const COLUMNS: usize = 4;

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in Kind::ALL.chunks(COLUMNS) {
            let cells: Vec<String> =
                row.iter().map(|kind| format!("{:<23}{:>8}", kind.name(), self.count(*kind))).collect();
            writeln!(f, "{}", cells.join("   "))?;
        }
        Ok(())
    }
}
