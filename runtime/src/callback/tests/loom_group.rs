//! Groups in every interleaving of two or three threads: each member is settled once, and a group is answered by the last
//! one. Their plain twins are in `groups.rs`.

use super::{OP_CB_RECALL, model};
use crate::callback::CallbackKey;
use crate::callback::members::{MemberPool, Settled, Tally};
use crate::callback::slab::CallbackSlab;
use crate::callback::state::{Claim, Finish, Flags, Removal};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use std::task::{Wake, Waker};

struct Rings(AtomicU32);

impl Wake for Rings {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One callback, and a group of one that is to wait for it.
struct Scene {
    slab: CallbackSlab,
    key: CallbackKey,
    pool: MemberPool,
    group: std::sync::Arc<Tally>,
}

impl Scene {
    fn new() -> Arc<Self> {
        let slab = CallbackSlab::new(1, 1);
        let key = slab.insert(0, 0, OP_CB_RECALL, 0).expect("there is room");
        Arc::new(Scene { slab, key, pool: MemberPool::new(), group: std::sync::Arc::new(Tally::new(1)) })
    }

    fn settle(&self, unless: Flags, how: Settled) {
        let members = self.slab[self.key.index].word().take_members(self.key.generation, unless);
        self.pool.settle(members, how);
    }

    fn join(&self) -> Claim {
        let member = self.pool.reserve(1).ok().and_then(|mut reserved| reserved.pop()).expect("there is room");
        self.pool.prepare(member, self.key.index, &self.group);
        let link = |first| self.pool.link(member, first);
        let answer = self.slab[self.key.index].join(self.key.generation, member, link);
        if matches!(answer, Claim::Stale | Claim::Dying) {
            self.pool.settle_one(member, Settled::Returned);
        }
        answer
    }

    /// Takes a won run to its end, as a reactor does with an answer that is not NFS4_OK.
    fn run(&self) {
        let word = self.slab[self.key.index].word();
        loop {
            word.settle();
            match word.finish(true) {
                Finish::RunAgain { .. } => {}
                Finish::Idle { .. } => return,
                Finish::Joined { .. } => return self.settle(Flags::RUNNING, Settled::Failed),
                Finish::Free { .. } => return self.free(),
            }
        }
    }

    fn free(&self) {
        self.settle(Flags::empty(), Settled::Returned);
        self.slab.free(self.key.index);
    }

    /// The group has its answer: (returned, failed).
    fn answer(&self) -> (u32, u32) {
        self.group.close();
        let settled = self.group.promise.get().expect("everyone is settled");
        assert!(self.pool.is_idle());
        (settled.returned, settled.failed)
    }
}

#[test]
fn t25_the_last_member_answers_its_group() {
    model(|| {
        let group = std::sync::Arc::new(Tally::new(2));
        let rings = std::sync::Arc::new(Rings(AtomicU32::new(0)));
        let settler = std::sync::Arc::clone(&group);
        let first = thread::spawn(move || settler.settle(Settled::Returned));
        let settler = std::sync::Arc::clone(&group);
        let second = thread::spawn(move || settler.settle(Settled::Failed));
        group.close();
        let at_once = group.promise.poll(&Waker::from(std::sync::Arc::clone(&rings))).is_some();
        first.join().expect("no panic");
        second.join().expect("no panic");
        let settled = group.promise.get().expect("all are settled");
        assert_eq!((settled.returned, settled.overdue, settled.failed), (1, 0, 1));
        assert!(at_once || rings.0.load(Ordering::Relaxed) == 1, "who waits is woken, once");
    });
}

#[test]
fn t25_a_member_that_joins_is_settled_once() {
    model(|| {
        let scene = Scene::new();
        assert_eq!(scene.slab[0].try_run(scene.key.generation), Claim::Submit);
        let opener = Arc::clone(&scene);
        let opener = thread::spawn(move || {
            if opener.join() == Claim::Submit {
                opener.run();
            }
        });
        scene.run();
        opener.join().expect("no panic");
        assert_eq!(scene.answer(), (0, 1));
        assert_eq!(scene.slab[0].word().snapshot().member(), None);
    });
}

#[test]
fn t25_a_member_that_joins_a_callback_on_its_way_out_is_settled_once() {
    model(|| {
        let scene = Scene::new();
        assert_eq!(scene.slab[0].try_run(scene.key.generation), Claim::Submit);
        let (opener, remover) = (Arc::clone(&scene), Arc::clone(&scene));
        let opener = thread::spawn(move || {
            if opener.join() == Claim::Submit {
                opener.run();
            }
        });
        let remover = thread::spawn(move || match remover.slab[0].word().remove(remover.key.generation) {
            Removal::FreeNow => remover.free(),
            Removal::Deferred => remover.settle(Flags::empty(), Settled::Returned),
            other => panic!("{other:?}, but nobody else removes"),
        });
        scene.run();
        opener.join().expect("no panic");
        remover.join().expect("no panic");
        let (returned, failed) = scene.answer();
        assert_eq!(returned + failed, 1);
    });
}

#[test]
fn members_that_were_given_back_have_one_owner() {
    model(|| {
        let pool = Arc::new(MemberPool::new());
        let taken: Vec<u32> = {
            let mut reserved = pool.reserve(2).expect("there is room");
            std::iter::from_fn(|| reserved.pop()).collect()
        };
        let settler = |number| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.settle_one(number, Settled::Failed))
        };
        let settlers: Vec<_> = taken.into_iter().map(settler).collect();
        let mut mine: Vec<u32> = match pool.reserve(3) {
            Ok(mut reserved) => std::iter::from_fn(|| reserved.pop()).collect(),
            // Neither has been given back yet.
            Err(_) => Vec::new(),
        };
        let count = mine.len();
        settlers.into_iter().for_each(|settler| settler.join().expect("no panic"));
        mine.sort_unstable();
        mine.dedup();
        assert_eq!(mine.len(), count, "none is given out twice");
        let left = pool.reserve(4 - count);
        assert!(left.is_ok_and(|mut left| std::iter::from_fn(|| left.pop()).all(|number| !mine.contains(&number))));
    });
}
