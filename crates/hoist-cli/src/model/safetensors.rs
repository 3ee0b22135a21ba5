//! Forward passes over a model's files, layer by layer.

use std::time::Duration;

use hoist::{Access, Mode, Order, Phase, TensorId, TensorUse, Tier};
use hoist_store::TensorSpec;

use super::cut::{self, AccessLimits};
use super::layers::{compare_layers, compare_names, layer_of};
use super::{Budgets, Origin, Workload};

/// Bytes that one checksum covers: pieces begin at multiples of it.
const CHECKSUM_BYTES: u64 = 256 << 10;

/// A tensor of a model's files, as it was imported.
#[derive(Debug, Clone)]
pub struct FileTensor {
    /// What it was imported as.
    pub spec: TensorSpec,
    /// Its length.
    pub bytes: u64,
}

/// The group that each tensor is imported with, from names and lengths: the layer, or a part of the layer where its
/// small tensors would not fit into one access together.
pub fn groups(tensors: &[(&str, u64)], budgets: Budgets) -> Vec<String> {
    let bytes_max = AccessLimits::new(budgets).device_bytes;
    let mut groups: Vec<String> = tensors.iter().map(|(name, _)| layer_of(name).to_owned()).collect();
    for layer in in_layers(tensors.iter().map(|(name, _)| *name)) {
        let small = layer.iter().filter(|&&index| tensors[index].1 < cut::SMALL_BYTES);
        let bundles = cut::pack(small.map(|&index| (tensors[index].1, index)), bytes_max);
        for (number, index) in
            bundles.iter().enumerate().flat_map(|(n, bundle)| bundle.iter().map(move |i| (n, i)))
        {
            groups[*index] = cut::group_name(layer_of(tensors[*index].0), number);
        }
    }
    groups
}

/// The step over the tensors of a model's files: each layer's are read on the device. At first all are written through
/// the host.
pub fn safetensors(tensors: &[FileTensor], budgets: Budgets) -> Workload {
    let limits = AccessLimits::new(budgets);
    let order = |mode, phase, tier, bytes_max| Order {
        accesses: in_layers(tensors.iter().map(|tensor| tensor.spec.name.as_str()))
            .iter()
            .flat_map(|layer| {
                // Cut alike in both orders, so that what was written as one is read as one.
                let parts = parts(tensors, layer, limits.device_bytes, mode);
                let name = layer_of(&tensors[layer[0]].spec.name);
                cut::pack(parts, bytes_max).into_iter().map(move |uses| Access {
                    layer: name.to_owned(),
                    phase,
                    tier,
                    uses: uses.into_iter().flatten().collect(),
                    compute: Duration::ZERO,
                })
            })
            .collect(),
    };
    Workload {
        tensors: tensors.iter().map(|tensor| tensor.spec.clone()).collect(),
        origins: vec![Origin::File; tensors.len()],
        initial: order(Mode::Overwrite, Phase::Optimizer, Tier::Host, limits.host_bytes),
        order: order(Mode::Read, Phase::Forward, Tier::Device, limits.device_bytes),
    }
}

/// What is never separated: the small tensors of a group, or a piece of a large tensor. Each with its bytes.
fn parts(tensors: &[FileTensor], layer: &[usize], bytes_max: u64, mode: Mode) -> Vec<(u64, Vec<TensorUse>)> {
    let mut parts: Vec<(u64, Vec<TensorUse>)> = Vec::new();
    let mut groups: Vec<&str> = Vec::new();
    let part = |index, bytes| TensorUse { tensor: TensorId(index as u32), bytes, mode };
    // An empty tensor has nothing to read or write.
    let layer = layer.iter().filter(|&&index| tensors[index].bytes > 0);
    let (small, large): (Vec<usize>, Vec<usize>) =
        layer.partition(|&&index| tensors[index].bytes < cut::SMALL_BYTES);
    for index in small {
        let tensor = &tensors[index];
        let at = groups.iter().position(|group| *group == tensor.spec.group).unwrap_or(groups.len());
        if at == groups.len() {
            groups.push(&tensor.spec.group);
            parts.push((0, Vec::new()));
        }
        parts[at].0 += tensor.bytes;
        parts[at].1.push(part(index, 0..tensor.bytes));
    }
    for index in large {
        let ranges = cut::ranges(tensors[index].bytes, bytes_max, CHECKSUM_BYTES);
        parts.extend(ranges.into_iter().map(|range| (range.end - range.start, vec![part(index, range)])));
    }
    parts
}

/// Indices of tensors by layer, layers in the order of a forward pass.
fn in_layers<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Vec<usize>> {
    let names: Vec<&str> = names.collect();
    let mut indices: Vec<usize> = (0..names.len()).collect();
    indices.sort_by(|&a, &b| {
        let (a, b) = (names[a], names[b]);
        compare_layers(layer_of(a), layer_of(b)).then_with(|| compare_names(a, b))
    });
    indices.chunk_by(|&a, &b| layer_of(names[a]) == layer_of(names[b])).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use hoist_store::{Class, Dtype, Life};

    use super::*;

    /// Names and lengths like those of all-MiniLM-L6-v2, layers in the order of their names.
    fn mini_lm() -> Vec<(String, u64)> {
        let mut tensors = vec![
            ("embeddings.position_ids".into(), 4096),
            ("embeddings.position_embeddings.weight".into(), 786_432),
            ("embeddings.word_embeddings.weight".into(), 46_881_792),
            ("pooler.dense.weight".into(), 589_824),
        ];
        for n in [0, 1, 10, 2] {
            tensors.push((format!("encoder.layer.{n}.intermediate.dense.weight"), 2_359_296));
            tensors.push((format!("encoder.layer.{n}.intermediate.dense.bias"), 6144));
        }
        tensors
    }

    fn workload(device_mib: u64) -> (Vec<FileTensor>, Workload) {
        let budgets = Budgets { device_bytes: device_mib << 20, host_bytes: 64 << 20 };
        let named = mini_lm();
        let pairs: Vec<(&str, u64)> = named.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        let groups = groups(&pairs, budgets);
        let tensors: Vec<FileTensor> = named
            .into_iter()
            .zip(groups)
            .map(|((name, bytes), group)| FileTensor {
                spec: TensorSpec {
                    name,
                    dtype: Dtype::U8,
                    shape: vec![bytes],
                    class: Class::Parameter,
                    life: Life::Durable,
                    group,
                    shard: None,
                },
                bytes,
            })
            .collect();
        let workload = safetensors(&tensors, budgets);
        (tensors, workload)
    }

    #[test]
    fn layers_are_read_in_their_order_and_every_byte_once() {
        for device_mib in [1, 4, 32, 64] {
            let (tensors, workload) = workload(device_mib);
            let accesses = &workload.order.accesses;
            let mut layers: Vec<&str> = accesses.iter().map(|access| access.layer.as_str()).collect();
            layers.dedup();
            let numbered = ["encoder.layer.0", "encoder.layer.1", "encoder.layer.2", "encoder.layer.10"];
            assert_eq!(layers[1..5], numbered);
            assert_eq!((layers[0], layers[5]), ("embeddings", "pooler.dense"));
            let all: Vec<TensorUse> = accesses.iter().flat_map(|access| access.uses.clone()).collect();
            assert_eq!(
                accesses.iter().map(Access::bytes).sum::<u64>(),
                tensors.iter().map(|tensor| tensor.bytes).sum::<u64>()
            );
            let written: Vec<TensorUse> =
                workload.initial.accesses.iter().flat_map(|access| access.uses.clone()).collect();
            let places = |uses: &[TensorUse]| -> Vec<_> {
                uses.iter().map(|tensor_use| (tensor_use.tensor, tensor_use.bytes.clone())).collect()
            };
            assert_eq!(places(&written), places(&all));
            let limit = (device_mib << 20) / 4;
            assert!(accesses.iter().all(|access| access.bytes() <= limit.max(768 << 10)), "{accesses:?}");
        }
    }

    #[test]
    fn a_tensor_that_is_large_for_the_device_is_read_in_pieces() {
        let (_, workload) = workload(32);
        let embedding = workload.order.accesses.iter().flat_map(|access| &access.uses);
        let pieces: Vec<&TensorUse> =
            embedding.filter(|tensor_use| tensor_use.tensor == TensorId(2)).collect();
        assert_eq!(pieces.len(), 6);
        assert!(pieces.iter().all(|piece| piece.bytes.start % CHECKSUM_BYTES == 0));
        assert_eq!(pieces.last().unwrap().bytes.end, 46_881_792);
    }
}
