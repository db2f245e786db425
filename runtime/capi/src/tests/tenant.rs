//! What was counted for a tenant, as C is told.

use super::*;
use crate::callback::rb_insert;
use crate::numbers::rb_op;
use crate::rb_runtime_free;
use crate::tenant::{rb_add_client_of, rb_add_tenant, rb_get_tenant_stats, rb_tenant_limits, rb_tenant_stats};

#[test]
fn a_tenant_is_counted_and_its_limit_holds() {
    let mut made = runtime(|_| (), &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let limits = rb_tenant_limits { callbacks_max: 2, ..sized() };
    let mut tenant = MaybeUninit::uninit();
    // SAFETY: P2, P3
    assert_eq!(unsafe { rb_add_tenant(rt, c"acme".as_ptr(), &limits, Some(&mut tenant)) }, 0);
    // SAFETY: written by a function that has not failed.
    let tenant = unsafe { tenant.assume_init() };
    let mut client = MaybeUninit::uninit();
    assert_eq!(rb_add_client_of(rt, tenant, 0, Some(&mut client)), 0);
    // SAFETY: as above.
    let client = unsafe { client.assume_init() };
    let full = rb_error::RB_ERR_FULL as c_int;
    for (cookie, expected) in [(0, 0), (1, 0), (2, full), (3, full), (4, full)] {
        let op = rb_op::RB_CB_RECALL as i32;
        assert_eq!(rb_insert(rt, client, op, cookie, Some(&mut MaybeUninit::uninit())), expected);
    }
    let mut stats = sized::<rb_tenant_stats>();
    // SAFETY: P3
    assert_eq!(unsafe { rb_get_tenant_stats(rt, tenant, &mut stats) }, 0);
    assert_eq!((stats.callbacks, stats.refused, stats.calls_out, stats.callbacks_sent), (2, 3, 0, 0));
    assert_eq!(rb_runtime_free(Some(&mut made)), 0);
}
