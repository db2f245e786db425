//! What the embedder is told when there are too many delegations, and asked to do.

use super::common::eventually;
use super::*;
use crate::budget::rb_recall_any;
use crate::budget::rb_set_budget;
use crate::callback::rb_insert;
use crate::client::rb_add_client;
use crate::numbers::rb_op;
use crate::queue::{rb_event, rb_event_kind};
use crate::stats::{rb_get_stats, rb_stats};
use crate::{rb_client, rb_runtime_free};
use std::sync::Mutex;

static COUNTS: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static EVENTS: Mutex<Vec<rb_event>> = Mutex::new(Vec::new());

extern "C" fn recall(_: *mut c_void, _: rb_client, count: usize) -> usize {
    COUNTS.lock().unwrap().push(count);
    20
}

extern "C" fn event(_: *mut c_void, event: *const rb_event) {
    // SAFETY: the runtime's, for the time of the call.
    EVENTS.lock().unwrap().push(unsafe { event.read() });
}

fn told(kind: rb_event_kind) -> Option<rb_event> {
    EVENTS.lock().unwrap().iter().find(|event| event.kind == kind as i32).copied()
}

#[test]
fn above_the_budget_the_embedder_is_told_and_recalls_what_was_asked_for_in_vain() {
    let table = rb_hooks { event: Some(event), recall_least_recently_used: Some(recall), ..hooks() };
    let mut made = runtime(|_| (), &table);
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let mut place = MaybeUninit::uninit();
    assert_eq!(rb_add_client(rt, 0, Some(&mut place)), 0);
    // SAFETY: written by a function that has not failed.
    let client = unsafe { place.assume_init() };
    for cookie in 0..40 {
        assert_eq!(rb_insert(rt, client, rb_op::RB_CB_RECALL as i32, cookie, Some(&mut MaybeUninit::uninit())), 0);
    }
    assert_eq!(rb_set_budget(rt, 16), 0);
    eventually("it is recalled", || told(rb_event_kind::RB_EVENT_ASKED_IN_VAIN).is_some());
    let asked = told(rb_event_kind::RB_EVENT_ASKED_TO_KEEP).unwrap();
    assert_eq!((asked.client, asked.held, asked.keep), (client, 40, 14));
    let vain = told(rb_event_kind::RB_EVENT_ASKED_IN_VAIN).unwrap();
    assert_eq!((vain.client, vain.held, vain.keep, vain.recalled), (client, 40, 14, 20));
    assert_eq!(*COUNTS.lock().unwrap(), [26]);
    assert_eq!(rb_recall_any(rt, 5), 0);
    eventually("all are asked", || told(rb_event_kind::RB_EVENT_RECALL_ANY_SENT).is_some());
    let sent = told(rb_event_kind::RB_EVENT_RECALL_ANY_SENT).unwrap();
    assert_eq!((sent.keep, sent.client), (5, 0));
    let mut stats = sized::<rb_stats>();
    // SAFETY: P3
    assert_eq!(unsafe { rb_get_stats(rt, &mut stats) }, 0);
    assert_eq!((stats.delegations, stats.reaper_asked, stats.reaper_recalled), (40, 1, 20));
    assert_eq!(rb_runtime_free(Some(&mut made)), 0);
}
