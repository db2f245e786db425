//! The rows of the table: which measurements each compares, its floor and its aim.

use super::job::{Figure, Job, Load, Sample, Subject, Submit};

/// Which values are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Small ones.
    Lower,
    /// Large ones.
    Higher,
}

/// One row: `figure * factor`, divided by another figure of the same round where the row is a ratio.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name; where one line of the requirements has several settings, the setting follows.
    pub name: &'static str,
    /// What the value is.
    pub what: String,
    /// Which values are good.
    pub better: Better,
    /// What must be met, if anything must.
    pub floor: Option<f64>,
    /// What is aimed at.
    pub aim: Option<f64>,
    /// The figure.
    pub figure: (Job, Figure),
    /// What it is divided by.
    pub by: Option<(Job, Figure)>,
    /// What it is multiplied by.
    pub factor: f64,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// What the rows are about.
    Full,
    /// Smaller populations.
    Quick,
    /// For tests of the command: the figures mean nothing.
    Tiny,
}

/// How many entries there are where a row is about how many there are.
struct Populations {
    churn: u32,
    idle: u32,
    idle_most: u32,
    few: u32,
    many: u32,
}

impl Scale {
    fn populations(self) -> Populations {
        match self {
            Scale::Full => Populations {
                churn: 10_000_000,
                idle: 10_000_000,
                idle_most: 100_000_000,
                few: 10_000,
                many: 10_000_000,
            },
            Scale::Quick => {
                Populations { churn: 1_000_000, idle: 1_000_000, idle_most: 10_000_000, few: 10_000, many: 1_000_000 }
            }
            Scale::Tiny => Populations { churn: 10_000, idle: 100_000, idle_most: 200_000, few: 10_000, many: 20_000 },
        }
    }
}

impl Row {
    fn new(name: &'static str, what: impl Into<String>, (floor, aim): (f64, f64), figure: (Job, Figure)) -> Row {
        let what = what.into();
        Row { name, what, better: Better::Lower, floor: Some(floor), aim: Some(aim), figure, by: None, factor: 1.0 }
    }

    fn by(mut self, job: Job, figure: Figure) -> Row {
        self.by = Some((job, figure));
        self
    }

    fn times(mut self, factor: f64) -> Row {
        self.factor = factor;
        self
    }

    fn higher(mut self) -> Row {
        self.better = Better::Higher;
        self
    }

    /// Nothing is asked of it: it is there to be looked at.
    fn informal(mut self) -> Row {
        (self.floor, self.aim) = (None, None);
        self
    }

    /// The measurements that it needs.
    pub fn jobs(&self) -> impl Iterator<Item = Job> + use<> {
        [Some(self.figure.0), self.by.map(|by| by.0)].into_iter().flatten()
    }

    /// Its value in a round that gave these samples.
    pub fn value(&self, sample: impl Fn(&Job) -> Option<Sample>) -> Option<f64> {
        let get = |(job, figure): (Job, Figure)| sample(&job)?.get(&figure).copied();
        let by = match self.by {
            Some(by) => get(by)?,
            None => 1.0,
        };
        Some(get(self.figure)? * self.factor / by).filter(|value| value.is_finite())
    }

    /// Whether a value meets a bound of this row.
    pub fn meets(&self, value: f64, bound: Option<f64>) -> Option<bool> {
        bound.map(|bound| match self.better {
            Better::Lower => value <= bound,
            Better::Higher => value >= bound,
        })
    }
}

/// All rows, in the order of the requirements; those that are only to be looked at come last.
pub fn rows(scale: Scale) -> Vec<Row> {
    [
        against_peers(),
        own_costs(),
        entries(&scale.populations()),
        scaling(&scale.populations()),
        informal(&scale.populations()),
    ]
    .concat()
}

fn load(subject: Subject, (connections, slots): (u32, u32)) -> Job {
    Job::Load(Load::new(subject, connections, slots))
}

/// Few connections with many callbacks each, and many with few.
const FEW: (u32, u32) = (64, 32);
const MANY: (u32, u32) = (1024, 8);

fn cpu_ratio(name: &'static str, bounds: (f64, f64), peer: Subject, size: (u32, u32)) -> Row {
    let what = format!("CPU per callback, ringback / {}, {} connections x {} slots", peer.name(), size.0, size.1);
    Row::new(name, what, bounds, (load(Subject::Ringback, size), Figure::Cpu)).by(load(peer, size), Figure::Cpu)
}

fn against_peers() -> Vec<Row> {
    let echo = |name, bounds, size: (u32, u32)| {
        let what = format!("CPU per callback, io_uring echo / ringback, {} connections x {} slots", size.0, size.1);
        let row = Row::new(name, what, bounds, (load(Subject::Echo, size), Figure::Cpu)).higher();
        row.by(load(Subject::Ringback, size), Figure::Cpu)
    };
    let (task, each) = ((1.0 / 3.5, 1.0 / 5.0), (1.0 / 12.0, 1.0 / 20.0));
    vec![
        cpu_ratio("cpu_vs_async_task_64x32", task, Subject::AsyncTask, FEW),
        cpu_ratio("cpu_vs_async_task_1024x8", task, Subject::AsyncTask, MANY),
        cpu_ratio("cpu_vs_send_per_rpc_64x32", each, Subject::SendPerRpc, FEW),
        cpu_ratio("cpu_vs_send_per_rpc_1024x8", each, Subject::SendPerRpc, MANY),
        echo("echo_share_64x32", (0.55, 0.70), FEW),
        echo("echo_share_1024x8", (0.65, 0.80), MANY),
    ]
}

fn own_costs() -> Vec<Row> {
    let few = Load::new(Subject::Ringback, FEW.0, FEW.1);
    // Twice as many as session slots, so that some are always queued while the submitter sleeps.
    let other = Job::Load(Load { submit: Submit::OtherThread, outstanding: 2 * FEW.1, ..few });
    let few = Job::Load(few);
    let epoll = load(Subject::RingbackEpoll, FEW);
    let syscalls = |name, bounds, size: (u32, u32)| {
        let what = format!("system calls of the reactors per callback, {} connections x {} slots", size.0, size.1);
        Row::new(name, what, bounds, (load(Subject::Ringback, size), Figure::Syscalls))
    };
    let user = |name, what: &str, bounds, job| {
        let what = format!("user CPU per callback in null system calls, {what} submits");
        Row::new(name, what, bounds, (job, Figure::UserCpu)).by(Job::NullCall, Figure::Own)
    };
    vec![
        user("user_cpu_same_thread", "the same thread", (1.3, 0.9), few),
        user("user_cpu_other_thread", "another thread", (1.7, 1.1), other),
        Row::new(
            "epoll_vs_uring",
            "CPU per callback, epoll / io_uring, 64 connections x 32 slots",
            (1.3, 1.15),
            (epoll, Figure::Cpu),
        )
        .by(few, Figure::Cpu),
        syscalls("syscalls_64x32", (0.02, 0.01), FEW),
        syscalls("syscalls_1024x1", (0.06, 0.03), (1024, 1)),
        syscalls("syscalls_1x1", (2.1, 1.05), (1, 1)),
        Row::new(
            "sends",
            "sends per callback times the 32 that are queued on each of 64 connections",
            (1.5, 1.1),
            (few, Figure::Sends),
        )
        .times(FEW.1.into()),
        Row::new(
            "wakes",
            "wake-ups of a reactor per callback, another thread submits",
            (0.01, 0.003),
            (other, Figure::Wakes),
        ),
    ]
}

fn entries(n: &Populations) -> Vec<Row> {
    const GIB: f64 = (1u64 << 30) as f64;
    let few = Load::new(Subject::Ringback, FEW.0, FEW.1);
    let latency = |name, percent: &str, bounds, figure| {
        let what = format!("{percent} latency of one recall on an idle system, ringback / tokio");
        Row::new(name, what, bounds, (Job::Latency(Subject::Ringback), figure))
            .by(Job::Latency(Subject::AsyncTask), figure)
    };
    let millions = |entries: u32| format!("{} million", f64::from(entries) / 1e6);
    vec![
        Row::new(
            "submit",
            "`try_run` until it is queued, in compare-and-swaps",
            (10.0, 6.0),
            (Job::Submit, Figure::Own),
        ),
        Row::new(
            "slab_churn",
            format!("allocation of an entry after churn at {} entries, in random loads from memory", millions(n.churn)),
            (1.0, 0.3),
            (Job::Churn { entries: n.churn }, Figure::Own),
        ),
        Row::new(
            "idle_bytes",
            format!("resident bytes of an idle entry, of {}", millions(n.idle)),
            (34.0, 32.0),
            (Job::Idle { entries: n.idle }, Figure::Own),
        ),
        Row::new(
            "idle_bytes_100m_gib",
            format!("resident GiB of 100 million idle entries, from {}", millions(n.idle_most)),
            (3.6, 3.1),
            (Job::Idle { entries: n.idle_most }, Figure::Own),
        )
        .times(1e8 / GIB),
        Row::new(
            "steady_allocs",
            "heap allocations per callback",
            (0.0, 0.0),
            (Job::Load(Load { count_allocations: true, ..few }), Figure::Allocations),
        ),
        latency("idle_latency_p50", "median", (1.1, 0.9), Figure::P50),
        latency("idle_latency_p99", "99th percentile of the", (1.6, 1.0), Figure::P99),
    ]
}

fn scaling(n: &Populations) -> Vec<Row> {
    /// As many as a client that allows 16 operations can take in its session slots, CB_SEQUENCE apart.
    const BATCHED: u32 = 15 * FEW.1;
    let few = Load::new(Subject::Ringback, FEW.0, FEW.1);
    let single = Job::Load(Load { outstanding: BATCHED, ..few });
    let batched = Job::Load(Load { outstanding: BATCHED, operations: 16, ..few });
    let two = Job::Load(Load { reactors: 2, ..few });
    let of = |delegations| Job::Load(Load { delegations, prefetch: true, ..few });
    vec![
        Row::new("two_reactors", "CPU per callback, two reactors / one", (1.2, 1.05), (two, Figure::Cpu))
            .by(Job::Load(few), Figure::Cpu),
        Row::new("batching_cpu", "CPU per callback, 16 operations allowed / 2", (0.6, 0.35), (batched, Figure::Cpu))
            .by(single, Figure::Cpu),
        Row::new(
            "batching_bytes",
            "bytes per callback, 16 operations allowed / 2",
            (0.8, 0.6),
            (batched, Figure::Bytes),
        )
        .by(single, Figure::Bytes),
        Row::new(
            "scale",
            format!("CPU per callback, {} idle delegations / {}", n.many, n.few),
            (1.5, 1.15),
            (of(n.many), Figure::Cpu),
        )
        .by(of(n.few), Figure::Cpu),
    ]
}

fn informal(n: &Populations) -> Vec<Row> {
    let none = (0.0, 0.0);
    let few = Load::new(Subject::Ringback, FEW.0, FEW.1);
    let of = |delegations| Job::Load(Load { delegations, ..few });
    vec![
        cpu_ratio("cpu_vs_async_bare_64x32", none, Subject::AsyncBare, FEW).informal(),
        cpu_ratio("cpu_vs_async_bare_1024x8", none, Subject::AsyncBare, MANY).informal(),
        cpu_ratio("cpu_vs_mio_loop_64x32", none, Subject::MioLoop, FEW).informal(),
        cpu_ratio("cpu_vs_mio_loop_1024x8", none, Subject::MioLoop, MANY).informal(),
        cpu_ratio("cpu_vs_tokio_uring_64x32", none, Subject::TokioUring, FEW).informal(),
        cpu_ratio("cpu_vs_tokio_uring_1024x8", none, Subject::TokioUring, MANY).informal(),
        Row::new(
            "scale_unannounced",
            format!("as `scale`, but the embedder does not say which recall comes next: {} / {}", n.many, n.few),
            none,
            (of(n.many), Figure::Cpu),
        )
        .by(of(n.few), Figure::Cpu)
        .informal(),
    ]
}

/// The rows whose names are, or begin with, one of `names`; all, if there are none. The error names what there is not.
pub fn select(rows: Vec<Row>, names: &[String]) -> Result<Vec<Row>, String> {
    let fits = |row: &Row, name: &str| {
        row.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    if let Some(unknown) = names.iter().find(|name| !rows.iter().any(|row| fits(row, name))) {
        let known: Vec<_> = rows.iter().map(|row| row.name).collect();
        return Err(format!("--rows: there is no row {unknown}; there are: {}", known.join(", ")));
    }
    Ok(rows.into_iter().filter(|row| names.is_empty() || names.iter().any(|name| fits(row, name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_selects_its_settings() {
        let names = |names: &[&str]| -> Vec<&str> {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            select(rows(Scale::Full), &names).unwrap().iter().map(|row| row.name).collect()
        };
        assert_eq!(names(&["echo_share"]), ["echo_share_64x32", "echo_share_1024x8"]);
        assert_eq!(names(&["syscalls_1x1", "sends"]), ["syscalls_1x1", "sends"]);
        assert_eq!(names(&[]).len(), rows(Scale::Full).len());
        let unknown = select(rows(Scale::Full), &["send".to_owned()]).unwrap_err();
        assert!(unknown.contains("no row send;") && unknown.contains("sends"), "{unknown}");
    }

    #[test]
    fn a_value_is_a_ratio_within_one_round() {
        let all = rows(Scale::Full);
        let row = all.iter().find(|row| row.name == "cpu_vs_async_task_64x32").unwrap();
        let sample = |job: &Job| {
            let cpu = if job.subject() == Some(Subject::Ringback) { 400.0 } else { 2000.0 };
            Some(Sample::from([(Figure::Cpu, cpu)]))
        };
        let value = row.value(sample).unwrap();
        assert_eq!(value, 0.2);
        assert_eq!((row.meets(value, row.floor), row.meets(0.21, row.aim)), (Some(true), Some(false)));
        assert_eq!(row.value(|_| None), None);
        let echo = all.iter().find(|row| row.name == "echo_share_64x32").unwrap();
        assert_eq!((echo.meets(0.6, echo.floor), echo.meets(0.5, echo.floor)), (Some(true), Some(false)));
        assert_eq!(echo.meets(0.6, None), None);
    }

    #[test]
    fn names_are_told_apart() {
        for scale in [Scale::Full, Scale::Quick, Scale::Tiny] {
            let mut names: Vec<_> = rows(scale).iter().map(|row| row.name).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }
}
