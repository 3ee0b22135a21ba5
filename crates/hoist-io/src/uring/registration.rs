//! Registering a slab's memory with rings: once for all of them where the kernel can, else once for each.

use super::probe::build;
use crate::core::Part;
use crate::{Obtained, advice};
use hoist_memory::{Piece, Slab};
use io_uring::IoUring;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The slabs that are registered for all of their rings. A lock between threads, which is taken when a ring opens only.
static SOURCES: Mutex<Vec<Weak<Source>>> = Mutex::new(Vec::new());

/// A ring that does nothing but hold a slab's registration, for the slab's rings to clone. Not one of those: the kernel
/// refuses with EEXIST to clone from a ring that another thread has for itself (SINGLE_ISSUER; measured on 6.18). And
/// nothing is ever in flight here, so that it may close at any time; what was cloned from it stays.
struct Source {
    ring: IoUring,
    /// Keeps what is registered mapped, and another slab from getting the same address.
    slab: Arc<Slab>,
}

/// The memory that transfers of a ring name by number, so that the kernel need not look its pages up. To be dropped
/// after the ring.
pub(super) struct Registration {
    /// By number; none where the kernel refused.
    pieces: Vec<Piece>,
    /// Kept for rings that open later.
    _source: Option<Arc<Source>>,
    /// Keeps what is registered mapped until the ring is gone.
    _slab: Arc<Slab>,
}

/// Which call was refused.
enum Refused {
    Clone(io::Error),
    Register(io::Error),
}

impl Registration {
    /// Registers the slab with a ring that has nothing registered. A refusal is a step down.
    pub(super) fn new(ring: &IoUring, slab: &Arc<Slab>, obtained: &mut Obtained) -> Registration {
        let (source, registered) = match Source::lend(ring, slab) {
            Ok(source) => (Some(source), Ok(())),
            Err(Refused::Register(cause)) => (None, Err(cause)),
            Err(Refused::Clone(cause)) => {
                let registered = register(ring, slab).inspect(|()| {
                    obtained.step_down(format!(
                        "memory counts as pinned once per ring: IORING_REGISTER_CLONE_BUFFERS (Linux 6.12): {cause}"
                    ));
                });
                (None, registered)
            }
        };
        let pieces: Vec<_> = slab.pieces().collect();
        let pieces = registered.map(|()| pieces).unwrap_or_else(|cause| {
            let advice = advice::for_registration(&cause);
            obtained.registration_advice.get_or_insert(advice);
            obtained.step_down(format!(
                "unregistered memory: IORING_REGISTER_BUFFERS of {} pieces: {cause} ({advice})",
                slab.pieces().count(),
            ));
            Vec::new()
        });
        obtained.registered_pieces = pieces.len() as u32;
        obtained.registered_once = source.is_some();
        Registration { pieces, _source: source, _slab: Arc::clone(slab) }
    }

    /// The registered buffer that a part lies in. A slot of another slab has a piece number, too, but not our address.
    pub(super) fn index_of(&self, part: &Part) -> Option<u16> {
        let piece = self.pieces.get(part.piece? as usize)?;
        let inside = piece.address <= part.address
            && part.address + part.bytes as usize <= piece.address + piece.bytes;
        inside.then_some(piece.index as u16)
    }
}

impl Source {
    /// Gives a ring the slab's registration, which is made for the first one.
    fn lend(ring: &IoUring, slab: &Arc<Slab>) -> Result<Arc<Source>, Refused> {
        // A list is whole whenever the lock is let go.
        let mut sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|source| source.strong_count() > 0);
        let open = sources.iter().filter_map(Weak::upgrade).find(|source| Arc::ptr_eq(&source.slab, slab));
        let source = match open {
            Some(source) => source,
            None => {
                let source = Arc::new(Source::open(ring, slab)?);
                sources.push(Arc::downgrade(&source));
                source
            }
        };
        clone(ring, &source).map_err(Refused::Clone)?;
        Ok(source)
    }

    fn open(ring: &IoUring, slab: &Arc<Slab>) -> Result<Source, Refused> {
        let source = Source { ring: build(1, &["CLAMP"]).map_err(Refused::Clone)?, slab: Arc::clone(slab) };
        // Tried while there is nothing to clone (ENXIO says so; an older kernel says EINVAL): what is pinned for a ring
        // that then is of no use counts against the limit until some time after it is closed.
        match clone(ring, &source) {
            Err(error) if error.raw_os_error() != Some(libc::ENXIO) => Err(Refused::Clone(error)),
            _ => register(&source.ring, slab).map_err(Refused::Register).map(|()| source),
        }
    }
}

fn clone(ring: &IoUring, source: &Source) -> io::Result<()> {
    ring.submitter().register_buffers_clone(source.ring.as_raw_fd())
}

/// Registers piece by piece. The caller keeps the slab mapped for as long as the ring lives.
fn register(ring: &IoUring, slab: &Slab) -> io::Result<()> {
    let pieces: Vec<_> = slab
        .pieces()
        .map(|piece| libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(piece.address),
            iov_len: piece.bytes,
        })
        .collect();
    // SAFETY: each piece is mapped, and stays so until the ring is gone: `Source` and `uring::Ring` drop their ring before
    // their `Arc<Slab>`.
    unsafe { ring.submitter().register_buffers(&pieces) }
}
