//! What trainers do with the driver: steps, commits, flushes, several clients at once.

use hoist_plan::{ClientId, Event, Kind, LeaseId};

use super::World;

impl World {
    /// Several clients at once, each with one lease or one demand at a time, in any order.
    pub fn serve_clients(&mut self, clients: u32, accesses: u64) {
        let length = self.accesses[&self.order].len() as u64;
        let mut holds: Vec<Option<LeaseId>> = vec![None; clients as usize];
        for _ in 0..accesses {
            if self.rolling_back {
                break;
            }
            let client = self.random.below(u64::from(clients)) as usize;
            match holds[client] {
                None => {
                    let lease = LeaseId(self.next_lease);
                    self.next_lease += 1;
                    let access = self.random.below(length) as usize;
                    self.leases.insert(lease, access);
                    holds[client] = Some(lease);
                    let client = ClientId(client as u32);
                    self.event(Event::Demanded { lease, client, access: access as u32 });
                }
                Some(lease) if self.held.contains(&lease) => {
                    self.release(lease);
                    holds[client] = None;
                }
                Some(lease) if !self.leases.contains_key(&lease) => holds[client] = None,
                Some(_) => {
                    self.complete_one();
                }
            }
        }
        for lease in holds.into_iter().flatten() {
            while self.leases.contains_key(&lease) && !self.held.contains(&lease) {
                let others: Vec<LeaseId> = self.held.iter().copied().collect();
                if !self.complete_one() {
                    assert!(!others.is_empty(), "lease {} is never granted and nobody holds one", lease.0);
                    others.into_iter().for_each(|other| self.release(other));
                }
            }
            if self.held.contains(&lease) {
                self.release(lease);
            }
        }
    }

    /// What a failure of the drive comes to. Leases come back later, or with it.
    pub fn roll_back(&mut self) {
        self.rolling_back = true;
        self.event(Event::Rollback);
    }

    /// Waits until a rollback is over, which no lease keeps from its end.
    pub fn finish_rollback(&mut self) {
        while self.rolling_back {
            assert!(self.complete_one(), "the rollback never ends");
        }
    }

    /// Ends the step; its epoch becomes durable later.
    pub fn commit(&mut self) {
        self.finish_commits();
        let epoch = self.epoch;
        self.epoch += 1;
        self.sealed.insert(epoch, self.newest.clone());
        self.event(Event::CommitBegun(epoch));
    }

    /// Waits until every epoch is durable.
    pub fn finish_commits(&mut self) {
        while self.done_epoch + 1 < self.epoch {
            assert!(self.complete_one(), "epoch {} is never durable", self.done_epoch + 1);
        }
    }

    /// Writes everything out and forgets all slots.
    pub fn flush(&mut self) {
        self.flushed = false;
        self.event(Event::Flush { all: true });
        while !self.flushed {
            assert!(self.complete_one(), "the flush never ends");
        }
        assert!(self.host.iter().all(Option::is_none) && self.device.iter().all(Option::is_none));
        assert_eq!(self.plan.used(), (0, 0));
    }
    /// NVMe holds the newest version of every durable unit.
    pub fn check_all_is_written(&self) {
        for (unit, spec) in self.specs.iter().enumerate().filter(|(_, spec)| spec.kind == Kind::Durable) {
            assert_eq!(self.nvme[unit], self.newest[unit], "unit {unit} of {} bytes", spec.bytes);
        }
    }
}
