//! The operation OPEN: what its arguments mean (RFC 8881 section 18.16).

use crate::compound::Compound;
use crate::grants::Want;
use crate::opens::{How, OpenRequest, Target};
use crate::set_attributes::Changes;
use crate::wants::wants_write;
use ringback_rpc::nfs4::fore::{OpenArgs, OpenClaim, OpenHow, OpenOk, open_result_flag, share_access, share_deny};
use ringback_rpc::nfs4::{Bitmap4, Fattr, OpenDelegation4, Stateid4, Status, attr};
use std::sync::Arc;

/// The flags of share_access that say when a delegation is wanted, not which.
const WHEN: u32 = share_access::WANT_SIGNAL_DELEG_WHEN_RESRC_AVAIL | share_access::WANT_PUSH_DELEG_WHEN_UNCONTENDED;
/// OPEN4_SHARE_ACCESS_WANT_DELEG_TIMESTAMPS and OPEN4_SHARE_ACCESS_WANT_OPEN_XOR_DELEGATION (RFC 9754): wishes, which
/// are not fulfilled here.
const WISHES: u32 = 0x10_0000 | 0x20_0000;

impl Compound<'_> {
    /// OPEN. The current filehandle becomes the file's, the current stateid the open's.
    pub(crate) fn open<'r>(&mut self, args: &OpenArgs<'_>) -> Result<OpenOk<'r>, Status> {
        let client = Arc::clone(self.client()?);
        let (target, held) = self.claimed(&args.claim)?;
        let by_name = matches!(target, Target::Name(..));
        let caller = self.caller(&client);
        let changes = |attributes: &Fattr<'_>| Changes::parse(attributes, caller.maker.now);
        let how = match args.how {
            OpenHow::NoCreate => How::Existing,
            // A claim by filehandle is of a file that exists: there is nothing to create (section 18.16.3).
            _ if !by_name => return Err(Status::NFS4ERR_INVAL),
            OpenHow::Unchecked(attributes) => How::Unchecked(changes(&attributes)?),
            OpenHow::Guarded(attributes) => How::Guarded(changes(&attributes)?),
            OpenHow::Exclusive(verifier) => How::Exclusive(Changes::default(), verifier),
            OpenHow::Exclusive41(both) => How::Exclusive(changes(&both.attributes)?, both.verifier),
        };
        let (access, mut want) = access(args.share_access)?;
        if self.is_minor0() && args.share_access & !share_access::ACCESS_MASK != 0 {
            return Err(Status::NFS4ERR_INVAL);
        }
        // One that may be a late copy (RFC 7530 section 16.16.5).
        if self.unconfirmed {
            want = Want::No;
        }
        if args.share_deny & !share_deny::BOTH != 0 {
            return Err(Status::NFS4ERR_INVAL);
        }
        let reclaims = if let OpenClaim::Previous(held) = args.claim { Some(held) } else { None };
        match reclaims {
            Some(_) => self.may_reclaim(&client)?,
            None => self.may_take_new(&client)?,
        }
        let request = OpenRequest {
            caller,
            owner: args.owner.owner(),
            access,
            deny: args.share_deny as u8,
            target,
            how,
            held,
            reclaims,
            want,
            has_path: self.has_path(),
            unconfirmed: self.unconfirmed,
        };
        // Whoever has a layout of a file writes no more when it is cut.
        if how.truncates()
            && let Target::Name(directory, name) = target
            && let Ok(file) = self.server.files.lookup(directory, name)
            && self.server.layouts.recall_of_others(&client, file, &self.server.callbacks)
        {
            return Err(Status::NFS4ERR_DELAY);
        }
        let opened = self.server.files.open(&request, &self.server.callbacks)?;
        self.current = Some(opened.file);
        self.stateid = Some(opened.stateid);
        if want == Want::Cancel {
            self.server.wants.cancel(&client, opened.file, &self.server.callbacks);
        }
        // A client that is promised CB_NOTIFY_LOCK asks less often for a lock that it waits for.
        let minor0 = self.is_minor0();
        let notify = if self.has_path() && !minor0 { open_result_flag::MAY_NOTIFY_LOCK } else { 0 };
        let confirm = if self.unconfirmed { open_result_flag::CONFIRM } else { 0 };
        Ok(OpenOk {
            stateid: opened.stateid,
            change_info: opened.change,
            flags: open_result_flag::LOCKTYPE_POSIX | notify | confirm,
            attributes_set: attributes_set(&args.how, opened.created, how.truncates()),
            delegation: match opened.delegation {
                Ok(granted) => granted.on_the_wire(),
                // The reason is only for clients that gave a WANT flag (section 18.16.3).
                Err(_) if want == Want::NoPreference && args.share_access & WHEN == 0 || minor0 => {
                    OpenDelegation4::None
                }
                Err(why) => {
                    let write = wants_write(want, access, self.server.files.write_delegations);
                    OpenDelegation4::NoneExt(self.server.promise(&client, opened.file, write, args.share_access, why))
                }
            },
        })
    }

    /// Which file is claimed, and under which delegation.
    fn claimed<'r>(&self, claim: &OpenClaim<'r>) -> Result<(Target<'r>, Option<Stateid4>), Status> {
        let named = |name| self.file().map(|directory| Target::Name(directory, name));
        let current = || self.file().map(Target::File);
        match *claim {
            OpenClaim::Null(name) => Ok((named(name)?, None)),
            OpenClaim::FileHandle => Ok((current()?, None)),
            OpenClaim::DelegateCur(claim) => Ok((named(claim.file)?, Some(self.meant(&claim.delegate_stateid)?))),
            OpenClaim::DelegCurFileHandle(stateid) => Ok((current()?, Some(self.meant(&stateid)?))),
            OpenClaim::Previous(_) => Ok((current()?, None)),
            OpenClaim::DelegatePrev(_) | OpenClaim::DelegPrevFileHandle => Err(Status::NFS4ERR_NOTSUPP),
        }
    }
}

/// share_access: how the file is opened, and which delegation is wanted.
fn access(share_access: u32) -> Result<(u8, Want), Status> {
    if share_access & !(share_access::ACCESS_MASK | share_access::WANT_DELEG_MASK | WHEN | WISHES) != 0 {
        return Err(Status::NFS4ERR_INVAL);
    }
    let want = match share_access & share_access::WANT_DELEG_MASK {
        share_access::WANT_NO_PREFERENCE => Want::NoPreference,
        share_access::WANT_READ_DELEG => Want::Read,
        share_access::WANT_WRITE_DELEG => Want::Write,
        share_access::WANT_ANY_DELEG => Want::Any,
        share_access::WANT_NO_DELEG => Want::No,
        share_access::WANT_CANCEL => Want::Cancel,
        _ => return Err(Status::NFS4ERR_INVAL),
    };
    match share_access & share_access::ACCESS_MASK {
        0 => Err(Status::NFS4ERR_INVAL),
        access => Ok((access as u8, want)),
    }
}

/// The attributes that a create has set: of a file that was there the size at most (section 18.16.3). Attributes that
/// an exclusive create uses to store its verifier would count as well; ours is kept elsewhere.
fn attributes_set(how: &OpenHow<'_>, created: bool, truncates: bool) -> Bitmap4 {
    match how {
        OpenHow::NoCreate | OpenHow::Exclusive(_) => Bitmap4::EMPTY,
        OpenHow::Unchecked(_) if !created && truncates => Bitmap4::of(&[attr::SIZE]),
        OpenHow::Unchecked(_) if !created => Bitmap4::EMPTY,
        OpenHow::Unchecked(attributes) | OpenHow::Guarded(attributes) => attributes.mask,
        OpenHow::Exclusive41(both) => both.attributes.mask,
    }
}
