//! Callbacks that an administrator has sent, each of them, to see what a client makes of it (`ringback admin`).
//!
//! What the server has a reason for goes the way that it always goes: a recall is that of a delegation, a push one of a
//! delegation that was granted, and so on. Only what is about nothing that the server has (a layout, a device) is written here,
//! and kept until its run is over.

use crate::arena::{Arena, Id};
use crate::callbacks::Subject;
use crate::clients::Client;
use crate::delegations::State;
use crate::files::{SHARDS, Shard};
use crate::holder_attributes::Reported;
use crate::{Inner, Server};
use ringback::{CallbackKey, Ended, Outcome, Runtime, SessionKey, Wait, WaitError};
use ringback_rpc::nfs4::callback::{
    CallbackOp, CbLayoutRecallArgs, CbNotifyDeviceIdArgs, CbRecallAnyArgs, CbRecallSlotArgs, DeviceNotification,
    LayoutRecall, Notify4, NotifyDeviceIdChange, NotifyDeviceIdDelete,
};
use ringback_rpc::nfs4::{
    Bitmap4, DeviceId4, FileHandle, Fsid4, LayoutIomode4, LayoutType4, List, OpenNoneDelegation4, Stateid4, Status,
};
use ringback_rpc::xdr::{self, Encode, Writer};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Callbacks of this kind under way at once.
const SENT_MAX: u32 = 1024;
/// Longest arguments of one.
const ARGS_BYTES_MAX: usize = 256;
/// How long the answers may be waited for: less than who asks waits.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A callback that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Order {
    /// CB_GETATTR to who holds a write delegation of a file.
    Getattr(String),
    /// CB_RECALL of delegations.
    Recall(Whose),
    /// CB_LAYOUTRECALL to a client.
    LayoutRecall {
        /// The client, as `inspect` shows it.
        client: String,
        /// Which layouts.
        of: Layouts,
    },
    /// CB_NOTIFY to who holds a delegation of a directory and wants to know: its cookie verifier is another one.
    Notify(String),
    /// CB_PUSH_DELEG of a file, which is delegated, to a client that has not asked for it.
    PushDeleg {
        /// The client.
        client: String,
        /// The file.
        file: String,
        /// A delegation for writing.
        write: bool,
    },
    /// CB_RECALL_ANY to a client: to keep so many delegations.
    RecallAny {
        /// The client.
        client: String,
        /// How many.
        keep: u32,
    },
    /// CB_RECALLABLE_OBJ_AVAIL to a client: it may have so many delegations.
    RecallableObjAvail {
        /// The client.
        client: String,
        /// How many.
        keep: u32,
    },
    /// CB_RECALL_SLOT to all sessions that have more session slots.
    RecallSlot(u32),
    /// CB_WANTS_CANCELLED to all who wait for a delegation, or to one client.
    WantsCancelled(Option<String>),
    /// CB_NOTIFY_LOCK to all who wait for a lock of a file.
    NotifyLock(String),
    /// CB_NOTIFY_DEVICEID to a client.
    NotifyDeviceId {
        /// The client.
        client: String,
        /// The device.
        device: [u8; 16],
        /// Its addresses have changed; else it is gone.
        changed: bool,
        /// The old addresses must not be used any more.
        immediate: bool,
    },
    /// CB_OFFLOAD of the copies to a file, which end with an error.
    Offload(String),
}

/// Whose delegations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// Those of a file.
    File(String),
    /// Those of a client.
    Client(String),
    /// All.
    All,
}

/// Which layouts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layouts {
    /// Those of a file (LAYOUTRECALL4_FILE).
    File(String),
    /// Those of the file system (LAYOUTRECALL4_FSID).
    Fsid,
    /// All (LAYOUTRECALL4_ALL).
    All,
}

/// What a client has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The client, as `inspect` shows it.
    pub client: String,
    /// The operation.
    pub callback: String,
    /// Its status, or why there is none.
    pub answer: String,
}

/// A callback whose answer is awaited.
struct Asked {
    client: String,
    op: CallbackOp,
    wait: Wait,
}

/// A callback that is about nothing the server has.
#[derive(Debug)]
struct Sent {
    args: Vec<u8>,
    callback: Option<CallbackKey>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct ByHand(Mutex<Arena<Sent>>);

impl ByHand {
    pub(crate) const fn new() -> Self {
        ByHand(Mutex::new(Arena::new(SENT_MAX)))
    }

    fn lock(&self) -> MutexGuard<'_, Arena<Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn encode(&self, id: Id, w: &mut Writer<'_>) -> xdr::Result<()> {
        w.raw(&self.lock().get(id).ok_or(crate::callbacks::GONE)?.args)
    }

    /// Its run is over.
    pub(crate) fn forget(&self, id: Id) -> Option<CallbackKey> {
        self.lock().remove(id).and_then(|sent| sent.callback)
    }
}

impl Server {
    /// Has a callback sent, and waits for the answers of the clients, for `patience` at most. An error says that there is nobody
    /// to send it to, or nothing to send it for.
    pub fn by_hand(&self, order: &Order, patience: Duration) -> Result<Vec<Answer>, String> {
        let asked = self.inner.send_by_hand(self.runtime(), order)?;
        let until = Instant::now() + patience.min(WAIT_MAX);
        let answer = |asked: Asked| Answer {
            client: asked.client,
            callback: asked.op.name().to_owned(),
            answer: in_words(asked.op, &asked.wait.block(until.saturating_duration_since(Instant::now()))),
        };
        Ok(asked.into_iter().map(answer).collect())
    }
}

impl Inner {
    fn send_by_hand(&self, runtime: &Runtime, order: &Order) -> Result<Vec<Asked>, String> {
        match order {
            Order::Recall(Whose::File(path)) => self.recall_held(runtime, Some(self.file_at(path)?), None, path),
            Order::Recall(Whose::Client(name)) => self.recall_held(runtime, None, Some(self.known(name)?.index), name),
            Order::Recall(Whose::All) => self.recall_held(runtime, None, None, "anybody"),
            Order::Getattr(path) => self.ask_by_hand(runtime, path),
            Order::Notify(path) => self.notify_by_hand(runtime, path),
            Order::NotifyLock(path) => self.notify_waiters_by_hand(runtime, path),
            Order::Offload(path) => self.end_copies_by_hand(runtime, path),
            Order::PushDeleg { client, file, write } => self.push_by_hand(runtime, client, file, *write),
            Order::WantsCancelled(client) => self.cancel_by_hand(runtime, client.as_deref()),
            Order::RecallSlot(slots) => self.recall_slots_by_hand(runtime, *slots),
            Order::RecallAny { client, keep } => {
                let types = [CbRecallAnyArgs::READ_DELEGATIONS, CbRecallAnyArgs::WRITE_DELEGATIONS];
                let type_mask = Bitmap4::of(&types).with(CbRecallAnyArgs::DIRECTORY_DELEGATIONS);
                let args = CbRecallAnyArgs { objects_to_keep: *keep, type_mask };
                self.send(runtime, client, CallbackOp::RecallAny, &args)
            }
            Order::RecallableObjAvail { client, keep } => {
                let types = [CbRecallAnyArgs::READ_DELEGATIONS, CbRecallAnyArgs::WRITE_DELEGATIONS];
                let type_mask = Bitmap4::of(&types).with(CbRecallAnyArgs::DIRECTORY_DELEGATIONS);
                let args = CbRecallAnyArgs { objects_to_keep: *keep, type_mask };
                self.send(runtime, client, CallbackOp::RecallableObjAvail, &args)
            }
            Order::LayoutRecall { client, of } => self.recall_layouts(runtime, client, of),
            Order::NotifyDeviceId { client, device, changed, immediate } => {
                let (layout_type, device_id) = (LayoutType4::FLEX_FILES, DeviceId4(*device));
                let notification = match changed {
                    true => DeviceNotification::Change(NotifyDeviceIdChange {
                        layout_type,
                        device_id,
                        immediate: *immediate,
                    }),
                    false => DeviceNotification::Delete(NotifyDeviceIdDelete { layout_type, device_id }),
                };
                let mut space = [0; ARGS_BYTES_MAX];
                let mut w = Writer::new(&mut space);
                notification.encode(&mut w).map_err(|e| e.to_string())?;
                let change = Notify4 { mask: Bitmap4::of(&[notification.bit()]), values: w.written() };
                let args = CbNotifyDeviceIdArgs { changes: List::Slice(std::slice::from_ref(&change)) };
                self.send(runtime, client, CallbackOp::NotifyDeviceId, &args)
            }
        }
    }

    /// A client by its name or id, as `inspect` shows them.
    pub(crate) fn known(&self, name: &str) -> Result<Arc<Client>, String> {
        let clients = self.clients();
        let mut known = clients.records.values().filter_map(|r| r.client.as_ref());
        let found = known.find(|c| c.name() == *name || format!("{:x}", c.id.0) == *name);
        found.cloned().ok_or_else(|| format!("no client \"{name}\": see what `inspect` shows"))
    }

    /// The names of the clients, by index.
    fn names(&self) -> HashMap<u32, String> {
        let clients = self.clients();
        let known = clients.records.values().filter_map(|r| r.client.as_ref());
        known.map(|client| (client.index, client.name())).collect()
    }

    /// Recalls delegations: of one file, of one client, or all.
    fn recall_held(
        &self,
        runtime: &Runtime,
        file: Option<Id>,
        client: Option<u32>,
        of: &str,
    ) -> Result<Vec<Asked>, String> {
        let names = self.names();
        let mut asked = Vec::new();
        for number in 0..SHARDS {
            let shard = self.files.shard(number);
            let is_meant = |shard: &Shard, index: u32, holder: u32| {
                let name = shard.files.id_at(index).map(|id| crate::files::global(number, id));
                file.is_none_or(|file| name == Some(file)) && client.is_none_or(|client| client == holder)
            };
            for index in 0..shard.delegations.index_end() {
                let Some(held) = shard.delegations.at(index).filter(|d| d.state == State::Held) else { continue };
                if is_meant(&shard, held.file, held.client) {
                    asked.push(ask(runtime, name_of(&names, held.client), CallbackOp::Recall, held.callback));
                }
            }
        }
        if asked.is_empty() { Err(format!("{of}: there is no delegation")) } else { Ok(asked) }
    }

    fn ask_by_hand(&self, runtime: &Runtime, path: &str) -> Result<Vec<Asked>, String> {
        let names = self.names();
        let (shard, _, index) = self.files.live(self.file_at(path)?).map_err(|status| format!("{path}: {status}"))?;
        let held = shard.delegations_of(index).filter_map(|d| Some((d.client, d.query()?.callback)));
        let asked: Vec<Asked> =
            held.map(|(client, key)| ask(runtime, name_of(&names, client), CallbackOp::Getattr, key)).collect();
        if asked.is_empty() { Err(format!("{path}: nobody holds a write delegation")) } else { Ok(asked) }
    }

    /// Who would not hear of it is recalled.
    fn notify_by_hand(&self, runtime: &Runtime, path: &str) -> Result<Vec<Asked>, String> {
        let (directory, names) = (self.file_at(path)?, self.names());
        let told =
            self.files.renew_cookies(directory, &self.callbacks).map_err(|status| format!("{path}: {status}"))?;
        let call = |(client, op, key)| ask(runtime, name_of(&names, client), op, key);
        let asked: Vec<Asked> = told.into_iter().map(call).collect();
        if asked.is_empty() { Err(format!("{path}: nobody holds a delegation of it")) } else { Ok(asked) }
    }

    fn notify_waiters_by_hand(&self, runtime: &Runtime, path: &str) -> Result<Vec<Asked>, String> {
        let (file, names) = (self.file_at(path)?, self.names());
        let (mut shard, _, index) = self.files.live(file).map_err(|status| format!("{path}: {status}"))?;
        let mut asked = Vec::new();
        for (client, callback) in shard.waiters_of(index) {
            asked.push(ask(runtime, name_of(&names, client), CallbackOp::NotifyLock, callback));
        }
        // They are told at most once.
        self.files.notify_waiters_where(&mut shard, index, &self.callbacks, |_, _| true);
        if asked.is_empty() { Err(format!("{path}: nobody waits for a lock")) } else { Ok(asked) }
    }

    fn end_copies_by_hand(&self, runtime: &Runtime, path: &str) -> Result<Vec<Asked>, String> {
        let ended = self.copies.end_those_to(self.file_at(path)?);
        let asked: Vec<Asked> =
            ended.into_iter().map(|(client, key)| ask(runtime, client.name(), CallbackOp::Offload, key)).collect();
        if asked.is_empty() { Err(format!("{path}: nothing is being copied to it")) } else { Ok(asked) }
    }

    fn push_by_hand(&self, runtime: &Runtime, client: &str, path: &str, write: bool) -> Result<Vec<Asked>, String> {
        let (client, file) = (self.known(client)?, self.file_at(path)?);
        let granted = self.files.grant_wanted(file, &client, write, self.now_s(), &self.callbacks);
        let why = match granted.map_err(|status| format!("{path}: {status}"))? {
            Ok(delegation) => {
                let callback = self.offer(&client, delegation).ok_or("there are too many callbacks")?;
                return Ok(vec![ask(runtime, client.name(), CallbackOp::PushDeleg, callback)]);
            }
            Err(OpenNoneDelegation4::Contention { .. }) => "somebody is in the way",
            Err(OpenNoneDelegation4::Resource { .. }) => "there are too many delegations",
            Err(OpenNoneDelegation4::WriteNotSupportedFileType) => "the server gives none for writing",
            Err(OpenNoneDelegation4::IsDirectory | OpenNoneDelegation4::NotSupportedFileType) => {
                "it is no regular file"
            }
            Err(_) => "the client holds one",
        };
        Err(format!("{path}: it cannot be delegated: {why}"))
    }

    fn cancel_by_hand(&self, runtime: &Runtime, client: Option<&str>) -> Result<Vec<Asked>, String> {
        let only = client.map(|name| self.known(name)).transpose()?;
        let told = self.cancel_wants(|c| only.as_ref().is_none_or(|only| std::ptr::eq(&**only, c)));
        let asked: Vec<Asked> = told
            .into_iter()
            .map(|(client, key)| ask(runtime, client.name(), CallbackOp::WantsCancelled, key))
            .collect();
        if asked.is_empty() { Err("nobody waits for a delegation".to_owned()) } else { Ok(asked) }
    }

    fn recall_slots_by_hand(&self, runtime: &Runtime, slots: u32) -> Result<Vec<Asked>, String> {
        let target = slots.max(1) - 1;
        let mut asked = Vec::new();
        for (client, session) in self.limit_session_slots(slots) {
            let args = CbRecallSlotArgs { target_highest_slot_id: target };
            asked.extend(self.send_to(runtime, &client, CallbackOp::RecallSlot, &args, Some(session))?);
        }
        Ok(asked)
    }

    fn recall_layouts(&self, runtime: &Runtime, client: &str, of: &Layouts) -> Result<Vec<Asked>, String> {
        let handle;
        let recall = match of {
            Layouts::File(path) => {
                handle = self.files.handle(self.file_at(path)?);
                let fh = FileHandle::new(&handle).ok_or("a handle that is too long")?;
                // Whatever the client has: a layout that was given to it is recalled with its stateid by `Request::LayoutRecallFile`.
                LayoutRecall::File { fh, offset: 0, length: u64::MAX, stateid: Stateid4::ANONYMOUS }
            }
            Layouts::Fsid => LayoutRecall::Fsid(Fsid4 { major: self.files.instance.into(), minor: 0 }),
            Layouts::All => LayoutRecall::All,
        };
        let (layout_type, iomode) = (LayoutType4::FLEX_FILES, LayoutIomode4::Any);
        let args = CbLayoutRecallArgs { layout_type, iomode, changed: false, recall };
        self.send(runtime, client, CallbackOp::LayoutRecall, &args)
    }

    fn send(&self, runtime: &Runtime, client: &str, op: CallbackOp, args: &dyn Encode) -> Result<Vec<Asked>, String> {
        self.send_to(runtime, &*self.known(client)?, op, args, None)
    }

    /// Sends a callback that is about nothing the server has, on one session or on any.
    fn send_to(
        &self,
        runtime: &Runtime,
        client: &Client,
        op: CallbackOp,
        args: &dyn Encode,
        session: Option<SessionKey>,
    ) -> Result<Vec<Asked>, String> {
        let mut space = [0; ARGS_BYTES_MAX];
        let mut w = Writer::new(&mut space);
        args.encode(&mut w).map_err(|e| e.to_string())?;
        let mut sent = self.by_hand.lock();
        let full = "there are too many callbacks";
        let id = sent.insert(Sent { args: w.written().to_vec(), callback: None }).ok_or(full)?;
        let cookie = Subject::ByHand(id).cookie();
        let inserted = match session {
            Some(session) => runtime.insert_recall_slot(session, cookie),
            None => runtime.insert(client.callbacks, op, cookie),
        };
        match inserted {
            Ok(callback) => {
                if let Some(sent) = sent.get_mut(id) {
                    sent.callback = Some(callback);
                }
                drop(sent);
                Ok(vec![ask(runtime, client.name(), op, callback)])
            }
            Err(error) => {
                sent.remove(id);
                Err(format!("{}: {error}", client.name()))
            }
        }
    }
}

fn name_of(names: &HashMap<u32, String>, client: u32) -> String {
    names.get(&client).cloned().unwrap_or_default()
}

fn ask(runtime: &Runtime, client: String, op: CallbackOp, key: CallbackKey) -> Asked {
    let (_, wait) = runtime.run_and_wait(key);
    Asked { client, op, wait }
}

/// What became of a callback.
fn in_words(op: CallbackOp, ended: &Result<Ended, WaitError>) -> String {
    let ended = match ended {
        Ok(ended) => ended,
        Err(WaitError::TimedOut) => return "no answer yet; it goes on".to_owned(),
        Err(WaitError::TooLate) => return "another one is being decided; it goes after that".to_owned(),
        Err(error) => return format!("not sent: {error}"),
    };
    match ended.outcome() {
        Outcome::Replied { status: Status::NFS4_OK, results } if op == CallbackOp::Getattr => {
            match Reported::parse(results) {
                Ok(Some(reported)) => format!("NFS4_OK, {reported}"),
                _ => "NFS4_OK, without what it was asked for".to_owned(),
            }
        }
        Outcome::Replied { status, .. } => status.to_string(),
        Outcome::Refused => "not sent: there is nothing to be said any more".to_owned(),
        Outcome::Unencodable(error) => format!("not sent: {error}"),
        Outcome::TimedOut { sent: true } => "no answer".to_owned(),
        Outcome::TimedOut { sent: false } | Outcome::PathDown => "not sent: the client is not reached".to_owned(),
        Outcome::Courtesy => "not sent: the client's lease has expired".to_owned(),
        Outcome::Cancelled { .. } => "the client or the server goes away".to_owned(),
        Outcome::DeliveredUnknown => "its answer was lost".to_owned(),
        Outcome::Fault(fault) => format!("it refuses what its backchannel sends: {fault:?}"),
        other => format!("{other:?}"),
    }
}
