//! Upgrades in the simulator: both processes are in one, and take their steps when they are asked to, over a real socket.
//! What waits is a future here, to be asked again whenever something may have come; see [`Stepper`].

pub use crate::checkpoint::pace::{Stepper, Verdict};
pub use crate::checkpoint::spoil::Spoil;
pub use crate::upgrade::Step;

use super::{Io, ReactorHandle};
use crate::checkpoint::pace::Pace;
use crate::checkpoint::suspend::Order;
use crate::upgrade::Built;
use crate::{CheckpointError, Runtime, Upgrade, UpgradeError, Upgraded};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// As [`Runtime::upgrade_to`].
pub async fn give(
    runtime: Runtime,
    stepper: Arc<dyn Stepper>,
    successor: UnixStream,
    files: Vec<OwnedFd>,
    patience: Duration,
) -> Result<Upgraded, UpgradeError> {
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    runtime.hand_over(Pace::of(stepper), successor, &files, patience).await
}

/// As [`Upgrade::receive`].
pub async fn receive(
    stepper: Arc<dyn Stepper>,
    predecessor: UnixStream,
    patience: Duration,
) -> Result<Upgrade, UpgradeError> {
    Upgrade::receive_from(predecessor, Pace::of(stepper), patience).await
}

/// What [`Builder::build`](crate::Builder::build) does with a runtime that is built of an upgrade.
pub async fn stand_by(runtime: &Runtime, stepper: Arc<dyn Stepper>, upgrade: &Upgrade) -> Result<(), CheckpointError> {
    Built::stand_by(runtime, Pace::of(stepper), upgrade.checkpoint(), upgrade.stage()).await
}

/// As [`Upgrade::confirm`].
pub async fn confirm(upgrade: Upgrade) -> Result<Upgraded, UpgradeError> {
    upgrade.go().await
}

/// What has come is not what was sent.
pub fn spoil(upgrade: &mut Upgrade, what: Spoil) -> Result<(), CheckpointError> {
    upgrade.spoil(what)
}

/// Orders to a reactor that stands still.
pub(super) struct Orders {
    from: Receiver<Order>,
    /// The next one, or that none will come any more.
    next: Option<Option<Order>>,
}

impl<I: Io> ReactorHandle<I> {
    pub(super) fn stand_still(&mut self) {
        self.orders = self.reactor.stands_still().map(|from| Orders { from, next: None });
    }

    /// Whether it stands still: it is not to be turned.
    pub fn is_still(&self) -> bool {
        self.orders.is_some()
    }

    /// Whether it stands still, and there is something to [obey](ReactorHandle::obey).
    pub fn has_orders(&mut self) -> bool {
        let Some(orders) = &mut self.orders else { return false };
        if orders.next.is_none() {
            orders.next = match orders.from.try_recv() {
                Ok(order) => Some(Some(order)),
                Err(TryRecvError::Disconnected) => Some(None),
                Err(TryRecvError::Empty) => None,
            };
        }
        orders.next.is_some()
    }

    /// Carries out one order, or goes on because none will come any more.
    pub fn obey(&mut self) -> io::Result<()> {
        if !self.has_orders() {
            return Ok(());
        }
        match self.orders.as_mut().and_then(|orders| orders.next.take()) {
            Some(Some(order)) => {
                self.reactor.obey(order)?;
                if self.reactor.has_left() {
                    self.orders = None;
                }
            }
            _ => {
                self.orders = None;
                self.reactor.go_on();
            }
        }
        Ok(())
    }
}
