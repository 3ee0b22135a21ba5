//! The memory limit of this process's cgroup and those above it, of both versions (cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};

/// A limit on memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The limit.
    pub bytes: u64,
    /// What is used of it and cannot be reclaimed at once: without the page cache.
    pub used_bytes: u64,
    /// The file that sets it.
    pub file: PathBuf,
}

/// The names of one version's files.
struct Version {
    limit: &'static str,
    usage: &'static str,
    /// Lines of `memory.stat`: pages of files, which are given up before the limit is felt.
    cache: [&'static str; 2],
}

/// Version 1 counts the groups below only under `total_`.
const V1: Version = Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cache: ["total_inactive_file ", "total_active_file "],
};
const V2: Version =
    Version { limit: "memory.max", usage: "memory.current", cache: ["inactive_file ", "active_file "] };

/// The limit that leaves the least; none where no cgroup sets one.
pub fn narrowest() -> Option<Limit> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let folders = folders(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    let limits = folders.iter().filter_map(|(version, folder)| limit(version, folder));
    limits.min_by_key(|limit| limit.bytes.saturating_sub(limit.used_bytes))
}

/// The folder of each group that this process is in, and of those above it, up to where the hierarchy is mounted.
fn folders(groups: &str, mounts: &str) -> Vec<(&'static Version, PathBuf)> {
    let mut found = Vec::new();
    for line in groups.lines() {
        // "4:memory:/a/b", and "0::/a/b" of version 2
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let version = match controllers {
            "" => &V2,
            controllers if controllers.split(',').any(|name| name == "memory") => &V1,
            _ => continue,
        };
        for (root, mount) in mounts.lines().filter_map(|line| hierarchy(line, version)) {
            // In a container what is mounted may be the group itself, or a part that does not show the group.
            let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
            let folder = if below == Path::new("") { mount.clone() } else { mount.join(below) };
            let up = folder.ancestors().take_while(|folder| folder.starts_with(&mount));
            found.extend(up.map(|folder| (version, folder.to_owned())));
        }
    }
    found
}

/// Root and mount point of a line of mountinfo that mounts the version's hierarchy: "33 32 0:28 /root /point options -
/// cgroup source options" (proc_pid_mountinfo(5)).
fn hierarchy(line: &str, version: &Version) -> Option<(PathBuf, PathBuf)> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut rest = rest.split(' ');
    let (kind, options) = (rest.next()?, rest.nth(1)?);
    let is_it = match kind {
        "cgroup2" => version.limit == V2.limit,
        "cgroup" => version.limit == V1.limit && options.split(',').any(|option| option == "memory"),
        _ => false,
    };
    let mut fields = fields.split(' ').skip(3);
    is_it.then_some((fields.next()?.into(), fields.next()?.into()))
}

/// The limit that a folder sets, if it is one.
fn limit(version: &Version, folder: &Path) -> Option<Limit> {
    let file = folder.join(version.limit);
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // "max" is no number.
    let bytes = number(&file)?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let value =
        |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let cached_bytes = version.cache.iter().filter_map(|name| value(name)).sum();
    let used_bytes = number(&folder.join(version.usage)).unwrap_or(0).saturating_sub(cached_bytes);
    Some(Limit { bytes, used_bytes, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(groups: &str, mounts: &str) -> Vec<String> {
        folders(groups, mounts).into_iter().map(|(_, folder)| folder.display().to_string()).collect()
    }

    #[test]
    fn a_group_and_those_above_it_are_looked_at() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let expected = ["/sys/fs/cgroup/user.slice/a", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"];
        assert_eq!(paths("0::/user.slice/a\n", mounts), expected);
    }

    #[test]
    fn version_1_is_the_hierarchy_with_memory() {
        let mounts = "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n33 31 0:30 / /cg/memory rw shared:9 - cgroup cgroup rw,memory\n";
        assert_eq!(paths("9:cpu:/x\n4:memory:/y\n0::/\n", mounts), ["/cg/memory/y", "/cg/memory"]);
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_mount() {
        let mounts = "40 39 0:31 /docker/abc /cg/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(paths("4:memory:/docker/abc\n", mounts), ["/cg/memory"]);
        assert_eq!(paths("4:memory:/../elsewhere\n", mounts), ["/cg/memory"]);
    }

    #[test]
    fn the_page_cache_is_not_used_memory() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("memory.max", "max\n");
        assert_eq!(limit(&V2, folder.path()), None);
        write("memory.max", "1000000\n");
        write("memory.current", "700000\n");
        write("memory.stat", "anon 1\nfile 9\ninactive_file 300000\nactive_file 100000\n");
        let found = limit(&V2, folder.path()).unwrap();
        assert_eq!((found.bytes, found.used_bytes), (1_000_000, 300_000));
        write("memory.limit_in_bytes", "5000\n");
        write("memory.usage_in_bytes", "4000\n");
        write("memory.stat", "inactive_file 77\ntotal_inactive_file 1500\ntotal_active_file 500\n");
        let found = limit(&V1, folder.path()).unwrap();
        assert_eq!((found.bytes, found.used_bytes), (5000, 2000));
    }
}
