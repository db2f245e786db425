//! What an embedder sets and asks for.

use crate::callback::InsertError;
use crate::keys::{ClientId, SessionKey};
use crate::runtime::{Error, Runtime};
use ringback_rpc::nfs4::callback::CallbackOp;

/// What an entry of the runtime takes for each delegation.
const ENTRY_BYTES: u64 = 32;

/// How many delegations there may be before clients are asked to keep fewer. A delegation is a CB_RECALL that was
/// [inserted](Runtime::insert) and not removed.
///
/// Above the budget clients get a CB_RECALL_ANY (RFC 8881 section 20.6), to keep seven eighths of the budget in all, each
/// the same part of what it holds, at most once in five seconds. From a client that has given up next to nothing by then,
/// delegations are recalled one by one: [`Hooks::recall_least_recently_used`](crate::Hooks::recall_least_recently_used).
///
/// It does not refuse anything. A server that has a limit as well sets the budget somewhat below, as the RFC advises, or
/// calls [`Runtime::want_room`] when it refuses.
///
/// ```
/// use ringback::Budget;
///
/// // A mebibyte, of which a delegation takes 96 bytes in the server and 32 here.
/// assert_eq!(Budget::bytes(1 << 20, 96), Budget::delegations(8192));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(u64);

impl Budget {
    /// Any number of delegations.
    pub const UNLIMITED: Budget = Budget(u64::MAX);

    /// So many delegations.
    pub const fn delegations(count: u64) -> Self {
        Budget(count)
    }

    /// As many delegations as fit into `total` bytes, if the embedder's own state for one takes `each`. The runtime's
    /// 32 bytes come on top.
    pub const fn bytes(total: u64, each: u64) -> Self {
        Budget(total / each.saturating_add(ENTRY_BYTES))
    }

    /// How many delegations that is.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Default for Budget {
    fn default() -> Self {
        Budget::UNLIMITED
    }
}

impl Runtime {
    /// Changes the [budget](crate::Builder::budget), from now on.
    pub fn set_budget(&self, budget: Budget) {
        self.shared().reaper.set_budget(budget);
    }

    /// A delegation was refused because there are as many as there may be: clients are asked to make room, within a second,
    /// if more than seven eighths of the budget are in use. Never blocks.
    pub fn want_room(&self) {
        self.shared().reaper.want_room();
    }

    /// Memory is short: clients are asked to keep three quarters of their delegations, whatever the budget is. For who learns
    /// of it otherwise than by [`Builder::memory_pressure`](crate::Builder::memory_pressure). May be called as often as it
    /// shows: within five seconds it is the same pressure.
    pub fn memory_pressure(&self) {
        self.shared().reaper.press();
    }

    /// Asks all clients, once, to keep about `keep` delegations in all; those that were asked within the last five seconds
    /// are left out. Nothing is recalled from who does not heed it. [`Event::RecallAnySent`](crate::Event::RecallAnySent) tells how
    /// many were asked.
    pub fn recall_any(&self, keep: u64) {
        self.shared().reaper.come_down(keep);
    }

    /// Asks the client to use no session slot of the session's fore channel above `highest_slot_id`, by a CB_RECALL_SLOT
    /// (RFC 8881 section 20.8). The server tells the same in the sr_target_highest_slotid of its SEQUENCE replies. For
    /// [`Event::MemoryPressure`](crate::Event::MemoryPressure): what a session slot keeps for a retry is memory, too.
    pub fn recall_slots(&self, session: SessionKey, highest_slot_id: u32) -> Result<(), InsertError> {
        let known = self.client(session.client).map_err(|_| InsertError::NoSuchClient)?;
        if known.sessions.iter().all(|s| s.serial() != Some(session.serial)) {
            return Err(InsertError::NoSuchSession);
        }
        let (op, cookie) = (CallbackOp::RecallSlot, highest_slot_id.into());
        self.shared().send_own(session.client, op, cookie, Some(session)).map(drop)
    }

    /// How many delegations a client holds: see [`Budget`].
    pub fn delegations_of(&self, client: ClientId) -> Result<u32, Error> {
        self.client(client).map(|known| known.entries.delegations())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_in_bytes_counts_the_entry() {
        assert_eq!(Budget::bytes(1 << 20, 96), Budget::delegations(8192));
        assert_eq!(Budget::bytes(u64::MAX, u64::MAX), Budget::delegations(1));
        assert_eq!(Budget::bytes(31, 0), Budget::delegations(0));
        assert_eq!(Budget::default(), Budget::UNLIMITED);
    }
}
