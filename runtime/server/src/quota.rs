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

    /// Takes `count` more, which is given back unless it is kept.
    pub(crate) fn reserve(&self, count: u64) -> Option<Reserved<'_>> {
        self.take_many(count).then(|| Reserved { quota: self, count })
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

/// Taken for something that is not there yet.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    quota: &'a Quota,
    count: u64,
}

impl Reserved<'_> {
    /// It is there: what was taken is its own.
    pub(crate) fn keep(mut self) {
        self.count = 0;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.quota.give_back_many(self.count);
    }
}
