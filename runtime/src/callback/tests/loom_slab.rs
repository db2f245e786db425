//! The slab in every interleaving of few threads, with segments of two entries.

use super::{OP_CB_RECALL, model};
use crate::callback::slab::CallbackSlab;
use crate::callback::state::{Claim, Finish, Removal};
use crate::callback::{CallbackKey, InsertError};
use loom::sync::Arc;
use loom::thread;

fn insert(slab: &CallbackSlab, shard: usize) -> Result<CallbackKey, InsertError> {
    slab.insert(shard, shard as u32, OP_CB_RECALL, shard as u64)
}

fn remove(slab: &CallbackSlab, key: CallbackKey) -> Removal {
    let removal = slab[key.index].word().remove(key.generation);
    if removal == Removal::FreeNow {
        slab.free(key.index);
    }
    removal
}

#[test]
fn inserts_of_two_threads_never_share_an_entry() {
    model(|| {
        let slab = Arc::new(CallbackSlab::new(3, 2));
        let other = Arc::clone(&slab);
        let other = thread::spawn(move || [insert(&other, 1), insert(&other, 1)]);
        let mut results = vec![insert(&slab, 0), insert(&slab, 0)];
        results.extend(other.join().expect("no panic"));
        let mut indices: Vec<u32> = results.iter().flatten().map(|key| key.index).collect();
        indices.sort_unstable();
        assert_eq!(indices, [0, 1, 2], "all of it, each once");
        assert_eq!(results.iter().filter(|result| **result == Err(InsertError::Full { limit: 3 })).count(), 1);
    });
}

#[test]
fn an_insert_takes_over_what_another_thread_frees() {
    model(|| {
        let slab = Arc::new(CallbackSlab::new(1, 1));
        let old = insert(&slab, 0).expect("there is room");
        let other = Arc::clone(&slab);
        let other = thread::spawn(move || assert_eq!(remove(&other, old), Removal::FreeNow));
        let first = insert(&slab, 0);
        other.join().expect("no panic");
        // Wherever the free put it, on the array or on the remote stack: it is there once.
        let second = insert(&slab, 0);
        assert!(first.is_ok() != second.is_ok(), "{first:?}, {second:?}");
        let key = first.or(second).expect("one of them");
        assert_eq!(key.generation, old.generation + 1);
        assert_eq!(slab[old.index].try_run(old.generation), Claim::Stale);
        assert_eq!(slab[key.index].try_run(key.generation), Claim::Submit);
    });
}

#[test]
fn frees_of_two_threads_and_an_insert_lose_nothing() {
    model(|| {
        let slab = Arc::new(CallbackSlab::new(2, 1));
        let keys = [insert(&slab, 0), insert(&slab, 0)].map(|key| key.expect("there is room"));
        let others = keys.map(|key| {
            let slab = Arc::clone(&slab);
            thread::spawn(move || assert_eq!(remove(&slab, key), Removal::FreeNow))
        });
        let early = insert(&slab, 0);
        for other in others {
            other.join().expect("no panic");
        }
        let late: Vec<u32> = (0..).map_while(|_| insert(&slab, 0).ok()).map(|key| key.index).collect();
        let mut indices: Vec<u32> = early.iter().map(|key| key.index).chain(late).collect();
        indices.sort_unstable();
        assert_eq!(indices, [0, 1]);
    });
}

#[test]
fn a_stale_key_meets_the_next_life_of_its_entry() {
    model(|| {
        let slab = Arc::new(CallbackSlab::new(1, 1));
        let old = insert(&slab, 0).expect("there is room");
        let (user, remover) = (Arc::clone(&slab), Arc::clone(&slab));
        let user = thread::spawn(move || {
            let entry = &user[old.index];
            let claim = entry.try_run(old.generation);
            // A won run is of the old life, whatever the others do.
            if claim == Claim::Submit {
                assert_eq!(entry.cookie(), 0);
                entry.word().settle();
                if let Finish::Free { .. } = entry.word().finish(true) {
                    user.free(old.index);
                }
            }
            claim
        });
        let remover = thread::spawn(move || remove(&remover, old));
        let next = slab.insert(0, 9, OP_CB_RECALL, 9);
        let claim = user.join().expect("no panic");
        assert!(matches!(remover.join().expect("no panic"), Removal::FreeNow | Removal::Deferred));
        assert!(matches!(claim, Claim::Submit | Claim::Dying | Claim::Stale));
        if let Ok(next) = next {
            let entry = &slab[next.index];
            assert_eq!((entry.client(), entry.cookie()), (9, 9));
            assert_eq!(entry.try_run(next.generation), Claim::Submit, "nobody has touched the new callback");
        }
    });
}

#[test]
fn a_look_up_during_growth_finds_zeroed_entries_or_none() {
    model(|| {
        let slab = Arc::new(CallbackSlab::new(2, 1));
        let other = Arc::clone(&slab);
        let other = thread::spawn(move || {
            if let Some(entry) = other.get(1) {
                assert_eq!(entry.try_run(1), Claim::Stale);
            }
        });
        assert_eq!(insert(&slab, 0).map(|key| key.index), Ok(0));
        other.join().expect("no panic");
    });
}
