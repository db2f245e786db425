//! Upgrades that fail, at each step of either process: the old one goes on as if nothing had happened.

use super::*;
use std::time::Instant;

/// Where a process is to fail, and how.
type Planned = Option<(Step, Fault)>;

const OF_THE_OLD: [Step; 8] =
    [Step::Greet, Step::Suspend, Step::Lift, Step::Write, Step::State, Step::Files, Step::Sockets, Step::Go];
const OF_THE_NEW: [Step; 7] =
    [Step::Greet, Step::State, Step::Files, Step::Sockets, Step::Open, Step::Restore, Step::Ready];

/// Makes an upgrade fail. The old process waits for as long as that.
fn fail(bed: &Bed, to: Backend, old: Planned, new: Planned, patience: Duration) {
    let (socket, thread) = successor(builder(to, 2), new);
    FAULT.set(old);
    let given = bed.runtime.upgrade_to(socket, &[], patience);
    FAULT.set(None);
    let taken = thread.join().unwrap();
    let (given, taken) = (given.err(), taken.map(|next| next.upgraded).err());
    assert!(given.is_some() && taken.is_some(), "{old:?}, {new:?}: {given:?}, {taken:?}");
}

/// What is under way meanwhile goes on in the old process, each callback once; and at last an upgrade succeeds.
fn goes_on(backend: Backend, to: Backend, failures: &[(Planned, Planned)], patience: Duration) {
    let mut bed = Bed::new(builder(backend, 2), 3, 8);
    let begun = bed.start(6);
    for (old, new) in failures {
        fail(&bed, to, *old, *new, patience);
    }
    for (n, (client, begun)) in (0..).zip(bed.clients.iter_mut().zip(begun)) {
        assert_eq!(client.finish(begun, 6), (n * 8..n * 8 + 6).collect::<Vec<_>>());
    }
    eventually("all have ended", || bed.runtime.stats().in_flight == 0);
    assert_clean(&bed.runtime, &bed.hooks, (0..3).flat_map(|n| n * 8..n * 8 + 6));
    let stats = bed.runtime.stats();
    assert_eq!((stats.resent, stats.connections_condemned), (0, 0));
    let (socket, thread) = successor(builder(to, 2), None);
    bed.runtime.upgrade_to(socket, &[], PATIENCE).unwrap();
    let next = thread.join().unwrap().unwrap();
    let client = &mut bed.clients[2];
    assert_eq!(next.runtime.try_run(client.keys[7]), TryRun::Submitted);
    let (cookie, reply) = answer_recall(&read_record(&mut client.stream).unwrap(), &mut client.slots, Status::NFS4_OK);
    assert_eq!(cookie, 23);
    write_record(&mut client.stream, &reply);
    eventually("it has ended", || next.hooks.of(23).released == 1);
}

#[test]
fn the_old_process_goes_on_whatever_step_fails_in_either() {
    for backend in backends() {
        for to in backends() {
            let fails = |fault| move |step| Some((step, fault));
            let mut failures = Vec::new();
            for fault in [Fault::Error, Fault::Crash] {
                failures.extend(OF_THE_OLD.map(fails(fault)).map(|old| (old, None)));
                failures.extend(OF_THE_NEW.map(fails(fault)).map(|new| (None, new)));
            }
            goes_on(backend, to, &failures, PATIENCE);
        }
    }
}

/// Either process takes longer than the old one is willing to wait.
#[test]
fn the_old_process_goes_on_when_its_patience_is_over() {
    let patience = Duration::from_millis(200);
    let hangs = |step| Some((step, Fault::Hang(patience * 2)));
    for backend in backends() {
        let old = OF_THE_OLD.map(hangs).map(|old| (old, None));
        let new = OF_THE_NEW.map(hangs).map(|new| (None, new));
        goes_on(backend, backend, &[&old[..], &new[..]].concat(), patience);
    }
}

/// A hook that does not return keeps its reactor from standing still.
#[test]
fn the_old_process_goes_on_when_a_reactor_does_not_stand_still() {
    struct Stuck(Mutex<()>);
    impl ForeChannel for Stuck {
        fn call(&self, _: Call<'_>) {
            drop(self.0.lock().unwrap());
        }
    }
    for backend in backends() {
        let stuck = Arc::new(Stuck(Mutex::new(())));
        let runtime = builder(backend, 1).build(Arc::new(Counting::default()), Arc::clone(&stuck) as _).unwrap();
        let (ours, mut theirs) = pair();
        runtime.add_connection(ours).unwrap();
        let held = stuck.0.lock().unwrap();
        write_record(&mut theirs, &call(8, 1));
        eventually("it is called", || runtime.stats().fore_calls == 1);
        let (socket, thread) = successor(builder(backend, 1), None);
        let error = runtime.upgrade_to(socket, &[], Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, UpgradeError::Checkpoint(_)), "{error}");
        assert!(matches!(thread.join().unwrap(), Err(UpgradeError::Refused { .. })));
        drop(held);
        // It stands still a moment when it comes to it, and goes on.
        write_record(&mut theirs, &call(8, 2));
        eventually("it goes on", || runtime.stats().fore_calls == 2);
        let until = Instant::now() + PATIENCE;
        while runtime.suspend().map(drop).is_err() {
            assert!(Instant::now() < until, "it can be suspended again");
        }
        runtime.shutdown(Duration::ZERO).unwrap();
    }
}
