//! Operating a running server over a Unix socket: one request in JSON, one line; one reply in JSON, one line.

use crate::arena::Id;
use crate::by_hand::{Answer, Order};
use crate::files::ROOT;
use crate::inspect::Inspection;
use crate::layouts::Word;
use crate::{HeldDelegation, Inner, Server};
use ringback::TryRun;
use ringback_rpc::nfs4::Status;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest request.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// How long either side waits for the other to say something.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the runtime may take to ask all clients; it takes milliseconds.
const ASKING: Duration = Duration::from_secs(10);
/// The mask for a socket that only its owner uses.
const OWNER_ONLY: u32 = 0o177;

/// What may be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Describe the clients, with so many callbacks of each.
    Inspect {
        /// Callbacks of one client.
        callbacks_max: usize,
    },
    /// Tell what happened last.
    Flight,
    /// Write a checkpoint to a file, by its absolute path.
    Checkpoint(PathBuf),
    /// Send a callback, and tell what the clients answer within so many seconds.
    ByHand(Order, u64),
    /// Send CB_RECALL for all delegations of a file.
    RecallFile(String),
    /// Send CB_RECALL for all delegations of a client, by its name or id as `inspect` shows them.
    RecallClient(String),
    /// Send CB_RECALL for all delegations.
    RecallAll,
    /// Send CB_RECALL_ANY to all clients, so that they keep about so many delegations, all together.
    RecallAny(u64),
    /// Send CB_GETATTR to who holds a write delegation of a file.
    Getattr(String),
    /// Send CB_NOTIFY_LOCK to all who wait for a lock of a file.
    NotifyLock(String),
    /// Give a directory another cookie verifier, and send CB_NOTIFY to who holds a delegation of it.
    CookieVerifier(String),
    /// Send CB_LAYOUTRECALL for all layouts of a file.
    LayoutRecallFile(String),
    /// Send CB_LAYOUTRECALL for the whole file system to all clients that have layouts.
    LayoutRecallFsid,
    /// Send CB_LAYOUTRECALL for everything to all clients that have layouts.
    LayoutRecallAll,
    /// Send CB_NOTIFY_DEVICEID of a changed device to all clients that have asked for it.
    DeviceChanged,
    /// Have all layouts returned, and send CB_NOTIFY_DEVICEID of a deleted device to all clients that have asked for it; there is
    /// another one from then on.
    DeviceDeleted,
    /// Set how many delegations there may be.
    MaxDelegations(u64),
    /// Set how many session slots the fore channel of each session may have, and send CB_RECALL_SLOT to those with more.
    SessionSlots(u32),
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The clients.
    Inspection(Inspection),
    /// What happened last: the lines of a flight record.
    Flight(String),
    /// So many callbacks were started, or were on their way.
    Started(u64),
    /// CB_RECALL_ANY was sent to so many clients.
    Asked(u64),
    /// What the clients have answered.
    Answers(Vec<Answer>),
    /// A file of so many bytes was written, which holds so many callbacks.
    Written {
        /// Bytes.
        bytes: u64,
        /// Callbacks.
        callbacks: u64,
    },
    /// It is done.
    Done,
    /// It could not be done, and why.
    Error(String),
}

/// The socket, and the thread that answers.
#[derive(Debug)]
pub struct Admin {
    path: PathBuf,
    asking: Arc<Mutex<Asking>>,
    thread: Option<JoinHandle<()>>,
}

/// Who is asking.
#[derive(Debug, Default)]
struct Asking {
    stream: Option<UnixStream>,
    /// Nobody is listened to any more.
    stopped: bool,
}

/// One who has had all clients asked for delegations, and waits to hear how many they were.
#[derive(Debug, Default)]
pub(crate) struct AskedAll {
    waiting: Mutex<Option<(u64, Sender<u32>)>>,
}

impl AskedAll {
    /// They have been asked to keep so many.
    pub(crate) fn tell(&self, keep: u64, clients: u32) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take_if(|(asked, _)| *asked == keep);
        // Who does not wait any more has been told that it takes long.
        let _ = waiting.map(|(_, sender)| sender.send(clients));
    }

    fn wait(&self, keep: u64, ask: impl FnOnce()) -> Result<u32, String> {
        let (sender, receiver) = channel();
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some((keep, sender));
        ask();
        receiver.recv_timeout(ASKING).map_err(|_| "it takes long; clients may be asked later".to_owned())
    }
}

/// A socket that nobody but the owner of the process may use. It is made before there are other threads, as the mask for
/// new files is one for all of them. What is left of a server that has ended is replaced.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let before = rustix::process::umask(OWNER_ONLY.into());
    let bound = UnixListener::bind(path).or_else(|error| match error.kind() {
        ErrorKind::AddrInUse if is_left_over(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        _ => Err(error),
    });
    rustix::process::umask(before);
    bound
}

/// Whether it is a socket that nobody listens on.
fn is_left_over(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

impl Admin {
    /// Answers what is asked on a socket, until it is dropped.
    pub fn start(server: &Arc<Server>, listener: UnixListener, path: &Path) -> io::Result<Admin> {
        let asking = Arc::new(Mutex::new(Asking::default()));
        let (server, one) = (Arc::clone(server), Arc::clone(&asking));
        let answer = move || {
            for stream in listener.incoming() {
                if !note(&one, stream.as_ref().ok()) {
                    return;
                }
                // Who asks and does not listen is no concern of ours; others come after him.
                let _ = stream.and_then(|stream| serve(&server, stream));
                note(&one, None);
            }
        };
        let thread = thread::Builder::new().name("nfs-admin".to_owned()).spawn(answer)?;
        Ok(Admin { path: path.to_owned(), asking, thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.stopped = true;
        if let Some(stream) = &asking.stream {
            // What it has asked for is answered; it is not waited for.
            let _ = stream.shutdown(Shutdown::Read);
        }
        drop(asking);
        if let (Ok(_), Some(thread)) = (UnixStream::connect(&self.path), self.thread.take()) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Notes who is asking; whether anybody is listened to still.
fn note(asking: &Mutex<Asking>, stream: Option<&UnixStream>) -> bool {
    let mut asking = asking.lock().unwrap_or_else(PoisonError::into_inner);
    asking.stream = stream.and_then(|stream| stream.try_clone().ok());
    !asking.stopped
}

fn serve(server: &Server, mut stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&stream).take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => server.answer(&request),
        Err(error) => Reply::Error(format!("not a request: {error}")),
    };
    let mut reply = serde_json::to_vec(&reply)?;
    reply.push(b'\n');
    stream.write_all(&reply)
}

/// Asks the server that listens on a socket.
pub fn ask(path: &Path, request: &Request) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = String::new();
    if BufReader::new(stream).read_line(&mut reply)? == 0 {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server ended before it answered"));
    }
    Ok(serde_json::from_str(&reply)?)
}

impl Server {
    /// Does what is asked for.
    pub fn answer(&self, request: &Request) -> Reply {
        self.try_answer(request).unwrap_or_else(Reply::Error)
    }

    fn try_answer(&self, request: &Request) -> Result<Reply, String> {
        let inner = &self.inner;
        match request {
            Request::Inspect { callbacks_max } => {
                self.inspect(*callbacks_max).map(Reply::Inspection).map_err(|error| error.to_string())
            }
            Request::Flight => Ok(Reply::Flight(self.runtime().flight_record().to_json_lines())),
            Request::Checkpoint(file) => {
                let written = self.runtime().checkpoint_to(file).map_err(|e| format!("{}: {e}", file.display()))?;
                Ok(Reply::Written { bytes: written.bytes, callbacks: written.callbacks })
            }
            Request::ByHand(order, seconds) => self.by_hand(order, Duration::from_secs(*seconds)).map(Reply::Answers),
            Request::RecallAll => Ok(self.recall_where(|_| true)),
            Request::RecallClient(name) => {
                let client = inner.known(name)?.callbacks;
                Ok(self.recall_where(|held| held.client == client))
            }
            Request::RecallFile(path) => inner.on_file(path, Inner::recall_file),
            Request::Getattr(path) => inner.on_file(path, Inner::ask_holders),
            Request::CookieVerifier(path) => inner.on_file(path, |inner, directory| {
                let called = inner.files.renew_cookies(directory, &inner.callbacks)?;
                called.iter().for_each(|(_, _, callback)| _ = inner.callbacks.run(*callback));
                Ok(called.len() as u64)
            }),
            Request::LayoutRecallFile(path) => {
                inner.on_file(path, |inner, file| Ok(inner.layouts.recall_file(file, &inner.callbacks)))
            }
            Request::LayoutRecallFsid => {
                Ok(Reply::Started(inner.layouts.recall_all(Word::ReturnFsid, &inner.callbacks)))
            }
            Request::LayoutRecallAll => Ok(Reply::Started(inner.layouts.recall_all(Word::ReturnAll, &inner.callbacks))),
            Request::DeviceChanged => {
                Ok(Reply::Started(inner.layouts.change_device(Word::DeviceChanged, &inner.callbacks)))
            }
            Request::DeviceDeleted => {
                Ok(Reply::Started(inner.layouts.change_device(Word::DeviceDeleted, &inner.callbacks)))
            }
            Request::NotifyLock(path) => inner.on_file(path, Inner::tell_waiters),
            Request::RecallAny(keep) => {
                let ask = || self.runtime.recall_any(*keep);
                inner.asked_all.wait(*keep, ask).map(|clients| Reply::Asked(clients.into()))
            }
            Request::SessionSlots(slots) => Ok(Reply::Started(self.set_session_slots_max(*slots))),
            Request::MaxDelegations(max) => {
                self.set_delegations_max(*max);
                Ok(Reply::Done)
            }
        }
    }

    fn recall_where(&self, which: impl Fn(&HeldDelegation) -> bool) -> Reply {
        let running = |held: &HeldDelegation| {
            matches!(self.recall(held), TryRun::Submitted | TryRun::Coalesced | TryRun::Rearmed)
        };
        Reply::Started(self.held().filter(which).filter(running).count() as u64)
    }
}

impl Inner {
    /// Does something to a file that is named by its path.
    fn on_file(&self, path: &str, act: impl Fn(&Inner, Id) -> Result<u64, Status>) -> Result<Reply, String> {
        let done = act(self, self.file_at(path)?);
        done.map(Reply::Started).map_err(|status| format!("{path}: {status}"))
    }

    /// A file by its path in the export.
    pub(crate) fn file_at(&self, path: &str) -> Result<Id, String> {
        let found = path
            .split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |directory, name| self.files.lookup(directory, name.as_bytes()));
        found.map_err(|status| format!("{path}: {status}"))
    }

    fn recall_file(&self, file: Id) -> Result<u64, Status> {
        let (shard, _, index) = self.files.live(file)?;
        Ok(shard.delegations_of(index).map(|d| self.callbacks.recall(d.callback)).fold(0, |count, _| count + 1))
    }

    fn ask_holders(&self, file: Id) -> Result<u64, Status> {
        let (shard, _, index) = self.files.live(file)?;
        let queries = shard.delegations_of(index).filter_map(|d| d.query());
        Ok(queries.map(|query| self.callbacks.run(query.callback)).fold(0, |count, _| count + 1))
    }

    fn tell_waiters(&self, file: Id) -> Result<u64, Status> {
        let (mut shard, _, index) = self.files.live(file)?;
        Ok(self.files.notify_waiters_where(&mut shard, index, &self.callbacks, |_, _| true))
    }
}
