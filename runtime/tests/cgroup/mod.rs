//! A memory cgroup of the test's own, if this host lets it have one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Where the hierarchies are mounted; without version 2 nobody tells of pressure.
struct Mounts {
    unified: PathBuf,
    /// The memory controller of version 1.
    memory: Option<PathBuf>,
}

fn mounts() -> Result<Mounts, String> {
    let table = fs::read_to_string("/proc/mounts").map_err(|e| e.to_string())?;
    let mut found = Mounts { unified: PathBuf::new(), memory: None };
    for fields in table.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
        match fields[..] {
            [_, at, "cgroup2", ..] => found.unified = at.into(),
            [_, at, "cgroup", options, ..] if options.split(',').any(|o| o == "memory") => {
                found.memory = Some(at.into())
            }
            _ => {}
        }
    }
    if found.unified.as_os_str().is_empty() { Err("cgroup2 is not mounted".to_owned()) } else { Ok(found) }
}

/// The group; in a host with the memory controller of version 1, one of each.
pub struct Group {
    /// That of version 2.
    unified: PathBuf,
    all: Vec<PathBuf>,
}

impl Group {
    /// A group that may have so many bytes; or why not.
    pub fn new(bytes: u64) -> Result<Group, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Mounts { unified, memory } = mounts()?;
        let name = format!("ringback-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let mut group = Group { unified: unified.join(&name), all: Vec::new() };
        let limit = match &memory {
            Some(memory) => memory.join(&name).join("memory.limit_in_bytes"),
            None => {
                // It may be there already, or not be ours to give.
                let _ = fs::write(unified.join("cgroup.subtree_control"), "+memory");
                group.unified.join("memory.max")
            }
        };
        for path in [Some(group.unified.clone()), memory.map(|memory| memory.join(&name))].into_iter().flatten() {
            fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            group.all.push(path);
        }
        fs::write(&limit, bytes.to_string()).map_err(|e| format!("{}: {e}", limit.display()))?;
        fs::metadata(group.pressure()).map_err(|e| format!("{}: {e}", group.pressure().display()))?;
        Ok(group)
    }

    /// Where the kernel tells of its pressure.
    pub fn pressure(&self) -> PathBuf {
        self.unified.join("memory.pressure")
    }

    /// Whether its tasks have waited for memory for long enough, all in all, that the kernel may have had to tell.
    pub fn is_pressed(&self) -> bool {
        let told = fs::read_to_string(self.pressure()).unwrap_or_default();
        let total = told.split("total=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        total.is_some_and(|us| us > 1_000_000)
    }

    /// Reads a file that is larger than the group, again and again, until it is dropped.
    pub fn hog(&self, folder: &Path) -> Hog {
        let file = folder.join(format!("hog-{}", std::process::id()));
        let enter = self.all.iter().map(|path| format!("echo $$ > {}/cgroup.procs; ", path.display()));
        let write = format!("dd if=/dev/zero of={0} bs=1M count=64; ", file.display());
        let read = format!("while cat {0} > /dev/null; do :; done", file.display());
        let script = enter.chain([write, read]).collect::<String>();
        let child = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        Hog { child: child.expect("sh can be run"), file }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in &self.all {
            // Its tasks are gone as soon as they have been waited for, or a little later.
            (0..1000).find(|_| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                fs::remove_dir(path).is_ok()
            });
        }
    }
}

/// A process that wants more memory than it may have.
pub struct Hog {
    child: Child,
    file: PathBuf,
}

impl Drop for Hog {
    fn drop(&mut self) {
        // Without its file it ends by itself; killed, it may leave one `cat` behind that does.
        let _ = fs::remove_file(&self.file);
        let _ = self.child.wait();
    }
}
