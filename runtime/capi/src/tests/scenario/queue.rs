//! What a queue gives first, and when its descriptor is readable.

use super::*;
use crate::pointer::User;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::BorrowedFd;

impl Bed {
    fn post_notice(&self) {
        let notice = Message::About { kind: rb_item_kind::RB_ITEM_NOTICE, user: User(none()) };
        self.queue().unwrap().mailbox.post(notice);
    }

    /// The kinds of up to `max` items.
    fn kinds(&self, max: usize) -> Vec<i32> {
        let mut items = vec![MaybeUninit::<rb_item>::uninit(); max];
        // SAFETY: P2
        let count = unsafe { rb_queue_poll(self.queue(), items[0].as_mut_ptr(), max) };
        // SAFETY: as many have been written.
        items[..count as usize].iter().map(|item| unsafe { item.assume_init_ref() }.kind).collect()
    }
}

#[test]
fn what_a_poll_leaves_on_the_queue_can_be_polled_for() {
    let bed = Bed::new(&hooks());
    // SAFETY: the queue's, which lives as long as the bed.
    let descriptor = unsafe { BorrowedFd::borrow_raw(rb_queue_fd(bed.queue())) };
    let notice = rb_item_kind::RB_ITEM_NOTICE as i32;
    (0..100).for_each(|_| bed.post_notice());
    let mut told = 0;
    while told < 100 {
        let ready = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        assert_eq!(ready, Ok(1), "after {told} of 100");
        told += bed.kinds(64).iter().filter(|kind| **kind == notice).count();
    }
    bed.end();
}

#[test]
fn completions_are_told_one_by_one_while_messages_keep_coming() {
    let bed = Bed::new(&hooks());
    let key = bed.insert(1);
    assert_eq!((rb_try_run(bed.rt(), key), rb_cancel(bed.rt(), key) >= 0), (0, true));
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        bed.post_notice();
        bed.post_notice();
        if bed.kinds(1) == [rb_item_kind::RB_ITEM_COMPLETION as i32] {
            break;
        }
        assert!(Instant::now() < until, "only messages came");
    }
    bed.end();
}
