//! The memory that a checkpoint is read from. A file in memory that its writer has sealed cannot change any more: it is
//! mapped. What anybody might change meanwhile is read.
#![allow(unsafe_code)]

use super::format::ALIGNMENT;
use rkyv::util::AlignedVec;
use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::ptr;

/// Bytes that do not change, aligned for what a checkpoint holds.
pub(super) enum Bytes {
    Read(AlignedVec<ALIGNMENT>),
    Mapped(Mapping),
}

impl Bytes {
    /// A copy.
    pub fn copied(bytes: &[u8]) -> Self {
        let mut copy = AlignedVec::with_capacity(bytes.len());
        copy.extend_from_slice(bytes);
        Bytes::Read(copy)
    }

    /// What is in a file.
    pub fn of_file(mut file: File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if len > 0
            && let Some(mapping) = Mapping::of_sealed(&file, len)?
        {
            return Ok(Bytes::Mapped(mapping));
        }
        let mut bytes = AlignedVec::with_capacity(len);
        bytes.extend_from_reader(&mut Read::by_ref(&mut file).take(len as u64))?;
        Ok(Bytes::Read(bytes))
    }

    /// Whether the file was mapped.
    pub fn is_mapped(&self) -> bool {
        matches!(self, Bytes::Mapped(_))
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Read(bytes) => bytes,
            Bytes::Mapped(mapping) => mapping.bytes(),
        }
    }
}

/// A sealed file, mapped as a whole.
pub(super) struct Mapping {
    address: *mut std::ffi::c_void,
    len: usize,
}

impl Mapping {
    /// `None`: the file can still change.
    fn of_sealed(file: &File, len: usize) -> io::Result<Option<Self>> {
        let fixed = SealFlags::WRITE | SealFlags::SHRINK;
        // Only files in memory have seals.
        if !rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(fixed)) {
            return Ok(None);
        }
        // SAFETY: a new mapping, at an address that the kernel chooses, aliases nothing.
        let address = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file.as_fd(), 0) }?;
        Ok(Some(Mapping { address, len }))
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is of this length, was no longer than the file and is there until `drop`, which no borrow of
        // `self` outlives. The seals, which cannot be taken off again, keep the file as long as it is and its bytes what
        // they are.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.len) }
    }
}

// SAFETY: it is read-only memory that belongs to nobody else.
unsafe impl Send for Mapping {}
// SAFETY: as above: nobody writes it.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: a whole mapping of ours, and nobody borrows it any more.
        let unmapped = unsafe { munmap(self.address, self.len) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
