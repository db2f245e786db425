//! What both back ends do to a socket when they take it over and when they let it go.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};

use super::IoCounters;

/// Checks that an embedder's descriptor is a stream socket, and lets small segments leave at once.
pub(super) fn prepare(socket: &OwnedFd, counters: &mut IoCounters) -> io::Result<()> {
    counters.syscalls += 3;
    // What an embedder has accepted is not for programs that it starts.
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::CLOEXEC)?;
    if sockopt::socket_type(socket)? != SocketType::STREAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a connection must be a stream socket"));
    }
    // Other stream sockets than TCP's have no such option, and need none.
    let _ = sockopt::set_tcp_nodelay(socket, true);
    Ok(())
}

/// A stream socket of the kind of an address, not connected.
pub(super) fn open(address: &SocketAddr, flags: SocketFlags, counters: &mut IoCounters) -> io::Result<OwnedFd> {
    counters.syscalls += 1;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None)?;
    prepare(&socket, counters)?;
    Ok(socket)
}

/// Ends both directions: whatever is in flight on the socket completes soon. What the kernel took is still delivered.
pub(super) fn shutdown(socket: impl AsFd, counters: &mut IoCounters) {
    counters.syscalls += 1;
    // The only answer to a connected stream socket is that it is not connected any more.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

/// Closes the descriptor.
pub(super) fn close(socket: OwnedFd, counters: &mut IoCounters) {
    counters.syscalls += 1;
    drop(socket);
}
