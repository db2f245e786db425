//! The command as an operator uses it.

mod client;
mod serving;

use client::Client;
use ringback_rpc::nfs4::fore::share_access;
use serving::{Folder, RINGBACK, Serving};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(args: &[&str]) -> Output {
    Command::new(RINGBACK).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What is said when it cannot be done.
fn complaint(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_server_is_inspected_operated_and_ended() {
    let folder = Folder::new("operated");
    std::fs::create_dir(folder.file("export")).unwrap();
    std::fs::write(folder.file("export/greeting"), "hello").unwrap();
    let (export, socket) = (folder.file("export"), folder.file("admin"));
    let mut server = Serving::start(&["--export", &export, "--admin", &socket, "--drain-timeout", "1"]);
    assert!(server.line().starts_with("copied 1 file, 5 bytes"));
    assert!(server.line().starts_with("serving NFSv4.0, 4.1 and 4.2 on 127.0.0.1:"));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let json = stdout(&run(&["inspect", "--admin", &socket, "--json"]));
    let seen: ringback_server::Inspection = serde_json::from_str(&json).unwrap();
    assert_eq!((seen.clients.len(), seen.delegations, seen.files), (0, 0, 1));
    let text = stdout(&run(&["inspect", "--admin", &socket]));
    assert!(text.starts_with("0 clients, 0 of 1048576 delegations, 1 files\nreactor 0:\n  0 queued, "), "{text}");
    assert!(seen.reactors[0].counters["syscalls"] > 0 && text.contains("syscalls "), "{text}");
    assert_eq!(stdout(&run(&["recall", "--admin", &socket, "--all"])), "0 callbacks are on their way\n");
    assert_eq!(stdout(&run(&["recall", "--admin", &socket, "--file", "greeting"])), "0 callbacks are on their way\n");
    assert_eq!(stdout(&run(&["trigger", "--admin", &socket, "--max-delegations", "7"])), "done\n");
    assert!(complaint(&["recall", "--admin", &socket, "--file", "missing"]).contains("NFS4ERR_NOENT"));
    assert!(complaint(&["recall", "--admin", &socket, "--client", "nobody"]).contains("no client"));
    assert!(complaint(&["serve", "--listen", "127.0.0.1:0", "--admin", &socket]).contains("in use"));
    let said = server.end();
    assert!(said.starts_with("SIGTERM: draining for at most 1 s\ndrained in "), "{said}");
    assert!(!Path::new(&socket).exists());
    assert!(complaint(&["inspect", "--admin", &socket]).contains("no server listens there"));
}

/// Where the reactors run is said at the start, and told to whoever reads stderr.
#[test]
fn a_server_says_where_its_reactors_are_pinned_to() {
    let allowed = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let cpu = allowed.split([',', '-']).next().unwrap();
    let mut command = Command::new(RINGBACK);
    command.args(["serve", "--listen", "127.0.0.1:0", "--backend", "epoll", "--reactors", "2", "--cpus", cpu]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    let mut server = Serving(child, out);
    assert!(server.line().starts_with("serving NFSv4.0, 4.1 and 4.2 on 127.0.0.1:"));
    for reactor in 0..2 {
        let line = server.line();
        assert!(line.starts_with(&format!("reactor {reactor}: pinned to CPU {cpu}")), "{line}");
    }
    server.end();
    let mut logged = String::new();
    stderr.read_to_string(&mut logged).unwrap();
    assert!(logged.starts_with("ringback: info: back end epoll: "), "{logged}");
    assert!(logged.contains(&format!("\nringback: info: reactor 0: pinned to CPU {cpu}")), "{logged}");
}

#[test]
fn a_server_that_was_killed_is_looked_at_in_its_last_checkpoint() {
    let folder = Folder::new("checkpoint");
    let (socket, file, every) = (folder.file("admin"), folder.file("by-hand"), folder.file("every"));
    let options = ["--admin", &socket, "--checkpoint", &every, "--checkpoint-interval", "1"];
    let mut server = Serving::start(&options);
    let address = server.address();
    let mut client = Client::connect(address, "deaf".to_owned());
    client.visit("f", share_access::READ);
    // It reads nothing from here on, so it answers nothing.
    stdout(&run(&["recall", "--admin", &socket, "--client", "deaf"]));
    let sent = |text: &str| text.contains("CB_RECALL of file ") && text.contains(": sent on slot 0");
    assert!((0..1000).any(|_| sent(&stdout(&run(&["inspect", "--admin", &socket])))), "the recall is not seen");
    let written = stdout(&run(&["checkpoint", "--admin", &socket, &file]));
    assert!(written.ends_with(" bytes, 1 callbacks\n"), "{written}");
    let parse = |json: &str| serde_json::from_str::<ringback_server::Inspection>(json).unwrap();
    let live = parse(&stdout(&run(&["inspect", "--admin", &socket, "--json"])));
    // Whoever kills it: what was written every second is there.
    let recorded = || Command::new(RINGBACK).args(["inspect", &every]).output().unwrap();
    assert!((0..1000).any(|_| String::from_utf8_lossy(&recorded().stdout).contains("CB_RECALL: sent on slot 0")));
    drop(server);
    let offline = parse(&stdout(&run(&["inspect", &file, "--json"])));
    let (mut of_live, of_file) = (live.clients[0].clone(), &offline.clients[0]);
    of_live.silent_ms = of_file.silent_ms;
    for (live, file) in of_live.callbacks.iter_mut().zip(&of_file.callbacks) {
        (live.age_ms, live.stuck, live.file) = (file.age_ms, file.stuck, None);
    }
    assert_eq!(*of_file, of_live);
    assert_eq!((offline.delegations, offline.files), (live.delegations, live.files));
    assert!(complaint(&["inspect", &folder.file("nothing")]).contains("No such file"));
    std::fs::write(&file, "something else").unwrap();
    assert!(complaint(&["inspect", &file]).contains("not a checkpoint of ringback"));
}

#[test]
fn a_socket_that_was_left_over_is_replaced() {
    let folder = Folder::new("left-over");
    let socket = folder.file("admin");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut server = Serving::start(&["--admin", &socket]);
    server.line();
    assert!(stdout(&run(&["inspect", "--admin", &socket])).starts_with("0 clients"));
    server.end();
    std::fs::write(&socket, "not a socket").unwrap();
    complaint(&["serve", "--listen", "127.0.0.1:0", "--admin", &socket]);
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "not a socket", "what is no socket is left alone");
}

/// Sends bytes, and gives what comes back.
fn http(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut reply = String::new();
    // A request that was not read to its end is answered all the same, and reset.
    let _ = stream.read_to_string(&mut reply);
    reply
}

#[test]
fn metrics_are_served_to_who_asks_for_them() {
    let mut server = Serving::start(&["--metrics", "127.0.0.1:0"]);
    server.line();
    let line = server.line();
    let address = line.trim().strip_prefix("serving metrics on http://").unwrap().strip_suffix("/metrics").unwrap();
    // Says nothing, and is in nobody's way for long.
    let silent = TcpStream::connect(address).unwrap();
    let reply = http(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    assert!(
        body.starts_with("# HELP ringback_started_total ")
            && body.contains("\nringback_syscalls_total{reactor=\"0\"} ")
    );
    assert!(body.contains("\nringback_latency_seconds_count{class=\"recall\",stage=\"done\"} 0\n"), "{body}");
    let head_only = http(address, b"HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(head_only.starts_with("HTTP/1.1 200 OK") && head_only.ends_with("\r\n\r\n"));
    assert!(http(address, b"GET / HTTP/1.1\r\n\r\n").contains("404 Not Found"));
    assert!(http(address, b"DELETE /metrics HTTP/1.1\r\n\r\n").contains("\r\nAllow: GET, HEAD\r\n"));
    assert!(http(address, b"\x80\0\r\n\r\n").contains("400 Bad Request"));
    assert!(http(address, &[b'x'; 8 << 10]).contains("431 "));
    drop(silent);
    assert!(complaint(&["serve", "--listen", "127.0.0.1:0", "--metrics", address]).contains("already in use"));
    server.end();
}

#[test]
fn what_happened_last_is_told_in_words() {
    let folder = Folder::new("flight");
    let (socket, file) = (folder.file("admin"), folder.file("record"));
    let mut server = Serving::start(&["--admin", &socket]);
    server.line();
    let lines = stdout(&run(&["flight", "--admin", &socket, "--json"]));
    assert!(lines.starts_with("{\"ringback_flight\":1,"), "{lines}");
    std::fs::write(&file, lines).unwrap();
    assert_eq!(stdout(&run(&["flight", &file])), "", "nothing has happened yet");
    let top = stdout(&run(&["top", "--admin", &socket, "--once"]));
    assert!(top.starts_with("0 clients, 0 of ") && top.contains("\nREACTOR ") && top.contains("\nTROUBLE "), "{top}");
    server.end();
    std::fs::write(&file, "something else\n").unwrap();
    assert!(complaint(&["flight", &file]).contains("line 1: not a flight record"));
    assert!(complaint(&["top", "--admin", &socket, "--once"]).contains("no server listens there"));
}

#[test]
fn what_happened_before_callbacks_were_given_up_is_kept() {
    let folder = Folder::new("given-up");
    let (socket, file) = (folder.file("admin"), folder.file("record"));
    let serve = ["--admin", &socket, "--flight-file", &file, "--drain-timeout", "0"];
    let mut server = Serving::start(&serve);
    let address = server.address();
    let mut client = Client::connect(address, "deaf".to_owned());
    client.visit("f", share_access::READ);
    assert_eq!(client.held.len(), 1);
    // It reads nothing from here on, so it answers nothing.
    let recall = ["recall", "--admin", &socket, "--client", "deaf"];
    assert_eq!(stdout(&run(&recall)), "1 callback is on its way\n");
    let sent = || stdout(&run(&["inspect", "--admin", &socket])).contains("CB_RECALL of file ");
    assert!((0..1000).any(|_| sent()), "the recall is not seen");
    let any = ["trigger", "--admin", &socket, "--recall-any", "0"];
    assert_eq!(stdout(&run(&any)), "1 client is asked\n");
    let said = server.end();
    assert!(said.contains(": 1 callback not answered; 1 client held 1 delegation\n"), "{said}");
    assert!(said.ends_with(&format!("what happened last is in {file}: ringback flight {file}\n")), "{said}");
    let told = stdout(&run(&["flight", &file]));
    assert!(told.contains("CB_RECALL"), "{told}");

    let mut server = Serving::start(&serve);
    server.line();
    std::fs::remove_file(&file).unwrap();
    server.end();
    assert!(!Path::new(&file).exists(), "nothing was given up");
}

#[test]
fn the_command_explains_itself() {
    let version = stdout(&run(&["--version"]));
    assert_eq!(version, format!("ringback {}\n", env!("CARGO_PKG_VERSION")));
    let help = stdout(&run(&["--help"]));
    for command in ["serve", "inspect", "top", "flight", "recall", "trigger"] {
        assert!(help.contains(command));
        stdout(&run(&[command, "--help"]));
    }
    assert!(
        complaint(&["serve", "--export", "/does/not/exist", "--listen", "127.0.0.1:0"])
            .contains("--export: /does/not/exist")
    );
    assert!(complaint(&["recall", "--admin", "x"]).contains("--all"));
    let nowhere = ["serve", "--listen", "127.0.0.1:0", "--flight-file", "/does/not/exist"];
    assert!(complaint(&nowhere).contains("--flight-file /does/not/exist: no file can be there"));
}
