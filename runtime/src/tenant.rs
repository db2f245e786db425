//! Tenants: who shares a server and must not be served at each other's cost. A client belongs to one, which has a label, limits
//! of its own and counters of its own. Whoever does without belongs to the default tenant, which is not limited and costs nothing.

use crate::ConnectionId;
#[cfg(feature = "checkpoint")]
use crate::checkpoint::record::TenantRecord;
use crate::keys::ClientId;
use crate::registry::Shared;
use crate::runtime::{Error, Runtime};
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Most tenants, the default one included.
pub(crate) const TENANTS_MAX: usize = 1024;

/// What a tenant may be ahead of its rate, as a part of what it may send in a second.
const BURSTS_PER_SECOND: u64 = 10;

const S: u64 = 1_000_000_000;

/// A tenant. Plain and small; it never goes.
///
/// # Examples
///
/// ```
/// use ringback::TenantId;
///
/// assert_eq!(TenantId::default().to_bits(), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub(crate) u16);

impl TenantId {
    /// A number that names the tenant, for logs, and to be kept. 0 is the default one.
    pub fn to_bits(self) -> u16 {
        self.0
    }

    /// The tenant that [`to_bits`](TenantId::to_bits) named. Any value is safe: one that was never given out is none.
    pub fn from_bits(bits: u16) -> Self {
        TenantId(bits)
    }
}

/// What a tenant may have, all of its clients together. The default is no limit.
///
/// # Examples
///
/// ```
/// use ringback::TenantLimits;
///
/// let limits = TenantLimits::default().callbacks_max(100_000).calls_max(64);
/// assert_eq!((limits.calls_max, limits.rate_max), (64, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantLimits {
    /// Callbacks that exist; beyond, [`Runtime::insert`] answers [`TenantFull`](crate::InsertError::TenantFull). 0: any number.
    pub callbacks_max: u32,
    /// Calls that are out at once on sessions that have a connection, all reactors together. The rest waits in its clients'
    /// queues; what was sent before is sent again all the same. 0: any number.
    pub calls_max: u32,
    /// Callbacks sent per second; a tenth of it may go at once. The rest waits. 0: any number.
    pub rate_max: u32,
}

impl TenantLimits {
    /// The same with so many callbacks.
    pub const fn callbacks_max(mut self, callbacks: u32) -> Self {
        self.callbacks_max = callbacks;
        self
    }

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

/// A tenant, and what was counted for it.
///
/// # Examples
///
/// ```
/// use ringback::Runtime;
///
/// fn print(runtime: &Runtime) {
///     for tenant in runtime.tenants() {
///         println!("{}: {} callbacks, {} calls out", tenant.label, tenant.callbacks, tenant.calls_out);
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantReport {
    /// The tenant.
    pub tenant: TenantId,
    /// Its label.
    pub label: String,
    /// Its limits.
    pub limits: TenantLimits,
    /// Callbacks that exist.
    pub callbacks: u32,
    /// Calls that are not settled.
    pub calls_out: u32,
    /// Callbacks sent, as [`Stats::callbacks_sent`](crate::Stats).
    pub callbacks_sent: u64,
    /// Callbacks that were refused because there were as many as there may be.
    pub refused: u64,
    /// Times that a client had something to send and was held back.
    pub held_back: u64,
}

/// One tenant, as all threads see it.
#[derive(Debug)]
pub(crate) struct Tenant {
    label: String,
    callbacks_max: AtomicU32,
    calls_max: AtomicU32,
    rate_max: AtomicU32,
    callbacks: CachePadded<AtomicU32>,
    refused: AtomicU64,
    calls_out: CachePadded<AtomicU32>,
    /// When all that was sent so far would have been sent at the allowed rate.
    paid_ns: AtomicU64,
    callbacks_sent: AtomicU64,
    held_back: AtomicU64,
}

impl Tenant {
    fn new(label: &str) -> Self {
        Tenant {
            label: label.to_owned(),
            callbacks_max: AtomicU32::new(0),
            calls_max: AtomicU32::new(0),
            rate_max: AtomicU32::new(0),
            callbacks: CachePadded::new(AtomicU32::new(0)),
            refused: AtomicU64::new(0),
            calls_out: CachePadded::new(AtomicU32::new(0)),
            paid_ns: AtomicU64::new(0),
            callbacks_sent: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    fn set(&self, limits: TenantLimits) {
        self.callbacks_max.store(limits.callbacks_max, Relaxed);
        self.calls_max.store(limits.calls_max, Relaxed);
        if self.rate_max.swap(limits.rate_max, Relaxed) != limits.rate_max {
            self.paid_ns.store(0, Relaxed);
        }
    }

    /// A callback is to be made. The limit, if there is no room for it.
    pub fn take_callback(&self) -> Result<(), u32> {
        let limit = self.callbacks_max.load(Relaxed);
        let room = |count: u32| (limit == 0 || count < limit).then_some(count + 1);
        match self.callbacks.fetch_update(Relaxed, Relaxed, room) {
            Ok(_) => Ok(()),
            Err(_) => {
                self.refused.fetch_add(1, Relaxed);
                Err(limit)
            }
        }
    }

    /// A callback comes from another process, whatever the limit.
    #[cfg(feature = "checkpoint")]
    pub fn has_callback(&self) {
        self.callbacks.fetch_add(1, Relaxed);
    }

    /// It is gone.
    pub fn give_callback(&self) {
        self.callbacks.fetch_sub(1, Relaxed);
    }

    /// Sets aside what may be sent now, up to `wanted` callbacks, each in a call of its own at most: what one reactor has set
    /// aside no other one sends. To be [settled](Tenant::settle).
    pub fn set_aside(&self, now_ns: u64, wanted: usize) -> Share {
        let (calls, calls_counted) = match self.calls_max.load(Relaxed) {
            0 => (wanted as u32, 0),
            max => {
                let room = |out: u32| (wanted as u32).min(max.saturating_sub(out));
                let take = |out: u32| (room(out) > 0).then(|| out + room(out));
                let calls = self.calls_out.fetch_update(Relaxed, Relaxed, take).map_or(0, room);
                (calls, calls)
            }
        };
        let mut share = Share { callbacks: calls as usize, calls_counted, each_ns: 0 };
        if let Some(each_ns @ 1..) = S.checked_div(self.rate_max.load(Relaxed).into()) {
            let burst_ns = (S / BURSTS_PER_SECOND).max(each_ns);
            let room = |paid_ns: u64| {
                let ahead_ns = paid_ns.saturating_sub(now_ns);
                u64::from(calls).min(burst_ns.saturating_sub(ahead_ns) / each_ns)
            };
            let pay = |paid_ns: u64| {
                let callbacks = room(paid_ns);
                (callbacks > 0).then(|| paid_ns.max(now_ns).saturating_add(callbacks * each_ns))
            };
            share.callbacks = self.paid_ns.fetch_update(Relaxed, Relaxed, pay).map_or(0, room) as usize;
            share.each_ns = each_ns;
        }
        if share.callbacks == 0 && wanted > 0 {
            self.held_back.fetch_add(1, Relaxed);
        }
        share
    }

    /// So many callbacks were sent of what was set aside, or a few more: the rest of a batch. How many calls are out is
    /// [told](Tenant::count_out) before, so that it is never too low.
    pub fn settle(&self, now_ns: u64, share: Share, sent: usize) {
        self.calls_out.fetch_sub(share.calls_counted, Relaxed);
        self.callbacks_sent.fetch_add(sent as u64, Relaxed);
        let Share { callbacks, each_ns, .. } = share;
        let ns = |callbacks: usize| each_ns.saturating_mul(callbacks as u64);
        let pay = |paid_ns: u64| match sent.checked_sub(callbacks) {
            Some(0) => None,
            Some(more) => Some(paid_ns.max(now_ns).saturating_add(ns(more))),
            None => Some(paid_ns.saturating_sub(ns(callbacks - sent))),
        };
        if each_ns > 0 {
            let _ = self.paid_ns.fetch_update(Relaxed, Relaxed, pay);
        }
    }

    /// One of its clients has `now` calls out, and had `before`.
    pub fn count_out(&self, before: u32, now: u32) {
        self.calls_out.fetch_add(now.wrapping_sub(before), Relaxed);
    }

    fn report(&self, tenant: TenantId) -> TenantReport {
        TenantReport {
            tenant,
            label: self.label.clone(),
            limits: TenantLimits {
                callbacks_max: self.callbacks_max.load(Relaxed),
                calls_max: self.calls_max.load(Relaxed),
                rate_max: self.rate_max.load(Relaxed),
            },
            callbacks: self.callbacks.load(Relaxed),
            calls_out: self.calls_out.load(Relaxed),
            callbacks_sent: self.callbacks_sent.load(Relaxed),
            refused: self.refused.load(Relaxed),
            held_back: self.held_back.load(Relaxed),
        }
    }
}

/// What a reactor has set aside of what a tenant may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Callbacks that it may send.
    pub callbacks: usize,
    /// Calls that count as out meanwhile.
    calls_counted: u32,
    /// What a callback takes of the tenant's rate. 0: it has none.
    each_ns: u64,
}

/// All tenants but the default one, by their number less one.
pub(crate) struct Tenants {
    all: Box<[OnceLock<Tenant>]>,
    used: Mutex<u16>,
}

impl Tenants {
    pub fn new() -> Self {
        Tenants { all: (1..TENANTS_MAX).map(|_| OnceLock::new()).collect(), used: Mutex::new(0) }
    }

    /// `None`: the default one, which is not counted, or none.
    #[inline]
    pub fn get(&self, tenant: TenantId) -> Option<&Tenant> {
        let at = usize::from(tenant.0).checked_sub(1)?;
        self.all.get(at)?.get()
    }

    /// What was counted for them.
    pub fn reports(&self) -> Vec<TenantReport> {
        let report = |(at, tenant): (usize, &Tenant)| tenant.report(TenantId(at as u16 + 1));
        self.all.iter().map_while(OnceLock::get).enumerate().map(report).collect()
    }

    /// As a checkpoint holds them.
    #[cfg(feature = "checkpoint")]
    pub fn to_records(&self) -> Vec<TenantRecord> {
        let record = |report: TenantReport| TenantRecord {
            label: report.label,
            callbacks_max: report.limits.callbacks_max,
            calls_max: report.limits.calls_max,
            rate_max: report.limits.rate_max,
            refused: report.refused,
            callbacks_sent: report.callbacks_sent,
            held_back: report.held_back,
        };
        self.reports().into_iter().map(record).collect()
    }

    /// Those of another process, where there are none yet.
    #[cfg(feature = "checkpoint")]
    pub fn restore(&self, records: &[TenantRecord]) {
        for (place, record) in self.all.iter().zip(records) {
            let tenant = place.get_or_init(|| Tenant::new(&record.label));
            tenant.set(TenantLimits {
                callbacks_max: record.callbacks_max,
                calls_max: record.calls_max,
                rate_max: record.rate_max,
            });
            tenant.refused.store(record.refused, Relaxed);
            tenant.callbacks_sent.store(record.callbacks_sent, Relaxed);
            tenant.held_back.store(record.held_back, Relaxed);
        }
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = records.len() as u16;
    }

    fn is_known(&self, tenant: TenantId) -> bool {
        tenant.0 == 0 || self.get(tenant).is_some()
    }
}

impl Runtime {
    /// Makes a tenant. Its label is shown to who operates the server, and is that of no other one: asked again for the same one, it
    /// is given, with these limits.
    pub fn add_tenant(&self, label: &str, limits: TenantLimits) -> Result<TenantId, Error> {
        let tenants = &self.shared().tenants;
        let mut used = tenants.used.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (1..=*used).map(TenantId).find(|id| tenants.get(*id).is_some_and(|t| t.label == label));
        let id = known.unwrap_or(TenantId(*used + 1));
        let Some(place) = tenants.all.get(usize::from(id.0) - 1) else {
            return Err(Error::TenantsFull { limit: TENANTS_MAX });
        };
        place.get_or_init(|| Tenant::new(label)).set(limits);
        *used = (*used).max(id.0);
        Ok(id)
    }

    /// Other limits from now on. What exists and what is out stays; a rate begins anew.
    pub fn set_tenant_limits(&self, tenant: TenantId, limits: TenantLimits) -> Result<(), Error> {
        self.shared().tenants.get(tenant).ok_or(Error::NoSuchTenant)?.set(limits);
        Ok(())
    }

    /// [`Runtime::add_client`] of a tenant. It stays its client.
    pub fn add_client_of(&self, tenant: TenantId, near: Option<ConnectionId>) -> Result<ClientId, Error> {
        if !self.shared().tenants.is_known(tenant) {
            return Err(Error::NoSuchTenant);
        }
        self.register_client(tenant, near)
    }

    /// All tenants but the default one, with what was counted for them. Cheap, from any thread.
    pub fn tenants(&self) -> Vec<TenantReport> {
        self.shared().tenants.reports()
    }
}

impl Shared {
    /// The tenant of a client, if it is not the default one.
    #[inline]
    pub fn tenant_of(&self, client: &crate::registry::ClientShared) -> Option<&Tenant> {
        self.tenants.get(TenantId(client.tenant.load(Relaxed) as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_over_any_second_for_all_reactors_together() {
        for rate in [1, 7, 100, 1000] {
            let tenant = Tenant::new("a");
            tenant.set(TenantLimits::default().rate_max(rate));
            let mut seconds = vec![0; 10];
            for now_ns in (S..11 * S).step_by((S / 1000) as usize) {
                // Two reactors by turns.
                for _ in 0..2 {
                    let share = tenant.set_aside(now_ns, 3);
                    let other = tenant.set_aside(now_ns, 3);
                    // It has less to send than it may; the other one, nothing.
                    let count = share.callbacks.min(2);
                    tenant.settle(now_ns, share, count);
                    tenant.settle(now_ns, other, 0);
                    seconds[(now_ns / S) as usize - 1] += count;
                }
            }
            let (rate, burst) = (rate as usize, (rate as usize / 10).max(1));
            assert!(seconds.iter().all(|count| *count <= rate + burst), "{rate}: {seconds:?}");
            let total: usize = seconds.iter().sum();
            assert!((10 * rate - burst..=10 * rate + burst).contains(&total), "{rate}: {seconds:?}");
        }
    }

    #[test]
    fn what_one_reactor_has_set_aside_no_other_one_sends() {
        let tenant = Tenant::new("a");
        tenant.set(TenantLimits::default().calls_max(10));
        let [one, two, three] = [6, 6, 6].map(|wanted| tenant.set_aside(0, wanted));
        assert_eq!([one, two, three].map(|share| share.callbacks), [6, 4, 0]);
        // The first one sends two of its six, the others none.
        tenant.count_out(0, 2);
        for (share, sent) in [(one, 2), (two, 0), (three, 0)] {
            tenant.settle(0, share, sent);
        }
        assert_eq!((tenant.report(TenantId(1)).calls_out, tenant.report(TenantId(1)).held_back), (2, 1));
        assert_eq!(tenant.set_aside(0, 20).callbacks, 8);
    }

    #[test]
    fn a_batch_beyond_the_share_is_paid_for_later() {
        let tenant = Tenant::new("a");
        tenant.set(TenantLimits::default().rate_max(100));
        let share = tenant.set_aside(S, 50);
        assert_eq!(share.callbacks, 10, "a tenth of a second's");
        tenant.settle(S, share, 15);
        assert_eq!(tenant.set_aside(S + 50_000_000, 50).callbacks, 0);
        assert_eq!(tenant.set_aside(S + 60_000_000, 50).callbacks, 1);
    }

    #[test]
    fn callbacks_are_counted_up_to_the_limit_exactly() {
        let tenant = Tenant::new("a");
        tenant.set(TenantLimits::default().callbacks_max(3));
        assert_eq!(
            (0..5).map(|_| tenant.take_callback()).collect::<Vec<_>>(),
            [Ok(()), Ok(()), Ok(()), Err(3), Err(3)]
        );
        tenant.give_callback();
        assert_eq!((tenant.take_callback(), tenant.take_callback()), (Ok(()), Err(3)));
        assert_eq!(tenant.report(TenantId(1)).refused, 3);
    }
}
