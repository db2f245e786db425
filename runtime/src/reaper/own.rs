//! Callbacks that the runtime sends on its own account. All that there is to say is in the cookie, so that it stays the
//! same for as long as the run takes, and nobody has to keep it.

use crate::hooks::{Done, Hooks, Outcome, Run};
use ringback_rpc::nfs4::Bitmap4;
use ringback_rpc::nfs4::callback::{CallbackOp, CbRecallAnyArgs, CbRecallSlotArgs};
use ringback_rpc::xdr::{self, Encode, Writer};

/// In the place of the embedder.
pub(crate) struct Own;

impl Hooks for Own {
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        let number = run.cookie as u32;
        match run.op {
            CallbackOp::RecallAny => {
                let type_mask = Bitmap4::of(&[CbRecallAnyArgs::READ_DELEGATIONS, CbRecallAnyArgs::WRITE_DELEGATIONS]);
                CbRecallAnyArgs { objects_to_keep: number, type_mask }.encode(args)
            }
            CallbackOp::RecallSlot => CbRecallSlotArgs { target_highest_slot_id: number }.encode(args),
            other => unreachable!("{other:?} is not sent on our own account"),
        }
    }

    fn done(&self, _: &Run, _: &Outcome<'_>) -> Done {
        Done::Finish
    }
}
