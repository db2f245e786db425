//! The only switch between std and loom: what the state word, the slab and the queues are made of.

#[cfg(loom)]
use loom::sync as imp;
#[cfg(not(loom))]
use std::sync as imp;

pub(crate) use imp::Mutex;
pub(crate) use imp::MutexGuard;
pub(crate) use imp::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
use std::sync::{PoisonError, TryLockError};

/// Locks `mutex`. Poison is ignored: no guarded section of this crate calls foreign code or leaves its data torn.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `mutex` if nobody holds it; never waits.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A queue from any thread to any thread. Under loom each operation is one step (crossbeam's own tests look inside), and
/// its length is known as late as a relaxed load may tell it: who must not miss a push has an order of his own.
#[cfg(not(loom))]
pub(crate) struct Queue<T>(crossbeam::queue::SegQueue<T>);
#[cfg(loom)]
pub(crate) struct Queue<T> {
    values: Mutex<std::collections::VecDeque<T>>,
    len: AtomicUsize,
}

#[cfg(not(loom))]
impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Queue(crossbeam::queue::SegQueue::new())
    }

    pub(crate) fn push(&self, value: T) {
        self.0.push(value);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.0.pop()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(loom)]
impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Queue { values: Mutex::new(std::collections::VecDeque::new()), len: AtomicUsize::new(0) }
    }

    pub(crate) fn push(&self, value: T) {
        let mut values = lock(&self.values);
        values.push_back(value);
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let mut values = lock(&self.values);
        let value = values.pop_front()?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }
}

/// A place where one thread leaves a value for another one: a pointer (`Box`, `Arc`) that is swapped, so that neither waits.
#[cfg(not(loom))]
pub(crate) struct Handover<P>(crossbeam::atomic::AtomicCell<Option<P>>);
#[cfg(loom)]
pub(crate) struct Handover<P>(Mutex<Option<P>>);

#[cfg(not(loom))]
impl<P> Handover<P> {
    pub(crate) fn new() -> Self {
        const { assert!(crossbeam::atomic::AtomicCell::<Option<P>>::is_lock_free()) };
        Handover(crossbeam::atomic::AtomicCell::new(None))
    }

    /// Leaves a value. AcqRel: sees what who took the last one did before.
    pub(crate) fn put(&self, value: P) {
        drop(self.0.swap(Some(value)));
    }

    /// Takes the value. AcqRel, even if there is none.
    pub(crate) fn take(&self) -> Option<P> {
        self.0.take()
    }
}

#[cfg(loom)]
impl<P> Handover<P> {
    pub(crate) fn new() -> Self {
        Handover(Mutex::new(None))
    }

    pub(crate) fn put(&self, value: P) {
        drop(lock(&self.0).replace(value));
    }

    pub(crate) fn take(&self) -> Option<P> {
        lock(&self.0).take()
    }
}
