//! The delegation reaper: a thread that keeps the number of delegations within a [`Budget`], and makes room when memory is
//! short. It looks at the counts that the table of clients keeps, has [`plan`] say what is to be done, and does it:
//! CB_RECALL_ANY is a callback of the runtime's own ([`own`]); the single recalls are the embedder's, who knows which
//! delegation was used when.
//!
//! A thread and not a reactor, because it walks all clients, allocates, and calls into the embedder, where locks may be
//! waited for; none of that is for a reactor (R7). [`pressure`] is polled by this thread for the same reason: what follows
//! from it happens here. It sleeps for ever while there is no budget and no pressure, and else looks around once in a
//! second.

mod budget;
mod own;
mod plan;
mod pressure;

pub use budget::Budget;
pub(crate) use own::Own;
pub(crate) use pressure::{Pressure, advice};

use crate::callback::CallbackKey;
use crate::guard::guard;
use crate::hooks::Event;
use crate::io::monotonic_ns;
use crate::keys::ClientId;
use crate::registry::Shared;
use crate::stats::Stats;
use crate::threads;
use plan::{Holding, Order, Planner};
use ringback_rpc::nfs4::callback::CallbackOp;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// How often it looks around while there is a budget.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The reaper as other threads see it.
pub(crate) struct ReaperPort {
    /// Delegations that there may be.
    budget: AtomicU64,
    /// A delegation was refused because there are as many as there may be.
    room_wanted: AtomicBool,
    /// The embedder says that memory is short.
    pressed: AtomicBool,
    /// Clients are to be asked to keep so many in all; [`u64::MAX`]: they are not.
    come_down: AtomicU64,
    stopping: AtomicBool,
    /// An eventfd; none without a thread.
    waker: OnceLock<OwnedFd>,
    asked: AtomicU64,
    ignored: AtomicU64,
    recalled: AtomicU64,
    pressures: AtomicU64,
    panics: AtomicU64,
}

impl ReaperPort {
    pub fn new(budget: Budget) -> Self {
        ReaperPort {
            budget: AtomicU64::new(budget.get()),
            room_wanted: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
            come_down: AtomicU64::new(u64::MAX),
            stopping: AtomicBool::new(false),
            waker: OnceLock::new(),
            asked: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            recalled: AtomicU64::new(0),
            pressures: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    fn wake(&self) {
        if let Some(eventfd) = self.waker.get() {
            // It is open, and a counter that is full is readable.
            let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
        }
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stopping.store(true, Release);
        self.wake();
    }

    pub fn set_budget(&self, budget: Budget) {
        self.budget.store(budget.get(), Relaxed);
        self.wake();
    }

    /// It is looked at within a second: no need to wake anybody under the embedder's locks.
    pub fn want_room(&self) {
        if !self.room_wanted.load(Relaxed) {
            self.room_wanted.store(true, Relaxed);
        }
    }

    pub fn press(&self) {
        self.pressed.store(true, Release);
        self.wake();
    }

    pub fn come_down(&self, keep: u64) {
        self.come_down.store(keep, Relaxed);
        self.wake();
    }

    /// Code of the embedder panicked on a thread that is no reactor's.
    pub fn count_panic(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    pub fn add_to(&self, total: &mut Stats) {
        total.reaper_asked += self.asked.load(Relaxed);
        total.reaper_ignored += self.ignored.load(Relaxed);
        total.reaper_recalled += self.recalled.load(Relaxed);
        total.memory_pressures += self.pressures.load(Relaxed);
        total.embedder_panics += self.panics.load(Relaxed);
    }
}

/// The reaper, apart from its thread.
pub(crate) struct Reaper {
    planner: Planner,
    /// The CB_RECALL_ANY that were sent and may be in flight.
    sent: HashMap<ClientId, CallbackKey>,
}

impl Reaper {
    pub fn new() -> Self {
        Reaper { planner: Planner::new(u64::MAX), sent: HashMap::new() }
    }

    /// Looks around, and does what is to be done.
    pub fn step(&mut self, shared: &Shared, now_ns: u64) {
        let port = &shared.reaper;
        let pressed = port.pressed.swap(false, Acquire);
        let keep = port.come_down.swap(u64::MAX, Relaxed);
        let room_wanted = port.room_wanted.swap(false, Relaxed);
        self.planner.budget = port.budget.load(Relaxed);
        if shared.is_closed() || !(pressed || keep < u64::MAX || self.planner.is_at_work()) {
            return;
        }
        self.sent.retain(|_, key| shared.is_there(*key));
        let holdings = self.holdings(shared);
        if pressed {
            let held = holdings.iter().map(|h| u64::from(h.held)).sum();
            let keep = self.planner.press(now_ns, held);
            port.pressures.fetch_add(1, Relaxed);
            shared.tell(None, &Event::MemoryPressure { held, keep });
        }
        if keep < u64::MAX {
            self.planner.come_down(now_ns, keep);
        }
        let orders = self.planner.plan(now_ns, room_wanted, &holdings);
        let clients = orders.into_iter().map(|order| u32::from(self.carry_out(shared, order))).sum();
        if keep < u64::MAX {
            shared.tell(None, &Event::RecallAnySent { keep, clients });
        }
    }

    /// Who holds what.
    fn holdings(&self, shared: &Shared) -> Vec<Holding> {
        let clients = (0..).zip(shared.clients.each()).filter(|(_, known)| known.live.load(SeqCst));
        let holding = |(index, known): (u32, &crate::registry::ClientShared)| {
            let client = ClientId { index, generation: known.generation() };
            Holding { client, held: known.entries.delegations(), pending: self.sent.contains_key(&client) }
        };
        clients.map(holding).filter(|holding| holding.held > 0).collect()
    }

    /// Does what is ordered; whether a client was asked.
    fn carry_out(&mut self, shared: &Shared, order: Order) -> bool {
        let port = &shared.reaper;
        match order {
            Order::Ask { client, held, keep } => {
                // Without room for a callback it is as if the client did not heed it.
                let Ok(key) = shared.send_own(client, CallbackOp::RecallAny, keep.into(), None) else { return false };
                self.sent.insert(client, key);
                port.asked.fetch_add(1, Relaxed);
                shared.tell(None, &Event::AskedToKeep { client, held, keep });
                true
            }
            Order::Recall { client, held, keep, count } => {
                let recall = || shared.hooks.recall_least_recently_used(client, count as usize);
                let recalled = call(shared, "Hooks::recall_least_recently_used", recall).unwrap_or(0);
                let recalled = u32::try_from(recalled).unwrap_or(u32::MAX).min(count);
                self.planner.recalled(client, recalled);
                port.ignored.fetch_add(1, Relaxed);
                port.recalled.fetch_add(recalled.into(), Relaxed);
                shared.tell(None, &Event::AskedInVain { client, held, keep, recalled });
                false
            }
        }
    }
}

/// Calls the embedder. `None`: it panicked, which is counted and told.
fn call<R>(shared: &Shared, what: &'static str, call: impl FnOnce() -> R) -> Option<R> {
    let answer = shared.call_hook(|| guard(call));
    if answer.is_none() {
        shared.reaper.count_panic();
        shared.tell(None, &Event::Panicked { call: what, key: None });
    }
    answer
}

/// Starts the thread.
pub(crate) fn start(shared: &Arc<Shared>, pressure: Option<Pressure>) -> io::Result<JoinHandle<()>> {
    let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let fresh = shared.reaper.waker.set(waker).is_ok();
    assert!(fresh, "the reaper was started twice");
    let shared = Arc::clone(shared);
    let name = format!("{}-reaper", shared.settings.name);
    threads::spawn(name, move || run(&shared, pressure))
}

fn run(shared: &Shared, mut pressure: Option<Pressure>) {
    let Some(waker) = shared.reaper.waker.get() else { unreachable!("set by `start`") };
    let mut reaper = Reaper::new();
    // A budget that was set at the beginning is one already.
    reaper.planner.budget = shared.reaper.budget.load(Relaxed);
    while !shared.reaper.stopping.load(Acquire) {
        let timeout = reaper.planner.is_at_work().then_some(&LOOK);
        match wait(waker, pressure.as_ref(), timeout) {
            Signal::Pressure => shared.reaper.pressed.store(true, Release),
            Signal::PressureLost => {
                pressure = None;
                shared.tell(None, &Event::MemoryPressureLost);
            }
            Signal::None => {}
        }
        if !shared.reaper.stopping.load(Acquire) {
            reaper.step(shared, monotonic_ns());
        }
    }
}

enum Signal {
    None,
    Pressure,
    PressureLost,
}

/// Sleeps until there is something to look at.
fn wait(waker: &OwnedFd, pressure: Option<&Pressure>, timeout: Option<&Timespec>) -> Signal {
    let mut fds = vec![PollFd::new(waker, PollFlags::IN)];
    fds.extend(pressure.map(|file| PollFd::new(file, PollFlags::PRI)));
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => panic!("the reaper cannot wait: {error}"),
    }
    // Fails if it was not readable.
    let _ = rustix::io::read(waker, &mut [0u8; 8]);
    match fds.get(1).map(PollFd::revents) {
        Some(events) if events.intersects(PollFlags::ERR | PollFlags::NVAL) => Signal::PressureLost,
        Some(events) if events.contains(PollFlags::PRI) => Signal::Pressure,
        _ => Signal::None,
    }
}
