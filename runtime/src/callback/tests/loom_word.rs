//! The word in every interleaving of few threads. [`Object`] stands for what the word guards: loom reports any two
//! touches of it that are not ordered.

use super::{OP_CB_NOTIFY, OP_CB_RECALL, model};
use crate::callback::inflight::InFlight;
use crate::callback::slab::CallbackSlab;
use crate::callback::state::{Abandon, Claim, Dequeue, Finish, Flags, Removal, Wait};
use crate::callback::{CallbackKey, Cancel, Returned};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

/// What belongs to the owner of a run, and to who frees the entry.
struct Object(UnsafeCell<()>);

impl Object {
    fn new() -> Self {
        Object(UnsafeCell::new(()))
    }

    fn touch(&self) {
        self.0.with_mut(|_| ());
    }
}

/// A slab with one callback, its object, and counts to be compared at the end.
struct Scene {
    slab: CallbackSlab,
    key: CallbackKey,
    object: Object,
    in_flight: InFlight,
    drains: AtomicU32,
    frees: AtomicU32,
    wakes: AtomicU32,
    /// Written by a requester before it asks, read by runs.
    request: AtomicU32,
}

impl Scene {
    fn new(op: u8) -> Arc<Self> {
        let slab = CallbackSlab::new(1, 1);
        let key = slab.insert(0, 0, op, 0).expect("there is room");
        let count = || AtomicU32::new(0);
        Arc::new(Scene {
            slab,
            key,
            object: Object::new(),
            in_flight: InFlight::new(),
            drains: count(),
            frees: count(),
            wakes: count(),
            request: count(),
        })
    }

    fn try_run(&self) -> Claim {
        self.slab[self.key.index].try_run(self.key.generation)
    }

    fn remove(&self) {
        match self.slab[self.key.index].word().remove(self.key.generation) {
            Removal::FreeNow => self.free(),
            Removal::Deferred => {}
            other => panic!("{other:?}, but nobody else removes"),
        }
    }

    fn free(&self) {
        self.object.touch();
        self.frees.fetch_add(1, Ordering::Relaxed);
        self.slab.free(self.key.index);
    }

    fn wake(&self, wake: bool) {
        self.wakes.fetch_add(u32::from(wake), Ordering::Relaxed);
    }

    /// Takes a won run to its end. Returns for each run what `prepare` and `done` saw of the request.
    fn run(&self) -> Vec<(u32, u32)> {
        let word = self.slab[self.key.index].word();
        let mut runs = Vec::new();
        loop {
            assert_eq!(word.take_requeue(), Dequeue::Prepare);
            self.object.touch();
            let prepare = self.request.load(Ordering::Relaxed);
            word.settle();
            let done = self.request.load(Ordering::Relaxed);
            self.object.touch();
            runs.push((prepare, done));
            match word.finish(true) {
                Finish::RunAgain { wake } => self.wake(wake),
                Finish::Idle { wake } | Finish::Joined { wake } => {
                    self.wake(wake);
                    return runs;
                }
                Finish::Free { wake } => {
                    self.wake(wake);
                    self.free();
                    return runs;
                }
            }
        }
    }

    fn flags(&self) -> Flags {
        self.slab[self.key.index].word().snapshot().flags()
    }
}

/// Asks once, and runs what was won; returns the answer and the number of runs.
fn ask(scene: &Scene) -> (Claim, usize) {
    let claim = scene.try_run();
    let runs = if claim == Claim::Submit { scene.run().len() } else { 0 };
    (claim, runs)
}

#[test]
fn r1_never_two_owners() {
    for op in [OP_CB_RECALL, OP_CB_NOTIFY] {
        model(move || {
            let scene = Scene::new(op);
            let others = [Arc::clone(&scene), Arc::clone(&scene)].map(|scene| thread::spawn(move || ask(&scene)));
            let mut answers = vec![ask(&scene)];
            answers.extend(others.map(|thread| thread.join().expect("no panic")));
            let count = |claim| answers.iter().filter(|answer| answer.0 == claim).count();
            let runs: usize = answers.iter().map(|answer| answer.1).sum();
            // R3: each accepted run completes, and a rearm is one more run at most.
            assert!(count(Claim::Submit) >= 1 && runs >= count(Claim::Submit));
            assert!(runs <= count(Claim::Submit) + count(Claim::Rearmed));
            assert_eq!(scene.flags(), Flags::LIVE);
        });
    }
}

#[test]
fn r3_each_accepted_run_completes_once_and_sees_the_request() {
    for op in [OP_CB_RECALL, OP_CB_NOTIFY] {
        model(move || {
            let scene = Scene::new(op);
            assert_eq!(scene.try_run(), Claim::Submit);
            let loser = Arc::clone(&scene);
            let loser = thread::spawn(move || {
                loser.request.store(1, Ordering::Relaxed);
                let claim = loser.try_run();
                let runs = if claim == Claim::Submit { loser.run() } else { Vec::new() };
                (claim, runs)
            });
            let runs = scene.run();
            let (claim, own_runs) = loser.join().expect("no panic");
            // R5: what the loser changed is seen by the next `prepare`, or by the run it lost to.
            match claim {
                Claim::Coalesced => {
                    assert_eq!((runs.len(), runs[0].1), (1, 1), "seen before `done`");
                    assert_eq!(op, OP_CB_RECALL);
                }
                Claim::Rearmed => assert_eq!((runs.len(), runs[1].0), (2, 1), "seen by the next prepare"),
                Claim::Submit => assert_eq!((runs.len(), own_runs), (1, vec![(1, 1)])),
                other => panic!("{other:?}"),
            }
        });
    }
}

#[test]
fn t4_remove_races_running_work() {
    model(|| {
        let scene = Scene::new(OP_CB_NOTIFY);
        let (runner, remover) = (Arc::clone(&scene), Arc::clone(&scene));
        let runner = thread::spawn(move || ask(&runner));
        let remover = thread::spawn(move || remover.remove());
        // Takes the entry over as soon as it is free: the old key must leave the new callback alone (R8).
        let successor = scene.slab.insert(0, 1, OP_CB_RECALL, 1);
        let (claim, _) = runner.join().expect("no panic");
        remover.join().expect("no panic");
        assert!(matches!(claim, Claim::Submit | Claim::Dying | Claim::Stale));
        assert_eq!(scene.frees.load(Ordering::Relaxed), 1, "freed once, by the remover or by the finisher");
        assert_eq!(scene.try_run(), Claim::Stale);
        match successor {
            Ok(key) => {
                assert_eq!(key.generation, scene.key.generation + 1);
                assert_eq!(scene.flags(), Flags::LIVE);
                assert_eq!(scene.slab[key.index].cookie(), 1);
            }
            Err(_) => assert_eq!(scene.flags(), Flags::empty()),
        }
    });
}

#[test]
fn t4_remove_races_two_requests() {
    model(|| {
        let scene = Scene::new(OP_CB_NOTIFY);
        let others = [Arc::clone(&scene), Arc::clone(&scene)].map(|scene| thread::spawn(move || ask(&scene)));
        scene.remove();
        for other in others {
            let _ = other.join().expect("no panic");
        }
        assert_eq!(scene.frees.load(Ordering::Relaxed), 1);
        assert_eq!(scene.flags(), Flags::empty());
    });
}

/// What an embedder's thread does: counts the run it won, or gives it up.
fn ask_unless_closed(scene: &Scene) -> Claim {
    let claim = scene.try_run();
    if claim != Claim::Submit {
        return claim;
    }
    if scene.in_flight.enter() {
        scene.run();
        drained(scene, scene.in_flight.leave());
    } else {
        match scene.slab[scene.key.index].word().abandon() {
            Abandon::Idle { wake } => scene.wake(wake),
            Abandon::Free { wake } => {
                scene.wake(wake);
                scene.free();
            }
        }
    }
    claim
}

/// After the drain nobody but the drainer touches the object.
fn drained(scene: &Scene, complete: bool) {
    if complete {
        scene.object.touch();
        scene.drains.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn t35_a_drain_against_a_winner_lets_nobody_in_afterwards() {
    model(|| {
        let scene = Scene::new(OP_CB_RECALL);
        let others =
            [Arc::clone(&scene), Arc::clone(&scene)].map(|scene| thread::spawn(move || ask_unless_closed(&scene)));
        drained(&scene, scene.in_flight.close());
        for other in others {
            let _ = other.join().expect("no panic");
        }
        assert_eq!(scene.drains.load(Ordering::Relaxed), 1, "complete exactly once");
        assert_eq!(scene.in_flight.count(), 0);
        assert_eq!(scene.flags(), Flags::LIVE, "no run is left without an owner (R6)");
    });
}

#[test]
fn t7_a_refused_winner_races_a_remove() {
    model(|| {
        let scene = Scene::new(OP_CB_NOTIFY);
        let _ = scene.in_flight.close();
        let (asker, remover) = (Arc::clone(&scene), Arc::clone(&scene));
        let asker = thread::spawn(move || ask_unless_closed(&asker));
        let remover = thread::spawn(move || remover.remove());
        let _ = ask_unless_closed(&scene);
        let _ = asker.join().expect("no panic");
        remover.join().expect("no panic");
        assert_eq!(scene.frees.load(Ordering::Relaxed), 1);
        assert_eq!(scene.flags(), Flags::empty());
    });
}

#[test]
fn a_registered_waiter_is_woken_once() {
    model(|| {
        let scene = Scene::new(OP_CB_RECALL);
        assert_eq!(scene.try_run(), Claim::Submit);
        let waiter = Arc::clone(&scene);
        let waiter =
            thread::spawn(move || waiter.slab[waiter.key.index].word().wait(waiter.key.generation) == Wait::Registered);
        scene.run();
        let registered = waiter.join().expect("no panic");
        assert_eq!(scene.wakes.load(Ordering::Relaxed), u32::from(registered));
        assert_eq!(scene.flags(), Flags::LIVE);
    });
}

/// The embedder says that it was returned, the reactor that it is overdue, and perhaps it is removed: one of them has it.
#[test]
fn f4_what_is_owed_is_settled_once() {
    model(|| {
        let scene = Scene::new(OP_CB_RECALL);
        let word = |scene: &Scene| scene.slab[scene.key.index].word().returned(scene.key.generation);
        assert_eq!(scene.try_run(), Claim::Submit);
        assert!(scene.slab[scene.key.index].word().recalled());
        scene.run();
        let (embedder, remover) = (Arc::clone(&scene), Arc::clone(&scene));
        let embedder = thread::spawn(move || word(&embedder));
        let remover = thread::spawn(move || remover.remove());
        let answers = [word(&scene), embedder.join().expect("no panic")];
        remover.join().expect("no panic");
        assert!(answers.iter().filter(|&&answer| answer == Returned::Noted).count() <= 1, "{answers:?}");
        assert_eq!(scene.frees.load(Ordering::Relaxed), 1);
        assert_eq!(word(&scene), Returned::Stale);
    });
}

#[test]
fn t29_a_cancellation_never_reaches_the_next_run() {
    model(|| {
        let scene = Scene::new(OP_CB_RECALL);
        assert_eq!(scene.try_run(), Claim::Submit);
        let asker = Arc::clone(&scene);
        let asker = thread::spawn(move || asker.slab[asker.key.index].word().cancel(asker.key.generation));
        let word = scene.slab[scene.key.index].word();
        word.settle();
        let settled = word.is_cancelled();
        assert_eq!(word.finish(true), Finish::Idle { wake: false });
        let answer = asker.join().expect("no panic");
        assert_eq!(answer == Cancel::Asked, settled, "asked before it was settled, or not at all");
        assert_eq!(scene.try_run(), Claim::Submit);
        assert!(!word.is_cancelled());
    });
}
