//! Waiting against finishing, in every interleaving: nobody sleeps for ever (loom reports that), and nobody is told how
//! an earlier run ended. Their plain twins are in `waiters.rs`.

use super::{OP_CB_RECALL, model};
use crate::callback::CallbackKey;
use crate::callback::inflight::InFlight;
use crate::callback::slab::CallbackSlab;
use crate::callback::state::{Abandon, Claim, Finish, Removal, StateWord};
use crate::callback::waiters::{Arrivals, WaitTable, Waiter};
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use std::task::{Wake, Waker};

/// What a waiter is told whose callback is not the one that ran.
const STALE: u32 = 0;

/// What a waiter sleeps on.
struct Doorbell {
    rung: Mutex<bool>,
    rings: Condvar,
}

impl Wake for Doorbell {
    fn wake(self: std::sync::Arc<Self>) {
        *self.rung.lock().expect("no panic") = true;
        self.rings.notify_one();
    }
}

fn sleep_until_answered(waiter: &Waiter<u32>) -> u32 {
    let bell = std::sync::Arc::new(Doorbell { rung: Mutex::new(false), rings: Condvar::new() });
    let waker = Waker::from(std::sync::Arc::clone(&bell));
    loop {
        if let Some(answer) = waiter.poll(&waker) {
            return *answer;
        }
        let mut rung = bell.rung.lock().expect("no panic");
        while !*rung {
            rung = bell.rings.wait(rung).expect("no panic");
        }
        *rung = false;
    }
}

/// One callback, whose first run has been won.
struct Scene {
    slab: CallbackSlab,
    key: CallbackKey,
    arrivals: Arrivals<u32>,
    in_flight: InFlight,
    /// The last run that was settled.
    settled: AtomicU32,
}

impl Scene {
    fn new() -> Arc<Self> {
        let slab = CallbackSlab::new(1, 1);
        let key = slab.insert(0, 0, OP_CB_RECALL, 0).expect("there is room");
        let arrivals = Arrivals::new();
        Arc::new(Scene { slab, key, arrivals, in_flight: InFlight::new(), settled: AtomicU32::new(0) })
    }

    fn word(&self) -> &StateWord {
        self.slab[self.key.index].word()
    }

    fn claim(&self) -> Claim {
        self.slab[self.key.index].try_run(self.key.generation)
    }

    /// Takes a won run to its end, as the reactor does, and answers with its number.
    fn run(&self, number: u32, table: &mut WaitTable<u32>) {
        let waited = self.word().settle();
        self.settled.store(number, Ordering::Release);
        let taken = waited.then(|| table.take(&self.arrivals, self.key.index));
        assert_eq!(self.word().finish(true), Finish::Idle { wake: waited }, "nobody begins to wait for a settled run");
        if let Some(taken) = taken {
            table.answer(taken, |_| number);
        }
    }

    /// Waits for the current run, if it is not too late for that; gives the run that it was told of.
    fn wait(&self) -> Option<u32> {
        let settled = self.settled.load(Ordering::Acquire);
        let waiter = self.arrivals.register(self.word(), self.key, 0).ok()?;
        let answer = sleep_until_answered(&waiter);
        assert!(answer > settled, "run {answer} had been settled before the request");
        Some(answer)
    }
}

#[test]
fn t21_two_waiters_of_one_run_are_both_answered() {
    model(|| {
        let scene = Scene::new();
        assert_eq!(scene.claim(), Claim::Submit);
        let waiters = [Arc::clone(&scene), Arc::clone(&scene)].map(|scene| thread::spawn(move || scene.wait()));
        scene.run(1, &mut WaitTable::new(0));
        for waiter in waiters {
            assert!(matches!(waiter.join().expect("no panic"), None | Some(1)));
        }
    });
}

#[test]
fn a_waiter_between_two_runs_gets_the_result_of_one_that_is_not_too_old() {
    model(|| {
        let scene = Scene::new();
        assert_eq!(scene.claim(), Claim::Submit);
        // So that the finisher looks for waiters in any case.
        assert!(scene.arrivals.register(scene.word(), scene.key, 0).is_ok());
        let waiter = Arc::clone(&scene);
        let waiter = thread::spawn(move || waiter.wait());
        let mut table = WaitTable::new(0);
        scene.run(1, &mut table);
        assert_eq!(scene.claim(), Claim::Submit);
        scene.run(2, &mut table);
        waiter.join().expect("no panic");
    });
}

#[test]
fn a_waiter_that_leaves_keeps_nobody_waiting() {
    model(|| {
        let scene = Scene::new();
        assert_eq!(scene.claim(), Claim::Submit);
        let (leaver, stayer) = (Arc::clone(&scene), Arc::clone(&scene));
        let leaver = thread::spawn(move || {
            if let Ok(waiter) = leaver.arrivals.register(leaver.word(), leaver.key, 0) {
                leaver.arrivals.depart(&waiter);
            }
        });
        let stayer = thread::spawn(move || stayer.wait());
        scene.run(1, &mut WaitTable::new(0));
        leaver.join().expect("no panic");
        stayer.join().expect("no panic");
    });
}

/// The callback is removed, and another takes its entry while the waiter begins to wait: the other's run is not his.
#[test]
fn a_waiter_of_a_removed_callback_is_told_nothing_of_the_next() {
    model(|| {
        let scene = Scene::new();
        assert_eq!(scene.claim(), Claim::Submit);
        let waiter = Arc::clone(&scene);
        let waiter = thread::spawn(move || {
            let registered = waiter.arrivals.register(waiter.word(), waiter.key, 0).ok()?;
            Some(sleep_until_answered(&registered))
        });
        let mut table = WaitTable::new(0);
        assert_eq!(scene.word().remove(scene.key.generation), Removal::Deferred);
        let end = |key: CallbackKey, number, table: &mut WaitTable<u32>| {
            let taken = scene.word().settle().then(|| table.take(&scene.arrivals, key.index));
            let finished = scene.word().finish(true);
            if let Some(taken) = taken {
                table.answer(taken, |waiter| if waiter == key { number } else { STALE });
            }
            finished
        };
        assert!(matches!(end(scene.key, 1, &mut table), Finish::Free { .. }));
        scene.slab.free(scene.key.index);
        let next = scene.slab.insert(0, 0, OP_CB_RECALL, 0).expect("the entry is free");
        assert_eq!(scene.slab[next.index].try_run(next.generation), Claim::Submit);
        let other = scene.arrivals.register(scene.word(), next, 0).ok().expect("a run is going on");
        assert_eq!(end(next, 2, &mut table), Finish::Idle { wake: true });
        assert_eq!(sleep_until_answered(&other), 2);
        let told = waiter.join().expect("no panic");
        assert!(matches!(told, None | Some(1 | STALE)), "told of run {told:?}");
    });
}

/// A winner finds the client closed and gives the run up, while somebody begins to wait for it and the client's last run
/// leaves.
#[test]
fn who_waits_for_an_abandoned_run_is_answered_at_the_end_of_the_client() {
    model(|| {
        let scene = Scene::new();
        assert!(scene.in_flight.enter() && !scene.in_flight.close());
        let (refused, waiter) = (Arc::clone(&scene), Arc::clone(&scene));
        let refused = thread::spawn(move || {
            assert_eq!(refused.claim(), Claim::Submit);
            assert!(!refused.in_flight.enter());
            assert!(matches!(refused.word().abandon(), Abandon::Idle { .. }));
        });
        let waiter = thread::spawn(move || {
            let Ok(registered) = waiter.arrivals.register(waiter.word(), waiter.key, 0) else { return };
            if !waiter.in_flight.is_over() {
                assert_eq!(sleep_until_answered(&registered), 9);
            }
        });
        assert!(scene.in_flight.leave() && scene.in_flight.is_over());
        WaitTable::new(9).end(&scene.arrivals, |client| client == 0);
        refused.join().expect("no panic");
        waiter.join().expect("no panic");
    });
}
