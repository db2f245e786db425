//! What the hooks tell while the storm runs: outcomes, latencies, lateness.

use super::pace::Window;
use super::results::{Measured, Outcomes, histogram};
use hdrhistogram::Histogram;
use ringback::CallbackKey;
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
    starts: OnceLock<Starts>,
    window: Option<Window>,
    /// Runs that were cancelled since a drain was begun.
    cancelled: Mutex<Option<Vec<CallbackKey>>>,
    /// How late callbacks were started, if that is measured; written by the one thread that starts them.
    late: Mutex<Option<Histogram<u64>>>,
}

/// When each recall was started. Own clock readings, not the runtime's: it begins to count when the reactor takes a run
/// up, and the time until then matters too.
#[derive(Debug)]
struct Starts {
    began: Instant,
    /// By slab index, us since `began`, modulo 2^32: over an hour, more than any deadline. 0: not started here.
    at_us: Box<[AtomicU32]>,
}

impl Starts {
    fn age_us(&self, index: u32) -> Option<u64> {
        let at = self.at_us.get(index as usize)?.load(Relaxed);
        let now = self.began.elapsed().as_micros() as u32;
        (at != 0).then(|| now.wrapping_sub(at).into())
    }
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
            starts: OnceLock::new(),
            window: window.map(Window::new),
            cancelled: Mutex::new(None),
            late: Mutex::new(None),
        }
    }

    /// From here on, what is cancelled is kept by key.
    pub fn keep_cancelled(&self) {
        lock(&self.cancelled).get_or_insert_default();
    }

    /// What has been cancelled since.
    pub fn take_cancelled(&self) -> Vec<CallbackKey> {
        lock(&self.cancelled).take().unwrap_or_default()
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

    /// The storm begins now, over callbacks with slab indices below `indices`. To be called once; gives when it began.
    pub fn begin(&self, indices: usize) -> Instant {
        let at_us = || (0..indices).map(|_| AtomicU32::new(0)).collect();
        self.starts.get_or_init(|| Starts { at_us: at_us(), began: Instant::now() }).began
    }

    /// The latency of callback `index` counts from `at` since the beginning.
    pub fn set_start(&self, index: u32, at: Duration) {
        // Relaxed: the try_run that follows publishes it to the reactor that completes the run (rule R5).
        if let Some(start) = self.starts.get().and_then(|s| s.at_us.get(index as usize)) {
            start.store((at.as_micros() as u32).max(1), Relaxed);
        }
    }

    /// A callback is started so much later than it should have been.
    pub fn started_late(&self, by: Duration) {
        lock(&self.late).get_or_insert_with(histogram).saturating_record(by.as_micros() as u64);
    }

    /// How late callbacks were started, in microseconds.
    pub fn late(&self) -> Histogram<u64> {
        lock(&self.late).clone().unwrap_or_else(histogram)
    }

    /// A run has ended, by the runtime's own count `age_ns` after its beginning.
    pub fn ended(&self, key: CallbackKey, age_ns: u64, ending: Ending) {
        {
            let mut inner = self.own_shard();
            if inner.outcomes.note(ending) {
                let us = self.starts.get().and_then(|s| s.age_us(key.index)).unwrap_or(age_ns / 1_000);
                inner.latency.get_or_insert_with(histogram).saturating_record(us);
            }
        }
        if ending == Ending::Cancelled
            && let Some(cancelled) = &mut *lock(&self.cancelled)
        {
            cancelled.push(key);
        }
        if let Some(window) = &self.window {
            window.leave();
        }
    }

    fn own_shard(&self) -> MutexGuard<'_, Inner> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed)));
        lock(&self.shards[OWN.get() % SHARDS].0)
    }

    /// All endings so far.
    pub fn outcomes(&self) -> Outcomes {
        let mut total = Outcomes::default();
        for shard in &self.shards {
            total.add(&lock(&shard.0).outcomes);
        }
        total
    }

    /// Takes the latencies recorded since the last call.
    fn take_latencies(&self) -> Histogram<u64> {
        let mut sum = histogram();
        for shard in &self.shards {
            if lock(&shard.0).latency.is_none() {
                continue;
            }
            // An empty one goes in, so that the reactor need not make one.
            let mut taken = Some(histogram());
            std::mem::swap(&mut lock(&shard.0).latency, &mut taken);
            if let Some(taken) = taken {
                // The same bounds everywhere: nothing can be out of range.
                let _ = sum.add(&taken);
            }
        }
        sum
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    answered: u64,
    stride: usize,
    skipped: usize,
}

impl Sampler {
    /// Of a storm that began at `began`.
    pub fn begin(began: Instant) -> Sampler {
        Sampler {
            began,
            interval_began: Duration::ZERO,
            measured: Measured::default(),
            answered: 0,
            stride: 1,
            skipped: 0,
        }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes a sample: `completed` and `answered` so far.
    pub fn sample(&mut self, recorder: &Recorder, completed: u64, answered: u64) {
        let now = self.elapsed();
        if answered != self.answered {
            (self.answered, self.measured.last_answer) = (answered, now);
        }
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

    fn key(index: u32) -> CallbackKey {
        CallbackKey { index, generation: 1 }
    }

    #[test]
    fn what_is_cancelled_in_a_drain_is_kept_by_key() {
        let recorder = Recorder::new(None);
        recorder.ended(key(1), 0, Ending::Cancelled);
        recorder.keep_cancelled();
        recorder.ended(key(2), 0, Ending::Cancelled);
        recorder.ended(key(3), 0, Ending::Ok);
        assert_eq!(recorder.take_cancelled(), [key(2)]);
        assert_eq!(recorder.outcomes().cancelled, 2);
    }

    #[test]
    fn endings_are_counted_and_only_answers_have_a_latency() {
        let recorder = Recorder::new(None);
        let sampler = Sampler::begin(Instant::now());
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
            recorder.ended(key(0), 1_500_000, ending);
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
    fn latency_counts_from_the_start_that_was_set() {
        let recorder = Recorder::new(None);
        let began = recorder.begin(2);
        std::thread::sleep(Duration::from_millis(8));
        recorder.set_start(0, Duration::ZERO);
        recorder.ended(key(0), 1_000_000, Ending::Ok);
        let longest = began.elapsed().as_micros() as u64;
        let h = Sampler::begin(began).end(&recorder, 1).latency;
        assert!((7_990..=longest + 8).contains(&h.max()), "{}", h.max());
        recorder.ended(key(1), 1_000_000, Ending::Ok);
        let h = Sampler::begin(began).end(&recorder, 2).latency;
        assert_eq!(h.max() / 10, 100, "started by somebody else: the runtime's count");
    }

    #[test]
    fn threads_do_not_lose_each_others_records() {
        let recorder = Recorder::new(None);
        let mut sampler = Sampler::begin(Instant::now());
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..1000).for_each(|i| recorder.ended(key(i), 5_000, Ending::Ok)));
            }
            for _ in 0..50 {
                let _ = sampler.measured.latency.add(recorder.take_latencies());
            }
        });
        sampler.sample(&recorder, 4000, 4000);
        assert_eq!(sampler.end(&recorder, 4000).latency.len(), 4000);
        assert_eq!(recorder.outcomes().ok, 4000);
    }

    #[test]
    fn long_runs_keep_few_samples() {
        let recorder = Recorder::new(None);
        let mut sampler = Sampler::begin(Instant::now());
        for i in 0..100_000 {
            sampler.sample(&recorder, i, i.min(10));
        }
        let Measured { progress, last_answer, .. } = sampler.end(&recorder, 100_000);
        assert!(last_answer < progress[100].0);
        assert!(progress.len() <= SAMPLES_MAX + 2, "{}", progress.len());
        assert_eq!(progress[0], (Duration::ZERO, 0));
        assert!(progress.windows(2).all(|p| p[0].1 <= p[1].1 && p[0].0 <= p[1].0));
    }
}
