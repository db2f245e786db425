//! The embedder's code, as the runtime calls it: a panic ends that call and nothing else. The run that it was about goes
//! on to its end (rule R3), and so do all others.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls the embedder's code. `None`: it panicked; the panic hook has told where.
#[inline(always)]
pub(crate) fn guard<R>(call: impl FnOnce() -> R) -> Option<R> {
    // What a call may have left half done of ours is a buffer, which is not used then. What it has left of the
    // embedder's own is the embedder's to answer for.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => Some(answer),
        Err(payload) => {
            // To drop it may be to panic again.
            std::mem::forget(payload);
            None
        }
    }
}
