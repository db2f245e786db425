//! The command as a script uses it: tiny, so that what it measures means nothing, and that it measures is known.

use serde_json::Value;
use std::process::{Command, Output};

fn peers(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_peers")).args(args).output().expect("the command can be run")
}

/// What is on stdout, which is one JSON object and nothing else.
fn object(output: &Output) -> Value {
    let stdout = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    serde_json::from_str(stdout).unwrap()
}

#[test]
fn every_row_is_measured_or_says_why_not() {
    let output = peers(&["--tiny", "--json", "-"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let object = object(&output);
    let rows = object["rows"].as_array().unwrap();
    assert!(rows.len() >= 27, "{} rows", rows.len());
    for row in rows {
        assert!(row["broken"].is_null(), "{row}\n{stderr}");
        if let Some(why) = row["skipped"].as_str() {
            println!("skipped: {}: {why}", row["row"]);
            continue;
        }
        for name in ["value", "low", "high"] {
            assert!(row[name].as_f64().is_some_and(|v| v >= 0.0), "{name} of {row}");
        }
        assert_eq!(row["pairs"], 1);
        assert_eq!(row["met_floor"].is_boolean(), row["floor"].is_number(), "{row}");
        assert_eq!(row["met_aim"].is_boolean(), row["aim"].is_number(), "{row}");
    }
    assert!(output.status.success(), "{stderr}");
    // What no noise can change.
    let of = |name: &str| rows.iter().find(|row| row["row"] == name).unwrap_or_else(|| panic!("no row {name}"));
    assert_eq!(of("steady_allocs")["value"], 0.0);
}

/// In a window long enough that the calls at its edges do not matter.
#[test]
fn a_batch_has_fewer_bytes() {
    let output = peers(&["--tiny", "--window-ms", "500", "--rows", "batching_bytes", "--json", "-"]);
    let value = object(&output)["rows"][0]["value"].as_f64();
    assert!(value.is_some_and(|value| value < 0.8), "{value:?}");
}

#[test]
fn page_and_plots_are_written() {
    let out = std::env::temp_dir().join(format!("peers-{}", std::process::id()));
    let output = peers(&["--tiny", "--rows", "syscalls_1x1,cpu_vs_mio_loop_64x32", "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    let page = std::fs::read_to_string(out.join("measured.md")).unwrap();
    for row in ["syscalls_1x1", "cpu_vs_mio_loop_64x32"] {
        assert!(
            table.contains(row) && page.contains(&format!("peers -- --quick --rows {row}`")),
            "{row}:\n{table}\n{page}"
        );
    }
    assert!(!table.contains("echo_share"), "it was not asked for");
    for plot in ["rows.svg", "costs.svg"] {
        assert!(std::fs::read_to_string(out.join(plot)).unwrap().starts_with("<svg"));
    }
    std::fs::remove_dir_all(out).unwrap();
}

#[test]
fn nonsense_is_refused_in_one_line() {
    for (args, says) in [
        (&["--rows", "nothing"][..], "there is no row nothing"),
        (&["--pairs", "0"], "1..=1000"),
        (&["--json", "/nonexistent/x"], "name another"),
        (&["--piars", "3"], "unexpected argument"),
        (&["--tiny", "--rows", "submit", "--out", "/proc/nothing"], "name another directory"),
    ] {
        let output = peers(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.starts_with("peers: ") && stderr.contains(says), "{args:?}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_rows_can_be_listed() {
    let output = peers(&["--list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    // The names of the requirements.
    for name in [
        "cpu_vs_async_task",
        "cpu_vs_send_per_rpc",
        "echo_share",
        "user_cpu",
        "epoll_vs_uring",
        "syscalls",
        "sends",
        "wakes",
        "submit",
        "slab_churn",
        "idle_bytes",
        "steady_allocs",
        "idle_latency",
        "two_reactors",
        "batching",
        "scale",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}");
    }
}
