//! Settings that change while callbacks run.

use crate::error::guard;
use crate::pointer::{self, Versioned, not_null};
use crate::rb_runtime;
use runtime::{ClientLimits, Tuning};
use std::ffi::c_int;
use std::time::Duration;

/// Settings that may change while callbacks run, as one value: docs/src/tuning.md says of each what it means for what is under
/// way. Set `size`, let rb_get_tuning() fill it in, change what is to change, and hand it to rb_set_tuning().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_tuning {
    /// sizeof(rb_tuning).
    pub size: usize,
    /// The lease: of a client that is told from now on that its path is down.
    pub lease_ms: u64,
    /// Also of runs in flight, counted from their beginning.
    pub run_deadline_ms: u64,
    /// Of recalls that are first sent from now on.
    pub return_deadline_ms: u64,
    /// Of calls that are sent from now on.
    pub rpc_timeout_ms: u64,
    /// First wait after NFS4ERR_DELAY, of those that begin from now on.
    pub backoff_min_ms: u64,
    /// Longest wait.
    pub backoff_max_ms: u64,
    /// Of what is sent from now on.
    pub batch_max: u32,
    /// How often recalls may be passed over by CB_GETATTR while they have work, 0 to 255.
    pub recalls_passed_over_max: u32,
    /// How often the background may be passed over, 0 to 255.
    pub background_passed_over_max: u32,
    /// Of all clients that have no limits of their own. See rb_set_client_limits().
    pub client_calls_max: u32,
    /// The same of callbacks per second.
    pub client_rate_max: u32,
    /// Of what arrives from now on.
    pub calls_unanswered_max: u32,
    /// Of what arrives from now on.
    pub unsent_bytes_max: u64,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_tuning {
    const NAME: &'static str = "rb_tuning";
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl rb_tuning {
    fn of(size: usize, now: &Tuning) -> Self {
        rb_tuning {
            size,
            lease_ms: millis(now.lease),
            run_deadline_ms: millis(now.run_deadline),
            return_deadline_ms: millis(now.return_deadline),
            rpc_timeout_ms: millis(now.rpc_timeout),
            backoff_min_ms: millis(now.backoff_min),
            backoff_max_ms: millis(now.backoff_max),
            batch_max: now.batch_max,
            recalls_passed_over_max: now.recalls_passed_over_max.into(),
            background_passed_over_max: now.background_passed_over_max.into(),
            client_calls_max: now.client_limits.calls_max,
            client_rate_max: now.client_limits.rate_max,
            calls_unanswered_max: now.calls_unanswered_max as u32,
            unsent_bytes_max: now.unsent_bytes_max as u64,
        }
    }

    fn apply(&self, to: &mut Tuning) {
        // More than there can be is as good as all.
        let times = |count: u32| u8::try_from(count).unwrap_or(u8::MAX);
        to.lease = Duration::from_millis(self.lease_ms);
        to.run_deadline = Duration::from_millis(self.run_deadline_ms);
        to.return_deadline = Duration::from_millis(self.return_deadline_ms);
        to.rpc_timeout = Duration::from_millis(self.rpc_timeout_ms);
        to.backoff_min = Duration::from_millis(self.backoff_min_ms);
        to.backoff_max = Duration::from_millis(self.backoff_max_ms);
        to.batch_max = self.batch_max;
        to.recalls_passed_over_max = times(self.recalls_passed_over_max);
        to.background_passed_over_max = times(self.background_passed_over_max);
        to.client_limits = ClientLimits::default().calls_max(self.client_calls_max).rate_max(self.client_rate_max);
        to.calls_unanswered_max = self.calls_unanswered_max as usize;
        to.unsent_bytes_max = usize::try_from(self.unsent_bytes_max).unwrap_or(usize::MAX);
    }
}

/// What is set now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_get_tuning(runtime: Option<&rb_runtime>, tuning: *mut rb_tuning) -> c_int {
    guard("rb_get_tuning", String::new, || {
        let runtime = not_null(runtime, "runtime")?;
        // SAFETY: P3
        unsafe {
            pointer::fill(tuning, "tuning", |old: rb_tuning| Ok(rb_tuning::of(old.size, &runtime.runtime.tuning())))
        }?;
        Ok(0)
    })
}

/// Sets all of it. An error names what is out of range, and then nothing has changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_set_tuning(runtime: Option<&rb_runtime>, tuning: *const rb_tuning) -> c_int {
    guard("rb_set_tuning", String::new, || {
        let runtime = not_null(runtime, "runtime")?;
        // SAFETY: P3
        let tuning = unsafe { pointer::read(tuning, "tuning") }?;
        runtime.runtime.tune(|now| tuning.apply(now))?;
        Ok(0)
    })
}
