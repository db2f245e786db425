//! Structs that begin with their size.

use super::*;
use crate::checkpoint::*;
use crate::snapshot::*;
use crate::upgrade::*;

/// Structs whose size was not set, is too small, or is larger with something that this version does not know.
#[test]
fn wrong_sizes_are_errors() {
    let size = rb_error::RB_ERR_SIZE as c_int;
    let mut made = runtime(|_| (), &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let mut place = MaybeUninit::uninit();
    answers! { rb_snapshot_new(rt, 1, Some(&mut place)) => 0; };
    // SAFETY: written by a function that has not failed.
    let mut there = unsafe { place.assume_init() };
    let mut written = checkpoint::opened(&checkpoint::written(rt));
    // SAFETY: both just made.
    let (seen, file) = unsafe { (there.as_ref(), written.as_ref()) };
    let nowhere = c"/dev/null/none".as_ptr();
    let mut refused = BTreeSet::new();
    macro_rules! refused {
        ($type:ty, $pointer:ident => $call:expr) => {
            for wrong in [0, size_of::<usize>(), size_of::<$type>() - 1, usize::MAX] {
                let mut value = sized::<$type>();
                value.size = wrong;
                let $pointer = &raw mut value;
                // SAFETY: P3 does not hold: that is what the function has to find out.
                #[allow(unused_unsafe)]
                let answer = unsafe { $call };
                assert_eq!(answer, size, "{} of {wrong} bytes: {}", stringify!($type), last_error());
            }
            refused.insert(stringify!($type).to_owned());
        };
    }
    refused!(rb_options, p => rb_runtime_new(p, &hooks(), Some(&mut MaybeUninit::uninit())));
    refused!(rb_hooks, p => rb_runtime_new(none(), p, Some(&mut MaybeUninit::uninit())));
    refused!(rb_transport, p => rb_add_transport(rt, p, Some(&mut MaybeUninit::uninit())));
    refused!(rb_session_options, p => rb_add_session(rt, 1, p, Some(&mut MaybeUninit::uninit())));
    refused!(rb_path_options, p => rb_set_client_id(rt, 1, p, Some(&mut MaybeUninit::uninit())));
    refused!(rb_drain_report, p => rb_drain_all(rt, 0, p));
    refused!(rb_drain_report, p => rb_shutdown(rt, 0, p));
    refused!(rb_drain_report, p => rb_drain_client(rt, 1, 0, p));
    refused!(rb_drain_report, p => rb_drain_session(rt, NO_SESSION, 0, p));
    refused!(rb_stats, p => rb_get_stats(rt, p));
    refused!(rb_census, p => rb_get_census(rt, p));
    refused!(rb_memory, p => rb_get_memory(rt, p));
    refused!(rb_tuning, p => rb_get_tuning(rt, p));
    refused!(rb_tenant_stats, p => rb_get_tenant_stats(rt, 1, p));
    refused!(rb_tenant_limits, p => rb_add_tenant(rt, c"a".as_ptr(), p, Some(&mut MaybeUninit::uninit())));
    refused!(rb_tenant_limits, p => rb_set_tenant_limits(rt, 1, p));
    refused!(rb_tuning, p => rb_set_tuning(rt, p));
    refused!(rb_client_stats, p => rb_get_client_stats(rt, 1, p));
    refused!(rb_stats, p => rb_get_reactor_stats(rt, 0, p));
    refused!(rb_placement, p => rb_get_placement(rt, 0, p));
    refused!(rb_checkpoint_size, p => rb_checkpoint_to(rt, nowhere, p));
    refused!(rb_checkpoint_info, p => rb_get_checkpoint_info(file, p));
    refused!(rb_stats, p => rb_snapshot_totals(seen, p));
    refused!(rb_client_stats, p => rb_snapshot_reactor(seen, 0, none(), p));
    // Nobody is there: what is wrong with the place is told all the same.
    refused!(rb_session_report, p => rb_snapshot_session(seen, 0, 0, p));
    refused!(rb_callback_report, p => rb_snapshot_callback(seen, 0, 0, p));
    refused!(rb_latency, p => rb_snapshot_latency(seen, 0, p));
    refused!(rb_attributes, p => rb_decode_getattr([0; 8].as_ptr(), 8, p));
    refused!(rb_ended, p => rb_wait_block(Some(&mut none()), 0, p));
    refused!(rb_group_settled, p => rb_group_block(Some(&mut none()), 0, p));
    refused!(rb_upgraded, p => rb_upgrade_to(rt, 0, none(), 0, 0, p));
    let (from, thread) = upgrade::hand_over(made);
    let mut received = upgrade::received(&from);
    // SAFETY: just made.
    refused!(rb_upgrade_info, p => rb_get_upgrade_info(received.as_ref(), p));
    refused!(rb_upgraded, p => rb_upgrade_confirm(Some(&mut received), p));
    answers! { rb_upgrade_free(Some(&mut received)) => 0; };
    assert_ne!(thread.join().unwrap().0, 0);
    // None of them has drained anything.
    answers! { rb_add_client(rt, 0, Some(&mut MaybeUninit::uninit())) => 0; };
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let all = named(&sources, "\nunsafe impl Versioned for ", "", ' ');
    assert_eq!(refused, all, "left: given with a wrong size; right: what has a size");

    /// What a later version may have.
    #[repr(C)]
    struct Later {
        options: rb_options,
        more: u64,
    }
    for (more, expected) in [(0, 0), (1, size)] {
        let mut later = Later { options: sized(), more };
        (later.options.size, later.options.reactors) = (size_of::<Later>(), 1);
        let mut second = MaybeUninit::new(none());
        // SAFETY: P3: as many bytes are there.
        let answer = unsafe { rb_runtime_new((&raw const later).cast(), &hooks(), Some(&mut second)) };
        assert_eq!(answer, expected, "more: {more}: {}", last_error());
        // SAFETY: initialised above.
        let mut second = unsafe { second.assume_init() };
        assert_eq!(rb_runtime_free(Some(&mut second)), if expected == 0 { 0 } else { NULL });
    }
    answers! {
        rb_snapshot_free(Some(&mut there)) => 0;
        rb_checkpoint_free(Some(&mut written)) => 0;
        rb_runtime_free(Some(&mut made)) => 0;
    };
}
