//! The attributes of a file as others see it while a client holds a write delegation: the holder is asked with CB_GETATTR
//! (RFC 8881 sections 10.4.3 and 20.1), and the operation that wants to know waits for the answer.
//!
//! A holder that has modified data reports a change attribute other than the one that came with its delegation. Nothing
//! else is to be read out of that value: it may be the same for each modification. So every answer that says "modified"
//! makes the file's own change attribute larger and its times those of the answer, as section 10.4.3 wants it. The value
//! granted is kept for the comparison; were it replaced by the new one, a client that reports the granted value plus one
//! would be taken for one that has modified nothing.

use crate::arena::Id;
use crate::attributes::Facts;
use crate::compound::Compound;
use crate::delegations::Conflict;
use ringback::CallbackKey;
use ringback_rpc::nfs4::{Bitmap4, Fattr, Status, attr};
use ringback_rpc::xdr::{self, Decode, Reader};
use std::fmt;
use std::sync::Arc;

/// What the holder may have changed without telling.
const HIDDEN: Bitmap4 =
    Bitmap4::of(&[attr::CHANGE, attr::SIZE, attr::SPACE_USED, attr::TIME_METADATA, attr::TIME_MODIFY]);
/// What it is asked for.
pub(crate) const ASKED: Bitmap4 = Bitmap4::of(&[attr::CHANGE, attr::SIZE]);

/// What an operation has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// The attributes of a file as its holder has them.
    Attributes {
        file: Id,
        /// The CB_GETATTR that asks for it.
        callback: CallbackKey,
    },
    /// Nothing, but it waits for the disk: not on a reactor.
    Storage,
}

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) file: Id,
    /// `None`: the holder has not answered, or not with what it was asked for.
    pub(crate) reported: Option<Reported>,
}

/// What the holder has reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reported {
    change: u64,
    size: u64,
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "change {}, size {}", self.change, self.size)
    }
}

impl Reported {
    /// Reads the result of a CB_GETATTR that succeeded.
    pub(crate) fn parse(results: &[u8]) -> xdr::Result<Option<Reported>> {
        let Fattr { mask, values } = Fattr::decode(&mut Reader::new(results))?;
        // Values stand in the order of the attributes' numbers, and these two are low. What comes behind was not asked for.
        if !mask.iter().take(2).eq(ASKED.iter()) {
            return Ok(None);
        }
        let mut r = Reader::new(values);
        Ok(Some(Reported { change: r.u64("change")?, size: r.u64("size")? }))
    }
}

impl Compound<'_> {
    /// The attributes of the current file as its caller may see them. NFS4ERR_DELAY with a question set: they can be had
    /// when that is answered; without: the delegation is being recalled.
    pub(crate) fn seen(&mut self, asked: &Bitmap4) -> Result<Facts, Status> {
        let (id, server) = (self.file()?, self.server);
        let (mut shard, _, index) = server.files.live(id)?;
        let shard = &mut *shard;
        let mut size = None;
        if !asked.and(&HIDDEN).is_empty() && server.files.write_delegations {
            let client = Arc::clone(self.client()?);
            let answer = self.answer.take_if(|a| a.file == id).map(|a| a.reported);
            let holder = shard.delegations_of(index).find(|d| d.write && d.client != client.index);
            match holder.and_then(|d| Some((d.recalled, d.query()?))) {
                None => {}
                Some((false, query)) if answer.is_none() => {
                    self.question = Some(Question::Attributes { file: id, callback: query.callback });
                    return Err(Status::NFS4ERR_DELAY);
                }
                Some((false, query)) if let Some(Some(reported)) = answer => {
                    let modified = reported.change != query.granted_change;
                    size = modified.then_some(reported.size);
                }
                Some(_) => {
                    let caller = self.caller(&client);
                    server.files.recall_of_others(shard, index, &caller, Conflict::Read, &server.callbacks);
                    return Err(Status::NFS4ERR_DELAY);
                }
            }
        }
        let file = shard.files.at_mut(index).ok_or(Status::NFS4ERR_STALE)?;
        if size.is_some() {
            file.modify(crate::file::now());
        }
        let mut facts = Facts::of(id, file);
        facts.size = size.unwrap_or(facts.size);
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringback_rpc::xdr::{Encode, Writer};

    fn parsed(mask: &[u32], values: &[u8]) -> Option<Reported> {
        let mut space = [0; 128];
        let mut w = Writer::new(&mut space);
        Fattr { mask: Bitmap4::of(mask), values }.encode(&mut w).unwrap();
        Reported::parse(w.written()).ok().flatten()
    }

    #[test]
    fn an_answer_has_what_was_asked_for() {
        let values = [[0, 0, 0, 0, 0, 0, 0, 7], [0, 0, 0, 0, 0, 0, 1, 0]].concat();
        let asked = [attr::CHANGE, attr::SIZE];
        assert_eq!(parsed(&asked, &values), Some(Reported { change: 7, size: 256 }));
        assert_eq!(parsed(&asked, &values[..8]), None);
        assert_eq!(parsed(&[attr::TYPE, attr::CHANGE, attr::SIZE], &[&[0; 4], &values[..]].concat()), None);
        let more = parsed(&[attr::CHANGE, attr::SIZE, attr::MODE], &[&values[..], &[0; 4]].concat());
        assert_eq!(more, Some(Reported { change: 7, size: 256 }));
        assert_eq!(parsed(&asked[..1], &values[..8]), None);
        assert_eq!(parsed(&[], &[]), None);
    }
}
