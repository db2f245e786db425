//! The loop that drives all clients: one thread, one poll.

use super::client::{Client, Role, Stage};
use super::config::{Behaviour, SwarmConfig};
use super::link::{Link, Shared};
use super::tally::Tally;
use super::{OnProgress, Phase, Progress, SwarmError};
use mio::{Events, Poll, Token};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Bytes read at once: bigger turns fall out of the second-level cache.
const READ_BYTES: usize = 32 * 1024;
/// Events taken at once.
const EVENTS_MAX: usize = 1024;
/// How often progress is reported.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How often the clock's business is done: resends, renewals, reconnects.
const TICK: Duration = Duration::from_millis(20);
/// The same where slow clients hold answers back.
const TICK_SLOW: Duration = Duration::from_millis(1);
/// Connections that are being made at once: a burst that every listen backlog takes.
const CONNECTING_MAX: usize = 128;
/// How long [`Engine::leave`] waits for the server.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// The clients and their sockets.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: SwarmConfig,
    pub(crate) tally: Tally,
    links: Vec<Link>,
    /// Links before this one have begun to connect.
    connected: usize,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    start: Instant,
    next_tick: Instant,
    next_progress: Instant,
    /// Files asked for, over all calls of [`Engine::plan_grant`].
    planned: u64,
}

/// A reading of a phase: done, of how many.
pub(crate) type Measure<'a> = &'a dyn Fn(&Engine) -> (u64, u64);

impl Engine {
    pub(crate) fn new(config: SwarmConfig) -> Result<Engine, SwarmError> {
        let poll = Poll::new().map_err(|source| SwarmError::Io { what: "cannot make an epoll instance", source })?;
        let incarnation = incarnation();
        let clients = config.clients + u32::from(config.trigger);
        let links = (0..clients).map(|index| {
            let role = if index < config.clients { Role::Holder } else { Role::Trigger };
            Link::new(Client::new(index, role, &config, incarnation), Token(index as usize))
        });
        let now = Instant::now();
        Ok(Engine {
            links: links.collect(),
            config,
            tally: Tally::default(),
            connected: 0,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            buffer: vec![0; READ_BYTES],
            start: now,
            next_tick: now,
            next_progress: now,
            planned: 0,
        })
    }

    /// Links, and what they share.
    fn parts(&mut self) -> (&mut [Link], Shared<'_>) {
        let shared = Shared {
            now_ns: self.start.elapsed().as_nanos() as u64,
            config: &self.config,
            tally: &mut self.tally,
            registry: self.poll.registry(),
            buffer: &mut self.buffer,
        };
        (&mut self.links, shared)
    }

    /// One turn: waits for events or the clock, and handles them.
    pub(crate) fn turn(&mut self) -> Result<(), SwarmError> {
        let wait = self.next_tick.saturating_duration_since(Instant::now());
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(e) if e.kind() != std::io::ErrorKind::Interrupted => {
                return Err(SwarmError::Io { what: "cannot wait for events", source: e });
            }
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let (links, mut shared) = self.parts();
        for event in &events {
            if let Some(link) = links.get_mut(event.token().0) {
                link.ready(event.is_readable() || event.is_read_closed() || event.is_error(), &mut shared);
            }
        }
        self.events = events;
        self.tick();
        Ok(())
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + if self.config.slow_clients > 0 { TICK_SLOW } else { TICK };
        let (links, mut shared) = self.parts();
        links.iter_mut().for_each(|link| link.tick(&mut shared));
    }

    /// Runs turns until `end` says so or the callback breaks off. Where `stalls`, an end without progress is an error.
    pub(crate) fn run(
        &mut self,
        phase: Phase,
        stalls: bool,
        measure: Measure<'_>,
        end: &dyn Fn(&Engine) -> bool,
        on_progress: OnProgress<'_>,
    ) -> Result<(), SwarmError> {
        let (mut last, mut moved) = (measure(self), Instant::now());
        loop {
            let over = end(self);
            let now = Instant::now();
            if over || now >= self.next_progress {
                self.next_progress = now + PROGRESS_EVERY;
                let (done, total) = measure(self);
                if (done, total) != last {
                    (last, moved) = ((done, total), now);
                }
                let told = on_progress(&Progress { phase, done, total, tally: &self.tally });
                if over || told == ControlFlow::Break(()) {
                    return Ok(());
                }
                let waited = now - moved;
                if stalls && waited >= self.config.stall_max {
                    return Err(SwarmError::Stalled { phase, done, total, waited });
                }
            }
            self.turn()?;
        }
    }

    /// Begins as many connections as may be made at once.
    pub(crate) fn connect_more(&mut self) -> Result<(), SwarmError> {
        let server = self.config.server;
        if let Some(source) = self.links.iter_mut().find_map(|link| link.connect_error.take()) {
            return Err(SwarmError::Connect { server, source });
        }
        if self.connected == self.links.len() {
            return Ok(());
        }
        let mut connecting = self.links.iter().filter(|link| link.is_connecting()).count();
        let mut next = self.connected;
        let (links, shared) = self.parts();
        while connecting < CONNECTING_MAX && next < links.len() {
            links[next].connect(&shared).map_err(|source| SwarmError::Connect { server, source })?;
            connecting += 1;
            next += 1;
        }
        self.connected = next;
        Ok(())
    }

    /// Whether a connection could not be made.
    pub(crate) fn has_connect_error(&self) -> bool {
        self.links.iter().any(|link| link.connect_error.is_some())
    }

    /// Clients that are set up, of how many.
    pub(crate) fn set_up(&self) -> (u64, u64) {
        let ready = self.links.iter().filter(|link| link.client.stage == Stage::Ready).count();
        (ready as u64, self.links.len() as u64)
    }

    /// The first client that gave up, as an error.
    pub(crate) fn failure(&self) -> Result<(), SwarmError> {
        match self.links.iter().find(|link| link.client.stage == Stage::Failed) {
            Some(link) => {
                let reason = self.tally.failures.first().cloned().unwrap_or_default();
                Err(SwarmError::Client { client: link.client.index, reason })
            }
            None => Ok(()),
        }
    }

    /// Gives every holder its share of `delegations` to open.
    pub(crate) fn plan_grant(&mut self, delegations: u64) {
        let (before, after) = (self.planned, self.planned + delegations);
        self.planned = after;
        for link in self.links.iter_mut().filter(|link| link.client.role == Role::Holder) {
            let client = &mut link.client;
            let from = self.config.share(client.index, before);
            let count = self.config.share(client.index, after) - from;
            client.delegations.reserve(count as usize);
            client.opens.add(client.index, from, count);
            client.opens.begin();
        }
    }

    /// Gives the trigger every file that was opened so far.
    pub(crate) fn plan_trigger(&mut self) -> bool {
        let (config, planned) = (&self.config, self.planned);
        let Some(link) = self.links.iter_mut().find(|link| link.client.role == Role::Trigger) else {
            return false;
        };
        let opens = &mut link.client.opens;
        (0..config.clients).for_each(|index| opens.add(index, 0, config.share(index, planned)));
        opens.begin();
        true
    }

    pub(crate) fn begin_recalls(&mut self) {
        let cuts = self.config.cuts;
        let (links, shared) = self.parts();
        links
            .iter_mut()
            .filter(|link| link.client.role == Role::Holder)
            .for_each(|link| link.begin_recalls(cuts, shared.registry));
    }

    /// Whether every client but the dead ones has nothing to do any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.links.iter().all(|link| link.client.is_idle() || link.client.behaves() == Behaviour::Dead || !link.lives())
    }

    /// Whether everything that live clients had to say is with the kernel.
    pub(crate) fn is_quiet(&self) -> bool {
        self.links.iter().all(|link| link.is_quiet() || link.client.behaves() == Behaviour::Dead || !link.lives())
    }

    /// Starts what the plan says, without waiting for an event.
    pub(crate) fn pump(&mut self) {
        let (links, mut shared) = self.parts();
        for link in links.iter_mut().filter(|link| link.client.stage == Stage::Ready) {
            link.turn(&mut shared, Client::pump);
            link.flush(&mut shared);
        }
    }

    /// Destroys sessions and client ids of clients that still talk, and waits for that a short while.
    pub(crate) fn leave(&mut self) {
        let (links, mut shared) = self.parts();
        for link in links.iter_mut().filter(|link| link.client.stage == Stage::Ready) {
            if link.client.behaves() != Behaviour::Dead {
                link.turn(&mut shared, |client, turn| client.begin(super::setup::Step::DestroySession, turn));
                link.flush(&mut shared);
            }
        }
        let deadline = Instant::now() + LEAVE_MAX;
        let leaving = |link: &Link| matches!(link.client.stage, Stage::Step(_)) && !link.is_connecting();
        while self.links.iter().any(leaving) && Instant::now() < deadline {
            if self.turn().is_err() {
                return;
            }
        }
    }
}

impl Link {
    /// Whether the client may still act.
    fn lives(&self) -> bool {
        !matches!(self.client.stage, Stage::Failed | Stage::Gone)
    }
}

/// A verifier that no earlier run had, so that the server drops the state of one that ended badly (RFC 8881 section
/// 18.35.3).
fn incarnation() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_nanos() as u64)
}
