//! The C interface: `libringback`, declared in `include/ringback.h`.
//!
//! Each function answers with a number: 0 or more says what became of the request, a negative one is an [`rb_error`], and
//! [`rb_last_error`] has a text. No panic leaves a function: [`guard`] turns it into an error.
//!
//! # What callers promise
//!
//! Unsafe code here relies on this, and on nothing else; comments cite it by number.
//!
//! * **P1** A handle that is not null was given by this library, and has not been given up.
//! * **P2** A pointer and a count that come together name as many elements, which stay as they are until the function
//!   returns.
//! * **P3** A pointer to a struct that begins with its size names as many bytes, and the size comes first.
//!
//! What can be checked is checked: null, sizes, counts, descriptors, numbers out of range. Functions that take a handle
//! away are given its address and clear it, so that giving it up twice is an error and no more.
#![allow(unsafe_code)] // of every file here: an exported symbol counts as unsafe
#![allow(non_camel_case_types)] // the names are C's

#[cfg(test)]
extern crate runtime as ringback; // as the test bed of the runtime calls it

mod args;
mod budget;
mod callback;
mod carried;
mod checkpoint;
mod client;
mod connection;
mod drain;
mod error;
mod group;
mod hooks;
mod log;
mod numbers;
mod observe;
mod options;
mod path;
mod pointer;
mod queue;
mod results;
mod snapshot;
mod stats;
mod tenant;
#[cfg(test)]
mod tests;
mod tuning;
mod upgrade;
mod wait;

// Numbers that only programs in C use.
pub use args::{rb_layoutrecall_kind, rb_notify_kind};
pub use error::rb_error;
pub use hooks::{RB_DONE_FINISH, rb_prepare};
pub use log::rb_log_level;
pub use numbers::{
    rb_backend, rb_cancel_answer, rb_client_state, rb_connect_policy, rb_delivery, rb_ending, rb_fault, rb_op,
    rb_path_state, rb_refusal, rb_remove_answer, rb_returned_answer, rb_try_run_answer,
};
pub use queue::{rb_event_kind, rb_item_kind};
pub use snapshot::{rb_class, rb_latency_stage, rb_stage};

use error::{Failure, guard};
use hooks::Embedder;
use queue::Mailbox;
use runtime::{ClientId, ConnectionId, Runtime, SessionKey};
use std::ffi::{CString, c_char, c_int};
use std::sync::Arc;

/// Counts up when a program that was compiled against an earlier header must be compiled again.
pub const RB_ABI_VERSION: u32 = 1;

/// A client of the file server. 0 names nobody.
pub type rb_client = u64;
/// A connection, or an embedder's own transport. 0 names none.
pub type rb_connection = u64;
/// A callback: one for each delegation, or whatever else can be recalled or told. 0 names none, and a key whose callback
/// is gone is answered as stale for ever.
pub type rb_key = u64;

/// A session of a client (RFC 8881 section 2.10).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct rb_session {
    /// Whose session it is.
    pub client: rb_client,
    /// Tells it from every other session of the runtime.
    pub serial: u64,
}

impl From<SessionKey> for rb_session {
    fn from(key: SessionKey) -> Self {
        let (client, serial) = key.to_parts();
        rb_session { client: client.to_bits(), serial }
    }
}

impl From<rb_session> for SessionKey {
    fn from(session: rb_session) -> Self {
        SessionKey::from_parts(ClientId::from_bits(session.client), session.serial)
    }
}

impl std::fmt::Display for rb_session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "client {:#x}, session {}", self.client, self.serial)
    }
}

/// A runtime: made by rb_runtime_new(), and given up by rb_runtime_free(). All functions may be called from any thread.
pub struct rb_runtime {
    runtime: Runtime,
    embedder: Arc<Embedder>,
    mailboxes: Arc<[Arc<Mailbox>]>,
    backend_reason: CString,
}

impl rb_runtime {
    fn new(runtime: Runtime, embedder: Arc<Embedder>, mailboxes: Arc<[Arc<Mailbox>]>) -> Self {
        let backend_reason = CString::new(runtime.backend().reason.replace('\0', "")).unwrap_or_default();
        rb_runtime { runtime, embedder, mailboxes, backend_reason }
    }

    /// The connection that a number names, if it can be one of this runtime.
    fn connection(&self, bits: rb_connection) -> Result<ConnectionId, Failure> {
        let connection = ConnectionId::from_bits(bits);
        if bits == 0 || connection.reactor() >= self.runtime.reactors() {
            return Err(Failure::new(
                error::rb_error::RB_ERR_NO_SUCH_CONNECTION,
                format!("no such connection: {bits:#x}"),
            ));
        }
        Ok(connection)
    }
}

/// The version of the interface that the library was built with: compare it with RB_ABI_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn rb_abi_version() -> u32 {
    RB_ABI_VERSION
}

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn rb_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The number of reactors; negative: an error.
#[unsafe(no_mangle)]
pub extern "C" fn rb_reactors(runtime: Option<&rb_runtime>) -> c_int {
    guard("rb_reactors", String::new, || Ok(pointer::not_null(runtime, "runtime")?.runtime.reactors() as c_int))
}

/// Which back end drives the sockets, an rb_backend; negative: an error.
#[unsafe(no_mangle)]
pub extern "C" fn rb_runtime_backend(runtime: Option<&rb_runtime>) -> c_int {
    guard("rb_runtime_backend", String::new, || {
        Ok(match pointer::not_null(runtime, "runtime")?.runtime.backend().kind {
            runtime::BackendKind::Uring => numbers::rb_backend::RB_BACKEND_URING as c_int,
            runtime::BackendKind::Epoll => numbers::rb_backend::RB_BACKEND_EPOLL as c_int,
            _ => numbers::rb_backend::RB_BACKEND_AUTO as c_int,
        })
    })
}

/// Why that back end was taken, in one line for the log. Lives as long as the runtime; null for a null runtime.
#[unsafe(no_mangle)]
pub extern "C" fn rb_runtime_backend_reason(runtime: Option<&rb_runtime>) -> *const c_char {
    runtime.map_or(std::ptr::null(), |runtime| runtime.backend_reason.as_ptr())
}

/// Gives a runtime up: refuses new runs, ends those that are there, ends its threads and closes its connections. Does not
/// wait for answers; shut it down or drain it before. Completions that are on a queue by then can still be taken.
#[unsafe(no_mangle)]
pub extern "C" fn rb_runtime_free(runtime: Option<&mut *mut rb_runtime>) -> c_int {
    guard("rb_runtime_free", String::new, || {
        // SAFETY: P1
        let taken: Box<rb_runtime> = unsafe { pointer::take(runtime, "runtime") }?;
        drop(taken);
        Ok(0)
    })
}
