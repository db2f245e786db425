//! What a runtime has counted, and where its memory and its session slots are.

use crate::error::guard;
use crate::pointer::{self, Versioned, not_null};
use crate::rb_runtime;
use runtime::Stats;
use std::ffi::c_int;

/// What a runtime has counted since it was made, all reactors together. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_stats {
    /// sizeof(rb_stats).
    pub size: usize,
    /// Runs taken up by a reactor, runs that were asked for again included.
    pub started: u64,
    /// Runs whose the done hook said that they are finished, however they ended.
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
    /// Calls of the embedder's code that panicked: see RB_EVENT_PANICKED.
    pub embedder_panics: u64,
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
    /// Callbacks of RB_CB_RECALL that are there, running or not.
    pub delegations: u64,
    /// CB_RECALL_ANY sent because of rb_set_budget(), or for want of memory.
    pub reaper_asked: u64,
    /// Clients that gave up next to nothing then.
    pub reaper_ignored: u64,
    /// Delegations recalled from them.
    pub reaper_recalled: u64,
    /// Times that memory was said to be short.
    pub memory_pressures: u64,
    /// Connections to clients of minor version 0 that were begun.
    pub connects: u64,
    /// Those that were not made in time, and those that were asked for by RB_EVENT_CONNECTION_WANTED in vain.
    pub connects_failed: u64,
    /// Clients that came from another reactor.
    pub clients_moved: u64,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_stats {
    const NAME: &'static str = "rb_stats";
}

/// Where the runs and the session slots of all backchannels are. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_census {
    /// sizeof(rb_census).
    pub size: usize,
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

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_census {
    const NAME: &'static str = "rb_census";
}

/// Memory that a runtime holds for callbacks, in bytes; buffers and the embedder's own objects apart. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_memory {
    /// sizeof(rb_memory).
    pub size: usize,
    /// Resident pages of the slab of callback entries.
    pub slab: u64,
    /// Resident part of the slab's free stacks and tables.
    pub free_stacks: u64,
    /// The table of clients.
    pub clients: u64,
    /// Session slot tables and the records of calls in flight.
    pub sessions: u64,
    /// The lists of returns that are awaited: 12 bytes for each recall since the oldest one of them.
    pub returns: u64,
    /// What groups (rb_run_many()) wait for: 16 bytes for each callback and group, as many as there ever were at once.
    pub groups: u64,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_memory {
    const NAME: &'static str = "rb_memory";
}

/// The numbers as C has them.
pub fn stats_of(size: usize, now: &Stats) -> rb_stats {
    rb_stats {
        size,
        started: now.started,
        completed: now.completed,
        released: now.released,
        replied: now.replied,
        timed_out: now.timed_out,
        cancelled: now.cancelled,
        requeued: now.requeued,
        resent: now.resent,
        calls_sent: now.calls_sent,
        callbacks_sent: now.callbacks_sent,
        resynchronised: now.resynchronised,
        replies_unknown: now.replies_unknown,
        replies_malformed: now.replies_malformed,
        records_malformed: now.records_malformed,
        connections_failed: now.connections_failed,
        connections_condemned: now.connections_condemned,
        fore_calls: now.fore_calls,
        embedder_panics: now.embedder_panics,
        in_flight: now.in_flight,
        wakes: now.wakes,
        syscalls: now.syscalls,
        sends: now.sends,
        sent_bytes: now.sent_bytes,
        receives: now.receives,
        received_bytes: now.received_bytes,
        delegations: now.delegations,
        reaper_asked: now.reaper_asked,
        reaper_ignored: now.reaper_ignored,
        reaper_recalled: now.reaper_recalled,
        memory_pressures: now.memory_pressures,
        connects: now.connects,
        connects_failed: now.connects_failed,
        clients_moved: now.clients_moved,
    }
}

/// What has been counted so far. Cheap, from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_get_stats(runtime: Option<&rb_runtime>, stats: *mut rb_stats) -> c_int {
    guard("rb_get_stats", String::new, || {
        let runtime = not_null(runtime, "runtime")?;
        let fill = |old: rb_stats| {
            let now = runtime.runtime.stats();
            Ok(stats_of(old.size, &now))
        };
        // SAFETY: P3
        unsafe { pointer::fill(stats, "stats", fill) }?;
        Ok(0)
    })
}

/// Counts session slots. Walks them on their reactors and waits for the answers: not to be done often, and not from a hook.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_get_census(runtime: Option<&rb_runtime>, census: *mut rb_census) -> c_int {
    guard("rb_get_census", String::new, || {
        let runtime = not_null(runtime, "runtime")?;
        let fill = |old: rb_census| {
            let now = runtime.runtime.census()?;
            Ok(rb_census {
                size: old.size,
                queued: now.queued,
                delayed: now.delayed,
                sent: now.sent,
                parked: now.parked,
                slots: now.slots,
                free: now.free,
                with_run: now.with_run,
                quarantined: now.quarantined,
                retired: now.retired,
                bytes: now.bytes,
                returns_bytes: now.returns_bytes,
            })
        };
        // SAFETY: P3
        unsafe { pointer::fill(census, "census", fill) }?;
        Ok(0)
    })
}

/// Memory held for callbacks. Walks tables and waits for the reactors, as rb_get_census() does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_get_memory(runtime: Option<&rb_runtime>, memory: *mut rb_memory) -> c_int {
    guard("rb_get_memory", String::new, || {
        let runtime = not_null(runtime, "runtime")?;
        let fill = |old: rb_memory| {
            let now = runtime.runtime.memory()?;
            Ok(rb_memory {
                size: old.size,
                slab: now.slab as u64,
                free_stacks: now.free_stacks as u64,
                clients: now.clients as u64,
                sessions: now.sessions as u64,
                returns: now.returns as u64,
                groups: now.groups as u64,
            })
        };
        // SAFETY: P3
        unsafe { pointer::fill(memory, "memory", fill) }?;
        Ok(0)
    })
}
