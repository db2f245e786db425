//! The embedder's hooks, as the runtime calls them.

use crate::args::{rb_args, rb_referring};
use crate::carried::{self, Carried};
use crate::checkpoint::{rb_own, rb_restored};
use crate::connection::rb_call;
use crate::numbers::{self, rb_outcome};
use crate::pointer::Versioned;
use crate::queue::{Mailbox, Message, rb_event};
use crate::{rb_client, rb_connection, rb_key};
use ringback_rpc::xdr::{self, XdrError, XdrErrorKind};
use runtime::{
    Call, ClientId, Completion, ConnectionId, Done, Ending, Event, ForeChannel, Hooks, Outcome, Prepare,
    ReferringCalls, Restored, Run,
};
use std::ffi::{CString, c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;

/// One run of a callback.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct rb_run {
    /// The callback.
    pub key: rb_key,
    /// The embedder's own value, given to rb_insert().
    pub cookie: u64,
    /// The client that is called.
    pub client: rb_client,
    /// Nanoseconds since it was accepted; in a completion, until its outcome was known.
    pub age_ns: u64,
    /// An rb_op.
    pub op: i32,
    /// 0.
    pub reserved: i32,
}

impl From<&Run> for rb_run {
    fn from(run: &Run) -> Self {
        rb_run {
            key: run.key.to_bits(),
            cookie: run.cookie,
            client: run.client.to_bits(),
            age_ns: run.age_ns,
            op: run.op as i32,
            reserved: 0,
        }
    }
}

impl From<&Completion> for rb_run {
    fn from(run: &Completion) -> Self {
        rb_run {
            key: run.key.to_bits(),
            cookie: run.cookie,
            client: run.client.to_bits(),
            age_ns: run.age_ns,
            op: run.op as i32,
            reserved: 0,
        }
    }
}

/// The answer of the prepare hook.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_prepare {
    /// Send it.
    RB_PREPARE_SEND = 0,
    /// There is nothing to send any more: the run ends as RB_ENDED_REFUSED.
    RB_PREPARE_REFUSE = 1,
}

/// The answer of the done hook that ends the run. Any value from 0 on asks for it to be sent again after so many nanoseconds,
/// within the run deadline; possible after RB_ENDED_REPLIED, RB_ENDED_DELIVERED_UNKNOWN and RB_ENDED_FAULT.
pub const RB_DONE_FINISH: i64 = -1;

/// What the runtime asks of the embedder. Set `size`, `encode`, and what else is wanted; null: nothing to say. All are
/// called with `user`, on a reactor's thread (but `acquire`), must not block, and must not unwind: a C++ exception that
/// leaves one ends the process. They may call rb_try_run() and rb_remove(), and nothing that waits.
///
/// For each accepted run: `acquire` in the thread that asked for it, `prepare` once, `encode` for every transmission, `done`
/// when an outcome is known; then its completion is on a queue, if there are queues, until the next rb_queue_poll() after the
/// one that gave it; then `release`, once, and `drop_reference`, unless it was asked for again meanwhile and runs once more
/// with the same reference.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rb_hooks {
    /// sizeof(rb_hooks).
    pub size: usize,
    /// Handed to every hook.
    pub user: *mut c_void,
    /// Writes the arguments with one of rb_encode_...(), from what stays unchanged between prepare and release: every
    /// transmission must be the same bytes. 0, or a negative number: the run ends as RB_ENDED_UNENCODABLE.
    pub encode: Option<extern "C" fn(user: *mut c_void, run: *const rb_run, args: *mut rb_args) -> c_int>,
    /// Takes a reference to the object behind the cookie.
    pub acquire: Option<extern "C" fn(user: *mut c_void, cookie: u64)>,
    /// Last look before the first transmission of a run: an rb_prepare.
    pub prepare: Option<extern "C" fn(user: *mut c_void, run: *const rb_run) -> c_int>,
    /// Names with rb_name_call() the fore-channel calls whose replies the callback must not overtake: the OPEN that granted
    /// what is recalled (RFC 8881 section 2.10.6.3), until the client has used its session slot with a later sequence id.
    /// Never a call whose reply waits for this callback. Like encode it is asked for each transmission, and must say the
    /// same from prepare to release. A callback that names calls is never sent together with others.
    pub referring_calls: Option<extern "C" fn(user: *mut c_void, run: *const rb_run, calls: *mut rb_referring)>,
    /// How it went. `results`: what follows the status in the client's answer, for rb_decode_getattr(). RB_DONE_FINISH, or
    /// nanoseconds after which it is sent again.
    pub done: Option<
        extern "C" fn(
            user: *mut c_void,
            run: *const rb_run,
            outcome: *const rb_outcome,
            results: *const u8,
            results_bytes: usize,
        ) -> i64,
    >,
    /// The last touch of the run.
    pub release: Option<extern "C" fn(user: *mut c_void, run: *const rb_run)>,
    /// Gives back the reference that acquire took.
    pub drop_reference: Option<extern "C" fn(user: *mut c_void, cookie: u64)>,
    /// Something happened to a client's callback path. If null, it is told on queue 0.
    pub event: Option<extern "C" fn(user: *mut c_void, event: *const rb_event)>,
    /// A fore-channel call arrived, which is the embedder's from now on. If null, it is told on a queue; with
    /// RB_DELIVERY_INLINE, which has none, nobody answers it, and it counts against calls_unanswered_max.
    pub call: Option<extern "C" fn(user: *mut c_void, call: *mut rb_call)>,
    /// A connection is gone. If null, it is told on a queue.
    pub closed: Option<extern "C" fn(user: *mut c_void, connection: rb_connection)>,
    /// A client holds too many delegations, and has given up too few of its own choice: starts the recall (rb_try_run()) of
    /// up to `count` that are not on recall yet, the least recently used first, and says how many those were. Called on the
    /// reaper's own thread, where it may take locks, but not wait for the runtime. If null, none are recalled.
    pub recall_least_recently_used: Option<extern "C" fn(user: *mut c_void, client: rb_client, count: usize) -> usize>,
    /// A callback comes back from rb_options.restore. 1: it is known by `*cookie` from now on, which is the one that it had
    /// unless it is changed; of one that is in flight, the embedder holds the reference that acquire took. 0: what it is about
    /// is there no more; then it is gone, and no hook is called for a run of it. Called by rb_runtime_new(), before
    /// anything else. If null, all come back as they were.
    pub restored: Option<extern "C" fn(user: *mut c_void, callback: *const rb_restored, cookie: *mut u64) -> c_int>,
    /// Adds what the embedder wants to have in a checkpoint, with rb_checkpoint_add(). Called in the thread that writes it.
    pub checkpoint: Option<extern "C" fn(user: *mut c_void, own: *mut rb_own)>,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_hooks {
    const NAME: &'static str = "rb_hooks";
}

/// The embedder behind its hooks.
pub struct Embedder {
    hooks: HookTable,
    /// Set right after the runtime was built, when there are no clients and no connections yet.
    mailboxes: OnceLock<Arc<[Arc<Mailbox>]>>,
    handing_over: Mutex<HandingOver>,
}

/// Whether a checkpoint is that of an upgrade.
#[derive(Default)]
enum HandingOver {
    #[default]
    No,
    /// The next one that this thread writes. Others may be written at an interval.
    By(ThreadId),
    /// What was on the queues is in the checkpoint.
    Taken(Carried),
}

/// Functions are the same on every thread; what `user` points at is the embedder's, who was told.
struct HookTable(rb_hooks);

// SAFETY: the pointer is a number to us.
unsafe impl Send for HookTable {}
// SAFETY: as for `Send`.
unsafe impl Sync for HookTable {}

impl Embedder {
    pub fn new(hooks: rb_hooks) -> Self {
        Embedder { hooks: HookTable(hooks), mailboxes: OnceLock::new(), handing_over: Mutex::default() }
    }

    pub fn connect(&self, mailboxes: Arc<[Arc<Mailbox>]>) {
        // Only once, by who has built the runtime.
        let _ = self.mailboxes.set(mailboxes);
    }

    fn hooks(&self) -> &rb_hooks {
        &self.hooks.0
    }

    fn mailboxes(&self) -> &[Arc<Mailbox>] {
        self.mailboxes.get().map_or(&[], |mailboxes| mailboxes)
    }

    fn handing_over(&self) -> MutexGuard<'_, HandingOver> {
        self.handing_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next checkpoint that this thread writes is that of an upgrade. `false`: another thread is at it.
    pub fn begin_upgrade(&self) -> bool {
        let mut handing_over = self.handing_over();
        let is_free = matches!(*handing_over, HandingOver::No);
        if is_free {
            *handing_over = HandingOver::By(std::thread::current().id());
        }
        is_free
    }

    /// The upgrade has come to an end: what was taken off the queues is elsewhere now, or comes back.
    pub fn end_upgrade(&self, handed_over: bool) {
        if let HandingOver::Taken(carried) = std::mem::take(&mut *self.handing_over())
            && !handed_over
        {
            carried.put_back(self.mailboxes());
        }
    }

    /// Tells what was on the queues of the process before.
    pub fn go_on(&self, own: &[u8]) {
        for message in carried::messages(carried::split(own).1) {
            match message {
                Message::Call(call) => {
                    let reactor = ConnectionId::from_bits(call.connection()).reactor();
                    self.tell_call(reactor, call);
                }
                Message::Closed { connection } => self.closed(ConnectionId::from_bits(connection)),
                Message::Event(event, text) => self.tell_event(event, text),
                Message::Send { .. } | Message::About { .. } => {}
            }
        }
    }

    fn tell_event(&self, told: rb_event, text: CString) {
        match self.hooks().event {
            Some(event) => event(self.hooks().user, &rb_event { text: text.as_ptr(), ..told }),
            None => self.tell(0, Message::Event(told, text)),
        }
    }

    fn tell_call(&self, reactor: usize, call: Box<rb_call>) {
        match self.hooks().call {
            Some(hook) => hook(self.hooks().user, Box::into_raw(call)),
            None => self.tell(reactor, Message::Call(call)),
        }
    }

    /// Tells something on a queue, if there are queues. With none and no hook nobody wants to know.
    fn tell(&self, reactor: usize, message: Message) {
        if let Some(mailboxes) = self.mailboxes.get()
            && let Some(number) = reactor.checked_rem(mailboxes.len())
        {
            mailboxes[number].post(message);
        }
    }
}

impl Hooks for Embedder {
    fn acquire(&self, cookie: u64) {
        if let Some(acquire) = self.hooks().acquire {
            acquire(self.hooks().user, cookie);
        }
    }

    fn prepare(&self, run: &Run) -> Prepare {
        match self.hooks().prepare {
            Some(prepare) if prepare(self.hooks().user, &run.into()) != rb_prepare::RB_PREPARE_SEND as c_int => {
                Prepare::Refuse
            }
            _ => Prepare::Send,
        }
    }

    fn referring_calls(&self, run: &Run, calls: &mut ReferringCalls<'_>) {
        if let Some(referring_calls) = self.hooks().referring_calls {
            referring_calls(self.hooks().user, &run.into(), &mut rb_referring(calls));
        }
    }

    fn encode(&self, run: &Run, writer: &mut xdr::Writer<'_>) -> xdr::Result<()> {
        let offset = writer.position();
        let mut args = rb_args::new(run.op, writer);
        // `rb_runtime_new` has seen that it is there.
        let answer = self.hooks().encode.map_or(-1, |encode| encode(self.hooks().user, &run.into(), &mut args));
        match (answer, args.finish()) {
            (0, written) => written,
            (_, Err(error)) => Err(error),
            (value, Ok(())) => {
                let kind = XdrErrorKind::BadValue { value: i64::from(value) as u64 };
                Err(XdrError { what: "rb_hooks.encode", offset, kind })
            }
        }
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        let Some(done) = self.hooks().done else { return Done::Finish };
        let mut told = rb_outcome::from(Ending::from(outcome));
        let mut results: &[u8] = &[];
        if let Outcome::Replied { status, results: bytes } = outcome {
            (told.status, results) = (status.0, bytes);
        }
        let answer = done(self.hooks().user, &run.into(), &told, results.as_ptr(), results.len());
        u64::try_from(answer).map_or(Done::Finish, Done::RequeueAfter)
    }

    fn release(&self, run: &Run) {
        if let Some(release) = self.hooks().release {
            release(self.hooks().user, &run.into());
        }
    }

    fn drop_reference(&self, cookie: u64) {
        if let Some(drop_reference) = self.hooks().drop_reference {
            drop_reference(self.hooks().user, cookie);
        }
    }

    fn recall_least_recently_used(&self, client: ClientId, count: usize) -> usize {
        let recall = self.hooks().recall_least_recently_used;
        recall.map_or(0, |recall| recall(self.hooks().user, client.to_bits(), count))
    }

    fn restored(&self, callback: &Restored) -> Option<u64> {
        let mut cookie = callback.cookie;
        let Some(restored) = self.hooks().restored else { return Some(cookie) };
        let kept = restored(self.hooks().user, &callback.into(), &mut cookie) != 0;
        kept.then_some(cookie)
    }

    fn checkpoint(&self, out: &mut Vec<u8>) {
        if let Some(checkpoint) = self.hooks().checkpoint {
            checkpoint(self.hooks().user, &mut rb_own(out));
        }
        let mut handing_over = self.handing_over();
        if matches!(*handing_over, HandingOver::By(thread) if thread == std::thread::current().id()) {
            let carried = Carried::take(self.mailboxes());
            carried.append(out);
            *handing_over = HandingOver::Taken(carried);
        }
    }

    fn event(&self, event: &Event) {
        if let Some((told, text)) = rb_event::new(event) {
            self.tell_event(told, text);
        }
    }
}

impl ForeChannel for Embedder {
    fn call(&self, call: Call<'_>) {
        let reactor = call.connection().reactor();
        self.tell_call(reactor, Box::new(rb_call::new(call)));
    }

    fn closed(&self, connection: ConnectionId) {
        match self.hooks().closed {
            Some(closed) => closed(self.hooks().user, connection.to_bits()),
            None => self.tell(connection.reactor(), Message::Closed { connection: connection.to_bits() }),
        }
    }
}

impl rb_event {
    /// What is told of an event, and its text. `None`: something that this version of the interface has no number for.
    pub fn new(event: &Event) -> Option<(Self, CString)> {
        use crate::queue::rb_event_kind::*;
        let mut told = rb_event::default();
        let kind = match event {
            Event::PathState { client, state } => {
                (told.client, told.detail) = (client.to_bits(), numbers::path_state(*state));
                RB_EVENT_PATH_STATE
            }
            Event::BackchannelFault { session, fault } => {
                (told.session, told.detail) = ((*session).into(), numbers::fault(fault.kind()));
                RB_EVENT_BACKCHANNEL_FAULT
            }
            Event::Unbound { session, connection } => {
                (told.session, told.connection) = ((*session).into(), connection.to_bits());
                RB_EVENT_UNBOUND
            }
            Event::SessionLost { session } => {
                told.session = (*session).into();
                RB_EVENT_SESSION_LOST
            }
            Event::ReturnOverdue { key, cookie, client } => {
                (told.key, told.cookie, told.client) = (key.to_bits(), *cookie, client.to_bits());
                RB_EVENT_RETURN_OVERDUE
            }
            Event::Panicked { key, .. } => {
                told.key = key.map_or(0, runtime::CallbackKey::to_bits);
                RB_EVENT_PANICKED
            }
            Event::SessionRefused { session, error } => {
                (told.session, told.detail) = ((*session).into(), numbers::refusal(*error));
                RB_EVENT_SESSION_REFUSED
            }
            Event::AskedToKeep { client, held, keep } => {
                (told.client, told.held, told.keep) = (client.to_bits(), u64::from(*held), u64::from(*keep));
                RB_EVENT_ASKED_TO_KEEP
            }
            Event::AskedInVain { client, held, keep, recalled } => {
                (told.client, told.held, told.keep) = (client.to_bits(), u64::from(*held), u64::from(*keep));
                told.recalled = (*recalled).into();
                RB_EVENT_ASKED_IN_VAIN
            }
            Event::MemoryPressure { held, keep } => {
                (told.held, told.keep) = (*held, *keep);
                RB_EVENT_MEMORY_PRESSURE
            }
            Event::RecallAnySent { keep, clients } => {
                (told.keep, told.detail) = (*keep, i32::try_from(*clients).unwrap_or(i32::MAX));
                RB_EVENT_RECALL_ANY_SENT
            }
            Event::MemoryPressureLost => RB_EVENT_MEMORY_PRESSURE_LOST,
            Event::Moved { client, reactor } => {
                // There are 1,024 at most.
                (told.client, told.detail) = (client.to_bits(), *reactor as i32);
                RB_EVENT_MOVED
            }
            Event::ConnectionWanted { path } => {
                told.session = (*path).into();
                RB_EVENT_CONNECTION_WANTED
            }
            Event::CheckpointFailed { .. } => RB_EVENT_CHECKPOINT_FAILED,
            Event::LeftUndone { client, connection, key, .. } => {
                told.client = client.map_or(0, ClientId::to_bits);
                told.connection = connection.map_or(0, ConnectionId::to_bits);
                told.key = key.map_or(0, runtime::CallbackKey::to_bits);
                RB_EVENT_LEFT_UNDONE
            }
            _ => return None,
        };
        told.kind = kind as i32;
        if told.session.serial != 0 {
            told.client = told.session.client;
        }
        // A zero would end it too early: some of it may be the embedder's text.
        Some((told, CString::new(event.to_string().replace('\0', " ")).unwrap_or_default()))
    }
}
