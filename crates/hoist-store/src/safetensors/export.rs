//! A store into a model's files.

use super::names::Names;
use super::new_files::{NewFiles, remove_leftovers, sync_folder_of};
use super::{METADATA_NOTE, header, index, split};
use crate::blocking_verified::for_overlap;
use crate::{BlockingStore, Error, LifeKind, Span, Store, TensorId, TensorInfo};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Writes all durable tensors of the newest epoch, verified, to safetensors files, in order of creation: to `out`, or,
/// where they have more than `shard_bytes_max` bytes, to shards with an index beside it, which are named after it as
/// the Hugging Face hub does. The model appears whole or not at all; what an export to this name left that was killed is
/// removed. Gives the files, the index last.
///
/// # Errors
/// [`Error::InTheWay`] before anything is written; [`Error::NoBytes`] for a tensor that was never written,
/// [`Error::Corrupt`], [`Error::File`].
pub fn export_safetensors(
    store: &mut BlockingStore,
    out: &Path,
    shard_bytes_max: u64,
) -> Result<Vec<PathBuf>, Error> {
    let metadata = metadata(store.store(), out)?;
    let tensors = durable(store.store());
    let lengths: Vec<u64> = tensors.iter().map(|id| info(store.store(), *id).bytes).collect();
    let ranges = split::split(&lengths, shard_bytes_max);
    let names = Names::new(out, ranges.len());
    names.check_free()?;
    remove_leftovers(out, |name| names.have(name));
    let index = match names.are_several() {
        true => Some(index_text(store.store(), &names, &tensors, &ranges)?),
        false => None,
    };
    let mut files = NewFiles::default();
    for (path, range) in names.files.iter().zip(ranges) {
        let ids = &tensors[range];
        files.write(path, &mut |put| write_shard(store, path, metadata.as_ref(), ids, put))?;
    }
    publish(files, names, index)
}

/// Names the files: a reader who finds an index finds all its shards, after a crash too.
fn publish(mut files: NewFiles, names: Names, index: Option<Vec<u8>>) -> Result<Vec<PathBuf>, Error> {
    // Somebody may have come between: nothing of theirs is taken, or removed after an error.
    names.check_free()?;
    for path in &names.files {
        files.rename(path)?;
    }
    let mut paths = names.files;
    if let Some(text) = index {
        sync_folder_of(&names.index)?;
        files.write(&names.index, &mut |put| put(&text))?;
        files.rename(&names.index)?;
        sync_folder_of(&names.index)?;
        files.keep();
        paths.push(names.index);
    } else {
        // It is in the place of the old file now, which cannot come back.
        files.keep();
        sync_folder_of(&paths[0])?;
    }
    Ok(paths)
}

fn info(store: &Store, id: TensorId) -> &TensorInfo {
    &store.tensors()[id.0 as usize]
}

fn durable(store: &Store) -> Vec<TensorId> {
    let is_durable = |id: &TensorId| store.runs()[info(store, *id).run.0 as usize].life == LifeKind::Durable;
    (0..store.tensors().len() as u32).map(TensorId).filter(is_durable).collect()
}

fn metadata(store: &Store, out: &Path) -> Result<Option<BTreeMap<String, String>>, Error> {
    let metadata = store.note(METADATA_NOTE).map(serde_json::from_slice).transpose();
    metadata.map_err(|error| wrong(out, &error))
}

fn wrong(path: &Path, error: &serde_json::Error) -> Error {
    Error::Safetensors { path: path.to_owned(), what: error.to_string() }
}

fn index_text(
    store: &Store,
    names: &Names,
    tensors: &[TensorId],
    ranges: &[Range<usize>],
) -> Result<Vec<u8>, Error> {
    let wrong = |what| Error::Index { path: names.index.clone(), what };
    let (mut files, mut total_bytes) = (BTreeMap::new(), 0);
    for (path, range) in names.files.iter().zip(ranges) {
        let name = path.file_name().and_then(OsStr::to_str);
        let name = name.ok_or_else(|| wrong("its name is not UTF-8; choose another".to_owned()))?;
        for id in &tensors[range.clone()] {
            let info = info(store, *id);
            files.insert(info.spec.name.as_str(), name);
            total_bytes += info.bytes;
        }
    }
    index::build(&files, total_bytes).map_err(wrong)
}

/// Writes a header and the bytes of these tensors, which are verified on the way.
fn write_shard(
    store: &mut BlockingStore,
    path: &Path,
    metadata: Option<&BTreeMap<String, String>>,
    ids: &[TensorId],
    put: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let infos = ids.iter().map(|id| info(store.store(), *id));
    let header = header::build(metadata, infos.map(|info| (&info.spec, info.bytes)));
    put(&header.map_err(|error| wrong(path, &error))?)?;
    // Tensors of one bundle next to each other come out of one read.
    let mut reads: Vec<(Span, Vec<TensorId>)> = Vec::new();
    for id in ids {
        for chunk in store.chunks(store.store().covering(*id))? {
            match reads.last_mut() {
                Some((span, ids)) if *span == chunk => ids.push(*id),
                _ => reads.push((chunk, vec![*id])),
            }
        }
    }
    let spans: Vec<_> = reads.iter().map(|(span, _)| *span).collect();
    let mut reads = reads.into_iter();
    store.read_each(spans.into_iter(), |store, span, slot| {
        let slot = slot?;
        store.check(&span, &slot)?;
        for id in reads.next().map(|(_, ids)| ids).unwrap_or_default() {
            let info = info(store.store(), id);
            for_overlap(slot.parts(), span.offset, info.offset, info.offset + info.bytes, &mut *put)?;
        }
        Ok(())
    })
}
