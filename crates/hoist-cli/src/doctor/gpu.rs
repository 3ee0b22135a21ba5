//! A GPU's driver: its library, which is looked for and not loaded, its devices and its part of the kernel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Finding;

/// The driver's library, by the name under which programs load it.
const LIBRARY: &str = "libcuda.so.1";

/// What the loader looks up first, made by ldconfig(8).
const CACHE: &str = "/etc/ld.so.cache";

/// Where the loader looks without a cache (ld.so(8)), and where distributions, WSL and Kubernetes put the library.
const FOLDERS: [&str; 8] = [
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
];

/// Whether device memory can be a GPU's.
pub fn examine() -> Finding {
    judge(
        library().as_deref(),
        Path::new("/dev/nvidiactl").exists() || Path::new("/dev/dxg").exists(),
        std::fs::read_to_string("/proc/driver/nvidia/version").ok().as_deref(),
    )
}

fn judge(library: Option<&Path>, has_device: bool, version: Option<&str>) -> Finding {
    let mut missing = Vec::new();
    let mut mend = "run where the GPU is: docker run --gpus all, or a machine that has one";
    if version.is_none() {
        missing.push("the kernel has no NVIDIA driver");
    } else if library.is_none() {
        mend = "install the driver's libraries, in a container: docker run --gpus all";
    }
    if !has_device {
        missing.push("there is no /dev/nvidiactl");
    }
    let found = match library {
        Some(path) => path.display().to_string(),
        None => format!("{LIBRARY} is not found"),
    };
    if library.is_some() && has_device {
        let driver = version.and_then(|text| text.lines().next()).unwrap_or_default();
        return Finding::ok("GPU library", format!("{found} {driver}").trim_end().to_owned());
    }
    let found = [vec![found.as_str()], missing].concat().join("; ");
    Finding::degraded("GPU library", found, "device memory can only be emulated in host memory", mend)
}

/// The library's file, where the loader would find it.
fn library() -> Option<PathBuf> {
    let search = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let named = std::env::split_paths(&search).filter(|folder| folder.is_absolute());
    let named: Vec<PathBuf> = named.map(|folder| folder.join(LIBRARY)).collect();
    let cached = cached(&std::fs::read(CACHE).unwrap_or_default());
    let usual = FOLDERS.iter().map(|folder| Path::new(folder).join(LIBRARY));
    named.into_iter().chain(cached).chain(usual).find(|path| path.is_file())
}

/// Paths of the library in the loader's cache: its strings end with a zero byte each (dl-cache.h of glibc).
fn cached(cache: &[u8]) -> Vec<PathBuf> {
    let strings = cache.split(|byte| *byte == 0).filter_map(|string| {
        // The first string follows the table of entries without a zero byte between them.
        let path = &string[string.iter().position(|byte| *byte == b'/')?..];
        let path = Path::new(OsStr::from_bytes(path));
        (path.file_name() == Some(OsStr::new(LIBRARY))).then(|| path.to_owned())
    });
    strings.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn the_cache_names_paths() {
        let cache = b"glibc-ld.so.cache1.1\0\x07\0\0/lib/libc.so.6\0libcuda.so.1\0/opt/x/libcuda.so.1\0/opt/x/libcuda.so.12\0";
        assert_eq!(cached(cache), [PathBuf::from("/opt/x/libcuda.so.1")]);
        assert_eq!(cached(b""), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_is_missing_is_said() {
        let nothing = judge(None, false, None);
        assert_eq!(nothing.state, State::Degraded);
        for word in [LIBRARY, "no NVIDIA driver", "/dev/nvidiactl"] {
            assert!(nothing.found.contains(word), "{word} in {}", nothing.found);
        }
        let library = judge(None, true, Some("NVRM version: 1\nGCC\n"));
        assert_eq!(library.found, "libcuda.so.1 is not found");
        assert!(library.mend.unwrap().starts_with("install"));
        let all = judge(Some(Path::new("/lib/libcuda.so.1")), true, Some("NVRM version: 1\nGCC\n"));
        assert_eq!((all.state, all.found.as_str()), (State::Ok, "/lib/libcuda.so.1 NVRM version: 1"));
    }
}
