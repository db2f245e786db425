//! The slab against a model, at its limits, and with every allocation failing in turn.

use super::OP_CB_RECALL;
use crate::callback::slab::CallbackSlab;
use crate::callback::state::{Claim, Finish, Flags, Removal, Snapshot};
use crate::callback::{CallbackKey, InsertError};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SEGMENT: u32 = 1 << 16;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        shard: usize,
        client: u32,
        op: u8,
        cookie: u64,
    },
    /// Removes an idle callback.
    Remove(prop::sample::Index),
    /// Removes a callback while it runs.
    RemoveRunning(prop::sample::Index),
    /// Makes the next life of a callback's entry its last one.
    Age(prop::sample::Index),
    /// Uses a key of a callback that is gone.
    UseStale(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0..4_usize, any::<u32>(), 3..16_u8, any::<u64>())
            .prop_map(|(shard, client, op, cookie)| Step::Insert { shard, client, op, cookie }),
        3 => index().prop_map(Step::Remove),
        2 => index().prop_map(Step::RemoveRunning),
        1 => index().prop_map(Step::Age),
        3 => index().prop_map(Step::UseStale),
    ]
}

/// What the slab should hold.
#[derive(Default)]
struct Model {
    live: Vec<CallbackKey>,
    values: HashMap<CallbackKey, (u32, u8, u64)>,
    gone: Vec<CallbackKey>,
    retired: u32,
}

impl Model {
    fn insert(&mut self, slab: &CallbackSlab, shard: usize, values: (u32, u8, u64)) {
        let full = self.live.len() as u32 + self.retired == slab.entries_max();
        match slab.insert(shard, values.0, values.1, values.2) {
            Ok(key) => {
                assert!(!full, "more than the limit");
                assert!(key.to_bits() != 0 && key.index < slab.entries_max());
                assert!(!self.gone.contains(&key), "a key came back");
                assert!(self.live.iter().all(|other| other.index != key.index), "an entry was given out twice");
                self.live.push(key);
                self.values.insert(key, values);
            }
            Err(error) => {
                assert!(full, "refused below the limit");
                assert_eq!(error, InsertError::Full { limit: slab.entries_max() });
            }
        }
    }

    fn gone(&mut self, slab: &CallbackSlab, at: usize) {
        let key = self.live.swap_remove(at);
        slab.free(key.index);
        self.retired += u32::from(key.generation == u32::MAX - 1);
        self.values.remove(&key);
        self.gone.push(key);
    }

    fn apply(&mut self, slab: &CallbackSlab, step: Step) {
        match step {
            Step::Insert { shard, client, op, cookie } => self.insert(slab, shard, (client, op, cookie)),
            Step::Remove(at) if !self.live.is_empty() => {
                let at = at.index(self.live.len());
                let key = self.live[at];
                assert_eq!(slab[key.index].word().remove(key.generation), Removal::FreeNow);
                self.gone(slab, at);
            }
            Step::RemoveRunning(at) if !self.live.is_empty() => {
                let at = at.index(self.live.len());
                let key = self.live[at];
                let entry = &slab[key.index];
                assert_eq!(entry.try_run(key.generation), Claim::Submit);
                assert_eq!(entry.word().remove(key.generation), Removal::Deferred);
                entry.word().settle();
                assert_eq!(entry.word().finish(true), Finish::Free { wake: false });
                self.gone(slab, at);
            }
            Step::Age(at) if !self.live.is_empty() => {
                let at = at.index(self.live.len());
                let old = self.live[at];
                let key = CallbackKey { generation: u32::MAX - 1, ..old };
                slab[key.index].word().overwrite(Snapshot::new(key.generation, Flags::LIVE));
                self.live[at] = key;
                let values = self.values.remove(&old).expect("it is live");
                self.values.insert(key, values);
            }
            Step::UseStale(at) if !self.gone.is_empty() => {
                let key = self.gone[at.index(self.gone.len())];
                let before = slab[key.index].word().snapshot();
                assert_eq!(slab[key.index].try_run(key.generation), Claim::Stale);
                assert_eq!(slab[key.index].word().remove(key.generation), Removal::Stale);
                assert_eq!(slab[key.index].word().snapshot(), before);
            }
            _ => {}
        }
    }

    fn check(&self, slab: &CallbackSlab) {
        assert_eq!(slab.retired(), self.retired);
        for key in &self.live {
            let entry = &slab[key.index];
            assert_eq!(entry.word().snapshot(), Snapshot::new(key.generation, Flags::LIVE));
            assert_eq!((entry.client(), entry.op(), entry.cookie()), self.values[key]);
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_of_steps_is_as_in_the_model(
        entries_max in 0..24_u32,
        shards in 1..4_usize,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let slab = CallbackSlab::new(entries_max, shards);
        let mut model = Model::default();
        for step in steps {
            model.apply(&slab, step);
        }
        model.check(&slab);
    }
}

fn insert(slab: &CallbackSlab, shard: usize) -> Result<CallbackKey, InsertError> {
    slab.insert(shard, 0, OP_CB_RECALL, 0)
}

fn remove(slab: &CallbackSlab, key: CallbackKey) {
    assert_eq!(slab[key.index].word().remove(key.generation), Removal::FreeNow);
    slab.free(key.index);
}

#[test]
fn the_limit_is_exact_across_segments_and_shards() {
    let limit = 2 * SEGMENT + 10;
    for shards in 1..=4 {
        let slab = CallbackSlab::new(limit, shards);
        let mut used = vec![false; limit as usize];
        let mut keys = Vec::new();
        while let Ok(key) = insert(&slab, 1) {
            assert!(!std::mem::replace(&mut used[key.index as usize], true), "an entry was given out twice");
            keys.push(key);
        }
        assert_eq!(keys.len() as u32, limit);
        assert_eq!(insert(&slab, 0), Err(InsertError::Full { limit }));
        for key in keys {
            remove(&slab, key);
        }
        assert_eq!((0..).map_while(|_| insert(&slab, 0).ok()).count() as u32, limit, "all of it is used again");
    }
}

#[test]
fn an_index_that_was_never_given_out_is_stale() {
    let slab = CallbackSlab::new(SEGMENT + 1, 1);
    for index in [0, SEGMENT, u32::MAX] {
        assert!(slab.get(index).is_none());
    }
    let key = insert(&slab, 0).expect("there is room");
    let other = slab.get(key.index + 1).expect("the segment is mapped");
    for generation in [0, 1, u32::MAX] {
        assert_eq!(other.try_run(generation), Claim::Stale);
    }
}

#[test]
fn t5_every_allocation_of_a_growing_slab_may_fail() {
    const SEGMENTS: u32 = 3;
    let limit = SEGMENTS * SEGMENT;
    for failing in 0..=u64::from(2 * SEGMENTS) {
        let attempts = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&attempts);
        let gate = move |attempt: u64| {
            counted.store(attempt + 1, Ordering::Relaxed);
            attempt != failing
        };
        let slab = CallbackSlab::new(limit, 1).with_growth_gate(Box::new(gate));
        let (mut inserted, mut refused) = (0, 0);
        loop {
            match insert(&slab, 0) {
                Ok(_) => inserted += 1,
                Err(InsertError::OutOfMemory) => refused += 1,
                Err(InsertError::Full { .. }) => break,
                Err(other) => unreachable!("a slab knows nothing of it: {other}"),
            }
        }
        assert_eq!(inserted, limit, "what failed once is there later");
        assert_eq!(refused, u32::from(failing < attempts.load(Ordering::Relaxed)), "one failure, one refusal");
    }
}

#[test]
fn without_memory_a_shard_takes_what_the_others_have() {
    let slab = CallbackSlab::new(4 * SEGMENT, 2).with_growth_gate(Box::new(|attempt| attempt < 2));
    let first = insert(&slab, 0).expect("the first segment can be had");
    let second = insert(&slab, 1).expect("from the shard that has a segment");
    assert_eq!((first.index, second.index), (0, 1));
    assert_eq!((0..).map_while(|_| insert(&slab, 1).ok()).count() as u32, SEGMENT - 2);
    assert_eq!(insert(&slab, 1), Err(InsertError::OutOfMemory));
    remove(&slab, first);
    assert_eq!(insert(&slab, 1), Ok(CallbackKey { index: 0, generation: 2 }));
}

#[test]
fn memory_counts_touched_pages_only() {
    let slab = CallbackSlab::new(1_000_000, 2);
    assert_eq!((slab.memory().entries_bytes, slab.memory().free_stack_bytes), (0, 0));
    let keys: Vec<CallbackKey> = (0..129).map(|_| insert(&slab, 0).expect("there is room")).collect();
    assert_eq!(slab.memory().entries_bytes, 2 * 4096, "129 entries of 32 bytes");
    for key in keys {
        remove(&slab, key);
    }
    assert_eq!(slab.memory().free_stack_bytes, 4096);
    assert_eq!(slab.memory().entries_bytes, 2 * 4096, "a segment stays");
    for _ in 0..1_000_000 {
        insert(&slab, 1).expect("there is room");
    }
    let memory = slab.memory();
    let bytes = memory.entries_bytes + memory.free_stack_bytes + memory.table_bytes;
    assert!(bytes <= 33_000_000, "{memory:?} for a million idle callbacks");
}
