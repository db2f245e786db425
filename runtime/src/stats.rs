//! Counters, written by each reactor alone and read by anyone.

use crate::completion::Ending;
use crate::hooks::Outcome;
use crate::io::IoCounters;
use ringback_rpc::backchannel::Handled;
use ringback_rpc::nfs4::Status;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

ringback_rpc::counters! {
    /// What a runtime, or one reactor of it, has counted since it was built.
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
    pub struct Stats {
        /// Runs taken up by a reactor, runs that were asked for again included.
        started,
        /// Runs whose `done` said that they are finished, however they ended.
        completed,
        /// Runs released; equals `completed` when nothing is in flight.
        released,
        /// Runs answered by the client.
        replied,
        /// Runs ended by the run deadline.
        timed_out,
        /// Runs ended by a drain or with their client.
        cancelled,
        /// Runs put back on their queue, for whatever reason.
        requeued,
        /// Calls sent again with the same bytes on another connection.
        resent,
        /// Calls sent, those sent again on another connection apart.
        calls_sent,
        /// Callbacks that these calls carried, one each or a batch. What goes in a further call counts again.
        callbacks_sent,
        /// Lone CB_SEQUENCE calls that resynchronise a session slot.
        resynchronised,
        /// Replies to nothing that is outstanding. Dropped.
        replies_unknown,
        /// Replies that could not be decoded.
        replies_malformed,
        /// Streams that were not a sequence of records; their connections were closed.
        records_malformed,
        /// Connections that ended in an error, not in an orderly close by the peer.
        connections_failed,
        /// Connections closed because nothing came back on them.
        connections_condemned,
        /// Connections to clients of minor version 0 that were begun.
        connects,
        /// Those that were not made in time, and sockets that the embedder was asked for and did not supply.
        connects_failed,
        /// Fore-channel calls handed to the embedder.
        fore_calls,
        /// Calls of the embedder's code that panicked.
        embedder_panics,
        /// Clients that came from another reactor.
        clients_moved,
        /// Delegations: CB_RECALLs that are there, running or not. Of the runtime, as the next four.
        delegations,
        /// CB_RECALL_ANY sent because of the budget, or for want of memory.
        reaper_asked,
        /// Clients that gave up next to nothing then.
        reaper_ignored,
        /// Delegations recalled from them.
        reaper_recalled,
        /// Times that memory was said to be short.
        memory_pressures,
        /// Runs accepted and not completed. This and the delegations may fall.
        in_flight,
        /// Cross-thread wake-ups of parked reactors.
        wakes,
        /// System calls made by the reactors.
        syscalls,
        /// Send operations.
        sends,
        /// Bytes sent.
        sent_bytes,
        /// Receive completions.
        receives,
        /// Bytes received.
        received_bytes,
    }
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Stats) {
        self.add_fields(other);
    }
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

/// Where the runs and the session slots of backchannels are.
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
    /// Runs that wait for their turn, for a session slot or for a callback path.
    pub queued: u64,
    /// Runs that were put back and wait for a delay to pass.
    pub delayed: u64,
    /// Runs in calls that are not settled.
    pub sent: u64,
    /// Those of the queued and the delayed whose client has no session to send them on.
    pub parked: u64,
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
            queued: self.queued + other.queued,
            delayed: self.delayed + other.delayed,
            sent: self.sent + other.sent,
            parked: self.parked + other.parked,
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
            pub endings: EndingCounts,
        }

        impl ReactorStats {
            /// Adds to a counter, in the order of a restoration: before the reactor counts.
            #[cfg(feature = "checkpoint")]
            pub fn add_by_name(&self, name: &str, n: u64) {
                match name {
                    $(stringify!($name) => count_by(&self.$name, n),)*
                    _ => {}
                }
            }

            /// What has been counted so far. What is in flight the clients know.
            pub fn read(&self) -> Stats {
                let mut stats = Stats { $($name: self.$name.load(Relaxed),)* ..Stats::default() };
                for (ending, count) in self.endings.each() {
                    stats.completed += count;
                    match ending {
                        Ending::Replied(_) => stats.replied += count,
                        Ending::TimedOut { .. } => stats.timed_out += count,
                        Ending::Cancelled { .. } => stats.cancelled += count,
                        _ => {}
                    }
                }
                stats
            }
        }
    };
}

reactor_stats! {
    started, released, requeued, resent, callbacks_sent, calls_sent, resynchronised, replies_unknown, replies_malformed,
    records_malformed, connections_condemned, connections_failed, connects, connects_failed, fore_calls, embedder_panics, clients_moved, wakes, syscalls, sends, sent_bytes, receives, received_bytes,
}

/// How often each ending came, by its code.
#[derive(Debug)]
pub(crate) struct EndingCounts([AtomicU64; Ending::CODES]);

impl Default for EndingCounts {
    fn default() -> Self {
        EndingCounts(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl EndingCounts {
    /// Counts how a run ended, and gives the code of that.
    #[inline(always)]
    pub fn count(&self, outcome: &Outcome<'_>) -> u8 {
        let code = match outcome {
            // What nearly all of them are; its code is the first.
            Outcome::Replied { status: Status::NFS4_OK, .. } => 0,
            other => Ending::from(other).to_code(),
        };
        count(&self.0[usize::from(code)]);
        code
    }

    /// Adds to an ending that bears this name.
    #[cfg(feature = "checkpoint")]
    pub fn add_by_name(&self, name: &str, n: u64) {
        let code = (0..Ending::CODES).find(|code| Ending::from_code(*code as u8).name() == name);
        if let Some(code) = code {
            count_by(&self.0[code], n);
        }
    }

    /// Those that have come.
    pub fn each(&self) -> impl Iterator<Item = (Ending, u64)> {
        let counts = self.0.iter().map(|count| count.load(Relaxed)).enumerate();
        counts.filter(|(_, count)| *count > 0).map(|(code, count)| (Ending::from_code(code as u8), count))
    }
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
    /// Counts a reply that was none.
    #[inline]
    pub fn count_reply(&self, handled: Handled) {
        match handled {
            Handled::UnknownXid => count(&self.replies_unknown),
            Handled::Malformed(_) => count(&self.replies_malformed),
            _ => {}
        }
    }

    /// Publishes what the back end counted. Wake-ups are counted where they are caused.
    pub fn publish_io(&self, io: IoCounters) {
        self.syscalls.store(io.syscalls, Relaxed);
        self.sends.store(io.sends, Relaxed);
        self.sent_bytes.store(io.sent_bytes, Relaxed);
        self.receives.store(io.receives, Relaxed);
        self.received_bytes.store(io.received_bytes, Relaxed);
    }
}
