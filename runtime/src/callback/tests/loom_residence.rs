//! A client that moves while messages are sent to it, in every interleaving: none is lost, doubled or overtaken, and nobody
//! sleeps for ever (loom reports that). Their plain twins are in `residence.rs`.

use super::model;
use crate::callback::inbox::Parking;
use crate::callback::residence::Residence;
use crate::sync::Queue;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Two reactors, as far as a move needs them.
struct Scene {
    residence: Residence,
    queues: [Queue<u32>; 2],
    parking: Parking,
    rung: Mutex<bool>,
    rings: Condvar,
}

impl Scene {
    fn new() -> Arc<Self> {
        Arc::new(Scene {
            residence: Residence::new(),
            queues: [Queue::new(), Queue::new()],
            parking: Parking::new(),
            rung: Mutex::new(false),
            rings: Condvar::new(),
        })
    }

    fn wake(&self) {
        if self.parking.must_wake() {
            *self.rung.lock().expect("no panic") = true;
            self.rings.notify_one();
        }
    }

    fn send(&self, message: u32) {
        let visit = self.residence.enter();
        self.queues[visit.home].push(message);
        if self.residence.leave(visit) == Some(0) {
            self.wake();
        }
    }

    fn take(&self, reactor: usize) -> Vec<u32> {
        std::iter::from_fn(|| self.queues[reactor].pop()).collect()
    }

    /// Reactor 0 moves the client to reactor 1, asleep while it has to wait. What the new home is sent with it.
    fn move_away(&self) -> Vec<u32> {
        assert!(self.residence.begin_move(1));
        while !self.residence.is_quiet() {
            if self.parking.prepare_park(|| !self.residence.is_quiet()) {
                let mut rung = self.rung.lock().expect("no panic");
                while !*rung {
                    rung = self.rings.wait(rung).expect("no panic");
                }
                *rung = false;
                drop(rung);
                self.parking.unpark();
            }
        }
        self.take(0)
    }
}

#[test]
fn messages_to_a_moving_client_are_neither_lost_nor_overtaken() {
    model(|| {
        let scene = Scene::new();
        let sender = Arc::clone(&scene);
        let sender = thread::spawn(move || {
            sender.send(1);
            sender.send(2);
        });
        let mut acted_on = scene.move_away();
        scene.residence.arrived();
        sender.join().expect("no panic");
        acted_on.extend(scene.take(1));
        assert_eq!(acted_on, [1, 2]);
        assert!(scene.take(0).is_empty(), "nothing comes to the old home after it was quiet");
    });
}

#[test]
fn the_last_visitor_of_the_old_home_wakes_it() {
    model(|| {
        let scene = Scene::new();
        let senders = [1, 2].map(|message| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.send(message))
        });
        let mut acted_on = scene.move_away();
        scene.residence.arrived();
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
        acted_on.extend(scene.take(1));
        acted_on.sort_unstable();
        assert_eq!(acted_on, [1, 2]);
        assert!(scene.take(0).is_empty());
    });
}

/// A second sender learns of what the first has sent.
#[test]
fn who_learnt_of_a_message_does_not_overtake_it() {
    model(|| {
        let scene = Scene::new();
        let first = Arc::clone(&scene);
        let first = thread::spawn(move || {
            first.send(1);
            let second = Arc::clone(&first);
            thread::spawn(move || second.send(2)).join().expect("no panic");
        });
        let mut acted_on = scene.move_away();
        scene.residence.arrived();
        first.join().expect("no panic");
        acted_on.extend(scene.take(1));
        assert_eq!(acted_on, [1, 2]);
    });
}
