//! How a runtime behaves in somebody else's process.

mod common;

use common::{Counting, Deaf, backends, eventually, insert_all, session_config};
use ringback::{BuildError, Builder, Event, PathState, TryRun};
use std::collections::HashSet;
use std::fs;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Set in the processes that these tests start: each is a program of its own, with no threads and descriptors but its own.
const PART: &str = "RINGBACK_MANNERS";

/// Plays a part in a process of its own; a child of this test by name.
fn alone(part: &str, test: &str) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--exact", test, "--nocapture"]).env(PART, part).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("test result: ok. 1 passed"), "{text}");
}

fn is_part(part: &str) -> bool {
    std::env::var_os(PART).is_some_and(|value| value == part)
}

/// Nothing, when the thread has ended since it was listed: other tests run beside these, and theirs come and go.
fn status(task: &str, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/self/task/{task}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn tasks() -> HashSet<String> {
    fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn threads_are_named_and_have_all_signals_blocked() {
    if !is_part("threads") {
        return alone("threads", "threads_are_named_and_have_all_signals_blocked");
    }
    for backend in backends() {
        let before = tasks();
        let builder = Builder::new().reactors(2).backend(backend).name("nfs-cb");
        let runtime = builder.build(Arc::new(Counting::default()), Arc::new(Deaf)).unwrap();
        // A thread names itself, the first thing that it does.
        let begun = Instant::now();
        let new: Vec<String> = loop {
            let new: Vec<String> = tasks().difference(&before).cloned().collect();
            let mut names: Vec<_> = new.iter().filter_map(|task| status(task, "Name")).collect();
            names.sort();
            // The kernel's own workers of a ring have names of their own, and take no signals.
            names.retain(|name| !name.starts_with("iou-"));
            if names == ["nfs-cb-0", "nfs-cb-1", "nfs-cb-reaper"] {
                break new;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{names:?}");
            std::thread::sleep(Duration::from_millis(1));
        };
        for task in new.iter().filter(|task| status(task, "Name").is_some_and(|name| !name.starts_with("iou-"))) {
            let blocked = u64::from_str_radix(&status(task, "SigBlk").unwrap(), 16).unwrap();
            // All but SIGKILL (9), SIGSTOP (19), and two (32, 33) that the C library keeps for itself.
            let free = !blocked & !(1 << 8) & !(1 << 18) & !(1 << 31) & !(1 << 32);
            assert_eq!(free, 0, "{task}: {blocked:x}");
        }
        // Those of the thread that has built it are as they were.
        let own = status(&std::process::id().to_string(), "SigBlk").unwrap();
        assert_eq!(u64::from_str_radix(&own, 16).unwrap(), 0);
        runtime.shutdown(Duration::ZERO).unwrap();
    }
}

#[test]
fn no_descriptor_survives_an_exec() {
    if !is_part("descriptors") {
        return alone("descriptors", "no_descriptor_survives_an_exec");
    }
    let open = || -> HashSet<u32> {
        let entries = fs::read_dir("/proc/self/fd").unwrap();
        entries.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    };
    for backend in backends() {
        let before = open();
        let builder = Builder::new().reactors(2).backend(backend).completion_queues(2);
        let runtime = builder.build(Arc::new(Counting::default()), Arc::new(Deaf)).unwrap();
        // An embedder may have accepted it without.
        let (near, _far) = UnixStream::pair().unwrap();
        rustix::io::fcntl_setfd(&near, rustix::io::FdFlags::empty()).unwrap();
        let number = near.as_raw_fd() as u32;
        runtime.add_connection(near).unwrap();
        runtime.census().unwrap();
        let new: Vec<u32> = open().difference(&before).copied().collect();
        assert!(new.contains(&number));
        for fd in new {
            let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else { continue };
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            let cloexec = u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000 != 0;
            assert!(cloexec, "descriptor {fd}: {info}");
        }
        runtime.shutdown(Duration::ZERO).unwrap();
    }
}

/// A peer that has closed is an error and no signal, whatever the process does about SIGPIPE: the threads that send have it
/// blocked, and what is blocked neither ends a process nor is ignored (signal(7)); it waits, and would be seen.
#[test]
fn a_peer_that_has_closed_raises_no_signal() {
    if !is_part("signals") {
        return alone("signals", "a_peer_that_has_closed_raises_no_signal");
    }
    const SIGPIPE: u64 = 1 << (13 - 1);
    for backend in backends() {
        let hooks = Arc::new(Counting::default());
        let runtime =
            Builder::new().reactors(1).backend(backend).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
        // Sending fails with EPIPE, and receiving waits: the reactor learns of it by its send alone.
        let (near, far) = UnixStream::pair().unwrap();
        far.shutdown(Shutdown::Read).unwrap();
        let connection = runtime.add_connection(near).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(1, 4)).unwrap();
        runtime.bind(connection, session).unwrap();
        assert_eq!(runtime.try_run(insert_all(&runtime, client, 0..1)[0]), TryRun::Submitted);
        let is_down = |event: &Event| matches!(event, Event::PathState { state: PathState::Down, .. });
        eventually("the send has failed", || hooks.events.lock().unwrap().iter().any(is_down));
        for task in tasks() {
            for field in ["SigPnd", "ShdPnd"] {
                let pending = status(&task, field).map_or(0, |hex| u64::from_str_radix(&hex, 16).unwrap());
                assert_eq!(pending & SIGPIPE, 0, "{backend:?}: {field} of {:?}", status(&task, "Name"));
            }
        }
        runtime.shutdown(Duration::ZERO).unwrap();
    }
}

/// Pinned to what this process may use; and to what it may not.
#[test]
fn reactors_run_on_the_cpus_that_they_are_pinned_to() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..1024).filter(|cpu| allowed.is_set(*cpu)).collect();
    for backend in backends() {
        let builder = Builder::new().reactors(3).backend(backend).cpus(cpus[..1].to_vec()).name("pinned");
        let runtime = builder.build(Arc::new(Counting::default()), Arc::new(Deaf)).unwrap();
        // A thread names itself, the first thing that it does.
        let begun = Instant::now();
        let pinned: Vec<String> = loop {
            let named = |task: &String| {
                status(task, "Name").is_some_and(|name| name.starts_with("pinned-") && name != "pinned-reaper")
            };
            let pinned: Vec<String> = tasks().into_iter().filter(named).collect();
            if pinned.len() == 3 {
                break pinned;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{pinned:?}");
            std::thread::sleep(Duration::from_millis(1));
        };
        let lists: Vec<_> = pinned.iter().map(|task| status(task, "Cpus_allowed_list").unwrap()).collect();
        assert_eq!(lists, vec![cpus[0].to_string(); 3]);
        assert!(runtime.placement().iter().all(|place| place.cpu == Some(cpus[0])));
        runtime.shutdown(Duration::ZERO).unwrap();
    }
    let error = Builder::new().cpus(vec![1000]).build(Arc::new(Counting::default()), Arc::new(Deaf)).unwrap_err();
    assert!(matches!(error, BuildError::Cpu { cpu: 1000, .. }));
    assert!(error.to_string().starts_with("CPU 1000 may not be used: this process may run on "), "{error}");
}
