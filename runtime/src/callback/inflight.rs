//! Counts the runs of one client, and lets a drain close the door behind the last one (R2, R3).

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crossbeam::utils::CachePadded;

/// Set in the word once the door is closed; the rest of it is the count.
const CLOSED: u64 = 1 << 63;

/// How many accepted runs have not been released, and whether new ones are still let in.
///
/// Both are one word. A winner that enters and a drain that closes are then ordered by that word alone: either the
/// winner came first and the drain counts it, or the drain came first and the winner is refused. With two words each
/// side would have to look at the other's between two sequentially consistent fences, and a refused winner would be
/// visible in the count for a moment, which a drain could take for a run.
///
/// A reactor that ends many runs of a client in a row, and accepts others for it meanwhile, need not count each: what has
/// left is [noted](InFlight::leave_later) and taken off at once, or lets another one in. Until then the count is
/// too high, never too low.
#[derive(Debug)]
pub(crate) struct InFlight(CachePadded<Counts>);

#[derive(Debug)]
struct Counts {
    word: AtomicU64,
    /// Runs that are over and still counted. Written by the home reactor alone, while it visits the client.
    left: AtomicU32,
}

impl InFlight {
    /// Open and empty.
    pub(crate) fn new() -> Self {
        InFlight(CachePadded::new(Counts { word: AtomicU64::new(0), left: AtomicU32::new(0) }))
    }

    /// Counts one run. `false`: closed, nothing was counted.
    #[must_use = "a run that was refused must be abandoned"]
    pub(crate) fn enter(&self) -> bool {
        let mut seen = self.0.word.load(Ordering::Acquire);
        loop {
            if seen & CLOSED != 0 {
                return false; // it stays closed for this client, so no swap is needed to know
            }
            match self.0.word.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// [`enter`](InFlight::enter) on the home reactor: who has left and is still counted makes room. If a drain closes just
    /// now it counts this run all the same.
    #[must_use = "a run that was refused must be abandoned"]
    pub(crate) fn enter_at_home(&self) -> bool {
        let left = self.0.left.load(Ordering::Relaxed);
        if left == 0 {
            return self.enter();
        }
        if self.is_closed() {
            return false;
        }
        self.0.left.store(left - 1, Ordering::Relaxed);
        true
    }

    /// One run is over; its last touch happens before. `true`, exactly once: it was the last one behind a closed door.
    #[must_use = "the last one out completes the drain"]
    pub(crate) fn leave(&self) -> bool {
        self.take_off(1)
    }

    /// The same on the home reactor, to be [settled](InFlight::settle) before it leaves the client.
    pub(crate) fn leave_later(&self) {
        self.0.left.store(self.0.left.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Takes off all that have left. Answers as [`leave`](InFlight::leave).
    #[must_use = "the last one out completes the drain"]
    pub(crate) fn settle(&self) -> bool {
        let left = self.0.left.load(Ordering::Relaxed);
        if left == 0 {
            return false;
        }
        self.0.left.store(0, Ordering::Relaxed);
        self.take_off(left)
    }

    fn take_off(&self, left: u32) -> bool {
        // AcqRel: whoever sees the count at 0 sees everything that the runs did.
        let (before, left) = (self.0.word.fetch_sub(left.into(), Ordering::AcqRel), u64::from(left));
        assert!(before & !CLOSED >= left, "more runs ended than were accepted");
        before == CLOSED | left
    }

    /// No run enters from here on. `true`, exactly once: there was none either, so the drain is complete.
    #[must_use = "an empty drain is complete at once"]
    pub(crate) fn close(&self) -> bool {
        self.0.word.fetch_or(CLOSED, Ordering::AcqRel) == 0
    }

    /// Whether the door is closed and nobody is inside, and so for ever.
    ///
    /// Two sides ask: a waiter, after it has queued itself, whether anybody is left to answer it; and the reactor, after
    /// the last run has left, before it answers all who are queued. The fence makes one of them see the other (Dekker).
    pub(crate) fn is_over(&self) -> bool {
        fence(Ordering::SeqCst); // after the queueing, or after the leaving; partner: the other side's
        self.0.word.load(Ordering::Acquire) == CLOSED
    }

    /// Lets runs in again, for the next client on the same place of the table: nothing is in, and nothing names the
    /// client before that.
    pub(crate) fn reopen(&self) {
        let was = self.0.word.swap(0, Ordering::AcqRel);
        assert_eq!(was & !CLOSED, 0, "reopened with runs inside");
    }

    /// Whether [`close`](InFlight::close) was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.word.load(Ordering::Acquire) & CLOSED != 0
    }

    /// How many runs are in.
    pub(crate) fn count(&self) -> u64 {
        self.0.word.load(Ordering::Acquire) & !CLOSED
    }
}
