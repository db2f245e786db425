//! Reactors that are stepped by hand, so that what happens between two of them can be put in any order.

use crate::builder::share;
use crate::hooks::{Done, Hooks, Outcome, Run};
use crate::io::{BackendKind, BackendReport, Epoll, Io, IoConfig};
use crate::reactor::Reactor;
use crate::settings::Settings;
use crate::{
    Call, CallToken, CallbackKey, CallbackOp, ClientId, ConnectionId, Event, ForeChannel, Outbound, OutcomeKind,
    Runtime, Security, SessionConfig,
};
use crate::{SessionKey, TenantId, Transport, TryRun};
use ringback_rpc::xdr::{self, Writer};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// An embedder that hands each call back in as if it had been received again; without a runtime, that has not answered it
/// yet.
#[derive(Default)]
pub(super) struct Echo {
    runtime: OnceLock<Runtime>,
    calls: Mutex<u64>,
    deferred: Mutex<Vec<CallToken>>,
    /// What `acquire` does.
    pub on_acquire: OnceLock<Box<dyn Fn() + Send + Sync>>,
    pub done: Mutex<Vec<(CallbackKey, OutcomeKind)>>,
    /// Homes that clients have come to.
    pub moved: Mutex<Vec<(ClientId, usize)>>,
}

impl Hooks for Echo {
    fn acquire(&self, _: u64) {
        if let Some(on_acquire) = self.on_acquire.get() {
            on_acquire();
        }
    }

    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        args.u64(run.cookie)
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        self.done.lock().unwrap().push((run.key, outcome.kind()));
        Done::Finish
    }

    fn event(&self, event: &Event) {
        if let Event::Moved { client, reactor } = event {
            self.moved.lock().unwrap().push((*client, *reactor));
        }
    }
}

impl ForeChannel for Echo {
    fn call(&self, call: Call<'_>) {
        *self.calls.lock().unwrap() += 1;
        match self.runtime.get() {
            Some(runtime) => runtime.receive(call.connection(), call.record().to_vec()),
            None => self.deferred.lock().unwrap().push(call.defer().0),
        }
    }
}

/// A runtime without threads.
pub(super) struct Stepped {
    pub runtime: Runtime,
    pub reactors: Vec<Reactor<Epoll>>,
    pub embedder: Arc<Echo>,
}

impl Stepped {
    pub fn new(count: usize, tune: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { reactors: count, ..Settings::default() };
        tune(&mut settings);
        let embedder = Arc::new(Echo::default());
        let shared = Arc::new(share(settings, Arc::clone(&embedder) as _, Arc::clone(&embedder) as _).unwrap());
        let make = |index| Reactor::new(index, Arc::clone(&shared), Epoll::new(&IoConfig::default()).unwrap());
        let reactors = (0..count).map(make).collect();
        let report = BackendReport { kind: BackendKind::Epoll, name: "epoll", reason: String::new() };
        let runtime = Runtime::new(shared, report);
        Stepped { runtime, reactors, embedder }
    }

    /// One turn, which does not wait.
    pub fn turn(&mut self, reactor: usize) {
        self.reactors[reactor].io.waker().wake();
        self.reactors[reactor].turn().unwrap();
    }

    pub fn settle(&mut self) {
        for _ in 0..6 {
            for reactor in 0..self.reactors.len() {
                self.turn(reactor);
            }
        }
    }

    /// A transport on the reactor that is next in turn.
    pub fn transport(&mut self) -> (ConnectionId, Arc<Far>) {
        let far = Arc::new(Far::default());
        (self.runtime.add_transport(Box::new(Near(Arc::clone(&far)))).unwrap(), far)
    }

    pub fn client(&mut self, near: ConnectionId) -> (ClientId, SessionKey) {
        self.client_of(TenantId::default(), near, 4)
    }

    /// A client of a tenant, with a session of so many slots.
    pub fn client_of(&mut self, tenant: TenantId, near: ConnectionId, slots: u32) -> (ClientId, SessionKey) {
        let client = self.runtime.add_client_of(tenant, Some(near)).unwrap();
        let session = SessionConfig {
            session_id: [1; 16],
            program: 0x4000_0000,
            security: Security::None,
            slots,
            request_bytes_max: 4096,
            response_bytes_max: 4096,
            operations_max: 2,
            minor_version: 1,
        };
        (client, self.runtime.add_session(client, session).unwrap())
    }

    pub fn try_run(&mut self, client: ClientId) -> CallbackKey {
        let key = self.runtime.insert(client, CallbackOp::Recall, 0).unwrap();
        assert_eq!(self.runtime.try_run(key), TryRun::Submitted);
        key
    }

    pub fn in_flight(&self) -> u64 {
        self.runtime.stats().in_flight
    }

    /// Turns the one reactor until nothing is in flight. How many runs ended in the turn in which most did.
    pub fn most_in_a_turn(&mut self) -> u64 {
        let (mut left, mut most, mut turns) = (self.in_flight(), 0, 0);
        while left > 0 {
            self.turn(0);
            let now = self.in_flight();
            (left, most, turns) = (now, most.max(left - now), turns + 1);
            assert!(turns < 1000, "{left} do not end");
        }
        most
    }

    /// Clients that a connection knows.
    fn bound(&mut self, connection: ConnectionId) -> usize {
        let lines = &mut self.reactors[connection.reactor()].lines;
        let key = lines.key_of(connection).unwrap();
        lines.get(key).unwrap().0.bound.len()
    }
}

/// What a transport was given.
#[derive(Default)]
pub(super) struct Far {
    pub sent: Mutex<Vec<u8>>,
    /// What is sent from now on stays where it is: the peer does not read.
    stuck: AtomicBool,
    unread: Mutex<Vec<Outbound>>,
    closed: AtomicBool,
}

struct Near(Arc<Far>);

impl Transport for Near {
    fn send(&mut self, outbound: Outbound) {
        self.0.sent.lock().unwrap().extend_from_slice(outbound.bytes());
        if self.0.stuck.load(SeqCst) {
            self.0.unread.lock().unwrap().push(outbound);
        }
    }

    fn close(&mut self) {
        self.0.closed.store(true, SeqCst);
    }
}

/// Clients come and go on a connection that stays (a host that creates and destroys client IDs).
#[test]
fn a_connection_forgets_clients_that_are_gone() {
    let mut stepped = Stepped::new(2, |_| ());
    let (here, _) = stepped.transport();
    let (there, _) = stepped.transport();
    assert_ne!(here.reactor(), there.reactor());
    for _ in 0..20 {
        let (client, session) = stepped.client(here);
        stepped.runtime.bind(here, session).unwrap();
        stepped.runtime.bind(there, session).unwrap();
        stepped.settle();
        assert_eq!((stepped.bound(here), stepped.bound(there)), (1, 1));
        stepped.runtime.remove_client(client).unwrap();
        stepped.settle();
        assert_eq!((stepped.bound(here), stepped.bound(there)), (0, 0));
    }
}

/// RFC 8881 section 2.10.6.2: no retry while the connection that it was sent on is up.
#[test]
fn a_call_is_sent_again_only_when_its_connection_is_closed() {
    let mut stepped = Stepped::new(2, |settings| settings.rpc_timeout = Duration::from_millis(20));
    let (here, far_here) = stepped.transport();
    let (there, far_there) = stepped.transport();
    let (client, session) = stepped.client(here);
    stepped.runtime.bind(there, session).unwrap();
    stepped.settle();
    stepped.try_run(client);
    stepped.settle();
    let sent = far_there.sent.lock().unwrap().clone();
    assert!(!sent.is_empty());
    stepped.runtime.bind(here, session).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..5 {
        stepped.turn(here.reactor());
    }
    assert_eq!(stepped.runtime.stats().connections_condemned, 1);
    assert!(!far_there.closed.load(SeqCst), "its reactor has not had its turn");
    assert_eq!(far_here.sent.lock().unwrap().len(), 0);
    // Nor is anything new sent meanwhile: a new call could overtake in the client's eyes what is in doubt.
    stepped.try_run(client);
    stepped.turn(here.reactor());
    assert_eq!(far_here.sent.lock().unwrap().len(), 0);
    stepped.settle();
    assert!(far_there.closed.load(SeqCst));
    let again = far_here.sent.lock().unwrap().clone();
    assert!(again.starts_with(&sent), "the identical call goes first");
    assert_eq!(again.len(), 2 * sent.len());
}

/// An embedder that is slow to answer, then a client that does not read the answers: the first excuses the silence of the
/// connection, the second does not.
#[test]
fn f3_a_connection_is_excused_while_the_embedder_is_slow_and_no_longer() {
    let unsent_bytes_max = 4096;
    let mut stepped = Stepped::new(1, |settings| {
        settings.rpc_timeout = Duration::from_millis(20);
        (settings.calls_unanswered_max, settings.unsent_bytes_max) = (2, unsent_bytes_max);
    });
    let (connection, far) = stepped.transport();
    let (client, session) = stepped.client(connection);
    stepped.runtime.bind(connection, session).unwrap();
    stepped.settle();
    stepped.try_run(client);
    stepped.settle();
    assert!(!far.sent.lock().unwrap().is_empty());
    for _ in 0..2 {
        // xid, CALL.
        stepped.runtime.receive(connection, vec![0; 8]);
    }
    let condemned_later = |stepped: &mut Stepped| {
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(30));
            stepped.settle();
        }
        stepped.runtime.stats().connections_condemned
    };
    assert_eq!(condemned_later(&mut stepped), 0, "the reply, if there is one, waits behind the calls");
    far.stuck.store(true, SeqCst);
    for token in stepped.embedder.deferred.lock().unwrap().drain(..) {
        stepped.runtime.reply(token, vec![vec![0; unsent_bytes_max]]);
    }
    assert_eq!(condemned_later(&mut stepped), 1);
    assert!(far.closed.load(SeqCst));
}

/// A completion that waits for the embedder keeps the client that was removed, whose slots are asked about no more.
#[test]
fn t29_a_removed_client_is_sent_nothing_while_its_completions_wait() {
    let mut stepped = Stepped::new(1, |settings| settings.completion_queues = 1);
    let (first, _) = stepped.transport();
    let (client, session) = stepped.client(first);
    stepped.runtime.bind(first, session).unwrap();
    stepped.settle();
    stepped.try_run(client);
    stepped.settle();
    let (second, far) = stepped.transport();
    stepped.runtime.bind(second, session).unwrap();
    stepped.settle();
    stepped.runtime.remove_client(client).unwrap();
    stepped.settle();
    stepped.runtime.close_connection(first);
    stepped.settle();
    assert_eq!(far.sent.lock().unwrap().len(), 0);
    let queue = stepped.runtime.completion_queue(0).unwrap();
    assert_eq!(queue.poll(&mut Vec::new(), 1), 1);
    assert_eq!(stepped.runtime.stats().in_flight, 1);
    queue.release();
    stepped.settle();
    assert_eq!((stepped.runtime.stats().in_flight, far.sent.lock().unwrap().len()), (0, 0));
}

/// What a command causes to be posted is for the next turn.
#[test]
fn a_turn_ends_however_many_commands_come() {
    let mut stepped = Stepped::new(1, |_| ());
    stepped.embedder.runtime.set(stepped.runtime.clone()).unwrap();
    let (connection, _) = stepped.transport();
    // xid, CALL.
    stepped.runtime.receive(connection, vec![0; 8]);
    for turn in 0..10 {
        stepped.turn(0);
        assert_eq!(*stepped.embedder.calls.lock().unwrap(), turn + 1);
    }
}

/// A transport whose registration crossed the shutdown is closed, and does not keep the reactor.
#[test]
fn a_transport_that_comes_too_late_is_closed() {
    let mut stepped = Stepped::new(1, |_| ());
    let (_, early) = stepped.transport();
    stepped.turn(0);
    stepped.reactors[0].port().post(crate::command::Command::Stop);
    let (_, late) = stepped.transport();
    let reactor = stepped.reactors.remove(0);
    reactor.run().unwrap();
    assert!(early.closed.load(SeqCst) && late.closed.load(SeqCst));
}

/// A peer that makes up replies does not fill the queue to the reactor of the client that it carries callbacks for.
#[test]
fn t28_replies_to_nothing_are_not_passed_on() {
    let mut stepped = Stepped::new(2, |_| ());
    let (here, _) = stepped.transport();
    let (there, far) = stepped.transport();
    let (client, session) = stepped.client(here);
    stepped.runtime.bind(there, session).unwrap();
    stepped.settle();
    stepped.try_run(client);
    stepped.settle();
    assert!(!far.sent.lock().unwrap().is_empty());
    for _ in 0..1000 {
        // xid 0, REPLY.
        stepped.runtime.receive(there, vec![0, 0, 0, 0, 0, 0, 0, 1]);
    }
    stepped.turn(there.reactor());
    let waiting = stepped.reactors[here.reactor()].port().commands.len();
    assert!(waiting <= 2, "{waiting} commands wait");
    assert_eq!(stepped.runtime.stats().replies_unknown, 999);
    stepped.settle();
    assert_eq!(stepped.runtime.stats().replies_unknown, 1000);
}

/// The path comes up and goes down within one turn: the client is told once more, and its lease begins anew.
#[test]
fn t38_a_path_that_was_up_for_a_moment_is_told_again_to_be_down() {
    let mut stepped = Stepped::new(1, |settings| settings.lease = Duration::from_millis(50));
    let (first, _) = stepped.transport();
    let (client, session) = stepped.client(first);
    stepped.settle();
    let told = |stepped: &Stepped| stepped.runtime.seq4_status(client, None);
    assert_ne!(told(&stepped), 0);
    stepped.settle();
    stepped.runtime.bind(first, session).unwrap();
    stepped.runtime.close_connection(first);
    stepped.settle();
    assert_ne!(told(&stepped), 0);
    stepped.try_run(client);
    stepped.settle();
    assert_eq!(stepped.runtime.stats().in_flight, 1);
    std::thread::sleep(Duration::from_millis(100));
    stepped.settle();
    assert_eq!(stepped.runtime.stats().in_flight, 0, "it ended as PathDown, a lease after the client was told");
}

/// However many callbacks are submitted at once, a turn looks at so many of them and goes on to the connections.
#[test]
fn t24_a_flood_is_taken_up_in_many_turns_and_in_order() {
    let mut stepped = Stepped::new(1, |_| ());
    let client = stepped.runtime.add_client(None).unwrap();
    stepped.settle();
    let mut keys: Vec<_> =
        (0..40_000).map(|_| stepped.runtime.insert(client, CallbackOp::Recall, 0).unwrap()).collect();
    for key in &keys {
        assert_eq!(stepped.runtime.try_run(*key), TryRun::Submitted);
    }
    let mut started = Vec::new();
    while stepped.runtime.stats().started < 40_000 {
        stepped.turn(0);
        started.push(stepped.runtime.stats().started);
        assert!(started.len() < 20, "{started:?}");
    }
    assert_eq!(started[..3], [0, 0, 4096], "two turns to put 40,000 into order, and a third");
    // A second flood finds its way behind the first.
    keys.truncate(100);
    for key in &keys {
        assert_eq!(stepped.runtime.try_run(*key), TryRun::Coalesced);
    }
    assert_eq!(stepped.runtime.stats().in_flight, 40_000);
}
