//! What can be measured, and what comes of it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Who sends the callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// ringback, on io_uring; on epoll where there is none.
    Ringback,
    /// ringback, on epoll.
    RingbackEpoll,
    /// An idiomatic async client on tokio: a task for each callback, a oneshot for its reply, a timeout, a writer that
    /// coalesces.
    AsyncTask,
    /// The same on one thread and without a timeout.
    AsyncBare,
    /// The same, with one write for each callback.
    SendPerRpc,
    /// The same as [`Subject::AsyncBare`], on tokio-uring.
    TokioUring,
    /// A loop over mio, written for this one purpose.
    MioLoop,
    /// The cheapest loop over io_uring that moves the same bytes: it looks at none of them.
    Echo,
}

/// Who asks for the next callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Submit {
    /// The thread that has just completed one.
    SameThread,
    /// A thread of the embedder's.
    OtherThread,
}

/// Callbacks as fast as they go: so many are always outstanding on each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Load {
    /// Who sends.
    pub subject: Subject,
    /// Connections, each of a client and a session of its own.
    pub connections: u32,
    /// Session slots of each session.
    pub slots: u32,
    /// Operations that the clients allow in a callback.
    pub operations: u32,
    /// Callbacks outstanding for each client, those that wait for a session slot included.
    pub outstanding: u32,
    /// Who asks for them.
    pub submit: Submit,
    /// Threads.
    pub reactors: u32,
    /// Delegations that the callbacks are chosen from, at random, over all clients; 0: a few times those outstanding.
    pub delegations: u32,
    /// Whether the embedder says a few recalls ahead which ones come (`Runtime::prefetch`), as one does that walks through a
    /// list.
    pub prefetch: bool,
    /// Whether allocations are counted.
    pub count_allocations: bool,
}

impl Load {
    /// As many callbacks outstanding as there are session slots, asked for by the thread that completes them.
    pub const fn new(subject: Subject, connections: u32, slots: u32) -> Load {
        Load {
            subject,
            connections,
            slots,
            operations: 2,
            outstanding: slots,
            submit: Submit::SameThread,
            reactors: 1,
            delegations: 0,
            prefetch: false,
            count_allocations: false,
        }
    }
}

/// One measurement, made in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Job {
    /// The cost of callbacks under load.
    Load(Load),
    /// One recall at a time on an idle system.
    Latency(Subject),
    /// The least system call.
    NullCall,
    /// `try_run` until the callback is queued, in compare-and-swaps.
    Submit,
    /// The allocation of an entry after so many have come and gone, in random loads from memory.
    Churn {
        /// Entries.
        entries: u32,
    },
    /// The memory of idle entries.
    Idle {
        /// Entries.
        entries: u32,
    },
    /// The memory of clients with a session and a connection each.
    Clients {
        /// Clients.
        clients: u32,
    },
}

/// A number that a measurement gives: of one callback, where it is not said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Figure {
    /// CPU time, ns.
    Cpu,
    /// CPU time in user space, ns.
    UserCpu,
    /// System calls of the reactors.
    Syscalls,
    /// Sends.
    Sends,
    /// Bytes sent.
    Bytes,
    /// Wake-ups of a parked reactor.
    Wakes,
    /// Heap allocations, in all threads.
    Allocations,
    /// Median latency, ns.
    P50,
    /// 99th percentile of latency, ns.
    P99,
    /// Callbacks per second.
    Rate,
    /// What the job says that it measures, in its own unit.
    Own,
}

/// What one measurement gave.
pub type Sample = BTreeMap<Figure, f64>;

/// A measurement as its process is asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What.
    pub job: Job,
    /// How long a load is measured, after it has warmed up.
    pub window: Duration,
}

impl Subject {
    /// A word for tables.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Ringback => "ringback",
            Subject::RingbackEpoll => "ringback, epoll",
            Subject::AsyncTask => "tokio, task each",
            Subject::AsyncBare => "tokio, bare",
            Subject::SendPerRpc => "tokio, write each",
            Subject::TokioUring => "tokio-uring",
            Subject::MioLoop => "mio loop",
            Subject::Echo => "io_uring echo",
        }
    }

    /// Whether it is nothing without io_uring.
    pub fn needs_uring(self) -> bool {
        matches!(self, Subject::TokioUring | Subject::Echo)
    }
}

impl Job {
    /// A few words for progress and errors.
    pub fn name(&self) -> String {
        match self {
            Job::Load(load) => {
                let mut name = format!("{} {}x{}", load.subject.name(), load.connections, load.slots);
                if load.outstanding > load.slots {
                    name += &format!(", {} outstanding", load.outstanding);
                }
                if load.operations > 2 {
                    name += &format!(", {} operations", load.operations);
                }
                if load.submit == Submit::OtherThread {
                    name += ", other thread";
                }
                if load.reactors > 1 {
                    name += &format!(", {} reactors", load.reactors);
                }
                if load.delegations > 0 {
                    name += &format!(", {} delegations", load.delegations);
                }
                if load.prefetch {
                    name += ", prefetched";
                }
                if load.count_allocations {
                    name += ", allocations";
                }
                name
            }
            Job::Latency(subject) => format!("{} latency", subject.name()),
            Job::NullCall => "null system call".to_owned(),
            Job::Submit => "submission".to_owned(),
            Job::Churn { entries } => format!("churn, {entries} entries"),
            Job::Idle { entries } => format!("idle, {entries} entries"),
            Job::Clients { clients } => format!("{clients} clients"),
        }
    }

    /// Who is measured, where that is one of several.
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Job::Load(load) => Some(load.subject),
            Job::Latency(subject) => Some(*subject),
            _ => None,
        }
    }

    /// The sockets that its process needs.
    pub fn sockets(&self) -> u32 {
        match self {
            Job::Load(load) => load.connections,
            Job::Clients { clients } => *clients,
            _ => 1,
        }
    }

    /// The memory that its process needs, in bytes, beyond what any process does.
    pub fn memory_bytes(&self) -> u64 {
        /// An entry's share of slab and free stack, and the key that the embedder keeps.
        const ENTRY_BYTES: u64 = 44;
        match self {
            Job::Load(load) => u64::from(load.delegations) * ENTRY_BYTES,
            Job::Churn { entries } => u64::from(*entries) * ENTRY_BYTES + super::micro::CHASE_BYTES,
            Job::Idle { entries } => u64::from(*entries) * ENTRY_BYTES,
            _ => 0,
        }
    }
}
