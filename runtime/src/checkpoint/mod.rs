//! Checkpoints: everything that the callback side of a server knows, as a file.
//!
//! [`Runtime::checkpoint`](crate::Runtime::checkpoint) writes one of a runtime that goes on;
//! [`Runtime::suspend`](crate::Runtime::suspend) stops the reactors first, so that nothing happens after it, and the next
//! process goes on from there: [`Builder::restore`](crate::Builder::restore). A file is read by [`Checkpoint`], which
//! believes nothing of it before all of it was validated.
//!
//! - [`mod@format`]: chunks, checksums, versions. [`record`]: what is in them, laid out by rkyv. [`convert`]: to the core's image
//!   and back. [`map`]: the bytes.
//! - [`take`]: writing. [`suspend`]: a runtime that stands still for it; [`undone`]: what it is asked for
//!   meanwhile. [`restore`]: going on. [`view`]: looking at a file as at a runtime.
//! - [`pace`]: how is waited for reactors.

mod convert;
mod format;
mod map;
pub(crate) mod pace;
pub(crate) mod record;
pub(crate) mod restore;
#[cfg(any(test, feature = "simulator"))]
pub(crate) mod sample;
#[cfg(feature = "simulator")]
pub(crate) mod spoil;
pub(crate) mod suspend;
pub(crate) mod take;
mod undone;
mod validate;
mod view;

pub use suspend::Suspended;
pub use take::CheckpointSize;

use map::Bytes;
use record::{PathRecord, SummaryRecord, TenantsRecord};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// Why a checkpoint was not written, read or restored. Nothing has changed.
///
/// # Examples
///
/// ```
/// use ringback::{Checkpoint, CheckpointError};
///
/// assert!(matches!(Checkpoint::from_bytes(b"ringbkcp"), Err(CheckpointError::Truncated)));
/// assert!(matches!(Checkpoint::from_bytes(b"something else"), Err(CheckpointError::NotACheckpoint)));
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not begin as a checkpoint does.
    #[error("this is not a checkpoint of ringback")]
    NotACheckpoint,
    /// Its format is older than what this version reads.
    #[error("the checkpoint has format {found}, and the oldest that this version reads is {oldest}")]
    Older {
        /// Its format.
        found: u32,
        /// The oldest that is read.
        oldest: u32,
    },
    /// Its format is newer than what this version reads.
    #[error("the checkpoint has format {found}, and the newest that this version reads is {newest}")]
    Newer {
        /// Its format.
        found: u32,
        /// The newest that is read.
        newest: u32,
    },
    /// Its end is missing.
    #[error("the checkpoint is truncated: its end is missing")]
    Truncated,
    /// What is in it is not what was written, or contradicts itself.
    #[error("the checkpoint is corrupt, at byte {at}: {what}")]
    Corrupt {
        /// Where.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// One client has more callbacks in flight than a checkpoint can hold of one, some ten million, or the embedder's part
    /// is larger than a gigabyte.
    #[error("a part of the checkpoint would be larger than its format allows")]
    TooLarge,
    /// The new runtime is configured for less than there is.
    #[error("{name} must be at least {needed} for this checkpoint, and is {limit}")]
    TooSmall {
        /// The setting of [`Builder`](crate::Builder).
        name: &'static str,
        /// What is needed.
        needed: u64,
        /// What it is set to.
        limit: u64,
    },
    /// No memory for the callbacks.
    #[error("no memory for the callbacks of the checkpoint")]
    OutOfMemory,
    /// A reactor has ended, or does not answer because a hook does not return.
    #[error("reactor {reactor} has ended, or does not answer")]
    Reactor {
        /// Which.
        reactor: usize,
    },
    /// The runtime is suspended already, is draining, or was called from a hook.
    #[error("the runtime is suspended or draining, or a hook asked for it")]
    Busy,
    /// A runtime was [built](crate::Builder::upgrade_from) of this upgrade before: connections come along once.
    #[error("a runtime was built of this upgrade before")]
    Used,
}

/// A checkpoint that was read and found valid.
///
/// # Examples
///
/// ```
/// use ringback::{BuildError, Builder, Checkpoint, CheckpointError, ForeChannel, Hooks, Runtime};
/// use std::{path::Path, sync::Arc};
///
/// /// Goes on where the last process was suspended.
/// fn go_on(file: &Path, hooks: Arc<dyn Hooks>, fore: Arc<dyn ForeChannel>) -> Result<Runtime, BuildError> {
///     let checkpoint = Checkpoint::open(file)?;
///     Builder::new().restore(&checkpoint).build(hooks, fore)
/// }
/// ```
#[derive(Clone)]
pub struct Checkpoint(Arc<Opened>);

/// What was found in a file.
pub(crate) struct Opened {
    bytes: Bytes,
    pub(crate) summary: SummaryRecord,
    /// Payloads.
    clients: Vec<Range<usize>>,
    /// The first index, and the payload.
    entries: Vec<(u32, Range<usize>)>,
    own: Vec<Range<usize>>,
    pub(crate) tenants: TenantsRecord,
    paths: Vec<PathRecord>,
    /// Payloads of connections, in the order of their sockets.
    lines: Vec<Range<usize>>,
    counts: Counts,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    callbacks: u64,
    running: u64,
}

impl Checkpoint {
    /// Reads a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Checkpoint::of(Bytes::of_file(File::open(path)?)?)
    }

    /// Reads an open file. A file in memory (memfd) that is sealed against writing and shrinking is not read but mapped.
    pub fn from_fd(file: OwnedFd) -> Result<Self, CheckpointError> {
        Checkpoint::of(Bytes::of_file(File::from(file))?)
    }

    /// Reads what is in memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        Checkpoint::of(Bytes::copied(bytes))
    }

    fn of(bytes: Bytes) -> Result<Self, CheckpointError> {
        validate::opened(bytes).map(|opened| Checkpoint(Arc::new(opened)))
    }

    pub(crate) fn opened(&self) -> &Opened {
        &self.0
    }

    /// Whether nothing has happened since it was written: the runtime was [suspended](crate::Runtime::suspend). Of any other
    /// one, session slots are resynchronised with their clients before they are used, and what has ended since runs once
    /// more.
    pub fn is_complete(&self) -> bool {
        self.0.summary.complete
    }

    /// When it was written.
    pub fn taken(&self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0.summary.taken_s)).unwrap_or(UNIX_EPOCH)
    }

    /// Clients that were registered.
    pub fn clients(&self) -> usize {
        self.0.summary.clients.iter().filter(|place| place.live).count()
    }

    /// Connections whose sockets come along.
    pub(crate) fn connections(&self) -> usize {
        self.0.lines.len()
    }

    /// Callbacks that were there.
    pub fn callbacks(&self) -> u64 {
        self.0.counts.callbacks
    }

    /// Those of them that were in flight.
    pub fn in_flight(&self) -> u64 {
        self.0.counts.running
    }

    /// What [`Hooks::checkpoint`](crate::Hooks::checkpoint) has added.
    pub fn own(&self) -> Vec<u8> {
        self.0.own.iter().flat_map(|range| &self.0.bytes[range.clone()]).copied().collect()
    }

    /// Whether it is mapped, and not read.
    pub fn is_mapped(&self) -> bool {
        self.0.bytes.is_mapped()
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("complete", &self.is_complete())
            .field("clients", &self.clients())
            .field("callbacks", &self.callbacks())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
