//! Which back end this host can run, and why.

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::{ConnKey, Io, IoConfig, IoEvent, Uring, Wait};

/// Which back end to use.
///
/// # Examples
///
/// ```
/// use ringback::{Backend, Builder};
///
/// let builder = Builder::new().backend(Backend::Epoll);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// io_uring where everything that is needed works, epoll otherwise.
    #[default]
    Auto,
    /// io_uring, or an error that names what is missing.
    Uring,
    /// epoll.
    Epoll,
}

/// A back end that can be made on this host.
///
/// # Examples
///
/// ```
/// use ringback::{BackendKind, Runtime};
///
/// fn is_fast(runtime: &Runtime) -> bool {
///     runtime.backend().kind == BackendKind::Uring
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendKind {
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

/// Which back end was taken.
///
/// # Examples
///
/// ```
/// use ringback::Runtime;
///
/// fn log(runtime: &Runtime) {
///     println!("back end: {}", runtime.backend());
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendReport {
    /// The back end.
    pub kind: BackendKind,
    /// Its name: `uring` or `epoll`.
    pub name: &'static str,
    /// Why it was taken, in one line for the log.
    pub reason: String,
}

/// io_uring was asked for by name and cannot be used here.
///
/// # Examples
///
/// ```
/// use ringback::{BackendError, Missing};
///
/// /// What an operator may do about it.
/// fn remedy(error: &BackendError) -> &'static str {
///     match error.missing {
///         Missing::Disabled(_) => "sysctl kernel.io_uring_disabled=0",
///         _ => "choose the epoll back end",
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("io_uring cannot be used: {missing}; or choose the epoll back end (auto does)")]
pub struct BackendError {
    /// What is missing.
    pub missing: Missing,
}

/// What io_uring lacks on this host. The text says what to do about it.
///
/// # Examples
///
/// ```
/// use ringback::Missing;
///
/// println!("{}", Missing::Kernel);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// The sysctl `kernel.io_uring_disabled` has this value.
    Disabled(u8),
    /// A filter between this process and the kernel refuses the system calls.
    Filtered,
    /// The kernel has no io_uring.
    Kernel,
    /// The kernel does not know a set-up flag.
    SetupFlags,
    /// The kernel does not have this feature or operation.
    Feature(&'static str),
    /// Locked memory, or memory, ran out.
    Memory,
    /// File descriptors ran out.
    Descriptors,
    /// The configured sizes cannot be honoured.
    Sizes(String),
    /// Set-up worked, but the trial run of this did not.
    Trial(&'static str),
    /// Something else failed.
    Other(String),
}

impl Missing {
    /// From a failed `io_uring_setup`.
    pub(super) fn from_setup(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::PERM | Errno::ACCESS) => match disabled_sysctl() {
                // 1 leaves it to privileged processes and to the group in kernel.io_uring_group.
                Some(value @ 1..) => Missing::Disabled(value),
                _ => Missing::Filtered,
            },
            Some(Errno::NOSYS) => Missing::Kernel,
            Some(Errno::INVAL) => Missing::SetupFlags,
            Some(Errno::NOMEM) => Missing::Memory,
            Some(Errno::MFILE | Errno::NFILE) => Missing::Descriptors,
            _ => Missing::Other(error.to_string()),
        }
    }

    /// From a failed registration of the receive buffers.
    pub(super) fn from_buffers(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::INVAL) => Missing::Feature("IORING_REGISTER_PBUF_RING (a ring of receive buffers)"),
            Some(Errno::NOMEM | Errno::AGAIN) => Missing::Memory,
            _ => Missing::Other(error.to_string()),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Disabled(value) => write!(
                f,
                "the sysctl kernel.io_uring_disabled is {value}: set it to 0, or (if it is 1) run as a member of the \
                 group in kernel.io_uring_group"
            ),
            Missing::Filtered => f.write_str(
                "io_uring_setup is refused though the kernel allows it: a seccomp profile (containers have one) or a \
                 security module must allow io_uring_setup, io_uring_enter and io_uring_register",
            ),
            Missing::Kernel => f.write_str(
                "the kernel answers ENOSYS to io_uring_setup: run Linux 6.1 or later, built with CONFIG_IO_URING, and \
                 outside sandboxes that hide it",
            ),
            Missing::SetupFlags => f.write_str(
                "the kernel does not know IORING_SETUP_SINGLE_ISSUER and IORING_SETUP_DEFER_TASKRUN: run Linux 6.1 or \
                 later",
            ),
            Missing::Feature(name) => write!(f, "the kernel lacks {name}: run Linux 6.1 or later"),
            Missing::Memory => f.write_str(
                "not enough memory for the ring (ENOMEM): raise the limit of locked memory (ulimit -l, LimitMEMLOCK) \
                 or use fewer reactors",
            ),
            Missing::Descriptors => f.write_str("no file descriptor left for the ring: raise ulimit -n"),
            Missing::Sizes(why) => f.write_str(why),
            Missing::Trial(what) => {
                write!(f, "{what} does not work though the kernel offers it: run Linux 6.1 or later")
            }
            Missing::Other(error) => f.write_str(error),
        }
    }
}

impl From<Missing> for io::Error {
    fn from(missing: Missing) -> Self {
        let kind = match missing {
            Missing::Memory => io::ErrorKind::OutOfMemory,
            Missing::Disabled(_) | Missing::Filtered => io::ErrorKind::PermissionDenied,
            Missing::Sizes(_) => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Unsupported,
        };
        io::Error::new(kind, missing.to_string())
    }
}

impl Backend {
    /// Decides, by trying on the calling thread what the back end relies on.
    pub fn choose(self, config: &IoConfig) -> Result<BackendReport, BackendError> {
        if self == Backend::Epoll {
            return Ok(BackendReport::epoll("asked for".to_owned()));
        }
        match (try_uring(config), self) {
            (Ok(()), _) => {
                let kernel = rustix::system::uname();
                let kernel = kernel.release().to_string_lossy();
                let reason = format!("Linux {kernel} has all that is needed (multishot receive, buffer rings, ...)");
                Ok(BackendReport { kind: BackendKind::Uring, name: "uring", reason })
            }
            (Err(missing), Backend::Uring) => Err(BackendError { missing }),
            (Err(missing), _) => Ok(BackendReport::epoll(format!("io_uring cannot be used: {missing}"))),
        }
    }
}

impl BackendReport {
    pub(crate) fn epoll(reason: String) -> Self {
        BackendReport { kind: BackendKind::Epoll, name: "epoll", reason }
    }
}

impl fmt::Display for BackendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

fn disabled_sysctl() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Makes a ring of the configured sizes and uses it once. Feature bits alone do not tell of multishot receive, nor of
/// filters that refuse `io_uring_enter`.
fn try_uring(config: &IoConfig) -> Result<(), Missing> {
    config.check().map_err(|error| Missing::Sizes(error.to_string()))?;
    let mut io = Uring::probed(config)?;
    let other = |error: io::Error| Missing::Other(error.to_string());
    let (near, far) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| other(errno.into()))?;
    let conn = ConnKey { index: 0, generation: 0 };
    io.attach(conn, near).map_err(other)?;
    let deadline_ns = io.now_ns() + Duration::from_secs(2).as_nanos() as u64;
    let mut events = Vec::new();
    // Twice, as it is the second receive that shows that the first one stayed armed.
    for _ in 0..2 {
        rustix::net::send(&far, b"?", SendFlags::NOSIGNAL).map_err(|errno| other(errno.into()))?;
        let before = io.counters().receives;
        while io.counters().receives == before {
            io.turn(Wait::Until(deadline_ns), &mut events).map_err(other)?;
            for event in events.drain(..) {
                match event {
                    IoEvent::Received { buf, .. } => io.recycle(buf),
                    IoEvent::Closed { .. } => return Err(Missing::Trial("multishot receive")),
                    _ => {}
                }
            }
            if io.now_ns() >= deadline_ns {
                return Err(Missing::Trial("waiting for a receive"));
            }
        }
    }
    if io.receives_armed() != 1 {
        return Err(Missing::Trial("multishot receive"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_what_is_missing_and_what_to_do() {
        let said = |errno: Errno| BackendError { missing: Missing::from_setup(&errno.into()) }.to_string();
        assert!(said(Errno::NOSYS).contains("Linux 6.1 or later"));
        assert!(said(Errno::INVAL).contains("IORING_SETUP_DEFER_TASKRUN"));
        assert!(said(Errno::NOMEM).contains("ulimit -l"));
        assert!(said(Errno::MFILE).contains("ulimit -n"));
        let refused = said(Errno::PERM);
        assert!(refused.contains("kernel.io_uring_disabled") || refused.contains("seccomp"), "{refused}");
        let sysctl = BackendError { missing: Missing::Disabled(2) }.to_string();
        assert!(sysctl.contains("kernel.io_uring_disabled is 2: set it to 0"), "{sysctl}");
    }

    #[test]
    fn epoll_is_there_when_asked_for_and_auto_always_finds_one() {
        let config = IoConfig::default();
        assert_eq!(Backend::Epoll.choose(&config).expect("epoll").name, "epoll");
        let auto = Backend::Auto.choose(&config).expect("one of them");
        match Backend::Uring.choose(&config) {
            Ok(uring) => assert_eq!(auto, uring),
            Err(error) => {
                assert_eq!(auto.kind, BackendKind::Epoll);
                assert!(auto.reason.contains(&error.missing.to_string()));
            }
        }
    }

    #[test]
    fn sizes_that_cannot_be_honoured_are_refused() {
        let config = IoConfig { recv_buffers: 100, ..IoConfig::default() };
        let error = Backend::Uring.choose(&config).expect_err("100 is no power of two");
        assert!(error.to_string().contains("power of two"), "{error}");
        assert!(crate::io::Epoll::new(&config).is_err());
        assert!(Uring::new(&config).is_err());
    }
}
