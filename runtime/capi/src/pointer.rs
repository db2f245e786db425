//! What comes over the edge as a pointer. Everything that is unsafe about the arguments of functions is here.

use crate::error::{Failure, rb_error};
use std::ffi::{CStr, OsStr, c_char};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn null(what: &str) -> Failure {
    Failure::new(rb_error::RB_ERR_NULL, format!("{what} is null"))
}

/// A pointer that must not be null.
pub fn not_null<T>(pointer: Option<T>, what: &str) -> Result<T, Failure> {
    pointer.ok_or_else(|| null(what))
}

/// Hands a new handle out.
pub fn give<T>(to: &mut MaybeUninit<*mut T>, value: T) {
    to.write(Box::into_raw(Box::new(value)));
}

/// Takes a handle back, and clears the caller's.
///
/// # Safety
///
/// P1: the handle was given by [`give`] or as a pointer from [`Box::into_raw`], and not taken since.
pub unsafe fn take<T>(handle: Option<&mut *mut T>, what: &str) -> Result<Box<T>, Failure> {
    let handle = not_null(handle, what)?;
    let pointer = std::mem::replace(handle, std::ptr::null_mut());
    if pointer.is_null() {
        return Err(Failure::new(
            rb_error::RB_ERR_NULL,
            format!("{what} is null: it was never made, or given up before"),
        ));
    }
    // SAFETY: by P1 the pointer is a box's, and the caller's copy of it is gone.
    Ok(unsafe { Box::from_raw(pointer) })
}

/// Elements of the caller.
///
/// # Safety
///
/// P2.
pub unsafe fn slice<'a, T>(pointer: *const T, count: usize, what: &str) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(what));
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) || !pointer.is_aligned() {
        return Err(Failure::new(rb_error::RB_ERR_INVALID, format!("{what}: no memory has {count} elements there")));
    }
    // SAFETY: not null, aligned and not too long; the rest is P2.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// A string of the caller.
///
/// # Safety
///
/// P2, for a string that ends with a zero.
pub unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a CStr, Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: not null; the rest is P2.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

/// A file that the caller names.
///
/// # Safety
///
/// P2, for a string that ends with a zero.
pub unsafe fn path<'a>(pointer: *const c_char, what: &str) -> Result<&'a Path, Failure> {
    // SAFETY: P2, as here.
    let name = unsafe { text(pointer, what) }?;
    Ok(Path::new(OsStr::from_bytes(name.to_bytes())))
}

/// Place for elements of the caller.
///
/// # Safety
///
/// P2, and nobody else looks at them.
pub unsafe fn slice_out<'a, T>(pointer: *mut T, count: usize, what: &str) -> Result<&'a mut [MaybeUninit<T>], Failure> {
    // SAFETY: P2, as here.
    unsafe { slice(pointer.cast_const(), count, what) }?;
    if count == 0 {
        return Ok(&mut []);
    }
    // SAFETY: `slice` has checked what can be checked; the rest is P2.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), count) })
}

/// Copies bytes to the caller, if there is room for all of them.
///
/// # Safety
///
/// P2, and nobody else looks at them.
pub unsafe fn put(from: &[u8], to: *mut u8, room: usize, what: &str) -> Result<(), Failure> {
    // SAFETY: P2, as here.
    let place = unsafe { slice_out(to, room, what) }?;
    let Some(place) = place.get_mut(..from.len()) else {
        let text = format!("{what} has place for {room} bytes, {} are needed", from.len());
        return Err(Failure::new(rb_error::RB_ERR_NO_SPACE, text));
    };
    place.write_copy_of_slice(from);
    Ok(())
}

/// A struct that begins with its size, and for which all bytes zero is a value.
///
/// # Safety
///
/// `repr(C)`; a `usize` comes first; integers, pointers, and options of function pointers follow.
pub unsafe trait Versioned: Copy {
    /// How large the struct was in the first version of the interface: no program has a smaller one.
    const BYTES_MIN: usize = size_of::<Self>();
    /// Its name.
    const NAME: &'static str;
}

fn wrong_size(name: &str, size: usize, min: usize, max: usize) -> Failure {
    let text = format!("{name}.size is {size}: set it to sizeof({name}), which is {min} to {max} here");
    Failure::new(rb_error::RB_ERR_SIZE, text)
}

/// Reads a sized struct. What an older caller does not have is zero; what a newer one has in addition must be zero.
///
/// # Safety
///
/// P3.
pub unsafe fn read<T: Versioned>(pointer: *const T, what: &str) -> Result<T, Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    if !pointer.is_aligned() {
        return Err(Failure::new(rb_error::RB_ERR_INVALID, format!("{what} is not aligned")));
    }
    // SAFETY: P3: the size comes first.
    let size = unsafe { pointer.cast::<usize>().read() };
    // Nobody has a struct of a page: a size that was not set is more likely.
    if size < T::BYTES_MIN || size > size_of::<T>().max(4096) {
        return Err(wrong_size(T::NAME, size, T::BYTES_MIN, size_of::<T>()));
    }
    // SAFETY: P3: as many bytes as the size says are there.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size) };
    let known = size.min(size_of::<T>());
    if bytes[known..].iter().any(|byte| *byte != 0) {
        return Err(wrong_size(T::NAME, size, T::BYTES_MIN, size_of::<T>()));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are there on both sides, which do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast::<u8>(), known) };
    // SAFETY: `Versioned`: zeroes are a value, and every other bit of one is a bit of the caller's.
    Ok(unsafe { value.assume_init() })
}

/// Writes a sized struct, as much of it as the caller has. The caller's size stays.
///
/// # Safety
///
/// P3, and [`read`] has accepted the pointer.
pub unsafe fn write<T: Versioned>(pointer: *mut T, value: &T) {
    // SAFETY: P3: the size comes first.
    let size = unsafe { pointer.cast::<usize>().read() };
    let (head, known) = (size_of::<usize>(), size.min(size_of::<T>()));
    // SAFETY: within the caller's struct and within ours; the ranges do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(value).cast::<u8>().wrapping_add(head),
            pointer.cast::<u8>().wrapping_add(head),
            known - head,
        );
    }
}

/// Fills a sized struct of the caller.
///
/// # Safety
///
/// P3.
pub unsafe fn fill<T: Versioned>(
    pointer: *mut T,
    what: &str,
    value: impl FnOnce(T) -> Result<T, Failure>,
) -> Result<(), Failure> {
    // SAFETY: P3.
    let old = unsafe { read(pointer.cast_const(), what) }?;
    let new = value(old)?;
    // SAFETY: P3, and `read` has accepted it.
    unsafe { write(pointer, &new) };
    Ok(())
}

/// A pointer of the caller's that is passed on and never looked at.
#[derive(Clone, Copy, Debug)]
pub struct User(pub *mut std::ffi::c_void);

// SAFETY: it is a number to us: what it points at is the caller's, who is told from which threads it comes back.
unsafe impl Send for User {}
// SAFETY: as for `Send`.
unsafe impl Sync for User {}
