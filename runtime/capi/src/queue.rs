//! The queues: completions from the runtime's own queue, and everything else through a mailbox beside it.

use crate::connection::{rb_call, rb_outbound};
use crate::error::{Failure, guard, rb_error};
use crate::hooks::rb_run;
use crate::numbers::rb_outcome;
use crate::pointer::{self, User, give, not_null};
use crate::{rb_client, rb_connection, rb_key, rb_runtime, rb_session};
use crossbeam::queue::SegQueue;
use runtime::{Completion, CompletionQueue};
use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// What a path event says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_event_kind {
    /// The state of the client's callback path changed: `detail` is an rb_path_state.
    RB_EVENT_PATH_STATE = 1,
    /// The session's backchannel does not follow the protocol, the client is to destroy the session: `detail` is an
    /// rb_fault.
    RB_EVENT_BACKCHANNEL_FAULT = 2,
    /// The client says that `connection` does not carry the session's backchannel. The binding is gone.
    RB_EVENT_UNBOUND = 3,
    /// Every connection of the session answered NFS4ERR_BADSESSION: it is not used unless it is bound again.
    RB_EVENT_SESSION_LOST = 4,
    /// What was recalled has not come back by the return deadline: `key` and `cookie`. Told once for each recall; whether to
    /// revoke is the embedder's decision.
    RB_EVENT_RETURN_OVERDUE = 5,
    /// The session, its new parameters or a binding could not be taken: `detail` is an rb_refusal.
    RB_EVENT_SESSION_REFUSED = 6,
    /// Code behind a hook panicked, which a hook in C cannot; it was taken as if it had refused, or returned: `key`, and `text`
    /// has its name.
    RB_EVENT_PANICKED = 7,
    /// There are too many delegations: a CB_RECALL_ANY asks the client, which holds `held`, to keep `keep`.
    RB_EVENT_ASKED_TO_KEEP = 8,
    /// The client was asked to keep `keep` and has given up next to nothing; it holds `held`, of which `recalled` are now
    /// recalled.
    RB_EVENT_ASKED_IN_VAIN = 9,
    /// Memory is short: clients are asked to come down from `held` delegations in all to `keep`.
    RB_EVENT_MEMORY_PRESSURE = 10,
    /// The file of rb_options.memory_pressure tells nothing any more: its cgroup is gone.
    RB_EVENT_MEMORY_PRESSURE_LOST = 11,
    /// What rb_recall_any asked for, to come down to `keep`, is on its way to so many clients: `detail`.
    RB_EVENT_RECALL_ANY_SENT = 12,
    /// The client is at the home that rb_move_client() has asked for: `detail` is the reactor.
    RB_EVENT_MOVED = 13,
    /// A connection is wanted for `session`, a path of minor version 0 without an address: make one, and rb_bind() it.
    RB_EVENT_CONNECTION_WANTED = 14,
    /// The checkpoint of rb_options.checkpoint_file could not be written; the one before it is still there. `text` says why.
    RB_EVENT_CHECKPOINT_FAILED = 15,
    /// Something was asked for while the runtime stood still, and was not done before it left: to be asked for in the next
    /// process. `text` begins with what was called, such as "add_connection" or "try_run"; `client`, `connection` and `key` are
    /// what it was about.
    RB_EVENT_LEFT_UNDONE = 16,
}

/// Something happened to a client's callback path, or did not happen in time. What a kind does not name is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_event {
    /// An rb_event_kind.
    pub kind: i32,
    /// See rb_event_kind.
    pub detail: i32,
    /// The client.
    pub client: rb_client,
    /// The session.
    pub session: rb_session,
    /// The connection.
    pub connection: rb_connection,
    /// The callback.
    pub key: rb_key,
    /// Its cookie.
    pub cookie: u64,
    /// Delegations.
    pub held: u64,
    /// Delegations.
    pub keep: u64,
    /// Delegations.
    pub recalled: u64,
    /// All of it in one line for the log, with every count and reason; the client is not in it. Never null. It lives until the
    /// hook returns, or until the next rb_queue_poll() or rb_queue_release() of the queue that has told it.
    pub text: *const c_char,
}

// SAFETY: the pointer is the reader's to follow, who was told for how long.
unsafe impl Send for rb_event {}

impl Default for rb_event {
    fn default() -> Self {
        let (client, session, connection, key, cookie) = Default::default();
        let (kind, detail, held, keep, recalled) = Default::default();
        let text = c"".as_ptr();
        rb_event { kind, detail, client, session, connection, key, cookie, held, keep, recalled, text }
    }
}

/// What an item of a queue is about.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum rb_item_kind {
    /// A run has ended: `completion`. Exactly one for each run that was accepted.
    RB_ITEM_COMPLETION = 1,
    /// `event`.
    RB_ITEM_EVENT = 2,
    /// A fore-channel call arrived: `call`, which is the embedder's from now on, to be given up with rb_call_reply() or
    /// rb_call_free().
    RB_ITEM_CALL = 3,
    /// A connection is gone: `closed`.
    RB_ITEM_CLOSED = 4,
    /// Records to be sent through an embedder's transport: `outbound`, which is the embedder's from now on, to be given up
    /// with rb_outbound_complete(). There is never more than one of a transport.
    RB_ITEM_SEND = 5,
    /// An embedder's transport is to hand in nothing more for now: `user`.
    RB_ITEM_PAUSE = 6,
    /// It may go on: `user`.
    RB_ITEM_RESUME = 7,
    /// The runtime is done with an embedder's transport: `user`. What is under way on it must not be sent any more.
    RB_ITEM_CLOSE = 8,
    /// What rb_wait_notify(), rb_run_many() or rb_drain_start() asked for has come about: `user`.
    RB_ITEM_NOTICE = 9,
}

/// The end of a run. The object behind the cookie may be looked at until the next rb_queue_poll() or rb_queue_release() of
/// the same queue.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_completion {
    /// Which.
    pub run: rb_run,
    /// How.
    pub outcome: rb_outcome,
}

/// A fore-channel call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_call_item {
    /// The connection on which it arrived.
    pub connection: rb_connection,
    /// Names it, and holds the record.
    pub call: *mut rb_call,
    /// The record, without its mark: an RPC call header and the arguments. It lives as long as `call`.
    pub record: *const u8,
    /// Its length.
    pub record_bytes: usize,
}

/// Records to be sent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_send_item {
    /// As it was given to rb_add_transport().
    pub user: *mut c_void,
    /// The connection.
    pub connection: rb_connection,
    /// Names it, and holds the bytes.
    pub outbound: *mut rb_outbound,
    /// The bytes: one record or several, each with its mark. They live as long as `outbound`, and do not move.
    pub bytes: *const u8,
    /// How many.
    pub bytes_count: usize,
}

/// What an item says, by its kind.
#[repr(C)]
#[derive(Clone, Copy)]
pub union rb_item_body {
    /// RB_ITEM_COMPLETION.
    pub completion: rb_completion,
    /// RB_ITEM_EVENT.
    pub event: rb_event,
    /// RB_ITEM_CALL.
    pub call: rb_call_item,
    /// RB_ITEM_CLOSED.
    pub closed: rb_connection,
    /// RB_ITEM_SEND.
    pub send: rb_send_item,
    /// RB_ITEM_PAUSE, RB_ITEM_RESUME, RB_ITEM_CLOSE, RB_ITEM_NOTICE: as it was given.
    pub user: *mut c_void,
    /// Room for what may come.
    pub reserved: [u64; 15],
}

/// One thing that a queue tells. An item of an unknown kind is to be ignored.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rb_item {
    /// An rb_item_kind.
    pub kind: i32,
    /// 0.
    pub reserved: i32,
    /// What it says.
    pub body: rb_item_body,
}

const _: () = assert!(size_of::<rb_item>() == 128);

impl rb_item {
    fn new(kind: rb_item_kind, body: rb_item_body) -> Self {
        rb_item { kind: kind as i32, reserved: 0, body }
    }

    fn completion(completion: &Completion) -> Self {
        let told = rb_completion { run: completion.into(), outcome: completion.ending.into() };
        rb_item::new(rb_item_kind::RB_ITEM_COMPLETION, rb_item_body { completion: told })
    }
}

/// What is not a completion.
pub enum Message {
    Event(rb_event, CString),
    Call(Box<rb_call>),
    Closed {
        connection: rb_connection,
    },
    Send {
        user: User,
        outbound: Box<rb_outbound>,
    },
    /// RB_ITEM_PAUSE, RB_ITEM_RESUME, RB_ITEM_CLOSE or RB_ITEM_NOTICE.
    About {
        kind: rb_item_kind,
        user: User,
    },
}

impl Message {
    /// The item that tells of it. The texts that it names live as long as they are in `texts`.
    fn into_item(self, texts: &mut Vec<CString>) -> rb_item {
        let (kind, body) = match self {
            Message::Event(event, text) => {
                let event = rb_event { text: text.as_ptr(), ..event };
                // What it points to stays where it is.
                texts.push(text);
                (rb_item_kind::RB_ITEM_EVENT, rb_item_body { event })
            }
            Message::Call(call) => {
                let record = call.record();
                let (connection, record, record_bytes) = (call.connection(), record.as_ptr(), record.len());
                let call = rb_call_item { connection, call: Box::into_raw(call), record, record_bytes };
                (rb_item_kind::RB_ITEM_CALL, rb_item_body { call })
            }
            Message::Closed { connection } => (rb_item_kind::RB_ITEM_CLOSED, rb_item_body { closed: connection }),
            Message::Send { user, outbound } => {
                let (connection, bytes) = (outbound.connection(), outbound.bytes());
                let (bytes, bytes_count) = (bytes.as_ptr(), bytes.len());
                let outbound = Box::into_raw(outbound);
                let send = rb_send_item { user: user.0, connection, outbound, bytes, bytes_count };
                (rb_item_kind::RB_ITEM_SEND, rb_item_body { send })
            }
            Message::About { kind, user } => (kind, rb_item_body { user: user.0 }),
        };
        rb_item::new(kind, body)
    }
}

/// Messages of any thread for who polls a queue.
pub struct Mailbox {
    messages: SegQueue<Message>,
    waker: Waker,
}

impl Mailbox {
    pub fn new(waker: Waker) -> Self {
        Mailbox { messages: SegQueue::new(), waker }
    }

    pub fn post(&self, message: Message) {
        self.messages.push(message);
        self.waker.wake_by_ref();
    }

    /// Takes the messages off that fit; the others stay, in their order.
    pub fn extract(&self, fits: impl Fn(&Message) -> bool) -> Vec<Message> {
        let there: Vec<_> = std::iter::from_fn(|| self.messages.pop()).collect();
        let (taken, left): (Vec<_>, Vec<_>) = there.into_iter().partition(fits);
        left.into_iter().for_each(|message| self.messages.push(message));
        taken
    }
}

/// Posts one notice when it is woken, however often that is: who asks for it wakes it himself if there is nothing to wait
/// for any more, and may not be the only one.
pub struct Notice {
    mailbox: Arc<Mailbox>,
    user: User,
    posted: AtomicBool,
}

impl Notice {
    pub fn waker(queue: &rb_queue, user: User) -> Waker {
        Waker::from(Arc::new(Notice { mailbox: Arc::clone(&queue.mailbox), user, posted: AtomicBool::new(false) }))
    }
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        if !self.posted.swap(true, Relaxed) {
            self.mailbox.post(Message::About { kind: rb_item_kind::RB_ITEM_NOTICE, user: self.user });
        }
    }
}

/// A queue: opened by rb_queue_open(), given up by rb_queue_free(). It may outlive its runtime. Any thread may poll it, and
/// each item is told to one of them; but a poll releases what the last one gave to whomever.
pub struct rb_queue {
    queue: CompletionQueue,
    pub mailbox: Arc<Mailbox>,
    batch: Mutex<Vec<Completion>>,
    /// Of the events that the last poll has told of.
    texts: Mutex<Vec<CString>>,
    /// Whether the place that cannot be halved is a completion's.
    odd: AtomicBool,
}

impl rb_queue {
    /// Moves messages into `items`; how many.
    fn take_messages(&self, items: &mut [MaybeUninit<rb_item>]) -> usize {
        let mut taken = 0;
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(item) = items.get_mut(taken)
            && let Some(message) = self.mailbox.messages.pop()
        {
            item.write(message.into_item(&mut texts));
            taken += 1;
        }
        taken
    }

    fn forget_texts(&self) {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn poll(&self, items: &mut [MaybeUninit<rb_item>]) -> usize {
        self.forget_texts();
        // Half of the place at first, so that neither kind keeps the other waiting; the odd place is each one's in turn.
        let odd = usize::from(!self.odd.fetch_xor(true, Relaxed));
        let first = (items.len() + odd) / 2;
        let mut taken = self.take_messages(&mut items[..first]);
        // Taken out: a hook may be called meanwhile, and may poll.
        let mut batch = std::mem::take(&mut *self.batch.lock().unwrap_or_else(PoisonError::into_inner));
        self.queue.poll(&mut batch, items.len() - taken);
        for completion in batch.drain(..) {
            items[taken].write(rb_item::completion(&completion));
            taken += 1;
        }
        *self.batch.lock().unwrap_or_else(PoisonError::into_inner) = batch;
        // Last: if there was no completion, who posts from here on makes the descriptor readable.
        taken += self.take_messages(&mut items[taken..]);
        // Who has posted what is left has done so already.
        if !self.mailbox.messages.is_empty() {
            self.mailbox.waker.wake_by_ref();
        }
        taken
    }
}

/// Opens queue number `number` of a runtime, counted from 0. It tells of clients whose home reactor, and of connections whose
/// reactor, has that number, or that number plus a multiple of the number of queues.
#[unsafe(no_mangle)]
pub extern "C" fn rb_queue_open(
    runtime: Option<&rb_runtime>,
    number: u32,
    queue: Option<&mut MaybeUninit<*mut rb_queue>>,
) -> c_int {
    guard("rb_queue_open", String::new, || {
        let queue = not_null(queue, "queue")?;
        queue.write(std::ptr::null_mut());
        let runtime = not_null(runtime, "runtime")?;
        let number = number as usize;
        let (Some(completions), Some(mailbox)) =
            (runtime.runtime.completion_queue(number), runtime.mailboxes.get(number))
        else {
            let text = format!("there are {} queues, and no queue {number}", runtime.mailboxes.len());
            return Err(Failure::new(rb_error::RB_ERR_INVALID, text));
        };
        give(
            queue,
            rb_queue {
                queue: completions,
                mailbox: Arc::clone(mailbox),
                batch: Mutex::default(),
                texts: Mutex::default(),
                odd: AtomicBool::new(false),
            },
        );
        Ok(0)
    })
}

/// The queue's descriptor, to be polled for reading with poll(), epoll or io_uring, and not to be read or closed: it is
/// readable while rb_queue_poll() has something to give.
#[unsafe(no_mangle)]
pub extern "C" fn rb_queue_fd(queue: Option<&rb_queue>) -> c_int {
    guard("rb_queue_fd", String::new, || Ok(not_null(queue, "queue")?.queue.as_fd().as_raw_fd()))
}

/// Takes up to `items_max` items, and releases the runs whose completions the last call gave. Gives how many; never blocks.
/// Call it until it gives 0: then the last runs are released, and the descriptor is not readable until something comes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_queue_poll(queue: Option<&rb_queue>, items: *mut rb_item, items_max: usize) -> c_int {
    guard("rb_queue_poll", String::new, || {
        let queue = not_null(queue, "queue")?;
        if items_max == 0 {
            return Err(Failure::new(rb_error::RB_ERR_INVALID, "items_max is 0"));
        }
        // SAFETY: P2
        let items = unsafe { pointer::slice_out(items, items_max.min(c_int::MAX as usize), "items") }?;
        Ok(queue.poll(items) as c_int)
    })
}

/// Releases the runs whose completions the last rb_queue_poll() gave, without taking more.
#[unsafe(no_mangle)]
pub extern "C" fn rb_queue_release(queue: Option<&rb_queue>) -> c_int {
    guard("rb_queue_release", String::new, || {
        let queue = not_null(queue, "queue")?;
        queue.forget_texts();
        queue.queue.release();
        Ok(0)
    })
}

/// Gives a queue up. What it would tell is kept, and told when it is opened again.
#[unsafe(no_mangle)]
pub extern "C" fn rb_queue_free(queue: Option<&mut *mut rb_queue>) -> c_int {
    guard("rb_queue_free", String::new, || {
        // SAFETY: P1
        drop(unsafe { pointer::take(queue, "queue") }?);
        Ok(0)
    })
}
