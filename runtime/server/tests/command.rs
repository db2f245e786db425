//! The command as an operator uses it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

const RINGBACK: &str = env!("CARGO_BIN_EXE_ringback");

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server; killed at the end if it has not ended by itself.
struct Serving(Child, BufReader<ChildStdout>);

impl Serving {
    fn start(options: &[&str]) -> Self {
        let mut command = Command::new(RINGBACK);
        command.args(["serve", "--listen", "127.0.0.1:0", "--backend", "epoll"]).args(options);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Serving(child, out)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }

    /// SIGTERM; what it says until it ends, and that it ends well.
    fn end(mut self) -> String {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        let mut said = String::new();
        self.1.read_to_string(&mut said).unwrap();
        assert!(self.0.wait().unwrap().success());
        said
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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
    assert!(server.line().starts_with("copied 1 files, 5 bytes"));
    assert!(server.line().starts_with("serving NFSv4.1 on 127.0.0.1:"));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let json = stdout(&run(&["inspect", "--admin", &socket, "--json"]));
    let seen: ringback_server::Inspection = serde_json::from_str(&json).unwrap();
    assert_eq!((seen.clients.len(), seen.delegations, seen.files), (0, 0, 1));
    assert_eq!(stdout(&run(&["inspect", "--admin", &socket])), "0 clients, 0 of 1048576 delegations, 1 files\n");
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

#[test]
fn the_command_explains_itself() {
    let version = stdout(&run(&["--version"]));
    assert_eq!(version, format!("ringback {}\n", env!("CARGO_PKG_VERSION")));
    let help = stdout(&run(&["--help"]));
    for command in ["serve", "inspect", "recall", "trigger"] {
        assert!(help.contains(command));
        stdout(&run(&[command, "--help"]));
    }
    assert!(
        complaint(&["serve", "--export", "/does/not/exist", "--listen", "127.0.0.1:0"])
            .contains("--export: /does/not/exist")
    );
    assert!(complaint(&["recall", "--admin", "x"]).contains("--all"));
}
