//! Contents that follow from (tensor, version, place), so that every byte read can be checked.
//!
//! A tensor is a row of 32-bit lanes; lane `i` is `xorshift32(start + i * STRIDE)`, where `start` follows from the
//! tensor and the version. xorshift32 is one to one, so two versions of a tensor differ in every lane. Lanes are
//! made sixteen at a time with adds, shifts and xors alone, which baseline SSE2 has for 32-bit lanes.

/// 2^32 divided by the golden ratio, odd: multiples of it go through all 32-bit values (Weyl's sequence).
const STRIDE: u32 = 0x9E37_79B9;
/// Any odd number keeps the starts of neighbouring versions apart; this one is from MurmurHash3's finaliser.
const VERSION_STRIDE: u32 = 0x85EB_CA6B;
/// Lanes made at once: four SSE2 registers.
const LANES: usize = 16;
/// Bytes of those lanes.
const CHUNK_BYTES: usize = LANES * 4;

/// What the bytes of a tensor look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Random bits.
    Bits,
    /// fp32 numbers in [1, 2), from 23 random bits each.
    Float,
    /// The same numbers as bf16, rounded to nearest even.
    Cast,
}

/// The contents of one version of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    kind: Kind,
    start: u32,
}

/// Where bytes were not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// How many bytes differ.
    pub bytes: u64,
    /// Offset in the tensor of the first one.
    pub first_offset: u64,
}

impl Mismatch {
    /// Both together, where either may be nothing; `self` comes first in the tensor.
    pub fn join(first: Option<Self>, second: Option<Self>) -> Option<Self> {
        match (first, second) {
            (Some(a), Some(b)) => Some(Self { bytes: a.bytes + b.bytes, first_offset: a.first_offset }),
            (a, b) => a.or(b),
        }
    }
}

impl Contents {
    /// Contents of version `version` of the tensor with this seed. A cast copy has its source's seed and version.
    pub fn new(kind: Kind, seed: u64, version: u64) -> Self {
        // The finaliser of splitmix64 (Steele, Lea, Flood 2014): seeds that differ little start far apart.
        let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let start = ((z ^ (z >> 31)) as u32).wrapping_add((version as u32).wrapping_mul(VERSION_STRIDE));
        Self { kind, start }
    }

    /// Fills `part`, which lies at `offset` in the tensor.
    pub fn fill(&self, part: &mut [u8], offset: u64) {
        match self.kind {
            Kind::Bits => fill::<Bits>(self.start, part, offset),
            Kind::Float => fill::<Float>(self.start, part, offset),
            Kind::Cast => fill::<Cast>(self.start, part, offset),
        }
    }

    /// Compares `part`, which lies at `offset` in the tensor, with what it should be.
    pub fn check(&self, part: &[u8], offset: u64) -> Option<Mismatch> {
        match self.kind {
            Kind::Bits => check::<Bits>(self.start, part, offset),
            Kind::Float => check::<Float>(self.start, part, offset),
            Kind::Cast => check::<Cast>(self.start, part, offset),
        }
    }
}

/// How four bytes of a tensor come from the sequence of lanes.
trait Word {
    /// Lanes that one word takes.
    const LANES: u32;
    /// The word whose first lane has this state.
    fn word(state: u32) -> u32;
}

fn xorshift32(state: u32) -> u32 {
    let x = state ^ (state << 13);
    let x = x ^ (x >> 17);
    x ^ (x << 5)
}

struct Bits;
struct Float;
struct Cast;

impl Word for Bits {
    const LANES: u32 = 1;
    fn word(state: u32) -> u32 {
        xorshift32(state)
    }
}

impl Word for Float {
    const LANES: u32 = 1;
    fn word(state: u32) -> u32 {
        0x3F80_0000 | (xorshift32(state) >> 9)
    }
}

impl Word for Cast {
    const LANES: u32 = 2;
    fn word(state: u32) -> u32 {
        round_to_bf16(Float::word(state)) | (round_to_bf16(Float::word(state.wrapping_add(STRIDE))) << 16)
    }
}

/// The upper half of an fp32 number's bits, rounded to nearest even; right for every finite number.
fn round_to_bf16(bits: u32) -> u32 {
    (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
}

fn state_at<W: Word>(start: u32, word: u64) -> u32 {
    start.wrapping_add((word as u32).wrapping_mul(STRIDE.wrapping_mul(W::LANES)))
}

/// The bytes of a tensor from `offset` on that share one word, or are left over at the end of a part.
fn edge<W: Word>(start: u32, offset: u64, out: &mut [u8]) {
    for (place, byte) in (offset..).zip(out) {
        let word = W::word(state_at::<W>(start, place / 4)).to_le_bytes();
        *byte = word[(place % 4) as usize];
    }
}

/// The states of sixteen words in a row, moved on together.
struct States<W>([u32; LANES], std::marker::PhantomData<W>);

impl<W: Word> States<W> {
    fn at(start: u32, word: u64) -> Self {
        Self(std::array::from_fn(|i| state_at::<W>(start, word + i as u64)), std::marker::PhantomData)
    }

    fn step(&mut self) {
        let step = STRIDE.wrapping_mul(W::LANES).wrapping_mul(LANES as u32);
        for state in &mut self.0 {
            *state = state.wrapping_add(step);
        }
    }
}

/// How many of the next bytes come before the next word.
fn head_bytes(offset: u64, bytes: usize) -> usize {
    ((4 - offset % 4) % 4).min(bytes as u64) as usize
}

fn fill<W: Word>(start: u32, part: &mut [u8], offset: u64) {
    let (head, rest) = part.split_at_mut(head_bytes(offset, part.len()));
    edge::<W>(start, offset, head);
    let offset = offset + head.len() as u64;
    let mut states = States::<W>::at(start, offset / 4);
    let (chunks, tail) = rest.as_chunks_mut::<CHUNK_BYTES>();
    for chunk in &mut *chunks {
        for (out, state) in chunk.as_chunks_mut::<4>().0.iter_mut().zip(&states.0) {
            *out = W::word(*state).to_le_bytes();
        }
        states.step();
    }
    edge::<W>(start, offset + (chunks.len() * CHUNK_BYTES) as u64, tail);
}

fn check<W: Word>(start: u32, part: &[u8], offset: u64) -> Option<Mismatch> {
    let (head, rest) = part.split_at(head_bytes(offset, part.len()));
    let mut found = check_slowly::<W>(start, head, offset);
    let mut offset = offset + head.len() as u64;
    let mut states = States::<W>::at(start, offset / 4);
    let (chunks, tail) = rest.as_chunks::<CHUNK_BYTES>();
    for chunk in chunks {
        let mut differing = 0;
        for (word, state) in chunk.as_chunks::<4>().0.iter().zip(&states.0) {
            differing |= u32::from_le_bytes(*word) ^ W::word(*state);
        }
        if differing != 0 {
            found = Mismatch::join(found, check_slowly::<W>(start, chunk, offset));
        }
        states.step();
        offset += CHUNK_BYTES as u64;
    }
    Mismatch::join(found, check_slowly::<W>(start, tail, offset))
}

/// Byte by byte, for ends of parts and for chunks that are known to be wrong.
fn check_slowly<W: Word>(start: u32, part: &[u8], offset: u64) -> Option<Mismatch> {
    let mut expected = [0; CHUNK_BYTES];
    let expected = &mut expected[..part.len()];
    edge::<W>(start, offset, expected);
    compare(part, expected, offset)
}

/// Compares two parts of the same length that lie at `offset` in a tensor.
pub fn compare(part: &[u8], expected: &[u8], offset: u64) -> Option<Mismatch> {
    if part == expected {
        return None;
    }
    let differing =
        || part.iter().zip(expected).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at as u64);
    differing()
        .next()
        .map(|first| Mismatch { bytes: differing().count() as u64, first_offset: offset + first })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [Kind; 3] = [Kind::Bits, Kind::Float, Kind::Cast];

    fn whole(kind: Kind, version: u64) -> Vec<u8> {
        let mut bytes = vec![0; 5000];
        Contents::new(kind, 7, version).fill(&mut bytes, 0);
        bytes
    }

    #[test]
    fn floats_are_in_range_and_their_cast_is_that_of_half() {
        let floats = whole(Kind::Float, 3);
        let casts = whole(Kind::Cast, 3);
        for (float, cast) in floats.chunks_exact(4).zip(casts.chunks_exact(2)) {
            let float = f32::from_le_bytes(float.try_into().unwrap());
            assert!((1.0..2.0).contains(&float), "{float}");
            assert_eq!(half::bf16::from_f32(float).to_le_bytes(), cast);
        }
    }

    #[test]
    fn rounding_is_that_of_half_for_every_mantissa() {
        for bits in 0x3F80_0000..0x4000_0000_u32 {
            let right = half::bf16::from_f32(f32::from_bits(bits)).to_bits();
            assert_eq!(round_to_bf16(bits), u32::from(right), "{bits:#x}");
        }
    }

    #[test]
    fn versions_and_tensors_differ_almost_everywhere() {
        for kind in KINDS {
            let one = whole(kind, 1);
            assert!(Contents::new(kind, 7, 2).check(&one, 0).unwrap().bytes > 1500, "{kind:?}");
            assert!(Contents::new(kind, 8, 1).check(&one, 0).unwrap().bytes > 1500, "{kind:?}");
            assert!(Contents::new(kind, 7, 1).check(&one, 64).unwrap().bytes > 1500, "{kind:?}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_cut_from_the_whole(kind in 0usize..3, offset in 0usize..300, bytes in 0usize..400) {
            let (kind, contents) = (KINDS[kind], Contents::new(KINDS[kind], 7, 9));
            let whole = whole(kind, 9);
            let mut part = vec![0; bytes];
            contents.fill(&mut part, offset as u64);
            prop_assert_eq!(&part[..], &whole[offset..offset + bytes]);
            prop_assert_eq!(contents.check(&part, offset as u64), None);
        }

        #[test]
        fn every_flipped_byte_is_counted(kind in 0usize..3, offset in 0u64..300, bytes in 1usize..400,
                                         flips in proptest::collection::btree_set(0usize..400, 1..5)) {
            let contents = Contents::new(KINDS[kind], 7, 9);
            let mut part = vec![0; bytes];
            contents.fill(&mut part, offset);
            let flips: Vec<usize> = flips.into_iter().map(|flip| flip % bytes).collect::<std::collections::BTreeSet<_>>()
                .into_iter().collect();
            for &flip in &flips {
                part[flip] ^= 0x10;
            }
            let expected = Mismatch { bytes: flips.len() as u64, first_offset: offset + flips[0] as u64 };
            prop_assert_eq!(contents.check(&part, offset), Some(expected));
        }
    }

    /// Not a test of time: prints what fills and checks run at, to be read by a person.
    #[test]
    #[ignore = "prints a measurement"]
    fn measure() {
        let mut bytes = vec![0_u8; 64 << 20];
        for kind in KINDS {
            let contents = Contents::new(kind, 7, 9);
            let begin = std::time::Instant::now();
            (0..8).for_each(|_| contents.fill(&mut bytes, 0));
            let filled = begin.elapsed().as_secs_f64();
            let begin = std::time::Instant::now();
            (0..8).for_each(|_| assert_eq!(contents.check(&bytes, 0), None));
            let checked = begin.elapsed().as_secs_f64();
            let gigabytes = 8.0 * bytes.len() as f64 / 1e9;
            println!("{kind:?}: fill {:.1} GB/s, check {:.1} GB/s", gigabytes / filled, gigabytes / checked);
        }
    }
}
