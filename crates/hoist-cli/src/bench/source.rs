//! A model file: its tensors, and its bytes for filling and comparing.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hoist_store::{Class, Dtype, Life, TensorSpec};
use safetensors::tensor::Metadata;

use crate::contents::{self, Mismatch};
use crate::failure::Failure;
use crate::model::{Budgets, FileTensor, groups};

/// The largest header that the format allows (safetensors' own limit).
const HEADER_BYTES_MAX: u64 = 100_000_000;
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
    /// Opens a model file and lists its tensors, in the order of their names.
    ///
    /// # Errors
    /// When it cannot be read, is no safetensors file, or ends early.
    pub fn open(path: &Path, budgets: Budgets) -> Result<(Self, Vec<FileTensor>), Failure> {
        let failed = |why: String| {
            Failure::work(
                format!("opening the model {}", path.display()),
                why,
                "name a whole .safetensors file",
            )
        };
        let mut file = File::open(path).map_err(|error| failed(error.to_string()))?;
        let (metadata, data_offset) = read_header(&mut file).map_err(failed)?;
        let mut tensors = file_tensors(&metadata, data_offset).map_err(failed)?;
        let named: Vec<(&str, u64)> =
            tensors.iter().map(|tensor| (tensor.spec.name.as_str(), tensor.bytes)).collect();
        for (group, tensor) in groups(&named, budgets).into_iter().zip(&mut tensors) {
            tensor.spec.group = group;
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

/// The header, and where the data begins.
fn read_header(file: &mut File) -> Result<(Metadata, u64), String> {
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|error| format!("it has no header ({error})"))?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > HEADER_BYTES_MAX {
        return Err(format!(
            "a header of {header_bytes} bytes is longer than the {HEADER_BYTES_MAX} that are allowed"
        ));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header)
        .map_err(|error| format!("its header of {header_bytes} bytes is cut off ({error})"))?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| format!("its header is wrong ({error})"))?;
    let data_offset = 8 + header_bytes;
    let right = data_offset.saturating_add(metadata.data_len() as u64);
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    if bytes != right {
        return Err(format!("it has {bytes} bytes, and its header describes {right}"));
    }
    Ok((metadata, data_offset))
}

fn file_tensors(metadata: &Metadata, data_offset: u64) -> Result<Vec<FileTensor>, String> {
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let dtype = info.dtype.to_string();
        let dtype =
            Dtype::from_name(&dtype).ok_or_else(|| format!("tensor {name} has the unknown dtype {dtype}"))?;
        let (begin, end) = info.data_offsets;
        let shape = info.shape.iter().map(|&length| length as u64).collect();
        let (class, life) = (Class::Parameter, Life::Durable);
        let spec = TensorSpec { name, dtype, shape, class, life, group: String::new() };
        tensors.push(FileTensor {
            spec,
            bytes: (end - begin) as u64,
            file_offset: data_offset + begin as u64,
        });
    }
    tensors.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(tensors)
}
