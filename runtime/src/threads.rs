//! The threads of a runtime: named, and with all signals blocked, which are for the embedder's own threads.

use nix::sys::signal::{SigSet, SigmaskHow};
use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread. It is born with its signals blocked, which it inherits, so that there is no moment in which one could reach it.
pub(crate) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let thread = Builder::new().name(name).spawn(run);
    before.thread_set_mask()?;
    thread
}
