//! What the hooks tell while the storm runs: outcomes, latencies, lateness.

use super::pace::Window;
use super::results::{Measured, Outcomes, histogram};
use hdrhistogram::Histogram;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Each reactor writes to its own shard; a few more than any machine's reactors would be of no use.
const SHARDS: usize = 64;
/// Length of an interval of the histogram log.
const INTERVAL: Duration = Duration::from_secs(1);
/// Samples of the completions are thinned out beyond this number.
const SAMPLES_MAX: usize = 4096;

/// How one run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Answered NFS4_OK.
    Ok,
    /// Answered with an error.
    Error,
    /// The deadline passed; whether it had been sent.
    TimedOut(bool),
    /// Nothing to send.
    Refused,
    /// No path.
    PathDown,
    /// In courtesy.
    Courtesy,
    /// Cancelled.
    Cancelled,
    /// Delivered, result unknown.
    DeliveredUnknown,
    /// Path at fault.
    Fault,
}

/// Collects from the reactors, which write, for the main thread, which reads now and then.
#[derive(Debug)]
pub struct Recorder {
    accepted: AtomicU64,
    shards: Vec<Shard>,
    /// By slab index: how late the run was started, us. Only with a rate.
    late_us: OnceLock<Box<[AtomicU32]>>,
    window: Option<Window>,
}

/// A lock that no other reactor takes; on its own cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    outcomes: Outcomes,
    /// Made by the first latency: most shards never have one.
    latency: Option<Histogram<u64>>,
}

impl Recorder {
    /// An empty one.
    pub fn new(window: Option<u64>) -> Recorder {
        Recorder {
            accepted: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            late_us: OnceLock::new(),
            window: window.map(Window::new),
        }
    }

    /// The window, if there is one.
    pub fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    /// A `try_run` was accepted.
    pub fn count_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// Accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Makes room for the lateness of callbacks with slab indices below `indices`.
    pub fn expect_late(&self, indices: usize) {
        self.late_us.get_or_init(|| (0..indices).map(|_| AtomicU32::new(0)).collect());
    }

    /// The next run of callback `index` starts so late.
    pub fn set_late(&self, index: u32, us: u32) {
        // Relaxed: the try_run that follows publishes it to the reactor that completes the run (rule R5).
        if let Some(late) = self.late_us.get().and_then(|l| l.get(index as usize)) {
            late.store(us, Relaxed);
        }
    }

    /// A run has ended, `age_ns` after its accepted `try_run`.
    pub fn ended(&self, index: u32, age_ns: u64, ending: Ending) {
        {
            let mut inner = self.own_shard();
            if inner.outcomes.note(ending) {
                let late = self.late_us.get().and_then(|l| l.get(index as usize)).map_or(0, |l| l.load(Relaxed));
                let us = age_ns / 1_000 + u64::from(late);
                inner.latency.get_or_insert_with(histogram).saturating_record(us);
            }
        }
        if let Some(window) = &self.window {
            window.leave();
        }
    }

    fn own_shard(&self) -> MutexGuard<'_, Inner> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed)));
        lock(&self.shards[OWN.get() % SHARDS])
    }

    /// All endings so far.
    pub fn outcomes(&self) -> Outcomes {
        let mut total = Outcomes::default();
        for shard in &self.shards {
            total.add(&lock(shard).outcomes);
        }
        total
    }

    /// Takes the latencies recorded since the last call.
    fn take_latencies(&self) -> Histogram<u64> {
        let mut sum = histogram();
        for shard in &self.shards {
            if lock(shard).latency.is_none() {
                continue;
            }
            // An empty one goes in, so that the reactor need not make one.
            let mut taken = Some(histogram());
            std::mem::swap(&mut lock(shard).latency, &mut taken);
            if let Some(taken) = taken {
                // The same bounds everywhere: nothing can be out of range.
                let _ = sum.add(&taken);
            }
        }
        sum
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, Inner> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outcomes {
    /// Counts an ending; true if it is an answer with a latency.
    fn note(&mut self, ending: Ending) -> bool {
        match ending {
            Ending::Ok => self.ok += 1,
            Ending::Error => self.error += 1,
            Ending::TimedOut(sent) => {
                self.timed_out += 1;
                self.timed_out_sent += u64::from(sent);
            }
            Ending::Refused => self.refused += 1,
            Ending::PathDown => self.path_down += 1,
            Ending::Courtesy => self.courtesy += 1,
            Ending::Cancelled => self.cancelled += 1,
            Ending::DeliveredUnknown => self.delivered_unknown += 1,
            Ending::Fault => self.fault += 1,
        }
        matches!(ending, Ending::Ok | Ending::Error | Ending::DeliveredUnknown)
    }
}

/// Reads a recorder over time, on the main thread.
#[derive(Debug)]
pub struct Sampler {
    began: Instant,
    interval_began: Duration,
    measured: Measured,
    stride: usize,
    skipped: usize,
}

impl Sampler {
    /// From now on.
    pub fn begin() -> Sampler {
        Sampler {
            began: Instant::now(),
            interval_began: Duration::ZERO,
            measured: Measured::default(),
            stride: 1,
            skipped: 0,
        }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes a sample: `completed` so far.
    pub fn sample(&mut self, recorder: &Recorder, completed: u64) {
        let now = self.elapsed();
        self.skipped += 1;
        if self.skipped >= self.stride {
            self.skipped = 0;
            self.measured.progress.push((now, completed));
            self.thin_out();
        }
        if now.saturating_sub(self.interval_began) >= INTERVAL {
            self.close_interval(recorder, now);
        }
    }

    /// Every second sample goes when there are too many, and from then on every second one is taken.
    fn thin_out(&mut self) {
        if self.measured.progress.len() > SAMPLES_MAX {
            let mut index = 0;
            self.measured.progress.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride *= 2;
        }
    }

    fn close_interval(&mut self, recorder: &Recorder, now: Duration) {
        let taken = recorder.take_latencies();
        let _ = self.measured.latency.add(&taken);
        self.measured.intervals.push((self.interval_began, now - self.interval_began, taken));
        self.interval_began = now;
    }

    /// The last sample; everything measured.
    pub fn end(mut self, recorder: &Recorder, completed: u64) -> Measured {
        let now = self.elapsed();
        self.measured.progress.push((now, completed));
        self.close_interval(recorder, now);
        self.measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_counted_and_only_answers_have_a_latency() {
        let recorder = Recorder::new(None);
        let sampler = Sampler::begin();
        for ending in [
            Ending::Ok,
            Ending::Error,
            Ending::TimedOut(true),
            Ending::TimedOut(false),
            Ending::Refused,
            Ending::PathDown,
            Ending::Courtesy,
            Ending::Cancelled,
            Ending::DeliveredUnknown,
            Ending::Fault,
        ] {
            recorder.ended(0, 1_500_000, ending);
        }
        let outcomes = recorder.outcomes();
        assert_eq!((outcomes.total(), outcomes.answered()), (10, 3));
        assert_eq!((outcomes.timed_out, outcomes.timed_out_sent), (2, 1));
        let measured = sampler.end(&recorder, 10);
        assert_eq!((measured.latency.len(), measured.latency.max() / 10), (3, 150));
        assert_eq!(measured.intervals.len(), 1);
        assert_eq!(measured.progress.last().unwrap().1, 10);
    }

    #[test]
    fn a_late_start_counts_into_the_latency() {
        let recorder = Recorder::new(None);
        recorder.expect_late(2);
        recorder.set_late(1, 7_000);
        recorder.ended(1, 1_000_000, Ending::Ok);
        let h = Sampler::begin().end(&recorder, 1).latency;
        assert!((8_000..8_008).contains(&h.max()), "{}", h.max());
    }

    #[test]
    fn threads_do_not_lose_each_others_records() {
        let recorder = Recorder::new(None);
        let mut sampler = Sampler::begin();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..1000).for_each(|i| recorder.ended(i, 5_000, Ending::Ok)));
            }
            for _ in 0..50 {
                let _ = sampler.measured.latency.add(recorder.take_latencies());
            }
        });
        sampler.sample(&recorder, 4000);
        assert_eq!(sampler.end(&recorder, 4000).latency.len(), 4000);
        assert_eq!(recorder.outcomes().ok, 4000);
    }

    #[test]
    fn long_runs_keep_few_samples() {
        let recorder = Recorder::new(None);
        let mut sampler = Sampler::begin();
        for i in 0..100_000 {
            sampler.sample(&recorder, i);
        }
        let progress = sampler.end(&recorder, 100_000).progress;
        assert!(progress.len() <= SAMPLES_MAX + 2, "{}", progress.len());
        assert_eq!(progress[0], (Duration::ZERO, 0));
        assert!(progress.windows(2).all(|p| p[0].1 <= p[1].1 && p[0].0 <= p[1].0));
    }
}
