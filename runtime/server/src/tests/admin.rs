//! The admin socket when somebody does not play along.

use super::*;
use crate::admin::{self, Admin, Request};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// A path for a socket, which goes with it.
struct Path(PathBuf);

impl Path {
    fn new(name: &str) -> Self {
        Path(std::env::temp_dir().join(format!("ringback-{name}-{}", std::process::id())))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn who_asks_nothing_does_not_keep_the_server_from_ending() {
    let path = Path::new("silent");
    let builder = Builder::new().reactors(1).backend(Backend::Epoll);
    let server = Arc::new(Server::new(Config::default(), builder, Arc::new(Counts::default())).unwrap());
    let admin = Admin::start(&server, admin::bind(&path.0).unwrap(), &path.0).unwrap();
    let silent = UnixStream::connect(&path.0).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let (ended, end) = channel();
    std::thread::spawn(move || {
        drop(admin);
        ended.send(()).unwrap();
    });
    end.recv_timeout(PATIENCE).expect("it waits for who is silent");
    drop(silent);
}

#[test]
fn a_server_that_ends_without_an_answer_is_said_so() {
    let path = Path::new("mute");
    let listener = admin::bind(&path.0).unwrap();
    let mute = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        BufReader::new(stream).read_line(&mut String::new()).unwrap();
    });
    let error = admin::ask(&path.0, &Request::RecallAll).unwrap_err();
    assert_eq!(error.to_string(), "the server ended before it answered");
    mute.join().unwrap();
}
