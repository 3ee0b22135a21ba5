//! What can be wrong with bytes that should be a journal.

/// Why bytes are no journal of this version, or why a record cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The preamble does not hold the magic number, or its checksum does not match.
    #[error("not a hoist journal: the first {} bytes hold no valid preamble", crate::journal::PREAMBLE_BYTES)]
    NotAJournal,
    /// The journal was written in another version of the format.
    #[error(
        "the journal has format version {found}, this hoist reads version {supported}: use the hoist that wrote it"
    )]
    OtherVersion {
        /// The version in the preamble.
        found: u32,
        /// [`crate::FORMAT_VERSION`].
        supported: u32,
    },
    /// A record's payload is larger than [`crate::RECORD_BYTES_MAX`].
    #[error("a record would take more than {limit} bytes: split it")]
    RecordTooLarge {
        /// [`crate::RECORD_BYTES_MAX`].
        limit: u64,
    },
    /// The frame is cut short, or its length or checksum is wrong.
    #[error("no valid frame: {what}")]
    BadFrame {
        /// What was wrong with it.
        what: &'static str,
    },
    /// The payload has a valid checksum, and still is no record: it was written by something else.
    #[error("the payload of a frame is no record: {what}")]
    BadRecord {
        /// What the codec says.
        what: String,
    },
}
