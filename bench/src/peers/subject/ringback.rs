//! ringback itself, as an embedder drives it.

use super::super::job::{Load, Subject, Submit};
use super::super::wire::{self, Template};
use super::{Gauge, Sender};
use ringback::{
    Backend, Builder, Call, CallbackKey, CallbackOp, Done, ForeChannel, Hooks, Outcome, Run, Runtime, TryRun,
};
use ringback_rpc::nfs4::Status;
use ringback_rpc::xdr::{self, XdrError, XdrErrorKind};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

/// Delegations of a client for each callback outstanding: the next one is never still running.
const DELEGATIONS_PER_OUTSTANDING: u32 = 2;

/// So many recalls before it is asked for, an entry is announced.
const PREFETCH_AHEAD: usize = 4;

/// One client's delegations.
struct Client {
    template: Template,
    keys: Vec<CallbackKey>,
    /// The next to be recalled.
    next: AtomicUsize,
}

/// An embedder with delegations, and a file server's least work for each.
struct Embedder {
    gauge: Arc<Gauge>,
    submit: Submit,
    prefetch: bool,
    clients: OnceLock<Vec<Client>>,
    runtime: OnceLock<Runtime>,
    /// Runs that are over, for a submitter that waits until there are fewer.
    ended: AtomicU64,
    /// How often it is woken: once for so many.
    wake_every: u64,
    submitter: OnceLock<Thread>,
}

/// A callback is encoded before its client is known, which does not happen.
const UNKNOWN: XdrError = XdrError { what: "the embedder's clients", offset: 0, kind: XdrErrorKind::EncoderFailed };

fn cookie(client: usize, number: usize) -> u64 {
    (client as u64) << 32 | number as u64
}

impl Hooks for Embedder {
    fn encode(&self, run: &Run, args: &mut xdr::Writer<'_>) -> xdr::Result<()> {
        let client = &self.clients.get().ok_or(UNKNOWN)?[(run.cookie >> 32) as usize];
        client.template.encode_recall(run.cookie & u64::from(u32::MAX), args)
    }

    fn done(&self, _: &Run, outcome: &Outcome<'_>) -> Done {
        if !matches!(outcome, Outcome::Replied { status: Status::NFS4_OK, .. }) {
            self.gauge.failed.fetch_add(1, Relaxed);
        }
        Done::Finish
    }

    fn drop_reference(&self, cookie: u64) {
        if self.submit == Submit::SameThread {
            // One of its delegations has just ended, so there is one.
            if !self.gauge.stopped() && !self.recall_next((cookie >> 32) as usize) {
                self.gauge.failed.fetch_add(1, Relaxed);
            }
            return;
        }
        let ended = self.ended.load(Relaxed) + 1;
        self.ended.store(ended, Relaxed);
        if ended.is_multiple_of(self.wake_every)
            && let Some(submitter) = self.submitter.get()
        {
            submitter.unpark();
        }
    }
}

impl ForeChannel for Embedder {
    fn call(&self, _: Call<'_>) {}
}

impl Embedder {
    /// Recalls the client's next delegation that is not being recalled. `false`: there is none.
    fn recall_next(&self, client: usize) -> bool {
        let (Some(clients), Some(runtime)) = (self.clients.get(), self.runtime.get()) else { return false };
        let client = &clients[client];
        for _ in 0..client.keys.len() {
            let at = client.next.load(Relaxed);
            client.next.store(if at + 1 == client.keys.len() { 0 } else { at + 1 }, Relaxed);
            if self.prefetch
                && let Some(ahead) = client.keys.get(at + PREFETCH_AHEAD)
            {
                runtime.prefetch(*ahead);
            }
            match runtime.try_run(client.keys[at]) {
                TryRun::Submitted | TryRun::Rearmed => return true,
                TryRun::Coalesced => {}
                _ => _ = self.gauge.failed.fetch_add(1, Relaxed),
            }
        }
        false
    }

    /// The other thread: as many in flight as the load says, and asleep until half of them are over.
    fn submit(&self, clients: usize, outstanding: u64) {
        let (mut submitted, mut client) = (0, 0);
        let burst = (self.wake_every / clients as u64).max(1);
        while !self.gauge.stopped() {
            while submitted - self.ended.load(Relaxed) < outstanding {
                // A burst of conflicts tends to be about one client's files. All of those may be on their way.
                submitted += (0..burst).take_while(|_| self.recall_next(client)).count() as u64;
                client = (client + 1) % clients;
            }
            std::thread::park();
        }
    }
}

/// Starts a runtime with a client on each socket, and the load on it.
pub(super) fn start(load: &Load, sockets: Vec<TcpStream>, gauge: Arc<Gauge>) -> Result<Sender, String> {
    let outstanding = u64::from(load.connections) * u64::from(load.outstanding);
    let embedder = Arc::new(Embedder {
        gauge,
        submit: load.submit,
        prefetch: load.prefetch,
        clients: OnceLock::new(),
        runtime: OnceLock::new(),
        ended: AtomicU64::new(0),
        wake_every: (outstanding / 2).max(1),
        submitter: OnceLock::new(),
    });
    let each = (load.outstanding * DELEGATIONS_PER_OUTSTANDING).max(load.delegations / load.connections);
    let runtime = builder(load.subject)
        .reactors(load.reactors as usize)
        .clients_max(load.connections as usize)
        .callbacks_max(each * load.connections)
        .build(Arc::clone(&embedder) as _, Arc::clone(&embedder) as _)
        .map_err(|e| format!("the runtime cannot be started: {e}"))?;
    let clients = clients(&runtime, load, sockets, each as usize)?;
    let known = embedder.clients.set(clients).is_ok() && embedder.runtime.set(runtime.clone()).is_ok();
    debug_assert!(known, "set once, here");
    let clients = load.connections as usize;
    if load.submit == Submit::OtherThread {
        let submitting = Arc::clone(&embedder);
        let thread = std::thread::spawn(move || submitting.submit(clients, outstanding));
        // Until this is known nobody unparks it: it may have gone to sleep.
        let _ = embedder.submitter.set(thread.thread().clone());
        thread.thread().unpark();
        return Ok(Sender::Ringback(runtime, Some(thread)));
    }
    for _ in 0..load.outstanding {
        (0..clients).for_each(|client| _ = embedder.recall_next(client));
    }
    Ok(Sender::Ringback(runtime, None))
}

/// A runtime for this subject.
pub(super) fn builder(subject: Subject) -> Builder {
    let backend = if subject == Subject::RingbackEpoll { Backend::Epoll } else { Backend::Auto };
    Builder::new().name("peers").backend(backend)
}

/// Registers a client, its session and its delegations for each socket.
fn clients(runtime: &Runtime, load: &Load, sockets: Vec<TcpStream>, delegations: usize) -> Result<Vec<Client>, String> {
    let mut ids = Vec::with_capacity(sockets.len());
    for (index, socket) in sockets.into_iter().enumerate() {
        let config = wire::session_config(index as u32, load.slots, load.operations);
        ids.push(register(runtime, socket, config).map_err(|e| format!("a client cannot be registered: {e}"))?);
    }
    let client = |index| Client {
        template: Template::new(index),
        keys: Vec::with_capacity(delegations),
        next: AtomicUsize::new(0),
    };
    let mut clients: Vec<Client> = (0..ids.len() as u32).map(client).collect();
    // As they come in a file server: one client's are not next to each other.
    for number in 0..delegations {
        for (index, client) in clients.iter_mut().enumerate() {
            let inserted = runtime.insert(ids[index], CallbackOp::Recall, cookie(index, number));
            client.keys.push(inserted.map_err(|e| format!("a delegation cannot be inserted: {e}"))?);
        }
    }
    if load.delegations > 0 {
        let mut numbers = super::super::numbers::Numbers::new(1);
        clients.iter_mut().for_each(|client| numbers.shuffle(&mut client.keys));
    }
    Ok(clients)
}

/// A client with one session on one connection.
pub(super) fn register(
    runtime: &Runtime,
    socket: TcpStream,
    config: ringback::SessionConfig,
) -> Result<ringback::ClientId, ringback::Error> {
    let connection = runtime.add_connection(socket)?;
    let client = runtime.add_client(Some(connection))?;
    let session = runtime.add_session(client, config)?;
    runtime.bind(connection, session)?;
    Ok(client)
}
