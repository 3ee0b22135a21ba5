//! The names of an export's files, by the convention of the Hugging Face hub.

use super::index::INDEX_SUFFIX;
use crate::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How the name of a model's only file ends.
const SUFFIX: &str = ".safetensors";

/// What an export writes, and what must not lie beside it.
pub(crate) struct Names {
    /// The one file, or the shards.
    pub files: Vec<PathBuf>,
    /// The index, which is written for several shards only.
    pub index: PathBuf,
    /// The one file.
    out: PathBuf,
}

impl Names {
    pub(crate) fn new(out: &Path, shards: usize) -> Names {
        let name = out.file_name().unwrap_or_default().as_bytes();
        let stem = OsStr::from_bytes(name.strip_suffix(SUFFIX.as_bytes()).unwrap_or(name));
        let beside = |end: &str| {
            let mut name = OsString::from(stem);
            name.push(end);
            out.with_file_name(name)
        };
        let shard = |number| beside(&format!("-{number:05}-of-{shards:05}{SUFFIX}"));
        let files = if shards == 1 { vec![out.to_owned()] } else { (1..=shards).map(shard).collect() };
        Names { files, index: beside(INDEX_SUFFIX), out: out.to_owned() }
    }

    /// Whether a file is called as one of an export to this name is, of however many shards.
    pub(crate) fn have(&self, name: &OsStr) -> bool {
        if [&self.out, &self.index].iter().any(|path| path.file_name() == Some(name)) {
            return true;
        }
        let out = self.out.file_name().unwrap_or_default().as_bytes();
        let stem = out.strip_suffix(SUFFIX.as_bytes()).unwrap_or(out);
        let middle = name.as_bytes().strip_prefix(stem).and_then(|name| name.strip_suffix(SUFFIX.as_bytes()));
        let numbers = middle.and_then(|middle| std::str::from_utf8(middle).ok()?.strip_prefix('-'));
        let numbers = numbers.and_then(|numbers| numbers.split_once("-of-"));
        let is_number = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        numbers.is_some_and(|(number, count)| is_number(number) && is_number(count))
    }

    /// Whether there is an index to write.
    pub(crate) fn are_several(&self) -> bool {
        self.files.len() > 1
    }

    /// One file replaces one file. Several cannot be replaced at once, and readers that find a file and an index of one
    /// name do not agree on which is the model.
    ///
    /// # Errors
    /// [`Error::InTheWay`].
    pub(crate) fn check_free(&self) -> Result<(), Error> {
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        let mut others = [&self.index].into_iter().chain(self.files.iter().filter(|_| self.are_several()));
        let out = (self.out.is_dir() || self.are_several() && is_there(&self.out)).then_some(&self.out);
        match out.or_else(|| others.find(|path| is_there(path))) {
            Some(path) => Err(Error::InTheWay { path: path.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(out: &str, shards: usize) -> Vec<String> {
        let Names { files, index, .. } = Names::new(Path::new(out), shards);
        files.iter().chain([&index]).map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn names_are_those_of_the_hub() {
        assert_eq!(all("a/model.safetensors", 1), ["a/model.safetensors", "a/model.safetensors.index.json"]);
        let two = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        assert_eq!(all("model.safetensors", 2), [&two[..], &["model.safetensors.index.json"]].concat());
        assert_eq!(all("v1.5", 3)[2..], ["v1.5-00003-of-00003.safetensors", "v1.5.safetensors.index.json"]);
        assert_eq!(all("m", 100_000)[99_999], "m-100000-of-100000.safetensors");
    }
}
