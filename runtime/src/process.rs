//! The process that a runtime lives in. A child that was forked has none of the threads, only a copy of what they share: whoever asks
//! for something there is told so, rather than to wait for a reactor that is not there.
//!
//! A page is shared with nobody and reads as zeroes in a child (MADV_WIPEONFORK), so that the question is one load and one branch that is
//! never taken; a process id would have to be asked of the kernel.
#![allow(unsafe_code)] // a page of memory with a property of its own

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const PAGE_BYTES: usize = 4096;

/// Knows the process in which it was made.
#[derive(Debug)]
pub(crate) struct Process(NonNull<AtomicU32>);

// SAFETY: the page is reached by atomic operations alone, and goes with its owner.
unsafe impl Send for Process {}
// SAFETY: as for `Send`.
unsafe impl Sync for Process {}

impl Process {
    /// Without memory for a page every process is taken for the first one.
    pub fn new() -> Option<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping, of nothing that exists.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), PAGE_BYTES, access, MapFlags::PRIVATE) }.ok()?;
        let process = Process(NonNull::new(page.cast())?);
        // SAFETY: the page is ours, all of it. A kernel before 4.14 refuses, and then no child is noticed.
        let _ = unsafe { madvise(page, PAGE_BYTES, Advice::LinuxWipeOnFork) };
        process.word().store(1, Relaxed);
        Some(process)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped, aligned, zeroed at first, and unmapped when this is dropped.
        unsafe { self.0.as_ref() }
    }

    /// Whether this is a child that was forked from it.
    #[inline]
    pub fn is_forked(&self) -> bool {
        self.word().load(Relaxed) == 0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference any more; it was mapped with this size.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), PAGE_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, Builder, Call, CallbackOp, Done, Error, ForeChannel, Hooks, Outcome, Run, TryRun, WaitError};
    use ringback_rpc::xdr;
    use rustix::process::{Pid, WaitOptions, kill_process, waitpid};
    use std::ffi::c_int;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    unsafe extern "C" {
        fn fork() -> c_int;
        fn _exit(status: c_int) -> !;
    }

    struct Nothing;

    impl Hooks for Nothing {
        fn encode(&self, _: &Run, _: &mut xdr::Writer<'_>) -> xdr::Result<()> {
            Ok(())
        }

        fn done(&self, _: &Run, _: &Outcome<'_>) -> Done {
            Done::Finish
        }
    }

    impl ForeChannel for Nothing {
        fn call(&self, _: Call<'_>) {}
    }

    /// Everything that would wait for a reactor says that there is none, and the end of the runtime waits for none.
    #[test]
    fn a_forked_child_gets_errors_and_hangs_nowhere() {
        let built = Builder::new().reactors(2).backend(Backend::Epoll).build(Arc::new(Nothing), Arc::new(Nothing));
        let runtime = built.unwrap();
        let client = runtime.add_client(None).unwrap();
        let key = runtime.insert(client, CallbackOp::Recall, 0).unwrap();
        // SAFETY: the child calls nothing but what is under test, and ends without unwinding.
        let child = unsafe { fork() };
        if child == 0 {
            let answers = [
                runtime.try_run(key) == TryRun::Closed,
                runtime.add_client(None) == Err(Error::Forked),
                runtime.move_client(client, 1) == Err(Error::Forked),
                runtime.drain(Duration::from_secs(3600)) == Err(Error::Forked),
                runtime.shutdown(Duration::from_secs(3600)) == Err(Error::Forked),
                runtime.census() == Err(Error::Forked),
                runtime.snapshot(0).is_err(),
                runtime.wait_blocking(key, Duration::from_secs(3600)).is_err_and(|e| e == WaitError::Closed),
            ];
            drop(runtime);
            let wrong = answers.iter().position(|fine| !fine).map_or(0, |at| at as c_int + 1);
            // SAFETY: ends this process.
            unsafe { _exit(wrong) };
        }
        let child = Pid::from_raw(child).expect("a child");
        let begun = Instant::now();
        let status = loop {
            if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG).unwrap() {
                break status;
            }
            if begun.elapsed() > Duration::from_secs(20) {
                kill_process(child, rustix::process::Signal::KILL).unwrap();
                panic!("the child hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.exit_status(), Some(0), "the number of the first answer that is wrong");
        // Its parent has noticed nothing.
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
        assert_eq!(runtime.shutdown(Duration::ZERO).unwrap().unsent, [key]);
    }

    #[test]
    fn the_process_that_made_it_is_no_child() {
        assert!(!Process::new().unwrap().is_forked());
    }
}
