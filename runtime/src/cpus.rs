//! Where the threads of reactors run, and what node of memory that is near to.

use crate::builder::BuildError;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;

/// Where Linux tells which CPUs are near to which memory.
const NODES: &str = "/sys/devices/system/node";

/// Where a reactor runs.
///
/// # Examples
///
/// ```
/// use ringback::Runtime;
///
/// fn print(runtime: &Runtime) {
///     for place in runtime.placement() {
///         println!("{place}");
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// The reactor.
    pub reactor: usize,
    /// The CPU that it is pinned to. `None`: the kernel moves it as it likes.
    pub cpu: Option<usize>,
    /// The node of that CPU, where there is more than one: what the reactor allocates (its ring, receive and staging buffers,
    /// session slots, queues) is touched there first, so that it lies there.
    pub node: Option<usize>,
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reactor {}: ", self.reactor)?;
        match (self.cpu, self.node) {
            (Some(cpu), Some(node)) => write!(f, "pinned to CPU {cpu}, its memory on node {node}"),
            (Some(cpu), None) => write!(f, "pinned to CPU {cpu}"),
            (None, _) => f.write_str("not pinned"),
        }
    }
}

/// A list of CPUs, which is read as Linux writes it.
///
/// # Examples
///
/// ```
/// use ringback::{Builder, CpuList};
///
/// let cpus: CpuList = "2-4,8".parse()?;
/// assert_eq!(cpus, CpuList::from(vec![2, 3, 4, 8]));
/// assert!("4-2".parse::<CpuList>().is_err());
/// let builder = Builder::new().reactors(4).cpus(cpus);
/// # Ok::<(), ringback::BadCpuList>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(pub(crate) Vec<usize>);

impl From<Vec<usize>> for CpuList {
    fn from(cpus: Vec<usize>) -> Self {
        CpuList(cpus)
    }
}

/// A text that is no list of CPUs.
///
/// # Examples
///
/// ```
/// use ringback::CpuList;
///
/// assert_eq!("one".parse::<CpuList>().unwrap_err().to_string(), "not a list of CPUs such as 0-3,8");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of CPUs such as 0-3,8")]
pub struct BadCpuList;

impl FromStr for CpuList {
    type Err = BadCpuList;

    fn from_str(text: &str) -> Result<Self, BadCpuList> {
        parse(text).filter(|cpus| !cpus.is_empty()).map(CpuList).ok_or(BadCpuList)
    }
}

/// Where so many reactors run, one CPU after the other; they are not pinned if there are none. An error if this process may not use
/// one of them.
pub(crate) fn place(reactors: usize, cpus: &[usize]) -> Result<Vec<Placement>, BuildError> {
    let nodes = if cpus.is_empty() { BTreeMap::new() } else { nodes(Path::new(NODES)) };
    if !cpus.is_empty() {
        let allowed = allowed().map_err(|error| BuildError::Affinity { error })?;
        if let Some(cpu) = cpus.iter().copied().find(|cpu| !allowed.contains(cpu)) {
            return Err(BuildError::Cpu { cpu, allowed: list(&allowed) });
        }
    }
    Ok(placed(reactors, cpus, &nodes))
}

fn placed(reactors: usize, cpus: &[usize], nodes: &BTreeMap<usize, Vec<usize>>) -> Vec<Placement> {
    let node_of = |cpu| nodes.iter().find(|(_, cpus)| cpus.contains(&cpu)).map(|(node, _)| *node);
    let place = |reactor| {
        let cpu = (!cpus.is_empty()).then(|| cpus[reactor % cpus.len()]);
        // On the only node there is nothing to choose.
        Placement { reactor, cpu, node: cpu.and_then(node_of).filter(|_| nodes.len() > 1) }
    };
    (0..reactors).map(place).collect()
}

/// CPUs that this thread may run on.
fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The calling thread runs on this CPU from now on, and on no other.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// The CPUs of each node.
fn nodes(root: &Path) -> BTreeMap<usize, Vec<usize>> {
    let Ok(entries) = fs::read_dir(root) else { return BTreeMap::new() };
    let node = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        let cpus = parse(&fs::read_to_string(entry.path().join("cpulist")).ok()?)?;
        // A node of memory alone is near to nobody.
        (!cpus.is_empty()).then_some((number, cpus))
    };
    entries.flatten().filter_map(node).collect()
}

/// Reads a list like `0-3,8`. `None`: it is none.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CpuSet::MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Writes a list like `0-3,8`.
fn list(cpus: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let part = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    parts.into_iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read_and_written() {
        for text in ["", "0", "0-3", "0-3,8", "1,3,5-7"] {
            assert_eq!(list(&parse(text).unwrap()), text);
        }
        assert_eq!(parse("0-1\n"), Some(vec![0, 1]));
        for text in ["a", "3-1", "1-", "0-99999", "0;1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    /// A machine with two nodes and one of memory alone, as its files tell it.
    #[test]
    fn memory_lies_on_the_node_of_the_cpu_where_there_is_more_than_one() {
        let root = std::env::temp_dir().join(format!("ringback-nodes-{}", std::process::id()));
        for (node, cpus) in [("node0", "0-1,4\n"), ("node1", "2-3\n"), ("node2", "\n"), ("power", "")] {
            fs::create_dir_all(root.join(node)).unwrap();
            fs::write(root.join(node).join("cpulist"), cpus).unwrap();
        }
        let two = nodes(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(two, BTreeMap::from([(0, vec![0, 1, 4]), (1, vec![2, 3])]));
        let places = placed(4, &[4, 2, 9], &two);
        let told: Vec<_> = places.iter().map(|place| (place.cpu, place.node)).collect();
        assert_eq!(told, [(Some(4), Some(0)), (Some(2), Some(1)), (Some(9), None), (Some(4), Some(0))]);
        assert_eq!(places[1].to_string(), "reactor 1: pinned to CPU 2, its memory on node 1");
        // One node: nothing to choose.
        assert_eq!(placed(1, &[0], &BTreeMap::from([(0, vec![0])]))[0].node, None);
        assert_eq!(placed(1, &[], &two)[0].to_string(), "reactor 0: not pinned");
        assert!(nodes(&root).is_empty(), "a kernel without nodes");
    }
}
