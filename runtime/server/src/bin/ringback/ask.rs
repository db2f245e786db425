//! `ringback inspect`, `recall` and `trigger`: what is asked of a running server.

use crate::cli::{InspectOptions, RecallOptions, RecallWhat, Socket, TriggerOptions, TriggerWhat};
use ringback_server::admin::{self, Reply, Request};
use std::io::ErrorKind;

/// Shows what the server knows.
pub fn inspect(options: &InspectOptions) -> Result<(), String> {
    match ask(&options.socket, &Request::Inspect { callbacks_max: options.callbacks.into() })? {
        Reply::Inspection(inspection) if options.json => {
            println!("{}", serde_json::to_string(&inspection).map_err(|e| e.to_string())?);
        }
        Reply::Inspection(inspection) => print!("{inspection}"),
        other => return Err(unexpected(&other)),
    }
    Ok(())
}

/// Recalls delegations.
pub fn recall(options: RecallOptions) -> Result<(), String> {
    let request = match options.what {
        RecallWhat { file: Some(file), .. } => Request::RecallFile(file),
        RecallWhat { client: Some(client), .. } => Request::RecallClient(client),
        RecallWhat { .. } => Request::RecallAll,
    };
    order(&options.socket, &request)
}

/// Starts callbacks by hand.
pub fn trigger(options: TriggerOptions) -> Result<(), String> {
    let request = match options.what {
        TriggerWhat { getattr: Some(file), .. } => Request::Getattr(file),
        TriggerWhat { notify_lock: Some(file), .. } => Request::NotifyLock(file),
        TriggerWhat { recall_any: Some(keep), .. } => Request::RecallAny(keep),
        TriggerWhat { max_delegations: Some(max), .. } => Request::MaxDelegations(max),
        // The parser wants one of them.
        TriggerWhat { .. } => return Err("nothing to start: see --help".to_owned()),
    };
    order(&options.socket, &request)
}

fn order(socket: &Socket, request: &Request) -> Result<(), String> {
    match ask(socket, request)? {
        Reply::Started(count) => println!("{count} callbacks are on their way"),
        Reply::Done => println!("done"),
        other => return Err(unexpected(&other)),
    }
    Ok(())
}

fn ask(socket: &Socket, request: &Request) -> Result<Reply, String> {
    let path = socket.admin.display();
    let reply = admin::ask(&socket.admin, request).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            format!("--admin {path}: no server listens there; start one with `ringback serve --admin {path}`")
        }
        ErrorKind::PermissionDenied => {
            format!("--admin {path}: permission denied; ask as the user that the server runs as")
        }
        _ => format!("--admin {path}: {error}"),
    })?;
    match reply {
        Reply::Error(error) => Err(error),
        reply => Ok(reply),
    }
}

fn unexpected(reply: &Reply) -> String {
    format!("the server is of another version: it answers {reply:?}")
}
