//! Every function with null, with what was given up before, with a wrong size, in the wrong state: an error, never a crash.

#![allow(clippy::multiple_unsafe_ops_per_block)] // a function and the handles that it is given

#[path = "../../tests/common/mod.rs"]
mod common;
mod event;
mod log;
mod minor0;
mod misuse;
mod reaper;
mod scenario;
mod tenant;

use crate::args::rb_args;
use crate::error::{rb_error, rb_last_error};
use crate::hooks::{rb_hooks, rb_run};
use crate::options::{rb_options, rb_runtime_new};
use crate::rb_runtime;
use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

pub const NULL: c_int = rb_error::RB_ERR_NULL as c_int;
pub const INVALID: c_int = rb_error::RB_ERR_INVALID as c_int;

/// A struct of zeroes, with its size set.
pub fn sized<T: crate::pointer::Versioned>() -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the size comes first, and zeroes are a value: that is what the trait says.
    unsafe { value.as_mut_ptr().cast::<usize>().write(size_of::<T>()) };
    // SAFETY: as above.
    unsafe { value.assume_init() }
}

/// A CB_RECALL of the stateid that carries the cookie, as the test bed's client expects it.
pub extern "C" fn encode(_: *mut c_void, run: *const rb_run, args: *mut rb_args) -> c_int {
    // SAFETY: the runtime's, for the time of the call.
    let (run, args) = unsafe { (run.read(), args.as_mut()) };
    let mut other = [0; 12];
    other[..8].copy_from_slice(&run.cookie.to_be_bytes());
    let stateid = crate::args::rb_stateid { seqid: 1, other };
    let fh = crate::connection::rb_bytes { data: b"file".as_ptr(), count: 4 };
    let recall = crate::args::rb_recall_args { stateid, truncate: 0, fh };
    // SAFETY: P2
    unsafe { crate::args::rb_encode_recall(args, Some(&recall)) }
}

pub fn hooks() -> rb_hooks {
    rb_hooks { encode: Some(encode), ..sized() }
}

/// A runtime of one reactor.
pub fn runtime(options: impl FnOnce(&mut rb_options), hooks: &rb_hooks) -> *mut rb_runtime {
    let mut chosen = rb_options { reactors: 1, ..sized() };
    options(&mut chosen);
    let mut made = MaybeUninit::uninit();
    // SAFETY: P3
    let answer = unsafe { rb_runtime_new(&chosen, hooks, Some(&mut made)) };
    assert_eq!(answer, 0, "{}", last_error());
    // SAFETY: written by a function that has not failed.
    unsafe { made.assume_init() }
}

pub fn last_error() -> String {
    // SAFETY: a string, until the next error of this thread.
    unsafe { CStr::from_ptr(rb_last_error()) }.to_string_lossy().into_owned()
}

/// Nothing, where a function wants an address.
pub fn none<T>() -> *mut T {
    ptr::null_mut()
}
