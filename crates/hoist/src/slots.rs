//! Who has each unit's memory: the table of slots, by value.

use hoist_device::{DeviceReader, DeviceSlot};
use hoist_memory::{Slot, SlotReader};
use hoist_plan::{Tier, UnitId};

use crate::message::Hold;

/// One place of a unit: its host slot or its device range.
enum Place<R> {
    Empty,
    /// A request, a worker or a lease is its only holder.
    Away,
    /// Read, but not verified yet: nobody may see it.
    Unverified(Slot),
    /// Here; readers may have clones.
    Here(R),
}

/// The slots of all units. The plan says who may have which, and this table has the memory
/// itself: what the plan got wrong shows here as a panic with the unit, not as wrong bytes.
pub(crate) struct Slots {
    host: Vec<Place<SlotReader>>,
    device: Vec<Place<DeviceReader>>,
}

impl Slots {
    pub(crate) fn new(units: usize) -> Slots {
        Slots {
            host: (0..units).map(|_| Place::Empty).collect(),
            device: (0..units).map(|_| Place::Empty).collect(),
        }
    }

    /// A new host slot has been taken and is on its way.
    pub(crate) fn host_leaves(&mut self, unit: UnitId) {
        let place = &mut self.host[unit.0 as usize];
        assert!(matches!(place, Place::Empty), "unit {} gets a second host slot", unit.0);
        *place = Place::Away;
    }

    /// It came back with the unit's bytes.
    pub(crate) fn host_arrives(&mut self, unit: UnitId, slot: Slot) {
        let place = &mut self.host[unit.0 as usize];
        assert!(matches!(place, Place::Away), "unit {} has its host slot already", unit.0);
        *place = Place::Here(slot.share());
    }

    /// It came back with bytes that must be verified.
    pub(crate) fn keep_unverified(&mut self, unit: UnitId, slot: Slot) {
        let place = &mut self.host[unit.0 as usize];
        assert!(matches!(place, Place::Away), "unit {} has its host slot already", unit.0);
        *place = Place::Unverified(slot);
    }

    pub(crate) fn take_unverified(&mut self, unit: UnitId) -> Slot {
        let place = std::mem::replace(&mut self.host[unit.0 as usize], Place::Away);
        let Place::Unverified(slot) = place else { panic!("unit {} has nothing to verify", unit.0) };
        slot
    }

    /// The fill failed; the slot is given back.
    pub(crate) fn host_is_lost(&mut self, unit: UnitId) {
        self.host[unit.0 as usize] = Place::Empty;
    }

    pub(crate) fn read_host(&self, unit: UnitId) -> SlotReader {
        match &self.host[unit.0 as usize] {
            Place::Here(reader) => reader.clone(),
            _ => panic!("unit {} has no host slot to read", unit.0),
        }
    }

    pub(crate) fn drop_host(&mut self, unit: UnitId) {
        drop(self.take_host(unit));
        self.host[unit.0 as usize] = Place::Empty;
    }

    /// The slot for its only writer.
    fn take_host(&mut self, unit: UnitId) -> Slot {
        let place = std::mem::replace(&mut self.host[unit.0 as usize], Place::Away);
        let Place::Here(reader) = place else { panic!("unit {} has no host slot", unit.0) };
        reader.try_into_slot().unwrap_or_else(|_| panic!("host slot of unit {} is still read", unit.0))
    }

    pub(crate) fn device_leaves(&mut self, unit: UnitId) {
        let place = &mut self.device[unit.0 as usize];
        assert!(matches!(place, Place::Empty), "unit {} gets a second device range", unit.0);
        *place = Place::Away;
    }

    pub(crate) fn device_arrives(&mut self, unit: UnitId, slot: DeviceSlot) {
        let place = &mut self.device[unit.0 as usize];
        assert!(matches!(place, Place::Away), "unit {} has its device range already", unit.0);
        *place = Place::Here(slot.share());
    }

    pub(crate) fn read_device(&self, unit: UnitId) -> DeviceReader {
        match &self.device[unit.0 as usize] {
            Place::Here(reader) => reader.clone(),
            _ => panic!("unit {} has no device range to read", unit.0),
        }
    }

    pub(crate) fn drop_device(&mut self, unit: UnitId) {
        drop(self.take_device(unit));
        self.device[unit.0 as usize] = Place::Empty;
    }

    fn take_device(&mut self, unit: UnitId) -> DeviceSlot {
        let place = std::mem::replace(&mut self.device[unit.0 as usize], Place::Away);
        let Place::Here(reader) = place else { panic!("unit {} has no device range", unit.0) };
        reader.try_into_slot().unwrap_or_else(|_| panic!("device range of unit {} is still read", unit.0))
    }

    /// What a lease gets.
    pub(crate) fn lend(&mut self, unit: UnitId, tier: Tier, writes: bool) -> Hold {
        match (tier, writes) {
            (Tier::Host, false) => Hold::HostRead(self.read_host(unit)),
            (Tier::Host, true) => Hold::HostWrite(self.take_host(unit)),
            (Tier::Device, false) => Hold::DeviceRead(self.read_device(unit)),
            (Tier::Device, true) => Hold::DeviceWrite(self.take_device(unit)),
        }
    }

    /// What a lease gives back.
    pub(crate) fn give_back(&mut self, unit: UnitId, hold: Hold) {
        match hold {
            Hold::HostRead(reader) => drop(reader),
            Hold::DeviceRead(reader) => drop(reader),
            Hold::HostWrite(slot) => self.host_arrives(unit, slot),
            Hold::DeviceWrite(slot) => self.device_arrives(unit, slot),
        }
    }
}
