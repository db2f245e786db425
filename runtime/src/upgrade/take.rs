//! The process that takes everything over.

use super::channel::{Channel, Kind, Message};
use super::{Step, UpgradeError, Upgraded, VERSION, begin};
use crate::checkpoint::pace::{Pace, block};
use crate::checkpoint::restore::{Prepared, Purpose, prepare};
use crate::checkpoint::suspend::Suspended;
use crate::checkpoint::take::STANDSTILL_NS;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::drain::PATIENCE_MAX;
use crate::runtime::Runtime;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Everything that another process had: it stands still, and waits for [`Upgrade::confirm`]. Dropped before that, the other
/// process goes on as if nothing had happened.
///
/// # Examples
///
/// ```no_run
/// use ringback::{Builder, ForeChannel, Hooks, Runtime, Upgrade};
/// use std::{error::Error, os::fd::OwnedFd, os::unix::net::UnixStream, path::Path, sync::Arc, time::Duration};
///
/// # struct Server;
/// # impl Hooks for Server {
/// #     fn encode(&self, _: &ringback::Run, _: &mut ringback_rpc::xdr::Writer<'_>) -> ringback_rpc::xdr::Result<()> { Ok(()) }
/// #     fn done(&self, _: &ringback::Run, _: &ringback::Outcome<'_>) -> ringback::Done { ringback::Done::Finish }
/// # }
/// # impl ForeChannel for Server { fn call(&self, _: ringback::Call<'_>) {} }
/// # impl Server {
/// #     fn restore(own: &[u8], files: Vec<OwnedFd>) -> Result<Server, Box<dyn Error>> { Ok(Server) }
/// #     fn serve(&self, runtime: Runtime) {}
/// # }
/// fn take_over(socket: &Path) -> Result<(), Box<dyn Error>> {
///     let mut upgrade = Upgrade::receive(UnixStream::connect(socket)?, Duration::from_secs(5))?;
///     // What the server itself had: Hooks::checkpoint has written it, in the old process.
///     let server = Arc::new(Server::restore(&upgrade.checkpoint().own(), upgrade.take_files())?);
///     let runtime = Builder::new().upgrade_from(&upgrade).build(server.clone(), server.clone())?;
///     server.serve(runtime);
///     // Nothing can fail any more: the old process ends, and this one begins.
///     upgrade.confirm()?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Upgrade {
    channel: Channel,
    checkpoint: Checkpoint,
    files: Vec<OwnedFd>,
    connections: usize,
    /// When the other one began to stand still.
    began_ns: u64,
    stage: Arc<Mutex<Stage>>,
}

/// What a builder makes of it.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    /// Until a runtime is built of it.
    sockets: Option<Vec<OwnedFd>>,
    built: Option<Built>,
}

/// A runtime that has everything and stands still.
pub(crate) struct Built {
    prepared: Option<Prepared>,
    suspended: Option<Suspended>,
    runtime: Runtime,
}

impl Built {
    /// Restores a checkpoint, with the sockets of its connections, in a runtime that was just built.
    pub async fn stand_by(
        runtime: &Runtime,
        pace: Pace,
        checkpoint: &Checkpoint,
        stage: &Mutex<Stage>,
    ) -> Result<(), CheckpointError> {
        let sockets = stage.lock().unwrap_or_else(PoisonError::into_inner).sockets.take();
        let sockets = sockets.ok_or(CheckpointError::Used)?;
        let until_ns = pace.now_ns() + STANDSTILL_NS;
        let suspended = Suspended::begin(runtime, pace.clone(), until_ns).await?;
        // From here on it leaves, and does not go on, if this is dropped.
        let mut built = Built { prepared: None, suspended: Some(suspended), runtime: runtime.clone() };
        begin(&pace, Step::Restore).await.map_err(|error| io::Error::other(error.to_string()))?;
        built.prepared = Some(prepare(runtime.shared(), checkpoint, pace.now_ns(), Purpose::GoOn, sockets)?);
        stage.lock().unwrap_or_else(PoisonError::into_inner).built = Some(built);
        Ok(())
    }

    /// It begins.
    async fn go(mut self) -> Result<(), CheckpointError> {
        let (Some(suspended), Some(mut prepared)) = (self.suspended.take(), self.prepared.take()) else {
            return Ok(());
        };
        let restored = suspended.restore(std::mem::take(&mut prepared.reactors)).await;
        // The other process has let go: what can begin does.
        prepared.submit(self.runtime.shared());
        restored
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        if let Some(suspended) = self.suspended.take() {
            suspended.leave();
        }
    }
}

impl std::fmt::Debug for Built {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Built").finish_non_exhaustive()
    }
}

impl Upgrade {
    /// Asks the process at the other end of the socket, which is in [`Runtime::upgrade_to`] or about to be, for all that it has.
    /// From here on that one stands still. Each answer may take as long as `patience` allows for all of them.
    pub fn receive(predecessor: UnixStream, patience: Duration) -> Result<Self, UpgradeError> {
        block(Upgrade::receive_from(predecessor, Pace::default(), patience))
    }

    /// At that pace.
    pub(crate) async fn receive_from(
        predecessor: UnixStream,
        pace: Pace,
        patience: Duration,
    ) -> Result<Self, UpgradeError> {
        let until_ns = pace.now_ns() + patience.min(PATIENCE_MAX).as_nanos() as u64;
        let mut channel = Channel::new(predecessor, pace, until_ns)?;
        match receive(&mut channel).await {
            Ok((checkpoint, files, sockets, began_ns)) => {
                let connections = sockets.len();
                let stage = Arc::new(Mutex::new(Stage { sockets: Some(sockets), built: None }));
                Ok(Upgrade { channel, checkpoint, files, connections, began_ns, stage })
            }
            Err(error) => {
                channel.refuse(&error);
                Err(error)
            }
        }
    }

    /// What the other process knew; [`Checkpoint::own`] is what its embedder has to say.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The descriptors of its embedder, in their order. They are given once.
    pub fn take_files(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.files)
    }

    /// How many connections come along.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Makes a mistake in what has come.
    #[cfg(feature = "simulator")]
    pub(crate) fn spoil(&mut self, what: crate::checkpoint::spoil::Spoil) -> Result<(), CheckpointError> {
        self.checkpoint = crate::checkpoint::spoil::spoil(&self.checkpoint, what)?;
        Ok(())
    }

    pub(crate) fn stage(&self) -> &Arc<Mutex<Stage>> {
        &self.stage
    }

    /// Everything is as it is to be: the other process lets go, and the runtime that was
    /// [built of this](crate::Builder::upgrade_from) begins. After an error it never does, and the other process goes on; but for
    /// [`CheckpointError::Reactor`]: the other one had let go when that reactor was found to have ended, and the rest has begun.
    ///
    /// There is no limit to the time that this takes: from now on the other process decides, and that it does not for long is
    /// what its own patience is for.
    pub fn confirm(self) -> Result<Upgraded, UpgradeError> {
        block(self.go())
    }

    /// At its pace.
    pub(crate) async fn go(mut self) -> Result<Upgraded, UpgradeError> {
        let pace = self.channel.pace.clone();
        let built = self.stage.lock().unwrap_or_else(PoisonError::into_inner).built.take();
        let built = built.ok_or(UpgradeError::NotBuilt)?;
        begin(&pace, Step::Ready).await?;
        self.channel.wait_for_ever();
        self.channel.send(Kind::Ready, &[], &[])?;
        self.channel.expect(Kind::Go).await?;
        built.go().await?;
        let pause = Duration::from_nanos(pace.now_ns().saturating_sub(self.began_ns));
        Ok(Upgraded {
            connections: self.connections as u64,
            clients: self.checkpoint.clients() as u64,
            callbacks: self.checkpoint.callbacks(),
            in_flight: self.checkpoint.in_flight(),
            pause,
            undone: 0,
        })
    }
}

type Received = (Checkpoint, Vec<OwnedFd>, Vec<OwnedFd>, u64);

async fn receive(channel: &mut Channel) -> Result<Received, UpgradeError> {
    let pace = channel.pace.clone();
    begin(&pace, Step::Greet).await?;
    channel.send(Kind::Hello, &u64::from(VERSION).to_le_bytes(), &[])?;
    begin(&pace, Step::State).await?;
    let mut state: Message = channel.expect(Kind::State).await?;
    let (files_count, sockets_count, began_ns) = (state.number(0)?, state.number(1)?, state.number(2)?);
    let memory = state.files.pop().ok_or(UpgradeError::Malformed("there is no checkpoint"))?;
    begin(&pace, Step::Files).await?;
    let files = descriptors(channel, Kind::Files, files_count).await?;
    begin(&pace, Step::Sockets).await?;
    let sockets = descriptors(channel, Kind::Sockets, sockets_count).await?;
    begin(&pace, Step::Open).await?;
    let checkpoint = Checkpoint::from_fd(memory)?;
    if !checkpoint.is_complete() || checkpoint.connections() != sockets.len() {
        return Err(UpgradeError::Malformed("the checkpoint and the sockets do not belong together"));
    }
    Ok((checkpoint, files, sockets, began_ns))
}

/// So many descriptors, in batches.
async fn descriptors(channel: &mut Channel, kind: Kind, count: u64) -> Result<Vec<OwnedFd>, UpgradeError> {
    let mut found = Vec::new();
    while (found.len() as u64) < count {
        let batch = channel.expect(kind).await?.files;
        if batch.is_empty() {
            return Err(UpgradeError::Malformed("descriptors are missing"));
        }
        found.extend(batch);
        channel.send(Kind::Received, &[], &[])?;
    }
    Ok(found)
}
