//! `ringback inspect`, `top`, `flight`, `checkpoint`, `recall`, `trigger` and `admin`: what is asked of a running server.

use crate::cli::{
    AdminOptions, AdminOrder, CheckpointOptions, FlightOptions, InspectOptions, RecallOptions, RecallWhat, Socket,
    TopOptions, TriggerOptions, TriggerWhat,
};
use ringback::Checkpoint;
use ringback_server::Inspection;
use ringback_server::admin::{self, Reply, Request};
use ringback_server::by_hand::{Answer, Layouts, Order, Whose};
use ringback_server::flight::in_words;
use ringback_server::top::View;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Shows what the server knows.
pub fn inspect(options: &InspectOptions) -> Result<(), String> {
    let callbacks_max = options.callbacks.into();
    let inspection = match (&options.admin, &options.file) {
        (Some(socket), _) => match ask(socket, &Request::Inspect { callbacks_max })? {
            Reply::Inspection(inspection) => inspection,
            other => return Err(unexpected(&other)),
        },
        (_, Some(file)) => of_file(file, callbacks_max).map_err(|e| format!("{}: {e}", file.display()))?,
        // The parser wants one of them.
        _ => return Err("nothing to inspect: see --help".to_owned()),
    };
    if options.json {
        return put(&format!("{}\n", serde_json::to_string(&inspection).map_err(|e| e.to_string())?));
    }
    put(&inspection.to_string())
}

fn of_file(file: &Path, callbacks_max: usize) -> Result<Inspection, String> {
    let checkpoint = Checkpoint::open(file).map_err(|e| e.to_string())?;
    Inspection::of_checkpoint(&checkpoint, callbacks_max)
}

/// Has a checkpoint written.
pub fn checkpoint(options: &CheckpointOptions) -> Result<(), String> {
    let file = std::path::absolute(&options.file).map_err(|e| format!("{}: {e}", options.file.display()))?;
    match ask(&options.socket.admin, &Request::Checkpoint(file))? {
        Reply::Written { bytes, callbacks } => put(&format!("{bytes} bytes, {callbacks} callbacks\n")),
        other => Err(unexpected(&other)),
    }
}

/// Shows it again and again, until it is ended.
pub fn top(options: &TopOptions) -> Result<(), String> {
    let look = || match ask(&options.socket.admin, &Request::Inspect { callbacks_max: 1 })? {
        Reply::Inspection(inspection) => Ok((inspection, Instant::now())),
        other => Err(unexpected(&other)),
    };
    let (mut now, mut at) = look()?;
    let clients_max = options.clients;
    let first = View { now: &now, before: None, clients_max }.render();
    if options.once {
        return put(&first);
    }
    put(&format!("{CLEAR}{first}"))?;
    loop {
        thread::sleep(Duration::from_secs_f64(options.interval));
        let (next, looked) = look()?;
        let seconds = looked.duration_since(at).as_secs_f64();
        put(&format!("{CLEAR}{}", View { now: &next, before: Some((&now, seconds)), clients_max }.render()))?;
        (now, at) = (next, looked);
    }
}

/// Clears the terminal, and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Prints; that nobody listens any more, as `head` does, is no panic.
fn put(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| format!("stdout: {e}"))
}

/// Tells what happened last.
pub fn flight(options: &FlightOptions) -> Result<(), String> {
    let lines = match (&options.admin, &options.file) {
        (Some(socket), _) => match ask(socket, &Request::Flight)? {
            Reply::Flight(lines) => lines,
            other => return Err(unexpected(&other)),
        },
        (_, Some(file)) => std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?,
        // The parser wants one of them.
        _ => return Err("no record: see --help".to_owned()),
    };
    let words = if options.json { lines } else { in_words(&lines)? };
    put(&words)
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
        TriggerWhat { cookie_verifier: Some(directory), .. } => Request::CookieVerifier(directory),
        TriggerWhat { layout_recall: Some(file), .. } => Request::LayoutRecallFile(file),
        TriggerWhat { layout_recall_fsid: true, .. } => Request::LayoutRecallFsid,
        TriggerWhat { layout_recall_all: true, .. } => Request::LayoutRecallAll,
        TriggerWhat { device_changed: true, .. } => Request::DeviceChanged,
        TriggerWhat { device_deleted: true, .. } => Request::DeviceDeleted,
        TriggerWhat { recall_any: Some(keep), .. } => Request::RecallAny(keep),
        TriggerWhat { max_delegations: Some(max), .. } => Request::MaxDelegations(max),
        TriggerWhat { session_slots: Some(slots), .. } => Request::SessionSlots(slots),
        // The parser wants one of them.
        TriggerWhat { .. } => return Err("nothing to start: see --help".to_owned()),
    };
    order(&options.socket, &request)
}

/// Sends callbacks by hand.
pub fn admin(options: AdminOptions) -> Result<(), String> {
    let whose = |what| match what {
        RecallWhat { file: Some(file), .. } => Whose::File(file),
        RecallWhat { client: Some(client), .. } => Whose::Client(client),
        RecallWhat { .. } => Whose::All,
    };
    let what = match options.order {
        AdminOrder::Getattr { path } => Order::Getattr(path),
        AdminOrder::Recall(what) => Order::Recall(whose(what)),
        AdminOrder::Layoutrecall { client, file, fsid } => {
            let of = if fsid { Layouts::Fsid } else { file.map_or(Layouts::All, Layouts::File) };
            Order::LayoutRecall { client, of }
        }
        AdminOrder::Notify { path } => Order::Notify(path),
        AdminOrder::PushDeleg { client, write, path: file } => Order::PushDeleg { client, file, write },
        // Whom to ask, and for how many, is the runtime's to find out.
        AdminOrder::RecallAny { client: None, keep } => {
            return order(&options.socket, &Request::RecallAny(keep.into()));
        }
        AdminOrder::RecallAny { client: Some(client), keep } => Order::RecallAny { client, keep },
        AdminOrder::RecallableObjAvail { client, keep } => Order::RecallableObjAvail { client, keep },
        AdminOrder::RecallSlot { slots } => Order::RecallSlot(slots),
        AdminOrder::WantsCancelled { client } => Order::WantsCancelled(client),
        AdminOrder::NotifyLock { path } => Order::NotifyLock(path),
        AdminOrder::NotifyDeviceid { client, changed, immediate, device } => {
            Order::NotifyDeviceId { client, device: device.0, changed, immediate }
        }
        AdminOrder::Offload { path } => Order::Offload(path),
    };
    order(&options.socket, &Request::ByHand(what, options.wait))
}

fn order(socket: &Socket, request: &Request) -> Result<(), String> {
    match ask(&socket.admin, request)? {
        Reply::Started(1) => println!("1 callback is on its way"),
        Reply::Started(count) => println!("{count} callbacks are on their way"),
        Reply::Asked(1) => println!("1 client is asked"),
        Reply::Asked(count) => println!("{count} clients are asked"),
        Reply::Done => println!("done"),
        Reply::Answers(answers) if answers.is_empty() => println!("there is nobody to be called"),
        Reply::Answers(answers) => {
            for Answer { client, callback, answer } in answers {
                println!("{client}: {callback}: {answer}");
            }
        }
        other => return Err(unexpected(&other)),
    }
    Ok(())
}

fn ask(socket: &Path, request: &Request) -> Result<Reply, String> {
    let path = socket.display();
    let reply = admin::ask(socket, request).map_err(|error| match error.kind() {
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
