//! The header of a safetensors file: a length of 8 bytes, JSON, then the tensors' bytes without gaps.

use crate::{Class, Dtype, Error, Life, TensorSpec};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The longest header: the limit of the reference implementation.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// The bytes of the header's length.
pub(crate) const LENGTH_BYTES: u64 = 8;

/// What a header says, checked against the file's length.
pub(crate) struct Header {
    /// The tensors as durable parameters, in order of their bytes in the file.
    pub specs: Vec<TensorSpec>,
    /// Where each tensor's bytes start in the file.
    pub offsets: Vec<u64>,
    /// `__metadata__`, if there is one.
    pub metadata: Option<BTreeMap<String, String>>,
}

/// The group (layer) of a tensor: its name through the first component that is a number ("encoder.layer.3" of
/// "encoder.layer.3.weight"); empty when there is none.
#[must_use]
pub fn group_of(name: &str) -> &str {
    let mut end = 0;
    for component in name.split('.') {
        end += component.len();
        if !component.is_empty() && component.bytes().all(|byte| byte.is_ascii_digit()) {
            return &name[..end];
        }
        end += 1;
    }
    ""
}

/// Reads and checks the header of `file`.
pub(crate) fn read(file: &File, path: &Path) -> Result<Header, Error> {
    let wrong = |what: String| Error::Safetensors { path: path.to_owned(), what };
    let failed = |source| Error::File { doing: "reading", path: path.to_owned(), source };
    let file_bytes = file.metadata().map_err(failed)?.len();
    if file_bytes < LENGTH_BYTES {
        return Err(wrong(format!("it has only {file_bytes} bytes")));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact_at(&mut length, 0).map_err(failed)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > HEADER_BYTES_MAX || header_bytes > file_bytes - LENGTH_BYTES {
        return Err(wrong(format!(
            "its header would have {header_bytes} bytes: the file has {file_bytes}, and {HEADER_BYTES_MAX} is the most"
        )));
    }
    let mut text = vec![0; header_bytes as usize];
    file.read_exact_at(&mut text, LENGTH_BYTES).map_err(failed)?;
    parse(&text, file_bytes - LENGTH_BYTES - header_bytes).map_err(wrong)
}

/// Parses the JSON of a header before `data_bytes` bytes of data.
fn parse(text: &[u8], data_bytes: u64) -> Result<Header, String> {
    let start = LENGTH_BYTES + text.len() as u64;
    // The reference implementation checks that offsets leave no gap and fit dtype and shape.
    let header: safetensors::tensor::Metadata =
        serde_json::from_slice(text).map_err(|error| format!("its header is wrong: {error}"))?;
    if header.data_len() as u64 != data_bytes {
        return Err(format!("its tensors have {} bytes, and it holds {data_bytes}", header.data_len()));
    }
    let mut infos: Vec<_> = header.tensors().into_iter().collect();
    // Empty tensors share an offset: then the name decides, as the map has no order.
    infos.sort_unstable_by(|(a, x), (b, y)| x.data_offsets.cmp(&y.data_offsets).then_with(|| a.cmp(b)));
    let (mut specs, mut offsets) = (Vec::with_capacity(infos.len()), Vec::with_capacity(infos.len()));
    for (name, info) in infos {
        let dtype = info.dtype.to_string();
        let dtype =
            Dtype::from_name(&dtype).ok_or_else(|| format!("tensor {name:?} has unknown type {dtype}"))?;
        let shape: Vec<u64> = info.shape.iter().map(|length| *length as u64).collect();
        offsets.push(start + info.data_offsets.0 as u64);
        let group = group_of(&name).to_owned();
        specs.push(TensorSpec {
            name,
            dtype,
            shape,
            class: Class::Parameter,
            life: Life::Durable,
            group,
            shard: None,
        });
    }
    let metadata = header.metadata().as_ref().map(|map| map.clone().into_iter().collect());
    Ok(Header { specs, offsets, metadata })
}

/// The header, its length before it, for tensors in this order without gaps.
pub(crate) fn build<'a>(
    metadata: Option<&BTreeMap<String, String>>,
    specs: impl Iterator<Item = (&'a TensorSpec, u64)>,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = vec![0; LENGTH_BYTES as usize];
    text.push(b'{');
    if let Some(metadata) = metadata {
        text.extend_from_slice(b"\"__metadata__\":");
        serde_json::to_writer(&mut text, metadata)?;
    }
    let mut offset = 0;
    for (spec, bytes) in specs {
        if text.len() > LENGTH_BYTES as usize + 1 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, &spec.name)?;
        text.extend_from_slice(format!(":{{\"dtype\":\"{}\",\"shape\":", spec.dtype).as_bytes());
        serde_json::to_writer(&mut text, &spec.shape)?;
        text.extend_from_slice(format!(",\"data_offsets\":[{offset},{}]}}", offset + bytes).as_bytes());
        offset += bytes;
    }
    text.push(b'}');
    // The data starts at a multiple of 8, as the reference implementation writes it.
    text.resize(text.len().next_multiple_of(8), b' ');
    let header_bytes = text.len() as u64 - LENGTH_BYTES;
    text[..LENGTH_BYTES as usize].copy_from_slice(&header_bytes.to_le_bytes());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn groups_are_layers() {
        assert_eq!(group_of("encoder.layer.3.attention.self.query.weight"), "encoder.layer.3");
        assert_eq!(group_of("h.0.ln.1.bias"), "h.0");
        assert_eq!(group_of("7"), "7");
        assert_eq!(group_of("embeddings.LayerNorm.bias"), "");
        assert_eq!(group_of("layer3.weight"), "");
        assert_eq!(group_of("..5"), "..5");
        assert_eq!(group_of(""), "");
    }

    fn what(text: &str, data_bytes: u64) -> String {
        parse(text.as_bytes(), data_bytes).err().unwrap_or_default()
    }

    #[test]
    fn malicious_headers_are_refused() {
        let tensor = |dtype: &str, shape: &str, from: &str, to: &str| {
            format!("{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}}}")
        };
        assert_eq!(what(&tensor("U8", "[4]", "0", "4"), 4), "");
        for (text, bytes) in [
            (String::new(), 0),
            ("[]".to_owned(), 0),
            ("{\"a\":5}".to_owned(), 0),
            (tensor("U8", "[4]", "0", "4"), 3),
            (tensor("U8", "[4]", "0", "4"), 5),
            (tensor("U8", "[4]", "1", "5"), 5),
            (tensor("U8", "[4]", "4", "0"), 4),
            (tensor("U9", "[4]", "0", "4"), 4),
            (tensor("U8", "[-4]", "0", "4"), 4),
            (tensor("F4", "[3]", "0", "1"), 1),
            (tensor("F64", "[9223372036854775808,4]", "0", "0"), 0),
            (tensor("U8", "[18446744073709551615]", "0", "18446744073709551615"), 4),
            ("{\"__metadata__\":{\"a\":1}}".to_owned(), 0),
            ("[".repeat(100_000), 0),
        ] {
            assert_ne!(what(&text, bytes), "", "{text:.80}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed(text in "[ -~]{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(text.as_bytes(), 0);
            let _ = parse(&bytes, 0);
        }

        #[test]
        fn a_header_that_is_cut_or_changed_is_refused_or_parsed(cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let spec = |name: &str| TensorSpec {
                name: name.into(), dtype: Dtype::F32, shape: vec![2, 3], class: Class::Parameter,
                life: Life::Durable, group: String::new(), shard: None,
            };
            let specs = [spec("a.\"0"), spec("b")];
            let text = build(None, specs.iter().map(|spec| (spec, 24))).unwrap().split_off(8);
            let back = parse(&text, 48).unwrap();
            prop_assert_eq!(&back.specs[0].name, "a.\"0");
            prop_assert_eq!(back.offsets[1], 8 + text.len() as u64 + 24);
            let place = cut.index(text.trim_ascii_end().len());
            prop_assert!(parse(&text[..place], 48).is_err());
            let mut changed = text.clone();
            changed[place] = byte;
            let _ = parse(&changed, 48);
        }
    }
}
