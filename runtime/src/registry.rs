//! What all threads share: the slab, the table of clients, and each reactor's front door. Read by many, changed by few;
//! nothing here blocks a reactor or `try_run`.

use crate::callback::{Arrivals, CallbackKey, CallbackSlab, InFlight, Inbox, MemberPool, Parking, Residence};
use crate::command::Command;
use crate::completion::QueueState;
use crate::cpus::Placement;
use crate::drain::DrainJob;
use crate::entries::EntryCount;
use crate::flight::FlightRing;
use crate::fore::ForeChannel;
use crate::guard::guard;
use crate::hooks::{Event, Hooks, Run};
use crate::io::Wake;
use crate::keys::{ClientId, ConnectionId};
use crate::log::Throttles;
use crate::path::UnconfirmedPaths;
use crate::process::Process;
use crate::reaper::{Own, ReaperPort};
use crate::settings::Settings;
use crate::stats::{ReactorStats, count};
use crate::tenant::{TenantId, Tenants};
use crate::wait::{Answer, WaitError};
use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;
use ringback_rpc::backchannel::SESSIONS_MAX;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Clients per segment of the table.
const CLIENTS_PER_SEGMENT: usize = 256;

pub(crate) struct Shared {
    /// As the runtime was built.
    pub settings: Settings,
    /// As they are now. Reactors have their own copy.
    pub tuned: Mutex<Arc<Settings>>,
    pub hooks: Arc<dyn Hooks>,
    pub fore: Arc<dyn ForeChannel>,
    pub slab: CallbackSlab,
    /// Of groups that wait for callbacks.
    pub members: MemberPool,
    pub clients: ClientTable,
    pub tenants: Tenants,
    pub reactors: Box<[ReactorPort]>,
    /// Where they run.
    pub placement: Vec<Placement>,
    /// The process that has the threads. `None`: there was no memory to know it by.
    pub process: Option<Process>,
    pub reaper: ReaperPort,
    /// Paths of minor version 0 that their clients have not confirmed.
    pub unconfirmed: UnconfirmedPaths,
    /// What threads that are no reactor's have logged.
    pub log: Throttles,
    /// Where completions go; none: to the hooks alone.
    pub queues: Box<[Arc<QueueState>]>,
    /// Set by drain and shutdown: no new clients, connections or runs.
    pub closed: AtomicBool,
    /// The reactors stand still, or have left everything to another process.
    #[cfg(feature = "checkpoint")]
    pub standstill: crate::checkpoint::suspend::Standstill,
    /// Clients that are on their way from one reactor to another. Closed when the runtime is.
    pub moves: InFlight,
    /// How many have asked that no more begin for a while.
    pub moves_held: AtomicU32,
    /// Drains of all that begin when no client is.
    pub drains_waiting: SegQueue<Arc<DrainJob>>,
    /// The number of the last census.
    pub census: Mutex<u64>,
    serials: AtomicU64,
    /// Counts what was placed on a reactor in turn. Not `serials`: an embedder that makes a connection and a session for
    /// each client takes two of those each, and would place every connection on the same one of two reactors.
    placed: AtomicU64,
}

thread_local! {
    /// The runtime, by [`Shared::address`], one of whose hooks this thread may be in; 0: none.
    static HOOKS_OF: Cell<usize> = const { Cell::new(0) };
    /// The reactor, by the address of its port, of which this thread is in a turn; 0: none.
    static IN_TURN_OF: Cell<usize> = const { Cell::new(0) };
}

/// While it lives, its thread is in a turn of a reactor.
pub(crate) struct InTurn {
    before: usize,
}

impl Drop for InTurn {
    fn drop(&mut self) {
        IN_TURN_OF.set(self.before);
    }
}

impl Shared {
    pub fn new(settings: Settings, hooks: Arc<dyn Hooks>, fore: Arc<dyn ForeChannel>) -> Self {
        let reactors = settings.reactors;
        Shared {
            slab: CallbackSlab::new(settings.callbacks_max, reactors),
            members: MemberPool::new(),
            clients: ClientTable::new(settings.clients_max),
            tenants: Tenants::new(),
            reactors: (0..reactors).map(|number| ReactorPort::new(number, settings.flight_records)).collect(),
            reaper: ReaperPort::new(settings.budget),
            unconfirmed: UnconfirmedPaths::default(),
            placement: Vec::new(),
            process: Process::new(),
            log: Throttles::default(),
            queues: Box::default(),
            closed: AtomicBool::new(false),
            #[cfg(feature = "checkpoint")]
            standstill: Default::default(),
            moves: InFlight::new(),
            moves_held: AtomicU32::new(0),
            drains_waiting: SegQueue::new(),
            census: Mutex::new(0),
            // 0 names nothing.
            serials: AtomicU64::new(1),
            placed: AtomicU64::new(0),
            tuned: Mutex::new(Arc::new(settings.clone())),
            settings,
            hooks,
            fore,
        }
    }

    pub fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// This thread is a reactor's, and calls hooks from now on.
    pub fn enter_reactor(&self) {
        HOOKS_OF.set(self.address());
    }

    /// Calls a hook on a thread that is not a reactor's.
    pub fn call_hook<R>(&self, hook: impl FnOnce() -> R) -> R {
        struct Restore(usize);
        impl Drop for Restore {
            fn drop(&mut self) {
                HOOKS_OF.set(self.0);
            }
        }
        let _restore = Restore(HOOKS_OF.replace(self.address()));
        hook()
    }

    /// Calls `what` of the embedder, on the reactor of `port`. `None`: it panicked, which is counted and told.
    #[inline]
    pub fn call<R>(
        &self,
        port: &ReactorPort,
        what: &'static str,
        key: Option<CallbackKey>,
        call: impl FnOnce() -> R,
    ) -> Option<R> {
        let answer = guard(call);
        if answer.is_none() {
            self.panicked(port, what, key);
        }
        answer
    }

    /// Calls a hook about a run: one of `hooks`, which are the embedder's, or of our own.
    #[inline(always)]
    pub fn call_about<R>(
        &self,
        port: &ReactorPort,
        hooks: &dyn Hooks,
        what: &'static str,
        run: &Run,
        call: impl FnOnce(&dyn Hooks) -> R,
    ) -> Option<R> {
        self.call_of_run(port, what, run, || call(if run.own { &Own } else { hooks }))
    }

    /// As [`Shared::call`], about a run, whose key is looked at only if it is to be told.
    #[inline(always)]
    pub fn call_of_run<R>(
        &self,
        port: &ReactorPort,
        what: &'static str,
        run: &Run,
        call: impl FnOnce() -> R,
    ) -> Option<R> {
        let answer = guard(call);
        if answer.is_none() {
            self.panicked(port, what, Some(run.key));
        }
        answer
    }

    #[cold]
    fn panicked(&self, port: &ReactorPort, call: &'static str, key: Option<CallbackKey>) {
        count(&port.stats.embedder_panics);
        let event = Event::Panicked { call, key };
        self.log_event(Some(port), &event);
        if guard(|| self.hooks.event(&event)).is_none() {
            count(&port.stats.embedder_panics);
        }
    }

    /// Tells the embedder: on the reactor of `port`, or on a thread of no reactor.
    pub fn tell(&self, port: Option<&ReactorPort>, event: &Event) {
        self.log_event(port, event);
        let tell = || self.hooks.event(event);
        if let Some(port) = port {
            self.call(port, "Hooks::event", None, tell);
        } else if self.call_hook(|| guard(tell)).is_none() {
            self.reaper.count_panic();
        }
    }

    /// Whether this thread is in a hook of this runtime. To wait for a reactor there would be to wait for oneself.
    pub fn is_in_hook(&self) -> bool {
        Shared::is_in_hook_of(self.address())
    }

    /// The same of the runtime at that [`address`](Shared::address).
    pub fn is_in_hook_of(address: usize) -> bool {
        HOOKS_OF.get() == address
    }

    /// The next reactor in turn that has not ended.
    pub fn place(&self) -> Option<usize> {
        let count = self.reactors.len();
        let turn = (self.placed.fetch_add(1, Relaxed) % count as u64) as usize;
        (0..count).map(|n| (turn + n) % count).find(|n| !self.reactors[*n].has_ended())
    }

    /// The thread of a reactor ends, in order or by a panic: nobody waits for it any more, and its clients' runs are
    /// refused from now on.
    pub fn end_reactor(&self, reactor: usize) {
        let port = &self.reactors[reactor];
        port.ended.store(true, SeqCst);
        fence(SeqCst); // partners: `post`, `returned_to`, `add_client`, `try_run_many`
        for client in self.clients.each().filter(|c| c.home() == reactor) {
            let _ = client.in_flight.close();
        }
        #[cfg(feature = "checkpoint")]
        if self.standstill.has_left() {
            self.leave_undone(port);
        }
        port.discard();
        self.finish_returned(reactor);
        self.forsake_reactor(reactor);
        port.waits.end(&Err(WaitError::Closed));
        self.rescue(reactor);
    }

    /// Whether this is a child that was forked, and has none of the threads.
    #[inline]
    pub fn is_forked(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_forked)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// A number that is used once in this runtime.
    pub fn serial(&self) -> u64 {
        self.serials.fetch_add(1, Relaxed)
    }

    /// No number up to this one is given from now on.
    #[cfg(feature = "checkpoint")]
    pub fn skip_serials(&self, used: u64) {
        self.serials.fetch_max(used, Relaxed);
    }

    /// No number from this one on was given so far.
    #[cfg(feature = "checkpoint")]
    pub fn next_serial(&self) -> u64 {
        self.serials.load(Relaxed)
    }

    /// The reactor that drives a connection. One that was named in another process, where there were more, has its name
    /// still.
    pub fn reactor_of(&self, connection: ConnectionId) -> usize {
        connection.reactor() % self.reactors.len()
    }

    /// Its port.
    pub fn port_of(&self, connection: ConnectionId) -> &ReactorPort {
        &self.reactors[self.reactor_of(connection)]
    }
}

/// A reactor as other threads see it.
pub(crate) struct ReactorPort {
    /// Which it is.
    pub number: usize,
    pub inbox: Inbox,
    pub parking: Parking,
    pub commands: SegQueue<Command>,
    /// Runs that the embedder has taken off a completion queue and is done with.
    pub returned: Inbox,
    /// Who begins to wait for a callback of this reactor's clients.
    pub waits: Arrivals<Answer>,
    /// The reactor's clock in microseconds, as of its current turn; 0 while it is parked. A run that is accepted takes
    /// it as its beginning, which spares `try_run` to read a clock.
    pub turn_us: CachePadded<AtomicU32>,
    pub waker: OnceLock<Arc<dyn Wake>>,
    pub stats: ReactorStats,
    /// What it has logged.
    pub log: Throttles,
    /// What happened last, if that is recorded.
    pub flight: Option<FlightRing>,
    /// The thread has ended: nobody takes commands any more.
    ended: AtomicBool,
}

impl ReactorPort {
    pub fn new(number: usize, flight_records: usize) -> Self {
        ReactorPort {
            number,
            inbox: Inbox::new(),
            parking: Parking::new(),
            commands: SegQueue::new(),
            returned: Inbox::new(),
            waits: Arrivals::new(),
            turn_us: CachePadded::new(AtomicU32::new(0)),
            waker: OnceLock::new(),
            stats: ReactorStats::default(),
            log: Throttles::default(),
            flight: FlightRing::new(flight_records),
            ended: AtomicBool::new(false),
        }
    }

    /// This thread is in a turn of the reactor from now on, until what is returned goes.
    #[must_use]
    pub fn begin_turn(&self) -> InTurn {
        InTurn { before: IN_TURN_OF.replace(std::ptr::from_ref(self).addr()) }
    }

    /// Whether this thread is in a turn of the reactor: nobody else can be, and it looks for work before it sleeps.
    #[inline]
    pub fn is_in_turn_here(&self) -> bool {
        IN_TURN_OF.get() == std::ptr::from_ref(self).addr()
    }

    /// Whether nobody has left anything to do.
    pub fn has_nothing(&self) -> bool {
        self.inbox.is_empty() && self.commands.is_empty() && self.returned.is_empty()
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    /// Hands a command over and wakes the reactor if it is parked.
    pub fn post(&self, command: Command) {
        self.commands.push(command);
        // Has the fence between the push and the look at `ended`: either that shows here, or who sets it sees the push.
        if self.parking.must_wake() {
            self.wake();
        }
        if self.has_ended() {
            self.discard();
        }
    }

    /// Undoes commands that nobody will take, so that nobody waits for them.
    fn discard(&self) {
        while let Some(command) = self.commands.pop() {
            command.discard();
        }
    }

    /// Wakes the reactor, which is parked or about to be.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            self.stats.wakes.fetch_add(1, Relaxed);
            waker.wake();
        }
    }
}

/// A client as other threads see it.
pub(crate) struct ClientShared {
    pub in_flight: InFlight,
    /// The reactor that owns the client, and who is just leaving something there.
    pub residence: Residence,
    /// The bits of its tenant.
    pub tenant: AtomicU32,
    /// The last census that counted it.
    pub counted: AtomicU64,
    generation: AtomicU32,
    /// Callback entries that name the client. Its index is used again only when there are none.
    pub entries: EntryCount,
    /// SEQ4_STATUS bits (RFC 8881 section 18.46.3) of the client as a whole, published by the home reactor.
    pub status: AtomicU32,
    /// The client has been told that its path is down.
    pub path_down_told: AtomicBool,
    /// Operations that the client does not support, by their bits; published like `status`.
    pub unsupported: AtomicU32,
    pub sessions: [SessionShared; SESSIONS_MAX],
    /// The path of minor version 0 that was confirmed last, by [`SessionKey::serial`](crate::SessionKey); 0: none.
    pub path: AtomicU64,
    pub live: AtomicBool,
}

/// A session as other threads see it.
pub(crate) struct SessionShared {
    /// [`SessionKey::serial`](crate::SessionKey) + 1; 0: no session.
    tag: AtomicU64,
    /// SEQ4_STATUS bits of the session and its client.
    pub status: AtomicU32,
}

/// What [`SessionShared`] holds for a session. `None`: no session has that number; an embedder may ask for any.
fn tag_of(serial: u64) -> Option<u64> {
    serial.checked_add(1)
}

impl SessionShared {
    pub fn serial(&self) -> Option<u64> {
        self.tag.load(Acquire).checked_sub(1)
    }
}

impl ClientShared {
    fn new() -> Self {
        ClientShared {
            in_flight: InFlight::new(),
            residence: Residence::new(),
            tenant: AtomicU32::new(0),
            counted: AtomicU64::new(0),
            generation: AtomicU32::new(0),
            entries: EntryCount::new(),
            status: AtomicU32::new(0),
            path_down_told: AtomicBool::new(false),
            unsupported: AtomicU32::new(0),
            sessions: std::array::from_fn(|_| SessionShared { tag: AtomicU64::new(0), status: AtomicU32::new(0) }),
            path: AtomicU64::new(0),
            live: AtomicBool::new(false),
        }
    }

    /// Publishes the client's SEQ4_STATUS bits. A path that has been up since is told again to be down; so is one of which
    /// the core does not know yet that it was told, which does no harm.
    pub fn publish_status(&self, status: u32, path_down_told: bool) {
        if self.status.load(Relaxed) != status {
            self.status.store(status, Relaxed);
        }
        if !path_down_told && self.path_down_told.load(Relaxed) {
            self.path_down_told.store(false, Relaxed);
        }
    }

    /// Makes a session's status visible. `false`: the client has as many sessions as are allowed.
    pub fn show_session(&self, serial: u64) -> bool {
        let Some(tag) = tag_of(serial) else { return false };
        let free = |s: &&SessionShared| s.tag.compare_exchange(0, tag, AcqRel, Relaxed).is_ok();
        self.sessions.iter().find(free).is_some()
    }

    /// The session is gone.
    pub fn hide_session(&self, serial: u64) {
        let Some(tag) = tag_of(serial) else { return };
        for session in &self.sessions {
            if session.tag.compare_exchange(tag, 0, AcqRel, Relaxed).is_ok() {
                session.status.store(0, Relaxed);
            }
        }
    }

    pub fn home(&self) -> usize {
        self.residence.home()
    }

    pub fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }
}

/// The table of clients: segments that never move, so a look-up is two loads.
pub(crate) struct ClientTable {
    segments: Box<[OnceLock<Box<[ClientShared]>>]>,
    clients_max: usize,
    admission: Mutex<Admission>,
}

#[derive(Default)]
struct Admission {
    /// Indices handed out so far.
    used: u32,
    /// Removed clients, whose indices can be used again once nothing names them.
    removed: Vec<u32>,
}

impl ClientTable {
    pub fn new(clients_max: usize) -> Self {
        let segments = (0..clients_max.div_ceil(CLIENTS_PER_SEGMENT)).map(|_| OnceLock::new()).collect();
        ClientTable { segments, clients_max, admission: Mutex::default() }
    }

    pub fn get(&self, index: u32) -> Option<&ClientShared> {
        let index = index as usize;
        self.segments.get(index / CLIENTS_PER_SEGMENT)?.get()?.get(index % CLIENTS_PER_SEGMENT)
    }

    /// The client, if it is registered.
    pub fn live(&self, id: ClientId) -> Option<&ClientShared> {
        let client = self.get(id.index)?;
        (client.live.load(SeqCst) && client.generation() == id.generation).then_some(client)
    }

    /// Every client that is registered or still has runs in flight, in the order of their indices.
    pub fn each(&self) -> impl Iterator<Item = &ClientShared> {
        self.segments.iter().map_while(OnceLock::get).flat_map(|s| s.iter())
    }

    /// Runs accepted and not completed.
    pub fn in_flight(&self) -> u64 {
        self.each().map(|client| client.in_flight.count()).sum()
    }

    /// CB_RECALLs of all clients.
    pub fn delegations(&self) -> u64 {
        self.each().map(|client| u64::from(client.entries.delegations())).sum()
    }

    /// Registers a client whose home is `home`; `None` when the table is full.
    pub fn add(&self, home: usize, tenant: TenantId) -> Option<ClientId> {
        let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |i: &u32| {
            self.get(*i).is_some_and(|c| c.entries.is_zero() && c.in_flight.count() == 0 && !c.live.load(Acquire))
        };
        let index = match admission.removed.iter().position(idle) {
            Some(at) => admission.removed.swap_remove(at),
            None if (admission.used as usize) < self.clients_max => {
                admission.used += 1;
                admission.used - 1
            }
            None => return None,
        };
        let segment = self.segments.get(index as usize / CLIENTS_PER_SEGMENT)?;
        segment.get_or_init(|| (0..CLIENTS_PER_SEGMENT).map(|_| ClientShared::new()).collect());
        let client = self.get(index)?;
        let generation = client.generation.load(Relaxed).wrapping_add(1);
        client.generation.store(generation, Relaxed);
        client.residence.settle_at(home);
        client.tenant.store(tenant.to_bits().into(), Relaxed);
        client.status.store(0, Relaxed);
        client.path_down_told.store(false, Relaxed);
        client.unsupported.store(0, Relaxed);
        client.path.store(0, SeqCst);
        for serial in client.sessions.iter().filter_map(SessionShared::serial) {
            client.hide_session(serial);
        }
        client.in_flight.reopen();
        client.live.store(true, SeqCst);
        Some(ClientId { index, generation })
    }

    /// The places that were ever taken, in their order.
    #[cfg(feature = "checkpoint")]
    pub fn places(&self) -> Vec<&ClientShared> {
        let used = self.admission.lock().unwrap_or_else(PoisonError::into_inner).used;
        (0..used).filter_map(|index| self.get(index)).collect()
    }

    /// Takes the places of another process, in a table of which none was taken yet: each with its generation, its home, and
    /// whether a client is there that is registered, or one that is being forgotten.
    #[cfg(feature = "checkpoint")]
    pub fn restore(&self, places: impl Iterator<Item = (u32, usize, bool, bool)>) {
        let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        for (generation, home, live, leaving) in places {
            let index = admission.used;
            let Some(segment) = self.segments.get(index as usize / CLIENTS_PER_SEGMENT) else { return };
            segment.get_or_init(|| (0..CLIENTS_PER_SEGMENT).map(|_| ClientShared::new()).collect());
            let Some(client) = self.get(index) else { return };
            client.generation.store(generation, Relaxed);
            client.residence.settle_at(home);
            client.live.store(live, SeqCst);
            admission.used += 1;
            if !live && !leaving {
                admission.removed.push(index);
            }
        }
    }

    /// The home reactor has forgotten the client.
    pub fn removed(&self, id: ClientId) {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner).removed.push(id.index);
    }

    /// Memory that the table holds, in bytes.
    pub fn bytes(&self) -> usize {
        let segments = self.segments.iter().filter(|s| s.get().is_some()).count();
        size_of_val(&*self.segments) + segments * CLIENTS_PER_SEGMENT * size_of::<ClientShared>()
    }
}
