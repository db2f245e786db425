//! The checker of tenants: what each has is what the model counts itself, and no more than its limits say.

use super::coverage::Kind;
use super::journal::{Journal, Rule};
use super::plant::{Plant, Planted};
use ringback::{TenantId, TenantLimits, TenantReport};

const S: u64 = 1_000_000_000;

/// Callbacks that may go beyond a rate at once: the rest of a batch.
const BATCH_MAX: u64 = 64;

/// One tenant, as the model knows it.
#[derive(Debug)]
struct Tenant {
    id: TenantId,
    label: String,
    limits: TenantLimits,
    /// The most calls that it was ever allowed, and with `None` any number: what was sent before a limit is out yet.
    calls_most: Option<u32>,
    /// Callbacks that exist, and that were refused.
    existing: u32,
    refused: u64,
    /// When all that was sent so far would have been sent at its rate.
    paid_ns: u64,
}

/// See the [module](self).
pub(crate) struct Tenants {
    journal: Journal,
    planted: Planted,
    all: Vec<Tenant>,
}

impl Tenants {
    pub(crate) fn new(journal: Journal, plant: Plant) -> Self {
        Tenants { journal, planted: Planted::new(plant), all: Vec::new() }
    }

    /// A tenant has come.
    pub(crate) fn add(&mut self, id: TenantId, label: String, limits: TenantLimits) {
        let calls_most = (limits.calls_max > 0).then_some(limits.calls_max);
        self.all.push(Tenant { id, label, limits, calls_most, existing: 0, refused: 0, paid_ns: 0 });
    }

    /// It has other limits.
    pub(crate) fn set(&mut self, at: usize, limits: TenantLimits) {
        let tenant = &mut self.all[at];
        if tenant.limits.rate_max != limits.rate_max {
            tenant.paid_ns = 0;
        }
        tenant.calls_most = tenant.calls_most.filter(|_| limits.calls_max > 0).map(|most| most.max(limits.calls_max));
        tenant.limits = limits;
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn id(&self, at: usize) -> TenantId {
        self.all[at].id
    }

    /// Its limit, if it has as many callbacks as it may.
    pub(crate) fn full(&self, at: Option<usize>) -> Option<u32> {
        let tenant = &self.all[at?];
        let max = tenant.limits.callbacks_max;
        (max > 0 && tenant.existing >= max).then_some(max)
    }

    pub(crate) fn refused(&mut self, at: usize) {
        self.journal.reach(Kind::InsertTenantFull);
        self.all[at].refused += 1;
    }

    /// So many callbacks of it more exist, or fewer.
    pub(crate) fn count(&mut self, at: Option<usize>, more: i32) {
        if let Some(at) = at {
            self.all[at].existing = self.all[at].existing.wrapping_add_signed(more);
        }
    }

    /// The most calls that may be out.
    pub(crate) fn calls_most(&self, at: usize) -> Option<u32> {
        self.all[at].calls_most
    }

    /// A run of it is sent for the first time.
    pub(crate) fn sent(&mut self, at: usize) {
        let now_ns = self.journal.now_ns();
        let tenant = &mut self.all[at];
        let Some(each_ns) = S.checked_div(tenant.limits.rate_max.into()) else { return };
        tenant.paid_ns = tenant.paid_ns.max(now_ns) + each_ns;
        let ahead_ns = tenant.paid_ns - now_ns;
        let most_ns = (S / 10).max(each_ns) + BATCH_MAX * each_ns;
        self.journal
            .check(Rule::Limits, ahead_ns <= most_ns, || format!("{ahead_ns} ns ahead of its rate: {tenant:?}"));
    }

    /// What the runtime tells of them.
    pub(crate) fn check(&self, mut reports: Vec<TenantReport>) {
        if let Some(report) = reports.first_mut().filter(|_| self.planted.strikes(Plant::MiscountTenant)) {
            report.callbacks += 1;
        }
        let same = |(tenant, report): (&Tenant, &TenantReport)| {
            if report.held_back > 0 {
                self.journal.reach(Kind::TenantHeldBack);
            }
            let limits = self.planted.loosen(tenant.limits) == report.limits;
            let counts = (report.callbacks, report.refused) == (tenant.existing, tenant.refused);
            limits && counts && (report.tenant, &report.label) == (tenant.id, &tenant.label)
        };
        let right = reports.len() == self.all.len() && self.all.iter().zip(&reports).all(same);
        self.journal.check(Rule::Limits, right, || format!("{:?} are told as {reports:?}", self.all));
    }

    /// All is well, and nothing is out.
    pub(crate) fn check_rest(&self, reports: &[TenantReport]) {
        let none = reports.iter().all(|report| report.calls_out == 0);
        self.journal.check(Rule::Limits, none, || format!("nothing is out, and {reports:?}"));
    }
}

impl Planted {
    /// What the runtime is told of the limits of a tenant.
    pub(crate) fn loosen(&self, limits: TenantLimits) -> TenantLimits {
        match self.plant {
            Plant::LooseCalls => limits.calls_max(limits.calls_max * 4),
            Plant::LooseRate => limits.rate_max(limits.rate_max * 20),
            _ => limits,
        }
    }
}
