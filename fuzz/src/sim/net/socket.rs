//! The descriptors of lines: one end of a real socket each, so that it can go from process to process. Nothing is ever sent on
//! it; the other end shows whether anybody still has it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

/// The other end.
#[derive(Debug)]
pub(super) struct Far(UnixStream);

/// Both ends.
pub(super) fn pair() -> (Far, OwnedFd) {
    let (far, near) = UnixStream::pair().expect("there are descriptors enough");
    far.set_nonblocking(true).expect("a socket is");
    (Far(far), near.into())
}

/// What tells it from others, however often it was duplicated.
pub(super) fn identity(descriptor: OwnedFd) -> (u64, OwnedFd) {
    let file = File::from(descriptor);
    let number = file.metadata().expect("it is open").ino();
    (number, file.into())
}

impl Far {
    /// Whether nobody has the descriptor any more.
    pub(super) fn is_alone(&self) -> bool {
        match (&self.0).read(&mut [0]) {
            Ok(0) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }
}
