//! Tenants: who shares a server and must not be served at each other's cost.

use crate::error::guard;
use crate::pointer::{self, Versioned, not_null};
use crate::{rb_client, rb_connection, rb_runtime};
use runtime::{Error, TenantId, TenantLimits};
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

/// What a tenant may have, all of its clients together; 0: any number. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_tenant_limits {
    /// sizeof(rb_tenant_limits).
    pub size: usize,
    /// Callbacks that exist; beyond, rb_insert() answers RB_ERR_FULL.
    pub callbacks_max: u32,
    /// Calls that are out at once; the rest waits.
    pub calls_max: u32,
    /// Callbacks sent per second; a tenth of it may go at once.
    pub rate_max: u32,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_tenant_limits {
    const NAME: &'static str = "rb_tenant_limits";
}

impl From<rb_tenant_limits> for TenantLimits {
    fn from(limits: rb_tenant_limits) -> Self {
        let callbacks = TenantLimits::default().callbacks_max(limits.callbacks_max);
        callbacks.calls_max(limits.calls_max).rate_max(limits.rate_max)
    }
}

/// What was counted for a tenant. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_tenant_stats {
    /// sizeof(rb_tenant_stats).
    pub size: usize,
    /// Callbacks that exist.
    pub callbacks: u32,
    /// Calls that are not settled.
    pub calls_out: u32,
    /// Callbacks sent.
    pub callbacks_sent: u64,
    /// Callbacks that were refused because there were as many as there may be.
    pub refused: u64,
    /// Times that a client had something to send and was held back.
    pub held_back: u64,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_tenant_stats {
    const NAME: &'static str = "rb_tenant_stats";
}

/// Makes a tenant with a label of its own, which metrics show; asked again for the same label, gives it these limits. Tenants are
/// numbered from 1; 0 is the one of clients without, which has no limits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_add_tenant(
    runtime: Option<&rb_runtime>,
    label: *const c_char,
    limits: *const rb_tenant_limits,
    tenant: Option<&mut MaybeUninit<u16>>,
) -> c_int {
    guard("rb_add_tenant", String::new, || {
        let tenant = not_null(tenant, "tenant")?;
        tenant.write(0);
        let runtime = not_null(runtime, "runtime")?;
        // SAFETY: P2, for a string that ends with a zero.
        let label = unsafe { pointer::text(label, "label") }?.to_string_lossy();
        // SAFETY: P3
        let limits = unsafe { pointer::read(limits, "limits") }?;
        tenant.write(runtime.runtime.add_tenant(&label, limits.into())?.to_bits());
        Ok(0)
    })
}

/// Other limits from now on. What exists and what is out stays; a rate begins anew.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_set_tenant_limits(
    runtime: Option<&rb_runtime>,
    tenant: u16,
    limits: *const rb_tenant_limits,
) -> c_int {
    let about = || format!("tenant {tenant}");
    guard("rb_set_tenant_limits", about, || {
        let runtime = not_null(runtime, "runtime")?;
        // SAFETY: P3
        let limits = unsafe { pointer::read(limits, "limits") }?;
        runtime.runtime.set_tenant_limits(TenantId::from_bits(tenant), limits.into())?;
        Ok(0)
    })
}

/// What was counted for a tenant so far; the one numbered 0 is not counted. Cheap, from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_get_tenant_stats(
    runtime: Option<&rb_runtime>,
    tenant: u16,
    stats: *mut rb_tenant_stats,
) -> c_int {
    let about = || format!("tenant {tenant}");
    guard("rb_get_tenant_stats", about, || {
        let runtime = not_null(runtime, "runtime")?;
        let fill = |old: rb_tenant_stats| {
            let tenants = runtime.runtime.tenants();
            let now = tenants.iter().find(|report| report.tenant.to_bits() == tenant).ok_or(Error::NoSuchTenant)?;
            Ok(rb_tenant_stats {
                size: old.size,
                callbacks: now.callbacks,
                calls_out: now.calls_out,
                callbacks_sent: now.callbacks_sent,
                refused: now.refused,
                held_back: now.held_back,
            })
        };
        // SAFETY: P3
        unsafe { pointer::fill(stats, "stats", fill) }?;
        Ok(0)
    })
}

/// rb_add_client() of a tenant. It stays its client.
#[unsafe(no_mangle)]
pub extern "C" fn rb_add_client_of(
    runtime: Option<&rb_runtime>,
    tenant: u16,
    near_connection: rb_connection,
    client: Option<&mut MaybeUninit<rb_client>>,
) -> c_int {
    let about = || format!("tenant {tenant}");
    guard("rb_add_client_of", about, || {
        let client = not_null(client, "client")?;
        client.write(0);
        let runtime = not_null(runtime, "runtime")?;
        let near = (near_connection != 0).then(|| runtime.connection(near_connection)).transpose()?;
        client.write(runtime.runtime.add_client_of(TenantId::from_bits(tenant), near)?.to_bits());
        Ok(0)
    })
}
