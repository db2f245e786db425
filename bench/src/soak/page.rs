//! The page of the book, and the lines on the terminal.

use super::judge::Verdict;
use super::record::Record;
use crate::storm::resources;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What each kind of trouble is.
const TROUBLE: [(&str, &str); 6] = [
    ("cut", "a guest's network stood still, for one to four seconds"),
    ("closed", "all connections of a guest were closed"),
    ("killed", "a guest was killed, and came again"),
    ("delegations", "the limit of delegations was changed"),
    ("slots", "the limit of session slots was changed"),
    ("recalled", "all delegations were recalled"),
];

/// What the guests call their operations, and what these are.
const OPERATIONS: [(&str, &str); 7] = [
    ("c", "a file changed in place, under its lock"),
    ("p", "a file replaced by RENAME, under a lock"),
    ("look", "a file read without a lock: whole, and no older than before"),
    ("keep", "a file read, and kept open for up to two seconds"),
    ("size", "the size of a file that others change"),
    ("j", "an entry of the journal, under a lock"),
    ("own", "files and links in a directory of its own"),
];

/// A few lines of what came of it.
pub(super) fn summary(verdict: &Verdict) -> String {
    let done: u64 = verdict.operations.values().sum();
    format!(
        "{done} operations, {} callbacks, at most {} in flight at once, {} timed out, {} guests killed, \
         memory {:.1} MiB and {:.1} MiB at the end, {} findings\n",
        verdict.callbacks,
        verdict.in_flight_max,
        verdict.timed_out,
        verdict.killed,
        mib(verdict.memory_kib.0),
        mib(verdict.memory_kib.1),
        verdict.findings.len()
    )
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

pub(super) fn page(record: &Record, verdict: &Verdict, seed: u64, minutes: u32) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| _ = writeln!(text, "{args}");
    line(format_args!("# A soak with Linux clients\n"));
    line(format_args!("This page is written by\n"));
    line(format_args!("    runtime/server/tests/linux/soak {minutes} docs/src\n"));
    line(format_args!(
        "and is of one run of it, with seed {seed}, on a host with {} CPUs and Linux {}. Four Linux clients (6.1 and 6.12, two of\n\
         each; NFSv4.1 and 4.2, one to four connections) work for {minutes} minutes in one directory of `ringback serve`: they change files in place\n\
         under a lock, replace them by RENAME, read them without a lock, keep them open, ask for their sizes, and append to a journal.\n\
         Every file says what it must consist of, and has a number that goes up by one with each change. So a wrong byte, a stale read and a lost\n\
         change are each found, by the guest that meets it or at the end. A guest that says nothing for two minutes ends the run.\n",
        resources::cpus(),
        resources::kernel_version()
    ));
    line(format_args!("![Memory, callbacks and trouble over time](soak.svg)\n"));
    line(format_args!("| trouble | times |\n|---|---:|"));
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    record.events.iter().for_each(|event| *kinds.entry(&event.kind).or_default() += 1);
    for (kind, what) in TROUBLE {
        line(format_args!("| {what} | {} |", kinds.get(kind).copied().unwrap_or(0)));
    }
    line(format_args!("\n| done, and found right | times |\n|---|---:|"));
    for (operation, what) in OPERATIONS {
        line(format_args!("| {what} | {} |", verdict.operations.get(operation).copied().unwrap_or(0)));
    }
    line(format_args!("\n| the server | |\n|---|---:|"));
    line(format_args!("| callbacks that ended | {} |", verdict.callbacks));
    line(format_args!("| of them by their deadline | {} |", verdict.timed_out));
    line(format_args!("| in flight at once, at most | {} |", verdict.in_flight_max));
    line(format_args!("| in flight at the end | {} |", record.samples.last().map_or(0, |sample| sample.in_flight)));
    line(format_args!("| resident memory, second fifth of the run | {:.1} MiB |", mib(verdict.memory_kib.0)));
    line(format_args!("| resident memory, last fifth | {:.1} MiB |", mib(verdict.memory_kib.1)));
    if verdict.findings.is_empty() {
        line(format_args!("\nNothing was found wrong."));
    } else {
        line(format_args!("\nFound wrong:\n"));
        verdict.findings.iter().for_each(|finding| line(format_args!("- {finding}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::judge::{judge, tests::good};
    use super::*;

    #[test]
    fn the_page_says_what_was_done_and_what_was_found() {
        let mut record = good();
        let text = page(&record, &judge(&record), 7, 30);
        for part in
            ["seed 7", "soak 30 docs/src", "under its lock | 3 |", "came again | 1 |", "Nothing was found wrong"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        record.files.clear();
        assert!(page(&record, &judge(&record), 7, 30).contains("- page0 is not whole at the end"));
        assert!(summary(&judge(&record)).contains("2 findings"));
    }
}
