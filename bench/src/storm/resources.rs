//! What the run takes from the machine: limits checked before it, CPU and memory read after it.

use super::cli::{BackendChoice, Options};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Descriptors besides the connections: standard streams, pipes, listener, output files, epoll and event descriptors.
const FILES_BASE: u64 = 32;
/// Descriptors of one reactor: ring or epoll, waker, spare.
const FILES_PER_REACTOR: u64 = 4;
/// While connections are cut, an old one may still be closing when the new one is open.
const FILES_PER_CLIENT_CUT: u64 = 2;
/// Locked memory of one reactor's ring and its buffer ring, which kernels since 6.14 charge to the user; and of the ring
/// that probes. Measured.
const LOCKED_BYTES_PER_REACTOR: u64 = 256 << 10;
const LOCKED_BYTES_PROBE: u64 = 128 << 10;
/// Memory of both halves for one delegation: runtime, file server, recall list and the swarm's own table; measured 202.
const BYTES_PER_DELEGATION: u64 = 230;
/// Memory of both halves before the first delegation, and of one client.
const BYTES_BASE: u64 = 64 << 20;
const BYTES_PER_CLIENT: u64 = 256 << 10;

/// Raises the soft limits to the hard ones and checks that the run fits. The error is one line that says what to do.
pub fn prepare(options: &Options) -> Result<(), String> {
    let files = raise(Resource::Nofile);
    let locked = raise(Resource::Memlock);
    check_files(options, files)?;
    check_locked(options, locked, may_lock())?;
    check_memory(options, memory_available())
}

/// Only the soft limit moves; that it cannot is no error here, the check comes after.
pub(crate) fn raise(what: Resource) -> Option<u64> {
    let limit = getrlimit(what);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(what, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

fn check_files(options: &Options, limit: Option<u64>) -> Result<(), String> {
    let each = if options.cut_connections > 0 { FILES_PER_CLIENT_CUT } else { 1 };
    let need = u64::from(options.clients) * each + u64::from(options.reactors) * FILES_PER_REACTOR + FILES_BASE;
    match limit {
        Some(have) if have < need => Err(format!(
            "not enough file descriptors: {} clients need {need}, the limit is {have}; raise it with `ulimit -n {need}` \
             or lower --clients",
            options.clients
        )),
        _ => Ok(()),
    }
}

/// With `--backend auto` too little locked memory is no error: the runtime then takes epoll and says why.
fn check_locked(options: &Options, limit: Option<u64>, exempt: bool) -> Result<(), String> {
    let need = u64::from(options.reactors) * LOCKED_BYTES_PER_REACTOR + LOCKED_BYTES_PROBE;
    match limit {
        Some(have) if have < need && !exempt && options.has_server() && options.backend == BackendChoice::Uring => {
            Err(format!(
                "not enough locked memory: io_uring with --reactors {} needs {} KiB, the limit is {} KiB; raise it with \
                 `ulimit -l {}`, lower --reactors, or use --backend epoll",
                options.reactors,
                need >> 10,
                have >> 10,
                need >> 10
            ))
        }
        _ => Ok(()),
    }
}

fn check_memory(options: &Options, available: Option<u64>) -> Result<(), String> {
    let need = options.delegations * BYTES_PER_DELEGATION + u64::from(options.clients) * BYTES_PER_CLIENT + BYTES_BASE;
    match available {
        Some(have) if have < need => Err(format!(
            "not enough memory: {} delegations need about {} MiB, {} MiB are available; lower --delegations",
            options.delegations,
            need >> 20,
            have >> 20
        )),
        _ => Ok(()),
    }
}

/// Whether the limit on locked memory does not bind this process (capabilities(7), CAP_IPC_LOCK).
fn may_lock() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|c| c.effective.contains(CapabilitySet::IPC_LOCK))
}

/// Memory that can be had without swapping, bytes.
pub(crate) fn memory_available() -> Option<u64> {
    field_kib(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// The most memory this process has had resident, in bytes. Not getrusage: its `ru_maxrss` survives exec, and the
/// swarm would inherit the peak of the process that started it.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    field_kib(&status, "VmHWM:").unwrap_or(0)
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kib: u64 = line[name.len()..].split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// The running kernel's release.
pub fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The kernel's version: its release without what a vendor has added.
pub fn kernel_version() -> String {
    kernel().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
}

/// CPUs that this process may use.
pub fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// CPU time of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTime {
    /// In user space, ns.
    pub user_ns: u64,
    /// In the kernel, ns.
    pub system_ns: u64,
}

impl CpuTime {
    /// Of this process so far, all threads.
    pub fn now() -> CpuTime {
        // getrusage of the calling process cannot fail (getrusage(2)).
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return CpuTime::default() };
        let ns = |t: nix::sys::time::TimeVal| {
            let whole = Duration::from_secs(u64::try_from(t.tv_sec()).unwrap_or(0));
            let micros = Duration::from_micros(u64::try_from(t.tv_usec()).unwrap_or(0));
            u64::try_from((whole + micros).as_nanos()).unwrap_or(u64::MAX)
        };
        CpuTime { user_ns: ns(usage.user_time()), system_ns: ns(usage.system_time()) }
    }

    /// What was used since an earlier reading.
    pub fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
        }
    }

    /// User and system time together.
    pub fn total_ns(self) -> u64 {
        self.user_ns + self.system_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::cli::Args;
    use clap::Parser;

    fn options(args: &[&str]) -> Options {
        Args::parse_from(std::iter::once("storm").chain(args.iter().copied())).check(2).unwrap()
    }

    #[test]
    fn too_few_descriptors_say_how_many() {
        let o = options(&["--clients", "1000"]);
        let error = check_files(&o, Some(1000)).unwrap_err();
        assert!(error.contains("ulimit -n 1036") && error.contains("the limit is 1000"), "{error}");
        assert_eq!(check_files(&o, Some(1036)), Ok(()));
        assert_eq!(check_files(&o, None), Ok(()));
        let cut = options(&["--clients", "1000", "--cut-connections", "1"]);
        assert!(check_files(&cut, Some(1036)).is_err());
    }

    #[test]
    fn too_little_locked_memory_matters_to_io_uring_only() {
        let o = options(&["--backend", "uring"]);
        let error = check_locked(&o, Some(0), false).unwrap_err();
        assert!(error.contains("ulimit -l 384") && error.contains("--backend epoll"), "{error}");
        assert_eq!(check_locked(&o, Some(0), true), Ok(()));
        assert_eq!(check_locked(&options(&[]), Some(0), false), Ok(()));
    }

    #[test]
    fn too_little_memory_says_how_much() {
        let o = options(&["--delegations", "10000000"]);
        assert!(check_memory(&o, Some(2 << 30)).unwrap_err().contains("lower --delegations"));
        assert_eq!(check_memory(&o, Some(6 << 30)), Ok(()), "ten million fit into 6 GiB");
    }

    #[test]
    fn what_is_read_from_the_kernel_is_there() {
        assert!(peak_rss_bytes() > 1 << 20);
        assert!(memory_available().is_some_and(|b| b > 1 << 20));
        assert!(!kernel().is_empty());
        assert_eq!(field_kib("VmHWM:\t   12 kB\n", "VmHWM:"), Some(12 << 10));
        let before = CpuTime::now();
        assert!(before.total_ns() >= before.user_ns);
        assert_eq!(before.since(before), CpuTime::default());
    }
}
