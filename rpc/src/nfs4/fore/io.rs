//! Data: READ, WRITE, COMMIT.

use crate::nfs4::wire::wire_struct;
use crate::nfs4::{StableHow4, Stateid4, Verifier4};

wire_struct! {
    /// Arguments of READ (RFC 8881 section 18.22).
    pub struct ReadArgs {
        /// The open, lock or delegation under which is read; or a special stateid.
        pub stateid: Stateid4 = "stateid",
        /// Where to begin.
        pub offset: u64 = "offset",
        /// How many bytes.
        pub count: u32 = "count",
    }
}

wire_struct! {
    /// Results of READ.
    pub struct ReadOk<'a> {
        /// Whether the end of the file was reached.
        pub eof: bool = "eof",
        /// The data.
        pub data: &'a [u8] = "data",
    }
}

wire_struct! {
    /// Arguments of WRITE (RFC 8881 section 18.32).
    pub struct WriteArgs<'a> {
        /// The open, lock or delegation under which is written; or a special stateid.
        pub stateid: Stateid4 = "stateid",
        /// Where to begin.
        pub offset: u64 = "offset",
        /// How safe the data must be when the reply is sent.
        pub stable: StableHow4 = "stable",
        /// The data.
        pub data: &'a [u8] = "data",
    }
}

wire_struct! {
    /// Results of WRITE.
    pub struct WriteOk {
        /// Bytes written.
        pub count: u32 = "count",
        /// How safe they are.
        pub committed: StableHow4 = "committed",
        /// Changes when the server may have lost uncommitted data.
        pub verifier: Verifier4 = "writeverf",
    }
}

wire_struct! {
    /// Arguments of COMMIT (RFC 8881 section 18.3).
    pub struct CommitArgs {
        /// Where to begin.
        pub offset: u64 = "offset",
        /// How many bytes; zero: to the end of the file.
        pub count: u32 = "count",
    }
}

wire_struct! {
    /// Results of COMMIT.
    pub struct CommitOk {
        /// As in the results of WRITE.
        pub verifier: Verifier4 = "writeverf",
    }
}
