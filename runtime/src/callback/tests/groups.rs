//! Groups, step by step and with real threads. The interleavings are in `loom_group.rs`.

use super::OP_CB_RECALL;
use crate::callback::members::{MemberPool, Settled, Tally};
use crate::callback::slab::CallbackSlab;
use crate::callback::state::{Claim, Finish, Flags, Removal};
use crate::callback::{CallbackKey, GroupError, GroupSettled};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Wake, Waker};
use std::thread;

const ROUNDS: u32 = 5_000;

struct Rings(AtomicU32);

impl Wake for Rings {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A slab with one callback at a time, and the pool.
struct Scene {
    slab: CallbackSlab,
    pool: MemberPool,
}

impl Scene {
    fn new() -> Self {
        Scene { slab: CallbackSlab::new(1, 1), pool: MemberPool::new() }
    }

    fn insert(&self) -> CallbackKey {
        self.slab.insert(0, 0, OP_CB_RECALL, 0).expect("the last one was freed")
    }

    fn settle(&self, key: CallbackKey, unless: Flags, how: Settled) {
        self.pool.settle(self.slab[key.index].word().take_members(key.generation, unless), how);
    }

    fn join(&self, key: CallbackKey, group: &Arc<Tally>) -> Claim {
        let member = self.pool.reserve(1).ok().and_then(|mut reserved| reserved.pop()).expect("there is room");
        self.pool.prepare(member, key.index, group);
        let answer = self.slab[key.index].join(key.generation, member, |first| self.pool.link(member, first));
        if matches!(answer, Claim::Stale | Claim::Dying) {
            self.pool.settle_one(member, Settled::Returned);
        }
        answer
    }

    fn run(&self, key: CallbackKey) {
        let word = self.slab[key.index].word();
        loop {
            word.settle();
            match word.finish(true) {
                Finish::RunAgain { .. } => {}
                Finish::Idle { .. } => return,
                Finish::Joined { .. } => return self.settle(key, Flags::RUNNING, Settled::Failed),
                Finish::Free { .. } => return self.free(key),
            }
        }
    }

    fn free(&self, key: CallbackKey) {
        self.settle(key, Flags::empty(), Settled::Returned);
        self.slab.free(key.index);
    }

    fn remove(&self, key: CallbackKey) {
        match self.slab[key.index].word().remove(key.generation) {
            Removal::FreeNow => self.free(key),
            Removal::Deferred => self.settle(key, Flags::empty(), Settled::Returned),
            other => panic!("{other:?}, but nobody else removes"),
        }
    }
}

fn settled(group: &Tally) -> Option<[u32; 3]> {
    group.promise.get().map(|GroupSettled { returned, overdue, failed }| [*returned, *overdue, *failed])
}

#[test]
fn t25_the_last_member_answers_its_group() {
    let group = Tally::new(3);
    let rings = Arc::new(Rings(AtomicU32::new(0)));
    group.settle(Settled::Overdue);
    group.settle(Settled::Returned);
    assert!(group.promise.poll(&Waker::from(Arc::clone(&rings))).is_none());
    group.settle(Settled::Returned);
    assert_eq!((settled(&group), rings.0.load(Ordering::Relaxed)), (None, 0), "perhaps not all have joined");
    group.close();
    assert_eq!((settled(&group), rings.0.load(Ordering::Relaxed)), (Some([2, 1, 0]), 1));
    let nobody = Tally::new(0);
    nobody.close();
    assert_eq!(settled(&nobody), Some([0, 0, 0]));
}

#[test]
fn t25_two_groups_wait_for_one_callback() {
    let scene = Scene::new();
    let key = scene.insert();
    let groups = [(); 2].map(|()| Arc::new(Tally::new(1)));
    assert_eq!(groups.each_ref().map(|group| scene.join(key, group)), [Claim::Submit, Claim::Coalesced]);
    groups.iter().for_each(|group| group.close());
    assert!(groups.iter().all(|group| settled(group).is_none()));
    // The client has said yes; what was recalled is yet to come back.
    let word = scene.slab[key.index].word();
    assert!(word.recalled());
    word.settle();
    assert_eq!(word.finish(true), Finish::Joined { wake: false });
    scene.settle(key, Flags::RUNNING | Flags::OWED, Settled::Returned);
    assert!(groups.iter().all(|group| settled(group).is_none()));
    scene.remove(key);
    assert!(groups.iter().all(|group| settled(group) == Some([1, 0, 0])));
    assert_eq!(scene.join(key, &groups[0]), Claim::Stale);
    assert!(scene.pool.is_idle());
}

#[test]
fn t25_a_member_that_joins_is_settled_once() {
    let scene = Scene::new();
    let key = scene.insert();
    let (start, end) = (Barrier::new(2), Barrier::new(2));
    let groups: Vec<_> = (0..ROUNDS).map(|_| Arc::new(Tally::new(1))).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for group in &groups {
                start.wait();
                if scene.join(key, group) == Claim::Submit {
                    scene.run(key);
                }
                end.wait();
            }
        });
        for group in &groups {
            assert_eq!(scene.slab[key.index].try_run(key.generation), Claim::Submit);
            start.wait();
            scene.run(key);
            end.wait();
            group.close();
            assert_eq!(settled(group), Some([0, 0, 1]));
        }
    });
    assert!(scene.pool.is_idle());
}

#[test]
fn t25_a_member_that_joins_a_callback_on_its_way_out_is_settled_once() {
    let scene = Scene::new();
    let (start, end) = (Barrier::new(3), Barrier::new(3));
    let current = AtomicU32::new(0);
    let groups: Vec<_> = (0..ROUNDS).map(|_| Arc::new(Tally::new(1))).collect();
    let key = || CallbackKey { index: 0, generation: current.load(Ordering::Relaxed) };
    thread::scope(|scope| {
        scope.spawn(|| {
            for group in &groups {
                start.wait();
                if scene.join(key(), group) == Claim::Submit {
                    scene.run(key());
                }
                end.wait();
            }
        });
        scope.spawn(|| {
            for _ in &groups {
                start.wait();
                scene.remove(key());
                end.wait();
            }
        });
        for group in &groups {
            current.store(scene.insert().generation, Ordering::Relaxed);
            assert_eq!(scene.slab[0].try_run(key().generation), Claim::Submit);
            start.wait();
            scene.run(key());
            end.wait();
            group.close();
            assert!(settled(group).is_some_and(|[returned, _, failed]| returned + failed == 1));
        }
    });
    assert!(scene.pool.is_idle());
}

#[test]
fn members_that_were_given_back_have_one_owner() {
    const EACH: u32 = 100;
    let pool = MemberPool::new();
    let owner: Vec<AtomicU32> = (0..3 * EACH).map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        for thread in 1..=3 {
            let (pool, owner) = (&pool, &owner);
            scope.spawn(move || {
                for _ in 0..ROUNDS / 10 {
                    let mut reserved = pool.reserve(EACH as usize).expect("there is room");
                    let mine: Vec<u32> = std::iter::from_fn(|| reserved.pop()).collect();
                    assert_eq!(mine.len(), EACH as usize);
                    for number in mine {
                        let slot = &owner[number as usize];
                        assert_eq!(slot.swap(thread, Ordering::Relaxed), 0, "member {number} has two owners");
                        assert_eq!(slot.swap(0, Ordering::Relaxed), thread);
                        pool.settle_one(number, Settled::Failed);
                    }
                }
            });
        }
    });
    assert!(pool.is_idle());
    assert_eq!(pool.reserve(usize::MAX).err(), Some(GroupError::Full { limit: (1 << 22) - 1 }));
    assert!(pool.is_idle(), "all or none");
}

/// What a callback that is waited for costs, and that it is given back.
#[test]
fn t25_sixteen_bytes_for_each_callback_that_is_waited_for() {
    let pool = MemberPool::new();
    let empty = pool.bytes();
    for _ in 0..3 {
        drop(pool.reserve(10_000).expect("there is room"));
        let segments = 10_000_usize.div_ceil(4096);
        assert_eq!(pool.bytes() - empty, segments * 4096 * 16);
    }
}
