//! Functions of checkpoints.

use super::*;
use crate::checkpoint::*;
use crate::snapshot::{rb_checkpoint_snapshot, rb_snapshot_new};
use std::os::fd::IntoRawFd;

const CHECKPOINT: c_int = rb_error::RB_ERR_CHECKPOINT as c_int;
const BUSY: c_int = rb_error::RB_ERR_BUSY as c_int;
const SYSTEM: c_int = rb_error::RB_ERR_SYSTEM as c_int;

/// Every function that takes a pointer is given none.
pub fn nulls() -> BTreeSet<String> {
    let file = c"/dev/null".as_ptr();
    answers! {
        rb_checkpoint_to(None, file, none()) => NULL;
        rb_checkpoint_to(None, none(), none()) => NULL;
        rb_checkpoint_write(None, Some(refuse), none(), none()) => NULL;
        rb_checkpoint_write(None, None, none(), none()) => NULL;
        rb_suspend(None, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_suspend(None, None) => NULL;
        rb_suspended_checkpoint_to(None, file, none()) => NULL;
        rb_suspended_checkpoint_write(None, Some(refuse), none(), none()) => NULL;
        rb_suspended_leave(None) => NULL;
        rb_suspended_leave(Some(&mut none())) => NULL;
        rb_suspended_free(None) => NULL;
        rb_suspended_free(Some(&mut none())) => NULL;
        rb_checkpoint_open(none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_checkpoint_open(file, None) => NULL;
        rb_checkpoint_open_fd(0, None) => NULL;
        rb_checkpoint_open_bytes(none(), 1, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_checkpoint_open_bytes(none(), 0, None) => NULL;
        rb_get_checkpoint_info(None, none()) => NULL;
        rb_checkpoint_own(None, none(), 0) => NULL;
        rb_checkpoint_add(None, none(), 0) => NULL;
        rb_checkpoint_snapshot(None, 1, None) => NULL;
        rb_checkpoint_snapshot(None, 1, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_checkpoint_free(None) => NULL;
        rb_checkpoint_free(Some(&mut none())) => NULL;
    }
}

extern "C" fn refuse(_: *mut c_void, _: *const u8, _: usize) -> c_int {
    28
}

extern "C" fn append(user: *mut c_void, bytes: *const u8, count: usize) -> c_int {
    // SAFETY: the vector that the caller lends.
    let to = unsafe { &mut *user.cast::<Vec<u8>>() };
    // SAFETY: P2
    to.extend_from_slice(unsafe { std::slice::from_raw_parts(bytes, count) });
    0
}

pub fn written(rt: Option<&rb_runtime>) -> Vec<u8> {
    let mut bytes = Vec::<u8>::new();
    let to: *mut c_void = (&raw mut bytes).cast();
    answers! { rb_checkpoint_write(rt, Some(append), to, none()) => 0; };
    bytes
}

pub fn opened(bytes: &[u8]) -> *mut rb_checkpoint {
    let mut place = MaybeUninit::uninit();
    answers! { rb_checkpoint_open_bytes(bytes.as_ptr(), bytes.len(), Some(&mut place)) => 0; };
    // SAFETY: written by a function that has not failed.
    unsafe { place.assume_init() }
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_told() {
    let mut made = runtime(|_| (), &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let bytes = written(rt);
    let place = || MaybeUninit::<*mut rb_checkpoint>::uninit();
    let null = std::fs::File::open("/dev/null").unwrap().into_raw_fd();
    let small = rb_checkpoint_size { size: 8, ..sized() };
    answers! {
        rb_checkpoint_to(rt, none(), none()) => NULL;
        rb_checkpoint_to(rt, c"/dev/null/none".as_ptr(), none()) => SYSTEM;
        rb_checkpoint_to(rt, c"/dev/null/none".as_ptr(), &mut { small }) => rb_error::RB_ERR_SIZE as c_int;
        rb_checkpoint_write(rt, None, none(), none()) => NULL;
        rb_checkpoint_write(rt, Some(refuse), none(), none()) => SYSTEM;
        rb_checkpoint_write(rt, Some(refuse), none(), &mut { small }) => rb_error::RB_ERR_SIZE as c_int;
        rb_checkpoint_open(c"/nowhere".as_ptr(), Some(&mut place())) => SYSTEM;
        rb_checkpoint_open(c"/dev/null".as_ptr(), Some(&mut place())) => CHECKPOINT;
        rb_checkpoint_open_fd(-1, Some(&mut place())) => INVALID;
        rb_checkpoint_open_fd(1_000_000, Some(&mut place())) => SYSTEM;
        rb_checkpoint_open_fd(null, Some(&mut place())) => CHECKPOINT;
        rb_checkpoint_open_fd(null, Some(&mut place())) => CHECKPOINT;
        rb_checkpoint_open_bytes(none(), 0, Some(&mut place())) => CHECKPOINT;
        rb_checkpoint_open_bytes(bytes.as_ptr(), bytes.len() - 1, Some(&mut place())) => CHECKPOINT;
        rb_checkpoint_open_bytes(bytes.as_ptr(), usize::MAX, Some(&mut place())) => INVALID;
    };
    assert!(last_error().contains("bytes: no memory has"), "{}", last_error());
    // SAFETY: ours, and not in use any more.
    unsafe { rustix::io::close(null) };
    let mut there = opened(&bytes);
    // SAFETY: just made.
    let found = unsafe { there.as_ref() };
    answers! {
        rb_get_checkpoint_info(found, none()) => NULL;
        rb_get_checkpoint_info(found, &mut rb_checkpoint_info { size: 1, ..sized() }) => rb_error::RB_ERR_SIZE as c_int;
        rb_checkpoint_own(found, none(), 1) => NULL;
        rb_checkpoint_own(found, none(), 0) => 0;
        rb_checkpoint_snapshot(found, 1, None) => NULL;
        rb_checkpoint_free(Some(&mut there)) => 0;
        rb_checkpoint_free(Some(&mut there)) => NULL;
        rb_runtime_free(Some(&mut made)) => 0;
    };
}

/// While it stands still, what would wait for the reactors is an error, and what does not wait is left for later.
#[test]
fn a_suspended_runtime_does_not_hang_who_asks_it() {
    let mut made = runtime(|_| (), &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let mut place = MaybeUninit::uninit();
    answers! { rb_suspend(rt, Some(&mut place)) => 0; };
    // SAFETY: written by a function that has not failed.
    let mut suspended = unsafe { place.assume_init() };
    // SAFETY: just made.
    let still = unsafe { suspended.as_ref() };
    let mut client = MaybeUninit::uninit();
    let file = std::env::temp_dir().join(format!("ringback-capi-busy-{}", std::process::id()));
    let name = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
    answers! {
        rb_suspend(rt, Some(&mut MaybeUninit::uninit())) => BUSY;
        rb_checkpoint_to(rt, name.as_ptr(), none()) => BUSY;
        rb_checkpoint_write(rt, Some(refuse), none(), none()) => BUSY;
        rb_suspended_checkpoint_to(still, none(), none()) => NULL;
        rb_suspended_checkpoint_to(still, c"/dev/null/none".as_ptr(), none()) => SYSTEM;
        rb_suspended_checkpoint_write(still, None, none(), none()) => NULL;
        rb_suspended_checkpoint_write(still, Some(refuse), none(), none()) => SYSTEM;
        rb_get_census(rt, &mut sized()) => BUSY;
        rb_get_memory(rt, &mut sized()) => BUSY;
        rb_metrics_text(rt, 1, none(), 0, None) => BUSY;
        rb_get_client_stats(rt, 1, &mut sized()) => BUSY;
        rb_snapshot_new(rt, 1, Some(&mut MaybeUninit::uninit())) => BUSY;
        rb_drain_all(rt, 1, none()) => BUSY;
        rb_shutdown(rt, 1, none()) => BUSY;
        rb_get_stats(rt, &mut sized()) => 0;
        rb_add_client(rt, 0, Some(&mut client)) => 0;
        rb_suspended_free(Some(&mut suspended)) => 0;
        rb_suspended_free(Some(&mut suspended)) => NULL;
        rb_suspended_leave(Some(&mut suspended)) => NULL;
    };
    assert!(!file.exists(), "nothing is left of it");
    // SAFETY: written by a function that has not failed.
    let client = unsafe { client.assume_init() };
    let mut place = MaybeUninit::uninit();
    answers! {
        rb_get_client_stats(rt, client, &mut sized()) => 0;
        rb_suspend(rt, Some(&mut place)) => 0;
        rb_runtime_free(Some(&mut made)) => 0;
    };
    // SAFETY: written by a function that has not failed.
    let mut suspended = unsafe { place.assume_init() };
    // It was the last that held the runtime.
    answers! {
        rb_suspended_leave(Some(&mut suspended)) => 0;
        rb_suspended_leave(Some(&mut suspended)) => NULL;
    };
}

#[test]
fn settings_of_checkpoints_that_do_not_fit_are_named() {
    let mut made = runtime(|options| options.clients_max = 2, &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    answers! {
        rb_add_client(rt, 0, Some(&mut MaybeUninit::uninit())) => 0;
        rb_add_client(rt, 0, Some(&mut MaybeUninit::uninit())) => 0;
    };
    let mut there = opened(&written(rt));
    answers! { rb_runtime_free(Some(&mut made)) => 0; };
    let refused = |options: rb_options, text: &str| {
        // SAFETY: P3
        let answer = unsafe { rb_runtime_new(&options, &hooks(), Some(&mut MaybeUninit::uninit())) };
        assert_eq!(answer, INVALID, "{}", last_error());
        assert!(last_error().contains(text), "{}", last_error());
    };
    refused(rb_options { restore: there, clients_max: 1, ..sized() }, "clients_max must be at least 2");
    refused(rb_options { checkpoint_file: c"file".as_ptr(), ..sized() }, "checkpoint_file and checkpoint_interval_ms");
    refused(rb_options { checkpoint_interval_ms: 1000, ..sized() }, "checkpoint_file and checkpoint_interval_ms");
    let often = rb_options { checkpoint_file: c"file".as_ptr(), checkpoint_interval_ms: 1, ..sized() };
    refused(often, "checkpoint interval in ms is 1");
    answers! { rb_checkpoint_free(Some(&mut there)) => 0; };
}
