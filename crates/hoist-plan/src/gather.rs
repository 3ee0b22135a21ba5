//! Making derived units: what they are made from is gathered on the host first.

use crate::contract::{Action, Priority, Refusal, UnitId};
use crate::demand::Demand;
use crate::fetch::Brought;
use crate::plan::{Plan, Work};
use crate::unit::{Fill, Host, Kind};

impl Plan {
    /// Starts the derivations of which all sources have come, and brings the others' sources.
    pub(crate) fn gather(&mut self, actions: &mut Vec<Action>) {
        let serving = self.serving;
        for id in self.gathering.clone() {
            if !self.gathering.contains(&id) {
                // Given up, to make room for another's sources.
                continue;
            }
            let Kind::Derived { sources } = self.unit(id).spec.kind.clone() else {
                panic!("unit {} gathers sources but is not derived", id.0);
            };
            let seq = self.unit(id).next.seq;
            self.serving = self.unit(id).demanded_by;
            let priority = if self.serving.is_some() { Priority::Demand } else { Priority::Prefetch };
            let mut all = true;
            let mut cannot = None;
            for &source in &sources {
                match self.bring_host(source, true, seq, priority, actions) {
                    Brought::Ready => all &= !self.unit(source).host_holds.writer,
                    Brought::Waits(_) => all = false,
                    Brought::Cannot(refusal) => cannot = Some(refusal),
                }
            }
            if let Some(refusal) = cannot {
                self.gathering.retain(|&other| other != id);
                self.give_up(id, refusal, actions);
            } else if all {
                self.gathering.retain(|&other| other != id);
                let request = self.request(id, Work::Derive);
                self.unit(id).host = Host::Filling(Fill::Deriving(request));
                for &source in &sources {
                    self.unit(source).host_holds.readers += 1;
                }
                actions.push(Action::Derive { request, unit: id });
            }
        }
        self.serving = serving;
    }

    /// Whether a demand that came before the one being served, or any if none is, waits to change one
    /// of these units: what would be made from it would be forgotten again.
    pub(crate) fn are_about_to_change(&self, sources: &[UnitId]) -> bool {
        let before = |demand: &&Demand| self.serving.is_none_or(|serving| demand.lease < serving);
        let order = &self.orders[self.current].order;
        let changes = |demand: &Demand| {
            let mut uses = self.uses(demand.seq).map(|i| &order.uses[i]);
            uses.any(|one| one.mode.writes() && sources.contains(&one.unit))
        };
        self.demands.iter().filter(before).any(changes)
    }

    /// Lets go of the derivations for which neither an older demand nor the one being served waits, so
    /// that their pages are free for it. `false`: there was none.
    pub(crate) fn cancel_gathering(&mut self, actions: &mut Vec<Action>) -> bool {
        let all = std::mem::take(&mut self.gathering);
        let count = all.len();
        for id in all {
            if self.may_evict(&self.units[id.0 as usize]) {
                self.leave_gathering(id, actions);
            } else {
                self.gathering.push(id);
            }
        }
        self.gathering.len() < count
    }

    fn give_up(&mut self, id: UnitId, refusal: Refusal, actions: &mut Vec<Action>) {
        self.unit(id).refused = Some(refusal);
        self.leave_gathering(id, actions);
    }

    pub(crate) fn leave_gathering(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        let Kind::Derived { sources } = self.unit(id).spec.kind.clone() else {
            panic!("unit {} gathers sources but is not derived", id.0);
        };
        self.host_used_pages -= self.unit(id).pages;
        self.unit(id).host = Host::Absent;
        self.count_kept(id);
        for source in sources {
            self.unit(source).wanted -= 1;
            self.settle(source, actions);
        }
    }

    pub(crate) fn derived(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        let Kind::Derived { sources } = self.unit(id).spec.kind.clone() else {
            panic!("unit {} was derived but is not a derived one", id.0);
        };
        self.unit(id).made_ahead = true;
        self.host_filled(id, actions);
        for source in sources {
            let unit = self.unit(source);
            unit.host_holds.readers -= 1;
            unit.wanted -= 1;
            self.settle(source, actions);
        }
    }
}
