//! A model file: its tensors, and its bytes for filling and comparing.

use std::fmt::Display;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hoist_store::TensorSpec;

use crate::contents::{self, Mismatch};
use crate::failure::Failure;
use crate::model::{Budgets, FileTensor, groups};

/// Read at a time for comparing: stays in a core's cache between the read and the comparison.
const BUFFER_BYTES: usize = 256 << 10;

/// An open model file.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
}

impl Source {
    /// Opens a model file and lists its tensors, grouped so that no bundle is larger than an access.
    ///
    /// # Errors
    /// When it cannot be read, or is no whole safetensors file.
    pub fn open(path: &Path, budgets: Budgets) -> Result<(Self, Vec<FileTensor>), Failure> {
        let failed = |why: &dyn Display| {
            Failure::work(
                format!("opening the model {}", path.display()),
                why,
                "name a whole .safetensors file",
            )
        };
        let specs = hoist_store::read_specs(path).map_err(|error| failed(&error))?;
        let file = File::open(path).map_err(|error| failed(&error))?;
        let file_bytes = file.metadata().map_err(|error| failed(&error))?.len();
        let lengths: Vec<u64> = specs.iter().map(|spec| spec.bytes().unwrap_or(0)).collect();
        let named: Vec<(&str, u64)> =
            specs.iter().map(|spec| spec.name.as_str()).zip(lengths.clone()).collect();
        let groups = groups(&named, budgets);
        // The tensors lie in this order without gaps, up to the end of the file.
        let mut file_offset = file_bytes - lengths.iter().sum::<u64>();
        let mut tensors = Vec::new();
        for ((spec, bytes), group) in specs.into_iter().zip(lengths).zip(groups) {
            tensors.push(FileTensor { spec: TensorSpec { group, ..spec }, bytes, file_offset });
            file_offset += bytes;
        }
        Ok((Self { path: path.to_owned(), file, buffer: vec![0; BUFFER_BYTES] }, tensors))
    }

    /// Fills `part` from `offset` of the file on.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn fill(&self, part: &mut [u8], offset: u64) -> Result<(), Failure> {
        self.file.read_exact_at(part, offset).map_err(|error| self.failed(&error))
    }

    /// Compares `part` with the file from `offset` on; the mismatch's offset is one in the file.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn check(&mut self, part: &[u8], offset: u64) -> Result<Option<Mismatch>, Failure> {
        let mut found = None;
        for (number, chunk) in part.chunks(BUFFER_BYTES).enumerate() {
            let offset = offset + (number * BUFFER_BYTES) as u64;
            let expected = &mut self.buffer[..chunk.len()];
            if let Err(error) = self.file.read_exact_at(expected, offset) {
                return Err(self.failed(&error));
            }
            found = Mismatch::join(found, contents::compare(chunk, expected, offset));
        }
        Ok(found)
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::work(
            format!("reading the model {}", self.path.display()),
            error,
            "leave it alone while it is used",
        )
    }
}
