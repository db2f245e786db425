//! The delegation reaper on its own thread: what it sends, and that no hook or queue of the embedder's sees it. What it
//! decides, and when, is shown in simulated time (`fuzz/tests/budget.rs`).

#![cfg(not(loom))]

mod cgroup;
mod common;

use common::{Counting, Deaf, session_config};
use ringback::{
    Backend, Budget, BuildError, Builder, CallbackKey, CallbackOp, ClientId, CompletionQueue, Done, Event, Hooks,
    InsertError, Outbound, Outcome, Remove, Run, Runtime, SessionKey, Transport,
};
use ringback_rpc::message::{CallHeader, ReplyHeader};
use ringback_rpc::nfs4::callback::{CbArgs, CbCompoundArgs, CbCompoundRes, CbRecallAnyArgs, CbRes, CbSequenceRes};
use ringback_rpc::nfs4::{Bitmap4, Status};
use ringback_rpc::record::MARK_BYTES;
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

struct Wire(mpsc::Sender<Vec<u8>>);

impl Transport for Wire {
    fn send(&mut self, outbound: Outbound) {
        let _ = self.0.send(outbound.bytes()[MARK_BYTES..].to_vec());
        outbound.complete(Ok(()));
    }
    fn close(&mut self) {}
}

/// What the client is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    ToKeep(u32),
    HighestSlot(u32),
    Back,
}

/// A client that holds delegations.
struct Client {
    runtime: Runtime,
    client: ClientId,
    session: SessionKey,
    keys: Vec<CallbackKey>,
    calls: mpsc::Receiver<Vec<u8>>,
    connection: ringback::ConnectionId,
}

impl Client {
    fn new(runtime: &Runtime, held: u64) -> Client {
        let (sender, calls) = mpsc::channel();
        let connection = runtime.add_transport(Box::new(Wire(sender))).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(1, 4)).unwrap();
        runtime.bind(connection, session).unwrap();
        let keys = (0..held).map(|cookie| runtime.insert(client, CallbackOp::Recall, cookie).unwrap()).collect();
        Client { runtime: runtime.clone(), client, session, keys, calls, connection }
    }

    /// Takes the next call and says yes.
    fn serve(&self) -> Asked {
        self.serve_in_time().expect("a call arrives")
    }

    fn serve_in_time(&self) -> Option<Asked> {
        let call = self.calls.recv_timeout(PATIENCE).ok()?;
        let mut r = Reader::new(&call);
        let header = CallHeader::decode(&mut r).unwrap();
        let compound = CbCompoundArgs::decode(&mut r).unwrap();
        let Ok(CbArgs::Sequence(sequence)) = CbArgs::decode(&mut r) else { panic!("CB_SEQUENCE comes first") };
        let (asked, result) = match CbArgs::decode(&mut r).unwrap() {
            CbArgs::RecallAny(any) => {
                let types = [CbRecallAnyArgs::READ_DELEGATIONS, CbRecallAnyArgs::WRITE_DELEGATIONS];
                assert_eq!(any.type_mask, Bitmap4::of(&types));
                (Asked::ToKeep(any.objects_to_keep), CbRes::RecallAny(Status::NFS4_OK))
            }
            CbArgs::RecallSlot(slot) => {
                (Asked::HighestSlot(slot.target_highest_slot_id), CbRes::RecallSlot(Status::NFS4_OK))
            }
            CbArgs::Recall(_) => (Asked::Back, CbRes::Recall(Status::NFS4_OK)),
            other => panic!("{other:?}"),
        };
        let echo = CbSequenceRes {
            session_id: sequence.session_id,
            sequence_id: sequence.sequence_id,
            slot_id: sequence.slot_id,
            highest_slot_id: 3,
            target_highest_slot_id: 3,
        };
        let mut space = [0; 512];
        let mut w = Writer::new(&mut space);
        ReplyHeader::success(header.xid).encode(&mut w).unwrap();
        CbCompoundRes { status: Status::NFS4_OK, tag: b"", count: compound.count }.encode(&mut w).unwrap();
        CbRes::Sequence(Ok(echo)).encode(&mut w).unwrap();
        result.encode(&mut w).unwrap();
        self.runtime.receive(self.connection, w.written().to_vec());
        Some(asked)
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the embedder was told, but of paths.
fn told(hooks: &Counting) -> Vec<Event> {
    let events = hooks.events.lock().unwrap();
    events.iter().filter(|event| !matches!(event, Event::PathState { .. })).cloned().collect()
}

fn builder() -> Builder {
    Builder::new().reactors(1).backend(Backend::Epoll)
}

#[test]
fn above_the_budget_clients_are_asked_and_the_embedder_sees_events_only() {
    let hooks = Arc::new(Counting::default());
    let runtime = builder().completion_queues(1).build(hooks.clone(), Arc::new(Deaf)).unwrap();
    let queue: CompletionQueue = runtime.completion_queue(0).unwrap();
    let client = Client::new(&runtime, 40);
    assert_eq!(runtime.delegations_of(client.client), Ok(40));
    runtime.set_budget(Budget::delegations(16));
    assert_eq!(client.serve(), Asked::ToKeep(14));
    until("it has ended", || runtime.stats().in_flight == 0);
    assert_eq!(queue.poll(&mut Vec::new(), 10), 0, "it is on no queue");
    assert!(hooks.seen.lock().unwrap().is_empty(), "no hook was called");
    let asked = Event::AskedToKeep { client: client.client, held: 40, keep: 14 };
    until("it is told", || told(&hooks) == [asked.clone()]);
    assert!(client.keys[..30].iter().all(|key| runtime.remove(*key) == Remove::Removed));
    let stats = runtime.stats();
    assert_eq!((stats.delegations, stats.reaper_asked, stats.reaper_ignored), (10, 1, 0));
    assert_eq!(runtime.shutdown(PATIENCE).unwrap(), Default::default());
}

#[test]
fn room_is_made_when_somebody_wants_it() {
    let runtime =
        builder().budget(Budget::delegations(8)).build(Arc::new(Counting::default()), Arc::new(Deaf)).unwrap();
    let client = Client::new(&runtime, 8);
    runtime.want_room();
    assert_eq!(client.serve(), Asked::ToKeep(7));
}

#[test]
fn who_asks_all_learns_how_many_were_asked() {
    let hooks = Arc::new(Counting::default());
    let runtime = builder().build(hooks.clone(), Arc::new(Deaf)).unwrap();
    let clients = [Client::new(&runtime, 8), Client::new(&runtime, 8), Client::new(&runtime, 0)];
    let sent = || told(&hooks).into_iter().filter(|e| matches!(e, Event::RecallAnySent { .. })).collect::<Vec<_>>();
    runtime.recall_any(8);
    assert_eq!((clients[0].serve(), clients[1].serve()), (Asked::ToKeep(4), Asked::ToKeep(4)));
    let first = Event::RecallAnySent { keep: 8, clients: 2 };
    until("it is told", || sent() == [first.clone()]);
    runtime.recall_any(4);
    let again = Event::RecallAnySent { keep: 4, clients: 0 };
    until("both were asked a moment ago", || sent() == [first.clone(), again.clone()]);
}

#[test]
fn session_slots_are_recalled_of_the_session_that_is_named() {
    let hooks = Arc::new(Counting::default());
    let runtime = builder().build(hooks.clone(), Arc::new(Deaf)).unwrap();
    let client = Client::new(&runtime, 0);
    runtime.recall_slots(client.session, 7).unwrap();
    assert_eq!(client.serve(), Asked::HighestSlot(7));
    until("it has ended", || runtime.stats().in_flight == 0);
    assert!(hooks.seen.lock().unwrap().is_empty(), "no hook was called");
    runtime.remove_session(client.session).unwrap();
    assert_eq!(runtime.recall_slots(client.session, 7), Err(InsertError::NoSuchSession));
    runtime.remove_client(client.client).unwrap();
    assert_eq!(runtime.recall_slots(client.session, 7), Err(InsertError::NoSuchClient));
    // Its place can be the next one's: nothing names it any more.
    until("its place is free", || {
        let again = runtime.add_client(None).unwrap();
        runtime.remove_client(again).unwrap();
        again.to_bits() as u32 == client.client.to_bits() as u32
    });
}

/// An embedder whose event hook panics.
struct Panicking;

impl Hooks for Panicking {
    fn encode(&self, _: &Run, _: &mut Writer<'_>) -> xdr::Result<()> {
        Ok(())
    }
    fn done(&self, _: &Run, _: &Outcome<'_>) -> Done {
        Done::Finish
    }
    fn event(&self, event: &Event) {
        assert!(!matches!(event, Event::AskedToKeep { .. }), "on purpose");
    }
}

#[test]
fn an_embedder_that_panics_ends_no_reaper() {
    let runtime = builder().build(Arc::new(Panicking), Arc::new(Deaf)).unwrap();
    let (first, second) = (Client::new(&runtime, 8), Client::new(&runtime, 8));
    runtime.recall_any(8);
    assert_eq!((first.serve(), second.serve()), (Asked::ToKeep(4), Asked::ToKeep(4)));
    until("both are counted", || runtime.stats().embedder_panics == 2);
    // It is still there: who was not asked within the last five seconds is.
    let third = Client::new(&runtime, 8);
    runtime.recall_any(8);
    assert!(matches!(third.serve(), Asked::ToKeep(_)));
}

#[test]
fn a_drained_runtime_asks_nobody() {
    let runtime = builder().build(Arc::new(Counting::default()), Arc::new(Deaf)).unwrap();
    let client = Client::new(&runtime, 8);
    runtime.drain(Duration::ZERO).unwrap();
    runtime.set_budget(Budget::delegations(1));
    runtime.memory_pressure();
    runtime.shutdown(Duration::ZERO).unwrap();
    assert!(client.calls.try_recv().is_err());
    assert_eq!(runtime.stats().reaper_asked, 0);
}

#[test]
fn a_file_that_tells_of_no_pressure_is_refused() {
    let error =
        builder().memory_pressure("/nonexistent/memory").build(Arc::new(Panicking), Arc::new(Deaf)).unwrap_err();
    assert!(matches!(error, BuildError::MemoryPressure { .. }), "{error}");
    assert!(error.to_string().contains("/proc/pressure/memory"), "{error}");
}

/// A cgroup whose tasks want more memory than it may have: the kernel tells, and the client is asked.
#[test]
fn a_cgroup_under_pressure_starts_the_reaper() {
    let group = match cgroup::Group::new(16 << 20) {
        Ok(group) => group,
        Err(why) => return eprintln!("skipped: no memory cgroup can be put under pressure here ({why})"),
    };
    let hooks = Arc::new(Counting::default());
    let runtime = match builder().memory_pressure(group.pressure()).build(hooks.clone(), Arc::new(Deaf)) {
        Ok(runtime) => runtime,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let client = Client::new(&runtime, 800);
    let hog = group.hog(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let asked = client.serve_in_time();
    if asked.is_none() && !group.is_pressed() {
        return eprintln!("skipped: what reads more than a cgroup may keep does not wait for memory here");
    }
    assert_eq!(asked, Some(Asked::ToKeep(600)));
    assert_eq!(told(&hooks)[0], Event::MemoryPressure { held: 800, keep: 600 });
    drop(hog);
    runtime.shutdown(PATIENCE).unwrap();
}

#[test]
fn the_end_of_the_cgroup_is_told_once() {
    let group = match cgroup::Group::new(16 << 20) {
        Ok(group) => group,
        Err(why) => return eprintln!("skipped: no memory cgroup can be made here ({why})"),
    };
    let hooks = Arc::new(Counting::default());
    let runtime = match builder().memory_pressure(group.pressure()).build(hooks.clone(), Arc::new(Deaf)) {
        Ok(runtime) => runtime,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    drop(group);
    until("it is told", || told(&hooks) == [Event::MemoryPressureLost]);
    // What the embedder says is heard as before.
    let client = Client::new(&runtime, 8);
    runtime.memory_pressure();
    assert_eq!(client.serve(), Asked::ToKeep(6));
}
