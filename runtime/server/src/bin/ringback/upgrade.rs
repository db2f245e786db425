//! `ringback serve --upgrade-socket` and `--upgrade-from`: one process of the server after the other.

use crate::cli::ServeOptions;
use crate::serve::Trouble;
use ringback::{Builder, Upgraded};
use ringback_server::{Config, Server, admin};
use std::io::{ErrorKind, Write, stderr, stdout};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A socket that is made under another name, if one may still be in use under its own.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    beside: Option<PathBuf>,
}

impl Socket {
    /// Before there are other threads, see [`admin::bind`]. `option` is named if it cannot be.
    pub fn bind(option: &str, path: &Path, follows: bool) -> Result<Socket, String> {
        let beside = follows.then(|| {
            let mut beside = path.as_os_str().to_owned();
            beside.push(format!(".{}", std::process::id()));
            PathBuf::from(beside)
        });
        let listener = admin::bind(beside.as_deref().unwrap_or(path)).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                format!("{option} {}: in use; stop what listens there or choose another path", path.display())
            }
            _ => format!("{option} {}: {error}", path.display()),
        })?;
        Ok(Socket { listener, path: path.to_owned(), beside })
    }

    /// It is there under its own name from now on, instead of that of the process before.
    pub fn publish(mut self) -> std::io::Result<(UnixListener, PathBuf)> {
        if let Some(beside) = self.beside.take() {
            std::fs::rename(beside, &self.path)?;
        }
        Ok((self.listener.try_clone()?, self.path.clone()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            let _ = std::fs::remove_file(beside);
        }
    }
}

/// The process that is to be followed, if there is one.
pub fn predecessor(options: &ServeOptions) -> Result<Option<UnixStream>, String> {
    let Some(path) = &options.upgrade_from else { return Ok(None) };
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            println!("nobody serves at {}: this is the first", path.display());
            Ok(None)
        }
        Err(error) => Err(format!("--upgrade-from {}: {error}", path.display())),
    }
}

/// The server of the process before.
pub fn take_over(
    options: &ServeOptions,
    config: Config,
    builder: Builder,
    predecessor: UnixStream,
) -> Result<Server, String> {
    let patience = Duration::from_secs(options.upgrade_timeout.into());
    let (server, upgraded) = Server::take_over(config, builder, Arc::new(Trouble), predecessor, patience)
        .map_err(|e| format!("--upgrade-from: the other process goes on: {e}"))?;
    println!("took over {}", told(&upgraded));
    Ok(server)
}

/// Waits for the process after this one, on a thread of its own; then this one ends.
pub fn await_successor(server: &Arc<Server>, socket: UnixListener, patience: Duration) -> Result<(), String> {
    let server = Arc::clone(server);
    let wait = move || {
        for successor in socket.incoming() {
            match successor
                .map_err(|e| e.to_string())
                .and_then(|successor| server.hand_over(successor, patience).map_err(|e| e.to_string()))
            {
                Ok(upgraded) => {
                    let mut out = stdout();
                    // That nobody reads it is no reason to stay.
                    let _ = writeln!(out, "handed over {}", told(&upgraded)).and_then(|()| out.flush());
                    // Sockets have their names from the next one by now: nothing is to be tidied up.
                    std::process::exit(0);
                }
                Err(error) => {
                    let _ = writeln!(stderr(), "ringback: not handed over, and serving on: {error}");
                }
            }
        }
    };
    let spawned = std::thread::Builder::new().name("nfs-upgrade".to_owned()).spawn(wait);
    spawned.map(drop).map_err(|e| format!("--upgrade-socket: {e}"))
}

fn told(upgraded: &Upgraded) -> String {
    let Upgraded { connections, clients, callbacks, in_flight, pause, .. } = upgraded;
    let pause = pause.as_secs_f64() * 1e3;
    format!(
        "{connections} connections of {clients} clients, {callbacks} callbacks, {in_flight} of them in flight; \
         nothing was served for {pause:.1} ms"
    )
}
