//! Records to payload bytes and back: all that knows bincode. `wincode` reads the same bytes, should bincode go.

use crate::{Error, RECORD_BYTES_MAX, Record};
use bincode::config::{Configuration, Fixint, Limit, LittleEndian};

type Codec = Configuration<LittleEndian, Fixint, Limit<{ RECORD_BYTES_MAX as usize }>>;

/// The limit bounds what decoding may allocate, whatever lengths the bytes claim.
fn codec() -> Codec {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit()
}

/// Appends the payload of `record` to `out`.
pub(crate) fn encode(record: &Record, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    bincode::serde::encode_into_std_write(record, out, codec())
        .map_err(|error| Error::BadRecord { what: error.to_string() })?;
    if (out.len() - start) as u64 > RECORD_BYTES_MAX {
        out.truncate(start);
        return Err(Error::RecordTooLarge { limit: RECORD_BYTES_MAX });
    }
    Ok(())
}

/// The record that `payload` is, wholly.
pub(crate) fn decode(payload: &[u8]) -> Result<Record, Error> {
    let bad = |what: String| Error::BadRecord { what };
    let (record, used) =
        bincode::serde::decode_from_slice(payload, codec()).map_err(|error| bad(error.to_string()))?;
    if used != payload.len() {
        return Err(bad(format!("{} bytes are left over", payload.len() - used)));
    }
    Ok(record)
}
