//! Counters, written by each reactor alone and read by anyone.

use crate::io::IoCounters;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What a runtime has counted since it was built, all reactors together.
///
/// # Examples
///
/// ```
/// use ringback::Runtime;
///
/// fn print(runtime: &Runtime) {
///     let stats = runtime.stats();
///     println!("{} in flight, {} answered, {} timed out", stats.in_flight, stats.replied, stats.timed_out);
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Runs taken up by a reactor, runs that were asked for again included.
    pub started: u64,
    /// Runs whose `done` said that they are finished, however they ended.
    pub completed: u64,
    /// Runs released; equals `completed` when nothing is in flight.
    pub released: u64,
    /// Runs answered by the client.
    pub replied: u64,
    /// Runs ended by the run deadline.
    pub timed_out: u64,
    /// Runs ended by a drain or with their client.
    pub cancelled: u64,
    /// Runs put back on their queue.
    pub requeued: u64,
    /// Calls sent again on another connection.
    pub resent: u64,
    /// Calls sent, those sent again on another connection apart.
    pub calls_sent: u64,
    /// Callbacks that these calls carried, one each or a batch. What goes in a further call counts again.
    pub callbacks_sent: u64,
    /// Lone CB_SEQUENCE calls that resynchronise a session slot.
    pub resynchronised: u64,
    /// Replies to nothing that is outstanding.
    pub replies_unknown: u64,
    /// Replies that could not be decoded.
    pub replies_malformed: u64,
    /// Streams that were not a sequence of records; their connections were closed.
    pub records_malformed: u64,
    /// Connections that ended in an error, not in an orderly close by the peer.
    pub connections_failed: u64,
    /// Connections closed because nothing came back on them.
    pub connections_condemned: u64,
    /// Fore-channel calls handed to the embedder.
    pub fore_calls: u64,
    /// Calls of the embedder's code that panicked: see [`Event::Panicked`](crate::Event::Panicked).
    pub embedder_panics: u64,
    /// Delegations: CB_RECALLs that are there, running or not.
    pub delegations: u64,
    /// CB_RECALL_ANY sent because of the [budget](crate::Budget), or for want of memory.
    pub reaper_asked: u64,
    /// Clients that gave up next to nothing then.
    pub reaper_ignored: u64,
    /// Delegations recalled from them.
    pub reaper_recalled: u64,
    /// Times that memory was said to be short.
    pub memory_pressures: u64,
    /// Runs accepted and not completed.
    pub in_flight: u64,
    /// Cross-thread wake-ups of parked reactors.
    pub wakes: u64,
    /// System calls made by the reactors.
    pub syscalls: u64,
    /// Send operations.
    pub sends: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Receive completions.
    pub receives: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

/// Memory that a runtime holds for callbacks, in bytes; buffers and the embedder's own objects apart.
///
/// # Examples
///
/// ```
/// use ringback::{Error, Runtime};
///
/// fn print(runtime: &Runtime) -> Result<(), Error> {
///     println!("{} bytes", runtime.memory()?.total());
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryUse {
    /// Resident pages of the slab of callback entries.
    pub slab: usize,
    /// Resident part of the slab's free stacks and tables.
    pub free_stacks: usize,
    /// The table of clients.
    pub clients: usize,
    /// Session slot tables and the records of calls in flight.
    pub sessions: usize,
    /// The lists of returns that are awaited: 12 bytes for each recall since the oldest one of them.
    pub returns: usize,
    /// What [groups](crate::Group) wait for: 16 bytes for each callback and group, as many as there ever were at once.
    pub groups: usize,
}

impl MemoryUse {
    /// All of it.
    pub fn total(&self) -> usize {
        self.slab + self.free_stacks + self.clients + self.sessions + self.returns + self.groups
    }
}

/// Where the session slots of all backchannels are.
///
/// # Examples
///
/// ```
/// use ringback::{Error, Runtime};
///
/// /// With nothing in flight, every session slot is free, or waits to be resynchronised, or is of no use any more.
/// fn all_are_accounted_for(runtime: &Runtime) -> Result<bool, Error> {
///     let census = runtime.census()?;
///     Ok(census.slots == census.free + census.quarantined + census.retired)
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Sessions' slots, all together.
    pub slots: u64,
    /// Free.
    pub free: u64,
    /// Held by a run.
    pub with_run: u64,
    /// Given up, and not resynchronised with the client yet.
    pub quarantined: u64,
    /// Of no use any more in this session.
    pub retired: u64,
    /// Resident bytes of the slot tables and call records.
    pub bytes: u64,
    /// Resident bytes of the lists of returns that are awaited.
    pub returns_bytes: u64,
}

impl Census {
    pub(crate) fn plus(self, other: &Census) -> Census {
        Census {
            slots: self.slots + other.slots,
            free: self.free + other.free,
            with_run: self.with_run + other.with_run,
            quarantined: self.quarantined + other.quarantined,
            retired: self.retired + other.retired,
            bytes: self.bytes + other.bytes,
            returns_bytes: self.returns_bytes + other.returns_bytes,
        }
    }
}

macro_rules! reactor_stats {
    ($($name:ident),* $(,)?) => {
        /// One reactor's counters.
        #[derive(Debug, Default)]
        pub(crate) struct ReactorStats {
            $(pub $name: AtomicU64,)*
        }

        impl ReactorStats {
            /// Adds this reactor's counters to `total`.
            pub fn add_to(&self, total: &mut Stats) {
                $(total.$name += self.$name.load(Relaxed);)*
            }
        }
    };
}

reactor_stats! {
    started, completed, released, replied, timed_out, cancelled, requeued, resent, callbacks_sent, calls_sent, resynchronised,
    replies_unknown, replies_malformed, records_malformed, connections_condemned, connections_failed, fore_calls, embedder_panics, wakes, syscalls, sends, sent_bytes, receives, received_bytes,
}

/// Adds one to a counter that only the calling reactor writes: no locked instruction is needed.
pub(crate) fn count(counter: &AtomicU64) {
    count_by(counter, 1);
}

/// Adds `n` to a counter that only the calling reactor writes.
pub(crate) fn count_by(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// Sets a word that only the calling reactor writes; most of the time it has that value.
pub(crate) fn set(word: &AtomicU32, value: u32) {
    if word.load(Relaxed) != value {
        word.store(value, Relaxed);
    }
}

impl ReactorStats {
    /// Publishes what the back end counted. Wake-ups are counted where they are caused.
    pub fn publish_io(&self, io: IoCounters) {
        self.syscalls.store(io.syscalls, Relaxed);
        self.sends.store(io.sends, Relaxed);
        self.sent_bytes.store(io.sent_bytes, Relaxed);
        self.receives.store(io.receives, Relaxed);
        self.received_bytes.store(io.received_bytes, Relaxed);
    }
}
