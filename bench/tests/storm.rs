//! Runs the real `storm` command, small, on both back ends: the whole way from its arguments to its exit status.

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const DELEGATIONS: u64 = 2_000;
const BACKENDS: [&str; 2] = ["uring", "epoll"];

fn storm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_storm"));
    command.stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    storm().args(args).output().expect("storm can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A small storm with `--json -`; `None` if this machine lacks the back end, which is said and never passed over.
fn small(backend: &str, more: &[&str]) -> Option<(Value, Output)> {
    let mut args = vec!["--delegations", "2000", "--clients", "4", "--json", "-", "--backend", backend];
    args.extend(more);
    let output = run(&args);
    let said = text(&output.stderr);
    if backend == "uring" && output.status.code() == Some(2) && said.contains("io_uring") {
        eprintln!("skipped: {said}");
        return None;
    }
    assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}: {said}", output.status);
    let object = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("stdout is one JSON object: {e}: {}\n{said}", text(&output.stdout)));
    Some((object, output))
}

fn number(v: &Value, path: &str) -> u64 {
    v.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} is a count in {v}"))
}

/// What every run must show, whatever was done to it on purpose.
fn assert_balanced(v: &Value, output: &Output) {
    let said = text(&output.stderr);
    for name in ["/accepted", "/completed", "/released"] {
        assert_eq!(number(v, name), DELEGATIONS, "{name}\n{said}");
    }
    assert_eq!((number(v, "/in_flight"), number(v, "/slots_leaked")), (0, 0), "{said}");
    assert_eq!((number(v, "/swarm/doubled"), number(v, "/swarm/malformed")), (0, 0), "{said}");
    assert_eq!(v["discrepancies"], Value::Array(Vec::new()), "{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn a_small_storm_loses_nothing_on_either_back_end() {
    for backend in BACKENDS {
        let Some((v, output)) = small(backend, &[]) else { continue };
        assert_balanced(&v, &output);
        assert_eq!(v["backend"], backend);
        assert_eq!((number(&v, "/swarm/recalled"), number(&v, "/swarm/returned")), (DELEGATIONS, DELEGATIONS));
        assert_eq!(number(&v, "/latency_us/count"), DELEGATIONS);
        assert!(number(&v, "/latency_us/p50") <= number(&v, "/latency_us/max"));
        for name in ["callbacks_per_s", "cpu_ns_per_callback", "syscalls_per_callback", "sends_per_callback"] {
            assert!(v[name].as_f64().is_some_and(|x| x > 0.0), "{name}: {}", v[name]);
        }
        assert!(text(&output.stderr).contains("nothing lost"), "the table goes to stderr");
    }
}

#[test]
fn delegations_can_be_kept_to_measure_callbacks_alone() {
    let Some((v, output)) = small("auto", &["--return", "none"]) else { return };
    assert_balanced(&v, &output);
    assert_eq!((number(&v, "/swarm/recalled"), number(&v, "/swarm/returned")), (DELEGATIONS, 0));
}

#[test]
fn dead_clients_cost_their_own_callbacks_only() {
    for backend in BACKENDS {
        let Some((v, output)) = small(backend, &["--dead-clients", "1", "--deadline", "2", "--lease", "10"]) else {
            continue;
        };
        assert_balanced(&v, &output);
        assert_eq!(number(&v, "/outcomes/ok"), DELEGATIONS * 3 / 4);
        assert_eq!(number(&v, "/swarm/recalled"), DELEGATIONS * 3 / 4);
        let p99 = number(&v, "/latency_us/p99");
        assert!(p99 < 1_000_000, "the live clients' callbacks did not wait for the dead one's: {p99} us");
    }
}

#[test]
fn clients_that_delay_for_ever_end_by_the_deadline() {
    let Some((v, output)) = small("auto", &["--delay-clients", "1", "--deadline", "2", "--lease", "10"]) else {
        return;
    };
    assert_balanced(&v, &output);
    assert_eq!(number(&v, "/outcomes/ok"), DELEGATIONS * 3 / 4);
    assert!(number(&v, "/swarm/delayed") > 0);
}

/// What dead and delaying clients leave open is ended by a drain, and reported by key.
#[test]
fn t12_a_drain_reports_by_key_what_was_not_answered() {
    let file = std::env::temp_dir().join(format!("storm-test-{}.keys", std::process::id()));
    let bad = ["--dead-clients", "1", "--delay-clients", "1", "--session-slots", "16"];
    let drain = ["--drain-after", "1", "--report-keys", file.to_str().unwrap()];
    for backend in BACKENDS {
        let Some((v, output)) = small(backend, &[&bad[..], &drain].concat()) else { continue };
        assert_balanced(&v, &output);
        assert_eq!((number(&v, "/outcomes/ok"), number(&v, "/outcomes/cancelled")), (DELEGATIONS / 2, DELEGATIONS / 2));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let keys = |fate: &str| text.lines().filter_map(|line| line.strip_prefix(fate)).collect::<BTreeSet<_>>();
        let (abandoned, unsent) = (keys("abandoned "), keys("unsent "));
        assert_eq!((abandoned.len() as u64, unsent.len() as u64), (number(&v, "/abandoned"), number(&v, "/unsent")));
        assert_eq!(
            (abandoned.union(&unsent).count() as u64, text.lines().count() as u64),
            (DELEGATIONS / 2, DELEGATIONS / 2)
        );
        // The dead client has 500 delegations and 16 session slots.
        assert!(unsent.len() as u64 >= DELEGATIONS / 4 - 16 && abandoned.len() >= 16, "{text}");
    }
}

#[test]
fn slow_clients_are_waited_for() {
    let Some((v, output)) = small("auto", &["--slow-clients", "1"]) else { return };
    assert_balanced(&v, &output);
    assert_eq!(number(&v, "/outcomes/ok"), DELEGATIONS);
}

#[test]
fn callbacks_survive_that_every_connection_is_cut() {
    for backend in BACKENDS {
        let Some((v, output)) = small(backend, &["--cut-connections", "2", "--session-slots", "16"]) else { continue };
        assert_balanced(&v, &output);
        assert_eq!((number(&v, "/swarm/cuts"), number(&v, "/swarm/other_credential")), (8, 0));
        assert!(number(&v, "/swarm/controls") >= 4, "each client has other parameters in the end");
        assert_eq!(number(&v, "/swarm/recalled"), DELEGATIONS);
    }
}

/// Clients that allow more than two operations get several recalls in one call.
/// With the same back end after each, and with the other one.
#[test]
fn callbacks_survive_that_the_server_is_upgraded_again_and_again() {
    for backend in BACKENDS {
        for to in ["same", "other"] {
            let options =
                ["--upgrades", "5", "--upgrade-to", to, "--cb-operations", "4", "--reactors", "2", "--rate", "1000"];
            if to == "other" && small("uring", &["--return", "none"]).is_none() {
                continue;
            }
            let Some((v, output)) = small(backend, &options) else { continue };
            // How long a pause is on a machine that others use as well says nothing.
            let only_slow = |d: &Value| d.as_str().is_some_and(|d| d.starts_with("an upgrade took "));
            assert!(v["discrepancies"].as_array().unwrap().iter().all(only_slow), "{}", text(&output.stderr));
            for name in
                ["/accepted", "/completed", "/released", "/swarm/recalled", "/swarm/returned", "/latency_us/count"]
            {
                assert_eq!(number(&v, name), DELEGATIONS, "{name}");
            }
            assert_eq!((number(&v, "/in_flight"), number(&v, "/slots_leaked")), (0, 0));
            assert_eq!((number(&v, "/upgrades"), number(&v, "/swarm/resends")), (5, 0));
            assert!(v["pause_ms_max"].as_f64().is_some_and(|ms| ms > 0.0));
            // Another one after each: five make it the other one at last.
            assert_eq!(v["backend"] == backend, to == "same");
        }
    }
}

#[test]
fn t31_batches_lose_nothing_on_either_back_end() {
    for backend in BACKENDS {
        let Some((v, output)) = small(backend, &["--cb-operations", "16", "--session-slots", "4"]) else { continue };
        assert_balanced(&v, &output);
        assert_eq!((number(&v, "/swarm/recalled"), number(&v, "/swarm/returned")), (DELEGATIONS, DELEGATIONS));
        let calls = number(&v, "/swarm/callbacks");
        assert!((DELEGATIONS / 15..DELEGATIONS / 2).contains(&calls), "{calls} calls");
        let per_callback = v["calls_per_callback"].as_f64().unwrap();
        assert_eq!((per_callback * DELEGATIONS as f64).round() as u64, calls);
    }
}

#[test]
fn batches_survive_cuts_and_clients_that_delay() {
    for more in [
        &["--cb-operations", "16", "--cut-connections", "3", "--session-slots", "8"][..],
        &["--cb-operations", "8", "--delay-clients", "1", "--deadline", "2", "--lease", "10"],
        &["--cb-operations", "8", "--dead-clients", "1", "--deadline", "2", "--lease", "10"],
    ] {
        let Some((v, output)) = small("auto", more) else { return };
        assert_balanced(&v, &output);
        assert_eq!(number(&v, "/swarm/missed_live"), 0);
    }
}

#[test]
fn an_open_loop_keeps_its_rate_and_a_window_its_bound() {
    let began = Instant::now();
    let Some((v, output)) = small("auto", &["--rate", "1000", "--window", "64", "--reactors", "2"]) else { return };
    assert_balanced(&v, &output);
    let per_s = v["callbacks_per_s"].as_f64().unwrap();
    assert!((1_000.0..=4_100.0).contains(&per_s), "4 clients at 1,000 a second: {per_s}");
    assert!(began.elapsed() >= Duration::from_millis(490));
}

#[test]
fn every_file_is_written() {
    let dir = std::env::temp_dir().join(format!("storm-test-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (json, plot, hdr) = (file("r.json"), file("r.svg"), file("r.hdr"));
    let args = ["--delegations", "2000", "--clients", "4", "--json", &json, "--plot", &plot, "--hdr", &hdr];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("nothing lost"), "the table is on stdout");
    let v: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(number(&v, "/completed"), DELEGATIONS);
    assert!(std::fs::read_to_string(&plot).unwrap().starts_with("<svg"));
    let log = std::fs::read_to_string(&hdr).unwrap();
    assert!(log.contains("#[StartTime: ") && log.lines().last().unwrap().contains(",HISTFAA"), "{log}");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// One line on stderr, nothing on stdout, exit status 2.
fn assert_refused(args: &[&str], says: &str) {
    let output = run(args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output.stdout));
    assert_eq!(said.trim_end().lines().count(), 1, "{args:?}: {said}");
    assert!(said.contains(says), "{args:?}: {said}");
}

#[test]
fn bad_input_gets_one_line() {
    assert_refused(&["--clients", "0"], "--clients 0 is too few: give at least 1");
    assert_refused(&["--session-slots", "100000"], "give at most 1024");
    assert_refused(&["--clients", "2", "--dead-clients", "3"], "raise --clients");
    assert_refused(&["--clients", "x"], "invalid value");
    assert_refused(&["--json", "/nonexistent/r.json"], "cannot be written");
    assert_refused(&["--connect", "127.0.0.1:1", "--backend", "epoll"], "leave it out");
    assert_refused(&["--connect", "127.0.0.1:1"], "127.0.0.1:1");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_refused(&["--listen", &address], "already in use");
}

#[test]
fn too_few_descriptors_are_noticed_before_the_run() {
    let limited = format!("ulimit -n 40 && exec '{}' --clients 64", env!("CARGO_BIN_EXE_storm"));
    let output = Command::new("sh").args(["-c", &limited]).stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("not enough file descriptors") && said.contains("ulimit -n"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn help_states_the_defaults() {
    let output = run(&["--help"]);
    let said = text(&output.stdout);
    assert!(output.status.success());
    for needle in ["--delegations", "[default: 1000000]", "--rate", "--lease", "[default: 90]", "--connect", "130"] {
        assert!(said.contains(needle), "{needle} is not in\n{said}");
    }
    assert!(!said.contains("swarm-role"));
    assert!(text(&run(&["--version"]).stdout).starts_with("storm "));
}

/// Processes whose parent is `parent`.
fn children_of(parent: u32) -> Vec<PathBuf> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    all.flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            // The parent is the second field after the name, which is in parentheses (proc_pid_stat(5)).
            let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
            let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            after.split_whitespace().nth(1) == Some(&parent.to_string())
        })
        .collect()
}

#[test]
fn ctrl_c_drains_and_tells_what_was_done() {
    // At this rate the storm would take 200 s.
    let args = ["--delegations", "2000", "--clients", "4", "--rate", "50", "--json", "-"];
    let mut child = storm().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    while !said.contains("grant:") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "it ended too early: {said}");
    }
    std::thread::sleep(Duration::from_millis(500));
    let swarm = children_of(child.id());
    assert_eq!(swarm.len(), 1);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    stderr.read_to_string(&mut said).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    let v: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!((v["interrupted"].as_bool(), number(&v, "/in_flight")), (Some(true), 0), "{said}");
    assert_eq!(v["discrepancies"], Value::Array(Vec::new()), "{said}");
    let accepted = number(&v, "/accepted");
    assert!((10..DELEGATIONS).contains(&accepted), "{accepted}");
    assert!(!swarm[0].exists(), "the swarm's process is gone");
}

/// Kills `which` of the two processes while they are at work; returns how the first one ended and what it said.
fn kill_one(kill_swarm: bool) -> (std::process::ExitStatus, String, PathBuf) {
    let args = ["--delegations", "2000", "--clients", "4", "--rate", "50"];
    let mut child = storm().args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    while !said.contains("grant:") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "it ended too early: {said}");
    }
    let swarm = children_of(child.id()).remove(0);
    let victim =
        if kill_swarm { swarm.file_name().unwrap().to_str().unwrap().to_owned() } else { child.id().to_string() };
    assert!(Command::new("kill").args(["-KILL", &victim]).status().unwrap().success());
    let status = child.wait().unwrap();
    if kill_swarm {
        stderr.read_to_string(&mut said).unwrap();
    }
    (status, said, swarm)
}

#[test]
fn a_swarm_that_dies_is_reported() {
    let (status, said, _) = kill_one(true);
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("the swarm process ended before its work was done: signal: 9"), "{said}");
}

#[test]
fn a_swarm_does_not_outlive_its_leader() {
    let (status, _, swarm) = kill_one(false);
    assert_eq!(status.signal(), Some(9));
    let until = Instant::now() + Duration::from_secs(5);
    // A zombie that nobody has waited for yet is dead too.
    let alive = || std::fs::read_to_string(swarm.join("stat")).is_ok_and(|s| !s.contains(") Z "));
    while alive() {
        assert!(Instant::now() < until, "{} is still there", swarm.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Server half and swarm half as two commands; gives what each says.
fn two_halves(trigger: &str) -> (Value, Value) {
    let mut server = storm()
        .args(["--listen", "127.0.0.1:0", "--delegations", "2000", "--clients", "4", "--json", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(server.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    let address = said.split_whitespace().find_map(|w| w.trim_end_matches(',').parse::<std::net::SocketAddr>().ok());
    let address = address.unwrap_or_else(|| panic!("it says where it serves: {said}")).to_string();
    let args = ["--connect", &address, "--trigger", trigger, "--delegations", "2000", "--clients", "4", "--json", "-"];
    let swarm = run(&args);
    stderr.read_to_string(&mut said).unwrap();
    let server = server.wait_with_output().unwrap();
    assert_eq!(swarm.status.code(), Some(0), "{}", text(&swarm.stderr));
    assert_eq!(server.status.code(), Some(0), "{said}");
    (serde_json::from_slice(&server.stdout).unwrap(), serde_json::from_slice(&swarm.stdout).unwrap())
}

#[test]
fn the_two_halves_can_be_two_commands() {
    let (server, swarm) = two_halves("none");
    assert_eq!(number(&swarm, "/swarm/recalled"), DELEGATIONS);
    assert!(swarm["accepted"].is_null() && server["swarm"].is_null());
    assert_eq!((number(&server, "/released"), number(&server, "/returned")), (DELEGATIONS, DELEGATIONS));
}

/// As against a server that knows nothing of storms.
#[test]
fn the_swarm_can_cause_the_recalls_itself() {
    let (server, swarm) = two_halves("open");
    assert_eq!((number(&swarm, "/swarm/recalled"), number(&swarm, "/swarm/returned")), (DELEGATIONS, DELEGATIONS));
    assert_eq!((number(&server, "/released"), number(&server, "/returned")), (DELEGATIONS, DELEGATIONS));
}
