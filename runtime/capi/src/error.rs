//! Errors: a number for the program, a text for the log, and the edge that no panic crosses.

use runtime::{BuildError, Error, GroupError, InsertError, WaitError};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a function has not done what it was asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum rb_error {
    /// It has.
    RB_OK = 0,
    /// A pointer is null that must not be, or a handle was given up before.
    RB_ERR_NULL = -1,
    /// The size in a struct is none that this version knows: it was not set, or the library is older than the program.
    RB_ERR_SIZE = -2,
    /// A value is out of range.
    RB_ERR_INVALID = -3,
    /// The runtime, or the client, is being drained or has been shut down.
    RB_ERR_CLOSED = -4,
    /// Something was to be waited for in a hook, on the thread that would have to do it.
    RB_ERR_IN_HOOK = -5,
    /// The reactor has ended, because a hook unwound or its back end failed.
    RB_ERR_REACTOR_ENDED = -6,
    /// A limit is reached: of clients, sessions or callbacks.
    RB_ERR_FULL = -7,
    /// There is no such client, or not any more.
    RB_ERR_NO_SUCH_CLIENT = -8,
    /// There is no such connection.
    RB_ERR_NO_SUCH_CONNECTION = -9,
    /// No memory.
    RB_ERR_NO_MEMORY = -10,
    /// The back end that was asked for cannot be had here.
    RB_ERR_BACKEND = -11,
    /// The system refused something.
    RB_ERR_SYSTEM = -12,
    /// A bug of the library: it panicked. What the function was about may be half done.
    RB_ERR_PANIC = -13,
    /// There is no run to wait for, and none was just asked for.
    RB_ERR_IDLE = -14,
    /// The run that is going on is decided already: ask for another one.
    RB_ERR_TOO_LATE = -15,
    /// There is no such callback any more, or no such path to be confirmed.
    RB_ERR_STALE = -16,
    /// It did not end in time.
    RB_ERR_TIMED_OUT = -17,
    /// It has not ended yet.
    RB_ERR_PENDING = -18,
    /// Bytes are not what the protocol says, or an argument cannot be encoded.
    RB_ERR_XDR = -19,
    /// The buffer is too small.
    RB_ERR_NO_SPACE = -20,
    /// There is no such session, or not any more.
    RB_ERR_NO_SUCH_SESSION = -21,
    /// Bytes are no checkpoint that this version reads: something else, truncated, corrupt, or of another version.
    RB_ERR_CHECKPOINT = -22,
    /// The runtime is suspended already, is draining, or a hook has asked.
    RB_ERR_BUSY = -23,
    /// An upgrade came to nothing: the other process has refused, is gone, of another user or of another version; or no runtime
    /// was made of it, or one before.
    RB_ERR_UPGRADE = -24,
}

/// The last of [`rb_error`].
const LAST_ERROR: c_int = rb_error::RB_ERR_UPGRADE as c_int;

/// An error and its text.
#[derive(Debug)]
pub struct Failure {
    code: rb_error,
    text: String,
}

impl Failure {
    pub fn new(code: rb_error, text: impl Into<String>) -> Self {
        Failure { code, text: text.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Closed | Error::Forked | Error::HandedOver => rb_error::RB_ERR_CLOSED,
            Error::InHook => rb_error::RB_ERR_IN_HOOK,
            Error::Suspended => rb_error::RB_ERR_BUSY,
            Error::ReactorEnded { .. } => rb_error::RB_ERR_REACTOR_ENDED,
            Error::ClientsFull { .. } | Error::SessionsFull { .. } | Error::TenantsFull { .. } => rb_error::RB_ERR_FULL,
            Error::NoSuchClient => rb_error::RB_ERR_NO_SUCH_CLIENT,
            Error::NotUnconfirmed => rb_error::RB_ERR_STALE,
            _ => rb_error::RB_ERR_INVALID,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<InsertError> for Failure {
    fn from(error: InsertError) -> Self {
        let code = match error {
            InsertError::Full { .. } | InsertError::TenantFull { .. } => rb_error::RB_ERR_FULL,
            InsertError::Closed => rb_error::RB_ERR_CLOSED,
            InsertError::NoSuchClient => rb_error::RB_ERR_NO_SUCH_CLIENT,
            InsertError::NoSuchSession => rb_error::RB_ERR_NO_SUCH_SESSION,
            InsertError::OutOfMemory => rb_error::RB_ERR_NO_MEMORY,
            _ => rb_error::RB_ERR_INVALID,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<GroupError> for Failure {
    fn from(error: GroupError) -> Self {
        let code = match error {
            GroupError::Full { .. } => rb_error::RB_ERR_FULL,
            _ => rb_error::RB_ERR_NO_MEMORY,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Self {
        let code = match error {
            WaitError::Idle => rb_error::RB_ERR_IDLE,
            WaitError::TooLate => rb_error::RB_ERR_TOO_LATE,
            WaitError::Stale => rb_error::RB_ERR_STALE,
            WaitError::TimedOut => rb_error::RB_ERR_TIMED_OUT,
            WaitError::InHook => rb_error::RB_ERR_IN_HOOK,
            _ => rb_error::RB_ERR_CLOSED,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let code = match error {
            BuildError::Checkpoint(error) => return error.into(),
            BuildError::Setting { .. } | BuildError::Cpu { .. } => rb_error::RB_ERR_INVALID,
            BuildError::Backend(_) => rb_error::RB_ERR_BACKEND,
            _ => rb_error::RB_ERR_SYSTEM,
        };
        Failure::new(code, error.to_string())
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// The body of every function: keeps the text of an error, and lets no panic out. `about`: the client, the session, the
/// operation that it was about.
pub fn guard(function: &str, about: impl FnOnce() -> String, body: impl FnOnce() -> Result<c_int, Failure>) -> c_int {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(answer)) => return answer,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Failure::new(rb_error::RB_ERR_PANIC, format!("panicked: {text}"))
        }
    };
    let about = match about() {
        about if about.is_empty() => about,
        about => format!("{about}: "),
    };
    let text = format!("{function}: {about}{}", failure.text).replace('\0', "");
    // A thread that is ending has no place for it any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = CString::new(text).unwrap_or_default());
    failure.code as c_int
}

/// What the last error of this thread was about, in one line: function, client, session, operation, and what is wrong. Empty
/// if there was none. The text is there until the next error of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn rb_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The meaning of an error, in a few words. Never null.
#[unsafe(no_mangle)]
pub extern "C" fn rb_strerror(error: c_int) -> *const c_char {
    text_of(error).as_ptr()
}

fn text_of(error: c_int) -> &'static CStr {
    const TEXTS: [&CStr; (1 - LAST_ERROR) as usize] = [
        c"success",
        c"null pointer, or a handle that was given up",
        c"wrong size of a struct",
        c"value out of range",
        c"closed: draining or shut down",
        c"called from a hook, where nothing may be waited for",
        c"the reactor has ended",
        c"a limit is reached",
        c"no such client",
        c"no such connection",
        c"out of memory",
        c"the back end cannot be had here",
        c"system error",
        c"the library panicked",
        c"no run is going on",
        c"the current run is decided already",
        c"no such callback",
        c"timed out",
        c"not ended yet",
        c"malformed, or not to be encoded",
        c"the buffer is too small",
        c"no such session",
        c"not a checkpoint, or not one that can be read",
        c"suspended, draining, or called from a hook",
        c"the upgrade came to nothing",
    ];
    let known = error.checked_neg().and_then(|at| usize::try_from(at).ok()).and_then(|at| TEXTS.get(at));
    known.copied().unwrap_or(if error > 0 { c"success" } else { c"unknown error" })
}
