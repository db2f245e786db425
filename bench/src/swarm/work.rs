//! Opens, delegations and their return.

use super::client::{Client, DELAY_NS, Results, Turn};
use super::config::FileName;
use super::fore::{File, Work};
use super::returns::Return;
use super::tally::Granted;
use ringback_rpc::nfs4::fore::{
    CloseArgs, DelegReturnArgs, OpArgs, OpRes, OpenArgs, OpenClaim, OpenHow, PutFhArgs, share_access, share_deny,
};
use ringback_rpc::nfs4::{Fattr, StateOwner4, Stateid4, Status};
use ringback_rpc::xdr::Encode;

/// Whether the server wants the same operation again, later.
fn is_delay(status: Status) -> bool {
    matches!(status, Status::NFS4ERR_DELAY | Status::NFS4ERR_GRACE)
}

impl Client {
    /// OPEN and CLOSE of one file, in one compound: CLOSE takes the current stateid (RFC 8881 section 16.2.3.1.2).
    pub(crate) fn start_open(&mut self, file: File, write: bool, turn: &mut Turn<'_>) {
        let config = turn.config;
        let mut name = FileName::new();
        config.file_name(file.client, file.n, &mut name);
        let share_access = if write {
            share_access::WRITE | share_access::WANT_NO_DELEG
        } else {
            share_access::READ | share_access::WANT_READ_DELEG
        };
        let how = if config.create && !write { OpenHow::Unchecked(Fattr::NONE) } else { OpenHow::NoCreate };
        let work = if write { Work::Write(file) } else { Work::Open(file) };
        let started = self.fore.start(work, &mut self.caller, turn.out, 4, |w| {
            self.id.put_directory(w)?;
            let owner = StateOwner4::new(self.id.client_id(), self.id.owner()).expect("the owner is short");
            let claim = OpenClaim::Null(name.as_bytes());
            let share_deny = share_deny::NONE;
            OpArgs::Open(OpenArgs { seqid: 0, share_access, share_deny, owner, how, claim }).encode(w)?;
            OpArgs::GetFh.encode(w)?;
            OpArgs::Close(CloseArgs { seqid: 0, open_stateid: Stateid4::CURRENT }).encode(w)
        });
        if let Err(e) = started {
            self.fail(format!("a call does not fit: {e}"), turn.tally);
        }
    }

    /// The answer to an open that asked for a delegation.
    pub(crate) fn opened(&mut self, file: File, results: &mut Results<'_>, turn: &mut Turn<'_>) {
        let mut stateid = None;
        while let Some(result) = results.next() {
            match result {
                OpRes::Open(Ok(ok)) => stateid = Some(ok.delegation.stateid()),
                other if other.status().is_ok() => {}
                other => {
                    turn.tally.error(other.status());
                    if stateid.is_none() && is_delay(other.status()) {
                        return self.opens.repeat(file, turn.now_ns + DELAY_NS);
                    }
                    turn.tally.uncached_replies += u64::from(other.status() == Status::NFS4ERR_RETRY_UNCACHED_REP);
                }
            }
        }
        turn.tally.opened += 1;
        let Some(Some(stateid)) = stateid else {
            turn.tally.not_granted += 1;
            return;
        };
        match self.delegations.granted(&stateid, turn.tally.of_mut(self.behaviour)) {
            Granted::Once => {
                self.left += 1;
                *turn.tally.left_mut(self.behaviour) += 1;
            }
            Granted::Twice => turn.tally.granted_twice += 1,
        }
    }

    /// The answer to an open for write.
    pub(crate) fn wrote(&mut self, file: File, results: &mut Results<'_>, turn: &mut Turn<'_>) {
        let mut opened = false;
        while let Some(result) = results.next() {
            opened |= matches!(result, OpRes::Open(Ok(_)));
            if !result.status().is_ok() {
                turn.tally.error(result.status());
                if !opened && is_delay(result.status()) {
                    return self.opens.repeat(file, turn.now_ns + DELAY_NS);
                }
            }
        }
        self.writes -= 1;
        turn.tally.triggered += u64::from(opened);
    }

    /// Returns a delegation.
    pub(crate) fn start_return(&mut self, back: Return, turn: &mut Turn<'_>) {
        self.start(Work::Return(back), 2, turn, |w| {
            OpArgs::PutFh(PutFhArgs { object: back.handle() }).encode(w)?;
            OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: back.stateid }).encode(w)
        });
    }

    /// The answer to a DELEGRETURN.
    pub(crate) fn returned(&mut self, back: Return, results: &mut Results<'_>, turn: &mut Turn<'_>) {
        while let Some(result) = results.next() {
            match result {
                OpRes::DelegReturn(Ok(())) => {
                    self.delegations.returned(&back.stateid, turn.tally.of_mut(self.behaviour));
                }
                other if other.status().is_ok() => {}
                other => {
                    turn.tally.error(other.status());
                    if is_delay(other.status()) {
                        self.returns_after_ns = turn.now_ns + DELAY_NS;
                        return self.returns.push(&back);
                    }
                    turn.tally.uncached_replies += u64::from(other.status() == Status::NFS4ERR_RETRY_UNCACHED_REP);
                }
            }
        }
        self.done_with(1, turn.tally);
    }
}
