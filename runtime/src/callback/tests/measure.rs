//! What the slab costs. Small in every test run, so that it does not rot; at full size with
//! `cargo test --release -p ringback --lib measure -- --ignored --nocapture`.

use super::OP_CB_RECALL;
use crate::callback::slab::CallbackSlab;
use crate::callback::state::Claim;
use crate::callback::{CallbackKey, state::Removal};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;

/// A small generator (SplitMix64), the same numbers every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// What this thread has used, so that other work on the machine counts less.
fn cpu_ns() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn timed(what: &str, count: usize, mut step: impl FnMut(usize)) {
    let start = cpu_ns();
    for number in 0..count {
        step(number);
    }
    let each = (cpu_ns() - start) as f64 / count as f64;
    println!("{what:<32}{each:>8.1} ns");
}

fn insert(slab: &CallbackSlab, cookie: usize) -> CallbackKey {
    slab.insert(0, 0, OP_CB_RECALL, cookie as u64).expect("there is room")
}

fn remove(slab: &CallbackSlab, key: CallbackKey) {
    assert_eq!(slab[key.index].word().remove(key.generation), Removal::FreeNow);
    slab.free(key.index);
}

fn measure(entries: usize) {
    let slab = CallbackSlab::new(entries as u32, 1);
    let mut numbers = Numbers(1);
    let mut keys = Vec::with_capacity(entries);
    println!("{entries} entries");
    timed("insert, fresh", entries, |number| keys.push(insert(&slab, number)));
    let memory = slab.memory();
    let bytes = memory.entries_bytes + memory.free_stack_bytes + memory.table_bytes;
    println!("{:<32}{:>8.2} B", "resident, each idle", bytes as f64 / entries as f64);
    timed("look up, random", entries, |_| {
        let key = keys[numbers.below(entries)];
        black_box(slab[key.index].cookie());
    });
    timed("try_run and finish, in order", entries, |number| {
        let entry = &slab[keys[number].index];
        assert_eq!(entry.try_run(keys[number].generation), Claim::Submit);
        let _ = entry.word().take_requeue();
        entry.word().settle();
        let _ = entry.word().finish(true);
    });
    timed("remove one and insert, random", entries, |number| {
        let at = numbers.below(entries);
        remove(&slab, keys[at]);
        keys[at] = insert(&slab, number);
    });
    for at in (1..entries).rev() {
        keys.swap(at, numbers.below(at + 1));
    }
    timed("remove, shuffled", entries / 2, |number| remove(&slab, keys[number]));
    timed("insert, after shuffled removes", entries / 2, |number| keys[number] = insert(&slab, number));
}

#[test]
fn a_thousand_entries() {
    measure(1_000);
}

#[test]
#[ignore = "a measurement: run it alone, with --release and --nocapture"]
fn ten_million_entries() {
    measure(10_000_000);
}
