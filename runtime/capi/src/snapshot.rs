//! A look at a runtime, or at a checkpoint, as a whole: reactors, clients, sessions, what is in flight, how long it took.

use crate::checkpoint::rb_checkpoint;
use crate::client;
use crate::error::{Failure, guard, rb_error};
use crate::numbers::{self, rb_outcome};
use crate::observe::{put, rb_client_stats};
use crate::pointer::{self, Versioned, give, not_null};
use crate::stats::{rb_stats, stats_of};
use crate::{rb_client, rb_key, rb_runtime, rb_session};
use runtime::{CallbackReport, ClientReport, Latency, LatencyStage, SessionReport, Snapshot, Stage};
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::time::Duration;

/// Where a callback in flight is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_stage {
    /// It waits for its turn, for a session slot or for a callback path.
    RB_STAGE_QUEUED = 0,
    /// It was put back and waits for a delay to pass.
    RB_STAGE_DELAYED = 1,
    /// It is on the wire.
    RB_STAGE_SENT = 2,
    /// It is on the wire of a connection that is up, for longer than the RPC timeout.
    RB_STAGE_UNANSWERED = 3,
    /// It keeps its session slot and is to be sent again.
    RB_STAGE_RESENDING = 4,
}

fn stage(stage: Stage) -> i32 {
    use rb_stage::*;
    (match stage {
        Stage::Delayed => RB_STAGE_DELAYED,
        Stage::Sent => RB_STAGE_SENT,
        Stage::Unanswered => RB_STAGE_UNANSWERED,
        Stage::Resending => RB_STAGE_RESENDING,
        _ => RB_STAGE_QUEUED,
    }) as i32
}

/// Which part of a callback's life was measured.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_latency_stage {
    /// From the accepted rb_try_run() until the home reactor has handed the run to its client.
    RB_LATENCY_QUEUED = 0,
    /// From the accepted rb_try_run() until it was prepared to be sent.
    RB_LATENCY_UNSENT = 1,
    /// From the last transmission of a call until its reply.
    RB_LATENCY_WIRE = 2,
    /// From the accepted rb_try_run() until the end.
    RB_LATENCY_DONE = 3,
}

/// Which callbacks were measured.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_class {
    /// Somebody waits for the answer: CB_GETATTR.
    RB_CLASS_WAITED = 0,
    /// Recalls: CB_RECALL, CB_LAYOUTRECALL, CB_NOTIFY_LOCK.
    RB_CLASS_RECALL = 1,
    /// Everything else.
    RB_CLASS_BACKGROUND = 2,
}

/// A session's backchannel. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_session_report {
    /// sizeof(rb_session_report).
    pub size: usize,
    /// The session.
    pub session: rb_session,
    /// Connections that carry it.
    pub connections: u32,
    /// Its session slots.
    pub slots: u32,
    /// Those with a call that is not settled.
    pub slots_in_use: u32,
    /// Those of them whose callbacks were given up and whose sequence id is not known yet.
    pub slots_quarantined: u32,
    /// Those that cannot be used any more.
    pub slots_retired: u32,
    /// What is wrong with it, an rb_fault; 0: nothing.
    pub fault: i32,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_session_report {
    const NAME: &'static str = "rb_session_report";
}

impl rb_session_report {
    fn of(size: usize, report: &SessionReport) -> Self {
        rb_session_report {
            size,
            session: report.session.into(),
            connections: report.connections,
            slots: report.slots,
            slots_in_use: report.slots_in_use,
            slots_quarantined: report.slots_quarantined,
            slots_retired: report.slots_retired,
            fault: report.fault.map_or(0, |fault| numbers::fault(fault.kind())),
        }
    }
}

/// A callback in flight. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_callback_report {
    /// sizeof(rb_callback_report).
    pub size: usize,
    /// The callback.
    pub key: rb_key,
    /// Its cookie.
    pub cookie: u64,
    /// Nanoseconds since it was accepted.
    pub age_ns: u64,
    /// The session that it is sent on; `serial` is 0 if it occupies no session slot.
    pub session: rb_session,
    /// The session slot that it occupies there.
    pub slot: u32,
    /// An rb_op.
    pub op: i32,
    /// An rb_stage.
    pub stage: i32,
    /// 1: it was sent at least once.
    pub sent: i32,
    /// 1: the runtime sends it on its own account, and the cookie is not the embedder's.
    pub by_runtime: i32,
    /// 0.
    pub reserved: i32,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_callback_report {
    const NAME: &'static str = "rb_callback_report";
}

impl rb_callback_report {
    fn of(size: usize, report: &CallbackReport) -> Self {
        rb_callback_report {
            size,
            key: report.key.to_bits(),
            cookie: report.cookie,
            age_ns: report.age_ns,
            session: report.at.map_or_else(rb_session::default, |(session, _)| session.into()),
            slot: report.at.map_or(0, |(_, slot)| slot),
            op: report.op as i32,
            stage: stage(report.stage),
            sent: report.sent.into(),
            by_runtime: report.by_runtime.into(),
            reserved: 0,
        }
    }
}

/// How long the callbacks of one class took, in one stage. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_latency {
    /// sizeof(rb_latency).
    pub size: usize,
    /// An rb_class.
    pub class_: i32,
    /// An rb_latency_stage.
    pub stage: i32,
    /// How many callbacks.
    pub count: u64,
    /// All of them together.
    pub sum_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_latency {
    const NAME: &'static str = "rb_latency";
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl rb_latency {
    fn of(size: usize, latency: &Latency) -> Self {
        let stage = match latency.stage() {
            LatencyStage::Queued => rb_latency_stage::RB_LATENCY_QUEUED,
            LatencyStage::Unsent => rb_latency_stage::RB_LATENCY_UNSENT,
            LatencyStage::Wire => rb_latency_stage::RB_LATENCY_WIRE,
            _ => rb_latency_stage::RB_LATENCY_DONE,
        };
        let class = match latency.class() {
            "waited" => rb_class::RB_CLASS_WAITED,
            "recall" => rb_class::RB_CLASS_RECALL,
            _ => rb_class::RB_CLASS_BACKGROUND,
        };
        rb_latency {
            size,
            class_: class as i32,
            stage: stage as i32,
            count: latency.count(),
            sum_ns: nanos(latency.sum()),
            max_ns: nanos(latency.max()),
        }
    }
}

/// A look at everything at one moment: given up by rb_snapshot_free(). What it tells is numbered from 0; functions that are given
/// a number answer 1 if there is such a one, and 0 behind the last one.
pub struct rb_snapshot {
    snapshot: Snapshot,
    latencies: Vec<Latency>,
}

impl rb_snapshot {
    fn new(mut snapshot: Snapshot) -> Self {
        snapshot.clients.sort_by(ClientReport::by_trouble);
        let latencies = snapshot.latencies();
        rb_snapshot { snapshot, latencies }
    }

    fn client(&self, number: u32) -> Option<&ClientReport> {
        self.snapshot.clients.get(number as usize)
    }
}

/// Fills a struct of the caller with what there is, if there is something: 1, or 0.
///
/// # Safety
///
/// P3.
unsafe fn show<T: Versioned, R>(
    found: Option<&R>,
    to: *mut T,
    what: &str,
    fill: impl FnOnce(T, &R) -> T,
) -> Result<c_int, Failure> {
    let Some(found) = found else {
        // SAFETY: P3: what is wrong with it is told at the end as well.
        return unsafe { pointer::read(to.cast_const(), what) }.map(|_| 0);
    };
    // SAFETY: P3
    unsafe { pointer::fill(to, what, |old| Ok(fill(old, found))) }?;
    Ok(1)
}

/// Looks at all reactors and clients, and at the `callbacks_max` oldest callbacks in flight of each client. Asks the reactors
/// and waits for the answers: not to be done often, and not from a hook.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_new(
    runtime: Option<&rb_runtime>,
    callbacks_max: u32,
    snapshot: Option<&mut MaybeUninit<*mut rb_snapshot>>,
) -> c_int {
    guard("rb_snapshot_new", String::new, || {
        let snapshot = not_null(snapshot, "snapshot")?;
        snapshot.write(std::ptr::null_mut());
        let found = not_null(runtime, "runtime")?.runtime.snapshot(callbacks_max as usize)?;
        give(snapshot, rb_snapshot::new(found));
        Ok(0)
    })
}

/// What rb_snapshot_new() would have told when the checkpoint was written. Takes as much memory as the callbacks take.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_checkpoint_snapshot(
    checkpoint: Option<&rb_checkpoint>,
    callbacks_max: u32,
    snapshot: Option<&mut MaybeUninit<*mut rb_snapshot>>,
) -> c_int {
    guard("rb_checkpoint_snapshot", String::new, || {
        let snapshot = not_null(snapshot, "snapshot")?;
        snapshot.write(std::ptr::null_mut());
        let found = not_null(checkpoint, "checkpoint")?.0.snapshot(callbacks_max as usize)?;
        give(snapshot, rb_snapshot::new(found));
        Ok(0)
    })
}

/// What all reactors have counted, and what belongs to none of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_totals(snapshot: Option<&rb_snapshot>, stats: *mut rb_stats) -> c_int {
    guard("rb_snapshot_totals", String::new, || {
        let totals = &not_null(snapshot, "snapshot")?.snapshot.totals;
        // SAFETY: P3
        unsafe { pointer::fill(stats, "stats", |old: rb_stats| Ok(stats_of(old.size, totals))) }?;
        Ok(0)
    })
}

/// A reactor that has not ended: what it has counted, and in `clients`, which may be null, what the backchannels of its clients
/// have, those of clients that are gone included, and where their runs and session slots are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_reactor(
    snapshot: Option<&rb_snapshot>,
    number: u32,
    stats: *mut rb_stats,
    clients: *mut rb_client_stats,
) -> c_int {
    guard("rb_snapshot_reactor", String::new, || {
        let report = not_null(snapshot, "snapshot")?.snapshot.reactors.get(number as usize);
        if !clients.is_null() {
            // SAFETY: P3
            unsafe { show(report, clients, "clients", |old, report| rb_client_stats::of_reactor(old.size, report)) }?;
        }
        // SAFETY: P3
        unsafe { show(report, stats, "stats", |old: rb_stats, report| stats_of(old.size, &report.stats)) }
    })
}

/// How runs of a reactor have ended, and how often they have ended like that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_ending(
    snapshot: Option<&rb_snapshot>,
    reactor_number: u32,
    number: u32,
    ending: Option<&mut MaybeUninit<rb_outcome>>,
    count: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    guard("rb_snapshot_ending", String::new, || {
        let (ending, count) = (not_null(ending, "ending")?, not_null(count, "count")?);
        let report = not_null(snapshot, "snapshot")?.snapshot.reactors.get(reactor_number as usize);
        let found = report.and_then(|report| report.endings.get(number as usize));
        ending.write(found.map_or_else(rb_outcome::default, |(ending, _)| (*ending).into()));
        count.write(found.map_or(0, |(_, count)| *count));
        Ok(found.is_some().into())
    })
}

/// A client, the one that is most in trouble first: whose oldest callback is the oldest, who has more parked, more in flight.
/// `stats` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_client(
    snapshot: Option<&rb_snapshot>,
    number: u32,
    client: Option<&mut MaybeUninit<rb_client>>,
    stats: *mut rb_client_stats,
) -> c_int {
    guard("rb_snapshot_client", String::new, || {
        let client = not_null(client, "client")?;
        let report = not_null(snapshot, "snapshot")?.client(number);
        client.write(report.map_or(0, |report| report.client.to_bits()));
        if !stats.is_null() {
            // SAFETY: P3
            unsafe { show(report, stats, "stats", |old, report| rb_client_stats::of(old.size, report)) }?;
        }
        Ok(report.is_some().into())
    })
}

/// A session of a client that has a backchannel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_session(
    snapshot: Option<&rb_snapshot>,
    client_number: u32,
    number: u32,
    report: *mut rb_session_report,
) -> c_int {
    guard("rb_snapshot_session", String::new, || {
        let client = not_null(snapshot, "snapshot")?.client(client_number);
        let found = client.and_then(|client| client.sessions.get(number as usize));
        // SAFETY: P3
        unsafe { show(found, report, "report", |old, found| rb_session_report::of(old.size, found)) }
    })
}

/// A callback of a client that is in flight, the oldest first: what a client is stuck with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_callback(
    snapshot: Option<&rb_snapshot>,
    client_number: u32,
    number: u32,
    report: *mut rb_callback_report,
) -> c_int {
    guard("rb_snapshot_callback", String::new, || {
        let client = not_null(snapshot, "snapshot")?.client(client_number);
        let found = client.and_then(|client| client.callbacks.get(number as usize));
        // SAFETY: P3
        unsafe { show(found, report, "report", |old, found| rb_callback_report::of(old.size, found)) }
    })
}

/// How long callbacks of a class took in a stage, all reactors together. There are none, unless rb_options.latency was set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_latency(
    snapshot: Option<&rb_snapshot>,
    number: u32,
    latency: *mut rb_latency,
) -> c_int {
    guard("rb_snapshot_latency", String::new, || {
        let found = not_null(snapshot, "snapshot")?.latencies.get(number as usize);
        // SAFETY: P3
        unsafe { show(found, latency, "latency", |old, found| rb_latency::of(old.size, found)) }
    })
}

/// Of the callbacks that rb_snapshot_latency() tells of by this number: the time that this part of them, from 0 to 1, did not
/// exceed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_quantile(
    snapshot: Option<&rb_snapshot>,
    number: u32,
    part: f64,
    time_ns: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    guard("rb_snapshot_quantile", String::new, || {
        let time_ns = not_null(time_ns, "time_ns")?;
        if !(0.0..=1.0).contains(&part) {
            return Err(Failure::new(rb_error::RB_ERR_INVALID, format!("part is {part}, which is not in 0..=1")));
        }
        let found = not_null(snapshot, "snapshot")?.latencies.get(number as usize);
        time_ns.write(found.map_or(0, |latency| nanos(latency.quantile(part))));
        Ok(found.is_some().into())
    })
}

/// Of the same callbacks: how many took no longer than this.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_within(
    snapshot: Option<&rb_snapshot>,
    number: u32,
    limit_ns: u64,
    count: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    guard("rb_snapshot_within", String::new, || {
        let count = not_null(count, "count")?;
        let found = not_null(snapshot, "snapshot")?.latencies.get(number as usize);
        count.write(found.map_or(0, |latency| latency.within(Duration::from_nanos(limit_ns))));
        Ok(found.is_some().into())
    })
}

/// All of it in Prometheus' text format, as rb_metrics_text() has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_snapshot_text(
    snapshot: Option<&rb_snapshot>,
    clients_max: u32,
    text: *mut c_char,
    text_bytes: usize,
    needed: Option<&mut MaybeUninit<usize>>,
) -> c_int {
    guard("rb_snapshot_text", String::new, || {
        let snapshot = &not_null(snapshot, "snapshot")?.snapshot;
        let metrics = snapshot.to_prometheus(clients_max as usize, client::name);
        // SAFETY: P2
        unsafe { put(metrics, text, text_bytes, needed) }
    })
}

/// Gives a snapshot up.
#[unsafe(no_mangle)]
pub extern "C" fn rb_snapshot_free(snapshot: Option<&mut *mut rb_snapshot>) -> c_int {
    guard("rb_snapshot_free", String::new, || {
        // SAFETY: P1
        drop(unsafe { pointer::take(snapshot, "snapshot") }?);
        Ok(0)
    })
}
