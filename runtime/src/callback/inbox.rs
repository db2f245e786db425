//! How callbacks reach their reactor from any thread: a queue linked through the entries, and the handshake that wakes
//! a reactor only when it sleeps.

use super::slab::{CallbackEntry, CallbackSlab, EntryStack};
use crate::sync::{AtomicBool, Ordering, fence};
use crossbeam::utils::CachePadded;

/// The queue of one reactor, or of an embedder that takes completions. An entry is pushed by who holds RUNNING and has
/// not queued it, so it is queued at most once, and the queue needs no memory and cannot overflow.
///
/// What the reactor's own thread pushes is kept apart from what comes from other threads: it needs no locked instruction,
/// and nobody has to be woken for it.
pub(crate) struct Inbox {
    others: EntryStack,
    own: EntryStack,
    /// Which of the two comes next, if there is something in both.
    own_is_next: AtomicBool,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Inbox { others: EntryStack::new(), own: EntryStack::new(), own_is_next: AtomicBool::new(true) }
    }

    /// Queues an entry. Then [`Parking::must_wake`] is to be asked, once for a batch.
    pub(crate) fn push(&self, slab: &CallbackSlab, index: u32) {
        self.others.push(slab, index);
    }

    /// Queues an entry on the thread that takes, between two takes and so while it does not sleep.
    pub(crate) fn push_own(&self, slab: &CallbackSlab, index: u32) {
        self.own.push_alone(slab, index);
    }

    /// Takes what is queued, to be [turned round](Chain::turn) before anything is popped: of one side, and of the other one
    /// the next time.
    pub(crate) fn take(&self) -> Chain {
        let own = !self.own.is_empty() && (self.own_is_next.load(Ordering::Relaxed) || self.others.is_empty());
        self.own_is_next.store(!own, Ordering::Relaxed);
        let side = if own { &self.own } else { &self.others };
        // The look spares an idle turn the swap.
        Chain { newest: if side.is_empty() { None } else { side.take_all() }, ..Chain::default() }
    }

    /// Takes what is queued, of one side, first come first.
    pub(crate) fn take_all(&self, slab: &CallbackSlab) -> Chain {
        let mut chain = self.take();
        chain.turn(slab, usize::MAX);
        chain
    }

    /// Whether nothing is queued: for [`Parking::prepare_park`].
    pub(crate) fn is_empty(&self) -> bool {
        self.others.is_empty() && self.own.is_empty()
    }
}

/// Entries that were taken from an [`Inbox`]. What is not popped in one turn may be kept for the next one.
#[derive(Debug, Default)]
#[must_use = "a callback in a chain that is dropped never ends"]
pub(crate) struct Chain {
    /// First come first.
    first: Option<u32>,
    /// As they come from the inbox: the newest of those that are not turned round yet. Then `first` is `None`.
    newest: Option<u32>,
    /// Those that are, while others are not.
    turned: Option<u32>,
}

impl Chain {
    /// Reverses up to `limit` entries in place, which reads each of them: whoever takes them needs them next anyway.
    pub(crate) fn turn(&mut self, slab: &CallbackSlab, limit: usize) {
        for _ in 0..limit {
            let Some(index) = self.newest else { return };
            let entry = &slab[index];
            self.newest = entry.link();
            entry.set_link(self.turned);
            self.turned = Some(index);
            if self.newest.is_none() {
                self.first = self.turned.take();
            }
        }
    }

    /// Takes the next entry; its link is free to be used.
    pub(crate) fn pop(&mut self, slab: &CallbackSlab) -> Option<u32> {
        let index = self.first?;
        self.first = slab[index].link();
        if let Some(next) = self.first {
            slab.prefetch(next);
        }
        Some(index)
    }

    /// The next entry.
    pub(crate) fn first(&self) -> Option<u32> {
        self.first
    }

    /// Takes entries for as long as they are `wanted`. Those that were taken are still linked in their order.
    #[inline]
    pub(crate) fn take_while(&mut self, slab: &CallbackSlab, mut wanted: impl FnMut(u32, &CallbackEntry) -> bool) {
        while let Some(index) = self.first {
            let entry = &slab[index];
            // Looked at first: a run that ends at once may be asked for again, and is in the inbox then.
            let next = entry.link();
            if !wanted(index, entry) {
                return;
            }
            if let Some(next) = next {
                slab.prefetch(next);
            }
            self.first = next;
        }
    }

    /// Puts an entry at the front, whose link the caller owns.
    pub(crate) fn push(&mut self, slab: &CallbackSlab, index: u32) {
        slab[index].set_link(self.first);
        self.first = Some(index);
    }

    /// Puts an entry, whose link the caller owns, behind all others. Of a chain from which nothing was turned or popped.
    pub(crate) fn keep(&mut self, slab: &CallbackSlab, index: u32) {
        debug_assert!(self.first.is_none() && self.turned.is_none(), "the order would be lost");
        slab[index].set_link(self.newest);
        self.newest = Some(index);
    }

    /// Whether all was popped.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.newest.is_none()
    }
}

/// Whether a reactor sleeps, or is about to: who brings it work wakes it only then, and only one does.
///
/// The reactor raises the flag and then looks for work; a producer leaves work and then looks at the flag. Each has a
/// sequentially consistent fence between the two, so that not both can miss the other (Dekker).
pub(crate) struct Parking(CachePadded<AtomicBool>);

impl Parking {
    pub(crate) fn new() -> Self {
        Parking(CachePadded::new(AtomicBool::new(false)))
    }

    /// To be asked after work was queued. `true`: the caller, and nobody else for this park, must wake the reactor.
    #[must_use = "a reactor that is not woken sleeps on its work"]
    pub(crate) fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst); // after the queueing, before the look at the flag; partner: `prepare_park`
        // The load keeps the line shared while the reactor is awake, and only who claims the wake writes. Relaxed: the
        // flag carries no data, the queues do.
        self.0.load(Ordering::Relaxed)
            && self.0.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The reactor announces that it will sleep. `is_empty` looks at everything that [`must_wake`](Parking::must_wake)
    /// is asked about. `false`: something arrived, do not sleep. `true`: sleep until woken, then
    /// [`unpark`](Parking::unpark).
    #[must_use = "a reactor that sleeps in spite of work sleeps on it"]
    pub(crate) fn prepare_park(&self, is_empty: impl FnOnce() -> bool) -> bool {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // after the flag, before the look at the queues; partner: `must_wake`
        let park = is_empty();
        if !park {
            self.unpark();
        }
        park
    }

    /// The reactor is awake, for whatever reason. A wake that was under way arrives all the same and finds it so.
    pub(crate) fn unpark(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
