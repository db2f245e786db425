/* ringback: the callback half of an NFSv4 server.
 *
 * Made of the code by `RINGBACK_HEADER=write cargo test -p ringback-capi --test header`; edit that.
 *
 * Functions give 0 or more for success, and say what that number means; or a negative rb_error, of which rb_strerror() says
 * what it means, and rb_last_error() what it was about. Every pointer is checked for null. Handles (rb_runtime, rb_queue,
 * rb_call, ...) are opaque; each has one owner, who gives it up with a function that takes its address and clears it.
 * Structs that begin with `size` are set to zero, and `size` to sizeof, before they are used: later versions may append to
 * them. Functions may be called from any thread, those of one handle too, unless they say otherwise.
 */

#ifndef RINGBACK_H
#define RINGBACK_H

#include <stddef.h>
#include <stdint.h>

// Counts up when a program that was compiled against an earlier header must be compiled again.
#define RB_ABI_VERSION 1

// The answer of the done hook that ends the run. Any value from 0 on asks for it to be sent again after so many nanoseconds,
// within the run deadline; possible after RB_ENDED_REPLIED, RB_ENDED_DELIVERED_UNKNOWN and RB_ENDED_FAULT.
#define RB_DONE_FINISH -1

// Bytes of a result that are kept for who waits.
#define RB_RESULTS_BYTES_MAX 512

// Why a function has not done what it was asked for.
typedef enum rb_error {
    // It has.
    RB_OK = 0,
    // A pointer is null that must not be, or a handle was given up before.
    RB_ERR_NULL = -1,
    // The size in a struct is none that this version knows: it was not set, or the library is older than the program.
    RB_ERR_SIZE = -2,
    // A value is out of range.
    RB_ERR_INVALID = -3,
    // The runtime, or the client, is being drained or has been shut down.
    RB_ERR_CLOSED = -4,
    // Something was to be waited for in a hook, on the thread that would have to do it.
    RB_ERR_IN_HOOK = -5,
    // The reactor has ended, because a hook unwound or its back end failed.
    RB_ERR_REACTOR_ENDED = -6,
    // A limit is reached: of clients, sessions or callbacks.
    RB_ERR_FULL = -7,
    // There is no such client, or not any more.
    RB_ERR_NO_SUCH_CLIENT = -8,
    // There is no such connection.
    RB_ERR_NO_SUCH_CONNECTION = -9,
    // No memory.
    RB_ERR_NO_MEMORY = -10,
    // The back end that was asked for cannot be had here.
    RB_ERR_BACKEND = -11,
    // The system refused something.
    RB_ERR_SYSTEM = -12,
    // A bug of the library: it panicked. What the function was about may be half done.
    RB_ERR_PANIC = -13,
    // There is no run to wait for, and none was just asked for.
    RB_ERR_IDLE = -14,
    // The run that is going on is decided already: ask for another one.
    RB_ERR_TOO_LATE = -15,
    // There is no such callback any more, or no such path to be confirmed.
    RB_ERR_STALE = -16,
    // It did not end in time.
    RB_ERR_TIMED_OUT = -17,
    // It has not ended yet.
    RB_ERR_PENDING = -18,
    // Bytes are not what the protocol says, or an argument cannot be encoded.
    RB_ERR_XDR = -19,
    // The buffer is too small.
    RB_ERR_NO_SPACE = -20,
    // There is no such session, or not any more.
    RB_ERR_NO_SUCH_SESSION = -21,
    // Bytes are no checkpoint that this version reads: something else, truncated, corrupt, or of another version.
    RB_ERR_CHECKPOINT = -22,
    // The runtime is suspended already, is draining, or a hook has asked.
    RB_ERR_BUSY = -23,
    // An upgrade came to nothing: the other process has refused, is gone, of another user or of another version; or no runtime
    // was made of it, or one before.
    RB_ERR_UPGRADE = -24,
} rb_error;

// What drives the sockets.
typedef enum rb_backend {
    // io_uring where everything that is needed works, epoll otherwise.
    RB_BACKEND_AUTO = 0,
    // io_uring, or an error that names what is missing.
    RB_BACKEND_URING = 1,
    // epoll.
    RB_BACKEND_EPOLL = 2,
} rb_backend;

// Where completions, events and fore-channel calls are told.
typedef enum rb_delivery {
    // On queues, each with a descriptor to poll.
    RB_DELIVERY_QUEUE = 0,
    // In hooks, on the reactors' threads.
    RB_DELIVERY_INLINE = 1,
} rb_delivery;

// The operations of the callback program that a server can send (RFC 8881 section 20, RFC 7862 section 16).
typedef enum rb_op {
    // CB_GETATTR.
    RB_CB_GETATTR = 3,
    // CB_RECALL.
    RB_CB_RECALL = 4,
    // CB_LAYOUTRECALL.
    RB_CB_LAYOUTRECALL = 5,
    // CB_NOTIFY.
    RB_CB_NOTIFY = 6,
    // CB_PUSH_DELEG.
    RB_CB_PUSH_DELEG = 7,
    // CB_RECALL_ANY.
    RB_CB_RECALL_ANY = 8,
    // CB_RECALLABLE_OBJ_AVAIL.
    RB_CB_RECALLABLE_OBJ_AVAIL = 9,
    // CB_RECALL_SLOT.
    RB_CB_RECALL_SLOT = 10,
    // CB_WANTS_CANCELLED.
    RB_CB_WANTS_CANCELLED = 12,
    // CB_NOTIFY_LOCK.
    RB_CB_NOTIFY_LOCK = 13,
    // CB_NOTIFY_DEVICEID.
    RB_CB_NOTIFY_DEVICEID = 14,
    // CB_OFFLOAD.
    RB_CB_OFFLOAD = 15,
} rb_op;

// What became of a request to run a callback.
typedef enum rb_try_run_answer {
    // Accepted: there will be one completion.
    RB_RUN_SUBMITTED = 0,
    // A run that is not decided yet serves this request too.
    RB_RUN_COALESCED = 1,
    // The callback is running and will run once more for this request.
    RB_RUN_REARMED = 2,
    // There is no such callback any more.
    RB_RUN_STALE = 3,
    // The callback was removed and is on its way out.
    RB_RUN_DYING = 4,
    // The client or the runtime is being drained; nothing was started.
    RB_RUN_CLOSED = 5,
} rb_try_run_answer;

// What became of a request to remove a callback. In every case no run starts afterwards.
typedef enum rb_remove_answer {
    // Removed.
    RB_REMOVE_REMOVED = 0,
    // It is running, and goes when that run has ended.
    RB_REMOVE_DEFERRED = 1,
    // There is no such callback any more.
    RB_REMOVE_STALE = 2,
    // It was removed already, and is still running or just being freed.
    RB_REMOVE_DYING = 3,
} rb_remove_answer;

// What became of a request to cancel a run.
typedef enum rb_cancel_answer {
    // The run that is going on ends as RB_ENDED_CANCELLED, unless it ends otherwise first.
    RB_CANCEL_ASKED = 0,
    // No run is going on, or its outcome is decided already.
    RB_CANCEL_IDLE = 1,
    // There is no such callback any more.
    RB_CANCEL_STALE = 2,
} rb_cancel_answer;

// What became of the word that what was recalled has come back.
typedef enum rb_returned_answer {
    // The return was awaited, and is not any more.
    RB_RETURNED_NOTED = 0,
    // No return was awaited.
    RB_RETURNED_NOT_AWAITED = 1,
    // There is no such callback any more.
    RB_RETURNED_STALE = 2,
} rb_returned_answer;

// How a run ended. What it says is about the callback, not about the delegation.
typedef enum rb_ending {
    // The client answered; the status is in the outcome.
    RB_ENDED_REPLIED = 0,
    // The prepare hook said that there was nothing to send.
    RB_ENDED_REFUSED = 1,
    // The arguments could not be written, or not in the record size that the session allows. Nothing was sent.
    RB_ENDED_UNENCODABLE = 2,
    // The run deadline passed.
    RB_ENDED_TIMED_OUT = 3,
    // The client had no callback path for a lease after it was told so, while it renewed. Never sent since.
    RB_ENDED_PATH_DOWN = 4,
    // The client is in courtesy.
    RB_ENDED_COURTESY = 5,
    // The client, its session or the whole runtime goes away, or it was cancelled.
    RB_ENDED_CANCELLED = 6,
    // The client took the request; its answer is lost, and this operation must not be executed twice.
    RB_ENDED_DELIVERED_UNKNOWN = 7,
    // The client refuses what the backchannel of its session sends; why is in the outcome.
    RB_ENDED_FAULT = 8,
} rb_ending;

// What is wrong with a callback path.
typedef enum rb_fault {
    // Nothing.
    RB_FAULT_NONE = 0,
    // The RPC was denied.
    RB_FAULT_DENIED = 1,
    // The RPC was accepted and not executed.
    RB_FAULT_NOT_EXECUTED = 2,
    // The compound has no results at all.
    RB_FAULT_NO_RESULTS = 3,
    // CB_SEQUENCE answered for another session, session slot or sequence id.
    RB_FAULT_WRONG_ECHO = 4,
    // A reply could not be decoded.
    RB_FAULT_MALFORMED = 5,
    // No session slot of the session is of any use any more.
    RB_FAULT_NO_SLOTS = 6,
    // The client answers other things, and for a lease has not said where a session slot stands.
    RB_FAULT_NO_ANSWER = 7,
} rb_fault;

// What the file server knows of a client.
typedef enum rb_client_state {
    // It renews its lease.
    RB_CLIENT_ACTIVE = 0,
    // Its lease has expired and its state is kept until somebody wants it: callbacks end as RB_ENDED_COURTESY.
    RB_CLIENT_COURTESY = 1,
    // It is gone, or has a new incarnation: callbacks end as RB_ENDED_CANCELLED.
    RB_CLIENT_EXPIRED = 2,
} rb_client_state;

// State of a client's callback path.
typedef enum rb_path_state {
    // No session was ever bound to a connection.
    RB_PATH_UNKNOWN = 0,
    // Callbacks can be sent.
    RB_PATH_UP = 1,
    // No session has a connection.
    RB_PATH_DOWN = 2,
    // There is a connection, and the client refuses what is sent on it.
    RB_PATH_FAULT = 3,
} rb_path_state;

// Why a session, its new parameters or a binding could not be taken.
typedef enum rb_refusal {
    // There is no such session.
    RB_REFUSED_NO_SUCH_SESSION = 1,
    // The client has as many sessions as are allowed.
    RB_REFUSED_SESSIONS = 2,
    // The sessions of the client have more slots than are allowed.
    RB_REFUSED_SLOTS = 3,
    // The client has as many connections as are allowed.
    RB_REFUSED_CONNECTIONS = 4,
    // Something else, such as a session too small for one operation.
    RB_REFUSED_OTHER = 5,
} rb_refusal;

// The answer of the prepare hook.
typedef enum rb_prepare {
    // Send it.
    RB_PREPARE_SEND = 0,
    // There is nothing to send any more: the run ends as RB_ENDED_REFUSED.
    RB_PREPARE_REFUSE = 1,
} rb_prepare;

// What a path event says.
typedef enum rb_event_kind {
    // The state of the client's callback path changed: `detail` is an rb_path_state.
    RB_EVENT_PATH_STATE = 1,
    // The session's backchannel does not follow the protocol, the client is to destroy the session: `detail` is an
    // rb_fault.
    RB_EVENT_BACKCHANNEL_FAULT = 2,
    // The client says that `connection` does not carry the session's backchannel. The binding is gone.
    RB_EVENT_UNBOUND = 3,
    // Every connection of the session answered NFS4ERR_BADSESSION: it is not used unless it is bound again.
    RB_EVENT_SESSION_LOST = 4,
    // What was recalled has not come back by the return deadline: `key` and `cookie`. Told once for each recall; whether to
    // revoke is the embedder's decision.
    RB_EVENT_RETURN_OVERDUE = 5,
    // The session, its new parameters or a binding could not be taken: `detail` is an rb_refusal.
    RB_EVENT_SESSION_REFUSED = 6,
    // Code behind a hook panicked, which a hook in C cannot; it was taken as if it had refused, or returned: `key`, and `text`
    // has its name.
    RB_EVENT_PANICKED = 7,
    // There are too many delegations: a CB_RECALL_ANY asks the client, which holds `held`, to keep `keep`.
    RB_EVENT_ASKED_TO_KEEP = 8,
    // The client was asked to keep `keep` and has given up next to nothing; it holds `held`, of which `recalled` are now
    // recalled.
    RB_EVENT_ASKED_IN_VAIN = 9,
    // Memory is short: clients are asked to come down from `held` delegations in all to `keep`.
    RB_EVENT_MEMORY_PRESSURE = 10,
    // The file of rb_options.memory_pressure tells nothing any more: its cgroup is gone.
    RB_EVENT_MEMORY_PRESSURE_LOST = 11,
    // What rb_recall_any asked for, to come down to `keep`, is on its way to so many clients: `detail`.
    RB_EVENT_RECALL_ANY_SENT = 12,
    // The client is at the home that rb_move_client() has asked for: `detail` is the reactor.
    RB_EVENT_MOVED = 13,
    // A connection is wanted for `session`, a path of minor version 0 without an address: make one, and rb_bind() it.
    RB_EVENT_CONNECTION_WANTED = 14,
    // The checkpoint of rb_options.checkpoint_file could not be written; the one before it is still there. `text` says why.
    RB_EVENT_CHECKPOINT_FAILED = 15,
    // Something was asked for while the runtime stood still, and was not done before it left: to be asked for in the next
    // process. `text` begins with what was called, such as "add_connection" or "try_run"; `client`, `connection` and `key` are
    // what it was about.
    RB_EVENT_LEFT_UNDONE = 16,
} rb_event_kind;

// What an item of a queue is about.
typedef enum rb_item_kind {
    // A run has ended: `completion`. Exactly one for each run that was accepted.
    RB_ITEM_COMPLETION = 1,
    // `event`.
    RB_ITEM_EVENT = 2,
    // A fore-channel call arrived: `call`, which is the embedder's from now on, to be given up with rb_call_reply() or
    // rb_call_free().
    RB_ITEM_CALL = 3,
    // A connection is gone: `closed`.
    RB_ITEM_CLOSED = 4,
    // Records to be sent through an embedder's transport: `outbound`, which is the embedder's from now on, to be given up
    // with rb_outbound_complete(). There is never more than one of a transport.
    RB_ITEM_SEND = 5,
    // An embedder's transport is to hand in nothing more for now: `user`.
    RB_ITEM_PAUSE = 6,
    // It may go on: `user`.
    RB_ITEM_RESUME = 7,
    // The runtime is done with an embedder's transport: `user`. What is under way on it must not be sent any more.
    RB_ITEM_CLOSE = 8,
    // What rb_wait_notify(), rb_run_many() or rb_drain_start() asked for has come about: `user`.
    RB_ITEM_NOTICE = 9,
} rb_item_kind;

// How much a message matters; what matters most comes first.
typedef enum rb_log_level {
    // Something is broken, here or in the embedder: somebody has to mend it.
    RB_LOG_ERROR = 1,
    // Something does not work as it should, such as the path to a client.
    RB_LOG_WARN = 2,
    // What is good to know.
    RB_LOG_INFO = 3,
    // What is good to know while looking for a mistake.
    RB_LOG_DEBUG = 4,
} rb_log_level;

// What a CB_LAYOUTRECALL recalls.
typedef enum rb_layoutrecall_kind {
    // A range of one file: `fh`, `offset`, `length`, `stateid`.
    RB_LAYOUTRECALL_FILE = 1,
    // Everything in one file system: `fsid_major`, `fsid_minor`.
    RB_LAYOUTRECALL_FSID = 2,
    // Everything.
    RB_LAYOUTRECALL_ALL = 3,
} rb_layoutrecall_kind;

// What a directory notification says (RFC 8881 section 20.4, notify_type4).
typedef enum rb_notify_kind {
    // Attributes of an entry changed: `entry`.
    RB_NOTIFY_CHILD_ATTRS = 0,
    // Attributes of the directory changed: `entry`.
    RB_NOTIFY_DIR_ATTRS = 1,
    // An entry was removed: `entry`, `cookie`.
    RB_NOTIFY_REMOVE = 2,
    // An entry was added: `entry`; perhaps `replaced`, `cookie` and `previous`.
    RB_NOTIFY_ADD = 3,
    // An entry was renamed: `old_entry`, `old_cookie`, and the rest as for an added one.
    RB_NOTIFY_RENAME = 4,
    // The cookie verifier changed: `verifier_old`, `verifier_new`.
    RB_NOTIFY_VERIFIER = 5,
} rb_notify_kind;

// Where a callback in flight is.
typedef enum rb_stage {
    // It waits for its turn, for a session slot or for a callback path.
    RB_STAGE_QUEUED = 0,
    // It was put back and waits for a delay to pass.
    RB_STAGE_DELAYED = 1,
    // It is on the wire.
    RB_STAGE_SENT = 2,
    // It is on the wire of a connection that is up, for longer than the RPC timeout.
    RB_STAGE_UNANSWERED = 3,
    // It keeps its session slot and is to be sent again.
    RB_STAGE_RESENDING = 4,
} rb_stage;

// Which part of a callback's life was measured.
typedef enum rb_latency_stage {
    // From the accepted rb_try_run() until the home reactor has handed the run to its client.
    RB_LATENCY_QUEUED = 0,
    // From the accepted rb_try_run() until it was prepared to be sent.
    RB_LATENCY_UNSENT = 1,
    // From the last transmission of a call until its reply.
    RB_LATENCY_WIRE = 2,
    // From the accepted rb_try_run() until the end.
    RB_LATENCY_DONE = 3,
} rb_latency_stage;

// Which callbacks were measured.
typedef enum rb_class {
    // Somebody waits for the answer: CB_GETATTR.
    RB_CLASS_WAITED = 0,
    // Recalls: CB_RECALL, CB_LAYOUTRECALL, CB_NOTIFY_LOCK.
    RB_CLASS_RECALL = 1,
    // Everything else.
    RB_CLASS_BACKGROUND = 2,
} rb_class;

// Where the arguments of an operation go: of use within the encode hook that was given it.
typedef struct rb_args rb_args;

// A fore-channel call that waits for its answer.
typedef struct rb_call rb_call;

// A checkpoint that was read and found valid: given up by rb_checkpoint_free().
typedef struct rb_checkpoint rb_checkpoint;

// A drain under way, of a thread that must not be blocked by it: given up by rb_drain_free().
typedef struct rb_drain rb_drain;

// Callbacks that were asked for together: given up by rb_group_free() or rb_group_block().
typedef struct rb_group rb_group;

// Records on their way out through an embedder's transport.
typedef struct rb_outbound rb_outbound;

// Where the embedder's own part of a checkpoint goes: of use within the checkpoint hook that was given it.
typedef struct rb_own rb_own;

// A queue: opened by rb_queue_open(), given up by rb_queue_free(). It may outlive its runtime. Any thread may poll it, and
// each item is told to one of them; but a poll releases what the last one gave to whomever.
typedef struct rb_queue rb_queue;

// Finds the records in the bytes that a transport receives: RPC's record marks (RFC 5531 section 11).
typedef struct rb_reader rb_reader;

// Where the fore-channel calls go that a callback depends on: of use within the referring_calls hook that was given it.
typedef struct rb_referring rb_referring;

// A runtime: made by rb_runtime_new(), and given up by rb_runtime_free(). All functions may be called from any thread.
typedef struct rb_runtime rb_runtime;

// A look at everything at one moment: given up by rb_snapshot_free(). What it tells is numbered from 0; functions that are given
// a number answer 1 if there is such a one, and 0 behind the last one.
typedef struct rb_snapshot rb_snapshot;

// A runtime that stands still: given up by rb_suspended_leave() or rb_suspended_free().
typedef struct rb_suspended rb_suspended;

// Everything that another process had, which stands still meanwhile: given up by rb_upgrade_confirm() or rb_upgrade_free().
typedef struct rb_upgrade rb_upgrade;

// The end of a run, to be waited for: given up by rb_wait_free() or rb_wait_block().
typedef struct rb_wait rb_wait;

// Bytes of the caller.
typedef struct rb_bytes {
    // Where; may be null if there are none.
    const uint8_t *data;
    // How many.
    size_t count;
} rb_bytes;

// A stateid (RFC 8881 section 3.3.12).
typedef struct rb_stateid {
    // Counts the changes of that state.
    uint32_t seqid;
    // Names the state.
    uint8_t other[12];
} rb_stateid;

// A set of small numbers (RFC 8881 section 3.2, bitmap4): number n is bit n mod 32 of word n / 32.
typedef struct rb_bitmap {
    // The words.
    uint32_t words[8];
} rb_bitmap;

// Attributes (RFC 8881 section 3.3.7): the values stand in ascending order of their bits, encoded as the protocol says.
typedef struct rb_fattr {
    // Which.
    struct rb_bitmap mask;
    // Their values.
    struct rb_bytes values;
} rb_fattr;

// A directory entry.
typedef struct rb_notify_entry {
    // Its name.
    struct rb_bytes name;
    // Its attributes, as many as the client asked for.
    struct rb_fattr attributes;
    // Its READDIR cookie.
    uint64_t cookie;
} rb_notify_entry;

// One change of a directory. What a kind does not name is not looked at.
typedef struct rb_notification {
    // An rb_notify_kind.
    int32_t kind;
    // RB_NOTIFY_ADD, RB_NOTIFY_RENAME: 1 if `entry.cookie` is to be told.
    int32_t has_cookie;
    // 1 if the entry is the last of the directory.
    int32_t is_last;
    // 0.
    int32_t reserved;
    // The entry.
    struct rb_notify_entry entry;
    // RB_NOTIFY_RENAME: what it was before.
    struct rb_notify_entry old_entry;
    // RB_NOTIFY_ADD, RB_NOTIFY_RENAME: the entry that was replaced; null: none.
    const struct rb_notify_entry *replaced;
    // RB_NOTIFY_ADD, RB_NOTIFY_RENAME: the entry before it; null: not told.
    const struct rb_notify_entry *previous;
    // RB_NOTIFY_VERIFIER.
    uint8_t verifier_old[8];
    // RB_NOTIFY_VERIFIER.
    uint8_t verifier_new[8];
} rb_notification;

// CB_NOTIFY (RFC 8881 section 20.4).
typedef struct rb_notify_args {
    // The directory delegation.
    struct rb_stateid stateid;
    // The directory.
    struct rb_bytes fh;
    // What changed.
    const struct rb_notification *changes;
    // How many.
    size_t changes_count;
} rb_notify_args;

// CB_NOTIFY_LOCK (RFC 8881 section 20.11): a lock may be had.
typedef struct rb_notify_lock_args {
    // The file.
    struct rb_bytes fh;
    // The client id of who asked for the lock.
    uint64_t client_id;
    // Who asked for it, at most 1024 bytes.
    struct rb_bytes owner;
} rb_notify_lock_args;

// One change of a device id.
typedef struct rb_device_notification {
    // 1: it is deleted; 0: its addresses changed.
    int32_t is_deleted;
    // The layout type (layouttype4).
    uint32_t layout_type;
    // The device id.
    uint8_t device_id[16];
    // Changed: 1 if the old addresses must not be used any more.
    int32_t immediate;
} rb_device_notification;

// CB_GETATTR (RFC 8881 section 20.1).
typedef struct rb_getattr_args {
    // The file.
    struct rb_bytes fh;
    // The attributes asked for.
    struct rb_bitmap request;
} rb_getattr_args;

// CB_RECALL (RFC 8881 section 20.2).
typedef struct rb_recall_args {
    // The delegation.
    struct rb_stateid stateid;
    // 1 if the file is about to be truncated.
    int32_t truncate;
    // The file.
    struct rb_bytes fh;
} rb_recall_args;

// CB_LAYOUTRECALL (RFC 8881 section 20.3).
typedef struct rb_layoutrecall_args {
    // The layout type (layouttype4).
    uint32_t layout_type;
    // For which use (layoutiomode4): 1 read, 2 read and write, 3 any.
    uint32_t iomode;
    // 1 if the layout is going to change.
    int32_t changed;
    // An rb_layoutrecall_kind.
    int32_t kind;
    // The file.
    struct rb_bytes fh;
    // First byte.
    uint64_t offset;
    // Number of bytes; all ones: to the end.
    uint64_t length;
    // The layout.
    struct rb_stateid stateid;
    // The file system.
    uint64_t fsid_major;
    // The file system.
    uint64_t fsid_minor;
} rb_layoutrecall_args;

// CB_PUSH_DELEG (RFC 8881 section 20.5): a delegation that was wanted.
typedef struct rb_push_deleg_args {
    // The file.
    struct rb_bytes fh;
    // The delegation.
    struct rb_stateid stateid;
    // 1: a write delegation.
    int32_t is_write;
    // A write delegation: 1 if the limit is `limit_blocks` of `limit_block_bytes`, 0 if it is `limit_bytes`.
    int32_t is_limit_in_blocks;
    // How large the file may become.
    uint64_t limit_bytes;
    // Modified blocks.
    uint32_t limit_blocks;
    // Size of a block.
    uint32_t limit_block_bytes;
    // Who needs no ACCESS to open (nfsace4): type.
    uint32_t ace_type;
    // Flags.
    uint32_t ace_flag;
    // What is allowed.
    uint32_t ace_mask;
    // 0.
    uint32_t reserved;
    // Whom it is about.
    struct rb_bytes ace_who;
} rb_push_deleg_args;

// CB_RECALL_ANY (RFC 8881 section 20.6) and CB_RECALLABLE_OBJ_AVAIL (section 20.7).
typedef struct rb_recall_any_args {
    // How many objects the client may keep.
    uint32_t objects_to_keep;
    // Which types of objects (RCA4_TYPE_MASK_...).
    struct rb_bitmap type_mask;
} rb_recall_any_args;

// CB_OFFLOAD (RFC 7862 section 16.1): how an asynchronous copy ended.
typedef struct rb_offload_args {
    // The destination file.
    struct rb_bytes fh;
    // The copy, as COPY named it.
    struct rb_stateid stateid;
    // How it ended (nfsstat4). Not 0: `count` says how far it came, and the rest is not looked at.
    uint32_t status;
    // How safe the bytes are (stable_how4): 0 unstable, 1 data, 2 data and metadata.
    uint32_t committed;
    // 1 if `callback_id` is told.
    int32_t has_callback_id;
    // Bytes written.
    uint64_t count;
    // The stateid of a copy that goes on asynchronously.
    struct rb_stateid callback_id;
    // The write verifier.
    uint8_t verifier[8];
} rb_offload_args;

// A client of the file server. 0 names nobody.
typedef uint64_t rb_client;

// A session of a client (RFC 8881 section 2.10).
typedef struct rb_session {
    // Whose session it is.
    rb_client client;
    // Tells it from every other session of the runtime.
    uint64_t serial;
} rb_session;

// A callback: one for each delegation, or whatever else can be recalled or told. 0 names none, and a key whose callback
// is gone is answered as stale for ever.
typedef uint64_t rb_key;

// How much a checkpoint holds. Set `size`.
typedef struct rb_checkpoint_size {
    // sizeof(rb_checkpoint_size).
    size_t size;
    // Bytes of the file.
    uint64_t bytes;
    // Registered clients.
    uint64_t clients;
    // Callbacks.
    uint64_t callbacks;
    // Callbacks in flight.
    uint64_t in_flight;
} rb_checkpoint_size;

// Takes a piece of a checkpoint: 0, or anything else if it cannot be written.
typedef int (*rb_write)(void *user, const uint8_t *bytes, size_t count);

// What a checkpoint says of itself. Set `size`.
typedef struct rb_checkpoint_info {
    // sizeof(rb_checkpoint_info).
    size_t size;
    // 1: nothing has happened since it was written, as the runtime was suspended. 0: session slots are resynchronised with
    // their clients before they are used, and what has ended since runs once more.
    int32_t complete;
    // 1: it is mapped (a sealed memfd); 0: it was read.
    int32_t mapped;
    // When it was written, in seconds since 1970.
    uint64_t taken_s;
    // Clients that were registered.
    uint64_t clients;
    // Callbacks that were there.
    uint64_t callbacks;
    // Those of them that were in flight.
    uint64_t in_flight;
    // Bytes that the checkpoint hook has added: see rb_checkpoint_own().
    size_t own_bytes;
} rb_checkpoint_info;

// A connection, or an embedder's own transport. 0 names none.
typedef uint64_t rb_connection;

// How callbacks are authenticated, as the client asked in csa_sec_parms or bca_sec_parms. Linux clients refuse AUTH_NONE
// for everything but CB_NULL.
typedef struct rb_security {
    // The RPC flavor: 0 is AUTH_NONE, 1 is AUTH_SYS (RFC 5531); then the rest is the credential to use.
    uint32_t flavor;
    // The stamp.
    uint32_t stamp;
    // The machine name, at most 255 bytes.
    const uint8_t *machine_name;
    // Its length.
    size_t machine_name_bytes;
    // User id.
    uint32_t uid;
    // Group id.
    uint32_t gid;
    // Supplementary groups, at most 16.
    const uint32_t *gids;
    // How many.
    size_t gids_count;
} rb_security;

// What CREATE_SESSION (RFC 8881 section 18.36) negotiated for a session's backchannel. Set `size`.
typedef struct rb_session_options {
    // sizeof(rb_session_options).
    size_t size;
    // The session id.
    uint8_t session_id[16];
    // The callback program's number (csa_cb_program).
    uint32_t program;
    // Minor version of the client: 1 or 2.
    uint32_t minor_version;
    // Session slots (ca_maxrequests).
    uint32_t slots;
    // Largest request (ca_maxrequestsize), in bytes.
    uint32_t request_bytes_max;
    // Largest response (ca_maxresponsesize), in bytes.
    uint32_t response_bytes_max;
    // Most operations in one CB_COMPOUND, CB_SEQUENCE included (ca_maxoperations).
    uint32_t operations_max;
    // How callbacks are authenticated (csa_sec_parms).
    struct rb_security security;
} rb_session_options;

// An embedder's transport for one connection: its own event loop, RDMA, TLS. Set `size` and `user`; with `send` null all of
// it is told on a queue (RB_ITEM_SEND, ...), else by these functions, which are called on a reactor's
// thread, with `user`, and must neither block nor unwind.
typedef struct rb_transport {
    // sizeof(rb_transport).
    size_t size;
    // Handed to every function, and in every item.
    void *user;
    // Which queue tells of it, if `send` is null.
    uint32_t queue;
    // 0.
    uint32_t reserved;
    // Send this: rb_outbound_bytes() has the bytes, rb_outbound_complete() says that they were sent.
    void (*send)(void *user, struct rb_outbound *outbound);
    // Hand in nothing more for now, so that the peer is held back.
    void (*pause)(void *user);
    // Go on.
    void (*resume)(void *user);
    // The runtime is done with the connection. What is under way on it must not be sent any more.
    void (*close)(void *user);
} rb_transport;

// What a drain left behind. Set `size`, and place for the keys that are wanted.
typedef struct rb_drain_report {
    // sizeof(rb_drain_report).
    size_t size;
    // Runs that have not completed: 0, unless a hook did not return in time, or nobody has polled a queue. 0 for a session.
    uint64_t in_flight;
    // Callbacks that were sent and not answered by the deadline: the client may or may not have executed them.
    size_t abandoned_count;
    // Place for their keys; may be null.
    rb_key *abandoned;
    // For how many.
    size_t abandoned_max;
    // Callbacks that were ended before they were sent: the client knows nothing of them.
    size_t unsent_count;
    // Place for their keys; may be null.
    rb_key *unsent;
    // For how many.
    size_t unsent_max;
} rb_drain_report;

// What became of the callbacks of a group, each counted once: by what came first. Set `size`.
typedef struct rb_group_settled {
    // sizeof(rb_group_settled).
    size_t size;
    // Nothing is in the way any more, as rb_returned(), rb_remove() or RB_PREPARE_REFUSE have said; or, where nothing is to be
    // given back (not RB_OP_RECALL, not RB_OP_LAYOUTRECALL), the client has answered NFS4_OK.
    uint32_t returned;
    // Not given back by the return deadline: RB_EVENT_RETURN_OVERDUE was told.
    uint32_t overdue;
    // The run ended otherwise than with NFS4_OK, or was not accepted; or the client was removed or drained, or the runtime
    // closed, before it was given back.
    uint32_t failed;
    // 0.
    uint32_t reserved;
} rb_group_settled;

// What was counted for one client since it was added, and where its runs and session slots are. All of it belongs together:
// `started` is `completed`, `queued`, `delayed` and `sent`. Set `size`.
typedef struct rb_client_stats {
    // sizeof(rb_client_stats).
    size_t size;
    // Runs that came in, runs that were asked for again included.
    uint64_t started;
    // Runs that have ended, however they did.
    uint64_t completed;
    // Calls sent, those sent again on another connection apart.
    uint64_t calls_sent;
    // Callbacks that these calls carried, one each or a batch.
    uint64_t callbacks_sent;
    // Calls whose runs were parted into smaller batches.
    uint64_t splits;
    // Calls sent again with the same bytes on another connection.
    uint64_t resent;
    // Lone CB_SEQUENCE calls that resynchronise a session slot.
    uint64_t resynchronised;
    // Replies that settled a call.
    uint64_t replies;
    // Replies that came after their call was given up or settled.
    uint64_t replies_late;
    // Replies to nothing that is outstanding.
    uint64_t replies_unknown;
    // Replies that could not be decoded.
    uint64_t replies_malformed;
    // Replies that echoed another session, session slot or sequence id.
    uint64_t wrong_echo;
    // Runs put back on their queue, for whatever reason.
    uint64_t requeued;
    // NFS4ERR_DELAY, from CB_SEQUENCE or from the operation.
    uint64_t delays;
    // NFS4ERR_SEQ_FALSE_RETRY.
    uint64_t false_retries;
    // NFS4ERR_SEQ_MISORDERED.
    uint64_t misordered;
    // Calls without a reply within the RPC timeout.
    uint64_t rpc_timeouts;
    // Connections closed because nothing came back on them.
    uint64_t connections_condemned;
    // RPC rejections, and compounds without results.
    uint64_t rejected;
    // Runs that the client answered with NFS4_OK.
    uint64_t ended_ok;
    // Runs that it answered with another status.
    uint64_t ended_failed;
    // Runs that the prepare hook refused.
    uint64_t ended_refused;
    // Runs whose arguments could not be written.
    uint64_t ended_unencodable;
    // Runs ended by the run deadline after they were sent.
    uint64_t ended_timed_out;
    // Runs ended by it before.
    uint64_t ended_timed_out_unsent;
    // Runs ended because there was no callback path for a lease.
    uint64_t ended_path_down;
    // Runs ended because the client is in courtesy.
    uint64_t ended_courtesy;
    // Runs cancelled after they were sent.
    uint64_t ended_cancelled;
    // Runs cancelled before.
    uint64_t ended_cancelled_unsent;
    // Runs that the client took, and whose answer is lost.
    uint64_t ended_delivered_unknown;
    // Runs that ended because the client refuses what its backchannel sends.
    uint64_t ended_fault;
    // Runs put back: the done hook asked for it.
    uint64_t requeued_asked;
    // Runs put back: NFS4ERR_DELAY.
    uint64_t requeued_delay;
    // Runs put back: the session is gone.
    uint64_t requeued_session_lost;
    // Runs put back: the connection is not bound to the session.
    uint64_t requeued_not_bound;
    // Runs put back: the session slot is lost.
    uint64_t requeued_slot_lost;
    // Runs put back: a reply that cannot be trusted.
    uint64_t requeued_bad_reply;
    // Runs put back: executed, and the result is lost.
    uint64_t requeued_uncached_reply;
    // Runs put back: NFS4ERR_SEQ_FALSE_RETRY.
    uint64_t requeued_false_retry;
    // Runs put back: its parameters were refused.
    uint64_t requeued_refused;
    // Runs put back: the buffer had no room.
    uint64_t requeued_no_space;
    // Runs put back: an operation before it in its batch failed.
    uint64_t requeued_not_reached;
    // Runs put back: its batch was too large.
    uint64_t requeued_batch_split;
    // Runs put back: its batch could not be sent again.
    uint64_t requeued_batch_torn;
    // Runs accepted and not completed.
    uint64_t in_flight;
    // Those that wait for their turn, for a session slot or for a callback path.
    uint64_t queued;
    // Those that wait for a delay to pass.
    uint64_t delayed;
    // Those in calls that are not settled.
    uint64_t sent;
    // Those queued or delayed while there is no session to send them on.
    uint64_t parked;
    // Age of the oldest.
    uint64_t oldest_ns;
    // Session slots.
    uint64_t slots;
    // Free ones.
    uint64_t slots_free;
    // Ones with a run, or a batch of them.
    uint64_t slots_with_run;
    // Ones that were given up, and not resynchronised yet.
    uint64_t slots_quarantined;
    // Ones of no use any more in their session.
    uint64_t slots_retired;
    // The state of the callback path, an rb_path_state.
    int32_t path;
    // The reactor that is its home.
    uint32_t reactor;
    // CB_NULL calls, which look whether a path of minor version 0 works.
    uint64_t probes;
    // Connections of such a path that could not be made, or on which nothing was answered.
    uint64_t connects_failed;
    // Its tenant; 0: none.
    uint32_t tenant;
    // 0.
    uint32_t reserved;
} rb_client_stats;

// What a runtime has counted since it was made, all reactors together. Set `size`.
typedef struct rb_stats {
    // sizeof(rb_stats).
    size_t size;
    // Runs taken up by a reactor, runs that were asked for again included.
    uint64_t started;
    // Runs whose the done hook said that they are finished, however they ended.
    uint64_t completed;
    // Runs released; equals `completed` when nothing is in flight.
    uint64_t released;
    // Runs answered by the client.
    uint64_t replied;
    // Runs ended by the run deadline.
    uint64_t timed_out;
    // Runs ended by a drain or with their client.
    uint64_t cancelled;
    // Runs put back on their queue.
    uint64_t requeued;
    // Calls sent again on another connection.
    uint64_t resent;
    // Calls sent, those sent again on another connection apart.
    uint64_t calls_sent;
    // Callbacks that these calls carried, one each or a batch. What goes in a further call counts again.
    uint64_t callbacks_sent;
    // Lone CB_SEQUENCE calls that resynchronise a session slot.
    uint64_t resynchronised;
    // Replies to nothing that is outstanding.
    uint64_t replies_unknown;
    // Replies that could not be decoded.
    uint64_t replies_malformed;
    // Streams that were not a sequence of records; their connections were closed.
    uint64_t records_malformed;
    // Connections that ended in an error, not in an orderly close by the peer.
    uint64_t connections_failed;
    // Connections closed because nothing came back on them.
    uint64_t connections_condemned;
    // Fore-channel calls handed to the embedder.
    uint64_t fore_calls;
    // Calls of the embedder's code that panicked: see RB_EVENT_PANICKED.
    uint64_t embedder_panics;
    // Runs accepted and not completed.
    uint64_t in_flight;
    // Cross-thread wake-ups of parked reactors.
    uint64_t wakes;
    // System calls made by the reactors.
    uint64_t syscalls;
    // Send operations.
    uint64_t sends;
    // Bytes sent.
    uint64_t sent_bytes;
    // Receive completions.
    uint64_t receives;
    // Bytes received.
    uint64_t received_bytes;
    // Callbacks of RB_CB_RECALL that are there, running or not.
    uint64_t delegations;
    // CB_RECALL_ANY sent because of rb_set_budget(), or for want of memory.
    uint64_t reaper_asked;
    // Clients that gave up next to nothing then.
    uint64_t reaper_ignored;
    // Delegations recalled from them.
    uint64_t reaper_recalled;
    // Times that memory was said to be short.
    uint64_t memory_pressures;
    // Connections to clients of minor version 0 that were begun.
    uint64_t connects;
    // Those that were not made in time, and those that were asked for by RB_EVENT_CONNECTION_WANTED in vain.
    uint64_t connects_failed;
    // Clients that came from another reactor.
    uint64_t clients_moved;
} rb_stats;

// Where a reactor runs. Set `size`.
typedef struct rb_placement {
    // sizeof(rb_placement).
    size_t size;
    // The CPU that it is pinned to, as rb_options.cpus has asked for; -1: none.
    int32_t cpu;
    // The node of that CPU, where there is more than one; -1 else.
    int32_t node;
} rb_placement;

// One message, which is gone when the function that was given it returns.
typedef struct rb_log_message {
    // An rb_log_level. There may be more of them in a later version: take those for RB_LOG_DEBUG.
    int32_t level;
    // The reactor that says so; -1: it comes from another thread.
    int32_t reactor;
    // The client that it is about; 0: it is about none.
    rb_client client;
    // Messages of this kind, of the same reactor, that were left out since the last one, because there were too many.
    uint64_t left_out;
    // What it says, in one line.
    const char *text;
} rb_log_message;

// Settings of a runtime. Set `size` and leave at 0 what is to have its default; the defaults and limits are in
// docs/src/limits.md.
typedef struct rb_options {
    // sizeof(rb_options).
    size_t size;
    // An rb_backend.
    int32_t backend;
    // Reactor threads. Default: one per processor.
    uint32_t reactors;
    // An rb_delivery.
    int32_t delivery;
    // RB_DELIVERY_QUEUE: how many queues, at most one for each reactor. Default: 1.
    uint32_t queues;
    // Most callbacks, of all clients together.
    uint32_t callbacks_max;
    // Most clients.
    uint32_t clients_max;
    // The lease of the file server (RFC 8881 section 8.3), from which other times follow.
    uint64_t lease_ms;
    // A run ends this long after it was accepted, wherever it is.
    uint64_t run_deadline_ms;
    // What a CB_RECALL or CB_LAYOUTRECALL asks for is overdue this long after it was first sent.
    uint64_t return_deadline_ms;
    // A call without a reply for this long makes its connection suspect.
    uint64_t rpc_timeout_ms;
    // Largest record on a connection, either way.
    uint64_t record_bytes_max;
    // Bytes that may wait to be sent on one connection; with more, receiving from it pauses.
    uint64_t unsent_bytes_max;
    // Fore-channel calls of one connection that may wait for an answer; with more, receiving from it pauses.
    uint32_t calls_unanswered_max;
    // Most callbacks of a client in one CB_COMPOUND, where the client allows more than one.
    uint32_t batch_max;
    // Receive buffers of each reactor: how many, a power of two. Only together with the next.
    uint32_t receive_buffers;
    // Size of a receive buffer.
    uint32_t receive_buffer_bytes;
    // Calls that are out at once to each client; 0: as many as its sessions have slots. See rb_set_client_limits().
    uint32_t client_calls_max;
    // Callbacks sent to each client per second; 0: any number.
    uint32_t client_rate_max;
    // Not 0: measure how long callbacks take, for rb_metrics_text().
    uint32_t latency;
    // Steps that each reactor's flight recorder keeps, for rb_flight_text(); 0: there is none.
    uint32_t flight_records;
    // Begins the names of the reactor threads; null: "ringback". Is copied.
    const char *name;
    // Delegations before clients are asked to keep fewer; 0: any number. See rb_set_budget().
    uint64_t budget;
    // Where the kernel tells of memory pressure: "/proc/pressure/memory", or the memory.pressure of a cgroup; null: nowhere.
    const char *memory_pressure;
    // To where connections to clients of minor version 0 are made: an rb_connect_policy.
    int32_t connect_policy;
    // Most of these that each reactor makes at the same time.
    uint32_t connects_max;
    // How long making one may take.
    uint64_t connect_timeout_ms;
    // CPUs to pin the reactors to, such as "0-3,8"; null: none.
    const char *cpus;
    // Takes what an operator must know; null: nobody is told. The rules are those of rb_hooks: on a reactor's thread it must
    // not block, and nowhere wait for the runtime. Of each kind of message there are few in a second.
    void (*log)(void *user, const struct rb_log_message *message);
    // Handed to `log`; null, if that is null.
    void *log_user;
    // Go on where this checkpoint was written, which stays the caller's: clients, sessions and callbacks are what they were,
    // under the names that they had. The restored hook is asked about each callback. Null: from nothing.
    const struct rb_checkpoint *restore;
    // Write a checkpoint to this file every `checkpoint_interval_ms`; null: do not. Is copied.
    const char *checkpoint_file;
    // At least a second. Only together with `checkpoint_file`.
    uint64_t checkpoint_interval_ms;
    // RB_CONNECT_ASK: whether to connect to an address, for a client whose SETCLIENTID came from `peer`; 1 for yes. Both are a
    // struct sockaddr_in or sockaddr_in6, which are gone when it returns. It is asked in rb_set_client_id(), on the
    // thread that calls that, and never about port 0 or an address that is no host's.
    int (*connect_allows)(void *user,
                          const uint8_t *address,
                          size_t address_bytes,
                          const uint8_t *peer,
                          size_t peer_bytes);
    // Handed to `connect_allows`; null, if that is null.
    void *connect_user;
    // Go on where the process stands still that this was received from, which stays the caller's: as with `restore`, and
    // connections come along under the names that they had. The runtime stands still until rb_upgrade_confirm(). Null: not.
    const struct rb_upgrade *upgrade;
} rb_options;

// One run of a callback.
typedef struct rb_run {
    // The callback.
    rb_key key;
    // The embedder's own value, given to rb_insert().
    uint64_t cookie;
    // The client that is called.
    rb_client client;
    // Nanoseconds since it was accepted; in a completion, until its outcome was known.
    uint64_t age_ns;
    // An rb_op.
    int32_t op;
    // 0.
    int32_t reserved;
} rb_run;

// How a run ended, in full.
typedef struct rb_outcome {
    // An rb_ending.
    int32_t ending;
    // RB_ENDED_REPLIED: the status of the operation (nfsstat4). In a completion, one that no RFC defines is told as
    // NFS4ERR_SERVERFAULT.
    uint32_t status;
    // RB_ENDED_TIMED_OUT, RB_ENDED_CANCELLED: 1 if it was sent at least once. What was never sent does not count against
    // the client.
    int32_t sent;
    // RB_ENDED_FAULT: an rb_fault.
    int32_t fault;
} rb_outcome;

// Something happened to a client's callback path, or did not happen in time. What a kind does not name is 0.
typedef struct rb_event {
    // An rb_event_kind.
    int32_t kind;
    // See rb_event_kind.
    int32_t detail;
    // The client.
    rb_client client;
    // The session.
    struct rb_session session;
    // The connection.
    rb_connection connection;
    // The callback.
    rb_key key;
    // Its cookie.
    uint64_t cookie;
    // Delegations.
    uint64_t held;
    // Delegations.
    uint64_t keep;
    // Delegations.
    uint64_t recalled;
    // All of it in one line for the log, with every count and reason; the client is not in it. Never null. It lives until the
    // hook returns, or until the next rb_queue_poll() or rb_queue_release() of the queue that has told it.
    const char *text;
} rb_event;

// A callback that comes back from a checkpoint, as the restored hook is asked about it.
typedef struct rb_restored {
    // The callback; its key is what it was.
    rb_key key;
    // The cookie that it had.
    uint64_t cookie;
    // The client.
    rb_client client;
    // An rb_op.
    int32_t op;
    // 1: it is in flight.
    int32_t running;
} rb_restored;

// What the runtime asks of the embedder. Set `size`, `encode`, and what else is wanted; null: nothing to say. All are
// called with `user`, on a reactor's thread (but `acquire`), must not block, and must not unwind: a C++ exception that
// leaves one ends the process. They may call rb_try_run() and rb_remove(), and nothing that waits.
//
// For each accepted run: `acquire` in the thread that asked for it, `prepare` once, `encode` for every transmission, `done`
// when an outcome is known; then its completion is on a queue, if there are queues, until the next rb_queue_poll() after the
// one that gave it; then `release`, once, and `drop_reference`, unless it was asked for again meanwhile and runs once more
// with the same reference.
typedef struct rb_hooks {
    // sizeof(rb_hooks).
    size_t size;
    // Handed to every hook.
    void *user;
    // Writes the arguments with one of rb_encode_...(), from what stays unchanged between prepare and release: every
    // transmission must be the same bytes. 0, or a negative number: the run ends as RB_ENDED_UNENCODABLE.
    int (*encode)(void *user, const struct rb_run *run, struct rb_args *args);
    // Takes a reference to the object behind the cookie.
    void (*acquire)(void *user, uint64_t cookie);
    // Last look before the first transmission of a run: an rb_prepare.
    int (*prepare)(void *user, const struct rb_run *run);
    // Names with rb_name_call() the fore-channel calls whose replies the callback must not overtake: the OPEN that granted
    // what is recalled (RFC 8881 section 2.10.6.3), until the client has used its session slot with a later sequence id.
    // Never a call whose reply waits for this callback. Like encode it is asked for each transmission, and must say the
    // same from prepare to release. A callback that names calls is never sent together with others.
    void (*referring_calls)(void *user, const struct rb_run *run, struct rb_referring *calls);
    // How it went. `results`: what follows the status in the client's answer, for rb_decode_getattr(). RB_DONE_FINISH, or
    // nanoseconds after which it is sent again.
    int64_t (*done)(void *user,
                    const struct rb_run *run,
                    const struct rb_outcome *outcome,
                    const uint8_t *results,
                    size_t results_bytes);
    // The last touch of the run.
    void (*release)(void *user, const struct rb_run *run);
    // Gives back the reference that acquire took.
    void (*drop_reference)(void *user, uint64_t cookie);
    // Something happened to a client's callback path. If null, it is told on queue 0.
    void (*event)(void *user, const struct rb_event *event);
    // A fore-channel call arrived, which is the embedder's from now on. If null, it is told on a queue; with
    // RB_DELIVERY_INLINE, which has none, nobody answers it, and it counts against calls_unanswered_max.
    void (*call)(void *user, struct rb_call *call);
    // A connection is gone. If null, it is told on a queue.
    void (*closed)(void *user, rb_connection connection);
    // A client holds too many delegations, and has given up too few of its own choice: starts the recall (rb_try_run()) of
    // up to `count` that are not on recall yet, the least recently used first, and says how many those were. Called on the
    // reaper's own thread, where it may take locks, but not wait for the runtime. If null, none are recalled.
    size_t (*recall_least_recently_used)(void *user, rb_client client, size_t count);
    // A callback comes back from rb_options.restore. 1: it is known by `*cookie` from now on, which is the one that it had
    // unless it is changed; of one that is in flight, the embedder holds the reference that acquire took. 0: what it is about
    // is there no more; then it is gone, and no hook is called for a run of it. Called by rb_runtime_new(), before
    // anything else. If null, all come back as they were.
    int (*restored)(void *user, const struct rb_restored *callback, uint64_t *cookie);
    // Adds what the embedder wants to have in a checkpoint, with rb_checkpoint_add(). Called in the thread that writes it.
    void (*checkpoint)(void *user, struct rb_own *own);
} rb_hooks;

// What SETCLIENTID (RFC 7530 section 16.33) says of its client's callbacks. Set `size`.
typedef struct rb_path_options {
    // sizeof(rb_path_options).
    size_t size;
    // The callback program's number (cb_program).
    uint32_t program;
    // Sent with each call (callback_ident).
    uint32_t callback_ident;
    // How callbacks are authenticated: as the SETCLIENTID was.
    struct rb_security security;
    // The transport (r_netid): "tcp" or "tcp6". Null, with r_addr: the file server makes the connections, and is told by
    // RB_EVENT_CONNECTION_WANTED when one is needed, which rb_bind() hands to the path.
    const uint8_t *r_netid;
    // Its length.
    size_t r_netid_bytes;
    // The universal address (r_addr).
    const uint8_t *r_addr;
    // Its length.
    size_t r_addr_bytes;
    // Where the SETCLIENTID came from: a struct sockaddr_in or sockaddr_in6, as getpeername() gives it.
    const uint8_t *peer;
    // Its length.
    size_t peer_bytes;
    // Most calls without an answer, 1 to 1024.
    uint32_t window;
} rb_path_options;

// The end of a run. The object behind the cookie may be looked at until the next rb_queue_poll() or rb_queue_release() of
// the same queue.
typedef struct rb_completion {
    // Which.
    struct rb_run run;
    // How.
    struct rb_outcome outcome;
} rb_completion;

// A fore-channel call.
typedef struct rb_call_item {
    // The connection on which it arrived.
    rb_connection connection;
    // Names it, and holds the record.
    struct rb_call *call;
    // The record, without its mark: an RPC call header and the arguments. It lives as long as `call`.
    const uint8_t *record;
    // Its length.
    size_t record_bytes;
} rb_call_item;

// Records to be sent.
typedef struct rb_send_item {
    // As it was given to rb_add_transport().
    void *user;
    // The connection.
    rb_connection connection;
    // Names it, and holds the bytes.
    struct rb_outbound *outbound;
    // The bytes: one record or several, each with its mark. They live as long as `outbound`, and do not move.
    const uint8_t *bytes;
    // How many.
    size_t bytes_count;
} rb_send_item;

// What an item says, by its kind.
typedef union rb_item_body {
    // RB_ITEM_COMPLETION.
    struct rb_completion completion;
    // RB_ITEM_EVENT.
    struct rb_event event;
    // RB_ITEM_CALL.
    struct rb_call_item call;
    // RB_ITEM_CLOSED.
    rb_connection closed;
    // RB_ITEM_SEND.
    struct rb_send_item send;
    // RB_ITEM_PAUSE, RB_ITEM_RESUME, RB_ITEM_CLOSE, RB_ITEM_NOTICE: as it was given.
    void *user;
    // Room for what may come.
    uint64_t reserved[15];
} rb_item_body;

// One thing that a queue tells. An item of an unknown kind is to be ignored.
typedef struct rb_item {
    // An rb_item_kind.
    int32_t kind;
    // 0.
    int32_t reserved;
    // What it says.
    union rb_item_body body;
} rb_item;

// A time (RFC 8881 section 3.3.1).
typedef struct rb_time {
    // Seconds since 1970-01-01, 0:00 UTC.
    int64_t seconds;
    // Nanoseconds.
    uint32_t nseconds;
    // 0.
    uint32_t reserved;
} rb_time;

// What a client says of a file that it has delegated. Set `size`.
typedef struct rb_attributes {
    // sizeof(rb_attributes).
    size_t size;
    // Which attributes the client has sent.
    struct rb_bitmap mask;
    // Their values as they came, within what was decoded.
    struct rb_bytes values;
    // 1 if `change` was sent.
    int32_t has_change;
    // 1 if `file_size` was sent.
    int32_t has_file_size;
    // 1 if `time_deleg_access` was sent.
    int32_t has_time_deleg_access;
    // 1 if `time_deleg_modify` was sent.
    int32_t has_time_deleg_modify;
    // change: differs from what it was when the delegation was given if the client has modified the file.
    uint64_t change;
    // size.
    uint64_t file_size;
    // time_deleg_access.
    struct rb_time time_deleg_access;
    // time_deleg_modify.
    struct rb_time time_deleg_modify;
} rb_attributes;

// A session's backchannel. Set `size`.
typedef struct rb_session_report {
    // sizeof(rb_session_report).
    size_t size;
    // The session.
    struct rb_session session;
    // Connections that carry it.
    uint32_t connections;
    // Its session slots.
    uint32_t slots;
    // Those with a call that is not settled.
    uint32_t slots_in_use;
    // Those of them whose callbacks were given up and whose sequence id is not known yet.
    uint32_t slots_quarantined;
    // Those that cannot be used any more.
    uint32_t slots_retired;
    // What is wrong with it, an rb_fault; 0: nothing.
    int32_t fault;
} rb_session_report;

// A callback in flight. Set `size`.
typedef struct rb_callback_report {
    // sizeof(rb_callback_report).
    size_t size;
    // The callback.
    rb_key key;
    // Its cookie.
    uint64_t cookie;
    // Nanoseconds since it was accepted.
    uint64_t age_ns;
    // The session that it is sent on; `serial` is 0 if it occupies no session slot.
    struct rb_session session;
    // The session slot that it occupies there.
    uint32_t slot;
    // An rb_op.
    int32_t op;
    // An rb_stage.
    int32_t stage;
    // 1: it was sent at least once.
    int32_t sent;
    // 1: the runtime sends it on its own account, and the cookie is not the embedder's.
    int32_t by_runtime;
    // 0.
    int32_t reserved;
} rb_callback_report;

// How long the callbacks of one class took, in one stage. Set `size`.
typedef struct rb_latency {
    // sizeof(rb_latency).
    size_t size;
    // An rb_class.
    int32_t class_;
    // An rb_latency_stage.
    int32_t stage;
    // How many callbacks.
    uint64_t count;
    // All of them together.
    uint64_t sum_ns;
    // The longest.
    uint64_t max_ns;
} rb_latency;

// Where the runs and the session slots of all backchannels are. Set `size`.
typedef struct rb_census {
    // sizeof(rb_census).
    size_t size;
    // Runs that wait for their turn, for a session slot or for a callback path.
    uint64_t queued;
    // Runs that were put back and wait for a delay to pass.
    uint64_t delayed;
    // Runs in calls that are not settled.
    uint64_t sent;
    // Those of the queued and the delayed whose client has no session to send them on.
    uint64_t parked;
    // Sessions' slots, all together.
    uint64_t slots;
    // Free.
    uint64_t free;
    // Held by a run.
    uint64_t with_run;
    // Given up, and not resynchronised with the client yet.
    uint64_t quarantined;
    // Of no use any more in this session.
    uint64_t retired;
    // Resident bytes of the slot tables and call records.
    uint64_t bytes;
    // Resident bytes of the lists of returns that are awaited.
    uint64_t returns_bytes;
} rb_census;

// Memory that a runtime holds for callbacks, in bytes; buffers and the embedder's own objects apart. Set `size`.
typedef struct rb_memory {
    // sizeof(rb_memory).
    size_t size;
    // Resident pages of the slab of callback entries.
    uint64_t slab;
    // Resident part of the slab's free stacks and tables.
    uint64_t free_stacks;
    // The table of clients.
    uint64_t clients;
    // Session slot tables and the records of calls in flight.
    uint64_t sessions;
    // The lists of returns that are awaited: 12 bytes for each recall since the oldest one of them.
    uint64_t returns;
    // What groups (rb_run_many()) wait for: 16 bytes for each callback and group, as many as there ever were at once.
    uint64_t groups;
} rb_memory;

// What a tenant may have, all of its clients together; 0: any number. Set `size`.
typedef struct rb_tenant_limits {
    // sizeof(rb_tenant_limits).
    size_t size;
    // Callbacks that exist; beyond, rb_insert() answers RB_ERR_FULL.
    uint32_t callbacks_max;
    // Calls that are out at once; the rest waits.
    uint32_t calls_max;
    // Callbacks sent per second; a tenth of it may go at once.
    uint32_t rate_max;
} rb_tenant_limits;

// What was counted for a tenant. Set `size`.
typedef struct rb_tenant_stats {
    // sizeof(rb_tenant_stats).
    size_t size;
    // Callbacks that exist.
    uint32_t callbacks;
    // Calls that are not settled.
    uint32_t calls_out;
    // Callbacks sent.
    uint64_t callbacks_sent;
    // Callbacks that were refused because there were as many as there may be.
    uint64_t refused;
    // Times that a client had something to send and was held back.
    uint64_t held_back;
} rb_tenant_stats;

// Settings that may change while callbacks run, as one value: docs/src/tuning.md says of each what it means for what is under
// way. Set `size`, let rb_get_tuning() fill it in, change what is to change, and hand it to rb_set_tuning().
typedef struct rb_tuning {
    // sizeof(rb_tuning).
    size_t size;
    // The lease: of a client that is told from now on that its path is down.
    uint64_t lease_ms;
    // Also of runs in flight, counted from their beginning.
    uint64_t run_deadline_ms;
    // Of recalls that are first sent from now on.
    uint64_t return_deadline_ms;
    // Of calls that are sent from now on.
    uint64_t rpc_timeout_ms;
    // First wait after NFS4ERR_DELAY, of those that begin from now on.
    uint64_t backoff_min_ms;
    // Longest wait.
    uint64_t backoff_max_ms;
    // Of what is sent from now on.
    uint32_t batch_max;
    // How often recalls may be passed over by CB_GETATTR while they have work, 0 to 255.
    uint32_t recalls_passed_over_max;
    // How often the background may be passed over, 0 to 255.
    uint32_t background_passed_over_max;
    // Of all clients that have no limits of their own. See rb_set_client_limits().
    uint32_t client_calls_max;
    // The same of callbacks per second.
    uint32_t client_rate_max;
    // Of what arrives from now on.
    uint32_t calls_unanswered_max;
    // Of what arrives from now on.
    uint64_t unsent_bytes_max;
} rb_tuning;

// What has gone over. Set `size`.
typedef struct rb_upgraded {
    // sizeof(rb_upgraded).
    size_t size;
    // Connections whose sockets went over.
    uint64_t connections;
    // Registered clients.
    uint64_t clients;
    // Callbacks.
    uint64_t callbacks;
    // Callbacks in flight.
    uint64_t in_flight;
    // Nanoseconds in which nothing was sent and received. The old process measures until it lets go, the new one until it
    // has begun.
    uint64_t pause_ns;
    // What the old process was asked for while it stood still, and has left undone: RB_EVENT_LEFT_UNDONE.
    uint64_t undone;
} rb_upgraded;

// What comes along with an upgrade. Set `size`.
typedef struct rb_upgrade_info {
    // sizeof(rb_upgrade_info).
    size_t size;
    // Connections, which are the runtime's.
    uint64_t connections;
    // Files of the other program that rb_upgrade_take_files() has not given yet.
    uint64_t files;
} rb_upgrade_info;

// How a run ended, for who waited for it. Set `size`.
typedef struct rb_ended {
    // sizeof(rb_ended).
    size_t size;
    // How.
    struct rb_outcome outcome;
    // How many bytes of the result were kept: what follows the status in the client's answer.
    uint32_t results_bytes;
    // 1 if that is all of it.
    int32_t is_whole;
    // The bytes, for rb_decode_getattr().
    uint8_t results[RB_RESULTS_BYTES_MAX];
} rb_ended;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the interface that the library was built with: compare it with RB_ABI_VERSION.
uint32_t rb_abi_version(void);

// The version of the library, such as "0.1.0".
const char *rb_version(void);

// The number of reactors; negative: an error.
int rb_reactors(const struct rb_runtime *runtime);

// Which back end drives the sockets, an rb_backend; negative: an error.
int rb_runtime_backend(const struct rb_runtime *runtime);

// Why that back end was taken, in one line for the log. Lives as long as the runtime; null for a null runtime.
const char *rb_runtime_backend_reason(const struct rb_runtime *runtime);

// Gives a runtime up: refuses new runs, ends those that are there, ends its threads and closes its connections. Does not
// wait for answers; shut it down or drain it before. Completions that are on a queue by then can still be taken.
int rb_runtime_free(struct rb_runtime **runtime);

// Names a fore-channel call, by the session id (16 bytes), sequence id and session slot that its SEQUENCE carried.
int rb_name_call(struct rb_referring *calls, const uint8_t *session_id, uint32_t sequence_id, uint32_t slot_id);

// Writes arguments that were encoded by the embedder: what follows argop in nfs_cb_argop4 (RFC 8881 section 20).
int rb_encode_raw(struct rb_args *args, struct rb_bytes xdr);

// Writes the arguments of CB_NOTIFY.
int rb_encode_notify(struct rb_args *args, const struct rb_notify_args *notify);

// Writes the arguments of CB_NOTIFY_LOCK.
int rb_encode_notify_lock(struct rb_args *args, const struct rb_notify_lock_args *notify_lock);

// Writes the arguments of CB_NOTIFY_DEVICEID (RFC 8881 section 20.12).
int rb_encode_notify_deviceid(struct rb_args *args, const struct rb_device_notification *changes, size_t changes_count);

// Writes the arguments of CB_GETATTR.
int rb_encode_getattr(struct rb_args *args, const struct rb_getattr_args *getattr);

// Writes the arguments of CB_RECALL.
int rb_encode_recall(struct rb_args *args, const struct rb_recall_args *recall);

// Writes the arguments of CB_LAYOUTRECALL.
int rb_encode_layoutrecall(struct rb_args *args, const struct rb_layoutrecall_args *layoutrecall);

// Writes the arguments of CB_PUSH_DELEG.
int rb_encode_push_deleg(struct rb_args *args, const struct rb_push_deleg_args *push_deleg);

// Writes the arguments of CB_RECALL_ANY.
int rb_encode_recall_any(struct rb_args *args, const struct rb_recall_any_args *recall_any);

// Writes the arguments of CB_RECALLABLE_OBJ_AVAIL.
int rb_encode_recallable_obj_avail(struct rb_args *args, const struct rb_recall_any_args *available);

// Writes the arguments of CB_RECALL_SLOT (RFC 8881 section 20.8): the highest slot id of the fore channel that the client
// is to keep using.
int rb_encode_recall_slot(struct rb_args *args,
                          uint32_t target_highest_slot_id);

// Writes the arguments of CB_WANTS_CANCELLED (RFC 8881 section 20.10); each is 0 or 1.
int rb_encode_wants_cancelled(struct rb_args *args,
                              int32_t contended_wants_cancelled,
                              int32_t resourced_wants_cancelled);

// Writes the arguments of CB_OFFLOAD.
int rb_encode_offload(struct rb_args *args, const struct rb_offload_args *offload);

// Sets how many delegations (callbacks of RB_CB_RECALL) there may be before clients are asked to keep fewer, by CB_RECALL_ANY
// (RFC 8881 section 20.6), at most once in five seconds each; UINT64_MAX: any number. What a client does not heed is
// recalled: see rb_hooks.recall_least_recently_used. Nothing is refused.
int rb_set_budget(const struct rb_runtime *runtime,
                  uint64_t delegations);

// How many delegations a client holds.
int rb_delegations_of(const struct rb_runtime *runtime, rb_client client, uint32_t *delegations);

// Says that a delegation was refused because there are as many as there may be: clients are asked to make room, within a
// second, if more than seven eighths of the budget are in use. Never blocks.
int rb_want_room(const struct rb_runtime *runtime);

// Says that memory is short: clients are asked to keep three quarters of their delegations, whatever the budget is. May be
// called as often as it shows: within five seconds it is the same pressure.
int rb_memory_pressure(const struct rb_runtime *runtime);

// Asks all clients, once, to keep about `keep` delegations in all. Nothing is recalled from who does not heed it.
// RB_EVENT_RECALL_ANY_SENT tells how many were asked.
int rb_recall_any(const struct rb_runtime *runtime, uint64_t keep);

// Asks the client to use no session slot of the session's fore channel above `highest_slot_id`, by a CB_RECALL_SLOT (RFC 8881
// section 20.8) that no hook sees. SEQUENCE replies are to tell the same (sr_target_highest_slotid).
int rb_recall_slots(const struct rb_runtime *runtime,
                    struct rb_session session,
                    uint32_t highest_slot_id);

// Makes a callback for a client, idle until rb_try_run(). `op` is an rb_op; `cookie` is the embedder's own, and is handed to
// every hook and told with every completion.
int rb_insert(const struct rb_runtime *runtime,
              rb_client client,
              int32_t op,
              uint64_t cookie,
              rb_key *key);

// Makes a CB_RECALL_SLOT (RFC 8881 section 20.8), which is about one session: it is sent on that one or not at all, and a
// run that finds it gone or drained ends as RB_ENDED_CANCELLED.
int rb_insert_recall_slot(const struct rb_runtime *runtime,
                          struct rb_session session,
                          uint64_t cookie,
                          rb_key *key);

// Asks for a run of a callback: an rb_try_run_answer. Never blocks, never allocates, calls no hook but acquire: legal under
// the embedder's locks. Asking twice is harmless.
int rb_try_run(const struct rb_runtime *runtime,
               rb_key key);

// Says that rb_try_run() of this key comes soon, and begins to load what it will touch. For who walks through a list, some
// keys ahead. Changes nothing, whatever the key.
int rb_prefetch(const struct rb_runtime *runtime,
                rb_key key);

// Ends the run of a callback as RB_ENDED_CANCELLED, without waiting for it: an rb_cancel_answer. The callback stays.
int rb_cancel(const struct rb_runtime *runtime, rb_key key);

// Removes a callback: an rb_remove_answer. If it is running, that run still ends with one completion.
int rb_remove(const struct rb_runtime *runtime, rb_key key);

// Says that what was recalled has come back, though the callback stays: an rb_returned_answer.
int rb_returned(const struct rb_runtime *runtime, rb_key key);

// Writes a checkpoint of a runtime that goes on into a file, which only its owner may read: it holds credentials. The file is
// replaced when all of it is on the disk, and else stays what it was. Each client is as it is between two pieces of
// work; no reactor is kept from its work for longer than one turn. Waits for the reactors: not from a hook (RB_ERR_BUSY).
// `size` may be null.
int rb_checkpoint_to(const struct rb_runtime *runtime,
                     const char *file,
                     struct rb_checkpoint_size *size);

// rb_checkpoint_to() to wherever `write` puts it, piece by piece, on the caller's thread.
int rb_checkpoint_write(const struct rb_runtime *runtime, rb_write write, void *user, struct rb_checkpoint_size *size);

// Makes the reactors stand still, for a checkpoint after which nothing happens any more: nothing is sent, received or
// completed, and no hook is called. The embedder calls nothing else of the runtime meanwhile, so that its own state and the
// checkpoint belong together. RB_ERR_BUSY: it stands still already, is draining, or was called from a hook.
int rb_suspend(const struct rb_runtime *runtime,
               struct rb_suspended **suspended);

// As rb_checkpoint_to(), of a runtime that stands still: nothing will have happened after it, as long as rb_suspended_leave()
// follows.
int rb_suspended_checkpoint_to(const struct rb_suspended *suspended,
                               const char *file,
                               struct rb_checkpoint_size *size);

// As rb_checkpoint_write(), of a runtime that stands still.
int rb_suspended_checkpoint_write(const struct rb_suspended *suspended,
                                  rb_write write,
                                  void *user,
                                  struct rb_checkpoint_size *size);

// Ends the reactors where they stand, and their connections with them. No run ends and no hook is called: all that goes on
// in the process that restores the checkpoint. What is left to do is rb_runtime_free().
int rb_suspended_leave(struct rb_suspended **suspended);

// The runtime goes on, as if nothing had happened but for the time that has passed.
int rb_suspended_free(struct rb_suspended **suspended);

// Reads a checkpoint from a file and validates all of it. RB_ERR_CHECKPOINT: it is none, truncated, corrupt, or of a version
// that is not read; rb_last_error() says which.
int rb_checkpoint_open(const char *file,
                       struct rb_checkpoint **checkpoint);

// rb_checkpoint_open() of an open file, which stays the caller's. A file in memory (memfd) that is sealed against writing and
// shrinking is not read but mapped.
int rb_checkpoint_open_fd(int fd,
                          struct rb_checkpoint **checkpoint);

// rb_checkpoint_open() of what is in memory, which is copied.
int rb_checkpoint_open_bytes(const uint8_t *bytes, size_t count, struct rb_checkpoint **checkpoint);

// What it says of itself.
int rb_get_checkpoint_info(const struct rb_checkpoint *checkpoint, struct rb_checkpoint_info *info);

// Copies what the checkpoint hook has added. With less than rb_checkpoint_info.own_bytes at `bytes` the answer is
// RB_ERR_NO_SPACE, and nothing is written.
int rb_checkpoint_own(const struct rb_checkpoint *checkpoint, uint8_t *bytes, size_t bytes_max);

// Adds to the checkpoint that is being written, within the checkpoint hook: rb_checkpoint_own() gives all that was added.
int rb_checkpoint_add(struct rb_own *own,
                      const uint8_t *bytes,
                      size_t count);

// Gives a checkpoint up. A runtime that was restored from it does not need it any more.
int rb_checkpoint_free(struct rb_checkpoint **checkpoint);

// Registers a client near a connection, the one on which it made itself known; 0: anywhere.
int rb_add_client(const struct rb_runtime *runtime, rb_connection near_connection, rb_client *client);

// Forgets a client, its sessions included: its runs end as RB_ENDED_CANCELLED. Its callbacks are still to be removed.
int rb_remove_client(const struct rb_runtime *runtime, rb_client client);

// Announces what the file server knows of a client: an rb_client_state.
int rb_set_client_state(const struct rb_runtime *runtime, rb_client client, int32_t state);

// What this client is sent at most, from now on; what is out stays out: calls that are out at once (some old clients break
// on two recalls at a time; 0: as many as its sessions have slots), and callbacks per second (0: any number).
int rb_set_client_limits(const struct rb_runtime *runtime,
                         rb_client client,
                         uint32_t calls_max,
                         uint32_t rate_max);

// Moves a client to another home reactor, with all that is under way; RB_EVENT_MOVED tells when it is there. Its connections
// stay where they are and carry bytes for it. With RB_DELIVERY_QUEUE its next completions come on the queue of that reactor.
int rb_move_client(const struct rb_runtime *runtime,
                   rb_client client,
                   uint32_t reactor);

// The reactor that is the home of a client, or will be when it has moved.
int rb_home_of(const struct rb_runtime *runtime, rb_client client);

// The SEQ4_STATUS bits (RFC 8881 section 18.46.3) about the callback path, to be ORed into the reply to a SEQUENCE on
// `session`; `session` null: of the client alone. 0 for a client that is not registered.
int rb_seq4_status(const struct rb_runtime *runtime,
                   rb_client client,
                   const struct rb_session *session,
                   uint32_t *flags);

// 1 if the client has ever answered this operation (an rb_op) with NFS4ERR_NOTSUPP, in whichever session: asking again is
// allowed and of no use. Else, or for a client that is not registered, 0.
int rb_is_unsupported(const struct rb_runtime *runtime,
                      rb_client client,
                      int32_t op);

// Registers a session that has a backchannel. Nothing is sent on it before rb_bind().
int rb_add_session(const struct rb_runtime *runtime,
                   rb_client client,
                   const struct rb_session_options *options,
                   struct rb_session *session);

// The client has destroyed the session. Its calls move to another session of the client, or wait for one.
int rb_remove_session(const struct rb_runtime *runtime, struct rb_session session);

// The connection carries the session's backchannel from now on (CREATE_SESSION with CONN_BACK_CHAN, BIND_CONN_TO_SESSION).
// Waiting callbacks are sent at once.
int rb_bind(const struct rb_runtime *runtime,
            rb_connection connection,
            struct rb_session session);

// BACKCHANNEL_CTL (RFC 8881 section 18.33): program and credential for calls of the session that have not been sent yet.
int rb_backchannel_ctl(const struct rb_runtime *runtime,
                       struct rb_session session,
                       uint32_t program,
                       const struct rb_security *security);

// Hands over a connected stream socket. It is the runtime's from then on; after an error it is still the caller's.
int rb_add_connection(const struct rb_runtime *runtime, int fd, rb_connection *connection);

// A connection over an embedder's own transport.
int rb_add_transport(const struct rb_runtime *runtime, const struct rb_transport *transport, rb_connection *connection);

// Hands in one record (without its mark) that an embedder's transport has received. It is copied.
int rb_receive(const struct rb_runtime *runtime, rb_connection connection, const uint8_t *record, size_t record_bytes);

// Closes a connection, or says that an embedder's transport has lost it. Calls sent on it go out again on another
// connection that is bound to their session.
int rb_close_connection(const struct rb_runtime *runtime, rb_connection connection);

// The bytes to send, which live as long as `outbound` and do not move: one record or several, each with its mark.
int rb_outbound_bytes(const struct rb_outbound *outbound, const uint8_t **bytes, size_t *bytes_count);

// Gives up records that were sent (`error` 0), or could not be (an errno): then the connection is closed.
int rb_outbound_complete(struct rb_outbound **outbound, int error);

// Makes a reader for one connection; a record may have `record_bytes_max` bytes.
int rb_reader_new(size_t record_bytes_max, struct rb_reader **reader);

// Takes received bytes, cut anywhere, and hands each record that is complete in to `connection`, as rb_receive() does.
// Gives how many; RB_ERR_XDR: this is no sequence of records, close the connection. Not from two threads at a time.
int rb_reader_feed(struct rb_reader *reader,
                   const struct rb_runtime *runtime,
                   rb_connection connection,
                   const uint8_t *bytes,
                   size_t bytes_count);

// Gives a reader up.
int rb_reader_free(struct rb_reader **reader);

// The record of a call, which lives as long as `call`: an RPC call header and the arguments, without the record mark.
// `connection` may be null.
int rb_call_record(const struct rb_call *call, rb_connection *connection, const uint8_t **record, size_t *record_bytes);

// Answers a call, from any thread, and gives it up: the reply's record (RPC header and results, no record mark) is the
// buffers one after the other. They are copied. After an error the call is still the caller's.
int rb_call_reply(const struct rb_runtime *runtime,
                  struct rb_call **call,
                  const struct rb_bytes *buffers,
                  size_t buffers_count);

// Gives a call up without an answer: only for one whose connection is gone. It counts against the connection's limit of
// unanswered calls otherwise.
int rb_call_free(struct rb_call **call);

// Ends all callbacks: no new run is accepted, runs not sent yet end at once, sent ones may be answered until `patience_ms`
// is over. Ends one second after that at the latest. Blocks: not from a hook, and not on the only thread that polls a
// queue, which uses rb_drain_start(). `report` may be null.
int rb_drain_all(const struct rb_runtime *runtime,
                 uint64_t patience_ms,
                 struct rb_drain_report *report);

// rb_drain_all(), then ends the reactors and closes every connection. What is left to do is rb_runtime_free().
int rb_shutdown(const struct rb_runtime *runtime, uint64_t patience_ms, struct rb_drain_report *report);

// rb_drain_all() of one client. Blocks. What is left to do with it is rb_remove_client().
int rb_drain_client(const struct rb_runtime *runtime,
                    rb_client client,
                    uint64_t patience_ms,
                    struct rb_drain_report *report);

// Ends what is out on one session, to be able to answer a DESTROY_SESSION. Blocks. What is left to do is
// rb_remove_session().
int rb_drain_session(const struct rb_runtime *runtime,
                     struct rb_session session,
                     uint64_t patience_ms,
                     struct rb_drain_report *report);

// Begins what rb_drain_all() does. It ends as soon as every run has; if `queue` is not null, that is told there by one
// RB_ITEM_NOTICE with `user`.
int rb_drain_start(const struct rb_runtime *runtime,
                   uint64_t patience_ms,
                   const struct rb_queue *queue,
                   void *user,
                   struct rb_drain **drain);

// What a drain has left behind: 0 if it has ended, RB_ERR_PENDING if this is how far it is. `report` may be null.
int rb_drain_result(const struct rb_drain *drain, struct rb_drain_report *report);

// Gives a drain up; it goes on, and its RB_ITEM_NOTICE still comes.
int rb_drain_free(struct rb_drain **drain);

// What the last error of this thread was about, in one line: function, client, session, operation, and what is wrong. Empty
// if there was none. The text is there until the next error of this thread.
const char *rb_last_error(void);

// The meaning of an error, in a few words. Never null.
const char *rb_strerror(int error);

// rb_try_run() of many callbacks, such as the recalls of all delegations of a file, to be told once when each of them is
// settled, the return of what is recalled included: on `queue`, if it is not null, by one RB_ITEM_NOTICE with `user`;
// rb_group_result() says how. What is running already is waited for like the rest; what is listed twice counts twice.
// `answers`, if it is not null, has place for the rb_try_run_answer of each.
//
// Calls no hook but acquire, and is legal under the embedder's locks; but unlike rb_try_run() it allocates. Fails before
// anything is started (RB_ERR_FULL, RB_ERR_NO_MEMORY). Each group is settled at some time, by the return deadline or
// by a drain.
int rb_run_many(const struct rb_runtime *runtime,
                const rb_key *keys,
                size_t keys_count,
                const struct rb_queue *queue,
                void *user,
                int32_t *answers,
                struct rb_group **group);

// What became of the callbacks; RB_ERR_PENDING: they are not all settled yet.
int rb_group_result(const struct rb_group *group, struct rb_group_settled *settled);

// Waits on the caller's own thread, for `patience_ms` at most, and gives the group up. Not from a hook. What was not settled
// by then (RB_ERR_TIMED_OUT) goes on. `settled` may be null.
int rb_group_block(struct rb_group **group,
                   uint64_t patience_ms,
                   struct rb_group_settled *settled);

// Stops to wait for a group; what it asked for goes on.
int rb_group_free(struct rb_group **group);

// The RFC's name of an rb_op, such as "CB_RECALL": for logs. "unknown" for any other number.
const char *rb_op_name(int32_t op);

// What was counted for one client. Asks its reactor and waits for the answer: not to be done often, and not from a hook.
int rb_get_client_stats(const struct rb_runtime *runtime,
                        rb_client client,
                        struct rb_client_stats *stats);

// What one reactor has counted. Cheap, from any thread.
int rb_get_reactor_stats(const struct rb_runtime *runtime, uint32_t reactor, struct rb_stats *stats);

// Where a reactor runs.
int rb_get_placement(const struct rb_runtime *runtime, uint32_t reactor, struct rb_placement *placement);

// All numbers of all reactors, and of the `clients_max` clients that are most in trouble, in Prometheus' text format (version
// 0.0.4, text/plain; version=0.0.4), with a zero at the end. `needed`, which may be null, is told how many bytes that takes;
// with fewer at `text` (none: null and 0) the answer is RB_ERR_NO_SPACE, and nothing is written. It may be longer the next
// time. Asks the reactors and waits for the answers: not to be done often, and not from a hook.
int rb_metrics_text(const struct rb_runtime *runtime,
                    uint32_t clients_max,
                    char *text,
                    size_t text_bytes,
                    size_t *needed);

// What happened last on each reactor, step by step, as lines of JSON with a zero at the end, for a file that `ringback flight
// FILE` tells in words. Only of a runtime made with `flight_records`. Waits for nobody: also for when a drain does not end, and
// from hooks. `text` and `needed` as for rb_metrics_text().
int rb_flight_text(const struct rb_runtime *runtime,
                   char *text,
                   size_t text_bytes,
                   size_t *needed);

// Makes a runtime and starts its reactors: hooks are called from now on. `options` may be null: all defaults. On an error
// `*runtime` is null.
int rb_runtime_new(const struct rb_options *options,
                   const struct rb_hooks *hooks,
                   struct rb_runtime **runtime);

// SETCLIENTID of minor version 0: remembers what the client says of its callbacks, in the place of what it said and has not
// confirmed, and names the path that this makes. Nobody is connected to before rb_confirm(). RB_ERR_INVALID for an
// address that cannot be used or that rb_options.connect_policy does not allow; that is no reason to refuse the SETCLIENTID,
// but such a client has no callbacks.
int rb_set_client_id(const struct rb_runtime *runtime,
                     rb_client client,
                     const struct rb_path_options *options,
                     struct rb_session *path);

// SETCLIENTID_CONFIRM: the client is called back on this path from now on, and on no other one. RB_ERR_STALE if there has been
// another SETCLIENTID since, or the path was confirmed already.
int rb_confirm(const struct rb_runtime *runtime,
               struct rb_session path);

// 1 if RENEW is to be answered with NFS4ERR_CB_PATH_DOWN (RFC 7530 section 16.28), which a file server does for a client that
// holds delegations. To ask counts as telling the client. Else, or for a client that is not registered, 0.
int rb_is_path_down(const struct rb_runtime *runtime,
                    rb_client client);

// Opens queue number `number` of a runtime, counted from 0. It tells of clients whose home reactor, and of connections whose
// reactor, has that number, or that number plus a multiple of the number of queues.
int rb_queue_open(const struct rb_runtime *runtime,
                  uint32_t number,
                  struct rb_queue **queue);

// The queue's descriptor, to be polled for reading with poll(), epoll or io_uring, and not to be read or closed: it is
// readable while rb_queue_poll() has something to give.
int rb_queue_fd(const struct rb_queue *queue);

// Takes up to `items_max` items, and releases the runs whose completions the last call gave. Gives how many; never blocks.
// Call it until it gives 0: then the last runs are released, and the descriptor is not readable until something comes.
int rb_queue_poll(const struct rb_queue *queue,
                  struct rb_item *items,
                  size_t items_max);

// Releases the runs whose completions the last rb_queue_poll() gave, without taking more.
int rb_queue_release(const struct rb_queue *queue);

// Gives a queue up. What it would tell is kept, and told when it is opened again.
int rb_queue_free(struct rb_queue **queue);

// Decodes the results of a CB_GETATTR that was answered with NFS4_OK. Attributes behind one that is not known here are in
// `values` alone.
int rb_decode_getattr(const uint8_t *results,
                      size_t results_bytes,
                      struct rb_attributes *attributes);

// Looks at all reactors and clients, and at the `callbacks_max` oldest callbacks in flight of each client. Asks the reactors
// and waits for the answers: not to be done often, and not from a hook.
int rb_snapshot_new(const struct rb_runtime *runtime,
                    uint32_t callbacks_max,
                    struct rb_snapshot **snapshot);

// What rb_snapshot_new() would have told when the checkpoint was written. Takes as much memory as the callbacks take.
int rb_checkpoint_snapshot(const struct rb_checkpoint *checkpoint,
                           uint32_t callbacks_max,
                           struct rb_snapshot **snapshot);

// What all reactors have counted, and what belongs to none of them.
int rb_snapshot_totals(const struct rb_snapshot *snapshot, struct rb_stats *stats);

// A reactor that has not ended: what it has counted, and in `clients`, which may be null, what the backchannels of its clients
// have, those of clients that are gone included, and where their runs and session slots are.
int rb_snapshot_reactor(const struct rb_snapshot *snapshot,
                        uint32_t number,
                        struct rb_stats *stats,
                        struct rb_client_stats *clients);

// How runs of a reactor have ended, and how often they have ended like that.
int rb_snapshot_ending(const struct rb_snapshot *snapshot,
                       uint32_t reactor_number,
                       uint32_t number,
                       struct rb_outcome *ending,
                       uint64_t *count);

// A client, the one that is most in trouble first: whose oldest callback is the oldest, who has more parked, more in flight.
// `stats` may be null.
int rb_snapshot_client(const struct rb_snapshot *snapshot,
                       uint32_t number,
                       rb_client *client,
                       struct rb_client_stats *stats);

// A session of a client that has a backchannel.
int rb_snapshot_session(const struct rb_snapshot *snapshot,
                        uint32_t client_number,
                        uint32_t number,
                        struct rb_session_report *report);

// A callback of a client that is in flight, the oldest first: what a client is stuck with.
int rb_snapshot_callback(const struct rb_snapshot *snapshot,
                         uint32_t client_number,
                         uint32_t number,
                         struct rb_callback_report *report);

// How long callbacks of a class took in a stage, all reactors together. There are none, unless rb_options.latency was set.
int rb_snapshot_latency(const struct rb_snapshot *snapshot,
                        uint32_t number,
                        struct rb_latency *latency);

// Of the callbacks that rb_snapshot_latency() tells of by this number: the time that this part of them, from 0 to 1, did not
// exceed.
int rb_snapshot_quantile(const struct rb_snapshot *snapshot,
                         uint32_t number,
                         double part,
                         uint64_t *time_ns);

// Of the same callbacks: how many took no longer than this.
int rb_snapshot_within(const struct rb_snapshot *snapshot, uint32_t number, uint64_t limit_ns, uint64_t *count);

// All of it in Prometheus' text format, as rb_metrics_text() has it.
int rb_snapshot_text(const struct rb_snapshot *snapshot,
                     uint32_t clients_max,
                     char *text,
                     size_t text_bytes,
                     size_t *needed);

// Gives a snapshot up.
int rb_snapshot_free(struct rb_snapshot **snapshot);

// What has been counted so far. Cheap, from any thread.
int rb_get_stats(const struct rb_runtime *runtime, struct rb_stats *stats);

// Counts session slots. Walks them on their reactors and waits for the answers: not to be done often, and not from a hook.
int rb_get_census(const struct rb_runtime *runtime,
                  struct rb_census *census);

// Memory held for callbacks. Walks tables and waits for the reactors, as rb_get_census() does.
int rb_get_memory(const struct rb_runtime *runtime, struct rb_memory *memory);

// Makes a tenant with a label of its own, which metrics show; asked again for the same label, gives it these limits. Tenants are
// numbered from 1; 0 is the one of clients without, which has no limits.
int rb_add_tenant(const struct rb_runtime *runtime,
                  const char *label,
                  const struct rb_tenant_limits *limits,
                  uint16_t *tenant);

// Other limits from now on. What exists and what is out stays; a rate begins anew.
int rb_set_tenant_limits(const struct rb_runtime *runtime, uint16_t tenant, const struct rb_tenant_limits *limits);

// What was counted for a tenant so far; the one numbered 0 is not counted. Cheap, from any thread.
int rb_get_tenant_stats(const struct rb_runtime *runtime, uint16_t tenant, struct rb_tenant_stats *stats);

// rb_add_client() of a tenant. It stays its client.
int rb_add_client_of(const struct rb_runtime *runtime,
                     uint16_t tenant,
                     rb_connection near_connection,
                     rb_client *client);

// What is set now.
int rb_get_tuning(const struct rb_runtime *runtime, struct rb_tuning *tuning);

// Sets all of it. An error names what is out of range, and then nothing has changed.
int rb_set_tuning(const struct rb_runtime *runtime, const struct rb_tuning *tuning);

// Hands everything over to the process at the other end of `successor`, a connected Unix socket, which has called
// rb_upgrade_receive(), or is about to: clients, sessions, callbacks, the sockets of the connections, and `files`, which are
// the program's own (a listening socket, say). What the program has to say beside that is asked for by the checkpoint hook, on
// this thread, while everything stands still. Only a process of the same user may be there.
//
// All of it may take `patience_ms`. After an error the runtime goes on as if nothing had happened, but for the pause. After 0
// no run completes here any more, functions answer RB_ERR_CLOSED, and what is left to do is rb_runtime_free(). All
// descriptors stay the caller's to close; nothing more can be said on `successor`.
//
// What is on the queues and was not taken goes along, but for items that are about an embedder's own transports, and
// notices. No other thread takes items or answers calls meanwhile; calls that the program has taken can be
// answered in the next process: rb_call_parts(). Waits for the reactors: not from a hook (RB_ERR_BUSY). `files` may be null if
// there are none, `upgraded` if nobody wants to know.
int rb_upgrade_to(const struct rb_runtime *runtime,
                  int successor,
                  const int *files,
                  size_t files_count,
                  uint64_t patience_ms,
                  struct rb_upgraded *upgraded);

// Asks the process at the other end of `predecessor`, a connected Unix socket, which is in rb_upgrade_to() or about to be, for
// all that it has. From here on that one stands still, until rb_upgrade_confirm(), or goes on, after rb_upgrade_free(). Its
// answers may take `patience_ms` together. The descriptor stays the caller's to close.
int rb_upgrade_receive(int predecessor,
                       uint64_t patience_ms,
                       struct rb_upgrade **upgrade);

// How much comes along.
int rb_get_upgrade_info(const struct rb_upgrade *upgrade, struct rb_upgrade_info *info);

// What the other process knew, for a look at it; rb_checkpoint_own() is what its program has to say. It is given up by
// rb_checkpoint_free(), before or after the upgrade.
int rb_upgrade_checkpoint(const struct rb_upgrade *upgrade, struct rb_checkpoint **checkpoint);

// Gives the files of the other program, in their order: how many. They are the caller's from now on, and given once. With less
// place than there are files the answer is RB_ERR_NO_SPACE, and none is given.
int rb_upgrade_take_files(struct rb_upgrade *upgrade,
                          int *files,
                          size_t files_max);

// The other process lets go, and the runtime that was made with this as rb_options.upgrade begins. The upgrade is given up
// whatever the answer is; after an error the other process goes on, and what is left to do is rb_runtime_free(). This takes
// as long as the other process is willing to wait. What was on its queues is told before this returns: on the queues here, or by
// the hooks, on this thread. `upgraded` may be null.
int rb_upgrade_confirm(struct rb_upgrade **upgrade,
                       struct rb_upgraded *upgraded);

// Gives an upgrade up: the other process goes on as if nothing had happened. A runtime that was made of it never begins; free
// it.
int rb_upgrade_free(struct rb_upgrade **upgrade);

// The numbers by which the next process knows a call that this one has not answered: rb_call_from_parts(). The record is
// the program's to hand on, if it needs it. The call stays the caller's, for the case that the upgrade fails.
int rb_call_parts(const struct rb_call *call,
                  rb_connection *connection,
                  uint64_t *serial);

// The call that rb_call_parts() has named in the process that came before, to be answered here. It has no record.
int rb_call_from_parts(rb_connection connection, uint64_t serial, struct rb_call **call);

// Begins to wait for the end of the run that is going on now. Any number may wait. If there is none, it has ended, or the
// like, rb_wait_result() says so.
int rb_wait_start(const struct rb_runtime *runtime,
                  rb_key key,
                  struct rb_wait **wait);

// rb_try_run() and rb_wait_start() in one: of a run that is submitted or coalesced into, the end is not missed. Gives the
// rb_try_run_answer.
int rb_run_and_wait(const struct rb_runtime *runtime,
                    rb_key key,
                    struct rb_wait **wait);

// Asks to be told on a queue when the wait is over: one RB_ITEM_NOTICE with `user`; at once if it is over already.
int rb_wait_notify(const struct rb_wait *wait, const struct rb_queue *queue, void *user);

// How the run ended; RB_ERR_PENDING: not yet. RB_ERR_IDLE, RB_ERR_TOO_LATE, RB_ERR_STALE and RB_ERR_CLOSED: there was
// nothing to wait for.
int rb_wait_result(const struct rb_wait *wait, struct rb_ended *ended);

// Waits on the caller's own thread, for `patience_ms` at most, and gives the wait up. Not from a hook. The run goes on if it
// has not ended by then (RB_ERR_TIMED_OUT). `ended` may be null.
int rb_wait_block(struct rb_wait **wait,
                  uint64_t patience_ms,
                  struct rb_ended *ended);

// Stops to wait. An RB_ITEM_NOTICE that is on the queue by then still comes.
int rb_wait_free(struct rb_wait **wait);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RINGBACK_H */
