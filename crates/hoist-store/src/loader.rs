//! Batches of a journal to contents.

use crate::bundle::{BUNDLE_ALIGN_BYTES, Layout};
use crate::changes::Changes;
use crate::contents::{Contents, NoteValue, RunBytes, blocks_of};
use crate::few::Few;
use crate::free_space::EXTENT_ALIGN_BYTES;
use crate::history::{History, PastNote, PastSpan};
use crate::sources::Sources;
use crate::touched::Touched;
use crate::{Life, RunId, RunInfo, Shard, Span, TensorId, TensorInfo, TensorSpec};
use hoist_format::{
    Batch, CHECKSUM_BYTES, EpochRecord, Extent, Header, LifeKind, Lifetime, NoteRecord, Record, RunRecord,
    ShardRecord, SnapshotRecord, SpanRecord, TensorRecord, TouchRecord, blocks,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Builds contents from batches.
#[derive(Default)]
pub(crate) struct Loader {
    pub header: Option<Header>,
    /// The newest epoch, and the last batch.
    pub epoch: EpochRecord,
    pub batch: u64,
    /// The sizes of all segments.
    segments: Vec<u64>,
    history: History,
    runs: Vec<RunRecord>,
    infos: Vec<RunInfo>,
    tensors: Vec<TensorInfo>,
    casts: Vec<(TensorId, u32)>,
    bytes: Vec<RunBytes>,
    notes: BTreeMap<String, NoteValue>,
    sources: Sources,
    touched: Touched,
}

impl Loader {
    /// Applies the next batch. The text says what in it contradicts the rest.
    pub fn apply(&mut self, batch: Batch<'_>) -> Result<(), String> {
        if batch.id.number == u64::MAX {
            return Err("no batch can follow the last number".into());
        }
        self.batch = batch.id.number;
        for record in batch.records() {
            match record {
                Record::Header(header) => {
                    if header.rank >= header.world_size {
                        return Err(format!("it is rank {} of {}", header.rank, header.world_size));
                    }
                    let sizes = || header.segments.iter().flatten();
                    let sum = sizes().try_fold(0u64, |sum, bytes| sum.checked_add(*bytes));
                    if sum.is_none() || header.segments.len() != header.directories.len() {
                        return Err("its segments cannot be those of its directories".into());
                    }
                    self.segments = sizes().copied().collect();
                    self.header = Some(header);
                }
                Record::Runs(runs) => runs.into_iter().for_each(|run| self.add_run(run)),
                Record::Tensors(tensors) => tensors.into_iter().try_for_each(|t| self.add_tensor(t))?,
                Record::Spans(spans) => spans.into_iter().try_for_each(|span| self.apply_span(span))?,
                Record::Note(note) => self.apply_note(note)?,
                Record::Snapshot(SnapshotRecord { name, epoch }) => {
                    if !self.history.insert(name.clone(), epoch) {
                        return Err(format!("there are two snapshots {name:?}"));
                    }
                }
                Record::SnapshotDeleted(name) => {
                    let deleted = self.history.remove(&name);
                    deleted.ok_or_else(|| format!("snapshot {name:?} is deleted, and there is none"))?;
                }
                Record::Sources(files) => self.sources.files.extend(files),
                Record::Touched(all) => all.into_iter().try_for_each(|one| self.apply_touch(one))?,
                Record::Epoch(_) => return Err("an epoch inside a batch".into()),
            }
        }
        self.epoch = batch.epoch;
        Ok(())
    }

    fn add_run(&mut self, run: RunRecord) {
        let (bytes, class, life) = (run.bytes, run.class, run.life);
        self.infos.push(RunInfo { bytes, class, life, tensors: Few::default() });
        self.bytes.push(RunBytes::default());
        self.runs.push(run);
    }

    fn add_tensor(&mut self, tensor: TensorRecord) -> Result<(), String> {
        let TensorRecord { name, dtype, shape, run, offset, cast_of, source, shard } = tensor;
        let id = TensorId(self.tensors.len() as u32);
        let Some(record) = self.runs.get_mut(run as usize) else {
            return Err(format!("tensor {name:?} in run {run} of {}", self.runs.len()));
        };
        let bytes = dtype
            .bytes(&shape)
            .filter(|bytes| offset.checked_add(*bytes).is_some_and(|end| end <= record.bytes));
        let bytes = bytes.ok_or_else(|| format!("tensor {name:?} does not fit run {run}"))?;
        if let Some(place) = source {
            let file = self.sources.files.get(place.source as usize);
            let end = place.offset.checked_add(bytes);
            let inside = file.zip(end).is_some_and(|(file, end)| end <= file.bytes);
            if !inside || record.life != LifeKind::Durable {
                return Err(format!("tensor {name:?} is at {place:?}, which cannot be"));
            }
            self.sources.places.insert(id, place);
        }
        let life = match (record.life, cast_of) {
            (LifeKind::Durable, None) => Life::Durable,
            (LifeKind::Scratch, None) => Life::Scratch,
            (LifeKind::Derived, Some(source)) => {
                self.casts.push((id, source));
                Life::Derived { from: String::new() }
            }
            (life, _) => return Err(format!("tensor {name:?} is {} with source {cast_of:?}", life.name())),
        };
        let shard = shard.map(|ShardRecord { shape, start }| Box::new(Shard { shape, start }));
        let checked = shard.iter().try_for_each(|shard| shard.check(dtype, &shape));
        checked.map_err(|what| format!("tensor {name:?}: {what}"))?;
        // Of the many runs that have one tensor the name is moved.
        let group = match self.infos[run as usize].tensors.first() {
            Some(first) => self.tensors[first.0 as usize].spec.group.clone(),
            None => std::mem::take(&mut record.group),
        };
        let spec = TensorSpec { name, dtype, shape, class: record.class, life, group, shard };
        self.infos[run as usize].tensors.push(id);
        self.tensors.push(TensorInfo { spec, run: RunId(run), offset, bytes });
        Ok(())
    }

    fn apply_note(&mut self, note: NoteRecord) -> Result<(), String> {
        let NoteRecord { key, bytes, life: Lifetime { born, died } } = note;
        match (bytes, died) {
            (Some(bytes), Some(died)) => self.history.notes.push(PastNote { key, bytes, born, died }),
            (None, Some(died)) => return Err(format!("note {key:?} died in batch {died} without a value")),
            (bytes, None) => {
                let before = match bytes {
                    Some(bytes) => self.notes.insert(key.clone(), NoteValue { bytes, born }),
                    None => self.notes.remove(&key),
                };
                let died = self.batch;
                if let Some(NoteValue { bytes, born }) =
                    before.filter(|note| self.history.holds(note.born, died))
                {
                    self.history.notes.push(PastNote { key, bytes, born, died });
                }
            }
        }
        Ok(())
    }

    fn apply_touch(&mut self, record: TouchRecord) -> Result<(), String> {
        let TouchRecord { run, offset, checksums } = record;
        let info = self.infos.get(run as usize).filter(|info| self.is_sourced(info));
        let blocks =
            offset / CHECKSUM_BYTES..(offset / CHECKSUM_BYTES).saturating_add(checksums.len() as u64);
        let fits = |info: &RunInfo| blocks.end <= info.bytes.div_ceil(CHECKSUM_BYTES);
        if !offset.is_multiple_of(CHECKSUM_BYTES) || !info.is_some_and(fits) {
            return Err(format!("{} checksums at {offset} of run {run} do not fit it", checksums.len()));
        }
        for (block, checksum) in blocks.zip(checksums) {
            self.touched.set(RunId(run), block, checksum);
        }
        Ok(())
    }

    /// Whether a run's bytes lie in sources as long as the store has none.
    fn is_sourced(&self, run: &RunInfo) -> bool {
        run.tensors.first().is_some_and(|tensor| self.sources.places.contains_key(tensor))
    }

    /// The bytes that a run could have at most: those of all segments, or of all sources, with what may lie between.
    fn run_bytes_max(&self, run: &RunInfo) -> Option<u64> {
        if !self.is_sourced(run) {
            return self.segments.iter().try_fold(0u64, |sum, bytes| sum.checked_add(*bytes));
        }
        let between = BUNDLE_ALIGN_BYTES * run.tensors.len() as u64;
        self.sources.files.iter().try_fold(between, |sum, file| sum.checked_add(file.bytes))
    }

    /// A run lies in sources as a whole, and tensors cover it but for what brings them to their alignment: each span of it
    /// has something to read.
    fn check_sourced(&self, run: &RunInfo) -> Result<(), &'static str> {
        let placed = run.tensors.iter().filter(|tensor| self.sources.places.contains_key(tensor)).count();
        if placed == 0 {
            return Ok(());
        }
        if placed < run.tensors.len() || self.run_bytes_max(run).is_none_or(|most| run.bytes > most) {
            return Err("lies in sources in parts, or is larger than they are");
        }
        let mut at = 0;
        for id in run.tensors.iter() {
            let tensor = &self.tensors[id.0 as usize];
            if tensor.offset < at || tensor.offset - at >= BUNDLE_ALIGN_BYTES {
                return Err("has tensors that lie over each other, or apart");
            }
            at = tensor.offset + tensor.bytes;
        }
        if at == run.bytes { Ok(()) } else { Err("does not end where its last tensor does") }
    }

    /// The span of a record that contradicts nothing.
    fn check_span(&self, record: &SpanRecord) -> Result<Span, String> {
        let SpanRecord { run, offset, bytes, extents, checksums, life } = record;
        let durable = self.infos.get(*run as usize).filter(|info| info.life == LifeKind::Durable);
        let Some(info) = durable else {
            return Err(format!("a span of run {run}, which is none or not durable"));
        };
        let end = offset.checked_add(*bytes).filter(|end| *end <= info.bytes);
        let aligned = |at: u64| at.is_multiple_of(CHECKSUM_BYTES);
        let whole = end.is_some_and(|end| aligned(*offset) && (aligned(end) || end == info.bytes));
        let sum = extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.bytes));
        let told = sum == Some(*bytes) && checksums.len() == blocks(*bytes);
        let none = extents.is_empty() && checksums.is_empty() && life.died.is_none();
        if !whole || !(told || none) || !self.has_place(info, extents) {
            return Err(format!("a span of {bytes} bytes at {offset} of run {run} does not fit it"));
        }
        Ok(Span { run: RunId(*run), offset: *offset, bytes: *bytes })
    }

    /// Whether the segments have these extents, and could have all of the run: what does not fit them is not believed.
    fn has_place(&self, run: &RunInfo, extents: &[Extent]) -> bool {
        let sizes = &self.segments;
        let fits = |extent: &Extent| {
            let end = extent.bytes.checked_next_multiple_of(EXTENT_ALIGN_BYTES);
            let end = end.and_then(|bytes| extent.offset.checked_add(bytes));
            let inside =
                sizes.get(extent.segment as usize).zip(end).is_some_and(|(bytes, end)| end <= *bytes);
            inside && extent.bytes > 0 && extent.offset.is_multiple_of(EXTENT_ALIGN_BYTES)
        };
        let cut = extents.iter().rev().skip(1).any(|extent| !extent.bytes.is_multiple_of(EXTENT_ALIGN_BYTES));
        let possible = self.run_bytes_max(run).is_some_and(|most| run.bytes <= most);
        possible && !cut && extents.iter().all(fits)
    }

    fn apply_span(&mut self, record: SpanRecord) -> Result<(), String> {
        let span = self.check_span(&record)?;
        let SpanRecord { extents, checksums, life: Lifetime { born, died }, .. } = record;
        if let Some(died) = died {
            self.history.spans.push(PastSpan { span, extents, checksums, born, died });
            return Ok(());
        }
        let run_blocks = blocks(self.infos[span.run.0 as usize].bytes);
        let bytes = &mut self.bytes[span.run.0 as usize];
        let mut changes = Changes::default();
        changes.keep_before(bytes, &span);
        changes.retire(self.batch, &mut self.history, &mut Vec::new());
        bytes.locations.remove(span.offset, span.end(), &mut Vec::new());
        bytes.locations.replace(span.offset, &extents, (true, born), &mut Vec::new());
        if !checksums.is_empty() {
            if bytes.checksums.is_empty() {
                bytes.checksums = Few::of(0, run_blocks);
            }
            bytes.checksums[blocks_of(&span)].copy_from_slice(&checksums);
        }
        Ok(())
    }

    /// The contents and what older epochs have, when all batches were applied.
    pub fn finish(mut self) -> Result<(Contents, History), String> {
        for (id, source) in std::mem::take(&mut self.casts) {
            let from =
                self.tensors.get(source as usize).ok_or_else(|| format!("a cast of tensor {source}"))?;
            let cast = &self.tensors[id.0 as usize].spec;
            if cast.shard != from.spec.shard {
                return Err(format!("tensor {:?} is not the shard that it is cast of", cast.name));
            }
            let from = from.spec.name.clone();
            self.tensors[id.0 as usize].spec.life = Life::Derived { from };
        }
        for (number, run) in self.infos.iter().enumerate() {
            self.check_sourced(run).map_err(|what| format!("run {number} {what}"))?;
        }
        let (by_name, sources) = (Vec::new(), self.sources);
        let mut layout = Layout { tensors: self.tensors, runs: self.infos, by_name, sources };
        layout.index().map_err(|wrong| format!("tensor {:?}: {}", wrong.tensor, wrong.what))?;
        let (layout, touched) = (Arc::new(layout), self.touched);
        let contents = Contents { layout, bytes: self.bytes, notes: self.notes, touched };
        Ok((contents, self.history))
    }
}
