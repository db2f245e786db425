//! Clients with connections on several reactors, and clients that move.

use crate::bench::*;
use ringback::{Builder, Event};
use std::thread;
use std::time::{Duration, Instant};

/// A client with a connection on each of two reactors goes to and fro while threads ask for its callbacks and it answers
/// on both: each run ends once, and every session slot is found.
#[test]
fn f12_a_client_moves_to_and_fro_under_load() {
    const RUNS: u64 = 3000;
    const MOVES: usize = 60;
    let bench = Bench::with(Builder::new().reactors(2));
    let (mut first, client, session) = bench.client(16);
    let mut second = bench.line();
    assert_ne!(first.connection.reactor(), second.connection.reactor());
    bench.runtime.bind(second.connection, session).unwrap();
    let begun = Instant::now();
    thread::scope(|scope| {
        for asker in 0..2 {
            let bench = &bench;
            scope.spawn(move || {
                for cookie in (0..RUNS).filter(|cookie| cookie % 2 == asker) {
                    bench.recall(client, cookie);
                    if cookie % 50 == asker {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        scope.spawn(|| {
            for turn in 0..MOVES {
                bench.runtime.move_client(client, 1 - turn % 2).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        while bench.runtime.stats().released < RUNS {
            assert!(begun.elapsed() < PATIENCE, "{:?}", bench.runtime.stats());
            for line in [&mut first, &mut second] {
                while let Some(call) = line.call_within(Duration::from_micros(200)) {
                    line.ok(&call);
                }
            }
        }
    });
    (0..RUNS).for_each(|cookie| bench.assert_ended_once(cookie, "Replied { status: NFS4_OK"));
    let moved = |bench: &Bench| {
        bench.hooks.events.lock().unwrap().iter().filter(|event| matches!(event, Event::Moved { .. })).count()
    };
    bench.until("all moves are told", |bench| moved(bench) == MOVES);
    assert_eq!((bench.runtime.home_of(client).unwrap(), bench.runtime.census().unwrap().slots), (0, 16));
    bench.assert_slots_free();
}

/// All connections of a client are elsewhere: its home encodes, and they carry what it has encoded, many calls at a time.
#[test]
fn f12_a_connection_elsewhere_carries_callbacks_in_batches() {
    let bench = Bench::with(Builder::new().reactors(2));
    let (home, there) = (bench.line(), bench.line());
    let client = bench.runtime.add_client(Some(home.connection)).unwrap();
    let session = bench.runtime.add_session(client, session_config(1, 64)).unwrap();
    // 64 wait before there is a path: they go as it comes up.
    (0..64).for_each(|cookie| {
        bench.recall(client, cookie);
    });
    bench.runtime.bind(there.connection, session).unwrap();
    let mut there = there;
    let calls: Vec<_> = (0..64).map(|_| there.call()).collect();
    let sends = bench.runtime.reactor_stats(1).unwrap().sends;
    assert!(sends <= 4, "{sends} sends for 64 calls");
    calls.iter().for_each(|call| there.ok(call));
    bench.until_idle();
    assert_eq!(bench.runtime.home_of(client).unwrap(), home.connection.reactor());
    bench.assert_slots_free();
}
