//! Processes of this command's own: each measurement is made in a fresh one, with its swarm in another.

use super::job::Request;
use super::swarm;
use serde::{Serialize, de::DeserializeOwned};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A child process, which writes one line of JSON when its work is done. It is never left behind.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    output: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts a swarm.
    pub fn swarm(config: &swarm::Config) -> Result<Child, String> {
        Child::start("--swarm-role", config)
    }

    /// Starts a measurement.
    pub fn measurement(request: &Request) -> Result<Child, String> {
        Child::start("--measure-role", request)
    }

    fn start<T: Serialize>(role: &str, config: &T) -> Result<Child, String> {
        let config = serde_json::to_string(config).map_err(|e| format!("a process cannot be told what to do: {e}"))?;
        // Not current_exe(): its path names another file once a new build has replaced this one.
        let mut process = Command::new("/proc/self/exe")
            .arg0("peers")
            .args([role, &config])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("a process cannot be started: {e}"))?;
        let Some(mut stdout) = process.stdout.take() else { unreachable!("it was asked for as a pipe") };
        let (tx, output) = channel();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            // What could not be read is no answer, which is noticed below.
            let _ = stdout.read_to_string(&mut text);
            let _ = tx.send(text);
        });
        Ok(Child { process, output, reader: Some(reader) })
    }

    /// Its answer, within `limit`.
    pub fn answer<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T, String> {
        let text = self.output.recv_timeout(limit).map_err(|_| format!("no answer within {} s", limit.as_secs()))?;
        let status = self.process.wait().map_err(|e| format!("a process is lost: {e}"))?;
        match serde_json::from_str::<Result<T, String>>(&text) {
            Ok(answer) => answer,
            Err(_) => Err(format!("a process ended without an answer: {status}")),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
