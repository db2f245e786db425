//! How many delegations there may be, and what to do when memory is short.

use crate::client;
use crate::error::guard;
use crate::pointer::not_null;
use crate::{rb_client, rb_runtime, rb_session};
use runtime::{Budget, ClientId};
use std::ffi::c_int;
use std::mem::MaybeUninit;

/// Sets how many delegations (callbacks of RB_CB_RECALL) there may be before clients are asked to keep fewer, by CB_RECALL_ANY
/// (RFC 8881 section 20.6), at most once in five seconds each; UINT64_MAX: any number. What a client does not heed is
/// recalled: see rb_hooks.recall_least_recently_used. Nothing is refused.
#[unsafe(no_mangle)]
pub extern "C" fn rb_set_budget(runtime: Option<&rb_runtime>, delegations: u64) -> c_int {
    let about = || format!("{delegations} delegations");
    guard("rb_set_budget", about, || {
        not_null(runtime, "runtime")?.runtime.set_budget(Budget::delegations(delegations));
        Ok(0)
    })
}

/// How many delegations a client holds.
#[unsafe(no_mangle)]
pub extern "C" fn rb_delegations_of(
    runtime: Option<&rb_runtime>,
    client: rb_client,
    delegations: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    guard("rb_delegations_of", client::about(client), || {
        let delegations = not_null(delegations, "delegations")?;
        delegations.write(0);
        let runtime = not_null(runtime, "runtime")?;
        delegations.write(runtime.runtime.delegations_of(ClientId::from_bits(client))?);
        Ok(0)
    })
}

/// Says that a delegation was refused because there are as many as there may be: clients are asked to make room, within a
/// second, if more than seven eighths of the budget are in use. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn rb_want_room(runtime: Option<&rb_runtime>) -> c_int {
    guard("rb_want_room", String::new, || {
        not_null(runtime, "runtime")?.runtime.want_room();
        Ok(0)
    })
}

/// Says that memory is short: clients are asked to keep three quarters of their delegations, whatever the budget is. May be
/// called as often as it shows: within five seconds it is the same pressure.
#[unsafe(no_mangle)]
pub extern "C" fn rb_memory_pressure(runtime: Option<&rb_runtime>) -> c_int {
    guard("rb_memory_pressure", String::new, || {
        not_null(runtime, "runtime")?.runtime.memory_pressure();
        Ok(0)
    })
}

/// Asks all clients, once, to keep about `keep` delegations in all. Nothing is recalled from who does not heed it.
/// RB_EVENT_RECALL_ANY_SENT tells how many were asked.
#[unsafe(no_mangle)]
pub extern "C" fn rb_recall_any(runtime: Option<&rb_runtime>, keep: u64) -> c_int {
    let about = || format!("to keep {keep}");
    guard("rb_recall_any", about, || {
        not_null(runtime, "runtime")?.runtime.recall_any(keep);
        Ok(0)
    })
}

/// Asks the client to use no session slot of the session's fore channel above `highest_slot_id`, by a CB_RECALL_SLOT (RFC 8881
/// section 20.8) that no hook sees. SEQUENCE replies are to tell the same (sr_target_highest_slotid).
#[unsafe(no_mangle)]
pub extern "C" fn rb_recall_slots(runtime: Option<&rb_runtime>, session: rb_session, highest_slot_id: u32) -> c_int {
    guard(
        "rb_recall_slots",
        || session.to_string(),
        || {
            not_null(runtime, "runtime")?.runtime.recall_slots(session.into(), highest_slot_id)?;
            Ok(0)
        },
    )
}
