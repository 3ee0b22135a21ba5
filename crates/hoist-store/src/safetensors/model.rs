//! The tensors of a model, in one file or in several.

use super::header::{self, Header};
use super::index::{INDEX_SUFFIX, Index};
use crate::{Error, TensorSpec, sources};
use hoist_format::{SourcePlace, SourceRecord};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What a directory is looked through for, in this order.
const NAMES: [&str; 2] = ["model.safetensors.index.json", "model.safetensors"];

/// A model in safetensors files: one, or shards with their index.
#[derive(Debug)]
pub struct ModelFiles {
    files: Vec<ModelFile>,
    specs: Vec<TensorSpec>,
    /// The file of each tensor, and where in it its bytes start.
    places: Vec<(usize, u64)>,
    metadata: Option<BTreeMap<String, String>>,
    /// The file that was read last. One alone is open: a model may have more shards than a process may have files.
    last: Option<(usize, File)>,
}

#[derive(Debug)]
struct ModelFile {
    path: PathBuf,
    identity: Identity,
}

/// What a file is known by when it is opened again: device, inode, length and the time of its last change.
#[derive(Debug, PartialEq, Eq)]
struct Identity(u64, u64, u64, (i64, i64));

impl ModelFiles {
    /// Opens a model and checks its files and their index, but for the tensors' bytes. `path` is a safetensors file,
    /// the index of several (`*.safetensors.index.json`), or a directory with `model.safetensors.index.json` or, where
    /// there is none, `model.safetensors`.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Safetensors`], [`Error::Index`], [`Error::Shard`], [`Error::NoModel`].
    pub fn open(path: &Path) -> Result<ModelFiles, Error> {
        let path = find(path)?;
        let mut model = ModelFiles {
            files: Vec::new(),
            specs: Vec::new(),
            places: Vec::new(),
            metadata: None,
            last: None,
        };
        if path.as_os_str().as_encoded_bytes().ends_with(INDEX_SUFFIX.as_bytes()) {
            model.add_shards(&path)?;
        } else {
            model.add(&path, open(&path)?)?;
        }
        Ok(model)
    }

    /// The tensors as durable parameters: shards in the order of their names, the tensors of each in order of their
    /// bytes in it.
    #[must_use]
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The files, as stores know them.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Safetensors`] for a file that was changed since the model was opened.
    pub(crate) fn sources(&self) -> Result<Vec<SourceRecord>, Error> {
        let record = |one: &ModelFile| sources::record(&one.path, &one.open_again()?);
        self.files.iter().map(record).collect()
    }

    /// Where the bytes of each tensor start.
    pub(crate) fn places(&self) -> Vec<SourcePlace> {
        let place = |&(file, offset): &(usize, u64)| SourcePlace { source: file as u32, offset };
        self.places.iter().map(place).collect()
    }

    /// What a store's note of the files' `__metadata__` says; none without that.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn metadata_note(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = || self.files.first().map_or_else(PathBuf::new, |file| file.path.clone());
        let failed = |error: serde_json::Error| Error::File {
            doing: "keeping metadata of",
            path: path(),
            source: error.into(),
        };
        self.metadata.as_ref().map(serde_json::to_vec).transpose().map_err(failed)
    }

    /// Reads a part of a tensor, which is a place in [`ModelFiles::specs`], from `offset` of the tensor on.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Safetensors`] for a file that was changed since the model was opened.
    ///
    /// # Panics
    /// When there is no such tensor.
    pub fn read(&mut self, tensor: usize, offset: u64, part: &mut [u8]) -> Result<(), Error> {
        let (number, start) = self.places[tensor];
        let file = match self.last.take() {
            Some((last, file)) if last == number => file,
            _ => self.files[number].open_again()?,
        };
        let read = file.read_exact_at(part, start + offset);
        self.last = Some((number, file));
        read.map_err(|source| Error::File { doing: "reading", path: self.files[number].path.clone(), source })
    }

    fn add_shards(&mut self, path: &Path) -> Result<(), Error> {
        let index = Index::read(path)?;
        for (name, tensors) in index.shards() {
            let shard = path.with_file_name(name);
            let wrong = |what| Error::Shard { path: shard.clone(), index: path.to_owned(), what };
            let file = match open(&shard) {
                Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    return Err(wrong("it is not there".to_owned()));
                }
                file => file?,
            };
            let before = self.specs.len();
            self.add(&shard, file)?;
            index.compare(name, tensors, &self.specs[before..]).map_err(wrong)?;
        }
        let bytes: u64 = self.specs.iter().filter_map(TensorSpec::bytes).sum();
        if let Some(said) = index.total_bytes().filter(|said| *said != bytes) {
            // Writers count differently, and no reader goes by it.
            tracing::warn!(path = %path.display(), total_size = said, bytes, "its total_size is not the tensors' bytes");
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, file: File) -> Result<(), Error> {
        let Header { specs, offsets, metadata } = header::read(&file, path)?;
        let (number, path) = (self.files.len(), path.to_owned());
        self.keep_metadata(&path, metadata);
        self.specs.extend(specs);
        self.places.extend(offsets.into_iter().map(|offset| (number, offset)));
        self.files.push(ModelFile { identity: identity(&path, &file)?, path });
        self.last = Some((number, file));
        Ok(())
    }

    /// Shards usually say the same of their model, and a store has room for one that says it.
    fn keep_metadata(&mut self, path: &Path, metadata: Option<BTreeMap<String, String>>) {
        let Some(metadata) = metadata else { return };
        let kept = self.metadata.get_or_insert_default();
        for (key, value) in metadata {
            let first = kept.entry(key.clone()).or_insert_with(|| value.clone());
            if *first != value {
                tracing::warn!(path = %path.display(), key, value, "an earlier shard's metadata differs and is kept");
            }
        }
    }
}

impl ModelFile {
    fn open_again(&self) -> Result<File, Error> {
        let file = open(&self.path)?;
        if identity(&self.path, &file)? == self.identity {
            return Ok(file);
        }
        let what = "it was changed while it was read: leave it alone until all is done".to_owned();
        Err(Error::Safetensors { path: self.path.clone(), what })
    }
}

/// The file or index that `path` means.
fn find(path: &Path) -> Result<PathBuf, Error> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    // A link that leads nowhere is there too: half a download is no reason to take another model.
    let mut paths = NAMES.iter().map(|name| path.join(name));
    let found = paths.find(|path| path.symlink_metadata().is_ok());
    found.ok_or_else(|| Error::NoModel { directory: path.to_owned() })
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::File { doing: "opening", path: path.to_owned(), source })
}

fn identity(path: &Path, file: &File) -> Result<Identity, Error> {
    let failed = |source| Error::File { doing: "reading", path: path.to_owned(), source };
    let metadata = file.metadata().map_err(failed)?;
    let changed = (metadata.mtime(), metadata.mtime_nsec());
    Ok(Identity(metadata.dev(), metadata.ino(), metadata.len(), changed))
}
