//! The return deadline: what was recalled and has not come back is told once, at the right time.

#![cfg(not(loom))]

mod common;

use common::*;
use ringback::{Backend, Builder, CallbackKey, CallbackOp, ClientId, Event, Remove, Returned, Runtime, TryRun};
use ringback_rpc::nfs4::Status;
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_millis(400);

fn build(backend: Backend, hooks: &Arc<Counting>) -> Runtime {
    let builder = Builder::new().backend(backend).reactors(1).return_deadline(DEADLINE);
    builder.build(Arc::clone(hooks) as _, Arc::new(Deaf)).unwrap()
}

/// A client that answers NFS4_OK to every recall, and returns nothing.
fn connect(mode: &Mode, runtime: &Runtime) -> ClientId {
    let (server, stream) = pair();
    answer_all(stream);
    let connection = mode.add_connection(runtime, server).unwrap();
    let client = runtime.add_client(Some(connection)).unwrap();
    let session = runtime.add_session(client, session_config(1, 8)).unwrap();
    runtime.bind(connection, session).unwrap();
    client
}

fn recall(runtime: &Runtime, hooks: &Counting, key: CallbackKey) {
    let released = hooks.released();
    assert_eq!(runtime.try_run(key), TryRun::Submitted);
    eventually("it is answered", || hooks.released() == released + 1);
}

fn overdue(hooks: &Counting) -> Vec<(CallbackKey, u64)> {
    let events = hooks.events.lock().unwrap();
    let overdue = events.iter().filter_map(|event| match event {
        Event::ReturnOverdue { key, cookie, .. } => Some((*key, *cookie)),
        _ => None,
    });
    overdue.collect()
}

#[test]
fn t23_a_return_that_is_overdue_is_told_once() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, &hooks);
        let client = connect(&mode, &runtime);
        let keys = insert_all(&runtime, client, 0..100);
        let begun = Instant::now();
        for key in &keys {
            assert_eq!(runtime.try_run(*key), TryRun::Submitted);
        }
        eventually("all are answered", || hooks.released() == 100);
        // Asked again: the time since the first transmission counts.
        for key in &keys {
            assert_eq!(runtime.try_run(*key), TryRun::Submitted);
        }
        eventually("something is overdue", || !overdue(&hooks).is_empty());
        assert!(begun.elapsed() >= DEADLINE, "never early");
        eventually("everything is overdue", || overdue(&hooks).len() == 100);
        std::thread::sleep(DEADLINE * 2);
        let mut told = overdue(&hooks);
        told.sort_by_key(|(_, cookie)| *cookie);
        assert_eq!(told, keys.into_iter().zip(0..100).collect::<Vec<_>>());
        runtime.shutdown(Duration::from_secs(5)).unwrap();
    }
}

#[test]
fn what_came_back_is_not_overdue() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, &hooks);
        let client = connect(&mode, &runtime);
        let keys = insert_all(&runtime, client, 0..4);
        for key in &keys {
            recall(&runtime, &hooks, *key);
        }
        assert_eq!(runtime.returned(keys[0]), Returned::Noted);
        assert_eq!(runtime.returned(keys[0]), Returned::NotAwaited);
        assert_eq!(runtime.remove(keys[1]), Remove::Removed);
        assert_eq!(runtime.returned(keys[1]), Returned::Stale);
        // The entry of the second goes to another callback, which was not recalled.
        let heir = runtime.insert(client, CallbackOp::Recall, 9).unwrap();
        assert_eq!(heir.index, keys[1].index);
        // The third comes back and is recalled once more: the time begins anew.
        std::thread::sleep(DEADLINE / 2);
        assert_eq!(runtime.returned(keys[2]), Returned::Noted);
        let again = Instant::now();
        recall(&runtime, &hooks, keys[2]);
        eventually("the fourth is overdue", || overdue(&hooks) == [(keys[3], 3)]);
        eventually("the third is overdue", || overdue(&hooks) == [(keys[3], 3), (keys[2], 2)]);
        assert!(again.elapsed() >= DEADLINE, "an earlier recall of it does not count");
        std::thread::sleep(DEADLINE);
        assert_eq!(overdue(&hooks).len(), 2);
        runtime.shutdown(Duration::from_secs(5)).unwrap();
    }
}

/// The recall waits for a path for longer than its holder has to return what it asks for.
#[test]
fn f4_the_return_deadline_begins_with_the_first_transmission() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, &hooks);
        let client = runtime.add_client(None).unwrap();
        let key = insert_all(&runtime, client, 0..1)[0];
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
        std::thread::sleep(DEADLINE * 2);
        assert_eq!((overdue(&hooks), runtime.returned(key)), (vec![], Returned::NotAwaited));
        let (server, mut stream) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        let session = runtime.add_session(client, session_config(1, 8)).unwrap();
        let begun = Instant::now();
        runtime.bind(connection, session).unwrap();
        // That the connection goes and the identical call comes again on the next one does not begin anew.
        let call = read_record(&mut stream).unwrap();
        drop(stream);
        std::thread::sleep(DEADLINE * 3 / 4);
        let (server, mut stream) = pair();
        runtime.bind(mode.add_connection(&runtime, server).unwrap(), session).unwrap();
        assert_eq!(read_record(&mut stream).unwrap(), call);
        let (_, reply) = answer_recall(&call, &mut SlotIds::default(), Status::NFS4_OK);
        write_record(&mut stream, &reply);
        eventually("it is overdue", || overdue(&hooks) == [(key, 0)]);
        assert!(begun.elapsed() >= DEADLINE && begun.elapsed() < DEADLINE * 7 / 4, "{:?}", begun.elapsed());
        runtime.shutdown(Duration::from_secs(5)).unwrap();
    }
}

#[test]
fn nobody_is_overdue_who_is_gone_or_was_only_asked() {
    let hooks = Arc::new(Counting::default());
    let runtime = build(Backend::Epoll, &hooks);
    let client = connect(&Mode::sockets(Backend::Epoll), &runtime);
    let key = insert_all(&runtime, client, 0..1)[0];
    recall(&runtime, &hooks, key);
    runtime.remove_client(client).unwrap();
    std::thread::sleep(DEADLINE * 2);
    assert_eq!(overdue(&hooks), []);
    runtime.shutdown(Duration::from_secs(5)).unwrap();
}

/// 400,000 recalls of one client, most of which come back: while they are owed a reactor has nothing to do for them, and
/// their records go.
#[test]
fn f15_awaiting_many_returns_costs_nothing() {
    const COUNT: u64 = 400_000;
    let hooks = Arc::new(Silent);
    let builder = Builder::new().backend(Backend::Auto).reactors(1).return_deadline(Duration::from_secs(3600));
    let runtime = builder.build(hooks, Arc::new(Deaf)).unwrap();
    let client = connect(&Mode::sockets(Backend::Auto), &runtime);
    let keys = insert_all(&runtime, client, 0..COUNT);
    for key in &keys {
        assert_eq!(runtime.try_run(*key), TryRun::Submitted);
    }
    let until = Instant::now() + Duration::from_secs(120);
    while runtime.stats().released < COUNT {
        assert!(Instant::now() < until, "{:?}", runtime.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    let awaited = runtime.memory().unwrap().returns;
    assert!(awaited >= COUNT as usize * 12 && awaited < COUNT as usize * 13, "{awaited} bytes");
    let before = runtime.stats();
    std::thread::sleep(Duration::from_millis(500));
    let syscalls = runtime.stats().syscalls - before.syscalls;
    assert!(syscalls < 10, "{syscalls} system calls while nothing happens");
    for key in keys {
        assert_eq!(runtime.remove(key), Remove::Removed);
    }
    eventually("the records are gone", || runtime.memory().unwrap().returns < 100_000);
    runtime.shutdown(Duration::from_secs(5)).unwrap();
}

/// An embedder that keeps nothing.
struct Silent;

impl ringback::Hooks for Silent {
    fn encode(&self, run: &ringback::Run, args: &mut ringback_rpc::xdr::Writer<'_>) -> ringback_rpc::xdr::Result<()> {
        use ringback_rpc::nfs4::{FileHandle, callback::CbRecallArgs};
        use ringback_rpc::xdr::Encode;
        let fh = FileHandle::new(b"file").unwrap();
        CbRecallArgs { stateid: stateid(run.cookie), truncate: false, fh }.encode(args)
    }

    fn done(&self, _: &ringback::Run, _: &ringback::Outcome<'_>) -> ringback::Done {
        ringback::Done::Finish
    }
}
