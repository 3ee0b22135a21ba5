//! A model's files: their tensors, and their bytes for filling and comparing.

use std::path::Path;

use hoist_store::{ModelFiles, TensorSpec};

use crate::contents::{self, Mismatch};
use crate::failure::Failure;
use crate::model::{Budgets, FileTensor, groups};

/// Read at a time for comparing: stays in a core's cache between the read and the comparison.
const BUFFER_BYTES: usize = 256 << 10;

/// An open model.
#[derive(Debug)]
pub struct Source {
    files: ModelFiles,
    buffer: Vec<u8>,
}

impl Source {
    /// Opens a model and lists its tensors, grouped so that no bundle is larger than an access.
    ///
    /// # Errors
    /// When it cannot be read, or is no whole model in safetensors files.
    pub fn open(path: &Path, budgets: Budgets) -> Result<(Self, Vec<FileTensor>), Failure> {
        let files = ModelFiles::open(path).map_err(|error| {
            let doing = format!("opening the model {}", path.display());
            Failure::work(doing, error, "name a whole .safetensors file, or the index of several")
        })?;
        let specs = files.specs();
        let lengths: Vec<u64> = specs.iter().map(|spec| spec.bytes().unwrap_or(0)).collect();
        let named: Vec<(&str, u64)> =
            specs.iter().map(|spec| spec.name.as_str()).zip(lengths.iter().copied()).collect();
        let tensor = |((spec, bytes), group): ((&TensorSpec, u64), String)| FileTensor {
            spec: TensorSpec { group, ..spec.clone() },
            bytes,
        };
        let groups = groups(&named, budgets);
        let tensors = specs.iter().zip(lengths).zip(groups).map(tensor).collect();
        Ok((Self { files, buffer: vec![0; BUFFER_BYTES] }, tensors))
    }

    /// Fills `part` from `offset` of a tensor on.
    ///
    /// # Errors
    /// When its file cannot be read any more.
    pub fn fill(&mut self, part: &mut [u8], tensor: usize, offset: u64) -> Result<(), Failure> {
        self.files.read(tensor, offset, part).map_err(failed)
    }

    /// Compares `part` with a tensor from `offset` on.
    ///
    /// # Errors
    /// When its file cannot be read any more.
    pub fn check(&mut self, part: &[u8], tensor: usize, offset: u64) -> Result<Option<Mismatch>, Failure> {
        let mut found = None;
        for (number, chunk) in part.chunks(BUFFER_BYTES).enumerate() {
            let offset = offset + (number * BUFFER_BYTES) as u64;
            let expected = &mut self.buffer[..chunk.len()];
            self.files.read(tensor, offset, expected).map_err(failed)?;
            found = Mismatch::join(found, contents::compare(chunk, expected, offset));
        }
        Ok(found)
    }
}

fn failed(error: hoist_store::Error) -> Failure {
    Failure::work("reading the model", error, "leave it alone while it is used")
}
