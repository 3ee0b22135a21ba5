//! Facts of the machine that results depend on. Nothing that tells one machine from its neighbour.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::memory;

/// `machine`
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Type of the file system under the store's first directory.
    pub file_system: String,
    /// What I/O and memory obtained, and each step down with its cause.
    pub obtained: Vec<String>,
}

impl Machine {
    /// This machine, with a store in `directory`; what cannot be found out is called unknown.
    pub fn here(directory: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu =
            read("/proc/cpuinfo").lines().find_map(|line| Some(line.strip_prefix("model name")?.to_owned()));
        let cpu = cpu.map(|line| line.trim_start_matches([' ', '\t', ':']).to_owned());
        Self {
            cpu: cpu.unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory::bytes(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            file_system: file_system(directory),
            obtained: Vec::new(),
        }
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The type of the file system that holds `directory`, by the names of `/proc/self/mountinfo`.
pub fn file_system(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match directory.canonicalize() {
        Ok(directory) => mount_type(&mounts, &directory).unwrap_or_else(unknown),
        Err(_) => unknown(),
    }
}

/// The last of the mounts with the longest mount point that holds `directory`: later mounts cover earlier ones.
fn mount_type(mounts: &str, directory: &Path) -> Option<String> {
    let mount = |line: &str| {
        // "36 35 98:0 /root /mount/point options - type source options" (proc_pid_mountinfo(5))
        let (fields, rest) = line.split_once(" - ")?;
        let point = fields.split(' ').nth(4)?.replace("\\040", " ");
        directory
            .starts_with(&point)
            .then(|| (point.len(), rest.split(' ').next().unwrap_or_default().to_owned()))
    };
    mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts =
            "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /mnt/my\\040disk rw shared:1 - xfs /dev/b rw\n";
        assert_eq!(mount_type(mounts, Path::new("/mnt/my disk/store")).as_deref(), Some("xfs"));
        assert_eq!(mount_type(mounts, Path::new("/mnt/my")).as_deref(), Some("ext4"));
        assert_eq!(mount_type("", Path::new("/")), None);
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::here(Path::new("/"));
        assert!(machine.cores > 0 && machine.memory_bytes > 0);
        assert!(!machine.kernel.is_empty());
        assert_ne!(machine.file_system, "unknown");
    }
}
