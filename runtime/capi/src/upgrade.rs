//! Live upgrade: everything that one process has goes to the next one, the sockets too.

use crate::checkpoint::rb_checkpoint;
use crate::connection::rb_call;
use crate::error::{Failure, guard, rb_error};
use crate::hooks::Embedder;
use crate::pointer::{self, Versioned, give, not_null};
use crate::{rb_connection, rb_runtime};
use runtime::{CallToken, ConnectionId, Upgrade, UpgradeError, Upgraded};
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What has gone over. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_upgraded {
    /// sizeof(rb_upgraded).
    pub size: usize,
    /// Connections whose sockets went over.
    pub connections: u64,
    /// Registered clients.
    pub clients: u64,
    /// Callbacks.
    pub callbacks: u64,
    /// Callbacks in flight.
    pub in_flight: u64,
    /// Nanoseconds in which nothing was sent and received. The old process measures until it lets go, the new one until it
    /// has begun.
    pub pause_ns: u64,
    /// What the old process was asked for while it stood still, and has left undone: RB_EVENT_LEFT_UNDONE.
    pub undone: u64,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_upgraded {
    const NAME: &'static str = "rb_upgraded";
}

/// What comes along with an upgrade. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_upgrade_info {
    /// sizeof(rb_upgrade_info).
    pub size: usize,
    /// Connections, which are the runtime's.
    pub connections: u64,
    /// Files of the other program that rb_upgrade_take_files() has not given yet.
    pub files: u64,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_upgrade_info {
    const NAME: &'static str = "rb_upgrade_info";
}

/// Everything that another process had, which stands still meanwhile: given up by rb_upgrade_confirm() or rb_upgrade_free().
pub struct rb_upgrade {
    upgrade: Upgrade,
    files: Vec<OwnedFd>,
    /// Of the runtime that was made of it.
    embedder: OnceLock<Arc<Embedder>>,
    // Last: when what is above has said what it has to say.
    _line: Line,
}

impl rb_upgrade {
    pub fn inner(&self) -> &Upgrade {
        &self.upgrade
    }

    /// There is one runtime at most that was.
    pub fn is_built_by(&self, embedder: &Arc<Embedder>) {
        let _ = self.embedder.set(Arc::clone(embedder));
    }
}

/// The caller keeps the descriptor, and the other process is to see all the same when we are done.
struct Line(UnixStream);

impl Drop for Line {
    fn drop(&mut self) {
        // Fails if the other one is gone.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A socket of the caller's to the other process: for the exchange, and for its end.
fn line(fd: c_int, what: &str) -> Result<(UnixStream, Line), Failure> {
    let clone = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(UpgradeError::from);
    let fd = descriptor(fd, what)?;
    Ok((UnixStream::from(clone(fd)?), Line(UnixStream::from(clone(fd)?))))
}

fn descriptor<'a>(fd: c_int, what: &str) -> Result<BorrowedFd<'a>, Failure> {
    if fd < 0 {
        return Err(Failure::new(rb_error::RB_ERR_INVALID, format!("{what} is {fd}")));
    }
    // SAFETY: not negative; one that is not open is an error of the system call that is given it.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

impl From<UpgradeError> for Failure {
    fn from(error: UpgradeError) -> Self {
        let code = match error {
            UpgradeError::Checkpoint(error) => return error.into(),
            UpgradeError::Io(_) => rb_error::RB_ERR_SYSTEM,
            UpgradeError::TimedOut => rb_error::RB_ERR_TIMED_OUT,
            _ => rb_error::RB_ERR_UPGRADE,
        };
        Failure::new(code, error.to_string())
    }
}

/// What is wrong with a place for the result is said before anything is done.
///
/// # Safety
///
/// P3.
unsafe fn check(upgraded: *mut rb_upgraded) -> Result<(), Failure> {
    // SAFETY: P3
    if upgraded.is_null() { Ok(()) } else { unsafe { pointer::read(upgraded.cast_const(), "upgraded") }.map(drop) }
}

/// # Safety
///
/// P3.
unsafe fn tell(to: *mut rb_upgraded, found: &Upgraded) -> Result<c_int, Failure> {
    let fill = |mut told: rb_upgraded| {
        (told.connections, told.clients) = (found.connections, found.clients);
        (told.callbacks, told.in_flight) = (found.callbacks, found.in_flight);
        told.pause_ns = u64::try_from(found.pause.as_nanos()).unwrap_or(u64::MAX);
        told.undone = found.undone;
        Ok(told)
    };
    if !to.is_null() {
        // SAFETY: P3
        unsafe { pointer::fill(to, "upgraded", fill) }?;
    }
    Ok(0)
}

/// Hands everything over to the process at the other end of `successor`, a connected Unix socket, which has called
/// rb_upgrade_receive(), or is about to: clients, sessions, callbacks, the sockets of the connections, and `files`, which are
/// the program's own (a listening socket, say). What the program has to say beside that is asked for by the checkpoint hook, on
/// this thread, while everything stands still. Only a process of the same user may be there.
///
/// All of it may take `patience_ms`. After an error the runtime goes on as if nothing had happened, but for the pause. After 0
/// no run completes here any more, functions answer RB_ERR_CLOSED, and what is left to do is rb_runtime_free(). All
/// descriptors stay the caller's to close; nothing more can be said on `successor`.
///
/// What is on the queues and was not taken goes along, but for items that are about an embedder's own transports, and
/// notices. No other thread takes items or answers calls meanwhile; calls that the program has taken can be
/// answered in the next process: rb_call_parts(). Waits for the reactors: not from a hook (RB_ERR_BUSY). `files` may be null if
/// there are none, `upgraded` if nobody wants to know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_upgrade_to(
    runtime: Option<&rb_runtime>,
    successor: c_int,
    files: *const c_int,
    files_count: usize,
    patience_ms: u64,
    upgraded: *mut rb_upgraded,
) -> c_int {
    guard(
        "rb_upgrade_to",
        || format!("descriptor {successor}"),
        || {
            // SAFETY: P3
            unsafe { check(upgraded) }?;
            // SAFETY: P2
            let files = unsafe { pointer::slice(files, files_count, "files") }?;
            let files = files.iter().map(|fd| descriptor(*fd, "a file")).collect::<Result<Vec<_>, _>>()?;
            let runtime = not_null(runtime, "runtime")?;
            let (stream, _line) = line(successor, "successor")?;
            if !runtime.embedder.begin_upgrade() {
                return Err(Failure::new(rb_error::RB_ERR_BUSY, "another thread hands the runtime over"));
            }
            let given = runtime.runtime.upgrade_to(stream, &files, Duration::from_millis(patience_ms));
            runtime.embedder.end_upgrade(given.is_ok());
            let given = given?;
            // SAFETY: P3
            unsafe { tell(upgraded, &given) }
        },
    )
}

/// Asks the process at the other end of `predecessor`, a connected Unix socket, which is in rb_upgrade_to() or about to be, for
/// all that it has. From here on that one stands still, until rb_upgrade_confirm(), or goes on, after rb_upgrade_free(). Its
/// answers may take `patience_ms` together. The descriptor stays the caller's to close.
#[unsafe(no_mangle)]
pub extern "C" fn rb_upgrade_receive(
    predecessor: c_int,
    patience_ms: u64,
    upgrade: Option<&mut MaybeUninit<*mut rb_upgrade>>,
) -> c_int {
    guard(
        "rb_upgrade_receive",
        || format!("descriptor {predecessor}"),
        || {
            let place = not_null(upgrade, "upgrade")?;
            place.write(std::ptr::null_mut());
            let (stream, line) = line(predecessor, "predecessor")?;
            let mut upgrade = Upgrade::receive(stream, Duration::from_millis(patience_ms))?;
            let files = upgrade.take_files();
            give(place, rb_upgrade { upgrade, files, embedder: OnceLock::new(), _line: line });
            Ok(0)
        },
    )
}

/// How much comes along.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_get_upgrade_info(upgrade: Option<&rb_upgrade>, info: *mut rb_upgrade_info) -> c_int {
    guard("rb_get_upgrade_info", String::new, || {
        let found = not_null(upgrade, "upgrade")?;
        let fill = |old: rb_upgrade_info| {
            let (connections, files) = (found.upgrade.connections() as u64, found.files.len() as u64);
            Ok(rb_upgrade_info { connections, files, ..old })
        };
        // SAFETY: P3
        unsafe { pointer::fill(info, "info", fill) }?;
        Ok(0)
    })
}

/// What the other process knew, for a look at it; rb_checkpoint_own() is what its program has to say. It is given up by
/// rb_checkpoint_free(), before or after the upgrade.
#[unsafe(no_mangle)]
pub extern "C" fn rb_upgrade_checkpoint(
    upgrade: Option<&rb_upgrade>,
    checkpoint: Option<&mut MaybeUninit<*mut rb_checkpoint>>,
) -> c_int {
    guard("rb_upgrade_checkpoint", String::new, || {
        let place = not_null(checkpoint, "checkpoint")?;
        place.write(std::ptr::null_mut());
        give(place, rb_checkpoint(not_null(upgrade, "upgrade")?.upgrade.checkpoint().clone()));
        Ok(0)
    })
}

/// Gives the files of the other program, in their order: how many. They are the caller's from now on, and given once. With less
/// place than there are files the answer is RB_ERR_NO_SPACE, and none is given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_upgrade_take_files(
    upgrade: Option<&mut rb_upgrade>,
    files: *mut c_int,
    files_max: usize,
) -> c_int {
    guard("rb_upgrade_take_files", String::new, || {
        let upgrade = not_null(upgrade, "upgrade")?;
        // SAFETY: P2
        let place = unsafe { pointer::slice_out(files, files_max, "files") }?;
        let count = upgrade.files.len();
        if count > place.len() {
            let text = format!("files has place for {files_max}, {count} are needed");
            return Err(Failure::new(rb_error::RB_ERR_NO_SPACE, text));
        }
        for (place, file) in place.iter_mut().zip(upgrade.files.drain(..)) {
            place.write(file.into_raw_fd());
        }
        Ok(count as c_int)
    })
}

/// The other process lets go, and the runtime that was made with this as rb_options.upgrade begins. The upgrade is given up
/// whatever the answer is; after an error the other process goes on, and what is left to do is rb_runtime_free(). This takes
/// as long as the other process is willing to wait. What was on its queues is told before this returns: on the queues here, or by
/// the hooks, on this thread. `upgraded` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_upgrade_confirm(
    upgrade: Option<&mut *mut rb_upgrade>,
    upgraded: *mut rb_upgraded,
) -> c_int {
    guard("rb_upgrade_confirm", String::new, || {
        // SAFETY: P3
        unsafe { check(upgraded) }?;
        // SAFETY: P1
        let taken = *unsafe { pointer::take(upgrade, "upgrade") }?;
        let rb_upgrade { upgrade, embedder, _line, .. } = taken;
        let checkpoint = upgrade.checkpoint().clone();
        let found = upgrade.confirm()?;
        if let Some(embedder) = embedder.get() {
            embedder.go_on(&checkpoint.own());
        }
        // SAFETY: P3
        unsafe { tell(upgraded, &found) }
    })
}

/// Gives an upgrade up: the other process goes on as if nothing had happened. A runtime that was made of it never begins; free
/// it.
#[unsafe(no_mangle)]
pub extern "C" fn rb_upgrade_free(upgrade: Option<&mut *mut rb_upgrade>) -> c_int {
    guard("rb_upgrade_free", String::new, || {
        // SAFETY: P1
        drop(unsafe { pointer::take(upgrade, "upgrade") }?);
        Ok(0)
    })
}

/// The numbers by which the next process knows a call that this one has not answered: rb_call_from_parts(). The record is
/// the program's to hand on, if it needs it. The call stays the caller's, for the case that the upgrade fails.
#[unsafe(no_mangle)]
pub extern "C" fn rb_call_parts(
    call: Option<&rb_call>,
    connection: Option<&mut MaybeUninit<rb_connection>>,
    serial: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    guard("rb_call_parts", String::new, || {
        let (of, number) = not_null(call, "call")?.token().to_parts();
        not_null(connection, "connection")?.write(of.to_bits());
        not_null(serial, "serial")?.write(number);
        Ok(0)
    })
}

/// The call that rb_call_parts() has named in the process that came before, to be answered here. It has no record.
#[unsafe(no_mangle)]
pub extern "C" fn rb_call_from_parts(
    connection: rb_connection,
    serial: u64,
    call: Option<&mut MaybeUninit<*mut rb_call>>,
) -> c_int {
    guard("rb_call_from_parts", String::new, || {
        let place = not_null(call, "call")?;
        place.write(std::ptr::null_mut());
        if connection == 0 {
            return Err(Failure::new(rb_error::RB_ERR_NO_SUCH_CONNECTION, "connection is 0, which names none"));
        }
        let token = CallToken::from_parts(ConnectionId::from_bits(connection), serial);
        give(place, rb_call::from_parts(token, Vec::new()));
        Ok(0)
    })
}
