//! What must hold of a record.
//!
//! Changes of a file are made under a lock, each by one who has read the whole file, found it right, and counted it up by one.
//! So the numbers of a file are those from one to what it has at the end, each told by one guest. One that two have told is a change
//! that was lost or a stale read; one that nobody has told is the last one of a guest that was killed, or a lost line.

use super::record::{Life, Record};
use std::collections::BTreeMap;

/// Memory may grow by so much from the second fifth of a run to the last one, in percent and KiB: the allocator's own ways.
const GROWTH_PERCENT: u64 = 10;
const GROWTH_KIB: u64 = 4 << 10;

#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// What is wrong. Nothing: the run has passed.
    pub findings: Vec<String>,
    /// How often each operation was done and right.
    pub operations: BTreeMap<String, u64>,
    /// Callbacks that have ended.
    pub callbacks: u64,
    pub timed_out: u64,
    pub in_flight_max: u64,
    /// Resident memory in the second fifth and in the last one, KiB: medians.
    pub memory_kib: (u64, u64),
    pub killed: usize,
}

pub(super) fn judge(record: &Record) -> Verdict {
    let mut verdict = Verdict { killed: record.killed(), ..Verdict::default() };
    let mut told: BTreeMap<&str, BTreeMap<u64, &str>> = BTreeMap::new();
    for life in &record.lives {
        verdict.life(life, &mut told);
    }
    verdict.files(record, &told);
    verdict.journal(record);
    verdict.server(record);
    verdict
}

impl Verdict {
    fn finding(&mut self, finding: String) {
        self.findings.push(finding);
    }

    fn life<'a>(&mut self, life: &'a Life, told: &mut BTreeMap<&'a str, BTreeMap<u64, &'a str>>) {
        for line in &life.lines {
            let words: Vec<&str> = line.split(' ').collect();
            let operation = match words.as_slice() {
                ["c" | "p", file, number] if number.parse::<u64>().is_ok() => {
                    let numbers = told.entry(file).or_default();
                    if let Some(other) = numbers.insert(number.parse().unwrap_or(0), &life.name) {
                        self.finding(format!("{file}: {other} and {} have both made it {number}", life.name));
                    }
                    words[0]
                }
                ["j", _] => "j",
                ["ok", what] => what,
                ["over"] => continue,
                _ => {
                    self.finding(format!("{}: {line}", life.name));
                    continue;
                }
            };
            *self.operations.entry(operation.to_owned()).or_default() += 1;
        }
        if !life.killed && life.lines.last().is_none_or(|line| line != "over") {
            self.finding(format!("{} has not come to its end", life.name));
        }
    }

    fn files(&mut self, record: &Record, told: &BTreeMap<&str, BTreeMap<u64, &str>>) {
        let mut untold = 0;
        for (file, numbers) in told {
            let Some(last) = record.files.get(*file) else {
                self.finding(format!("{file} is not whole at the end"));
                continue;
            };
            if let Some((number, who)) = numbers.range(last + 1..).next() {
                self.finding(format!("{file}: {who} has made it {number}, and it is {last} at the end"));
            }
            untold += (1..=*last).filter(|number| !numbers.contains_key(number)).count();
        }
        if untold > self.killed {
            self.finding(format!("{untold} changes were told by nobody, and {} guests were killed", self.killed));
        }
    }

    fn journal(&mut self, record: &Record) {
        let mut entries: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in &record.journal {
            match line.split_once(' ') {
                Some((name, number)) => entries.entry(name).or_default().push(number),
                None => self.finding(format!("the journal has a line '{line}'")),
            }
        }
        for life in &record.lives {
            let found = entries.remove(life.name.as_str()).unwrap_or_default();
            let told = life.lines.iter().filter(|line| line.starts_with("j ")).count();
            let most = told + usize::from(life.killed);
            let in_order = found.iter().enumerate().all(|(at, number)| number.parse() == Ok(at + 1));
            if !in_order || !(told..=most).contains(&found.len()) {
                self.finding(format!("the journal has {} entries of {}, of {told}", found.len(), life.name));
            }
        }
        for name in entries.keys() {
            self.finding(format!("the journal has entries of '{name}'"));
        }
    }

    fn server(&mut self, record: &Record) {
        let samples = &record.samples;
        let Some(last) = samples.last() else { return self.finding("there are no samples".to_owned()) };
        (self.callbacks, self.timed_out) = (last.completed, last.timed_out);
        self.in_flight_max = samples.iter().map(|sample| sample.in_flight).max().unwrap_or(0);
        if last.in_flight > 0 {
            self.finding(format!("{} callbacks are in flight at the end", last.in_flight));
        }
        if last.slots_lost > 0 {
            self.finding(format!("{} session slots are lost at the end", last.slots_lost));
        }
        if last.completed == 0 {
            self.finding("no callback was made".to_owned());
        }
        let fifth = (samples.len() / 5).max(1);
        let median = |range: std::ops::Range<usize>| {
            let mut kib: Vec<u64> = samples[range].iter().map(|sample| sample.rss_kib).collect();
            kib.sort_unstable();
            kib.get(kib.len() / 2).copied().unwrap_or(0)
        };
        let second = fifth.min(samples.len() - 1)..(2 * fifth).min(samples.len());
        let (before, after) = (median(second), median(samples.len() - fifth..samples.len()));
        self.memory_kib = (before, after);
        if after > before + before * GROWTH_PERCENT / 100 + GROWTH_KIB {
            self.finding(format!("memory has grown from {before} KiB to {after} KiB"));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::record::{Event, Sample};
    use super::*;

    /// A record of a run that has passed.
    pub fn good() -> Record {
        let killed = Life { killed: true, ..Life::parse("g1.1", "ok look\nc counter0 1\nj 1\n") };
        let second = Life::parse("g1.2", "c counter0 3\np page0 1\nover\n");
        let other = Life::parse("g2.1", "j 1\nc counter0 4\nj 2\nover\n");
        let sample = |at_s| Sample {
            at_s,
            rss_kib: 40_000 + at_s % 7,
            in_flight: u64::from(at_s < 50) * (at_s % 3),
            completed: at_s * 10,
            ..Sample::default()
        };
        Record {
            lives: vec![killed, second, other],
            files: [("counter0".to_owned(), 4), ("page0".to_owned(), 1)].into(),
            journal: ["g1.1 1", "g2.1 1", "g1.1 2", "g2.1 2"].map(str::to_owned).to_vec(),
            samples: (0..60).map(sample).collect(),
            events: vec![Event { at_s: 20, kind: "killed".to_owned() }, Event { at_s: 30, kind: "cut".to_owned() }],
        }
    }

    fn found(change: impl FnOnce(&mut Record)) -> Vec<String> {
        let mut record = good();
        change(&mut record);
        judge(&record).findings
    }

    #[test]
    fn a_guest_that_is_killed_may_leave_one_change_untold() {
        let verdict = judge(&good());
        assert_eq!(verdict.findings, [""; 0]);
        assert_eq!((verdict.callbacks, verdict.killed, verdict.operations["c"]), (590, 1, 3));
    }

    #[test]
    fn what_is_wrong_is_found() {
        let one = |findings: Vec<String>, part: &str| {
            assert!(findings.len() == 1 && findings[0].contains(part), "{part}: {findings:?}");
        };
        // A stale read: two have counted from the same number.
        let stale = |r: &mut Record| {
            r.lives[2].lines[1] = "c counter0 3".to_owned();
            r.files.insert("counter0".to_owned(), 3);
        };
        one(found(stale), "have both made it 3");
        one(found(|r| _ = r.files.insert("counter0".to_owned(), 3)), "it is 3 at the end");
        one(found(|r| _ = r.files.remove("page0")), "page0 is not whole");
        one(found(|r| r.lives[2].lines[1] = "ok look".to_owned()), "2 changes were told by nobody");
        one(found(|r| r.lives[1].lines.insert(0, "wrong page0: 3 bytes".to_owned())), "g1.2: wrong page0");
        one(found(|r| r.lives[1].lines.insert(0, "error lock of counter1".to_owned())), "error lock");
        one(found(|r| _ = r.lives[1].lines.pop()), "g1.2 has not come to its end");
        one(found(|r| _ = r.journal.pop()), "1 entries of g2.1, of 2");
        one(found(|r| r.journal.swap(1, 3)), "entries of g2.1");
        one(found(|r| r.journal.push("g7.1 1".to_owned())), "of 'g7.1'");
        one(found(|r| r.samples[59].in_flight = 1), "1 callbacks are in flight");
        one(found(|r| r.samples[59].slots_lost = 2), "2 session slots");
        one(found(|r| r.samples[45..].iter_mut().for_each(|s| s.rss_kib += 9000)), "memory has grown");
        one(found(|r| r.samples.clear()), "no samples");
    }
}
