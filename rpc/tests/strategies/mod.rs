//! Random values of the wire types. What they borrow is leaked: a test process is short.
#![allow(dead_code)] // each test program uses some of it

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use ringback_rpc::message::AuthSys;
use ringback_rpc::nfs4::callback::*;
use ringback_rpc::nfs4::*;
use ringback_rpc::xdr::Decode;

type Any<T> = BoxedStrategy<T>;

fn leak<T>(values: Vec<T>) -> &'static [T] {
    Vec::leak(values)
}

pub fn bytes(len_max: usize) -> Any<&'static [u8]> {
    prop::collection::vec(any::<u8>(), 0..=len_max).prop_map(leak).boxed()
}

fn list<T: Decode<'static> + Copy + std::fmt::Debug + 'static>(
    element: Any<T>,
    len_max: usize,
) -> Any<List<'static, T>> {
    prop::collection::vec(element, 0..=len_max).prop_map(|v| List::Slice(leak(v))).boxed()
}

pub fn status() -> Any<Status> {
    prop_oneof![select(Status::ALL), any::<u32>().prop_map(Status)].boxed()
}

/// A status other than NFS4_OK.
pub fn failure() -> Any<Status> {
    status().prop_filter("a failure", |status| !status.is_ok()).boxed()
}

pub fn bitmap() -> Any<Bitmap4> {
    prop::collection::vec(any::<u32>(), 0..=BITMAP_WORDS_MAX).prop_map(|w| Bitmap4::from_words(&w).unwrap()).boxed()
}

pub fn stateid() -> Any<Stateid4> {
    (any::<u32>(), any::<[u8; 12]>()).prop_map(|(seqid, other)| Stateid4 { seqid, other }).boxed()
}

pub fn filehandle() -> Any<FileHandle<'static>> {
    bytes(FHSIZE).prop_map(|b| FileHandle::new(b).unwrap()).boxed()
}

pub fn session_id() -> Any<SessionId> {
    any::<[u8; 16]>().prop_map(SessionId).boxed()
}

pub fn verifier() -> Any<Verifier4> {
    any::<[u8; 8]>().prop_map(Verifier4).boxed()
}

pub fn state_owner() -> Any<StateOwner4<'static>> {
    (any::<u64>(), bytes(40)).prop_map(|(id, owner)| StateOwner4::new(ClientId4(id), owner).unwrap()).boxed()
}

pub fn attributes() -> Any<Fattr<'static>> {
    (bitmap(), bytes(40)).prop_map(|(mask, values)| Fattr { mask, values }).boxed()
}

pub fn time() -> Any<NfsTime4> {
    (any::<i64>(), any::<u32>()).prop_map(|(seconds, nseconds)| NfsTime4 { seconds, nseconds }).boxed()
}

pub fn change_info() -> Any<ChangeInfo4> {
    (any::<bool>(), any::<u64>(), any::<u64>())
        .prop_map(|(atomic, before, after)| ChangeInfo4 { atomic, before, after })
        .boxed()
}

fn fsid() -> Any<Fsid4> {
    (any::<u64>(), any::<u64>()).prop_map(|(major, minor)| Fsid4 { major, minor }).boxed()
}

fn ace() -> Any<NfsAce4<'static>> {
    (any::<u32>(), any::<u32>(), any::<u32>(), bytes(20))
        .prop_map(|(kind, flag, access_mask, who)| NfsAce4 { kind, flag, access_mask, who })
        .boxed()
}

fn space_limit() -> Any<SpaceLimit4> {
    prop_oneof![
        any::<u64>().prop_map(SpaceLimit4::Size),
        any::<(u32, u32)>().prop_map(|(blocks, bytes_per_block)| SpaceLimit4::Blocks { blocks, bytes_per_block }),
    ]
    .boxed()
}

pub fn delegation() -> Any<OpenDelegation4<'static>> {
    let why = prop_oneof![
        any::<bool>().prop_map(|will_push| OpenNoneDelegation4::Contention { will_push }),
        any::<bool>().prop_map(|will_signal| OpenNoneDelegation4::Resource { will_signal }),
        select(vec![
            OpenNoneDelegation4::NotWanted,
            OpenNoneDelegation4::NotSupportedFileType,
            OpenNoneDelegation4::WriteNotSupportedFileType,
            OpenNoneDelegation4::NotSupportedUpgrade,
            OpenNoneDelegation4::NotSupportedDowngrade,
            OpenNoneDelegation4::Cancelled,
            OpenNoneDelegation4::IsDirectory,
        ]),
    ];
    prop_oneof![
        Just(OpenDelegation4::None),
        why.prop_map(OpenDelegation4::NoneExt),
        (stateid(), any::<bool>(), ace()).prop_map(|(stateid, recall, permissions)| OpenDelegation4::Read(
            OpenReadDelegation4 { stateid, recall, permissions }
        )),
        (stateid(), any::<bool>(), space_limit(), ace()).prop_map(|(stateid, recall, space_limit, permissions)| {
            OpenDelegation4::Write(OpenWriteDelegation4 { stateid, recall, space_limit, permissions })
        }),
    ]
    .boxed()
}

pub fn auth_sys() -> Any<AuthSys<'static>> {
    (any::<u32>(), bytes(255), any::<u32>(), any::<u32>(), prop::collection::vec(any::<u32>(), 0..=16))
        .prop_map(|(stamp, name, uid, gid, gids)| AuthSys::new(stamp, name, uid, gid, &gids).unwrap())
        .boxed()
}

pub fn sec_parms() -> Any<CallbackSecParms<'static>> {
    prop_oneof![
        Just(CallbackSecParms::None),
        auth_sys().prop_map(CallbackSecParms::Sys),
        (select(GssService::ALL), bytes(40), bytes(40)).prop_map(
            |(service, handle_from_server, handle_from_client)| {
                CallbackSecParms::Gss(GssHandles { service, handle_from_server, handle_from_client })
            }
        ),
    ]
    .boxed()
}

fn layout_recall() -> Any<LayoutRecall<'static>> {
    prop_oneof![
        (filehandle(), any::<u64>(), any::<u64>(), stateid())
            .prop_map(|(fh, offset, length, stateid)| LayoutRecall::File { fh, offset, length, stateid }),
        fsid().prop_map(LayoutRecall::Fsid),
        Just(LayoutRecall::All),
    ]
    .boxed()
}

fn notify4() -> Any<Notify4<'static>> {
    (bitmap(), bytes(60)).prop_map(|(mask, values)| Notify4 { mask, values }).boxed()
}

fn entry() -> Any<NotifyEntry<'static>> {
    (bytes(20), attributes()).prop_map(|(name, attributes)| NotifyEntry { name, attributes }).boxed()
}

fn removed() -> Any<NotifyRemove<'static>> {
    (entry(), any::<u64>()).prop_map(|(entry, cookie)| NotifyRemove { entry, cookie }).boxed()
}

fn added() -> Any<NotifyAdd<'static>> {
    let before = (entry(), any::<u64>()).prop_map(|(entry, cookie)| PrevEntry { entry, cookie }).boxed();
    (option::of(removed()), entry(), any::<Option<u64>>(), option::of(before), any::<bool>())
        .prop_map(|(old_entry, new_entry, new_entry_cookie, prev_entry, last_entry)| NotifyAdd {
            old_entry,
            new_entry,
            new_entry_cookie,
            prev_entry,
            last_entry,
        })
        .boxed()
}

pub fn notification() -> Any<Notification<'static>> {
    prop_oneof![
        entry().prop_map(Notification::ChangeChildAttributes),
        entry().prop_map(Notification::ChangeDirectoryAttributes),
        removed().prop_map(Notification::Remove),
        added().prop_map(Notification::Add),
        (removed(), added())
            .prop_map(|(old_entry, new_entry)| Notification::Rename(NotifyRename { old_entry, new_entry })),
        (verifier(), verifier()).prop_map(|(old, new)| Notification::ChangeCookieVerifier(NotifyVerifier { old, new })),
    ]
    .boxed()
}

pub fn device_notification() -> Any<DeviceNotification> {
    (any::<u32>(), any::<[u8; 16]>(), any::<Option<bool>>())
        .prop_map(|(layout_type, device_id, immediate)| {
            let (layout_type, device_id) = (LayoutType4(layout_type), DeviceId4(device_id));
            match immediate {
                None => DeviceNotification::Delete(NotifyDeviceIdDelete { layout_type, device_id }),
                Some(immediate) => {
                    DeviceNotification::Change(NotifyDeviceIdChange { layout_type, device_id, immediate })
                }
            }
        })
        .boxed()
}

fn offload_info() -> Any<OffloadInfo> {
    prop_oneof![
        (option::of(stateid()), any::<u64>(), select(StableHow4::ALL), verifier()).prop_map(
            |(callback_id, count, committed, verifier)| {
                OffloadInfo::Done(WriteResponse4 { callback_id, count, committed, verifier })
            }
        ),
        (failure(), any::<u64>()).prop_map(|(status, bytes_copied)| OffloadInfo::Failed { status, bytes_copied }),
    ]
    .boxed()
}

fn sequence_args() -> Any<CbSequenceArgs<'static>> {
    let call = any::<(u32, u32)>().prop_map(|(sequence_id, slot_id)| ReferringCall { sequence_id, slot_id }).boxed();
    let calls =
        (session_id(), list(call, 4)).prop_map(|(session_id, calls)| ReferringCallList { session_id, calls }).boxed();
    (session_id(), any::<(u32, u32, u32, bool)>(), list(calls, 4))
        .prop_map(|(session_id, (sequence_id, slot_id, highest_slot_id, cache_this), referring_call_lists)| {
            CbSequenceArgs { session_id, sequence_id, slot_id, highest_slot_id, cache_this, referring_call_lists }
        })
        .boxed()
}

fn recall_any() -> Any<CbRecallAnyArgs> {
    (any::<u32>(), bitmap())
        .prop_map(|(objects_to_keep, type_mask)| CbRecallAnyArgs { objects_to_keep, type_mask })
        .boxed()
}

/// Arguments of any operation.
pub fn cb_args() -> Any<CbArgs<'static>> {
    let illegal = any::<u32>().prop_filter("no operation", |n| CallbackOp::try_from(*n).is_err());
    let delegations = prop_oneof![
        (filehandle(), bitmap()).prop_map(|(fh, attr_request)| CbArgs::Getattr(CbGetattrArgs { fh, attr_request })),
        (stateid(), any::<bool>(), filehandle()).prop_map(|(stateid, truncate, fh)| CbArgs::Recall(CbRecallArgs {
            stateid,
            truncate,
            fh
        })),
        (filehandle(), delegation()).prop_map(|(fh, delegation)| CbArgs::PushDeleg(CbPushDelegArgs { fh, delegation })),
        recall_any().prop_map(CbArgs::RecallAny),
        recall_any().prop_map(CbArgs::RecallableObjAvail),
        any::<(bool, bool)>().prop_map(|(contended, resourced)| CbArgs::WantsCancelled(CbWantsCancelledArgs {
            contended_wants_cancelled: contended,
            resourced_wants_cancelled: resourced,
        })),
    ];
    let layouts = (any::<u32>(), select(LayoutIomode4::ALL), any::<bool>(), layout_recall()).prop_map(
        |(layout_type, iomode, changed, recall)| {
            CbArgs::LayoutRecall(CbLayoutRecallArgs { layout_type: LayoutType4(layout_type), iomode, changed, recall })
        },
    );
    prop_oneof![
        6 => delegations,
        1 => layouts,
        1 => (stateid(), filehandle(), list(notify4(), 3))
            .prop_map(|(stateid, fh, changes)| CbArgs::Notify(CbNotifyArgs { stateid, fh, changes })),
        1 => any::<u32>().prop_map(|t| CbArgs::RecallSlot(CbRecallSlotArgs { target_highest_slot_id: t })),
        2 => sequence_args().prop_map(CbArgs::Sequence),
        1 => (filehandle(), state_owner())
            .prop_map(|(fh, lock_owner)| CbArgs::NotifyLock(CbNotifyLockArgs { fh, lock_owner })),
        1 => list(notify4(), 3).prop_map(|changes| CbArgs::NotifyDeviceId(CbNotifyDeviceIdArgs { changes })),
        1 => (filehandle(), stateid(), offload_info())
            .prop_map(|(fh, stateid, info)| CbArgs::Offload(CbOffloadArgs { fh, stateid, info })),
        1 => illegal.prop_map(CbArgs::Illegal),
    ]
    .boxed()
}

/// Results of any operation.
pub fn cb_res() -> Any<CbRes<'static>> {
    let sequence = (session_id(), any::<(u32, u32, u32, u32)>()).prop_map(
        |(session_id, (sequence_id, slot_id, highest_slot_id, target_highest_slot_id))| {
            CbRes::Sequence(Ok(CbSequenceRes {
                session_id,
                sequence_id,
                slot_id,
                highest_slot_id,
                target_highest_slot_id,
            }))
        },
    );
    let bare: Vec<CallbackOp> = CallbackOp::ALL
        .iter()
        .copied()
        .filter(|op| !matches!(op, CallbackOp::Getattr | CallbackOp::Sequence))
        .collect();
    prop_oneof![
        attributes().prop_map(|attributes| CbRes::Getattr(Ok(attributes))),
        sequence,
        (select(bare), status()).prop_map(|(op, status)| CbRes::failed(op, status)),
        (select(CallbackOp::ALL), failure()).prop_map(|(op, status)| CbRes::failed(op, status)),
    ]
    .boxed()
}
