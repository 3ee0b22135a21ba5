//! A file into a new store.

use super::header::Header;
use super::{METADATA_NOTE, header};
use crate::{BlockingStore, Config, Error, RunId, Span, TensorId};
use hoist_memory::{Slab, Slot};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Makes a store of the tensors of a safetensors file and commits it as its first epoch: durable parameters, in order
/// of their bytes in the file, grouped by [`crate::group_of`]. `__metadata__` is kept for the export.
///
/// # Errors
/// [`Error::Safetensors`] before anything is made; after other errors what was made is removed. Those of [`crate::Store::create`]; [`Error::File`] when the file
/// cannot be read.
pub fn import_safetensors(
    path: &Path,
    config: &Config,
    io: &hoist_io::Config,
    slab: &Arc<Slab>,
) -> Result<BlockingStore, Error> {
    let file = File::open(path).map_err(|source| failed("opening", path, source))?;
    let header = header::read(&file, path)?;
    let mut store = BlockingStore::create(config, io, slab, &header.specs)?;
    match write(&mut store, &header, &file, path) {
        Ok(()) => Ok(store),
        Err(error) => {
            store.discard();
            Err(error)
        }
    }
}

fn failed(doing: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { doing, path: path.to_owned(), source }
}

fn write(store: &mut BlockingStore, header: &Header, file: &File, path: &Path) -> Result<(), Error> {
    if let Some(metadata) = &header.metadata {
        let text = serde_json::to_vec(metadata)
            .map_err(|error| failed("keeping metadata of", path, error.into()))?;
        store.set_note(METADATA_NOTE, text)?;
    }
    for run in 0..store.store().runs().len() {
        let info = &store.store().runs()[run];
        let span = Span { run: RunId(run as u32), offset: 0, bytes: info.bytes };
        // Ranges of the run, and where in the file their bytes are.
        let place = |id: &TensorId| {
            let tensor = &store.store().tensors()[id.0 as usize];
            (tensor.offset, tensor.offset + tensor.bytes, header.offsets[id.0 as usize])
        };
        let places: Vec<_> = info.tensors.iter().map(place).collect();
        store.write(span, |offset, slot| {
            fill(slot, offset, &places, file).map_err(|source| failed("reading", path, source))
        })?;
    }
    store.commit().map(drop)
}

/// Reads the bytes of a run from `offset` on into `slot`; zeros where no tensor is.
fn fill(slot: &mut Slot, offset: u64, places: &[(u64, u64, u64)], file: &File) -> std::io::Result<()> {
    let mut at = offset;
    for part in slot.parts_mut() {
        let end = at + part.len() as u64;
        let first = places.partition_point(|(_, to, _)| *to <= at);
        let mut filled = at;
        for (from, to, source) in places[first..].iter().take_while(|(from, ..)| *from < end) {
            let (start, stop) = (at.max(*from), end.min(*to));
            // An empty tensor between others has nothing to read.
            if start < stop {
                part[(filled - at) as usize..(start - at) as usize].fill(0);
                file.read_exact_at(
                    &mut part[(start - at) as usize..(stop - at) as usize],
                    source + (start - from),
                )?;
                filled = stop;
            }
        }
        part[(filled - at) as usize..].fill(0);
        at = end;
    }
    Ok(())
}
