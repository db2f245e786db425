//! `ringback serve`.

use crate::cli::{BackendChoice, ServeOptions};
use crate::upgrade::{self, Socket};
use ringback::{Backend, Builder, DrainReport, LogLevel, LogMessage};
use ringback_server::admin::Admin;
use ringback_server::metrics::Metrics;
use ringback_server::{Config, Observer, Server};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{ErrorKind, Write, stderr};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Data of one READ or WRITE, which is also the most that Linux clients ask for.
const TRANSFER_BYTES: u32 = 1 << 20;
/// What a request or reply has besides.
const OVERHEAD_BYTES: u32 = 4096;
/// How long the process before may take to end.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(5);
/// Steps that the flight recorder of each reactor keeps: those of some eight hundred callbacks.
const FLIGHT_RECORDS: usize = 4096;

/// Serves until a signal says that it is enough.
pub fn serve(options: &ServeOptions) -> Result<(), String> {
    // Before anything is promised: a signal that comes early ends the server as well.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|e| format!("signals cannot be handled: {e}"))?;
    if let Some(file) = &options.flight_file {
        // Not only when it is wanted.
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_there = folder.is_dir() && !file.is_dir();
        is_there.then_some(()).ok_or_else(|| format!("--flight-file {}: no file can be there", file.display()))?;
    }
    let predecessor = upgrade::predecessor(options)?;
    let follows = predecessor.is_some();
    // Before there are other threads, see there.
    let bind =
        |option, path: &Option<PathBuf>| path.as_deref().map(|path| Socket::bind(option, path, follows)).transpose();
    let socket = bind("--admin", &options.admin)?;
    let for_next = bind("--upgrade-socket", &options.upgrade_socket)?;
    let server = Arc::new(match predecessor {
        Some(predecessor) => upgrade::take_over(options, config(options), builder(options), predecessor)?,
        None => begin(options)?,
    });
    let address = server.addresses().first().copied().unwrap_or(options.listen);
    let start = |socket: Socket| {
        let (socket, path) = socket.publish()?;
        Admin::start(&server, socket, &path)
    };
    let admin = socket.map(start).transpose().map_err(|e| format!("--admin: {e}"))?;
    let metrics = options.metrics.map(|address| start_metrics(&server, address, follows)).transpose()?;
    if let Some(socket) = for_next {
        let (socket, _) = socket.publish().map_err(|e| format!("--upgrade-socket: {e}"))?;
        upgrade::await_successor(&server, socket, Duration::from_secs(options.upgrade_timeout.into()))?;
    }
    let backend = server.runtime().backend();
    println!(
        "serving NFSv4.0, 4.1 and 4.2 on {address}, lease {} s, {} ({})",
        options.lease, backend.name, backend.reason
    );
    server.runtime().placement().iter().filter(|place| place.cpu.is_some()).for_each(|place| println!("{place}"));
    if let Some(metrics) = &metrics {
        println!("serving metrics on http://{}/metrics", metrics.address());
    }
    let signal = signals.forever().next();
    let name = if signal == Some(SIGINT) { "SIGINT" } else { "SIGTERM" };
    println!("{name}: draining for at most {} s", options.drain_timeout);
    drop((admin, metrics));
    let start = Instant::now();
    let (delegations, clients) = (server.delegations(), server.clients().len());
    let report = server.shutdown(Duration::from_secs(options.drain_timeout.into())).map_err(|e| e.to_string())?;
    println!("{}", drained(&report, start.elapsed(), delegations, clients));
    keep_flight_record(&server, &report, options.flight_file.as_deref())
}

/// A server that nobody had before.
fn begin(options: &ServeOptions) -> Result<Server, String> {
    let server =
        Server::new(config(options), builder(options), Arc::new(Trouble)).map_err(|e| match &options.state {
            Some(directory) => format!("the server could not be started with --state {}: {e}", directory.display()),
            None => format!("the server could not be started: {e}"),
        })?;
    if let Some(directory) = &options.state {
        println!("found {} in {}", counted(server.files(), "file"), directory.display());
    }
    if let Some((clients, left)) = server.grace() {
        println!("{} may reclaim for {} s", counted(clients as u64, "client"), left.as_secs_f64().round());
    }
    let is_empty = options.state.is_none() || server.files() == 0;
    if let Some(directory) = options.export.as_ref().filter(|_| is_empty) {
        let imported = server.import(directory).map_err(|e| format!("--export: {e}"))?;
        let (files, bytes) = (counted(imported.files, "file"), counted(imported.bytes, "byte"));
        println!("copied {files}, {bytes}, from {}", directory.display());
    }
    server.listen(options.listen).map_err(|e| cannot_listen(options.listen, &e))?;
    Ok(server)
}

/// `follows`: the process before is about to end, and has the address until then.
fn start_metrics(server: &Arc<Server>, address: SocketAddr, follows: bool) -> Result<Metrics, String> {
    let until = Instant::now() + if follows { PREDECESSOR_PATIENCE } else { Duration::ZERO };
    let started = loop {
        match Metrics::start(server, address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            started => break started,
        }
    };
    started.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            format!("--metrics {address} is already in use: stop what serves there or choose another port")
        }
        _ => format!("--metrics {address}: {error}"),
    })
}

/// Writes what happened last, if a drain did not end well.
fn keep_flight_record(server: &Server, report: &DrainReport, file: Option<&Path>) -> Result<(), String> {
    let well = report.abandoned.is_empty() && report.unsent.is_empty() && report.in_flight == 0;
    let (Some(file), false) = (file, well) else { return Ok(()) };
    let lines = server.runtime().flight_record().to_json_lines();
    std::fs::write(file, lines).map_err(|e| format!("--flight-file {}: {e}", file.display()))?;
    println!("what happened last is in {0}: ringback flight {0}", file.display());
    Ok(())
}

fn config(options: &ServeOptions) -> Config {
    Config {
        lease: Duration::from_secs(options.lease.into()),
        request_bytes_max: TRANSFER_BYTES + OVERHEAD_BYTES,
        response_bytes_max: TRANSFER_BYTES + OVERHEAD_BYTES,
        files_max: 16 << 20,
        delegations_max: options.max_delegations.into(),
        data_bytes_max: options.memory << 20,
        write_delegations: true,
        layouts: options.layouts,
        copy_rate: options.copy_rate.and_then(|mib| NonZeroU64::new(mib << 20)),
        state: options.state.clone(),
        grace: options.grace.map(|seconds| Duration::from_secs(seconds.into())),
        save_every: Duration::from_secs(options.save_interval.into()),
        ..Config::default()
    }
}

/// What the server has to say.
pub struct Trouble;

impl Observer for Trouble {
    fn storage_failed(&self, error: &std::io::Error) {
        let _ = writeln!(stderr(), "ringback: --state: {error}");
    }
}

/// What the runtime has to say.
fn log(message: &LogMessage<'_>) {
    if message.level < LogLevel::Debug {
        // That nobody reads stderr is no reason to end.
        let _ = writeln!(stderr(), "ringback: {message}");
    }
}

fn builder(options: &ServeOptions) -> Builder {
    let backend = match options.backend {
        BackendChoice::Auto => Backend::Auto,
        BackendChoice::Uring => Backend::Uring,
        BackendChoice::Epoll => Backend::Epoll,
    };
    let builder = Builder::new().name("ringback").backend(backend).reactors(options.reactors.into());
    let builder = builder.latency(true).flight_records(FLIGHT_RECORDS).log(log);
    let builder = builder.cpus(options.cpus.clone().unwrap_or_default());
    let builder = match &options.checkpoint {
        Some(file) => builder.checkpoint_every(Duration::from_secs(options.checkpoint_interval.into()), file),
        None => builder,
    };
    match &options.memory_pressure {
        Some(file) => builder.memory_pressure(file),
        None => builder,
    }
}

fn drained(report: &DrainReport, took: Duration, delegations: u64, clients: usize) -> String {
    let took = took.as_secs_f64();
    let held = format!("{} held {}", counted(clients as u64, "client"), counted(delegations, "delegation"));
    let callbacks = match (report.abandoned.len() as u64, report.unsent.len()) {
        (0, 0) => "no callback was given up".to_owned(),
        (unanswered, 0) => format!("{} not answered", counted(unanswered, "callback")),
        (unanswered, unsent) => format!("{} not answered, {unsent} not sent", counted(unanswered, "callback")),
    };
    format!("drained in {took:.3} s: {callbacks}; {held}")
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!("--listen {address} is already in use: stop what serves there or choose another port")
        }
        ErrorKind::PermissionDenied => {
            format!("--listen {address}: permission denied; choose a port of 1024 or more, or run as root")
        }
        ErrorKind::AddrNotAvailable => format!("--listen {address} is no address of this host: choose one that is"),
        _ => format!("--listen {address}: {error}"),
    }
}
