//! Journals without their padding, so that a mutation hits something: a byte of choices, then for each batch its length
//! in two bytes and its bytes.

/// The journal that packed bytes are. Where the first bit of the choices is 0 its checksums are made right, as nothing but
/// the right ones would get past them.
pub fn unpack(packed: &[u8]) -> Vec<u8> {
    let (choices, mut rest) = packed.split_first().map_or((0, packed), |(first, rest)| (*first, rest));
    let mut journal = hoist_format::preamble();
    while let Some((length, bytes)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(bytes.len());
        let (batch, others) = bytes.split_at(length);
        let start = journal.len();
        journal.extend_from_slice(batch);
        if choices & 1 == 0 {
            repair(&mut journal[start..]);
        }
        hoist_format::pad_batch(&mut journal);
        rest = others;
    }
    journal
}

/// Gives each frame its checksum, as far as their lengths lead.
fn repair(mut frames: &mut [u8]) {
    while let Some((head, rest)) = frames.split_at_mut_checked(hoist_format::FRAME_HEAD_BYTES) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some((payload, others)) = rest.split_at_mut_checked(length) else { return };
        let mut sums = Vec::new();
        // A batch here is shorter than what one checksum covers.
        hoist_format::checksum([&head[..24], payload].into_iter(), &mut sums);
        if let [sum] = sums[..] {
            head[24..32].copy_from_slice(&sum.to_le_bytes());
        }
        frames = others;
    }
}
