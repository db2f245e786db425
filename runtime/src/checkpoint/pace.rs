//! How whoever makes reactors stand still, or takes part in an upgrade, waits for them and for the other process.
//!
//! What waits is written once, as async functions. With the pace of the clock everything that they wait for blocks the thread,
//! so that they are over when they were asked once ([`block`]). In the simulator nothing blocks: they are asked again and again,
//! and everybody else takes his steps in between, on a virtual clock.

use crate::io::monotonic_ns;
#[cfg(feature = "simulator")]
use crate::upgrade::Step;
use std::future::Future;
#[cfg(feature = "simulator")]
use std::future::poll_fn;
#[cfg(feature = "simulator")]
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
#[cfg(feature = "simulator")]
use std::sync::Arc;
use std::sync::mpsc::Receiver;
#[cfg(feature = "simulator")]
use std::sync::mpsc::TryRecvError;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How often is looked for what nobody tells.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);

/// Who lets time pass in the simulator.
#[cfg(feature = "simulator")]
pub trait Stepper: Send + Sync {
    /// The clock.
    fn now_ns(&self) -> u64;
    /// A step of an upgrade is to be taken. Asked again after [`Verdict::Wait`].
    fn begin(&self, step: Step) -> Verdict;
    /// What was waited for has come.
    fn goes_on(&self);
    /// It is waited for, until then at most.
    fn waits(&self, until_ns: Option<u64>);
}

/// Whether a step of an upgrade is taken.
#[cfg(feature = "simulator")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Go,
    /// It fails.
    Refuse,
    /// Not yet.
    Wait,
}

/// See the [module](self).
#[derive(Clone, Default)]
pub(crate) struct Pace {
    #[cfg(feature = "simulator")]
    stepper: Option<Arc<dyn Stepper>>,
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pace").field("stepped", &self.is_stepped()).finish_non_exhaustive()
    }
}

/// The end of what waits for nothing that does not block.
pub(crate) fn block<T>(waiting: impl Future<Output = T>) -> T {
    match pin!(waiting).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(over) => over,
        Poll::Pending => unreachable!("what it waits for has blocked"),
    }
}

fn left_ns(until_ns: Option<u64>) -> Duration {
    until_ns.map_or(Duration::MAX, |until_ns| Duration::from_nanos(until_ns.saturating_sub(monotonic_ns())))
}

impl Pace {
    #[cfg(feature = "simulator")]
    pub fn of(stepper: Arc<dyn Stepper>) -> Self {
        Pace { stepper: Some(stepper) }
    }

    /// Whether nothing may block.
    pub fn is_stepped(&self) -> bool {
        #[cfg(feature = "simulator")]
        return self.stepper.is_some();
        #[cfg(not(feature = "simulator"))]
        false
    }

    pub fn now_ns(&self) -> u64 {
        #[cfg(feature = "simulator")]
        if let Some(stepper) = &self.stepper {
            return stepper.now_ns();
        }
        monotonic_ns()
    }

    /// What somebody hands over. `None`: not by then, or nobody will.
    pub async fn hear<T>(&self, from: &Receiver<T>, until_ns: Option<u64>) -> Option<T> {
        #[cfg(feature = "simulator")]
        if let Some(stepper) = &self.stepper {
            let heard = || match from.try_recv() {
                Ok(heard) => Some(Some(heard)),
                Err(TryRecvError::Disconnected) => Some(None),
                Err(TryRecvError::Empty) => None,
            };
            return ask(&**stepper, until_ns, heard).await.flatten();
        }
        match until_ns {
            None => from.recv().ok(),
            Some(_) => from.recv_timeout(left_ns(until_ns)).ok(),
        }
    }

    /// Until something is so, of which nobody tells. Whether it is.
    pub async fn until(&self, until_ns: u64, mut is_so: impl FnMut() -> bool) -> bool {
        #[cfg(feature = "simulator")]
        if let Some(stepper) = &self.stepper {
            return ask(&**stepper, Some(until_ns), || is_so().then_some(())).await.is_some();
        }
        while !is_so() {
            if monotonic_ns() > until_ns {
                return false;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        true
    }

    /// Until there is something to be read, where reading may not block. `false`: there is nothing by then.
    pub async fn readable(&self, stream: &UnixStream, until_ns: Option<u64>) -> bool {
        #[cfg(feature = "simulator")]
        if let Some(stepper) = &self.stepper {
            let is_readable = || {
                let mut fds = [rustix::event::PollFd::from_borrowed_fd(stream.as_fd(), rustix::event::PollFlags::IN)];
                // Of what cannot be asked about it is told when it is read.
                let ready = rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }));
                (ready != Ok(0)).then_some(())
            };
            return ask(&**stepper, until_ns, is_readable).await.is_some();
        }
        let _ = (stream, until_ns);
        true
    }

    /// A step of an upgrade is about to be taken. `false`: it fails.
    #[cfg(feature = "simulator")]
    pub async fn begin(&self, step: Step) -> bool {
        let Some(stepper) = &self.stepper else { return true };
        poll_fn(|_| match stepper.begin(step) {
            Verdict::Wait => Poll::Pending,
            verdict => {
                stepper.goes_on();
                Poll::Ready(verdict == Verdict::Go)
            }
        })
        .await
    }
}

/// Asks until there is an answer. `None`: there is none by then.
#[cfg(feature = "simulator")]
async fn ask<T>(stepper: &dyn Stepper, until_ns: Option<u64>, mut answer: impl FnMut() -> Option<T>) -> Option<T> {
    poll_fn(|_| match answer() {
        Some(answer) => {
            stepper.goes_on();
            Poll::Ready(Some(answer))
        }
        None if until_ns.is_some_and(|until_ns| stepper.now_ns() > until_ns) => Poll::Ready(None),
        None => {
            stepper.waits(until_ns);
            Poll::Pending
        }
    })
    .await
}
