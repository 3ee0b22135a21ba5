//! Lays tensors out in runs. Pure: the same tensors give the same runs.

use crate::few::Few;
use crate::sources::Sources;
use crate::{Life, RunId, RunInfo, TensorId, TensorInfo, TensorSpec};
use hoist_format::{Class, LifeKind, SourcePlace, SourceRecord};
use std::collections::HashMap;
use std::sync::Arc;

/// Smaller tensors travel in bundles: DESIGN.md, "bundle": everything under one page of 1 MiB.
pub const BUNDLED_BYTES_MAX: u64 = 1 << 20;

/// Members of a bundle start at multiples of this: enough for any vector load or device copy.
pub const BUNDLE_ALIGN_BYTES: u64 = 256;

/// Most tensors of a store: ids are 32 bits wide.
pub const TENSORS_MAX: usize = u32::MAX as usize;

/// The longest name of a tensor or group: far above any model's, and it bounds the size of a record.
pub const NAME_BYTES_MAX: usize = 4096;

/// Most dimensions of a tensor: NumPy and PyTorch stop at 64.
pub const DIMENSIONS_MAX: usize = 64;

/// Tensors and runs, laid out.
pub(crate) struct Layout {
    pub tensors: Vec<TensorInfo>,
    pub runs: Vec<RunInfo>,
    /// Ids of tensors in order of their names, for the search by name without a second copy of the names.
    pub by_name: Vec<TensorId>,
    /// Where bytes lie that the store has not itself.
    pub sources: Sources,
}

/// All tensors of a store: one copy, for whoever needs them on other threads.
#[derive(Clone)]
pub struct Tensors(pub(crate) Arc<Layout>);

impl Tensors {
    /// In order of creation; a [`TensorId`] is a place in it.
    #[must_use]
    pub fn all(&self) -> &[TensorInfo] {
        &self.0.tensors
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<TensorId> {
        self.0.find(name)
    }
}

/// What is wrong with one tensor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub tensor: String,
    pub what: String,
}

impl Layout {
    /// Lays `specs` out in order of creation.
    pub fn new(specs: &[TensorSpec]) -> Result<Layout, Wrong> {
        Layout::over(Vec::new(), (&[], &[]), specs)
    }

    /// The same behind those of `sourced` specs, whose bytes lie in these files at these places.
    pub fn over(
        files: Vec<SourceRecord>,
        (sourced, places): (&[TensorSpec], &[SourcePlace]),
        specs: &[TensorSpec],
    ) -> Result<Layout, Wrong> {
        let (tensors, runs) = (Vec::with_capacity(sourced.len() + specs.len()), Vec::new());
        let sources = Sources { files, places: (0..).map(TensorId).zip(places.iter().copied()).collect() };
        let mut layout = Layout { tensors, runs, by_name: Vec::new(), sources };
        let mut bundles: HashMap<(&str, Class, LifeKind, bool), RunId> = HashMap::new();
        let all = sourced.iter().map(|spec| (spec, true)).chain(specs.iter().map(|spec| (spec, false)));
        for (spec, is_sourced) in all {
            let wrong = |what: String| Wrong { tensor: spec.name.clone(), what };
            if spec.name.is_empty() {
                return Err(wrong("its name is empty".into()));
            }
            if spec.name.len().max(spec.group.len()) > NAME_BYTES_MAX {
                return Err(wrong(format!("its name or group is longer than {NAME_BYTES_MAX} bytes")));
            }
            if spec.shape.len() > DIMENSIONS_MAX {
                return Err(wrong(format!(
                    "it has {} dimensions, {DIMENSIONS_MAX} is the most",
                    spec.shape.len()
                )));
            }
            if layout.tensors.len() == TENSORS_MAX {
                return Err(wrong(format!("a store holds at most {TENSORS_MAX} tensors")));
            }
            let bytes = spec.bytes().ok_or_else(|| {
                wrong(format!(
                    "{:?} elements of {} are no whole number of bytes under 2^61",
                    spec.shape, spec.dtype
                ))
            })?;
            spec.shard.iter().try_for_each(|shard| shard.check(spec.dtype, &spec.shape)).map_err(wrong)?;
            let key = (spec.group.as_str(), spec.class, spec.life.kind(), is_sourced);
            let run = if bytes < BUNDLED_BYTES_MAX {
                *bundles.entry(key).or_insert_with(|| layout.add_run(spec))
            } else {
                layout.add_run(spec)
            };
            layout.add_tensor(spec.clone(), run, bytes);
        }
        layout.index()?;
        layout.check_sources()?;
        Ok(layout)
    }

    fn add_run(&mut self, spec: &TensorSpec) -> RunId {
        let run = RunId(self.runs.len() as u32);
        let (class, life) = (spec.class, spec.life.kind());
        self.runs.push(RunInfo { bytes: 0, class, life, tensors: Few::default() });
        run
    }

    fn add_tensor(&mut self, spec: TensorSpec, run: RunId, bytes: u64) {
        let members = &mut self.runs[run.0 as usize];
        let offset = members.bytes.next_multiple_of(BUNDLE_ALIGN_BYTES);
        members.bytes = offset + bytes;
        members.tensors.push(TensorId(self.tensors.len() as u32));
        self.tensors.push(TensorInfo { spec, run, offset, bytes });
    }

    /// Fills `by_name`; a name that is there twice is refused.
    pub fn index(&mut self) -> Result<(), Wrong> {
        let tensors = &self.tensors;
        let name = |id: &TensorId| tensors[id.0 as usize].spec.name.as_str();
        let mut by_name: Vec<_> = (0..tensors.len() as u32).map(TensorId).collect();
        by_name.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        if let Some(twins) = by_name.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
            return Err(Wrong { tensor: name(&twins[0]).into(), what: "its name is given twice".into() });
        }
        self.by_name = by_name;
        Ok(())
    }

    /// The tensor called `name`.
    pub fn find(&self, name: &str) -> Option<TensorId> {
        let place =
            self.by_name.binary_search_by(|id| self.tensors[id.0 as usize].spec.name.as_str().cmp(name));
        Some(self.by_name[place.ok()?])
    }

    /// A derived tensor's source is durable, is there, and has the same shape and shard.
    fn check_sources(&self) -> Result<(), Wrong> {
        for TensorInfo { spec, .. } in &self.tensors {
            let Life::Derived { from } = &spec.life else { continue };
            let source = self.find(from).map(|id| &self.tensors[id.0 as usize].spec);
            let what = match source {
                None => format!("its source {from:?} is no tensor of this store"),
                Some(source) if source.life != Life::Durable => format!("its source {from:?} is not durable"),
                Some(source) if source.shape != spec.shape => {
                    format!(
                        "its shape {:?} is not that of its source {from:?}, {:?}",
                        spec.shape, source.shape
                    )
                }
                Some(source) if source.shard != spec.shard => {
                    format!(
                        "its shard {:?} is not that of its source {from:?}, {:?}",
                        spec.shard, source.shard
                    )
                }
                Some(_) => continue,
            };
            return Err(Wrong { tensor: spec.name.clone(), what });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shard;
    use hoist_format::Dtype;

    fn spec(name: &str, bytes: u64, class: Class, life: Life, group: &str) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            dtype: Dtype::U8,
            shape: vec![bytes],
            class,
            life,
            group: group.into(),
            shard: None,
        }
    }

    fn parameter(name: &str, bytes: u64, group: &str) -> TensorSpec {
        spec(name, bytes, Class::Parameter, Life::Durable, group)
    }

    #[test]
    fn small_tensors_of_a_group_class_and_life_share_a_run() {
        let specs = [
            parameter("a", 100, "0"),
            parameter("large", 1 << 20, "0"),
            parameter("b", 300, "0"),
            parameter("other group", 7, "1"),
            spec("other class", 8, Class::Gradient, Life::Durable, "0"),
            spec("other life", 9, Class::Parameter, Life::Scratch, "0"),
            parameter("empty", 0, "0"),
        ];
        let layout = Layout::new(&specs).unwrap();
        let places: Vec<_> = layout.tensors.iter().map(|t| (t.run.0, t.offset, t.bytes)).collect();
        assert_eq!(
            places,
            [(0, 0, 100), (1, 0, 1 << 20), (0, 256, 300), (2, 0, 7), (3, 0, 8), (4, 0, 9), (0, 768, 0)]
        );
        assert_eq!(layout.runs[0].bytes, 768);
        assert_eq!(layout.runs[0].tensors[..], [TensorId(0), TensorId(2), TensorId(6)]);
        assert_eq!(layout.find("b"), Some(TensorId(2)));
        assert_eq!(layout.find("c"), None);
    }

    #[test]
    fn wrong_tensors_are_named() {
        let wrong =
            |specs: &[TensorSpec]| Layout::new(specs).err().map(|wrong| wrong.what).unwrap_or_default();
        assert!(wrong(&[parameter("a", 1, ""), parameter("a", 2, "")]).contains("twice"));
        assert!(wrong(&[parameter("", 1, "")]).contains("empty"));
        let huge = TensorSpec { shape: vec![u64::MAX, 2], ..parameter("a", 1, "") };
        assert!(wrong(&[huge]).contains("whole number"));
        let derived = |from: &str| Life::Derived { from: from.into() };
        let cast = |from| spec("cast", 5, Class::Parameter, derived(from), "");
        assert!(wrong(&[cast("a")]).contains("no tensor"));
        assert!(wrong(&[cast("a"), parameter("a", 6, "")]).contains("shape"));
        let scratch = spec("s", 5, Class::Parameter, Life::Scratch, "");
        assert!(wrong(&[cast("s"), scratch]).contains("not durable"));
        assert_eq!(wrong(&[cast("a"), parameter("a", 5, "")]), "");
        let shard = |start| Some(Box::new(Shard { shape: vec![3, 4], start }));
        let [a, b] = [7, 6].map(|start| TensorSpec { shard: shard(start), ..parameter("a", 5, "") });
        assert!(wrong(&[cast("a"), a.clone()]).contains("its shard None"));
        let derived = TensorSpec { shard: shard(7), ..cast("a") };
        assert!(wrong(&[derived.clone(), b]).contains("its shard"));
        assert_eq!(wrong(&[derived, a]), "");
    }

    #[test]
    fn shards_lie_within_their_wholes() {
        let wrong = |dtype, own: u64, whole: &[u64], start| {
            let shard = Some(Box::new(Shard { shape: whole.to_vec(), start }));
            let spec = TensorSpec { shard, dtype, ..parameter("a", own, "") };
            Layout::new(&[spec]).err().map(|wrong| wrong.what).unwrap_or_default()
        };
        assert_eq!(wrong(Dtype::U8, 5, &[3, 4], 7), "");
        assert_eq!(wrong(Dtype::U8, 0, &[3, 4], 12), "");
        assert_eq!(wrong(Dtype::U8, 0, &[3, 0], 0), "");
        assert!(wrong(Dtype::U8, 5, &[3, 4], 8).contains("not within"));
        assert!(wrong(Dtype::U8, 5, &[3, 4], u64::MAX - 2).contains("not within"));
        assert!(wrong(Dtype::U8, 5, &[1 << 33, 1 << 33], 0).contains("whole number"));
        assert!(wrong(Dtype::F64, 5, &[1 << 59], 0).contains("whole number"), "its bits overflow");
        assert!(wrong(Dtype::U8, 5, &[1; DIMENSIONS_MAX + 1], 0).contains("dimensions"));
        assert!(wrong(Dtype::F4, 2, &[4], 1).contains("begin with a byte"));
        assert_eq!(wrong(Dtype::F4, 2, &[4], 2), "");
    }
}
