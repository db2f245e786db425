//! How simulated clients behave.

use crate::sim::choices::Choices;
use crate::sim::coverage::Kind;
use ringback_rpc::message::{AcceptStatus, AuthStatus, Rejected};
use ringback_rpc::nfs4::Status;

/// How a client treats what it is sent. Of a thousand calls each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behaviour {
    pub name: &'static str,
    /// Reads what arrives at all.
    pub reads: bool,
    /// Between a call and its answer.
    pub think_ns: (u64, u64),
    /// CB_SEQUENCE answers NFS4ERR_DELAY.
    pub sequence_delay: u64,
    /// The operation answers NFS4ERR_DELAY.
    pub op_delay: u64,
    /// The operation answers another error.
    pub op_error: u64,
    /// Executes, and never answers.
    pub mute: u64,
    /// Answers twice.
    pub twice: u64,
    /// The RPC is rejected, or the compound has no results.
    pub reject: u64,
    /// Answers what no honest client would.
    pub lie: u64,
    /// Of several operations in one call the one in this place, counted from 1, gets this status.
    pub fails_at: (usize, Status),
}

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

impl Behaviour {
    pub(crate) const GOOD: Behaviour = Behaviour {
        name: "good",
        reads: true,
        think_ns: (0, MS),
        sequence_delay: 0,
        op_delay: 0,
        op_error: 0,
        mute: 0,
        twice: 0,
        reject: 0,
        lie: 0,
        fails_at: (0, Status::NFS4_OK),
    };

    const OTHERS: [Behaviour; 11] = [
        Behaviour { name: "slow", think_ns: (10 * MS, 3 * S), ..Self::GOOD },
        Behaviour { name: "very slow", think_ns: (S, 60 * S), ..Self::GOOD },
        Behaviour { name: "dead", reads: false, ..Self::GOOD },
        Behaviour { name: "mute", mute: 1000, ..Self::GOOD },
        Behaviour { name: "delaying for ever", op_delay: 1000, ..Self::GOOD },
        Behaviour { name: "draining for ever", sequence_delay: 1000, ..Self::GOOD },
        Behaviour { name: "forgetful", mute: 100, twice: 100, think_ns: (0, 20 * MS), ..Self::GOOD },
        Behaviour { name: "busy", op_delay: 300, sequence_delay: 200, op_error: 100, ..Self::GOOD },
        Behaviour { name: "refusing", reject: 1000, ..Self::GOOD },
        Behaviour { name: "moody", reject: 50, op_error: 300, op_delay: 50, mute: 20, twice: 20, ..Self::GOOD },
        Behaviour { name: "lying", lie: 300, op_delay: 50, sequence_delay: 50, mute: 20, twice: 50, ..Self::GOOD },
    ];

    /// A behaviour other than good; lying only where that is allowed, and then `liars` of a thousand times more often.
    pub(crate) fn draw(choices: &mut Choices, may_lie: bool, liars: u64) -> Behaviour {
        if choices.per_mille(liars) {
            return Self::OTHERS[Self::OTHERS.len() - 1];
        }
        let from = if may_lie { &Self::OTHERS[..] } else { &Self::OTHERS[..Self::OTHERS.len() - 1] };
        choices.pick(from)
    }
}

/// A wrong answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// CB_SEQUENCE fails with this status, for no reason.
    Sequence(Status),
    /// As if it were the answer for another session slot, sequence id or session.
    Echo(u8),
    /// The answer is cut off after so many bytes.
    Cut(usize),
    /// One bit of it is wrong.
    Flip(u64),
    /// An answer with an xid that nobody asked with.
    Xid(u32),
    /// The answer is to another operation.
    OtherOp,
    /// The operation's result is missing, and the status says that all is well.
    NoOp,
    /// What comes is not an answer, and not even a record.
    Noise,
}

impl Lie {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Lie::Sequence(status) => Kind::of_sequence(status),
            Lie::Echo(_) => Kind::WrongEcho,
            Lie::Cut(_) => Kind::ReplyCut,
            Lie::Flip(_) => Kind::BitFlipped,
            Lie::Xid(_) => Kind::WrongXid,
            Lie::OtherOp => Kind::WrongOp,
            Lie::NoOp => Kind::OpMissing,
            Lie::Noise => Kind::Noise,
        }
    }

    pub(crate) fn draw(choices: &mut Choices) -> Lie {
        // Every error that CB_SEQUENCE may give (RFC 8881 section 15.3), and some that it may not.
        const STATUSES: [Status; 14] = [
            Status::NFS4ERR_BADSESSION,
            Status::NFS4ERR_BADSLOT,
            Status::NFS4ERR_BADXDR,
            Status::NFS4ERR_BAD_HIGH_SLOT,
            Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION,
            Status::NFS4ERR_REP_TOO_BIG,
            Status::NFS4ERR_REP_TOO_BIG_TO_CACHE,
            Status::NFS4ERR_REQ_TOO_BIG,
            Status::NFS4ERR_RETRY_UNCACHED_REP,
            Status::NFS4ERR_SEQUENCE_POS,
            Status::NFS4ERR_SEQ_FALSE_RETRY,
            Status::NFS4ERR_SEQ_MISORDERED,
            Status::NFS4ERR_TOO_MANY_OPS,
            Status::NFS4ERR_SERVERFAULT,
        ];
        match choices.weighted(&[12, 3, 2, 2, 1, 1, 1, 1]) {
            0 => Lie::Sequence(choices.pick(&STATUSES)),
            1 => Lie::Echo(choices.below(3) as u8),
            2 => Lie::Cut(choices.below(120) as usize),
            3 => Lie::Flip(choices.next()),
            4 => Lie::Xid(choices.next() as u32),
            5 => Lie::OtherOp,
            6 => Lie::NoOp,
            _ => Lie::Noise,
        }
    }
}

/// How a client that does not take calls says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Denied(Rejected),
    NotExecuted(AcceptStatus),
    NoResults(Status),
}

impl Refusal {
    pub(crate) fn draw(choices: &mut Choices) -> Refusal {
        choices.pick(&[
            Refusal::Denied(Rejected::AuthError(AuthStatus::BadCred)),
            Refusal::Denied(Rejected::AuthError(AuthStatus::TooWeak)),
            Refusal::Denied(Rejected::RpcMismatch { low: 2, high: 2 }),
            Refusal::NotExecuted(AcceptStatus::ProgUnavail),
            Refusal::NotExecuted(AcceptStatus::ProgMismatch { low: 4, high: 4 }),
            Refusal::NotExecuted(AcceptStatus::ProcUnavail),
            Refusal::NotExecuted(AcceptStatus::GarbageArgs),
            Refusal::NotExecuted(AcceptStatus::SystemErr),
            Refusal::NoResults(Status::NFS4ERR_MINOR_VERS_MISMATCH),
            Refusal::NoResults(Status::NFS4ERR_RESOURCE),
        ])
    }
}

/// Errors of operations that an honest client may give.
pub(crate) const OP_ERRORS: [Status; 7] = [
    Status::NFS4ERR_BAD_STATEID,
    Status::NFS4ERR_BADHANDLE,
    Status::NFS4ERR_NOTSUPP,
    Status::NFS4ERR_REP_TOO_BIG,
    Status::NFS4ERR_OP_NOT_IN_SESSION,
    Status::NFS4ERR_BADXDR,
    Status::NFS4ERR_SERVERFAULT,
];
