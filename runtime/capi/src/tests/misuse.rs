//! One row for each function.

use super::*;
use crate::args::*;
use crate::budget::*;
use crate::callback::*;
use crate::checkpoint::{rb_checkpoint_free, rb_checkpoint_to, rb_suspend, rb_suspended_free};
use crate::client::*;
use crate::connection::*;
use crate::drain::*;
use crate::error::*;
use crate::group::*;
use crate::numbers::*;
use crate::observe::*;
use crate::path::*;
use crate::queue::*;
use crate::results::*;
use crate::snapshot::rb_snapshot_free;
use crate::stats::*;
use crate::tenant::*;
use crate::tuning::*;
use crate::wait::*;
use crate::*;
use std::collections::BTreeSet;
use std::path::Path;

/// What the sources name behind each mark and the next word, up to an end.
fn named(folder: &Path, mark: &str, word: &str, end: char) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(named(&path, mark, word, end));
            continue;
        }
        let code = std::fs::read_to_string(path).unwrap();
        for marked in code.split(mark).skip(1) {
            let (_, rest) = marked.split_once(word).unwrap();
            names.insert(rest.split(end).next().unwrap().to_owned());
        }
    }
    names
}

/// The functions of the library, found in its sources.
fn exported(folder: &Path) -> BTreeSet<String> {
    named(folder, "#[unsafe(no_mangle)]\n", "fn ", '(')
}

/// Calls functions, compares their answers, and gives their names.
macro_rules! answers {
    ($($function:ident($($argument:expr),* $(,)?) => $expected:expr;)*) => {{
        let mut called = BTreeSet::new();
        $(
            // SAFETY: what is wrong is what a function has to find out.
            #[allow(unused_unsafe)]
            let answer = unsafe { $function($($argument),*) };
            assert_eq!(answer, $expected, "{}: {}", stringify!($function($($argument),*)), last_error());
            if answer < 0 {
                assert!(last_error().starts_with(concat!(stringify!($function), ": ")), "{}", last_error());
            }
            called.insert(stringify!($function).to_owned());
        )*
        called
    }};
}

mod checkpoint;
mod sizes;
mod snapshot;
mod upgrade;

const NO_SESSION: rb_session = rb_session { client: 0, serial: 0 };
const NO_BYTES: rb_bytes = rb_bytes { data: std::ptr::null(), count: 0 };

/// Every function that takes a pointer is given none.
#[test]
fn null_is_an_error_of_every_function() {
    let mut called = answers! {
        rb_runtime_new(none(), none(), None) => NULL;
        rb_runtime_new(none(), none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_runtime_new(none(), &sized::<rb_hooks>(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_runtime_free(None) => NULL;
        rb_runtime_free(Some(&mut none())) => NULL;
        rb_reactors(None) => NULL;
        rb_runtime_backend(None) => NULL;
        rb_queue_open(None, 0, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_queue_open(None, 0, None) => NULL;
        rb_queue_fd(None) => NULL;
        rb_queue_poll(None, none(), 1) => NULL;
        rb_queue_release(None) => NULL;
        rb_queue_free(None) => NULL;
        rb_queue_free(Some(&mut none())) => NULL;
        rb_add_connection(None, 0, None) => NULL;
        rb_add_connection(None, 0, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_add_transport(None, none(), None) => NULL;
        rb_add_transport(None, none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_receive(None, 1, none(), 0) => NULL;
        rb_close_connection(None, 1) => NULL;
        rb_outbound_bytes(None, None, None) => NULL;
        rb_outbound_complete(None, 0) => NULL;
        rb_outbound_complete(Some(&mut none()), 0) => NULL;
        rb_reader_new(1, None) => NULL;
        rb_reader_feed(None, None, 1, none(), 0) => NULL;
        rb_reader_free(None) => NULL;
        rb_reader_free(Some(&mut none())) => NULL;
        rb_call_record(None, None, None, None) => NULL;
        rb_call_reply(None, None, none(), 0) => NULL;
        rb_call_free(None) => NULL;
        rb_call_free(Some(&mut none())) => NULL;
        rb_add_client(None, 0, None) => NULL;
        rb_add_client(None, 0, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_remove_client(None, 1) => NULL;
        rb_set_client_state(None, 1, 0) => NULL;
        rb_set_client_limits(None, 1, 1, 0) => NULL;
        rb_move_client(None, 1, 0) => NULL;
        rb_home_of(None, 1) => NULL;
        rb_seq4_status(None, 1, None, None) => NULL;
        rb_seq4_status(None, 1, None, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_is_unsupported(None, 1, 4) => NULL;
        rb_set_client_id(None, 1, none(), None) => NULL;
        rb_set_client_id(None, 1, none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_confirm(None, NO_SESSION) => NULL;
        rb_is_path_down(None, 1) => NULL;
        rb_add_session(None, 1, none(), None) => NULL;
        rb_add_session(None, 1, none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_remove_session(None, NO_SESSION) => NULL;
        rb_bind(None, 1, NO_SESSION) => NULL;
        rb_backchannel_ctl(None, NO_SESSION, 0, None) => NULL;
        rb_insert(None, 1, 4, 0, None) => NULL;
        rb_insert(None, 1, 4, 0, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_insert_recall_slot(None, NO_SESSION, 0, None) => NULL;
        rb_insert_recall_slot(None, NO_SESSION, 0, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_name_call(None, none(), 0, 0) => NULL;
        rb_try_run(None, 1) => NULL;
        rb_prefetch(None, 1) => NULL;
        rb_cancel(None, 1) => NULL;
        rb_remove(None, 1) => NULL;
        rb_returned(None, 1) => NULL;
        rb_wait_start(None, 1, None) => NULL;
        rb_wait_start(None, 1, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_run_and_wait(None, 1, None) => NULL;
        rb_run_and_wait(None, 1, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_wait_notify(None, None, none()) => NULL;
        rb_wait_result(None, none()) => NULL;
        rb_wait_block(None, 0, none()) => NULL;
        rb_wait_block(Some(&mut none()), 0, none()) => NULL;
        rb_wait_free(None) => NULL;
        rb_wait_free(Some(&mut none())) => NULL;
        rb_run_many(None, none(), 0, None, none(), none(), None) => NULL;
        rb_run_many(None, none(), 0, None, none(), none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_group_result(None, none()) => NULL;
        rb_group_block(None, 0, none()) => NULL;
        rb_group_block(Some(&mut none()), 0, none()) => NULL;
        rb_group_free(None) => NULL;
        rb_group_free(Some(&mut none())) => NULL;
        rb_drain_all(None, 0, none()) => NULL;
        rb_shutdown(None, 0, none()) => NULL;
        rb_drain_client(None, 1, 0, none()) => NULL;
        rb_drain_session(None, NO_SESSION, 0, none()) => NULL;
        rb_drain_start(None, 0, None, none(), None) => NULL;
        rb_drain_start(None, 0, None, none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_drain_result(None, none()) => NULL;
        rb_drain_free(None) => NULL;
        rb_drain_free(Some(&mut none())) => NULL;
        rb_set_budget(None, 1) => NULL;
        rb_want_room(None) => NULL;
        rb_add_tenant(None, none(), none(), None) => NULL;
        rb_add_tenant(None, none(), none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_set_tenant_limits(None, 1, none()) => NULL;
        rb_get_tenant_stats(None, 1, none()) => NULL;
        rb_add_client_of(None, 0, 0, None) => NULL;
        rb_add_client_of(None, 0, 0, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_get_tuning(None, none()) => NULL;
        rb_set_tuning(None, none()) => NULL;
        rb_memory_pressure(None) => NULL;
        rb_recall_any(None, 1) => NULL;
        rb_recall_slots(None, NO_SESSION, 0) => NULL;
        rb_get_stats(None, none()) => NULL;
        rb_get_placement(None, 0, none()) => NULL;
        rb_delegations_of(None, 1, None) => NULL;
        rb_delegations_of(None, 1, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_get_census(None, none()) => NULL;
        rb_get_memory(None, none()) => NULL;
        rb_get_client_stats(None, 1, none()) => NULL;
        rb_get_reactor_stats(None, 0, none()) => NULL;
        rb_metrics_text(None, 1, none(), 0, None) => NULL;
        rb_flight_text(None, none(), 0, None) => NULL;
    };
    called.extend(checkpoint::nulls());
    called.extend(snapshot::nulls());
    called.extend(upgrade::nulls());
    called.extend(answers! {
        rb_encode_raw(None, NO_BYTES) => NULL;
        rb_encode_raw(None, rb_bytes { data: std::ptr::null(), count: 1 }) => NULL;
        rb_encode_getattr(None, None) => NULL;
        rb_encode_recall(None, None) => NULL;
        rb_encode_layoutrecall(None, None) => NULL;
        rb_encode_notify(None, None) => NULL;
        rb_encode_notify_lock(None, None) => NULL;
        rb_encode_notify_deviceid(None, none(), 1) => NULL;
        rb_encode_push_deleg(None, None) => NULL;
        rb_encode_recall_any(None, None) => NULL;
        rb_encode_recallable_obj_avail(None, None) => NULL;
        rb_encode_recall_slot(None, 0) => NULL;
        rb_encode_wants_cancelled(None, 0, 0) => NULL;
        rb_encode_offload(None, None) => NULL;
        rb_decode_getattr(none(), 1, none()) => NULL;
        rb_decode_getattr([0; 8].as_ptr(), 8, none()) => NULL;
    });
    // These take no pointer, or answer with one.
    for name in
        ["rb_abi_version", "rb_version", "rb_strerror", "rb_last_error", "rb_op_name", "rb_runtime_backend_reason"]
    {
        called.insert(name.to_owned());
    }
    assert!(rb_runtime_backend_reason(None).is_null());
    assert_eq!(called, exported(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")), "left: called; right: exported");
}

/// What cannot be null is what is named.
#[test]
fn wrong_arguments_are_errors_that_say_what_is_wrong() {
    let mut made = runtime(|_| (), &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let junk = 0xdead_beef_0000_0001;
    let nobody = rb_error::RB_ERR_NO_SUCH_CLIENT as c_int;
    let nowhere = rb_error::RB_ERR_NO_SUCH_CONNECTION as c_int;
    let (mut client, mut queue) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let bad_flavor = rb_security { flavor: 6, ..sized::<rb_session_options>().security };
    let no_name = rb_security { flavor: 1, machine_name_bytes: 4, ..bad_flavor };
    let supplied = rb_path_options { window: 1, ..sized() };
    let no_uaddr = rb_path_options { r_netid: b"tcp".as_ptr(), r_netid_bytes: 3, ..supplied };
    let no_peer = rb_path_options { r_addr: b"127.0.0.1.8.1".as_ptr(), r_addr_bytes: 13, ..no_uaddr };
    answers! {
        rb_queue_open(rt, 1, Some(&mut queue)) => INVALID;
        rb_add_connection(rt, -1, Some(&mut MaybeUninit::uninit())) => INVALID;
        rb_add_connection(rt, 1_000_000, Some(&mut MaybeUninit::uninit())) => rb_error::RB_ERR_SYSTEM as c_int;
        rb_add_transport(rt, none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_add_transport(rt, &rb_transport { queue: 7, ..sized() }, Some(&mut MaybeUninit::uninit())) => INVALID;
        rb_receive(rt, junk, none(), 0) => nowhere;
        rb_receive(rt, 1, none(), 1) => NULL;
        rb_receive(rt, 1, std::ptr::without_provenance(8), usize::MAX) => INVALID;
        rb_close_connection(rt, 0) => nowhere;
        rb_close_connection(rt, 77) => 0;
        rb_add_client(rt, junk, Some(&mut client)) => nowhere;
        rb_remove_client(rt, junk) => nobody;
        rb_set_client_state(rt, junk, 0) => nobody;
        rb_set_client_limits(rt, junk, 1, 0) => nobody;
        rb_move_client(rt, junk, 0) => nobody;
        rb_move_client(rt, junk, 1_000_000) => INVALID;
        rb_home_of(rt, junk) => nobody;
        rb_set_client_state(rt, junk, 3) => INVALID;
        rb_seq4_status(rt, junk, Some(&NO_SESSION), Some(&mut MaybeUninit::uninit())) => 0;
        rb_is_unsupported(rt, junk, 4) => 0;
        rb_is_unsupported(rt, 1, -1) => INVALID;
        rb_remove_session(rt, NO_SESSION) => nobody;
        rb_set_client_id(rt, junk, none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_set_client_id(rt, junk, &supplied, Some(&mut MaybeUninit::uninit())) => nobody;
        rb_set_client_id(rt, 1, &no_uaddr, Some(&mut MaybeUninit::uninit())) => INVALID;
        rb_set_client_id(rt, 1, &no_peer, Some(&mut MaybeUninit::uninit())) => INVALID;
        rb_confirm(rt, NO_SESSION) => nobody;
        rb_is_path_down(rt, junk) => 0;
        rb_bind(rt, 1, rb_session { client: junk, serial: 1 }) => nobody;
        rb_bind(rt, 0, NO_SESSION) => nowhere;
        rb_backchannel_ctl(rt, NO_SESSION, 0, None) => NULL;
        rb_backchannel_ctl(rt, NO_SESSION, 0, Some(&bad_flavor)) => INVALID;
        rb_backchannel_ctl(rt, NO_SESSION, 0, Some(&no_name)) => NULL;
        rb_insert(rt, junk, 4, 0, Some(&mut MaybeUninit::uninit())) => nobody;
        rb_insert(rt, junk, 99, 0, Some(&mut MaybeUninit::uninit())) => INVALID;
        rb_insert(rt, junk, -4, 0, Some(&mut MaybeUninit::uninit())) => INVALID;
        rb_try_run(rt, junk) => rb_try_run_answer::RB_RUN_STALE as c_int;
        rb_prefetch(rt, junk) => 0;
        rb_prefetch(rt, 0) => 0;
        rb_try_run(rt, 0) => rb_try_run_answer::RB_RUN_STALE as c_int;
        rb_cancel(rt, junk) => rb_cancel_answer::RB_CANCEL_STALE as c_int;
        rb_remove(rt, junk) => rb_remove_answer::RB_REMOVE_STALE as c_int;
        rb_returned(rt, junk) => rb_returned_answer::RB_RETURNED_STALE as c_int;
        rb_recall_slots(rt, NO_SESSION, 0) => nobody;
        rb_drain_client(rt, junk, 0, none()) => nobody;
        rb_get_client_stats(rt, junk, &mut sized()) => nobody;
        rb_get_client_stats(rt, junk, none()) => NULL;
        rb_get_reactor_stats(rt, 1_000_000, &mut sized()) => INVALID;
        rb_get_reactor_stats(rt, 0, none()) => NULL;
        rb_get_placement(rt, 1_000_000, &mut sized()) => INVALID;
        rb_get_placement(rt, 0, none()) => NULL;
        rb_get_placement(rt, 0, &mut sized()) => 0;
        rb_delegations_of(rt, junk, Some(&mut MaybeUninit::uninit())) => nobody;
        rb_metrics_text(rt, 1, none(), 1, None) => NULL;
        rb_metrics_text(rt, 1, none(), 0, None) => rb_error::RB_ERR_NO_SPACE as c_int;
        rb_add_tenant(rt, none(), &sized(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_add_tenant(rt, c"a".as_ptr(), none(), Some(&mut MaybeUninit::uninit())) => NULL;
        rb_add_tenant(rt, c"a".as_ptr(), &sized(), Some(&mut MaybeUninit::uninit())) => 0;
        rb_set_tenant_limits(rt, 1, &sized()) => 0;
        rb_set_tenant_limits(rt, 7, &sized()) => INVALID;
        rb_get_tenant_stats(rt, 1, none()) => NULL;
        rb_get_tenant_stats(rt, 1, &mut sized()) => 0;
        rb_get_tenant_stats(rt, 7, &mut sized()) => INVALID;
        rb_get_tenant_stats(rt, 0, &mut sized()) => INVALID;
        rb_add_client_of(rt, 7, 0, Some(&mut MaybeUninit::uninit())) => INVALID;
        rb_add_client_of(rt, 1, 0, Some(&mut MaybeUninit::uninit())) => 0;
        rb_get_tuning(rt, none()) => NULL;
        rb_set_tuning(rt, none()) => NULL;
        rb_set_tuning(rt, &sized()) => INVALID;
        rb_flight_text(rt, none(), 1, None) => NULL;
        rb_flight_text(rt, none(), 0, Some(&mut MaybeUninit::uninit())) => rb_error::RB_ERR_NO_SPACE as c_int;
        rb_flight_text(rt, std::ptr::without_provenance_mut(8), usize::MAX, None) => INVALID;
        rb_drain_session(rt, NO_SESSION, 0, none()) => nobody;
        rb_reader_new(0, Some(&mut MaybeUninit::uninit())) => INVALID;
        rb_call_reply(rt, Some(&mut none()), none(), 0) => NULL;
        rb_call_reply(rt, Some(&mut none()), none(), 1) => NULL;
        rb_add_client(rt, 0, Some(&mut client)) => 0;
    };
    // SAFETY: written by the last function.
    let client = unsafe { client.assume_init() };
    answers! {
        rb_insert_recall_slot(rt, rb_session { client, serial: 99 }, 0, Some(&mut MaybeUninit::uninit()))
            => rb_error::RB_ERR_NO_SUCH_SESSION as c_int;
        rb_set_client_limits(rt, client, 1, 100) => 0;
        rb_move_client(rt, client, 0) => 0;
        rb_home_of(rt, client) => 0;
        rb_insert(rt, client, 11, 0, Some(&mut MaybeUninit::uninit())) => INVALID;
        rb_add_session(rt, client, &sized(), Some(&mut MaybeUninit::uninit())) => INVALID;
    };
    assert!(last_error().contains(&format!("client {client:#x}: session parameter slots is 0")), "{}", last_error());
    answers! { rb_runtime_free(Some(&mut made)) => 0; };
    answers! { rb_runtime_free(Some(&mut made)) => NULL; };
    assert!(last_error().contains("given up before"), "{}", last_error());
}

/// Whatever has an owner is given up once.
#[test]
fn handles_given_up_twice_are_errors() {
    let mut made = runtime(|_| (), &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let mut freed = BTreeSet::new();
    macro_rules! twice {
        ($handle:ident, $make:expr, $free:ident) => {
            let mut place = MaybeUninit::uninit();
            let $handle = Some(&mut place);
            // SAFETY: what is pointed to is of the test, or null.
            #[allow(unused_unsafe)]
            let answer = unsafe { $make };
            assert_eq!(answer, 0, "{}: {}", stringify!($make), last_error());
            // SAFETY: written by a function that has not failed.
            let mut handle = unsafe { place.assume_init() };
            answers! { $free(Some(&mut handle)) => 0; };
            assert!(handle.is_null(), "{}", stringify!($free));
            answers! { $free(Some(&mut handle)) => NULL; };
            assert!(last_error().contains("given up before"), "{}", last_error());
            freed.insert(stringify!($free).to_owned());
        };
    }
    twice!(reader, rb_reader_new(1 << 10, reader), rb_reader_free);
    twice!(queue, rb_queue_open(rt, 0, queue), rb_queue_free);
    twice!(wait, rb_wait_start(rt, 1, wait), rb_wait_free);
    twice!(group, rb_run_many(rt, none(), 0, None, none(), none(), group), rb_group_free);
    twice!(still, rb_suspend(rt, still), rb_suspended_free);
    twice!(drain, rb_drain_start(rt, 0, None, none(), drain), rb_drain_free);
    twice!(snapshot, crate::snapshot::rb_snapshot_new(rt, 1, snapshot), rb_snapshot_free);
    let bytes = checkpoint::written(rt);
    let (at, count) = (bytes.as_ptr(), bytes.len());
    twice!(there, crate::checkpoint::rb_checkpoint_open_bytes(at, count, there), rb_checkpoint_free);
    twice!(runtime, rb_runtime_new(&sized(), &hooks(), runtime), rb_runtime_free);
    answers! { rb_runtime_free(Some(&mut made)) => 0; };
    // With a client at the other end: scenario.rs.
    freed.insert("rb_call_free".to_owned());
    // With another process at the other end: misuse/upgrade.rs.
    freed.insert("rb_upgrade_free".to_owned());
    let all = exported(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let all: BTreeSet<_> = all.into_iter().filter(|name| name.ends_with("_free")).collect();
    assert_eq!(freed, all, "left: given up twice; right: what there is to give up");
}

/// When all is over, nothing hangs and nothing begins.
#[test]
fn after_the_shutdown_every_function_has_an_answer() {
    let mut made = runtime(|o| o.backend = rb_backend::RB_BACKEND_EPOLL as i32, &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let (mut client, mut key) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    answers! { rb_add_client(rt, 0, Some(&mut client)) => 0; };
    // SAFETY: written by a function that has not failed.
    let client = unsafe { client.assume_init() };
    answers! {
        rb_insert(rt, client, 4, 0, Some(&mut key)) => 0;
        rb_shutdown(rt, 0, none()) => 0;
    };
    // SAFETY: as above.
    let key = unsafe { key.assume_init() };
    let closed = rb_error::RB_ERR_CLOSED as c_int;
    let nothing = rb_error::RB_ERR_NO_SUCH_SESSION as c_int;
    let session = rb_session { client, serial: 1 };
    let mut group = MaybeUninit::uninit();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let socket = std::os::fd::IntoRawFd::into_raw_fd(socket);
    let called = answers! {
        rb_reactors(rt) => 1;
        rb_runtime_backend(rt) => rb_backend::RB_BACKEND_EPOLL as c_int;
        rb_add_connection(rt, socket, Some(&mut MaybeUninit::uninit())) => closed;
        rb_add_transport(rt, &sized(), Some(&mut MaybeUninit::uninit())) => closed;
        rb_receive(rt, 1, none(), 0) => 0;
        rb_close_connection(rt, 1) => 0;
        rb_add_client(rt, 0, Some(&mut MaybeUninit::uninit())) => closed;
        rb_set_client_state(rt, client, 0) => closed;
        rb_set_client_limits(rt, client, 1, 0) => closed;
        rb_seq4_status(rt, client, None, Some(&mut MaybeUninit::uninit())) => 0;
        rb_is_unsupported(rt, client, 4) => 0;
        rb_add_session(rt, client, &rb_session_options { slots: 1, ..sized() }, Some(&mut MaybeUninit::uninit())) => closed;
        rb_remove_session(rt, session) => 0; // as it is gone
        rb_set_client_id(rt, client, &rb_path_options { window: 1, ..sized() }, Some(&mut MaybeUninit::uninit())) => closed;
        rb_confirm(rt, session) => rb_error::RB_ERR_STALE as c_int;
        rb_is_path_down(rt, client) => 1;
        rb_bind(rt, 1, session) => closed;
        rb_backchannel_ctl(rt, session, 0, Some(&sized::<rb_session_options>().security)) => closed;
        rb_insert(rt, client, 4, 0, Some(&mut MaybeUninit::uninit())) => closed;
        rb_insert_recall_slot(rt, session, 0, Some(&mut MaybeUninit::uninit())) => nothing;
        rb_try_run(rt, key) => rb_try_run_answer::RB_RUN_CLOSED as c_int;
        rb_prefetch(rt, key) => 0;
        rb_cancel(rt, key) => rb_cancel_answer::RB_CANCEL_IDLE as c_int;
        rb_returned(rt, key) => rb_returned_answer::RB_RETURNED_NOT_AWAITED as c_int;
        rb_run_many(rt, &key, 1, None, none(), none(), Some(&mut group)) => 0;
        rb_drain_all(rt, 0, none()) => 0;
        rb_shutdown(rt, 0, none()) => 0;
        rb_drain_client(rt, client, 0, none()) => 0;
        rb_drain_session(rt, session, 0, none()) => 0;
        rb_move_client(rt, client, 0) => closed;
        rb_home_of(rt, client) => 0;
        rb_get_tuning(rt, &mut sized()) => 0;
        rb_add_tenant(rt, c"a".as_ptr(), &sized(), Some(&mut MaybeUninit::uninit())) => 0;
        rb_add_client_of(rt, 1, 0, Some(&mut MaybeUninit::uninit())) => closed;
        rb_set_budget(rt, 1) => 0;
        rb_want_room(rt) => 0;
        rb_memory_pressure(rt) => 0;
        rb_recall_any(rt, 1) => 0;
        rb_recall_slots(rt, session, 0) => nothing;
        rb_delegations_of(rt, client, Some(&mut MaybeUninit::uninit())) => 0;
        rb_get_placement(rt, 0, &mut sized()) => 0;
        rb_get_stats(rt, &mut sized()) => 0;
        rb_get_census(rt, &mut sized()) => 0;
        rb_get_memory(rt, &mut sized()) => 0;
        rb_get_client_stats(rt, client, &mut sized()) => closed;
        rb_get_reactor_stats(rt, 0, &mut sized()) => 0;
        rb_metrics_text(rt, 1, none(), 0, None) => rb_error::RB_ERR_NO_SPACE as c_int;
        rb_flight_text(rt, none(), 0, None) => rb_error::RB_ERR_NO_SPACE as c_int;
        rb_suspend(rt, Some(&mut MaybeUninit::uninit())) => rb_error::RB_ERR_BUSY as c_int;
        rb_checkpoint_to(rt, c"/dev/null/none".as_ptr(), none()) => rb_error::RB_ERR_SYSTEM as c_int;
        rb_remove(rt, key) => rb_remove_answer::RB_REMOVE_REMOVED as c_int;
        rb_remove_client(rt, client) => 0;
    };
    assert!(called.len() > 35, "{called:?}");
    // SAFETY: as above.
    let mut group = unsafe { group.assume_init() };
    answers! { rb_group_free(Some(&mut group)) => 0; };
    answers! { rb_runtime_free(Some(&mut made)) => 0; };
}

#[test]
fn settings_out_of_range_are_named() {
    let refused = |set: fn(&mut rb_options), text: &str| {
        let mut options = sized::<rb_options>();
        set(&mut options);
        // SAFETY: P3
        let answer = unsafe { rb_runtime_new(&options, &hooks(), Some(&mut MaybeUninit::uninit())) };
        assert_eq!(answer, INVALID);
        assert!(last_error().contains(text), "{}", last_error());
    };
    refused(|o| o.backend = 3, "backend is 3");
    refused(|o| o.delivery = 2, "delivery is 2");
    refused(|o| (o.delivery, o.queues) = (1, 1), "RB_DELIVERY_INLINE");
    refused(|o| (o.reactors, o.queues) = (1, 2), "completion_queues is 2, which is not in 0..=1");
    refused(|o| o.reactors = 100_000, "reactors is 100000");
    refused(|o| o.receive_buffers = 3, "power of two");
    refused(|o| o.record_bytes_max = u64::MAX, "record_bytes_max");
    refused(|o| o.log_user = (&raw const *o).cast_mut().cast(), "log_user is set, and log is null");
    refused(|o| o.connect_policy = 4, "connect_policy is 4, which is no rb_connect_policy");
    refused(|o| o.connect_policy = 3, "connect_policy is RB_CONNECT_ASK, and connect_allows is null");
    let unused = "connect_allows or connect_user is set, and not RB_CONNECT_ASK";
    refused(|o| o.connect_user = (&raw const *o).cast_mut().cast(), unused);
    refused(|o| o.cpus = c"1-".as_ptr(), "not a list of CPUs such as 0-3,8");
    refused(|o| o.cpus = c"1000".as_ptr(), "CPU 1000 may not be used: this process may run on ");
}

#[test]
fn settings_change_as_one_value() {
    let mut made = runtime(|_| (), &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let mut tuning = sized::<rb_tuning>();
    answers! { rb_get_tuning(rt, &mut tuning) => 0; };
    assert_eq!((tuning.lease_ms, tuning.batch_max, tuning.recalls_passed_over_max), (90_000, 16, 4));
    (tuning.rpc_timeout_ms, tuning.batch_max, tuning.client_calls_max) = (1234, 8, 3);
    answers! { rb_set_tuning(rt, &tuning) => 0; };
    (tuning.rpc_timeout_ms, tuning.batch_max) = (99, 65);
    answers! { rb_set_tuning(rt, &tuning) => INVALID; };
    assert!(last_error().contains("batch_max is 65"), "{}", last_error());
    answers! { rb_get_tuning(rt, &mut tuning) => 0; };
    assert_eq!((tuning.rpc_timeout_ms, tuning.batch_max, tuning.client_calls_max), (1234, 8, 3));
    answers! { rb_runtime_free(Some(&mut made)) => 0; };
}

#[test]
fn every_error_has_a_text() {
    let text = |error: c_int| {
        // SAFETY: a string that lives for ever.
        unsafe { CStr::from_ptr(rb_strerror(error)) }.to_str().unwrap()
    };
    let all: BTreeSet<_> = (rb_error::RB_ERR_UPGRADE as c_int..=0).map(text).collect();
    assert_eq!(all.len(), 25, "{all:?}");
    assert_eq!((text(-25), text(c_int::MIN), text(5)), ("unknown error", "unknown error", "success"));
    // SAFETY: as above.
    assert_eq!(unsafe { CStr::from_ptr(rb_op_name(4)) }, c"CB_RECALL");
    assert_eq!(rb_abi_version(), RB_ABI_VERSION);
}

#[test]
fn a_panic_does_not_leave_a_function() {
    let answer = guard("rb_test", || "client 0x1".to_owned(), || panic!("on {}", "purpose"));
    assert_eq!(answer, rb_error::RB_ERR_PANIC as c_int);
    assert_eq!(last_error(), "rb_test: client 0x1: panicked: on purpose");
}
