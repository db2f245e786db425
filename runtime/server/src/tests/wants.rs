//! WANT_DELEGATION and the wants of OPEN: CB_PUSH_DELEG, CB_RECALLABLE_OBJ_AVAIL, CB_WANTS_CANCELLED.

use super::callbacks::Inbox;
use super::*;
use ringback_rpc::nfs4::callback::{CbRecallAnyArgs, CbWantsCancelledArgs};

const PUSH: u32 = share_access::WANT_PUSH_DELEG_WHEN_UNCONTENDED;
const SIGNAL: u32 = share_access::WANT_SIGNAL_DELEG_WHEN_RESRC_AVAIL;

impl Peer<'_> {
    fn want(&mut self, handle: &[u8], want: u32) -> Result<Wanted, Status> {
        self.claim(handle, want, DelegClaim::FileHandle)
    }

    fn claim(&mut self, handle: &[u8], want: u32, claim: DelegClaim) -> Result<Wanted, Status> {
        let args = OpArgs::WantDelegation(WantDelegationArgs { want, claim });
        match self.call(&[Peer::put_fh(handle), args]).last() {
            OpRes::WantDelegation(Ok(ok)) => Ok(Wanted::of(&ok.delegation)),
            other => Err(other.status()),
        }
    }

    /// Opens for reading, and wants that.
    fn open_wanting(&mut self, name: &str, want: u32) -> OpenOk<'static> {
        let args = self.open_args(name.as_bytes(), share_access::READ | want, true);
        self.open_with(args).open()
    }

    /// Takes an offer, and answers it.
    fn offered(&self, status: Status) -> (Stateid4, Vec<u8>) {
        let call = Inbox::of(self).call();
        let (header, sequence, args) = parse_call(&call);
        let CbArgs::PushDeleg(push) = args else { panic!("no CB_PUSH_DELEG: {args:?}") };
        self.answer_call(&header, sequence, &CbRes::PushDeleg(status));
        (push.delegation.stateid().unwrap(), push.fh.as_bytes().to_vec())
    }

    /// What a client is told that has waited in vain.
    fn told_in_vain(&self) -> (bool, bool) {
        let call = Inbox::of(self).call();
        let (header, sequence, args) = parse_call(&call);
        let CbArgs::WantsCancelled(CbWantsCancelledArgs { contended_wants_cancelled, resourced_wants_cancelled }) =
            args
        else {
            panic!("no CB_WANTS_CANCELLED: {args:?}")
        };
        self.answer_call(&header, sequence, &CbRes::WantsCancelled(Status::NFS4_OK));
        (contended_wants_cancelled, resourced_wants_cancelled)
    }

    /// Of which types there is room, and for how many.
    fn told_of_room(&self) -> (Bitmap4, u32) {
        let call = Inbox::of(self).call();
        let (header, sequence, args) = parse_call(&call);
        let CbArgs::RecallableObjAvail(CbRecallAnyArgs { objects_to_keep, type_mask }) = args else {
            panic!("no CB_RECALLABLE_OBJ_AVAIL: {args:?}")
        };
        self.answer_call(&header, sequence, &CbRes::RecallableObjAvail(Status::NFS4_OK));
        (type_mask, objects_to_keep)
    }
}

/// An answer to WANT_DELEGATION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Read(Stateid4),
    Write(Stateid4),
    No(OpenNoneDelegation4),
}

impl Wanted {
    fn of(delegation: &OpenDelegation4<'_>) -> Wanted {
        match delegation {
            OpenDelegation4::Read(read) => Wanted::Read(read.stateid),
            OpenDelegation4::Write(write) => Wanted::Write(write.stateid),
            OpenDelegation4::NoneExt(why) => Wanted::No(*why),
            OpenDelegation4::None => panic!("it does not say why"),
        }
    }
}

fn nothing_waits(world: &World) {
    world.until("nobody waits", || world.inner().wants.len() == 0 && world.server.runtime().stats().in_flight == 0);
}

#[test]
fn a_delegation_is_pushed_when_nobody_is_in_the_way_any_more() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let of_a = a.open("f", share_access::WRITE);
    let of_b = b.open_wanting("f", share_access::WANT_READ_DELEG | PUSH);
    assert_eq!(of_b.delegation, OpenDelegation4::NoneExt(OpenNoneDelegation4::Contention { will_push: true }));
    world.inner().serve_wants();
    assert!(Inbox::of(&b).is_empty(), "it is open for writing");
    let handle = of_a.handle();
    assert_eq!(a.close(of_a.open().stateid, &handle), Status::NFS4_OK);
    let (stateid, offered) = b.offered(Status::NFS4_OK);
    assert_eq!(offered, handle);
    nothing_waits(&world);
    // It is a delegation as any other.
    assert_eq!(world.server.delegations(), 1);
    assert_eq!(a.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    let recalled = b.recalled();
    assert_eq!(recalled.stateid, stateid);
    b.answer(&recalled, Status::NFS4_OK);
    assert_eq!(b.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(a.open("f", share_access::WRITE).status(), Status::NFS4_OK);
}

#[test]
fn an_offer_may_be_refused() {
    for (refusal, is_told) in [
        (Status::NFS4ERR_REJECT_DELEG, false),
        (Status::NFS4ERR_NOTSUPP, true),
        (Status::NFS4ERR_SERVERFAULT, true),
        (Status::NFS4ERR_BADHANDLE, true),
    ] {
        let world = World::new();
        let (mut a, mut b) = (world.client("a"), world.client("b"));
        let of_a = a.open("f", share_access::WRITE);
        let handle = of_a.handle();
        let promised = Ok(Wanted::No(OpenNoneDelegation4::Contention { will_push: true }));
        assert_eq!(b.want(&handle, share_access::WANT_READ_DELEG | PUSH), promised);
        assert_eq!(a.close(of_a.open().stateid, &handle), Status::NFS4_OK);
        let (stateid, _) = b.offered(refusal);
        if is_told {
            assert_eq!(b.told_in_vain(), (true, false));
        }
        world.until("it is nobody's", || world.server.delegations() == 0);
        nothing_waits(&world);
        assert_eq!(b.delegreturn(stateid, &handle), Status::NFS4ERR_BAD_STATEID);
        assert_eq!(a.open("f", share_access::WRITE).status(), Status::NFS4_OK);
        assert!(Inbox::of(&b).is_empty(), "it is not offered again");
    }
}

#[test]
fn an_offer_of_which_nobody_knows_is_revoked() {
    let world = World::with(Config { lease: Duration::from_secs(1), ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let of_a = a.open("f", share_access::WRITE);
    let handle = of_a.handle();
    assert!(b.want(&handle, share_access::WANT_READ_DELEG | PUSH).is_ok());
    assert_eq!(a.close(of_a.open().stateid, &handle), Status::NFS4_OK);
    // It is not answered.
    let call = Inbox::of(&b).call();
    assert!(matches!(parse_call(&call).2, CbArgs::PushDeleg(_)));
    world.until("it is revoked", || world.server.revocations() == 1);
    assert_ne!(b.flags() & seq4_status::RECALLABLE_STATE_REVOKED, 0);
    nothing_waits(&world);
}

#[test]
fn who_waits_for_room_is_told_once_of_all_that_it_waits_for() {
    let world = World::with(Config { delegations_max: 1, write_delegations: true, ..Config::default() });
    let (mut a, mut b, mut c) = (world.client("a"), world.client("b"), world.client("c"));
    let (stateid, handle) = a.take_delegation("f");
    let handles: Vec<Vec<u8>> = ["g", "h"].iter().map(|name| b.open(name, share_access::READ).handle()).collect();
    let promised = Ok(Wanted::No(OpenNoneDelegation4::Resource { will_signal: true }));
    assert_eq!(b.want(&handles[0], share_access::WANT_READ_DELEG | SIGNAL), promised);
    assert_eq!(b.want(&handles[1], share_access::WANT_WRITE_DELEG | SIGNAL), promised);
    let nothing = Ok(Wanted::No(OpenNoneDelegation4::Resource { will_signal: false }));
    assert_eq!(c.want(&handles[0], share_access::WANT_READ_DELEG), nothing, "who does not ask is not told");
    let asked = GetDirDelegationArgs { signal: true, ..super::directories::asked(&[]) };
    assert_eq!(c.get_dir_delegation(asked), Ok(GetDirDelegationOk::Unavailable { will_signal: true }));
    world.inner().serve_wants();
    // The reaper asks for room.
    let mut of_a = Inbox::of(&a);
    let call = of_a.call();
    let (header, sequence, args) = parse_call(&call);
    assert!(matches!(args, CbArgs::RecallAny(_)), "{args:?}");
    a.answer_call(&header, sequence, &CbRes::RecallAny(Status::NFS4_OK));
    drop(of_a);
    assert!(Inbox::of(&b).is_empty());
    assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4_OK);
    let both = Bitmap4::of(&[CbRecallAnyArgs::READ_DELEGATIONS, CbRecallAnyArgs::WRITE_DELEGATIONS]);
    assert_eq!(b.told_of_room(), (both, 1));
    assert_eq!(c.told_of_room(), (Bitmap4::of(&[CbRecallAnyArgs::DIRECTORY_DELEGATIONS]), 1));
    nothing_waits(&world);
    assert!(matches!(b.want(&handles[0], share_access::WANT_READ_DELEG), Ok(Wanted::Read(_))));
}

#[test]
fn what_is_wanted_no_more_is_not_pushed() {
    let world = World::new();
    let (mut a, mut b, mut c) = (world.client("a"), world.client("b"), world.client("c"));
    let of_a = a.open("f", share_access::WRITE);
    let handle = of_a.handle();
    for peer in [&mut b, &mut c] {
        peer.open_wanting("f", share_access::WANT_ANY_DELEG | PUSH);
    }
    assert_eq!(world.inner().wants.len(), 2);
    let cancelled = b.open_wanting("f", share_access::WANT_CANCEL).delegation;
    assert_eq!(cancelled, OpenDelegation4::NoneExt(OpenNoneDelegation4::Cancelled));
    let cancelled = Ok(Wanted::No(OpenNoneDelegation4::Cancelled));
    assert_eq!(c.want(&handle, share_access::WANT_CANCEL), cancelled);
    assert_eq!(world.inner().wants.len(), 0);
    // A client that begins anew waits for nothing.
    c.open_wanting("f", share_access::WANT_READ_DELEG | PUSH);
    c.verifier += 1;
    c.establish();
    assert_eq!(world.inner().wants.len(), 0);
    // Short of memory, the server promises nothing any more.
    b.open_wanting("f", share_access::WANT_READ_DELEG | PUSH);
    world.inner().cancel_all_wants();
    assert_eq!(b.told_in_vain(), (true, false));
    assert_eq!(a.close(of_a.open().stateid, &handle), Status::NFS4_OK);
    nothing_waits(&world);
    world.inner().serve_wants();
    assert!(Inbox::of(&b).is_empty());
}

#[test]
fn a_delegation_is_had_without_an_open() {
    let world = World::with(Config { write_delegations: true, ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let of_a = a.open("f", share_access::WRITE | share_access::WANT_NO_DELEG);
    let handle = of_a.handle();
    assert_eq!(a.close(of_a.open().stateid, &handle), Status::NFS4_OK);
    let Ok(Wanted::Read(stateid)) = a.want(&handle, share_access::WANT_READ_DELEG) else { panic!("not granted") };
    let none = |why| Ok(Wanted::No(why));
    assert_eq!(a.want(&handle, share_access::WANT_WRITE_DELEG), none(OpenNoneDelegation4::NotSupportedUpgrade));
    assert_eq!(a.want(&handle, share_access::WANT_READ_DELEG), none(OpenNoneDelegation4::NotWanted));
    // Any: for reading, where another one reads.
    let Ok(Wanted::Read(other)) = b.want(&handle, share_access::WANT_ANY_DELEG) else { panic!("not granted") };
    assert_eq!(b.delegreturn(other, &handle), Status::NFS4_OK);
    assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4_OK);
    let Ok(Wanted::Write(_)) = a.want(&handle, share_access::WANT_ANY_DELEG) else { panic!("not granted") };
    assert_eq!(a.want(&handle, share_access::WANT_READ_DELEG), none(OpenNoneDelegation4::NotSupportedDowngrade));
    assert_eq!(
        b.want(&handle, share_access::WANT_WRITE_DELEG),
        none(OpenNoneDelegation4::Contention { will_push: false })
    );
    for wrong in [0, share_access::WANT_NO_DELEG, share_access::WANT_READ_DELEG | share_access::READ, 0x600] {
        assert_eq!(a.want(&handle, wrong), Err(Status::NFS4ERR_INVAL), "{wrong:x}");
    }
    let read = share_access::WANT_READ_DELEG;
    let previous = DelegClaim::Previous(DelegationType4::Read);
    assert_eq!(a.claim(&handle, read, previous), Err(Status::NFS4ERR_NO_GRACE));
    assert_eq!(a.claim(&handle, read, DelegClaim::DelegPrevFileHandle), Err(Status::NFS4ERR_NOTSUPP));
    let root = a.call(&[OpArgs::PutRootFh, OpArgs::GetFh]).handle();
    assert_eq!(a.want(&root, read), none(OpenNoneDelegation4::IsDirectory));
    let fifo = CreateArgs { kind: CreateType::Plain(file_type::FIFO), name: b"fifo", attributes: Fattr::NONE };
    let fifo = a.call(&[OpArgs::PutRootFh, OpArgs::Create(fifo), OpArgs::GetFh]).handle();
    assert_eq!(a.want(&fifo, read), none(OpenNoneDelegation4::NotSupportedFileType));
    let world = World::new();
    let mut a = world.client("a");
    let handle = a.open("f", share_access::READ | share_access::WANT_NO_DELEG).handle();
    let unsupported = Ok(Wanted::No(OpenNoneDelegation4::WriteNotSupportedFileType));
    assert_eq!(a.want(&handle, share_access::WANT_WRITE_DELEG), unsupported);
}
