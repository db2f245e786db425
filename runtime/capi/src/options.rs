//! Building a runtime.

use crate::checkpoint::rb_checkpoint;
use crate::error::{Failure, guard, rb_error};
use crate::hooks::{Embedder, rb_hooks};
use crate::log::{CLog, rb_log_message};
use crate::path::asking;
use crate::pointer::{self, Versioned, give, not_null};
use crate::queue::Mailbox;
use crate::rb_runtime;
use crate::upgrade::rb_upgrade;
use runtime::{Backend, Budget, Builder, ClientLimits, ConnectPolicy, CpuList};
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a runtime. Set `size` and leave at 0 what is to have its default; the defaults and limits are in
/// docs/src/limits.md.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rb_options {
    /// sizeof(rb_options).
    pub size: usize,
    /// An rb_backend.
    pub backend: i32,
    /// Reactor threads. Default: one per processor.
    pub reactors: u32,
    /// An rb_delivery.
    pub delivery: i32,
    /// RB_DELIVERY_QUEUE: how many queues, at most one for each reactor. Default: 1.
    pub queues: u32,
    /// Most callbacks, of all clients together.
    pub callbacks_max: u32,
    /// Most clients.
    pub clients_max: u32,
    /// The lease of the file server (RFC 8881 section 8.3), from which other times follow.
    pub lease_ms: u64,
    /// A run ends this long after it was accepted, wherever it is.
    pub run_deadline_ms: u64,
    /// What a CB_RECALL or CB_LAYOUTRECALL asks for is overdue this long after it was first sent.
    pub return_deadline_ms: u64,
    /// A call without a reply for this long makes its connection suspect.
    pub rpc_timeout_ms: u64,
    /// Largest record on a connection, either way.
    pub record_bytes_max: u64,
    /// Bytes that may wait to be sent on one connection; with more, receiving from it pauses.
    pub unsent_bytes_max: u64,
    /// Fore-channel calls of one connection that may wait for an answer; with more, receiving from it pauses.
    pub calls_unanswered_max: u32,
    /// Most callbacks of a client in one CB_COMPOUND, where the client allows more than one.
    pub batch_max: u32,
    /// Receive buffers of each reactor: how many, a power of two. Only together with the next.
    pub receive_buffers: u32,
    /// Size of a receive buffer.
    pub receive_buffer_bytes: u32,
    /// Calls that are out at once to each client; 0: as many as its sessions have slots. See rb_set_client_limits().
    pub client_calls_max: u32,
    /// Callbacks sent to each client per second; 0: any number.
    pub client_rate_max: u32,
    /// Not 0: measure how long callbacks take, for rb_metrics_text().
    pub latency: u32,
    /// Steps that each reactor's flight recorder keeps, for rb_flight_text(); 0: there is none.
    pub flight_records: u32,
    /// Begins the names of the reactor threads; null: "ringback". Is copied.
    pub name: *const c_char,
    /// Delegations before clients are asked to keep fewer; 0: any number. See rb_set_budget().
    pub budget: u64,
    /// Where the kernel tells of memory pressure: "/proc/pressure/memory", or the memory.pressure of a cgroup; null: nowhere.
    pub memory_pressure: *const c_char,
    /// To where connections to clients of minor version 0 are made: an rb_connect_policy.
    pub connect_policy: i32,
    /// Most of these that each reactor makes at the same time.
    pub connects_max: u32,
    /// How long making one may take.
    pub connect_timeout_ms: u64,
    /// CPUs to pin the reactors to, such as "0-3,8"; null: none.
    pub cpus: *const c_char,
    /// Takes what an operator must know; null: nobody is told. The rules are those of rb_hooks: on a reactor's thread it must
    /// not block, and nowhere wait for the runtime. Of each kind of message there are few in a second.
    pub log: Option<extern "C" fn(user: *mut c_void, message: *const rb_log_message)>,
    /// Handed to `log`; null, if that is null.
    pub log_user: *mut c_void,
    /// Go on where this checkpoint was written, which stays the caller's: clients, sessions and callbacks are what they were,
    /// under the names that they had. The restored hook is asked about each callback. Null: from nothing.
    pub restore: *const rb_checkpoint,
    /// Write a checkpoint to this file every `checkpoint_interval_ms`; null: do not. Is copied.
    pub checkpoint_file: *const c_char,
    /// At least a second. Only together with `checkpoint_file`.
    pub checkpoint_interval_ms: u64,
    /// RB_CONNECT_ASK: whether to connect to an address, for a client whose SETCLIENTID came from `peer`; 1 for yes. Both are a
    /// struct sockaddr_in or sockaddr_in6, which are gone when it returns. It is asked in rb_set_client_id(), on the
    /// thread that calls that, and never about port 0 or an address that is no host's.
    pub connect_allows: Option<
        extern "C" fn(
            user: *mut c_void,
            address: *const u8,
            address_bytes: usize,
            peer: *const u8,
            peer_bytes: usize,
        ) -> c_int,
    >,
    /// Handed to `connect_allows`; null, if that is null.
    pub connect_user: *mut c_void,
    /// Go on where the process stands still that this was received from, which stays the caller's: as with `restore`, and
    /// connections come along under the names that they had. The runtime stands still until rb_upgrade_confirm(). Null: not.
    pub upgrade: *const rb_upgrade,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_options {
    const NAME: &'static str = "rb_options";
}

impl rb_options {
    fn builder(&self) -> Result<Builder, Failure> {
        let invalid = |text: String| Failure::new(rb_error::RB_ERR_INVALID, text);
        let backend = match self.backend {
            0 => Backend::Auto,
            1 => Backend::Uring,
            2 => Backend::Epoll,
            other => return Err(invalid(format!("backend is {other}, which is no rb_backend"))),
        };
        let queues = match (self.delivery, self.queues) {
            (0, 0) => 1,
            (0, queues) => queues as usize,
            (1, 0) => 0,
            (1, _) => return Err(invalid("queues are set, and RB_DELIVERY_INLINE has none".to_owned())),
            (other, _) => return Err(invalid(format!("delivery is {other}, which is no rb_delivery"))),
        };
        let limits = ClientLimits::default().calls_max(self.client_calls_max).rate_max(self.client_rate_max);
        let mut builder = Builder::new().backend(backend).completion_queues(queues).client_limits(limits);
        builder = builder.latency(self.latency != 0).flight_records(self.flight_records as usize);
        builder = builder.connect_policy(self.connecting()?);
        if self.connects_max > 0 {
            builder = builder.connects_max(self.connects_max as usize);
        }
        if self.reactors > 0 {
            builder = builder.reactors(self.reactors as usize);
        }
        if self.callbacks_max > 0 {
            builder = builder.callbacks_max(self.callbacks_max);
        }
        if self.clients_max > 0 {
            builder = builder.clients_max(self.clients_max as usize);
        }
        if self.calls_unanswered_max > 0 {
            builder = builder.calls_unanswered_max(self.calls_unanswered_max as usize);
        }
        if self.batch_max > 0 {
            builder = builder.batch_max(self.batch_max);
        }
        self.buffers(self.times(self.logging(self.checkpoints(builder)?)?))
    }

    fn checkpoints(&self, mut builder: Builder) -> Result<Builder, Failure> {
        if !self.restore.is_null() && !self.upgrade.is_null() {
            return Err(Failure::new(rb_error::RB_ERR_INVALID, "restore and upgrade are both set"));
        }
        // SAFETY: P1
        if let Some(checkpoint) = unsafe { self.restore.as_ref() } {
            builder = builder.restore(&checkpoint.0);
        }
        // SAFETY: P1
        if let Some(upgrade) = unsafe { self.upgrade.as_ref() } {
            builder = builder.upgrade_from(upgrade.inner());
        }
        if self.checkpoint_file.is_null() != (self.checkpoint_interval_ms == 0) {
            let text = "checkpoint_file and checkpoint_interval_ms are set together, or neither";
            return Err(Failure::new(rb_error::RB_ERR_INVALID, text));
        }
        if !self.checkpoint_file.is_null() {
            // SAFETY: P2, for a string that ends with a zero.
            let file = unsafe { pointer::path(self.checkpoint_file, "checkpoint_file") }?;
            builder = builder.checkpoint_every(Duration::from_millis(self.checkpoint_interval_ms), file);
        }
        Ok(builder)
    }

    fn connecting(&self) -> Result<ConnectPolicy, Failure> {
        let invalid = |text: String| Err(Failure::new(rb_error::RB_ERR_INVALID, text));
        let alone = self.connect_allows.is_none() && self.connect_user.is_null();
        match (self.connect_policy, self.connect_allows) {
            (3, Some(allows)) => Ok(asking(allows, self.connect_user)),
            (3, None) => invalid("connect_policy is RB_CONNECT_ASK, and connect_allows is null".to_owned()),
            (0..=2, _) if !alone => invalid("connect_allows or connect_user is set, and not RB_CONNECT_ASK".to_owned()),
            (0, _) => Ok(ConnectPolicy::Peer),
            (1, _) => Ok(ConnectPolicy::Any),
            (2, _) => Ok(ConnectPolicy::Nowhere),
            (other, _) => invalid(format!("connect_policy is {other}, which is no rb_connect_policy")),
        }
    }

    fn logging(&self, builder: Builder) -> Result<Builder, Failure> {
        match self.log {
            Some(log) => Ok(builder.log(CLog::new(log, self.log_user))),
            None if self.log_user.is_null() => Ok(builder),
            None => Err(Failure::new(rb_error::RB_ERR_INVALID, "log_user is set, and log is null")),
        }
    }

    fn times(&self, mut builder: Builder) -> Builder {
        let time = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        if let Some(lease) = time(self.lease_ms) {
            builder = builder.lease(lease);
        }
        if let Some(deadline) = time(self.run_deadline_ms) {
            builder = builder.run_deadline(deadline);
        }
        if let Some(deadline) = time(self.return_deadline_ms) {
            builder = builder.return_deadline(deadline);
        }
        if let Some(timeout) = time(self.rpc_timeout_ms) {
            builder = builder.rpc_timeout(timeout);
        }
        if let Some(timeout) = time(self.connect_timeout_ms) {
            builder = builder.connect_timeout(timeout);
        }
        builder
    }

    fn buffers(&self, mut builder: Builder) -> Result<Builder, Failure> {
        // What does not fit into a usize is beyond every limit.
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        if self.record_bytes_max > 0 {
            builder = builder.record_bytes_max(size(self.record_bytes_max));
        }
        if self.unsent_bytes_max > 0 {
            builder = builder.unsent_bytes_max(size(self.unsent_bytes_max));
        }
        match (u16::try_from(self.receive_buffers), self.receive_buffer_bytes) {
            (Ok(0), 0) => {}
            (Ok(count), bytes) if count.is_power_of_two() && bytes > 0 => {
                builder = builder.receive_buffers(count, bytes);
            }
            _ => {
                let text =
                    "receive_buffers must be a power of two up to 32768, and receive_buffer_bytes be set with it";
                return Err(Failure::new(rb_error::RB_ERR_INVALID, text));
            }
        }
        if !self.name.is_null() {
            // SAFETY: P2, for a string that ends with a zero.
            let name = unsafe { pointer::text(self.name, "name") }?;
            builder = builder.name(&name.to_string_lossy());
        }
        if !self.cpus.is_null() {
            // SAFETY: P2, for a string that ends with a zero.
            let cpus = unsafe { pointer::text(self.cpus, "cpus") }?.to_string_lossy();
            let bad = |error| Failure::new(rb_error::RB_ERR_INVALID, format!("cpus is \"{cpus}\": {error}"));
            builder = builder.cpus(cpus.parse::<CpuList>().map_err(bad)?);
        }
        if self.budget > 0 {
            builder = builder.budget(Budget::delegations(self.budget));
        }
        if !self.memory_pressure.is_null() {
            // SAFETY: P2, for a string that ends with a zero.
            builder = builder.memory_pressure(unsafe { pointer::path(self.memory_pressure, "memory_pressure") }?);
        }
        Ok(builder)
    }
}

/// Makes a runtime and starts its reactors: hooks are called from now on. `options` may be null: all defaults. On an error
/// `*runtime` is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_runtime_new(
    options: *const rb_options,
    hooks: *const rb_hooks,
    runtime: Option<&mut MaybeUninit<*mut rb_runtime>>,
) -> c_int {
    guard("rb_runtime_new", String::new, || {
        let runtime = not_null(runtime, "runtime")?;
        runtime.write(std::ptr::null_mut());
        let options = if options.is_null() {
            None
        } else {
            // SAFETY: P3
            Some(unsafe { pointer::read(options, "options") }?)
        };
        let builder = options.as_ref().map_or_else(|| Ok(Builder::new().completion_queues(1)), rb_options::builder)?;
        // SAFETY: P3
        let hooks = unsafe { pointer::read(hooks, "hooks") }?;
        not_null(hooks.encode, "hooks.encode")?;
        let embedder = Arc::new(Embedder::new(hooks));
        let built = builder.build(embedder.clone(), embedder.clone())?;
        let mailboxes: Arc<[_]> = (0..built.completion_queues())
            .filter_map(|number| built.completion_queue(number))
            .map(|queue| Arc::new(Mailbox::new(queue.waker())))
            .collect();
        embedder.connect(Arc::clone(&mailboxes));
        // SAFETY: P1
        if let Some(upgrade) = options.and_then(|options| unsafe { options.upgrade.as_ref() }) {
            upgrade.is_built_by(&embedder);
        }
        give(runtime, rb_runtime::new(built, embedder, mailboxes));
        Ok(0)
    })
}
