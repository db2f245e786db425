//! What a process goes on with.

use super::*;
use ringback::{CallbackOp, Completion, Ending, Event, Remove, Restored, Run, TenantLimits, TenantReport};
use ringback_rpc::nfs4::Status;
use ringback_rpc::xdr::{self, Writer};
use std::sync::Mutex;
use std::time::Duration;

/// Both back ends, from one to the other, and with other numbers of reactors.
fn pairs() -> Vec<((Backend, usize), (Backend, usize))> {
    let all = backends();
    let both = |a: &Backend| all.iter().map(|b| ((*a, 3), (*b, 2))).collect::<Vec<_>>();
    let same = all.iter().map(|b| ((*b, 1), (*b, 4)));
    all.iter().flat_map(both).chain(same).collect()
}

/// Of five runs two are out, as many as the session allows.
#[test]
fn f7_what_was_sent_and_what_was_not_completes_once_in_the_next_process() {
    for ((from, reactors), (to, next)) in pairs() {
        let (bed, mut stream) = Bed::new(builder(from, reactors), 2);
        let (client, session) = (bed.client, bed.session);
        let keys = insert_all(&bed.runtime, client, 0..10);
        let stale = keys[9];
        assert_eq!(bed.runtime.remove(stale), Remove::Removed);
        let sent = bed.start(&keys[..5], 2, &mut stream);
        let (checkpoint, before) = bed.leave();
        assert!(checkpoint.is_complete());
        assert_eq!((checkpoint.clients(), checkpoint.callbacks(), checkpoint.in_flight()), (1, 9, 5));
        assert_eq!((before.released(), before.of(0).done.len()), (0, 0), "nothing ended there");

        let hooks = Arc::new(Counting::default());
        let runtime = restored(builder(to, next), &checkpoint, &hooks);
        assert_eq!(runtime.stats().in_flight, 5);
        assert_eq!(runtime.try_run(stale), TryRun::Stale);
        assert_eq!(runtime.try_run(keys[0]), TryRun::Coalesced, "it is running");
        let mut stream = reconnect(&runtime, session);
        let again = [read_record(&mut stream).unwrap(), read_record(&mut stream).unwrap()];
        assert!(again.iter().all(|record| sent.contains(record)), "the same bytes");
        let mut slots = SlotIds::default();
        let mut cookies = Vec::new();
        for record in again {
            let (cookie, reply) = answer_recall(&record, &mut slots, Status::NFS4_OK);
            cookies.push(cookie);
            write_record(&mut stream, &reply);
        }
        for _ in 2..5 {
            let (cookie, reply) = answer_recall(&read_record(&mut stream).unwrap(), &mut slots, Status::NFS4_OK);
            cookies.push(cookie);
            write_record(&mut stream, &reply);
        }
        cookies.sort_unstable();
        assert_eq!(cookies, [0, 1, 2, 3, 4]);
        eventually("all have ended", || runtime.stats().in_flight == 0);
        for cookie in 0..5 {
            let (here, there) = (hooks.of(cookie), before.of(cookie));
            assert_eq!((there.acquired, there.prepared + here.prepared), (1, 1));
            assert_eq!((here.done.len(), here.released, here.dropped), (1, 1, 1), "{here:?}");
        }
        // An idle one is what it was, and a new one takes nobody's place.
        assert_eq!(runtime.try_run(keys[7]), TryRun::Submitted);
        let (cookie, reply) = answer_recall(&read_record(&mut stream).unwrap(), &mut slots, Status::NFS4_OK);
        assert_eq!(cookie, 7);
        write_record(&mut stream, &reply);
        let fresh = runtime.insert(client, CallbackOp::Recall, 99).unwrap();
        assert!(!keys.contains(&fresh));
        eventually("the last has ended", || runtime.stats().in_flight == 0);
        let census = runtime.census().unwrap();
        assert_eq!((census.slots, census.free), (2, 2));
        let stats = runtime.stats();
        assert_eq!((stats.started, stats.released, stats.delegations), (6, 6, 10));
        assert_eq!(runtime.shutdown(Duration::ZERO).unwrap().in_flight, 0);
    }
}

#[test]
fn a_runtime_that_was_suspended_goes_on_if_the_checkpoint_fails() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for backend in backends() {
        let (bed, mut stream) = Bed::new(builder(backend, 2), 2);
        let keys = insert_all(&bed.runtime, bed.client, 0..8);
        let mut slots = SlotIds::default();
        let records = bed.start(&keys, 2, &mut stream);
        // It fails at each of its bytes, or nearly.
        for room in (0..4000).step_by(97) {
            let suspended = bed.runtime.suspend().unwrap();
            assert!(bed.runtime.suspend().is_err(), "it is suspended already");
            assert!(suspended.checkpoint(&mut Full(room)).is_err());
        }
        let answering = std::thread::spawn(move || {
            for record in records {
                write_record(&mut stream, &answer_recall(&record, &mut slots, Status::NFS4_OK).1);
            }
            while let Some(record) = read_record(&mut stream) {
                write_record(&mut stream, &answer_recall(&record, &mut slots, Status::NFS4_OK).1);
            }
        });
        eventually("all have ended", || bed.runtime.stats().in_flight == 0);
        assert_clean(&bed.runtime, &bed.hooks, 0..8);
        bed.runtime.shutdown(Duration::ZERO).unwrap();
        answering.join().unwrap();
    }
}

/// An embedder that knows only some of its objects again.
struct Forgetful {
    counting: Counting,
    asked: Mutex<Vec<Restored>>,
}

impl Hooks for Forgetful {
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.counting.encode(run, args)
    }
    fn done(&self, run: &Run, outcome: &ringback::Outcome<'_>) -> ringback::Done {
        self.counting.done(run, outcome)
    }
    fn release(&self, run: &Run) {
        self.counting.release(run);
    }
    fn restored(&self, callback: &Restored) -> Option<u64> {
        self.asked.lock().unwrap().push(*callback);
        callback.cookie.is_multiple_of(2).then_some(callback.cookie + 1000)
    }
}

#[test]
fn the_embedder_says_what_is_still_there_and_by_what_name() {
    for backend in backends() {
        let (bed, mut stream) = Bed::new(builder(backend, 2), 4);
        let (client, session) = (bed.client, bed.session);
        let keys = insert_all(&bed.runtime, client, 0..12);
        bed.start(&keys[..6], 4, &mut stream);
        let (checkpoint, _) = bed.leave();
        let hooks = Arc::new(Forgetful { counting: Counting::default(), asked: Mutex::default() });
        let runtime = restored(builder(backend, 1), &checkpoint, &hooks);
        let mut asked = hooks.asked.lock().unwrap().clone();
        asked.sort_by_key(|callback| callback.cookie);
        assert_eq!(asked.iter().map(|c| (c.key, c.client, c.running)).collect::<Vec<_>>(), {
            keys.iter().enumerate().map(|(n, key)| (*key, client, n < 6)).collect::<Vec<_>>()
        });
        assert_eq!((runtime.stats().in_flight, runtime.stats().delegations), (3, 6));
        assert_eq!(runtime.try_run(keys[1]), TryRun::Stale);
        assert_eq!(runtime.census().unwrap().quarantined, 2, "the client may have taken those that are gone");
        let mut stream = reconnect(&runtime, session);
        let mut records: Vec<_> = (0..4).map(|_| read_record(&mut stream).unwrap()).collect();
        records.sort_by_key(Vec::len);
        let replies: Vec<_> = records.iter().map(|record| answer_anything(record)).collect();
        replies.iter().for_each(|reply| write_record(&mut stream, reply));
        let last = read_record(&mut stream).unwrap();
        write_record(&mut stream, &answer_anything(&last));
        eventually("all have ended", || runtime.stats().in_flight == 0);
        let mut known: Vec<_> = hooks.counting.seen.lock().unwrap().iter().map(|(c, s)| (*c, s.released)).collect();
        known.sort_unstable();
        assert_eq!(known, [(1000, 1), (1002, 1), (1004, 1)]);
        let census = runtime.census().unwrap();
        assert_eq!((census.free, census.quarantined), (4, 0));
    }
}

#[test]
fn t16_what_has_happened_since_is_found_out_before_a_slot_is_used() {
    for backend in backends() {
        let (bed, mut stream) = Bed::new(builder(backend, 1), 1);
        let session = bed.session;
        let keys = insert_all(&bed.runtime, bed.client, 0..3);
        let mut bytes = Vec::new();
        bed.runtime.checkpoint(&mut bytes).unwrap();
        // One callback goes through; then the process is gone, and nobody has written that down.
        let mut slots = SlotIds::default();
        let sent = bed.start(&keys[..1], 1, &mut stream);
        write_record(&mut stream, &answer_recall(&sent[0], &mut slots, Status::NFS4_OK).1);
        eventually("it has ended", || bed.runtime.stats().in_flight == 0);
        drop(bed);
        let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
        assert!(!checkpoint.is_complete());
        let hooks = Arc::new(Counting::default());
        let runtime = restored(builder(backend, 1), &checkpoint, &hooks);
        assert_eq!(runtime.census().unwrap().quarantined, 1);
        assert_eq!(runtime.try_run(keys[1]), TryRun::Submitted);
        let mut stream = reconnect(&runtime, session);
        let lone = read_record(&mut stream).unwrap();
        assert!(lone.len() < sent[0].len(), "a lone CB_SEQUENCE");
        write_record(&mut stream, &answer_anything(&lone));
        let (cookie, reply) = answer_recall(&read_record(&mut stream).unwrap(), &mut slots, Status::NFS4_OK);
        assert_eq!(cookie, 1);
        write_record(&mut stream, &reply);
        eventually("it has ended", || runtime.stats().in_flight == 0);
    }
}

#[test]
fn a_completion_that_was_not_given_back_is_given_again() {
    for backend in backends() {
        for queues in [1, 0] {
            let (bed, mut stream) = Bed::new(builder(backend, 1).completion_queues(1), 4);
            let keys = insert_all(&bed.runtime, bed.client, 0..3);
            let mut slots = SlotIds::default();
            for record in bed.start(&keys, 3, &mut stream) {
                write_record(&mut stream, &answer_recall(&record, &mut slots, Status::NFS4_OK).1);
            }
            let queue = bed.runtime.completion_queue(0).unwrap();
            let mut batch: Vec<Completion> = Vec::new();
            eventually("all are answered", || bed.runtime.stats().completed == 3);
            assert_eq!(queue.poll(&mut batch, 1), 1, "taken, and not given back");
            let (checkpoint, before) = bed.leave();
            drop(queue);
            assert_eq!(before.released(), 0);
            let hooks = Arc::new(Counting::default());
            let runtime = restored(builder(backend, 1).completion_queues(queues), &checkpoint, &hooks);
            if queues > 0 {
                let queue = runtime.completion_queue(0).unwrap();
                let mut seen = Vec::new();
                eventually("all have come", || {
                    let mut batch = Vec::new();
                    queue.poll(&mut batch, 8);
                    batch.iter().all(|c| c.ending == Ending::Replied(Status::NFS4_OK)) && runtime.stats().in_flight == 0
                });
                seen.append(&mut batch);
            }
            eventually("all have ended", || runtime.stats().in_flight == 0);
            assert_eq!((hooks.released(), hooks.of(0).done.len()), (3, 0), "`done` was called there");
            assert_eq!(runtime.shutdown(Duration::ZERO).unwrap().in_flight, 0);
        }
    }
}

#[test]
fn f15_a_return_that_is_owed_is_overdue_in_the_next_process() {
    let backend = Backend::Epoll;
    let patience = Duration::from_millis(400);
    let (bed, mut stream) = Bed::new(builder(backend, 2).return_deadline(patience), 4);
    let (client, keys) = (bed.client, insert_all(&bed.runtime, bed.client, 0..3));
    let mut slots = SlotIds::default();
    for record in bed.start(&keys[..2], 2, &mut stream) {
        write_record(&mut stream, &answer_recall(&record, &mut slots, Status::NFS4_OK).1);
    }
    eventually("both have ended", || bed.runtime.stats().in_flight == 0);
    assert_eq!(bed.runtime.remove(keys[0]), Remove::Removed, "it came back");
    let (checkpoint, _) = bed.leave();
    let hooks = Arc::new(Counting::default());
    let runtime = restored(builder(backend, 3).return_deadline(patience), &checkpoint, &hooks);
    let overdue = |event: &Event| matches!(event, Event::ReturnOverdue { .. });
    eventually("it is overdue", || hooks.events.lock().unwrap().iter().any(overdue));
    let events = hooks.events.lock().unwrap().clone();
    let told: Vec<_> = events.into_iter().filter(overdue).collect();
    assert_eq!(told, [Event::ReturnOverdue { key: keys[1], cookie: 1, client }]);
    drop(runtime);
}

#[test]
fn t22_a_removed_callback_goes_when_its_run_ends_in_the_next_process() {
    for backend in backends() {
        let (bed, mut stream) = Bed::new(builder(backend, 1), 2);
        let session = bed.session;
        let keys = insert_all(&bed.runtime, bed.client, 0..3);
        bed.start(&keys, 2, &mut stream);
        assert_eq!(bed.runtime.remove(keys[0]), Remove::Deferred);
        let (checkpoint, _) = bed.leave();
        let hooks = Arc::new(Counting::default());
        let runtime = restored(builder(backend, 1), &checkpoint, &hooks);
        assert_eq!(runtime.try_run(keys[0]), TryRun::Dying);
        answer_all(reconnect(&runtime, session));
        eventually("all have ended", || runtime.stats().in_flight == 0);
        assert_eq!(runtime.try_run(keys[0]), TryRun::Stale);
        assert_eq!((hooks.of(0).released, runtime.stats().delegations), (1, 2));
    }
}

#[test]
fn f18_a_removed_client_is_forgotten_and_its_place_is_used_again() {
    let (bed, _stream) = Bed::new(builder(Backend::Epoll, 1), 2);
    let (client, runtime) = (bed.client, bed.runtime.clone());
    let other = runtime.add_client(None).unwrap();
    let keys = insert_all(&runtime, client, 0..2);
    runtime.remove_client(client).unwrap();
    runtime.census().unwrap();
    drop(runtime);
    let (checkpoint, _) = bed.leave();
    assert_eq!(checkpoint.clients(), 1);
    let hooks = Arc::new(Counting::default());
    let runtime = restored(builder(Backend::Epoll, 1), &checkpoint, &hooks);
    assert_eq!(runtime.try_run(keys[0]), TryRun::Closed);
    assert!(runtime.add_session(client, session_config(1, 1)).is_err());
    runtime.add_session(other, session_config(2, 1)).unwrap();
    keys.iter().for_each(|key| assert_eq!(runtime.remove(*key), Remove::Removed));
    let next = runtime.add_client(None).unwrap();
    assert_ne!(next.to_bits(), client.to_bits());
    assert_eq!(next.to_bits() as u32, client.to_bits() as u32, "the same place, another generation");
}

#[test]
fn tenants_and_whose_clients_are_whose_go_along() {
    for backend in backends() {
        let (bed, _stream) = Bed::new(builder(backend, 2), 2);
        let runtime = bed.runtime.clone();
        let limits = TenantLimits::default().callbacks_max(3).calls_max(1);
        let tenant = runtime.add_tenant("accounting", limits).unwrap();
        let empty = runtime.add_tenant("empty", TenantLimits::default()).unwrap();
        let (ours, mut theirs) = pair();
        let connection = runtime.add_connection(ours).unwrap();
        let client = runtime.add_client_of(tenant, Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(9, 2)).unwrap();
        runtime.bind(connection, session).unwrap();
        let keys = insert_all(&runtime, client, 20..23);
        assert!(runtime.insert(client, CallbackOp::Recall, 9).is_err(), "its tenant has no room");
        keys[..2].iter().for_each(|key| assert_eq!(runtime.try_run(*key), TryRun::Submitted));
        read_record(&mut theirs).unwrap();
        eventually("one is out", || runtime.tenants()[0].calls_out == 1);
        let before = runtime.tenants();
        drop(runtime);
        let (checkpoint, _) = bed.leave();
        let hooks = Arc::new(Counting::default());
        let runtime = restored(builder(backend, 3), &checkpoint, &hooks);
        let (after, offline) = (runtime.tenants(), checkpoint.snapshot(0).unwrap().tenants);
        for (n, tenant) in before.iter().enumerate() {
            let known =
                |t: &TenantReport| (t.tenant, t.label.clone(), t.limits, t.callbacks, t.refused, t.callbacks_sent);
            assert_eq!((known(&after[n]), known(&offline[n])), (known(tenant), known(tenant)));
        }
        assert_eq!((after.len(), runtime.add_tenant("empty", TenantLimits::default())), (2, Ok(empty)));
        assert!(runtime.insert(client, CallbackOp::Recall, 9).is_err(), "still");
        assert_eq!(runtime.remove(keys[2]), Remove::Removed);
        runtime.insert(client, CallbackOp::Recall, 9).unwrap();
        answer_all(reconnect(&runtime, session));
        eventually("all have ended", || runtime.stats().in_flight == 0);
        assert_eq!(runtime.tenants()[0].calls_out, 0);
    }
}
