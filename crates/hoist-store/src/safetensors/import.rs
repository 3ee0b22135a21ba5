//! A model's files into a new store.

use super::{METADATA_NOTE, ModelFiles};
use crate::{BlockingStore, Config, Error, RunId, Span, TensorId};
use hoist_memory::{Slab, Slot};
use std::path::Path;
use std::sync::Arc;

/// Makes a store of the tensors of a model in safetensors files (see [`ModelFiles::open`]) and commits it as its first
/// epoch: durable parameters, in the order of the files and of the bytes in each, grouped by [`crate::group_of`].
/// `__metadata__` is kept for the export.
///
/// # Errors
/// Those of [`ModelFiles::open`] before anything is made; after other errors what was made is removed. Those of
/// [`crate::Store::create`] and [`ModelFiles::read`].
pub fn import_safetensors(
    path: &Path,
    config: &Config,
    io: &hoist_io::Config,
    slab: &Arc<Slab>,
) -> Result<BlockingStore, Error> {
    let mut model = ModelFiles::open(path)?;
    let mut store = BlockingStore::create(config, io, slab, model.specs())?;
    match write(&mut store, &mut model) {
        Ok(()) => Ok(store),
        Err(error) => {
            store.discard();
            Err(error)
        }
    }
}

fn write(store: &mut BlockingStore, model: &mut ModelFiles) -> Result<(), Error> {
    if let Some(note) = model.metadata_note()? {
        store.set_note(METADATA_NOTE, note)?;
    }
    for run in 0..store.store().runs().len() {
        let info = &store.store().runs()[run];
        let span = Span { run: RunId(run as u32), offset: 0, bytes: info.bytes };
        // Ranges of the run, and whose they are.
        let place = |id: &TensorId| {
            let tensor = &store.store().tensors()[id.0 as usize];
            (tensor.offset, tensor.offset + tensor.bytes, *id)
        };
        let places: Vec<_> = info.tensors.iter().map(place).collect();
        store.write(span, |offset, slot| fill(slot, offset, &places, model))?;
    }
    store.commit().map(drop)
}

/// Reads the bytes of a run from `offset` on into `slot`; zeros where no tensor is.
fn fill(
    slot: &mut Slot,
    offset: u64,
    places: &[(u64, u64, TensorId)],
    model: &mut ModelFiles,
) -> Result<(), Error> {
    let mut at = offset;
    for part in slot.parts_mut() {
        let end = at + part.len() as u64;
        let first = places.partition_point(|(_, to, _)| *to <= at);
        let mut filled = at;
        for (from, to, tensor) in places[first..].iter().take_while(|(from, ..)| *from < end) {
            let (start, stop) = (at.max(*from), end.min(*to));
            // An empty tensor between others has nothing to read.
            if start < stop {
                part[(filled - at) as usize..(start - at) as usize].fill(0);
                let bytes = &mut part[(start - at) as usize..(stop - at) as usize];
                model.read(tensor.0 as usize, start - from, bytes)?;
                filled = stop;
            }
        }
        part[(filled - at) as usize..].fill(0);
        at = end;
    }
    Ok(())
}
