//! The parts of a callback's way, each by itself: the state word, the slab of entries, the inbox, the codec, the session
//! slots, the timers.
//!
//!     cargo bench --bench parts
//!     cargo bench --bench parts -- word
//!
//! As a test (`cargo test`) each is done once. Times are those of one machine at one moment: `hot_path` beside this counts
//! instructions, which can be compared.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringback::CallbackKey;
use ringback::simulator::parts::{Entries, TimerWheel};
use ringback_bench::peers::wire::{self, Called, Template};
use ringback_rpc::session::RequesterSlots;
use ringback_rpc::xdr::Writer;
use std::hint::black_box;

/// As many as stay in the nearest caches.
const FEW: u32 = 256;

/// Far more than any cache holds; for a test, no more than are quickly made.
fn many() -> u32 {
    if std::env::args().any(|arg| arg == "--bench") { 4_000_000 } else { 10_000 }
}

fn entries(count: u32) -> (Entries, Vec<CallbackKey>) {
    let entries = Entries::new(count);
    let keys = (0..u64::from(count)).map(|n| entries.insert(n).expect("there is room")).collect();
    (entries, keys)
}

/// The next of some keys, over and over; `step` apart, so that none is in the cache where there are many.
fn next(keys: &[CallbackKey], at: &mut usize, step: usize) -> CallbackKey {
    *at = (*at + step) % keys.len();
    keys[*at]
}

fn word(c: &mut Criterion) {
    let mut group = c.benchmark_group("word");
    for (name, count) in [("run, in the cache", FEW), ("run, from memory", many())] {
        let ((entries, keys), mut at) = (entries(count), 0);
        group.bench_function(name, |b| b.iter(|| assert!(entries.run(next(&keys, &mut at, 77_773)))));
    }
    group.finish();
}

fn slab(c: &mut Criterion) {
    let (entries, mut keys) = entries(FEW);
    let mut at = 0;
    c.bench_function("slab: remove and insert", |b| {
        b.iter(|| {
            at = (at + 77) % keys.len();
            assert!(entries.remove(keys[at]));
            keys[at] = entries.insert(1).expect("one has just gone");
        });
    });
}

fn inbox(c: &mut Criterion) {
    let (entries, keys) = entries(FEW);
    let mut group = c.benchmark_group("inbox");
    group.throughput(Throughput::Elements(FEW.into()));
    group.bench_function("push and drain", |b| {
        b.iter(|| {
            keys.iter().for_each(|key| entries.push(*key));
            assert_eq!(entries.drain(), keys.len());
        });
    });
    group.finish();
}

fn codec(c: &mut Criterion) {
    let called = Called { xid: 7, slot: 3, sequence_id: 9, highest: 31, recalls: 1 };
    let mut reply = Vec::new();
    Template::new(1).reply(&called, 31, &mut reply);
    let mut space = [0; wire::CALL_BYTES];
    let mut group = c.benchmark_group("codec");
    group.bench_function("write a call, field by field", |b| {
        b.iter(|| wire::encode_call(1, black_box(&called), 5, &mut Writer::new(&mut space)).expect("it fits"));
    });
    group.bench_function("read a reply, field by field", |b| {
        b.iter(|| assert_eq!(wire::decode_reply(black_box(&reply[4..])), Ok((7, true))));
    });
    group.finish();
}

fn session_slots(c: &mut Criterion) {
    let mut group = c.benchmark_group("session slots");
    for count in [1, 32, 1024] {
        let mut slots = RequesterSlots::new(count);
        // All but the last are busy: that one is looked for.
        for _ in 1..count {
            let slot = slots.lowest_free().expect("one is free");
            slots.take(slot);
        }
        group.bench_function(format!("take and advance, {count}"), |b| {
            b.iter(|| {
                let slot = slots.lowest_free().expect("one is free");
                black_box(slots.highest_busy(slot));
                slots.take(slot);
                slots.advance(slot);
            });
        });
    }
    group.finish();
}

fn timers(c: &mut Criterion) {
    const MS: u64 = 1_000_000;
    let mut group = c.benchmark_group("timers");
    group.throughput(Throughput::Elements(FEW.into()));
    group.bench_function("arm and expire", |b| {
        let wheel = || (TimerWheel::new(0), Vec::with_capacity(FEW as usize));
        b.iter_batched_ref(
            wheel,
            |(wheel, fired)| {
                (0..FEW).for_each(|id| wheel.arm(id, u64::from(id + 1) * 37 * MS));
                wheel.expire(u64::from(FEW) * 37 * MS, fired);
                assert_eq!(fired.len(), FEW as usize);
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("arm again, for later", |b| {
        let mut wheel = TimerWheel::new(0);
        (0..FEW).for_each(|id| wheel.arm(id, MS));
        b.iter(|| (0..FEW).for_each(|id| wheel.arm(id, 2 * MS)));
    });
    group.finish();
}

criterion_group!(benches, word, slab, inbox, codec, session_slots, timers);
criterion_main!(benches);
