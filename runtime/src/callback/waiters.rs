//! Who waits for the end of a run, and how the finisher finds them.
//!
//! An entry has no room for waiters, only the flag WAKE. They come in through a queue ([`Arrivals`]) from any thread, and
//! stand in a table ([`WaitTable`]) that belongs to the reactor that finishes the run: it takes no lock to find them, and
//! looks only if WAKE was set (R7).
//!
//! # No wake-up is lost, and nobody gets an old result
//!
//! A waiter
//!
//! 1. takes `wait` on the word: a run is going on and not decided, so what ends from here on is no older than the request;
//! 2. queues itself;
//! 3. takes `wait` once more: a run, that one or a later one, is still not decided.
//!
//! The finisher takes `settle`, which says whether WAKE is set; then it empties the queue, takes the waiters of the
//! callback off the table, takes `finish`, and answers them.
//!
//! If step 3 has found a run undecided, it comes before the `settle` of that run in the order of the word, so WAKE is
//! seen, and step 2 comes before the finisher's look at the queue: the waiter is found. If not, the finisher may have
//! looked before step 2. Then the waiter was not answered, and takes what step 3 said: for all that anybody can tell, it
//! asked only then. The finisher never takes a waiter that came for a later run, for no later run begins before `finish`.
//! It may take one that came for the callback that had the entry before and has since been removed: its key tells, and it
//! is answered as stale.
//!
//! One run is never finished by a reactor: that of a winner who found its client closed, and abandoned it. Who waits for
//! that one is answered when nothing of the client runs any more, see [`InFlight::is_over`](super::inflight::InFlight).

use super::CallbackKey;
use super::promise::Promise;
use super::state::{StateWord, Wait};
use crate::sync::{AtomicBool, AtomicUsize, Ordering, Queue};
use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;

/// Waiters that left before their run ended, of one reactor, before it is asked to forget them.
pub(crate) const DEPARTED_MAX: usize = 1024;

/// One waiter. `T` is what it is told.
pub(crate) struct Waiter<T> {
    key: CallbackKey,
    client: u32,
    promise: Promise<T>,
    departed: AtomicBool,
}

impl<T> Waiter<T> {
    /// The answer, or else `waker` is woken when there is one.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<&T> {
        self.promise.poll(waker)
    }

    fn answer(&self, answer: T) {
        self.promise.keep(answer);
    }
}

/// Where waiters queue for one reactor.
pub(crate) struct Arrivals<T> {
    queue: Queue<Arc<Waiter<T>>>,
    departed: AtomicUsize,
}

impl<T> Arrivals<T> {
    pub(crate) fn new() -> Self {
        Arrivals { queue: Queue::new(), departed: AtomicUsize::new(0) }
    }

    /// Begins to wait for the current run of a callback. The error says what the word said instead of
    /// [`Wait::Registered`].
    pub(crate) fn register(&self, word: &StateWord, key: CallbackKey, client: u32) -> Result<Arc<Waiter<T>>, Wait> {
        match word.wait(key.generation) {
            Wait::Registered => {}
            other => return Err(other),
        }
        let waiter = Arc::new(Waiter { key, client, promise: Promise::new(), departed: AtomicBool::new(false) });
        self.queue.push(Arc::clone(&waiter));
        match word.wait(key.generation) {
            Wait::Registered => Ok(waiter),
            _ if waiter.promise.get().is_some() => Ok(waiter),
            other => {
                // It stays in the queue until somebody looks there, and is dropped then.
                waiter.departed.store(true, Ordering::Relaxed);
                Err(other)
            }
        }
    }

    /// The reactor has ended, and nobody else will look: answers all who are queued.
    #[cfg(not(loom))]
    pub(crate) fn end(&self, over: &T)
    where
        T: Clone,
    {
        while let Some(waiter) = self.queue.pop() {
            waiter.answer(over.clone());
        }
    }

    /// A waiter that may not have been answered goes away. `true`: many have, the reactor should
    /// [forget](WaitTable::end) them.
    pub(crate) fn depart(&self, waiter: &Waiter<T>) -> bool {
        waiter.departed.store(true, Ordering::Relaxed);
        waiter.promise.get().is_none()
            && (self.departed.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(DEPARTED_MAX)
    }
}

/// The waiters of one reactor, by callback. Grows to as many as ever waited at once, and then allocates no more.
pub(crate) struct WaitTable<T: Clone> {
    /// The first waiter for each callback, by its index.
    first: HashMap<u32, usize>,
    nodes: Slab<Node<T>>,
    /// For whom no run will end any more.
    over: T,
}

struct Node<T> {
    waiter: Arc<Waiter<T>>,
    next: Option<usize>,
}

/// Waiters that were taken off a [`WaitTable`].
#[derive(Debug)]
#[must_use = "a waiter that is not answered waits for ever"]
pub(crate) struct Taken(Option<usize>);

impl<T: Clone> WaitTable<T> {
    /// An empty table. Who is in it when it is dropped is told `over`.
    pub(crate) fn new(over: T) -> Self {
        WaitTable { first: HashMap::new(), nodes: Slab::new(), over }
    }

    fn insert(&mut self, waiter: Arc<Waiter<T>>) {
        if !waiter.departed.load(Ordering::Relaxed) {
            let index = waiter.key.index;
            let next = self.first.get(&index).copied();
            let at = self.nodes.insert(Node { waiter, next });
            self.first.insert(index, at);
        }
    }

    fn let_in(&mut self, arrivals: &Arrivals<T>) {
        // No more than there are now: others may come for as long as we look.
        for _ in 0..arrivals.queue.len() {
            let Some(waiter) = arrivals.queue.pop() else { return };
            self.insert(waiter);
        }
    }

    /// Takes off all who wait for the run of a callback that is settled and not finished.
    pub(crate) fn take(&mut self, arrivals: &Arrivals<T>, index: u32) -> Taken {
        self.let_in(arrivals);
        Taken(self.first.remove(&index))
    }

    /// Answers waiters, after `finish`. `told` says what who waits for a callback is told: it need not be the one that
    /// the entry holds now.
    pub(crate) fn answer(&mut self, taken: Taken, told: impl Fn(CallbackKey) -> T) {
        let mut next = taken.0;
        while let Some(at) = next {
            let node = self.nodes.remove(at);
            next = node.next;
            node.waiter.answer(told(node.waiter.key));
        }
    }

    /// Tells all who wait for a callback of a client that `is_over` names that nothing of it runs any more, and forgets
    /// those who left. Walks the table.
    pub(crate) fn end(&mut self, arrivals: &Arrivals<T>, is_over: impl Fn(u32) -> bool) {
        self.let_in(arrivals);
        let WaitTable { first, nodes, over } = self;
        first.clear();
        nodes.retain(|at, node| {
            if is_over(node.waiter.client) {
                node.waiter.answer(over.clone());
                return false;
            }
            let stays = !node.waiter.departed.load(Ordering::Relaxed);
            if stays {
                node.next = first.insert(node.waiter.key.index, at);
            }
            stays
        });
    }

    /// Takes off all who wait for a callback of a client. Walks the table.
    pub(crate) fn extract(&mut self, arrivals: &Arrivals<T>, client: u32) -> Vec<Arc<Waiter<T>>> {
        self.let_in(arrivals);
        let mut extracted = Vec::new();
        self.first.clear();
        let (first, nodes) = (&mut self.first, &mut self.nodes);
        nodes.retain(|at, node| {
            if node.waiter.client == client {
                extracted.push(Arc::clone(&node.waiter));
                return false;
            }
            node.next = first.insert(node.waiter.key.index, at);
            true
        });
        extracted
    }

    /// Lets in who was taken off another table.
    pub(crate) fn admit(&mut self, waiters: Vec<Arc<Waiter<T>>>) {
        waiters.into_iter().for_each(|waiter| self.insert(waiter));
    }

    /// How many wait, as far as they were let in.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }
}

impl<T: Clone> Drop for WaitTable<T> {
    fn drop(&mut self) {
        for (_, node) in &self.nodes {
            node.waiter.answer(self.over.clone());
        }
    }
}
