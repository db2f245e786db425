//! Settings that change while callbacks run.

use super::Backchannel;
use super::config::Config;
use super::host::Host;

impl Backchannel {
    /// Other settings from now on, but for the seed and the first xid.
    ///
    /// - `run_deadline_ns` is that of runs that are here as well: those that wait, and those that are out. One that waits for a
    ///   delay to pass and is overdue by the new one ends when the delay is over.
    /// - `rpc_timeout_ns` and `lease_ns`: of what is looked at from now on. A call that is out is looked at when it was to be
    ///   looked at before.
    /// - `backoff_ns_min`, `backoff_ns_max`: of delays that begin from now on.
    /// - `batch_max` and the floors: of what is sent from now on. A batch that is out is sent again as it is.
    pub fn tune<H: Host>(&mut self, config: &Config, host: &H) {
        let Config { seed, first_xid, .. } = self.config;
        self.config = Config { seed, first_xid, ..*config };
        self.queues.tune(config);
        for index in 0..self.calls.len() {
            let mut runs = self.calls.get(index).runs();
            let mut deadline_ns = u64::MAX;
            while let Some(token) = runs.next(host) {
                deadline_ns = deadline_ns.min(self.deadline_ns(token, host));
            }
            let call = self.calls.get_mut(index);
            if call.token.is_some() {
                call.deadline_ns = deadline_ns;
                let wake_ns = call.wake_ns.min(deadline_ns);
                self.calls.wake_at(index, wake_ns);
            }
        }
    }
}
