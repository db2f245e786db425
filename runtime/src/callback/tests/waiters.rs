//! Waiters, their queue and their table, step by step. The interleavings are in `loom_wait.rs`.

use super::OP_CB_RECALL;
use crate::callback::CallbackKey;
use crate::callback::slab::CallbackSlab;
use crate::callback::state::{Abandon, Claim, Finish, Removal, StateWord, Wait};
use crate::callback::waiters::{Arrivals, DEPARTED_MAX, WaitTable, Waiter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

/// What a waiter is told whose callback is not the one that ran.
const STALE: u32 = 0;

#[derive(Default)]
struct Rings(AtomicU32);

impl Wake for Rings {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Scene {
    slab: CallbackSlab,
    key: CallbackKey,
    arrivals: Arrivals<u32>,
    table: WaitTable<u32>,
    rings: Arc<Rings>,
}

impl Scene {
    fn new() -> Self {
        let slab = CallbackSlab::new(4, 1);
        let key = slab.insert(0, 7, OP_CB_RECALL, 0).expect("there is room");
        Scene { slab, key, arrivals: Arrivals::new(), table: WaitTable::new(5), rings: Arc::default() }
    }

    fn word(&self) -> &StateWord {
        self.slab[self.key.index].word()
    }

    fn begin(&self) {
        assert_eq!(self.slab[self.key.index].try_run(self.key.generation), Claim::Submit);
    }

    fn end(&mut self, number: u32) {
        if self.word().settle() {
            let taken = self.table.take(&self.arrivals, self.key.index);
            assert_eq!(self.word().finish(true), Finish::Idle { wake: true });
            let key = self.key;
            self.table.answer(taken, |waiter| if waiter == key { number } else { STALE });
        } else {
            assert_eq!(self.word().finish(true), Finish::Idle { wake: false });
        }
    }

    fn wait(&self) -> Result<Arc<Waiter<u32>>, Wait> {
        self.arrivals.register(self.word(), self.key, 7)
    }

    fn poll(&self, waiter: &Waiter<u32>) -> Option<u32> {
        waiter.poll(&Waker::from(Arc::clone(&self.rings))).copied()
    }
}

#[test]
fn t21_many_waiters_of_one_run_get_its_result() {
    let mut scene = Scene::new();
    scene.begin();
    let waiters: Vec<_> = (0..10).map(|_| scene.wait().expect("a run is going on")).collect();
    assert!(waiters.iter().all(|w| scene.poll(w).is_none()));
    scene.end(1);
    assert_eq!(scene.rings.0.load(Ordering::Relaxed), 10, "each is woken once");
    assert!(waiters.iter().all(|w| scene.poll(w) == Some(1)));
    assert_eq!(scene.table.len(), 0);
    scene.begin();
    scene.end(2);
    assert!(waiters.iter().all(|w| scene.poll(w) == Some(1)), "an answer stays");
}

#[test]
fn who_comes_too_late_is_told_so() {
    let mut scene = Scene::new();
    assert_eq!(scene.wait().err(), Some(Wait::Idle));
    scene.begin();
    let waiter = scene.wait().expect("a run is going on");
    assert!(scene.word().settle());
    assert_eq!(scene.wait().err(), Some(Wait::TooLate));
    let taken = scene.table.take(&scene.arrivals, scene.key.index);
    assert_eq!(scene.word().finish(true), Finish::Idle { wake: true });
    scene.table.answer(taken, |_| 1);
    assert_eq!(scene.poll(&waiter), Some(1));
    let stale = CallbackKey { generation: 9, ..scene.key };
    assert_eq!(scene.arrivals.register(scene.word(), stale, 7).err(), Some(Wait::Stale));
}

#[test]
fn a_waiter_survives_a_requeue_that_done_asked_for() {
    let mut scene = Scene::new();
    scene.begin();
    let waiter = scene.wait().expect("a run is going on");
    assert!(scene.word().settle());
    scene.word().requeue();
    scene.end(1);
    assert_eq!(scene.poll(&waiter), Some(1));
}

/// It began to wait for a run that was then given up, and the callback with it.
#[test]
fn a_waiter_of_a_removed_callback_is_told_nothing_of_the_next() {
    let mut scene = Scene::new();
    scene.begin();
    let waiter = scene.wait().expect("a run is going on");
    assert_eq!(scene.word().remove(scene.key.generation), Removal::Deferred);
    assert_eq!(scene.word().abandon(), Abandon::Free { wake: true });
    scene.slab.free(scene.key.index);
    let old = std::mem::replace(&mut scene.key, scene.slab.insert(0, 7, OP_CB_RECALL, 0).expect("there is room"));
    assert_eq!(old.index, scene.key.index);
    scene.begin();
    let other = scene.wait().expect("a run is going on");
    scene.end(2);
    assert_eq!((scene.poll(&waiter), scene.poll(&other)), (Some(STALE), Some(2)));
}

#[test]
fn who_left_is_forgotten() {
    let mut scene = Scene::new();
    scene.begin();
    let mut sweeps = 0;
    for _ in 0..2 * DEPARTED_MAX {
        let waiter = scene.wait().expect("a run is going on");
        if scene.arrivals.depart(&waiter) {
            sweeps += 1;
            scene.table.end(&scene.arrivals, |_| false);
            assert_eq!(scene.table.len(), 0);
        }
    }
    assert_eq!(sweeps, 2);
    scene.end(1);
    assert_eq!(scene.rings.0.load(Ordering::Relaxed), 0);
}

#[test]
fn who_waits_for_a_client_that_is_gone_is_answered() {
    let mut scene = Scene::new();
    scene.begin();
    let waiter = scene.wait().expect("a run is going on");
    scene.table.end(&scene.arrivals, |client| client == 8);
    assert_eq!(scene.poll(&waiter), None, "of another client");
    scene.table.end(&scene.arrivals, |client| client == 7);
    assert_eq!(scene.poll(&waiter), Some(5));
    assert_eq!((scene.rings.0.load(Ordering::Relaxed), scene.table.len()), (1, 0));
}
