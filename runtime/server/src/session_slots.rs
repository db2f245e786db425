//! How many session slots a client may use on the fore channel. Each keeps a reply for a retry, so they are memory that can
//! be had back: by hand, and when memory is short.
//!
//! The limit is taken into each session's table when the next SEQUENCE comes, whose reply says so
//! (sr_target_highest_slotid); the table shrinks when the client has shown that it knows (RFC 8881 section 2.10.6.1).
//! CB_RECALL_SLOT asks those for a SEQUENCE who have nothing else to say (section 20.8).

use crate::clients::Client;
use crate::sessions::Session;
use crate::{Inner, Server};
use ringback::SessionKey;
use ringback_rpc::session::SlotId;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

/// Session slots that are left to each session however short memory is.
const SLOTS_MIN: u32 = 4;
/// Nanoseconds without pressure until all session slots are given back.
const RELIEF_NS: u64 = 60_000_000_000;

/// The limit for one session.
#[derive(Debug)]
pub(crate) struct SlotLimit {
    /// By configuration, or by hand.
    allowed: AtomicU32,
    /// While memory is short.
    pressed: AtomicU32,
    pressed_until_ns: AtomicU64,
}

impl SlotLimit {
    pub(crate) const fn new(allowed: u32) -> Self {
        SlotLimit {
            allowed: AtomicU32::new(allowed),
            pressed: AtomicU32::new(allowed),
            pressed_until_ns: AtomicU64::new(0),
        }
    }

    /// Session slots of one session, at least one.
    pub(crate) fn get(&self, now_ns: u64) -> u32 {
        let allowed = self.allowed.load(Relaxed);
        let is_pressed = now_ns < self.pressed_until_ns.load(Relaxed);
        let limit = if is_pressed { allowed.min(self.pressed.load(Relaxed)) } else { allowed };
        limit.max(1)
    }

    /// Sets it by hand.
    fn set(&self, allowed: u32) {
        self.allowed.store(allowed, Relaxed);
    }

    /// Memory is short: half of them have to do, for a while. Called by one thread only, the runtime's reaper.
    fn press(&self, now_ns: u64) -> u32 {
        let now = self.get(now_ns);
        let half = (now / 2).max(SLOTS_MIN).min(now);
        self.pressed.store(half, Relaxed);
        self.pressed_until_ns.store(now_ns + RELIEF_NS, Relaxed);
        half
    }
}

impl Inner {
    /// Memory is short.
    pub(crate) fn spare_session_slots(&self) {
        let now_ns = self.now_ns();
        if self.session_slots.get(now_ns) != self.session_slots.press(now_ns) {
            self.recall_session_slots(now_ns);
        }
    }

    /// Sends CB_RECALL_SLOT to every session that has more session slots than it may; how many there are. One without a
    /// backchannel learns it from its next SEQUENCE.
    fn recall_session_slots(&self, now_ns: u64) -> u64 {
        let target = self.session_slots.get(now_ns) - 1;
        let recalled = |session: &&Arc<Session>| self.callbacks.recall_slots(session.key, target);
        self.with_too_many_slots(now_ns).iter().filter(recalled).count() as u64
    }

    /// The sessions that have more than they may, which their next SEQUENCE is told.
    fn with_too_many_slots(&self, now_ns: u64) -> Vec<Arc<Session>> {
        let target = SlotId(self.session_slots.get(now_ns) - 1);
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let large: Vec<Arc<Session>> = sessions.values().filter(|s| s.slots().highest() > target).cloned().collect();
        drop(sessions);
        large.iter().for_each(|session| session.slots().set_target(target));
        large
    }

    /// Changes the limit by hand; the sessions that have more, and their clients.
    pub(crate) fn limit_session_slots(&self, slots: u32) -> Vec<(Arc<Client>, SessionKey)> {
        self.session_slots.set(slots);
        let large = self.with_too_many_slots(self.now_ns());
        large.into_iter().map(|session| (Arc::clone(&session.client), session.key)).collect()
    }
}

impl Server {
    /// Changes the limit of [`Config::session_slots_max`](crate::Config) for the fore channels, also of the sessions that there
    /// are; how many of them are asked by CB_RECALL_SLOT to come down. None of them gets more than it was granted at first.
    pub fn set_session_slots_max(&self, slots: u32) -> u64 {
        self.inner.session_slots.set(slots);
        self.inner.recall_session_slots(self.inner.now_ns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_halves_the_limit_and_passes() {
        let limit = SlotLimit::new(20);
        assert_eq!([10, 5, 4, 4].map(|_| limit.press(7)), [10, 5, 4, 4]);
        assert_eq!((limit.get(7), limit.get(7 + RELIEF_NS)), (4, 20));
        assert_eq!(limit.press(8 + RELIEF_NS), 10, "a new one begins from all");
        limit.set(3);
        assert_eq!((limit.get(9 + RELIEF_NS), limit.press(9 + RELIEF_NS)), (3, 3), "fewer by hand");
        limit.set(0);
        assert_eq!((limit.get(9 + RELIEF_NS), limit.press(9 + RELIEF_NS)), (1, 1));
    }
}
