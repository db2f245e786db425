//! Another process for the same server: files, opens, locks, delegations, clients and sessions go to it, with what the runtime
//! has. Its clients notice a pause.
//!
//! The state is written when everything stands still, in the hook that is asked for a checkpoint, to a file in memory that goes
//! along as a descriptor; so do the listening sockets, whose queues of connections are thus never without a server.

use crate::callbacks::Observer;
use crate::clients::Clients;
use crate::copies::Copies;
use crate::files::Files;
use crate::keep::{Keep, load_bytes, malformed, save_bytes};
use crate::later::{Later, Message};
use crate::layouts::Layouts;
use crate::sessions::Session;
use crate::store::Store;
use crate::wants::Wants;
use crate::{Config, Inner, Server, StartError, listen, set_up};
use ringback::{BuildError, Builder, Upgrade, UpgradeError, Upgraded};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Begins the state, and ends it, with a version in between.
const MAGIC: u64 = u64::from_le_bytes(*b"ringbkfs");
/// Of what is written here. Another version is not read: the old process goes on.
const VERSION: u32 = 6;
/// How long calls that wait for the answer to a CB_GETATTR are given to go on without it.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);

/// Why a server was not taken over. The old process goes on with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuccessionError {
    /// The callbacks were not handed over.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The runtime could not be built.
    #[error(transparent)]
    Runtime(#[from] BuildError),
    /// The files and what is held on them were not handed over.
    #[error("the files were not handed over: {0}")]
    State(#[from] io::Error),
    /// Its own thread could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// The file in memory, until the state is in it.
#[derive(Debug)]
pub(crate) struct Leaving {
    file: File,
    written: io::Result<()>,
}

impl Server {
    /// Hands the server over to the process at the other end of the socket, which [takes it over](Server::take_over). If that
    /// fails, or takes longer than `patience`, this one goes on as if nothing had happened, but for clients of minor version 0, who
    /// begin anew in any case; else it serves nobody any more, and is to be dropped.
    pub fn hand_over(&self, successor: UnixStream, patience: Duration) -> Result<Upgraded, SuccessionError> {
        let inner = &self.inner;
        let until = Instant::now() + SETTLE_PATIENCE;
        while !inner.later.is_settled() {
            if Instant::now() > until {
                return Err(io::Error::from(io::ErrorKind::ResourceBusy).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        inner.close_to_minor0_clients();
        let listeners = listen::stop(inner);
        // Whoever has something to ask waits until he knows of whom.
        let alone = inner.renewing.write().unwrap_or_else(PoisonError::into_inner);
        let given = self.give(&listeners, successor, patience);
        drop(alone);
        if given.is_ok() {
            inner.store.as_ref().map(Store::close);
        } else {
            inner.open_to_minor0_clients();
            // Reactors serve again since a moment ago; who is to have something stored has waited for this.
            if let Some(Err(error)) = inner.store.as_ref().map(Store::reopen) {
                inner.callbacks.observer().storage_failed(&error);
            }
            for socket in listeners {
                inner.listen_on(socket)?;
            }
        }
        given
    }

    fn give(
        &self,
        listeners: &[Arc<TcpListener>],
        successor: UnixStream,
        patience: Duration,
    ) -> Result<Upgraded, SuccessionError> {
        let file = File::from(memfd_create("ringback-files", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
        let leaving = Leaving { file: file.try_clone()?, written: Err(malformed()) };
        *self.inner.leaving.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaving);
        let files: Vec<BorrowedFd<'_>> =
            std::iter::once(file.as_fd()).chain(listeners.iter().map(AsFd::as_fd)).collect();
        let given = self.runtime().upgrade_to(successor, &files, patience);
        let left = self.inner.leaving.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The other one has found that out by itself, but not why.
        if let (Err(_), Some(Leaving { written: Err(error), .. })) = (&given, left)
            && error.kind() != io::ErrorKind::InvalidData
        {
            return Err(error.into());
        }
        Ok(given?)
    }

    /// Takes over the server of the process at the other end of the socket, which is [handing it over](Server::hand_over). The
    /// lease and the limits are those of `config`; what is there already is kept, whatever they are.
    pub fn take_over(
        config: Config,
        builder: Builder,
        observer: Arc<dyn Observer>,
        predecessor: UnixStream,
        patience: Duration,
    ) -> Result<(Server, Upgraded), SuccessionError> {
        let builder = set_up(builder, &config);
        let mut upgrade = Upgrade::receive(predecessor, patience)?;
        let mut files = upgrade.take_files().into_iter();
        let mut state = File::from(files.next().ok_or_else(malformed)?);
        state.rewind()?;
        let (sender, receiver) = mpsc::channel();
        let inner = Inner::load(config, observer, Later::new(sender), &mut BufReader::with_capacity(1 << 20, state))?;
        let inner = Arc::new(inner);
        let builder = builder.upgrade_from(&upgrade);
        let runtime = Arc::new(builder.build(Arc::clone(&inner) as _, Arc::clone(&inner) as _)?);
        inner.callbacks.connect(&runtime);
        Later::start(&inner, receiver).map_err(StartError::Thread)?;
        let server = Server { inner, runtime };
        let upgraded = upgrade.confirm()?;
        for socket in files {
            server.inner.listen_on(Arc::new(TcpListener::from(socket)))?;
        }
        for copy in server.inner.copies.going_on() {
            server.inner.later.send(Message::Copy(copy));
        }
        Ok((server, upgraded))
    }
}

impl Inner {
    /// A checkpoint is being written: for another process, the state is as well.
    pub(crate) fn write_state(&self) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaving) = &mut *leaving {
            let mut out = BufWriter::with_capacity(1 << 20, &leaving.file);
            leaving.written = self.save(&mut out).and_then(|()| out.flush());
            // It is the next one's.
            self.store.as_ref().map(Store::lend);
        }
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        (MAGIC, (VERSION, self.now_ns())).save(out)?;
        self.session_serial.load(Relaxed).save(out)?;
        self.files.save(out)?;
        self.clients().save(out)?;
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        (sessions.len() as u64).save(out)?;
        for session in sessions.values() {
            if session.slots().busy_count() > 0 {
                let why = "a call is still being answered: try again";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
            }
            session.save(out)?;
        }
        self.copies.save(out)?;
        self.layouts.save(out)?;
        self.wants.save(out)?;
        let peers = self.minor0.peers();
        (peers.len() as u64).save(out)?;
        for (connection, peer) in peers.iter() {
            connection.save(out)?;
            save_bytes(peer.to_string().as_bytes(), out)?;
        }
        MAGIC.save(out)
    }

    /// The server of another process.
    fn load(config: Config, observer: Arc<dyn Observer>, later: Later, from: &mut dyn Read) -> io::Result<Self> {
        let (magic, (version, now_ns)) = <(u64, (u32, u64))>::load(from)?;
        if magic != MAGIC {
            return Err(malformed());
        }
        if version != VERSION {
            let why = format!("its state has version {version}, and this process reads version {VERSION}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let mut inner = Inner::new(config, observer, later);
        // Its seconds go on.
        inner.started = inner.started.checked_sub(Duration::from_nanos(now_ns)).unwrap_or(inner.started);
        inner.session_serial.store(Keep::load(from)?, Relaxed);
        inner.files = Files::load(&inner.config, from)?;
        inner.name = crate::name_of(inner.files.volume);
        if let Some(directory) = &inner.config.state {
            inner.store = Some(Store::open(directory)?);
            // What the other one has not written yet is not told.
            inner.files.track();
        }
        let clients = Clients::load(inner.config.clients_max, from)?;
        let sessions = inner.sessions.get_mut().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..u64::load(from)? {
            let session = Session::load(&clients, from)?;
            sessions.insert(session.id, Arc::new(session));
        }
        inner.copies = Copies::load(&clients, from)?;
        inner.layouts = Layouts::load(&clients, from)?;
        inner.wants = Wants::load(&clients, from)?;
        *inner.clients.get_mut().unwrap_or_else(PoisonError::into_inner) = clients;
        for _ in 0..u64::load(from)? {
            let connection = Keep::load(from)?;
            let peer = String::from_utf8(load_bytes(from)?).ok().and_then(|peer| peer.parse().ok());
            inner.minor0.peers().insert(connection, peer.ok_or_else(malformed)?);
        }
        if u64::load(from)? == MAGIC { Ok(inner) } else { Err(malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringback::ConnectionId;

    fn state(config: Config) -> Vec<u8> {
        let server = Server::new(config, Builder::new().reactors(1), Arc::new(())).unwrap();
        server.inner.minor0.peers().insert(ConnectionId::from_bits(7), "[fe80::1%2]:700".parse().unwrap());
        let mut state = Vec::new();
        server.inner.save(&mut state).unwrap();
        state
    }

    fn load(config: Config, mut state: &[u8]) -> io::Result<Inner> {
        Inner::load(config, Arc::new(()), Later::new(mpsc::channel().0), &mut state)
    }

    #[test]
    fn the_limits_are_those_of_the_new_process() {
        let state = state(Config { clients_max: 8, ..Config::default() });
        for clients_max in [2, 30] {
            let inner = load(Config { clients_max, ..Config::default() }, &state).unwrap();
            let indices = std::iter::from_fn(|| inner.clients().take_index());
            assert_eq!(indices.count(), clients_max as usize);
            assert!(inner.files.revoked.len() >= 8, "the clients of the old process have their places");
            let peers = inner.minor0.peers();
            assert_eq!(peers[&ConnectionId::from_bits(7)].to_string(), "[fe80::1%2]:700");
        }
    }

    #[test]
    fn what_is_cut_off_or_changed_is_refused_or_read_but_never_a_crash() {
        let config = || Config { clients_max: 2, files_max: 8, ..Config::default() };
        let mut state = state(config());
        for end in 0..state.len() {
            assert!(load(config(), &state[..end]).is_err(), "{end} of {} bytes", state.len());
        }
        for at in 0..state.len() {
            let byte = std::mem::replace(&mut state[at], 0xff);
            let _ = load(config(), &state);
            state[at] = byte;
        }
        assert!(load(config(), &state).is_ok());
    }
}
