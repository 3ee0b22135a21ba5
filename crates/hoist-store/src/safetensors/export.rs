//! A store into a file.

use super::{METADATA_NOTE, header};
use crate::blocking::for_overlap;
use crate::{BlockingStore, Error, LifeKind, Span, TensorId};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Removes the file under its temporary name, unless it got its own.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // The error that led here is the one to report.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes all durable tensors of the newest epoch, verified, to a safetensors file, in order of creation. The file
/// appears whole or not at all.
///
/// # Errors
/// [`Error::NoBytes`] for a tensor that was never written, [`Error::Corrupt`], [`Error::File`].
pub fn export_safetensors(store: &mut BlockingStore, out: &Path) -> Result<(), Error> {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let mut temporary = Temporary { path: out.with_file_name(name), renamed: false };
    let path = temporary.path.clone();
    let failed = |doing| {
        let path = path.clone();
        move |source| Error::File { doing, path, source }
    };
    let file = File::create_new(&path).map_err(failed("creating"))?;
    let mut writer = BufWriter::new(file);
    write(store, out, &mut writer, &|source| failed("writing")(source))?;
    let file = writer.into_inner().map_err(|error| failed("writing")(error.into_error()))?;
    file.sync_all().map_err(failed("syncing"))?;
    std::fs::rename(&path, out).map_err(failed("renaming"))?;
    temporary.renamed = true;
    let folder = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("syncing the folder of"))
}

fn write(
    store: &mut BlockingStore,
    out: &Path,
    writer: &mut BufWriter<File>,
    failed: &dyn Fn(std::io::Error) -> Error,
) -> Result<(), Error> {
    let held = store.store();
    let wrong =
        |error: serde_json::Error| Error::Safetensors { path: out.to_owned(), what: error.to_string() };
    let metadata = held.note(METADATA_NOTE).map(serde_json::from_slice::<BTreeMap<String, String>>);
    let metadata = metadata.transpose().map_err(wrong)?;
    let durable = |id: &TensorId| {
        let run = held.tensors()[id.0 as usize].run;
        held.runs()[run.0 as usize].life == LifeKind::Durable
    };
    let tensors: Vec<_> = (0..held.tensors().len() as u32).map(TensorId).filter(durable).collect();
    let infos = tensors.iter().map(|id| &held.tensors()[id.0 as usize]);
    let header =
        header::build(metadata.as_ref(), infos.map(|info| (&info.spec, info.bytes))).map_err(wrong)?;
    writer.write_all(&header).map_err(failed)?;
    // Tensors of one bundle next to each other come out of one read.
    let mut reads: Vec<(Span, Vec<TensorId>)> = Vec::new();
    for id in tensors {
        for chunk in store.chunks(store.store().covering(id))? {
            match reads.last_mut() {
                Some((span, ids)) if *span == chunk => ids.push(id),
                _ => reads.push((chunk, vec![id])),
            }
        }
    }
    let spans: Vec<_> = reads.iter().map(|(span, _)| *span).collect();
    let mut reads = reads.into_iter();
    store.read_each(spans.into_iter(), |store, span, slot| {
        let slot = slot?;
        store.check(&span, &slot)?;
        for id in reads.next().map(|(_, ids)| ids).unwrap_or_default() {
            let info = &store.store().tensors()[id.0 as usize];
            let (from, to) = (info.offset, info.offset + info.bytes);
            for_overlap(slot.parts(), span.offset, from, to, |part| writer.write_all(part).map_err(failed))?;
        }
        Ok(())
    })
}
