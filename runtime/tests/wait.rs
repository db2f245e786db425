//! Waiting for the end of a run: CB_GETATTR, whose result is wanted by whoever asked for it.

#![cfg(not(loom))]

mod common;

use common::*;
use ringback::{
    Backend, Builder, CallbackKey, CallbackOp, ClientState, Done, Ended, Hooks, Outcome, Run, Runtime, TryRun,
    WaitError,
};
use ringback_rpc::message::{CallHeader, ReplyHeader};
use ringback_rpc::nfs4::callback::{CbArgs, CbCompoundArgs, CbCompoundRes, CbGetattrArgs, CbRes, CbSequenceRes};
use ringback_rpc::nfs4::{Bitmap4, Fattr, FileHandle, Status};
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer};
use std::future::Future;
use std::net::TcpStream;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// FATTR4_CHANGE and FATTR4_SIZE (RFC 8881 section 5.8.1).
const CHANGE_AND_SIZE: Bitmap4 = Bitmap4::of(&[3, 4]);
const PATIENCE: Duration = Duration::from_secs(10);

/// An embedder that asks for attributes, and looks at the runtime from its hooks.
#[derive(Default)]
struct Attributes {
    counting: Counting,
    runtime: OnceLock<Runtime>,
    /// What waiting said in `done`.
    in_done: Mutex<Vec<(WaitError, WaitError)>>,
}

impl Hooks for Attributes {
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        let handle = run.cookie.to_be_bytes();
        CbGetattrArgs { fh: FileHandle::new(&handle).unwrap(), attr_request: CHANGE_AND_SIZE }.encode(args)
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        if let Some(runtime) = self.runtime.get() {
            let mut late = pin!(runtime.wait(run.key));
            let Poll::Ready(Err(late)) = late.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("the run is settled")
            };
            let blocked = runtime.wait_blocking(run.key, PATIENCE).unwrap_err();
            self.in_done.lock().unwrap().push((late, blocked));
        }
        self.counting.done(run, outcome)
    }

    fn release(&self, run: &Run) {
        self.counting.release(run);
    }
}

/// One CB_GETATTR as the client received it.
struct Asked {
    xid: u32,
    echo: CbSequenceRes,
}

fn read_getattr(stream: &mut TcpStream) -> Option<Asked> {
    let call = read_record(stream)?;
    let mut r = Reader::new(&call);
    let xid = CallHeader::decode(&mut r).unwrap().xid;
    CbCompoundArgs::decode(&mut r).unwrap();
    let CbArgs::Sequence(s) = CbArgs::decode(&mut r).unwrap() else { panic!("CB_SEQUENCE comes first") };
    let CbArgs::Getattr(args) = CbArgs::decode(&mut r).unwrap() else { panic!("CB_GETATTR comes second") };
    assert_eq!(args.attr_request, CHANGE_AND_SIZE);
    let echo = CbSequenceRes {
        session_id: s.session_id,
        sequence_id: s.sequence_id,
        slot_id: s.slot_id,
        highest_slot_id: 63,
        target_highest_slot_id: 63,
    };
    Some(Asked { xid, echo })
}

fn answer_getattr(stream: &mut TcpStream, asked: Asked, values: &[u8]) {
    let mut space = vec![0; 512 + values.len()];
    let mut w = Writer::new(&mut space);
    ReplyHeader::success(asked.xid).encode(&mut w).unwrap();
    CbCompoundRes { status: Status::NFS4_OK, tag: b"", count: 2 }.encode(&mut w).unwrap();
    CbRes::Sequence(Ok(asked.echo)).encode(&mut w).unwrap();
    CbRes::Getattr(Ok(Fattr { mask: CHANGE_AND_SIZE, values })).encode(&mut w).unwrap();
    write_record(stream, w.written());
}

fn values_of(ended: &Ended) -> Vec<u8> {
    let Outcome::Replied { status: Status::NFS4_OK, results } = ended.outcome() else { panic!("{ended:?}") };
    assert_eq!((ended.status(), ended.is_whole()), (Some(Status::NFS4_OK), true));
    let mut r = Reader::new(results);
    let attributes = Fattr::decode(&mut r).unwrap();
    assert_eq!(attributes.mask, CHANGE_AND_SIZE);
    attributes.values.to_vec()
}

/// A runtime with one connected client, and that client's end.
fn connected(mode: &Mode) -> (Arc<Attributes>, Runtime, TcpStream, ringback::ClientId) {
    let hooks = Arc::new(Attributes::default());
    let builder = Builder::new().backend(mode.backend).reactors(1);
    let runtime = builder.build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    let (server, stream) = pair();
    let connection = mode.add_connection(&runtime, server).unwrap();
    let client = runtime.add_client(Some(connection)).unwrap();
    let session = runtime.add_session(client, session_config(1, 4)).unwrap();
    runtime.bind(connection, session).unwrap();
    (hooks, runtime, stream, client)
}

fn insert(runtime: &Runtime, client: ringback::ClientId) -> CallbackKey {
    runtime.insert(client, CallbackOp::Getattr, 1).unwrap()
}

/// As an executor would.
fn poll_once(wait: &mut std::pin::Pin<&mut ringback::Wait>) -> Poll<Result<Ended, WaitError>> {
    wait.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn t21_two_waiters_on_one_getattr_get_its_result() {
    for mode in modes() {
        let (hooks, runtime, mut stream, client) = connected(&mode);
        let key = insert(&runtime, client);
        let (first, blocked) = runtime.run_and_wait(key);
        let (second, future) = runtime.run_and_wait(key);
        assert_eq!((first, second), (TryRun::Submitted, TryRun::Coalesced));
        let other = runtime.clone();
        let third = std::thread::spawn(move || other.wait_blocking(key, PATIENCE));
        let blocked = std::thread::spawn(move || blocked.block(PATIENCE));
        let asked = read_getattr(&mut stream).unwrap();
        let mut future = pin!(future);
        assert!(poll_once(&mut future).is_pending());
        std::thread::sleep(Duration::from_millis(100)); // for the third to begin to wait
        answer_getattr(&mut stream, asked, b"change, size....");
        for answer in [blocked.join().unwrap(), third.join().unwrap()] {
            assert_eq!(values_of(&answer.unwrap()), b"change, size....");
        }
        let Poll::Ready(Ok(ended)) = poll_once(&mut future) else { panic!("it has ended") };
        assert_eq!(values_of(&ended), b"change, size....");
        eventually("the run is released", || hooks.counting.of(1).released == 1);
        assert_eq!((hooks.counting.of(1).done.len(), runtime.stats().callbacks_sent), (1, 1), "one RPC");
        assert_eq!(runtime.wait_blocking(key, PATIENCE).unwrap_err(), WaitError::Idle);
        runtime.shutdown(PATIENCE).unwrap();
    }
}

/// The wait ends at its deadline, the run goes on; the end of the run ends every wait, however it comes.
#[test]
fn a_wait_ends_by_its_deadline_or_with_the_run() {
    for mode in modes() {
        for ending in ["drain", "remove_client", "courtesy"] {
            let (hooks, runtime, mut stream, client) = connected(&mode);
            let key = insert(&runtime, client);
            let (asked, wait) = runtime.run_and_wait(key);
            assert_eq!(asked, TryRun::Submitted);
            let begun = Instant::now();
            assert_eq!(runtime.wait_blocking(key, Duration::from_millis(50)).unwrap_err(), WaitError::TimedOut);
            assert!(begun.elapsed() < PATIENCE);
            let _unanswered = read_getattr(&mut stream).unwrap();
            assert_eq!(hooks.counting.of(1).done.len(), 0, "the run goes on");
            match ending {
                "drain" => drop(runtime.drain(Duration::ZERO)),
                "remove_client" => runtime.remove_client(client).unwrap(),
                _ => runtime.set_client_state(client, ClientState::Courtesy).unwrap(),
            }
            let ended = wait.block(PATIENCE).unwrap();
            let expected = if ending == "courtesy" { Outcome::Courtesy } else { Outcome::Cancelled { sent: true } };
            assert_eq!(ended.outcome(), expected);
            if ending != "courtesy" {
                let (asked, wait) = runtime.run_and_wait(key);
                assert_eq!((asked, wait.block(PATIENCE).unwrap_err()), (TryRun::Closed, WaitError::Closed));
            }
            runtime.shutdown(PATIENCE).unwrap();
        }
    }
}

#[test]
fn t30_a_hook_waits_for_nothing() {
    for mode in modes() {
        let (hooks, runtime, mut stream, client) = connected(&mode);
        hooks.runtime.set(runtime.clone()).unwrap();
        let key = insert(&runtime, client);
        let (_, wait) = runtime.run_and_wait(key);
        let asked = read_getattr(&mut stream).unwrap();
        answer_getattr(&mut stream, asked, b"12345678");
        assert_eq!(values_of(&wait.block(PATIENCE).unwrap()), b"12345678");
        assert_eq!(*hooks.in_done.lock().unwrap(), [(WaitError::TooLate, WaitError::InHook)]);
        runtime.shutdown(PATIENCE).unwrap();
    }
}

#[test]
fn a_long_result_is_told_to_be_cut() {
    let (_, runtime, mut stream, client) = connected(&Mode::sockets(Backend::Epoll));
    let key = insert(&runtime, client);
    let (_, wait) = runtime.run_and_wait(key);
    let asked = read_getattr(&mut stream).unwrap();
    answer_getattr(&mut stream, asked, &[7; 1000]);
    let ended = wait.block(PATIENCE).unwrap();
    let Outcome::Replied { results, .. } = ended.outcome() else { panic!("{ended:?}") };
    assert_eq!((results.len(), ended.is_whole()), (512, false));
    runtime.shutdown(PATIENCE).unwrap();
}

/// Waiters come, leave and are answered, from many threads and on many callbacks, while these run again and again.
#[test]
fn t21_every_waiter_is_answered_in_a_storm() {
    for mode in modes() {
        let (hooks, runtime, mut stream, client) = connected(&mode);
        let keys: Vec<_> = (0..8).map(|_| insert(&runtime, client)).collect();
        let answering = std::thread::spawn(move || {
            while let Some(asked) = read_getattr(&mut stream) {
                answer_getattr(&mut stream, asked, b"12345678");
            }
        });
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (runtime, keys) = (runtime.clone(), keys.clone());
                std::thread::spawn(move || {
                    let mut answered = 0;
                    for round in 0..2000 {
                        let (asked, wait) = runtime.run_and_wait(keys[(round * 7 + number) % keys.len()]);
                        match round % 3 {
                            0 => drop(wait),
                            _ => match wait.block(PATIENCE) {
                                Ok(ended) => {
                                    assert_eq!(values_of(&ended), b"12345678");
                                    answered += 1;
                                }
                                Err(error) => {
                                    assert_eq!((asked, error), (TryRun::Rearmed, WaitError::TooLate));
                                }
                            },
                        }
                    }
                    answered
                })
            })
            .collect();
        let answered: u32 = threads.into_iter().map(|t| t.join().unwrap()).sum();
        assert!(answered > 1000, "{answered}");
        eventually("all runs end", || runtime.stats().in_flight == 0);
        assert_eq!(runtime.stats().completed, u64::from(hooks.counting.released()));
        runtime.shutdown(PATIENCE).unwrap();
        answering.join().unwrap();
    }
}

/// Who waits when the reactor dies is told.
#[test]
fn nobody_waits_for_a_runtime_that_is_gone() {
    let (_, runtime, mut stream, client) = connected(&Mode::sockets(Backend::Epoll));
    let key = insert(&runtime, client);
    let (_, wait) = runtime.run_and_wait(key);
    let _unanswered = read_getattr(&mut stream).unwrap();
    let (told, answer) = mpsc::channel();
    std::thread::spawn(move || {
        told.send(wait.block(Duration::MAX).map(|e| e.outcome() == Outcome::Cancelled { sent: true }))
    });
    drop(runtime);
    assert_eq!(answer.recv_timeout(PATIENCE).unwrap(), Ok(true), "cancelled");
}
