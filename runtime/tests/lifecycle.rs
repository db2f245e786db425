//! The end of a runtime, in every state that it can be in: nothing hangs, and no accepted run is forgotten.

#![cfg(not(loom))]

mod common;

use common::*;
use ringback::{Backend, Builder, CallbackKey, Done, Hooks, Outbound, Outcome, Run, Runtime, Transport, TryRun};
use ringback_rpc::xdr::{self, Writer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

/// Runs `f` on a thread of its own; panics if it has not returned after ten seconds.
fn in_time<R: Send + 'static>(what: &str, f: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || done.send(f()));
    result.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|error| panic!("{what} did not return: {error}"))
}

/// Hooks that do something to the runtime that calls them.
struct Meddling<F> {
    counting: Counting,
    runtime: OnceLock<Runtime>,
    meddle: F,
}

impl<F: Fn(&Runtime, &'static str, CallbackKey) + Send + Sync + 'static> Meddling<F> {
    fn new(meddle: F) -> Arc<Self> {
        Arc::new(Meddling { counting: Counting::default(), runtime: OnceLock::new(), meddle })
    }

    fn meddle(&self, hook: &'static str, key: CallbackKey) {
        if let Some(runtime) = self.runtime.get() {
            (self.meddle)(runtime, hook, key);
        }
    }
}

impl<F: Fn(&Runtime, &'static str, CallbackKey) + Send + Sync + 'static> Hooks for Meddling<F> {
    fn acquire(&self, cookie: u64) {
        self.counting.acquire(cookie);
        self.meddle("acquire", CallbackKey::from_bits(0));
    }

    fn prepare(&self, run: &Run) -> ringback::Prepare {
        self.meddle("prepare", run.key);
        self.counting.prepare(run)
    }

    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.meddle("encode", run.key);
        self.counting.encode(run, args)
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        self.meddle("done", run.key);
        self.counting.done(run, outcome)
    }

    fn release(&self, run: &Run) {
        self.meddle("release", run.key);
        self.counting.release(run);
    }

    fn drop_reference(&self, cookie: u64) {
        self.meddle("drop_reference", CallbackKey::from_bits(0));
        self.counting.drop_reference(cookie);
    }
}

/// A runtime with one reactor for each of the connected clients that answer.
fn connected(hooks: Arc<dyn Hooks>, mode: &Mode, clients: usize) -> (Runtime, Vec<ringback::ClientId>) {
    let runtime = Builder::new().backend(mode.backend).reactors(clients).build(hooks, Arc::new(Deaf)).unwrap();
    let clients = (0..clients).map(|number| {
        let (server, stream) = pair();
        answer_all(stream);
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(number as u8, 4)).unwrap();
        runtime.bind(connection, session).unwrap();
        client
    });
    let clients = clients.collect();
    (runtime, clients)
}

#[test]
fn nothing_waits_for_reactors_that_have_ended() {
    let hooks = Arc::new(Counting::default());
    let runtime = Builder::new().backend(Backend::Epoll).reactors(2).build(hooks, Arc::new(Deaf)).unwrap();
    let client = runtime.add_client(None).unwrap();
    runtime.shutdown(Duration::ZERO).unwrap();
    in_time("a census after the shutdown", {
        let runtime = runtime.clone();
        move || runtime.census().unwrap()
    });
    in_time("a second shutdown", move || {
        let begun = Instant::now();
        assert_eq!(runtime.memory().unwrap().sessions, 0);
        assert_eq!(runtime.drain(Duration::from_secs(60)).unwrap().in_flight, 0);
        assert_eq!(runtime.shutdown(Duration::from_secs(60)).unwrap().in_flight, 0);
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert!(runtime.add_session(client, session_config(1, 4)).is_err());
    });
}

/// What would do something says that it is too late; what takes something away does so.
#[test]
fn after_the_shutdown_nothing_is_taken_that_nobody_would_do() {
    use ringback::{CallbackOp, ClientLimits, ClientState, Error, InsertError, Remove, Security};
    let hooks = Arc::new(Counting::default());
    let runtime = Builder::new().reactors(1).backend(Backend::Epoll).build(hooks, Arc::new(Deaf)).unwrap();
    let (ours, _theirs) = pair();
    let connection = runtime.add_connection(ours).unwrap();
    let client = runtime.add_client(Some(connection)).unwrap();
    let session = runtime.add_session(client, session_config(1, 4)).unwrap();
    let key = runtime.insert(client, CallbackOp::Recall, 0).unwrap();
    assert!(runtime.drain(Duration::ZERO).unwrap().abandoned.is_empty());
    assert_eq!(runtime.insert(client, CallbackOp::Recall, 1), Err(InsertError::Closed), "it could not be recalled");
    assert_eq!(runtime.bind(connection, session), Ok(()), "what is out may move to another connection");
    runtime.shutdown(Duration::ZERO).unwrap();
    assert_eq!(runtime.bind(connection, session), Err(Error::Closed));
    assert_eq!(runtime.set_client_state(client, ClientState::Courtesy), Err(Error::Closed));
    assert_eq!(runtime.set_client_limits(client, ClientLimits::default()), Err(Error::Closed));
    assert_eq!(runtime.backchannel_ctl(session, 1, Security::None), Err(Error::Closed));
    assert_eq!(runtime.try_run(key), TryRun::Closed);
    assert_eq!((runtime.remove(key), runtime.try_run(key)), (Remove::Removed, TryRun::Stale));
    assert_eq!((runtime.remove_session(session), runtime.remove_client(client)), (Ok(()), Ok(())));
    assert_eq!(runtime.set_client_state(client, ClientState::Active), Err(Error::NoSuchClient));
}

#[test]
fn a_drain_may_be_as_patient_as_it_likes() {
    let hooks = Arc::new(Counting::default());
    let (runtime, clients) = connected(Arc::clone(&hooks) as _, &Mode::sockets(Backend::Epoll), 1);
    for key in insert_all(&runtime, clients[0], 0..100) {
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
    }
    for patience in [Duration::MAX, Duration::from_secs(1 << 40)] {
        let runtime = runtime.clone();
        let report = in_time("a drain", move || runtime.drain(patience).unwrap());
        assert_eq!((report.abandoned.len(), report.in_flight), (0, 0));
    }
    assert_clean(&runtime, &hooks, 0..100);
    in_time("the shutdown", move || runtime.shutdown(Duration::MAX).unwrap());
}

/// Two threads shut down at once, as a second signal does: both get a whole report.
#[test]
fn drains_at_the_same_time_tell_the_same() {
    for mode in modes() {
        let runtime = {
            let hooks = Arc::new(Counting::default());
            Builder::new().backend(mode.backend).reactors(1).build(hooks, Arc::new(Deaf)).unwrap()
        };
        let (server, _never_answers) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(1, 4)).unwrap();
        runtime.bind(connection, session).unwrap();
        for key in insert_all(&runtime, client, 0..4) {
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
        eventually("four are sent", || runtime.census().unwrap().with_run == 4);
        let other = runtime.clone();
        let first = std::thread::spawn(move || other.drain(Duration::from_millis(300)).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        let begun = Instant::now();
        let second = runtime.drain(Duration::from_millis(300)).unwrap();
        let first = first.join().unwrap();
        assert!(begun.elapsed() < Duration::from_millis(900), "nobody waits beyond the deadline");
        assert_eq!((first.abandoned.len(), first.in_flight), (4, 0));
        assert_eq!((second.abandoned.len(), second.in_flight), (4, 0));
        runtime.shutdown(Duration::ZERO).unwrap();
    }
}

/// What waits for reactors is an error from a hook, on which they would wait in turn.
#[test]
fn t30_waiting_in_a_hook_is_an_error() {
    let (meddled, hooks_seen) = mpsc::channel();
    let hooks = Meddling::new(move |runtime: &Runtime, hook, _| {
        assert!(runtime.census().is_err(), "census in {hook}");
        assert!(runtime.memory().is_err(), "memory in {hook}");
        assert!(runtime.drain(Duration::ZERO).is_err(), "drain in {hook}");
        assert!(runtime.shutdown(Duration::ZERO).is_err(), "shutdown in {hook}");
        meddled.send(hook).unwrap();
    });
    let (runtime, clients) = connected(Arc::clone(&hooks) as _, &Mode::sockets(Backend::Epoll), 1);
    hooks.runtime.set(runtime.clone()).unwrap();
    let key = insert_all(&runtime, clients[0], 0..1)[0];
    in_time("try_run", {
        let runtime = runtime.clone();
        move || assert_eq!(runtime.try_run(key), TryRun::Submitted)
    });
    for hook in ["acquire", "prepare", "encode", "done", "release", "drop_reference"] {
        assert_eq!(hooks_seen.recv_timeout(Duration::from_secs(10)), Ok(hook));
    }
    // None of it has closed the runtime.
    eventually("the run ends", || runtime.stats().in_flight == 0);
    assert!(runtime.add_client(None).is_ok());
    in_time("the shutdown", move || runtime.shutdown(Duration::ZERO).unwrap());
}

/// Whatever does not wait may be called from every hook (rule R9).
#[test]
fn t33_hooks_may_change_everything() {
    for mode in modes() {
        let meddling = mode.clone();
        let hooks = Meddling::new(move |runtime: &Runtime, _, key| {
            let _ = runtime.try_run(key);
            let (server, _) = pair();
            let connection = meddling.add_connection(runtime, server).unwrap();
            let client = runtime.add_client(Some(connection)).unwrap();
            let session = runtime.add_session(client, session_config(9, 1)).unwrap();
            runtime.bind(connection, session).unwrap();
            let new = runtime.insert(client, ringback::CallbackOp::Recall, u64::MAX).unwrap();
            let _ = runtime.remove(new);
            runtime.close_connection(connection);
            runtime.remove_client(client).unwrap();
            let _ = runtime.remove(key);
        });
        let (runtime, clients) = connected(Arc::clone(&hooks) as _, &mode, 2);
        hooks.runtime.set(runtime.clone()).unwrap();
        for client in clients {
            for key in insert_all(&runtime, client, 0..20) {
                let _ = runtime.try_run(key);
            }
        }
        eventually("all runs end", || runtime.stats().in_flight == 0 && hooks.counting.released() == 40);
        in_time("the shutdown", move || runtime.shutdown(Duration::from_secs(1)).unwrap());
    }
}

/// The last handle goes in a hook, on the reactor's own thread.
#[test]
fn a_runtime_dropped_in_a_hook_completes_every_run() {
    // Who owns the transport needs a handle to hand in what comes, so the hook's is not the last.
    for mode in backends().into_iter().map(Mode::sockets) {
        let last: Arc<Mutex<Option<Runtime>>> = Arc::default();
        let hooks = Arc::new(DropsInDone { counting: Counting::default(), last: Arc::clone(&last) });
        let (runtime, clients) = connected(Arc::clone(&hooks) as _, &mode, 2);
        let keys: Vec<_> = clients.iter().flat_map(|c| insert_all(&runtime, *c, 0..50)).collect();
        let submitter = runtime.clone();
        *last.lock().unwrap() = Some(runtime);
        for key in keys {
            // Closed once the hook has dropped the other handle, but not before this one is gone.
            assert_eq!(submitter.try_run(key), TryRun::Submitted);
        }
        drop(submitter);
        eventually("all are released", || hooks.counting.released() == 100);
    }
}

struct DropsInDone {
    counting: Counting,
    last: Arc<Mutex<Option<Runtime>>>,
}

impl Hooks for DropsInDone {
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.counting.encode(run, args)
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        drop(self.last.lock().unwrap().take());
        self.counting.done(run, outcome)
    }

    fn release(&self, run: &Run) {
        self.counting.release(run);
    }
}

struct Panicking;

impl Hooks for Panicking {
    fn acquire(&self, _: u64) {
        panic!("a panic of the embedder, on purpose")
    }

    fn encode(&self, _: &Run, _: &mut Writer<'_>) -> xdr::Result<()> {
        Ok(())
    }

    fn done(&self, _: &Run, _: &Outcome<'_>) -> Done {
        Done::Finish
    }
}

/// A panic of `acquire` is the caller's, and the run that it kept from starting is none.
#[test]
fn t7_a_panic_of_acquire_leaves_nothing_running() {
    let runtime =
        Builder::new().backend(Backend::Epoll).reactors(1).build(Arc::new(Panicking), Arc::new(Deaf)).unwrap();
    let client = runtime.add_client(None).unwrap();
    let key = insert_all(&runtime, client, 0..1)[0];
    for _ in 0..2 {
        assert!(catch_unwind(AssertUnwindSafe(|| runtime.try_run(key))).is_err());
    }
    assert_eq!(runtime.stats().in_flight, 0);
    assert_eq!(runtime.remove(key), ringback::Remove::Removed);
    in_time("the shutdown", move || runtime.shutdown(Duration::ZERO).unwrap());
}

struct Slow(mpsc::Sender<Outbound>);

impl Transport for Slow {
    fn send(&mut self, outbound: Outbound) {
        let _ = self.0.send(outbound);
    }

    fn close(&mut self) {}
}

/// An embedder's transport that keeps what it was given does not keep the runtime.
#[test]
fn a_shutdown_does_not_wait_for_transports() {
    let hooks = Arc::new(Counting::default());
    let runtime =
        Builder::new().backend(Backend::Epoll).reactors(2).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    let (sender, kept) = mpsc::channel();
    let connection = runtime.add_transport(Box::new(Slow(sender))).unwrap();
    let elsewhere = runtime.add_transport(Box::new(Slow(mpsc::channel().0))).unwrap();
    assert_ne!(connection.reactor(), elsewhere.reactor());
    // Its callbacks are carried by the other reactor.
    let client = runtime.add_client(Some(elsewhere)).unwrap();
    let session = runtime.add_session(client, session_config(1, 4)).unwrap();
    runtime.bind(connection, session).unwrap();
    for key in insert_all(&runtime, client, 0..100) {
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
    }
    let first = kept.recv_timeout(Duration::from_secs(10)).unwrap();
    let report = in_time("the shutdown", move || runtime.shutdown(Duration::from_millis(100)).unwrap());
    assert_eq!((report.abandoned.len(), report.unsent.len(), report.in_flight), (4, 96, 0));
    first.complete(Ok(()));
}
