//! The races of the loom tests with real threads, on the real sizes.

use super::{OP_CB_NOTIFY, OP_CB_RECALL};
use crate::callback::CallbackKey;
use crate::callback::inbox::{Inbox, Parking};
use crate::callback::inflight::InFlight;
use crate::callback::slab::CallbackSlab;
use crate::callback::state::{Abandon, Claim, Dequeue, Finish, Removal};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

const ROUNDS: u32 = 20_000;

/// Runs a won callback to its end, with `busy` as the proof that nobody else does; returns how often it ran.
fn run(slab: &CallbackSlab, key: CallbackKey, busy: &AtomicBool) -> u32 {
    let word = slab[key.index].word();
    for runs in 1.. {
        assert!(!busy.swap(true, Ordering::Relaxed), "two owners");
        assert_eq!(word.take_requeue(), Dequeue::Prepare);
        word.settle();
        assert!(busy.swap(false, Ordering::Relaxed), "two owners");
        match word.finish(true) {
            Finish::RunAgain { .. } => {}
            Finish::Idle { .. } | Finish::Joined { .. } => return runs,
            Finish::Free { .. } => {
                slab.free(key.index);
                return runs;
            }
        }
    }
    unreachable!("a callback was asked for without end")
}

/// In each round inserts a callback and removes it, while `threads` others do `work` with its key. There is one entry in
/// all: the next insert finds it only if exactly one of them has freed it.
fn race_a_removal(rounds: u32, op: u8, threads: usize, work: impl Fn(&CallbackSlab, CallbackKey) + Sync) {
    let slab = CallbackSlab::new(1, 1);
    let (start, end) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    let current = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..rounds {
                    start.wait();
                    work(&slab, CallbackKey { index: 0, generation: current.load(Ordering::Relaxed) });
                    end.wait();
                }
            });
        }
        for _ in 0..rounds {
            let key = slab.insert(0, 0, op, 0).expect("the last round freed the entry");
            current.store(key.generation, Ordering::Relaxed);
            start.wait();
            match slab[0].word().remove(key.generation) {
                Removal::FreeNow => slab.free(key.index),
                Removal::Deferred => {}
                other => panic!("{other:?}, but nobody else removes"),
            }
            end.wait();
        }
    });
}

#[test]
fn t4_remove_races_running_work() {
    let busy = AtomicBool::new(false);
    race_a_removal(ROUNDS, OP_CB_RECALL, 1, |slab, key| match slab[0].try_run(key.generation) {
        Claim::Submit => assert_eq!(run(slab, key, &busy), 1),
        Claim::Dying | Claim::Stale => {}
        other => panic!("{other:?}, but nobody else asks"),
    });
}

/// The plain twin of the loom test with this name.
#[test]
fn t4_remove_races_two_requests() {
    let busy = AtomicBool::new(false);
    race_a_removal(ROUNDS / 4, OP_CB_NOTIFY, 2, |slab, key| match slab[0].try_run(key.generation) {
        Claim::Submit => assert!(run(slab, key, &busy) <= 2, "one run, and one for the other request"),
        Claim::Rearmed | Claim::Dying | Claim::Stale => {}
        other => panic!("{other:?} of a kind that must not lose"),
    });
}

/// The plain twin of the loom test with this name: the door is closed before anybody asks.
#[test]
fn t7_a_refused_winner_races_a_remove() {
    let in_flight = InFlight::new();
    assert!(in_flight.close());
    race_a_removal(ROUNDS, OP_CB_RECALL, 1, |slab, key| match slab[0].try_run(key.generation) {
        Claim::Submit => {
            assert!(!in_flight.enter());
            if let Abandon::Free { .. } = slab[0].word().abandon() {
                slab.free(0);
            }
        }
        Claim::Dying | Claim::Stale => {}
        other => panic!("{other:?}, but nobody else asks"),
    });
}

#[test]
fn r1_requests_from_many_threads_run_one_at_a_time() {
    let slab = CallbackSlab::new(1, 1);
    let key = slab.insert(0, 0, OP_CB_NOTIFY, 0).expect("there is room");
    let busy = AtomicBool::new(false);
    let (submits, rearms, runs) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    match slab[key.index].try_run(key.generation) {
                        Claim::Submit => {
                            submits.fetch_add(1, Ordering::Relaxed);
                            runs.fetch_add(run(&slab, key, &busy), Ordering::Relaxed);
                        }
                        Claim::Rearmed => drop(rearms.fetch_add(1, Ordering::Relaxed)),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    let (submits, rearms, runs) = (submits.into_inner(), rearms.into_inner(), runs.into_inner());
    assert_eq!(submits + rearms, 3 * ROUNDS);
    assert!(submits <= runs && runs <= submits + rearms, "{submits} submits, {rearms} rearms, {runs} runs");
}

#[test]
fn t35_a_drain_against_a_winner_lets_nobody_in_afterwards() {
    let (start, end) = (Barrier::new(2), Barrier::new(2));
    let slab = CallbackSlab::new(1, 1);
    let key = slab.insert(0, 0, OP_CB_RECALL, 0).expect("there is room");
    let busy = AtomicBool::new(false);
    let rounds: Vec<(InFlight, AtomicU32)> = (0..ROUNDS).map(|_| (InFlight::new(), AtomicU32::new(0))).collect();
    let note = |drained: bool, drains: &AtomicU32| {
        if drained {
            drains.fetch_add(1, Ordering::Relaxed);
            assert!(!busy.load(Ordering::Relaxed), "a run after the drain");
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for (in_flight, drains) in &rounds {
                start.wait();
                assert_eq!(slab[key.index].try_run(key.generation), Claim::Submit);
                if in_flight.enter() {
                    assert_eq!(run(&slab, key, &busy), 1);
                    note(in_flight.leave(), drains);
                } else {
                    assert_eq!(slab[key.index].word().abandon(), Abandon::Idle { wake: false });
                }
                end.wait();
            }
        });
        for (in_flight, drains) in &rounds {
            start.wait();
            note(in_flight.close(), drains);
            end.wait();
            assert!(in_flight.is_closed() && !in_flight.enter());
            assert_eq!((in_flight.count(), drains.load(Ordering::Relaxed)), (0, 1), "the drain completes once");
        }
    });
}

#[test]
fn t10_work_that_arrives_before_the_park_is_delivered() {
    const PRODUCERS: u32 = 2;
    let slab = CallbackSlab::new(PRODUCERS * ROUNDS, 1);
    let (inbox, parking) = (Inbox::new(), Parking::new());
    let wakes = AtomicU32::new(0);
    let mut parks_prepared = 0;
    let mut last: [Option<u64>; PRODUCERS as usize] = [None; PRODUCERS as usize];
    thread::scope(|scope| {
        let reactor = thread::current();
        for producer in 0..PRODUCERS {
            let (slab, inbox, parking, wakes, reactor) = (&slab, &inbox, &parking, &wakes, reactor.clone());
            scope.spawn(move || {
                for number in 0..ROUNDS {
                    let key = slab.insert(0, producer, OP_CB_RECALL, number.into()).expect("there is room");
                    assert_eq!(slab[key.index].try_run(key.generation), Claim::Submit);
                    inbox.push(slab, key.index);
                    if parking.must_wake() {
                        wakes.fetch_add(1, Ordering::Relaxed);
                        reactor.unpark();
                    }
                }
            });
        }
        let mut received = 0;
        while received < PRODUCERS * ROUNDS {
            let mut chain = inbox.take_all(&slab);
            if chain.is_empty() {
                parks_prepared += 1;
                if parking.prepare_park(|| inbox.is_empty()) {
                    thread::park(); // a lost wake is a test that hangs
                    parking.unpark();
                }
            }
            while let Some(index) = chain.pop(&slab) {
                let entry = &slab[index];
                let last = &mut last[entry.client() as usize];
                assert!(*last < Some(entry.cookie()), "out of order, or twice");
                *last = Some(entry.cookie());
                received += 1;
            }
        }
    });
    assert!(wakes.into_inner() <= parks_prepared, "more than one wake for a park");
}

#[test]
fn frees_that_find_the_shard_locked_are_not_lost() {
    let slab = CallbackSlab::new(64, 2);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = slab.memory(); // holds each lock for a moment
            }
        });
        for _ in 0..ROUNDS / 16 {
            let keys: Vec<CallbackKey> =
                (0..64).map(|_| slab.insert(1, 0, OP_CB_RECALL, 0).expect("all were freed")).collect();
            for key in keys {
                assert_eq!(slab[key.index].word().remove(key.generation), Removal::FreeNow);
                slab.free(key.index);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
