//! Plain tests, and the loom tests of the same code: `RUSTFLAGS="--cfg loom" cargo test --release --lib -p ringback loom`.
//!
//! A name that starts with `t4_` shows scenario T4 at the level of the word, one that starts with `r3_` rule R3.

#[cfg(not(loom))]
mod groups;
#[cfg(not(loom))]
mod life;
#[cfg(loom)]
mod loom_group;
#[cfg(loom)]
mod loom_queue;
#[cfg(loom)]
mod loom_residence;
#[cfg(loom)]
mod loom_slab;
#[cfg(loom)]
mod loom_wait;
#[cfg(loom)]
mod loom_word;
#[cfg(not(loom))]
mod picture;
#[cfg(not(loom))]
mod races;
#[cfg(not(loom))]
mod residence;
#[cfg(not(loom))]
mod slab_model;
#[cfg(not(loom))]
mod transitions;
#[cfg(not(loom))]
mod waiters;
#[cfg(not(loom))]
mod word;

use ringback_rpc::nfs4::callback::CallbackOp;

/// The operation of most tests: it may coalesce.
const OP_CB_RECALL: u8 = CallbackOp::Recall as u8;
/// An operation that must not lose a request.
const OP_CB_NOTIFY: u8 = CallbackOp::Notify as u8;

/// Explores `scene` with at most three preemptions, unless LOOM_MAX_PREEMPTIONS says otherwise.
#[cfg(loom)]
fn model(scene: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(scene);
}
