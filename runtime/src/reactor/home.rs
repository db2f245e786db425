//! The clients whose home a reactor is, and their backchannels.

use super::deficit::Deficit;
use super::dial::ConfirmedPath;
use super::draining::{ClientDrain, Draining};
use super::host::ClientHost;
use super::owed::Owed;
use super::turn_us;
use crate::callback::{CallbackKey, WaitTable};
use crate::flight::{FlightStep, Raw, is_traced, note};
use crate::hooks::Event;
use crate::io::ConnKey;
use crate::keys::{ClientId, ConnectionId, SessionKey};
use crate::latency::Latencies;
use crate::registry::{ClientShared, ReactorPort, Shared};
use crate::settings::Settings;
use crate::stats::{Census, ReactorStats, count_by, set};
use crate::tenant::TenantId;
use crate::wait::{Answer, WaitError};
use ringback_rpc::backchannel::{self, Backchannel, ConnToken, Counters};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// One client.
pub(super) struct Client {
    pub id: ClientId,
    pub backchannel: Backchannel,
    /// Connections that carry the backchannel of a session of this client.
    pub links: Vec<Link>,
    pub session_count: usize,
    /// Of a client of minor version 0.
    pub path: Option<ConfirmedPath>,
    /// What [`Client::publish_counters`] has published.
    counted: Counters,
    /// What was counted at earlier homes.
    pub counted_elsewhere: Counters,
    /// Runs of it that an embedder has yet to take off a completion queue and to give back.
    pub with_embedder: u64,
    /// The bits of its tenant.
    pub tenant: u16,
    /// Calls out that its tenant knows of; not of the default one.
    calls_out: u32,
    pub in_ring: bool,
    pub deficit: Deficit,
    pub touched: bool,
    /// Its core has something to do, and it is among those that are about to let it.
    pub due: bool,
    /// Runs of it are to be cancelled, and it is among those that are looked through for them.
    pub cancels: bool,
    /// Drains of this client, or of its sessions, that are under way.
    pub drains: Vec<ClientDrain>,
    /// Its limits are those of this client, and not of all.
    pub has_own_limits: bool,
    /// [`Settings::tunings`] that it has.
    pub tunings: u64,
    /// Removed by the embedder: forgotten when nothing is in flight.
    pub removed: bool,
}

/// A connection that carries callbacks of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub connection: ConnectionId,
    pub place: Place,
    /// Not read from at present because calls wait for the embedder: that a reply does not come over it says nothing
    /// about the client.
    pub held: bool,
}

/// Where the connection is driven.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Here.
    Local(ConnKey),
    /// On another reactor, which carries bytes for us.
    Remote {
        /// Batches handed over and not sent yet.
        batches_out: usize,
    },
    /// On another reactor, which has been told to close it and has not said yet that it has.
    Condemned,
}

impl Client {
    /// Whether a connection of the client has something to send and is not waiting for room.
    pub fn wants_transmit(&self) -> bool {
        self.may_transmit() && self.links.iter().any(|l| self.backchannel.wants_transmit(conn_token(l.connection)))
    }

    /// A client that was removed is told nothing any more, though it stays until the embedder has given back its completions.
    pub fn may_transmit(&self) -> bool {
        !self.removed && !self.awaits_close()
    }

    /// Whether a connection that was given up is perhaps still open: what was sent on it must not be sent on another one
    /// before it has been closed (RFC 8881 section 2.10.6.2).
    pub fn awaits_close(&self) -> bool {
        self.links.iter().any(|l| matches!(l.place, Place::Condemned))
    }

    pub fn link_mut(&mut self, connection: ConnectionId) -> Option<&mut Link> {
        self.links.iter_mut().find(|l| l.connection == connection)
    }

    /// Lets the core do what is due.
    pub fn handle_timeout(&mut self, now_ns: u64, host: &mut ClientHost<'_>) {
        self.excuse_held(now_ns);
        self.backchannel.handle_timeout(now_ns, host);
    }

    /// What the embedder keeps from being read is no silence of the client.
    pub fn excuse_held(&mut self, now_ns: u64) {
        for link in self.links.iter().filter(|l| l.held) {
            self.backchannel.heard(now_ns, conn_token(link.connection));
        }
    }

    /// Runs that were taken up and not released.
    pub fn taken_up(&self) -> u64 {
        self.backchannel.run_count() + self.with_embedder
    }

    /// Counts its runs and session slots.
    pub fn census(&self) -> Census {
        let census = self.backchannel.census();
        Census {
            queued: census.runs_queued,
            delayed: census.runs_delayed,
            sent: census.runs_sent,
            parked: census.runs_parked,
            slots: census.slots.into(),
            free: census.slots_free.into(),
            with_run: census.slots_with_run.into(),
            quarantined: census.slots_quarantined.into(),
            retired: census.slots_retired.into(),
            bytes: (size_of::<Client>() + self.backchannel.memory_bytes()) as u64,
            returns_bytes: 0,
        }
    }

    /// Lets its tenant know how many calls are out.
    pub fn publish_calls(&mut self, shared: &Shared) {
        let Some(tenant) = shared.tenants.get(TenantId(self.tenant)) else { return };
        let out = if self.removed && self.backchannel.is_idle() { 0 } else { self.backchannel.calls_out() };
        tenant.count_out(std::mem::replace(&mut self.calls_out, out), out);
    }

    /// Adds what the core has counted since the last look to the reactor's counters.
    pub fn publish_counters(&mut self, stats: &ReactorStats) {
        let now = *self.backchannel.counters();
        count_by(&stats.callbacks_sent, now.callbacks_sent - self.counted.callbacks_sent);
        count_by(&stats.calls_sent, now.calls_sent - self.counted.calls_sent);
        count_by(&stats.resent, now.resent - self.counted.resent);
        count_by(&stats.resynchronised, now.resynchronised - self.counted.resynchronised);
        self.counted = now;
    }

    /// What the core has counted is in the reactor's counters.
    #[cfg(feature = "checkpoint")]
    pub fn counted_already(&mut self) {
        self.counted = *self.backchannel.counters();
    }

    /// Lets other threads see the SEQ4_STATUS bits, and what the client does not support. Sessions take the first free place in the table, so all of them are
    /// found when as many were looked at as there are.
    pub fn publish_status(&self, shared: &ClientShared) {
        shared.publish_status(self.backchannel.seq4_status(None), self.backchannel.is_path_down_told());
        set(&shared.unsupported, self.backchannel.unsupported());
        let sessions = shared.sessions.iter().filter_map(|s| Some((s, s.serial()?)));
        for (session, serial) in sessions.take(self.session_count) {
            let key = backchannel::SessionKey(serial);
            set(&session.status, self.backchannel.seq4_status(Some(key)));
        }
    }
}

/// What is kept of the steps of callbacks beside the flight recorder, which is where others can read it.
pub(super) struct Watch {
    /// How long callbacks take, if that is measured.
    pub latencies: Option<Latencies>,
    /// Steps are wanted whether or not somebody subscribes to their events: they are recorded or measured.
    pub always: bool,
}

/// Not so, to count what it costs that one may watch: bench/observability.
pub(super) const WATCHABLE: bool = !cfg!(ringback_unwatched);

impl Watch {
    /// Whether somebody wants steps. Asked once for a visit of a client and not for each step: who subscribes to events
    /// gets those of the next visit.
    #[inline]
    fn is_wanted(&self) -> bool {
        self.always || is_traced()
    }
}

/// The backchannel core's name for a connection.
pub(super) fn conn_token(connection: ConnectionId) -> ConnToken {
    ConnToken(connection.to_bits())
}

/// All clients of a reactor.
pub(super) struct Home {
    pub reactor: usize,
    pub shared: Arc<Shared>,
    /// As they are now.
    pub settings: Arc<Settings>,
    pub now_ns: u64,
    /// By the client's index in the shared table.
    pub clients: Vec<Option<Box<Client>>>,
    /// Clients to look at before the turn ends.
    pub touched: Vec<u32>,
    /// Connections that the core has given up.
    pub condemned: Vec<(ClientId, ConnectionId)>,
    pub drain: Option<Draining>,
    /// If steps are recorded, traced, or measured.
    pub watch: Option<Watch>,
    /// What the cores of clients that are gone had counted.
    pub gone: Counters,
    /// Callbacks that are about a session, by index: their generation, and the session, which may be gone.
    pub of_session: HashMap<u32, (u32, SessionKey)>,
    /// Who waits for the end of a run.
    pub waits: WaitTable<Answer>,
    /// Recalls that were sent and whose return is awaited.
    pub owed: Owed,
    /// Runs that an embedder has yet to take off a completion queue and to give back.
    pub with_embedder: u64,
    /// Runs that were taken up elsewhere and came with their clients, less those that were taken up here and went.
    pub moved_runs: i64,
    /// Runs are to end by then: the runtime is draining or stopping.
    pub drain_deadline_ns: Option<u64>,
    /// Clients that are restored keep their connections: they are only looked at.
    #[cfg(feature = "checkpoint")]
    pub keeps_connections: bool,
}

impl Home {
    pub fn new(reactor: usize, shared: Arc<Shared>, now_ns: u64) -> Self {
        let owed = Owed::new(shared.settings.return_deadline);
        let latencies = shared.settings.latency.then(Latencies::new).flatten();
        let always = latencies.is_some() || shared.settings.flight_records > 0;
        let watch = (always || cfg!(feature = "tracing")).then_some(Watch { latencies, always });
        Home {
            reactor,
            watch,
            settings: Arc::new(shared.settings.clone()),
            shared,
            now_ns,
            clients: Vec::new(),
            touched: Vec::new(),
            condemned: Vec::new(),
            drain: None,
            gone: Counters::default(),
            of_session: HashMap::new(),
            owed,
            waits: WaitTable::new(Err(WaitError::Closed)),
            with_embedder: 0,
            moved_runs: 0,
            drain_deadline_ns: None,
            #[cfg(feature = "checkpoint")]
            keeps_connections: false,
        }
    }

    pub fn port(&self) -> &ReactorPort {
        &self.shared.reactors[self.reactor]
    }

    /// Whether a connection is one of this reactor.
    pub fn drives(&self, connection: ConnectionId) -> bool {
        self.shared.reactor_of(connection) == self.reactor
    }

    /// Records what happened to a client.
    pub fn note(&self, step: FlightStep, client: ClientId, session: u64) {
        if self.is_watched() {
            note(self.port().flight.as_ref(), self.now_ns, || Raw { session, ..Raw::new(step, client) });
        }
    }

    /// Calls the embedder's code.
    pub fn call<R>(&self, what: &'static str, call: impl FnOnce() -> R) -> Option<R> {
        self.shared.call(self.port(), what, None, call)
    }

    /// Tells the embedder.
    pub fn tell(&self, event: &Event) {
        self.shared.tell(Some(self.port()), event);
    }

    /// Tells the embedder that a connection is gone.
    pub fn tell_closed(&self, connection: ConnectionId) {
        self.call("ForeChannel::closed", || self.shared.fore.closed(connection));
    }

    pub fn client(&mut self, index: u32) -> Option<&mut Client> {
        self.clients.get_mut(index as usize)?.as_deref_mut()
    }

    /// Registers a client.
    pub fn add(&mut self, id: ClientId, backchannel: Backchannel) {
        self.put(Box::new(Client {
            id,
            backchannel,
            links: Vec::new(),
            session_count: 0,
            path: None,
            counted: Counters::default(),
            counted_elsewhere: Counters::default(),
            with_embedder: 0,
            tenant: self.shared.clients.get(id.index).map_or(0, |known| known.tenant.load(Relaxed) as u16),
            calls_out: 0,
            in_ring: false,
            deficit: Deficit::default(),
            touched: false,
            due: false,
            cancels: false,
            drains: Vec::new(),
            has_own_limits: false,
            tunings: self.settings.tunings,
            removed: false,
        }));
    }

    /// A client is here from now on.
    pub fn put(&mut self, client: Box<Client>) {
        let index = client.id.index as usize;
        if index >= self.clients.len() {
            self.clients.resize_with(index + 1, || None);
        }
        self.clients[index] = Some(client);
    }

    /// Whether a client is here.
    pub fn has(&self, index: u32) -> bool {
        self.clients.get(index as usize).is_some_and(Option::is_some)
    }

    /// Whether somebody wants to know the steps of callbacks, now: for [`Home::act_as`].
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::is_wanted)
    }

    /// Does something to a client's backchannel; the client is looked at before the turn ends. `None`: no such client.
    pub fn act<R>(&mut self, index: u32, f: impl FnOnce(&mut Client, &mut ClientHost<'_>) -> R) -> Option<R> {
        self.act_as(index, f)
    }

    /// As [`Home::act`], for what is done for each callback: compiled a second time, for when nobody watches.
    #[inline]
    pub fn act_as<const WATCHED: bool, R>(
        &mut self,
        index: u32,
        f: impl FnOnce(&mut Client, &mut ClientHost<'_, WATCHED>) -> R,
    ) -> Option<R> {
        self.visit(index, true, f)
    }

    /// Looks at a client, which does not notice. `None`: no such client.
    pub fn look<R>(&mut self, index: u32, f: impl FnOnce(&Client, &ClientHost<'_>) -> R) -> Option<R> {
        self.visit(index, false, |client, host: &mut ClientHost<'_>| f(client, host))
    }

    /// As [`Home::act`]. How much of a turn it took, in runs that it has ended; the look at a client counts as one.
    pub fn act_counted(&mut self, index: u32, f: impl FnOnce(&mut Client, &mut ClientHost<'_>)) -> u64 {
        let ended = self.act(index, |client, host| {
            let before = client.backchannel.run_count();
            f(client, host);
            before - client.backchannel.run_count()
        });
        1 + ended.unwrap_or(0)
    }

    #[inline]
    fn visit<const WATCHED: bool, R>(
        &mut self,
        index: u32,
        touch: bool,
        f: impl FnOnce(&mut Client, &mut ClientHost<'_, WATCHED>) -> R,
    ) -> Option<R> {
        let client = self.clients.get_mut(index as usize)?.as_deref_mut()?;
        if touch && !client.touched {
            client.touched = true;
            self.touched.push(index);
        }
        let known_to_all = self.shared.clients.get(index)?;
        let mut host = ClientHost {
            shared: &self.shared,
            port: &self.shared.reactors[self.reactor],
            hooks: &*self.shared.hooks,
            reactor: self.reactor,
            client: client.id,
            known_to_all,
            now_ns: self.now_ns,
            now_us: turn_us(self.now_ns),
            drain: self.drain.as_mut(),
            waits: &mut self.waits,
            owed: &mut self.owed,
            watch: self.watch.as_mut().filter(|watch| WATCHED && watch.is_wanted()),
            condemned: &mut self.condemned,
            delivered: 0,
            drains: std::mem::take(&mut client.drains),
            ending: None,
            of_session: &self.of_session,
        };
        let result = f(client, &mut host);
        client.drains = host.drains;
        // A drain looks at the count itself, at the end of each turn.
        let _ = known_to_all.in_flight.settle();
        if host.delivered != 0 {
            client.with_embedder = client.with_embedder.wrapping_add_signed(host.delivered);
            self.with_embedder = self.with_embedder.wrapping_add_signed(host.delivered);
        }
        Some(result)
    }

    /// A callback is about a session.
    pub fn belongs(&mut self, key: CallbackKey, session: SessionKey) {
        if self.of_session.len() == self.of_session.capacity() {
            // Those that are gone, before memory is taken for more.
            let slab = &self.shared.slab;
            self.of_session.retain(|index, (generation, _)| slab[*index].word().snapshot().generation() == *generation);
        }
        self.of_session.insert(key.index, (key.generation, session));
    }

    /// As [`Home::act`], for one incarnation of a client: a command that comes late for an earlier one does nothing.
    pub fn act_on<R>(&mut self, id: ClientId, f: impl FnOnce(&mut Client, &mut ClientHost<'_>) -> R) -> Option<R> {
        if self.is_here(id) { self.act(id.index, f) } else { None }
    }

    /// Whether this incarnation of a client is here.
    #[inline]
    pub fn is_here(&self, id: ClientId) -> bool {
        self.clients.get(id.index as usize).and_then(Option::as_ref).is_some_and(|client| client.id == id)
    }

    /// Says that a client is to be looked at before the turn ends.
    pub fn touch(&mut self, index: u32) {
        self.act(index, |_, _| ());
    }

    /// A run was given up before it began. Who waits for a run that has begun since is told the same, and may ask again.
    /// Its client may have waited for it alone, to be forgotten or to end a drain.
    pub fn abandoned(&mut self, callback: u32, client: u32) {
        let waiters = self.waits.take(&self.shared.reactors[self.reactor].waits, callback);
        self.waits.answer(waiters, |_| Err(WaitError::Idle));
        self.touch(client);
    }

    /// Nothing of the clients that `over` names runs any more, nor will it: answers who still waits for them.
    pub fn end_waits(&mut self, over: impl Fn(u32) -> bool) {
        let port = &self.shared.reactors[self.reactor];
        self.waits.end(&port.waits, over);
    }

    /// Counts runs and session slots. Of the `wanted` clients alone.
    pub fn census(&self, wanted: impl Fn(ClientId) -> bool) -> Census {
        let clients = self.clients.iter().flatten().filter(|client| wanted(client.id));
        let total = clients.fold(Census::default(), |total, client| total.plus(&client.census()));
        Census { returns_bytes: self.owed.memory_bytes() as u64, ..total }
    }

    /// Whether a client has yet to be counted in a census: it may have been, elsewhere, before it came.
    pub fn is_uncounted(&self, client: ClientId, census: u64) -> bool {
        self.shared.clients.get(client.index).is_some_and(|known| known.counted.swap(census, Relaxed) != census)
    }

    /// Runs of clients of this reactor that were taken up and not released.
    fn taken_up(&self) -> u64 {
        let stats = &self.port().stats;
        let here = stats.started.load(Relaxed).wrapping_sub(stats.released.load(Relaxed));
        here.wrapping_add_signed(self.moved_runs)
    }

    /// Whether a run of a client of this reactor is not completed.
    pub fn is_busy(&self) -> bool {
        // A run that was taken up and not released is counted by this reactor alone; only when there is none, those that
        // were accepted and have not arrived yet are looked for, which walks the table of clients.
        if self.taken_up() != 0 {
            return true;
        }
        self.shared.clients.each().any(|c| c.home() == self.reactor && c.in_flight.count() > 0)
    }

    /// Whether all that is not completed is on a completion queue, or was and has not been given back.
    pub fn is_all_with_embedder(&self) -> bool {
        if self.taken_up() != self.with_embedder {
            return false;
        }
        let of_this_home = self.shared.clients.each().filter(|c| c.home() == self.reactor);
        of_this_home.map(|c| c.in_flight.count()).sum::<u64>() == self.with_embedder
    }
}
