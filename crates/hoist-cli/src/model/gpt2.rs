//! A training step of a GPT-2 whose every parameter is kept as mixed-precision Adam keeps it.

use std::ops::Range;
use std::time::Duration;

use hoist::{Access, Mode, Order, Phase, TensorId, TensorUse, Tier};
use hoist_store::{Class, Dtype, Life, TensorSpec};

use super::cut::{self, AccessLimits, TILE_ELEMENTS};
use super::{Budgets, Origin, Workload};
use crate::config::Gpt2;
use crate::contents::Kind;

/// Bytes that an access moves per element: forward reads the copy, backward reads it and writes the gradient, the
/// optimizer touches all five arrays, and the first writing of everything durable touches three of 4 bytes.
const FORWARD_BYTES: u64 = 2;
const BACKWARD_BYTES: u64 = 4;
const OPTIMIZER_BYTES: u64 = 16;
const INITIAL_BYTES: u64 = 12;

/// One of the five arrays of a parameter, in the order in which they are created.
#[derive(Debug, Clone, Copy)]
enum Array {
    /// fp32, durable.
    Master,
    /// The bf16 cast of the master that the layers compute with.
    Copy,
    /// fp32, durable.
    Momentum,
    /// fp32, durable.
    Variance,
    /// bf16, of this step only.
    Gradient,
}

const ARRAYS: [Array; 5] = [Array::Master, Array::Copy, Array::Momentum, Array::Variance, Array::Gradient];

impl Array {
    fn of(self, parameter: usize) -> TensorId {
        TensorId((parameter * ARRAYS.len() + self as usize) as u32)
    }

    fn element_bytes(self) -> u64 {
        if matches!(self, Array::Copy | Array::Gradient) { 2 } else { 4 }
    }
}

struct Parameter {
    name: String,
    shape: Vec<u64>,
}

impl Parameter {
    fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// At least one of its arrays travels in a bundle.
    fn is_small(&self) -> bool {
        self.elements() * Array::Copy.element_bytes() < cut::SMALL_BYTES
    }
}

/// A part of one parameter: the same elements of all of its arrays.
#[derive(Debug, Clone)]
struct Part {
    parameter: usize,
    elements: Range<u64>,
}

/// Parts that are never separated: the small parameters of one group, or one piece of a large one.
type Parts = Vec<Part>;

struct Layer {
    name: String,
    parts: Vec<Parts>,
}

/// The tensors and the step of a GPT-2 with these shapes.
pub fn gpt2(shapes: &Gpt2, budgets: Budgets, seed: u64) -> Workload {
    let limits = AccessLimits::new(budgets);
    let mut tensors = Vec::new();
    let mut origins = Vec::new();
    let mut layers = Vec::new();
    let mut first = 0;
    for (name, parameters) in parameters(shapes) {
        let (layer, groups) = cut_layer(name, first, &parameters, limits);
        for ((index, parameter), group) in (first..).zip(&parameters).zip(&groups) {
            tensors.extend(ARRAYS.map(|array| spec(parameter, array, group)));
            origins.extend(ARRAYS.map(|array| origin(index, array, seed)));
        }
        first += parameters.len();
        layers.push(layer);
    }
    let initial = Order { accesses: initial(&layers, limits) };
    Workload { tensors, origins, initial, order: Order { accesses: step(&layers, limits) } }
}

/// The parameters of each layer under the names of openai-community/gpt2; the head's weight is `wte.weight`.
fn parameters(shapes: &Gpt2) -> Vec<(String, Vec<Parameter>)> {
    let hidden = shapes.hidden;
    let parameter = |name: String, shape: &[u64]| Parameter { name, shape: shape.to_vec() };
    let embedding = vec![
        parameter("wte.weight".into(), &[shapes.vocab, hidden]),
        parameter("wpe.weight".into(), &[shapes.context, hidden]),
    ];
    let of_layer: [(&str, &[u64]); 12] = [
        ("ln_1.weight", &[hidden]),
        ("ln_1.bias", &[hidden]),
        ("attn.c_attn.weight", &[hidden, 3 * hidden]),
        ("attn.c_attn.bias", &[3 * hidden]),
        ("attn.c_proj.weight", &[hidden, hidden]),
        ("attn.c_proj.bias", &[hidden]),
        ("ln_2.weight", &[hidden]),
        ("ln_2.bias", &[hidden]),
        ("mlp.c_fc.weight", &[hidden, 4 * hidden]),
        ("mlp.c_fc.bias", &[4 * hidden]),
        ("mlp.c_proj.weight", &[4 * hidden, hidden]),
        ("mlp.c_proj.bias", &[hidden]),
    ];
    let mut layers = vec![("embedding".to_owned(), embedding)];
    layers.extend((0..shapes.layers).map(|n| {
        let named = of_layer.iter().map(|(name, shape)| parameter(format!("h.{n}.{name}"), shape));
        (format!("h.{n}"), named.collect())
    }));
    let last = ["ln_f.weight", "ln_f.bias"].map(|name| parameter(name.into(), &[hidden]));
    layers.push(("head".to_owned(), last.into()));
    layers
}

fn spec(parameter: &Parameter, array: Array, group: &str) -> TensorSpec {
    let name = &parameter.name;
    let (suffix, class, life) = match array {
        Array::Master => ("", Class::Parameter, Life::Durable),
        Array::Copy => (".bf16", Class::Parameter, Life::Derived { from: name.clone() }),
        Array::Momentum => (".momentum", Class::OptimizerState, Life::Durable),
        Array::Variance => (".variance", Class::OptimizerState, Life::Durable),
        Array::Gradient => (".gradient", Class::Gradient, Life::Scratch),
    };
    let dtype = if array.element_bytes() == 2 { Dtype::BF16 } else { Dtype::F32 };
    let (name, shape) = (format!("{name}{suffix}"), parameter.shape.clone());
    TensorSpec { name, dtype, shape, class, life, group: group.to_owned(), shard: None }
}

fn origin(parameter: usize, array: Array, seed: u64) -> Origin {
    let (kind, source) = match array {
        Array::Master => (Kind::Float, Array::Master),
        Array::Copy => (Kind::Cast, Array::Master),
        other => (Kind::Bits, other),
    };
    // Seeds of neighbouring runs must not meet those of neighbouring tensors: 2^32 apart.
    Origin::Made { kind, seed: (seed << 32) ^ u64::from(source.of(parameter).0) }
}

/// Cuts a layer's parameters; also says which group each belongs to.
fn cut_layer(
    name: String,
    first: usize,
    parameters: &[Parameter],
    limits: AccessLimits,
) -> (Layer, Vec<String>) {
    let elements_max = (limits.host_bytes / OPTIMIZER_BYTES).min(limits.device_bytes / BACKWARD_BYTES);
    let indexed = || (first..).zip(parameters);
    let small = indexed().filter(|(_, p)| p.is_small()).map(|(index, p)| (p.elements(), index));
    let bundles = cut::pack(small, elements_max);
    let whole = |index: &usize| Part { parameter: *index, elements: 0..parameters[index - first].elements() };
    let mut parts: Vec<Parts> = bundles.iter().map(|bundle| bundle.iter().map(whole).collect()).collect();
    for (index, parameter) in indexed().filter(|(_, parameter)| !parameter.is_small()) {
        let ranges = cut::ranges(parameter.elements(), elements_max, TILE_ELEMENTS);
        parts.extend(ranges.into_iter().map(|elements| vec![Part { parameter: index, elements }]));
    }
    let bundle_of = |index| bundles.iter().position(|bundle| bundle.contains(&index)).unwrap_or(0);
    let groups = indexed().map(|(index, _)| cut::group_name(&name, bundle_of(index))).collect();
    (Layer { name, parts }, groups)
}

/// Forward through the layers, backward in reverse, then the optimizer layer by layer. The head computes with the
/// token embedding; its gradient is written once, at the embedding, where the sum over both uses is complete.
fn step(layers: &[Layer], limits: AccessLimits) -> Vec<Access> {
    let read: &[_] = &[(Array::Copy, Mode::Read)];
    let differentiate: &[_] = &[(Array::Copy, Mode::Read), (Array::Gradient, Mode::Overwrite)];
    let optimize: &[_] = &[
        (Array::Gradient, Mode::Read),
        (Array::Master, Mode::Update),
        (Array::Momentum, Mode::Update),
        (Array::Variance, Mode::Update),
        (Array::Copy, Mode::Overwrite),
    ];
    let device = limits.device_bytes;
    // The token embedding is the first parameter.
    let token_embedding = |parts: &Parts| parts.iter().filter(|part| part.parameter == 0).cloned().collect();
    let head = Layer {
        name: layers[layers.len() - 1].name.clone(),
        parts: layers[0]
            .parts
            .iter()
            .map(token_embedding)
            .filter(|parts: &Parts| !parts.is_empty())
            .collect(),
    };
    let mut accesses = Vec::new();
    for layer in layers {
        accesses.extend(accesses_of(layer, Phase::Forward, read, FORWARD_BYTES, device));
    }
    accesses.extend(accesses_of(&head, Phase::Forward, read, FORWARD_BYTES, device));
    let mut backward = Vec::new();
    for layer in layers {
        backward.extend(accesses_of(layer, Phase::Backward, differentiate, BACKWARD_BYTES, device));
    }
    backward.extend(accesses_of(&head, Phase::Backward, read, FORWARD_BYTES, device));
    accesses.extend(backward.into_iter().rev());
    for layer in layers {
        accesses.extend(accesses_of(layer, Phase::Optimizer, optimize, OPTIMIZER_BYTES, limits.host_bytes));
    }
    accesses
}

fn initial(layers: &[Layer], limits: AccessLimits) -> Vec<Access> {
    let durable = [Array::Master, Array::Momentum, Array::Variance].map(|array| (array, Mode::Overwrite));
    let of_layer = |layer| accesses_of(layer, Phase::Optimizer, &durable, INITIAL_BYTES, limits.host_bytes);
    layers.iter().flat_map(of_layer).collect()
}

/// The accesses of one layer in one phase, each with as many parts as fit.
fn accesses_of(
    layer: &Layer,
    phase: Phase,
    arrays: &[(Array, Mode)],
    element_bytes: u64,
    bytes_max: u64,
) -> Vec<Access> {
    let tier = if phase == Phase::Optimizer { Tier::Host } else { Tier::Device };
    let bytes =
        |parts: &Parts| parts.iter().map(|p| p.elements.end - p.elements.start).sum::<u64>() * element_bytes;
    let packs = cut::pack(layer.parts.iter().map(|parts| (bytes(parts), parts)), bytes_max);
    let access = |pack: Vec<&Parts>| {
        let uses = pack.into_iter().flatten().flat_map(|part| {
            arrays.iter().map(|&(array, mode)| TensorUse {
                tensor: array.of(part.parameter),
                bytes: part.elements.start * array.element_bytes()..part.elements.end * array.element_bytes(),
                mode,
            })
        });
        Access { layer: layer.name.clone(), phase, tier, uses: uses.collect(), compute: Duration::ZERO }
    };
    packs.into_iter().map(access).collect()
}

#[cfg(test)]
#[path = "gpt2_tests.rs"]
mod tests;
