//! Clients of minor version 0: what SETCLIENTID says of their callback program, and to where connections may be made.

use crate::Error;
use crate::command::Command;
use crate::keys::{ClientId, SessionKey};
use crate::runtime::Runtime;
use crate::session::{Security, in_range};
use ringback_rpc::backchannel::PathParams;
use ringback_rpc::nfs4::fore::seq4_status;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};

/// What a client says of its callbacks in SETCLIENTID (RFC 7530 section 16.33).
///
/// # Examples
///
/// ```
/// use ringback::{CallbackAddress, PathConfig, Security};
/// use ringback_rpc::nfs4::fore::SetClientIdArgs;
/// use ringback_rpc::nfs4::{UniversalAddress, UniversalAddressError};
/// use std::net::SocketAddr;
///
/// /// `peer` is where the connection of the SETCLIENTID comes from.
/// fn path_of(args: &SetClientIdArgs<'_>, peer: SocketAddr) -> Result<PathConfig, UniversalAddressError> {
///     let location = args.callback.location;
///     let address = UniversalAddress::parse(location.netid(), location.address())?.socket_address();
///     Ok(PathConfig {
///         program: args.callback.program,
///         callback_ident: args.callback_ident,
///         security: Security::Sys { stamp: 0, machine_name: b"server".to_vec(), uid: 0, gid: 0, gids: vec![] },
///         address: CallbackAddress::Connect { address, peer },
///         window: 16,
///     })
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathConfig {
    /// The callback program's number (cb_program).
    pub program: u32,
    /// Sent with each call (callback_ident): clients refuse any other.
    pub callback_ident: u32,
    /// How callbacks are authenticated: as the client was in SETCLIENTID. The CB_NULL that looks whether the path works has
    /// AUTH_NONE.
    pub security: Security,
    /// Where the client is to be found.
    pub address: CallbackAddress,
    /// Most calls without an answer, 1 to 1024. Minor version 0 knows no limit; a client serves a few at a time.
    pub window: u32,
}

/// Who makes the connections to a client of minor version 0.
///
/// # Examples
///
/// ```
/// use ringback::CallbackAddress;
/// use std::net::TcpStream;
///
/// /// For a server that lets the runtime connect.
/// fn of(address: std::net::SocketAddr, from: &TcpStream) -> std::io::Result<CallbackAddress> {
///     Ok(CallbackAddress::Connect { address, peer: from.peer_addr()? })
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallbackAddress {
    /// The runtime does, if its [policy](ConnectPolicy) allows it.
    Connect {
        /// Where the callback program is (cb_location), over TCP.
        address: SocketAddr,
        /// Where the SETCLIENTID came from.
        peer: SocketAddr,
    },
    /// The embedder does: [`Event::ConnectionWanted`](crate::Event::ConnectionWanted) tells when one is needed, and
    /// [`Runtime::bind`] hands it to the path.
    Supplied,
}

/// To where the runtime connects. Whatever it is, never to port 0, nor to a multicast, broadcast or unspecified address.
///
/// # Examples
///
/// ```
/// use ringback::{Builder, ConnectPolicy};
/// use std::sync::Arc;
///
/// // Clients behind a load balancer: the address is never that of their connection, but of one network.
/// let policy = ConnectPolicy::Ask(Arc::new(|address, _peer| match address.ip() {
///     std::net::IpAddr::V4(ip) => ip.octets()[..2] == [10, 7],
///     std::net::IpAddr::V6(_) => false,
/// }));
/// let builder = Builder::new().connect_policy(policy);
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum ConnectPolicy {
    /// To the address that the client's own connection comes from, so that a client cannot aim the server at others.
    #[default]
    Peer,
    /// To any address.
    Any,
    /// To none: the embedder supplies all sockets.
    Nowhere,
    /// To those for which the function says `true`: it is given the address, and where the SETCLIENTID came from.
    Ask(Arc<dyn Fn(SocketAddr, SocketAddr) -> bool + Send + Sync>),
}

impl fmt::Debug for ConnectPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnectPolicy::Peer => "Peer",
            ConnectPolicy::Any => "Any",
            ConnectPolicy::Nowhere => "Nowhere",
            ConnectPolicy::Ask(_) => "Ask",
        })
    }
}

impl ConnectPolicy {
    /// The address to connect to, if that is allowed: one of IPv4 that was written as one of IPv6 is one of IPv4, and a
    /// scope, for which universal addresses have no place, is that of the peer.
    fn admit(&self, address: SocketAddr, peer: SocketAddr) -> Option<SocketAddr> {
        let (ip, peer_ip) = (address.ip().to_canonical(), peer.ip().to_canonical());
        let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() || is_broadcast {
            return None;
        }
        let admitted = match (ip, peer) {
            (IpAddr::V6(v6), SocketAddr::V6(peer)) if v6 == *peer.ip() => {
                SocketAddr::V6(SocketAddrV6::new(v6, address.port(), 0, peer.scope_id()))
            }
            _ => SocketAddr::new(ip, address.port()),
        };
        let is_allowed = match self {
            ConnectPolicy::Peer => ip == peer_ip,
            ConnectPolicy::Any => true,
            ConnectPolicy::Nowhere => false,
            ConnectPolicy::Ask(allows) => allows(admitted, peer),
        };
        is_allowed.then_some(admitted)
    }
}

/// A path that may be confirmed.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    path: SessionKey,
    params: Box<PathParams>,
    /// `None`: the embedder supplies the sockets.
    address: Option<SocketAddr>,
}

/// Paths of clients that have not confirmed them, by the clients' places in their table: one of each, as a later SETCLIENTID
/// takes the place of an earlier one. No reactor looks here.
#[derive(Debug, Default)]
pub(crate) struct UnconfirmedPaths(Mutex<HashMap<u32, Unconfirmed>>);

impl UnconfirmedPaths {
    fn put(&self, path: Unconfirmed) {
        self.lock().insert(path.path.client.index, path);
    }

    fn take(&self, path: SessionKey) -> Option<Unconfirmed> {
        let mut paths = self.lock();
        let found = paths.get(&path.client.index).is_some_and(|known| known.path == path);
        if found { paths.remove(&path.client.index) } else { None }
    }

    /// The client is gone.
    pub fn forget(&self, client: ClientId) {
        let mut paths = self.lock();
        if paths.get(&client.index).is_some_and(|known| known.path.client == client) {
            paths.remove(&client.index);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Unconfirmed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime {
    /// SETCLIENTID of minor version 0 (RFC 7530 section 16.33): remembers what the client says of its callbacks, in the place
    /// of what it said and has not confirmed, and names the path that this makes. Nothing is sent, and nobody is connected
    /// to, before [`Runtime::confirm`]. [`Error::AddressRefused`] is no reason to refuse the SETCLIENTID: such a client has no
    /// callbacks, and is given no delegations.
    pub fn set_client_id(&self, client: ClientId, config: PathConfig) -> Result<SessionKey, Error> {
        if self.shared().is_closed() {
            return Err(Error::Closed);
        }
        let address = match config.address {
            CallbackAddress::Supplied => None,
            CallbackAddress::Connect { address, peer } => {
                let admitted = self.shared().settings.connect_policy.admit(address, peer);
                Some(admitted.ok_or(Error::AddressRefused { address })?)
            }
        };
        in_range("window", config.window.into(), 1, ringback_rpc::session::SLOTS_MAX.into())?;
        let params = Box::new(PathParams {
            program: config.program,
            callback_ident: config.callback_ident,
            credential: config.security.into_credential()?,
            window: config.window,
        });
        let path = SessionKey { client, serial: self.shared().serial() };
        self.client(client)?;
        self.shared().unconfirmed.put(Unconfirmed { path, params, address });
        // The client may have gone before that.
        self.client(client).inspect_err(|_| self.shared().unconfirmed.forget(client))?;
        Ok(path)
    }

    /// SETCLIENTID_CONFIRM (RFC 7530 section 16.34): the client is called back on this path from now on, and on no other one.
    /// What was sent on the one before and was not answered is sent once more; what is answered there is dropped.
    /// [`Error::NotUnconfirmed`] if there has been another SETCLIENTID since, or the path was confirmed already.
    pub fn confirm(&self, path: SessionKey) -> Result<(), Error> {
        let known = self.client(path.client)?;
        let Unconfirmed { params, address, .. } = self.shared().unconfirmed.take(path).ok_or(Error::NotUnconfirmed)?;
        known.path.store(path.serial, SeqCst);
        self.shared().post_home(known, Command::ConfirmPath { path, params, address });
        Ok(())
    }

    /// Whether RENEW is to be answered with NFS4ERR_CB_PATH_DOWN (RFC 7530 section 16.28), which a server does for a client
    /// that holds delegations: its callbacks are known not to reach it, or it has confirmed no path. To ask counts as telling the client. `false` for
    /// a client that is not registered, and while nobody knows about the path that it has confirmed.
    pub fn is_path_down(&self, client: ClientId) -> bool {
        self.seq4_status(client, None) & seq4_status::CB_PATH_DOWN != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(policy: &ConnectPolicy, address: &str, peer: &str) -> Option<String> {
        policy.admit(address.parse().unwrap(), peer.parse().unwrap()).map(|a| a.to_string())
    }

    #[test]
    fn f11_the_peer_is_the_peer_in_either_notation() {
        let policy = ConnectPolicy::default();
        for (address, peer, admitted) in [
            ("192.0.2.1:1023", "192.0.2.1:700", Some("192.0.2.1:1023")),
            ("192.0.2.1:1023", "[::ffff:192.0.2.1]:700", Some("192.0.2.1:1023")),
            ("[::ffff:192.0.2.1]:1023", "192.0.2.1:700", Some("192.0.2.1:1023")),
            ("[2001:db8::1]:1023", "[2001:db8::1]:700", Some("[2001:db8::1]:1023")),
            ("[fe80::1]:1023", "[fe80::1%3]:700", Some("[fe80::1%3]:1023")),
            ("192.0.2.2:1023", "192.0.2.1:700", None),
            ("[2001:db8::2]:1023", "[2001:db8::1]:700", None),
            ("127.0.0.1:22", "192.0.2.1:700", None),
            ("192.0.2.1:0", "192.0.2.1:700", None),
        ] {
            assert_eq!(admit(&policy, address, peer).as_deref(), admitted, "{address} {peer}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_host_is_refused_by_every_policy() {
        for policy in [ConnectPolicy::Any, ConnectPolicy::Ask(Arc::new(|_, _| true))] {
            for address in
                ["0.0.0.0:9", "[::]:9", "255.255.255.255:9", "224.0.0.1:9", "[ff02::1]:9", "[::ffff:0.0.0.0]:9"]
            {
                assert_eq!(admit(&policy, address, "192.0.2.1:700"), None, "{address}");
            }
            assert!(admit(&policy, "198.51.100.7:9", "192.0.2.1:700").is_some());
        }
        assert_eq!(admit(&ConnectPolicy::Nowhere, "192.0.2.1:9", "192.0.2.1:700"), None);
        assert_eq!(admit(&ConnectPolicy::Ask(Arc::new(|_, _| false)), "192.0.2.1:9", "192.0.2.1:700"), None);
    }
}
