//! What one client is to be sent at most, for clients that cannot take what their sessions allow.

use super::Backchannel;
use super::host::Host;

const S: u64 = 1_000_000_000;
/// What may be sent at once after a pause, as a part of what may be sent in a second.
const BURSTS_PER_SECOND: u32 = 10;

/// Limits of one client. The default is none.
///
/// # Examples
///
/// ```
/// use ringback_rpc::backchannel::ClientLimits;
///
/// // For a client that breaks on two recalls at a time.
/// let one_by_one = ClientLimits::default().calls_max(1);
/// assert_eq!((one_by_one.calls_max, one_by_one.rate_max), (1, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientLimits {
    /// Calls that are out at once, on all sessions that have a connection: some old clients break on two recalls at a time.
    /// A call may carry a batch of callbacks, where the client allows it. 0: as many as the sessions have slots.
    pub calls_max: u32,
    /// Callbacks sent per second; a tenth of it may go at once. What is sent again unchanged does not count. 0: any number.
    pub rate_max: u32,
}

impl ClientLimits {
    /// The same with so many calls out at once.
    pub const fn calls_max(mut self, calls: u32) -> Self {
        self.calls_max = calls;
        self
    }

    /// The same with so many callbacks per second.
    pub const fn rate_max(mut self, callbacks: u32) -> Self {
        self.rate_max = callbacks;
        self
    }
}

/// Spaces callbacks out: each takes its part of a second, and they may be ahead of that by a burst.
#[derive(Debug, Default)]
pub(super) struct Pace {
    limits: ClientLimits,
    /// When all that was sent so far would have been sent at the allowed rate.
    paid_ns: u64,
    /// Nothing new is sent before. 0: there is nothing to wait for.
    pub hold_ns: u64,
    /// Nothing new is sent, for reasons of the driver's.
    held: bool,
}

impl Pace {
    /// What each callback takes, and how far all together may be ahead. `None`: any number may be sent.
    fn each_and_ahead_ns(&self) -> Option<(u64, u64)> {
        let each_ns = S.checked_div(self.limits.rate_max.into())?;
        let burst = (self.limits.rate_max / BURSTS_PER_SECOND).max(1) - 1;
        Some((each_ns, each_ns * u64::from(burst)))
    }

    pub fn limits(&self) -> ClientLimits {
        self.limits
    }

    pub fn paid_ns(&self) -> u64 {
        self.paid_ns
    }

    pub fn restore(&mut self, limits: ClientLimits, paid_ns: u64, hold_ns: u64) {
        *self = Pace { limits, paid_ns, hold_ns, held: false };
    }

    /// Whether nothing needs to be counted.
    #[inline]
    pub fn is_unlimited(&self) -> bool {
        self.limits.calls_max == 0 && self.limits.rate_max == 0
    }

    fn sent(&mut self, now_ns: u64, runs: u32) {
        let Some((each_ns, ahead_ns)) = self.each_and_ahead_ns() else { return };
        self.paid_ns = self.paid_ns.max(now_ns).saturating_add(each_ns.saturating_mul(runs.into()));
        if self.paid_ns > now_ns.saturating_add(ahead_ns) {
            self.hold_ns = self.paid_ns - ahead_ns;
        }
    }

    /// How many callbacks the next call may carry, if one may be sent now.
    pub fn runs_max(&self, now_ns: u64) -> u64 {
        let Some((each_ns, ahead_ns)) = self.each_and_ahead_ns() else { return u64::MAX };
        1 + ahead_ns.saturating_sub(self.paid_ns.saturating_sub(now_ns)).checked_div(each_ns).unwrap_or(u64::MAX - 1)
    }
}

impl Backchannel {
    /// The limits of the client.
    pub fn limits(&self) -> ClientLimits {
        self.pace.limits
    }

    /// Sets the limits of the client, for what is sent from now on.
    pub fn set_limits(&mut self, limits: ClientLimits, host: &mut impl Host) {
        self.pace = Pace { limits, held: self.pace.held, ..Pace::default() };
        self.update_path(host);
    }

    /// Holds back what is new, for as long as the driver has reasons of its own: a limit of several clients together. What
    /// was sent before is sent again all the same, so that nothing that is out stays out for want of this.
    pub fn hold_new(&mut self, held: bool) {
        self.pace.held = held;
    }

    /// Calls were written that carry so many runs.
    #[inline]
    pub(super) fn pace(&mut self, now_ns: u64, runs: u32) {
        if self.pace.limits.rate_max > 0 {
            self.pace.sent(now_ns, runs);
        }
    }

    /// Whether the client's limits allow another call.
    #[inline]
    pub(super) fn has_allowance(&self) -> bool {
        let Pace { limits, hold_ns, held, .. } = self.pace;
        hold_ns == 0 && !held && (limits.calls_max == 0 || self.calls_out() < limits.calls_max)
    }

    /// Calls that are not settled, quarantined ones included: the client may still be busy with them. What was sent on a
    /// session without a connection does not keep others waiting.
    pub fn calls_out(&self) -> u32 {
        self.live_sessions().filter(|s| s.bound != 0).map(|s| s.slots.busy_count()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends whenever it may, for ten seconds; how many went in each.
    fn sent(rate: u32, step_ns: u64) -> Vec<u32> {
        let mut pace = Pace { limits: ClientLimits::default().rate_max(rate), ..Pace::default() };
        let mut seconds = vec![0; 10];
        for now_ns in (S..11 * S).step_by(step_ns as usize) {
            while pace.hold_ns <= now_ns {
                pace.hold_ns = 0;
                pace.sent(now_ns, 1);
                seconds[(now_ns / S) as usize - 1] += 1;
            }
        }
        seconds
    }

    #[test]
    fn t24_a_rate_holds_over_any_second() {
        for (rate, step_ns) in [(1, S / 100), (7, S / 1000), (100, S / 1000), (1000, S / 100), (50_000, S / 1000)] {
            let seconds = sent(rate, step_ns);
            let burst = (rate / BURSTS_PER_SECOND).max(1);
            assert!(seconds.iter().all(|n| *n <= rate + burst), "{rate}: {seconds:?}");
            let total: u32 = seconds.iter().sum();
            assert!((10 * rate - burst..=10 * rate + burst).contains(&total), "{rate}: {seconds:?}");
        }
    }
}
