//! The name of one io_uring operation, as it travels in `user_data`.
//!
//! ```text
//!  63      56 55          32 31                  0
//! +----------+--------------+---------------------+
//! |   kind   |    index     |     generation      |
//! +----------+--------------+---------------------+
//! ```
//!
//! Index and generation are those of the [`ConnKey`]; both are zero for the operations of the ring itself. Every
//! operation carries a kind, so there is no value with a special meaning.

use crate::io::ConnKey;
use crate::io::table::INDEX_BITS;

const KIND_SHIFT: u32 = 56;
const INDEX_SHIFT: u32 = 32;
const _: () = assert!(INDEX_SHIFT + INDEX_BITS == KIND_SHIFT);

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum OpKind {
    /// Multishot receive on a connection.
    Recv = 1,
    /// The one send of a connection.
    Send = 2,
    /// Cancellation of a connection's operations, or of its receive only.
    Cancel = 3,
    /// Multishot poll of the waker's eventfd.
    Wake = 4,
    /// Connecting a socket that was made for it.
    Connect = 6,
    /// Cancellation of everything, when the back end is dropped.
    CancelAll = 5,
}

/// One operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpKey {
    pub(super) kind: OpKind,
    pub(super) conn: ConnKey,
}

impl OpKey {
    /// An operation on a connection.
    pub(super) fn on(kind: OpKind, conn: ConnKey) -> Self {
        OpKey { kind, conn }
    }

    /// An operation of the ring itself.
    pub(super) fn of_ring(kind: OpKind) -> Self {
        OpKey { kind, conn: ConnKey { index: 0, generation: 0 } }
    }

    pub(super) fn to_user_data(self) -> u64 {
        debug_assert!(self.conn.index < 1 << INDEX_BITS);
        u64::from(self.kind as u8) << KIND_SHIFT
            | u64::from(self.conn.index) << INDEX_SHIFT
            | u64::from(self.conn.generation)
    }

    /// `None`: no operation of ours was ever named so.
    pub(super) fn from_user_data(bits: u64) -> Option<Self> {
        let kind = match bits >> KIND_SHIFT {
            1 => OpKind::Recv,
            2 => OpKind::Send,
            3 => OpKind::Cancel,
            4 => OpKind::Wake,
            5 => OpKind::CancelAll,
            6 => OpKind::Connect,
            _ => return None,
        };
        let index = (bits >> INDEX_SHIFT) as u32 & ((1 << INDEX_BITS) - 1);
        Some(OpKey { kind, conn: ConnKey { index, generation: bits as u32 } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_round_trip_at_the_limits() {
        let ring = [OpKind::Wake, OpKind::CancelAll];
        let kinds = [OpKind::Recv, OpKind::Send, OpKind::Cancel, OpKind::Connect].into_iter().chain(ring);
        for kind in kinds {
            for index in [0, 1, (1 << INDEX_BITS) - 1] {
                for generation in [0, 1, u32::MAX] {
                    let op = OpKey::on(kind, ConnKey { index, generation });
                    assert_eq!(OpKey::from_user_data(op.to_user_data()), Some(op));
                }
            }
        }
        assert_eq!(OpKey::from_user_data(0), None);
        assert_eq!(OpKey::from_user_data(u64::MAX), None);
    }
}
