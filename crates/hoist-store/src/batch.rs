//! Contents to the records of a batch.

use crate::bundle::Layout;
use crate::contents::Contents;
use crate::history::{History, PastSpan};
use crate::location::Locations;
use crate::ranges::Ranges;
use crate::touched::Touched;
use crate::{Error, Life, RunId, RunInfo, Shard, Span, TensorId, TensorInfo};
use hoist_format::{
    BatchId, CHECKSUM_BYTES, EpochRecord, Header, Lifetime, NoteRecord, Record, RunRecord, ShardRecord,
    SnapshotRecord, SpanRecord, TensorRecord, blocks, encode_record, pad_batch,
};

/// Tensors or runs per record: with the longest names and most dimensions (`bundle.rs`) it stays under 10 MiB, so
/// under [`hoist_format::RECORD_BYTES_MAX`].
const PER_RECORD: usize = 1024;

/// A record of spans is closed when it holds this much: one span more, of [`SPAN_BYTES_MAX`], stays under the limit.
const SPANS_RECORD_BYTES: usize = 1 << 20;

/// The longest span of one record: 4,096 checksums, and 5 MiB even if every page of it had an extent of its own.
const SPAN_BYTES_MAX: u64 = 1 << 30;

/// Checksums of one record of what was touched: as many as a span's.
const TOUCHED_BLOCKS: usize = (SPAN_BYTES_MAX / CHECKSUM_BYTES) as usize;

/// Builds the bytes of one batch.
pub(crate) struct BatchWriter {
    bytes: Vec<u8>,
    batch: BatchId,
    number: u32,
    spans: Vec<SpanRecord>,
    spans_bytes: usize,
}

impl BatchWriter {
    /// Batch `number`, behind what `bytes` holds: an attempt of its own.
    pub fn new(bytes: Vec<u8>, number: u64) -> Result<BatchWriter, Error> {
        let batch = BatchId { number, attempt: u64::from_le_bytes(random()?) };
        Ok(BatchWriter { bytes, batch, number: 0, spans: Vec::new(), spans_bytes: 0 })
    }

    fn push(&mut self, record: &Record) -> Result<(), Error> {
        encode_record(self.batch, self.number, record, &mut self.bytes)?;
        self.number += 1;
        Ok(())
    }

    /// The header, all runs, all tensors.
    pub fn push_creation(&mut self, header: Header, layout: &Layout) -> Result<(), Error> {
        self.push(&Record::Header(header))?;
        if !layout.sources.files.is_empty() {
            self.push(&Record::Sources(layout.sources.files.clone()))?;
        }
        for runs in layout.runs.chunks(PER_RECORD) {
            self.push(&Record::Runs(runs.iter().map(|run| run_record(layout, run)).collect()))?;
        }
        for (number, tensors) in layout.tensors.chunks(PER_RECORD).enumerate() {
            let ids = (number * PER_RECORD) as u32..;
            let tensors = ids.map(TensorId).zip(tensors).map(|tensor| tensor_record(layout, tensor));
            self.push(&Record::Tensors(tensors.collect()))?;
        }
        Ok(())
    }

    /// One note; `None`: there is none any more.
    pub fn push_note(&mut self, key: &str, bytes: Option<&[u8]>, life: Lifetime) -> Result<(), Error> {
        self.push(&Record::Note(NoteRecord { key: key.to_owned(), bytes: bytes.map(<[u8]>::to_vec), life }))
    }

    /// What is known of bytes in sources.
    pub fn push_touched(&mut self, touched: &Touched) -> Result<(), Error> {
        for record in touched.records(TOUCHED_BLOCKS) {
            self.push(&Record::Touched(vec![record]))?;
        }
        Ok(())
    }

    /// A snapshot.
    pub fn push_snapshot(&mut self, name: &str, epoch: &EpochRecord) -> Result<(), Error> {
        let (name, epoch) = (name.to_owned(), epoch.clone());
        self.push(&Record::Snapshot(SnapshotRecord { name, epoch }))
    }

    /// The end of a snapshot.
    pub fn push_deleted(&mut self, name: &str) -> Result<(), Error> {
        self.push(&Record::SnapshotDeleted(name.to_owned()))
    }

    /// What this batch changes: the bytes that `ranges` of a run have now, and those that they have not any more.
    pub fn push_changed(&mut self, contents: &Contents, run: RunId, ranges: &Ranges) -> Result<(), Error> {
        let life = Lifetime { born: self.batch.number, died: None };
        for (from, to) in ranges.iter() {
            let mut at = from;
            for (start, end, _) in contents.bytes[run.0 as usize].locations.stretches(from, to) {
                self.push_none(run, (at, start), life)?;
                self.push_spans(contents, run, (start, end), life)?;
                at = end;
            }
            self.push_none(run, (at, to), life)?;
        }
        Ok(())
    }

    /// All bytes that a run has.
    pub fn push_run(&mut self, contents: &Contents, run: RunId) -> Result<(), Error> {
        let run_bytes = contents.layout.runs[run.0 as usize].bytes;
        for (from, to, born) in contents.bytes[run.0 as usize].locations.stretches(0, run_bytes) {
            self.push_spans(contents, run, (from, to), Lifetime { born, died: None })?;
        }
        Ok(())
    }

    /// Bytes that only snapshots have.
    pub fn push_past(&mut self, past: &PastSpan) -> Result<(), Error> {
        let PastSpan { span, extents, checksums, born, died } = past;
        let life = Lifetime { born: *born, died: Some(*died) };
        let mut locations = Locations::default();
        locations.replace(span.offset, extents, (true, *born), &mut Vec::new());
        for (start, end) in record_spans(span.offset, span.end()) {
            let first = ((start - span.offset) / CHECKSUM_BYTES) as usize;
            let checksums = checksums[first..first + blocks(end - start)].to_vec();
            let (offset, bytes, extents) = (start, end - start, locations.extents(start, end).collect());
            self.push_span(SpanRecord { run: span.run.0, offset, bytes, extents, checksums, life })?;
        }
        Ok(())
    }

    fn push_spans(
        &mut self,
        contents: &Contents,
        run: RunId,
        (from, to): (u64, u64),
        life: Lifetime,
    ) -> Result<(), Error> {
        for (start, end) in record_spans(from, to) {
            let span = Span { run, offset: start, bytes: end - start };
            let Some(checksums) = contents.checksums(&span) else {
                panic!("{span} is told of without bytes")
            };
            let extents = contents.bytes[run.0 as usize].locations.extents(start, end).collect();
            let (offset, bytes, checksums) = (start, end - start, checksums.to_vec());
            self.push_span(SpanRecord { run: run.0, offset, bytes, extents, checksums, life })?;
        }
        Ok(())
    }

    /// A range without bytes, unless it is empty.
    fn push_none(&mut self, run: RunId, (from, to): (u64, u64), life: Lifetime) -> Result<(), Error> {
        if from == to {
            return Ok(());
        }
        let (extents, checksums) = (Vec::new(), Vec::new());
        self.push_span(SpanRecord { run: run.0, offset: from, bytes: to - from, extents, checksums, life })
    }

    fn push_span(&mut self, span: SpanRecord) -> Result<(), Error> {
        self.spans_bytes += 64 + size_of_val(&*span.extents) + size_of_val(&*span.checksums);
        self.spans.push(span);
        if self.spans_bytes >= SPANS_RECORD_BYTES { self.flush_spans() } else { Ok(()) }
    }

    fn flush_spans(&mut self) -> Result<(), Error> {
        if !self.spans.is_empty() {
            let spans = std::mem::take(&mut self.spans);
            self.spans_bytes = 0;
            self.push(&Record::Spans(spans))?;
        }
        Ok(())
    }

    /// Ends the batch; `epoch` is the newest.
    pub fn finish(mut self, epoch: &EpochRecord) -> Result<Vec<u8>, Error> {
        self.flush_spans()?;
        self.push(&Record::Epoch(epoch.clone()))?;
        pad_batch(&mut self.bytes);
        Ok(self.bytes)
    }
}

fn run_record(layout: &Layout, run: &RunInfo) -> RunRecord {
    let group = run.tensors.first().map(|id| layout.tensors[id.0 as usize].spec.group.clone());
    RunRecord { bytes: run.bytes, class: run.class, life: run.life, group: group.unwrap_or_default() }
}

fn tensor_record(layout: &Layout, (id, tensor): (TensorId, &TensorInfo)) -> TensorRecord {
    let source = layout.sources.places.get(&id).copied();
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
        source,
        shard: tensor
            .spec
            .shard
            .as_deref()
            .map(|Shard { shape, start }| ShardRecord { shape: shape.clone(), start: *start }),
    }
}

/// A number that nothing else has.
pub(crate) fn random<const BYTES: usize>() -> Result<[u8; BYTES], Error> {
    let mut bytes = [0; BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(|errno| {
        Error::File { doing: "reading", path: "/dev/urandom".into(), source: errno.into() }
    })?;
    Ok(bytes)
}

/// The parts of a range that have a record each.
fn record_spans(from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
    (from..to).step_by(SPAN_BYTES_MAX as usize).map(move |start| (start, to.min(start + SPAN_BYTES_MAX)))
}

/// All that a journal tells of a store.
pub(crate) struct Image<'a> {
    pub contents: &'a Contents,
    pub history: &'a History,
    /// The newest.
    pub epoch: &'a EpochRecord,
    /// The batch that the image is.
    pub batch: u64,
}

impl Image<'_> {
    /// A whole journal: preamble and one batch.
    pub fn encode(&self, header: Header) -> Result<Vec<u8>, Error> {
        let Image { contents, history, epoch, batch } = self;
        let mut writer = BatchWriter::new(hoist_format::preamble(), *batch)?;
        writer.push_creation(header, &contents.layout)?;
        for (name, epoch) in history.kept() {
            writer.push_snapshot(name, epoch)?;
        }
        for (key, note) in &contents.notes {
            writer.push_note(key, Some(&note.bytes), Lifetime { born: note.born, died: None })?;
        }
        for past in &history.notes {
            let life = Lifetime { born: past.born, died: Some(past.died) };
            writer.push_note(&past.key, Some(&past.bytes), life)?;
        }
        for (run, _) in contents.durable_runs() {
            writer.push_run(contents, run)?;
        }
        for past in &history.spans {
            writer.push_past(past)?;
        }
        writer.push_touched(&contents.touched)?;
        writer.finish(epoch)
    }
}
