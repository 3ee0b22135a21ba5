//! Contents to journal records and back.

use crate::bundle::Layout;
use crate::contents::{Contents, RunBytes};
use crate::location::Locations;
use crate::ranges::Ranges;
use crate::{Error, Life, RunId, RunInfo, Span, TensorId, TensorInfo, TensorSpec};
use hoist_format::{
    Batch, Header, LifeKind, Note, Record, RunRecord, SpanRecord, TensorRecord, encode_record, pad_batch,
};
use std::collections::BTreeMap;

/// Tensors or runs per record: with the longest names and most dimensions (`bundle.rs`) it stays under 10 MiB, so
/// under [`hoist_format::RECORD_BYTES_MAX`].
const PER_RECORD: usize = 1024;

/// A record of spans is closed when it holds this much: one span more, of [`SPAN_BYTES_MAX`], stays under the limit.
const SPANS_RECORD_BYTES: usize = 1 << 20;

/// The longest span of one record: 4,096 checksums, and 5 MiB even if every page of it had an extent of its own.
const SPAN_BYTES_MAX: u64 = 1 << 30;

/// Builds the bytes of one batch.
pub(crate) struct BatchWriter {
    bytes: Vec<u8>,
    batch: u64,
    number: u32,
    spans: Vec<SpanRecord>,
    spans_bytes: usize,
}

impl BatchWriter {
    /// Batch `batch`, behind what `bytes` holds.
    pub fn new(bytes: Vec<u8>, batch: u64) -> BatchWriter {
        BatchWriter { bytes, batch, number: 0, spans: Vec::new(), spans_bytes: 0 }
    }

    fn push(&mut self, record: &Record) -> Result<(), Error> {
        encode_record(self.batch, self.number, record, &mut self.bytes)?;
        self.number += 1;
        Ok(())
    }

    /// The header, all runs, all tensors.
    pub fn push_creation(&mut self, header: Header, layout: &Layout) -> Result<(), Error> {
        self.push(&Record::Header(header))?;
        for runs in layout.runs.chunks(PER_RECORD) {
            self.push(&Record::Runs(runs.iter().map(|run| run_record(layout, run)).collect()))?;
        }
        for tensors in layout.tensors.chunks(PER_RECORD) {
            self.push(&Record::Tensors(
                tensors.iter().map(|tensor| tensor_record(layout, tensor)).collect(),
            ))?;
        }
        Ok(())
    }

    /// One note.
    pub fn push_note(&mut self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        self.push(&Record::Note(Note { key: key.to_owned(), bytes: bytes.to_owned() }))
    }

    /// The parts of `ranges` of a run, all of which have bytes.
    pub fn push_spans(&mut self, contents: &Contents, run: RunId, ranges: &Ranges) -> Result<(), Error> {
        for (from, to) in ranges.iter() {
            for start in (from..to).step_by(SPAN_BYTES_MAX as usize) {
                let end = to.min(start + SPAN_BYTES_MAX);
                let span = Span { run, offset: start, bytes: end - start };
                let Some(checksums) = contents.checksums(&span) else { continue };
                let extents: Vec<_> = contents.bytes[run.0 as usize].locations.extents(start, end).collect();
                self.spans_bytes += 32 + extents.len() * size_of_val(&extents[0]) + size_of_val(checksums);
                self.spans.push(SpanRecord {
                    run: run.0,
                    offset: start,
                    extents,
                    checksums: checksums.to_vec(),
                });
                if self.spans_bytes >= SPANS_RECORD_BYTES {
                    self.flush_spans()?;
                }
            }
        }
        Ok(())
    }

    fn flush_spans(&mut self) -> Result<(), Error> {
        if !self.spans.is_empty() {
            let spans = std::mem::take(&mut self.spans);
            self.spans_bytes = 0;
            self.push(&Record::Spans(spans))?;
        }
        Ok(())
    }

    /// Ends the batch.
    pub fn finish(mut self) -> Result<Vec<u8>, Error> {
        self.flush_spans()?;
        let batch = self.batch;
        self.push(&Record::Epoch(batch))?;
        pad_batch(&mut self.bytes);
        Ok(self.bytes)
    }
}

fn run_record(layout: &Layout, run: &RunInfo) -> RunRecord {
    let group = run.tensors.first().map(|id| layout.tensors[id.0 as usize].spec.group.clone());
    RunRecord { bytes: run.bytes, class: run.class, life: run.life, group: group.unwrap_or_default() }
}

fn tensor_record(layout: &Layout, tensor: &TensorInfo) -> TensorRecord {
    let cast_of = match &tensor.spec.life {
        Life::Derived { from } => layout.find(from).map(|id| id.0),
        Life::Durable | Life::Scratch => None,
    };
    TensorRecord {
        name: tensor.spec.name.clone(),
        dtype: tensor.spec.dtype,
        shape: tensor.spec.shape.clone(),
        run: tensor.run.0,
        offset: tensor.offset,
        cast_of,
    }
}

/// A journal for a whole store at `epoch`: preamble and one batch.
pub(crate) fn image(header: Header, contents: &Contents, epoch: u64) -> Result<Vec<u8>, Error> {
    let mut writer = BatchWriter::new(hoist_format::preamble(), epoch);
    writer.push_creation(header, &contents.layout)?;
    for (key, bytes) in &contents.notes {
        writer.push_note(key, bytes)?;
    }
    for (run, _) in contents.durable_runs() {
        let mut valid = Ranges::default();
        for (from, to) in contents.bytes[run.0 as usize].locations.valid_ranges() {
            valid.insert(from, to);
        }
        writer.push_spans(contents, run, &valid)?;
    }
    writer.finish()
}

/// Builds contents from batches.
#[derive(Default)]
pub(crate) struct Loader {
    pub header: Option<Header>,
    pub epoch: u64,
    runs: Vec<RunRecord>,
    infos: Vec<RunInfo>,
    tensors: Vec<TensorInfo>,
    casts: Vec<(TensorId, u32)>,
    bytes: Vec<RunBytes>,
    notes: BTreeMap<String, Vec<u8>>,
}

impl Loader {
    /// Applies the next batch. The text says what in it contradicts the rest.
    pub fn apply(&mut self, batch: Batch) -> Result<(), String> {
        for record in batch.records {
            match record {
                Record::Header(header) => self.header = Some(header),
                Record::Runs(runs) => runs.into_iter().for_each(|run| self.add_run(run)),
                Record::Tensors(tensors) => tensors.into_iter().try_for_each(|t| self.add_tensor(t))?,
                Record::Spans(spans) => spans.into_iter().try_for_each(|span| self.apply_span(&span))?,
                Record::Note(note) => {
                    self.notes.insert(note.key, note.bytes);
                }
                Record::Epoch(_) => return Err("an epoch inside a batch".into()),
            }
        }
        self.epoch = batch.number;
        Ok(())
    }

    fn add_run(&mut self, run: RunRecord) {
        let (bytes, class, life) = (run.bytes, run.class, run.life);
        self.infos.push(RunInfo { bytes, class, life, tensors: Vec::new() });
        self.bytes.push(RunBytes::default());
        self.runs.push(run);
    }

    fn add_tensor(&mut self, tensor: TensorRecord) -> Result<(), String> {
        let TensorRecord { name, dtype, shape, run, offset, cast_of } = tensor;
        let id = TensorId(self.tensors.len() as u32);
        let Some(record) = self.runs.get(run as usize) else {
            return Err(format!("tensor {name:?} in run {run} of {}", self.runs.len()));
        };
        let bytes = dtype
            .bytes(&shape)
            .filter(|bytes| offset.checked_add(*bytes).is_some_and(|end| end <= record.bytes));
        let bytes = bytes.ok_or_else(|| format!("tensor {name:?} does not fit run {run}"))?;
        let life = match (record.life, cast_of) {
            (LifeKind::Durable, None) => Life::Durable,
            (LifeKind::Scratch, None) => Life::Scratch,
            (LifeKind::Derived, Some(source)) => {
                self.casts.push((id, source));
                Life::Derived { from: String::new() }
            }
            (life, _) => return Err(format!("tensor {name:?} is {} with source {cast_of:?}", life.name())),
        };
        let spec = TensorSpec { name, dtype, shape, class: record.class, life, group: record.group.clone() };
        self.infos[run as usize].tensors.push(id);
        self.tensors.push(TensorInfo { spec, run: RunId(run), offset, bytes });
        Ok(())
    }

    fn apply_span(&mut self, record: &SpanRecord) -> Result<(), String> {
        let SpanRecord { run, offset, extents, checksums } = record;
        let bytes = extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.bytes));
        let run_info = self.infos.get(*run as usize).filter(|info| info.life == LifeKind::Durable);
        let (Some(info), Some(bytes)) = (run_info, bytes) else {
            return Err(format!("a span of run {run}, which is none or not durable"));
        };
        let end = offset.checked_add(bytes).filter(|end| *end <= info.bytes);
        let aligned = |at: u64| at.is_multiple_of(hoist_format::CHECKSUM_BYTES);
        let whole = end.is_some_and(|end| aligned(*offset) && (aligned(end) || end == info.bytes));
        if !whole || checksums.len() != hoist_format::blocks(bytes) || extents.iter().any(|e| e.bytes == 0) {
            return Err(format!("a span of {bytes} bytes at {offset} of run {run} does not fit it"));
        }
        let run_blocks = hoist_format::blocks(info.bytes);
        let held = &mut self.bytes[*run as usize];
        held.locations.replace(*offset, extents, true, &mut Vec::new());
        held.checksums.resize(run_blocks, 0);
        let first = (offset / hoist_format::CHECKSUM_BYTES) as usize;
        held.checksums[first..first + checksums.len()].copy_from_slice(checksums);
        Ok(())
    }

    /// The contents, when all batches were applied.
    pub fn finish(mut self) -> Result<Contents, String> {
        for (id, source) in std::mem::take(&mut self.casts) {
            let from =
                self.tensors.get(source as usize).ok_or_else(|| format!("a cast of tensor {source}"))?;
            let from = from.spec.name.clone();
            self.tensors[id.0 as usize].spec.life = Life::Derived { from };
        }
        let mut layout = Layout { tensors: self.tensors, runs: self.infos, by_name: Vec::new() };
        layout.index().map_err(|wrong| format!("tensor {:?}: {}", wrong.tensor, wrong.what))?;
        Ok(Contents { layout, bytes: self.bytes, notes: self.notes })
    }
}

/// Every live extent.
pub(crate) fn live_extents(contents: &Contents) -> impl Iterator<Item = hoist_format::Extent> {
    contents.bytes.iter().flat_map(|bytes| Locations::all(&bytes.locations).map(|(_, extent)| extent))
}
