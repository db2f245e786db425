//! Callbacks that an administrator has sent, and what is told of the answers.

use super::callbacks::{Inbox, lock_args, writable};
use super::*;
use crate::by_hand::{Layouts, Order, Whose};
use ringback_rpc::nfs4::callback::{
    CallbackOp, CbLayoutRecallArgs, CbRecallAnyArgs, CbRecallSlotArgs, DeviceNotification, LayoutRecall, OffloadInfo,
};

/// Errors that a client may answer with, and that end the run.
const ERRORS: [Status; 7] = [
    Status::NFS4ERR_NOTSUPP,
    Status::NFS4ERR_INVAL,
    Status::NFS4ERR_SERVERFAULT,
    Status::NFS4ERR_REP_TOO_BIG,
    Status::NFS4ERR_BADXDR,
    Status::NFS4ERR_OP_ILLEGAL,
    Status::NFS4ERR_NOMATCHING_LAYOUT,
];

/// What is told of an order that one client is called for, which is `seen` and answered with `status`.
fn told(world: &World, peer: &Peer<'_>, order: &Order, status: Status, seen: impl Fn(&CbArgs<'_>)) -> String {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| world.server.by_hand(order, PATIENCE));
        let call = Inbox::of(peer).call();
        let (header, sequence, args) = parse_call(&call);
        seen(&args);
        let values = [5u64.to_be_bytes(), 70u64.to_be_bytes()].concat();
        let attributes = Fattr { mask: Bitmap4::of(&[attr::CHANGE, attr::SIZE]), values: &values };
        let res = match args.op() {
            CallbackOp::Getattr if status.is_ok() => CbRes::Getattr(Ok(attributes)),
            op => CbRes::failed(op, status),
        };
        peer.answer_call(&header, sequence, &res);
        let answers = asking.join().unwrap().unwrap();
        let [answer] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!((&*answer.client, &*answer.callback), (&*peer.name, args.op().name()));
        answer.answer.clone()
    })
}

fn client() -> String {
    "a".to_owned()
}

#[test]
fn a_client_is_called_for_what_the_server_does_not_have() {
    let world = World::new();
    let mut a = world.client("a");
    let handle = a.open("f", share_access::READ | share_access::WANT_NO_DELEG).handle();
    let id: [u8; 16] = *b"sixteen bytes id";
    let orders = [
        Order::LayoutRecall { client: client(), of: Layouts::All },
        Order::LayoutRecall { client: client(), of: Layouts::Fsid },
        Order::LayoutRecall { client: client(), of: Layouts::File("/f".to_owned()) },
        Order::NotifyDeviceId { client: client(), device: id, changed: false, immediate: false },
        Order::NotifyDeviceId { client: client(), device: id, changed: true, immediate: true },
        Order::RecallAny { client: client(), keep: 7 },
        Order::RecallableObjAvail { client: client(), keep: 7 },
    ];
    let seen = |order: &Order, args: &CbArgs<'_>| match (order, args) {
        (Order::LayoutRecall { of, .. }, CbArgs::LayoutRecall(CbLayoutRecallArgs { layout_type, recall, .. })) => {
            assert_eq!(*layout_type, LayoutType4::FLEX_FILES);
            match (of, recall) {
                (Layouts::All, LayoutRecall::All) | (Layouts::Fsid, LayoutRecall::Fsid(_)) => {}
                (Layouts::File(_), LayoutRecall::File { fh, .. }) => assert_eq!(fh.as_bytes(), handle),
                other => panic!("{other:?}"),
            }
        }
        (Order::NotifyDeviceId { changed, .. }, CbArgs::NotifyDeviceId(notify)) => {
            let change = notify.changes.iter().next().unwrap();
            match change.device_notifications().next().unwrap().unwrap() {
                DeviceNotification::Change(change) => assert!(*changed && change.immediate && change.device_id.0 == id),
                DeviceNotification::Delete(gone) => assert!(!changed && gone.device_id.0 == id),
            }
        }
        (Order::RecallAny { .. }, CbArgs::RecallAny(any))
        | (Order::RecallableObjAvail { .. }, CbArgs::RecallableObjAvail(any)) => {
            let CbRecallAnyArgs { objects_to_keep, type_mask } = any;
            assert_eq!((*objects_to_keep, *type_mask), (7, Bitmap4::of(&[0, 1, 2])));
        }
        other => panic!("{other:?}"),
    };
    for order in &orders {
        for status in [Status::NFS4_OK].into_iter().chain(ERRORS) {
            assert_eq!(told(&world, &a, order, status, |args| seen(order, args)), status.to_string(), "{order:?}");
        }
    }
    world.until("nothing is kept", || world.server.runtime().stats().in_flight == 0);
}

#[test]
fn a_holder_is_called_for_what_it_holds() {
    let world = writable();
    let mut a = world.client("a");
    let (stateid, handle) = a.take_write_delegation("f");
    let getattr = Order::Getattr("f".to_owned());
    assert_eq!(told(&world, &a, &getattr, Status::NFS4_OK, |_| ()), "NFS4_OK, change 5, size 70");
    for status in ERRORS {
        assert_eq!(told(&world, &a, &getattr, status, |_| ()), status.to_string());
        for whose in [Whose::File("f".to_owned()), Whose::Client(client()), Whose::All] {
            let is_it = |args: &CbArgs<'_>| assert!(matches!(args, CbArgs::Recall(r) if r.stateid == stateid));
            assert_eq!(told(&world, &a, &Order::Recall(whose), status, is_it), status.to_string());
        }
    }
    assert_eq!(a.delegreturn(stateid, &handle), Status::NFS4_OK);
    let push = Order::PushDeleg { client: client(), file: "f".to_owned(), write: true };
    let nobody =
        world.server.by_hand(&Order::PushDeleg { client: "b".to_owned(), file: "f".to_owned(), write: true }, PATIENCE);
    assert!(nobody.unwrap_err().starts_with("no client \"b\""));
    assert_eq!(told(&world, &a, &push, Status::NFS4ERR_REJECT_DELEG, |_| ()), "NFS4ERR_REJECT_DELEG");
    assert_eq!(world.server.delegations(), 0);
    assert_eq!(told(&world, &a, &push, Status::NFS4_OK, |_| ()), "NFS4_OK");
    assert_eq!(world.server.delegations(), 1);
    assert!(
        world.server.by_hand(&push, PATIENCE).unwrap_err().ends_with("it cannot be delegated: the client holds one")
    );
}

#[test]
fn who_watches_waits_or_copies_is_told() {
    let world = World::new();
    let (mut a, mut b) = (world.stranger("a"), world.client("b"));
    a.minor_version = 2;
    a.establish();
    let granted = match a.get_dir_delegation(super::directories::asked(&[5])) {
        Ok(GetDirDelegationOk::Granted(granted)) => granted,
        other => panic!("{other:?}"),
    };
    let notify = Order::Notify("/".to_owned());
    assert_eq!(told(&world, &a, &notify, Status::NFS4_OK, |_| ()), "NFS4_OK");
    let give_back = OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: granted.stateid });
    assert_eq!(a.call(&[OpArgs::PutRootFh, give_back]).status(), Status::NFS4_OK);
    let (of_a, of_b) = (a.open("f", share_access::BOTH), b.open("f", share_access::BOTH));
    let handle = of_a.handle();
    let put = Peer::put_fh(&handle);
    assert_eq!(b.call(&[put, lock_args(LockType::Write, b"b's", of_b.open().stateid)]).status(), Status::NFS4_OK);
    let waits = lock_args(LockType::WriteWait, b"a's", of_a.open().stateid);
    assert_eq!(a.call(&[put, waits]).status(), Status::NFS4ERR_DENIED);
    let lock = Order::NotifyLock("f".to_owned());
    assert_eq!(told(&world, &a, &lock, Status::NFS4_OK, |_| ()), "NFS4_OK");
    // A copy that nobody works on.
    let inner = world.inner();
    let client = inner.known("a").unwrap();
    let to = inner.file_at("f").unwrap();
    let way = crate::copies::Way { from: to, from_offset: 0, to, to_offset: 0, left: 1 << 30 };
    assert!(inner.copies.begin(&client, way, None, &inner.callbacks).is_some());
    let failed = |args: &CbArgs<'_>| {
        let CbArgs::Offload(offload) = args else { panic!("{args:?}") };
        assert_eq!(offload.info, OffloadInfo::Failed { status: Status::NFS4ERR_IO, bytes_copied: 0 });
    };
    let answer = told(&world, &a, &Order::Offload("f".to_owned()), Status::NFS4_OK, failed);
    assert_eq!(answer, "NFS4_OK");
    // One who waits for a delegation.
    let args = b.open_args(
        b"f",
        share_access::READ | share_access::WANT_READ_DELEG | share_access::WANT_PUSH_DELEG_WHEN_UNCONTENDED,
        false,
    );
    b.open_with(args);
    let cancel = Order::WantsCancelled(Some("b".to_owned()));
    assert_eq!(told(&world, &b, &cancel, Status::NFS4_OK, |_| ()), "NFS4_OK");
    let slots = Order::RecallSlot(4);
    let target = |args: &CbArgs<'_>| {
        assert!(matches!(args, CbArgs::RecallSlot(CbRecallSlotArgs { target_highest_slot_id: 3 })), "{args:?}");
    };
    b.call(&[OpArgs::PutRootFh]);
    drop(b);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| world.server.by_hand(&slots, Duration::from_secs(1)));
        let call = Inbox::of(&a).call();
        let (header, sequence, args) = parse_call(&call);
        target(&args);
        a.answer_call(&header, sequence, &CbRes::RecallSlot(Status::NFS4_OK));
        let mut answers = asking.join().unwrap().unwrap();
        answers.sort_by(|a, b| a.client.cmp(&b.client));
        let answers: Vec<_> = answers.iter().map(|answer| (&*answer.client, &*answer.answer)).collect();
        assert_eq!(answers, [("a", "NFS4_OK"), ("b", "no answer yet; it goes on")]);
    });
}

#[test]
fn there_is_not_always_somebody_to_be_called() {
    let world = World::new();
    let mut a = world.client("a");
    let of_a = a.open("f", share_access::READ | share_access::WANT_NO_DELEG);
    let (file, none) = ("f".to_owned(), "missing".to_owned());
    let complaint = |order: Order| world.server.by_hand(&order, PATIENCE).unwrap_err();
    for order in [
        Order::Getattr(none.clone()),
        Order::Recall(Whose::File(none.clone())),
        Order::Notify(none.clone()),
        Order::NotifyLock(none.clone()),
        Order::Offload(none.clone()),
        Order::PushDeleg { client: client(), file: none.clone(), write: false },
        Order::LayoutRecall { client: client(), of: Layouts::File(none.clone()) },
    ] {
        assert_eq!(complaint(order), "missing: NFS4ERR_NOENT");
    }
    for order in [
        Order::Recall(Whose::Client(none.clone())),
        Order::PushDeleg { client: none.clone(), file: file.clone(), write: false },
        Order::LayoutRecall { client: none.clone(), of: Layouts::All },
        Order::RecallAny { client: none.clone(), keep: 1 },
        Order::RecallableObjAvail { client: none.clone(), keep: 1 },
        Order::WantsCancelled(Some(none.clone())),
        Order::NotifyDeviceId { client: none, device: [0; 16], changed: false, immediate: false },
    ] {
        assert!(complaint(order).starts_with("no client \"missing\""));
    }
    assert_eq!(complaint(Order::Getattr(file.clone())), "f: nobody holds a write delegation");
    assert_eq!(complaint(Order::Recall(Whose::File(file.clone()))), "f: there is no delegation");
    assert_eq!(complaint(Order::Recall(Whose::Client(client()))), "a: there is no delegation");
    assert_eq!(complaint(Order::Notify(file.clone())), "f: NFS4ERR_NOTDIR");
    assert_eq!(complaint(Order::Notify("/".to_owned())), "/: nobody holds a delegation of it");
    assert_eq!(complaint(Order::NotifyLock(file.clone())), "f: nobody waits for a lock");
    assert_eq!(complaint(Order::Offload(file.clone())), "f: nothing is being copied to it");
    assert_eq!(complaint(Order::WantsCancelled(None)), "nobody waits for a delegation");
    let push = |file: &str, write| Order::PushDeleg { client: client(), file: file.to_owned(), write };
    assert!(complaint(push("/", false)).ends_with("it is no regular file"));
    assert!(complaint(push("f", true)).ends_with("the server gives none for writing"));
    a.open("f", share_access::WRITE | share_access::WANT_NO_DELEG);
    assert!(complaint(push("f", false)).ends_with("somebody is in the way"));
    // A client that cannot be called.
    world.server.runtime().close_connection(a.connection);
    let answers =
        world.server.by_hand(&Order::RecallAny { client: client(), keep: 1 }, Duration::from_millis(50)).unwrap();
    assert_eq!(answers[0].answer, "no answer yet; it goes on");
    let _ = of_a;
}
