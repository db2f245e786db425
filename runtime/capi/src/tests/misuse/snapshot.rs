//! Functions of snapshots.

use super::*;
use crate::snapshot::*;

/// Every function that takes a pointer is given none.
pub fn nulls() -> BTreeSet<String> {
    let (mut ending, mut number) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    answers! {
        rb_snapshot_new(None, 1, None) => NULL;
        rb_snapshot_new(None, 1, Some(&mut MaybeUninit::uninit())) => NULL;
        rb_snapshot_totals(None, none()) => NULL;
        rb_snapshot_reactor(None, 0, none(), none()) => NULL;
        rb_snapshot_ending(None, 0, 0, None, None) => NULL;
        rb_snapshot_ending(None, 0, 0, Some(&mut ending), None) => NULL;
        rb_snapshot_ending(None, 0, 0, Some(&mut ending), Some(&mut number)) => NULL;
        rb_snapshot_client(None, 0, None, none()) => NULL;
        rb_snapshot_client(None, 0, Some(&mut number), none()) => NULL;
        rb_snapshot_session(None, 0, 0, none()) => NULL;
        rb_snapshot_callback(None, 0, 0, none()) => NULL;
        rb_snapshot_latency(None, 0, none()) => NULL;
        rb_snapshot_quantile(None, 0, 0.5, None) => NULL;
        rb_snapshot_quantile(None, 0, 0.5, Some(&mut number)) => NULL;
        rb_snapshot_within(None, 0, 0, None) => NULL;
        rb_snapshot_within(None, 0, 0, Some(&mut number)) => NULL;
        rb_snapshot_text(None, 1, none(), 0, None) => NULL;
        rb_snapshot_free(None) => NULL;
        rb_snapshot_free(Some(&mut none())) => NULL;
    }
}

/// Numbers that nothing has, places of a wrong size, no places: of a runtime without clients.
#[test]
fn what_a_snapshot_does_not_have_is_told() {
    let mut made = runtime(|_| (), &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let mut place = MaybeUninit::uninit();
    answers! { rb_snapshot_new(rt, 1, Some(&mut place)) => 0; };
    // SAFETY: written by a function that has not failed.
    let mut there = unsafe { place.assume_init() };
    // SAFETY: just made.
    let seen = unsafe { there.as_ref() };
    let (mut ending, mut number) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    const SIZE: c_int = rb_error::RB_ERR_SIZE as c_int;
    answers! {
        rb_snapshot_totals(seen, none()) => NULL;
        rb_snapshot_totals(seen, &mut rb_stats { size: 3, ..sized() }) => SIZE;
        rb_snapshot_reactor(seen, 0, none(), none()) => NULL;
        rb_snapshot_reactor(seen, 7, none(), none()) => NULL;
        rb_snapshot_reactor(seen, 0, &mut sized(), &mut rb_client_stats { size: 3, ..sized() }) => SIZE;
        rb_snapshot_reactor(seen, 0, &mut sized(), none()) => 1;
        rb_snapshot_reactor(seen, 1, &mut sized(), none()) => 0;
        rb_snapshot_ending(seen, 0, 0, Some(&mut ending), None) => NULL;
        rb_snapshot_ending(seen, 0, 0, Some(&mut ending), Some(&mut number)) => 0;
        rb_snapshot_ending(seen, u32::MAX, 0, Some(&mut ending), Some(&mut number)) => 0;
        rb_snapshot_client(seen, 0, None, none()) => NULL;
        rb_snapshot_client(seen, u32::MAX, Some(&mut number), &mut sized()) => 0;
        rb_snapshot_client(seen, 0, Some(&mut number), &mut rb_client_stats { size: 3, ..sized() }) => SIZE;
        rb_snapshot_session(seen, 0, 0, none()) => NULL;
        rb_snapshot_session(seen, 0, 0, &mut rb_session_report { size: 3, ..sized() }) => SIZE;
        rb_snapshot_session(seen, 0, 0, &mut sized()) => 0;
        rb_snapshot_callback(seen, 0, 0, none()) => NULL;
        rb_snapshot_callback(seen, 0, 0, &mut rb_callback_report { size: 3, ..sized() }) => SIZE;
        rb_snapshot_callback(seen, 0, 0, &mut sized()) => 0;
        rb_snapshot_latency(seen, 0, none()) => NULL;
        rb_snapshot_latency(seen, 0, &mut rb_latency { size: 3, ..sized() }) => SIZE;
        rb_snapshot_latency(seen, 0, &mut sized()) => 0;
        rb_snapshot_quantile(seen, 0, 1.5, Some(&mut number)) => INVALID;
        rb_snapshot_quantile(seen, 0, f64::NAN, Some(&mut number)) => INVALID;
        rb_snapshot_quantile(seen, 0, 0.5, Some(&mut number)) => 0;
        rb_snapshot_within(seen, 0, 0, None) => NULL;
        rb_snapshot_within(seen, 0, 0, Some(&mut number)) => 0;
        rb_snapshot_text(seen, 1, none(), 1, None) => NULL;
        rb_snapshot_text(seen, 1, none(), 0, None) => rb_error::RB_ERR_NO_SPACE as c_int;
        rb_snapshot_free(Some(&mut there)) => 0;
        rb_snapshot_free(Some(&mut there)) => NULL;
        rb_runtime_free(Some(&mut made)) => 0;
    };
}
