//! The opening for the simulator in `fuzz/`: reactors over any [`Io`], turned by hand in one thread.
//!
//! Behind the cargo feature `simulator`, and **not part of the public API**: it may change or go in any release. The
//! rest of the crate is the same code with and without the feature.

pub mod parts;
#[cfg(feature = "checkpoint")]
pub mod upgrade;

pub use crate::io::{ConnKey, Io, IoCounters, IoEvent, RecvBuf, SendBuf, Wait, Wake};

use crate::builder::share;
use crate::callback::CallbackSlab;
use crate::drain::DrainJob;
use crate::io::{BackendKind, BackendReport};
use crate::reactor::Reactor;
use crate::reaper::Reaper;
use crate::{
    BuildError, Builder, CallbackKey, CallbackOp, Census, ClientId, DrainReport, Error, ForeChannel, Hooks,
    InsertError, Runtime, SessionKey,
};
use std::io;
use std::sync::Arc;

/// A checkpoint with something of everything, always the same.
#[cfg(feature = "checkpoint")]
pub fn sample_checkpoint() -> Vec<u8> {
    crate::checkpoint::sample::sample().unwrap_or_default()
}

/// Makes the head of a checkpoint and its checksums right, whatever else is in it. `false`: it is too short.
#[cfg(feature = "checkpoint")]
pub fn mend_checkpoint(file: &mut [u8]) -> bool {
    crate::checkpoint::sample::mend(file)
}

/// Whether what was read would be written as the same again.
#[cfg(feature = "checkpoint")]
pub fn is_stable(checkpoint: &crate::Checkpoint) -> bool {
    crate::checkpoint::sample::is_stable(checkpoint)
}

/// Asked before each allocation of the growing table of callbacks, with the number of that attempt, from 0: `false`
/// makes it fail, as if there were no memory.
pub type GrowthGate = Box<dyn Fn(u64) -> bool + Send + Sync>;

/// A runtime whose reactors have no threads.
pub struct Simulation<I: Io> {
    /// As an embedder has it. What waits for reactors (`drain`, `shutdown`, `census`, `memory`) would wait for ever.
    pub runtime: Runtime,
    /// To be turned, in any order.
    pub reactors: Vec<ReactorHandle<I>>,
    reaper: Reaper,
}

impl<I: Io> Simulation<I> {
    /// A runtime with the builder's settings and one reactor for each of `ios`; `gate` makes allocations fail.
    pub fn new(
        builder: Builder,
        gate: GrowthGate,
        hooks: Arc<dyn Hooks>,
        fore: Arc<dyn ForeChannel>,
        ios: Vec<I>,
    ) -> Result<Self, BuildError> {
        let settings = builder.reactors(ios.len()).into_settings()?;
        let slab = CallbackSlab::new(settings.callbacks_max, ios.len()).with_growth_gate(gate);
        let mut shared = share(settings, hooks, fore)?;
        shared.slab = slab;
        let shared = Arc::new(shared);
        let name = ios.first().map_or("none", Io::name);
        let report = BackendReport { kind: BackendKind::Epoll, name, reason: "simulated".to_owned() };
        let runtime = Runtime::new(Arc::clone(&shared), report);
        let reactor = |(index, io)| ReactorHandle::new(Reactor::new(index, Arc::clone(&shared), io));
        let reactors = ios.into_iter().enumerate().map(reactor).collect();
        Ok(Simulation { runtime, reactors, reaper: Reaper::new() })
    }

    /// Lets the delegation reaper look around, as its thread does once in a second.
    pub fn reap(&mut self, now_ns: u64) {
        self.reaper.step(self.runtime.shared(), now_ns);
    }
}

/// As [`Runtime::insert`], of a runtime that is closed: to see whether every entry of its table can be used again.
pub fn insert_into_closed(
    runtime: &Runtime,
    client: ClientId,
    op: CallbackOp,
    cookie: u64,
) -> Result<CallbackKey, InsertError> {
    runtime.shared().insert_entry(client, op as u8, cookie)
}

/// A drain under way.
pub struct Drain(Arc<DrainJob>);

impl Drain {
    /// Begins what [`Runtime::drain`] does, with a deadline on the clock of the back ends.
    pub fn begin(runtime: &Runtime, deadline_ns: u64) -> Self {
        Drain(runtime.begin_drain(deadline_ns))
    }

    /// Begins what [`Runtime::drain_client`] does.
    pub fn begin_client(runtime: &Runtime, client: ClientId, deadline_ns: u64) -> Result<Self, Error> {
        runtime.begin_drain_client(client, deadline_ns).map(Drain)
    }

    /// Begins what [`Runtime::drain_session`] does.
    pub fn begin_session(runtime: &Runtime, session: SessionKey, deadline_ns: u64) -> Result<Self, Error> {
        runtime.begin_drain_session(session, deadline_ns).map(Drain)
    }

    /// What it left behind, once it has ended.
    pub fn poll(&self) -> Option<DrainReport> {
        self.0.poll()
    }
}

/// A reactor without a thread.
pub struct ReactorHandle<I: Io> {
    reactor: Reactor<I>,
    /// It stands still, and obeys what comes from here.
    #[cfg(feature = "checkpoint")]
    orders: Option<upgrade::Orders>,
}

impl<I: Io> ReactorHandle<I> {
    fn new(reactor: Reactor<I>) -> Self {
        ReactorHandle {
            reactor,
            #[cfg(feature = "checkpoint")]
            orders: None,
        }
    }
}

impl<I: Io> ReactorHandle<I> {
    /// The first half of a turn: how long the second half may wait. Unless the answer is [`Wait::No`] the reactor is
    /// parked from now on, and its waker is used when there is something to do.
    pub fn park(&mut self) -> Wait {
        self.reactor.park_or_go_on()
    }

    /// Lets `gate` decide, from now on, whether there is memory for a buffer: `false` makes an allocation fail.
    pub fn set_memory_gate(&mut self, gate: Box<dyn FnMut() -> bool + Send>) {
        self.reactor.set_memory_gate(gate);
    }

    /// The second half: takes what has happened, and acts on it.
    pub fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.reactor.turn_after(wait)?;
        #[cfg(feature = "checkpoint")]
        self.stand_still();
        Ok(())
    }

    /// After the runtime was dropped: whether every run has ended and every connection is closed.
    pub fn is_over(&self) -> bool {
        self.reactor.is_over()
    }

    /// Where the session slots are of the clients whose home this reactor is.
    pub fn census(&self) -> Census {
        self.reactor.census()
    }
}
