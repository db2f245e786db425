//! What can be changed while a runtime runs, as one value.

use crate::builder::{BuildError, check};
use crate::command::Command;
use crate::runtime::Runtime;
use crate::settings::Settings;
use ringback_rpc::backchannel::ClientLimits;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Settings that may change while callbacks run: what [`Builder`](crate::Builder) has set, or [`Runtime::tune`] since. The
/// [table](https://docs.rs/ringback) in docs/src/tuning.md has them all, with what takes effect when.
///
/// # Examples
///
/// ```
/// use ringback::{BuildError, Runtime};
/// use std::time::Duration;
///
/// /// The network is slow today.
/// fn be_patient(runtime: &Runtime) -> Result<(), BuildError> {
///     runtime.tune(|tuning| {
///         tuning.rpc_timeout = Duration::from_secs(30);
///         tuning.batch_max = 4;
///     })
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tuning {
    /// [`Builder::lease`](crate::Builder::lease): of a client that is told from now on that its path is down. No other time
    /// follows from it here.
    pub lease: Duration,
    /// [`Builder::run_deadline`](crate::Builder::run_deadline): also of runs in flight, counted from their beginning.
    pub run_deadline: Duration,
    /// [`Builder::return_deadline`](crate::Builder::return_deadline): of recalls that are first sent from now on, which are not
    /// overdue before those that were sent earlier. At most three times that of the builder.
    pub return_deadline: Duration,
    /// [`Builder::rpc_timeout`](crate::Builder::rpc_timeout): of calls that are sent from now on; of one that is out the
    /// next time that it is looked at, which is when its old timeout passes.
    pub rpc_timeout: Duration,
    /// [`Builder::backoff`](crate::Builder::backoff): of waits that begin from now on.
    pub backoff_min: Duration,
    /// The same of the longest wait.
    pub backoff_max: Duration,
    /// [`Builder::batch_max`](crate::Builder::batch_max): of what is sent from now on; a batch that is out is sent again as it is.
    pub batch_max: u32,
    /// [`Builder::class_floors`](crate::Builder::class_floors): of what is sent from now on.
    pub recalls_passed_over_max: u8,
    /// The same of the background.
    pub background_passed_over_max: u8,
    /// [`Builder::client_limits`](crate::Builder::client_limits): of all clients that have none of their own
    /// ([`Runtime::set_client_limits`]), for what is sent from now on; what is out stays out.
    pub client_limits: ClientLimits,
    /// [`Builder::calls_unanswered_max`](crate::Builder::calls_unanswered_max): of what arrives from now on.
    pub calls_unanswered_max: usize,
    /// [`Builder::unsent_bytes_max`](crate::Builder::unsent_bytes_max): of what arrives from now on.
    pub unsent_bytes_max: usize,
}

impl Settings {
    fn tuning(&self) -> Tuning {
        Tuning {
            lease: self.lease,
            run_deadline: self.run_deadline,
            return_deadline: self.return_deadline,
            rpc_timeout: self.rpc_timeout,
            backoff_min: self.backoff_min,
            backoff_max: self.backoff_max,
            batch_max: self.batch_max,
            recalls_passed_over_max: self.recalls_passed_over_max,
            background_passed_over_max: self.background_passed_over_max,
            client_limits: self.client_limits,
            calls_unanswered_max: self.calls_unanswered_max,
            unsent_bytes_max: self.unsent_bytes_max,
        }
    }

    fn tuned(&self, to: Tuning) -> Settings {
        Settings {
            lease: to.lease,
            run_deadline: to.run_deadline,
            return_deadline: to.return_deadline,
            rpc_timeout: to.rpc_timeout,
            backoff_min: to.backoff_min,
            backoff_max: to.backoff_max,
            batch_max: to.batch_max,
            recalls_passed_over_max: to.recalls_passed_over_max,
            background_passed_over_max: to.background_passed_over_max,
            client_limits: to.client_limits,
            calls_unanswered_max: to.calls_unanswered_max,
            unsent_bytes_max: to.unsent_bytes_max,
            tunings: self.tunings + 1,
            ..self.clone()
        }
    }
}

impl Runtime {
    /// What is set now.
    pub fn tuning(&self) -> Tuning {
        self.shared().tuned.lock().unwrap_or_else(PoisonError::into_inner).tuning()
    }

    /// Changes settings while callbacks run. Each reactor takes all of them over between two turns, as one value, and applies
    /// them to its clients in that turn or, if there are thousands, in the next ones: a client has either the old ones or the
    /// new ones. Each field of [`Tuning`] says what is meant by it for what is under way. Changes of several threads come one after the
    /// other. An error names what is out of range, and then nothing has changed.
    pub fn tune(&self, change: impl FnOnce(&mut Tuning)) -> Result<(), BuildError> {
        let shared = self.shared();
        let mut tuned = shared.tuned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tuning = tuned.tuning();
        change(&mut tuning);
        let settings = tuned.tuned(tuning);
        check(&settings)?;
        let max_ms = 3 * millis(shared.settings.return_deadline);
        let value = millis(settings.return_deadline);
        if value > max_ms {
            return Err(BuildError::Setting { name: "return deadline in ms", value, min: 1, max: max_ms });
        }
        *tuned = Arc::new(settings);
        // Under the lock, so that all reactors learn of changes in the same order.
        shared.reactors.iter().for_each(|port| port.post(Command::Tune(Arc::clone(&tuned))));
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
