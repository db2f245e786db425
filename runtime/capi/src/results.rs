//! Results of the callback operations: only CB_GETATTR has more than a status.

use crate::args::rb_bitmap;
use crate::connection::rb_bytes;
use crate::error::{Failure, guard, rb_error};
use crate::pointer::{self, Versioned};
use ringback_rpc::nfs4::{Bitmap4, Fattr, NfsTime4};
use ringback_rpc::xdr::{Decode, Reader};
use std::ffi::c_int;

/// Attribute numbers of what is taken apart here (RFC 8881 section 5, RFC 9754 section 5.2).
const CHANGE: u32 = 3;
const SIZE: u32 = 4;
const TIME_DELEG_ACCESS: u32 = 84;
const TIME_DELEG_MODIFY: u32 = 85;

/// A time (RFC 8881 section 3.3.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct rb_time {
    /// Seconds since 1970-01-01, 0:00 UTC.
    pub seconds: i64,
    /// Nanoseconds.
    pub nseconds: u32,
    /// 0.
    pub reserved: u32,
}

impl From<NfsTime4> for rb_time {
    fn from(time: NfsTime4) -> Self {
        rb_time { seconds: time.seconds, nseconds: time.nseconds, reserved: 0 }
    }
}

/// What a client says of a file that it has delegated. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_attributes {
    /// sizeof(rb_attributes).
    pub size: usize,
    /// Which attributes the client has sent.
    pub mask: rb_bitmap,
    /// Their values as they came, within what was decoded.
    pub values: rb_bytes,
    /// 1 if `change` was sent.
    pub has_change: i32,
    /// 1 if `file_size` was sent.
    pub has_file_size: i32,
    /// 1 if `time_deleg_access` was sent.
    pub has_time_deleg_access: i32,
    /// 1 if `time_deleg_modify` was sent.
    pub has_time_deleg_modify: i32,
    /// change: differs from what it was when the delegation was given if the client has modified the file.
    pub change: u64,
    /// size.
    pub file_size: u64,
    /// time_deleg_access.
    pub time_deleg_access: rb_time,
    /// time_deleg_modify.
    pub time_deleg_modify: rb_time,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_attributes {
    const NAME: &'static str = "rb_attributes";
}

/// Decodes the results of a CB_GETATTR that was answered with NFS4_OK. Attributes behind one that is not known here are in
/// `values` alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_decode_getattr(
    results: *const u8,
    results_bytes: usize,
    attributes: *mut rb_attributes,
) -> c_int {
    guard("rb_decode_getattr", String::new, || {
        // SAFETY: P2
        let bytes = unsafe { pointer::slice(results, results_bytes, "results") }?;
        // SAFETY: P3
        unsafe { pointer::fill(attributes, "attributes", |told| decode(bytes, told)) }?;
        Ok(0)
    })
}

fn decode(bytes: &[u8], told: rb_attributes) -> Result<rb_attributes, Failure> {
    let xdr = |error| Failure::new(rb_error::RB_ERR_XDR, format!("{error}"));
    let found = Fattr::decode(&mut Reader::new(bytes)).map_err(xdr)?;
    let mut words = [0; 8];
    for bit in found.mask.iter() {
        words[(bit / 32) as usize] |= 1 << (bit % 32);
    }
    let mut told = rb_attributes {
        size: told.size,
        mask: rb_bitmap { words },
        values: rb_bytes { data: found.values.as_ptr(), count: found.values.len() },
        has_change: 0,
        has_file_size: 0,
        has_time_deleg_access: 0,
        has_time_deleg_modify: 0,
        change: 0,
        file_size: 0,
        time_deleg_access: rb_time::default(),
        time_deleg_modify: rb_time::default(),
    };
    values(&found.mask, Reader::new(found.values), &mut told).map_err(xdr)?;
    Ok(told)
}

fn values(mask: &Bitmap4, mut r: Reader<'_>, told: &mut rb_attributes) -> ringback_rpc::xdr::Result<()> {
    for bit in mask.iter() {
        match bit {
            CHANGE => (told.change, told.has_change) = (r.u64("change")?, 1),
            SIZE => (told.file_size, told.has_file_size) = (r.u64("size")?, 1),
            TIME_DELEG_ACCESS => {
                (told.time_deleg_access, told.has_time_deleg_access) = (NfsTime4::decode(&mut r)?.into(), 1);
            }
            TIME_DELEG_MODIFY => {
                (told.time_deleg_modify, told.has_time_deleg_modify) = (NfsTime4::decode(&mut r)?.into(), 1);
            }
            // How long its value is, is not known.
            _ => break,
        }
    }
    Ok(())
}
