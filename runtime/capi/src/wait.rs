//! Waiting for the end of a run: CB_GETATTR is asked because somebody needs the answer here and now.

use crate::callback::about;
use crate::error::{Failure, guard, rb_error};
use crate::numbers::{self, rb_outcome};
use crate::pointer::{self, User, Versioned, give, not_null};
use crate::queue::{Notice, rb_queue};
use crate::{rb_key, rb_runtime};
use runtime::{CallbackKey, Ended, Ending, Outcome, Wait};
use std::ffi::{c_int, c_void};
use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Bytes of a result that are kept for who waits.
pub const RB_RESULTS_BYTES_MAX: usize = 512;

/// How a run ended, for who waited for it. Set `size`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rb_ended {
    /// sizeof(rb_ended).
    pub size: usize,
    /// How.
    pub outcome: rb_outcome,
    /// How many bytes of the result were kept: what follows the status in the client's answer.
    pub results_bytes: u32,
    /// 1 if that is all of it.
    pub is_whole: i32,
    /// The bytes, for rb_decode_getattr().
    pub results: [u8; RB_RESULTS_BYTES_MAX],
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_ended {
    const NAME: &'static str = "rb_ended";
}

/// The end of a run, to be waited for: given up by rb_wait_free() or rb_wait_block().
pub struct rb_wait(Mutex<Waiting>);

struct Waiting {
    wait: Pin<Box<Wait>>,
    waker: Waker,
}

impl rb_wait {
    fn new(wait: Wait) -> Self {
        rb_wait(Mutex::new(Waiting { wait: Box::pin(wait), waker: Waker::noop().clone() }))
    }
}

impl Waiting {
    fn poll(&mut self) -> Poll<Result<Ended, runtime::WaitError>> {
        self.wait.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}

/// # Safety
///
/// P3.
unsafe fn tell(ended: *mut rb_ended, how: &Ended) -> Result<c_int, Failure> {
    let fill = |mut told: rb_ended| {
        let outcome = how.outcome();
        told.outcome = rb_outcome::from(Ending::from(&outcome));
        told.is_whole = how.is_whole().into();
        if let Outcome::Replied { status, results } = outcome {
            told.outcome.status = status.0;
            told.results_bytes = results.len() as u32;
            told.results[..results.len()].copy_from_slice(results);
        } else {
            told.results_bytes = 0;
        }
        Ok(told)
    };
    // SAFETY: P3
    unsafe { pointer::fill(ended, "ended", fill) }?;
    Ok(0)
}

/// Begins to wait for the end of the run that is going on now. Any number may wait. If there is none, it has ended, or the
/// like, rb_wait_result() says so.
#[unsafe(no_mangle)]
pub extern "C" fn rb_wait_start(
    runtime: Option<&rb_runtime>,
    key: rb_key,
    wait: Option<&mut MaybeUninit<*mut rb_wait>>,
) -> c_int {
    guard("rb_wait_start", about(key), || {
        let wait = not_null(wait, "wait")?;
        wait.write(std::ptr::null_mut());
        give(wait, rb_wait::new(not_null(runtime, "runtime")?.runtime.wait(CallbackKey::from_bits(key))));
        Ok(0)
    })
}

/// rb_try_run() and rb_wait_start() in one: of a run that is submitted or coalesced into, the end is not missed. Gives the
/// rb_try_run_answer.
#[unsafe(no_mangle)]
pub extern "C" fn rb_run_and_wait(
    runtime: Option<&rb_runtime>,
    key: rb_key,
    wait: Option<&mut MaybeUninit<*mut rb_wait>>,
) -> c_int {
    guard("rb_run_and_wait", about(key), || {
        let wait = not_null(wait, "wait")?;
        wait.write(std::ptr::null_mut());
        let (answer, started) = not_null(runtime, "runtime")?.runtime.run_and_wait(CallbackKey::from_bits(key));
        give(wait, rb_wait::new(started));
        Ok(numbers::try_run(answer))
    })
}

/// Asks to be told on a queue when the wait is over: one RB_ITEM_NOTICE with `user`; at once if it is over already.
#[unsafe(no_mangle)]
pub extern "C" fn rb_wait_notify(wait: Option<&rb_wait>, queue: Option<&rb_queue>, user: *mut c_void) -> c_int {
    guard("rb_wait_notify", String::new, || {
        let mut waiting = not_null(wait, "wait")?.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.waker = Notice::waker(not_null(queue, "queue")?, User(user));
        if waiting.poll().is_ready() {
            waiting.waker.wake_by_ref();
        }
        Ok(0)
    })
}

/// How the run ended; RB_ERR_PENDING: not yet. RB_ERR_IDLE, RB_ERR_TOO_LATE, RB_ERR_STALE and RB_ERR_CLOSED: there was
/// nothing to wait for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_wait_result(wait: Option<&rb_wait>, ended: *mut rb_ended) -> c_int {
    guard("rb_wait_result", String::new, || {
        let mut waiting = not_null(wait, "wait")?.0.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.poll() {
            Poll::Pending => Err(Failure::new(rb_error::RB_ERR_PENDING, "the run has not ended yet")),
            // SAFETY: P3
            Poll::Ready(how) => unsafe { tell(ended, &how?) },
        }
    })
}

/// Waits on the caller's own thread, for `patience_ms` at most, and gives the wait up. Not from a hook. The run goes on if it
/// has not ended by then (RB_ERR_TIMED_OUT). `ended` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_wait_block(
    wait: Option<&mut *mut rb_wait>,
    patience_ms: u64,
    ended: *mut rb_ended,
) -> c_int {
    guard("rb_wait_block", String::new, || {
        if !ended.is_null() {
            // SAFETY: P3: what is wrong with it is said before the wait.
            unsafe { pointer::read(ended.cast_const(), "ended") }?;
        }
        // SAFETY: P1
        let taken = unsafe { pointer::take(wait, "wait") }?;
        let waiting = taken.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let how = Pin::into_inner(waiting.wait).block(Duration::from_millis(patience_ms))?;
        // SAFETY: P3
        if ended.is_null() { Ok(0) } else { unsafe { tell(ended, &how) } }
    })
}

/// Stops to wait. An RB_ITEM_NOTICE that is on the queue by then still comes.
#[unsafe(no_mangle)]
pub extern "C" fn rb_wait_free(wait: Option<&mut *mut rb_wait>) -> c_int {
    guard("rb_wait_free", String::new, || {
        // SAFETY: P1
        drop(unsafe { pointer::take(wait, "wait") }?);
        Ok(0)
    })
}
