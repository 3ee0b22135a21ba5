//! Making derived tensors: element-wise casts between slots.

use std::collections::HashMap;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use hoist_store::{Dtype, Life, TensorSpec};

use crate::error::Error;

/// One run of elements to cast, within a source unit and a target unit.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    pub(crate) from: Dtype,
    pub(crate) to: Dtype,
    /// Bytes into the source unit.
    pub(crate) source_offset: u64,
    /// Bytes into the target unit.
    pub(crate) target_offset: u64,
    pub(crate) elements: u64,
}

/// Elements that are cast at a time: 16 KiB of fp32, within the first-level cache.
const CHUNK_ELEMENTS: usize = 4096;

/// Every derived tensor must be a cast that can be made. (That its source is there, durable and of
/// the same shape is the store's to check.)
pub(crate) fn check<'a>(specs: impl Iterator<Item = &'a TensorSpec> + Clone) -> Result<(), Error> {
    let derived = |spec: &&'a TensorSpec| matches!(spec.life, Life::Derived { .. });
    if !specs.clone().any(|spec| derived(&spec)) {
        return Ok(());
    }
    let dtypes: HashMap<&str, Dtype> = specs.clone().map(|spec| (spec.name.as_str(), spec.dtype)).collect();
    for spec in specs.filter(derived) {
        let Life::Derived { from } = &spec.life else { continue };
        let Some(a) = dtypes.get(from.as_str()).copied() else { continue };
        let b = spec.dtype;
        let known = a == b || (a == Dtype::F32 && matches!(b, Dtype::BF16 | Dtype::F16));
        if !known || a.bits() % 8 != 0 {
            let why =
                format!("no cast from {} to {}: F32 to BF16 or F16, or the same type", a.name(), b.name());
            return Err(Error::BadCast { tensor: spec.name.clone(), from: from.clone(), why });
        }
    }
    Ok(())
}

impl Cast {
    /// Casts from a source unit's parts into a target unit's, rounding to nearest even as the
    /// hardware does (IEEE 754-2019, 4.3.1).
    pub(crate) fn carry_out<'a, 'b>(
        &self,
        source: impl Iterator<Item = &'a [u8]>,
        target: impl Iterator<Item = &'b mut [u8]>,
    ) {
        let (from, to) = (self.from.bits() / 8, self.to.bits() / 8);
        let mut source = clip(source, self.source_offset, self.elements * from);
        let mut target = clip_mut(target, self.target_offset, self.elements * to);
        let (mut read, mut write): (&[u8], &mut [u8]) = (&[], &mut []);
        let mut floats = [0f32; CHUNK_ELEMENTS];
        loop {
            if read.is_empty() {
                let Some(next) = source.next() else { return };
                read = next;
            }
            if write.is_empty() {
                let Some(next) = target.next() else { return };
                write = next;
            }
            let count = (read.len() as u64 / from).min(write.len() as u64 / to) as usize;
            let count = count.min(CHUNK_ELEMENTS);
            assert!(count > 0, "a part of {} or {} bytes splits an element", read.len(), write.len());
            let (now, later) = read.split_at(count * from as usize);
            let (out, rest) = std::mem::take(&mut write).split_at_mut(count * to as usize);
            self.chunk(now, out, &mut floats[..count]);
            (read, write) = (later, rest);
        }
    }

    fn chunk(&self, source: &[u8], target: &mut [u8], floats: &mut [f32]) {
        if self.from == self.to {
            target.copy_from_slice(source);
            return;
        }
        for (float, bytes) in floats.iter_mut().zip(source.as_chunks::<4>().0) {
            *float = f32::from_le_bytes(*bytes);
        }
        match self.to {
            Dtype::BF16 => {
                let mut cast = [bf16::ZERO; CHUNK_ELEMENTS];
                cast[..floats.len()].convert_from_f32_slice(floats);
                for (out, value) in target.as_chunks_mut::<2>().0.iter_mut().zip(cast) {
                    *out = value.to_le_bytes();
                }
            }
            Dtype::F16 => {
                let mut cast = [f16::ZERO; CHUNK_ELEMENTS];
                cast[..floats.len()].convert_from_f32_slice(floats);
                for (out, value) in target.as_chunks_mut::<2>().0.iter_mut().zip(cast) {
                    *out = value.to_le_bytes();
                }
            }
            other => panic!("no cast to {}: refused when the store was opened", other.name()),
        }
    }
}

/// The bytes `offset..offset + bytes` of a sequence of parts.
pub(crate) fn clip<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    offset: u64,
    bytes: u64,
) -> impl Iterator<Item = &'a [u8]> {
    let (mut skip, mut left) = (offset, bytes);
    parts.filter_map(move |part| {
        let length = part.len() as u64;
        let from = skip.min(length);
        let to = (from + left).min(length);
        skip -= from;
        left -= to - from;
        (to > from).then(|| &part[from as usize..to as usize])
    })
}

/// The same for parts that may be written.
pub(crate) fn clip_mut<'a>(
    parts: impl Iterator<Item = &'a mut [u8]>,
    offset: u64,
    bytes: u64,
) -> impl Iterator<Item = &'a mut [u8]> {
    let (mut skip, mut left) = (offset, bytes);
    parts.filter_map(move |part| {
        let length = part.len() as u64;
        let from = skip.min(length);
        let to = (from + left).min(length);
        skip -= from;
        left -= to - from;
        (to > from).then(|| &mut part[from as usize..to as usize])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_across_parts_of_any_length() {
        let values: Vec<f32> = (0..10_000).map(|i| 1.0 + (i as f32).sin() * 3.7).collect();
        let source: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut target = vec![0u8; 8 + 2 * 9000];
        let cast = Cast {
            from: Dtype::F32,
            to: Dtype::BF16,
            source_offset: 4 * 700,
            target_offset: 8,
            elements: 9000,
        };
        cast.carry_out(source.chunks(4096), target.chunks_mut(1024));
        for (i, bytes) in target[8..].chunks(2).enumerate() {
            let expected = bf16::from_f32(values[700 + i]).to_le_bytes();
            assert_eq!(bytes, expected, "element {i}");
        }
        assert_eq!(&target[..8], [0; 8], "nothing is written before the target");
    }
}
