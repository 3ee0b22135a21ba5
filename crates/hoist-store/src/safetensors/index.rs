//! The index of a model in several files, by the convention of the Hugging Face hub: which tensor is in which shard.

use crate::{Error, TensorSpec};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How the name of an index ends.
pub(crate) const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// The longest index: as long as the longest header, which names the tensors of one file.
const INDEX_BYTES_MAX: u64 = 100_000_000;

/// What to do about an index that is wrong in itself.
const GET_AGAIN: &str = "get it again from where it came, or import the model's files by themselves";

/// What an index says.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Index {
    metadata: Option<Totals>,
    /// The file of each tensor.
    weight_map: WeightMap,
}

/// What an index says of all shards. It may say more: how many parameters there are, and what else its writer liked.
#[derive(Debug, serde::Deserialize)]
struct Totals {
    /// The tensors' bytes. Some writers divided, and made it a fraction.
    total_size: Option<serde_json::Number>,
}

#[derive(Debug)]
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WeightMap, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

/// Of a key that comes twice serde would keep the last: readers that keep the first would see another model.
struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map from the names of tensors to those of files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut files = BTreeMap::new();
        while let Some((tensor, file)) = map.next_entry::<String, String>()? {
            if files.contains_key(&tensor) {
                return Err(serde::de::Error::custom(format_args!("tensor {tensor:?} is in it twice")));
            }
            files.insert(tensor, file);
        }
        Ok(WeightMap(files))
    }
}

impl Index {
    /// Reads and checks an index.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Index`].
    pub(crate) fn read(path: &Path) -> Result<Index, Error> {
        let failed = |doing| move |source| Error::File { doing, path: path.to_owned(), source };
        let mut text = Vec::new();
        // One byte more shows that there is more.
        let mut file = File::open(path).map_err(failed("opening"))?.take(INDEX_BYTES_MAX + 1);
        file.read_to_end(&mut text).map_err(failed("reading"))?;
        Index::parse(&text)
            .map_err(|what| Error::Index { path: path.to_owned(), what: format!("{what}; {GET_AGAIN}") })
    }

    fn parse(text: &[u8]) -> Result<Index, String> {
        if text.len() as u64 > INDEX_BYTES_MAX {
            return Err(format!("it has more than {INDEX_BYTES_MAX} bytes, which is the most"));
        }
        let index: Index = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let WeightMap(files) = &index.weight_map;
        if files.is_empty() {
            return Err("it names no tensors".to_owned());
        }
        // An index comes from elsewhere: it must not name files that its reader did not mean to open.
        let is_name =
            |file: &str| Path::new(file).file_name() == Some(OsStr::new(file)) && !file.contains('\0');
        let strange = files.iter().find(|(_, file)| !is_name(file));
        match strange {
            Some((tensor, file)) => Err(format!(
                "the file of tensor {tensor:?} is {file:?}, which is no name of a file beside it"
            )),
            None => Ok(index),
        }
    }

    /// The names of the shards, sorted, and how many tensors each has.
    pub(crate) fn shards(&self) -> BTreeMap<&str, usize> {
        let mut shards = BTreeMap::new();
        for file in self.weight_map.0.values() {
            *shards.entry(file.as_str()).or_default() += 1;
        }
        shards
    }

    /// The bytes of all tensors, if the index says so.
    pub(crate) fn total_bytes(&self) -> Option<u64> {
        let number = self.metadata.as_ref()?.total_size.as_ref()?;
        number.as_u64().or_else(|| number.as_f64().map(|bytes| bytes as u64))
    }

    /// What is wrong when `shard`, which should have so many tensors, has these.
    pub(crate) fn compare(&self, shard: &str, tensors: usize, specs: &[TensorSpec]) -> Result<(), String> {
        let WeightMap(files) = &self.weight_map;
        for TensorSpec { name, .. } in specs {
            match files.get(name) {
                Some(file) if file == shard => {}
                Some(file) => return Err(format!("it has tensor {name:?}, which the index has in {file:?}")),
                None => return Err(format!("it has tensor {name:?}, which the index does not name")),
            }
        }
        if specs.len() == tensors {
            return Ok(());
        }
        let found: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let mut wanted = files.iter().filter(|(_, file)| *file == shard).map(|(tensor, _)| tensor);
        wanted
            .find(|tensor| !found.contains(tensor.as_str()))
            .map_or(Ok(()), |tensor| Err(format!("it has no tensor {tensor:?}, which the index has in it")))
    }
}

/// The text of an index: the file of each tensor, and the bytes of all tensors.
pub(crate) fn build(files: &BTreeMap<&str, &str>, total_bytes: u64) -> Result<Vec<u8>, String> {
    let index = serde_json::json!({ "metadata": { "total_size": total_bytes }, "weight_map": files });
    let mut text = serde_json::to_vec_pretty(&index).map_err(|error| error.to_string())?;
    text.push(b'\n');
    match text.len() as u64 {
        bytes if bytes > INDEX_BYTES_MAX => Err(format!(
            "it would have {bytes} bytes, and {INDEX_BYTES_MAX} is the most: export larger shards, or one file"
        )),
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_index_is_written_as_the_hub_writes_it() {
        let files = [("b", "m-2"), ("a", "m-1")].into();
        let text = String::from_utf8(build(&files, 7).unwrap()).unwrap();
        let expected = "{\n  \"metadata\": {\n    \"total_size\": 7\n  },\n  \"weight_map\": {\n    \"a\": \"m-1\",\n    \
                        \"b\": \"m-2\"\n  }\n}\n";
        assert_eq!(text, expected);
        let back = Index::parse(text.as_bytes()).unwrap();
        assert_eq!(back.shards(), [("m-1", 1), ("m-2", 1)].into());
        assert_eq!(back.total_bytes(), Some(7));
    }

    #[test]
    fn an_index_that_could_not_be_read_is_not_written() {
        let name = "x".repeat(INDEX_BYTES_MAX as usize);
        assert!(build(&[(name.as_str(), "m")].into(), 0).unwrap_err().contains("larger shards"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed(text in "[ -~]{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Index::parse(text.as_bytes());
            let _ = Index::parse(&bytes);
        }

        #[test]
        fn an_index_that_is_cut_or_changed_is_refused_or_parsed(cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = build(&[("a.\"0", "m-1"), ("b", "m-2")].into(), 7).unwrap();
            let place = cut.index(text.len() - 1);
            prop_assert!(Index::parse(&text[..place]).is_err());
            text[place] = byte;
            if let Ok(index) = Index::parse(&text) {
                prop_assert!(index.shards().keys().all(|shard| !shard.contains('/')));
            }
        }
    }
}
