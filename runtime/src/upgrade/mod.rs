//! Live upgrade: one process hands all that the callback side of a server has to the next one, and no client notices more than
//! a pause.
//!
//! The old process listens on a Unix socket; the new one connects to it, and both see by its credentials (SO_PEERCRED) that the
//! other one is of the same user. Then, one message after the other ([`channel`]):
//!
//! | from | message | |
//! |---|---|---|
//! | new | hello | with the version of this exchange |
//! | old | state | stands still from here on; a sealed file in memory with a complete checkpoint |
//! | old | files | the embedder's own descriptors, in batches; each batch is confirmed |
//! | old | sockets | those of the connections, in the order of the checkpoint; likewise |
//! | new | ready | everything was received, found valid and put in; it stands still |
//! | old | go | has let go; the new one begins |
//!
//! Either may say *refused* instead of its next message, or go away. Until the old one has sent *go* it alone decides: it goes
//! on as if nothing had happened if anything fails or takes longer than it is willing to wait, and the new one, which has done
//! nothing yet, gives up. With *go* on its way it never does anything again. So no moment has two that serve, and what was
//! received, encoded or sent is handled, sent and answered once.
//!
//! - [`give`]: the old process. [`take`]: the new one.

mod channel;
mod give;
mod take;
#[cfg(test)]
mod tests;

pub use take::Upgrade;
pub(crate) use take::{Built, Stage};

use crate::checkpoint::CheckpointError;
use crate::checkpoint::pace::Pace;
use std::io;
use std::time::Duration;
use thiserror::Error;

/// The version of what the two processes say to each other. What the checkpoint holds has a version of its own.
const VERSION: u32 = 1;

/// What an upgrade has handed over.
///
/// # Examples
///
/// ```
/// use ringback::{Runtime, UpgradeError};
/// use std::{os::unix::net::UnixListener, time::Duration};
///
/// /// The last thing that this process does, if all goes well.
/// fn wait_for_successor(runtime: &Runtime, socket: &UnixListener) -> Result<(), UpgradeError> {
///     let (successor, _) = socket.accept()?;
///     let upgraded = runtime.upgrade_to(successor, &[], Duration::from_secs(5))?;
///     eprintln!("{} connections went over in {:?}", upgraded.connections, upgraded.pause);
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upgraded {
    /// Connections whose sockets went over.
    pub connections: u64,
    /// Registered clients.
    pub clients: u64,
    /// Callbacks.
    pub callbacks: u64,
    /// Callbacks in flight.
    pub in_flight: u64,
    /// How long nothing was sent and received. The old process measures until it lets go, the new one until it has begun.
    pub pause: Duration,
    /// What the old process was asked for while it stood still, and has left undone:
    /// [`Event::LeftUndone`](crate::Event::LeftUndone).
    pub undone: u64,
}

/// Why an upgrade came to nothing. The old process has everything, and goes on.
///
/// # Examples
///
/// ```
/// use ringback::{Upgrade, UpgradeError};
/// use std::{os::unix::net::UnixStream, time::Duration};
///
/// let (ours, theirs) = UnixStream::pair()?;
/// drop(theirs);
/// assert!(matches!(Upgrade::receive(ours, Duration::from_secs(1)), Err(UpgradeError::Gone)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The socket between the two processes, or the file in memory, failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other process is of another user.
    #[error("the other process is of user {found}, and only one of user {expected} may take part")]
    User {
        /// Its user id.
        found: u32,
        /// Our own.
        expected: u32,
    },
    /// The other process speaks another version of the exchange.
    #[error("the other process speaks version {found} of the exchange, and this one version {known}")]
    Version {
        /// Its version.
        found: u32,
        /// Our own.
        known: u32,
    },
    /// The other process has said no.
    #[error("the other process has refused: {why}")]
    Refused {
        /// What it said.
        why: String,
    },
    /// The other process has closed the socket: it has ended, or given up.
    #[error("the other process is gone")]
    Gone,
    /// The other process was not as fast as it had to be.
    #[error("the other process did not answer in time")]
    TimedOut,
    /// What came is not what was to come.
    #[error("the other process does not keep to the exchange: {0}")]
    Malformed(&'static str),
    /// Descriptors did not arrive: this process may not have as many.
    #[error("{arrived} of {sent} descriptors have arrived: raise the limit of open files (RLIMIT_NOFILE)")]
    Descriptors {
        /// How many were sent.
        sent: usize,
        /// How many have arrived.
        arrived: usize,
    },
    /// The checkpoint was not written, or is not valid.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// [`Upgrade::confirm`] was called without a runtime that was built of it.
    #[error("no runtime was built of the upgrade: pass it to Builder::upgrade_from first")]
    NotBuilt,
}

/// A place where either process may fail, for tests and in the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hello is sent, or has come.
    Greet,
    /// The old process is to stand still.
    Suspend,
    /// Its sockets are to come out of the back ends.
    Lift,
    /// Its checkpoint is to be written.
    Write,
    /// The checkpoint is to be sent, or to come.
    State,
    /// The embedder's descriptors are.
    Files,
    /// The sockets of the connections are.
    Sockets,
    /// The new process is to open the checkpoint.
    Open,
    /// It is to put in what is there.
    Restore,
    /// It is to say that it is ready.
    Ready,
    /// The old process is to let go.
    Go,
    /// It has, and is to leave: it cannot fail any more, but take its time, or be gone.
    Leave,
}

#[cfg(test)]
thread_local! {
    /// Where this thread is to fail, and how.
    static FAULT: std::cell::Cell<Option<(Step, Fault)>> = const { std::cell::Cell::new(None) };
}

/// How a process fails.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It finds something wrong, and says so.
    Error,
    /// It is gone.
    Crash,
    /// It takes longer than anybody waits.
    Hang(Duration),
}

/// A step is about to be taken. Outside of tests and the simulator it always may.
async fn begin(pace: &Pace, step: Step) -> Result<(), UpgradeError> {
    #[cfg(feature = "simulator")]
    if !pace.begin(step).await {
        return Err(io::Error::other("injected").into());
    }
    #[cfg(test)]
    if let Some((_, fault)) = FAULT.get().filter(|(at, _)| *at == step) {
        match fault {
            Fault::Error => return Err(io::Error::other("injected").into()),
            Fault::Crash => return Err(UpgradeError::Gone),
            Fault::Hang(time) => std::thread::sleep(time),
        }
    }
    let _ = (pace, step);
    Ok(())
}
