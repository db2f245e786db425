//! Another runtime for the same server: what was begun by one is ended by the next, and no client notices more than a pause.

use crate::{Inner, Server, set_up};
use ringback::{BuildError, Builder, Runtime, Upgrade, UpgradeError, Upgraded};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

/// Why a server goes on with the runtime that it had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// The one has not handed over, or the other has not taken.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The other could not be built.
    #[error(transparent)]
    Runtime(#[from] BuildError),
    /// No socket between the two.
    #[error("there is no socket between the two runtimes: {0}")]
    Socket(#[from] std::io::Error),
}

impl Server {
    /// Goes on with another runtime, made by `builder`, in this process: connections, sessions and callbacks are handed over as
    /// from one process to the next. What changes may be the back end, the number of reactors, limits. After an error
    /// everything is as it was.
    pub fn renew(&mut self, builder: Builder, patience: Duration) -> Result<Upgraded, RenewError> {
        let inner = Arc::clone(&self.inner);
        // Whoever else has something to ask waits until he can ask the right one.
        let _alone = inner.renewing.write().unwrap_or_else(PoisonError::into_inner);
        let (ours, theirs) = UnixStream::pair()?;
        let old = Arc::clone(&self.runtime);
        let (given, taken) = thread::scope(|scope| {
            let giving = scope.spawn(|| old.upgrade_to(ours, &[], patience));
            let taken = take_over(&inner, set_up(builder, &inner.config), theirs, patience);
            (giving.join(), taken)
        });
        match taken {
            Ok((runtime, upgraded)) => {
                self.runtime = runtime;
                inner.minor0.lose_paths();
                Ok(upgraded)
            }
            Err(error) => {
                inner.callbacks.connect(&old);
                // Who was asked to hand over knows better what went wrong, unless it only heard of it.
                match given {
                    Ok(Err(ours)) if !matches!(ours, UpgradeError::Refused { .. } | UpgradeError::Gone) => {
                        Err(ours.into())
                    }
                    _ => Err(error),
                }
            }
        }
    }
}

fn take_over(
    inner: &Arc<Inner>,
    builder: Builder,
    socket: UnixStream,
    patience: Duration,
) -> Result<(Arc<Runtime>, Upgraded), RenewError> {
    let upgrade = Upgrade::receive(socket, patience)?;
    let builder = builder.upgrade_from(&upgrade);
    let runtime = Arc::new(builder.build(Arc::clone(inner) as _, Arc::clone(inner) as _)?);
    inner.callbacks.connect(&runtime);
    Ok((runtime, upgrade.confirm()?))
}
