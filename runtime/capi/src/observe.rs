//! What an operator sees: a client's and a reactor's numbers, and all of them as text.

use crate::client;
use crate::error::{Failure, guard, rb_error};
use crate::numbers::path_state;
use crate::pointer::{self, Versioned, not_null};
use crate::stats::{rb_stats, stats_of};
use crate::{rb_client, rb_runtime};
use runtime::{Census, ClientId, ClientReport, Counters, OutcomeKind, PathState, ReactorReport, Requeue};
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

/// What was counted for one client since it was added, and where its runs and session slots are. All of it belongs together:
/// `started` is `completed`, `queued`, `delayed` and `sent`. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_client_stats {
    /// sizeof(rb_client_stats).
    pub size: usize,
    /// Runs that came in, runs that were asked for again included.
    pub started: u64,
    /// Runs that have ended, however they did.
    pub completed: u64,
    /// Calls sent, those sent again on another connection apart.
    pub calls_sent: u64,
    /// Callbacks that these calls carried, one each or a batch.
    pub callbacks_sent: u64,
    /// Calls whose runs were parted into smaller batches.
    pub splits: u64,
    /// Calls sent again with the same bytes on another connection.
    pub resent: u64,
    /// Lone CB_SEQUENCE calls that resynchronise a session slot.
    pub resynchronised: u64,
    /// Replies that settled a call.
    pub replies: u64,
    /// Replies that came after their call was given up or settled.
    pub replies_late: u64,
    /// Replies to nothing that is outstanding.
    pub replies_unknown: u64,
    /// Replies that could not be decoded.
    pub replies_malformed: u64,
    /// Replies that echoed another session, session slot or sequence id.
    pub wrong_echo: u64,
    /// Runs put back on their queue, for whatever reason.
    pub requeued: u64,
    /// NFS4ERR_DELAY, from CB_SEQUENCE or from the operation.
    pub delays: u64,
    /// NFS4ERR_SEQ_FALSE_RETRY.
    pub false_retries: u64,
    /// NFS4ERR_SEQ_MISORDERED.
    pub misordered: u64,
    /// Calls without a reply within the RPC timeout.
    pub rpc_timeouts: u64,
    /// Connections closed because nothing came back on them.
    pub connections_condemned: u64,
    /// RPC rejections, and compounds without results.
    pub rejected: u64,
    /// Runs that the client answered with NFS4_OK.
    pub ended_ok: u64,
    /// Runs that it answered with another status.
    pub ended_failed: u64,
    /// Runs that the prepare hook refused.
    pub ended_refused: u64,
    /// Runs whose arguments could not be written.
    pub ended_unencodable: u64,
    /// Runs ended by the run deadline after they were sent.
    pub ended_timed_out: u64,
    /// Runs ended by it before.
    pub ended_timed_out_unsent: u64,
    /// Runs ended because there was no callback path for a lease.
    pub ended_path_down: u64,
    /// Runs ended because the client is in courtesy.
    pub ended_courtesy: u64,
    /// Runs cancelled after they were sent.
    pub ended_cancelled: u64,
    /// Runs cancelled before.
    pub ended_cancelled_unsent: u64,
    /// Runs that the client took, and whose answer is lost.
    pub ended_delivered_unknown: u64,
    /// Runs that ended because the client refuses what its backchannel sends.
    pub ended_fault: u64,
    /// Runs put back: the done hook asked for it.
    pub requeued_asked: u64,
    /// Runs put back: NFS4ERR_DELAY.
    pub requeued_delay: u64,
    /// Runs put back: the session is gone.
    pub requeued_session_lost: u64,
    /// Runs put back: the connection is not bound to the session.
    pub requeued_not_bound: u64,
    /// Runs put back: the session slot is lost.
    pub requeued_slot_lost: u64,
    /// Runs put back: a reply that cannot be trusted.
    pub requeued_bad_reply: u64,
    /// Runs put back: executed, and the result is lost.
    pub requeued_uncached_reply: u64,
    /// Runs put back: NFS4ERR_SEQ_FALSE_RETRY.
    pub requeued_false_retry: u64,
    /// Runs put back: its parameters were refused.
    pub requeued_refused: u64,
    /// Runs put back: the buffer had no room.
    pub requeued_no_space: u64,
    /// Runs put back: an operation before it in its batch failed.
    pub requeued_not_reached: u64,
    /// Runs put back: its batch was too large.
    pub requeued_batch_split: u64,
    /// Runs put back: its batch could not be sent again.
    pub requeued_batch_torn: u64,
    /// Runs accepted and not completed.
    pub in_flight: u64,
    /// Those that wait for their turn, for a session slot or for a callback path.
    pub queued: u64,
    /// Those that wait for a delay to pass.
    pub delayed: u64,
    /// Those in calls that are not settled.
    pub sent: u64,
    /// Those queued or delayed while there is no session to send them on.
    pub parked: u64,
    /// Age of the oldest.
    pub oldest_ns: u64,
    /// Session slots.
    pub slots: u64,
    /// Free ones.
    pub slots_free: u64,
    /// Ones with a run, or a batch of them.
    pub slots_with_run: u64,
    /// Ones that were given up, and not resynchronised yet.
    pub slots_quarantined: u64,
    /// Ones of no use any more in their session.
    pub slots_retired: u64,
    /// The state of the callback path, an rb_path_state.
    pub path: i32,
    /// The reactor that is its home.
    pub reactor: u32,
    /// CB_NULL calls, which look whether a path of minor version 0 works.
    pub probes: u64,
    /// Connections of such a path that could not be made, or on which nothing was answered.
    pub connects_failed: u64,
    /// Its tenant; 0: none.
    pub tenant: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_client_stats {
    const NAME: &'static str = "rb_client_stats";
}

impl rb_client_stats {
    pub fn of(size: usize, report: &ClientReport) -> Self {
        rb_client_stats {
            in_flight: report.in_flight,
            oldest_ns: report.oldest_ns(),
            path: path_state(report.path),
            reactor: report.home as u32,
            tenant: report.tenant.to_bits().into(),
            ..rb_client_stats::counted(size, &report.counters, &report.census)
        }
    }

    /// All clients of a reactor.
    pub fn of_reactor(size: usize, report: &ReactorReport) -> Self {
        rb_client_stats {
            in_flight: report.stats.in_flight,
            reactor: report.reactor as u32,
            ..rb_client_stats::counted(size, &report.counters, &report.census)
        }
    }

    fn counted(size: usize, counters: &Counters, census: &Census) -> Self {
        let (ended, requeued) = (|kind| counters.ended(kind), |why| counters.requeued_for(why));
        rb_client_stats {
            size,
            started: counters.started,
            completed: counters.completed,
            calls_sent: counters.calls_sent,
            callbacks_sent: counters.callbacks_sent,
            splits: counters.splits,
            resent: counters.resent,
            resynchronised: counters.resynchronised,
            replies: counters.replies,
            replies_late: counters.replies_late,
            replies_unknown: counters.replies_unknown,
            replies_malformed: counters.replies_malformed,
            wrong_echo: counters.wrong_echo,
            requeued: counters.requeued,
            delays: counters.delays,
            false_retries: counters.false_retries,
            misordered: counters.misordered,
            rpc_timeouts: counters.rpc_timeouts,
            connections_condemned: counters.connections_condemned,
            rejected: counters.rejected,
            probes: counters.probes,
            connects_failed: counters.connects_failed,
            ended_ok: ended(OutcomeKind::Ok),
            ended_failed: ended(OutcomeKind::Failed),
            ended_refused: ended(OutcomeKind::Refused),
            ended_unencodable: ended(OutcomeKind::Unencodable),
            ended_timed_out: ended(OutcomeKind::TimedOut),
            ended_timed_out_unsent: ended(OutcomeKind::TimedOutUnsent),
            ended_path_down: ended(OutcomeKind::PathDown),
            ended_courtesy: ended(OutcomeKind::Courtesy),
            ended_cancelled: ended(OutcomeKind::Cancelled),
            ended_cancelled_unsent: ended(OutcomeKind::CancelledUnsent),
            ended_delivered_unknown: ended(OutcomeKind::DeliveredUnknown),
            ended_fault: ended(OutcomeKind::Fault),
            requeued_asked: requeued(Requeue::Asked),
            requeued_delay: requeued(Requeue::Delay),
            requeued_session_lost: requeued(Requeue::SessionLost),
            requeued_not_bound: requeued(Requeue::NotBound),
            requeued_slot_lost: requeued(Requeue::SlotLost),
            requeued_bad_reply: requeued(Requeue::BadReply),
            requeued_uncached_reply: requeued(Requeue::UncachedReply),
            requeued_false_retry: requeued(Requeue::FalseRetry),
            requeued_refused: requeued(Requeue::Refused),
            requeued_no_space: requeued(Requeue::NoSpace),
            requeued_not_reached: requeued(Requeue::NotReached),
            requeued_batch_split: requeued(Requeue::BatchSplit),
            requeued_batch_torn: requeued(Requeue::BatchTorn),
            in_flight: 0,
            queued: census.queued,
            delayed: census.delayed,
            sent: census.sent,
            parked: census.parked,
            oldest_ns: 0,
            slots: census.slots,
            slots_free: census.free,
            slots_with_run: census.with_run,
            slots_quarantined: census.quarantined,
            slots_retired: census.retired,
            path: path_state(PathState::Unknown),
            reactor: 0,
            tenant: 0,
            reserved: 0,
        }
    }
}

/// What was counted for one client. Asks its reactor and waits for the answer: not to be done often, and not from a hook.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_get_client_stats(
    runtime: Option<&rb_runtime>,
    client: rb_client,
    stats: *mut rb_client_stats,
) -> c_int {
    guard("rb_get_client_stats", client::about(client), || {
        let runtime = not_null(runtime, "runtime")?;
        let fill = |old: rb_client_stats| {
            let report = runtime.runtime.inspect_client(ClientId::from_bits(client), 1)?;
            Ok(rb_client_stats::of(old.size, &report))
        };
        // SAFETY: P3
        unsafe { pointer::fill(stats, "stats", fill) }?;
        Ok(0)
    })
}

/// What one reactor has counted. Cheap, from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_get_reactor_stats(
    runtime: Option<&rb_runtime>,
    reactor: u32,
    stats: *mut rb_stats,
) -> c_int {
    guard(
        "rb_get_reactor_stats",
        || format!("reactor {reactor}"),
        || {
            let runtime = not_null(runtime, "runtime")?;
            let fill = |old: rb_stats| {
                let now = runtime.runtime.reactor_stats(reactor as usize);
                let now =
                    now.ok_or_else(|| Failure::new(rb_error::RB_ERR_INVALID, "no such reactor: see rb_reactors()"))?;
                Ok(stats_of(old.size, &now))
            };
            // SAFETY: P3
            unsafe { pointer::fill(stats, "stats", fill) }?;
            Ok(0)
        },
    )
}

/// Where a reactor runs. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_placement {
    /// sizeof(rb_placement).
    pub size: usize,
    /// The CPU that it is pinned to, as rb_options.cpus has asked for; -1: none.
    pub cpu: i32,
    /// The node of that CPU, where there is more than one; -1 else.
    pub node: i32,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_placement {
    const NAME: &'static str = "rb_placement";
}

/// Where a reactor runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_get_placement(
    runtime: Option<&rb_runtime>,
    reactor: u32,
    placement: *mut rb_placement,
) -> c_int {
    guard(
        "rb_get_placement",
        || format!("reactor {reactor}"),
        || {
            let found = not_null(runtime, "runtime")?.runtime.placement().get(reactor as usize);
            let found = found.ok_or_else(|| Failure::new(rb_error::RB_ERR_INVALID, "no such reactor"))?;
            let number = |place: Option<usize>| place.map_or(-1, |place| place as i32);
            let fill = |old: rb_placement| Ok(rb_placement { cpu: number(found.cpu), node: number(found.node), ..old });
            // SAFETY: P3
            unsafe { pointer::fill(placement, "placement", fill) }?;
            Ok(0)
        },
    )
}

/// All numbers of all reactors, and of the `clients_max` clients that are most in trouble, in Prometheus' text format (version
/// 0.0.4, text/plain; version=0.0.4), with a zero at the end. `needed`, which may be null, is told how many bytes that takes;
/// with fewer at `text` (none: null and 0) the answer is RB_ERR_NO_SPACE, and nothing is written. It may be longer the next
/// time. Asks the reactors and waits for the answers: not to be done often, and not from a hook.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_metrics_text(
    runtime: Option<&rb_runtime>,
    clients_max: u32,
    text: *mut c_char,
    text_bytes: usize,
    needed: Option<&mut MaybeUninit<usize>>,
) -> c_int {
    guard("rb_metrics_text", String::new, || {
        let runtime = not_null(runtime, "runtime")?;
        let snapshot = runtime.runtime.snapshot(1)?;
        let metrics = snapshot.to_prometheus(clients_max as usize, client::name);
        // SAFETY: P2
        unsafe { put(metrics, text, text_bytes, needed) }
    })
}

/// What happened last on each reactor, step by step, as lines of JSON with a zero at the end, for a file that `ringback flight
/// FILE` tells in words. Only of a runtime made with `flight_records`. Waits for nobody: also for when a drain does not end, and
/// from hooks. `text` and `needed` as for rb_metrics_text().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_flight_text(
    runtime: Option<&rb_runtime>,
    text: *mut c_char,
    text_bytes: usize,
    needed: Option<&mut MaybeUninit<usize>>,
) -> c_int {
    guard("rb_flight_text", String::new, || {
        let lines = not_null(runtime, "runtime")?.runtime.flight_record().to_json_lines();
        // SAFETY: P2
        unsafe { put(lines, text, text_bytes, needed) }
    })
}

/// Writes a text and a zero, if there is room for all of it.
///
/// # Safety
///
/// P2.
pub unsafe fn put(
    mut from: String,
    text: *mut c_char,
    text_bytes: usize,
    needed: Option<&mut MaybeUninit<usize>>,
) -> Result<c_int, Failure> {
    from.push('\0');
    let _ = needed.map(|needed| needed.write(from.len()));
    // SAFETY: P2
    unsafe { pointer::put(from.as_bytes(), text.cast(), text_bytes, "text") }?;
    Ok(0)
}
