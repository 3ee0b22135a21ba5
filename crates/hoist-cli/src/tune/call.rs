//! What `hoist tune` was asked for, typed.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::config::Problem;
use crate::io::directory_problems;

/// What a directory may take, all told.
const SECONDS_MAX: f64 = 30.0;
/// Below this not even the file would be made.
const SECONDS_MIN: f64 = 0.5;

/// What is tuned, and for how long.
#[derive(Clone, Debug)]
pub struct Call {
    /// A file in each of them.
    pub directories: Vec<PathBuf>,
    /// The same from the root on, as configs name them.
    pub names: Vec<String>,
    /// For each directory, all told.
    pub duration: Duration,
    /// The same for the report.
    pub settings: Settings,
}

/// `config`: what the run was asked for, defaults filled in.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// How many.
    pub directories: usize,
    /// For each of them.
    pub seconds: f64,
}

impl Call {
    /// Reads what was given.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn read(directories: &[PathBuf], seconds: Option<&str>) -> Result<Self, Vec<Problem>> {
        let mut problems = directory_problems(directories);
        let mut names = Vec::new();
        for path in directories {
            let whole = std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned));
            match whole {
                Some(name) => names.push(name),
                None => problems.push(Problem::new(
                    path.display().to_string(),
                    "is no UTF-8 text, so no config can name it",
                    "rename it, or name another",
                )),
            }
        }
        let number = |text: &str| {
            text.trim().parse().ok().filter(|number| (SECONDS_MIN..=SECONDS_MAX).contains(number))
        };
        let seconds = seconds.map_or(Some(SECONDS_MAX), number).unwrap_or_else(|| {
            let right = format!("would be right: a number from {SECONDS_MIN} to {SECONDS_MAX}");
            let what = format!("\"{}\" is not right", seconds.unwrap_or_default());
            problems.push(Problem::new("--seconds", what, right));
            SECONDS_MAX
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let settings = Settings { directories: directories.len(), seconds };
        let duration = Duration::from_secs_f64(seconds);
        Ok(Self { directories: directories.to_vec(), names, duration, settings })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_directory_takes_30_s_at_most() {
        let read = |seconds| Call::read(&[PathBuf::from(".")], seconds);
        assert_eq!(read(None).unwrap().duration, Duration::from_secs(30));
        assert_eq!(read(Some("2.5")).unwrap().duration, Duration::from_millis(2500));
        for wrong in ["31", "0.1", "-1", "NaN", "soon", ""] {
            assert_eq!(read(Some(wrong)).unwrap_err()[0].key, "--seconds", "{wrong}");
        }
    }

    #[test]
    fn names_are_whole_and_text() {
        let call = Call::read(&[PathBuf::from("src")], None).unwrap();
        assert_eq!(call.names, [std::env::current_dir().unwrap().join("src").to_str().unwrap()]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
        std::fs::create_dir(&path).unwrap();
        let problems = Call::read(&[path, "nowhere".into()], Some("0")).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
