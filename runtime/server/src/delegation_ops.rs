//! Delegations that are asked for by themselves: GET_DIR_DELEGATION (RFC 8881 section 18.39).

use crate::compound::Compound;
use crate::watches::Watch;
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::fore::{GetDirDelegationArgs, GetDirDelegationOk};
use std::sync::Arc;

impl Compound<'_> {
    /// GET_DIR_DELEGATION. The delays that the client could bear are hints: it is told at once.
    pub(crate) fn get_dir_delegation(&self, args: &GetDirDelegationArgs) -> Result<GetDirDelegationOk, Status> {
        let session = Arc::clone(self.session()?);
        let (server, client) = (self.server, &session.client);
        let directory = self.file()?;
        server.files.with_file(directory, |file| file.directory().map(|_| ()))??;
        if !client.has_reclaimed() {
            return Err(Status::NFS4ERR_GRACE);
        }
        if !self.has_path() {
            return Ok(GetDirDelegationOk::Unavailable { will_signal: false });
        }
        let watch = Watch::new(args, session.callback_bytes_max);
        let granted = server.files.grant_directory(directory, &self.caller(client), watch, &server.callbacks)?;
        Ok(granted.map_or_else(|_| GetDirDelegationOk::Unavailable { will_signal: false }, GetDirDelegationOk::Granted))
    }
}
