//! The measurements, made in turn: A B C A B C ..., so that what else the machine does falls on all of them alike.

use super::child::Child;
use super::job::{Job, Request, Sample};
use super::micro;
use super::rows::Row;
use crate::storm::resources;
use rustix::process::Resource;
use std::collections::BTreeMap;
use std::time::Duration;

/// What one measurement may take, besides its window: set-up, populations, and the end of a load.
const MEASUREMENT_MAX: Duration = Duration::from_secs(120);
/// How often a measurement is tried.
const TRIES_MAX: usize = 3;
/// Descriptors of a measurement's process for each connection (a peer clones its sockets), and besides.
const FILES_PER_CONNECTION: u64 = 2;
const FILES_BASE: u64 = 64;

/// What this host has.
#[derive(Clone, Debug)]
pub struct Host {
    /// Why there is no io_uring; `None`: there is.
    pub no_uring: Option<String>,
    /// Descriptors that a process may have.
    pub files: Option<u64>,
    /// Memory, bytes.
    pub memory: Option<u64>,
}

/// What came of a row.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The row.
    pub row: Row,
    /// Its value in each round.
    pub values: Vec<f64>,
    /// Why it was not measured on this host.
    pub skipped: Option<String>,
    /// What broke.
    pub broken: Option<String>,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Rows, in their order.
    pub rows: Vec<Measured>,
    /// The samples of each measurement, one for each round.
    pub samples: BTreeMap<Job, Vec<Sample>>,
}

impl Host {
    /// This one. Raises the limit on descriptors as far as it may.
    pub fn here() -> Host {
        Host {
            no_uring: micro::no_uring(),
            files: resources::raise(Resource::Nofile),
            memory: resources::memory_available(),
        }
    }

    /// Why a measurement cannot be made here.
    fn lacks(&self, job: &Job) -> Option<String> {
        if let (Some(why), Some(true)) = (&self.no_uring, job.subject().map(|s| s.needs_uring())) {
            return Some(why.clone());
        }
        let files = u64::from(job.sockets()) * FILES_PER_CONNECTION + FILES_BASE;
        if self.files.is_some_and(|have| have < files) {
            return Some(format!("{files} descriptors are needed: raise the limit with `ulimit -n {files}`"));
        }
        let memory = job.memory_bytes();
        let available = self.memory.unwrap_or(u64::MAX);
        (available < memory)
            .then(|| format!("{} MiB of memory are needed, {} are available", memory >> 20, available >> 20))
    }

    /// Why a row cannot be measured here.
    fn refuses(&self, row: &Row) -> Option<String> {
        let compares_backends = row.name == "epoll_vs_uring";
        let lacks = row.jobs().find_map(|job| self.lacks(&job));
        lacks.or_else(|| self.no_uring.clone().filter(|_| compares_backends))
    }
}

impl Measured {
    /// The median, the lowest and the highest value.
    pub fn summary(&self) -> Option<(f64, f64, f64)> {
        summary(self.values.iter().copied())
    }
}

/// The median, the lowest and the highest of some values.
pub fn summary(values: impl Iterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median =
        if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
    Some((median, low, high))
}

/// Sets of measurements that rows compare with each other, directly or by way of others.
fn groups(rows: &[&Row]) -> Vec<Vec<Job>> {
    let mut groups: Vec<Vec<Job>> = Vec::new();
    for row in rows {
        let (with, without): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| row.jobs().any(|job| group.contains(&job)));
        let mut joined = with.concat();
        joined.extend(row.jobs().filter(|job| !with.iter().any(|group| group.contains(job))));
        groups = without;
        groups.push(joined);
    }
    groups
}

/// What is told of a measurement while the rounds go on.
pub enum Step<'a> {
    /// So many measurements will be made.
    Planned(usize),
    /// One begins.
    Begun(&'a Job),
    /// It is over.
    Over(&'a Job, &'a Result<Sample, String>),
}

/// Measures all rows, `pairs` times each.
pub fn measure(rows: Vec<Row>, pairs: usize, window: Duration, host: &Host, tell: &mut dyn FnMut(Step<'_>)) -> Results {
    let skipped: Vec<Option<String>> = rows.iter().map(|row| host.refuses(row)).collect();
    let measured: Vec<&Row> =
        rows.iter().zip(&skipped).filter(|(_, skip)| skip.is_none()).map(|(row, _)| row).collect();
    let groups = groups(&measured);
    tell(Step::Planned(groups.iter().map(Vec::len).sum::<usize>() * pairs));
    let (mut samples, mut broken) = (BTreeMap::<Job, Vec<Sample>>::new(), BTreeMap::<Job, String>::new());
    for group in &groups {
        for round in 0..pairs {
            // Each round begins with another one, so that none is always the first.
            for at in 0..group.len() {
                let job = group[(at + round) % group.len()];
                if broken.contains_key(&job) {
                    continue;
                }
                tell(Step::Begun(&job));
                let sample = with_patience(|| one(Request { job, window }));
                tell(Step::Over(&job, &sample));
                match sample {
                    Ok(sample) => samples.entry(job).or_default().push(sample),
                    Err(why) => _ = broken.insert(job, format!("{}: {why}", job.name())),
                }
            }
        }
    }
    let outcomes = rows.into_iter().zip(skipped).map(|(row, skipped)| {
        let broken = row.jobs().find_map(|job| broken.get(&job).cloned());
        let of_round = |round: usize| row.value(|job| samples.get(job)?.get(round).cloned());
        let values = if broken.is_some() { Vec::new() } else { (0..pairs).map_while(of_round).collect() };
        // A measurement without the figure that the row is about is a mistake of ours, not of the host's.
        let missing = skipped.is_none() && broken.is_none() && values.len() < pairs;
        let broken = broken.or_else(|| missing.then(|| "a figure is missing".to_owned()));
        Measured { row, values, skipped, broken }
    });
    Results { rows: outcomes.collect(), samples }
}

/// Measures again what has failed: on a busy machine a process may not have answered in time, and the rows of all rounds
/// would be lost for it. What has failed so often is broken.
pub(super) fn with_patience<T>(mut measure: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let mut answer = measure();
    for _ in 1..TRIES_MAX {
        if answer.is_ok() {
            break;
        }
        answer = measure();
    }
    answer
}

pub(super) fn one(request: Request) -> Result<Sample, String> {
    Child::measurement(&request)?.answer(MEASUREMENT_MAX + request.window)
}

#[cfg(test)]
mod tests {
    use super::super::rows::{self, Scale};
    use super::*;

    #[test]
    fn what_is_compared_is_measured_together() {
        let all = rows::rows(Scale::Full);
        let some = ["cpu_vs_async_task_64x32", "echo_share_64x32", "syscalls_1x1"];
        let rows: Vec<&Row> = all.iter().filter(|row| some.contains(&row.name)).collect();
        let mut sizes: Vec<usize> = groups(&rows).iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 3], "ringback once, with both of its peers");
    }

    #[test]
    fn what_fails_again_and_again_is_broken() {
        for (fails, expected) in [(0, Ok(1)), (2, Ok(3)), (3, Err("no".to_owned()))] {
            let mut tries = 0;
            let measured = with_patience(|| {
                tries += 1;
                if tries > fails { Ok(tries) } else { Err("no".to_owned()) }
            });
            assert_eq!(measured, expected);
        }
    }

    #[test]
    fn a_summary_is_the_median_and_the_range() {
        assert_eq!(summary([3.0, 1.0, 2.0].into_iter()), Some((2.0, 1.0, 3.0)));
        assert_eq!(summary([4.0, 1.0].into_iter()), Some((2.5, 1.0, 4.0)));
        assert_eq!(summary(std::iter::empty()), None);
    }

    #[test]
    fn what_a_host_lacks_is_said() {
        let all = rows::rows(Scale::Full);
        let row = |name: &str| all.iter().find(|row| row.name == name).unwrap();
        let poor = Host { no_uring: Some("io_uring is disabled".to_owned()), files: Some(1024), memory: Some(1 << 30) };
        for (name, says) in [
            ("echo_share_64x32", Some("io_uring is disabled")),
            ("epoll_vs_uring", Some("io_uring is disabled")),
            ("cpu_vs_async_task_1024x8", Some("ulimit -n 2112")),
            ("idle_bytes_100m_gib", Some("of memory")),
            ("cpu_vs_async_task_64x32", None),
        ] {
            match (poor.refuses(row(name)), says) {
                (None, None) => {}
                (Some(why), Some(says)) => assert!(why.contains(says), "{name}: {why}"),
                (refused, _) => panic!("{name}: {refused:?}"),
            }
        }
    }
}
