//! Where a client lives: which reactor owns it, and how it comes to another one without a message that is lost, doubled or
//! overtaken.
//!
//! A client's messages (commands, waiters) go to the queues of its home reactor. Whoever sends one *visits*: it enters this
//! word, which tells the home, leaves the message there, and leaves the word. Runs do not visit: they have no order among
//! themselves, so that one that comes late is passed on.
//!
//! A move has three steps, the first two taken by the reactor that the client leaves.
//!
//! 1. `begin_move`: one swap names the new home and turns the *side*. The client is frozen from here on: nothing happens to
//!    it. Who enters now is counted on the other side, and leaves its message at the new home, where it is kept.
//! 2. When the old side `is_quiet`, every message that went to the old home is in its queues: each visitor left its message
//!    before the word. The reactor takes them out, and sends client and messages to the new home. Until then nobody waits:
//!    a visitor who is the last to leave an old side is told to wake that reactor.
//! 3. `arrived`: the new home has the client, has done what the messages say that came with it, and now does what those
//!    say that were kept.
//!
//! So a message that was sent before another one, by the same thread or by who learnt of it, is acted on before it: if the
//! first went to the old home, it came with the client; if it went to the new one, the second did too, behind it.

use crate::sync::{AtomicU64, Ordering};

/// The old home, above the home.
const FROM_SHIFT: u32 = 16;
const HOME_MASK: u64 = (1 << FROM_SHIFT) - 1;
/// Between `begin_move` and `arrived`.
const MOVING: u64 = 1 << 32;
/// On which side visitors are counted that enter now.
const SIDE: u64 = 1 << 33;
/// Visitors of each side: 15 bits each.
const INSIDE_SHIFT: [u32; 2] = [34, 49];
const INSIDE_MAX: u64 = (1 << 15) - 1;

/// The word of one client.
#[derive(Debug)]
pub(crate) struct Residence(AtomicU64);

/// A visit.
#[derive(Debug)]
#[must_use = "a visitor that does not leave keeps the client from moving"]
pub(crate) struct Visit {
    /// Where the message is to be left.
    pub home: usize,
    side: usize,
}

const fn side(word: u64) -> usize {
    (word & SIDE != 0) as usize
}

const fn inside(word: u64, side: usize) -> u64 {
    word >> INSIDE_SHIFT[side] & INSIDE_MAX
}

impl Residence {
    pub(crate) fn new() -> Self {
        Residence(AtomicU64::new(0))
    }

    /// The home. Acquire: who reads the new one finds there that the client comes.
    #[inline]
    pub(crate) fn home(&self) -> usize {
        (self.0.load(Ordering::Acquire) & HOME_MASK) as usize
    }

    /// Whether the client is on its way.
    pub(crate) fn is_moving(&self) -> bool {
        self.0.load(Ordering::Acquire) & MOVING != 0
    }

    fn change(&self, change: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
    }

    /// Enters, to leave a message at the home.
    pub(crate) fn enter(&self) -> Visit {
        let enter = |word| {
            // As many threads would have to be between two instructions of this at once.
            assert!(inside(word, side(word)) < INSIDE_MAX, "too many threads post to one client at once");
            Some(word + (1 << INSIDE_SHIFT[side(word)]))
        };
        let (Ok(word) | Err(word)) = self.change(enter);
        Visit { home: (word & HOME_MASK) as usize, side: side(word) }
    }

    /// Leaves, after the message was left. The reactor that is to be woken, if it waits for that.
    #[must_use = "a reactor that is not woken keeps the client"]
    pub(crate) fn leave(&self, visit: Visit) -> Option<usize> {
        let before = self.0.fetch_sub(1 << INSIDE_SHIFT[visit.side], Ordering::AcqRel);
        let last = inside(before, visit.side) == 1;
        let awaited = before & MOVING != 0 && side(before) != visit.side;
        (last && awaited).then_some((before >> FROM_SHIFT & HOME_MASK) as usize)
    }

    /// The home reactor lets the client go. `false`: it is moving already.
    #[must_use]
    pub(crate) fn begin_move(&self, to: usize) -> bool {
        let begin = |word: u64| {
            let from = word & HOME_MASK;
            let kept = word & !(HOME_MASK << FROM_SHIFT | HOME_MASK);
            (word & MOVING == 0).then_some((kept | from << FROM_SHIFT | to as u64 | MOVING) ^ SIDE)
        };
        self.change(begin).is_ok()
    }

    /// Whether all who went to the old home have left their message there.
    pub(crate) fn is_quiet(&self) -> bool {
        let word = self.0.load(Ordering::Acquire);
        inside(word, 1 - side(word)) == 0
    }

    /// The client is at its home.
    pub(crate) fn arrived(&self) {
        self.0.fetch_and(!MOVING, Ordering::AcqRel);
    }

    /// The home is `home`: of the next client on the same place of the table, or of one that was lost on its way. Who is
    /// inside stays counted.
    pub(crate) fn settle_at(&self, home: usize) {
        let _ = self.change(|word| Some(word & !(HOME_MASK | MOVING) | home as u64));
    }
}
