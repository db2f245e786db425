//! What callbacks say and what clients answer, written and taken apart through the library.

use super::*;

/// The arguments that `encode` writes for `op`, read back.
fn encoded(op: CallbackOp, encode: impl FnOnce(&mut rb_args) -> c_int, check: impl FnOnce(CbArgs<'_>)) {
    let mut space = [0; 1024];
    let mut writer = Writer::new(&mut space);
    let mut args = rb_args::new(op, &mut writer);
    assert_eq!(encode(&mut args), 0, "{}", last_error());
    args.finish().unwrap();
    let mut reader = Reader::new(writer.written());
    check(CbArgs::decode_body(op, &mut reader).unwrap());
    reader.finish("args").unwrap();
}

const STATEID: rb_stateid = rb_stateid { seqid: 2, other: [3; 12] };

/// A struct of zeroes.
fn zeroed<T: Copy>() -> T {
    // SAFETY: used for structs of integers and pointers alone.
    unsafe { MaybeUninit::<T>::zeroed().assume_init() }
}

#[test]
fn arguments_that_recall_are_what_the_protocol_says() {
    let fh = bytes(b"handle");
    let getattr = rb_getattr_args { fh, request: rb_bitmap { words: [0b1_1000, 0, 0, 0, 0, 0, 0, 0] } };
    // SAFETY: P2, here and below.
    encoded(
        CallbackOp::Getattr,
        |a| unsafe { rb_encode_getattr(Some(a), Some(&getattr)) },
        |args| {
            let CbArgs::Getattr(args) = args else { panic!("{args:?}") };
            assert_eq!((args.fh.as_bytes(), args.attr_request), (&b"handle"[..], Bitmap4::of(&[3, 4])));
        },
    );
    let layout =
        rb_layoutrecall_args { layout_type: 1, iomode: 3, kind: 1, fh, length: 9, stateid: STATEID, ..zeroed() };
    // SAFETY: P2
    encoded(
        CallbackOp::LayoutRecall,
        |a| unsafe { rb_encode_layoutrecall(Some(a), Some(&layout)) },
        |args| {
            assert!(format!("{args:?}").contains("length: 9"), "{args:?}");
        },
    );
    let push =
        rb_push_deleg_args { fh, stateid: STATEID, is_write: 1, limit_bytes: 77, ace_who: bytes(b"me"), ..zeroed() };
    // SAFETY: P2
    encoded(
        CallbackOp::PushDeleg,
        |a| unsafe { rb_encode_push_deleg(Some(a), Some(&push)) },
        |args| {
            assert!(format!("{args:?}").contains("Size(77)"), "{args:?}");
        },
    );
    let any = rb_recall_any_args { objects_to_keep: 5, type_mask: rb_bitmap { words: [3, 0, 0, 0, 0, 0, 0, 0] } };
    encoded(
        CallbackOp::RecallAny,
        |a| rb_encode_recall_any(Some(a), Some(&any)),
        |args| {
            let CbArgs::RecallAny(args) = args else { panic!("{args:?}") };
            assert_eq!((args.objects_to_keep, args.type_mask), (5, Bitmap4::of(&[0, 1])));
        },
    );
    encoded(CallbackOp::RecallableObjAvail, |a| rb_encode_recallable_obj_avail(Some(a), Some(&any)), |_| ());
    encoded(
        CallbackOp::RecallSlot,
        |a| rb_encode_recall_slot(Some(a), 6),
        |args| {
            assert!(format!("{args:?}").contains('6'), "{args:?}");
        },
    );
    encoded(
        CallbackOp::WantsCancelled,
        |a| rb_encode_wants_cancelled(Some(a), 1, 0),
        |args| {
            let CbArgs::WantsCancelled(args) = args else { panic!("{args:?}") };
            assert!(args.contended_wants_cancelled && !args.resourced_wants_cancelled);
        },
    );
    let offload = rb_offload_args { fh, stateid: STATEID, committed: 2, count: 8, ..zeroed() };
    // SAFETY: P2
    encoded(
        CallbackOp::Offload,
        |a| unsafe { rb_encode_offload(Some(a), Some(&offload)) },
        |args| {
            assert!(format!("{args:?}").contains("FileSync"), "{args:?}");
        },
    );
    let failed = rb_offload_args { status: 28, ..offload };
    // SAFETY: P2
    encoded(
        CallbackOp::Offload,
        |a| unsafe { rb_encode_offload(Some(a), Some(&failed)) },
        |args| {
            assert!(format!("{args:?}").contains("NFS4ERR_NOSPC"), "{args:?}");
        },
    );
}

#[test]
fn arguments_that_tell_are_what_the_protocol_says() {
    let entry = rb_notify_entry { name: bytes(b"name"), cookie: 4, ..zeroed() };
    let of_kind = |kind: rb_notify_kind| rb_notification { kind: kind as i32, entry, old_entry: entry, ..zeroed() };
    let added =
        rb_notification { replaced: &entry, previous: &entry, has_cookie: 1, ..of_kind(rb_notify_kind::RB_NOTIFY_ADD) };
    let changes = [
        of_kind(rb_notify_kind::RB_NOTIFY_CHILD_ATTRS),
        of_kind(rb_notify_kind::RB_NOTIFY_DIR_ATTRS),
        of_kind(rb_notify_kind::RB_NOTIFY_REMOVE),
        added,
        rb_notification { kind: rb_notify_kind::RB_NOTIFY_RENAME as i32, ..added },
        of_kind(rb_notify_kind::RB_NOTIFY_VERIFIER),
    ];
    let notify =
        rb_notify_args { stateid: STATEID, fh: bytes(b"dir"), changes: changes.as_ptr(), changes_count: changes.len() };
    // SAFETY: P2, here and below.
    encoded(
        CallbackOp::Notify,
        |a| unsafe { rb_encode_notify(Some(a), Some(&notify)) },
        |args| {
            let CbArgs::Notify(args) = args else { panic!("{args:?}") };
            let bits: Vec<_> = args.changes.iter().flat_map(|c| c.notifications()).map(|n| n.unwrap().bit()).collect();
            assert_eq!(bits, [0, 1, 2, 3, 4, 5]);
        },
    );
    let lock = rb_notify_lock_args { fh: bytes(b"f"), client_id: 1, owner: bytes(b"owner") };
    // SAFETY: P2
    encoded(
        CallbackOp::NotifyLock,
        |a| unsafe { rb_encode_notify_lock(Some(a), Some(&lock)) },
        |args| {
            let CbArgs::NotifyLock(args) = args else { panic!("{args:?}") };
            assert_eq!((args.lock_owner.client_id.0, args.lock_owner.owner()), (1, &b"owner"[..]));
        },
    );
    let devices = [rb_device_notification { is_deleted: 1, layout_type: 1, ..zeroed() }, zeroed()];
    // SAFETY: P2
    encoded(
        CallbackOp::NotifyDeviceId,
        |a| unsafe { rb_encode_notify_deviceid(Some(a), devices.as_ptr(), 2) },
        |args| {
            let CbArgs::NotifyDeviceId(args) = args else { panic!("{args:?}") };
            let bits: Vec<_> =
                args.changes.iter().flat_map(|c| c.device_notifications()).map(|n| n.unwrap().bit()).collect();
            assert_eq!(bits, [2, 1]);
        },
    );
}

#[test]
fn arguments_of_another_operation_or_twice_or_too_many_are_refused() {
    let mut space = [0; 8];
    let mut writer = Writer::new(&mut space);
    let mut args = rb_args::new(CallbackOp::RecallSlot, &mut writer);
    assert_eq!(rb_encode_wants_cancelled(Some(&mut args), 1, 1), INVALID);
    assert!(last_error().contains("the operation is CB_RECALL_SLOT"), "{}", last_error());
    assert_eq!(rb_encode_recall_slot(Some(&mut args), 6), 0);
    assert_eq!(rb_encode_recall_slot(Some(&mut args), 6), INVALID);
    args.finish().unwrap();
    let mut args = rb_args::new(CallbackOp::Recall, &mut writer);
    let recall = rb_recall_args { stateid: STATEID, truncate: 0, fh: bytes(b"x") };
    // SAFETY: P2
    let answer = unsafe { rb_encode_recall(Some(&mut args), Some(&recall)) };
    assert_eq!(answer, rb_error::RB_ERR_NO_SPACE as c_int);
    assert!(args.finish().is_err());
    assert!(rb_args::new(CallbackOp::Recall, &mut writer).finish().is_err(), "nothing was written");
    let long = rb_recall_args { fh: bytes(&[0; 129]), ..recall };
    let mut args = rb_args::new(CallbackOp::Recall, &mut writer);
    // SAFETY: P2
    assert_eq!(unsafe { rb_encode_recall(Some(&mut args), Some(&long)) }, INVALID);
}

#[test]
fn a_call_of_the_fore_channel_is_named() {
    let mut calls = ringback::ReferringCalls::probe();
    // SAFETY: P2
    assert_eq!(unsafe { rb_name_call(Some(&mut rb_referring(&mut calls)), none(), 1, 2) }, NULL);
    assert!(!calls.is_used());
    // SAFETY: P2
    assert_eq!(unsafe { rb_name_call(Some(&mut rb_referring(&mut calls)), [7; 16].as_ptr(), 1, 2) }, 0);
    assert!(calls.is_used());
}

#[test]
fn what_a_client_says_of_a_file_is_taken_apart() {
    let mut space = [0; 256];
    let mut w = Writer::new(&mut space);
    let mut values = 5u64.to_be_bytes().to_vec();
    values.extend(6u64.to_be_bytes());
    values.extend([7i64.to_be_bytes().as_slice(), &8u32.to_be_bytes()].concat());
    Fattr { mask: Bitmap4::of(&[3, 4, 84]), values: &values }.encode(&mut w).unwrap();
    let mut told = sized::<rb_attributes>();
    let decode = |bytes: &[u8], told: &mut rb_attributes| {
        // SAFETY: P2, P3
        unsafe { rb_decode_getattr(bytes.as_ptr(), bytes.len(), told) }
    };
    assert_eq!(decode(w.written(), &mut told), 0);
    assert_eq!((told.has_change, told.change, told.has_file_size, told.file_size), (1, 5, 1, 6));
    assert_eq!(
        (told.has_time_deleg_access, told.time_deleg_access.seconds, told.time_deleg_access.nseconds),
        (1, 7, 8)
    );
    assert_eq!((told.has_time_deleg_modify, told.values.count), (0, values.len()));
    for cut in 0..w.written().len() {
        assert_eq!(decode(&w.written()[..cut], &mut told), rb_error::RB_ERR_XDR as c_int, "{cut}");
    }
}
