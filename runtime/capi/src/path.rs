//! Clients of minor version 0, whom the runtime connects to.

use crate::client::{about, rb_security};
use crate::error::{Failure, guard, rb_error};
use crate::pointer::{self, User, Versioned, not_null};
use crate::{rb_client, rb_runtime, rb_session};
use ringback_rpc::nfs4::UniversalAddress;
use runtime::{CallbackAddress, ClientId, ConnectPolicy, PathConfig};
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

/// What SETCLIENTID (RFC 7530 section 16.33) says of its client's callbacks. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_path_options {
    /// sizeof(rb_path_options).
    pub size: usize,
    /// The callback program's number (cb_program).
    pub program: u32,
    /// Sent with each call (callback_ident).
    pub callback_ident: u32,
    /// How callbacks are authenticated: as the SETCLIENTID was.
    pub security: rb_security,
    /// The transport (r_netid): "tcp" or "tcp6". Null, with r_addr: the file server makes the connections, and is told by
    /// RB_EVENT_CONNECTION_WANTED when one is needed, which rb_bind() hands to the path.
    pub r_netid: *const u8,
    /// Its length.
    pub r_netid_bytes: usize,
    /// The universal address (r_addr).
    pub r_addr: *const u8,
    /// Its length.
    pub r_addr_bytes: usize,
    /// Where the SETCLIENTID came from: a struct sockaddr_in or sockaddr_in6, as getpeername() gives it.
    pub peer: *const u8,
    /// Its length.
    pub peer_bytes: usize,
    /// Most calls without an answer, 1 to 1024.
    pub window: u32,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_path_options {
    const NAME: &'static str = "rb_path_options";
}

impl rb_path_options {
    /// # Safety
    ///
    /// P2.
    unsafe fn address(&self) -> Result<CallbackAddress, Failure> {
        if self.r_netid.is_null() && self.r_addr.is_null() {
            return Ok(CallbackAddress::Supplied);
        }
        // SAFETY: P2
        let netid = unsafe { pointer::slice(self.r_netid, self.r_netid_bytes, "r_netid") }?;
        // SAFETY: P2
        let uaddr = unsafe { pointer::slice(self.r_addr, self.r_addr_bytes, "r_addr") }?;
        // SAFETY: P2
        let peer = unsafe { pointer::slice(self.peer, self.peer_bytes, "peer") }?;
        let invalid = |text: String| Failure::new(rb_error::RB_ERR_INVALID, text);
        let address = UniversalAddress::parse(netid, uaddr).map_err(|error| invalid(error.to_string()))?;
        let peer =
            socket_address(peer).ok_or_else(|| invalid("peer is no sockaddr_in and no sockaddr_in6".to_owned()))?;
        Ok(CallbackAddress::Connect { address: address.socket_address(), peer })
    }
}

/// AF_INET and AF_INET6, as Linux numbers them on all its architectures.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Reads a sockaddr_in or a sockaddr_in6 (ip(7), ipv6(7)).
fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match family {
        AF_INET => Some(SocketAddr::from((Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?), port))),
        AF_INET6 => {
            let ip = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
            let scope_id = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope_id)))
        }
        _ => None,
    }
}

/// The other way round.
fn socket_bytes(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(v4) => [&AF_INET.to_ne_bytes()[..], &port, &v4.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(v6) => {
            let scope_id = v6.scope_id().to_ne_bytes();
            [&AF_INET6.to_ne_bytes()[..], &port, &[0; 4], &v6.ip().octets(), &scope_id].concat()
        }
    }
}

/// Whether to connect to an address, for a client that is called from another one. The same as in the options, which the header
/// is made of.
type Allows = extern "C" fn(
    user: *mut c_void,
    address: *const u8,
    address_bytes: usize,
    peer: *const u8,
    peer_bytes: usize,
) -> c_int;

/// A policy that is a function of the embedder's.
pub fn asking(allows: Allows, user: *mut c_void) -> ConnectPolicy {
    let user = User(user);
    ConnectPolicy::Ask(Arc::new(move |address, peer| {
        // All of it, or the pointer alone would be taken along.
        let user: User = user;
        let (address, peer) = (socket_bytes(address), socket_bytes(peer));
        allows(user.0, address.as_ptr(), address.len(), peer.as_ptr(), peer.len()) == 1
    }))
}

/// SETCLIENTID of minor version 0: remembers what the client says of its callbacks, in the place of what it said and has not
/// confirmed, and names the path that this makes. Nobody is connected to before rb_confirm(). RB_ERR_INVALID for an
/// address that cannot be used or that rb_options.connect_policy does not allow; that is no reason to refuse the SETCLIENTID,
/// but such a client has no callbacks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_set_client_id(
    runtime: Option<&rb_runtime>,
    client: rb_client,
    options: *const rb_path_options,
    path: Option<&mut MaybeUninit<rb_session>>,
) -> c_int {
    guard("rb_set_client_id", about(client), || {
        let path = not_null(path, "path")?;
        path.write(rb_session::default());
        let runtime = not_null(runtime, "runtime")?;
        // SAFETY: P3
        let options = unsafe { pointer::read(options, "options") }?;
        let config = PathConfig {
            program: options.program,
            callback_ident: options.callback_ident,
            // SAFETY: P2
            security: unsafe { options.security.get() }?,
            // SAFETY: P2
            address: unsafe { options.address() }?,
            window: options.window,
        };
        path.write(runtime.runtime.set_client_id(ClientId::from_bits(client), config)?.into());
        Ok(0)
    })
}

/// SETCLIENTID_CONFIRM: the client is called back on this path from now on, and on no other one. RB_ERR_STALE if there has been
/// another SETCLIENTID since, or the path was confirmed already.
#[unsafe(no_mangle)]
pub extern "C" fn rb_confirm(runtime: Option<&rb_runtime>, path: rb_session) -> c_int {
    guard(
        "rb_confirm",
        || path.to_string(),
        || {
            not_null(runtime, "runtime")?.runtime.confirm(path.into())?;
            Ok(0)
        },
    )
}

/// 1 if RENEW is to be answered with NFS4ERR_CB_PATH_DOWN (RFC 7530 section 16.28), which a file server does for a client that
/// holds delegations. To ask counts as telling the client. Else, or for a client that is not registered, 0.
#[unsafe(no_mangle)]
pub extern "C" fn rb_is_path_down(runtime: Option<&rb_runtime>, client: rb_client) -> c_int {
    guard("rb_is_path_down", about(client), || {
        Ok(not_null(runtime, "runtime")?.runtime.is_path_down(ClientId::from_bits(client)).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_sockets_are_read() {
        let mut v4 = vec![0; 16];
        v4[..2].copy_from_slice(&AF_INET.to_ne_bytes());
        v4[2..8].copy_from_slice(&[3, 255, 192, 0, 2, 7]);
        assert_eq!(socket_address(&v4), Some("192.0.2.7:1023".parse().unwrap()));
        let mut v6 = vec![0; 28];
        v6[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
        v6[2..4].copy_from_slice(&[8, 1]);
        v6[8..10].copy_from_slice(&[0xfe, 0x80]);
        v6[23] = 1;
        v6[24..28].copy_from_slice(&3u32.to_ne_bytes());
        assert_eq!(socket_address(&v6), Some("[fe80::1%3]:2049".parse().unwrap()));
        v6[0] ^= 0x40;
        assert_eq!(socket_address(&v6), None);
        assert!((0..8).all(|len| socket_address(&v4[..len]).is_none()));
        for address in ["192.0.2.7:1023", "[fe80::1%3]:2049"] {
            let address: SocketAddr = address.parse().unwrap();
            let bytes = socket_bytes(address);
            assert_eq!(bytes.len(), if address.is_ipv4() { 16 } else { 28 }, "as large as the struct");
            assert_eq!(socket_address(&bytes), Some(address));
        }
    }
}
