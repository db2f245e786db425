//! The inbox and the parked/wake handshake in every interleaving of few threads.

use super::{OP_CB_RECALL, model};
use crate::callback::CallbackKey;
use crate::callback::inbox::{Inbox, Parking};
use crate::callback::inflight::InFlight;
use crate::callback::slab::CallbackSlab;
use crate::callback::state::{Abandon, Claim, Dequeue, Finish, Removal};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// A reactor's eventfd.
struct Doorbell {
    rings: Mutex<u32>,
    rung: Condvar,
}

impl Doorbell {
    fn ring(&self) {
        *self.rings.lock().expect("no panic") += 1;
        self.rung.notify_one();
    }

    /// Sleeps until it rings; loom reports a sleep without end.
    fn sleep(&self) -> u32 {
        let mut rings = self.rings.lock().expect("no panic");
        while *rings == 0 {
            rings = self.rung.wait(rings).expect("no panic");
        }
        std::mem::take(&mut rings)
    }
}

struct Scene {
    slab: CallbackSlab,
    inbox: Inbox,
    parking: Parking,
    in_flight: InFlight,
    doorbell: Doorbell,
}

impl Scene {
    fn new(entries: u32) -> Arc<Self> {
        let slab = CallbackSlab::new(entries, 1);
        for number in 0..entries {
            slab.insert(0, number, OP_CB_RECALL, 0).expect("there is room");
        }
        let doorbell = Doorbell { rings: Mutex::new(0), rung: Condvar::new() };
        Arc::new(Scene { slab, inbox: Inbox::new(), parking: Parking::new(), in_flight: InFlight::new(), doorbell })
    }

    fn push(&self, index: u32) {
        self.inbox.push(&self.slab, index);
        if self.parking.must_wake() {
            self.doorbell.ring();
        }
    }

    fn take_all(&self, taken: &mut Vec<u32>) {
        let mut chain = self.inbox.take_all(&self.slab);
        while let Some(index) = chain.pop(&self.slab) {
            taken.push(index);
        }
    }

    /// A reactor that sleeps whenever it has nothing to do, until it has taken `count` entries.
    fn take(&self, count: usize) -> Vec<u32> {
        let mut taken = Vec::new();
        loop {
            self.take_all(&mut taken);
            if taken.len() >= count {
                return taken;
            }
            if self.parking.prepare_park(|| self.inbox.is_empty()) {
                let rings = self.doorbell.sleep();
                // One for this park, and one that was under way when an earlier one was called off.
                assert!(rings <= 2, "woken {rings} times");
                self.parking.unpark();
            }
        }
    }
}

#[test]
fn t10_work_that_arrives_before_the_park_is_delivered() {
    model(|| {
        let scene = Scene::new(1);
        let producer = Arc::clone(&scene);
        let producer = thread::spawn(move || producer.push(0));
        assert_eq!(scene.take(1), [0]);
        producer.join().expect("no panic");
    });
}

#[test]
fn t10_two_producers_and_a_sleepy_reactor() {
    model(|| {
        let scene = Scene::new(2);
        let producers = [0, 1].map(|index| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.push(index))
        });
        let mut taken = scene.take(2);
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        for producer in producers {
            producer.join().expect("no panic");
        }
    });
}

#[test]
fn t10_the_end_of_a_batch_wakes_for_all_of_it() {
    model(|| {
        let scene = Scene::new(2);
        let producer = Arc::clone(&scene);
        let producer = thread::spawn(move || {
            producer.inbox.push(&producer.slab, 0);
            producer.inbox.push(&producer.slab, 1);
            if producer.parking.must_wake() {
                producer.doorbell.ring();
            }
        });
        assert_eq!(scene.take(2), [0, 1]);
        producer.join().expect("no panic");
    });
}

/// What the reactor queues itself wakes nobody, and is found before it sleeps, whatever comes from others.
#[test]
fn t10_the_reactors_own_work_and_that_of_others() {
    model(|| {
        let scene = Scene::new(3);
        let producer = Arc::clone(&scene);
        let producer = thread::spawn(move || producer.push(2));
        scene.inbox.push_own(&scene.slab, 0);
        scene.inbox.push_own(&scene.slab, 1);
        let mut taken = scene.take(3);
        assert!(taken.iter().position(|i| *i == 0) < taken.iter().position(|i| *i == 1), "its own in order: {taken:?}");
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
        producer.join().expect("no panic");
        assert!(scene.inbox.is_empty());
    });
}

/// Runs of the home reactor that end in a row, and let others in meanwhile, while another thread asks and one drains.
#[test]
fn t35_runs_that_take_the_place_of_others_meet_a_drain() {
    model(|| {
        let scene = Scene::new(1);
        assert!(scene.in_flight.enter());
        let (asker, drainer) = (Arc::clone(&scene), Arc::clone(&scene));
        let asker = thread::spawn(move || asker.in_flight.enter() && asker.in_flight.leave());
        let drainer = thread::spawn(move || drainer.in_flight.close());
        scene.in_flight.leave_later();
        if scene.in_flight.enter_at_home() {
            assert!(scene.in_flight.count() >= 1, "a run that was let in is counted");
            assert!(!scene.in_flight.is_over());
            scene.in_flight.leave_later();
        }
        let ends = [scene.in_flight.settle(), asker.join().expect("no panic"), drainer.join().expect("no panic")];
        assert_eq!(ends.iter().filter(|end| **end).count(), 1, "one of them ends the drain");
        assert!(scene.in_flight.is_over() && !scene.in_flight.enter_at_home());
    });
}

/// The reactor drains: whoever was let in before is taken from the inbox and completed, removed or not.
#[test]
fn t35_a_queued_run_meets_remove_and_drain() {
    model(|| {
        let scene = Scene::new(1);
        let key = CallbackKey { index: 0, generation: 1 };
        let (asker, remover) = (Arc::clone(&scene), Arc::clone(&scene));
        let asker = thread::spawn(move || {
            if asker.slab[0].try_run(key.generation) != Claim::Submit {
                return;
            }
            if asker.in_flight.enter() {
                asker.push(0);
            } else if let Abandon::Free { .. } = asker.slab[0].word().abandon() {
                asker.slab.free(0);
            }
        });
        let remover = thread::spawn(move || {
            if remover.slab[0].word().remove(key.generation) == Removal::FreeNow {
                remover.slab.free(0);
            }
        });
        let mut drained = scene.in_flight.close();
        while !drained {
            assert_eq!(scene.take(1), [0]);
            let word = scene.slab[0].word();
            assert_eq!(word.take_requeue(), Dequeue::Prepare);
            word.settle();
            if let Finish::Free { .. } = word.finish(true) {
                scene.slab.free(0);
            }
            drained = scene.in_flight.leave();
        }
        assert!(scene.in_flight.is_over(), "one drain, and it ends");
        asker.join().expect("no panic");
        remover.join().expect("no panic");
        assert!(scene.inbox.is_empty());
        // One entry in all: it was freed, and once.
        assert!(scene.slab.insert(0, 0, OP_CB_RECALL, 0).is_ok() && scene.slab.insert(0, 0, OP_CB_RECALL, 0).is_err());
    });
}

#[test]
fn one_park_is_woken_once() {
    model(|| {
        let scene = Scene::new(2);
        assert!(scene.parking.prepare_park(|| scene.inbox.is_empty()));
        let wakers = [0, 1].map(|index| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                scene.inbox.push(&scene.slab, index);
                scene.parking.must_wake()
            })
        });
        let woken = wakers.map(|waker| waker.join().expect("no panic"));
        assert_eq!(woken.iter().filter(|&&woken| woken).count(), 1);
    });
}

#[test]
fn entries_of_two_producers_arrive_once_and_in_order() {
    model(|| {
        let scene = Scene::new(4);
        let producers = [0, 2].map(|first| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                scene.inbox.push(&scene.slab, first);
                scene.inbox.push(&scene.slab, first + 1);
            })
        });
        let mut taken = Vec::new();
        scene.take_all(&mut taken);
        scene.take_all(&mut taken);
        for producer in producers {
            producer.join().expect("no panic");
        }
        scene.take_all(&mut taken);
        for first in [0, 2] {
            let of_one: Vec<u32> = taken.iter().copied().filter(|index| index & 2 == first).collect();
            assert_eq!(of_one, [first, first + 1], "first come, first served, for each producer");
        }
    });
}
