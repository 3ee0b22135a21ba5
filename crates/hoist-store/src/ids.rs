//! Requests' ids as the directories' threads have them: a completion says by its id who asked, and whom.

use hoist_io::RequestId;

/// Callers' ids are below: 2^48 requests are 3 years at 3 million a second.
pub(crate) const CALLER_IDS: RequestId = 1 << 48;

/// Set in the ids of the store's own requests.
pub(crate) const OWN_ID: RequestId = 1 << 63;

/// How many directories the bits between have room for.
const DIRECTORIES_MAX: usize = 1 << 15;

/// The id of a request's part in one directory.
pub(crate) fn in_directory(id: RequestId, directory: usize) -> RequestId {
    assert!(directory < DIRECTORIES_MAX, "there is no directory {directory}");
    id | (directory as RequestId) << 48
}

/// The directory and the id that [`in_directory`] was given.
pub(crate) fn split(id: RequestId) -> (usize, RequestId) {
    let directory = (id & !OWN_ID) >> 48;
    (directory as usize, id & (OWN_ID | (CALLER_IDS - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back() {
        for id in [0, 7, CALLER_IDS - 1, OWN_ID, OWN_ID | 9] {
            for directory in [0, 1, 255, DIRECTORIES_MAX - 1] {
                assert_eq!(split(in_directory(id, directory)), (directory, id));
            }
        }
    }
}
