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
}

impl Pace<'_> {
    /// Calls `start` for every key with how many microseconds late it is, in turn over the clients, so that each has the
    /// same rate and no client's callbacks come first. Returns when all are started or it was told to stop.
    pub fn run<K: Copy>(&self, by_client: &[Vec<K>], mut start: impl FnMut(K, u32)) {
        // The default slack of 50 us would show in every latency of an open loop; without it the sleep is merely less exact.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let longest = by_client.iter().map(Vec::len).max().unwrap_or(0);
        let clients = by_client.len() as u64;
        let began = Instant::now();
        for turn in 0..longest {
            for (client, keys) in by_client.iter().enumerate() {
                let Some(key) = keys.get(turn) else { continue };
                let mut late = Duration::ZERO;
                if let Some(rate) = self.rate {
                    let intended = intended(turn as u64 * clients + client as u64, rate, clients);
                    if !self.sleep_until(began, intended) {
                        return;
                    }
                    self.enter_window();
                    late = began.elapsed().saturating_sub(intended);
                } else {
                    self.enter_window();
                }
                if self.stop.load(SeqCst) {
                    return;
                }
                start(*key, u32::try_from(late.as_micros()).unwrap_or(u32::MAX));
            }
        }
    }

    fn enter_window(&self) {
        if let Some(window) = self.window {
            window.enter(self.stop);
        }
    }

    fn sleep_until(&self, began: Instant, intended: Duration) -> bool {
        while let Some(left) = intended.checked_sub(began.elapsed()).filter(|d| !d.is_zero()) {
            if self.stop.load(SeqCst) {
                return false;
            }
            std::thread::sleep(left.clamp(SLEEP_MIN, SLEEP_MAX));
        }
        true
    }
}

/// When the `n`th start of all is due.
fn intended(n: u64, rate: u64, clients: u64) -> Duration {
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

    #[test]
    fn clients_take_turns() {
        let stop = AtomicBool::new(false);
        let mut order = Vec::new();
        Pace { rate: None, window: None, stop: &stop }.run(&keys(&[3, 1, 2]), |k, late| {
            assert_eq!(late, 0);
            order.push(k);
        });
        assert_eq!(order, vec![(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2)]);
    }

    #[test]
    fn a_rate_is_kept_for_each_client() {
        let stop = AtomicBool::new(false);
        let began = Instant::now();
        let mut count = 0;
        Pace { rate: Some(500), window: None, stop: &stop }.run(&keys(&[26, 26]), |_, _| count += 1);
        assert_eq!(count, 52);
        assert!(began.elapsed() >= Duration::from_millis(50), "25 more after the first, 2 ms apart");
        assert_eq!(intended(1_000, 10, 10), Duration::from_secs(10));
    }

    /// A starter that was held up says how late it is: what a closed loop would omit.
    #[test]
    fn lateness_counts_from_the_intended_start() {
        let stop = AtomicBool::new(false);
        let mut lates = Vec::new();
        Pace { rate: Some(1000), window: None, stop: &stop }.run(&keys(&[30]), |(_, k), late| {
            if k == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            lates.push(late);
        });
        assert!(lates[1] >= 18_000 && lates[10] >= 9_000, "{lates:?}");
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
            Pace { rate: None, window: Some(&window), stop: &stop }.run(&keys(&[1000]), |_, _| {
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
            Pace { rate: None, window: Some(&window), stop: &stop }.run(&keys(&[5]), |_, _| count += 1);
            assert_eq!(count, 1);
        });
    }
}
