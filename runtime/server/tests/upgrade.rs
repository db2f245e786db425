//! One process of the server after another: a client with an open file and a delegation notices nothing.

mod client;
mod serving;

use client::Client;
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::nfs4::fore::share_access;
use serving::{Folder, Serving};
use std::net::TcpStream;

/// Both back ends, one after the other, if this host has io_uring.
fn chain() -> Vec<&'static str> {
    let uring = Serving::start_on("uring", &[]).line().starts_with("serving");
    if !uring {
        eprintln!("skipped: the io_uring back end");
    }
    if uring { vec!["epoll", "uring", "uring", "epoll", "epoll"] } else { vec!["epoll"; 3] }
}

fn next(backend: &str, socket: &str, admin: &str, more: &[&str]) -> Serving {
    let options = [&["--upgrade-socket", socket, "--upgrade-from", socket, "--admin", admin], more].concat();
    Serving::start_on(backend, &options)
}

/// What the old one says last; it has ended by then.
fn ended(mut old: Serving) {
    let said = old.line();
    assert!(said.starts_with("handed over "), "{said}");
    assert!(old.0.wait().unwrap().success());
}

/// What is stored goes from one process to the next, and back when the next one has not come.
#[test]
fn the_state_goes_to_the_next_process() {
    let folder = Folder::new("upgraded-state");
    let (socket, admin, state) = (folder.file("upgrade"), folder.file("admin"), folder.file("state"));
    let more = ["--state", &state, "--save-interval", "3600"];
    let mut server = next("epoll", &socket, &admin, &more);
    assert!(server.line().starts_with("nobody serves at "));
    assert!(server.line().starts_with("found 0 files in "));
    let address = server.address();
    let mut client = Client::connect(address, "client".to_owned());
    let open = client.open("file", share_access::READ | share_access::WRITE);
    // One that cannot keep the state is refused, and the first goes on with it.
    let mut refused = next("epoll", &socket, &admin, &["--state", &folder.file("upgrade/none")]);
    assert_eq!(refused.line(), "");
    drop(refused);
    let other = client.open("made after a refusal", share_access::READ);
    let mut following = next("epoll", &socket, &admin, &more);
    let said = following.line();
    assert!(said.starts_with("took over "), "{said}");
    ended(std::mem::replace(&mut server, following));
    assert_eq!(server.address(), address);
    client.write(&open, 0, b"after");
    assert_eq!(client.read(&other, 0, 1), b"");
    server.end();
    let mut server = Serving::start(&more);
    assert!(server.line().starts_with("found 2 files in "));
    assert_eq!(server.line(), "1 client may reclaim for 90 s\n");
    server.address();
    server.end();
}

#[test]
fn open_files_delegations_and_sessions_outlive_the_process() {
    let folder = Folder::new("upgrade");
    let (socket, admin) = (folder.file("upgrade"), folder.file("admin"));
    let chain = chain();
    let mut server = next(chain[0], &socket, &admin, &[]);
    assert!(server.line().starts_with("nobody serves at "));
    let address = server.address();
    let mut holder = Client::connect(address, "holder".to_owned());
    let open = holder.open("file", share_access::READ | share_access::WRITE);
    holder.write(&open, 0, b"before");
    holder.visit("read by the holder", share_access::READ);
    let held = holder.held.len();
    assert_eq!(held, 2, "both are delegated");
    holder.watch();
    // One waits for a delegation.
    let shared = holder.open("shared", share_access::READ | share_access::WRITE | share_access::WANT_NO_DELEG);
    let mut waiter = Client::connect(address, "waiter".to_owned());
    let push = share_access::WANT_READ_DELEG | share_access::WANT_PUSH_DELEG_WHEN_UNCONTENDED;
    waiter.open("shared", share_access::READ | push);
    let mut waiting = TcpStream::connect(address).unwrap();
    for (n, backend) in chain.iter().enumerate().skip(1) {
        let mut following = next(backend, &socket, &admin, &["--reactors", &(1 + n % 3).to_string()]);
        let said = following.line();
        assert!(said.starts_with("took over "), "{said}");
        ended(std::mem::replace(&mut server, following));
        assert_eq!(server.address(), address);
        // The same connection, session and open.
        let offset = n as u64 * 100_000;
        holder.write(&open, offset, b"after");
        assert_eq!((holder.read(&open, 0, 6), holder.read(&open, offset, 5)), (b"before".to_vec(), b"after".to_vec()));
        assert_eq!(holder.held.len(), held);
    }
    // A new client is served at the same address, and what is in its way is recalled by the last process.
    let other = std::thread::spawn(move || {
        let mut other = Client::connect(address, "other".to_owned());
        other.visit("file", share_access::READ | share_access::WRITE);
        other.visit("read by the holder", share_access::WRITE);
        other.visit("made by the other", share_access::READ);
    });
    while !other.is_finished() {
        // It answers recalls, and gives back what was recalled, between its own calls.
        holder.visit("something else", share_access::READ);
    }
    other.join().unwrap();
    // The notification may be behind the reply to who has made it.
    for _ in 0..1000 {
        if holder.added.len() == 3 {
            break;
        }
        holder.read(&open, 0, 1);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(holder.added, ["shared", "something else", "made by the other"], "the directory is delegated as before");
    assert_eq!(holder.recalls, held as u64);
    holder.close(&shared);
    waiter.attend(|waiter| waiter.called.contains(&CallbackOp::PushDeleg));
    holder.write(&open, 3, b"!");
    // A connection that was there from the beginning is one still.
    use std::io::{Read, Write};
    waiting.write_all(&[0x80, 0, 0, 40, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0x86, 0xa3, 0, 0, 0, 4]).unwrap();
    waiting.write_all(&[0; 20]).unwrap();
    let mut reply = [0; 8];
    waiting.read_exact(&mut reply).unwrap();
    assert_eq!(reply[4..], [0, 0, 0, 9]);
    server.end();
}

/// A process that is gone before it has taken over is none to follow.
#[test]
fn a_server_that_is_not_taken_over_goes_on() {
    let folder = Folder::new("not-upgraded");
    let (socket, admin) = (folder.file("upgrade"), folder.file("admin"));
    let mut server = next("epoll", &socket, &admin, &[]);
    server.line();
    let address = server.address();
    let mut client = Client::connect(address, "client".to_owned());
    let open = client.open("file", share_access::READ | share_access::WRITE);
    for n in 0..3 {
        // It says hello, and then it is gone.
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        std::io::Write::write_all(&mut stream, b"rbup\x01\0\0\0\0\0\0\0\x08\0\0\0\x01\0\0\0\0\0\0\0").unwrap();
        drop(stream);
        client.write(&open, 0, b"still");
        assert_eq!(client.read(&open, 0, 5), b"still");
        Client::connect(address, format!("another {n}"));
    }
    let mut following = next("epoll", &socket, &admin, &[]);
    assert!(following.line().starts_with("took over "));
    ended(server);
    client.write(&open, 5, b" there");
    assert_eq!(client.read(&open, 0, 11), b"still there");
    following.address();
    following.end();
}
