//! One reactor: a thread that owns its connections, the clients whose home it is, their sessions, queues and timers.
//!
//! A turn goes: let the back end submit and wait, act on what arrived, run commands, pick up callbacks, look at timers,
//! encode what is ready (each client in its turn), queue one send per connection. No user code runs while a completion
//! queue is walked, and nothing here takes a lock or waits but in the one call of [`Io::turn`] (rule R7).
//!
//! - [`home`]: the clients. [`host`]: their running callbacks.
//! - [`connection`]: the connections; `receive.rs` feeds them, `transmit.rs` empties them.
//! - `checkpoint.rs`: what goes to another process, and comes from one.
//! - `commands.rs`: what other threads ask for; [`draining`]: above all, that runs end.
//! - [`moving`]: clients that come from other reactors, and go there.
//! - [`dial`]: connections to clients of minor version 0.
//! - `standstill.rs`: the reactor does as it is ordered, gives its sockets away, and takes over those of another process.
//! - [`wheel`]: the timers; `retry.rs` waits for what was refused. [`owed`]: recalls whose return is awaited.

#[cfg(feature = "checkpoint")]
mod checkpoint;
mod commands;
pub(crate) mod connection;
mod deficit;
mod dial;
mod draining;
mod home;
mod host;
mod inspect;
mod moving;
mod owed;
mod receive;
mod retry;
mod ring;
#[cfg(feature = "checkpoint")]
mod standstill;
#[cfg(test)]
mod tests;
mod transmit;
mod tune;
mod wheel;

use crate::callback::{CallbackEntry, Chain};
use crate::io::{ConnKey, Io, IoCounters, IoEvent, Wait};
use crate::keys::ClientId;
use crate::registry::{ReactorPort, Shared};
#[cfg(feature = "simulator")]
use crate::stats::Census;
use crate::stats::{count, count_by};
#[cfg(feature = "checkpoint")]
pub(crate) use checkpoint::{Offline, entry_record};
use connection::Lines;
use dial::Dialing;
use home::{Client, Home, WATCHABLE};
use host::{Alike, ClientHost};
pub(crate) use inspect::Described;
use inspect::Inspection;
use moving::Kept;
pub(crate) use moving::Moving;
#[cfg(feature = "checkpoint")]
pub(crate) use owed::left_ns;
use retry::Retry;
use ring::Ring;
use ringback_rpc::backchannel::Token;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
#[cfg(feature = "simulator")]
pub(crate) use wheel::Wheel as Timers;
use wheel::Wheel;

/// The clock as [`ReactorPort::turn_us`] and the entries hold it: it wraps after 71 minutes, and is never 0.
pub(crate) fn turn_us(now_ns: u64) -> u32 {
    (now_ns / 1000) as u32 | 1
}

/// Callbacks handed to their clients in one turn: a storm of a million must not keep replies waiting.
const SUBMITTED_PER_TURN: u64 = 4096;

/// Runs ended in one turn for reasons of their clients: deadlines, a drain; and as many that are cancelled. By as much as
/// one client may end at once it can be more.
const ENDED_PER_TURN: u64 = 4096;

/// Entries of a queue that are put into the order of their arrival in one turn, each a memory access that may miss the
/// cache.
const TURNED_PER_TURN: usize = 16_384;

/// Whether clients with something to send enter the ring.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settle {
    LetIn,
    /// They have just had their turn: one that could not send would go round and round.
    KeepOut,
}

/// A reactor over a back end.
pub(crate) struct Reactor<I: Io> {
    io: I,
    home: Home,
    lines: Lines,
    dialing: Dialing,
    wheel: Wheel,
    /// Clients with something to send and a way to send it, in round robin.
    ring: Ring,
    /// Those that their tenants hold back, and when they are let in again.
    held: Vec<(u16, u32)>,
    held_until_ns: u64,
    /// Callbacks taken off the inbox and not handed to their clients yet.
    submitted: Chain,
    /// Runs taken back from the embedder and not ended yet.
    returned: Chain,
    events: Vec<IoEvent>,
    /// What the back ends of earlier processes have counted.
    io_before: IoCounters,
    /// Clients whose timer has fired: kept for its memory alone.
    fired: Vec<u32>,
    /// Clients whose time has come.
    due: VecDeque<u32>,
    /// Clients that new settings have not come to.
    untuned: Range<u32>,
    /// Clients that the drain of all has not come to.
    undrained: Range<u32>,
    /// Clients with runs to cancel.
    cancels: VecDeque<u32>,
    inspections: VecDeque<Inspection>,
    /// Clients of which nothing runs any more: kept for its memory alone.
    over: Vec<u32>,
    /// Holds the ring back while there is no memory to encode into.
    memory: Retry,
    /// Connections whose send was refused, and when they are tried again.
    refused: Vec<ConnKey>,
    sending: Retry,
    stopping: bool,
    /// It is to stand still at the end of the turn.
    #[cfg(feature = "checkpoint")]
    freeze: Option<crate::checkpoint::suspend::Freeze>,
    /// What has happened while it stood still.
    #[cfg(feature = "checkpoint")]
    unhandled: Vec<IoEvent>,
    /// Everything was left to another process.
    left: bool,
    /// Clients that are to leave when they may; those of which one waits are here.
    put_off: Vec<(ClientId, usize)>,
    /// Clients that leave.
    departing: Vec<Moving>,
    /// What came for clients that are about to come, by their index.
    arriving: HashMap<u32, Kept>,
    /// Runs that were kept for clients that have come, and are taken up before those of the inbox.
    kept_runs: VecDeque<Chain>,
    /// The same of runs that the embedder has given back.
    kept_returned: VecDeque<Chain>,
}

impl<I: Io> Reactor<I> {
    pub fn new(index: usize, shared: Arc<Shared>, io: I) -> Self {
        let now_ns = io.now_ns();
        let fresh = shared.reactors[index].waker.set(io.waker()).is_ok();
        assert!(fresh, "reactor {index} was started twice");
        Reactor {
            io,
            lines: Lines::default(),
            dialing: Dialing::default(),
            wheel: Wheel::new(now_ns),
            home: Home::new(index, shared, now_ns),
            ring: Ring::default(),
            held: Vec::new(),
            held_until_ns: 0,
            submitted: Chain::default(),
            returned: Chain::default(),
            events: Vec::new(),
            io_before: IoCounters::default(),
            fired: Vec::new(),
            due: VecDeque::new(),
            untuned: 0..0,
            undrained: 0..0,
            cancels: VecDeque::new(),
            inspections: VecDeque::new(),
            over: Vec::new(),
            memory: Retry::default(),
            refused: Vec::new(),
            sending: Retry::default(),
            stopping: false,
            #[cfg(feature = "checkpoint")]
            freeze: None,
            #[cfg(feature = "checkpoint")]
            unhandled: Vec::new(),
            left: false,
            put_off: Vec::new(),
            departing: Vec::new(),
            arriving: HashMap::new(),
            kept_runs: VecDeque::new(),
            kept_returned: VecDeque::new(),
        }
    }

    fn port(&self) -> &ReactorPort {
        &self.home.shared.reactors[self.home.reactor]
    }

    /// Runs until the runtime is shut down, every run has ended and every connection is closed.
    pub fn run(mut self) -> io::Result<()> {
        while !self.is_over() {
            self.turn()?;
        }
        Ok(())
    }

    /// Told to stop, and everything has ended, but what waits for the embedder.
    pub fn is_over(&self) -> bool {
        let stopped = self.stopping && self.lines.is_empty() && self.departing.is_empty();
        self.left || stopped && self.home.is_all_with_embedder()
    }

    /// Lets `gate` decide whether there is memory for a staging buffer.
    #[cfg(feature = "simulator")]
    pub fn set_memory_gate(&mut self, gate: Box<dyn FnMut() -> bool + Send>) {
        self.lines.pool.gate = Some(gate);
    }

    /// Where the session slots of the clients are whose home this is.
    #[cfg(feature = "simulator")]
    pub fn census(&self) -> Census {
        self.home.census(|_| true)
    }

    /// One turn of the loop.
    pub fn turn(&mut self) -> io::Result<()> {
        let wait = self.park_or_go_on();
        self.turn_after(wait)?;
        #[cfg(feature = "checkpoint")]
        if let Some(freeze) = self.freeze.take() {
            self.stand_still(freeze)?;
        }
        Ok(())
    }

    /// The turn that waits as [`Reactor::park_or_go_on`] has answered.
    pub fn turn_after(&mut self, wait: Wait) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        let result = self.io.turn(wait, &mut events);
        self.port().parking.unpark();
        let _in_turn = self.port().begin_turn();
        self.tell_time(self.io.now_ns());
        for event in events.drain(..) {
            self.handle(event);
        }
        self.events = events;
        result?;
        self.pick_up();
        self.take_back();
        self.go_on_tuning();
        self.run_timers();
        self.go_on_inspecting();
        self.close_condemned();
        self.settle_touched(Settle::LetIn);
        self.dial();
        self.transmit();
        self.close_condemned();
        // Last, for the last run may end in any of the above, and nothing wakes a reactor that has nothing left to do.
        self.advance_drain();
        self.flush();
        self.port().stats.publish_io(self.io_counters());
        Ok(())
    }

    /// How long the turn may wait. Parks the reactor if there is nothing left to do: from then on whoever hands something
    /// over must wake it.
    pub fn park_or_go_on(&mut self) -> Wait {
        // What was refused is not tried before its time: until then it is nothing to do.
        let ring_at = (!self.ring.is_empty()).then(|| self.memory.at_ns());
        let refused_at = (!self.refused.is_empty()).then(|| self.sending.at_ns());
        let held_at = (!self.held.is_empty()).then_some(self.held_until_ns);
        let retry_at = ring_at.into_iter().chain(refused_at).chain(held_at).min();
        let busy = retry_at.is_some_and(|at| at <= self.home.now_ns)
            || !self.submitted.is_empty()
            || !self.returned.is_empty()
            || !self.kept_runs.is_empty()
            || !self.kept_returned.is_empty()
            || !self.due.is_empty()
            || !self.untuned.is_empty()
            || !self.undrained.is_empty()
            || !self.cancels.is_empty()
            || !self.inspections.is_empty()
            || self.lines.wants_flush()
            || !self.home.touched.is_empty();
        if busy || self.home.forget_returned() {
            return Wait::No;
        }
        let port = self.port();
        if !port.parking.prepare_park(|| port.has_nothing() && !self.may_send_off()) {
            return Wait::No;
        }
        port.turn_us.store(0, Relaxed);
        let due = [self.wheel.next_ns(), self.home.owed.next_ns(), self.dialing.next_ns(), retry_at];
        due.into_iter().flatten().min().map_or(Wait::Forever, Wait::Until)
    }

    fn handle(&mut self, event: IoEvent) {
        match event {
            IoEvent::Received { conn, buf } => {
                self.received(conn, &buf);
                self.io.recycle(buf);
            }
            IoEvent::Connected { conn, result } => self.connected(conn, result),
            IoEvent::Sent { conn, buf, result } => self.sent(conn, buf, result),
            IoEvent::Closed { conn, error } => {
                if error.is_some() {
                    count(&self.port().stats.connections_failed);
                }
                self.close(conn);
            }
            IoEvent::Detached { conn } => self.lines.forget(conn),
            // It was to stand still, and goes on before it did.
            IoEvent::Lifted { conn, socket } => self.put_down(conn, socket),
        }
    }

    /// Commands, and callbacks that were submitted, up to a limit per turn. The callbacks are taken off the inbox first:
    /// the command that registered their client was posted before they were, so it has run when they are looked at.
    fn pick_up(&mut self) {
        let shared = Arc::clone(&self.home.shared);
        let port = &shared.reactors[self.home.reactor];
        if self.submitted.is_empty() {
            self.submitted = self.kept_runs.pop_front().unwrap_or_else(|| port.inbox.take());
        }
        self.submitted.turn(&shared.slab, TURNED_PER_TURN);
        // Those that are here now: what they cause to be posted is for the next turn, and producers that do not stop must
        // not keep the reactor from its connections.
        self.look_at_departing();
        for _ in 0..port.commands.len() {
            let Some(command) = port.commands.pop() else { break };
            self.run_command(command);
        }
        self.go_on_moving();
        self.send_off();
        let (mut looked_at, mut started) = (0, 0);
        let mut submitted = std::mem::take(&mut self.submitted);
        while looked_at < SUBMITTED_PER_TURN
            && let Some(first) = submitted.first()
        {
            let taken = self.submit(&shared, first, &mut submitted, SUBMITTED_PER_TURN - looked_at);
            looked_at += taken.max(1);
            started += taken;
        }
        self.submitted = submitted;
        count_by(&port.stats.started, started);
        self.run_cancels();
    }

    /// Hands the `first` run of a chain to its client, and those behind it that are for the same one, up to `most`. How many
    /// those were. 0: that client is not here, and the run has been seen to.
    fn submit(&mut self, shared: &Shared, first: u32, chain: &mut Chain, most: u64) -> u64 {
        if WATCHABLE && self.home.is_watched() {
            self.submit_as::<true>(shared, first, chain, most)
        } else {
            self.submit_as::<false>(shared, first, chain, most)
        }
    }

    fn submit_as<const WATCHED: bool>(&mut self, shared: &Shared, first: u32, chain: &mut Chain, most: u64) -> u64 {
        let (mut started, mut cancelled) = (0, false);
        let client = shared.slab[first].client();
        let now_us = turn_us(self.home.now_ns);
        let taken = self.home.act_as(client, |Client { backchannel, .. }, host: &mut ClientHost<'_, WATCHED>| {
            let mut alike = Alike::default();
            chain.take_while(&shared.slab, |index, entry| {
                if started == most || entry.client() != client {
                    return false;
                }
                if entry.started_us() == 0 {
                    // Accepted while this reactor was parked, so just now.
                    entry.set_started_us(now_us);
                }
                entry.set_attempts(0);
                started += 1;
                // Who asks for its end after this look tells the reactor after this turn has picked it up.
                cancelled |= entry.word().is_cancelled();
                host.submit(backchannel, &mut alike, Token(index), entry);
                true
            });
            host.submit_alike(backchannel, alike);
        });
        if taken.is_none() {
            let _ = chain.pop(&shared.slab);
            self.pass_on(first, &shared.slab[first], false);
        }
        if cancelled {
            self.ask_cancel(client);
        }
        started
    }

    /// What the back end has counted, and those before it.
    fn io_counters(&self) -> IoCounters {
        self.io.counters().plus(self.io_before)
    }

    /// What time it is, until the next turn.
    fn tell_time(&mut self, now_ns: u64) {
        self.home.now_ns = now_ns;
        self.port().turn_us.store(turn_us(now_ns), Relaxed);
    }

    /// Ends runs that the embedder has taken off a completion queue and given back, up to a limit per turn. How many.
    fn take_back(&mut self) -> u64 {
        let shared = Arc::clone(&self.home.shared);
        if self.returned.is_empty() {
            let port = &shared.reactors[self.home.reactor];
            self.returned = self.kept_returned.pop_front().unwrap_or_else(|| port.returned.take());
        }
        self.returned.turn(&shared.slab, TURNED_PER_TURN);
        for taken in 0..SUBMITTED_PER_TURN {
            let Some(index) = self.returned.pop(&shared.slab) else { return taken };
            self.give_back(index, &shared.slab[index]);
        }
        SUBMITTED_PER_TURN
    }

    /// Ends a run that the embedder has given back.
    fn give_back(&mut self, index: u32, entry: &CallbackEntry) {
        if self.home.act(entry.client(), |_, host| host.finish_returned(Token(index))).is_none() {
            self.pass_on(index, entry, true);
        }
    }

    /// Lets the clients do what is due, as many as fit into a turn.
    fn run_timers(&mut self) {
        let now_ns = self.home.now_ns;
        self.wheel.expire(now_ns, &mut self.fired);
        for index in self.fired.drain(..) {
            if self.home.client(index).is_some_and(|client| !std::mem::replace(&mut client.due, true)) {
                self.due.push_back(index);
            }
        }
        let mut budget = ENDED_PER_TURN;
        while budget > 0
            && let (Some(index), Some(deadline_ns)) = (self.undrained.next(), self.home.drain_deadline_ns)
        {
            let drain =
                |client: &mut Client, host: &mut ClientHost<'_>| client.backchannel.drain(now_ns, deadline_ns, host);
            budget = budget.saturating_sub(self.home.act_counted(index, drain));
        }
        while budget > 0
            && let Some(index) = self.due.pop_front()
        {
            let took = self.home.act_counted(index, |client, host| {
                client.due = false;
                client.handle_timeout(now_ns, host);
            });
            budget = budget.saturating_sub(took);
        }
        self.home.tell_overdue();
        self.give_up_dialing();
    }

    /// Looks at each client that something happened to: arms its timer, publishes its status, and puts it into the ring
    /// if it has something to send.
    fn settle_touched(&mut self, settle: Settle) {
        while let Some(index) = self.home.touched.pop() {
            if self.home.client(index).is_some_and(|client| !client.drains.is_empty())
                && let Some(at) = self.home.advance_drains(index)
            {
                self.wheel.arm(index, at);
            }
            if self.home.client(index).is_some_and(|client| client.backchannel.has_minor0()) {
                self.seek_connections(index);
            }
            let Home { clients, shared, now_ns, reactor, .. } = &mut self.home;
            let Some(Some(client)) = clients.get_mut(index as usize) else { continue };
            client.touched = false;
            client.publish_counters(&shared.reactors[*reactor].stats);
            if client.tenant != 0 {
                client.publish_calls(shared);
            }
            if settle == Settle::LetIn && !client.in_ring && client.wants_transmit() {
                client.in_ring = true;
                self.ring.push_back(client.tenant, index);
            }
            match client.backchannel.poll_timeout() {
                // It has more to do than fits into one turn.
                Some(at) if at <= *now_ns => {
                    let known = std::mem::replace(&mut client.due, true);
                    self.due.extend((!known).then_some(index));
                }
                Some(at) => self.wheel.arm(index, at),
                None => {}
            }
            let Some(known) = shared.clients.get(index) else { continue };
            client.publish_status(known);
            // The first question spares an open client the fence of the second.
            if known.in_flight.is_closed() && known.in_flight.is_over() {
                self.over.push(index);
            }
        }
        if !self.over.is_empty() {
            self.end_clients();
        }
    }

    /// Nothing of these clients runs any more, nor will it: who waits for them is told, in one walk for all of them, and
    /// those that were removed are forgotten.
    fn end_clients(&mut self) {
        let mut over = std::mem::take(&mut self.over);
        over.sort_unstable();
        self.home.end_waits(|client| over.binary_search(&client).is_ok());
        for index in over.drain(..) {
            if self.home.client(index).is_some_and(|client| client.removed) {
                self.forget_client(index);
            }
        }
        self.over = over;
    }
}
