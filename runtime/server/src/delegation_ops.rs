//! Delegations that are asked for by themselves: GET_DIR_DELEGATION and WANT_DELEGATION (RFC 8881 sections 18.39 and 18.49).

use crate::clients::Client;
use crate::compound::Compound;
use crate::delegations::SEQID;
use crate::grants::{Granted, Unavailable};
use crate::stateids::Kind;
use crate::watches::Watch;
use ringback_rpc::nfs4::fore::{
    DelegClaim, DelegationType4, GetDirDelegationArgs, GetDirDelegationOk, WantDelegationArgs, WantDelegationOk,
    share_access,
};
use ringback_rpc::nfs4::{OpenDelegation4, OpenNoneDelegation4, Status};
use std::sync::Arc;

/// All bits that wda_want may have.
const WANT_BITS: u32 = share_access::WANT_DELEG_MASK
    | share_access::WANT_SIGNAL_DELEG_WHEN_RESRC_AVAIL
    | share_access::WANT_PUSH_DELEG_WHEN_UNCONTENDED;

impl Compound<'_> {
    /// GET_DIR_DELEGATION. The delays that the client could bear are hints: it is told at once.
    pub(crate) fn get_dir_delegation(&mut self, args: &GetDirDelegationArgs) -> Result<GetDirDelegationOk, Status> {
        let session = Arc::clone(self.session()?);
        let (server, client) = (self.server, &session.client);
        let directory = self.file()?;
        server.files.with_file(directory, |file| file.directory().map(|_| ()))??;
        self.may_take_new(client)?;
        if !self.has_path() {
            return Ok(GetDirDelegationOk::Unavailable { will_signal: false });
        }
        let watch = Watch::new(args, session.callback_bytes_max);
        let granted = server.files.grant_directory(directory, &self.caller(client), watch, &server.callbacks)?;
        Ok(match granted {
            Ok(granted) => GetDirDelegationOk::Granted(granted),
            Err(why) => {
                let waits = args.signal && why == Unavailable::Full;
                GetDirDelegationOk::Unavailable { will_signal: waits && server.promise_directory(client, directory) }
            }
        })
    }

    /// WANT_DELEGATION.
    pub(crate) fn want_delegation<'r>(&mut self, args: &WantDelegationArgs) -> Result<WantDelegationOk<'r>, Status> {
        let (client, server, file) = (Arc::clone(&self.session()?.client), self.server, self.file()?);
        match args.claim {
            DelegClaim::FileHandle => {}
            DelegClaim::Previous(held) => return self.reclaim_wanted(&client, held),
            // As in OPEN.
            DelegClaim::DelegPrevFileHandle => return Err(Status::NFS4ERR_NOTSUPP),
        }
        self.may_take_new(&client)?;
        if args.want & !WANT_BITS != 0 {
            return Err(Status::NFS4ERR_INVAL);
        }
        let write = match args.want & share_access::WANT_DELEG_MASK {
            share_access::WANT_READ_DELEG => false,
            share_access::WANT_WRITE_DELEG => true,
            share_access::WANT_ANY_DELEG => server.files.write_delegations,
            share_access::WANT_CANCEL => {
                server.wants.cancel(&client, file, &server.callbacks);
                return Ok(WantDelegationOk { delegation: OpenDelegation4::NoneExt(OpenNoneDelegation4::Cancelled) });
            }
            // Who wants none has nothing to ask for.
            _ => return Err(Status::NFS4ERR_INVAL),
        };
        let any = args.want & share_access::WANT_DELEG_MASK == share_access::WANT_ANY_DELEG;
        let grant = |write| server.files.grant_wanted(file, &client, write, self.now_s(), &server.callbacks);
        let mut granted = match self.has_path() {
            true => (write, grant(write)?),
            false => (write, Err(OpenNoneDelegation4::Resource { will_signal: false })),
        };
        if any && write && matches!(granted.1, Err(OpenNoneDelegation4::Contention { .. })) {
            granted = (false, grant(false)?);
        }
        let delegation = match granted {
            (write, Ok(id)) => {
                let stateid = server.files.stateid(Kind::Delegation, id, SEQID);
                Granted { stateid, write, recall: false }.on_the_wire()
            }
            (write, Err(why)) => OpenDelegation4::NoneExt(server.promise(&client, file, write, args.want, why)),
        };
        Ok(WantDelegationOk { delegation })
    }

    /// The client had the delegation before a restart, without an open.
    fn reclaim_wanted<'r>(&self, client: &Client, held: DelegationType4) -> Result<WantDelegationOk<'r>, Status> {
        self.may_reclaim(client)?;
        let (files, callbacks) = (&self.server.files, &self.server.callbacks);
        let (mut shard, number, index) = files.live(self.file()?)?;
        shard.files.at(index).ok_or(Status::NFS4ERR_STALE)?.data()?;
        let granted = files.reclaim_delegation(&mut shard, number, index, (&self.caller(client), held), callbacks);
        let delegation = granted.map_or_else(OpenDelegation4::NoneExt, Granted::on_the_wire);
        Ok(WantDelegationOk { delegation })
    }
}
