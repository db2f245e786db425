//! Universal addresses: how a client of minor version 0 says where it is called back (RFC 5665 section 5.2.3).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use thiserror::Error;

/// Longest netid that is read. Those that are registered have at most eight bytes (RFC 5665 section 5.2.3).
pub const NETID_BYTES_MAX: usize = 32;
/// Longest universal address that is read: the longest IPv6 address has 45 characters, a port up to eight.
pub const UADDR_BYTES_MAX: usize = 128;

/// Where a TCP service is, over IPv4 or IPv6.
///
/// # Examples
///
/// ```
/// use ringback_rpc::nfs4::UniversalAddress;
///
/// let address = UniversalAddress::parse(b"tcp6", b"2001:db8::7.3.255")?;
/// assert_eq!(address.socket_address().to_string(), "[2001:db8::7]:1023");
/// assert_eq!((address.netid(), address.to_string()), ("tcp6", "2001:db8::7.3.255".to_owned()));
/// # Ok::<(), ringback_rpc::nfs4::UniversalAddressError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UniversalAddress(SocketAddr);

/// Why a universal address could not be read.
///
/// # Examples
///
/// ```
/// use ringback_rpc::nfs4::{UniversalAddress, UniversalAddressError};
///
/// assert_eq!(UniversalAddress::parse(b"udp", b"127.0.0.1.3.255"), Err(UniversalAddressError::NetId));
/// assert_eq!(UniversalAddress::parse(b"tcp", b"::1.3.255"), Err(UniversalAddressError::Host));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UniversalAddressError {
    /// Neither `tcp` nor `tcp6`.
    #[error("the netid is neither tcp nor tcp6")]
    NetId,
    /// It is longer than [`UADDR_BYTES_MAX`].
    #[error("the universal address has {0} bytes, which is more than {UADDR_BYTES_MAX}")]
    TooLong(usize),
    /// It does not end with two numbers below 256 after a dot each.
    #[error("the universal address does not end with a port, which is two numbers below 256")]
    Port,
    /// What is before the port is no address of the netid's kind.
    #[error("the universal address has no address of its netid's kind before the port")]
    Host,
}

impl UniversalAddress {
    /// The universal address of a TCP service. It has no place for the scope of an IPv6 address.
    pub fn new(address: SocketAddr) -> Self {
        UniversalAddress(match address {
            SocketAddr::V4(_) => address,
            SocketAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0)),
        })
    }

    /// Reads `r_netid` and `r_addr` (RFC 5665 sections 5.2.3.3 and 5.2.3.4): the address as text, then the high and the low
    /// byte of the port as decimal numbers.
    pub fn parse(netid: &[u8], uaddr: &[u8]) -> Result<Self, UniversalAddressError> {
        use UniversalAddressError::{Host, NetId, Port, TooLong};
        if !matches!(netid, b"tcp" | b"tcp6") {
            return Err(NetId);
        }
        if uaddr.len() > UADDR_BYTES_MAX {
            return Err(TooLong(uaddr.len()));
        }
        let text = core::str::from_utf8(uaddr).map_err(|_| Host)?;
        let mut parts = text.rsplitn(3, '.');
        let low = parts.next().and_then(byte).ok_or(Port)?;
        let high = parts.next().and_then(byte).ok_or(Port)?;
        let host = parts.next().ok_or(Host)?;
        let ip = match netid {
            b"tcp" => host.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Host)?,
            _ => host.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Host)?,
        };
        Ok(UniversalAddress(SocketAddr::new(ip, u16::from_be_bytes([high, low]))))
    }

    /// `tcp` or `tcp6` (RFC 5665 section 5.2.3).
    pub const fn netid(&self) -> &'static str {
        if self.0.is_ipv4() { "tcp" } else { "tcp6" }
    }

    /// Address and port.
    pub const fn socket_address(&self) -> SocketAddr {
        self.0
    }
}

/// The universal address as text, as in `r_addr`.
impl fmt::Display for UniversalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [high, low] = self.0.port().to_be_bytes();
        write!(f, "{}.{high}.{low}", self.0.ip())
    }
}

/// A decimal number below 256, digits and nothing else.
fn byte(text: &str) -> Option<u8> {
    let is_plain = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::UniversalAddressError::{Host, NetId, Port, TooLong};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn f11_addresses_of_both_kinds_are_read() {
        for (netid, uaddr, expected) in [
            ("tcp", "192.0.2.7.3.255", "192.0.2.7:1023"),
            ("tcp", "127.0.0.1.0.111", "127.0.0.1:111"),
            ("tcp", "255.255.255.255.255.255", "255.255.255.255:65535"),
            ("tcp6", "::1.8.1", "[::1]:2049"),
            ("tcp6", "::.0.0", "[::]:0"),
            ("tcp6", "2001:DB8:0:0:0:0:0:1.8.1", "[2001:db8::1]:2049"),
            ("tcp6", "2001:db8:1:2:3:4:5:6.8.1", "[2001:db8:1:2:3:4:5:6]:2049"),
            ("tcp6", "::ffff:192.0.2.7.8.1", "[::ffff:192.0.2.7]:2049"),
            ("tcp", "192.0.2.7.003.001", "192.0.2.7:769"),
        ] {
            let address = UniversalAddress::parse(netid.as_bytes(), uaddr.as_bytes());
            assert_eq!(address.map(|a| a.socket_address()), Ok(expected.parse().unwrap()), "{netid} {uaddr}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for (netid, uaddr, expected) in [
            ("udp", "192.0.2.7.8.1", NetId),
            ("", "192.0.2.7.8.1", NetId),
            ("TCP", "192.0.2.7.8.1", NetId),
            ("tcp", "", Port),
            ("tcp", "1", Port),
            ("tcp", "8.1", Host),
            ("tcp", ".8.1", Host),
            ("tcp", "192.0.2.8.1", Host),
            ("tcp", "192.0.2.7.256.1", Port),
            ("tcp", "192.0.2.7.8.", Port),
            ("tcp", "192.0.2.7.8.-1", Port),
            ("tcp", "192.0.2.7.8.+1", Port),
            ("tcp", "192.0.2.7.8.0001", Port),
            ("tcp", "192.0.2.7.8. 1", Port),
            ("tcp", "::1.8.1", Host),
            ("tcp6", "192.0.2.7.8.1", Host),
            ("tcp6", "fe80::1%2.8.1", Host),
            ("tcp6", "[::1].8.1", Host),
            ("tcp6", "1::2::3.8.1", Host),
        ] {
            assert_eq!(UniversalAddress::parse(netid.as_bytes(), uaddr.as_bytes()), Err(expected), "{netid} {uaddr}");
        }
        assert_eq!(UniversalAddress::parse(b"tcp", &[b'1'; 129]), Err(TooLong(129)));
        assert_eq!(UniversalAddress::parse(b"tcp", b"1.2.3.\xff.8.1"), Err(Host));
    }

    proptest! {
        #[test]
        fn f11_what_is_printed_is_read_again(v6: bool, ip: [u8; 16], port: u16, scope: u32) {
            let address = if v6 {
                SocketAddr::V6(SocketAddrV6::new(ip.into(), port, 0, scope))
            } else {
                SocketAddr::from(([ip[0], ip[1], ip[2], ip[3]], port))
            };
            let printed = UniversalAddress::new(address);
            let read = UniversalAddress::parse(printed.netid().as_bytes(), printed.to_string().as_bytes());
            prop_assert_eq!(read, Ok(printed));
            prop_assert!(printed.to_string().len() <= UADDR_BYTES_MAX);
            let socket = printed.socket_address();
            prop_assert_eq!((socket.ip(), socket.port()), (address.ip(), port));
        }

        #[test]
        fn no_text_panics(netid in "(tcp|tcp6|udp|.{0,4})", uaddr in "[0-9a-f:.%]{0,60}|.{0,40}") {
            if let Ok(address) = UniversalAddress::parse(netid.as_bytes(), uaddr.as_bytes()) {
                let printed = address.to_string();
                prop_assert_eq!(UniversalAddress::parse(netid.as_bytes(), printed.as_bytes()), Ok(address));
            }
        }
    }
}
