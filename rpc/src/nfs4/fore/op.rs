//! Operation numbers of the fore channel.

use core::fmt;

/// An operation of COMPOUND (RFC 8881 section 17, `nfs_opnum4`; RFC 7862 section 13 and RFC 8276 section 8.6 for the
/// later ones). A number that no RFC defines is a legal value of this type: a server has to answer it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Op(pub u32);

macro_rules! op_numbers {
    ($($name:ident = $number:literal)*) => {
        impl Op {
            $(#[doc = concat!("OP_", stringify!($name), ".")] pub const $name: Op = Op($number);)*

            /// The RFC's name, without `OP_`; `None` for a number that no RFC defines.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Op::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

op_numbers! {
    ACCESS = 3
    CLOSE = 4
    COMMIT = 5
    CREATE = 6
    DELEGPURGE = 7
    DELEGRETURN = 8
    GETATTR = 9
    GETFH = 10
    LINK = 11
    LOCK = 12
    LOCKT = 13
    LOCKU = 14
    LOOKUP = 15
    LOOKUPP = 16
    NVERIFY = 17
    OPEN = 18
    OPENATTR = 19
    OPEN_CONFIRM = 20
    OPEN_DOWNGRADE = 21
    PUTFH = 22
    PUTPUBFH = 23
    PUTROOTFH = 24
    READ = 25
    READDIR = 26
    READLINK = 27
    REMOVE = 28
    RENAME = 29
    RENEW = 30
    RESTOREFH = 31
    SAVEFH = 32
    SECINFO = 33
    SETATTR = 34
    SETCLIENTID = 35
    SETCLIENTID_CONFIRM = 36
    VERIFY = 37
    WRITE = 38
    RELEASE_LOCKOWNER = 39
    BACKCHANNEL_CTL = 40
    BIND_CONN_TO_SESSION = 41
    EXCHANGE_ID = 42
    CREATE_SESSION = 43
    DESTROY_SESSION = 44
    FREE_STATEID = 45
    GET_DIR_DELEGATION = 46
    GETDEVICEINFO = 47
    GETDEVICELIST = 48
    LAYOUTCOMMIT = 49
    LAYOUTGET = 50
    LAYOUTRETURN = 51
    SECINFO_NO_NAME = 52
    SEQUENCE = 53
    SET_SSV = 54
    TEST_STATEID = 55
    WANT_DELEGATION = 56
    DESTROY_CLIENTID = 57
    RECLAIM_COMPLETE = 58
    ALLOCATE = 59
    COPY = 60
    COPY_NOTIFY = 61
    DEALLOCATE = 62
    IO_ADVISE = 63
    LAYOUTERROR = 64
    LAYOUTSTATS = 65
    OFFLOAD_CANCEL = 66
    OFFLOAD_STATUS = 67
    READ_PLUS = 68
    SEEK = 69
    WRITE_SAME = 70
    CLONE = 71
    GETXATTR = 72
    SETXATTR = 73
    LISTXATTRS = 74
    REMOVEXATTR = 75
    ILLEGAL = 10044
}

impl Op {
    /// Whether minor version `minor` defines this operation. One that it does not define is answered as
    /// [`Op::ILLEGAL`] with NFS4ERR_OP_ILLEGAL, one that it defines but the server does not implement as itself with
    /// NFS4ERR_NOTSUPP (RFC 8881 sections 15.1.3 and 15.1.1.5). The operations of minor version 0 that later ones
    /// drop stay defined there and are answered NFS4ERR_NOTSUPP (RFC 8881 section 17).
    pub const fn is_defined_in(self, minor: u32) -> bool {
        let last = match minor {
            0 => Op::RELEASE_LOCKOWNER,
            1 => Op::RECLAIM_COMPLETE,
            _ => Op::REMOVEXATTR,
        };
        self.0 >= Op::ACCESS.0 && self.0 <= last.0
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "operation {}", self.0),
        }
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
