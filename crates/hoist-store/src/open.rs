//! Opening a store: finding its newest epoch.

use crate::batch::Image;
use crate::blocking_io::Switch;
use crate::contents::Contents;
use crate::directory::{Directory, Journals, manifest, segment_path};
use crate::free_space::FreeSpace;
use crate::history::History;
use crate::journal::{self, Copy};
use crate::loader::Loader;
use crate::lock::{Holders, Lock};
use crate::missing;
use crate::segments::{Segment, Segments};
use crate::shared::ReadOnly;
use crate::shares::Shares;
use crate::sources::open_sources;
use crate::spread::Spread;
use crate::store::{Drives, Durable};
use crate::{Config, Error, Store};
use hoist_format::{Extent, Header};
use hoist_io::{Completion, IoThread};
use hoist_memory::Slab;
use std::path::Path;
use std::sync::Arc;

/// What a directory's thread calls with every completion.
pub type Deliver = Box<dyn FnMut(Completion) + Send>;

/// How the threads of a store are started.
pub(crate) struct Threads<'a, D> {
    /// Starts the thread of the directory with this number among those given.
    pub start: &'a dyn Fn(usize, Deliver) -> Result<IoThread, hoist_io::Error>,
    pub deliver: D,
}

/// Starts threads as the config has it.
pub(crate) fn starter(
    io: &hoist_io::Config,
    slab: &Arc<Slab>,
) -> impl Fn(usize, Deliver) -> Result<IoThread, hoist_io::Error> {
    move |place, deliver| IoThread::spawn(&format!("hoist-io-{place}"), io, Arc::clone(slab), deliver)
}

impl<D: Fn(Completion) + Send + Clone + 'static> Threads<'_, D> {
    pub fn open(
        &self,
        (path, holders): (&Path, Holders),
        place: usize,
        switch: &Switch,
    ) -> Result<Directory, Error> {
        let lock = Lock::take(path, holders)?;
        let io = (self.start)(place, Box::new(switch.deliver_to(self.deliver.clone())))?;
        Ok(Directory {
            path: path.to_owned(),
            io,
            free: FreeSpace::default(),
            journals: Journals::default(),
            lock,
        })
    }
}

pub(crate) fn check(config: &Config) -> Result<(), Error> {
    let problems = config.problems();
    if problems.is_empty() { Ok(()) } else { Err(Error::Config(problems)) }
}

/// See [`Store::open`] and [`Store::open_shared`].
pub(crate) fn open<D>(config: &Config, threads: &Threads<'_, D>, holders: Holders) -> Result<Store, Error>
where
    D: Fn(Completion) + Send + Clone + 'static,
{
    check(config)?;
    let mut switch = Switch::new();
    let mut copies = Vec::new();
    for (place, path) in config.nvme_path.iter().enumerate() {
        if !manifest(path).is_dir() {
            return Err(Error::NoStore {
                directory: path.clone(),
                what: "it has no folder \"manifest\"".into(),
            });
        }
        let directory = threads.open((path, holders), place, &switch)?;
        let copy = journal::read(&directory, &mut switch)?;
        copies.push((directory, copy));
    }
    let (header, best, present) = agree(&mut copies, holders)?;
    let (found, asked) = ((header.rank, header.world_size), (config.rank, config.world_size));
    if config.world_size > 0 && found != asked {
        return Err(Error::Rank { found, asked });
    }
    let (epoch, batch) = (best.epoch.clone(), best.batch);
    let damaged = |directory: &Directory, what| Error::Damaged { directory: directory.path.clone(), what };
    let (mut contents, mut history) = best.finish().map_err(|what| damaged(&copies[0].0, what))?;
    let (mut segments, mut missing) = (Segments::new(Vec::new()), Vec::new());
    for (number, name) in header.directories.iter().enumerate() {
        let sizes = header.segments.get(number).map_or(&[][..], Vec::as_slice);
        match present.iter().position(|present| *present == number) {
            Some(place) => open_segments(place, &mut copies[place].0, sizes, &mut segments)?,
            None => {
                segments.push_missing(sizes.len());
                missing.push(name.clone());
            }
        }
    }
    if !missing.is_empty() {
        tracing::warn!(missing = missing.join(", "), "what lies in these directories has no bytes");
        missing::leave_out(&mut contents, &mut history, &segments)?;
    }
    let shares = take_up_space(&mut copies, &segments, &contents, &history)?;
    let mut spread = Spread::new(copies.len());
    let directories = match holders {
        // They stay as they are, behind or torn: what they say was found.
        Holders::Readers => copies.into_iter().map(|(directory, _)| directory).collect(),
        Holders::One => {
            let image = Image { contents: &contents, history: &history, epoch: &epoch, batch };
            take_up_journals(copies, &header, &image, (&mut spread, &mut switch))?
        }
    };
    let durable = Durable { contents, history, shares, epoch, batch };
    let sources = open_sources(&durable.contents.layout.sources.files, threads, directories.len(), &switch)?;
    let drives = Drives { directories, segments, spread, sources, missing };
    let mut store = Store::new(config, header, durable, drives, switch);
    match (config.epoch, holders) {
        (Some(epoch), Holders::One) => store.start_at(epoch)?,
        (Some(epoch), Holders::Readers) => store.look_at(epoch)?,
        (None, _) => {}
    }
    if let Some(name) = &config.snapshot {
        store.epoch = store.history.snapshot(name)?.clone();
        store.contents = store.history.contents_at(&store.contents, store.epoch.batch);
        store.read_only = Some(ReadOnly::Snapshot(name.clone()));
    }
    if holders == Holders::Readers {
        store.read_only = Some(ReadOnly::Shared);
    }
    Ok(store)
}

/// Puts the directories in the store's order and finds the newest of what they say. Which of the store's directories each
/// is: who only reads may do without some.
fn agree(
    copies: &mut Vec<(Directory, Copy)>,
    holders: Holders,
) -> Result<(Header, Loader, Vec<usize>), Error> {
    let newest_seen = copies.iter().filter_map(|(_, copy)| copy.newest_seen).max();
    let batch = |copy: &Copy| copy.found.as_ref().map(|found| found.batch);
    let best = copies.iter().enumerate().filter_map(|(place, (_, copy))| Some((batch(copy)?, place))).max();
    let first = copies[0].0.path.clone();
    let Some((batch, best)) = best else {
        return Err(match newest_seen {
            None => Error::NoStore { directory: first, what: "its journals hold no records".into() },
            Some(seen) => {
                let what = format!("there are records of batch {seen}, and no journal has a valid start");
                Error::Damaged { directory: first, what }
            }
        });
    };
    // A commit that was cut off leaves records of one batch more, never of two.
    if let Some(seen) = newest_seen.filter(|seen| *seen > batch + 1) {
        let what = format!("there are records of batch {seen}, and the valid ones end at {batch}");
        return Err(Error::Damaged { directory: copies[best].0.path.clone(), what });
    }
    let Some(header) = copies[best].1.found.as_ref().map(|found| found.header.clone()) else {
        unreachable!("the newest copy has a journal")
    };
    let present = order(copies, &header, holders)?;
    // `order` has moved the copies; the newest one is where its header says.
    let newest = present.iter().position(|place| *place == header.directory as usize);
    let Some(found) = newest.and_then(|newest| copies[newest].1.found.as_mut()) else {
        unreachable!("the newest copy is in directory {}", header.directory)
    };
    let loader = std::mem::take(&mut found.loader);
    Ok((header, loader, present))
}

/// Sorts the copies by their number in the store; each number must be there once, or, for readers, once at most. The
/// numbers.
fn order(
    copies: &mut Vec<(Directory, Copy)>,
    header: &Header,
    holders: Holders,
) -> Result<Vec<usize>, Error> {
    let wrong = |what| Err(Error::Directories { what });
    let mut places: Vec<Option<(Directory, Copy)>> = header.directories.iter().map(|_| None).collect();
    let mut unnumbered = Vec::new();
    for (directory, copy) in copies.drain(..) {
        let Some(found) = &copy.found else {
            unnumbered.push((directory, copy));
            continue;
        };
        let (store, number) = (found.header.store, found.header.directory);
        if store != header.store {
            return wrong(format!(
                "{} is part of store {store}, not of {}",
                directory.path.display(),
                header.store
            ));
        }
        match places.get_mut(number as usize) {
            Some(place) if place.is_none() => *place = Some((directory, copy)),
            _ => return wrong(format!("{} is a second copy of number {number}", directory.path.display())),
        }
    }
    // A directory without any journal is known by elimination, so there can be one at most.
    let empty: Vec<usize> = (0..places.len()).filter(|place| places[*place].is_none()).collect();
    match (empty.as_slice(), unnumbered.len()) {
        (_, 0) => {}
        ([place], 1) => places[*place] = unnumbered.pop(),
        _ => {
            let paths: Vec<_> = unnumbered.iter().map(|(d, _)| d.path.display().to_string()).collect();
            return wrong(format!("{} hold no journal of store {}", paths.join(", "), header.store));
        }
    }
    let missing: Vec<_> = (0..places.len()).filter(|place| places[*place].is_none()).collect();
    if !missing.is_empty() && holders == Holders::One {
        let names: Vec<_> = missing.iter().map(|place| header.directories[*place].as_str()).collect();
        return wrong(format!(
            "missing are those created as {}; without them it can only be read",
            names.join(", ")
        ));
    }
    let present = (0..places.len()).filter(|place| places[*place].is_some()).collect();
    copies.extend(places.into_iter().flatten());
    Ok(present)
}

fn open_segments(
    place: usize,
    directory: &mut Directory,
    sizes: &[u64],
    segments: &mut Segments,
) -> Result<(), Error> {
    directory.free = FreeSpace::new(segments.count() as u32, sizes);
    for (number, bytes) in sizes.iter().enumerate() {
        let number = number as u32;
        let path = segment_path(&directory.path, number);
        let (file, length) = directory.open_file(path.clone(), false)?;
        if length < *bytes {
            let what = format!("{} has {length} bytes of {bytes}", path.display());
            return Err(Error::Damaged { directory: directory.path.clone(), what });
        }
        segments.push(Segment { directory: place, number, file });
    }
    Ok(())
}

/// Takes the extents of all epochs out of the free space. Returns those that several have.
fn take_up_space(
    copies: &mut [(Directory, Copy)],
    segments: &Segments,
    contents: &Contents,
    history: &History,
) -> Result<Shares, Error> {
    let wrong = |directory: &Directory, extent: Extent| {
        let what = format!("{extent:?} is claimed twice, or lies in no segment");
        Err(Error::Damaged { directory: directory.path.clone(), what })
    };
    let place_of = |extent: Extent| segments.get(&extent).map_or(0, |segment| segment.directory);
    let live = contents.bytes.iter().flat_map(|bytes| bytes.locations.all()).map(|piece| piece.extent);
    for extent in live {
        let directory = &mut copies[place_of(extent)].0;
        if !directory.free.take(extent) {
            return wrong(directory, extent);
        }
    }
    let mut shares = Shares::default();
    for extent in history.spans.iter().flat_map(|past| &past.extents).copied() {
        let directory = &mut copies[place_of(extent)].0;
        let Some((free, taken)) = directory.free.split(extent) else { return wrong(directory, extent) };
        for part in free {
            if !directory.free.take(part) {
                return wrong(directory, part);
            }
        }
        taken.into_iter().for_each(|part| shares.add(part));
    }
    Ok(shares)
}

/// Goes on with all journals. A directory that cannot be written is quarantined, as long as another keeps the journal.
fn take_up_journals(
    copies: Vec<(Directory, Copy)>,
    header: &Header,
    image: &Image<'_>,
    (spread, switch): (&mut Spread, &mut Switch),
) -> Result<Vec<Directory>, Error> {
    let mut directories = Vec::new();
    let mut failed = None;
    for (place, (mut directory, copy)) in copies.into_iter().enumerate() {
        if let Err(error) = take_up_journal(&mut directory, &copy, header, image, (place, switch)) {
            tracing::error!(directory = %directory.path.display(), %error, "its journal cannot be written");
            spread.quarantine(place, &error.to_string());
            directory.journals.behind = true;
            failed = Some(error);
        }
        directories.push(directory);
    }
    match failed.filter(|_| directories.iter().all(|directory| directory.journals.behind)) {
        Some(error) => Err(error),
        None => Ok(directories),
    }
}

/// Goes on with the directory's journal, or writes a new one where it is not at the newest batch or ends in a torn
/// batch.
fn take_up_journal(
    directory: &mut Directory,
    copy: &Copy,
    header: &Header,
    image: &Image<'_>,
    (place, switch): (usize, &mut Switch),
) -> Result<(), Error> {
    let batch = image.batch;
    journal::open_files(directory)?;
    let current = copy.found.as_ref().filter(|found| found.batch == batch);
    if let Some(found) = current {
        directory.journals.active = found.place;
        (directory.journals.tail, directory.journals.capacity) = (found.tail.bytes as u64, found.bytes);
        if copy.newest_seen == Some(batch) {
            // The record may be in the drive's cache only, and the extents that it drops are about to be used.
            switch.sync(directory, directory.journals.file(found.place))?;
            return journal::retire(directory, switch, directory.journals.file(1 - found.place));
        }
    } else if let Some(found) = &copy.found {
        directory.journals.active = found.place;
    }
    tracing::warn!(directory = %directory.path.display(), batch, "the journal is behind or torn: written anew");
    journal::rewrite(directory, switch, Header { directory: place as u32, ..header.clone() }, image)
}
