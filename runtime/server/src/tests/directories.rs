//! Directory delegations: GET_DIR_DELEGATION, CB_NOTIFY, and when it is CB_RECALL instead.

use super::callbacks::Inbox;
use super::*;
use ringback_rpc::nfs4::callback::{
    CbNotifyArgs, Notification, NotifyAdd, NotifyEntry, NotifyRemove, NotifyRename, NotifyVerifier, notify_type,
};

/// All notifications that are served.
const ALL: [u32; 5] = [
    notify_type::CHANGE_DIR_ATTRS,
    notify_type::REMOVE_ENTRY,
    notify_type::ADD_ENTRY,
    notify_type::RENAME_ENTRY,
    notify_type::CHANGE_COOKIE_VERIFIER,
];
/// Those on names.
const NAMES: [u32; 3] = [notify_type::REMOVE_ENTRY, notify_type::ADD_ENTRY, notify_type::RENAME_ENTRY];

pub(super) fn asked(types: &[u32]) -> GetDirDelegationArgs {
    GetDirDelegationArgs {
        signal: false,
        notification_types: Bitmap4::of(types),
        child_delay: NfsTime4 { seconds: 0, nseconds: 0 },
        directory_delay: NfsTime4 { seconds: 0, nseconds: 0 },
        child_attributes: Bitmap4::of(&[attr::TYPE, attr::FILEID]),
        directory_attributes: Bitmap4::of(&[attr::CHANGE, attr::MODE]),
    }
}

/// What one CB_NOTIFY tells, in words.
fn told(args: &CbArgs<'_>, stateid: Stateid4) -> Vec<String> {
    let CbArgs::Notify(CbNotifyArgs { stateid: about, changes, .. }) = args else { panic!("no CB_NOTIFY: {args:?}") };
    assert_eq!(*about, stateid);
    changes
        .iter()
        .flat_map(|change| change.notifications().map(|n| in_words(&n.unwrap())).collect::<Vec<_>>())
        .collect()
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn in_words(notification: &Notification<'_>) -> String {
    match notification {
        Notification::Add(NotifyAdd { old_entry, new_entry, new_entry_cookie: Some(_), .. }) => {
            let over = if old_entry.is_some() { " over another" } else { "" };
            format!("+{}{over}", text(new_entry.name))
        }
        Notification::Remove(NotifyRemove { entry, .. }) => format!("-{}", text(entry.name)),
        Notification::Rename(NotifyRename { old_entry, new_entry }) => {
            let over = if new_entry.old_entry.is_some() { " over another" } else { "" };
            format!("{}>{}{over}", text(old_entry.entry.name), text(new_entry.new_entry.name))
        }
        Notification::ChangeDirectoryAttributes(NotifyEntry { attributes, .. }) => {
            let mut r = Reader::new(attributes.values);
            r.u64("change").unwrap();
            format!("mode {:o}", r.u32("mode").unwrap())
        }
        Notification::ChangeCookieVerifier(NotifyVerifier { old, new }) => {
            format!("verifier {:?}>{:?}", old.0[7], new.0[7])
        }
        other => panic!("{other:?}"),
    }
}

impl Peer<'_> {
    pub(super) fn get_dir_delegation(&mut self, args: GetDirDelegationArgs) -> Result<GetDirDelegationOk, Status> {
        match self.call(&[OpArgs::PutRootFh, OpArgs::GetDirDelegation(args)]).last() {
            OpRes::GetDirDelegation(result) => result,
            other => Err(other.status()),
        }
    }

    /// A delegation of the root directory.
    fn watch(&mut self, types: &[u32]) -> DirDelegation {
        match self.get_dir_delegation(asked(types)) {
            Ok(GetDirDelegationOk::Granted(granted)) => granted,
            other => panic!("{other:?}"),
        }
    }

    fn give_back(&mut self, granted: &DirDelegation) -> Status {
        let args = DelegReturnArgs { deleg_stateid: granted.stateid };
        self.call(&[OpArgs::PutRootFh, OpArgs::DelegReturn(args)]).status()
    }

    fn mkdir(&mut self, name: &str) -> Status {
        let kind = CreateType::Plain(file_type::DIRECTORY);
        let args = CreateArgs { kind, name: name.as_bytes(), attributes: Fattr::NONE };
        self.call(&[OpArgs::PutRootFh, OpArgs::Create(args)]).status()
    }

    fn rm(&mut self, name: &str) -> Status {
        self.call(&[OpArgs::PutRootFh, OpArgs::Remove(RemoveArgs { target: name.as_bytes() })]).status()
    }

    fn mv(&mut self, from: &str, to: &str) -> Status {
        let args = RenameArgs { old_name: from.as_bytes(), new_name: to.as_bytes() };
        self.call(&[OpArgs::PutRootFh, OpArgs::SaveFh, OpArgs::Rename(args)]).status()
    }

    fn chmod_root(&mut self, mode: u32) -> Status {
        let values = mode.to_be_bytes();
        let attributes = Fattr { mask: Bitmap4::of(&[attr::MODE]), values: &values };
        let args = SetAttrArgs { stateid: Stateid4::ANONYMOUS, attributes };
        self.call(&[OpArgs::PutRootFh, OpArgs::SetAttr(args)]).status()
    }
}

/// Takes notifications until all that is expected has been told, and in that order; in how many calls.
fn expect(inbox: &mut Inbox<'_, '_>, peer: &Peer<'_>, stateid: Stateid4, expected: &[&str]) -> usize {
    let (mut all, mut calls) = (Vec::new(), 0);
    while all.len() < expected.len() {
        let call = inbox.call();
        let (header, sequence, args) = parse_call(&call);
        all.extend(told(&args, stateid));
        calls += 1;
        peer.answer_call(&header, sequence, &CbRes::Notify(Status::NFS4_OK));
    }
    assert_eq!(all, expected);
    calls
}

#[test]
fn the_holder_is_told_of_names_that_come_and_go() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let granted = a.watch(&[ALL.as_slice(), &[notify_type::CHANGE_CHILD_ATTRS]].concat());
    assert_eq!(granted.notification_types, Bitmap4::of(&ALL), "what is not served is not granted");
    let mut of_a = Inbox::of(&a);
    // The first call waits for its answer, and what happens meanwhile goes with the second.
    assert_eq!(b.mkdir("one"), Status::NFS4_OK);
    let call = of_a.call();
    let (header, sequence, args) = parse_call(&call);
    let first = told(&args, granted.stateid);
    assert_eq!(first, ["+one", "mode 777"]);
    assert_eq!(b.open("two", share_access::READ).status(), Status::NFS4_OK);
    assert_eq!(b.mkdir("three"), Status::NFS4_OK);
    assert_eq!(b.mv("three", "four"), Status::NFS4_OK);
    assert_eq!(b.mv("four", "one"), Status::NFS4_OK);
    assert_eq!(b.rm("one"), Status::NFS4_OK);
    assert_eq!(b.chmod_root(0o700), Status::NFS4_OK);
    let renew = crate::admin::Request::CookieVerifier("/".to_owned());
    assert_eq!(world.server.answer(&renew), crate::admin::Reply::Started(1));
    assert!(of_a.is_empty(), "one notification at a time");
    a.answer_call(&header, sequence, &CbRes::Notify(Status::NFS4_OK));
    let rest = ["+two", "+three", "three>four", "four>one over another", "-one", "verifier 0>1", "mode 700"];
    assert_eq!(expect(&mut of_a, &a, granted.stateid, &rest), 1, "all of them in one call");
    assert!(of_a.is_empty());
    drop(of_a);
    assert_eq!(world.counts.accepted.load(SeqCst), 0, "nothing was recalled");
    assert_eq!(a.give_back(&granted), Status::NFS4_OK);
    assert_eq!(b.mkdir("five"), Status::NFS4_OK);
    assert!(Inbox::of(&a).is_empty(), "it holds nothing any more");
    let left = || (0..crate::files::SHARDS).map(|n| world.inner().files.shard(n).delegations.len()).sum::<u32>();
    world.until("only that of a file is left", || left() == 1);
    assert_eq!(world.inner().files.changes.used(), 0);
}

#[test]
fn the_holder_is_told_of_its_own_names_and_not_of_its_own_attributes() {
    let world = World::new();
    let mut a = world.client("a");
    let granted = a.watch(&ALL);
    assert_eq!(a.chmod_root(0o700), Status::NFS4_OK);
    assert_eq!(a.mkdir("own"), Status::NFS4_OK);
    expect(&mut Inbox::of(&a), &a, granted.stateid, &["+own"]);
    // What it does not hear of is no reason to recall its own.
    assert_eq!(a.give_back(&granted), Status::NFS4_OK);
    a.watch(&[]);
    assert_eq!(a.mkdir("other"), Status::NFS4_OK);
    assert!(Inbox::of(&a).is_empty());
    assert_eq!(world.server.delegations(), 1);
}

#[test]
fn what_the_holder_would_not_hear_of_waits_until_its_delegation_is_back() {
    for (types, change) in [(&[][..], 0), (&[notify_type::REMOVE_ENTRY], 0), (&NAMES[..2], 1), (&NAMES, 2), (&ALL, 3)] {
        let world = World::new();
        let (mut a, mut b) = (world.client("a"), world.client("b"));
        assert_eq!(b.mkdir("d"), Status::NFS4_OK);
        // Another directory, whose removal is told to nobody but with a recall.
        let granted = if change == 3 {
            let lookup = OpArgs::Lookup(LookupArgs { name: b"d" });
            match a.call(&[OpArgs::PutRootFh, lookup, OpArgs::GetDirDelegation(asked(types))]).last() {
                OpRes::GetDirDelegation(Ok(GetDirDelegationOk::Granted(granted))) => granted,
                other => panic!("{other:?}"),
            }
        } else {
            a.watch(types)
        };
        let mut act = || match change {
            0 => b.mkdir("new"),
            1 => b.mv("d", "e"),
            2 => b.chmod_root(0o755),
            _ => b.rm("d"),
        };
        assert_eq!(act(), Status::NFS4ERR_DELAY, "{types:?}");
        let recalled = a.recalled();
        assert_eq!(recalled.stateid, granted.stateid);
        a.answer(&recalled, Status::NFS4_OK);
        assert_eq!(act(), Status::NFS4ERR_DELAY);
        let lookup = OpArgs::Lookup(LookupArgs { name: b"d" });
        let give_back = OpArgs::DelegReturn(DelegReturnArgs { deleg_stateid: granted.stateid });
        let way =
            if change == 3 { vec![OpArgs::PutRootFh, lookup, give_back] } else { vec![OpArgs::PutRootFh, give_back] };
        assert_eq!(a.call(&way).status(), Status::NFS4_OK);
        assert_eq!(act(), Status::NFS4_OK);
        assert_eq!(world.counts.accepted.load(SeqCst), 1);
    }
}

#[test]
fn a_holder_that_refuses_a_notification_is_recalled() {
    for refusal in [Status::NFS4ERR_NOTSUPP, Status::NFS4ERR_REP_TOO_BIG, Status::NFS4ERR_SERVERFAULT] {
        let world = World::new();
        let (mut a, mut b) = (world.client("a"), world.client("b"));
        let granted = a.watch(&NAMES);
        assert_eq!(b.mkdir("d"), Status::NFS4_OK);
        let call = Inbox::of(&a).call();
        let (header, sequence, args) = parse_call(&call);
        assert_eq!(told(&args, granted.stateid), ["+d"]);
        a.answer_call(&header, sequence, &CbRes::Notify(refusal));
        let recalled = a.recalled();
        assert_eq!(recalled.stateid, granted.stateid);
        a.answer(&recalled, Status::NFS4_OK);
        assert_eq!(b.mkdir("e"), Status::NFS4ERR_DELAY, "it is not told of more");
        assert_eq!(a.give_back(&granted), Status::NFS4_OK);
        assert_eq!(b.mkdir("e"), Status::NFS4_OK);
    }
}

#[test]
fn a_holder_that_does_not_keep_up_is_recalled() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let granted = a.watch(&NAMES);
    let mut of_a = Inbox::of(&a);
    assert_eq!(b.mkdir("first"), Status::NFS4_OK);
    let unanswered = of_a.call();
    assert!(matches!(parse_call(&unanswered).2, CbArgs::Notify(_)));
    let mut made = 0;
    while b.mkdir(&format!("{made}")) == Status::NFS4_OK {
        made += 1;
        assert!(made < 1000, "there is no end to it");
    }
    assert_eq!(made, 257, "so many wait, and the next one is too much");
    let call = of_a.call();
    let (header, sequence, args) = parse_call(&call);
    assert!(matches!(args, CbArgs::Recall(r) if r.stateid == granted.stateid), "{args:?}");
    a.answer_call(&header, sequence, &CbRes::Recall(Status::NFS4_OK));
    assert_eq!(world.inner().files.changes.used(), 0, "nothing of it is kept");
    drop(of_a);
    assert_eq!(a.give_back(&granted), Status::NFS4_OK);
    assert_eq!(b.mkdir("last"), Status::NFS4_OK);
}

#[test]
fn more_than_one_call_carries_is_told_in_order() {
    let world = World::new();
    let (mut a, mut b) = (world.stranger("a"), world.client("b"));
    // The least that a session may have for a callback.
    let (id, sequence, _) = a.exchange_id(0).unwrap();
    a.client_id = id;
    let args = a.create_session_args(sequence);
    let back_channel = ChannelAttrs { request_bytes_max: 768, ..args.back_channel };
    a.session = a.create_session(&CreateSessionArgs { back_channel, ..args }).unwrap().session_id;
    assert_eq!(a.call(&[OpArgs::ReclaimComplete(ReclaimCompleteArgs { one_fs: false })]).status(), Status::NFS4_OK);
    a.settle();
    let mut args = asked(&NAMES);
    args.child_attributes = Bitmap4::EMPTY;
    let Ok(GetDirDelegationOk::Granted(granted)) = a.get_dir_delegation(args) else { panic!("not granted") };
    let names: Vec<String> = (0..20).map(|n| format!("d{n}")).collect();
    for name in &names {
        assert_eq!(b.mkdir(name), Status::NFS4_OK);
    }
    let expected: Vec<String> = names.iter().map(|name| format!("+{name}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let calls = expect(&mut Inbox::of(&a), &a, granted.stateid, &expected);
    assert!((10..=20).contains(&calls), "{calls}");
    // A name that no call has room for.
    assert_eq!(b.mkdir(&"long".repeat(60)), Status::NFS4_OK);
    assert_eq!(a.recalled().stateid, granted.stateid);
}

#[test]
fn a_directory_delegation_is_not_always_to_be_had() {
    let world = World::with(Config { delegations_max: 1, contended: Duration::from_secs(5), ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let unavailable = Ok(GetDirDelegationOk::Unavailable { will_signal: false });
    let granted = a.watch(&NAMES);
    assert_eq!(a.get_dir_delegation(asked(&NAMES)), unavailable, "it has one");
    assert_eq!(b.get_dir_delegation(asked(&NAMES)), unavailable, "there are no more");
    assert_eq!(a.give_back(&granted), Status::NFS4_OK);
    let granted = b.watch(&[]);
    assert_eq!(a.mkdir("d"), Status::NFS4ERR_DELAY);
    assert_eq!(b.give_back(&granted), Status::NFS4_OK);
    assert_eq!(b.get_dir_delegation(asked(&NAMES)), unavailable, "others change it");
    b.now_ns = 6_000_000_000;
    b.watch(&NAMES);
    let open = a.open("f", share_access::READ);
    assert_eq!(open.status(), Status::NFS4_OK);
    let ask = OpArgs::GetDirDelegation(asked(&NAMES));
    assert_eq!(a.call(&[Peer::put_fh(&open.handle()), ask]).status(), Status::NFS4ERR_NOTDIR);
    assert_eq!(a.call(&[ask]).status(), Status::NFS4ERR_NOFILEHANDLE);
}

#[test]
fn a_directory_delegation_that_is_not_returned_is_revoked() {
    let world = World::with(Config { lease: Duration::from_secs(1), ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let granted = a.watch(&[]);
    assert_eq!(b.mkdir("d"), Status::NFS4ERR_DELAY);
    let recalled = a.recalled();
    a.answer(&recalled, Status::NFS4_OK);
    world.until("the return is overdue", || world.server.delegations() == 0);
    assert_eq!(b.mkdir("d"), Status::NFS4_OK);
    assert_ne!(a.flags() & seq4_status::RECALLABLE_STATE_REVOKED, 0);
    assert_eq!(a.give_back(&granted), Status::NFS4ERR_DELEG_REVOKED);
    let free = OpArgs::FreeStateid(FreeStateidArgs { stateid: granted.stateid });
    assert_eq!(a.call(&[free]).status(), Status::NFS4_OK);
    assert_eq!(a.flags() & seq4_status::RECALLABLE_STATE_REVOKED, 0);
}

#[test]
fn what_a_client_that_is_gone_held_on_a_directory_is_in_nobodys_way() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    a.watch(&[]);
    a.verifier += 1;
    a.establish();
    assert_eq!(b.mkdir("d"), Status::NFS4_OK);
    assert_eq!(world.server.delegations(), 0);
}
