//! When each callback is started: all at once, or open loop at a rate, and never more outstanding than the window.

use rustix::thread::set_current_timer_slack;
use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// The shortest sleep: at high rates what falls due meanwhile is started together, or the sleeping would cost more CPU
/// than the callbacks. The latencies, from the intended start, include it.
const SLEEP_MIN: Duration = Duration::from_micros(50);
/// The longest sleep, so that a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// How callbacks are started.
#[derive(Clone, Copy, Debug)]
pub struct Pace<'a> {
    /// Started per second and client; `None`: all at once.
    pub rate: Option<u64>,
    /// Bounds what is outstanding.
    pub window: Option<&'a Window>,
    /// Set from outside to end early.
    pub stop: &'a AtomicBool,
    /// When the first start is due.
    pub began: Instant,
}

impl Pace<'_> {
    /// Calls `start` for every key, in turn over the clients, so that each has the same rate and no client's callbacks come
    /// first. With the key comes the time since `began` from which its latency counts: in an open loop when it was due,
    /// however late it is, else now. Returns when all are started or it was told to stop.
    pub fn run<K: Copy>(&self, by_client: &[Vec<K>], mut start: impl FnMut(K, Duration)) {
        // The default slack of 50 us would show in every latency of an open loop; without it the sleep is merely less exact.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let longest = by_client.iter().map(Vec::len).max().unwrap_or(0);
        let clients = by_client.len() as u64;
        for turn in 0..longest {
            for (client, keys) in by_client.iter().enumerate() {
                let Some(key) = keys.get(turn) else { continue };
                let due = self.rate.map(|rate| due(turn as u64 * clients + client as u64, rate, clients));
                self.sleep_until(due.unwrap_or_default());
                if let Some(window) = self.window {
                    window.enter(self.stop);
                }
                if self.stop.load(SeqCst) {
                    return;
                }
                start(*key, due.unwrap_or_else(|| self.began.elapsed()));
            }
        }
    }

    fn sleep_until(&self, due: Duration) {
        // Nothing is due at zero but what starts at once: no look at the clock for it.
        while !due.is_zero() && !self.stop.load(SeqCst) {
            match due.checked_sub(self.began.elapsed()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.clamp(SLEEP_MIN, SLEEP_MAX)),
                _ => return,
            }
        }
    }
}

/// When the `n`th start of all is due.
fn due(n: u64, rate: u64, clients: u64) -> Duration {
    const NS_PER_S: u128 = 1_000_000_000;
    let ns = u128::from(n) * NS_PER_S / (u128::from(rate) * u128::from(clients.max(1)));
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// A bound on what is outstanding: entered by the one thread that starts, left by whoever completes.
#[derive(Debug)]
pub struct Window {
    limit: u64,
    outstanding: AtomicU64,
    /// The starter waits: pairs with the look at `outstanding` after it is set, both sequentially consistent, so that
    /// either the starter sees the room or the one who makes it sees the starter.
    asleep: AtomicBool,
    starter: Mutex<Option<Thread>>,
}

impl Window {
    /// A window of `limit`.
    pub fn new(limit: u64) -> Window {
        Window { limit, outstanding: AtomicU64::new(0), asleep: AtomicBool::new(false), starter: Mutex::new(None) }
    }

    /// Waits for room and takes it.
    fn enter(&self, stop: &AtomicBool) {
        while self.outstanding.load(SeqCst) >= self.limit && !stop.load(SeqCst) {
            *self.starter.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(std::thread::current());
            self.asleep.store(true, SeqCst);
            if self.outstanding.load(SeqCst) >= self.limit {
                std::thread::park_timeout(SLEEP_MAX);
            }
            self.asleep.store(false, SeqCst);
        }
        self.outstanding.fetch_add(1, SeqCst);
    }

    /// Gives room back. Wakes the starter once a quarter of the window is free: a wake for each would cost more than
    /// the callback.
    pub fn leave(&self) {
        // A run that somebody else asked for (a conflicting open) has not entered.
        let leave = |n: u64| Some(n.saturating_sub(1));
        let left = self.outstanding.fetch_update(SeqCst, SeqCst, leave).unwrap_or(0).saturating_sub(1);
        let low = self.limit - (self.limit / 4).max(1);
        if left > low || !self.asleep.swap(false, SeqCst) {
            return;
        }
        if let Some(starter) = &*self.starter.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            starter.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn keys(counts: &[u32]) -> Vec<Vec<(usize, u32)>> {
        counts.iter().enumerate().map(|(c, n)| (0..*n).map(|k| (c, k)).collect()).collect()
    }

    fn pace(rate: Option<u64>, stop: &AtomicBool) -> Pace<'_> {
        Pace { rate, window: None, stop, began: Instant::now() }
    }

    #[test]
    fn clients_take_turns() {
        let stop = AtomicBool::new(false);
        let mut order = Vec::new();
        pace(None, &stop).run(&keys(&[3, 1, 2]), |k, _| order.push(k));
        assert_eq!(order, vec![(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2)]);
    }

    #[test]
    fn a_rate_is_kept_for_each_client() {
        let stop = AtomicBool::new(false);
        let pace = pace(Some(500), &stop);
        let mut count = 0;
        pace.run(&keys(&[26, 26]), |_, due| {
            assert!(pace.began.elapsed() >= due, "not before it is due");
            count += 1;
        });
        assert_eq!(count, 52);
        assert!(pace.began.elapsed() >= Duration::from_millis(50), "25 more after the first, 2 ms apart");
        assert_eq!(due(1_000, 10, 10), Duration::from_secs(10));
    }

    /// A starter that was held up says when it was due: what a closed loop would omit.
    #[test]
    fn latency_counts_from_when_the_start_was_due() {
        let stop = AtomicBool::new(false);
        let mut all_due = Vec::new();
        pace(Some(1000), &stop).run(&keys(&[30]), |(_, k), due| {
            if k == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            all_due.push(due);
        });
        assert_eq!(all_due[10], Duration::from_millis(10));
    }

    #[test]
    fn the_window_bounds_what_is_outstanding() {
        let (stop, window, most) = (AtomicBool::new(false), Window::new(8), AtomicU64::new(0));
        let (tx, rx) = channel();
        std::thread::scope(|s| {
            s.spawn(|| {
                for () in rx {
                    window.leave();
                }
            });
            Pace { window: Some(&window), ..pace(None, &stop) }.run(&keys(&[1000]), |_, _| {
                most.fetch_max(window.outstanding.load(SeqCst), SeqCst);
                tx.send(()).unwrap();
            });
            drop(tx);
        });
        assert!((1..=8).contains(&most.load(SeqCst)));
        assert_eq!(window.outstanding.load(SeqCst), 0);
    }

    #[test]
    fn a_full_window_can_be_stopped() {
        let (stop, window) = (AtomicBool::new(false), Window::new(1));
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                stop.store(true, SeqCst);
            });
            let mut count = 0;
            Pace { window: Some(&window), ..pace(None, &stop) }.run(&keys(&[5]), |_, _| count += 1);
            assert_eq!(count, 1);
        });
    }
}
