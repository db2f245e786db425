//! When to ask again for what was refused: memory, or a place in the submission queue.

const NS_PER_MS: u64 = 1_000_000;
/// Longest time between two attempts: what a shortage costs at most after it has ended.
const RETRY_NS_MAX: u64 = 128 * NS_PER_MS;

/// The first attempt after a refusal is made in the next turn, which may have made room (it empties the submission
/// queue, for one). From then on the reactor waits, twice as long each time: a shortage that lasts costs a few attempts
/// a second, not a processor.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    at_ns: u64,
}

impl Retry {
    /// Whether an attempt may be made.
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.at_ns <= now_ns
    }

    /// When the next attempt may be made.
    pub fn at_ns(&self) -> u64 {
        self.at_ns
    }

    /// It was refused.
    pub fn failed(&mut self, now_ns: u64) {
        let wait_ns = self.failures.checked_sub(1).map_or(0, |n| (NS_PER_MS << n.min(32)).min(RETRY_NS_MAX));
        self.at_ns = now_ns.saturating_add(wait_ns);
        self.failures = self.failures.saturating_add(1);
    }

    /// It was granted: the next refusal is a first one.
    pub fn worked(&mut self) {
        *self = Retry::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t6_the_wait_doubles_up_to_its_limit() {
        let mut retry = Retry::default();
        assert!(retry.is_due(0));
        let waits: Vec<u64> = (0..40)
            .map(|_| {
                retry.failed(1000);
                assert_eq!(retry.is_due(1000), retry.at_ns() == 1000);
                (retry.at_ns() - 1000) / NS_PER_MS
            })
            .collect();
        assert_eq!(waits[..10], [0, 1, 2, 4, 8, 16, 32, 64, 128, 128]);
        assert_eq!(waits[39], 128);
        retry.worked();
        retry.failed(7);
        assert!(retry.is_due(7), "a new shortage begins anew");
    }
}
