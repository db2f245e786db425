//! Every callback over TCP, sent by hand, to a client that understands all of them. With CALLBACKS_PORT set the server listens
//! there, so that what goes over the wire can be recorded: `runtime/server/tests/capture`.

mod client;
mod serving;

use client::Client;
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::nfs4::fore::share_access;
use serving::{Folder, RINGBACK, Serving};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

const BOTH: u32 = share_access::READ | share_access::WRITE;

/// What `ringback admin` says while the client answers.
fn admin(socket: &str, client: &mut Client, order: &str) -> String {
    let args = [&["admin", "--admin", socket], &order.split(' ').collect::<Vec<_>>()[..]].concat();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let output = Command::new(RINGBACK).args(args).output();
            done.store(true, SeqCst);
            output.unwrap()
        });
        client.attend(|_| done.load(SeqCst));
        let output = asking.join().unwrap();
        assert!(output.status.success(), "{order}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    })
}

#[test]
fn every_callback_is_sent_by_hand_and_answered() {
    let folder = Folder::new("callbacks");
    let socket = folder.file("admin");
    let port = std::env::var("CALLBACKS_PORT").unwrap_or_else(|_| "0".to_owned());
    let listen = format!("127.0.0.1:{port}");
    let mut server = Serving::start(&["--listen", &listen, "--admin", &socket]);
    let address = server.address();
    let mut other = Client::connect(address, "other".to_owned());
    // COPY and CB_OFFLOAD are of minor version 2.
    let mut client = Client::connect_as(address, "client".to_owned(), 2);
    let said = |client: &mut Client, order: &str| admin(&socket, client, order);

    let file = client.open("file", BOTH);
    assert_eq!(said(&mut client, "getattr file"), "client: CB_GETATTR: NFS4_OK, change 1, size 0\n");
    assert_eq!(said(&mut client, "recall --client client"), "client: CB_RECALL: NFS4_OK\n");
    client.give_up_recalled();
    assert_eq!(said(&mut client, "push-deleg --client client --write file"), "client: CB_PUSH_DELEG: NFS4_OK\n");
    client.watch();
    other.visit("made by the other", share_access::READ);
    client.attend(|client| !client.added.is_empty());
    assert_eq!(client.added, ["made by the other"]);
    assert_eq!(said(&mut client, "notify /"), "client: CB_NOTIFY: NFS4_OK\n");
    for what in ["", " --fsid", " --file file"] {
        let order = format!("layoutrecall --client client{what}");
        assert_eq!(said(&mut client, &order), "client: CB_LAYOUTRECALL: NFS4_OK\n");
    }
    assert_eq!(said(&mut client, "recall-any --client client 3"), "client: CB_RECALL_ANY: NFS4_OK\n");
    let order = "recallable-obj-avail --client client 9";
    assert_eq!(said(&mut client, order), "client: CB_RECALLABLE_OBJ_AVAIL: NFS4_OK\n");
    for what in ["", "--changed ", "--changed --immediate "] {
        let order = format!("notify-deviceid --client client {what}00112233445566778899aabbccddeeff");
        assert_eq!(said(&mut client, &order), "client: CB_NOTIFY_DEVICEID: NFS4_OK\n");
    }
    // Somebody else holds what it waits for.
    let taken = other.open("taken", BOTH | share_access::WANT_NO_DELEG);
    let push = share_access::WANT_ANY_DELEG | share_access::WANT_PUSH_DELEG_WHEN_UNCONTENDED;
    let waiting = client.open("taken", BOTH | push);
    assert_eq!(said(&mut client, "wants-cancelled --client client"), "client: CB_WANTS_CANCELLED: NFS4_OK\n");
    assert!(other.lock(&taken, b"other"));
    assert!(!client.lock(&waiting, b"client"));
    assert_eq!(said(&mut client, "notify-lock taken"), "client: CB_NOTIFY_LOCK: NFS4_OK\n");
    client.write(&file, 4 << 20, b"end");
    client.copy(&file, &waiting);
    client.attend(|client| client.called.contains(&CallbackOp::Offload));
    // The other one does not answer meanwhile.
    let slots = said(&mut client, "--wait 1 recall-slot 2");
    assert!(slots.contains("client: CB_RECALL_SLOT: NFS4_OK\n"), "{slots}");
    let ops = CallbackOp::ALL.iter().filter(|op| !matches!(op, CallbackOp::Sequence | CallbackOp::Illegal));
    let missing: Vec<_> = ops.filter(|op| !client.called.contains(op)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    server.end();
}
