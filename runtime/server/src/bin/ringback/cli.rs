//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringback::CpuList;
use std::net::SocketAddr;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Examples:
  ringback serve --listen 0.0.0.0:2049 --admin /run/ringback.sock
  mount -t nfs4 -o vers=4.1,port=2049 SERVER:/ /mnt
  ringback inspect --admin /run/ringback.sock
  ringback recall --admin /run/ringback.sock --file /path/in/the/export";

/// An in-memory NFSv4.0, 4.1 and 4.2 file server on ringback.
#[derive(Debug, Parser)]
#[command(name = "ringback", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve files from memory over NFSv4.0, 4.1 and 4.2 until SIGTERM or SIGINT.
    Serve(Box<ServeOptions>),
    /// Show the clients of a running server or of a checkpoint, their callback paths and sessions, and the callbacks in
    /// flight, stuck ones first.
    Inspect(InspectOptions),
    /// Show the clients of a running server again and again, those in trouble first, and what is done per second.
    Top(TopOptions),
    /// Tell in words what happened last to callbacks and their paths, of a running server or from a file.
    Flight(FlightOptions),
    /// Have a running server write a checkpoint.
    Checkpoint(CheckpointOptions),
    /// Recall delegations.
    Recall(RecallOptions),
    /// Start callbacks that a server sends by itself when there is reason to.
    Trigger(TriggerOptions),
    /// Send any callback by hand, and tell what the clients answer.
    Admin(AdminOptions),
}

/// Where the server is asked.
#[derive(Debug, Args)]
pub struct Socket {
    /// The socket that the server was given with --admin.
    #[arg(long, value_name = "SOCKET")]
    pub admin: PathBuf,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct InspectOptions {
    /// The server that was given this socket with --admin.
    #[arg(long, value_name = "SOCKET", conflicts_with = "file", required_unless_present = "file")]
    pub admin: Option<PathBuf>,
    /// A checkpoint, of a server that need not be running any more.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Show at most so many callbacks of each client: the oldest.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub callbacks: u16,
}

/// Options of `top`.
#[derive(Debug, Args)]
pub struct TopOptions {
    /// Which server.
    #[command(flatten)]
    pub socket: Socket,
    /// Look again after so many seconds.
    #[arg(long, short = 'd', value_name = "SECONDS", default_value_t = 2.0, value_parser = interval)]
    pub interval: f64,
    /// Look once, and print what is counted since the start.
    #[arg(long)]
    pub once: bool,
    /// Show at most so many clients.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub clients: usize,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("not in 0.1..=3600".to_owned()) }
}

/// Options of `flight`.
#[derive(Debug, Args)]
pub struct FlightOptions {
    /// The flight record of the server that was given this socket with --admin.
    #[arg(long, value_name = "SOCKET", conflicts_with = "file", required_unless_present = "file")]
    pub admin: Option<PathBuf>,
    /// A file with a flight record.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print the lines of JSON as they are, to be kept in a file.
    #[arg(long)]
    pub json: bool,
}

/// Options of `checkpoint`.
#[derive(Debug, Args)]
#[command(after_help = "\
The file is for `ringback inspect FILE`. It holds what the server knows of its clients and callbacks, credentials included,\n\
and nothing of the files that it serves.")]
pub struct CheckpointOptions {
    /// Which server.
    #[command(flatten)]
    pub socket: Socket,
    /// Where to: replaced when all of it is on the disk.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Options of `recall`.
#[derive(Debug, Args)]
#[command(after_help = "\
A delegation that is not returned within a lease is revoked.")]
pub struct RecallOptions {
    /// Which server.
    #[command(flatten)]
    pub socket: Socket,
    /// What to recall.
    #[command(flatten)]
    pub what: RecallWhat,
}

/// What to recall: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct RecallWhat {
    /// The delegations of one file, by its path in the export.
    #[arg(long, value_name = "PATH")]
    pub file: Option<String>,
    /// The delegations of one client, by its name or id as `inspect` shows them.
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// All delegations.
    #[arg(long)]
    pub all: bool,
}

/// Options of `trigger`.
#[derive(Debug, Args)]
pub struct TriggerOptions {
    /// Which server.
    #[command(flatten)]
    pub socket: Socket,
    /// What to start: one of these.
    #[command(flatten)]
    pub what: TriggerWhat,
}

/// What to start: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TriggerWhat {
    /// CB_GETATTR to who holds a write delegation of this file.
    #[arg(long, value_name = "PATH")]
    pub getattr: Option<String>,
    /// CB_NOTIFY_LOCK to all who wait for a lock of this file.
    #[arg(long, value_name = "PATH")]
    pub notify_lock: Option<String>,
    /// Give this directory another cookie verifier: CB_NOTIFY, or CB_RECALL, to who holds a delegation of it.
    #[arg(long, value_name = "PATH")]
    pub cookie_verifier: Option<String>,
    /// CB_LAYOUTRECALL to all who have a layout of this file.
    #[arg(long, value_name = "PATH")]
    pub layout_recall: Option<String>,
    /// CB_LAYOUTRECALL of the whole file system to all who have layouts.
    #[arg(long)]
    pub layout_recall_fsid: bool,
    /// CB_LAYOUTRECALL of everything to all who have layouts.
    #[arg(long)]
    pub layout_recall_all: bool,
    /// CB_NOTIFY_DEVICEID of a changed device to all who want to be told.
    #[arg(long)]
    pub device_changed: bool,
    /// CB_LAYOUTRECALL of everything, and then CB_NOTIFY_DEVICEID of a deleted device to all who want to be told. New layouts name
    /// another device.
    #[arg(long)]
    pub device_deleted: bool,
    /// CB_RECALL_ANY to all clients: to keep about so many delegations, all together.
    #[arg(long, value_name = "KEEP")]
    pub recall_any: Option<u64>,
    /// Change the limit of `serve --max-delegations`; CB_RECALL_ANY follows if there are more.
    #[arg(long, value_name = "N")]
    pub max_delegations: Option<u64>,
    /// Change how many session slots each session has for its client's requests: CB_RECALL_SLOT to all sessions with more. No
    /// session gets more than it was granted at first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub session_slots: Option<u32>,
}

/// Options of `admin`.
#[derive(Debug, Args)]
#[command(after_help = ADMIN_HELP)]
pub struct AdminOptions {
    /// Which server.
    #[command(flatten)]
    pub socket: Socket,
    /// How long the answers are waited for.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=20))]
    pub wait: u64,
    /// Which callback.
    #[command(subcommand)]
    pub order: AdminOrder,
}

const ADMIN_HELP: &str = "\
Clients are named as `ringback inspect` shows them, files by their path in the export. It says of each client that was called\n\
what it answered. Exit status: 0 they were called, whatever they answered; 2 there is nobody to be called, and why.";

/// Which callback is sent.
#[derive(Debug, Subcommand)]
pub enum AdminOrder {
    /// CB_GETATTR to who holds a write delegation of a file.
    Getattr {
        /// The file.
        path: String,
    },
    /// CB_RECALL of delegations.
    Recall(RecallWhat),
    /// CB_LAYOUTRECALL of flex-files layouts, whether the client has any or not.
    Layoutrecall {
        /// Which client.
        #[arg(long, value_name = "NAME")]
        client: String,
        /// Of this file.
        #[arg(long, value_name = "PATH", conflicts_with = "fsid")]
        file: Option<String>,
        /// Of the file system. Else all.
        #[arg(long)]
        fsid: bool,
    },
    /// Give a directory another cookie verifier: CB_NOTIFY to who holds a delegation of it and wants to know.
    Notify {
        /// The directory.
        path: String,
    },
    /// Delegate a file to a client that has not asked for it: CB_PUSH_DELEG.
    PushDeleg {
        /// Which client.
        #[arg(long, value_name = "NAME")]
        client: String,
        /// For writing.
        #[arg(long)]
        write: bool,
        /// The file.
        path: String,
    },
    /// CB_RECALL_ANY: to one client, or to all so that they keep so many delegations together.
    RecallAny {
        /// Only this client.
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
        /// How many are to be kept.
        keep: u32,
    },
    /// CB_RECALLABLE_OBJ_AVAIL: tell a client that it may have so many delegations.
    RecallableObjAvail {
        /// Which client.
        #[arg(long, value_name = "NAME")]
        client: String,
        /// How many.
        keep: u32,
    },
    /// Leave each session so many session slots: CB_RECALL_SLOT to those that have more.
    RecallSlot {
        /// How many.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        slots: u32,
    },
    /// CB_WANTS_CANCELLED to all who wait for a delegation.
    WantsCancelled {
        /// Only this client.
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
    },
    /// CB_NOTIFY_LOCK to all who wait for a lock of a file.
    NotifyLock {
        /// The file.
        path: String,
    },
    /// CB_NOTIFY_DEVICEID: a device is gone, or has changed.
    NotifyDeviceid {
        /// Which client.
        #[arg(long, value_name = "NAME")]
        client: String,
        /// It has changed.
        #[arg(long)]
        changed: bool,
        /// What was known of it must not be used any more.
        #[arg(long, requires = "changed")]
        immediate: bool,
        /// Its id, 32 hexadecimal digits.
        #[arg(value_parser = device_id)]
        device: DeviceId,
    },
    /// End the copies to a file that go on: CB_OFFLOAD with NFS4ERR_IO.
    Offload {
        /// The file.
        path: String,
    },
}

/// The id of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId(pub [u8; 16]);

fn device_id(text: &str) -> Result<DeviceId, String> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
    number.map(|number| DeviceId(number.to_be_bytes())).ok_or_else(|| "not 32 hexadecimal digits".to_owned())
}

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
`/` is the export. It is in memory, and gone when the server ends unless there is --state. Anybody who reaches the address may read and write\n\
all of it: identities (AUTH_SYS) are taken as they come. Exit status: 0 ended by a signal; 2 could not start.")]
pub struct ServeOptions {
    /// Where to listen.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2049")]
    pub listen: SocketAddr,
    /// How long a client's state is safe without a word from it; a recalled delegation is revoked after as long.
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub lease: u32,
    /// Copy this directory into the export first; with --state, if there is nothing in it yet.
    #[arg(long, value_name = "DIR")]
    pub export: Option<PathBuf>,
    /// Keep files, and which clients may reclaim what they had, in this directory, so that they survive a restart. It is made if
    /// it is not there.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// How often files are written there, besides when a client asks for it and at the end.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub save_interval: u32,
    /// How long clients may reclaim after a restart, while nothing new is opened or locked; one lease if not given. It is over when
    /// all have reclaimed.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub grace: Option<u32>,
    /// Most delegations; 0 for none at all.
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    pub max_delegations: u32,
    /// Have clients give up delegations and session slots when memory is short, as the kernel tells it in this file: /proc/pressure/memory, or
    /// the memory.pressure of a cgroup.
    #[arg(long, value_name = "FILE")]
    pub memory_pressure: Option<PathBuf>,
    /// Bytes of content, all files together, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub memory: u64,
    /// Give clients that ask for it layouts (pNFS, flexible files) with this server as the data server, at this address, where
    /// they reach it.
    #[arg(long, value_name = "ADDR:PORT")]
    pub layouts: Option<SocketAddr>,
    /// Most that one server-side copy copies in a second, in MiB, so that it does not take all of a processor from others.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub copy_rate: Option<u64>,
    /// Reactor threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub reactors: u16,
    /// Pin the reactors to these CPUs, such as 0-3,8, one after the other.
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<CpuList>,
    /// The io back end.
    #[arg(long, value_enum, default_value_t)]
    pub backend: BackendChoice,
    /// How long callbacks that are on their way are waited for at the end.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub drain_timeout: u32,
    /// Serve metrics for Prometheus over HTTP at this address, under /metrics, to whoever reaches it.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// If callbacks are given up at the end, write here what happened last: for `ringback flight FILE`.
    #[arg(long, value_name = "FILE")]
    pub flight_file: Option<PathBuf>,
    /// Write a checkpoint to this file again and again: for `ringback inspect FILE`, after a crash as well.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// How often.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub checkpoint_interval: u32,
    /// Make a socket (mode 0600) for the other commands.
    #[arg(long, value_name = "SOCKET")]
    pub admin: Option<PathBuf>,
    /// Make a socket (mode 0600) for the next process of this server, which takes over everything and lets this one end: it is given
    /// the same path with --upgrade-from.
    #[arg(long, value_name = "SOCKET")]
    pub upgrade_socket: Option<PathBuf>,
    /// Take over from the process that was given this socket with --upgrade-socket: its files, its clients and what they hold, its
    /// connections and callbacks, and where it listens. If nobody listens there, start as without this.
    #[arg(long, value_name = "SOCKET")]
    pub upgrade_from: Option<PathBuf>,
    /// How long an upgrade may take until the old process goes on.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub upgrade_timeout: u32,
}

/// The io back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// io_uring if it can be had, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_serve() {
        let Command::Serve(options) = Cli::try_parse_from(["ringback", "serve"]).unwrap().command else { panic!() };
        assert_eq!((options.listen.port(), options.lease, options.drain_timeout), (2049, 90, 5));
        assert!(Cli::try_parse_from(["ringback", "serve", "--lease", "0"]).is_err());
        assert!(Cli::try_parse_from(["ringback", "serve", "--listen", "2049"]).is_err());
    }

    #[test]
    fn every_callback_has_its_order() {
        let parse = |line: &str| Cli::try_parse_from(format!("ringback admin --admin s {line}").split(' ')).is_ok();
        let id = "00112233445566778899aabbccddeeff";
        for line in [
            "getattr f",
            "recall --all",
            "layoutrecall --client c",
            "layoutrecall --client c --file f",
            "layoutrecall --client c --fsid",
            "notify d",
            "push-deleg --client c --write f",
            "recall-any 5",
            "recall-any --client c 5",
            "recallable-obj-avail --client c 5",
            "recall-slot 4",
            "wants-cancelled",
            "notify-lock f",
            "offload f",
        ] {
            assert!(parse(line), "{line}");
        }
        assert!(parse(&format!("notify-deviceid --client c --changed --immediate {id}")));
        assert!(!parse(&format!("notify-deviceid --client c --immediate {id}")));
        for line in ["recall", "recall-slot 0", "layoutrecall", "notify-deviceid --client c +1", "--wait 21 notify d"] {
            assert!(!parse(line), "{line}");
        }
    }

    #[test]
    fn one_thing_is_asked_for_at_a_time() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("ringback recall --admin s --all"));
        assert!(parse("ringback trigger --admin s --recall-any 5"));
        assert!(!parse("ringback recall --admin s"));
        assert!(!parse("ringback recall --admin s --all --file f"));
        assert!(!parse("ringback recall --all"));
        assert!(parse("ringback flight record") && parse("ringback flight --admin s --json"));
        assert!(!parse("ringback flight") && !parse("ringback flight --admin s record"));
        assert!(parse("ringback inspect checkpoint --json") && parse("ringback checkpoint --admin s file"));
        assert!(!parse("ringback inspect") && !parse("ringback inspect --admin s file"));
        assert!(parse("ringback top --admin s -d 0.5") && !parse("ringback top --admin s --interval 0"));
    }
}
