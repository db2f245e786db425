//! An answer that one thread waits for and another one gives, once: neither blocks the other.

use crate::guard::guard;
use crate::sync::Handover;
use std::sync::OnceLock;
use std::task::Waker;

/// An answer that is to come.
pub(crate) struct Promise<T> {
    /// Set by one thread alone, so that setting never waits.
    answer: OnceLock<T>,
    waker: Handover<Box<Waker>>,
}

impl<T> Promise<T> {
    pub(crate) fn new() -> Self {
        Promise { answer: OnceLock::new(), waker: Handover::new() }
    }

    /// The answer, if there is one.
    pub(crate) fn get(&self) -> Option<&T> {
        self.answer.get()
    }

    /// The answer, or else `waker` is woken when there is one.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<&T> {
        if let Some(answer) = self.answer.get() {
            return Some(answer);
        }
        self.waker.put(Box::new(waker.clone()));
        // Once more: if the answer came before the `put`, that has seen its `take` and hence the answer.
        self.answer.get()
    }

    /// Gives the answer. Only the first counts.
    pub(crate) fn keep(&self, answer: T) {
        if self.answer.set(answer).is_ok()
            && let Some(waker) = self.waker.take()
        {
            // A waker is the embedder's code too.
            let _ = guard(|| waker.wake());
        }
    }
}
