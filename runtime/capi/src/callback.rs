//! Callbacks: one for each delegation, or whatever else can be recalled or told.

use crate::error::guard;
use crate::pointer::not_null;
use crate::{numbers, rb_client, rb_key, rb_runtime, rb_session};
use runtime::{CallbackKey, ClientId};
use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;

pub fn about(key: rb_key) -> impl FnOnce() -> String {
    move || format!("callback {key:#x}")
}

/// Makes a callback for a client, idle until rb_try_run(). `op` is an rb_op; `cookie` is the embedder's own, and is handed to
/// every hook and told with every completion.
#[unsafe(no_mangle)]
pub extern "C" fn rb_insert(
    runtime: Option<&rb_runtime>,
    client: rb_client,
    op: i32,
    cookie: u64,
    key: Option<&mut MaybeUninit<rb_key>>,
) -> c_int {
    let about = || {
        // SAFETY: the names are strings of this library, which live for ever.
        let name = unsafe { CStr::from_ptr(numbers::rb_op_name(op)) };
        format!("client {client:#x}, {}", name.to_string_lossy())
    };
    guard("rb_insert", about, || {
        let key = not_null(key, "key")?;
        key.write(0);
        let runtime = not_null(runtime, "runtime")?;
        key.write(runtime.runtime.insert(ClientId::from_bits(client), numbers::op(op)?, cookie)?.to_bits());
        Ok(0)
    })
}

/// Makes a CB_RECALL_SLOT (RFC 8881 section 20.8), which is about one session: it is sent on that one or not at all, and a
/// run that finds it gone or drained ends as RB_ENDED_CANCELLED.
#[unsafe(no_mangle)]
pub extern "C" fn rb_insert_recall_slot(
    runtime: Option<&rb_runtime>,
    session: rb_session,
    cookie: u64,
    key: Option<&mut MaybeUninit<rb_key>>,
) -> c_int {
    guard(
        "rb_insert_recall_slot",
        || session.to_string(),
        || {
            let key = not_null(key, "key")?;
            key.write(0);
            let runtime = not_null(runtime, "runtime")?;
            key.write(runtime.runtime.insert_recall_slot(session.into(), cookie)?.to_bits());
            Ok(0)
        },
    )
}

/// Asks for a run of a callback: an rb_try_run_answer. Never blocks, never allocates, calls no hook but acquire: legal under
/// the embedder's locks. Asking twice is harmless.
#[unsafe(no_mangle)]
pub extern "C" fn rb_try_run(runtime: Option<&rb_runtime>, key: rb_key) -> c_int {
    guard("rb_try_run", about(key), || {
        Ok(numbers::try_run(not_null(runtime, "runtime")?.runtime.try_run(CallbackKey::from_bits(key))))
    })
}

/// Says that rb_try_run() of this key comes soon, and begins to load what it will touch. For who walks through a list, some
/// keys ahead. Changes nothing, whatever the key.
#[unsafe(no_mangle)]
pub extern "C" fn rb_prefetch(runtime: Option<&rb_runtime>, key: rb_key) -> c_int {
    guard("rb_prefetch", about(key), || {
        not_null(runtime, "runtime")?.runtime.prefetch(CallbackKey::from_bits(key));
        Ok(0)
    })
}

/// Ends the run of a callback as RB_ENDED_CANCELLED, without waiting for it: an rb_cancel_answer. The callback stays.
#[unsafe(no_mangle)]
pub extern "C" fn rb_cancel(runtime: Option<&rb_runtime>, key: rb_key) -> c_int {
    guard("rb_cancel", about(key), || {
        Ok(numbers::cancel(not_null(runtime, "runtime")?.runtime.cancel(CallbackKey::from_bits(key))))
    })
}

/// Removes a callback: an rb_remove_answer. If it is running, that run still ends with one completion.
#[unsafe(no_mangle)]
pub extern "C" fn rb_remove(runtime: Option<&rb_runtime>, key: rb_key) -> c_int {
    guard("rb_remove", about(key), || {
        Ok(numbers::remove(not_null(runtime, "runtime")?.runtime.remove(CallbackKey::from_bits(key))))
    })
}

/// Says that what was recalled has come back, though the callback stays: an rb_returned_answer.
#[unsafe(no_mangle)]
pub extern "C" fn rb_returned(runtime: Option<&rb_runtime>, key: rb_key) -> c_int {
    guard("rb_returned", about(key), || {
        Ok(numbers::returned(not_null(runtime, "runtime")?.runtime.returned(CallbackKey::from_bits(key))))
    })
}
