//! The process that hands everything over.

use super::channel::{Channel, DESCRIPTORS_PER_MESSAGE_MAX, Kind};
use super::{Step, UpgradeError, Upgraded, VERSION, begin};
use crate::checkpoint::pace::{Pace, block};
use crate::checkpoint::suspend::{Line, Suspended};
use crate::checkpoint::{CheckpointError, CheckpointSize};
use crate::drain::PATIENCE_MAX;
use crate::runtime::Runtime;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

impl Runtime {
    /// Hands everything over to the process at the other end of the socket, which [receives](crate::Upgrade::receive) it: clients,
    /// sessions and callbacks as a checkpoint, the sockets of the connections with what was received and not handled and what was
    /// encoded and not sent, and `files`, the embedder's own descriptors (a listening socket, say). What the embedder has to
    /// say beside that is asked for by [`Hooks::checkpoint`](crate::Hooks::checkpoint) while everything stands still, on this
    /// thread. Only a process of the same user may be there.
    ///
    /// `patience` is how long all of it may take. If anything fails until then, on either side, the runtime goes on as if nothing
    /// had happened, but for the pause; if all goes well, it has ended: no run completes here any more, and calls are answered
    /// [`Error::HandedOver`](crate::Error::HandedOver). The embedder drops what it has and ends.
    ///
    /// Connections over an embedder's own [`Transport`](crate::Transport) do not go over: what was sent on them is sent again on
    /// the next one that is bound. Waits for the reactors: an error from a hook.
    pub fn upgrade_to(
        &self,
        successor: UnixStream,
        files: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<Upgraded, UpgradeError> {
        block(self.hand_over(Pace::default(), successor, files, patience))
    }

    /// At that pace.
    pub(crate) async fn hand_over(
        &self,
        pace: Pace,
        successor: UnixStream,
        files: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<Upgraded, UpgradeError> {
        let until_ns = pace.now_ns() + patience.min(PATIENCE_MAX).as_nanos() as u64;
        let mut channel = Channel::new(successor, pace, until_ns)?;
        let given = match greet(&mut channel).await {
            Ok(()) => give(self, &mut channel, files, until_ns).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &given {
            channel.refuse(error);
        }
        given
    }
}

async fn greet(channel: &mut Channel) -> Result<(), UpgradeError> {
    let found = channel.expect(Kind::Hello).await?.number(0)? as u32;
    begin(&channel.pace, Step::Greet).await?;
    if found == VERSION { Ok(()) } else { Err(UpgradeError::Version { found, known: VERSION }) }
}

async fn give(
    runtime: &Runtime,
    channel: &mut Channel,
    files: &[BorrowedFd<'_>],
    until_ns: u64,
) -> Result<Upgraded, UpgradeError> {
    let pace = channel.pace.clone();
    begin(&pace, Step::Suspend).await?;
    let began_ns = pace.now_ns();
    let suspended = Suspended::begin(runtime, pace.clone(), until_ns).await?;
    begin(&pace, Step::Lift).await?;
    // Dropped before `suspended`, which then goes on with the sockets.
    let lines = suspended.lift(until_ns).await?;
    begin(&pace, Step::Write).await?;
    let (state, size) = write(&suspended, &lines).await?;
    begin(&pace, Step::State).await?;
    let numbers = [files.len() as u64, lines.len() as u64, began_ns];
    let payload: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    channel.send(Kind::State, &payload, &[state.as_fd()])?;
    begin(&pace, Step::Files).await?;
    for batch in files.chunks(DESCRIPTORS_PER_MESSAGE_MAX) {
        channel.send(Kind::Files, &[], batch)?;
        channel.expect(Kind::Received).await?;
    }
    for batch in lines.chunks(DESCRIPTORS_PER_MESSAGE_MAX) {
        begin(&pace, Step::Sockets).await?;
        let sockets: Vec<BorrowedFd<'_>> = batch.iter().map(|line| line.socket.as_fd()).collect();
        channel.send(Kind::Sockets, &[], &sockets)?;
        channel.expect(Kind::Received).await?;
    }
    channel.expect(Kind::Ready).await?;
    begin(&pace, Step::Go).await?;
    // The other one begins as soon as it hears of it.
    let pause = Duration::from_nanos(pace.now_ns().saturating_sub(began_ns));
    channel.send(Kind::Go, &[], &[])?;
    // From here on the other one has everything, whatever becomes of it, and of this one.
    let _ = begin(&pace, Step::Leave).await;
    let connections = lines.len() as u64;
    drop(lines);
    let undone = suspended.leave();
    let CheckpointSize { clients, callbacks, in_flight, .. } = size;
    Ok(Upgraded { connections, clients, callbacks, in_flight, pause, undone })
}

/// The checkpoint, in a file in memory that cannot change any more.
async fn write(suspended: &Suspended, lines: &[Line]) -> Result<(OwnedFd, CheckpointSize), CheckpointError> {
    let file =
        memfd_create("ringback-upgrade", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(io::Error::from)?;
    let mut out = BufWriter::with_capacity(1 << 20, File::from(file));
    let size = suspended.checkpoint_with(lines, &mut out).await?;
    let file = OwnedFd::from(out.into_inner().map_err(io::IntoInnerError::into_error)?);
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(io::Error::from)?;
    Ok((file, size))
}
