//! A site whose budget of delegations is cut: the runtime with its reaper and its reactors, and clients in memory, in
//! simulated time.
//!
//! Real are the counts, the plan, the callbacks on their way through word, inbox, session slot and wire, and their
//! settling. Simulated are the clock, the clients and the embedder's list of who used what when.

mod member;

pub use member::{Asked, Manner};
use member::{Member, lock};
use ringback::simulator::{ConnKey, Io, IoCounters, IoEvent, RecvBuf, SendBuf, Simulation, Wait, Wake};
use ringback::{
    Budget, BuildError, Builder, Call, CallbackKey, CallbackOp, ClientId, Done, Event, ForeChannel, Hooks, Outcome,
    Prepare, Run, Runtime, Security, SessionConfig, Stats, TryRun,
};
use ringback_rpc::nfs4::callback::CbRecallArgs;
use ringback_rpc::nfs4::{FileHandle, Stateid4};
use ringback_rpc::xdr::{self, Encode, Writer};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

const SECOND_NS: u64 = 1_000_000_000;
/// Looks at the reactors within a second.
const TICKS_PER_SECOND: u64 = 20;
const REACTORS: usize = 2;

/// A back end without connections, on a clock that is set by hand: all connections are transports.
struct Clock(Arc<AtomicU64>);

struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

impl Io for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }
    fn now_ns(&self) -> u64 {
        self.0.load(Relaxed)
    }
    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(Awake)
    }
    fn attach(&mut self, _: ConnKey, _: OwnedFd) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn detach(&mut self, _: ConnKey) {}
    fn lift(&mut self, _: ConnKey) {}
    fn pause(&mut self, _: ConnKey) {}
    fn resume(&mut self, _: ConnKey) {}
    fn send(&mut self, _: ConnKey, buf: SendBuf) -> Result<(), SendBuf> {
        Err(buf)
    }
    fn turn(&mut self, _: Wait, _: &mut Vec<IoEvent>) -> io::Result<()> {
        Ok(())
    }
    fn received(&self, _: &RecvBuf) -> &[u8] {
        &[]
    }
    fn recycle(&mut self, _: RecvBuf) {}
    fn counters(&self) -> IoCounters {
        IoCounters::default()
    }
}

/// A delegation as the server keeps it.
struct Delegation {
    key: CallbackKey,
    on_recall: bool,
}

/// What the server keeps of a client: delegations by the time of their last use and their number.
#[derive(Default)]
struct Held {
    client: Option<ClientId>,
    by_use: BTreeMap<(u32, u32), Delegation>,
    last_use: Vec<u32>,
    /// Times of last use of what was recalled, in that order.
    recalled: Vec<u32>,
}

/// The file server.
#[derive(Default)]
pub(crate) struct Server {
    held: Vec<Mutex<Held>>,
    runtime: OnceLock<Runtime>,
    events: Mutex<Vec<Event>>,
}

impl Server {
    fn runtime(&self) -> &Runtime {
        self.runtime.get().expect("set before anything runs")
    }

    /// DELEGRETURN, or the end of a delegation that is revoked.
    fn end(&self, member: usize, number: u32) -> bool {
        let mut held = lock(&self.held[member]);
        let last_use = held.last_use[number as usize];
        let Some(delegation) = held.by_use.remove(&(last_use, number)) else { return false };
        self.runtime().remove(delegation.key);
        true
    }
}

fn parts(cookie: u64) -> (usize, u32) {
    ((cookie >> 32) as usize, cookie as u32)
}

impl Hooks for Server {
    fn prepare(&self, run: &Run) -> Prepare {
        let (member, number) = parts(run.cookie);
        let held = lock(&self.held[member]);
        match held.by_use.contains_key(&(held.last_use[number as usize], number)) {
            true => Prepare::Send,
            false => Prepare::Refuse,
        }
    }

    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        let mut other = [0; 12];
        other[..8].copy_from_slice(&run.cookie.to_be_bytes());
        let fh = FileHandle::new(b"file").expect("it is short");
        CbRecallArgs { stateid: Stateid4 { seqid: 1, other }, truncate: false, fh }.encode(args)
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        // It could not be asked, or does not answer: revoked.
        if !matches!(outcome, Outcome::Replied { .. } | Outcome::Refused) {
            let (member, number) = parts(run.cookie);
            self.end(member, number);
        }
        Done::Finish
    }

    fn recall_least_recently_used(&self, client: ClientId, count: usize) -> usize {
        let found = self.held.iter().find(|held| lock(held).client == Some(client));
        let mut held = lock(found.expect("the client was made here"));
        let Held { by_use, recalled, .. } = &mut *held;
        let idle = by_use.iter_mut().filter(|(_, delegation)| !delegation.on_recall).take(count);
        idle.map(|((last_use, _), delegation)| {
            delegation.on_recall = true;
            recalled.push(*last_use);
            assert_eq!(self.runtime().try_run(delegation.key), TryRun::Submitted);
        })
        .count()
    }

    fn event(&self, event: &Event) {
        if let Event::ReturnOverdue { cookie, .. } = event {
            let (member, number) = parts(*cookie);
            self.end(member, number);
        }
        lock(&self.events).push(event.clone());
    }
}

impl ForeChannel for Server {
    fn call(&self, _: Call<'_>) {}
}

/// One second of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Second {
    /// Since the beginning.
    pub at_s: u64,
    /// Delegations at its end.
    pub held: u64,
    /// CB_RECALL_ANY sent in it.
    pub asked: u64,
    /// Single recalls begun in it.
    pub recalled: u64,
}

/// The site.
pub struct Site {
    simulation: Simulation<Clock>,
    clock: Arc<AtomicU64>,
    server: Arc<Server>,
    members: Vec<Member>,
    before: Stats,
}

impl Site {
    /// Clients that hold so many delegations each, without a budget. Every second delegation is in use.
    pub fn new(clients: &[(Manner, u32)]) -> Result<Site, BuildError> {
        let clock = Arc::new(AtomicU64::new(SECOND_NS));
        let held = clients.iter().map(|_| Mutex::default()).collect();
        let server = Arc::new(Server { held, ..Server::default() });
        let ios = (0..REACTORS).map(|_| Clock(Arc::clone(&clock))).collect();
        let hooks: (Arc<dyn Hooks>, Arc<dyn ForeChannel>) = (Arc::clone(&server) as _, Arc::clone(&server) as _);
        let simulation = Simulation::new(Builder::new(), Box::new(|_| true), hooks.0, hooks.1, ios)?;
        // Nothing else has set it.
        let _ = server.runtime.set(simulation.runtime.clone());
        let mut site = Site { simulation, clock, server, members: Vec::new(), before: Stats::default() };
        for (index, (manner, count)) in clients.iter().enumerate() {
            site.add(index, *manner, *count);
        }
        site.turn();
        Ok(site)
    }

    fn add(&mut self, index: usize, manner: Manner, count: u32) {
        let runtime = &self.simulation.runtime;
        let (member, transport) = Member::new(index, manner);
        let connection = runtime.add_transport(transport).expect("the runtime is open");
        let client = runtime.add_client(Some(connection)).expect("there is room");
        let session = SessionConfig {
            session_id: [index as u8 + 1; 16],
            program: 0x4000_0000,
            security: Security::None,
            slots: 16,
            request_bytes_max: 4096,
            response_bytes_max: 4096,
            operations_max: 17,
            minor_version: 1,
        };
        let session = runtime.add_session(client, session).expect("it is in range");
        runtime.bind(connection, session).expect("the client is there");
        self.members.push(member.on(connection));
        let mut held = lock(&self.server.held[index]);
        held.client = Some(client);
        for number in 0..count {
            let cookie = (index as u64) << 32 | u64::from(number);
            let key = runtime.insert(client, CallbackOp::Recall, cookie).expect("there is room");
            let last_use = number % 2;
            held.last_use.push(last_use);
            held.by_use.insert((last_use, number), Delegation { key, on_recall: false });
        }
    }

    /// What the server would call, to set a budget or to tell of pressure.
    pub fn runtime(&self) -> &Runtime {
        &self.simulation.runtime
    }

    /// Sets the budget.
    pub fn set_budget(&self, delegations: u64) {
        self.runtime().set_budget(Budget::delegations(delegations));
    }

    /// Lets a second pass.
    pub fn second(&mut self) -> Second {
        for tick in 0..TICKS_PER_SECOND {
            let now_ns = self.clock.fetch_add(SECOND_NS / TICKS_PER_SECOND, Relaxed) + SECOND_NS / TICKS_PER_SECOND;
            if tick == 0 {
                self.simulation.reap(now_ns);
            }
            self.turn();
            for member in &mut self.members {
                member.act(&self.server, TICKS_PER_SECOND);
            }
        }
        let now = self.runtime().stats();
        let before = std::mem::replace(&mut self.before, now);
        Second {
            at_s: self.now_s(),
            held: now.delegations,
            asked: now.reaper_asked - before.reaper_asked,
            recalled: now.reaper_recalled - before.reaper_recalled,
        }
    }

    fn now_s(&self) -> u64 {
        self.clock.load(Relaxed) / SECOND_NS - 1
    }

    /// Turns the reactors, and has the clients answer, until nobody has anything to do at this time.
    fn turn(&mut self) {
        let now_s = self.clock.load(Relaxed) as f64 / SECOND_NS as f64 - 1.0;
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for reactor in &mut self.simulation.reactors {
                let wait = reactor.park();
                busy |= wait == Wait::No;
                reactor.turn(wait).expect("this back end does not fail");
            }
            for member in &mut self.members {
                let held = lock(&self.server.held[member.index]).by_use.len() as u32;
                busy |= member.answer(&self.simulation.runtime, now_s, held);
            }
        }
    }

    /// What a client was asked, so far.
    pub fn asked(&self, client: usize) -> &[Asked] {
        &self.members[client].asked
    }

    /// The name of a client.
    pub fn client(&self, client: usize) -> ClientId {
        lock(&self.server.held[client]).client.expect("it was made with the site")
    }

    /// How many delegations a client holds.
    pub fn held(&self, client: usize) -> usize {
        lock(&self.server.held[client]).by_use.len()
    }

    /// When what was recalled one by one from a client was last used, in the order of the recalls.
    pub fn recalled(&self, client: usize) -> Vec<u32> {
        lock(&self.server.held[client]).recalled.clone()
    }

    /// What the embedder was told.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.server.events).clone()
    }
}
