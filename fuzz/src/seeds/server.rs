//! Seeds of the file server: what clients do with files, in few compounds.

use super::{Seed, seed};
use crate::server::{compound, how};
use ringback_rpc::nfs4::fore::*;
use ringback_rpc::nfs4::{
    Bitmap4, ClientId4, Fattr, LayoutIomode4, LayoutType4, List, NfsTime4, StableHow4, StateOwner4, Stateid4,
    Verifier4, attr,
};
use ringback_rpc::xdr::{Encode, Writer};

/// The stateid of the operation before (RFC 8881 section 16.2.3.1.2).
const CURRENT: Stateid4 = Stateid4 { seqid: 1, other: [0; 12] };
const FIRST: u8 = 0;
const SECOND: u8 = how::SECOND;

fn owner() -> StateOwner4<'static> {
    StateOwner4::new(ClientId4(0), b"owner").expect("below the limit")
}

fn attributes(mask: &[u32], write: impl FnOnce(&mut Writer<'_>) -> ringback_rpc::xdr::Result<()>) -> Fattr<'static> {
    Fattr { mask: Bitmap4::of(mask), values: super::written(write).leak() }
}

fn open(access: u32, how: OpenHow<'static>, claim: OpenClaim<'static>) -> OpArgs<'static> {
    OpArgs::Open(OpenArgs { seqid: 0, share_access: access, share_deny: share_deny::NONE, owner: owner(), how, claim })
}

fn create(access: u32) -> OpArgs<'static> {
    open(access, OpenHow::Unchecked(Fattr::NONE), OpenClaim::Null(b"file"))
}

fn lookup(name: &'static [u8]) -> OpArgs<'static> {
    OpArgs::Lookup(LookupArgs { name })
}

fn getattr() -> OpArgs<'static> {
    let set_only = 1 << (attr::TIME_ACCESS_SET - 32) | 1 << (attr::TIME_MODIFY_SET - 32);
    let request = Bitmap4::from_words(&[u32::MAX, !set_only, u32::MAX]).expect("three words");
    OpArgs::GetAttr(GetAttrArgs { request })
}

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    let mut add = |name: &str, compounds: &[Vec<u8>]| seeds.push(seed("server", name, compounds.concat()));
    let close = OpArgs::Close(CloseArgs { seqid: 0, open_stateid: CURRENT });
    let write = WriteArgs { stateid: CURRENT, offset: 5, stable: StableHow4::FileSync, data: b"some data" };
    let read = OpArgs::Read(ReadArgs { stateid: CURRENT, offset: 0, count: 100 });
    let commit = OpArgs::Commit(CommitArgs { offset: 0, count: 0 });
    let data = [create(share_access::BOTH), OpArgs::Write(write), read, commit, getattr(), close];
    add("data", &[compound(FIRST, &data)]);
    let layout_type = LayoutType4::FLEX_FILES;
    let get = LayoutGetArgs {
        signal: false,
        layout_type,
        iomode: LayoutIomode4::Rw,
        offset: 0,
        length: u64::MAX,
        length_min: 0,
        stateid: CURRENT,
        bytes_max: 4096,
    };
    let what = LayoutReturn::File { offset: 0, length: u64::MAX, stateid: CURRENT, body: &[] };
    let give_back = LayoutReturnArgs { reclaim: false, layout_type, iomode: LayoutIomode4::Any, what };
    let through = [create(share_access::BOTH), OpArgs::LayoutGet(get), OpArgs::Write(write), read, getattr()];
    let cut = [open(
        share_access::BOTH,
        OpenHow::Unchecked(attributes(&[attr::SIZE], |w| w.u64(0))),
        OpenClaim::Null(b"file"),
    )];
    let returned = [create(share_access::BOTH), OpArgs::LayoutGet(get), OpArgs::LayoutReturn(give_back), close];
    add(
        "layout",
        &[compound(FIRST, &through), compound(SECOND, &cut), compound(FIRST, &returned), compound(SECOND, &cut)],
    );
    let fewer = [getattr()];
    let more = [getattr(), getattr(), getattr()];
    add(
        "slots",
        &[
            compound(FIRST | how::SLOTS, &fewer),
            compound(FIRST, &fewer),
            compound(FIRST, &fewer),
            compound(FIRST | how::SLOTS, &more),
            compound(FIRST, &more),
        ],
    );
    add(
        "conflict",
        &[
            compound(FIRST, &[create(share_access::READ), OpArgs::GetFh]),
            compound(SECOND, &[create(share_access::WRITE)]),
            compound(SECOND, &[OpArgs::Remove(RemoveArgs { target: b"file" })]),
            compound(
                FIRST,
                &[create(share_access::BOTH), OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: CURRENT })],
            ),
        ],
    );
    add(
        "claims",
        &[
            compound(FIRST, &[open(share_access::READ, OpenHow::NoCreate, OpenClaim::Previous(DelegationType4::Read))]),
            compound(FIRST, &[create(share_access::READ), open(1, OpenHow::NoCreate, OpenClaim::FileHandle)]),
            compound(FIRST, &[open(3, OpenHow::Exclusive(Verifier4([3; 8])), OpenClaim::Null(b"exclusive"))]),
        ],
    );
    add("locks", &[locks()]);
    add("names", &names());
    add("set_attributes", &[set_attributes()]);
    let stateids = [CURRENT, Stateid4::ANONYMOUS];
    add(
        "stateids",
        &[compound(
            FIRST,
            &[
                OpArgs::TestStateid(TestStateidArgs { stateids: List::Slice(&stateids) }),
                OpArgs::FreeStateid(FreeStateidArgs { stateid: CURRENT }),
            ],
        )],
    );
    add(
        "leave",
        &[
            compound(
                how::BARE | how::ELSEWHERE,
                &[OpArgs::DestroyClientId(DestroyClientIdArgs { client_id: ClientId4(1) })],
            ),
            compound(FIRST, &[OpArgs::SecInfoNoName(SecInfoStyle::CurrentFileHandle)]),
            compound(FIRST, &[OpArgs::SecInfo(SecInfoArgs { name: b"file" })]),
        ],
    );
    minor0(&mut add);
    add("raw", &[compound(how::RAW, &[OpArgs::GetFh])]);
}

/// Operations of minor version 0: CURRENT stands for what was returned last, zero for what has to be filled in.
fn minor0(add: &mut impl FnMut(&str, &[Vec<u8>])) {
    let (first, second) = (FIRST | how::MINOR0, SECOND | how::MINOR0);
    let confirm = OpArgs::OpenConfirm(OpenConfirmArgs { open_stateid: CURRENT, seqid: 0 });
    let downgrade = OpenDowngradeArgs { open_stateid: CURRENT, seqid: 0, share_access: 1, share_deny: 0 };
    let close = OpArgs::Close(CloseArgs { seqid: 0, open_stateid: CURRENT });
    let read = OpArgs::Read(ReadArgs { stateid: CURRENT, offset: 0, count: 100 });
    let renew = OpArgs::Renew(RenewArgs { client_id: ClientId4(0) });
    let owners = [create(share_access::BOTH), confirm, create(share_access::BOTH), read, renew];
    let ends = [OpArgs::OpenDowngrade(downgrade), close, close];
    add("minor0_owners", &[compound(first, &owners), compound(first, &ends)]);
    let (offset, length) = (10, 20);
    let new = OpenToLockOwner { open_seqid: 0, open_stateid: CURRENT, lock_seqid: 0, lock_owner: owner() };
    let again = ExistingLockOwner { lock_stateid: CURRENT, lock_seqid: 0 };
    let lock = |locker| OpArgs::Lock(LockArgs { kind: LockType::WriteWait, reclaim: false, offset, length, locker });
    let unlock = UnlockArgs { kind: LockType::Write, seqid: 0, lock_stateid: CURRENT, offset, length };
    let test = LockTestArgs { kind: LockType::Read, offset: 0, length: u64::MAX, owner: owner() };
    let release = OpArgs::ReleaseLockOwner(ReleaseLockOwnerArgs { lock_owner: owner() });
    let locks = [create(share_access::BOTH), confirm, lock(Locker::New(new)), lock(Locker::Existing(again))];
    let freed = [release, OpArgs::Unlock(unlock), release];
    let other = [create(share_access::BOTH), confirm, OpArgs::LockTest(test), lock(Locker::New(new))];
    add("minor0_locks", &[compound(first, &locks), compound(second, &other), compound(first, &freed)]);
}

fn locks() -> Vec<u8> {
    let (offset, length) = (10, 20);
    let first = OpenToLockOwner { open_seqid: 0, open_stateid: CURRENT, lock_seqid: 0, lock_owner: owner() };
    let again = ExistingLockOwner { lock_stateid: CURRENT, lock_seqid: 0 };
    let lock = |locker| OpArgs::Lock(LockArgs { kind: LockType::Write, reclaim: false, offset, length, locker });
    let unlock = UnlockArgs { kind: LockType::Write, seqid: 0, lock_stateid: CURRENT, offset: 12, length: 2 };
    let test = LockTestArgs { kind: LockType::Read, offset: 0, length: u64::MAX, owner: owner() };
    compound(
        FIRST,
        &[
            create(share_access::BOTH),
            lock(Locker::New(first)),
            lock(Locker::Existing(again)),
            OpArgs::Unlock(unlock),
            OpArgs::LockTest(test),
        ],
    )
}

fn names() -> Vec<Vec<u8>> {
    let make = |kind, name| OpArgs::Create(CreateArgs { kind, name, attributes: Fattr::NONE });
    let directory = CreateType::Plain(file_type::DIRECTORY);
    let request = Bitmap4::of(&[attr::TYPE, attr::RDATTR_ERROR, attr::FILEID]);
    let list = ReadDirArgs { cookie: 0, verifier: Verifier4([0; 8]), names_bytes_max: 1024, bytes_max: 2048, request };
    vec![
        compound(FIRST, &[make(directory, b"directory"), create(share_access::WRITE), OpArgs::LookupParent]),
        compound(FIRST, &[make(CreateType::Symlink(b"file"), b"symlink"), OpArgs::ReadLink]),
        compound(
            FIRST,
            &[
                lookup(b"directory"),
                lookup(b"file"),
                OpArgs::SaveFh,
                OpArgs::PutRootFh,
                OpArgs::Link(LinkArgs { new_name: b"link" }),
            ],
        ),
        compound(
            SECOND,
            &[
                OpArgs::SaveFh,
                lookup(b"directory"),
                OpArgs::Rename(RenameArgs { old_name: b"symlink", new_name: b"link" }),
            ],
        ),
        compound(SECOND, &[lookup(b"directory"), OpArgs::ReadDir(list), OpArgs::Access(AccessArgs { access: 0x3f })]),
        compound(SECOND, &[OpArgs::Remove(RemoveArgs { target: b"directory" })]),
    ]
}

fn set_attributes() -> Vec<u8> {
    let mask = [attr::SIZE, attr::MODE, attr::OWNER, attr::OWNER_GROUP, attr::TIME_ACCESS_SET, attr::TIME_MODIFY_SET];
    let all = attributes(&mask, |w| {
        w.u64(100)?;
        w.u32(0o640)?;
        w.opaque(b"1000")?;
        w.opaque(b"100")?;
        w.u32(0)?;
        w.u32(1)?;
        NfsTime4 { seconds: 7, nseconds: 8 }.encode(w)
    });
    let size = attributes(&[attr::SIZE], |w| w.u64(100));
    compound(
        FIRST,
        &[
            create(share_access::BOTH),
            OpArgs::SetAttr(SetAttrArgs { stateid: CURRENT, attributes: all }),
            OpArgs::Verify(VerifyArgs { attributes: size }),
            OpArgs::NotVerify(VerifyArgs { attributes: size }),
        ],
    )
}
