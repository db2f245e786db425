//! The callback half of an NFSv4 server: a runtime that a file server links to call its clients back over the
//! backchannel (CB_RECALL and its kin) and that never loses count.
//!
//! An embedder [builds](Builder) a [`Runtime`] with its [`Hooks`] and its [`ForeChannel`] handler, hands in connections,
//! registers clients and their sessions as they come, [inserts](Runtime::insert) a callback per delegation, and calls
//! [`Runtime::try_run`] when a delegation is to be recalled. The runtime does the rest: session slots, retransmission,
//! reconnects, timeouts; it completes each accepted run exactly once, and a drain always ends.

/// By the name that the helpers of the integration tests use.
#[cfg(all(test, not(loom)))]
extern crate self as ringback;

#[cfg(all(test, not(loom)))]
#[path = "../tests/common/mod.rs"]
mod common;

#[cfg(not(loom))]
mod builder;
#[cfg_attr(loom, allow(dead_code))] // loom looks at this module alone
mod callback;
#[cfg(all(feature = "checkpoint", not(loom)))]
mod checkpoint;
#[cfg(not(loom))]
mod command;
#[cfg(not(loom))]
mod completion;
#[cfg(not(loom))]
mod cpus;
#[cfg(not(loom))]
mod drain;
#[cfg(not(loom))]
mod entries;
#[cfg(not(loom))]
mod flight;
#[cfg(not(loom))]
mod fore;
#[cfg(not(loom))]
mod group;
mod guard;
#[cfg(not(loom))]
mod hooks;
#[cfg(not(loom))]
mod inspect;
#[cfg(not(loom))]
mod io;
#[cfg(not(loom))]
mod keys;
#[cfg(not(loom))]
mod latency;
#[cfg(not(loom))]
mod log;
#[cfg(not(loom))]
mod moving;
#[cfg(not(loom))]
mod path;
#[cfg(not(loom))]
mod process;
#[cfg(all(feature = "prometheus", not(loom)))]
mod prometheus;
#[cfg(not(loom))]
mod reactor;
#[cfg(not(loom))]
mod reaper;
#[cfg(not(loom))]
mod registry;
#[cfg(not(loom))]
mod runtime;
#[cfg(not(loom))]
mod session;
#[cfg(not(loom))]
mod settings;
#[cfg(all(feature = "simulator", not(loom)))]
pub mod simulator;
#[cfg(not(loom))]
mod stats;
mod sync;
#[cfg(not(loom))]
mod tenant;
#[cfg(not(loom))]
mod threads;
#[cfg(all(feature = "tokio-uring", not(loom)))]
pub mod tokio_uring;
#[cfg(not(loom))]
mod transport;
#[cfg(not(loom))]
mod tuning;
#[cfg(all(feature = "checkpoint", not(loom)))]
mod upgrade;
#[cfg(not(loom))]
mod wait;

pub use callback::{CallbackKey, Cancel, GroupError, GroupSettled, InsertError, Remove, Returned, TryRun};
#[cfg(not(loom))]
pub use {
    builder::{BuildError, Builder},
    completion::{Completion, CompletionQueue, Ending},
    cpus::{BadCpuList, CpuList, Placement},
    drain::{Drain, DrainReport},
    flight::{FlightEntry, FlightRecord, FlightStep},
    fore::{Call, CallToken, ForeChannel},
    group::Group,
    hooks::{Done, Event, Hooks, Outcome, PathFault, PathState, Prepare, Run},
    inspect::{CallbackReport, ClientReport, ReactorReport, SessionReport, Snapshot},
    io::{Backend, BackendError, BackendKind, BackendReport, Missing},
    keys::{ClientId, ConnectionId, SessionKey},
    latency::{Latency, LatencyStage},
    log::{Log, LogLevel, LogMessage},
    path::{CallbackAddress, ConnectPolicy, PathConfig},
    reaper::Budget,
    ringback_rpc::backchannel::{
        AddError, ClientLimits, ClientState, Counters, OutcomeKind, PathFaultKind, ReferringCalls, Requeue, Stage,
    },
    ringback_rpc::nfs4::callback::CallbackOp,
    runtime::{Error, Runtime},
    session::{Security, SessionConfig},
    stats::{Census, MemoryUse, Stats},
    tenant::{TenantId, TenantLimits, TenantReport},
    transport::{Outbound, Transport},
    tuning::Tuning,
    wait::{Ended, Wait, WaitError},
};

#[cfg(all(feature = "checkpoint", not(loom)))]
pub use {
    checkpoint::{Checkpoint, CheckpointError, CheckpointSize, Suspended},
    hooks::Restored,
    upgrade::{Upgrade, UpgradeError, Upgraded},
};

/// The programs in the README and in the book are compiled and run.
#[cfg(all(doctest, not(loom)))]
mod documentation {
    #[doc = include_str!("../../README.md")]
    mod readme {}

    #[doc = include_str!("../../docs/src/embedding-rust.md")]
    mod embedding_rust {}

    #[doc = include_str!("../../docs/src/nfsv4-0.md")]
    mod nfsv4_0 {}
}
