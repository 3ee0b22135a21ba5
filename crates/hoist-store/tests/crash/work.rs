//! What is done with a store until it ends.

use crate::common::*;
use crate::machine::{End, Machine};
use crate::model::{DURABLE, SCRATCH};
use hoist_io::Operation;
use hoist_store::*;

/// Bytes of notes: records that end in their first block, that can be torn in the middle, and of which a journal has room for
/// two or three, so that it is written anew soon.
const NOTES_BYTES: [usize; 4] = [700, 6_000, 30_000, 400_000];

/// Of a note for which no journal of a store of this size has room: that is 1 MiB.
const NEW_JOURNAL_BYTES: usize = 2 << 20;

impl Machine {
    /// One random thing.
    pub fn step(&mut self) -> Result<(), End> {
        match self.random.below(16) {
            0..7 => self.write_some(),
            7 => self.set_notes(),
            8 => self.keep_epochs(),
            9 => self.write_scratch(),
            10..14 => {
                self.begin_commit()?;
                if self.random.one_in(2) { self.end_commit().map(drop) } else { Ok(()) }
            }
            14 => self.fail_commit(),
            _ if self.random.one_in(4) => Err(End::Killed),
            _ => {
                self.end_commit()?;
                self.roll_back()
            }
        }
    }

    /// Several writes at once, of spans apart.
    fn write_some(&mut self) -> Result<(), End> {
        for _ in 0..1 + self.random.below(3) {
            let run = DURABLE[self.random.below(DURABLE.len() as u64) as usize];
            let whole = self.store().whole(run);
            let first = self.random.below(whole.bytes.div_ceil(BLOCK)) * BLOCK;
            let bytes = (1 + self.random.below(6)) * BLOCK;
            let span = Span { offset: first, bytes: bytes.min(whole.bytes - first), ..whole };
            let seed = self.next_seed();
            match self.store().start_write(span, seed) {
                Ok(id) => drop(self.writes.insert(id, (span, seed))),
                Err(Error::Busy { .. }) => {}
                // Three versions do not fit, nor two where a drive is given up: the epoch goes without it.
                Err(Error::NoSpace { .. }) => self.end_commit().map(drop)?,
                Err(error) => self.expect_cut(&error)?,
            }
        }
        self.end_writes()
    }

    fn write_scratch(&mut self) -> Result<(), End> {
        let (span, seed) = (self.store().whole(SCRATCH), self.next_seed());
        match self.store().start_write(span, seed) {
            Ok(id) => drop(self.writes.insert(id, (span, seed))),
            Err(Error::NoSpace { .. }) => {}
            Err(error) => self.expect_cut(&error)?,
        }
        self.end_writes()
    }

    /// Two notes: a small one, whose record comes first, so that one that is torn behind it shows.
    fn set_notes(&mut self) -> Result<(), End> {
        let large = NOTES_BYTES[self.random.below(NOTES_BYTES.len() as u64) as usize];
        for (key, bytes) in [("first", 10), ("second", large)] {
            let bytes = vec![self.next_seed() as u8; bytes];
            self.model().newest.notes.insert(key.to_owned(), bytes.clone());
            self.store().store.set_note(key, bytes).unwrap();
        }
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), End> {
        match self.store().store.rollback() {
            Ok(()) => self.model().roll_back(),
            Err(error) => self.expect_cut(&error)?,
        }
        Ok(())
    }

    fn begin_commit(&mut self) -> Result<(), End> {
        self.end_commit()?;
        let step = self.next_seed();
        match self.store().store.commit(&Scalars::step(step)) {
            Ok(epoch) => {
                self.model().newest.step = step;
                self.model().begin_commit(epoch);
            }
            Err(error) => self.expect_cut(&error)?,
        }
        Ok(())
    }

    /// A snapshot is made, deleted or gone back to.
    fn keep_epochs(&mut self) -> Result<(), End> {
        self.end_commit()?;
        let name = self.random.below(3).to_string();
        let mut held = self.model().durable.clone();
        let asked = match held.snapshots.get(&name).cloned() {
            None => {
                held.snapshots.insert(name.clone(), held.newest.clone());
                self.store().store.snapshot(&name)
            }
            Some(_) if self.random.one_in(2) => {
                held.snapshots.remove(&name);
                self.store().store.delete_snapshot(&name)
            }
            Some((_, table)) => {
                self.roll_back()?;
                self.model().newest = table.clone();
                held.newest = (held.newest.0 + 1, table);
                self.store().store.rollback_to(&name).map(drop)
            }
        };
        match asked {
            Ok(()) => self.model().under_way = Some(held),
            Err(error) => self.expect_cut(&error)?,
        }
        Ok(())
    }

    /// A commit on drives that fail, one or all of them. Rolled back, or the process is killed first.
    fn fail_commit(&mut self) -> Result<(), End> {
        self.end_commit()?;
        let (operation, file) = match self.random.below(3) {
            0 => (Operation::Sync, ".seg"),
            1 => (Operation::Write, ".journal"),
            _ => (Operation::Sync, ".journal"),
        };
        let folder = if file == ".seg" { "data" } else { "manifest" };
        let first = format!("{}/{folder}", self.path(0));
        self.power.fail(operation, if self.random.one_in(3) { &first } else { file });
        if self.random.one_in(2) {
            self.keep_epochs()?
        } else {
            self.begin_commit()?
        }
        if !self.end_commit()? {
            if self.random.one_in(3) {
                // It may be that nothing is to be taken back.
                let _ = self.store().store.rollback();
                self.write_scratch()?;
            }
            if self.random.one_in(4) {
                return Err(End::Killed);
            }
            self.power.mend();
            self.roll_back()?;
        }
        self.power.mend();
        Ok(())
    }

    /// A commit that needs a new journal, which the drives refuse.
    pub fn fail_new_journal(&mut self) -> Result<(), End> {
        self.write_some()?;
        let note = vec![1; NEW_JOURNAL_BYTES];
        self.model().newest.notes.insert("second".to_owned(), note.clone());
        self.store().store.set_note("second", note).unwrap();
        self.power.fail(Operation::Write, ".journal");
        self.begin_commit()?;
        assert!(!self.end_commit()?);
        Ok(())
    }

    fn end_writes(&mut self) -> Result<(), End> {
        while !self.writes.is_empty() {
            self.event()?;
        }
        Ok(())
    }

    /// Whether the commit under way, if any, is durable.
    fn end_commit(&mut self) -> Result<bool, End> {
        self.end_writes()?;
        while self.model().under_way.is_some() {
            if !self.event()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What comes next. `false`: a commit that failed while the power was on.
    fn event(&mut self) -> Result<bool, End> {
        match self.store().any_event() {
            StoreEvent::Written { id, result, .. } => {
                let (span, seed) = self.writes.remove(&id).unwrap();
                match result {
                    Ok(()) if span.run.0 == SCRATCH => {}
                    Ok(()) => self.model().write(span, seed),
                    Err(error) => self.expect_cut(&error)?,
                }
            }
            StoreEvent::Committed { result: Ok(()), .. } | StoreEvent::Recorded { result: Ok(()) } => {
                self.model().committed();
            }
            StoreEvent::Committed { .. } | StoreEvent::Recorded { .. } if self.power.is_on() => {
                return Ok(false);
            }
            StoreEvent::Committed { .. } | StoreEvent::Recorded { .. } => return Err(End::Cut),
            StoreEvent::Read { .. } => unreachable!("nothing is read while it works"),
        }
        Ok(true)
    }

    /// Nothing fails while the power is on but what a test makes fail.
    fn expect_cut(&self, error: &Error) -> Result<(), End> {
        assert!(!self.power.is_on(), "{error}");
        Err(End::Cut)
    }
}
