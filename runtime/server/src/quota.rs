//! A limited number of things.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many there are, and how many there may be.
#[derive(Debug)]
pub(crate) struct Quota {
    used: AtomicU64,
    max: AtomicU64,
}

impl Quota {
    pub(crate) const fn new(max: u64) -> Self {
        Quota { used: AtomicU64::new(0), max: AtomicU64::new(max) }
    }

    /// Takes one more, unless that is too many.
    pub(crate) fn take(&self) -> bool {
        self.take_many(1)
    }

    /// Takes `count` more, unless that is too many.
    pub(crate) fn take_many(&self, count: u64) -> bool {
        let taken = self.used.fetch_add(count, Relaxed).saturating_add(count) <= self.max();
        if !taken {
            self.give_back_many(count);
        }
        taken
    }

    /// Takes `count` more, whatever the limit: it has happened already.
    pub(crate) fn force(&self, count: u64) {
        self.used.fetch_add(count, Relaxed);
    }

    pub(crate) fn give_back(&self) {
        self.give_back_many(1);
    }

    pub(crate) fn give_back_many(&self, count: u64) {
        self.used.fetch_sub(count, Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub(crate) fn max(&self) -> u64 {
        self.max.load(Relaxed)
    }

    /// Sets the limit. What there is beyond it stays.
    pub(crate) fn set_max(&self, max: u64) {
        self.max.store(max, Relaxed);
    }
}
