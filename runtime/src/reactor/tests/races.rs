//! What happens between two steps of a thread that the reactor does not wait for.

use super::stepped::Stepped;
use crate::command::Command;
use crate::{CallbackOp, Cancel, ClientState, SessionKey, TryRun};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// The winner of a run takes its time between the transition and the queue. Who cancels meanwhile is told that the run
/// ends, and it does.
#[test]
fn t29_a_run_that_is_not_queued_yet_is_cancelled() {
    let mut stepped = Stepped::new(1, |_| ());
    let client = stepped.runtime.add_client(None).unwrap();
    let key = stepped.runtime.insert(client, CallbackOp::Recall, 0).unwrap();
    let (entered, (go, gone)) = (Arc::new(Barrier::new(2)), mpsc::channel::<()>());
    let (inside, gone) = (Arc::clone(&entered), Mutex::new(gone));
    let acquire = move || {
        inside.wait();
        gone.lock().unwrap().recv().unwrap();
    };
    assert!(stepped.embedder.on_acquire.set(Box::new(acquire)).is_ok());
    let runtime = stepped.runtime.clone();
    let winner = std::thread::spawn(move || runtime.try_run(key));
    entered.wait();
    assert_eq!(stepped.runtime.cancel(key), Cancel::Asked);
    stepped.settle();
    go.send(()).unwrap();
    assert_eq!(winner.join().unwrap(), TryRun::Submitted);
    stepped.settle();
    assert_eq!((stepped.runtime.stats().cancelled, stepped.in_flight()), (1, 0));
}

/// Runs that wait for the embedder do not keep a reactor; one that is given up as the reactor sleeps must wake it.
#[test]
fn a_run_given_up_late_does_not_keep_a_reactor_that_stops() {
    let mut stepped = Stepped::new(1, |settings| settings.completion_queues = 1);
    let client = stepped.runtime.add_client(None).unwrap();
    let key = stepped.runtime.insert(client, CallbackOp::Recall, 0).unwrap();
    let _ = stepped.try_run(client);
    stepped.turn(0);
    let (entered, (go, gone)) = (Arc::new(Barrier::new(2)), mpsc::channel::<()>());
    let (inside, gone) = (Arc::clone(&entered), Mutex::new(gone));
    let acquire = move || {
        inside.wait();
        gone.lock().unwrap().recv().unwrap();
        panic!("a panic of the embedder, on purpose");
    };
    assert!(stepped.embedder.on_acquire.set(Box::new(acquire)).is_ok());
    let runtime = stepped.runtime.clone();
    let winner = std::thread::spawn(move || catch_unwind(AssertUnwindSafe(|| runtime.try_run(key))).is_err());
    entered.wait();
    stepped.reactors[0].port().post(Command::Stop);
    stepped.settle();
    assert!(!stepped.reactors[0].is_over() && stepped.reactors[0].port().has_nothing());
    go.send(()).unwrap();
    assert!(winner.join().unwrap(), "the panic is the caller's");
    assert!(!stepped.reactors[0].port().has_nothing(), "it sleeps on");
    stepped.turn(0);
    assert!(stepped.reactors[0].is_over(), "what is left is with the embedder");
}

/// The embedder's word about a client crosses its removal.
#[test]
fn f18_a_client_that_was_removed_does_not_come_back() {
    let mut stepped = Stepped::new(1, |_| ());
    let client = stepped.runtime.add_client(None).unwrap();
    (0..3000).for_each(|_| _ = stepped.try_run(client));
    stepped.settle();
    stepped.runtime.remove_client(client).unwrap();
    stepped.reactors[0].port().post(Command::ClientState { client, state: ClientState::Active });
    stepped.settle();
    assert_eq!((stepped.in_flight(), stepped.runtime.stats().cancelled), (0, 3000));
}

/// The connection carries callbacks of a client elsewhere, and of one here: replies to the latter are nobody else's.
#[test]
fn f12_a_reply_to_a_client_here_is_not_counted_as_one_elsewhere() {
    let mut stepped = Stepped::new(2, |_| ());
    let (far, _) = stepped.transport();
    let (shared, sent) = stepped.transport();
    let (elsewhere, its_session) = stepped.client(far);
    let (here, session) = stepped.client(shared);
    stepped.runtime.bind(shared, its_session).unwrap();
    stepped.settle();
    stepped.runtime.bind(shared, session).unwrap();
    stepped.settle();
    let mut xids = [elsewhere, here].map(|client| {
        stepped.try_run(client);
        stepped.settle();
        // A mark, then the xid.
        std::mem::take(&mut *sent.sent.lock().unwrap())[4..8].to_vec()
    });
    xids.reverse();
    for xid in xids {
        // REPLY, accepted, AUTH_NONE, SYSTEM_ERR (RFC 5531 section 9).
        let body = [1u32, 0, 0, 0, 5].into_iter().flat_map(u32::to_be_bytes);
        stepped.runtime.receive(shared, xid.into_iter().chain(body).collect());
        stepped.settle();
    }
    assert_eq!(stepped.in_flight(), 0);
}

/// CB_RECALL_SLOT for a session that is being drained ends at once, and the drain reports it.
#[test]
fn t12_what_comes_for_a_drained_session_is_reported() {
    let mut stepped = Stepped::new(1, |_| ());
    let (connection, _) = stepped.transport();
    let (client, session) = stepped.client(connection);
    stepped.runtime.bind(connection, session).unwrap();
    let late = stepped.runtime.insert_recall_slot(session, 0).unwrap();
    let unanswered = stepped.try_run(client);
    stepped.settle();
    let deadline_ns = crate::io::monotonic_ns() + 100_000_000;
    let job = stepped.runtime.begin_drain_session(session, deadline_ns).unwrap();
    stepped.settle();
    assert_eq!(stepped.runtime.try_run(late), TryRun::Submitted);
    stepped.settle();
    std::thread::sleep(Duration::from_millis(150));
    stepped.settle();
    let report = job.wait(Instant::now());
    assert_eq!((report.abandoned, report.unsent), (vec![unanswered], vec![late]));
}

/// A waker is code of the embedder, and panics where the reactor calls it.
#[test]
fn a_waker_that_panics_costs_no_reactor() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a panic of the embedder, on purpose");
        }
    }
    let mut stepped = Stepped::new(1, |_| ());
    let client = stepped.runtime.add_client(None).unwrap();
    let key = stepped.try_run(client);
    stepped.turn(0);
    let mut drain = pin!(stepped.runtime.start_drain(Duration::from_secs(3600)));
    let waker = Waker::from(Arc::new(Panics));
    assert!(drain.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    stepped.settle();
    let Poll::Ready(report) = drain.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it has not ended")
    };
    assert_eq!((report.unsent, report.in_flight), (vec![key], 0));
}

#[test]
fn a_session_that_was_never_given_out_is_none() {
    let mut stepped = Stepped::new(1, |_| ());
    let client = stepped.runtime.add_client(None).unwrap();
    let made_up = SessionKey::from_parts(client, u64::MAX);
    stepped.runtime.remove_session(made_up).unwrap();
    assert_eq!(stepped.runtime.seq4_status(client, Some(made_up)), stepped.runtime.seq4_status(client, None));
    stepped.settle();
}
