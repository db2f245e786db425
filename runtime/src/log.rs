//! What an operator must know, as messages to the embedder's log: few, and never so many that they are a burden themselves.

use crate::guard::guard;
use crate::hooks::{Event, PathState};
use crate::io::monotonic_ns;
use crate::keys::ClientId;
use crate::registry::{ReactorPort, Shared};
use crate::stats::count;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Messages of one kind that a reactor logs in each second of its clock, and all other threads together.
pub(crate) const LOGGED_PER_SECOND_MAX: u32 = 5;

/// How much a message matters; what matters most comes first.
///
/// # Examples
///
/// ```
/// use ringback::LogLevel;
///
/// assert!(LogLevel::Error < LogLevel::Warn && LogLevel::Info < LogLevel::Debug);
/// assert_eq!(LogLevel::Warn.to_string(), "warn");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LogLevel {
    /// Something is broken, here or in the embedder: somebody has to mend it.
    Error,
    /// Something does not work as it should, such as the path to a client.
    Warn,
    /// What is good to know: the back end, where reactors run, a path that is up again.
    Info,
    /// What is good to know while looking for a mistake.
    Debug,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        })
    }
}

/// One message. Is written as one line, without a time.
///
/// # Examples
///
/// ```
/// use ringback::LogMessage;
///
/// fn log(message: &LogMessage<'_>) {
///     match message.client {
///         Some(client) => eprintln!("of client {:#x}: {}", client.to_bits(), message.text),
///         None => eprintln!("{message}"),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LogMessage<'a> {
    /// How much it matters.
    pub level: LogLevel,
    /// What it says.
    pub text: fmt::Arguments<'a>,
    /// The client that it is about, if it is about one.
    pub client: Option<ClientId>,
    /// The reactor that says so; none: it comes from another thread.
    pub reactor: Option<usize>,
    /// Messages of this kind, of the same reactor, that were left out since the last one, because there were too many.
    pub left_out: u64,
}

impl fmt::Display for LogMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.level)?;
        if let Some(reactor) = self.reactor {
            write!(f, "reactor {reactor}: ")?;
        }
        if let Some(client) = self.client {
            write!(f, "client {:#x}: ", client.to_bits())?;
        }
        self.text.fmt(f)?;
        match self.left_out {
            0 => Ok(()),
            left_out => write!(f, " ({left_out} more like this were left out)"),
        }
    }
}

/// Takes messages: see [`Builder::log`](crate::Builder::log). Functions do.
///
/// # Examples
///
/// ```
/// use ringback::{Log, LogLevel, LogMessage};
///
/// struct ToStderr {
///     level_max: LogLevel,
/// }
///
/// impl Log for ToStderr {
///     fn log(&self, message: &LogMessage<'_>) {
///         if message.level <= self.level_max {
///             eprintln!("{message}");
///         }
///     }
/// }
/// ```
pub trait Log: Send + Sync {
    /// Takes one. The rules are those of [`Hooks`](crate::Hooks): it may be called on a reactor's thread, where it must not
    /// wait. Never called under a lock, nor for a callback that goes well. A panic is counted, and told as
    /// [`Event::Panicked`].
    fn log(&self, message: &LogMessage<'_>);
}

impl<F: Fn(&LogMessage<'_>) + Send + Sync> Log for F {
    fn log(&self, message: &LogMessage<'_>) {
        self(message);
    }
}

/// The embedder's, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Logger(pub Option<Arc<dyn Log>>);

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some(Log)" } else { "None" })
    }
}

/// Messages that are counted together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LogKind {
    Start,
    ReactorEnded,
    Panicked,
    Path,
    Session,
    Connect,
    Drain,
    Moved,
    Memory,
    /// The last one. Without the feature there is none to write.
    Checkpoint,
}

/// How many [`LogKind`]s there are.
const KINDS: usize = LogKind::Checkpoint as usize + 1;

/// Lets messages of each kind pass, so many in a second.
#[derive(Debug, Default)]
pub(crate) struct Throttles([Throttle; KINDS]);

#[derive(Debug, Default)]
struct Throttle {
    /// The second of the last message, and how many there were in it.
    window: AtomicU64,
    left_out: AtomicU64,
}

impl Throttles {
    fn admit(&self, kind: LogKind, second: u32) -> Option<u64> {
        self.0[kind as usize].admit(second)
    }
}

impl Throttle {
    /// `None`: there were enough. Else how many were left out before.
    fn admit(&self, second: u32) -> Option<u64> {
        let next = |window: u64| match (window >> 32, window as u32) {
            // A clock that wraps goes on with another second, too.
            (last, _) if last != u64::from(second) => Some(u64::from(second) << 32 | 1),
            (_, logged) => (logged < LOGGED_PER_SECOND_MAX).then_some(window + 1),
        };
        if self.window.fetch_update(Relaxed, Relaxed, next).is_ok() {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

impl Shared {
    /// Logs something: on the thread of the reactor whose `port` it is, or on one of no reactor.
    #[cold]
    pub fn log(
        &self,
        port: Option<&ReactorPort>,
        kind: LogKind,
        level: LogLevel,
        client: Option<ClientId>,
        text: fmt::Arguments<'_>,
    ) {
        let Some(log) = &self.settings.log.0 else { return };
        let (throttles, second) = match port {
            Some(port) => (&port.log, port.turn_us.load(Relaxed) / 1_000_000),
            None => (&self.log, (monotonic_ns() / 1_000_000_000) as u32),
        };
        let Some(left_out) = throttles.admit(kind, second) else { return };
        let message = LogMessage { level, text, client, reactor: port.map(|port| port.number), left_out };
        if self.call_hook(|| guard(|| log.log(&message))).is_some() {
            return;
        }
        // Not logged: it would panic again.
        let event = Event::Panicked { call: "Log::log", key: None };
        let told = self.call_hook(|| guard(|| self.hooks.event(&event)));
        for _ in 0..1 + u32::from(told.is_none()) {
            match port {
                Some(port) => count(&port.stats.embedder_panics),
                None => self.reaper.count_panic(),
            }
        }
    }

    /// Logs an event that an operator must know of. What happens to single callbacks is none.
    pub fn log_event(&self, port: Option<&ReactorPort>, event: &Event) {
        if self.settings.log.0.is_none() {
            return;
        }
        let (kind, level, client) = match event {
            #[cfg(feature = "checkpoint")]
            Event::CheckpointFailed { .. } => (LogKind::Checkpoint, LogLevel::Error, None),
            #[cfg(feature = "checkpoint")]
            Event::LeftUndone { client, .. } => (LogKind::Checkpoint, LogLevel::Warn, *client),
            Event::Panicked { .. } => (LogKind::Panicked, LogLevel::Error, None),
            Event::MemoryPressure { .. } | Event::MemoryPressureLost => (LogKind::Memory, LogLevel::Warn, None),
            Event::AskedInVain { client, .. } => (LogKind::Memory, LogLevel::Warn, Some(*client)),
            Event::PathState { client, state } => {
                let level = match state {
                    PathState::Up => LogLevel::Info,
                    PathState::Unknown => LogLevel::Debug,
                    _ => LogLevel::Warn,
                };
                (LogKind::Path, level, Some(*client))
            }
            Event::BackchannelFault { session, .. }
            | Event::SessionLost { session }
            | Event::SessionRefused { session, .. } => (LogKind::Session, LogLevel::Warn, Some(session.client)),
            Event::Moved { client, .. } => (LogKind::Moved, LogLevel::Debug, Some(*client)),
            _ => return,
        };
        self.log(port, kind, level, client, format_args!("{event}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_a_kind_pass_in_a_second_and_the_rest_is_counted() {
        let throttles = Throttles::default();
        let most = LOGGED_PER_SECOND_MAX as usize;
        let admitted = |kind, second, times: usize| -> Vec<u64> {
            (0..times).filter_map(|_| throttles.admit(kind, second)).collect()
        };
        assert_eq!(admitted(LogKind::Path, 7, 100), vec![0; most]);
        assert_eq!(admitted(LogKind::Session, 7, 1), [0], "another kind has its own");
        assert_eq!(admitted(LogKind::Path, 8, 1), [100 - LOGGED_PER_SECOND_MAX as u64]);
        assert_eq!(admitted(LogKind::Path, 8, 100), vec![0; most - 1]);
        assert_eq!(admitted(LogKind::Path, 0, 1), [100 - (LOGGED_PER_SECOND_MAX as u64 - 1)], "the clock wraps");
    }
}
