//! Which calls of the fore channel a callback depends on (RFC 8881 sections 2.10.6.3 and 20.9.3,
//! `csa_referring_call_lists`): the client waits for their replies before it executes the callback.

use crate::nfs4::SessionId;

/// Session id and count of one `referring_call_list4`.
const LIST_BYTES: usize = 16 + 4;

/// The referring call lists of one callback, written where they are sent. The calls of a session that are added one
/// after the other make one list.
///
/// All or nothing: lists that do not fit into what the session allows for a request are left out.
///
/// # Examples
///
/// ```
/// use ringback_rpc::backchannel::ReferringCalls;
/// use ringback_rpc::nfs4::SessionId;
///
/// let mut calls = ReferringCalls::probe();
/// assert!(!calls.is_used());
/// // The SEQUENCE of the OPEN: session, sequence id and session slot.
/// calls.add(SessionId([9; 16]), 41, 3);
/// assert!(calls.is_used());
/// ```
#[derive(Debug)]
pub struct ReferringCalls<'a> {
    space: &'a mut [u8],
    /// Bytes written.
    at: usize,
    lists: u32,
    /// The session of the last list, where its count stands, and its calls.
    last: Option<(SessionId, usize, u32)>,
    added: bool,
    full: bool,
}

impl<'a> ReferringCalls<'a> {
    pub(super) fn new(space: &'a mut [u8]) -> Self {
        ReferringCalls { space, at: 0, lists: 0, last: None, added: false, full: false }
    }

    /// Lists without room, to see whether there is anything to add.
    pub fn probe() -> ReferringCalls<'static> {
        ReferringCalls::new(&mut [])
    }

    /// Whether a call was added, written or not.
    pub fn is_used(&self) -> bool {
        self.added
    }

    /// Names a call of the fore channel, by the session, sequence id and session slot that its SEQUENCE carried.
    pub fn add(&mut self, session: SessionId, sequence_id: u32, slot: u32) {
        self.added = true;
        let (count_at, count) = match self.last {
            Some((last, count_at, count)) if last == session => (count_at, count),
            _ => {
                let count_at = self.at + LIST_BYTES - 4;
                if !self.put(&session.0) || !self.put(&[0; 4]) {
                    return;
                }
                self.lists += 1;
                (count_at, 0)
            }
        };
        if !self.put(&sequence_id.to_be_bytes()) || !self.put(&slot.to_be_bytes()) {
            return;
        }
        self.space[count_at..count_at + 4].copy_from_slice(&(count + 1).to_be_bytes());
        self.last = Some((session, count_at, count + 1));
    }

    fn put(&mut self, bytes: &[u8]) -> bool {
        match self.space.get_mut(self.at..self.at + bytes.len()) {
            Some(space) if !self.full => {
                space.copy_from_slice(bytes);
                self.at += bytes.len();
                true
            }
            _ => {
                self.full = true;
                false
            }
        }
    }

    /// How many lists were written, in how many bytes. `None`: they did not fit.
    pub(super) fn finish(self) -> Option<(u32, usize)> {
        (!self.full).then_some((self.lists, self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfs4::callback::CbSequenceArgs;
    use crate::xdr::{Decode, Reader};

    /// Sequence id, then slot id: one `referring_call4`.
    const CALL_BYTES: usize = 4 + 4;

    fn session(id: u8) -> SessionId {
        SessionId([id; 16])
    }

    #[test]
    fn lists_are_as_a_decoder_expects_them() {
        let mut bytes = [0; 200];
        let mut calls = ReferringCalls::new(&mut bytes[36..]);
        for (id, sequence_id, slot) in [(1, 10, 0), (1, 11, 3), (2, 12, 7), (1, 13, 1)] {
            calls.add(session(id), sequence_id, slot);
        }
        assert!(calls.is_used());
        assert_eq!(calls.finish(), Some((3, 3 * LIST_BYTES + 4 * CALL_BYTES)));
        bytes[32..36].copy_from_slice(&3u32.to_be_bytes());
        let mut r = Reader::new(&bytes);
        let args = CbSequenceArgs::decode(&mut r).unwrap();
        assert_eq!(r.offset(), 36 + 3 * LIST_BYTES + 4 * CALL_BYTES);
        let lists: Vec<_> = args
            .referring_call_lists
            .iter()
            .map(|l| (l.session_id, l.calls.iter().map(|c| (c.sequence_id, c.slot_id)).collect::<Vec<_>>()))
            .collect();
        let expected = [(session(1), vec![(10, 0), (11, 3)]), (session(2), vec![(12, 7)]), (session(1), vec![(13, 1)])];
        assert_eq!(lists, expected);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        for room in 0..LIST_BYTES + 2 * CALL_BYTES {
            let mut bytes = vec![0; room];
            let mut calls = ReferringCalls::new(&mut bytes);
            calls.add(session(1), 1, 2);
            calls.add(session(1), 3, 4);
            assert_eq!((calls.is_used(), calls.finish()), (true, None), "{room} bytes");
        }
        assert_eq!(ReferringCalls::probe().finish(), Some((0, 0)));
    }
}
