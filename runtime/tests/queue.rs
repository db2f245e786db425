//! Completions on a queue: the same runs, ended by a thread of the embedder's.

mod common;

use common::*;
use ringback::{
    Backend, Builder, CallbackKey, CallbackOp, ClientId, Completion, CompletionQueue, Ending, Remove, Runtime, TryRun,
};
use ringback_rpc::nfs4::Status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Waits for the descriptor, for a quarter of a second at most: whether it was readable.
fn readable(queue: &CompletionQueue, patience: Duration) -> bool {
    let wait = Timespec { tv_sec: 0, tv_nsec: patience.as_nanos() as i64 };
    poll(&mut [PollFd::new(queue, PollFlags::IN)], Some(&wait)).unwrap() == 1
}

const AT_ONCE: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_millis(250);

struct Bed {
    runtime: Runtime,
    hooks: Arc<Counting>,
    queue: CompletionQueue,
    client: ClientId,
}

impl Bed {
    /// A runtime with one queue, and a client at the other end of `stream` that answers all.
    fn new(mode: &Mode, reactors: usize) -> Self {
        let hooks = Arc::new(Counting::default());
        let builder = Builder::new().reactors(reactors).backend(mode.backend).completion_queues(1);
        let runtime = builder.build(hooks.clone(), Arc::new(Deaf)).unwrap();
        let queue = runtime.completion_queue(0).unwrap();
        let (client, _) = Bed::client(mode, &runtime, 1);
        Bed { runtime, hooks, queue, client }
    }

    fn client(mode: &Mode, runtime: &Runtime, id: u8) -> (ClientId, std::thread::JoinHandle<Vec<u64>>) {
        let (ours, theirs) = pair();
        let connection = mode.add_connection(runtime, ours).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(id, 8)).unwrap();
        runtime.bind(connection, session).unwrap();
        (client, answer_all(theirs))
    }

    fn insert(&self, cookie: u64) -> CallbackKey {
        self.runtime.insert(self.client, CallbackOp::Recall, cookie).unwrap()
    }

    /// The next completions, at most `limit`; sleeps on the descriptor until there are some.
    fn next(&self, limit: usize) -> Vec<Completion> {
        let (mut batch, until) = (Vec::new(), Instant::now() + Duration::from_secs(10));
        while self.queue.poll(&mut batch, limit) == 0 {
            assert!(Instant::now() < until, "no completion came");
            readable(&self.queue, SOON);
        }
        batch
    }
}

#[test]
fn each_completion_comes_once_and_the_run_ends_with_the_next_poll() {
    for mode in modes() {
        let bed = Bed::new(&mode, 2);
        let (other, _) = Bed::client(&mode, &bed.runtime, 2);
        let mut keys: Vec<_> = (0..200).map(|cookie| bed.insert(cookie)).collect();
        keys.extend(insert_all(&bed.runtime, other, 200..400));
        assert!(keys.iter().all(|key| bed.runtime.try_run(*key) == TryRun::Submitted));
        let mut seen = Vec::new();
        while seen.len() < keys.len() {
            let batch = bed.next(64);
            assert!(batch.len() <= 64);
            for completion in &batch {
                // Told, and not released: it could not run again yet.
                assert_eq!(bed.hooks.of(completion.cookie).released, 0);
                assert_eq!(completion.key, keys[completion.cookie as usize]);
                assert_eq!(completion.client, if completion.cookie < 200 { bed.client } else { other });
                assert_eq!((completion.op, completion.ending), (CallbackOp::Recall, Ending::Replied(Status::NFS4_OK)));
            }
            seen.extend(batch.iter().map(|c| c.cookie));
        }
        bed.queue.release();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..400), "{mode:?}: once each");
        eventually("all is released", || bed.runtime.stats().in_flight == 0);
        assert_clean(&bed.runtime, &bed.hooks, 0..400);
        assert!(keys.iter().all(|key| bed.runtime.remove(*key) == Remove::Removed));
        assert_eq!(bed.runtime.shutdown(Duration::from_secs(1)).unwrap().in_flight, 0);
    }
}

#[test]
fn the_descriptor_is_readable_while_there_is_something() {
    let bed = Bed::new(&Mode::sockets(Backend::Epoll), 1);
    assert!(!readable(&bed.queue, AT_ONCE));
    let key = bed.insert(7);
    // Twice: the first time nobody has looked into the queue before.
    for round in 0..2 {
        assert_eq!(bed.runtime.try_run(key), TryRun::Submitted);
        assert!(readable(&bed.queue, Duration::from_millis(999)), "round {round}");
        let mut batch = Vec::new();
        assert_eq!(bed.queue.poll(&mut batch, 8), 1);
        assert_eq!(bed.queue.poll(&mut batch, 8), 0);
        assert!(!readable(&bed.queue, AT_ONCE));
        eventually("the run is over", || bed.runtime.stats().in_flight == 0);
    }
    bed.queue.waker().wake_by_ref();
    assert!(readable(&bed.queue, AT_ONCE));
    assert_eq!(bed.queue.poll(&mut Vec::new(), 8), 0);
    assert!(!readable(&bed.queue, AT_ONCE));
    bed.runtime.shutdown(Duration::from_secs(1)).unwrap();
}

#[test]
fn t32_a_request_while_the_completion_waits_runs_again() {
    let bed = Bed::new(&Mode::sockets(Backend::Auto), 1);
    let key = bed.insert(1);
    assert_eq!(bed.runtime.try_run(key), TryRun::Submitted);
    assert!(readable(&bed.queue, Duration::from_millis(999)));
    // On the queue, decided: a request needs a new run; and so it does while the embedder looks at it.
    assert_eq!(bed.runtime.try_run(key), TryRun::Rearmed);
    assert_eq!(bed.next(1).len(), 1);
    assert_eq!(bed.runtime.try_run(key), TryRun::Rearmed);
    assert_eq!(bed.hooks.of(1).prepared, 1);
    assert_eq!(bed.next(1).len(), 1, "both requests are served by one more run");
    bed.queue.release();
    eventually("the run is over", || bed.runtime.stats().in_flight == 0);
    let seen = bed.hooks.of(1);
    assert_eq!((seen.acquired, seen.prepared, seen.released, seen.dropped), (1, 2, 2, 1));
    bed.runtime.shutdown(Duration::from_secs(1)).unwrap();
}

#[test]
fn t33_remove_while_the_completion_waits_frees_after_the_release() {
    let bed = Bed::new(&Mode::sockets(Backend::Auto), 1);
    let key = bed.insert(1);
    assert_eq!(bed.runtime.try_run(key), TryRun::Submitted);
    assert_eq!(bed.next(1)[0].key, key);
    assert_eq!(bed.runtime.remove(key), Remove::Deferred);
    assert_eq!(bed.runtime.try_run(key), TryRun::Dying);
    bed.queue.release();
    eventually("the entry is free", || bed.runtime.try_run(key) == TryRun::Stale);
    assert_eq!(bed.hooks.of(1).released, 1);
    bed.runtime.shutdown(Duration::from_secs(1)).unwrap();
}

/// The client goes while its completions wait to be taken: they are, and only then is it forgotten.
#[test]
fn t29_a_client_removed_while_its_completions_wait() {
    for mode in modes() {
        let bed = Bed::new(&mode, 1);
        let keys = insert_all(&bed.runtime, bed.client, 0..3);
        assert!(keys.iter().all(|key| bed.runtime.try_run(*key) == TryRun::Submitted));
        eventually("all are decided", || bed.runtime.stats().completed == 3);
        let taken = bed.next(1);
        bed.runtime.remove_client(bed.client).unwrap();
        assert_eq!((bed.runtime.stats().in_flight, bed.hooks.released()), (3, 0));
        let mut seen: Vec<_> = taken.iter().map(|c| (c.cookie, c.ending)).collect();
        while seen.len() < 3 {
            seen.extend(bed.next(1).iter().map(|c| (c.cookie, c.ending)));
        }
        bed.queue.release();
        seen.sort_unstable_by_key(|(cookie, _)| *cookie);
        assert_eq!(seen, [0, 1, 2].map(|cookie| (cookie, Ending::Replied(Status::NFS4_OK))));
        eventually("all is released", || bed.runtime.stats().in_flight == 0);
        assert_clean(&bed.runtime, &bed.hooks, 0..3);
        assert!(keys.iter().all(|key| bed.runtime.remove(*key) == Remove::Removed));
        bed.runtime.shutdown(Duration::from_secs(1)).unwrap();
    }
}

#[test]
fn who_waits_is_answered_before_the_completion_is_taken() {
    let bed = Bed::new(&Mode::sockets(Backend::Auto), 1);
    let key = bed.insert(1);
    let (asked, wait) = bed.runtime.run_and_wait(key);
    assert_eq!(asked, TryRun::Submitted);
    assert_eq!(wait.block(Duration::from_secs(10)).unwrap().status(), Some(Status::NFS4_OK));
    assert_eq!(bed.runtime.stats().in_flight, 1);
    assert_eq!(bed.next(4).len(), 1);
    bed.queue.release();
    bed.runtime.shutdown(Duration::from_secs(1)).unwrap();
    assert_eq!(bed.runtime.stats().in_flight, 0);
}

#[test]
fn a_drain_tells_of_completions_that_nobody_takes_and_the_end_does_not_wait_for_them() {
    for taken in [false, true] {
        let bed = Bed::new(&Mode::sockets(Backend::Auto), 1);
        let key = bed.insert(1);
        assert_eq!(bed.runtime.try_run(key), TryRun::Submitted);
        assert!(readable(&bed.queue, Duration::from_millis(999)));
        let mut batch = Vec::new();
        if taken {
            assert_eq!(bed.queue.poll(&mut batch, 8), 1);
        }
        let report = bed.runtime.shutdown(Duration::from_millis(10)).unwrap();
        assert_eq!(report.in_flight, 1, "taken: {taken}");
        // Its reactor has ended, and still it is told once, and released once.
        if !taken {
            assert_eq!(bed.queue.poll(&mut batch, 8), 1);
        }
        assert_eq!(bed.queue.poll(&mut batch, 8), 0);
        assert_clean(&bed.runtime, &bed.hooks, 1..2);
        assert_eq!(bed.runtime.remove(key), Remove::Removed);
    }
}

#[test]
fn the_queue_outlives_the_runtime() {
    let Bed { runtime, hooks, queue, client } = Bed::new(&Mode::sockets(Backend::Auto), 2);
    let keys = insert_all(&runtime, client, 0..50);
    assert!(keys.iter().all(|key| runtime.try_run(*key) == TryRun::Submitted));
    drop(runtime);
    let (mut batch, mut told) = (Vec::new(), 0);
    loop {
        match queue.poll(&mut batch, 7) {
            0 => break,
            n => told += n,
        }
    }
    assert_eq!((told, hooks.released()), (50, 50));
}

#[test]
fn a_thread_that_polls_the_queue_can_drain() {
    let bed = Bed::new(&Mode::sockets(Backend::Auto), 2);
    let keys: Vec<_> = (0..50).map(|cookie| bed.insert(cookie)).collect();
    assert!(keys.iter().all(|key| bed.runtime.try_run(*key) == TryRun::Submitted));
    let mut drain = Box::pin(bed.runtime.start_drain(Duration::from_secs(5)));
    let (mut batch, mut told) = (Vec::new(), 0);
    let until = Instant::now() + Duration::from_secs(10);
    let report = loop {
        match bed.queue.poll(&mut batch, 16) {
            0 => match drain.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(report) => break report,
                Poll::Pending => {
                    assert!(Instant::now() < until, "the drain did not end");
                    readable(&bed.queue, Duration::from_millis(5));
                }
            },
            n => told += n,
        }
    };
    assert_eq!((told, report.in_flight, report.abandoned.len()), (50, 0, 0));
    assert_eq!(bed.runtime.try_run(keys[0]), TryRun::Closed);
}

#[test]
fn there_are_at_most_as_many_queues_as_reactors() {
    let build = |queues| {
        let builder = Builder::new().reactors(2).backend(Backend::Epoll).completion_queues(queues);
        builder.build(Arc::new(Counting::default()), Arc::new(Deaf))
    };
    assert_eq!(build(3).unwrap_err().to_string(), "completion_queues is 3, which is not in 0..=2");
    let runtime = build(2).unwrap();
    assert_eq!(runtime.completion_queues(), 2);
    assert!(runtime.completion_queue(1).is_some() && runtime.completion_queue(2).is_none());
    assert!(build(0).unwrap().completion_queue(0).is_none());
}
