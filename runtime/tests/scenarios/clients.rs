//! Clients that are removed, that delay for ever, and drains, with a run in every place.

use crate::bench::*;
use ringback::{Builder, CallbackOp, ClientId, Error, Remove, SessionKey, TryRun};
use ringback_rpc::nfs4::Status;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where a run can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// There is no session yet.
    NoSession,
    /// No connection is bound.
    Parked,
    /// Every session slot is taken.
    BehindSlots,
    /// On the wire.
    Sent,
    /// On the wire, and asked for again.
    SentRearmed,
    /// The operation was answered with NFS4ERR_DELAY.
    Delayed,
    /// CB_SEQUENCE was answered with NFS4ERR_DELAY.
    SequenceDelayed,
    /// Sent, and its connection is gone.
    Pinned,
    /// Its session was destroyed.
    SessionGone,
    /// The client answered for another slot.
    Mistrusted,
}

use Place::*;

const PLACES: [Place; 10] =
    [NoSession, Parked, BehindSlots, Sent, SentRearmed, Delayed, SequenceDelayed, Pinned, SessionGone, Mistrusted];

struct Placed {
    line: Line,
    client: ClientId,
    key: ringback::CallbackKey,
    /// Calls that the client has not answered.
    unanswered: Vec<Called>,
}

/// A client of its own with a run of `cookie` in that place.
fn place(bench: &Bench, at: Place, cookie: u64) -> Placed {
    let mut line = bench.line();
    let client = bench.runtime.add_client(Some(line.connection)).unwrap();
    let session = || -> SessionKey { bench.runtime.add_session(client, session_config(1, 2)).unwrap() };
    let bound = || {
        let session = session();
        bench.runtime.bind(line.connection, session).unwrap();
        session
    };
    match at {
        NoSession => {
            let key = bench.recall(client, cookie);
            return Placed { line, client, key, unanswered: vec![] };
        }
        Parked => {
            session();
            let key = bench.recall(client, cookie);
            return Placed { line, client, key, unanswered: vec![] };
        }
        _ => {}
    }
    let session = bound();
    if at == BehindSlots {
        let fillers = [1_000 + cookie, 2_000 + cookie];
        fillers.iter().for_each(|filler| {
            bench.recall(client, *filler);
        });
        let unanswered = vec![line.call(), line.call()];
        let key = bench.recall(client, cookie);
        return Placed { line, client, key, unanswered };
    }
    let key = bench.insert(client, CallbackOp::Notify, cookie);
    bench.submit(key);
    let call = line.call();
    match at {
        SentRearmed => assert_eq!(bench.runtime.try_run(key), TryRun::Rearmed),
        Delayed => line.reply(call.status(Status::NFS4ERR_DELAY)),
        SequenceDelayed => line.reply(call.sequence_status(Status::NFS4ERR_DELAY)),
        Pinned => bench.runtime.close_connection(line.connection),
        SessionGone => bench.runtime.remove_session(session).unwrap(),
        Mistrusted => line.reply(call.with_slot(1).status(Status::NFS4_OK)),
        _ => {}
    }
    Placed { line, client, key, unanswered: vec![call] }
}

/// What can happen at the same time as the end.
fn settle() {
    std::thread::sleep(Duration::from_millis(20));
}

#[test]
fn t29_a_client_destroyed_with_a_run_in_any_place() {
    for at in PLACES {
        // Room for one client: its place is free again only when nothing names it.
        let bench = Bench::with(Builder::new().reactors(1).clients_max(1));
        let placed = place(&bench, at, 1);
        settle();
        bench.runtime.remove_client(placed.client).unwrap();
        bench.until_idle();
        bench.assert_ended_once(1, "Cancelled");
        assert_eq!(bench.runtime.try_run(placed.key), TryRun::Closed, "{at:?}");
        assert_eq!(bench.runtime.add_client(None), Err(Error::ClientsFull { limit: 1 }), "{at:?}: a callback names it");
        // What the client still has to say comes too late, and harms nobody.
        placed.unanswered.iter().for_each(|call| placed.line.ok(call));
        assert_eq!(bench.runtime.remove(placed.key), Remove::Removed);
        for filler in [1_001, 2_001] {
            assert!(bench.hooks.of(filler).done.len() <= 1);
        }
        if at == BehindSlots {
            continue; // its fillers name the client as well
        }
        bench.until("the place of the client is free", |b| b.runtime.add_client(None).is_ok());
    }
}

#[test]
fn t29_a_client_destroyed_inside_each_hook() {
    use Stage::*;
    for stage in [Acquire, Prepare, Referring, Encode, Done, Release, DropReference] {
        let bench = Bench::with(Builder::new().reactors(1).clients_max(1));
        let (line, client, _) = bench.client(4);
        let key = bench.insert(client, CallbackOp::Recall, 1);
        bench.during(1, stage, move |runtime| runtime.remove_client(client).unwrap());
        bench.submit(key);
        let mut line = line;
        if let Some(call) = line.call_within(Duration::from_millis(50)) {
            line.ok(&call);
        }
        bench.until_idle();
        let early = matches!(stage, Acquire | Prepare | Referring | Encode);
        bench.assert_ended_once(1, if early { "Cancelled" } else { "Replied" });
        assert_eq!(bench.runtime.remove(key), Remove::Removed);
        bench.until("the place of the client is free", |b| b.runtime.add_client(None).is_ok());
    }
}

#[test]
fn f13_the_end_of_a_client_with_calls_in_flight_leaves_the_others_alone() {
    let bench = Bench::new();
    let (mut line, gone, session) = bench.client(8);
    let other = bench.runtime.add_client(Some(line.connection)).unwrap();
    let others = bench.runtime.add_session(other, session_config(2, 8)).unwrap();
    // Both clients are behind one connection, as with a proxy.
    bench.runtime.bind(line.connection, others).unwrap();
    for round in 0..20 {
        let base = 100 * round;
        let client = if round == 0 { gone } else { bench.runtime.add_client(Some(line.connection)).unwrap() };
        if round > 0 {
            let session = bench.runtime.add_session(client, session_config(1, 8)).unwrap();
            bench.runtime.bind(line.connection, session).unwrap();
        } else {
            let _ = session;
        }
        let mut keys: Vec<_> = (0..4).map(|n| bench.recall(client, base + n)).collect();
        let calls: Vec<_> = (0..4).map(|_| line.call()).collect();
        // Removed while all are out, while one is just answered, or after two were.
        calls.iter().take(round as usize % 3).for_each(|call| line.ok(call));
        bench.runtime.remove_client(client).unwrap();
        keys.extend([bench.recall(other, base + 50)]);
        let next = line.call();
        assert_eq!(next.cookie(), base + 50);
        // Late, twice, cut short, and nonsense.
        for call in &calls {
            line.ok(call);
            line.ok(call);
            let reply = call.status(Status::NFS4_OK);
            line.reply(reply[..reply.len() - 9].to_vec());
            line.reply(vec![0xff; 64]);
        }
        line.ok(&next);
        bench.until_idle();
        bench.assert_ended_once(base + 50, "Replied");
        for cookie in base..base + 4 {
            assert_eq!(bench.hooks.of(cookie).released, 1, "{cookie}");
        }
        assert!(keys.iter().all(|key| bench.runtime.remove(*key) == Remove::Removed));
    }
    bench.assert_slots_free();
}

#[test]
fn t1_a_drain_ends_with_a_run_in_every_place() {
    // Two reactors: half of the connections are driven by the other one.
    let bench = Bench::with(Builder::new().reactors(2));
    let placed: Vec<_> = PLACES.iter().enumerate().map(|(n, at)| place(&bench, *at, n as u64)).collect();
    settle();
    let fillers = 2;
    assert_eq!(bench.runtime.stats().in_flight, PLACES.len() as u64 + fillers);
    // One that does not end at its deadline comes back with runs in flight.
    let report = bench.runtime.drain(Duration::from_millis(300)).unwrap();
    assert_eq!(report.in_flight, 0);
    for (cookie, at) in PLACES.iter().enumerate() {
        let seen = bench.hooks.of(cookie as u64);
        assert_eq!((seen.done.len(), seen.released, seen.dropped), (1, 1, 1), "{at:?}: {seen:?}");
        assert!(seen.done[0].starts_with("Cancelled"), "{at:?}: {seen:?}");
        // Each is reported by key: what was on a wire may have been executed, what never was cannot.
        let sent = !matches!(at, NoSession | Parked | BehindSlots);
        let key = &placed[cookie].key;
        let reported = [report.abandoned.contains(key), report.unsent.contains(key)];
        assert_eq!(reported, [sent, !sent], "{at:?}: {seen:?}");
    }
    assert_eq!(report.abandoned.len() as u64, fillers + 7);
    assert_eq!(report.unsent.len(), 3);
    assert!(placed.iter().all(|p| bench.runtime.remove(p.key) == Remove::Removed));
}

#[test]
fn t12_delay_for_ever_troubles_neither_others_nor_destroy_session_nor_drain() {
    let bench = Bench::with(Builder::new().reactors(1).run_deadline(Duration::from_millis(1500)));
    let (mut slow, delaying, session) = bench.client(2);
    let (mut quick, other, _) = bench.client(2);
    for cookie in 0..4 {
        bench.recall(delaying, cookie);
    }
    let mut delays = 0;
    let mut delay = |slow: &mut Line| {
        while let Some(call) = slow.call_within(Duration::from_millis(1)) {
            slow.reply(call.status(Status::NFS4ERR_DELAY));
            delays += 1;
        }
        delays
    };
    for cookie in 100..200 {
        bench.recall(other, cookie);
        assert_eq!(quick.serve(), cookie);
        delay(&mut slow);
    }
    bench.until("the others are done", |b| (100..200).all(|c| b.hooks.of(c).released == 1));
    // The session goes, with runs that wait for their delay; they move to the next one.
    bench.runtime.remove_session(session).unwrap();
    let next = bench.runtime.add_session(delaying, session_config(2, 2)).unwrap();
    bench.runtime.bind(slow.connection, next).unwrap();
    while bench.runtime.stats().in_flight > 0 {
        delay(&mut slow);
    }
    for cookie in 0..4 {
        bench.assert_ended_once(cookie, "TimedOut { sent: true }");
    }
    // 1.5 s with waits of 100 ms and more: a handful each, not thousands.
    let delays = delay(&mut slow);
    assert!((4..60).contains(&delays), "{delays}");
    bench.recall(delaying, 9);
    let call = slow.call();
    slow.reply(call.status(Status::NFS4ERR_DELAY));
    settle();
    let begun = Instant::now();
    let report = bench.runtime.drain(PATIENCE).unwrap();
    assert!(begun.elapsed() < PATIENCE, "a delay is no reason to wait");
    assert_eq!((report.in_flight, report.abandoned.len()), (0, 1));
    bench.assert_ended_once(9, "Cancelled { sent: true }");
}

/// Of the client, not of the session that was asked; and not of who comes after it.
#[test]
fn what_a_client_does_not_support_is_remembered_as_long_as_it_is_there() {
    let bench = Bench::with(Builder::new().reactors(1).clients_max(1));
    let (mut line, client, session) = bench.client(1);
    let ops = [CallbackOp::Notify, CallbackOp::Recall];
    let unsupported = |client| ops.map(|op| bench.runtime.is_unsupported(client, op));
    let key = bench.insert(client, CallbackOp::Notify, 1);
    bench.submit(key);
    let call = line.call();
    line.reply(call.status(Status::NFS4ERR_NOTSUPP));
    bench.until("it is known", |b| b.runtime.is_unsupported(client, CallbackOp::Notify));
    bench.assert_ended_once(1, "Replied { status: NFS4ERR_NOTSUPP");
    bench.runtime.remove_session(session).unwrap();
    let next = bench.runtime.add_session(client, session_config(2, 1)).unwrap();
    bench.runtime.bind(line.connection, next).unwrap();
    // Asking again is allowed.
    bench.submit(key);
    assert_eq!(line.serve(), 1);
    bench.until_idle();
    assert_eq!(unsupported(client), [true, false]);
    bench.runtime.remove(key);
    bench.runtime.remove_client(client).unwrap();
    assert_eq!(unsupported(client), [false, false], "there is no such client");
    let heir = Mutex::new(None);
    bench.until("the place of the client is free", |b| {
        *heir.lock().unwrap() = b.runtime.add_client(None).ok();
        heir.lock().unwrap().is_some()
    });
    assert_eq!(unsupported(heir.into_inner().unwrap().unwrap()), [false, false]);
}

/// Threads ask for runs while another one closes the door: each accepted run completes, and none comes afterwards.
#[test]
fn t35_a_drain_against_threads_that_ask() {
    for _ in 0..20 {
        let bench = Bench::with(Builder::new().reactors(2));
        let (mut line, client, _) = bench.client(16);
        let keys: Vec<_> = (0..64).map(|cookie| bench.insert(client, CallbackOp::Recall, cookie)).collect();
        let keys = Arc::new(keys);
        let accepted: Vec<u32> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..2)
                .map(|_| {
                    let (runtime, keys) = (bench.runtime.clone(), Arc::clone(&keys));
                    scope.spawn(move || {
                        let mut accepted = vec![0; keys.len()];
                        loop {
                            for (n, key) in keys.iter().enumerate() {
                                match runtime.try_run(*key) {
                                    TryRun::Submitted => accepted[n] += 1,
                                    TryRun::Coalesced | TryRun::Rearmed => {}
                                    TryRun::Closed => return accepted,
                                    other => panic!("{other:?}"),
                                }
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..200 {
                line.serve();
            }
            let report = bench.runtime.drain(Duration::from_millis(20)).unwrap();
            assert_eq!(report.in_flight, 0);
            let all = asking.into_iter().map(|thread| thread.join().unwrap());
            all.fold(vec![0; keys.len()], |sum, one| sum.iter().zip(one).map(|(a, b)| a + b).collect())
        });
        let released: u32 = (0..64).map(|cookie| bench.hooks.of(cookie).released).sum();
        for (cookie, accepted) in accepted.iter().enumerate() {
            let seen = bench.hooks.of(cookie as u64);
            assert_eq!((seen.acquired, seen.dropped), (*accepted, *accepted), "{cookie}: {seen:?}");
            assert_eq!(seen.done.len() as u32, seen.released);
        }
        settle();
        assert_eq!(released, (0..64).map(|c| bench.hooks.of(c).released).sum::<u32>(), "nothing runs after the drain");
        assert_eq!(bench.runtime.stats().in_flight, 0);
    }
}
