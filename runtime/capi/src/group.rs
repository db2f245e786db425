//! Callbacks that are asked for together: one call, and one notice when the last of them is settled.

use crate::error::{Failure, guard, rb_error};
use crate::numbers;
use crate::pointer::{self, User, Versioned, give, not_null};
use crate::queue::{Notice, rb_queue};
use crate::{rb_key, rb_runtime};
use runtime::{CallbackKey, Group, GroupSettled};
use std::ffi::{c_int, c_void};
use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::Context;
use std::time::Duration;

/// What became of the callbacks of a group, each counted once: by what came first. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_group_settled {
    /// sizeof(rb_group_settled).
    pub size: usize,
    /// Nothing is in the way any more, as rb_returned(), rb_remove() or RB_PREPARE_REFUSE have said; or, where nothing is to be
    /// given back (not RB_OP_RECALL, not RB_OP_LAYOUTRECALL), the client has answered NFS4_OK.
    pub returned: u32,
    /// Not given back by the return deadline: RB_EVENT_RETURN_OVERDUE was told.
    pub overdue: u32,
    /// The run ended otherwise than with NFS4_OK, or was not accepted; or the client was removed or drained, or the runtime
    /// closed, before it was given back.
    pub failed: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_group_settled {
    const NAME: &'static str = "rb_group_settled";
}

/// Callbacks that were asked for together: given up by rb_group_free() or rb_group_block().
pub struct rb_group(Mutex<Pin<Box<Group>>>);

/// # Safety
///
/// P3.
unsafe fn tell(to: *mut rb_group_settled, settled: &GroupSettled) -> Result<c_int, Failure> {
    let fill = |mut told: rb_group_settled| {
        (told.returned, told.overdue, told.failed) = (settled.returned, settled.overdue, settled.failed);
        Ok(told)
    };
    // SAFETY: P3
    unsafe { pointer::fill(to, "settled", fill) }?;
    Ok(0)
}

/// rb_try_run() of many callbacks, such as the recalls of all delegations of a file, to be told once when each of them is
/// settled, the return of what is recalled included: on `queue`, if it is not null, by one RB_ITEM_NOTICE with `user`;
/// rb_group_result() says how. What is running already is waited for like the rest; what is listed twice counts twice.
/// `answers`, if it is not null, has place for the rb_try_run_answer of each.
///
/// Calls no hook but acquire, and is legal under the embedder's locks; but unlike rb_try_run() it allocates. Fails before
/// anything is started (RB_ERR_FULL, RB_ERR_NO_MEMORY). Each group is settled at some time, by the return deadline or
/// by a drain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_run_many(
    runtime: Option<&rb_runtime>,
    keys: *const rb_key,
    keys_count: usize,
    queue: Option<&rb_queue>,
    user: *mut c_void,
    answers: *mut i32,
    group: Option<&mut MaybeUninit<*mut rb_group>>,
) -> c_int {
    guard("rb_run_many", String::new, || {
        let group = not_null(group, "group")?;
        group.write(std::ptr::null_mut());
        let runtime = not_null(runtime, "runtime")?;
        // SAFETY: P2
        let keys = unsafe { pointer::slice(keys, keys_count, "keys") }?;
        let keys: Vec<CallbackKey> = keys.iter().map(|key| CallbackKey::from_bits(*key)).collect();
        let places = if answers.is_null() { 0 } else { keys_count };
        // SAFETY: P2
        let mut places = unsafe { pointer::slice_out(answers, places, "answers") }?.iter_mut();
        let asked = runtime.runtime.try_run_many(&keys, |_, answer| {
            if let Some(place) = places.next() {
                place.write(numbers::try_run(answer));
            }
        });
        let mut made = Box::pin(asked?);
        if let Some(queue) = queue {
            let waker = Notice::waker(queue, User(user));
            if made.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                waker.wake();
            }
        }
        give(group, rb_group(Mutex::new(made)));
        Ok(0)
    })
}

/// What became of the callbacks; RB_ERR_PENDING: they are not all settled yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_group_result(group: Option<&rb_group>, settled: *mut rb_group_settled) -> c_int {
    guard("rb_group_result", String::new, || {
        let group = not_null(group, "group")?.0.lock().unwrap_or_else(PoisonError::into_inner);
        match group.settled() {
            None => Err(Failure::new(rb_error::RB_ERR_PENDING, "the group is not settled yet")),
            // SAFETY: P3
            Some(how) => unsafe { tell(settled, &how) },
        }
    })
}

/// Waits on the caller's own thread, for `patience_ms` at most, and gives the group up. Not from a hook. What was not settled
/// by then (RB_ERR_TIMED_OUT) goes on. `settled` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_group_block(
    group: Option<&mut *mut rb_group>,
    patience_ms: u64,
    settled: *mut rb_group_settled,
) -> c_int {
    guard("rb_group_block", String::new, || {
        if !settled.is_null() {
            // SAFETY: P3: what is wrong with it is said before the wait.
            unsafe { pointer::read(settled.cast_const(), "settled") }?;
        }
        // SAFETY: P1
        let taken = unsafe { pointer::take(group, "group") }?;
        let taken = taken.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let how = Pin::into_inner(taken).block(Duration::from_millis(patience_ms))?;
        // SAFETY: P3
        if settled.is_null() { Ok(0) } else { unsafe { tell(settled, &how) } }
    })
}

/// Stops to wait for a group; what it asked for goes on.
#[unsafe(no_mangle)]
pub extern "C" fn rb_group_free(group: Option<&mut *mut rb_group>) -> c_int {
    guard("rb_group_free", String::new, || {
        // SAFETY: P1
        drop(unsafe { pointer::take(group, "group") }?);
        Ok(0)
    })
}
