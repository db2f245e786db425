//! `ringback serve`, as a process.
#![allow(dead_code)] // each test file uses a part

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

pub const RINGBACK: &str = env!("CARGO_BIN_EXE_ringback");

/// A folder of its own, gone at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server; killed at the end if it has not ended by itself.
pub struct Serving(pub Child, pub BufReader<ChildStdout>);

impl Serving {
    pub fn start(options: &[&str]) -> Self {
        Serving::start_on("epoll", options)
    }

    pub fn start_on(backend: &str, options: &[&str]) -> Self {
        let mut command = Command::new(RINGBACK);
        command.args(["serve", "--backend", backend]).args(options);
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Serving(child, out)
    }

    /// Where it says that it serves.
    pub fn address(&mut self) -> SocketAddr {
        let line = self.line();
        let address = line.strip_prefix("serving NFSv4.0, 4.1 and 4.2 on ").and_then(|rest| rest.split(',').next());
        address.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }

    /// SIGTERM; what it says until it ends, and that it ends well.
    pub fn end(mut self) -> String {
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
