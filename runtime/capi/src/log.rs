//! The embedder's log.

use crate::pointer::User;
use crate::rb_client;
use runtime::{Log, LogLevel, LogMessage};
use std::ffi::{CString, c_char, c_void};

/// How much a message matters; what matters most comes first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum rb_log_level {
    /// Something is broken, here or in the embedder: somebody has to mend it.
    RB_LOG_ERROR = 1,
    /// Something does not work as it should, such as the path to a client.
    RB_LOG_WARN = 2,
    /// What is good to know.
    RB_LOG_INFO = 3,
    /// What is good to know while looking for a mistake.
    RB_LOG_DEBUG = 4,
}

/// One message, which is gone when the function that was given it returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_log_message {
    /// An rb_log_level. There may be more of them in a later version: take those for RB_LOG_DEBUG.
    pub level: i32,
    /// The reactor that says so; -1: it comes from another thread.
    pub reactor: i32,
    /// The client that it is about; 0: it is about none.
    pub client: rb_client,
    /// Messages of this kind, of the same reactor, that were left out since the last one, because there were too many.
    pub left_out: u64,
    /// What it says, in one line.
    pub text: *const c_char,
}

/// The embedder's function, and what it is handed.
pub struct CLog {
    log: extern "C" fn(user: *mut c_void, message: *const rb_log_message),
    user: User,
}

impl CLog {
    pub fn new(log: extern "C" fn(user: *mut c_void, message: *const rb_log_message), user: *mut c_void) -> Self {
        CLog { log, user: User(user) }
    }
}

impl Log for CLog {
    fn log(&self, message: &LogMessage<'_>) {
        let level = match message.level {
            LogLevel::Error => rb_log_level::RB_LOG_ERROR,
            LogLevel::Warn => rb_log_level::RB_LOG_WARN,
            LogLevel::Info => rb_log_level::RB_LOG_INFO,
            _ => rb_log_level::RB_LOG_DEBUG,
        };
        // A zero would end it too early: some text of the embedder's, such as why a checkpoint failed, may have one.
        let text = CString::new(message.text.to_string().replace('\0', " ")).unwrap_or_default();
        let told = rb_log_message {
            level: level as i32,
            reactor: message.reactor.map_or(-1, |reactor| reactor as i32),
            client: message.client.map_or(0, |client| client.to_bits()),
            left_out: message.left_out,
            text: text.as_ptr(),
        };
        (self.log)(self.user.0, &told);
    }
}
