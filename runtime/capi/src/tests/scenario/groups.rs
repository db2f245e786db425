//! Many callbacks with one answer.

use super::*;
use crate::group::*;

#[test]
fn a_group_is_told_once_on_the_queue() {
    let bed = Bed::new(&hooks());
    let (_, theirs) = bed.connect();
    let _client = answer_all(theirs);
    let keys = [bed.insert(1), bed.insert(2), 0];
    let (mut answers, mut name) = ([-1; 3], 1u8);
    let user: *mut c_void = (&raw mut name).cast();
    let (queue, place) = (bed.queue(), answers.as_mut_ptr());
    let mut group = made!(g => rb_run_many(bed.rt(), keys.as_ptr(), 3, queue, user, place, Some(&mut g)));
    let (submitted, stale) = (rb_try_run_answer::RB_RUN_SUBMITTED as i32, rb_try_run_answer::RB_RUN_STALE as i32);
    assert_eq!(answers, [submitted, submitted, stale]);
    bed.expect(rb_item_kind::RB_ITEM_COMPLETION);
    bed.expect(rb_item_kind::RB_ITEM_COMPLETION);
    let mut settled = sized::<rb_group_settled>();
    // SAFETY: P1, P3
    assert_eq!(unsafe { rb_group_result(group.as_ref(), &mut settled) }, rb_error::RB_ERR_PENDING as c_int);
    assert_eq!(rb_queue_release(bed.queue()), 0);
    keys[..2].iter().for_each(|key| assert!(rb_remove(bed.rt(), *key) >= 0));
    // SAFETY: the kind was looked at.
    assert_eq!(unsafe { bed.expect(rb_item_kind::RB_ITEM_NOTICE).user }, user);
    // SAFETY: P1, P3
    assert_eq!(unsafe { rb_group_result(group.as_ref(), &mut settled) }, 0);
    assert_eq!((settled.returned, settled.overdue, settled.failed), (3, 0, 0));
    assert_eq!(rb_group_free(Some(&mut group)), 0);
    // Settled at once: the notice comes all the same.
    let mut stale = made!(g => rb_run_many(bed.rt(), keys.as_ptr(), 3, queue, user, none(), Some(&mut g)));
    bed.expect(rb_item_kind::RB_ITEM_NOTICE);
    // SAFETY: P1, P3
    assert_eq!(unsafe { rb_group_block(Some(&mut stale), 0, &mut settled) }, 0);
    assert!(stale.is_null() && settled.returned == 3);
    bed.end();
}
