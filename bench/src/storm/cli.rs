//! The command line of `storm`: options, their defaults, and what is refused before anything is started.

use clap::{Parser, ValueEnum};
use ringback::CpuList;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Most clients: each costs a connection at both ends, and the local port range bounds those.
pub const CLIENTS_MAX: u32 = 20_000;
/// Most session slots a client may ask for: what the slot table of the runtime holds.
pub const SESSION_SLOTS_MAX: u32 = crate::swarm::SESSION_SLOTS_MAX;
/// Fewest and most operations in a callback that a client may allow.
pub use crate::swarm::{CALLBACK_OPERATIONS_MAX, CALLBACK_OPERATIONS_MIN};
/// Most delegations: within what a 32-bit slab index can name and the longest deadline can wait for.
pub const DELEGATIONS_MAX: u64 = 100_000_000;
/// Longest lease and deadline, of which the runtime's timers take no more.
const SECONDS_MAX: f64 = 2_000.0;
/// Most reactor threads.
pub const REACTORS_MAX: u32 = 256;
/// Most cuts of a connection.
pub const CUTS_MAX: u32 = 10_000;
/// Most upgrades of the server half.
const UPGRADES_MAX: u32 = 1_000;
/// Most pairs of storms.
pub const PAIRS_MAX: u32 = 1000;
/// The lease when nothing is said, as Linux nfsd has it.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(90);

const AFTER_HELP: &str = "\
With no arguments both halves run here: the server half in this process, the swarm in a second one, over TCP on
loopback. Exit status: 0 nothing was lost, doubled or leaked; 1 something was; 2 the run could not start or broke;
130 interrupted by Ctrl-C, after a drain and the table so far.

Examples:
  storm                                          a million delegations over 64 clients
  storm --delegations 100000 --backend epoll     smaller, on the other back end
  storm --rate 1000 --plot storm.svg             open loop: 1,000 recalls per second and client, with a picture
  storm --dead-clients 2 --deadline 5            two clients stop reading; the others must not notice
  storm --rate 200 --dead-clients 8 --pairs 5    what eight dead clients cost the others, against none
  storm --delay-clients 8 --drain-after 5        ends what the delaying clients leave open, and counts it by key
  storm --listen 0.0.0.0:2049                    the server half only ...
  storm --connect server:2049                    ... and the swarm half only, also against other NFSv4.1 servers";

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

/// The back end after an upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UpgradeChoice {
    /// That of `--backend`.
    #[default]
    Same,
    /// io_uring after epoll, and epoll after io_uring.
    Other,
}

/// What the clients do with a delegation that was recalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReturnChoice {
    /// They return it (DELEGRETURN).
    #[default]
    All,
    /// They keep it: callbacks alone are measured.
    None,
}

/// Who causes the recalls when only the swarm half runs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TriggerChoice {
    /// The swarm, by opens that conflict with the delegations it holds.
    Open,
    /// Somebody else, for instance `storm --listen` at the other end.
    None,
}

/// Recalls a million NFSv4.1 delegations over real backchannels and counts, at both ends, that none was lost.
#[derive(Clone, Debug, Parser)]
#[command(name = "storm", version, after_help = AFTER_HELP, max_term_width = 120)]
pub struct Args {
    /// Delegations to grant and recall, over all clients
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = count)]
    pub delegations: u64,
    /// Clients
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub clients: u32,
    /// Backchannel session slots of each client
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub session_slots: u32,
    /// Operations in one callback that each client allows, CB_SEQUENCE among them; Linux clients allow 2
    #[arg(long, value_name = "N", default_value_t = CALLBACK_OPERATIONS_MIN)]
    pub cb_operations: u32,
    /// Reactor threads of the server half [default: half of the CPUs, at least 1; all of them with --listen]
    #[arg(long, value_name = "N")]
    pub reactors: Option<u32>,
    /// CPUs to pin the reactors of the server half to, such as 0-3,8, one after the other [default: none]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<CpuList>,
    /// Back end of the server half [default: auto]
    #[arg(long, value_enum)]
    pub backend: Option<BackendChoice>,
    /// Open loop: callbacks started per second and live client [default: all at once]
    #[arg(long, value_name = "N", value_parser = count)]
    pub rate: Option<u64>,
    /// At most this many callbacks outstanding [default: no limit]
    #[arg(long, value_name = "N", value_parser = count)]
    pub window: Option<u64>,
    /// Clients that stop reading when the recalls begin
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub dead_clients: u32,
    /// Clients that answer slowly
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub slow_clients: u32,
    /// Clients that answer NFS4ERR_DELAY for ever
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub delay_clients: u32,
    /// Times that every connection is cut and rebound during the recalls, with other callback parameters
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cut_connections: u32,
    /// Times that another runtime takes over from the one that serves while the recalls are under way, as another process
    /// would
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with_all = ["connect", "pairs", "stages"])]
    pub upgrades: u32,
    /// The back end after each upgrade
    #[arg(long, value_enum, value_name = "WHICH", default_value_t, conflicts_with_all = ["connect", "pairs"])]
    pub upgrade_to: UpgradeChoice,
    /// Lease time of the server half, in seconds [default: 90]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub lease: Option<Duration>,
    /// Deadline of one callback, in seconds [default: the lease, or 20 for each million delegations if that is longer]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub deadline: Option<Duration>,
    /// Drain the runtime so long after the recalls began, instead of waiting for the deadlines of its callbacks
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub drain_after: Option<Duration>,
    /// Run the storm so many times with the dead, slow and delaying clients, and as often with all clients well, in turn; print
    /// what they cost the others
    #[arg(long, value_name = "N", conflicts_with_all = ["json", "plot", "hdr", "report_keys", "listen", "connect"])]
    pub pairs: Option<u32>,
    /// Seed of everything the swarm chooses at random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// What the clients do with recalled delegations
    #[arg(long = "return", value_enum, value_name = "WHICH", default_value_t)]
    pub returns: ReturnChoice,
    /// Write the results as one JSON object; `-` is stdout, the table then goes to stderr
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Write a picture: latency by percentile and rate over time
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Write the latencies in the log format of HdrHistogram, in microseconds
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Also measure how long each stage of a callback took, by class of operation
    #[arg(long, conflicts_with_all = ["connect", "pairs"])]
    pub stages: bool,
    /// Write the keys of the callbacks that a drain ended, one a line
    #[arg(long, value_name = "FILE")]
    pub report_keys: Option<PathBuf>,
    /// Only the server half: serve here, recall when --delegations are granted
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Only the swarm half: against this server
    #[arg(long, value_name = "ADDR", conflicts_with = "listen")]
    pub connect: Option<String>,
    /// With --connect: who causes the recalls [default: open]
    #[arg(long, value_enum, requires = "connect")]
    pub trigger: Option<TriggerChoice>,
    /// With --connect: the directory for the files, from the server's root [default: the root itself]
    #[arg(long, value_name = "PATH", requires = "connect")]
    pub directory: Option<String>,
    /// Hidden: this process is the swarm of the `storm` at the other end of stdin and stdout.
    #[arg(long, hide = true)]
    pub swarm_role: bool,
}

/// Which halves run in this command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halves {
    /// Both, over loopback.
    Both,
    /// The server half, at this address.
    Server(SocketAddr),
    /// The swarm half, against this address; `true`: it causes the recalls itself.
    Swarm(SocketAddr, bool),
}

/// The checked options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which halves run here.
    pub halves: Halves,
    /// Delegations over all clients.
    pub delegations: u64,
    /// Clients.
    pub clients: u32,
    /// Backchannel session slots of each client.
    pub session_slots: u32,
    /// Operations in one callback that each client allows.
    pub cb_operations: u32,
    /// Reactor threads.
    pub reactors: u32,
    /// What they are pinned to.
    pub cpus: CpuList,
    /// Back end.
    pub backend: BackendChoice,
    /// Callbacks started per second and client; `None`: all at once.
    pub rate: Option<u64>,
    /// Callbacks outstanding at most.
    pub window: Option<u64>,
    /// Clients that stop reading.
    pub dead_clients: u32,
    /// Clients that answer slowly.
    pub slow_clients: u32,
    /// Clients that answer DELAY for ever.
    pub delay_clients: u32,
    /// Cuts of every connection.
    pub cut_connections: u32,
    /// Upgrades of the server half during the recalls.
    pub upgrades: u32,
    /// The back end after each.
    pub upgrade_to: UpgradeChoice,
    /// Lease time.
    pub lease: Duration,
    /// Deadline of one callback.
    pub deadline: Duration,
    /// When to drain; `None`: when every callback has ended by itself.
    pub drain_after: Option<Duration>,
    /// How many pairs of storms to compare; `None`: one storm.
    pub pairs: Option<u32>,
    /// Seed of the swarm.
    pub seed: u64,
    /// Whether recalled delegations are returned.
    pub return_all: bool,
    /// Path from the server's root to the directory for the files.
    pub directory: Vec<String>,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
    /// Where the picture goes.
    pub plot: Option<PathBuf>,
    /// Where the histogram log goes.
    pub hdr: Option<PathBuf>,
    /// Where the keys go that a drain reports.
    pub report_keys: Option<PathBuf>,
    /// Whether stages are measured.
    pub stages: bool,
}

impl Options {
    /// Whether the server half runs in this process.
    pub fn has_server(&self) -> bool {
        !matches!(self.halves, Halves::Swarm(..))
    }

    /// Whether the swarm half runs, in this process or in its child.
    pub fn has_swarm(&self) -> bool {
        !matches!(self.halves, Halves::Server(..))
    }

    /// Whether the JSON goes to stdout, so that nothing else may.
    pub fn json_on_stdout(&self) -> bool {
        self.json.as_deref().is_some_and(|p| p.as_os_str() == "-")
    }

    /// The longest that the recall phase can take: every callback is started, then ends by its deadline at the latest.
    pub fn recall_limit(&self) -> Duration {
        let per_client = self.delegations.div_ceil(u64::from(self.clients));
        let starting = self.rate.map_or(0.0, |r| per_client as f64 / r as f64);
        // A window lets the next callback start when one ends, so that deadlines can come one after another.
        let rounds = self.window.map_or(1, |w| self.stuck_max().div_ceil(w) + 1);
        self.deadline.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
            + Duration::from_secs_f64(starting)
            + self.deadline / 2
            + Duration::from_secs(5)
    }

    /// Callbacks that may end by their deadline only.
    fn stuck_max(&self) -> u64 {
        u64::from(self.dead_clients + self.slow_clients + self.delay_clients)
            * self.delegations.div_ceil(u64::from(self.clients))
    }
}

impl Args {
    /// Checks the arguments and fills in what was left open. The error is one line that says what to do.
    pub fn check(self, cpus: u32) -> Result<Options, String> {
        self.check_ranges()?;
        self.check_files()?;
        let halves = self.halves()?;
        let cores = if matches!(halves, Halves::Server(_)) { cpus } else { cpus / 2 };
        let lease = self.lease.unwrap_or(LEASE_DEFAULT);
        let for_size = Duration::from_secs(self.delegations.div_ceil(1_000_000) * 20);
        Ok(Options {
            halves,
            delegations: self.delegations,
            clients: self.clients,
            session_slots: self.session_slots,
            cb_operations: self.cb_operations,
            reactors: self.reactors.unwrap_or(cores.clamp(1, REACTORS_MAX)),
            cpus: self.cpus.unwrap_or_default(),
            backend: self.backend.unwrap_or_default(),
            rate: self.rate,
            window: self.window,
            dead_clients: self.dead_clients,
            slow_clients: self.slow_clients,
            delay_clients: self.delay_clients,
            cut_connections: self.cut_connections,
            upgrades: self.upgrades,
            upgrade_to: self.upgrade_to,
            lease,
            deadline: self.deadline.unwrap_or(lease.max(for_size)),
            drain_after: self.drain_after,
            pairs: self.pairs,
            seed: self.seed,
            return_all: self.returns == ReturnChoice::All,
            directory: components(self.directory.as_deref().unwrap_or_default()),
            json: self.json,
            plot: self.plot,
            hdr: self.hdr,
            report_keys: self.report_keys,
            stages: self.stages,
        })
    }

    fn check_ranges(&self) -> Result<(), String> {
        in_range("--delegations", self.delegations, 1, DELEGATIONS_MAX)?;
        in_range("--clients", self.clients.into(), 1, CLIENTS_MAX.into())?;
        in_range("--session-slots", self.session_slots.into(), 1, SESSION_SLOTS_MAX.into())?;
        let (fewest, most) = (CALLBACK_OPERATIONS_MIN.into(), CALLBACK_OPERATIONS_MAX.into());
        in_range("--cb-operations", self.cb_operations.into(), fewest, most)?;
        in_range("--reactors", self.reactors.unwrap_or(1).into(), 1, REACTORS_MAX.into())?;
        in_range("--rate", self.rate.unwrap_or(1), 1, 1_000_000_000)?;
        in_range("--window", self.window.unwrap_or(1), 1, DELEGATIONS_MAX)?;
        in_range("--cut-connections", self.cut_connections.into(), 0, CUTS_MAX.into())?;
        in_range("--upgrades", self.upgrades.into(), 0, UPGRADES_MAX.into())?;
        if self.lease.is_some_and(|l| l < Duration::from_secs(1)) {
            return Err("--lease is shorter than the protocol can say: give at least 1 second".to_owned());
        }
        let (dead, slow, delay) =
            (u64::from(self.dead_clients), u64::from(self.slow_clients), u64::from(self.delay_clients));
        if dead + slow + delay > u64::from(self.clients) {
            return Err(format!(
                "--dead-clients {dead}, --slow-clients {slow} and --delay-clients {delay} are more than the {} clients \
                 there are: raise --clients or lower them",
                self.clients
            ));
        }
        if let Some(pairs) = self.pairs {
            in_range("--pairs", pairs.into(), 1, PAIRS_MAX.into())?;
            if dead + slow + delay == 0 || self.rate.is_none() {
                return Err("--pairs compares storms at the same rate with and without clients that do not behave: give --rate \
                            and --dead-clients, --slow-clients or --delay-clients"
                    .to_owned());
            }
        }
        Ok(())
    }

    fn check_files(&self) -> Result<(), String> {
        let files = [
            ("--json", &self.json),
            ("--plot", &self.plot),
            ("--hdr", &self.hdr),
            ("--report-keys", &self.report_keys),
        ];
        for (i, (name, file)) in files.iter().enumerate() {
            let Some(file) = file else { continue };
            if file.as_os_str() == "-" && *name != "--json" {
                return Err(format!("{name} - is not possible: only --json can go to stdout; name a file"));
            }
            if let Some((other, _)) = files[..i].iter().find(|(_, f)| f.as_ref() == Some(file)) {
                return Err(format!("{other} and {name} both name {}: name two files", file.display()));
            }
        }
        Ok(())
    }

    fn halves(&self) -> Result<Halves, String> {
        if let Some(addr) = &self.listen {
            return Ok(Halves::Server(resolve("--listen", addr)?));
        }
        let Some(addr) = &self.connect else { return Ok(Halves::Both) };
        let of_server = [
            ("--reactors", self.reactors.is_some()),
            ("--cpus", self.cpus.is_some()),
            ("--backend", self.backend.is_some()),
            ("--rate", self.rate.is_some()),
            ("--window", self.window.is_some()),
            ("--plot", self.plot.is_some()),
            ("--hdr", self.hdr.is_some()),
            ("--drain-after", self.drain_after.is_some()),
            ("--report-keys", self.report_keys.is_some()),
        ];
        if let Some((name, _)) = of_server.iter().find(|(_, given)| *given) {
            return Err(format!(
                "{name} is for the server half, which --connect leaves to somebody else: leave it out"
            ));
        }
        let trigger = self.trigger.unwrap_or(TriggerChoice::Open) == TriggerChoice::Open;
        Ok(Halves::Swarm(resolve("--connect", addr)?, trigger))
    }
}

/// The names of a path.
fn components(path: &str) -> Vec<String> {
    path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn in_range(name: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    match value {
        v if v < min => Err(format!("{name} {v} is too few: give at least {min}")),
        v if v > max => Err(format!("{name} {v} is too many: give at most {max}")),
        _ => Ok(()),
    }
}

/// `host:port`, or a host alone with NFS's port.
fn resolve(name: &str, addr: &str) -> Result<SocketAddr, String> {
    use std::net::ToSocketAddrs;
    const NFS_PORT: u16 = 2049;
    if let Ok(ip) = addr.parse() {
        return Ok(SocketAddr::new(ip, NFS_PORT));
    }
    let with_port = if addr.contains(':') { addr.to_owned() } else { format!("{addr}:{NFS_PORT}") };
    match with_port.to_socket_addrs() {
        Ok(mut all) => all.next().ok_or_else(|| format!("{name} {addr}: the name has no address; give HOST:PORT")),
        Err(e) => Err(format!("{name} {addr}: {e}; give HOST:PORT, such as 127.0.0.1:2049")),
    }
}

/// A count; `_` and `,` may group the digits, and `k` and `m` stand for thousands and millions.
fn count(text: &str) -> Result<u64, String> {
    let plain: String = text.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let (digits, unit) = match plain.to_ascii_lowercase().chars().last() {
        Some('k') => (&plain[..plain.len() - 1], 1_000),
        Some('m') => (&plain[..plain.len() - 1], 1_000_000),
        _ => (plain.as_str(), 1),
    };
    let number: u64 = digits.parse().map_err(|_| "give a whole number, such as 100000 or 100k".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "the number is too large".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.1..=SECONDS_MAX).contains(&s) => Ok(Duration::from_secs_f64(s)),
        _ => Err("give seconds between 0.1 and 2000, such as 5 or 0.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str]) -> Result<Options, String> {
        let all = std::iter::once("storm").chain(args.iter().copied());
        Args::try_parse_from(all).map_err(|e| e.to_string())?.check(8)
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn no_arguments_are_a_million_delegations_over_64_clients() {
        let o = check(&[]).unwrap();
        assert_eq!((o.delegations, o.clients, o.halves.clone()), (1_000_000, 64, Halves::Both));
        assert_eq!((o.lease, o.deadline, o.reactors), (LEASE_DEFAULT, LEASE_DEFAULT, 4));
        assert!(o.return_all && o.has_server() && o.has_swarm() && !o.json_on_stdout());
    }

    #[test]
    fn the_default_deadline_grows_with_the_storm() {
        assert_eq!(check(&["--delegations", "10000000"]).unwrap().deadline, Duration::from_secs(200));
        assert_eq!(check(&["--delegations", "10m", "--deadline", "5"]).unwrap().deadline, Duration::from_secs(5));
    }

    #[test]
    fn counts_may_be_grouped() {
        assert_eq!(count("1_000_000"), Ok(1_000_000));
        assert_eq!(count("10k"), Ok(10_000));
        assert_eq!(count("2M"), Ok(2_000_000));
        assert!(count("").is_err() && count("k").is_err() && count("-1").is_err() && count("99999999999999m").is_err());
    }

    /// Each refusal is one line that names the option and says what to do.
    #[test]
    fn bad_input_is_refused_in_one_line() {
        for (args, option, advice) in [
            (&["--clients", "0"][..], "--clients", "at least 1"),
            (&["--delegations", "0"], "--delegations", "at least 1"),
            (&["--session-slots", "100000"], "--session-slots", "at most 1024"),
            (&["--cb-operations", "1"], "--cb-operations", "at least 2"),
            (&["--cb-operations", "257"], "--cb-operations", "at most 256"),
            (&["--reactors", "0"], "--reactors", "at least 1"),
            (&["--rate", "0"], "--rate", "at least 1"),
            (&["--pairs", "3", "--rate", "5"], "--pairs", "give --rate and --dead-clients"),
            (&["--pairs", "3", "--dead-clients", "5"], "--pairs", "give --rate and --dead-clients"),
            (&["--pairs", "0", "--dead-clients", "5", "--rate", "5"], "--pairs", "at least 1"),
            (&["--window", "0"], "--window", "at least 1"),
            (&["--clients", "2", "--dead-clients", "2", "--slow-clients", "1"], "--slow-clients", "raise --clients"),
            (&["--dead-clients", "4294967295", "--slow-clients", "4294967295"], "--dead-clients", "raise --clients"),
            (&["--connect", "127.0.0.1:1", "--backend", "epoll"], "--backend", "leave it out"),
            (&["--connect", "127.0.0.1:1", "--cpus", "0"], "--cpus", "leave it out"),
            (&["--lease", "0.5"], "--lease", "at least 1"),
            (&["--plot", "-"], "--plot", "name a file"),
            (&["--json", "x", "--hdr", "x"], "--hdr", "name two files"),
            (&["--report-keys", "-"], "--report-keys", "name a file"),
            (&["--connect", "127.0.0.1:1", "--drain-after", "2"], "--drain-after", "leave it out"),
            (&["--listen", "127.0.0.1:99999"], "--listen", "HOST:PORT"),
        ] {
            let error = check(args).unwrap_err();
            assert!(error.contains(option) && error.contains(advice) && !error.contains('\n'), "{args:?}: {error}");
        }
        assert!(check(&["--listen", "[::1]:1", "--connect", "[::1]:1"]).unwrap_err().contains("cannot be used with"));
        assert!(check(&["--deadline", "0"]).unwrap_err().contains("give seconds"));
        assert!(check(&["--cpus", "3-1"]).unwrap_err().contains("not a list of CPUs such as 0-3,8"));
    }

    #[test]
    fn addresses_default_to_the_port_of_nfs() {
        assert_eq!(check(&["--listen", "::1"]).unwrap().halves, Halves::Server("[::1]:2049".parse().unwrap()));
        let o = check(&["--connect", "127.0.0.1", "--trigger", "none"]).unwrap();
        assert_eq!(o.halves, Halves::Swarm("127.0.0.1:2049".parse().unwrap(), false));
        assert_eq!(components("/a//b/"), vec!["a", "b"]);
    }
}
