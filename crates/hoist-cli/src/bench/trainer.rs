//! The trainer of a run: goes through an order, checks what it reads, makes what it writes, and takes its time.

use std::time::{Duration, Instant};

use hoist::{Commit, Engine, Lease, Order, OrderId, Scalars, TensorUse};

use super::progress::Progress;
use super::source::Source;
use crate::contents::{Contents, Mismatch};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::model::{Origin, Workload};

/// What a run checks and makes, and what it has found so far.
pub struct Trainer<'a> {
    /// The engine that it trains with.
    pub engine: &'a Engine,
    /// What it does.
    pub workload: &'a Workload,
    /// The model file that tensors come from, where they do.
    pub source: Option<Source>,
    /// Whether it has been asked to end.
    pub interrupt: &'a Interrupt,
    /// Who is told how far it has come.
    pub progress: &'a Progress,
    /// Whether a step ends only when it is durable, or when its commit has begun: its last bytes are then written
    /// under the next step.
    pub waits: bool,
    /// Whether the engine must be told that all ranks have a step, which a run by itself need not wait for.
    pub finalizes: bool,
    /// The commit of the step before.
    pub commit: Option<Commit>,
    /// Bytes compared.
    pub verified_bytes: u64,
    /// Bytes of those that were wrong.
    pub mismatches: u64,
}

impl Trainer<'_> {
    /// One step over `order`, committed; returns the compute time that each access really took.
    ///
    /// # Errors
    /// When the engine fails, or the work is asked to end.
    pub fn step(&mut self, id: OrderId, order: &Order, step: u64) -> Result<Vec<Duration>, Failure> {
        let remedy = "see which tensors hoist verify finds wrong, if any";
        let failed = |doing: String, error: hoist::Error| Failure::work(doing, error, remedy);
        self.engine.begin_step(id).map_err(|error| failed(format!("beginning step {step}"), error))?;
        let mut compute = Vec::with_capacity(order.accesses.len());
        for (index, access) in order.accesses.iter().enumerate() {
            if self.interrupt.is_set() {
                return Err(Failure::Interrupted);
            }
            let mut lease = self
                .engine
                .acquire(index)
                .map_err(|error| failed(format!("step {step}, access {index} ({})", access.layer), error))?;
            let begin = Instant::now();
            for (place, tensor_use) in access.uses.iter().enumerate() {
                self.use_tensor(&mut lease, place, tensor_use, step)?;
            }
            self.interrupt.sleep(access.compute.saturating_sub(begin.elapsed()));
            compute.push(begin.elapsed());
            lease.release();
            self.progress.advance();
        }
        if self.interrupt.is_set() {
            return Err(Failure::Interrupted);
        }
        // It waits for the commit before, whose outcome is therefore known.
        let commit = self
            .engine
            .commit_step(&Scalars::step(step + 1))
            .map_err(|error| failed(format!("committing step {step}"), error))?;
        self.finish()?;
        self.commit = Some(commit);
        if self.waits {
            self.finish()?;
        }
        Ok(compute)
    }

    /// Waits until the last step is durable.
    ///
    /// # Errors
    /// When it cannot be made so.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let failed = |error| Failure::work("committing a step", error, "see what hoist verify says");
        let Some(commit) = self.commit.take() else { return Ok(()) };
        let epoch = commit.wait().map_err(failed)?;
        if self.finalizes { self.engine.finalize(epoch).map_err(failed) } else { Ok(()) }
    }

    fn use_tensor(
        &mut self,
        lease: &mut Lease,
        place: usize,
        used: &TensorUse,
        step: u64,
    ) -> Result<(), Failure> {
        let tensor = used.tensor.0 as usize;
        let mut offset = used.bytes.start;
        if used.mode.reads() {
            for part in lease.parts(place) {
                let found = self.check(part, tensor, offset, step)?;
                self.count(part.len(), tensor, step, found);
                offset += part.len() as u64;
            }
            assert_eq!(offset, used.bytes.end, "a lease has other bytes than its access: {used:?}");
        }
        if used.mode.writes() {
            let mut offset = used.bytes.start;
            for part in lease.parts_mut(place) {
                self.fill(part, tensor, offset, step)?;
                offset += part.len() as u64;
            }
            assert_eq!(offset, used.bytes.end, "a lease has other bytes than its access: {used:?}");
        }
        Ok(())
    }

    /// Where `part` of a tensor is not what a reader must find in this step; offsets are in the tensor.
    fn check(
        &mut self,
        part: &[u8],
        tensor: usize,
        offset: u64,
        step: u64,
    ) -> Result<Option<Mismatch>, Failure> {
        match (self.workload.origins[tensor], &mut self.source) {
            (Origin::Made { kind, seed }, _) => {
                let version = self.workload.version_read(tensor, step);
                Ok(Contents::new(kind, seed, version).check(part, offset))
            }
            (Origin::File, Some(source)) => source.check(part, tensor, offset),
            (Origin::File, None) => {
                unreachable!("tensor {tensor} comes from a file, and none is open")
            }
        }
    }

    fn fill(&mut self, part: &mut [u8], tensor: usize, offset: u64, step: u64) -> Result<(), Failure> {
        match (self.workload.origins[tensor], &mut self.source) {
            (Origin::Made { kind, seed }, _) => {
                Contents::new(kind, seed, step).fill(part, offset);
                Ok(())
            }
            (Origin::File, Some(source)) => source.fill(part, tensor, offset),
            (Origin::File, None) => {
                unreachable!("tensor {tensor} comes from a file, and none is open")
            }
        }
    }

    fn count(&mut self, bytes: usize, tensor: usize, step: u64, found: Option<Mismatch>) {
        self.verified_bytes += bytes as u64;
        let Some(found) = found else { return };
        // The first one says where to look; a broken run could say it millions of times.
        if self.mismatches == 0 {
            let name = &self.workload.tensors[tensor].name;
            let line =
                format!("wrong bytes: tensor {name} from byte {} on, in step {step}", found.first_offset);
            self.progress.say(&line);
        }
        self.mismatches += found.bytes;
    }
}
