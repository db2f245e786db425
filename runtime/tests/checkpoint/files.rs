//! Files that are whole, and files that are not.

use super::*;
use ringback::{BuildError, CheckpointError};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::io::Write;

/// A small checkpoint with something of everything.
fn sample() -> Vec<u8> {
    let (bed, mut stream) = Bed::new(builder(Backend::Epoll, 2), 3);
    bed.runtime.add_client(None).unwrap();
    let keys = insert_all(&bed.runtime, bed.client, 0..6);
    bed.start(&keys[..5], 3, &mut stream);
    let suspended = bed.runtime.suspend().unwrap();
    let mut bytes = Vec::new();
    suspended.checkpoint(&mut bytes).unwrap();
    suspended.leave();
    bytes
}

#[test]
fn a_truncated_file_is_refused_at_every_byte() {
    let bytes = sample();
    assert!(Checkpoint::from_bytes(&bytes).is_ok());
    for len in 0..bytes.len() {
        match Checkpoint::from_bytes(&bytes[..len]) {
            Err(CheckpointError::Truncated) => {}
            other => panic!("cut to {len} of {}: {other:?}", bytes.len()),
        }
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(Checkpoint::from_bytes(&longer), Err(CheckpointError::Corrupt { .. })));
}

#[test]
fn a_corrupted_file_is_refused_whichever_byte_it_is() {
    let bytes = sample();
    for at in 0..bytes.len() {
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 0x10;
        let read = Checkpoint::from_bytes(&spoilt);
        let refused = match at {
            0..8 => matches!(read, Err(CheckpointError::NotACheckpoint)),
            8..12 => matches!(read, Err(CheckpointError::Newer { newest: 1, .. })),
            // Padding of the head.
            12..16 => matches!(read, Err(CheckpointError::Corrupt { .. })),
            _ => matches!(read, Err(CheckpointError::Corrupt { .. } | CheckpointError::Truncated)),
        };
        assert!(refused, "byte {at}: {read:?}");
    }
}

#[test]
fn older_and_newer_formats_are_told_by_name() {
    let mut bytes = sample();
    bytes[8..12].copy_from_slice(&0u32.to_le_bytes());
    let error = Checkpoint::from_bytes(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "the checkpoint has format 0, and the oldest that this version reads is 1");
    bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
    let error = Checkpoint::from_bytes(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "the checkpoint has format 2, and the newest that this version reads is 1");
}

#[test]
fn a_runtime_that_is_configured_for_less_says_what_is_too_small() {
    let checkpoint = Checkpoint::from_bytes(&sample()).unwrap();
    let hooks = Arc::new(Counting::default());
    for (builder, name) in [
        (builder(Backend::Epoll, 1).callbacks_max(5), "callbacks_max"),
        (builder(Backend::Epoll, 1).clients_max(1), "clients_max"),
    ] {
        let built = builder.restore(&checkpoint).build(Arc::clone(&hooks) as _, Arc::new(Deaf));
        match built {
            Err(BuildError::Checkpoint(CheckpointError::TooSmall { name: told, .. })) => assert_eq!(told, name),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(hooks.of(0).done.len(), 0, "nothing ended for it");
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let directory = std::env::temp_dir().join(format!("ringback-checkpoint-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("callbacks");
    let (bed, _stream) = Bed::new(builder(Backend::Epoll, 2), 3);
    insert_all(&bed.runtime, bed.client, 0..100);
    let size = bed.runtime.checkpoint_to(&file).unwrap();
    assert_eq!((size.clients, size.callbacks, size.in_flight), (1, 100, 0));
    assert_eq!(Checkpoint::open(&file).unwrap().callbacks(), 100);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(bed.runtime.checkpoint_to(directory.join("no/such/directory")).is_err());
    assert!(Checkpoint::open(directory.join("nothing")).is_err());
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing is left beside it");
    std::fs::remove_dir_all(&directory).unwrap();
}

fn sealed(bytes: &[u8]) -> std::os::fd::OwnedFd {
    let fd = memfd_create("checkpoint", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).unwrap();
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW).unwrap();
    file.into()
}

/// What is allocated to open a checkpoint depends on its clients, and not on its entries.
#[test]
fn entries_are_opened_without_a_copy() {
    let allocated = |callbacks: u64| {
        let (bed, _stream) = Bed::new(builder(Backend::Epoll, 1), 1);
        insert_all(&bed.runtime, bed.client, 0..callbacks);
        let mut bytes = Vec::new();
        bed.runtime.checkpoint(&mut bytes).unwrap();
        assert!(bytes.len() as u64 > 32 * callbacks);
        let file = sealed(&bytes);
        let mut opened = None;
        let info = allocation_counter::measure(|| opened = Some(Checkpoint::from_fd(file).unwrap()));
        let opened = opened.unwrap();
        assert!(opened.is_mapped());
        assert_eq!(opened.callbacks(), callbacks);
        (info.count_total, info.bytes_total)
    };
    let (few, many) = (allocated(10), allocated(200_000));
    // A chunk for each 65,536 of them is remembered.
    assert!(many.0 <= few.0 + 8 && many.1 <= few.1 + 4096, "{few:?} {many:?}");
}
