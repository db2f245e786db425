//! How long callbacks take, by their class and by what they wait for: histograms of each reactor, in memory that is taken
//! when the runtime is built. The clock is that of the reactor's turns: what begins and ends in one turn took no time.

use hdrhistogram::Histogram;
use ringback_rpc::backchannel::Class;
use std::time::Duration;

/// The longest time that is told apart: a run has ended by then.
const TRACKED_US_MAX: u64 = 1 << 32;
/// Two: a time is off by a hundredth at most.
const DIGITS: u8 = 2;

/// Which part of a callback's life was measured.
///
/// # Examples
///
/// ```
/// use ringback::LatencyStage;
///
/// assert_eq!(LatencyStage::ALL.iter().map(|stage| stage.name()).collect::<Vec<_>>(), ["queued", "unsent", "wire", "done"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LatencyStage {
    /// From the accepted `try_run` until the home reactor has handed the run to its client. Long: the reactor is overloaded.
    Queued,
    /// From the accepted `try_run` until it was prepared to be sent: it waited for its turn, for a session slot or for a
    /// callback path. What is [`Queued`](LatencyStage::Queued) is part of it.
    Unsent,
    /// From the last transmission of a call until its reply, for each callback in it.
    Wire,
    /// From the accepted `try_run` until the end.
    Done,
}

impl LatencyStage {
    /// All of them.
    pub const ALL: &'static [LatencyStage] =
        &[LatencyStage::Queued, LatencyStage::Unsent, LatencyStage::Wire, LatencyStage::Done];

    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            LatencyStage::Queued => "queued",
            LatencyStage::Unsent => "unsent",
            LatencyStage::Wire => "wire",
            LatencyStage::Done => "done",
        }
    }
}

/// How long the callbacks of one class took, in one stage.
///
/// # Examples
///
/// ```
/// use ringback::{Error, Runtime};
///
/// fn print(runtime: &Runtime) -> Result<(), Error> {
///     for latency in runtime.snapshot(0)?.latencies() {
///         let (class, stage) = (latency.class(), latency.stage().name());
///         println!("{class} {stage}: {} times, 99 of 100 within {:?}", latency.count(), latency.quantile(0.99));
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Latency {
    class: Class,
    stage: LatencyStage,
    times_us: Histogram<u64>,
}

impl Latency {
    /// The class of the callbacks: `waited`, `recall` or `background`.
    pub fn class(&self) -> &'static str {
        self.class.name()
    }

    /// What was measured.
    pub fn stage(&self) -> LatencyStage {
        self.stage
    }

    /// How many callbacks.
    pub fn count(&self) -> u64 {
        self.times_us.len()
    }

    /// The time that this part of them, from 0 to 1, did not exceed.
    pub fn quantile(&self, part: f64) -> Duration {
        Duration::from_micros(self.times_us.value_at_quantile(part))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.times_us.max())
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros((self.times_us.mean() * self.times_us.len() as f64) as u64)
    }

    /// How many took no longer than this.
    pub fn within(&self, limit: Duration) -> u64 {
        self.times_us.count_between(0, u64::try_from(limit.as_micros()).unwrap_or(u64::MAX))
    }

    /// Adds what another reactor measured.
    pub(crate) fn add(&mut self, other: &Latency) {
        // Both have the same bounds.
        let _ = self.times_us.add(&other.times_us);
    }
}

/// One histogram, and the time that came last: the callbacks of a turn tend to have taken equally long, and are recorded
/// together.
struct Series {
    times_us: Histogram<u64>,
    last_us: u64,
    pending: u64,
}

impl Series {
    #[inline]
    fn record(&mut self, us: u64, count: u64) {
        if us != self.last_us {
            self.flush();
            self.last_us = us;
        }
        self.pending += count;
    }

    fn flush(&mut self) {
        self.times_us.saturating_record_n(self.last_us, self.pending);
        self.pending = 0;
    }
}

/// The histograms of one reactor.
pub(crate) struct Latencies(Box<[Series]>);

impl Latencies {
    /// `None` if the memory is not to be had in this form, which the constants rule out.
    pub fn new() -> Option<Self> {
        let times_us = Histogram::new_with_bounds(1, TRACKED_US_MAX, DIGITS).ok()?;
        let series = || Series { times_us: times_us.clone(), last_us: 0, pending: 0 };
        Some(Latencies((0..Class::COUNT * LatencyStage::ALL.len()).map(|_| series()).collect()))
    }

    #[inline]
    pub fn record(&mut self, class: Class, stage: LatencyStage, us: u64, count: u64) {
        self.0[class as usize * LatencyStage::ALL.len() + stage as usize].record(us, count);
    }

    pub fn read(&mut self) -> Vec<Latency> {
        self.0.iter_mut().for_each(Series::flush);
        let kinds = Class::ALL.iter().flat_map(|class| LatencyStage::ALL.iter().map(|stage| (*class, *stage)));
        kinds.zip(&self.0).map(|((class, stage), s)| Latency { class, stage, times_us: s.times_us.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_that_are_recorded_together_all_count() {
        let mut latencies = Latencies::new().unwrap();
        for us in [0, 0, 7, 7, 7, 100_000, 7, u64::MAX] {
            latencies.record(Class::Recall, LatencyStage::Wire, us, 2);
        }
        let all = latencies.read();
        assert_eq!(all.iter().map(Latency::count).sum::<u64>(), 16);
        let wire = all.iter().find(|l| l.class() == "recall" && l.stage() == LatencyStage::Wire).unwrap();
        assert_eq!((wire.count(), wire.quantile(0.5)), (16, Duration::from_micros(7)));
        let within = [0, 6, 7, 99_000, 101_000].map(|us| wire.within(Duration::from_micros(us)));
        assert_eq!(within, [4, 4, 12, 12, 14]);
        assert!(wire.max() >= Duration::from_micros(TRACKED_US_MAX), "the longest that there is");
        let mut twice = wire.clone();
        twice.add(wire);
        assert_eq!((twice.count(), latencies.read().len()), (32, Class::COUNT * LatencyStage::ALL.len()));
    }
}
