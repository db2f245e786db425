//! Ending runs: of one client, one session, or all.

use crate::client;
use crate::error::{Failure, guard, rb_error};
use crate::pointer::{self, User, Versioned, give, not_null};
use crate::queue::{Notice, rb_queue};
use crate::{rb_client, rb_key, rb_runtime, rb_session};
use runtime::{CallbackKey, ClientId, Drain, DrainReport};
use std::ffi::{c_int, c_void};
use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What a drain left behind. Set `size`, and place for the keys that are wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_drain_report {
    /// sizeof(rb_drain_report).
    pub size: usize,
    /// Runs that have not completed: 0, unless a hook did not return in time, or nobody has polled a queue. 0 for a session.
    pub in_flight: u64,
    /// Callbacks that were sent and not answered by the deadline: the client may or may not have executed them.
    pub abandoned_count: usize,
    /// Place for their keys; may be null.
    pub abandoned: *mut rb_key,
    /// For how many.
    pub abandoned_max: usize,
    /// Callbacks that were ended before they were sent: the client knows nothing of them.
    pub unsent_count: usize,
    /// Place for their keys; may be null.
    pub unsent: *mut rb_key,
    /// For how many.
    pub unsent_max: usize,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_drain_report {
    const NAME: &'static str = "rb_drain_report";
}

/// Writes as many keys as there is place for; how many there are.
///
/// # Safety
///
/// P2.
unsafe fn keys(from: &[CallbackKey], to: *mut rb_key, max: usize, what: &str) -> Result<usize, Failure> {
    if !to.is_null() {
        // SAFETY: P2
        let place = unsafe { pointer::slice_out(to, max, what) }?;
        for (place, key) in place.iter_mut().zip(from) {
            place.write(key.to_bits());
        }
    }
    Ok(from.len())
}

/// # Safety
///
/// P2 and P3.
unsafe fn tell(to: *mut rb_drain_report, report: &DrainReport) -> Result<(), Failure> {
    if to.is_null() {
        return Ok(());
    }
    let fill = |mut told: rb_drain_report| {
        told.in_flight = report.in_flight;
        let (to, max) = (told.abandoned, told.abandoned_max);
        // SAFETY: P2
        told.abandoned_count = unsafe { keys(&report.abandoned, to, max, "report.abandoned") }?;
        let (to, max) = (told.unsent, told.unsent_max);
        // SAFETY: P2
        told.unsent_count = unsafe { keys(&report.unsent, to, max, "report.unsent") }?;
        Ok(told)
    };
    // SAFETY: P3
    unsafe { pointer::fill(to, "report", fill) }
}

/// What is wrong with a report is said before anything is drained.
///
/// # Safety
///
/// P3.
unsafe fn check(report: *mut rb_drain_report) -> Result<(), Failure> {
    if report.is_null() {
        return Ok(());
    }
    // SAFETY: P3
    unsafe { pointer::read(report.cast_const(), "report") }.map(drop)
}

/// Ends all callbacks: no new run is accepted, runs not sent yet end at once, sent ones may be answered until `patience_ms`
/// is over. Ends one second after that at the latest. Blocks: not from a hook, and not on the only thread that polls a
/// queue, which uses rb_drain_start(). `report` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_drain_all(
    runtime: Option<&rb_runtime>,
    patience_ms: u64,
    report: *mut rb_drain_report,
) -> c_int {
    guard("rb_drain_all", String::new, || {
        // SAFETY: P3
        unsafe { check(report) }?;
        let found = not_null(runtime, "runtime")?.runtime.drain(Duration::from_millis(patience_ms))?;
        // SAFETY: P2, P3
        unsafe { tell(report, &found) }?;
        Ok(0)
    })
}

/// rb_drain_all(), then ends the reactors and closes every connection. What is left to do is rb_runtime_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_shutdown(
    runtime: Option<&rb_runtime>,
    patience_ms: u64,
    report: *mut rb_drain_report,
) -> c_int {
    guard("rb_shutdown", String::new, || {
        // SAFETY: P3
        unsafe { check(report) }?;
        let found = not_null(runtime, "runtime")?.runtime.shutdown(Duration::from_millis(patience_ms))?;
        // SAFETY: P2, P3
        unsafe { tell(report, &found) }?;
        Ok(0)
    })
}

/// rb_drain_all() of one client. Blocks. What is left to do with it is rb_remove_client().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_drain_client(
    runtime: Option<&rb_runtime>,
    client: rb_client,
    patience_ms: u64,
    report: *mut rb_drain_report,
) -> c_int {
    guard("rb_drain_client", client::about(client), || {
        // SAFETY: P3
        unsafe { check(report) }?;
        let runtime = &not_null(runtime, "runtime")?.runtime;
        let found = runtime.drain_client(ClientId::from_bits(client), Duration::from_millis(patience_ms))?;
        // SAFETY: P2, P3
        unsafe { tell(report, &found) }?;
        Ok(0)
    })
}

/// Ends what is out on one session, to be able to answer a DESTROY_SESSION. Blocks. What is left to do is
/// rb_remove_session().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_drain_session(
    runtime: Option<&rb_runtime>,
    session: rb_session,
    patience_ms: u64,
    report: *mut rb_drain_report,
) -> c_int {
    guard(
        "rb_drain_session",
        || session.to_string(),
        || {
            // SAFETY: P3
            unsafe { check(report) }?;
            let runtime = &not_null(runtime, "runtime")?.runtime;
            let found = runtime.drain_session(session.into(), Duration::from_millis(patience_ms))?;
            // SAFETY: P2, P3
            unsafe { tell(report, &found) }?;
            Ok(0)
        },
    )
}

/// A drain under way, of a thread that must not be blocked by it: given up by rb_drain_free().
pub struct rb_drain(Mutex<Draining>);

struct Draining {
    drain: Pin<Box<Drain>>,
    waker: Waker,
}

/// Begins what rb_drain_all() does. It ends as soon as every run has; if `queue` is not null, that is told there by one
/// RB_ITEM_NOTICE with `user`.
#[unsafe(no_mangle)]
pub extern "C" fn rb_drain_start(
    runtime: Option<&rb_runtime>,
    patience_ms: u64,
    queue: Option<&rb_queue>,
    user: *mut c_void,
    drain: Option<&mut MaybeUninit<*mut rb_drain>>,
) -> c_int {
    guard("rb_drain_start", String::new, || {
        let drain = not_null(drain, "drain")?;
        drain.write(std::ptr::null_mut());
        let started = not_null(runtime, "runtime")?.runtime.start_drain(Duration::from_millis(patience_ms));
        let waker = queue.map_or_else(|| Waker::noop().clone(), |queue| Notice::waker(queue, User(user)));
        let mut draining = Draining { drain: Box::pin(started), waker };
        if draining.drain.as_mut().poll(&mut Context::from_waker(&draining.waker)).is_ready() {
            draining.waker.wake_by_ref();
        }
        give(drain, rb_drain(Mutex::new(draining)));
        Ok(0)
    })
}

/// What a drain has left behind: 0 if it has ended, RB_ERR_PENDING if this is how far it is. `report` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_drain_result(drain: Option<&rb_drain>, report: *mut rb_drain_report) -> c_int {
    guard("rb_drain_result", String::new, || {
        let mut draining = not_null(drain, "drain")?.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Draining { drain, waker } = &mut *draining;
        let polled = drain.as_mut().poll(&mut Context::from_waker(waker));
        let (found, ended) = match polled {
            Poll::Ready(found) => (found, true),
            Poll::Pending => (drain.report(), false),
        };
        // SAFETY: P2, P3
        unsafe { tell(report, &found) }?;
        if ended { Ok(0) } else { Err(Failure::new(rb_error::RB_ERR_PENDING, "the drain has not ended yet")) }
    })
}

/// Gives a drain up; it goes on, and its RB_ITEM_NOTICE still comes.
#[unsafe(no_mangle)]
pub extern "C" fn rb_drain_free(drain: Option<&mut *mut rb_drain>) -> c_int {
    guard("rb_drain_free", String::new, || {
        // SAFETY: P1
        drop(unsafe { pointer::take(drain, "drain") }?);
        Ok(0)
    })
}
