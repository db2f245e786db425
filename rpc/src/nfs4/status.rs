//! Status codes.

use core::fmt;

use super::wire::wire_field;
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

/// How an operation or a compound went (RFC 8881 section 15, RFC 7862 section 11, `nfsstat4`). A code that is not
/// defined passes through: a later minor version may define it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($name:ident = $value:literal, $doc:literal;)*) => {
        impl Status {
            $(#[doc = concat!("`", stringify!($name), "`: ", $doc, ".")] pub const $name: Status = Status($value);)*

            /// Every defined code.
            pub const ALL: &'static [Status] = &[$(Status::$name,)*];

            /// The RFC's name of the code, if it is defined.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Status::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    NFS4_OK = 0, "everything is fine";
    NFS4ERR_PERM = 1, "the caller is not privileged";
    NFS4ERR_NOENT = 2, "no such file or directory";
    NFS4ERR_IO = 5, "a hard I/O error";
    NFS4ERR_NXIO = 6, "no such device";
    NFS4ERR_ACCESS = 13, "access denied";
    NFS4ERR_EXIST = 17, "the file exists";
    NFS4ERR_XDEV = 18, "different file systems";
    NFS4ERR_NOTDIR = 20, "must be a directory";
    NFS4ERR_ISDIR = 21, "must not be a directory";
    NFS4ERR_INVAL = 22, "an invalid argument";
    NFS4ERR_FBIG = 27, "the file would exceed the server's limit";
    NFS4ERR_NOSPC = 28, "no space is left";
    NFS4ERR_ROFS = 30, "a read-only file system";
    NFS4ERR_MLINK = 31, "too many hard links";
    NFS4ERR_NAMETOOLONG = 63, "the name is too long";
    NFS4ERR_NOTEMPTY = 66, "the directory is not empty";
    NFS4ERR_DQUOT = 69, "over a hard quota";
    NFS4ERR_STALE = 70, "the file is gone";
    NFS4ERR_BADHANDLE = 10001, "a malformed filehandle";
    NFS4ERR_BAD_COOKIE = 10003, "a stale READDIR cookie";
    NFS4ERR_NOTSUPP = 10004, "the operation is not supported";
    NFS4ERR_TOOSMALL = 10005, "the answer does not fit";
    NFS4ERR_SERVERFAULT = 10006, "an error that has no other name";
    NFS4ERR_BADTYPE = 10007, "an invalid type for CREATE";
    NFS4ERR_DELAY = 10008, "busy: try again later";
    NFS4ERR_SAME = 10009, "NVERIFY: the attributes are the same";
    NFS4ERR_DENIED = 10010, "the lock is held by another";
    NFS4ERR_EXPIRED = 10011, "the lease has expired";
    NFS4ERR_LOCKED = 10012, "a lock forbids the I/O";
    NFS4ERR_GRACE = 10013, "in the grace period";
    NFS4ERR_FHEXPIRED = 10014, "the filehandle has expired";
    NFS4ERR_SHARE_DENIED = 10015, "a share reservation forbids it";
    NFS4ERR_WRONGSEC = 10016, "the wrong security flavor";
    NFS4ERR_CLID_INUSE = 10017, "the client id is in use";
    NFS4ERR_RESOURCE = 10018, "out of resources (minor version 0 only)";
    NFS4ERR_MOVED = 10019, "the file system has moved";
    NFS4ERR_NOFILEHANDLE = 10020, "there is no current filehandle";
    NFS4ERR_MINOR_VERS_MISMATCH = 10021, "the minor version is not served";
    NFS4ERR_STALE_CLIENTID = 10022, "the client id is from before a restart";
    NFS4ERR_STALE_STATEID = 10023, "the stateid is from before a restart";
    NFS4ERR_OLD_STATEID = 10024, "the stateid's seqid is outdated";
    NFS4ERR_BAD_STATEID = 10025, "the stateid is not known";
    NFS4ERR_BAD_SEQID = 10026, "the owner's seqid is out of order";
    NFS4ERR_NOT_SAME = 10027, "VERIFY: the attributes are not the same";
    NFS4ERR_LOCK_RANGE = 10028, "an overlapping lock range";
    NFS4ERR_SYMLINK = 10029, "must be a file or directory";
    NFS4ERR_RESTOREFH = 10030, "there is no saved filehandle";
    NFS4ERR_LEASE_MOVED = 10031, "some file system has moved";
    NFS4ERR_ATTRNOTSUPP = 10032, "an attribute is not supported";
    NFS4ERR_NO_GRACE = 10033, "a reclaim outside the grace period";
    NFS4ERR_RECLAIM_BAD = 10034, "the reclaim cannot be granted";
    NFS4ERR_RECLAIM_CONFLICT = 10035, "the reclaim conflicts";
    NFS4ERR_BADXDR = 10036, "the arguments cannot be decoded";
    NFS4ERR_LOCKS_HELD = 10037, "locks are held at CLOSE";
    NFS4ERR_OPENMODE = 10038, "the open mode forbids it";
    NFS4ERR_BADOWNER = 10039, "the owner cannot be translated";
    NFS4ERR_BADCHAR = 10040, "an unsupported character";
    NFS4ERR_BADNAME = 10041, "an unsupported name";
    NFS4ERR_BAD_RANGE = 10042, "an unsupported lock range";
    NFS4ERR_LOCK_NOTSUPP = 10043, "no atomic upgrade or downgrade";
    NFS4ERR_OP_ILLEGAL = 10044, "an undefined operation";
    NFS4ERR_DEADLOCK = 10045, "the lock would deadlock";
    NFS4ERR_FILE_OPEN = 10046, "the file is open";
    NFS4ERR_ADMIN_REVOKED = 10047, "revoked by an administrator";
    NFS4ERR_CB_PATH_DOWN = 10048, "the callback path is down";
    NFS4ERR_BADIOMODE = 10049, "an invalid layout iomode";
    NFS4ERR_BADLAYOUT = 10050, "an invalid layout";
    NFS4ERR_BAD_SESSION_DIGEST = 10051, "a wrong session digest";
    NFS4ERR_BADSESSION = 10052, "the session is not known";
    NFS4ERR_BADSLOT = 10053, "the session slot does not exist";
    NFS4ERR_COMPLETE_ALREADY = 10054, "RECLAIM_COMPLETE was done before";
    NFS4ERR_CONN_NOT_BOUND_TO_SESSION = 10055, "the connection is not bound to the session";
    NFS4ERR_DELEG_ALREADY_WANTED = 10056, "the delegation is wanted already";
    NFS4ERR_BACK_CHAN_BUSY = 10057, "callbacks are outstanding";
    NFS4ERR_LAYOUTTRYLATER = 10058, "the layout is not available now";
    NFS4ERR_LAYOUTUNAVAILABLE = 10059, "the layout is not available";
    NFS4ERR_NOMATCHING_LAYOUT = 10060, "the client holds no such layout";
    NFS4ERR_RECALLCONFLICT = 10061, "a recall is going on";
    NFS4ERR_UNKNOWN_LAYOUTTYPE = 10062, "the layout type is not known";
    NFS4ERR_SEQ_MISORDERED = 10063, "the sequence id is not the slot's next or last";
    NFS4ERR_SEQUENCE_POS = 10064, "SEQUENCE or CB_SEQUENCE is not the first operation";
    NFS4ERR_REQ_TOO_BIG = 10065, "the request is over the session's limit";
    NFS4ERR_REP_TOO_BIG = 10066, "the reply is over the session's limit";
    NFS4ERR_REP_TOO_BIG_TO_CACHE = 10067, "the reply is over the session's limit for cached ones";
    NFS4ERR_RETRY_UNCACHED_REP = 10068, "a retry whose reply was not cached";
    NFS4ERR_UNSAFE_COMPOUND = 10069, "the compound cannot be recovered";
    NFS4ERR_TOO_MANY_OPS = 10070, "too many operations in the compound";
    NFS4ERR_OP_NOT_IN_SESSION = 10071, "the operation needs SEQUENCE or CB_SEQUENCE before it";
    NFS4ERR_HASH_ALG_UNSUPP = 10072, "an unsupported hash algorithm";
    NFS4ERR_CLIENTID_BUSY = 10074, "the client id still has state";
    NFS4ERR_PNFS_IO_HOLE = 10075, "I/O to a hole of a sparse layout";
    NFS4ERR_SEQ_FALSE_RETRY = 10076, "a retry that is not the original request";
    NFS4ERR_BAD_HIGH_SLOT = 10077, "the highest slot id is out of range";
    NFS4ERR_DEADSESSION = 10078, "the session is dead";
    NFS4ERR_ENCR_ALG_UNSUPP = 10079, "an unsupported encryption algorithm";
    NFS4ERR_PNFS_NO_LAYOUT = 10080, "I/O without a layout";
    NFS4ERR_NOT_ONLY_OP = 10081, "the operation must be alone";
    NFS4ERR_WRONG_CRED = 10082, "done with the wrong credential";
    NFS4ERR_WRONG_TYPE = 10083, "the object has the wrong type";
    NFS4ERR_DIRDELEG_UNAVAIL = 10084, "the directory delegation is not available";
    NFS4ERR_REJECT_DELEG = 10085, "the client does not want the delegation";
    NFS4ERR_RETURNCONFLICT = 10086, "a layout return is going on";
    NFS4ERR_DELEG_REVOKED = 10087, "the delegation or layout was revoked";
    NFS4ERR_PARTNER_NOTSUPP = 10088, "copy between servers is not supported";
    NFS4ERR_PARTNER_NO_AUTH = 10089, "copy between servers is not authorized";
    NFS4ERR_UNION_NOTSUPP = 10090, "that arm of a union is not supported";
    NFS4ERR_OFFLOAD_DENIED = 10091, "the destination does not allow the copy";
    NFS4ERR_WRONG_LFS = 10092, "an unsupported label format";
    NFS4ERR_BADLABEL = 10093, "an incorrect label";
    NFS4ERR_OFFLOAD_NO_REQS = 10094, "the destination cannot meet the requirements";
    NFS4ERR_NOXATTR = 10095, "no such extended attribute (RFC 8276)";
    NFS4ERR_XATTR2BIG = 10096, "the extended attribute is too big (RFC 8276)";
}

impl Status {
    /// Whether this is `NFS4_OK`.
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "nfsstat4({})", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Decode<'_> for Status {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        r.u32("nfsstat4").map(Status)
    }
}

impl Encode for Status {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u32(self.0)
    }
}

wire_field!(Status);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_rfc() {
        assert_eq!(Status(0).to_string(), "NFS4_OK");
        assert_eq!(Status(10052).to_string(), "NFS4ERR_BADSESSION");
        assert_eq!(Status(10073).to_string(), "nfsstat4(10073)");
        assert!(Status::ALL.windows(2).all(|pair| pair[0] < pair[1]), "each code once");
        assert!(Status::NFS4_OK.is_ok() && !Status::NFS4ERR_DELAY.is_ok());
    }
}
