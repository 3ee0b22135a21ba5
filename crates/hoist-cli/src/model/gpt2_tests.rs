use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SMALL: Gpt2 = Gpt2 { layers: 12, hidden: 768, heads: 12, vocab: 50257, context: 1024 };
const QUICKSTART: Budgets = Budgets { device_bytes: 128 << 20, host_bytes: 512 << 20 };

fn limit(access: &Access, limits: AccessLimits) -> u64 {
    if access.tier == Tier::Host { limits.host_bytes } else { limits.device_bytes }
}

/// Where each tensor is cut, over all accesses of an order; every array of a parameter in elements.
fn cuts(workload: &Workload) -> BTreeMap<u32, Vec<Vec<Range<u64>>>> {
    let mut by_tensor: BTreeMap<u32, BTreeMap<u8, Vec<Range<u64>>>> = BTreeMap::new();
    for access in &workload.order.accesses {
        for tensor_use in access.uses.iter().filter(|u| access.layer != "head" || u.tensor.0 != 1) {
            let width = workload.tensors[tensor_use.tensor.0 as usize].dtype.bits() / 8;
            let elements = tensor_use.bytes.start / width..tensor_use.bytes.end / width;
            by_tensor
                .entry(tensor_use.tensor.0)
                .or_default()
                .entry(access.phase as u8)
                .or_default()
                .push(elements);
        }
    }
    let mut by_parameter: BTreeMap<u32, Vec<Vec<Range<u64>>>> = BTreeMap::new();
    for (tensor, phases) in by_tensor {
        for mut ranges in phases.into_values() {
            ranges.sort_by_key(|range| range.start);
            by_parameter.entry(tensor / ARRAYS.len() as u32).or_default().push(ranges);
        }
    }
    by_parameter
}

#[test]
fn gpt2_small_has_its_known_size() {
    let workload = gpt2(&SMALL, QUICKSTART, 1);
    let masters = workload.tensors.iter().step_by(ARRAYS.len());
    let elements: u64 = masters.clone().map(|tensor| tensor.shape.iter().product::<u64>()).sum();
    assert_eq!(elements, 124_439_808);
    assert_eq!(workload.bytes(), 16 * elements);
    assert_eq!(masters.count(), 148);
    assert_eq!(workload.tensors[10].name, "h.0.ln_1.weight");
    assert_eq!(workload.tensors[6].life, Life::Derived { from: "wpe.weight".into() });
}

#[test]
fn a_step_goes_forward_then_backward_then_optimizes() {
    let workload = gpt2(&SMALL, QUICKSTART, 1);
    let mut runs: Vec<(Phase, &str)> =
        workload.order.accesses.iter().map(|access| (access.phase, access.layer.as_str())).collect();
    runs.dedup();
    let names: Vec<String> = std::iter::once("embedding".into())
        .chain((0..12).map(|n| format!("h.{n}")))
        .chain(["head".into()])
        .collect();
    let mut expected: Vec<(Phase, &str)> = names.iter().map(|name| (Phase::Forward, name.as_str())).collect();
    expected.extend(names.iter().rev().map(|name| (Phase::Backward, name.as_str())));
    expected.extend(names.iter().map(|name| (Phase::Optimizer, name.as_str())));
    assert_eq!(runs, expected);
}

#[test]
fn one_seed_has_many_contents_and_a_cast_its_masters() {
    let workload = gpt2(&SMALL, QUICKSTART, 1);
    let seed = |tensor: usize| match workload.origins[tensor] {
        Origin::Made { seed, .. } => seed,
        Origin::File => panic!("tensor {tensor} is not in a file"),
    };
    assert_eq!(seed(0), seed(1));
    let different: std::collections::BTreeSet<u64> = (0..workload.tensors.len()).map(seed).collect();
    assert_eq!(different.len(), workload.tensors.len() / ARRAYS.len() * 4);
}

fn shapes() -> impl Strategy<Value = Gpt2> {
    (1u64..5, 1u64..1500, 1u64..60_000, 1u64..2000).prop_map(|(layers, hidden, vocab, context)| Gpt2 {
        layers,
        hidden,
        heads: 1,
        vocab,
        context,
    })
}

proptest! {
    #[test]
    fn accesses_keep_to_their_limits_and_cuts_agree(
        shapes in shapes(), device_mib in 4u64..512, host_mib in 8u64..512,
    ) {
        let budgets = Budgets { device_bytes: device_mib << 20, host_bytes: host_mib << 20 };
        let limits = AccessLimits::new(budgets);
        let workload = gpt2(&shapes, budgets, 1);
        for access in workload.order.accesses.iter().chain(&workload.initial.accesses) {
            let tile = TILE_ELEMENTS * if access.tier == Tier::Host { OPTIMIZER_BYTES } else { BACKWARD_BYTES };
            // The smallest piece there is, or the largest small parameter, may have to pass the limit.
            let single = tile.max(4 * tile * u64::from(access.uses.len() <= ARRAYS.len()));
            prop_assert!(access.bytes() <= limit(access, limits).max(single), "{access:?}");
        }
        for (parameter, phases) in cuts(&workload) {
            let elements = workload.tensors[parameter as usize * ARRAYS.len()].shape.iter().product::<u64>();
            // Copy in three phases, gradient in two, three durable arrays in one.
            prop_assert_eq!(phases.len(), 8);
            prop_assert_eq!(phases[0].last().unwrap().end, elements);
            for ranges in &phases {
                prop_assert_eq!(ranges, &phases[0]);
                prop_assert!(ranges.iter().all(|range| range.start % TILE_ELEMENTS == 0));
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            }
        }
    }

    #[test]
    fn a_bundle_is_in_one_access_of_each_layer_and_phase(
        shapes in shapes(), device_mib in 4u64..128, host_mib in 8u64..512,
    ) {
        let budgets = Budgets { device_bytes: device_mib << 20, host_bytes: host_mib << 20 };
        let workload = gpt2(&shapes, budgets, 1);
        let mut access_of = BTreeMap::new();
        for (index, access) in workload.order.accesses.iter().enumerate() {
            for tensor_use in &access.uses {
                let tensor = &workload.tensors[tensor_use.tensor.0 as usize];
                if tensor.shape.iter().product::<u64>() * 2 >= cut::SMALL_BYTES {
                    continue;
                }
                let visit = (access.phase as u8, access.layer.clone(), tensor.group.clone());
                prop_assert_eq!(*access_of.entry(visit).or_insert(index), index);
            }
        }
    }
}
