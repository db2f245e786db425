//! Callbacks that are asked for together: what settles each of them, and that the group is answered once.

use crate::bench::*;
use ringback::{Builder, CallbackKey, CallbackOp, ClientState, Event, Group, GroupSettled, Remove, Returned, TryRun};
use ringback_rpc::nfs4::Status;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

fn counts(settled: GroupSettled) -> [u32; 3] {
    [settled.returned, settled.overdue, settled.failed]
}

impl Bench {
    /// One call for all of them.
    fn recall_all(&self, keys: &[CallbackKey]) -> (Group, Vec<TryRun>) {
        let mut answers = Vec::new();
        let group = self.runtime.try_run_many(keys, |key, answer| {
            assert_eq!(key, keys[answers.len()]);
            answers.push(answer);
        });
        (group.unwrap(), answers)
    }

    #[track_caller]
    fn settles(&self, group: Group, expected: [u32; 3]) {
        assert_eq!(counts(group.block(PATIENCE).unwrap()), expected);
    }
}

struct Rings(AtomicU32);

impl Wake for Rings {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn t25_two_openers_wait_for_one_recall_that_runs_already() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(4);
    let running = bench.recall(client, 1);
    let call = line.call();
    let other = bench.insert(client, CallbackOp::Recall, 2);
    let (first, answers) = bench.recall_all(&[running, other, running]);
    assert_eq!(answers, [TryRun::Coalesced, TryRun::Submitted, TryRun::Coalesced]);
    let (second, answers) = bench.recall_all(&[running]);
    assert_eq!(answers, [TryRun::Coalesced]);
    line.ok(&call);
    assert_eq!(line.serve(), 2);
    bench.until_idle();
    assert_eq!((first.settled(), second.settled()), (None, None), "answered, and not given back");
    assert_eq!(bench.runtime.returned(running), Returned::Noted);
    bench.settles(second, [1, 0, 0]);
    assert_eq!(first.settled(), None);
    assert_eq!(bench.runtime.remove(other), Remove::Removed);
    assert_eq!(first.settled().map(counts), Some([3, 0, 0]), "listed twice, counted twice");
    // What is gone is not in the way; nor is anything in the way of who asks for nothing.
    let (third, answers) = bench.recall_all(&[other]);
    assert_eq!((answers, third.settled().map(counts)), (vec![TryRun::Stale], Some([1, 0, 0])));
    assert_eq!(bench.recall_all(&[]).0.settled(), Some(GroupSettled::default()));
}

/// It comes back before the client has answered the recall.
#[test]
fn t25_a_return_that_overtakes_the_answer_settles_the_group() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(4);
    let keys = [1, 2].map(|cookie| bench.insert(client, CallbackOp::Recall, cookie));
    let (group, _) = bench.recall_all(&keys);
    let calls = [line.call(), line.call()];
    assert_eq!(bench.runtime.returned(keys[0]), Returned::Noted);
    assert_eq!(group.settled(), None);
    assert_eq!(bench.runtime.remove(keys[1]), Remove::Deferred);
    assert_eq!(group.settled().map(counts), Some([2, 0, 0]));
    calls.iter().for_each(|call| line.ok(call));
    bench.until_idle();
    bench.assert_ended_once(1, "Replied");
    bench.assert_ended_once(2, "Replied");
}

#[test]
fn t25_each_ending_settles_a_group_as_documented() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(8);
    let one = |op, cookie| {
        let key = bench.insert(client, op, cookie);
        (key, bench.recall_all(&[key]).0)
    };
    bench.hooks.refused.lock().unwrap().push(1);
    bench.settles(one(CallbackOp::Recall, 1).1, [1, 0, 0]);
    let (_, denied) = one(CallbackOp::Recall, 2);
    let call = line.call();
    line.reply(call.status(Status::NFS4ERR_BAD_STATEID));
    bench.settles(denied, [0, 0, 1]);
    // Unless the embedder takes that for a return.
    let (key, believed) = one(CallbackOp::Recall, 3);
    bench.during(3, Stage::Done, move |runtime| assert_eq!(runtime.remove(key), Remove::Deferred));
    let call = line.call();
    line.reply(call.status(Status::NFS4ERR_BAD_STATEID));
    bench.settles(believed, [1, 0, 0]);
    let (key, cancelled) = one(CallbackOp::Recall, 4);
    let call = line.call();
    let _ = bench.runtime.cancel(key);
    bench.settles(cancelled, [0, 0, 1]);
    line.ok(&call);
    // Nothing is given back for a notification: the answer is all there is.
    let (_, notified) = one(CallbackOp::NotifyLock, 5);
    assert_eq!(line.serve(), 5);
    bench.settles(notified, [1, 0, 0]);
    bench.runtime.set_client_state(client, ClientState::Courtesy).unwrap();
    bench.settles(one(CallbackOp::Recall, 6).1, [0, 0, 1]);
    bench.runtime.set_client_state(client, ClientState::Active).unwrap();
    bench.until_idle();
}

#[test]
fn t25_a_client_that_goes_fails_what_is_waited_for() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(8);
    let keys = [1, 2].map(|cookie| bench.insert(client, CallbackOp::Recall, cookie));
    let (group, _) = bench.recall_all(&keys[..1]);
    assert_eq!(line.serve(), 1);
    bench.until_idle();
    let (other, _) = bench.recall_all(&keys[1..]);
    let _ = line.call();
    assert_eq!((group.settled(), other.settled()), (None, None));
    bench.runtime.remove_client(client).unwrap();
    bench.settles(group, [0, 0, 1]);
    bench.settles(other, [0, 0, 1]);
    let (late, answers) = bench.recall_all(&keys);
    assert_eq!((answers, late.settled().map(counts)), (vec![TryRun::Closed; 2], Some([0, 0, 2])));
    keys.iter().for_each(|key| assert_eq!(bench.runtime.remove(*key), Remove::Removed));
}

#[test]
fn t25_an_overdue_return_settles_a_group_once() {
    let bench = Bench::with(Builder::new().reactors(1).return_deadline(Duration::from_millis(100)));
    let (mut line, client, _) = bench.client(8);
    let keys = [1, 2].map(|cookie| bench.insert(client, CallbackOp::Recall, cookie));
    let (group, _) = bench.recall_all(&keys);
    let rings = Arc::new(Rings(AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&rings));
    let mut group = pin!(group);
    assert_eq!(group.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    line.serve();
    line.serve();
    bench.until("somebody is told", |_| rings.0.load(SeqCst) > 0);
    let Poll::Ready(settled) = group.as_mut().poll(&mut Context::from_waker(&waker)) else { panic!("it was woken") };
    assert_eq!(counts(settled), [0, 2, 0]);
    let overdue = |event: &Event| matches!(event, Event::ReturnOverdue { .. });
    assert_eq!(bench.hooks.events.lock().unwrap().iter().filter(|e| overdue(e)).count(), 2, "told before");
    // Whatever comes later is too late.
    keys.iter().for_each(|key| assert_eq!(bench.runtime.remove(*key), Remove::Removed));
    assert_eq!((group.settled(), rings.0.load(SeqCst)), (Some(settled), 1));
}

/// A drain waits for answers, and not for returns.
#[test]
fn t25_a_drain_settles_every_group() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(8);
    let keys = [1, 2, 3].map(|cookie| bench.insert(client, CallbackOp::Recall, cookie));
    let (answered, _) = bench.recall_all(&keys[..1]);
    assert_eq!(line.serve(), 1);
    bench.until_idle();
    let (given_up, _) = bench.recall_all(&keys[1..2]);
    let (in_time, _) = bench.recall_all(&keys[2..]);
    let calls = [line.call(), line.call()];
    let drain = bench.runtime.start_drain(Duration::from_millis(200));
    bench.settles(answered, [0, 0, 1]);
    line.ok(&calls[1]);
    bench.settles(in_time, [0, 0, 1]);
    bench.settles(given_up, [0, 0, 1]);
    bench.until("the drain has ended", |_| drain.report().in_flight == 0);
    let (late, _) = bench.recall_all(&keys);
    assert_eq!(late.settled().map(counts), Some([0, 0, 3]));
}

#[test]
fn t25_a_completion_that_is_not_taken_keeps_the_group() {
    let bench = Bench::with(Builder::new().reactors(1).completion_queues(1));
    let queue = bench.runtime.completion_queue(0).unwrap();
    let (mut line, client, _) = bench.client(8);
    let keys = [1, 2].map(|cookie| bench.insert(client, CallbackOp::Recall, cookie));
    let (group, _) = bench.recall_all(&keys);
    let mut group = pin!(group);
    // The loop that polls the queue hears of the group, too.
    let waker = queue.waker();
    let mut context = Context::from_waker(&waker);
    assert_eq!(bench.runtime.remove(keys[0]), Remove::Deferred);
    for _ in 0..2 {
        let call = line.call();
        line.reply(call.status(Status::NFS4ERR_BAD_STATEID));
    }
    let (mut batch, mut taken) = (Vec::new(), 0);
    bench.until("both are on the queue", |b| b.runtime.stats().completed == 2);
    while taken < 2 {
        taken += queue.poll(&mut batch, 1);
        assert_eq!(group.as_mut().poll(&mut context), Poll::Pending, "it may still be looked at");
    }
    queue.release();
    bench.until("the group is settled", |_| group.settled().is_some());
    assert_eq!(group.settled().map(counts), Some([1, 0, 1]));
    bench.until_idle();
}

/// Nobody needs to wait to the end, and what was reserved comes back.
#[test]
fn t25_a_group_that_is_dropped_is_settled_all_the_same() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(8);
    for round in 0..100 {
        let keys: Vec<_> = (0..100).map(|n| bench.insert(client, CallbackOp::Recall, round * 100 + n)).collect();
        drop(bench.recall_all(&keys));
        (0..100).for_each(|n| assert_eq!(line.serve(), round * 100 + n));
        bench.until_idle();
        keys.iter().for_each(|key| assert_eq!(bench.runtime.remove(*key), Remove::Removed));
    }
    // One block of 4,096 members served all 10,000, beside the directory of blocks.
    assert!(bench.runtime.memory().unwrap().groups < 100_000);
}

#[test]
fn t25_a_hook_may_not_wait_for_a_group() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(8);
    let key = bench.insert(client, CallbackOp::Recall, 1);
    let (sender, answers) = std::sync::mpsc::channel();
    bench.during(1, Stage::Done, move |runtime| {
        let group = runtime.try_run_many(&[key], |_, asked| assert_eq!(asked, TryRun::Rearmed)).unwrap();
        sender.send(group.block(PATIENCE)).unwrap();
    });
    bench.submit(key);
    line.serve();
    assert_eq!(answers.recv().unwrap(), Err(ringback::WaitError::InHook));
    line.serve();
    bench.until_idle();
}

/// What `acquire` does is the caller's business: no group is made, and nothing is left of it.
#[test]
fn t25_a_panic_of_acquire_leaves_no_group_behind() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(8);
    let keys = [1, 2, 3].map(|cookie| bench.insert(client, CallbackOp::Recall, cookie));
    bench.during(2, Stage::Acquire, |_| panic!("a panic of the embedder, on purpose"));
    let (first, _) = bench.recall_all(&keys[..1]);
    let call = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.recall_all(&keys)));
    assert!(call.is_err());
    assert_eq!(line.serve(), 1);
    let (second, answers) = bench.recall_all(&keys[1..]);
    assert_eq!(answers, [TryRun::Submitted; 2]);
    line.serve();
    line.serve();
    bench.until_idle();
    keys.iter().for_each(|key| assert_eq!(bench.runtime.remove(*key), Remove::Removed));
    bench.settles(first, [1, 0, 0]);
    bench.settles(second, [2, 0, 0]);
}
