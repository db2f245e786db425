//! The callback client that an author writes on an async runtime: a semaphore for the session slots, a map from xid to
//! the oneshot of whoever waits, and a channel to the task that writes.

use super::super::wire::{self, CALL_BYTES, Called};
use super::Gauge;
use ringback_rpc::record::MARK_BYTES;
use ringback_rpc::xdr::Writer;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, Semaphore, oneshot};

/// One client, and the session on its connection.
pub struct Client {
    index: u32,
    /// How long a reply is waited for.
    patience: Option<Duration>,
    permits: Semaphore,
    session: Mutex<Session>,
    /// Who waits for which reply.
    waiting: Mutex<HashMap<u32, oneshot::Sender<bool>>>,
    records: UnboundedSender<Vec<u8>>,
}

struct Session {
    free: Vec<u32>,
    sequence: Vec<u32>,
    xid: u32,
}

/// What is to be written on the client's connection.
pub type Records = UnboundedReceiver<Vec<u8>>;

impl Client {
    /// The client with this number. `patience`: how long it waits for a reply; `None`: for ever, which spares it a timer.
    pub fn new(index: u32, slots: u32, patience: Option<Duration>) -> (Arc<Client>, Records) {
        let (records, to_write) = unbounded_channel();
        let session = Session { free: (0..slots).rev().collect(), sequence: vec![0; slots as usize], xid: 0 };
        let client = Client {
            index,
            patience,
            permits: Semaphore::new(slots as usize),
            session: Mutex::new(session),
            waiting: Mutex::default(),
            records,
        };
        (Arc::new(client), to_write)
    }

    /// Recalls a delegation. Whether the client said NFS4_OK.
    pub async fn recall(&self, number: u64) -> bool {
        let Ok(_permit) = self.permits.acquire().await else { return false };
        let (reply, replied) = oneshot::channel();
        let Some((slot, xid, record)) = self.call(number) else { return false };
        lock(&self.waiting).insert(xid, reply);
        if self.records.send(record).is_err() {
            return false;
        }
        let Some(patience) = self.patience else {
            let fine = replied.await.unwrap_or(false);
            lock(&self.session).free.push(slot);
            return fine;
        };
        match tokio::time::timeout(patience, replied).await {
            Ok(fine) => {
                lock(&self.session).free.push(slot);
                fine.unwrap_or(false)
            }
            // The session slot is taken until its reply comes (RFC 8881 section 2.10.6.1), which is counted as failed here.
            Err(_) => {
                lock(&self.waiting).remove(&xid);
                false
            }
        }
    }

    fn call(&self, number: u64) -> Option<(u32, u32, Vec<u8>)> {
        let mut session = lock(&self.session);
        let slot = session.free.pop()?;
        session.xid = session.xid.wrapping_add(1);
        let sequence = &mut session.sequence[slot as usize];
        *sequence = sequence.wrapping_add(1);
        let (sequence_id, highest) = (*sequence, session.sequence.len() as u32 - 1);
        let called = Called { xid: session.xid, slot, sequence_id, highest, recalls: 1 };
        let mut record = vec![0; CALL_BYTES];
        wire::encode_call(self.index, &called, number, &mut Writer::new(&mut record)).ok()?;
        Some((slot, called.xid, record))
    }

    /// Takes the replies out of what has been read, and leaves what is no whole record yet.
    pub fn take(&self, input: &mut Vec<u8>) {
        let mut rest = &input[..];
        while let Some(record) = wire::record_bytes(rest).and_then(|len| rest.get(..len)) {
            rest = &rest[record.len()..];
            // What cannot be read leaves its callback without an answer, which the counts show.
            let Ok((xid, fine)) = wire::decode_reply(&record[MARK_BYTES..]) else { continue };
            if let Some(reply) = lock(&self.waiting).remove(&xid) {
                // Whoever does not wait any more need not know.
                let _ = reply.send(fine);
            }
        }
        let done = input.len() - rest.len();
        input.drain(..done);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The load: as many tasks as there may be callbacks outstanding, each of which begins the next one when it ends.
pub struct Flow {
    gauge: Arc<Gauge>,
    tasks: AtomicUsize,
    ended: Notify,
}

impl Flow {
    /// Starts tasks for one callback each, in the runtime that the caller is in.
    pub fn start(clients: &[Arc<Client>], outstanding: u32, gauge: Arc<Gauge>) -> Arc<Flow> {
        let tasks = clients.len() * outstanding as usize;
        let flow = Arc::new(Flow { gauge, tasks: AtomicUsize::new(tasks), ended: Notify::new() });
        for number in 0..outstanding {
            clients.iter().for_each(|client| flow.next(Arc::clone(client), number.into()));
        }
        flow
    }

    fn next(self: &Arc<Self>, client: Arc<Client>, number: u64) {
        let flow = Arc::clone(self);
        tokio::spawn(async move {
            let fine = client.recall(number).await;
            let counter = if fine { &flow.gauge.completed } else { &flow.gauge.failed };
            counter.fetch_add(1, Relaxed);
            if fine && !flow.gauge.stopped() {
                flow.next(client, number.wrapping_add(1));
            } else if flow.tasks.fetch_sub(1, Relaxed) == 1 {
                flow.ended.notify_one();
            }
        });
    }

    /// Ends when the load has been stopped and all callbacks have been answered.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }
}
