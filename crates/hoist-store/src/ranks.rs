//! Stores of several ranks: each keeps the epoch before its newest until the trainer says that all ranks have that.

use crate::commit::Purpose;
use crate::history::PREVIOUS;
use crate::{BlockingStore, Error, Store, StoreEvent};
use hoist_format::EpochRecord;

impl Store {
    /// Says that all ranks have made `epoch`, the newest, durable: the one before it is kept no more. Ends with
    /// [`StoreEvent::Recorded`], unless the answer is `false`: it was final before, as every epoch is with one rank.
    ///
    /// # Errors
    /// [`Error::NoEpoch`] when the newest is another one; [`Error::ReadOnly`]; those of [`Store::commit`].
    pub fn finalize(&mut self, epoch: u64) -> Result<bool, Error> {
        self.check_writable()?;
        if epoch != self.epoch.number {
            return Err(Error::NoEpoch { asked: epoch, epochs: self.epochs() });
        }
        if !self.awaits_final() {
            return Ok(false);
        }
        self.start_commit(Purpose::Delete { name: PREVIOUS.to_owned() }, false).map(|_| true)
    }

    /// Whether the newest epoch is not final: no epoch is committed after it until it is, and bytes of the one before it
    /// take their space.
    #[must_use]
    pub fn awaits_final(&self) -> bool {
        self.history.previous().is_some()
    }

    /// The numbers of the epochs that the store can be opened at by [`crate::Config::epoch`], oldest first. The newest that
    /// all ranks have is where they go on together.
    #[must_use]
    pub fn epochs(&self) -> Vec<u64> {
        let mut epochs: Vec<_> =
            self.history.previous().into_iter().chain([&self.epoch]).map(|epoch| epoch.number).collect();
        // Open to be read at the one before the newest, the store shows that one alone.
        epochs.dedup();
        epochs
    }

    /// The epoch before the newest, if that is what is asked for.
    pub(crate) fn previous(&self, asked: u64) -> Result<EpochRecord, Error> {
        let previous = self.history.previous().filter(|epoch| epoch.number == asked);
        previous.cloned().ok_or_else(|| Error::NoEpoch { asked, epochs: self.epochs() })
    }

    /// Goes on at an epoch of [`Store::epochs`]; waits.
    pub(crate) fn start_at(&mut self, asked: u64) -> Result<(), Error> {
        if asked == self.epoch.number {
            return Ok(());
        }
        let previous = self.previous(asked)?;
        self.switch.set_waits(true);
        self.go_to(&previous.clone(), Purpose::Again { previous })?;
        let result = self.wait_for_commit();
        self.switch.set_waits(false);
        result
    }

    /// Waits for the commit under way, whose completions nobody else gets.
    pub(crate) fn wait_for_commit(&mut self) -> Result<(), Error> {
        loop {
            let completion = self.switch.wait()?;
            // What was in flight besides changes nothing any more.
            if let Some(StoreEvent::Committed { result, .. } | StoreEvent::Recorded { result }) =
                self.handle(completion)
            {
                return result;
            }
        }
    }
}

impl BlockingStore {
    /// Says that all ranks have made `epoch` durable, and waits; see [`Store::finalize`].
    ///
    /// # Errors
    /// Those of [`Store::finalize`].
    pub fn finalize(&mut self, epoch: u64) -> Result<bool, Error> {
        let recorded = self.store.finalize(epoch)?;
        if recorded {
            self.wait_for_record()?;
        }
        Ok(recorded)
    }
}
