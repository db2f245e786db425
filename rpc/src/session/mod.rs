//! Session slot tables (RFC 8881 section 2.10.6.1), both halves.
//!
//! [`RequesterSlots`] is the half of the side that sends: it picks the lowest free session slot, gives each one its
//! sequence id, and changes an id only when the replier has shown that it took it. [`ReplierSlots`] is the half of the
//! side that receives: it tells a new request from a retry of the last one and keeps the reply that a retry gets.
//!
//! The file server is replier on the fore channel and requester on the backchannel; a client is the opposite.

mod replier;
mod requester;

pub use replier::{Check, NoSlot, ReplierImage, ReplierSlotImage, ReplierSlots, fingerprint};
pub use requester::RequesterSlots;

/// Most session slots in one table.
pub const SLOTS_MAX: u32 = 1024;

/// The number of a session slot (RFC 8881 section 3.2, `slotid4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// The sequence id of a session slot (RFC 8881 section 3.2, `sequenceid4`): it counts the requests of that slot, wraps,
/// and starts at one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId(pub u32);

impl SequenceId {
    /// The id of the first request of a slot, as RFC 8881 section 2.10.6.1 demands.
    pub const FIRST: SequenceId = SequenceId(1);

    /// The id of the next request. It wraps to zero, not to one: RFC 8881 section 2.10.6.1 computes modulo 2^32.
    pub const fn next(self) -> SequenceId {
        SequenceId(self.0.wrapping_add(1))
    }
}
