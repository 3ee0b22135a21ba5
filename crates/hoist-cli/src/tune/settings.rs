//! The settings as a config: a file of TOML that `hoist bench` reads as it is.

use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;

use super::report::Setting;
use crate::config::Problem;
use crate::config::units::format_exact_bytes;
use crate::failure::Failure;
use crate::output::{check, folder};

/// As editors make files: what of it others may do, the umask says.
const MODE: u32 = 0o666;
/// What the settings do not say, and how it is said: printed above them.
const USE: &str = "use: hoist bench THIS-FILE --set model.kind=gpt2 --set host.budget=\"512 MiB\" \
     --set device.budget=\"128 MiB\"";

#[derive(Serialize)]
struct Sections<'a> {
    store: Store<'a>,
    io: Io,
}

#[derive(Serialize)]
struct Store<'a> {
    nvme_path: &'a [String],
}

#[derive(Serialize)]
struct Io {
    backend: &'static str,
    block_size: String,
    queue_depth: u32,
}

/// The config, with `table` above it as comments.
///
/// # Errors
/// When it cannot be said in TOML.
pub fn text(table: &str, directories: &[String], setting: Setting) -> Result<String, Failure> {
    let Setting { backend, block_size, queue_depth } = setting;
    let io = Io { backend, block_size: format_exact_bytes(block_size), queue_depth };
    let sections = Sections { store: Store { nvme_path: directories }, io };
    let toml = toml::to_string(&sections).map_err(|error| {
        Failure::work("writing the settings as TOML", error, "report it: this should not be")
    })?;
    let mut text = String::new();
    for line in ["hoist tune"].into_iter().chain(table.lines()).chain([USE]) {
        // Comments may hold no control characters (TOML 1.0), and a name of a directory may.
        let line = line.replace(char::is_control, "?");
        text.push_str(format!("# {line}").trim_end());
        text.push('\n');
    }
    Ok(text + "\n" + &toml)
}

/// Finds out before anything is measured whether the settings can be written there.
///
/// # Errors
/// What is wrong with it.
pub fn check_output(path: &Path, force: bool) -> Result<(), Problem> {
    const FLAG: &str = "--output";
    check(FLAG, path)?;
    if !force && path.symlink_metadata().is_ok() {
        let key = format!("{FLAG} {}", path.display());
        return Err(Problem::new(key, "is there already", "name another file, or add --force to replace it"));
    }
    Ok(())
}

/// Writes a file whole or not at all, and over another only if told to.
///
/// # Errors
/// What the file system says.
pub fn write(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let write = || {
        let permissions = Permissions::from_mode(MODE);
        let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(folder(path))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        let moved = if force { file.persist(path) } else { file.persist_noclobber(path) };
        moved.map(drop).map_err(|error| error.error)
    };
    write().map_err(|error: std::io::Error| {
        let remedy = match error.kind() {
            ErrorKind::AlreadyExists => "it was made in the meantime: take the settings from another run",
            _ => "name a file that can be written",
        };
        Failure::work(format!("writing {}", path.display()), error, remedy)
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use hoist_io::BackendChoice;
    use proptest::prelude::*;

    use super::super::candidate::candidates;
    use super::*;
    use crate::config::{Config, parse};

    /// What the settings do not say.
    fn read(text: &str) -> Config {
        let sets = ["device.budget=128 MiB", "host.budget=512 MiB", "model.kind=gpt2"].map(str::to_owned);
        parse("tuned.toml", text, &sets).unwrap_or_else(|problems| panic!("{problems:?} in\n{text}"))
    }

    fn check(directories: &[String], setting: Setting) {
        let table = format!("best settings  {setting:?}\n{}: read  1 GB/s", directories.join(" "));
        let config = read(&text(&table, directories, setting).unwrap());
        let paths: Vec<PathBuf> = directories.iter().map(PathBuf::from).collect();
        assert_eq!(config.store.nvme_path, paths);
        assert_eq!(config.io.backend.name(), setting.backend);
        assert_eq!((config.io.block_size, config.io.queue_depth), (setting.block_size, setting.queue_depth));
    }

    #[test]
    fn every_candidate_is_read_as_it_was_written() {
        let directories = ["/nvme0".to_owned(), "/nvme1".to_owned()];
        for own in [BackendChoice::Uring, BackendChoice::Pread] {
            candidates(own, 4096, 1e10).into_iter().for_each(|found| check(&directories, found.into()));
        }
    }

    #[test]
    fn directories_may_have_any_name_that_is_text() {
        let setting = Setting { backend: "uring", block_size: 1 << 20, queue_depth: 32 };
        let names = [
            "/a b",
            "/\"quoted\"",
            "/it's",
            "/back\\slash",
            "/C:\\new\\table",
            "/Größe/日本/🦀",
            "/#x = [1]",
            "/new\nline\r\ttab\u{7f}",
            "/'''\"\"\"",
        ];
        check(&names.map(str::to_owned), setting);
        names.iter().for_each(|name| check(&[(*name).to_owned()], setting));
    }

    proptest! {
        #[test]
        fn any_name_is_read_as_it_was_written(names in proptest::collection::btree_set("/\\PC{0,8}.{0,8}", 1..4)) {
            // "/" and "//" are one directory, which no config names twice.
            let mut seen = std::collections::BTreeSet::new();
            let names: Vec<String> = names.into_iter().filter(|name| seen.insert(PathBuf::from(name))).collect();
            check(&names, Setting { backend: "pread", block_size: 4096, queue_depth: 7 });
        }
    }

    #[test]
    fn nothing_is_replaced_unless_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tuned.toml");
        assert!(check_output(&path, false).is_ok());
        write(&path, "one", false).unwrap();
        let problem = check_output(&path, false).unwrap_err().to_string();
        assert!(problem.contains("already") && problem.contains("--force"), "{problem}");
        let failure = write(&path, "two", false).unwrap_err().to_string();
        assert!(failure.contains("tuned.toml") && failure.contains("meantime"), "{failure}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        assert!(check_output(&path, true).is_ok());
        write(&path, "two", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        assert!(check_output(folder.path(), true).is_err());
        assert!(check_output(&folder.path().join("nowhere/tuned.toml"), true).is_err());
    }
}
