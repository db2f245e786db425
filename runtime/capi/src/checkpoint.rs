//! Checkpoints: what the callback side of a server knows, as a file, and going on from there.

use crate::carried;
use crate::error::{Failure, guard, rb_error};
use crate::pointer::{self, Versioned, give, not_null};
use crate::{rb_client, rb_key, rb_runtime};
use runtime::{Checkpoint, CheckpointError, CheckpointSize, Restored, Suspended};
use std::ffi::{c_char, c_int, c_void};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::UNIX_EPOCH;

/// How much a checkpoint holds. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_checkpoint_size {
    /// sizeof(rb_checkpoint_size).
    pub size: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// Registered clients.
    pub clients: u64,
    /// Callbacks.
    pub callbacks: u64,
    /// Callbacks in flight.
    pub in_flight: u64,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_checkpoint_size {
    const NAME: &'static str = "rb_checkpoint_size";
}

/// What a checkpoint says of itself. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_checkpoint_info {
    /// sizeof(rb_checkpoint_info).
    pub size: usize,
    /// 1: nothing has happened since it was written, as the runtime was suspended. 0: session slots are resynchronised with
    /// their clients before they are used, and what has ended since runs once more.
    pub complete: i32,
    /// 1: it is mapped (a sealed memfd); 0: it was read.
    pub mapped: i32,
    /// When it was written, in seconds since 1970.
    pub taken_s: u64,
    /// Clients that were registered.
    pub clients: u64,
    /// Callbacks that were there.
    pub callbacks: u64,
    /// Those of them that were in flight.
    pub in_flight: u64,
    /// Bytes that the checkpoint hook has added: see rb_checkpoint_own().
    pub own_bytes: usize,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_checkpoint_info {
    const NAME: &'static str = "rb_checkpoint_info";
}

/// A callback that comes back from a checkpoint, as the restored hook is asked about it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_restored {
    /// The callback; its key is what it was.
    pub key: rb_key,
    /// The cookie that it had.
    pub cookie: u64,
    /// The client.
    pub client: rb_client,
    /// An rb_op.
    pub op: i32,
    /// 1: it is in flight.
    pub running: i32,
}

impl From<&Restored> for rb_restored {
    fn from(callback: &Restored) -> Self {
        rb_restored {
            key: callback.key.to_bits(),
            cookie: callback.cookie,
            client: callback.client.to_bits(),
            op: callback.op as i32,
            running: callback.running.into(),
        }
    }
}

/// A checkpoint that was read and found valid: given up by rb_checkpoint_free().
pub struct rb_checkpoint(pub(crate) Checkpoint);

/// A runtime that stands still: given up by rb_suspended_leave() or rb_suspended_free().
pub struct rb_suspended(Suspended);

/// Where the embedder's own part of a checkpoint goes: of use within the checkpoint hook that was given it.
pub struct rb_own<'a>(pub(crate) &'a mut Vec<u8>);

/// Takes a piece of a checkpoint: 0, or anything else if it cannot be written.
pub type rb_write = Option<extern "C" fn(user: *mut c_void, bytes: *const u8, count: usize) -> c_int>;

/// The embedder's end of a checkpoint.
struct Sink {
    write: extern "C" fn(user: *mut c_void, bytes: *const u8, count: usize) -> c_int,
    user: *mut c_void,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (self.write)(self.user, bytes.as_ptr(), bytes.len()) {
            0 => Ok(bytes.len()),
            answer => Err(io::Error::other(format!("write answered {answer}"))),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        let code = match error {
            CheckpointError::Io(_) => rb_error::RB_ERR_SYSTEM,
            CheckpointError::TooLarge => rb_error::RB_ERR_FULL,
            CheckpointError::TooSmall { .. } => rb_error::RB_ERR_INVALID,
            CheckpointError::OutOfMemory => rb_error::RB_ERR_NO_MEMORY,
            CheckpointError::Reactor { .. } => rb_error::RB_ERR_REACTOR_ENDED,
            CheckpointError::Busy => rb_error::RB_ERR_BUSY,
            CheckpointError::Used => rb_error::RB_ERR_UPGRADE,
            _ => rb_error::RB_ERR_CHECKPOINT,
        };
        Failure::new(code, error.to_string())
    }
}

/// What is wrong with a place for the size is said before anything is written.
///
/// # Safety
///
/// P3.
unsafe fn check(size: *mut rb_checkpoint_size) -> Result<(), Failure> {
    // SAFETY: P3
    if size.is_null() { Ok(()) } else { unsafe { pointer::read(size.cast_const(), "size") }.map(drop) }
}

/// # Safety
///
/// P3.
unsafe fn tell(to: *mut rb_checkpoint_size, found: &CheckpointSize) -> Result<c_int, Failure> {
    let fill = |mut told: rb_checkpoint_size| {
        (told.bytes, told.clients) = (found.bytes, found.clients);
        (told.callbacks, told.in_flight) = (found.callbacks, found.in_flight);
        Ok(told)
    };
    if !to.is_null() {
        // SAFETY: P3
        unsafe { pointer::fill(to, "size", fill) }?;
    }
    Ok(0)
}

/// Writes a checkpoint of a runtime that goes on into a file, which only its owner may read: it holds credentials. The file is
/// replaced when all of it is on the disk, and else stays what it was. Each client is as it is between two pieces of
/// work; no reactor is kept from its work for longer than one turn. Waits for the reactors: not from a hook (RB_ERR_BUSY).
/// `size` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_checkpoint_to(
    runtime: Option<&rb_runtime>,
    file: *const c_char,
    size: *mut rb_checkpoint_size,
) -> c_int {
    guard("rb_checkpoint_to", String::new, || {
        // SAFETY: P3
        unsafe { check(size) }?;
        // SAFETY: P2
        let file = unsafe { pointer::path(file, "file") }?;
        let found = not_null(runtime, "runtime")?.runtime.checkpoint_to(file)?;
        // SAFETY: P3
        unsafe { tell(size, &found) }
    })
}

/// rb_checkpoint_to() to wherever `write` puts it, piece by piece, on the caller's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_checkpoint_write(
    runtime: Option<&rb_runtime>,
    write: rb_write,
    user: *mut c_void,
    size: *mut rb_checkpoint_size,
) -> c_int {
    guard("rb_checkpoint_write", String::new, || {
        // SAFETY: P3
        unsafe { check(size) }?;
        let mut sink = Sink { write: not_null(write, "write")?, user };
        let found = not_null(runtime, "runtime")?.runtime.checkpoint(&mut sink)?;
        // SAFETY: P3
        unsafe { tell(size, &found) }
    })
}

/// Makes the reactors stand still, for a checkpoint after which nothing happens any more: nothing is sent, received or
/// completed, and no hook is called. The embedder calls nothing else of the runtime meanwhile, so that its own state and the
/// checkpoint belong together. RB_ERR_BUSY: it stands still already, is draining, or was called from a hook.
#[unsafe(no_mangle)]
pub extern "C" fn rb_suspend(
    runtime: Option<&rb_runtime>,
    suspended: Option<&mut MaybeUninit<*mut rb_suspended>>,
) -> c_int {
    guard("rb_suspend", String::new, || {
        let suspended = not_null(suspended, "suspended")?;
        suspended.write(std::ptr::null_mut());
        give(suspended, rb_suspended(not_null(runtime, "runtime")?.runtime.suspend()?));
        Ok(0)
    })
}

/// As rb_checkpoint_to(), of a runtime that stands still: nothing will have happened after it, as long as rb_suspended_leave()
/// follows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_suspended_checkpoint_to(
    suspended: Option<&rb_suspended>,
    file: *const c_char,
    size: *mut rb_checkpoint_size,
) -> c_int {
    guard("rb_suspended_checkpoint_to", String::new, || {
        // SAFETY: P3
        unsafe { check(size) }?;
        // SAFETY: P2
        let file = unsafe { pointer::path(file, "file") }?;
        let found = not_null(suspended, "suspended")?.0.checkpoint_to(file)?;
        // SAFETY: P3
        unsafe { tell(size, &found) }
    })
}

/// As rb_checkpoint_write(), of a runtime that stands still.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_suspended_checkpoint_write(
    suspended: Option<&rb_suspended>,
    write: rb_write,
    user: *mut c_void,
    size: *mut rb_checkpoint_size,
) -> c_int {
    guard("rb_suspended_checkpoint_write", String::new, || {
        // SAFETY: P3
        unsafe { check(size) }?;
        let mut sink = Sink { write: not_null(write, "write")?, user };
        let found = not_null(suspended, "suspended")?.0.checkpoint(&mut sink)?;
        // SAFETY: P3
        unsafe { tell(size, &found) }
    })
}

/// Ends the reactors where they stand, and their connections with them. No run ends and no hook is called: all that goes on
/// in the process that restores the checkpoint. What is left to do is rb_runtime_free().
#[unsafe(no_mangle)]
pub extern "C" fn rb_suspended_leave(suspended: Option<&mut *mut rb_suspended>) -> c_int {
    guard("rb_suspended_leave", String::new, || {
        // SAFETY: P1
        unsafe { pointer::take(suspended, "suspended") }?.0.leave();
        Ok(0)
    })
}

/// The runtime goes on, as if nothing had happened but for the time that has passed.
#[unsafe(no_mangle)]
pub extern "C" fn rb_suspended_free(suspended: Option<&mut *mut rb_suspended>) -> c_int {
    guard("rb_suspended_free", String::new, || {
        // SAFETY: P1
        drop(unsafe { pointer::take(suspended, "suspended") }?);
        Ok(0)
    })
}

/// Reads a checkpoint from a file and validates all of it. RB_ERR_CHECKPOINT: it is none, truncated, corrupt, or of a version
/// that is not read; rb_last_error() says which.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_checkpoint_open(
    file: *const c_char,
    checkpoint: Option<&mut MaybeUninit<*mut rb_checkpoint>>,
) -> c_int {
    guard("rb_checkpoint_open", String::new, || {
        let checkpoint = not_null(checkpoint, "checkpoint")?;
        checkpoint.write(std::ptr::null_mut());
        // SAFETY: P2
        give(checkpoint, rb_checkpoint(Checkpoint::open(unsafe { pointer::path(file, "file") }?)?));
        Ok(0)
    })
}

/// rb_checkpoint_open() of an open file, which stays the caller's. A file in memory (memfd) that is sealed against writing and
/// shrinking is not read but mapped.
#[unsafe(no_mangle)]
pub extern "C" fn rb_checkpoint_open_fd(fd: c_int, checkpoint: Option<&mut MaybeUninit<*mut rb_checkpoint>>) -> c_int {
    guard("rb_checkpoint_open_fd", String::new, || {
        let checkpoint = not_null(checkpoint, "checkpoint")?;
        checkpoint.write(std::ptr::null_mut());
        let fd: RawFd = fd;
        if fd < 0 {
            return Err(Failure::new(rb_error::RB_ERR_INVALID, format!("fd is {fd}")));
        }
        // SAFETY: not negative; one that is not open is an error of the system call that duplicates it.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let fd = fd.try_clone_to_owned().map_err(CheckpointError::from)?;
        give(checkpoint, rb_checkpoint(Checkpoint::from_fd(fd)?));
        Ok(0)
    })
}

/// rb_checkpoint_open() of what is in memory, which is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_checkpoint_open_bytes(
    bytes: *const u8,
    count: usize,
    checkpoint: Option<&mut MaybeUninit<*mut rb_checkpoint>>,
) -> c_int {
    guard("rb_checkpoint_open_bytes", String::new, || {
        let checkpoint = not_null(checkpoint, "checkpoint")?;
        checkpoint.write(std::ptr::null_mut());
        // SAFETY: P2
        let bytes = unsafe { pointer::slice(bytes, count, "bytes") }?;
        give(checkpoint, rb_checkpoint(Checkpoint::from_bytes(bytes)?));
        Ok(0)
    })
}

/// What it says of itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_get_checkpoint_info(
    checkpoint: Option<&rb_checkpoint>,
    info: *mut rb_checkpoint_info,
) -> c_int {
    guard("rb_get_checkpoint_info", String::new, || {
        let found = &not_null(checkpoint, "checkpoint")?.0;
        let fill = |old: rb_checkpoint_info| {
            Ok(rb_checkpoint_info {
                complete: found.is_complete().into(),
                mapped: found.is_mapped().into(),
                taken_s: found.taken().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
                clients: found.clients() as u64,
                callbacks: found.callbacks(),
                in_flight: found.in_flight(),
                own_bytes: carried::split(&found.own()).0.len(),
                ..old
            })
        };
        // SAFETY: P3
        unsafe { pointer::fill(info, "info", fill) }?;
        Ok(0)
    })
}

/// Copies what the checkpoint hook has added. With less than rb_checkpoint_info.own_bytes at `bytes` the answer is
/// RB_ERR_NO_SPACE, and nothing is written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_checkpoint_own(
    checkpoint: Option<&rb_checkpoint>,
    bytes: *mut u8,
    bytes_max: usize,
) -> c_int {
    guard("rb_checkpoint_own", String::new, || {
        let own = not_null(checkpoint, "checkpoint")?.0.own();
        let (own, _) = carried::split(&own);
        // SAFETY: P2
        unsafe { pointer::put(own, bytes, bytes_max, "bytes") }?;
        Ok(0)
    })
}

/// Adds to the checkpoint that is being written, within the checkpoint hook: rb_checkpoint_own() gives all that was added.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_checkpoint_add(own: Option<&mut rb_own>, bytes: *const u8, count: usize) -> c_int {
    guard("rb_checkpoint_add", String::new, || {
        let own = not_null(own, "own")?;
        // SAFETY: P2
        own.0.extend_from_slice(unsafe { pointer::slice(bytes, count, "bytes") }?);
        Ok(0)
    })
}

/// Gives a checkpoint up. A runtime that was restored from it does not need it any more.
#[unsafe(no_mangle)]
pub extern "C" fn rb_checkpoint_free(checkpoint: Option<&mut *mut rb_checkpoint>) -> c_int {
    guard("rb_checkpoint_free", String::new, || {
        // SAFETY: P1
        drop(unsafe { pointer::take(checkpoint, "checkpoint") }?);
        Ok(0)
    })
}
