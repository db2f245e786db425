//! Memory and places in the submission queue that are not to be had: once, now and then, for ever.

use super::*;
use crate::Remove;
use crate::command::Command;

const BACKENDS: [Backend; 2] = [Backend::Epoll, Backend::Uring];

const CALLBACKS: u64 = 300;
/// Few, so that it takes many sends.
const SLOTS: u32 = 2;
const FAILING_MAX: u64 = 200;

/// Runs [`CALLBACKS`] callbacks to their end. `None`: this host lacks the back end.
fn play(backend: Backend, fails: impl Fn(Attempt) -> bool + Send + Sync + 'static) -> Option<Stage> {
    let mut stage = Stage::new(backend, SLOTS, Failures::new(fails))?;
    let keys = stage.insert(0..CALLBACKS);
    stage.submit(&keys);
    stage.run_until(|s| s.in_flight() == 0);
    Some(stage)
}

/// What every run must come to, whatever failed on the way.
fn assert_ended(stage: &Stage) {
    let Final { seen, executed, in_flight, slots_free, completed } = stage.end();
    assert_eq!((in_flight, slots_free, completed), (0, SLOTS.into(), CALLBACKS));
    for cookie in 0..CALLBACKS {
        let Seen { acquired, prepared, done, released, dropped } = &seen[&cookie];
        assert_eq!((*acquired, *prepared, done.len(), *released, *dropped), (1, 1, 1, 1, 1), "{cookie}: {done:?}");
        assert_eq!(executed[&cookie], 1);
    }
}

/// What may be short, on each back end.
fn each() -> impl Iterator<Item = (Backend, What)> {
    BACKENDS.into_iter().flat_map(|backend| [What::Staging, What::Send].map(|what| (backend, what)))
}

#[test]
fn t5_one_failure_anywhere_is_one_release_and_no_trace() {
    for backend in BACKENDS {
        let Some(baseline) = play(backend, |_| false) else { continue };
        assert_ended(&baseline);
        assert!(baseline.attempts() >= FAILING_MAX, "only {} attempts", baseline.attempts());
        for failing in 1..=FAILING_MAX {
            let stage = play(backend, move |attempt| attempt.number == failing).expect("it was there before");
            assert_eq!(stage.failed(), 1);
            assert_ended(&stage);
            assert_eq!(stage.end(), baseline.end(), "{backend:?}: attempt {failing}");
            assert!(stage.turns <= baseline.turns + 2, "{backend:?}: attempt {failing}: {} turns", stage.turns);
        }
    }
}

#[test]
fn t5_every_nth_attempt_fails_and_each_run_is_released_once() {
    for backend in BACKENDS {
        let Some(baseline) = play(backend, |_| false) else { continue };
        for every in 2..=FAILING_MAX {
            let fails = move |attempt: Attempt| attempt.number.is_multiple_of(every);
            let stage = play(backend, fails).expect("it was there before");
            assert!(stage.failed() >= CALLBACKS / every);
            assert_ended(&stage);
            assert_eq!(stage.end(), baseline.end(), "{backend:?}: every {every}th");
            // No hot loop: a failure costs one turn more.
            let turns_max = baseline.turns + stage.failed() + 2;
            assert!(stage.turns <= turns_max, "{backend:?}: every {every}th: {} turns", stage.turns);
        }
    }
}

/// Each kind of shortage alone, for good: every attempt fails from the first on (N = 1), and nothing but the clock ends it.
#[test]
fn t6_a_shortage_that_lasts_costs_little_and_the_runs_end_by_their_deadline() {
    for (backend, what) in each() {
        let failures = Failures::new(move |attempt| attempt.what == what);
        let Some(mut stage) = Stage::new(backend, SLOTS, failures) else { continue };
        let keys = stage.insert(0..CALLBACKS);
        stage.submit(&keys);
        let (turns, begun_ns) = (stage.turns, stage.now_ns());
        stage.run_until(|s| s.in_flight() == 0);
        let lease_s = (stage.now_ns() - begun_ns) / 1_000_000_000;
        assert_eq!(lease_s, 90, "{backend:?}, {what:?}");
        // 128 ms between attempts: 8 a second. A loop that does not wait would have had millions.
        let turns = stage.turns - turns;
        assert!(turns <= 8 * lease_s + 50, "{backend:?}, {what:?}: {turns} turns");
        assert!(stage.failed() <= turns, "{what:?}: {} attempts", stage.failed());
        for (cookie, seen) in stage.seen() {
            assert!(seen.done.len() == 1 && seen.done[0].starts_with("TimedOut"), "{what:?} {cookie}: {seen:?}");
            assert_eq!((seen.acquired, seen.released, seen.dropped), (1, 1, 1));
        }
    }
}

#[test]
fn t6_without_memory_an_insert_is_refused_and_asks_once() {
    let failures = Failures::new(|attempt| attempt.what == What::Slab);
    let stage = Stage::new(Backend::Epoll, SLOTS, failures).expect("epoll is everywhere");
    for asked in 1..=100 {
        assert_eq!(stage.runtime.insert(stage.id, CallbackOp::Recall, 0), Err(InsertError::OutOfMemory));
        assert_eq!(stage.failed(), asked, "one attempt for each insert");
    }
    assert_eq!(stage.shared.slab.memory().entries_bytes, 0);
}

#[test]
fn t6_after_a_shortage_everything_goes_on_within_its_longest_wait() {
    for (backend, what) in each() {
        let short = Arc::new(AtomicU64::new(1));
        let is_short = Arc::clone(&short);
        let failures = Failures::new(move |attempt| attempt.what == what && is_short.load(SeqCst) == 1);
        let Some(mut stage) = Stage::new(backend, SLOTS, failures) else { continue };
        let keys = stage.insert(0..CALLBACKS);
        stage.submit(&keys);
        let begun_ns = stage.now_ns();
        // Shorter than the time after which the silent connection would be closed.
        stage.run_until(|s| s.now_ns() - begun_ns > 8_000_000_000);
        assert_eq!(stage.in_flight(), CALLBACKS);
        short.store(0, SeqCst);
        let over_ns = stage.now_ns();
        stage.run_until(|s| s.in_flight() == 0);
        assert!(stage.now_ns() - over_ns <= 128_000_000, "{what:?}");
        assert_ended(&stage);
    }
}

/// The queue takes nothing and the reactor is told to stop: no run is left behind, no callback is left running.
#[test]
fn t8_a_queue_that_refuses_while_the_reactor_stops_leaves_no_run() {
    for (backend, what) in each() {
        for turns_before in 0..6 {
            let failures = Failures::new(move |attempt| attempt.what == what);
            let Some(mut stage) = Stage::new(backend, SLOTS, failures) else { continue };
            let keys = stage.insert(0..CALLBACKS);
            stage.submit(&keys);
            let until = stage.turns + turns_before;
            if turns_before > 0 {
                stage.run_until(|s| s.turns >= until);
            }
            stage.shared.reactors[0].post(Command::Stop);
            stage.run_until(|s| s.in_flight() == 0 && s.reactor.lines.is_empty());
            for (cookie, seen) in stage.seen() {
                assert!(seen.done.len() == 1 && seen.done[0].starts_with("Cancelled"), "{cookie}: {seen:?}");
                assert_eq!((seen.acquired, seen.released, seen.dropped), (1, 1, 1));
            }
            // RUNNING is left nowhere: each callback is idle, and goes at once.
            assert!(keys.iter().all(|key| stage.runtime.remove(*key) == Remove::Removed));
        }
    }
}
