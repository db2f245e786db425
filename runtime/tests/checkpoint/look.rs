//! A checkpoint shows what the runtime showed.

use super::*;
use ringback::{ClientReport, Snapshot, Stage};
use ringback_rpc::nfs4::Status;
use std::time::Duration;

/// Without what time has changed, and memory.
fn timeless(snapshot: Snapshot) -> (Vec<ClientReport>, String) {
    let mut clients = snapshot.clients;
    for client in &mut clients {
        client.census.bytes = 0;
        client.callbacks.iter_mut().for_each(|callback| callback.age_ns = 0);
        client.callbacks.sort_by_key(|callback| callback.key);
    }
    let reactors = snapshot.reactors.iter().map(|r| {
        let mut stats = r.stats;
        (stats.wakes, stats.syscalls, stats.receives) = (0, 0, 0);
        let (queued, sent, parked) = (r.census.queued, r.census.sent, r.census.parked);
        format!("{} {stats:?} {:?} {:?} {queued} {sent} {parked}", r.reactor, r.counters, r.endings)
    });
    (clients, reactors.collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_file_is_looked_at_as_a_runtime_is() {
    for backend in backends() {
        let (bed, mut stream) = Bed::new(builder(backend, 2), 2);
        let keys = insert_all(&bed.runtime, bed.client, 0..9);
        let mut slots = SlotIds::default();
        let sent = bed.start(&keys[..2], 2, &mut stream);
        for record in sent {
            write_record(&mut stream, &answer_recall(&record, &mut slots, Status::NFS4_OK).1);
        }
        eventually("both have ended", || bed.runtime.stats().in_flight == 0);
        bed.start(&keys[3..8], 2, &mut stream);
        let parked = bed.runtime.add_client(None).unwrap();
        bed.runtime.add_session(parked, session_config(8, 1)).unwrap();
        let waiting = insert_all(&bed.runtime, parked, 50..52);
        waiting.iter().for_each(|key| assert_eq!(bed.runtime.try_run(*key), TryRun::Submitted));
        // So that it has been taken up.
        eventually("all were taken up", || bed.runtime.inspect(9).unwrap().iter().all(|c| !c.callbacks.is_empty()));
        let mut bytes = Vec::new();
        bed.runtime.checkpoint(&mut bytes).unwrap();
        let (live, live_reactors) = timeless(bed.runtime.snapshot(10).unwrap());
        let totals = bed.runtime.stats();
        let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
        let offline = checkpoint.snapshot(10).unwrap();
        assert_eq!((offline.totals.in_flight, offline.totals.delegations), (totals.in_flight, totals.delegations));
        let (clients, reactors) = timeless(offline);
        assert_eq!(reactors, live_reactors);
        // Nobody knows what has become of the slots since: that is all that differs.
        for (offline, live) in clients.iter().zip(&live) {
            assert_eq!((offline.client, offline.home, offline.in_flight), (live.client, live.home, live.in_flight));
            assert_eq!((&offline.callbacks, &offline.counters), (&live.callbacks, &live.counters));
            assert_eq!((&offline.sessions, offline.path), (&live.sessions, live.path));
            assert_eq!(offline.census, live.census);
        }
        assert!(clients[0].callbacks.iter().any(|callback| callback.stage == Stage::Sent));
        bed.runtime.shutdown(Duration::ZERO).unwrap();
    }
}

#[test]
fn checkpoints_are_written_every_now_and_then() {
    let directory = std::env::temp_dir().join(format!("ringback-every-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("callbacks");
    let every = builder(Backend::Epoll, 1).checkpoint_every(Duration::from_secs(1), &file);
    let (bed, _stream) = Bed::new(every, 2);
    insert_all(&bed.runtime, bed.client, 0..3);
    eventually("one was written", || Checkpoint::open(&file).is_ok_and(|c| c.callbacks() == 3));
    // It cannot be written any more, and the embedder is told.
    std::fs::remove_dir_all(&directory).unwrap();
    let failed = |event: &ringback::Event| matches!(event, ringback::Event::CheckpointFailed { .. });
    eventually("the embedder was told", || bed.hooks.events.lock().unwrap().iter().any(failed));
    bed.runtime.shutdown(Duration::ZERO).unwrap();
    let error = builder(Backend::Epoll, 1).checkpoint_every(Duration::ZERO, &file);
    assert!(error.build(Arc::new(Counting::default()), Arc::new(Deaf)).is_err());
}
