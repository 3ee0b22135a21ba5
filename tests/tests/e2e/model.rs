//! Model files with contents that follow from names and places.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// A tensor of bytes with a name and a length.
pub type Sized = (&'static str, usize);

/// Layers that a small device must take in pieces, and bundles of small ones.
pub const LAYERS: [Sized; 9] = [
    ("embed.weight", 5 << 20),
    ("layers.0.bias", 511),
    ("layers.0.weight", 1_500_000),
    ("layers.0.empty", 0),
    ("layers.1.bias", 4097),
    ("layers.1.weight", (1 << 20) - 1),
    ("layers.10.weight", (1 << 20) + 1),
    ("layers.2.weight", 1 << 20),
    ("norm.weight", 1),
];

/// The bytes of a tensor: no two tensors have the same, and none are zeros.
pub fn bytes_of(name: &str, bytes: usize) -> Vec<u8> {
    let seed = name.bytes().fold(7_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    (0..bytes as u32).map(|place| ((place ^ seed).wrapping_mul(0x9E37_79B9) >> 24) as u8).collect()
}

/// Writes a model file with tensors of bytes, some of other dtypes and shapes, and metadata.
pub fn write(path: &Path, tensors: &[Sized]) {
    let others = [
        ("scalar", Dtype::F64, vec![], 8),
        ("layers.0.matrix", Dtype::F32, vec![3, 5, 7], 420),
        ("layers.1.half", Dtype::BF16, vec![600, 1000], 1_200_000),
        ("layers.1.flags", Dtype::BOOL, vec![17], 17),
        ("positions", Dtype::I64, vec![1, 512], 4096),
    ];
    let sized = tensors.iter().map(|&(name, bytes)| (name, Dtype::U8, vec![bytes], bytes));
    let all: Vec<_> = sized.chain(others).map(|(n, d, s, bytes)| (n, d, s, bytes_of(n, bytes))).collect();
    let views: BTreeMap<&str, TensorView<'_>> = all
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()))
        .collect();
    let metadata =
        HashMap::from([("format".to_owned(), "pt".to_owned()), ("ö\"\n".to_owned(), "ü".to_owned())]);
    std::fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

/// Both files have the same tensors and metadata, in whatever order.
pub fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    let metadata = |bytes: &[u8]| SafeTensors::read_metadata(bytes).unwrap().1.metadata().clone();
    assert!(metadata(&a).is_some());
    assert_eq!(metadata(&a), metadata(&b));
    let (a, b) = (SafeTensors::deserialize(&a).unwrap(), SafeTensors::deserialize(&b).unwrap());
    assert_eq!(a.len(), b.len());
    for (name, tensor) in a.tensors() {
        let other = b.tensor(&name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (other.dtype(), other.shape()), "{name}");
        assert!(tensor.data() == other.data(), "{name} has other bytes");
    }
}
