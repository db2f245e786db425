//! A runtime that stands still: its reactors do as they are ordered, and nothing happens otherwise.

use super::CheckpointError;
use super::pace::{Pace, block};
use super::record::LineRecord;
use super::restore::RestoredReactor;
use super::take::{CheckpointSize, Piece, STANDSTILL_NS, replace, take};
use super::undone::Exported;
use crate::command::Command;
use crate::hooks::Event;
use crate::registry::{ReactorPort, Shared};
use crate::runtime::Runtime;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Makes a reactor stand still.
pub(crate) struct Freeze {
    /// Told when it does.
    pub ready: Sender<usize>,
    /// It goes on when nobody can give any more.
    pub orders: Receiver<Order>,
}

/// To a reactor that stands still.
pub(crate) enum Order {
    /// As [`Command::Export`].
    Export { from: u32, answer: Sender<Piece> },
    /// Do what other threads and reactors have left here. Answers whether there was something.
    Settle { answer: Sender<bool> },
    /// Take the sockets out of the back end, until then. No answer: it takes longer.
    Lift { until_ns: u64, answer: Sender<Vec<Line>> },
    /// Put in what another process has left.
    Restore { restored: Box<RestoredReactor>, answer: Sender<()> },
    /// End, and leave everything to another process.
    Leave,
}

/// A connection that is to go to another process.
pub(crate) struct Line {
    pub socket: Arc<OwnedFd>,
    pub record: LineRecord,
}

const RUNNING: u8 = 0;
const STILL: u8 = 1;
const LEFT: u8 = 2;

/// Whether the reactors run.
#[derive(Debug, Default)]
pub(crate) struct Standstill {
    state: AtomicU8,
    /// What was asked for and told to be left undone.
    undone: AtomicU64,
}

impl Standstill {
    /// The reactors stand still, and answer nobody but who has suspended them.
    pub fn is_still(&self) -> bool {
        self.state.load(SeqCst) == STILL
    }

    /// Everything was left to another process: nothing ends here any more.
    pub fn has_left(&self) -> bool {
        self.state.load(SeqCst) == LEFT
    }

    fn leave(&self) {
        self.state.store(LEFT, SeqCst);
    }
}

impl Runtime {
    /// Makes the reactors stand still: nothing is sent, received or completed, and no hook is called, until the answer is
    /// dropped. For a checkpoint after which nothing happens any more, from which the next process goes on. What other
    /// threads ask for meanwhile waits, and what would wait for a reactor is [`Error::Suspended`](crate::Error::Suspended);
    /// the embedder takes care that its own state and the checkpoint belong together.
    pub fn suspend(&self) -> Result<Suspended, CheckpointError> {
        let pace = Pace::default();
        let until_ns = pace.now_ns() + STANDSTILL_NS;
        block(Suspended::begin(self, pace, until_ns))
    }
}

/// A runtime that stands still. It goes on when this is dropped, as if nothing had happened, but for the time that has
/// passed.
///
/// # Examples
///
/// ```
/// use ringback::{CheckpointError, Runtime};
/// use std::path::Path;
///
/// /// The last thing that a server does before the next version is started. If the file cannot be written, it goes on.
/// fn hand_over(runtime: &Runtime, file: &Path) -> Result<(), CheckpointError> {
///     let suspended = runtime.suspend()?;
///     suspended.checkpoint_to(file)?;
///     suspended.leave();
///     Ok(())
/// }
/// ```
#[must_use = "the runtime goes on when this is dropped"]
pub struct Suspended {
    runtime: Runtime,
    pace: Pace,
    orders: Vec<Sender<Order>>,
    /// What the last checkpoint says of entries.
    exported: Mutex<Option<Exported>>,
    left: bool,
}

impl Suspended {
    /// Suspends a runtime by then.
    pub(crate) async fn begin(runtime: &Runtime, pace: Pace, until_ns: u64) -> Result<Self, CheckpointError> {
        runtime.may_wait().map_err(|_| CheckpointError::Busy)?;
        let shared = runtime.shared();
        if shared.is_closed() || shared.standstill.state.compare_exchange(RUNNING, STILL, SeqCst, SeqCst).is_err() {
            return Err(CheckpointError::Busy);
        }
        let (ready, standing) = channel();
        let mut suspended =
            Suspended { runtime: runtime.clone(), pace, orders: Vec::new(), exported: Mutex::default(), left: false };
        // Until all stand still.
        let _held = shared.hold_moves(&suspended.pace, until_ns).await.ok_or(CheckpointError::Busy)?;
        for port in &shared.reactors {
            let (order, orders) = channel();
            suspended.orders.push(order);
            port.post(Command::Freeze(Freeze { ready: ready.clone(), orders }));
        }
        drop(ready);
        let mut missing: Vec<usize> = (0..shared.reactors.len()).collect();
        while let Some(&reactor) = missing.first() {
            match suspended.pace.hear(&standing, Some(until_ns)).await {
                Some(reactor) => missing.retain(|missing| *missing != reactor),
                None => return Err(CheckpointError::Reactor { reactor }),
            }
        }
        suspended.settle(until_ns).await?;
        Ok(suspended)
    }

    /// Gives each reactor an order; their answers.
    async fn ask<R>(
        &self,
        until_ns: u64,
        mut order: impl FnMut(usize, Sender<R>) -> Order,
    ) -> Result<Vec<R>, CheckpointError> {
        let ask = |(reactor, orders): (usize, &Sender<Order>)| {
            let (answer, answers) = channel();
            // A reactor that has ended drops the order, and the question with it.
            let _ = orders.send(order(reactor, answer));
            answers
        };
        let answers: Vec<Receiver<R>> = self.orders.iter().enumerate().map(ask).collect();
        let mut heard = Vec::new();
        for (reactor, answers) in answers.into_iter().enumerate() {
            let answer = self.pace.hear(&answers, Some(until_ns)).await;
            heard.push(answer.ok_or(CheckpointError::Reactor { reactor })?);
        }
        Ok(heard)
    }

    /// Lets the reactors do what they have left with each other, until nothing is between two of them.
    async fn settle(&self, until_ns: u64) -> Result<(), CheckpointError> {
        while self.ask(until_ns, |_, answer| Order::Settle { answer }).await?.contains(&true) {
            if self.pace.now_ns() > until_ns {
                return Err(CheckpointError::Busy);
            }
        }
        if self.runtime.shared().is_closed() { Err(CheckpointError::Busy) } else { Ok(()) }
    }

    /// Takes all sockets out of the back ends. They go in again when this is dropped.
    pub(crate) async fn lift(&self, until_ns: u64) -> Result<Vec<Line>, CheckpointError> {
        let lines = self.ask(until_ns, |_, answer| Order::Lift { until_ns, answer }).await?;
        Ok(lines.into_iter().flatten().collect())
    }

    /// Puts in what another process has left, in a runtime that has nothing yet.
    pub(crate) async fn restore(&self, reactors: Vec<RestoredReactor>) -> Result<(), CheckpointError> {
        let mut reactors = reactors.into_iter();
        let restore = |_, answer| {
            let restored = Box::new(reactors.next().unwrap_or_default());
            Order::Restore { restored, answer }
        };
        self.ask(self.pace.now_ns() + STANDSTILL_NS, restore).await.map(drop)
    }

    /// Writes a checkpoint after which nothing has happened, as long as this is [left](Suspended::leave) and not dropped.
    pub fn checkpoint(&self, out: &mut dyn Write) -> Result<CheckpointSize, CheckpointError> {
        block(self.checkpoint_with(&[], out))
    }

    /// With the connections that go along.
    pub(crate) async fn checkpoint_with(
        &self,
        lines: &[Line],
        out: &mut dyn Write,
    ) -> Result<CheckpointSize, CheckpointError> {
        let ask = |reactor: usize, from, answer| {
            // A reactor that has ended drops the order, and the question with it.
            let _ = self.orders[reactor].send(Order::Export { from, answer });
        };
        let mut exported = Exported::default();
        let size = take(self.runtime.shared(), &self.pace, &ask, lines, out, Some(&mut exported)).await?;
        *self.exported.lock().unwrap_or_else(PoisonError::into_inner) = Some(exported);
        Ok(size)
    }

    /// [`Suspended::checkpoint`] into a file, as [`Runtime::checkpoint_to`].
    pub fn checkpoint_to(&self, path: impl AsRef<Path>) -> Result<CheckpointSize, CheckpointError> {
        replace(path.as_ref(), |out| self.checkpoint(out))
    }

    /// Ends the reactors where they stand, and closes what they hold of connections. No run ends here and no hook is called for
    /// one: all that goes on in the process that restores the checkpoint. Calls into this runtime are answered
    /// [`Error::HandedOver`](crate::Error::HandedOver) from now on. What was asked for while it stood still, after the last
    /// checkpoint, was not done, even if a `try_run` was told that it was accepted:
    /// [`Event::LeftUndone`] tells of each call, and the answer is how many there were.
    pub fn leave(mut self) -> u64 {
        self.left = true;
        let shared = Arc::clone(self.runtime.shared());
        shared.standstill.leave();
        shared.closed.store(true, SeqCst);
        shared.reactors.iter().for_each(|port| shared.leave_undone(port));
        for order in self.orders.drain(..) {
            let _ = order.send(Order::Leave);
        }
        self.runtime.stop();
        // Reactors that have ended have done so: who has come in before that is seen below.
        for client in shared.clients.each() {
            let _ = client.in_flight.close();
        }
        if let Some(exported) = &*self.exported.lock().unwrap_or_else(PoisonError::into_inner) {
            exported.compare(&shared, |event| shared.tell_undone(&event));
        }
        shared.standstill.undone.load(SeqCst)
    }
}

impl Shared {
    /// Everything was left to another process: what a reactor was asked for is not done.
    pub fn leave_undone(&self, port: &ReactorPort) {
        while let Some(command) = port.commands.pop() {
            if let Some(event) = command.left_undone() {
                self.tell_undone(&event);
            }
            command.discard();
        }
    }

    fn tell_undone(&self, event: &Event) {
        self.standstill.undone.fetch_add(1, SeqCst);
        self.tell(None, event);
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        if !self.left {
            self.runtime.shared().standstill.state.store(RUNNING, SeqCst);
        }
    }
}

impl std::fmt::Debug for Suspended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Suspended").field(&self.runtime).finish()
    }
}
